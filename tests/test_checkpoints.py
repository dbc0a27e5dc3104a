"""Kernel files: found again, checked to the last bit, put aside when they are damaged, foreign or doubtful."""

import contextlib
import hashlib
import json
import random
import re
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, TINY, call, complaint, contents, succeed

import training
from ntk import BadInput
from runtime import checkpoints, files

FULLY_CONNECTED = "digits-fully-connected_seed0_data{}_trial{}_{}.npy"
CONVOLUTIONAL = "digits-convolutional_seed0_data{}_trial{}_{}.npy"


@pytest.fixture
def copy(undisturbed, tmp_path):
    """A copy of the undisturbed run."""
    return shutil.copytree(undisturbed, tmp_path / "copy")


def label(path):
    """What a matrix says that it was computed from."""
    return json.loads(path.read_bytes().splitlines()[-1])


def write_kernel(path, array, label):
    """A kernel file that is what it seems to be."""
    with path.open("wb") as file:
        np.save(file, array)
        file.write(checkpoints.label_line(label))
    path.write_bytes(path.read_bytes()[: -checkpoints.ending] + checkpoints.checksum(path))


def relabel(path, **changes):
    """Change what the file says that its matrix was computed from, the checksum with it."""
    write_kernel(path, np.load(path), {k: v for k, v in label(path).items() if k != "sha256"} | changes)


def flip(path, position, bit):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


# ---- labels and checksums ----


def test_the_label_line_holds_the_sum_of_what_stands_before_it(undisturbed):
    for path in undisturbed.glob("*_kernel_t*[nt].npy"):
        content = path.read_bytes()
        before, _, after = content.rpartition(label(path)["sha256"].encode())
        assert hashlib.sha256(before).hexdigest() == label(path)["sha256"] and after == b'"}\n'
        wanted = {"dataset_sha256", "digits", "size", "trial", "seed", "depth", "precision", "formulas"}
        assert wanted <= label(path).keys()


@pytest.mark.slow
def test_a_bit_flipped_anywhere_makes_a_kernel_unusable(undisturbed, tmp_path):
    """One bit of every byte of a file in turn: header, data, label."""
    name = FULLY_CONNECTED.format(4, 0, "kernel_train")
    original, rng = (undisturbed / name).read_bytes(), random.Random(5)
    expected = label(undisturbed / name)
    del expected["sha256"]
    path = tmp_path / name
    path.write_bytes(original)
    assert checkpoints.why_unusable(path, (4, 4), expected, finished=True) is None
    for position in range(len(original)):
        flip(path, position, rng.randrange(8))
        assert checkpoints.why_unusable(path, (4, 4), expected, finished=True), position
        with pytest.raises(BadInput, match=f"{name}: .*delete it and run"):
            checkpoints.read_kernel(path)
        path.write_bytes(original)
    assert np.array_equal(checkpoints.read_kernel(path)[0], np.load(path))


@pytest.mark.parametrize("part", ["header", "data", "label"])
def test_a_flipped_bit_is_named_and_the_kernel_computed_again(copy, undisturbed, part):
    path = copy / FULLY_CONNECTED.format(16, 0, "kernel_test")
    size, end = path.stat().st_size, path.read_bytes().index(b"{", 200)
    start, stop = {"header": (0, 128), "data": (128, end), "label": (end, size)}[part]
    flip(path, random.Random(part).randrange(start, stop), 0)
    damaged = path.read_bytes()
    out = succeed(*QUICK, "--output", copy)
    assert re.search(f"note: {path.name} .*; it is kept as {path.name}.1.old and computed again", out)
    assert (copy / f"{path.name}.1.old").read_bytes() == damaged
    assert contents(copy) == contents(undisturbed)


@pytest.mark.parametrize("name", ["train_label", "test_label", "kernel_test_normalized"])
def test_a_flipped_bit_in_a_small_array_is_found_too(copy, undisturbed, name):
    path = copy / FULLY_CONNECTED.format(16, 0, name)
    flip(path, path.stat().st_size - 3, 4)
    assert f"note: {path.name} is damaged or of other settings" in succeed(*QUICK, "--output", copy)
    assert contents(copy) == contents(undisturbed)


@pytest.mark.slow
def test_truncated_files_are_made_again(copy, undisturbed):
    """Each kind of file, cut at random offsets, is named and made again, to the same bytes; the cut one is kept."""
    rng = random.Random(4)
    arrays = ("kernel_train", "kernel_test", "kernel_test_normalized", "train_label", "test_label")
    for attempt in range(6):
        cut = [copy / FULLY_CONNECTED.format(4 if attempt % 2 else 16, 0, name) for name in arrays]
        for path in [*cut, copy / "digits-fully-connected_results.npz", copy / "run.json", copy / "run.lock"]:
            path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size or 1)])
        if attempt >= 3:  # the matrices unfinished instead
            cut[:2] = [path.rename(f"{path}.partial") for path in cut[:2]]
        (copy / "digits-convolutional_results.npz").unlink(missing_ok=True)
        out = succeed(*TINY, "--output", copy)
        for path in cut:
            assert f"note: {path.name} " in out
        assert contents(copy) == contents(undisturbed)
        json.loads((copy / "run.json").read_text())
    assert len(list(copy.glob("*.npy*.old"))) == 6 * len(arrays)


# ---- resumption ----


def test_a_second_run_evaluates_no_kernel_and_writes_no_array(copy, undisturbed, monkeypatch):
    def refuse(*_, **how):
        raise AssertionError("a kernel is computed")

    monkeypatch.setattr(checkpoints, "fully_connected_rows", refuse)
    monkeypatch.setattr(checkpoints, "ConvolutionalPairs", refuse)
    times = {path: path.stat().st_mtime_ns for path in copy.glob("*.npy")}
    assert "are not computed again" in succeed(*TINY, "--output", copy)
    assert {path: path.stat().st_mtime_ns for path in copy.glob("*.npy")} == times
    assert contents(copy) == contents(undisturbed)


def test_a_rerun_computes_only_what_is_missing(copy, undisturbed):
    """An unfinished matrix keeps what it has: a number planted there comes through, and the NaN beside it goes."""
    path = copy / CONVOLUTIONAL.format(16, 0, "kernel_test")
    partial = path.rename(f"{path}.partial")
    expected = np.load(partial)
    kernel = np.lib.format.open_memmap(partial, mode="r+")
    kernel[0, 0], kernel[2, 3:] = 12345, np.nan
    del kernel
    before = {p: p.stat().st_mtime_ns for p in copy.glob("*kernel_train.npy")}
    succeed(*TINY, "--output", copy)
    expected[0, 0] = 12345
    assert np.array_equal(np.load(path), expected)
    assert label(path) | {"sha256": 0} == label(undisturbed / path.name) | {"sha256": 0}
    assert checkpoints.read_kernel(path)
    assert {p: p.stat().st_mtime_ns for p in copy.glob("*kernel_train.npy")} == before


def test_half_of_an_unfinished_training_matrix_is_enough(copy, undisturbed):
    """The other half is its mirror image."""
    path = copy / CONVOLUTIONAL.format(16, 0, "kernel_train")
    kernel = np.lib.format.open_memmap(path.rename(f"{path}.partial"), mode="r+")
    kernel[np.triu_indices(16, 1)] = np.nan
    kernel[5, 2] = np.nan
    del kernel
    succeed(*TINY, "--output", copy)
    assert contents(copy) == contents(undisturbed)


def test_an_unfinished_file_has_the_size_of_the_finished_one(tmp_path):
    """So a disk that has room for the one has room for the other."""
    path = tmp_path / "some_kernel_test.npy"
    matrix = checkpoints.open_matrix(path, (3, 4), {"size": 4})
    size = (tmp_path / "some_kernel_test.npy.partial").stat().st_size
    matrix[:] = 1
    checkpoints.finish_matrix(path, matrix)
    assert path.stat().st_size == size and not list(tmp_path.glob("*.partial"))


def test_the_pairs_that_are_missing_are_counted_from_the_files(tmp_path):
    """And those of another label, unfinished or finished, count as not there."""
    path, label, other = tmp_path / "some_kernel_train.npy", {"size": 4}, {"size": 4, "seed": 1}
    assert checkpoints.count_missing(path, (4, 4), label) == 10
    matrix = checkpoints.open_matrix(path, (4, 4), label)
    assert checkpoints.count_missing(path, (4, 4), label) == 10
    matrix[1:, :2] = 1
    assert checkpoints.count_missing(path, (4, 4), label) == 4  # of the lower half
    assert checkpoints.count_missing(path, (4, 4), other) == 10
    matrix[:] = 1
    checkpoints.finish_matrix(path, matrix)
    assert checkpoints.count_missing(path, (4, 4), label) == 0
    assert checkpoints.count_missing(path, (4, 4), other) == 10


# ---- foreign and doubtful files ----


@pytest.mark.slow
@pytest.mark.parametrize("key, value", [
    ("dataset", "mnist"), ("dataset_sha256", "0" * 64), ("digits", [3, 5]), ("network", "convolutional"), ("size", 8),
    ("trial", 9), ("seed", 1), ("depth", 3), ("precision", "float32"), ("formulas", 0), ("test_size", 6),
])  # fmt: skip
def test_kernels_of_another_origin_are_put_aside(copy, undisturbed, key, value):
    """What the origin differs in is said, the file kept, finished or not, and the matrix computed again."""
    finished = copy / FULLY_CONNECTED.format(16, 0, "kernel_test")
    unfinished = copy / FULLY_CONNECTED.format(4, 1, "kernel_test")
    unfinished = unfinished.rename(f"{unfinished}.partial")
    for path in (finished, unfinished):
        relabel(path, **{key: value})
    old = finished.read_bytes()
    out = succeed(*QUICK, "--output", copy)
    for path in (finished, unfinished):
        note = f"note: {path.name} was computed from other settings ({key} {value}, not "
        assert note in out and f"kept as {path.name}.1.old" in out
    assert (copy / f"{finished.name}.1.old").read_bytes() == old
    assert contents(copy) == contents(undisturbed)


def test_kernels_that_can_not_be_used_are_put_aside(copy, undisturbed):
    """NaN, another shape or type, no origin, no checksum, and a pickle, which is not opened."""

    class Trap:
        def __reduce__(self):
            return Path.touch, (copy / "sprung",)

    def path(size, trial, name="kernel_test"):
        return copy / FULLY_CONNECTED.format(size, trial, name)

    kernel = np.load(path(16, 0))
    kernel[1, 2] = np.nan
    for file, array in [(path(16, 0), kernel), (path(4, 0), np.ones((4, 5))), (path(4, 1), np.ones((4, 4), "f4"))]:
        write_kernel(file, array, {k: v for k, v in label(undisturbed / file.name).items() if k != "sha256"})
    np.save(path(16, 0, "kernel_train"), np.eye(16))
    old = path(4, 1, "kernel_train")
    old.write_bytes(re.sub(rb', "sha256": ".*"', b"", old.read_bytes()))
    unfinished = path(4, 0, "kernel_train").rename(f"{path(4, 0, 'kernel_train')}.partial")
    for file in (unfinished, path(4, 1, "train_label")):
        with file.open("wb") as opened:
            np.save(opened, np.array([Trap()] * 4), allow_pickle=True)
    out = succeed(*QUICK, "--output", copy)
    for file, reason in [
        (path(16, 0), "holds NaN"),
        (path(4, 0), "holds float64 (4, 5), not float64 (4, 4)"),
        (path(4, 1), "holds float32"),
        (path(16, 0, "kernel_train"), "does not say what it was computed from"),
        (path(4, 1, "kernel_train"), "has no checksum"),
        (unfinished, "can't be read"),
        (path(4, 1, "train_label"), "is damaged or of other settings"),
    ]:
        assert f"note: {file.name} {reason}" in out
    assert not (copy / "sprung").exists()
    assert contents(copy) == contents(undisturbed)


def test_a_pickle_is_not_opened_by_those_who_read_one_kernel(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    np.save(tmp_path / "kernel.npy", np.array([Trap()] * 4), allow_pickle=True)
    with pytest.raises(BadInput):
        checkpoints.read_kernel(tmp_path / "kernel.npy")
    assert not (tmp_path / "sprung").exists()


def test_a_matrix_is_checked_before_it_gets_its_name(tmp_path):
    path = tmp_path / "some_kernel_train.npy"
    for spoil, words in ((np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (2, "not symmetric")):
        matrix = checkpoints.open_matrix(path, (3, 3), {"size": 3})
        assert np.isnan(matrix).all() and matrix.shape == (3, 3)
        matrix[:] = 1
        matrix[0, 1] = spoil
        with pytest.raises(BadInput, match=words):
            checkpoints.finish_matrix(path, matrix)
        assert not path.exists()
        matrix[:] = np.nan
    matrix[:] = 1
    assert np.array_equal(checkpoints.finish_matrix(path, matrix), np.ones((3, 3)))
    assert np.array_equal(np.load(path), np.ones((3, 3))) and label(path)["size"] == 3


def test_an_engine_that_gives_nan_ends_the_run_in_one_line(tmp_path, monkeypatch):
    def useless(x1, x2, *, depth, engine, rows):
        yield np.arange(len(x1)), np.full((len(x1), len(x1 if x2 is None else x2)), np.nan)

    monkeypatch.setattr(checkpoints, "fully_connected_rows", useless)
    line = complaint(call(*QUICK, "--output", tmp_path))
    assert "the engine gave NaN or infinite values; use another --engine or --precision" in line
    assert not list(tmp_path.glob("*kernel*.npy"))


def test_another_test_size_keeps_the_training_matrix(copy, undisturbed):
    out = succeed(*QUICK, "--test-size", 6, "--output", copy)
    train, test = (FULLY_CONNECTED.format(16, 0, name) for name in ("kernel_train", "kernel_test"))
    assert "(test_size 4, not 6)" in out
    assert (copy / train).read_bytes() == (undisturbed / train).read_bytes()
    assert np.load(copy / test).shape == (6, 16)
    assert (copy / f"{test}.1.old").exists()


@pytest.mark.slow
def test_float32_is_labelled_and_does_not_mix(tmp_path):
    arguments = ("--dataset", "digits", "--data-sizes", 4, "--trials", 1, "--test-size", 4, "--output", tmp_path)
    succeed(*arguments, "--precision", "float32")
    kernels = {n: tmp_path / f"digits-{n}_seed0_data4_trial0_kernel_train.npy" for n in training.networks}
    rounded = np.load(kernels["convolutional"])
    precisions = {"convolutional": "float32", "fully-connected": "float64"}  # seconds anyway
    for network, precision in precisions.items():
        assert label(kernels[network])["precision"] == precision
        with np.load(tmp_path / f"digits-{network}_results.npz") as results:
            assert json.loads(str(results["origin"]))["precision"] == precision
    sittings = json.loads((tmp_path / "run.json").read_text())["sittings"]
    assert {sitting["network"]: sitting["precision"] for sitting in sittings} == precisions
    assert "(precision float32, not float64)" in succeed(*arguments)
    assert label(kernels["convolutional"])["precision"] == "float64"
    exact = np.load(kernels["convolutional"])
    assert 0 < np.abs(exact / rounded - 1).max() < 1e-4
    assert np.array_equal(np.load(f"{kernels['convolutional']}.1.old"), rounded)


# ---- full disks, held folders ----


@contextlib.contextmanager
def file_size_limit(size):
    """Limit the size of files that this process writes. No longer than needed: pytest's own log is one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
@pytest.mark.parametrize("bytes_allowed", [0, 500, 700, 1024, 2048, 8192])
def test_a_write_that_fails_ends_the_run_in_one_line(undisturbed, tmp_path, bytes_allowed):
    """Of the lock's text, a kernel, a label, the results; with more room the same command goes on, without a note."""
    with file_size_limit(bytes_allowed):
        ended = call(*QUICK, "--output", tmp_path)
    line = complaint(ended)
    assert f"--output {tmp_path}: can't write" in line and "File too large" in line and "make room" in line
    expected = contents(undisturbed)
    assert all(expected[name] == content for name, content in contents(tmp_path).items())
    assert "note: " not in succeed(*QUICK, "--output", tmp_path)
    found = contents(tmp_path)
    assert found == {name: expected[name] for name in found} and len(found) == 16
    assert not list(tmp_path.glob("*.partial"))


def test_a_failed_write_leaves_no_file(tmp_path):
    with file_size_limit(100), pytest.raises(BadInput, match=r"can't write some.npy.partial .File too large"):
        files.save(tmp_path / "some.npy", lambda file: np.save(file, np.zeros(1000)))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_ends_the_run_in_one_line(tmp_path, undisturbed):
    """A small disk in memory fills up; with more room the same command goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a disk")
    try:
        line = complaint(call(*QUICK, "--output", disk))
        assert f"--output {disk}: can't write" in line and "No space left on device" in line and "make room" in line
        expected = contents(undisturbed)
        assert all(expected[name] == content for name, content in contents(disk).items())
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        assert "note: " not in succeed(*QUICK, "--output", disk)
        found = contents(disk)
        assert found == {name: expected[name] for name in found} and len(found) == 16
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
