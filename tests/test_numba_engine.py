"""The numba engine: its dual activation, threads, compilation, and CPUs with narrower registers."""

import math
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from conftest import ROOT, relative_error
from kernel_images import flat_images, small_images

from ntk import convolutional_ntk, fully_connected_ntk, numba_engine
from ntk.numba_vectors import load, splat, store


@numba.njit
def relu_of_correlations(c, a, b, constants):
    """A/8 and B/8 [m] after the engine's ReLU, from correlations c [m] with s = s' = 1 and T = 1."""
    v, lanes, zero = splat(constants), numba_engine.lanes_of(c), len(c)
    rows = np.concatenate((c, np.zeros_like(c)))
    table = np.ones(2 * lanes, c.dtype)
    table[:lanes] /= math.sqrt(8 * math.pi)  # s and 1/s as the engine has them
    for i in range(0, len(c), lanes):
        row = 0, zero, zero, -i, -i  # between rows of zeros; all pixels have the same entries of the tables
        found = numba_engine.correlation(rows, row, i, table, table, v, True)
        found = numba_engine.slope(*numba_engine.sine(*found, v[2], v), v, True)
        new_a, new_b = numba_engine.relu(*found, load(table, lanes))
        store(a, i, new_a)
        store(b, i, new_b)


def check_relu(precision):
    """Compare with NumPy in extended precision over [-1, 1], near 1 and at it; return the largest errors of A and B."""
    rng = np.random.default_rng(0)
    c = np.concatenate([rng.uniform(-1, 1, 4096), 1 - 10.0 ** rng.uniform(-15, 0, 4096), np.ones(16), -np.ones(16)])
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
    assert (a[one] == 1 / 8).all() and (b[one] == 1 / 4).all()  # kappa0(1) = 1 without a rounding error
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
            found.append([convolutional_ntk(x, depth=6, engine="numba", precision=precision), dense])
    finally:
        numba.set_num_threads(before)
    assert all(np.array_equal(one, other) for one, other in zip(found[0], found[-1], strict=True))


@pytest.mark.slow
def test_without_fma_and_wide_registers(tmp_path):
    """On any x86-64: right, and the slope at correlation 1 still exactly 1.

    Compiled in a process of its own, for the registers of such a CPU; `is_compiled` says so before and after.
    """
    program = (
        "import sys, numpy, ntk.numba_engine, test_numba_engine as t, kernel_images as k\n"
        "print(ntk.numba_engine.is_compiled('convolutional', 'float64'))\n"
        "print(ntk.numba_engine.is_compiled('fully-connected', 'float64'))\n"
        "x = numpy.concatenate([k.small_images(8), k.small_images(2), 1e-3 * k.small_images(2)])\n"
        "numpy.save(sys.argv[1] + '/kernel.npy', ntk.convolutional_ntk(x, depth=6, engine='numba'))\n"
        "dense = ntk.fully_connected_ntk(x.reshape(len(x), -1), depth=30, engine='numba')\n"
        "numpy.save(sys.argv[1] + '/dense.npy', dense)\n"
        "print(ntk.numba_engine.is_compiled('fully-connected', 'float64'))\n"
        "print(ntk.numba_engine.is_compiled('convolutional', 'float64'), max(t.check_relu('float64')))\n"
    )
    environment = os.environ | {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *compiled, error = result.stdout.split()
    assert compiled == ["False", "False", "True", "True"]
    assert float(error) < 6 * np.finfo(float).eps
    x = np.concatenate([small_images(8), small_images(2), 1e-3 * small_images(2)])
    dense = fully_connected_ntk(x.reshape(len(x), -1), depth=30, engine="numba")
    assert relative_error(np.load(tmp_path / "dense.npy")[:8, :8], dense[:8, :8]) < 1e-13
    expected = convolutional_ntk(x, depth=6, engine="numba")
    off = ~np.eye(len(x), dtype=bool)
    found = np.load(tmp_path / "kernel.npy")
    assert relative_error(found[:8, :8], expected[:8, :8]) < 1e-13
    assert relative_error(found[off], expected[off]) < 1e-7  # images alike: rounding decides half of the digits


def test_is_compiled():
    convolutional_ntk(small_images(1), depth=3, engine="numba")
    fully_connected_ntk(flat_images(2), depth=3)
    assert numba_engine.is_compiled("convolutional", "float64")
    assert numba_engine.is_compiled("fully-connected", "float64")
