"""What the tests share: datasets, the script in this process and in others, and what it wrote."""

import atexit
import contextlib
import functools
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

# What XLA compiles is kept for the next session, as Numba's code is beside the sources.
KEPT = ROOT / ".pytest_cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(KEPT / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import training  # noqa: E402
from runtime import checkpoints, datasets, options, results, sitting  # noqa: E402

SHALLOW = 3  # convolutions, where the depth is not what is tested
DRAWS = 10  # patterns that are drawn for their sparsity alone
TINY = ("--dataset", "digits", "--data-sizes", "4", "16", "--trials", "2", "1", "--test-size", "4")
QUICK = (*TINY, "--networks", "fully-connected")
Ended = namedtuple("Ended", "status out err")


# ---- data ----


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits in MNIST's format: always there."""
    return load_once("digits")


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
    return load_once("mnist", mnist_dir=request.getfixturevalue("mnist_dir"))


@pytest.fixture
def images(digits):
    """Six standardised images of two digits, [6, 28, 28, 1]."""
    return training.draw_images(digits.train, (1, 0), 3, False, np.random.default_rng(3))[0]


# ---- the script in this process ----


def call(*arguments, depth=SHALLOW, script=training):
    """training.main in this process: its status and what it printed.

    depth: of the convolutional network; None leaves all constants as they are. script: training.py,
    or a changed copy of it.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        if depth is not None:
            patch.setattr(script, "convolutional_depth", depth)
            patch.setattr(script, "sweep_depths", [depth, 2 * depth])
            patch.setattr(script, "pattern_draws", DRAWS)
        # To measure it takes longer than all the rest.
        patch.setattr(sitting, "seconds_per_layer", lambda run: 1e-4)
        patch.setattr(options, "load_images", load_once)
        patch.setattr(sys, "argv", ["training.py", *map(str, arguments)])
        try:
            status = script.main(sys.argv[1:])
        except SystemExit as error:
            status = error.code
    return Ended(status, out.getvalue(), err.getvalue())


def load_once(dataset, data_dir=None, mnist_dir=None):
    """load_images, remembered where the environment has no say; no run changes the answer."""
    folder = data_dir or mnist_dir
    load = remembered if dataset == "digits" or folder else datasets.load_images
    return load(dataset, data_dir and str(data_dir), mnist_dir and str(mnist_dir))


remembered = functools.cache(datasets.load_images)


def succeed(*arguments, **how):
    """What a run of the script in this process printed; it has to succeed."""
    ended = call(*arguments, **how)
    assert ended.status == 0, ended
    return ended.out


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Folder of a tiny shallow run of both networks that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    succeed(*TINY, "--output", folder)
    return folder


def contents(folder):
    """Everything that has its final name, by name: bytes, of results a checksum without times."""
    found = {path.name: path.read_bytes() for path in folder.glob("*.npy")}
    for path in folder.glob("*.nc"):
        timeless = results.read_results(path).drop_vars("finished", errors="ignore")
        found[path.name] = results.checksum(timeless)
    return found


def check_what_is_there(folder, undisturbed):
    """What has its final name is what an undisturbed run wrote; results may lack some trials."""
    for path in folder.glob("*.npy"):
        assert path.read_bytes() == (undisturbed / path.name).read_bytes(), path.name
    for path in folder.glob("*.nc"):
        found = results.read_results(path).drop_vars("finished", errors="ignore")
        expected = results.read_results(undisturbed / path.name)
        assert found.attrs["origin"] == expected.attrs["origin"]
        for name, values in found.data_vars.items():
            known = values.notnull() & (values != "")
            there = expected[name].reindex_like(values)
            assert (values == there).where(known, True).all(), (path.name, name)
            assert known.any() or there.isnull().all(), (path.name, name)


# ---- the script in processes of its own ----


def start(*arguments, prelude="", environment=None, depth=SHALLOW, fresh=os.name == "nt"):
    """training.py as a process of its own, after `prelude`.

    depth: of the convolutional network. environment: added to this process's; what is None in it
    is removed. fresh: whether the process does its own imports; else it is forked after them.
    """
    lines = [
        "import sys, training",
        "from runtime import options, sitting, streams",
        f"training.convolutional_depth = {depth}",
        f"training.pattern_draws = {DRAWS}",
        "sitting.seconds_per_layer = lambda run: 1e-4",
        prelude,
        "streams.run_script(training.main)",
    ]
    argv = ["training.py", *map(str, arguments)]
    if not fresh:
        return Forked("\n".join(lines), argv, with_variables(environment))
    lines.insert(0, "import sys; sys.argv[0] = 'training.py'")
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines), *argv[1:]],
        env=with_variables(environment),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def with_variables(environment):
    """The variables here without MNIST_DIR, with these; those that are None are removed."""
    variables = {k: v for k, v in os.environ.items() if k != "MNIST_DIR"} | (environment or {})
    return {k: v for k, v in variables.items() if v is not None}


@functools.cache
def forks():
    """The process that runs are forked from."""
    command = [sys.executable, str(ROOT / "tests" / "forks.py")]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=with_variables({})
    )
    atexit.register(server.communicate, "")
    return server


class Forked:
    """A process forked by forks.py, which is used like a subprocess.Popen."""

    def __init__(self, program, argv, environment):
        self.folder = tempfile.TemporaryDirectory()
        self.outputs = [Path(self.folder.name, name) for name in ("out", "err")]
        order = {"start": program, "argv": argv, "environment": environment}
        self.returncode = None
        self.pid = self.ask(order | dict(zip(("out", "err"), map(str, self.outputs), strict=True)))

    @staticmethod
    def ask(order):
        server = forks()
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    def poll(self):
        if self.returncode is None:
            answer = self.ask({"poll": self.pid})
            self.returncode = None if answer == "running" else answer
        return self.returncode

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("training.py", timeout)
            time.sleep(0.01)
        return self.returncode

    def communicate(self, timeout):
        self.wait(timeout)
        texts = [path.read_text(encoding="utf-8") for path in self.outputs]
        self.folder.cleanup()
        return texts

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def end(process, seconds=120):
    """Wait for a process."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return Ended(process.returncode, out, err)


def run_script(*arguments, environment=None):
    """training.py as people run it: its status and what it printed."""
    command = [sys.executable, str(ROOT / "training.py"), *map(str, arguments)]
    how = dict(env=with_variables(environment), capture_output=True, text=True, timeout=300)
    ended = subprocess.run(command, **how)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def complaint(ended):
    """The one line on stderr of a run that was refused."""
    assert ended.status == 2, ended
    lines = ended.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("training.py: error: "), ended.err
    return lines[0]


def wait_until(condition, seconds=60):
    """Poll until condition() is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


# ---- files that are changed ----


def flip(path, position, bit):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def relabel(path, **changes):
    """Change what a kernel file says that it was computed from, the checksum with it."""
    label = json.loads(path.read_bytes().splitlines()[-1]) | changes
    del label["sha256"]
    checkpoints.write_kernel(path, np.load(path), label)


def swap_trials(folder, first, second):
    """Exchange the kernels of two trials, named by what their files begin with."""
    for name in ("kernel_train", "kernel_test"):
        paths = folder / f"{first}_{name}.npy", folder / f"{second}_{name}.npy"
        contents = [path.read_bytes() for path in paths]
        for path, content in zip(paths, reversed(contents), strict=True):
            path.write_bytes(content)


# ---- matrices ----


def off_diagonal(kernel):
    """The off-diagonal entries of a square matrix."""
    return kernel[~np.eye(len(kernel), dtype=bool)]


def relative_error(found, expected):
    """Largest relative difference between two arrays."""
    return float(np.max(np.abs(found / expected - 1)))
