"""Sequential readout: an image is read until the sign of o - t is clear, at a stated error.

A fixed number of shots is set by the few images whose o is close to t; all others know their sign
long before. Here each image stops by itself, as soon as the log likelihood ratio of the two signs
reaches ln((1 - error)/error), Wald's boundary. The stated error is chosen on one half of the
images, and what it costs is counted on the other half.

Sources: [Wald] A. Wald, Sequential Tests of Statistical Hypotheses, Ann. Math. Stat. 16, 117
(1945): the test, its boundaries (3.3), its error (3.2), and the expected number of observations
(4.8). [Suzuki] arXiv:1904.10246: amplitude estimation by maximum likelihood, without a Fourier
transform. [Wilson] J. Am. Stat. Assoc. 22, 209 (1927).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum import readout

Array = NDArray[np.float64]
Lines = NDArray[np.int64]
Mask = NDArray[np.bool_]  # [test], True for the images of the calibration half

TRUNCATION = 2  # the most shots, in units of what an image at t takes on average
ROUNDING = 1e-9  # of x that is on a line exactly
LARGEST_HEIGHT = 400  # above, Wald's formulas are used, within about 1/height of the exact walk
EXACT_STOPS = 1000  # the first ones are summed one by one, later ones in groups ...
GROUPS = 200  # ... whose shots differ by 1/200 at most
LOG_ODDS = np.geomspace(0.05, 20, 180)  # ln((1 - error)/error) that are tried, for shots

STAGE_SHOTS = 6  # of amplitude estimation, at each number of rounds
GROWTH = math.sqrt(2)  # of the number of rounds
MOST_ROUNDS = 1024
ANGLES = 12  # angles looked at for each of the 2m + 1 turns: about one in a standard deviation
DRAWS = 8  # times that every image is read out
# Ln((1 - error)/error) that are tried, for amplitude estimation.
STAGE_LOG_ODDS = np.geomspace(0.5, 8, 20)


# --------------------------------------------------------------------------------------------------
# Two halves
# --------------------------------------------------------------------------------------------------


def calibration_half(label: Array, rng: np.random.Generator) -> Mask:
    """A random half of each class, True for calibration; the other half is counted. [test] ->
    [test]
    """
    calibration = np.zeros(len(label), bool)
    for value in np.unique(label):
        images = rng.permutation(np.flatnonzero(label == value))
        calibration[images[: len(images) // 2]] = True
    return calibration


def wilson_interval(share: float, number: int, deviations: float = 1.96) -> tuple[float, float]:
    """[Wilson]'s interval of a share of `number` images; 95 % with 1.96 standard deviations."""
    z = deviations**2 / number
    middle = (share + z / 2) / (1 + z)
    half = math.sqrt(z * (share * (1 - share) + z / 4)) / (1 + z)
    return middle - half, middle + half


class Reading(NamedTuple):
    """A tuned rule, and what every image does under it."""

    error: float  # stated
    last: float  # shots, uses or reads after which it stops at the latest
    right: Array  # probability that the sign of o - t is that of the label [test]
    spent: Array  # expected shots, uses of the preparation or reads [test]
    fixed: float  # as many for every image reach the same goal on the calibration half; inf: none
    fixed_right: Array  # what is right then [test]


def times(reading: Reading, images: Mask) -> Array:
    """How often each of these images is shot, used or read, by fixed effort and by stopping early.
    [2, images]
    """
    spent = reading.spent[images]
    return np.array([np.full(len(spent), reading.fixed), spent])


def judged(reading: Reading, calibration: Mask, noiseless: float) -> dict[str, Any]:
    """What a reading takes and achieves outside `calibration`, by fixed effort and stopping early.

    noiseless: accuracy of exact overlaps there.
    """
    accuracy = np.mean([reading.fixed_right[~calibration], reading.right[~calibration]], axis=1)
    number = int(np.count_nonzero(~calibration))
    return {
        "needed": times(reading, ~calibration).mean(axis=1),
        "stated_error": reading.error,
        "accuracy_read": accuracy,
        "accuracy_interval": [wilson_interval(share, number) for share in accuracy],
        "accuracy_kept": accuracy / noiseless if noiseless > 0 else np.full(2, np.nan),
    }


def calibration_goal(
    overlap: Array, label: Array, t: float, calibration: Mask, share: float
) -> float:
    """`share` of the noiseless accuracy of the calibration half."""
    return share * readout.noiseless_accuracy(overlap[calibration], label[calibration], t)


def typical_distance(overlap: Array, t: float, calibration: Mask) -> float:
    """The median |o - t| of the calibration half: the d of Wald's two hypotheses."""
    return float(np.median(np.abs(overlap[calibration] - t)))


# --------------------------------------------------------------------------------------------------
# Shots: Wald's test of o = t + d against o = t - d
# --------------------------------------------------------------------------------------------------


class WaldTest(NamedTuple):
    """It stops at |x - slope m| >= height, x the zeros in m shots, or after `most` shots."""

    slope: float
    height: float
    most: int


def wald_test(t: float, distance: float, error: float) -> WaldTest:
    """The test that says o = t + d for o = t - d, or the other way round, with probability `error`.
    |t| < 1.

    A zero multiplies the likelihood ratio by (1 + t + d)/(1 + t - d), a one by (1 - t - d)/(1 - t +
    d): [Wald] 5.2. An image closer to t than d errs more, one farther away less. d is halved until
    t + d is a possible overlap. At t the walk takes height^2/(slope (1 - slope)) shots on average;
    it is cut at TRUNCATION times as many, and then the side that x is on decides.
    """
    distance = min(max(distance, 1e-9), (1 - abs(t)) / 2)
    zero = math.log1p(t + distance) - math.log1p(t - distance)
    one = math.log1p(distance - t) - math.log1p(-distance - t)
    slope, height = one / (zero + one), math.log((1 - error) / error) / (zero + one)
    undecided = height**2 / (slope * (1 - slope))
    return WaldTest(slope, height, math.ceil(TRUNCATION * undecided - ROUNDING))


def wald_formulas(overlap: Array, test: WaldTest) -> tuple[Array, Array]:
    """Probability to decide for o > t, and expected shots, by [Wald]'s formulas: no overshoot, no
    cut. [...], [...]

    With p the probability of a zero, (p (1 - slope)/((1 - p) slope))^(2 height) are the odds of the
    upper end, exact for t = 0 and an integer 2 height. The drift p - slope times the shots is the
    expected end.
    """
    p = np.clip((1 + overlap) / 2, 1e-12, 1 - 1e-12)
    odds = np.log(p / (1 - p)) - math.log(test.slope / (1 - test.slope))
    above = 1 / (1 + np.exp(np.clip(-2 * test.height * odds, -700, 700)))
    drift = p - test.slope
    undecided = test.height**2 / (p * (1 - p))
    close = np.abs(odds * test.height) < 1e-4
    shots = np.where(close, undecided, test.height * (2 * above - 1) / np.where(close, 1, drift))
    return above, np.maximum(shots, 1)


@numba.njit(cache=True)
def walk(low: Lines, top: Lines, slope: float, width: int) -> tuple[Array, Array]:
    """The walk of x with a zero's probability at `slope`, where the walk has no drift.

    low, top: of `stopping_lines`, before the first shot and after each [1 + most]; width: x that
    are live, at most. Returns the probabilities to stop at the lower and upper line after each shot
    [1 + most, 2], and those of x = low, low + 1, ... that are left after the last [width].
    """
    stops = np.zeros((len(low), 2))
    live = np.zeros(width)  # of x = low, low + 1, ...
    live[-low[0]] = 1
    for m in range(1, len(low)):
        if low[m] == low[m - 1]:
            for i in range(width - 1, 0, -1):
                live[i] = live[i] * (1 - slope) + live[i - 1] * slope
            live[0] *= 1 - slope
        else:  # the window moves up by one
            for i in range(width - 1):
                live[i] = live[i + 1] * (1 - slope) + live[i] * slope
            live[width - 1] *= slope
        stops[m, 0] = live[0]
        stops[m, 1] = live[top[m] - low[m]]
        live[0] = 0
        live[top[m] - low[m]] = 0
    return stops, live


def stopping_lines(test: WaldTest) -> tuple[Lines, Lines]:
    """The largest x that stops for o < t and the smallest for o > t, before the first shot and
    after each. [1 + most]
    """
    middle = test.slope * np.arange(test.most + 1)
    low = np.floor(middle - test.height + ROUNDING)
    top = np.ceil(middle + test.height - ROUNDING)
    return low.astype(np.int64), top.astype(np.int64)


def grouped(
    shots: NDArray[np.int64], zeros: NDArray[np.int64], probability: Array
) -> tuple[Array, Array, Array]:
    """Later stops as groups of nearly as many shots, with their mean. [stops] each -> [groups]
    each.

    The weights of `exact_walk` are smooth in them: within about 1e-5.
    """
    later = math.ceil(GROUPS * math.log(max(len(shots) / EXACT_STOPS, 1)))
    edges = np.geomspace(EXACT_STOPS, max(len(shots), EXACT_STOPS), later + 1).astype(int)
    starts = np.unique(np.concatenate([np.arange(EXACT_STOPS), edges]))
    starts = starts[starts < len(shots)]
    total = np.add.reduceat(probability, starts)
    mean_shots = np.add.reduceat(shots * probability, starts) / total
    mean_zeros = np.add.reduceat(zeros * probability, starts) / total
    return mean_shots, mean_zeros, total


def ends_of_walk(test: WaldTest) -> tuple[Array, Array, Array, Array]:
    """Where the walk of `walk` ends: shots, zeros among them, probability, and the verdict. [ends]
    each

    The verdict is 1 for o > t, 0 for o < t, and a half for a walk that is cut at t exactly.
    """
    lines = stopping_lines(test)
    stops, live = walk(*lines, test.slope, int(2 * test.height) + 4)
    parts = []
    for side in (0, 1):
        shots = np.flatnonzero(stops[:, side])
        if len(shots):
            part = grouped(shots, lines[side][shots], stops[shots, side])
            parts.append((*part, np.full(len(part[0]), float(side))))
    left = np.flatnonzero(live)
    zeros = lines[0][-1] + left
    verdict = (1 + np.sign(np.round(zeros - test.slope * test.most, 9))) / 2
    parts.append((np.full(len(left), float(test.most)), zeros.astype(float), live[left], verdict))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return columns[0], columns[1], columns[2], columns[3]


def exact_walk(overlap: Array, test: WaldTest) -> tuple[Array, Array]:
    """Probability to decide for o > t, and expected shots, by the binomial walk itself. [test],
    [test]

    It is walked once, at the probability `slope` of a zero. A path with x zeros in m shots has a
    probability that is (p/slope)^x ((1 - p)/(1 - slope))^(m - x) times as large for an image with p
    = (1 + o)/2, wherever it stops.
    """
    if test.height > LARGEST_HEIGHT:
        return wald_formulas(overlap, test)
    shots, zeros, probability, verdict = ends_of_walk(test)
    p = np.clip((1 + overlap) / 2, 1e-12, 1 - 1e-12)
    log_weight = np.outer(zeros, np.log(p / test.slope))
    log_weight += np.outer(shots - zeros, np.log((1 - p) / (1 - test.slope)))
    weight = np.exp(log_weight + np.log(probability)[:, None])  # [ends, test]
    return verdict @ weight, shots @ weight


def sequential_shots(
    overlap: Array, label: Array, t: float, calibration: Mask, share: float
) -> Reading:
    """Wald's test with the largest stated error that has `share` of the noiseless accuracy on the
    calibration half.

    All smaller errors that are tried must have it too. Tuned by `wald_formulas`, counted by
    `exact_walk`. The smallest error is taken if none has it. `last` is in shots.
    """
    goal = calibration_goal(overlap, label, t, calibration, share)
    distance, above_t = typical_distance(overlap, t, calibration), label > 0
    error = error_of(LOG_ODDS[-1])
    for log_odds in LOG_ODDS[::-1]:
        test = wald_test(t, distance, error_of(log_odds))
        above, _ = wald_formulas(overlap[calibration], test)
        if np.mean(np.where(above_t[calibration], above, 1 - above)) < goal:
            break
        error = error_of(log_odds)
    test = wald_test(t, distance, error)
    above, shots = exact_walk(overlap, test)
    fixed = readout.shots_needed(overlap[calibration], label[calibration], t, share)
    above_fixed = readout.probability_above(overlap, t, min(fixed, readout.MOST_SHOTS))
    right = np.where(above_t, [above, above_fixed], [1 - above, 1 - above_fixed])
    return Reading(error, test.most, right[0], shots, fixed, right[1])


def error_of(log_odds: float) -> float:
    """The error of ln((1 - error)/error)."""
    return 1 / (1 + math.exp(log_odds))


# --------------------------------------------------------------------------------------------------
# Rules that stop where a statistic is clear, by drawing
# --------------------------------------------------------------------------------------------------


def stopping_rules(
    clear: Array, label: Array, cost: Array, boundaries: ArrayLike, lasts: Sequence[int]
) -> tuple[Array, Array]:
    """What rules do that stop at the first step where |clear| >= boundary, at the latest at step
    `last`.

    clear: [draws, test, steps], above 0 for o > t; cost: of stopping at a step [steps]. Returns the
    share of draws that are right, and the mean cost: [boundaries, lasts, test] each.
    """
    magnitude = np.abs(clear)
    is_right = (clear > 0) == (label > 0)[:, None]
    right, spent = [], []
    for boundary in np.asarray(boundaries):
        crossed = magnitude >= boundary
        crossed[..., -1] = True
        first = np.argmax(crossed, axis=-1)
        at = np.minimum(first[..., None], lasts)  # [draws, test, lasts]
        right.append(np.take_along_axis(is_right, at, axis=-1).mean(axis=0).T)
        spent.append(cost[at].mean(axis=0).T)
    return np.array(right), np.array(spent)


def cheapest_rule(right: Array, spent: Array, calibration: Mask, goal: float) -> tuple[int, int]:
    """The cheapest rule that reaches the goal on the calibration half, or the most accurate one.

    Rules with a larger boundary or a later last step must reach it too, so that chance in the draws
    has little say. right, spent: of `stopping_rules`. Returns the indices of boundary and last.
    """
    accuracy = right[..., calibration].mean(axis=-1)
    cost = spent[..., calibration].mean(axis=-1)
    below = accuracy < goal - 1e-12
    for axis in (0, 1):
        below = np.flip(np.logical_or.accumulate(np.flip(below, axis), axis), axis)
    best = np.argmax(accuracy) if below.all() else np.argmin(np.where(below, np.inf, cost))
    boundary, last = np.unravel_index(best, accuracy.shape)
    return int(boundary), int(last)


def fixed_effort(
    clear: Array, label: Array, cost: Array, calibration: Mask, goal: float
) -> tuple[float, Array]:
    """What it costs to stop every image at the same step, and the share of draws that are right.

    That is the first step from which on all reach the goal on the calibration half, mixed with the
    one before so that the goal is met exactly; inf, and what is right at the last step, where there
    is none. clear and cost: of `stopping_rules`. -> 1, [test]
    """
    right = np.mean((clear > 0) == (label > 0)[:, None], axis=0)  # [test, steps]
    accuracy = right[calibration].mean(axis=0)
    below = np.flatnonzero(accuracy < goal - 1e-12)
    if not len(below):
        return float(cost[0]), right[:, 0]
    last = int(below[-1])
    if last + 1 == len(cost):
        return math.inf, right[:, -1]
    share = (goal - accuracy[last]) / (accuracy[last + 1] - accuracy[last])
    mixture = np.array([1 - share, share])
    both = slice(last, last + 2)
    return float(cost[both] @ mixture), right[:, both] @ mixture


def cheapest_reading(
    clear: Array,
    label: Array,
    cost: Array,
    calibration: Mask,
    goal: float,
    log_odds: Array,
    boundaries: Array,
    lasts: Sequence[int],
) -> Reading:
    """What the `cheapest_rule` of these boundaries and last steps does; arguments as there.

    log_odds: ln((1 - error)/error) of each boundary.
    """
    right, spent = stopping_rules(clear, label, cost, boundaries, lasts)
    boundary, last = cheapest_rule(right, spent, calibration, goal)
    fixed = fixed_effort(clear, label, cost, calibration, goal)
    at = boundary, last
    error = error_of(log_odds[boundary])
    return Reading(error, float(cost[lasts[last]]), right[at], spent[at], *fixed)


# --------------------------------------------------------------------------------------------------
# Amplitude estimation, rounds added until the sign is clear
# --------------------------------------------------------------------------------------------------


def finer_schedule() -> NDArray[np.int64]:
    """Rounds m = 0, 1, 2, 3, 4, 6, 8, 11, 16, ..., MOST_ROUNDS: powers of GROWTH. [stages]"""
    powers = GROWTH ** np.arange(1 + round(math.log(MOST_ROUNDS, GROWTH)))
    return np.unique([0, *np.round(powers).astype(np.int64)])


def uses_by_stage() -> Array:
    """Uses of the preparation up to each stage of `finer_schedule`; m rounds take 2m + 1. [...]"""
    return STAGE_SHOTS * np.cumsum(2.0 * finer_schedule() + 1)


def stage_hits(overlap: Array, rng: np.random.Generator) -> Array:
    """How many of STAGE_SHOTS give 0, each with sin^2((2m + 1) theta), sin^2(theta) = (1 + o)/2.
    [stages, draws, test]

    A shot gives 0 where its uniform number is below that: the same generator gives every |w> the
    same numbers.
    """
    theta = readout_angle(overlap)
    turns = 2 * finer_schedule() + 1
    chance = np.sin(np.outer(turns, theta)) ** 2
    uniform = rng.random((len(turns), DRAWS, len(theta), STAGE_SHOTS))
    return np.count_nonzero(uniform < chance[:, None, :, None], axis=-1).astype(float)


def readout_angle(overlap: ArrayLike) -> Array:
    """The angle theta with sin^2(theta) = (1 + o)/2. [...]"""
    return np.arcsin(np.sqrt(np.clip((1 + np.asarray(overlap)) / 2, 0, 1)))


@functools.cache
def grid_of_angles(rounds: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Angles in (0, pi/2) [angles]; for each of them `log_odds_of_hits` [stages, angles], [angles].

    So many that the several peaks of few stages are looked at.
    """
    number = max(256, ANGLES * (2 * rounds[-1] + 1))
    theta = (np.arange(number) + 0.5) / number * np.pi / 2
    return theta, *log_odds_of_hits(rounds, theta)


def log_odds_of_hits(rounds: Sequence[int], theta: Array) -> tuple[Array, Array]:
    """What a hit more adds to the log of the likelihood, and that of no hit at all.
    [stages, angles], [angles]

    The likelihood of h hits of STAGE_SHOTS is c^h (1 - c)^(STAGE_SHOTS - h), c = sin^2((2m + 1)
    theta).
    """
    turns = 2 * np.asarray(rounds) + 1
    chance = np.clip(np.sin(np.outer(turns, theta)) ** 2, 1e-9, 1 - 1e-9)
    of_misses = np.log1p(-chance)
    return np.log(chance) - of_misses, STAGE_SHOTS * of_misses.sum(axis=0)


def sign_ratio(hits: Array, rounds: NDArray[np.int64], t: float) -> Array:
    """Logarithm of the greatest likelihood of any o > t over that of any o < t. [reads]

    hits: [stages, reads] of STAGE_SHOTS each at `rounds` [stages].
    """
    stages = tuple(rounds.tolist())
    theta, of_hits, of_none = grid_of_angles(stages)
    likelihood = hits.T @ of_hits + of_none  # [reads, angles]
    at_t, at_t_of_none = log_odds_of_hits(stages, np.array([readout_angle(t)]))
    border = hits.T @ at_t[:, 0] + at_t_of_none  # o = t belongs to both sides
    first_above = int(np.searchsorted(theta, readout_angle(t)))
    above = likelihood[:, first_above:].max(axis=1, initial=-np.inf)
    below = likelihood[:, :first_above].max(axis=1, initial=-np.inf)
    return np.maximum(above, border) - np.maximum(below, border)


def sign_ratios(overlap: Array, t: float, rng: np.random.Generator) -> Array:
    """`sign_ratio` after each stage of drawn readouts. [draws, test, stages]

    Not read any further once no error that is tried needs it.
    """
    rounds, hits = finer_schedule(), stage_hits(overlap, rng)
    shape = hits.shape[1:]
    hits = hits.reshape(len(rounds), -1)
    ratio = np.zeros(hits.shape)
    unclear = np.arange(hits.shape[1])
    for stage in range(len(rounds)):
        found = sign_ratio(hits[: stage + 1, unclear], rounds[: stage + 1], t)
        ratio[stage:, unclear] = found
        unclear = unclear[np.abs(found) < STAGE_LOG_ODDS[-1]]
        if not len(unclear):
            break
    return ratio.T.reshape(*shape, len(rounds))


def sequential_estimation(
    overlap: Array,
    label: Array,
    t: float,
    calibration: Mask,
    share: float,
    rng: np.random.Generator,
) -> Reading:
    """Amplitude estimation that goes on until the sign is clear: [Suzuki]'s likelihood, [Wald]'s
    boundary.

    The stated error and the last stage are the cheapest with `share` of the noiseless accuracy on
    the calibration half. `spent` and `last` are uses of the preparation, of both states and their
    inverses.
    """
    uses = uses_by_stage()
    clear = sign_ratios(overlap, t, rng)
    goal = calibration_goal(overlap, label, t, calibration, share)
    rules = STAGE_LOG_ODDS, STAGE_LOG_ODDS, range(len(uses))
    return cheapest_reading(clear, label, uses, calibration, goal, *rules)
