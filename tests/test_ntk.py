"""The package ntk as its callers see it: its example, what it imports, its errors, its engines."""

import doctest
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from kernel_images import flat_images, small_images

import ntk
from ntk import arguments


def test_example():
    assert doctest.testmod(ntk, raise_on_error=True).attempted >= 4


def test_alone():
    """Importing it waits for no engine, and for nothing of this repository."""
    heavy = ("jax", "numba", "tensorflow", "neural_tangents", "scipy", "training", "runtime")
    program = f"import sys, ntk; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_bad_input_names_the_argument():
    with pytest.raises(ntk.BadInput) as caught:
        ntk.fully_connected_ntk(flat_images(2), depth=-1)
    error = caught.value
    assert (error.argument, error.value) == ("depth", -1)
    assert str(error) == f"depth -1: {error.remedy}"


@pytest.mark.parametrize(
    "arguments, name, words",
    [
        ({"x1": np.ones((2, 28, 28))}, "x1", "shape"),
        ({"x1": np.ones((2, 28, 28, 3))}, "x1", "height"),
        ({"x1": np.ones((2, 12, 28, 1))}, "x1", "16 to 31"),
        ({"x1": np.ones((2, 28, 28, 1), int)}, "x1", "dtype int64"),
        ({"x1": np.full((2, 28, 28, 1), np.nan)}, "x1", "NaN"),
        ({"x1": np.ones((2, 28, 28, 1)), "x2": np.ones((2, 16, 16, 1))}, "x2", "one size"),
        ({"x1": np.ones((2, 28, 28, 1)), "x2": np.ones((0, 28, 28, 1))}, "x2", "shape"),
        ({"x1": np.ones((2, 28, 28, 1)), "depth": 95}, "depth", "multiple of 3"),
        ({"x1": np.ones((2, 28, 28, 1)), "depth": 0}, "depth", "multiple of 3"),
        ({"x1": np.ones((2, 28, 28, 1)), "engine": "abacus"}, "engine", "abacus"),
        ({"x1": np.ones((2, 28, 28, 1)), "precision": "float16"}, "precision", "float16"),
    ],
)
def test_convolutional_rejects(arguments, name, words):
    with pytest.raises(ntk.BadInput, match=words) as caught:
        ntk.convolutional_ntk(**arguments)
    assert caught.value.argument == name


@pytest.mark.parametrize(
    "arguments, name, words",
    [
        ({"x1": np.ones((2, 28, 28, 1)), "depth": 3}, "x1", "shape"),
        ({"x1": np.ones((2, 784), complex), "depth": 3}, "x1", "dtype complex128"),
        ({"x1": np.full((2, 784), np.inf), "depth": 3}, "x1", "infinite"),
        ({"x1": np.ones((2, 784)), "x2": np.ones((2, 256)), "depth": 3}, "x2", "one size"),
        ({"x1": np.ones((2, 784)), "depth": -1}, "depth", "depth -1"),
        ({"x1": np.ones((2, 784)), "depth": 1.5}, "depth", "whole number"),
        ({"x1": np.ones((2, 784)), "depth": 3, "engine": "abacus"}, "engine", "abacus"),
    ],
)
def test_fully_connected_rejects(arguments, name, words):
    with pytest.raises(ntk.BadInput, match=words) as caught:
        ntk.fully_connected_ntk(**arguments)
    assert caught.value.argument == name


@pytest.mark.slow
def test_gpu_means_jax_for_both_networks(monkeypatch):
    """Where there is a GPU; here a CPU device is taken for one."""
    from ntk import jax_engine

    used = []
    monkeypatch.setattr(arguments, "has_accelerator", lambda: True)
    monkeypatch.setitem(sys.modules, "ntk.numba_engine", None)
    for name in ("dense_layers", "JaxCone"):
        original = getattr(jax_engine, name)
        monkeypatch.setattr(jax_engine, name, lambda *a, f=original, n=name: used.append(n) or f(*a))
    assert ntk.fully_connected_ntk(flat_images(6), depth=3, engine="gpu").shape == (6, 6)
    assert ntk.convolutional_ntk(small_images(2), depth=3, engine="gpu").shape == (2, 2)
    assert ntk.convolutional_ntk(small_images(2), depth=3, engine="auto").shape == (2, 2)
    assert used == ["dense_layers", "JaxCone", "JaxCone"]


def test_without_an_accelerator(monkeypatch):
    monkeypatch.setattr(arguments, "has_accelerator", lambda: False)
    assert ntk.choose_engine("auto") == "numba"
    with pytest.raises(ntk.BadInput, match="engine gpu: JAX finds no GPU or TPU"):
        ntk.choose_engine("gpu")


def test_without_the_oracle(monkeypatch):
    """As on Python 3.14, where neural-tangents can't be installed: one line, no traceback."""
    monkeypatch.setitem(sys.modules, "neural_tangents", None)
    with pytest.raises(ntk.BadInput, match="engine neural-tangents: not installed"):
        ntk.convolutional_ntk(small_images(2), depth=3, engine="neural-tangents")
