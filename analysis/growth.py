"""Growth statistics: a trial's value, errors of means, the curve of a quantity over n, the verdict.

Patterns and test images of one trial share a training set, so trials are the units everywhere.
`relative_errors` is the only error method, of tables, bars and fits. `values` are [n, trial], NaN
where there is no trial.

    y(n) = a + b (n^λ - 1)/λ

is the one curve: constant (b = 0), logarithm (λ = 0), power (λ > 0); λ < 0 saturates. Its slope
against ln n goes like n^λ. At fixed λ it is linear, y = p (1 - u) + z u with u(n) from 0 at the
first size to 1 at the last, and p, z its values there. So chi^2 over a grid of λ gives all
intervals (95 %). tests/simulate_growth.py measures how often they cover and verdicts are wrong.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import NDArray
from scipy.special import digamma, polygamma
from xarray import DataArray

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


class Means(NamedTuple):
    """Means at x, and the bounds of their 95 % intervals; NaN where unknown. Arrays are [x]."""

    x: Array  # sizes n, or widths
    mean: Array
    low: Array
    high: Array

    @property
    def rows(self) -> Array:
        """Mean, low and high at each x."""
        return np.transpose(self[1:])


def trial_values(values: DataArray) -> DataArray:
    """The value that every trial has of a quantity [n, trial, ...]: [n, trial], NaN without any.

    The mean over its patterns, of counts of measurements the median over its patterns and test
    images. Patterns that were drawn for their sparsity alone, axis `draw`, are trials.
    """
    if "draw" in values.dims:
        values = values.rename(draw="trial")
    inner = set(values.dims) - {"n", "trial"}
    is_count = "measurements" in str(values.name)
    return values.median(inner) if is_count else values.mean(inner)


def moments(values: DataArray) -> Array:
    """Mean (NaN of no trial), standard deviation (0 of one) and number of the trials, [3, n]."""
    with np.errstate(invalid="ignore"):  # of infinite values
        deviation = values.std("trial", ddof=1).fillna(0)
    return np.stack([values.mean("trial"), deviation, values.count("trial")])


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
    divisor = np.where(mean == 0, 1, mean)
    variance = (deviation / divisor) ** 2
    common, strength = variance_in_common(np.log(n), variance, own)
    freedom = strength + own
    moderated = (strength * common + own * variance) / freedom
    relative = np.sqrt(moderated / trials)
    relative = np.maximum(relative, LEAST_ERROR)
    freedom = np.minimum(freedom, own.sum())
    return relative, freedom


def variance_in_common(x: Array, variance: Array, freedom: Array) -> tuple[Array, Array]:
    """The relative variance that sizes have in common, pooled or a line over x = ln n, its freedom.

    variance, freedom: of each size's own trials.
    """
    pooled = np.average(variance, weights=freedom)
    floor = 0.01 * pooled + 1e-99
    # The logarithm of a variance: its bias, and one over its own variance.
    half = np.maximum(freedom, 1) / 2
    bias = digamma(half) - np.log(half)
    weight = (freedom > 0) / polygamma(1, half)
    logs = np.log(np.maximum(variance, floor)) - bias
    level = np.average(logs, weights=weight)
    q = np.sum(weight * (logs - level) ** 2)
    spare = sum(freedom > 0) - 2  # of a line
    if spare < 1 or scipy.stats.chi2.sf(q, spare + 1) >= 0.05:
        return np.full(len(x), pooled), np.full(len(x), EXACT)
    return line_of_variances(x, logs, weight, spare)


def line_of_variances(x: Array, logs: Array, weight: Array, spare: int) -> tuple[Array, Array]:
    """The variances that a line through their logarithms has, and its worth in degrees of freedom.

    That comes from what the line leaves of Q (DerSimonian and Laird 1986) and from its own error.
    """
    total = weight.sum()
    centred = x - np.average(x, weights=weight)
    strength = max(np.sum(weight * centred**2), NEARLY_ZERO)
    slope = np.sum(weight * centred * logs) / strength
    level = np.average(logs, weights=weight)
    line = level + slope * centred
    left = np.sum(weight * (logs - line) ** 2)
    weight_left = total - np.sum(weight**2) / total
    excess = max(left - spare, NEARLY_ZERO) / weight_left
    own_variance = 1 / total + centred**2 / strength
    # trigamma(freedom/2) = excess, by the first two terms of its series
    inverse = excess / (1 + np.sqrt(1 + 2 * excess))
    return np.exp(line), 1 / (inverse + own_variance / 2)


def half_widths(relative: Array, freedom: Array) -> Array:
    """Half-widths of intervals of means, over the means."""
    half = scipy.stats.t.isf(TAIL / 2, freedom) * relative
    return half * (1 + half**2)  # to second order, as errors are relative to the true mean


def size_means(values: DataArray) -> Means:
    """Means over the trials [n, trial], and their intervals."""
    n = values.n.values
    about = moments(values)
    mean = about[0]
    half = np.full(len(n), np.nan)
    there = np.isfinite(mean)
    if there.any():
        errors = relative_errors(n[there], *about[:, there])
        half[there] = half_widths(*errors) * np.abs(mean[there])
    return Means(n, mean, mean - half, mean + half)


def accuracy_means(values: DataArray, images: DataArray) -> Means:
    """Means of accuracies, of so many test images, both [n, trial].

    Where the interval passes 1 or a trial has no error, it is at least as wide as that of Clopper
    and Pearson (Biometrika 26, 404, 1934) for all trials' errors together, one-sided where there is
    none, and never above 1.
    """
    n, mean, low, high = size_means(values)
    of_known = images.where(values.notnull())
    right = (values * of_known).sum("trial").values
    wrong = of_known.sum("trial").values - right
    has_none = wrong < 1e-6
    tail = np.where(has_none, TAIL, TAIL / 2)
    exact_low = scipy.stats.beta.ppf(tail, right, wrong + 1)
    exact_high = scipy.stats.beta.isf(tail, right + 1, wrong)
    is_near = values.max("trial").values > 1 - 1e-9
    is_near |= ~(high <= 1)  # also where it is unknown
    low = np.where(is_near, np.fmin(low, exact_low), low)
    high = np.where(is_near, np.fmax(high, exact_high), high)
    return Means(n, mean, low, np.fmin(high, 1))


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan


UNKNOWN = Estimate()


class Profile:
    """The best curves at every λ of a grid [L], by least squares, and which of them are allowed."""

    def __init__(
        self, n: Array, y: Array, errors: Array, freedom: float, grid: Array, allowed: float
    ) -> None:
        """y: means at n, their errors, what these are worth, and by how much chi^2 may rise."""
        self.grid = grid
        index = np.where(np.abs(grid) < NEARLY_ZERO, NEARLY_ZERO, grid)[:, None]
        distance = np.log(n / n[0])
        whole = np.expm1(index * distance[-1])
        u = np.expm1(index * distance) / whole
        basis = np.stack([1 - u, u], -1)  # [L, m, 2] for n [m]
        weighted = basis / errors[:, None]
        scaled = (y / errors)[:, None]
        precision = weighted.mT @ weighted
        self.covariance = np.linalg.inv(precision)  # of p and z
        self.ends = self.covariance @ (weighted.mT @ scaled)  # p and z, [L, 2, 1]
        residuals = scaled - weighted @ self.ends
        self.chi2 = np.sum(residuals**2, (1, 2))
        self.best = self.chi2.argmin()
        self.curve = (basis @ self.ends)[self.best, :, 0]  # the best one, at n
        spare = len(n) - 3
        misfit = self.chi2.min() / spare
        fits = scipy.special.fdtrc(spare, freedom, misfit) >= MISFIT
        self.scale = 1.0 if fits else misfit  # chi^2 is divided by it
        # What is left of the allowance at every λ; negative where it is excluded.
        self.left = allowed * self.scale - (self.chi2 - self.chi2.min())
        self.inside = self.left >= 0

    def finer_grid(self) -> Array:
        """A grid of λ one step wider than where it is allowed."""
        first, last = np.flatnonzero(self.inside)[[0, -1]]
        end = len(self.grid) - 1
        low = self.grid[max(first - 1, 0)]
        high = self.grid[min(last + 1, end)]
        return np.linspace(low, high, end + 1)

    def index(self) -> Estimate:
        """λ with its interval."""
        low, high = self.grid[self.inside][[0, -1]]
        if low == INDICES[0]:
            low = -np.inf
        if high == INDICES[-1]:
            high = np.inf
        return Estimate(self.grid[self.best], low, high)

    def ratio(self) -> Estimate:
        """z/p with Fieller's bounds over all λ that are allowed; 0, ∞ where p may be 0."""
        p, z = self.ends[self.best, :, 0]
        # The bounds are the roots r of (z - r p)^2 = what is left times the variance of z - r p,
        # which is a quadratic form of (r, -1) = a r^2 - 2 b r + c.
        ends = self.ends[self.inside]
        left = self.left[self.inside, None, None]
        form = ends @ ends.mT - left * self.covariance[self.inside]
        a, b = form[:, 0].T
        low, high = 0.0, np.inf
        if a.min() > 0:
            root = np.sqrt(np.maximum(-np.linalg.det(form), 0))
            low = np.min((b - root) / a)
            high = np.max((b + root) / a)
        return Estimate(*np.maximum([z / p, low, high], 0))


@dataclass(frozen=True)
class Growth:
    """The growth of a quantity from the smallest to the largest n fitted."""

    n: Array
    verdict: str = UNDECIDED
    reason: str = ""
    ratio: Estimate = UNKNOWN  # y(n_max)/y(n_min) of the curve
    index: Estimate = UNKNOWN  # λ
    clear: bool = False  # whether a constant is refuted; if not, λ has no meaning


def freedom_together(n: Array, relative: Array, freedom: Array) -> float:
    """What the errors of all sizes are worth for a slope over ln n (Satterthwaite 1946)."""
    weight = relative**-2
    centre = np.average(np.log(n), weights=weight)
    leverage = weight * (np.log(n) - centre) ** 2
    together = leverage.sum() ** 2 / np.sum(leverage**2 / freedom)
    return min(together, freedom.max())


def fit_curves(n: Array, y: Array, relative: Array, freedom: Array) -> Growth:
    """The growth of positive means y [sizes] with these relative errors, and the verdict on it.

    Intervals hold what chi^2 allows, F(1, freedom) above its least. But where a constant is within
    2 F(2, freedom) of that, λ means nothing, and the best of all λ makes growth out of chance:
    there that much is allowed, and errors are relative to the constant.
    """
    together = freedom_together(n, relative, freedom)
    allowed, apart = scipy.special.fdtri([1, 2], together, 1 - TAIL) * [1, 2]
    level = np.average(y, weights=relative**-2)
    errors = relative * level
    curves = Profile(n, y, errors, together, INDICES, apart)
    of_constant = np.sum(((y - level) / errors) ** 2)
    clear = bool(of_constant - curves.chi2.min() > apart * curves.scale)
    if not clear:
        allowed = apart
    for step in range(1, STEPS):
        if clear:  # relative to the best curve, not to the means, which are noisy
            errors = relative * np.clip(curves.curve, y / 2, 2 * y)
        grid = INDICES if step < 3 else curves.finer_grid()
        curves = Profile(n, y, errors, together, grid, allowed)
    ratio = curves.ratio()
    index = curves.index()
    return Growth(n, *judge(ratio, index, clear, curves.scale), ratio, index, clear)


def judge(ratio: Estimate, index: Estimate, clear: bool, scale: float) -> tuple[str, str]:
    """The first verdict that the intervals of y(n_max)/y(n_min) and of λ allow, and its reason.

    scale: what chi^2 was divided by.
    """
    most = 1 + MARGIN
    least = 1 / most
    verdict = UNDECIDED
    if least <= ratio.low and ratio.high <= most:
        verdict, reason = FLAT, f"within {least:g} to {most:g}"
    elif ratio.high < 1:
        verdict, reason = SLOW, "falling"
    elif ratio.high <= most:
        verdict, reason = SLOW, "hardly rising, or falling"
    elif index.high < MARGIN:
        verdict, reason = SLOW, f"λ below {MARGIN:g}"
    elif index.low > 0 and ratio.low > most:
        verdict, reason = FAST, "λ above 0"
    elif not clear:
        reason = "growth neither shown nor excluded"
    elif index.low > 0:
        reason = f"λ above 0, but growth may be below {most:g}"
    else:
        reason = f"λ may be 0 and {MARGIN:g}"
    if scale == 1:
        return verdict, reason
    if verdict == SLOW:  # enlarged errors must not speak for the claim
        verdict, reason = UNDECIDED, f"{reason} only with enlarged errors"
    return verdict, f"{reason}; no such curve fits, errors enlarged {np.sqrt(scale):.1f} times"


def judged(values: DataArray) -> Growth:
    """The growth of a quantity [n, trial, ...]; sizes without trials are left out.

    "Undecided" where a mean is infinite, zero or negative (such sizes are left out as well), there
    are fewer than four sizes, or no size has several trials.
    """
    n = values.n.values.astype(float)
    about = moments(trial_values(values))
    mean = about[0]
    reasons = []
    for reason, where in {"infinite": np.isinf(mean), "not positive": mean <= 0}.items():
        if where.any():
            sizes = map(str, n[where].astype(int))
            reasons.append(f"{reason} at n = {', '.join(sizes)}")
    there = np.isfinite(mean) & (mean > 0)
    n = n[there]
    relative, freedom = relative_errors(n, *about[:, there])
    fitted = Growth(n)
    if len(n) < FEWEST_SIZES:
        reasons.append("fewer than four sizes")
    elif np.isnan(freedom).any():
        reasons.append("no size has several trials")
    else:
        fitted = fit_curves(n, mean[there], relative, freedom)
    if reasons:
        reason = "; ".join(reasons)
        fitted = replace(fitted, verdict=UNDECIDED, reason=reason)
    return fitted


def reserve(values: DataArray, verdict: str) -> str:
    """What the verdict would be without the largest size, where another: a clause, or ""."""
    known = values.dropna("n", how="all")
    if known.sizes["n"] <= FEWEST_SIZES:
        return ""
    without = judged(known.isel(n=slice(-1))).verdict
    return "" if without == verdict else f"; {without} without n = {known.n[-1].item()}"
