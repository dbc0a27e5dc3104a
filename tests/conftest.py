"""What the tests share: the script as a module, the datasets, the slow twin, a way to run the command line."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

import training  # noqa: E402


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits in MNIST's format: always there."""
    return training.load_data("digits")


@pytest.fixture(scope="session")
def mnist_dir():
    """Folder of the four IDX files; a test that asks for it is skipped without MNIST_DIR."""
    folder = os.environ.get("MNIST_DIR")
    if not folder:
        pytest.skip("MNIST_DIR is not set")
    return Path(folder).resolve()


@pytest.fixture(scope="session", params=["digits", "mnist"])
def real_data(request):
    """Each dataset in turn, MNIST where MNIST_DIR is set."""
    if request.param == "digits":
        return request.getfixturevalue("digits")
    return training.load_data("mnist", request.getfixturevalue("mnist_dir"))


@pytest.fixture
def images(digits):
    """Six standardised images of two digits, [6, 28, 28, 1]."""
    return training.process_data(digits["train"], (1, 0), 3, False, np.random.default_rng(3))[0]


@pytest.fixture(scope="session")
def script():
    """Run training.py with arguments; `environment` is added to the environment, None values removed from it."""

    def run(*arguments, environment=None, timeout=300):
        with start(*arguments, environment=environment) as process:
            try:
                printed, errors = process.communicate(timeout=timeout)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, printed, errors)

    return run


def start(*arguments, environment=None):
    """training.py as a process of its own; `environment` as for `script`."""
    variables = {k: v for k, v in os.environ.items() if k != "MNIST_DIR"} | (environment or {})
    variables = {k: v for k, v in variables.items() if v is not None}
    command = [sys.executable, str(ROOT / "training.py"), *map(str, arguments)]
    pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, env=variables, **pipes)


def complaint(result):
    """The one line on stderr of a run that was refused."""
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("training.py: error: "), result.stderr
    return lines[0]


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def off_diagonal(kernel):
    """The off-diagonal entries of a square matrix."""
    return kernel[~np.eye(len(kernel), dtype=bool)]


def relative_error(found, expected):
    """Largest relative difference between two arrays."""
    return float(np.max(np.abs(found / expected - 1)))
