"""What the paper's theorem is about, as pure functions of kernels, weights, labels and images.

The theorem (arXiv:2107.09200, fully connected, on inputs of unit variance): with
L >= L_conv = 8 ln(n/delta)/mu layers

    max |K_ij|/K_ii = O(1/n^2),   kappa - 1 = O(1/n),   |w~ - w|/|w| = O(1/n)

where K is the NTK of n training images, no two of which are closer than delta, kappa its condition
number, w = K^-1 y, and w~ = K~^-1 y with K~ the diagonal of K, or K with entries left out. Every
function here gives one of these numbers, or one that says what stands behind it. Differences are
computed from what differs: entries of 1e-118 of the diagonal come out with all their digits.

In order: the kernel, the weights and outputs, the bound, neighbourhoods of images, gradient
descent, and all of it for one training set.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from ntk.fully_connected import diagonal_ntk, erf_scale, fully_connected_ntk, nonlinearity

Array = NDArray[np.float64]

# A layer multiplies a small correlation by the dual activation's slope at 0, 1 - mu, and the
# NTK's diagonal by its slope at 1. So of each of the L + 1 terms of a small off-diagonal entry,
# in units of the diagonal, it leaves their ratio: the entry goes like (L + 1) shrinkage^L.
slope_at_one: float = erf_scale * (4 / np.pi) / np.sqrt(5)
shrinkage: float = (1 - nonlinearity) / slope_at_one  # = sqrt(5)/3

# --------------------------------------------------------------------------------------------------
# The kernel
# --------------------------------------------------------------------------------------------------


def normalised_off_diagonal(kernel: Array) -> Array:
    """E = D^(-1/2) K D^(-1/2) - I, D the diagonal of K [n, n]; E's own diagonal is exactly zero."""
    root = np.sqrt(np.diag(kernel))
    normalised = kernel / root / root[:, None]
    np.fill_diagonal(normalised, 0)
    return normalised


def off_diagonal_ratio(kernel: Array) -> float:
    """Largest |K_ij|/sqrt(K_ii K_jj), i != j, of a kernel [n, n]. The theorem: O(1/n^2)."""
    return np.abs(normalised_off_diagonal(kernel)).max()


def excess_condition_number(kernel: Array) -> float:
    """The condition number minus 1 of D^(-1/2) K D^(-1/2), D the diagonal of K [n, n].

    Where D is constant that is kappa - 1 of K: all images of the fully-connected network have
    unit norm, so there it is. From the eigenvalues e of E, as (e_max - e_min)/(1 + e_min):
    nothing cancels, however close to 1 kappa is. The theorem: O(1/n). Infinite where K is not
    positive definite.
    """
    off_diagonal = normalised_off_diagonal(kernel)
    size = np.abs(off_diagonal).max()
    if size == 0:
        return 0.0
    eigenvalues = size * scipy.linalg.eigvalsh(off_diagonal / size)
    lowest, highest = eigenvalues[0], eigenvalues[-1]
    return (highest - lowest) / (1 + lowest) if lowest > -1 else np.inf


# --------------------------------------------------------------------------------------------------
# Weights and outputs
# --------------------------------------------------------------------------------------------------


def weight_difference(kernel: Array, approximation: Array, weights: Array) -> Array:
    """w~ - w = K^-1 (K - K~) w~ [n], from K, K~ [n, n] and w~ = K~^-1 y [n] of any scale.

    w is that of the same scale. Entries that K and K~ share drop out exactly.
    """
    return scipy.linalg.solve(kernel, (kernel - approximation) @ weights, assume_a="sym")


def relative_weight_error(weights: Array, difference: Array) -> float:
    """|w~ - w|/|w|, from w~ [n] and w~ - w [n] of `weight_difference`. The theorem: O(1/n)."""
    return norm(difference) / norm(weights - difference)


def output_errors(kernel_test: Array, weights: Array, difference: Array) -> Array:
    """|k*.(w~ - w)|/(|k*| |w|) of every test image, k* [x, n] -> [x]. The theorem: O(1/n).

    That is not the error relative to the output k*.w: for that divide by the overlap
    |k*.w|/(|k*| |w|), which may be small.
    """
    # Without this the squares of tiny entries would be zero.
    k = kernel_test / np.abs(kernel_test).max(axis=1, keepdims=True)
    k /= np.linalg.norm(k, axis=1, keepdims=True)
    return np.abs(k @ (difference / norm(weights - difference)))


def flipped_signs(outputs: Array, others: Array, about_median: bool = False) -> float:
    """Share of test images whose class differs between two sets of outputs [x].

    The class is the sign of the output or, about_median, on which side of all outputs' median it
    is.
    """
    if about_median:
        outputs, others = outputs - np.median(outputs), others - np.median(others)
    return float(np.mean((outputs > 0) != (others > 0)))


def cosine(a: Array, b: Array) -> float:
    """Cosine of the angle between two vectors [n]."""
    return float((a / norm(a)) @ (b / norm(b)))


def norm(vector: Array) -> float:
    """Euclidean norm by BLAS, which scales: the squares of entries below 1e-162 would be zero."""
    return scipy.linalg.norm(vector)


# --------------------------------------------------------------------------------------------------
# The bound
# --------------------------------------------------------------------------------------------------


def input_scale(pixels: int, variance: float = 1) -> float:
    """What images of unit norm are multiplied by for that variance of the first layer's neurons.

    It is q0 = s |x|^2/pixels in the convention of neural-tangents, with s of `erf_scale`:
    s/784 = 0.0027 for the original's images, where the theorem takes 1.
    """
    return np.sqrt(variance * pixels / erf_scale)


def layer_variances(variance: float, depth: int) -> Array:
    """Variance of a neuron's input before every hidden layer and after the last one, [depth + 1].

    From that of the first layer. It tends to 1, where the normalised erf keeps it.
    """
    return diagonal_ntk(np.full((1, 1), input_scale(1, variance)), depth)[0][:, 0]


def correlation_bound(depth: float, delta: float) -> float:
    """Bound on the correlation of two images after `depth` layers, if it was 1 - delta at first.

    The dual activation of a normalised sigma with E[sigma] = 0 is a power series without a
    constant, of coefficients that are not negative, have the sum 1, and begin with 1 - mu. So it
    is at most (1 - mu) c + mu c^2: 1 - c grows by a factor of 1 + mu/2 at least while c >= 1/2,
    and after that, from layer L0 = ceil(ln(1/(2 delta))/ln(1 + mu/2)) on, c shrinks by 1 - mu/2
    at least:

        1 - delta (1 + mu/2)^L  for L <= L0,   (1/2) (1 - mu/2)^(L - L0)  beyond

    (after Agarwal, Awasthi and Kale, arXiv:2002.01523).
    """
    rate = nonlinearity / 2
    turn = max(np.ceil(np.log(1 / (2 * delta)) / np.log1p(rate)), 0.0)
    if depth <= turn:
        return 1 - delta * (1 + rate) ** depth
    return min(0.5, 1 - delta) * (1 - rate) ** (depth - turn)


def off_diagonal_bound(depth: int, delta: float) -> float:
    """Bound on `off_diagonal_ratio` at a depth: `correlation_bound` after half of the layers.

    The NTK is a sum over layers h of the correlation after h layers times the slopes of all later
    layers. Terms of the second half are at most this bound, in units of the diagonal's terms, by
    their correlation; those of the first half by the slopes of the second, which fall faster: by
    `shrinkage` a layer in the end. With depth L_conv it is O((delta/n)^2) = O(1/n^2).
    """
    return correlation_bound(depth / 2, delta)


def closest_pair_ratio(depth: int, delta: float) -> float:
    """The largest `off_diagonal_ratio` that a separation delta allows, that of x.x' = 1 - delta.

    On inputs of unit variance. The NTK is a power series in the correlation whose coefficients are
    not negative, so no other pair's entry is larger: unlike `off_diagonal_bound` this is reached.
    """
    cos = 1 - delta
    pair = np.array([[1.0, 0.0], [cos, np.sqrt((1 - cos) * (1 + cos))]])
    return off_diagonal_ratio(fully_connected_ntk(input_scale(2) * pair, depth=depth))


def predicted_exponent(depth_factor: float) -> float:
    """Exponent a of off/diag ~ (n/delta)^a at depth_factor L_conv, but for a factor of L + 1.

    By `shrinkage` in every layer; the factor L + 1 goes like ln(n/delta).
    """
    return 8 * depth_factor * np.log(shrinkage) / nonlinearity


# --------------------------------------------------------------------------------------------------
# Neighbourhoods: what the clipping of k* rests on
# --------------------------------------------------------------------------------------------------


def closest_distances(x: Array, test: Array) -> Array:
    """1 - max_i x*.x_i of every test image, from unit vectors [n, d] and [x, d] -> [x].

    k* clipped at the NTK of two images with inner product 1 - epsilon changes only where this is
    below epsilon.
    """
    return 1 - (test @ x.T).max(axis=1)


def neighbourhoods(
    x: Array, label: NDArray, test: Array, test_label: NDArray, radius: float
) -> dict[str, float]:
    """Training images x [n, d] within 1 - x*.x_i <= radius of test images [x, d], unit vectors all.

    with_neighbour: share of test images that have any; size: how many, as a share of the training
    set, on average over all test images; purity: share of neighbours with the test image's label,
    on average over the test images that have any, NaN where none has.
    """
    near = test @ x.T >= 1 - radius
    counts = near.sum(axis=1)
    alike = (near & (label == test_label[:, None])).sum(axis=1)
    some = counts > 0
    return {
        "with_neighbour": float(np.mean(some)),
        "size": float(np.mean(counts) / len(x)),
        "purity": float(np.mean(alike[some] / counts[some])) if some.any() else np.nan,
    }


# --------------------------------------------------------------------------------------------------
# Gradient descent on an infinitely wide network, from the spectrum of its kernel
# --------------------------------------------------------------------------------------------------


def spectrum(kernel: Array, y: NDArray) -> tuple[Array, Array]:
    """Eigenvalues [n], rising, of K [n, n], and the components of y [n] along their vectors."""
    eigenvalues, vectors = scipy.linalg.eigh(kernel)
    return eigenvalues, vectors.T @ y


def gradient_descent_steps(eigenvalues: Array, components: Array, share: float = 0.01) -> float:
    """Steps of gradient descent until |residual| <= share |y|, from the `spectrum` of K.

    The residual of component i after t steps of rate r is (1 - r lambda_i)^t y_i (Jacot et al.,
    arXiv:1806.07572, in discrete time). The rate is 2/(lambda_max + lambda_min), of all constant
    ones that with the fastest decay of the slowest component. Infinite where an eigenvalue is not
    positive, to rounding.
    """
    rate = 2 / (eigenvalues[-1] + eigenvalues[0])
    factors = np.abs(1 - rate * eigenvalues)
    if factors.max() >= 1:
        return np.inf
    target = share * norm(components)

    def finished(steps: int) -> bool:
        return norm(factors**steps * components) <= target

    high = 1
    while not finished(high):
        high *= 2
    low = high // 2  # not finished, or 0
    while high - low > 1:
        middle = (low + high) // 2
        if finished(middle):
            high = middle
        else:
            low = middle
    return high


def second_condition_number(eigenvalues: Array) -> float:
    """lambda_2/lambda_min of rising eigenvalues [n]: kappa but for one large mode."""
    return eigenvalues[-2] / eigenvalues[0]


def early_stopped_outputs(kernel: Array, kernel_test: Array, y: NDArray, times: Array) -> Array:
    """Outputs k*^T K^-1 (1 - exp(-t K)) y of gradient flow from zero, stopped at times t. [t, x]

    times: [t], in units of 1/lambda_max; kernel [n, n], kernel_test [x, n] (Jacot et al.,
    arXiv:1806.07572).
    """
    eigenvalues, vectors = scipy.linalg.eigh(kernel)
    components = vectors.T @ y
    decay = times[:, None] * eigenvalues / eigenvalues[-1]
    weights = -np.expm1(-decay) / eigenvalues * components
    return weights @ (kernel_test @ vectors).T


def closest_stopping_time(
    kernel: Array, kernel_test: Array, y: NDArray, outputs: Array
) -> tuple[float, float]:
    """When gradient flow on K gives outputs closest to `outputs` [x], and their correlation then.

    The time is in units of 1/lambda_max, searched for on a grid of 40 times a decade from 0.1 to
    1e6.
    """
    times = np.logspace(-1, 6, 281)
    stopped = early_stopped_outputs(kernel, kernel_test, y, times)
    correlations = [np.corrcoef(row, outputs)[0, 1] for row in stopped]
    best = int(np.argmax(correlations))
    return float(times[best]), float(correlations[best])


# --------------------------------------------------------------------------------------------------
# All of it for one training set
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One training set: K [n, n], k* [x, n], classes y [n], what is inverted in K's place, depth.

    in_its_place: matrices K~, dense or sparse, K itself or its diagonal among them. delta: the
    images' separation. A method gives a number for each K~.
    """

    kernel: Array
    kernel_test: Array
    y: NDArray
    in_its_place: Sequence[Any]
    depth: int
    delta: float

    @functools.cached_property
    def dense(self) -> list[Array]:
        """The matrices in K's place."""
        matrices = self.in_its_place
        return [each.toarray() if scipy.sparse.issparse(each) else each for each in matrices]

    @functools.cached_property
    def weights_and_differences(self) -> list[tuple[Array, Array]]:
        """w~ and w~ - w of each, in units of y over the mean of the diagonal."""
        scale = np.diag(self.kernel).mean()
        pairs = []
        for matrix in self.dense:
            weights = scipy.linalg.solve(matrix / scale, self.y, assume_a="sym")
            difference = weight_difference(self.kernel / scale, matrix / scale, weights)
            pairs.append((weights, difference))
        return pairs

    @functools.cached_property
    def spectrum(self) -> tuple[Array, Array]:
        """`spectrum` of K."""
        return spectrum(self.kernel, self.y)

    def excess_condition_numbers(self) -> list[float]:
        """`excess_condition_number` of each."""
        return [excess_condition_number(matrix) for matrix in self.dense]

    def weight_errors(self) -> list[float]:
        """`relative_weight_error` of each."""
        return [relative_weight_error(*pair) for pair in self.weights_and_differences]

    def largest_output_errors(self) -> list[float]:
        """The largest of `output_errors` of each."""
        pairs = self.weights_and_differences
        return [output_errors(self.kernel_test, *pair).max() for pair in pairs]

    def flipped_shares(self) -> list[float]:
        """`flipped_signs` of each, against the outputs of K."""
        k = self.kernel_test / np.abs(self.kernel_test).max(axis=1, keepdims=True)
        shares = []
        for weights, difference in self.weights_and_differences:
            shares.append(flipped_signs(k @ weights, k @ (weights - difference)))
        return shares

    def descent_steps(self) -> float:
        """`gradient_descent_steps` on K."""
        return gradient_descent_steps(*self.spectrum)

    def second_condition_number(self) -> float:
        """`second_condition_number` of K."""
        return second_condition_number(self.spectrum[0])
