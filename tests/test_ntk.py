"""The package ntk as its callers see it: its example, what it imports, its errors, its engines."""

import ast
import doctest
import graphlib
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
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_imports_make_no_circle():
    """Neither at the top of a file nor in a function."""
    names = {path.stem for path in (ROOT / "ntk").glob("*.py")}
    graph = {name: set() for name in names}
    for name in names:
        for node in ast.walk(ast.parse((ROOT / "ntk" / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "ntk":
                graph[name].add(node.module.partition(".")[2] or "__init__")
    assert graph["fully_connected"] >= {"formulas", "numba_engine", "jax_engine", "oracle"}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


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


class Unreadable:
    """An object that calls itself an array and is none."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("on another device")


def kernels(images, **arguments):
    """Both kernels of images, those of shape [2, 256] as [2, 16, 16, 1] too; at depth 3."""
    arguments = {"depth": 3, "engine": "numba"} | arguments
    flat = getattr(images, "shape", None) == (2, 256)
    pictures = images.reshape(2, 16, 16, 1) if flat else images
    precision = arguments.pop("precision", "float64")
    yield lambda: ntk.fully_connected_ntk(images, **arguments)
    yield lambda: ntk.convolutional_ntk(pictures, precision=precision, **arguments)


@pytest.mark.parametrize(
    "images, words",
    [
        (np.ma.masked_greater(flat_images(2), 0.1), "masked values"),
        ([np.ma.masked_greater(flat_images(1)[0], 0.1), np.ones(256)], "masked values"),
        (flat_images(2).astype(object), "dtype object"),
        (flat_images(2).astype(str), "dtype <U"),
        (flat_images(2).astype(np.float16), "dtype float16"),
        (np.ones((2, 256), np.uint8), "dtype uint8"),
        (np.ones((2, 256), bool), "dtype bool"),
        (np.ones((2, 256), "M8[s]"), "dtype datetime64"),
        (np.zeros(2, "f8, f8"), "dtype "),
        (np.float64(1), "shape \\(\\)"),
        ([], "shape"),
        ([[1.0, 2.0], [3.0]], "type list"),
        ({1.0, 2.0}, "dtype object"),
        ((x for x in [1.0]), "dtype object"),
        (None, "dtype object"),
        (Unreadable(), "type Unreadable"),
    ],
    ids=str,
)
def test_refuses_what_is_no_image(images, words):
    for compute in kernels(images):
        with pytest.raises(ntk.BadInput, match=words) as caught:
            compute()
        assert caught.value.argument == "x1" and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["depth", "engine", "precision"])
@pytest.mark.parametrize(
    "value",
    ["3", [3], {}, None, 3.0, True, -3, 10**30, np.array([3, 3]), np.nan, np.arange(99), object()],
    ids=repr,
)
def test_refuses_other_values(name, value):
    """Of any type, in one line that names the argument."""
    for compute in list(kernels(flat_images(2), **{name: value}))[name == "precision" :]:
        with pytest.raises(ntk.BadInput) as caught:
            compute()
        assert caught.value.argument == name
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 150


def test_takes_every_array_of_numbers():
    """Byte order, memory order, strides, class, and what may be written make no difference."""
    x = flat_images(2).astype(np.float32)
    expected = [compute() for compute in kernels(x)]
    apart = np.zeros((4, 512))
    apart[::2, ::-2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    swapped = x.astype(">f8"), x.astype(">f4")
    for other in (*swapped, np.asfortranarray(x), apart[::2, ::-2], frozen, np.ma.array(x)):
        computed = [compute() for compute in kernels(other)]
        assert np.array_equal(computed, expected)
    for other in (x.view(np.matrix), x.tolist(), tuple(map(tuple, x.tolist()))):
        assert np.array_equal(ntk.fully_connected_ntk(other, depth=np.int8(3)), expected[0])
    lists = x.reshape(2, 16, 16, 1).tolist()
    assert np.array_equal(ntk.convolutional_ntk(lists, depth=np.int8(3)), expected[1])


@pytest.mark.parametrize(
    "name, value",
    [
        ("NUMBA_DISABLE_JIT", "1"),
        ("NUMBA_NUM_THREADS", "0"),
        ("NUMBA_NUM_THREADS", "-1"),
        ("NUMBA_NUM_THREADS", "2.5"),
        ("NUMBA_NUM_THREADS", ""),
        ("NUMBA_NUM_THREADS", "9" * 30),
    ],
)
def test_variables_that_keep_numba_from_working(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(arguments, "has_accelerator", lambda: False)
    for engine in ("numba", "auto"):
        for compute in kernels(flat_images(2), engine=engine):
            with pytest.raises(ntk.BadInput, match="unset it") as caught:
                compute()
            assert caught.value.argument == name and caught.value.value == value
    assert ntk.choose_engine("jax") == "jax"


@pytest.mark.slow
def test_gpu_means_jax_for_both_networks(monkeypatch):
    """Where there is a GPU; here a CPU device is taken for one."""
    from ntk import jax_engine

    used = []
    monkeypatch.setattr(arguments, "has_accelerator", lambda: True)
    monkeypatch.setitem(sys.modules, "ntk.numba_engine", None)
    for name in ("dense_layers", "JaxCone"):
        original = getattr(jax_engine, name)
        monkeypatch.setattr(
            jax_engine, name, lambda *a, f=original, n=name: used.append(n) or f(*a)
        )
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
