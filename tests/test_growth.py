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


def noisy(law, relative, rng, counts=COUNTS, sizes=SIZES):
    """Trials [count] of every size: the law's value with normal noise, relative to it."""
    return [
        law(n) * (1 + relative * rng.standard_normal(count))
        for n, count in zip(sizes, counts, strict=True)
    ]


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
    assert [v.tolist() for v in means] == [[4, 6], [np.inf], []]
    medians = growth.trial_values(named("readout_measurements", values, "image"))
    assert [v.tolist() for v in medians] == [[3, 6], [4], []]


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
    mean, half = growth.size_means([16, 32, 64, 128, 256], values)
    pooled = np.sqrt((0.08 + 2 * 0.01) / 3)
    assert np.allclose(mean[:3], [10, 100, 1000]) and np.isnan(mean[3]) and mean[4] == np.inf
    relative = scipy.stats.t.isf(0.025, 3) * pooled / np.sqrt([2, 3, 1])
    assert np.allclose(half[:3], relative * (1 + relative**2) * mean[:3], rtol=1e-6)
    assert np.isnan(half[3:]).all()
    assert np.isnan(growth.size_means([16, 32], [np.array([2.0]), np.array([3.0])])[1]).all()


# ---- the fit ----


@pytest.mark.parametrize("index", [-1.5, -0.3, 0, 0.25, 1, 2])
def test_exact_curves_are_recovered(index):
    values = [np.full(4, shifted_power(n, index, 5.0, 0.7)) for n in SIZES]
    found = growth.fit_growth(SIZES, values)
    assert found.index.value == pytest.approx(index, abs=1e-5)
    assert found.ratio.value == pytest.approx(values[-1][0] / values[0][0], rel=1e-5)


@pytest.mark.parametrize("index", [-0.5, 0.4])
def test_the_fit_is_least_squares(index):
    """λ against SciPy's least squares and the same errors; chi^2 at its ends against F."""
    rng = np.random.default_rng(2)
    values = noisy(lambda n: shifted_power(n, index, 1.0, 0.5), 0.05, rng, [8] * 6)
    found = growth.fit_growth(SIZES, values)
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
    line = scipy.stats.linregress(np.log(SIZES), np.log(y))  # all sizes weigh the same
    assert found.exponent.value == pytest.approx(line.slope, rel=1e-6)
    half = scipy.stats.t.isf(0.025, freedom[0]) * relative[0] / np.sqrt(6 * np.var(np.log(SIZES)))
    assert np.allclose(found.exponent[1:], [line.slope - half, line.slope + half])


def test_freedom_is_that_of_the_sizes_that_decide():
    """Satterthwaite: the variance of the exponent is a sum over the sizes, in the ratio of (ln n -
    mean)^2.
    """
    n, freedom = SIZES[:3], np.array([2.0, 50, 6])
    _, together, _ = growth.fit_power(n, n, np.full(3, 0.1), freedom)
    assert together == pytest.approx(1 / (0.5**2 / 2 + 0.5**2 / 6))
    _, together, _ = growth.fit_power(n, n, np.full(3, 0.1), np.full(3, 10.0))
    assert together == 10


def test_intervals_without_an_end():
    """Steps at the first or the last size leave λ open at one end, a first mean near 0 growth."""
    rng = np.random.default_rng(11)
    step = growth.fit_growth(SIZES, noisy(lambda n: 1 + (n > 16), 0.05, rng))
    assert step.index[1:][0] == -np.inf and step.index[1:][1] < 0 and "below" in str(step.index)
    late = growth.fit_growth(SIZES, noisy(lambda n: 1 + (n == 512), 0.05, rng))
    assert late.index[1:][1] == np.inf and late.index[1:][0] > 0
    wild = growth.fit_growth(SIZES, [np.array([0.02, 1.98])] * 6)
    assert wild.ratio[1:] == (0, np.inf) and wild.verdict == "undecided"


def test_units_do_not_matter():
    values = noisy(np.log, 0.1, np.random.default_rng(3))
    one = growth.fit_growth(SIZES, values)
    other = growth.fit_growth(SIZES * 3, [v * 1e-12 for v in values])
    for name in ("index", "ratio", "exponent"):
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
    assert growth.judge(*intervals, clear=True)[0] == verdict


@pytest.mark.parametrize("verdict, law", CASES)
def test_known_growth_is_recognised(verdict, law):
    rng = np.random.default_rng(4)
    said = [growth.fit_growth(SIZES, noisy(law, 0.01, rng, [8] * 6)).verdict for _ in range(20)]
    assert said.count(verdict) >= 19


def test_undecided_says_why():
    rng = np.random.default_rng(15)
    found = growth.fit_growth(SIZES, noisy(lambda n: 10, 0.5, rng))
    assert (found.verdict, found.reason) == (
        "undecided",
        "growth neither shown nor excluded",
    ) and not found.clear
    found = growth.fit_growth(SIZES, noisy(lambda n: n**0.15, 0.1, rng, [16] * 6))
    assert (found.verdict, found.reason) == ("undecided", "λ may be 0 and 0.25") and found.clear
    wave = growth.fit_growth(SIZES, noisy(lambda n: 10 + 5 * np.sin(3 * np.log(n)), 0.02, rng))
    assert (
        wave.verdict == "undecided"
        and "no such curve fits, errors enlarged" in wave.reason
        and not wave.power_fits
    )


def test_enlarged_errors_do_not_speak_for_the_claim():
    """Two decades, then a rough plateau, with small errors: no such curve, and no verdict."""
    steps = dict(zip(SIZES, [1, 30, 100, 100, 60, 100], strict=True))
    found = growth.fit_growth(SIZES, noisy(steps.__getitem__, 0.03, np.random.default_rng(3)))
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
        assert row["clear"] < 0.08 and row["ratio"] >= 0.92 and row["exponent"] >= 0.92
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
    for name in ("ratio", "index", "exponent"):
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
        shares = [row[name] for name in ("ratio", "index", "exponent") if row[name] is not None]
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
    found = growth.fit_growth(SIZES, [*values[:5], np.array([])])
    assert found.n.tolist() == SIZES[:5].tolist() and found.verdict == "faster than log n"
    values[2][1] = np.inf
    found = growth.fit_growth(SIZES, values)
    assert found.n.tolist() == [16, 32, 128, 256, 512] and 0.4 < found.exponent.value < 0.6
    assert (found.verdict, found.reason) == ("undecided", "infinite at n = 64")
    values[3] = np.zeros(4)
    assert growth.fit_growth(SIZES, values).reason == "infinite at n = 64; not positive at n = 128"


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_sizes(count):
    values = noisy(lambda n: n**0.5, 0.01, np.random.default_rng(7))[:count]
    found = growth.fit_growth(SIZES[:count], values)
    assert (found.verdict, found.reason) == ("undecided", "fewer than four sizes")
    assert np.isnan([*found.ratio, *found.index, *found.exponent]).all()


def test_single_trials():
    """Where every size has one, nothing is known; where some have, they take the others' spread."""
    rng = np.random.default_rng(8)
    found = growth.fit_growth(SIZES, noisy(lambda n: n**0.5, 0.01, rng, [1] * 6))
    assert (found.verdict, found.reason) == ("undecided", "no size has several trials")
    assert np.isnan(found.ratio.value) and str(found.ratio) == "–"
    found = growth.fit_growth(SIZES, noisy(lambda n: n**0.5, 0.01, rng, [16, 8, 4, 2, 1, 1]))
    assert found.verdict == "faster than log n" and found.index.low < 0.5 < found.index.high


def test_values_without_spread():
    for level in (1.0, 96.0):
        found = growth.fit_growth(SIZES, [np.full(count, level) for count in COUNTS])
        assert found.verdict == "flat" and str(found.ratio) == "1" and not found.clear
    zero = growth.fit_growth(SIZES, [np.zeros(count) for count in COUNTS])
    assert zero.verdict == "undecided" and zero.reason.startswith("not positive at n = 16, 32")


# ---- text ----


def test_numbers_are_written_with_their_intervals():
    assert str(growth.Estimate(1.0954, 1.0781, 1.1127)) == "1.095 (1.078 to 1.113)"
    assert str(growth.Estimate(3.04, 2.31, 4.02)) == "3.0 (2.3 to 4.0)"
    assert str(growth.Estimate(0.31, 0.021, 0.66)) == "0.31 (0.02 to 0.66)"  # not 0.0
    assert str(growth.Estimate(-0.7, -np.inf, 0.12)) == "-0.7 (below 0.1)"
    assert str(growth.Estimate(3.0, 0.0, np.inf)) == "3 (0 to ∞)"
    assert str(growth.Estimate(2.0, -np.inf, np.inf)) == "any"
    assert str(growth.Estimate(np.nan, np.nan, np.nan)) == "–"


def test_a_verdict_that_the_last_size_alone_makes_is_said():
    rng = np.random.default_rng(12)
    values = named("sparsity", noisy(lambda n: np.log(n) * (1 + (n == 512)), 0.01, rng, [8] * 6))
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
    images = np.full(4, 256.0)
    low, high = growth.accuracy_bounds(np.ones(4), images, 0.0009)
    assert high == 1 and low == pytest.approx(0.05 ** (1 / 1024))
    accuracies = 1 - np.array([0, 0, 1, 2]) / 256
    low, high = growth.accuracy_bounds(accuracies, images, 1e-4)
    exact = scipy.stats.binomtest(1021, 1024).proportion_ci(method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high))
    wide = growth.accuracy_bounds(accuracies, images, 0.1)
    assert wide == pytest.approx((accuracies.mean() - 0.1, 1))
    close = growth.accuracy_bounds(np.full(2, 1 - 1 / 256), images[:2], 0.005)  # passes 1
    exact = scipy.stats.binomtest(510, 512).proportion_ci(method="exact")
    assert close == pytest.approx((exact.low, 1))
    far = growth.accuracy_bounds(np.array([0.9, 0.92]), images[:2], 0.02)
    assert far == pytest.approx((0.89, 0.93))
    alone = growth.accuracy_bounds(np.array([0.5]), images[:1], np.nan)
    assert alone == pytest.approx((0.437, 0.563), abs=2e-3)
