"""Costs of a prediction, and where they cross, on made-up costs that are known."""

import made_up
import numpy as np
import pytest
import xarray as xr
from test_report import experiment, rows

from analysis import costs, findings
from analysis.tables import columns_of

pytestmark = pytest.mark.filterwarnings("error")


def test_costs_are_means_over_trials():
    made = made_up.emulation()
    made.cost.loc[{"solver": "QSVT", "encoding": "I + E", "pattern": 0}] *= 4  # means over patterns
    found = columns_of(costs.known_costs(made).cost)
    assert not any(name.startswith("series in E, sparse oracle") for name in found)
    best = "QSVT, I + E, amplitude estimation"
    assert costs.cheapest(costs.known_costs(made).cost).equals(found[best])
    assert found[best].mean().item() == pytest.approx(2000)
    fixed = columns_of(costs.known_costs(made, effort="fixed").cost)
    assert fixed[best].mean().item() == pytest.approx(6000)
    # a way that one trial lacks is not known at that size, and no candidate
    one = {"n": 32, "trial": 1, "pattern": 0}
    made.cost.loc[{"solver": "QSVT", "encoding": "I + E"} | one] = np.nan
    found = columns_of(costs.known_costs(made).cost)
    assert found[best].isnull().all("trial").values.tolist() == [False, True, False, False]
    other = found["series in E, I + E, amplitude estimation"]
    assert costs.cheapest(costs.known_costs(made).cost).equals(other)


def test_no_way_is_told_as_the_best_where_none_is_known_at_every_size():
    made = made_up.emulation()
    made["cost"] = made.cost.where(made.n != 32)
    with pytest.raises(ValueError):
        costs.six_ways(made)


def test_geometric_means_by_hand():
    """Trials 1 and 4, and 2 alone: a spread of ln 2 sqrt 2 with one degree of freedom."""
    values = xr.DataArray([[1.0, 4], [2, np.nan]], {"n": [16, 32]}, ["n", "trial"])
    n, mean, low, high = costs.geometric(values)
    factor = high / mean
    np.testing.assert_allclose(mean / low, factor)
    assert n.tolist() == [16, 32] and mean == pytest.approx([2, 2])
    half = 12.706 * np.log(2) * np.sqrt(2) / np.sqrt([2, 1])
    assert factor == pytest.approx(np.exp(half), rel=1e-3)
    text = "2 ×÷ 6.7e+03"
    assert costs.cells(values)[0].startswith(text[:4])


def test_page():
    whole = experiment(emulation=made_up.emulation())
    page = costs.cost(whole)
    shown = rows(page["table"])
    assert len(shown) == 6
    mean = 1000 * np.sqrt(0.95 * 1.05)  # geometric
    assert shown["quantum, sparsified"][0].startswith(f"{mean:,.0f} ×÷ 1.0")
    assert shown["classical, conjugate gradients anew"][3] == "3,072"
    efforts = rows(page["efforts"])
    assert efforts["queries, diagonal"][0] == "1,198 → 399"
    assert efforts["shots = amplitude estimation's uses = sampler's reads"][0] == "150 → 50"
    told = {name: findings.said(whole, finding) for name, finding in findings.COSTS.items()}
    assert told.pop("queries, diagonal").startswith("399 ×÷")
    assert told.pop("queries, sparsified").startswith("999 ×÷")
    assert told.pop("queries, diagonal, fixed constant").startswith("3,595 ×÷")
    assert told == {
        "operations, all entries": "256", "operations, sampler": "300", "as gates": "",
    }  # fmt: skip
    said = findings.prediction_is_cheap(whole)
    assert said == ("**fails** at n = 128: 999 queries against 256 operations, 300 of a sampler")


def test_solver_of_degree_0_is_the_diagonal_algorithm():
    """One cost for both: what Monte Carlo leaves between them is no finding."""
    made = made_up.emulation()
    made.uses.loc[{"solver": "series in E", "encoding": "I + E"}] = 0
    made.uses.loc[{"solver": "QSVT", "encoding": "I + E"}] = np.nan  # does not apply
    diagonal = columns_of(costs.known_costs(made).cost_without_solver)
    for name, values in columns_of(costs.known_costs(made).cost).items():
        solver, _, way = name.split(", ")
        assert values.equals(diagonal[way]) == (solver == "series in E")
    said = findings.prediction_is_cheap(experiment(emulation=made))
    assert "399 queries" in said and said.endswith("no entry of K̃ is needed")


def test_a_way_that_is_endless_at_one_size_is_still_the_cheapest():
    """Where all ways are, as with a fixed effort for an image at t; it is told as ∞."""
    ways = costs.known_costs(made_up.emulation()).cost
    best = costs.cheapest(ways)
    ways[{"n": 1, "trial": 0}] = np.inf
    endless = costs.cheapest(ways)
    assert endless.dims == ("n", "trial") and endless[2].equals(best[2])
    assert costs.cells(endless)[1] == "∞"


def test_crossings_are_read_off_measured_sizes():
    """Queries as made up are above 2n everywhere; a quarter of them is below it from 64 on."""
    ways = costs.six_ways(made_up.emulation())
    queries, entries = ways["quantum, diagonal"], ways["classical, all entries"]
    assert costs.crossing(queries, entries) == "at no n up to 128"
    assert costs.crossing(queries / 4, entries) == "between n = 32 and 64"
    assert costs.crossing(queries / 100, entries) == "at every n"


def test_circuit():
    whole = experiment(circuit=made_up.circuit())
    said = findings.circuit_agrees(whole)
    assert said == "1,234 gates on 11 qubits at n = 16, within 1e+00 of the emulation"
