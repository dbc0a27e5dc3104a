"""The fully-connected kernel against neural-tangents, its closed form, finite networks and known limits."""

import warnings

import numpy as np
import pytest
import scipy.special
from conftest import off_diagonal, relative_error
from finite_networks import empirical_ntk
from kernel_images import flat_images, needs_oracle, real_images
from twin import fully_connected_ntk_twin

from ntk import BadInput, fully_connected, fully_connected_ntk
from ntk.fully_connected import (
    fully_connected_ntk_reference,
    fully_connected_pairs,
    fully_connected_rows,
)

ENGINES = ["numba", "jax"]


def real_vectors():
    """Six images of MNIST as the fully-connected network takes them: [6, 784] of unit norm."""
    x = real_images().reshape(6, -1)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@needs_oracle
@pytest.mark.parametrize("depth", [0, 1, 5, pytest.param(40, marks=pytest.mark.slow)])
def test_agrees_with_neural_tangents(depth):
    x = real_vectors()
    expected = fully_connected_ntk(x, depth=depth, engine="neural-tangents")
    for engine in ENGINES:
        found = fully_connected_ntk(x, depth=depth, engine=engine)
        assert found.dtype == np.float64
        assert relative_error(off_diagonal(found), off_diagonal(expected)) < 1e-10
        assert relative_error(np.diag(found), np.diag(expected)) < 1e-6
        found = fully_connected_ntk(x[4:], x[:4], depth=depth, engine=engine)
        assert found.shape == (2, 4)
        assert relative_error(found, expected[4:, :4]) < 1e-10


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depth, tolerance", [(1, 1e-14), (30, 1e-13), (840, 2e-13)])
def test_agrees_with_twin(depth, tolerance, engine):
    """Against extended precision, for images of all norms.

    Correlations of every size, far from the fixed point too.
    """
    x1, x2 = (
        flat_images(7) * 10.0 ** np.arange(-3, 4)[:, None],
        np.abs(flat_images(70, seed=1)) * 20,
    )
    found = fully_connected_ntk(x1, x2, depth=depth, engine=engine)
    size = np.abs(x1) @ np.abs(x2.T) / np.abs(x1 @ x2.T)  # of the rounding errors in x.x'
    assert (
        np.abs(found / fully_connected_ntk_twin(x1, x2, depth) - 1) < tolerance + 1e-15 * size
    ).all()
    assert relative_error(fully_connected_ntk_reference(x1, x2, depth=depth), found) < 1e-11


def test_deep_layers_do_not_drift():
    """At the fixed point of the variances the errors of 840 layers do not add up."""
    x = flat_images(30) * np.sqrt(256 / fully_connected.erf_scale)
    expected = fully_connected_ntk_twin(x, x, 840)
    found = fully_connected_ntk(x, depth=840, engine="numba")
    tolerance = 1e-14 + 100 * np.finfo(np.longdouble).eps  # of which both sides make use
    assert np.median(np.abs(off_diagonal(found) / off_diagonal(expected) - 1)) < tolerance


@pytest.mark.parametrize("engine", ENGINES)
def test_tiny_entries(engine):
    """Entries as small as 1e-300 keep their relative accuracy."""
    x1, x2 = np.eye(1, 5), np.array([[10.0**-m, 1, 0, 0, 0] for m in (3, 10, 100, 300)])
    expected = fully_connected_ntk_twin(x1, x2, 40)
    assert (
        np.max(np.abs(fully_connected_ntk(x1, x2, depth=40, engine=engine) / expected - 1)) < 1e-14
    )


def test_variances_of_all_sizes():
    """Against arcsin(1 - x) = pi/2 - 2 arcsin(sqrt(x/2)), x = 1/(1 + 2q), of pixels as large as 1e150."""
    q = 10.0 ** np.linspace(0, 300, 1000)
    half = 1 - 4 / np.pi * np.arcsin(np.sqrt(0.5 / (1 + 2 * q)))
    assert (
        relative_error(fully_connected.next_variance(q), fully_connected.erf_scale * half) < 1e-15
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_symmetric_half_equals_full(engine):
    x = flat_images(70)
    half = fully_connected_ntk(x, depth=30, engine=engine)
    full = fully_connected_ntk(x, x, depth=30, engine=engine)
    assert np.array_equal(half, half.T)
    assert relative_error(off_diagonal(half), off_diagonal(full)) < 1e-12


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_and_opposite_images(engine):
    """Wherever they stand they follow the diagonal's recursion, bit by bit, with the right sign."""
    x = flat_images(4)
    images = np.concatenate([x, x[:1], -x[:2], 1e-3 * x[:1], 1e-3 * x[:1], np.zeros((2, 256))])
    half = fully_connected_ntk(images, depth=250, engine=engine)
    full = fully_connected_ntk(images[::-1], images, depth=250, engine=engine)[::-1]
    itself = np.diag(half)
    for kernel in (half, full):
        assert np.array_equal(np.diag(kernel), itself)
        assert kernel[0, 4] == kernel[4, 0] == itself[0] and kernel[7, 8] == itself[7]
        assert kernel[0, 5] == kernel[5, 4] == -itself[0] and kernel[1, 6] == -itself[1]
        assert not kernel[9:].any() and not kernel[:, 9:].any()
    alone = fully_connected_ntk(x, depth=250, engine="numba")
    assert relative_error(off_diagonal(half[:4, :4]), off_diagonal(alone)) < 1e-12


@pytest.mark.parametrize("engine", ENGINES)
def test_nearly_equal_images(engine):
    """At depth 150, where the engines alone would leave no digit of those that differ by 1e-8."""
    x, y = flat_images(2)
    differences = np.array([9e-4, 1e-5, 1e-9, 2e-9])[:, None]
    for direction, sign in [(x, 1), (y, 1), (y, -1)]:
        images = x + differences * direction
        kernel = fully_connected_ntk(sign * images, x[None], depth=150, engine=engine)[:, 0]
        expected = fully_connected_ntk_twin(images[:2], x[None], 150)[:, 0]
        lost = 500 * np.finfo(np.longdouble).eps / differences[:2, 0] ** 2  # by the twin
        assert (np.abs(sign * kernel[:2] / expected - 1) < 1e-13 + lost).all()
        # Differences of 1e-9 make the NTK less than that of x with itself, as their squares.
        itself = fully_connected_ntk(x[None], depth=150, engine=engine)[0, 0]
        less = 1 - sign * kernel[2:] / itself
        assert 1e-7 < less[0] < 1e-3 and abs(less[1] / less[0] - 4) < 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_images_of_all_sizes(engine):
    """Right, zero where squares vanish, or refused in one line, without a warning."""
    x = flat_images(3)
    x[2] = x[0] + 1e-8 * x[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sizes = 2.0**200, 2.0**500
        saturated = [fully_connected_ntk(size * x, depth=20, engine=engine) for size in sizes]
        assert relative_error(*map(off_diagonal, saturated)) < 1e-12
        assert relative_error(np.diag(saturated[1]), 2.0**300 * np.diag(saturated[0])) < 1e-12
        assert np.isfinite(fully_connected_ntk(1e-150 * x, depth=20, engine=engine)).all()
        for size in (1e-200, 5e-324, 0):
            assert not fully_connected_ntk(size * x, depth=3, engine=engine).any()
        for size in (1e155, 1e300):
            with pytest.raises(BadInput, match="images of a kernel that is not finite"):
                fully_connected_ntk(size * x, depth=3, engine=engine)


def test_layers_beyond_the_largest_number():
    """Of an image with itself the NTK grows by 1.23 a layer; of others it does not."""
    x = flat_images(2)
    with pytest.raises(BadInput, match="fewer layers"):
        fully_connected_ntk(x, depth=4000)
    assert np.isfinite(fully_connected_ntk(x[:1], x[1:], depth=4000)).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_depth_840(engine):
    """The full L_conv at n = 512 and beyond: finite, positive, symmetric.

    The diagonal follows its own recursion.
    """
    kernel = fully_connected_ntk(np.abs(flat_images(40)), depth=840, engine=engine)
    assert np.isfinite(kernel).all() and (kernel > 0).all()
    assert np.array_equal(kernel, kernel.T)
    # With every q at its fixed point 1, Theta <- 1 + slope Theta is a geometric series.
    slope = fully_connected.erf_scale * (4 / np.pi) / np.sqrt(5)
    unit = np.ones((1, 1)) / np.sqrt(fully_connected.erf_scale)
    series = (slope**841 - 1) / (slope - 1)
    assert relative_error(fully_connected_ntk(unit, depth=840, engine=engine), series) < 1e-9


@pytest.mark.parametrize("engine", ENGINES)
def test_blocks_leave_out_what_is_not_wanted(engine):
    """Blocks of rows come out the same, bit by bit, whichever others are computed."""
    x = flat_images(600)
    whole = list(fully_connected_rows(x, None, depth=5, engine=engine))
    some = list(fully_connected_rows(x, None, depth=5, engine=engine, rows=[0, 1, 599]))
    assert len(some) == min(2, len(whole)) and len(whole) == (3 if engine == "numba" else 1)
    matrix = fully_connected_ntk(x, depth=5, engine=engine)
    for rows, values in some:
        assert np.array_equal(
            np.tril(values, rows.start), np.tril(matrix[rows, : rows.stop], rows.start)
        )
    assert not list(fully_connected_rows(x, None, depth=5, engine=engine, rows=[]))


@pytest.mark.slow
def test_against_finite_networks():
    """Width 512, depth 3.

    The kernel is within its error bars plus a finite-width bias of order depth/width.
    """
    import jax.numpy as jnp
    from jax.scipy.special import erf

    x, width, depth = real_vectors()[:4], 512, 3
    shapes = [(784, width)] + [(width, width)] * (depth - 1) + [(width, 1)]

    def forward(weights, image):
        for w in weights[:-1]:
            image = erf(jnp.sqrt(fully_connected.erf_scale / len(w)) * image @ w)
        return (jnp.sqrt(fully_connected.erf_scale / width) * image @ weights[-1])[0]

    mean, error = empirical_ntk(forward, shapes, jnp.array(x, jnp.float32), 60)
    expected = fully_connected_ntk(x, depth=depth)
    size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert (np.abs(mean - expected) < 4 * error + size * depth / width).all()
    assert (error < 0.02 * size).all()


def test_closed_form_constants():
    """erf_scale and mu against quadrature of their definitions."""
    z, weight = np.polynomial.hermite_e.hermegauss(200)
    weight = weight / weight.sum()
    assert (
        relative_error(1 / np.sum(weight * scipy.special.erf(z) ** 2), fully_connected.erf_scale)
        < 1e-12
    )
    sigma = np.sqrt(fully_connected.erf_scale) * scipy.special.erf(z)
    assert relative_error(1 - np.sum(weight * z * sigma) ** 2, fully_connected.nonlinearity) < 1e-10
    assert abs(fully_connected.nonlinearity - 0.0864172) < 1e-7


@pytest.mark.parametrize("depth", [0, 3, 90])
def test_pairs_are_entries_of_the_matrix(depth):
    """Equal, opposite and nearly equal images among them, in more than one block of pairs."""
    x = np.random.default_rng(0).normal(size=(130, 50))
    x[5], x[7], x[9] = x[3], -x[2], x[8] * (1 + 1e-9)
    i, j = np.tril_indices(len(x))
    expected = fully_connected_ntk(x, depth=depth)[i, j]
    found = fully_connected_pairs(x, i, j, depth=depth)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
    with pytest.raises(BadInput):
        fully_connected_pairs(np.full((2, 3), np.nan), i[:1], j[:1], depth=depth)
