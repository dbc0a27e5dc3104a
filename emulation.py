"""The quantum algorithm of arXiv:2107.09200, emulated on the kernels that training.py wrote.

    python emulation.py                                 # every complete trial in kernel_output/
    python emulation.py --networks fully-connected --data-sizes 16 32 --trials 4
    python emulation.py --help                          # everything else

A prediction is the sign of o - t, o = <k*|w>, with |w> ~ K~^-1 |y> (sparsified, by a quantum linear solver) or |w> =
|y> (diagonal), and t = 0 or the median of the o of the test set. Everything is computed classically but as the
algorithm does it, with its errors and its probabilities of success; what that costs is counted in queries, for every
solver, block encoding and readout, and beside it what a classical computer does for the same prediction. Read from
top to bottom: solver, states, readout, cost. The formulas are in quantum/, the same as gates in circuit.py; what is
assumed and not emulated stands in `ASSUMPTIONS`. Writes `{prefix}_emulation.npz`: arrays [sizes, trials, ...] of what
`emulate_trial` describes, NaN for missing trials.
"""

import argparse
import contextlib
import functools
import hashlib
import itertools
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse
import threadpoolctl

import training
from quantum import classical, readout, solvers
from quantum.solvers import ENCODINGS, SOLVERS

if not hasattr(training, "overlaps"):  # adapter until training.py has them
    training.post_selection_probability = lambda k: np.sum(k**2, axis=1) / k.shape[1]
    training.overlaps = lambda k, state: k @ state / (np.linalg.norm(k, axis=1) * np.linalg.norm(state))

# ----------------------------------------------------------------------------------------------------------------------
# Constants
# ----------------------------------------------------------------------------------------------------------------------

VERSION = 2  # of what a trial's record holds; raise it when a formula here or in quantum/ changes
SHARE = 0.99  # of the noiseless accuracy, that a readout has to reach
EPSILON_SHARE = 0.1  # error of |w>, which moves o by at most as much, in units of the shot noise 1/sqrt(M)
LARGEST_EPSILON = 0.1
QRAM_QUERIES_PER_STATE = 2  # |k*>: load, rotate an ancilla, load again to uncompute
MOST_BITS = 60

# Axes of the results, in this order: patterns, then those of these that a quantity depends on, and test images last.
THRESHOLDS = ("zero", "median")  # t
CONVENTIONS = ("test block", "k_thresh")  # what k* is divided by: the largest entry of the test block too, or not
READOUTS = ("shots", "amplified shots", "amplitude estimation")
KINDS = ("oracle", "QRAM", "all")  # queries: to the entries of K~; to k*; both and those to y
STATISTICS = ("mean", "10 %", "median", "90 %")  # over the test images
CLASSICAL = ("all entries", "sampler", "sampler, local solver", "conjugate gradients anew", "Cholesky anew")
SHOTS = np.unique(np.geomspace(1, 10**6, 31).round())  # M of the accuracy's curve, five a decade

ASSUMPTIONS = {  # what is assumed free or known, and the array that says what it costs where it is not
    "QRAM holds k*": ("kernel evaluations to write it, for every prediction", "qram_writes"),
    "K~ has exact entries": ("bits an entry for 99 % of the accuracy", "bits_matrix"),
    "k* has exact entries": ("bits an entry, by convention", "bits_test"),
    "t is known": ("accuracy with t from a calibration set: exact overlaps, the same shots", "accuracy_calibrated"),
    "the smallest eigenvalue is known": ("cost with half of it, QSVT, by encoding, times", "cost_kappa_doubled"),
    "and no smaller": ("error of |w> with twice of it", "error_kappa_halved"),
    "p and P are known, gates have no errors": ("not emulated", None),
}


# ----------------------------------------------------------------------------------------------------------------------
# Solver: what is prepared for |w>, by every solver through every block encoding
# ----------------------------------------------------------------------------------------------------------------------


def solve_by_all(encodings, epsilons):
    """What every solver prepares for K~ |w> = |y> through every block encoding, within epsilons [2], by threshold.

    encodings: of `solvers.block_encodings`. Returns {indices (threshold, solver, encoding): Prepared}.
    """
    runs = {}
    for (e, name), (s, solver), (t, epsilon) in itertools.product(
        enumerate(ENCODINGS), enumerate(SOLVERS), enumerate(epsilons)
    ):
        if name in encodings:
            runs[t, s, e] = solvers.prepare(solver, encodings[name], epsilon)
    return runs


def misjudged_eigenvalue(encodings, epsilons, exact):
    """QSVT where the smallest eigenvalue is taken for half of what it is, or for twice: cost and error. -> [2, 2] each

    The cost is relative to the right one, amplified: uses/sqrt(p). By threshold and encoding.
    """
    cost, error = np.full((2, len(epsilons), len(ENCODINGS)), np.nan)
    for e, encoding in enumerate(encodings.values()):
        for t, epsilon in enumerate(epsilons):
            kappas = [encoding.kappa * factor for factor in (0.5, 1, 2)]
            wrong = [replace(encoding, kappa=max(kappa, solvers.LEAST_KAPPA)) for kappa in kappas]
            high, right, low = (solvers.prepare("QSVT", each, epsilon) for each in wrong)
            cost[t, e] = low.uses / right.uses * math.sqrt(right.success_probability / low.success_probability)
            error[t, e] = np.linalg.norm(high.state - exact)
    return cost, error


# ----------------------------------------------------------------------------------------------------------------------
# States: |k*>, and overlaps
# ----------------------------------------------------------------------------------------------------------------------


def post_selection(k):
    """P = sum_i k_i^2/n that |k*> is prepared, by convention. [test, n] -> [2, test]"""
    largest = np.abs(k).max()
    return np.minimum([training.post_selection_probability(k / divided) for divided in (largest, 1)], 1)


# ----------------------------------------------------------------------------------------------------------------------
# Readout: how many shots, or rounds of amplitude estimation, a prediction needs
# ----------------------------------------------------------------------------------------------------------------------


def read_out(overlap, label, rng):
    """What it takes to read the sign of o - t. overlap: of all test images. Values by threshold [2, ...].

    accuracy_noiseless; accuracy after SHOTS shots; shots_needed and points_needed (of amplitude estimation's
    schedule) for SHARE of the noiseless accuracy; accuracy_calibrated, with t = median from a calibration set: with
    exact overlaps, and with the shots needed.
    """
    levels = np.array([0.0, np.median(overlap)])
    found = {
        "accuracy_noiseless": [readout.noiseless_accuracy(overlap, label, t) for t in levels],
        "accuracy": [[readout.accuracy_of_shots(overlap, label, t, m) for m in SHOTS] for t in levels],
        "shots_needed": [readout.shots_needed(overlap, label, t, SHARE) for t in levels],
        "points_needed": readout.points_needed(overlap, label, levels, SHARE, rng),
    }
    shots = found["shots_needed"][THRESHOLDS.index("median")]
    return found | {"accuracy_calibrated": readout.calibrated_accuracy(overlap, label, shots, rng)}


# ----------------------------------------------------------------------------------------------------------------------
# Cost: queries of one prediction
# ----------------------------------------------------------------------------------------------------------------------


def over_images(queries):
    """Mean and quantiles over the test images: 1/P is heavy-tailed, and the mean is what many predictions cost."""
    return [queries.mean(), *np.quantile(queries, (0.1, 0.5, 0.9), method="higher")]


def cost(prepared, probabilities, shots, points):
    """Queries of one prediction. -> [readouts 3, conventions 2, kinds 3, statistics 4]

    prepared: of |w>; probabilities: P, by convention [2, test]; shots, points: needed at this threshold. One run of
    the Hadamard test prepares both states in superposition, and pays for both. "amplitude estimation" amplifies both
    fully, and then uses that preparation and its inverse as often as its schedule says.
    """
    found = np.full((len(READOUTS), len(CONVENTIONS), len(KINDS), len(STATISTICS)), np.nan)
    p = prepared.success_probability
    if np.isnan(p):
        return found
    queries_w, queries_k = prepared.oracle_queries + prepared.label_queries, QRAM_QUERIES_PER_STATE
    schedule = readout.uses_of_schedule(int(points)) if math.isfinite(points) else math.inf
    for c, probability in enumerate(probabilities):
        none = np.zeros(len(probability))
        ways = [
            (none, none, readout.runs_per_shot(p, probability), shots),
            (*readout.amplified_shot(queries_w, p, queries_k, probability), shots),
            (readout.full_rounds(p) + none, readout.full_rounds(probability), none + 1, schedule),
        ]
        for r, (rounds_w, rounds_k, runs, times) in enumerate(ways):
            w, k = runs * (2 * rounds_w + 1), runs * (2 * rounds_k + 1)  # preparations a shot
            kinds = w * prepared.oracle_queries, k * queries_k, w * queries_w + k * queries_k
            found[r, c] = [over_images(each * times) if each.any() else [0.0] * 4 for each in kinds]
    return found


def classical_costs(matrix, y, exact, k, label, thresholds, epsilons, rng):
    """What a classical computer does for the same prediction. Values by threshold [2].

    operations_classical [2, 5]: of CLASSICAL, two for every entry read and used. "all entries" has w solved once, and
    so has "sampler"; "local solver" finds each w_i that is sampled, "anew" all of them for every prediction.
    """
    sparse, n = scipy.sparse.csr_array(matrix), len(y)
    samples = classical.samples_needed(k, exact, label, thresholds, SHARE, rng)
    found = {"samples_needed": samples, "dominant_rows": np.mean(classical.dominance(matrix) < 1)}
    rows = {name: [] for name in ("local_length", "local_entries", "local_error", "local_accuracy", "iterations")}
    operations = []
    for t, (level, epsilon, m) in enumerate(zip(thresholds, epsilons, samples, strict=True)):
        weights, entries, local, length = classical.local_solve(matrix, y, epsilon)
        iterations = classical.conjugate_gradient_iterations(sparse, y, exact, epsilon)
        overlap = training.overlaps(k, weights)
        rows["local_length"].append(length)
        rows["local_entries"].append(entries.mean())
        rows["local_error"].append(np.linalg.norm(weights / np.linalg.norm(weights) - exact))
        rows["local_accuracy"].append(readout.noiseless_accuracy(overlap, label, level) if length >= 0 else np.nan)
        rows["iterations"].append(iterations)
        anew = classical.conjugate_gradient_operations(sparse, iterations), classical.cholesky_operations(n)
        operations.append([2 * n, 2 * m, m * (2 + local.mean()), *(each + 2 * n for each in anew)])
    return found | rows | {"operations_classical": operations}


# ----------------------------------------------------------------------------------------------------------------------
# One trial
# ----------------------------------------------------------------------------------------------------------------------


def emulate_trial(kernels, matrices, random):
    """One trial. kernels: by file name; matrices: K~ [n, n] of every pattern; random: generators by purpose.

    Returns arrays by name. Of the trial: qram_writes []; post_selection_probability [2, test]; those of `read_out`,
    overlap [test] and cost [2, 3, 2, 3, 4] with the suffix _diagonal, and operations_diagonal [2, 2]. Of every pattern
    (first axis): what `emulate_pattern` returns.
    """
    y, label, k = kernels["train_label"], kernels["test_label"], kernels["kernel_test_normalized"]
    probabilities = post_selection(k)
    overlap = training.overlaps(k, y)
    diagonal = read_out(overlap, label, random("readout diagonal")) | {"overlap": overlap}
    free = solvers.Prepared(y / np.linalg.norm(y), 0, 1.0)
    needs = zip(diagonal["shots_needed"], diagonal["points_needed"], strict=True)
    diagonal["cost"] = [cost(free, probabilities, *need) for need in needs]
    levels = np.array([0.0, np.median(overlap)])
    samples = classical.samples_needed(k, y, label, levels, SHARE, random("sampler diagonal"))
    diagonal |= {"samples_needed": samples, "operations": [[2 * len(y), 2 * m] for m in samples]}
    found = {"qram_writes": len(y), "post_selection_probability": probabilities}
    found |= {f"{name}_diagonal": value for name, value in diagonal.items()}
    records = [
        emulate_pattern(matrix, y, label, k, probabilities, lambda purpose, p=p: random(f"{purpose} {p}"))
        for p, matrix in enumerate(matrices)
    ]
    return found | {name: np.array([record[name] for record in records]) for name in records[0]}


def emulate_pattern(matrix, y, label, k, probabilities, random):
    """One sparsified matrix K~ [n, n] of a trial: the algorithm from the solver to the cost.

    Returns, with t thresholds (2), s solvers (6), e encodings (2): sparsity, positive_definite; kappa [e]; epsilon
    [t]; uses, success_probability, solver_error [t, s, e]; overlap [test] and what `read_out` and `classical_costs`
    return; cost [t, s, e, readouts, conventions, kinds, statistics]; cheapest_quantum [t, conventions], the least
    mean number of queries, and cheapest_quantum_index, where it is in [s, e, readouts]; cheapest_classical [t], in
    operations; bits_matrix, bits_test [2]; and of `misjudged_eigenvalue`. Shots are those of the exact |w>.
    """
    exact = training.solve(matrix, y)
    if np.isnan(exact).any():  # singular: all is NaN
        identity = emulate_pattern(np.eye(len(y)), y, label, k, probabilities, random)
        return {name: np.asarray(value) * np.nan for name, value in identity.items()}
    overlap = training.overlaps(k, exact)
    found = {"sparsity": training.sparsity(matrix), "overlap": overlap}
    found |= read_out(overlap, label, random("readout"))
    levels = np.array([0.0, np.median(overlap)])
    epsilons = np.minimum(EPSILON_SHARE / np.sqrt(found["shots_needed"]), LARGEST_EPSILON)
    epsilons = np.maximum(epsilons, EPSILON_SHARE / math.sqrt(readout.MOST_SHOTS))
    encodings = solvers.block_encodings(matrix, y)
    axes = len(THRESHOLDS), len(SOLVERS), len(ENCODINGS)
    per_run = {name: np.full(axes, np.nan) for name in ("uses", "success_probability", "solver_error")}
    queries = np.full((*axes, len(READOUTS), len(CONVENTIONS), len(KINDS), len(STATISTICS)), np.nan)
    for at, prepared in solve_by_all(encodings, epsilons).items():
        per_run["uses"][at], per_run["success_probability"][at] = prepared.uses, prepared.success_probability
        per_run["solver_error"][at] = np.linalg.norm(prepared.state - exact)
        queries[at] = cost(prepared, probabilities, found["shots_needed"][at[0]], found["points_needed"][at[0]])
    kappa = [encodings[name].kappa if name in encodings else np.inf for name in ENCODINGS]
    found |= {"kappa": kappa, "epsilon": epsilons, **per_run, "cost": queries}
    means = queries[..., KINDS.index("all"), STATISTICS.index("mean")]  # [t, s, e, readouts, conventions]
    means = np.where(np.isnan(means), np.inf, means).reshape(len(THRESHOLDS), -1, len(CONVENTIONS))
    found |= {"cheapest_quantum": means.min(axis=1), "cheapest_quantum_index": means.argmin(axis=1)}
    found |= classical_costs(matrix, y, exact, k, label, levels, epsilons, random("sampler"))
    found["cheapest_classical"] = np.nanmin(found["operations_classical"], axis=1)
    doubled, halved = misjudged_eigenvalue(encodings, epsilons, exact)
    found |= {"cost_kappa_doubled": doubled, "error_kappa_halved": halved}
    return found | bits(matrix, y, label, k, exact, levels)


def bits(matrix, y, label, k, exact, levels):
    """Fewest bits of K~'s entries, and of k*'s by convention [2], with SHARE of the accuracy at the median."""
    level = levels[THRESHOLDS.index("median")]
    goal = SHARE * readout.noiseless_accuracy(training.overlaps(k, exact), label, level)

    def accuracy(k, state):
        with np.errstate(invalid="ignore"):  # all entries of a k* may be rounded to 0
            return readout.noiseless_accuracy(training.overlaps(k, state), label, level)

    def of_matrix(b):
        return accuracy(k, training.solve(readout.rounded(matrix, b, np.abs(matrix).max()), y))

    scales = np.abs(k).max(), 1
    of_test = [
        readout.bits_needed(lambda b, scale=scale: accuracy(readout.rounded(k, b, scale), exact), goal, MOST_BITS)
        for scale in scales
    ]
    return {"bits_matrix": readout.bits_needed(of_matrix, goal, MOST_BITS), "bits_test": of_test}


# ----------------------------------------------------------------------------------------------------------------------
# Running: trials on disk, files, command line
# ----------------------------------------------------------------------------------------------------------------------


def find_trials(folder, network, seed):
    """(prefix, {size: numbers of the complete trials}) in `folder`, MNIST's if any, else the digits'; {} if none."""
    for prefix in (network, f"digits-{network}"):
        trials = {}
        for path in sorted(folder.glob("*_kernel_train.npy")):
            match = re.fullmatch(rf"{prefix}_seed{seed}_data(\d+)_trial(\d+)_kernel_train.npy", path.name)
            stem = path.name.removesuffix("kernel_train.npy")
            if match and all((folder / f"{stem}{name}.npy").exists() for name in trial_files):
                trials.setdefault(int(match[1]), []).append(int(match[2]))
        if trials:
            break
    return prefix, {size: sorted(trials[size]) for size in sorted(trials)}


trial_files = ("train_label", "test_label", "kernel_train", "kernel_test_normalized")  # that training.py writes, of use


def read_array(path, shape):
    """The array at `path`, BadInput unless it has this shape (-1: any length) and finite numbers; and its bytes."""
    remedy = "delete it and run training.py again"
    try:
        content = path.read_bytes()
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise training.BadInput(f"{path}: can't be read ({error}); {remedy}") from error
    same = array.ndim == len(shape) and all(a in (-1, b) for a, b in zip(shape, array.shape, strict=True))
    if not same or not np.isfinite(array).all():
        raise training.BadInput(f"{path}: holds no {list(shape)} finite numbers; {remedy}")
    return array, content


def run_trial(args, network, prefix, size, trial, class_thresholds):
    """One trial's record [()], with a field for everything `emulate_trial` returns; read if there, else computed."""
    stem, digest, kernels = f"{prefix}_seed{args.seed}_data{size}_trial{trial}_", hashlib.sha256(), {}
    shapes = {"train_label": (size,), "kernel_train": (size, size), "test_label": (-1,)}
    for name in trial_files:
        shape = shapes.get(name) or (len(kernels["test_label"]), size)
        kernels[name], content = read_array(args.input / f"{stem}{name}.npy", shape)
        digest.update(content)
    if not np.all(np.any(kernels["kernel_test_normalized"], axis=1)):
        raise training.BadInput(f"{args.input / stem}kernel_test_normalized.npy: a row is 0, no |k*>; remove the trial")
    # Only what this script, with its constants, made of the same inputs is good.
    digest.update(repr((VERSION, class_thresholds)).encode())
    key = int.from_bytes(digest.digest()[:8], "little")
    path = args.output / f"{stem}emulation.npy"
    if path.exists():
        with contextlib.suppress(OSError, ValueError, EOFError):
            record = np.load(path, allow_pickle=False)
            if record.dtype.names and record["key"] == key:
                return record
    random = functools.partial(training.random_generator, args.seed, network, size, trial)
    patterns = [training.sparsity_pattern(size, random(f"pattern {p}")) for p in range(training.sparsity_patterns)]
    sparsify = training.sparsify_unbiased
    if network == "convolutional":
        sparsify = functools.partial(training.sparsify_biased, thresholds=class_thresholds)
    matrices = [sparsify(kernels["kernel_train"], pattern) for pattern in patterns]
    found = emulate_trial(kernels, matrices, lambda purpose: random(f"emulation {purpose}"))
    fields = [(name, "<f8", np.shape(value)) for name, value in found.items()]
    record = np.array((key, *found.values()), dtype=[("key", "<u8"), *fields])
    training.save(path, functools.partial(np.save, arr=record))
    return record


AXES = {
    "thresholds": THRESHOLDS, "conventions": CONVENTIONS, "solvers": SOLVERS, "encodings": ENCODINGS,
    "readouts": READOUTS, "kinds": KINDS, "statistics": STATISTICS, "classical": CLASSICAL, "shots": SHOTS,
}  # fmt: skip


def describe(prefix, size, records):
    """One line about the trials of a size: threshold at the median, k* divided by the test block's largest entry."""
    best = np.array([n.replace(",", "") for n in map(", ".join, itertools.product(SOLVERS, ENCODINGS, READOUTS))])
    index, count = np.unique(records["cheapest_quantum_index"][:, :, 1, 0].astype(int), return_counts=True)
    return (f"{prefix} n = {size}: trials {len(records)}, shots {records['shots_needed'][:, :, 1].mean():.0f}, cheapest "
            f"quantum {records['cheapest_quantum'][:, :, 1, 0].mean():.3g} queries ({best[index[count.argmax()]]}), "
            f"diagonal {records['cost_diagonal'][:, 1, :, 0, 2, 0].min(axis=1).mean():.3g}, "
            f"classical {records['cheapest_classical'][:, :, 1].mean():.3g} operations")  # fmt: skip


def run_network(args, network):
    """Emulate the trials of one network that are on disk and write its results. Returns whether there were any."""
    prefix, trials = find_trials(args.input, network, args.seed)
    for size in sorted(set(args.data_sizes or []) - set(trials)):
        print(f"note: no complete trial of {network}, n = {size}, seed {args.seed} in {args.input}/")
    trials = {n: ts[: args.trials] for n, ts in trials.items() if not args.data_sizes or n in args.data_sizes}
    if not trials:
        print(f"note: nothing to emulate of the {network} network")
        return False
    if prefix != network:
        print(f"THE {network.upper()} KERNELS ARE OF SCIKIT-LEARN'S 8x8 DIGITS, NOT OF MNIST.")
    class_thresholds = None
    if network == "convolutional":
        n = training.reference_size
        path = args.input / f"{prefix}_seed{args.seed}_data{n}_trial0_kernel_train.npy"
        class_thresholds = training.class_thresholds(read_array(path, (n, n))[0], training.percentile)
    records = {}
    for size, numbers in trials.items():
        for trial in numbers:
            records[size, trial] = run_trial(args, network, prefix, size, trial, class_thresholds)
            if len({r.dtype for r in records.values()}) > 1:
                counts = " and ".join(sorted({str(r["overlap_diagonal"].size) for r in records.values()}))
                raise training.BadInput(f"{args.input}/{prefix}: trials of {counts} test images; keep those of one")
        r = np.array([records[size, trial] for trial in numbers])
        print(describe(prefix, size, r))
    shape = (len(trials), 1 + max(trial for _, trial in records))
    results = {"data_sizes": list(trials), "trials": [len(t) for t in trials.values()], **AXES}
    for name in r.dtype.names[1:]:
        results[name] = np.full((*shape, *r.dtype[name].shape), np.nan)
        for (size, trial), record in records.items():
            results[name][list(trials).index(size), trial] = record[name]
    path = args.output / f"{prefix}_emulation.npz"
    training.save(path, functools.partial(np.savez_compressed, **results))
    print(f"wrote {path}")
    return True


def main(argv=None):
    """Run the command line. Returns the exit status: 0, or 2 after one line about a bad input."""
    parser = argparse.ArgumentParser(description="The quantum algorithm of arXiv:2107.09200, emulated.")
    names = " ".join(training.networks)
    options = [
        ("--networks", dict(nargs="+", choices=training.networks, default=training.networks, metavar="NETWORK"),
         f"of {names}", names),
        ("--data-sizes", dict(nargs="+", type=int, metavar="N"), "numbers of training images", "all that are there"),
        ("--trials", dict(type=int, metavar="T"), "trials of each size at most", "all that are there"),
        ("--seed", dict(type=int, default=training.seed), "seed that the kernels have in their names", training.seed),
        ("--input", dict(type=Path, default="kernel_output", metavar="DIR"), "folder of training.py's kernels",
         "kernel_output"),
        ("--output", dict(type=Path, default="kernel_output", metavar="DIR"), "folder to write to, and to go on from",
         "kernel_output"),
    ]  # fmt: skip
    for flag, how, text, default in options:
        parser.add_argument(flag, **how, help=f"{text} (default: {default})")
    args = parser.parse_args(argv)
    if args.trials is not None and args.trials < 1:
        parser.error(f"--trials {args.trials}: use 1 or more")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        with threadpoolctl.threadpool_limits(1):  # LAPACK's threads crawl where other jobs share the cores
            found = [run_network(args, network) for network in args.networks]
        if not any(found):
            raise training.BadInput(f"--input {args.input}: no such complete trial there; run training.py first")
    except (OSError, training.BadInput) as error:
        print(f"emulation.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
