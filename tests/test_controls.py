"""Baselines, sensitivity, and the sections of RESULTS.md that come from them."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

import controls
import training
from analysis import evidence
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


def test_constants_change_what_they_should(finished):
    arrays = load_arrays(finished / "digits-convolutional_sensitivity.npz")
    _, boosts, condition = evidence.sensitivity_map(arrays, "condition_number", 32, 0, 1)
    percentiles, densities, sparsity = evidence.sensitivity_map(arrays, "sparsity_sound", 32, 0, 2)
    assert list(boosts) == list(controls.boosts) and list(densities) == list(controls.densities)
    assert list(percentiles) == list(controls.percentiles)
    assert condition[0, 3] > condition[0, -1] > 1  # more on the diagonal, closer to it
    assert sparsity[0, 4] > sparsity[0, 0] and sparsity[0, 4] > sparsity[-1, 4]
    definite = evidence.sensitivity_map(arrays, "positive_definite", 32, 0, 1)[2]
    assert definite[0, 0] == 0 and definite[0, -1] == 1


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


# Sections of RESULTS.md


def test_depth_section():
    """Two settings, the original's and one at which the exact NTK gains 0.02 and the diagonal loses that again."""
    noise = 0.05 * np.array([-1, 1, 1, -1])
    exact = 0.9 + np.stack([noise, noise + 0.02])[None].repeat(2, axis=0)  # [sizes, settings, trials]
    exact[1, :, 3] = np.nan
    arrays = {"data_sizes": np.array([16, 64]), "trials": np.array([4, 3]), "depth_settings": np.array([0.1, 0.02]),
              "off_diagonal_ratio": exact * 0 + 0.25, "condition_number_exact": exact * 0 + 7,
              "origin": np.array(json.dumps({"depth_rule": 0.1, "test_size": 99}))}  # fmt: skip
    for ending in evidence.THRESHOLDS:
        arrays |= {f"accuracy_exact{ending}": exact, f"accuracy_diagonal{ending}": exact - [[0], [0.02]]}
        arrays[f"accuracy_sparse{ending}"] = exact[..., None] - np.array([0, 0.1, 0.2])
    text = evidence.depth_section("X", arrays)
    rows = [line for line in text.splitlines() if line.startswith("| 64")]
    assert rows[0].startswith("| 64 | 3 | **0.1** | 0.25 | 7 | 0.9") and rows[0].endswith(
        "| 0 | **+0.100 ± 0.000** | 0 | **+0.100 ± 0.000** | 0 |"
    )
    assert rows[1].startswith("| 64 | 3 | 0.02 |") and rows[1].count("**+0.020 ± 0.000**") == 3
    assert "- Exact minus diagonal, interval above 0: at 0.02 by 0.020 (all n).\n" in text
    assert "99 test images" in text and "depth / L_conv" in text
    assert "- Sparsified minus exact at the original's depth, interval above 0: nowhere.\n" in text
    # The exact NTK's 0.02 more and the sparsified one's 0.1 less than that; the diagonal gains nothing.
    assert "interval below 0: at 0.1 by 0.100 (all n); 0.02 by 0.080 (all n).\n" in text
    assert "- Diagonal minus exact at the original's depth, interval above 0: nowhere.\n" in text
    assert text.count("below 0") == 1


def synthetic_baselines(exact, neighbour):
    """Arrays of a file of three sizes and four trials, with these mean accuracies."""
    noise = 0.002 * np.array([-1, 1, 1, -1])
    names = [*evidence.KERNELS, *evidence.PIXELS]
    arrays = {f"accuracy_{name}{e}": np.full((3, 4), 0.5) + noise for name in names for e in evidence.THRESHOLDS}
    for e in evidence.THRESHOLDS:
        arrays[f"accuracy_exact{e}"] = np.array(exact)[:, None] + noise
        arrays[f"accuracy_nearest_neighbour{e}"] = np.array(neighbour)[:, None] - noise
    about = {"data_sizes": np.array([16, 32, 64]), "computed": np.ones((3, 4), bool), "agreement": np.ones((3, 4)),
             "agreement_at_zero": np.ones((3, 4)), "origin": np.array(json.dumps({"test_size": 256}))}  # fmt: skip
    return arrays | about


def test_baselines_say_what_the_intervals_say():
    text = evidence.baselines_section("X", synthetic_baselines([0.9, 0.9, 0.9], [0.8, 0.9, 0.95]))
    assert "Threshold median: the exact NTK is better than all of these at n = 16; one of them or more" in text
    assert "is better than the exact NTK at n = 64." in text and "**-0.050" in text
    assert "gets the same class from both" in text
    assert "Threshold 0: nearest neighbour is better than the exact NTK at n = 64, by 0.050.\n" in text
    assert "- The sum of the pixels alone has 0.500 at n = 64: this pair of digits needs more than that.\n" in text
    assert "Wrong at n = 64, threshold at the median, of 256 test images: exact NTK 25.6" in text


def test_least_boost_is_above_every_failure():
    settings = np.array(controls.settings, float)
    definite = np.ones((1, len(settings), 2, 3))
    definite[0, (settings == (90, 0.5, 1)).all(axis=1), 1, 2] = 0  # one pattern of one trial
    definite[0, (settings == (90, 3, 4)).all(axis=1)] = 0
    origin = np.array(json.dumps({"papers_setting": [90, 1, 1]}))
    arrays = {"settings": settings, "data_sizes": np.array([16]), "positive_definite": definite, "origin": origin}
    rows = dict(evidence.least_boosts(arrays, "", 2))
    assert rows == {f"original, density {d:g}": "0" for d in (0.25, 0.5, 2)} | {
        "original, density 1": "1", "original, density 4": "above 3"
    }  # fmt: skip
    line, _ = evidence.definite_in_words(arrays | {"positive_definite_sound": definite})
    assert line.endswith("positive definite is 1 at all n. The paper's is 1.\n")


def test_percentiles_that_drop_nothing_are_named(finished):
    arrays = dict(load_arrays(finished / "digits-convolutional_sensitivity.npz"))
    assert "so 0, 50 and 75 drop nothing" in evidence.same_percentiles(arrays)
    second = (arrays["settings"] == (50, 1, 1)).all(axis=1)
    arrays["condition_number"] = np.where(second[:, None, None], 2.0, arrays["condition_number"])
    assert "so 0 and 75 drop nothing" in evidence.same_percentiles(arrays)
    third = (arrays["settings"] == (75, 1, 1)).all(axis=1)
    arrays["condition_number"] = np.where(third[:, None, None], 2.0, arrays["condition_number"])
    assert evidence.same_percentiles(arrays) == ""


def test_ranks_leave_open_what_chance_allows():
    noise = np.random.default_rng(0).normal(size=(45, 6)) * 0.01
    clear = 0.5 + np.linspace(0, 0.45, 45)[:, None] + noise * 0.01
    assert evidence.pair_ranks(clear, 40, True)[2] == (5, 5, 5)
    assert evidence.pair_ranks(clear, 40, False)[2] == (41, 41, 41)
    best, _, worst = evidence.pair_ranks(0.9 + noise, 40, True)[2]
    assert best <= 5 and worst >= 41


def test_pairs_are_easy_or_hard_in_words():
    rows = [["a", "", "1 (1 to 2)", "easy", "", "9 (8 to 9)", "hard"],
            ["b", "", "2 (1 to 45)", "not told from any", "", "", "hard"]]  # fmt: skip
    assert evidence.in_words([(1, 0), (8, 9)], rows) == [
        "- 0 and 1 among all pairs: easy by “a”; hard by nothing.\n",
        "- 8 and 9 among all pairs: easy by nothing; hard by “a”, “b”.\n",
    ]


def test_sections_of_a_folder(finished, tmp_path):
    assert "## Baselines: Fully connected" in evidence.baselines(finished)
    assert "| original | 32 | 1 |" in evidence.sensitivity(finished)
    assert evidence.baselines(tmp_path) == evidence.sensitivity(tmp_path) == evidence.digit_pairs(tmp_path) == ""
    assert evidence.depth(tmp_path) == ""


def test_digit_pairs_section():
    pairs = np.array(list(itertools.combinations(range(10), 2)))
    level = np.linspace(0.6, 0.98, 45)[:, None] + 0.001 * np.array([-1, 1, 1, -1])
    level[pairs.tolist().index([8, 9])] += 1 - 0.98  # the last of the pairs, the most accurate and the dearest
    costs = [name for name, *_ in evidence.PAIR_QUANTITIES.values() if not name.startswith("accuracy")]
    arrays = dict.fromkeys(costs, np.stack([1 + 10 * level, 1 + 20 * level]))
    for e in evidence.THRESHOLDS:
        arrays[f"accuracy_exact{e}"] = arrays[f"accuracy_diagonal{e}"] = np.stack([level, level])
        arrays[f"accuracy_sparse{e}"] = np.stack([level, level])[..., None] - np.array([0, 0, 0.3])
    arrays["accuracy_sparse"][1, 7] -= 0.05
    text = evidence.digit_pairs_section("X, digits 8 and 9", arrays | {
        "digit_pairs": pairs, "data_sizes": np.array([16, 32]), "trials": np.array([4, 4]),
        "origin": np.array(json.dumps({"precision": "float32"})),
    })  # fmt: skip
    assert "; kernels in float32." in text
    rows = {row.split(" | ")[0].lstrip("| "): row for row in text.splitlines() if row.startswith("|")}
    own, other = " | 1 (1 to 1) | easy | 0.6 ±", " | 45 (45 to 45) | hard | "  # of 8 and 9, of 0 and 1
    assert own in rows["accuracy, exact"] and rows["accuracy, exact"].index(own) < rows["accuracy, exact"].index(other)
    assert " | 45 (45 to 45) | hard | 9.5" in rows["readout, diagonal"]
    assert rows["exact minus diagonal"].count("| not told from any |") == 2
    assert "| 8 and 9 | rank | the pair is | 0 and 1 |" in text
    where = "in the mean of the trials of 0 and 8 at n = 32"
    assert f"largest loss of the sparsified matrix is 0.1500 of accuracy, {where}" in text
    assert (
        "K̃ is better than its diagonal on 0 pairs, beyond chance on 0, and worse on 45 pairs, beyond chance on 45"
        in text
    )
    line = next(line for line in text.splitlines() if line.startswith("- 8 and 9 among all pairs"))
    assert (
        line.startswith("- 8 and 9 among all pairs: easy by “accuracy, exact”") and "hard by “κ of K, less 1”" in line
    )
    chance = evidence.pair_chance(arrays, "accuracy_exact", "accuracy_sparse", 0)
    assert not chance.any() and evidence.pair_chance(arrays, "accuracy_exact", "accuracy_diagonal", 1).all()
    later = {name: np.concatenate([array, np.full_like(array[:1], np.nan)]) for name, array in arrays.items()}
    for name, subtract, _ in evidence.PAIR_QUANTITIES.values():  # a size without trials does not count
        np.testing.assert_array_equal(
            evidence.pair_values(later, name, subtract), evidence.pair_values(arrays, name, subtract)
        )
    assert np.allclose(evidence.pair_values(arrays, "condition_number").mean(), np.sqrt(200) * level.mean())
