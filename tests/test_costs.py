"""Costs of a prediction as tables, and where quantum and classical ones cross."""

import numpy as np
import pytest

import emulation
import training
from analysis import costs
from quantum import readout

MEDIAN = emulation.MEDIAN


def trial_of(size, number):
    """The record of a made-up trial whose K~ is nearly diagonal."""
    rng = np.random.default_rng([size, number])
    y, label = np.repeat([1.0, -1.0], size // 2), np.repeat([1.0, -1.0], 10)
    matrix = rng.uniform(0, 0.05, (size, size)) * (rng.random((size, size)) < 2 / size)
    test = rng.normal(0.3 * np.outer(label, y), 0.4)
    kernels = {"train_label": y, "test_label": label, "kernel_test": test, "kernel_train": np.full((size, size), 1.5),
               "kernel_test_normalized": np.clip(test, -1, 1)}  # fmt: skip
    matrices = [np.eye(size) + (matrix + matrix.T) / 2, 2 * np.eye(size)]
    return emulation.emulate_trial(kernels, matrices, lambda p: training.random_generator(0, "test", size, number, p))


@pytest.fixture(scope="module")
def made_up():
    records = {size: [trial_of(size, number) for number in range(2)] for size in (8, 12, 16, 24)}
    return costs.Emulation(list(records), records, emulation.AXES)


class Line:
    """A curve a n^b, and a band of a factor about it."""

    def __init__(self, a, b, factor=1.0):
        self.a, self.b, self.factor = a, b, factor

    def best(self, n):
        return self.a * np.asarray(n, float) ** self.b

    def band(self, n):
        return self.best(n) / self.factor, self.best(n) * self.factor


def fit(sizes, values):
    """A line through the means, in logarithms."""
    b, a = np.polyfit(np.log(sizes), np.log([each.mean() for each in values]), 1)
    return Line(np.exp(a), b, 1.2)


def test_crossing_by_hand():
    entries = costs.Exactly(lambda n: 2 * n)
    found = costs.crossing(Line(1000, 0), entries, 1, 16)
    assert found.n == found.earliest == found.latest == pytest.approx(500, rel=0.03)
    assert costs.crossing(Line(1000, 0), entries, 1e3, 16).n == pytest.approx(5e5, rel=0.03)
    found = costs.crossing(Line(1000, 0.5, factor=2), entries, 1, 16)
    expected = np.array([2.5e5, 0.25 * 2.5e5, 4 * 2.5e5])
    np.testing.assert_allclose([found.n, found.earliest, found.latest], expected, rtol=0.03)
    assert str(found).startswith("2.5e+05 (") and costs.rough(61234) == "61,200"
    # faster growth never falls below, nor one that is below for a while only
    assert str(costs.crossing(Line(1000, 1.1), entries, 1, 16)) == "none up to 1e+15"
    found = costs.crossing(Line(0.01, 1.3), entries, 1, 16)
    assert np.isinf(found.n) and found.earliest == 16
    # a band that allows both
    assert costs.crossing(Line(1000, 1.0, factor=1e6), entries, 1, 16).latest == np.inf
    # a fit that falls to 0 at n = 100 is no crossing
    falling = Line(1, 1)
    falling.best = lambda n: 1000 - 10 * np.asarray(n, float)
    assert str(costs.crossing(falling, entries, 1, 16)).startswith("not before ")
    # no errors known: nothing is excluded and nothing shown
    line = Line(1000, 0)
    line.band = lambda n: (np.full(len(n), np.nan),) * 2
    found = costs.crossing(line, entries, 1, 16)
    assert (found.earliest, found.latest) == (16, np.inf) and str(found) == "the data do not say"
    # bounds that fall to 0 do not make a run of three queries free
    line.best, line.band = (lambda n: 1e6 + 0 * n), lambda n: (0 * n, np.full(len(n), np.inf))
    found = costs.crossing(line, entries, 1e3, 16)
    assert found.earliest == pytest.approx(1500, rel=0.03) and str(found) == "the data do not say"
    # bounds that exclude the first n, where it is measured, and nothing beyond
    for last in (16, 25):
        line.band = lambda n, last=last: (np.where(np.asarray(n) > last, 0, 1e6), np.full(len(n), np.inf))
        assert str(costs.crossing(line, entries, 1, 16)) == "the data do not say"


def test_costs_are_combined():
    n = np.array([10.0, 1000])
    both = costs.Combined(Line(1, 1, 2), Line(100, 0), np.minimum)
    np.testing.assert_allclose(both.best(n), [10, 100])
    np.testing.assert_allclose(both.band(n), [[5, 100], [20, 100]])
    assert costs.Combined(both, both, np.add).best(n).tolist() == [20, 200]


def test_a_cost_that_is_constant_to_noise_is_taken_for_constant():
    """Its best curve may fall or rise by chance, and would cross anything far away."""
    import scaling

    n, rng = np.array([16, 32, 64, 128]), np.random.default_rng(1)
    found = scaling.fit_growth(n, [rng.normal(100, 10, 4) for _ in n])
    assert not found.clear and np.ptp(found.best([1e2, 1e9])) == 0 and found.best([1])[0] == pytest.approx(100, rel=0.1)
    found = scaling.fit_growth(n, [rng.normal(m, m / 10, 4) for m in n])
    assert found.clear and found.best([1e4])[0] == found.curve([1e4])[0] > 1000


def test_larger_sizes_by_hand(made_up):
    last = made_up.sizes[-1]
    inverse = np.full((3, 2, 5), np.nan)
    inverse[0], inverse[1], inverse[2, 0] = 1.0, 4.0, 1.0
    results = {"data_sizes": np.array([last, 100, 200]), "post_selection_measurements_training": inverse,
               "computed": np.array([[True, True], [True, True], [True, False]])}  # fmt: skip
    table = costs.larger_table(made_up, results)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]
    points = [record["points_needed_diagonal"][MEDIAN] for record in made_up.records[last]]
    uses = np.mean([readout.uses_of_schedule(p) for p in points])
    # two queries to k*, one to y; twice as many uses where P = 1/4
    expected = [(last, 2, 3), (100, 2, 6), (200, 1, 3)]
    assert rows[2:] == [[str(n), str(trials), str(q), f"{q * uses:.0f}", str(2 * n)] for n, trials, q in expected]


def test_sampler_saturates_at_the_shots():
    n = np.array([2.0, 100, 1e9])
    sampler = costs.Sampler(Line(1000, 0, 2), costs.Exactly(lambda n: 2 + 0 * n))
    np.testing.assert_allclose(sampler.best(n), [2 * 2 / 1.001, 2 * 100 / 1.099, 2000], rtol=1e-5)
    low, high = sampler.band(n)
    np.testing.assert_allclose([low[2], high[2]], [1000, 4000], rtol=1e-5)
    assert np.all(high <= 2 * n + 1e-9)
    # no shots beat it: three queries or more each
    assert np.isinf(costs.crossing(Line(3000, 0), sampler, 1, 16).n)


def test_sampler_is_what_is_sampled():
    """The formula for m against the sampler itself, on overlaps of many entries."""
    from quantum import classical, readout

    rng = np.random.default_rng(0)
    n, label = 400, np.repeat([1.0, -1.0], 100)
    y = np.repeat([1.0, -1.0], n // 2)
    k = rng.normal(0.1 * np.outer(label, y), 1)
    overlap = training.overlaps(k, y)
    t = float(np.median(overlap))
    shots = readout.shots_needed(overlap, label, t, 0.9)
    found = classical.samples_needed(k, y, label, np.array([t]), 0.9, rng)[0]
    assert found == pytest.approx(costs.Sampler.reads(shots, n), rel=0.25)


def test_costs_are_means_over_trials(made_up):
    found = costs.quantum_costs(made_up)
    assert not any(key[:2] == ("series in E", "sparse oracle") for key in found)
    s, e, r = (
        made_up.axes[a].index(x) for a, x in (("solvers", "QSVT"), ("encodings", "I + E"), ("readouts", "shots"))
    )
    record = made_up.records[12][1]["cost"]  # [patterns, threshold, solver, encoding, readout, convention, kind, stat]
    expected = record[:, MEDIAN, s, e, r, 0, emulation.KINDS.index("all"), 0].mean()
    assert found["QSVT", "I + E", "shots"][1][1] == pytest.approx(expected)
    best, values = costs.cheapest(found)
    total = {key: np.sum(np.log([size.mean() for size in each])) for key, each in found.items()}
    assert total[best] == min(v for v in total.values() if np.isfinite(v)) and len(values) == 4
    assert costs.cheapest({"a": [np.array([np.nan])]}) == (None, [])
    curves = costs.summary(made_up)
    assert len(curves) == 3 and curves["classical, operations"][0] in emulation.CLASSICAL


def test_tables(made_up):
    table = costs.cost_table(made_up)
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1  # no cell has a bar of its own
    for column in range(4, 8):
        cells = [row.split("|")[column].strip() for row in rows[2:] if "classical" not in row and "none" not in row]
        bold = [float(cell.strip("*").split()[0]) for cell in cells if "**" in cell]
        least = min(float(cell.strip("*").split()[0]) for cell in cells if cell != "–")
        assert bold == pytest.approx([least] * len(bold), rel=1e-3) and bold
    assert all("±" in row.split("|")[4] for row in rows[2:] if "operations" not in row)
    diagonal = next(row for row in rows if row.startswith("| none, diagonal"))
    low, middle, high = (float(x) for x in diagonal.split("|")[8:11])  # quantiles over the test images
    assert low < middle < high
    assert "classical" in table and "diagonal" in table and "nan" not in table
    for each in (costs.assumption_table(made_up), costs.local_table(made_up)):
        assert len({line.count("|") for line in each.splitlines()}) == 1
        assert "nan" not in each and each.count("\n") > 6
    oracle = costs.cost_table(made_up, kind="oracle", convention="k_thresh", threshold="zero")
    assert "| series in E | I + E | shots |" in oracle
    whole = costs.report(made_up, fit)
    two = costs.Emulation(made_up.sizes[:2], made_up.records, made_up.axes)
    assert "Not judged: fewer than 4 sizes" in costs.report(two, fit) and "Not judged" not in whole
    assert "sampler, local solver" in whole and ("or never" in whole or "none" in whole)


def test_crossings_of_an_emulation(made_up):
    found = costs.crossings(made_up, fit)
    assert {worth for _, _, worth in found} == set(costs.WORTHS)
    assert {"all entries", "sampler", "sampler, local solver"} <= {c for _, c, _ in found}
    # the diagonal algorithm has nothing to solve; shots are never cheaper than samples, and estimation may be
    assert {c for q, c, _ in found if q.startswith("diagonal")} == {"all entries", "sampler"}
    proved = {(q, c) for (q, c, _), each in found.items() if each.by_variance}
    ways = [f"{w}, {r}" for w in ("sparsified", "diagonal") for r in ("shots", "amplified shots")]
    assert proved == {(way, "sampler") for way in ways}
    assert "| never (sampled by w²) |" in costs.crossing_table(found) and "| – |" in costs.crossing_table(found)
    dear = made_up.sizes[-1]  # up to which a million operations a query are dearer in every trial
    for (q, c, worth), each in found.items():
        assert worth < 1e6 or each.earliest >= dear
        assert each.earliest <= each.n * (1 + 1e-9) and each.n <= each.latest
        if worth == 1e6:  # dearer queries are never a help
            assert found[q, c, 1].n <= each.n


def test_file(made_up, tmp_path):
    from runtime.results import Results, merge_results

    results = Results({"emulation": emulation.VERSION, "axes": emulation.AXES})
    for size, records in made_up.records.items():
        results.records |= {(size, None, number): record for number, record in enumerate(records)}
    merge_results(tmp_path / "fully-connected_emulation.npz", results)
    read = costs.read_emulation(tmp_path / "fully-connected_emulation.npz")
    assert costs.cost_table(read) == costs.cost_table(made_up)


def test_solver_of_degree_0_is_the_diagonal_algorithm(made_up):
    """One row and one cost for both: what Monte Carlo leaves between them is no finding."""
    assert not costs.without_queries(made_up)
    records = {}
    for size, each in made_up.records.items():
        uses = [record["uses"].copy() for record in each]
        for array in uses:
            array[:, :, -1, 1] = 0
        records[size] = [record | {"uses": array} for record, array in zip(each, uses, strict=True)]
    same = costs.Emulation(made_up.sizes, records, made_up.axes)
    assert costs.without_queries(same) == {("series in E", "I + E")}
    diagonal = costs.diagonal_costs(same)
    for (solver, _, way), values in costs.quantum_costs(same).items():
        if solver == "series in E":
            np.testing.assert_array_equal(values, diagonal[way])
    table = costs.cost_table(same)
    assert "| none, diagonal, and series in E, I + E | – | shots |" in table and "| series in E |" not in table
    assert {q for q, _, _ in costs.crossings(same, fit)} == {f"sparsified = diagonal, {r}" for r in emulation.READOUTS}


def test_conventions_and_accuracies(made_up):
    rows = costs.convention_table(made_up).splitlines()[2:]
    assert len(rows) == 3 * 3 * 2 and {row.split("|")[1].strip() for row in rows} == set(emulation.CONVENTIONS)
    table = costs.accuracy_table(made_up)
    record = made_up.records[8]
    expected = np.mean([each["accuracy_unnormalised"][:, MEDIAN].mean() for each in record])
    row = next(row for row in table.splitlines() if row.startswith("| sparsified, k*'w | the median"))
    assert float(row.split("|")[3].split()[0]) == pytest.approx(expected, abs=0.006)
    assert table.count("\n") == 2 + 2 * len(costs.ACCURACIES)
