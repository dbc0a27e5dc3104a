"""Quantum linear solvers against their formulas, matrices solved by hand, and explicit unitaries."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse

import training
from quantum import solvers
from runtime.linear_algebra import solve


def random_kernel(n, rng, negative=False):
    """A symmetric sparse matrix [n, n] with a positive diagonal, or with `negative` entries, and then indefinite."""
    matrix = rng.uniform(-1 if negative else 0, 1, (n, n)) * (rng.random((n, n)) < 3 / n)
    matrix = matrix + matrix.T
    np.fill_diagonal(matrix, 0.3 if negative else 1 + matrix.sum(axis=0))
    return matrix


def encoding(matrix, y, name="sparse oracle"):
    return solvers.block_encodings(np.asarray(matrix, float), np.asarray(y, float))[name]


# --------------------------------------------------------------------------------------------------
# Polynomials
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [0.1, 1e-3, 1e-6, 1e-10])
@pytest.mark.parametrize("kappa", [1, 1.2, 2, 7, 40])
def test_series_is_within_twice_the_error(kappa, error):
    b, j0 = solvers.series_length(kappa, error)
    series = np.zeros(2 * j0 + 2)
    series[1::2] = solvers.series_coefficients(b, j0)
    x = np.geomspace(1 / kappa, 1, 2000)
    for sign in (1, -1):
        difference = np.abs(np.polynomial.chebyshev.chebval(sign * x, series) - sign / x).max()
        assert difference <= 2 * error + 1e-13 * kappa, difference


def test_series_length_is_the_papers():
    # 4 ln 200 = 21.19, 22 ln 8800 = 199.8 = 14.14^2
    assert solvers.series_length(2, 0.01) == (22, 15)
    # ln 1000 = 6.9; 7 ln 28000 = 8.47^2, but the series of (1 - (1 - x^2)^7)/x ends at T_13
    assert solvers.series_length(1, 0.001) == (7, 6)
    assert solvers.series_length(1, 0.99) == (1, 0)


def test_coefficients_are_binomial_sums():
    b = 9
    tails = [
        sum(Fraction(math.comb(2 * b, b + i), 4**b) for i in range(j + 1, b + 1)) for j in range(b)
    ]
    exact = [4 * (-1) ** j * tail for j, tail in enumerate(tails)]
    np.testing.assert_allclose(
        solvers.series_coefficients(b, b - 1), [float(e) for e in exact], rtol=1e-13
    )
    b = 10**10  # 4 P(more than b heads) = 2 (1 - P(b heads)), P(b heads) = 1/sqrt(pi b)
    np.testing.assert_allclose(
        solvers.series_coefficients(b, 0), 2 * (1 - 1 / np.sqrt(np.pi * b)), rtol=1e-9
    )


@pytest.mark.parametrize(("kappa", "degree"), [(5, 53), (15, 159), (39, 413)])
def test_inverse_polynomial_has_the_degree_it_should(kappa, degree):
    """At relative error 5e-5.

    The smallest degree, and the error is reached and equal at all its extrema.
    """
    n = solvers.inverse_steps(kappa, 5e-5)
    assert 2 * n - 1 == degree
    x = np.cos(np.linspace(0, np.pi / 2, 20001)[:-1])
    x = x[x >= 1 / kappa]
    for steps, within in ((n, True), (n - 1, False)):
        error = np.abs(1 - x * solvers.inverse_polynomial(steps, kappa, x))
        assert (error.max() <= 5e-5 * (1 + 1e-9)) == within
    signs = np.sign(1 - x * solvers.inverse_polynomial(n, kappa, x))
    # As many zeros as a Chebyshev polynomial of x^2 has.
    assert np.count_nonzero(np.diff(signs)) == n


def test_inverse_polynomial_is_a_polynomial_below_its_bound():
    n, kappa = 7, 4.0
    nodes = np.cos((np.arange(60) + 0.5) * np.pi / 60)
    series = np.polynomial.chebyshev.chebfit(nodes, solvers.inverse_polynomial(n, kappa, nodes), 30)
    assert np.abs(series[2 * n :]).max() < 1e-13 and np.abs(series[::2]).max() < 1e-13
    dense = np.abs(np.polynomial.chebyshev.chebval(np.linspace(-1, 1, 200001), series)).max()
    assert solvers.inverse_bound(n, kappa) == pytest.approx(
        dense * (1 + solvers.HEADROOM), rel=1e-8
    )
    assert 1.2 * 39 < solvers.inverse_bound(200, 39.0) < 1.7 * 39


@pytest.mark.parametrize("epsilon", [0.1, 1e-3, 1e-8])
@pytest.mark.parametrize("kappa", [1.5, 6, 60])
def test_reflection_degree_is_the_papers(kappa, epsilon):
    """(1 + O(eps)) kappa ln(2 sqrt 2/eps), give or take rounding up and kappa against 2/ln((1 + 1/k)/(1 - 1/k))."""
    degree = 2 * solvers.reflection_steps(kappa, epsilon)
    paper = kappa * math.log(2 * math.sqrt(2) / epsilon)
    assert paper * (1 - 2 * epsilon - 1 / kappa**2) - 2 <= degree <= paper * (1 + epsilon) + 2


@pytest.mark.parametrize(("degree", "radius"), [(0, 0.3), (1, 0.5), (6, 0.9)])
def test_perturbation_polynomial(degree, radius):
    e = np.linspace(-radius, radius, 2001)
    error = np.abs(1 - (1 + e) * solvers.perturbation_polynomial(degree, radius, e)).max()
    assert solvers.perturbation_degree(radius, error * (1 + 1e-9)) == degree
    assert solvers.perturbation_degree(radius, error * (1 - 1e-9)) == degree + 1
    fit = np.polynomial.polynomial.polyfit(
        e, solvers.perturbation_polynomial(degree, radius, e), degree
    )
    np.testing.assert_allclose(
        np.polynomial.polynomial.polyval(e, fit),
        solvers.perturbation_polynomial(degree, radius, e),
        atol=1e-10,
    )


def test_relative_error_is_the_angle():
    """Two unit vectors at the angle whose sine is the relative error are epsilon apart."""
    for epsilon in (1e-6, 0.1, 0.5):
        angle = math.asin(solvers.relative_error(epsilon))
        assert math.dist((1, 0), (math.cos(angle), math.sin(angle))) == pytest.approx(epsilon)


# --------------------------------------------------------------------------------------------------
# States
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", solvers.EMULATED)
@pytest.mark.parametrize("name", solvers.ENCODINGS)
@pytest.mark.parametrize("negative", [False, True])
def test_error_stays_below_the_one_asked_for(solver, name, negative):
    rng = np.random.default_rng(7)
    for n, epsilon in itertools.product((3, 10, 30), (0.1, 1e-4, 1e-9)):
        matrix, y = random_kernel(n, rng, negative), rng.standard_normal(n)
        each = encoding(matrix, y, name)
        found = solvers.prepare(solver, each, epsilon)
        if solver == "series in E" and (name == "sparse oracle" or each.beta >= 1):
            assert np.isnan(found.uses)
            continue
        assert np.linalg.norm(found.state - solve(matrix, y)) <= epsilon
        assert 0 < found.success_probability <= 1
        assert found.oracle_queries == 4 * found.uses


def test_solvers_by_hand():
    matrix, y = np.diag([2.0, 1.0]), np.ones(2)
    by_oracle = encoding(matrix, y)
    assert by_oracle.kappa == 2
    error = solvers.relative_error(0.02) / 2  # just below 0.01
    assert solvers.series_length(2, error) == (22, 15)
    series = solvers.prepare("CKS series", by_oracle, 0.02)
    # degree 31: 31 uses of the block encoding, which is 62 of T, and of four queries each
    assert (series.uses, series.oracle_queries, series.label_queries) == (31, 124, 1)
    bound = np.abs(solvers.series_coefficients(22, 15)).sum()
    # H^-1 |y> = (1, 2)/sqrt(2), of squared norm 5/2
    assert series.success_probability * bound**2 == pytest.approx(2.5, rel=0.01)
    by_qsvt = solvers.prepare("QSVT", by_oracle, 0.02)
    n = solvers.inverse_steps(2, solvers.relative_error(0.02))
    assert by_qsvt.uses == 2 * n - 1
    assert by_qsvt.success_probability * solvers.inverse_bound(n, 2) ** 2 == pytest.approx(
        2.5, rel=0.02
    )
    reflected = solvers.prepare("kernel reflection", by_oracle, 0.02)
    m = 4 / (solvers.chebyshev_outside(int(reflected.uses) // 2, (1 + 1 / 4) / (1 - 1 / 4)) + 1)
    assert (1 - m / 4 - m / (2 * math.sqrt(2))) ** 2 <= reflected.success_probability <= 1
    assert reflected.label_queries == reflected.uses
    # 56 * 2 + 1.05 * 2 * ln 50, and 1.84 * 2 + 2 ln 100
    assert solvers.prepare(
        "kernel reflection, norm unknown", by_oracle, 0.02
    ).uses == pytest.approx(120.215, abs=1e-3)
    assert solvers.prepare("adiabatic", by_oracle, 0.02).uses == pytest.approx(12.890, abs=1e-3)
    for found in (series, by_qsvt, reflected):
        np.testing.assert_allclose(found.state, np.array([1, 2]) / np.sqrt(5), atol=0.02)
    with pytest.raises(ValueError, match="use one of CKS series"):
        solvers.prepare("HHL", by_oracle, 0.02)


def test_identity_and_perturbation():
    matrix, y = np.array([[5.0, 0.01, 0], [0.01, 5, 0], [0, 0, 5]]), np.array([1.0, -1, 1])
    found = solvers.block_encodings(matrix, y)
    assert found["sparse oracle"].kappa == pytest.approx(2 * 5 / 4.99)
    assert found["I + E"].beta == pytest.approx(0.002)  # one entry 0.01/5 a row
    assert found["I + E"].kappa == pytest.approx(1.002 / 0.998)
    for name, each in found.items():
        np.testing.assert_allclose(
            each.matrix.toarray() * (10 if name == "sparse oracle" else 5.01), matrix, atol=1e-14
        )
    # |E| = 0.002: no query at a larger error, the labels themselves are the state
    free = solvers.prepare("series in E", found["I + E"], 0.0021)
    assert (free.uses, free.success_probability) == (0, 1)
    np.testing.assert_allclose(free.state, y / np.sqrt(3), atol=1e-14)
    assert solvers.prepare("series in E", found["I + E"], 0.0019).uses == 1
    assert np.isnan(solvers.prepare("series in E", found["sparse oracle"], 0.0019).uses)


def test_series_in_the_perturbation():
    """Degrees, states and success probabilities of some E that is not small."""
    rng = np.random.default_rng(2)
    for size in (0.01, 0.03, 0.06):
        matrix = np.eye(10) + size * (noise := rng.uniform(-1, 1, (10, 10))) + size * noise.T
        y = rng.standard_normal(10)
        each = encoding(matrix, y, "I + E")
        assert each.beta < 1.5
        found = solvers.prepare("series in E", each, 1e-4)
        if each.beta >= 1:
            assert np.isnan(found.uses)
            continue
        assert 1 <= found.uses < solvers.prepare("QSVT", each, 1e-4).uses
        assert np.linalg.norm(found.state - solve(matrix, y)) <= 1e-4
        # two parts, of sizes 1/(1 - beta^2) and beta/(1 - beta^2) at most where p is 1/(1 + e) up
        # to |e| = beta
        exact = np.linalg.norm(
            np.linalg.solve(matrix / np.mean(np.diag(matrix)), y / np.linalg.norm(y))
        )
        assert 0.99 * (exact * (1 - each.beta)) ** 2 <= found.success_probability <= 1


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3.7, 1e8])
@pytest.mark.parametrize("solver", solvers.EMULATED)
def test_multiples_of_the_identity(scale, solver):
    y = np.array([1.0, -1, 1, -1, 1])
    for each in solvers.block_encodings(scale * np.eye(5), y).values():
        assert each.kappa == pytest.approx(1, abs=2e-6)
        found = solvers.prepare(solver, each, 1e-4)
        if not np.isnan(found.uses):
            np.testing.assert_allclose(found.state, y / np.sqrt(5), atol=1e-12)
            assert 0 < found.success_probability <= 1


def test_indefinite_and_singular():
    # eigenvalues 3 and -1; the inverse of [[1, 2], [2, 1]] is [[-1, 2], [2, -1]]/3
    each = encoding([[1, 2], [2, 1]], [1, 0])
    assert each.kappa == pytest.approx(4)  # s max|K~| = 4, beside a smallest magnitude of 1
    for solver in ("CKS series", "QSVT", "kernel reflection"):
        found = solvers.prepare(solver, each, 1e-6)
        np.testing.assert_allclose(found.state, np.array([-1, 2]) / np.sqrt(5), atol=1e-6)
    assert solvers.block_encodings(np.ones((3, 3)), np.ones(3)) == {}
    assert list(solvers.block_encodings(np.diag([-1.0, -2]), np.ones(2))) == ["sparse oracle"]


def test_what_is_too_long_is_counted():
    each = encoding(np.diag([1.0, 1e-6]), np.ones(2))
    for solver in ("CKS series", "QSVT", "kernel reflection"):
        found = solvers.prepare(solver, each, 1e-4)
        assert (
            np.isnan(found.state).all() and found.uses > 1e6 and np.isnan(found.success_probability)
        )


# --------------------------------------------------------------------------------------------------
# The same with explicit unitaries, and their uses counted
# --------------------------------------------------------------------------------------------------


class Counted:
    """A matrix that counts how often it, or its inverse, is applied."""

    def __init__(self, matrix):
        self.matrix, self.uses = matrix, 0

    def apply(self, state, inverse=False):
        self.uses += 1
        return (self.matrix.conj().T if inverse else self.matrix) @ state


def columns_of(matrix):
    """S columns of every row: its non-zeros, then zeros. [n, s]"""
    s = training.sparsity(matrix)
    return np.argsort(matrix == 0, axis=1, kind="stable")[:, :s]


def walk_isometry(matrix):
    """T [4n^2, n] of CKS section 4: |j> -> |j> (1/sqrt s) sum over columns k of sqrt(a)|k> + sqrt(1
    - |a|)|k + n>,

    a = K~_jk/max|K~|, in two registers of 2n states, and S swaps them: T'ST = H. The roots of a < 0
    are i above the diagonal and -i below it.
    """
    n, columns = len(matrix), columns_of(matrix)
    a, j, s = matrix / np.abs(matrix).max(), np.arange(n)[:, None], columns_of(matrix).shape[1]
    assert np.all(np.diag(a) >= 0)
    entries = np.take_along_axis(a, columns, axis=1)
    phase = np.where(entries < 0, np.where(j < columns, 1j, -1j), 1)
    isometry = np.zeros((2 * n, 2 * n, n), dtype=complex)
    isometry[j, columns, j] = phase * np.sqrt(np.abs(entries) / s)
    isometry[j, columns + n, j] = np.sqrt((1 - np.abs(entries)) / s)
    return isometry.reshape(4 * n * n, n)


@pytest.mark.parametrize("negative", [False, True])
def test_series_by_the_walk_takes_twice_the_degree_of_isometries(negative):
    matrix, y = random_kernel(5, np.random.default_rng(3), negative), np.arange(1.0, 6)
    each = encoding(matrix, y)
    found = solvers.prepare("CKS series", each, 0.05)
    counted = Counted(walk_isometry(matrix))
    size = 2 * len(y)

    def swap(state):
        return state.reshape(size, size).T.ravel()

    y = y / np.linalg.norm(y)
    coefficients = solvers.series_coefficients(
        *solvers.series_length(each.kappa, solvers.relative_error(0.05) / 2)
    )
    state = swap(counted.apply(y))  # W T = S T
    x, degree, t = 0, 1, len(coefficients)
    for coefficient in coefficients:
        before = counted.uses
        # Only looked at: measured at the last degree.
        x = x + coefficient * counted.apply(state, inverse=True)
        counted.uses = before
        if degree < 2 * t - 1:
            for _ in range(2):  # W = S(2TT' - 1)
                state = swap(2 * counted.apply(counted.apply(state, inverse=True)) - state)
            degree += 2
    counted.uses += 1  # T' at the end
    assert counted.uses == 2 * degree == 2 * found.uses
    np.testing.assert_allclose(x / np.linalg.norm(x), found.state, atol=1e-12)
    bound = np.abs(coefficients).sum()
    np.testing.assert_allclose(
        np.linalg.norm(x / bound) ** 2, found.success_probability, rtol=1e-10
    )


def completed(columns):
    """An orthogonal matrix that begins with these orthonormal columns."""
    q, r = np.linalg.qr(np.hstack([columns, np.eye(len(columns))]))
    return q[:, : len(columns)] * np.where(np.diag(r) < 0, -1, 1)[: len(columns)]


class Oracle:
    """The block encoding of GSLW, Lemma 48, from oracles that count their queries. Registers: flag,
    j, k.

    positions: |j>|0> -> |j> sum over the s columns k of j |k>/sqrt(s), one query; entries: a
    rotation of the flag by K~_jk/max|K~|, two queries (compute, rotate, uncompute).
    """

    def __init__(self, matrix):
        n, columns = len(matrix), columns_of(matrix)
        uniform = np.zeros((n, n))
        np.put_along_axis(uniform, columns, 1 / np.sqrt(columns.shape[1]), axis=1)
        blocks = [completed(row[:, None]) for row in uniform]
        self.positions = np.zeros((n, n, n, n))
        for j, block in enumerate(blocks):
            self.positions[j, :, j, :] = block
        self.cosine = matrix / np.abs(matrix).max()  # [j, k]
        self.queries, self.n = 0, n

    def place(self, state, inverse=False):
        self.queries += 1
        return np.einsum("lmjk,flm->fjk" if inverse else "jklm,flm->fjk", self.positions, state)

    def rotate(self, state, inverse=False):
        self.queries += 2
        sine = np.sqrt(1 - self.cosine**2) * (-1 if inverse else 1)
        return np.array(
            [self.cosine * state[0] - sine * state[1], sine * state[0] + self.cosine * state[1]]
        )

    def apply(self, state, inverse=False):
        """U, or its inverse, on [flag 2, j, k]."""
        if inverse:
            state = self.place(state).transpose(0, 2, 1)
            return self.place(self.rotate(state, inverse=True), inverse=True)
        state = self.rotate(self.place(state)).transpose(0, 2, 1)
        return self.place(state, inverse=True)

    def start(self, vector):
        state = np.zeros((2, self.n, self.n))
        state[0, :, 0] = vector
        return state


@pytest.mark.parametrize("negative", [False, True])
def test_block_encoding_takes_four_queries(negative):
    matrix = random_kernel(6, np.random.default_rng(4), negative)
    each, oracle = encoding(matrix, np.ones(6)), Oracle(matrix)
    for inverse, j in itertools.product((False, True), range(6)):
        oracle.queries = 0
        column = oracle.apply(oracle.start(np.eye(6)[j]), inverse)[0, :, 0]
        assert oracle.queries == solvers.QUERIES_PER_USE == 4
        np.testing.assert_allclose(column, each.matrix.toarray()[:, j], atol=1e-14)
    state = oracle.apply(oracle.start(np.arange(6.0)))
    np.testing.assert_allclose(
        oracle.apply(state, inverse=True), oracle.start(np.arange(6.0)), atol=1e-13
    )


def test_series_by_the_oracle_takes_four_queries_a_degree():
    """T_m(H) from m alternate uses of U and its inverse with reflections between.

    No other query.
    """
    matrix, y = random_kernel(6, np.random.default_rng(5)), np.arange(6.0) - 2
    each, oracle = encoding(matrix, y), Oracle(matrix)
    found = solvers.prepare("CKS series", each, 0.05)
    coefficients = solvers.series_coefficients(
        *solvers.series_length(each.kappa, solvers.relative_error(0.05) / 2)
    )
    state, x = oracle.start(y / np.linalg.norm(y)), 0
    for m in range(1, int(found.uses) + 1):
        state = oracle.apply(state, inverse=m % 2 == 0)
        if m % 2:
            x = x + coefficients[m // 2] * state[0, :, 0]
        kept = oracle.start(state[0, :, 0])
        state = 2 * kept - state
    assert oracle.queries == found.oracle_queries
    np.testing.assert_allclose(x / np.linalg.norm(x), found.state, atol=1e-12)


def test_kernel_reflection_by_its_singular_values():
    """The polynomial of the singular values of G itself, and the gap that they leave."""
    matrix, y = random_kernel(8, np.random.default_rng(6), negative=True), np.arange(8.0) - 3
    each = encoding(matrix, y)
    found = solvers.prepare("kernel reflection", each, 1e-3)
    h, b = each.matrix.toarray(), y / np.linalg.norm(y)
    t = np.linalg.norm(np.linalg.solve(h, b))
    whole = np.zeros((9, 9))
    whole[:8, :8], whole[8, 8] = h, 1 / t
    b = np.append(b, 1) / np.sqrt(2)
    _, sigma, right = np.linalg.svd((np.eye(9) - np.outer(b, b)) @ whole)
    assert sigma[-1] < 1e-12 and sigma[-2] >= 1 / each.kappa * (1 - 1e-9)
    d, steps = each.kappa**-2, int(found.uses) // 2

    def chebyshev(x):
        return np.polynomial.chebyshev.Chebyshev.basis(steps)(x)

    k = (
        2 * (chebyshev((1 + d - 2 * sigma**2) / (1 - d)) + 1) / (chebyshev((1 + d) / (1 - d)) + 1)
        - 1
    )
    assert np.abs(k).max() <= 1 + 1e-9
    reflected = right.T @ (k * right[:, 8])
    np.testing.assert_allclose(
        reflected[:8] / np.linalg.norm(reflected[:8]), found.state, atol=1e-9
    )
    assert np.linalg.norm(reflected[:8]) ** 2 == pytest.approx(found.success_probability, rel=1e-9)


def test_combination_as_one_unitary():
    """PREPARE, SELECT of the powers of W, PREPARE', all as matrices.

    The amplitudes are those of g(H)/alpha.
    """
    matrix, y = np.array([[2.0, 0.7], [0.7, 1.5]]), np.array([0.6, -0.8])
    each = encoding(matrix, y)
    found = solvers.prepare("CKS series", each, 0.25)
    coefficients = solvers.series_coefficients(
        *solvers.series_length(each.kappa, solvers.relative_error(0.25) / 2)
    )
    isometry = walk_isometry(matrix).real
    swap = np.arange(16).reshape(4, 4).T.ravel()
    walk = (2 * isometry @ isometry.T - np.eye(16))[swap]
    terms, size, alpha = len(coefficients), 16, np.abs(coefficients).sum()
    # A Householder reflection takes |0> to sum_j sqrt(|c_j|/alpha) |j>.
    difference = np.sqrt(np.abs(coefficients) / alpha) - np.eye(terms)[0]
    difference /= np.linalg.norm(difference)
    prepare = np.kron(np.eye(terms) - 2 * np.outer(difference, difference), np.eye(size))
    select = np.zeros((terms, size, terms, size))
    for j, coefficient in enumerate(coefficients):
        select[j, :, j] = np.sign(coefficient) * np.linalg.matrix_power(walk, 2 * j + 1)
    unitary = prepare.T @ select.reshape(terms * size, -1) @ prepare
    np.testing.assert_allclose(unitary @ unitary.T, np.eye(terms * size), atol=1e-12)
    amplitudes = (
        isometry.T @ (unitary @ np.kron(np.eye(terms)[0], isometry @ y)).reshape(terms, size)[0]
    )
    np.testing.assert_allclose(
        np.linalg.norm(amplitudes) ** 2, found.success_probability, rtol=1e-12
    )
    np.testing.assert_allclose(amplitudes / np.linalg.norm(amplitudes), found.state, atol=1e-12)


# --------------------------------------------------------------------------------------------------
# Sparse matrices, of which only a part is decomposed
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("negative", [False, True])
def test_sparse_and_dense_matrices_give_the_same_runs(negative):
    rng = np.random.default_rng(7)
    matrix, y = random_kernel(120, rng, negative), rng.choice([-1.0, 1.0], 120)
    matrix[0, :] = matrix[:, 0] = 0
    matrix[0, 0] = 0.7  # a row of its own
    dense = solvers.block_encodings(matrix, y)
    sparse = solvers.block_encodings(scipy.sparse.csr_array(matrix), y)
    assert list(sparse) == list(dense)
    assert negative or len(sparse["I + E"].eigenvalues) < 120
    epsilons = [0.1, 1e-5]
    runs = dict(solvers.prepare_all(sparse, epsilons))
    for place, expected in solvers.prepare_all(dense, epsilons):
        run = runs[place]
        np.testing.assert_allclose(run.uses, expected.uses)
        np.testing.assert_allclose(run.success_probability, expected.success_probability, rtol=1e-6)
        np.testing.assert_allclose(run.state, expected.state, atol=1e-8)


def test_sparse_matrices_without_encodings():
    singular = scipy.sparse.csr_array(np.diag(np.append(np.zeros(1), np.ones(30))))
    assert solvers.block_encodings(singular, np.ones(31)) == {}
    scaled = solvers.block_encodings(scipy.sparse.csr_array(3 * np.eye(30)), np.ones(30))
    assert [len(encoding.eigenvalues) for encoding in scaled.values()] == [1, 1]
    assert scaled["I + E"].beta == 0
