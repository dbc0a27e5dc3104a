"""What the tests share: the script as a module, the datasets, the slow twin, a way to run the command line."""

import os
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
        variables = {k: v for k, v in os.environ.items() if k != "MNIST_DIR"} | (environment or {})
        variables = {k: v for k, v in variables.items() if v is not None}
        command = [sys.executable, str(ROOT / "training.py"), *map(str, arguments)]
        return subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )

    return run


def off_diagonal(kernel):
    """The off-diagonal entries of a square matrix."""
    return kernel[~np.eye(len(kernel), dtype=bool)]


def relative_error(found, expected):
    """Largest relative difference between two arrays."""
    return float(np.max(np.abs(found / expected - 1)))
