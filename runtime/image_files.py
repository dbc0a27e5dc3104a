"""Files of images, IDX and npz, read without trust: each may be missing, damaged or another one.

What is wrong with a file is said in words that follow its name. Only regular files are opened, and
sizes are checked before anything is unpacked.
"""

import gzip
import hashlib
import io
import math
import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

GZIP = b"\x1f\x8b"  # how a gzip file begins
LARGEST_IDX = 16 + 60_000 * 28 * 28  # bytes: MNIST's training images, unpacked
LARGEST_PACKED = LARGEST_IDX + 2**20  # a gzip file can be a little larger than what it holds

NPZ_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
NPZ_IGNORED = ("val_images", "val_labels")  # MedMNIST's files hold these too
LARGEST_NPZ = 4 * 10**9  # bytes: of the file, and of its arrays together
LARGEST_LABEL = 999
LARGEST_PIXEL = 1e100  # the square of one, summed over many images, must not overflow

FOREIGN = {  # what is often found in a file's place, by its first bytes
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; run git lfs pull",
    b"<": "is a web page, not the file; download it again",
    b"\x93NUMPY": "is a single NumPy array; see --help for what is read",
}


class UnusableFile(Exception):
    """What is wrong with a file, and the remedy; the file's name comes before it."""


@dataclass(frozen=True)
class Split:
    """The training or the test images: uint8 or float64 [m, h, w, 1], and their labels [m]."""

    image: NDArray = field(repr=False)
    label: NDArray[np.int64] = field(repr=False)


def printable(text: str) -> str:
    """The text on one line: ? for line ends, control characters and letters that can't be shown."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def open_regular(path: Path, limit: int) -> io.BufferedReader:
    """Open a file of at most `limit` bytes.

    Raises UnusableFile for larger ones and for what is not a file: to open a pipe would wait.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UnusableFile("is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise UnusableFile("is a pipe or a device, not a file")
        if status.st_size == 0:  # also the system's own files, some of which never end
            raise UnusableFile("is empty; download it again")
        if status.st_size > limit:
            raise UnusableFile(f"is too large ({status.st_size} bytes, at most {limit} are read)")
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise UnusableFile(f"can't be read ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    """One line about an error, without the path that it names."""
    text = getattr(error, "strerror", None) or str(error)
    return (text.splitlines() or [type(error).__name__])[0]


def refuse_foreign(content: bytes) -> None:
    """Raise UnusableFile for a file that begins as one of another kind."""
    start = content[:1000].lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, words in FOREIGN.items():
        if start.startswith(signature):
            raise UnusableFile(words)


# --------------------------------------------------------------------------------------------------
# IDX files
# --------------------------------------------------------------------------------------------------


def read_idx(path: Path) -> tuple[bytes, bytes]:
    """An IDX file's bytes, and what they hold if they are gzipped. Raises UnusableFile."""
    with open_regular(path, LARGEST_PACKED) as file:
        try:
            packed = file.read(LARGEST_PACKED)
        except OSError as error:
            raise UnusableFile(f"can't be read ({reason_of(error)})") from error
    return packed, unpack(packed)


def unpack(packed: bytes) -> bytes:
    """What a gzip file holds, or one gzipped twice, as some servers do; any other as it is."""
    content = packed
    try:
        for _ in range(2):
            if content.startswith(GZIP):
                content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(LARGEST_PACKED + 1)
    except EOFError as error:
        words = f"is a gzip file that ends too soon, after {len(content)} bytes"
        raise UnusableFile(f"{words}; download it again") from error
    except (OSError, zlib.error) as error:
        words = f"is a damaged gzip file ({reason_of(error)})"
        raise UnusableFile(f"{words}; download it again") from error
    if len(content) > LARGEST_IDX:
        raise UnusableFile(f"holds more than {LARGEST_IDX} bytes; download it again")
    return content


def idx_array(content: bytes) -> NDArray[np.uint8]:
    """The array of an IDX file: two zero bytes, type, rank, big-endian sizes, then the data."""
    rank = content[3]
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def refuse_broken_idx(content: bytes) -> None:
    """Raise UnusableFile for a content that is no IDX file, or not all of one."""
    refuse_foreign(content)
    if not re.match(rb"\0\0\x08[\1-\3]", content):
        raise UnusableFile("is not an IDX file; download it again")
    rank = content[3]
    header_size = 4 + 4 * rank
    header = content[:header_size].ljust(header_size, b"\0")
    size = header_size + math.prod(struct.unpack(f">{rank}I", header[4:]))
    if len(content) < size:
        raise UnusableFile(f"is cut off, {len(content)} bytes of {size}; download it again")


# --------------------------------------------------------------------------------------------------
# npz files
# --------------------------------------------------------------------------------------------------


def read_npz(path: Path) -> tuple[Split, Split, str]:
    """Training and test images of a file with NPZ_ARRAYS, and its SHA-256. Raises UnusableFile."""
    with open_regular(path, LARGEST_NPZ) as file:
        try:
            refuse_foreign(file.read(1000))
            file.seek(0)
            file_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            with zipfile.ZipFile(file) as archive:
                arrays = read_npz_arrays(archive)
        except UnusableFile:
            raise
        except MemoryError as error:
            raise UnusableFile("does not fit into memory; leave images out") from error
        except Exception as error:  # a damaged file can raise anything
            words = f"is damaged or not an npz file ({printable(reason_of(error))})"
            raise UnusableFile(f"{words}; write it by numpy.savez_compressed") from error
    train = npz_split("train", arrays)
    test = npz_split("test", arrays)
    if train.image.shape[1:] != test.image.shape[1:]:
        words = f"has train_images of {train.image.shape} and test_images of {test.image.shape}"
        raise UnusableFile(f"{words}; use one size for all")
    return train, test, file_sha256


def read_npz_arrays(archive: zipfile.ZipFile) -> dict[str, NDArray]:
    """The four arrays; names and sizes that the archive states are checked first."""
    members = {}
    for member in archive.infolist():
        members[member.filename.removesuffix(".npy")] = member
    missing = [name for name in NPZ_ARRAYS if name not in members]
    unknown = [name for name in members if name not in NPZ_ARRAYS + NPZ_IGNORED]
    listed = printable(", ".join(unknown[:6]))
    if missing:
        words = f"lacks {', '.join(missing)}"
        raise UnusableFile(f"{words}; it holds {listed}" if unknown else f"{words}; add them")
    if unknown:
        words = f"holds {listed}, which has no meaning here"
        raise UnusableFile(f"{words}; leave only {', '.join(NPZ_ARRAYS)}")
    total = sum(members[name].file_size for name in NPZ_ARRAYS)
    if total > LARGEST_NPZ:
        words = f"unpacks to {total} bytes, at most {LARGEST_NPZ} are read"
        raise UnusableFile(f"{words}; leave images out")
    arrays = {}
    for name in NPZ_ARRAYS:
        with archive.open(members[name]) as file:
            arrays[name] = read_npy(name, file, members[name].file_size)
    return arrays


def read_npy(name: str, file: IO[bytes], size: int) -> NDArray:
    """The array of a .npy file of `size` bytes, with which its header must agree."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise UnusableFile(f"has {name} in npy version {version}; save an array of numbers")
    if dtype.hasobject:
        words = f"has {name} as pickled Python objects, which are never loaded"
        raise UnusableFile(f"{words}; save an array of numbers")
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        words = f"has {name} of {size} bytes, which don't fill {shape}"
        raise UnusableFile(f"{words}; write it again")
    data = np.frombuffer(file.read(), dtype)
    return data.reshape(shape, order="F" if is_fortran else "C")


def npz_split(split: str, arrays: dict[str, NDArray]) -> Split:
    """The checked images and labels of one split, "train" or "test"."""
    image = npz_image(f"{split}_images", arrays[f"{split}_images"])
    label = npz_label(f"{split}_labels", arrays[f"{split}_labels"])
    if len(image) != len(label):
        words = f"has {len(image)} {split}_images and {len(label)} {split}_labels"
        raise UnusableFile(f"{words}; give each image its label")
    return Split(image, label)


def npz_image(name: str, image: NDArray) -> NDArray:
    """Images as uint8 or float64 [m, h, w, 1]."""
    if image.ndim == 4 and (image.shape[3] in (2, 3, 4) or image.shape[1] == 3):
        words = f"has colour images, {name} of shape {image.shape}"
        raise UnusableFile(f"{words}; make them grey, [m, height, width]")
    is_grey = image.ndim == 3 or (image.ndim == 4 and image.shape[3] == 1)
    if not is_grey or 0 in image.shape:
        words = f"has {name} of shape {image.shape}"
        raise UnusableFile(f"{words}; use [m, height, width] or [m, height, width, 1]")
    image = image.reshape(*image.shape[:3], 1)
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind != "f":
        raise UnusableFile(f"has {name} of type {image.dtype}; use uint8 or float")
    with np.errstate(over="ignore"):  # of long double, found below
        image = image.astype(np.float64)
    if not (np.abs(image) <= LARGEST_PIXEL).all():  # NaN is not either
        words = f"has NaN or values beyond {LARGEST_PIXEL:g} in {name}"
        raise UnusableFile(f"{words}; leave those images out")
    return image


def npz_label(name: str, label: NDArray) -> NDArray[np.int64]:
    """Labels as int64 [m]."""
    if label.ndim != 1 and (label.ndim != 2 or label.shape[1] != 1):
        words = f"has {name} of shape {label.shape}"
        raise UnusableFile(f"{words}; use [m] or [m, 1], one label for each image")
    if label.dtype.kind not in "iu":
        raise UnusableFile(f"has {name} of type {label.dtype}; use whole numbers")
    if label.size and (label.min() < 0 or label.max() > LARGEST_LABEL):
        words = f"has {name} from {label.min()} to {label.max()}"
        raise UnusableFile(f"{words}; use labels from 0 to {LARGEST_LABEL}")
    return label.reshape(-1).astype(np.int64)
