"""Kernel files that survive whatever ends a run.

An NTK matrix grows in `NAME.npy.partial`, mapped into memory, NaN where it is unfinished: what has been written there
survives the end of the process, kill -9 included. Complete and checked, it gets its final name. Behind the array stands
its label, a line of JSON that says what the matrix was computed from and, once it is finished, the SHA-256 sum of all
bytes before that sum (`tail -n 1 FILE`; np.load does not see it), so that the two can't part.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ntk import BadInput
from ntk.arguments import mirror
from ntk.convolutional import ConvolutionalPairs
from ntk.fully_connected import fully_connected_rows
from runtime.files import give_final_name, put_aside, write_durably, write_errors_explained
from runtime.processes import broadcast, evaluate_pairs, is_leader, orders, pairs_at_once, send_order
from runtime.trials import Label, TrialFiles

flush_seconds = 20  # from one flush of unfinished kernels to the disk to the next
ending = 67  # bytes of a label from its checksum on


# ----------------------------------------------------------------------------------------------------------------------
# One matrix, one file
# ----------------------------------------------------------------------------------------------------------------------


def label_line(label: Label) -> bytes:
    """The line behind the array, with room for the checksum, so that a full disk can't keep a matrix from its end."""
    return f"\n{json.dumps(label | {'sha256': 64 * '0'})}\n".encode()


def checksum(path: Path) -> bytes:
    """What a finished kernel file ends with: the SHA-256 sum of the bytes before it, and the end of the label."""
    return hashlib.sha256(np.memmap(path, np.uint8, mode="r")[:-ending].data).hexdigest().encode() + b'"}\n'


def read_label(path: Path) -> tuple[NDArray, Label]:
    """A kernel file's array, mapped into memory, and its label. Raises ValueError or OSError where it can't be read."""
    matrix = np.lib.format.open_memmap(path, mode="r")
    with path.open("rb") as file:
        file.seek(matrix.offset + matrix.nbytes)
        line = file.read()
    return matrix, json.loads(line) if line else {}


def is_intact(path: Path) -> bool:
    """Whether a file ends with the checksum of its bytes."""
    with path.open("rb") as file:
        file.seek(-ending, os.SEEK_END)
        return file.read() == checksum(path)


def why_unusable(path: Path, shape: tuple[int, ...], label: Label, finished: bool) -> str | None:
    """What is wrong with a kernel file, or None if it holds a float64 matrix of that shape and label."""
    try:
        matrix, found = read_label(path)
    except Exception as error:  # a damaged file can raise anything
        return f"can't be read ({error})"
    other = [f"{key} {found.get(key)}, not {value}" for key, value in label.items() if found.get(key) != value]
    if not found:
        return "does not say what it was computed from"
    if other:
        return f"was computed from other settings ({', '.join(other)})"
    if matrix.shape != shape or matrix.dtype != np.float64:
        return f"holds {matrix.dtype} {matrix.shape}, not float64 {shape}"
    if "sha256" not in found:
        return "has no checksum"
    if finished and not is_intact(path):
        return "is damaged (its SHA-256 sum is another one)"
    if finished and not np.isfinite(matrix).all():
        return "holds NaN or infinite values"
    return None


def open_matrix(path: Path, shape: tuple[int, ...], label: Label) -> np.memmap:
    """The finished matrix of that shape and label at `path`, or the unfinished one that will get this name.

    Returns a float64 memory map, writeable where it is unfinished, which may be new; `finish_matrix` takes it back.
    A file of another label, or a damaged one, is put aside.
    """
    partial = path.with_name(path.name + ".partial")
    modes: tuple[tuple[Path, Literal["r", "r+"]], ...] = ((path, "r"), (partial, "r+"))
    for known, mode in modes:
        if known.exists():
            reason = why_unusable(known, shape, label, finished=mode == "r")
            if reason is None:
                return np.lib.format.open_memmap(known, mode=mode)
            put_aside(known, reason)

    def write(file: Any) -> None:  # NaN written, not only the size set: a full disk is noticed here and not later
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
        for _ in range(shape[0]):
            file.write(np.full(shape[1:], np.nan).data)
        file.write(label_line(label))

    write_durably(partial, write)
    return np.lib.format.open_memmap(partial, mode="r+")


def finish_matrix(path: Path, matrix: np.memmap) -> NDArray[np.float64]:
    """The completed matrix of `open_matrix` as an array; its file gets its checksum and its final name, `path`.

    Raises BadInput for NaN, infinite values, and a kernel_train that is not symmetric.
    """
    finished = np.array(matrix)
    if matrix.flags.writeable:
        partial = Path(str(matrix.filename))
        if not np.isfinite(finished).all():
            remedy = "the engine gave NaN or infinite values; use another --engine or --precision"
            raise BadInput("output", path, remedy)
        if path.stem.endswith("kernel_train") and not np.array_equal(finished, finished.T):
            raise BadInput("output", partial, "the matrix is not symmetric; delete the file and run it again")
        matrix.flush()
        del matrix  # Windows renames no file that is mapped
        with write_errors_explained(path), partial.open("r+b") as file:
            file.seek(-ending, os.SEEK_END)
            file.write(checksum(partial))
        give_final_name(partial, path)
    return finished


# ----------------------------------------------------------------------------------------------------------------------
# The two matrices of a trial
# ----------------------------------------------------------------------------------------------------------------------


def shapes_and_labels(files: TrialFiles) -> dict[str, tuple[tuple[int, int], Label]]:
    """What a trial's two matrices are."""
    n, x, label = files.trial.size, files.run.test_size, files.label()
    return {"kernel_train": ((n, n), label), "kernel_test": ((x, n), label | {"test_size": x})}


def kernel_pair(
    files: TrialFiles, train: NDArray, test: NDArray | None, progress: Callable[[int], object] = lambda pairs: None
) -> dict[str, NDArray[np.float64]]:
    """A trial's NTK matrices, read or computed: {"kernel_train": [n, n], "kernel_test": [x, n]}.

    files: where they are and what decides them. train, test: images [n, d] or [n, h, w, 1]; without test images
    kernel_train alone. progress: called with the number of pairs of images that have become known.
    """
    described = shapes_and_labels(files)
    if test is None:
        del described["kernel_test"]
    matrices = {name: open_matrix(files.path(name), *each) for name, each in described.items()}
    fill_matrices(matrices, files.label(), train, test, files.run.engine, progress)
    return {name: finish_matrix(files.path(name), matrices.pop(name)) for name in described}


def fill_matrices(
    matrices: dict[str, np.memmap], label: Label, train: NDArray, test: NDArray | None, engine: str,
    progress: Callable[[int], object],
) -> None:  # fmt: skip
    """Compute what is NaN in a trial's matrices, in place, with the other processes of the run."""
    pending = {}
    for name, matrix in matrices.items():
        todo = unfinished_entries(label["network"], name, matrix) if matrix.flags.writeable else np.empty((1, 0), int)
        if todo.size:
            pending[name] = todo
        else:
            progress(len(matrix) * (len(matrix) + 1) // 2 if name == "kernel_train" else matrix.size)
    # An order to the other processes even for nothing: who waits for one gives up after half an hour.
    send_order({"label": label, "pending": {name: todo.shape for name, todo in pending.items()}})
    for todo in pending.values():
        broadcast(todo)
    flushed = time.monotonic()
    for name, rows, columns, entries in computed_blocks(label, train, test, engine, pending):
        matrices[name][rows, columns] = entries
        progress(entries.size)
        if time.monotonic() > flushed + flush_seconds:
            for growing in pending:
                matrices[growing].flush()
            flushed = time.monotonic()
    if matrices["kernel_train"].flags.writeable:
        mirror(matrices["kernel_train"])


def unfinished_entries(network: str, name: str, matrix: NDArray) -> NDArray[np.int64]:
    """The NaN rows [1, m] (fully connected) or cells [2, m] of a matrix; half of kernel_train will do."""
    rows = [row[: i + 1] if name == "kernel_train" else row for i, row in enumerate(matrix)]
    if network == "fully-connected":
        return np.flatnonzero([np.isnan(row).any() for row in rows])[None]
    columns = [np.flatnonzero(np.isnan(row)) for row in rows]
    return np.stack([np.repeat(np.arange(len(rows)), [len(c) for c in columns]), np.concatenate(columns)])


def computed_blocks(
    label: Label, train: NDArray, test: NDArray | None, engine: str, pending: Mapping[str, NDArray[np.int64]]
) -> Iterator[tuple[str, Any, Any, NDArray[np.float64]]]:
    """Yield (name, rows, columns, entries), block by block, of what `unfinished_entries` listed.

    All processes of a run go through this together, each doing its share.
    """
    if label["network"] == "fully-connected":
        if engine != "jax" and not is_leader():
            return  # process 0 does alone what takes seconds
        for name, (rows,) in pending.items():
            x1, x2 = (train, None) if test is None or name == "kernel_train" else (test, train)
            for block, entries in fully_connected_rows(x1, x2, depth=label["depth"], engine=engine, rows=rows):
                yield name, block, slice(entries.shape[1]), entries
    elif pending:
        images = train if test is None else np.concatenate([train, test])
        pairs = ConvolutionalPairs(images, depth=label["depth"], engine=engine, precision=label["precision"])
        # One list of pairs serves both matrices. In each pair a training image comes first.
        asked = [[j, i + len(train) * (name == "kernel_test")] for name, (i, j) in pending.items()]
        first, second = np.concatenate(asked, axis=1)
        at_once = pairs_at_once(pairs)
        for start in range(0, len(first), at_once):
            entries = evaluate_pairs(pairs, first[start : start + at_once], second[start : start + at_once])
            begin = -start  # of each matrix, relative to this block
            for name, cells in pending.items():
                inside = slice(max(begin, 0), max(begin + cells.shape[1], 0))
                if entries[inside].size:
                    yield name, *cells[:, max(-begin, 0) :][:, : entries[inside].size], entries[inside]
                begin += cells.shape[1]


def follow(images_of: Callable[[Label], tuple[NDArray, NDArray | None]], engine: str) -> None:
    """What processes other than 0 do: their share of all kernels that process 0 computes, until the run is over.

    images_of: a label's training and test images.
    """
    for order in orders():
        pending = {name: broadcast(np.zeros(shape, dtype=int)) for name, shape in order["pending"].items()}
        train, test = images_of(order["label"])
        for _ in computed_blocks(order["label"], train, test, engine, pending):
            pass


def count_missing(path: Path, shape: tuple[int, ...], label: Label) -> int:
    """Pairs of images that a matrix of this label still lacks. Its label is read and its checksum not computed."""
    if why_unusable(path, shape, label, finished=False) is None:
        return 0
    rows, columns = shape
    half = path.stem.endswith("kernel_train")
    entries = rows * (rows + 1) // 2 if half else rows * columns
    partial = path.with_name(path.name + ".partial")
    if why_unusable(partial, shape, label, finished=False):
        return entries
    matrix = np.load(partial, mmap_mode="r", allow_pickle=False)
    return sum(int(np.isnan(row[: i + 1] if half else row).sum()) for i, row in enumerate(matrix))


def known_before(files: TrialFiles) -> dict[Path, tuple[tuple[int, int], Label]]:
    """Path, shape and label of a trial's matrices, as far as they are known before its images are.

    The fully-connected network's depth is not: it follows from the images.
    """
    unknown = {"depth"} if files.trial.network == "fully-connected" else set()
    described = shapes_and_labels(files).items()
    return {
        files.path(name): (shape, {key: value for key, value in label.items() if key not in unknown})
        for name, (shape, label) in described
    }


def missing_pairs(files: TrialFiles) -> int:
    """Pairs of images whose kernel a trial needs and its files lack."""
    return sum(count_missing(path, *each) for path, each in known_before(files).items())


def foreign_files(files: TrialFiles) -> list[str]:
    """Why those of a trial's finished matrices that are there will be put aside. Their checksums are not computed."""
    there = {path: each for path, each in known_before(files).items() if path.exists()}
    reasons = (why_unusable(path, *each, finished=False) for path, each in there.items())
    return [reason for reason in reasons if reason]


def read_kernel(path: Path) -> tuple[NDArray[np.float64], Label]:
    """A finished kernel and its label, from the file alone. Raises BadInput where it can't be trusted."""
    try:
        _, label = read_label(path)
        shape = (label["test_size"] if "test_size" in label else label["size"], label["size"])
    except Exception as error:  # a damaged file can raise anything
        raise BadInput("output", path, f"can't be read ({error}); delete it and run training.py again") from error
    reason = why_unusable(path, shape, {}, finished=True)
    if reason:
        raise BadInput("output", path, f"{reason}; delete it and run training.py again")
    return np.load(path, allow_pickle=False), label


def read_kernel_pair(folder: Path, prefix: str, size: int, number: int, seed: int) -> tuple[dict[str, Any], Label]:
    """A trial's finished matrices and labels by file name, from the files alone, and what they were computed from."""
    stem = f"{prefix}_seed{seed}_data{size}_trial{number}"
    train, label = read_kernel(folder / f"{stem}_kernel_train.npy")
    test, _ = read_kernel(folder / f"{stem}_kernel_test.npy")
    labels = {name: np.repeat([1, -1], len(k) // 2) for name, k in (("train_label", train), ("test_label", test))}
    return {"kernel_train": train, "kernel_test": test} | labels, label


def finished_trials(folder: Path, prefix: str, seed: int) -> dict[int, list[int]]:
    """The trials whose two kernels are finished, at the plan's depth: their numbers by size."""
    found: dict[int, list[int]] = {}
    for path in sorted(folder.glob(f"{prefix}_seed{seed}_data*_kernel_test.npy")):
        match = re.fullmatch(rf"{re.escape(prefix)}_seed{seed}_data(\d+)_trial(\d+)_kernel_test.npy", path.name)
        if match and path.with_name(path.name.replace("kernel_test", "kernel_train")).exists():
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return {size: sorted(found[size]) for size in sorted(found)}
