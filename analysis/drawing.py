"""What all figures share: the style, curves that are named at their ends, axes and numbers."""

import io
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from analysis.growth import FAST, FLAT, SLOW, UNDECIDED, Means

STYLE_FILE = Path(__file__).with_name("style.mplstyle")
Style = dict[str, Any]
# Okabe and Ito's colours, which colour-blind readers can tell apart; the markers differ as well
STYLES: dict[str, Style] = {
    "exact": dict(color="#000000", marker="o"),
    "sparsified": dict(color="#D55E00", marker="s"),
    "diagonal": dict(color="#0072B2", marker="^"),
    "rival": dict(color="#AA4499", marker="v"),  # classical, or without any network
    "fully-connected": dict(color="#009E73", marker="D"),
    "convolutional": dict(color="#B8860B", marker="p"),
}
GREY = "#777777"
COLORS = {FLAT: "#009E73", SLOW: "#0072B2", FAST: "#D55E00", UNDECIDED: GREY}


def picture_of(figure: Callable[..., Figure], *about: Any) -> bytes:
    """A figure as PNG of 256 colours, a third of the size, whatever the user's own settings are."""
    drawn = io.BytesIO()
    small = io.BytesIO()
    with style.context(["default", STYLE_FILE]):
        figure(*about).savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    picture = picture.quantize(256, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    return small.getvalue()


def say(ax: Axes, text: str, letters: int = 46) -> None:
    """A panel's title, in lines of so many letters."""
    lines = [textwrap.fill(line, letters) for line in text.splitlines()]
    ax.set_title("\n".join(lines))


def picture_only(ax: Axes) -> None:
    """A panel without axes."""
    ax.set(xticks=[], yticks=[])
    ax.grid(False)


@dataclass
class Curve:
    """Means with their intervals where they are known and finite; infinite ones are named."""

    label: str
    style: Style
    means: Means

    def __post_init__(self) -> None:
        x, mean, *_ = self.means
        infinite = x[np.isinf(mean)]
        if infinite.size:
            self.label += f",\n∞ at {infinite[0]}"
        self.means = Means(*(values[np.isfinite(mean)] for values in self.means))


def draw_curves(
    ax: Axes, curves: Iterable[Curve], label: str = "training images n", linear: bool = False
) -> None:
    """Curves with their intervals and names; logarithmic where they span more than a decade."""
    distinct: list[Curve] = []
    for curve in curves:
        x, mean = curve.means[:2]
        for other in distinct:
            same_x = np.array_equal(x, other.means.x)
            if same_x and np.allclose(mean, other.means.mean, rtol=1e-3, atol=0):
                other.label += f" = {curve.label}"
                break
        else:
            if x.size:
                distinct.append(curve)
    for curve in distinct:
        x, mean, *bounds = curve.means
        ax.errorbar(x, mean, np.nan_to_num(abs(bounds - mean)), **curve.style, elinewidth=1)
    means = np.concatenate([[], *(curve.means.mean for curve in distinct)])
    low = means.min(initial=np.inf)
    high = means.max(initial=0)
    if 0 < low < high / 10 and not linear:
        ax.set_yscale("log")
        ax.set_ylim(bottom=low / 3)
    x = np.concatenate([[10], *(curve.means.x for curve in distinct)])
    ax.set_xscale("log", base=2 if x.min() > 1 else 10)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.set_xlabel(label)
    name_curves(ax, distinct)


def name_curves(ax: Axes, curves: list[Curve]) -> None:
    """The curves' names right of the panel, at the height of their ends, moved apart."""
    inches = ax.get_window_extent().height / ax.figure.dpi
    to_axes = ax.transData + ax.transAxes.inverted()
    free = 1.1
    for curve in sorted(curves, key=lambda curve: -curve.means.mean[-1]):
        label = curve.label if "=" not in curve.label else textwrap.fill(curve.label, 13)
        tall = 0.24 * (1 + label.count("\n")) / inches
        end = curve.means.x[-1], curve.means.mean[-1]
        _, height = to_axes.transform(end)
        middle = min(height, free - tall / 2)
        color = curve.style["color"]
        ax.text(1.03, middle, label, color=color, va="center", transform=ax.transAxes)
        free = middle - tall / 2
