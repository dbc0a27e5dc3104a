"""Could the evidence have failed? Other depths, simple classifiers, other constants, other pairs.

Each page's function takes an experiment, one network's files, and returns what its page shows.
Comparisons are paired by trial, with 95 % intervals.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis import growth
from analysis.experiments import Experiment
from analysis.tables import (
    USUAL,
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

KERNELS = ("exact", "diagonal", "class mean of the kernel")  # the other classifiers see pixels
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
    """Other depths than the original's: where the exact NTK gains, and whether others follow."""
    results = experiment.kinds["depth_sweep"].sel(convention="original")
    rule = origin_of(results)["depth_rule"]
    gains = {}
    if rule in results.setting:
        usual = columns_of(results.accuracy.sel(USUAL).mean("pattern"))
        own = usual["exact"].sel(setting=rule, drop=True)
        gains = {name: values - own for name, values in usual.items()}
    exact = results.sel(USUAL).sel(approximation="exact")
    tables = {
        "off-diagonal / diagonal of K": by_setting(exact.off_diagonal_ratio, rule, plain_means),
        "κ of K": by_setting(exact.condition_number, rule, plain_means),
        "accuracy, exact": by_setting(
            exact.accuracy, rule, lambda values: accuracy_cells(values, exact.test_images[:, 0])
        ),
    }
    if gains:
        name = "exact minus exact at the original's depth"
        tables[name] = by_setting(gains["exact"], rule, paired_cells)
    for name, loss in losses_of(results.accuracy).items():
        tables[f"exact minus {name}"] = by_setting(loss, rule, paired_cells)
    return {
        "unit": "depth / L_conv" if results.setting.max() <= 1 else "depth",
        "rule": rule,
        "trials": trials_in_words(results),
        "tables": tables,
        "gains": {name: settings_in_words(values) for name, values in gains.items()},
    }


def by_setting(
    values: xr.DataArray, bold: float, cells: Callable[[xr.DataArray], list[str]]
) -> str:
    """A table by setting and size, one setting in bold."""
    rows = {}
    for setting in values.setting.values.tolist():
        name = f"**{setting:g}**" if setting == bold else f"{setting:g}"
        rows[name] = cells(values.sel(setting=setting))
    return by_size(values.n.values, rows)


def trials_in_words(results: xr.Dataset) -> str:
    """The most trials that a setting has, by size: 4 of n = 16, 2 of n = 32."""
    counts = is_computed(results).sum("trial").max("setting")
    return ", ".join(f"{count.item()} of n = {count.n.item()}" for count in counts)


def plain_means(values: xr.DataArray) -> list[str]:
    """Means over trials, without intervals."""
    by_trial = growth.trial_values(values)
    return [f"{np.mean(trials):.4g}" if len(trials) else "–" for trials in by_trial]


def baselines(experiment: Experiment) -> dict[str, Any]:
    """The exact NTK beside classifiers of a few lines, and which of them beat it."""
    results = experiment.kinds["baselines"]
    accuracies, differences = {}, {}
    for threshold, values in by_threshold(results.accuracy).items():
        columns = columns_of(values)
        for name, column in columns.items():
            accuracies[f"{name}, {threshold}"] = accuracy_cells(column, results.test_images)
            if name not in KERNELS:
                differences[f"{name}, {threshold}"] = paired_cells(columns["exact"] - column)
    agreement = by_threshold(results.agreement.mean(["n", "trial"]))
    ink = results.accuracy.sel(USUAL).sel(classifier="ink").isel(n=-1)
    return {
        "accuracies": by_size(results.n.values, accuracies),
        "differences": by_size(results.n.values, differences),
        "agreement": {name: share.item() for name, share in agreement.items()},
        "ink": ink.mean().item(),
        "last": ink.n.item(),
        **rivals(columns_of(results.accuracy.sel(USUAL))),
    }


def rivals(columns: dict[str, xr.DataArray]) -> dict[str, Any]:
    """Which classifiers of the pixels beat the exact NTK at which sizes, and where it beats all."""
    beaten, losses = {}, []
    n = columns["exact"].n.values
    better = np.ones(len(n), bool)
    for name, column in columns.items():
        if name not in KERNELS:
            mean, half = paired(columns["exact"] - column)
            better &= mean > half
            if (mean < -half).any():
                losses += list(-mean[mean < -half])
                beaten[name] = sizes_in_words(n, mean < -half)
    better_at = sizes_in_words(n, better)
    return {"beaten": beaten, "by": span(losses) if losses else "", "better": better_at}


def constants(experiment: Experiment) -> dict[str, Any]:
    """Tables along each hand-set constant, and where K̃ is better than its diagonal."""
    results = experiment.kinds["sensitivity"]
    papers = dict(zip(PARAMETERS, origin_of(results)["papers_setting"], strict=True))
    tables = {}
    for parameter in PARAMETERS:
        line = along(results, papers, parameter).sel(approximation="sparsified")
        line = line.swap_dims(setting=parameter).drop_vars("setting").rename({parameter: "setting"})
        for convention in line.convention.values.tolist():
            at = line.sel(convention=convention)
            rows = {}
            for value in at.setting.values.tolist():
                name = f"**{value:g}**" if value == papers[parameter] else f"{value:g}"
                rows[name] = constants_cells(at.sel(setting=value))
            tables[f"{parameter}, {convention}"] = by_size(results.n.values, rows)
    gains, most = gains_over_diagonal(results, papers)
    return {
        "papers": papers,
        "tables": tables,
        "gains": by_size(results.n.values, gains),
        "most": most,
        "settings": results.sizes["setting"],
        **with_less_boost(along(results, papers, "boost"), papers["boost"]),
    }


def with_less_boost(line: xr.Dataset, papers: float) -> dict[str, Any]:
    """The next lower boost than the paper's, and where some K̃ is not positive definite with it."""
    lower = line.isel(setting=line.boost.values < papers).isel(setting=-1)
    definite = lower.positive_definite.sel(approximation="sparsified", convention="original")
    fails = (definite == 0).any(["trial", "pattern"])
    return {"lower": lower.boost.item(), "fails": sizes_in_words(line.n.values, fails.values)}


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
    quantities = pair_quantities(results)
    rows = [pair_row(name, values, own, names) for name, values in quantities.items()]
    heading = [""]
    for pair in own:
        heading += [names[pair], "rank"]
    return {
        "title": experiment.title.partition(",")[0],
        "count": len(names),
        "table": table([*heading, "median pair", "least", "most"], rows),
        "trials": trials_in_words(results),
        "losses": largest_losses(results, names),
        **against_diagonal(results),
    }


def pair_row(name: str, values: Array, own: list[int], names: list[str]) -> list[str]:
    """A quantity's means and ranks of the pairs `own`, its median, and its extremes."""
    means, half = pair_means(values)
    style = "+.4f" if "minus" in name else ".4g"
    row = [name]
    for pair in own:
        best, rank, worst = pair_ranks(values, pair, high=name.startswith("accuracy"))
        width = f" ± {half[pair]:.2g}" if np.isfinite(half[pair]) else ""
        row += [f"{means[pair]:{style}}{width}", f"{rank} ({best} to {worst})"]
    row.append(f"{np.median(means):{style}}")
    for i in (means.argmin(), means.argmax()):
        row.append(f"{means[i]:{style}} ({names[i]})")
    return row


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
    averaged = [dim for dim in values.dims if dim not in ("setting", "trial")]
    scaled = values.isel(n=there.values)
    if by_logarithms:
        with np.errstate(divide="ignore"):  # κ = 1
            scaled = xr.ufuncs.log(scaled - ("condition" in name))
    means = scaled.mean(averaged, skipna=False).transpose("setting", "trial")
    return np.exp(means.values) if by_logarithms else means.values


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
    """On how many pairs K̃ is better and worse than its diagonal at the usual threshold."""
    accuracy = results.accuracy.sel(USUAL)
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
