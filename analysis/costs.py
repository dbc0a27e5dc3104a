"""What a prediction costs, as emulation.py found it: quantum queries beside classical operations.

A trial's cost is the mean over its patterns of the mean over its test images. Unless a function
says otherwise: threshold at the test median, k* divided by the training matrix's largest
off-diagonal entry, all queries.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis import growth
from analysis.experiments import Experiment
from analysis.tables import by_size, in_words, mean_cells, table
from quantum.assumptions import ASSUMPTIONS
from quantum.readout import amplified_estimate, uses_of_schedule
from runtime.results import is_computed

Array = NDArray[np.float64]
Way = tuple[str, str, str]  # solver, encoding, readout

WORTHS = (1, 1e3, 1e6)  # classical operations in the time of one query
QUERIES_A_RUN = 3  # at least: one to y, two to k*
FARTHEST = 1e15  # n up to which a crossing is looked for
KNOWN = {"threshold": "test median", "divisor": "training set", "kind": "all", "statistic": "mean"}


# Costs of a trial


def known_sizes(values: xr.DataArray, emulation: xr.Dataset) -> xr.DataArray:
    """Values [n, trial], NaN at the sizes where one of the trials has none."""
    return values.where((values.notnull() | ~is_computed(emulation)).all("trial"))


def without_queries(emulation: xr.Dataset) -> set[tuple[str, str]]:
    """(solver, encoding) of degree 0 in every matrix: they prepare |y>, the diagonal's state."""
    uses = emulation.uses.where(is_computed(emulation), 0)
    free = (uses == 0).all(["n", "trial", "pattern", "threshold"])
    ways = itertools.product(free["solver"].values.tolist(), free["encoding"].values.tolist())
    return {way for way in ways if free.sel(solver=way[0], encoding=way[1])}


def diagonal_costs(emulation: xr.Dataset, **chosen: str) -> dict[str, xr.DataArray]:
    """Queries of a diagonal prediction [n, trial] by readout. chosen: labels other than KNOWN."""
    costs = known_sizes(emulation.cost_without_solver.sel(KNOWN | chosen, drop=True), emulation)
    return {name: costs.sel(readout=name, drop=True) for name in costs.readout.values.tolist()}


def quantum_costs(emulation: xr.Dataset, **chosen: str) -> dict[Way, xr.DataArray]:
    """Queries of a sparsified prediction [n, trial] by solver, encoding and readout.

    NaN at sizes where a solver does not apply to every matrix; ways that apply nowhere are left
    out. A solver that prepares |y> costs what the diagonal algorithm does.
    """
    costs = emulation.cost.sel(KNOWN | chosen, drop=True).mean("pattern", skipna=False)
    costs = known_sizes(costs, emulation)
    diagonal, free = diagonal_costs(emulation, **chosen), without_queries(emulation)
    axes = [costs[axis].values.tolist() for axis in ("solver", "encoding", "readout")]
    ways = {}
    for solver, encoding, readout in itertools.product(*axes):
        values = costs.sel(solver=solver, encoding=encoding, readout=readout, drop=True)
        if (solver, encoding) in free:
            values = diagonal[readout]
        if values.notnull().any():
            ways[solver, encoding, readout] = values
    return ways


def classical_costs(emulation: xr.Dataset) -> dict[str, xr.DataArray]:
    """Operations of a sparsified prediction, classically [n, trial], by method."""
    at = {"approximation": "sparsified", "threshold": KNOWN["threshold"]}
    operations: xr.DataArray = emulation.operations_classical.sel(at, drop=True)
    costs = known_sizes(operations.mean("pattern", skipna=False), emulation)
    names = costs["method"].values.tolist()
    return {name: costs.sel({"method": name}, drop=True) for name in names}


def cheapest(costs: Mapping[Any, xr.DataArray]) -> Any:
    """The key with the least geometric mean over sizes of means over trials, known at all sizes."""
    known = {}
    for key, values in costs.items():
        mean = float(np.mean(np.log(values.mean("trial").values)))
        if not np.isnan(mean):
            known[key] = mean
    return min(known, key=lambda key: known[key], default=None)


# Where they cross


@dataclass(frozen=True)
class Crossing:
    """From which n on a prediction's queries stay below the 2n operations of reading all entries.

    measured: the first such size measured, by means. n, earliest and latest: by the fitted curve
    and its 95 % band. told: whether the data exclude more than what was measured.
    """

    measured: float
    n: float
    earliest: float
    latest: float
    told: bool

    def __str__(self) -> str:
        """In words that claim no more than the data do."""
        if not self.told:
            return "the data do not say"
        if np.isinf(self.earliest):
            return f"none up to {FARTHEST:.0e}"
        if np.isinf(self.n):
            return f"not before {rough(self.earliest)}"
        upper = f"to {rough(self.latest)}" if self.latest < np.inf else "or more, no upper bound"
        return f"{rough(self.n)} ({rough(self.earliest)} {upper})"


def rough(n: float) -> str:
    """Three digits, or two."""
    return f"{float(f'{n:.2e}'):,.0f}" if n < 1e5 else f"{n:.1e}"


def crossing(costs: xr.DataArray, worth: float) -> Crossing:
    """Where `worth` times these queries [n, trial] fall below 2n for good.

    Looked for from the largest n at which they are above it in every trial. A prediction takes one
    run or more; bounds that exclude no more than twice what that does tell nothing.
    """
    fitted, sizes = growth.judged(costs), costs.n.values
    dearer = ((worth * costs > 2 * costs.n) | costs.isnull()).all("trial").values
    measured = from_where_on(sizes, (worth * costs.mean("trial") < 2 * costs.n).values)
    n = np.geomspace(sizes[dearer].max(initial=sizes[0]), FARTHEST, 1401)
    best = fitted.best(n)
    low, high = (worth * np.maximum(bound, QUERIES_A_RUN) for bound in fitted.band(n))
    earliest = from_where_on(n, np.logical_or.accumulate(~(low > 2 * n)))  # NaN allows everything
    latest = from_where_on(n, high <= 2 * n)
    crossed = from_where_on(n, (worth * np.maximum(best, QUERIES_A_RUN) <= 2 * n) & (best > 0))
    told = earliest > 2 * max(n[0], worth * QUERIES_A_RUN / 2) or latest < np.inf
    return Crossing(measured, crossed, earliest, latest, bool(told))


def from_where_on(n: Array, below: NDArray[np.bool_]) -> float:
    """The first n from which on it is so; infinite where it is not so at the end."""
    above = np.flatnonzero(~below)
    if not above.size:
        return float(n[0])
    return float(n[above[-1] + 1]) if above[-1] + 1 < len(n) else np.inf


# The page


def cost(experiment: Experiment) -> dict[str, Any]:
    """Costs by solver and by divisor, against classical ones; what is assumed; larger sizes."""
    emulation = experiment.kinds["emulation"]
    n, last = emulation.n.values, int(emulation.n.values[-1])
    ways, diagonals = quantum_costs(emulation), diagonal_costs(emulation)
    best, readout = cheapest(ways), cheapest(diagonals)
    divisors = divisor_rows(emulation, best, readout)
    larger = larger_rows(experiment, readout)
    anew = classical_costs(emulation)["conjugate gradients anew"]
    return {
        "last": last,
        "way": ", ".join(best),
        "no_system": best[:2] in without_queries(emulation),
        "fewest": ways[best][-1].mean().item(),
        "costs": by_size(n, cost_rows(emulation)),
        "divisors": by_size(n, divisors),
        "crossings": crossing_table({"sparsified": ways[best], "diagonal": diagonals[readout]}),
        "assumptions": by_size(n, assumptions(emulation)),
        "larger": table(["n", "trials", "queries", "2n"], larger) if larger else "",
        "summary": {
            "largest n emulated": str(last),
            "queries, sparsified": mean_cells(ways[best])[-1],
            "queries, diagonal": mean_cells(diagonals[readout])[-1],
            "queries, diagonal, fixed constant": divisors["diagonal, fixed constant"][-1],
            "operations, weights known": str(2 * last),
            "operations, solved anew": mean_cells(anew)[-1],
            "diagonal below 2n from": crossing_in_words(diagonals[readout], larger),
        },
    }


def divisor_rows(emulation: xr.Dataset, way: Way, readout: str) -> dict[str, list[str]]:
    """Queries of a sparsified prediction by one way, and a diagonal one, by k*'s divisor."""
    rows = {}
    for divisor in emulation.divisor.values.tolist():
        name = in_words(divisor)
        rows[f"sparsified, {name}"] = mean_cells(quantum_costs(emulation, divisor=divisor)[way])
        rows[f"diagonal, {name}"] = mean_cells(diagonal_costs(emulation, divisor=divisor)[readout])
    return rows


def cost_rows(emulation: xr.Dataset) -> dict[str, list[str]]:
    """Mean queries by solver, encoding and readout, then the diagonal's, then operations.

    The smallest of the sparsified prediction is bold at each n.
    """
    quantum = quantum_costs(emulation)
    least = np.nanmin([values.mean("trial").values for values in quantum.values()], axis=0)
    rows = {}
    for way, values in quantum.items():
        bold = values.mean("trial").values == least
        cells = zip(mean_cells(values), bold, strict=True)
        rows[", ".join(way)] = [f"**{cell}**" if is_least else cell for cell, is_least in cells]
    for readout, values in diagonal_costs(emulation).items():
        rows[f"diagonal, {readout}"] = mean_cells(values)
    for method, values in classical_costs(emulation).items():
        rows[f"classical, {method}, operations"] = mean_cells(values)
    return rows


def crossing_table(predictions: dict[str, xr.DataArray]) -> str:
    """Crossings of the cheapest predictions with 2n, by what a query is worth."""
    rows = []
    for name, values in predictions.items():
        for worth in WORTHS if values.sizes["n"] >= growth.FEWEST_SIZES else ():
            found = crossing(values, worth)
            measured = f"{found.measured:g}" if np.isfinite(found.measured) else "none"
            rows.append([name, f"{worth:g}", measured, found])
    return table(["prediction", "operations a query", "measured", "extrapolated"], rows)


def crossing_in_words(costs: xr.DataArray, larger: list[list[Any]]) -> str:
    """Measured; else with measured post-selection alone; else by extrapolation."""
    found = crossing(costs, 1)
    below = [n for n, _, queries, operations in larger if queries < operations]
    if np.isfinite(found.measured):
        return f"n = {found.measured:g}, measured"
    if below:
        return f"n = {below[0]}, by the post-selection measured there"
    return f"n = {found}, extrapolated" if found.told else str(found)


def assumptions(emulation: xr.Dataset) -> dict[str, list[str]]:
    """What is assumed, and what it costs where it is not free, by size, at the test median.

    Means over trials and patterns; of bits the largest, which is enough for all of them.
    """
    rows = {}
    at = {"approximation": "sparsified", "threshold": "test median"}
    for assumption, (consequence, name) in ASSUMPTIONS.items():
        if name not in emulation:
            continue
        values = emulation[str(name)]
        values = values.sel({axis: label for axis, label in at.items() if axis in values.dims})
        over = [axis for axis in ("trial", "pattern") if axis in values.dims]
        values = values.max(over) if str(name).startswith("bits") else values.mean(over)
        for label, column in by_label(values).items():
            rows[f"{assumption}: {consequence}{label}"] = [number(each) for each in column.values]
    return rows


def by_label(values: xr.DataArray) -> dict[str, xr.DataArray]:
    """Values [n] under each label of what other axis they have, in brackets."""
    axes = [str(axis) for axis in values.dims if axis != "n"]
    if not axes or axes[0] not in values.coords:
        return {"": values.squeeze(axes)}
    labels = values[axes[0]].values.tolist()
    return {f" ({in_words(label)})": values.sel({axes[0]: label}) for label in labels}


def number(value: float) -> str:
    """Three digits, a dash for what is not known."""
    return "–" if np.isnan(value) else f"{value:.3g}".replace("inf", "∞")


def larger_rows(experiment: Experiment, readout: str) -> list[list[Any]]:
    """n, trials, queries of the diagonal prediction and 2n at larger n than emulated, if any.

    With the P measured there; amplitude estimation is taken to use the preparation as often as at
    the largest n emulated.
    """
    emulation, results = experiment.kinds["emulation"], experiment.kinds.get("results")
    if results is None or readout != "amplitude estimation":
        return []
    points = emulation.points_needed.sel(approximation="diagonal", threshold="test median")
    points = points.isel(n=-1, pattern=0).dropna("trial").values
    uses = np.mean([uses_of_schedule(point) for point in points])
    rows = []
    larger = results.sel(n=results.n > emulation.n[-1]).post_selection_measurements
    for size in larger.sel(divisor="training set"):
        inverse = size.dropna("trial", how="all")  # 1/P
        w, k = amplified_estimate(1, 1.0, 2, 1 / inverse.values.ravel())
        n = size.n.item()
        rows.append([n, inverse.sizes["trial"], round(uses * np.mean(w + 2 * k)), 2 * n])
    return rows


def circuit(experiment: Experiment) -> dict[str, Any]:
    """Gates, depth and queries of one prediction, and how far it is from the emulation."""
    results = experiment.kinds["circuit"].isel(n=0, trial=0)
    names = results.approximation.values.tolist()
    rows, away = [], []
    for name in names:
        row, difference = circuit_row(results.sel(approximation=name))
        rows.append([name, *row])
        away.append(difference)
    heading = ["prediction", "qubits", "degree", "gates", "cx", "depth"]
    heading += [f"queries, {kind}" for kind in results.kind.values]
    heading += ["p", "P", "o", "largest difference", "same queries"]
    return {"n": results.n.item(), "largest": max(away), "table": table(heading, rows)}


def circuit_row(results: xr.Dataset) -> tuple[list[str], float]:
    """What is counted and measured of one circuit; its largest difference from the emulation."""
    built, emulated = results.sel(source="circuit"), results.sel(source="emulated")
    names = ["success_probability", "post_selection_probability", "overlap"]
    away = max(abs(built[name] - emulated[name]).item() for name in names)
    gates = [results.gate_count, results.gates.sel(gate="cx"), results.depth]
    counts = [built.qubits, emulated.degree, *gates, *built.queries]
    row = [f"{count.item():,.0f}" for count in counts]
    row += [f"{built[name].item():.4f}" for name in names]
    same = bool((built.queries == emulated.queries).all())
    return [*row, f"{away:.0e}", "yes" if same else "no"], away
