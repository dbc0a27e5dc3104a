"""The method.

Images, depth, approximations and quantities, each on a case small enough to do by hand.
"""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from conftest import SHALLOW

import training
from ntk import BadInput, fully_connected_ntk, theorem
from runtime import linear_algebra
from runtime.datasets import Split
from runtime.trials import Run, Trial, random_generator

NETWORKS = training.make_networks()

# ---- images ----


def stretched(flat):
    """Images [n, 784] from 0 to 1, every third pixel of them."""
    flat = flat.astype(float) - flat.min(axis=1, keepdims=True)
    return flat[:, ::3] / flat.max(axis=1, keepdims=True)


@pytest.mark.parametrize("flatten", [True, False])
def test_images_are_drawn_from_the_dataset_each_once_and_in_classes(real_data, flatten):
    split = real_data.train
    image, label = training.draw_images(split, (8, 9), 20, flatten, np.random.default_rng(4))
    assert image.shape == ((40, 784) if flatten else (40, 28, 28, 1)) and image.dtype == np.float64
    assert list(label) == [1] * 20 + [-1] * 20
    flat = image.reshape(40, -1)
    assert np.allclose(np.sum(flat**2, axis=1), 1)
    # Undo the scaling and look every image up in the dataset: nines first, no image twice.
    nines, eights = (stretched(split.image[split.label == d].reshape(-1, 784)) for d in (9, 8))
    seen = set()
    for i, (drawn, candidates) in enumerate(
        zip(stretched(flat), [nines] * 20 + [eights] * 20, strict=True)
    ):
        distance = np.abs(candidates - drawn).max(axis=1)
        assert distance.min() < 1e-9
        seen.add((label[i], int(distance.argmin())))
    assert len(seen) == 40
    again, _ = training.draw_images(split, (8, 9), 20, flatten, np.random.default_rng(4))
    other, _ = training.draw_images(split, (8, 9), 20, flatten, np.random.default_rng(5))
    assert np.array_equal(again, image) and not np.array_equal(other, image)


def test_images_are_standardised_by_the_drawn_subset():
    """One pixel bright, by hand.

    The mean and the deviation are those of the chosen subset, all pixels together.
    """
    image = np.zeros((2, 2, 2, 1), np.uint8)
    image[0, 0, 0] = 8
    split = Split(image, np.array([3, 5]))
    found, label = training.draw_images(split, (3, 5), 1, True, np.random.default_rng(0))
    values = np.array([0, 0, 0, 0, 8, 0, 0, 0]) - 1.0
    expected = values.reshape(2, 4) / np.array([[2], [np.sqrt(52)]])
    assert list(label) == [1, -1]
    assert np.allclose(found, expected)


def test_fewer_images_are_drawn_where_there_are_not_enough(digits, capsys):
    image, label = training.draw_images(digits.test, (8, 9), 500, True, np.random.default_rng(0))
    fewer = min(np.sum(digits.test.label == d) for d in (8, 9))
    assert len(image) == len(label) == 2 * fewer and label.sum() == 0
    assert f"only {fewer} images" in capsys.readouterr().out


def test_images_that_can_not_be_drawn_are_refused():
    split = Split(np.ones((4, 2, 2, 1), np.uint8), np.array([3, 3, 5, 5]))
    with pytest.raises(BadInput, match=r"classes .3, 7.: no 1 images of each"):
        training.draw_images(split, (3, 7), 1, True, np.random.default_rng(0))
    with pytest.raises(BadInput, match="all of one colour"):
        training.draw_images(split, (3, 5), 1, True, np.random.default_rng(0))


def test_draws_are_independent_of_each_other():
    keys = [
        (0, "convolutional", 16, 0, "train"),
        (1, "convolutional", 16, 0, "train"),
        (0, "fully-connected", 16, 0, "train"),
        (0, "convolutional", 32, 0, "train"),
        (0, "convolutional", 16, 1, "train"),
        (0, "convolutional", 16, 0, "test"),
    ]
    assert len({tuple(random_generator(*key).integers(2**62, size=2)) for key in keys}) == len(keys)


def test_separability_and_depth():
    x = np.array([[1.0, 0], [0.6, 0.8], [0, -1]])
    assert np.isclose(training.separability(x), 0.2)
    assert training.fully_connected_depth(16, 0.25) == round(
        0.1 * 8 * np.log(64) / training.nonlinearity
    )
    assert training.fully_connected_depth(512, 0.0) > 0


# ---- approximations ----


def same_class(n):
    """Whether images i and j are of one class, bool [n, n]."""
    first = np.arange(n) < n // 2
    return first[:, None] == first


def dense_pattern(n, rng, replacement):
    """The sparsity pattern once more, as a dense matrix and word for word."""
    p = min(2 * np.log(n) / n, 1)
    if replacement:
        counts = rng.binomial(n, p, size=n)
        pattern = np.zeros((n, n), dtype=bool)
        pattern[np.repeat(np.arange(n), counts), rng.integers(n, size=counts.sum())] = True
    else:
        pattern = rng.random((n, n), dtype=np.float32) < p
    pattern = np.tril(pattern)
    pattern = (pattern | pattern.T) & same_class(n)
    np.fill_diagonal(pattern, True)
    return pattern


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("n", [2, 4, 16, 64, 512, 2050])
def test_sparse_patterns_equal_the_dense_definition_bit_by_bit(n, replacement):
    """The largest size takes more than one block of rows."""
    assert 2**22 // 2050 < 2050
    for i in range(1 if n > 1000 else 5):
        found = training.sparsity_pattern(n, np.random.default_rng(i), replacement)
        expected = dense_pattern(n, np.random.default_rng(i), replacement)
        assert np.array_equal(found.toarray(), expected)
        assert training.sparsity(found) == training.sparsity(expected)


@pytest.mark.parametrize("n", [16, 64, 512])
def test_patterns_have_the_density_of_their_definition(n):
    """With replacement 1 - (1 - 1/n)^m, m ~ Binomial(n, p): in the mean 1 - (1 - p/n)^n.

    Without it p itself.
    """
    p = min(2 * np.log(n) / n, 1)
    lower = np.tri(n, k=-1, dtype=bool) & same_class(n)
    for distinct, expected in ((False, 1 - (1 - p / n) ** n), (True, p)):
        drawn = [
            training.sparsity_pattern(n, np.random.default_rng(i), not distinct) for i in range(40)
        ]
        density = np.mean([pattern.toarray()[lower] for pattern in drawn])
        assert abs(density - expected) < 5 * np.sqrt(expected / (40 * lower.sum()))


def pattern_of(matrix, convention="original"):
    """A dense pattern as a trial's."""
    return training.Pattern(convention, 0, scipy.sparse.csr_array(matrix))


def test_the_fully_connected_kernel_is_multiplied_by_the_pattern():
    kernel = np.arange(16.0).reshape(4, 4)
    pattern = np.eye(4, dtype=bool)
    pattern[0, 1] = pattern[1, 0] = True
    expected = np.zeros((4, 4))
    expected[[0, 0, 1, 1, 2, 3], [0, 1, 0, 1, 2, 3]] = [0, 1, 4, 5, 10, 15]
    found = training.keep_pattern(kernel, pattern_of(pattern), training.KernelScale(1))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("dense_limit", [1024, 4])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_the_convolutional_kernel_is_thresholded_and_its_diagonal_raised(
    monkeypatch, dense_limit, is_sparse
):
    """As a dense matrix and as a sparse one, from a whole kernel and from the entries that it needs."""
    monkeypatch.setattr(training, "dense_limit", dense_limit)
    kernel = np.full((6, 6), 9.0)
    kernel[0, 1] = kernel[1, 0] = 2.0
    kernel[0, 2] = kernel[2, 0] = 4.0
    kernel[3, 4] = kernel[4, 3] = 4.0
    kernel[3, 5] = kernel[5, 3] = -7.0
    pattern = same_class(6)
    pattern[1, 2] = pattern[2, 1] = pattern[4, 5] = pattern[5, 4] = False
    limits = training.KernelScale(1, {"original": (2.0, 5.0)})
    if is_sparse:
        kernel = scipy.sparse.csr_array(kernel * pattern)
    found = training.keep_large_entries(kernel, pattern_of(pattern), limits)
    expected = np.diag(np.full(6, 9.0 * (1 + 0.76 * np.log(6) ** 0.9)))
    expected[0, 2] = expected[2, 0] = 4  # 2 is not above 2
    expected[3, 5] = expected[5, 3] = -7  # 4 is not above 5, |-7| is
    assert scipy.sparse.issparse(found) == (dense_limit == 4)
    assert np.allclose(found.toarray() if scipy.sparse.issparse(found) else found, expected)
    assert training.sparsity(found) == 2


def test_an_entry_that_was_not_computed_is_no_zero():
    kernel = scipy.sparse.csr_array(np.eye(3))
    with pytest.raises(KeyError, match="2 entries of the kernel were not computed"):
        training.keep_pattern(
            kernel, pattern_of(np.eye(3) + np.eye(3, k=1)), training.KernelScale(1)
        )


def test_class_thresholds_count_the_zeros_outside():
    """With n = 4: one pair a class, twice among 16 entries of which 14 are zero.

    Rank 13.5 lies halfway to it.
    """
    kernel = np.full((4, 4), 100.0)
    kernel[0, 1] = kernel[1, 0] = 3.0
    kernel[2, 3] = kernel[3, 2] = -5.0
    assert training.class_thresholds(kernel, 90) == pytest.approx((1.5, 2.5))
    assert training.class_thresholds(kernel, 100) == (3.0, 5.0)


def test_class_thresholds_keep_46_percent_at_16():
    kernel = np.random.default_rng(0).normal(size=(16, 16))
    kernel += kernel.T
    block = np.abs(kernel[:8, :8][~np.eye(8, dtype=bool)])
    assert np.mean(block > training.class_thresholds(kernel, 90)[0]) == pytest.approx(
        0.46, abs=0.02
    )


def test_corrected_class_thresholds_are_of_the_block_alone():
    kernel = np.zeros((6, 6))
    kernel[np.tril_indices(3, -1)] = kernel.T[np.tril_indices(3, -1)] = [1, 2, -3]
    kernel[3:, 3:] = 10 * kernel[:3, :3]
    assert training.class_thresholds(kernel, 50, zeros=False) == (2, 20)
    assert training.class_thresholds(kernel, 50) == (0, 0)


def test_the_convolutional_scale_come_from_the_reference_kernel():
    reference = np.array([[9.0, 3, 0, -4], [3, 9, 0, 0], [0, 0, 9, 5], [-4, 0, 5, 9]])
    found = training.convolutional_scale(96, reference)
    assert found.k_thresh == 5
    assert found.by_convention["corrected"] == (3, 5)
    assert found.by_convention["original"] == training.class_thresholds(reference, 90, zeros=True)


def test_the_fully_connected_threshold_is_the_kernel_at_a_small_angle():
    x = np.array([[1.0, 0], [1 - 1e-5, np.sqrt(1 - (1 - 1e-5) ** 2)]])
    x = np.pad(x, [(0, 0), (0, 782)])
    found = training.fully_connected_scale(36, None)
    assert found.by_convention is None
    assert found.k_thresh == training.fully_connected_ntk(x, depth=36)[0, 1]


# ---- eigenvalues and solutions ----


def test_sparsity_is_the_fullest_column():
    matrix = np.array([[1, 0, 0], [2, 3, 0], [-1, 0, 0]])
    assert training.sparsity(matrix) == training.sparsity(scipy.sparse.csr_array(matrix)) == 3


def test_condition_number():
    # Eigenvalues -1, 4.
    assert linear_algebra.condition_number(np.array([[0.0, 2], [2, 3]])) == pytest.approx(4)
    assert linear_algebra.condition_number(np.zeros((2, 2))) == np.inf


def test_solve():
    matrix = np.array([[2.0, 1], [1, -3]])
    assert linear_algebra.solve(matrix, np.array([7.0, 0])) == pytest.approx(
        np.array([3, 1]) / np.sqrt(10)
    )
    assert np.isnan(linear_algebra.solve(np.zeros((2, 2)), np.ones(2))).all()


def test_a_diagonal_matrix_needs_no_solver():
    matrix = scipy.sparse.diags_array([2.0, -1, 4], format="csr")
    assert linear_algebra.extreme_eigenvalues(matrix) == (-1, 1, 4)
    expected = np.array([0.5, -1, 0.25]) / np.linalg.norm([0.5, -1, 0.25])
    assert linear_algebra.solve(matrix, np.ones(3)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "lowest, iterates", [(2.0, True), (0.3, True), (-0.5, False), (1e-4, False)]
)
def test_sparse_and_dense_agree(lowest, iterates, monkeypatch):
    """Lanczos and conjugate gradients, or sparse factors, against dense eigenvalues and solves at n
    = 128.

    lowest: eigenvalue of the matrix. A fifth of the rows hold nothing but their diagonal entry.
    """
    monkeypatch.setattr(linear_algebra, "most_iterations", 60)
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(128, 256))
    kernel = kernel @ kernel.T / 256
    isolated = rng.random(128) < 0.2
    matrix = kernel * dense_pattern(128, rng, True)
    matrix *= np.eye(128) + ~(isolated[:, None] | isolated)
    matrix += (lowest - np.linalg.eigvalsh(matrix)[0]) * np.eye(128)
    sparse, y = scipy.sparse.csr_array(matrix), rng.normal(size=128)
    for function in (linear_algebra.extreme_eigenvalues, linear_algebra.condition_number):
        assert function(sparse) == pytest.approx(function(matrix), rel=1e-9)
    assert linear_algebra.solve(sparse, y) == pytest.approx(
        linear_algebra.solve(matrix, y), rel=1e-9, abs=1e-12
    )
    assert linear_algebra.SparseInverse(sparse, y).iterates == iterates


def test_conjugate_gradients_that_stop_short_hand_over_to_factors(monkeypatch):
    """The first right-hand side is an eigenvector, which takes one iteration.

    The second one takes more.
    """
    matrix = scipy.sparse.csr_array(np.diag([1.0, 2, 3, 4, 5, 6]))
    monkeypatch.setattr(linear_algebra, "most_iterations", 3)
    inverse = linear_algebra.SparseInverse(matrix, np.eye(6)[2])
    assert inverse.iterates and "factors" not in vars(inverse)
    assert inverse(np.ones(6)) == pytest.approx(1 / np.arange(1, 7), rel=1e-14)
    assert "factors" in vars(inverse)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "diagonal, flags",
    [
        ((2.0, 1, 3), 0),
        ((2.0, -1, 3), 1),
        ((2.0, 0, 3), 1 + 2 + 4),
        ((2.0, 1e-15, 3), 2 + 4),
        ((2.0, 1e-12, 3), 4),
    ],
)
def test_numerical_flags(diagonal, flags, sparse):
    """Indefinite, singular, singular to rounding (300 eps = 7e-14 for the larger one), ill-conditioned, none of it."""
    matrix = np.diag(np.tile(diagonal, 100 if sparse else 1))
    matrix = scipy.sparse.csr_array(matrix) if sparse else matrix
    if sparse and diagonal[1] == 1e-12:
        matrix.data[4:] = np.abs(matrix.data[4:]).clip(min=1)  # one small eigenvalue, for Lanczos
    assert (
        linear_algebra.numerical_flags(matrix, linear_algebra.extreme_eigenvalues(matrix)) == flags
    )


COUPLED = 0.1 * (np.eye(4, k=1) + np.eye(4, k=-1))  # so that a matrix is not diagonal


def test_only_a_failed_factorisation_means_an_eigenvalue_of_zero(monkeypatch):
    singular = scipy.sparse.csr_array(np.diag([0.0, 1, 2, 3, 4]))
    assert linear_algebra.extreme_eigenvalues(singular) == pytest.approx((0, 0, 4))

    def fail(*_, **how):
        raise RuntimeError("of another kind")

    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", fail)
    with pytest.raises(RuntimeError, match="of another kind"):
        linear_algebra.extreme_eigenvalues(
            scipy.sparse.csr_array(np.diag([1.0, 2, 3, 4]) + COUPLED)
        )


def test_eigenvalues_that_lanczos_does_not_find_are_nan(monkeypatch):
    def give_up(*_, **how):
        raise scipy.sparse.linalg.ArpackNoConvergence(
            "no convergence", np.empty(0), np.empty((0, 0))
        )

    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", give_up)
    matrix = scipy.sparse.csr_array(np.diag([1.0, 2, 3, 4]) + COUPLED)
    eigenvalues = linear_algebra.extreme_eigenvalues(matrix)
    assert (
        np.isnan(eigenvalues).all()
        and linear_algebra.numerical_flags(matrix, eigenvalues) == 1 + 2 + 4
    )


# ---- quantities ----


def test_accuracy_about_a_threshold():
    outputs = np.array([10.0, 11, 12, 13])
    assert training.accuracy(outputs, np.array([-1, -1, 1, 1]), 11.5) == 1
    assert training.accuracy(outputs, np.array([-1, 1, 1, 1]), 11.5) == 0.75
    assert np.isnan(training.accuracy(np.array([np.nan, 1]), np.array([1, -1]), 0))
    assert training.accuracy(np.array([-1.0, 1, 2, 3]), np.array([-1, 1, 1, 1]), threshold=0) == 1


def test_post_selection_probability():
    k = np.array([[1, 0.2], [0.4, -0.4]])
    assert 1 / training.post_selection_probability(k) == pytest.approx([2 / 1.04, 2 / 0.32])


def test_readout_measurements():
    """Overlap cos 60 degrees = 1/2, and cos 0; overlaps 0.6, 0.8 and 1, whose median is 0.8."""
    overlap = training.overlaps(np.array([[2.0, 2 * np.sqrt(3)], [5, 0]]), np.array([3.0, 0]))
    assert overlap == pytest.approx([0.5, 1])
    assert training.readout_measurements(overlap) == pytest.approx([3, 0])
    overlap = training.overlaps(np.array([[3.0, 4], [4, 3], [1, 0]]), np.array([2.0, 0]))
    measurements = training.readout_measurements(overlap, np.median(overlap))
    assert measurements[[0, 2]] == pytest.approx([0.64 / 0.04, 0])
    assert training.readout_measurements(np.array([0.0]))[0] == np.inf


def kernels_of(train, test, k_thresh=1.0, network="fully-connected", limits=None):
    """A trial's kernels from two matrices, half of the images in each class."""
    n, x = train.shape[0], len(test)
    return training.TrialKernels(
        trial=Trial(NETWORKS[network], NETWORKS[network].classes, n, 0),
        depth=36,
        separability=0.25,
        train=train,
        test=test,
        train_label=np.repeat([1, -1], n // 2),
        test_label=np.repeat([1, -1], x // 2),
        scale=training.KernelScale(k_thresh, limits),
    )


def full_patterns(n):
    """A pattern of both conventions that keeps everything inside the classes."""
    return [pattern_of(same_class(n), convention) for convention in training.conventions]


def test_trial_quantities_by_hand():
    """A diagonal kernel: every approximation is exact, and every count follows from k* alone."""
    kernels = kernels_of(2 * np.eye(4), np.array([[4.0, 2, 0, 0], [0, 0, 2, 2]]), k_thresh=4)
    found = training.trial_quantities(kernels, full_patterns(4))
    overlap = np.array([1.5 / np.sqrt(1.25) / 2, -1 / np.sqrt(0.5) / 2])
    for name, expected in [
        ("sparsity", 1),
        ("condition_number", 1),
        ("numerical_flags", 0),
        ("smallest_eigenvalue", 2),
        ("positive_definite", 1),
        ("accuracy", 1),
    ]:
        assert (found[name] == expected).all(), name
        assert {"approximation", "convention", "pattern"} <= set(found[name].dims)
    assert found.accuracy_all_images.isnull().all()
    for approximation in ("sparsified", "diagonal"):
        readout = found.readout_measurements.sel(
            approximation=approximation, convention="corrected", first_pattern=0
        )
        assert readout.sel(threshold="zero").values == pytest.approx(1 / overlap**2 - 1)
        about_median = (1 - overlap**2) / (overlap - overlap.mean()) ** 2
        assert readout.sel(threshold="test median").values == pytest.approx(about_median)
    assert found.off_diagonal_ratio == 0
    post_selection = found.post_selection_measurements
    for divisor in ("test set", "fixed constant"):
        assert post_selection.sel(divisor=divisor).values == pytest.approx([4 / 1.25, 8])
    assert found.clipped_share.sel(divisor="fixed constant") == 1 / 8
    assert (found.depth, found.separability) == (36, 0.25)
    assert all("long_name" in found[name].attrs and "units" in found[name].attrs for name in found)


def test_label_purity_by_hand():
    """Of four images the first two are each other's closest, the others are closest to image 0."""
    kernel = np.eye(4)
    for i, j, entry in [(0, 1, 0.9), (0, 2, -0.5), (0, 3, 0.4), (2, 3, 0.1), (1, 2, 0.2)]:
        kernel[i, j] = kernel[j, i] = entry
    assert training.label_purity(kernels_of(kernel, np.ones((2, 4)))) == 0.5
    part = kernels_of(scipy.sparse.csr_array(kernel), np.ones((2, 4)))
    assert np.isnan(training.label_purity(part))


def test_k_star_is_rescaled_in_the_originals_convention_alone():
    """k* of at most 1/2, and a largest off-diagonal entry of 1/4: 1 is clipped from 1/4 on."""
    kernel = np.eye(2) + 0.25 * (1 - np.eye(2))
    kernels = kernels_of(kernel, np.array([[0.5, 0.1], [-0.2, 0.2]]))
    found = training.trial_quantities(kernels, full_patterns(2))
    expected = {
        "test set": [2 / 1.04, 2 / 0.32],
        "fixed constant": [2 / 0.26, 2 / 0.08],
        "training set": [2 / 1.16, 2 / 1.28],
    }
    for divisor, measurements in expected.items():
        values = found.post_selection_measurements.sel(divisor=divisor).values
        assert values == pytest.approx(measurements), divisor
    assert found.clipped_share.sel(divisor="training set") == 0.25


def test_of_a_part_of_the_kernel_the_exact_quantities_are_left_out():
    """The same kernel whole and as the entries that its patterns need: the others are equal."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(8, 8))
    kernel = kernel @ kernel.T + np.eye(8)
    test, patterns = rng.random((4, 8)), full_patterns(8)
    part = kernels_of(scipy.sparse.csr_array(kernel * same_class(8)), test)
    assert not part.is_whole
    record = training.trial_quantities(part, patterns)
    whole = training.trial_quantities(kernels_of(kernel, test), patterns)
    assert record.approximation.values.tolist() == ["sparsified", "diagonal"]
    assert np.isnan(record.off_diagonal_ratio)
    for name in training.prediction_quantities:
        same = whole[name].sel(approximation=["sparsified", "diagonal"])
        assert record[name].values == pytest.approx(same.values, nan_ok=True), name


@pytest.mark.parametrize("network", NETWORKS)
def test_useless_matrices_are_reported(network):
    """A kernel of ones is singular, twice as much off the diagonal indefinite.

    Flags and NaN, no exception.
    """
    limits = dict.fromkeys(training.conventions, (0.5, 0.5))
    for kernel, exact in ((np.ones((8, 8)), 2 + 4), (2 * np.ones((8, 8)) - np.eye(8), 1)):
        test = np.random.default_rng(0).random((4, 8))
        kernels = kernels_of(kernel, test, network=network, limits=limits)
        found = training.trial_quantities(kernels, full_patterns(8))
        flags = found.numerical_flags.astype(int)
        assert (flags.sel(approximation="exact") & exact == exact).all()
        sparsified = found.sel(approximation="sparsified")
        if network == "fully-connected":
            assert (flags.sel(approximation="sparsified") & exact == exact).all()
        assert (
            ((sparsified.numerical_flags.astype(int) & 1) == 0) == sparsified.positive_definite
        ).all()


@pytest.fixture
def trial_of(digits, tmp_path, monkeypatch):
    """A function that computes one trial of n = 20 in a shallow network, with a given dense_limit."""
    monkeypatch.setattr(training, "convolutional_depth", SHALLOW)
    run = Run(0, 6, tmp_path, "numba", "float64", digits)

    def compute(name, dense_limit):
        monkeypatch.setattr(training, "dense_limit", dense_limit)
        network = training.make_networks()[name]
        return training.compute_trial(run, Trial(network, network.classes, 20, 1))

    return compute


@pytest.mark.parametrize("network", NETWORKS)
def test_quantities_of_sparse_matrices_equal_those_of_dense_ones(trial_of, network):
    """A whole trial with n above dense_limit, against the same trial with n below it."""
    dense, sparse = trial_of(network, 20), trial_of(network, 19)
    assert set(dense) == set(sparse)
    for name, expected in dense.items():
        close = dict(rel=1e-6, abs=1e-9) if "readout" in name else dict(rel=1e-9)
        assert sparse[name].values == pytest.approx(expected.values, nan_ok=True, **close), name


def test_every_pattern_of_a_trial_has_a_generator_of_its_own(trial_of, monkeypatch):
    original, states = training.sparsity_pattern, []

    def watched(n, rng, *how):
        states.append(rng.bit_generator.state["state"]["state"])
        return original(n, rng, *how)

    monkeypatch.setattr(training, "sparsity_pattern", watched)
    found = trial_of("fully-connected", 1024)
    assert found.sizes["pattern"] == training.sparsity_patterns
    assert len(states) == len(set(states)) == 2 * training.sparsity_patterns


def test_the_originals_patterns_come_first_and_are_all_of_larger_trials(digits, tmp_path):
    """More patterns change nothing of the first three; in sweeps and large trials there are three."""
    trial = Trial(NETWORKS["fully-connected"], (8, 9), 20, 0)
    few, many = (training.trial_patterns(0, trial, count) for count in (3, 5))
    for convention in training.conventions:
        first = [p.matrix.toarray() for p in few if p.convention == convention]
        same = [p.matrix.toarray() for p in many if p.convention == convention][:3]
        assert np.array_equal(first, same)
    assert training.pattern_count(trial) == 30 and training.pattern_count(trial, in_sweep=True) == 3
    assert training.pattern_count(Trial(trial.network, (8, 9), 514, 0)) == 3
    record = training.compute_trial(Run(0, 4, tmp_path, "numba", "float64", digits), trial)
    assert (record.sizes["pattern"], record.sizes["first_pattern"]) == (30, 3)


def test_the_calibrated_threshold_is_tried_on_images_that_it_was_not_made_of():
    """The median of images 0, 2 and 4 is 3; of the others, 1 and 5 are right and 3 is wrong."""
    outputs, label = np.array([3.0, 4, 9, 4, 1, 2]), np.array([-1, 1, -1, -1, -1, -1])
    assert training.accuracies(outputs, label)[0] == pytest.approx(2 / 3)


def test_all_test_images_are_classified_by_the_same_weights(digits, tmp_path):
    """As many of each class as the smaller one has; of the convolutional network, none."""
    trial = Trial(NETWORKS["fully-connected"], (8, 9), 16, 0)
    run = Run(0, 4, tmp_path, "numba", "float64", digits)
    kernels = training.trial_kernels(run, trial)
    every = training.with_all_test_images(run, kernels)
    counts = [np.count_nonzero(digits.test.label == label) for label in trial.classes]
    assert len(every.all_test_label) == 2 * min(counts) and every.all_test_label.sum() == 0
    found = training.trial_quantities(every, training.trial_patterns(0, trial))
    exact = training.predict(training.approximations[0], kernels, None)
    right = (every.all_test @ exact.weights > 0) == (every.all_test_label > 0)
    at = {"approximation": "exact", "threshold": "zero"}
    assert (found.accuracy_all_images.sel(at) == right.mean()).all()
    assert found.all_test_images == 2 * min(counts)
    convolutional = replace(trial, network=NETWORKS["convolutional"])
    assert (
        training.with_all_test_images(run, replace(kernels, trial=convolutional)).all_test is None
    )


def test_a_trials_approximations_are_those_of_its_quantities(digits, tmp_path, monkeypatch):
    """What others rebuild from the kernel files alone is what the results were computed from."""
    monkeypatch.setattr(training, "convolutional_depth", SHALLOW)
    run = Run(0, 4, tmp_path, "numba", "float64", digits)
    trial = Trial(training.make_networks()["convolutional"], (1, 0), 16, 0)
    record = training.compute_trial(run, trial)
    kernels = training.stored_kernels(tmp_path, "digits-convolutional", 16, 0, 0)
    again = training.trial_quantities(kernels, training.trial_patterns(0, kernels.trial, 30))
    assert record.drop_vars("separability").identical(again.drop_vars("separability"))


@pytest.mark.slow
def test_the_sweep_measures_the_theorem(digits, tmp_path):
    """Both input variances: one is the images' own, at the other delta alone decides the ratio."""
    run = Run(0, 8, tmp_path, "numba", "float64", digits)
    record = training.compute_trial(run, Trial(NETWORKS["fully-connected"], (8, 9), 8, 0, 0.02))
    original, one = (record.sel(input_variance=name) for name in ("original", "one"))
    images = training.trial_images(run, Trial(NETWORKS["fully-connected"], (8, 9), 8, 0))
    kernel = fully_connected_ntk(images.train, depth=int(record.depth))
    y = images.train_label
    w = np.linalg.solve(kernel, y)
    error = np.linalg.norm(y / kernel[0, 0] - w) / np.linalg.norm(w)
    assert original.weight_error.sel(approximation="diagonal") == pytest.approx(error)
    excess = original.condition_number_excess.sel(approximation="exact")
    assert excess == pytest.approx(np.linalg.cond(kernel) - 1)
    closest = theorem.closest_pair_ratio(int(record.depth), record.separability.item())
    assert one.correlation_of_gradients == pytest.approx(closest)
    assert original.correlation_of_gradients > closest
    assert original.off_diagonal_bound == one.off_diagonal_bound > closest
    plan = training.compute_trial(run, Trial(NETWORKS["fully-connected"], (8, 9), 8, 0))
    assert "input_variance" not in plan.dims


def test_a_trial_by_entries_equals_the_whole_one(digits, tmp_path, monkeypatch):
    """With n = 64 computed both ways.

    The same entries, k* and quantities of what does not need all of K.
    """
    monkeypatch.setattr(training, "convolutional_depth", SHALLOW)
    monkeypatch.setattr(training, "test_size_above_limit", 4)
    monkeypatch.setattr(training, "precision_above_limit", "float64")
    records, kernels = {}, {}
    for name, limit in (("whole", 512), ("entries", 32)):
        monkeypatch.setattr(training, "whole_kernel_limit", limit)
        (tmp_path / name).mkdir()
        run = Run(0, 4, tmp_path / name, "numba", "float64", digits)
        trial = Trial(training.make_networks()["convolutional"], (1, 0), 64, 0)
        kernels[name] = training.trial_kernels(run, trial)
        records[name] = training.trial_quantities(kernels[name], training.trial_patterns(0, trial))
        read = training.stored_kernels(tmp_path / name, "digits-convolutional", 64, 0, 0)
        assert read.is_whole == (name == "whole")
    part = kernels["entries"].train.tocoo()
    assert np.array_equal(part.data, kernels["whole"].train[part.row, part.col])
    assert np.array_equal(kernels["entries"].test, kernels["whole"].test)
    for name in training.prediction_quantities:
        same = records["whole"][name].sel(approximation=["sparsified", "diagonal"])
        assert np.array_equal(records["entries"][name], same, equal_nan=True), name


def test_other_digits_have_a_name_even_as_the_constant(monkeypatch):
    """Else the tables would take their results for those of the paper's digits."""
    assert {name: network.classes for name, network in NETWORKS.items()} == training.selections
    assert Trial(NETWORKS["fully-connected"], (3, 5), 16, 0).variant == "-3v5"
    assert Trial(NETWORKS["fully-connected"], (8, 9), 16, 0).variant == ""
