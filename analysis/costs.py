"""What a prediction costs, as emulation.py found it: quantum queries beside classical operations.

A trial's cost is the mean over its patterns of the mean over its test images; trials have geometric
means everywhere, as their costs differ by factors. Unless a function says otherwise: calibrated
threshold, k* divided by the training matrix's largest off-diagonal entry, all queries, and every
side stops as soon as the sign is clear.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import scipy.stats
import xarray as xr
from xarray import DataArray, Dataset

from analysis import tables
from analysis.experiments import Experiment
from analysis.growth import TAIL, Means, trial_values
from runtime.results import is_computed

KNOWN = {
    "approximation": "sparsified",
    "threshold": "calibrated",
    "divisor": "training set",
    "kind": "all",
    "effort": "sequential",
}
UNITS = {"shots": "shots", "uses": "amplitude estimation's uses", "reads": "sampler's reads"}
CLASSICAL = ["all entries", "sampler", "conjugate gradients anew", "Cholesky anew"]
ENDLESS = 1e3  # instead of an infinite logarithm: more than any other


def known_costs(emulation: Dataset, **chosen: str) -> Dataset:
    """Costs of a prediction [n, trial, ...] at the labels `KNOWN`, but for those that are chosen.

    Queries with K̃ [solver, encoding, readout] and of its diagonal [readout], operations [method];
    NaN at sizes that a trial lacks, or where a solver does not apply to every matrix. A solver of
    degree 0 for every matrix prepares |y>, the diagonal's state, and costs what the diagonal does.
    """
    at = emulation.sel(KNOWN | chosen)
    costs = at[["cost", "cost_without_solver", "operations_classical"]]
    costs = costs.mean("pattern", skipna=False)
    known = costs.notnull() | ~is_computed(at)
    costs = costs.where(known.all("trial"))
    degree = at.uses.where(is_computed(at), 0)
    needs_entries = (degree != 0).any(["n", "trial", "pattern"])
    return costs.assign(cost=costs.cost.where(needs_entries, costs.cost_without_solver))


def geometric(values: DataArray) -> Means:
    """Geometric means of positive values [n, trial, ...] over trials; their spread is pooled.

    One trial with a heavy tail would dominate the arithmetic mean.
    """
    with np.errstate(all="ignore"):  # endless ways, free ones, and a single trial
        logs = xr.ufuncs.log(trial_values(values))
        trials = logs.notnull().sum("trial")
        centre = logs.mean("trial")
        freedom = (trials - 1).clip(0).sum()
        deviation = np.sqrt(((logs - centre) ** 2).sum() / freedom)
        half = scipy.stats.t.isf(TAIL / 2, freedom) * deviation / np.sqrt(trials)
        bounds = np.exp([centre, centre - half, centre + half])
    return Means(values.n.values, *bounds)


def cheapest(costs: DataArray) -> DataArray:
    """The way [n, trial] that is cheapest as a geometric mean over sizes, and known at all.

    Of ways that are endless at some sizes, one that is at the fewest.
    """
    axes = [axis for axis in costs.dims if axis not in ("n", "trial")]
    ways = costs.stack(way=axes)
    levels = xr.ufuncs.log(ways).mean("trial").clip(max=ENDLESS).mean("n", skipna=False)
    best = levels.argmin("way")  # a ValueError where none is known at every size
    return ways.isel(way=best).drop_vars(["way", *axes])


def six_ways(emulation: Dataset, **chosen: str) -> dict[str, DataArray]:
    """The best quantum ways and the classical ones [n, trial], by name."""
    costs = known_costs(emulation, **chosen)
    ways = {
        "quantum, sparsified": cheapest(costs.cost),
        "quantum, diagonal": cheapest(costs.cost_without_solver),
    }
    for method in CLASSICAL:
        ways[f"classical, {method}"] = costs.operations_classical.sel({"method": method})
    return ways


def crossing(costs: DataArray, rival: DataArray) -> str:
    """From where on costs [n, trial] stay below a rival's, at measured sizes, as a clause."""
    n = costs.n.values
    dearer = n[~(geometric(costs).mean < geometric(rival).mean)]
    if not dearer.size:
        return "at every n"
    last = dearer[-1]
    later = n[n > last]
    return f"between n = {last} and {later[0]}" if later.size else f"at no n up to {last}"


def cells(values: DataArray) -> list[str]:
    """Geometric means, with the factor of their intervals where there is one: 2,551 ×÷ 1.20."""
    texts = []
    for mean, _, high in geometric(values).rows:
        factor = high / mean if 0 < mean < np.inf else 1
        ending = f" ×÷ {factor:.2f}" if 1.005 < factor < np.inf else ""
        texts.append(tables.number(mean) + ending)
    return texts


def before_and_after(emulation: Dataset) -> dict[str, list[str]]:
    """9,839 → 3,316: what fixed effort takes, and stopping as soon as the sign is clear."""
    cells: dict[str, list[Any]] = defaultdict(list)  # of each effort
    for effort in ("fixed", "sequential"):
        ways = six_ways(emulation, effort=effort)
        for way in ("sparsified", "diagonal"):
            level = geometric(ways[f"quantum, {way}"]).mean
            cells[f"queries, {way}"].append(map(tables.number, level))
        at = emulation.sel(KNOWN | {"effort": effort})[["needed", "accuracy_kept"]]
        at = at.mean("pattern", skipna=False)
        for unit, name in UNITS.items():
            level = geometric(at.needed.sel(unit=unit)).mean
            cells[name].append(map(tables.number, level))
            kept = at.accuracy_kept.sel(unit=unit).mean("trial")
            cells[f"{name}: accuracy kept"].append(tables.written(kept, ".3f"))
    rows = {}
    for name, both in cells.items():
        rows[name] = [" → ".join(pair) for pair in zip(*both, strict=True)]
    return rows


def assumed(emulation: Dataset) -> dict[str, float]:
    """What the assumptions hide, at the largest n: means over trials and patterns."""
    last = emulation.isel(n=-1).sel(KNOWN | {"encoding": "I + E"})
    values = {
        "writes": last.qram_writes,
        "entries": last.sparsity,
        "bits_matrix": last.bits_matrix.max(),
        "bits_test": last.bits_test.max(),
        "calibration": last.calibration_queries_without_solver.min("readout"),
        "drawn": last.accuracy_noiseless - last.accuracy_drawn,
        "kappa": last.cost_kappa_doubled,
        "norm": last.cost_norm_unknown,
        "fixed_point": last.cost_fixed_point,
        "unbalanced": last.accuracy_noiseless - last.accuracy_unbalanced,
    }
    return {name: value.mean().item() for name, value in values.items()}


def cost(experiment: Experiment) -> dict[str, Any]:
    """The six ways, from where on they are cheaper, what stopping saves, and what is assumed."""
    emulation = experiment.kinds["emulation"]
    ways = six_ways(emulation)
    begins: dict[str, list[str]] = {}
    for name in ("diagonal", "sparsified"):
        own = ways[f"quantum, {name}"]
        rivals = ways["classical, all entries"], ways["classical, sampler"]
        begins[name] = [crossing(own, rival) for rival in rivals]
    rows = {name: cells(values) for name, values in ways.items()}
    return {
        "table": tables.by_size(emulation.n, rows),
        "efforts": tables.by_size(emulation.n, before_and_after(emulation)),
        "begins": begins,
        "assumed": assumed(emulation),
        "short": experiment.short.lower(),
    }
