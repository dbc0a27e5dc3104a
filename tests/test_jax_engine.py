"""The jax engine.

Its layers against library functions, devices and processes, memory, and XLA's input for a GPU.
"""

import os
import subprocess
import sys

import gpu_plan
import jax
import jax.export
import numpy as np
import pytest
from conftest import ROOT, free_port, relative_error

from ntk import convolutional_ntk, fully_connected_ntk, jax_engine

PROGRAM = """
import sys, jax, numpy as np
if len(sys.argv) > 2:
    jax.distributed.initialize(sys.argv[2], 2, int(sys.argv[3]))
import ntk
x = np.load(sys.argv[1] + "/images.npy")
found = {"convolutional": ntk.convolutional_ntk(x, depth=6, engine="jax")}
found["fully_connected"] = ntk.fully_connected_ntk(x.reshape(len(x), -1), depth=10, engine="jax")
name = f"{jax.device_count()} devices of {jax.process_count()}, {jax.process_index()}"
np.savez(f"{sys.argv[1]}/{name}.npz", **found)
"""


def some_images(n, size=16):
    """Smooth images of unit norm, the last two alike, [n, size, size, 1]."""
    x = np.random.default_rng(0).normal(size=(n, size, size, 1))
    x += np.roll(x, 1, axis=1) + np.roll(x, 1, axis=2)
    x[-1] = x[-2]
    return x / np.sqrt(np.sum(x**2, axis=(1, 2, 3), keepdims=True))


@pytest.mark.slow
@pytest.mark.parametrize("devices, processes", [(2, 1), (1, 2)])
def test_devices_and_processes(devices, processes, tmp_path):
    """Every process gets what this one computes, to rounding, on `devices` CPU devices in each of the processes."""
    x = some_images(4)
    np.save(tmp_path / "images.npy", x)
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    coordinator = f"127.0.0.1:{free_port()}"
    ranks = [[]] if processes == 1 else [[coordinator, str(rank)] for rank in range(processes)]
    started = [
        subprocess.Popen(command + rank, env=environment, stderr=subprocess.PIPE) for rank in ranks
    ]
    for process in started:
        assert process.wait(timeout=120) == 0, process.stderr.read().decode()[-2000:]
    expected = convolutional_ntk(x, depth=6, engine="jax")
    dense = fully_connected_ntk(x.reshape(4, -1), depth=10, engine="jax")
    for rank in range(processes):
        found = np.load(tmp_path / f"{devices * processes} devices of {processes}, {rank}.npz")
        assert relative_error(found["convolutional"], expected) < 1e-14
        assert relative_error(found["fully_connected"], dense) < 1e-14


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_relu(precision):
    """A layer against arctan2 in extended precision, exact at c = 1, zero where nothing varies."""
    eps = np.finfo(precision).eps
    c = np.concatenate([np.linspace(-1, 1, 20001), 1 - np.geomspace(16 * eps, 1e-2, 1000)]).astype(
        precision
    )
    s, t = (
        np.dtype(precision).type(3),
        np.random.default_rng(0).normal(size=len(c)).astype(precision),
    )
    relu = jax.jit(lambda k, t, w, inverse: jax_engine.relu(k, t, w, inverse, False, precision))
    with jax.enable_x64(True):
        a, b = map(np.asarray, relu(s * c, t, np.full_like(c, s), np.full_like(c, 1 / s)))
        zero = relu(t, t, np.zeros_like(t), np.zeros_like(t))
    exact = np.longdouble(s * c) / s
    pi = 4 * np.arctan(np.longdouble(1))
    e = np.maximum(1 - np.abs(exact), 0)
    sine = np.sqrt(e * (2 - e))  # arccos would lose half of the digits where long double is double
    kappa0 = 1 - np.arctan2(sine, exact) / pi
    expected = s * (sine / pi + exact * kappa0) / 8
    near = np.abs(np.float64(exact)) < 1 - 64 * eps  # elsewhere the rounding of c itself counts
    assert np.abs(a - expected)[near].max() < 2 * eps * s
    assert np.abs(b - (kappa0 * t / 8 + expected))[near].max() < 4 * np.sqrt(eps) * np.abs(t).max()
    alike = c == 1
    assert alike.any() and (a[alike] == s / 8).all() and (b[alike] == t[alike] / 8 + s / 8).all()
    assert (a[c == -1] == 0).all() and (b[c == -1] == 0).all()
    assert not np.any(zero[0]) and not np.any(zero[1])


@pytest.mark.slow
def test_dense_layers_in_one_kernel():
    """Some layers of the fully-connected network at once, as on a GPU, and the rest of them one by one."""
    k = np.random.default_rng(0).uniform(-0.9, 0.9, size=(6, 8))
    tables = np.full((64, 6), 0.5), np.full((64, 8), 0.6)
    with jax.enable_x64(True):
        for depth in (0, 1, 7, 8, 21):
            expected, found = (
                np.array(jax_engine.dense_program(n)(k, *tables, depth)) for n in (1, 8)
            )
            assert relative_error(found, expected) < 1e-13


@pytest.mark.slow
def test_as_many_pairs_as_fit():
    """The largest odd number for which the program's memory, here 1000 bytes a pair and some, is within the limit."""
    for limit, expected in [
        (1e9, 511),
        (516_000, 511),
        (515_999, 509),
        (100_000, 95),
        (6500, 1),
        (10, 1),
    ]:
        pairs = jax_engine.largest_fitting(limit, lambda pairs: 1000 * pairs + 5000)
        assert pairs % 2 and expected - 4 <= pairs <= expected
    one, three = (jax_engine.cone_memory(16, 16, "float64", True, pairs) for pairs in (1, 3))
    entries = len(jax_engine.plane_line(16, 15)) ** 2
    # A and B twice, for every pair.
    assert one > 2 * 2 * 8 * entries and 2.5 * one < three < 3.5 * one


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_lowers_for_gpus(precision):
    """Without a GPU at hand: XLA's input for one can be made, of both networks."""
    pairs, shape = 3 * jax.device_count(), jax.ShapeDtypeStruct
    with jax.enable_x64(True):
        arrays = [shape((2, pairs, size, size), precision) for size in (28, 28, 14, 7)]
        for own in (False, True):
            cone = jax_engine.cone_function(28, 28, precision, False, own)
            exported = jax.export.export(cone, platforms=["cuda"])(
                arrays, np.int64(16), shape((), precision)
            )
            assert exported.platforms == ("cuda",) and len(exported.out_avals) == (4 if own else 2)
        k, *tables = shape((pairs, 16), float), shape((64, pairs), float), shape((64, 16), float)
        exported = jax.export.export(jax_engine.dense_program(8), platforms=["cuda"])(
            k, *tables, np.int64(5)
        )
        assert exported.platforms == ("cuda",) and exported.out_avals[0].shape == k.shape


@pytest.mark.skipif(not gpu_plan.available(), reason="JAX's CUDA plugin is not installed")
def test_plan_for_a_gpu():
    """Compiled for an H200.

    One large kernel a layer, about four passes over the state, few launches.
    """
    for precision, gigabytes in [("float64", 0.52), ("float32", 0.26)]:
        plan = gpu_plan.in_process("convolutional", precision)
        assert plan["bytes"] < gigabytes * 1e9 and plan["launches"] <= 450
        assert plan["large_kernels"] == 96 and plan["roots"] == 1 and plan["divisions"] == 0
    plan = gpu_plan.in_process("fully-connected")
    assert plan["bytes"] < 500 and plan["launches"] < 100 and plan["divisions"] == 0
    assert gpu_plan.layers_of_a_kernel == plan["roots"] == jax_engine.layers_at_once


def check_callers_configuration(compute):
    """The same bits, whatever JAX's variables say; and they say it afterwards too."""
    expected = compute()
    for enabled in (True, False):
        with jax.enable_x64(enabled):
            assert np.array_equal(compute(), expected)
            assert jax.numpy.ones(1).dtype == (np.float64 if enabled else np.float32)
    with jax.numpy_rank_promotion("raise"), jax.disable_jit(True), jax.transfer_guard("disallow"):
        for program in (jax_engine.dense_program, jax_engine.cone_program, jax_engine.take_program):
            program.cache_clear()
        assert np.array_equal(compute(), expected)
        assert jax.config.jax_numpy_rank_promotion == "raise" and jax.config.jax_disable_jit


def test_the_callers_configuration_does_not_matter():
    x = some_images(2).reshape(2, -1)
    check_callers_configuration(lambda: fully_connected_ntk(x, depth=3, engine="jax"))


@pytest.mark.slow
def test_the_callers_configuration_does_not_matter_for_convolutions():
    x = some_images(2)
    check_callers_configuration(lambda: convolutional_ntk(x, depth=3, engine="jax"))
