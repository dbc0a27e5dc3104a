"""Could the evidence have failed? Other depths, simple classifiers, other constants, other pairs.

Each page's function takes an experiment, one network's files, and returns what its page shows.
Comparisons are paired by trial, with 95 % intervals.
"""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis import growth
from analysis.experiments import Experiment
from analysis.tables import (
    LABELS,
    accuracy_cells,
    by_size,
    by_threshold,
    columns_of,
    losses_of,
    paired,
    paired_cells,
    sizes_in_words,
    table,
)
from runtime.results import is_computed, origin_of

Array = NDArray[np.float64]

KERNELS = ("exact", "diagonal", "kernel mean")  # classifiers that see the kernel; others see pixels
PARAMETERS = ("percentile", "boost", "density")  # set by hand; as in the origin's papers_setting


def span(values: Any) -> str:
    """The least and the largest of some differences: 0.013 to 0.029."""
    return " to ".join(dict.fromkeys((f"{np.min(values):.3f}", f"{np.max(values):.3f}")))


def settings_in_words(differences: xr.DataArray) -> list[str]:
    """At which settings and sizes the interval of a difference is above 0, and by how much."""
    found = []
    for setting in differences.setting.values:
        mean, half = paired(differences.sel(setting=setting))
        if (mean > half).any():
            sizes = sizes_in_words(differences.n.values, mean > half)
            found.append(f"{setting:g} by {span(mean[mean > half])} ({sizes})")
    return found


def depth(experiment: Experiment) -> dict[str, Any]:
    """Other depths than the original's: where the exact NTK gains, whether approximations follow."""
    results = experiment.kinds["depth_sweep"].sel(convention="original")
    rule = origin_of(results)["depth_rule"]
    first = columns_of(results.accuracy.isel(threshold=0).mean("pattern"))
    own = first["exact"].sel(setting=rule, drop=True)
    gains = {name: values - own for name, values in first.items()}
    differences = {"exact minus exact at the original's depth": gains["exact"]}
    for name, loss in losses_of(results.accuracy).items():
        differences[f"exact minus {name}"] = loss
    exact = results.sel(approximation="exact").isel(threshold=0)
    rows = {"off-diagonal / diagonal of K": {}, "κ of K": {}, "accuracy, exact": {}}
    rows |= {name: {} for name in differences}
    for setting in results.setting.values.tolist():
        at, name = exact.sel(setting=setting), f"**{setting:g}**" if setting == rule else f"{setting:g}"
        rows["off-diagonal / diagonal of K"][name] = plain_means(at.off_diagonal_ratio, 2)
        rows["κ of K"][name] = plain_means(at.condition_number, 4)
        rows["accuracy, exact"][name] = accuracy_cells(at.accuracy, at.test_images)
        for what, difference in differences.items():
            rows[what][name] = paired_cells(difference.sel(setting=setting))
    return {
        "unit": "depth / L_conv" if results.setting.max() <= 1 else "depth",
        "rule": rule,
        "tables": {what: by_size(results.n.values, each) for what, each in rows.items()},
        "gains": {name: settings_in_words(values) for name, values in gains.items()},
    }


def plain_means(values: xr.DataArray, digits: int) -> list[str]:
    """Means over trials, without intervals, with so many digits."""
    by_trial = growth.trial_values(values)
    return [f"{np.mean(trials):.{digits}g}" if len(trials) else "–" for trials in by_trial]


def baselines(experiment: Experiment) -> dict[str, Any]:
    """The exact NTK beside classifiers of a few lines, and which of them beat it."""
    results = experiment.kinds["baselines"]
    n, accuracies, differences = results.n.values, {}, {}
    beaten, gains, better = {}, [], np.ones(len(n), bool)
    for threshold, values in by_threshold(results.accuracy).items():
        columns = columns_of(values)
        for name, values in columns.items():
            accuracies[f"{name}, {threshold}"] = accuracy_cells(values, results.test_images)
            if name not in KERNELS:
                differences[f"{name}, {threshold}"] = columns["exact"] - values
    first = LABELS.get(results.threshold.values[0], results.threshold.values[0])
    for name, difference in differences.items():
        mean, half = paired(difference)
        if name.endswith(first):
            better &= mean > half
            gains += list(-mean[mean < -half])
            if (mean < -half).any():
                beaten[name.partition(",")[0]] = sizes_in_words(n, mean < -half)
    agreement = results.agreement.mean(["n", "trial"])
    return {
        "accuracies": by_size(n, accuracies),
        "differences": by_size(n, {name: paired_cells(each) for name, each in differences.items()}),
        "agreement": {name: share.item() for name, share in by_threshold(agreement).items()},
        "better": sizes_in_words(n, better),
        "beaten": beaten,
        "by": span(gains) if gains else "",
        "ink": results.accuracy.sel(classifier="ink").isel(threshold=0, n=-1).mean().item(),
        "last": n[-1],
    }


def constants(experiment: Experiment) -> dict[str, Any]:
    """Tables along each hand-set constant, and where K̃ is better than its diagonal."""
    results = experiment.kinds["sensitivity"]
    papers = dict(zip(PARAMETERS, origin_of(results)["papers_setting"], strict=True))
    tables = {}
    for parameter in PARAMETERS:
        line = along(results, papers, parameter).sel(approximation="sparsified")
        for convention in line.convention.values.tolist():
            rows = {}
            for setting in line.setting.values:
                at = line.sel(setting=setting, convention=convention)
                bold = "**" if at[parameter] == papers[parameter] else ""
                rows[f"{bold}{at[parameter].item():g}{bold}"] = constants_cells(at)
            tables[f"{parameter}, {convention}"] = by_size(results.n.values, rows)
    line = along(results, papers, "boost")
    lower = line.isel(setting=line.boost.values < papers["boost"]).isel(setting=-1)
    definite = lower.positive_definite.sel(approximation="sparsified", convention="original")
    gains, most = gains_over_diagonal(results, papers)
    return {
        "papers": papers,
        "tables": tables,
        "gains": by_size(results.n.values, gains),
        "most": most,
        "settings": results.sizes["setting"],
        "lower": lower.boost.item(),
        "fails": sizes_in_words(results.n.values, (definite == 0).any(["trial", "pattern"]).values),
    }


def along(results: xr.Dataset, papers: dict[str, float], parameter: str) -> xr.Dataset:
    """The settings at which all constants but one are the paper's, by that one."""
    inside = np.ones(results.sizes["setting"], bool)
    for other in PARAMETERS:
        if other != parameter:
            inside &= results[other].values == papers[other]
    return results.isel(setting=inside).sortby(parameter)


def constants_cells(sparsified: xr.Dataset) -> list[str]:
    """Accuracy at each threshold, median κ and share positive definite at one setting, by size."""
    cells = []
    for n in sparsified.n.values:
        size = sparsified.sel(n=n)
        numbers = [f"{each.mean().item():.3f}" for each in by_threshold(size.accuracy).values()]
        numbers.append(f"{size.condition_number.median().item():.3g}")
        numbers.append(f"{size.positive_definite.mean().item():.0%}")
        cells.append(" / ".join(numbers))
    return cells


def gains_over_diagonal(
    results: xr.Dataset, papers: dict[str, float]
) -> tuple[dict[str, list[Any]], float]:
    """Rows of K̃'s accuracy minus its diagonal's, and the most that the paper's constants gain.

    With the paper's constants, and the number of all settings at which it is better and worse.
    """
    own = np.all([results[name].values == value for name, value in papers.items()], axis=0)
    rows: dict[str, list[Any]] = {}
    gain = results.accuracy.sel(approximation="sparsified")
    gain = (gain - results.accuracy.sel(approximation="diagonal")).mean("pattern")
    most = 0.0
    for name, each in columns_of(gain).items():
        judged = [paired(each.isel(setting=s)) for s in range(len(own))]
        mean, half = np.moveaxis(np.array(judged), 1, 0)  # [settings, n]
        rows[f"{name}, paper's constants"] = paired_cells(each.isel(setting=own).isel(setting=0))
        rows[f"{name}, settings better"] = list(np.sum(mean > half, axis=0))
        rows[f"{name}, settings worse"] = list(np.sum(mean < -half, axis=0))
        clear = (mean > half) & own[:, None]
        if clear.any() and "corrected" not in name:
            most = max(most, mean[clear].max())
    return rows, most


def pairs(experiment: Experiment) -> dict[str, Any]:
    """All pairs of classes: the ranks of the experiments' own, K̃ against its diagonal, losses."""
    results = experiment.kinds["digit_pairs"].sel(convention="original")
    classes = [sorted(map(int, label.split())) for label in results.setting.values]
    own = [classes.index(pair) for pair in experiment.pairs if pair in classes]
    names = [" and ".join(map(str, pair)) for pair in classes]
    rows = []
    for name, values in pair_quantities(results).items():
        means, half = pair_means(values)
        style = "+.4f" if "minus" in name else ".4g"
        row = [name]
        for pair in own:
            ranks = pair_ranks(values, pair, high=name.startswith("accuracy"))
            width = f" ± {half[pair]:.2g}" if np.isfinite(half[pair]) else ""
            row += [f"{means[pair]:{style}}{width}", "{1} ({0} to {2})".format(*ranks)]
        row.append(f"{np.median(means):{style}}")
        for i in (means.argmin(), means.argmax()):
            row.append(f"{means[i]:{style}} ({names[i]})")
        rows.append(row)
    heading = [""]
    for pair in own:
        heading += [names[pair], "rank"]
    counts = is_computed(results).sum("trial").max("setting")
    return {
        "count": len(names),
        "table": table([*heading, "median pair", "least", "most"], rows),
        "trials": ", ".join(f"{count.item()} of n = {count.n.item()}" for count in counts),
        "losses": largest_losses(results, names),
        **against_diagonal(results),
    }


def pair_quantities(results: xr.Dataset) -> dict[str, Array]:
    """What pairs are compared by, [pairs, trials]."""
    compared = {}
    for threshold, values in by_threshold(results.accuracy.sel(approximation="exact")).items():
        compared[f"accuracy, exact, {threshold}"] = pair_values(values)
    for name, loss in losses_of(results.accuracy).items():
        compared[f"exact minus {name}"] = pair_values(loss)
    for variable, label in (
        ("condition_number", "κ less 1"),
        ("post_selection_measurements_median", "post-selection"),
        ("readout_measurements_median", "readout"),
    ):
        for name, column in columns_of(results[variable]).items():
            compared[f"{label}, {name}"] = pair_values(column)
    return compared


def pair_values(values: xr.DataArray) -> Array:
    """A quantity [n, setting, trial, ...] averaged over sizes and patterns: [pairs, trials].

    Condition numbers, less 1, and measurements are averaged by their logarithms. A trial that some
    size lacks is NaN.
    """
    name = str(values.name)
    by_logarithms = "measurements" in name or "condition" in name
    there = values.notnull().any([dim for dim in values.dims if dim != "n"])
    values = values.isel(n=there.values)
    if by_logarithms:
        with np.errstate(divide="ignore"):  # κ = 1
            values = np.log(values - ("condition" in name))
    averaged = [dim for dim in values.dims if dim not in ("setting", "trial")]
    means = values.mean(averaged, skipna=False).transpose("setting", "trial").values
    return np.exp(means) if by_logarithms else means


def pair_means(values: Array) -> tuple[Array, Array]:
    """Means [pairs] of values [pairs, trials], half-widths; the spread is pooled over the pairs."""
    shift = 1 if (values <= 0).any() else 0
    by_pair = [shift + trials[~np.isnan(trials)] for trials in values]
    mean, _, half = growth.size_means(np.ones(len(values)), by_pair)
    return mean - shift, half


def pair_ranks(values: Array, pair: int, high: bool) -> tuple[int, int, int]:
    """A pair's rank among all [pairs, trials]: the best possible, as it is, the worst; 1 is best.

    The possible ranks leave out the pairs that differ by more than chance. high: large is good.
    """
    mean, half = pair_means(values)
    lead = (mean - mean[pair]) * (1 if high else -1)
    clear = np.abs(lead) > np.hypot(half, half[pair])
    ahead, behind = np.sum(clear & (lead > 0)), np.sum(clear & (lead < 0))
    return int(1 + ahead), int(1 + np.sum(lead > 0)), int(len(values) - behind)


def against_diagonal(results: xr.Dataset) -> dict[str, int]:
    """On how many pairs K̃ is better and worse than its diagonal at the first threshold."""
    accuracy = results.accuracy.isel(threshold=0)
    gain = accuracy.sel(approximation="sparsified") - accuracy.sel(approximation="diagonal")
    mean, half = pair_means(pair_values(gain))
    clear = np.abs(mean) > half
    return {
        "better": int(np.sum(mean > 1e-9)),
        "worse": int(np.sum(mean < -1e-9)),
        "clearly_better": int(np.sum(clear & (mean > 0))),
        "clearly_worse": int(np.sum(clear & (mean < 0))),
    }


def largest_losses(results: xr.Dataset, names: list[str]) -> dict[str, tuple[float, str, int]]:
    """How much accuracy each approximation loses at most, on which pair, at which n."""
    largest = {}
    for name, loss in losses_of(results.accuracy).items():
        mean = loss.mean("trial").transpose("n", "setting")
        i, pair = np.unravel_index(np.nanargmax(mean.values), mean.shape)
        largest[name] = (mean.values[i, pair], names[pair], mean.n.values[i])
    return largest
