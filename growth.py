"""One curve that contains constant, logarithm and power, its intervals and the verdict on "no faster than log n".

    y(n) = a + b (n^λ - 1)/λ

Its slope against ln n goes like n^λ: λ < 0 saturates, λ = 0 is the logarithm, λ > 0 a power of n, b = 0 a constant.
At fixed λ it is linear, y = p (1 - u) + z u with u(n) from 0 at the first size to 1 at the last one and p, z its values
there. So chi^2 over a grid of λ gives every interval (95 %). All functions take many data sets at once, [..., sizes];
tests/simulate_growth.py measures how often their intervals cover and how often the verdict is wrong.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]
TAIL = 0.05  # an interval misses in this share of cases
MARGIN = 0.25  # "no faster": λ is below it; "no growth": the growth is between 1/(1 + MARGIN) and 1 + MARGIN
MISFIT = 0.01  # where a chi^2 as large is less probable than this, all errors are enlarged until the curve fits
INDICES = np.linspace(-4, 8, 97)  # the λ looked at; beyond, the curve is a step at the first or at the last size
STEPS = 7  # three to find the errors, four that refine the grid
VERDICTS = ("no growth", "no faster than log n", "faster than log n", "undecided")


def verdicts(growth: Array, index: Array) -> NDArray[np.str_]:
    """The verdict on intervals [..., 2] of growth and index; a curve that does not rise is no faster than log n."""
    flat = growth[..., 1] <= 1 + MARGIN
    cases = [flat & (growth[..., 0] >= 1 / (1 + MARGIN)), flat | (index[..., 1] < MARGIN), index[..., 0] > 0]
    return np.select(cases, VERDICTS[:3], VERDICTS[3])


def basis(n: ArrayLike, first: float, last: float, index: ArrayLike) -> Array:
    """1 - u and u at sizes n for indices λ [...]: [..., sizes, 2]."""
    index = np.where(np.abs(index) < 1e-9, 1e-9, index)[..., None]
    u = np.expm1(index * np.log(np.asarray(n) / first)) / np.expm1(index * np.log(last / first))
    return np.stack([1 - u, u], -1)


def curves(n: Array, y: Array, error: Array, index: Array) -> tuple[Array, Array, Array]:
    """The best curve at every λ [..., L]: its p and z [..., L, 2], their covariance [..., L, 2, 2], chi^2 [..., L]."""
    a = basis(n, n[0], n[-1], index) / error[..., None, :, None]
    scaled = (y / error)[..., None, :, None]
    covariance = np.linalg.inv(a.mT @ a)
    ends = covariance @ (a.mT @ scaled)
    return ends[..., 0], covariance, np.sum((scaled - a @ ends) ** 2, (-2, -1))


def enlargement(least: Array, spare: int, freedom: Array) -> Array:
    """What chi^2 is divided by: 1, or its value over its degrees of freedom `spare` where no such curve fits."""
    if spare < 1:
        return np.ones_like(least)
    return np.where(scipy.stats.f.sf(least / spare, spare, freedom) < MISFIT, least / spare, 1)


def bounds_of_growth(ends: Array, covariance: Array, allowed: Array) -> tuple[Array, Array]:
    """Fieller's bounds of z/p where chi^2 may rise by `allowed` [..., L]; 0 to infinity where p may be 0."""
    a, b, c = (np.prod(ends[..., [i, j]], -1) - allowed * covariance[..., i, j] for i, j in ((0, 0), (0, 1), (1, 1)))
    root = np.sqrt(np.maximum(b**2 - a * c, 0))
    bounded = a > 0
    a = np.where(bounded, a, 1)
    return np.where(bounded, np.maximum(b - root, 0) / a, 0), np.where(bounded, (b + root) / a, np.inf)


def at(x: Array, i: Array) -> Array:
    """x [..., L] at i [...]."""
    return np.take_along_axis(x, i[..., None], -1)[..., 0]


def fit_curves(n: Array, y: Array, relative: Array, freedom: Array) -> dict[str, Array]:
    """Index λ, growth y(n_max)/y(n_min) and their intervals.

    n [sizes]; y, positive, and its relative standard errors [..., sizes], of `freedom` [...] degrees of freedom. Errors
    are relative to the curve, not to the noisy means: it is refined in steps, and then the grid of λ. Intervals hold
    what chi^2 allows, F(1, freedom) above its least. But where a constant is within 2 F(2, freedom) of that, λ means
    nothing and the best of all λ makes growth out of chance: there that is allowed, and errors are relative to the
    constant. Returns "index", "growth", "clear" (not constant) [...], "index_interval", "growth_interval" [..., 2] and,
    for `band`, "indices", "allowed" [..., L], "ends" [..., L, 2], "covariance" [..., L, 2, 2].
    """
    weight, grid = relative**-2, np.broadcast_to(INDICES, (*y.shape[:-1], len(INDICES)))
    level = np.sum(weight * y, -1, keepdims=True) / np.sum(weight, -1, keepdims=True)
    error, indices, allowance = relative * level, grid, 2 * scipy.stats.f.isf(TAIL, 2, freedom)
    for step in range(STEPS):
        ends, covariance, chi2 = curves(n, y, error, indices)
        least, best = chi2.min(-1), chi2.argmin(-1)
        scale = enlargement(least, len(n) - 3, freedom)
        if step == 0:
            clear = np.sum(((y - level) / error) ** 2, -1) - least > allowance * scale
            allowance = np.where(clear, scipy.stats.f.isf(TAIL, 1, freedom), allowance)
        allowed = (allowance * scale)[..., None] - (chi2 - least[..., None])
        inside = allowed >= 0
        first, last = inside.argmax(-1), len(INDICES) - 1 - inside[..., ::-1].argmax(-1)
        index, p, z = at(indices, best), at(ends[..., 0], best), at(ends[..., 1], best)
        if step == STEPS - 1:
            break
        curve = (basis(n, n[0], n[-1], index) @ np.stack([p, z], -1)[..., None])[..., 0]
        error = relative * np.where(clear[..., None], np.clip(curve, y / 2, 2 * y), level)
        if step >= 2:
            low, high = at(indices, np.maximum(first - 1, 0)), at(indices, np.minimum(last + 1, len(INDICES) - 1))
            indices = low[..., None] + (high - low)[..., None] * np.linspace(0, 1, len(INDICES))
    low, high = bounds_of_growth(ends, covariance, allowed)
    growth = np.where(inside, low, np.inf).min(-1), np.where(inside, high, 0).max(-1)
    low, high = at(indices, first), at(indices, last)
    low, high = np.where(low == INDICES[0], -np.inf, low), np.where(high == INDICES[-1], np.inf, high)
    return {
        "index": index, "index_interval": np.stack([low, high], -1),
        "growth": np.maximum(z / p, 0), "growth_interval": np.stack(growth, -1), "clear": clear, "scale": scale, "indices": indices, "ends": ends, "covariance": covariance, "allowed": allowed,
    }  # fmt: skip


def fit_power(n: Array, y: Array, relative: Array, freedom: Array) -> tuple[Array, Array]:
    """Exponent b [...] of a n^b and its interval [..., 2]: a line through ln y against ln n, arguments as above."""
    weight = relative**-2

    def centred(x: Array) -> Array:
        return x - np.sum(weight * x, -1, keepdims=True) / np.sum(weight, -1, keepdims=True)

    x, logs = centred(np.log(n)), centred(np.log(y))
    square = np.sum(weight * x**2, -1)
    b = np.sum(weight * x * logs, -1) / square
    chi2 = np.sum(weight * (logs - b[..., None] * x) ** 2, -1)
    scale = enlargement(chi2, len(n) - 2, freedom)
    half = np.sqrt(scipy.stats.f.isf(TAIL, 1, freedom) * scale / square)
    return b, np.stack([b - half, b + half], -1)


@dataclass(frozen=True)
class Growth:
    """The growth of one data set from the smallest to the largest n fitted; NaN where the data don't give a number."""

    n: Array
    index: float = np.nan  # λ of a + b (n^λ - 1)/λ
    index_interval: Interval = (np.nan, np.nan)
    ratio: float = np.nan  # y(n_max)/y(n_min) of that curve
    ratio_interval: Interval = (np.nan, np.nan)
    exponent: float = np.nan  # b of a n^b
    exponent_interval: Interval = (np.nan, np.nan)
    verdict: str = "undecided"
    reason: str = ""
    clear: bool = False  # whether a constant is refuted; if not, any λ will do
    fitted: dict[str, Array] = field(default_factory=dict, repr=False)

    def curve(self, n: ArrayLike) -> Array:
        """The best curve at n [m]; NaN where nothing was fitted."""
        return self._values(n)[0]

    def band(self, n: ArrayLike) -> tuple[Array, Array]:
        """The lowest and the highest value that chi^2 allows at n [m], one n at a time."""
        return self._values(n)[1:]

    def _values(self, n: ArrayLike) -> Array:
        if not self.fitted:
            return np.full((3, len(np.asarray(n))), np.nan)
        lines = basis(n, self.n[0], self.n[-1], self.fitted["indices"])  # [L, m, 2]
        value = (lines @ self.fitted["ends"][..., None])[..., 0]
        best, allowed = np.argmax(self.fitted["allowed"]), self.fitted["allowed"][:, None]
        half = np.sqrt(np.maximum(allowed, 0) * np.sum(lines @ self.fitted["covariance"] * lines, -1))
        low, high = np.where(allowed < 0, np.inf, value - half), np.where(allowed < 0, -np.inf, value + half)
        return np.stack([value[best], low.min(0), high.max(0)])


def fit(n: Array, y: Array, relative: Array, freedom: float, trouble: str = "") -> Growth:
    """The growth of one data set, arguments as of `fit_curves`; trouble: why it is undecided, whatever the curve."""
    if len(n) < 2:
        return Growth(n, reason=trouble)
    fitted = fit_curves(n, y, relative, np.asarray(freedom))
    exponent, of_exponent = fit_power(n, y, relative, np.asarray(freedom))
    intervals = fitted["index_interval"], fitted["growth_interval"], of_exponent
    verdict, clear, highest = str(verdicts(intervals[1], intervals[0])), bool(fitted["clear"]), intervals[1][1]
    reason = {
        "no growth": f"growth between {1 / (1 + MARGIN):g} and {1 + MARGIN:g}",
        "no faster than log n": "falling" if highest < 1 else f"growth at most {1 + MARGIN:g}",
        "faster than log n": "λ above 0",
        "undecided": f"λ may be 0 and may be {MARGIN:g}" if clear else "growth neither shown nor excluded",
    }[verdict]
    if verdict == "no faster than log n" and highest > 1 + MARGIN:
        reason = f"λ below {MARGIN:g}"
    if fitted["scale"] > 1:
        reason += f"; errors enlarged {np.sqrt(fitted['scale']):.1f} times, as no such curve fits"
    if trouble:
        verdict, reason = "undecided", trouble
    pairs = [(float(low), float(high)) if freedom > 0 else (np.nan, np.nan) for low, high in intervals]
    index, ratio = float(fitted["index"]), float(fitted["growth"])
    return Growth(n, index, pairs[0], ratio, pairs[1], float(exponent), pairs[2], verdict, reason, clear, fitted)
