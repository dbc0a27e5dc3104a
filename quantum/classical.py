"""Classical competitors of the quantum prediction: the same o = <k*|w>, or only its sign, and what they read.

Sources: [AKP] Andoni, Krauthgamer, Pogrow, arXiv:1809.02995. [Tang] arXiv:1807.04271, on sampling as the classical
counterpart of a state in QRAM.
"""

import math
from typing import TypeAlias

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]
Matrix: TypeAlias = "NDArray[np.float64] | scipy.sparse.csr_array"

PERMUTATIONS = 20  # random orders in which the sampler reads k*
SAMPLER_OPERATIONS = {"zero": 2, "median": 6}  # of an entry read: it adds to the sum of k w; for t, of k^2 and w^2 too


def cholesky_operations(n: int) -> float:
    """Of the factor, n^3/3, and two triangular solves, n^2 each."""
    return n**3 / 3 + 2 * n**2


def conjugate_gradient_iterations(matrix: scipy.sparse.csr_array, y: Array, exact: Array, error: float) -> float:
    """Iterations until x/|x| is within `error` of the unit vector `exact`; NaN if not in 10 n. matrix: [n, n]"""
    x, residual, direction = np.zeros(len(y)), y, y
    for iteration in range(1, 10 * len(y) + 1):
        product = matrix @ direction
        if direction @ product == 0:  # an indefinite matrix may end it
            return np.nan
        step = residual @ residual / (direction @ product)
        x, before, residual = x + step * direction, residual, residual - step * product
        if np.linalg.norm(x / np.linalg.norm(x) - exact) <= error:
            return iteration
        direction = residual + residual @ residual / (before @ before) * direction
    return np.nan


def conjugate_gradient_operations(matrix: scipy.sparse.csr_array, iterations: float) -> float:
    """One iteration: a sparse product, two inner products, three vector updates."""
    return iterations * (2 * matrix.nnz + 10 * matrix.shape[0])


def samples_needed(
    kernel_test: Array, weights: Array, label: Array, thresholds: Array, share: float, rng: np.random.Generator
) -> Array:
    """Entries m <= n that a sampler without replacement reads until it has `share` of the noiseless accuracy. -> [2]

    It draws i uniformly, no i twice, reads k_i and w_i, and estimates o by the cosine of the parts of k* and w that it
    has read: after n reads it is exact. kernel_test: [test, n]. The accuracy is a mean over random orders.
    """
    n, exact = len(weights), kernel_test @ weights / np.linalg.norm(kernel_test, axis=1) / np.linalg.norm(weights)
    noiseless = np.array([np.mean((exact > t) == (label > 0)) for t in thresholds])
    accuracy = np.zeros((len(thresholds), n))
    for _ in range(PERMUTATIONS):
        order = rng.permutation(n)
        k, w = kernel_test[:, order], weights[order]
        norms = np.sqrt(np.cumsum(k**2, axis=1) * np.cumsum(w**2))
        estimates = np.cumsum(k * w, axis=1) / np.where(norms > 0, norms, 1)  # [test, n]
        for row, t in zip(accuracy, thresholds, strict=True):
            row += np.mean((estimates > t) == (label > 0)[:, None], axis=0) / PERMUTATIONS
    accuracy[:, -1] = noiseless  # in any order
    below = accuracy < share * noiseless[:, None] - 1e-12
    return np.where(below.any(axis=1), n - np.argmax(below[:, ::-1], axis=1) + 1, 1).astype(float)


# ----------------------------------------------------------------------------------------------------------------------
# [AKP]: one weight from the neighbourhood of its row
# ----------------------------------------------------------------------------------------------------------------------


def series_operations(matrix: scipy.sparse.csr_array, length: float) -> float:
    """Of the same series for all weights at once: n divisions, then two a non-zero entry off the diagonal and n a term.

    NaN for a length NaN. matrix: [n, n], with a full diagonal.
    """
    n = matrix.shape[0]
    return n + length * (2 * (matrix.nnz - n) + n)


def dominance(matrix: Matrix) -> Array:
    """Sum of the magnitudes off the diagonal over the diagonal's, by row: below 1 where it dominates. [n]"""
    magnitude = abs(matrix)
    diagonal = magnitude.diagonal()
    with np.errstate(divide="ignore"):
        return (magnitude.sum(axis=1) - diagonal) / diagonal


def jacobi_radius(matrix: Matrix) -> float:
    """Spectral radius of E = D^-1 K~ - 1, D the diagonal of K~; inf where D is not positive."""
    diagonal = matrix.diagonal()
    if not np.all(diagonal > 0):
        return math.inf
    root = np.sqrt(diagonal)
    if isinstance(matrix, np.ndarray):
        return float(np.abs(np.linalg.eigvalsh(matrix / root / root[:, None]) - 1).max())
    scale = scipy.sparse.diags_array(1 / root)
    rest = scale @ matrix @ scale - scipy.sparse.eye_array(len(root))
    start = np.random.default_rng(0).random(len(root))
    farthest = scipy.sparse.linalg.eigsh(rest, k=1, which="LM", return_eigenvectors=False, v0=start)
    return float(abs(farthest[0]))


def local_solve(
    matrix: Matrix, y: Array, error: float, radius: float, followed: NDArray[np.intp] | None = None
) -> tuple[Array, Array, Array, float]:
    """All weights as the local solver finds each alone, what it reads for each, and the length of its series.

    With D the diagonal and E = D^-1 K~ - 1, w = sum_l (-E)^l D^-1 y, cut at l = L. radius: of `jacobi_radius`, given
    as kappa is to the quantum solvers. D^1/2 E D^-1/2 is symmetric: |rest| <= radius^(L+1) sqrt(max D/min D) |w|, and L
    is the smallest for which that is `error` times |w|. (-E)^l y at i needs the rows of the neighbourhood of i up to
    distance l - 1, so that the cut series is exact there. followed: the i [m] whose neighbourhoods are followed, by
    default all. Returns (weights [n], distinct entries of K~ read for each i [m], operations for each i [m], L), NaN
    where radius >= 1, for which the series diverges.
    """
    n, diagonal = len(y), matrix.diagonal()
    followed = np.arange(n) if followed is None else followed
    if not radius < 1:
        return np.full(n, np.nan), np.full(len(followed), np.nan), np.full(len(followed), np.nan), np.nan
    goal = math.log(error) - math.log(diagonal.max() / diagonal.min()) / 2
    length = max(0, math.ceil(goal / math.log(radius) - 1e-12) - 1) if radius > 0 else 0
    rest = off_diagonal(matrix, diagonal)
    start = weights = y / diagonal
    for _ in range(length):
        weights = start - rest @ weights
    return weights, *neighbourhoods(rest, followed, length), float(length)


def neighbourhoods(
    rest: scipy.sparse.csr_array, followed: NDArray[np.intp], length: int
) -> tuple[Array, Array]:
    """Entries of K~ that a series of this length reads for each i in followed [m], and its operations. [m], [m]

    rest: E [n, n].
    """
    per_row = np.diff(rest.indptr) + 1.0  # with the diagonal
    reach = np.zeros((len(followed), rest.shape[0]), bool)  # [i, rows within the distance of i]
    reach[np.arange(len(followed)), followed] = True
    entries, operations = np.ones(len(followed)), np.ones(len(followed))  # of length 0: K_ii, one division
    linked = (rest != 0).astype(float)
    is_growing = True
    for _ in range(length):
        entries = reach @ per_row
        operations += 2 * entries
        if is_growing:
            before, reach = reach, reach | (reach.astype(float) @ linked > 0)
            rim = np.count_nonzero(reach & ~before, axis=1)
            entries = entries + rim  # the diagonal at the rim
            is_growing = bool(rim.any())
    return entries, operations + np.count_nonzero(reach, axis=1) - 1


def off_diagonal(matrix: Matrix, diagonal: Array) -> scipy.sparse.csr_array:
    """E = D^-1 K~ - 1 of K~ = matrix [n, n] with the diagonal D [n]."""
    if isinstance(matrix, np.ndarray):
        n = len(diagonal)
        return scipy.sparse.csr_array((matrix / diagonal[:, None]) * ~np.eye(n, dtype=bool))
    rows = matrix.tocoo()
    off = rows.row != rows.col
    values = rows.data[off] / diagonal[rows.row[off]]
    return scipy.sparse.csr_array((values, (rows.row[off], rows.col[off])), shape=matrix.shape)
