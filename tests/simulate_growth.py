"""How often intervals of analysis/growth.py cover and verdicts are wrong.

    python tests/simulate_growth.py

takes two minutes and writes tests/growth_simulation.json, which kernel_output/tables/simulation.md
shows. The designs are the trials by size of the results in kernel_output/, and those of the plan.
simulation.md says so where the results have other trials by now; then run it again.
tests/test_growth.py runs a short form of it.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from analysis import growth, simulation
from analysis.experiments import read_experiments

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
        own = simulation.design(experiment) if "results" in experiment.kinds else PLAN
        if experiment.dataset.name == "mnist" and own not in found.values():
            found[experiment.title.partition(",")[0]] = own
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
    y = np.stack([values.mean(1) for values in drawn], 1)
    deviation = np.stack([values.std(1, ddof=min(1, values.shape[1] - 1)) for values in drawn], 1)
    relative, freedom = growth.relative_errors(n, y, deviation, trials)
    found = growth.fit_curves(n, y, relative, freedom)
    said = growth.verdicts(found["ratio_interval"], found["index_interval"])

    def covered(name, value):
        low, high = np.moveaxis(found[name + "_interval"], -1, 0)
        return float(np.mean((low <= value) & (value <= high)))

    half = growth.half_widths(relative, freedom) * y
    exponent = 0.0 if truth == "constant" else index if faster else None
    shares = {verdict: float(np.mean(said == verdict)) for verdict in growth.VERDICTS}
    slow = shares[growth.FLAT] + shares[growth.SLOW]
    means = np.mean(np.abs(y - law(n)) <= half, 0)
    return {
        "sizes": design[0],
        "trials": design[1],
        "truth": truth,
        "spread": spread,
        "repeats": repeats,
        "clear": float(found["clear"].mean()),
        "means": means.tolist(),
        "ratio": covered("ratio", law(n[-1]) / law(n[0])),
        "index": None if index is None else covered("index", index),
        "exponent": None if exponent is None else covered("exponent", exponent),
        **shares,
        "wrong": slow if faster else shares["faster than log n"],
    }


def main():
    """Simulate every design, truth and spread and write the rows as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "kernel_output")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("growth_simulation.json")
    )
    options = parser.parse_args()
    rows = []
    for (name, design), spread, truth in itertools.product(
        designs(options.results).items(), SPREADS, TRUTHS
    ):
        rows.append({"design": name} | simulate(design, truth, spread, options.repeats))
        print(
            ", ".join(
                f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()
            )
        )
    options.output.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
