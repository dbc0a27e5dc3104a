"""The figures of analysis.ipynb: what training.py, emulation.py and controls.py wrote, drawn.

    loaded = figures.load("kernel_output")
    figures.show_all(loaded, figures.accuracy)

First what is on the disk, and how it is shown; then every function draws one figure. None computes a kernel: what
value a trial has, the error bars and the fitted curves come from scaling.py, the sparsified matrices from training.py,
colours and markers from analysis/drawing.py.
"""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray
from PIL import Image

import scaling
import training
from analysis import costs, document, evidence, tables
from analysis.drawing import (
    DPI,
    GREY,
    RC,
    STYLES,
    Array,
    Style,
    add_legend,
    draw_curve,
    draw_map,
    drawn_in_style,
    mark,
    mark_below,
    note_verdicts,
    panels,
    plain_numbers,
    size_axis,
    value_axis,
)
from ntk import BadInput
from runtime.checkpoints import read_kernel
from runtime.mnist import load_data
from runtime.trials import DATASETS

# ----------------------------------------------------------------------------------------------------------------------
# Results on the disk
# ----------------------------------------------------------------------------------------------------------------------


class NothingToDraw(Exception):
    """What is missing, and what makes it."""


PARTS = {  # files beside {prefix}_results.npz, and what makes them
    "depth_sweep": "python training.py --depth-sweep",
    "digit_pairs": "python training.py --digit-pairs",
    "emulation": "python emulation.py",
    "baselines": "python controls.py",
    "sensitivity": "python controls.py",
    "circuit": "python circuit.py",
}


@dataclass
class Results:
    """Everything that is on the disk of one network.

    arrays: of {prefix}_results.npz, [sizes, trials, ...]; parts: arrays of the other files, by `PARTS`.
    """

    network: str
    prefix: str  # of the files' names
    title: str
    folder: Path
    arrays: dict[str, NDArray] = field(repr=False)
    parts: dict[str, dict[str, NDArray]] = field(default_factory=dict, repr=False)

    def part(self, name: str) -> dict[str, NDArray]:
        """The arrays of one of `PARTS`. Raises NothingToDraw where they are not on the disk."""
        if name not in self.parts:
            raise NothingToDraw(f"{self.prefix}_{name}.npz is not there; {PARTS[name]} makes it")
        return self.parts[name]

    @property
    def dataset(self) -> str:
        """What the images are of: mnist or digits."""
        return "mnist" if self.prefix == self.network else "digits"


def load(folder: str | Path, dataset: str | None = None) -> dict[str, Results]:
    """{network: Results} of what is in `folder`: MNIST's if any, else the stand-in digits', which a line says.

    dataset: "mnist" or "digits" for these alone.
    """
    folder, loaded = Path(folder), {}
    for network in training.networks:
        there = [name for name, first in DATASETS.items() if (folder / f"{first}{network}_results.npz").exists()]
        chosen = [name for name in there if dataset in (None, name)]
        if not chosen:
            print(f"note: no results of the {network} network in {folder}/; its figures are left out")
            continue
        if chosen[0] == "digits":
            print(f"THE {network.upper()} RESULTS ARE OF SCIKIT-LEARN'S 8x8 DIGITS, NOT OF MNIST.")
        elif "digits" in there:
            print(f"note: of the {network} network MNIST's results are shown; the stand-in digits' are there too: "
                  'dataset = "digits" in the first cell shows them')  # fmt: skip
        prefix = DATASETS[chosen[0]] + network
        first, second = sorted(training.selections[network])
        name = "MNIST" if chosen[0] == "mnist" else "NOT MNIST: scikit-learn digits"
        arrays = {part: read_arrays(folder / f"{prefix}_{part}.npz") for part in ("results", *PARTS)}
        parts = {part: found for part, found in arrays.items() if found and part != "results"}
        if arrays["results"]:
            title = f"{network.replace('-', ' ')}, {name} {first} and {second}"
            loaded[network] = Results(network, prefix, title, folder, arrays["results"], parts)
    return loaded


def read_arrays(path: Path) -> dict[str, NDArray]:
    """The arrays of a file; {} where it is not there or, with a note, can't be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        return {}
    except Exception as error:  # a damaged file can raise anything
        print(f"note: {path} can't be read ({error}); it is left out")
        return {}


def print_runs(folder: str | Path) -> None:
    """A line for the last run of each kind that run.json lists: what was computed from what, where, and how long.

    A second one where that run found all kernels on the disk: of the last one that computed some.
    """
    try:
        lines, computing = {}, {}
        for run in json.loads((Path(folder) / "run.json").read_text())["sittings"]:
            seconds = run["seconds"]["total"] if isinstance(run["seconds"], dict) else run["seconds"]
            where = f"{run['dataset']}; {run['device']}; engine {run['engine']}, {run['precision']}"
            what = f"{run['network']}, {run['what'].replace('_', ' ')}"
            took = f"last run {seconds:,.0f} s, finished {run['finished']}"
            if "pairs_computed" in run:  # of all pairs that the run needed; the others it found on the disk
                share = f"{run['pairs_computed']:,} of {run['pairs']:,} pairs computed"
                took += f", {share}"
                if run["pairs_computed"]:
                    computing[what] = f"\n    before it {seconds:,.0f} s, finished {run['finished']}, {share}"
                else:
                    took += computing.get(what, "")
            lines[what] = f"{what}: {where}; {took}"
        print("\n".join(lines.values()))
    except (OSError, ValueError, KeyError, TypeError):
        print(f"note: {folder}/run.json does not say where these results come from")


def show_tables(loaded: Mapping[str, Results]) -> None:
    """Means by size of what the figures show, with their 95 % intervals, as in RESULTS.md."""
    from IPython.display import Markdown, display

    for results in loaded.values():
        parts = [tables.means_table(results.arrays, columns) for columns in tables.TABLES.values()]
        display(Markdown("\n\n".join([f"**{results.title}**", *parts])))


def show_growth(loaded: Mapping[str, Results], *names: str) -> None:
    """What scaling.py says of the growth of these arrays, a sentence each; without names, of all, a table."""
    from IPython.display import Markdown, display

    for results in loaded.values():
        if names:
            lines = [f"- {tables.sentence(results.arrays, name)}" for name in names if name in results.arrays]
            display(Markdown("\n".join([f"{results.title}:\n", *lines])))
        else:
            there = [name for name in scaling.QUANTITIES if name in results.arrays]
            display(Markdown(f"**{results.title}**\n\n{tables.growth_table(results.arrays, there)}"))


def show_crossings(loaded: Mapping[str, Results]) -> None:
    """From which n on a quantum prediction would be cheaper than a classical one, by analysis/costs.py."""
    from IPython.display import Markdown, display

    for results in loaded.values():
        try:
            emulation = emulation_of(results)
        except (NothingToDraw, BadInput):
            continue  # which the figure's note says
        table = costs.crossing_table(costs.crossings(emulation, scaling.fit_growth))
        display(Markdown(f"**{results.title}**: from which n on it would be cheaper\n\n{table}"))


FINDINGS = {  # parts of which RESULTS.md has sentences
    "depth_sweep": evidence.depth_section,
    "baselines": evidence.baselines_section,
    "digit_pairs": evidence.digit_pairs_section,
    "sensitivity": evidence.sensitivity_section,
}


def show_findings(loaded: Mapping[str, Results], part: str) -> None:
    """What RESULTS.md says of one of `FINDINGS`: its sentences without its tables."""
    from IPython.display import Markdown, display

    for results in loaded.values():
        if part in results.parts:
            try:
                text = FINDINGS[part](tables.title_of(results.prefix), results.parts[part])
            except KeyError as missing:
                print(f"note: {results.prefix}_{part}.npz lacks {missing}; another version wrote it")
                continue
            lines = [line for line in text.splitlines() if line.startswith(("- ", "All "))]
            display(Markdown("\n".join([f"{results.title if part != 'digit_pairs' else results.network}:\n", *lines])))


def show_simulation() -> None:
    """How often the intervals cover and the verdicts are wrong, by design and by the spread of the trials."""
    from IPython.display import Markdown, display

    rows = document.simulation()
    if rows:
        display(Markdown(document.simulated_designs(rows)))


def save(figure: Figure, name: str, folder: str | Path) -> bytes:
    """Save a figure as {folder}/figures/{name}.png. Returns the picture."""
    picture, drawn = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(RC):
        figure.savefig(drawn, format="png", dpi=DPI)
    # 256 colours are enough, and a third of the size.
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, format="png", optimize=True)
    try:
        (Path(folder) / "figures").mkdir(parents=True, exist_ok=True)
        (Path(folder) / "figures" / f"{name}.png").write_bytes(picture.getvalue())
    except OSError as error:
        print(f"note: {name}.png is shown, but can't be written ({error.strerror})")
    return picture.getvalue()


def show(drawing: Callable[[Any], Figure], results: Any, name: str, folder: str | Path) -> None:
    """Draw, save and display one figure, or print what is missing for it."""
    from IPython.display import display

    try:
        picture = save(drawing(results), name, folder)
    except (NothingToDraw, BadInput) as missing:
        print(f"note: {missing}")
    except KeyError as missing:
        print(f"note: {name} is not drawn: its file lacks {missing}; another version wrote it")
    else:
        display({"image/png": picture, "text/plain": name}, raw=True)


def show_all(loaded: Mapping[str, Results], drawing: Callable[[Results], Figure]) -> None:
    """Draw, save and display one figure for each network."""
    for results in loaded.values():
        show(drawing, results, f"{results.prefix}_{drawing.__name__}", results.folder)


def show_together(loaded: Mapping[str, Results], drawing: Callable[[Mapping[str, Results]], Figure]) -> None:
    """Draw, save and display one figure of all networks; its name tells digits from MNIST."""
    for results in list(loaded.values())[:1]:
        first = DATASETS["digits"] if all(r.dataset == "digits" for r in loaded.values()) else ""
        show(drawing, loaded, first + drawing.__name__, results.folder)


# ----------------------------------------------------------------------------------------------------------------------
# The claims
# ----------------------------------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """One curve of a panel: its style, its array, its line by convention, and a label if not the style's."""

    style: str
    array: str
    line: str = "original"
    label: str | None = None


class Panel(NamedTuple):
    """One quantity over n: its axis, its curves, and whether their growth is fitted."""

    label: str
    curves: tuple[Shown, ...]
    fitted: bool = True


PANELS = {
    "sparsity": Panel(
        "most non-zeros in a column", (Shown("sparsified", "sparsity"), Shown("pattern", "pattern_sparsity"))
    ),
    "accuracy": Panel(
        "accuracy at the median",
        (
            Shown("exact", "accuracy_exact"),
            Shown("sparsified", "accuracy_sparse"),
            Shown("diagonal", "accuracy_diagonal"),
        ),
        fitted=False,
    ),
    "condition_number": Panel(
        "condition number κ", (Shown("exact", "condition_number_exact"), Shown("sparsified", "condition_number"))
    ),
    "post_selection": Panel(
        "post-selection measurements",
        (
            Shown("both", "post_selection_measurements", label="divisor unknown"),
            Shown("both", "post_selection_measurements_training", "sounder", "divisor known"),
        ),
    ),
    "readout": Panel(
        "readout measurements",
        (
            Shown("sparsified", "readout_measurements_sparse"),
            Shown("diagonal", "readout_measurements_diagonal"),
        ),
    ),
}


def known_values(arrays: Mapping[str, NDArray], name: str) -> list[Array]:
    """The trials' values by scaling.py; of what it does not judge, which is one number a trial or pattern, the mean."""
    if name in scaling.QUANTITIES:
        return scaling.trial_values(arrays, name)
    return [np.array([np.mean(trial) for trial in size if not np.isnan(trial).all()]) for size in arrays[name]]


def plotted_values(results: Results, name: str) -> tuple[list[Array], bool]:
    """The trials' values of a quantity by size; of the fully-connected condition numbers, which are near 1, κ - 1.

    Returns (list of [trials], whether 1 was subtracted).
    """
    values = known_values(results.arrays, name)
    near_one = name.startswith("condition_number") and results.network == "fully-connected"
    return [v - 1 for v in values] if near_one else values, near_one


def draw_panel(ax: Axes, results: Results, quantity: str, verdicts: bool = True) -> bool:
    """One quantity of `PANELS` over n. Returns whether a curve was fitted."""
    panel, n = PANELS[quantity], results.arrays["data_sizes"]
    curves, near_one, shares = [], False, quantity == "accuracy"
    for i, (key, name, line, label) in enumerate(panel.curves):
        values, near_one = plotted_values(results, name)
        options: dict[str, Any] = dict(sidestep=i - (len(panel.curves) - 1) / 2, fitted=panel.fitted and not near_one)
        curve = draw_curve(ax, n, values, STYLES[key], label, line=line, outliers=not shares, **options)
        # The verdict is about κ itself, where κ - 1 is drawn.
        curves.append(curve._replace(growth=tables.judged(results.arrays, name)) if panel.fitted else curve)
    heights = np.concatenate([curve.heights for curve in curves])
    kind = {"accuracy": "shares", "condition_number": "ratios"}.get(quantity, "counts")
    value_axis(ax, heights, kind, log=near_one or None)
    size_axis(ax, n[results.arrays["trials"] > 0])
    if shares:
        mark_below(ax, curves)
    ax.set_ylabel(panel.label + " − 1" * near_one)
    if verdicts:
        note_verdicts(ax, curves, of="κ" if near_one else "")  # what is drawn is κ - 1
    return bool(panel.fitted and not near_one)


@drawn_in_style
def overview(loaded: Mapping[str, Results]) -> Figure:
    """Accuracy, condition number, post-selection and readout: a column for each network."""
    quantities = ("accuracy", "condition_number", "post_selection", "readout")
    if len(loaded) == 1:
        cells = [(results, quantity) for results in loaded.values() for quantity in quantities]
    else:
        cells = [(results, quantity) for quantity in quantities for results in loaded.values()]
    rows = len(cells) // 2
    figure, axes = panels(rows, 2, 3.4, 2.9)  # narrow, so that it can be read on a phone
    for i, (ax, (results, quantity)) in enumerate(zip(axes.flat, cells, strict=True)):
        draw_panel(ax, results, quantity)
        if i < 2:
            title = f"{results.title.replace(', ', chr(10), 1)}\ntrials: {counts_of(results.arrays)}"
            ax.set_title(title, fontsize=11)
        ax.yaxis.label.set_size(10.5)
        if i < len(cells) - 2:
            ax.set_xlabel("")
    add_legend(figure, columns=2, fitted=True)
    return figure


def one_quantity(quantity: str) -> Callable[[Results], Figure]:
    """The function that draws one quantity of `PANELS` for one network."""

    def draw(results: Results) -> Figure:
        figure, axes = panels(1, 1, 7, 5)
        fitted = draw_panel(axes[0, 0], results, quantity)
        above = 12 * len(PANELS[quantity].curves) * PANELS[quantity].fitted  # room for the verdicts
        axes[0, 0].set_title(f"{results.title}\ntrials: {counts_of(results.arrays)}", fontsize=12, pad=8 + above)
        add_legend(figure, columns=2, fitted=fitted)
        return figure

    draw.__name__, draw.__doc__ = quantity, f"{PANELS[quantity].label} over n, of one network."
    return drawn_in_style(draw)


sparsity, accuracy, condition_number, post_selection, readout = map(one_quantity, PANELS)


SOUNDER: list[tuple[str, str, list[tuple[str, str, str, str]]]] = [  # axis, its kind, [(style, array, line, label)]
    ("most non-zeros in a column of K̃", "counts", [
        ("sparsified", "sparsity", "original", "original"),
        ("sparsified", "sparsity_sound", "sounder", "sound"),
    ]),
    ("condition number of K̃", "ratios", [
        ("sparsified", "condition_number", "original", "original"),
        ("sparsified", "condition_number_sound", "sounder", "sound"),
    ]),
    ("test accuracy", "shares", [
        ("exact", "accuracy_exact", "original", "exact, at the median"),
        ("exact", "accuracy_exact_at_zero", "sounder", "exact, at 0"),
        ("sparsified", "accuracy_sparse", "original", "sparsified, at the median"),
        ("sparsified", "accuracy_sparse_at_zero", "sounder", "sparsified, at 0"),
        ("sparsified", "accuracy_sparse_at_zero_sound", "k_thresh", "sparsified, sound, at 0"),
        ("diagonal", "accuracy_diagonal", "original", "diagonal, at the median"),
        ("diagonal", "accuracy_diagonal_at_zero", "sounder", "diagonal, at 0"),
    ]),
    ("post-selection measurements", "counts", [
        ("both", "post_selection_measurements", "original", "original: by the test block"),
        ("both", "post_selection_measurements_training", "sounder", "by the training matrix"),
        ("both", "post_selection_measurements_k_thresh", "k_thresh", "by k_thresh alone"),
    ]),
    ("readout measurements", "counts", [
        ("sparsified", "readout_measurements_sparse", "original", "sparsified, at 0"),
        ("sparsified", "readout_measurements_sparse_at_median", "sounder", "sparsified, at the median"),
        ("diagonal", "readout_measurements_diagonal", "original", "diagonal, at 0"),
        ("diagonal", "readout_measurements_diagonal_at_median", "sounder", "diagonal, at the median"),
    ]),
    ("share", "fractions", [
        ("sparsified", "positive_definite", "original", "K̃ positive definite, original"),
        ("sparsified", "positive_definite_sound", "sounder", "K̃ positive definite, sound"),
        ("both", "clipped_share_training", "sounder", "k* clipped by the training matrix"),
        ("both", "clipped_share_k_thresh", "k_thresh", "k* clipped by k_thresh"),
    ]),
]  # fmt: skip


def counts_of(arrays: Mapping[str, NDArray]) -> str:
    """How many trials each size has: "16, 8, 4", "32 up to n = 1024, then 8, 4, 2", or "32" for all."""
    n, counts = arrays["data_sizes"][arrays["trials"] > 0], arrays["trials"][arrays["trials"] > 0]
    if not len(counts):
        return "none"
    alike = int(np.argmin(np.append(counts, 0) == counts[0]))  # of the smallest sizes
    if alike == len(counts):
        return str(counts[0])
    others = ", ".join(map(str, counts[alike if alike > 2 else 0 :]))
    return f"{counts[0]} up to n = {n[alike - 1]}, then {others}" if alike > 2 else others


@drawn_in_style
def sounder(results: Results) -> Figure:
    """The original's conventions (filled, solid) beside sounder ones (hollow, dashed or dotted): six panels."""
    figure, axes = panels(3, 2, 5, 4.2, f"{results.title}; trials: {counts_of(results.arrays)}; means, 95 % intervals")
    arrays, n = results.arrays, results.arrays["data_sizes"]
    for ax, (label, kind, curves) in zip(axes.flat, SOUNDER, strict=True):
        heights = []
        for i, (key, name, line, what) in enumerate(curves):
            options: dict[str, Any] = dict(line=line, sidestep=(i - (len(curves) - 1) / 2) / 2, points=False)
            values, near_one = plotted_values(results, name)
            heights.append(draw_curve(ax, n, values, STYLES[key], what, **options).heights)
        value_axis(ax, np.concatenate(heights), kind, log=near_one or None)
        size_axis(ax, n[arrays["trials"] > 0])
        ax.set_title(label + " − 1" * near_one, fontsize=12)
        ax.legend(fontsize=9.5, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1 + (len(curves) > 3))
    return figure


@drawn_in_style
def separability(results: Results) -> Figure:
    """The training images' separability delta over n and, of the fully-connected network, the depth it asks for."""
    arrays, n = results.arrays, results.arrays["data_sizes"]
    shown = {"separability": "separability δ", "depth": "depth"}
    if results.network == "convolutional":
        del shown["depth"]  # the same at every size
    figure, axes = panels(1, len(shown), 5.2, 4.4, results.title)
    for ax, (name, label) in zip(axes[0], shown.items(), strict=True):
        curve = draw_curve(ax, n, known_values(arrays, name), STYLES["exact"], "training images")
        value_axis(ax, curve.heights, log=name == "separability")
        size_axis(ax, n[arrays["trials"] > 0])
        ax.set_ylabel(label)
    add_legend(figure, columns=2 + len(shown) // 2)
    return figure


def means_at(
    n: NDArray, values: Sequence[Sequence[Array]], size: int, shares: bool, geometric: bool = False
) -> tuple[Array, Array]:
    """Means at one size, with their half-widths, of what is varied beside it: [settings] each.

    values: by setting and size [trials]. Spreads are pooled over the sizes n, as in RESULTS.md, and not over what is
    varied, where the trials are the same ones; of shares they are absolute. geometric: as of `scaling.size_means`.
    """
    found = []
    for each in values:
        mean, _, half = scaling.size_means(n, [trials + shares for trials in each], geometric)
        found.append((mean[size] - shares, half[size]))
    mean, half = np.array(found).T
    return mean, half


SWEEP: dict[str, tuple[str, dict[str, str]]] = {  # title: (kind of axis, {style: array})
    "test accuracy": ("shares", {c.style: c.array for c in PANELS["accuracy"].curves}),
    "condition number κ, geometric means": ("ratios", {c.style: c.array for c in PANELS["condition_number"].curves}),
    "off-diagonal / diagonal of K": ("counts", {"exact": "off_diagonal_ratio"}),
    "share of K̃ positive definite": ("fractions", {"sparsified": "positive_definite"}),
}


@drawn_in_style
def depth_sweep(results: Results) -> Figure:
    """Where the approximations come apart: a row for each size, four quantities over the depth."""
    sweep = results.part("depth_sweep")
    depths, rows = sweep["depth_settings"], np.flatnonzero(sweep["trials"])
    figure, axes = panels(
        len(rows), len(SWEEP), 3.6, 2.7 if len(rows) > 1 else 3.8, results.title, sharex=True, sharey="col"
    )
    for column, (label, (kind, names)) in enumerate(SWEEP.items()):
        heights = [np.empty(0)]
        for ax, i in zip(axes[:, column], rows.tolist(), strict=True):
            for curve, (key, name) in enumerate(names.items()):
                if name in sweep:
                    by_depth = [known_values({name: each}, name) for each in np.moveaxis(sweep[name], 1, 0)]
                    shares, geometric = kind in ("shares", "fractions"), kind == "ratios"
                    means = means_at(sweep["data_sizes"], by_depth, i, shares, geometric)
                    options: dict[str, Any] = dict(geometric=geometric, means=means, outliers=not geometric)
                    options["sidestep"] = curve - (len(names) - 1) / 2
                    values = [each[i] for each in by_depth]
                    heights.append(draw_curve(ax, depths, values, STYLES[key], **options).heights)
            ax.set_xscale("log")
            ax.set_xticks(depths, labels=[f"{depth:g}" for depth in depths], rotation=45)
            ax.xaxis.set_minor_locator(NullLocator())
            ax.axvline(evidence.origin(sweep)["depth_rule"], color=GREY, lw=1, ls=":", label="the original's depth")
            if column == 0:
                ax.set_ylabel(f"n = {sweep['data_sizes'][i]}, trials: {sweep['trials'][i]}")
        everything = np.concatenate(heights)
        # What is below the smallest difference from 1 in double precision can't matter.
        seen = everything[(everything > np.finfo(float).eps) | (kind in ("shares", "fractions"))]
        value_axis(axes[0, column], seen, kind)
        axes[0, column].set_title(label, fontsize=12)
        axes[-1, column].set_xlabel("depth / L$_{conv}$" if depths.max() <= 1 else "depth")
    add_legend(figure, columns=6)
    return figure


# ----------------------------------------------------------------------------------------------------------------------
# Images and kernels
# ----------------------------------------------------------------------------------------------------------------------


@drawn_in_style
def images(results: Results, count: int = 8) -> Figure:
    """`count` random training images of each of the network's two digits; MNIST's are downloaded where need be."""
    try:
        with contextlib.redirect_stderr(sys.stdout):
            split = load_data(results.dataset)["train"]
    except BadInput as error:
        raise NothingToDraw(f"no images of the {results.network} network: {error}") from error
    figure, axes = panels(2, count, 1, 1.1, results.title)
    rng = np.random.default_rng(0)
    for row, digit, label in zip(axes, training.selections[results.network], ("−1", "+1"), strict=True):
        drawn = rng.permutation(np.flatnonzero(split["label"] == digit))[:count]
        for ax, image in zip(row, split["image"][drawn], strict=True):
            ax.imshow(image[..., 0], cmap="gray_r")
            ax.set_axis_off()
        row[0].text(-0.25, 0.5, f"y = {label}", transform=row[0].transAxes, rotation=90, va="center", ha="center")
    return figure


def approximations(results: Results, most: int = 64) -> dict[str, Array]:
    """{style: matrix} of trial 0 of the largest size up to `most` whose kernels are on the disk, as training.py does.

    Raises NothingToDraw where none is.
    """
    seed = json.loads(str(results.arrays.get("origin", "{}"))).get("seed", training.seed)
    missing = f"no kernels of the {results.network} network in {results.folder}/; python training.py makes them"

    def kernel_of(n: int) -> tuple[Array, dict[str, Any]]:
        return read_kernel(results.folder / f"{results.prefix}_seed{seed}_data{n}_trial0_kernel_train.npy")

    sizes = [int(n) for n in results.arrays["data_sizes"] if n <= most]
    for n in sorted(sizes, reverse=True):
        try:
            (kernel, label), thresholds = kernel_of(n), None
            if results.network == "convolutional":
                reference = kernel_of(training.reference_size)[0]
                thresholds = training.kernel_thresholds(label["depth"], reference)["class_thresholds"]
        except BadInput as error:
            missing = missing if isinstance(error.__cause__, FileNotFoundError) else str(error)
            continue
        trial = training.make_trial(results.network, training.selections[results.network], n, 0)
        sparsified = training.trial_approximations(trial, seed, kernel, thresholds)["original"][0]
        return {"exact": kernel, "sparsified": sparsified, "diagonal": np.diag(np.diag(kernel))}
    raise NothingToDraw(missing)


@drawn_in_style
def kernels(results: Results) -> Figure:
    """One training set's exact, sparsified and diagonal matrix on one logarithmic colour scale; zeros are white."""
    matrices = approximations(results)
    scale = np.abs(matrices["exact"]).max()
    magnitudes = {key: np.abs(matrix) / scale for key, matrix in matrices.items()}
    smallest = max(1e-12, min(float(m[m > 0].min()) for m in magnitudes.values()))
    enlarged = max(m.max() for m in magnitudes.values()) > 1
    norm = LogNorm(smallest, 1)
    colors = mpl.colormaps["viridis"].with_extremes(over=STYLES["sparsified"].color)
    figure, axes = panels(1, 3, 3.5, 3.8, f"{results.title}, n = {len(matrices['exact'])}", sharey=True)
    for ax, (key, magnitude) in zip(axes[0], magnitudes.items(), strict=True):
        picture = ax.imshow(np.ma.masked_equal(magnitude, 0), cmap=colors, norm=norm)
        ax.set_title(STYLES[key].label, fontsize=12)
        ax.set_xlabel("training image")
        ax.grid(False)
    axes[0, 0].set_ylabel("training image")
    label = "|K| / largest exact |K|" + (" (orange: larger)" if enlarged else "")
    bar = figure.colorbar(picture, ax=axes, label=label, shrink=0.85, extend="max" if enlarged else "neither")
    if smallest > 0.01:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if smallest < 0.1 else range(1, 10)))
        bar.ax.yaxis.set_major_formatter(plain_numbers())
        bar.ax.yaxis.set_minor_locator(NullLocator())
    return figure


# ----------------------------------------------------------------------------------------------------------------------
# Could the evidence have failed?
# ----------------------------------------------------------------------------------------------------------------------

BASELINES = {  # array's ending: (label, marker)
    "kernel_mean": ("class mean of the kernel", "v"),
    "nearest_mean": ("nearest class mean of the pixels", "P"),
    "ridge": ("ridge regression on the pixels", "X"),
    "nearest_neighbour": ("nearest neighbour", "<"),
    "ink": ("sum of the pixels", "*"),
}


@drawn_in_style
def baselines(results: Results) -> Figure:
    """Accuracy of simple classifiers beside the exact NTK and its diagonal approximation, at both thresholds."""
    arrays = results.part("baselines")
    n = arrays["data_sizes"]
    figure, axes = panels(1, 2, 5.2, 5.6, f"{results.title}; trials: {counts_of(arrays)}", sharey=True)
    ink: list[float] = []  # heights
    others: list[float] = []
    for ax, ending, where in zip(axes[0], ("", "_at_zero"), ("threshold at the median", "threshold at 0"), strict=True):
        drawn = {f"accuracy_{key}": STYLES[key] for key in ("exact", "diagonal")}
        for i, (key, (label, marker)) in enumerate(BASELINES.items()):
            drawn[f"accuracy_{key}"] = Style(label, to_hex(mpl.colormaps["PuRd"](0.95 - 0.13 * i)), marker)
        for i, (name, style) in enumerate(drawn.items()):
            values = known_values(arrays, name + ending)
            options: dict[str, Any] = dict(sidestep=(i - len(drawn) / 2) / 2, points=False)
            heights = ink if name == "accuracy_ink" else others
            heights.extend(draw_curve(ax, n, values, style, **options).heights)
        size_axis(ax, n)
        ax.set_title(where, fontsize=12)
    below = bool(ink and others) and max(ink) < min(others) - 0.1  # so far that the axis leaves it out
    value_axis(axes[0, 0], np.array(others if below else ink + others), "shares")
    for ax, ending in zip(axes[0], ("", "_at_zero"), strict=True) if below else ():
        means = [np.mean(trials) for trials in known_values(arrays, f"accuracy_ink{ending}") if len(trials)]
        said = f"below: {drawn['accuracy_ink'].label}, {min(means):.2f} to {max(means):.2f}"
        options = dict(ha="center", transform=ax.transAxes, fontsize=10, color=drawn["accuracy_ink"].color)
        ax.text(0.5, 0.01, said, **options)
    axes[0, 0].set_ylabel("test accuracy")
    add_legend(figure, columns=3, points=False)
    return figure


class Map(NamedTuple):
    """One quantity of a map, and how it is coloured."""

    title: str
    name: str  # of the array
    subtracted: str = ""  # another array, if any
    log: bool = False
    small_is_good: bool = False
    digits: int = 3  # of numbers below 1


PAIR_MAPS = (
    Map("accuracy, exact", "accuracy_exact"),
    Map("accuracy, exact − sparsified", "accuracy_exact", "accuracy_sparse", small_is_good=True),
    Map("accuracy, exact − diagonal", "accuracy_exact", "accuracy_diagonal", small_is_good=True),
    Map("condition number, exact", "condition_number_exact", log=True, small_is_good=True),
    Map("condition number, sparsified", "condition_number", log=True, small_is_good=True),
    Map("post-selection measurements", "post_selection_measurements_median", log=True, small_is_good=True),
    Map("readout measurements, sparsified", "readout_measurements_sparse_median", log=True, small_is_good=True),
    Map("readout measurements, diagonal", "readout_measurements_diagonal_median", log=True, small_is_good=True),
)


def draw_shown(
    ax: Axes, shown: Map, table: Array, chance: NDArray[np.bool_], scale: Array | None = None
) -> None:  # fmt: skip
    """What a map shows as its colours; chance and scale as of `draw_map`."""
    draw_map(ax, table, shown.log, shown.digits, scale, chance, shown.small_is_good, bool(shown.subtracted))


def setting_means(arrays: Mapping[str, NDArray], name: str, size: int) -> Array:
    """Means over the trials of one size, of an array [sizes, settings, trials, ...]: [settings]."""
    by_setting = np.moveaxis(arrays[name], 1, 0)
    return np.array([np.mean(known_values({name: each}, name)[size]) for each in by_setting])


def map_values(arrays: Mapping[str, NDArray], shown: Map, size: int) -> Array:
    """What a map shows, of one size: [settings]."""
    values = setting_means(arrays, shown.name, size)
    return values - setting_means(arrays, shown.subtracted, size) if shown.subtracted else values


def count_of(arrays: Mapping[str, NDArray], size: int) -> str:
    """How many trials the means of a size are of."""
    trials = arrays["trials"][size]
    return "one trial" if trials == 1 else f"means of {trials} trials"


@drawn_in_style
def digit_pairs(results: Results) -> Figure:
    """Eight quantities of all 45 pairs of digits at the largest size; the paper's two pairs are framed.

    Differences are of the size at which they are largest. Ranks are RESULTS.md's, of all sizes together.
    """
    arrays = results.part("digit_pairs")
    there = np.flatnonzero(arrays["trials"]).tolist()
    size = there[-1]
    title = f"{results.title.split(',')[0]}, all pairs of digits, n = {arrays['data_sizes'][size]}"
    title += f", {count_of(arrays, size)}; framed: the paper's pairs\n"
    title += "yellow: good; of differences, blue: the approximation is better, red: worse, white: may be chance"
    figure, axes = panels(4, 2, 5, 4.4, title)
    pairs = np.sort(arrays["digit_pairs"], axis=1).astype(int)
    for ax, shown in zip(axes.flat, PAIR_MAPS, strict=True):
        at = size
        if shown.subtracted:
            at = there[np.argmax([np.abs(map_values(arrays, shown, s)).max() for s in there])]
        values, title = map_values(arrays, shown, at), shown.title
        title += f", n = {arrays['data_sizes'][at]}" * (at != size)
        if shown.name.startswith("condition_number") and results.network == "fully-connected":
            values, title = values - 1, f"{title} − 1"
        table, chance = np.full((10, 10), np.nan), np.zeros((10, 10), bool)
        table[pairs[:, 1], pairs[:, 0]] = values
        if shown.subtracted:
            chance[pairs[:, 1], pairs[:, 0]] = evidence.pair_chance(arrays, shown.name, shown.subtracted, at)
        draw_shown(ax, shown, table, chance)
        ax.set(xlim=(-0.5, 8.5), ylim=(9.5, 0.5), xticks=range(9), yticks=range(1, 10), title=title)
        ranks, averages = ["ranks, all n:"], evidence.pair_values(arrays, shown.name, shown.subtracted or None)
        for network, digits in training.selections.items():
            first, second = sorted(digits)
            mark(ax, first, second, solid=network == results.network)
            for pair in np.flatnonzero((pairs == (first, second)).all(axis=1)).tolist():
                _, _, possible = evidence.pair_ranks(averages, pair, not shown.small_is_good)
                ranks.append(f"{first} and {second}: {evidence.rank_in_words(possible, len(pairs))[0]}")
        ax.text(0.98, 0.97, "\n".join(ranks), transform=ax.transAxes, ha="right", va="top", fontsize=8.5)
    return figure


SENSITIVITY_MAPS = (
    Map("accuracy, threshold at the median", "accuracy_sparse"),
    Map("the same minus the diagonal's", "accuracy_sparse", "accuracy_diagonal"),
    Map("accuracy, threshold at 0", "accuracy_sparse_at_zero"),
    Map("the same minus the diagonal's", "accuracy_sparse_at_zero", "accuracy_diagonal_at_zero"),
    Map("condition number of K̃, medians", "condition_number", log=True, small_is_good=True),
    Map("share of K̃ positive definite", "positive_definite"),
)
PLANES = (("percentile", "boost"), ("density", "boost"), ("percentile", "density"))  # (x, y)


@drawn_in_style
def sensitivity(results: Results) -> Figure:
    """What the constants set by hand do: three planes through the paper's point, which is framed.

    Of the largest size of several trials, where there is one. Colours of differences have white at 0.
    """
    arrays = results.part("sensitivity")
    papers = dict(zip(evidence.PARAMETERS, evidence.origin(arrays)["papers_setting"], strict=True))
    several = np.flatnonzero(arrays["trials"] > 1)
    size = (several if several.size else np.flatnonzero(arrays["trials"]))[-1]
    n = arrays["data_sizes"][size]
    title = f"{results.title}, n = {n}, {count_of(arrays, size)}; framed: the paper's point\n"
    title += "yellow: good; of differences, blue: K̃ is better, red: it is worse, white: the 95 % interval includes 0"
    figure, axes = panels(len(SENSITIVITY_MAPS), len(PLANES), 3.9, 3.1, title)
    for row, shown in zip(axes, SENSITIVITY_MAPS, strict=True):
        maps = [sensitivity_map(arrays, shown, n, *plane) for plane in PLANES]
        chance = may_be_chance(arrays, shown, size)
        scale = np.concatenate([table.ravel() for *_, table in maps])
        for ax, plane, (y, x, table) in zip(row, PLANES, maps, strict=True):
            places = (evidence.PARAMETERS.index(name) for name in reversed(plane))
            draw_shown(ax, shown, table, evidence.plane(arrays, chance, *places)[2] == 1, scale)
            ax.set_xticks(range(len(x)), labels=[f"{value:g}" for value in x])
            ax.set_yticks(range(len(y)), labels=[f"{value:g}" for value in y])
            ax.set(xlabel=plane[0], ylabel=plane[1], ylim=(-0.5, len(y) - 0.5))
            ax.set_title(shown.title, fontsize=11)
            mark(ax, x.searchsorted(papers[plane[0]]), y.searchsorted(papers[plane[1]]))
    return figure


def may_be_chance(arrays: Mapping[str, NDArray], shown: Map, size: int) -> Array:
    """At which settings [settings] K̃'s gain over its diagonal, if the map shows that, may be 0: 1 there, else 0."""
    if not shown.subtracted:
        return np.zeros(len(arrays["settings"]))
    mean, half = evidence.gains(arrays, shown.name.removeprefix("accuracy_sparse"), "")
    return (np.abs(mean) <= half)[:, size].astype(float)


def sensitivity_map(arrays: Mapping[str, NDArray], shown: Map, n: int, x: str, y: str) -> tuple[Array, Array, Array]:
    """Values of the parameters y and x, and what a map shows of them, as in RESULTS.md: [y, x]."""
    plane = evidence.PARAMETERS.index(y), evidence.PARAMETERS.index(x)
    rows, columns, table = evidence.sensitivity_map(arrays, shown.name, n, *plane)
    if shown.subtracted:
        table = table - evidence.sensitivity_map(arrays, shown.subtracted, n, *plane)[2]
    return rows, columns, table


# ----------------------------------------------------------------------------------------------------------------------
# The algorithm emulated
# ----------------------------------------------------------------------------------------------------------------------


def emulation_of(results: Results) -> costs.Emulation:
    """What emulation.py wrote of a network. Raises NothingToDraw where that is not there."""
    results.part("emulation")
    return costs.read_emulation(results.folder / f"{results.prefix}_emulation.npz")


@drawn_in_style
def shots(results: Results) -> Figure:
    """Accuracy against the shots of a prediction, at the smallest and the largest size, and the shots needed."""
    emulation = emulation_of(results)
    t, m = emulation.axes["thresholds"].index("median"), np.array(emulation.axes["shots"])
    sizes = sorted({0, len(emulation.sizes) - 1})
    figure, axes = panels(1, len(sizes), 5.4, 4.6, results.title, sharey=True)
    heights = []

    def by_trial(name: str, axis: int) -> list[Array]:
        """[trials, ...] of each size with the threshold at the median; the mean over patterns, where there are some."""
        return [np.take(a, t, axis).mean(axis=tuple(range(1, axis))) for a in emulation.values(name)]

    for ax, i in zip(axes[0], sizes, strict=True):
        for key, ending, axis in (("sparsified", "", 2), ("diagonal", "_diagonal", 1)):
            color, by_size = STYLES[key].color, by_trial(f"accuracy{ending}", axis)
            by_shots = [[trials[:, j] for trials in by_size] for j in range(len(m))]
            means, values = means_at(np.array(emulation.sizes), by_shots, i, shares=True), list(by_size[i].T)
            options: dict[str, Any] = dict(sidestep=0.3 * (axis == 1), points=False, means=means)
            heights.append(draw_curve(ax, m, values, STYLES[key], **options).heights)
            noiseless, needed = (
                by_trial(name + ending, axis)[i].mean() for name in ("accuracy_noiseless", "shots_needed")
            )
            ax.axhline(noiseless, color=color, lw=1, ls="--", label=f"{key}, without noise")
            ax.axvline(needed, color=color, lw=1, ls=":", label=f"{key}, shots for 99 % of that")
        samples = by_trial("samples_needed_diagonal", 1)[i].mean()
        ax.axvline(samples, color=STYLES["classical"].color, lw=1, ls=":", label="classical samples for 99 %, diagonal")
        ax.set_xscale("log")
        ax.set_xlim(0.7, m[-1])
        ax.set_xlabel("shots M of a prediction")
        ax.set_title(f"n = {emulation.sizes[i]}, trials: {len(values[0])}", fontsize=12)
    value_axis(axes[0, 0], np.concatenate(heights), "shares")
    axes[0, 0].set_ylabel("test accuracy")
    add_legend(figure, columns=2, points=False)
    return figure


@drawn_in_style
def cost(loaded: Mapping[str, Results]) -> Figure:
    """What a prediction costs at least, quantum and classical, against n: a panel for each network.

    Costs have a long tail: means over the trials are geometric.
    """
    emulated = [results for results in loaded.values() if "emulation" in results.parts]
    if not emulated:
        raise NothingToDraw(f"no emulation is there; {PARTS['emulation']} makes it")
    figure, axes = panels(1, len(emulated), 5, 4.8, sharey=True)
    heights = []
    for ax, results in zip(axes[0], emulated, strict=True):
        emulation = emulation_of(results)
        for key, (label, (way, values)) in zip(COST_STYLES, costs.summary(emulation).items(), strict=True):
            drawn = draw_curve(ax, np.array(emulation.sizes), values, STYLES[key], label, fitted=True, geometric=True)
            heights.append(drawn.heights)
            place = 0.02, 0.98 - 0.06 * list(COST_STYLES).index(key)
            ax.text(*place, way, transform=ax.transAxes, color=STYLES[key].color, fontsize=10, va="top")
        size_axis(ax, emulation.sizes)
        ax.set_title(results.title.replace(", ", "\n", 1), fontsize=12)
    value_axis(axes[0, 0], np.concatenate(heights), log=True)
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(low, high * (high / low) ** 0.25)  # room for the names of the ways
    axes[0, 0].set_ylabel("cost of one prediction")
    add_legend(figure, columns=2, fitted=True, mean="geometric mean of the trials, 95 % interval")
    return figure


COST_STYLES = ("sparsified", "diagonal", "classical")  # of the curves of costs.summary


@drawn_in_style
def cost_of_all(results: Results) -> Figure:
    """Queries of a prediction by solver, encoding, readout and n, and the operations of classical ways beside them.

    The cheapest of each n is framed; a row of panels for each convention of dividing k*, where they differ.
    """
    emulation = emulation_of(results)
    readouts, tables = emulation.axes["readouts"], {}
    for convention in emulation.axes["conventions"]:
        by_way = costs.quantum_costs(emulation, convention=convention)
        diagonal = costs.diagonal_costs(emulation, convention=convention)
        never = [np.array([np.nan])] * len(emulation.sizes)  # a solver that has no such readout
        ways = dict.fromkeys((solver, encoding) for solver, encoding, _ in by_way)
        tables[convention] = {  # {readout: {way: [sizes]}}
            readout: {f"{s}, {e}": size_means(by_way.get((s, e, readout), never)) for s, e in ways}
            | {"diagonal, no solver": size_means(diagonal[readout])}
            for readout in readouts
        }
    first, *others = tables.values()
    divisors = {convention: f"over {DIVISORS[convention]}" for convention in tables}
    if all(np.allclose(first[r][way], each[r][way], 0.1, equal_nan=True)
           for each in others for r in readouts for way in first[r]):  # fmt: skip
        tables, divisors = dict(list(tables.items())[:1]), dict.fromkeys(tables, "over any divisor, ± 10 %")
    classical = {way: size_means(each) for way, each in costs.classical_costs(emulation).items()}
    width = len(readouts) + 1
    figure, axes = panels(
        len(tables), width, 3.7, 4.6, f"{results.title}: queries of one prediction; framed: the fewest at each n"
    )
    for row, (convention, by_readout) in zip(axes, tables.items(), strict=True):
        shared = [np.array(list(table.values())) for table in by_readout.values()]
        for ax, (readout, table), values in zip(row, by_readout.items(), shared, strict=False):
            draw_costs(ax, values, list(table) if ax is row[0] else [], emulation.sizes, shared)
            ax.set_title(f"{readout}\nk* {divisors[convention]}", fontsize=10)
        row[-1].set_axis_off()
    axes[0, -1].set_axis_on()
    operations = np.array(list(classical.values()))
    draw_costs(axes[0, -1], operations, list(classical), emulation.sizes, [operations])
    axes[0, -1].set_title("operations of a\nclassical computer", fontsize=10)
    return figure


DIVISORS = {
    "training": "K's largest off-diagonal",
    "test block": "the test block's largest",
    "k_thresh": "k_thresh alone",
}


def size_means(values: Sequence[Array]) -> Array:
    """Means over the trials of each size."""
    return np.array([each.mean() for each in values])


def draw_costs(ax: Axes, table: Array, rows: Sequence[str], sizes: Sequence[int], shared: Sequence[Array]) -> None:
    """One map of costs [rows, sizes]; the cheapest of each size among all the `shared` tables is framed."""
    draw_map(ax, table, log=True, scale=np.concatenate(shared), small_is_good=True)
    for column in range(len(sizes)):
        least = np.nanmin([other[:, column] for other in shared])
        for row in np.flatnonzero(table[:, column] == least):
            mark(ax, column, row)
    ax.set_xticks(range(len(sizes)), labels=map(str, sizes), rotation=45)
    ax.set_yticks(range(len(table)), labels=rows or [""] * len(table), fontsize=8.5)
    ax.set_xlabel("training images n", fontsize=10)


WIRES = ("test", "angle", "flag", "k", "j")  # registers of circuit.py, from the top
STEPS: tuple[tuple[float, str, tuple[str, ...], bool], ...] = (  # (from left, gate, registers, sparsified only)
    (0, "R$_y$", ("test",), False),
    (0, "H", ("j",), False),
    (1, "labels", ("test", "j"), False),
    (2, "H", ("angle",), True),
    (3.1, "phase", ("test", "angle", "flag", "k"), True),
    (4.2, "positions", ("k", "j"), True),
    (5.2, "entries", ("flag", "k", "j"), True),
    (6.2, "swap", ("k", "j"), True),
    (7.2, "positions$^†$", ("k", "j"), True),
    (8.4, "phase", ("test", "angle", "flag", "k"), True),
    (9.4, "H", ("angle",), True),
    (10.4, "load", ("test", "flag", "j"), False),
    (11.4, "H", ("test",), False),
    (12.3, "o", ("test",), False),
    (12.3, "0", ("angle",), False),
    (12.3, "0", ("flag",), False),
    (12.3, "0", ("k",), False),
)


@drawn_in_style
def circuit(results: Results) -> Figure:
    """One prediction as gates, drawn by oracle calls, and what circuit.py counted; orange: the sparsified one's."""
    arrays = results.part("circuit")
    figure, axes = panels(1, 1, 11, 4.6, f"{results.title}: one prediction, n = {arrays['data_sizes'][0]}")
    ax, heights = axes[0, 0], {wire: len(WIRES) - i for i, wire in enumerate(WIRES)}
    for wire, height in heights.items():
        ax.plot([-0.7, 12.3], [height, height], color=GREY, lw=1, zorder=1)
        ax.text(-0.8, height, wire, ha="right", va="center")
    for x, name, wires, solver in STEPS:
        low, high = min(heights[w] for w in wires), max(heights[w] for w in wires)
        color = STYLES["sparsified"].color if solver else "black"
        box = Rectangle((x - 0.42, low - 0.32), 0.84, high - low + 0.64, fc="white", ec=color, lw=1.4, zorder=3)
        ax.add_patch(box)
        ax.text(x, (low + high) / 2, name, ha="center", va="center", fontsize=9, color=color, zorder=4,
                rotation=90 if len(name) > 3 else 0)  # fmt: skip
        for wire in set(WIRES) - set(wires):
            if low < heights[wire] < high:  # passes under the box
                ax.plot([x - 0.42, x + 0.42], [heights[wire]] * 2, color=GREY, lw=1, ls=":", zorder=3.5)
    first = {name: np.ravel(value[0, 0]) for name, value in arrays.items() if value.ndim == 3}
    degree = first["degree_emulated"][-1]
    ax.add_patch(Rectangle((2.5, 0.5), 5.3, 5.0, fill=False, ec=STYLES["sparsified"].color, ls="--", zorder=2))
    ax.text(5.2, 5.6, f"{degree:.0f} times, every other one inverted", ha="center", fontsize=9)
    for i, algorithm in enumerate(json.loads(str(arrays["origin"]))["axes"]["algorithms"]):
        counts = {name: values[i] for name, values in first.items() if len(values) > i}
        text = (f"{algorithm}: {counts['qubits_circuit']:.0f} qubits, {counts['queries_oracle_circuit']:.0f} queries "
                f"to K̃, {counts['gates']:,.0f} gates, depth {counts['depth']:,.0f}; p = {counts['p_circuit']:.3g}, "
                f"P = {counts['P_circuit']:.3g}, o = {counts['overlap_circuit']:.4f}")  # fmt: skip
        ax.text(-0.7, 0.1 - 0.45 * i, text, fontsize=10, color=STYLES[algorithm].color)
    ax.set(xlim=(-1.8, 12.9), ylim=(-0.6, 6))
    ax.set_axis_off()
    return figure
