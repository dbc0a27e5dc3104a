"""The paper's theorem as it was measured, and networks that can be built beside the infinite one.

A page's function takes an experiment and returns the page's tables, {} where no file has them.
Quantities of the theorem span a hundred orders of magnitude: their means are geometric.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
import xarray as xr
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from analysis import evidence, tables
from analysis.experiments import Experiment
from analysis.growth import TAIL, Means
from analysis.tables import written
from ntk import finite, theorem
from ntk.fully_connected import nonlinearity
from runtime.results import origin_of

VARIANCES = {"original": "s/784", "one": "1"}  # of the first layer's neurons, in words
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
    values = values.transpose("n", "trial")
    n = np.repeat(values.n.values, values.sizes["trial"])
    flat = values.values.ravel()
    known = flat > 0
    line, covariance = np.polyfit(np.log(n[known]), np.log(flat[known]), 1, cov=True)
    half = scipy.stats.t.isf(TAIL / 2, known.sum() - 2) * np.sqrt(covariance[0, 0])
    return Exponent(line[0], half)


def has_theorem(experiment: Experiment) -> bool:
    """Whether the sweep has the theorem's quantities."""
    sweep = experiment.kinds.get("depth_sweep", Dataset())
    return "input_variance" in sweep.dims


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


def crossing(settings: NDArray, slopes: Sequence[float], target: float) -> float:
    """Where exponents fall below the target for good, by linear interpolation; NaN: nowhere."""
    above = np.flatnonzero(np.array(slopes) > target)
    if not above.size:
        return settings[0]
    last = above[-1]
    if last + 1 == len(slopes):
        return np.nan
    pair = [last + 1, last]  # np.interp takes rising ones
    return np.interp(target, np.array(slopes)[pair], settings[pair])


def beginning(values: DataArray, target: float) -> tuple[float, float, float]:
    """The depth from which on the exponent is below the target, and its 95 % interval."""
    fits = exponents(values)
    settings = values.setting.values
    ends = []
    for side in (0, -1, 1):
        slopes = [fit.value + side * fit.half for fit in fits]
        ends.append(crossing(settings, slopes, target))
    return ends[0], ends[1], ends[2]


def depth_in_words(place: tuple[float, float, float]) -> str:
    """0.061 (0.060 to 0.063)."""
    value, low, high = place
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def exponents_table(sweep: Dataset) -> str:
    """Exponents of n by depth and input variance, and from where on they are the theorem's."""
    columns: dict[str, list[Any]] = {
        evidence.unit(sweep): [*written(sweep.setting, "g"), "the theorem's from"]
    }
    for variance, words in VARIANCES.items():
        for name, values in measures(sweep, variance).items():
            place = beginning(values, TARGETS[name])
            columns[f"{name}, {words}"] = [*exponents(values), depth_in_words(place)]
    return tables.of_columns(columns)


def geometric_mean(values: DataArray, axis: str) -> DataArray:
    """Of positive values, over one axis."""
    logarithms: DataArray = xr.apply_ufunc(np.log, values)
    mean: DataArray = xr.apply_ufunc(np.exp, logarithms.mean(axis))
    return mean


def ends(values: DataArray, geometric: bool = True) -> list[str]:
    """Means at the smallest and the largest n of a quantity [n, setting, trial], by setting."""
    means = geometric_mean(values, "trial") if geometric else values.mean("trial")
    pairs = means.isel(n=[0, -1]).transpose("setting", "n").values
    return [f"{first:.2g} → {last:.2g}" for first, last in pairs]


def scaled(sweep: Dataset) -> dict[str, DataArray]:
    """What the theorem bounds times the power of n by which it falls; inputs as the original's."""
    n, original = sweep.n, sweep.sel(input_variance="original")
    off, excess, error = measures(sweep, "original").values()
    return {
        "off/diag · n²": off * n**2,
        "(κ − 1) · n": excess * n,
        "n‖Δw‖/‖w‖, diagonal": error * n,
        "n‖Δw‖/‖w‖, K̃": original.weight_error.sel(approximation="sparsified") * n,
        "n · error of output": original.output_error.sel(approximation="diagonal") * n,
    }


def levels_table(sweep: Dataset) -> str:
    """Those at the smallest and the largest n, and how many signs flip and steps it takes."""
    original = sweep.sel(input_variance="original")
    flipped = original.flipped_share.sel(approximation="diagonal")
    columns = {evidence.unit(sweep): written(sweep.setting, "g")}
    for name, values in scaled(sweep).items():
        columns[name] = ends(values)
    columns["signs flipped"] = ends(flipped, geometric=False)
    columns["steps of descent"] = ends(original.descent_steps, geometric=False)
    return tables.of_columns(columns)


def bounds_table(sweep: Dataset) -> str:
    """The proof's bound beside what was measured, on inputs of variance 1, at the largest n."""
    at = sweep.sel(input_variance="one", n=sweep.n[-1])
    measured = geometric_mean(at.correlation_of_gradients, "trial")
    bound = geometric_mean(at.off_diagonal_bound, "trial")
    slack = np.log10(bound.values / measured.values)
    columns = {
        evidence.unit(sweep): written(sweep.setting, "g"),
        "layers": written(at.depth.mean("trial"), ".0f"),
        "off/diag": written(measured, ".1e"),
        "the proof's bound": written(bound, ".1e"),
        "slack, decades": [f"{decades:.1f}" for decades in slack],
    }
    return tables.of_columns(columns)


def places(sweep: Dataset, variance: str) -> dict[str, str]:
    """From which depth on each quantity falls as the theorem says, and where κ begins to fall."""
    found = {}
    for name, values in measures(sweep, variance).items():
        found[name] = depth_in_words(beginning(values, TARGETS[name]))
    excess = measures(sweep, variance)["κ − 1"]
    return found | {"turn": depth_in_words(beginning(excess, 0))}


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
        "places": {words: places(sweep, name) for name, words in VARIANCES.items()},
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
    means = neighbours.drop_vars("code").mean("trial")
    within = means.sel(radius=far)
    columns = {
        "n": neighbours.n.values,
        "closest of all": written(neighbours.closest_distance.min("trial"), ".3f"),
        "closest, median": written(means.median_distance, ".3f"),
        f"share with one within {far:g}": written(within.with_neighbour, ".3f"),
        "its label": written(within.purity, ".3f"),
        "share of training set": written(within["size"], ".4f"),
        f"k({near:g}) / k_thresh": written(means.kernel_at_radius.sel(radius=near), ".1e"),
    }
    at_near = means.kernel_at_radius.sel(radius=near)
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


def training_tables(trainability: Dataset) -> dict[str, Any]:
    """Steps of gradient descent by n, and K̃ beside the trained network and a stopped one."""
    results = trainability.dropna("n", how="all", subset=["descent_steps"])
    quantities = {
        "κ": results.condition_number,
        "λ₂/λ_min": results.second_condition_number,
        "steps": results.descent_steps,
        "cos(w̃, w)": results.cosine,
        "corr. with trained": results.trained_correlation,
        "time stopped": results.stopping_time,
        "corr. with stopped": results.stopped_correlation,
    }
    columns = {"n": results.n.values.tolist()}
    for name, values in quantities.items():
        columns[name] = tables.mean_cells(values)
    steps = exponent(results.descent_steps)
    modes = (results.condition_number / results.second_condition_number).mean("trial")
    return {"steps": steps, "modes": modes.values[[0, -1]], "table": tables.of_columns(columns)}


def theorem_page(experiment: Experiment) -> dict[str, Any]:
    """Whatever files there are of the theorem."""
    parts = {}
    if has_theorem(experiment):
        parts["sweep"] = sweep_tables(theorem_sweep(experiment))
    if "neighbours" in experiment.kinds:
        parts["neighbours"] = neighbour_tables(experiment.kinds["neighbours"])
    if "trainability" in experiment.kinds:
        parts["training"] = training_tables(experiment.kinds["trainability"])
    return parts


def theorem_sweep(experiment: Experiment) -> Dataset:
    """The sweep's sizes and depths of which the theorem's quantities are known."""
    sweep = experiment.kinds["depth_sweep"]
    known = sweep.descent_steps.notnull().any(["trial", "input_variance"])
    return sweep.isel(n=known.any("setting").values, setting=known.any("n").values)


def theorem_holds(experiment: Experiment) -> str:
    """From which depth on, in units of the theorem's, the errors fall like 1/n."""
    if has_theorem(experiment):
        sweep = theorem_sweep(experiment)
        starts = {}
        for variance in VARIANCES:
            values = measures(sweep, variance)["‖Δw‖/‖w‖"]
            starts[variance] = beginning(values, -1)[0]
        rule = origin_of(sweep)["depth_rule"]
        verdict = "holds" if max(starts.values()) <= rule else "fails"
        return (
            f"**{verdict}** from {starts['original']:.3f} L_conv on; with inputs of variance 1 "
            f"from {starts['one']:.3f} on; the original's depth is {rule:g} L_conv"
        )
    results = experiment.kinds["trainability"]
    cosine = results.cosine.mean(["trial", "pattern"]).dropna("n").values[[0, -1]]
    steps = results.descent_steps.mean("trial").dropna("n").values[[0, -1]]
    stopped = results.stopped_correlation.mean(["trial", "pattern"]).dropna("n").values[-1]
    return (
        f"**not claimed**: cos(w̃, w) goes from {cosine[0]:.2f} to {cosine[1]:.2f}; K̃ acts like "
        f"early stopping (correlation {stopped:.3f}), and descent on K "
        f"takes {steps[0]:.0f} to {steps[1]:.0f} steps"
    )


# --------------------------------------------------------------------------------------------------
# Networks of finite width
# --------------------------------------------------------------------------------------------------


def over_draws(values: DataArray) -> tuple[float, float]:
    """Mean over the draws, and the half-width of its 95 % interval, NaN of one draw."""
    known = values.dropna("draw").values
    if not known.size:
        return np.nan, np.nan
    if known.size == 1:
        return known[0], np.nan
    error = known.std(ddof=1) / np.sqrt(known.size)
    return known.mean(), scipy.stats.t.isf(TAIL / 2, known.size - 1) * error


def cell(values: DataArray) -> str:
    """The same as text."""
    return tables.plus_minus(*over_draws(values))


def kinds_of_networks(results: Dataset) -> list[tuple[str, Dataset]]:
    """Every n and depth, with words for them."""
    kinds = []
    for n in results.n.values:
        for depth in results.depth.values:
            at = results.sel(n=n, depth=depth)
            layers = f"{at.layers.median():.0f}"
            words = f"n = {n}, {depth:g} L_conv ({layers} layers)"
            if depth > 1:
                words = f"n = {n}, depth {depth:g}"
            kinds.append((words, at))
    return kinds


def widest(at: Dataset) -> int:
    """The largest width of which there are networks."""
    known = at.correlation.sel(predictor="finite").notnull().any("draw")
    return int(known.width[known].max())


def unit_of_width(results: Dataset) -> str:
    """What the widths count."""
    return "neurons" if results.depth.max() <= 1 else "channels"


def correlations(at: Dataset) -> Means:
    """Mean correlations of outputs with the NTK's by width, and their intervals."""
    finite_ones = at.correlation.sel(predictor="finite")
    pairs = [over_draws(finite_ones.sel(width=width)) for width in at.width.values]
    mean, half = np.transpose(pairs)
    return Means(at.width.values, mean, mean - half, mean + half)


def what_is_left(results: Dataset) -> str:
    """Of the correlation, at the deepest depth and the largest width of the least n."""
    words, deepest = kinds_of_networks(results.isel(n=[0]))[-1]
    width = widest(deepest)
    mean, half = over_draws(deepest.correlation.sel(predictor="finite", width=width))
    left = "no correlation" if abs(mean) <= half else f"a correlation of {mean:.2f}"
    depth = words.partition(", ")[2].partition(" (")[0]
    return f"at {depth} {left} is left, even at width {width}"


def correlation_table(results: Dataset) -> str:
    """Correlation of outputs with the NTK's, by width."""
    rows = []
    for words, at in kinds_of_networks(results):
        finite_ones = at.correlation.sel(predictor="finite")
        rows.append([words, *(cell(finite_ones.sel(width=w)) for w in results.width.values)])
    unit = unit_of_width(results)
    return tables.table(["", *(f"{w} {unit}" for w in results.width.values)], rows)


def accuracy_table(results: Dataset) -> str:
    """Accuracy at t = 0 of the infinite network, and of the widest ones that were drawn."""
    rows = []
    for words, at in kinds_of_networks(results):
        accuracy = at.accuracy.sel(threshold="zero")
        width = widest(at)
        row = [words, width, cell(accuracy.sel(predictor="infinite", width=width))]
        for predictor in ("finite", "finite_plain", "infinite_plain"):
            row.append(cell(accuracy.sel(predictor=predictor, width=width)))
        rows.append(row)
    heading = ["", "width", "NTK", "kernel of a network", "with its initial outputs"]
    return tables.table([*heading, "one infinitely wide network"], rows)


def fit_table(results: Dataset) -> str:
    """The fit of c/√width to the kernel's error, and what it leads to."""
    rows = []
    for words, at in kinds_of_networks(results):
        error = geometric_mean(at.off_diagonal_error, "draw").dropna("width")
        constant, slope = finite.inverse_root_fit(error.width.values, error.values)
        size = at.off_diagonal_size.mean().item()
        width = finite.width_to_see(constant, size)
        beyond = "extrapolated" if width > error.width.max() else "measured"
        if width < error.width.min():
            beyond = "below all"
        row = [words, f"{constant:.2f}", f"{slope:+.2f}", f"{size:.2g}"]
        row += [f"{width:.2g} ({beyond})"]
        noise = at.initial_noise.mean().item() if "initial_noise" in at else np.nan
        rows.append([*row, "–" if np.isnan(noise) else f"{noise:.2g}"])
    heading = ["", "c of c/√width", "free exponent", "size of off-diagonal entries"]
    return tables.table([*heading, "width where equal", "networks to average"], rows)


def trained_table(results: Dataset) -> str:
    """Networks that were trained, beside regression with their own kernel."""
    rows = []
    for words, at in kinds_of_networks(results):
        for width in results.width.values:
            of_width = at.sel(width=width)
            trained = of_width.sel(predictor="trained")
            if not trained.correlation.notnull().any():
                continue
            same = of_width.where(trained.correlation.notnull())
            row = [words, width, cell(trained.correlation)]
            row += [cell(same.correlation.sel(predictor="finite"))]
            steps = of_width.steps_trained
            row += [cell(trained.accuracy.sel(threshold="zero"))]
            row += [f"{steps.min():.0f} to {steps.max():.0f}"]
            rows.append([*row, cell(of_width.kernel_change_trained)])
    heading = ["", "width", "correlation, trained", "its kernel's", "accuracy, trained"]
    return tables.table([*heading, "steps", "change of kernel"], rows)


def finite_page(experiment: Experiment) -> dict[str, Any]:
    """All tables of one network's widths."""
    results = experiment.kinds["finite_width"]
    is_trained = results.correlation.sel(predictor="trained").notnull().any()
    return {
        "correlations": correlation_table(results),
        "accuracies": accuracy_table(results),
        "fits": fit_table(results),
        "trained": trained_table(results) if is_trained else "",
    }


def networks_follow(experiment: Experiment) -> str:
    """Whether networks of the widest kind have the outputs of their NTK, at the deepest depth."""
    results = experiment.kinds["finite_width"].isel(n=[0])
    kinds = kinds_of_networks(results)
    width = widest(kinds[-1][1])
    texts = {}
    for words, at in (kinds[-1], kinds[0]):
        pair = over_draws(at.correlation.sel(predictor="finite", width=width))
        texts[f"{tables.plus_minus(*pair)} at {words.partition(', ')[2]}"] = verdict_on(*pair)
    verdict = next(iter(texts.values()))  # of the deepest
    rule = origin_of(results)["depth_rule"]
    untried = ""
    if rule not in results.depth:
        untried, verdict = f" ({rule:g}, the original's, was not tried)", "undecided"
    text = f"**{verdict}**: correlation {'; '.join(texts)}{untried}"
    return f"{text}; with the NTK's outputs, n = {results.n.item()}, width {width}"


def verdict_on(correlation: float, half: float) -> str:
    """Whether outputs of that correlation are the same."""
    if correlation - half > 0.9:
        return "holds"
    return "fails" if correlation + half < 0.5 else "nearly holds"
