"""Trial values, errors and growth, on made-up data whose growth and spread are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import simulate_growth
import xarray as xr

from analysis import growth

pytestmark = pytest.mark.filterwarnings("error")

SIZES = np.array([16.0, 32, 64, 128, 256, 512])
COUNTS = [16, 8, 4, 4, 4, 4]  # trials of each size, as the script's
LAWS = {  # verdict: laws
    "flat": [lambda n: 7.0, lambda n: 1 + 0.1 / n],
    "no faster than log n": [np.log, lambda n: 2 - 16 / n, lambda n: 1e9 / n, lambda n: 5 * n**0.1],
    "faster than log n": [lambda n: n**0.5, lambda n: 3e-9 * n**2.5, lambda n: 100 + n],
}
CASES = [(verdict, law) for verdict, laws in LAWS.items() for law in laws]


def of_trials(by_size, sizes=SIZES):
    """Labelled values [n, trial] of lists of trials, one for each size, NaN where there is none."""
    table = np.full((len(by_size), max(map(len, by_size), default=0)), np.nan)
    for row, trials in zip(table, by_size, strict=True):
        row[: len(trials)] = trials
    n = np.asarray(sizes)[: len(by_size)]
    return xr.DataArray(table, {"n": n}, ("n", "trial"), name="sparsity")


def noisy(law, relative, rng, counts=COUNTS, sizes=SIZES):
    """Trials of every size: the law's value with normal noise, relative to it."""
    by_size = []
    for n, count in zip(sizes, counts, strict=True):
        by_size.append(law(n) * (1 + relative * rng.standard_normal(count)))
    return of_trials(by_size, sizes)


def shifted_power(n, index, a, b):
    """The curve of analysis/growth.py as its docstring states it."""
    return a + b * (np.log(n) if index == 0 else (n**index - 1) / index)


# ---- a trial's value ----


def named(name, values, *inner):
    """An array of the results with that name, [n, trial, ...]."""
    return xr.DataArray(np.asarray(values, float), dims=["n", "trial", *inner], name=name)


def test_a_trial_has_one_value():
    missing = [np.nan] * 3
    one, other = [[1, 3, 8], [5, np.nan, 7], missing], [[2, np.inf, 4], missing, missing]
    values = np.array([one, other, [missing] * 3])
    means = growth.trial_values(named("accuracy", values, "pattern"))
    nan = np.nan
    expected = [[4, 6, nan], [np.inf, nan, nan], [nan] * 3]
    assert np.array_equal(means, expected, equal_nan=True)
    medians = growth.trial_values(named("readout_measurements", values, "image"))
    assert np.array_equal(medians, [[3, 6, nan], [4, nan, nan], [nan] * 3], equal_nan=True)


MEANS = ["accuracy", "sparsity", "condition_number"]
MEDIANS = ["readout_measurements", "post_selection_measurements_median"]


@pytest.mark.parametrize("name", MEANS + MEDIANS)
def test_which_statistic_is_a_trials_value(name):
    """Measurements: the median of all patterns and test images together; all else: the mean."""
    values = np.random.default_rng(0).exponential(size=(2, 3, 4, 5))
    statistic = np.median if "measurements" in name else np.mean
    expected = statistic(values.reshape(2, 3, 20), axis=-1)
    assert np.array_equal(growth.trial_values(named(name, values, "pattern", "image")), expected)
    one = values[..., 0, 0]
    assert np.array_equal(growth.trial_values(named(name, one)), one)
    draws = xr.DataArray(one, dims=["n", "draw"], name="pattern_sparsity")
    assert np.array_equal(growth.trial_values(draws), one)


# ---- errors ----


def test_equal_spread_is_pooled():
    """Relative variances 0.02, 0.08, none, of 1, 3, 0 degrees of freedom: (0.02 + 3 * 0.08) / 4."""
    n, trials = np.array([16.0, 32, 64]), np.array([2.0, 4, 1])
    mean, relative = np.array([10.0, 100, 1000]), np.sqrt([0.02, 0.08, 0])
    errors, freedom = growth.relative_errors(n, mean, relative * mean, trials)
    assert np.allclose(errors**2, 0.065 / trials, rtol=1e-6) and np.allclose(freedom, 4)
    assert np.isnan(growth.relative_errors(n, mean, 0 * mean, np.ones(3))).all()


def test_spread_that_changes_with_n_is_followed():
    """Spreads of 40 % falling to 1 % with 12 trials, and what follows for a size with one trial."""
    n, trials = 2.0 ** np.arange(4, 12), np.array([12.0] * 7 + [1])
    spread = 0.4 * (n / 16) ** (np.log(0.01 / 0.4) / np.log(128))
    errors, freedom = growth.relative_errors(n, np.ones(8), np.append(spread[:-1], 0), trials)
    assert np.allclose(errors * np.sqrt(trials), spread, rtol=0.12)
    assert 11 <= freedom.min() < freedom.max() <= 77
    # No power of n: each size's own spread counts for more.
    wild = spread * np.array(
        [1, 5, 1, 5, 1, 5, 1, 1]
    )
    errors, freedom = growth.relative_errors(n, np.ones(8), np.append(wild[:-1], 0), trials)
    assert np.all(np.abs(np.log(errors * np.sqrt(trials) / wild))[:-1] < 0.5) and freedom[-1] < 5


def test_size_means_by_hand():
    values = [
        np.array([8.0, 12]),
        np.array([90.0, 100, 110]),
        np.array([1000.0]),
        np.array([]),
        np.array([1.0, np.inf]),
    ]
    n, mean, low, high = growth.size_means(of_trials(values))
    half = high - mean
    assert n.tolist() == [16, 32, 64, 128, 256] and np.allclose(low[:3], (mean - half)[:3])
    pooled = np.sqrt((0.08 + 2 * 0.01) / 3)
    assert np.allclose(mean[:3], [10, 100, 1000]) and np.isnan(mean[3]) and mean[4] == np.inf
    relative = scipy.stats.t.isf(0.025, 3) * pooled / np.sqrt([2, 3, 1])
    assert np.allclose(half[:3], relative * (1 + relative**2) * mean[:3], rtol=1e-6)
    assert np.isnan(half[3:]).all()
    assert np.isnan(growth.size_means(of_trials([[2.0], [3.0]])).low).all()


# ---- the fit ----


@pytest.mark.parametrize("index", [-1.5, -0.3, 0, 0.25, 1, 2])
def test_exact_curves_are_recovered(index):
    values = of_trials([np.full(4, shifted_power(n, index, 5.0, 0.7)) for n in SIZES])
    found = growth.judged(values)
    assert found.index.value == pytest.approx(index, abs=1e-5)
    assert found.ratio.value == pytest.approx(values.values[-1, 0] / values.values[0, 0], rel=1e-5)


@pytest.mark.parametrize("index", [-0.5, 0.4])
def test_the_fit_is_least_squares(index):
    """λ against SciPy's least squares and the same errors; chi^2 at its ends against F."""
    rng = np.random.default_rng(2)
    values = noisy(lambda n: shifted_power(n, index, 1.0, 0.5), 0.05, rng, [8] * 6)
    found = growth.judged(values)
    y, deviation, trials = growth.moments(values)
    relative, freedom = growth.relative_errors(SIZES, y, deviation, trials)
    error = relative * y

    def line(index):
        design = np.stack([np.ones(6), shifted_power(SIZES, index, 0.0, 1.0)], 1)
        ends, misfit, *_ = np.linalg.lstsq(design / error[:, None], y / error)
        return design @ ends, misfit.item()

    def least(index):
        return line(index)[1]

    for _ in range(9):  # errors are relative to the curve
        error = relative * line(found.index.value)[0]

    best = scipy.optimize.minimize_scalar(least, (index - 0.1, index + 0.1))
    low, high = found.index[1:]
    assert found.index.value == pytest.approx(best.x, abs=0.02 * (high - low))
    for bound in (low, high):
        assert least(bound) - best.fun == pytest.approx(
            scipy.stats.f.isf(0.05, 1, freedom[0]), rel=0.06
        )


def test_freedom_is_that_of_the_sizes_that_decide():
    """Satterthwaite: the variance of a slope is a sum over the sizes, in the ratio of (ln n -
    mean)^2.
    """
    n, freedom = SIZES[:3], np.array([2.0, 50, 6])
    together = growth.freedom_together(n, np.full(3, 0.1), freedom)
    assert together == pytest.approx(1 / (0.5**2 / 2 + 0.5**2 / 6))
    assert growth.freedom_together(n, np.full(3, 0.1), np.full(3, 10.0)) == 10


def test_intervals_without_an_end():
    """Steps at the first or the last size leave λ open at one end, a first mean near 0 growth."""
    rng = np.random.default_rng(11)
    step = growth.judged(noisy(lambda n: 1 + (n > 16), 0.05, rng))
    assert step.index.low == -np.inf and step.index.high < 0
    late = growth.judged(noisy(lambda n: 1 + (n == 512), 0.05, rng))
    assert late.index[1:][1] == np.inf and late.index[1:][0] > 0
    wild = growth.judged(of_trials([[0.02, 1.98]] * 6))
    assert wild.ratio[1:] == (0, np.inf) and wild.verdict == "undecided"


def test_units_do_not_matter():
    values = noisy(np.log, 0.1, np.random.default_rng(3))
    one = growth.judged(values)
    other = growth.judged((values * 1e-12).assign_coords(n=SIZES * 3))
    for name in ("index", "ratio"):
        assert np.allclose(getattr(one, name), getattr(other, name), rtol=1e-6)


# ---- verdicts ----


@pytest.mark.parametrize("ratio, index, verdict", [
    ((0.85, 1.2), (-np.inf, np.inf), "flat"),
    ((0.7, 1.2), (-np.inf, np.inf), "no faster than log n"),
    ((0.1, 0.2), (0.5, 2), "no faster than log n"),
    ((1.3, 2), (-2, 0.24), "no faster than log n"),
    ((1.3, 2), (0.05, 0.24), "no faster than log n"),
    ((1.3, 2), (0.05, 0.3), "faster than log n"),
    ((1.1, 2), (0.05, 0.3), "undecided"),
    ((1.3, 2), (-0.1, 0.3), "undecided"),
    ((0.7, 1.3), (-np.inf, np.inf), "undecided"),
])  # fmt: skip
def test_verdicts_by_hand(ratio, index, verdict):
    intervals = growth.Estimate(1, *ratio), growth.Estimate(0, *index)
    assert growth.judge(*intervals, clear=True, scale=1)[0] == verdict


@pytest.mark.parametrize("verdict, law", CASES)
def test_known_growth_is_recognised(verdict, law):
    rng = np.random.default_rng(4)
    said = [growth.judged(noisy(law, 0.01, rng, [8] * 6)).verdict for _ in range(20)]
    assert said.count(verdict) >= 19


def test_undecided_says_why():
    rng = np.random.default_rng(15)
    found = growth.judged(noisy(lambda n: 10, 0.5, rng))
    assert (found.verdict, found.reason) == (
        "undecided",
        "growth neither shown nor excluded",
    ) and not found.clear
    found = growth.judged(noisy(lambda n: n**0.15, 0.1, rng, [16] * 6))
    assert (found.verdict, found.reason) == ("undecided", "λ may be 0 and 0.25") and found.clear
    wave = growth.judged(noisy(lambda n: 10 + 5 * np.sin(3 * np.log(n)), 0.02, rng))
    assert (
        wave.verdict == "undecided"
        and "no such curve fits, errors enlarged" in wave.reason
    )


def test_enlarged_errors_do_not_speak_for_the_claim():
    """Two decades, then a rough plateau, with small errors: no such curve, and no verdict."""
    steps = dict(zip(SIZES, [1, 30, 100, 100, 60, 100], strict=True))
    found = growth.judged(noisy(steps.__getitem__, 0.03, np.random.default_rng(3)))
    assert (
        found.verdict == "undecided"
        and "only with enlarged errors; no such curve fits" in found.reason
    )


def test_a_constant_is_not_taken_for_growth():
    """λ has no meaning for a constant, and the best of all λ must not make growth of noise."""
    rows = [
        simulate_growth.simulate(design, "constant", "10 %", 500)
        for design in (simulate_growth.PLAN, LONG)
    ]
    for row in rows:
        assert row["clear"] < 0.08 and row["ratio"] >= 0.92
        assert row["wrong"] <= 0.02 and row["undecided"] <= 0.1


LONG = (2 ** np.arange(4, 14)).tolist(), [32] * 7 + [8, 4, 4]
CELLS = [(simulate_growth.PLAN, "log n", "10 %"), (simulate_growth.PLAN, "n^0.25", "3 %"),
         (simulate_growth.PLAN, "n^0.5", "30 %"), (LONG, "n", "30 %"), (LONG, "2 - 16/n", "10 %"),
         (LONG, "log n", "30 %"), (LONG, "n^0.25", "30 % falling like n^-0.4")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_intervals_cover(cell):
    """A short form of simulate_growth.py: 95 % within three binomial deviations of 500, 3 %."""
    row = simulate_growth.simulate(*cell, 500)
    for name in ("ratio", "index"):
        assert row[name] is None or 0.92 <= row[name] <= 0.985
    assert np.all(np.array(row["means"]) >= 0.90) and row["wrong"] <= 0.06


SIMULATED = json.loads((Path(__file__).parent / "growth_simulation.json").read_text())


@pytest.mark.slow
def test_the_simulated_table_is_good_enough():
    """The bars that the method was made for, on the table that simulation.md shows."""
    asked = [row for row in SIMULATED if row["spread"] in ("3 %", "10 %", "30 %")]
    designs = {row["design"] for row in SIMULATED}
    assert len(asked) == 18 * len(designs)
    assert {row["truth"] for row in asked} == set(simulate_growth.TRUTHS)
    for row in asked:
        shares = [row[name] for name in ("ratio", "index") if row[name] is not None]
        assert min(*shares, *row["means"]) >= 0.93 and row["wrong"] <= 0.05
        assert row["clear"] < 0.999 or max(shares) <= 0.98
    first = SIMULATED[0]
    design = first["sizes"], first["trials"]
    repeats = first["repeats"]
    fresh = simulate_growth.simulate(design, first["truth"], first["spread"], repeats)
    assert design == simulate_growth.PLAN
    assert fresh["ratio"] == pytest.approx(first["ratio"], abs=1e-3)


def test_no_design_is_simulated_that_nobody_uses():
    in_use = simulate_growth.designs(Path(__file__).parent.parent / "kernel_output")
    made = {row["design"]: (row["sizes"], row["trials"]) for row in SIMULATED}
    assert made == {name: tuple(map(list, design)) for name, design in in_use.items()}


def test_a_design_with_single_trials_is_simulated():
    row = simulate_growth.simulate(([16, 32, 64, 128], [8, 4, 2, 1]), "n", "3 %", 300)
    assert row["ratio"] > 0.9 and row["faster than log n"] > 0.9


# ---- what real results hold as well ----


def test_missing_and_infinite_sizes():
    values = noisy(lambda n: 0.3 * n**0.5, 0.05, np.random.default_rng(6))
    found = growth.judged(values.where(values.n < 512))
    assert found.n.tolist() == SIZES[:5].tolist() and found.verdict == "faster than log n"
    values[2, 1] = np.inf
    found = growth.judged(values)
    assert found.n.tolist() == [16, 32, 128, 256, 512] and 0.3 < found.index.value < 0.7
    assert (found.verdict, found.reason) == ("undecided", "infinite at n = 64")
    values[3, :4] = 0
    assert growth.judged(values).reason == "infinite at n = 64; not positive at n = 128"


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_sizes(count):
    values = noisy(lambda n: n**0.5, 0.01, np.random.default_rng(7))[:count]
    found = growth.judged(values)
    assert (found.verdict, found.reason) == ("undecided", "fewer than four sizes")
    assert np.isnan([*found.ratio, *found.index]).all()


def test_single_trials():
    """Where every size has one, nothing is known; where some have, they take the others' spread."""
    rng = np.random.default_rng(8)
    found = growth.judged(noisy(lambda n: n**0.5, 0.01, rng, [1] * 6))
    assert (found.verdict, found.reason) == ("undecided", "no size has several trials")
    assert np.isnan(found.ratio).all()
    found = growth.judged(noisy(lambda n: n**0.5, 0.01, rng, [16, 8, 4, 2, 1, 1]))
    assert found.verdict == "faster than log n" and found.index.low < 0.5 < found.index.high


def test_values_without_spread():
    for level in (1.0, 96.0):
        found = growth.judged(of_trials([np.full(count, level) for count in COUNTS]))
        assert found.verdict == "flat" and np.allclose(found.ratio, 1) and not found.clear
    zero = growth.judged(of_trials([np.zeros(count) for count in COUNTS]))
    assert zero.verdict == "undecided" and zero.reason.startswith("not positive at n = 16, 32")


def test_a_verdict_that_the_last_size_alone_makes_is_said():
    rng = np.random.default_rng(12)
    values = noisy(lambda n: np.log(n) * (1 + (n == 512)), 0.01, rng, [8] * 6)
    values = values.assign_coords(n=SIZES.astype(int))
    assert growth.judged(values).verdict == "faster than log n"
    said = growth.reserve(values, "faster than log n")
    assert said == "; no faster than log n without n = 512"
    values[5] = np.nan  # then 256 is the last one, and nothing changes without it
    assert growth.judged(values).verdict == "no faster than log n"
    assert growth.reserve(values, "no faster than log n") == ""
    assert growth.reserve(values[:4], "undecided") == ""


# ---- accuracies near 1 ----


def test_bounds_of_accuracies_know_that_errors_are_counted():
    """No error in 1024 images: one-sided; a few: two-sided; else the trials' own spread."""

    def bounds(accuracies):
        values = of_trials([accuracies])
        means = growth.accuracy_means(values, xr.full_like(values, 256))
        return means.low[0], means.high[0]

    low, high = bounds(np.ones(4))
    assert high == 1 and low == pytest.approx(0.05 ** (1 / 1024))
    accuracies = 1 - np.array([0, 0, 1, 2]) / 256  # half-width by the spread: 0.006
    low, high = bounds(accuracies)
    exact = scipy.stats.binomtest(1021, 1024).proportion_ci(method="exact")
    assert low <= exact.low and high == 1
    far = bounds(np.array([0.9, 0.92]))
    assert far[0] < 0.85 and far[1] == 1  # two trials: passes 1
    alone = bounds(np.array([0.5]))
    assert alone == pytest.approx((0.437, 0.563), abs=2e-3)
