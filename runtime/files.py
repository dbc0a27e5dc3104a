"""Small files that exist complete or not at all, and the folder that a run holds while it writes."""

import contextlib
import functools
import io
import itertools
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import filelock
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ntk import BadInput


@contextlib.contextmanager
def write_errors_explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into one line that says what to do."""
    try:
        yield
    except OSError as error:
        what = f"can't write {path.name} ({error.strerror or error})"
        remedy = "make room or name another folder, then run it again: what is finished is kept"
        raise BadInput("output", path.parent, f"{what}; {remedy}") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other runs out of it. Raises BadInput where that fails; the lock dies with its owner."""
    path = folder / "run.lock"
    if folder.exists() and not folder.is_dir():
        raise BadInput("output", folder, "is a file; name a folder")
    with write_errors_explained(path):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            owner = path.read_text().strip() or "another run"
            raise BadInput("output", folder, f"in use by {owner}; wait for it, or name another folder") from error
    try:
        with write_errors_explained(path):
            path.write_text(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        yield
    finally:
        lock.release()


def put_aside(path: Path, reason: str, then: str = "computed again") -> None:
    """Rename a file that can't be used, and say so."""
    names = (path.with_name(f"{path.name}.{k}.old") for k in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    with write_errors_explained(aside):
        path.rename(aside)
    tqdm.write(f"note: {path.name} {reason}; it is kept as {aside.name} and {then}")


def save(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call write(file) on a temporary file, then rename it: `path` exists complete or not at all."""
    content = io.BytesIO()  # NumPy's own errors on a full disk don't say that it is full
    write(content)
    temporary = path.with_name(path.name + ".partial")
    write_durably(temporary, lambda file: file.write(content.getbuffer()))
    with write_errors_explained(path):
        temporary.replace(path)


def write_durably(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call write(file) and wait until the disk has it all; where that fails, leave no file."""
    with write_errors_explained(path):
        try:
            with path.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise


def save_unless_there(path: Path, array: NDArray) -> None:
    """Save a small array unless its file holds just that; another content is put aside."""
    if path.exists():
        with contextlib.suppress(Exception):  # a damaged file can raise anything
            if np.array_equal(np.load(path, allow_pickle=False), array):
                return
        put_aside(path, "is damaged or of other settings")
    save(path, functools.partial(np.save, arr=array))
