"""Growth statistics: a trial's value, errors of means, the curve of a quantity over n, the verdict.

Patterns and test images of one trial share a training set, so trials are the units everywhere.
`relative_errors` is the only error method, of tables, bars and fits. `values` are always a list of
[trials], one array for each size n.

    y(n) = a + b (n^λ - 1)/λ

is the one curve: constant (b = 0), logarithm (λ = 0), power (λ > 0); λ < 0 saturates. Its slope
against ln n goes like n^λ. At fixed λ it is linear, y = p (1 - u) + z u with u(n) from 0 at the
first size to 1 at the last, and p, z its values there. So chi^2 over a grid of λ gives all
intervals (95 %). tests/simulate_growth.py measures how often they cover and verdicts are wrong.
The lines of this file are formulas: more tokens a line than elsewhere.
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
EXACT = 1e9  # degrees of freedom that stand for infinitely many
FLAT, SLOW, FAST, UNDECIDED = "flat", "no faster than log n", "faster than log n", "undecided"
VERDICTS = (FLAT, SLOW, FAST, UNDECIDED)


def trial_values(values: xr.DataArray) -> list[Array]:
    """The value that every trial has of a quantity [n, trial, ...], a list by size, without NaN.

    The mean over its patterns, of counts of measurements the median over its patterns and test
    images. Patterns that were drawn for their sparsity alone, axis `draw`, are trials.
    """
    unit = "trial" if "trial" in values.dims else "draw"
    statistic = np.median if "measurements" in str(values.name) else np.mean
    by_size = []
    for size in values.transpose("n", unit, ...).values.astype(float):
        known = [trial[~np.isnan(trial)] for trial in size]
        by_size.append(np.array([statistic(trial) for trial in known if trial.size], float))
    return by_size


def moments(values: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Mean (NaN of no trial), standard deviation (0 of one) and number of the trials, [sizes]."""
    mean, deviation = np.full(len(values), np.nan), np.zeros(len(values))
    for i, trials in enumerate(values):
        if len(trials):
            mean[i] = np.mean(trials)
        if len(trials) > 1 and np.isfinite(trials).all():
            deviation[i] = np.std(trials, ddof=1)
    return mean, deviation, np.array([len(trials) for trials in values], float)


def weighted_line(x: Array, values: Array, weight: Array) -> tuple[float, float, Array]:
    """Least squares of level + slope (x - centre): level, slope, x - centre."""
    level = np.average(values, weights=weight)
    centred = x - np.average(x, weights=weight)
    steepness = max(np.sum(weight * centred**2), 1e-9)
    return level, np.sum(weight * centred * values) / steepness, centred


def relative_errors(n: Array, mean: Array, deviation: Array, trials: Array) -> tuple[Array, Array]:
    """Standard errors of means over the means, and their degrees of freedom; NaN where unknown.

    All arrays are [sizes]. Relative variances are pooled unless Cochran's Q of their logarithms
    refutes that they are equal (5 %). Then a power of n is fitted to them, and counts for some
    freedom beside the size's own (Smyth, Stat. Appl. Genet. Mol. Biol. 3, 3, 2004).
    """
    freedom = trials - 1
    if not freedom.any():
        return np.full(len(n), np.nan), np.full(len(n), np.nan)
    square = (deviation / np.where(mean == 0, 1, mean)) ** 2
    pooled = np.sum(freedom * square) / freedom.sum()
    common, strength = spread_by_size(np.log(n), freedom, square, pooled)
    variance = (strength * common + freedom * square) / (strength + freedom)
    relative = np.sqrt(variance / trials)
    return np.maximum(relative, LEAST_ERROR), np.minimum(strength + freedom, freedom.sum())


def spread_by_size(x: Array, freedom: Array, square: Array, pooled: float) -> tuple[Array, Array]:
    """The relative variance that sizes have in common, pooled or a line over x = ln n, its freedom.

    The line's worth comes from what is left of Q (DerSimonian and Laird 1986) and its own error.
    """
    half, spare = np.maximum(freedom, 1) / 2, np.count_nonzero(freedom) - 2
    weight = (freedom > 0) / polygamma(1, half)  # one over the variance of the logarithm
    logs = np.log(np.maximum(square, 0.01 * pooled + 1e-99)) - digamma(half) + np.log(half)
    level, slope, centred = weighted_line(x, logs, weight)
    line, total = level + slope * centred, weight.sum()
    equal = scipy.stats.chi2.sf(np.sum(weight * (logs - level) ** 2), spare + 1) >= 0.05
    if equal or spare < 1:
        return np.full(len(x), pooled), np.full(len(x), EXACT)
    excess = max(np.sum(weight * (logs - line) ** 2) - spare, 1e-9)
    excess /= max(total - np.sum(weight**2) / total, 1e-9)
    own = 1 / total + centred**2 / max(np.sum(weight * centred**2), 1e-9)
    # trigamma(strength/2) = excess, by the first two terms of its series
    return np.exp(line), 1 / (excess / (1 + np.sqrt(1 + 2 * excess)) + own / 2)


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
        spread = mean[there], deviation[there], trials[there]
        errors = relative_errors(np.asarray(n)[there], *spread)
        half[there] = half_widths(*errors) * np.abs(mean[there])
    return mean, half


def accuracy_bounds(accuracies: Array, images: Array, half: float) -> tuple[float, float]:
    """95 % bounds of a mean accuracy [trials], of so many test images [trials].

    half: the half-width by the spread of the trials. Where that passes 1 or a trial has no error,
    the bounds are at least as wide as those of Clopper and Pearson (Biometrika 26, 404, 1934) for
    all trials' errors together, one-sided where there is none, and never above 1.
    """
    mean = float(np.mean(accuracies))
    low, high = mean - half, mean + half
    if high > 1 or np.max(accuracies) > 1 - 1e-9 or np.isnan(half):
        right = np.sum(accuracies * images)
        wrong = np.sum(images) - right
        none = wrong < 1e-6
        tail = TAIL if none else TAIL / 2
        low = np.fmin(low, scipy.stats.beta.ppf(tail, right, wrong + 1))
        high = 1.0 if none else np.fmax(high, scipy.stats.beta.isf(tail, right + 1, wrong))
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
    index = np.where(np.abs(index) < 1e-9, 1e-9, index)[:, None]
    u = np.expm1(index * np.log(np.asarray(n) / first)) / np.expm1(index * np.log(last / first))
    return np.stack([1 - u, u], -1)


@dataclass(frozen=True)
class Profile:
    """The best curves at every λ of a grid [L]."""

    grid: Array
    ends: Array  # p and z, [L, 2]
    covariance: Array  # of these, [L, 2, 2]
    chi2: Array
    scale: float  # what chi^2 is divided by

    def best(self, n: Array) -> Array:
        """The best curve at the sizes that were fitted."""
        i = self.chi2.argmin()
        return (basis(n, n[0], n[-1], self.grid[[i]]) @ self.ends[i])[0]

    def left(self, allowed: float) -> Array:
        """What is left of the allowance at every λ; negative where it is excluded."""
        return allowed * self.scale - (self.chi2 - self.chi2.min())

    def grid_around(self, allowed: float) -> Array:
        """A grid of λ one step wider than where chi^2 is allowed."""
        inside, last = np.flatnonzero(self.left(allowed) >= 0), len(self.grid) - 1
        low, high = max(inside[0] - 1, 0), min(inside[-1] + 1, last)
        return np.linspace(self.grid[low], self.grid[high], last + 1)

    def index(self, allowed: float) -> Estimate:
        """λ with its interval."""
        inside = self.grid[self.left(allowed) >= 0]
        low = -np.inf if inside[0] <= INDICES[0] else inside[0]
        high = np.inf if inside[-1] >= INDICES[-1] else inside[-1]
        return Estimate(self.grid[self.chi2.argmin()], low, high)

    def ratio(self, allowed: float) -> Estimate:
        """z/p with Fieller's bounds over all λ that are allowed; 0, ∞ where p may be 0."""
        p, z = self.ends[self.chi2.argmin()]
        value, left = max(z / p, 0), self.left(allowed)
        p, z = self.ends[left >= 0].T
        covariance = left[left >= 0, None, None] * self.covariance[left >= 0]
        a = p * p - covariance[:, 0, 0]
        b = p * z - covariance[:, 0, 1]
        c = z * z - covariance[:, 1, 1]
        if a.min() <= 0:
            return Estimate(value, 0.0, np.inf)
        root = np.sqrt(np.maximum(b**2 - a * c, 0))
        low, high = np.min((b - root) / a), np.max((b + root) / a)
        return Estimate(value, max(low, 0), max(high, 0))


def profile(n: Array, y: Array, error: Array, grid: Array, freedom: float) -> Profile:
    """Least squares at every λ; freedom: of the errors."""
    lines = basis(n, n[0], n[-1], grid) / error[:, None]
    scaled = (y / error)[:, None]
    covariance = np.asarray(np.linalg.inv(lines.mT @ lines), np.float64)
    ends = covariance @ (lines.mT @ scaled)
    chi2 = np.sum((scaled - lines @ ends) ** 2, (1, 2))
    scale = enlargement(chi2.min(), len(n) - 3, freedom)
    return Profile(grid, ends[..., 0], covariance, chi2, scale)


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


def fit_power(n: Array, y: Array, relative: Array, freedom: Array) -> tuple[Estimate, float, bool]:
    """Exponent b of a n^b by a line through ln y, Satterthwaite's freedom, whether it fits."""
    weight = relative**-2
    level, slope, x = weighted_line(np.log(n), np.log(y), weight)
    share = weight * x**2
    together = min(share.sum() ** 2 / np.sum(share**2 / freedom), freedom.max())
    chi2 = np.sum(weight * (np.log(y) - level - slope * x) ** 2)
    scale = enlargement(chi2, len(n) - 2, together)
    half = np.sqrt(allowance(1, together) * scale / share.sum())
    return Estimate(slope, slope - half, slope + half), together, scale == 1


def fit_curves(n: Array, y: Array, relative: Array, freedom: Array) -> Growth:
    """The growth of positive means y [sizes] with these relative errors, and the verdict on it.

    Intervals hold what chi^2 allows, F(1, freedom) above its least. But where a constant is within
    2 F(2, freedom) of that, λ means nothing, and the best of all λ makes growth out of chance:
    there that much is allowed, and errors are relative to the constant.
    """
    exponent, together, power_fits = fit_power(n, y, relative, freedom)
    level = np.average(y, weights=relative**-2)
    curves = profile(n, y, relative * level, INDICES, together)
    allowed = 2 * allowance(2, together)
    misses = np.sum(((y - level) / (relative * level)) ** 2) - curves.chi2.min()
    clear = bool(misses > allowed * curves.scale)
    if clear:
        allowed = allowance(1, together)
    for step in range(1, STEPS):
        grid = curves.grid_around(allowed) if step >= 3 else INDICES
        # errors are relative to the curve, not to the noisy means
        errors = relative * (np.clip(curves.best(n), y / 2, 2 * y) if clear else level)
        curves = profile(n, y, errors, grid, together)
    fitted = curves.ratio(allowed), curves.index(allowed), exponent
    return Growth(n, *judge(*fitted[:2], clear), *fitted, clear, power_fits, curves.scale)


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
    mean, deviation, trials = moments(values)
    there = np.isfinite(mean) & (mean > 0)
    n, reasons = np.asarray(n, float), []
    for reason, where in (("infinite", np.isinf(mean)), ("not positive", mean <= 0)):
        if where.any():
            reasons.append(f"{reason} at n = {', '.join(n[where].astype(int).astype(str))}")
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
