"""Baselines and sensitivity."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

import controls
import training
from ntk import BadInput
from runtime.checkpoints import finish_matrix, open_matrix
from runtime.mnist import load_data
from runtime.results import load_arrays
from runtime.trials import Run

TEST_SIZE = 20


def write_kernels(run, network, size, number):
    """Files of a trial's kernels, an RBF instead of the NTK; K~ is indefinite without a larger diagonal."""
    trial = training.make_trial(network, training.selections[network], size, number)
    images = training.trial_images(run, trial)
    x = np.concatenate([images["train"], images["test"]]).reshape(size + TEST_SIZE, -1)
    scale = 1 + 0.1 * np.random.default_rng(size + number).random(len(x))
    kernel = scale[:, None] * scale * (1 + np.exp(-3 * (1 - x @ x.T)))
    files = training.trial_files(run, trial, training.separability(images["train"]))
    for name, rows in (("kernel_train", slice(size)), ("kernel_test", slice(size, None))):
        label = files.label() | ({"test_size": TEST_SIZE} if name == "kernel_test" else {})
        matrix = open_matrix(files.path(name), kernel[rows, :size].shape, label)
        matrix[...] = kernel[rows, :size]
        finish_matrix(files.path(name), matrix)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on scikit-learn's digits, with kernels of both networks in its folder."""
    made = Run(0, TEST_SIZE, tmp_path_factory.mktemp("controls"), "numba", "float64", load_data("digits"))
    for network in training.networks:
        for size, number in [(16, 0), (16, 1), (32, 0)]:
            write_kernels(made, network, size, number)
    return made


@pytest.fixture(scope="module")
def finished(run):
    """That run's folder, after controls.py."""
    assert controls.main(["--dataset", "digits", "--output", str(run.output)]) == 0
    return run.output


# Approximations of other constants


def test_density_is_a_factor_of_the_entries():
    draws = range(60)
    for replacement in (True, False):
        counts = [
            np.mean([training.sparsity_pattern(64, np.random.default_rng(i), replacement, d).nnz - 64 for i in draws])
            for d in (0.25, 1, 2)
        ]
        assert np.allclose(np.array(counts) / counts[1], [0.25, 1, 2], rtol=0.15)


def test_constants_reach_the_matrices():
    rng = np.random.default_rng(0)
    kernel = np.cov(rng.normal(size=(16, 40)))
    trial = training.make_trial("convolutional", (1, 0), 16, 0)
    low, high = (dict.fromkeys(training.conventions, (t, t)) for t in (0.0, 9.0))
    usual = training.trial_approximations(trial, 0, kernel, low)["original"][0]
    plain = training.trial_approximations(trial, 0, kernel, low, boost=(0, 1))["original"][0]
    denser = training.trial_approximations(trial, 0, kernel, low, density=4)["original"][0]
    empty = training.trial_approximations(trial, 0, kernel, high)["original"][0]
    assert np.array_equal(np.diag(plain), np.diag(kernel))
    assert np.allclose(np.diag(usual), np.diag(kernel) * (1 + 0.76 * np.log(16) ** 0.9))
    assert np.array_equal(usual - np.diag(np.diag(usual)), plain - np.diag(np.diag(plain)))
    assert training.sparsity(denser) > training.sparsity(usual) > training.sparsity(empty) == 1


# Baselines


def test_pixel_classifiers_are_the_textbooks(rng=np.random.default_rng(1)):  # noqa: B008
    y = np.repeat([1, -1], 15)
    x, z = rng.normal(size=(30, 5)) + 0.7 * y[:, None], rng.normal(size=(200, 5))
    neighbour, mean = KNeighborsClassifier(1).fit(x, y).predict(z), NearestCentroid().fit(x, y).predict(z)
    assert np.array_equal(np.sign(controls.nearest_neighbour(x, y, z)), neighbour)
    assert np.array_equal(np.sign(controls.nearest_mean(x, y, z)), mean)
    assert np.array_equal(np.sign(controls.ink(x, y, z)), np.sign(z.sum(1) - np.mean([x[:15].sum(1), x[15:].sum(1)])))
    assert np.mean(np.sign(controls.ridge_regression(x, y, z)) == mean) > 0.9


@pytest.mark.slow
def test_baselines_are_of_the_trials_themselves(run, finished):
    arrays = load_arrays(finished / "digits-convolutional_baselines.npz")
    assert arrays["data_sizes"].tolist() == [16, 32] and arrays["computed"].tolist() == [[True, True], [True, False]]
    kernels = training.stored_kernels(finished, "digits-convolutional", 16, 1)
    quantities = training.trial_quantities(kernels | {"separability": np.nan}, {})
    for name in ("accuracy_exact", "accuracy_exact_at_zero", "accuracy_diagonal"):
        assert arrays[name][0, 1] == quantities[name]
    trial = training.make_trial("convolutional", (1, 0), 16, 1)
    images = training.trial_images(run, trial)
    x, z = images["train"].reshape(16, -1), images["test"].reshape(TEST_SIZE, -1)
    predicted = KNeighborsClassifier(1).fit(x, images["train_label"]).predict(z)
    assert arrays["accuracy_nearest_neighbour_at_zero"][0, 1] == np.mean(predicted == images["test_label"])


def test_the_diagonal_approximation_is_the_class_mean_of_the_kernel(run):
    trial = training.make_trial("convolutional", (1, 0), 16, 0)
    kernels = training.stored_kernels(run.output, "digits-convolutional", 16, 0)
    varying = controls.baseline_record(run, trial, kernels)
    assert 0 < varying["diagonal_spread"] < 0.25
    np.fill_diagonal(kernels["kernel_train"], 3.0)
    kernels["kernel_test_normalized"] = kernels["kernel_test"] / 10  # nothing is clipped
    constant = controls.baseline_record(run, trial, kernels)
    assert constant["diagonal_spread"] == 0 and constant["agreement"] == constant["agreement_at_zero"] == 1
    for ending in ("", "_at_zero"):
        assert constant[f"accuracy_kernel_mean{ending}"] == constant[f"accuracy_diagonal{ending}"]


# Sensitivity


def test_settings_are_planes_through_the_papers_point():
    assert controls.papers_setting in controls.settings and len(set(controls.settings)) == 90
    assert (0, 0, 1) in controls.settings and (0, 0, 4) not in controls.settings


def test_the_papers_point_is_what_training_computes(finished):
    arrays = load_arrays(finished / "digits-convolutional_sensitivity.npz")
    point = arrays["settings"].tolist().index(list(controls.papers_setting))
    kernels = training.stored_kernels(finished, "digits-convolutional", 32, 0)
    trial = training.make_trial("convolutional", (1, 0), 32, 0)
    matrices = training.trial_approximations(trial, 0, kernels["kernel_train"], kernels["class_thresholds"])
    expected = training.trial_quantities(kernels | {"separability": np.nan}, matrices)
    for name in ("accuracy_sparse", "accuracy_sparse_at_zero_sound", "condition_number", "sparsity_sound"):
        assert np.array_equal(arrays[name][1, point, 0], expected[name])
    assert np.isnan(arrays["sparsity"][1, :, 1]).all()  # no such trial


# Command line


def test_a_second_run_writes_the_same(finished):
    paths = list(finished.glob("*.npz"))
    before = {path: path.read_bytes() for path in paths}
    assert controls.main(["--dataset", "digits", "--output", str(finished), "--networks", "fully-connected"]) == 0
    assert {path: path.read_bytes() for path in paths} == before and len(paths) == 3


def test_without_images_the_sensitivity_is_computed(run, tmp_path, monkeypatch, capsys):
    for path in run.output.glob("digits-convolutional_seed0_data16_trial0_kernel_t*n.npy"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "digits-convolutional_seed0_data16_trial0_kernel_test.npy").write_bytes(
        (run.output / "digits-convolutional_seed0_data16_trial0_kernel_test.npy").read_bytes()
    )

    def no_images(*_):
        raise BadInput("dataset", "mnist", "no connection; give --mnist-dir")

    monkeypatch.setattr(controls, "load_data", no_images)
    assert controls.main(["--dataset", "digits", "--output", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.glob("*.npz")] == ["digits-convolutional_sensitivity.npz"]
    said = capsys.readouterr().out
    assert said.startswith("note: no baselines, which need the images: no connection") and said.count("\n") == 3


def refused(capsys, *arguments):
    """The line about a bad input."""
    assert controls.main([*map(str, arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_bad_inputs(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        controls.main(["--output", str(tmp_path / "nowhere")])
    assert stopped.value.code == 2 and "--output" in capsys.readouterr().err
    assert "--mnist-dir" in refused(capsys, "--mnist-dir", tmp_path, "--output", tmp_path)
    name = "digits-convolutional_seed0_data16_trial0_kernel_{}.npy"
    for kind in ("train", "test"):
        (tmp_path / name.format(kind)).write_bytes((run.output / name.format(kind)).read_bytes())
    content = bytearray((tmp_path / name.format("test")).read_bytes())
    content[400] ^= 1
    (tmp_path / name.format("test")).write_bytes(content)
    assert "is damaged" in refused(capsys, "--dataset", "digits", "--output", tmp_path)


def test_kernels_of_other_images_are_refused(run, tmp_path, capsys):
    other = replace(run, output=tmp_path, data=run.data | {"sha256": "0" * 64})
    write_kernels(other, "fully-connected", 16, 0)
    line = refused(capsys, "--dataset", "digits", "--output", tmp_path)
    assert "dataset_sha256" in line and str(tmp_path) in line


def test_nothing_to_do_is_said(tmp_path, capsys):
    assert controls.main(["--dataset", "digits", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("note: no ") == 3 and "training.py makes them" in said
