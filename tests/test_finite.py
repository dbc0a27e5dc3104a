"""Networks of finite width: their empirical NTK, their training, and the script about them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from conftest import off_diagonal
from kernel_images import flat_images, small_images

import finite_width
import training
from ntk import convolutional_ntk, finite, fully_connected_ntk
from runtime.results import origin_of, read_results
from runtime.trials import Trial

TINY = ("--dataset", "digits", "--widths", "4", "8", "--channels", "8", "--draws", "2")


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


@pytest.fixture
def problem():
    """Four training images and five others, with their NTK at depth 1."""
    x, y = flat_images(9) * 16, np.array([1.0, 1.0, -1.0, -1.0])
    kernel = fully_connected_ntk(x[:4], depth=1)
    kernel_test = fully_connected_ntk(x[4:], x[:4], depth=1)
    outputs = finite_width.regression(kernel, kernel_test, y)
    trial = Trial(training.make_networks()["fully-connected"], (8, 9), 4, 0, 1)
    return finite_width.Problem(trial, x, y, np.ones(5), 1, kernel, kernel_test, outputs)


def test_a_wide_network_trains_like_its_kernel(problem):
    """Its outputs on other images are those of regression with its own NTK, nearly."""
    network = finite_width.random_network(problem, 2048, np.random.default_rng(4))
    kernels, y = (network.kernel, network.kernel_test), problem.y
    trained, _ = finite_width.train_network(problem, network, network.initial)
    expected = finite_width.regression(*kernels, y)
    assert np.abs(trained - expected).max() < 0.05
    no_offset = np.zeros_like(network.initial)
    plain, cost = finite_width.train_network(problem, network, no_offset)
    expected_plain = finite_width.plain_regression(*kernels, y, network.initial)
    assert np.abs(plain - expected_plain).max() < 0.05
    assert np.abs(expected_plain - expected).max() > 0.2
    assert cost["steps"] > 1 and 0 < cost["kernel_change"] < 0.1


def test_initial_noise_is_that_of_random_outputs(problem):
    """The variance over the test images of what many draws of the initial outputs leave."""
    covariance = finite.initial_covariance(problem.x, problem.layers)
    rng = np.random.default_rng(7)
    variances = []
    for initial in rng.multivariate_normal(np.zeros(9), covariance, size=4000):
        kernels = problem.kernel, problem.kernel_test
        left = finite_width.plain_regression(*kernels, problem.y, initial) - problem.outputs
        variances.append(left.var())
    expected = np.mean(variances) / problem.outputs.var()
    assert finite_width.initial_noise(problem) == pytest.approx(expected, rel=0.05)


def test_distance_of_kernels_by_hand(problem):
    """A kernel of another scale is not another kernel; one whose entries are moved by 1 % is."""
    same = finite_width.kernel_quantities(problem, 3 * problem.kernel, 3 * problem.kernel_test)
    assert same["off_diagonal_error"] < 1e-15 and same["kernel_test_error"] < 1e-15
    assert same["diagonal_ratio"] == pytest.approx(3)
    diagonal = np.diag(problem.kernel)
    moved = problem.kernel + 0.01 * np.sqrt(np.outer(diagonal, diagonal)) * (1 - np.eye(4))
    found = finite_width.kernel_quantities(problem, moved, problem.kernel_test)
    assert found["off_diagonal_error"] == pytest.approx(0.01)


def test_a_rate_that_is_too_large_is_halved():
    x, y = flat_images(4) * 16, np.array([1.0, 1.0, -1.0, -1.0])
    weights = finite.draw_weights(x.shape[1], 64, 2, np.random.default_rng(5))
    largest = np.linalg.eigvalsh(finite.empirical_ntk(weights, x)[0])[-1]
    _, steps, rate = finite.train(weights, x, y, 1024 / largest)
    assert steps > 0 and rate < 16 / largest


def test_fit_of_one_over_root():
    width = np.array([100, 400, 1600])
    constant, slope = finite.inverse_root_fit(width, 3 / np.sqrt(width))
    assert constant == pytest.approx(3) and slope == pytest.approx(-0.5)
    assert finite.width_to_see(3, 0.01) == pytest.approx(90000)


# ---- the script ----


@pytest.fixture
def small_plan(monkeypatch):
    """A plan of seconds."""
    for name, fully_connected, convolutional in (
        ("data_sizes", [16], [16]), ("depths", [0.01], [3]), ("test_size", 8, 4)
    ):  # fmt: skip
        values = {"fully-connected": fully_connected, "convolutional": convolutional}
        monkeypatch.setattr(finite_width, name, values)
    monkeypatch.setattr(finite_width, "trained_widths", [8])
    monkeypatch.setattr(finite_width, "trained_draws", 1)


@pytest.mark.slow
def test_script_computes_resumes_and_gives_the_same(small_plan, tmp_path, monkeypatch, capsys):
    once, twice = tmp_path / "once", tmp_path / "twice"
    arguments = ["--networks", "fully-connected", *TINY]
    assert finite_width.main([*arguments, "--output", str(once)]) == 0
    results = read_results(once / "digits-fully-connected_finite_width.nc")
    assert origin_of(results)["seed"] == 0 and results.accuracy.attrs["long_name"]
    assert results.sizes == {
        "n": 1, "depth": 1, "draw": 2, "width": 2, "predictor": 6, "threshold": 2, "image": 8
    }  # fmt: skip
    results = results.sel(n=16, depth=0.01)
    untrained = results.correlation.sel(predictor="trained").isnull()
    assert untrained.sel(width=8).values.tolist() == [False, True]
    assert untrained.sel(width=4).all()
    assert np.allclose(results.correlation.sel(predictor="infinite"), 1)
    assert (results.initial_noise > 0).all()
    finite_outputs = results.outputs.sel(predictor="finite", width=4, draw=1)
    accuracy = results.accuracy.sel(predictor="finite", width=4, draw=1, threshold="zero")
    right = np.where(finite_outputs > 0, 1, -1) == results.label.sel(draw=1)
    assert accuracy == right.mean()

    # One draw, then the other: the same file. And then nothing is left to do.
    assert finite_width.main([*arguments[:-1], "1", "--output", str(twice)]) == 0
    assert finite_width.main([*arguments, "--output", str(twice)]) == 0
    name = "digits-fully-connected_finite_width.nc"
    xr.testing.assert_identical(*[read_results(folder / name) for folder in (once, twice)])
    monkeypatch.setattr(finite_width, "load_problem", None)
    assert finite_width.main([*arguments, "--output", str(twice)]) == 0
    assert "      8 trained_plain " in capsys.readouterr().out


def test_results_of_another_seed_are_put_aside(small_plan, tmp_path):
    arguments = [*TINY, "--networks", "fully-connected", "--widths", "4", "--output", str(tmp_path)]
    assert finite_width.main(arguments) == 0
    assert finite_width.main([*arguments, "--seed", "1"]) == 0
    assert (tmp_path / "digits-fully-connected_finite_width.nc.1.old").exists()


@pytest.mark.slow
def test_a_singular_network_gets_one_line(small_plan, tmp_path, capsys, monkeypatch):
    """Where all neurons are dead. What other widths gave is kept."""
    arguments = [*TINY, "--networks", "convolutional", "--draws", "1", "--output", str(tmp_path)]
    assert finite_width.main(arguments) == 0
    dead = [np.zeros((3, 3, 1, 2), np.float32)] + [np.zeros((3, 3, 2, 2), np.float32)] * 2
    dead += [np.zeros((2, 2), np.float32), np.zeros((2, 1), np.float32)]
    monkeypatch.setattr(finite, "draw_convolutional_weights", lambda *_: dead)
    assert finite_width.main([*arguments, "--channels", "2"]) == 2
    assert "--channels 2: " in capsys.readouterr().err
    results = read_results(tmp_path / "digits-convolutional_finite_width.nc")
    assert results.correlation.sel(predictor="finite").notnull().all()


@pytest.mark.parametrize("name, value", [
    ("data_sizes", [16]), ("data_sizes", {"fully-connected": [15], "convolutional": [16]}),
    ("test_size", {"fully-connected": 7, "convolutional": 64}), ("trained_widths", 5),
    ("depths", {"fully-connected": ["deep"], "convolutional": [6]}),
])  # fmt: skip
def test_wrong_constants_get_one_line(monkeypatch, capsys, name, value):
    monkeypatch.setattr(finite_width, name, value)
    with pytest.raises(SystemExit) as ended:
        finite_width.main(["--draws", "1"])
    line = capsys.readouterr().err
    assert ended.value.code == 2 and line.count("\n") == 1 and f"the constant {name} = " in line


@pytest.mark.parametrize("option, value", [("--draws", "0"), ("--widths", "0"), ("--seed", "-1")])
def test_bad_options_get_one_line(option, value, capsys):
    with pytest.raises(SystemExit) as ended:
        finite_width.main([option, value])
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and option in line and value in line
