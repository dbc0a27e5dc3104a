"""One prediction as gates: the section of RESULTS.md on what circuit.py found."""

import json
from pathlib import Path

import numpy as np

from analysis import tables

COUNTS = {
    "qubits": "qubits_circuit", "degree": "degree_emulated", "queries to K~": "queries_oracle_circuit",
    "to y": "queries_labels_circuit", "to k*": "queries_QRAM_circuit", "gates": "gates", "cx": "gates_cx",
    "depth": "depth",
}  # fmt: skip
PROBABILITIES = {"p": "p", "P": "P", "o": "overlap"}


def section(folder: Path) -> str:
    """Gates, depth, queries, and how far the circuit is from the emulation; "" where circuit.py has not run."""
    rows, ending = [], "_circuit.npz"
    for prefix in tables.prefixes(folder, ending):
        arrays = tables.load(folder / f"{prefix}{ending}")
        n = arrays["data_sizes"][0]
        for i, algorithm in enumerate(json.loads(str(arrays["origin"]))["axes"]["algorithms"]):
            found = {name: np.ravel(value[0, 0])[i] for name, value in arrays.items() if np.shape(value)[2:] == (2,)}
            away = max(abs(found[f"{name}_circuit"] - found[f"{name}_emulated"]) for name in PROBABILITIES.values())
            kinds = ("oracle", "labels", "QRAM")
            same = all(found[f"queries_{kind}_circuit"] == found[f"queries_{kind}_emulated"] for kind in kinds)
            counts = [f"{found[name]:,.0f}" for name in COUNTS.values()]
            values = [f"{found[f'{name}_circuit']:.4f}" for name in PROBABILITIES.values()]
            agree = "yes" if same else "no"
            rows.append([tables.title_of(prefix), f"{n}", algorithm, *counts, *values, f"{away:.0e}", agree])
    if not rows:
        return ""
    heading = ["network", "n", "algorithm", *COUNTS, *PROBABILITIES, "largest difference from the emulation"]
    heading.append("as many queries as there?")
    return f"""\
## One prediction as a circuit

`python circuit.py` built it and ran it on a state vector: one test image, k* divided by the test block's largest entry,
QSVT for the sparsified algorithm. Gates are cx, rz, sx and x. A controlled rotation by an entry of K~ counts as the two
queries that computing and uncomputing that entry take.

{tables.table(heading, rows)}"""
