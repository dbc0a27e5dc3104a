"""What emulation.py found of costs, as tables and as numbers to draw: quantum beside classical, and where they cross.

A trial's cost is the mean over its patterns of the mean over its test images; sizes are compared by means over trials,
with the 95 % intervals of `scaling.size_means`. Unless a function says otherwise: threshold at the median, k* divided
by the training matrix's largest off-diagonal entry, which is known, and all queries.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import scaling
from analysis import tables
from quantum.assumptions import ASSUMPTIONS
from quantum.classical import SAMPLER_OPERATIONS
from quantum.readout import amplified_estimate, uses_of_schedule
from runtime.results import read_results

Array = NDArray[np.float64]

WORTHS = (1, 1e3, 1e6)  # classical operations in the time of one query
QUERIES_A_RUN = 3  # at least: one to y, two to k*
FARTHEST = 1e15  # n up to which a crossing is looked for
FEWEST_SIZES = 4  # that growth is judged from
QUANTILES = ("10 %", "median", "90 %")  # over the test images
ACCURACIES = {
    "sparsified, emulated": "accuracy_noiseless",
    "sparsified, k*'w": "accuracy_unnormalised",
    "w = y, emulated": "accuracy_noiseless_diagonal",
    "w = y, k*'w": "accuracy_unnormalised_diagonal",
    "w_i = y_i/K_ii, k*'w": "accuracy_weighted_diagonal",
}


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


def without_queries(emulation: Emulation) -> set[tuple[str, str]]:
    """(solver, encoding) of degree 0 in every matrix: what they prepare is |y>, the diagonal algorithm's state."""
    uses = [array.reshape(-1, *array.shape[-2:]) for array in emulation.values("uses")]  # [matrices, solver, encoding]
    free = np.all(np.concatenate(uses) == 0, axis=0)
    solvers, encodings = emulation.axes["solvers"], emulation.axes["encodings"]
    return {(solvers[s], encodings[e]) for s, e in np.argwhere(free)}


def quantum_costs(
    emulation: Emulation, kind: str = "all", convention: str = "training", threshold: str = "median",
    statistic: str = "mean",
) -> dict[tuple[str, str, str], list[Array]]:  # fmt: skip
    """Queries of a sparsified prediction by (solver, encoding, readout): [trials] of every size.

    statistic: over the test images. NaN where a solver does not apply; a solver that applies to some of a trial's
    patterns counts as not, and one that fails in some trial of every size is left out. Where a solver prepares |y> it
    costs what the diagonal algorithm does.
    """
    at = emulation.index(kinds=kind, conventions=convention, thresholds=threshold, statistics=statistic)
    found = {}
    names = (emulation.axes[axis] for axis in ("solvers", "encodings", "readouts"))
    # [trials, patterns, threshold, solver, encoding, readout, convention, kind, statistic]
    arrays = emulation.values("cost")
    for (s, solver), (e, encoding), (r, readout) in itertools.product(*map(enumerate, names)):
        place = (at["thresholds"], s, e, r, at["conventions"], at["kinds"], at["statistics"])
        found[solver, encoding, readout] = [array[(slice(None), slice(None), *place)].mean(axis=1) for array in arrays]
    diagonal = diagonal_costs(emulation, kind, convention, threshold, statistic)
    for way in without_queries(emulation):
        found |= {(*way, readout): each for readout, each in diagonal.items()}
    return {key: each for key, each in found.items() if not all(np.isnan(size).any() for size in each)}


def diagonal_costs(
    emulation: Emulation, kind: str = "all", convention: str = "training", threshold: str = "median",
    statistic: str = "mean",
) -> dict[str, list[Array]]:  # fmt: skip
    """Queries of a diagonal prediction by readout: [trials] of every size."""
    at = emulation.index(kinds=kind, conventions=convention, thresholds=threshold, statistics=statistic)
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

    def best(self, n: Array) -> Array:
        """The best value at n [m]."""

    def band(self, n: Array) -> tuple[Array, Array]:
        """Lowest and highest value at n [m]."""


@dataclass(frozen=True)
class Exactly:
    """A cost that is known without data: cost(n), [m] -> [m]."""

    cost: Callable[[Array], Array]

    def best(self, n: Array) -> Array:
        """The cost at n [m]."""
        return self.cost(np.asarray(n, float))

    def band(self, n: Array) -> tuple[Array, Array]:
        """The same twice."""
        return self.best(n), self.best(n)


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

    def best(self, n: Array) -> Array:
        """The operations at n [m]."""
        return self.reads(self.shots.best(n), n) * self.each.best(n)

    def band(self, n: Array) -> tuple[Array, Array]:
        """The lowest and the highest that both bounds allow; nothing known of M is anything from 1 to infinity."""
        low, high = self.shots.band(n)
        low, high = np.nan_to_num(low, nan=1, posinf=np.inf), np.nan_to_num(high, nan=np.inf, posinf=np.inf)
        each_low, each_high = self.each.band(n)
        return self.reads(low, n) * each_low, self.reads(high, n) * each_high


@dataclass(frozen=True)
class Combined:
    """Two costs as one: their sum, or the smaller one, which np.add and np.minimum make of them."""

    first: Curve
    second: Curve
    combine: Callable[[Array, Array], Array]

    def best(self, n: Array) -> Array:
        """The operations at n [m]."""
        return self.combine(self.first.best(n), self.second.best(n))

    def band(self, n: Array) -> tuple[Array, Array]:
        """The lowest and the highest that both bounds allow."""
        (low, high), (other_low, other_high) = self.first.band(n), self.second.band(n)
        return self.combine(low, other_low), self.combine(high, other_high)


@dataclass(frozen=True)
class Crossing:
    """The n from which on the quantum cost stays below the classical one: best, earliest and latest; inf for none.

    told: whether the data exclude any n beyond those that were measured; by_variance: that there is none, without data.
    """

    n: float
    earliest: float
    latest: float
    told: bool = True
    by_variance: bool = False

    def __str__(self) -> str:
        """In words that claim no more than the data do."""
        if self.by_variance:
            return "never (sampled by w²)"
        if not self.told:
            return "the data do not say"
        if np.isinf(self.earliest):
            return f"none up to {FARTHEST:.0e}"
        latest = f"to {rough(self.latest)}" if np.isfinite(self.latest) else "or never"
        earliest = rough(self.earliest)
        return f"{rough(self.n)} ({earliest} {latest})" if np.isfinite(self.n) else f"not before {earliest}"


NEVER = Crossing(np.inf, np.inf, np.inf, by_variance=True)


def rough(n: float) -> str:
    """Two digits, or three."""
    return f"{float(f'{n:.2e}'):,.0f}" if n < 1e5 else f"{n:.1e}"


def crossing(quantum: Curve, classical: Curve, worth: float, first: float) -> Crossing:
    """Where worth * quantum falls below classical for good, looked for from n = first to FARTHEST.

    Earliest: as soon as the bounds allow it, but no prediction takes less than one run; latest: from where on they
    allow nothing else. A curve that has fallen to 0 is fitted to data that do not tell, and shows no crossing. Nor do
    data tell that n is excluded where one run's queries alone do so, or up to twice that n, or twice `first`.
    """
    n = np.geomspace(first, FARTHEST, 1401)
    q, c = quantum.best(n), classical.best(n)
    (q_low, q_high), (c_low, c_high) = quantum.band(n), classical.band(n)

    def from_where_on(below: NDArray[np.bool_]) -> float:
        above = np.flatnonzero(~below)
        if not above.size:
            return float(n[0])
        return float(n[above[-1] + 1]) if above[-1] + 1 < len(n) else np.inf

    # bounds that are NaN, of fits without errors, allow everything and prove nothing
    at_least = (np.where(each < QUERIES_A_RUN, QUERIES_A_RUN, each) for each in (q, q_low, q_high))  # NaN stays
    dear, dear_low, dear_high = (worth * each for each in at_least)
    possible, floor = ~(dear_low > c_high), ~(worth * QUERIES_A_RUN > c_high)
    earliest, by_floor = (float(n[np.argmax(each)]) if each.any() else np.inf for each in (possible, floor))
    told = earliest > 2 * by_floor
    best, sure = (dear <= c) & (q > 0), (dear_high <= c_low) & (q > 0)
    latest = from_where_on(sure)
    return Crossing(from_where_on(best), earliest, latest, told=told or bool(np.isfinite(latest)))


def crossings(emulation: Emulation, fit: Any) -> dict[tuple[str, str, float], Crossing]:
    """By (quantum row, classical row, worth). fit: scaling.fit_growth, (sizes, [trials] of each) -> a Curve.

    Quantum rows: the cheapest solver and encoding with each readout, and the diagonal algorithm with each, which has
    nothing to solve anew; one row where a solver needs no query, as it prepares the diagonal one's state. Curves are
    compared from the largest n at which the quantum cost is the higher one in every trial. "shots" and "amplified
    shots" never fall below another sampler, of a shot's variance, 1 - o^2: it draws i by |w_i|^2 and is given |k*|, so
    that a read takes two operations, and a shot three queries or more (|w>, and |k*> twice).
    """
    quantum: dict[str, tuple[Curve, list[Array]]] = {}
    by_way, free = quantum_costs(emulation), without_queries(emulation)
    for readout, diagonal in diagonal_costs(emulation).items():
        way, values = cheapest({key: each for key, each in by_way.items() if key[2] == readout})
        same = bool(free)
        if way and not same:
            quantum[f"sparsified, {readout}"] = fit(emulation.sizes, values), values
        if all(np.isfinite(size).all() for size in diagonal):
            quantum[f"{'sparsified = ' * same}diagonal, {readout}"] = fit(emulation.sizes, diagonal), diagonal
    classical, measured = classical_curves(emulation, fit), classical_costs(emulation)
    found = {}
    for (q, (curve, values)), c, worth in itertools.product(quantum.items(), classical, WORTHS):
        if "diagonal" in q and c not in ("all entries", "sampler"):
            continue
        above = [np.all(worth * dear > cheap) for dear, cheap in zip(values, measured[c], strict=True)]
        first = max([n for n, dearer in zip(emulation.sizes, above, strict=True) if dearer], default=emulation.sizes[0])
        never = c == "sampler" and q.endswith("shots")
        found[q, c, worth] = NEVER if never else crossing(curve, classical[c], worth, first)
    return found


def classical_curves(emulation: Emulation, fit: Any) -> dict[str, Curve]:
    """The classical rows as curves: exact, by the sampler's formula, or fitted, without those that fail somewhere."""
    t = emulation.index(thresholds="median")["thresholds"]
    costs = classical_costs(emulation)
    needed, alone, at_once = (
        [array[:, :, t].mean(axis=1) for array in emulation.values(name)]
        for name in ("shots_needed", "local_operations", "series_operations")
    )
    shots = fit(emulation.sizes, needed)
    sampler = Sampler(shots, Exactly(lambda n: SAMPLER_OPERATIONS["median"] + 0 * n))
    found: dict[str, Curve] = {
        "all entries": Exactly(lambda n: 2 * n),
        "sampler": sampler,
        "Cholesky anew": Exactly(lambda n: n**3 / 3 + 2 * n**2 + 2 * n),
    }
    if all(np.isfinite(size).all() for size in alone):
        each, every = Sampler(shots, fit(emulation.sizes, alone)), fit(emulation.sizes, at_once)
        found["sampler, local solver"] = Combined(sampler, Combined(each, every, np.minimum), np.add)
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


def mean_cells(emulation: Emulation, values: Sequence[Array]) -> tuple[Array, list[str]]:
    """Means over the trials [sizes], and the same as text with their 95 % intervals."""
    mean, _, half = scaling.size_means(emulation.sizes, values)
    return mean, [tables.plus_minus(*pair) for pair in zip(mean, half, strict=True)]


def quantiles(found: Mapping[str, Mapping[Any, Sequence[Array]]], key: Any) -> list[str]:
    """Quantiles over the test images at the largest size, means over trials."""
    return [number(float(found[statistic][key][-1].mean())) for statistic in QUANTILES]


def cost_table(emulation: Emulation, **chosen: str) -> str:
    """Mean queries by solver, encoding, readout and n, then the diagonal algorithm, then classical operations.

    With 95 % intervals; quantiles at the largest n. The smallest of the sparsified algorithm is bold at each n. A
    solver that prepares the diagonal algorithm's state is in that one's row. chosen: kind, convention, threshold.
    """
    costs, diagonal = quantum_costs(emulation, **chosen), diagonal_costs(emulation, **chosen)
    spread = {s: quantum_costs(emulation, statistic=s, **chosen) for s in QUANTILES}
    spread_diagonal = {s: diagonal_costs(emulation, statistic=s, **chosen) for s in QUANTILES}
    cells = {key: mean_cells(emulation, each) for key, each in costs.items()}
    least, free = np.nanmin([mean for mean, _ in cells.values()], axis=0), without_queries(emulation)

    def marked(mean: Array, text: Sequence[str]) -> list[str]:
        return [f"**{t}**" if m == low else t for m, t, low in zip(mean, text, least, strict=True)]

    rows = [[*key, *marked(*each), *quantiles(spread, key)] for key, each in cells.items() if key[:2] not in free]
    same = "".join(f", and {solver}, {encoding}" for solver, encoding in sorted(free))
    for readout, each in diagonal.items():
        mean, text = mean_cells(emulation, each)
        text = marked(mean, text) if free else text
        rows.append([f"none, diagonal{same}", "–", readout, *text, *quantiles(spread_diagonal, readout)])
    threshold = {"threshold": chosen["threshold"]} if "threshold" in chosen else {}
    for method, each in classical_costs(emulation, **threshold).items():
        rows.append(["classical", "–", f"{method}, operations", *mean_cells(emulation, each)[1], "–", "–", "–"])
    return tables.table(["solver", "encoding", "readout", *size_headings(emulation), *QUANTILES], rows)


def size_headings(emulation: Emulation) -> list[str]:
    """Of the columns."""
    return [f"n = {n}" for n in emulation.sizes]


def convention_table(emulation: Emulation) -> str:
    """The cheapest sparsified way with each readout, and the diagonal algorithm, by what k* is divided by.

    Where a solver needs no query the two are one.
    """
    rows, free = [], without_queries(emulation)
    for convention, readout in itertools.product(emulation.axes["conventions"], emulation.axes["readouts"]):
        chosen = {"convention": convention}
        by_way = quantum_costs(emulation, **chosen)
        best, values = cheapest({key: each for key, each in by_way.items() if key[2] == readout})
        ways: list[tuple[str, Any, Sequence[Array], Callable[..., Any]]] = []
        if best and not free:
            ways.append((", ".join(best[:2]), best, values, quantum_costs))
        same = "".join(f", and {', '.join(way)}" for way in sorted(free))
        ways.append((f"none, diagonal{same}", readout, diagonal_costs(emulation, **chosen)[readout], diagonal_costs))
        for name, key, each, function in ways:
            spread = {s: function(emulation, statistic=s, **chosen) for s in QUANTILES}
            rows.append([convention, readout, name, *mean_cells(emulation, each)[1], *quantiles(spread, key)])
    return tables.table(["k* divided by", "readout", "solver", *size_headings(emulation), *QUANTILES], rows)


def accuracy_table(emulation: Emulation) -> str:
    """Accuracies of the emulated predictions, and of those that training.py makes of the same numbers."""
    rows = []
    for threshold, label in (("median", "the median"), ("zero", "0")):
        t = emulation.index(thresholds=threshold)["thresholds"]
        for row, name in ACCURACIES.items():
            values = [np.atleast_2d(a[..., t].T).mean(axis=0) for a in emulation.values(name)]
            rows.append([row, label, *mean_cells(emulation, values)[1]])
    return tables.table(["prediction", "t", *size_headings(emulation)], rows)


def known_mean(values: Array) -> float:
    """The mean of what is not NaN; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan


def assumption_table(emulation: Emulation) -> str:
    """What is assumed, and what it costs where it is not free, at the median.

    Means over trials and patterns; of bits the largest, which is enough for all of them.
    """
    t = emulation.index(thresholds="median")["thresholds"]
    rows = []
    for assumption, (cost, name) in ASSUMPTIONS.items():
        cells = ["–"] * len(emulation.sizes)
        if name and name.startswith("bits_"):  # enough for every trial
            arrays = [array.reshape(-1, *array.shape[2:]).max(axis=0) for array in emulation.values(name)]
            cells = [", ".join(map(number, np.atleast_1d(each))) for each in arrays]
        elif name:
            arrays = emulation.values(name)
            if name.startswith(("cost_", "error_")):
                arrays = [array[:, :, t] for array in arrays]
            by_size = [a.reshape(-1, a.shape[-1]).T if a.ndim > 2 else a.reshape(1, -1) for a in arrays]
            cells = [", ".join(number(known_mean(x)) for x in each) for each in by_size]
        rows.append([assumption, cost, *cells])
        if name == "accuracy_calibrated":
            images = [overlap.shape[-1] / 2 for overlap in emulation.values("overlap")]
            shots = [known_mean(array[:, :, t]) for array in emulation.values("shots_needed")]
            every = [number(a * b) for a, b in zip(images, shots, strict=True)]
            rows.append(["", "shots for that t: as many for each image of the set as a prediction has", *every])
    return tables.table(["assumed", "cost or consequence", *size_headings(emulation)], rows)


def local_table(emulation: Emulation) -> str:
    """The local solver at the median's threshold: where it applies, what it reads, and how well it predicts."""
    t = emulation.index(thresholds="median")["thresholds"]
    rows = [["rows that dominate", *(number(float(np.mean(a))) for a in emulation.values("dominant_rows"))]]
    every = (np.mean(a == 1) for a in emulation.values("dominant_rows"))
    rows.append(["share of K~ whose rows all dominate", *(number(float(share)) for share in every)])
    radius = emulation.values("jacobi_radius")
    rows.append(["largest spectral radius of D^-1 K~ - 1", *(number(float(np.nanmax(a))) for a in radius)])
    lengths = [array[:, :, t] for array in emulation.values("local_length")]
    rows.append(["share of K~ averaged below: radius < 1", *(number(float(np.mean(np.isfinite(a)))) for a in lengths)])
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
    return tables.table(["local solver", *size_headings(emulation)], rows)


def crossing_table(found: Mapping[tuple[str, str, float], Crossing]) -> str:
    """A row for each quantum cost and each worth of a query, a column for each classical one; a dash for no rival."""
    classical = list(dict.fromkeys(c for _, c, _ in found))
    rows = [
        [q, f"{worth:g}", *(str(found.get((q, c, worth), "–")) for c in classical)]
        for q, worth in dict.fromkeys((q, worth) for q, _, worth in found)
    ]
    return tables.table(["quantum", "operations a query", *classical], rows)


CONDITIONS = """\
[quantum/README.md](../quantum/README.md) names the solvers, the encodings and the readouts, and where they come from.
Queries to K~, to k* and to y of one prediction. t is the median of the test set. k* is divided by the training
matrix's largest off-diagonal entry, which is known: P is of k* clipped by that. Shots and accuracies are of k*
divided by k_thresh; “a divisor of k* is known” below says what the other one changes. A readout goes on until it has
99 % of the noiseless accuracy: 0.980 where that is 0.990. Shots are found to the unit; amplitude estimation's
schedule about doubles from one length to the next. For shots k* is loaded first, so that runs which lose it do not
pay for the solver; amplitude estimation pays for both in every use. “All entries” is k*'w at its own median, about as
accurate (see below), for which |k*| is not needed; o itself would take 4n operations. Means over test images and
trials ± 95 %, then quantiles over the test images at the largest n. The series in E is left out where it does not
converge for every K̃.

The sparse oracle's block encoding divides by s max|K~|, so that κ grows by nearly s even where K~ is nearly diagonal:
that part of its cost is one of the encoding, not of the problem. I + E takes the diagonal apart. “Kernel reflection,
norm unknown” and “adiabatic” are expected numbers of measured repetitions, from published counts and not emulated
step by step. They can't stand in one branch of a Hadamard test, so that their rows are lower bounds; they have no
inverse, and so no amplitude estimation.
"""
CONVENTIONS = """\
The cheapest ways by what k* is divided by: the largest off-diagonal entry of the training matrix, known (*training*);
that of all test images, which no algorithm knows (*test block*); *k_thresh*, known. Conditions and ± as above.
"""
NORMALISED = """\
The state |k*> has norm 1, so that the median of o = <k*|w> ranks the test images otherwise than training.py's k*'w,
and the diagonal algorithm's state is |w> = |y>, not y_i/K_ii. Accuracies without noise; those of k*'w and of y_i/K_ii
are training.py's:
"""
CROSSING = """\
From this n on a quantum prediction would cost less than a classical one, if storing k* in QRAM cost nothing (95 %
bounds in brackets). Storing it takes n kernel evaluations, which “all entries” pays as well. So where w is known a
quantum prediction can save 2n operations at most, and those evaluations stay. A sampler evaluates fewer than n.
Conditions as above: t is the median, k* is divided by what the training matrix gives, 99 % of the noiseless accuracy.
All is extrapolated from the sizes above. “The data do not say”: the bounds exclude no n beyond twice the largest one
above, or only those at which the three queries of one run would cost more. “Sampled by w²”: not against the sampler
of this column, but against one that draws i by |w_i|^2 and is given the norm of k*. If both cost nothing, its reads
take two operations and have a shot's variance, and a shot takes three queries or more. That equal variances need
equal numbers is not proved: k_i/w_i has no bound. A dash: no linear system is solved, so that no solver is a rival.
"""


LARGER = """\
Larger n, not emulated: P is measured there as well, and the readout is taken to use the preparation as often as at
the largest n above. The table before needs a fit of P; this one does not, but has no intervals.
Queries by amplitude estimation, products of means, and what reading all entries takes:
"""
NO_SYSTEM = """\
No entry of K̃ is needed here: the diagonal apart, what is left is so small that |y> is the solution within ε, if |E|
is known. That is the series in E of degree 0. The other solvers below ask for entries all the same, and cost more. So
this network at this depth is no evidence for a speedup by inverting K̃ on a quantum computer. What is left is an
inner product of k* with y.
"""


def larger_table(emulation: Emulation, results: Mapping[str, Array]) -> str:
    """The diagonal algorithm at the sizes of `results`, {prefix}_results.npz, from the largest emulated one on."""
    t, last = emulation.index(thresholds="median")["thresholds"], emulation.sizes[-1]
    points = np.concatenate([record["points_needed_diagonal"][[t]] for record in emulation.records[last]])
    uses, rows = np.mean([uses_of_schedule(p) for p in points]), []
    for s, n in enumerate(results["data_sizes"].astype(int)):
        measured = results["post_selection_measurements_training"][s][results["computed"][s]]  # 1/P, [trials, test]
        if n >= last and len(measured):
            w, k = amplified_estimate(1, 1.0, 2, 1 / measured.ravel())
            queries = np.reshape(w + 2 * k, measured.shape).mean(axis=1)
            mean = queries.mean()
            rows.append([str(n), str(len(measured)), number(mean), f"{uses * mean:.0f}", str(2 * n)])
    return tables.table(["n", "trials", "queries a use", "queries a prediction", "operations classically, 2n"], rows)


def report(emulation: Emulation, fit: Any, results: Mapping[str, Array] | None = None) -> str:
    """All tables of one network. results: the arrays of {prefix}_results.npz, for larger n."""
    curves = "".join(f"- {curve}: {what}\n" for curve, (what, _) in summary(emulation).items())
    few = f"Not judged: fewer than {FEWEST_SIZES} sizes.\n"
    parts = [
        ("Cheapest over all sizes:\n", curves),
        (CONDITIONS, cost_table(emulation)),
        (CONVENTIONS, convention_table(emulation)),
        (NORMALISED, accuracy_table(emulation)),
        ("The classical local solver, its series' length from the spectral radius:\n", local_table(emulation)),
        ("What is assumed:\n", assumption_table(emulation)),
        (CROSSING, crossing_table(crossings(emulation, fit)) if len(emulation.sizes) >= FEWEST_SIZES else few),
    ]
    if without_queries(emulation):
        parts.insert(1, (NO_SYSTEM, ""))
        if results is not None and results["data_sizes"].max() > emulation.sizes[-1]:
            parts.append((LARGER, larger_table(emulation, results)))
    return "\n".join(itertools.chain(*parts))
