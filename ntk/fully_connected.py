"""The NTK of the fully-connected network: `depth` times Dense and a normalised erf, then Dense(1).

With q the variance of a neuron's input, and W_std^2 = s = 1/E[erf(z)^2], z ~ N(0, 1), in every Dense layer:

    K0 = s x.x'/d,  Theta0 = K0
    Theta <- s Theta (4/pi) / sqrt((1 + 2q)(1 + 2q') - 4 K^2)
    K <- s (2/pi) arcsin(2K / sqrt((1 + 2q)(1 + 2q')))
    Theta <- K + Theta

(Williams, Neural Computation 10, 1998; Jacot et al., arXiv:1806.07572). `fully_connected_ntk_reference` is that and no
more. What follows it computes the same by blocks of rows, and the diagonal by a recursion of its own.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntk.arguments import check_depth, check_images, choose_engine, mirror
from ntk.formulas import erf_scale

# The coefficient of nonlinearity of the normalised erf sigma: 1 - E[z sigma(z)]^2.
nonlinearity: float = 1 - (2 / 3) / np.arcsin(2 / 3)


def fully_connected_ntk_reference(x1: ArrayLike, x2: ArrayLike, *, depth: int) -> NDArray[np.float64]:
    """The closed form as it stands. x1 [n1, d], x2 [n2, d] -> [n1, n2].

    An image with itself loses digits with every layer, see `diagonal_ntk`.
    """
    x1, x2 = np.asarray(x1, np.float64), np.asarray(x2, np.float64)
    q1, q2 = (erf_scale * np.sum(x**2, axis=1) / x.shape[1] for x in (x1, x2))
    k = theta = erf_scale * x1 @ x2.T / x1.shape[1]
    for _ in range(depth):
        norm = np.outer(1 + 2 * q1, 1 + 2 * q2)
        theta = erf_scale * theta * (4 / np.pi) / np.sqrt(norm - 4 * k**2)
        k = erf_scale * (2 / np.pi) * np.arcsin(2 * k / np.sqrt(norm))
        theta = k + theta
        q1, q2 = next_variance(q1), next_variance(q2)
    return theta


def next_variance(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """The variances after a hidden layer, from those before it: the formula of K at K = q = q'."""
    return erf_scale * (2 / np.pi) * np.arcsin(2 * q / (1 + 2 * q))


# ---- the same, fast ----


def fully_connected_ntk(
    x1: ArrayLike, x2: ArrayLike | None = None, *, depth: int, engine: str = "auto"
) -> NDArray[np.float64]:
    """NTK of the fully-connected erf network.

    x1 [n1, d], x2 [n2, d] (None: x1 with itself, half computed), float64 or float32; `depth` hidden layers; the engine
    auto is numba here, which takes a second for a thousand images. Returns float64 [n1, n2].
    Raises BadInput, a ValueError, for other shapes and dtypes, NaN, unknown engines and negative depths.
    """
    if x2 is None:
        (x1,) = check_images(2, x1=x1)
        kernel = np.empty((len(x1), len(x1)))
    else:
        x1, x2 = check_images(2, x1=x1, x2=x2)
        kernel = np.empty((len(x1), len(x2)))
    for rows, values in fully_connected_rows(x1, x2, depth=depth, engine=engine):
        kernel[rows, : values.shape[1]] = values
    return mirror(kernel) if x2 is None else kernel


def fully_connected_rows(
    x1: NDArray[np.float64],
    x2: NDArray[np.float64] | None,
    *,
    depth: int,
    engine: str,
    rows: Sequence[int] | NDArray[np.intp] | None = None,
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield the NTK of float64 images x1 [n1, d], x2 [n2, d] by blocks: (slice of rows, values [rows, columns]).

    x2=None: x1 with itself, columns up to the block's last row; what lies above the diagonal there means nothing.
    rows: indices of the rows that are wanted, by default all; the blocks are the same whichever are. With the engine
    jax all processes that `jax.distributed` connects must ask for the same, and each gets all of it.
    Raises BadInput as `fully_connected_ntk` does.
    """
    depth = check_depth(depth, 0, 1, "use a whole number of layers, 0 or more")
    engine = choose_engine("numba" if str(engine) == "auto" else engine)
    if engine == "neural-tangents":
        from ntk.oracle import fully_connected_oracle

        yield slice(len(x1)), fully_connected_oracle(depth)(x1, x2)
        return
    symmetric = x2 is None
    q1, diagonal = diagonal_ntk(x1, depth)
    x2, q2 = (x1, q1) if x2 is None else (x2, diagonal_ntk(x2, depth)[0])
    kernel = x1 @ x2.T
    kernel *= erf_scale / x1.shape[1]
    if symmetric:  # half of it will do: where K0 = 0 everything stays 0
        for i in range(len(x1)):
            kernel[i, i:] = 0
    if engine == "jax":
        from ntk import jax_engine

        height = jax_engine.dense_rows(*kernel.shape)
    else:
        from ntk import numba_engine

        height = max(1, 2**17 // len(x2))
        r1, r2 = numba_engine.reciprocals(q1), numba_engine.reciprocals(q2)
    wanted = np.zeros(len(x1), dtype=bool)
    wanted[slice(None) if rows is None else np.asarray(rows, np.intp)] = True
    for start in range(0, len(x1), height):
        block = np.arange(start, min(start + height, len(x1)))
        if not wanted[block].any():
            continue
        columns = slice(block[-1] + 1 if symmetric else len(x2))
        if engine == "jax":
            theta = jax_engine.dense_layers(kernel, q1, q2, block, height)[:, columns]
        else:
            theta = numba_engine.dense_layers(kernel[block, columns], r1[:, block], r2)
        if symmetric:
            theta[np.arange(len(block)), block] = diagonal[block]
        yield slice(start, start + len(block)), theta


def diagonal_ntk(x: NDArray[np.float64], depth: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances q [depth + 1, n] before and after every layer, and the NTK of each image with itself [n].

    K = q = q' makes this a recursion in q alone. The matrix's own diagonal would be useless by depth 150: the
    correlation's map has a slope above 1 at correlation 1, and rounding errors grow with every layer.
    """
    q = [erf_scale * np.sum(x**2, axis=1) / x.shape[1]]
    theta = q[0]
    for _ in range(depth):
        theta = erf_scale * (4 / np.pi) * theta / np.sqrt(1 + 4 * q[-1])
        q.append(next_variance(q[-1]))
        theta = q[-1] + theta
    return np.array(q), theta
