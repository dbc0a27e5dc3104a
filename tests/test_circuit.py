"""The circuit of one prediction against the emulation: probabilities, overlap, the prepared state, and every query."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator, Statevector

import circuit
import emulation
import training
from quantum import phases, readout, sequential, solvers


def random_kernel(n, rng):
    """A symmetric matrix [n, n] of kappa about 5, some entries of it negative, and sparse."""
    matrix = rng.uniform(-1, 1, (n, n)) * (rng.random((n, n)) < 2 / n)
    matrix = matrix + matrix.T
    np.fill_diagonal(matrix, np.abs(matrix).sum(axis=0) + rng.uniform(1, 2, n))
    return matrix


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    y = np.array([1.0, 1, -1, 1, -1, -1, 1, -1])
    return random_kernel(8, rng), y, rng.uniform(-1, 1, 8)


# ----------------------------------------------------------------------------------------------------------------------
# Phases
# ----------------------------------------------------------------------------------------------------------------------


def test_phases_give_the_polynomial():
    n, kappa = 12, 4.0
    bound = solvers.inverse_bound(n, kappa)

    def polynomial(x):
        return solvers.inverse_polynomial(n, kappa, x) / bound

    found = phases.find_phases(polynomial, 2 * n - 1)
    x = np.linspace(0.01, 1, 300)
    np.testing.assert_allclose(phases.signal_polynomial(found, x), polynomial(x), atol=1e-12)
    np.testing.assert_allclose(found, found[::-1])
    reflected = phases.reflection_phases(found)
    for at in (0.1, 0.77, 1.0):
        r = np.sqrt(1 - at**2)
        product = np.diag(np.exp(1j * reflected[0] * np.array([1, -1])))
        for phase in reflected[1:]:
            product = product @ np.array([[at, r], [r, -at]]) @ np.diag(np.exp(1j * phase * np.array([1, -1])))
        assert product[0, 0].real == pytest.approx(polynomial(at), abs=1e-12)


def test_polynomials_above_one_have_no_phases():
    with pytest.raises(ArithmeticError, match="no phases for degree 3"):
        phases.find_phases(lambda x: 3 * x, 3)


def test_phases_agree_with_pyqsp():
    """A second opinion on the polynomial's phases, where pyqsp is installed; nothing rests on it."""
    angles = pytest.importorskip("pyqsp.angle_sequence")
    series = np.zeros(8)
    series[1::2] = [0.3, -0.2, 0.1, 0.05]
    theirs = np.ravel(angles.QuantumSignalProcessingPhases(series, method="sym_qsp", chebyshev_basis=True)[0])
    ours = phases.find_phases(lambda x: np.polynomial.chebyshev.chebval(x, series), 7)
    x = np.linspace(0.05, 0.95, 20)
    polynomial = np.polynomial.chebyshev.chebval(x, series)
    np.testing.assert_allclose(phases.signal_polynomial(ours, x), polynomial, atol=1e-12)
    left = phases.signal_products(theirs, x)[0][-1, :, 0, 0]
    assert min(np.abs(part - polynomial).max() for part in (left.real, left.imag)) < 1e-6


# ----------------------------------------------------------------------------------------------------------------------
# Oracles
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("controlled", [False, True])
def test_block_encoding_holds_the_matrix(inverse, controlled):
    """Where test = 0, and where test = 1 too, or nothing; by four queries."""
    matrix = np.array([[2.0, 0, 0.5, 0], [0, 1.5, 0, 0], [0.5, 0, 2, -0.7], [0, 0, -0.7, 1]])  # s = 3
    gates = {"positions": circuit.positions_gate(matrix), "entries": circuit.entries_gate(matrix, controlled=False)}
    gates["entries, controlled"] = circuit.entries_gate(matrix, controlled=True)
    built = QuantumCircuit(7)
    circuit.encode(built, gates, 2, inverse, controlled)
    unitary = Operator(built).data.reshape(2, 64, 2, 64)  # test is the highest qubit
    np.testing.assert_allclose(unitary[0, :4, 0, :4], matrix / 6, atol=1e-14)
    other = np.eye(64) if controlled else unitary[0, :, 0]
    np.testing.assert_allclose(unitary[1, :, 1], other, atol=1e-13)
    assert circuit.oracle_calls(built) == {"oracle": solvers.QUERIES_PER_USE, "labels": 0, "QRAM": 0}


def test_loaded_state(inputs):
    _, y, k = inputs
    built = QuantumCircuit(5)
    built.h(range(3))
    built.x(4)
    built.append(circuit.labels_gate(y), [0, 1, 2, 4])  # test = 1: nothing
    built.append(circuit.load_gate(k), [0, 1, 2, 3, 4])
    kept = Statevector(built).data.reshape(2, 2, 8)[1, 0]
    np.testing.assert_allclose(kept, k / np.sqrt(8), atol=1e-14)


# ----------------------------------------------------------------------------------------------------------------------
# The prediction
# ----------------------------------------------------------------------------------------------------------------------


def check_prediction(matrix, y, k, epsilon):
    """Probabilities, overlap and queries by gates are those by formulas. Returns the record."""
    found = circuit.predict(matrix, y, k, epsilon)
    for name in ("kept", "p", "P", "overlap"):
        assert abs(found[f"{name}_circuit"] - found[f"{name}_emulated"]) < 1e-10, name
    for kind in circuit.KINDS:
        assert found[f"queries_{kind}_circuit"] == found[f"queries_{kind}_emulated"]
    assert found["gates"] == sum(found[f"gates_{name}"] for name in circuit.BASIS) >= found["depth"] > 0
    return found


def check_sequential_shots(overlap, draws=2000):
    """Shots drawn with the state's probability of 0, until Wald's test stops: as many as its formula says."""
    test = sequential.wald_test(t=0.03, distance=0.1, error=0.02)
    expected = sequential.exact_walk(np.array([overlap]), test)[1][0]
    zeros = np.random.default_rng(2).random((draws, test.most)) < (1 + overlap) / 2
    beyond = np.cumsum(zeros, axis=1) - test.slope * np.arange(1, test.most + 1)
    stopped = np.abs(beyond) >= test.height
    stopped[:, -1] = True
    shots = 1 + np.argmax(stopped, axis=1)
    assert abs(shots.mean() - expected) < 4 * shots.std() / np.sqrt(draws)
    assert 1.1 * expected > shots.mean() > 0.9 * expected  # which is no weak bound


def test_diagonal_prediction(inputs):
    _, y, k = inputs
    found = check_prediction(None, y, k, 0.1)
    assert (found["queries_oracle_circuit"], found["p_circuit"]) == (0, pytest.approx(1))
    assert found["overlap_circuit"] == pytest.approx(k @ y / np.linalg.norm(k) / np.sqrt(8))
    check_sequential_shots(found["overlap_circuit"])


@pytest.mark.slow
def test_sparsified_prediction(inputs):
    matrix, y, k = inputs
    found = check_prediction(matrix, y, k, 0.05)
    assert found["queries_oracle_circuit"] == 4 * found["degree_emulated"] > 0
    assert found["qubits_circuit"] == 9
    exact = training.overlaps(k[None], np.linalg.solve(matrix, y))[0]
    assert abs(found["overlap_circuit"] - exact) <= 0.05
    assert abs(exact - training.overlaps(k[None], y)[0]) > 0.05  # which the diagonal algorithm would miss


@pytest.mark.slow
def test_kept_state_is_the_prepared_one(inputs):
    """In the branch of the test qubit that solves, amplitude by amplitude."""
    matrix, y, k = inputs
    prepared = solvers.prepare("QSVT", solvers.block_encodings(matrix, y)["sparse oracle"], 0.05)
    p, post = prepared.success_probability, float(training.post_selection_probability(k[None])[0])
    built = circuit.prediction_circuit(matrix, y, k, 0.05, (p, post))
    built.h(8)  # the last gate undone
    kept = Statevector(built).data.reshape(2, 2, 2, 8, 8)[:, 0, 0, 0]
    weight = np.sqrt(p * post / (p + post))
    np.testing.assert_allclose(kept[0], weight * prepared.state, atol=1e-11)
    np.testing.assert_allclose(kept[1], weight * k / np.linalg.norm(k), atol=1e-11)
    assert np.sum(np.abs(kept) ** 2) == pytest.approx(1 / readout.runs_per_shot(p, post))


@pytest.mark.slow
def test_prediction_of_16_images_and_the_script(tmp_path, capsys):
    """At the script's size, with a larger epsilon; and what the script says without kernels."""
    rng = np.random.default_rng(0)
    kernel = random_kernel(16, rng) + 9 * np.eye(16)
    y, k = np.repeat([1.0, -1.0], 8), rng.uniform(-1, 1, 16)
    found = check_prediction(kernel, y, k, 0.3)
    assert found["qubits_circuit"] == 11 and found["gates"] > 10**4
    check_sequential_shots(found["overlap_circuit"])
    with pytest.raises(SystemExit):
        circuit.main(["--networks", "quantum"])
    assert "--networks" in capsys.readouterr().err
    assert circuit.main(["--input", str(tmp_path), "--output", str(tmp_path)]) == 2
    assert "run training.py first" in capsys.readouterr().err
    assert circuit.CALLS["load"] == emulation.QRAM_QUERIES_PER_STATE
