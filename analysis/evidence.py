"""Could the evidence have failed? The sections of RESULTS.md on depth, baselines, sensitivity and pairs of digits.

Read from the arrays of controls.py, `training.py --depth-sweep` and `--digit-pairs`; no number is typed by hand.
`depth`, `baselines`, `sensitivity` and `digit_pairs` take the output folder and return Markdown, "" where the arrays
are not there.
Comparisons are paired by trial, and their 95 % intervals, as everywhere, those of `scaling.size_means`.
"""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import scaling
from analysis import tables
from analysis.tables import THRESHOLDS, cells, means

Array = NDArray[np.float64]
Arrays = Mapping[str, NDArray]
CONVENTIONS = {"": "original", "_sound": "sound"}
PARAMETERS = ("percentile", "boost", "density")
KERNELS = {"exact": "exact NTK", "diagonal": "diagonal approximation", "kernel_mean": "class mean of the kernel"}
PIXELS = {
    "ink": "sum of the pixels", "nearest_mean": "nearest class mean", "nearest_neighbour": "nearest neighbour",
    "ridge": "ridge regression",
}  # fmt: skip
# Of the pairs of digits: array, array to subtract, whether large is good.
PAIR_QUANTITIES = {
    "accuracy, exact": ("accuracy_exact", None, True),
    "accuracy, exact, threshold 0": ("accuracy_exact_at_zero", None, True),
    "exact minus sparsified": ("accuracy_exact", "accuracy_sparse", False),
    "exact minus sparsified, threshold 0": ("accuracy_exact_at_zero", "accuracy_sparse_at_zero", False),
    "exact minus diagonal": ("accuracy_exact", "accuracy_diagonal", False),
    "exact minus diagonal, threshold 0": ("accuracy_exact_at_zero", "accuracy_diagonal_at_zero", False),
    "sparsified minus diagonal": ("accuracy_sparse", "accuracy_diagonal", True),
    "κ of K, less 1": ("condition_number_exact", None, False),
    "κ of K̃, less 1": ("condition_number", None, False),
    "post-selection, original": ("post_selection_measurements_median", None, False),
    "post-selection, training": ("post_selection_measurements_training_median", None, False),
    "readout, sparsified": ("readout_measurements_sparse_median", None, False),
    "readout, diagonal": ("readout_measurements_diagonal_median", None, False),
}


def sections(folder: Path, ending: str, section: Any) -> str:
    """section(title of the network, arrays) of every file that ends so."""
    found = [(tables.title_of(p), tables.load(folder / f"{p}{ending}")) for p in tables.prefixes(folder, ending)]
    return "\n".join(section(*each) for each in found)


def origin(arrays: Arrays) -> dict[str, Any]:
    """What all trials of a file have in common."""
    return json.loads(str(arrays["origin"]))


def at_sizes(n: NDArray, where: NDArray) -> str:
    """The sizes where it is so: "n = 16, 32", "no n" or "all n"."""
    return "all n" if where.all() else "n = " + ", ".join(map(str, n[where])) if where.any() else "no n"


# ----------------------------------------------------------------------------------------------------------------------
# Depth
# ----------------------------------------------------------------------------------------------------------------------


def depth(folder: Path) -> str:
    """Other depths than the original's, of every network."""
    return sections(folder, "_depth_sweep.npz", depth_section)


def depth_section(title: str, arrays: Arrays) -> str:
    """At which depths the approximations agree with the exact NTK, and what these depths do to its accuracy."""
    n, settings = arrays["data_sizes"], arrays["depth_settings"]
    compared = [depth_differences(arrays, s) for s in range(len(settings))]
    columns = []
    for s, differences in enumerate(compared):
        bold = "**" if settings[s] == origin(arrays)["depth_rule"] else ""
        ratio, condition = (np.nanmean(arrays[x][:, s], -1) for x in ("off_diagonal_ratio", "condition_number_exact"))
        numbers = [f"{x:.2g}" for x in ratio], [f"{x:.4g}" for x in condition]
        accuracies = [cells(*means(n, arrays["accuracy_exact"][:, s]))]
        accuracies += [tables.difference_cells(n, values) for values in differences.values()]
        columns.append([[f"{bold}{settings[s]:g}{bold}"] * len(n), *numbers, *accuracies])
    rows = [
        [f"{size}", f"{arrays['trials'][i]}", *(cell[i] for cell in column)]
        for i, size in enumerate(n)
        for column in columns
    ]
    unit = "depth / L_conv" if settings.max() <= 1 else "depth"
    heading = ["n", "trials", unit, "off-diagonal / diagonal of K", "κ of K", "accuracy, exact", *compared[0]]
    parts = [
        f"## Depth: {title}\n",
        f"The original's depth is in bold. Means over trials; {origin(arrays)['test_size']} test images.\n"
        "Off-diagonal: the largest such entry of K over its smallest diagonal one. Differences are paired by trial\n"
        "(bold: the 95 % interval excludes 0; 0 alone: the same in every trial).\n",
        tables.table(heading, rows),
        *depth_findings(arrays, [each | gains_of_approximations(each) for each in compared]),
    ]
    return "\n".join(parts)


EXACT_GAIN = "exact minus exact at the original's depth"


def depth_differences(arrays: Arrays, setting: int) -> dict[str, Array]:
    """Paired differences of accuracies at one setting of the depth, [sizes, trials]."""
    at = {name: array[:, setting] for name, array in arrays.items() if name.startswith("accuracy")}
    original = np.flatnonzero(arrays["depth_settings"] == origin(arrays)["depth_rule"])
    found = {}
    if original.size:
        own = arrays["accuracy_exact"][:, original[0]]
        found[EXACT_GAIN] = at["accuracy_exact"] - own
    for ending, threshold in THRESHOLDS.items():
        for label in ("sparsified", "diagonal"):
            what = f"exact minus {label}" + f", threshold {threshold}" * (threshold == "0")
            found[what] = tables.loss(at, tables.LOSSES[label], ending)
    return found


def gains_of_approximations(differences: Mapping[str, Array]) -> dict[str, Array]:
    """From `depth_differences`, approximations minus the exact NTK at the original's depth: do they gain as it does?"""
    if EXACT_GAIN not in differences:
        return {}
    gain = differences[EXACT_GAIN]
    return {
        f"{label} minus exact at the original's depth": gain - differences[f"exact minus {label}"]
        for label in ("sparsified", "diagonal")
    }


def depth_findings(arrays: Arrays, compared: list[dict[str, Array]]) -> list[str]:
    """Lines that say at which settings and sizes the interval of each difference is above or below 0."""
    n, lines = arrays["data_sizes"], []
    for what, (word, sign) in itertools.product(compared[0], (("above", 1), ("below", -1))):
        found = []
        for setting, differences in zip(arrays["depth_settings"], compared, strict=True):
            mean, half = means(n, differences[what])
            clear = sign * mean > half
            if clear.any():
                span = {f"{f(np.abs(mean[clear])):.3f}": None for f in (np.min, np.max)}
                found.append(f"{setting:g} by {' to '.join(span)} ({at_sizes(n, clear)})")
        if found:
            lines.append(f"- {what[0].upper()}{what[1:]}, interval {word} 0: at {'; '.join(found)}.\n")
        elif sign > 0:
            lines.append(f"- {what[0].upper()}{what[1:]}, interval above 0: nowhere.\n")
    return ["".join(lines)] if lines else []


# ----------------------------------------------------------------------------------------------------------------------
# Baselines
# ----------------------------------------------------------------------------------------------------------------------


def baselines(folder: Path) -> str:
    """Of every network: the exact NTK beside classifiers of a few lines."""
    return sections(folder, "_baselines.npz", baselines_section)


def baselines_section(title: str, arrays: Arrays) -> str:
    """One network's tables, and what the intervals say."""
    n = arrays["data_sizes"]
    accuracies, differences, lines = [], [], [what_the_pair_tests(arrays)]
    for ending, threshold in THRESHOLDS.items():
        of = {name: arrays[f"accuracy_{name}{ending}"] for name in KERNELS | PIXELS}
        accuracies += [[label, threshold, *cells(*means(n, of[name]))] for name, label in (KERNELS | PIXELS).items()]
        gains = {name: means(n, of["exact"] - of[name]) for name in PIXELS}
        differences += [[PIXELS[name], threshold, *cells(*gain, "+")] for name, gain in gains.items()]
        better = at_sizes(n, np.all([mean > half for mean, half in gains.values()], axis=0))
        worse = at_sizes(n, np.any([mean < -half for mean, half in gains.values()], axis=0))
        lines.append(f"- Threshold {threshold}: the exact NTK is better than all of these at {better}; one of them or "
                     f"more is better than the exact NTK at {worse}.\n")  # fmt: skip
        lines += [
            f"- Threshold {threshold}: {PIXELS[name]} is better than the exact NTK at {at_sizes(n, mean < -half)}, by "
            f"{' to '.join(sorted({f'{f(-mean[mean < -half]):.3f}' for f in (np.min, np.max)}))}.\n"
            for name, (mean, half) in gains.items() if (mean < -half).any()
        ]  # fmt: skip
    heading = ["", "threshold", *(f"n = {size}" for size in n)]
    introduction = "Accuracy on the same images, of classifiers that see the kernel or only the pixels:\n"
    parts = [f"## Baselines: {title}\n", introduction, tables.table(heading, accuracies)]
    parts += ["Exact NTK minus these, paired by trial (bold: the 95 % interval excludes 0):\n"]
    parts += [tables.table(heading, differences), "".join([*lines, *errors(arrays), agreement(arrays)])]
    return "\n".join(parts)


def what_the_pair_tests(arrays: Arrays) -> str:
    """Whether these two digits are told apart by next to nothing: the sum of the pixels, of the largest size."""
    alone, n = np.nanmean(arrays["accuracy_ink"][-1]), arrays["data_sizes"][-1]
    says = "tests little" if alone > 0.9 else "needs more than that"
    return f"- The sum of the pixels alone has {alone:.3f} at n = {n}: this pair of digits {says}.\n"


def errors(arrays: Arrays) -> list[str]:
    """How many test images are wrong, at the smallest and the largest size."""
    n, test_size, lines = arrays["data_sizes"], origin(arrays)["test_size"], []
    for i in sorted({0, len(n) - 1}):
        wrong = {name: test_size * (1 - np.nanmean(arrays[f"accuracy_{name}"][i])) for name in KERNELS | PIXELS}
        each = ", ".join(f"{label} {wrong[name]:.1f}" for name, label in (KERNELS | PIXELS).items())
        lines.append(f"- Wrong at n = {n[i]}, threshold at the median, of {test_size} test images: {each}.\n")
    return lines


def agreement(arrays: Arrays) -> str:
    """How close the diagonal approximation is to the class mean of the kernel."""
    start = "- The diagonal approximation is the class mean of the kernel, Σ yᵢ k*ᵢ, with k* clipped and divided by Kᵢᵢ"
    shares = {name: arrays[f"agreement{ending}"][arrays["computed"]] for ending, name in THRESHOLDS.items()}
    if all(np.all(share == 1) for share in shares.values()):
        return f"{start}. Here every test image of every trial gets the same class from both, at both thresholds.\n"
    clipped, spread = (np.nanmax(arrays[name]) for name in ("clipped_share_k_thresh", "diagonal_spread"))
    each = " and ".join(f"{share.mean():.1%} at threshold {name}" for name, share in shares.items())
    return f"{start}. Here up to {clipped:.1%} of a trial's k* is clipped, and the Kᵢᵢ of a trial differ by up to " \
           f"{spread:.0%}: both give the same class to {each} of the test images.\n"  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------
# Sensitivity
# ----------------------------------------------------------------------------------------------------------------------


def sensitivity_map(arrays: Arrays, name: str, size: int, rows: int, columns: int) -> tuple[Array, Array, Array]:
    """A plane through the paper's point: values of parameter `rows`, of `columns`, and [rows, columns] of the array.

    rows, columns: 0 percentile, 1 boost, 2 density; the third one is the paper's. Means over trials and patterns of
    the size; of κ, which may be huge, medians.
    """
    average = np.nanmedian if name.startswith("condition_number") else np.nanmean
    values = arrays[name][np.flatnonzero(arrays["data_sizes"] == size)[0]]
    return plane(arrays, average(values.reshape(len(values), -1), axis=1), rows, columns)


def plane(arrays: Arrays, values: Array, rows: int, columns: int) -> tuple[Array, Array, Array]:
    """Values of all settings [settings] as a plane through the paper's point, as `sensitivity_map` describes it."""
    settings, third = arrays["settings"], 3 - rows - columns
    inside = np.flatnonzero(settings[:, third] == origin(arrays)["papers_setting"][third])
    y, x = (np.unique(settings[inside, axis], return_inverse=True) for axis in (rows, columns))
    found = np.full((len(y[0]), len(x[0])), np.nan)
    found[y[1], x[1]] = values[inside]
    return y[0], x[0], found


def sensitivity(folder: Path) -> str:
    """The convolutional approximation's hand-set constants."""
    return sections(folder, "_sensitivity.npz", sensitivity_section)


def sensitivity_section(title: str, arrays: Arrays) -> str:
    """Tables along each constant, where K̃ is better than its diagonal alone, and where it is positive definite."""
    n, settings, papers = arrays["data_sizes"], arrays["settings"], np.array(origin(arrays)["papers_setting"])
    heading = [f"n = {size}" for size in n]
    parts = [
        f"## Sensitivity to the constants set by hand: {title}\n",
        "K̃ keeps entries above a percentile of |K|, adds boost · 0.76 ln(n)^0.9 times the diagonal to the diagonal,\n"
        "and draws its pattern with density · 2 ln(n)/n. One constant is varied, the others are the paper's, which\n"
        "are in bold. Accuracy with the threshold at the median / at 0 / median κ / share positive definite:\n",
    ]
    for axis, suffix in itertools.product(range(3), CONVENTIONS):
        others = np.arange(3) != axis
        rows = []
        for s in np.flatnonzero((settings[:, others] == papers[others]).all(axis=1)).tolist():
            bold = "**" if settings[s, axis] == papers[axis] else ""
            rows.append([f"{bold}{settings[s, axis]:g}{bold}", *(summary(arrays, i, s, suffix) for i in range(len(n)))])
        parts.append(tables.table([f"{PARAMETERS[axis]}, {CONVENTIONS[suffix]}", *heading], rows))
        if PARAMETERS[axis] == "percentile" and not suffix:
            parts.append(same_percentiles(arrays))
    columns = [f"{what}, {threshold}" for threshold in THRESHOLDS.values() for what in ("paper's", "better", "worse")]
    least = [row for suffix in CONVENTIONS for axis in (2, 0) for row in least_boosts(arrays, suffix, axis)]
    parts += [
        "Accuracy of K̃ minus that of its diagonal alone, threshold at the median and at 0, paired by trial: with the\n"
        f"paper's constants, and the number of {len(settings)} settings, two constants varied at a time, where it is\n"
        "better and worse (by chance in about 2 each); and the number of them where every K̃ is positive definite:\n",
        tables.table(["convention", "n", "trials", *columns, "positive definite"], improvements(arrays)),
        "The settings where K̃ is better than its diagonal at the median, as percentile/boost/density:\n",
        where_better(arrays),
        "The least boost from which on every K̃ is positive definite:\n",
        tables.table(["", *heading], least),
        "".join(definite_in_words(arrays)),
    ]
    return "\n".join(parts)


def same_percentiles(arrays: Arrays) -> str:
    """Which percentiles give the same K̃ as keeping every entry, and why."""
    settings, papers = arrays["settings"], np.array(origin(arrays)["papers_setting"])
    along = np.flatnonzero((settings[:, 1:] == papers[1:]).all(axis=1))
    along = along[np.argsort(settings[along, 0])]
    condition = arrays["condition_number"][:, along]
    same = [s for i, s in enumerate(along) if np.array_equal(condition[:, i], condition[:, 0], equal_nan=True)]
    if len(same) < 2:
        return ""
    *those, last = (f"{value:g}" for value in settings[same, 0])
    values = f"{', '.join(those)} and {last}"
    return f"The original's percentile counts zeros outside the class's block, so {values} drop nothing.\n"


def summary(arrays: Arrays, size: int, setting: int, suffix: str) -> str:
    """Accuracy about the median, about 0, κ and share positive definite of one size and setting."""
    names = ("accuracy_sparse", "accuracy_sparse_at_zero", "positive_definite")
    accuracy, at_zero, definite = (np.nanmean(arrays[name + suffix][size, setting]) for name in names)
    condition = np.nanmedian(arrays[f"condition_number{suffix}"][size, setting])
    return f"{accuracy:.3f} / {at_zero:.2f} / {condition:.3g} / {definite:.0%}"


def gains(arrays: Arrays, ending: str, suffix: str) -> tuple[Array, Array]:
    """Means and half-widths of the accuracy of K̃ minus that of its diagonal alone, [settings, sizes]."""
    diagonal = arrays[f"accuracy_diagonal{ending}"]
    gain = arrays[f"accuracy_sparse{ending}{suffix}"].reshape(*diagonal.shape, -1).mean(axis=-1) - diagonal
    each = [means(arrays["data_sizes"], gain[:, s]) for s in range(len(arrays["settings"]))]
    mean, half = np.array(each).swapaxes(0, 1)
    return mean, half


def where_better(arrays: Arrays) -> str:
    """The settings at which the interval of K̃'s gain is above 0, with the threshold at the median."""
    lines = []
    for suffix, convention in CONVENTIONS.items():
        mean, half = gains(arrays, "", suffix)
        for n, better, gain in zip(arrays["data_sizes"], (mean > half).T, mean.T, strict=True):
            each = ", ".join("/".join(f"{x:g}" for x in setting) for setting in arrays["settings"][better])
            most = f", by {gain[better].max():.3f} at most" if better.any() else ""
            lines.append(f"- {convention}, n = {n}: better than its diagonal at {each or 'none'}{most}.\n")
    return "".join(lines)


def improvements(arrays: Arrays) -> list[list[str]]:
    """Rows by convention and size: where K̃ is better than its diagonal alone, and where it is positive definite."""
    n, settings = arrays["data_sizes"], arrays["settings"]
    paper = np.flatnonzero((settings == origin(arrays)["papers_setting"]).all(axis=1))[0]
    rows = []
    for suffix, convention in CONVENTIONS.items():
        columns = [[convention] * len(n), n, arrays["trials"]]
        for ending in THRESHOLDS:
            mean, half = gains(arrays, ending, suffix)
            columns.append(cells(mean[paper], half[paper], "+"))
            columns += [np.sum(mean > half, axis=0), np.sum(mean < -half, axis=0)]
        share = np.nanmean(arrays[f"positive_definite{suffix}"], axis=(2, 3))
        columns.append(np.sum(share == 1, axis=1))
        rows += [list(map(str, row)) for row in zip(*columns, strict=True)]
    return rows


def least_boosts(arrays: Arrays, suffix: str, axis: int) -> list[list[str]]:
    """Rows by percentile (axis 0) or density (2): the boost from which on all K̃ are positive definite, by size."""
    planes = [sensitivity_map(arrays, f"positive_definite{suffix}", size, axis, 1) for size in arrays["data_sizes"]]
    values, boosts, _ = planes[0]
    rows = [[f"{CONVENTIONS[suffix]}, {PARAMETERS[axis]} {value:g}"] for value in values]
    for _, _, share in planes:
        for row, failing in zip(rows, share < 1, strict=True):
            first = 1 + np.flatnonzero(failing).max(initial=-1)
            row.append(f"{boosts[first]:g}" if first < len(boosts) else f"above {boosts[-1]:g}")
    return rows


def definite_in_words(arrays: Arrays) -> list[str]:
    """From which boost on every K̃ is positive definite, the other constants being the paper's: a line a convention."""
    n, (_, boost, density), lines = arrays["data_sizes"], origin(arrays)["papers_setting"], []
    for suffix, convention in CONVENTIONS.items():
        by_density = {label: np.array(boosts) for label, *boosts in least_boosts(arrays, suffix, 2)}
        least = by_density[f"{convention}, {PARAMETERS[2]} {density:g}"]
        each = "; ".join(f"{value} at {at_sizes(n, least == value)}" for value in dict.fromkeys(least.tolist()))
        lines.append(f"- {convention}, the paper's percentile and density: the least boost tried from which on every K̃ "
                     f"is positive definite is {each}. The paper's is {boost:g}.\n")  # fmt: skip
    return lines


# ----------------------------------------------------------------------------------------------------------------------
# Pairs of digits
# ----------------------------------------------------------------------------------------------------------------------


def pair_values(arrays: Arrays, name: str, subtract: str | None = None) -> Array:
    """A quantity of every pair of digits and trial, averaged over sizes and patterns: [pairs, trials].

    The arrays are [sizes, pairs, trials, ...]. Condition numbers, less 1, and measurements are averaged by their
    logarithms. A trial that some size lacks is NaN.
    """
    there = ~np.isnan(arrays[name]).all(axis=tuple(range(1, arrays[name].ndim)))  # sizes that have trials
    values, others = (arrays[each][there] for each in (name, subtract or name))
    values, others = (each.reshape(*each.shape[:3], -1) for each in (values, others))
    if not name.startswith("accuracy"):
        with np.errstate(divide="ignore"):  # κ = 1
            return np.exp(np.mean(np.log(values - name.startswith("condition_number")), axis=(0, 3)))
    return values.mean(axis=(0, 3)) - (others.mean(axis=(0, 3)) if subtract else 0)


def pair_means(values: Array) -> tuple[Array, Array]:
    """Means [pairs] of values [pairs, trials], and half-widths of their intervals, the spread pooled over the pairs."""
    shift = 1 if (values <= 0).any() else 0
    mean, _, half = scaling.size_means(np.ones(len(values)), [shift + v[~np.isnan(v)] for v in values])
    return mean - shift, half


def pair_ranks(values: Array, pair: int, high: bool) -> tuple[Array, Array, tuple[int, int, int]]:
    """(means [pairs], half-widths of their intervals, the pair's rank: the best possible, as it is, the worst).

    values [pairs, trials]; rank 1 is the best. The possible ranks leave out the pairs that differ by more than chance,
    95 % each.
    """
    mean, half = pair_means(values)
    lead = (mean - mean[pair]) * (1 if high else -1)
    clear = np.abs(lead) > np.hypot(half, half[pair])
    ranks = 1 + np.sum(clear & (lead > 0)), 1 + np.sum(lead > 0), len(values) - np.sum(clear & (lead < 0))
    return mean, half, ranks


def pair_chance(arrays: Arrays, name: str, subtract: str, size: int) -> NDArray[np.bool_]:
    """Whether a difference may be chance, the trials of one size taken alone: [pairs]."""
    alone = {each: arrays[each][[size]] for each in (name, subtract)}
    mean, half = pair_means(pair_values(alone, name, subtract))
    return ~(np.abs(mean) > half)


def digit_pairs(folder: Path) -> str:
    """All 45 pairs of digits, of every network."""
    return sections(folder, "_digit_pairs.npz", digit_pairs_section)


def digit_pairs_section(title: str, arrays: Arrays) -> str:
    """Are the paper's pairs typical? Their ranks among all, the extremes, and the largest losses."""
    pairs, network = [tuple(map(int, pair)) for pair in arrays["digit_pairs"]], title.partition(",")[0]
    papers = [pair for pair in pairs if set(pair) in ({8, 9}, {0, 1})]
    papers = papers if (1, 0) in pairs else papers[::-1]  # the network's own, in the paper's order, comes first
    rows, heading = [], [""]
    for each in papers:
        heading += [f"{min(each)} and {max(each)}", "rank", "the pair is"]
    for label, (name, subtract, high) in PAIR_QUANTITIES.items():
        style, row = "+.4f" if subtract else ".4g", [label]
        for each in papers:
            pair = pairs.index(each)
            mean, half, ranks = pair_ranks(pair_values(arrays, name, subtract), pair, high)
            half_width = f" ± {half[pair]:.2g}" if np.isfinite(half[pair]) else ""  # unknown of one trial
            row += [f"{mean[pair]:{style}}{half_width}", *rank_in_words(ranks, len(pairs))]
        extremes = [f"{mean[i]:{style}} ({pairs[i][0]}, {pairs[i][1]})" for i in (np.argmin(mean), np.argmax(mean))]
        rows.append([*row, f"{np.median(mean):{style}}", *extremes])
    counts = ", ".join(f"{count} of n = {n}" for n, count in zip(arrays["data_sizes"], arrays["trials"], strict=True))
    precision = origin(arrays).get("precision", "an unknown precision")
    parts = [
        f"## Pairs of digits: {network}\n",
        f"All {len(pairs)} pairs; trials of each: {counts}; kernels in {precision}.\n"
        "Averages over the sizes, of measurements and κ − 1 by their logarithms. Rank 1 is the most favourable; in\n"
        "brackets the ranks that the intervals leave possible. A pair is *easy* or *hard* where all of these are in\n"
        "the first or in the last third. The spread of the trials is pooled over the pairs.\n",
        tables.table([*heading, "median pair", "least", "most"], rows),
        "".join([*in_words(papers, rows), against_diagonal(arrays), *largest_losses(arrays, pairs)]),
    ]
    return "\n".join(parts)


def rank_in_words(ranks: tuple[int, int, int], count: int) -> tuple[str, str]:
    """Ranks of `pair_ranks` among so many pairs as text, and whether they make the pair easy or hard."""
    best, rank, worst = ranks
    word = "easy" if worst <= count // 3 else "hard" if best > count - count // 3 else "neither"
    word = "not told from any" if (best, worst) == (1, count) else word
    return f"{rank} ({best} to {worst})", word


def in_words(papers: list[tuple[int, ...]], rows: list[list[str]]) -> list[str]:
    """Which quantities make each of the paper's pairs easy or hard, from the rows of the table of ranks."""
    lines = []
    for place, pair in enumerate(papers):
        by_word: dict[str, list[str]] = {}
        for row in rows:
            by_word.setdefault(row[3 + 3 * place], []).append(f"“{row[0]}”")
        each = (f"{word} by {', '.join(by_word.get(word, ['nothing']))}" for word in ("easy", "hard"))
        lines.append(f"- {min(pair)} and {max(pair)} among all pairs: {'; '.join(each)}.\n")
    return lines


def against_diagonal(arrays: Arrays) -> str:
    """On how many pairs the sparsified matrix is better and worse than its diagonal, at the median."""
    mean, half = pair_means(pair_values(arrays, "accuracy_sparse", "accuracy_diagonal"))
    clear = np.abs(mean) > half
    better, worse = (f"{np.sum(sign * mean > 1e-9)} pairs, beyond chance on {np.sum(clear & (sign * mean > 0))}"
                     for sign in (1, -1))  # fmt: skip
    each = f"better than its diagonal on {better}, and worse on {worse}"
    return f"- At the median, K̃ is {each} (on about 1 each by chance).\n"


def largest_losses(arrays: Arrays, pairs: list[tuple[int, ...]]) -> list[str]:
    """Where the approximations lose most accuracy, over all sizes and pairs."""
    lines, sizes = [], arrays["data_sizes"]
    for name, label in (("sparse", "sparsified matrix"), ("diagonal", "diagonal")):
        for ending, threshold in THRESHOLDS.items():
            exact = arrays[f"accuracy_exact{ending}"]
            loss = np.nanmean(exact - arrays[f"accuracy_{name}{ending}"].reshape(*exact.shape, -1).mean(-1), axis=2)
            n, p = np.unravel_index(np.nanargmax(loss), loss.shape)
            where = f"in the mean of the trials of {pairs[p][0]} and {pairs[p][1]} at n = {sizes[n]}"
            lines.append(f"- Threshold {threshold}: the largest loss of the {label} is {loss[n, p]:.4f} of accuracy, "
                         f"{where}.\n")  # fmt: skip
    return lines
