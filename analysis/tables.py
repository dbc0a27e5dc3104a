"""Writes kernel_output/RESULTS.md, all numbers from the arrays there: `python scaling.py [--output DIR]`.

A section of the document is a function of the output folder that returns Markdown, or "" where the file that it
describes is not there; `sections` lists them.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import scaling
from analysis import growth
from runtime import options
from runtime.results import load_arrays

Array = NDArray[np.float64]
Results = Mapping[str, Array]
NETWORKS = {"fully-connected": ("Fully connected", (8, 9)), "convolutional": ("Convolutional", (0, 1))}
MOST_SHARED = 0.2  # of their training images, up to which the trials of a size decide alone
MNIST_TRAINING = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)  # its training images of each digit
# Tables of means by size: {heading: {column: array}}
TABLES = {
    "Accuracy on the test images, threshold at the median and at zero": {
        "exact": "accuracy_exact",
        "sparsified": "accuracy_sparse",
        "sparsified, sound": "accuracy_sparse_sound",
        "diagonal": "accuracy_diagonal",
        "exact, at zero": "accuracy_exact_at_zero",
        "sparsified, at zero": "accuracy_sparse_at_zero",
        "sparsified, sound, at zero": "accuracy_sparse_at_zero_sound",
        "diagonal, at zero": "accuracy_diagonal_at_zero",
    },
    "Matrices": {
        "κ of K": "condition_number_exact",
        "κ of K̃": "condition_number",
        "κ of K̃, sound": "condition_number_sound",
        "sparsity": "sparsity",
        "sparsity, sound": "sparsity_sound",
        "share positive definite": "positive_definite",
        "the same, sound": "positive_definite_sound",
    },
    "Measurements": {
        "post-selection, original": "post_selection_measurements",
        "post-selection, training": "post_selection_measurements_training",
        "post-selection, k_thresh": "post_selection_measurements_k_thresh",
        "readout, sparsified": "readout_measurements_sparse",
        "readout, diagonal": "readout_measurements_diagonal",
        "readout, sparsified, at the median": "readout_measurements_sparse_at_median",
        "readout, diagonal, at the median": "readout_measurements_diagonal_at_median",
    },
}
CLAIM = [  # what is said to grow no faster than log n, in both conventions, and the exact condition number beside it
    "condition_number_exact",
    "condition_number",
    "condition_number_sound",
    "sparsity",
    "sparsity_sound",
    "post_selection_measurements",
    "post_selection_measurements_training",
    "post_selection_measurements_k_thresh",
    "readout_measurements_sparse",
    "readout_measurements_sparse_at_median",
    "readout_measurements_diagonal",
    "readout_measurements_diagonal_at_median",
]


def load(path: Path) -> dict[str, NDArray[np.float64]]:
    """The arrays of an .npz file; none where there is no such file."""
    return load_arrays(path) if path.exists() else {}


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def plus_minus(value: float, half: float) -> str:
    """0.910 ± 0.014: a mean and the half-width of its interval, to two digits of that; a dash where there is none."""
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞"
    if not half > 1e-6 * abs(value):
        return f"{value:.4g}"
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e} ± {half:.1e}"
    digits = int(np.clip(np.ceil(-np.log10(half / 2)), 0, 9))
    return f"{value:.{digits}f} ± {half:.{digits}f}"


def means(n: NDArray[Any], values: Array) -> tuple[Array, Array]:
    """Means of [sizes, trials] and half-widths of their 95 % intervals, of accuracies or their differences.

    scaling.size_means pools the relative spread of the trials. Of 1 + value that is nearly the absolute one.
    """
    mean, _, half = scaling.size_means(n, [1 + trials[np.isfinite(trials)] for trials in values])
    return mean - 1, half


def cells(mean: Array, half: Array, sign: str = "") -> list[str]:
    """Means and half-widths as text; with a sign, in bold where the interval excludes 0. A dash where no trial is."""
    halves = [f" ± {h:.3f}" if h < 1 else " ± 1 or more" if np.isfinite(h) else "" for h in half]
    text = [f"{m:{sign}.3f}{h}" for m, h in zip(mean, halves, strict=True)]
    clear = np.abs(mean) > half if sign else np.zeros(len(text), bool)
    known = [f"**{t}**" if c else t for t, c in zip(text, clear, strict=True)]
    return ["–" if np.isnan(m) else t for t, m in zip(known, mean, strict=True)]


def means_table(results: Results, columns: Mapping[str, str]) -> str:
    """Means of arrays by size, with the half-widths of their 95 % intervals."""
    n, heading = results["data_sizes"], ["n", "trials"]
    cells = [[f"{size}" for size in n], [f"{count}" for count in results["trials"]]]
    for label, name in columns.items():
        if name not in results:
            continue
        values = scaling.trial_values(results, name)
        near_one = name.startswith("condition_number") and all((v < 1.1).all() for v in values)
        mean, _, half = scaling.size_means(n, [v - 1 for v in values] if near_one else values)
        cells.append([plus_minus(*pair) for pair in zip(mean, half, strict=True)])
        heading.append(f"{label}, less 1" if near_one else label)
    return table(heading, list(zip(*cells, strict=True)))


LOSSES = {  # of the paired tables: {label: array, less its ending for the threshold}
    "sparsified": "accuracy_sparse{}",
    "sparsified, sound": "accuracy_sparse{}_sound",
    "diagonal": "accuracy_diagonal{}",
}
LOSSES_CAPTION = """\
Accuracy of the exact NTK minus that of the approximations, paired by trial (bold: the 95 % interval excludes 0;
0 alone: the same in every trial):
"""
THRESHOLDS = {"": "median", "_at_zero": "0"}  # of the outputs; what the arrays' names end with


def loss(results: Results, name: str, threshold: str) -> Array:
    """Accuracy of the exact NTK less that of an approximation in `LOSSES`, [..., trials], the mean over patterns."""
    exact, other = results[f"accuracy_exact{threshold}"], results[name.format(threshold)]
    return exact - other.reshape(*exact.shape, -1).mean(-1)


def losses_table(results: Results) -> str:
    """What the approximations lose of the exact NTK's accuracy, paired by trial, by size; "" without accuracies."""
    n, rows = results["data_sizes"], []
    for ending, threshold in THRESHOLDS.items():
        for label, name in LOSSES.items():
            if name.format(ending) in results:
                rows.append([label, threshold, *difference_cells(n, loss(results, name, ending))])
    return table(["", "threshold", *(f"n = {size}" for size in n)], rows) if rows else ""


def difference_cells(n: NDArray[Any], values: Array) -> list[str]:
    """Means of differences [sizes, trials] as text; "0" where the difference is 0 in every trial."""
    same = [np.all(np.abs(trials[np.isfinite(trials)]) < 1e-9) for trials in values]
    known = [len(trials[np.isfinite(trials)]) > 0 for trials in values]
    every = zip(cells(*means(n, values), "+"), same, known, strict=True)
    return ["0" if is_same and is_known else cell for cell, is_same, is_known in every]


SUMMARY = {  # columns of the table that a run ends with
    "exact": "accuracy_exact",
    "sparsified": "accuracy_sparse",
    "diagonal": "accuracy_diagonal",
    "κ of K": "condition_number_exact",
    "κ of K̃": "condition_number",
    "sparsity": "sparsity",
    "post-selection": "post_selection_measurements",
    "readout, sparsified": "readout_measurements_sparse",
    "readout, diagonal": "readout_measurements_diagonal",
}


def summary(path: Path) -> str:
    """The main quantities of a results file by size, means over trials, as a table for the terminal."""
    results = load(path)
    columns = [[f"{n}" for n in results["data_sizes"]], [f"{count}" for count in results["trials"]]]
    for name in SUMMARY.values():
        means = scaling.size_means(results["data_sizes"], scaling.trial_values(results, name))[0]
        columns.append([f"{mean:.3f}" if mean < 10 else f"{mean:,.0f}" for mean in means])
    heading = ["n", "trials", *SUMMARY]
    widths = [max(len(title), *map(len, cells)) for title, cells in zip(heading, columns, strict=True)]
    rows = [heading, *zip(*columns, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([f"{title_of(path.name.removesuffix('_results.npz'))}; accuracy, then costs; means", *lines])


def judged(results: Results, name: str, sizes: int | None = None) -> growth.Growth:
    """The growth of one quantity, of the first `sizes` sizes or of all.

    Large trials share images. A verdict that those of more than MOST_SHARED alone bring about is undecided.
    """
    n, values = results["data_sizes"][:sizes], scaling.trial_values(results, name)[:sizes]
    found, shares = scaling.fit_growth(n, values), shared_images(results)[:sizes]
    apart = [share <= MOST_SHARED for share in shares] or [True] * len(n)
    if all(apart):
        return found
    without = scaling.fit_growth(n[apart], [trials for trials, kept in zip(values, apart, strict=True) if kept])
    if without.verdict == found.verdict:
        return found
    dependent = ", ".join(str(size) for size, kept in zip(n, apart, strict=True) if not kept)
    reason = f"{found.verdict} only with n = {dependent}, where trials share over {MOST_SHARED:.0%} of their images"
    return replace(found, verdict="undecided", reason=reason)


def growth_table(results: Results, names: Iterable[str]) -> str:
    """A Markdown table of the growth of the quantities `names` of a results file."""
    rows = []
    for name in names:
        found = judged(results, name)
        sizes = f"{found.n.min():g} to {found.n.max():g}" if found.n.size else "–"
        numbers = map(found.text, ("ratio", "index", "exponent"))
        rows.append([scaling.QUANTITIES[name].label, sizes, *numbers, f"**{found.verdict}**: {found.reason}"])
    return table(["quantity", "n", "growth (95 %)", "λ (95 %)", "b of a nᵇ (95 %)", "verdict"], rows)


def sentence(results: Results, name: str) -> str:
    """What the intervals say of the growth of one quantity, and whether the last size alone makes them say so."""
    n, values = results["data_sizes"], scaling.trial_values(results, name)
    found, there = judged(results, name), np.flatnonzero([len(trials) > 0 for trials in values])
    said = verdict_in_words(scaling.QUANTITIES[name].label, found)
    if len(there) > 4:  # so that four are left
        last = int(there[-1])
        before = judged(results, name, last)
        if before.verdict != found.verdict:
            said += f" Without n = {n[last]}, which has {len(values[last])} trials: {before.verdict}."
    return said


def verdict_in_words(label: str, found: growth.Growth) -> str:
    """What one fit says of the growth of what the label names."""
    sizes = f"from n = {found.n[0]:g} to {found.n[-1]:g}" if found.n.size else "at no size"
    ratio, index, exponent = (found.text(number) for number in ("ratio", "index", "exponent"))
    if found.verdict == growth.NO_GROWTH:
        return f"{label}: **{found.verdict}**; {sizes} it changes by a factor of {ratio}."
    if found.verdict == "no faster than log n":
        numbers = f"{ratio}, λ = {index}" if found.clear else ratio
        return f"{label}: **no faster than log n**, {found.reason}; {sizes} by a factor of {numbers}."
    if found.verdict == "faster than log n":
        like = f"like n^{exponent}, " if found.power_fits else ""
        return f"{label}: **faster than log n**, {like}{sizes} by a factor of {ratio}, λ = {index}."
    return f"{label}: **undecided**, {found.reason}; {sizes} by a factor of {ratio}."


def title_of(prefix: str) -> str:
    """What a file prefix such as fully-connected, convolutional-3v5 or digits-convolutional stands for."""
    match = re.fullmatch(r"(digits-)?(fully-connected|convolutional)(?:-(\d)v(\d))?", prefix)
    if match is None:
        return prefix
    stand_in, network, *pair = match.groups()
    title, digits = NETWORKS[network]
    first, second = digits if pair[0] is None else map(int, pair)
    return f"{title}, digits {first} and {second}" + (" of scikit-learn, NOT MNIST" if stand_in else "")


def prefixes(folder: Path, ending: str) -> list[str]:
    """Prefixes of the files {prefix}{ending} in the folder, the paper's two networks first."""
    found = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
    return [p for p in NETWORKS if p in found] + [p for p in found if p not in NETWORKS]


def design(results: Results) -> tuple[list[int], list[int]]:
    """The sizes that have trials, and how many each has."""
    there = results["trials"] > 0
    return results["data_sizes"][there].tolist(), results["trials"][there].tolist()


def network_sections(folder: Path) -> str:
    """Of every network: what was run, means by size, growth."""
    return "\n".join(
        network_section(title_of(p), load(folder / f"{p}_results.npz")) for p in prefixes(folder, "_results.npz")
    )


def shared_images(results: Results) -> list[float]:
    """Share of its training images that a trial of each size has in common with another; [] unless MNIST's.

    A trial draws n/2 images of each digit, independently of other trials.
    """
    origin = json.loads(str(results["origin"])) if "origin" in results else {}
    if origin.get("dataset") != "mnist":
        return []
    return np.mean([results["data_sizes"] / 2 / MNIST_TRAINING[digit] for digit in origin["digits"]], axis=0).tolist()


def network_section(title: str, results: Results) -> str:
    """One network's tables, and what they say about the claim."""
    n, shared, rows = results["data_sizes"], shared_images(results), []
    for i in np.flatnonzero(results["trials"]):
        depths, ratios = results["depth"][i], results["off_diagonal_ratio"][i]
        span = sorted({f"{f(depths):.0f}" for f in (np.nanmin, np.nanmax)}, key=float)
        rows.append([f"{n[i]}", f"{results['trials'][i]}", " to ".join(span), f"{np.nanmax(ratios):.2g}"])
        rows[-1] += [f"{100 * share:.2g} %" for share in shared[i : i + 1]]
    heading = ["n", "trials", "depth", "largest off-diagonal entry of K over smallest diagonal one"]
    heading += ["training images shared with another trial"] * bool(shared)
    parts = [f"## {title}\n", table(heading, rows)]
    for name, columns in TABLES.items():
        parts += [f"### {name}\n", means_table(results, columns)]
        if "exact" in columns:
            parts += [LOSSES_CAPTION, losses_table(results)]
    claim = [name for name in CLAIM if name in results]
    rest = [name for name in scaling.QUANTITIES if name in results and name not in claim]
    parts += ["### Growth\n", "The claim, as these intervals judge it:\n"]
    parts += ["".join(f"- {sentence(results, name)}\n" for name in claim), growth_table(results, claim)]
    parts += ["Everything else:\n", growth_table(results, rest)]
    return "\n".join(parts)


SPREADS = {  # of the trials in tests/growth_simulation.json: what the names of a kind have in common
    "normal, the same at all sizes": lambda name: "normal" not in name and " like " not in name,
    "not normal": lambda name: "normal" in name,
    "changes with n": lambda name: " like " in name,
}


def simulation_section(folder: Path) -> str:
    """How often intervals cover and verdicts are wrong, as tests/simulate_growth.py measured it."""
    path = Path(__file__).parent.parent / "tests" / "growth_simulation.json"
    if not path.exists():
        return ""
    rows = json.loads(path.read_text())
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
        sizes, trials = design(results)
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


def cost_section(folder: Path) -> str:
    """What emulation.py found that one prediction costs."""
    from analysis import costs

    found = prefixes(folder, "_emulation.npz")
    files = ((p, costs.read_emulation(folder / f"{p}_emulation.npz")) for p in found)
    return "\n".join(f"## {title_of(p)}: cost\n\n{costs.report(file, scaling.fit_growth)}" for p, file in files)


def sections() -> list[Callable[[Path], str]]:
    """All sections in the order of the document."""
    from analysis import circuits, evidence  # they format their tables with this module

    controls = [evidence.depth, evidence.baselines, evidence.sensitivity, evidence.digit_pairs]
    return [introduction, network_sections, *controls, cost_section, circuits.section, simulation_section]


def document(folder: Path) -> str:
    """The text of RESULTS.md."""
    return "\n".join(filter(None, (section(folder) for section in sections())))


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
