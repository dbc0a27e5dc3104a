"""Intervals and fits of scaling.py, on made-up data whose law and spread are known."""

import functools

import numpy as np
import pytest
import scipy.optimize

import scaling

pytestmark = pytest.mark.filterwarnings("error")

SIZES = np.array([16, 32, 64, 128, 256, 512])
COUNTS = [16, 8, 4, 4, 4, 4]  # trials of each size, as the script's


def noisy(law, relative, rng, counts=COUNTS, sizes=SIZES):
    """Trials [count] of every size: the law's value with normal noise of a relative standard deviation."""
    return [law(n) * (1 + relative * rng.standard_normal(count)) for n, count in zip(sizes, counts, strict=True)]


def verdicts(law, relative, repeats=60, counts=COUNTS, sizes=SIZES):
    """How often fits to noisy data say what: {verdict: share}."""
    rng = np.random.default_rng(0)
    said = [
        scaling.fit_laws(sizes, noisy(law, relative, rng, counts, sizes), resamples=100)["verdict"]
        for _ in range(repeats)
    ]
    return {verdict: said.count(verdict) / repeats for verdict in ("constant", "log", "power", "undecided")}


# ---- one value per trial ----


def test_trial_values_by_hand():
    missing = [np.nan, np.nan]
    values = np.array([[[1, 3], [5, np.nan], missing], [[2, np.inf], missing, missing], [missing] * 3])
    mean = scaling.trial_values(values)
    assert [each.tolist() for each in mean] == [[2, 5], [np.inf], []]
    smallest = scaling.trial_values(values, np.min)
    assert [each.tolist() for each in smallest] == [[1, 5], [2], []]
    quantile = scaling.trial_values(values, functools.partial(np.quantile, q=0.9, method="higher"))
    assert [each.tolist() for each in quantile] == [[3, 5], [np.inf], []]


def test_trial_values_of_any_rank():
    values = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    assert np.array_equal(scaling.trial_values(values, np.median), np.median(values, axis=(2, 3)))
    assert np.array_equal(scaling.trial_values(values[..., 0, 0]), values[..., 0, 0])
    assert [len(each) for each in scaling.trial_values(values[:, :0])] == [0, 0]


# ---- intervals ----


def test_interval_is_the_percentile_bootstrap():
    """Against the same bootstrap written out, with other random numbers."""
    values = np.random.default_rng(1).exponential(size=12)
    rng = np.random.default_rng(2)
    resampled = [np.mean(rng.choice(values, 12)) for _ in range(20000)]
    expected = np.quantile(resampled, [0.05, 0.95])
    found = scaling.interval(values, confidence=0.9, resamples=20000)
    assert np.allclose(found, expected, atol=0.02)
    assert found == scaling.interval(values, confidence=0.9, resamples=20000)  # seeded
    assert found != scaling.interval(values, confidence=0.9, resamples=20000, seed=1)


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_intervals_cover_clustered_data(statistic):
    """16 trials of 32 images whose spread is half the trial's own: 95 % intervals cover 92 % (t of 15 degrees of
    freedom and a bootstrap variance of 15/16); taking every image for independent, far less.
    """
    rng = np.random.default_rng(3)
    repeats, covered, naively = 200, 0, 0
    for _ in range(repeats):
        values = rng.standard_normal((16, 1)) + rng.standard_normal((16, 32))
        low, high = scaling.interval(values, statistic, resamples=400)
        covered += low <= 0 <= high
        low, high = scaling.interval(values.reshape(-1, 1), statistic, resamples=400)
        naively += low <= 0 <= high
    print(f"{statistic.__name__}: cover {covered / repeats:.3f}, without clusters {naively / repeats:.3f}")
    assert 0.88 <= covered / repeats <= 0.97
    assert naively / repeats < 0.6


def test_interval_of_values_per_trial_and_of_clusters_agree():
    """A mean over trials of equal size is the mean of the trials' means, resample by resample."""
    values = np.random.default_rng(4).standard_normal((9, 3, 5))
    assert np.allclose(scaling.interval(values), scaling.interval(values.mean(axis=(1, 2))))


def test_interval_of_degenerate_trials():
    assert np.isnan(scaling.interval([3.0])).all()
    assert np.isnan(scaling.interval([])).all()
    assert np.isnan(scaling.interval([[np.nan, np.nan], [1, 2]])).all()
    assert scaling.interval([3.0, 3, 3, 3]) == (3, 3)
    assert scaling.interval(np.full((4, 6), 3.0), np.median) == (3, 3)
    rows = np.array([[1.0, 2], [np.nan, np.nan], [4, np.nan], [0, 3]])
    whole = scaling.interval(rows, np.median)
    assert whole == scaling.interval(rows[[0, 2, 3]], np.median) and np.isfinite(whole).all()
    assert scaling.interval([1, 2, 3, np.nan], resamples=500) == scaling.interval([1, 2, 3], resamples=500)


def test_interval_with_an_infinite_trial():
    low, high = scaling.interval([1, 2, 3, 4, np.inf])
    assert high == np.inf and low > 1  # a third of the resamples misses the infinite trial
    low, high = scaling.interval([1, 2, 3, 4, 5, 6, 7, 8, np.inf], np.median)
    assert 1 < low < 5 < high < np.inf


# ---- errors ----


def test_standard_errors_by_hand():
    """s^2 = 2 and 8, means 2 and 4: relative variances 1/2, 1/2; the third size has one trial."""
    errors = scaling.standard_errors([np.array([1.0, 3]), np.array([2.0, 6]), np.array([10.0])])
    assert np.allclose(errors**2, [2 / 2, 8 / 2, 0.5 * 100])
    # s^2 = 2 and 0, means 2 and 4: pooled r^2 = 1/4, four degrees of freedom against one of the size's own
    errors = scaling.standard_errors([np.array([1.0, 3]), np.array([4.0, 4])])
    assert np.allclose(errors**2, [(4 * 0.25 * 4 + 2) / 5 / 2, 4 * 0.25 * 16 / 5 / 2])
    assert np.isnan(scaling.standard_errors([np.array([1.0]), np.array([2.0])])).all()
    # of many trials, their own
    many = np.random.default_rng(5).normal(7, 2, 10000)
    assert np.isclose(scaling.standard_errors([many, many[:9]])[0], many.std() / 100, rtol=0.01)


# ---- fits ----


@pytest.mark.parametrize("a, b", [(3.0, 0.5), (2e9, -1.7), (1e-9, 2.5), (-4.0, 0.02)])
def test_power_law_is_curve_fit(a, b):
    """Parameters, their errors and chi^2 of SciPy's own weighted least squares."""
    rng = np.random.default_rng(6)
    errors = np.abs(a * SIZES**b) * np.array([0.1, 0.05, 0.2, 0.1, 0.02, 0.1])
    y = a * SIZES**b + errors * rng.standard_normal(6)
    unit = abs(a)  # curve_fit's steps fail on a of 1e9
    expected, covariance = scipy.optimize.curve_fit(
        lambda n, a, b: a * n**b, SIZES.astype(float), y / unit, (a / unit, b), errors / unit, absolute_sigma=True
    )
    found = scaling.fit_laws(SIZES, y, errors)["power"]
    assert np.allclose(found["parameters"], expected * [unit, 1], rtol=1e-5)
    assert np.allclose(found["errors"], np.sqrt(np.diag(covariance)) * [unit, 1], rtol=1e-3)
    assert np.isclose(found["chi2"], np.sum(((y / unit - expected[0] * SIZES ** expected[1]) / errors * unit) ** 2))


def test_linear_laws_are_polyfit():
    rng = np.random.default_rng(7)
    errors = rng.uniform(0.5, 2, 6)
    y = 3 + 2 * np.log(SIZES) + errors * rng.standard_normal(6)
    found = scaling.fit_laws(SIZES, y, errors)
    for law, degree in (("constant", 0), ("log", 1)):
        expected, covariance = np.polyfit(np.log(SIZES), y, degree, w=1 / errors, cov="unscaled")
        assert np.allclose(found[law]["parameters"], expected[::-1])
        assert np.allclose(found[law]["errors"], np.sqrt(np.diag(covariance))[::-1])


def test_criterion_by_hand():
    """AICc of six sizes: 2 + 4/4 for one parameter, 4 + 12/3 for two; with a misfit, chi^2 over c."""
    y = 3 + 2 * np.log(SIZES) + np.array([0.1, -0.1, 0.1, -0.1, 0.1, -0.1])
    found = scaling.fit_laws(SIZES, y, np.full(6, 0.2))
    assert found["misfit"] == 1
    for law, penalty in (("constant", 3), ("log", 8), ("power", 8)):
        assert np.isclose(found[law]["criterion"], found[law]["chi2"] + penalty)
    found = scaling.fit_laws(SIZES, y, np.full(6, 0.06))
    assert found["misfit"] == found["log"]["chi2"] / 4 > 1
    assert np.isclose(found["log"]["criterion"], 4 + 8)
    assert np.isclose(found["constant"]["criterion"], 4 * found["constant"]["chi2"] / found["log"]["chi2"] + 3)


@pytest.mark.parametrize(
    "verdict, law, relative",
    [
        ("constant", lambda n: 10, 0.1),
        ("log", lambda n: 2 * np.log(n), 0.05),
        ("power", lambda n: 0.3 * n**0.5, 0.1),
        ("power", lambda n: 1e8 * n**2.0, 0.3),
        ("power", lambda n: 5 * n**-0.6, 0.1),
    ],
)
def test_fits_recover_known_laws(verdict, law, relative):
    said = verdicts(law, relative)
    assert said[verdict] >= 0.85
    wrong = {"constant", "log", "power"} - {verdict}
    assert sum(said[w] for w in wrong) <= 0.08


def test_undecided_where_the_data_cannot_say():
    assert verdicts(lambda n: n**0.05, 0.05)["undecided"] > 0.9  # a logarithm in all but name
    assert verdicts(lambda n: 10 + np.log(n), 0.05)["undecided"] > 0.9  # and a small power
    assert verdicts(lambda n: 10, 0.5)["undecided"] > 0.9  # noise
    assert verdicts(lambda n: 2 * np.log(n), 0.5)["undecided"] > 0.8
    assert verdicts(lambda n: n**0.5, 0.01, counts=[4, 4, 4], sizes=SIZES[:3])["undecided"] == 1  # too few sizes
    assert verdicts(lambda n: 10, 0.01, counts=[1] * 6)["undecided"] == 1  # no errors
    oscillating = verdicts(lambda n: 10 + 5 * np.sin(3 * np.log(n)), 0.02, repeats=20)
    assert oscillating["undecided"] == 1  # no law fits


def test_more_sizes_tell_a_logarithm_from_a_power():
    """What six sizes leave open, ten to 8192 decide."""
    sizes = 2 ** np.arange(4, 14)
    assert verdicts(lambda n: 2 * np.log(n), 0.15)["log"] < 0.7
    assert verdicts(lambda n: 2 * np.log(n), 0.15, counts=[16] * 10, sizes=sizes)["log"] > 0.95


@pytest.mark.parametrize("b, relative", [(0, 0.3), (0.2, 0.05), (1, 0.3)])
def test_exponent_is_inside_its_interval(b, relative):
    """In about 95 % of 200 repeats with 16 trials a size: two binomial deviations, 3 %, and 2 % for few trials."""
    rng = np.random.default_rng(8)
    inside = 0
    for _ in range(200):
        values = noisy(lambda n: 3 * n**b, relative, rng, [16] * 6)
        low, high = scaling.fit_laws(SIZES, values, resamples=300)["exponent_interval"]
        inside += low <= b <= high
    assert 0.90 <= inside / 200 <= 0.985


def test_single_trials_take_the_pooled_error():
    """Sizes with one trial widen the exponent's interval and do not break it."""
    rng = np.random.default_rng(9)
    inside = 0
    for _ in range(200):
        values = noisy(lambda n: 3 * n**0.5, 0.1, rng, [16, 8, 4, 2, 1, 1])
        found = scaling.fit_laws(SIZES, values, resamples=300)
        low, high = found["exponent_interval"]
        inside += low <= 0.5 <= high
    assert 0.86 <= inside / 200 <= 0.985
    relative = found["errors"] / found["values"]
    assert np.isclose(relative[4], relative[5]) and relative[4] > relative[0]


def test_given_errors():
    """Unknown errors are the others' root mean square, relative to the value; the interval is normal."""
    y = 3.0 * SIZES
    found = scaling.fit_laws(SIZES, y, y * [0.1, 0.1, np.nan, 0.2, 0.2, np.nan])
    assert np.allclose(found["errors"] / y, [0.1, 0.1, 0.025**0.5, 0.2, 0.2, 0.025**0.5])
    b, error = found["power"]["parameters"][1], found["power"]["errors"][1]
    assert np.allclose(found["exponent_interval"], [b - 1.959964 * error, b + 1.959964 * error])
    assert found["verdict"] == "power"
    found = scaling.fit_laws(SIZES, y, np.full(6, np.nan))
    assert found["verdict"] == "undecided" and np.isclose(found["power"]["parameters"][1], 1)


# ---- what real results hold as well ----


def test_values_without_spread():
    for level in (1.0, 96.0, 0.0):
        found = scaling.fit_laws(SIZES, [np.full(count, level) for count in COUNTS])
        assert found["verdict"] == "constant" and found["constant"]["parameters"] == pytest.approx([level])
    found = scaling.fit_laws(SIZES, [np.full(count, np.sqrt(n)) for n, count in zip(SIZES, COUNTS, strict=True)])
    assert found["verdict"] == "power" and np.allclose(found["exponent_interval"], 0.5, atol=1e-6)


def test_small_changes_beyond_all_errors_are_constant():
    """The condition number of a kernel that is nearly diagonal: 1.002, falling to 1 with errors smaller still."""
    rng = np.random.default_rng(10)
    found = scaling.fit_laws(SIZES, [1 + 0.5 * n**-2.0 * rng.uniform(0.9, 1.1, 4) for n in SIZES])
    assert found["misfit"] > scaling.MISFIT
    assert (found["verdict"], found["reason"]) == ("constant", "within 5%")


def test_missing_and_infinite_sizes():
    rng = np.random.default_rng(11)
    values = noisy(lambda n: 0.3 * n**0.5, 0.05, rng)
    found = scaling.fit_laws(SIZES, [*values[:5], np.array([])])
    assert found["n"].tolist() == SIZES[:5].tolist() and found["verdict"] == "power"
    values[2][1] = np.inf
    found = scaling.fit_laws(SIZES, values)
    assert found["infinite"].tolist() == [64] and found["n"].tolist() == [16, 32, 128, 256, 512]
    assert (found["verdict"], found["reason"]) == ("undecided", "infinite at n = 64")
    assert 0.4 < found["power"]["parameters"][1] < 0.6


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_sizes(count):
    values = noisy(lambda n: n**0.5, 0.01, np.random.default_rng(12))[:count]
    found = scaling.fit_laws(SIZES[:count], values)
    assert found["verdict"] == "undecided"
    assert np.isfinite(found["log"]["parameters"]).all() == (count >= 2)


def test_table():
    """From results as the script saves them: NaN for trials that are not there."""
    rng = np.random.default_rng(13)
    results = {"data_sizes": SIZES, "flat": np.full((6, 16, 8), np.nan), "steep": np.full((6, 16), np.nan)}
    for s, (n, count) in enumerate(zip(SIZES, COUNTS, strict=True)):
        results["flat"][s, :count] = 30 * rng.uniform(0.9, 1.1, (count, 8))
        results["steep"][s, :count] = n**0.5 * rng.uniform(0.9, 1.1, count)
    results["none"] = np.full((6, 16), np.nan)
    quantities = {"flat one": ("flat", np.median), "steep one": ("steep", np.mean), "no one": ("none", np.mean)}
    rows = scaling.scaling_table(results, quantities, resamples=300)
    assert [row["verdict"] for row in rows] == ["constant", "power", "undecided"]
    low, high = rows[1]["exponent_interval"]
    assert low < rows[1]["exponent"] < high and abs(rows[1]["exponent"] - 0.5) < 0.05
    assert rows[1]["differences"]["power"] == 0 < 2 <= min(rows[1]["differences"][law] for law in ("constant", "log"))
    lines = scaling.format_table(rows).splitlines()
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert lines[3].startswith("| steep one | 16–512 (6) | 0.") and lines[3].endswith("| **power**: rising |")
    assert lines[4] == "| no one | – | – | – | – | – | **undecided**: fewer than four sizes |"
