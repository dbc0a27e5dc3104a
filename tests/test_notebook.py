"""The notebook: as it is committed, and in a real kernel on tiny results."""

import os
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from conftest import ROOT

NOTEBOOK = nbformat.read(ROOT / "analysis.ipynb", 4)


def execute(tmp_path, output):
    """Execute a copy of the notebook on `output`; returns what it printed, and how many figures it shows."""
    executed = tmp_path / "executed.ipynb"
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", str(executed)]
    # No MNIST there: nothing is downloaded.
    environment = os.environ | {"KERNEL_OUTPUT": str(output), "MNIST_DIR": str(tmp_path)}
    result = subprocess.run(
        [*command, str(ROOT / "analysis.ipynb")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    outputs = [o for c in nbformat.read(executed, 4).cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    texts = [o.get("text", "") + o.get("data", {}).get("text/markdown", "") for o in outputs]
    return "\n".join(texts), sum("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.slow
def test_notebook_on_tiny_digits(tmp_path, undisturbed):
    """Both networks, one size with two trials and one with one, nothing but what training.py wrote."""
    output = tmp_path / "output"
    shutil.copytree(undisturbed, output)
    text, pictures = execute(tmp_path, output)
    assert text.count("NOT OF MNIST") == 2 and "NOT MNIST" in text
    assert "python training.py --depth-sweep makes it" in text and "python controls.py makes it" in text
    names = {p.name for p in (output / "figures").glob("*.png")}
    for network in ("fully-connected", "convolutional"):
        assert {f"digits-{network}_{what}.png" for what in ("accuracy", "kernels", "images", "sounder")} <= names
    assert "digits-overview.png" in names and len(names) == pictures == 19


@pytest.mark.slow
def test_notebook_on_committed_results_beside_digits(tmp_path, undisturbed):
    """After a run on the stand-in digits: MNIST's committed results, and a line that says so. One network only."""
    output = tmp_path / "output"
    output.mkdir()
    parts = ("results", "baselines", "digit_pairs")
    committed = [ROOT / "kernel_output" / f"fully-connected_{part}.npz" for part in parts]
    for path in (*committed, *undisturbed.glob("digits-fully-connected_*")):
        shutil.copy(path, output)
    np.savez(output / "fully-connected_emulation.npz", data_sizes=[16], trials=[1])  # of another version
    text, pictures = execute(tmp_path, output)
    assert 'dataset = "digits"' in text and "NOT MNIST" not in text and "NOT OF MNIST" not in text
    assert "no results of the convolutional network" in text
    assert "another version" in text or "an older version" in text
    assert "- Threshold median: nearest neighbour is better than the exact NTK at n = 64" in text
    assert "- 8 and 9 among all pairs: " in text and "All 45 pairs; trials of each: 4 of n = 16" in text
    assert "| plan | 16 to 512 |" in text
    assert pictures == 10 and (output / "figures" / "overview.png").exists()


def test_cells_are_short_and_explained():
    """Cells of a few lines, each under Markdown that begins with a heading; no outputs of another state."""
    kinds = [cell.cell_type for cell in NOTEBOOK.cells]
    assert all(pair == ("markdown", "code") for pair in zip(kinds[::2], kinds[1::2], strict=True))
    for cell in NOTEBOOK.cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 8
        else:
            assert cell.source.startswith("#")


def test_every_figure_is_in_the_notebook():
    """What figures.py draws is shown."""
    import figures

    source = "\n".join(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code")
    drawn = [name for name, f in vars(figures).items() if hasattr(f, "__wrapped__")]
    assert len(drawn) > 15
    assert [name for name in drawn if f"figures.{name}" not in source] == []
