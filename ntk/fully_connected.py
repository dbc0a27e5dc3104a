"""The NTK of the fully-connected network: `depth` times Dense and a normalised erf, then Dense(1).

With q the variance of a neuron's input, and W_std^2 = s = 1/E[erf(z)^2], z ~ N(0, 1), in every
Dense layer:

    K0 = s x.x'/d,  Theta0 = K0
    Theta <- s Theta (4/pi) / sqrt((1 + 2q)(1 + 2q') - 4 K^2)
    K <- s (2/pi) arcsin(2K / sqrt((1 + 2q)(1 + 2q')))
    Theta <- K + Theta

(Williams, Neural Computation 10, 1998; Jacot et al., arXiv:1806.07572).
`fully_connected_ntk_reference` is that and no more. What follows computes the same by blocks of
rows. Pairs of equal images, nearly equal ones and opposite ones have recursions of their own.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntk.arguments import check_depth, check_finite, check_images, choose_engine, mirror
from ntk.formulas import erf_scale

# The coefficient of nonlinearity of the normalised erf sigma: 1 - E[z sigma(z)]^2.
nonlinearity: float = 1 - (2 / 3) / np.arcsin(2 / 3)


def fully_connected_ntk_reference(
    x1: ArrayLike, x2: ArrayLike, *, depth: int
) -> NDArray[np.float64]:
    """The closed form as it stands. x1 [n1, d], x2 [n2, d] -> [n1, n2].

    Equal images, and nearly equal ones, lose digits with every layer: see `alike_ntk`.
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
    """The variances after a hidden layer, from those before it: the formula of K at K = q = q'.

    The angle of sine 2q/(1 + 2q), by its tangent: near 1 the sine has lost half of its digits.
    """
    return erf_scale * (2 / np.pi) * np.arctan(2 * q / np.sqrt(1 + 4 * q))


# ---- the same, fast ----

nearly_equal = 1e-6  # images are alike where |x.x'| is above 1 - 1e-6 times (x.x + x'.x')/2


def fully_connected_ntk(
    x1: ArrayLike, x2: ArrayLike | None = None, *, depth: int, engine: str = "auto"
) -> NDArray[np.float64]:
    """NTK of the fully-connected erf network.

    x1 [n1, d], x2 [n2, d] (None: x1 with itself, half computed), float64 or float32; `depth` hidden
    layers; the engine auto is numba here, which takes a second for a thousand images. Returns
    float64 [n1, n2]. Raises BadInput, a ValueError, for other shapes and dtypes, NaN, unknown
    engines, other depths, and kernels that are not finite.
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
    """Yield the NTK of float64 images x1 [n1, d], x2 [n2, d] by blocks: (slice of rows, values
    [rows, columns]).

    x2=None: x1 with itself, columns up to the block's last row; what lies above the diagonal there
    means nothing. rows: indices of the rows that are wanted, by default all; the blocks are the
    same whichever are. With the engine jax all processes that `jax.distributed` connects must ask
    for the same, and each gets all of it. Raises BadInput as `fully_connected_ntk` does.
    """
    depth = check_depth(depth, 0, 1, "use a whole number of layers, 0 or more")
    engine = choose_engine("numba" if str(engine) == "auto" else engine)
    if engine == "neural-tangents":
        from ntk.oracle import fully_connected_oracle

        theta = fully_connected_oracle(depth)(x1, x2)
        check_finite(theta)
        yield slice(len(x1)), theta
        return
    symmetric = x2 is None
    q1, diagonal = diagonal_ntk(x1, depth)
    x2, q2 = (x1, q1) if x2 is None else (x2, diagonal_ntk(x2, depth)[0])
    check_finite(q1)
    check_finite(q2)
    kernel = x1 @ x2.T
    kernel *= erf_scale / x1.shape[1]
    if symmetric:  # half of it will do: where K0 = 0 everything stays 0
        for i in range(len(x1)):
            kernel[i, i:] = 0
    height, dense_layers = blocks_of(engine, kernel, q1, q2)
    wanted = np.zeros(len(x1), dtype=bool)
    wanted[slice(None) if rows is None else np.asarray(rows, np.intp)] = True
    for start in range(0, len(x1), height):
        block = np.arange(start, min(start + height, len(x1)))
        if not wanted[block].any():
            continue
        columns = slice(block[-1] + 1 if symmetric else len(x2))
        theta = dense_layers(block, columns)
        k0 = kernel[start : start + height, columns]
        correct_alike(theta, k0, x1[block], x2, q1[:, block], q2)
        if symmetric:
            theta[np.arange(len(block)), block] = diagonal[block]
        check_finite(theta)
        yield slice(start, start + len(block)), theta


def fully_connected_pairs(
    x: ArrayLike, i: NDArray[np.intp], j: NDArray[np.intp], *, depth: int
) -> NDArray[np.float64]:
    """The same NTK [m] of the pairs i, j [m] of images x [n, d], where not all pairs are wanted."""
    (x,) = check_images(2, x=x)
    q, _ = diagonal_ntk(x, check_depth(depth, 0, 1, "use a whole number of layers, 0 or more"))
    blocks = [slice(start, start + 2**13) for start in range(0, len(i), 2**13)]
    products = [np.sum(x[i[block]] * x[j[block]], axis=1) for block in blocks]  # in little memory
    k = theta = k0 = erf_scale * np.concatenate(products) / x.shape[1]
    for layer in q[:-1]:
        norm = (1 + 2 * layer[i]) * (1 + 2 * layer[j])
        theta = erf_scale * (4 / np.pi) * theta / np.sqrt(np.maximum(norm - 4 * k**2, 1e-300))
        k = erf_scale * (2 / np.pi) * np.arcsin(np.clip(2 * k / np.sqrt(norm), -1, 1))
        theta = k + theta
    alike = np.abs(k0) > (1 - nearly_equal) / 2 * (q[0, i] + q[0, j])
    i, j, sign = i[alike], j[alike], np.sign(k0[alike])
    theta[alike] = sign * alike_ntk(x[i], sign[:, None] * x[j], q[:, i], q[:, j])
    check_finite(theta)
    return theta


def blocks_of(
    engine: str, kernel: NDArray[np.float64], q1: NDArray[np.float64], q2: NDArray[np.float64]
) -> tuple[int, Callable[[NDArray[np.intp], slice], NDArray[np.float64]]]:
    """Rows of a block, and the function (rows, columns) that takes that part of K0 to the NTK."""
    if engine == "jax":
        from ntk.jax_engine import dense_layers as jax_layers
        from ntk.jax_engine import dense_rows

        height = dense_rows(*kernel.shape)
        return height, lambda block, columns: jax_layers(kernel, q1, q2, block, height)[:, columns]
    from ntk.numba_engine import dense_layers as numba_layers
    from ntk.numba_engine import reciprocals

    r1, r2 = reciprocals(q1), reciprocals(q2)
    height = max(1, 2**17 // kernel.shape[1])
    return height, lambda block, columns: numba_layers(kernel[block, columns], r1[:, block], r2)


def diagonal_ntk(
    x: NDArray[np.float64], depth: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances q [depth + 1, n] before and after every layer, and the NTK of each image with
    itself [n].

    K = q = q' makes this a recursion in q alone. The matrix's own diagonal would be useless by
    depth 150: the correlation's map has a slope above 1 at correlation 1, and rounding errors grow
    with every layer.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the callers look for what is not finite
        q = [erf_scale * np.sum(x**2, axis=1) / x.shape[1]]
        theta = q[0]
        for _ in range(depth):
            theta = erf_scale * (4 / np.pi) * theta / np.sqrt(1 + 4 * q[-1])
            q.append(next_variance(q[-1]))
            theta = q[-1] + theta
    return np.array(q), theta


def correct_alike(
    theta: NDArray[np.float64],
    k0: NDArray[np.float64],
    x1: NDArray[np.float64],
    x2: NDArray[np.float64],
    q1: NDArray[np.float64],
    q2: NDArray[np.float64],
) -> None:
    """Replace the entries of theta [m, n] that belong to images that are alike, by `alike_ntk`.

    K0 [m, n] tells which: of x1 [m, d] and the first n of x2, of variances q1, q2 [depth + 1, ...].
    The NTK is odd in either image, so that opposite ones are equal ones with another sign.
    """
    half = (1 - nearly_equal) / 2
    i, j = np.nonzero(np.abs(k0) > half * q1[0, :, None] + half * q2[0, : k0.shape[1]])
    sign = np.sign(k0[i, j])
    pairs_at_once = max(1, 2**21 // max(x1.shape[1], len(q1)))
    for start in range(0, len(i), pairs_at_once):
        some = slice(start, start + pairs_at_once)
        row, column = i[some], j[some]
        opposite = sign[some, None] * x2[column]
        theta[row, column] = sign[some] * alike_ntk(x1[row], opposite, q1[:, row], q2[:, column])


def alike_ntk(
    x1: NDArray[np.float64],
    x2: NDArray[np.float64],
    q1: NDArray[np.float64],
    q2: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The NTK [m] of nearly equal images x1, x2 [m, d] of variances q1, q2 [depth + 1, m].

    D = q + q' - 2K, the square of their distance, is all that K has to say about them. K itself has
    lost its digits, and layers multiply D, by 1.23 each at q = 1. So D and g = q - q' start from
    x - x' and have recursions of their own, with S = q + q' and r = sqrt(1 + 4q):

        E = (2 - D/S) D - g^2/S,  which is 4 (q q' - K^2)/S
        N = 1 + 2S + S E,  which is (1 + 2q)(1 + 2q') - 4 K^2
        D <- s (4/pi) arctan((E + 2 (g^2/S)/(1 + 2S + r r')) / ((q r' + q' r + 2K sqrt(N))/S))
        g <- s (2/pi) arctan(2 g (1 + 4 q q'/S) / ((r r' + 4 q q') (q r' + q' r)/S))

    (Differences of arcsines, of q, q' and K, by the tangents of differences of angles.) Where the
    images are equal the result has the bits of `diagonal_ntk`.
    """
    distance = erf_scale * np.sum((x1 - x2) ** 2, axis=1) / x1.shape[1]
    difference = erf_scale * np.sum((x1 - x2) * (x1 + x2), axis=1) / x1.shape[1]
    theta = (q1[0] + q2[0] - distance) / 2
    for layer in range(1, len(q1)):
        root, distance, difference = alike_layer(q1[layer - 1], q2[layer - 1], distance, difference)
        theta = erf_scale * (4 / np.pi) * theta / root
        theta = (q1[layer] + q2[layer] - distance) / 2 + theta
    return theta


@np.errstate(over="ignore")  # of huge images: what is divided by infinity is as good as 0
def alike_layer(
    q1: NDArray[np.float64],
    q2: NDArray[np.float64],
    distance: NDArray[np.float64],
    difference: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """sqrt(N) [m] of a layer, and D and g [m] after it, from q, q', D, g before: `alike_ntk`."""
    both = q1 + q2
    share1, share2 = q1 / both, q2 / both
    r1, r2 = np.sqrt(1 + 4 * q1), np.sqrt(1 + 4 * q2)
    e = (2 - distance / both) * distance - difference * (difference / both)
    root = np.sqrt(1 + 2 * both) * np.sqrt(1 + both / (1 + 2 * both) * e)
    mixed = share1 * r2 + share2 * r1
    top = e + 2 * (difference / both) * (difference / (1 + 2 * both + r1 * r2))
    distance = erf_scale * (4 / np.pi) * np.arctan(top / (mixed + (1 - distance / both) * root))
    ratio = (1 + 4 * q1 * share2) / (r1 * r2 + 4 * q1 * share2 * both)
    return root, distance, erf_scale * (2 / np.pi) * np.arctan(2 * difference * ratio / mixed)
