"""The command line: what is refused, in one line that names the option, the value and the remedy; nothing is lost."""

import os
import re
import subprocess
import sys

import pytest
from conftest import QUICK, ROOT, call, complaint, end, free_port, run_script, start, succeed

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
    ("--data-sizes 16 32 --trials 1", "--trials 1: use one number, 0 or more, for each of 2 sizes"),
    ("--data-sizes 16 --trials -1", "--trials -1: use one number, 0 or more"),
    ("--data-sizes 16 --trials some", "--trials: some: use whole numbers"),
    ("--trials 0 0 0 0 0 0", "--trials 0 0 0 0 0 0: nothing to do; use at least one"),
    ("--test-size 7", "--test-size 7: use an even number"),
    ("--test-size 0", "--test-size 0: use an even number"),
    ("--seed -1", "--seed -1: use 0 or more"),
    ("--seed pi", "--seed: pi: use whole numbers"),
    ("--digits 3", "--digits: expected 2 arguments"),
    ("--digits 3 3", "--digits 3 3: use two different ones of 0 to 9"),
    ("--digits 3 10", "--digits 3 10: use two different ones"),
    ("--digits 3 5 --digit-pairs", "--digits 3 5: --digit-pairs takes all"),
    ("--depth-sweep --digit-pairs", "--depth-sweep --digit-pairs: use one of them at a time"),
    ("--verify --depth-sweep", "--depth-sweep --verify: use one of them at a time"),
    ("--networks recurrent", "--networks: invalid choice: 'recurrent' .*fully-connected"),
    ("--engine abacus", "--engine: invalid choice: 'abacus' .*numba"),
    ("--precision float16", "--precision: invalid choice: 'float16' .*float32"),
    ("--dataset cifar10", "--dataset: invalid choice: 'cifar10' .*digits"),
    ("--width 512", "unrecognized arguments: --width 512; see --help"),
    ("--coordinator 127.0.0.1:99", "--coordinator 127.0.0.1:99: use .*--processes.* together"),
    ("--processes 2", "--processes 2: use --coordinator.* together"),
    ("--coordinator here --processes 2 --process-id 0", "--coordinator here: use HOST:PORT"),
    ("--coordinator h:99999 --processes 2 --process-id 0", "--coordinator h:99999: use HOST:PORT"),
    ("--coordinator h:99 --processes 0 --process-id 0", "--processes 0: use 1 or more"),
    ("--coordinator h:99 --processes 2 --process-id 2", "--process-id 2: use 0 to 1"),
]


@pytest.mark.parametrize("arguments, words", WRONG, ids=[arguments for arguments, _ in WRONG])
def test_wrong_arguments_are_refused_before_anything_is_read_or_written(tmp_path, arguments, words):
    ended = call("--output", tmp_path / "output", *arguments.split())
    assert re.search(words, complaint(ended)), ended.err
    assert ended.out == "" and not (tmp_path / "output").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--data-sizes", "15"], "--data-sizes 15: use even numbers"),
        (["--engine", "abacus"], "--engine: invalid choice: 'abacus'"),
        (["--mnist-dir", "/nowhere"], "--mnist-dir /nowhere: can't be read (No such file"),
    ],
)
def test_wrong_arguments_through_the_real_command_line(tmp_path, arguments, words):
    ended = run_script("--output", tmp_path / "output", *arguments)
    assert words in complaint(ended)


def test_an_empty_output_is_refused(tmp_path, monkeypatch):
    """It would be the folder that the run was started in."""
    monkeypatch.chdir(tmp_path)
    assert "--output: '': name a folder" in complaint(call(*QUICK, "--output", ""))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("trials", [16, 8], r"data_sizes = \[16, .*\] and trials = \[16, 8\]: give each size its trials"),
        ("trials", [0] * 6, "--trials 0 0 0 0 0 0: nothing to do"),
        ("data_sizes", [15, 32, 64, 128, 256, 512], "--data-sizes 15: use even numbers"),
        ("test_size", 255, "--test-size 255: use an even number"),
        ("seed", -3, "--seed -3: use 0 or more"),
    ],
)
def test_edited_constants_are_checked_like_flags(monkeypatch, name, value, words):
    monkeypatch.setattr(training, name, value)
    assert re.search(words, complaint(call()))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("--data-sizes 16 500 --trials 1 1", "--data-sizes 500: digits fills 178; use that or less"),
        ("--data-sizes 16 --trials 1 --test-size 180", "--test-size 180: digits fills 164; use that or less"),
    ],
)
def test_more_than_the_dataset_holds_is_refused(tmp_path, arguments, words):
    assert words in complaint(call(*QUICK[:2], *QUICK[-2:], "--output", tmp_path, *arguments.split()))
    assert not list(tmp_path.glob("*.np*"))


def test_the_default_test_size_is_reduced_with_a_note(tmp_path):
    """Nobody asked for 256: digits' 164 do."""
    out = succeed("--dataset", "digits", *QUICK[-2:], "--output", tmp_path, "--data-sizes", 4, "--trials", 1)
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
        folder = "/proc/1/task"
    line = complaint(call(*QUICK, "--output", folder))
    assert re.search(f"--output {folder}: can't write run.lock .*; make room or name another folder", line)


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
    line = complaint(end(start(*QUICK, "--output", tmp_path, environment={"JAX_PLATFORMS": "cuda"})))
    assert "JAX_PLATFORMS cuda: " in line and "use cpu" in line


@pytest.mark.slow
def test_a_coordinator_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(processes, "answer_seconds", 0.6)
    where = f"127.0.0.1:{free_port()}"
    line = complaint(call("--coordinator", where, "--processes", "2", "--process-id", "1"))
    assert f"--coordinator {where}: no answer for 0.6 s (Connection refused); start process 0 there" in line


def test_help_names_every_option_and_default(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    ended = call("--help")
    assert ended.status == 0
    options = (
        "networks", "data-sizes", "trials", "test-size", "seed", "output", "dataset", "mnist-dir", "engine",
        "precision", "depth-sweep", "digits", "digit-pairs", "verify", "coordinator", "processes", "process-id",
    )  # fmt: skip
    for option in options:
        assert f"--{option} " in ended.out
    assert ended.out.count("(default: ") == len(options)


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_end_the_run(tmp_path):
    """As in `python training.py | head -1`: the pipe is closed after the first line."""
    process = start(*QUICK, "--output", tmp_path)
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 0 and errors == ""
    assert (tmp_path / "digits-fully-connected_results.npz").exists()


@pytest.mark.slow
def test_import_does_nothing():
    """Importing the scripts loads none of the slow packages, sets no signal handler, and prints nothing."""
    scripts = ", ".join(sorted(path.stem for path in ROOT.glob("*.py")))
    program = f"""if True:
        import signal, sys
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.stdout, sys.stderr
        import {scripts}
        after = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.stdout, sys.stderr
        print(before == after, [m for m in ("jax", "tensorflow", "tensorflow_datasets") if m in sys.modules])
    """
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout == "True []\n" and ended.stderr == "", ended.stderr
