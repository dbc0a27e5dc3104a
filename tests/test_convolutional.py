"""The convolutional kernel, every engine against neural-tangents, the slow twin and finite networks."""

import decimal
import functools
import warnings

import numpy as np
import pytest
from conftest import off_diagonal, relative_error
from finite_networks import empirical_ntk
from kernel_images import FROZEN, needs_oracle, real_images, small_images
from twin import convolutional_ntk_twin

from ntk import BadInput, convolutional_ntk
from ntk.convolutional import ConvolutionalPairs, convolutional_ntk_reference, dense_head
from ntk.formulas import reach

ENGINES = ["numba", "jax"]
BOTH = [pytest.param("mnist", engine, marks=pytest.mark.slow) for engine in ENGINES]
QUICK = ["numba", pytest.param("jax", marks=pytest.mark.slow)]


@pytest.mark.parametrize("dataset, engine", [("digits", "numba"), *BOTH])
def test_agrees_with_frozen_values_at_depth_96(dataset, engine):
    train, test = FROZEN[f"{dataset}_train"], FROZEN[f"{dataset}_test"]
    expected, expected_test = FROZEN[f"{dataset}_kernel_train"], FROZEN[f"{dataset}_kernel_test"]
    found = convolutional_ntk(train, engine=engine)
    assert found.dtype == np.float64
    assert relative_error(off_diagonal(found), off_diagonal(expected)) < 1e-12
    assert relative_error(np.diag(found), np.diag(expected)) < 1e-6
    assert relative_error(convolutional_ntk(test, train, engine=engine), expected_test) < 1e-12
    single = convolutional_ntk(train, engine=engine, precision="float32")
    assert single.dtype == np.float64
    assert relative_error(single, expected) < 1e-5


@needs_oracle
@pytest.mark.slow
def test_agrees_with_neural_tangents_live():
    """At depth 24. neural-tangents itself is off by up to 5e-10 at depth 6, where one layer weighs
    more.

    At 28x28: of 16x16 images XLA's CPU code of neural-tangents has ended in a segmentation fault.
    """
    x = real_images()[:4]
    expected = convolutional_ntk(x, depth=24, engine="neural-tangents")
    for engine in ENGINES:
        found = convolutional_ntk(x, depth=24, engine=engine)
        assert relative_error(off_diagonal(found), off_diagonal(expected)) < 1e-10
        assert relative_error(np.diag(found), np.diag(expected)) < 1e-6


@pytest.fixture(scope="module")
def twins():
    """{(i, j): NTK of two real images at depth 6}, by the twin in extended precision."""
    x = real_images()[..., 0]
    return {(i, j): convolutional_ntk_twin(x[i], x[j], 6) for i, j in [(0, 0), (0, 4), (2, 5)]}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision, tolerance", [("float64", 5e-11), ("float32", 2e-6)])
def test_agrees_with_twin(twins, engine, precision, tolerance):
    """Against extended precision at depth 6.

    Background that is the same in both images must not cost digits.
    """
    found = convolutional_ntk(real_images(), depth=6, engine=engine, precision=precision)
    tolerance += 1e7 * np.finfo(np.longdouble).eps  # arccos of the twin loses half of its digits
    for (i, j), expected in twins.items():
        assert abs(float(found[i, j] / expected) - 1) < tolerance, (i, j)


@pytest.mark.slow
def test_reference_agrees_with_twin(twins):
    """The formulas as convolutional.py states them; float64 arccos keeps fewer digits."""
    x = real_images()[..., 0]
    for (i, j), expected in twins.items():
        tolerance = 1e-7 if i == j else 1e-9
        assert (
            abs(float(convolutional_ntk_reference(x[i], x[j], depth=6) / expected) - 1) < tolerance
        ), (i, j)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(16, 16), (17, 20), (31, 16)])
def test_image_sizes(shape):
    x1, x2 = small_images(3, shape), small_images(2, shape, seed=1)
    expected = convolutional_ntk_twin(x1[2, ..., 0], x2[1, ..., 0], 9)
    for engine in ENGINES:
        found = convolutional_ntk(x1, x2, depth=9, engine=engine)
        assert abs(float(found[2, 1] / expected) - 1) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_pairs_do_not_depend_on_their_neighbours(engine, precision):
    """A pair's kernel has the same bits whatever its block, its place in it and the other pairs there."""
    x1, x2 = small_images(3), small_images(33, seed=1)
    whole = convolutional_ntk(x1, x2, depth=3, engine=engine, precision=precision)
    sizes = [(1, 1), (3, 11), (1, 33)]
    if engine == "numba":  # the lanes of its blocks
        sizes += [(1, 7), (1, 8), (1, 9), (2, 15), (1, 16), (1, 17), (1, 32)]
    for n1, n2 in sizes:
        part = convolutional_ntk(x1[:n1], x2[:n2], depth=3, engine=engine, precision=precision)
        assert np.array_equal(part, whole[:n1, :n2])
    pairs = ConvolutionalPairs(
        np.concatenate([x1, x2]), depth=3, engine=engine, precision=precision
    )
    order = np.random.default_rng(0).permutation(33)
    assert np.array_equal(pairs.pairs(np.full(33, 1), 3 + order), whole[1, order])


@pytest.mark.parametrize("engine", QUICK)
def test_symmetric_half_equals_full(engine):
    """For numbers of images up to more than one block of lanes holds."""
    x = small_images(19)
    full = convolutional_ntk(x, x, depth=3, engine=engine)
    for n in [1, 2, 3, 8, 9, 19]:
        half = convolutional_ntk(x[:n], depth=3, engine=engine)
        assert np.array_equal(half, half.T)
        if n > 1:
            assert relative_error(off_diagonal(half), off_diagonal(full[:n, :n])) < 1e-12
        assert relative_error(np.diag(half), np.diag(full)[:n]) < 1e-6


@pytest.mark.parametrize(
    "engine", [*QUICK, pytest.param("neural-tangents", marks=[needs_oracle, pytest.mark.slow])]
)
def test_blocks_hold_every_pair_once(engine):
    pairs = ConvolutionalPairs(small_images(19), depth=3, engine=engine)
    i, j = np.tril_indices(19)
    blocks = list(pairs.blocks(i, j))
    assert np.array_equal(np.sort(np.concatenate(blocks)), np.arange(len(i)))
    assert len(pairs.pairs(i[:0], j[:0])) == 0
    assert pairs.block >= 1 and pairs.on_mesh == (engine == "jax")


@pytest.mark.parametrize("engine", QUICK)
def test_pixels_without_variance(engine):
    """Pixels whose whole neighbourhood is zero have variance 0, and no NaN comes of it."""
    x = small_images(3)
    x[0, :6] = 0
    x[1, :, :9] = 0
    x[2] = 0
    found = convolutional_ntk(x, depth=6, engine=engine)
    assert np.isfinite(found).all()
    assert (found[2] == 0).all()
    expected = convolutional_ntk_twin(x[0, ..., 0], x[1, ..., 0], 6)
    assert abs(float(found[0, 1] / expected) - 1) < 1e-12


@pytest.mark.parametrize("engine", QUICK)
def test_equal_images_are_an_image_with_itself(engine):
    """Wherever they stand, bit by bit, and -0 is 0."""
    x = small_images(3)
    x[0, :5] = 0
    images = np.concatenate([x, x[:2], 2 * x[:1]])
    images[3, :5] = -0.0
    half = convolutional_ntk(images, depth=3, engine=engine)
    full = convolutional_ntk(images, images.copy(), depth=3, engine=engine)
    for kernel in (half, full):
        assert kernel[3, 0] == kernel[0, 3] == kernel[0, 0] == half[0, 0]
        assert kernel[1, 4] == kernel[1, 1] == half[1, 1] and kernel[0, 4] == kernel[3, 1]
        assert kernel[0, 0] < 0.9 * kernel[0, 5] < 0.8 * kernel[5, 5]  # of an image and its double
    pairs = ConvolutionalPairs(images, depth=3, engine=engine)
    blocks = pairs.blocks(np.array([3, 3, 2]), np.array([0, 1, 2]))
    assert [len(block) for block in blocks] == [2, 1]


@pytest.mark.parametrize("size", [1e-300, 1e-3, 1.0, 65535.0**2, 1e14, 1e20, 1e140])
def test_last_layers_of_large_images(size):
    """Against the formula as it stands, in 400 digits."""
    with decimal.localcontext() as context:
        context.prec = 400
        for a, a1, a2 in [(0.7 * size, size, 1.1 * size), (size, size, size)]:
            d, d1, d2 = (4 * decimal.Decimal(value) for value in (a, a1, a2))
            side = float(((1 + d1) * (1 + d2) - d * d).sqrt())
            expected = 4 / np.pi * np.arctan2(4 * a, side) + 16 / np.pi * 30 * size / side
            assert abs(dense_head(a, 30 * size, a1, a2) / expected - 1) < 1e-14
        smaller = np.nextafter(size, 0)
        assert np.isfinite(dense_head(size, size, smaller, size))  # a rounding error: a1 a2 < a^2


@pytest.mark.parametrize("engine", QUICK)
def test_images_of_all_sizes(engine):
    """Right, in float32 too, or refused in one line where it is not finite, without a warning."""
    x = small_images(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sizes = 2.0**-500, 2.0**-40, 2.0**40, 2.0**200
        kernels = [convolutional_ntk(size * x, depth=3, engine=engine) for size in sizes]
        tiny, small, large, larger = kernels
        assert relative_error(small, 2.0**920 * tiny) < 1e-12
        assert abs(larger[0, 1] / large[0, 1] - 1) < 1e-12
        assert relative_error(np.diag(larger), 2.0**160 * np.diag(large)) < 1e-9
        single = convolutional_ntk(2.0**200 * x, depth=3, engine=engine, precision="float32")
        assert relative_error(single, larger) < 1e-4
        for size in (1e-200, 5e-324, 0):
            assert not convolutional_ntk(size * x, depth=3, engine=engine).any()
        for size in (1e100, 1e155, 1e300):
            with pytest.raises(BadInput, match="images of a kernel that is not finite"):
                convolutional_ntk(size * x, depth=3, engine=engine)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision, tolerance", [("float64", 5e-7), ("float32", 2e-3)])
def test_images_alike(engine, precision, tolerance):
    """Duplicates, negated, scaled and nearly equal images.

    No NaN, and the digits that the twin has.
    """
    others, expected = alike()
    found = convolutional_ntk(others, depth=6, engine=engine, precision=precision)
    assert np.isfinite(found).all() and np.array_equal(found, found.T)
    assert (np.abs(found[0] / expected - 1) < tolerance).all()


@functools.cache
def alike():
    """Images, of which some are alike to the first one, and its NTK with each by the twin."""
    x = small_images(2)
    others = [x[0], -x[0], 3 * x[0], 1e-3 * x[0], x[0] + 1e-9 * x[1], x[0] * (1 + 1e-15)]
    expected = [float(convolutional_ntk_twin(x[0, ..., 0], y[..., 0], 6)) for y in others]
    return np.stack(others), expected


@pytest.mark.slow
def test_cone_is_exact():
    """NaN outside the cone changes nothing.

    A cone smaller by one pixel in any stage would lose something.
    """
    x1, x2 = small_images(2, (20, 20))[..., 0]
    expected = convolutional_ntk_twin(x1, x2, 3)
    cone = [reach(20 >> stage, stage) for stage in range(3)]  # what the engines compute
    assert cone == [15, 7, 3]
    assert convolutional_ntk_twin(x1, x2, 3, cone=cone) == expected
    for smaller in [(14, 7, 3), (15, 6, 3), (15, 7, 2)]:
        assert np.isnan(convolutional_ntk_twin(x1, x2, 3, cone=smaller))


@pytest.mark.slow
def test_against_finite_networks():
    """64 channels, one convolution a stage."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.special import erf

    x, channels = small_images(3), 64
    shapes = (
        [(3, 3, 1, channels)]
        + [(3, 3, channels, channels)] * 2
        + [(channels, channels), (channels, 1)]
    )

    def forward(weights, image):
        a = image[None]
        for w in weights[:3]:
            a = jnp.sqrt(2 / (9 * w.shape[2])) * jax.lax.conv_general_dilated(
                a, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            a = jax.nn.relu(a)
            n, h, w_, c = a.shape
            a = a.reshape(n, h // 2, 2, w_ // 2, 2, c).mean(axis=(2, 4))
        a = a.mean(axis=(1, 2))[0]
        a = erf(jnp.sqrt(2 / channels) * a @ weights[3])
        return (jnp.sqrt(2 / channels) * a @ weights[4])[0]

    mean, error = empirical_ntk(forward, shapes, jnp.array(x, jnp.float32), 80)
    expected = convolutional_ntk(x, depth=3)
    assert (np.abs(mean - expected) < 4 * error + expected * 5 / channels).all()
    assert (error < 0.05 * expected).all()
