"""The same experiments on several datasets, side by side: tables/other_data.md."""

from collections.abc import Sequence
from typing import Any

from xarray import DataArray, Dataset

from analysis import costs, findings, tables
from analysis.experiments import NETWORKS, Experiment
from analysis.tables import mean_cells, usual
from runtime.results import is_computed

Experiments = Sequence[Experiment]


def on_the_papers_classes(experiments: Experiments, network: str) -> list[Experiment]:
    """Those of a network on the classes that the paper takes, by number, of every dataset."""
    chosen = []
    for experiment in experiments:
        if experiment.prefix == experiment.dataset.prefix + network:
            chosen.append(experiment)
    return chosen


def carried_over(experiments: Experiments, network: str) -> str:
    """Which verdicts on a network differ between datasets, on the paper's classes; "" of one."""
    own = on_the_papers_classes(experiments, network)
    if len(own) < 2:
        return ""
    differing = []
    for claim, finding in findings.CLAIMS.items():
        verdicts = {}
        for experiment in own:
            text = findings.said(experiment, finding)
            if text:
                verdicts[experiment.dataset.title] = text.split("**")[1]
        if len(set(verdicts.values())) > 1:
            told = [f"{verdict} on {title}" for title, verdict in verdicts.items()]
            differing.append(f"{claim} ({', '.join(told)})")
    exceptions = f", except: {'; '.join(differing)}" if differing else ""
    return f"{own[0].short}: the same verdicts on all datasets{exceptions}"


def common_size(experiments: Experiments, network: str) -> int:
    """The largest n with several trials in all results of a network on the paper's classes."""
    sizes: set[int] | None = None
    for experiment in on_the_papers_classes(experiments, network):
        results = experiment.results
        several = is_computed(results).sum("trial") > 1
        here = set(results.n.values[several.values].tolist())
        sizes = here if sizes is None else sizes & here
    return max(sizes or {0})


def column(experiment: Experiment, n: int) -> dict[str, str]:
    """What one experiment found at n, or the largest below: levels with their intervals."""
    results = usual(experiment.results).sel(n=slice(None, n))
    n = int(results.n[-1])
    shown = {"n": f"{n}"}
    for label in results.approximation.values:
        accuracy = results.accuracy.sel(approximation=label)
        shown[f"accuracy, {label}"] = mean_cells(accuracy, results.test_images)[-1]
    if "baselines" in experiment.kinds:
        shown["accuracy, nearest neighbour"] = nearest_neighbour(experiment, n)
    for label in ("exact", "sparsified"):
        condition = results.condition_number.sel(approximation=label)
        name = f"κ, {label}"
        if tables.less_one(condition):
            shown[name] = f"1 + {mean_cells(condition)[-1]}"
        else:
            shown[name] = mean_cells(condition)[-1]
    attempts = results.post_selection_measurements
    for label in ("training set", "fixed constant"):
        name = f"post-selection, {tables.in_words(label)}"
        shown[name] = count_cell(attempts.sel(divisor=label))
    readout = results.readout_measurements.sel(approximation="sparsified")
    shown["readout, sparsified"] = count_cell(readout)
    if "emulation" in experiment.kinds:
        shown |= query_cells(experiment.kinds["emulation"].sel(n=slice(None, n)))
    return shown


def query_cells(emulation: Dataset) -> dict[str, str]:
    """What a prediction costs by the cheapest way, at the largest n of these."""
    ways = costs.six_ways(emulation)
    ending = f"n = {emulation.n[-1]:d}"
    return {
        f"queries, sparsified, {ending}": count_cell(ways["quantum, sparsified"]),
        f"queries, diagonal, {ending}": count_cell(ways["quantum, diagonal"]),
    }


def count_cell(counts: DataArray) -> str:
    """Measurements or queries [n, trial, ...] at the largest n: the geometric mean over trials.

    A trial's own is the median over patterns and images. One trial with a heavy tail would dominate
    the arithmetic mean.
    """
    own_axes = set(counts.dims) - {"n", "trial"}
    if own_axes:
        counts = counts.median(own_axes)
    return costs.cells(counts)[-1]


def nearest_neighbour(experiment: Experiment, n: int) -> str:
    """Its accuracy at n, or a dash."""
    baselines = experiment.kinds["baselines"].sel(n=slice(None, n))
    if not baselines.sizes["n"] or baselines.n.values[-1] != n:
        return "–"
    accuracy = usual(baselines).accuracy.sel(classifier="nearest neighbour")
    return mean_cells(accuracy, baselines.test_images)[-1]


def levels(experiments: Experiments) -> str:
    """A table with a column for each experiment."""
    columns = []
    for experiment in experiments:
        columns.append(column(experiment, common_size(experiments, experiment.network)))
    names = dict.fromkeys(name for shown in columns for name in shown)
    rows = []
    for name in names:
        cells = [shown.get(name, "–") for shown in columns]
        rows.append([name, *cells])
    titles = [experiment.title for experiment in experiments]
    return tables.table(["", *titles], rows)


def page(experiments: Experiments) -> dict[str, Any] | None:
    """All that other_data.md shows; None unless there are several datasets."""
    chosen = [experiment for experiment in experiments if "results" in experiment.kinds]
    if len({experiment.dataset for experiment in chosen}) < 2:
        return None
    chosen.sort(key=lambda experiment: experiment.network, reverse=True)
    others = [e for e in chosen if e.dataset.prefix]
    pairs = [e for e in chosen if "digit_pairs" in e.kinds]
    return {
        "names": sorted({experiment.dataset.title for experiment in others}),
        "carried_over": [carried_over(chosen, network) for network in NETWORKS],
        "pairs": findings.side_by_side(pairs, {"all pairs of classes": findings.pairs_matter}),
        "verdicts": findings.side_by_side(chosen, findings.CLAIMS),
        "levels": levels(chosen),
    }
