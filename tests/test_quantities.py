"""Approximations and quantities, each on a case small enough to do by hand."""

import numpy as np
import pytest

import training


@pytest.mark.parametrize("n", [2, 16, 64, 512])
def test_sparsity_pattern(n):
    patterns = [training.sparsity_pattern(n, np.random.default_rng(i)) for i in range(40)]
    for pattern in patterns:
        assert np.array_equal(pattern, pattern.T)
        assert np.diag(pattern).all()
        assert not pattern[: n // 2, n // 2 :].any() and not pattern[n // 2 :, : n // 2].any()
    # A column is drawn with probability 1 - (1 - 1/n)^m, m ~ Binomial(n, p): in the mean 1 - (1 - p/n)^n.
    p = min(2 * np.log(n) / n, 1)
    if n > 2:
        lower = np.tri(n, k=-1, dtype=bool) & training.same_class(n)
        drawn = np.mean([pattern[lower].mean() for pattern in patterns])
        expected = 1 - (1 - p / n) ** n
        entries = 40 * n * (n / 2 - 1) / 2
        assert abs(drawn - expected) < 5 * np.sqrt(expected / entries)


def test_sparsify_unbiased():
    kernel = np.arange(16.0).reshape(4, 4)
    pattern = np.eye(4, dtype=bool)
    pattern[0, 1] = pattern[1, 0] = True
    expected = np.zeros((4, 4))
    expected[[0, 0, 1, 1, 2, 3], [0, 1, 0, 1, 2, 3]] = [0, 1, 4, 5, 10, 15]
    assert np.array_equal(training.sparsify_unbiased(kernel, pattern), expected)


def test_sparsify_biased():
    kernel = np.full((6, 6), 9.0)
    kernel[0, 1] = kernel[1, 0] = 2.0
    kernel[0, 2] = kernel[2, 0] = 4.0
    kernel[3, 4] = kernel[4, 3] = 4.0
    kernel[3, 5] = kernel[5, 3] = -7.0
    pattern = training.same_class(6)
    pattern[1, 2] = pattern[2, 1] = pattern[4, 5] = pattern[5, 4] = False
    found = training.sparsify_biased(kernel, pattern, (2.0, 5.0))
    expected = np.diag(np.full(6, 9.0 * (1 + 0.76 * np.log(6) ** 0.9)))
    expected[0, 2] = expected[2, 0] = 4  # 2 is not above 2
    expected[3, 5] = expected[5, 3] = -7  # 4 is not above 5, |-7| is
    assert np.allclose(found, expected)


def test_class_thresholds_count_the_zeros_outside():
    """n = 4: one pair a class, twice among 16 entries of which 14 are zero; rank 13.5 lies halfway to it."""
    kernel = np.full((4, 4), 100.0)
    kernel[0, 1] = kernel[1, 0] = 3.0
    kernel[2, 3] = kernel[3, 2] = -5.0
    assert training.class_thresholds(kernel) == pytest.approx((1.5, 2.5))
    assert training.class_thresholds(kernel, 100) == (3.0, 5.0)


def test_class_thresholds_keep_46_percent_at_16():
    kernel = np.random.default_rng(0).normal(size=(16, 16))
    kernel += kernel.T
    block = np.abs(kernel[:8, :8][~np.eye(8, dtype=bool)])
    assert np.mean(block > training.class_thresholds(kernel)[0]) == pytest.approx(0.46, abs=0.02)


def test_sparsity_is_the_fullest_column():
    matrix = np.array([[1, 0, 0], [2, 3, 0], [-1, 0, 0]])
    assert training.sparsity(matrix) == 3


def test_condition_number():
    assert training.condition_number(np.array([[0.0, 2], [2, 3]])) == pytest.approx(4)  # eigenvalues -1, 4
    assert training.condition_number(np.zeros((2, 2))) == np.inf


def test_solve():
    matrix = np.array([[2.0, 1], [1, -3]])
    assert training.solve(matrix, np.array([7.0, 0])) == pytest.approx(np.array([3, 1]) / np.sqrt(10))
    assert np.isnan(training.solve(np.zeros((2, 2)), np.ones(2))).all()


def test_accuracy_thresholds_at_the_median():
    outputs = np.array([10.0, 11, 12, 13])
    assert training.accuracy(outputs, np.array([-1, -1, 1, 1])) == 1
    assert training.accuracy(outputs, np.array([-1, 1, 1, 1])) == 0.75
    assert np.isnan(training.accuracy(np.array([np.nan, 1]), np.array([1, -1])))


def test_post_selection_measurements():
    """Divided by the largest entry, 0.5, the rows are (1, 0.2) and (0.4, 0.4)."""
    k = np.array([[0.5, 0.1], [-0.2, 0.2]])
    assert training.post_selection_measurements(k) == pytest.approx([2 / 1.04, 2 / 0.32])


def test_readout_measurements():
    """Overlap cos 60 degrees = 1/2, and cos 0."""
    k = np.array([[2.0, 2 * np.sqrt(3)], [5, 0]])
    assert training.readout_measurements(k, np.array([3.0, 0])) == pytest.approx([3, 0])


def test_trial_quantities_by_hand():
    """A diagonal kernel: every approximation is exact, and every count follows from k* alone."""
    kernels = {
        "kernel_train": 2 * np.eye(4),
        "kernel_test": np.array([[4.0, 2, 0, 0], [0, 0, 2, 2]]),
        "kernel_test_normalized": np.array([[1.0, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
        "train_label": np.array([1, 1, -1, -1]),
        "test_label": np.array([1, -1]),
    }
    found = training.trial_quantities("fully-connected", kernels, [np.eye(4, dtype=bool)] * 3, None)
    assert found["condition_number_exact"] == 1 and found["condition_number"] == [1] * 3
    assert found["sparsity"] == [1] * 3
    assert found["accuracy_exact"] == found["accuracy_diagonal"] == 1 and found["accuracy_sparse"] == [1] * 3
    assert found["post_selection_measurements"] == pytest.approx([4 / 1.25, 8])
    overlap = np.array([1.5 / np.sqrt(1.25) / 2, -1 / np.sqrt(0.5) / 2])
    assert found["readout_measurements_diagonal"] == pytest.approx(1 / overlap**2 - 1)
    assert np.array(found["readout_measurements_sparse"]) == pytest.approx(np.array([1 / overlap**2 - 1] * 3))
