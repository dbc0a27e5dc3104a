"""The circuit of one prediction against the emulation: overlap, prepared state, every query."""

import numpy as np
import pytest
from conftest import ROOT, swap_trials
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator, Statevector

import circuit
import emulation
import training
from quantum import phases, queries, readout, sequential, solvers
from runtime import stored
from runtime.checkpoints import write_kernel
from runtime.results import origin_of, read_results


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


# --------------------------------------------------------------------------------------------------
# Phases
# --------------------------------------------------------------------------------------------------


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
            product = (
                product
                @ np.array([[at, r], [r, -at]])
                @ np.diag(np.exp(1j * phase * np.array([1, -1])))
            )
        assert product[0, 0].real == pytest.approx(polynomial(at), abs=1e-12)


def test_polynomials_above_one_have_no_phases():
    with pytest.raises(ArithmeticError, match="no phases for degree 3"):
        phases.find_phases(lambda x: 3 * x, 3)


def test_phases_agree_with_pyqsp():
    """A second opinion on the phases, where pyqsp is installed; nothing rests on it."""
    angles = pytest.importorskip("pyqsp.angle_sequence")
    series = np.zeros(8)
    series[1::2] = [0.3, -0.2, 0.1, 0.05]
    theirs = np.ravel(
        angles.QuantumSignalProcessingPhases(series, method="sym_qsp", chebyshev_basis=True)[0]
    )
    ours = phases.find_phases(lambda x: np.polynomial.chebyshev.chebval(x, series), 7)
    x = np.linspace(0.05, 0.95, 20)
    polynomial = np.polynomial.chebyshev.chebval(x, series)
    np.testing.assert_allclose(phases.signal_polynomial(ours, x), polynomial, atol=1e-12)
    left = phases.signal_products(theirs, x)[0][-1, :, 0, 0]
    assert min(np.abs(part - polynomial).max() for part in (left.real, left.imag)) < 1e-6


# --------------------------------------------------------------------------------------------------
# Oracles
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("controlled", [False, True])
def test_block_encoding_holds_the_matrix(inverse, controlled):
    """Where test = 0, and where test = 1 too, or nothing; by four queries."""
    # S = 3.
    matrix = np.array([[2.0, 0, 0.5, 0], [0, 1.5, 0, 0], [0.5, 0, 2, -0.7], [0, 0, -0.7, 1]])
    built = QuantumCircuit(7)
    circuit.encode(built, circuit.encoding_gates(matrix), 2, inverse, controlled)
    unitary = Operator(built).data.reshape(2, 64, 2, 64)  # test is the highest qubit
    np.testing.assert_allclose(unitary[0, :4, 0, :4], matrix / 6, atol=1e-14)
    other = np.eye(64) if controlled else unitary[0, :, 0]
    np.testing.assert_allclose(unitary[1, :, 1], other, atol=1e-13)
    assert circuit.oracle_calls(built) == {
        "oracle": solvers.QUERIES_PER_USE,
        "labels": 0,
        "QRAM": 0,
    }


def test_loaded_state(inputs):
    _, y, k = inputs
    built = QuantumCircuit(5)
    built.h(range(3))
    built.x(4)
    built.append(circuit.labels_gate(y), [0, 1, 2, 4])  # test = 1: nothing
    built.append(circuit.load_gate(k), [0, 1, 2, 3, 4])
    kept = Statevector(built).data.reshape(2, 2, 8)[1, 0]
    np.testing.assert_allclose(kept, k / np.sqrt(8), atol=1e-14)


# --------------------------------------------------------------------------------------------------
# The prediction
# --------------------------------------------------------------------------------------------------


def check_prediction(matrix, y, k, epsilon):
    """Probabilities, overlap and queries by gates are those by formulas. Returns the record."""
    record = circuit.predict(matrix, y, k, epsilon)
    assert set(record.data_vars) == set(circuit.DESCRIPTIONS)
    gates, formulas = record.sel(source="circuit"), record.sel(source="emulated")
    for name in (
        "kept_probability",
        "success_probability",
        "post_selection_probability",
        "overlap",
    ):
        assert abs(gates[name] - formulas[name]) < 1e-10, name
    np.testing.assert_array_equal(gates.queries, formulas.queries)
    assert record.gate_count == record.gates.sum() >= record.depth > 0
    return record


def test_sequential_test_is_that_of_runs_drawn_from_the_state():
    """The convolutional network's first prediction at n = 16, from the state vector, run by run.

    The shots until Wald's test stops are in the mean those of the formula, and so are the runs.
    """
    network, folder = training.make_networks()["convolutional"], ROOT / "kernel_output"
    trials = stored.stored_trials(folder, "mnist", network, network.classes, 0)
    (_, y, k, epsilon, tests), _ = circuit.inputs_of(trials)
    weights = 1.0, float(training.post_selection_probability(k[None])[0])
    built = circuit.prediction_circuit(None, y, k, epsilon, weights)
    chance = Statevector(built).probabilities().reshape(2, -1, 16)  # [test, others, j]
    rng = np.random.default_rng(3)
    runs = rng.choice(chance.size, p=chance.ravel(), size=2 * 10**6)
    test_qubit, others, _ = np.unravel_index(runs, chance.shape)
    zeros = test_qubit[others == 0] == 0
    test = tests[0]._replace(most=2000, height=tests[0].height / 10)  # quicker, and less sure
    drawn, start = [], 0
    while start + test.most < len(zeros):
        beyond = np.cumsum(zeros[start : start + test.most])
        beyond = beyond - test.slope * np.arange(1, test.most + 1)
        stopped = np.append(np.abs(beyond) >= test.height, True)
        drawn.append(min(1 + np.argmax(stopped), test.most))
        start += drawn[-1]
    overlap = training.overlaps(k[None], y)
    expected = sequential.exact_walk(overlap, test)[1][0]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - expected) < 4 * error < 0.1 * expected
    kept = 1 / readout.runs_per_shot(*weights)
    assert len(zeros) / len(runs) == pytest.approx(kept, rel=0.01)
    # the script's own draws
    shots = circuit.drawn_shots(overlap[0], test)
    error = np.std(shots) / np.sqrt(len(shots))
    assert abs(np.mean(shots) - expected) < 4 * error


def test_diagonal_prediction(inputs):
    _, y, k = inputs
    record = check_prediction(None, y, k, 0.1).sel(source="circuit")
    assert record.queries.sel(
        kind="oracle"
    ) == 0 and record.success_probability.item() == pytest.approx(1)
    assert record.overlap.item() == pytest.approx(k @ y / np.linalg.norm(k) / np.sqrt(8))


@pytest.mark.slow
def test_sparsified_prediction(inputs):
    matrix, y, k = inputs
    record = check_prediction(matrix, y, k, 0.05)
    gates = record.sel(source="circuit")
    assert gates.queries.sel(kind="oracle") == 4 * record.degree.sel(source="emulated") > 0
    assert gates.qubits == 9
    exact = training.overlaps(k[None], np.linalg.solve(matrix, y))[0]
    assert abs(gates.overlap - exact) <= 0.05
    # Which the diagonal algorithm would miss.
    assert abs(exact - training.overlaps(k[None], y)[0]) > 0.05


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
def test_prediction_of_16_images():
    """At the script's size, with a larger epsilon."""
    rng = np.random.default_rng(0)
    kernel = random_kernel(16, rng) + 9 * np.eye(16)
    y, k = np.repeat([1.0, -1.0], 8), rng.uniform(-1, 1, 16)
    record = check_prediction(kernel, y, k, 0.3)
    assert record.qubits.sel(source="circuit") == 11 and record.gate_count > 10**4
    assert circuit.CALLS["load"] == queries.QRAM_QUERIES_PER_STATE


# --------------------------------------------------------------------------------------------------
# The command line
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Two trials of n = 16, of which the first one is run."""
    rng = np.random.default_rng(0)
    label = {
        "dataset": "mnist", "dataset_sha256": "0" * 64, "digits": [8, 9], "size": 16, "seed": 0,
        "network": "fully-connected", "depth": 3, "precision": "float64", "formulas": 1,
    }  # fmt: skip
    for number in (0, 1):
        own = label | {"trial": number}
        stem = f"fully-connected_seed0_data16_trial{number}"
        kernel = random_kernel(16, rng) + 9 * np.eye(16)
        write_kernel(tmp_path / f"{stem}_kernel_train.npy", kernel, own)
        write_kernel(
            tmp_path / f"{stem}_kernel_test.npy",
            rng.uniform(-1, 1, (6, 16)),
            own | {"test_size": 6},
        )
    return tmp_path


def run(folder, *arguments):
    """main() on a folder."""
    return circuit.main(["--input", str(folder), "--output", str(folder), *arguments])


@pytest.fixture
def diagonal_alone(monkeypatch):
    """Run the algorithm of few gates twice; returns how often."""
    predictions = []
    predict = circuit.predict

    def diagonal(matrix, y, k, epsilon):
        predictions.append(epsilon)
        return predict(None, y, k, epsilon)

    monkeypatch.setattr(circuit, "predict", diagonal)
    return predictions


def test_results_of_the_script(folder, diagonal_alone, capsys, monkeypatch):
    arguments = "--networks", "fully-connected"
    assert run(folder, *arguments) == 0 and len(diagonal_alone) == 2
    path = folder / "fully-connected_circuit.nc"
    results = read_results(path)
    assert results.queries.dims == ("n", "trial", "approximation", "source", "kind")
    assert results.approximation.values.tolist() == ["diagonal", "sparsified"]
    assert all({"long_name", "units"} <= set(values.attrs) for values in results.data_vars.values())
    assert origin_of(results) == {
        "dataset": "mnist", "dataset_sha256": "0" * 64, "network": "fully-connected",
        "classes": [8, 9], "seed": 0, "circuit": circuit.VERSION, "image": 0,
    }  # fmt: skip
    first = results.sel(n=16, trial=0)
    kernels = training.stored_kernels(folder, "fully-connected", 16, 0, 0)
    k = training.over_test_set(kernels)
    expected = training.post_selection_probability(k)[0]
    np.testing.assert_allclose(first.post_selection_probability, expected)
    assert 0 < first.epsilon <= emulation.LARGEST_EPSILON and first.test_images == 6
    # the same again: nothing is run; other code: it is
    kept = path.read_bytes()
    assert run(folder, *arguments) == 0 and len(diagonal_alone) == 2
    assert path.read_bytes() == kept and "has this trial" in capsys.readouterr().out
    monkeypatch.setattr(circuit, "code_version", lambda *files: "other")
    assert run(folder, *arguments) == 0 and len(diagonal_alone) == 4


def test_bad_inputs(folder, tmp_path_factory, capsys):
    with pytest.raises(SystemExit):
        circuit.main(["--networks", "quantum"])
    assert "--networks" in capsys.readouterr().err
    assert run(tmp_path_factory.mktemp("empty")) == 2
    assert "run training.py first" in capsys.readouterr().err
    swap_trials(
        folder, "fully-connected_seed0_data16_trial0", "fully-connected_seed0_data16_trial1"
    )
    assert run(folder, "--networks", "fully-connected") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "data16_trial0" in lines[0] and "trial 1, not 0" in lines[0]
