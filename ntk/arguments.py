"""What both kernels share.

The engines' names, checks of arguments, and two small helpers for arrays.
"""

import importlib.util
import os
import reprlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

ENGINES = ("auto", "numba", "jax", "gpu", "neural-tangents")
most_threads = 4096
deepest = 10_000  # layers


class BadInput(ValueError):
    """An argument, or a variable of the environment, with a value that won't do, and the remedy."""

    def __init__(self, argument: str, value: object, remedy: str) -> None:
        super().__init__(f"{argument} {value}: {remedy}")
        self.argument, self.value, self.remedy = argument, value, remedy


def has_accelerator() -> bool:
    """Whether JAX finds a GPU or TPU.

    Raises BadInput where JAX_PLATFORMS asks for one that is not there, or another of JAX's
    variables has a value that it does not know.
    """
    try:
        import jax
    except ValueError as error:
        what = (str(error).splitlines() or ["one of its variables is wrong"])[0]
        remedy = f"{what}; unset that variable of the environment, or correct it"
        raise BadInput("JAX", "does not start", remedy) from error
    try:
        return jax.default_backend() != "cpu"
    except (RuntimeError, AssertionError) as error:
        what = (str(error).splitlines() or ["JAX finds no such device"])[0]
        raise BadInput(
            "JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS"), f"{what}; unset it, or use cpu"
        ) from error


def choose_engine(engine: str) -> str:
    """The engine that `auto` or `gpu` stands for on this machine: numba, jax or neural-tangents.

    Raises BadInput for other names, for `gpu` where there is none, for neural-tangents where it is
    not installed, and for numba where a variable of the environment keeps it from working.
    """
    if not isinstance(engine, str) or engine not in ENGINES:
        raise BadInput("engine", in_one_line(engine), f"unknown; use {', '.join(ENGINES)}")
    if engine == "gpu" and not has_accelerator():
        raise BadInput(
            "engine", engine, "JAX finds no GPU or TPU; install requirements-gpu.txt, or use numba"
        )
    if engine == "neural-tangents" and importlib.util.find_spec("neural_tangents") is None:
        raise BadInput(
            "engine", engine, "not installed; it needs Python 3.11 to 3.13. Use numba or jax"
        )
    if engine == "auto":
        engine = "jax" if has_accelerator() else "numba"
    if engine == "numba":
        check_numba()
    return "jax" if engine == "gpu" else engine


def check_numba() -> None:
    """Raise BadInput for variables with which Numba can't compile, or start threads."""
    without = os.environ.get("NUMBA_DISABLE_JIT", "")
    if without.strip() not in ("", "0"):
        remedy = "the engine numba has to be compiled; unset it, or use jax"
        raise BadInput("NUMBA_DISABLE_JIT", without, remedy)
    threads = os.environ.get("NUMBA_NUM_THREADS")
    if threads is None:
        return
    if not threads.strip().isdecimal() or not 1 <= int(threads) <= most_threads:
        remedy = f"use 1 to {most_threads}, or unset it for as many as there are cores"
        raise BadInput("NUMBA_NUM_THREADS", threads, remedy)


def check_images(rank: int, **images: ArrayLike) -> list[NDArray[np.float64]]:
    """The images of each named argument as float64 arrays of `rank` dimensions, the first of which
    counts images.

    The arrays are copies in C order. Raises BadInput for other dtypes than float64 and float32 (in
    either byte order), other ranks, no images, masked values, NaN, and sizes that differ.
    """
    checked: list[NDArray[np.float64]] = []
    for name, given in images.items():
        if has_masked_values(given):
            raise BadInput(name, "with masked values", "leave those images out, or fill them")
        try:
            x = np.asarray(given)
        except Exception as error:  # ragged lists, and whatever else calls itself an array
            what = f"of type {type(given).__name__}"
            raise BadInput(name, what, "use an array of float64 or float32") from error
        if x.dtype.kind != "f" or x.dtype.itemsize not in (4, 8):
            raise BadInput(name, f"of dtype {x.dtype}", "use float64 or float32")
        if x.ndim != rank or 0 in x.shape:
            remedy = f"use {'[n, pixels]' if rank == 2 else '[n, height, width, 1]'}"
            raise BadInput(name, f"of shape {x.shape}", remedy)
        if not np.isfinite(x).all():
            raise BadInput(name, "with NaN or infinite values", "leave those images out")
        if checked and x.shape[1:] != checked[0].shape[1:]:
            raise BadInput(
                name, f"of shape {x.shape}", f"use images of one size, here {checked[0].shape[1:]}"
            )
        checked.append(np.array(x, np.float64, order="C"))
    return checked


def has_masked_values(given: object) -> bool:
    """Whether an array, or any in lists of arrays, is masked somewhere. np.asarray drops masks."""
    if isinstance(given, list | tuple):
        return any(map(has_masked_values, given))
    return isinstance(given, np.ma.MaskedArray) and bool(np.ma.is_masked(given))


def check_depth(depth: int, least: int, step: int, remedy: str) -> int:
    """`depth` as an int. Raises BadInput unless it is a multiple of `step`, and `least` or more."""
    if not isinstance(depth, int | np.integer) or isinstance(depth, bool):
        raise BadInput("depth", in_one_line(depth), remedy)
    if depth < least or depth % step:
        raise BadInput("depth", depth, remedy)
    if depth > deepest:
        raise BadInput("depth", depth, f"use at most {deepest}: every layer has tables in memory")
    return int(depth)


def check_finite(kernel: NDArray[np.float64]) -> None:
    """Raise BadInput unless all entries of a kernel are finite."""
    if not np.isfinite(kernel).all():
        remedy = "scale them to a norm near 1, or use fewer layers or float64"
        raise BadInput("images", "of a kernel that is not finite", remedy)


def in_one_line(value: object) -> str:
    """How a value of any type looks, in a few words."""
    return " ".join(reprlib.repr(value).split())


def whole_blocks(count: int, size: int) -> NDArray[np.intp]:
    """Indices 0 ... count - 1, the last one repeated up to a multiple of `size`."""
    return np.arange(-(-count // size) * size).clip(max=count - 1)


def mirror(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Complete a symmetric matrix [n, n], in place, from its lower triangle."""
    for i in range(len(kernel)):
        kernel[i, i + 1 :] = kernel[i + 1 :, i]
    return kernel
