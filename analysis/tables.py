"""Labelled results as tables: means by size, differences paired by trial, growth, verdicts."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis import growth
from analysis.experiments import Experiment
from runtime.results import is_computed

Array = NDArray[np.float64]

QUANTITIES = {  # what is averaged and judged, and how tables call it
    "accuracy": "accuracy",
    "condition_number": "κ",
    "sparsity": "sparsity",
    "pattern_sparsity": "sparsity of a pattern",
    "positive_definite": "share positive definite",
    "post_selection_measurements": "post-selection",
    "readout_measurements": "readout",
}
LABELS = {  # labels of the results that need other words, or none
    "original": "",
    "test set": "scale from the test set",
    "training set": "scale from the training set",
    "test median": "at the test median",
    "zero": "at zero",
    "ink": "sum of the pixels",
    "kernel mean": "class mean of the kernel",
    "nearest mean": "nearest class mean",
    "ridge": "ridge regression",
}
USUAL = {"threshold": "test median"}  # where one threshold stands for all
AXES = ("approximation", "convention", "divisor", "threshold", "classifier")
TRAINING_IMAGES = {  # of each class
    "mnist": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "fashion_mnist": (6000,) * 10,
}


# Text


def table(heading: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def by_size(n: Any, rows: Mapping[str, Sequence[Any]]) -> str:
    """A table with a column for each size; rows that are the same become one: exact = diagonal."""
    merged: dict[tuple[str, ...], str] = {}
    for name, cells in rows.items():
        key = (name.rpartition(", ")[0], *map(str, cells))
        last = name.rpartition(", ")[2]
        merged[key] = f"{merged[key]} = {last}" if key in merged else name
    lines = [[name, *cells[1:]] for cells, name in merged.items()]
    return table(["", *(f"n = {size}" for size in n)], lines)


def plus_minus(value: float, half: float) -> str:
    """0.910 ± 0.014: a mean and the half-width of its interval, to two digits of that."""
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞"
    if not half > 1e-6 * abs(value):
        return f"{value:.4g}"
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e} ± {half:.1e}"
    digits = int(np.clip(np.ceil(-np.log10(half / 2)), 0, 9))
    return f"{value:.{digits}f} ± {half:.{digits}f}"


def sizes_in_words(n: Any, where: Any) -> str:
    """The sizes where it is so: "n = 16, 32", "no n" or "all n"."""
    if np.all(where):
        return "all n"
    return f"n = {', '.join(map(str, np.asarray(n)[where]))}" if np.any(where) else "no n"


def in_words(label: str) -> str:
    """What tables call a label."""
    return LABELS.get(label, label)


def columns_of(values: xr.DataArray) -> dict[str, xr.DataArray]:
    """What a quantity has under each label of its `AXES`, by a name made of the labels.

    Left out is what nothing is known of, and what is the same in the original's convention.
    """
    axes = [axis for axis in AXES if axis in values.dims]
    columns: dict[str, xr.DataArray] = {}
    for labels in itertools.product(*(values[axis].values.tolist() for axis in axes)):
        at = dict(zip(axes, labels, strict=True))
        column = values.sel(at, drop=True)
        original = at | {"convention": "original"} if "convention" in at else at
        same = original != at and column.equals(values.sel(original, drop=True))
        if column.notnull().any() and not same:
            columns[", ".join(filter(None, map(in_words, labels)))] = column
    return columns


def by_threshold(values: xr.DataArray) -> dict[str, xr.DataArray]:
    """A quantity at each threshold of the outputs, under what that is called."""
    labels = values.threshold.values.tolist()
    return {in_words(t): values.sel(threshold=t, drop=True) for t in labels}


# Means, and differences paired by trial


def less_one(values: xr.DataArray) -> bool:
    """Whether these are condition numbers so close to 1 that 1 is subtracted."""
    return "condition_number" in str(values.name) and bool((values.fillna(1) < 1.1).all())


def mean_cells(values: xr.DataArray, images: xr.DataArray | None = None) -> list[str]:
    """Means of a quantity [n, trial, ...] and intervals. images [n, trial]: of accuracies."""
    by_size = growth.trial_values(values - 1 if less_one(values) else values)
    mean, _, half = growth.size_means(values.n.values, by_size)
    cells = [plus_minus(*pair) for pair in zip(mean, half, strict=True)]
    return cells if images is None else near_one(cells, by_size, half, images)


def paired(difference: xr.DataArray) -> tuple[Array, Array]:
    """Means [n] of accuracies or their differences [n, trial, ...], half-widths of their intervals.

    The relative spread of the trials is pooled; of 1 + value that is nearly the absolute one.
    """
    by_size = growth.trial_values(1 + difference)
    mean, _, half = growth.size_means(difference.n.values, by_size)
    return mean - 1, half


def accuracy_cells(values: xr.DataArray, images: xr.DataArray) -> list[str]:
    """Means of accuracies [n, trial, ...] with the intervals that their differences have."""
    mean, half = paired(values)
    cells = []
    for value, width in zip(mean, half, strict=True):
        interval = f" ± {width:.3f}" if np.isfinite(width) else ""
        cells.append("–" if np.isnan(value) else f"{value:.3f}{interval}")
    return near_one(cells, growth.trial_values(values), half, images)


def near_one(
    cells: list[str], by_size: list[Array], half: Array, images: xr.DataArray
) -> list[str]:
    """Cells of accuracies, with bounds by the number of errors where these are not ± half."""
    cells = list(cells)
    for i, accuracies in enumerate(by_size):
        if len(accuracies):
            mean, counts = np.mean(accuracies), images[i].dropna("trial").values
            bounds = growth.accuracy_bounds(accuracies, counts[: len(accuracies)], half[i])
            if not np.allclose(bounds, (mean - half[i], mean + half[i]), rtol=0, atol=1e-6):
                cells[i] = f"{mean:.3f} ({bounds[0]:.3f} to {bounds[1]:.3f})"
    return cells


def paired_cells(difference: xr.DataArray) -> list[str]:
    """Means of differences, bold where the interval excludes 0; "0" where every trial has 0."""
    cells = []
    by_size = difference.transpose("n", ...)
    for size, value, width in zip(by_size, *paired(difference), strict=True):
        text = f"{value:+.3f}"
        if np.isfinite(width):
            text += f" ± {width:.3f}" if width < 1 else " ± 1 or more"
        text = f"**{text}**" if abs(value) > width else text
        same = bool((abs(size.fillna(0)) < 1e-9).all())
        cells.append("–" if np.isnan(value) else "0" if same else text)
    return cells


def losses_of(accuracy: xr.DataArray) -> dict[str, xr.DataArray]:
    """Accuracy of the exact NTK less that of each approximation at each threshold, by trial."""
    losses = {}
    for threshold, values in by_threshold(accuracy).items():
        columns = columns_of(values.mean("pattern"))
        exact = columns.pop("exact", values.isel(pattern=0) * np.nan)
        for name, column in columns.items():
            losses[f"{name}, {threshold}"] = exact - column
    return losses


# Growth


def judged_quantities(results: xr.Dataset) -> dict[str, xr.DataArray]:
    """All quantities that are averaged and judged, under their names in tables."""
    named = {}
    for variable, quantity in QUANTITIES.items():
        for name, values in columns_of(results[variable]).items() if variable in results else ():
            named[", ".join(filter(None, (quantity, name)))] = values
    return named


def reserve(values: xr.DataArray, verdict: str) -> str:
    """What the verdict would be without the largest size, where another: a clause, or ""."""
    n, without = growth.without_last(values)
    return "" if without in ("", verdict) else f"; {without} without n = {n}"


def growth_row(name: str, values: xr.DataArray) -> list[str]:
    """The growth of a quantity, from the smallest to the largest n, and its verdict."""
    judged = growth.judged(values)
    sizes = f"{judged.n.min():g} to {judged.n.max():g}" if judged.n.size else "–"
    numbers = [judged.text(number) for number in ("ratio", "index", "exponent")]
    verdict = f"**{judged.verdict}**: {judged.reason}{reserve(values, judged.verdict)}"
    return [name, sizes, *numbers, verdict]


# The page on the main results


def run_rows(results: xr.Dataset, experiment: Experiment) -> dict[str, list[str]]:
    """What was run: trials, depth, off-diagonal entries, training images that trials share."""
    depths = zip(results.depth.min("trial").values, results.depth.max("trial").values, strict=True)
    ratios = results.off_diagonal_ratio.max("trial").values
    rows = {
        "trials": [str(count) for count in is_computed(results).sum("trial").values],
        "depth": [" to ".join(dict.fromkeys(f"{depth:.0f}" for depth in each)) for each in depths],
        "largest off-diagonal / diagonal of K": [f"{ratio:.2g}" for ratio in ratios],
    }
    counts = TRAINING_IMAGES.get(experiment.dataset.name)
    if counts:
        share = np.mean([1 / 2 / counts[label] for label in experiment.classes])
        shared = [f"{100 * n * share:.2g} %" for n in results.n.values]
        rows["images shared with another trial"] = shared
    return rows


def main(experiment: Experiment) -> dict[str, Any]:
    """All tables of one network and pair of classes."""
    results = experiment.kinds["results"]
    n, means, rows = results.n.values, {}, []
    for name, values in judged_quantities(results).items():
        rows.append(growth_row(name, values))
        images = results.test_images if values.name == "accuracy" else None
        if "trial" in values.dims:
            means[name + ", less 1" * less_one(values)] = mean_cells(values, images)
    losses = {name: paired_cells(loss) for name, loss in losses_of(results.accuracy).items()}
    heading = ["quantity", "n", "growth (95 %)", "λ (95 %)", "b of a nᵇ (95 %)", "verdict"]
    return {
        "runs": by_size(n, run_rows(results, experiment)),
        "means": by_size(n, means),
        "losses": by_size(n, losses),
        "growth": table(heading, rows),
        "faster": [row[0] for row in rows if row[-1].startswith(f"**{growth.FAST}**")],
        "undecided": [row[0] for row in rows if row[-1].startswith(f"**{growth.UNDECIDED}**")],
    }
