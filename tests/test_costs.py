"""Costs of a prediction as tables, and where they cross 2n, on made-up costs that are known."""

import made_up
import numpy as np
import pytest
import xarray as xr
from test_report import experiment, rows

from analysis import costs, growth
from quantum import readout

pytestmark = pytest.mark.filterwarnings("error")
SIZES = np.array([16, 32, 64, 128])


def of(law, spread=0.01):
    """Costs [n, trial] by a law, with four trials about it."""
    values = np.array([law(n) * (1 + spread * np.array([-1, 1, 1, -1])) for n in SIZES], float)
    coords = {"n": SIZES, "trial": range(4)}
    return xr.DataArray(values, dims=["n", "trial"], coords=coords, name="cost")


def test_crossing_by_hand():
    found = costs.crossing(of(lambda n: 1000, 1e-5), 1)
    assert found.n == pytest.approx(500, rel=0.05) and found.earliest < 500 and found.told
    assert np.isinf(found.measured) and str(found).endswith("or more, no upper bound)")
    found = costs.crossing(of(lambda n: 250 * n**0.5, 1e-4), 1)
    assert found.n == pytest.approx(125**2, rel=0.05) and found.latest < 1e5
    assert str(found).startswith(f"{costs.rough(found.n)} (") and " to " in str(found)
    assert costs.crossing(of(lambda n: 1000), 1e3).n == pytest.approx(5e5, rel=0.05)
    assert costs.crossing(of(lambda n: 100), 1).measured == 64
    # faster growth never falls below
    found = costs.crossing(of(lambda n: 1000 * (n / 16) ** 1.5), 1)
    assert np.isinf(found.n) and str(found) == "none up to 1e+15"
    # a band that allows both
    assert costs.crossing(of(lambda n: 100 * n, 0.5), 1).latest == np.inf
    # no errors known, nothing excluded
    found = costs.crossing(of(lambda n: 1000, 0)[:, :1], 1)
    assert not found.told and str(found) == "the data do not say"
    assert costs.rough(61234) == "61,200"


def test_bounds_that_exclude_nothing_new_tell_nothing(monkeypatch):
    """Three queries of one run cost more than 2n up to 1500: bounds that fall to 0 say no more than
    that.
    """
    values = of(lambda n: 1e6)
    monkeypatch.setattr(growth.Growth, "band", lambda self, n: (0 * n, np.full(len(n), np.inf)))
    found = costs.crossing(values, 1e3)
    assert found.earliest == pytest.approx(1500, rel=0.03) and str(found) == "the data do not say"


def test_a_cost_that_is_constant_to_noise_is_taken_for_constant():
    """Its best curve may fall or rise by chance, and would cross anything far away."""
    n, rng = np.array([16, 32, 64, 128]), np.random.default_rng(1)
    found = growth.fit_growth(n, [rng.normal(100, 10, 4) for _ in n])
    assert not found.clear and np.ptp(found.best([1e2, 1e9])) == 0
    assert found.best([1])[0] == pytest.approx(100, rel=0.1)
    found = growth.fit_growth(n, [rng.normal(m, m / 10, 4) for m in n])
    assert found.clear and found.best([1e4])[0] == found.curve([1e4])[0] > 1000


def test_costs_are_means_over_trials():
    made = made_up.emulation()
    made.cost.loc[{"solver": "QSVT", "encoding": "I + E", "pattern": 0}] *= 4  # means over patterns
    found = costs.quantum_costs(made)
    assert not any(way[:2] == ("series in E", "sparse oracle") for way in found)
    best = ("QSVT", "I + E", "amplitude estimation")
    assert costs.cheapest(found) == best and found[best].mean().item() == pytest.approx(2000)
    # a way that one trial lacks is not known at that size, and no candidate
    made.cost.loc[{"solver": "QSVT", "encoding": "I + E", "n": 32, "trial": 1}] = np.nan
    found = costs.quantum_costs(made)
    assert found[best].isnull().all("trial").values.tolist() == [False, True, False, False]
    assert costs.cheapest(found) == ("series in E", "I + E", "amplitude estimation")
    assert costs.cheapest({"a": found[best] * np.nan}) is None


def test_page():
    made = made_up.emulation()
    told = costs.cost(experiment(emulation=made))
    shown = rows(told["costs"])
    assert shown["QSVT, I + E, amplitude estimation"][0] == "**1000 ± 63**"
    assert shown["diagonal, amplitude estimation"][0] == "400 ± 25"
    assert shown["classical, conjugate gradients anew, operations"][3] == "5120"
    assert sum("**" in cell for row in shown.values() for cell in row) == 4
    assert rows(told["divisors"])["diagonal, fixed constant"][0] == "3600 ± 227"
    assert told["summary"]["queries, diagonal"] == "400 ± 25"
    assert told["summary"]["diagonal below 2n from"] == "the data do not say"
    assert told["fewest"] == pytest.approx(1000)
    assumed = rows(told["assumptions"])
    bits = [cells[0] for name, cells in assumed.items() if name.startswith("k* has exact")]
    (doubled,) = [cells for name, cells in assumed.items() if name.endswith("encoding (I + E)")]
    assert bits == ["5", "6", "7"] and doubled == ["3"] * 4
    lines = [line for line in told["crossings"].splitlines() if "| diagonal | 1000 |" in line]
    assert len(lines) == 1 and "| none |" in lines[0]


def test_solver_of_degree_0_is_the_diagonal_algorithm():
    """One cost for both: what Monte Carlo leaves between them is no finding."""
    made = made_up.emulation()
    assert not costs.without_queries(made)
    made.uses.loc[{"solver": "series in E", "encoding": "I + E"}] = 0
    assert costs.without_queries(made) == {("series in E", "I + E")}
    diagonal = costs.diagonal_costs(made)
    for (solver, _, way), values in costs.quantum_costs(made).items():
        if solver == "series in E":
            np.testing.assert_array_equal(values, diagonal[way])
    told = costs.cost(experiment(emulation=made))
    assert told["no_system"] and told["summary"]["queries, sparsified"] == "400 ± 25"


def test_larger_sizes_by_hand():
    """P = 1 takes two queries to k* and one to y in each use, P = 1/4 three times as many uses."""
    results = made_up.results().reindex(n=[128, 256, 512])
    results.post_selection_measurements[:] = np.nan
    results.post_selection_measurements.loc[{"n": 256}] = 4.0
    results.post_selection_measurements.loc[{"n": 512, "trial": 0}] = 1.0
    whole = experiment(emulation=made_up.emulation(), results=results)
    uses = readout.uses_of_schedule(3)
    assert costs.larger_rows(whole, "amplitude estimation") == [
        [256, 4, round(6 * uses), 512], [512, 1, round(3 * uses), 1024]
    ]  # fmt: skip
    assert costs.larger_rows(whole, "shots") == []


def test_circuit():
    told = costs.circuit(experiment(circuit=made_up.circuit()))
    shown = rows(told["table"])
    assert shown["diagonal"][-2:] == ["0e+00", "yes"]
    assert shown["sparsified"][-2:] == ["2e-01", "no"] and "1,234" in shown["sparsified"]
    assert told["largest"] == pytest.approx(0.25)
