"""Eigenvalues and solutions of symmetric matrices, dense or sparse, and what to doubt in them."""

import functools
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
residual_limit = 1e-12  # of conjugate gradients, in units of the right-hand side
most_iterations = 200  # of conjugate gradients, else the matrix is factorised; 30 where kappa is 7
largest_enlargement = 1e6  # of a vector by matrix^-1 max|matrix|, else the matrix is factorised


def extreme_eigenvalues(matrix: Matrix) -> tuple[float, float, float]:
    """(lowest, smallest magnitude, largest magnitude) of a symmetric matrix's eigenvalues.

    Of a sparse matrix by Lanczos iterations with the matrix and with its inverse; NaN where they do
    not converge.
    """
    if not isinstance(matrix, scipy.sparse.csr_array) or is_diagonal(matrix):
        eigenvalues = matrix.diagonal() if is_diagonal(matrix) else scipy.linalg.eigvalsh(matrix)
        return eigenvalues.min(), np.abs(eigenvalues).min(), np.abs(eigenvalues).max()
    start = np.random.default_rng(0).random(matrix.shape[0])

    def lanczos(**which: Any) -> float:
        try:
            eigenvalues = scipy.sparse.linalg.eigsh(
                matrix, k=1, return_eigenvectors=False, v0=start, **which
            )
            return eigenvalues[0]
        except scipy.sparse.linalg.ArpackNoConvergence:
            return np.nan

    lowest, largest = lanczos(which="SA"), abs(lanczos(which="LM"))
    try:
        inverse = scipy.sparse.linalg.LinearOperator(
            matrix.shape, SparseInverse(matrix, start), dtype=matrix.dtype
        )
    except SingularMatrix:
        return min(lowest, 0.0), 0.0, largest
    closest = lanczos(sigma=0, OPinv=inverse)  # to zero
    return min(lowest, closest), abs(closest), largest


def is_diagonal(matrix: Matrix) -> bool:
    """Whether a sparse matrix holds its diagonal and nothing else."""
    if not isinstance(matrix, scipy.sparse.csr_array):
        return False
    n = matrix.shape[0]
    one_a_row = np.array_equal(matrix.indptr, np.arange(n + 1))
    return one_a_row and np.array_equal(matrix.indices, np.arange(n))


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
        what = f"{unknown.size} entries of the kernel were not computed, the first one {first}"
        raise KeyError(what)
    return kernel.data[places]


def condition_number(
    matrix: Matrix, eigenvalues: tuple[float, float, float] | None = None
) -> float:
    """Largest over smallest |eigenvalue| of a symmetric matrix; inf if singular.

    eigenvalues: its `extreme_eigenvalues`, where they are known.
    """
    _, smallest, largest = extreme_eigenvalues(matrix) if eigenvalues is None else eigenvalues
    return np.inf if smallest == 0 else largest / smallest


def numerical_flags(matrix: Matrix, eigenvalues: tuple[float, float, float]) -> int:
    """What is doubtful about a symmetric matrix, by its `extreme_eigenvalues`.

    The sum of 1, it is not positive definite, 2, it is singular to rounding, and 4, its condition
    number is above 1e12.
    """
    lowest, smallest, largest = eigenvalues
    singular = not smallest > matrix.shape[0] * np.finfo(float).eps * largest
    ill_conditioned = not condition_number(matrix, eigenvalues) <= condition_limit
    return 1 * (not lowest > 0) + 2 * singular + 4 * ill_conditioned


def solve(matrix: Matrix, y: NDArray) -> Array:
    """matrix^-1 y of a symmetric matrix [n, n], scaled to unit norm [n]; NaN if it is singular."""
    try:
        with warnings.catch_warnings(action="ignore"):  # the condition number is reported anyway
            if is_diagonal(matrix):
                weights = y / matrix.diagonal()
            elif isinstance(matrix, scipy.sparse.csr_array):
                weights = SparseInverse(matrix, y)(y)
            else:
                weights = scipy.linalg.solve(matrix, y, assume_a="sym")
    except scipy.linalg.LinAlgError:
        return np.full(len(y), np.nan)
    return weights / np.linalg.norm(weights)


class SingularMatrix(scipy.linalg.LinAlgError):
    """A sparse matrix that has no inverse."""


class SparseInverse:
    """A function of y [n] that gives matrix^-1 y [n], of a sparse symmetric matrix [n, n].

    By conjugate gradients where these solve the equation with a first right-hand side b [n], and
    else by factors, which random patterns fill: 11 % of [n, n] at nine entries a row. Raises
    SingularMatrix.
    """

    def __init__(self, matrix: scipy.sparse.csr_array, b: NDArray) -> None:
        self.matrix = matrix
        self.iterates = False
        weights = conjugate_gradients(matrix, b)
        if weights is not None:
            enlargement = np.linalg.norm(weights) / np.linalg.norm(b) * np.abs(matrix).max()
            self.iterates = bool(enlargement < largest_enlargement)
        if not self.iterates:
            _ = self.factors  # now, so that a singular matrix is noticed here

    @functools.cached_property
    def factors(self) -> scipy.sparse.linalg.SuperLU:
        """Of the transpose of csr, which is the csc that splu wants."""
        try:
            return scipy.sparse.linalg.splu(self.matrix.T, permc_spec="MMD_AT_PLUS_A")
        except RuntimeError as error:
            raise SingularMatrix(str(error)) from error

    def __call__(self, y: NDArray) -> Array:
        """matrix^-1 y."""
        weights = conjugate_gradients(self.matrix, y) if self.iterates else None
        return self.factors.solve(np.asarray(y, float)) if weights is None else weights


def conjugate_gradients(matrix: scipy.sparse.csr_array, y: NDArray) -> Array | None:
    """matrix^-1 y to `residual_limit`, or None where `most_iterations` don't get there."""
    with np.errstate(all="ignore"):  # an indefinite matrix may lead to infinity
        weights, _ = scipy.sparse.linalg.cg(matrix, y, rtol=residual_limit, maxiter=most_iterations)
        residual = np.linalg.norm(matrix @ weights - y) / np.linalg.norm(y)
    # Rounding adds to the residual that cg itself follows.
    return weights if residual < 2 * residual_limit else None


def closest_pair(x: Array) -> tuple[float, tuple[int, int]]:
    """The largest |x_i . x_j|, i != j, of vectors x [n, d], and the pair (i, j) that it is of."""
    largest = 0.0
    pair = (0, 0)
    for start in range(0, len(x), 1024):  # some rows at a time, so that memory stays small
        rows = x[start : start + 1024]
        products = np.abs(rows @ x.T)
        np.fill_diagonal(products[:, start:], 0)
        place = int(products.argmax())
        row, column = divmod(place, len(x))
        if products[row, column] > largest:
            largest = float(products[row, column])
            pair = (start + row, column)
    return largest, pair
