"""The quantum algorithm of arXiv:2107.09200, emulated on the kernels that training.py wrote.

    python emulation.py                                 # every complete trial in kernel_output/
    python emulation.py --networks fully-connected --data-sizes 16 32 --trials 4
    python emulation.py --help                          # everything else

A prediction is the sign of o - t, o = <k*|w>, with |w> ~ K~^-1 |y> (sparsified, by a quantum linear
solver) or |w> = |y> (diagonal), and t = 0 or the median of the o of the test set. Everything is
computed classically but as the algorithm does it, with its errors and probabilities of success;
what it costs is counted in queries, for every solver, block encoding and readout, beside what a
classical computer does for the same prediction.

Read from top to bottom: what a record holds, states, readout, cost, classical rivals, a trial. The
solvers, formulas and assumptions are in quantum/; the same as gates is in circuit.py. Writes
`{prefix}_emulation.nc`: the quantities of `DESCRIPTIONS` by size and trial.
"""

from runtime import streams

if __name__ == "__main__":
    streams.prepare_process()  # before the other imports: they take seconds

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import xarray as xr
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.sparse.linalg import cg
from threadpoolctl import threadpool_limits

import training
from ntk import BadInput
from quantum import assumptions, classical, readout, solvers
from quantum.solvers import ENCODINGS, SOLVERS, Encoding, Prepared
from runtime import options, stored
from runtime.linear_algebra import Array, Matrix, solve
from runtime.results import ResultsFile, code_version, foreign_explained, quantity
from runtime.stored import StoredTrials
from runtime.trials import Network
from training import TrialKernels

Values = dict[str, Any]  # of quantities, by name
Random = Callable[[str], Generator]  # generators by purpose

# --------------------------------------------------------------------------------------------------
# Constants
# --------------------------------------------------------------------------------------------------

VERSION = 5  # of the constants here and in quantum/; functions that change are noticed without it
SHARE = 0.99  # of the noiseless accuracy, that a readout has to reach
EPSILON_SHARE = 0.1  # error of |w>, which moves o by that at most, over the shot noise 1/sqrt(M)
LARGEST_EPSILON = 0.1
CG_ERROR = 1e-13  # relative residual of the conjugate gradients that solve large matrices
FOLLOWED = 256  # weights that stand for all in the local solver's mean costs, of large matrices
QRAM_QUERIES_PER_STATE = 2  # |k*>: load, rotate an ancilla, load again to uncompute
SHOTS = [int(m) for m in np.unique(np.geomspace(1, 10**6, 31).round())]  # five a decade

LEVELS: dict[str, Callable[[Array], Any]] = {  # t, of the outputs of all test images
    "test median": np.median,
    "zero": lambda outputs: 0.0,
}
READOUTS = ("shots", "amplified shots", "amplitude estimation")
KINDS = ("oracle", "QRAM", "all")  # queries: to K~'s entries; to k*; both and those to y
STATISTICS = ("mean", "10 %", "median", "90 %")  # over the test images
METHODS = (  # of a classical computer: `classical_operations`
    "all entries",
    "sampler",
    "sampler, local solver",
    "conjugate gradients anew",
    "Cholesky anew",
)
SAMPLER_OPERATIONS = {  # for each entry that it reads
    "test median": classical.SAMPLER_OPERATIONS["median"],
    "zero": classical.SAMPLER_OPERATIONS["zero"],
}
MEDIAN = list(LEVELS).index("test median")

LABELS: dict[str, list[Any]] = {  # of the axes, beside n, trial, pattern and image
    "approximation": ["sparsified", "diagonal"],
    "threshold": list(LEVELS),
    "divisor": list(training.divisors),
    "solver": list(SOLVERS),
    "encoding": list(ENCODINGS),
    "readout": list(READOUTS),
    "kind": list(KINDS),
    "statistic": list(STATISTICS),
    "method": list(METHODS),
    "shots": SHOTS,
    "overlaps": ["exact", "from shots"],
    "degree_by": ["norm of E", "beta"],
}

# --------------------------------------------------------------------------------------------------
# What a trial's record holds
# --------------------------------------------------------------------------------------------------


class Description(NamedTuple):
    """A quantity's own axes, what it is, and its unit."""

    axes: tuple[str, ...]
    long_name: str
    units: str = "1"


T = ("threshold",)
RUNS = ("threshold", "solver", "encoding")
COSTS = ("readout", "divisor", "kind", "statistic")

OF_PREDICTIONS = {  # of both approximations; of the sparsified one, by pattern
    "overlap": Description(("image",), "o = <k*|w>"),
    "accuracy_noiseless": Description(T, "accuracy of the sign of o - t"),
    "accuracy_unnormalised": Description(T, "accuracy of k*'w, not divided by |k*|"),
    "accuracy_clipped": Description(T, "accuracy where k* is clipped at the training matrix's"),
    "accuracy_after_shots": Description((*T, "shots"), "accuracy after so many shots an image"),
    "shots_needed": Description(T, "shots for 99 % of the noiseless accuracy", "shots"),
    "points_needed": Description(
        T, "points of amplitude estimation's schedule for the same", "points"
    ),
    "accuracy_unbalanced": Description(T, "accuracy with P/p wrong by a factor of 2"),
    "accuracy_calibrated": Description(
        ("overlaps",), "accuracy with t from every second test image, the shots needed for each"
    ),
    "samples_needed": Description(T, "entries that the sampler reads for the same", "entries"),
    "operations_classical": Description(
        (*T, "method"), "operations of a classical computer for a prediction", "operations"
    ),
}
OF_MATRICES = {  # of the sparsified approximation alone, by pattern
    "sparsity": Description((), "largest number of non-zero entries in a column", "entries"),
    "kappa": Description(("encoding",), "condition number of the block encoding, K~/alpha"),
    "epsilon": Description(T, "largest error of |w> that is allowed"),
    "uses": Description(RUNS, "uses of the block encoding by a run of the solver", "uses"),
    "success_probability": Description(RUNS, "p, that a run of the solver succeeds"),
    "solver_error": Description(RUNS, "error of the state that the solver prepares"),
    "cost": Description((*RUNS, *COSTS), "queries of one prediction", "queries"),
    "cheapest_quantum": Description(
        (*T, "divisor"), "least mean number of queries of one prediction", "queries"
    ),
    "cheapest_quantum_index": Description(
        (*T, "divisor"), "where that is in [solver, encoding, readout], flattened"
    ),
    "cheapest_classical": Description(T, "least number of classical operations", "operations"),
    "dominant_rows": Description((), "share of the rows that the diagonal dominates"),
    "jacobi_radius": Description((), "spectral radius of D^-1 K~ - 1, D the diagonal of K~"),
    "local_length": Description(T, "length of the local solver's series", "terms"),
    "local_entries": Description(T, "entries of K~ that it reads for one weight", "entries"),
    "local_operations": Description(T, "its operations for one weight", "operations"),
    "local_error": Description(T, "error of its weights"),
    "local_accuracy": Description(T, "accuracy of its weights"),
    "series_operations": Description(T, "of the same series for all weights", "operations"),
    "iterations": Description(T, "of conjugate gradients until the error is epsilon", "iterations"),
    "cost_kappa_doubled": Description(
        (*T, "encoding"), "cost with half the smallest eigenvalue over that with the right one"
    ),
    "error_kappa_halved": Description((*T, "encoding"), "error with twice the smallest eigenvalue"),
    "cost_norm_unknown": Description(
        (*T, "encoding"), "queries of kernel reflection without |H^-1 y| over those with it"
    ),
    "cost_degrees": Description(
        (*T, "degree_by"), "degree of the series in E by what is known of |E|"
    ),
    "cost_one_norm": Description(T, "queries of QSVT by the sparse oracle over those by I + E"),
    "cost_fixed_point": Description(
        (*T, "divisor"), "queries to k* of fixed-point amplification over those that know P"
    ),
    "bits_matrix": Description((), "bits of K~'s entries for 99 % of the accuracy", "bits"),
    "bits_test": Description(("divisor",), "bits of k*'s entries for the same", "bits"),
}
OF_TRIALS = {
    "qram_writes": Description((), "kernel evaluations to write a prediction's k*", "evaluations"),
    "post_selection_probability": Description(("divisor", "image"), "P, that |k*> is prepared"),
    "accuracy_weighted": Description(T, "accuracy of k*'w, w_i = y_i/K_ii"),
    "cost_without_solver": Description(
        (*T, *COSTS), "queries of one prediction with |w> = |y>", "queries"
    ),
}
DESCRIPTIONS = OF_PREDICTIONS | OF_MATRICES | OF_TRIALS


def labelled(values: Values) -> xr.Dataset:
    """The same with axes, their labels, what they are, and units, as `DESCRIPTIONS` says."""
    record = xr.Dataset()
    for name, value in values.items():
        axes, long_name, units = DESCRIPTIONS[name]
        record[name] = quantity(axes, value, long_name, units)
    for axis in map(str, record.dims):
        record = record.assign_coords({axis: LABELS.get(axis, range(record.sizes[axis]))})
    return record


def shape_of(axes: Iterable[str]) -> list[int]:
    """The lengths of axes that have `LABELS`."""
    return [len(LABELS[axis]) for axis in axes]


def of_singular_matrix(images: int) -> xr.Dataset:
    """The record of a K~ that is singular: NaN."""
    values = {}
    for name, description in (OF_PREDICTIONS | OF_MATRICES).items():
        sizes = [len(LABELS[axis]) if axis in LABELS else images for axis in description.axes]
        values[name] = np.full(sizes, np.nan)
    return labelled(values)


def stacked(records: list[Values]) -> Values:
    """The values of all of them, on one more axis, the first."""
    return {name: np.array([record[name] for record in records]) for name in records[0]}


# --------------------------------------------------------------------------------------------------
# States: |k*>
# --------------------------------------------------------------------------------------------------


class Held(NamedTuple):
    """A trial's test images as QRAM holds them.

    k: k* [x, n] by divisor, |k_i| <= 1; label [x]. Overlaps are of `normalised`, k*/k_thresh; what
    clipping by the known divisor, the training matrix's largest entry, does is accuracy_clipped.
    """

    k: dict[str, Array]
    label: NDArray

    @property
    def normalised(self) -> Array:
        """k*/k_thresh. [x, n]"""
        return self.k["fixed constant"]

    @property
    def probabilities(self) -> Array:
        """P = sum_i k_i^2/n that |k*> is prepared. [divisors, x]"""
        return np.minimum([training.post_selection_probability(k) for k in self.k.values()], 1)


def held_by_qram(kernels: TrialKernels) -> Held:
    """The test images of a trial, by all of training.py's divisors."""
    by_divisor = {name: scale(kernels) for name, scale in training.divisors.items()}
    return Held(by_divisor, kernels.test_label)


# --------------------------------------------------------------------------------------------------
# Readout: how many shots, or rounds of amplitude estimation, a prediction needs
# --------------------------------------------------------------------------------------------------


def levels_of(outputs: Array) -> Array:
    """The t of these outputs [x], by threshold."""
    return np.array([level(outputs) for level in LEVELS.values()])


def accuracies(outputs: Array, label: NDArray, levels: Array) -> list[float]:
    """Accuracy of the sign of output - t, by threshold."""
    return [readout.noiseless_accuracy(outputs, label, t) for t in levels]


def read_out(held: Held, state: Array, rng: Generator) -> Values:
    """What it takes to read the sign of o - t for |w> = state [n]: most of `OF_PREDICTIONS`."""
    label = held.label
    overlap = training.overlaps(held.normalised, state)
    unnormalised = held.normalised @ state
    clipped = training.overlaps(held.k["training set"], state)
    levels = levels_of(overlap)
    after_shots, shots = [], []
    for t in levels:
        after_shots.append([readout.accuracy_of_shots(overlap, label, t, m) for m in SHOTS])
        shots.append(readout.shots_needed(overlap, label, t, SHARE))
    points = readout.points_needed(overlap, label, levels, SHARE, rng)
    return {
        "overlap": overlap,
        "accuracy_noiseless": accuracies(overlap, label, levels),
        "accuracy_unnormalised": accuracies(unnormalised, label, levels_of(unnormalised)),
        "accuracy_clipped": accuracies(clipped, label, levels_of(clipped)),
        "accuracy_after_shots": after_shots,
        "shots_needed": shots,
        "points_needed": points,
        "accuracy_unbalanced": accuracies(assumptions.unbalanced(overlap), label, levels),
        "accuracy_calibrated": assumptions.calibrated_accuracy(overlap, label, shots[MEDIAN], rng),
    }


# --------------------------------------------------------------------------------------------------
# Cost: queries of one prediction
# --------------------------------------------------------------------------------------------------


def over_images(queries: Array) -> list[float]:
    """The `STATISTICS`: 1/P is heavy-tailed, and the mean is what many predictions cost."""
    return [queries.mean(), *np.quantile(queries, (0.1, 0.5, 0.9), method="higher")]


class Uses(NamedTuple):
    """How often a shot or round prepares |w> and |k*> of each image, and the number of those."""

    of_w: Array
    of_k: Array
    times: float


def uses_by_readout(prepared: Prepared, P: Array, shots: float, points: float) -> list[Uses]:
    """Uses by each of the `READOUTS`; P: of every test image [x].

    "Amplitude estimation" uses the preparation of both and its inverse as its schedule says; NaN
    where there is no inverse.
    """
    p = prepared.success_probability
    cost_w = prepared.oracle_queries + prepared.label_queries
    cost_k = QRAM_QUERIES_PER_STATE
    rounds = readout.uses_of_schedule(points) if prepared.coherent else np.nan
    return [
        Uses(*readout.uses_per_shot(p, P), shots),
        Uses(*readout.amplified_shot(cost_w, p, cost_k, P), shots),
        Uses(*readout.amplified_estimate(cost_w, p, cost_k, P), rounds),
    ]


def cost(prepared: Prepared, probabilities: Array, shots: float, points: float) -> Array:
    """Queries of one prediction. -> [readouts, divisors, kinds, statistics]

    prepared: of |w>; probabilities: P [divisors, x]; shots, points: needed at this threshold. NaN
    for a solver that does not apply.
    """
    queries = np.full(shape_of(COSTS), np.nan)
    if np.isnan(prepared.success_probability):
        return queries
    for d, P in enumerate(probabilities):
        for r, uses in enumerate(uses_by_readout(prepared, P, shots, points)):
            for kind, each_time in enumerate(queries_each_time(prepared, uses)):
                is_free = not each_time.any()  # also for ever
                queries[r, d, kind] = 0 if is_free else over_images(each_time * uses.times)
    return queries


def queries_each_time(prepared: Prepared, uses: Uses) -> list[Array]:
    """Queries by one shot or round, by each of the `KINDS`."""
    to_oracle = uses.of_w * prepared.oracle_queries
    to_k = uses.of_k * QRAM_QUERIES_PER_STATE
    to_w = uses.of_w * (prepared.oracle_queries + prepared.label_queries)
    return [to_oracle, to_k, to_w + to_k]


# --------------------------------------------------------------------------------------------------
# Classical rivals: operations of one prediction
# --------------------------------------------------------------------------------------------------


def sampler_costs(held: Held, state: Array, levels: Array, rng: Generator) -> Values:
    """What reading k* and |w> = state [n], which is known, costs: the first two `METHODS`."""
    samples = classical.samples_needed(held.normalised, state, held.label, levels, SHARE, rng)
    operations = np.full((len(LEVELS), len(METHODS)), np.nan)
    operations[:, 0] = 2 * len(state)
    operations[:, 1] = samples * [SAMPLER_OPERATIONS[threshold] for threshold in LEVELS]
    return {"samples_needed": samples, "operations_classical": operations}


def solver_costs(
    matrix: Matrix, y: NDArray, exact: Array, epsilon: float, radius: float, samples: float
) -> Values:
    """What finding the weights costs, at one threshold, within epsilon of `exact` [n].

    radius: of `classical.jacobi_radius`; samples: weights that the sampler reads. The local solver
    finds those, each alone (local_operations) or, where that is cheaper, all at once
    (series_operations); conjugate gradients find all of them. Returns weights [n] besides.
    """
    n, sparse = len(y), scipy.sparse.csr_array(matrix)
    error = solvers.relative_error(epsilon)
    followed = None if n <= training.dense_limit else np.linspace(0, n - 1, FOLLOWED).astype(int)
    weights, entries, operations, length = classical.local_solve(matrix, y, error, radius, followed)
    series = classical.series_operations(sparse, length)
    iterations = classical.conjugate_gradient_iterations(sparse, y, exact, epsilon)
    return {
        "weights": weights,
        "local_length": length,
        "local_entries": entries.mean(),
        "local_operations": operations.mean(),
        "local_error": np.linalg.norm(weights / np.linalg.norm(weights) - exact),
        "series_operations": series,
        "iterations": iterations,
        "local": min(samples * operations.mean(), series),
        "anew": 2 * n + classical.conjugate_gradient_operations(sparse, iterations),
        "Cholesky": 2 * n + classical.cholesky_operations(n),
    }


def classical_costs(
    matrix: Matrix, y: NDArray, exact: Array, held: Held, epsilons: Array, rng: Generator
) -> Values:
    """What a classical computer does for the prediction of K~ = matrix, whose |w> is exact [n].

    operations_classical, by method: "all entries" adds up k*'w, w solved once, and so has
    "sampler"; "local solver" finds the w_i that are sampled; "anew" finds all for every prediction.
    """
    levels = levels_of(training.overlaps(held.normalised, exact))
    read = sampler_costs(held, exact, levels, rng)
    operations, radius = read["operations_classical"], classical.jacobi_radius(matrix)
    by_threshold = []
    for t, level in enumerate(levels):
        solved = solver_costs(matrix, y, exact, epsilons[t], radius, read["samples_needed"][t])
        operations[t, 2] = operations[t, 1] + solved.pop("local")
        operations[t, 3:] = solved.pop("anew"), solved.pop("Cholesky")
        overlap = training.overlaps(held.normalised, solved.pop("weights"))
        converges = solved["local_length"] >= 0
        right = readout.noiseless_accuracy(overlap, held.label, level)
        solved["local_accuracy"] = right if converges else np.nan
        by_threshold.append(solved)
    return {
        **read,
        **stacked(by_threshold),
        "jacobi_radius": radius,
        "dominant_rows": np.mean(classical.dominance(matrix) < 1),
        "cheapest_classical": np.nanmin(operations, axis=1),
    }


# --------------------------------------------------------------------------------------------------
# One sparsified matrix: from the solver to the cost
# --------------------------------------------------------------------------------------------------


def allowed_errors(shots_needed: list[float]) -> Array:
    """Epsilon, by threshold: a tenth of the shot noise of the shots that are needed."""
    epsilons = np.minimum(EPSILON_SHARE / np.sqrt(shots_needed), LARGEST_EPSILON)
    return np.maximum(epsilons, EPSILON_SHARE / math.sqrt(readout.MOST_SHOTS))


def run_solvers(
    encodings: dict[str, Encoding], exact: Array, epsilons: Array, read: Values, held: Held
) -> Values:
    """All solvers through all block encodings, and their costs. read: of `read_out`."""
    uses, probability, error = np.full((3, *shape_of(RUNS)), np.nan)
    queries = np.full(shape_of((*RUNS, *COSTS)), np.nan)
    shots, points = read["shots_needed"], read["points_needed"]
    for place, prepared in solvers.prepare_all(encodings, epsilons):
        t, *_ = place
        uses[place] = prepared.uses
        probability[place] = prepared.success_probability
        error[place] = np.linalg.norm(prepared.state - exact)
        queries[place] = cost(prepared, held.probabilities, shots[t], points[t])
    values = {"uses": uses, "success_probability": probability, "solver_error": error}
    return values | {"cost": queries} | cheapest(queries)


def cheapest(queries: Array) -> Values:
    """The least mean of all queries, by threshold and divisor, and where it is."""
    means = queries[..., KINDS.index("all"), STATISTICS.index("mean")]
    means = np.where(np.isnan(means), np.inf, means)
    means = means.reshape(len(LEVELS), -1, len(training.divisors))
    return {
        "cheapest_quantum": means.min(axis=1),
        "cheapest_quantum_index": means.argmin(axis=1),
    }


def without_assumptions(
    encodings: dict[str, Encoding], exact: Array, epsilons: Array, runs: Values, held: Held
) -> Values:
    """What becomes of the costs where a number is not known. runs: of `run_solvers`."""
    doubled, halved = assumptions.misjudged_eigenvalue(encodings, epsilons, exact)
    uses, probability = runs["uses"], runs["success_probability"]
    unknown = assumptions.unknown_numbers(
        encodings, epsilons, uses, probability, held.probabilities
    )
    unknown["cost_one_norm"] = unknown["cost_one_norm"][:, 0]
    return {"cost_kappa_doubled": doubled, "error_kappa_halved": halved, **unknown}


def solution(matrix: Matrix, y: NDArray) -> Array:
    """K~^-1 y, of unit norm [n]; NaN if K~ is singular.

    A sparse K~ is solved by conjugate gradients: the factors of a random pattern are not sparse,
    and are computed only where those don't converge.
    """
    if not isinstance(matrix, np.ndarray):
        start = y.astype(float)
        with np.errstate(all="ignore"):  # a matrix that is singular is told below
            weights, _ = cg(matrix, start, rtol=CG_ERROR, maxiter=2000)
        if np.linalg.norm(matrix @ weights - y) <= 10 * CG_ERROR * np.linalg.norm(y):
            return weights / np.linalg.norm(weights)
    return solve(matrix, y)


def bits_needed(matrix: Matrix, y: NDArray, exact: Array, held: Held) -> Values:
    """Bits of the entries of K~ = matrix and of k* for 99 % of the accuracy at the median."""
    k, label = held.normalised, held.label
    overlap = training.overlaps(k, exact)
    t = float(np.median(overlap))
    goal = SHARE * readout.noiseless_accuracy(overlap, label, t)
    bits_test = []
    for scaled in held.k.values():
        bits_test.append(assumptions.bits_of_test(scaled, 1, exact, label, t, goal))

    def solved(rough: Matrix) -> Array:
        return solution(rough, y)

    bits_matrix = assumptions.bits_of_matrix(matrix, solved, k, label, t, goal)
    return {"bits_test": bits_test, "bits_matrix": bits_matrix}


def emulate_pattern(matrix: Matrix, y: NDArray, held: Held, random: Random) -> xr.Dataset:
    """One sparsified matrix K~ [n, n]: `OF_PREDICTIONS` and `OF_MATRICES`; NaN if it is singular.

    Shots are those of the exact |w>. random: generators by purpose.
    """
    exact = solution(matrix, y)
    if np.isnan(exact).any():
        return of_singular_matrix(len(held.label))
    read = read_out(held, exact, random("readout"))
    epsilons = allowed_errors(read["shots_needed"])
    encodings = solvers.block_encodings(matrix, y)
    kappas = [encodings[name].kappa if name in encodings else np.inf for name in ENCODINGS]
    runs = run_solvers(encodings, exact, epsilons, read, held)
    return labelled({
        **read,
        "sparsity": training.sparsity(matrix),
        "epsilon": epsilons,
        "kappa": kappas,
        **runs,
        **classical_costs(matrix, y, exact, held, epsilons, random("sampler")),
        **without_assumptions(encodings, exact, epsilons, runs, held),
        **bits_needed(matrix, y, exact, held),
    })  # fmt: skip


# --------------------------------------------------------------------------------------------------
# One trial
# --------------------------------------------------------------------------------------------------


def emulate_diagonal(kernels: TrialKernels, held: Held, random: Random) -> Values:
    """The prediction of the diagonal algorithm, |w> = |y>: no solver, no query to K~."""
    y = kernels.train_label
    read = read_out(held, y, random("readout"))
    labels_alone = Prepared(y / np.linalg.norm(y), 0, 1.0)
    queries = []
    for shots, points in zip(read["shots_needed"], read["points_needed"], strict=True):
        queries.append(cost(labels_alone, held.probabilities, shots, points))
    weighted = held.normalised @ (y / kernels.train.diagonal())
    accuracy_weighted = accuracies(weighted, held.label, levels_of(weighted))
    sampled = sampler_costs(held, y, levels_of(read["overlap"]), random("sampler"))
    own = {"cost_without_solver": queries, "accuracy_weighted": accuracy_weighted}
    return {**read, **sampled, **own}


def emulate_trial(kernels: TrialKernels, matrices: Iterable[Matrix], random: Random) -> xr.Dataset:
    """All `DESCRIPTIONS` of one trial. matrices: K~ [n, n] of every pattern.

    random: generators by purpose. All draw the same random numbers, so that they differ in nothing
    else. What does not depend on the pattern is the same for all of them.
    """
    held = held_by_qram(kernels)
    diagonal = labelled({
        **emulate_diagonal(kernels, held, random),
        "qram_writes": len(kernels.train_label),
        "post_selection_probability": held.probabilities,
    })  # fmt: skip
    records = [emulate_pattern(each, kernels.train_label, held, random) for each in matrices]
    sparsified = xr.concat(records, xr.Variable("pattern", np.arange(len(records))))
    both = [records[list(OF_PREDICTIONS)] for records in (sparsified, diagonal)]
    axis = xr.Variable("approximation", LABELS["approximation"])
    record = xr.concat(both, axis).transpose("approximation", "pattern", ...)
    own = sparsified[list(OF_MATRICES)].merge(diagonal[list(OF_TRIALS)])
    return record.merge(own)


# --------------------------------------------------------------------------------------------------
# Running: all trials in a folder
# --------------------------------------------------------------------------------------------------


class StoredTrial(NamedTuple):
    """A trial from its files: kernels, K~ of every pattern, and generators by purpose."""

    kernels: TrialKernels
    matrices: list[Matrix]
    random: Random

    @property
    def fingerprint(self) -> int:
        """A number that stands for the matrices and k*."""
        return stored.fingerprint(*self.matrices, self.kernels.test_normalised)


def stored_trial(trials: StoredTrials, size: int, number: int) -> StoredTrial:
    """Read a trial. Raises BadInput where a file is not there or damaged, or there is no |k*>."""
    seed = trials.seed
    kernels = training.stored_kernels(trials.folder, trials.prefix, size, number, seed)
    if not np.all(np.any(kernels.test_normalised, axis=1)):
        path = trials.kernel_test(size, number)
        raise BadInput("input", path, "a row is 0, no |k*>; remove the trial")
    matrices = []
    for pattern in training.trial_patterns(seed, kernels.trial):
        if pattern.convention == "original":
            matrices.append(training.sparsified(kernels, pattern))
    return StoredTrial(
        kernels, matrices, lambda purpose: kernels.trial.random(seed, f"emulation {purpose}")
    )


def code_files() -> list[Path]:
    """The files whose functions decide a record."""
    here = Path(__file__).resolve()
    return [here, *sorted((here.parent / "quantum").glob("*.py"))]


def chosen_trials(args: argparse.Namespace, network: Network) -> StoredTrials | None:
    """The trials of a network that the command line asks for and that are in the folder."""
    classes = args.classes or training.selections[network.name]
    trials = stored.stored_trials(args.input, args.dataset, network, classes, args.seed)
    numbers = trials.numbers if trials else {}
    for size in sorted(set(args.data_sizes or []) - set(numbers)):
        what = f"{network.name}, n = {size}, seed {args.seed}"
        print(f"note: no complete trial of {what} in {args.input}/")
    chosen = {}
    for size in numbers:
        if not args.data_sizes or size in args.data_sizes:
            chosen[size] = numbers[size][: args.trials]
    if trials is None or not chosen:
        print(f"note: nothing to emulate of the {network.name} network")
        return None
    return trials.only(chosen)


def run_network(args: argparse.Namespace, trials: StoredTrials) -> None:
    """Emulate trials, and merge them into their network's results.

    A trial that the results hold, of the same inputs and the same code, is not computed again.
    """
    trials.say_note()
    path = args.output / f"{trials.prefix}_emulation.nc"
    code = code_version(*code_files())
    with ResultsFile(path, trials.origin | {"emulation": VERSION}) as results:
        for size, number in trials.all():
            trial = stored_trial(trials, size, number)
            key = {"n": size, "trial": number}
            inputs = stored.inputs_of(trial.fingerprint, code)
            if not results.holds(key, inputs):
                record = emulate_trial(*trial)
                about = stored.provenance(trials.kernel_test(size, number))
                results.keep(key, record.assign(inputs | about))
    if not results.computed_now:
        print(f"{path} has all of these trials")
    with foreign_explained(path):
        for size, numbers in trials.numbers.items():
            print(summary(trials.prefix, results.results.sel(n=size, trial=numbers)))


def summary(prefix: str, records: xr.Dataset) -> str:
    """One size's means, threshold at the median and k* over the training matrix's largest entry."""
    at_median = records.sel(threshold="test median")
    shots = at_median.shots_needed.sel(approximation="sparsified").mean()
    quantum = at_median.cheapest_quantum.sel(divisor="training set").mean()
    operations = at_median.cheapest_classical.mean()
    return (
        f"{prefix} n = {records.n.item()}: trials {records.sizes['trial']}, "
        f"shots needed {shots:.0f}, cheapest quantum {quantum:.3g} queries, "
        f"classical {operations:.3g} operations"
    )


def run_networks(args: argparse.Namespace) -> None:
    """Emulate everything that the command line asks for. Raises BadInput where nothing is there."""
    networks = training.make_networks()
    is_any = False
    for name in args.networks:
        trials = chosen_trials(args, networks[name])
        if trials:
            run_network(args, trials)
            is_any = True
    if not is_any:
        raise BadInput("input", args.input, "no such complete trial there; run training.py first")


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, or 2 after one line about a bad input."""
    parser = options.Parser(description="The quantum algorithm of arXiv:2107.09200, emulated.")
    number = {"type": options.whole_number}
    everything = "all that are there"
    stored.add_network_options(parser, training.selections, training.seed)
    stored.add_dataset_option(parser)
    parser.add_options([
        (
            "--data-sizes",
            dict(number, nargs="+", metavar="N"),
            "numbers of training images",
            everything,
        ),
        ("--trials", dict(number, metavar="T"), "trials of each size at most", everything),
    ])  # fmt: skip
    parser.add_output("--input", "folder of training.py's kernels")
    parser.add_output()
    args = stored.parse_arguments(parser, argv)
    parser.check(args.trials is None or args.trials > 0, "trials", args.trials, "use 1 or more")
    with threadpool_limits(1):  # LAPACK's threads crawl where other jobs share the cores
        return options.with_folder(args.output, lambda: run_networks(args))


if __name__ == "__main__":
    streams.run_script(main)
