"""What was put into a run's way, by accident or on purpose: files, images, constants, variables."""

import contextlib
import shutil

import numpy as np
import pytest
import xarray as xr
from conftest import QUICK, call, complaint, contents, run_script, succeed

import training
from ntk import BadInput
from runtime import processes, results, verification
from runtime.checkpoints import Journal
from runtime.results import quantity, read_results

ORIGIN = '{"dataset": "digits"}'


@pytest.fixture
def folder(undisturbed, tmp_path):
    """A finished run's folder of its own, without results: a run reads the kernels again."""
    shutil.copytree(undisturbed, tmp_path / "output")
    for path in (tmp_path / "output").glob("*.nc"):
        path.unlink()
    return tmp_path / "output"


def test_folders_in_the_place_of_files_are_put_aside(folder, undisturbed):
    stem = "digits-fully-connected_seed0_data4_trial0_kernel_train.npy"
    (folder / stem).unlink()
    (folder / "run.json").unlink()
    names = ["run.json", "run.lock.owner", "digits-fully-connected_results.nc", stem]
    for name in names:
        for path in (folder / name, folder / f"{name}.partial"):
            path.mkdir()
            (path / "kept").touch()
    succeed(*QUICK, "--output", folder)
    found, expected = contents(folder), contents(undisturbed)
    assert all(found[name] == expected[name] for name in found if ".partial" not in name)
    for name in names:
        for path in (folder / f"{name}.1.old", folder / f"{name}.partial.1.old"):
            assert (path / "kept").exists(), path


@pytest.mark.parametrize(
    "content, words",
    [
        (b"no results", "does not end with its SHA-256 sum: damaged, or another program's)"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer; run git lfs pull)"),
    ],
)
def test_what_is_put_aside_is_not_to_be_restored(folder, content, words):
    """That is what readers are told, who do not go on without it."""
    (folder / "digits-fully-connected_results.nc").write_bytes(content)
    out = succeed(*QUICK, "--output", folder)
    (note,) = [line for line in out.splitlines() if "results.nc.1.old" in line]
    assert f"can't be read ({words}; it is kept as" in note


def test_no_room_to_verify_in_is_told_of_the_temporary_folder(folder, monkeypatch):
    succeed(*QUICK, "--output", folder)

    def refuse(run):
        raise BadInput("output", run.output, "can't write x (No space left on device); make room")

    monkeypatch.setattr(verification, "temporary_folder", lambda: contextlib.nullcontext(folder))
    monkeypatch.setattr("training.experiment", lambda args, run: refuse(run))
    line = complaint(call(*QUICK, "--verify", "--output", folder))
    assert f"error: TMPDIR {folder.parent}: can't write x (No space left on device)" in line


def test_infinite_values_in_a_journal_are_computed_again(tmp_path):
    """Else no engine could finish the kernel."""
    journal = Journal(tmp_path / "k.npy", {"size": 4}, 3)
    journal.open()
    journal.append(np.arange(3), np.array([1.0, np.inf, -np.inf]))
    journal.close()
    again = Journal(tmp_path / "k.npy", {"size": 4}, 3)
    assert np.array_equal(again.open(), [1, np.nan, np.nan], equal_nan=True)
    again.close()


def made(**changes):
    """Results of one trial that no run wrote, although their sums are right."""
    variables = {"accuracy": quantity(("n", "trial", "threshold"), [[[0.5, 0.7]]], "accuracy")}
    labels = {"n": [4], "trial": [0], "threshold": ["test median", "zero"]}
    for name, value in changes.items():
        if name in labels:
            labels[name] = value
        else:
            variables[name] = value
    coordinates = {axis: labels[axis] for axis in labels if labels[axis] is not None}
    return xr.Dataset(variables, coordinates, {"origin": ORIGIN})


def numbers(dtype):
    """An accuracy of that type."""
    return xr.DataArray(np.ones((1, 1, 2), dtype), dims=("n", "trial", "threshold"))


@pytest.mark.parametrize(
    "foreign, words",
    [
        (made().assign_attrs(origin="null"), "its origin is no dictionary"),
        (made().assign_attrs(origin="{"), "its origin is no dictionary"),
        (made().assign_attrs(origin="[" * 20000), "its origin is no dictionary"),
        (made().assign_attrs(origin=np.arange(3)), "its origin is no dictionary"),
        (made().assign_attrs(origin='{"classes": [3, "5"]}'), "its origin names no dataset, .*"),
        (made().assign_attrs(origin='{"network": null}'), "its origin names no dataset, .*"),
        (made(threshold=None), "threshold lacks labels, or has one twice"),
        (made(threshold=["zero", "zero"]), "threshold lacks labels, or has one twice"),
        (made(n=["4"]), "n is not numbered"),
        (made(trial=["first"]), "trial is not numbered"),
        (made(trial=[np.nan]), "trial lacks labels, or has one twice"),
        (made(n=[4.5]), "n has labels that are not whole"),
        (made(n=[-4]), "n goes from -4 to -4"),
        (made().isel(threshold=[]), "threshold is empty"),
        (made().isel(n=0), "n is of type int64"),
        (made(accuracy=numbers("U4")), "accuracy is a text"),
        (made(engine=numbers(float)), "engine is a number"),
        (made(accuracy=numbers(int)), "accuracy is of type int64"),
        (made(accuracy=numbers(np.float32)), "accuracy is of type float32"),
        (made(accuracy=numbers(bool)), "accuracy is of type bool"),
    ],
)
def test_results_of_another_form_are_refused_whatever_their_sums(tmp_path, foreign, words):
    """Whole numbers, for one, would round what a run merges into them."""
    path = tmp_path / "r.nc"
    results.write_results(path, made())
    assert read_results(path).accuracy.values.tolist() == [[[0.5, 0.7]]]
    foreign.attrs["sha256"] = results.checksum(foreign)
    path.write_bytes(results.sealed(foreign.to_netcdf(engine="h5netcdf")))
    with pytest.raises(BadInput, match=rf"r.nc: holds no results of this program \({words}\)"):
        read_results(path)


# ---- images ----


def images_of(tmp_path, image):
    """A file of 40 training and 40 test images, [40, h, w], of two classes in turn."""
    labels = np.arange(40) % 2
    path = tmp_path / "own.npz"
    arrays = dict(train_images=image, train_labels=labels, test_images=image, test_labels=labels)
    np.savez(path, **arrays)
    return ("--dataset", path, "--classes", 0, 1, *QUICK[2:])


def test_an_image_of_the_mean_colour_is_named_not_divided_by_its_norm(tmp_path):
    chequered = np.indices((16, 16)).sum(0) % 2 * 2.0 - 1
    image = np.array([chequered * (k % 3) for k in range(40)])
    ended = call(*images_of(tmp_path, image), "--output", tmp_path / "output")
    assert "--classes (0, 1): an image is all of the mean colour" in complaint(ended)


@pytest.mark.parametrize("height, width", [(15, 28), (28, 32), (1, 1)])
def test_images_of_another_size_are_refused_before_anything_is_computed(tmp_path, height, width):
    image = np.random.default_rng(0).random((40, height, width))
    command = [*images_of(tmp_path, image), "--networks", "fully-connected", "convolutional"]
    line = complaint(call(*command, "--output", tmp_path / "output"))
    assert f"--dataset own.npz: has images of {height} x {width} pixels; the convolutional" in line
    assert "by --networks" in line and not list((tmp_path / "output").glob("*.np*"))


# ---- constants, and variables of the environment ----


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("sparsity_patterns", 10**9, "1000000000: use a whole number, 1 or more, but 100,000 at"),
        ("pattern_draws", 10**9, "1000000000: use a whole number, 1 or more, but 100,000 at most"),
        ("convolutional_depth", 3 * 10**8, "300000000: use a multiple of 3, 3 or more, but 1"),
        ("sweep_factors", [1e9], "1000000000.0: use a list of numbers from 0 to 1000"),
        ("sweep_factors", [-1], "-1: use a list of numbers from 0 to 1000"),
        ("test_size", np.int64(4), "np.int64(4): use a multiple of 2"),
        ("diagonal_boost", (np.float32(0.76), 0.9), "0.76 0.9: use two numbers"),
        ("percentile", "90", "'90': use a number from 0 to 100"),
    ],
)
def test_constants_that_would_take_for_ever_or_stop_the_end_are_named(
    monkeypatch, tmp_path, name, value, words
):
    """JSON can't hold NumPy's integers: run.json was the end of such a run."""
    monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(training, "experiment", lambda args, run: 0)
    line = complaint(call(*QUICK, "--output", tmp_path, depth=None))
    assert f"the constant {name} = {words}" in line


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["JAX_ENABLE_X64", "JAX_NUMPY_RANK_PROMOTION"])
def test_variables_that_jax_does_not_know_are_named(tmp_path, variable):
    ended = run_script(*QUICK, "--output", tmp_path / "output", environment={variable: "maybe"})
    line = complaint(ended)
    assert "JAX does not start: " in line and variable in line.upper() and "unset" in line


def test_variables_of_a_launcher_that_started_nothing_come_with_the_way_to_run_alone(monkeypatch):
    def refuse(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    import jax

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(BadInput, match=r"run alone: OMPI_COMM_WORLD_SIZE=1 python .*; or name a"):
        processes.join_processes(None, None, None)
    with pytest.raises(BadInput, match=r"should be defined.; name a free port of process 0's host"):
        processes.join_processes("127.0.0.1:1", 2, 0)


def test_a_plan_that_is_too_large_for_the_memory_ends_in_one_line(monkeypatch, tmp_path):
    def refuse(*_):
        raise MemoryError("Unable to allocate 7.28 TiB for an array")

    monkeypatch.setattr(training, "compute_trial", refuse)
    line = complaint(call(*QUICK, "--output", tmp_path / "output"))
    assert "out of memory (Unable to allocate 7.28 TiB for an array); use smaller --data-" in line
