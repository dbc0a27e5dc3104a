"""The twelve figures of analysis.ipynb, in its order, from labelled results and stored kernels.

    networks = load("kernel_output", "mnist")
    show(networks, condition_number, condition_stays)

None computes a kernel. Means, intervals and fits come from analysis/growth.py, words and numbers in
titles from analysis/answers.py.
"""

import contextlib
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from analysis import answers
from analysis.answers import DATASETS, PLACES, Network, NothingToDraw, load, means, original
from analysis.drawing import (
    GREY,
    STYLES,
    Curve,
    Style,
    draw_curves,
    in_style,
    leave_empty,
    note,
    number,
    panels,
    picture_of,
    say,
    size_axis,
)
from analysis.growth import size_means, trial_values
from ntk import BadInput
from runtime.checkpoints import read_kernel
from runtime.datasets import load_images
from runtime.results import origin_of

__all__ = ["load", "save", "show"]
Networks = dict[str, Network]
Rows = list[tuple[str, Style, dict[str, Any]]]  # of curves: name, style, labels
LABELS = {"exact": "K", "sparsified": "K̃", "diagonal": "diagonal"}
WIDTH = 8  # inches, shown as 800 pixels

# --------------------------------------------------------------------------------------------------
# From a function to a picture
# --------------------------------------------------------------------------------------------------


def save(networks: Networks, drawing: Callable[..., Figure], name: str = "") -> bytes:
    """Draw a figure and write it to {folder}/figures/, named as the results are. Returns the PNG."""
    with in_style():
        picture = picture_of(drawing(networks))
    network = next(iter(networks.values()))
    name = DATASETS[network.dataset][0] + (name or drawing.__name__)
    path = network.folder / "figures" / f"{name}.png"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    except OSError as error:
        print(f"note: {path} can't be written ({error.strerror})")
    return picture


def show(
    networks: Networks,
    drawing: Callable[..., Figure],
    *findings: Callable[[Network], str],
    only: str = "",
) -> None:
    """Draw, save and display one figure, and below it the answer; or say what is missing.

    only: the network that the figure is about, if not all.
    """
    chosen = {name: network for name, network in networks.items() if only in ("", name)}
    if not chosen:
        print(f"note: {drawing.__name__} is not drawn: there are no results")
        return
    name = f"{only}_{drawing.__name__}" if only else drawing.__name__
    try:
        picture = save(chosen, drawing, name)
    except (NothingToDraw, BadInput) as missing:
        print(f"note: {missing}")
    except KeyError as missing:
        print(
            f"note: {name} is not drawn: its file has no {missing}; another version wrote it"
        )
    else:
        shown = {"image/png": picture, "text/plain": name}
        display(shown, metadata={"image/png": {"width": 100 * WIDTH}}, raw=True)
        display(Markdown(answers.answer(chosen, *findings)))


def having(networks: Networks, kind: str) -> Networks:
    """The networks that have these results; a line for the others, NothingToDraw where none has."""
    there, missing = {}, []
    for name, network in networks.items():
        try:
            network.part(kind)
            there[name] = network
        except NothingToDraw as reason:
            missing.append(str(reason))
    if not there:
        raise NothingToDraw("; ".join(missing))
    for line in missing:
        print(f"note: {line}")
    return there


def each_network(networks: Networks, draw: Callable[[Axes, Network], None]) -> Figure:
    """A panel for each network."""
    figure, axes = panels(1, len(networks), WIDTH / 2, 3.3)
    for ax, network in zip(axes[0], networks.values(), strict=True):
        draw(ax, network)
        say(ax, network.title)
    return figure


def draw_over_n(
    ax: Axes, results: xr.Dataset, quantity: str, rows: Rows, scale: str, less: float = 0
) -> None:
    """A quantity over n, a curve for each row, `less` subtracted."""
    curves = []
    for name, style, labels in rows:
        curves.append(Curve(name, style, *means(results, quantity, labels, less)))
    draw_curves(ax, curves, scale)
    size_axis(ax, results.n)


def of_each_network(
    ax: Axes, networks: Networks, quantity: str, labels: Any, scale: str
) -> None:
    """One quantity of all networks over n."""
    curves = []
    for name, network in networks.items():
        found = means(network.results, quantity, labels)
        curves.append(Curve(network.short, STYLES[name], *found))
    draw_curves(ax, curves, scale)
    size_axis(ax, np.concatenate([network.results.n for network in networks.values()]))


# --------------------------------------------------------------------------------------------------
# The question, data and kernels, two approximations
# --------------------------------------------------------------------------------------------------


def overview(networks: Networks) -> Figure:
    """README's picture: a row for each network, of K itself, accuracy and condition number."""
    figure, axes = panels(len(networks), 3, WIDTH / 3, 2.5)
    for (kernel, accuracies, condition), network in zip(
        axes, networks.values(), strict=True
    ):
        draw_kernel(kernel, network)
        kernel.set_ylabel(network.title.replace(", ", "\n", 1), fontsize=11)
        threshold = answers.usable_threshold(network.results)
        draw_accuracy(accuracies, network, threshold)
        place = textwrap.fill(f"accuracy, t {PLACES[threshold]}", 20)
        accuracies.set_ylabel(place, fontsize=9)
        say(accuracies, answers.spoken(network, answers.loss_in_words), 27)
        draw_condition(condition, network, corrected=False)
        say(condition, answers.spoken(network, answers.condition_in_words), 24)
    return figure


def draw_kernel(ax: Axes, network: Network, most: int = 64) -> None:
    """K of the first trial of the largest n up to `most` whose kernel is in the folder."""
    seed = origin_of(network.results)["seed"]
    sizes = [n for n in network.results.n.values if n <= most]
    kernel = None
    for n in sizes:
        name = f"{network.prefix}_seed{seed}_data{n}_trial0_kernel_train.npy"
        with contextlib.suppress(BadInput):  # not there, or damaged
            kernel, _ = read_kernel(network.folder / name)
    if kernel is None:
        leave_empty(ax, f"no kernel of n ≤ {most} here; python training.py makes it")
        return
    magnitude = np.abs(kernel) / np.diag(kernel).max()
    beside = magnitude[~np.eye(len(kernel), dtype=bool)]
    norm = LogNorm(min(beside.min(), 0.1), max(magnitude.max(), 1))
    image = ax.imshow(magnitude, norm=norm, cmap="cividis")
    ax.figure.colorbar(image, ax=ax, shrink=0.8).ax.minorticks_off()
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    typical = number(float(np.median(beside)), 1)
    say(ax, f"K at n = {len(kernel)}: entries beside the diagonal {typical} of it", 27)


def data(networks: Networks) -> Figure:
    """Images of the two classes of each network, and how far its K is from diagonal."""
    figure = Figure(figsize=(WIDTH, 3.4))
    layout = [[name, "ratio"] for name in networks]
    axes = figure.subplot_mosaic(layout, width_ratios=[1, 1.1])  # type: ignore[arg-type]
    for name, network in networks.items():
        draw_images(axes[name], network)
    of_each_network(axes["ratio"], networks, "off_diagonal_ratio", {}, "log")
    say(axes["ratio"], "Largest off-diagonal entry of K over the smallest diagonal one")
    return figure


def draw_images(ax: Axes, network: Network, count: int = 6) -> None:
    """Some training images of each class, class +1 above."""
    say(ax, network.title, 40)
    try:
        with contextlib.redirect_stderr(sys.stdout):
            split = load_images(network.dataset).train
    except (BadInput, OSError) as error:
        leave_empty(ax, textwrap.shorten(f"no images here: {error}", 120, placeholder=" …"))
        return
    rng = np.random.default_rng(0)
    rows = []
    for label in reversed(origin_of(network.results)["classes"]):
        drawn = rng.permutation(np.flatnonzero(split.label == label))[:count]
        rows.append(np.hstack(split.image[drawn, :, :, 0]))
    ax.imshow(np.vstack(rows), cmap="gray_r")
    height = len(rows[0])
    ax.set_yticks([height / 2, 3 * height / 2], labels=["y = +1", "y = −1"])
    ax.set_xticks([])
    ax.grid(False)


def approximations(networks: Networks, n: int = 64) -> Figure:
    """Which entries the two approximations keep, and how many in the fullest column."""
    figure = Figure(figsize=(WIDTH, 3))
    axes = figure.subplot_mosaic([["K̃", "diagonal", "sparsity"]], width_ratios=[1, 1, 1.6])
    for name, kept in (("K̃", example_pattern(n)), ("diagonal", np.eye(n))):
        axes[name].imshow(kept, cmap="gray_r")
        axes[name].grid(False)
        axes[name].set(xticks=[], yticks=[], xlabel=f"{n} training images")
        say(axes[name], f"{name}: {kept.mean():.1%} of K")
    of_each_network(
        axes["sparsity"], networks, "sparsity", original("sparsified"), "linear"
    )
    say(axes["sparsity"], "Entries in the fullest column of K̃;\na straight line is log n")
    return figure


def example_pattern(n: int) -> NDArray:
    """Such as training.py draws: entries of probability 2 ln(n)/n inside the classes."""
    rng = np.random.default_rng(0)
    below = np.tril(rng.random((n, n)) < 2 * np.log(n) / n)
    below[n // 2 :, : n // 2] = False
    return below | below.T | np.eye(n, dtype=bool)


# --------------------------------------------------------------------------------------------------
# Accuracy, condition number, preparing k*, reading the answer
# --------------------------------------------------------------------------------------------------


def accuracy(networks: Networks) -> Figure:
    """Accuracy of one network at every threshold, beside nearest neighbour."""
    (network,) = networks.values()
    there = [place for place in PLACES if place in network.results.threshold.values]
    figure, axes = panels(1, len(there), WIDTH / len(there), 3.3)
    for ax, threshold in zip(axes[0], there, strict=True):
        draw_accuracy(ax, network, threshold)
        say(ax, f"Threshold {PLACES[threshold]}", 92 // len(there))
    axes[0, 0].set_ylabel("test accuracy")
    return figure


def draw_accuracy(ax: Axes, network: Network, threshold: str) -> None:
    """Accuracy of K, K̃ and the diagonal, and of nearest neighbour where baselines are there."""
    curves = []
    for name, label in LABELS.items():
        found = means(network.results, "accuracy", original(name, threshold=threshold))
        curves.append(Curve(label, STYLES[name], *found))
    if "baselines" in network.parts:
        place = "zero" if threshold == "zero" else "test median"
        labels = dict(classifier="nearest neighbour", threshold=place)
        found = means(network.parts["baselines"], "accuracy", labels)
        curves.append(Curve("nearest\nneighbour", STYLES["rival"], *found))
    draw_curves(ax, curves, "shares")
    size_axis(ax, network.results.n)


def condition_number(networks: Networks) -> Figure:
    """κ of K and of K̃, in both conventions."""
    return each_network(networks, draw_condition)


def draw_condition(ax: Axes, network: Network, corrected: bool = True) -> None:
    """κ over n, less 1 where κ of K̃ is close to 1."""
    results = network.results
    style = STYLES["sparsified"]
    rows: Rows = [("K", STYLES["exact"], original("exact")), ("K̃", style, original("sparsified"))]
    if corrected:
        labels = dict(approximation="sparsified", convention="corrected")
        rows.append(("K̃, corrected", style._replace(line="--"), labels))
    highest = means(results, "condition_number", original("sparsified")).mean.max(initial=0)
    less, label = (1, "condition number κ, less 1") if highest < 1.1 else (0, "condition number κ")
    draw_over_n(ax, results, "condition_number", rows, "log", less)
    ax.set_ylabel(label)


def post_selection(networks: Networks) -> Figure:
    """How often k* is prepared until it succeeds, by what it is divided by."""
    return each_network(networks, draw_post_selection)


def draw_post_selection(ax: Axes, network: Network) -> None:
    """Attempts over n, a curve for each divisor."""
    dashed = STYLES["diagonal"]._replace(line="--")
    rows: Rows = [
        ("fixed constant", STYLES["rival"], dict(divisor="fixed constant")),
        ("training set's\nscale", STYLES["sparsified"], dict(divisor="training set")),
        ("test set's\nscale", dashed, dict(divisor="test set")),
    ]
    draw_over_n(ax, network.results, "post_selection_measurements", rows, "log")
    ax.set_ylabel("attempts until k* is prepared")


def readout(networks: Networks) -> Figure:
    """How many measurements tell the sign, at the threshold of the accuracies and at zero."""
    return each_network(networks, draw_readout)


def draw_readout(ax: Axes, network: Network) -> None:
    """Readout measurements over n, of K̃ and the diagonal at two thresholds."""
    rows: Rows = []
    for threshold, line in ((answers.usable_threshold(network.results), "-"), ("zero", "--")):
        for name in ("sparsified", "diagonal"):
            label = f"{LABELS[name]}, {threshold.removeprefix('test ')}"
            style = STYLES[name]._replace(line=line)
            rows.append((label, style, original(name, threshold=threshold)))
    draw_over_n(ax, network.results, "readout_measurements", rows, "log")
    ax.set_ylabel("measurements of one answer")


# --------------------------------------------------------------------------------------------------
# The theorem and real networks, growth
# --------------------------------------------------------------------------------------------------


def theorem(networks: Networks) -> Figure:
    """What depth does: a row for each network, a panel for each function of `DEPTH_PANELS`."""
    there = having(networks, "depth_sweep")
    figure, axes = panels(len(there), len(DEPTH_PANELS), WIDTH / len(DEPTH_PANELS), 2.5)
    for row, network in zip(axes, there.values(), strict=True):
        for ax, (title, draw) in zip(row, DEPTH_PANELS.items(), strict=True):
            draw(ax, network)
            say(ax, title, 30)
        n = answers.swept_size(network.part("depth_sweep"))
        row[0].set_ylabel(network.title.replace(", ", "\n", 1) + f", n = {n:,}")
    return figure


def draw_over_depth(ax: Axes, network: Network, quantity: str, scale: str) -> None:
    """A quantity over the depth, of K and its approximations; the original's depth is dotted."""
    sweep = network.part("depth_sweep")
    place = dict(threshold=answers.usable_threshold(sweep)) if quantity == "accuracy" else {}
    curves = []
    for name, label in LABELS.items():
        labels = original(name, **place) if "approximation" in sweep[quantity].dims else {}
        curves.append(depth_curve(sweep, quantity, labels, label, STYLES[name]))
    draw_curves(ax, curves if labels else curves[:1], scale)
    if ax.get_ylim()[0] < 1e-17 and scale == "log":  # far below rounding
        ax.set_ylim(1e-17, 10)
    depths = sweep.setting.values
    size_axis(ax, depths, "depth / L$_{conv}$" if depths.max() <= 1 else "depth, layers")
    ax.axvline(origin_of(sweep)["depth_rule"], color=GREY, linestyle=":")


def depth_curve(
    sweep: xr.Dataset, quantity: str, labels: Any, label: str, style: Style
) -> Curve:
    """A quantity over the depth at `swept_size`; spreads are pooled over the sizes."""
    place = sweep.n.values.tolist().index(answers.swept_size(sweep))
    mean, half = np.full((2, sweep.sizes["setting"]), np.nan)
    for i, depth in enumerate(sweep.setting.values):
        values = trial_values(sweep[quantity].sel(setting=depth, **labels))
        found = size_means(sweep.n.values, values)
        mean[i], half[i] = found[0][place], found[2][place]
    return Curve(label, style, sweep.setting.values, mean, half)


# A panel about another file is one more function of (axes, network) here.
DEPTH_PANELS: dict[str, Callable[[Axes, Network], None]] = {
    "K, off-diagonal over diagonal": partial(
        draw_over_depth, quantity="off_diagonal_ratio", scale="log"
    ),
    "Condition number κ": partial(
        draw_over_depth, quantity="condition_number", scale="log"
    ),
    "Accuracy": partial(draw_over_depth, quantity="accuracy", scale="shares"),
}


def growth(networks: Networks) -> Figure:
    """By how much everything grows from the smallest n to the largest, with the verdict."""
    figure = each_network(networks, draw_growth)
    for ax in figure.axes[1:]:
        ax.set_yticklabels([])
    return figure


def draw_growth(ax: Axes, network: Network) -> None:
    """The fitted factors of growth with their 95 % intervals, a row for each quantity."""
    fits = answers.growths(network)
    sizes = network.results.n.values
    like_n = sizes[-1] / sizes[0]
    largest = np.nanmax([like_n, *(fit.number("ratio") for fit in fits.values())])
    ax.set(xscale="log", xlim=(0.5, 2 * largest), ylim=(len(fits) - 0.4, -1.4))
    ax.set_yticks(range(len(fits)), labels=list(fits))
    for row, fit in enumerate(fits.values()):
        draw_fit(ax, row, fit)
    for factor, name in ((1, "none"), (like_n, "like n")):
        if factor == 1 or factor > 8:  # else there is no room for both
            ax.axvline(factor, color=GREY, linestyle=":", linewidth=1)
            place = ax.transData
            note(
                ax,
                factor,
                -0.6,
                name,
                ha="center",
                backgroundcolor="white",
                transform=place,
            )
    ax.grid(visible=False, axis="x")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(f"growth from n = {sizes[0]} to {sizes[-1]:,}, a factor")


def draw_fit(ax: Axes, row: int, fit: Any) -> None:
    """One factor of growth, its interval as far as the axis goes, and the verdict."""
    styles = {
        "no faster than log n": STYLES["diagonal"],
        "faster than log n": STYLES["sparsified"],
        "undecided": Style(GREY, "o"),
    }
    color = styles.get(fit.verdict, STYLES["fully-connected"]).color
    interval = np.clip(fit.interval("ratio"), *ax.get_xlim())
    ax.plot(interval, [row, row], color=color, linewidth=4, alpha=0.45)
    ax.plot(fit.number("ratio"), row, color=color, marker="o")
    note(ax, 1.03, row, fit.verdict, color, va="center", transform=ax.get_yaxis_transform())


# --------------------------------------------------------------------------------------------------
# Could it have failed, what a prediction costs
# --------------------------------------------------------------------------------------------------


def controls(networks: Networks) -> Figure:
    """Simple classifiers beside K, all pairs of classes, and constants set by hand."""
    figure = Figure(figsize=(WIDTH, 5.2))
    axes = figure.subplot_mosaic(
        [["rivals", "pairs"], ["rivals", "map"]], width_ratios=[1, 1.3]
    )
    drawn = 0
    for name, draw in (
        ("rivals", draw_rivals),
        ("pairs", draw_pairs),
        ("map", draw_constants),
    ):
        try:
            draw(axes[name], networks)
            drawn += 1
        except NothingToDraw as missing:
            leave_empty(axes[name], str(missing))
    if not drawn:
        raise NothingToDraw(
            f"no controls are in the folder; {answers.COMMANDS['baselines']} makes them"
        )
    return figure


def draw_rivals(ax: Axes, networks: Networks) -> None:
    """By how much simple classifiers are better than K, sorted, at the largest n."""
    there = having(networks, "baselines")
    first = next(iter(there.values()))
    names = [name for name in first.part("baselines").classifier.values if name != "exact"]
    names.sort(key=lambda name: answers.gain_of_rival(first, name).mean[-1])
    for place, network in enumerate(there.values()):
        draw_gains(ax, network, names, 0.16 * place)
    ax.axvline(0, color=GREY, linestyle=":")
    ax.set_xscale("symlog", linthresh=0.02)
    ax.set_xticks([-0.3, -0.02, 0, 0.02], labels=["−0.3", "−0.02", "0", "+0.02"])
    ax.set_yticks(range(len(names)), labels=[name.replace(" ", "\n") for name in names])
    ax.margins(x=0.1)
    ax.set(ylim=(-1.4, len(names) - 0.5), xlabel="accuracy minus that of K")
    ax.legend(loc="lower left", labelcolor="linecolor", edgecolor="none", framealpha=1)
    say(ax, "Simple classifiers beside K", 36)


def draw_gains(ax: Axes, network: Network, names: list[str], shift: float) -> None:
    """What each of these classifiers gains over K, with intervals, a row each."""
    gains = [answers.gain_of_rival(network, name) for name in names]
    color, marker, _ = STYLES[network.name]
    ax.errorbar(
        [gain.mean[-1] for gain in gains],
        shift + np.arange(len(names)),
        xerr=np.nan_to_num([gain.half[-1] for gain in gains]),
        label=f"{network.short}, n = {gains[0].n[-1]:,}",
        color=color,
        marker=marker,
        linestyle="none",
        elinewidth=1,
    )


def draw_pairs(ax: Axes, networks: Networks) -> None:
    """What K̃ loses on each pair of classes, sorted; the network's own pair is circled."""
    for name, network in having(networks, "digit_pairs").items():
        lost = answers.setting_losses(network.part("digit_pairs"))
        color = STYLES[name].color
        places = range(1, len(lost) + 1)
        ax.plot(places, list(lost.values()), color=color, marker=".", linestyle="none")
        label = network.short
        own = sorted(map(str, origin_of(network.results)["classes"]))
        for place, pair in zip(places, lost, strict=True):
            if sorted(pair.split()) == own:
                ax.plot(
                    place,
                    lost[pair],
                    color=color,
                    marker="o",
                    fillstyle="none",
                    markersize=10,
                )
                label += f",\n{' and '.join(own)} circled"
        end = len(lost) + 2, max(lost.values())
        ax.annotate(label, end, color=color, va="center", annotation_clip=False)
    ax.set(xlabel="pairs of classes, sorted", ylabel="accuracy lost by K̃")
    say(ax, "K̃ on all pairs of classes")


def draw_constants(ax: Axes, networks: Networks) -> None:
    """Accuracy of K̃ by the boost of its diagonal and the density, and where it is indefinite."""
    there = {name: network for name, network in networks.items() if name == "convolutional"}
    (network, *_) = having(there or networks, "sensitivity").values()
    plane = plane_of_constants(network.part("sensitivity"))
    draw_map(ax, plane.accuracy)
    title = f"Accuracy of the convolutional K̃, n = {int(plane.n)}"
    definite = plane.positive_definite.values == 1
    if definite.any() and not definite.all():
        title += ";\nbelow the red line not positive definite"
        fine = np.kron(definite, np.ones((50, 50)))  # so that the line follows the cells
        edges = -0.5, definite.shape[1] - 0.5, -0.5, definite.shape[0] - 0.5
        ax.contour(fine, levels=[0.5], extent=edges, colors="#CC0000", linewidths=3)
    papers = [np.searchsorted(plane[axis], 1) - 0.5 for axis in ("density", "boost")]
    ax.add_patch(Rectangle((papers[0], papers[1]), 1, 1, fill=False, linewidth=2))
    ax.set(xlabel="density of the pattern (paper: 1)", ylabel="boost (paper: 1)")
    say(ax, title)


def plane_of_constants(sensitivity: xr.Dataset) -> xr.Dataset:
    """Means of K̃ [boost, density] at the paper's percentile and the largest n of several trials."""
    papers = sensitivity.percentile == origin_of(sensitivity)["papers_setting"][0]
    place = dict(threshold=answers.usable_threshold(sensitivity))
    labels = original("sparsified", n=answers.swept_size(sensitivity), **place)
    plane = sensitivity[["accuracy", "positive_definite"]].sel(labels).isel(setting=papers)
    plane = plane.mean(("trial", "pattern")).drop_vars("setting")
    plane = plane.set_index(setting=["boost", "density"]).unstack("setting")
    return plane.transpose("boost", "density")


def draw_map(ax: Axes, table: xr.DataArray) -> None:
    """A table of numbers as colours, with the numbers on them."""
    rows, columns = (table[axis].values for axis in table.dims)
    ax.imshow(table, origin="lower", aspect="auto", cmap="cividis")
    ax.grid(False)
    ax.set_xticks(range(len(columns)), labels=[f"{value:g}" for value in columns])
    ax.set_yticks(range(len(rows)), labels=[f"{value:g}" for value in rows])
    for (row, column), value in np.ndenumerate(table.values):
        color = "white" if value < table.mean() else "black"
        text = f"{value:.3f}"
        note(ax, column, row, text, color, ha="center", va="center", transform=ax.transData)


def cost(networks: Networks) -> Figure:
    """Queries of the cheapest quantum ways to one prediction, and classical operations."""
    return each_network(having(networks, "emulation"), draw_cost)


def draw_cost(ax: Axes, network: Network) -> None:
    """Costs over n."""
    found = answers.cost_curves(network)
    styles = [STYLES[name] for name in ("sparsified", "diagonal", "rival")]
    curves = []
    for (label, level), style in zip(found.items(), styles, strict=True):
        curves.append(Curve(label, style, *level))
    draw_curves(ax, curves, "log")
    size_axis(ax, curves[0].x)
    ax.set_ylabel("cost of one prediction")
