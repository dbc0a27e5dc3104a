"""One prediction of the quantum algorithm as gates, on Qiskit's statevector simulator.

    python circuit.py                         # the first trial of n = 16 of both networks in kernel_output/
    python circuit.py --help                  # everything else

The Hadamard test of emulation.py with nothing left abstract but the oracles' inside: the labels' phases, QSVT on the
block encoding of the sparse oracle, the loading of k*, post-selection, balanced superposition. Registers, in Qiskit's
order: j (4 qubits at n = 16), k (4), flag, angle, test; 11 in all. Kept is what has k = flag = angle = 0; then the test
qubit is 0 with probability (1 + o)/2. Oracles are gates with names, so that their calls can be counted, and are
synthesised from multiplexed rotations, so that all gates can be. Writes `{prefix}_circuit.npz`. Qiskit is needed by
this script and its test alone.
"""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Gate, library
from qiskit.quantum_info import Statevector

import emulation
import training
from ntk import BadInput
from quantum import phases, readout, solvers
from runtime import options
from runtime.checkpoints import finished_trials
from runtime.linear_algebra import solve
from runtime.results import Results, merge_results
from runtime.trials import DATASETS

Array = NDArray[np.float64]

BASIS = ["cx", "rz", "sx", "x"]  # that all gates are transpiled to
CALLS = {"positions": 1, "entries": 2, "labels": 1, "load": 2}  # queries by a gate of that name, or its inverse
KINDS = {"oracle": ("positions", "entries"), "labels": ("labels",), "QRAM": ("load",)}
ALGORITHMS = ("diagonal", "sparsified")
SIZE, TRIAL, IMAGE = 16, 0, 0  # what is run: the trial's first pattern, and its first test image
VERSION = 1  # of what a record holds

# ----------------------------------------------------------------------------------------------------------------------
# Oracles as gates
# ----------------------------------------------------------------------------------------------------------------------


def named(circuit: QuantumCircuit, name: str) -> Gate:
    """A gate with a name of its own, for drawings and for counting."""
    gate = circuit.to_gate(label=name)
    gate.name = name
    return gate


def positions_gate(matrix: Array) -> Gate:
    """|j>|0> -> |j> sum over the s columns k of row j of |k>/sqrt(s), on j and k: one query.

    The columns are those of the row's entries, filled up with others to s, the sparsity. A tree of rotations: the
    highest bit of k by j, the next one by j and that bit, and so on.
    """
    bits, s = int(np.log2(len(matrix))), solvers.row_entries(matrix)
    columns = np.argsort(matrix == 0, axis=1, kind="stable")[:, :s]
    weight = np.zeros(matrix.shape)  # [j, k], of the uniform distribution over the columns
    np.put_along_axis(weight, columns, 1 / s, axis=1)
    circuit = QuantumCircuit(2 * bits)
    for level in range(bits):
        halves = weight.reshape(len(matrix), 2**level, 2, -1).sum(axis=3)  # [j, higher bits, this bit]
        angles = 2 * np.arctan2(np.sqrt(halves[:, :, 1]), np.sqrt(halves[:, :, 0]))
        target = 2 * bits - 1 - level
        higher = list(range(target + 1, 2 * bits))
        circuit.append(library.UCRYGate(angles.T.ravel().tolist()), [target, *range(bits), *higher])
    return named(circuit, "positions")


def entries_gate(matrix: Array, controlled: bool) -> Gate:
    """Rotate the flag's |0> to K~_jk/max|K~| |0> + ...|1>, on j, k, flag, and where controlled only if test = 0.

    Two queries: compute the entry, rotate by it, compute it back.
    """
    bits = int(np.log2(len(matrix)))
    angles = (2 * np.arccos(matrix / np.abs(matrix).max())).T.ravel()  # the first control is the lowest bit
    if controlled:
        angles = np.concatenate([angles, 0 * angles])
    circuit = QuantumCircuit(2 * bits + 1 + controlled)
    controls = [*range(2 * bits), *([2 * bits + 1] if controlled else [])]
    circuit.append(library.UCRYGate(angles.tolist()), [2 * bits, *controls])
    return named(circuit, "entries")


def encode(circuit: QuantumCircuit, gates: dict[str, Gate], bits: int, inverse: bool, controlled: bool) -> None:
    """Append U, or its inverse, with H = K~/(s max|K~|) in its corner k = flag = 0: GSLW, Lemma 48.

    Positions, entries, swap of j and k, positions back. Controlled by test = 0, positions cancel where it is 1.
    """
    j, k, flag, test = range(bits), range(bits, 2 * bits), 2 * bits, 2 * bits + 2
    entries = gates["entries, controlled" if controlled else "entries"]
    rotated = [*j, *k, flag, *([test] if controlled else [])]

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
    bits = int(np.log2(len(y)))
    circuit = QuantumCircuit(bits + 1)
    circuit.append(library.DiagonalGate([*np.sign(y), *np.ones(len(y))]), range(bits + 1))
    return named(circuit, "labels")


def load_gate(k: Array) -> Gate:
    """Rotate the flag's |0> to k_j |0> + ...|1> where test = 1, on j, flag, test; |k_j| <= 1: two QRAM queries."""
    bits = int(np.log2(len(k)))
    circuit = QuantumCircuit(bits + 2)
    angles = [*np.zeros(len(k)), *2 * np.arccos(np.clip(k, -1, 1))]
    circuit.append(library.UCRYGate(angles), [bits, *range(bits), bits + 1])
    return named(circuit, "load")


# ----------------------------------------------------------------------------------------------------------------------
# The prediction
# ----------------------------------------------------------------------------------------------------------------------


def prediction_circuit(
    matrix: Array | None, y: Array, k: Array, epsilon: float, weights: tuple[float, float]
) -> QuantumCircuit:
    """The Hadamard test of one test image up to its measurement.

    matrix: K~ [n, n], n a power of two, or None for the diagonal algorithm, |w> = |y>; k: k* [n], |k_i| <= 1; weights:
    (p, P), the success probabilities that the superposition is balanced for.
    """
    bits = int(np.log2(len(y)))
    j, flag, test = range(bits), 2 * bits, 2 * bits + 2
    circuit = QuantumCircuit(2 * bits + 3)
    p, post = weights
    circuit.ry(2 * np.arctan2(np.sqrt(p), np.sqrt(post)), test)  # a^2 = P/(p + P) for |w>, at test = 0
    circuit.h(j)
    circuit.append(labels_gate(y), [*j, test])
    if matrix is not None:
        append_solver(circuit, matrix, y, epsilon)
    circuit.append(load_gate(k), [*j, flag, test])
    circuit.h(test)
    return circuit


def append_solver(circuit: QuantumCircuit, matrix: Array, y: Array, epsilon: float) -> None:
    """Append QSVT by the polynomial of least relative error, controlled by test = 0.

    The phases turn about k = flag = 0 through the qubit `angle`, which in |+> takes both signs of all phases at once:
    that leaves the real part. Where test = 1 they are no rotations, U and its inverse cancel, and the last U, odd in
    number, is controlled.
    """
    kappa = solvers.block_encodings(matrix, y)["sparse oracle"].kappa
    n = solvers.inverse_steps(kappa, solvers.relative_error(epsilon))
    degree, bound = 2 * n - 1, solvers.inverse_bound(n, kappa)
    found = phases.find_phases(lambda x: solvers.inverse_polynomial(n, kappa, x) / bound, degree)
    turns = phases.reflection_phases(found)[::-1]
    bits = int(np.log2(len(y)))
    inside, angle, test = list(range(bits, 2 * bits + 1)), 2 * bits + 1, 2 * bits + 2
    gates = {"positions": positions_gate(matrix), "entries": entries_gate(matrix, controlled=False)}
    gates["entries, controlled"] = entries_gate(matrix, controlled=True)
    mark = library.MCXGate(len(inside), ctrl_state=0)
    circuit.h(angle)
    for use, turn in enumerate(turns):
        if use:
            encode(circuit, gates, bits, inverse=use % 2 == 0, controlled=use == degree)
        circuit.append(mark, [*inside, angle])
        circuit.rz(turn, angle)  # half of it where test = 1: added there, taken where test = 0 ...
        circuit.cx(test, angle)
        circuit.rz(turn, angle)  # ... so that both together are 2 turn or nothing
        circuit.cx(test, angle)
        circuit.append(mark, [*inside, angle])
    circuit.h(angle)


def oracle_calls(circuit: QuantumCircuit) -> dict[str, int]:
    """Queries by kind, counted from the gates of the circuit."""
    counts = circuit.count_ops()
    calls = {name: q * sum(c for g, c in counts.items() if g.removesuffix("_dg") == name) for name, q in CALLS.items()}
    return {kind: sum(calls[name] for name in names) for kind, names in KINDS.items()}


def measure(circuit: QuantumCircuit, bits: int, weights: tuple[float, float]) -> dict[str, float]:
    """What the circuit's state holds: probability to be kept, p, P, and o from the test qubit of what is kept."""
    state = Statevector(circuit).data.reshape(2, 2, 2, 2**bits, 2**bits)  # [test, angle, flag, k, j]
    kept = state[:, 0, 0, 0, :]
    probability = float(np.sum(np.abs(kept) ** 2))
    zero = float(np.sum(np.abs(kept[0]) ** 2)) / probability
    before = np.array([kept[0] + kept[1], kept[0] - kept[1]]) / np.sqrt(2)  # the last Hadamard gate undone
    shares = np.array(weights[::-1]) / sum(weights)
    p, post = np.sum(np.abs(before) ** 2, axis=1) / shares
    return {"kept": probability, "p": float(p), "P": float(post), "overlap": 2 * zero - 1}


def emulated(matrix: Array | None, y: Array, k: Array, epsilon: float) -> tuple[dict[str, float], dict[str, float]]:
    """The same by emulation.py's formulas: (probabilities and overlap, queries by kind)."""
    prepared = solvers.Prepared(y / np.linalg.norm(y), 0, 1.0)
    if matrix is not None:
        prepared = solvers.prepare("QSVT", solvers.block_encodings(matrix, y)["sparse oracle"], epsilon)
    p, post = prepared.success_probability, float(training.post_selection_probability(k[None])[0])
    overlap = float(training.overlaps(k[None], prepared.state)[0])
    found = {"kept": float(1 / readout.runs_per_shot(p, post)), "p": p, "P": post, "overlap": overlap}
    queries = {
        "oracle": prepared.oracle_queries,
        "labels": prepared.label_queries,
        "QRAM": emulation.QRAM_QUERIES_PER_STATE,
    }
    return found | {"degree": prepared.uses}, queries


def predict(matrix: Array | None, y: Array, k: Array, epsilon: float) -> dict[str, float]:
    """One prediction by gates and by formulas: probabilities, overlap, queries, and gates and depth in BASIS."""
    expected, queries = emulated(matrix, y, k, epsilon)
    weights = expected["p"], expected["P"]
    circuit = prediction_circuit(matrix, y, k, epsilon, weights)
    found = measure(circuit, int(np.log2(len(y))), weights) | {"qubits": circuit.num_qubits}
    record = {f"{name}_circuit": value for name, value in found.items()}
    record |= {f"{name}_emulated": value for name, value in expected.items()}
    record |= {f"queries_{kind}_circuit": value for kind, value in oracle_calls(circuit).items()}
    record |= {f"queries_{kind}_emulated": value for kind, value in queries.items()}
    gates = transpile(circuit, basis_gates=BASIS, optimization_level=1)
    record |= {f"gates_{name}": gates.count_ops().get(name, 0) for name in BASIS}
    return record | {"gates": gates.size(), "depth": gates.depth()}


# ----------------------------------------------------------------------------------------------------------------------
# Running
# ----------------------------------------------------------------------------------------------------------------------


def inputs_of(folder: Path, prefix: str, seed: int) -> tuple[Array, Array, Array, float]:
    """K~ [n, n], y [n], k* [n] divided by the test block's largest entry, and the epsilon that emulation.py takes."""
    kernels, matrices, _, _ = emulation.stored_trial(folder, prefix, SIZE, TRIAL, seed)
    k, y, label = (kernels[name] for name in ("kernel_test_normalized", "train_label", "test_label"))
    overlap = training.overlaps(k, solve(matrices[0], y))
    shots = readout.shots_needed(overlap, label, float(np.median(overlap)), emulation.SHARE)
    epsilon = min(emulation.EPSILON_SHARE / np.sqrt(shots), emulation.LARGEST_EPSILON)
    return matrices[0], y, k[IMAGE] / np.abs(k).max(), float(epsilon)


def run_network(folder: Path, output: Path, network: str, seed: int) -> None:
    """Run both algorithms on one network's trial, print what came out, and write `{prefix}_circuit.npz`."""
    prefixes = [first + network for first in DATASETS.values()]
    prefix = next((p for p in prefixes if TRIAL in finished_trials(folder, p, seed).get(SIZE, [])), None)
    if prefix is None:
        raise BadInput("input", folder, f"has no {network} trial {TRIAL} of n = {SIZE}; run training.py first")
    matrix, y, k, epsilon = inputs_of(folder, prefix, seed)
    records = [predict(each, y, k, epsilon) for each in (None, matrix)]
    for algorithm, found in zip(ALGORITHMS, records, strict=True):
        difference = max(abs(found[f"{name}_circuit"] - found[f"{name}_emulated"]) for name in ("p", "P", "overlap"))
        print(f"{prefix}, {algorithm}: {found['qubits_circuit']} qubits, degree {found['degree_emulated']}, "
              f"{found['queries_oracle_circuit']} oracle queries, {found['gates']:,} gates of {' '.join(BASIS)}, depth "
              f"{found['depth']:,}; p {found['p_circuit']:.4f}, P {found['P_circuit']:.4f}, o "
              f"{found['overlap_circuit']:.6f}, at most {difference:.0e} from the emulation")  # fmt: skip
    record = {name: np.array([float(found[name]) for found in records]) for name in records[0]}
    origin = {"circuit": VERSION, "seed": seed, "image": IMAGE, "axes": {"algorithms": list(ALGORITHMS)}}
    results = Results(origin, {(SIZE, None, TRIAL): record | {"epsilon": epsilon}})
    print(merge_results(output / f"{prefix}_circuit.npz", results))


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, or 2 after one line about a bad input."""
    parser = options.Parser(description="One prediction of the quantum algorithm of arXiv:2107.09200 as gates.")
    here = Path("kernel_output")
    parser.add_options([
        ("--networks", dict(nargs="+", choices=training.networks, default=training.networks, metavar="NETWORK"),
         f"of {' '.join(training.networks)}", training.networks),
        ("--seed", dict(type=options.whole_number, default=training.seed), "seed that the kernels have in their names",
         training.seed),
        ("--input", dict(type=Path, default=here, metavar="DIR"), "folder of training.py's kernels", here),
        ("--output", dict(type=Path, default=here, metavar="DIR"), "folder to write to", here),
    ])  # fmt: skip
    args = parser.parse_args(argv)
    each = functools.partial(run_network, args.input, args.output, seed=args.seed)
    return options.with_folder(args.output, lambda: [each(network) for network in args.networks])


if __name__ == "__main__":
    options.run_script(main)
