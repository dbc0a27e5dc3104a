"""The table that a run ends with."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from runtime.datasets import class_title, find_dataset
from runtime.results import is_computed, origin_of

COLUMNS = {  # variables, and what stands before the approximation's name
    "accuracy": "",
    "condition_number": "κ",
    "sparsity": "sparsity",
    "post_selection_measurements": "post-selection",
    "readout_measurements": "readout",
}
TRIVIAL = {("sparsity", "exact"), ("sparsity", "diagonal"), ("κ", "diagonal"), ("readout", "exact")}
SHOWN = {"convention": "original", "divisor": "test set"}  # as in the original
THRESHOLDS = ("calibrated", "test median", "zero")  # the first that is there is shown


def title_of(results: xr.Dataset) -> str:
    """Fully connected, digits 8 and 9: the network and the classes that results are of."""
    origin = origin_of(results)
    network = origin["network"].replace("-", " ").capitalize()
    dataset = find_dataset(origin["dataset"])
    whose = f" of {dataset.title}" if dataset.prefix else ""
    return f"{network}, {class_title(dataset, sorted(origin['classes']))}{whose}"


def summary(results: xr.Dataset, title: str) -> str:
    """The main quantities by size, means over trials, as a table for the terminal."""
    threshold = next(t for t in THRESHOLDS if t in results.threshold)
    columns = [
        ["n", *map(str, results.n.values)],
        ["trials", *map(str, is_computed(results).sum("trial").values)],
    ]
    for variable, quantity in COLUMNS.items():
        means_of_all = trial_means(results[variable], {**SHOWN, "threshold": threshold})
        places = 3 if variable == "accuracy" else 1
        for name, means in by_approximation(means_of_all, quantity).items():
            cells = [in_digits(mean, name, places) for mean in means.values]
            columns.append([name, *cells])
    where = {"test median": "at the test median", "zero": "at zero"}.get(threshold, threshold)
    return f"{title}; threshold {where}; accuracy, then costs; means\n{aligned(columns)}"


def trial_means(values: xr.DataArray, shown: dict[str, str]) -> xr.DataArray:
    """Means over trials [n, approximation] at the labels that are shown.

    A trial's value is the mean over its patterns, of counts of measurements the median over its
    patterns and test images.
    """
    for axis, label in shown.items():
        if axis in values.dims:
            values = values.sel({axis: label})
    inner = [dim for dim in values.dims if dim not in ("n", "trial", "approximation")]
    is_count = "measurements" in str(values.name)
    return (values.median(inner) if is_count else values.mean(inner)).mean("trial")


def by_approximation(means: xr.DataArray, quantity: str) -> dict[str, xr.DataArray]:
    """A column for each approximation that something is known of, under its name."""
    if "approximation" not in means.dims:
        return {quantity: means}
    known = means.dropna("approximation", how="all")
    columns = {}
    for label in known.approximation.values.tolist():
        if (quantity, label) in TRIVIAL:
            continue
        column = known.sel(approximation=label)
        name = f"{quantity} {label}".strip() if quantity != "sparsity" else quantity
        if quantity == "κ" and (column.fillna(1) < 1.1).all():
            name, column = f"{name}, less 1", column - 1
        columns[name] = column
    return columns


def in_digits(mean: float, name: str, places: int) -> str:
    """A mean with so many decimals, or as many as its column needs; a dash where there is none."""
    if np.isnan(mean):
        return "–"
    if "less 1" in name:
        return f"{mean:.1e}"
    return f"{mean:,.{places}f}" if mean < 100 else f"{mean:,.0f}"


def aligned(columns: Sequence[Sequence[str]]) -> str:
    """Columns of cells as lines, every column as wide as its widest cell."""
    wide = []
    for column in columns:
        width = max(map(len, column))
        wide.append([cell.rjust(width) for cell in column])
    return "\n".join("  ".join(row) for row in zip(*wide, strict=True))
