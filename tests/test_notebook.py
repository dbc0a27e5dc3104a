"""The notebook: as it is committed, and in a real kernel on made-up results."""

import base64
import copy
import os
from pathlib import Path

import nbclient
import nbformat
import pytest
from test_figures import write_made_up

ROOT = Path(__file__).parent.parent
NOTEBOOK = nbformat.read(ROOT / "analysis.ipynb", 4)
SECTIONS = [
    "1. The question", "2. Data and kernels", "3. Two approximations",
    "4. Accuracy, fully connected", "5. Accuracy, convolutional", "6. Condition number",
    r"7. Preparing k\*", "8. Reading the answer",
    "9. The theorem and real networks", "10. How fast does it grow", "11. Could it have failed",
    "12. What a prediction costs", "What is not known",
]  # fmt: skip


def outputs_of(notebook):
    """The text of all outputs, and their number of pictures."""
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    texts = [o.get("text", "") + o.get("data", {}).get("text/markdown", "") for o in outputs]
    return "\n".join(texts), sum("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(tmp_path):
    """On made-up digits: everything of one network, of the other what training.py writes."""
    output = tmp_path / "output"
    output.mkdir()
    digits = dict(dataset_name="digits")
    write_made_up(output, "digits-convolutional", "convolutional", classes=(1, 0), **digits)
    write_made_up(output, "digits-fully-connected", "fully-connected", "results", **digits)
    settings = tmp_path / "matplotlibrc"
    settings.write_text("text.usetex: True\n")
    environment = os.environ | {"KERNEL_OUTPUT": str(output), "MATPLOTLIBRC": str(settings)}
    executed = copy.deepcopy(NOTEBOOK)
    client = nbclient.NotebookClient(executed, resources={"metadata": {"path": str(ROOT)}})
    client.execute(env=environment)
    text, pictures = outputs_of(executed)
    assert pictures == 12 == len({*(output / "figures").glob("digits-*.png")})
    assert "NO RESULTS OF mnist: THESE ARE OF" in text
    for kind in ("depth_sweep", "emulation"):
        assert f"digits-fully-connected_{kind}.nc is not in" in text
    title = "- Convolutional, digits 0 and 1 of scikit-learn's 8x8 digits, NOT MNIST:"
    assert text.count(title) == 11  # one of twelve is about the other network alone


def test_every_section_is_a_question_a_figure_and_an_answer():
    markdown = [cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown"]
    code = [cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code"]
    assert [text.splitlines()[0].removeprefix("## ") for text in markdown[1:]] == SECTIONS
    assert all("?" in text for text in markdown[1:-1])
    assert all(cell.count("show(") == cell.count("draw.") == 1 for cell in code[1:])
    assert 'dataset = "mnist"' in code[0]
    assert max(len(text.splitlines()) for text in [*markdown[1:], *code]) <= 8


def test_the_committed_notebook_is_executed_and_small():
    """Its pictures are those in kernel_output/figures/, which README shows."""
    text, pictures = outputs_of(NOTEBOOK)
    assert pictures == 12 and "note:" not in text
    assert text.count("- Convolutional, digits 0 and 1:") == 11
    assert (ROOT / "analysis.ipynb").stat().st_size < 1_500_000
    for cell in NOTEBOOK.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                path = ROOT / "kernel_output" / "figures" / f"{data['text/plain']}.png"
                assert base64.b64decode(data["image/png"]) == path.read_bytes(), path.name
