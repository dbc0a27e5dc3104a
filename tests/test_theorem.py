"""The theorem's quantities, each by hand on kernels of two or three images."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from ntk import fully_connected_ntk, theorem
from ntk.fully_connected import nonlinearity

SMALL = np.array([1e-3, 1e-20, 1e-118])


def pair(off_diagonal, a=2.0, b=8.0):
    """A kernel of two images whose normalised off-diagonal entry is given."""
    entry = off_diagonal * np.sqrt(a * b)
    return np.array([[a, entry], [entry, b]])


def test_off_diagonal_ratio():
    assert theorem.off_diagonal_ratio(pair(-0.3)) == pytest.approx(0.3)
    kernel = np.array([[4.0, 1.0, 0.0], [1.0, 9.0, 6.0], [0.0, 6.0, 16.0]])
    assert theorem.off_diagonal_ratio(kernel) == pytest.approx(6 / (3 * 4))
    expected = [[0, 1 / 6, 0], [1 / 6, 0, 0.5], [0, 0.5, 0]]
    assert np.allclose(theorem.normalised_off_diagonal(kernel), expected, rtol=1e-15)


@pytest.mark.parametrize("e", SMALL)
def test_excess_condition_number_of_a_pair_is_2e_over_1_minus_e(e):
    """The eigenvalues of I + E are 1 + e and 1 - e."""
    excess = theorem.excess_condition_number(pair(e, a=1e34, b=1e34))
    assert excess == pytest.approx(2 * e / (1 - e), rel=1e-14, abs=0)


def test_excess_condition_number_of_other_kernels():
    kernel = np.full((3, 3), 0.5) + np.diag([0.5] * 3)  # eigenvalues 2, 1/2, 1/2
    assert theorem.excess_condition_number(7 * kernel) == pytest.approx(3)
    assert theorem.excess_condition_number(np.eye(3)) == 0
    assert theorem.excess_condition_number(pair(1.5)) == np.inf
    with pytest.raises(scipy.linalg.LinAlgError):
        theorem.weight_difference(np.ones((2, 2)), np.eye(2), np.ones(2))


@pytest.mark.parametrize("e", SMALL)
def test_weights_of_a_pair(e):
    """K = d (I + e X), y = (1, -1): w~ = y/d and w = y/(d (1 - e)), so |w~ - w|/|w| = e."""
    kernel, y = pair(e, a=1e34, b=1e34), np.array([1.0, -1.0])
    weights = y / np.diag(kernel)
    difference = theorem.weight_difference(kernel, np.diag(np.diag(kernel)), weights)
    error = theorem.relative_weight_error(weights, difference)
    assert error == pytest.approx(e, rel=1e-14, abs=0)
    # k* along w has the whole error as its output's, k* at 45 degrees 1/sqrt(2) of it, across it
    # none.
    tests = np.array([[1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]) * 1e-170
    errors = theorem.output_errors(tests, weights, difference)
    assert errors[:2] == pytest.approx([e, e / np.sqrt(2)], rel=1e-14, abs=0)
    assert errors[2] < 1e-15 * e


def test_weights_of_a_sparsified_kernel():
    kernel = np.array([[2.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 4.0]])
    sparsified = kernel * np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    y = np.array([1.0, 1.0, -1.0])
    weights, exact = np.linalg.solve(sparsified, y), np.linalg.solve(kernel, y)
    difference = theorem.weight_difference(kernel, sparsified, weights)
    assert np.allclose(difference, weights - exact, rtol=1e-13)
    scaled = theorem.weight_difference(kernel, sparsified, 5 * weights)
    expected = np.linalg.norm(weights - exact) / np.linalg.norm(exact)
    assert theorem.relative_weight_error(5 * weights, scaled) == pytest.approx(expected)
    assert not theorem.weight_difference(kernel, kernel, exact).any()


def test_flipped_signs():
    outputs, others = np.array([1.0, -1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0, 4.0])
    assert theorem.flipped_signs(outputs, others) == 0.25
    assert theorem.flipped_signs(outputs, others, about_median=True) == 0
    assert theorem.flipped_signs(outputs, -outputs, about_median=True) == 1


def test_cosine():
    assert theorem.cosine(np.array([1e-200, 0]), np.array([1.0, 1.0])) == pytest.approx(0.5**0.5)


# ---- the bound ----


def test_input_variance():
    """Images of unit norm have the variance s/784 at first; it rises to 1, as theory says."""
    assert theorem.input_scale(784, theorem.erf_scale / 784) == pytest.approx(1)
    assert theorem.layer_variances(1, 20) == pytest.approx(np.ones(21))
    rising = theorem.layer_variances(theorem.erf_scale / 784, 40)
    assert rising[0] == pytest.approx(0.0027456, rel=1e-4)
    assert rising[1] == pytest.approx(0.0074840, rel=1e-4)
    assert (np.diff(rising) > 0).all() and rising[-1] == pytest.approx(1, abs=1e-9)


def test_bound_by_hand():
    """With delta = 1/2 the correlation is 1/2 at once, and shrinks by 1 - mu/2 from then on."""
    assert theorem.correlation_bound(3, 0.5) == pytest.approx(0.5 * (1 - nonlinearity / 2) ** 3)
    assert theorem.correlation_bound(2, 0.1) == pytest.approx(1 - 0.1 * (1 + nonlinearity / 2) ** 2)
    turn = 39  # ln 5/ln(1 + mu/2) = 38.04
    expected = 0.5 * (1 - nonlinearity / 2) ** 11
    assert theorem.correlation_bound(turn + 11, 0.1) == pytest.approx(expected)
    assert theorem.off_diagonal_bound(6, 0.5) == theorem.correlation_bound(3, 0.5)
    # At L_conv it is O((delta/n)^2): four times ln(n/delta)/mu layers of 1 - mu/2.
    n, delta = 512, 0.5
    layers = round(8 * np.log(n / delta) / nonlinearity)
    assert theorem.off_diagonal_bound(layers, delta) < (delta / n) ** 2


@pytest.mark.parametrize("depth", [1, 5, 20, 100, 400])
def test_bound_holds_and_the_closest_pair_is_the_worst(depth):
    for delta in (1e-4, 0.01, 0.1, 0.3, 0.8):
        largest = theorem.closest_pair_ratio(depth, delta)
        assert largest <= theorem.off_diagonal_bound(depth, delta)
        cosines = np.linspace(-1 + delta, 1 - delta, 9)
        x = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
        kernel = theorem.input_scale(2) * np.vstack([[1.0, 0.0], x])
        entries = fully_connected_ntk(kernel, depth=depth)
        ratios = np.abs(entries[0, 1:]) / entries[0, 0]
        assert ratios.max() == pytest.approx(largest, rel=1e-9)
        assert ratios[len(ratios) // 2] < 1e-15  # orthogonal images stay so


def test_small_entries_shrink_by_the_ratio_of_slopes():
    assert theorem.shrinkage == pytest.approx(np.sqrt(5) / 3, rel=1e-14)
    ratios = [theorem.closest_pair_ratio(depth, 0.9) / (depth + 1) for depth in (200, 201)]
    assert ratios[1] / ratios[0] == pytest.approx(theorem.shrinkage, rel=1e-5)
    # e^4 times n/delta means as many layers more.
    layers = [round(0.5 * 8 * logarithm / nonlinearity) for logarithm in (4, 8)]
    logs = [np.log(theorem.closest_pair_ratio(layer, 0.9) / (layer + 1)) for layer in layers]
    assert (logs[1] - logs[0]) / 4 == pytest.approx(theorem.predicted_exponent(0.5), rel=0.01)


# ---- neighbourhoods ----


def test_neighbourhoods():
    """Test images at 0, 60 and 90 degrees of training images at 0 (+1), 30 (-1) and 180 (-1)."""
    x = np.array([[1, 0], [np.sqrt(3) / 2, 0.5], [-1, 0]])
    test = np.array([[1, 0], [0.5, np.sqrt(3) / 2], [0, 1]])
    label, test_label = np.array([1, -1, -1]), np.array([1, -1, 1])
    distances = theorem.closest_distances(x, test)
    assert distances == pytest.approx([0, 1 - np.sqrt(3) / 2, 0.5], abs=1e-15)
    found = theorem.neighbourhoods(x, label, test, test_label, radius=0.2)
    assert found == {
        "with_neighbour": pytest.approx(2 / 3),  # the first two
        "size": pytest.approx((2 / 3 + 1 / 3 + 0) / 3),
        "purity": pytest.approx((1 / 2 + 1) / 2),
    }
    assert np.isnan(theorem.neighbourhoods(x, label, -test, test_label, -1)["purity"])


# ---- gradient descent ----


def test_steps_of_gradient_descent_by_simulation():
    kernel = np.array([[3.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 1.0]])
    y = np.array([1.0, -1.0, 1.0])
    eigenvalues, components = theorem.spectrum(kernel, y)
    residual, rate, steps = y, 2 / (eigenvalues[0] + eigenvalues[-1]), 0
    while np.linalg.norm(residual) > 0.01 * np.linalg.norm(y):
        residual, steps = residual - rate * kernel @ residual, steps + 1
    assert steps > 4
    assert theorem.gradient_descent_steps(eigenvalues, components) == steps
    assert theorem.second_condition_number(eigenvalues) == eigenvalues[1] / eigenvalues[0]
    assert theorem.gradient_descent_steps(np.array([0.0, 1.0]), y[:2]) == np.inf
    # A multiple of the identity takes one step, eigenvalues 1 and 3 the t of 2^-t <= 1/100.
    assert theorem.gradient_descent_steps(np.array([2.0, 2.0]), y[:2]) == 1
    assert theorem.gradient_descent_steps(np.array([1.0, 3.0]), y[:2]) == 7


def test_early_stopping():
    """One image: k*^T (1 - exp(-t))/K y. And outputs that were stopped are found again."""
    one = theorem.early_stopped_outputs(
        np.array([[2.0]]), np.array([[3.0]]), np.array([1.0]), np.array([0.5, 1e9])
    )
    assert one == pytest.approx(np.array([[1.5 * (1 - np.exp(-0.5))], [1.5]]))
    rng = np.random.default_rng(0)
    root = rng.normal(size=(8, 5))
    kernel, kernel_test = root[:3] @ root[:3].T, root[3:] @ root[:3].T
    y = np.array([1.0, -1.0, 1.0])
    stopped = theorem.early_stopped_outputs(kernel, kernel_test, y, np.array([3.0]))[0]
    time, correlation = theorem.closest_stopping_time(kernel, kernel_test, y, 7 * stopped + 1)
    assert time == pytest.approx(3, rel=0.03) and correlation > 0.9999


# ---- all of it for one training set ----


def test_a_case_by_hand():
    """Two images, K = [[2, 1], [1, 2]], y = (1, -1): w = y.

    What is inverted: K, the matrix with an entry of 1/2, the diagonal. k* = (1, 0) and (1, 1).
    """
    kernel = np.array([[2.0, 1.0], [1.0, 2.0]])
    half = np.array([[2.0, 0.5], [0.5, 2.0]])
    diagonal = scipy.sparse.csr_array(2 * np.eye(2))
    tests, y = np.array([[1.0, 0.0], [1.0, 1.0], [2.0, 1.0]]), np.array([1, -1])
    case = theorem.Case(kernel, tests, y, [kernel, half, diagonal], depth=3, delta=0.5)
    assert case.excess_condition_numbers() == pytest.approx([2, 2.5 / 1.5 - 1, 0])
    assert case.weight_errors() == pytest.approx([0, 1 / 3, 1 / 2])  # w~ = y/1.5 and y/2
    assert case.largest_output_errors() == pytest.approx([0, 0.5**0.5 / 3, 0.5**0.5 / 2])
    assert case.flipped_shares() == [0, 0, 0]
    assert case.descent_steps() == 7  # (1 - 2/(3 + 1))^t <= 0.01, the residual along y
    assert case.second_condition_number() == 1


def test_signs_that_a_case_flips():
    """K = [[1, 0.9], [0.9, 1]], k* = (1, 0.95): along w = K^-1 (1, 0.8), not along y."""
    kernel = np.array([[1.0, 0.9], [0.9, 1.0]])
    y = np.array([1.0, 0.8])
    case = theorem.Case(kernel, np.array([[0.3, 1.0]]), y, [kernel, np.eye(2)], 3, 0.5)
    assert np.sign(case.kernel_test @ np.linalg.solve(kernel, y)) == -1
    assert case.flipped_shares() == [0, 1]
