"""The whole script: tiny runs of both datasets, sweeps, other digits, verification, and the committed results."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import (
    QUICK,
    ROOT,
    SHALLOW,
    TINY,
    call,
    complaint,
    contents,
    load_once,
    relative_error,
    run_script,
    succeed,
)

import training
from ntk import convolutional_ntk
from runtime import checkpoints, options, sitting
from runtime.results import load_arrays, medians_over_images, read_results, relative_difference
from runtime.trials import Run

PLAN = ("--data-sizes", 4, 16, 8, "--trials", 2, 1, 0, "--test-size", 6)


@pytest.fixture(scope="module", params=["digits", "mnist"])
def finished(request, tmp_path_factory):
    """A finished tiny run of both networks on each dataset: (dataset, folder, what it printed)."""
    folder = tmp_path_factory.mktemp(request.param) / "output"
    where = ("--mnist-dir", request.getfixturevalue("mnist_dir")) if request.param == "mnist" else ()
    return request.param, folder, succeed("--dataset", request.param, *where, "--output", folder, *PLAN)


# ---- what a run writes ----


def test_files_and_results(finished):
    dataset, folder, _ = finished
    for network in training.networks:
        prefix = network if dataset == "mnist" else f"digits-{network}"
        for size, trial in [(4, 0), (4, 1), (16, 0)]:
            names = ("train_label", "test_label", "kernel_train", "kernel_test", "kernel_test_normalized")
            stem = folder / f"{prefix}_seed0_data{size}_trial{trial}"
            arrays = {name: np.load(f"{stem}_{name}.npy", allow_pickle=False) for name in names}
            assert list(arrays["train_label"]) == [1] * (size // 2) + [-1] * (size // 2)
            assert list(arrays["test_label"]) == [1] * 3 + [-1] * 3
            assert arrays["kernel_train"].shape == (size, size) and arrays["kernel_train"].dtype == np.float64
            assert arrays["kernel_test"].shape == arrays["kernel_test_normalized"].shape == (6, size)
            assert np.array_equal(arrays["kernel_train"], arrays["kernel_train"].T)
            assert np.linalg.eigvalsh(arrays["kernel_train"]).min() > 0
            normalized = arrays["kernel_test_normalized"]
            assert np.abs(normalized).max() <= 1
            inside = np.abs(normalized) < 1
            assert inside.any()
            ratios = arrays["kernel_test"][inside] / normalized[inside]
            assert np.allclose(ratios, ratios[0])  # one k_thresh for all
        found = load_arrays(folder / f"{prefix}_results.npz")
        about = {"data_sizes", "trials", "computed", "origin", "by_size"}
        assert found["data_sizes"].tolist() == [4, 16] and found["trials"].tolist() == [2, 1]
        for name in found.keys() - about:
            assert found[name].shape[0] == 2
            if name in found["by_size"]:
                assert np.isfinite(found[name]).all() and found[name].shape == (2, training.pattern_draws)
                continue
            done = np.isfinite(found[name]).reshape(2, 2, -1)
            assert done[0].all() and done[1, 0].all() and not done[1, 1].any(), name
        assert ((found["accuracy_exact"][0] >= 0) & (found["accuracy_exact"][0] <= 1)).all()
        assert (found["condition_number_exact"][0] >= 1).all()
        if network == "convolutional":
            assert (found["depth"][0] == SHALLOW).all()


@pytest.mark.slow
def test_the_convolutional_network_is_96_layers_deep(tmp_path):
    """The real command line, with nothing changed."""
    arguments = ("--networks", "convolutional", "--data-sizes", 16, "--trials", 1, "--test-size", 2)
    ended = run_script("--dataset", "digits", *arguments, "--output", tmp_path)
    assert ended.status == 0 and ended.err == "", ended
    _, label = checkpoints.read_kernel(tmp_path / "digits-convolutional_seed0_data16_trial0_kernel_train.npy")
    assert label["depth"] == load_arrays(tmp_path / "digits-convolutional_results.npz")["depth"] == 96


def test_results_hold_every_quantity_that_readers_rely_on(finished):
    _, folder, _ = finished
    for path in folder.glob("*_results.npz"):
        names = load_arrays(path).keys()
        for suffix in training.conventions.values():
            wanted = "sparsity condition_number numerical_flags smallest_eigenvalue positive_definite accuracy_sparse "
            wanted += "accuracy_sparse_at_zero readout_measurements_sparse readout_measurements_sparse_at_median "
            assert {name + suffix for name in (wanted + "pattern_sparsity").split()} <= names
        wanted = "depth separability condition_number_exact numerical_flags_exact off_diagonal_ratio accuracy_exact "
        wanted += "accuracy_exact_at_zero accuracy_diagonal accuracy_diagonal_at_zero post_selection_measurements "
        wanted += "post_selection_measurements_k_thresh post_selection_measurements_training clipped_share_k_thresh "
        wanted += "clipped_share_training readout_measurements_diagonal readout_measurements_diagonal_at_median"
        assert set(wanted.split()) <= names


def test_convolutional_normalisation_comes_from_the_reference_trial(finished):
    dataset, folder, _ = finished
    prefix = "convolutional" if dataset == "mnist" else "digits-convolutional"
    reference = np.load(folder / f"{prefix}_seed0_data16_trial0_kernel_train.npy")
    names = ("kernel_test", "kernel_test_normalized")
    test, normalized = (np.load(folder / f"{prefix}_seed0_data4_trial1_{name}.npy") for name in names)
    k_thresh = np.abs(reference[~np.eye(16, dtype=bool)]).max()
    assert np.allclose(normalized, np.clip(test / k_thresh, -1, 1))


def test_run_json_says_what_was_computed_when_and_where(finished):
    dataset, folder, _ = finished
    sittings = json.loads((folder / "run.json").read_text())["sittings"]
    assert [s["network"] for s in sittings] == list(training.networks)
    for s in sittings:
        assert s["dataset"] == dataset and s["precision"] == "float64" and s["what"] == "results"
        assert s["trials"] == {"4": 2, "16": 1} and s["pairs"] == s["pairs_computed"] == 300
        assert {"python", "jax", "numpy", "numba"} <= set(s["versions"]) and s["seconds"] > 0


def test_output_announces_the_plan_and_the_stand_in(finished):
    dataset, _, printed = finished
    pairs = 2 * (4 * 5 // 2 + 4 * 6) + (16 * 17 // 2 + 16 * 6)
    assert f"convolutional: {pairs:,} pairs of images; trials: 2 of n = 4, 1 of n = 16" in printed
    assert f"convolutional: the other {pairs:,} pairs take about" in printed
    assert "fully-connected: about 1 s" in printed
    assert "engine numba, float64" in printed
    lines = printed.splitlines()
    capitals = [i for i, line in enumerate(lines) if line.startswith("THESE ARE SCIKIT-LEARN'S 8x8 DIGITS, NOT MNIST")]
    assert capitals == ([0, len(lines) - 1] if dataset == "digits" else [])
    assert ("NOT MNIST" in printed) == (dataset == "digits")


def test_a_run_that_only_reads_says_so(undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "copy")
    printed = succeed(*TINY, "--output", folder)
    assert all(f"{network}: 252 pairs are in" in printed for network in training.networks)
    assert printed.rstrip().endswith("NOT MNIST; FILES ARE NAMED digits-...") and f"{folder}/RESULTS.md" in printed
    before, after = ([s["pairs_computed"] for s in json.loads((f / "run.json").read_text())["sittings"]]
                     for f in (undisturbed, folder))  # fmt: skip
    assert after == [*before, 0, 0]


def test_a_trial_is_the_same_whichever_others_run(undisturbed, tmp_path):
    succeed(*QUICK, "--data-sizes", 4, "--trials", 3, "--output", tmp_path)
    found, expected = contents(tmp_path), contents(undisturbed)
    shared = found.keys() & expected.keys() - {"digits-fully-connected_results.npz"}
    assert len(shared) == 10
    assert {name: found[name] == expected[name] for name in shared} == dict.fromkeys(shared, True)


@pytest.mark.slow
def test_the_time_that_is_announced_is_measured(digits, tmp_path):
    run = Run(0, 4, tmp_path, "numba", "float64", digits)
    assert 1e-6 < sitting.seconds_per_layer(run) < 1
    assert [sitting.in_words(s) for s in (0.1, 40, 700, 20000)] == ["1 s", "40 s", "12 minutes", "5.6 hours"]


def test_a_log_says_how_long_the_rest_takes(digits, tmp_path, monkeypatch, capsys):
    """600 of 1000 pairs were to be computed, and 200 of these were in eleven minutes."""
    missing = iter([600, 400])
    monkeypatch.setattr(sitting, "missing_pairs", lambda files: next(missing))
    monkeypatch.setattr(sitting, "trial_pairs", lambda files: 1000)
    clock = [0.0]
    monkeypatch.setattr(sitting.time, "perf_counter", lambda: clock[0])
    it = sitting.Sitting(
        Run(0, 4, tmp_path, "numba", "float64", digits), "convolutional", "results", [SimpleNamespace(depth=96)]
    )
    it.__enter__()
    it.progress(400)
    assert capsys.readouterr().out == ""
    clock[0] = 660
    it.progress(200)
    assert capsys.readouterr().out == "convolutional: 600 of 1,000 pairs after 11 minutes, about 22 minutes more\n"
    it.bar.close()


def test_where_to_look(tmp_path, monkeypatch):
    """Commands that can be pasted, also for another folder, and none that would find nothing."""
    monkeypatch.chdir(tmp_path)
    plan, pairs, other = Path("convolutional_results.npz"), Path("convolutional_digit_pairs.npz"), Path("a b")
    tables = "Tables: python scaling.py writes kernel_output/RESULTS.md"
    assert sitting.where_to_look(Path("kernel_output"), [pairs]) == ""
    for folder, name in (("kernel_output", plan), ("kernel_output", pairs), (other, plan)):
        Path(folder).mkdir(exist_ok=True)
        (folder / name).touch()
    for written in (plan, pairs):
        said = sitting.where_to_look(Path("kernel_output"), [written])
        assert said == f"Figures: jupyter lab analysis.ipynb\n{tables}"
    assert sitting.where_to_look(Path("kernel_output"), [Path("convolutional-3v5_results.npz")]) == tables
    said = sitting.where_to_look(other, [plan])
    assert "KERNEL_OUTPUT='a b' jupyter" in said and "scaling.py --output 'a b' writes" in said


def test_the_time_of_fully_connected_trials_is_that_of_their_eigenvalues(monkeypatch):
    for sizes, seconds in (([512], 0.1 + 8 * 0.02), ([1024] * 2, 0.2 + 16 * 0.16), ([2048], 0.1 + 2 * 1.28)):
        clock = iter([10, 10.02])
        monkeypatch.setattr(sitting.time, "perf_counter", lambda clock=clock: next(clock))
        assert sitting.seconds_of_trials(sizes, 1024) == pytest.approx(seconds)


def test_without_an_accelerator_the_plan_is_smaller_but_takes_what_is_there(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "has_accelerator", lambda: False)
    run = Run(0, 256, tmp_path, "numba", "float64", digits)

    def planned(network, *argv):
        constants = options.Constants(0, 256, training.data_sizes, training.trials, {}, training.networks)
        args = options.parse_arguments([str(word) for word in argv], constants)
        return [(trial.size, trial.number) for _, trial in training.planned_trials(args, run, network)]

    by_constants = training.trials_without_accelerator.items()
    assert planned("convolutional") == [(n, i) for n, count in by_constants for i in range(count)]
    assert planned("convolutional", "--verify") == [(16, 0), (32, 0)]
    assert planned("convolutional", "--verify", "--data-sizes", 64, 16) == [(64, 0), (16, 0)]
    sitting.announce(run, {"convolutional": []}, {"convolutional": 4}, 1024)
    assert "note: convolutional: without an accelerator 0 of 4 trials" in capsys.readouterr().out
    for trial, of in (((32, 2), run), ((64, 3), replace(run, precision="float32"))):
        files = training.trial_files(of, training.make_trial("convolutional", (1, 0), *trial))
        for path, each in checkpoints.known_before(files).items():
            matrix = checkpoints.open_matrix(path, *each)
            matrix[:] = 1
            checkpoints.finish_matrix(path, matrix)
    assert planned("convolutional")[-1] == (32, 2)  # the other one is of another precision
    sitting.announce(run, {"convolutional": [replace(files, run=run)]}, {}, 1024)
    assert f"note: convolutional: 2 kernels in {tmp_path}/ will be put aside" in capsys.readouterr().out
    assert len(planned("fully-connected")) == sum(training.trials)
    assert planned("convolutional", "--data-sizes", 512, "--trials", 1) == [(512, 0)]
    monkeypatch.setattr(training, "has_accelerator", lambda: True)
    assert planned("convolutional")[-1] == (32, 2)  # the engine numba does not use it
    run = replace(run, engine="jax")
    assert len(planned("convolutional")) == sum(training.trials)


# ---- sweeps and other digits ----


@pytest.fixture
def planned_and_swept(tmp_path, monkeypatch, request):
    """A folder with the plan and the depth sweep of one network, and what the sweep printed."""
    network, order = request.param
    monkeypatch.setattr(training, "sweep_factors", [0.05, training.depth_factor, 0.2])
    arguments = ("--dataset", "digits", "--networks", network, "--data-sizes", 4, "--trials", 2, "--test-size", 4)
    runs = {"plan": (), "sweep": ("--depth-sweep",)}
    printed = {name: succeed(*arguments, "--output", tmp_path, *runs[name]) for name in order}
    return network, tmp_path, printed, lambda: succeed(*arguments, "--output", tmp_path, "--depth-sweep")


BOTH = [(training.networks[0], ("plan", "sweep")), (training.networks[0], ("sweep", "plan")),
        (training.networks[1], ("plan", "sweep"))]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("planned_and_swept", BOTH, indirect=True, ids=lambda both: f"{both[0]}-{both[1][0]}-first")
def test_the_sweep_at_the_plans_own_depth_equals_the_plan(planned_and_swept):
    """Its kernels, in the same files, and every quantity, to the last bit."""
    network, folder, _, again = planned_and_swept
    plan = read_results(folder / f"digits-{network}_results.npz").records
    sweep = read_results(folder / f"digits-{network}_depth_sweep.npz", "depth_settings").records
    own, settings = (SHALLOW, [3, 6]) if network == "convolutional" else (training.depth_factor, [0.05, 0.1, 0.2])
    assert sweep.keys() == {(4, setting, number) for setting in settings for number in (0, 1)}
    for number in (0, 1):
        expected, found = medians_over_images(plan[4, None, number]), sweep[4, own, number]
        assert found.keys() == expected.keys()
        for name in expected:
            assert np.array_equal(found[name], expected[name], equal_nan=True), name
        depths = [sweep[4, setting, number]["depth"] for setting in settings]
        assert depths == sorted(set(depths))
        if network == "fully-connected":  # deeper, closer to diagonal
            ratios = [sweep[4, setting, number]["off_diagonal_ratio"] for setting in settings]
            assert (np.diff(ratios) < 0).all()
    kernels = {path.name for path in folder.glob("*data4_trial0*_kernel_train.npy")}
    deeper = {f"digits-{network}_seed0_data4_trial0_depth{s}_kernel_train.npy" for s in settings if s != own}
    assert kernels == deeper | {f"digits-{network}_seed0_data4_trial0_kernel_train.npy"}
    before = contents(folder)
    again()
    assert contents(folder) == before and not list(folder.glob("*.old"))
    computed = [sitting["pairs_computed"] for sitting in json.loads((folder / "run.json").read_text())["sittings"]]
    assert computed[0] > 0 and computed[-1] == 0


@pytest.mark.slow
def test_digit_pairs_hold_the_papers_own(tmp_path):
    """All 45, the paper's in its order, whose numbers are the plan's."""
    arguments = (*QUICK[:2], *QUICK[-2:], "--data-sizes", 4, "--trials", 1, "--test-size", 4, "--output", tmp_path)
    succeed(*arguments)
    succeed(*arguments, "--digit-pairs")
    found = read_results(tmp_path / "digits-fully-connected_digit_pairs.npz", "digit_pairs").records
    assert len(found) == 45 and {frozenset(pair) for _, pair, _ in found} == {
        frozenset((a, b)) for a in range(10) for b in range(a)
    }
    plan = read_results(tmp_path / "digits-fully-connected_results.npz").records[4, None, 0]
    for name, expected in medians_over_images(plan).items():
        assert np.array_equal(found[4, (8, 9), 0][name], expected, equal_nan=True), name
    assert len({float(record["condition_number_exact"]) for record in found.values()}) == 45


def test_other_digits_have_files_of_their_own(undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "copy")
    succeed(*QUICK, "--digits", 3, 5, "--output", folder)
    assert {n: c for n, c in contents(folder).items() if "3v5" not in n} == contents(undisturbed)
    name = "digits-fully-connected-3v5_seed0_data4_trial0_kernel_train.npy"
    assert checkpoints.read_kernel(folder / name)[1]["digits"] == [3, 5]
    assert (folder / "digits-fully-connected-3v5_results.npz").exists()


def test_the_papers_digits_by_name_are_the_plan(undisturbed, tmp_path):
    succeed(*QUICK, "--digits", 8, 9, "--output", tmp_path)
    assert contents(tmp_path) == {n: c for n, c in contents(undisturbed).items() if "fully-connected" in n}


# ---- verification ----


@pytest.fixture
def copy(undisturbed, tmp_path):
    """A copy of the undisturbed run."""
    return shutil.copytree(undisturbed, tmp_path / "copy")


def everything(folder):
    """All files of a folder, with their times."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.slow
def test_verify_agrees_with_an_undisturbed_run_and_changes_nothing(undisturbed):
    before = everything(undisturbed)
    ended = call(*TINY, "--verify", "--output", undisturbed)
    assert ended.status == 0 and ended.err == "", ended
    assert everything(undisturbed) == before
    for network in training.networks:
        for name, trials in (("kernel_train", 3), ("kernel_test", 3), ("accuracy_sparse_sound", 3)):
            assert re.search(rf"^digits-{network} {name} +{trials} +0.0e\+00$", ended.out, re.MULTILINE), ended.out
    assert f"{undisturbed}/ holds what this computer computes" in ended.out and "DIFFERS" not in ended.out


def rewrite(path, change):
    """Change a results file's arrays."""
    arrays = load_arrays(path)
    change(arrays)
    np.savez_compressed(path, **arrays)


def raise_one_entry(folder):
    """In a kernel, with a checksum that is right again."""
    path = folder / "digits-fully-connected_seed0_data4_trial1_kernel_test.npy"
    kernel = np.lib.format.open_memmap(path, mode="r+")
    kernel[1, 1] *= 1 + 1e-9
    del kernel
    path.write_bytes(path.read_bytes()[: -checkpoints.ending] + checkpoints.checksum(path))


def flip_one_bit(path):
    """In the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


KERNEL, RESULTS = "digits-fully-connected_seed0_data16_trial0_kernel_train.npy", "digits-fully-connected_results.npz"
CHANGES = {
    "a number": (lambda f: rewrite(f / RESULTS, lambda a: a["accuracy_sparse"].__setitem__((0, 1, 2), 0.9)),
                 "digits-fully-connected accuracy_sparse differs"),
    "sparsity of a size's patterns": (lambda f: rewrite(f / RESULTS, lambda a: a["pattern_sparsity"].__setitem__(0, 1)),
                                      "digits-fully-connected pattern_sparsity differs"),
    "a NaN": (lambda f: rewrite(f / RESULTS, lambda a: a["separability"].__setitem__((0, 1), np.nan)),
              "digits-fully-connected separability differs"),
    "a trial less": (lambda f: rewrite(f / RESULTS, lambda a: a["computed"].__setitem__((0, 1), False)),
                     "lacks 1 trials, the first one n = 4"),
    "another origin": (lambda f: rewrite(f / RESULTS, lambda a: a.update(origin=np.array('{"seed": 0}'))),
                       "is of another origin: dataset"),
    "a byte of the results": (lambda f: flip_one_bit(f / RESULTS), f"{RESULTS}: can't be read"),
    "no results": (lambda f: (f / RESULTS).unlink(), f"{RESULTS}: can't be read"),
    "a byte of a kernel": (lambda f: flip_one_bit(f / KERNEL), f"{KERNEL}: is damaged"),
    "an entry of a kernel": (raise_one_entry, "digits-fully-connected kernel_test differs"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_verify_fails_after_one_change(copy, change):
    spoil, words = CHANGES[change]
    spoil(copy)
    before = everything(copy)
    ended = call(*QUICK, "--verify", "--output", copy)
    assert ended.status == 1 and words in ended.out, ended
    assert everything(copy) == before


def test_verify_fails_where_there_is_nothing_to_compare(tmp_path):
    ended = call(*QUICK, "--verify", "--output", tmp_path / "nowhere")
    assert "holds no results to compare with" in complaint(ended)
    assert not (tmp_path / "nowhere").exists()


def test_verify_takes_only_sizes_that_the_data_fill(copy, monkeypatch):
    """By default a trial of each; 256 and 512 are more digits than there are."""
    monkeypatch.setattr(training, "test_size", 4)
    ended = call("--dataset", "digits", *QUICK[-2:], "--verify", "--output", copy)
    assert ended.status == 1 and "lacks 3 trials, the first one n = 32" in ended.out
    assert "1 of n = 16, 1 of n = 32, 1 of n = 64, 1 of n = 128\n" in ended.out


# ---- the committed results ----


def test_the_committed_fully_connected_results_are_computed_again(mnist_dir, tmp_path):
    """Of n = 16, from MNIST's images, every quantity."""
    arguments = ("--networks", "fully-connected", "--data-sizes", 16, "--trials", 3, "--output", tmp_path)
    succeed("--dataset", "mnist", "--mnist-dir", mnist_dir, *arguments)
    found = load_arrays(tmp_path / "fully-connected_results.npz")
    expected = load_arrays(ROOT / "kernel_output" / "fully-connected_results.npz")
    (s,) = np.flatnonzero(expected["data_sizes"] == 16)
    names = found.keys() - {"data_sizes", "trials", "computed", "by_size", "origin"}
    for name in names:
        old = expected[name][s] if name.startswith("pattern_sparsity") else expected[name][s][:3]
        assert relative_difference(found[name][0], old) < 1e-7, name


def test_the_committed_results_pass_their_verification(mnist_dir):
    """What a sceptical reader runs first, of the smallest size."""
    arguments = ("--networks", "fully-connected", "--data-sizes", 16, "--trials", 2, "--output", ROOT / "kernel_output")
    ended = call("--dataset", "mnist", "--mnist-dir", mnist_dir, *arguments, "--verify")
    assert ended.status == 0, ended


@pytest.mark.slow
def test_the_committed_convolutional_kernels_are_intact_and_a_sample_is_computed_again(mnist_dir):
    """From MNIST's images at the real depth: four entries of each of two matrices within 1e-10."""
    paths = sorted((ROOT / "kernel_output").glob("convolutional_seed0_*_kernel_t*[nt].npy"))
    labels = {path.name: checkpoints.read_kernel(path)[1] for path in paths}
    assert labels and all(label["depth"] == 96 and label["precision"] == "float64" for label in labels.values())
    stem = "convolutional_seed0_data16_trial3_kernel_"
    train, label = checkpoints.read_kernel(ROOT / "kernel_output" / f"{stem}train.npy")
    test, _ = checkpoints.read_kernel(ROOT / "kernel_output" / f"{stem}test.npy")
    data = load_once("mnist", mnist_dir)
    images, test_images = training.labelled_images(Run(0, 256, ROOT, "numba", "float64", data), label)
    i, j, k = [0, 9], [5, 200], [1, 15]
    assert relative_error(convolutional_ntk(images[i]), train[np.ix_(i, i)]) < 1e-10
    assert relative_error(convolutional_ntk(test_images[j], images[k]), test[np.ix_(j, k)]) < 1e-10
