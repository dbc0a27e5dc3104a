"""Could the evidence have failed? Other depths, simple classifiers, other constants, other pairs.

A page's function takes an experiment, one network's files, and returns the page's tables.
"""

from typing import Any

import numpy as np
import scipy.stats
import xarray as xr
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from analysis import tables
from analysis.experiments import Experiment, pair_title
from analysis.tables import columns_of, losses_of, mean_cells, paired_cells, usual
from runtime.results import is_computed, origin_of

Means = dict[str, DataArray]  # of quantities, by name
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


def at_two_thresholds(results: Dataset) -> Dataset:
    """At the usual threshold and at zero."""
    thresholds = [tables.usual_threshold(results)]
    if "zero" not in thresholds:
        thresholds.append("zero")
    return results.sel(threshold=thresholds)


def unit(sweep: Dataset) -> str:
    """What the settings of a sweep of depths are."""
    return "depth / L_conv" if sweep.setting.max() <= 1 else "depth"


def depth(experiment: Experiment) -> dict[str, Any]:
    """What K is like at each depth, and what the approximations lose, at `swept_size`."""
    sweep = experiment.kinds["depth_sweep"].sel(convention="original")
    sweep = sweep.sel(n=slice(swept_size(sweep)))
    exact = usual(sweep).sel(approximation="exact")
    last = exact.isel(n=-1).mean("trial")
    losses = losses_of(at_two_thresholds(sweep).accuracy)
    rows = []
    for setting in sweep.setting.values:
        here = exact.sel(setting=setting)
        at_last = last.sel(setting=setting)
        row = [
            f"{setting:g}",
            f"{at_last.off_diagonal_ratio:.4g}",
            f"{at_last.condition_number.mean():.4g}",
            mean_cells(here.accuracy, here.test_images)[-1],
        ]
        for loss in losses.values():
            row.append(paired_cells(loss.sel(setting=setting))[-1])
        rows.append(row)
    heading = [unit(sweep), "off-diagonal / diagonal of K", "κ of K", "accuracy of K"]
    heading += [f"loss {name}" for name in losses]
    return {
        "n": sweep.n.values[-1],
        "rule": origin_of(sweep)["depth_rule"],
        "table": tables.table(heading, rows),
    }


def baselines(experiment: Experiment) -> dict[str, Any]:
    """The exact NTK beside classifiers of a few lines, and K̃ beside what is as cheap."""
    results = experiment.kinds["baselines"]
    rows = {}
    for name, values in columns_of(results.accuracy).items():
        rows[name] = mean_cells(values, results.test_images)
    rivals = results.rival_accuracy
    sparsified = rivals.sel(rival="sparsified", drop=True)
    as_cheap = {"sparsified": mean_cells(sparsified, results.test_images // 2)}
    gains = rivals.drop_sel(rival="sparsified") - sparsified
    for name in gains.rival.values:
        gain = gains.sel(rival=name)
        as_cheap[f"{name} − sparsified"] = paired_cells(gain)
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


def papers_constants(sensitivity: Dataset) -> dict[str, float]:
    """The paper's percentile, boost and density."""
    values = origin_of(sensitivity)["papers_setting"]
    return dict(zip(("percentile", "boost", "density"), values, strict=True))


def plane_of_constants(sensitivity: Dataset) -> Dataset:
    """Accuracy and share positive definite of K̃ [boost, density] at the paper's percentile.

    Means at the largest n of several trials and the usual threshold; `text` has the accuracies, in
    brackets where K̃ is not always positive definite.
    """
    constants = papers_constants(sensitivity)
    plane = usual(sensitivity.set_coords(constants))[["accuracy", "positive_definite"]]
    plane = plane.sel(n=swept_size(sensitivity), approximation="sparsified")
    plane = plane.sel(setting=plane.percentile == constants["percentile"])
    plane = plane.mean(["trial", "pattern"]).drop_vars("setting")
    plane = plane.set_index(setting=["boost", "density"])
    plane = plane.unstack("setting").transpose("boost", "density")
    known = plane.accuracy, plane.positive_definite
    return plane.assign(text=xr.apply_ufunc(in_brackets, *known, vectorize=True))


def in_brackets(accuracy: float, positive_definite: float) -> str:
    """The accuracy, in brackets where not every matrix is positive definite."""
    return f"{accuracy:.3f}" if positive_definite == 1 else f"({accuracy:.3f})"


def constants(experiment: Experiment) -> dict[str, Any]:
    """Accuracy of K̃ by boost and density."""
    plane = plane_of_constants(experiment.kinds["sensitivity"])
    heading = [""]
    for density in plane.density.values:
        heading.append(f"density {density:g}")
    rows = []
    for boost in plane.boost.values:
        cells = plane.text.sel(boost=boost).values
        rows.append([f"boost {boost:g}", *cells])
    return {"n": plane.n.item(), "table": tables.table(heading, rows)}


def named_pairs(experiment: Experiment) -> Dataset:
    """The results of all pairs of classes, which are named as in "5 and 8"."""
    results = experiment.kinds["digit_pairs"]
    names = []
    for label in results.setting.values:
        first, second = label.split()
        names.append(pair_title(experiment.dataset, [int(first), int(second)]))
    return results.assign_coords(setting=names)


def gains_over_diagonal(pairs: Dataset) -> tuple[NDArray, NDArray]:
    """What K̃ gains over its diagonal on each pair, and half-widths.

    Averaged over the sizes up to `swept_size`.
    """
    losses = losses_of(usual(pairs).accuracy.sel(n=slice(swept_size(pairs))))
    gain = losses["diagonal"] - losses["sparsified"]
    gain = gain.mean("n").rename(setting="n")
    return tables.paired(gain.assign_coords(n=np.ones(len(gain))))  # pooled over the pairs


def sizes_told_of(pairs: Dataset) -> list[int]:
    """The size that all pairs are judged at, and larger ones with several trials of some pairs."""
    complete = swept_size(pairs)
    trials = is_computed(pairs).sum("trial").max("setting")
    larger = (trials > 1) & (pairs.n > complete)
    return [complete, *pairs.n.values[larger.values].tolist()]


def by_pair(pairs: Dataset, n: int) -> tuple[Means, Means]:
    """Means over trials [setting] at n: of the losses, and of what may explain them, by name."""
    at = usual(pairs).sel(n=n)
    losses = losses_of(at.accuracy)
    reasons = {"accuracy of K": at.accuracy.sel(approximation="exact").mean("pattern")}
    for name, words in REASONS.items():
        if name in at and at[name].notnull().any():
            reasons[words] = at[name]
    return over_trials(losses), over_trials(reasons)


def over_trials(quantities: Means) -> Means:
    """Their means over the trials, of the settings that have any."""
    return {name: values.mean("trial").dropna("setting") for name, values in quantities.items()}


def pairs(experiment: Experiment) -> dict[str, Any]:
    """The pairs that K̃ loses most on, at every size told of, and what losses come with."""
    results = named_pairs(experiment)
    sizes = sizes_told_of(results)
    means = {n: by_pair(results, n) for n in sizes}
    told = {}
    for n, (losses, reasons) in means.items():
        if losses["sparsified"].max() >= 1e-9:
            told[n] = worst_pairs(losses, reasons, experiment.pair)
    return {"tables": told, "reasons": reasons_of_losses(*means[sizes[0]])}


def worst_pairs(losses: Means, reasons: Means, own: str) -> str:
    """A table of those that K̃ loses most on, the median one, and the network's own."""
    lost = losses["sparsified"]
    names = lost.sortby(lost, ascending=False).setting.values.tolist()
    shown = [*names[:SHOWN_PAIRS], names[len(names) // 2]]
    if own in names:
        shown.append(own)
    rows = []
    for name in dict.fromkeys(shown):
        row = [name]
        for values in (losses | reasons).values():
            row.append(f"{values.sel(setting=name):.3f}")
        rows.append(row)
    heading = ["pair", *(f"lost by {name}" for name in losses), *reasons]
    return tables.table(heading, rows)


def reasons_of_losses(losses: Means, reasons: Means) -> str:
    """Rank correlations over the pairs of what K̃ loses with what may explain it; "" of no loss."""
    lost = losses["sparsified"].values
    if np.ptp(lost) < 1e-9:
        return ""
    rows = []
    for name, values in reasons.items():
        if np.ptp(values.values) > 0:
            rows.append([name, rank_correlation(lost, values.values)])
    return tables.table(["", "rank correlation"], rows)


def rank_correlation(first: NDArray, second: NDArray) -> str:
    """Spearman's, with Fisher's interval, whose variance is 1.06/(m - 3) (Fieller et al., 1957)."""
    correlation = float(scipy.stats.spearmanr(first, second).statistic)
    half = 1.96 * np.sqrt(1.06 / (len(first) - 3))
    centre = np.arctanh(np.clip(correlation, -0.9999, 0.9999))
    low, high = np.tanh([centre - half, centre + half])
    return f"{correlation:+.2f} ({low:+.2f} to {high:+.2f})"
