"""Trials as tables: means by size, losses paired by trial, growth with its verdict, and how they are written.

analysis/document.py makes RESULTS.md of them, figures.py the notebook's tables.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import scaling
from analysis import growth
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
        values, less_1 = near_one(results, name)
        mean, _, half = scaling.size_means(n, values)
        cells.append([plus_minus(*pair) for pair in zip(mean, half, strict=True)])
        heading.append(label + less_1)
    return table(heading, list(zip(*cells, strict=True)))


def near_one(results: Results, name: str) -> tuple[list[Array], str]:
    """Trials' values by size, less 1 where they are condition numbers close to 1; and what says so in a heading."""
    values = scaling.trial_values(results, name)
    if name.startswith("condition_number") and all((v < 1.1).all() for v in values):
        return [v - 1 for v in values], ", less 1"
    return values, ""


LOSSES = {  # of the paired tables: {label: array, less its ending for the threshold}
    "sparsified": "accuracy_sparse{}",
    "sparsified, sound": "accuracy_sparse{}_sound",
    "diagonal": "accuracy_diagonal{}",
}
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
    heading = ["n", "trials"]
    for label, name in SUMMARY.items():
        values, less_1 = near_one(results, name)
        means = scaling.size_means(results["data_sizes"], values)[0]
        places = 3 if name.startswith("accuracy") else 1
        columns.append([f"{m:.1e}" if less_1 else f"{m:,.{places}f}" if m < 100 else f"{m:,.0f}" for m in means])
        heading.append(label + less_1)
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


def shared_images(results: Results) -> list[float]:
    """Share of its training images that a trial of each size has in common with another; [] unless MNIST's.

    A trial draws n/2 images of each digit, independently of other trials.
    """
    origin = json.loads(str(results["origin"])) if "origin" in results else {}
    if origin.get("dataset") != "mnist":
        return []
    return np.mean([results["data_sizes"] / 2 / MNIST_TRAINING[digit] for digit in origin["digits"]], axis=0).tolist()
