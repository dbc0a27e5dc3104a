"""Readout against the binomial distribution and explicit superpositions.

Classical competitors.
"""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.stats

from quantum import assumptions, classical, readout, solvers
from runtime.linear_algebra import solve

OVERLAP = np.array([-0.3, -0.05, 0.02, 0.1, 0.4])
LABEL = np.array([-1, -1, 1, 1, 1])

# --------------------------------------------------------------------------------------------------
# Shots
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0, 0.02, -0.5])
@pytest.mark.parametrize("m", [1, 2, 7, 100, 5001])
def test_probability_above_is_the_binomial_sum(t, m):
    for o in OVERLAP:
        weights = scipy.stats.binom.pmf(np.arange(m + 1), m, (1 + o) / 2)
        estimates = 2 * np.arange(m + 1) / m - 1
        expected = (
            weights[estimates > t + 1e-12].sum() + weights[np.abs(estimates - t) <= 1e-12].sum() / 2
        )
        assert readout.probability_above(o, t, m) == pytest.approx(expected, abs=1e-12)


def test_probability_above_at_the_ends():
    assert readout.probability_above(np.array([-1.0, 1.0]), 0, 10).tolist() == [0, 1]
    assert readout.probability_above(np.array([0.3]), 1, 10) == pytest.approx(0.65**10 / 2)
    assert readout.probability_above(np.array([0.3]), -1, 10) == pytest.approx(1 - 0.35**10 / 2)


def test_accuracy_of_shots_is_that_of_drawn_ones():
    rng = np.random.default_rng(5)
    for t, m in ((0, 1), (0, 30), (0.021, 1000)):
        ones = rng.binomial(m, (1 + OVERLAP) / 2, size=(20000, 5))
        above = (2 * ones / m - 1 > t + 1e-12) + 0.5 * (np.abs(2 * ones / m - 1 - t) < 1e-12)
        drawn = np.mean(np.where(LABEL > 0, above, 1 - above))
        assert readout.accuracy_of_shots(OVERLAP, LABEL, t, m) == pytest.approx(
            drawn, abs=5 * 0.5 / np.sqrt(1e5)
        )


@pytest.mark.slow
def test_shots_needed_is_where_the_share_is_reached():
    for share in (0.8, 0.95, 0.99):
        found = int(readout.shots_needed(OVERLAP, LABEL, 0, share))
        assert readout.noiseless_accuracy(OVERLAP, LABEL, 0) == 1
        accuracy = [readout.accuracy_of_shots(OVERLAP, LABEL, 0, m) for m in range(1, 4 * found)]
        assert accuracy[found - 1] >= share > accuracy[found - 2]
        # But for the steps that odd and even numbers make.
        assert min(accuracy[found - 1 :]) >= share - 0.02
    # 99 % of images at 0.02 alone: the normal distribution's (2.326/0.02)^2
    one = readout.shots_needed(np.array([0.02]), np.array([1]), 0, 0.99)
    assert one == pytest.approx((scipy.stats.norm.ppf(0.99) / 0.02) ** 2, rel=0.01)


def test_shots_needed_at_its_ends():
    assert readout.shots_needed(np.array([1.0, -1.0]), np.array([1, -1]), 0, 0.99) == 1
    # A half, and it stays.
    assert readout.shots_needed(np.array([0.5, 0.5]), np.array([1, -1]), 0, 0.99) == 1
    assert readout.shots_needed(np.array([1e-6]), np.array([1]), 0, 0.99) == math.inf


# --------------------------------------------------------------------------------------------------
# What a shot costs
# --------------------------------------------------------------------------------------------------


def branch(state, probability, rng):
    """A unitary's first column.

    Sqrt(P)|state>|0> + sqrt(1 - P)|rest>|1>, [2n], with some other state beside.
    """
    rest = rng.standard_normal(len(state))
    return np.concatenate(
        [np.sqrt(probability) * state, np.sqrt(1 - probability) * rest / np.linalg.norm(rest)]
    )


def grover(column, rounds, n):
    """Amplification of the flag's |0> by explicit reflections."""
    state = column
    for _ in range(rounds):
        state = np.concatenate([-state[:n], state[n:]])
        state = 2 * column * (column @ state) - state
    return state * (-1) ** rounds if (state[:n] @ column[:n]) * 1 < 0 else state


@pytest.mark.parametrize("rounds", [(0, 0), (1, 0), (1, 2)])
def test_a_shot_takes_half_the_sum_of_the_runs(rounds):
    """The Hadamard test as a state vector: kept with 2pP/(p + P), and 0 with (1 + o)/2."""
    rng = np.random.default_rng(0)
    w, k = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 8)))
    p, post = 0.06, 0.01
    branches = [
        grover(branch(s, q, rng), m, 8) for s, q, m in ((w, p, rounds[0]), (k, post, rounds[1]))
    ]
    amplified = [np.linalg.norm(b[:8]) ** 2 for b in branches]
    np.testing.assert_allclose(
        amplified, [readout.amplified(p, rounds[0]), readout.amplified(post, rounds[1])]
    )
    weights = np.sqrt(np.array(amplified[::-1]) / np.sum(amplified))  # a^2 p = b^2 P
    kept = np.array([a * b[:8] for a, b in zip(weights, branches, strict=True)])
    kept *= np.sign([kept[0] @ w, kept[1] @ k])[:, None]  # amplification's known signs
    probability = np.sum(kept**2)
    assert readout.runs_per_shot(*amplified) == pytest.approx(1 / probability)
    # U_k alone, its flag measured: so much of the state goes on to U_w, and of that as much is kept
    # in the end
    passed = weights[0] ** 2 + weights[1] ** 2 * amplified[1]
    assert readout.uses_per_shot(*amplified) == pytest.approx(
        (passed / probability, 1 / probability)
    )
    zero = np.sum((kept[0] + kept[1]) ** 2) / 2 / probability
    assert zero == pytest.approx((1 + w @ k) / 2)


def test_runs_by_hand():
    assert readout.runs_per_shot(0.25, np.array([0.5, 1.0])).tolist() == [3, 2.5]
    # One round takes 30 degrees to 90.
    assert readout.amplified(0.25, [0, 1]) == pytest.approx([0.25, 1])
    assert readout.full_rounds(np.array([1.0, 0.95, 0.5, 0.25, 0.01])).tolist() == [0, 0, 1, 1, 8]


def test_amplified_shot_and_estimate_are_the_cheapest_of_all():
    post = np.array([0.5, 0.02, 0.003])
    for cost_w, p, cost_k in ((100, 0.07, 2), (1, 1.0, 2), (5, 0.4, 50), (100, 0.6, 2)):
        m = np.arange(30)
        kept_w, kept_k = readout.amplified(p, m), readout.amplified(post, m[:, None])
        kept_w = np.where((m > 0) & (m == readout.full_rounds(p)), 1, kept_w)
        kept_k = np.where((m[:, None] > 0) & (m[:, None] == readout.full_rounds(post)), 1, kept_k)
        uses_w, uses_k = (2 * m + 1)[:, None, None] * cost_w, (2 * m + 1)[:, None] * cost_k
        runs = readout.runs_per_shot(kept_w[:, None, None], kept_k)
        every = runs * uses_k + (1 + kept_w)[:, None, None] / (2 * kept_w[:, None, None]) * uses_w
        w, k = readout.amplified_shot(cost_w, p, cost_k, post)
        np.testing.assert_allclose(w * cost_w + k * cost_k, every.min(axis=(0, 1)), rtol=1e-9)
        w, k = readout.uses_per_shot(p, post)
        assert np.all(every.min(axis=(0, 1)) <= (w * cost_w + k * cost_k) * (1 + 1e-12))
        # estimation: both in every use, sqrt(2/K - 1) times as many, and nothing of K below 0.4
        every = np.where(runs <= 2.5, np.sqrt(2 * runs - 1) * (uses_w + uses_k), np.inf)
        w, k = readout.amplified_estimate(cost_w, p, cost_k, post)
        np.testing.assert_allclose(w * cost_w + k * cost_k, every.min(axis=(0, 1)), rtol=1e-9)
    # post-selection that is rare: x (1 + 1/sin^2 x)/2 is 1.178 at its smallest
    _, k = readout.amplified_shot(2, 1.0, 2, np.array([1e-12]))
    assert k == pytest.approx(1.178e6, rel=0.01)


@pytest.mark.parametrize("kept", [readout.LEAST_KEPT, 0.62, 0.91, 1])
def test_estimation_of_what_is_not_always_kept(kept):
    """Outcome 0 with sin^2(theta) = K (1 + o)/2: |do/dtheta| is the factor times that of K = 1."""

    def theta(o):
        return np.arcsin(np.sqrt(kept * (1 + o) / 2))

    steepness = 2e-6 / (theta(1e-6) - theta(-1e-6))
    assert readout.uses_for_kept_part(1 / kept) == pytest.approx(steepness / 2)


# --------------------------------------------------------------------------------------------------
# What is assumed known
# --------------------------------------------------------------------------------------------------


def test_bits_needed():
    assert assumptions.bits_needed(lambda b: b, 5, 20) == 5
    assert assumptions.bits_needed(lambda b: float(b != 3), 1, 20) == 4  # from which on
    assert assumptions.bits_needed(lambda b: 0.0, 1, 20) == math.inf
    np.testing.assert_allclose(
        assumptions.rounded(np.array([0.3, -2.0, 1.1]), 2, 2.0), [0.5, -2, 1]
    )


@pytest.mark.parametrize("wrong", [2, 0.5, 1])
def test_a_wrong_balance_scales_the_overlap(wrong):
    """The kept state with a^2 p = wrong b^2 P, as a vector."""
    w, k = np.array([1, 0]), np.array([0.6, 0.8])
    a, b = np.sqrt(np.array([wrong, 1]) / (wrong + 1))
    zero = np.sum((a * w + b * k) ** 2) / 2
    assert 2 * zero - 1 == pytest.approx(assumptions.unbalanced(np.array([0.6]), wrong)[0])


def test_what_unknown_numbers_cost_by_hand():
    """Two encodings; P of two images by three conventions; epsilon 0.1 and 0.2."""
    shape = 2, len(solvers.SOLVERS), 2
    uses, p = np.full(shape, np.nan), np.full(shape, np.nan)
    at = {name: solvers.SOLVERS.index(name) for name in solvers.SOLVERS}
    uses[:, at["kernel reflection"]], uses[:, at["kernel reflection, norm unknown"]] = (
        10,
        [[30, 40], [50, 60]],
    )
    uses[:, at["QSVT"]], p[:, at["QSVT"]] = [100, 20], [0.25, 0.04]
    uses[:, at["series in E"], 1] = 7
    encodings = solvers.block_encodings(np.array([[2, 0.2], [0.2, 2]]), np.array([1.0, -1.0]))
    post = np.array([[0.25, 0.01], [1, 1], [1, 0.25]])
    found = assumptions.unknown_numbers(encodings, np.array([0.1, 0.2]), uses, p, post)
    np.testing.assert_allclose(found["cost_norm_unknown"], [[3, 4], [5, 6]])
    # Uses/sqrt(p).
    np.testing.assert_allclose(found["cost_one_norm"], [[(100 / 0.5) / (20 / 0.2)]] * 2)
    # known: 3 and 17 uses, 1 and 1, 1 and 3; fixed point: ln(2/epsilon)/sqrt(P_min), no less than
    # what is known
    fixed = np.log(2 / np.array([0.1, 0.2]))[:, None] * [10, 1, 2]
    np.testing.assert_allclose(found["cost_fixed_point"], np.maximum(fixed / [10, 1, 2], 1))
    beta = encodings["I + E"].beta
    expected = [solvers.perturbation_degree(beta, solvers.relative_error(e)) for e in (0.1, 0.2)]
    assert found["cost_degrees"].tolist() == [[7, expected[0]], [7, expected[1]]]


# --------------------------------------------------------------------------------------------------
# Classical competitors
# --------------------------------------------------------------------------------------------------


def test_conjugate_gradients_by_hand():
    y = np.array([1.0, 1, 1])
    for matrix, expected in (
        (5 * np.eye(3), 1),
        (np.diag([1.0, 2, 2]), 2),
        (np.diag([1.0, 2, 4]), 3),
    ):
        exact, sparse = solve(matrix, y), scipy.sparse.csr_array(matrix)
        assert classical.conjugate_gradient_iterations(sparse, y, exact, 1e-8) == expected
    # y' K~ y = 0: it stops at once
    matrix, y = np.diag([1.0, -1]), np.ones(2)
    sparse = scipy.sparse.csr_array(matrix)
    assert np.isnan(classical.conjugate_gradient_iterations(sparse, y, solve(matrix, y), 1e-8))
    assert classical.conjugate_gradient_operations(sparse, 3) == 3 * (2 * 2 + 10 * 2)
    assert classical.cholesky_operations(3) == 27
    path = scipy.sparse.csr_array(
        np.diag([2.0] * 3) + np.diag([1.0] * 2, 1) + np.diag([1.0] * 2, -1)
    )
    assert classical.series_operations(path, 5) == 3 + 5 * (2 * 4 + 3)


def test_local_solver_reads_the_neighbourhood():
    # a path: rows 0 - 1 - 2 - 3 - 4, dominance 1/2 inside
    n = 5
    matrix = 4 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)
    y = np.array([1.0, -1, 1, 1, -1])
    np.testing.assert_allclose(classical.dominance(matrix), [0.25, 0.5, 0.5, 0.5, 0.25])
    radius = classical.jacobi_radius(matrix)
    assert radius == pytest.approx(np.cos(np.pi / 6) / 2)  # of a path
    weights, entries, operations, length = classical.local_solve(matrix, y, 0.1, radius)
    assert length == 2  # 0.433^3 = 0.081
    jacobi = y / 4
    for _ in range(2):
        jacobi = (y - (matrix - 4 * np.eye(n)) @ jacobi) / 4
    np.testing.assert_allclose(weights, jacobi)
    # row 2: its 3 entries, those of rows 1 and 3, and the diagonal of rows 0 and 4; row 0: 2 + 3 +
    # 1
    assert entries.tolist() == [6, 9, 11, 9, 6] or entries.tolist()[0::2] == [6, 11, 6]
    # steps over rows within 1 and within 0, two operations an entry, and a division for each row
    # within 2
    assert operations[2] == 2 * 9 + 2 * 3 + 5
    weights, entries, operations, length = classical.local_solve(
        3 * np.eye(4), np.ones(4), 1e-9, 0.0
    )
    assert length == 0 and entries.tolist() == [1] * 4 and operations.tolist() == [1] * 4


@pytest.mark.parametrize("error", [0.3, 1e-2, 1e-6])
def test_local_solver_keeps_its_promise(error):
    rng = np.random.default_rng(4)
    matrix = rng.uniform(-1, 1, (30, 30)) * (rng.random((30, 30)) < 0.1)
    matrix = matrix + matrix.T
    np.fill_diagonal(
        matrix, np.where(np.arange(30) % 2, 0.8, 1.5) * np.abs(matrix).sum(axis=1) + 0.1
    )
    radius = classical.jacobi_radius(matrix)
    # It converges where not every row dominates.
    assert 0.5 < radius < 1 < classical.dominance(matrix).max()
    assert radius == pytest.approx(
        np.abs(np.linalg.eigvals(matrix / np.diag(matrix)[:, None] - np.eye(30))).max()
    )
    y = np.sign(rng.standard_normal(30))
    exact = np.linalg.solve(matrix, y)
    weights, entries, _, length = classical.local_solve(matrix, y, error, radius)
    assert np.linalg.norm(weights - exact) <= error * np.linalg.norm(exact)
    assert np.all(entries <= np.count_nonzero(matrix)) and length >= 0
    matrix[0, 0] = 0.01  # the series diverges
    assert np.isnan(classical.local_solve(matrix, y, error, classical.jacobi_radius(matrix))[3])
    matrix[0, 0] = -1
    assert classical.jacobi_radius(matrix) == np.inf
