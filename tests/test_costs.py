"""Costs of a prediction, and where they are below 2n, on made-up costs that are known."""

import made_up
import numpy as np
import pytest
from test_report import experiment, rows

from analysis import costs, findings
from analysis.tables import columns_of

pytestmark = pytest.mark.filterwarnings("error")


def test_costs_are_means_over_trials():
    made = made_up.emulation()
    made.cost.loc[{"solver": "QSVT", "encoding": "I + E", "pattern": 0}] *= 4  # means over patterns
    found = columns_of(costs.quantum_costs(made))
    assert not any(name.startswith("series in E, sparse oracle") for name in found)
    best = "QSVT, I + E, amplitude estimation"
    assert costs.cheapest(costs.quantum_costs(made)).equals(found[best])
    assert found[best].mean().item() == pytest.approx(2000)
    # a way that one trial lacks is not known at that size, and no candidate
    one = {"n": 32, "trial": 1, "pattern": 0}
    made.cost.loc[{"solver": "QSVT", "encoding": "I + E"} | one] = np.nan
    found = columns_of(costs.quantum_costs(made))
    assert found[best].isnull().all("trial").values.tolist() == [False, True, False, False]
    other = found["series in E, I + E, amplitude estimation"]
    assert costs.cheapest(costs.quantum_costs(made)).equals(other)


def test_page():
    whole = experiment(emulation=made_up.emulation())
    shown = rows(costs.cost(whole)["table"])
    assert shown["QSVT, I + E, amplitude estimation"][0] == "1000 ± 63"
    assert shown["diagonal, amplitude estimation"][0] == "400 ± 25"
    assert shown["classical, conjugate gradients anew"][3] == "5120"
    told = {name: findings.said(whole, finding) for name, finding in findings.COSTS.items()}
    assert told == {
        "queries, sparsified": "1000 ± 63", "queries, diagonal": "400 ± 25",
        "queries, diagonal, fixed constant": "3600 ± 227", "operations, weights known": "256",
        "diagonal below 2n from": "no n computed", "as gates": "",
    }  # fmt: skip
    said = findings.prediction_is_cheap(whole)
    assert said == "**fails** at n = 128: 1,000 queries against 256 operations"


def test_solver_of_degree_0_is_the_diagonal_algorithm():
    """One cost for both: what Monte Carlo leaves between them is no finding."""
    made = made_up.emulation()
    made.uses.loc[{"solver": "series in E", "encoding": "I + E"}] = 0
    made.uses.loc[{"solver": "QSVT", "encoding": "I + E"}] = np.nan  # does not apply
    diagonal = columns_of(costs.diagonal_costs(made))
    for name, values in columns_of(costs.quantum_costs(made)).items():
        solver, _, way = name.split(", ")
        assert values.equals(diagonal[way]) == (solver == "series in E")
    said = findings.prediction_is_cheap(experiment(emulation=made))
    assert "400 queries" in said and said.endswith("no entry of K̃ is needed")


def test_diagonal_below_two_n():
    """Queries as made up are above 2n everywhere; a quarter of them is below it from 64 on."""
    whole = experiment(emulation=made_up.emulation(), results=made_up.results())
    assert findings.diagonal_is_cheap(whole) == "no n computed"
    whole.kinds["emulation"] = made_up.emulation() / 4
    assert findings.diagonal_is_cheap(whole) == "n = 64"


def test_circuit():
    whole = experiment(circuit=made_up.circuit())
    said = findings.circuit_agrees(whole)
    assert said == "1,234 gates on 11 qubits at n = 16, within 1e+00 of the emulation"
