"""The figures of analysis.ipynb, in its order, from labelled results and stored kernels.

    experiments = load("kernel_output", "mnist")
    show(experiments, condition_number, "κ of K̃ stays small")

None computes a kernel. A figure is a function of all experiments, or of a panel and one experiment
(`PANELS`).
"""

import contextlib
import textwrap
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from xarray import DataArray

from analysis import costs, drawing, evidence, findings, tables, theory
from analysis.drawing import GREY, STYLES, draw_curves, picture_only, say, style_of
from analysis.experiments import COMMANDS, Experiment
from analysis.growth import Means, judged
from analysis.tables import columns_of, in_words, means_of, usual_threshold
from ntk import BadInput
from runtime.checkpoints import read_kernel
from runtime.results import UNUSABLE, origin_of

Experiments = list[Experiment]
Drawing = Callable[..., Any]
NEEDS = {"theorem": "depth_sweep", "cost": "emulation"}  # kinds of results, else the main ones
SHOWN_KERNEL = 64  # training images at most, in a picture of K
WIDTH = 8  # inches, shown as 800 pixels
FOUR_DEPTHS = (0.02, 0.05, 0.065, 0.1)  # over L_conv, that the theorem's figure shows


def show(experiments: Experiments, figure: Drawing, *answers: str, only: str = "") -> None:
    """Draw and display one figure, and below it the answer; or say what is missing.

    The picture is written to {folder}/figures/, named as the results are.
    only: the network that the figure is about, if not all.
    """
    name = f"{only}_{figure.__name__}".strip("_")
    kind = NEEDS.get(figure.__name__, "results")
    chosen = [experiment for experiment in experiments if only in ("", experiment.network)]
    for experiment in list(chosen):
        if kind not in experiment.kinds:
            chosen.remove(experiment)
            missing = f"{experiment.prefix}_{kind}.nc is not in {experiment.folder}/"
            print(f"note: {missing}; {COMMANDS[kind]} makes it")
    if not chosen:
        print(f"note: {name} is not drawn")
        return
    whole = partial(each_network, draw=figure) if figure in PANELS else figure
    path = chosen[0].folder / "figures" / f"{chosen[0].dataset.prefix}{name}.png"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.write_picture(path, whole, chosen)
    except (*UNUSABLE, OSError) as error:
        print(f"note: {name} is not drawn ({type(error).__name__}: {error})")
        return
    shown = {"image/png": path.read_bytes(), "text/plain": path.stem}
    display(shown, metadata={"image/png": {"width": 100 * WIDTH}}, raw=True)
    display(Markdown(findings.answer(chosen, *answers)))


def panels(rows: int, columns: int, height: float) -> tuple[Figure, Any]:
    """A figure of panels, height of each in inches, and its axes [rows * columns]."""
    figure = Figure(figsize=(WIDTH, height * rows))
    return figure, np.ravel(figure.subplots(rows, columns))


def each_network(experiments: Experiments, draw: Drawing) -> Figure:
    """A panel for each network."""
    figure, axes = panels(1, len(experiments), 3.3)
    for ax, experiment in zip(axes, experiments, strict=True):
        draw(ax, experiment)
        say(ax, experiment.title)
    return figure


def of_each_network(ax: Axes, experiments: Experiments, name: str) -> None:
    """One quantity of all networks over n, by its name in tables."""
    named = {}
    for experiment in experiments:
        values = tables.judged_quantities(experiment.results)[name]
        named[experiment.short] = means_of(values)
    draw_curves(ax, named)


def overview(experiments: Experiments) -> Figure:
    """README's picture: a row for each network, of K itself, accuracy and condition number."""
    figure, axes = panels(len(experiments), 3, 2.5)
    rows = axes.reshape(-1, 3)
    for (kernel, accuracies, condition), experiment in zip(rows, experiments, strict=True):
        draw_kernel(kernel, experiment, lowest=1e-8)
        kernel.set_ylabel(experiment.title.replace(", ", ",\n"), weight="bold")
        threshold = usual_threshold(experiment.results)
        draw_accuracy(accuracies, experiment, threshold)
        accuracies.set_ylabel(f"accuracy {in_words(threshold)}", fontsize=9)
        condition_number(condition, experiment, corrected=False)
        stays = partial(findings.accuracy_stays, threshold)
        say_finding(accuracies, "K̃ as accurate?", stays, experiment)
        say_finding(condition, "κ of K̃ small?", findings.condition_stays, experiment)
    return figure


def say_finding(ax: Axes, question: str, finding: findings.Finding, experiment: Experiment) -> None:
    """A panel's title: a question and the first clause of the finding."""
    text = findings.said(experiment, partial(findings.first_clause, finding))
    say(ax, f"{question} {text.replace('**', '')}", 28)


def draw_kernel(ax: Axes, experiment: Experiment, lowest: float = 0) -> None:
    """K of the first trial of the largest n up to SHOWN_KERNEL in the folder, over its diagonal.

    lowest: where the colours begin; by default at the smallest entry.
    """
    picture_only(ax)
    kernel = None
    sizes = experiment.results.n.values
    seed = origin_of(experiment.results)["seed"]
    for n in sizes[sizes <= SHOWN_KERNEL]:
        name = f"{experiment.prefix}_seed{seed}_data{n}_trial0_kernel_train.npy"
        with contextlib.suppress(BadInput):  # not there, or damaged
            kernel, _ = read_kernel(experiment.folder / name)
    if kernel is None:
        say(ax, f"no kernel of n ≤ {SHOWN_KERNEL} here; python training.py makes it", 27)
        return
    magnitude = np.abs(kernel) / np.diag(kernel).max()
    beside = magnitude[~np.eye(len(kernel), dtype=bool)]
    norm = LogNorm(lowest or min(beside.min(), 0.1), 1, clip=True)
    image = ax.imshow(magnitude, norm=norm, cmap="cividis")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8)
    bar.ax.minorticks_off()
    text = f"off-diagonal entries {np.median(beside):.1g} of the diagonal"
    say(ax, f"K, n = {len(kernel)}: {text}", 26)


def data(experiments: Experiments) -> Figure:
    """K of each network, and how far it is from diagonal."""
    figure, axes = panels(1, len(experiments) + 1, 2.8)
    *kernels, ratio = axes
    for ax, experiment in zip(kernels, experiments, strict=True):
        draw_kernel(ax, experiment)
        ax.set_xlabel(experiment.short)
    of_each_network(ratio, experiments, "off-diagonal / diagonal of K")
    say(ratio, "Largest off-diagonal entry of K over the smallest diagonal one", 28)
    return figure


def approximations(experiments: Experiments) -> Figure:
    """Which entries K̃ keeps, and how many in the fullest column.

    The pattern is such as training.py draws: probability 2 ln(n)/n inside the classes.
    """
    n = 64
    rng = np.random.default_rng(0)
    density = 2 * np.log(n) / n
    below = np.tril(rng.random((n, n)) < density)
    below[n // 2 :, : n // 2] = False
    kept = below | below.T | np.eye(n, dtype=bool)
    figure, (pattern, sparsity) = panels(1, 2, 3)
    picture_only(pattern)
    pattern.imshow(kept, cmap="gray_r")
    pattern.set_xlabel(f"{n} training images")
    say(pattern, f"K̃ keeps the diagonal and more,\nhere {kept.mean():.1%} of K")
    of_each_network(sparsity, experiments, "sparsity, sparsified")
    say(sparsity, "Entries in the fullest column of K̃;\na straight line is log n")
    return figure


def accuracy(experiments: Experiments) -> Figure:
    """Accuracy of one network at the thresholds that a prediction can know, beside neighbours."""
    (experiment,) = experiments
    thresholds = tables.two_thresholds(experiment.results)
    figure, axes = panels(1, len(thresholds), 3.3)
    for ax, threshold in zip(axes, thresholds, strict=True):
        draw_accuracy(ax, experiment, threshold)
        say(ax, f"Test accuracy, threshold {in_words(threshold)}", 28)
    return figure


def draw_accuracy(ax: Axes, experiment: Experiment, threshold: str) -> None:
    """Accuracy of K, K̃ and the diagonal, and of nearest neighbour where baselines are there."""
    results = experiment.results
    accuracy = results.accuracy.sel(threshold=threshold, convention="original")
    named = named_means(accuracy, results.test_images)
    if "baselines" in experiment.kinds:
        baselines = experiment.kinds["baselines"]
        rivals = baselines.accuracy.sel(classifier="nearest neighbour")
        usable = threshold if threshold in rivals.threshold else "test median"
        values = rivals.sel(threshold=usable)
        named["nearest neighbour"] = means_of(values, baselines.test_images)
    draw_curves(ax, named)
    low, high = ax.get_ylim()
    ax.set_ylim(top=min(high, 1.003))
    if low < 0.5:
        ax.axhline(0.5, color=GREY, linestyle=":")


def named_means(values: DataArray, images: DataArray | None = None) -> dict[str, Means]:
    """The means of each column that tables have of a quantity; images [n, trial]: of accuracies."""
    named = {}
    for name, column in columns_of(values).items():
        named[name] = means_of(column, images)
    return named


def condition_number(ax: Axes, experiment: Experiment, corrected: bool = True) -> None:
    """κ of K and of K̃, in both conventions or one; less 1 where κ of K̃ is close to 1."""
    condition = experiment.results.condition_number
    if not corrected:
        condition = condition.sel(convention=["original"])
    less = tables.less_one(condition.sel(approximation="sparsified"))
    if less:  # the diagonal's is rounding
        condition = condition.drop_sel(approximation="diagonal")
    label = "condition number κ, less 1" if less else "condition number κ"
    draw_curves(ax, named_means(condition - less), label)


def post_selection(ax: Axes, experiment: Experiment) -> None:
    """How often k* is prepared until it succeeds, by what it is divided by."""
    attempts = experiment.results.post_selection_measurements
    draw_curves(ax, named_means(attempts), "attempts until k* is prepared")


def readout(ax: Axes, experiment: Experiment) -> None:
    """How many measurements tell the sign, at the threshold of the accuracies and at zero."""
    results = experiment.results.drop_sel(approximation="exact")
    at = {"threshold": tables.two_thresholds(results), "convention": "original"}
    named = named_means(results.readout_measurements.sel(at))
    draw_curves(ax, named, "measurements of one answer")


def theorem(experiments: Experiments) -> Figure:
    """The error against n by depth, and networks of finite width."""
    figure, axes = panels(1, 2, 3.6)
    proved = list(filter(theory.has_theorem, experiments))
    draw_kind(axes[0], proved, "depth_sweep", draw_error)
    draw_kind(axes[1], experiments, "finite_width", draw_widths)
    return figure


def draw_kind(ax: Axes, experiments: Experiments, kind: str, draw: Drawing) -> None:
    """The panel of those experiments that have this kind of results, or what makes it."""
    there = [experiment for experiment in experiments if kind in experiment.kinds]
    if there:
        draw(ax, there)
    else:
        picture_only(ax)
        say(ax, f"no {kind} here; {COMMANDS[kind]} makes it", 30)


def draw_error(ax: Axes, experiments: Experiments) -> None:
    """Geometric means of the diagonal's errors by depth, each trial as a dot, and 1/n."""
    sweep = theory.theorem_sweep(experiments[0])
    error = theory.measures(sweep, "original")["‖Δw‖/‖w‖"]
    n = error.n.values
    named = {"1/n": Means(n, 1 / n, 1 / n, 1 / n)}
    for depth in FOUR_DEPTHS:
        if depth in error.setting:
            name = f"{depth:g} L_conv"
            values = error.sel(setting=depth)
            mean = theory.geometric_mean(values, "trial").values
            named[name] = Means(n, mean, mean, mean)
            ax.plot(n, values, ".", color=style_of(name)["color"], alpha=0.25)
    draw_curves(ax, named, "error of the weights, ‖w̃ − w‖ / ‖w‖")
    begins = theory.beginning(error, -1).value
    say(ax, f"Infinite width: the error is O(1/n) from {begins:.3f} L_conv on", 38)


def draw_widths(ax: Axes, experiments: Experiments) -> None:
    """Correlation of finite networks' outputs with the NTK's over the width, by depth."""
    results = experiments[0].kinds["finite_width"].isel(n=[0])
    kinds = theory.networks(results)
    named = {}
    for words in kinds.network.values:
        at = kinds.sel(network=words, predictor="finite")
        depth = words.partition(", ")[2]
        name = depth.replace(" (", ", ").rstrip(")")
        mean, half = theory.over_draws(at.correlation)
        named[name] = Means(at.width.values, mean, mean - half, mean + half)
    ax.set_ylim(-0.35, 1.05)
    draw_curves(ax, named, "correlation of outputs with the NTK's")
    ax.set_xlabel(f"{theory.unit_of_width(results)} of a layer")
    left = theory.what_is_left(kinds)
    say(ax, f"Networks that can be built, n = {results.n.item()}: {left}", 38)


def growth(ax: Axes, experiment: Experiment) -> None:
    """By how much everything grows from the smallest n to the largest, and the verdicts.

    The fitted factors with their 95 % intervals, a row for each quantity.
    """
    results = experiment.results
    first, last = results.n.values[[0, -1]]
    quantities = findings.growths(results)
    ax.set_xscale("log")
    for row, values in enumerate(quantities.values()):
        fitted = judged(values)
        color = drawing.COLORS[fitted.verdict]
        interval = np.clip(fitted.ratio[1:], 0.5, 1e6)
        ax.plot(interval, [row, row], color=color, linewidth=4, alpha=0.45)
        ax.plot(fitted.ratio.value, row, color=color, marker="o")
        place = ax.get_yaxis_transform()
        ax.text(1.03, row, fitted.verdict, color=color, va="center", transform=place)
    labels = [name.replace(", ", ",\n", 1) for name in quantities]
    ax.set_yticks(range(len(labels)), labels=labels)
    ax.label_outer()
    ax.invert_yaxis()
    ax.axvline(1, color=GREY, linestyle=":")
    ax.axvline(last / first, color=GREY, linestyle="--")
    ax.set_xlabel(f"growth from n = {first} to {last}\n(dotted: none, dashed: like n)")


def controls(experiments: Experiments) -> Figure:
    """Simple classifiers beside K, all pairs of classes, and constants set by hand."""
    figure = Figure(figsize=(WIDTH, 5.2))
    axes = figure.subplot_mosaic("AB;AC", width_ratios=[1, 1.3])
    draw_kind(axes["A"], experiments, "baselines", draw_rivals)
    draw_kind(axes["B"], experiments, "digit_pairs", draw_pairs)
    draw_kind(axes["C"], experiments, "sensitivity", draw_constants)
    return figure


def draw_rivals(ax: Axes, experiments: Experiments) -> None:
    """By how much simple classifiers are better than K at the largest n, and intervals."""
    for place, experiment in enumerate(experiments):
        gains = findings.gains_of_classifiers(experiment.kinds["baselines"])
        rows = 0.16 * place + np.arange(len(gains))
        n, gain, *bounds = np.transpose(list(gains.values()))[-1]
        label = f"{experiment.short}, n = {n[0]:g}"
        style = STYLES[experiment.short] | {"linestyle": "none"}
        ax.errorbar(gain, rows, xerr=abs(bounds - gain), label=label, **style)
    ax.axvline(0, color=GREY, linestyle=":")
    ax.set_xscale("symlog", linthresh=0.02)
    ax.set_xticks([-0.3, -0.02, 0, 0.02])
    ax.xaxis.set_major_formatter("{x:g}")
    names = [textwrap.fill(name, 14) for name in gains]
    ax.set_yticks(range(len(names)), labels=names)
    ax.set_ylim(-1.4, len(names) - 0.5)
    ax.set_xlabel("accuracy minus that of K")
    ax.legend(loc="lower left", labelcolor="linecolor", edgecolor="none", fontsize=9)
    say(ax, "Simple classifiers beside K")


def draw_pairs(ax: Axes, experiments: Experiments) -> None:
    """What K̃ loses on each pair of classes, sorted; the network's own pair is circled."""
    for experiment in experiments:
        lost = evidence.losses_by_setting(evidence.named_pairs(experiment))
        color = STYLES[experiment.short]["color"]
        places = np.arange(1, len(lost) + 1)
        ax.plot(places, lost, ".", color=color)
        own = lost.setting == experiment.pair
        circle: Any = dict(fillstyle="none", markersize=10, color=color)
        ax.plot(places[own], lost[own], "o", **circle)
        end = (len(lost) + 2, lost[-1])
        beside: Any = {"va": "center", "annotation_clip": False}
        ax.annotate(experiment.short, end, color=color, **beside)
    ax.set_xlabel("pairs of classes, sorted; own pair circled")
    ax.set_ylabel("accuracy lost by K̃")
    say(ax, "K̃ on all pairs of classes")


def draw_constants(ax: Axes, experiments: Experiments) -> None:
    """Accuracy of K̃ by the boost of its diagonal and the density, and where it is indefinite."""
    plane = evidence.plane_of_constants(experiments[0].kinds["sensitivity"])
    picture_only(ax)
    ax.imshow(plane.accuracy, origin="lower", aspect="auto", cmap="YlGn_r", vmin=0.5)
    for (row, column), text in np.ndenumerate(plane.text):
        ax.text(column, row, text, fontsize=9, ha="center", va="center")
    boosts = plane.boost.values.tolist()
    densities = plane.density.values.tolist()
    x = densities.index(plane.attrs["density"])
    y = boosts.index(plane.attrs["boost"])
    corner = (x - 0.5, y - 0.5)
    ax.add_patch(Rectangle(corner, 1, 1, fill=False, linewidth=2))
    ax.set_xticks(range(len(densities)), labels=densities)
    ax.set_yticks(range(len(boosts)), labels=boosts)
    ax.set_xlabel("density of the pattern; the paper's is framed")
    ax.set_ylabel("boost")
    short = experiments[0].short
    say(ax, f"{short}: accuracy of K̃, n = {plane.n:d};\nin brackets not positive definite")


def cost(ax: Axes, experiment: Experiment) -> None:
    """Queries of the best quantum ways to one prediction, and operations of two classical ones."""
    ways = costs.six_ways(experiment.kinds["emulation"])
    named = {}
    for name in list(ways)[:4]:  # the others are dearer
        named[name] = costs.geometric(ways[name])
    draw_curves(ax, named, "queries or operations of a prediction")


PANELS = (condition_number, post_selection, readout, growth, cost)
