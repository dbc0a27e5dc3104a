"""A trial's kernels: read where they are on the disk, else computed by all processes, and kept.

Every process calls the same functions with the same arguments. Process 0 alone reads and writes,
and sends the others what is already there.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntk.arguments import mirror
from ntk.convolutional import ConvolutionalPairs
from ntk.fully_connected import fully_connected_ntk
from runtime.checkpoints import (
    ENTRY,
    Array,
    Journal,
    count_missing,
    stored_kernel,
    symmetric,
    why_unusable,
    write_kernel,
)
from runtime.files import put_aside
from runtime.linear_algebra import Matrix
from runtime.processes import evaluate_pairs, is_leader, pairs_at_once, share
from runtime.trials import Label, TrialFiles

# Called with the number of pairs of images that have become known.
Progress = Callable[
    [int], object
]


@dataclass(frozen=True)
class Need:
    """Which part of a trial's kernels is needed.

    test: whether kernel_test is. entries: None where all of kernel_train is needed; else gives rows
    and columns, [m] each, of the entries that are, ordered, row >= column. expected: about how many
    those are; patterns: of how many patterns of each convention they are the entries.
    """

    test: bool = True
    entries: Callable[[], tuple[NDArray[np.intp], NDArray[np.intp]]] | None = None
    expected: int = 0
    patterns: dict[str, int] | None = None


@dataclass(frozen=True)
class KernelFile:
    """One kernel file of a trial.

    shape: None where it is not known yet; pairs: of images that it takes.
    """

    name: str
    label: Label
    shape: tuple[int, ...] | None
    pairs: int


def kernel_files(files: TrialFiles, need: Need) -> list[KernelFile]:
    """The files that a trial's kernels are kept in."""
    n, x, label = files.trial.size, files.run.test_size, files.label()
    if need.entries:
        entries_label = label | {"entries": need.patterns}
        described = [KernelFile("kernel_entries", entries_label, None, need.expected)]
    else:
        described = [KernelFile("kernel_train", label, (n, n), n * (n + 1) // 2)]
    if need.test:
        described.append(KernelFile("kernel_test", label | {"test_size": x}, (x, n), x * n))
    return described


def trial_pairs(files: TrialFiles, need: Need) -> int:
    """Pairs of images whose kernel a trial needs, images with themselves included."""
    return sum(described.pairs for described in kernel_files(files, need))


def missing_pairs(files: TrialFiles, need: Need) -> int:
    """Pairs of images whose kernel a trial needs and its files lack."""
    total = 0
    for described in kernel_files(files, need):
        label = known_before(files, described.label)
        total += count_missing(files.path(described.name), label, described.pairs)
    return total


def foreign_files(files: TrialFiles, need: Need) -> list[str]:
    """Why finished kernels that are there will be put aside. Their checksums are not computed."""
    reasons = []
    for described in kernel_files(files, need):
        path = files.path(described.name)
        if os.path.lexists(path):
            label = known_before(files, described.label)
            reason = why_unusable(path, label, described.shape)
            reasons += [reason] if reason else []
    return reasons


def known_before(files: TrialFiles, label: Label) -> Label:
    """The part of a label that is known before the images are.

    Where kernels take seconds, the depth is not.
    """
    if not files.trial.network.in_seconds:
        return label
    return {key: value for key, value in label.items() if key != "depth"}


# --------------------------------------------------------------------------------------------------
# The fully-connected network: whole matrices, in seconds
# --------------------------------------------------------------------------------------------------


def whole_kernels(
    files: TrialFiles, train: Array, test: Array, need: Need, progress: Progress
) -> dict[str, Matrix]:
    """{"kernel_train": [n, n], "kernel_test": [x, n]} of flat images."""
    kernels: dict[str, Matrix] = {}
    for described in kernel_files(files, need):
        path = files.path(described.name)
        stored = share(functools.partial(stored_kernel, path, described.label, described.shape))
        if stored is None:
            first, second = (train, None) if described.name == "kernel_train" else (test, train)
            stored = fully_connected_ntk(first, second, depth=files.depth, engine=files.run.engine)
            if is_leader():
                write_kernel(path, stored, described.label)
        progress(described.pairs)
        kernels[described.name] = stored
    return kernels


# --------------------------------------------------------------------------------------------------
# The convolutional network: pair by pair of images, in minutes or hours
# --------------------------------------------------------------------------------------------------


class SharedPairs:
    """The convolutional NTK of pairs of some images, shared out to all processes.

    Nothing is computed before the first pair is asked for.
    """

    def __init__(self, images: NDArray, files: TrialFiles) -> None:
        """Take images [m, h, w, 1]; depth, engine and precision are the trial's."""
        self.images, self.files = images, files

    @functools.cached_property
    def pairs(self) -> ConvolutionalPairs:
        """What evaluates this process's share."""
        run, trial = self.files.run, self.files.trial
        precision = run.precision_of(trial.network)
        return ConvolutionalPairs(
            self.images, depth=self.files.depth, engine=run.engine, precision=precision
        )

    @functools.cached_property
    def portion(self) -> int:
        """Pairs that keep all processes busy once."""
        return pairs_at_once(self.pairs)

    def __call__(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> Array:
        """The NTK [m] of the pairs of images i [m] and j [m]."""
        return evaluate_pairs(self.pairs, i, j)


def kernels_by_pairs(
    files: TrialFiles, train: Array, test: Array, need: Need, progress: Progress
) -> dict[str, Matrix]:
    """{"kernel_train": [n, n], "kernel_test": [x, n]} of images [n, h, w, 1].

    The first is sparse where only some of its entries are needed.
    """
    n, x = len(train), len(test)
    images = np.concatenate([train, test]) if need.test else train
    evaluate = SharedPairs(images, files)
    kernels: dict[str, Matrix] = {}
    for described in kernel_files(files, need):
        if described.name == "kernel_test":
            rows, columns = np.indices((x, n)).reshape(2, -1)
            values = kernel_values(files, described, rows + n, columns, evaluate, progress)
            kernels["kernel_test"] = values.reshape(x, n)
        elif need.entries:
            rows, columns = need.entries()
            values = kernel_values(files, described, rows, columns, evaluate, progress)
            kernels["kernel_train"] = symmetric(n, rows, columns, values)
        else:
            rows, columns = np.tril_indices(n)
            values = kernel_values(files, described, rows, columns, evaluate, progress)
            kernels["kernel_train"] = full_matrix(n, rows, columns, values)
    return kernels


def kernel_values(
    files: TrialFiles,
    described: KernelFile,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    evaluate: SharedPairs,
    progress: Progress,
) -> Array:
    """The values [m] of a kernel file, read or else computed and kept.

    rows and columns [m]: the images of each.
    """
    path = files.path(described.name)

    def stored() -> Array | None:
        kernel = stored_kernel(path, described.label, described.shape)
        if kernel is None:
            return None
        if kernel.dtype != ENTRY:
            return kernel.ravel() if described.name == "kernel_test" else kernel[rows, columns]
        if np.array_equal(kernel["row"], rows) and np.array_equal(kernel["column"], columns):
            return kernel["value"]
        put_aside(path, "holds other entries than those of this trial's patterns")
        return None

    values = share(stored)
    if values is not None:
        progress(len(values))
        return values
    journal = Journal(path, described.label, len(rows))
    values = share(journal.open)
    progress(int(np.count_nonzero(~np.isnan(values))))
    missing = np.flatnonzero(np.isnan(values))
    portion = evaluate.portion if missing.size else 1
    for start in range(0, missing.size, portion):
        positions = missing[start : start + portion]
        # In each pair a training image, the column's, comes first.
        values[positions] = evaluate(columns[positions], rows[positions])
        if is_leader():
            journal.append(positions, values[positions])
        progress(len(positions))
    if is_leader():
        write_kernel(path, as_stored(described, rows, columns, values), described.label)
        journal.remove()
    return values


def as_stored(described: KernelFile, rows: NDArray, columns: NDArray, values: Array) -> NDArray:
    """The array of a kernel file: whole matrices as such, some entries with their places."""
    if described.name == "kernel_train":
        return full_matrix(described.shape[0], rows, columns, values)  # type: ignore[index]
    if described.name == "kernel_test":
        return values.reshape(described.shape)  # type: ignore[arg-type]
    entries = np.empty(len(rows), ENTRY)
    entries["row"], entries["column"], entries["value"] = rows, columns, values
    return entries


def full_matrix(n: int, rows: NDArray, columns: NDArray, values: Array) -> Array:
    """The symmetric matrix [n, n] of the entries of its lower half."""
    matrix = np.empty((n, n))
    matrix[rows, columns] = values
    return mirror(matrix)
