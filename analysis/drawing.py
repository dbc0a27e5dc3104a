"""What all figures share: the style, curves that are named at their ends, axes and numbers."""

import io
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from analysis.growth import FAST, FLAT, SLOW, UNDECIDED, Means

STYLE_FILE = Path(__file__).with_name("style.mplstyle")
GREY = "#777777"
COLORS = {FLAT: "#009E73", SLOW: "#0072B2", FAST: "#D55E00", UNDECIDED: GREY}
# Okabe and Ito's colours, which colour-blind readers can tell apart; the markers differ as well
BLACK = {"color": "#000000", "marker": "o"}
RED = {"color": "#D55E00", "marker": "s"}
BLUE = {"color": "#0072B2", "marker": "^"}
PURPLE = {"color": "#AA4499", "marker": "v"}
GREEN = {"color": "#009E73", "marker": "D"}
BROWN = {"color": "#B8860B", "marker": "p"}
DASHED = {"linestyle": "--"}
STYLES: dict[str, dict[str, Any]] = {  # of curves, by the words of their names
    "exact": BLACK,
    "sparsified": RED,
    "diagonal": BLUE,
    "nearest neighbour": PURPLE,
    "Fully connected": GREEN,
    "Convolutional": BROWN,
    "corrected": DASHED,
    "at zero": DASHED,
    "scale from the training set": RED,
    "scale from the test set": BLUE,
    "fixed constant": PURPLE,
    "all entries": BLACK,
    "sampler": PURPLE,
    "0.01 L_conv": PURPLE,
    "0.02 L_conv": BLACK,
    "0.05 L_conv": RED,
    "0.065 L_conv": BLUE,
    "0.1 L_conv": GREEN,
    "1/n": {"color": GREY, "linestyle": "--", "marker": ""},
}


def write_picture(path: Path, figure: Callable[..., Figure], about: Any) -> None:
    """A figure as PNG of 256 colours, a third of the size, whatever the user's own settings are."""
    drawn = io.BytesIO()
    with style.context(["default", STYLE_FILE]):
        figure(about).savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    picture = picture.quantize(256, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def say(ax: Axes, text: str, letters: int = 46) -> None:
    """A panel's title, in lines of so many letters."""
    lines = [textwrap.fill(line, letters) for line in text.splitlines()]
    ax.set_title("\n".join(lines))


def picture_only(ax: Axes) -> None:
    """A panel without axes."""
    ax.set(xticks=[], yticks=[])
    ax.grid(False)


def style_of(name: str) -> dict[str, Any]:
    """The style of a curve by the words of its name."""
    chosen: dict[str, Any] = {"marker": "o"}
    for word in name.partition(" = ")[0].split(", "):
        chosen |= STYLES.get(word, {})
    return chosen


def draw_curves(ax: Axes, named: Mapping[str, Means], label: str = "") -> None:
    """Means with their intervals under the names that tables give them, equal ones as one curve.

    label: of the means. Their axis is logarithmic where they span a decade and it has no ends yet.
    """
    curves = distinct(named)
    for name, (x, mean, *bounds) in curves.items():
        half = np.nan_to_num(abs(bounds - mean))
        ax.errorbar(x, mean, half, label=name, **style_of(name), elinewidth=1)
    every = np.concatenate([[], *(means.mean for means in curves.values())])
    low = every.min(initial=np.inf)
    high = every.max(initial=0)
    if 0 < low < high / 10 and ax.get_autoscaley_on():
        ax.set_yscale("log")
        ax.set_ylim(bottom=low / 3)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.set_xlabel("training images n")
    ax.set_ylabel(label)
    name_curves(ax)


def distinct(named: Mapping[str, Means]) -> dict[str, Means]:
    """Means where they are known, equal ones under one name, infinite ones said in the name."""
    curves: dict[str, Means] = {}
    for name, means in named.items():
        infinite = means.x[np.isinf(means.mean)]
        if infinite.size:
            name += f", ∞ at {infinite[0]}"
        is_known = np.isfinite(means.mean)
        known = Means(*np.array(means)[:, is_known])
        for other, its in list(curves.items()):
            same_x = np.array_equal(known.x, its.x)
            if same_x and np.allclose(known.mean, its.mean, rtol=1e-3, atol=0):
                del curves[other]
                name = f"{other} = {name}"
        if known.x.size:
            curves[name] = known
    return curves


def name_curves(ax: Axes) -> None:
    """The curves' names right of the panel, at the height of their ends, moved apart."""
    inches = ax.get_window_extent().height / ax.figure.dpi
    to_axes = ax.transData + ax.transAxes.inverted()
    free = 1.1
    for curve in sorted(ax.containers, key=lambda curve: -curve[0].get_ydata()[-1]):
        line = curve[0]
        name = str(curve.get_label())
        name = name.replace("exact", "K")
        name = name.replace("sparsified", "K̃")
        label = textwrap.fill(name, 14)
        half = 0.12 * (1 + label.count("\n")) / inches  # of the label's height
        _, height = to_axes.transform(line.get_xydata()[-1])
        middle = min(height, free - half)
        color = line.get_color()
        ax.text(1.03, middle, label, color=color, va="center", transform=ax.transAxes)
        free = middle - half
