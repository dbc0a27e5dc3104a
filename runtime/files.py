"""Files that exist complete or not at all, in a folder that one run holds and others may fill.

Writing never follows a link, and reading opens regular files alone, whose sizes are checked
beforehand: an output folder may come from somebody else, out of an archive, or lie on a file system
that lacks something. The functions that read raise OSError or ValueError, whose reason `in_words`
gives in one line; the others raise BadInput.
"""

import contextlib
import errno
import fnmatch
import functools
import hashlib
import io
import itertools
import math
import mmap
import os
import platform
import secrets
import shutil
import stat
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

import filelock
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ntk import BadInput
from runtime import streams

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"  # begins what Git LFS has not fetched
TAIL_LIMIT = 2**16  # bytes behind the array of a .npy file
KINDS = {  # by the first letter of `ls -l`
    "l": "a symbolic link",
    "d": "a folder",
    "p": "a pipe",
    "s": "a socket",
    "c": "a device",
    "b": "a device",
}


# --------------------------------------------------------------------------------------------------
# Folders
# --------------------------------------------------------------------------------------------------


def folder_path(text: str) -> Path:
    """A folder from the command line, `~` expanded. Raises BadInput for what names no folder."""
    if not text or "\0" in text:
        raise BadInput("output", repr(text), "name a folder")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise BadInput("output", text, f"{in_words(error)}; name a folder without ~") from error
    longest = max(path.parts, key=len, default="")
    size = len(os.fsencode(longest))
    if size > 255:
        what = f"its part {longest[:20]}... has {size} bytes"
        raise BadInput("output", f"{text[:40]}...", f"{what}; use 255 at most")
    return path


def default_output(script: str | Path) -> Path:
    """kernel_output beside the script, relative to the working directory where it is below that."""
    folder = Path(script).resolve().parent / "kernel_output"
    try:
        return folder.relative_to(Path.cwd())
    except (ValueError, FileNotFoundError):  # elsewhere; or the working directory has been deleted
        return folder


def output_files(folder: Path, pattern: str) -> list[Path]:
    """A folder's regular files of names like `pattern`, sorted; none where there is no such folder.

    Left out are links, whatever else is no file, and hidden files, such as the `._*` that macOS
    adds to archives. Raises BadInput where the folder can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        remedy = f"can't be read ({in_words(error)}); name a folder that you may read"
        raise BadInput("output", folder, remedy) from error
    visible = [name for name in names if not name.startswith(".")]
    return [folder / name for name in sorted(visible) if fnmatch.fnmatchcase(name, pattern)]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other runs out of it; the lock dies with its owner.

    Who holds it stands beside the lock, in run.lock.owner: on Windows nobody can read or write a
    locked file. Raises BadInput where the folder can't be made or is held.
    """
    path = folder / "run.lock"
    owner = folder / "run.lock.owner"
    with write_errors_explained(path):
        if os.path.lexists(folder) and not folder.is_dir():
            raise BadInput("output", folder, f"is {kind_of(folder)}; name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and kind_of(path) != "a file":
            raise BadInput("output", folder, f"run.lock in it is {kind_of(path)}; delete it")
        if not os.path.lexists(path):  # filelock would take a refusal for another run
            with contextlib.suppress(FileExistsError):
                path.open("xb").close()
        lock = filelock.FileLock(path, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            remedy = f"in use by {lock_owner(owner)}; wait for it, or name another folder"
            raise BadInput("output", folder, remedy) from error
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        save_text(owner, f"process {os.getpid()} on {platform.node()}, since {since}\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def lock_owner(path: Path) -> str:
    """Who holds a folder, as run.lock.owner says."""
    try:
        text = read_small(path, 1000).decode(errors="replace").strip()
    except OSError:
        text = ""
    return "".join(c if c.isprintable() else "?" for c in text) or "another run"


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder that is removed at the end, also where a signal ends the process."""
    try:
        folder = Path(tempfile.gettempdir(), f"kernels-{secrets.token_hex(8)}")
        streams.temporary_folders.add(folder)  # before it is there: a signal may come in between
        folder.mkdir(mode=0o700)
    except OSError as error:
        remedy = f"no room for temporary files ({in_words(error)}); name a folder with room"
        raise BadInput("TMPDIR", os.environ.get("TMPDIR"), remedy) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        streams.temporary_folders.discard(folder)


# --------------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def write_errors_explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into one line that says what to do."""
    try:
        yield
    except OSError as error:
        what = f"can't write {path.name} ({in_words(error)})"
        remedy = "make room or name another folder, then run it again: what is finished is kept"
        raise BadInput("output", path.parent, f"{what}; {remedy}") from error


def put_aside(path: Path, reason: str, then: str = "computed again") -> None:
    """Rename a file that can't be used, or whatever is in its place, and say so."""
    names = (path.with_name(f"{path.name}.{k}.old") for k in itertools.count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    with write_errors_explained(aside):
        path.replace(aside)
    tqdm.write(f"note: {path.name} {reason}; it is kept as {aside.name} and {then}")


def make_way(path: Path) -> None:
    """Put a folder aside that has the name of a file to be written."""
    if path.is_dir() and not path.is_symlink():
        put_aside(path, "is a folder", "written anew")


def partial_path(path: Path) -> Path:
    """What a file is called until it is complete."""
    return path.with_name(path.name + ".partial")


def save(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call write(file) on a partial file, then rename it: `path` exists complete or not at all."""
    content = io.BytesIO()  # NumPy's own errors on a full disk don't say that it is full
    write(content)
    partial = partial_path(path)
    write_durably(partial, lambda file: file.write(content.getbuffer()))
    give_final_name(partial, path)


def save_text(path: Path, text: str) -> None:
    """Save a text in UTF-8, whole or not at all, and make its folder where there is none."""
    with write_errors_explained(path.parent):
        path.parent.mkdir(exist_ok=True)
    save(path, lambda file: file.write(text.encode()))


def write_durably(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call write(file) on a new file and wait until the disk has it; where that fails, leave none.

    What was there is removed, and never written through where it is a link.
    """
    make_way(path)
    with write_errors_explained(path):
        path.unlink(missing_ok=True)
        file = path.open("xb")  # x: not through a link that has come in the meantime
        try:
            with file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def give_final_name(partial: Path, path: Path) -> None:
    """Rename a complete file, and wait until the disk knows it. What is at `path` is replaced.

    On Windows neither of them may be open or mapped in this process.
    """
    make_way(path)
    with write_errors_explained(path):
        partial.replace(path)
        flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Wait until the disk knows the names in a folder, where the system can do that."""
    with contextlib.suppress(OSError):  # Windows opens no folders, some systems flush none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_unless_there(path: Path, array: NDArray) -> None:
    """Save a small array unless its file holds just that; another content is put aside."""
    if os.path.lexists(path):
        with (
            contextlib.suppress(Exception),
            open_array(path) as stored,
        ):  # damage can raise anything
            if np.array_equal(stored.array, array):
                return
        put_aside(path, "is damaged or of other settings")
    save(path, functools.partial(np.save, arr=array))


# --------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------


def in_words(error: BaseException) -> str:
    """The reason of an error, in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]


def refusal(path: Path, words: str) -> OSError:
    """An error whose strerror says why a file is not read."""
    return OSError(errno.EINVAL, words, str(path))


def kind_of(path: Path) -> str:
    """What has this name: a file, or a symbolic link, a folder, a pipe, a socket, a device."""
    return kind_of_mode(path.lstat().st_mode)


def kind_of_mode(mode: int) -> str:
    """The same from the mode that the system gives."""
    return KINDS.get(stat.filemode(mode)[0], "a file")


def open_regular(path: Path, mode: Literal["rb", "r+b"] = "rb") -> BinaryIO:
    """Open a regular file, and nothing that is a link, hangs, or is a device.

    Raises OSError, whose strerror says what it is; so it does for Git LFS pointers.
    """
    kind = kind_of(path)
    if kind != "a file":
        raise refusal(path, f"is {kind}, not a file")
    # The flags answer whoever puts something else there between these two looks.
    flags = os.O_RDONLY if mode == "rb" else os.O_RDWR
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    file = os.fdopen(os.open(path, flags), mode)
    try:
        kind = kind_of_mode(os.fstat(file.fileno()).st_mode)
        if kind != "a file":
            raise refusal(path, f"is {kind}, not a file")
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise refusal(path, "is a Git LFS pointer; run git lfs pull")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def check_size(path: Path, size: int, limit: int, what: str = "holds") -> None:
    """Raise OSError where a file holds, or unpacks to, more than `limit` bytes."""
    if size > limit:
        raise refusal(path, f"{what} {size:,} bytes, more than {limit:,}")


def read_small(path: Path, limit: int) -> bytes:
    """All of a regular file of at most `limit` bytes. Raises OSError for others."""
    with open_regular(path) as file:
        check_size(path, os.fstat(file.fileno()).st_size, limit)
        content = file.read(limit + 1)
        check_size(path, len(content), limit)  # it may grow while it is read
        return content


def check_hdf5(path: Path, limit: int) -> None:
    """Check an HDF5 (netCDF) file before its values are read, by what it says of itself.

    Raises OSError where its arrays unpack to more than `limit` bytes, or lie in other files, to
    which HDF5 can refer; a damaged file can raise anything.
    """
    import h5py

    size = 0
    with open_regular(path) as file, h5py.File(file, "r") as content:
        groups = [content]
        seen = set()
        while groups:
            group = groups.pop()
            seen.add(hash(group.id))
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise refusal(path, f"refers to another file in {name}")
                member = group[name]
                if isinstance(member, h5py.Group):
                    if hash(member.id) not in seen:  # groups can contain themselves
                        groups.append(member)
                elif isinstance(member, h5py.Dataset):
                    if member.external or member.is_virtual:
                        raise refusal(path, f"refers to another file in {name}")
                    size += (member.size or 0) * member.dtype.itemsize
                    check_size(path, size, limit, "unpacks to")


# --------------------------------------------------------------------------------------------------
# Arrays in files
# --------------------------------------------------------------------------------------------------


class StoredArray:
    """The array of a .npy file, and what stands behind it; a context, which closes the file.

    array: mapped into memory, or a copy where the file system can't map. No view of it may be kept
    when the context is left: on Windows the file could then not be renamed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        shape, order, dtype = read_header(file)
        begin = file.tell()
        self.end = begin + math.prod(shape) * dtype.itemsize
        size = os.fstat(file.fileno()).st_size
        if size < self.end:
            raise ValueError(f"ends after {size:,} of {self.end:,} bytes")
        if size - self.end > TAIL_LIMIT:
            raise ValueError(f"has {size - self.end:,} bytes behind its array, too many")
        self.content = self.map_or_read(size)
        flat = np.frombuffer(self.content, dtype, math.prod(shape), begin)
        self.array: NDArray[Any] = flat.reshape(shape, order=order)

    def map_or_read(self, size: int) -> mmap.mmap | bytes:
        """The whole file as one buffer."""
        try:
            return mmap.mmap(self.file.fileno(), size, access=mmap.ACCESS_READ)
        except OSError:  # ENODEV or EINVAL: no shared maps here
            self.file.seek(0)
            content = self.file.read(size)
            if len(content) < size:
                raise ValueError("ends while it is read") from None
            return content

    @property
    def tail(self) -> bytes:
        """What stands behind the array."""
        return bytes(self.content[self.end :])

    def checksum(self, ending: int) -> str:
        """SHA-256 sum, in hexadecimal digits, of all bytes but the last `ending` ones."""
        with memoryview(self.content) as view:
            return hashlib.sha256(view[: len(view) - ending]).hexdigest()

    def close(self) -> None:
        """Let the file go. BufferError where a view of the array is kept."""
        self.array = np.empty(0)
        self.file.close()
        if not isinstance(self.content, bytes):
            self.content.close()

    def __enter__(self) -> "StoredArray":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            with contextlib.suppress(BufferError):  # the error's frames may keep a view
                self.close()


def open_array(path: Path) -> StoredArray:
    """The array of a .npy file, and what stands behind it.

    Raises OSError as `open_regular` does, and ValueError where it is no array, ends too early, or
    goes on too long.
    """
    file = open_regular(path)
    try:
        return StoredArray(file)
    except BaseException:
        file.close()
        raise


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Shape, order and type from the beginning of a .npy file. Raises ValueError for no array."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"is of version {version} of NumPy's format")
    read = np.lib.format.read_array_header_1_0
    if version == (2, 0):
        read = np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            shape, is_fortran, dtype = read(file)
        except UserWarning as error:  # NumPy would take it for one of Python 2, and talk about it
            raise ValueError("has a header that NumPy has to mend") from error
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError(f"holds {dtype} {shape}, not numbers")
    return shape, "F" if is_fortran else "C", dtype
