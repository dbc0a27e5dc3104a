"""Readout against the binomial distribution, explicit superpositions, and sampled estimates.

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


# --------------------------------------------------------------------------------------------------
# Amplitude estimation
# --------------------------------------------------------------------------------------------------


def slope(uses, errors):
    return np.polyfit(np.log(uses), np.log(errors), 1)[0]


@pytest.mark.slow
def test_error_of_estimation_falls_as_one_over_the_uses_and_of_shots_as_their_root():
    rng = np.random.default_rng(1)
    overlap = np.tile([0.05, 0.3, -0.6], (300, 1))
    uses, errors = [], []
    for points, estimates in enumerate(readout.estimates_by_amplitude(overlap, 11, rng), 1):
        uses.append(readout.uses_of_schedule(points))
        errors.append(np.median(np.abs(estimates - overlap)))
        # |do/dtheta| = 2 sqrt(1 - o^2).
        spread = 2 * readout.spread(points) * np.sqrt(1 - overlap[0] ** 2)
        if points >= 7:  # no wrong peak of the likelihood is kept
            assert np.mean(np.abs(estimates - overlap) > 8 * spread) < 0.002, points
        if (
            points > 2
        ):  # Cramer and Rao's bound, which maximum likelihood reaches; outliers left out
            deviation = 1.4826 * np.median(np.abs(estimates - overlap), axis=0)
            assert np.all((deviation < 1.5 * spread) & (deviation > 0.6 * spread)), points
    assert slope(uses[2:], errors[2:]) == pytest.approx(-1, abs=0.1)
    by_shots = [
        np.median(np.abs(2 * rng.binomial(m, (1 + overlap) / 2) / m - 1 - overlap)) for m in uses
    ]
    assert slope(uses, by_shots) == pytest.approx(-0.5, abs=0.05)


def test_uses_by_hand():
    assert readout.schedule(5).tolist() == [0, 1, 2, 4, 8]
    assert readout.uses_of_schedule(3) == readout.SHOTS_A_POINT * (1 + 3 + 5)


def test_outcomes_of_rounds_are_those_of_explicit_amplification():
    """Grover's operator on the Hadamard test's state: outcome 0 with sin^2((2m + 1) theta)."""
    o, m = 0.3, 3
    column = np.array([np.sqrt((1 + o) / 2), np.sqrt((1 - o) / 2)])
    chance = grover(column, m, 1)[0] ** 2
    hits = readout.draw_hits(np.full(20000, o), m, np.random.default_rng(2)) / readout.SHOTS_A_POINT
    assert hits.mean() == pytest.approx(
        chance, abs=5 * 0.5 / np.sqrt(20000 * readout.SHOTS_A_POINT)
    )


def test_points_needed_are_those_that_resolve_the_overlaps():
    overlap = np.repeat([0.5, 0.51, 0.49, 0.53, 0.47], 4) - 0.5
    label = np.where(overlap > 0.005, 1, -1)
    found = readout.points_needed(
        overlap, label, np.array([0.005, -0.2]), 0.99, np.random.default_rng(3)
    )
    # at 0.005 everything is 0.005 or more away: 2.3 standard deviations of theta below it
    enough = next(p for p in range(1, 20) if 2 * readout.spread(p) < 0.005 / 2.3)
    assert abs(found[0] - enough) <= 1
    assert found[1] < found[0]


@pytest.mark.slow
@pytest.mark.parametrize("kept", [readout.LEAST_KEPT, 0.62, 0.91])
def test_estimation_of_what_is_not_always_kept(kept):
    """Outcome 0 with K (1 + o)/2.

    The estimates of o spread by the factor by which the uses are raised.
    """
    factor = readout.uses_for_kept_part(1 / kept)
    overlap, points = np.linspace(-0.2, 0.2, 6000), 9
    *_, estimates = readout.estimates_by_amplitude(
        kept * (1 + overlap) - 1, points, np.random.default_rng(6)
    )
    deviation = np.median(np.abs((1 + estimates) / kept - 1 - overlap))
    *_, all_kept = readout.estimates_by_amplitude(overlap, points, np.random.default_rng(6))
    assert deviation == pytest.approx(factor * np.median(np.abs(all_kept - overlap)), rel=0.06)
    assert factor > 1.05 and readout.uses_for_kept_part(1) == 1


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


def test_calibrated_threshold():
    overlap = 0.3 + np.repeat([-0.1, 0.1], 40)
    label = np.sign(overlap - 0.3)
    exact, estimated = assumptions.calibrated_accuracy(
        overlap, label, 10**6, np.random.default_rng(0)
    )
    assert exact == estimated == pytest.approx(1)
    few = assumptions.calibrated_accuracy(overlap, label, 20, np.random.default_rng(0))[1]
    assert 0.6 < few < 0.9


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


def test_sampler_never_reads_more_than_all():
    rng = np.random.default_rng(2)
    y, label = np.repeat([1.0, -1.0], 32), np.where(np.arange(40) < 20, 1, -1)
    # Both classes are above 0, as the convolutional network's may be: only the median, and a
    # normalised o, tell them.
    k = 0.3 + 0.1 * rng.random((40, 64)) + (0.02 + 0.01 * label[:, None]) * y
    overlap = k @ y / np.linalg.norm(k, axis=1) / 8
    levels = np.array([0.0, np.median(overlap)])
    samples = classical.samples_needed(k, y, label, levels, 0.99, np.random.default_rng(3))
    assert 1 <= samples[0] <= 64 and 32 < samples[1] <= 64
    # at a share of 1 about all must be read, and all are enough
    all_read = classical.samples_needed(k, y, label, levels, 1.0, np.random.default_rng(3))
    assert 55 < all_read[1] <= 64
    # entries that are all alike and tell everything: one is enough
    k = np.outer(label, y)
    assert classical.samples_needed(k, y, label, levels * 0, 0.99, rng).tolist() == [1, 1]
    # a single entry other than 0, and 0 is no sign: all must be read but with luck
    k = np.zeros((40, 64))
    k[:, 5] = label * y[5]
    samples = classical.samples_needed(k, y, label, levels * 0, 0.99, rng)
    assert 40 < samples[0] <= 64


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
