"""How often intervals of analysis/growth.py cover and verdicts are wrong.

    python tests/simulate_growth.py
    python tests/simulate_growth.py --designs Convolutional    # the others stay as they are

takes about two minutes for each design on two cores and writes tests/growth_simulation.json,
which tables/simulation.md shows. The designs are the trials by size of the results in
kernel_output/, and those of the plan. A test says so where the results have other trials by now;
then run it again. tests/test_growth.py runs a short form of it.
"""

import argparse
import itertools
import json
import multiprocessing
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from analysis import growth
from analysis.experiments import read_experiments
from runtime.results import is_computed

VERDICTS = (growth.FLAT, growth.SLOW, growth.FAST, growth.UNDECIDED)
PLAN = ([16, 32, 64, 128, 256, 512], [16, 8, 4, 4, 4, 4])  # the original's trials by size
TRUTHS = {  # y(n), λ, whether it grows faster than log n
    "constant": (lambda n: 1 + 0 * n, None, False),
    "log n": (np.log, 0.0, False),
    "n^0.25": (lambda n: n**0.25, 0.25, True),
    "n^0.5": (lambda n: n**0.5, 0.5, True),
    "n": (lambda n: n, 1.0, True),
    "2 - 16/n": (lambda n: 2 - 16 / n, -1.0, False),
}
SPREADS = {  # of a trial, relative to y
    "3 %": lambda n: 0.03 + 0 * n,
    "10 %": lambda n: 0.1 + 0 * n,
    "30 %": lambda n: 0.3 + 0 * n,
    "30 % falling like n^-0.4": lambda n: 0.3 * (n / 16) ** -0.4,
    "10 % rising like n^0.2": lambda n: 0.1 * (n / 16) ** 0.2,
    "50 %, log-normal": lambda n: 0.5 + 0 * n,
}


def designs(folder):
    """{name: (sizes, trials)}: the plan's, and where they differ those of the results there."""
    found = {"plan": PLAN}
    for experiment in read_experiments(folder)[0]:
        if experiment.dataset.name == "mnist" and "results" in experiment.kinds:
            trials = is_computed(experiment.results).sum("trial")
            trials = trials[trials > 0]
            own = trials.n.values.tolist(), trials.values.tolist()
            if own not in found.values():
                found[experiment.short] = own
    return found


def simulate(design, truth, spread, repeats):
    """A row of the table: shares of `repeats` data sets, None where the truth has no such number.

    design: (sizes, trials of each).
    """
    n, trials = (np.array(x, float) for x in design)
    law, index, faster = TRUTHS[truth]
    rng = np.random.default_rng(
        [*design[1], *(list(x).index(y) for x, y in ((TRUTHS, truth), (SPREADS, spread)))]
    )
    drawn = []
    for size, count in zip(n, trials, strict=True):
        normal, relative = rng.standard_normal((repeats, int(count))), SPREADS[spread](size)
        width = np.sqrt(np.log1p(relative**2))
        skewed = np.exp(width * normal - width**2 / 2)
        drawn.append(law(size) * (skewed if "log-normal" in spread else 1 + relative * normal))
    fits, inside = [], np.zeros(len(n))
    # As growth.moments has them, of all repeats at once: one by one takes xarray minutes.
    means = [values.mean(axis=1) for values in drawn]
    deviations = [values.std(axis=1, ddof=min(1, values.shape[1] - 1)) for values in drawn]
    for y, deviation in zip(np.transpose(means), np.transpose(deviations), strict=True):
        relative, freedom = growth.relative_errors(n, y, deviation, trials)
        fits.append(growth.fit_curves(n, y, relative, freedom))
        inside += np.abs(y - law(n)) <= growth.half_widths(relative, freedom) * y

    def covered(name, value):
        bounds = np.array([getattr(fitted, name)[1:] for fitted in fits])
        return float(np.mean((bounds[:, 0] <= value) & (value <= bounds[:, 1])))

    said = [fitted.verdict for fitted in fits]
    shares = {verdict: said.count(verdict) / repeats for verdict in VERDICTS}
    slow = shares[growth.FLAT] + shares[growth.SLOW]
    return {
        "sizes": design[0],
        "trials": design[1],
        "truth": truth,
        "spread": spread,
        "repeats": repeats,
        "clear": sum(fitted.clear for fitted in fits) / repeats,
        "means": (inside / repeats).tolist(),
        "ratio": covered("ratio", law(n[-1]) / law(n[0])),
        "index": None if index is None else covered("index", index),
        **shares,
        "wrong": slow if faster else shares["faster than log n"],
    }


def row_of(name, design, spread, truth, repeats):
    """A row with the design's name."""
    return {"design": name} | simulate(design, truth, spread, repeats)


def main():
    """Simulate designs, every truth and spread, and write the rows as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "kernel_output")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("growth_simulation.json")
    )
    parser.add_argument("--designs", nargs="+", help="only these; rows of others are kept")
    options = parser.parse_args()
    in_use = designs(options.results)
    chosen = options.designs or list(in_use)
    unknown = set(chosen) - set(in_use)
    if unknown:
        parser.error(f"--designs {', '.join(unknown)}: no such design; use {', '.join(in_use)}")
    rows = {name: [] for name in in_use}
    if options.output.exists():
        for row in json.loads(options.output.read_text()):
            if row["design"] in rows and row["design"] not in chosen:
                rows[row["design"]].append(row)
    cases = []
    for name, spread, truth in itertools.product(chosen, SPREADS, TRUTHS):
        cases.append((name, in_use[name], spread, truth, options.repeats))
    with multiprocessing.Pool() as pool:
        for row in pool.starmap(row_of, cases, chunksize=1):
            rows[row["design"]].append(row)
    lines = [json.dumps(row) for row in itertools.chain(*rows.values())]
    options.output.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"wrote {options.output}: {len(cases)} rows simulated, {len(lines)} in all")


if __name__ == "__main__":
    main()
