"""The numba engine: its dual activation, threads, compilation, and CPUs with narrower registers."""

import errno
import io
import math
import os
import subprocess
import sys

import numba
import numba.core.caching
import numpy as np
import pytest
from conftest import KEPT, ROOT, relative_error
from kernel_images import flat_images, small_images

from ntk import convolutional_ntk, fully_connected_ntk, numba_cache, numba_engine
from ntk.numba_vectors import load, splat, store


@numba_cache.cached
@numba.njit
def relu_of_correlations(c, a, b, constants):
    """A/8 and B/8 [m] after the engine's ReLU, from correlations c [m] with s = s' = 1 and T = 1."""
    v, lanes, zero = splat(constants), numba_engine.lanes_of(c), len(c)
    rows = np.concatenate((c, np.zeros_like(c)))
    table = np.ones(2 * lanes, c.dtype)
    table[:lanes] /= math.sqrt(8 * math.pi)  # s and 1/s as the engine has them
    for i in range(0, len(c), lanes):
        # Between rows of zeros; all pixels have the same entries of the tables.
        row = (
            0,
            zero,
            zero,
            -i,
            -i,
        )
        found = numba_engine.correlation(rows, row, i, table, table, v, True)
        found = numba_engine.slope(*numba_engine.sine(*found, v[2], v), v, True)
        new_a, new_b = numba_engine.relu(*found, load(table, lanes))
        store(a, i, new_a)
        store(b, i, new_b)


def check_relu(precision):
    """Compare with NumPy in extended precision over [-1, 1], near 1 and at it.

    Return the largest errors of A and B.
    """
    rng = np.random.default_rng(0)
    c = np.concatenate(
        [rng.uniform(-1, 1, 4096), 1 - 10.0 ** rng.uniform(-15, 0, 4096), np.ones(16), -np.ones(16)]
    )
    c = c.astype(precision)
    a, b = np.empty((2, len(c)), precision)
    constants = numba_engine.NumbaCone(np.zeros((1, 16, 16), precision), [], 1).constants
    relu_of_correlations(c, a, b, constants)
    exact = np.longdouble(c)
    pi = 4 * np.arctan(np.longdouble(1))
    e = np.where(1 - np.abs(exact) < constants[2], 0, 1 - np.abs(exact))
    sine, cosine = np.sqrt(e * (2 - e)), np.copysign(1 - e, exact)
    kappa0 = 1 - np.arctan2(sine, cosine) / pi
    kappa1 = sine / pi + exact * kappa0
    one = np.flatnonzero(c == 1)
    assert (a[one] == 1 / 8).all() and (
        b[one] == 1 / 4
    ).all()  # kappa0(1) = 1 without a rounding error
    return np.max(np.abs(8 * a - kappa1)), np.max(np.abs(8 * b - kappa0 - kappa1))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_relu(precision):
    errors = check_relu(precision)
    assert max(errors) < 6 * np.finfo(precision).eps, errors


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_threads(precision):
    """The same bits on every number of threads."""
    x = small_images(20)
    before = numba.get_num_threads()
    found = []
    try:
        for threads in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
            numba.set_num_threads(threads)
            dense = fully_connected_ntk(flat_images(301), depth=6, engine="numba")
            found.append(
                [convolutional_ntk(x, depth=6, engine="numba", precision=precision), dense]
            )
    finally:
        numba.set_num_threads(before)
    assert all(np.array_equal(one, other) for one, other in zip(found[0], found[-1], strict=True))


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_lanes_are_known_when_compiling(precision):
    """So that the inner loops divide by nothing at run time."""
    array = np.zeros(3, precision)
    function = numba.njit(lambda array: numba_engine.lanes_of(array))
    assert function(array) == numba_engine.lanes_of(array)
    assert "div " not in next(iter(function.inspect_llvm().values()))


GENERIC = """
import sys
import numba, numpy
import kernel_images, test_numba_engine
from ntk import convolutional_ntk, fully_connected_ntk, numba_cache, numba_engine

def compiled():
    return [numba_engine.is_compiled(name, "float64") for name in ("convolutional", "fully-connected")]

before = compiled()
numba.config.CACHE_DIR = sys.argv[2]
for function in (numba_engine.cone, numba_engine.dense, test_numba_engine.relu_of_correlations):
    numba_cache.cached(function)
x = numpy.load(sys.argv[1] + "/images.npy")
numpy.save(sys.argv[1] + "/kernel.npy", convolutional_ntk(x, depth=6, engine="numba"))
dense = fully_connected_ntk(x.reshape(len(x), -1), depth=30, engine="numba")
numpy.save(sys.argv[1] + "/dense.npy", dense)
print(*before, *compiled(), max(test_numba_engine.check_relu("float64")))
"""


@pytest.mark.slow
def test_without_fma_and_wide_registers(tmp_path):
    """On any x86-64: right, and the slope at correlation 1 still exactly 1.

    In a process of its own, compiled for the registers of such a CPU, and kept for the next
    session. `is_compiled` says so, and does not take this CPU's code for the other one's.
    """
    x = np.concatenate([small_images(8), small_images(2), 1e-3 * small_images(2)])
    np.save(tmp_path / "images.npy", x)
    convolutional_ntk(x[:1], depth=6, engine="numba")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    own = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "PYTHONPATH": path}
    command = [sys.executable, "-c", GENERIC, str(tmp_path), str(KEPT / "numba")]
    result = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
    *compiled, error = result.stdout.split()
    assert compiled == ["False", "False", "True", "True"], result.stderr
    assert float(error) < 6 * np.finfo(float).eps
    dense = fully_connected_ntk(x.reshape(len(x), -1), depth=30, engine="numba")
    assert relative_error(np.load(tmp_path / "dense.npy")[:8, :8], dense[:8, :8]) < 1e-13
    expected = convolutional_ntk(x, depth=6, engine="numba")
    off = ~np.eye(len(x), dtype=bool)
    found = np.load(tmp_path / "kernel.npy")
    assert relative_error(found[:8, :8], expected[:8, :8]) < 1e-13
    # Images alike: rounding decides half of the digits.
    assert relative_error(found[off], expected[off]) < 1e-7


def test_is_compiled():
    convolutional_ntk(small_images(1), depth=3, engine="numba")
    fully_connected_ntk(flat_images(2), depth=3)
    assert numba_engine.is_compiled("convolutional", "float64")
    assert numba_engine.is_compiled("fully-connected", "float64")


# ---- what Numba keeps for the next process ----


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder that Numba writes to."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    numba_cache.say_once.cache_clear()
    return tmp_path


def twice(x):
    return 2 * x


def compile_in_a_new_process():
    """A function with a cache like the engine's, and as little in memory as in a new process."""
    function = numba_cache.cached(numba.njit(twice))
    assert function(21) == 42
    return function


def hits(function):
    return sum(function.stats.cache_hits.values())


def test_damaged_files_are_compiled_again(cache):
    """Cut short, emptied, with a bit flipped: deleted, and replaced for the next process."""
    assert hits(compile_in_a_new_process()) == 0 and hits(compile_in_a_new_process()) == 1
    for suffix in ("nbi", "nbc"):
        (path,) = cache.rglob(f"*.{suffix}")
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        for damaged in (b"", whole[:100], whole[:-1], bytes(flipped)):
            path.write_bytes(damaged)
            assert hits(compile_in_a_new_process()) == 0 and hits(compile_in_a_new_process()) == 1
        path.unlink()
        path.mkdir()  # can neither be read nor be deleted
        compile_in_a_new_process()
        path.rmdir()
        compile_in_a_new_process()


def test_nowhere_to_keep_compiled_code(cache, monkeypatch, capsys):
    """The function is compiled and works; one line says so, on stderr where that is open."""
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    functions = [compile_in_a_new_process(), compile_in_a_new_process()]
    assert [hits(function) for function in functions] == [0, 0] and not list(cache.iterdir())
    signature, target = functions[0].signatures[0], functions[0].targetctx
    assert functions[0]._cache.load_overload(signature, target) is None  # which is_compiled asks
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert "set NUMBA_CACHE_DIR to a folder" in printed.err
    for closed in (None, io.StringIO()):
        numba_cache.say_once.cache_clear()
        monkeypatch.setattr(sys, "stderr", closed)
        if closed:
            closed.close()
        compile_in_a_new_process()


def test_a_full_disk_for_compiled_code(cache, monkeypatch, capsys):
    def refuse(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "_open_for_write", refuse)
    assert [hits(compile_in_a_new_process()) for _ in range(2)] == [0, 0]
    assert capsys.readouterr().err.count("\n") == 1


def test_changed_sources_are_compiled_again(cache, monkeypatch):
    """Those too whose functions are compiled into others'."""
    sources = numba_cache.SOURCES
    assert {"numba_engine.py", "numba_vectors.py", "formulas.py"} < set(sources)
    for some in (sources, sources[1:]):
        monkeypatch.setattr(numba_cache, "SOURCES", some)
        assert hits(compile_in_a_new_process()) == 0 and hits(compile_in_a_new_process()) == 1


@pytest.mark.slow
def test_engine_without_a_cache():
    """In a process of its own, whose cache may go to /dev/null/x alone."""
    program = (
        "import numba.core.caching as c\n"
        "c.CacheImpl._locator_classes = [c.UserProvidedCacheLocator]\n"
        "from ntk import numba_engine; print(numba_engine.is_compiled('convolutional', 'float64'))"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": "/dev/null/x"}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    (line,) = ended.stderr.splitlines()
    assert ended.stdout == "False\n" and line.startswith("note: compiled code can't be kept")


def test_without_a_threading_layer(monkeypatch):
    """Of Numba's, such as one that NUMBA_THREADING_LAYER asks for in vain: it is not needed."""

    def refuse():
        raise ValueError("No threading layer could be loaded.")

    expected = fully_connected_ntk(flat_images(5), depth=3, engine="numba")
    monkeypatch.setattr(numba, "get_num_threads", refuse)
    assert np.array_equal(fully_connected_ntk(flat_images(5), depth=3, engine="numba"), expected)


def test_without_compiling_nothing_is_compiled(monkeypatch):
    """With NUMBA_DISABLE_JIT, which only the engine jax can do with."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert not numba_engine.is_compiled("convolutional", "float64")
    assert numba_cache.cached(twice) is twice
