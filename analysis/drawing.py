"""What all figures share: a colour and a marker for everything that is drawn, curves over n, axes, legends and maps.

Error bars and fitted curves come from scaling.py alone.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

import scaling

Array = NDArray[np.float64]

# ----------------------------------------------------------------------------------------------------------------------
# Style: one colour and one marker, one meaning
# ----------------------------------------------------------------------------------------------------------------------


class Style(NamedTuple):
    """How one thing is drawn, and what legends call it."""

    label: str
    color: str
    marker: str


# Okabe and Ito's palette, which colour-blind readers can tell apart; the markers differ as well.
STYLES = {
    "exact": Style("exact NTK", "#000000", "o"),
    "sparsified": Style("sparsified", "#D55E00", "s"),
    "diagonal": Style("diagonal", "#0072B2", "^"),
    "both": Style("k*, of both approximations", "#009E73", "D"),
    "pattern": Style("random pattern alone", "#E69F00", "p"),
    "classical": Style("classical", "#AA4499", "v"),
}
LINES = {"original": "-", "sounder": "--", "k_thresh": ":"}  # by convention; only the original's markers are filled
GREY = "#777777"
BELOW = "a trial below the axis"
JOINING = 0.8  # width of a line that joins means; a fitted curve is wider
SIDESTEP = 0.015  # of the axis between curves, so that those that coincide do not hide each other
RC: dict[Any, Any] = {
    "font.size": 12,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
DPI = 110


# ----------------------------------------------------------------------------------------------------------------------
# Figures, curves, axes and legends
# ----------------------------------------------------------------------------------------------------------------------


def drawn_in_style(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """A drawing function with `RC` in force, which leaves matplotlib's settings as they were."""

    @functools.wraps(function)
    def draw(*arguments: Any) -> Figure:
        with mpl.rc_context(RC):
            return function(*arguments)

    return draw


def panels(rows: int, columns: int, width: float, height: float, title: str = "", **options: Any) -> tuple[Figure, Any]:
    """A figure of rows x columns panels, width and height in inches each. Returns (figure, axes [rows, columns])."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    if title:
        figure.suptitle(title, fontsize=13)
    return figure, axes


class Curve(NamedTuple):
    """What `draw_curve` drew: all heights that the axis has to hold, the fitted growth, if any, and the trials."""

    heights: Array
    growth: Any = None
    label: str = ""
    color: str = ""
    trials: tuple[Array, Array] = (np.empty(0), np.empty(0))


def draw_curve(
    ax: Axes, n: NDArray, values: Sequence[Array], style: Style, label: str | None = None, *, line: str = "original",
    sidestep: float = 0, fitted: bool = False, points: bool = True, geometric: bool = False,
    means: tuple[Array, Array] | None = None, outliers: bool = True,
) -> Curve:  # fmt: skip
    """One quantity over the sizes n: each trial a point, means with 95 % intervals, the fitted curve with its band.

    values: a list of [trials]. Without `fitted`, or with fewer than three sizes, a thin line joins the means.
    geometric: means of positive values with a long tail. means: with their half-widths, both [n], where n is not the
    size, so that the same trials stand at every n, and their spreads can't be pooled over it. outliers: whether the
    axis has to hold trials outside the intervals or, of geometric means, intervals beyond all trials.
    """
    label = label or style.label
    there = [i for i, v in enumerate(values) if len(v) and np.isfinite(v).all()]
    infinite = [n[i] for i, v in enumerate(values) if not np.isfinite(v).all()]
    if infinite:
        what = f"{label}: infinite at n = {', '.join(map(str, infinite))}"
        ax.text(0.02, 0.02, what, transform=ax.transAxes, fontsize=8, color=style.color)
    if not there:
        return Curve(np.empty(0))
    n, values = np.asarray(n)[there], [values[i] for i in there]
    mean, half = scaling.size_means(n, values, geometric)[::2] if means is None else (each[there] for each in means)
    growth = scaling.fit_growth(n, values, geometric) if fitted and len(n) > 2 else None
    x, ls, half = n * (2 * n[-1] / n[0]) ** (SIDESTEP * sidestep), LINES[line], np.nan_to_num(half)
    low, high = mean - half, mean + half
    if geometric:  # symmetric in the logarithm; not beyond ten times what was found
        factor, everything = np.exp(np.minimum(half / mean, 50)), np.concatenate(values)
        low, high = np.maximum(mean / factor, everything.min() / 10), np.minimum(mean * factor, 10 * everything.max())
    if growth:
        fine = np.geomspace(n[0], n[-1], 100)
        ax.plot(fine, growth.curve(fine), color=style.color, ls=ls, lw=1.8, zorder=1.6)
        ax.fill_between(fine, *growth.band(fine), color=style.color, alpha=0.15, lw=0, zorder=1.2)
    else:
        ax.plot(x, mean, color=style.color, ls=ls, lw=JOINING, alpha=0.7, zorder=1.6)
    trials = np.repeat(x, [len(v) for v in values]), np.concatenate(values)
    if points:
        ax.scatter(*trials, s=9, color=style.color, alpha=0.4, lw=0, zorder=1.8)
    face = style.color if line == "original" else "white"
    bars = mean - low, high - mean
    ax.errorbar(x, mean, bars, color=style.color, marker=style.marker, mfc=face, ms=5.5, ls="none", capsize=3, lw=1.4)
    # For the legend the marker on its line.
    ax.plot([], [], color=style.color, marker=style.marker, mfc=face, ms=5.5, ls=ls, lw=1.4, label=label)
    heights = [low, high] if outliers or not geometric else [mean]
    heights += values if points and (outliers or geometric) else []
    return Curve(np.concatenate(heights), growth, label, style.color, trials)


def mark_below(ax: Axes, curves: Iterable[Curve]) -> None:
    """Trials below the axis as small triangles on it, where a few outliers do not set its limits."""
    bottom = ax.get_ylim()[0]
    options: dict[str, Any] = dict(marker="v", s=14, alpha=0.5, lw=0)
    for curve in curves:
        x, values = curve.trials
        beyond = x[values < bottom]
        if len(beyond):
            ax.scatter(beyond, np.full(len(beyond), bottom), color=curve.color, clip_on=False, **options)
            ax.scatter([], [], color=GREY, label=BELOW, **options)


def size_axis(ax: Axes, n: Iterable[int]) -> None:
    """A logarithmic axis of the sizes."""
    ticks = sorted(set(n))
    ax.set_xscale("log", base=2)
    ax.set_xlim(ticks[0] / 1.4, ticks[-1] * 1.4)
    least, named = 6 if len(ticks) > 7 else 1, {ticks[0], ticks[-1]}  # others only where there is room
    for tick in reversed(ticks):
        if all(max(tick, other) >= least * min(tick, other) for other in named):
            named.add(tick)
    ax.set_xticks(ticks, labels=[str(tick) if tick in named else "" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("training images n")


def value_axis(ax: Axes, heights: Array, kind: str = "counts", log: bool | None = None) -> None:
    """The vertical axis, which ends where the data do: a little beyond `heights`.

    kind: "counts" begin at 0, "ratios" at 1, "shares" end at 1, "fractions" go from 0 to 1. Unless `log` says, counts
    and ratios have a logarithmic axis where they spread over more than a factor of 20.
    """
    heights = heights[np.isfinite(heights)]
    if not heights.size:
        return
    low, high = heights.min(), heights.max()
    positive = heights[heights > 0]
    if log is None:
        log = kind not in ("shares", "fractions") and positive.size > 0 and bool(high > 20 * positive.min())
    if log and positive.size:
        # An interval that reaches to 0 or below is cut.
        ax.set_yscale("log")
        low, high = np.log10([max(positive.min(), 0.9 if kind == "ratios" and high > 2 else 0), high])
        margin = max(0.06 * (high - low), 0.03)
        ax.set_ylim(10 ** (low - margin), 10 ** (high + margin))
        if high - low < 4:
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high - low > 0.8 else range(1, 10)))
            ax.yaxis.set_major_formatter(plain_numbers())
        ax.yaxis.set_minor_locator(NullLocator())
        return
    if kind == "fractions":
        low, high = -0.04, 1.04
    elif kind == "shares":
        low, high = max(low, 0), min(high, 1)
        margin = max(0.05 * (high - low), 0.005)
        low, high = min(low - margin, high - 0.05), high + margin
    elif kind == "ratios":
        span = max(1.08 * (high - 1), 0.05)
        low, high = 1 - 0.05 * span, 1 + span
    else:
        low, high = 0, 1.08 * high or 1
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter(plain_numbers())


def plain_numbers() -> FuncFormatter:
    """Ticks such as 0.95 and 2,000."""
    return FuncFormatter(lambda value, _: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}")


def add_legend(
    figure: Figure, columns: int = 3, fitted: bool = False, points: bool = True,
    mean: str = "mean of the trials, 95 % interval",
) -> None:  # fmt: skip
    """One legend below all panels, every curve named once, and what points, bars and bands are."""
    entries: dict[str, Any] = {}
    for ax in figure.axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in entries}
    if not entries:
        return
    if points:
        below = {BELOW: entries.pop(BELOW)} if BELOW in entries else {}
        entries |= {"a trial": Line2D([], [], color=GREY, marker=".", ms=5, ls="none", alpha=0.6)} | below
    entries[mean] = Line2D([], [], color=GREY, marker="|", ms=14, ls="none", mew=1.4)
    if fitted:
        band = Line2D([], [], color=GREY, lw=1.8), Patch(color=GREY, alpha=0.25)
        entries["fitted a + b (n$^λ$ − 1)/λ, 95 % band"] = band
        if any(line.get_linewidth() == JOINING for ax in figure.axes for line in ax.lines):
            entries["thin: joins the means, no fit"] = Line2D([], [], color=GREY, lw=JOINING)
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns, fontsize=11)


def note_verdicts(ax: Axes, curves: Iterable[Curve], size: float = 9, of: str = "") -> None:
    """What scaling.py says of each fitted curve, in its colour, above the panel; of a single one without its name.

    of: what the verdicts are about, where the panel shows something else.
    """
    fitted = [curve for curve in curves if curve.growth]
    for i, curve in enumerate(reversed(fitted)):
        named = [curve.label] * (len(fitted) > 1) + [of] * bool(of)
        said, place = f"{', '.join(named)}: " * bool(named) + curve.growth.verdict, (2, 3 + 1.25 * size * i)
        ax.annotate(said, (0, 1), place, "axes fraction", "offset points", color=curve.color, fontsize=size)


# ----------------------------------------------------------------------------------------------------------------------
# Maps: tables of numbers as colours
# ----------------------------------------------------------------------------------------------------------------------


LEAST_DIFFERENCE = 0.02  # the least end of the colours of differences: five of 256 test images


def draw_map(
    ax: Axes, table: Array, log: bool, digits: int = 2, scale: Array | None = None,
    chance: NDArray[np.bool_] | None = None, small_is_good: bool = False, difference: bool = False,
) -> None:  # fmt: skip
    """A table of numbers as colours, with the numbers on them; NaN stays empty.

    Yellow is good, dark blue bad; of a difference white is 0, blue good and red bad. scale: what the colours span.
    chance: cells that may be 0, which are white and have grey numbers.
    """
    chance = np.zeros(table.shape, bool) if chance is None else chance
    known = table if scale is None else scale
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if difference:
        most = max(-low, high, LEAST_DIFFERENCE)  # on both sides; small differences are seen beside large ones
        norm: Normalize = SymLogNorm(most / 100, vmin=-most, vmax=most)
    elif log and low > 0:
        norm = LogNorm(low, max(high, 1.01 * low))
    else:
        norm = Normalize(low, max(high, low + 1e-3))
    colors = mpl.colormaps[("RdBu" if difference else "cividis") + "_r" * small_is_good]
    ax.imshow(np.ma.masked_where(np.isnan(table) | chance, table), cmap=colors, norm=norm, aspect="auto")
    ax.grid(False)
    for (i, j), value in np.ndenumerate(table):
        if not np.isnan(value):
            red, green, blue, _ = colors(norm(min(value, 1e300)))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            color = GREY if chance[i, j] else "white" if dark else "black"
            ax.text(j, i, short_number(value, digits), ha="center", va="center", fontsize=7.5, color=color)


def short_number(value: float, digits: int = 2) -> str:
    """At most six characters: .957, 1.2, 33, 1.5k, 2e6; up to `digits` behind the point of numbers below 1."""
    magnitude = abs(value)
    if np.isinf(value) or magnitude == 0 or magnitude == 1:
        return "∞" if np.isinf(value) else f"{value:.0f}"
    if magnitude < 10**-digits / 2 or magnitude >= 99_500:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
    if magnitude < 1:
        return f"{value:.{digits}f}".replace("0.", ".", 1)
    return f"{value:.1f}" if magnitude < 9.95 else f"{value:.0f}" if magnitude < 999.5 else f"{value / 1000:.2g}k"


def mark(ax: Axes, x: float | np.integer, y: float | np.integer, solid: bool = True) -> None:
    """A frame around a cell of a map: what the paper has. White under it, so that it is seen on every colour."""
    for color, width, ls in (("white", 4, "-"), ("#CC0000", 2.5, "-" if solid else (0, (1.5, 1)))):
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, ec=color, lw=width, ls=ls, zorder=5))
