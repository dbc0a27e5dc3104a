"""Growth statistics: a trial's value, errors of means, the curve of a quantity over n, the verdict.

Patterns and test images of one trial share a training set, so trials are the units everywhere.
`relative_errors` is the only error method, of tables, bars and fits. `values` are always a list of
[trials], one array for each size n.

    y(n) = a + b (n^λ - 1)/λ

is the one curve: it contains the constant (b = 0), the logarithm (λ = 0) and the power (λ > 0);
λ < 0 saturates. Its slope against ln n goes like n^λ. At fixed λ it is linear, y = p (1 - u) + z u
with u(n) from 0 at the first size to 1 at the last, and p, z its values there. So chi^2 over a grid
of λ gives all intervals (95 %). Functions of fits take many data sets at once: y, relative (the
relative standard errors) and freedom (their degrees of freedom) are [..., sizes], n is [sizes],
rising. λ is found on a grid and by no library's optimiser, because those take one data set at a
time, and tests/simulate_growth.py judges 4000: how often intervals cover, and verdicts are wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.stats
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma, polygamma

Array = NDArray[np.float64]
Interval = tuple[float, float]
Fitted = dict[str, Array]

TAIL = 0.05  # an interval misses in this share of cases
MARGIN = 0.25  # λ below it is no faster than log n; a growth within 1/1.25 to 1.25 is flat
MISFIT = 0.01  # where chi^2 is less probable, all errors are enlarged until the curve fits
INDICES = np.linspace(-4, 8, 97)  # the λ looked at; beyond, the curve is a step at one end
STEPS = 7  # three to find the errors, four that refine the grid
FEWEST_SIZES = 4  # that growth is judged from
LEAST_ERROR = 1e-9  # nothing is closer than rounding
EXACT = 1e9  # degrees of freedom that stand for infinitely many
FLAT, SLOW, FAST, UNDECIDED = "flat", "no faster than log n", "faster than log n", "undecided"
VERDICTS = (FLAT, SLOW, FAST, UNDECIDED)


# Trials and their means


def trial_values(values: xr.DataArray) -> list[Array]:
    """The value that every trial has of a quantity [n, trial, ...], a list by size; missing trials
    are left out.

    It is the mean over its patterns, of counts of measurements the median over its patterns and
    test images. NaN do not count, infinite values do. Patterns that were drawn for their sparsity
    alone, axis `draw`, are trials.
    """
    unit = "trial" if "trial" in values.dims else "draw"
    statistic = np.median if "measurements" in str(values.name) else np.mean
    by_size = []
    for size in values.transpose("n", unit, ...).values.astype(float):
        known = [trial[~np.isnan(trial)] for trial in size]
        by_size.append(np.array([statistic(trial) for trial in known if trial.size], float))
    return by_size


def moments(values: Sequence[Array], geometric: bool = False) -> tuple[Array, Array, Array]:
    """Mean (NaN of no trial), standard deviation (0 of one) and number of the trials, each [sizes].

    geometric: mean and relative deviation of positive values with a long tail, from their
    logarithms.
    """
    mean, deviation = np.full(len(values), np.nan), np.zeros(len(values))
    for i, trials in enumerate(values):
        scaled = np.log(trials) if geometric else np.asarray(trials, float)
        if len(scaled):
            mean[i] = np.mean(scaled)
        if len(scaled) > 1 and np.isfinite(scaled).all():
            deviation[i] = np.std(scaled, ddof=1)
    if geometric:
        mean = np.exp(mean)
        deviation = mean * deviation
    return mean, deviation, np.array([len(trials) for trials in values], float)


def weighted_line(x: Array, values: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Least squares of level + slope (x - centre): level, slope [..., 1], x - centre [..., n]."""
    total = np.sum(weight, -1, keepdims=True)
    centred = x - np.sum(weight * x, -1, keepdims=True) / total
    level = np.sum(weight * values, -1, keepdims=True) / total
    steepness = np.maximum(np.sum(weight * centred**2, -1, keepdims=True), 1e-9)
    slope = np.sum(weight * centred * values, -1, keepdims=True) / steepness
    return level, slope, centred


def relative_errors(n: Array, mean: Array, deviation: Array, trials: Array) -> tuple[Array, Array]:
    """Standard errors of means over the means, and their degrees of freedom, both [..., sizes]; NaN
    where unknown.

    n, trials [sizes]; mean, deviation [..., sizes]. A size's relative variance has d = trials - 1
    degrees of freedom. They are pooled unless Cochran's Q of their logarithms refutes that they are
    equal (5 %). Then a power of n is fitted to them, and counts for `strength` degrees of freedom
    beside the size's own (Smyth, Stat. Appl. Genet. Mol. Biol. 3, 3, 2004).
    """
    d = trials - 1
    square = (deviation / np.where(mean == 0, 1, mean)) ** 2
    if not d.any():
        unknown = np.full(mean.shape, np.nan)
        return unknown, unknown
    pooled = np.sum(d * square, -1, keepdims=True) / d.sum()
    line, strength, unequal = spread_by_size(np.log(n), d, square, pooled)
    strength = np.where(unequal, strength, EXACT)
    variance = strength * np.where(unequal, np.exp(line), pooled) + d * square
    relative = np.sqrt(variance / (strength + d) / trials)
    return np.maximum(relative, LEAST_ERROR), np.minimum(strength + d, d.sum())


def spread_by_size(x: Array, d: Array, square: Array, pooled: Array) -> tuple[Array, Array, Array]:
    """A line through the logarithms of relative variances: itself, the freedom it is worth, whether
    it is needed.

    x = ln n, d [sizes]; square [..., sizes], pooled [..., 1]. Its worth comes from what is left of
    Q (DerSimonian and Laird 1986) and from the line's own error.
    """
    half, spare = np.maximum(d, 1) / 2, np.count_nonzero(d) - 2
    weight = (d > 0) / polygamma(1, half)  # one over the variance of the logarithm
    logs = np.log(np.maximum(square, 0.01 * pooled + 1e-99)) - digamma(half) + np.log(half)
    level, slope, centred = weighted_line(x, logs, weight)
    line = level + slope * centred
    unequal = scipy.stats.chi2.sf(chi_square(logs, level, weight), spare + 1) < 0.05
    degrees = max(weight.sum() - np.sum(weight**2) / weight.sum(), 1e-9)
    excess = np.maximum(chi_square(logs, line, weight) - spare, 1e-9) / degrees
    own = 1 / weight.sum() + centred**2 / max(np.sum(weight * centred**2), 1e-9)
    # trigamma(strength/2) = excess, by the first two terms of its series
    strength = 1 / (excess / (1 + np.sqrt(1 + 2 * excess)) + own / 2)
    return line, strength, (spare > 0) & unequal


def chi_square(values: Array, expected: Array, weight: Array) -> Array:
    """The weighted sum of squares [..., 1] over the sizes."""
    return np.sum(weight * (values - expected) ** 2, -1, keepdims=True)


def half_widths(relative: Array, freedom: Array) -> Array:
    """Half-widths of intervals of means, over the means.

    The errors are relative to the true mean; this symmetric interval misses it as often, to second
    order.
    """
    half = scipy.stats.t.isf(TAIL / 2, freedom) * relative
    return half * (1 + half**2)


def size_means(
    n: ArrayLike, values: Sequence[Array], geometric: bool = False
) -> tuple[Array, Array, Array]:
    """Means at n [sizes], their standard errors and half-widths of 95 % intervals; NaN where
    unknown.

    geometric: as of `moments`; errors are then those of the logarithm, times the mean.
    """
    mean, deviation, trials = moments(values, geometric)
    error, half = np.full((2, *mean.shape), np.nan)
    there = np.isfinite(mean)
    if there.any():
        spread = mean[there], deviation[there], trials[there]
        relative, freedom = relative_errors(np.asarray(n)[there], *spread)
        error[there] = relative * np.abs(mean[there])
        half[there] = half_widths(relative, freedom) * np.abs(mean[there])
    return mean, error, half


def accuracy_bounds(accuracies: Array, images: Array, half: float) -> Interval:
    """95 % bounds of a mean accuracy [trials], of so many test images [trials], that know that
    errors are counted.

    half: the half-width by the spread of the trials. Where that passes 1 or a trial has no error,
    the bounds are at least as wide as those of Clopper and Pearson (Biometrika 26, 404, 1934) for
    all trials' errors together, one-sided where there is none, and never above 1.
    """
    mean = float(np.mean(accuracies))
    low, high = mean - half, mean + half
    if high > 1 or np.max(accuracies) > 1 - 1e-9 or np.isnan(half):
        total = np.sum(images)
        right = np.sum(accuracies * images)
        wrong = total - right
        none = wrong < 1e-6
        tail = TAIL if none else TAIL / 2
        low = np.fmin(low, scipy.stats.beta.ppf(tail, right, wrong + 1))
        high = 1.0 if none else np.fmax(high, scipy.stats.beta.isf(tail, right + 1, wrong))
    return float(low), float(np.minimum(high, 1))


# The curve


def basis(n: ArrayLike, first: float, last: float, index: Array) -> Array:
    """1 - u and u at n [m] for λ [...]: [..., m, 2]."""
    index = np.where(np.abs(index) < 1e-9, 1e-9, index)[..., None]
    u = np.expm1(index * np.log(np.asarray(n) / first)) / np.expm1(index * np.log(last / first))
    return np.stack([1 - u, u], -1)


def enlargement(least: Array, spare: int, freedom: Array) -> Array:
    """What chi^2 is divided by: 1, or its value over `spare` where no such curve fits."""
    if spare < 1:
        return np.ones_like(least)
    improbable = scipy.stats.f.sf(least / spare, spare, freedom) < MISFIT
    return np.where(improbable, least / spare, 1)


@dataclass(frozen=True)
class Profile:
    """The best curves at every λ of a grid [..., L]."""

    grid: Array
    ends: Array  # p and z, [..., L, 2]
    covariance: Array  # of these, [..., L, 2, 2]
    chi2: Array
    scale: Array  # what chi^2 is divided by, [...]

    def at(self, i: NDArray[np.intp]) -> Array:
        """λ at positions [...] on the grid."""
        inside = np.clip(i, 0, self.grid.shape[-1] - 1)
        return np.take_along_axis(self.grid, inside[..., None], -1)[..., 0]

    def allowed(self, allowance: Array) -> Array:
        """What is left at every λ of the allowance above the least chi^2."""
        rise = self.chi2 - self.chi2.min(-1, keepdims=True)
        return (allowance * self.scale)[..., None] - rise

    def within(self, allowance: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """First and last position [...] at which chi^2 is allowed."""
        inside = self.allowed(allowance) >= 0
        last = inside.shape[-1] - 1 - np.argmax(inside[..., ::-1], -1)
        return np.argmax(inside, -1), last

    def best(self) -> tuple[Array, Array]:
        """λ [...] and p, z [..., 2] of the best curve."""
        i = self.chi2.argmin(-1)
        return self.at(i), np.take_along_axis(self.ends, i[..., None, None], -2)[..., 0, :]


def profile(n: Array, y: Array, error: Array, grid: Array, freedom: Array) -> Profile:
    """Least squares at every λ; freedom [...]: of the errors."""
    lines = basis(n, n[0], n[-1], grid) / error[..., None, :, None]
    scaled = (y / error)[..., None, :, None]
    covariance = np.asarray(np.linalg.inv(lines.mT @ lines), np.float64)
    ends = covariance @ (lines.mT @ scaled)
    chi2 = np.sum((scaled - lines @ ends) ** 2, (-2, -1))
    scale = enlargement(chi2.min(-1), len(n) - 3, freedom)
    return Profile(grid, ends[..., 0], covariance, chi2, scale)


def ratio_interval(curves: Profile, allowed: Array) -> Array:
    """Fieller's bounds of z/p over all λ that are allowed, [..., 2]; 0, ∞ where p may be 0."""
    p, z = curves.ends[..., 0], curves.ends[..., 1]
    a = p * p - allowed * curves.covariance[..., 0, 0]
    b = p * z - allowed * curves.covariance[..., 0, 1]
    c = z * z - allowed * curves.covariance[..., 1, 1]
    root = np.sqrt(np.maximum(b**2 - a * c, 0))
    bounded, divisor = a > 0, np.where(a > 0, a, 1)
    low = np.where(bounded, np.maximum(b - root, 0) / divisor, 0)
    high = np.where(bounded, (b + root) / divisor, np.inf)
    inside = allowed >= 0
    return np.stack([np.where(inside, low, np.inf).min(-1), np.where(inside, high, 0).max(-1)], -1)


def fit_power(n: Array, y: Array, relative: Array, freedom: Array) -> tuple[Fitted, Array]:
    """By a line through ln y: b of a n^b, its interval, "power_scale"; Satterthwaite's freedom."""
    weight = relative**-2
    level, slope, x = weighted_line(np.log(n), np.log(y), weight)
    share = weight * x**2
    square = np.sum(share, -1)
    together = np.minimum(square**2 / np.sum(share**2 / freedom, -1), freedom.max(-1))
    chi2 = np.sum(weight * (np.log(y) - level - slope * x) ** 2, -1)
    scale = enlargement(chi2, len(n) - 2, together)
    half = np.sqrt(scipy.stats.f.isf(TAIL, 1, together) * scale / square)
    b = slope[..., 0]
    interval = np.stack([b - half, b + half], -1)
    return {"exponent": b, "exponent_interval": interval, "power_scale": scale}, together


def fit_curves(n: Array, y: Array, relative: Array, freedom: Array) -> Fitted:
    """λ ("index"), y(n_max)/y(n_min) of the curve ("ratio"), b of a n^b ("exponent") [...],
    "..._interval" [..., 2].

    y is positive. Errors are relative to the curve, not to the noisy means: it is refined in steps,
    and so is the grid of λ. Intervals hold what chi^2 allows, F(1, freedom) above its least. But
    where a constant is within 2 F(2, freedom) of that, λ means nothing, and the best of all λ makes
    growth out of chance: there that much is allowed, and errors are relative to the constant. Also
    returned: "clear", whether the best constant, "level", is refuted; "scale" and "power_scale",
    what chi^2 was divided by; for bands "grid", "allowed", "ends", "covariance".
    """
    fitted, freedom = fit_power(n, y, relative, freedom)
    level = np.sum(y / relative**2, -1, keepdims=True) / np.sum(relative**-2, -1, keepdims=True)
    grid = np.broadcast_to(INDICES, (*y.shape[:-1], len(INDICES)))
    curves = profile(n, y, relative * level, grid, freedom)
    generous = 2 * scipy.stats.f.isf(TAIL, 2, freedom)
    misses = np.sum(((y - level) / (relative * level)) ** 2, -1) - curves.chi2.min(-1)
    clear = misses > generous * curves.scale
    allowance = np.where(clear, scipy.stats.f.isf(TAIL, 1, freedom), generous)
    for step in range(1, STEPS):
        curve = np.clip(best_curve(n, curves), y / 2, 2 * y)
        grid = refined(curves, allowance) if step >= 3 else grid
        curves = profile(n, y, relative * np.where(clear[..., None], curve, level), grid, freedom)
    fitted |= {"clear": clear, "level": level[..., 0]}
    return fitted | described(curves, allowance)


def best_curve(n: Array, curves: Profile) -> Array:
    """The best of all curves at the sizes [..., sizes]."""
    index, ends = curves.best()
    return (basis(n, n[0], n[-1], index) @ ends[..., None])[..., 0]


def refined(curves: Profile, allowance: Array) -> Array:
    """A grid of λ one step wider than where chi^2 is allowed."""
    first, last = curves.within(allowance)
    size = curves.grid.shape[-1]
    return np.linspace(curves.at(first - 1), curves.at(last + 1), size, axis=-1)


def described(curves: Profile, allowance: Array) -> Fitted:
    """What `fit_curves` returns of the last profile."""
    index, ends = curves.best()
    allowed = curves.allowed(allowance)
    low, high = (curves.at(i) for i in curves.within(allowance))
    low = np.where(low <= INDICES[0], -np.inf, low)
    high = np.where(high >= INDICES[-1], np.inf, high)
    return {
        "index": index,
        "index_interval": np.stack([low, high], -1),
        "ratio": np.maximum(ends[..., 1] / ends[..., 0], 0),
        "ratio_interval": ratio_interval(curves, allowed),
        "scale": curves.scale,
        "grid": curves.grid,
        "allowed": allowed,
        "ends": curves.ends,
        "covariance": curves.covariance,
    }


# The verdict


def verdicts(ratio: Array, index: Array) -> NDArray[np.str_]:
    """The verdict on intervals [..., 2] of the growth y(n_max)/y(n_min) and of λ: the first that
    holds.

    Flat: the growth is within the margin of 1; no faster than log n: it is not above the margin, or
    λ is below its own; faster: the growth is above the margin and λ above 0.
    """
    low, high = ratio[..., 0], ratio[..., 1]
    within = high <= 1 + MARGIN
    flat = within & (low >= 1 / (1 + MARGIN))
    slow = within | (index[..., 1] < MARGIN)
    fast = (index[..., 0] > 0) & (low > 1 + MARGIN)
    return np.select([flat, slow, fast], VERDICTS[:3], UNDECIDED)


def with_interval(value: float, interval: Interval) -> str:
    """1.10 (1.08 to 1.11), with as many digits as the interval justifies; a dash for NaN."""
    low, high = interval
    if np.isnan(value):
        return "–"
    if np.isinf(interval).all():
        return "any"
    distances = [abs(bound - value) for bound in interval if np.isfinite(bound)]
    if max(distances, default=0) <= 1e-6 * max(abs(value), 1e-3):
        return f"{value:.4g}"
    least = min(distance for distance in distances if distance)
    digits = int(np.clip(np.ceil(-np.log10(least / 2)), 0, 9))
    if any(np.isfinite(bound) and bound and round(bound, digits) == 0 for bound in interval):
        digits += 1  # 0.02, not 0.0
    first, second, third = (digits_of(x, digits) for x in (value, low, high))
    return f"{first} (below {third})" if low == -np.inf else f"{first} ({second} to {third})"


def digits_of(x: float, digits: int) -> str:
    """A number with so many decimals; three digits of one that is large or infinite."""
    return f"{x:z.{digits}f}" if abs(x) < 1e5 else f"{x:.3g}".replace("inf", "∞")


@dataclass(frozen=True)
class Growth:
    """The growth of one data set from the smallest to the largest n fitted; NaN where unknown."""

    n: Array
    verdict: str = UNDECIDED
    reason: str = ""
    fitted: Fitted = field(default_factory=dict, repr=False)

    def number(self, name: str) -> float:
        """One of "index", λ, "ratio", y(n_max)/y(n_min), and "exponent", b of a n^b."""
        return float(self.fitted[name]) if self.fitted else np.nan

    def interval(self, name: str) -> Interval:
        """The 95 % interval of one of these."""
        if not self.fitted:
            return np.nan, np.nan
        low, high = self.fitted[f"{name}_interval"]
        return float(low), float(high)

    @property
    def clear(self) -> bool:
        """Whether a constant is refuted; if not, any λ will do."""
        return bool(self.fitted) and bool(self.fitted["clear"])

    @property
    def power_fits(self) -> bool:
        """Whether a n^b is not refuted."""
        return bool(self.fitted) and float(self.fitted["power_scale"]) == 1

    def text(self, name: str) -> str:
        """A number with its interval; a dash for λ if a constant fits, for b if no a n^b does."""
        if (name == "index" and not self.clear) or (name == "exponent" and not self.power_fits):
            return "–"
        return with_interval(self.number(name), self.interval(name))

    def curve(self, n: ArrayLike) -> Array:
        """The best curve at n [m]; NaN where nothing was fitted."""
        return self.values(n)[0]

    def best(self, n: ArrayLike) -> Array:
        """The constant at n [m], or the best curve where that is refuted; NaN without a fit."""
        if self.fitted and not self.clear:
            return np.full(len(np.asarray(n)), float(self.fitted["level"]))
        return self.curve(n)

    def band(self, n: ArrayLike) -> tuple[Array, Array]:
        """The lowest and highest value that chi^2 allows at n [m], one n at a time."""
        _, low, high = self.values(n)
        return low, high

    def values(self, n: ArrayLike) -> Array:
        """The best curve and the ends of its band at n: [3, m]."""
        if not self.fitted:
            return np.full((3, len(np.asarray(n))), np.nan)
        lines = basis(n, self.n[0], self.n[-1], self.fitted["grid"])  # [L, m, 2]
        value = (lines @ self.fitted["ends"][..., None])[..., 0]
        best = value[np.argmin(np.abs(self.fitted["grid"] - self.number("index")))]
        allowed = self.fitted["allowed"][:, None]
        if np.isnan(allowed).any():
            return np.stack([best, np.full(best.shape, np.nan), np.full(best.shape, np.nan)])
        variance = np.sum(lines @ self.fitted["covariance"] * lines, -1)
        half = np.sqrt(np.maximum(allowed, 0) * variance)
        inside = allowed[:, 0] >= 0
        return np.stack([best, (value - half)[inside].min(0), (value + half)[inside].max(0)])


def why(verdict: str, fitted: Fitted) -> str:
    """What a verdict on the result of `fit_curves` rests on."""
    high, index = fitted["ratio_interval"][1], fitted["index_interval"]
    if verdict == FLAT:
        return f"within {1 / (1 + MARGIN):g} to {1 + MARGIN:g}"
    if verdict == SLOW and high <= 1 + MARGIN:
        return "falling" if high < 1 else "hardly rising, or falling"
    if verdict == SLOW:
        return f"λ below {MARGIN:g}"
    if verdict == FAST:
        return "λ above 0"
    if not fitted["clear"]:
        return "growth neither shown nor excluded"
    may_be = f"λ may be 0 and {MARGIN:g}"
    return may_be if index[0] <= 0 else f"λ above 0, but growth may be below {1 + MARGIN:g}"


def fit(n: Array, y: Array, relative: Array, freedom: Array, trouble: str = "") -> Growth:
    """The growth of one data set y [sizes]; trouble: why it is undecided, whatever the curve."""
    if len(n) < 2:
        return Growth(n, reason=trouble)
    fitted = fit_curves(n, y, relative, freedom)
    if np.isnan(freedom).any():
        fitted |= {name: np.full(2, np.nan) for name in fitted if name.endswith("_interval")}
    verdict = str(verdicts(fitted["ratio_interval"], fitted["index_interval"]))
    reason = why(verdict, fitted)
    if fitted["scale"] > 1:
        if verdict == SLOW:  # enlarged errors must not speak for the claim
            verdict, reason = UNDECIDED, f"{reason} only with enlarged errors"
        reason += f"; no such curve fits, errors enlarged {np.sqrt(fitted['scale']):.1f} times"
    if trouble:
        verdict, reason = UNDECIDED, trouble
    return Growth(n, verdict, reason, fitted)


def fit_growth(n: ArrayLike, values: Sequence[Array], geometric: bool = False) -> Growth:
    """Fit the curve to the means of the sizes n [sizes]. Sizes without trials are left out.

    "Undecided" where a mean is infinite, zero or negative (such sizes are left out as well), there
    are fewer than four sizes, or no size has several trials. geometric: as of `moments`.
    """
    n = np.asarray(n, float)
    mean, deviation, trials = moments(values, geometric)
    there = np.isfinite(mean) & (mean > 0)
    reasons = []
    for what, where in (("infinite", np.isinf(mean)), ("not positive", mean <= 0)):
        if where.any():
            reasons.append(f"{what} at n = {', '.join(f'{size:g}' for size in n[where])}")
    if there.sum() < FEWEST_SIZES:
        reasons.append("fewer than four sizes")
    relative, freedom = relative_errors(n[there], mean[there], deviation[there], trials[there])
    if np.isnan(freedom).any():
        reasons.append("no size has several trials")
        relative = 1 / np.sqrt(trials[there])
    return fit(n[there], mean[there], relative, freedom, "; ".join(reasons))


def judged(values: xr.DataArray) -> Growth:
    """The growth of a quantity [n, trial, ...] of the results."""
    return fit_growth(values.n.values, trial_values(values))


def without_last(values: xr.DataArray) -> tuple[int, str]:
    """The largest n, and the verdict without it; "" where too few sizes would be left to judge."""
    by_size = trial_values(values)
    there = [i for i, trials in enumerate(by_size) if len(trials)]
    last = there[-1] if there else 0
    if len(there) <= FEWEST_SIZES:
        return last, ""
    return int(values.n[last]), fit_growth(values.n.values[:last], by_size[:last]).verdict
