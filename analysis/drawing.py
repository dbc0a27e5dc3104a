"""What all figures share: the style, curves that are named at their ends, axes and numbers."""

import io
import textwrap
from collections.abc import Callable, Collection, Mapping
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
STYLES: dict[str, dict[str, Any]] = {  # by the words of a name
    "exact": dict(color="#000000", marker="o"),
    "sparsified": dict(color="#D55E00", marker="s"),
    "diagonal": dict(color="#0072B2", marker="^"),
    "nearest neighbour": dict(color="#AA4499", marker="v"),
    "Fully connected": dict(color="#009E73", marker="D"),
    "Convolutional": dict(color="#B8860B", marker="p"),
}
PALETTE = tuple(STYLES.values())
SAME_AS = {
    "all entries": "exact",
    "sampler": "nearest neighbour",
    "fixed constant": "nearest neighbour",
    "scale from the training set": "sparsified",
    "scale from the test set": "diagonal",
    "0.01 L_conv": "nearest neighbour",
    "0.02 L_conv": "exact",
    "0.05 L_conv": "sparsified",
    "0.065 L_conv": "diagonal",
    "0.1 L_conv": "Fully connected",
}
STYLES |= {word: STYLES[other] for word, other in SAME_AS.items()}
DASHED = dict(linestyle="--")
STYLES |= {"corrected": DASHED, "at zero": DASHED, "1/n": DASHED | dict(color=GREY)}
SHORT = {"exact": "K", "sparsified": "K̃"}  # in pictures


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


def style_of(name: str, place: int = 0) -> dict[str, Any]:
    """The style of a curve by its name, or by its place where no word has a colour."""
    style: dict[str, Any] = {}
    for word in name.partition(" = ")[0].split(", "):
        style |= STYLES.get(word, {})
    return style if "color" in style else PALETTE[place % len(PALETTE)]


def draw_curves(
    ax: Axes, named: Mapping[str, Means], label: str = "training images n", linear: bool = False
) -> None:
    """Means with their intervals under the names that tables give them, equal ones as one curve.

    linear: the axis of the means is, however many decades they span.
    """
    curves = distinct(named)
    for place, (name, means) in enumerate(curves.items()):
        x, mean, *bounds = means
        half = np.nan_to_num(abs(bounds - mean))
        ax.errorbar(x, mean, half, **style_of(name, place), elinewidth=1)
    set_scales(ax, curves.values(), linear)
    ax.set_xlabel(label)
    name_curves(ax, curves)


def distinct(named: Mapping[str, Means]) -> dict[str, Means]:
    """Means where they are known, equal ones under one name, infinite ones said in the name."""
    curves: dict[str, Means] = {}
    for name, means in named.items():
        infinite = means.x[np.isinf(means.mean)]
        if infinite.size:
            name += f", ∞ at {infinite[0]}"
        is_known = np.isfinite(means.mean)
        known = Means(*(values[is_known] for values in means))
        for other, its in list(curves.items()):
            same_x = np.array_equal(known.x, its.x)
            if same_x and np.allclose(known.mean, its.mean, rtol=1e-3, atol=0):
                del curves[other]
                name = f"{other} = {name}"
        if known.x.size:
            curves[name] = known
    return curves


def set_scales(ax: Axes, curves: Collection[Means], linear: bool) -> None:
    """Logarithmic axes; that of the means where they span more than a decade."""
    x = np.concatenate([[10], *(means.x for means in curves)])
    mean = np.concatenate([[], *(means.mean for means in curves)])
    low = mean.min(initial=np.inf)
    high = mean.max(initial=0)
    if 0 < low < high / 10 and not linear:
        ax.set_yscale("log")
        ax.set_ylim(bottom=low / 3)
    ax.set_xscale("log", base=2 if x.min() > 1 else 10)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def shortened(name: str) -> str:
    """K̃, corrected: a name with the symbols for its words."""
    for word, short in SHORT.items():
        name = name.replace(word, short)
    return name


def name_curves(ax: Axes, curves: Mapping[str, Means]) -> None:
    """The curves' names right of the panel, at the height of their ends, moved apart."""
    inches = ax.get_window_extent().height / ax.figure.dpi
    to_axes = ax.transData + ax.transAxes.inverted()
    free = 1.1
    places = list(curves)
    for name in sorted(curves, key=lambda name: -curves[name].mean[-1]):
        label = textwrap.fill(shortened(name), 14)
        tall = 0.24 * (1 + label.count("\n")) / inches
        end = curves[name].x[-1], curves[name].mean[-1]
        _, height = to_axes.transform(end)
        middle = min(height, free - tall / 2)
        color = style_of(name, places.index(name))["color"]
        ax.text(1.03, middle, label, color=color, va="center", transform=ax.transAxes)
        free = middle - tall / 2
