"""Growth statistics: a trial's value, errors of means, the curve of a quantity over n, the verdict.

Patterns and test images of one trial share a training set, so trials are the units everywhere.
`relative_errors` is the only error method, of tables, bars and fits. `values` are always a list of
[trials], one array for each size n.

    y(n) = a + b (n^λ - 1)/λ

is the one curve: constant (b = 0), logarithm (λ = 0), power (λ > 0); λ < 0 saturates. Its slope
against ln n goes like n^λ. At fixed λ it is linear, y = p (1 - u) + z u with u(n) from 0 at the
first size to 1 at the last, and p, z its values there. So chi^2 over a grid of λ gives all
intervals (95 %). tests/simulate_growth.py measures how often they cover and verdicts are wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.special
import scipy.stats
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma, polygamma

Array = NDArray[np.float64]

TAIL = 0.05  # an interval misses in this share of cases
MARGIN = 0.25  # λ below it is no faster than log n; a growth within 1/1.25 to 1.25 is flat
MISFIT = 0.01  # where chi^2 is less probable, all errors are enlarged until the curve fits
INDICES = np.linspace(-4, 8, 97)  # the λ looked at; beyond, the curve is a step at one end
STEPS = 7  # three to find the errors, four that refine the grid
FEWEST_SIZES = 4  # that growth is judged from
LEAST_ERROR = 1e-9  # nothing is closer than rounding
NEARLY_ZERO = 1e-9  # instead of zero, to divide by
EXACT = 1e9  # degrees of freedom that stand for infinitely many
FLAT, SLOW, FAST, UNDECIDED = "flat", "no faster than log n", "faster than log n", "undecided"


def trial_values(values: xr.DataArray) -> list[Array]:
    """The value that every trial has of a quantity [n, trial, ...], a list by size, without NaN.

    The mean over its patterns, of counts of measurements the median over its patterns and test
    images. Patterns that were drawn for their sparsity alone, axis `draw`, are trials.
    """
    unit = "trial" if "trial" in values.dims else "draw"
    statistic = np.median if "measurements" in str(values.name) else np.mean
    table = values.transpose("n", unit, ...).values.astype(float)
    by_size = []
    for trials in table:
        statistics = []
        for trial in trials:
            known = trial[~np.isnan(trial)]
            if known.size:
                statistics.append(statistic(known))
        by_size.append(np.array(statistics, float))
    return by_size


def moments(values: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Mean (NaN of no trial), standard deviation (0 of one) and number of the trials, [sizes]."""
    sizes = len(values)
    mean = np.full(sizes, np.nan)
    deviation = np.zeros(sizes)
    count = np.zeros(sizes)
    for i, trials in enumerate(values):
        count[i] = len(trials)
        if len(trials):
            mean[i] = np.mean(trials)
        if len(trials) > 1 and np.isfinite(trials).all():
            deviation[i] = np.std(trials, ddof=1)
    return mean, deviation, count


class Line(NamedTuple):
    """A weighted least-squares line, level + slope (x - centre); arrays are [sizes]."""

    level: float
    slope: float
    centred: Array  # x - centre
    leverage: Array  # weight (x - centre)^2
    strength: float  # its sum, one over the variance of the slope
    fitted: Array  # the line at x
    chi2: float  # what is left of the values


def weighted_line(x: Array, values: Array, weight: Array) -> Line:
    """The line through values at x; weight: one over their variances."""
    level = np.average(values, weights=weight)
    centre = np.average(x, weights=weight)
    centred = x - centre
    leverage = weight * centred**2
    strength = max(leverage.sum(), NEARLY_ZERO)
    slope = np.sum(weight * centred * values) / strength
    fitted = level + slope * centred
    chi2 = np.sum(weight * (values - fitted) ** 2)
    return Line(level, slope, centred, leverage, strength, fitted, chi2)


def relative_errors(n: Array, mean: Array, deviation: Array, trials: Array) -> tuple[Array, Array]:
    """Standard errors of means over the means, and their degrees of freedom; NaN where unknown.

    All arrays are [sizes]. Relative variances are pooled unless Cochran's Q of their logarithms
    refutes that they are equal (5 %). Then a power of n is fitted to them, and counts for some
    freedom beside the size's own (Smyth, Stat. Appl. Genet. Mol. Biol. 3, 3, 2004).
    """
    own = trials - 1  # degrees of freedom
    if not own.any():
        unknown = np.full(len(n), np.nan)
        return unknown, unknown
    variance = (deviation / np.where(mean == 0, 1, mean)) ** 2
    common, strength = variance_in_common(np.log(n), variance, own)
    freedom = strength + own
    moderated = (strength * common + own * variance) / freedom
    relative = np.sqrt(moderated / trials)
    return np.maximum(relative, LEAST_ERROR), np.minimum(freedom, own.sum())


def variance_in_common(x: Array, variance: Array, freedom: Array) -> tuple[Array, Array]:
    """The relative variance that sizes have in common, pooled or a line over x = ln n, its freedom.

    variance, freedom: of each size's own trials.
    """
    pooled = np.sum(freedom * variance) / freedom.sum()
    floor = 0.01 * pooled + 1e-99
    spare = sum(freedom > 0) - 2
    # The logarithm of a variance: its bias, and one over its own variance.
    half = np.maximum(freedom, 1) / 2
    bias = digamma(half) - np.log(half)
    weight = (freedom > 0) / polygamma(1, half)
    logs = np.log(np.maximum(variance, floor)) - bias
    line = weighted_line(x, logs, weight)
    q = np.sum(weight * (logs - line.level) ** 2)
    if spare < 1 or scipy.stats.chi2.sf(q, spare + 1) >= 0.05:
        return np.full(len(x), pooled), np.full(len(x), EXACT)
    return np.exp(line.fitted), freedom_of_line(line, weight, spare)


def freedom_of_line(line: Line, weight: Array, spare: int) -> Array:
    """What the line of the variances is worth at every size, in degrees of freedom.

    It comes from what is left of Q (DerSimonian and Laird 1986) and the line's own error.
    """
    total = weight.sum()
    weight_left = total - np.sum(weight**2) / total
    excess = max(line.chi2 - spare, NEARLY_ZERO)
    excess /= max(weight_left, NEARLY_ZERO)
    own_variance = 1 / total + line.centred**2 / line.strength
    # trigamma(freedom/2) = excess, by the first two terms of its series
    inverse = excess / (1 + np.sqrt(1 + 2 * excess))
    return 1 / (inverse + own_variance / 2)


def half_widths(relative: Array, freedom: Array) -> Array:
    """Half-widths of intervals of means, over the means."""
    half = scipy.stats.t.isf(TAIL / 2, freedom) * relative
    return half * (1 + half**2)  # to second order, as errors are relative to the true mean


def size_means(n: ArrayLike, values: Sequence[Array]) -> tuple[Array, Array]:
    """Means at n [sizes] and half-widths of their 95 % intervals; NaN where unknown."""
    mean, deviation, trials = moments(values)
    half = np.full(len(mean), np.nan)
    there = np.isfinite(mean)
    if there.any():
        sizes = np.asarray(n)[there]
        relative, freedom = relative_errors(sizes, mean[there], deviation[there], trials[there])
        half[there] = half_widths(relative, freedom) * np.abs(mean[there])
    return mean, half


def accuracy_bounds(accuracies: Array, images: Array, half: float) -> tuple[float, float]:
    """95 % bounds of a mean accuracy [trials], of so many test images [trials].

    half: the half-width by the spread of the trials. Where that passes 1 or a trial has no error,
    the bounds are at least as wide as those of Clopper and Pearson (Biometrika 26, 404, 1934) for
    all trials' errors together, one-sided where there is none, and never above 1.
    """
    mean = float(np.mean(accuracies))
    low = mean - half
    high = mean + half
    if high > 1 or np.max(accuracies) > 1 - 1e-9 or np.isnan(half):
        right = np.sum(accuracies * images)
        wrong = np.sum(images) - right
        if wrong < 1e-6:
            low = np.fmin(low, scipy.stats.beta.ppf(TAIL, right, 1))
            high = 1.0
        else:
            low = np.fmin(low, scipy.stats.beta.ppf(TAIL / 2, right, wrong + 1))
            high = np.fmax(high, scipy.stats.beta.isf(TAIL / 2, right + 1, wrong))
    return float(low), float(np.minimum(high, 1))


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan

    def __str__(self) -> str:
        """1.10 (1.08 to 1.11), with as many digits as the interval justifies; a dash for NaN."""
        if np.isnan(self.value):
            return "–"
        bounds = [bound for bound in self[1:] if np.isfinite(bound)]
        if not bounds:
            return "any"
        distances = [abs(bound - self.value) for bound in bounds]
        if max(distances) <= 1e-6 * max(abs(self.value), 1e-3):
            return f"{self.value:.4g}"
        least = min(distance for distance in distances if distance)
        digits = int(np.clip(np.ceil(-np.log10(least / 2)), 0, 9))
        if any(bound and round(bound, digits) == 0 for bound in bounds):
            digits += 1  # 0.02, not 0.0
        texts = []
        for number in self:
            texts.append(f"{number:z.{digits}f}" if abs(number) < 1e5 else f"{number:.3g}")
        interval = f"below {texts[2]}" if self.low == -np.inf else " to ".join(texts[1:])
        return f"{texts[0]} ({interval})".replace("inf", "∞")


UNKNOWN = Estimate()


def allowance(numbers: int, freedom: float) -> float:
    """How much chi^2 may rise above its least with so many numbers fixed: F(numbers, freedom)."""
    return scipy.special.fdtri(numbers, freedom, 1 - TAIL)


def enlargement(least: float, spare: int, freedom: float) -> float:
    """What chi^2 is divided by: 1, or its value over `spare` where no such curve fits."""
    if spare < 1 or scipy.special.fdtrc(spare, freedom, least / spare) >= MISFIT:
        return 1.0
    return least / spare


def basis(n: ArrayLike, first: float, last: float, index: ArrayLike) -> Array:
    """1 - u and u at n [m] for λ [L]: [L, m, 2]."""
    index = np.where(np.abs(index) < NEARLY_ZERO, NEARLY_ZERO, index)[:, None]
    distance = np.log(np.asarray(n) / first)
    whole = np.log(last / first)
    u = np.expm1(index * distance) / np.expm1(index * whole)
    return np.stack([1 - u, u], -1)


@dataclass(frozen=True)
class Profile:
    """The best curves at every λ of a grid [L]."""

    n: Array  # the sizes that were fitted
    errors: Array  # of the means there,
    freedom: float  # and their degrees of freedom
    grid: Array
    ends: Array  # p and z, [L, 2]
    covariance: NDArray  # of these, [L, 2, 2]
    chi2: Array
    scale: float  # what chi^2 is divided by

    @property
    def best(self) -> int:
        """Where on the grid chi^2 is least."""
        return int(self.chi2.argmin())

    def best_curve(self) -> Array:
        """The best curve at the sizes that were fitted."""
        best = self.best
        line = basis(self.n, self.n[0], self.n[-1], self.grid[[best]])[0]
        return line @ self.ends[best]

    def left(self, allowed: float) -> Array:
        """What is left of the allowance at every λ; negative where it is excluded."""
        rise = self.chi2 - self.chi2.min()
        return allowed * self.scale - rise

    def grid_around(self, allowed: float) -> Array:
        """A grid of λ one step wider than where chi^2 is allowed."""
        inside = np.flatnonzero(self.left(allowed) >= 0)
        steps = len(self.grid)
        low = max(inside[0] - 1, 0)
        high = min(inside[-1] + 1, steps - 1)
        return np.linspace(self.grid[low], self.grid[high], steps)

    def index(self, allowed: float) -> Estimate:
        """λ with its interval."""
        inside = self.grid[self.left(allowed) >= 0]
        low = inside[0] if inside[0] > INDICES[0] else -np.inf
        high = inside[-1] if inside[-1] < INDICES[-1] else np.inf
        return Estimate(self.grid[self.best], low, high)

    def ratio(self, allowed: float) -> Estimate:
        """z/p with Fieller's bounds over all λ that are allowed; 0, ∞ where p may be 0."""
        p, z = self.ends[self.best]
        value = max(z / p, 0)
        left = self.left(allowed)
        inside = left >= 0
        p, z = self.ends[inside].T
        covariance = left[inside, None, None] * self.covariance[inside]
        # The bounds are the roots r of (z - r p)^2 = what is left times the variance of z - r p.
        a = p * p - covariance[:, 0, 0]
        b = p * z - covariance[:, 0, 1]
        c = z * z - covariance[:, 1, 1]
        if a.min() <= 0:
            return Estimate(value, 0.0, np.inf)
        root = np.sqrt(np.maximum(b**2 - a * c, 0))
        low = np.min((b - root) / a)
        high = np.max((b + root) / a)
        return Estimate(value, max(low, 0), max(high, 0))


def profile(n: Array, y: Array, errors: Array, grid: Array, freedom: float) -> Profile:
    """Least squares at every λ; freedom: of the errors."""
    lines = basis(n, n[0], n[-1], grid) / errors[:, None]
    scaled = (y / errors)[:, None]
    precision = lines.mT @ lines
    covariance = np.linalg.inv(precision)
    ends = covariance @ (lines.mT @ scaled)
    residuals = scaled - lines @ ends
    chi2 = np.sum(residuals**2, (1, 2))
    return Profile(
        n=n,
        errors=errors,
        freedom=freedom,
        grid=grid,
        ends=ends[..., 0],
        covariance=covariance,
        chi2=chi2,
        scale=enlargement(chi2.min(), len(n) - 3, freedom),
    )


@dataclass(frozen=True)
class Growth:
    """The growth of a quantity from the smallest to the largest n fitted."""

    n: Array
    verdict: str = UNDECIDED
    reason: str = ""
    ratio: Estimate = UNKNOWN  # y(n_max)/y(n_min) of the curve
    index: Estimate = UNKNOWN  # λ
    exponent: Estimate = UNKNOWN  # b of a n^b
    clear: bool = False  # whether a constant is refuted; if not, λ has no meaning
    power_fits: bool = False  # whether a n^b is not refuted
    scale: float = 1.0  # what chi^2 of the curve was divided by


class Power(NamedTuple):
    """A fitted a n^b."""

    exponent: Estimate
    freedom: float  # of its error
    fits: bool  # whether it is not refuted


def fit_power(n: Array, y: Array, relative: Array, freedom: Array) -> Power:
    """The line through ln y over ln n, with Satterthwaite's degrees of freedom."""
    line = weighted_line(np.log(n), np.log(y), relative**-2)
    together = line.strength**2 / np.sum(line.leverage**2 / freedom)
    together = min(together, freedom.max())
    scale = enlargement(line.chi2, len(n) - 2, together)
    variance = scale / line.strength
    half = np.sqrt(allowance(1, together) * variance)
    exponent = Estimate(line.slope, line.slope - half, line.slope + half)
    return Power(exponent, together, scale == 1)


def fit_curves(n: Array, y: Array, relative: Array, freedom: Array) -> Growth:
    """The growth of positive means y [sizes] with these relative errors, and the verdict on it.

    Intervals hold what chi^2 allows, F(1, freedom) above its least. But where a constant is within
    2 F(2, freedom) of that, λ means nothing, and the best of all λ makes growth out of chance:
    there that much is allowed, and errors are relative to the constant.
    """
    power = fit_power(n, y, relative, freedom)
    level = np.average(y, weights=relative**-2)
    errors = relative * level
    curves = profile(n, y, errors, INDICES, power.freedom)
    misfit = np.sum(((y - level) / errors) ** 2) - curves.chi2.min()
    allowed = 2 * allowance(2, power.freedom)
    clear = bool(misfit > allowed * curves.scale)
    if clear:
        allowed = allowance(1, power.freedom)
    curves = refined(curves, y, relative, allowed, clear)
    ratio = curves.ratio(allowed)
    index = curves.index(allowed)
    verdict, reason = judge(ratio, index, clear)
    return Growth(
        n=n,
        verdict=verdict,
        reason=reason,
        ratio=ratio,
        index=index,
        exponent=power.exponent,
        clear=clear,
        power_fits=power.fits,
        scale=curves.scale,
    )


def refined(curves: Profile, y: Array, relative: Array, allowed: float, clear: bool) -> Profile:
    """The curves again on finer grids; where growth is clear, errors are relative to the best one.

    They are not relative to the means, which are noisy.
    """
    errors = curves.errors
    for step in range(1, STEPS):
        if clear:
            errors = relative * np.clip(curves.best_curve(), y / 2, 2 * y)
        grid = INDICES if step < 3 else curves.grid_around(allowed)
        curves = profile(curves.n, y, errors, grid, curves.freedom)
    return curves


def judge(ratio: Estimate, index: Estimate, clear: bool) -> tuple[str, str]:
    """The first verdict that the intervals of y(n_max)/y(n_min) and of λ allow, and its reason."""
    most = 1 + MARGIN
    if ratio.low >= 1 / most and ratio.high <= most:
        return FLAT, f"within {1 / most:g} to {most:g}"
    if ratio.high <= most:
        return SLOW, "falling" if ratio.high < 1 else "hardly rising, or falling"
    if index.high < MARGIN:
        return SLOW, f"λ below {MARGIN:g}"
    if index.low > 0 and ratio.low > most:
        return FAST, "λ above 0"
    if not clear:
        return UNDECIDED, "growth neither shown nor excluded"
    if index.low > 0:
        return UNDECIDED, f"λ above 0, but growth may be below {most:g}"
    return UNDECIDED, f"λ may be 0 and {MARGIN:g}"


def fit_growth(n: ArrayLike, values: Sequence[Array]) -> Growth:
    """The growth of the means at n [sizes]; sizes without trials are left out.

    "Undecided" where a mean is infinite, zero or negative (such sizes are left out as well), there
    are fewer than four sizes, or no size has several trials.
    """
    n = np.asarray(n, float)
    mean, deviation, trials = moments(values)
    reasons = []
    for reason, where in (("infinite", np.isinf(mean)), ("not positive", mean <= 0)):
        if where.any():
            sizes = map(str, n[where].astype(int))
            reasons.append(f"{reason} at n = {', '.join(sizes)}")
    there = np.isfinite(mean) & (mean > 0)
    n, mean = n[there], mean[there]
    relative, freedom = relative_errors(n, mean, deviation[there], trials[there])
    fitted = Growth(n)
    if len(n) < FEWEST_SIZES:
        reasons.append("fewer than four sizes")
    elif np.isnan(freedom).any():
        reasons.append("no size has several trials")
    else:
        fitted = fit_curves(n, mean, relative, freedom)
    if reasons:
        return replace(fitted, verdict=UNDECIDED, reason="; ".join(reasons))
    return fitted if fitted.scale == 1 else with_misfit(fitted)


def with_misfit(fitted: Growth) -> Growth:
    """The growth where errors were enlarged, which must not speak for the claim."""
    verdict, reason = fitted.verdict, fitted.reason
    if verdict == SLOW:
        verdict, reason = UNDECIDED, f"{reason} only with enlarged errors"
    reason += f"; no such curve fits, errors enlarged {np.sqrt(fitted.scale):.1f} times"
    return replace(fitted, verdict=verdict, reason=reason)


def judged(values: xr.DataArray) -> Growth:
    """The growth of a quantity [n, trial, ...] of the results."""
    return fit_growth(values.n.values, trial_values(values))


def reserve(values: xr.DataArray, verdict: str) -> str:
    """What the verdict would be without the largest size, where another: a clause, or ""."""
    known = values.dropna("n", how="all")
    if known.sizes["n"] <= FEWEST_SIZES:
        return ""
    without = judged(known.isel(n=slice(-1))).verdict
    return "" if without == verdict else f"; {without} without n = {known.n[-1].item()}"
