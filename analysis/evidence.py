"""Could the evidence have failed? Other depths, simple classifiers, other constants, other pairs.

A page's function takes an experiment, one network's files, and returns the page's tables.
"""

from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr
from xarray import DataArray, Dataset

from analysis import tables
from analysis.experiments import Experiment, pair_title
from analysis.growth import Means
from analysis.tables import (
    columns_of,
    losses_of,
    mean_cells,
    mean_rows,
    paired_cells,
    usual,
    written,
)
from runtime.results import is_computed, origin_of

LOST = "lost by sparsified"  # of accuracy
SHOWN_PAIRS = 5  # those on which K̃ loses most
REASONS = {  # what a pair's loss may come with, beside the accuracy of K, and what tables call it
    "separability": "separability δ",
    "label_purity": "label purity",
    "off_diagonal_ratio": "off-diagonal / diagonal of K",
}


def swept_size(sweep: Dataset) -> int:
    """The largest n of a sweep that has several trials at every setting, or the smallest at all."""
    trials = is_computed(sweep).sum("trial").min("setting")
    several = sweep.n.where(trials > 1, sweep.n[0])
    return several.max().item()


def losses_by_setting(sweep: Dataset) -> DataArray:
    """What K̃ loses on average by setting, least first, at `swept_size` and the usual threshold."""
    loss = losses_of(usual(sweep).accuracy)["sparsified"]
    loss = loss.sel(n=swept_size(sweep)).mean("trial")
    loss = loss.dropna("setting")
    return loss.sortby(loss)


def unit(sweep: Dataset) -> str:
    """What the settings of a sweep of depths are."""
    return "depth / L_conv" if sweep.setting.max() <= 1 else "depth"


def depth(experiment: Experiment) -> dict[str, Any]:
    """What K is like at each depth, and what the approximations lose, at `swept_size`."""
    sweep = experiment.kinds["depth_sweep"].sel(convention="original")
    sweep = sweep.sel(n=slice(swept_size(sweep)))
    exact = usual(sweep).sel(approximation="exact")
    last = exact.isel(n=-1).mean("trial")
    accuracies = []
    for setting in sweep.setting:
        at = exact.sel(setting=setting)
        accuracies.append(mean_cells(at.accuracy, at.test_images)[-1])
    columns = {
        unit(sweep): written(sweep.setting, "g"),
        "off-diagonal / diagonal of K": written(last.off_diagonal_ratio, ".4g"),
        "κ of K": written(last.condition_number.mean("pattern"), ".4g"),
        "accuracy of K": accuracies,
    }
    at_thresholds = sweep.sel(threshold=tables.two_thresholds(sweep))
    for name, loss in losses_of(at_thresholds.accuracy).items():
        by_setting = [paired_cells(loss.sel(setting=setting)) for setting in sweep.setting]
        columns[f"loss {name}"] = [cells[-1] for cells in by_setting]
    return {
        "n": sweep.n.values[-1],
        "rule": origin_of(sweep)["depth_rule"],
        "table": tables.of_columns(columns),
    }


def baselines(experiment: Experiment) -> dict[str, Any]:
    """The exact NTK beside classifiers of a few lines, and K̃ beside what is as cheap."""
    results = experiment.kinds["baselines"]
    rows = mean_rows(results, columns_of(results.accuracy))
    rivals = results.rival_accuracy
    sparsified = rivals.sel(rival="sparsified", drop=True)
    as_cheap = {"sparsified": mean_cells(sparsified, results.test_images // 2)}
    gains = rivals.drop_sel(rival="sparsified") - sparsified
    for name in gains.rival.values:
        as_cheap[f"{name} − sparsified"] = paired_cells(gains.sel(rival=name))
    n = results.n.values
    return {
        "table": tables.by_size(n, rows),
        "rivals": tables.by_size(n, as_cheap),
    }


def standardisation(experiment: Experiment) -> dict[str, Any]:
    """What standardising test images by the training images changes."""
    results = experiment.kinds["standardisation"]
    own = results.sel(standard="test images", drop=True)
    other = results.sel(standard="training images", drop=True)
    accuracies = columns_of(own.accuracy)
    rows = {}
    for name, values in columns_of(other.accuracy).items():
        rows[name] = mean_cells(values, results.test_images // 2)
        rows[f"change, {name}"] = paired_cells(values - accuracies[name])
    factors = {}
    for quantity, word in tables.QUANTITIES.items():
        if quantity.endswith("_measurements"):
            ratio = other[quantity] / own[quantity]
            for name, values in columns_of(ratio).items():
                factors[f"{word}, {name}"] = tables.mean_cells(values)
    n = results.n.values
    return {
        "table": tables.by_size(n, rows),
        "factors": tables.by_size(n, factors),
    }


def plane_of_constants(sensitivity: Dataset) -> Dataset:
    """Accuracy and share positive definite of K̃ [boost, density] at the paper's percentile.

    Means at the largest n of several trials and the usual threshold; `text` has the accuracies, in
    brackets where K̃ is not always positive definite. The attributes are the paper's constants.
    """
    names = ["percentile", "boost", "density"]
    papers = dict(zip(names, origin_of(sensitivity)["papers_setting"], strict=True))
    plane = usual(sensitivity.set_coords(names))[["accuracy", "positive_definite"]]
    plane = plane.sel(n=swept_size(sensitivity), approximation="sparsified")
    plane = plane.sel(setting=plane.percentile == papers["percentile"])
    plane = plane.mean(["trial", "pattern"]).drop_vars("setting")
    plane = plane.set_index(setting=["boost", "density"])
    plane = plane.unstack("setting").transpose("boost", "density")
    known = plane.accuracy, plane.positive_definite
    text = xr.apply_ufunc(in_brackets, *known, vectorize=True)
    return plane.assign(text=text).assign_attrs(papers)


def in_brackets(accuracy: float, positive_definite: float) -> str:
    """The accuracy, in brackets where not every matrix is positive definite."""
    return f"{accuracy:.3f}" if positive_definite == 1 else f"({accuracy:.3f})"


def constants(experiment: Experiment) -> dict[str, Any]:
    """Accuracy of K̃ by boost and density."""
    plane = plane_of_constants(experiment.kinds["sensitivity"])
    columns = {"": [f"boost {boost:g}" for boost in plane.boost.values]}
    for density in plane.density.values:
        columns[f"density {density:g}"] = plane.text.sel(density=density).values
    return {"n": plane.n.item(), "table": tables.of_columns(columns)}


def named_pairs(experiment: Experiment) -> Dataset:
    """The results of all pairs of classes, which are named as in "5 and 8"."""
    results = experiment.kinds["digit_pairs"]
    names = []
    for label in results.setting.values:
        first, second = label.split()
        names.append(pair_title(experiment.dataset, [int(first), int(second)]))
    return results.assign_coords(setting=names)


def gains_over_diagonal(pairs: Dataset) -> Means:
    """What K̃ gains over its diagonal on each pair.

    Averaged over the sizes up to `swept_size`.
    """
    accuracy = usual(pairs).accuracy.sel(n=slice(swept_size(pairs)))
    losses = losses_of(accuracy)
    gain = losses["diagonal"] - losses["sparsified"]
    gain = gain.mean("n").rename(setting="n")
    gain = gain.assign_coords(n=np.ones(len(gain)))  # pooled over the pairs
    return tables.paired(gain)


def sizes_told_of(pairs: Dataset) -> list[int]:
    """The size that all pairs are judged at, and larger ones with several trials of some pairs."""
    complete = swept_size(pairs)
    trials = is_computed(pairs).sum("trial").max("setting")
    larger = (trials > 1) & (pairs.n > complete)
    return [complete, *pairs.n.values[larger.values].tolist()]


def by_pair(pairs: Dataset, n: int) -> pd.DataFrame:
    """Means over trials at n, a row for each pair: losses, and what they may come with."""
    at = usual(pairs).sel(n=n)
    columns = {}
    for name, loss in losses_of(at.accuracy).items():
        columns[f"lost by {name}"] = loss
    exact = at.accuracy.sel(approximation="exact")
    columns["accuracy of K"] = exact.mean("pattern")
    for name, words in REASONS.items():
        if name in at:
            columns[words] = at[name]
    means = pd.DataFrame()
    for name, values in columns.items():
        means[name] = values.mean("trial").to_series()
    known = means.dropna(axis="columns", how="all")
    return known.dropna()


def pairs(experiment: Experiment) -> dict[str, Any]:
    """The pairs that K̃ loses most on, at every size told of, and what losses come with."""
    results = named_pairs(experiment)
    by_size = {n: by_pair(results, n) for n in sizes_told_of(results)}
    told = {}
    for n, means in by_size.items():
        if means[LOST].max() >= 1e-9:
            told[n] = worst_pairs(means, experiment.pair)
    first = next(iter(by_size.values()))
    return {"tables": told, "reasons": reasons_of_losses(first)}


def worst_pairs(means: pd.DataFrame, own: str) -> str:
    """A table of those that K̃ loses most on, the median one, and the network's own."""
    means = means.sort_values(LOST, kind="stable")[::-1]
    names = means.index.tolist()
    median = names[len(names) // 2]
    shown = [*names[:SHOWN_PAIRS], median]
    if own in names:
        shown.append(own)
    columns = {"pair": list(dict.fromkeys(shown))}
    for name, values in means.loc[columns["pair"]].items():
        columns[name] = [f"{value:.3f}" for value in values]
    return tables.of_columns(columns)


def reasons_of_losses(means: pd.DataFrame) -> str:
    """Rank correlations over the pairs of what K̃ loses with what may explain it; "" of no loss."""
    if np.ptp(means[LOST]) < 1e-9:
        return ""
    rows = []
    for name, values in means.items():
        if not name.startswith("lost by") and np.ptp(values) > 0:
            rows.append([name, rank_correlation(means[LOST], values)])
    return tables.table(["", "rank correlation"], rows)


def rank_correlation(first: pd.Series, second: pd.Series) -> str:
    """Spearman's, with Fisher's interval, whose variance is 1.06/(m - 3) (Fieller et al., 1957)."""
    correlation = float(scipy.stats.spearmanr(first, second).statistic)
    half = 1.96 * np.sqrt(1.06 / (len(first) - 3))
    centre = np.arctanh(np.clip(correlation, -0.9999, 0.9999))
    low, high = np.tanh([centre - half, centre + half])
    return f"{correlation:+.2f} ({low:+.2f} to {high:+.2f})"
