"""Could the evidence have failed? Other depths, simple classifiers, other constants, other pairs.

A page's function takes an experiment, one network's files, and returns the page's tables.
"""

from typing import Any

import numpy as np
import pandas as pd
from xarray import DataArray, Dataset

from analysis import tables
from analysis.experiments import Experiment, pair_title
from analysis.growth import Means
from analysis.tables import columns_of, losses_of, mean_cells, paired_cells, usual
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
    sizes = slice(swept_size(sweep))
    thresholds = tables.two_thresholds(sweep)
    sweep = sweep.sel(n=sizes, threshold=thresholds)
    exact_ones = usual(sweep).sel(approximation="exact")
    losses = losses_of(sweep.accuracy)
    rows = []
    for setting in sweep.setting.values:
        exact = exact_ones.sel(setting=setting)
        last = exact.isel(n=-1).mean("trial")
        row = {
            unit(sweep): f"{setting:g}",
            "off-diagonal / diagonal of K": f"{last.off_diagonal_ratio:.4g}",
            "κ of K": f"{last.condition_number.mean():.4g}",
            "accuracy of K": mean_cells(exact.accuracy, exact.test_images)[-1],
        }
        for name, loss in losses.items():
            row[f"loss {name}"] = paired_cells(loss.sel(setting=setting))[-1]
        rows.append(row)
    return {
        "n": sweep.n.values[-1],
        "rule": origin_of(sweep)["depth_rule"],
        "table": tables.of_columns(pd.DataFrame(rows).to_dict("list")),
    }


def baselines(experiment: Experiment) -> dict[str, Any]:
    """The exact NTK beside classifiers of a few lines, and K̃ beside what is as cheap."""
    results = experiment.kinds["baselines"]
    rows = tables.mean_rows(results, columns_of(results.accuracy))
    rivals = results.rival_accuracy
    sparsified = rivals.sel(rival="sparsified", drop=True)
    as_cheap = {"sparsified": mean_cells(sparsified, results.test_images // 2)}
    gains = rivals.drop_sel(rival="sparsified") - sparsified
    for name in gains.rival.values:
        as_cheap[f"{name} − sparsified"] = paired_cells(gains.sel(rival=name))
    return {
        "table": tables.by_size(results.n, rows),
        "rivals": tables.by_size(results.n, as_cheap),
    }


def standardisation(experiment: Experiment) -> dict[str, Any]:
    """What standardising test images by the training images changes."""
    results = experiment.kinds["standardisation"]
    own = results.sel(standard="test images", drop=True)
    other = results.sel(standard="training images", drop=True)
    changes = columns_of(other.accuracy - own.accuracy)
    rows, factors = {}, {}
    for name, values in columns_of(other.accuracy).items():
        rows[name] = mean_cells(values, results.test_images // 2)
        rows[f"change, {name}"] = paired_cells(changes[name])
    for quantity in ("post_selection_measurements", "readout_measurements"):
        word = tables.QUANTITIES[quantity]
        ratios = columns_of(other[quantity] / own[quantity])
        for name, ratio in ratios.items():
            factors[f"{word}, {name}"] = mean_cells(ratio)
    return {
        "table": tables.by_size(results.n, rows),
        "factors": tables.by_size(results.n, factors),
    }


def plane_of_constants(sensitivity: Dataset) -> Dataset:
    """Accuracy and share positive definite of K̃ [boost, density] at the paper's percentile.

    Means at the largest n of several trials and the usual threshold; `text` has the accuracies, in
    brackets where K̃ is not always positive definite. The attributes are the paper's constants.
    """
    names = ["percentile", "boost", "density"]
    setting = origin_of(sensitivity)["papers_setting"]
    papers = dict(zip(names, setting, strict=True))
    n = swept_size(sensitivity)
    at = usual(sensitivity).sel(n=n, approximation="sparsified")
    shown = at[[*names, "accuracy", "positive_definite"]]
    means = shown.mean(["trial", "pattern"]).to_dataframe()
    means = means[means.percentile == papers["percentile"]]
    text = means.accuracy.map("{:.3f}".format)
    text = text.replace("nan", "–")
    is_definite = means.positive_definite == 1
    means["text"] = text.where(is_definite, "(" + text + ")")
    plane = means.set_index(["boost", "density"]).to_xarray()
    plane["text"] = plane.text.fillna("–")  # where no setting is
    return plane.assign_coords(n=n).assign_attrs(papers)


def constants(experiment: Experiment) -> dict[str, Any]:
    """Accuracy of K̃ by boost and density."""
    plane = plane_of_constants(experiment.kinds["sensitivity"])
    columns = {"": [f"boost {boost:g}" for boost in plane.boost.values]}
    for density, texts in plane.text.to_pandas().items():
        columns[f"density {density:g}"] = texts
    return {"n": plane.n.item(), "table": tables.of_columns(columns)}


def named_pairs(experiment: Experiment) -> Dataset:
    """The results of all pairs of classes, which are named as in "5 and 8"."""
    results = experiment.kinds["digit_pairs"]
    names = []
    for label in results.setting.values:
        labels = list(map(int, label.split()))
        names.append(pair_title(experiment.dataset, labels))
    return results.assign_coords(setting=names)


def gains_over_diagonal(pairs: Dataset) -> Means:
    """What K̃ gains over its diagonal on each pair.

    Averaged over the sizes up to `swept_size`.
    """
    sizes = slice(swept_size(pairs))
    accuracy = usual(pairs).accuracy.sel(n=sizes)
    sparsified = accuracy.sel(approximation="sparsified")
    diagonal = accuracy.sel(approximation="diagonal")
    gain = (sparsified - diagonal).mean(["n", "pattern"])
    gain = gain.rename(setting="n")
    gain = gain.assign_coords(n=np.ones(len(gain)))  # pooled over the pairs
    return tables.paired(gain)


def by_pair(pairs: Dataset, n: int) -> pd.DataFrame:
    """Means over trials at n, a row for each pair: losses, and what they may come with."""
    at = usual(pairs).sel(n=n, drop=True)
    columns = Dataset()
    for name, loss in losses_of(at.accuracy).items():
        columns[f"lost by {name}"] = loss
    exact = at.accuracy.sel(approximation="exact", drop=True)
    columns["accuracy of K"] = exact.mean("pattern")
    for name, words in REASONS.items():
        if name in at:
            columns[words] = at[name]
    means = columns.mean("trial").to_dataframe()
    known = means.dropna(axis="columns", how="all")
    return known.dropna(subset=LOST)


def pairs(experiment: Experiment) -> dict[str, Any]:
    """The pairs that K̃ loses most on, and what losses come with.

    At the size that all are judged at, and at larger ones with several trials of some pairs.
    """
    results = named_pairs(experiment)
    complete = swept_size(results)
    trials = is_computed(results).sum("trial").max("setting")
    is_larger = results.n > complete
    larger = results.n[is_larger & (trials > 1)]
    told = {}
    for n in [complete, *larger.values]:
        means = by_pair(results, n)
        if means[LOST].max() >= 1e-9:
            told[n] = worst_pairs(means, experiment.pair)
    return {"tables": told, "reasons": reasons_of_losses(by_pair(results, complete))}


def worst_pairs(means: pd.DataFrame, own: str) -> str:
    """A table of those that K̃ loses most on, the median one, and the network's own."""
    rising = means.sort_values(LOST, kind="stable")
    names = rising.index[::-1].tolist()
    median = names[len(names) // 2]
    shown = dict.fromkeys([*names[:SHOWN_PAIRS], median, own])
    chosen = means.reindex(shown).dropna(how="all")
    text = chosen.map("{:.3f}".format)
    text = text.replace("nan", "–")
    return tables.of_columns({"pair": text.index} | text.to_dict("list"))


def reasons_of_losses(means: pd.DataFrame) -> str:
    """Rank correlations over the pairs of what K̃ loses with what may explain it; "" of no loss."""
    if np.ptp(means[LOST]) < 1e-9:
        return ""
    rows = []
    for name, column in means.items():
        values = column.dropna()
        lost = means[LOST][values.index]
        is_constant = np.ptp(values) == 0 or np.ptp(lost) == 0
        if not name.startswith("lost by") and not is_constant and len(values) > 3:
            rows.append([name, rank_correlation(values, lost)])
    return tables.table(["", "rank correlation"], rows)


def rank_correlation(first: pd.Series, second: pd.Series) -> str:
    """Spearman's, with Fisher's interval, whose variance is 1.06/(m - 3) (Fieller et al., 1957)."""
    correlation = first.corr(second, method="spearman")
    variance = 1.06 / (len(first) - 3)
    half = 1.96 * np.sqrt(variance)
    bounded = np.clip(correlation, -0.9999, 0.9999)
    centre = np.arctanh(bounded)
    low, high = np.tanh([centre - half, centre + half])
    return f"{correlation:+.2f} ({low:+.2f} to {high:+.2f})"
