"""What both kernels share: the engines' names, checks of arguments, and two small helpers for arrays."""

import importlib.util
import os

import numpy as np
from numpy.typing import ArrayLike, NDArray

ENGINES = ("auto", "numba", "jax", "gpu", "neural-tangents")


class BadInput(ValueError):
    """An argument, or a variable of the environment, with a value that won't do, and the remedy."""

    def __init__(self, argument: str, value: object, remedy: str) -> None:
        super().__init__(f"{argument} {value}: {remedy}")
        self.argument, self.value, self.remedy = argument, value, remedy


def has_accelerator() -> bool:
    """Whether JAX finds a GPU or TPU. Raises BadInput where JAX_PLATFORMS asks for one that is not there."""
    import jax

    try:
        return jax.default_backend() != "cpu"
    except (RuntimeError, AssertionError) as error:
        what = (str(error).splitlines() or ["JAX finds no such device"])[0]
        raise BadInput("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS"), f"{what}; unset it, or use cpu") from error


def choose_engine(engine: str) -> str:
    """The engine that `auto` or `gpu` stands for on this machine: numba, jax or neural-tangents.

    Raises BadInput for other names, for `gpu` where there is none, and for neural-tangents where it is not installed.
    """
    if engine not in ENGINES:
        raise BadInput("engine", engine, f"unknown; use {', '.join(ENGINES)}")
    if engine == "gpu" and not has_accelerator():
        raise BadInput("engine", engine, "JAX finds no GPU or TPU; install requirements-gpu.txt, or use numba")
    if engine == "neural-tangents" and importlib.util.find_spec("neural_tangents") is None:
        raise BadInput("engine", engine, "not installed; it needs Python 3.11 to 3.13. Use numba or jax")
    if engine == "auto":
        return "jax" if has_accelerator() else "numba"
    return "jax" if engine == "gpu" else engine


def check_images(rank: int, **images: ArrayLike) -> list[NDArray[np.float64]]:
    """The images of each named argument as float64 arrays of `rank` dimensions, the first of which counts images.

    Raises BadInput for other dtypes than float64 and float32, other ranks, no images, NaN, and sizes that differ.
    """
    checked: list[NDArray[np.float64]] = []
    for name, given in images.items():
        x = np.asarray(given)
        if x.dtype not in (np.float32, np.float64):
            raise BadInput(name, f"of dtype {x.dtype}", "use float64 or float32")
        if x.ndim != rank or 0 in x.shape:
            remedy = f"use {'[n, pixels]' if rank == 2 else '[n, height, width, 1]'}"
            raise BadInput(name, f"of shape {x.shape}", remedy)
        if not np.isfinite(x).all():
            raise BadInput(name, "with NaN or infinite values", "leave those images out")
        if checked and x.shape[1:] != checked[0].shape[1:]:
            raise BadInput(name, f"of shape {x.shape}", f"use images of one size, here {checked[0].shape[1:]}")
        checked.append(x.astype(np.float64))
    return checked


def check_depth(depth: int, suits: bool, remedy: str) -> int:
    """`depth` as an int; BadInput with the remedy where it is not a whole number, or where it does not suit."""
    if not isinstance(depth, int | np.integer) or isinstance(depth, bool) or not suits:
        raise BadInput("depth", depth, remedy)
    return int(depth)


def whole_blocks(count: int, size: int) -> NDArray[np.intp]:
    """Indices 0 ... count - 1, the last one repeated up to a multiple of `size`."""
    return np.arange(-(-count // size) * size).clip(max=count - 1)


def mirror(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Complete a symmetric matrix [n, n], in place, from its lower triangle."""
    for i in range(len(kernel)):
        kernel[i, i + 1 :] = kernel[i + 1 :, i]
    return kernel
