"""From two prepared states to the sign of o - t, o = <k*|w>: shots of the Hadamard test, and what
they and the uses of amplitude estimation cost. sequential.py has how many are needed.

The Hadamard test prepares a|0>U_w|0> + b|1>U_k|0>, where U_w succeeds with probability p and U_k
with P, each by a flag. With a^2 p = b^2 P the kept state is (|0>|w> + |1>|k*>)/sqrt(2), whatever p
and P, and a Hadamard gate on the first qubit gives 0 with probability (1 + o)/2. A run is kept with
probability 2pP/(p + P), so that a shot takes (1/p + 1/P)/2 runs. U_k comes first, and its flag is
measured before U_w begins: that happens in (1 + p)/(2p) runs a shot. Amplifying the two flags apart
puts the amplified p' and P' in their places.

Source: [BHMT] Brassard, Hoyer, Mosca, Tapp, quant-ph/0005055.
"""

import math
from collections.abc import Callable

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

MOST_SHOTS = 10**9  # more are not looked for: inf
AMPLIFIED_ENOUGH = (
    0.9  # a success probability that is left as it is: one round would triple the uses
)
LEAST_KEPT = (
    0.4  # below, amplitude estimation is worse than `uses_for_kept_part` says, and is not allowed
)
AMPLIFICATION_STEPS = 25  # numbers of rounds that are tried, from none to full amplification

# --------------------------------------------------------------------------------------------------
# Shots
# --------------------------------------------------------------------------------------------------


def probability_above(overlap: Array, t: ArrayLike, shots: ArrayLike) -> Array:
    """Probability that M shots put their estimate of o above t; an estimate that equals t counts
    half. [...]

    The estimate is 2 x/M - 1, x of the binomial distribution of M tosses with (1 + o)/2.
    """
    m = np.asarray(shots, float)
    level = m * (1 + np.asarray(t)) / 2
    whole = np.abs(level - np.round(level)) < 1e-9 * np.maximum(m, 1)
    least = np.where(whole, np.round(level), np.floor(level))  # above: x > least
    chance = np.clip((1 + overlap) / 2, 0, 1)
    above = upper_tail(least, m, chance)
    return np.where(whole, (above + upper_tail(least - 1, m, chance)) / 2, above)


def upper_tail(least: Array, m: Array, chance: Array) -> Array:
    """P(x > least), x of m tosses with `chance`, by the incomplete beta function. [...]"""
    inside = (least >= 0) & (least < m)
    first = np.where(inside, least, 0)
    tail = scipy.special.betainc(first + 1, np.maximum(m - first, 1), chance)
    return np.where(inside, tail, np.where(least < 0, 1.0, 0.0))


def accuracy_of_shots(overlap: Array, label: Array, t: float, shots: float) -> float:
    """Expected share of test images whose sign of o - t is right after that many shots each.
    [test], [test]
    """
    above = probability_above(overlap, t, shots)
    return float(np.mean(np.where(label > 0, above, 1 - above)))


def noiseless_accuracy(overlap: Array, label: Array, t: float) -> float:
    """Share of test images whose sign of o - t is right."""
    return float(np.mean((overlap > t) == (label > 0)))


def shots_needed(overlap: Array, label: Array, t: float, share: float) -> float:
    """Smallest M from which on M shots have `share` of the noiseless accuracy; inf above
    MOST_SHOTS.

    Looked for on a grid of five a decade, from above, then by bisection between two of its points,
    so up to the steps that few shots make. Says nothing where the noiseless accuracy is near a
    half: one shot has as much.
    """
    goal = share * noiseless_accuracy(overlap, label, t)

    def enough(m: int) -> bool:
        return accuracy_of_shots(overlap, label, t, m) >= goal

    grid = [int(m) for m in np.unique(np.geomspace(1, MOST_SHOTS, 46).round())]
    good = len(grid)
    while good > 0 and enough(grid[good - 1]):
        good -= 1
    if good == len(grid):
        return math.inf
    if good == 0:
        return 1.0
    below, above = grid[good - 1], grid[good]
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if enough(middle) else (middle, above)
    return float(above)


# --------------------------------------------------------------------------------------------------
# What a shot costs
# --------------------------------------------------------------------------------------------------


def runs_per_shot(p: ArrayLike, post_selection: ArrayLike) -> Array:
    """(1/p + 1/P)/2, with the balanced superposition; p of |w>, P of |k*>. [...]"""
    return (1 / np.asarray(p) + 1 / np.asarray(post_selection)) / 2


def uses_per_shot(p: ArrayLike, post_selection: ArrayLike) -> tuple[Array, Array]:
    """How often a shot prepares |w>, [...] as p, and |k*>, [...] as both.

    U_k in every run. With a^2 = P/(p + P), b^2 = p/(p + P), its flag lets a^2 + b^2 P = P (1 +
    p)/(p + P) of them pass to U_w: the branch that does not load k* always does.
    """
    p = np.asarray(p)
    runs = runs_per_shot(p, post_selection)
    return (1 + p) / (2 * p), runs


def amplified(probability: ArrayLike, rounds: ArrayLike) -> Array:
    """Success probability after that many rounds of amplification, sin^2((2m + 1) asin sqrt p),
    [BHMT]. [...]
    """
    return np.sin((2 * np.asarray(rounds) + 1) * np.arcsin(np.sqrt(probability))) ** 2


def full_rounds(probability: ArrayLike) -> Array:
    """Rounds after which a known success probability is one exactly, [BHMT] section 2.1: ceil(pi/(4
    theta) - 1/2).

    The last round is made a little weaker. A probability of AMPLIFIED_ENOUGH is left as it is, with
    no round.
    """
    theta = np.arcsin(np.sqrt(probability))
    return np.where(
        np.asarray(probability) >= AMPLIFIED_ENOUGH, 0, np.ceil(np.pi / (4 * theta) - 0.5 - 1e-9)
    )


def amplifications(p: float, post_selection: Array) -> tuple[Array, Array, Array, Array]:
    """What may be chosen: uses and kept part of |w>, [w, 1, 1] each, and of |k*>, [k, test] each.

    m rounds use a preparation or its inverse 2m + 1 times. From no round to full amplification,
    which is exact. post_selection: [test].
    """
    steps = np.linspace(0, 1, AMPLIFICATION_STEPS)
    rounds_w = np.unique(np.round(steps * full_rounds(p)))[:, None, None]
    rounds_k = np.round(steps[:, None] * full_rounds(post_selection))
    kept_w, kept_k = amplified(p, rounds_w), amplified(post_selection, rounds_k)
    kept_w[-1], kept_k[-1] = (
        np.where(m[-1] > 0, 1, kept[-1]) for m, kept in ((rounds_w, kept_w), (rounds_k, kept_k))
    )
    return 2 * rounds_w + 1, kept_w, 2 * rounds_k + 1, kept_k


def cheapest_uses(
    uses: Callable[..., tuple[Array, Array]],
    cost_w: float,
    p: float,
    cost_k: float,
    post_selection: Array,
) -> tuple[Array, Array]:
    """Uses of the preparations of |w> and |k*> with the amplification of both that costs least.
    [test], [test]

    uses: the two, from what `amplifications` returns. cost_w, cost_k: of one use. post_selection:
    [test].
    """
    times_w, kept_w, times_k, kept_k = amplifications(p, post_selection)
    uses_w, uses_k = uses(times_w, kept_w, times_k, kept_k)
    spent = uses_w * cost_w + uses_k * cost_k  # [w, k, test]
    w, k = np.unravel_index(np.argmin(spent.reshape(-1, spent.shape[2]), axis=0), spent.shape[:2])
    test = np.arange(len(post_selection))
    return uses(times_w[w, 0, 0], kept_w[w, 0, 0], times_k[k, test], kept_k[k, test])


def amplified_shot(
    cost_w: float, p: float, cost_k: float, post_selection: Array
) -> tuple[Array, Array]:
    """How often a shot uses the preparations of |w> and |k*>, by `cheapest_uses`. [test], [test]"""

    def uses(times_w: Array, kept_w: Array, times_k: Array, kept_k: Array) -> tuple[Array, Array]:
        passed, runs = uses_per_shot(kept_w, kept_k)
        return passed * times_w, runs * times_k

    return cheapest_uses(uses, cost_w, p, cost_k, post_selection)


# --------------------------------------------------------------------------------------------------
# What a use of the whole preparation costs, for amplitude estimation
# --------------------------------------------------------------------------------------------------


def uses_for_kept_part(runs: ArrayLike) -> Array:
    """How many times more uses estimation takes where only K = 1/runs of them is kept. [...]

    Outcome 0 then has K (1 + o)/2, K = 2pP/(p + P) known, instead of (1 + o)/2, so that o has
    sqrt(2/K - 1) times the error for the same uses, about o = 0, where all overlaps are; the error
    falls as one over the uses.
    """
    return np.sqrt(2 * np.asarray(runs) - 1)


def amplified_estimate(
    cost_w: float, p: float, cost_k: float, post_selection: Array
) -> tuple[Array, Array]:
    """The same for a use of the whole preparation, times what its kept part costs. [test], [test]

    Both branches are in one unitary, which pays for both.
    """

    def uses(times_w: Array, kept_w: Array, times_k: Array, kept_k: Array) -> tuple[Array, Array]:
        runs = runs_per_shot(kept_w, kept_k)
        factor = np.where(runs <= 1 / LEAST_KEPT, uses_for_kept_part(runs), np.inf)
        return factor * times_w, factor * times_k

    return cheapest_uses(uses, cost_w, p, cost_k, post_selection)
