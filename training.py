"""The experiment of "A quantum algorithm for training wide and deep classical neural networks".

Reproduces A. Zlokapa, H. Neven and S. Lloyd, arXiv:2107.09200 (2021). Training an infinitely wide network by gradient
descent is kernel regression with its neural tangent kernel (NTK), prediction(x*) = sign(k*^T K^-1 y - t). Replace K by
a matrix that a quantum computer can invert in time O(log n), sparsified or diagonal; the accuracy should stay, and the
sparsity, the condition number and the numbers of measurements should grow no faster than log n.

    python training.py                                  # both networks, the constants below
    python training.py --data-sizes 16 32 --trials 2 1  # other sizes, other numbers of trials
    python training.py --help                           # everything else

Read from top to bottom: constants, images, kernels, approximations, quantities, and one loop over all trials. The
kernels come from ntk/, files and the command line from runtime/. What is written where stands in README.md.
"""

from runtime import streams

if __name__ == "__main__":
    streams.prepare_process()  # before the other imports: they take seconds

import argparse
import functools
import itertools
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from analysis import tables
from ntk import BadInput, fully_connected_ntk, has_accelerator
from ntk.fully_connected import nonlinearity
from runtime import options
from runtime.checkpoints import kernel_pair, missing_pairs, read_kernel_pair
from runtime.files import save_unless_there
from runtime.linear_algebra import Array, Matrix, condition_number, extreme_eigenvalues, numerical_flags, solve
from runtime.results import SETTINGS, GrowingResults, medians_over_images, note_flags
from runtime.sitting import Sitting, announce, drop_unfillable_sizes, where_to_look
from runtime.trials import PAPERS_DIGITS, Label, Run, Trial, TrialFiles, random_generator
from runtime.verification import verify

# ----------------------------------------------------------------------------------------------------------------------
# Constants: the original's names and values. Edit them here, or override them by flags.
# ----------------------------------------------------------------------------------------------------------------------

seed = 0
test_size = 256  # test images of a trial, half of each class
data_sizes = [16, 32, 64, 128, 256, 512]  # training images of a trial, half of each class
trials = [16, 8, 4, 4, 4, 4]  # trials of each size
trials_without_accelerator = {16: 3, 32: 1}  # of the convolutional network, beside those that are in the folder
sizes_to_verify = {"fully-connected": data_sizes, "convolutional": [16, 32]}  # by --verify, one trial of each

selections = {"fully-connected": (8, 9), "convolutional": (1, 0)}  # digits; the second one is class +1
networks = tuple(selections)
depth_factor = 0.1  # depth of the fully-connected network in units of L_conv
convolutional_depth = 96  # convolutions of the convolutional network, a third in each of its three stages
sweep_factors = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]  # depth factors of --depth-sweep, fully connected
sweep_depths = [6, 12, 24, 48, 96, 192]  # and depths, convolutional

k_thresh_margin = 1e-5  # fully connected: k_thresh is the NTK at inner product 1 - margin
reference_size = 16  # convolutional: its first trial gives k_thresh and the sparsifying thresholds
percentile = 90  # of |K| inside a class, for the sparsifying thresholds
diagonal_boost = (0.76, 0.9)  # convolutional: 0.76 ln(n)^0.9 times the diagonal is added to the diagonal

sparsity_patterns = 3  # random sparsity patterns tried on each trial's kernel
pattern_draws = 100  # patterns drawn for each size to plot their sparsity alone
conventions = {"original": "", "sound": "_sound"}  # and what the results' names of each end with
dense_limit = 1024  # larger sparsified matrices are kept sparse, with sparse solves and Lanczos eigenvalues
QUANTITIES_VERSION = 1  # of what a trial's record holds; raise it when a formula below changes

# ----------------------------------------------------------------------------------------------------------------------
# Images
# ----------------------------------------------------------------------------------------------------------------------


def draw_images(
    split: dict[str, NDArray], digits: tuple[int, int], class_size: int, flatten: bool, rng: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """Draw a balanced, standardised subset of two digits.

    split: {"image": uint8 [m, h, w, 1], "label": int [m]}. Takes `class_size` images of each digit in random order
    (fewer of both, with a note, where one has not that many), first those of digits[1] with label +1, then those of
    digits[0] with label -1. The subset is standardised by its own mean and standard deviation, all pixels together,
    then every image scaled to unit Euclidean norm.

    Returns (images, labels): float64 [n, h * w] if `flatten`, else [n, h, w, 1]; +1 and -1 [n]. Raises BadInput, a
    ValueError, where there is no image or only one colour.
    """
    available = [np.flatnonzero(split["label"] == digit) for digit in digits]
    count = min(class_size, *map(len, available))
    if count < 1:
        raise BadInput("digits", digits, f"no {class_size} images of each to choose from; use others")
    if count < class_size:
        print(f"note: only {count} images of each of the digits {digits}, not {class_size}")
    indices = np.concatenate([rng.permutation(available[i])[:count] for i in (1, 0)])
    image = split["image"][indices].astype(np.float64)
    if image.std() == 0:
        raise BadInput("digits", digits, "the images are all of one colour; use others")
    image = (image - image.mean()) / image.std()
    image /= np.sqrt(np.sum(image**2, axis=(1, 2, 3), keepdims=True))
    return image.reshape(2 * count, -1) if flatten else image, np.repeat([1, -1], count)


def trial_images(run: Run, trial: Trial) -> dict[str, NDArray]:
    """The trial's {"train", "test"} images and {"train_label", "test_label"}."""
    drawn: dict[str, NDArray] = {}
    for split, count in (("train", trial.size), ("test", run.test_size)):
        flatten = trial.network == "fully-connected"
        rng = trial.random(run.seed, split)
        drawn[split], drawn[f"{split}_label"] = draw_images(run.data[split], trial.digits, count // 2, flatten, rng)
    return drawn


def separability(x: Array) -> float:
    """Delta = min over i != j of 1 - |x_i . x_j|, of unit vectors x [n, d] or images [n, h, w, 1]."""
    x = x.reshape(len(x), -1)
    overlap = np.abs(x @ x.T)
    np.fill_diagonal(overlap, 0)
    return 1 - overlap.max()


def fully_connected_depth(n: int, delta: float, factor: float = depth_factor) -> int:
    """round(factor L_conv) with L_conv = 8 ln(n/delta)/mu (arXiv:2107.09200): 36 to 43 at n = 16, 80 to 88 at 512.

    A delta of two identical images, below the precision of float64, counts as that precision.
    """
    return round(factor * 8 * np.log(n / max(delta, np.finfo(float).eps)) / nonlinearity)


def trial_depth(trial: Trial, delta: float) -> int:
    """The network's depth in this trial, by its depth setting or else by the constants."""
    if trial.network == "fully-connected":
        return fully_connected_depth(trial.size, delta, trial.depth_setting or depth_factor)
    return int(trial.depth_setting or convolutional_depth)


# ----------------------------------------------------------------------------------------------------------------------
# Kernels
# ----------------------------------------------------------------------------------------------------------------------


def make_trial(
    network: str, digits: tuple[int, int], size: int, number: int, depth_setting: float | None = None
) -> Trial:
    """A trial; other digits than the paper's get a name."""
    variant = "" if digits == PAPERS_DIGITS[network] else "-{}v{}".format(*digits)
    return Trial(network, digits, size, number, depth_setting, variant)


def trial_files(run: Run, trial: Trial, delta: float = 1) -> TrialFiles:
    """Where the trial's arrays are; delta: its separability, which the convolutional network does not need."""
    plan = depth_factor if trial.network == "fully-connected" else convolutional_depth
    return TrialFiles(run, trial, trial_depth(trial, delta), depth_in_name=trial.depth_setting not in (None, plan))


def trial_kernels(
    run: Run, trial: Trial, progress: Callable[[int], object] = lambda pairs: None, train_only: bool = False
) -> dict[str, Any]:
    """One trial's arrays by file name, read or else computed and saved, with its depth, separability and thresholds.

    With `train_only` kernel_train alone. progress: called with the number of pairs of images that became known.
    """
    images = trial_images(run, trial)
    delta = separability(images["train"])
    files = trial_files(run, trial, delta)
    if train_only:
        return kernel_pair(files, images["train"], None, progress)
    kernels: dict[str, Any] = kernel_pair(files, images["train"], images["test"], progress)
    kernels |= kernel_thresholds(files.depth, reference_kernel(run, trial))
    kernels["kernel_test_normalized"] = normalise(kernels["kernel_test"], kernels["k_thresh"])
    kernels |= {name: images[name] for name in ("train_label", "test_label")}
    for name in ("train_label", "test_label", "kernel_test_normalized"):
        save_unless_there(files.path(name), kernels[name])
    return kernels | {"depth": files.depth, "separability": delta}


def reference_kernel(run: Run, trial: Trial) -> Array | None:
    """kernel_train of the convolutional network's first trial of n = 16, of the same digits and depth; else None."""
    if trial.network == "fully-connected":
        return None
    return trial_kernels(run, replace(trial, size=reference_size, number=0), train_only=True)["kernel_train"]


def stored_kernels(folder: Path, prefix: str, size: int, number: int, seed: int = seed) -> dict[str, Any]:
    """What `trial_kernels` gives but for the separability, from the kernel files alone, without images.

    prefix: what the files' names begin with. Raises BadInput where a file is not there or damaged.
    """
    kernels, label = read_kernel_pair(folder, prefix, size, number, seed)
    convolutional = label["network"] == "convolutional"
    reference = read_kernel_pair(folder, prefix, reference_size, 0, seed)[0]["kernel_train"] if convolutional else None
    kernels |= kernel_thresholds(label["depth"], reference)
    return kernels | {"kernel_test_normalized": normalise(kernels["kernel_test"], kernels["k_thresh"])} | label


def labelled_images(run: Run, label: Label) -> tuple[Array, Array]:
    """The training and test images that a kernel's label stands for."""
    images = trial_images(run, make_trial(label["network"], tuple(label["digits"]), label["size"], label["trial"]))
    return images["train"], images["test"]


def kernel_thresholds(depth: int, reference: Array | None) -> dict[str, Any]:
    """What k* is divided by, and what small entries are compared with: {"k_thresh", "class_thresholds"}.

    Fully connected, without a reference kernel: k_thresh = k(1 - 1e-5), the NTK of two unit vectors of that inner
    product. Convolutional: the reference's [16, 16] largest |off-diagonal| entry; two class thresholds by convention.
    """
    if reference is not None:
        k_thresh = np.abs(reference - np.diag(np.diag(reference))).max()
        by_convention = {c: class_thresholds(reference, percentile, zeros=c == "original") for c in conventions}
        return {"k_thresh": k_thresh, "class_thresholds": by_convention}
    x1, x2 = np.zeros((2, 1, 28 * 28))
    x1[0, 0] = 1
    x2[0, :2] = 1 - k_thresh_margin, np.sqrt(1 - (1 - k_thresh_margin) ** 2)
    return {"k_thresh": fully_connected_ntk(x1, x2, depth=depth)[0, 0], "class_thresholds": None}


def normalise(kernel_test: Array, k_thresh: float) -> Array:
    """k*/k_thresh, clipped to [-1, 1], for every test image. [x, n]"""
    return np.clip(kernel_test / k_thresh, -1, 1)


# ----------------------------------------------------------------------------------------------------------------------
# Approximations of the kernel matrix K [n, n], the n/2 images of the first class before those of the second
# ----------------------------------------------------------------------------------------------------------------------


def sparsity_pattern(n: int, rng: np.random.Generator, replacement: bool = True, density: float = 1) -> Matrix:
    """Random symmetric pattern of O(log n) entries a row, sparse bool [n, n].

    Each row draws Binomial(n, p) columns, p = min(2 density ln(n)/n, 1), with replacement as the original does; the
    lower triangle is kept and mirrored, entries between the classes are dropped, the diagonal is set. Without
    replacement every entry is drawn with probability p.
    """
    p = min(2 * density * np.log(n) / n, 1)
    if replacement:
        counts = rng.binomial(n, p, size=n)
        i, j = np.repeat(np.arange(n), counts), rng.integers(n, size=counts.sum())
    else:
        height = max(1, 2**22 // n)  # rows drawn at once, so that memory stays small
        starts = range(0, n, height)
        drawn = [np.nonzero(rng.random((min(height, n - s), n), dtype=np.float32) < p) for s in starts]
        i = np.concatenate([rows + s for s, (rows, _) in zip(starts, drawn, strict=True)])
        j = np.concatenate([columns for _, columns in drawn])
    kept = (j < i) & ((i < n // 2) == (j < n // 2))
    i, j = np.divmod(np.unique(i[kept] * n + j[kept]), n)
    diagonal = np.arange(n)
    rows, columns = np.concatenate([i, j, diagonal]), np.concatenate([j, i, diagonal])
    return scipy.sparse.csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(n, n))


def class_thresholds(kernel: Array, percentile: float = percentile, zeros: bool = True) -> tuple[float, float]:
    """The percentile of |K| inside each class's block, off the diagonal.

    The original takes it over the whole matrix with zeros outside the block (zeros=True): the 90th then keeps 46 % of
    the block's entries at n = 16. With zeros=False it is the percentile of the block's own entries.
    """
    n = len(kernel)
    blocks = [np.abs(kernel[half, half]) for half in (slice(0, n // 2), slice(n // 2, n))]
    inside = [block[~np.eye(len(block), dtype=bool)] for block in blocks]
    outside = [np.zeros(n * n - entries.size if zeros else 0) for entries in inside]
    first, second = (np.percentile(np.concatenate(both), percentile) for both in zip(inside, outside, strict=True))
    return first, second


def sparsified_kernel(
    network: str, kernel: Array, pattern: Matrix, thresholds: Any, boost: Any = diagonal_boost
) -> Matrix:
    """K~ [n, n], sparse where n is above `dense_limit`.

    Fully connected: K o pattern. Convolutional: of that, off the diagonal only entries whose |K| is above their class's
    one of the two `thresholds`; and 0.76 ln(n)^0.9 (`boost`) times the diagonal is added to the diagonal.
    """
    n = len(kernel)
    i, j = pattern.nonzero()
    entries = kernel[i, j]
    if network == "convolutional":
        factor, power = boost
        entries[i == j] *= 1 + factor * np.log(n) ** power
        kept = (i == j) | (np.abs(entries) > np.where(i < n // 2, *thresholds))
        i, j, entries = i[kept], j[kept], entries[kept]
    sparsified = scipy.sparse.csr_array((entries, (i, j)), shape=(n, n))
    sparsified.eliminate_zeros()
    return sparsified.toarray() if n <= dense_limit else sparsified


def trial_approximations(
    trial: Trial, seed: int, kernel_train: Array, thresholds: Any, boost: Any = diagonal_boost, density: float = 1
) -> dict[str, list[Matrix]]:
    """The sparsified matrices K~ of one trial, a list by convention, each from a random pattern of its own.

    "original" as in the paper's experiment; "sound" draws without replacement, and compares with percentiles of the
    class's own entries. thresholds: `class_thresholds` by convention, or None; boost, density: as in these functions.
    """
    found = {}
    for convention, suffix in conventions.items():
        draws = [trial.random(seed, f"pattern {i}{suffix}") for i in range(sparsity_patterns)]
        patterns = [sparsity_pattern(trial.size, rng, convention == "original", density) for rng in draws]
        limits = thresholds and thresholds[convention]
        found[convention] = [sparsified_kernel(trial.network, kernel_train, p, limits, boost) for p in patterns]
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Quantities that the paper claims to stay O(log n)
# ----------------------------------------------------------------------------------------------------------------------


def sparsity(matrix: Matrix) -> int:
    """Largest number of non-zero entries in a column of a matrix, dense or sparse."""
    return (matrix != 0).sum(axis=0).max()


def accuracy(outputs: Array, label: NDArray, threshold: float | None = None) -> float:
    """Share of test images classified rightly by sign(output - threshold), by default the median of the outputs."""
    if not np.isfinite(outputs).all():
        return np.nan
    return float(np.mean(np.where(outputs > (np.median(outputs) if threshold is None else threshold), 1, -1) == label))


def post_selection_probability(k: Array) -> Array:
    """P = sum_i k_i^2 / n that |k*> is prepared, of every test image, from |k_i| <= 1. [x, n] -> [x]

    QRAM loads k_i beside sum_i |i>/sqrt(n); an ancilla is rotated by arcsin k_i and has to be measured as 1. The number
    of measurements is 1/P.
    """
    return np.sum(k**2, axis=1) / k.shape[1]


def overlaps(k: Array, state: NDArray) -> Array:
    """Overlap o = <k*|w> of every test image, both of unit norm. [x, n], [n] -> [x]"""
    return k @ state / (np.linalg.norm(k, axis=1) * np.linalg.norm(state))


def readout_measurements(overlap: Array, threshold: float = 0) -> Array:
    """Measurements to read out the sign of o - t: (1 - o^2)/(o - t)^2, which is 1/o^2 - 1 about t = 0. [x] -> [x]"""
    with np.errstate(divide="ignore"):  # inf at the threshold itself
        return (1 - overlap**2) / (overlap - threshold) ** 2


def trial_quantities(kernels: dict[str, Any], approximations: dict[str, list[Matrix]]) -> dict[str, Any]:
    """What the paper plots, of one trial, and beside it the same by sounder conventions.

    kernels: as from `trial_kernels`; approximations: as from `trial_approximations`. The results' names and shapes are
    those of this dict: numbers, [x] of test images, [p] of patterns, [p, x]. `_sound` ends the names of the sounder
    sparsified matrices; `_at_zero` is about the threshold 0, `_at_median` about the median of the test images' o.
    """
    kernel, y, test_label = kernels["kernel_train"], kernels["train_label"], kernels["test_label"]
    test, k = kernels["kernel_test"], kernels["kernel_test_normalized"]
    # A threshold that is known before the test images are: the largest off-diagonal entry of the training matrix.
    largest = max(np.abs(np.delete(row, i)).max() for i, row in enumerate(kernel))
    k_training = np.clip(test / largest, -1, 1) if largest > 0 else np.sign(test)
    # As the original does, k* is divided once more, by what no algorithm knows: the test block's largest entry.
    k_rescaled = k / np.abs(k).max()
    exact, diagonal = test @ solve(kernel, y), k @ (y / np.diag(kernel))
    overlap, eigenvalues = overlaps(k, y), extreme_eigenvalues(kernel)
    found = {
        "depth": kernels["depth"],
        "separability": kernels["separability"],
        "condition_number_exact": condition_number(kernel, eigenvalues),
        "numerical_flags_exact": numerical_flags(kernel, eigenvalues),
        "off_diagonal_ratio": largest / np.abs(np.diag(kernel)).min(),
        "accuracy_exact": accuracy(exact, test_label),
        "accuracy_exact_at_zero": accuracy(exact, test_label, 0),
        "accuracy_diagonal": accuracy(diagonal, test_label),
        "accuracy_diagonal_at_zero": accuracy(diagonal, test_label, 0),
        "post_selection_measurements": 1 / post_selection_probability(k_rescaled),
        "post_selection_measurements_k_thresh": 1 / post_selection_probability(k),
        "post_selection_measurements_training": 1 / post_selection_probability(k_training),
        "clipped_share_k_thresh": np.mean(np.abs(k) == 1),
        "clipped_share_training": np.mean(np.abs(k_training) == 1),
        "readout_measurements_diagonal": readout_measurements(overlap),
        "readout_measurements_diagonal_at_median": readout_measurements(overlap, np.median(overlap)),
    }
    for convention, matrices in approximations.items():
        each = [approximation_quantities(matrix, k, y, test_label) for matrix in matrices]
        for name in each[0]:
            found[name + conventions[convention]] = np.array([values[name] for values in each], float)
    return found


def approximation_quantities(matrix: Matrix, k: Array, y: NDArray, test_label: NDArray) -> dict[str, Any]:
    """What the paper plots of one sparsified matrix [n, n], with k* [x, n] and labels [n], [x]."""
    weights, eigenvalues = solve(matrix, y), extreme_eigenvalues(matrix)
    overlap = overlaps(k, weights)
    return {
        "sparsity": sparsity(matrix),
        "condition_number": condition_number(matrix, eigenvalues),
        "numerical_flags": numerical_flags(matrix, eigenvalues),
        "smallest_eigenvalue": eigenvalues[0],
        "positive_definite": eigenvalues[0] > 0,
        "accuracy_sparse": accuracy(k @ weights, test_label),
        "accuracy_sparse_at_zero": accuracy(k @ weights, test_label, 0),
        "readout_measurements_sparse": readout_measurements(overlap),
        "readout_measurements_sparse_at_median": readout_measurements(overlap, np.median(overlap)),
    }


def size_quantities(seed: int, network: str, size: int) -> dict[str, Any]:
    """Sparsity of random patterns of one size alone, [pattern_draws], by convention."""
    found = {}
    for convention, suffix in conventions.items():
        draws = (random_generator(seed, network, size, i, f"sparsity{suffix}") for i in range(pattern_draws))
        patterns = (sparsity_pattern(size, rng, convention == "original") for rng in draws)
        found[f"pattern_sparsity{suffix}"] = [sparsity(pattern) for pattern in patterns]
    return found


def compute_trial(run: Run, trial: Trial, progress: Callable[[int], object] = lambda pairs: None) -> dict[str, Any]:
    """One trial from its images to its dict of quantities; its kernels are read where they are on the disk."""
    kernels = trial_kernels(run, trial, progress)
    matrices = trial_approximations(trial, run.seed, kernels["kernel_train"], kernels["class_thresholds"])
    return trial_quantities(kernels, matrices)


# ----------------------------------------------------------------------------------------------------------------------
# One loop over (size, setting, trial)
# ----------------------------------------------------------------------------------------------------------------------


def settings_of(args: argparse.Namespace, network: str) -> list[tuple[Hashable, tuple[int, int], float | None]]:
    """What is varied beside the size: (setting, digits, depth setting); one setting, None, in the plan itself."""
    digits = tuple(args.digits or selections[network])
    if args.depth_sweep:
        return [(s, digits, s) for s in (sweep_factors if network == "fully-connected" else sweep_depths)]
    if args.digit_pairs:
        pairs = {frozenset(pair): pair for pair in [*itertools.combinations(range(10), 2), selections[network]]}
        return [(pair, pair, None) for pair in sorted(pairs.values())]
    return [(None, digits, None)]


def planned_trials(args: argparse.Namespace, run: Run, network: str) -> list[tuple[Hashable, Trial]]:
    """(setting, trial) of everything that is to be computed for one network."""
    slow = network == "convolutional" and (run.engine != "jax" or not has_accelerator())
    limited = (args.verify or slow) and not args.trials_given
    to_verify = args.data_sizes if args.sizes_given else sizes_to_verify[network]
    limits = dict.fromkeys(to_verify, 1) if args.verify else trials_without_accelerator
    planned = []
    counts = zip(args.data_sizes, args.trials, strict=True)
    for (n, count), (setting, digits, depth_setting) in itertools.product(counts, settings_of(args, network)):
        for number in range(count):
            trial = make_trial(network, digits, n, number, depth_setting)
            if not limited or number < limits.get(n, 0) or not missing_pairs(trial_files(run, trial)):
                planned.append((setting, trial))
    return planned


def results_origin(run: Run, network: str, digits: tuple[int, int] | None) -> dict[str, Any]:
    """What all trials of a results file have in common, the constants above among it; digits: None if they vary."""
    own: dict[str, Any] = {"depth_rule": depth_factor, "k_thresh_margin": k_thresh_margin}
    if network == "convolutional":
        own = {"depth_rule": convolutional_depth, "reference_size": reference_size}
        own |= {"percentile": percentile, "diagonal_boost": list(diagonal_boost)}
    both = {"sparsity_patterns": sparsity_patterns, "pattern_draws": pattern_draws, "quantities": QUANTITIES_VERSION}
    return run.origin(network, digits) | own | both


def run_network(args: argparse.Namespace, run: Run, network: str, planned: list[tuple[Hashable, Trial]]) -> Path:
    """Compute all trials of one network, and merge them into its results file, which is returned."""
    digits = None if args.digit_pairs else planned[0][1].digits
    path = run.output / f"{run.prefix(network)}{planned[0][1].variant if digits else ''}_{args.what}.npz"
    with GrowingResults(path, results_origin(run, network, digits), SETTINGS.get(args.what), run.engine) as results:
        todo = [(s, t) for s, t in planned if (t.size, s, t.number) not in results.records]
        with Sitting(run, network, args.what, [trial_files(run, trial) for _, trial in todo]) as sitting:
            for setting, trial in todo:
                if setting is None and trial.size not in results.by_size:
                    results.by_size[trial.size] = size_quantities(run.seed, network, trial.size)
                record = compute_trial(run, trial, sitting.progress)
                results.keep((trial.size, setting, trial.number), medians_over_images(record) if setting else record)
        note_flags(network, results.records.values())
    return path


def digits_in_use(args: argparse.Namespace) -> list[int]:
    """Every digit that the run draws images of."""
    return sorted({d for network in args.networks for _, pair, _ in settings_of(args, network) for d in pair})


def experiment(args: argparse.Namespace, run: Run) -> int:
    """Everything that the command line asks for. Returns the exit status."""
    drop_unfillable_sizes(args, run, digits_in_use(args))
    planned = {network: planned_trials(args, run, network) for network in args.networks}
    asked = {} if args.verify else {n: sum(args.trials) * len(settings_of(args, n)) for n in args.networks}
    announce(run, {n: [trial_files(run, t) for _, t in each] for n, each in planned.items()}, asked, dense_limit)
    written = [run_network(args, run, network, each) for network, each in planned.items() if each]
    if not args.verify:
        summaries = map(tables.summary, written) if args.what == "results" else []
        print("", *summaries, where_to_look(run.output, written), sep="\n")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status, 2 after one line about a bad input."""
    constants = options.Constants(seed, test_size, data_sizes, trials, trials_without_accelerator, networks)
    args = options.parse_arguments(argv, constants)
    run_all = functools.partial(experiment, args)
    to_do = functools.partial(verify, run_all) if args.verify else run_all
    return options.launch(args, to_do, labelled_images, digits_in_use(args))


if __name__ == "__main__":
    streams.run_script(main)
