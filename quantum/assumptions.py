"""What the algorithm is assumed to be given, and what becomes of it where it is not."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from quantum import readout, solvers

Array = NDArray[np.float64]
Matrix: TypeAlias = "NDArray[np.float64] | scipy.sparse.csr_array"

MOST_BITS = 60
# The thresholds t of a prediction: the one that a single prediction can know comes first.
LEVELS = ("calibrated", "test median", "zero")

# What is assumed free or known, and the array that says what it costs where it is not.
ASSUMPTIONS = {
    "QRAM holds k*": ("kernel evaluations to write it, for every prediction", "qram_writes"),
    "an oracle gives places and values of K̃'s entries": (
        "most entries in a row of K̃, each a kernel evaluation to store once", "sparsity"
    ),
    "K̃ has exact entries": (
        "bits an entry for 99 % of the accuracy in every trial", "bits_matrix"
    ),
    "k* has exact entries": ("bits an entry for the same, by convention", "bits_test"),
    "t is known": (
        "queries for the median of the calibration half, once for all predictions, by way",
        "calibration_queries",
    ),
    "t is known exactly": (
        "accuracy with t from the shots of a prediction for each of them", "accuracy_drawn"
    ),
    "the smallest eigenvalue is known": (
        "cost of QSVT if it is taken to be half as large: factor, by encoding", "cost_kappa_doubled"
    ),
    "the smallest eigenvalue is no smaller": (
        "error of the state if it is taken to be twice as large, by encoding", "error_kappa_halved"
    ),
    "the norm of H^-1 y is known (kernel reflection)": (
        "queries if it is not: factor, by encoding", "cost_norm_unknown"
    ),
    "the norm of E is known (series in E)": (
        "degree; if only the bound beta on it is known", "cost_degrees"
    ),
    "d and beta are known (I + E)": (
        "queries of QSVT by the sparse oracle alone: factor", "cost_one_norm"
    ),
    "a divisor of k* is known": (
        "accuracy if entries above the training matrix's largest are clipped",
        "accuracy_clipped",
    ),
    "P/p is known (balance)": (
        "accuracy if it is wrong by a factor of 2, which makes o 0.943 times as large",
        "accuracy_unbalanced",
    ),
    "P is known (amplification)": (
        "queries to k* if only the smallest P is known, by fixed-point amplification: factor, "
        "by convention",
        "cost_fixed_point",
    ),
    "p is known (amplification), gates have no errors": ("not emulated", None),
}  # fmt: skip

# --------------------------------------------------------------------------------------------------
# Entries of so many bits
# --------------------------------------------------------------------------------------------------


def bits_needed(accuracy_at: Callable[[int], float], goal: float, most: int) -> float:
    """Smallest b from which on entries of b bits reach the `goal`; four in a row count as from
    which on; inf if none.

    accuracy_at: of entries rounded to b bits.
    """
    in_a_row = 0
    for b in range(1, most + 1):
        in_a_row = in_a_row + 1 if accuracy_at(b) >= goal else 0
        if in_a_row == 4:
            return b - 3.0
    return math.inf


def rounded(values: Matrix, bits: int, scale: float) -> Matrix:
    """Fixed point: multiples of scale / 2^bits."""
    if not isinstance(values, np.ndarray):
        same = values.copy()
        same.data = rounded(values.data, bits, scale)
        return same
    return np.round(values * (2.0**bits / scale)) * (scale / 2.0**bits)


def bits_of_matrix(
    matrix: Matrix,
    solve: Callable[[Matrix], Array],
    kernel_test: Array,
    label: Array,
    t: float,
    goal: float,
) -> float:
    """Fewest bits of K~'s entries, relative to the largest, that keep the accuracy at t at the
    `goal`.

    solve: unit-norm weights [n] of a matrix; kernel_test: k* [test, n].
    """

    def accuracy(b: int) -> float:
        state = solve(rounded(matrix, b, float(abs(matrix).max())))
        return readout.noiseless_accuracy(cosines(kernel_test, state), label, t)

    return bits_needed(accuracy, goal, MOST_BITS)


def bits_of_test(
    kernel_test: Array, scale: float, state: Array, label: Array, t: float, goal: float
) -> float:
    """Fewest bits of k*'s entries, relative to `scale`, that keep the accuracy at the `goal`."""

    def accuracy(b: int) -> float:
        return readout.noiseless_accuracy(cosines(rounded(kernel_test, b, scale), state), label, t)

    return bits_needed(accuracy, goal, MOST_BITS)


def cosines(kernel_test: Array, state: Array) -> Array:
    """Overlaps, 0 where all entries of a k* are rounded to 0. [test, n], [n] -> [test]"""
    norms = np.linalg.norm(kernel_test, axis=1) * np.linalg.norm(state)
    return kernel_test @ state / np.where(norms > 0, norms, 1)


# --------------------------------------------------------------------------------------------------
# Numbers that nobody knows beforehand
# --------------------------------------------------------------------------------------------------


def calibrated_threshold(overlap: Array, calibration: NDArray[np.bool_]) -> float:
    """Threshold of a single prediction: the median of the overlaps of the calibration half, both
    classes alike. [test]

    It needs no labels, and is at least as good as the most accurate threshold of that half, which
    rests on few images.
    """
    return float(np.median(overlap[calibration]))


def levels(outputs: Array, calibration: NDArray[np.bool_]) -> Array:
    """The thresholds LEVELS of these outputs [test]: [3]."""
    return np.array([calibrated_threshold(outputs, calibration), np.median(outputs), 0.0])


def drawn_threshold(
    overlap: Array, calibration: NDArray[np.bool_], shots: float, rng: np.random.Generator
) -> float:
    """The same from `shots` shots for each image of the calibration half."""
    shots = int(min(shots, readout.MOST_SHOTS))
    chance = np.clip((1 + overlap[calibration]) / 2, 0, 1)
    return float(np.median(2 * rng.binomial(shots, chance) / shots - 1))


def unbalanced(overlap: Array, wrong: float = 2) -> Array:
    """What the Hadamard test gives for o if P/p is taken `wrong` times too large or too small.
    [test]

    With a^2 p = wrong b^2 P the kept state is not half and half, and o becomes 2 sqrt(wrong)/(1 +
    wrong) times o.
    """
    return overlap * 2 * math.sqrt(wrong) / (1 + wrong)


def unknown_numbers(
    encodings: dict[str, solvers.Encoding],
    epsilons: Array,
    uses: Array,
    p: Array,
    post_selection: Array,
) -> dict[str, Array]:
    """What it costs not to know |H^-1 y|, |E|, d and beta, or P; all by threshold first.

    uses, p: of runs [t, solvers, encodings]; post_selection: P [conventions, test].
    cost_norm_unknown [t, encodings], cost_one_norm [t, 1], cost_fixed_point [t, conventions] are
    factors; cost_degrees [t, 2] are degrees of the series in E, by |E| and by beta. Fixed-point
    amplification (Yoder, Low, Chuang, arXiv:1409.3305) of all P >= P_min within epsilon takes
    ln(2/epsilon)/sqrt(P_min) uses; `readout.full_rounds`, which knows P, 2m + 1.
    """
    at = {name: solvers.SOLVERS.index(name) for name in solvers.SOLVERS}
    qsvt = uses[:, at["QSVT"]] / np.sqrt(p[:, at["QSVT"]])  # [t, encodings]
    degrees = np.full((len(epsilons), 2), np.nan)
    split = encodings.get("I + E")
    if split and split.beta < 1:
        degrees[:, 0] = uses[:, at["series in E"], solvers.ENCODINGS.index("I + E")]
        beta = max(split.beta, np.finfo(float).eps)
        degrees[:, 1] = [
            solvers.perturbation_degree(beta, solvers.relative_error(epsilon))
            for epsilon in epsilons
        ]
    known = np.mean(2 * readout.full_rounds(post_selection) + 1, axis=1)  # [conventions]
    fixed = np.log(2 / epsilons)[:, None] / np.sqrt(post_selection.min(axis=1))
    return {
        "cost_norm_unknown": uses[:, at["kernel reflection, norm unknown"]]
        / uses[:, at["kernel reflection"]],
        "cost_degrees": degrees,
        "cost_one_norm": qsvt[:, :1] / qsvt[:, 1:],
        "cost_fixed_point": np.maximum(fixed / known, 1),
    }


def misjudged_eigenvalue(
    encodings: dict[str, solvers.Encoding], epsilons: Array, exact: Array
) -> tuple[Array, Array]:
    """QSVT where the smallest eigenvalue is taken for half of what it is, or for twice: cost and
    error. -> [2, 2] each

    The cost is relative to the right one, amplified: uses/sqrt(p). By threshold and encoding.
    """
    cost, error = np.full((2, len(epsilons), len(solvers.ENCODINGS)), np.nan)
    for e, encoding in enumerate(encodings.values()):
        for t, epsilon in enumerate(epsilons):
            taken = [
                replace(encoding, kappa=max(encoding.kappa * factor, solvers.LEAST_KAPPA))
                for factor in (0.5, 1, 2)
            ]
            high, right, low = (solvers.prepare("QSVT", each, epsilon) for each in taken)
            cost[t, e] = (
                low.uses
                / right.uses
                * math.sqrt(right.success_probability / low.success_probability)
            )
            error[t, e] = np.linalg.norm(high.state - exact)
    return cost, error
