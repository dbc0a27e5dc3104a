"""The command line: what is refused, in one line that names the option, value and remedy."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from conftest import QUICK, ROOT, TINY, call, complaint, end, free_port, run_script, start, succeed

import training
from runtime import processes

WRONG = [
    ("--data-sizes 15", "--data-sizes 15: use even numbers"),
    ("--data-sizes 16 15", "--data-sizes 15: use even numbers"),
    ("--data-sizes 0", "--data-sizes 0: use even numbers"),
    ("--data-sizes -4", "--data-sizes -4: use even numbers"),
    ("--data-sizes many", "--data-sizes: many: use whole numbers"),
    ("--data-sizes nan", "--data-sizes: nan: use whole numbers"),
    ("--data-sizes 16.5", "--data-sizes: 16.5: use whole numbers"),
    ("--data-sizes", "--data-sizes: expected at least one argument"),
    ("--data-sizes 16 16", "--data-sizes 16 16: give each size once"),
    ("--data-sizes 20", "--data-sizes 20: .* give --trials"),
    ("--trials 1 2", "--trials 1 2: use one number"),
    ("--data-sizes 16 32 --trials 1", "--trials 1: use one number, .* for each of 2 sizes"),
    ("--data-sizes 16 --trials -1", "--trials -1: use 0 to 100,000 for each size"),
    ("--data-sizes 16 --trials some", "--trials: some: use whole numbers"),
    ("--data-sizes 16 --trials 1000000000", "--trials 1000000000: use 0 to 100,000 for each size"),
    ("--trials 0 0 0 0 0 0", "--trials 0 0 0 0 0 0: nothing to do; use at least one"),
    ("--test-size 7", "--test-size 7: use an even number"),
    ("--test-size 0", "--test-size 0: use an even number"),
    ("--test-size 100000000", "--test-size 100000000: use an even number"),
    ("--seed -1", "--seed -1: use 0 to 2"),
    ("--seed 18446744073709551616", r"--seed 18446744073709551616: use 0 to 2\^63 - 1"),
    (f"--seed {240 * '7'}", r"--seed: 7{197}\.\.\.: use whole numbers of up to 20 digits"),
    ("--seed pi", "--seed: pi: use whole numbers"),
    ("--classes 3", "--classes 3: name two"),
    ("--classes 3 3", "--classes 3 3: use two different ones"),
    ("--classes 3 10", "--classes 3 10: .* has no class 10; use two of 0, 1"),
    ("--depth-sweep --digit-pairs", "--depth-sweep --digit-pairs: use one of them at a time"),
    ("--verify --depth-sweep", "--depth-sweep --verify: use one of them at a time"),
    ("--networks recurrent", "--networks: invalid choice: 'recurrent' .*fully-connected"),
    ("--engine abacus", "--engine: invalid choice: 'abacus' .*numba"),
    ("--precision float16", "--precision: invalid choice: 'float16' .*float32"),
    ("--dataset cifar10", "--dataset: cifar10: unknown; use auto, .*digits"),
    ("--width 512", "unrecognized arguments: --width 512; see --help"),
    ("--coordinator 127.0.0.1:99", "--coordinator 127.0.0.1:99: use .*--processes.* together"),
    ("--processes 2", "--processes 2: use --coordinator.* together"),
    ("--coordinator here --processes 2 --process-id 0", "--coordinator here: use HOST:PORT"),
    ("--coordinator h:99999 --processes 2 --process-id 0", "--coordinator h:99999: use HOST:PORT"),
    ("--coordinator h:99 --processes 0 --process-id 0", "--processes 0: use 1 or more"),
    ("--coordinator h:99 --processes 2 --process-id 2", "--process-id 2: use 0 to 1"),
]


@pytest.mark.parametrize("arguments, words", WRONG, ids=[arguments[:60] for arguments, _ in WRONG])
def test_wrong_arguments_are_refused_before_anything_is_read_or_written(tmp_path, arguments, words):
    ended = call("--output", tmp_path / "output", *arguments.split())
    assert re.search(words, complaint(ended)), ended.err
    assert ended.out == "" and not (tmp_path / "output").exists()


@pytest.mark.slow
def test_wrong_arguments_through_the_real_command_line(tmp_path):
    ended = run_script("--output", tmp_path / "output", "--mnist-dir", "/nowhere")
    assert "--mnist-dir /nowhere: can't be read (No such file" in complaint(ended)


def test_an_empty_output_is_refused(tmp_path, monkeypatch):
    """It would be the folder that the run was started in."""
    monkeypatch.chdir(tmp_path)
    assert "--output: '': name a folder" in complaint(call(*QUICK, "--output", ""))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, what", [
    ("a" * 256, "its part aaaaaaaaaaaaaaaaaaaa... has 256 bytes; use 255 at most"),
    ("below/" + "é" * 200 + "/b", "has 400 bytes; use 255 at most"),
    ("~nobody_at_all/x", "name a folder without ~"),
], ids=["long", "long in UTF-8", "home of nobody"])  # fmt: skip
def test_an_output_that_can_not_be_a_folder_is_refused(tmp_path, monkeypatch, name, what):
    monkeypatch.chdir(tmp_path)
    line = complaint(call(*QUICK, "--output", name))
    assert line.startswith("training.py: error: --output: ") and what in line
    assert not list(tmp_path.iterdir())


# ---- constants ----

SIX = [16, 32, 64, 128, 256, 512]
WRONG_LISTS = ("many", None, float("nan"), float("inf"), [], [[16, 32], [64]], [[16], [32]], True,
               [True], [16, None], {16: 1}, ["16"], 10**400, [1.5])  # fmt: skip


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("trials", [16, 8], r"data_sizes = \[16, .*\] and trials = \[16, 8\]: give each size its"),
        ("trials", [0] * 6, "the constant trials = 0 0 0 0 0 0: nothing to do"),
        ("trials", 0, "the constant trials = 0 0 0 0 0 0: nothing to do"),
        ("trials", -1, "the constant trials = -1 .*: use 0 to 100,000 for each size"),
        ("trials", 10**9, "the constant trials = 1000000000 .*: use 0 to 100,000 for each size"),
        ("data_sizes", [15, *SIX[1:]], "the constant data_sizes = 15: use even numbers"),
        ("data_sizes", [16, *SIX[:5]], "the constant data_sizes = 16 .*: give each size once"),
        ("test_size", 255, "the constant test_size = 255: use a multiple of 2, 2 or more"),
        ("seed", -3, "the constant seed = -3: use a whole number, 0 or more"),
        ("seed", 2**63, "the constant seed = 9223372036854775808: use a whole number"),
        ("sparsity_patterns", 0, "the constant sparsity_patterns = 0: use a whole number, 1 or"),
        ("percentile", 150, "the constant percentile = 150: use a number from 0 to 100"),
        ("percentile", -0.1, "the constant percentile = -0.1: use a number from 0 to 100"),
        ("convolutional_depth", 95, "the constant convolutional_depth = 95: use a multiple of 3"),
        ("diagonal_boost", (0.76,), "the constant diagonal_boost = 0.76: use two numbers"),
        ("sweep_depths", [6, 13], "the constant sweep_depths = 6 13: use a list of multiples of 3"),
        ("sweep_factors", [], "the constant sweep_factors = : use a list of numbers"),
        ("precision_above_limit", "half", "precision_above_limit = half: use float64 or float32"),
        ("selections", (9, 9), "the constant selections = 9 9: use a dictionary"),
        ("trials_without_accelerator", 3, "trials_without_accelerator = 3: use a dictionary"),
        ("trials_without_accelerator", {16: None}, r"accelerator\[16\] = None: use 0 to 100,000"),
        (
            "sizes_to_verify",
            {"convolutional": "all"},
            r"'convolutional'\] = all: use whole numbers",
        ),
    ],
)
def test_edited_constants_are_checked_like_flags(monkeypatch, tmp_path, name, value, words):
    monkeypatch.setattr(training, name, value)
    ended = call(*QUICK, "--output", tmp_path, depth=None)
    assert re.search(words, complaint(ended)), ended.err


@pytest.mark.parametrize("name", [
    "data_sizes", "trials", "test_size", "seed", "percentile", "sparsity_patterns", "pattern_draws",
    "reference_size", "depth_factor", "convolutional_depth", "k_thresh_margin", "diagonal_boost",
    "sweep_factors", "dense_limit", "whole_kernel_limit", "test_size_above_limit",
])  # fmt: skip
def test_constants_that_are_no_numbers_are_named(monkeypatch, tmp_path, name):
    for value in WRONG_LISTS:
        if (name, value) in (("percentile", [1.5]), ("sweep_factors", [1.5])):
            continue
        monkeypatch.setattr(training, name, value)
        line = complaint(call(*QUICK, "--output", tmp_path, depth=None))
        assert f"the constant {name} = " in line and ": use " in line, line


@pytest.mark.parametrize(
    "classes", [(9, 9), (9,), 9, None, "89", ("8", "9"), (8.5, 9), (-1, 3), (True, 0), [[8, 9]]]
)
def test_classes_that_are_none_are_named(monkeypatch, tmp_path, classes):
    monkeypatch.setattr(training, "selections", training.selections | {"convolutional": classes})
    line = complaint(call(*QUICK, "--output", tmp_path, depth=None))
    assert "the constant selections['convolutional'] = " in line
    assert "use two different classes" in line


def test_classes_that_the_dataset_lacks_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "selections", training.selections | {"convolutional": (3, 12)})
    line = complaint(call(*TINY, "--output", tmp_path))
    assert "--classes 12: " in line and "has no such class; use two of 0, 1, 2" in line


@pytest.mark.parametrize("sizes, trials, planned", [
    ([4, 8], 2, [(4, 0), (4, 1), (8, 0), (8, 1)]),
    (2 ** np.arange(2, 4), [1, 1], [(4, 0), (8, 0)]),
    ([4.0, 8], np.array([1, 0]), [(4, 0)]),
    ((4,), (np.int64(1),), [(4, 0)]),
    (range(4, 8, 2), [1, 1], [(4, 0), (6, 0)]),
    (np.float32(4), 1, [(4, 0)]),
])  # fmt: skip
def test_numbers_of_every_kind_will_do_as_constants(monkeypatch, tmp_path, sizes, trials, planned):
    monkeypatch.setattr(training, "data_sizes", sizes)
    monkeypatch.setattr(training, "trials", trials)
    computed = []

    def remember(run, trial, *how):
        computed.append((trial.size, trial.number))
        assert type(trial.size) is int and type(trial.number) is int
        return xr.Dataset()

    monkeypatch.setattr(training, "compute_trial", remember)
    monkeypatch.setattr(training, "summary", lambda results, title: "")
    command = ("--dataset", "digits", "--networks", "fully-connected", "--test-size", 4)
    succeed(*command, "--output", tmp_path)
    assert computed == planned


# ---- what the images, the folder and the machine can't do ----


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            "--data-sizes 16 500 --trials 1 1",
            "--data-sizes 500: digits fills 178; use that or less",
        ),
        (
            "--data-sizes 16 --trials 1 --test-size 180",
            "--test-size 180: digits fills 164; use that or less",
        ),
    ],
)
def test_more_than_the_dataset_holds_is_refused(tmp_path, arguments, words):
    assert words in complaint(
        call(*QUICK[:2], *QUICK[-2:], "--output", tmp_path, *arguments.split())
    )
    assert not list(tmp_path.glob("*.n[pc]*"))


def test_the_default_test_size_is_reduced_with_a_note(tmp_path):
    """Nobody asked for 256: digits' 164 do."""
    out = succeed(
        "--dataset", "digits", *QUICK[-2:], "--output", tmp_path, "--data-sizes", 4, "--trials", 1
    )
    assert "fills 164 test images, not 256" in out


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = complaint(call(*QUICK, "--output", tmp_path / "file"))
    assert f"--output {tmp_path / 'file'}: is a file; name a folder" in line
    line = complaint(call(*QUICK, "--output", tmp_path / "file" / "below"))
    assert f"--output {tmp_path / 'file' / 'below'}: can't write" in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_output_that_is_not_writable_is_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere but here
        folder = "/sys/kernel"
    line = complaint(call(*QUICK, "--output", folder))
    words = "can't write run.lock .*; make room or name another folder"
    assert re.search(f"--output {folder}: {words}", line)


def test_the_engine_gpu_is_refused_without_one(tmp_path):
    if training.has_accelerator():
        pytest.skip("there is a GPU")
    line = complaint(call(*QUICK, "--engine", "gpu", "--output", tmp_path / "output"))
    assert "--engine gpu: JAX finds no GPU or TPU; install requirements-gpu.txt" in line


@pytest.mark.slow
def test_a_platform_that_jax_does_not_have_is_refused(tmp_path):
    """In a process of its own: JAX looks at the variable once."""
    if training.has_accelerator():
        pytest.skip("there is a GPU")
    line = complaint(
        end(start(*QUICK, "--output", tmp_path, environment={"JAX_PLATFORMS": "cuda"}, fresh=True))
    )
    assert "JAX_PLATFORMS cuda: " in line and "use cpu" in line


@pytest.mark.slow
def test_a_coordinator_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(processes, "answer_seconds", 0.6)
    where = f"127.0.0.1:{free_port()}"
    line = complaint(call("--coordinator", where, "--processes", "2", "--process-id", "1"))
    reason = "no answer for 0.6 s (Connection refused); start process 0 there"
    assert f"--coordinator {where}: {reason}" in line


def test_help_names_every_option_and_default(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    ended = call("--help")
    assert ended.status == 0
    names = (
        "networks", "data-sizes", "trials", "test-size", "seed", "output", "dataset", "data-dir",
        "mnist-dir", "engine", "precision", "depth-sweep", "classes", "digit-pairs", "verify",
        "coordinator", "processes", "process-id",
    )  # fmt: skip
    for option in names:
        assert f"--{option} " in ended.out
    assert ended.out.count("(default: ") == len(names)


@pytest.mark.slow
def test_import_does_nothing():
    """Importing the scripts loads no slow packages, sets no signal handler, and prints nothing."""
    scripts = ", ".join(sorted(path.stem for path in ROOT.glob("*.py")))
    program = f"""if True:
        import signal, sys

        def state():
            handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
            return handlers, sys.stdout, sys.stderr

        before = state()
        import {scripts}
        slow = {{"jax", "tensorflow", "tensorflow_datasets"}}
        print(state() == before, sorted(slow & sys.modules.keys()))
    """
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout == "True []\n" and ended.stderr == "", ended.stderr
