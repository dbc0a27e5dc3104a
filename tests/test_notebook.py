"""The notebook in a real kernel, on tiny results."""

import os
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT


def execute(tmp_path, output):
    """Execute a copy of the notebook on `output`; returns the text it printed."""
    executed = tmp_path / "executed.ipynb"
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", str(executed)]
    environment = {k: v for k, v in os.environ.items() if k != "MNIST_DIR"} | {"KERNEL_OUTPUT": str(output)}
    result = subprocess.run(
        [*command, str(ROOT / "analysis.ipynb")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    outputs = [o for c in nbformat.read(executed, 4).cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    return "".join(o.get("text", "") for o in outputs), sum("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.parametrize("networks", [("fully-connected", "convolutional"), ("fully-connected",)])
def test_notebook_on_tiny_results(tmp_path, script, networks):
    """Digits, sizes with one trial and with none, and a network that is not there."""
    output = tmp_path / "output"
    arguments = ("--data-sizes", 4, 16, 8, "--trials", 2, 1, 0, "--test-size", 6, "--networks", *networks)
    result = script("--dataset", "digits", "--output", output, *arguments)
    assert result.returncode == 0, result.stderr
    text, pictures = execute(tmp_path, output)
    assert "NOT MNIST" in text.upper()
    assert pictures >= 5 * len(networks)
    names = {p.name for p in (output / "figures").glob("*.png")}
    for network in networks:
        assert {f"digits-{network}_{what}.png" for what in ("accuracy", "sparsity")} <= names
