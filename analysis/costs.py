"""What a prediction costs, as emulation.py found it: quantum queries beside classical operations.

A trial's cost is the mean over its patterns of the mean over its test images. Unless a function
says otherwise: threshold at the test median, k* divided by the training matrix's largest
off-diagonal entry, all queries.
"""

from typing import Any

import numpy as np
from xarray import DataArray, Dataset

from analysis import tables
from analysis.experiments import Experiment
from runtime.results import is_computed

KNOWN = {
    "threshold": "test median",
    "divisor": "training set",
    "kind": "all",
    "statistic": "mean",
}


def known_sizes(values: DataArray, emulation: Dataset) -> DataArray:
    """Values [n, trial, ...], NaN at the sizes where one of the trials has none."""
    known = values.notnull() | ~is_computed(emulation)
    return values.where(known.all("trial"))


def diagonal_costs(emulation: Dataset, divisor: str = KNOWN["divisor"]) -> DataArray:
    """Queries of a diagonal prediction [n, trial, readout]."""
    costs = emulation.cost_without_solver.sel(KNOWN | {"divisor": divisor})
    return known_sizes(costs, emulation)


def quantum_costs(emulation: Dataset) -> DataArray:
    """Queries of a sparsified prediction [n, trial, solver, encoding, readout].

    NaN at sizes where a solver does not apply to every matrix. A solver of degree 0 for every
    matrix prepares |y>, the diagonal's state, and costs what the diagonal algorithm does.
    """
    costs = emulation.cost.sel(KNOWN).mean("pattern", skipna=False)
    costs = known_sizes(costs, emulation)
    degree = emulation.uses.where(is_computed(emulation), 0)
    needs_entries = (degree != 0).any(["n", "trial", "pattern", "threshold"])
    return costs.where(needs_entries, diagonal_costs(emulation))


def classical_costs(emulation: Dataset) -> DataArray:
    """Operations of a sparsified prediction, classically [n, trial, method]."""
    at = {"approximation": "sparsified", "threshold": KNOWN["threshold"]}
    costs = emulation.operations_classical.sel(at)
    return known_sizes(costs.mean("pattern", skipna=False), emulation)


def cheapest(costs: DataArray) -> DataArray:
    """The way [n, trial] that is cheapest as a geometric mean over sizes, and known at all."""
    best, least = costs, np.inf
    for way in tables.columns_of(costs).values():
        level = np.mean(np.log(way.mean("trial").values))
        if level < least:
            best, least = way, level
    return best


def cost(experiment: Experiment) -> dict[str, Any]:
    """Costs of all ways."""
    emulation = experiment.kinds["emulation"]
    costs = {
        "": quantum_costs(emulation),
        "diagonal, ": diagonal_costs(emulation),
        "classical, ": classical_costs(emulation),
    }
    rows = {}
    for start, ways in costs.items():
        for name, values in tables.columns_of(ways).items():
            rows[start + name] = tables.mean_cells(values)
    return {"table": tables.by_size(emulation.n.values, rows)}
