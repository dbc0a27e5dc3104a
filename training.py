"""The experiment of "A quantum algorithm for training wide and deep classical neural networks".

Reproduces A. Zlokapa, H. Neven and S. Lloyd, arXiv:2107.09200 (2021). Training an infinitely wide
network by gradient descent is kernel regression with its neural tangent kernel (NTK),
prediction(x*) = sign(k*^T K^-1 y - t). Replace K by a matrix that a quantum computer can invert in
time O(log n), sparsified or diagonal; the accuracy should stay, and the sparsity, the condition
number and the numbers of measurements should grow no faster than log n.

    python training.py                                  # both networks, the constants below
    python training.py --data-sizes 16 32 --trials 2 1  # other sizes, other numbers of trials
    python training.py --help                           # everything else

Read from top to bottom: constants, images, the two networks, kernels, approximations, quantities,
and for each network one loop over its trials. ntk.fully_connected_ntk and ntk.convolutional_ntk are
the kernels, called by runtime/kernels.py; runtime/trials.py says what a Network, a Run and a Trial
hold; the rest of runtime/ is files, the command line and several processes at once (`is_leader`,
`share`). "The original" is the authors' own experiment. What is written where stands in README.md.

Each random draw has a stream of its own, named after what it is for, so that a run that was stopped
goes on with the same numbers. Results know which version of the functions here made them: after a
change of one, the trials that are asked for are computed again, from the kernels that are there.
"""

from runtime import streams

if __name__ == "__main__":
    streams.prepare_process()  # before the other imports: they take seconds

import argparse
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import xarray as xr
from numpy.typing import NDArray

from ntk import BadInput, fully_connected_ntk, has_accelerator, theorem
from ntk.fully_connected import nonlinearity
from runtime import options
from runtime.checkpoints import read_kernel_pair, read_reference
from runtime.datasets import Dataset, Split
from runtime.files import save_unless_there
from runtime.kernels import Need, kernels_by_pairs, missing_pairs, whole_kernels
from runtime.linear_algebra import (
    Array,
    Matrix,
    condition_number,
    entries_at,
    extreme_eigenvalues,
    numerical_flags,
    solve,
)
from runtime.processes import is_leader, share
from runtime.results import (
    ResultsFile,
    code_version,
    foreign_explained,
    medians_over_images,
    note_flags,
    provenance,
    quantity,
    read_results,
)
from runtime.sitting import (
    Allowance,
    Sitting,
    announce,
    drop_unfillable_sizes,
    refuse_shapes,
    where_to_look,
)
from runtime.summary import summary, title_of
from runtime.trials import Classes, Network, Run, Trial, TrialFiles, random_generator
from runtime.verification import Comparison, compare_sample, verify

# --------------------------------------------------------------------------------------------------
# Constants: the original's names and values. Edit them here, or override them by flags.
# --------------------------------------------------------------------------------------------------

seed = 0
test_size = 256  # test images of a trial, half of each class
data_sizes = [16, 32, 64, 128, 256, 512]  # training images of a trial, half of each class
trials = [16, 8, 4, 4, 4, 4]  # trials of each size
# Of the convolutional network without an accelerator and without --trials: trials whose kernels are
# in the folder, and beside them as many of these {size: trials} as take so many seconds on this
# machine; the first one is always computed.
trials_without_accelerator = {16: 3, 32: 1}
seconds_without_accelerator = 100

selections = {  # two classes of images; the first one's label is -1, the second one's +1
    "fully-connected": (8, 9),
    "convolutional": (1, 0),
}
# The fully-connected network's depth is in units of L_conv, from which on, by the paper's theorem,
# its kernel is close to diagonal ("conv" as in convergence). The original's has a tenth of that.
depth_factor = 0.1
convolutional_depth = 96  # convolutions of the other one, a third in each of its three stages
sweep_factors = [  # of --depth-sweep, fully connected
    0.01, 0.02, 0.03, 0.05, 0.065, 0.08, 0.1, 0.2, 0.5, 1.0
]  # fmt: skip
sweep_depths = [6, 12, 24, 48, 96, 192]  # the same, convolutional
# Variance of the first layer's neurons, in that sweep: as in the experiment, whose images of unit
# norm make it 0.0027, and 1 as in the theorem.
input_variances: dict[str, float | None] = {"original": None, "one": 1.0}

# k_thresh, the original's name, is what k* is divided by, and no threshold.
k_thresh_margin = 1e-5  # fully connected: k_thresh is the NTK at inner product 1 - margin
reference_size = 16  # convolutional: its first trial gives k_thresh and the sparsifying thresholds
percentile = 90  # of |K| inside a class, for the sparsifying thresholds
diagonal_boost = (0.76, 0.9)  # convolutional: 0.76 ln(n)^0.9 times the diagonal is added to it

sparsity_patterns = 30  # random sparsity patterns of each convention that a trial's K is tried with
original_patterns = 3  # as many as the original: the first of them, and all in large trials, sweeps
many_patterns_limit = 512  # training images of the largest trial that all patterns are tried on
pattern_draws = 100  # patterns drawn for each size to plot their sparsity alone
dense_limit = 512  # larger sparsified matrices are kept sparse, with solvers for sparse matrices

# Convolutional kernels take hours: of those of more training images than this only the entries that
# the sparsified matrices need are computed, with fewer test images and less precision. No default
# size is that large.
whole_kernel_limit = 512
test_size_above_limit = 64
precision_above_limit = "float32"

sizes_to_verify = {  # by --verify, one trial of each
    "fully-connected": data_sizes,
    "convolutional": [16, 32],
}

# Conventions for random patterns (`sparsity_pattern`) and for the size of entries that are kept
# (`class_thresholds`): the original's, and what it probably meant. The values end the names of
# their streams of random numbers, and are never changed, so that the draws stay what they are.
conventions = {
    "original": "",
    "corrected": "_sound",
}
# The threshold t that an output is compared with, as a function of all test outputs. Calibrated:
# the median output of the images 0, 2, 4, ...; the accuracy is that of the images 1, 3, 5, ..., so
# that it is one that a prediction of a new image can have. Readouts are of all images.
decision_thresholds: dict[str, Callable[[Array], Any]] = {
    "calibrated": lambda outputs: np.median(outputs[::2]),
    "test median": np.median,
    "zero": lambda outputs: 0.0,
}
classified_images = {
    "calibrated": slice(1, None, 2),
    "test median": slice(None),
    "zero": slice(None),
}

# --------------------------------------------------------------------------------------------------
# Images
# --------------------------------------------------------------------------------------------------


def draw_images(
    split: Split, classes: Classes, class_size: int, flatten: bool, rng: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """Draw a balanced subset of two classes, as `choose_images`, `standardised` by its own numbers.

    Returns (images, labels): float64 [n, h * w] if `flatten`, else [n, h, w, 1]; +1 and -1 [n].
    Raises BadInput as those two functions do.
    """
    chosen, labels = choose_images(split, classes, class_size, rng)
    images = standardised(chosen, chosen, classes)
    return images.reshape(len(labels), -1) if flatten else images, labels


def choose_images(
    split: Split, classes: Classes, class_size: int, rng: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """Draw a balanced subset of two classes, as it is: float64 [n, h, w, 1], +1 and -1 [n].

    split: images [m, h, w, 1] and labels [m]. Takes `class_size` images of each class in random
    order (fewer of both, with a note, where one has not that many), first those of classes[1] with
    label +1, then those of classes[0] with label -1. Raises BadInput where there is no image.
    """
    negative, positive = (np.flatnonzero(split.label == label) for label in classes)
    count = min(class_size, len(positive), len(negative))
    if count < 1:
        remedy = f"no {class_size} images of each to choose from; use others"
        raise BadInput("classes", classes, remedy)
    if count < class_size and is_leader():
        print(f"note: only {count} images of each of the classes {classes}, not {class_size}")
    chosen = np.concatenate([rng.permutation(positive)[:count], rng.permutation(negative)[:count]])
    return split.image[chosen].astype(np.float64), np.repeat([1, -1], count)


def standardised(images: NDArray, standard: NDArray, classes: Classes) -> NDArray:
    """Images [n, h, w, 1] less the mean of `standard`, over its deviation, then of unit norm.

    Mean and deviation are of all pixels together; the original's `standard` are the images
    themselves. Raises BadInput, a ValueError, where that is of one colour, or where an image is
    zero once the mean is subtracted.
    """
    if standard.std() == 0:
        raise BadInput("classes", classes, "the images are all of one colour; use others")
    images = (images - standard.mean()) / standard.std()
    norms = np.sqrt(np.sum(images**2, axis=(1, 2, 3), keepdims=True))
    if (norms == 0).any():
        remedy = "an image is all of the mean colour, which has no direction; leave it out"
        raise BadInput("classes", classes, remedy)
    return images / norms


class TrialImages(NamedTuple):
    """The images of a trial, [n, ...] and [x, ...], and their labels +1 and -1, [n] and [x]."""

    train: Array
    train_label: NDArray
    test: Array
    test_label: NDArray


def trial_images(run: Run, trial: Trial) -> TrialImages:
    """Draw the images of a trial, the same in every process and every run."""
    run = run_for_trial(run, trial)
    flat = trial.network.flat
    train_rng, test_rng = trial.random(run.seed, "train"), trial.random(run.seed, "test")
    train = draw_images(run.images.train, trial.classes, trial.size // 2, flat, train_rng)
    test = draw_images(run.images.test, trial.classes, run.test_size // 2, flat, test_rng)
    return TrialImages(*train, *test)


def separability(x: Array) -> float:
    """Delta = min over i != j of 1 - |x_i . x_j|, of unit vectors x [n, d] or [n, h, w, 1]."""
    x = x.reshape(len(x), -1)
    largest = 0.0
    for start in range(0, len(x), 1024):  # some rows at a time, so that memory stays small
        inner_products = np.abs(x[start : start + 1024] @ x.T)
        np.fill_diagonal(inner_products[:, start:], 0)
        largest = max(largest, float(inner_products.max()))
    return 1 - largest


# --------------------------------------------------------------------------------------------------
# The two networks, side by side: what differs between them
# --------------------------------------------------------------------------------------------------


class KernelScale(NamedTuple):
    """What k* is divided by, and the size below which entries of a class's block are dropped.

    by_convention: {convention: (of class +1, of class -1)}, thresholds of |entries of K|; None
    where no entries are dropped.
    """

    k_thresh: float
    by_convention: dict[str, tuple[float, float]] | None = None


def make_networks() -> dict[str, Network]:
    """The paper's two networks by name, made of the constants above.

    classes: the paper's own; files of these carry no classes in their names.
    """
    fully_connected = Network(
        name="fully-connected",
        title="Fully connected",
        classes=(8, 9),
        flat=True,
        depth=fully_connected_depth,
        depth_rule=depth_factor,
        sweep=tuple(sweep_factors),
        compute_kernels=whole_kernels,
        kernel_scale=fully_connected_scale,
        sparsify=keep_pattern,
        reference_size=None,
        whole_kernel_limit=None,
        constants={"depth_rule": depth_factor, "k_thresh_margin": k_thresh_margin},
        in_seconds=True,
    )
    convolutional = Network(
        name="convolutional",
        title="Convolutional",
        classes=(1, 0),
        flat=False,
        depth=fixed_depth,
        depth_rule=convolutional_depth,
        sweep=tuple(sweep_depths),
        compute_kernels=kernels_by_pairs,
        kernel_scale=convolutional_scale,
        sparsify=keep_large_entries,
        reference_size=reference_size,
        whole_kernel_limit=whole_kernel_limit,
        constants={
            "depth_rule": convolutional_depth,
            "reference_size": reference_size,
            "percentile": percentile,
            "diagonal_boost": list(diagonal_boost),
        },
        in_seconds=False,
    )
    return {network.name: network for network in (fully_connected, convolutional)}


def fully_connected_depth(n: int, delta: float, factor: float | None = None) -> int:
    """round(factor L_conv), L_conv = 8 ln(n/delta)/mu (arXiv:2107.09200), mu of the nonlinearity.

    That is 36 to 43 layers at n = 16. factor: by default `depth_factor`. A delta of two identical
    images, below the precision of float64, counts as that precision.
    """
    factor = depth_factor if factor is None else factor
    l_conv = 8 * np.log(n / max(delta, np.finfo(float).eps)) / nonlinearity
    return round(factor * l_conv)


def fixed_depth(n: int, delta: float, depth: float | None = None) -> int:
    """The depth of the sweep's setting, or else `convolutional_depth`, whatever the images."""
    return convolutional_depth if depth is None else int(depth)


def fully_connected_scale(depth: int, reference: Array | None) -> KernelScale:
    """k_thresh = k(1 - 1e-5): the NTK of two unit vectors of that inner product."""
    inner_product = 1 - k_thresh_margin
    x1, x2 = np.zeros((2, 1, 28 * 28))
    x1[0, 0] = 1
    x2[0, :2] = inner_product, np.sqrt(1 - inner_product**2)
    return KernelScale(float(fully_connected_ntk(x1, x2, depth=depth)[0, 0]))


def convolutional_scale(depth: int, reference: Array) -> KernelScale:
    """From the reference's [16, 16] entries: the largest |off-diagonal| one, and percentiles."""
    off_diagonal = reference - np.diag(np.diag(reference))
    by_convention = {
        convention: class_thresholds(reference, percentile, zeros=convention == "original")
        for convention in conventions
    }
    return KernelScale(np.abs(off_diagonal).max(), by_convention)


def class_thresholds(kernel: Array, percentile: float, zeros: bool = True) -> tuple[float, float]:
    """The percentile of |K| inside each class's block, off the diagonal.

    The original takes it over the whole matrix with zeros outside the block and on the diagonal
    (zeros=True): the 90th then keeps 46 % of the block's entries at n = 16. With zeros=False it is
    the percentile of the block's own entries. Thresholds of n = `reference_size` serve all sizes.
    """
    n = len(kernel)
    percentiles = []
    for half in (slice(0, n // 2), slice(n // 2, n)):
        block = np.abs(kernel[half, half])
        entries = block[~np.eye(len(block), dtype=bool)]
        outside = np.zeros(n * n - entries.size if zeros else 0)
        percentiles.append(np.percentile(np.concatenate([entries, outside]), percentile))
    return percentiles[0], percentiles[1]


# --------------------------------------------------------------------------------------------------
# Kernels
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialKernels:
    """One trial's NTK matrices, and what follows from its images.

    train: K [n, n], sparse where only some of its entries were computed; test: k* of every test
    image [x, n], and test_normalised, the same over k_thresh, clipped to [-1, 1]; train_label [n]
    and test_label [x], +1 and -1. all_test and all_test_label: the same of all test images of the
    dataset, as many of each class, where that takes seconds.
    """

    trial: Trial
    depth: int
    separability: float
    train: Matrix
    test: Array
    train_label: NDArray
    test_label: NDArray
    scale: KernelScale
    all_test: Array | None = None
    all_test_label: NDArray | None = None

    @functools.cached_property
    def test_normalised(self) -> Array:
        """k*/k_thresh, clipped to [-1, 1]. [x, n]"""
        return self.normalised(self.test)

    def normalised(self, test: Array) -> Array:
        """Rows k* [x, n] over k_thresh, clipped to [-1, 1]."""
        return np.clip(test / self.scale.k_thresh, -1, 1)

    @property
    def is_whole(self) -> bool:
        """Whether all of K was computed."""
        return isinstance(self.train, np.ndarray)

    @functools.cached_property
    def largest_off_diagonal(self) -> float:
        """The largest |off-diagonal| entry of K, of those that were computed."""
        if isinstance(self.train, np.ndarray):
            return float(max(np.abs(np.delete(row, i)).max() for i, row in enumerate(self.train)))
        entries = self.train.tocoo()
        return float(np.abs(entries.data[entries.row != entries.col]).max(initial=0))


def is_partial(trial: Trial) -> bool:
    """Whether only some entries of the trial's kernel are computed."""
    limit = trial.network.whole_kernel_limit
    return limit is not None and trial.size > limit


def run_for_trial(run: Run, trial: Trial) -> Run:
    """The run with the test images and the precision of this trial."""
    if not is_partial(trial):
        return run
    few = min(run.test_size, test_size_above_limit)
    return replace(run, test_size=few, precision=precision_above_limit)


def need_of(run: Run, trial: Trial) -> Need:
    """Which part of its kernels a trial needs: all, or the entries that its patterns have."""
    if not is_partial(trial):
        return Need()
    n, count = trial.size, original_patterns
    expected = n + len(conventions) * count * n * np.log(n) / 2
    entries = functools.partial(entries_of_patterns, run, trial)
    patterns = dict.fromkeys(conventions, count)
    return Need(entries=entries, expected=round(expected), patterns=patterns)


def trial_files(run: Run, trial: Trial, delta: float = 1) -> TrialFiles:
    """Where the trial's arrays are; delta: its separability, which decides some networks' depth.

    Without delta the depth is not the right one: for paths and `missing_pairs`, which need none.
    """
    depth = trial.network.depth(trial.size, delta, trial.depth_setting)
    return TrialFiles(run_for_trial(run, trial), trial, depth)


def trial_kernels(
    run: Run, trial: Trial, progress: Callable[[int], object] = lambda pairs: None
) -> TrialKernels:
    """One trial's kernels, read or else computed and saved, as all processes call it.

    progress: called with the number of pairs of images that became known.
    """
    images = trial_images(run, trial)
    delta = separability(images.train)
    files = trial_files(run, trial, delta)
    compute = trial.network.compute_kernels
    matrices = compute(files, images.train, images.test, need_of(run, trial), progress)
    kernels = TrialKernels(
        trial=trial,
        depth=files.depth,
        separability=delta,
        train=matrices["kernel_train"],
        test=matrices["kernel_test"],
        train_label=images.train_label,
        test_label=images.test_label,
        scale=trial.network.kernel_scale(files.depth, reference_kernel(run, trial)),
    )
    if is_leader():
        save_unless_there(files.path("train_label"), kernels.train_label)
        save_unless_there(files.path("test_label"), kernels.test_label)
        save_unless_there(files.path("kernel_test_normalized"), kernels.test_normalised)
    return kernels


def with_all_test_images(run: Run, kernels: TrialKernels) -> TrialKernels:
    """The same kernels and, where that takes seconds, k* of all test images, which is not kept."""
    trial = kernels.trial
    if not trial.network.in_seconds:
        return kernels
    images = trial_images(run, trial)
    labels = run.images.test.label
    class_size = min(int(np.sum(labels == label)) for label in trial.classes)
    rng = trial.random(run.seed, "all test images")
    all_images, label = draw_images(
        run.images.test, trial.classes, class_size, trial.network.flat, rng
    )
    k = fully_connected_ntk(all_images, images.train, depth=kernels.depth, engine=run.engine)
    return replace(kernels, all_test=k, all_test_label=label)


def reference_kernel(run: Run, trial: Trial) -> Array | None:
    """K of the trial whose entries decide the thresholds, the first one of n = 16; None without."""
    if trial.network.reference_size is None:
        return None
    reference = replace(trial, size=trial.network.reference_size, number=0)
    images = trial_images(run, reference)
    files = trial_files(run, reference, separability(images.train))
    need = Need(test=False)
    compute = trial.network.compute_kernels
    return compute(files, images.train, images.test, need, lambda pairs: None)["kernel_train"]


def stored_kernels(folder: Path, prefix: str, size: int, number: int, seed: int) -> TrialKernels:
    """What `trial_kernels` gives but for the separability, from the kernel files alone.

    prefix: what the files' names begin with. Raises BadInput where a file is missing or damaged.
    """
    train, test, label = read_kernel_pair(folder, prefix, size, number, seed)
    network = make_networks()[label["network"]]
    trial = Trial(network, tuple(label["digits"]), size, number)
    if not prefix.endswith(network.name + trial.variant):
        what = f"holds kernels of classes {trial.classes}, which belong to files {trial.variant}"
        raise BadInput("output", folder / f"{prefix}_..._trial{number}", what)
    reference = None
    if network.reference_size is not None:
        reference = read_reference(folder, prefix, network.reference_size, seed, label)
    return TrialKernels(
        trial=trial,
        depth=label["depth"],
        separability=np.nan,
        train=train,
        test=test,
        train_label=np.repeat([1, -1], size // 2),
        test_label=np.repeat([1, -1], len(test) // 2),
        scale=network.kernel_scale(label["depth"], reference),
    )


# --------------------------------------------------------------------------------------------------
# Sparsity patterns
# --------------------------------------------------------------------------------------------------


def sparsity_pattern(
    n: int, rng: np.random.Generator, replacement: bool = True, density: float = 1
) -> Matrix:
    """Random symmetric pattern of O(log n) entries a row, sparse bool [n, n].

    Each row draws Binomial(n, p) columns, p = min(2 density ln(n)/n, 1), with replacement as the
    original does, so that some are drawn twice, and count once; without, each entry is drawn by
    itself with probability p. The lower triangle is kept and mirrored, entries between the classes
    are dropped, the diagonal is set: about ln(n) entries a row, and the diagonal.
    """
    p = min(2 * density * np.log(n) / n, 1)
    if replacement:
        counts = rng.binomial(n, p, size=n)
        i = np.repeat(np.arange(n), counts)
        j = rng.integers(n, size=counts.sum())
    else:
        i, j = entries_drawn_once(n, p, rng)
    same_class = (i < n // 2) == (j < n // 2)
    kept = (j < i) & same_class
    i, j = np.divmod(np.unique(i[kept] * n + j[kept]), n)
    diagonal = np.arange(n)
    rows = np.concatenate([i, j, diagonal])
    columns = np.concatenate([j, i, diagonal])
    return scipy.sparse.csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(n, n))


def entries_drawn_once(
    n: int, p: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of entries [n, n], each drawn with probability p."""
    height = max(1, 2**22 // n)  # rows drawn at once, so that memory stays small
    rows, columns = [], []
    for start in range(0, n, height):
        drawn = rng.random((min(height, n - start), n), dtype=np.float32) < p
        i, j = np.nonzero(drawn)
        rows.append(i + start)
        columns.append(j)
    return np.concatenate(rows), np.concatenate(columns)


class Pattern(NamedTuple):
    """One of a trial's random patterns, bool [n, n]."""

    convention: str
    number: int
    matrix: Matrix


def pattern_count(trial: Trial, in_sweep: bool = False) -> int:
    """How many patterns of each convention are tried on a trial's kernel."""
    if in_sweep or is_partial(trial) or trial.size > many_patterns_limit:
        return min(original_patterns, sparsity_patterns)
    return sparsity_patterns


def trial_patterns(
    run_seed: int, trial: Trial, count: int | None = None, density: float = 1
) -> list[Pattern]:
    """The trial's random patterns, those of one convention before those of the other.

    "original" as in the paper's experiment; "corrected" draws without replacement. count: of each
    convention; by default the original's.
    """
    count = original_patterns if count is None else count
    patterns = []
    for convention, ending in conventions.items():
        for number in range(count):
            rng = trial.random(run_seed, f"pattern {number}{ending}")
            replacement = convention == "original"
            matrix = sparsity_pattern(trial.size, rng, replacement, density)
            patterns.append(Pattern(convention, number, matrix))
    return patterns


def entries_of_patterns(run: Run, trial: Trial) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the entries that a trial's patterns have, the diagonal among them.

    Of the lower half alone, row >= column, ordered by row, then by column.
    """
    n = trial.size
    positions = [np.arange(n) * (n + 1)]  # the diagonal, as positions in the flattened matrix
    for pattern in trial_patterns(run.seed, trial):
        i, j = pattern.matrix.nonzero()
        lower = i > j
        positions.append(i[lower].astype(np.int64) * n + j[lower])
    rows, columns = np.divmod(np.unique(np.concatenate(positions)), n)
    return rows, columns


# --------------------------------------------------------------------------------------------------
# Approximations of the kernel matrix K [n, n]; rows of label +1 come before those of label -1
# --------------------------------------------------------------------------------------------------


def keep_pattern(kernel: Matrix, pattern: Pattern, limits: KernelScale) -> Matrix:
    """K~ of the fully-connected network: K's entries on the pattern, the others zero."""
    i, j = pattern.matrix.nonzero()
    return matrix_of(kernel.shape[0], i, j, entries_at(kernel, i, j))


def keep_large_entries(
    kernel: Matrix,
    pattern: Pattern,
    limits: KernelScale,
    boost: tuple[float, float] | None = None,
) -> Matrix:
    """K~ of the convolutional network: large entries on the pattern, and a larger diagonal.

    Off the diagonal only entries whose |K| is above their class's threshold are kept. Then
    0.76 ln(n)^0.9 (`boost`) times the diagonal is added to the diagonal.
    """
    n = kernel.shape[0]
    factor, power = diagonal_boost if boost is None else boost
    i, j = pattern.matrix.nonzero()
    entries = entries_at(kernel, i, j)
    on_diagonal = i == j
    entries[on_diagonal] *= 1 + factor * np.log(n) ** power
    assert limits.by_convention is not None
    positive, negative = limits.by_convention[pattern.convention]
    kept = on_diagonal | (np.abs(entries) > np.where(i < n // 2, positive, negative))
    return matrix_of(n, i[kept], j[kept], entries[kept])


def matrix_of(n: int, i: NDArray, j: NDArray, entries: Array) -> Matrix:
    """The matrix [n, n] of these entries, dense up to `dense_limit`."""
    matrix = scipy.sparse.csr_array((entries, (i, j)), shape=(n, n))
    matrix.eliminate_zeros()
    return matrix.toarray() if n <= dense_limit else matrix


@dataclass(frozen=True)
class Approximation:
    """What is inverted in K's place.

    make(kernels, pattern): its matrix. random: whether it depends on a pattern, or is one for all.
    needs_all: whether it needs all entries of K. unclipped_test: whether k* is taken as it is, not
    over k_thresh and clipped. reads_out_y: whether measurements are counted for |w> = |y> and not
    matrix^-1 |y>, as the paper has it for the diagonal, whose entries are nearly equal; outputs and
    accuracies are of matrix^-1 y all the same.
    """

    name: str
    make: Callable[[TrialKernels, Pattern | None], Matrix]
    random: bool = False
    needs_all: bool = False
    unclipped_test: bool = False
    reads_out_y: bool = False


def exact(kernels: TrialKernels, pattern: Pattern | None) -> Matrix:
    """K itself."""
    return kernels.train


def sparsified(kernels: TrialKernels, pattern: Pattern | None) -> Matrix:
    """K~: some entries of K, as the network chooses them."""
    return kernels.trial.network.sparsify(kernels.train, pattern, kernels.scale)


def diagonal(kernels: TrialKernels, pattern: Pattern | None) -> Matrix:
    """The diagonal of K, sparse."""
    return scipy.sparse.diags_array(kernels.train.diagonal(), format="csr")


approximations = (
    Approximation("exact", exact, needs_all=True, unclipped_test=True),
    Approximation("sparsified", sparsified, random=True),
    Approximation("diagonal", diagonal, reads_out_y=True),
)

# --------------------------------------------------------------------------------------------------
# Quantities that the paper claims to stay O(log n)
# --------------------------------------------------------------------------------------------------


def sparsity(matrix: Matrix) -> int:
    """Largest number of non-zero entries in a column of a matrix, dense or sparse.

    As in quantum algorithms: the fewer, the sparser.
    """
    return (matrix != 0).sum(axis=0).max()


def accuracy(outputs: Array, label: NDArray, threshold: float) -> float:
    """Share of test images classified rightly by sign(output - threshold); NaN without outputs."""
    if not np.isfinite(outputs).all():
        return np.nan
    predicted = np.where(outputs > threshold, 1, -1)
    return float(np.mean(predicted == label))


def post_selection_probability(k: Array) -> Array:
    """P = sum_i k_i^2 / n that |k*> is prepared, of every test image, for |k_i| <= 1. [x, n] -> [x]

    QRAM loads k_i beside sum_i |i>/sqrt(n); an ancilla is rotated by arcsin k_i and has to be
    measured as 1. The number of measurements is 1/P.
    """
    return np.sum(k**2, axis=1) / k.shape[1]


def overlaps(k: Array, state: NDArray) -> Array:
    """Overlap o = <k*|w> of every test image, both of unit norm. [x, n], [n] -> [x]"""
    return k @ state / (np.linalg.norm(k, axis=1) * np.linalg.norm(state))


def readout_measurements(overlap: Array, threshold: float = 0) -> Array:
    """Measurements to read the sign of o - t: (1 - o^2)/(o - t)^2; 1/o^2 - 1 at t = 0. [x]"""
    with np.errstate(divide="ignore"):  # inf at the threshold itself
        return (1 - overlap**2) / (overlap - threshold) ** 2


@dataclass(frozen=True)
class Prediction:
    """What a matrix in K's place predicts for a trial's test images.

    matrix [n, n]; k: k* [x, n]; y [n] and test_label [x], +1 and -1. all_k and all_label: of all
    test images, where they are known. reads_out_y: of the `Approximation`.
    """

    matrix: Matrix
    k: Array
    y: NDArray
    test_label: NDArray
    all_k: Array | None = None
    all_label: NDArray | None = None
    reads_out_y: bool = False

    @functools.cached_property
    def eigenvalues(self) -> tuple[float, float, float]:
        """The lowest one, the smallest magnitude, the largest magnitude."""
        return extreme_eigenvalues(self.matrix)

    @functools.cached_property
    def weights(self) -> Array:
        """matrix^-1 y, scaled to unit norm. [n]"""
        return solve(self.matrix, self.y)

    @property
    def state(self) -> Array:
        """|w>, whose overlap with |k*> is read out; not scaled. [n]"""
        return self.y if self.reads_out_y else self.weights

    @functools.cached_property
    def outputs(self) -> Array:
        """The output for every test image. [x]"""
        return self.k @ self.weights

    @functools.cached_property
    def overlap(self) -> Array:
        """<k*|w> of every test image. [x]"""
        return overlaps(self.k, self.state)


def accuracies(outputs: Array, label: NDArray) -> list[float]:
    """Accuracy at each of the `decision_thresholds`. [x], [x] -> [3]"""
    values = []
    for name, threshold in decision_thresholds.items():
        images = classified_images[name]
        values.append(accuracy(outputs[images], label[images], threshold(outputs)))
    return values


def accuracies_of_all(prediction: Prediction) -> list[float]:
    """The same of all test images; NaN where these are not known."""
    if prediction.all_k is None or prediction.all_label is None:
        return [np.nan] * len(decision_thresholds)
    return accuracies(prediction.all_k @ prediction.weights, prediction.all_label)


def readouts(prediction: Prediction) -> list[Array]:
    """Measurements to read out each test image, at each of the `decision_thresholds`. [3, x]"""
    overlap = prediction.overlap
    return [readout_measurements(overlap, t(overlap)) for t in decision_thresholds.values()]


def over_test_set(kernels: TrialKernels) -> Array:
    """k*/k_thresh, clipped, over the largest entry of all test images, as the original has it.

    No algorithm knows that number beforehand.
    """
    return kernels.test_normalised / np.abs(kernels.test_normalised).max()


def over_training_set(kernels: TrialKernels) -> Array:
    """k* over the largest off-diagonal entry of K, which is known, clipped.

    Of a kernel that is computed in parts: the largest entry that was computed.
    """
    largest = kernels.largest_off_diagonal
    return np.clip(kernels.test / largest, -1, 1) if largest > 0 else np.sign(kernels.test)


def over_constant(kernels: TrialKernels) -> Array:
    """k*/k_thresh, clipped."""
    return kernels.test_normalised


# By name what k* is divided by, so that QRAM can hold it: k* over that, |k_i| <= 1. [x, n]
divisors = {
    "test set": over_test_set,
    "training set": over_training_set,
    "fixed constant": over_constant,
}


def post_selections(kernels: TrialKernels) -> list[Array]:
    """Measurements until |k*> is prepared, of each test image, by each of the `divisors`. [3, x]"""
    return [1 / post_selection_probability(scale(kernels)) for scale in divisors.values()]


def clipped_shares(kernels: TrialKernels) -> list[float]:
    """Share of the entries of k* that are 1 or -1, by each of the `divisors`."""
    return [float(np.mean(np.abs(scale(kernels)) == 1)) for scale in divisors.values()]


def off_diagonal_ratio(kernels: TrialKernels) -> float:
    """The largest off-diagonal entry of K over its smallest diagonal one; NaN of a part of K."""
    if not kernels.is_whole:
        return np.nan
    return kernels.largest_off_diagonal / np.abs(kernels.train.diagonal()).min()


def label_purity(kernels: TrialKernels) -> float:
    """Share of training images whose largest other entry of K is of their own class.

    NaN of a part of K.
    """
    if not isinstance(kernels.train, np.ndarray):
        return np.nan
    others = np.abs(kernels.train)
    np.fill_diagonal(others, 0)
    closest = others.argmax(axis=1)
    return float(np.mean(kernels.train_label[closest] == kernels.train_label))


def count_of_all_test_images(kernels: TrialKernels) -> float:
    """How many test images all are; NaN where their kernels are not known."""
    return np.nan if kernels.all_test_label is None else len(kernels.all_test_label)


class Quantity(NamedTuple):
    """What is computed, what it is, its unit, and its own axes."""

    compute: Callable[[Any], Any]
    long_name: str
    axes: tuple[str, ...] = ()
    units: str = "1"


# A new quantity is a function and an entry here. These are of a prediction, one for each
# approximation and pattern.
prediction_quantities = {
    "sparsity": Quantity(
        lambda p: sparsity(p.matrix), "largest number of non-zero entries in a column"
    ),
    "condition_number": Quantity(
        lambda p: condition_number(p.matrix, p.eigenvalues), "largest over smallest |eigenvalue|"
    ),
    "numerical_flags": Quantity(
        lambda p: numerical_flags(p.matrix, p.eigenvalues),
        "1 not positive definite + 2 singular to rounding + 4 condition number above 1e12",
    ),
    "smallest_eigenvalue": Quantity(lambda p: p.eigenvalues[0], "lowest eigenvalue"),
    "positive_definite": Quantity(lambda p: p.eigenvalues[0] > 0, "1 if positive definite"),
    "accuracy": Quantity(
        lambda p: accuracies(p.outputs, p.test_label),
        "share of test images classified rightly",
        ("threshold",),
    ),
    "accuracy_all_images": Quantity(
        accuracies_of_all,
        "share of all test images of the dataset classified rightly",
        ("threshold",),
    ),
    "readout_measurements": Quantity(
        readouts,
        "measurements to read the sign of o - t: (1 - o^2)/(o - t)^2",
        ("threshold", "image"),
        "measurements",
    ),
}
# These are of a trial's kernels.
kernel_quantities = {
    "depth": Quantity(lambda k: k.depth, "hidden layers, or convolutions", units="layers"),
    "separability": Quantity(lambda k: k.separability, "delta = min 1 - |x_i . x_j|"),
    "off_diagonal_ratio": Quantity(
        off_diagonal_ratio, "largest off-diagonal over smallest diagonal entry of K"
    ),
    "post_selection_measurements": Quantity(
        post_selections,
        "measurements until |k*> is prepared, n/sum(k_i^2)",
        ("divisor", "image"),
        "measurements",
    ),
    "label_purity": Quantity(
        label_purity, "share of training images whose closest one, by K, has their label"
    ),
    "all_test_images": Quantity(
        count_of_all_test_images, "test images of both classes in the dataset, as many of each"
    ),
    "clipped_share": Quantity(clipped_shares, "share of k* at 1 or -1", ("divisor",)),
}

# These are what the theorem is about, of a `theorem.Case`, in the sweep of the depth.
theorem_quantities = {
    "correlation_of_gradients": Quantity(
        lambda case: theorem.off_diagonal_ratio(case.kernel), "largest |K_ij|/sqrt(K_ii K_jj)"
    ),
    "off_diagonal_bound": Quantity(
        lambda case: theorem.off_diagonal_bound(case.depth, case.delta),
        "bound of the proof on the same, on inputs of variance 1",
    ),
    "condition_number_excess": Quantity(
        theorem.Case.excess_condition_numbers, "condition number minus 1", ("approximation",)
    ),
    "weight_error": Quantity(theorem.Case.weight_errors, "|w~ - w|/|w|", ("approximation",)),
    "output_error": Quantity(
        theorem.Case.largest_output_errors,
        "largest |k*.(w~ - w)|/(|k*| |w|) of all test images",
        ("approximation",),
    ),
    "flipped_share": Quantity(
        theorem.Case.flipped_shares,
        "share of test images whose sign at t = 0 is not that of K",
        ("approximation",),
    ),
    "descent_steps": Quantity(
        theorem.Case.descent_steps, "steps of gradient descent to 1 % of the residual"
    ),
    "second_condition_number": Quantity(
        theorem.Case.second_condition_number, "second largest over smallest eigenvalue of K"
    ),
}


def labelled(
    quantities: dict[str, Quantity], values: dict[str, Any], outer: dict[str, list[str]]
) -> xr.Dataset:
    """Values of quantities as a record, with their axes' labels.

    outer: axes before a quantity's own ones, by the quantity's name.
    """
    record = xr.Dataset()
    for name, (_, long_name, axes, units) in quantities.items():
        axes = (*outer.get(name, ()), *axes)
        record[name] = quantity(axes, values[name], long_name, units)
    labels = {
        "convention": list(conventions),
        "threshold": list(decision_thresholds),
        "divisor": list(divisors),
        "approximation": [approximation.name for approximation in approximations],
    }
    for axis in record.dims:
        record = record.assign_coords({axis: labels.get(str(axis), range(record.sizes[axis]))})
    return record


def computed(quantities: dict[str, Quantity], subject: Any) -> xr.Dataset:
    """All of these quantities of what they are of."""
    values = {name: described.compute(subject) for name, described in quantities.items()}
    return labelled(quantities, values, {})


def predict(
    approximation: Approximation, kernels: TrialKernels, pattern: Pattern | None
) -> Prediction:
    """The prediction of an approximation, made with this pattern if it is random."""
    k, all_k = kernels.test, kernels.all_test
    if not approximation.unclipped_test:
        k = kernels.test_normalised
        all_k = None if all_k is None else kernels.normalised(all_k)
    return Prediction(
        matrix=approximation.make(kernels, pattern),
        k=k,
        y=kernels.train_label,
        test_label=kernels.test_label,
        all_k=all_k,
        all_label=kernels.all_test_label,
        reads_out_y=approximation.reads_out_y,
    )


def approximation_record(
    approximation: Approximation, kernels: TrialKernels, patterns: list[Pattern]
) -> xr.Dataset:
    """The quantities of one approximation; with the axes convention and pattern if it is random.

    What each test image has is kept of the original's patterns alone, as `first_pattern`.
    """
    if not approximation.random:
        return computed(prediction_quantities, predict(approximation, kernels, None))
    values: dict[str, Any] = {name: [] for name in prediction_quantities}
    for pattern in patterns:
        prediction = predict(approximation, kernels, pattern)
        for name, described in prediction_quantities.items():
            if "image" not in described.axes or pattern.number < original_patterns:
                values[name].append(described.compute(prediction))
    outer = {}
    for name, described in prediction_quantities.items():
        by_pattern = np.array(values[name], float)
        values[name] = by_pattern.reshape(len(conventions), -1, *by_pattern.shape[1:])
        numbers = "first_pattern" if "image" in described.axes else "pattern"
        outer[name] = ["convention", numbers]
    return labelled(prediction_quantities, values, outer)


def trial_quantities(kernels: TrialKernels, patterns: list[Pattern]) -> xr.Dataset:
    """What the paper plots, of one trial, and beside it the same by corrected conventions.

    What does not depend on a pattern or a convention is the same for all of them.
    """
    possible = [each for each in approximations if kernels.is_whole or not each.needs_all]
    records = [approximation_record(each, kernels, patterns) for each in possible]
    names = xr.Variable("approximation", [each.name for each in possible])
    record = xr.concat(records, names, combine_attrs="override")
    record = record.transpose("approximation", "convention", "pattern", "first_pattern", ...)
    return record.merge(computed(kernel_quantities, kernels))


def with_inputs(run: Run, kernels: TrialKernels, variance: float) -> TrialKernels:
    """The same trial with images scaled so that the first layer's neurons have that variance."""
    images = trial_images(run, kernels.trial)
    scale = theorem.input_scale(images.train.shape[1], variance)
    train, test = scale * images.train, scale * images.test
    kernel = fully_connected_ntk(train, depth=kernels.depth, engine=run.engine)
    kernel_test = fully_connected_ntk(test, train, depth=kernels.depth, engine=run.engine)
    return replace(kernels, train=kernel, test=kernel_test)


def theorem_record(run: Run, kernels: TrialKernels) -> xr.Dataset:
    """What the theorem is about, by the variance of the inputs; K~ of the trial's first pattern."""
    pattern = trial_patterns(run.seed, kernels.trial)[0]
    records = []
    for variance in input_variances.values():
        scaled = kernels if variance is None else with_inputs(run, kernels, variance)
        case = theorem.Case(
            kernel=scaled.train,
            kernel_test=scaled.test,
            y=scaled.train_label,
            in_its_place=[approximation.make(scaled, pattern) for approximation in approximations],
            depth=scaled.depth,
            delta=scaled.separability,
        )
        records.append(computed(theorem_quantities, case))
    return xr.concat(records, xr.Variable("input_variance", list(input_variances)))


def pattern_quantities(run_seed: int, network: Network, size: int) -> xr.Dataset:
    """Sparsity of random patterns of one size alone, by convention and draw."""
    by_convention = []
    for convention, ending in conventions.items():
        sparsities = []
        for number in range(pattern_draws):
            rng = random_generator(run_seed, network.name, size, number, f"sparsity{ending}")
            sparsities.append(sparsity(sparsity_pattern(size, rng, convention == "original")))
        by_convention.append(sparsities)
    long_name = "largest number of entries in a column of a random pattern"
    values = quantity(("convention", "draw"), by_convention, long_name)
    labels = {"convention": list(conventions), "draw": range(pattern_draws)}
    return xr.Dataset({"pattern_sparsity": values}, labels)


# --------------------------------------------------------------------------------------------------
# One loop over (size, setting, trial)
# --------------------------------------------------------------------------------------------------


def compute_trial(
    run: Run,
    trial: Trial,
    progress: Callable[[int], object] = lambda pairs: None,
    in_sweep: bool = False,
) -> xr.Dataset:
    """One trial from its images to its quantities; kernels are read where they are on the disk."""
    kernels = with_all_test_images(run, trial_kernels(run, trial, progress))
    count = pattern_count(trial, in_sweep)
    record = trial_quantities(kernels, trial_patterns(run.seed, trial, count))
    if trial.depth_setting is not None and trial.network.flat:
        record = record.merge(theorem_record(run, kernels))
    return record


class Setting(NamedTuple):
    """What a sweep varies beside the size: its label in the results, classes, and the depth."""

    label: Any
    classes: Classes
    depth: float | None = None

    @property
    def in_sweep(self) -> bool:
        """Whether it is one of several, and not the plan itself."""
        return self.label is not None


def settings_of(args: argparse.Namespace, dataset: Dataset, network: Network) -> list[Setting]:
    """The settings of a sweep; one without a label in the plan itself."""
    classes = tuple(args.classes or selections[network.name])
    if args.depth_sweep:
        return [Setting(float(depth), classes, depth) for depth in network.sweep]
    if args.digit_pairs:
        labels = [label for label, name in enumerate(dataset.class_names) if name]
        labels = sorted(args.classes or labels)
        settings = []
        for pair in itertools.combinations(labels, 2):
            own = network.classes if set(pair) == set(network.classes) else pair
            settings.append(Setting(f"{own[0]} {own[1]}", own))
        return settings
    return [Setting(None, classes)]


def planned_trials(
    args: argparse.Namespace, run: Run, network: Network
) -> list[tuple[Setting, Trial]]:
    """Everything that is to be computed for one network."""
    candidates = []
    for n, count in zip(args.data_sizes, args.trials, strict=True):
        for setting in settings_of(args, run.images.dataset, network):
            for number in range(count):
                trial = Trial(network, setting.classes, n, number, setting.depth)
                candidates.append((setting, trial))
    # Which ones are wanted may depend on files, and process 0 alone looks at those.
    allowance = Allowance(seconds_without_accelerator)
    wanted = share(lambda: [is_wanted(args, run, trial, allowance) for _, trial in candidates])
    return list(itertools.compress(candidates, wanted))


def is_wanted(args: argparse.Namespace, run: Run, trial: Trial, allowance: Allowance) -> bool:
    """Whether a trial is computed: with --verify some are, without an accelerator not all."""
    if args.verify:
        return is_verified(args, trial)
    network = trial.network
    without_accelerator = run.engine != "jax" or not has_accelerator()
    if args.trials_given or network.in_seconds or not without_accelerator:
        return True
    files, need = trial_files(run, trial), need_of(run, trial)
    if not missing_pairs(files, need):
        return True
    is_small = trial.number < trials_without_accelerator.get(trial.size, 0)
    return is_small and allowance.covers(files, need)


def is_verified(args: argparse.Namespace, trial: Trial) -> bool:
    """Whether --verify computes a whole trial again; `samples` has those that take too long."""
    if is_partial(trial):
        return False
    if args.trials_given:
        return True
    by_constants = sizes_to_verify.get(trial.network.name, data_sizes)
    sizes = args.data_sizes if args.sizes_given else by_constants
    return trial.number < 1 and trial.size in sizes


class Plan(NamedTuple):
    """What is to be computed of one network."""

    network: Network
    trials: list[tuple[Setting, Trial]]
    to_compute: list[tuple[Setting, Trial]]  # those that are not in the results
    results: ResultsFile
    code: str  # its version


def make_plan(
    args: argparse.Namespace, run: Run, network: Network, trials: list[tuple[Setting, Trial]]
) -> Plan:
    """The plan of these trials, by what the results file of the network holds."""
    code = code_version(Path(__file__))
    results = results_file(args, run, trials[0][1])
    to_compute = [each for each in trials if has_to_be_computed(run, results, code, *each)]
    return Plan(network, trials, to_compute, results, code)


def needs_of(run: Run, trials: list[tuple[Setting, Trial]]) -> list[tuple[TrialFiles, Need]]:
    """Where the trials' kernels are, and which part of them is needed."""
    return [(trial_files(run, trial), need_of(run, trial)) for _, trial in trials]


def run_network(args: argparse.Namespace, run: Run, plan: Plan) -> Path:
    """Compute the trials of one network, and merge them into its results file. Returns its path."""
    network = plan.network
    with plan.results as results:
        needs = needs_of(run, plan.to_compute)
        with Sitting(run, network, args.what, needs, len(plan.trials)) as sitting:
            for setting, trial in plan.to_compute:
                about = about_trial(run, setting, trial, plan.code)
                if results.holds(key_of(setting, trial), about):
                    trial_kernels(run, trial, sitting.progress)  # these alone are missing
                    continue
                record = compute_trial(run, trial, sitting.progress, setting.in_sweep)
                if setting.in_sweep:
                    record = medians_over_images(record)
                elif not results.holds({"n": trial.size}, {}, "pattern_sparsity"):
                    drawn = pattern_quantities(run.seed, network, trial.size)
                    results.add({"n": trial.size}, drawn)
                results.keep(key_of(setting, trial), record.assign(about))
        note_flags(network.name, results.computed_now)
    return results.path


def has_to_be_computed(
    run: Run, results: ResultsFile, code: str, setting: Setting, trial: Trial
) -> bool:
    """Whether a trial's record is missing or outdated, or kernels that other scripts look for."""
    about = about_trial(run, setting, trial, code)
    return not results.holds(key_of(setting, trial), about) or lacks_quick_kernels(run, trial)


def lacks_quick_kernels(run: Run, trial: Trial) -> bool:
    """Whether kernels that take seconds are not on the disk, where other scripts look for them."""
    if not trial.network.in_seconds:
        return False
    return share(lambda: missing_pairs(trial_files(run, trial), need_of(run, trial)) > 0)


def results_file(args: argparse.Namespace, run: Run, trial: Trial) -> ResultsFile:
    """Where the results of this kind of run are kept; trial: one of those that it computes."""
    classes = None if args.digit_pairs else trial.classes
    variant = "" if args.digit_pairs else trial.variant
    path = run.output / f"{run.prefix(trial.network)}{variant}_{args.what}.nc"
    return ResultsFile(path, run.origin(trial.network, classes))


def about_trial(run: Run, setting: Setting, trial: Trial, code: str) -> dict[str, xr.DataArray]:
    """What a trial's record says of how it was computed; where that changes, it is computed again.

    When it was finished does not matter.
    """
    count = pattern_count(trial, setting.in_sweep)
    patterns = quantity((), count, "number of random patterns of each convention")
    return provenance(run_for_trial(run, trial), trial.network, code) | {"patterns": patterns}


def key_of(setting: Setting, trial: Trial) -> dict[str, Any]:
    """A trial's place in the results."""
    if not setting.in_sweep:
        return {"n": trial.size, "trial": trial.number}
    return {"n": trial.size, "setting": setting.label, "trial": trial.number}


def chosen_networks(args: argparse.Namespace) -> list[Network]:
    """The networks that the command line asks for."""
    return [network for network in make_networks().values() if network.name in args.networks]


def classes_in_use(args: argparse.Namespace, dataset: Dataset) -> list[int]:
    """Every class that the run draws images of."""
    classes: set[int] = set()
    for network in chosen_networks(args):
        for setting in settings_of(args, dataset, network):
            classes |= set(setting.classes)
    return sorted(classes)


def experiment(args: argparse.Namespace, run: Run) -> int:
    """Everything that the command line asks for. Returns the exit status."""
    drop_unfillable_sizes(args, run, classes_in_use(args, run.images.dataset))
    refuse_shapes(run, chosen_networks(args))
    plans = []
    for network in chosen_networks(args):
        trials_of_network = planned_trials(args, run, network)
        needs = []
        if trials_of_network:
            plan = make_plan(args, run, network, trials_of_network)
            needs = needs_of(run, plan.to_compute)
            plans.append(plan)
        asked = sum(args.trials) * len(settings_of(args, run.images.dataset, network))
        planned = needs_of(run, trials_of_network)
        announce(run, network, planned, needs, None if args.verify else asked)
    written = [run_network(args, run, plan) for plan in plans]
    if is_leader() and not args.verify:
        for path in written:
            if args.what == "results":
                results = read_results(path)
                with foreign_explained(path):
                    print(f"\n{summary(results, title_of(results))}")
        print(f"\n{where_to_look(run.output, written)}")
    return 0


def samples(args: argparse.Namespace, run: Run) -> list[Comparison]:
    """For --verify: some values of the first trial of each size that is computed in parts."""
    compared = []
    for network in chosen_networks(args):
        for n, count in zip(args.data_sizes, args.trials, strict=True):
            classes = tuple(args.classes or selections[network.name])
            trial = Trial(network, classes, n, 0)
            if count and args.sizes_given and is_partial(trial):
                images = trial_images(run, trial)
                files = trial_files(run, trial)
                both = np.concatenate([images.train, images.test])
                for name in ("kernel_entries", "kernel_test"):
                    compared.append(compare_sample(files, both, name))
    return compared


def constants() -> options.Constants:
    """The constants above that flags override, or that are checked as flags are."""
    return options.Constants(
        seed=seed,
        test_size=test_size,
        data_sizes=data_sizes,
        trials=trials,
        trials_without_accelerator=trials_without_accelerator,
        seconds_without_accelerator=seconds_without_accelerator,
        selections=selections,
        sizes_to_verify=sizes_to_verify,
        depth_factor=depth_factor,
        convolutional_depth=convolutional_depth,
        sweep_factors=sweep_factors,
        sweep_depths=sweep_depths,
        k_thresh_margin=k_thresh_margin,
        reference_size=reference_size,
        percentile=percentile,
        diagonal_boost=diagonal_boost,
        sparsity_patterns=sparsity_patterns,
        original_patterns=original_patterns,
        many_patterns_limit=many_patterns_limit,
        pattern_draws=pattern_draws,
        dense_limit=dense_limit,
        whole_kernel_limit=whole_kernel_limit,
        test_size_above_limit=test_size_above_limit,
        precision_above_limit=precision_above_limit,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status, 2 after one line about a bad input."""
    args = options.parse_arguments(argv, constants())
    run_all = functools.partial(experiment, args)
    to_do = run_all
    if args.verify:
        to_do = functools.partial(verify, run_all, functools.partial(samples, args))
    return options.launch(args, to_do, functools.partial(classes_in_use, args))


if __name__ == "__main__":
    streams.run_script(main)
