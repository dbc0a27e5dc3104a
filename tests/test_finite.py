"""Networks of finite width: their empirical NTK, and their training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import off_diagonal
from kernel_images import flat_images, small_images

from ntk import convolutional_ntk, finite, fully_connected_ntk


def by_jacobians(function, weights):
    """The NTK of function(weights) [n] as JAX's Jacobian times itself, and the outputs."""
    jacobians = jax.jit(jax.jacrev(function))(weights)
    products = [jnp.tensordot(j, j, axes=(tuple(range(1, j.ndim)),) * 2) for j in jacobians]
    return np.array(sum(products)), np.array(function(weights))


@pytest.mark.parametrize("depth", [0, 3])
def test_empirical_ntk_is_the_product_of_jacobians(depth):
    x = flat_images(5)[:, :30]
    weights = finite.draw_weights(30, 7, depth, np.random.default_rng(0), np.float64)
    with jax.enable_x64(True):
        expected, outputs = by_jacobians(lambda w: finite.network(w, jnp.asarray(x)), weights)
    kernel, found = finite.empirical_ntk(weights, x)
    assert np.allclose(kernel, expected, rtol=1e-10, atol=1e-14)
    assert np.allclose(found, outputs, rtol=1e-10)
    columns, _ = finite.empirical_ntk(weights, x, 2)
    assert np.array_equal(columns, kernel[:, :2])


@pytest.mark.slow
def test_empirical_convolutional_ntk_is_the_product_of_jacobians():
    x = small_images(2, (17, 18))
    weights = finite.draw_convolutional_weights(2, 6, np.random.default_rng(0), np.float64)
    with jax.enable_x64(True):
        shifts = [np.zeros(shape) for shape in finite.layer_shapes(weights, x)]
        expected, outputs = by_jacobians(
            lambda w: finite.convolutional_network(w, jnp.asarray(x), shifts)[0], weights
        )
        kernel, found = finite.empirical_convolutional_ntk(weights, x, 2)
    assert np.allclose(kernel, expected[:, :2], rtol=1e-10, atol=1e-14)
    assert np.allclose(found, outputs, rtol=1e-10)


def mean_and_error(kernels):
    """Mean and standard error over networks, [n, n] each."""
    return np.mean(kernels, axis=0), np.std(kernels, axis=0, ddof=1) / np.sqrt(len(kernels))


def test_mean_of_finite_networks_is_the_infinite_kernel():
    """Width 256, depth 3, but for a bias of the order of depth/width."""
    x, depth, width = flat_images(4) * 16, 3, 256
    rng = np.random.default_rng(1)
    kernels = []
    for _ in range(30):
        weights = finite.draw_weights(x.shape[1], width, depth, rng)
        kernels.append(finite.empirical_ntk(weights, x)[0])
    mean, error = mean_and_error(kernels)
    expected = fully_connected_ntk(x, depth=depth)
    size = np.diag(expected).mean()
    assert (np.abs(mean - expected) < 4 * error + size * depth / width).all()
    assert (error < 0.05 * size).all()


@pytest.mark.slow
def test_mean_of_finite_convolutional_networks_is_the_infinite_kernel():
    x, rng = small_images(3), np.random.default_rng(1)
    kernels = []
    for _ in range(40):
        weights = finite.draw_convolutional_weights(64, 3, rng)
        kernels.append(finite.empirical_convolutional_ntk(weights, x)[0])
    mean, error = mean_and_error(kernels)
    expected = convolutional_ntk(x, depth=3)
    assert (np.abs(mean - expected) < 4 * error + expected * 5 / 64).all()
    assert (error < 0.1 * expected).all()


def test_initial_covariance_is_that_of_random_outputs():
    x, depth, width = flat_images(3) * 16, 3, 256
    rng = np.random.default_rng(2)
    draws = [finite.draw_weights(x.shape[1], width, depth, rng) for _ in range(200)]
    outputs = np.array([finite.empirical_ntk(weights, x)[1] for weights in draws])
    expected = finite.initial_covariance(x, depth)
    products = outputs[:, :, None] * outputs[:, None, :]
    mean, error = mean_and_error(products)
    assert (np.abs(mean - expected) < 4 * error + depth / width).all()
    assert off_diagonal(error).max() < 0.12


def test_training_ends_where_the_residual_is_a_hundredth():
    x, y = flat_images(4) * 16, np.array([1.0, 1.0, -1.0, -1.0])
    weights = finite.draw_weights(x.shape[1], 512, 2, np.random.default_rng(3))
    kernel, initial = finite.empirical_ntk(weights, x)
    largest = np.linalg.eigvalsh(kernel)[-1]
    trained, steps, rate = finite.train(weights, x, y + initial, 1 / largest)
    residual = finite.empirical_ntk(trained, x)[1] - initial - y
    assert steps > 1 and rate == 1 / largest
    assert np.linalg.norm(residual) <= 0.0101 * np.linalg.norm(y)
    _, fewer, _ = finite.train(weights, x, y + initial, 1 / largest, share=0.5)
    assert 1 <= fewer < steps
    assert finite.train(weights, x, y + initial, 1 / largest, limit=1)[1] == -1


def test_a_wide_network_trains_like_its_kernel():
    """Its outputs on other images are those of regression with its own NTK, nearly."""
    x, y = flat_images(9) * 16, np.array([1.0, 1.0, -1.0, -1.0])
    weights = finite.draw_weights(x.shape[1], 2048, 1, np.random.default_rng(4))
    kernel, initial = finite.empirical_ntk(weights, x, 4)
    rate = 1 / np.linalg.eigvalsh(kernel[:4])[-1]
    trained, _, _ = finite.train(weights, x[:4], y, rate, share=1e-4)
    final = finite.empirical_ntk(trained, x)[1]
    correction = np.linalg.solve(kernel[:4], y - initial[:4])
    expected = initial[4:] + kernel[4:] @ correction
    assert np.abs(final[4:] - expected).max() < 0.05
    assert np.abs(final - initial).max() > 0.5


def test_a_rate_that_is_too_large_is_halved():
    x, y = flat_images(4) * 16, np.array([1.0, 1.0, -1.0, -1.0])
    weights = finite.draw_weights(x.shape[1], 64, 2, np.random.default_rng(5))
    largest = np.linalg.eigvalsh(finite.empirical_ntk(weights, x)[0])[-1]
    _, steps, rate = finite.train(weights, x, y, 1024 / largest)
    assert steps > 0 and rate < 16 / largest
