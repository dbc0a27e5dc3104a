"""The section of RESULTS.md on the circuit."""

import numpy as np
import pytest

from analysis import circuits


@pytest.fixture
def folder(tmp_path):
    names = ["gates", "gates_cx", "depth", "qubits_circuit", "degree_emulated"]
    names += [f"{q}_{e}" for q in ("p", "P", "overlap", "queries_oracle", "queries_labels", "queries_QRAM")
              for e in ("circuit", "emulated")]  # fmt: skip
    arrays = {name: np.array([[[0.5, 1234.0]]]) for name in names}
    arrays["overlap_emulated"] = np.array([[[0.5, 1234.25]]])
    arrays["queries_QRAM_emulated"] = np.array([[[0.5, 1.0]]])
    origin = np.array('{"axes": {"algorithms": ["diagonal", "sparsified"]}}')
    np.savez(tmp_path / "convolutional_circuit.npz", data_sizes=np.array([16]), origin=origin, **arrays)
    return tmp_path


def test_section(folder):
    text = circuits.section(folder)
    diagonal, sparsified = (line for line in text.splitlines() if "diagonal |" in line or "sparsified |" in line)
    assert diagonal.endswith("| 0e+00 | yes |") and sparsified.endswith("| 2e-01 | no |")
    assert "| 1,234 |" in sparsified and len({line.count("|") for line in text.splitlines() if "|" in line}) == 1


def test_nothing_to_tell(tmp_path):
    assert circuits.section(tmp_path) == ""
