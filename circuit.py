"""One prediction of the quantum algorithm as gates, on Qiskit's statevector simulator.

    python circuit.py              # the first trial of n = 16 of both networks in kernel_output/
    python circuit.py --help       # everything else

The Hadamard test of emulation.py with nothing left abstract but the oracles' inside: the labels'
phases, QSVT on the block encoding of the sparse oracle, the loading of k*, post-selection, balanced
superposition. Registers, in Qiskit's order: j (4 qubits at n = 16), k (4), flag, angle, test; 11 in
all. Kept is what has k = flag = angle = 0; then the test qubit is 0 with probability (1 + o)/2.

Oracles are gates with names, so that their calls can be counted, and are synthesised from
multiplexed rotations, so that all gates can be. Shots are drawn from the state until the sign is
clear. Writes `{prefix}_circuit.nc`: the quantities of `DESCRIPTIONS` and `OF_TESTS`. Qiskit is
needed by this script and its test alone.
"""

from runtime import streams

if __name__ == "__main__":
    streams.prepare_process()  # before the other imports: they take seconds

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Gate, library
from qiskit.quantum_info import Statevector

import emulation
import training
from emulation import Description
from ntk import BadInput
from quantum import assumptions, phases, queries, readout, sequential, solvers
from quantum.sequential import WaldTest
from runtime import options, stored
from runtime.linear_algebra import solve
from runtime.results import ResultsFile, code_version, foreign_explained, quantity
from runtime.stored import StoredTrials
from runtime.trials import Network

Array = NDArray[np.float64]

BASIS = ["cx", "rz", "sx", "x"]  # that all gates are transpiled to
CALLS = {"positions": 1, "entries": 2, "labels": 1, "load": 2}  # queries by a gate, or its inverse
KINDS = {"oracle": ("positions", "entries"), "labels": ("labels",), "QRAM": ("load",)}
DRAWS = 1000  # of the sequential test, from the circuit's state
SIZE, TRIAL, IMAGE = 16, 0, 0  # what is run: the trial's first pattern, and its first test image
VERSION = 2  # of the constants; functions that change are noticed without it

LABELS = {
    "approximation": ["diagonal", "sparsified"],
    "source": ["circuit", "emulated"],  # from the gates, or by emulation.py's formulas
    "kind": list(KINDS),
    "gate": BASIS,
}
DESCRIPTIONS = {  # of each approximation
    "kept_probability": Description(("source",), "probability that a run is kept"),
    "success_probability": Description(("source",), "p, that the solver succeeds"),
    "post_selection_probability": Description(("source",), "P, that |k*> is prepared"),
    "overlap": Description(("source",), "o = <k*|w> of the first test image"),
    "qubits": Description(("source",), "number of qubits", "qubits"),
    "degree": Description(("source",), "degree of the QSVT's polynomial"),
    "queries": Description(("source", "kind"), "queries of one run, by kind", "queries"),
    "gates": Description(("gate",), "gates after transpiling, by name", "gates"),
    "gate_count": Description((), "all gates after transpiling", "gates"),
    "depth": Description((), "depth of the circuit after transpiling", "layers"),
}
OF_TESTS = {  # of each approximation in the script's trial
    "sequential_shots": Description(
        ("source",), "mean shots until the sign is clear, drawn or by formula", "shots"
    ),
    "sequential_error": Description((), "standard error of what was drawn", "shots"),
}

# --------------------------------------------------------------------------------------------------
# Oracles as gates
# --------------------------------------------------------------------------------------------------


def named(circuit: QuantumCircuit, name: str) -> Gate:
    """A gate with a name of its own, for drawings and for counting."""
    gate = circuit.to_gate(label=name)
    gate.name = name
    return gate


def qubits_for(n: int) -> int:
    """Qubits that count to n, a power of two."""
    return int(np.log2(n))


def rotate(circuit: QuantumCircuit, target: int, controls: Iterable[int], angles: Array) -> None:
    """Append rotations of one qubit, an angle for each value of the others, lowest bit first."""
    gate = library.UCRYGate(angles.tolist())
    circuit.append(gate, [target, *controls])


def positions_gate(matrix: Array) -> Gate:
    """|j>|0> -> |j> sum over the s columns k of row j of |k>/sqrt(s), on j and k: one query.

    The columns are those of the row's entries, filled up with others to s, the sparsity. A tree of
    rotations: the highest bit of k by j, the next one by j and that bit, and so on.
    """
    n, bits = len(matrix), qubits_for(len(matrix))
    weight = uniform_over_entries(matrix)
    circuit = QuantumCircuit(2 * bits)
    for level in range(bits):
        parts = weight.reshape(n, 2**level, 2, -1)
        halves = parts.sum(axis=3)  # [j, higher bits, this bit]
        zero, one = np.sqrt(np.moveaxis(halves, 2, 0))
        angles = 2 * np.arctan2(one, zero)
        target = 2 * bits - 1 - level
        higher = range(target + 1, 2 * bits)
        rotate(circuit, target, [*range(bits), *higher], angles.T.ravel())
    return named(circuit, "positions")


def uniform_over_entries(matrix: Array) -> Array:
    """The uniform distribution over s columns of each row, those of its entries first. [n, n]"""
    s = solvers.row_entries(matrix)
    columns = np.argsort(matrix == 0, axis=1, kind="stable")
    weight = np.zeros(matrix.shape)
    np.put_along_axis(weight, columns[:, :s], 1 / s, axis=1)
    return weight


def entries_gate(matrix: Array, controlled: bool) -> Gate:
    """Rotate the flag's |0> to K~_jk/max|K~| |0> + ...|1>, on j, k, flag: two queries.

    Compute the entry, rotate by it, compute it back. Where controlled only if test = 0.
    """
    bits = qubits_for(len(matrix))
    flag, test = 2 * bits, 2 * bits + 1
    angles = 2 * np.arccos(matrix / np.abs(matrix).max())
    angles = angles.T.ravel()  # the first control is the lowest bit
    controls = list(range(2 * bits))
    if controlled:
        angles = np.concatenate([angles, 0 * angles])
        controls.append(test)
    circuit = QuantumCircuit(len(controls) + 1)
    rotate(circuit, flag, controls, angles)
    return named(circuit, "entries")


def encoding_gates(matrix: Array) -> dict[str, Gate]:
    """The oracles that `encode` takes, by name."""
    return {
        "positions": positions_gate(matrix),
        "entries": entries_gate(matrix, controlled=False),
        "entries, controlled": entries_gate(matrix, controlled=True),
    }


def encode(
    circuit: QuantumCircuit, gates: dict[str, Gate], bits: int, inverse: bool, controlled: bool
) -> None:
    """Append U, or its inverse, with H = K~/(s max|K~|) in its corner k = flag = 0: GSLW, Lemma 48.

    Positions, entries, swap of j and k, positions back. Controlled by test = 0, positions cancel
    where it is 1.
    """
    j, k = range(bits), range(bits, 2 * bits)
    flag, test = 2 * bits, 2 * bits + 2
    entries = gates["entries, controlled" if controlled else "entries"]
    rotated = [*j, *k, flag]
    if controlled:
        rotated.append(test)

    def swap() -> None:
        for a, b in zip(j, k, strict=True):
            circuit.cx(b, a)
            if controlled:
                circuit.ccx(a, test, b, ctrl_state="01")  # test = 0
            else:
                circuit.cx(a, b)
            circuit.cx(b, a)

    circuit.append(gates["positions"], [*j, *k])
    if inverse:
        swap()
        circuit.append(entries.inverse(), rotated)
    else:
        circuit.append(entries, rotated)
        swap()
    circuit.append(gates["positions"].inverse(), [*j, *k])


def labels_gate(y: Array) -> Gate:
    """|j> -> y_j |j>, y_j = +1 or -1, where test = 0: one phase query."""
    bits = qubits_for(len(y))
    circuit = QuantumCircuit(bits + 1)
    phases_of_both = [*np.sign(y), *np.ones(len(y))]  # where test = 0, and 1
    circuit.append(library.DiagonalGate(phases_of_both), range(bits + 1))
    return named(circuit, "labels")


def load_gate(k: Array) -> Gate:
    """Rotate the flag's |0> to k_j |0> + ...|1> where test = 1, on j, flag, test: two QRAM queries.

    k: k* [n], |k_j| <= 1.
    """
    bits = qubits_for(len(k))
    flag, test = bits, bits + 1
    circuit = QuantumCircuit(bits + 2)
    angles = 2 * np.arccos(np.clip(k, -1, 1))
    angles = np.concatenate([0 * angles, angles])  # where test = 0, and 1
    rotate(circuit, flag, [*range(bits), test], angles)
    return named(circuit, "load")


# --------------------------------------------------------------------------------------------------
# The prediction
# --------------------------------------------------------------------------------------------------


def prediction_circuit(
    matrix: Array | None, y: Array, k: Array, epsilon: float, weights: tuple[float, float]
) -> QuantumCircuit:
    """The Hadamard test of one test image up to its measurement.

    matrix: K~ [n, n], n a power of two, or None for the diagonal algorithm, |w> = |y>; k: k* [n],
    |k_i| <= 1; weights: (p, P), the success probabilities that the superposition is balanced for.
    """
    bits = qubits_for(len(y))
    j = range(bits)
    flag, test = 2 * bits, 2 * bits + 2
    circuit = QuantumCircuit(2 * bits + 3)
    root_p, root_post = np.sqrt(weights)
    half_angle = np.arctan2(root_p, root_post)
    circuit.ry(2 * half_angle, test)  # a^2 = P/(p + P) for |w>, at test = 0
    circuit.h(j)
    circuit.append(labels_gate(y), [*j, test])
    if matrix is not None:
        append_solver(circuit, matrix, y, epsilon)
    circuit.append(load_gate(k), [*j, flag, test])
    circuit.h(test)
    return circuit


class Polynomial(NamedTuple):
    """The odd polynomial of 1/x that a QSVT applies: its degree, and the turns of its phases."""

    degree: int
    turns: Array


def inverse_by_phases(matrix: Array, y: Array, epsilon: float) -> Polynomial:
    """The polynomial of least relative error for K~ = matrix [n, n], within epsilon of |w>."""
    kappa = solvers.block_encodings(matrix, y)["sparse oracle"].kappa
    n = solvers.inverse_steps(kappa, solvers.relative_error(epsilon))
    degree, bound = 2 * n - 1, solvers.inverse_bound(n, kappa)

    def polynomial(x: Array) -> Array:
        return solvers.inverse_polynomial(n, kappa, x) / bound

    signal_phases = phases.find_phases(polynomial, degree)
    return Polynomial(degree, phases.reflection_phases(signal_phases)[::-1])


def append_solver(circuit: QuantumCircuit, matrix: Array, y: Array, epsilon: float) -> None:
    """Append QSVT by the polynomial of least relative error, controlled by test = 0.

    The phases turn about k = flag = 0 through the qubit `angle`, which in |+> takes both signs of
    all phases at once: that leaves the real part. Where test = 1 they are no rotations, U and its
    inverse cancel, and the last U, odd in number, is controlled.
    """
    polynomial = inverse_by_phases(matrix, y, epsilon)
    bits = qubits_for(len(y))
    inside = list(range(bits, 2 * bits + 1))
    angle, test = 2 * bits + 1, 2 * bits + 2
    gates = encoding_gates(matrix)
    mark = library.MCXGate(len(inside), ctrl_state=0)
    circuit.h(angle)
    for use, turn in enumerate(polynomial.turns):
        if use:
            is_inverse, is_last = use % 2 == 0, use == polynomial.degree
            encode(circuit, gates, bits, inverse=is_inverse, controlled=is_last)
        circuit.append(mark, [*inside, angle])
        circuit.rz(turn, angle)  # half of it where test = 1: added there, taken where test = 0 ...
        circuit.cx(test, angle)
        circuit.rz(turn, angle)  # ... so that both together are 2 turn or nothing
        circuit.cx(test, angle)
        circuit.append(mark, [*inside, angle])
    circuit.h(angle)


# --------------------------------------------------------------------------------------------------
# What came out, by gates and by formulas
# --------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """Probability that a run is kept, p of |w>, P of |k*>, and o."""

    kept: float
    p: float
    P: float
    overlap: float


def oracle_calls(circuit: QuantumCircuit) -> dict[str, int]:
    """Queries by kind, counted from the gates of the circuit."""
    calls = dict.fromkeys(CALLS, 0)
    for gate, count in circuit.count_ops().items():
        name = gate.removesuffix("_dg")
        if name in CALLS:
            calls[name] += CALLS[name] * count
    return {kind: sum(calls[name] for name in names) for kind, names in KINDS.items()}


def measure(circuit: QuantumCircuit, bits: int, weights: tuple[float, float]) -> Outcome:
    """What the circuit's state holds; o from the test qubit of what is kept."""
    amplitudes = Statevector(circuit).data
    state = amplitudes.reshape(2, 2, 2, 2**bits, 2**bits)  # [test, angle, flag, k, j]
    kept = state[:, 0, 0, 0, :]
    weight = np.sum(np.abs(kept) ** 2, axis=1)  # of each value of the test qubit
    probability = float(weight.sum())
    zero = float(weight[0]) / probability
    sums = kept[0] + kept[1], kept[0] - kept[1]
    before = np.array(sums) / np.sqrt(2)  # the last Hadamard gate undone
    shares = np.array(weights[::-1]) / sum(weights)
    p, post = np.sum(np.abs(before) ** 2, axis=1) / shares
    return Outcome(probability, float(p), float(post), 2 * zero - 1)


def emulated_run(matrix: Array | None, y: Array, epsilon: float) -> solvers.Prepared:
    """The run of the solver by emulation.py's formulas; without one where matrix is None."""
    if matrix is None:
        return solvers.Prepared(y / np.linalg.norm(y), 0, 1.0)
    encoding = solvers.block_encodings(matrix, y)["sparse oracle"]
    return solvers.prepare("QSVT", encoding, epsilon)


def emulated_outcome(prepared: solvers.Prepared, k: Array) -> Outcome:
    """The outcome by emulation.py's formulas, for k* = k [n]."""
    p = prepared.success_probability
    post = float(training.post_selection_probability(k[None])[0])
    overlap = float(training.overlaps(k[None], prepared.state)[0])
    return Outcome(float(1 / readout.runs_per_shot(p, post)), p, post, overlap)


def emulated_calls(prepared: solvers.Prepared) -> dict[str, float]:
    """Queries by kind, by emulation.py's formulas."""
    return {
        "oracle": prepared.oracle_queries,
        "labels": prepared.label_queries,
        "QRAM": queries.QRAM_QUERIES_PER_STATE,
    }


def predict(matrix: Array | None, y: Array, k: Array, epsilon: float) -> xr.Dataset:
    """One prediction by gates and by formulas: the quantities of `DESCRIPTIONS`."""
    prepared = emulated_run(matrix, y, epsilon)
    expected = emulated_outcome(prepared, k)
    weights = expected.p, expected.P
    circuit = prediction_circuit(matrix, y, k, epsilon, weights)
    measured = measure(circuit, qubits_for(len(y)), weights)
    transpiled = transpile(circuit, basis_gates=BASIS, optimization_level=1)
    counts = transpiled.count_ops()
    calls = [list(each.values()) for each in (oracle_calls(circuit), emulated_calls(prepared))]
    return labelled({
        "kept_probability": [measured.kept, expected.kept],
        "success_probability": [measured.p, expected.p],
        "post_selection_probability": [measured.P, expected.P],
        "overlap": [measured.overlap, expected.overlap],
        "qubits": [circuit.num_qubits, np.nan],  # the emulation has none
        "degree": [np.nan, prepared.uses],
        "queries": calls,
        "gates": [counts.get(name, 0) for name in BASIS],
        "gate_count": transpiled.size(),
        "depth": transpiled.depth(),
    })  # fmt: skip


def labelled(values: dict[str, object]) -> xr.Dataset:
    """The same with axes, their labels, what they are, and units, as `DESCRIPTIONS` says."""
    record = xr.Dataset()
    for name, value in values.items():
        axes, long_name, units = (DESCRIPTIONS | OF_TESTS)[name]
        record[name] = quantity(axes, value, long_name, units)
    return record.assign_coords({axis: LABELS[str(axis)] for axis in record.dims})


# --------------------------------------------------------------------------------------------------
# Running
# --------------------------------------------------------------------------------------------------


class Inputs(NamedTuple):
    """K~ [n, n], y [n], k* [n] over the test set's largest entry, and emulation.py's epsilon.

    tests: Wald's of the sign of o - t, with the calibrated t, for both algorithms as in LABELS.
    """

    matrix: Array
    y: Array
    k: Array
    epsilon: float
    tests: list[WaldTest]


def inputs_of(trials: StoredTrials) -> tuple[Inputs, int]:
    """What is run, of the trial's first pattern and first test image; and its fingerprint."""
    trial = emulation.stored_trial(trials, SIZE, TRIAL)
    y, matrix = trial.kernels.train_label, trial.matrices[0]
    held = emulation.held_by_qram(trial.kernels, trial.random)
    test_of_y, _ = tuned_test(held, y)
    test, shots = tuned_test(held, solve(matrix, y))
    epsilon = float(emulation.allowed_errors([shots])[0])
    inputs = Inputs(matrix, y, held.k["test set"][IMAGE], epsilon, [test_of_y, test])
    return inputs, trial.fingerprint


def tuned_test(held: emulation.Held, state: Array) -> tuple[WaldTest, float]:
    """The sequential test that emulation.py tunes for |w> = state [n], and fixed effort's shots."""
    overlap = training.overlaps(held.normalised, state)
    level = assumptions.calibrated_threshold(overlap, held.calibration)
    common = held.label, level, held.calibration, emulation.SHARE
    reading = sequential.sequential_shots(overlap, *common)
    distance = sequential.typical_distance(overlap, level, held.calibration)
    return sequential.wald_test(level, distance, reading.error), reading.fixed


def drawn_shots(overlap: float, test: WaldTest) -> Array:
    """Shots until Wald's test stops, DRAWS times, shot by shot of 0 with (1 + overlap)/2."""
    rng = np.random.default_rng(0)
    steps = np.arange(1, test.most + 1)
    shots = []
    for _ in range(DRAWS):
        zeros = np.cumsum(rng.random(test.most) < (1 + overlap) / 2)
        stopped = np.abs(zeros - test.slope * steps) >= test.height
        shots.append(1 + np.argmax(stopped) if stopped.any() else test.most)
    return np.array(shots, float)


def sequential_shots(record: xr.Dataset, test: WaldTest) -> xr.Dataset:
    """What the sequential test of an overlap takes: drawn from the state, and by formula."""
    built, emulated = record.overlap.values
    drawn = drawn_shots(built, test)
    formula = sequential.exact_walk(np.array([emulated]), test)[1][0]
    return labelled({
        "sequential_shots": [drawn.mean(), formula],
        "sequential_error": drawn.std() / np.sqrt(DRAWS),
    })  # fmt: skip


def run_both(inputs: Inputs) -> xr.Dataset:
    """Both algorithms on the same inputs."""
    matrix, y, k, epsilon, tests = inputs
    records = []
    for solved, test in zip((None, matrix), tests, strict=True):
        record = predict(solved, y, k, epsilon)
        records.append(record.merge(sequential_shots(record, test)))
    record = xr.concat(records, xr.Variable("approximation", LABELS["approximation"]))
    record["epsilon"] = quantity((), epsilon, "largest error of |w> that is allowed")
    return record


def summary(prefix: str, record: xr.Dataset) -> str:
    """What came out of one algorithm, in a line."""
    gates, formulas = record.sel(source="circuit"), record.sel(source="emulated")
    differences = []
    for name in ("success_probability", "post_selection_probability", "overlap"):
        differences.append(abs(gates[name].item() - formulas[name].item()))
    return (
        f"{prefix}, {record.approximation.item()}: {gates.qubits:.0f} qubits, "
        f"degree {formulas.degree:.0f}, "
        f"{gates.queries.sel(kind='oracle'):.0f} oracle queries, "
        f"{record.gate_count:,.0f} gates of {' '.join(BASIS)}, depth {record.depth:,.0f}; "
        f"p {gates.success_probability:.4f}, P {gates.post_selection_probability:.4f}, "
        f"o {gates.overlap:.6f}, at most {max(differences):.0e} from the emulation"
    )


def chosen_trials(args: argparse.Namespace, network: Network) -> StoredTrials:
    """The trials of a network. Raises BadInput where the one that is run is not there."""
    classes = args.classes or training.selections[network.name]
    trials = stored.stored_trials(args.input, args.dataset, network, classes, args.seed)
    if trials is None or TRIAL not in trials.numbers.get(SIZE, []):
        remedy = f"has no {network.name} trial {TRIAL} of n = {SIZE}; run training.py first"
        raise BadInput("input", args.input, remedy)
    return trials


def run_network(args: argparse.Namespace, network: Network) -> None:
    """Run both algorithms on one network's trial, merge what came out, and print it.

    A trial that the results hold, of the same inputs and the same code, is not run again.
    """
    trials = chosen_trials(args, network)
    trials.say_note()
    path = args.output / f"{trials.prefix}_circuit.nc"
    key = {"n": SIZE, "trial": TRIAL}
    inputs, fingerprint = inputs_of(trials)
    code = code_version(*emulation.code_files(), Path(__file__))
    known_by = stored.inputs_of(fingerprint, code)
    with ResultsFile(path, trials.origin | {"circuit": VERSION, "image": IMAGE}) as results:
        if results.holds(key, known_by):
            print(f"{path} has this trial")
        else:
            about = stored.provenance(trials.kernel_test(SIZE, TRIAL))
            results.keep(key, run_both(inputs).assign(known_by | about))
    with foreign_explained(path):
        for algorithm in LABELS["approximation"]:
            record = results.results.sel(key).sel(approximation=algorithm)
            print(summary(trials.prefix, record))


def run_networks(args: argparse.Namespace) -> None:
    """Everything that the command line asks for."""
    networks = training.make_networks()
    for name in args.networks:
        run_network(args, networks[name])


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, or 2 after one line about a bad input."""
    description = "One prediction of the quantum algorithm of arXiv:2107.09200 as gates."
    parser = options.Parser(description=description)
    options.checked_constants(parser, training.constants())
    stored.add_network_options(parser, training.selections, training.seed)
    stored.add_dataset_option(parser)
    parser.add_output("--input", "folder of training.py's kernels")
    parser.add_output()
    args = stored.parse_arguments(parser, argv)
    return options.with_folder(args.output, lambda: run_networks(args))


if __name__ == "__main__":
    streams.run_script(main)
