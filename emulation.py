"""The quantum algorithm of arXiv:2107.09200, emulated on the kernels that training.py wrote.

    python emulation.py                                 # every complete trial in kernel_output/
    python emulation.py --networks fully-connected --data-sizes 16 32 --trials 4
    python emulation.py --help                          # everything else

A prediction is the sign of o - t, o = <k*|w>, with |w> ~ K~^-1 |y> (sparsified, by a quantum linear solver) or |w> =
|y> (diagonal), and t = 0 or the median of the o of the test set. Everything is computed classically but as the
algorithm does it, with its errors and probabilities of success; what it costs is counted in queries, for every solver,
block encoding and readout, beside what a classical computer does for the same prediction. Read from top to bottom:
states, readout, cost, a trial. Solvers, formulas and assumptions are in quantum/; the same as gates is in circuit.py.
Writes `{prefix}_emulation.npz`: arrays [sizes, trials, ...] of what `emulate_trial` describes, NaN for missing trials.
"""

import argparse
import contextlib
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.random import Generator
from threadpoolctl import threadpool_limits

import training
from ntk import BadInput
from quantum import assumptions, classical, readout, solvers
from quantum.solvers import ENCODINGS, SOLVERS, Prepared
from runtime import options
from runtime.checkpoints import finished_trials
from runtime.linear_algebra import Array, solve
from runtime.results import Results, merge_results, read_results
from runtime.trials import DATASETS

Record = dict[str, Any]  # arrays by name
Random = Callable[[str], Generator]  # generators by purpose

# ----------------------------------------------------------------------------------------------------------------------
# Constants
# ----------------------------------------------------------------------------------------------------------------------

VERSION = 5  # of what a trial's record holds; raise it when a formula here or in quantum/ changes
SHARE = 0.99  # of the noiseless accuracy, that a readout has to reach
EPSILON_SHARE = 0.1  # error of |w>, which moves o by at most as much, in units of the shot noise 1/sqrt(M)
LARGEST_EPSILON = 0.1
QRAM_QUERIES_PER_STATE = 2  # |k*>: load, rotate an ancilla, load again to uncompute

# Axes of the results, in this order: patterns, then those of these that a quantity depends on, and test images last.
THRESHOLDS = ("zero", "median")  # t
CONVENTIONS = ("training", "test block", "k_thresh")  # what k* is divided by: `held_by_qram`
READOUTS = ("shots", "amplified shots", "amplitude estimation")
KINDS = ("oracle", "QRAM", "all")  # queries: to the entries of K~; to k*; both and those to y
STATISTICS = ("mean", "10 %", "median", "90 %")  # over the test images
CLASSICAL = ("all entries", "sampler", "sampler, local solver", "conjugate gradients anew", "Cholesky anew")
SHOTS = [int(m) for m in np.unique(np.geomspace(1, 10**6, 31).round())]  # M of the accuracy's curve, five a decade
MEDIAN = THRESHOLDS.index("median")
AXES = {  # lists, as they come back from the results' `origin`
    "thresholds": [*THRESHOLDS], "solvers": [*SOLVERS], "encodings": [*ENCODINGS], "readouts": [*READOUTS],
    "conventions": [*CONVENTIONS], "kinds": [*KINDS], "statistics": [*STATISTICS], "classical": [*CLASSICAL],
    "shots": SHOTS,
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------
# States: |k*>
# ----------------------------------------------------------------------------------------------------------------------


def held_by_qram(kernels: Record) -> Array:
    """k* as QRAM holds it, |k_i| <= 1, by convention. [conventions, test, n]

    "training": divided by the largest off-diagonal entry of the training matrix, which is known before the test image
    is, and clipped; "k_thresh": by that instead; "test block": then by the largest entry of all test images, as the
    original does, which no algorithm knows. Overlaps are of k*/k_thresh; see accuracy_clipped for those of "training".
    """
    kernel, test, k = (kernels[name] for name in ("kernel_train", "kernel_test", "kernel_test_normalized"))
    largest = np.abs(kernel - np.diag(np.diag(kernel))).max()
    known = training.normalise(test, largest) if largest > 0 else np.sign(test)
    return np.array([known, k / np.abs(k).max(), k])


def post_selection(held: Array) -> Array:
    """P = sum_i k_i^2/n that |k*> is prepared. [conventions, test, n] -> [conventions, test]"""
    return np.minimum([training.post_selection_probability(k) for k in held], 1)


# ----------------------------------------------------------------------------------------------------------------------
# Readout: how many shots, or rounds of amplitude estimation, a prediction needs
# ----------------------------------------------------------------------------------------------------------------------


def read_out(held: Array, state: Array, label: Array, rng: Generator) -> Record:
    """What it takes to read the sign of o - t. held: `held_by_qram`; state: |w> [n]. Values by threshold [2, ...].

    overlap [test]; accuracy_noiseless, and the same of k*'w, not divided by |k*|, as training.py ranks
    (accuracy_unnormalised), and of o with k* clipped (accuracy_clipped); accuracy after SHOTS shots; shots_needed and
    points_needed (of amplitude estimation's schedule) for SHARE of the noiseless accuracy; accuracy_unbalanced, with a
    wrong P/p; accuracy_calibrated, with t from a calibration set: with exact overlaps, and with the shots needed.
    """
    overlap, clipped = (training.overlaps(k, state) for k in (held[-1], held[0]))
    levels = np.array([0.0, np.median(overlap)])
    found: Record = {"overlap": overlap}
    for name, o in ("noiseless", overlap), ("unnormalised", held[-1] @ state), ("clipped", clipped):
        found[f"accuracy_{name}"] = [readout.noiseless_accuracy(o, label, t) for t in (0, np.median(o))]
    found |= {
        "accuracy": [[readout.accuracy_of_shots(overlap, label, t, m) for m in SHOTS] for t in levels],
        "shots_needed": [readout.shots_needed(overlap, label, t, SHARE) for t in levels],
        "points_needed": readout.points_needed(overlap, label, levels, SHARE, rng),
    }
    shots = found["shots_needed"][MEDIAN]
    wrong = assumptions.unbalanced(overlap)
    found["accuracy_unbalanced"] = [readout.noiseless_accuracy(wrong, label, t) for t in levels]
    return found | {"accuracy_calibrated": assumptions.calibrated_accuracy(overlap, label, shots, rng)}


# ----------------------------------------------------------------------------------------------------------------------
# Cost: queries of one prediction
# ----------------------------------------------------------------------------------------------------------------------


def over_images(queries: Array) -> list[float]:
    """Mean and quantiles over the test images: 1/P is heavy-tailed, and the mean is what many predictions cost."""
    return [queries.mean(), *np.quantile(queries, (0.1, 0.5, 0.9), method="higher")]


def cost(prepared: Prepared, probabilities: Array, shots: float, points: float) -> Array:
    """Queries of one prediction. -> [readouts 3, conventions 3, kinds 3, statistics 4]

    prepared: of |w>; probabilities: P, by convention [3, test]; shots, points: needed at this threshold. "Amplitude
    estimation" uses the preparation of both and its inverse as its schedule says; NaN where there is no inverse.
    """
    found = np.full((len(READOUTS), len(CONVENTIONS), len(KINDS), len(STATISTICS)), np.nan)
    p = prepared.success_probability
    if np.isnan(p):
        return found
    queries_w, queries_k = prepared.oracle_queries + prepared.label_queries, QRAM_QUERIES_PER_STATE
    schedule = readout.uses_of_schedule(points)
    for c, probability in enumerate(probabilities):
        each_use = queries_w, p, queries_k, probability
        ways = [
            (readout.uses_per_shot(p, probability), shots),
            (readout.amplified_shot(*each_use), shots),
            (readout.amplified_estimate(*each_use), schedule if prepared.coherent else np.nan),
        ]
        for r, ((w, k), times) in enumerate(ways):
            kinds = w * prepared.oracle_queries, k * queries_k, w * queries_w + k * queries_k
            found[r, c] = [over_images(each * times) if each.any() else [0.0] * 4 for each in kinds]
    return found


def classical_costs(
    matrix: Array, y: Array, exact: Array, k: Array, label: Array, levels: Array, epsilons: Array, rng: Generator
) -> Record:
    """What a classical computer does for the same prediction. Values by threshold [2].

    operations_classical [2, 5]: of CLASSICAL. "All entries" adds up k*'w, w solved once, and so has "sampler"; "local
    solver" finds the w_i that are sampled, each alone (local_operations) or, where that is cheaper, all at once
    (series_operations); "anew" finds all of them for every prediction.
    """
    sparse, n, radius = scipy.sparse.csr_array(matrix), len(y), classical.jacobi_radius(matrix)
    samples = classical.samples_needed(k, exact, label, levels, SHARE, rng)
    dominant = np.mean(classical.dominance(matrix) < 1)
    found: Record = {"samples_needed": samples, "dominant_rows": dominant, "jacobi_radius": radius}
    rows = []
    for threshold, level, epsilon, m in zip(THRESHOLDS, levels, epsilons, samples, strict=True):
        weights, entries, local, length = classical.local_solve(matrix, y, solvers.relative_error(epsilon), radius)
        iterations = classical.conjugate_gradient_iterations(sparse, y, exact, epsilon)
        anew = classical.conjugate_gradient_operations(sparse, iterations), classical.cholesky_operations(n)
        series, reads = classical.series_operations(sparse, length), classical.SAMPLER_OPERATIONS[threshold] * m
        sampled, overlap = reads + min(m * local.mean(), series), training.overlaps(k, weights)
        rows.append({
            "local_length": length, "local_entries": entries.mean(), "local_operations": local.mean(),
            "series_operations": series, "iterations": iterations,
            "local_error": np.linalg.norm(weights / np.linalg.norm(weights) - exact),
            "local_accuracy": readout.noiseless_accuracy(overlap, label, level) if length >= 0 else np.nan,
            "operations_classical": [2 * n, reads, sampled, *(2 * n + each for each in anew)],
        })  # fmt: skip
    return found | {name: [row[name] for row in rows] for name in rows[0]}


# ----------------------------------------------------------------------------------------------------------------------
# One trial
# ----------------------------------------------------------------------------------------------------------------------


def emulate_trial(kernels: Record, matrices: list[Array], random: Random) -> Record:
    """One trial. kernels: by file name; matrices: K~ [n, n] of every pattern; random: generators by purpose.

    Returns arrays by name. Of the trial: qram_writes []; post_selection_probability [3, test]; those of `read_out` and
    cost [2, 3, 3, 3, 4] with the suffix _diagonal, of |w> = |y>; accuracy_weighted_diagonal [2], of training.py's y
    over K_ii instead; operations_diagonal [2, 2]. Of every pattern (first axis): what `emulate_pattern` returns. All
    draw the same random numbers, so that they differ in nothing else.
    """
    y, label, held = kernels["train_label"], kernels["test_label"], held_by_qram(kernels)
    probabilities = post_selection(held)
    diagonal = read_out(held, y, label, random("readout"))
    weighted = held[-1] @ (y / np.diag(kernels["kernel_train"]))
    diagonal["accuracy_weighted"] = [readout.noiseless_accuracy(weighted, label, t) for t in (0, np.median(weighted))]
    free = Prepared(y / np.linalg.norm(y), 0, 1.0)
    needs = zip(diagonal["shots_needed"], diagonal["points_needed"], strict=True)
    diagonal["cost"] = [cost(free, probabilities, *need) for need in needs]
    levels = np.array([0.0, np.median(diagonal["overlap"])])
    samples = classical.samples_needed(held[-1], y, label, levels, SHARE, random("sampler"))
    operations = [[2 * len(y), classical.SAMPLER_OPERATIONS[t] * m] for t, m in zip(THRESHOLDS, samples, strict=True)]
    diagonal |= {"samples_needed": samples, "operations": operations}
    found = {"qram_writes": len(y), "post_selection_probability": probabilities}
    found |= {f"{name}_diagonal": value for name, value in diagonal.items()}
    records = [emulate_pattern(matrix, y, label, held, probabilities, random) for matrix in matrices]
    return found | {name: np.array([record[name] for record in records]) for name in records[0]}


def emulate_pattern(matrix: Array, y: Array, label: Array, held: Array, probabilities: Array, random: Random) -> Record:
    """One sparsified matrix K~ [n, n] of a trial: the algorithm from the solver to the cost.

    Returns, with t thresholds (2), s solvers (6), e encodings (2), c conventions (3): sparsity; kappa [e]; epsilon [t];
    uses, success_probability, solver_error [t, s, e]; what `read_out` and `classical_costs` return; cost [t, s, e,
    readouts, c, kinds, statistics]; cheapest_quantum [t, c], the least mean number of queries, and
    cheapest_quantum_index, where it is in [s, e, readouts]; cheapest_classical [t], in operations; bits_matrix,
    bits_test [c]; those of `misjudged_eigenvalue` and `unknown_numbers`. Shots are those of the exact |w>.
    """
    exact = solve(matrix, y)
    if np.isnan(exact).any():  # singular: all is NaN
        identity = emulate_pattern(np.eye(len(y)), y, label, held, probabilities, random)
        return {name: np.asarray(value) * np.nan for name, value in identity.items()}
    found: Record = {"sparsity": training.sparsity(matrix), **read_out(held, exact, label, random("readout"))}
    levels = np.array([0.0, np.median(found["overlap"])])
    epsilons = np.minimum(EPSILON_SHARE / np.sqrt(found["shots_needed"]), LARGEST_EPSILON)
    epsilons = np.maximum(epsilons, EPSILON_SHARE / math.sqrt(readout.MOST_SHOTS))
    encodings = solvers.block_encodings(matrix, y)
    axes = len(THRESHOLDS), len(SOLVERS), len(ENCODINGS)
    per_run = {name: np.full(axes, np.nan) for name in ("uses", "success_probability", "solver_error")}
    queries = np.full((*axes, len(READOUTS), len(CONVENTIONS), len(KINDS), len(STATISTICS)), np.nan)
    for at, prepared in solvers.prepare_all(encodings, epsilons):
        per_run["uses"][at], per_run["success_probability"][at] = prepared.uses, prepared.success_probability
        per_run["solver_error"][at] = np.linalg.norm(prepared.state - exact)
        queries[at] = cost(prepared, probabilities, found["shots_needed"][at[0]], found["points_needed"][at[0]])
    kappa = [encodings[name].kappa if name in encodings else np.inf for name in ENCODINGS]
    found |= {"kappa": kappa, "epsilon": epsilons, **per_run, "cost": queries}
    means = queries[..., KINDS.index("all"), STATISTICS.index("mean")]  # [t, s, e, readouts, conventions]
    means = np.where(np.isnan(means), np.inf, means).reshape(len(THRESHOLDS), -1, len(CONVENTIONS))
    found |= {"cheapest_quantum": means.min(axis=1), "cheapest_quantum_index": means.argmin(axis=1)}
    found |= classical_costs(matrix, y, exact, held[-1], label, levels, epsilons, random("sampler"))
    found["cheapest_classical"] = np.nanmin(found["operations_classical"], axis=1)
    wrong_kappa = assumptions.misjudged_eigenvalue(encodings, epsilons, exact)
    found["cost_kappa_doubled"], found["error_kappa_halved"] = wrong_kappa
    each_run = per_run["uses"], per_run["success_probability"]
    found |= assumptions.unknown_numbers(encodings, epsilons, *each_run, probabilities)
    t, goal = levels[MEDIAN], SHARE * found["accuracy_noiseless"][MEDIAN]
    found["bits_test"] = [assumptions.bits_of_test(k, 1, exact, label, t, goal) for k in held]
    found["bits_matrix"] = assumptions.bits_of_matrix(matrix, lambda rough: solve(rough, y), held[-1], label, t, goal)
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Running: all trials in a folder
# ----------------------------------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """A trial from its files: kernels by name, K~ of every pattern, generators, and a number that stands for both."""

    kernels: Record
    matrices: list[Array]
    random: Random
    fingerprint: int


def stored_trial(folder: Path, prefix: str, size: int, number: int, seed: int) -> Stored:
    """Read a trial. Raises BadInput where a file is not there or damaged, or there is no |k*>."""
    kernels = training.stored_kernels(folder, prefix, size, number, seed)
    if not np.all(np.any(kernels["kernel_test_normalized"], axis=1)):
        path = folder / f"{prefix}_seed{seed}_data{size}_trial{number}_kernel_test.npy"
        raise BadInput("input", path, "a row is 0, no |k*>; remove the trial")
    trial = training.make_trial(kernels["network"], tuple(kernels["digits"]), size, number)
    thresholds = kernels["class_thresholds"]
    approximations = training.trial_approximations(trial, seed, kernels["kernel_train"], thresholds)["original"]
    matrices = [scipy.sparse.csr_array(matrix).toarray() for matrix in approximations]
    digest = hashlib.sha256(b"".join(a.tobytes() for a in (*matrices, kernels["kernel_test_normalized"])))
    fingerprint = int.from_bytes(digest.digest()[:6], "little")  # exact in a float64
    return Stored(kernels, matrices, lambda purpose: trial.random(seed, f"emulation {purpose}"), fingerprint)


def run_network(args: argparse.Namespace, network: str) -> Results | None:
    """Emulate the trials of one network that are in the folder, and merge them into its results. None if there is none.

    A trial that the results hold, of the same inputs and the same VERSION, is not computed again.
    """
    prefixes = [first + network for first in DATASETS.values()]
    found = {prefix: finished_trials(args.input, prefix, args.seed) for prefix in prefixes}
    prefix, trials = next(((p, t) for p, t in found.items() if t), (network, {}))
    for size in sorted(set(args.data_sizes or []) - set(trials)):
        print(f"note: no complete trial of {network}, n = {size}, seed {args.seed} in {args.input}/")
    trials = {n: ts[: args.trials] for n, ts in trials.items() if not args.data_sizes or n in args.data_sizes}
    if not trials:
        print(f"note: nothing to emulate of the {network} network")
        return None
    if prefix != network:
        print(f"THE {network.upper()} KERNELS ARE OF SCIKIT-LEARN'S 8x8 DIGITS, NOT OF MNIST.")
    path = args.output / f"{prefix}_emulation.npz"
    results, known = Results({"emulation": VERSION, "seed": args.seed, "axes": AXES}), {}
    with contextlib.suppress(BadInput):  # no such file, or a damaged one, which merge_results puts aside and says so
        old = read_results(path)
        known = old.records if old.origin == results.origin else {}
    for size, numbers in trials.items():
        for number in numbers:
            trial = stored_trial(args.input, prefix, size, number, args.seed)
            record = known.get((size, None, number), {})
            if record.get("fingerprint") != trial.fingerprint:
                record = {"fingerprint": trial.fingerprint, **emulate_trial(*trial[:3])}
            results.records[size, None, number] = record
        records = [results.records[size, None, number] for number in numbers]
        names = "shots_needed", "cheapest_quantum", "cheapest_classical"
        m, quantum, classic = (np.nanmean([r[name][:, MEDIAN] for r in records], axis=(0, 1)) for name in names)
        print(f"{prefix} n = {size}: trials {len(numbers)}, shots needed {m:.0f}, cheapest quantum {quantum[0]:.3g} "
              f"queries, classical {classic:.3g} operations")  # fmt: skip
    print(merge_results(path, results))
    return results


def run_networks(args: argparse.Namespace) -> None:
    """Emulate everything that the command line asks for. Raises BadInput where nothing of it is there."""
    found = [run_network(args, network) for network in args.networks]
    if not any(found):
        raise BadInput("input", args.input, "no such complete trial there; run training.py first")


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, or 2 after one line about a bad input."""
    parser = options.Parser(description="The quantum algorithm of arXiv:2107.09200, emulated.")
    here, number = Path("kernel_output"), {"type": options.whole_number}
    parser.add_options([
        ("--networks", dict(nargs="+", choices=training.networks, default=training.networks, metavar="NETWORK"),
         f"of {' '.join(training.networks)}", training.networks),
        ("--data-sizes", dict(number, nargs="+", metavar="N"), "numbers of training images", "all that are there"),
        ("--trials", dict(number, metavar="T"), "trials of each size at most", "all that are there"),
        ("--seed", dict(number, default=training.seed), "seed that the kernels have in their names", training.seed),
        ("--input", dict(type=Path, default=here, metavar="DIR"), "folder of training.py's kernels", here),
        ("--output", dict(type=Path, default=here, metavar="DIR"), "folder to write to, and to go on from", here),
    ])  # fmt: skip
    args = parser.parse_args(argv)
    parser.check(args.trials is None or args.trials > 0, "trials", args.trials, "use 1 or more")
    with threadpool_limits(1):  # LAPACK's threads crawl where other jobs share the cores
        return options.with_folder(args.output, lambda: run_networks(args))


if __name__ == "__main__":
    options.run_script(main)
