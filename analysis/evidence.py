"""Could the evidence have failed? Other depths, simple classifiers, other constants, other pairs.

A page's function takes an experiment, one network's files, and returns the page's tables.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from analysis import tables
from analysis.experiments import Experiment, pair_title
from analysis.tables import accuracy_cells, columns_of, losses_of, paired_cells, usual
from runtime.results import is_computed, origin_of


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
            accuracy_cells(here.accuracy, here.test_images)[-1],
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
        rows[name] = accuracy_cells(values, results.test_images)
    rivals = results.rival_accuracy
    sparsified = rivals.sel(rival="sparsified", drop=True)
    as_cheap = {"sparsified": accuracy_cells(sparsified, results.test_images // 2)}
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
        rows[name] = accuracy_cells(values, results.test_images // 2)
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
    percentile, boost, density = origin_of(sensitivity)["papers_setting"]
    return {"percentile": percentile, "boost": boost, "density": density}


def plane_of_constants(sensitivity: Dataset) -> Dataset:
    """Accuracy and share positive definite of K̃ [boost, density] at the paper's percentile.

    Means at the largest n of several trials and the usual threshold.
    """
    constants = papers_constants(sensitivity)
    plane = usual(sensitivity.set_coords(constants))[["accuracy", "positive_definite"]]
    plane = plane.sel(n=swept_size(sensitivity), approximation="sparsified")
    plane = plane.sel(setting=plane.percentile == constants["percentile"])
    plane = plane.mean(["trial", "pattern"]).drop_vars("setting")
    plane = plane.set_index(setting=["boost", "density"])
    return plane.unstack("setting").transpose("boost", "density")


def cells_of_constants(plane: Dataset) -> list[list[str]]:
    """The accuracies of such a plane, in brackets where K̃ is not always positive definite."""
    rows = []
    for boost in plane.boost.values:
        line = plane.sel(boost=boost)
        row = []
        for i, accuracy in enumerate(line.accuracy.values):
            is_definite = line.positive_definite[i] == 1
            row.append(f"{accuracy:.3f}" if is_definite else f"({accuracy:.3f})")
        rows.append(row)
    return rows


def constants(experiment: Experiment) -> dict[str, Any]:
    """Accuracy of K̃ by boost and density."""
    plane = plane_of_constants(experiment.kinds["sensitivity"])
    cells = cells_of_constants(plane)
    rows = []
    for i, boost in enumerate(plane.boost.values):
        rows.append([f"boost {boost:g}", *cells[i]])
    heading = [""]
    for density in plane.density.values:
        heading.append(f"density {density:g}")
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


def pairs(experiment: Experiment) -> dict[str, Any]:
    """All pairs of classes, averaged over the sizes: the median, the extremes and the own one."""
    accuracy = named_pairs(experiment).accuracy.sel(convention="original")
    exact = accuracy.sel(approximation="exact", drop=True).mean("pattern")
    quantities = {}
    for name, values in columns_of(exact).items():
        quantities[f"accuracy of K {name}"] = values
    for name, values in losses_of(accuracy).items():
        quantities[f"loss {name}"] = values
    rows = []
    for name, values in quantities.items():
        means = values.mean(["n", "trial"])
        row = [name, f"{means.median():.4f}"]
        for label in (means.idxmin().item(), means.idxmax().item()):
            row.append(f"{means.sel(setting=label):.4f} ({label})")
        if experiment.pair in means.setting:
            row.append(f"{means.sel(setting=experiment.pair):.4f}")
        rows.append(row)
    heading = ["", "median pair", "least", "most", experiment.pair]
    return {"table": tables.table(heading[: len(rows[0])], rows)}
