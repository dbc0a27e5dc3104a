"""Classical competitors of the quantum prediction: the same o = <k*|w>, or only its sign, and what
they read.

Sources: [AKP] Andoni, Krauthgamer, Pogrow, arXiv:1809.02995. [Tang] arXiv:1807.04271, on sampling
as the classical counterpart of a state in QRAM. [Wald] Ann. Math. Stat. 16, 117 (1945). [Serfling]
Ann. Stat. 2, 39 (1974), on sums without replacement. Yao, Rosasco, Caponnetto, Constr. Approx. 26,
289 (2007), on early stopping.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from quantum import sequential, solvers

Array = NDArray[np.float64]
Matrix: TypeAlias = "NDArray[np.float64] | scipy.sparse.csr_array"

ORDERS = 6  # random orders in which the sampler reads k*
LOOKS = 1024  # times at most that it looks whether its sum is clear, evenly over the n reads
SAMPLER_LOG_ODDS = np.geomspace(0.02, 20, 40)  # ln((1 - error)/error) that are tried
# Of an entry read: it adds to the sum of k w; for t, of k^2 and w^2 too.
SAMPLER_OPERATIONS = {
    "calibrated": 6,
    "test median": 6,
    "zero": 2,
}


def cholesky_operations(n: int) -> float:
    """Of the factor, n^3/3, and two triangular solves, n^2 each."""
    return n**3 / 3 + 2 * n**2


def conjugate_gradient_iterations(
    matrix: scipy.sparse.csr_array, y: Array, exact: Array, error: float
) -> float:
    """Iterations until x/|x| is within `error` of the unit vector `exact`; NaN if not in 10 n.
    matrix: [n, n]
    """
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


def partial_cosines(kernel_test: Array, weights: Array, order: NDArray[np.intp]) -> Array:
    """Cosine of what is known of k* and w after 1, 2, ..., n reads in that order. [test, n]"""
    k, w = kernel_test[:, order], weights[order]
    norms = np.sqrt(np.cumsum(k**2, axis=1) * np.cumsum(w**2))
    return np.cumsum(k * w, axis=1) / np.where(norms > 0, norms, 1)


def entry_variance(kernel_test: Array, weights: Array) -> float:
    """Variance of n k_i w_i/(|k| |w|), i uniform, in the mean over the images; 1 - o^2 for entries
    of +1 and -1.
    """
    scaled = kernel_test * weights * len(weights)
    scaled = scaled / np.linalg.norm(kernel_test, axis=1)[:, None] / np.linalg.norm(weights)
    return float(np.mean(np.var(scaled, axis=1)))


def looks(n: int) -> NDArray[np.int64]:
    """The numbers of reads, 1 to n, after which the sampler looks whether its sum is clear."""
    return np.unique(np.ceil(np.linspace(0, n, min(n, LOOKS) + 1)[1:]).astype(np.int64))


def partial_sums(kernel_test: Array, weights: Array, t: float, rng: np.random.Generator) -> Array:
    """Sums m (estimate of o - t) after m reads, at each of the `looks`. [orders, test, looks]

    The last one, which is exact, is +1 or -1 times infinity: nothing is clearer.
    """
    n = len(weights)
    reads = looks(n)
    sums = np.empty((ORDERS, len(kernel_test), len(reads)))
    for order in range(ORDERS):
        estimates = partial_cosines(kernel_test, weights, rng.permutation(n))
        sums[order] = reads * (estimates[:, reads - 1] - t)
    sums[:, :, -1] = np.where(sums[0, :, -1] > 0, np.inf, -np.inf)
    return sums


def sequential_samples(
    kernel_test: Array,
    weights: Array,
    label: Array,
    t: float,
    calibration: sequential.Mask,
    share: float,
    rng: np.random.Generator,
) -> sequential.Reading:
    """A sampler without replacement that stops an image as soon as its partial sum is clear.

    It draws i uniformly, no i twice, reads k_i and w_i, and estimates o by the cosine of the parts
    of k* and w that it has read. kernel_test: [test, n]. After m reads the sum m (estimate - t) has
    a drift of o - t and a variance of `entry_variance` a read, so that the sign is clear at a
    stated error where its magnitude reaches ln((1 - error)/error) variance/(2 d): [Wald] for normal
    numbers, the rule of `sequential.wald_test`, with the same d. Reads without replacement spread
    less, [Serfling]. Error and most reads are the cheapest that have `share` of the noiseless
    accuracy on the calibration half, in the mean over ORDERS. After n reads the sign is the exact
    one. `spent`, `last` and `fixed` are in reads.
    """
    n = len(weights)
    overlap = partial_cosines(kernel_test, weights, np.arange(n))[:, -1]
    distance = max(sequential.typical_distance(overlap, t, calibration), 1e-9)
    variance = entry_variance(kernel_test[calibration], weights)
    boundaries = SAMPLER_LOG_ODDS * variance / (2 * distance)
    sums = partial_sums(kernel_test, weights, t, rng)
    goal = sequential.calibration_goal(overlap, label, t, calibration, share)
    reads = looks(n).astype(float)
    lasts = np.unique(np.ceil(len(reads) * 2 ** (-np.arange(8) / 4)).astype(int)) - 1
    rules = SAMPLER_LOG_ODDS, boundaries, lasts.tolist()
    return sequential.cheapest_reading(sums, label, reads, calibration, goal, *rules)


def sampling_operations(reads: Array, per_read: float, local: Array, series: float) -> Array:
    """Operations of an image for which the sampler reads so many entries and finds their weights
    too. [test]

    local: of one weight alone [n], a read takes their mean; series: of all at once, by
    `series_operations`. Which of the two is decided beforehand, by what is cheaper on average.
    per_read: of SAMPLER_OPERATIONS.
    """
    solve = reads * np.mean(local) if np.mean(reads) * np.mean(local) <= series else series
    return per_read * reads + solve


# --------------------------------------------------------------------------------------------------
# [AKP]: one weight from the neighbourhood of its row
# --------------------------------------------------------------------------------------------------


def series_operations(matrix: scipy.sparse.csr_array, length: float) -> float:
    """Of the same series for all weights at once: n divisions, then two a non-zero entry off the
    diagonal and n a term.

    NaN for a length NaN. matrix: [n, n], with a full diagonal.
    """
    n = matrix.shape[0]
    return n + length * (2 * (matrix.nnz - n) + n)


def dominance(matrix: Matrix) -> Array:
    """Sum of the magnitudes off the diagonal over the diagonal's, by row: below 1 where it
    dominates. [n]
    """
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


def series_length(diagonal: Array, error: float, radius: float) -> int:
    """The smallest L for which radius^(L + 1) sqrt(max D/min D) is at most `error`, for a radius
    below 1.
    """
    goal = math.log(error) - math.log(diagonal.max() / diagonal.min()) / 2
    return max(0, math.ceil(goal / math.log(radius) - 1e-12) - 1) if radius > 0 else 0


def local_solve(
    matrix: Matrix,
    y: Array,
    error: float,
    radius: float,
    followed: NDArray[np.intp] | None = None,
) -> tuple[Array, Array, Array, float]:
    """All weights as the local solver finds each alone, what it reads for each, and the length of
    its series.

    With D the diagonal and E = D^-1 K~ - 1, w = sum_l (-E)^l D^-1 y, cut at l = L. radius: of
    `jacobi_radius`, given as kappa is to the quantum solvers. D^1/2 E D^-1/2 is symmetric: |rest|
    <= radius^(L+1) sqrt(max D/min D) |w|, and L is the smallest for which that is `error` times
    |w|. (-E)^l y at i needs the rows of the neighbourhood of i up to distance l - 1, so that the
    cut series is exact there. followed: the i [m] whose neighbourhoods are followed, by default
    all. Returns (weights [n], distinct entries of K~ read for each i [m], operations for each i
    [m], L), NaN where radius >= 1, for which the series diverges.
    """
    n, diagonal = len(y), matrix.diagonal()
    followed = np.arange(n) if followed is None else followed
    if not radius < 1:
        unknown = np.full(len(followed), np.nan)
        return np.full(n, np.nan), unknown, unknown, np.nan
    length = series_length(diagonal, error, radius)
    rest = off_diagonal(matrix, diagonal)
    start = weights = y / diagonal
    for _ in range(length):
        weights = start - rest @ weights
    return weights, *neighbourhoods(rest, followed, length), float(length)


def solver_costs(
    matrix: Matrix,
    y: Array,
    exact: Array,
    epsilon: float,
    radius: float,
    followed: NDArray[np.intp] | None,
) -> tuple[dict[str, Any], Array]:
    """What finding the weights of K~ = matrix within epsilon of the unit vector `exact` [n] costs.

    The local solver finds single weights, or all at once (series_operations); conjugate gradients
    find all of them (anew). radius, followed: of `local_solve`. Returns values, among them the
    local solver's weights [n], and its operations for each weight that is followed [m].
    """
    sparse, error = scipy.sparse.csr_array(matrix), solvers.relative_error(epsilon)
    weights, entries, operations, length = local_solve(matrix, y, error, radius, followed)
    iterations = conjugate_gradient_iterations(sparse, y, exact, epsilon)
    values = {
        "weights": weights,
        "local_length": length,
        "local_entries": entries.mean(),
        "local_operations": operations.mean(),
        "local_error": np.linalg.norm(weights / np.linalg.norm(weights) - exact),
        "series_operations": series_operations(sparse, length),
        "iterations": iterations,
        "anew": conjugate_gradient_operations(sparse, iterations),
    }
    return values, operations


def neighbourhoods(
    rest: scipy.sparse.csr_array, followed: NDArray[np.intp], length: int
) -> tuple[Array, Array]:
    """What a series of this length reads for each i in followed [m].

    rest: E [n, n]. Returns (entries of K~ [m], operations [m]).
    """
    per_row = np.diff(rest.indptr) + 1.0  # with the diagonal
    reach = np.zeros((len(followed), rest.shape[0]), bool)  # [i, rows within the distance of i]
    reach[np.arange(len(followed)), followed] = True
    entries = np.ones(len(followed))  # of length 0: the own diagonal entry
    operations = np.ones(len(followed))  # and one division
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


# --------------------------------------------------------------------------------------------------
# Rivals of K~ from the exact NTK: 2n operations a prediction, once their weights are known
# --------------------------------------------------------------------------------------------------


def filtered_outputs(
    kernel_train: Array, kernel_test: Array, y: Array, inverses: Callable[[Array], Array]
) -> Array:
    """k*' g(K) y for several functions g of the eigenvalues. [parameters, test]

    inverses: g of the eigenvalues [n], [parameters, n]; 1/eigenvalue for the exact NTK.
    """
    eigenvalues, vectors = scipy.linalg.eigh(kernel_train)
    return inverses(eigenvalues) * (vectors.T @ y) @ (kernel_test @ vectors).T


def ridge(kernel_train: Array, kernel_test: Array, y: Array, parameters: Array) -> Array:
    """Outputs k*' (K + r d)^-1 y of ridge regression, d the mean of K's diagonal. [parameters,
    test]

    parameters: r [parameters]. K~ of the convolutional network enlarges its diagonal by a factor of
    its own.
    """
    added = np.asarray(parameters)[:, None] * np.mean(np.diag(kernel_train))
    return filtered_outputs(kernel_train, kernel_test, y, lambda e: 1 / (e + added))


def gradient_flow(kernel_train: Array, kernel_test: Array, y: Array, parameters: Array) -> Array:
    """Outputs k*' K^-1 (1 - exp(-time K)) y of a network trained for a while. [parameters, test]

    parameters: time in units of one over K's largest eigenvalue [parameters].
    """

    def inverses(eigenvalues: Array) -> Array:
        time = np.asarray(parameters)[:, None] / eigenvalues[-1]
        safe = np.where(eigenvalues == 0, 1, eigenvalues)
        return np.where(eigenvalues == 0, time, -np.expm1(-time * safe) / safe)

    return filtered_outputs(kernel_train, kernel_test, y, inverses)


def nearest_neighbours(
    kernel_train: Array, kernel_test: Array, y: Array, parameters: Array
) -> Array:
    """Mean label of the nearest training images, in the kernel's distance K_ii - 2 k_i.
    [parameters, test]

    parameters: numbers of neighbours [parameters]; all n where there are fewer.
    """
    nearest = np.argsort(np.diag(kernel_train) - 2 * kernel_test, axis=1, kind="stable")
    means = np.cumsum(y[nearest], axis=1) / np.arange(1, len(y) + 1)  # [test, n]
    numbers = np.minimum(np.asarray(parameters, int), len(y))
    return means[:, numbers - 1].T


# The weakest first: of equals the one that is closest to the exact NTK is taken.
RIVALS: dict[str, tuple[Callable[[Array, Array, Array, Array], Array], Array]] = {
    "ridge": (ridge, np.geomspace(1e-4, 100, 25)),
    "gradient flow": (gradient_flow, np.geomspace(1e6, 1, 25)),
    "nearest neighbours": (nearest_neighbours, np.array([1, 3, 5, 9, 17])),
}


def best_parameter(
    outputs: Array, label: Array, calibration: sequential.Mask
) -> tuple[int, float, float]:
    """The row of outputs [parameters, test] that is most accurate on the calibration half.

    At 0 or at the median of its calibration half, whichever is better there; the first of equals.
    Returns (row, threshold, accuracy on the other half).
    """
    best = (0, 0.0, -1.0)
    for threshold in (np.zeros(len(outputs)), np.median(outputs[:, calibration], axis=1)):
        right = (outputs > threshold[:, None]) == (label > 0)
        accuracy = right[:, calibration].mean(axis=1)
        row = int(np.argmax(accuracy))
        if accuracy[row] > best[2]:
            best = row, float(threshold[row]), float(accuracy[row])
    row, level, _ = best
    return (
        row,
        level,
        float(np.mean((outputs[row] > level)[~calibration] == (label > 0)[~calibration])),
    )
