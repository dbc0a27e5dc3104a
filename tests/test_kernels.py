"""Both kernels against neural-tangents, a slow twin and finite networks."""

import os
import subprocess
import sys
from pathlib import Path

import kernels
import numba
import numpy as np
import pytest
import scipy.special
from conftest import ROOT, off_diagonal, relative_error
from twin import convolutional_ntk_twin

import training

FAST_ENGINES = [e for e in kernels.engines if e not in ("auto", "gpu", "neural-tangents")]
FROZEN = np.load(Path(__file__).with_name("frozen_kernels.npz"))


def small_images(n, shape=(16, 16), seed=0):
    """Standardised random images, smoothed so that neighbouring pixels are alike, [n, h, w, 1]."""
    images = np.random.default_rng(seed).normal(size=(n, *shape, 1))
    images += np.roll(images, 1, axis=1) + np.roll(images, 1, axis=2)
    return images / np.sqrt(np.sum(images**2, axis=(1, 2, 3), keepdims=True))


# ---- fully connected ----


@pytest.mark.parametrize("depth", [0, 1, 5, 40, 83])
def test_fully_connected_agrees_with_neural_tangents(real_data, depth):
    train, _ = training.process_data(real_data["train"], (8, 9), 5, True, np.random.default_rng(1))
    test, _ = training.process_data(real_data["test"], (8, 9), 2, True, np.random.default_rng(2))
    expected = training.fully_connected_ntk(train, depth=depth, engine="neural-tangents")
    found = training.fully_connected_ntk(train, depth=depth)
    assert found.dtype == np.float64
    assert relative_error(off_diagonal(found), off_diagonal(expected)) < 1e-10
    assert relative_error(np.diag(found), np.diag(expected)) < 1e-6
    expected = training.fully_connected_ntk(test, train, depth=depth, engine="neural-tangents")
    found = training.fully_connected_ntk(test, train, depth=depth)
    assert found.shape == (4, 10)
    assert relative_error(found, expected) < 1e-10


def test_fully_connected_at_depth_840(real_data):
    """The full L_conv at n = 512 and beyond: finite, positive, symmetric; the diagonal follows its own recursion."""
    train, _ = training.process_data(real_data["train"], (8, 9), 20, True, np.random.default_rng(1))
    kernel = training.fully_connected_ntk(train, depth=840)
    assert np.isfinite(kernel).all() and (kernel > 0).all()
    assert np.array_equal(kernel, kernel.T)
    # With every q at its fixed point 1, Theta <- 1 + slope Theta is a geometric series.
    slope = kernels.erf_scale * (4 / np.pi) / np.sqrt(5)
    unit = np.ones((1, 1)) / np.sqrt(kernels.erf_scale)
    series = (slope**841 - 1) / (slope - 1)
    assert relative_error(training.fully_connected_ntk(unit, depth=840), series) < 1e-9


def test_fully_connected_symmetric_half_equals_full(real_data):
    train, _ = training.process_data(real_data["train"], (8, 9), 6, True, np.random.default_rng(1))
    half = training.fully_connected_ntk(train, depth=30)
    full = training.fully_connected_ntk(train, train, depth=30)
    assert relative_error(off_diagonal(half), off_diagonal(full)) < 1e-12


# ---- convolutional ----


@pytest.mark.parametrize("engine", FAST_ENGINES)
@pytest.mark.parametrize("dataset", ["mnist", "digits"])
def test_convolutional_agrees_with_frozen_values_at_depth_96(dataset, engine):
    train, test = FROZEN[f"{dataset}_train"], FROZEN[f"{dataset}_test"]
    expected, expected_test = FROZEN[f"{dataset}_kernel_train"], FROZEN[f"{dataset}_kernel_test"]
    found = training.convolutional_ntk(train, engine=engine)
    assert found.dtype == np.float64
    assert relative_error(off_diagonal(found), off_diagonal(expected)) < 1e-10
    assert relative_error(np.diag(found), np.diag(expected)) < 1e-6
    assert relative_error(training.convolutional_ntk(test, train, engine=engine), expected_test) < 1e-10
    single = training.convolutional_ntk(train, engine=engine, precision="float32")
    assert single.dtype == np.float64
    assert relative_error(single, expected) < 1e-5


@pytest.mark.parametrize("engine", FAST_ENGINES)
def test_convolutional_agrees_with_neural_tangents_live(images, engine):
    """At depth 24. neural-tangents itself is off by up to 5e-10 at depth 6, where one layer weighs more."""
    expected = training.convolutional_ntk(images[:4], depth=24, engine="neural-tangents")
    found = training.convolutional_ntk(images[:4], depth=24, engine=engine)
    assert relative_error(off_diagonal(found), off_diagonal(expected)) < 1e-10
    assert relative_error(np.diag(found), np.diag(expected)) < 1e-6


@pytest.mark.parametrize("engine", FAST_ENGINES)
@pytest.mark.parametrize("precision, tolerance", [("float64", 5e-11), ("float32", 2e-6)])
def test_convolutional_agrees_with_twin(images, engine, precision, tolerance):
    """Against extended precision at depth 6: background that is the same in both images must not cost digits."""
    found = training.convolutional_ntk(images, depth=6, engine=engine, precision=precision)
    for i, j in [(0, 0), (0, 1), (0, 4), (2, 5)]:
        expected = convolutional_ntk_twin(images[i, ..., 0], images[j, ..., 0], 6)
        assert abs(float(found[i, j] / expected) - 1) < tolerance, (i, j)


@pytest.mark.parametrize("engine", FAST_ENGINES)
@pytest.mark.parametrize("shape", [(16, 16), (17, 20), (31, 16)])
def test_convolutional_image_sizes(engine, shape):
    x1, x2 = small_images(3, shape), small_images(2, shape, seed=1)
    found = training.convolutional_ntk(x1, x2, depth=9, engine=engine)
    for i, j in np.ndindex(3, 2):
        expected = convolutional_ntk_twin(x1[i, ..., 0], x2[j, ..., 0], 9)
        assert abs(float(found[i, j] / expected) - 1) < 1e-12


@pytest.mark.parametrize("engine", FAST_ENGINES)
def test_convolutional_symmetric_half_equals_full(engine):
    """For every number of images up to more than one block of lanes holds."""
    x = small_images(19)
    full = training.convolutional_ntk(x, x, depth=3, engine=engine)
    for n in [1, 2, 3, 4, 7, 8, 9, 16, 17, 19]:
        half = training.convolutional_ntk(x[:n], depth=3, engine=engine)
        assert np.array_equal(half, half.T)
        if n > 1:
            assert relative_error(off_diagonal(half), off_diagonal(full[:n, :n])) < 1e-12
        assert relative_error(np.diag(half), np.diag(full)[:n]) < 1e-6


@pytest.mark.parametrize("engine", FAST_ENGINES)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_convolutional_block_remainders(engine, precision):
    """A pair's kernel does not depend on which other pairs share its block."""
    x1, x2 = small_images(3), small_images(33, seed=1)
    whole = training.convolutional_ntk(x1, x2, depth=3, engine=engine, precision=precision)
    for n1, n2 in [(1, 1), (1, 7), (1, 8), (1, 9), (2, 15), (1, 16), (1, 17), (3, 11), (1, 32), (1, 33), (3, 33)]:
        part = training.convolutional_ntk(x1[:n1], x2[:n2], depth=3, engine=engine, precision=precision)
        assert np.array_equal(part, whole[:n1, :n2])


@pytest.mark.parametrize("devices", [1, 2])
def test_convolutional_on_several_devices(devices, tmp_path):
    """JAX with one and with two devices gives the numbers of this process, to rounding."""
    program = (
        "import sys, jax, numpy, training, test_kernels\n"
        "kernel = training.convolutional_ntk(test_kernels.small_images(12), depth=6, engine='jax')\n"
        "numpy.save(sys.argv[1], kernel)\n"
        "print(jax.local_device_count())"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    command = [sys.executable, "-c", program, str(tmp_path / "kernel.npy")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == f"{devices}\n"
    expected = training.convolutional_ntk(small_images(12), depth=6, engine="jax")
    assert relative_error(np.load(tmp_path / "kernel.npy"), expected) < 1e-14


@pytest.mark.parametrize("threads", [1, 2])
def test_numba_on_several_threads(threads):
    """The Numba engine gives the same bits on every number of threads."""
    x = small_images(20)
    before = numba.get_num_threads()
    expected = training.convolutional_ntk(x, depth=6, engine="numba")
    try:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        assert np.array_equal(training.convolutional_ntk(x, depth=6, engine="numba"), expected)
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("engine", FAST_ENGINES)
def test_convolutional_pixels_without_variance(engine):
    """Pixels whose whole neighbourhood is zero have variance 0, and no NaN comes of it."""
    x = small_images(3)
    x[0, :6] = 0
    x[1, :, :9] = 0
    x[2] = 0
    found = training.convolutional_ntk(x, depth=6, engine=engine)
    assert np.isfinite(found).all()
    assert (found[2] == 0).all()
    expected = convolutional_ntk_twin(x[0, ..., 0], x[1, ..., 0], 6)
    assert abs(float(found[0, 1] / expected) - 1) < 1e-12


def test_cone_is_exact(images):
    """NaN outside the cone changes nothing; a cone smaller by one pixel in any stage would lose something."""
    x1, x2 = images[0, ..., 0], images[4, ..., 0]
    expected = convolutional_ntk_twin(x1, x2, 3)
    assert convolutional_ntk_twin(x1, x2, 3, cone=(15, 7, 3)) == expected
    for cone in [(14, 7, 3), (15, 6, 3), (15, 7, 2)]:
        assert np.isnan(convolutional_ntk_twin(x1, x2, 3, cone=cone))
    for stage, bound in enumerate((15, 7, 3)):  # what the engines compute, see also the agreement with the twin
        planes = {q - p for p, q in kernels.plane_line(28 >> stage, bound)}
        assert planes == set(range(-bound, bound + 1))


# ---- without anybody's formulas: the empirical NTK of finite networks, averaged over initialisations ----


def empirical_ntk(forward, shapes, x, initialisations):
    """Mean and standard error over initialisations of d f(x)/d theta . d f(x')/d theta, [n, n] each."""
    import jax
    import jax.numpy as jnp

    def one(key):
        keys = jax.random.split(key, len(shapes))
        weights = [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
        gradients = jax.vmap(jax.grad(forward), in_axes=(None, 0))(weights, x)
        return sum(jnp.tensordot(g, g, axes=(tuple(range(1, g.ndim)),) * 2) for g in gradients)

    one = jax.jit(one)
    kernels = np.array([one(key) for key in jax.random.split(jax.random.key(0), initialisations)])
    return kernels.mean(axis=0), kernels.std(axis=0, ddof=1) / np.sqrt(initialisations)


def test_fully_connected_against_finite_networks(digits):
    """Width 1024, depth 3; the kernel is within its error bars plus a finite-width bias of order depth/width."""
    import jax.numpy as jnp
    from jax.scipy.special import erf

    x, _ = training.process_data(digits["train"], (8, 9), 2, True, np.random.default_rng(1))
    width, depth = 1024, 3
    shapes = [(784, width)] + [(width, width)] * (depth - 1) + [(width, 1)]

    def forward(weights, image):
        for w in weights[:-1]:
            image = erf(jnp.sqrt(kernels.erf_scale / len(w)) * image @ w)
        return (jnp.sqrt(kernels.erf_scale / width) * image @ weights[-1])[0]

    mean, error = empirical_ntk(forward, shapes, jnp.array(x, jnp.float32), 60)
    expected = training.fully_connected_ntk(x, depth=depth)
    assert (np.abs(mean - expected) < 4 * error + expected * depth / width).all()
    assert (error < 0.02 * expected).all()


def test_convolutional_against_finite_networks():
    """96 channels, one convolution a stage."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.special import erf

    x, channels = small_images(3), 96
    shapes = [(3, 3, 1, channels)] + [(3, 3, channels, channels)] * 2 + [(channels, channels), (channels, 1)]

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

    mean, error = empirical_ntk(forward, shapes, jnp.array(x, jnp.float32), 100)
    expected = training.convolutional_ntk(x, depth=3)
    assert (np.abs(mean - expected) < 4 * error + expected * 5 / channels).all()
    assert (error < 0.05 * expected).all()


# ---- constants and inputs ----


def test_closed_form_constants():
    """erf_scale and mu against quadrature of their definitions."""
    z, weight = np.polynomial.hermite_e.hermegauss(200)
    weight = weight / weight.sum()
    assert relative_error(1 / np.sum(weight * scipy.special.erf(z) ** 2), kernels.erf_scale) < 1e-12
    sigma = np.sqrt(kernels.erf_scale) * scipy.special.erf(z)
    assert relative_error(1 - np.sum(weight * z * sigma) ** 2, training.nonlinearity) < 1e-10
    assert abs(training.nonlinearity - 0.0864172) < 1e-7


@pytest.mark.parametrize("engine", ["numba", "jax"])
def test_fully_connected_blocks_leave_out_what_is_not_wanted(engine):
    """Blocks of rows come out the same, bit by bit, whichever others are computed."""
    x = small_images(400)[..., 0].reshape(400, -1)
    whole = list(kernels.fully_connected_blocks(x, None, 5, engine))
    some = list(kernels.fully_connected_blocks(x, None, 5, engine, wanted=[0, 100, 101]))
    assert len(some) == min(2, len(whole))
    matrix = training.fully_connected_ntk(x, depth=5, engine=engine)
    for rows, values in some:
        assert np.array_equal(np.tril(values, rows.start), np.tril(matrix[rows, : rows.stop], rows.start))
    assert not list(kernels.fully_connected_blocks(x, None, 5, engine, wanted=[]))


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_jax_engine_lowers_for_gpus(precision):
    """Without a GPU at hand: XLA's input for one can be made, of both networks."""
    import jax.export

    with jax.enable_x64(True):
        block = jax.ShapeDtypeStruct((28, 28, 8 * jax.device_count()), precision)
        variances = [[jax.ShapeDtypeStruct((28 >> s, 28 >> s, block.shape[2]), precision)] * 2 for s in range(3)]
        for own in (False, True):
            cone = kernels.jax_cone(28, 28, precision, own)
            exported = jax.export.export(cone, platforms=["cuda"])(block, block, variances, np.int64(32))
            assert exported.platforms == ("cuda",) and len(exported.out_avals) == (4 if own else 2)
        rows, columns = (jax.ShapeDtypeStruct((n,), float) for n in (8 * jax.device_count(), 16))
        evaluate, _ = kernels.jax_dense()
        k = jax.ShapeDtypeStruct((*rows.shape, *columns.shape), float)
        exported = jax.export.export(evaluate, platforms=["cuda"])(k, rows, columns, np.int64(5))
        assert exported.platforms == ("cuda",) and exported.out_avals[0].shape == k.shape


def test_gpu_means_jax_for_both_networks(images, monkeypatch):
    """Where there is a GPU; here a CPU device is taken for one."""
    monkeypatch.setattr(kernels, "has_accelerator", lambda: True)
    monkeypatch.setattr(kernels, "NumbaConvolution", None)
    monkeypatch.setattr(kernels, "dense_layer", lambda xp, *rest, layer=kernels.dense_layer: layer(jax_only(xp), *rest))
    kernels.jax_dense.cache_clear()

    def jax_only(xp):
        assert xp is not np
        return xp

    flat = images.reshape(len(images), -1)
    assert training.fully_connected_ntk(flat, depth=3, engine="gpu").shape == (6, 6)
    assert training.convolutional_ntk(images[:2], depth=3, engine="gpu").shape == (2, 2)
    kernels.jax_dense.cache_clear()


def test_float64_does_not_depend_on_the_callers_configuration(images):
    import jax

    expected = training.convolutional_ntk(images[:2], depth=3, engine="jax")
    for enabled in (True, False):
        with jax.enable_x64(enabled):
            found = training.convolutional_ntk(images[:2], depth=3, engine="jax")
            assert jax.numpy.ones(1).dtype == (np.float64 if enabled else np.float32)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(x1=np.ones((2, 28, 28))), "shape"),
        (dict(x1=np.ones((2, 28, 28, 3))), "height"),
        (dict(x1=np.ones((2, 12, 28, 1))), "16 to 31"),
        (dict(x1=np.ones((2, 28, 28, 1), int)), "dtype int64"),
        (dict(x1=np.full((2, 28, 28, 1), np.nan)), "NaN"),
        (dict(x1=np.ones((2, 28, 28, 1)), x2=np.ones((2, 16, 16, 1))), "one size"),
        (dict(x1=np.ones((2, 28, 28, 1)), depth=95), "multiple of 3"),
        (dict(x1=np.ones((2, 28, 28, 1)), depth=0), "multiple of 3"),
        (dict(x1=np.ones((2, 28, 28, 1)), engine="abacus"), "abacus"),
        (dict(x1=np.ones((2, 28, 28, 1)), precision="float16"), "float16"),
    ],
)
def test_convolutional_rejects(arguments, words):
    with pytest.raises(ValueError, match=words):
        training.convolutional_ntk(**arguments)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(x1=np.ones((2, 28, 28, 1)), depth=3), "shape"),
        (dict(x1=np.ones((2, 784), complex), depth=3), "dtype complex128"),
        (dict(x1=np.full((2, 784), np.inf), depth=3), "infinite"),
        (dict(x1=np.ones((2, 784)), x2=np.ones((2, 256)), depth=3), "one size"),
        (dict(x1=np.ones((2, 784)), depth=-1), "depth -1"),
        (dict(x1=np.ones((2, 784)), depth=3, engine="abacus"), "abacus"),
    ],
)
def test_fully_connected_rejects(arguments, words):
    with pytest.raises(ValueError, match=words):
        training.fully_connected_ntk(**arguments)
