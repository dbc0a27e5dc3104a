"""The whole script through its command line."""

import hashlib
import json
import os
import re
import time

import numpy as np
import pytest

import training

TINY = ("--data-sizes", 4, 16, 8, "--trials", 2, 1, 0, "--test-size", 6)


def checksums(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.np[yz]")}


@pytest.fixture(scope="module", params=["digits", "mnist"])
def finished(request, tmp_path_factory, script):
    """A finished tiny run of both networks on each dataset: (dataset, folder, printed output, environment)."""
    environment = {}
    if request.param == "mnist":
        environment["MNIST_DIR"] = str(request.getfixturevalue("mnist_dir"))
    folder = tmp_path_factory.mktemp(request.param) / "output"
    result = script("--dataset", request.param, "--output", folder, *TINY, environment=environment)
    assert result.returncode == 0, result.stderr
    return request.param, folder, result.stdout, environment


def test_files_and_results(finished):
    dataset, folder, _, _ = finished
    for network in training.networks:
        prefix = network if dataset == "mnist" else f"digits-{network}"
        for size, trial in [(4, 0), (4, 1), (16, 0)]:
            arrays = {
                name: np.load(folder / f"{prefix}_seed0_data{size}_trial{trial}_{name}.npy", allow_pickle=False)
                for name in (
                    "train_label", "test_label", "kernel_train", "kernel_test", "kernel_test_normalized"
                )
            }  # fmt: skip
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
        with np.load(folder / f"{prefix}_results.npz", allow_pickle=False) as results:
            assert list(results["data_sizes"]) == [4, 16, 8] and list(results["trials"]) == [2, 1, 0]
            for name, shape in training.results_shapes(3, 2, 6).items():
                assert results[name].shape == shape, name
                if name.startswith("pattern_sparsity"):
                    assert np.isfinite(results[name][:2]).all() and not np.isfinite(results[name][2]).any()
                    continue
                done = np.isfinite(results[name]).reshape(3, 2, -1)
                assert done[0].all() and done[1, 0].all(), name
                assert not done[1, 1].any() and not done[2].any(), name
            assert ((results["accuracy_exact"][0] >= 0) & (results["accuracy_exact"][0] <= 1)).all()
            assert (results["condition_number_exact"][0] >= 1).all()
            if network == "convolutional":
                assert (results["depth"][0] == 96).all()


def test_convolutional_normalisation_comes_from_the_reference_trial(finished):
    dataset, folder, _, _ = finished
    prefix = "convolutional" if dataset == "mnist" else "digits-convolutional"
    reference = np.load(folder / f"{prefix}_seed0_data16_trial0_kernel_train.npy")
    test, normalized = (
        np.load(folder / f"{prefix}_seed0_data4_trial1_{name}.npy")
        for name in ("kernel_test", "kernel_test_normalized")
    )
    k_thresh = np.abs(reference[~np.eye(16, dtype=bool)]).max()
    assert np.allclose(normalized, np.clip(test / k_thresh, -1, 1))


def test_run_json(finished):
    dataset, folder, _, _ = finished
    record = json.loads((folder / "run.json").read_text())
    assert record["dataset"] == dataset and record["precision"] == "float64"
    assert record["constants"]["trials"]["convolutional"] == [2, 1, 0]
    assert {"python", "jax", "numpy", "neural-tangents"} <= set(record["versions"])
    assert record["seconds"]["convolutional"]["kernels"] > 0


def test_output_announces_the_plan_and_the_stand_in(finished):
    dataset, _, printed, _ = finished
    pairs = 2 * (4 * 5 // 2 + 4 * 6) + (16 * 17 // 2 + 16 * 6)
    assert f"{pairs:,} pairs" in printed and "engine" in printed and "float64" in printed
    lines = printed.splitlines()
    capitals = [i for i, line in enumerate(lines) if "NOT MNIST" in line]
    assert capitals == ([0, len(lines) - 1] if dataset == "digits" else [])


def test_second_run_recomputes_nothing(finished, script):
    dataset, folder, _, environment = finished
    before, times = checksums(folder), {p: p.stat().st_mtime_ns for p in folder.glob("*.npy")}
    result = script("--dataset", dataset, "--output", folder, *TINY, environment=environment)
    assert result.returncode == 0, result.stderr
    assert checksums(folder) == before
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*.npy")} == times


def test_a_trial_is_the_same_whichever_others_run(finished, script, tmp_path):
    """And a damaged file is computed again, to the same bytes."""
    dataset, folder, _, environment = finished
    if dataset != "digits":
        pytest.skip("once is enough")
    arguments = ("--networks", "fully-connected", "--data-sizes", 4, "--trials", 3, "--test-size", 6)
    result = script("--dataset", dataset, "--output", tmp_path, *arguments, environment=environment)
    assert result.returncode == 0, result.stderr
    shared = checksums(tmp_path).keys() & checksums(folder).keys() - {"digits-fully-connected_results.npz"}
    assert len(shared) == 10
    for name in shared:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    victim = tmp_path / "digits-fully-connected_seed0_data4_trial1_kernel_train.npy"
    victim.write_bytes(victim.read_bytes()[:150])
    result = script("--dataset", dataset, "--output", tmp_path, *arguments, environment=environment)
    assert result.returncode == 0 and victim.name in result.stdout
    assert victim.read_bytes() == (folder / victim.name).read_bytes()


@pytest.mark.parametrize("network", training.networks)
def test_depth_sweep(script, tmp_path, network):
    arguments = ("--depth-sweep", "--networks", network, "--data-sizes", 4, 8, "--trials", 1, 0, "--test-size", 4)
    result = script("--dataset", "digits", "--output", tmp_path, *arguments)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run_depth_sweep.json").exists()
    before = checksums(tmp_path)
    result = script("--dataset", "digits", "--output", tmp_path, *arguments)
    assert result.returncode == 0 and checksums(tmp_path) == before  # it goes on from its kernels
    assert not list(tmp_path.glob("*.old"))
    with np.load(tmp_path / f"digits-{network}_depth_sweep.npz") as results:
        depths = results["depth"][0, :, 0]
        assert len(depths) == len(results["depth_settings"]) and (np.diff(depths) > 0).all()
        for name in ("off_diagonal_ratio", "condition_number_exact", "accuracy_exact", "smallest_eigenvalue"):
            assert np.isfinite(results[name][0]).all() and np.isnan(results[name][1]).all()
        if network == "fully-connected":  # deeper, closer to diagonal
            assert (np.diff(results["off_diagonal_ratio"][0, :, 0]) < 0).all()
        else:
            assert list(depths) == training.sweep_depths


def test_no_network(script, tmp_path):
    """Told within 15 s; `auto` goes on with the digits, `mnist` stops in one line that names --mnist-dir."""
    unreachable = {
        "TFDS_DATA_DIR": str(tmp_path / "none"),
        "https_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "no_proxy": None,
        "NO_PROXY": None,
    }
    start = time.monotonic()
    result = script("--dataset", "mnist", "--output", tmp_path / "mnist", environment=unreachable)
    assert time.monotonic() - start < 15
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "--mnist-dir" in result.stderr
    result = script("--networks", "fully-connected", "--output", tmp_path, environment=unreachable)
    assert result.returncode == 0, result.stderr
    assert re.match("THESE ARE .* NOT MNIST", result.stdout) and "512 is skipped" in result.stdout
    assert (tmp_path / "digits-fully-connected_results.npz").exists()
    assert not (tmp_path / "fully-connected_results.npz").exists()


def test_help_names_every_default(script):
    result = script("--help", environment={"COLUMNS": "200"} | {k: None for k in os.environ if k == "NO_COLOR"})
    assert result.returncode == 0
    for option in (
        "networks", "data-sizes", "trials", "test-size", "seed", "output", "dataset", "mnist-dir", "engine",
        "precision", "depth-sweep", "coordinator", "processes", "process-id",
    ):  # fmt: skip
        assert f"--{option}" in result.stdout
    assert result.stdout.count("default") >= 9


def test_import_does_nothing(script):
    """Importing loads none of the slow packages, and prints nothing."""
    import subprocess
    import sys

    program = "import sys, training; print([m for m in ('jax', 'tensorflow', 'sklearn') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=os.path.dirname(training.__file__)
    )
    assert result.stdout == "[]\n" and result.stderr == ""
