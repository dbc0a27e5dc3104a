"""What emulation.py found of costs, as tables and as numbers to draw: quantum beside classical, and where they cross.

A trial's cost is the mean over its patterns of the mean over its test images; sizes are compared by means over trials.
Unless a function says otherwise: threshold at the median, k* divided by the test block's largest entry, all queries.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from analysis import tables
from quantum.assumptions import ASSUMPTIONS
from runtime.results import read_results

Array = NDArray[np.float64]

WORTHS = (1, 1e3, 1e6)  # classical operations in the time of one query
FARTHEST = 1e15  # n up to which a crossing is looked for
FEWEST_SIZES = 4  # that growth is judged from


@dataclass(frozen=True)
class Emulation:
    """The records of one `{prefix}_emulation.npz`: arrays by size, and the axes' names."""

    sizes: list[int]
    records: dict[int, list[Mapping[str, Any]]]  # of the trials of each size
    axes: dict[str, list[Any]]

    def index(self, **names: str) -> dict[str, int]:
        """Positions of names on their axes."""
        return {axis: self.axes[axis].index(name) for axis, name in names.items()}

    def values(self, name: str) -> list[Array]:
        """An array of every size: [trials, ...]."""
        return [np.array([record[name] for record in self.records[size]]) for size in self.sizes]


def read_emulation(path: Path) -> Emulation:
    """The file at `path`. Raises BadInput where it can't be read."""
    results = read_results(path)
    sizes = sorted({size for size, _, _ in results.records})
    records = {n: [record for (size, _, _), record in sorted(results.records.items()) if size == n] for n in sizes}
    return Emulation(sizes, records, results.origin["axes"])


# ----------------------------------------------------------------------------------------------------------------------
# Costs of a trial
# ----------------------------------------------------------------------------------------------------------------------


def quantum_costs(
    emulation: Emulation, kind: str = "all", convention: str = "test block", threshold: str = "median"
) -> dict[tuple[str, str, str], list[Array]]:
    """Mean queries of a sparsified prediction by (solver, encoding, readout): [trials] of every size.

    NaN where a solver does not apply; a solver that applies to some of a trial's patterns counts as not.
    """
    at = emulation.index(kinds=kind, conventions=convention, thresholds=threshold, statistics="mean")
    found = {}
    names = (emulation.axes[axis] for axis in ("solvers", "encodings", "readouts"))
    arrays = emulation.values(
        "cost"
    )  # [trials, patterns, threshold, solver, encoding, readout, convention, kind, stat]
    for (s, solver), (e, encoding), (r, readout) in itertools.product(*map(enumerate, names)):
        place = (at["thresholds"], s, e, r, at["conventions"], at["kinds"], at["statistics"])
        found[solver, encoding, readout] = [array[(slice(None), slice(None), *place)].mean(axis=1) for array in arrays]
    return {key: each for key, each in found.items() if not all(np.isnan(size).all() for size in each)}


def diagonal_costs(
    emulation: Emulation, kind: str = "all", convention: str = "test block", threshold: str = "median"
) -> dict[str, list[Array]]:
    """Mean queries of a diagonal prediction by readout: [trials] of every size."""
    at = emulation.index(kinds=kind, conventions=convention, thresholds=threshold, statistics="mean")
    place = (at["conventions"], at["kinds"], at["statistics"])
    arrays = emulation.values("cost_diagonal")  # [trials, threshold, readout, convention, kind, statistic]
    return {
        readout: [array[(slice(None), at["thresholds"], r, *place)] for array in arrays]
        for r, readout in enumerate(emulation.axes["readouts"])
    }


def classical_costs(emulation: Emulation, threshold: str = "median") -> dict[str, list[Array]]:
    """Operations of a sparsified prediction, classically, by method: [trials] of every size; NaN where it fails."""
    t = emulation.index(thresholds=threshold)["thresholds"]
    arrays = emulation.values("operations_classical")  # [trials, patterns, threshold, method]
    return {
        name: [array[:, :, t, m].mean(axis=1) for array in arrays] for m, name in enumerate(emulation.axes["classical"])
    }


def cheapest(costs: Mapping[Any, Sequence[Array]]) -> tuple[Any, list[Array]]:
    """The entry whose mean over trials, as a geometric mean over sizes, is smallest, among those known at all sizes."""
    known = {key: each for key, each in costs.items() if all(np.isfinite(size).all() for size in each)}
    if not known:
        return None, []
    best = min(known, key=lambda key: float(np.mean([np.log(size.mean()) for size in known[key]])))
    return best, list(known[best])


def summary(emulation: Emulation) -> dict[str, tuple[str, list[Array]]]:
    """What the simple figure draws: {curve: (what it is, [trials] of every size)}."""
    found = {}
    for curve, costs in (
        ("quantum, sparsified, queries", quantum_costs(emulation)),
        ("quantum, diagonal, queries", diagonal_costs(emulation)),
        ("classical, operations", classical_costs(emulation)),
    ):
        best, values = cheapest(costs)
        found[curve] = (", ".join(best) if isinstance(best, tuple) else str(best), values)
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Where they cross
# ----------------------------------------------------------------------------------------------------------------------


class Curve(Protocol):
    """A fitted cost: scaling.fit_growth's Growth has both, with 95 % bounds."""

    def curve(self, n: Array) -> Array:
        """The best value at n [m]."""

    def band(self, n: Array) -> tuple[Array, Array]:
        """Lowest and highest value at n [m]."""


@dataclass(frozen=True)
class Exactly:
    """A cost that is known without data: cost(n), [m] -> [m]."""

    cost: Callable[[Array], Array]

    def curve(self, n: Array) -> Array:
        """The cost at n [m]."""
        return self.cost(np.asarray(n, float))

    def band(self, n: Array) -> tuple[Array, Array]:
        """The same twice."""
        return self.curve(n), self.curve(n)


@dataclass(frozen=True)
class Sampler:
    """Operations of the sampler without replacement: of each of m reads, `each` operations.

    Its estimate has the variance of m shots, (1 - o^2)/m, times (n - m)/(n - 1), so that m = M n/(M + n - 1) replaces M
    shots: it saturates at M, which a law fitted to m at n below M would miss.
    """

    shots: Curve
    each: Curve

    @staticmethod
    def reads(shots: Array, n: Array) -> Array:
        """The number m for M shots, one or more, and n entries."""
        return n / (1 + (n - 1) / np.maximum(shots, 1))

    def curve(self, n: Array) -> Array:
        """The operations at n [m]."""
        return self.reads(self.shots.curve(n), n) * self.each.curve(n)

    def band(self, n: Array) -> tuple[Array, Array]:
        """The lowest and the highest that both bounds allow; nothing known of M is anything from 1 to infinity."""
        low, high = self.shots.band(n)
        low, high = np.nan_to_num(low, nan=1, posinf=np.inf), np.nan_to_num(high, nan=np.inf, posinf=np.inf)
        each_low, each_high = self.each.band(n)
        return self.reads(low, n) * each_low, self.reads(high, n) * each_high


@dataclass(frozen=True)
class Crossing:
    """The n from which on the quantum cost stays below the classical one: best, earliest and latest; inf for none."""

    n: float
    earliest: float
    latest: float

    def __str__(self) -> str:
        """In words that claim no more than the data do."""
        if np.isinf(self.earliest):
            return f"none up to {FARTHEST:.0e}"
        latest = f"to {rough(self.latest)}" if np.isfinite(self.latest) else "or never"
        earliest = rough(self.earliest)
        return f"{rough(self.n)} ({earliest} {latest})" if np.isfinite(self.n) else f"not before {earliest}"


def rough(n: float) -> str:
    """Two digits, or three."""
    return f"{float(f'{n:.2e}'):,.0f}" if n < 1e5 else f"{n:.1e}"


def crossing(quantum: Curve, classical: Curve, worth: float, first: float) -> Crossing:
    """Where worth * quantum falls below classical for good, looked for from n = first to FARTHEST.

    Earliest: as soon as the bounds allow it; latest: from where on they allow nothing else.
    """
    n = np.geomspace(first, FARTHEST, 1401)
    q, c = quantum.curve(n), classical.curve(n)
    (q_low, q_high), (c_low, c_high) = quantum.band(n), classical.band(n)

    def from_where_on(below: NDArray[np.bool_]) -> float:
        above = np.flatnonzero(~below)
        if not above.size:
            return float(n[0])
        return float(n[above[-1] + 1]) if above[-1] + 1 < len(n) else np.inf

    # bounds that are NaN, of fits without errors, allow everything and prove nothing
    possible = np.flatnonzero(~(worth * q_low > c_high))
    earliest = float(n[possible[0]]) if possible.size else np.inf
    return Crossing(from_where_on(worth * q <= c), earliest, from_where_on(worth * q_high <= c_low))


def crossings(emulation: Emulation, fit: Any) -> dict[tuple[str, str, float], Crossing]:
    """By (quantum row, classical row, worth). fit: scaling.fit_growth, (sizes, [trials] of each) -> a Curve.

    Quantum rows: the cheapest solver and encoding with each readout, and the diagonal algorithm with each. Curves are
    compared from the largest n at which the quantum cost is the higher one in every trial.
    """
    quantum: dict[str, tuple[Curve, list[Array]]] = {}
    by_way = quantum_costs(emulation)
    for readout, diagonal in diagonal_costs(emulation).items():
        way, values = cheapest({key: each for key, each in by_way.items() if key[2] == readout})
        if way:
            quantum[f"sparsified, {readout}"] = fit(emulation.sizes, values), values
        if all(np.isfinite(size).all() for size in diagonal):
            quantum[f"diagonal, {readout}"] = fit(emulation.sizes, diagonal), diagonal
    classical, measured = classical_curves(emulation, fit), classical_costs(emulation)
    found = {}
    for (q, (curve, values)), c, worth in itertools.product(quantum.items(), classical, WORTHS):
        above = [np.all(worth * dear > cheap) for dear, cheap in zip(values, measured[c], strict=True)]
        first = max([n for n, dearer in zip(emulation.sizes, above, strict=True) if dearer], default=emulation.sizes[0])
        found[q, c, worth] = crossing(curve, classical[c], worth, first)
    return found


def classical_curves(emulation: Emulation, fit: Any) -> dict[str, Curve]:
    """The classical rows as curves: exact, by the sampler's formula, or fitted, without those that fail somewhere."""
    t = emulation.index(thresholds="median")["thresholds"]
    costs = classical_costs(emulation)
    shots = fit(emulation.sizes, [array[:, :, t].mean(axis=1) for array in emulation.values("shots_needed")])
    samples = [array[:, :, t].mean(axis=1) for array in emulation.values("samples_needed")]
    local = [cost / m for cost, m in zip(costs["sampler, local solver"], samples, strict=True)]
    found: dict[str, Curve] = {
        "all entries": Exactly(lambda n: 2 * n),
        "sampler": Sampler(shots, Exactly(lambda n: 2 + 0 * n)),
        "Cholesky anew": Exactly(lambda n: n**3 / 3 + 2 * n**2 + 2 * n),
    }
    if all(np.isfinite(size).all() for size in local):
        found["sampler, local solver"] = Sampler(shots, fit(emulation.sizes, local))
    anew = costs["conjugate gradients anew"]
    if all(np.isfinite(size).all() for size in anew):
        found["conjugate gradients anew"] = fit(emulation.sizes, anew)
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Tables
# ----------------------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three digits, a dash for what is not known."""
    return "–" if np.isnan(value) else f"{value:.3g}".replace("inf", "∞")


def cost_table(emulation: Emulation, **chosen: str) -> str:
    """Mean queries by solver, encoding, readout and n, then the diagonal algorithm, then classical operations.

    The smallest of the sparsified algorithm is bold at each n. chosen: kind, convention, threshold.
    """
    costs = quantum_costs(emulation, **chosen)
    means = {key: [float(size.mean()) for size in each] for key, each in costs.items()}
    least = np.nanmin(list(means.values()), axis=0)
    rows = [
        [*key, *(f"**{number(m)}**" if m == low else number(m) for m, low in zip(each, least, strict=True))]
        for key, each in means.items()
    ]
    for readout, each in diagonal_costs(emulation, **chosen).items():
        rows.append(["none, diagonal", "–", readout, *(number(float(size.mean())) for size in each)])
    threshold = {"threshold": chosen["threshold"]} if "threshold" in chosen else {}
    for method, each in classical_costs(emulation, **threshold).items():
        rows.append(["classical", "–", f"{method}, operations", *(number(float(size.mean())) for size in each)])
    return tables.table(["solver", "encoding", "readout", *(f"n = {n}" for n in emulation.sizes)], rows)


def assumption_table(emulation: Emulation) -> str:
    """What is assumed, and what it costs where it is not free: means over trials and patterns, at the median."""
    t = emulation.index(thresholds="median")["thresholds"]
    rows = []
    for assumption, (cost, name) in ASSUMPTIONS.items():
        cells = ["–"] * len(emulation.sizes)
        if name:
            arrays = emulation.values(name)
            if name.startswith(("cost_", "error_")):
                arrays = [array[:, :, t] for array in arrays]
            by_size = [
                np.atleast_1d(np.nanmean(a.reshape(-1, a.shape[-1]) if a.ndim > 2 else a.ravel(), axis=0))
                for a in arrays
            ]
            cells = [", ".join(number(float(x)) for x in each) for each in by_size]
        rows.append([assumption, cost, *cells])
    return tables.table(["assumed", "cost or consequence", *(f"n = {n}" for n in emulation.sizes)], rows)


def local_table(emulation: Emulation) -> str:
    """The local solver at the median's threshold: where it applies, what it reads, and how well it predicts."""
    t = emulation.index(thresholds="median")["thresholds"]
    rows = [["rows that dominate", *(number(float(np.mean(a))) for a in emulation.values("dominant_rows"))]]
    lengths = [array[:, :, t] for array in emulation.values("local_length")]
    rows.append(["share of K~ whose rows all dominate", *(number(float(np.mean(np.isfinite(a)))) for a in lengths)])
    for label, name in (
        ("terms beyond the first", "local_length"),
        ("entries of K~ read for one w_i", "local_entries"),
        ("error of w", "local_error"),
        ("accuracy with it", "local_accuracy"),
        ("accuracy without", "accuracy_noiseless"),
    ):
        values = [
            np.where(np.isfinite(n), a[:, :, t], np.nan) for a, n in zip(emulation.values(name), lengths, strict=True)
        ]
        rows.append([label, *(number(float(np.nanmean(a))) if np.isfinite(a).any() else "–" for a in values)])
    return tables.table(["local solver", *(f"n = {n}" for n in emulation.sizes)], rows)


def crossing_table(found: Mapping[tuple[str, str, float], Crossing]) -> str:
    """A row for each quantum cost and each worth of a query, a column for each classical one."""
    classical = list(dict.fromkeys(c for _, c, _ in found))
    rows = [
        [q, f"{worth:g}", *(str(found[q, c, worth]) for c in classical)]
        for q, worth in dict.fromkeys((q, worth) for q, _, worth in found)
    ]
    return tables.table(["quantum", "operations a query", *classical], rows)


def report(emulation: Emulation, fit: Any) -> str:
    """All tables of one network."""
    curves = "".join(f"- {curve}: {what}\n" for curve, (what, _) in summary(emulation).items())
    about_crossing = (
        "From this n on a quantum prediction would cost less than a classical one, if storing k* in QRAM cost nothing "
        "(95 % bounds in brackets). Writing it takes the n kernel evaluations that predict classically: "
        "with them there is no such n. A shot takes three queries or more, and the sampler no more reads, of two "
        "operations, than shots.\n"
    )
    few = f"Not judged: fewer than {FEWEST_SIZES} sizes.\n"
    parts = [
        ("Cheapest over all sizes:\n", curves),
        ("Queries of one prediction, means over trials:\n", cost_table(emulation)),
        ("The classical local solver:\n", local_table(emulation)),
        ("What is assumed:\n", assumption_table(emulation)),
        (about_crossing, crossing_table(crossings(emulation, fit)) if len(emulation.sizes) >= FEWEST_SIZES else few),
    ]
    return "\n".join(itertools.chain(*parts))
