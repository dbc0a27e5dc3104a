"""What all figures share: the style, curves that are named at their ends, axes and numbers."""

import contextlib
import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Array = NDArray[np.float64]
STYLE_FILE = Path(__file__).with_name("style.mplstyle")
LINE_HEIGHT = (
    0.24  # inches that a line of a curve's name needs before titles make panels smaller
)
SAME = 0.012  # of an axis: curves that stay closer get one name


class Style(NamedTuple):
    """How one thing is drawn in all figures: one colour and one marker, one meaning."""

    color: str
    marker: str
    line: str = "-"


# Okabe and Ito's palette, which colour-blind readers can tell apart; the markers differ as well.
STYLES = {
    "exact": Style("#000000", "o"),
    "sparsified": Style("#D55E00", "s"),
    "diagonal": Style("#0072B2", "^"),
    "rival": Style("#AA4499", "v"),  # classical, or without any network
    "fully-connected": Style("#009E73", "D"),
    "convolutional": Style("#B8860B", "p"),
}
GREY = "#777777"


@contextlib.contextmanager
def in_style() -> Iterator[None]:
    """The style file on matplotlib's own defaults; the user's settings are in force afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rc_file(STYLE_FILE, use_default_template=False)
        yield


def panels(
    rows: int, columns: int, width: float, height: float
) -> tuple[Figure, NDArray]:
    """A figure of panels, width and height of each in inches, and its axes [rows, columns]."""
    figure = Figure(figsize=(width * columns, height * rows))
    return figure, figure.subplots(rows, columns, squeeze=False)


def say(ax: Axes, text: str, letters: int = 46) -> None:
    """A panel's title, in lines of so many letters; equations are not broken."""
    for sign in "=≤":
        text = text.replace(f" {sign} ", f"\N{NO-BREAK SPACE}{sign}\N{NO-BREAK SPACE}")
    ax.set_title("\n".join(textwrap.fill(line, letters) for line in text.splitlines()))


def leave_empty(ax: Axes, reason: str) -> None:
    """A panel without a picture, and why."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    note(ax, 0.5, 0.5, textwrap.fill(reason, 30), ha="center", va="center")


def note(
    ax: Axes, x: float, y: float, text: str, color: str = GREY, **how: Any
) -> None:
    """A small text in a panel; x and y are shares of it unless `transform` says otherwise."""
    ax.text(x, y, text, color=color, fontsize=9, **{"transform": ax.transAxes, **how})


def picture_of(figure: Figure) -> bytes:
    """A figure as PNG of 256 colours, which are enough, and a third of the size."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    return small.getvalue()


@dataclass(frozen=True)
class Curve:
    """Means at x with the half-widths of their 95 % intervals, NaN where unknown, each [x]."""

    label: str
    style: Style
    x: Array
    mean: Array
    half: Array

    def at(self, there: NDArray[np.bool_]) -> "Curve":
        """The curve at some of its x."""
        x, mean, half = self.x[there], self.mean[there], self.half[there]
        return replace(self, x=x, mean=mean, half=half)


def draw_curves(ax: Axes, curves: Iterable[Curve], scale: str = "linear") -> None:
    """Curves with their intervals and names, and the vertical axis that holds them.

    scale: "linear", "shares", which end at 1, or "log". Infinite means are named instead.
    """
    finite = []
    for curve in curves:
        there = np.isfinite(curve.mean)
        infinite = ", ".join(number(x) for x in curve.x[np.isinf(curve.mean)])
        if infinite:
            text = f"{curve.label}: infinite at {infinite}"
            note(ax, 0.02, 0.02, text, curve.style.color)
        if there.any():
            finite.append(curve.at(there))
    if not finite:
        leave_empty(ax, "no trial yet")
        return
    value_axis(ax, finite, scale)
    distinct = without_doubles(ax, finite)
    for curve in distinct:
        draw_curve(ax, curve)
    name_curves(ax, distinct)


def draw_curve(ax: Axes, curve: Curve) -> None:
    """Means and intervals; on a logarithmic axis an interval that reaches 0 is cut."""
    below = above = np.nan_to_num(curve.half)
    if ax.get_yscale() == "log":
        below = np.minimum(below, 0.999 * np.abs(curve.mean))
    color, marker, line = curve.style
    bars = ax.errorbar(curve.x, curve.mean, [below, above], color=color, elinewidth=1)
    bars.lines[0].set(marker=marker, linestyle=line)


def value_axis(ax: Axes, curves: Sequence[Curve], scale: str) -> None:
    """The vertical axis: a little beyond all means and intervals."""
    mean = np.concatenate([curve.mean for curve in curves])
    half = np.nan_to_num(np.concatenate([curve.half for curve in curves]))
    low, high = (mean - half).min(), (mean + half).max()
    if scale == "log" and mean.max() > 0:
        low = max(low, mean[mean > 0].min() / 2)
        margin = max((high / low) ** 0.06, 1.1)
        ax.set_yscale("log")
        ax.set_ylim(low / margin, high * margin)
        if high < 300 * low:
            ticks = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 5, 7)
            ax.yaxis.set_major_locator(LogLocator(subs=ticks))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        ax.yaxis.set_minor_locator(NullLocator())
        return
    if scale == "shares":
        low, high = max(low, 0), min(high, 1)
        if low < 0.55 and high > 0.55:
            ax.axhline(0.5, color=GREY, linestyle=":", linewidth=1)
            note(ax, 0.01, 0.49, "chance", va="top", transform=ax.get_yaxis_transform())
    margin = max(0.06 * (high - low), 0.004)
    ax.set_ylim(low - margin, high + margin)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def heights_of(ax: Axes, values: Array) -> Array:
    """Where values are on the vertical axis: 0 at its lower end, 1 at its upper one."""
    points = np.column_stack([np.ones(len(values)), values])
    return ax.transAxes.inverted().transform(ax.transData.transform(points))[:, 1]


def without_doubles(ax: Axes, curves: Sequence[Curve]) -> list[Curve]:
    """The curves, of those that can't be told apart only the first one, which gets all names."""
    distinct: list[Curve] = []
    for curve in curves:
        for place, other in enumerate(distinct):
            if np.array_equal(curve.x, other.x):
                distance = heights_of(ax, curve.mean) - heights_of(ax, other.mean)
                if np.abs(distance).max() < SAME:
                    distinct[place] = replace(
                        other, label=f"{other.label} =\n{curve.label}"
                    )
                    break
        else:
            distinct.append(curve)
    return distinct


def name_curves(ax: Axes, curves: Sequence[Curve]) -> None:
    """The curves' names right of the panel, at the height of their ends, moved apart."""
    curves = sorted(curves, key=lambda curve: curve.mean[-1])
    ends = heights_of(ax, np.array([curve.mean[-1] for curve in curves]))
    lines = np.array([1 + curve.label.count("\n") for curve in curves])
    inches = ax.get_window_extent().height / ax.figure.dpi
    middles = spread_out(ends, lines * LINE_HEIGHT / inches)
    for curve, middle in zip(curves, middles, strict=True):
        ax.annotate(
            curve.label,
            (1, middle),
            xytext=(5, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=curve.style.color,
            va="center",
        )


def spread_out(middles: Array, heights: Array) -> Array:
    """The middles of names, rising, of so much height each, moved apart, below the panel's top."""
    apart = (heights[1:] + heights[:-1]) / 2
    up, down = np.array(middles), np.array(middles)
    for i in range(1, len(middles)):
        up[i] = max(up[i], up[i - 1] + apart[i - 1])
    for i in reversed(range(len(apart))):
        down[i] = min(down[i], down[i + 1] - apart[i])
    placed = (up + down) / 2
    placed[-1] = min(placed[-1], 1.02 - heights[-1] / 2)
    for i in reversed(range(len(apart))):
        placed[i] = min(placed[i], placed[i + 1] - apart[i])
    return placed


def size_axis(ax: Axes, sizes: ArrayLike, label: str = "training images n") -> None:
    """A logarithmic horizontal axis of these sizes, named where there is room."""
    ticks = np.unique(np.asarray(sizes, float))
    ax.set_xscale("log")
    ax.set_xlim(ticks[0] / 1.3, ticks[-1] * 1.3)
    inches = ax.get_window_extent().width / ax.figure.dpi
    apart = (ticks[-1] / ticks[0]) ** min(0.6 / inches, 0.9)
    named = [ticks[-1], ticks[0]]
    for tick in ticks[::-1]:
        if all(max(tick / other, other / tick) >= apart for other in named):
            named.append(tick)
    ax.set_xticks(
        ticks, labels=[number(tick) if tick in named else "" for tick in ticks]
    )
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(label)


def number(value: float, digits: int = 2) -> str:
    """A number to be read: 0.95, 35, 11,702, 1.2·10⁶; `digits` significant ones below 100."""
    if not np.isfinite(value):
        return "∞" if value > 0 else "unknown"
    if value == 0 or 1e-3 <= abs(value) < 99_999.5:
        rounded = float(f"{value:.{digits}g}")
        return f"{value:,.0f}" if abs(value) >= 99.5 else f"{rounded:g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{power}" if float(mantissa) == 1 else f"{float(mantissa):g}·10{power}"
