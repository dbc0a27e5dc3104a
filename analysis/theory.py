"""The paper's theorem as it was measured, and networks that can be built beside the infinite one.

A page's function takes an experiment and returns the page's tables, {} where no file has them.
Quantities of the theorem span a hundred orders of magnitude: their means are geometric.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.stats
import xarray as xr
from xarray import DataArray, Dataset

from analysis import evidence, tables
from analysis.experiments import Experiment
from analysis.growth import TAIL, Array, Estimate
from analysis.tables import written
from ntk import finite, theorem
from ntk.fully_connected import nonlinearity
from runtime.results import origin_of

VARIANCES = {"original": "s/784", "one": "1"}  # of the first layer's neurons, in words
PREDICTORS = {  # whose accuracies are shown, and how
    "infinite": "NTK",
    "finite": "kernel of a network",
    "finite_plain": "with its initial outputs",
    "infinite_plain": "one infinitely wide network",
}
BEYOND = ("below all", "measured", "extrapolated")  # where a width is among those measured
TARGETS = {"off/diag": -2, "κ − 1": -1, "‖Δw‖/‖w‖": -1}  # the theorem's exponents of n

# --------------------------------------------------------------------------------------------------
# The theorem, in the fully-connected depth sweep
# --------------------------------------------------------------------------------------------------


class Exponent(NamedTuple):
    """Slope of ln(value) against ln(n), all trials, and the half-width of its 95 % interval."""

    value: float
    half: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} ± {self.half:.2f}".replace("-", "−")


def exponent(values: DataArray) -> Exponent:
    """The exponent of a positive quantity [n, trial] that goes like a power of n, or nearly."""
    known = values.where(values > 0).to_series().dropna()  # not 0 by underflow
    n = known.index.get_level_values("n")
    if len(known) < 3 or n.nunique() < 2:
        return Exponent(np.nan, np.nan)
    line, covariance = np.polyfit(np.log(n), np.log(known), 1, cov=True)
    half = scipy.stats.t.isf(TAIL / 2, len(n) - 2) * np.sqrt(covariance[0, 0])
    return Exponent(line[0], half)


def has_theorem(experiment: Experiment) -> bool:
    """Whether the sweep has the theorem's quantities."""
    sweep = experiment.kinds.get("depth_sweep", Dataset())
    return "input_variance" in sweep.dims


def theorem_sweep(experiment: Experiment) -> Dataset:
    """The sweep's sizes and depths of which the theorem's quantities are known."""
    sweep = experiment.kinds["depth_sweep"]
    known = sweep.descent_steps.notnull().any(["trial", "input_variance"])
    return sweep.isel(n=known.any("setting").values, setting=known.any("n").values)


def measures(sweep: Dataset, variance: str) -> dict[str, DataArray]:
    """What the theorem bounds, by name: [n, setting, trial] each."""
    at = sweep.sel(input_variance=variance)
    return {
        "off/diag": at.correlation_of_gradients,
        "κ − 1": at.condition_number_excess.sel(approximation="exact"),
        "‖Δw‖/‖w‖": at.weight_error.sel(approximation="diagonal"),
    }


def exponents(values: DataArray) -> list[Exponent]:
    """Exponents [setting] of a quantity [n, setting, trial]."""
    return [exponent(values.sel(setting=setting)) for setting in values.setting.values]


def crossing(settings: Array, slopes: Array, target: float) -> float:
    """Where exponents fall below the target for good, by linear interpolation.

    NaN: nowhere, or nobody can tell, as the deepest exponents are unknown.
    """
    above = np.flatnonzero(~(slopes <= target))
    if not above.size:
        return settings[0]
    last = above[-1]
    pair = slice(last, last + 2)  # the second is below, if there is one
    return np.interp(target, slopes[pair][::-1], settings[pair][::-1], left=np.nan)


def beginning(values: DataArray, target: float) -> Estimate:
    """The depth from which on the exponent is below the target, and its 95 % interval."""
    slopes, half = np.transpose(exponents(values))
    settings = values.setting.values
    return Estimate(*(crossing(settings, slopes + side * half, target) for side in (0, -1, 1)))


def depth_in_words(values: DataArray, target: float) -> str:
    """The same as text: 0.061 (0.060 to 0.063)."""
    value, low, high = beginning(values, target)
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def exponents_table(sweep: Dataset) -> str:
    """Exponents of n by depth and input variance, and from where on they are the theorem's."""
    columns: dict[str, list[Any]] = {
        evidence.unit(sweep): [*written(sweep.setting, "g"), "the theorem's from"]
    }
    for variance, words in VARIANCES.items():
        for name, values in measures(sweep, variance).items():
            begins = depth_in_words(values, TARGETS[name])
            columns[f"{name}, {words}"] = [*exponents(values), begins]
    return tables.of_columns(columns)


def geometric_mean(values: DataArray, axis: str) -> DataArray:
    """Of positive values, over one axis."""
    return xr.ufuncs.exp(xr.ufuncs.log(values).mean(axis))


def ends(means: DataArray) -> list[str]:
    """Means [n, setting] at the smallest and the largest n, by setting."""
    pairs = means.isel(n=[0, -1]).transpose("setting", "n").values
    return [f"{first:.2g} → {last:.2g}" for first, last in pairs]


def levels_table(sweep: Dataset) -> str:
    """What the theorem bounds, times the power of n by which it falls, signs flipped and steps.

    At the smallest and the largest n; inputs as the original's.
    """
    original = sweep.sel(input_variance="original")
    off, excess, error = measures(sweep, "original").values()
    scaled = {
        "off/diag · n²": off * sweep.n**2,
        "(κ − 1) · n": excess * sweep.n,
        "n‖Δw‖/‖w‖, diagonal": error * sweep.n,
        "n‖Δw‖/‖w‖, K̃": original.weight_error.sel(approximation="sparsified") * sweep.n,
        "n · error of output": original.output_error.sel(approximation="diagonal") * sweep.n,
    }
    columns = {evidence.unit(sweep): written(sweep.setting, "g")}
    for name, values in scaled.items():
        columns[name] = ends(geometric_mean(values, "trial"))
    means = original.sel(approximation="diagonal").mean("trial")
    columns["signs flipped"] = ends(means.flipped_share)
    columns["steps of descent"] = ends(means.descent_steps)
    return tables.of_columns(columns)


def bounds_table(sweep: Dataset) -> str:
    """The proof's bound beside what was measured, on inputs of variance 1, at the largest n."""
    at = sweep.sel(input_variance="one", n=sweep.n[-1])
    measured = geometric_mean(at.correlation_of_gradients, "trial")
    bound = geometric_mean(at.off_diagonal_bound, "trial")
    columns = {
        evidence.unit(sweep): written(sweep.setting, "g"),
        "layers": written(at.depth.mean("trial"), ".0f"),
        "off/diag": written(measured, ".1e"),
        "the proof's bound": written(bound, ".1e"),
        "slack, decades": written(xr.ufuncs.log10(bound / measured), ".1f"),
    }
    return tables.of_columns(columns)


def sweep_tables(sweep: Dataset) -> dict[str, Any]:
    """All that the sweep says of the theorem."""
    deepest = sweep.isel(setting=-1, n=-1)
    delta = exponent(sweep.separability.isel(setting=0))
    entries = deepest.correlation_of_gradients.sel(input_variance="one")
    return {
        "n": sweep.n.values[[0, -1]],
        "rule": origin_of(sweep)["depth_rule"],
        "exponents": exponents_table(sweep),
        "levels": levels_table(sweep),
        "bounds": bounds_table(sweep),
        "turn": depth_in_words(measures(sweep, "original")["κ − 1"], 0),  # where κ begins to fall
        "turn_one": depth_in_words(measures(sweep, "one")["κ − 1"], 0),
        "delta": delta,
        "shrinkage": theorem.shrinkage,
        "proofs_rate": 1 - nonlinearity / 2,
        "predicted": theorem.predicted_exponent(1) * (1 - delta.value),
        "least": f"{geometric_mean(entries, 'trial').item():.0e}",
    }


# --------------------------------------------------------------------------------------------------
# Neighbourhoods, and gradient descent
# --------------------------------------------------------------------------------------------------


def neighbour_tables(neighbours: Dataset) -> dict[str, Any]:
    """Who is near a test image, by n; the radii are 1 - x*.x_i."""
    near, far = neighbours.radius.values[[1, -2]]
    means = neighbours.mean("trial")
    within = means.sel(radius=far)
    at_near = means.kernel_at_radius.sel(radius=near)
    columns = {
        "n": neighbours.n.values,
        "closest of all": written(neighbours.closest_distance.min("trial"), ".3f"),
        "closest, median": written(means.median_distance, ".3f"),
        f"share with one within {far:g}": written(within.with_neighbour, ".3f"),
        "its label": written(within.purity, ".3f"),
        "share of training set": written(within["size"], ".4f"),
        f"k({near:g}) / k_thresh": written(at_near, ".1e"),
    }
    return {
        "near": near,
        "near_share": neighbours.with_neighbour.sel(radius=near).max().item(),
        "clipped": neighbours.with_neighbour.isel(radius=0).max().item(),
        "margin": f"{neighbours.radius.values[0]:.0e}".replace("e-0", "e-"),
        "median": means.median_distance.values[[-1, 0]],
        "closest": neighbours.closest_distance.min().item(),
        "kernels": f"{at_near.max():.0e} to {at_near.min():.0e}",
        "attempts": f"{(at_near**-2).min():.0e} to {(at_near**-2).max():.0e}",
        "table": tables.of_columns(columns),
    }


def known_sizes(trainability: Dataset) -> Dataset:
    """The sizes that have trials."""
    return trainability.dropna("n", how="all", subset=["descent_steps"])


def training_tables(trainability: Dataset) -> dict[str, Any]:
    """Steps of gradient descent by n, and K̃ beside the trained network and a stopped one."""
    quantities = {
        "κ": trainability.condition_number,
        "λ₂/λ_min": trainability.second_condition_number,
        "steps": trainability.descent_steps,
        "cos(w̃, w)": trainability.cosine,
        "corr. with trained": trainability.trained_correlation,
        "time stopped": trainability.stopping_time,
        "corr. with stopped": trainability.stopped_correlation,
    }
    columns = {"n": trainability.n.values.tolist()}
    for name, values in quantities.items():
        columns[name] = tables.mean_cells(values)
    steps = exponent(trainability.descent_steps)
    modes = (trainability.condition_number / trainability.second_condition_number).mean("trial")
    return {"steps": steps, "modes": modes.values[[0, -1]], "table": tables.of_columns(columns)}


def theorem_page(experiment: Experiment) -> dict[str, Any]:
    """Whatever files there are of the theorem."""
    parts = {}
    if has_theorem(experiment):
        parts["sweep"] = sweep_tables(theorem_sweep(experiment))
    if "neighbours" in experiment.kinds:
        parts["neighbours"] = neighbour_tables(experiment.kinds["neighbours"])
    if "trainability" in experiment.kinds:
        parts["training"] = training_tables(known_sizes(experiment.kinds["trainability"]))
    return parts


def theorem_holds(experiment: Experiment) -> str:
    """From which depth on, in units of the theorem's, the errors fall like 1/n."""
    if has_theorem(experiment):
        sweep = theorem_sweep(experiment)
        errors = [measures(sweep, variance)["‖Δw‖/‖w‖"] for variance in VARIANCES]
        start, start_one = [beginning(error, -1).value for error in errors]
        rule = origin_of(sweep)["depth_rule"]
        verdict = "holds" if start <= rule and start_one <= rule else "fails"
        if np.isnan([exponents(error) for error in errors]).any():
            verdict = "undecided"
        return (
            f"**{verdict}** from {start:.3f} L_conv on; with inputs of variance 1 "
            f"from {start_one:.3f} on; the original's depth is {rule:g} L_conv"
        )
    results = known_sizes(experiment.kinds["trainability"])
    cosine = results.cosine.mean(["trial", "pattern"]).values[[0, -1]]
    steps = results.descent_steps.mean("trial").values[[0, -1]]
    stopped = results.stopped_correlation.mean(["trial", "pattern"]).values[-1]
    return (
        f"**not claimed**: cos(w̃, w) goes from {cosine[0]:.2f} to {cosine[1]:.2f}; K̃ acts like "
        f"early stopping (correlation {stopped:.3f}), and descent on K "
        f"takes {steps[0]:.0f} to {steps[1]:.0f} steps"
    )


# --------------------------------------------------------------------------------------------------
# Networks of finite width
# --------------------------------------------------------------------------------------------------


def networks(results: Dataset) -> Dataset:
    """Results with n and depth as one axis, `network`, in words."""
    kinds = results.stack(network=["n", "depth"]).reset_index("network")
    words = []
    for n, depth, layers in zip(kinds.n, kinds.depth, kinds.layers.median("draw"), strict=True):
        place = f"depth {depth:g}" if depth > 1 else f"{depth:g} L_conv ({layers:.0f} layers)"
        words.append(f"n = {n:d}, {place}")
    return kinds.assign_coords(network=words)


def over_draws(values: DataArray) -> tuple[Array, Array]:
    """Means over the draws, and the half-widths of their 95 % intervals, NaN of one draw.

    Both have the other axis of the values, if any.
    """
    draws = values.count("draw")
    error = values.std("draw", ddof=1) / np.sqrt(draws)
    return values.mean("draw").values, error.values * scipy.stats.t.isf(TAIL / 2, draws - 1)


def cells(values: DataArray) -> list[str]:
    """The same of values [network, draw] as text."""
    return list(map(tables.plus_minus, *over_draws(values)))


def widest(kinds: Dataset) -> DataArray:
    """The largest width of which there are networks, of each kind."""
    known = kinds.correlation.sel(predictor="finite", drop=True).notnull().any("draw")
    return known.width.where(known, 0).max("width")


def unit_of_width(results: Dataset) -> str:
    """What the widths count."""
    return "neurons" if results.depth.max() <= 1 else "channels"


def what_is_left(kinds: Dataset) -> str:
    """Of the correlation, at the deepest depth and its largest width; kinds: of one n."""
    deepest = kinds.isel(network=-1)
    width = widest(deepest)
    mean, half = over_draws(deepest.correlation.sel(predictor="finite", width=width))
    left = "no correlation" if abs(mean) <= half else f"a correlation of {mean:.2f}"
    depth = deepest.network.item().partition(", ")[2].partition(" (")[0]
    return f"at {depth} {left} is left, even at width {width:d}"


def correlation_table(kinds: Dataset) -> str:
    """Correlation of outputs with the NTK's, by width."""
    columns = {"": kinds.network.values}
    for width in kinds.width.values:
        values = kinds.correlation.sel(predictor="finite", width=width)
        columns[f"{width} {unit_of_width(kinds)}"] = cells(values)
    return tables.of_columns(columns)


def accuracy_table(kinds: Dataset) -> str:
    """Accuracy at t = 0 of the infinite network, and of the widest ones that were drawn."""
    width = widest(kinds)
    accuracy = kinds.accuracy.sel(threshold="zero", width=width)
    columns = {"": kinds.network.values, "width": width.values}
    for predictor, heading in PREDICTORS.items():
        columns[heading] = cells(accuracy.sel(predictor=predictor))
    return tables.of_columns(columns)


def fit_table(kinds: Dataset) -> str:
    """The fit of c/√width to the kernel's error, and what it leads to."""
    rows = []
    for words in kinds.network.values:
        at = kinds.sel(network=words)
        error = geometric_mean(at.off_diagonal_error, "draw").dropna("width")
        constant, slope = finite.inverse_root_fit(error.width.values, error.values)
        size = at.off_diagonal_size.mean().item()
        width = finite.width_to_see(constant, size)
        beyond = BEYOND[np.searchsorted(error.width.values[[0, -1]], width)]
        noise = at.get("initial_noise", DataArray(np.nan)).mean()
        fit = [words, f"{constant:.2f}", f"{slope:+.2f}", f"{size:.2g}"]
        rows.append([*fit, f"{width:.2g} ({beyond})", f"{noise:.2g}".replace("nan", "–")])
    heading = ["", "c of c/√width", "free exponent", "size of off-diagonal entries"]
    return tables.table([*heading, "width where equal", "networks to average"], rows)


def trained_table(kinds: Dataset) -> str:
    """Networks that were trained, beside regression with their own kernel; "" where none was."""
    rows = kinds.stack(row=["network", "width"])
    is_trained = rows.correlation.sel(predictor="trained").notnull()
    rows = rows.isel(row=is_trained.any("draw").values)
    if not rows.sizes["row"]:
        return ""
    trained = rows.sel(predictor="trained", threshold="zero")
    same = rows.correlation.sel(predictor="finite").where(is_trained)
    fewest = written(rows.steps_trained.min("draw"), ".0f")
    most = written(rows.steps_trained.max("draw"), ".0f")
    columns = {
        "": rows.network.values,
        "width": rows.width.values,
        "correlation, trained": cells(trained.correlation),
        "its kernel's": cells(same),
        "accuracy, trained": cells(trained.accuracy),
        "steps": list(map("{} to {}".format, fewest, most)),
        "change of kernel": cells(rows.kernel_change_trained),
    }
    return tables.of_columns(columns)


def finite_page(experiment: Experiment) -> dict[str, Any]:
    """All tables of one network's widths."""
    kinds = networks(experiment.kinds["finite_width"])
    return {
        "correlations": correlation_table(kinds),
        "accuracies": accuracy_table(kinds),
        "fits": fit_table(kinds),
        "trained": trained_table(kinds),
    }


def networks_follow(experiment: Experiment) -> str:
    """Whether networks of the widest kind have the outputs of their NTK, at the deepest depth."""
    results = experiment.kinds["finite_width"].isel(n=[0])
    kinds = networks(results).isel(network=[-1, 0])  # the deepest and the shallowest
    width = widest(kinds).values[0]
    correlation = kinds.correlation.sel(predictor="finite", width=width)
    verdict = verdict_on(*np.transpose(over_draws(correlation))[0])
    texts = []
    for words, cell in zip(kinds.network.values, cells(correlation), strict=True):
        texts.append(f"{cell} at {words.partition(', ')[2]}")
    text = "; ".join(dict.fromkeys(texts))  # one where there is one depth
    rule = origin_of(results)["depth_rule"]
    if rule not in results.depth:
        text += f" ({rule:g}, the original's, was not tried)"
        verdict = "undecided"
    ending = f"n = {results.n.item()}, width {width}"
    return f"**{verdict}**: correlation {text}; with the NTK's outputs, {ending}"


def verdict_on(correlation: float, half: float) -> str:
    """Whether outputs of that correlation are the same."""
    if correlation - half > 0.9:
        return "holds"
    return "fails" if correlation + half < 0.5 else "nearly holds"
