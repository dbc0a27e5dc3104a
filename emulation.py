"""The quantum algorithm of arXiv:2107.09200, emulated on the kernels that training.py wrote.

    python emulation.py                                 # every complete trial in kernel_output/
    python emulation.py --networks fully-connected --data-sizes 16 32 --trials 4
    python emulation.py --help                          # everything else

A prediction is the sign of o - t, o = <k*|w>, with |w> ~ K~^-1 |y> (sparsified, by the solver of Childs, Kothari and
Somma, SIAM J. Comput. 46, 1920, 2017, "CKS" below) or |w> = |y> (diagonal), and t = 0 or the median of the o of the
test set. Everything is computed classically but as the algorithm does it: the solver's truncated polynomial with its
own error, the post-selection of |k*>, the shots of the Hadamard test. Assumed, not emulated: QRAM, the sparse oracle,
and gates without errors. Writes, for each trial, `{prefix}_seed{seed}_data{N}_trial{t}_emulation.npy`, which a rerun
reads instead of computing, and `{prefix}_emulation.npz`, with [sizes, trials, ...] of what `emulate_trial` describes,
NaN for missing trials. Takes about a minute for all trials of both networks on 2 CPU cores.
"""

import argparse
import contextlib
import functools
import hashlib
import math
import re
import sys
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.stats

import training

# ----------------------------------------------------------------------------------------------------------------------
# Constants
# ----------------------------------------------------------------------------------------------------------------------

shots = np.unique(np.geomspace(1, 10**6, 31).round().astype(int))  # M, five a decade
repetitions = 100  # times that every test image is read out with each M
share = 0.99  # of the noiseless accuracy, that the shots have to reach
# |w> is prepared with error epsilon, which moves o by at most epsilon: a tenth of the shot noise 1/sqrt(M) at the
# largest M, so that no number of shots emulated here can see it.
epsilon = 0.1 / math.sqrt(shots[-1])
most_degree = 10**6  # a polynomial of higher degree is counted, but not applied: NaN, and a note says so
oracle_queries_per_isometry = 3  # of the walk's T: columns (in place), entries, entries again to uncompute them
qram_queries_per_state = 2  # |y> or |k*>: load, rotate an ancilla, load again to uncompute

thresholds = ("zero", "median")
conventions = ("test block", "k_thresh")  # what k* is divided by: the largest entry of the test block too, or not
schemes = ("sampled", "amplified", "amplified apart")  # see `cost`

# ----------------------------------------------------------------------------------------------------------------------
# The sparse linear solver: 1/x as a Chebyshev series, CKS section 4
# ----------------------------------------------------------------------------------------------------------------------


def series_length(kappa, error):
    """B and j_0 of CKS, Lemma 14, for 1/x on 1/kappa <= |x| <= 1 up to 2 * error; j_0 < b, where the series ends.

    b = ceil(kappa^2 ln(kappa/error)), j_0 = ceil(sqrt(b ln(4b/error))); the degree is 2 j_0 + 1.
    """
    b = max(1, math.ceil(kappa**2 * math.log(kappa / error)))
    return b, min(math.ceil(math.sqrt(b * math.log(4 * b / error))), b - 1)


def series_coefficients(b, j0):
    """Coefficients of T_1, T_3, ..., T_{2 j_0 + 1} in g(x) ~ 1/x, CKS Lemma 14. [j0 + 1]

    g(x) = 4 sum_{j=0}^{j_0} (-1)^j [sum_{i=j+1}^b binom(2b, b+i) / 2^{2b}] T_{2j+1}(x). The bracket is the
    probability of more than b + j heads in 2b tosses, which does not overflow.
    """
    j = np.arange(j0 + 1)
    return 4 * (-1.0) ** j * scipy.stats.binom.sf(b + j, 2 * b, 0.5)


def block_encode(matrix):
    """H = K~ / (s max|K~_ij|), what the sparse oracle block-encodes, s the sparsity. [n, n], sparse"""
    return scipy.sparse.csr_array(matrix / (training.sparsity(matrix) * np.abs(matrix).max()))


def chebyshev_vectors(matrix, vector):
    """Yield T_1(H) v, T_2(H) v, ... of H = matrix by T_{m+1} = 2 H T_m - T_{m-1}. [n] each"""
    previous, current = vector, matrix @ vector
    while True:
        yield current
        previous, current = current, 2 * (matrix @ current) - previous


def chebyshev_solve(matrix, y, error):
    """What CKS's Chebyshev algorithm prepares for K~ |w> = |y>, and its cost. matrix: symmetric [n, n]; y: [n]

    Returns a dict: state, |w> [n], a unit vector within `error` of the exact one; kappa = s max|K~| / smallest
    |eigenvalue|, the condition number that block encoding leaves; degree; oracle_queries of one application; lcu_norm
    alpha, the sum of the coefficients' magnitudes; success_probability of one application, |g(H) y|^2 / alpha^2;
    positive_definite (the odd polynomial inverts negative eigenvalues as well, conjugate gradients may not). Where
    K~ is singular or the degree above `most_degree`, state, lcu_norm and success_probability are NaN.

    g is within error/2 of 1/x on the spectrum of H, and |H^-1 y| >= |y|, so that normalising doubles it at most. One
    application is T, `degree` steps of the walk W = S(2TT' - 1), S swapping its registers, and T', where
    T' W^m T = T_m(H): 2 (degree + 1) uses of T or its inverse T'.
    """
    y = y / np.linalg.norm(y)
    eigenvalues = scipy.linalg.eigvalsh(matrix)
    found = {"state": np.full(len(y), np.nan), "positive_definite": eigenvalues[0] > 0}
    found |= dict.fromkeys(["lcu_norm", "success_probability"], np.nan)
    smallest = np.abs(eigenvalues).min()
    kappa = training.sparsity(matrix) * np.abs(matrix).max() / smallest if smallest > 0 else np.inf
    kappa = max(kappa, 1.0)  # the identity's may come out as 1 - 1e-16
    if not kappa < 1e150:  # its square would overflow
        return found | {"kappa": kappa, "degree": np.inf, "oracle_queries": np.inf}
    b, j0 = series_length(kappa, error / 4)
    degree = 2 * j0 + 1
    found |= {"kappa": kappa, "degree": degree, "oracle_queries": 2 * (degree + 1) * oracle_queries_per_isometry}
    if degree > most_degree:
        return found
    coefficients, x = series_coefficients(b, j0), np.zeros(len(y))
    vectors = chebyshev_vectors(block_encode(matrix), y)
    for coefficient in coefficients:
        x += coefficient * next(vectors)
        next(vectors)  # of even degree
    norm, lcu_norm = np.linalg.norm(x), np.abs(coefficients).sum()
    return found | {"state": x / norm, "lcu_norm": lcu_norm, "success_probability": (norm / lcu_norm) ** 2}


# ----------------------------------------------------------------------------------------------------------------------
# State preparation, readout by shots, and the classical competitors
# ----------------------------------------------------------------------------------------------------------------------


def post_selection_probability(kernel_test_normalized):
    """P = sum_i k_i^2 / n that |k*> is prepared, by convention. [test, n] -> [2, test]

    |k*>: QRAM loads k_i beside sum_i |i>/sqrt(n), an ancilla is rotated by arcsin k_i and has to be measured as 1.
    """
    probability = np.mean(kernel_test_normalized**2, axis=1)
    return np.minimum([probability / np.abs(kernel_test_normalized).max() ** 2, probability], 1)  # 1 + 1e-16 is none


def overlaps(kernel_test_normalized, state):
    """O = <k*|w> of every test image. [test, n], [n] -> [test]"""
    return kernel_test_normalized @ state / np.linalg.norm(kernel_test_normalized, axis=1) / np.linalg.norm(state)


def read_out(overlap, label, estimates):
    """Share of right signs of estimates - t for t = 0 and the median of the exact overlaps. [..., test] -> [2, ...]"""
    return np.array([np.mean((estimates > t) == (label > 0), axis=-1) for t in (0, np.median(overlap))])


def accuracy_by_shots(overlap, label, rng):
    """Accuracy of sign(o - t) after M shots of the Hadamard test, by threshold and M. [test] -> [2, shots]

    A shot is 1 with probability (1 + o)/2; the estimate of o is twice the share of ones, minus one. More shots go on
    from the fewer ones.
    """
    steps = np.diff(shots, prepend=0)[:, None, None]
    ones = rng.binomial(steps, np.clip((1 + overlap) / 2, 0, 1), size=(len(shots), repetitions, len(overlap)))
    estimates = 2 * np.cumsum(ones, axis=0) / shots[:, None, None] - 1
    return read_out(overlap, label, estimates).mean(axis=2)


def accuracy_by_samples(kernel_test_normalized, y, label, rng):
    """The same prediction, <k*|y>, sampled classically: accuracy by threshold and number of samples. -> [2, shots]

    Draw i uniformly, read y_i k_i; o is estimated by mean(y_i k_i) / sqrt(mean(k_i^2)). The first mean's relative
    variance is (1/o^2 - 1)/M, that of M shots. The test images of one repetition share their indices i.
    """
    k, n = kernel_test_normalized, len(y)
    steps = np.diff(shots, prepend=0)[:, None]
    drawn = rng.multinomial(steps, np.full(n, 1 / n), size=(len(shots), repetitions)).cumsum(axis=0, dtype=float)
    norms = np.sqrt(drawn @ k.T**2 * shots[:, None, None])  # 0 if all k_i drawn are 0, and so is the estimate
    estimates = drawn @ (k * y).T / np.where(norms > 0, norms, 1)
    return read_out(overlaps(k, y), label, estimates).mean(axis=2)


def shots_needed(accuracy, noiseless):
    """Smallest M from which on the accuracy is `share` of the noiseless one; inf if the largest M has less.

    accuracy: [..., shots]; noiseless: [...]. Returns [...].
    """
    below = accuracy < share * noiseless[..., None]
    last = np.where(below.any(axis=-1), len(shots) - 1 - np.argmax(below[..., ::-1], axis=-1), -1)
    return np.append(shots, np.inf)[last + 1]


def readout_rule(overlap):
    """Medians over the test set of the shots that the rule counts, 1/o^2 - 1, and (1 - o^2)/(o - t)^2 at t. -> [2]"""
    with np.errstate(divide="ignore"):
        return [np.median((1 - overlap**2) / (overlap - t) ** 2) for t in (0, np.median(overlap))]


def amplified_uses(probability):
    """Least expected uses of a preparation, amplified until it succeeds: min over m of (2m + 1)/sin^2((2m + 1) theta).

    sin^2(theta) is the probability. m rounds use it or its inverse 2m + 1 times (Brassard et al., quant-ph/0005055);
    about 1.38 / sqrt(probability), and never more than 1 / probability, which is m = 0.
    """
    theta = np.arcsin(np.sqrt(probability))
    rounds = np.maximum(0, (1.16556 / theta - 1) / 2)  # tan x = 2x at the minimum of x / sin^2 x
    uses = [2 * m + 1 for m in (np.floor(rounds), np.ceil(rounds))]
    return np.min([u / np.sin(u * theta) ** 2 for u in uses], axis=0)


def cost(queries, success_probability, post_selection, needed):
    """Queries of one prediction to the sparse oracle and to QRAM, by scheme, convention and threshold. -> [2, 3, 2, 2]

    queries: of one application of the solver; post_selection: [2, test], its median over the test images counts;
    needed: shots [2]. Schemes: "sampled" takes 1 / (p P) runs a shot, until both |w> and |k*> have succeeded (a
    Hadamard test of U_k' U_w sees sqrt(p P) o); "amplified" amplifies the run as a whole, so that roots multiply;
    "amplified apart" amplifies |w> and |k*> each by itself, so that their costs add.
    """
    joint = success_probability * post_selection
    together = [np.median(1 / joint, axis=1), np.median(amplified_uses(joint), axis=1)]
    w_uses = np.array([*together, np.full(2, amplified_uses(success_probability))])
    k_uses = np.array([*together, np.median(amplified_uses(post_selection), axis=1)])
    per_shot = np.array([queries * w_uses, qram_queries_per_state * (w_uses + k_uses)])
    with np.errstate(invalid="ignore"):  # no query, infinitely many shots
        return per_shot[..., None] * needed


def conjugate_gradient_iterations(matrix, y, exact, error):
    """Iterations until x/|x| is within `error` of the unit vector `exact`; NaN if not in 10 n. matrix: sparse [n, n]"""
    x, residual, direction = np.zeros(len(y)), y, y
    for iteration in range(1, 10 * len(y) + 1):
        product = matrix @ direction
        if direction @ product == 0:  # an indefinite matrix may end it
            return np.nan
        step = residual @ residual / (direction @ product)
        x, before, residual = x + step * direction, residual, residual - step * product
        if np.linalg.norm(x / np.linalg.norm(x) - exact) <= error:
            return iteration
        direction = residual + residual @ residual / (before @ before) * direction
    return np.nan


# ----------------------------------------------------------------------------------------------------------------------
# One trial
# ----------------------------------------------------------------------------------------------------------------------


def emulate_trial(kernels, matrices, error, random):
    """One trial. kernels: by file name; matrices: K~ [n, n] of every pattern; error: of |w>; random: by purpose.

    Returns by name, for p patterns, x test images and the axes thresholds (2), conventions (2), schemes (3), shots (m):
    [p] what `chebyshev_solve` returns, sparsity, solver_error, conjugate_gradient_iterations and _flops; [] cholesky_
    flops, of factor and solves; [2, x] post_selection_probability and _attempts, one draw each; for _sparse, with p in
    front, and _diagonal: overlap [x], readout_rule, accuracy_noiseless and shots_needed [2], accuracy [2, m] after
    the shots, cost_qram and (_sparse) cost_oracle [3, 2, 2]; accuracy_classical [2, m] and shots_needed_classical [2].
    Shots needed say nothing where the noiseless accuracy is near a half: one shot has as much.
    """
    y, label, k = kernels["train_label"], kernels["test_label"], kernels["kernel_test_normalized"]
    n = len(y)
    probability = post_selection_probability(k)
    found = {"cholesky_flops": n**3 / 3 + 2 * n**2, "post_selection_probability": probability}
    found["post_selection_attempts"] = random("post-selection").geometric(probability)

    def read(state, purpose, queries, success_probability):
        if np.isnan(state).any():
            return {name: value * np.nan for name, value in read(y, purpose, 0, 1.0).items()}
        overlap = overlaps(k, state)
        values = {"overlap": overlap, "readout_rule": np.array(readout_rule(overlap))}
        values["accuracy_noiseless"] = read_out(overlap, label, overlap)
        values["accuracy"] = accuracy_by_shots(overlap, label, random(purpose))
        values["shots_needed"] = shots_needed(values["accuracy"], values["accuracy_noiseless"])
        costs = cost(queries, success_probability, probability, values["shots_needed"])
        return values | dict(zip(("cost_oracle", "cost_qram"), costs, strict=True))

    diagonal = read(y, "shots diagonal", 0, 1.0)
    found |= {f"{name}_diagonal": value for name, value in diagonal.items() if name != "cost_oracle"}
    found["accuracy_classical"] = accuracy_by_samples(k, y, label, random("samples"))
    found["shots_needed_classical"] = shots_needed(found["accuracy_classical"], diagonal["accuracy_noiseless"])

    for p, matrix in enumerate(matrices):
        values, exact = chebyshev_solve(matrix, y, error), training.solve(matrix, y)
        iterations = conjugate_gradient_iterations(scipy.sparse.csr_array(matrix), y, exact, error)
        values |= {"sparsity": training.sparsity(matrix), "conjugate_gradient_iterations": iterations}
        # One iteration: a sparse product, two inner products, three vector updates.
        values["conjugate_gradient_flops"] = iterations * (2 * np.count_nonzero(matrix) + 10 * n)
        state = values.pop("state")
        values["solver_error"] = np.linalg.norm(state - exact)
        sparse = read(state, f"shots {p}", values["oracle_queries"], values["success_probability"])
        values |= {f"{name}_sparse": value for name, value in sparse.items()}
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return found


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
    digest.update(repr((args.epsilon, class_thresholds)).encode() + Path(__file__).read_bytes())
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
    found = emulate_trial(kernels, matrices, args.epsilon, lambda purpose: random(f"emulation {purpose}"))
    fields = [(name, "<f8", np.shape(value)) for name, value in found.items()]
    record = np.array((key, *found.values()), dtype=[("key", "<u8"), *fields])
    training.save(path, functools.partial(np.save, arr=record))
    return record


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
        indefinite, unsolved = np.sum(r["positive_definite"] == 0), np.sum(np.isnan(r["solver_error"]))
        print(f"{prefix} n = {size}: trials {len(r)}, K~ {r['kappa'].size} of which indefinite {indefinite}; "
              f"degrees up to {r['degree'].max():.0f}, error up to {np.nanmax(r['solver_error'], initial=0):.1e}, "
              f"shots needed, diagonal, {np.median(r['shots_needed_diagonal'][:, 1]):.0f}")  # fmt: skip
        if unsolved:
            print(f"note: n = {size}: {unsolved} K~ singular or of degree above {most_degree}, not applied, NaN")
    shape = (len(trials), 1 + max(trial for _, trial in records))
    results = {"data_sizes": list(trials), "trials": [len(t) for t in trials.values()], "epsilon": args.epsilon}
    results |= {"shots": shots, "thresholds": thresholds, "conventions": conventions, "schemes": schemes}
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
        ("--epsilon", dict(type=float, default=epsilon), "error of the solver's state |w>", f"{epsilon:g}"),
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
    if not 0 < args.epsilon < 1:
        parser.error(f"--epsilon {args.epsilon}: use a number between 0 and 1")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        if not any([run_network(args, network) for network in args.networks]):
            raise training.BadInput(f"--input {args.input}: no such complete trial there; run training.py first")
    except (OSError, training.BadInput) as error:
        print(f"emulation.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
