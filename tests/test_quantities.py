"""Approximations and quantities, each on a case small enough to do by hand."""

import numpy as np
import pytest
import scipy.sparse

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
    """N = 4: one pair a class, twice among 16 entries of which 14 are zero; rank 13.5 lies halfway to it."""
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


def test_sounder_conventions():
    """Entries kept with probability p; percentiles of the block alone; thresholds and divisors that are known."""
    patterns = [training.sparsity_pattern(64, np.random.default_rng(i), replacement=False) for i in range(100)]
    lower = np.tri(64, k=-1, dtype=bool) & training.same_class(64)
    p = 2 * np.log(64) / 64
    kept = np.mean([pattern[lower].mean() for pattern in patterns])
    assert abs(kept - p) < 4 * np.sqrt(p * (1 - p) / (100 * lower.sum()))
    kernel = np.zeros((6, 6))
    kernel[np.tril_indices(3, -1)] = kernel.T[np.tril_indices(3, -1)] = [1, 2, -3]
    kernel[3:, 3:] = 10 * kernel[:3, :3]
    assert training.class_thresholds(kernel, 50, zeros=False) == (2, 20)
    assert training.class_thresholds(kernel, 50) == (0, 0)
    assert training.accuracy(np.array([-1.0, 1, 2, 3]), np.array([-1, 1, 1, 1]), threshold=0) == 1
    k = np.array([[0.5, 0.1], [-0.2, 0.2]])
    assert training.post_selection_measurements(k, rescale=False) == pytest.approx([2 / 0.26, 2 / 0.08])
    # Overlaps 0.6, 0.8 and 1, whose median is 0.8.
    k = np.array([[3.0, 4], [4, 3], [1, 0]])
    found = training.readout_measurements(k, np.array([2.0, 0]), at_median=True)[[0, 2]]
    assert found == pytest.approx([0.64 / 0.04, 0])


def test_sparse_and_dense_agree():
    """The sparse path, Lanczos and sparse LU, against dense eigenvalues and solves at n = 256."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(256, 256))
    kernel = kernel @ kernel.T / 256
    for shift in (0.5, 5.0):  # indefinite and positive definite
        matrix = training.sparsify_unbiased(kernel, training.sparsity_pattern(256, rng)) + (shift - 2) * np.eye(256)
        sparse = scipy.sparse.csr_array(matrix)
        y = rng.normal(size=256)
        assert training.extreme_eigenvalues(sparse) == pytest.approx(training.extreme_eigenvalues(matrix), rel=1e-10)
        assert training.condition_number(sparse) == pytest.approx(training.condition_number(matrix), rel=1e-10)
        assert training.solve(sparse, y) == pytest.approx(training.solve(matrix, y), rel=1e-10, abs=1e-12)
        assert training.sparsity(sparse) == training.sparsity(matrix)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "diagonal, flags",
    [((2.0, 1, 3), 0), ((2.0, -1, 3), 1), ((2.0, 0, 3), 1 + 2 + 4), ((2.0, 1e-15, 3), 2 + 4), ((2.0, 1e-12, 3), 4)],
)
def test_numerical_flags(diagonal, flags, sparse):
    """Indefinite, singular, singular to rounding (300 eps = 7e-14 for the larger one), ill-conditioned, none of it."""
    matrix = np.diag(np.tile(diagonal, 100 if sparse else 1))
    matrix = scipy.sparse.csr_array(matrix) if sparse else matrix
    if sparse and diagonal[1] == 1e-12:
        matrix.data[4:] = np.abs(matrix.data[4:]).clip(min=1)  # one small eigenvalue, for Lanczos
    assert training.numerical_flags(matrix, training.extreme_eigenvalues(matrix)) == flags


@pytest.mark.parametrize("network", training.networks)
def test_useless_matrices_are_reported(network):
    """A kernel of ones is singular, twice as much off the diagonal indefinite: flags and NaN, no exception."""
    y, label = np.repeat([1, -1], 4), np.repeat([1, -1], 2)
    pattern = training.same_class(8)
    for kernel, exact in ((np.ones((8, 8)), 2 + 4), (2 * np.ones((8, 8)) - np.eye(8), 1)):
        test = np.random.default_rng(0).random((4, 8))
        kernels = {"kernel_train": kernel, "train_label": y, "test_label": label}
        kernels |= {"kernel_test": test, "kernel_test_normalized": test}
        thresholds = dict.fromkeys(training.conventions, (0.5, 0.5))
        found = training.trial_quantities(network, kernels, {c: [pattern] for c in training.conventions}, thresholds)
        assert int(found["numerical_flags_exact"]) & exact == exact
        for convention in training.conventions:
            flags = int(found[f"numerical_flags{convention}"][0])
            if network == "fully-connected":
                assert flags & exact == exact
            assert (flags & 1 == 0) == found[f"positive_definite{convention}"][0]
        assert found.keys() <= training.results_shapes(1, 1, 4).keys()


def test_trial_quantities_by_hand():
    """A diagonal kernel: every approximation is exact, and every count follows from k* alone."""
    kernels = {
        "kernel_train": 2 * np.eye(4),
        "kernel_test": np.array([[4.0, 2, 0, 0], [0, 0, 2, 2]]),
        "kernel_test_normalized": np.array([[1.0, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
        "train_label": np.array([1, 1, -1, -1]),
        "test_label": np.array([1, -1]),
    }
    patterns = {convention: [np.eye(4, dtype=bool)] * 3 for convention in training.conventions}
    found = training.trial_quantities("fully-connected", kernels, patterns, None)
    overlap = np.array([1.5 / np.sqrt(1.25) / 2, -1 / np.sqrt(0.5) / 2])
    median = overlap.mean()
    for convention in training.conventions:
        for name, expected in [
            ("sparsity", 1),
            ("condition_number", 1),
            ("smallest_eigenvalue", 2),
            ("positive_definite", 1),
            ("accuracy_sparse", 1),
            ("accuracy_sparse_at_zero", 1),
        ]:
            assert found[name + convention] == [expected] * 3, name
        readout = np.array([1 / overlap**2 - 1] * 3)
        assert np.array(found[f"readout_measurements_sparse{convention}"]) == pytest.approx(readout)
        readout = np.array([(1 - overlap**2) / (overlap - median) ** 2] * 3)
        assert np.array(found[f"readout_measurements_sparse_at_median{convention}"]) == pytest.approx(readout)
    assert found["condition_number_exact"] == 1 and found["off_diagonal_ratio"] == 0
    for which in ("exact", "diagonal"):
        assert found[f"accuracy_{which}"] == found[f"accuracy_{which}_at_zero"] == 1
    assert found["post_selection_measurements"] == pytest.approx([4 / 1.25, 8])
    assert found["post_selection_measurements_k_thresh"] == pytest.approx([4 / 1.25, 8])
    assert found["clipped_share_k_thresh"] == 1 / 8
    assert found["readout_measurements_diagonal"] == pytest.approx(1 / overlap**2 - 1)


def test_results_hold_every_quantity():
    """results_shapes names exactly what trial_quantities finds, the pattern draws, depth and separability."""
    rng = np.random.default_rng(0)
    kernel = np.eye(8) + 0.1
    kernels = {"kernel_train": kernel, "train_label": np.repeat([1, -1], 4), "test_label": np.array([1, -1])}
    kernels |= {name: rng.normal(size=(2, 8)) for name in ("kernel_test", "kernel_test_normalized")}
    patterns = {c: [training.sparsity_pattern(8, rng)] * training.sparsity_patterns for c in training.conventions}
    found = training.trial_quantities("convolutional", kernels, patterns, dict.fromkeys(training.conventions, (0, 0)))
    shapes = training.results_shapes(1, 1, 2)
    others = {"depth", "separability"} | {f"pattern_sparsity{c}" for c in training.conventions}
    assert shapes.keys() == found.keys() | others
    for name in found:
        assert np.shape(found[name]) == shapes[name][2 if name not in others else 0 :] or np.ndim(found[name]) == 0
