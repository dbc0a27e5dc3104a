"""Eigenvalues and solutions of symmetric matrices, dense or sparse, and what is doubtful about them."""

import warnings
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Matrix: TypeAlias = "Array | scipy.sparse.csr_array"

condition_limit = 1e12  # matrices of a larger condition number are flagged


def extreme_eigenvalues(matrix: Matrix) -> tuple[float, float, float]:
    """(lowest, smallest magnitude, largest magnitude) of the eigenvalues of a symmetric matrix, dense or sparse."""
    if not isinstance(matrix, scipy.sparse.csr_array) or is_diagonal(matrix):
        eigenvalues = matrix.diagonal() if is_diagonal(matrix) else scipy.linalg.eigvalsh(matrix)
        return eigenvalues.min(), np.abs(eigenvalues).min(), np.abs(eigenvalues).max()
    start = np.random.default_rng(0).random(matrix.shape[0])

    def lanczos(**which: Any) -> float:
        try:
            return scipy.sparse.linalg.eigsh(matrix, k=1, return_eigenvectors=False, v0=start, **which)[0]
        except scipy.sparse.linalg.ArpackNoConvergence:
            return np.nan

    try:
        factors = scipy.sparse.linalg.splu(matrix.T)  # the transpose of csr is the csc that it wants
        inverse = scipy.sparse.linalg.LinearOperator(matrix.shape, factors.solve, dtype=matrix.dtype)
    except RuntimeError:  # exactly singular
        return min(lanczos(which="SA"), 0.0), 0.0, abs(lanczos(which="LM"))
    closest = lanczos(sigma=0, OPinv=inverse)  # to zero
    return min(lanczos(which="SA"), closest), abs(closest), abs(lanczos(which="LM"))


def is_diagonal(matrix: Matrix) -> bool:
    """Whether a sparse matrix holds its diagonal and nothing else."""
    if not isinstance(matrix, scipy.sparse.csr_array):
        return False
    n = matrix.shape[0]
    return matrix.nnz == n and np.array_equal(matrix.indices, np.arange(n)) and np.array_equal(matrix.indptr, np.arange(n + 1))


def entries_at(kernel: Matrix, i: NDArray, j: NDArray) -> Array:
    """The entries (i, j) [m] of a kernel [n, n], dense or sparse.

    Raises KeyError where a sparse one does not store one: that is not a zero but unknown.
    """
    if not isinstance(kernel, scipy.sparse.csr_array):
        return kernel[i, j]
    n = kernel.shape[0]
    rows = np.repeat(np.arange(n), np.diff(kernel.indptr))
    stored = rows * n + kernel.indices
    asked = np.asarray(i, np.int64) * n + j
    places = np.minimum(np.searchsorted(stored, asked), len(stored) - 1)
    unknown = np.flatnonzero(stored[places] != asked)
    if unknown.size:
        first = i[unknown[0]], j[unknown[0]]
        raise KeyError(f"{unknown.size} entries of the kernel were not computed, the first one {first}")
    return kernel.data[places]


def condition_number(matrix: Matrix, eigenvalues: tuple[float, float, float] | None = None) -> float:
    """Largest over smallest |eigenvalue| of a symmetric matrix, or from its `extreme_eigenvalues`; inf if singular."""
    _, smallest, largest = extreme_eigenvalues(matrix) if eigenvalues is None else eigenvalues
    return np.inf if smallest == 0 else largest / smallest


def numerical_flags(matrix: Matrix, eigenvalues: tuple[float, float, float]) -> int:
    """What is doubtful about a symmetric matrix, by its `extreme_eigenvalues`.

    The sum of 1, it is not positive definite, 2, it is singular to rounding, and 4, its condition number is above 1e12.
    """
    lowest, smallest, largest = eigenvalues
    singular = not smallest > matrix.shape[0] * np.finfo(float).eps * largest
    return 1 * (not lowest > 0) + 2 * singular + 4 * (not condition_number(matrix, eigenvalues) <= condition_limit)


def solve(matrix: Matrix, y: NDArray) -> Array:
    """matrix^-1 y of a symmetric matrix [n, n], dense or sparse, scaled to unit norm [n]; NaN if it is singular."""
    try:
        with warnings.catch_warnings(action="ignore"):  # the condition number is reported anyway
            if is_diagonal(matrix):
                weights = y / matrix.diagonal()
            elif isinstance(matrix, scipy.sparse.csr_array):
                weights = scipy.sparse.linalg.spsolve(matrix.tocsc(), y)
            else:
                weights = scipy.linalg.solve(matrix, y, assume_a="sym")
    except scipy.linalg.LinAlgError:
        return np.full(len(y), np.nan)
    return weights / np.linalg.norm(weights)
