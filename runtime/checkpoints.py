"""Kernel files that survive whatever ends a run.

A finished kernel is a .npy file under its final name. Behind the array stands its label, a line of
JSON that says what the kernel was computed from and the SHA-256 sum of all bytes before that sum
(`tail -n 1 FILE`; np.load does not see it), so that the two can't part. Every reader compares the
label with the file's name and with the file's partner.

What is computed of an unfinished kernel stands in a journal, `NAME.npy.partial`: blocks of values,
each with a checksum of its own, appended as they are computed. So what has been written survives
the end of the process, kill -9 included, and a block that was cut off or damaged is computed again.
"""

import hashlib
import io
import json
import os
import re
import struct
import time
import zlib
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from ntk import BadInput
from runtime.datasets import find_dataset
from runtime.files import (
    in_words,
    open_array,
    open_regular,
    output_files,
    partial_path,
    put_aside,
    read_small,
    save,
    write_durably,
    write_errors_explained,
)
from runtime.trials import Label

Array = NDArray[np.float64]

flush_seconds = 20  # from one flush of a journal to the disk to the next
checksum_ending = 67  # bytes of a label from its checksum on
# Of a kernel of which only some are known.
ENTRY = np.dtype(
    [("row", "<i4"), ("column", "<i4"), ("value", "<f8")]
)
block_head = struct.Struct("<qI")  # of a journal: number of values, and a checksum of the block
remedy = "delete it and run training.py again"


# --------------------------------------------------------------------------------------------------
# Finished kernels
# --------------------------------------------------------------------------------------------------


def write_kernel(path: Path, array: NDArray, label: Label) -> None:
    """Write an array and its label, whole or not at all.

    Raises BadInput for NaN and infinite values.
    """
    values = array["value"] if array.dtype.names else array
    if not np.isfinite(values).all():
        advice = "the engine gave NaN or infinite values; use another --engine or --precision"
        raise BadInput("output", path, advice)

    def write(file: IO[bytes]) -> None:
        content = io.BytesIO()
        np.lib.format.write_array(content, np.ascontiguousarray(array), version=(1, 0))
        line = f"\n{json.dumps(label | {'sha256': 64 * '0'})}\n".encode()
        content.write(line[:-checksum_ending])
        digest = hashlib.sha256(content.getbuffer()).hexdigest()
        file.write(content.getbuffer())
        file.write(f'{digest}"}}\n'.encode())

    save(path, write)


def read_stored(path: Path) -> tuple[NDArray, Label, bool]:
    """A kernel file's array and label, and whether it ends with the checksum of its bytes.

    Raises OSError for what is no regular file, and ValueError where it can't be read.
    """
    with open_array(path) as stored:
        label = parse_label(stored.tail)
        is_intact = stored.tail.endswith(f'{stored.checksum(checksum_ending)}"}}\n'.encode())
        return np.array(stored.array), label, is_intact


def read_label(path: Path) -> tuple[np.dtype, tuple[int, ...], Label]:
    """A kernel file's type, shape and label, without its values. Raises as `read_stored` does."""
    with open_array(path) as stored:
        return stored.array.dtype, stored.array.shape, parse_label(stored.tail)


def parse_label(tail: bytes) -> Label:
    """The label behind an array; {} where nothing is. Raises ValueError for what is no label."""
    label = json.loads(tail) if tail.strip() else {}
    if not isinstance(label, dict):
        raise ValueError("holds no label behind its array")
    return label


def why_unusable(path: Path, label: Label, shape: tuple[int, ...] | None = None) -> str | None:
    """What the label of a kernel file speaks against, or None; its values are not looked at."""
    try:
        dtype, own_shape, own = read_label(path)
    except Exception as error:  # a damaged file can raise anything
        return f"can't be read ({in_words(error)})"
    return why_other(own, label, dtype, own_shape, shape)


def why_other(
    own: Label,
    expected: Label,
    dtype: np.dtype,
    shape: tuple[int, ...],
    wanted: tuple[int, ...] | None,
) -> str | None:
    """Why a file of this label, type and shape is not the expected one, or None."""
    if not own:
        return "does not say what it was computed from"
    other = differences(own, expected)
    if other:
        return f"was computed from other settings ({other})"
    if dtype not in (np.float64, ENTRY) or (wanted is not None and shape != wanted):
        return f"holds {dtype} {shape}, not float64 {wanted}"
    if "sha256" not in own:
        return "has no checksum"
    return None


def checked_kernel(
    path: Path, label: Label, shape: tuple[int, ...] | None = None
) -> tuple[NDArray, Label, str | None]:
    """A kernel file's array and label, and what is wrong with it, or None if it is whole."""
    try:
        array, own, is_intact = read_stored(path)
    except Exception as error:  # a damaged file can raise anything
        return np.empty(0), {}, f"can't be read ({in_words(error)})"
    reason = why_other(own, label, array.dtype, array.shape, shape)
    if reason is None and not is_intact:
        reason = "is damaged (its SHA-256 sum is another one)"
    values = array["value"] if array.dtype == ENTRY else array
    if reason is None and not np.isfinite(values).all():
        reason = "holds NaN or infinite values"
    return array, own, reason


def differences(own: Label, expected: Label) -> str:
    """In what a label differs from an expected one, in words; "" where it has all of it."""
    other = []
    for key, value in expected.items():
        if own.get(key) != value:
            other.append(f"{key} {own.get(key)}, not {value}")
    return ", ".join(other)


def stored_kernel(path: Path, label: Label, shape: tuple[int, ...] | None) -> NDArray | None:
    """The finished kernel of this label and shape, or None; what can't be used is put aside."""
    if not os.path.lexists(path):
        return None
    array, _, reason = checked_kernel(path, label, shape)
    if reason:
        put_aside(path, reason)
        return None
    return array


# --------------------------------------------------------------------------------------------------
# Reading without a run: what the files' names and labels say of each other
# --------------------------------------------------------------------------------------------------

common_keys = ("dataset", "dataset_sha256", "digits", "network", "formulas")  # of a folder's labels
file_name = re.compile(
    r"(?P<prefix>.+)_seed(?P<seed>\d+)_data(?P<size>\d+)_trial(?P<trial>\d+)(?:_depth[\d.e+-]+)?"
    r"_(?P<name>kernel_train|kernel_test|kernel_entries)\.npy"
)


def read_kernel(path: Path) -> tuple[NDArray, Label]:
    """A finished kernel and its label, from the file alone: float64 [rows, n], or `ENTRY` [m].

    Raises BadInput where it is damaged, or where its label is not that of a file of this name.
    """
    array, label, reason = checked_kernel(path, {})
    reason = reason or why_misnamed(path, label) or why_misshapen(path, label, array)
    if reason:
        raise BadInput("output", path, f"{reason}; {remedy}")
    return array, label


def why_misnamed(path: Path, label: Label) -> str | None:
    """What a kernel's label says against the name of its file, or None."""
    match = file_name.fullmatch(path.name)
    if match is None:
        return "is not named like a kernel that training.py wrote"
    expected: Label = {}
    for key in ("size", "trial", "seed"):
        expected[key] = int(match[key])
    other = differences(label, expected)
    if other:
        return f"was computed from other settings ({other})"
    if not fits_prefix(label, match["prefix"]):
        images = f"classes {label.get('digits')} of {label.get('dataset')}"
        return f"holds a kernel of {label.get('network')}, {images}, not what its name says"
    return None


def why_misshapen(path: Path, label: Label, array: NDArray) -> str | None:
    """What a kernel's label says against its shape, or its places against each other, or None."""
    n, shape = label["size"], array.shape
    if path.name.endswith("_kernel_entries.npy"):
        places = [array["row"], array["column"]] if array.dtype == ENTRY and array.ndim == 1 else []
        inside = [np.all((place >= 0) & (place < n)) for place in places]
        return None if inside and all(inside) else f"holds no entries of a matrix of {n} rows"
    rows = n if path.name.endswith("_kernel_train.npy") else label.get("test_size")
    if array.dtype == ENTRY or shape != (rows, n):
        return f"holds {shape}, not {(rows, n)} as its label says"
    return None


def fits_prefix(label: Label, prefix: str) -> bool:
    """Whether a file's prefix, such as digits-convolutional-3v5, fits its label.

    The paper's classes have no ending.
    """
    try:
        first, second = label["digits"]
        network = prefix.removesuffix(f"-{first}v{second}")
        if network == prefix and re.search(r"-\d+v\d+$", prefix):
            return False
        return network == find_dataset(label["dataset"]).prefix + label["network"]
    except (KeyError, TypeError, ValueError, AttributeError):  # a label that lacks something
        return False


def read_kernel_pair(
    folder: Path, prefix: str, size: int, number: int, seed: int
) -> tuple[Any, Array, Label]:
    """A trial's finished kernels of training and test images, from their files, and their label.

    The first is dense [n, n], or sparse [n, n] where only some of its entries were computed. Raises
    BadInput where a file is missing or damaged, or where the two do not belong together.
    """
    stem = f"{prefix}_seed{seed}_data{size}_trial{number}"
    train_path = folder / f"{stem}_kernel_train.npy"
    if not train_path.exists() and (folder / f"{stem}_kernel_entries.npy").exists():
        train_path = folder / f"{stem}_kernel_entries.npy"
    train, label = read_kernel(train_path)
    test, test_label = read_kernel(folder / f"{stem}_kernel_test.npy")
    own = {"sha256", "test_size", "entries"}
    common = {key: value for key, value in label.items() if key not in own}
    other = differences(test_label, common)
    if other:
        what = f"is not {train_path.name}'s: {other}"
        raise BadInput("output", folder / f"{stem}_kernel_test.npy", f"{what}; {remedy}")
    if train.dtype == ENTRY:
        train = symmetric(size, train["row"], train["column"], train["value"])
    return train, test, common


def read_reference(folder: Path, prefix: str, size: int, seed: int, label: Label) -> Array:
    """kernel_train [size, size] of the first trial of that size, which decides thresholds.

    label: of the trial whose thresholds they are. Raises BadInput where the reference is missing,
    damaged or of other images.
    """
    path = folder / f"{prefix}_seed{seed}_data{size}_trial0_kernel_train.npy"
    kernel, own = read_kernel(path)
    other = differences(own, {key: label.get(key) for key in (*common_keys, "depth")})
    if other:
        what = f"is of another kind than n = {label['size']}: {other}"
        raise BadInput("output", path, f"{what}; {remedy}")
    return kernel


def symmetric(n: int, rows: NDArray, columns: NDArray, values: Array) -> scipy.sparse.csr_array:
    """The sparse matrix [n, n] of the entries [m] of its lower half that are known."""
    below = rows > columns
    i = np.concatenate([rows, columns[below]])
    j = np.concatenate([columns, rows[below]])
    matrix = scipy.sparse.csr_array((np.concatenate([values, values[below]]), (i, j)), shape=(n, n))
    matrix.sort_indices()
    return matrix


def finished_trials(folder: Path, prefix: str, seed: int) -> dict[int, list[int]]:
    """The trials whose kernels are finished, at the plan's depth: their numbers by size.

    Raises BadInput where their labels say that they are of different images, classes or formulas,
    or not what their files are called.
    """
    trials: dict[int, list[int]] = {}
    common: Label = {}
    pattern = re.compile(rf"{re.escape(prefix)}_seed{seed}_data(\d+)_trial(\d+)_kernel_test\.npy")
    for path in output_files(folder, "*_kernel_test.npy"):
        match = pattern.fullmatch(path.name)
        partners = partners_of(path)
        if not match or not partners:
            continue
        for file in (path, *partners):
            label = label_of(file)
            other = differences(label, common)
            if other:
                what = f"is of another kind than other trials there: {other}"
                raise BadInput("output", file, f"{what}; keep one kind there")
            common = {key: label.get(key) for key in common_keys}
        trials.setdefault(int(match[1]), []).append(int(match[2]))
    return {size: sorted(trials[size]) for size in sorted(trials)}


def partners_of(path: Path) -> list[Path]:
    """The files beside a kernel_test that hold its trial's kernel_train, whole or some entries."""
    partners = []
    for name in ("kernel_train", "kernel_entries"):
        partner = path.with_name(path.name.replace("kernel_test", name))
        if os.path.lexists(partner):
            partners.append(partner)
    return partners


def label_of(path: Path) -> Label:
    """A kernel file's label. Raises BadInput where it can't be read or contradicts the name."""
    try:
        label = read_label(path)[2]
    except Exception as error:  # a damaged file can raise anything
        raise BadInput("output", path, f"can't be read ({in_words(error)}); {remedy}") from error
    reason = why_misnamed(path, label)
    if reason:
        raise BadInput("output", path, f"{reason}; {remedy}")
    return label


# --------------------------------------------------------------------------------------------------
# Unfinished kernels
# --------------------------------------------------------------------------------------------------


class Journal:
    """The values that are known of an unfinished kernel, in `NAME.npy.partial`.

    A line of JSON, the label; then blocks: the number of values, a checksum, their positions, and
    the values. label: decides the values; count: how many there are in all.
    """

    def __init__(self, path: Path, label: Label, count: int) -> None:
        self.path = partial_path(path)
        self.head = json.dumps(label | {"values": count}).encode() + b"\n"
        self.values = np.full(count, np.nan)
        self.flushed = time.monotonic()

    def open(self) -> Array:
        """The values [count] that are known, NaN elsewhere.

        Opens the file, which may be new, for `append`.
        """
        end = 0
        if os.path.lexists(self.path):
            try:
                content = read_small(self.path, self.largest())
                if content.startswith(self.head):
                    end = self.read_blocks(memoryview(content))
                    reason = None
                else:
                    reason = "was computed from other settings, or is damaged"
            except OSError as error:
                reason = f"can't be read ({in_words(error)})"
            if reason:
                put_aside(self.path, reason)
        with write_errors_explained(self.path):
            if not end:
                write_durably(self.path, lambda file: file.write(self.head))
            self.file = open_regular(self.path, "r+b")
            self.file.truncate(end or len(self.head))
            self.file.seek(0, os.SEEK_END)
        return self.values

    def largest(self) -> int:
        """Bytes that the file has at most: every value in a block of its own, and some again."""
        return len(self.head) + 2 * len(self.values) * (16 + block_head.size) + 2**16

    def read_blocks(self, content: memoryview) -> int:
        """Read the values of all whole blocks; returns where the last one ends.

        A damaged block is passed over.
        """
        count, end = len(self.values), len(self.head)
        stop = end
        while stop + block_head.size <= len(content):
            size, expected = block_head.unpack_from(content, stop)
            start = stop + block_head.size
            stop = start + 16 * size
            if not 0 < size <= count or stop > len(content):
                break
            positions = np.frombuffer(content[start : start + 8 * size], "<i8")
            inside = positions.min() >= 0 and positions.max() < count
            if inside and zlib.crc32(content[start:stop]) == expected:
                self.values[positions] = np.frombuffer(content[start + 8 * size : stop], "<f8")
                end = stop
        self.values[np.isinf(self.values)] = np.nan  # another engine may know better
        return end

    def append(self, positions: NDArray[np.intp], values: Array) -> None:
        """Keep values at these positions.

        The system has them at once, and the disk within `flush_seconds`.
        """
        self.values[positions] = values
        block = positions.astype("<i8").tobytes() + values.astype("<f8").tobytes()
        with write_errors_explained(self.path):
            self.file.write(block_head.pack(len(positions), zlib.crc32(block)) + block)
            self.file.flush()
            if time.monotonic() > self.flushed + flush_seconds:
                os.fsync(self.file.fileno())
                self.flushed = time.monotonic()

    def close(self) -> None:
        """Close the file; it stays."""
        self.file.close()

    def remove(self) -> None:
        """Close and delete the file, whose values stand under their final name."""
        self.close()
        self.path.unlink(missing_ok=True)


def count_missing(path: Path, label: Label, count: int) -> int:
    """How many of a kernel's `count` values its files lack, by their labels; no sum is computed."""
    if os.path.lexists(path) and why_unusable(path, label) is None:
        return 0
    try:
        with open_regular(partial_path(path)) as file:
            other = differences(json.loads(file.readline(2**16)), label)
            known = 0 if other else count_values(file, count)
    except (OSError, ValueError, AttributeError):  # a damaged label can be anything
        return count
    return max(count - known, 0)


def count_values(file: BinaryIO, largest: int) -> int:
    """How many values the blocks of a journal hold from here on; largest: that one block can."""
    size = os.fstat(file.fileno()).st_size
    known = 0
    while True:
        head = file.read(block_head.size)
        values = block_head.unpack(head)[0] if len(head) == block_head.size else 0
        end = file.tell() + 16 * values
        if not 0 < values <= largest or end > size:
            return known
        known += values
        file.seek(end)
