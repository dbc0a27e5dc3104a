"""Writes kernel_output/RESULTS.md, all numbers from the arrays there: `python scaling.py [--output DIR]`.

A section of the document is a function of the output folder that returns Markdown, or "" where the file that it
describes is not there; `SECTIONS` lists them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import scaling
from analysis import circuits, costs, evidence, growth, tables
from analysis.tables import CLAIM, MOST_SHARED, NETWORKS, TABLES, Results, load, prefixes, table, title_of
from runtime import options

INTRODUCTION = """\
# Results

Written by `python scaling.py` from the arrays in this folder; no number is typed by hand.

Trials are the units: a trial's value is the mean over its sparsity patterns, of measurement counts the median over its
test images and patterns. Each trial draws its images from MNIST anew and independently, so that intervals are about
random draws from these images. Large trials share many. A verdict that needs sizes whose trials share more than
{shared:.0%} is therefore *undecided*. ± is the half-width of the mean's 95 % interval; the relative spread of the
trials is pooled over the sizes, or over a power of n where it changes with n (`relative_errors` in scaling.py). So the
same trials have slightly different intervals in tables of other sizes, and intervals are not cut at 0 or 1.

Growth is judged by one curve (analysis/growth.py), y(n) = a + b (n^λ − 1)/λ. Its slope against ln n goes like n^λ:
λ < 0 saturates, λ = 0 is the logarithm, λ > 0 a power. *Growth* is the curve's last value over its first. The
verdict is the first of these that holds:

- *{no_growth}*: the growth's interval is within {low:g} to {high:g};
- *no faster than log n*: such a curve fits, and λ's interval is below {margin:g} or the growth's below {high:g};
- *faster than log n*: λ's interval is above 0 and the growth's above {high:g};
- *undecided*: everything else.

A dash for λ: a constant fits, so that λ has no meaning. A dash for b: no power law fits. *Errors enlarged*: the curve
misses the means by more than their errors allow, so that all errors are multiplied until it does not.

Sparsity is the largest number of non-zero entries in a column of K̃. Post-selection is how often |k*> is prepared until
it succeeds, and readout, (1 − o²)/(o − t)², how many measurements tell the overlap o from t by one standard deviation.

K is the NTK of the training images, K̃ the sparsified matrix, κ the condition number (largest over smallest eigenvalue
by magnitude), k* the NTK of a test image with the training images. Conventions:

- *Sound*: the pattern of K̃ is drawn without replacement, and the convolutional network's percentile is one of the
  entries inside the class's own block. The original draws with replacement, and counts zeros outside the block.
- *Post-selection, original*: k* is divided by the largest entry of the whole test block, which no algorithm knows.
- *Training*: k* is divided by the training matrix's largest off-diagonal entry, which is known, and clipped.
- *k_thresh*: k* is divided by the original's own constant alone, which is known as well, and clipped: the NTK at inner
  product 1 − 10⁻⁵ (fully connected), the largest off-diagonal entry of the first trial at n = 16 (convolutional).
- *At the median*, *at zero*: what the output is compared with. The median is that of the whole test set, which an
  algorithm that sees one image does not know. Where nothing is said, accuracy is at the median and readout at zero, as
  in the original.
"""


def introduction(folder: Path) -> str:
    """What the tables hold and how growth is judged."""
    low, high = 1 / (1 + growth.MARGIN), 1 + growth.MARGIN
    return INTRODUCTION.format(low=low, high=high, margin=growth.MARGIN, no_growth=growth.NO_GROWTH, shared=MOST_SHARED)


LOSSES_CAPTION = """\
Accuracy of the exact NTK minus that of the approximations, paired by trial (bold: the 95 % interval excludes 0;
0 alone: the same in every trial):
"""


def network_sections(folder: Path) -> str:
    """Of every network: what was run, means by size, growth."""
    return "\n".join(
        network_section(title_of(p), load(folder / f"{p}_results.npz")) for p in prefixes(folder, "_results.npz")
    )


def network_section(title: str, results: Results) -> str:
    """One network's tables, and what they say about the claim."""
    n, shared, rows = results["data_sizes"], tables.shared_images(results), []
    for i in np.flatnonzero(results["trials"]):
        depths, ratios = results["depth"][i], results["off_diagonal_ratio"][i]
        span = sorted({f"{f(depths):.0f}" for f in (np.nanmin, np.nanmax)}, key=float)
        rows.append([f"{n[i]}", f"{results['trials'][i]}", " to ".join(span), f"{np.nanmax(ratios):.2g}"])
        rows[-1] += [f"{100 * share:.2g} %" for share in shared[i : i + 1]]
    heading = ["n", "trials", "depth", "largest off-diagonal entry of K over smallest diagonal one"]
    heading += ["training images shared with another trial"] * bool(shared)
    parts = [f"## {title}\n", table(heading, rows)]
    for name, columns in TABLES.items():
        parts += [f"### {name}\n", tables.means_table(results, columns)]
        if "exact" in columns:
            parts += [LOSSES_CAPTION, tables.losses_table(results)]
    claim = [name for name in CLAIM if name in results]
    rest = [name for name in scaling.QUANTITIES if name in results and name not in claim]
    parts += ["### Growth\n", "The claim, as these intervals judge it:\n"]
    parts += ["".join(f"- {tables.sentence(results, name)}\n" for name in claim), tables.growth_table(results, claim)]
    parts += ["Everything else:\n", tables.growth_table(results, rest)]
    return "\n".join(parts)


def cost_section(folder: Path) -> str:
    """What emulation.py found that one prediction costs."""
    found = prefixes(folder, "_emulation.npz")
    parts = []
    for prefix in found:
        emulation, path = costs.read_emulation(folder / f"{prefix}_emulation.npz"), folder / f"{prefix}_results.npz"
        text = costs.report(emulation, scaling.fit_growth, load(path) or None)
        parts.append(f"## {title_of(prefix)}: cost\n\n{text}")
    return "\n".join(parts)


SIMULATION = Path(__file__).parent.parent / "tests" / "growth_simulation.json"
SPREADS = {  # of the trials in tests/growth_simulation.json: what the names of a kind have in common
    "normal, the same at all sizes": lambda name: "normal" not in name and " like " not in name,
    "not normal": lambda name: "normal" in name,
    "changes with n": lambda name: " like " in name,
}


def simulation() -> list[dict[str, Any]]:
    """What tests/simulate_growth.py measured, a row each of design, truth and spread; none where it did not run."""
    return json.loads(SIMULATION.read_text()) if SIMULATION.exists() else []


def simulation_section(folder: Path) -> str:
    """How often intervals cover and verdicts are wrong, as tests/simulate_growth.py measured it."""
    rows = simulation()
    if not rows:
        return ""
    numbers = ["ratio", "index", "exponent", *growth.VERDICTS, "wrong"]
    cells = []
    for row in rows:
        shares = ["–" if row[name] is None else f"{100 * row[name]:.1f}" for name in numbers]
        shares.insert(3, f"{100 * min(row['means']):.1f} to {100 * max(row['means']):.1f}")
        cells.append([row["design"], row["truth"], row["spread"], *shares])
    heading = ["design", "truth", "spread of a trial", "growth", "λ", "b", "means", *growth.VERDICTS, "wrong"]
    return f"""\
## How far these intervals and verdicts can be trusted

`python tests/simulate_growth.py` made {rows[0]["repeats"]} data sets for each row of the last table, and judged them.
All numbers are per cent. Growth, λ, b and means: how often the 95 % interval holds the truth, of the means at the worst
and the best size. Then the share of each verdict. Wrong: “{growth.NO_GROWTH}” or “no faster” of what
grows faster than log n, and “faster” of what does not. The noise is normal where nothing else is said.

The designs, with the worst of growth, λ and b by how the trials spread. A spread that changes with n can be hidden by
few trials:

{simulated_designs(rows)}
{designs_in_use(rows, folder)}
{table(heading, cells)}"""


def simulated_designs(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of the designs, and of the worst that happened with each."""
    lines = []
    for design in dict.fromkeys(row["design"] for row in rows):
        own = [row for row in rows if row["design"] == design]
        sizes, trials = own[0]["sizes"], ", ".join(map(str, own[0]["trials"]))
        lines.append([design, f"{sizes[0]} to {sizes[-1]}", trials])
        for is_such in SPREADS.values():
            some = [row for row in own if is_such(row["spread"])]
            covered = min(row[name] for row in some for name in ("ratio", "index", "exponent") if row[name] is not None)
            wrong = max(row["wrong"] for row in some)
            lines[-1].append(f"{100 * covered:.1f} covered, {100 * wrong:.1f} wrong")
    return table(["design", "n", "trials", *(f"spread {kind}" for kind in SPREADS)], lines)


def designs_in_use(rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """A line for each main network: whether the design and the spreads of its results are among those simulated."""
    lines, widest = [], max(int(n) for row in rows for n in re.findall(r"(\d+) %", row["spread"]))
    simulated = {(tuple(row["sizes"]), tuple(row["trials"])): row["design"] for row in rows}
    for prefix in filter(NETWORKS.__contains__, prefixes(folder, "_results.npz")):
        results = load(folder / f"{prefix}_results.npz")
        sizes, trials = tables.design(results)
        found = simulated.get((tuple(sizes), tuple(trials)))
        said = f"that of the design “{found}”" if found else "not simulated as they are; run tests/simulate_growth.py"
        counts, wide = ", ".join(map(str, trials)), wider_than(results, widest)
        said += f"; spread more widely than any simulated, {widest} %: {', '.join(wide)}" if wide else ""
        lines.append(f"- {NETWORKS[prefix][0]}, in the results above: {counts} trials, {said}.\n")
    return "".join(lines)


def wider_than(results: Results, percent: float) -> list[str]:
    """Quantities of the claim whose trials spread more than that, pooled over the sizes, relative to their mean."""
    found = []
    for name in filter(results.__contains__, CLAIM):
        mean, deviation, trials = scaling.moments(scaling.trial_values(results, name))
        known = (trials > 1) & np.isfinite(mean) & (mean != 0)
        if known.any():
            spread = 100 * np.sqrt(np.average((deviation[known] / mean[known]) ** 2, weights=trials[known] - 1))
            found += [f"{scaling.QUANTITIES[name].label} ({spread:.0f} %)"] if spread > percent else []
    return found


SECTIONS = (
    introduction, network_sections, evidence.depth, evidence.baselines, evidence.sensitivity, evidence.digit_pairs,
    cost_section, circuits.section, simulation_section,
)  # fmt: skip


def document(folder: Path) -> str:
    """The text of RESULTS.md."""
    return "\n".join(filter(None, (section(folder) for section in SECTIONS)))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of scaling.py."""
    parser = options.Parser(description="Write RESULTS.md of an output folder.")
    parser.add_options([
        ("--output", dict(type=options.folder, default=Path("kernel_output"), metavar="DIR"), "the folder",
         "kernel_output"),
    ])  # fmt: skip
    folder = parser.parse_args(arguments).output
    there = bool(prefixes(folder, "_results.npz"))
    parser.check(there, "output", folder, "no *_results.npz there; run training.py first")
    path = folder / "RESULTS.md"
    try:
        path.write_text(document(folder), encoding="utf-8")
    except OSError as error:
        parser.check(False, "output", path, f"can't be written ({error.strerror})")
    print(f"wrote {path}")
