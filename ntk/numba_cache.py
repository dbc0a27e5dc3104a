"""Numba's cache of compiled code, which must not end a computation.

Numba itself ends with an error where it can write to no folder, and with an error, or worse, where
one of its files is damaged. And it looks for changes in the source file of a function alone, not in
those whose functions are compiled into it.
"""

import contextlib
import functools
import glob
import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

SOURCES = ("numba_engine.py", "numba_vectors.py", "numba_cache.py", "formulas.py")
DIGEST = hashlib.sha256().digest_size

Dispatcher = TypeVar("Dispatcher")


def cached(dispatcher: Dispatcher) -> Dispatcher:
    """Let a function of numba.njit keep its compiled code for other processes where it can."""
    configuration: Any = numba.config
    if not configuration.DISABLE_JIT:
        try:
            dispatcher._cache = Cache(dispatcher.py_func)  # type: ignore[attr-defined]
        except (RuntimeError, OSError):  # no folder can be written
            say_once()
    return dispatcher


@functools.cache
def say_once() -> None:
    """Say on stderr, once in a process, that compiled code can't be kept."""
    remedy = "it is compiled anew every time; set NUMBA_CACHE_DIR to a folder that can be written"
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr is closed or full
        sys.stderr.write(f"note: compiled code can't be kept: {remedy}\n")


class File(IndexDataCacheFile):
    """Numba's files of a function, each with its SHA-256 at the end, where Numba does not look."""

    @contextlib.contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
        content = io.BytesIO()
        yield content
        with super()._open_for_write(filepath) as file:
            file.write(content.getvalue() + hashlib.sha256(content.getvalue()).digest())

    def _load_index(self) -> Any:
        with contextlib.suppress(FileNotFoundError):
            check(self._index_path)
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        check(self._data_path(name))
        return super()._load_data(name)


def check(path: str) -> None:
    """Raise ValueError unless a file ends with the SHA-256 of what comes before."""
    content = Path(path).read_bytes()
    if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
        raise ValueError(f"{path} is damaged")


class Cache(FunctionCache):
    """Numba's cache of a function: it deletes what can't be read, and raises no errors."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        content = b"".join(Path(__file__).with_name(name).read_bytes() for name in SOURCES)
        stamp = self._impl.locator.get_source_stamp(), hashlib.sha256(content).digest()
        self._cache_file = File(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compiled code for this signature, or None."""
        try:
            return super().load_overload(signature, target_context)
        except Exception:  # a damaged file may come up with any
            for path in Path(self._cache_path).glob(glob.escape(self._impl.filename_base) + ".*"):
                with contextlib.suppress(OSError):
                    path.unlink()
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep compiled code, where it can be."""
        try:
            super().save_overload(signature, compiled)
        except Exception:  # a full disk, or a folder that others have changed
            say_once()
