"""Sequential readout against coin tosses by hand, paths counted one by one, drawn readouts; rivals
in closed form.
"""

import itertools
import math

import numpy as np
import pytest

from quantum import assumptions, classical, readout, sequential

OVERLAP = np.array([-0.6, -0.2, 0.1, 0.35, 0.8])


def drawn_walks(overlap, test, draws, rng):
    """Verdicts and shots of Wald's test, shot by shot: probability ratios multiplied, no line
    drawn. [draws, test]
    """
    shape = draws, len(overlap)
    zeros, shots, verdict = np.zeros(shape), np.zeros(shape), np.full(shape, np.nan)
    for m in range(1, test.most + 1):
        live = np.isnan(verdict)
        zeros += live & (rng.random(shape) < (1 + overlap) / 2)
        shots += live
        beyond = zeros - test.slope * m
        verdict = np.where(
            live & (np.abs(beyond) >= test.height), (1 + np.sign(beyond)) / 2, verdict
        )
    cut = np.isnan(verdict)
    return np.where(cut, (1 + np.sign(np.round(beyond, 9))) / 2, verdict), shots


# --------------------------------------------------------------------------------------------------
# Wald's test
# --------------------------------------------------------------------------------------------------


def test_boundaries_are_likelihood_ratios():
    """At t = 0, d = 1/2 and an error of 1/10 a zero counts 3, a one 1/3: two in a row more than
    ones are 9 to 1.
    """
    test = sequential.wald_test(0.0, 0.5, 0.1)
    assert test.slope == pytest.approx(0.5) and test.height == pytest.approx(1.0)
    assert test.most == sequential.TRUNCATION * 4
    t, distance, error = 0.3, 0.2, 0.02
    test = sequential.wald_test(t, distance, error)
    high, low = (1 + t + distance) / 2, (1 + t - distance) / 2
    for m, zeros in ((10, 9), (50, 20), (7, 0)):
        ratio = zeros * math.log(high / low) + (m - zeros) * math.log((1 - high) / (1 - low))
        clear = abs(ratio) >= math.log((1 - error) / error)
        assert clear == (abs(zeros - test.slope * m) >= test.height), (m, zeros)
    near_one = sequential.wald_test(0.99, 0.2, 0.1)  # d is made smaller: 1.19 is no overlap
    assert 0.99 < near_one.slope < 1 and np.isfinite(near_one.height)


@pytest.mark.parametrize(
    ("slope", "height", "most"), [(0.5, 1.0, 8), (0.57, 1.7, 9), (0.3, 1.2, 6)]
)
def test_walk_is_the_sum_over_all_paths(slope, height, most):
    test = sequential.WaldTest(slope, height, most)
    p = (1 + OVERLAP) / 2
    above, shots = np.zeros(len(p)), np.zeros(len(p))
    for path in itertools.product((0, 1), repeat=most):
        beyond = np.cumsum(path) - slope * np.arange(1, most + 1)
        beyond = np.round(beyond, 9)
        stopped = np.flatnonzero(np.abs(beyond) >= height)
        end = stopped[0] if len(stopped) else most - 1
        chance = p ** sum(path) * (1 - p) ** (most - sum(path))
        above += chance * (1 + np.sign(beyond[end])) / 2
        shots += chance * (end + 1)
    np.testing.assert_allclose(sequential.exact_walk(OVERLAP, test), [above, shots], rtol=1e-10)


def test_walk_is_the_gamblers_ruin():
    """At t = 0, no cut: odds ((1 + o)/(1 - o))^(2 height), (2 above - 1) 2 height/o shots."""
    test = sequential.WaldTest(0.5, 4.0, 20000)
    ratio = (1 + OVERLAP) / (1 - OVERLAP)
    above = 1 / (1 + ratio**-8.0)
    expected = above, 8 * (2 * above - 1) / OVERLAP
    np.testing.assert_allclose(sequential.exact_walk(OVERLAP, test), expected, rtol=2e-5)
    np.testing.assert_allclose(sequential.wald_formulas(OVERLAP, test), expected, rtol=1e-9)
    # (2 height)^2, as for any fair coin.
    assert sequential.wald_formulas(np.zeros(1), test)[1] == pytest.approx(64)
    # a walk that is too long is not walked
    far = test._replace(height=sequential.LARGEST_HEIGHT + 1.0)
    assert sequential.exact_walk(OVERLAP, far)[1] == pytest.approx(
        sequential.wald_formulas(OVERLAP, far)[1]
    )


def test_walk_is_that_of_drawn_shots():
    test = sequential.wald_test(0.08, 0.1, 0.05)
    above, shots = sequential.exact_walk(OVERLAP, test)
    draws = 4000
    verdict, drawn = drawn_walks(OVERLAP, test, draws, np.random.default_rng(0))
    assert np.all(np.abs(drawn.mean(axis=0) - shots) < 4 * drawn.std(axis=0) / math.sqrt(draws))
    assert np.all(
        np.abs(verdict.mean(axis=0) - above) < 4 * np.sqrt(above * (1 - above) / draws) + 1e-3
    )
    # the stated error is kept at t + d and t - d: overshoot helps, and the cut hardly harms
    above, _ = sequential.exact_walk(np.array([0.18, -0.02]), test)
    assert 1 - above[0] < 0.055 and above[1] < 0.055 and above[1] > 0.03


def test_groups_of_stops_change_nothing_that_counts(monkeypatch):
    test = sequential.wald_test(0.05, 0.03, 0.01)
    overlap = np.linspace(-0.1, 0.2, 13)
    assert test.most > 10 * sequential.EXACT_STOPS
    found = sequential.exact_walk(overlap, test)
    monkeypatch.setattr(sequential, "EXACT_STOPS", test.most)
    np.testing.assert_allclose(found, sequential.exact_walk(overlap, test), rtol=1e-4)


def test_sequential_shots_are_tuned_on_one_half_alone():
    rng = np.random.default_rng(1)
    label = np.repeat([1.0, -1.0], 100)
    overlap = np.clip(0.05 + 0.2 * label + rng.normal(0, 0.1, 200), -1, 1)
    calibration = sequential.calibration_half(label, rng)
    assert calibration[:100].sum() == calibration[100:].sum() == 50
    t = assumptions.calibrated_threshold(overlap, calibration)
    found = sequential.sequential_shots(overlap, label, t, calibration, 0.99)
    goal = 0.99 * readout.noiseless_accuracy(overlap[calibration], label[calibration], t)
    assert found.right[calibration].mean() == pytest.approx(goal, abs=2e-3)
    # a third of what the same accuracy takes without stopping
    fixed = readout.shots_needed(overlap[calibration], label[calibration], t, 0.99)
    assert found.fixed == fixed and 0.1 < found.spent[calibration].mean() / fixed < 0.5
    assert np.all(found.spent <= found.last) and 0 < found.error < 0.5
    # the other half has no say
    other = overlap.copy()
    other[~calibration] = rng.permutation(other[~calibration]) ** 3
    assert sequential.sequential_shots(other, label, t, calibration, 0.99).error == found.error
    lax = sequential.sequential_shots(overlap, label, t, calibration, 0.9)
    assert lax.error > found.error and lax.spent.mean() < found.spent.mean()


def test_wilson_and_held_out_by_hand():
    low, high = sequential.wilson_interval(0.9, 100, 2.0)
    assert (low, high) == pytest.approx((0.82381, 0.94542), abs=1e-5)  # (0.92 -+ sqrt(0.004))/1.04
    assert sequential.wilson_interval(1.0, 100)[1] == pytest.approx(1)
    calibration = np.array([True, False, False, True])
    right, spent = np.array([0, 1.0, 0.5, 0]), np.array([99.0, 2, 4, 99])
    reading = sequential.Reading(0.1, 9.0, right, spent, 10.0, np.ones(4))
    assert sequential.times(reading, ~calibration).tolist() == [[10, 10], [2, 4]]
    found = sequential.judged(reading, calibration, 0.5)
    assert found["accuracy_read"].tolist() == [1, 0.75] and found["needed"].tolist() == [10, 3]
    assert found["accuracy_kept"].tolist() == [2, 1.5]
    assert found["accuracy_interval"][1] == sequential.wilson_interval(0.75, 2)


# --------------------------------------------------------------------------------------------------
# Rules and amplitude estimation
# --------------------------------------------------------------------------------------------------


def test_stopping_rules_by_hand():
    """Two draws of one image of class -1, three steps that cost 1, 3 and 6 in all."""
    clear = np.array([[[1.0, -3, -4]], [[-0.5, -1, 2]]])
    label, cost = np.array([-1.0]), np.array([1.0, 3, 6])
    right, spent = sequential.stopping_rules(clear, label, cost, [0.2, 1, 2, 9], [0, 1, 2])
    assert right[:3, :, 0].tolist() == [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 1, 0.5]]
    assert spent[:3, :, 0].tolist() == [[1, 1, 1], [1, 2, 2], [1, 3, 4.5]]
    assert spent[3, :, 0].tolist() == [1, 3, 6]  # never clear


def test_fixed_effort_by_hand():
    """Two draws of two images; the second one, of the other half, has no say."""
    clear = np.array([[[1.0, -1, 1], [9, 9, 9]], [[1, 1, 1], [9, 9, 9]]])
    label, cost = np.array([1.0, -1]), np.array([1.0, 3, 6])
    calibration = np.array([True, False])

    def effort(clear, goal):
        return sequential.fixed_effort(clear, label, cost, calibration, goal)

    assert effort(clear, 0.4)[0] == 1
    # all later steps must have it too; 0.8 of the third step and 0.2 of the second, which is right
    # in one draw of two
    fixed, right = effort(clear, 0.9)
    assert fixed == pytest.approx(0.2 * 3 + 0.8 * 6) and right.tolist() == pytest.approx([0.9, 0])
    fixed, right = effort(-clear, 0.9)
    assert fixed == math.inf and right.tolist() == [0, 1]


def test_cheapest_rule_by_hand():
    """Four boundaries, two last steps, an image for calibration and one that does not count."""
    right = np.array([[0.9, 0.3], [0.5, 0.4], [0.9, 0.95], [0.92, 0.97]])
    spent = np.array([[1.0, 2], [1.5, 3], [4, 5], [6, 7]])
    calibration = np.array([True, False])
    rules = np.stack([right, 1 - right], axis=-1), np.stack([spent, -spent], axis=-1)
    # 0.9 of the first is chance: a larger boundary and a later last step have less
    assert sequential.cheapest_rule(*rules, calibration, 0.9) == (2, 0)
    assert sequential.cheapest_rule(*rules, calibration, 0.93) == (2, 1)
    assert sequential.cheapest_rule(*rules, calibration, 0.3) == (0, 0)
    assert sequential.cheapest_rule(*rules, calibration, 1.0) == (3, 1)  # the most accurate


def test_schedule_and_uses_by_hand():
    rounds = sequential.finer_schedule()
    assert (
        rounds[:9].tolist() == [0, 1, 2, 3, 4, 6, 8, 11, 16]
        and rounds[-1] == sequential.MOST_ROUNDS
    )
    uses = sequential.uses_by_stage()
    assert uses[:3].tolist() == [sequential.STAGE_SHOTS * each for each in (1, 4, 9)]
    assert np.all(uses[6:] / uses[5:-1] < 1.5)  # no jump by 2


def test_hits_are_those_of_amplification_and_the_same_numbers_for_all():
    overlap = np.full(300, 0.3)
    hits = sequential.stage_hits(overlap, np.random.default_rng(2))
    for stage, m in ((0, 0), (3, 3), (6, 8)):
        chance = readout.amplified(0.65, m)
        number = sequential.DRAWS * 300 * sequential.STAGE_SHOTS
        assert hits[stage].sum() / number == pytest.approx(chance, abs=4 * 0.5 / math.sqrt(number))
    more = sequential.stage_hits(overlap + 1e-9, np.random.default_rng(2))
    assert np.mean(hits != more) < 1e-5


def test_sign_ratio_by_hand():
    """Without amplification the likelihood is binomial: 5 of 6 zeros against t = 0 are 5/6 against
    1/2.
    """
    hits = np.array([[5.0, 1.0, 3.0]])
    expected = math.log((5 / 6) ** 5 * (1 / 6)) - 6 * math.log(0.5)
    found = sequential.sign_ratio(hits, np.array([0]), 0.0)
    np.testing.assert_allclose(found, [expected, -expected, 0], atol=0.02)
    # one round: three zeros of six are theta = 15, 45 or 75 degrees, on both sides of any t
    assert sequential.sign_ratio(np.array([[3.0]]), np.array([1]), 0.2)[0] == pytest.approx(
        0, abs=0.01
    )
    # with the first stage it is clear which of them
    both = sequential.sign_ratio(np.array([[6.0], [3.0]]), np.array([0, 1]), 0.2)
    assert both[0] > 2


def test_sequential_estimation_beats_the_fixed_schedule():
    rng = np.random.default_rng(3)
    label = np.repeat([1.0, -1.0], 50)
    overlap = 0.02 + 0.03 * label + rng.normal(0, 0.012, 100)
    calibration = sequential.calibration_half(label, rng)
    t = assumptions.calibrated_threshold(overlap, calibration)
    found = sequential.sequential_estimation(
        overlap, label, t, calibration, 0.99, np.random.default_rng(4)
    )
    goal = 0.99 * readout.noiseless_accuracy(overlap[calibration], label[calibration], t)
    assert found.right[calibration].mean() >= goal
    noiseless = readout.noiseless_accuracy(overlap[~calibration], label[~calibration], t)
    counted = sequential.judged(found, calibration, noiseless)
    spent = found.spent[~calibration].mean()
    assert counted["accuracy_kept"].min() > 0.96
    assert 0.3 < spent / found.fixed < 0.8
    shots = sequential.sequential_shots(overlap, label, t, calibration, 0.99)
    assert spent < shots.spent[~calibration].mean() / 3
    again = sequential.sequential_estimation(
        overlap, label, t, calibration, 0.99, np.random.default_rng(4)
    )
    np.testing.assert_array_equal(again.spent, found.spent)
    close = np.abs(overlap - t) < 0.01
    assert found.spent[close].mean() > 1.2 * found.spent[~close].mean()


# --------------------------------------------------------------------------------------------------
# The classical sampler, the calibrated threshold, rivals
# --------------------------------------------------------------------------------------------------


def test_sequential_sampler():
    rng = np.random.default_rng(6)
    n, label = 128, np.repeat([1.0, -1.0], 60)
    y = np.repeat([1.0, -1.0], n // 2)
    k = rng.normal(0.4 * np.outer(label, y), 1)
    calibration = sequential.calibration_half(label, rng)
    overlap = k @ y / np.linalg.norm(k, axis=1) / np.linalg.norm(y)
    t = assumptions.calibrated_threshold(overlap, calibration)
    found = classical.sequential_samples(
        k, y, label, t, calibration, 0.99, np.random.default_rng(7)
    )
    assert found.spent.max() <= found.last <= n
    assert found.spent[~calibration].mean() < 0.8 * found.fixed
    assert found.right[~calibration].mean() > 0.97 * readout.noiseless_accuracy(overlap, label, t)
    # entries of one magnitude: 1 - o^2, as of shots
    signs = np.where(rng.random((1, 40)) < 0.7, 1.0, -1.0)
    assert classical.entry_variance(signs, np.ones(40)) == pytest.approx(1 - signs.mean() ** 2)
    # one read tells everything, and one is made
    sure = classical.sequential_samples(np.outer(label, y), y, label, 0.0, calibration, 0.99, rng)
    assert sure.spent.tolist() == [1] * 120 and sure.right.min() == sure.fixed == 1
    # a single entry other than 0, and 0 is no sign: all must be read but with luck
    k = np.zeros((120, n))
    k[:, 5] = label * y[5]
    one = classical.sequential_samples(k, y, label, 0.0, calibration, 0.99, rng)
    assert n / 2 < one.fixed <= n and one.right.min() > 0.5
    k = rng.normal(0.4 * np.outer(label, y), 1)
    # the last read is exact
    sums = classical.partial_sums(k, y, t, rng)
    assert np.array_equal(sums[:, :, -1] > 0, np.tile(overlap > t, (len(sums), 1)))


def test_looks_of_the_sampler():
    assert classical.looks(3).tolist() == [1, 2, 3]
    few = classical.looks(8192)
    assert len(few) == classical.LOOKS and few[0] == 8 and few[-1] == 8192
    assert len(classical.looks(classical.LOOKS + 1)) == classical.LOOKS


def test_operations_of_the_local_sampler_by_hand():
    reads, local = np.array([1.0, 3.0]), np.array([10.0, 30.0])
    assert classical.sampling_operations(reads, 6, local, 1000.0).tolist() == [6 + 20, 18 + 60]
    assert classical.sampling_operations(reads, 6, local, 39.0).tolist() == [6 + 39, 18 + 39]


def test_calibrated_threshold_and_what_it_costs():
    overlap = np.array([0.1, 0.3, 0.9, 0.9])
    calibration = np.array([True, True, False, False])
    assert assumptions.calibrated_threshold(overlap, calibration) == pytest.approx(0.2)
    drawn = assumptions.drawn_threshold(overlap, calibration, 1e6, np.random.default_rng(0))
    assert drawn == pytest.approx(0.2, abs=5e-3)
    assert drawn != 0.2
    assert assumptions.levels(overlap, calibration) == pytest.approx([0.2, 0.6, 0])


def test_rivals_by_hand():
    kernel = np.array([[4.0, 2], [2, 4]])
    test, y = np.array([[1.0, 0.5]]), np.array([1.0, -1])
    exact = test @ np.linalg.solve(kernel, y)
    found = classical.ridge(kernel, test, y, np.array([0.0, 1.0]))
    np.testing.assert_allclose(found, [exact, test @ np.linalg.solve(kernel + 4 * np.eye(2), y)])
    # y is the eigenvector of 2; time in units of 1/6
    flow = classical.gradient_flow(kernel, test, y, np.array([0.3, 1e9]))
    np.testing.assert_allclose(flow, [exact * -np.expm1(-0.1), exact])
    singular = classical.gradient_flow(np.ones((2, 2)), test, y, np.array([2.0]))
    np.testing.assert_allclose(singular, [test @ y])  # eigenvalue 0: time itself
    # the second image is nearer by K_ii - 2 k_i, 1 - 1.8 against 4 - 2, though its entry is smaller
    kernel = np.diag([4.0, 1.0])
    found = classical.nearest_neighbours(kernel, np.array([[1.0, 0.9]]), y, np.array([1, 2, 9]))
    assert found.tolist() == [[-1], [0], [0]]


def test_parameters_are_chosen_on_the_calibration_half():
    label = np.array([1.0, 1, -1, -1, 1, -1])
    calibration = np.array([True, True, True, True, False, False])
    outputs = np.array([[-1.0, 1, 1, -1, 5, -5], [7, 8, 5, 6, 5, 8], [2, 1, -1, -2, 9, -9]])
    row, threshold, accuracy = classical.best_parameter(outputs, label, calibration)
    # As good as the second row at its median, and at 0.
    assert (row, threshold, accuracy) == (
        2,
        0,
        1,
    )
    row, threshold, accuracy = classical.best_parameter(outputs[:2], label, calibration)
    assert (row, threshold, accuracy) == (1, 6.5, 0)
