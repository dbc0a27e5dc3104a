"""The quantum algorithm of arXiv:2107.09200, emulated on the kernels that training.py wrote.

    python emulation.py                                 # every complete trial in kernel_output/
    python emulation.py --networks fully-connected --data-sizes 16 8192 --trials 4
    python emulation.py --help                          # everything else

A prediction is the sign of o - t, o = <k*|w>, with |w> ~ K~^-1 |y> (sparsified, by a quantum linear
solver) or |w> = |y> (diagonal), and t = 0, the median of the o of the test set or, as a single
prediction can know it, of half of the test set. Everything is computed classically but as the
algorithm does it, with its errors and probabilities of success; what it costs is counted in
queries, for every solver, block encoding and readout, beside what a classical computer does for the
same prediction. Both stop as soon as the sign is clear. That is tuned on the half of the test
images that t is known from, the calibration half, and counted on the other half.

Read from top to bottom: what a record holds, states, readout, cost, classical rivals, a trial. The
solvers, formulas and assumptions are in quantum/; the same as gates is in circuit.py. Kernels that
take seconds and are not in the folder are computed. Writes `{prefix}_emulation.nc`: the quantities
of `DESCRIPTIONS` by size and trial.
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
from ntk import BadInput, fully_connected_ntk
from ntk.fully_connected import fully_connected_pairs
from quantum import assumptions, classical, queries, readout, sequential, solvers
from quantum.assumptions import LEVELS
from quantum.queries import KINDS, READOUTS
from quantum.sequential import Reading
from quantum.solvers import ENCODINGS, SOLVERS, Encoding, Prepared
from runtime import options, stored
from runtime.checkpoints import symmetric
from runtime.datasets import CannotBeHad, load_images
from runtime.linear_algebra import Array, Matrix, closest_pair, solve
from runtime.results import ResultsFile, code_version, foreign_explained, quantity
from runtime.stored import StoredTrials
from runtime.trials import Network, Run, Trial
from training import Pattern, TrialKernels

Values = dict[str, Any]  # of quantities, by name
Random = Callable[[str], Generator]  # generators by purpose

# --------------------------------------------------------------------------------------------------
# Constants
# --------------------------------------------------------------------------------------------------

VERSION = 6  # of the constants here and in quantum/; functions that change are noticed without it
PATTERNS = training.original_patterns  # of a trial, in the original's convention
SHARE = 0.99  # of the noiseless accuracy, that a readout has to reach
EPSILON_SHARE = 0.1  # error of |w>, which moves o by that at most, over the shot noise 1/sqrt(M)
LARGEST_EPSILON = 0.1
CG_ERROR = 1e-13  # relative residual of the conjugate gradients that solve large matrices
FOLLOWED = 256  # weights that stand for all in the local solver's mean costs, of large matrices

# Trials whose kernels take seconds, computed where the folder has not got them.
quick_trials = dict(zip(training.data_sizes, training.trials, strict=True))
quick_trials |= {1024: 4, 2048: 4, 4096: 4, 8192: 4}

EFFORTS = ("fixed", "sequential")  # every image as many shots, or until its sign is clear
UNITS = ("shots", "uses", "reads")  # of Wald's test, amplitude estimation, the classical sampler
METHODS = (  # of a classical computer: `classical_operations`
    "all entries",
    "sampler",
    "sampler, local solver",
    "conjugate gradients anew",
    "Cholesky anew",
)
SAMPLER_OPERATIONS = [classical.SAMPLER_OPERATIONS[level] for level in LEVELS]  # for each entry
CALIBRATED = LEVELS.index("calibrated")

LABELS: dict[str, list[Any]] = {  # of the axes, beside n, trial, pattern and image
    "approximation": ["sparsified", "diagonal"],
    "threshold": list(LEVELS),
    "divisor": list(training.divisors),
    "solver": list(SOLVERS),
    "encoding": list(ENCODINGS),
    "readout": list(READOUTS),
    "kind": list(KINDS),
    "method": list(METHODS),
    "effort": list(EFFORTS),
    "unit": list(UNITS),
    "bound": ["low", "high"],
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
COSTS = ("readout", "divisor", "effort", "kind")
ONCE = ("readout", "divisor")

# Accuracies and efforts are of the test images outside the calibration half. All these are of both
# approximations; of the sparsified one, by pattern.
OF_PREDICTIONS = {
    "overlap": Description(("image",), "o = <k*|w>"),
    "level": Description(T, "t"),
    "accuracy_noiseless": Description(T, "accuracy of the sign of o - t"),
    "accuracy_clipped": Description(T, "accuracy where k* is clipped at the training matrix's"),
    "accuracy_unbalanced": Description(T, "accuracy with P/p wrong by a factor of 2"),
    "accuracy_drawn": Description((), "accuracy with t from the shots needed for each image"),
    "needed": Description(
        (*T, "unit", "effort"), "shots, uses of the preparation, or reads, of one prediction"
    ),
    "stated_error": Description((*T, "unit"), "error that the sequential readout states"),
    "accuracy_read": Description((*T, "unit", "effort"), "accuracy of the readout"),
    "accuracy_interval": Description((*T, "unit", "effort", "bound"), "its 95 % interval"),
    "accuracy_kept": Description((*T, "unit", "effort"), "accuracy_read over accuracy_noiseless"),
    "operations_classical": Description(
        (*T, "method", "effort"), "classical operations of a prediction", "operations"
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
    "calibration_queries": Description(
        ("solver", "encoding", *ONCE), "queries for the calibrated t, once for all", "queries"
    ),
    "dominant_rows": Description((), "share of the rows that the diagonal dominates"),
    "jacobi_radius": Description((), "spectral radius of D^-1 K~ - 1, D the diagonal of K~"),
    "local_length": Description(T, "length of the local solver's series", "terms"),
    "local_entries": Description(T, "entries of K~ that it reads for one weight", "entries"),
    "local_operations": Description(T, "its operations for one weight", "operations"),
    "local_error": Description(T, "error of its weights"),
    "local_accuracy": Description(T, "accuracy of its weights"),
    "series_operations": Description(T, "of the same series for all weights", "operations"),
    "iterations": Description(T, "of conjugate gradients until the error is epsilon", "iterations"),
    # What becomes of the costs where a number is not known; all with the calibrated t.
    "cost_kappa_doubled": Description(
        ("encoding",), "cost with half the smallest eigenvalue over that with the right one"
    ),
    "error_kappa_halved": Description(("encoding",), "error with twice the smallest eigenvalue"),
    "cost_norm_unknown": Description(
        ("encoding",), "queries of kernel reflection without |H^-1 y| over those with it"
    ),
    "cost_degrees": Description(
        ("degree_by",), "degree of the series in E by what is known of |E|"
    ),
    "cost_one_norm": Description((), "queries of QSVT by the sparse oracle over those by I + E"),
    "cost_fixed_point": Description(
        ("divisor",), "queries to k* of fixed-point amplification over those that know P"
    ),
    "bits_matrix": Description((), "bits of K~'s entries for 99 % of the accuracy", "bits"),
    "bits_test": Description(("divisor",), "bits of k*'s entries for the same", "bits"),
}
OF_TRIALS = {
    "qram_writes": Description((), "kernel evaluations to write a prediction's k*", "evaluations"),
    "post_selection_probability": Description(("divisor", "image"), "P, that |k*> is prepared"),
    "cost_without_solver": Description(
        (*T, *COSTS), "queries of one prediction with |w> = |y>", "queries"
    ),
    "calibration_queries_without_solver": Description(
        ONCE, "queries for its calibrated t, once for all predictions", "queries"
    ),
}
DESCRIPTIONS = OF_PREDICTIONS | OF_MATRICES | OF_TRIALS


def labelled(values: Values) -> xr.Dataset:
    """The same with axes, their labels, what they are, and units, as `DESCRIPTIONS` says."""
    arrays = {}
    coordinates: dict[str, Any] = {}
    for name, value in values.items():
        axes, long_name, units = DESCRIPTIONS[name]
        arrays[name] = quantity(axes, value, long_name, units)
        for axis, length in zip(axes, arrays[name].shape, strict=True):
            coordinates[axis] = LABELS.get(axis, range(length))
    return xr.Dataset(arrays, coordinates)


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

    k: k* [x, n] by divisor, |k_i| <= 1; label [x]; calibration [x], True for the half that t is
    known from. Overlaps are of `normalised`, k*/k_thresh; what clipping by the known divisor, the
    training matrix's largest entry, does is accuracy_clipped.
    """

    k: dict[str, Array]
    label: NDArray
    calibration: sequential.Mask

    @property
    def normalised(self) -> Array:
        """k*/k_thresh. [x, n]"""
        return self.k["fixed constant"]

    @property
    def probabilities(self) -> Array:
        """P = sum_i k_i^2/n that |k*> is prepared. [divisors, x]"""
        return np.minimum([training.post_selection_probability(k) for k in self.k.values()], 1)


def held_by_qram(kernels: TrialKernels, random: Random) -> Held:
    """The test images of a trial, by all of training.py's divisors, and a random half of them."""
    by_divisor = {name: scale(kernels) for name, scale in training.divisors.items()}
    label = kernels.test_label
    return Held(by_divisor, label, sequential.calibration_half(label, random("calibration")))


# --------------------------------------------------------------------------------------------------
# Readout: how many shots, uses of the preparation, or reads, a prediction needs
# --------------------------------------------------------------------------------------------------

Readings = dict[str, Reading]  # by `UNITS`


def accuracies(held: Held, outputs: Array, levels: Array) -> list[float]:
    """Accuracy of the sign of outputs [x] - t outside the calibration half, by threshold."""
    counted = ~held.calibration
    return [readout.noiseless_accuracy(outputs[counted], held.label[counted], t) for t in levels]


def readings_at(held: Held, state: Array, overlap: Array, t: float, random: Random) -> Readings:
    """The three sequential readouts of the sign of o - t, o = overlap [x], for |w> = state [n]."""
    common = held.label, t, held.calibration, SHARE
    return {
        "shots": sequential.sequential_shots(overlap, *common),
        "uses": sequential.sequential_estimation(overlap, *common, random("readout")),
        "reads": classical.sequential_samples(held.normalised, state, *common, random("sampler")),
    }


def read_out(held: Held, state: Array, random: Random) -> tuple[Values, list[Readings]]:
    """`OF_PREDICTIONS` but for operations, and the readings by threshold, for |w> = state [n]."""
    overlap = training.overlaps(held.normalised, state)
    levels = assumptions.levels(overlap, held.calibration)
    noiseless = accuracies(held, overlap, levels)
    by_threshold, counted = [], []
    for t, accuracy in zip(levels, noiseless, strict=True):
        readings = readings_at(held, state, overlap, t, random)
        counted.append(judged(held, readings, accuracy))
        by_threshold.append(readings)
    shots = by_threshold[CALIBRATED]["shots"].fixed
    drawn = assumptions.drawn_threshold(overlap, held.calibration, shots, random("threshold"))
    values = {
        "overlap": overlap,
        "level": levels,
        "accuracy_noiseless": noiseless,
        "accuracy_clipped": clipped_accuracies(held, state),
        "accuracy_unbalanced": accuracies(held, assumptions.unbalanced(overlap), levels),
        "accuracy_drawn": accuracies(held, overlap, np.array([drawn]))[0],
    }
    return values | stacked(counted), by_threshold


def judged(held: Held, readings: Readings, noiseless: float) -> Values:
    """What these readings take and achieve outside the calibration half, by unit."""
    rows = []
    for unit in UNITS:
        rows.append(sequential.judged(readings[unit], held.calibration, noiseless))
    return stacked(rows)


def clipped_accuracies(held: Held, state: Array) -> list[float]:
    """The same as accuracy_noiseless where entries of k* above the known divisor are clipped."""
    overlap = training.overlaps(held.k["training set"], state)
    return accuracies(held, overlap, assumptions.levels(overlap, held.calibration))


# --------------------------------------------------------------------------------------------------
# Cost: queries of one prediction
# --------------------------------------------------------------------------------------------------


def cost(prepared: Prepared, held: Held, readings: Readings) -> Array:
    """Queries of one prediction. -> [readouts, divisors, efforts, kinds]

    prepared: of |w>; readings: at this threshold. NaN for a solver that does not apply.
    """
    if np.isnan(prepared.success_probability):
        return np.full(shape_of(COSTS), np.nan)
    counted = ~held.calibration
    times = {unit: sequential.times(each, counted) for unit, each in readings.items()}
    return queries.cost(prepared, held.probabilities[:, counted], times)


def calibration_cost(prepared: Prepared, held: Held, readings: Readings) -> Array:
    """Queries for t, once for all predictions: every calibration image, read by fixed effort.

    -> [readouts, divisors]; arguments as for `cost`.
    """
    if np.isnan(prepared.success_probability):
        return np.full(shape_of(ONCE), np.nan)
    fixed = {unit: reading.fixed for unit, reading in readings.items()}
    return queries.calibration_cost(prepared, held.probabilities[:, held.calibration], fixed)


# --------------------------------------------------------------------------------------------------
# Classical rivals: operations of one prediction
# --------------------------------------------------------------------------------------------------


def sampler_costs(held: Held, n: int, by_threshold: list[Readings]) -> Array:
    """What reading k* and |w> [n], which is known, costs. -> [thresholds, methods, efforts]

    The other `METHODS` are NaN.
    """
    operations = np.full(shape_of((*T, "method", "effort")), np.nan)
    operations[:, 0] = 2 * n
    for t, readings in enumerate(by_threshold):
        reads = sequential.times(readings["reads"], ~held.calibration).mean(axis=1)
        operations[t, 1] = SAMPLER_OPERATIONS[t] * reads
    return operations


def local_costs(
    matrix: Matrix,
    y: NDArray,
    exact: Array,
    held: Held,
    epsilon: float,
    radius: float,
    level: float,
) -> tuple[Values, Array]:
    """What finding weights within epsilon of `exact` [n] costs, and how accurate they are.

    Returns values, and the local solver's operations for each weight that is followed [m].
    """
    n = len(y)
    followed = None if n <= training.dense_limit else np.linspace(0, n - 1, FOLLOWED).astype(int)
    values, operations = classical.solver_costs(matrix, y, exact, epsilon, radius, followed)
    overlap = training.overlaps(held.normalised, values.pop("weights"))
    accuracy = accuracies(held, overlap, np.array([level]))[0]
    values["local_accuracy"] = accuracy if values["local_length"] >= 0 else np.nan
    return values, operations


def classical_costs(
    matrix: Matrix,
    y: NDArray,
    exact: Array,
    held: Held,
    epsilons: Array,
    levels: Array,
    by_threshold: list[Readings],
) -> Values:
    """What a classical computer does for the prediction of K~ = matrix, whose |w> is exact [n].

    operations_classical, by method: "all entries" adds up k*'w, w solved once, and so has
    "sampler"; "local solver" finds the w_i that are sampled; "anew" finds all for every prediction.
    """
    operations, radius = sampler_costs(held, len(y), by_threshold), classical.jacobi_radius(matrix)
    rows = []
    for t, level in enumerate(levels):
        row, local = local_costs(matrix, y, exact, held, epsilons[t], radius, level)
        by_effort = sequential.times(by_threshold[t]["reads"], ~held.calibration)
        for effort, reads in enumerate(by_effort):
            series = row["series_operations"]
            spent = classical.sampling_operations(reads, SAMPLER_OPERATIONS[t], local, series)
            operations[t, 2, effort] = spent.mean()
        operations[t, 3] = 2 * len(y) + row.pop("anew")
        operations[t, 4] = 2 * len(y) + classical.cholesky_operations(len(y))
        rows.append(row)
    return {
        "operations_classical": operations,
        **stacked(rows),
        "jacobi_radius": radius,
        "dominant_rows": np.mean(classical.dominance(matrix) < 1),
    }


# --------------------------------------------------------------------------------------------------
# One sparsified matrix: from the solver to the cost
# --------------------------------------------------------------------------------------------------


def allowed_errors(shots: Iterable[float]) -> Array:
    """Epsilon, by threshold: a tenth of the shot noise of the shots that fixed effort needs."""
    epsilons = np.minimum(EPSILON_SHARE / np.sqrt(list(shots)), LARGEST_EPSILON)
    return np.maximum(epsilons, EPSILON_SHARE / math.sqrt(readout.MOST_SHOTS))


def run_solvers(
    encodings: dict[str, Encoding],
    exact: Array,
    epsilons: Array,
    held: Held,
    by_threshold: list[Readings],
) -> Values:
    """All solvers through all block encodings, and their costs."""
    uses, probability, error = np.full((3, *shape_of(RUNS)), np.nan)
    spent = np.full(shape_of((*RUNS, *COSTS)), np.nan)
    once = np.full(shape_of(("solver", "encoding", *ONCE)), np.nan)
    for place, prepared in solvers.prepare_all(encodings, epsilons):
        t, *run = place
        uses[place] = prepared.uses
        probability[place] = prepared.success_probability
        error[place] = np.linalg.norm(prepared.state - exact)
        spent[place] = cost(prepared, held, by_threshold[t])
        if t == CALIBRATED:
            once[tuple(run)] = calibration_cost(prepared, held, by_threshold[t])
    return {
        "uses": uses,
        "success_probability": probability,
        "solver_error": error,
        "cost": spent,
        "calibration_queries": once,
    }


def without_assumptions(
    encodings: dict[str, Encoding], exact: Array, epsilons: Array, runs: Values, held: Held
) -> Values:
    """What becomes of the costs where a number is not known. runs: of `run_solvers`."""
    epsilon = epsilons[[CALIBRATED]]
    doubled, halved = assumptions.misjudged_eigenvalue(encodings, epsilon, exact)
    uses, probability = runs["uses"][[CALIBRATED]], runs["success_probability"][[CALIBRATED]]
    unknown = assumptions.unknown_numbers(encodings, epsilon, uses, probability, held.probabilities)
    unknown["cost_one_norm"] = unknown["cost_one_norm"][:, 0]
    factors = {"cost_kappa_doubled": doubled, "error_kappa_halved": halved, **unknown}
    return {name: values[0] for name, values in factors.items()}


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


def bits_needed(matrix: Matrix, y: NDArray, exact: Array, held: Held, t: float) -> Values:
    """Bits of the entries of K~ = matrix and of k* for 99 % of the accuracy at t."""
    counted = ~held.calibration
    k, label = held.normalised[counted], held.label[counted]
    goal = SHARE * readout.noiseless_accuracy(training.overlaps(k, exact), label, t)
    bits_test = []
    for scaled in held.k.values():
        bits_test.append(assumptions.bits_of_test(scaled[counted], 1, exact, label, t, goal))

    def solved(rough: Matrix) -> Array:
        return solution(rough, y)

    bits_matrix = assumptions.bits_of_matrix(matrix, solved, k, label, t, goal)
    return {"bits_test": bits_test, "bits_matrix": bits_matrix}


def emulate_pattern(matrix: Matrix, y: NDArray, held: Held, random: Random) -> xr.Dataset:
    """One sparsified matrix K~ [n, n]: `OF_PREDICTIONS` and `OF_MATRICES`; NaN if it is singular.

    Readings are of the exact |w>. random: generators by purpose.
    """
    exact = solution(matrix, y)
    if np.isnan(exact).any():
        return of_singular_matrix(len(held.label))
    read, by_threshold = read_out(held, exact, random)
    epsilons = allowed_errors(readings["shots"].fixed for readings in by_threshold)
    encodings = solvers.block_encodings(matrix, y)
    kappas = [encodings[name].kappa if name in encodings else np.inf for name in ENCODINGS]
    runs = run_solvers(encodings, exact, epsilons, held, by_threshold)
    rivals = classical_costs(matrix, y, exact, held, epsilons, read["level"], by_threshold)
    return labelled({
        **read,
        "sparsity": training.sparsity(matrix),
        "epsilon": epsilons,
        "kappa": kappas,
        **runs,
        **rivals,
        **without_assumptions(encodings, exact, epsilons, runs, held),
        **bits_needed(matrix, y, exact, held, read["level"][CALIBRATED]),
    })  # fmt: skip


# --------------------------------------------------------------------------------------------------
# One trial
# --------------------------------------------------------------------------------------------------


def emulate_diagonal(y: NDArray, held: Held, random: Random) -> Values:
    """The prediction of the diagonal algorithm, |w> = |y>: no solver, no query to K~."""
    read, by_threshold = read_out(held, y, random)
    labels_alone = Prepared(y / np.linalg.norm(y), 0, 1.0)
    once = calibration_cost(labels_alone, held, by_threshold[CALIBRATED])
    return {
        **read,
        "operations_classical": sampler_costs(held, len(y), by_threshold),
        "cost_without_solver": [cost(labels_alone, held, readings) for readings in by_threshold],
        "calibration_queries_without_solver": once,
    }


def emulate_trial(kernels: TrialKernels, matrices: Iterable[Matrix], random: Random) -> xr.Dataset:
    """All `DESCRIPTIONS` of one trial. matrices: K~ [n, n] of every pattern.

    random: generators by purpose. All draw the same random numbers, so that they differ in nothing
    else. What does not depend on the pattern is the same for all of them.
    """
    held, y = held_by_qram(kernels, random), kernels.train_label
    diagonal = labelled({
        **emulate_diagonal(y, held, random),
        "qram_writes": len(y),
        "post_selection_probability": held.probabilities,
    })  # fmt: skip
    records = [emulate_pattern(each, y, held, random) for each in matrices]
    sparsified = xr.concat(records, xr.Variable("pattern", np.arange(len(records))))
    both = [records[list(OF_PREDICTIONS)] for records in (sparsified, diagonal)]
    axis = xr.Variable("approximation", LABELS["approximation"])
    record = xr.concat(both, axis).transpose("approximation", "pattern", ...)
    own = sparsified[list(OF_MATRICES)].merge(diagonal[list(OF_TRIALS)])
    return record.merge(own)


# --------------------------------------------------------------------------------------------------
# Running: all trials in a folder
# --------------------------------------------------------------------------------------------------


class TrialInputs(NamedTuple):
    """A trial: kernels, K~ of every pattern, and generators by purpose."""

    kernels: TrialKernels
    matrices: list[Matrix]
    random: Random

    @property
    def fingerprint(self) -> int:
        """A number that stands for the matrices and k*."""
        return stored.fingerprint(*self.matrices, self.kernels.test_normalised)


def original_patterns(trial: Trial, seed: int) -> list[Pattern]:
    """The first PATTERNS random patterns of a trial in the original's convention."""
    patterns = []
    for number in range(PATTERNS):
        rng = trial.random(seed, f"pattern {number}{training.conventions['original']}")
        patterns.append(Pattern("original", number, training.sparsity_pattern(trial.size, rng)))
    return patterns


def random_of(trial: Trial, seed: int) -> Random:
    """The generators of a trial's draws, by purpose."""
    return lambda purpose: trial.random(seed, f"emulation {purpose}")


def inputs_of(kernels: TrialKernels, seed: int) -> TrialInputs:
    """A trial from its kernels."""
    patterns = original_patterns(kernels.trial, seed)
    matrices = [training.sparsified(kernels, pattern) for pattern in patterns]
    return TrialInputs(kernels, matrices, random_of(kernels.trial, seed))


def stored_trial(trials: StoredTrials, size: int, number: int) -> TrialInputs:
    """Read a trial. Raises BadInput where a file is not there or damaged, or there is no |k*>."""
    seed = trials.seed
    kernels = training.stored_kernels(trials.folder, trials.prefix, size, number, seed)
    if not np.all(np.any(kernels.test_normalised, axis=1)):
        path = trials.kernel_test(size, number)
        raise BadInput("input", path, "a row is 0, no |k*>; remove the trial")
    return inputs_of(kernels, seed)


def computed_trial(run: Run, trial: Trial) -> TrialInputs:
    """Compute a trial of flat images. Nothing of a large trial is dense but k*."""
    images = training.trial_images(run, trial)
    largest, closest = closest_pair(images.train)
    depth = trial.network.depth(trial.size, 1 - largest, None)
    if trial.size <= training.dense_limit:
        train: Matrix = fully_connected_ntk(images.train, depth=depth)
    else:
        patterns = original_patterns(trial, run.seed)
        train = entries_of_patterns(images.train, depth, patterns, closest)
    kernels = TrialKernels(
        trial=trial,
        depth=depth,
        separability=1 - largest,
        train=train,
        test=fully_connected_ntk(images.test, images.train, depth=depth),
        train_label=images.train_label,
        test_label=images.test_label,
        scale=trial.network.kernel_scale(depth, None),
    )
    return inputs_of(kernels, run.seed)


def entries_of_patterns(
    x: Array, depth: int, patterns: list[Pattern], closest: tuple[int, int]
) -> Matrix:
    """The entries of K that patterns have, of images x [n, d]; sparse [n, n].

    And that of the closest pair, the largest off the diagonal, which k* is divided by.
    """
    n = len(x)
    places = scipy.sparse.csr_array(([True], ([max(closest)], [min(closest)])), shape=(n, n))
    for pattern in patterns:
        places = places + pattern.matrix
    rows, columns = scipy.sparse.tril(places).nonzero()
    return symmetric(n, rows, columns, fully_connected_pairs(x, rows, columns, depth=depth))


def code_files() -> list[Path]:
    """The files whose functions decide a record."""
    here = Path(__file__).resolve()
    return [here, *sorted((here.parent / "quantum").glob("*.py"))]


class Source(NamedTuple):
    """A trial before it is computed: a number that stands for it, and what is said of it."""

    fingerprint: int
    about: dict[str, xr.DataArray]
    inputs: Callable[[], TrialInputs]


def source(trials: StoredTrials, network: Network, size: int, number: int) -> Source:
    """A trial: its kernels read, or computed once they are asked for."""
    if (size, number) not in trials.computed:
        inputs = stored_trial(trials, size, number)
        about = stored.provenance(trials.kernel_test(size, number))
        return Source(inputs.fingerprint, about, lambda: inputs)
    run = trials.run
    assert run is not None
    trial = Trial(network, tuple(trials.label["digits"]), size, number)
    label = stored.label_of_computed(run, trial)
    about = stored.about(label)
    return Source(stored.fingerprint_of(label), about, lambda: computed_trial(run, trial))


def with_quick_trials(
    args: argparse.Namespace, network: Network, trials: StoredTrials | None
) -> StoredTrials | None:
    """The trials in the folder and the `quick_trials`, where their images can be had."""
    name = trials.dataset.name if trials else args.dataset
    try:
        images = load_images("mnist" if name == "auto" else name)
    except CannotBeHad as error:
        print(f"note: no trials but those in {args.input}/: {error.remedy}")
        return trials
    run = Run(args.seed, training.test_size, args.input, "numba", "float64", images)
    classes = args.classes or training.selections[network.name]
    return stored.with_computed(trials, run, network, classes, quick_trials)


def chosen_trials(args: argparse.Namespace, network: Network) -> StoredTrials | None:
    """The trials of a network that the command line asks for."""
    classes = args.classes or training.selections[network.name]
    trials = stored.stored_trials(args.input, args.dataset, network, classes, args.seed)
    if network.in_seconds and quick_trials:
        trials = with_quick_trials(args, network, trials)
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


def run_network(args: argparse.Namespace, network: Network, trials: StoredTrials) -> None:
    """Emulate trials, and merge them into their network's results.

    A trial that the results hold, of the same inputs and the same code, is not computed again.
    """
    trials.say_note()
    path = args.output / f"{trials.prefix}_emulation.nc"
    code = code_version(*code_files())
    with ResultsFile(path, trials.origin | {"emulation": VERSION}) as results:
        for size, number in trials.all():
            trial = source(trials, network, size, number)
            key = {"n": size, "trial": number}
            known_by = stored.inputs_of(trial.fingerprint, code)
            if not results.holds(key, known_by):
                record = emulate_trial(*trial.inputs())
                results.keep(key, record.assign(known_by | trial.about))
    if not results.computed_now:
        print(f"{path} has all of these trials")
    with foreign_explained(path):
        for size, numbers in trials.numbers.items():
            print(summary(trials.prefix, results.results.sel(n=size, trial=numbers)))


def summary(prefix: str, records: xr.Dataset) -> str:
    """One size's geometric means: t calibrated, k* over the training matrix's largest entry."""
    at = {"threshold": "calibrated", "effort": "sequential"}
    kinds = {"divisor": "training set", "kind": "all"}
    spent = records.cost.sel(at | kinds).mean("pattern").min(["solver", "encoding", "readout"])
    quantum = math.exp(np.log(spent).mean())
    operations = records.operations_classical.sel(at).mean(["approximation", "pattern"])
    classical_least = math.exp(np.log(operations.min("method")).mean())
    return (
        f"{prefix} n = {records.n.item()}: trials {records.sizes['trial']}, "
        f"cheapest quantum {quantum:.3g} queries, classical {classical_least:.3g} operations"
    )


def run_networks(args: argparse.Namespace) -> None:
    """Emulate everything that the command line asks for. Raises BadInput where nothing is there."""
    networks = training.make_networks()
    is_any = False
    for name in args.networks:
        trials = chosen_trials(args, networks[name])
        if trials:
            run_network(args, networks[name], trials)
            is_any = True
    if not is_any:
        raise BadInput("input", args.input, "no such complete trial there; run training.py first")


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, or 2 after one line about a bad input."""
    parser = options.Parser(description="The quantum algorithm of arXiv:2107.09200, emulated.")
    number = {"type": options.whole_number}
    everything = "all that are there"
    options.checked_constants(parser, training.constants())
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
