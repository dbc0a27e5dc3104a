"""Labelled results as Markdown: means by size, differences paired by trial, growth, verdicts."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from xarray import DataArray, Dataset

from analysis import growth
from analysis.experiments import Experiment
from analysis.growth import Means
from runtime.results import is_computed

QUANTITIES = {  # what is averaged and judged, and how tables call it
    "accuracy": "accuracy",
    "accuracy_of_drawn": "accuracy of the drawn images",
    "condition_number": "κ",
    "sparsity": "sparsity",
    "pattern_sparsity": "sparsity of a pattern",
    "positive_definite": "share positive definite",
    "post_selection_measurements": "post-selection",
    "readout_measurements": "readout",
    "off_diagonal_ratio": "off-diagonal / diagonal of K",
    "depth": "depth",
}
IMAGES = {"accuracy": "test_images", "accuracy_of_drawn": "drawn_images"}  # that they are of
# Of these, only what the paper claims something of, and what it is compared with
SHOWN = {
    "condition_number": ["exact", "sparsified"],
    "sparsity": ["sparsified"],
    "positive_definite": ["sparsified"],
    "readout_measurements": ["sparsified", "diagonal"],
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
AXES = ["threshold", "divisor", "approximation", "convention", "classifier"]
AXES += ["solver", "encoding", "readout", "method"]


def table(heading: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def of_columns(columns: Mapping[str, Sequence[Any]]) -> str:
    """A Markdown table of columns [rows] by heading."""
    return table(list(columns), list(zip(*columns.values(), strict=True)))


def written(values: DataArray, form: str) -> list[str]:
    """Numbers in a format."""
    return [f"{value:{form}}" for value in values.values]


def by_size(n: Any, rows: Mapping[str, Sequence[Any]]) -> str:
    """A table with a column for each size; rows that are the same become one: exact = diagonal."""
    merged: dict[tuple[str, ...], str] = {}
    for name, cells in rows.items():
        start, _, last = name.rpartition(", ")
        key = (start, *map(str, cells))
        merged[key] = f"{merged[key]} = {last}" if key in merged else name
    lines = [[name, *cells[1:]] for cells, name in merged.items()]
    return table(["", *(f"n = {size:d}" for size in n)], lines)


def number(value: Any) -> str:
    """Three digits, or all before the point: 3.21, 3,672, 1.01e+12, ∞; a dash for NaN."""
    if np.isnan(value):
        return "–"
    text = f"{value:,.0f}" if 1e3 <= value < 1e5 else f"{value:z.3g}"
    return text.replace("inf", "∞")


def with_interval(estimate: Iterable[float]) -> str:
    """1.1 (1.08 to 1.11): a number with its bounds, or a dash."""
    value, low, high = map(number, estimate)
    return value if value == "–" else f"{value} ({low} to {high})"


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


def in_words(label: str) -> str:
    """What tables call a label."""
    return LABELS.get(label, label)


def usual_threshold(results: Dataset) -> str:
    """Where one threshold stands for all: calibrated, else the test set's median."""
    known = results.accuracy.dropna("threshold", how="all").threshold.values
    return "calibrated" if "calibrated" in known else "test median"


def two_thresholds(results: Dataset) -> list[str]:
    """The usual threshold and zero."""
    return [usual_threshold(results), "zero"]


def usual(results: Dataset) -> Dataset:
    """Results at the usual threshold, in the original's convention."""
    at = {"threshold": usual_threshold(results), "convention": "original"}
    at = {axis: label for axis, label in at.items() if axis in results.dims}
    return results.sel(at, drop=True)


def columns_of(values: DataArray) -> dict[str, DataArray]:
    """What a quantity has under each label of its `AXES`, by a name made of the labels.

    Left out is what nothing is known of, and what is the same in the original's convention.
    """
    axes = [axis for axis in AXES if axis in values.dims]
    columns: dict[str, DataArray] = {}
    for labels in itertools.product(*(values[axis].values.tolist() for axis in axes)):
        at = dict(zip(axes, labels, strict=True))
        column = values.sel(at, drop=True)
        is_copy = False
        if at.get("convention", "original") != "original":
            original = values.sel(at | {"convention": "original"}, drop=True)
            is_copy = column.equals(original)
        if column.notnull().any() and not is_copy:
            columns[", ".join(filter(None, map(in_words, labels)))] = column
    return columns


def less_one(values: DataArray) -> bool:
    """Whether these are condition numbers so close to 1 that 1 is subtracted."""
    return values.name == "condition_number" and bool((values.fillna(1) < 1.1).all())


def means_of(values: DataArray, images: DataArray | None = None) -> Means:
    """Means of a quantity [n, trial, ...]; images [n, trial]: of accuracies."""
    trials = growth.trial_values(values)
    if images is None:
        return growth.size_means(trials)
    return growth.accuracy_means(trials, images)


def mean_cells(values: DataArray, images: DataArray | None = None) -> list[str]:
    """The same as text."""
    cells = []
    for mean, low, high in means_of(values - less_one(values), images).rows:
        if np.isclose(mean - low, high - mean, atol=1e-6) or not np.isfinite(low):
            cells.append(plus_minus(mean, high - mean))
        else:
            cells.append(f"{mean:.3f} ({low:.3f} to {high:.3f})")
    return cells


def mean_rows(results: Dataset, quantities: Mapping[str, DataArray]) -> dict[str, list[str]]:
    """Means of those quantities of the results that trials have, a row for each."""
    rows = {}
    for name, values in quantities.items():
        if "trial" in values.dims:
            ending = ", less 1" if less_one(values) else ""
            images = results.get(IMAGES.get(str(values.name)))
            rows[name + ending] = mean_cells(values, images)
    return rows


def paired(difference: DataArray) -> Means:
    """Means of accuracies or their differences [n, trial, ...].

    The relative spread of the trials is pooled; of 1 + value that is nearly the absolute one.
    """
    n, *means = means_of(1 + difference)
    return Means(n, *np.subtract(means, 1))


def paired_cells(difference: DataArray) -> list[str]:
    """Means of differences, bold where the interval excludes 0; "0" where every trial has 0."""
    cells = []
    sizes = growth.trial_values(abs(difference)).max("trial")
    for (mean, low, high), size in zip(paired(difference).rows, sizes.values, strict=True):
        text = f"{mean:+.3f} ± {high - mean:.3f}".replace(" ± nan", "").replace("+nan", "–")
        if low > 0 or high < 0:
            text = f"**{text}**"
        cells.append("0" if size < 1e-9 else text)
    return cells


def losses_of(accuracy: DataArray) -> dict[str, DataArray]:
    """Accuracy of the exact NTK less that of each approximation, by trial."""
    accuracy = accuracy.mean("pattern")
    exact = accuracy.sel(approximation="exact", drop=True)
    return columns_of((exact - accuracy).drop_sel(approximation="exact"))


def judged_quantities(results: Dataset) -> dict[str, DataArray]:
    """All quantities that are averaged and judged, under their names in tables."""
    named = {}
    for variable, quantity in QUANTITIES.items():
        if variable not in results:
            continue
        values = results[variable]
        if variable in SHOWN:
            values = values.where(values.approximation.isin(SHOWN[variable]))
        for name, column in columns_of(values).items():
            named[f"{quantity}, {name}" if name else quantity] = column
    return named


def growth_row(name: str, values: DataArray) -> list[Any]:
    """The growth of a quantity, from the smallest to the largest n, and its verdict."""
    fitted = growth.judged(values)
    sizes = " to ".join(f"{n:g}" for n in fitted.n[[0, -1]]) if fitted.n.size else "–"
    index = with_interval(np.round(fitted.index, 2)) if fitted.clear else "–"
    reserve = growth.reserve(values, fitted.verdict)
    verdict = f"**{fitted.verdict}**: {fitted.reason}{reserve}"
    return [name, sizes, with_interval(fitted.ratio), index, verdict]


def of_first_patterns(results: Dataset) -> dict[str, DataArray]:
    """What K̃ is like with the original's patterns alone, where there are more."""
    own = results.sel(approximation=["sparsified"], convention=["original"])
    first = own.get("first_pattern", own.pattern).values
    if first.size == own.pattern.size:
        return {}
    own = own[["accuracy", "condition_number", "sparsity"]].sel(pattern=first)
    columns = judged_quantities(own)
    return {f"{name}, the original's patterns": values for name, values in columns.items()}


def main(experiment: Experiment) -> dict[str, Any]:
    """All tables of one network and pair of classes."""
    results = experiment.results
    judged = judged_quantities(results)
    means: dict[str, Any] = {"trials": is_computed(results).sum("trial").values}
    means |= mean_rows(results, judged | of_first_patterns(results))
    losses = {name: paired_cells(loss) for name, loss in losses_of(results.accuracy).items()}
    heading = ["quantity", "n", "growth (95 %)", "λ (95 %)", "verdict"]
    return {
        "means": by_size(results.n, means),
        "losses": by_size(results.n, losses),
        "growth": table(heading, [growth_row(name, values) for name, values in judged.items()]),
    }
