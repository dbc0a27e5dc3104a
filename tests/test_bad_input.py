"""Bad input, through the real command line: one line that names the option, the value and the remedy; nothing lost."""

import gzip
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, complaint, free_port

import training

QUICK = ("--dataset", "digits", "--networks", "fully-connected")


@pytest.mark.parametrize(
    "arguments, words",
    [
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
    ],
)
def test_arguments(script, tmp_path, arguments, words):
    """Refused before anything is imported, read or written."""
    result = script("--output", tmp_path / "output", *arguments.split(), timeout=30)
    line = complaint(result)
    assert re.search(words, line), line
    assert result.stdout == "" and not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    "edit, words",
    [
        ("trials = [16, 8]", r"data_sizes = \[16, .*\] and trials = \[16, 8\]: give each size its trials"),
        ("trials = [0] * 6", "--trials 0 0 0 0 0 0: nothing to do"),
        ("data_sizes = [15, 32, 64, 128, 256, 512]", "--data-sizes 15: use even numbers"),
        ("test_size = 255", "--test-size 255: use an even number"),
        ("seed = -3", "--seed -3: use 0 or more"),
    ],
)
def test_edited_constants(edit, words):
    """What people edit instead of giving flags is checked as well."""
    program = f"import sys, training; training.{edit}; sys.exit(training.main([]))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert re.search(words, complaint(result))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("--data-sizes 16 500 --trials 1 1", "--data-sizes 500: digits fills 178; use that or less"),
        ("--data-sizes 16 --test-size 180", "--test-size 180: digits fills 164; use that or less"),
    ],
)
def test_more_than_the_dataset_holds(script, tmp_path, arguments, words):
    line = complaint(script(*QUICK, "--output", tmp_path, *arguments.split()))
    assert words in line
    assert not list(tmp_path.glob("*.np*"))


def test_default_test_size_is_reduced(script, tmp_path):
    """Nobody asked for 256: digits' 164 do, with a note."""
    result = script(*QUICK, "--output", tmp_path, "--data-sizes", 4, "--trials", 1)
    assert result.returncode == 0 and "fills 164 test images, not 256" in result.stdout


def write_mnist(folder, damage):
    """A folder with files of MNIST's names; damage(path) is done to the first one that is read."""
    for name in training.MNIST_FILES:
        (folder / name).write_bytes(gzip.compress(b"no image"))
    damage(folder / "train-images-idx3-ubyte.gz")


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda path: shutil.rmtree(path.parent), "can't read train-images-idx3-ubyte.gz .No such file.*must hold"),
        (lambda path: [p.unlink() for p in path.parent.iterdir()], "can't read train-images.*must hold"),
        (lambda path: path.unlink(), "can't read train-images-idx3-ubyte.gz"),
        (lambda path: path.write_bytes(path.read_bytes()[:15]), "train-images-idx3-ubyte.gz is corrupted .15 bytes"),
        (lambda path: path.write_bytes(b""), "train-images-idx3-ubyte.gz is not a gzip file"),
        (lambda path: path.write_bytes(b"PK\3\4 and so on"), "train-images-idx3-ubyte.gz is not a gzip file"),
        (lambda path: None, "train-images-idx3-ubyte.gz is corrupted .28 bytes.*download it again"),
    ],
)
@pytest.mark.parametrize("option", ["--mnist-dir", "MNIST_DIR"])
def test_mnist_folder(script, tmp_path, damage, words, option):
    folder = tmp_path / "mnist"
    folder.mkdir()
    write_mnist(folder, damage)
    arguments, environment = ("--mnist-dir", folder), {}
    if option == "MNIST_DIR":
        arguments, environment = (), {"MNIST_DIR": str(folder)}
    line = complaint(script(*arguments, "--output", tmp_path / "output", environment=environment))
    assert re.search(f"{option} {folder}: {words}", line), line


def test_output_is_a_file(script, tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = complaint(script(*QUICK, "--output", tmp_path / "file"))
    assert f"--output {tmp_path / 'file'}: is a file; name a folder" in line
    line = complaint(script(*QUICK, "--output", tmp_path / "file" / "below"))
    assert f"--output {tmp_path / 'file' / 'below'}: can't write" in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_output_is_not_writable(script, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere but here
        folder = "/proc/1/task"
    line = complaint(script(*QUICK, "--output", folder))
    assert re.search(f"--output {folder}: can't write run.lock .*; make room or name another folder", line)


def test_no_gpu(script, tmp_path):
    if training.has_accelerator():
        pytest.skip("there is a GPU")
    line = complaint(script(*QUICK, "--engine", "gpu", "--output", tmp_path / "output"))
    assert "--engine gpu: JAX finds no GPU or TPU; install requirements-gpu.txt, or use --engine numba" in line
    line = complaint(script(*QUICK, "--output", tmp_path / "output", environment={"JAX_PLATFORMS": "cuda"}))
    assert "JAX_PLATFORMS cuda: " in line and "use cpu" in line


def test_no_coordinator():
    """With less patience than the script's own."""
    program = "import sys, kernels, training; kernels.patience = 2; sys.exit(training.main(sys.argv[1:]))"
    where = f"127.0.0.1:{free_port()}"
    result = subprocess.run(
        [sys.executable, "-c", program, "--coordinator", where, "--processes", "2", "--process-id", "1"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    line = complaint(result)
    assert f"--coordinator {where}: no answer for 2 s (Connection refused); start process 0 there" in line
