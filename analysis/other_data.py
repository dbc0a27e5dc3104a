"""The same experiments on several datasets, side by side: tables/other_data.md."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import xarray as xr

from analysis import costs, findings, tables
from analysis.experiments import NETWORKS, Experiment
from analysis.tables import columns_of, mean_cells, usual
from runtime.results import is_computed

Experiments = Sequence[Experiment]


def on_the_papers_classes(experiments: Experiments, network: str) -> list[Experiment]:
    """Those of a network on the classes that the paper takes, by number, of every dataset."""
    chosen = []
    for experiment in experiments:
        if experiment.network == network and not experiment.ending:
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
    trials = []
    for experiment in on_the_papers_classes(experiments, network):
        trials.append(is_computed(experiment.results).sum("trial"))
    fewest = xr.concat(trials, "experiment", join="inner").min("experiment")
    return fewest.n[fewest > 1].max().item()


def column(experiment: Experiment, n: int) -> dict[str, str]:
    """What one experiment found at n, or the largest below: levels with their intervals."""
    results = usual(experiment.results).sel(n=slice(n))
    n = int(results.n[-1])
    shown = {"n": f"{n}"}
    for name, values in columns_of(results.accuracy).items():
        shown[f"accuracy, {name}"] = mean_cells(values, results.test_images)[-1]
    if "baselines" in experiment.kinds:
        shown["accuracy, nearest neighbour"] = nearest_neighbour(experiment, n)
    condition = results.condition_number.drop_sel(approximation="diagonal", errors="ignore")
    for name, values in columns_of(condition).items():
        one = "1 + " if tables.less_one(values) else ""
        shown[f"κ, {name}"] = one + mean_cells(values)[-1]
    attempts = results.post_selection_measurements
    attempts = attempts.drop_sel(divisor="test set", errors="ignore")
    for name, values in columns_of(attempts).items():
        shown[f"post-selection, {name}"] = costs.cells(values)[-1]
    readout = results.readout_measurements.sel(approximation="sparsified")
    shown["readout, sparsified"] = costs.cells(readout)[-1]
    if "emulation" in experiment.kinds:
        ways = costs.six_ways(experiment.kinds["emulation"].sel(n=slice(n)))
        for name in ("sparsified", "diagonal"):
            queries = ways[f"quantum, {name}"]
            shown[f"queries, {name}, n = {queries.n[-1]:d}"] = costs.cells(queries)[-1]
    return shown


def nearest_neighbour(experiment: Experiment, n: int) -> str:
    """Its accuracy at n, or a dash."""
    baselines = usual(experiment.kinds["baselines"]).sel(n=slice(n))
    if n not in baselines.n:
        return "–"
    accuracy = baselines.accuracy.sel(classifier="nearest neighbour")
    return mean_cells(accuracy, baselines.test_images)[-1]


def levels(experiments: Experiments) -> str:
    """A table with a column for each experiment."""
    columns = {}
    for experiment in experiments:
        n = common_size(experiments, experiment.network)
        columns[experiment.prefix] = column(experiment, n)
    cells = pd.DataFrame(columns).fillna("–")
    titles = [experiment.title for experiment in experiments]
    return tables.table(["", *titles], list(cells.itertuples()))


def page(experiments: Experiments) -> dict[str, Any] | None:
    """All that other_data.md shows; None unless there are several datasets."""
    chosen = [experiment for experiment in experiments if "results" in experiment.kinds]
    names = {experiment.dataset.title for experiment in chosen}
    if len(names) < 2:
        return None
    chosen.sort(key=lambda experiment: experiment.network, reverse=True)
    pairs = [experiment for experiment in chosen if "digit_pairs" in experiment.kinds]
    return {
        "names": sorted(names - {"MNIST"}),
        "carried_over": [carried_over(chosen, network) for network in NETWORKS],
        "pairs": findings.side_by_side(pairs, {"all pairs of classes": findings.pairs_matter}),
        "verdicts": findings.side_by_side(chosen, findings.CLAIMS),
        "levels": levels(chosen),
    }
