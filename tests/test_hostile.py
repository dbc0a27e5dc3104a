"""Folders and files that were put into a run's way, by accident or on purpose."""

import contextlib
import shutil

import numpy as np
import pytest
import xarray as xr
from conftest import QUICK, call, complaint, contents, succeed

from ntk import BadInput
from runtime import results, verification
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


def test_what_is_put_aside_is_not_to_be_restored(folder):
    """That is what readers are told, who do not go on without it."""
    (folder / "digits-fully-connected_results.nc").write_bytes(b"no results")
    out = succeed(*QUICK, "--output", folder)
    (note,) = [line for line in out.splitlines() if "results.nc.1.old" in line]
    assert "does not end with its SHA-256 sum" in note and "restore" not in note


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
        (made(threshold=None), "threshold lacks labels, or has one twice"),
        (made(threshold=["zero", "zero"]), "threshold lacks labels, or has one twice"),
        (made(n=["4"]), "n is not numbered"),
        (made(trial=["first"]), "trial is not numbered"),
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
