"""One curve that contains constant, logarithm and power, its intervals, and the verdict on "no faster than log n".

    y(n) = a + b (n^λ - 1)/λ

Its slope against ln n goes like n^λ: λ < 0 saturates, λ = 0 is the logarithm, λ > 0 a power of n, b = 0 a constant.
At fixed λ it is linear, y = p (1 - u) + z u with u(n) from 0 at the first size to 1 at the last, and p, z its values
there. So chi^2 over a grid of λ gives all intervals (95 %). Functions take many data sets at once: y, relative (the
relative standard errors) and freedom (their degrees of freedom) are [..., sizes], n is [sizes], rising. That is why
λ is found on a grid here and by no library's optimiser: those take one data set at a time, and 4000 have to be judged.
tests/simulate_growth.py measures how often the intervals cover and how often the verdict is wrong.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]
TAIL = 0.05  # an interval misses in this share of cases
MARGIN = 0.25  # λ below it is no faster than log n; a growth between 1/(1 + MARGIN) and 1 + MARGIN is none
MISFIT = 0.01  # where so large a chi^2 is less probable than this, all errors are enlarged until the curve fits
INDICES = np.linspace(-4, 8, 97)  # the λ looked at; beyond, the curve is a step at the first or at the last size
STEPS = 7  # three to find the errors, four that refine the grid
NO_GROWTH = f"no growth beyond {100 * MARGIN:g} %"
VERDICTS = (NO_GROWTH, "no faster than log n", "faster than log n", "undecided")


def half_widths(relative: Array, freedom: Array) -> Array:
    """Half-widths of intervals of means, over the means.

    The errors are relative to the true mean; this symmetric interval misses it as often, to second order.
    """
    half = scipy.stats.t.isf(TAIL / 2, freedom) * relative
    return half * (1 + half**2)


def verdicts(ratio: Array, index: Array) -> NDArray[np.str_]:
    """The verdict on intervals [..., 2] of the growth y(n_max)/y(n_min) and of λ: the first that holds.

    "No growth beyond 25 %": the growth is within the margin of 1; "no faster": it is not above the margin, or λ is
    below its own; "faster": the growth is above the margin and λ above 0.
    """
    low, high = ratio[..., 0], ratio[..., 1]
    slow, fast = index[..., 1] < MARGIN, (index[..., 0] > 0) & (low > 1 + MARGIN)
    flat = high <= 1 + MARGIN
    return np.select([flat & (low >= 1 / (1 + MARGIN)), flat | slow, fast], VERDICTS[:3], VERDICTS[3])


def basis(n: ArrayLike, first: float, last: float, index: Array) -> Array:
    """1 - u and u at n [m] for λ [...]: [..., m, 2]."""
    index = np.where(np.abs(index) < 1e-9, 1e-9, index)[..., None]
    u = np.expm1(index * np.log(np.asarray(n) / first)) / np.expm1(index * np.log(last / first))
    return np.stack([1 - u, u], -1)


def curves(n: Array, y: Array, error: Array, index: Array) -> tuple[Array, Array, Array]:
    """The best curve at every λ [..., L]: its p and z [..., L, 2], their covariance [..., L, 2, 2], chi^2 [..., L]."""
    a = basis(n, n[0], n[-1], index) / error[..., None, :, None]
    scaled = (y / error)[..., None, :, None]
    covariance = np.asarray(np.linalg.inv(a.mT @ a), np.float64)
    ends = covariance @ (a.mT @ scaled)
    return ends[..., 0], covariance, np.sum((scaled - a @ ends) ** 2, (-2, -1))


def ratio_bounds(ends: Array, covariance: Array, allowed: Array) -> tuple[Array, Array]:
    """Fieller's bounds of z/p where chi^2 may rise by `allowed` [..., L]: 0 and infinite where p may be 0."""
    a, b, c = (np.prod(ends[..., [i, j]], -1) - allowed * covariance[..., i, j] for i, j in ((0, 0), (0, 1), (1, 1)))
    root, bounded, a = np.sqrt(np.maximum(b**2 - a * c, 0)), a > 0, np.where(a > 0, a, 1)
    return np.where(bounded, np.maximum(b - root, 0) / a, 0), np.where(bounded, (b + root) / a, np.inf)


def enlargement(least: Array, spare: int, freedom: Array) -> Array:
    """What chi^2 is divided by: 1, or its value over its degrees of freedom `spare` where no such curve fits."""
    if spare < 1:
        return np.ones_like(least)
    return np.where(scipy.stats.f.sf(least / spare, spare, freedom) < MISFIT, least / spare, 1)


def fit_power(n: Array, y: Array, relative: Array, freedom: Array) -> tuple[Array, Array, Array, Array]:
    """From a line through ln y: b [...] of a n^b, its interval [..., 2], `enlargement`, Satterthwaite's freedom."""
    weight = relative**-2
    total = np.sum(weight, -1, keepdims=True)
    x, logs = (np.log(v) - np.sum(weight * np.log(v), -1, keepdims=True) / total for v in (n, y))
    share = weight * x**2
    square = np.sum(share, -1)
    together = np.minimum(square**2 / np.sum(share**2 / freedom, -1), freedom.max(-1))
    b = np.sum(weight * x * logs, -1) / square
    scale = enlargement(np.sum(weight * (logs - b[..., None] * x) ** 2, -1), len(n) - 2, together)
    half = np.sqrt(scipy.stats.f.isf(TAIL, 1, together) * scale / square)
    return b, np.stack([b - half, b + half], -1), scale, together


def fit_curves(n: Array, y: Array, relative: Array, freedom: Array) -> dict[str, Array]:
    """λ ("index"), y(n_max)/y(n_min) of the curve ("ratio"), b of a n^b ("exponent") [...], "..._interval" [..., 2].

    y is positive. Errors are relative to the curve, not to the noisy means: it is refined in steps, and so is the grid
    of λ. Intervals hold what chi^2 allows, F(1, freedom) above its least. But where a constant is within
    2 F(2, freedom) of that, λ means nothing, and the best of all λ makes growth out of chance: there that much is
    allowed, and errors are relative to the constant. Also returned: "clear", whether the best constant, "level", is
    refuted; "scale" and "power_scale", what chi^2 was divided by, of this curve and of a n^b; for bands, "grid" and
    "allowed" [..., L], "ends" [..., L, 2] and "covariance" [..., L, 2, 2].
    """
    exponent, exponent_interval, power_scale, freedom = fit_power(n, y, relative, freedom)
    level = np.sum(y / relative**2, -1, keepdims=True) / np.sum(relative**-2, -1, keepdims=True)
    grid, error = np.broadcast_to(INDICES, (*y.shape[:-1], len(INDICES))), relative * level
    allowance, end = 2 * scipy.stats.f.isf(TAIL, 2, freedom), len(INDICES) - 1
    for step in range(STEPS):
        ends, covariance, chi2 = curves(n, y, error, grid)
        least, best = chi2.min(-1), chi2.argmin(-1)
        scale = enlargement(least, len(n) - 3, freedom)
        if step == 0:
            clear = np.sum(((y - level) / error) ** 2, -1) - least > allowance * scale
            allowance = np.where(clear, scipy.stats.f.isf(TAIL, 1, freedom), allowance)
        allowed = (allowance * scale)[..., None] - (chi2 - least[..., None])
        first, last = np.argmax(allowed >= 0, -1), end - np.argmax(allowed[..., ::-1] >= 0, -1)

        def at(i: NDArray[np.intp], grid: Array = grid) -> Array:
            return np.take_along_axis(grid, np.clip(i, 0, end)[..., None], -1)[..., 0]

        index, p_z = at(best), np.take_along_axis(ends, best[..., None, None], -2)[..., 0, :]
        if step < STEPS - 1:
            curve = (basis(n, n[0], n[-1], index) @ p_z[..., None])[..., 0]
            error = relative * np.where(clear[..., None], np.clip(curve, y / 2, 2 * y), level)
            if step >= 2:
                grid = np.linspace(at(first - 1), at(last + 1), end + 1, axis=-1)
    low, high = ratio_bounds(ends, covariance, allowed)
    low, high = np.where(allowed >= 0, low, np.inf).min(-1), np.where(allowed >= 0, high, 0).max(-1)
    lowest, highest = at(first), at(last)
    lowest, highest = np.where(lowest <= INDICES[0], -np.inf, lowest), np.where(highest >= INDICES[-1], np.inf, highest)
    return {
        "index": index, "index_interval": np.stack([lowest, highest], -1),
        "ratio": np.maximum(p_z[..., 1] / p_z[..., 0], 0), "ratio_interval": np.stack([low, high], -1),
        "exponent": exponent, "exponent_interval": exponent_interval, "clear": clear, "scale": scale,
        "power_scale": power_scale, "level": level[..., 0], "grid": grid, "allowed": allowed, "ends": ends,
        "covariance": covariance,
    }  # fmt: skip


def with_interval(value: float, interval: Interval) -> str:
    """1.10 (1.08 to 1.11), with as many digits as the interval justifies; a dash for an unknown value."""
    if np.isnan(value):
        return "–"
    if np.isinf(interval).all():
        return "any"
    distances = [abs(bound - value) for bound in interval if np.isfinite(bound)]
    if max(distances, default=0) <= 1e-6 * max(abs(value), 1e-3):
        return f"{value:.4g}"
    digits = int(np.clip(np.ceil(-np.log10(min(filter(None, distances)) / 2)), 0, 9))
    digits += any(bound and round(bound, digits) == 0 for bound in interval if np.isfinite(bound))  # 0.02, not 0.0
    text = [f"{x:z.{digits}f}" if abs(x) < 1e5 else f"{x:.3g}".replace("inf", "∞") for x in (value, *interval)]
    return f"{text[0]} (below {text[2]})" if interval[0] == -np.inf else f"{text[0]} ({text[1]} to {text[2]})"


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

    @property
    def power_fits(self) -> bool:
        """Whether a n^b is not refuted."""
        return bool(self.fitted) and float(self.fitted["power_scale"]) == 1

    def text(self, name: str) -> str:
        """One of "index", "ratio" and "exponent" with its interval; a dash for λ or b that mean nothing.

        λ where a constant is not refuted, b where a n^b is.
        """
        if (name == "index" and not self.clear) or (name == "exponent" and not self.power_fits):
            return "–"
        return with_interval(getattr(self, name), getattr(self, name + "_interval"))

    def curve(self, n: ArrayLike) -> Array:
        """The best curve at n [m]; NaN where nothing was fitted."""
        return self._values(n)[0]

    def best(self, n: ArrayLike) -> Array:
        """The constant at n [m], or the best curve where that is refuted; NaN where nothing was fitted."""
        constant = bool(self.fitted) and not self.clear
        return np.full(len(np.asarray(n)), float(self.fitted["level"])) if constant else self.curve(n)

    def band(self, n: ArrayLike) -> tuple[Array, Array]:
        """The lowest and the highest value that chi^2 allows at n [m], one n at a time; NaN where nothing is known."""
        _, low, high = self._values(n)
        return low, high

    def _values(self, n: ArrayLike) -> Array:
        if not self.fitted:
            return np.full((3, len(np.asarray(n))), np.nan)
        lines = basis(n, self.n[0], self.n[-1], self.fitted["grid"])  # [L, m, 2]
        value, allowed = (lines @ self.fitted["ends"][..., None])[..., 0], self.fitted["allowed"][:, None]
        best = np.argmin(np.abs(self.fitted["grid"] - self.index))
        if np.isnan(allowed).any():
            return np.stack([value[best], *np.full((2, value.shape[1]), np.nan)])
        half = np.sqrt(np.maximum(allowed, 0) * np.sum(lines @ self.fitted["covariance"] * lines, -1))
        inside = allowed[:, 0] >= 0
        return np.stack([value[best], (value - half)[inside].min(0), (value + half)[inside].max(0)])


def why(verdict: str, found: dict[str, Array]) -> str:
    """What a verdict on the result of `fit_curves` rests on."""
    high, index = found["ratio_interval"][1], found["index_interval"]
    if verdict == NO_GROWTH:
        return f"within {1 / (1 + MARGIN):g} to {1 + MARGIN:g}"
    if verdict == "no faster than log n":
        return "falling" if high < 1 else "hardly rising, or falling" if high <= 1 + MARGIN else f"λ below {MARGIN:g}"
    if verdict == "faster than log n":
        return "λ above 0"
    if not found["clear"]:
        return "growth neither shown nor excluded"
    return f"λ may be 0 and {MARGIN:g}" if index[0] <= 0 else f"λ above 0, but growth may be below {1 + MARGIN:g}"


def fit(n: Array, y: Array, relative: Array, freedom: Array, trouble: str = "") -> Growth:
    """The growth of one data set y [sizes]; trouble: why it is undecided, whatever the curve."""
    if len(n) < 2:
        return Growth(n, reason=trouble)
    found = fit_curves(n, y, relative, freedom)
    verdict = str(verdicts(found["ratio_interval"], found["index_interval"]))
    reason = why(verdict, found)
    if found["scale"] > 1:
        if verdict == "no faster than log n":  # enlarged errors must not speak for the claim
            verdict, reason = "undecided", f"{reason} only with enlarged errors"
        reason += f"; no such curve fits, errors enlarged {np.sqrt(found['scale']):.1f} times"
    if trouble:
        verdict, reason = "undecided", trouble
    index, ratio, exponent = (float(found[name]) for name in ("index", "ratio", "exponent"))
    known = not np.isnan(freedom).any()
    bounds = (found[f"{name}_interval"] if known else (np.nan, np.nan) for name in ("index", "ratio", "exponent"))
    of_index, of_ratio, of_exponent = ((float(low), float(high)) for low, high in bounds)
    clear = bool(found["clear"])
    return Growth(n, index, of_index, ratio, of_ratio, exponent, of_exponent, verdict, reason, clear, found)
