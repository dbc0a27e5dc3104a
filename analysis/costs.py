"""What a prediction costs, as emulation.py found it: quantum queries beside classical operations.

A trial's cost is the mean over its patterns of the mean over its test images; trials have geometric
means everywhere, as their costs differ by factors. Unless a function says otherwise: calibrated
threshold, k* divided by the training matrix's largest off-diagonal entry, all queries, and every
side stops as soon as the sign is clear.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats
import xarray as xr
from numpy.typing import NDArray
from xarray import DataArray, Dataset

from analysis import tables
from analysis.experiments import Experiment
from analysis.growth import TAIL, Means
from runtime.results import is_computed

Array = NDArray[np.float64]

KNOWN = {"threshold": "calibrated", "divisor": "training set", "kind": "all"}
EFFORTS = ["fixed", "sequential"]
UNITS = {"shots": "shots", "uses": "amplitude estimation's uses", "reads": "sampler's reads"}
CLASSICAL = ["all entries", "sampler", "conjugate gradients anew", "Cholesky anew"]


def known_sizes(values: DataArray, emulation: Dataset) -> DataArray:
    """Values [n, trial, ...], NaN at the sizes where one of the trials has none."""
    known = values.notnull() | ~is_computed(emulation)
    return values.where(known.all("trial"))


def diagonal_costs(emulation: Dataset, **chosen: str) -> DataArray:
    """Queries of a diagonal prediction [n, trial, readout]."""
    costs = emulation.cost_without_solver.sel(KNOWN | {"effort": "sequential"} | chosen)
    return known_sizes(costs, emulation)


def quantum_costs(emulation: Dataset, **chosen: str) -> DataArray:
    """Queries of a sparsified prediction [n, trial, solver, encoding, readout].

    NaN at sizes where a solver does not apply to every matrix. A solver of degree 0 for every
    matrix prepares |y>, the diagonal's state, and costs what the diagonal algorithm does.
    """
    costs = emulation.cost.sel(KNOWN | {"effort": "sequential"} | chosen)
    costs = known_sizes(costs.mean("pattern", skipna=False), emulation)
    degree = emulation.uses.sel(threshold=KNOWN["threshold"])
    degree = degree.where(is_computed(emulation), 0)
    needs_entries = (degree != 0).any(["n", "trial", "pattern"])
    return costs.where(needs_entries, diagonal_costs(emulation, **chosen))


def classical_costs(emulation: Dataset, effort: str = "sequential") -> DataArray:
    """Operations of a sparsified prediction, classically [n, trial, method]."""
    at = {"approximation": "sparsified", "threshold": KNOWN["threshold"], "effort": effort}
    costs = emulation.operations_classical.sel(at)
    return known_sizes(costs.mean("pattern", skipna=False), emulation)


def geometric(values: DataArray) -> Means:
    """Geometric means of positive values [n, trial] over the trials; their spread is pooled."""
    logs: DataArray = xr.apply_ufunc(np.log, values)
    trials = logs.notnull().sum("trial")
    centre = logs.mean("trial")
    freedom = (trials - 1).clip(0).sum()
    with np.errstate(all="ignore"):  # endless ways, and a single trial
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
    logs: DataArray = xr.apply_ufunc(np.log, ways).mean("trial")
    levels = logs.where(np.isfinite(logs)).mean("n")
    levels += 1e3 * (logs == np.inf).sum("n")  # more than any logarithm
    is_known = logs.notnull().all("n")
    best = levels.where(is_known, np.inf).argmin("way")
    return ways.isel(way=best).drop_vars(["way", *axes])


def six_ways(emulation: Dataset) -> dict[str, DataArray]:
    """The best quantum ways and the classical ones [n, trial], by name."""
    ways = {
        "quantum, sparsified": cheapest(quantum_costs(emulation)),
        "quantum, diagonal": cheapest(diagonal_costs(emulation)),
    }
    classical = classical_costs(emulation)
    for method in CLASSICAL:
        ways[f"classical, {method}"] = classical.sel({"method": method})
    return ways


def crossing(costs: DataArray, rival: DataArray) -> str:
    """From where on costs [n, trial] stay below a rival's, at measured sizes, as a clause."""
    n = costs.n.values
    dearer = np.flatnonzero(~(geometric(costs).mean < geometric(rival).mean))
    if not dearer.size:
        return "at every n"
    last = dearer[-1]
    if last + 1 == len(n):
        return f"at no n up to {n[last]}"
    return f"between n = {n[last]} and {n[last + 1]}"


def cells(values: DataArray) -> list[str]:
    """Geometric means, with the factor of their intervals where there is one: 2,551 ×÷ 1.20."""
    texts = []
    for mean, _, high in geometric(values).rows:
        factor = high / mean if np.isfinite(mean) else 1
        ending = f" ×÷ {factor:.2f}" if 1.005 < factor < np.inf else ""
        texts.append(tables.number(mean) + ending)
    return texts


def arrows(values: DataArray) -> list[str]:
    """9,839 → 3,316: geometric means by fixed effort and by stopping early. [effort, n, trial]"""
    before = geometric(values.sel(effort="fixed")).mean
    after = geometric(values.sel(effort="sequential")).mean
    pairs = zip(before, after, strict=True)
    return [f"{tables.number(old)} → {tables.number(new)}" for old, new in pairs]


def best_by_effort(costs_of: Callable[..., DataArray], emulation: Dataset) -> DataArray:
    """The cheapest way of each effort. [effort, n, trial]"""
    best = [cheapest(costs_of(emulation, effort=effort)) for effort in EFFORTS]
    return xr.concat(best, xr.Variable("effort", EFFORTS), coords="minimal", compat="override")


def before_and_after(emulation: Dataset) -> dict[str, list[str]]:
    """What fixed effort takes, and what it takes to stop as soon as the sign is clear."""
    rows = {
        "queries, sparsified": arrows(best_by_effort(quantum_costs, emulation)),
        "queries, diagonal": arrows(best_by_effort(diagonal_costs, emulation)),
    }
    at = {"threshold": KNOWN["threshold"], "approximation": "sparsified"}
    readings = emulation[["needed", "accuracy_kept"]].sel(at).mean("pattern", skipna=False)
    for unit, name in UNITS.items():
        reading = readings.sel(unit=unit)
        rows[name] = arrows(reading.needed)
        kept = reading.accuracy_kept.mean("trial")
        pairs = kept.transpose("n", "effort").values
        rows[f"{name}: accuracy kept"] = [f"{old:.3f} → {new:.3f}" for old, new in pairs]
    return rows


def assumed(emulation: Dataset) -> dict[str, float]:
    """What the assumptions hide, at the largest n: means over trials and patterns."""
    last = emulation.isel(n=-1).sel(encoding="I + E", divisor=KNOWN["divisor"])
    last = last.sel(threshold=KNOWN["threshold"], approximation="sparsified")
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
        "table": tables.by_size(emulation.n.values, rows),
        "efforts": tables.by_size(emulation.n.values, before_and_after(emulation)),
        "begins": begins,
        "assumed": assumed(emulation),
        "short": experiment.short.lower(),
    }
