"""Networks that can be built: their empirical NTK, and their training by gradient descent.

The NTK of ntk/fully_connected.py is the limit of infinite width. A network of `depth` hidden
layers of `width` neurons, in the same parameterisation with standard normal weights W_0 ...
W_depth, is

    a_0 = x,   z_l = sqrt(s/w_l) a_l W_l,   a_(l+1) = erf(z_l),   f = z_depth

where w_l is the number of inputs of layer l. The gradient of f(x) by W_l is sqrt(s/w_l) a_l(x)
g_l(x)^T with g_l = df/dz_l, so the empirical NTK, the inner product of the gradients of two
images, is

    Theta(x, x') = sum over l of (s/w_l) (a_l.a_l') (g_l.g_l')

(Jacot et al., arXiv:1806.07572). That takes one forward and one backward pass, and no gradient is
ever formed. For convolutions a and g are per pixel, and the gradients of single layers are formed.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from ntk.fully_connected import erf_scale, next_variance

Floats = NDArray[np.floating[Any]]
Array = NDArray[np.float64]

# --------------------------------------------------------------------------------------------------
# Fully connected
# --------------------------------------------------------------------------------------------------


def draw_weights(
    pixels: int, width: int, depth: int, rng: np.random.Generator, dtype: Any = np.float32
) -> list[Floats]:
    """Standard normal W_0 [pixels, width], W_1 ... [width, width], and the last one [width, 1]."""
    widths = [pixels, *[width] * depth, 1]
    return [rng.standard_normal(shape, dtype) for shape in itertools.pairwise(widths)]


def empirical_ntk(
    weights: Sequence[Floats], x: Floats, columns: int | None = None
) -> tuple[Array, Array]:
    """The network's NTK of images x [n, d] with the first `columns` of them, by default with all.

    Returns (kernel [n, columns], outputs f [n]), in float64, from passes in the precision of the
    weights.
    """
    x = x.astype(weights[0].dtype)
    activations, slopes = [x], []
    for weight in weights[:-1]:
        z = layer_scale(weight) * (activations[-1] @ weight)
        slopes.append(np.exp(-(z**2)) * (2 / np.pi**0.5))
        activations.append(scipy.special.erf(z))
    slopes.append(np.ones((len(x), 1), x.dtype))
    outputs = layer_scale(weights[-1]) * (activations[-1] @ weights[-1])[:, 0]

    kernel = np.zeros((len(x), len(x[:columns])))
    gradient = slopes[-1]
    for weight, a, slope in zip(weights[::-1], activations[::-1], slopes[::-1], strict=True):
        gradient = gradient * slope
        products = (a @ a[:columns].T) * (gradient @ gradient[:columns].T)
        kernel += layer_scale(weight) ** 2 * products.astype(np.float64)
        gradient = layer_scale(weight) * (gradient @ weight.T)
    return kernel, outputs.astype(np.float64)


def layer_scale(weight: Floats) -> float:
    """The layer's sqrt(s/w), a plain float: NumPy would compute in its own precision otherwise."""
    return float(np.sqrt(erf_scale / len(weight)))


def initial_covariance(x: Array, depth: int) -> Array:
    """Covariance of an infinitely wide network's outputs before it is trained. [n, d] -> [n, n]

    They are normal with mean 0; the covariance is K of ntk/fully_connected.py after the last
    layer (Lee et al., arXiv:1711.00165).
    """
    q = erf_scale * np.sum(x**2, axis=1) / x.shape[1]
    covariance = erf_scale * x @ x.T / x.shape[1]
    for _ in range(depth):
        norm = np.sqrt(np.outer(1 + 2 * q, 1 + 2 * q))
        covariance = erf_scale * (2 / np.pi) * np.arcsin(2 * covariance / norm)
        q = next_variance(q)
        np.fill_diagonal(covariance, q)
    return covariance


def network(weights: Sequence[Any], x: Any) -> Any:
    """The outputs f [n] of images x [n, d], for JAX to differentiate."""
    from jax.scipy.special import erf

    for weight in weights[:-1]:
        x = erf(layer_scale(weight) * (x @ weight))
    return layer_scale(weights[-1]) * (x @ weights[-1])[:, 0]


def train(
    weights: Sequence[Floats], x: Floats, target: NDArray, rate: float,
    share: float = 0.01, limit: int = 5000,
) -> tuple[list[Floats], int, float]:  # fmt: skip
    """Full-batch gradient descent on |f(x) - target|^2/2, to a `share` of the first residual.

    x [n, d], target [n]. A step changes f(x) by -rate K (f(x) - target) to first order, with K the
    empirical NTK. Where the residual exceeds ten times the first one the rate is halved, and all
    starts again. Returns the trained weights, the steps, and the rate that was taken; after `limit`
    steps of a rate it gives up, and the number of steps returned is -1.
    """
    precision = weights[0].dtype
    x, target = x.astype(precision), target.astype(precision)
    while rate > 0:
        trained, ratio, steps = descent_program()(list(weights), x, target, rate, share, limit)
        if ratio < 100:  # neither too large nor NaN
            break
        rate /= 2
    finished = bool(ratio <= share**2)
    return [np.asarray(weight) for weight in trained], int(steps) if finished else -1, rate


@functools.cache
def descent_program() -> Any:
    """Compiled: weights after gradient descent, the loss over that of the start, the steps."""
    import jax
    import jax.numpy as jnp

    def loss(weights, x, target):
        return jnp.sum((network(weights, x) - target) ** 2) / 2

    def descend(weights, x, target, rate, share, limit):
        first = loss(weights, x, target)

        def unfinished(state):
            _, current, steps = state
            between = (current > share**2 * first) & (current < 100 * first)
            return between & (steps < limit)

        def step(state):
            weights, _, steps = state
            gradients = jax.grad(loss)(weights, x, target)
            weights = [w - rate * g for w, g in zip(weights, gradients, strict=True)]
            return weights, loss(weights, x, target), steps + 1

        weights, last, steps = jax.lax.while_loop(unfinished, step, (weights, first, 0))
        return weights, last / first, steps

    return jax.jit(descend)


# --------------------------------------------------------------------------------------------------
# Convolutional
# --------------------------------------------------------------------------------------------------


def draw_convolutional_weights(
    channels: int, depth: int, rng: np.random.Generator, dtype: Any = np.float32
) -> list[Floats]:
    """Standard normal kernels [3, 3, inputs, channels] of `depth` convolutions, and two matrices.

    The paper's last hidden layer has two neurons, which an infinitely wide network takes for many:
    here it has as many as there are channels.
    """
    first, others = (3, 3, 1, channels), (3, 3, channels, channels)
    shapes = [first, *[others] * (depth - 1), (channels, channels), (channels, 1)]
    return [rng.standard_normal(shape, dtype) for shape in shapes]


def convolutional_network(weights: Sequence[Any], x: Any, shifts: Sequence[Any]) -> Any:
    """The outputs f [n] of images x [n, h, w, 1], and what enters each layer.

    shifts: zeros that are added to each layer's result; the gradient by them is df/dz.
    """
    import jax
    from jax.scipy.special import erf

    *kernels, hidden, last = weights
    inputs = []
    for layer, kernel in enumerate(kernels):
        inputs.append(x)
        layout = ("NHWC", "HWIO", "NHWC")
        z = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        x = jax.nn.relu(convolutional_scale(kernel) * z + shifts[layer])
        if (layer + 1) % (len(kernels) // 3) == 0:
            x = average_pool(x)
    x = average_pool(x)[:, 0, 0]
    inputs.append(x)
    x = erf(convolutional_scale(hidden) * (x @ hidden) + shifts[-2])
    inputs.append(x)
    return (convolutional_scale(last) * (x @ last) + shifts[-1])[:, 0], inputs


def average_pool(x: Any) -> Any:
    """2x2 average pooling [n, h, w, c], an odd last row or column dropped."""
    n, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def convolutional_scale(weight: Floats) -> float:
    """The layer's sqrt(2/inputs), of a kernel [3, 3, c, d] or a matrix [c, d]."""
    return float(np.sqrt(2 / np.prod(weight.shape[:-1])))


def empirical_convolutional_ntk(
    weights: Sequence[Floats], x: Floats, columns: int | None = None
) -> tuple[Array, Array]:
    """The network's NTK of images x [n, h, w, 1] with the first `columns` of them, and its outputs.

    Returns (kernel [n, columns], outputs [n]) in float64, as `empirical_ntk` does. The gradient of
    one layer is formed for all images at once: n times the layer's weights have to fit the memory.
    """
    precision = weights[0].dtype
    shifts = [np.zeros(shape, precision) for shape in layer_shapes(weights, x)]
    differentiate, products = convolutional_programs()
    gradients, (outputs, inputs) = differentiate(shifts, weights, x.astype(precision))
    kernel = np.zeros((len(x), len(x[:columns])))
    for weight, a, g in zip(weights, inputs, gradients, strict=True):
        squared = convolutional_scale(weight) ** 2
        kernel += squared * np.asarray(products(a, g, columns), np.float64)
    return kernel, np.asarray(outputs, np.float64)


@functools.cache
def convolutional_programs() -> tuple[Any, Any]:
    """Compiled: df/dz of every layer with (f, what enters the layers), and `layer_products`."""
    import jax

    def total(shifts, weights, x):
        outputs, inputs = convolutional_network(weights, x, shifts)
        return outputs.sum(), (outputs, inputs)

    differentiate = jax.jit(jax.grad(total, has_aux=True))
    return differentiate, jax.jit(layer_products, static_argnums=2)


def layer_shapes(weights: Sequence[Floats], x: Floats) -> list[tuple[int, ...]]:
    """Shapes of every layer's z for images [n, h, w, 1]."""
    n, h, w, _ = x.shape
    depth = len(weights) - 2
    shapes: list[tuple[int, ...]] = []
    for layer, kernel in enumerate(weights[:depth]):
        shapes.append((n, h, w, kernel.shape[-1]))
        if (layer + 1) % (depth // 3) == 0:
            h, w = h // 2, w // 2
    return [*shapes, (n, weights[-2].shape[1]), (n, 1)]


def layer_products(a: Any, g: Any, columns: int | None) -> Any:
    """Inner products [n, columns] of the images' gradients by one layer's weights, its scale apart.

    From what enters the layer, a, and g = df/dz: [n, h, w, c] each for a 3x3 convolution, [n, c]
    else.
    """
    import jax.numpy as jnp

    if a.ndim == 2:
        return (a @ a[:columns].T) * (g @ g[:columns].T)
    n, h, w, _ = a.shape
    padded = jnp.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)))
    products = jnp.zeros((n, len(a[:columns])), a.dtype)
    for dy in range(3):
        for dx in range(3):
            shifted = padded[:, dy : dy + h, dx : dx + w]
            gradient = jnp.einsum("nhwc,nhwd->ncd", shifted, g).reshape(n, -1)
            products += gradient @ gradient[:columns].T
    return products


# --------------------------------------------------------------------------------------------------
# What the width does
# --------------------------------------------------------------------------------------------------


def inverse_root_fit(width: NDArray, error: Array) -> tuple[float, float]:
    """The c of error = c/sqrt(width), and the free exponent b of error ~ width^b.

    width [m], error [m] > 0; c is the geometric mean of error sqrt(width), b the least-squares
    slope of the logarithms.
    """
    constant = np.exp(np.mean(np.log(error * np.sqrt(width))))
    slope = np.polyfit(np.log(width), np.log(error), 1)[0]
    return float(constant), float(slope)


def width_to_see(constant: float, size: float) -> float:
    """The width at which an error c/sqrt(width) has fallen to `size`; often an extrapolation."""
    return (constant / size) ** 2
