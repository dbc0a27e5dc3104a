"""Baselines, sensitivity, and the sections of RESULTS.md that come from them."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import swap_trials
from scipy.sparse import csr_array
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

import circuit
import controls
import emulation
import finite_width
import training
from analysis import evidence
from analysis.experiments import read_experiments
from runtime import kernels as kernels_of_pairs
from runtime.checkpoints import write_kernel
from runtime.datasets import CannotBeHad, load_images
from runtime.results import origin_of, read_results
from runtime.trials import Run, Trial

TEST_SIZE = 20
NETWORKS = training.make_networks()


def trial_of(network, size, number):
    """A trial of the paper's classes."""
    return Trial(NETWORKS[network], NETWORKS[network].classes, size, number)


def write_kernels(run, network, size, number):
    """A trial's kernels, an RBF instead of the NTK; K~ needs the larger diagonal to be definite."""
    trial = trial_of(network, size, number)
    images = training.trial_images(run, trial)
    x = np.concatenate([images.train, images.test]).reshape(size + TEST_SIZE, -1)
    scale = 1 + 0.1 * np.random.default_rng(size + number).random(len(x))
    kernel = scale[:, None] * scale * (1 + np.exp(-3 * (1 - x @ x.T)))
    files = training.trial_files(run, trial, training.separability(images.train))
    write_kernel(files.path("kernel_train"), kernel[:size, :size], files.label())
    write_kernel(
        files.path("kernel_test"), kernel[size:, :size], files.label() | {"test_size": TEST_SIZE}
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on scikit-learn's digits, with kernels of both networks in its folder."""
    made = Run(
        0, TEST_SIZE, tmp_path_factory.mktemp("controls"), "numba", "float64", load_images("digits")
    )
    for network in NETWORKS:
        for size, number in [(16, 0), (16, 1), (32, 0)]:
            write_kernels(made, network, size, number)
    return made


@pytest.fixture(scope="module")
def finished(run):
    """That run's folder, after controls.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "load_images", lambda *_: run.images)
        assert controls.main(["--dataset", "digits", "--output", str(run.output)]) == 0
    return run.output


def stored_kernels(run, network, size, number):
    """A trial's kernels from its files."""
    return training.stored_kernels(run.output, f"digits-{network}", size, number, 0)


# Approximations of other constants


def test_density_is_a_factor_of_the_entries():
    draws = range(60)
    for replacement in (True, False):
        counts = [
            np.mean(
                [
                    training.sparsity_pattern(64, np.random.default_rng(i), replacement, d).nnz - 64
                    for i in draws
                ]
            )
            for d in (0.25, 1, 2)
        ]
        assert np.allclose(np.array(counts) / counts[1], [0.25, 1, 2], rtol=0.15)


def test_constants_reach_the_matrices():
    rng = np.random.default_rng(0)
    kernel = np.cov(rng.normal(size=(16, 40)))
    trial, y = trial_of("convolutional", 16, 0), np.repeat([1, -1], 8)
    kernels = training.TrialKernels(
        trial, 3, np.nan, kernel, kernel, y, y, training.KernelScale(1.0)
    )

    def matrix(percentile, boost, density, reference=kernel):
        setting = controls.Setting(percentile, boost, density)
        pattern = training.trial_patterns(0, trial, density=density)[0]
        return controls.with_constants(setting, reference).make(kernels, pattern)

    usual, plain, denser = matrix(0, 1, 1), matrix(0, 0, 1), matrix(0, 1, 4)
    empty = matrix(100, 1, 1, 9 * np.ones((16, 16)))
    assert np.array_equal(np.diag(plain), np.diag(kernel))
    assert np.allclose(np.diag(usual), np.diag(kernel) * (1 + 0.76 * np.log(16) ** 0.9))
    assert np.array_equal(usual - np.diag(np.diag(usual)), plain - np.diag(np.diag(plain)))
    assert training.sparsity(denser) > training.sparsity(usual) > training.sparsity(empty) == 1


# Baselines


def test_pixel_classifiers_are_the_textbooks(rng=np.random.default_rng(1)):  # noqa: B008
    y = np.repeat([1, -1], 15)
    x, z = rng.normal(size=(30, 5)) + 0.7 * y[:, None], rng.normal(size=(200, 5))
    neighbour, mean = (
        KNeighborsClassifier(1).fit(x, y).predict(z),
        NearestCentroid().fit(x, y).predict(z),
    )
    assert np.array_equal(np.sign(controls.nearest_neighbour(x, y, z)), neighbour)
    assert np.array_equal(np.sign(controls.nearest_mean(x, y, z)), mean)
    assert np.array_equal(
        np.sign(controls.ink(x, y, z)), np.sign(z.sum(1) - np.mean([x[:15].sum(1), x[15:].sum(1)]))
    )
    assert np.mean(np.sign(controls.ridge_regression(x, y, z)) == mean) > 0.9


def test_baselines_are_of_the_trials_themselves(run, finished):
    results = read_results(finished / "digits-convolutional_baselines.nc")
    assert results.n.values.tolist() == [16, 32]
    assert results.test_images.values.tolist() == [
        [20, 20],
        [20, pytest.approx(np.nan, nan_ok=True)],
    ]
    accuracy = results.accuracy.sel(n=16, trial=1)
    record = training.trial_quantities(
        stored_kernels(run, "convolutional", 16, 1), training_patterns(16, 1)
    )
    expected = record.accuracy.isel(convention=0, pattern=0, drop=True)
    for name in ("exact", "diagonal"):
        np.testing.assert_array_equal(
            accuracy.sel(classifier=name), expected.sel(approximation=name)
        )
    images = training.trial_images(run, trial_of("convolutional", 16, 1))
    x, z = images.train.reshape(16, -1), images.test.reshape(TEST_SIZE, -1)
    predicted = KNeighborsClassifier(1).fit(x, images.train_label).predict(z)
    at = {"classifier": "nearest neighbour", "threshold": "zero"}
    assert accuracy.sel(at) == np.mean(predicted == images.test_label)
    assert origin_of(results) == {
        "dataset": "digits", "dataset_sha256": run.images.sha256, "network": "convolutional",
        "classes": [1, 0], "seed": 0, "formulas": 1,
    }  # fmt: skip


def training_patterns(size, number, network="convolutional"):
    """The patterns of a trial."""
    return training.trial_patterns(0, trial_of(network, size, number))


def test_the_diagonal_approximation_is_the_class_mean_of_the_kernel(run):
    kernels = stored_kernels(run, "convolutional", 16, 0)
    varying = controls.baseline_record(run, kernels)
    assert 0 < varying.diagonal_spread < 0.25
    train = kernels.train.copy()
    np.fill_diagonal(train, 3.0)
    thresholds = kernels.scale._replace(k_thresh=10.0)  # nothing is clipped
    constant = controls.baseline_record(run, replace(kernels, train=train, scale=thresholds))
    assert (
        constant.diagonal_spread == 0
        and (constant.agreement == 1).all()
        and constant.clipped_share == 0
    )
    same = (
        constant.accuracy.sel(classifier="kernel mean"),
        constant.accuracy.sel(classifier="diagonal"),
    )
    np.testing.assert_array_equal(*same)


def test_rivals_are_as_cheap_and_chosen_on_one_half(run, finished):
    """K's own outputs, those with K~'s diagonal, and a ridge's: the other half is counted."""
    results = read_results(finished / "digits-convolutional_baselines.nc").sel(n=32, trial=0)
    names = ["exact", "sparsified", "diagonal", controls.ENLARGED, *controls.classical.RIVALS]
    assert results.rival.values.tolist() == names
    kernels = stored_kernels(run, "convolutional", 32, 0)
    calibration = controls.calibration_of(kernels, 0)
    boost = 0.76 * np.log(32) ** 0.9
    parameter = results.rival_parameter.sel(rival=controls.ENLARGED)
    assert parameter == pytest.approx(boost)
    matrix = kernels.train + boost * kernels.train.diagonal().mean() * np.eye(32)
    outputs = kernels.test @ np.linalg.solve(matrix, kernels.train_label)
    right = []
    for t in (0, np.median(outputs[calibration])):
        right.append((outputs > t) == (kernels.test_label > 0))
    best = max(right, key=lambda each: each[calibration].mean())
    expected = best[~calibration].mean()
    assert results.rival_accuracy.sel(rival=controls.ENLARGED) == pytest.approx(expected)
    assert results.rival_accuracy.notnull().all()
    connected = read_results(finished / "digits-fully-connected_baselines.nc")
    assert controls.ENLARGED not in connected.rival


# Standardisation


def test_test_images_get_the_numbers_of_the_training_images(run):
    kernels = stored_kernels(run, "fully-connected", 16, 1)
    found = controls.with_training_standard(run, kernels)
    trial, digits = kernels.trial, run.images
    draws = [trial.random(0, purpose) for purpose in ("train", "test")]
    train, _ = training.choose_images(digits.train, trial.classes, 8, draws[0])
    test, _ = training.choose_images(digits.test, trial.classes, TEST_SIZE // 2, draws[1])
    flat = [((each - train.mean()) / train.std()).reshape(len(each), -1) for each in (test, train)]
    flat = [each / np.linalg.norm(each, axis=1)[:, None] for each in flat]
    expected = controls.fully_connected_ntk(*flat, depth=kernels.depth)
    np.testing.assert_allclose(found.test, expected, rtol=1e-12)
    own = training.trial_images(run, trial)
    assert np.abs(own.test - flat[0]).max() > 1e-3  # the test images' own numbers differ
    np.testing.assert_allclose(own.train, flat[1])


def test_standardisation_resumes_and_is_kept(run, tmp_path, monkeypatch, capsys):
    """A run that is stopped after some pairs goes on with the others."""
    for size in (16, 32):
        copy_trial(run, tmp_path, f"digits-convolutional_seed0_data{size}_trial0")
    monkeypatch.setattr(controls, "load_images", lambda *_: run.images)
    monkeypatch.setattr(controls, "standardised_trials", {16: 1})
    monkeypatch.setattr(kernels_of_pairs, "pairs_at_once", lambda pairs: 100)
    computed = []

    def evaluate(pairs, i, j):
        if len(computed) == 2:
            computed.append(0)
            raise KeyboardInterrupt
        computed.append(len(i))
        return 1 + 0.1 * np.cos(i * j)

    monkeypatch.setattr(kernels_of_pairs, "evaluate_pairs", evaluate)
    arguments = ["--dataset", "digits", "--networks", "convolutional", "--standardisation"]
    arguments += ["--output", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        controls.main(arguments)
    assert controls.main(arguments) == 0 and computed == [100, 100, 0, 100, 20]
    results = read_results(tmp_path / "digits-convolutional_standardisation.nc")
    assert results.n.values.tolist() == [16] and results.standard.values.tolist() == list(
        controls.STANDARDS
    )
    first = results.sel(n=16, trial=0)
    kernels = stored_kernels(run, "convolutional", 16, 0)
    own = controls.standard_record(kernels, 0)
    for name in controls.OF_STANDARDS:
        np.testing.assert_array_equal(first[name].sel(standard="test images"), own[name])
        assert first[name].sel(standard="training images").notnull().all()
    capsys.readouterr()
    assert controls.main(arguments) == 0 and len(computed) == 5
    assert "has all of these trials" in capsys.readouterr().out


# Sensitivity


def test_settings_are_planes_through_the_papers_point():
    assert controls.papers_setting in controls.settings and len(set(controls.settings)) == 90
    assert (0, 0, 1) in controls.settings and (0, 0, 4) not in controls.settings


def sensitivity(finished):
    """What controls.py wrote."""
    return read_results(finished / "digits-convolutional_sensitivity.nc")


def test_the_papers_point_is_what_training_computes(run, finished):
    results = sensitivity(finished)
    point = results.sel(n=32, trial=0, setting="90 1 1")
    kernels = stored_kernels(run, "convolutional", 32, 0)
    expected = training.trial_quantities(kernels, training_patterns(32, 0))
    for name in ("accuracy", "condition_number", "sparsity", "positive_definite"):
        np.testing.assert_array_equal(point[name], expected[name])
    median = expected.readout_measurements.median("image")
    np.testing.assert_array_equal(point.readout_measurements_median, median)
    assert results.sparsity.sel(n=32, trial=1).isnull().all()  # no such trial
    assert origin_of(results)["papers_setting"] == [90, 1, 1]
    assert all({"long_name", "units"} <= set(values.attrs) for values in results.data_vars.values())


def test_constants_change_what_they_should(finished):
    results = sensitivity(finished).sel(
        n=32, trial=0, approximation="sparsified", convention="corrected"
    )

    def mean(name, *setting):
        return results[name].sel(setting=controls.Setting(*setting).label).mean().item()

    for setting in controls.settings:
        place = results.sel(setting=setting.label)
        assert setting == (place.percentile, place.boost, place.density)
    assert mean("condition_number", 0, 1, 1) > mean("condition_number", 0, 3, 1) > 1
    assert mean("sparsity", 0, 1, 4) > mean("sparsity", 0, 1, 0.25)
    assert mean("sparsity", 0, 1, 4) > mean("sparsity", 99, 1, 4)
    assert mean("positive_definite", 0, 0, 1) == 0 and mean("positive_definite", 0, 3, 1) == 1


def test_the_report_shows_the_constants_that_were_written(finished):
    (_, convolutional), problems = read_experiments(finished)
    told = evidence.constants(convolutional)
    assert not problems and told["n"] == 16 and "| boost 0.25 |" in told["table"]


# Command line


@pytest.fixture
def quick(run, monkeypatch):
    """Remember the images, which don't change."""
    monkeypatch.setattr(controls, "load_images", lambda *_: run.images)


def test_a_second_run_computes_nothing(finished, quick, monkeypatch, capsys):
    paths = list(finished.glob("*.nc"))
    before = {path: path.read_bytes() for path in paths}
    assert controls.main(["--dataset", "digits", "--output", str(finished)]) == 0
    assert {path: path.read_bytes() for path in paths} == before and len(paths) == 5
    assert capsys.readouterr().out.count("has all of these trials") == 4
    settings = [*controls.settings, controls.Setting(10, 1, 1)]  # one that is not there
    monkeypatch.setattr(controls, "settings", settings)
    asked = []
    monkeypatch.setattr(
        controls, "sensitivity_record", lambda *_: asked.append(1) or controls.xr.Dataset()
    )
    monkeypatch.setattr(controls, "keep", lambda *_: None)
    assert (
        controls.main(
            ["--dataset", "digits", "--output", str(finished), "--networks", "convolutional"]
        )
        == 0
    )
    assert len(asked) == 3


def copy_trial(run, folder, stem="digits-convolutional_seed0_data16_trial0"):
    """The kernels of one trial alone."""
    for name in ("kernel_train", "kernel_test"):
        path = run.output / f"{stem}_{name}.npy"
        (folder / path.name).write_bytes(path.read_bytes())


def test_without_images_the_sensitivity_is_computed(run, tmp_path, monkeypatch, capsys):
    copy_trial(run, tmp_path)

    def no_images(*_):
        raise CannotBeHad("dataset", "mnist", "no connection; give --mnist-dir")

    monkeypatch.setattr(controls, "load_images", no_images)
    monkeypatch.setattr(controls, "settings", [controls.papers_setting])
    assert controls.main(["--dataset", "digits", "--output", str(tmp_path)]) == 0
    kinds = {path.stem.removeprefix("digits-convolutional_") for path in tmp_path.glob("*.nc")}
    assert kinds == {"sensitivity", "trainability"}
    said = capsys.readouterr().out
    assert said.startswith("note: no baselines, which need the images: no connection")


def test_some_entries_of_a_kernel(run, tmp_path, monkeypatch, quick, capsys):
    """Everything but the exact NTK has its accuracy; other patterns would need other entries."""
    copy_trial(run, tmp_path)
    whole = training.stored_kernels
    monkeypatch.setattr(
        training,
        "stored_kernels",
        lambda *of: replace(whole(*of), train=csr_array(whole(*of).train)),
    )
    assert controls.main(["--dataset", "digits", "--output", str(tmp_path)]) == 0
    assert "no sensitivity at n = 16" in capsys.readouterr().out
    results = read_results(tmp_path / "digits-convolutional_baselines.nc")
    known = results.accuracy.sel(n=16, trial=0).notnull().all("threshold")
    assert known.classifier[~known].values.tolist() == ["exact"]
    assert results.diagonal_spread.notnull().all()


def refused(capsys, *arguments):
    """The line about a bad input."""
    assert controls.main([*map(str, arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("script", [circuit, controls, emulation, finite_width])
def test_every_script_checks_the_constants_of_training(monkeypatch, capsys, script):
    monkeypatch.setattr(training, "selections", (9, 9))
    with pytest.raises(SystemExit) as ended:
        script.main([])
    line = capsys.readouterr().err
    assert ended.value.code == 2 and line.count("\n") == 1 and "the constant selections = " in line


def test_bad_inputs(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        controls.main(["--output", str(tmp_path / "nowhere")])
    assert stopped.value.code == 2 and "--output" in capsys.readouterr().err
    assert "--mnist-dir" in refused(capsys, "--mnist-dir", tmp_path, "--output", tmp_path)


def test_kernels_of_another_name_are_refused(run, tmp_path, quick, capsys):
    arguments = "--dataset", "digits", "--output", tmp_path
    stem = "digits-convolutional_seed0_data16_trial0"
    copy_trial(run, tmp_path)
    path = tmp_path / f"{stem}_kernel_test.npy"
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    assert "is damaged" in refused(capsys, *arguments)
    copy_trial(run, tmp_path)
    copy_trial(run, tmp_path, "digits-convolutional_seed0_data16_trial1")
    swap_trials(tmp_path, stem, "digits-convolutional_seed0_data16_trial1")
    line = refused(capsys, *arguments)
    assert "data16_trial0" in line and "trial 1, not 0" in line


def test_kernels_of_other_images_are_refused(run, tmp_path, quick, capsys):
    other = replace(run, output=tmp_path, images=replace(run.images, sha256="0" * 64))
    write_kernels(other, "fully-connected", 16, 0)
    line = refused(capsys, "--dataset", "digits", "--output", tmp_path)
    assert "dataset_sha256" in line and str(tmp_path) in line


def test_nothing_to_do_is_said(tmp_path, quick, capsys):
    assert controls.main(["--dataset", "digits", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("note: no kernels") == 2 and "training.py makes them" in said


# Neighbours and trainability


def test_neighbours_by_hand(run):
    """The nearest training image of each test image, pair by pair, and who is within a radius."""
    trial = trial_of("fully-connected", 16, 0)
    record = controls.neighbour_record(run, trial)
    images = training.trial_images(run, trial)
    distances = np.array([[1 - x @ z for x in images.train] for z in images.test])
    assert record.closest_distance == pytest.approx(distances.min())
    assert record.median_distance == pytest.approx(np.median(distances.min(axis=1)))
    at = record.sel(radius=0.3)
    near = distances <= 0.3
    assert at.with_neighbour == pytest.approx(near.any(axis=1).mean()) and near.any()
    assert at["size"] == pytest.approx(near.mean())
    shares = []
    for row, label in zip(near, images.test_label, strict=True):
        if row.any():
            shares.append(np.mean(images.train_label[row] == label))
    assert at.purity == pytest.approx(np.mean(shares))
    assert record.kernel_at_radius[0] == pytest.approx(1)  # where k_thresh is taken
    assert np.all(np.diff(record.kernel_at_radius) < 0)


def test_neighbours_are_those_of_the_plan_and_of_all_images(finished):
    results = read_results(finished / "digits-fully-connected_neighbours.nc")
    assert results.n.values.tolist()[:4] == [16, 32, 64, 128] and results.n[-1] not in (256, 512)
    assert results.closest_distance.notnull().sum("trial").values[[0, -1]].tolist() == [16, 1]
    assert controls.plan_and_all(NETWORKS["fully-connected"], (8, 9), 20)[-1].size == 20


def test_trainability_by_hand(finished, run):
    results = read_results(finished / "digits-convolutional_trainability.nc").sel(n=16, trial=1)
    kernels = training.stored_kernels(finished, "digits-convolutional", 16, 1, 0)
    values = np.linalg.eigvalsh(kernels.train)
    assert results.condition_number == pytest.approx(values[-1] / values[0])
    assert results.second_condition_number == pytest.approx(values[-2] / values[0])
    pattern = training.trial_patterns(0, kernels.trial)[2]
    sparse = training.sparsified(kernels, pattern)
    w, w_sparse = (np.linalg.solve(each, kernels.train_label) for each in (kernels.train, sparse))
    cosine = w @ w_sparse / np.linalg.norm(w) / np.linalg.norm(w_sparse)
    assert results.cosine.sel(pattern=2) == pytest.approx(cosine)
    assert np.all(results.stopped_correlation >= results.trained_correlation - 1e-6)
