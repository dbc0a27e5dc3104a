"""Kernel files: found again, checked to the last bit, put aside where they can't be used."""

import contextlib
import hashlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    QUICK,
    TINY,
    call,
    check_what_is_there,
    complaint,
    contents,
    flip,
    relabel,
    succeed,
)

import training
from ntk import BadInput
from runtime import checkpoints, files, kernels
from runtime.checkpoints import Journal
from runtime.results import read_results

FULLY_CONNECTED = "digits-fully-connected_seed0_data{}_trial{}_{}.npy"
CONVOLUTIONAL = "digits-convolutional_seed0_data{}_trial{}_{}.npy"


@pytest.fixture
def copy(undisturbed, tmp_path):
    """A copy of the undisturbed run."""
    return shutil.copytree(undisturbed, tmp_path / "copy")


@pytest.fixture
def kernels_alone(copy):
    """A copy without results, so that the next run reads every kernel."""
    for path in copy.glob("*.nc"):
        path.unlink()
    return copy


def label_of(path):
    """What a kernel says that it was computed from."""
    label = json.loads(path.read_bytes().splitlines()[-1])
    return {key: value for key, value in label.items() if key != "sha256"}


def exchange(first, second):
    """Let two files change their names."""
    content = first.read_bytes()
    second.replace(first)
    second.write_bytes(content)


def unfinished(path, known):
    """A kernel that a run was computing: a journal with the values at the positions `known`."""
    kernel = np.load(path)
    is_train = path.name.endswith("_kernel_train.npy")
    values = kernel[np.tril_indices(len(kernel))] if is_train else kernel.ravel()
    journal = Journal(path, label_of(path), len(values))
    journal.open()
    for positions in known:
        journal.append(np.asarray(positions), values[positions])
    journal.close()
    path.unlink()
    return journal.path


# ---- labels and checksums ----


def test_the_label_line_holds_the_sum_of_what_stands_before_it(undisturbed):
    for path in undisturbed.glob("*_kernel_t*[nt].npy"):
        content = path.read_bytes()
        label = json.loads(content.splitlines()[-1])
        before, _, after = content.rpartition(label["sha256"].encode())
        assert hashlib.sha256(before).hexdigest() == label["sha256"] and after == b'"}\n'
        wanted = {"dataset_sha256", "digits", "size", "trial", "seed", "depth", "precision"}
        assert wanted | {"formulas"} <= label.keys()


@pytest.mark.slow
def test_a_bit_flipped_anywhere_makes_a_kernel_unusable(undisturbed, tmp_path):
    """One bit of every byte of a file in turn: header, data, label."""
    name = FULLY_CONNECTED.format(4, 0, "kernel_train")
    original, rng = (undisturbed / name).read_bytes(), random.Random(5)
    label = label_of(undisturbed / name)
    path = tmp_path / name
    path.write_bytes(original)
    assert checkpoints.checked_kernel(path, label, (4, 4))[2] is None
    for position in range(len(original)):
        path.write_bytes(original)
        flip(path, position, rng.randrange(8))
        assert checkpoints.checked_kernel(path, label, (4, 4))[2], position
        with pytest.raises(BadInput, match=f"{name}: .*delete it and run"):
            checkpoints.read_kernel(path)
    path.write_bytes(original)
    assert np.array_equal(checkpoints.read_kernel(path)[0], np.load(path))


def test_a_flipped_bit_is_named_and_the_file_made_again(kernels_alone, undisturbed):
    """In a kernel's header, data and label, and in the small arrays."""
    damaged = {}
    for part, place in {"header": (4, 0), "data": (4, 1), "label": (16, 0)}.items():
        path = kernels_alone / FULLY_CONNECTED.format(*place, "kernel_test")
        size, end = path.stat().st_size, path.read_bytes().index(b"{", 200)
        start, stop = {"header": (0, 128), "data": (128, end), "label": (end, size)}[part]
        flip(path, random.Random(part).randrange(start, stop), 0)
        damaged[path] = path.read_bytes()
    arrays = ["train_label", "test_label", "kernel_test_normalized"]
    small = [kernels_alone / FULLY_CONNECTED.format(16, 0, name) for name in arrays]
    for path in small:
        flip(path, path.stat().st_size - 3, 4)
    out = succeed(*QUICK, "--output", kernels_alone)
    for path, content in damaged.items():
        note = f"note: {path.name} .*; it is kept as {path.name}.1.old and computed again"
        assert re.search(note, out)
        assert (kernels_alone / f"{path.name}.1.old").read_bytes() == content
    for path in small:
        assert f"note: {path.name} is damaged or of other settings" in out
    assert contents(kernels_alone) == of_network(contents(undisturbed), "fully-connected")


def of_network(found, network, alone=False):
    """What `contents` gives, without the other network's results or, `alone`, all its files."""
    other = {"fully-connected": "convolutional", "convolutional": "fully-connected"}[network]
    without = f"digits-{other}_" if alone else f"digits-{other}_results.nc"
    return {name: found[name] for name in found if not name.startswith(without)}


@pytest.mark.slow
def test_truncated_files_are_made_again(copy, undisturbed):
    """Each kind of file, cut anywhere, is named and made again, to the same bytes."""
    rng = random.Random(4)
    arrays = ("kernel_train", "kernel_test", "kernel_test_normalized", "train_label", "test_label")
    for stem in (FULLY_CONNECTED, CONVOLUTIONAL):
        cut = [copy / stem.format(16, 0, name) for name in arrays]
        cut += copy.glob("*_results.nc")
        for path in [*cut, copy / "run.json", copy / "run.lock"]:
            content = path.read_bytes()
            path.write_bytes(content[: rng.randrange(max(len(content), 1))])
        out = succeed(*TINY, "--output", copy)
        for path in cut:
            assert f"note: {path.name} " in out
        assert contents(copy) == contents(undisturbed)
        json.loads((copy / "run.json").read_text())
    assert len(list(copy.glob("*.npy.*.old"))) == 2 * len(arrays)


# ---- resumption ----


@pytest.mark.parametrize("has_results", [True, False])
def test_a_second_run_evaluates_no_kernel_and_writes_no_array(
    copy, undisturbed, monkeypatch, has_results
):
    """With its results no trial is looked at; without them, kernels are read."""

    def refuse(*_, **how):
        raise AssertionError("a kernel is computed")

    if not has_results:
        for path in copy.glob("*.nc"):
            path.unlink()
    monkeypatch.setattr(kernels, "fully_connected_ntk", refuse)
    monkeypatch.setattr(kernels, "ConvolutionalPairs", refuse)
    times = {path: path.stat().st_mtime_ns for path in copy.glob("*.n*")}
    out = succeed(*TINY, "--output", copy)
    assert "are not computed again" in out
    assert out.count("0 trials to compute, 3 are in the results") == (2 if has_results else 0)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert contents(copy) == contents(undisturbed)


def test_a_rerun_computes_only_what_is_missing(kernels_alone, undisturbed):
    """An unfinished matrix keeps what it has: a number planted there comes through."""
    path = kernels_alone / CONVOLUTIONAL.format(16, 0, "kernel_test")
    (kernels_alone / CONVOLUTIONAL.format(16, 0, "kernel_test_normalized")).unlink()
    expected, label = np.load(path), label_of(path)
    before = {p: p.stat().st_mtime_ns for p in kernels_alone.glob("*kernel_train.npy")}
    journal = Journal(path, label, expected.size)
    journal.open()
    journal.append(np.arange(5), np.array([12345, *expected.ravel()[1:5]]))
    journal.append(np.array([40]), expected.ravel()[[40]])
    journal.close()
    path.unlink()
    out = succeed(*TINY, "--output", kernels_alone)
    assert "note: " not in out
    expected[0, 0] = 12345
    assert np.array_equal(np.load(path), expected)
    assert label_of(path) == label and checkpoints.read_kernel(path)
    assert not journal.path.exists()
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_the_pairs_that_are_missing_are_counted_from_the_files(tmp_path):
    """And those of another label, unfinished or finished, count as not there."""
    path, label = tmp_path / "some_kernel_train.npy", {"size": 4}
    other = {"size": 4, "seed": 1}
    assert checkpoints.count_missing(path, label, 10) == 10
    journal = Journal(path, label, 10)
    journal.open()
    assert checkpoints.count_missing(path, label, 10) == 10
    journal.append(np.arange(6), np.ones(6))
    assert checkpoints.count_missing(path, label, 10) == 4
    assert checkpoints.count_missing(path, other, 10) == 10
    checkpoints.write_kernel(path, np.ones((4, 4)), label)
    journal.remove()
    assert checkpoints.count_missing(path, label, 10) == 0
    assert checkpoints.count_missing(path, other, 10) == 10


# ---- damaged and foreign journals ----


def reread(journal):
    """The values of a journal that is opened again."""
    other = Journal(journal.path.with_suffix(""), {"size": 4}, len(journal.values))
    values = other.open()
    other.close()
    return values


@pytest.fixture
def journal(tmp_path):
    """A journal of 9 values, of which three blocks hold 0, 1, 2; 3, 4; 8."""
    journal = Journal(tmp_path / "some_kernel_test.npy", {"size": 4}, 9)
    journal.open()
    for positions in ([0, 1, 2], [3, 4], [8]):
        journal.append(np.array(positions), 1.5 + np.array(positions))
    journal.close()
    return journal


def test_a_journal_gives_back_what_was_appended(journal):
    expected = [1.5, 2.5, 3.5, 4.5, 5.5, np.nan, np.nan, np.nan, 9.5]
    assert np.array_equal(reread(journal), expected, equal_nan=True)


def test_a_bit_flipped_anywhere_in_a_journal_is_noticed(journal, capsys):
    """Values that are read are right. In the label it puts the file aside, in a block just that."""
    original, rng = journal.path.read_bytes(), random.Random(1)
    expected = reread(journal)
    for position in range(len(original)):
        journal.path.write_bytes(original)
        flip(journal.path, position, rng.randrange(8))
        values = reread(journal)
        known = ~np.isnan(values)
        assert np.array_equal(values[known], expected[known]), position
        assert known.sum() < 6, position
        is_put_aside = bool(list(journal.path.parent.glob("*.old")))
        assert is_put_aside == (position < len(journal.head)), position
        for path in journal.path.parent.glob("*.old"):
            path.unlink()


def test_a_damaged_block_is_passed_over_and_later_ones_are_kept(journal):
    flip(journal.path, len(journal.head) + 12 + 3 * 8 + 5, 3)  # a value of the first block
    known = ~np.isnan(reread(journal))
    assert np.flatnonzero(known).tolist() == [3, 4, 8]


@pytest.mark.parametrize("position", [-1, 9, 2**40])
def test_a_position_that_there_is_not_makes_a_block_damaged(journal, position):
    """With a checksum that is right: only a stranger writes that."""
    block = np.array([position], "<i8").tobytes() + np.array([7.0]).tobytes()
    with journal.path.open("ab") as file:
        head = checkpoints.block_head.pack(1, checkpoints.zlib.crc32(block))
        file.write(head + block)
    values = reread(journal)
    assert np.flatnonzero(~np.isnan(values)).tolist() == [0, 1, 2, 3, 4, 8]


def test_what_was_cut_off_is_appended_again(journal):
    """As after a kill, or on a full disk, amid a block; what follows stands behind whole blocks."""
    original = journal.path.read_bytes()
    for size in range(len(journal.head), len(original)):
        journal.path.write_bytes(original[:size])
        other = Journal(journal.path.with_suffix(""), {"size": 4}, 9)
        values = other.open()
        missing = np.flatnonzero(np.isnan(values))
        assert missing.size >= 4
        other.append(missing, 1.5 + missing)
        other.close()
        assert np.array_equal(reread(journal), 1.5 + np.arange(9)), size


def test_a_damaged_block_of_an_unfinished_kernel_is_computed_again(kernels_alone, undisturbed):
    """A flip in a finished entry: else it would get a checksum that says that it is right."""
    for name, at in (("kernel_train", 0), ("kernel_test", 2)):
        path = kernels_alone / CONVOLUTIONAL.format(16, 0, name)
        blocks = [np.arange(0, 16), np.arange(16, 32), np.arange(32, 48)]
        partial = unfinished(path, blocks)
        head = partial.read_bytes().index(b"\n") + 1
        block = 12 + 16 * 16
        flip(partial, head + at * block + 12 + 16 * 8 + 22, 6)  # in a value
    succeed(*TINY, "--output", kernels_alone)
    assert contents(kernels_alone) == contents(undisturbed)
    assert not list(kernels_alone.glob("*.partial"))


def test_a_journal_of_other_settings_is_put_aside(kernels_alone, undisturbed):
    path = kernels_alone / CONVOLUTIONAL.format(4, 1, "kernel_test")
    relabel(path, depth=6)
    partial = unfinished(path, [np.arange(3)])
    out = succeed(*TINY, "--output", kernels_alone)
    note = f"note: {partial.name} was computed from other settings, or is damaged"
    assert note in out and (kernels_alone / f"{partial.name}.1.old").exists()
    assert contents(kernels_alone) == contents(undisturbed)


# ---- kernels of another origin ----


@pytest.mark.parametrize("key, value", [
    ("dataset", "mnist"), ("dataset_sha256", "0" * 64), ("digits", [3, 5]), ("size", 8),
    ("network", "convolutional"), ("trial", 9), ("seed", 1), ("depth", 3), ("precision", "float32"),
    ("formulas", 0), ("test_size", 6),
])  # fmt: skip
def test_kernels_of_another_origin_are_not_used(undisturbed, tmp_path, capsys, key, value):
    """What the origin differs in is said, and the file kept under another name."""
    name = FULLY_CONNECTED.format(16, 0, "kernel_test")
    path = Path(shutil.copy(undisturbed / name, tmp_path))
    label = label_of(path)
    assert checkpoints.stored_kernel(path, label, (4, 16)) is not None
    relabel(path, **{key: value})
    old = path.read_bytes()
    assert checkpoints.stored_kernel(path, label, (4, 16)) is None
    note = f"note: {name} was computed from other settings ({key} {value}, not {label[key]})"
    assert note in capsys.readouterr().out
    assert (tmp_path / f"{name}.1.old").read_bytes() == old and not path.exists()


def test_a_run_puts_foreign_kernels_aside_and_computes_them_again(kernels_alone, undisturbed):
    names = [
        FULLY_CONNECTED.format(16, 0, "kernel_test"),
        CONVOLUTIONAL.format(4, 0, "kernel_train"),
    ]
    for name in names:
        relabel(kernels_alone / name, formulas=0)
    out = succeed(*TINY, "--output", kernels_alone)
    for name in names:
        assert f"note: {name} was computed from other settings (formulas 0, not 1)" in out
        assert (kernels_alone / f"{name}.1.old").exists()
    assert contents(kernels_alone) == contents(undisturbed)


def test_another_test_size_keeps_the_training_matrix(copy, undisturbed):
    """The trials' results of another test size are replaced, and no other results lost."""
    out = succeed(*QUICK, "--test-size", 6, "--output", copy)
    train, test = (FULLY_CONNECTED.format(16, 0, name) for name in ("kernel_train", "kernel_test"))
    assert "(test_size 4, not 6)" in out
    assert (copy / train).read_bytes() == (undisturbed / train).read_bytes()
    assert np.load(copy / test).shape == (6, 16)
    assert (copy / f"{test}.1.old").exists()
    results = read_results(copy / "digits-fully-connected_results.nc")
    assert np.nanmax(results.test_images) == 6 and not list(copy.glob("*.nc.*.old"))


@pytest.mark.slow
def test_float32_is_labelled_and_does_not_mix(tmp_path):
    arguments = ("--dataset", "digits", "--data-sizes", 4, "--trials", 1, "--test-size", 4)
    arguments += ("--output", tmp_path)
    succeed(*arguments, "--precision", "float32")
    networks = {"convolutional": "float32", "fully-connected": "float64"}  # seconds anyway
    kernels = {}
    for network, precision in networks.items():
        kernels[network] = tmp_path / f"digits-{network}_seed0_data4_trial0_kernel_train.npy"
        assert label_of(kernels[network])["precision"] == precision
        results = read_results(tmp_path / f"digits-{network}_results.nc")
        assert results.precision.item() == precision
    rounded = np.load(kernels["convolutional"])
    sittings = json.loads((tmp_path / "run.json").read_text())["sittings"]
    assert {sitting["network"]: sitting["precision"] for sitting in sittings} == networks
    assert "(precision float32, not float64)" in succeed(*arguments)
    assert label_of(kernels["convolutional"])["precision"] == "float64"
    exact = np.load(kernels["convolutional"])
    assert 0 < np.abs(exact / rounded - 1).max() < 1e-4
    assert np.array_equal(np.load(f"{kernels['convolutional']}.1.old"), rounded)
    assert read_results(tmp_path / "digits-convolutional_results.nc").precision.item() == "float64"


# ---- the files of a folder against each other ----

READERS = {
    "one trial": lambda folder: training.stored_kernels(folder, "digits-convolutional", 4, 0, 0),
    "a pair": lambda folder: checkpoints.read_kernel_pair(folder, "digits-convolutional", 4, 0, 0),
    "all trials": lambda folder: checkpoints.finished_trials(folder, "digits-convolutional", 0),
}


def test_the_files_of_a_folder_are_found_and_read(undisturbed):
    assert READERS["all trials"](undisturbed) == {4: [0, 1], 16: [0]}
    read = READERS["one trial"](undisturbed)
    assert (read.trial.size, read.trial.number, read.depth) == (4, 0, 3)
    stem = undisturbed / CONVOLUTIONAL.format(4, 0, "kernel")
    assert np.array_equal(read.train, np.load(str(stem).replace("kernel", "kernel_train")))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "names", [["kernel_train"], ["kernel_test"], ["kernel_train", "kernel_test"]]
)
def test_two_trials_files_that_are_swapped_are_refused(copy, reader, names):
    """Else the labels of one trial would meet the kernels of another."""
    for name in names:
        first, second = (copy / CONVOLUTIONAL.format(4, number, name) for number in (0, 1))
        exchange(first, second)
    with pytest.raises(BadInput) as refused:
        READERS[reader](copy)
    assert re.search(
        r"trial\d_kernel_.*: was computed from other settings \(trial", str(refused.value)
    )
    assert "\n" not in str(refused.value)


CHANGES = {
    "another seed": ({"seed": 1}, r"other settings \(seed 1, not 0\)"),
    "another size": ({"size": 8}, r"other settings \(size 8, not 4\)"),
    "another network": ({"network": "fully-connected"}, "holds a kernel of fully-connected"),
    "MNIST's": ({"dataset": "mnist"}, r"classes \[1, 0\] of mnist, not what its name says"),
    "Fashion-MNIST's": ({"dataset": "fashion_mnist"}, "of fashion_mnist, not what its name says"),
    "images of another file": ({"dataset": "my.npz"}, "of my.npz, not what its name says"),
    "an unknown dataset": ({"dataset": 7}, "of 7, not what its name says"),
    "no classes": ({"digits": None}, "classes None of digits, not what its name says"),
    "three classes": ({"digits": [1, 0, 2]}, "not what its name says"),
    "no network": ({"network": None}, "holds a kernel of None"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_kernel_of_another_kind_in_a_trials_place_is_refused(copy, reader, change):
    changes, words = CHANGES[change]
    for name in ("kernel_train", "kernel_test"):
        relabel(copy / CONVOLUTIONAL.format(4, 0, name), **changes)
    with pytest.raises(BadInput, match=f"_kernel_.*: .*{words}"):
        READERS[reader](copy)


@pytest.mark.parametrize(
    "reader, size", [("one trial", 4), ("a pair", 4), ("all trials", 4), ("all trials", 16)]
)
@pytest.mark.parametrize("name", ["kernel_train", "kernel_test"])
def test_a_kernel_of_other_images_than_its_partner_is_refused(copy, reader, size, name):
    """Of the same dataset by name, with another content; in a partner, or in another trial."""
    relabel(copy / CONVOLUTIONAL.format(size, 0, name), dataset_sha256="0" * 64)
    with pytest.raises(
        BadInput, match=r"is not .*kernel_train.npy's: dataset_sha256|of another kind"
    ):
        READERS[reader](copy)


def test_a_reference_of_other_images_is_refused(copy):
    for name in ("kernel_train", "kernel_test"):
        relabel(copy / CONVOLUTIONAL.format(16, 0, name), dataset_sha256="0" * 64)
    with pytest.raises(
        BadInput, match=r"data16_trial0.* is of another kind than n = 4: dataset_sha256"
    ):
        READERS["one trial"](copy)


def test_kernels_of_other_classes_under_the_papers_name_are_refused(copy):
    """Of all trials, so that they agree with each other."""
    for path in copy.glob("digits-convolutional_*_kernel_t*[nt].npy"):
        relabel(path, digits=[3, 5])
    with pytest.raises(BadInput, match=r"classes \(3, 5\), which belong to files .*-3v5"):
        READERS["one trial"](copy)


def test_a_kernel_of_another_name_or_shape_than_its_label_says_is_refused(copy):
    path = copy / CONVOLUTIONAL.format(4, 0, "kernel_test")
    label = label_of(path)
    checkpoints.write_kernel(path, np.ones((3, 4)), label)
    with pytest.raises(BadInput, match=r"holds \(3, 4\), not \(4, 4\) as its label says"):
        checkpoints.read_kernel(path)
    with pytest.raises(BadInput, match="is not named like a kernel"):
        checkpoints.read_kernel(path.rename(copy / "kernel.npy"))


@pytest.mark.parametrize("row, column", [(0, 4), (4, 0), (-1, 0)])
def test_entries_outside_their_matrix_are_refused(copy, row, column):
    train = copy / CONVOLUTIONAL.format(4, 0, "kernel_train")
    path = copy / CONVOLUTIONAL.format(4, 0, "kernel_entries")
    entries = np.array([(row, column, 1.0)], checkpoints.ENTRY)
    checkpoints.write_kernel(path, entries, label_of(train) | {"entries": {"original": 3}})
    train.unlink()
    with pytest.raises(BadInput, match="holds no entries of a matrix of 4 rows"):
        READERS["a pair"](copy)


# ---- files that are not what they seem ----


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_raw(path, array, label):
    """A file that `write_kernel` would not write, with a label and a checksum."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)
        line = f"\n{json.dumps(label | {'sha256': 64 * '0'})}\n".encode()
        file.write(line[: -checkpoints.checksum_ending])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("ab") as file:
        file.write(f'{digest}"}}\n'.encode())


def spoil_with_nan(path):
    kernel = np.load(path)
    kernel[1, 2] = np.nan
    write_raw(path, kernel, label_of(path))


def spoil_by_link(path):
    target = path.rename(path.with_name("elsewhere"))
    path.symlink_to(target)


def spoil_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
SPOILT = {
    "NaN": (spoil_with_nan, "holds NaN"),
    "another shape": (
        lambda path: write_raw(path, np.ones((4, 5)), label_of(path)),
        "holds float64 (4, 5), not float64 (4, 16)",
    ),
    "another type": (
        lambda path: write_raw(path, np.ones((4, 16), "f4"), label_of(path)),
        "holds float32 (4, 16), not float64 (4, 16)",
    ),
    "no label": (lambda path: np.save(path, np.ones((4, 16))), "does not say what it was computed"),
    "no checksum": (
        lambda path: path.write_bytes(re.sub(rb', "sha256": ".*"', b"", path.read_bytes())),
        "has no checksum",
    ),
    "a label that is none": (
        lambda path: path.write_bytes(path.read_bytes().partition(b"\n{")[0] + b"\n[1]\n"),
        "can't be read (holds no label behind its array)",
    ),
    "a pickle": (
        lambda path: np.save(path, np.array([Trap(path.parent / "sprung")]), allow_pickle=True),
        "can't be read",
    ),
    "nothing": (lambda path: path.write_bytes(b""), "can't be read"),
    "a link": (spoil_by_link, "can't be read (is a symbolic link, not a file)"),
    "a pipe": (spoil_by_pipe, "can't be read (is a pipe, not a file)"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "can't be read (is a folder"),
    "an LFS pointer": (
        lambda path: path.write_text(POINTER),
        "can't be read (is a Git LFS pointer; run git lfs pull)",
    ),
    "a long tail": (
        lambda path: path.write_bytes(path.read_bytes() + bytes(2**17)),
        "can't be read (has 131,",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_kernel_that_can_not_be_used_is_put_aside(undisturbed, tmp_path, capsys, kind):
    """And whoever reads it without a run gets one line; a pickle is not opened."""
    name = FULLY_CONNECTED.format(16, 0, "kernel_test")
    path = Path(shutil.copy(undisturbed / name, tmp_path))
    label, (spoil, words) = label_of(path), SPOILT[kind]
    spoil(path)
    with pytest.raises(BadInput) as refused:
        checkpoints.read_kernel(path)
    assert f"{name}: " in str(refused.value) and "\n" not in str(refused.value)
    assert checkpoints.stored_kernel(path, label, (4, 16)) is None
    assert f"note: {name} {words}" in capsys.readouterr().out
    assert os.path.lexists(tmp_path / f"{name}.1.old") and not os.path.lexists(path)
    assert not (tmp_path / "sprung").exists()


def test_a_run_goes_on_among_files_that_can_not_be_used(kernels_alone, undisturbed):
    """Links, pipes and pointers in the places of kernels, of journals and of small arrays."""
    spoilt = {
        FULLY_CONNECTED.format(16, 0, "kernel_train"): "a link",
        FULLY_CONNECTED.format(4, 0, "kernel_test"): "a pipe",
        FULLY_CONNECTED.format(4, 1, "train_label"): "a pickle",
        FULLY_CONNECTED.format(4, 0, "test_label"): "a pipe",
        FULLY_CONNECTED.format(4, 0, "kernel_test_normalized"): "a link",
        CONVOLUTIONAL.format(16, 0, "kernel_train"): "an LFS pointer",
    }
    for name, kind in spoilt.items():
        SPOILT[kind][0](kernels_alone / name)
    journals = {"kernel_train": "a pipe", "kernel_test": "a link"}
    for name, kind in journals.items():
        path = kernels_alone / CONVOLUTIONAL.format(4, 0, name)
        partial = path.rename(f"{path}.partial")
        SPOILT[kind][0](partial)
        spoilt[partial.name] = kind
    (kernels_alone / "elsewhere").write_bytes(b"precious")
    out = succeed(*TINY, "--output", kernels_alone)
    for name in spoilt:
        assert f"note: {name} " in out
    assert (kernels_alone / "elsewhere").read_bytes() == b"precious"
    assert not (kernels_alone / "sprung").exists()
    assert contents(kernels_alone) == contents(undisturbed)


def test_a_kernel_is_checked_before_it_is_written(tmp_path):
    path = tmp_path / "some_kernel_train.npy"
    for spoilt in (np.nan, np.inf):
        kernel = np.ones((3, 3))
        kernel[0, 1] = spoilt
        with pytest.raises(BadInput, match="NaN or infinite"):
            checkpoints.write_kernel(path, kernel, {"size": 3})
        assert not list(tmp_path.iterdir())
    checkpoints.write_kernel(path, np.ones((3, 3)), {"size": 3})
    assert np.array_equal(np.load(path), np.ones((3, 3))) and label_of(path)["size"] == 3


def test_a_kernel_is_symmetric_by_its_making(undisturbed):
    """Only half of it is computed."""
    for path in undisturbed.glob("*_kernel_train.npy"):
        kernel = np.load(path)
        assert np.array_equal(kernel, kernel.T)


@pytest.mark.parametrize("network", ["fully-connected", "convolutional"])
def test_an_engine_that_gives_nan_ends_the_run_in_one_line(tmp_path, monkeypatch, network):
    def useless(x1, x2=None, **how):
        return np.full((len(x1), len(x1 if x2 is None else x2)), np.nan)

    monkeypatch.setattr(kernels, "fully_connected_ntk", useless)
    monkeypatch.setattr(kernels, "evaluate_pairs", lambda pairs, i, j: np.full(len(i), np.nan))
    line = complaint(call(*TINY, "--networks", network, "--output", tmp_path))
    assert "the engine gave NaN or infinite values; use another --engine or --precision" in line
    assert not list(tmp_path.glob("*kernel*.npy"))


# ---- full disks ----


@contextlib.contextmanager
def file_size_limit(size):
    """Limit the size of files that this process writes, only for a while: pytest writes too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
@pytest.mark.parametrize("network, bytes_allowed", [
    ("fully-connected", 0), ("fully-connected", 500), ("fully-connected", 8192),
    ("convolutional", 500), ("convolutional", 2048), ("convolutional", 8192),
])  # fmt: skip
def test_a_write_that_fails_ends_the_run_in_one_line(undisturbed, tmp_path, network, bytes_allowed):
    """Of the owner, a kernel, a journal, the results; with more room the same command goes on."""
    command = (*TINY, "--networks", network, "--output", tmp_path)
    with file_size_limit(bytes_allowed):
        ended = call(*command)
    line = complaint(ended)
    assert f"--output {tmp_path}: can't write" in line
    assert "File too large" in line and "make room" in line
    check_what_is_there(tmp_path, undisturbed)
    assert "note: " not in succeed(*command)
    assert contents(tmp_path) == of_network(contents(undisturbed), network, alone=True)
    assert not list(tmp_path.glob("*.partial"))


def test_a_failed_write_leaves_no_file(tmp_path):
    match = r"can't write some.npy.partial .File too large"
    with file_size_limit(100), pytest.raises(BadInput, match=match):
        files.save(tmp_path / "some.npy", lambda file: np.save(file, np.zeros(1000)))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_ends_the_run_in_one_line(tmp_path, undisturbed):
    """A small disk in memory fills up; with more room the same command goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(disk)]
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a disk")
    try:
        line = complaint(call(*QUICK, "--output", disk))
        assert f"--output {disk}: can't write" in line
        assert "No space left on device" in line and "make room" in line
        check_what_is_there(disk, undisturbed)
        subprocess.run(["mount", "-o", "remount,size=2m", str(disk)], check=True)
        assert "note: " not in succeed(*QUICK, "--output", disk)
        assert contents(disk) == of_network(contents(undisturbed), "fully-connected", alone=True)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
