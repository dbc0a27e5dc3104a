"""Trial values, errors, growth and RESULTS.md, on made-up data whose growth and spread are known."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import simulate_growth

import scaling
from analysis import document, growth, tables

pytestmark = pytest.mark.filterwarnings("error")

SIZES = np.array([16.0, 32, 64, 128, 256, 512])
COUNTS = [16, 8, 4, 4, 4, 4]  # trials of each size, as the script's
LAWS = {  # verdict: laws
    "no growth beyond 25 %": [lambda n: 7.0, lambda n: 1 + 0.1 / n],
    "no faster than log n": [np.log, lambda n: 2 - 16 / n, lambda n: 1e9 / n, lambda n: 5 * n**0.1],
    "faster than log n": [lambda n: n**0.5, lambda n: 3e-9 * n**2.5, lambda n: 100 + n],
}
CASES = [(verdict, law) for verdict, laws in LAWS.items() for law in laws]


def noisy(law, relative, rng, counts=COUNTS, sizes=SIZES):
    """Trials [count] of every size: the law's value with normal noise of a relative standard deviation."""
    return [law(n) * (1 + relative * rng.standard_normal(count)) for n, count in zip(sizes, counts, strict=True)]


def shifted_power(n, index, a, b):
    """The curve of analysis/growth.py as its docstring states it."""
    return a + b * (np.log(n) if index == 0 else (n**index - 1) / index)


# ---- a trial's value ----


def test_a_trial_has_one_value():
    missing = [np.nan] * 3
    values = np.array([[[1, 3, 8], [5, np.nan, 7], missing], [[2, np.inf, 4], missing, missing], [missing] * 3])
    means = scaling.trial_values({"accuracy_sparse": values}, "accuracy_sparse")
    assert [v.tolist() for v in means] == [[4, 6], [np.inf], []]
    medians = scaling.trial_values({"readout_measurements_sparse": values}, "readout_measurements_sparse")
    assert [v.tolist() for v in medians] == [[3, 6], [4], []]
    with pytest.raises(KeyError):
        scaling.trial_values({"accuracy_spares": values}, "accuracy_spares")


def test_which_statistic_is_a_trials_value():
    """Counts of measurements: the median of all patterns and test images together; all else: the mean."""
    rng = np.random.default_rng(0)
    for name, quantity in scaling.QUANTITIES.items():
        values = rng.exponential(size=(2, 3, 4, 5))
        statistic = np.median if "measurements" in name else np.mean
        assert np.array_equal(scaling.trial_values({name: values}, name), statistic(values.reshape(2, 3, 20), axis=-1))
        assert ("measurements" in name) == quantity.label.startswith(("post-selection", "readout"))
    one = rng.exponential(size=(2, 3))
    assert np.array_equal(scaling.trial_values({"sparsity_sound": one}, "sparsity_sound"), one)


def test_every_array_of_the_results_has_its_quantity():
    """All that the committed results hold of accuracies, condition numbers, sparsities and measurements."""
    folder = Path(scaling.__file__).parent / "kernel_output"
    for prefix in tables.prefixes(folder, "_results.npz"):
        for name in tables.load(folder / f"{prefix}_results.npz"):
            if name.startswith(("accuracy", "condition", "sparsity", "post_selection", "readout", "positive")):
                assert name in scaling.QUANTITIES


# ---- errors ----


def test_equal_spread_is_pooled():
    """Relative variances 0.02, 0.08 and none, of 1, 3 and 0 degrees of freedom: pooled (0.02 + 3 * 0.08) / 4."""
    n, trials = np.array([16.0, 32, 64]), np.array([2.0, 4, 1])
    mean, relative = np.array([10.0, 100, 1000]), np.sqrt([0.02, 0.08, 0])
    errors, freedom = scaling.relative_errors(n, mean, relative * mean, trials)
    assert np.allclose(errors**2, 0.065 / trials, rtol=1e-6) and np.allclose(freedom, 4)
    assert np.isnan(scaling.relative_errors(n, mean, 0 * mean, np.ones(3))).all()


def test_spread_that_changes_with_n_is_followed():
    """Spreads of 40 % falling to 1 % with 12 trials, and what follows for a size with one trial."""
    n, trials = 2.0 ** np.arange(4, 12), np.array([12.0] * 7 + [1])
    spread = 0.4 * (n / 16) ** (np.log(0.01 / 0.4) / np.log(128))
    errors, freedom = scaling.relative_errors(n, np.ones(8), np.append(spread[:-1], 0), trials)
    assert np.allclose(errors * np.sqrt(trials), spread, rtol=0.12)
    assert 11 <= freedom.min() < freedom.max() <= 77
    wild = spread * np.array([1, 5, 1, 5, 1, 5, 1, 1])  # no power of n: each size's own spread counts for more
    errors, freedom = scaling.relative_errors(n, np.ones(8), np.append(wild[:-1], 0), trials)
    assert np.all(np.abs(np.log(errors * np.sqrt(trials) / wild))[:-1] < 0.5) and freedom[-1] < 5


def test_size_means_by_hand():
    values = [
        np.array([8.0, 12]),
        np.array([90.0, 100, 110]),
        np.array([1000.0]),
        np.array([]),
        np.array([1.0, np.inf]),
    ]
    mean, error, half = scaling.size_means([16, 32, 64, 128, 256], values)
    pooled = np.sqrt((0.08 + 2 * 0.01) / 3)
    assert np.allclose(mean[:3], [10, 100, 1000]) and np.isnan(mean[3]) and mean[4] == np.inf
    assert np.allclose(error[:3], pooled * mean[:3] / np.sqrt([2, 3, 1]), rtol=1e-6)
    relative = scipy.stats.t.isf(0.025, 3) * error[:3] / mean[:3]
    assert np.allclose(half[:3], relative * (1 + relative**2) * mean[:3], rtol=1e-6)
    assert np.isnan(error[3:]).all() and np.isnan(half[3:]).all()
    assert np.isnan(scaling.size_means([16, 32], [np.array([2.0]), np.array([3.0])])[1]).all()


def test_geometric_means():
    rng = np.random.default_rng(1)
    logs = [rng.normal(3, 0.2, 16), rng.normal(5, 0.2, 8)]
    mean, error, _ = scaling.size_means([16, 32], [np.exp(v) for v in logs], geometric=True)
    assert np.allclose(np.log(mean), [v.mean() for v in logs])
    pooled = np.sqrt((15 * logs[0].var(ddof=1) + 7 * logs[1].var(ddof=1)) / 22)
    assert np.allclose(error / mean, pooled / np.sqrt([16, 8]), rtol=1e-6)
    values = [n**0.5 * np.exp([-1.0, -1, -1, 0, 3]) for n in SIZES]
    found = scaling.fit_growth(SIZES, values, geometric=True)
    assert np.allclose(found.curve(SIZES), SIZES**0.5, rtol=1e-6) and found.exponent == pytest.approx(0.5)


# ---- the fit ----


@pytest.mark.parametrize("index", [-1.5, -0.3, 0, 0.25, 1, 2])
def test_exact_curves_are_recovered(index):
    values = [np.full(4, shifted_power(n, index, 5.0, 0.7)) for n in SIZES]
    found = scaling.fit_growth(SIZES, values)
    assert found.index == pytest.approx(index, abs=1e-5)
    assert found.ratio == pytest.approx(values[-1][0] / values[0][0], rel=1e-5)
    between = np.array([20.0, 300, 700])
    low, high = found.band(between)
    assert np.allclose(found.curve(between), shifted_power(between, index, 5.0, 0.7), rtol=1e-4)
    assert np.all(low <= found.curve(between)) and np.all(found.curve(between) <= high)


@pytest.mark.parametrize("index", [-0.5, 0.4])
def test_the_fit_is_least_squares(index):
    """λ against SciPy's least squares with the same errors, and chi^2 at the ends of λ's interval against F."""
    rng = np.random.default_rng(2)
    values = noisy(lambda n: shifted_power(n, index, 1.0, 0.5), 0.05, rng, [8] * 6)
    found = scaling.fit_growth(SIZES, values)
    y, deviation, trials = scaling.moments(values)
    relative, freedom = scaling.relative_errors(SIZES, y, deviation, trials)
    error = relative * found.curve(SIZES)

    def least(index):
        design = np.stack([np.ones(6), shifted_power(SIZES, index, 0.0, 1.0)], 1) / error[:, None]
        return np.linalg.lstsq(design, y / error)[1].item()

    best = scipy.optimize.minimize_scalar(least, (index - 0.1, index + 0.1))
    low, high = found.index_interval
    assert found.index == pytest.approx(best.x, abs=0.02 * (high - low))
    for bound in (low, high):
        assert least(bound) - best.fun == pytest.approx(scipy.stats.f.isf(0.05, 1, freedom[0]), rel=0.06)
    line = scipy.stats.linregress(np.log(SIZES), np.log(y))  # all sizes weigh the same
    assert found.exponent == pytest.approx(line.slope, rel=1e-6)
    half = scipy.stats.t.isf(0.025, freedom[0]) * relative[0] / np.sqrt(6 * np.var(np.log(SIZES)))
    assert np.allclose(found.exponent_interval, [line.slope - half, line.slope + half])


def test_freedom_is_that_of_the_sizes_that_decide():
    """Satterthwaite: the variance of the exponent is a sum over the sizes, in the ratio of (ln n - mean)^2."""
    n, freedom = SIZES[:3], np.array([2.0, 50, 6])
    *_, together = growth.fit_power(n, n, np.full(3, 0.1), freedom)
    assert together == pytest.approx(1 / (0.5**2 / 2 + 0.5**2 / 6))
    *_, together = growth.fit_power(n, n, np.full(3, 0.1), np.full(3, 10.0))
    assert together == 10


def test_bands_cover():
    """Between and beyond the sizes; 95 % of 200, give or take three binomial deviations."""
    rng, n = np.random.default_rng(10), np.array([16.0, 90, 512, 1000])
    inside = np.zeros(4)
    for _ in range(200):
        low, high = scaling.fit_growth(SIZES, noisy(np.log, 0.05, rng)).band(n)
        inside += (low <= np.log(n)) & (np.log(n) <= high)
    assert np.all((inside >= 0.90 * 200) & (inside <= 0.99 * 200))


def test_intervals_without_an_end():
    """A step after the first size has no lower λ, one before the last no upper one; a first mean near 0 no growth."""
    rng = np.random.default_rng(11)
    step = scaling.fit_growth(SIZES, noisy(lambda n: 1 + (n > 16), 0.05, rng))
    assert step.index_interval[0] == -np.inf and step.index_interval[1] < 0 and step.text("index").find("below") > 0
    late = scaling.fit_growth(SIZES, noisy(lambda n: 1 + (n == 512), 0.05, rng))
    assert late.index_interval[1] == np.inf and late.index_interval[0] > 0
    wild = scaling.fit_growth(SIZES, [np.array([0.02, 1.98])] * 6)
    assert wild.ratio_interval == (0, np.inf) and wild.verdict == "undecided"


def test_units_do_not_matter():
    values = noisy(np.log, 0.1, np.random.default_rng(3))
    one, other = (scaling.fit_growth(SIZES * k, [v * unit for v in values]) for k, unit in ((1, 1), (3, 1e-12)))
    for name in ("index", "index_interval", "ratio", "ratio_interval", "exponent", "exponent_interval"):
        assert np.allclose(getattr(one, name), getattr(other, name), rtol=1e-6)


# ---- verdicts ----


@pytest.mark.parametrize("ratio, index, verdict", [
    ((0.85, 1.2), (-np.inf, np.inf), "no growth beyond 25 %"),
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
    assert growth.verdicts(np.array(ratio), np.array(index)) == verdict


@pytest.mark.parametrize("verdict, law", CASES)
def test_known_growth_is_recognised(verdict, law):
    rng = np.random.default_rng(4)
    said = [scaling.fit_growth(SIZES, noisy(law, 0.01, rng, [8] * 6)).verdict for _ in range(20)]
    assert said.count(verdict) >= 19


def test_undecided_says_why():
    rng = np.random.default_rng(15)
    found = scaling.fit_growth(SIZES, noisy(lambda n: 10, 0.5, rng))
    assert (found.verdict, found.reason) == ("undecided", "growth neither shown nor excluded") and not found.clear
    found = scaling.fit_growth(SIZES, noisy(lambda n: n**0.15, 0.1, rng, [16] * 6))
    assert (found.verdict, found.reason) == ("undecided", "λ may be 0 and 0.25") and found.clear
    wave = scaling.fit_growth(SIZES, noisy(lambda n: 10 + 5 * np.sin(3 * np.log(n)), 0.02, rng))
    assert wave.verdict == "undecided" and "no such curve fits, errors enlarged" in wave.reason and not wave.power_fits


def test_enlarged_errors_do_not_speak_for_the_claim():
    """Two decades in three sizes and then a rough plateau, with small errors: no such curve, and no verdict."""
    steps = dict(zip(SIZES, [1, 30, 100, 100, 60, 100], strict=True))
    found = scaling.fit_growth(SIZES, noisy(steps.__getitem__, 0.03, np.random.default_rng(3)))
    assert found.verdict == "undecided" and "only with enlarged errors; no such curve fits" in found.reason


def test_a_constant_is_not_taken_for_growth():
    """λ has no meaning for a constant, and the best of all λ must not make growth of noise."""
    rows = [simulate_growth.simulate(design, "constant", "10 %", 500) for design in (simulate_growth.PLAN, LONG)]
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
    """A short form of tests/simulate_growth.py: 95 % within three binomial deviations of 500, 3 %."""
    row = simulate_growth.simulate(*cell, 500)
    for name in ("ratio", "index", "exponent"):
        assert row[name] is None or 0.92 <= row[name] <= 0.985
    assert np.all(np.array(row["means"]) >= 0.90) and row["wrong"] <= 0.06


SIMULATED = json.loads((Path(__file__).parent / "growth_simulation.json").read_text())


@pytest.mark.slow
def test_the_simulated_table_is_good_enough():
    """The bars that the method was made for, on the table that RESULTS.md shows."""
    asked = [row for row in SIMULATED if row["spread"] in ("3 %", "10 %", "30 %")]
    designs = {row["design"] for row in SIMULATED}
    assert len(asked) == 18 * len(designs) and {row["truth"] for row in asked} == set(simulate_growth.TRUTHS)
    for row in asked:
        shares = [row[name] for name in ("ratio", "index", "exponent") if row[name] is not None]
        assert min(*shares, *row["means"]) >= 0.93 and row["wrong"] <= 0.05
        assert row["clear"] < 0.999 or max(shares) <= 0.98
    first = SIMULATED[0]
    design = first["sizes"], first["trials"]
    fresh = simulate_growth.simulate(design, first["truth"], first["spread"], first["repeats"])
    assert design == simulate_growth.PLAN and fresh["ratio"] == pytest.approx(first["ratio"], abs=1e-3)


def test_no_design_is_simulated_that_nobody_uses():
    in_use = simulate_growth.designs(Path(__file__).parent.parent / "kernel_output")
    made = {row["design"]: (row["sizes"], row["trials"]) for row in SIMULATED}
    assert made == {name: tuple(map(list, design)) for name, design in in_use.items()}


def test_a_design_with_single_trials_is_simulated():
    row = simulate_growth.simulate(([16, 32, 64, 128], [8, 4, 2, 1]), "n", "3 %", 300)
    assert row["ratio"] > 0.9 and row["faster than log n"] > 0.9


def test_the_results_say_whether_their_design_was_simulated(tmp_path):
    """Both the designs of files like those committed and one that nobody simulated."""
    made = {row["design"]: (row["sizes"], row["trials"]) for row in SIMULATED}
    folder = Path(scaling.__file__).parent / "kernel_output"
    text = document.designs_in_use(SIMULATED, folder)
    for prefix, (title, _) in tables.NETWORKS.items():
        sizes, trials = tables.design(tables.load(folder / f"{prefix}_results.npz"))
        line = next(line for line in text.splitlines() if line.startswith(f"- {title}"))
        assert ", ".join(map(str, trials)) in line
        assert ("not simulated" in line) == ((sizes, trials) not in made.values())
    arrays = {"data_sizes": np.array([16, 32, 64]), "trials": np.array([5, 0, 3])}
    np.savez(tmp_path / "convolutional_results.npz", **arrays)
    assert tables.design(arrays) == ([16, 64], [5, 3])
    assert document.designs_in_use(SIMULATED, tmp_path).endswith(
        "5, 3 trials, not simulated as they are; run tests/simulate_growth.py.\n"
    )
    assert simulate_growth.designs(tmp_path) == {"plan": simulate_growth.PLAN, "Convolutional": ([16, 64], [5, 3])}


# ---- what real results hold as well ----


def test_missing_and_infinite_sizes():
    values = noisy(lambda n: 0.3 * n**0.5, 0.05, np.random.default_rng(6))
    found = scaling.fit_growth(SIZES, [*values[:5], np.array([])])
    assert found.n.tolist() == SIZES[:5].tolist() and found.verdict == "faster than log n"
    values[2][1] = np.inf
    found = scaling.fit_growth(SIZES, values)
    assert found.n.tolist() == [16, 32, 128, 256, 512] and 0.4 < found.exponent < 0.6
    assert (found.verdict, found.reason) == ("undecided", "infinite at n = 64")
    values[3] = np.zeros(4)
    assert scaling.fit_growth(SIZES, values).reason == "infinite at n = 64; not positive at n = 128"


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_sizes(count):
    found = scaling.fit_growth(SIZES[:count], noisy(lambda n: n**0.5, 0.01, np.random.default_rng(7))[:count])
    assert found.verdict == "undecided" and "fewer than four sizes" in found.reason
    assert np.isfinite(found.exponent) == (count >= 2) and np.isfinite(found.curve([20.0])).all() == (count >= 2)
    assert np.isfinite(found.band([20.0])).all() == (count >= 2)


def test_single_trials():
    """Where every size has one, numbers without intervals; where some have, they take the others' spread."""
    rng = np.random.default_rng(8)
    found = scaling.fit_growth(SIZES, noisy(lambda n: n**0.5, 0.01, rng, [1] * 6))
    assert (found.verdict, found.reason) == ("undecided", "no size has several trials")
    assert 0.4 < found.exponent < 0.6 and np.isnan([*found.exponent_interval, *found.ratio_interval]).all()
    assert np.isfinite(found.curve(SIZES)).all() and np.isnan(found.band(SIZES)).all()
    found = scaling.fit_growth(SIZES, noisy(lambda n: n**0.5, 0.01, rng, [16, 8, 4, 2, 1, 1]))
    assert found.verdict == "faster than log n" and found.index_interval[0] < 0.5 < found.index_interval[1]


def test_values_without_spread():
    for level in (1.0, 96.0):
        found = scaling.fit_growth(SIZES, [np.full(count, level) for count in COUNTS])
        assert found.verdict == "no growth beyond 25 %" and found.text("ratio") == "1" and found.text("index") == "–"
    zero = scaling.fit_growth(SIZES, [np.zeros(count) for count in COUNTS])
    assert zero.verdict == "undecided" and zero.reason.startswith("not positive at n = 16, 32")


# ---- text ----


def test_numbers_are_written_with_their_intervals():
    assert growth.with_interval(1.0954, (1.0781, 1.1127)) == "1.095 (1.078 to 1.113)"
    assert growth.with_interval(3.04, (2.31, 4.02)) == "3.0 (2.3 to 4.0)"
    assert growth.with_interval(0.31, (0.021, 0.66)) == "0.31 (0.02 to 0.66)"  # not 0.0
    assert growth.with_interval(-0.7, (-np.inf, 0.12)) == "-0.7 (below 0.1)"
    assert growth.with_interval(3.0, (0.0, np.inf)) == "3 (0 to ∞)"
    assert growth.with_interval(2.0, (-np.inf, np.inf)) == "any"
    assert growth.with_interval(np.nan, (np.nan, np.nan)) == "–"
    assert growth.with_interval(0.5, (np.nan, np.nan)) == "0.5"
    assert tables.plus_minus(0.9104, 0.0141) == "0.910 ± 0.014"
    assert [tables.plus_minus(x, np.nan) for x in (np.nan, np.inf, 2.5)] == ["–", "∞", "2.5"]


@pytest.fixture
def folder(tmp_path):
    """An output folder with results as the script saves them: NaN for trials that are not there."""
    rng = np.random.default_rng(9)
    shapes = {"sparsity": (3,), "condition_number": (3,), "condition_number_exact": (), "depth": (),
              "off_diagonal_ratio": (), "readout_measurements_sparse": (3, 5), "post_selection_measurements": (5,),
              "readout_measurements_diagonal": (5,)}  # fmt: skip
    laws = {
        "post_selection_measurements": lambda n: 100 + n,
        "readout_measurements_diagonal": lambda n: 3 * n**0.5,
        "sparsity": np.log,
        "condition_number_exact": lambda n: n**1.1,
        "condition_number": lambda n: 1 + 1 / n**2,
    }
    arrays = {"data_sizes": SIZES.astype(int), "trials": np.array(COUNTS)}
    for name, shape in shapes.items():
        arrays[name] = np.full((6, 16, *shape), np.nan)
        for s, (n, count) in enumerate(zip(SIZES, COUNTS, strict=True)):
            noise = 1 + 0.02 * rng.standard_normal((count, *shape)) * (name != "condition_number")
            arrays[name][s, :count] = laws.get(name, lambda n: 30.0)(n) * noise
    np.savez(tmp_path / "convolutional-3v5_results.npz", **arrays)
    return tmp_path


def test_growth_table(folder):
    results = tables.load(folder / "convolutional-3v5_results.npz")
    lines = tables.growth_table(results, ["condition_number_exact", "sparsity"]).splitlines()
    assert len(lines) == 4 and {line.count("|") for line in lines} == {7}
    assert lines[2].startswith("| κ of K | 16 to 512 | 4") and "| 1.1" in lines[2]
    assert lines[2].endswith("| **faster than log n**: λ above 0 |")
    assert lines[3].endswith("| **no faster than log n**: λ below 0.25 |")


def test_results_document(folder, monkeypatch, capsys):
    document.main(["--output", str(folder)])
    assert "RESULTS.md" in capsys.readouterr().out
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "## Convolutional, digits 3 and 5\n" in text
    assert "| n | trials | κ of K | κ of K̃, less 1 | sparsity |\n" in text
    assert "- sparsity of K̃: **no faster than log n**, λ below 0.25; from n = 16 to 512 by a factor of 2.2" in text
    assert "- κ of K̃: **no growth beyond 25 %**; from n = 16 to 512 it changes by a factor of 0.996" in text
    assert "nan" not in text
    for convention in ("*Sound*", "*Training*", "*k_thresh*"):  # what tables name is explained
        assert text.count(f"- {convention}: ") == 1
    assert "- post-selection, original: **faster than log n**, from n = 16" in text  # 100 + n is no power of n
    assert "- readout, diagonal: **faster than log n**, like n^0.50" in text
    assert "## How far these intervals" in text and text.count("| n^0.25 | 10 % |") >= 2
    monkeypatch.setattr(document, "SECTIONS", [lambda _: "one\n", lambda _: "", lambda folder: folder.name])
    assert document.document(folder) == f"one\n\n{folder.name}"
    (folder / "RESULTS.md").unlink()
    (folder / "RESULTS.md").mkdir()  # can't be written
    for mistake in (["--output", str(folder / "nothing")], ["--outptu", "x"], ["--output", str(folder)]):
        with pytest.raises(SystemExit) as stopped:
            document.main(mistake)
        line = capsys.readouterr().err
        assert stopped.value.code == 2 and line.count("\n") == 1 and mistake[0] in line


def test_a_verdict_that_the_last_size_alone_makes_is_said():
    rng = np.random.default_rng(12)
    values = noisy(lambda n: np.log(n) * (1 + (n == 512)), 0.01, rng, [8] * 6)
    arrays = {"data_sizes": SIZES.astype(int), "sparsity": np.stack([np.append(v, [np.nan] * 2) for v in values])}
    text = tables.sentence(arrays, "sparsity")
    assert "**faster than log n**" in text
    assert text.endswith(" Without n = 512, which has 8 trials: no faster than log n.")
    arrays["sparsity"][5] = np.nan  # then 256 is the last one, and nothing changes without it
    assert "**no faster than log n**" in tables.sentence(arrays, "sparsity")
    assert "Without" not in tables.sentence(arrays, "sparsity")


def test_shared_training_images():
    """8192 images of 8 and 9: 4096 of 5851 and 4096 of 5949."""
    origin = {"dataset": "mnist", "digits": [8, 9]}
    arrays = {"data_sizes": np.array([16, 8192]), "origin": np.array(json.dumps(origin))}
    assert tables.shared_images(arrays) == pytest.approx([8 / 5900, 4096 / 5900], rel=1e-3)
    assert sum(tables.MNIST_TRAINING) == 60_000
    arrays["origin"] = np.array(json.dumps(origin | {"dataset": "digits"}))
    assert tables.shared_images(arrays) == tables.shared_images({}) == []


def test_trials_that_share_images_do_not_decide_alone():
    """Flat up to n = 512, a step at 8192: "faster" by all sizes, but not if the last one is one of MNIST."""
    rng, sizes = np.random.default_rng(13), np.array([16, 64, 256, 512, 8192])
    values = noisy(lambda n: 1 + 2.0 * (n == 8192), 0.01, rng, [8] * 5, sizes)
    arrays = {"data_sizes": sizes, "sparsity": np.stack(values)}
    assert tables.judged(arrays, "sparsity").verdict == "faster than log n"
    arrays["origin"] = np.array(json.dumps({"dataset": "mnist", "digits": [8, 9]}))
    found = tables.judged(arrays, "sparsity")
    assert found.verdict == "undecided" and found.n[-1] == 8192
    assert found.reason == "faster than log n only with n = 8192, where trials share over 20% of their images"
    assert tables.judged(arrays, "sparsity", 4).verdict.startswith("no growth")
    assert "**undecided**: faster than log n only with" in tables.growth_table(arrays, ["sparsity"])
    arrays["sparsity"] = np.stack(noisy(lambda n: n**0.5, 0.01, rng, [8] * 5, sizes))
    assert tables.judged(arrays, "sparsity").verdict == "faster than log n"  # without it as well


def test_spreads_beyond_the_simulated_ones_are_named():
    rng = np.random.default_rng(14)
    arrays = {"data_sizes": SIZES[:4], "sparsity": np.stack(noisy(np.log, 0.1, rng, [8] * 4, SIZES[:4]))}
    arrays["condition_number"] = np.exp(1.2 * rng.standard_normal((4, 8)))
    (wide,) = document.wider_than(arrays, 50)
    relative = [np.var(v, ddof=1) / np.mean(v) ** 2 for v in arrays["condition_number"]]
    assert wide == f"κ of K̃ ({100 * np.sqrt(np.mean(relative)):.0f} %)"
    assert len(document.wider_than(arrays, 1)) == 2 and document.wider_than({"data_sizes": SIZES}, 1) == []


def test_losses_are_paired_by_trial():
    """A loss of 0.1 in every trial, whose accuracies spread by more than that; patterns are averaged."""
    exact = np.array([[0.5, 0.7, 0.9], [0.6, 0.8, np.nan]])
    arrays = {"data_sizes": np.array([16, 32]), "trials": np.array([3, 2])}
    for ending in tables.THRESHOLDS:
        arrays |= {f"accuracy_exact{ending}": exact, f"accuracy_diagonal{ending}": exact}
        arrays[f"accuracy_sparse{ending}"] = exact[..., None] - [0, 0.1, 0.2]
    lines = tables.losses_table(arrays).splitlines()
    assert lines[2:4] == ["| sparsified | median | **+0.100 ± 0.000** | **+0.100 ± 0.000** |",
                          "| diagonal | median | 0 | 0 |"]  # fmt: skip
    assert len(lines) == 6 and lines[4].startswith("| sparsified | 0 |")
    arrays["accuracy_sparse"] = exact[..., None] - np.array([0.3, -0.1, 0.1])[:, None]
    assert "| sparsified | median | +0.1" in tables.losses_table(arrays)  # not bold
    assert tables.losses_table({"data_sizes": SIZES}) == ""


def test_titles():
    assert tables.title_of("fully-connected") == "Fully connected, digits 8 and 9"
    assert tables.title_of("digits-convolutional-3v5") == "Convolutional, digits 3 and 5 of scikit-learn, NOT MNIST"


@pytest.mark.slow
def test_committed_results_document_is_up_to_date():
    """`python scaling.py` after a change of the committed arrays, of the simulation or of what is written."""
    folder = Path(scaling.__file__).parent / "kernel_output"
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert text == document.document(folder) and not re.search(r"\bnan\b", text)
