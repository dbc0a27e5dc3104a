"""The emulated algorithm: the cost of a prediction by hand, one whole trial, and the script."""

import dataclasses
import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import emulation
import training
from quantum import assumptions, readout, solvers
from runtime import options
from runtime.checkpoints import checksum, ending, label_line
from runtime.linear_algebra import solve
from runtime.results import read_results

READ = {name: i for i, name in enumerate(emulation.READOUTS)}
MEDIAN, MEAN = emulation.THRESHOLDS.index("median"), emulation.STATISTICS.index("mean")
AXES = 2, len(solvers.SOLVERS), len(solvers.ENCODINGS)  # of what is by threshold, solver and encoding
COST = len(emulation.READOUTS), len(emulation.CONVENTIONS), len(emulation.KINDS), len(emulation.STATISTICS)


# ----------------------------------------------------------------------------------------------------------------------
# States and costs by hand
# ----------------------------------------------------------------------------------------------------------------------


def test_post_selection_by_hand():
    kernels = {"kernel_train": np.array([[9.0, 2], [2, 9]]), "kernel_test": np.array([[5.0, 0], [1, -1]]),
               "kernel_test_normalized": np.array([[0.5, 0.0], [0.1, -0.1]])}  # fmt: skip
    held = emulation.held_by_qram(kernels)
    # clipped at the training matrix's 2; divided by the largest entry 0.5; as it is
    np.testing.assert_allclose(held, [[[1, 0], [0.5, -0.5]], [[1, 0], [0.2, -0.2]], [[0.5, 0], [0.1, -0.1]]])
    np.testing.assert_allclose(emulation.post_selection(held), [[0.5, 0.25], [0.5, 0.04], [0.125, 0.01]])
    diagonal = emulation.held_by_qram(kernels | {"kernel_train": np.eye(2)})  # no such entry: the sign is what is left
    assert diagonal[0].tolist() == [[1, 0], [1, -1]]


def test_cost_by_hand():
    prepared = solvers.Prepared(np.ones(2), 5, 0.25, 3)  # 20 oracle queries, 3 to the labels
    probabilities = np.array([[0.25] * 3, [1.0] * 3, [0.95] * 3])
    found = emulation.cost(prepared, probabilities, 10, 2)
    assert found.shape == COST
    kept, found = found[..., 2, :, :], found[..., :2, :, :]
    # shots: (4 + 4)/2 and (4 + 1)/2 runs, of 2 queries; (1 + 1/4)/(2/4) of them go on to |w>, of 20 and in all 23
    np.testing.assert_allclose(found[READ["shots"], :, :, MEAN], [[500, 80, 655], [500, 50, 625]])
    # amplification, three uses for one, is not worth it
    np.testing.assert_allclose(found[READ["amplified shots"], :, :, MEAN], found[READ["shots"], :, :, MEAN])
    # estimation, (1 + 3) times the shots a point: one round for |k*>, none for |w>, so that K = 1/2.5 is kept
    times = readout.SHOTS_A_POINT * 4
    expected = times * np.sqrt(2 * 2.5 - 1) * np.array([[20, 6, 29], [20, 2, 25]])
    np.testing.assert_allclose(found[READ["amplitude estimation"], :, :, MEAN], expected)
    # P = 0.95 is left as it is; 1/K = (4 + 1/0.95)/2 is above 2.5, so that |w> has to be made 1
    runs = (1 + 1 / 0.95) / 2
    full = times * np.sqrt(2 * runs - 1) * np.array([60, 2, 71])
    np.testing.assert_allclose(kept[READ["amplitude estimation"], :, MEAN], full)
    # repetitions that are measured have no inverse; the other readouts stay
    measured = emulation.cost(dataclasses.replace(prepared, coherent=False), probabilities, 10, 2)
    assert np.isnan(measured[READ["amplitude estimation"]]).all()
    np.testing.assert_array_equal(measured[:2, :2], found[:2])
    # no accuracy, or no state: no finite cost, or none
    assert np.isinf(emulation.cost(prepared, probabilities, math.inf, math.inf)).all()
    assert np.isnan(emulation.cost(solvers.Prepared(np.ones(2), 5, np.nan), probabilities, 10, 2)).all()
    # the labels alone, |y>: one phase query a run, none to the oracle, also for ever
    free = solvers.Prepared(np.ones(2), 0, 1.0)
    for shots in (10, math.inf):
        assert np.all(emulation.cost(free, probabilities, shots, 2)[:, :, 0] == 0)
    np.testing.assert_allclose(emulation.cost(free, probabilities, 10, 2)[0, :2, 2, MEAN], [60, 30])


def test_cost_is_a_mean_over_test_images():
    probabilities = np.array([[0.5] * 19 + [0.001], [1.0] * 20, [1.0] * 20])
    found = emulation.cost(solvers.Prepared(np.ones(2), 0, 1.0), probabilities, 1, 2)[0, 0, 1]
    runs = (1 + 1 / probabilities[0]) / 2
    np.testing.assert_allclose(found, 2 * np.array([runs.mean(), 1.5, 1.5, 1.5]))  # to |k*>, in every run
    assert found[0] > 15 * found[2]  # a median would hide the image that costs most


# ----------------------------------------------------------------------------------------------------------------------
# One trial
# ----------------------------------------------------------------------------------------------------------------------


def random_by_purpose(purpose):
    return training.random_generator(0, "test", 16, 0, purpose)


@pytest.fixture(scope="module")
def kernels():
    """A trial of 16 points on two clusters, with a kernel that is far from diagonal, and 24 test points."""
    rng = np.random.default_rng(8)
    y, label = np.repeat([1.0, -1.0], 8), np.repeat([1.0, -1.0], 12)
    x, test = rng.standard_normal((16, 8)), rng.standard_normal((24, 8))
    x[:, 0], test[:, 0] = 2 * y, 2 * label
    kernel = x @ x.T + 6 * np.eye(16)
    return {"train_label": y, "test_label": label, "kernel_train": kernel, "kernel_test": test @ x.T,
            "kernel_test_normalized": np.clip(test @ x.T / 10, -1, 1)}  # fmt: skip


@pytest.fixture(scope="module")
def trial(kernels):
    """Its record, with a K~ of a random pattern, one that is diagonal, and one that is singular."""
    pattern = training.sparsity_pattern(16, random_by_purpose("pattern"))
    matrices = [kernels["kernel_train"] * pattern.toarray(), 3 * np.eye(16), np.diag(np.arange(16.0))]
    return matrices, emulation.emulate_trial(kernels, matrices, random_by_purpose)


def test_record_of_a_trial(kernels, trial):
    matrices, found = trial
    y, k, label = (kernels[n] for n in ("train_label", "kernel_test_normalized", "test_label"))
    assert found["cost"].shape == (3, *AXES, *COST) and found["cost_diagonal"][0].shape == COST
    exact = solve(matrices[0], y)
    np.testing.assert_allclose(found["overlap"][0], training.overlaps(k, exact))
    # every state that is emulated is within epsilon of the direct solve
    emulated = [s in solvers.EMULATED for s in solvers.SOLVERS]
    error = found["solver_error"][:2]
    assert np.isnan(error[:, :, ~np.array(emulated)]).all()
    assert np.isfinite(
        error[:, :, [emulation.SOLVERS.index(s) for s in ("CKS series", "QSVT", "kernel reflection")]]
    ).all()
    assert np.all(np.isnan(error) | (error <= found["epsilon"][:2, :, None, None]))
    # epsilon is a tenth of the shot noise of the shots that are needed
    shots = found["shots_needed"][0]
    np.testing.assert_allclose(found["epsilon"][0], np.minimum(0.1 / np.sqrt(shots), emulation.LARGEST_EPSILON))
    overlap, t = found["overlap"][0], np.median(found["overlap"][0])
    assert readout.accuracy_of_shots(overlap, label, t, shots[MEDIAN]) >= 0.99 * found["accuracy_noiseless"][0, MEDIAN]
    # the smallest cost is marked
    means = found["cost"][0][..., emulation.KINDS.index("all"), MEAN]
    for at, c in itertools.product(range(2), range(3)):
        index = np.unravel_index(int(found["cheapest_quantum_index"][0, at, c]), (*AXES[1:], COST[0]))
        assert means[at][(*index, c)] == found["cheapest_quantum"][0, at, c] == np.nanmin(means[at, ..., c])
    assert np.all(found["cheapest_classical"][0] <= 2 * 16)
    # half the smallest eigenvalue costs more, twice of it loses the state
    assert np.all(found["cost_kappa_doubled"][0] > 1.5)
    assert np.all(found["error_kappa_halved"][0] > found["epsilon"][0][:, None])
    assert np.all(np.isfinite(found["bits_test"][:2])) and np.all(found["bits_matrix"][:2] < 20)


def test_identity_is_the_diagonal_algorithm(trial):
    """K~ = 3 I needs no oracle query through I + E, and predicts and costs what |y> does."""
    _, found = trial
    series = solvers.SOLVERS.index("series in E"), solvers.ENCODINGS.index("I + E")
    assert np.all(found["uses"][1, :, *series] == 0)
    np.testing.assert_allclose(found["overlap"][1], found["overlap_diagonal"])
    assert found["shots_needed"][1].tolist() == list(found["shots_needed_diagonal"])
    both = found["cost"][1, :, *series], np.array(found["cost_diagonal"])
    np.testing.assert_array_equal(*both)  # the same random numbers: not even estimation differs
    assert found["bits_matrix"][1] == 1


def test_classical_costs_by_hand(monkeypatch):
    """A path of three points: every way's operations."""
    matrix = np.array([[4.0, 1, 0], [1, 4, 1], [0, 1, 4]])
    y, k, label = np.array([1.0, 1, -1]), np.array([[1.0, 0, 0], [0, 0, 1]]), np.array([1.0, -1])
    exact = solve(matrix, y)
    monkeypatch.setattr(emulation.classical, "samples_needed", lambda *_: np.array([1.0, 3.0]))
    found = emulation.classical_costs(
        matrix, y, exact, k, label, np.zeros(2), np.array([0.3, 1e-6]), np.random.default_rng(0)
    )
    length, alone = np.array(found["local_length"]), found["local_operations"]
    at_once = 3 + length * (2 * 4 + 3)
    assert length[1] > length[0] and alone[0] < at_once[0] and 3 * alone[1] > at_once[1]
    anew = [i * (2 * 7 + 10 * 3) for i in found["iterations"]]
    np.testing.assert_allclose(found["operations_classical"], [
        [6, 2, 2 + alone[0], 6 + anew[0], 6 + 27], [6, 18, 18 + at_once[1], 6 + anew[1], 6 + 27]
    ])  # fmt: skip
    assert found["local_accuracy"] == [1, 1] and found["dominant_rows"] == 1


def test_clipping_is_that_of_the_known_divisor():
    """k* = (3, 1) and (1, 3) look alike when clipped at 1."""
    held = np.array([[[1.0, 1], [1, 1]], [[3, 1], [1, 3]], [[3, 1], [1, 3]]])
    found = emulation.read_out(held, np.array([1.0, -1]), np.array([1.0, -1]), np.random.default_rng(0))
    assert found["accuracy_noiseless"] == [1, 1] and found["accuracy_clipped"] == [0.5, 0.5]


def test_what_a_wrong_eigenvalue_costs():
    """Half of the smallest eigenvalue: the ratio of uses/sqrt(p) of the two calls of QSVT."""
    matrix = np.array([[2.0, 0.9], [0.9, 2]])
    encodings = solvers.block_encodings(matrix, np.array([1.0, 0.2]))
    exact = solve(matrix, np.array([1.0, 0.2]))
    cost, error = assumptions.misjudged_eigenvalue(encodings, np.array([0.01, 0.01]), exact)
    for e, encoding in enumerate(encodings.values()):
        kappas = encoding.kappa, 2 * encoding.kappa
        right, low = (solvers.prepare("QSVT", dataclasses.replace(encoding, kappa=each), 0.01) for each in kappas)
        spent = [run.uses / math.sqrt(run.success_probability) for run in (right, low)]
        assert cost[0, e] == pytest.approx(spent[1] / spent[0]) and cost[0, e] > 1
    assert np.all(error > 0.01)


def test_singular_matrix_is_told(trial):
    _, found = trial
    of_trial = "_diagonal", "post_selection_probability"
    names = [name for name, value in found.items() if np.shape(value)[:1] == (3,) and not name.endswith(of_trial)]
    assert "cost" in names and all(np.isnan(found[name][2]).all() for name in names)


def test_trial_is_the_same_again(kernels, trial):
    matrices, found = trial
    again = emulation.emulate_trial(kernels, matrices, random_by_purpose)
    for name, value in found.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_assumptions_have_their_arrays(trial):
    names = [name for _, name in assumptions.ASSUMPTIONS.values() if name]
    assert all(name in trial[1] for name in names) and len(names) >= 6


# ----------------------------------------------------------------------------------------------------------------------
# The command line, on kernels made up
# ----------------------------------------------------------------------------------------------------------------------


DEPTHS = {"fully-connected": 3, "convolutional": 96}


def write_kernel(path, array, label):
    """A finished kernel file, with its label and its checksum."""
    np.save(path, array)
    with path.open("ab") as file:
        file.write(label_line(label))
    digest = checksum(path)
    path.write_bytes(path.read_bytes()[:-ending] + digest)


def write_trial(folder, prefix, size, trial, rng, seed=0, test_images=12):
    """The kernels of one trial: images of 8 pixels, inner products as a kernel."""
    network = prefix.removeprefix("digits-")
    x, y = rng.standard_normal((size, 8)), np.repeat([1.0, -1.0], size // 2)
    test, label = rng.standard_normal((test_images, 8)), np.repeat([1.0, -1.0], test_images // 2)
    x[:, 0], test[:, 0] = 2 * y, 2 * label
    about = {"network": network, "digits": list(training.selections[network]), "size": size, "trial": trial,
             "depth": DEPTHS[network], "seed": seed}  # fmt: skip
    stem = folder / f"{prefix}_seed{seed}_data{size}_trial{trial}"
    write_kernel(Path(f"{stem}_kernel_train.npy"), x @ x.T + 8 * np.eye(size), about)
    write_kernel(Path(f"{stem}_kernel_test.npy"), test @ x.T / 10, about | {"test_size": test_images})


@pytest.fixture
def folder(tmp_path):
    """Kernels of two sizes and both networks; one fully-connected trial is incomplete, one number is skipped."""
    rng = np.random.default_rng(8)
    for prefix, size, trial in (
        *itertools.product(training.networks, (16,), (0, 1)), ("fully-connected", 4, 0), ("fully-connected", 4, 2),
        ("fully-connected", 8, 0),
    ):  # fmt: skip
        write_trial(tmp_path, prefix, size, trial, rng)
    (tmp_path / "fully-connected_seed0_data8_trial0_kernel_test.npy").unlink()
    return tmp_path


def emulate(folder, *arguments):
    """main() on a folder, as input and output."""
    return emulation.main(["--input", str(folder), "--output", str(folder), *map(str, arguments)])


@pytest.mark.slow
def test_run_and_results(folder, capsys):
    assert emulate(folder) == 0
    assert "nan" not in capsys.readouterr().out.lower()
    with np.load(folder / "fully-connected_emulation.npz") as arrays:
        found = dict(arrays)
    assert found["data_sizes"].tolist() == [4, 16] and found["trials"].tolist() == [2, 2]
    assert np.isfinite(found["overlap"]).all(axis=(2, 3)).tolist() == [[True, False, True], [True, True, False]]
    assert found["cost"].shape == (2, 3, 3, *AXES, *COST)
    axes = read_results(folder / "fully-connected_emulation.npz").origin["axes"]
    names = ("thresholds", "solvers", "encodings", "readouts", "conventions", "kinds", "statistics")
    assert [len(axes[name]) for name in names] == list(found["cost"].shape[3:])
    assert (folder / "convolutional_emulation.npz").exists()


@pytest.mark.parametrize("network", training.networks)
def test_matrices_are_those_of_training(folder, network):
    """K~ and |k*> of a stored trial are what training.py's own functions make of the same files."""
    kernels, matrices, random, _ = emulation.stored_trial(folder, network, 16, 1, 0)
    assert emulate(folder, "--networks", network) == 0
    with np.load(folder / f"{network}_emulation.npz") as arrays:
        found = dict(arrays)
    thresholds = training.stored_kernels(folder, network, 16, 1, 0)["class_thresholds"]
    trial = training.make_trial(network, training.selections[network], 16, 1)
    expected = training.trial_approximations(trial, 0, kernels["kernel_train"], thresholds)["original"]
    record = training.trial_quantities(kernels | {"separability": 1.0}, {"original": expected})
    for matrix, other in zip(matrices, expected, strict=True):
        np.testing.assert_array_equal(matrix, other)
    np.testing.assert_array_equal(found["sparsity"][-1, 1], record["sparsity"])
    at_zero = training.readout_measurements(found["overlap"][-1, 1])
    np.testing.assert_allclose(at_zero, record["readout_measurements_sparse"], rtol=1e-6)
    for c, name in enumerate(("_training", "", "_k_thresh")):
        probability = 1 / found["post_selection_probability"][-1, 1, c]
        np.testing.assert_allclose(probability, record[f"post_selection_measurements{name}"])
    # training.py ranks k*'w, not the cosine; at zero both have the same sign
    for name, at in (("", MEDIAN), ("_at_zero", 0)):
        np.testing.assert_allclose(found["accuracy_unnormalised"][-1, 1, :, at], record[f"accuracy_sparse{name}"])
        np.testing.assert_allclose(found["accuracy_weighted_diagonal"][-1, 1, at], record[f"accuracy_diagonal{name}"])
    np.testing.assert_allclose(found["accuracy_noiseless"][-1, 1, :, 0], record["accuracy_sparse_at_zero"])
    assert random("x").random() == trial.random(0, "emulation x").random()


@pytest.mark.slow
def test_resume_computes_nothing_again(folder, monkeypatch):
    assert emulate(folder) == 0
    path = folder / "fully-connected_emulation.npz"
    kept = path.read_bytes()
    computed = []
    original = emulation.emulate_trial
    monkeypatch.setattr(emulation, "emulate_trial", lambda *a: computed.append(a) or original(*a))
    assert emulate(folder) == 0 and not computed
    assert path.read_bytes() == kept
    # a kernel has changed: one trial again; another version: all of that network
    rng = np.random.default_rng(1)
    write_trial(folder, "fully-connected", 16, 1, rng)
    assert emulate(folder) == 0 and len(computed) == 1
    monkeypatch.setattr(emulation, "VERSION", emulation.VERSION + 1)
    assert emulate(folder, "--networks", "fully-connected") == 0 and len(computed) == 1 + 4
    assert (folder / "fully-connected_emulation.npz.1.old").exists()


@pytest.mark.slow
def test_subset_is_the_same_trial_and_is_merged(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("subset")
    arguments = ["--input", str(folder), "--output", str(other), "--networks", "fully-connected"]
    assert emulation.main([*arguments, "--data-sizes", "16", "--trials", "1"]) == 0
    assert emulation.main([*arguments, "--data-sizes", "4"]) == 0
    assert emulate(folder) == 0
    name = "fully-connected_emulation.npz"
    both = [read_results(each / name).records for each in (folder, other)]
    assert sorted(both[1]) == [(4, None, 0), (4, None, 2), (16, None, 0)]
    for key, record in both[1].items():
        for quantity, value in record.items():
            np.testing.assert_array_equal(value, both[0][key][quantity], err_msg=quantity)


def test_digits_are_announced(tmp_path, capsys):
    write_trial(tmp_path, "digits-fully-connected", 4, 0, np.random.default_rng(0))
    assert emulate(tmp_path) == 0
    out = capsys.readouterr().out
    assert "NOT OF MNIST" in out and "nothing to emulate of the convolutional network" in out
    assert (tmp_path / "digits-fully-connected_emulation.npz").exists()


def test_bad_inputs_are_one_line(folder, capsys):
    def complaint(*arguments):
        assert emulate(folder, *arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith(f"{options.program()}: error: "), lines
        return lines[0]

    assert "no such complete trial" in complaint("--seed", 5)
    assert "no such complete trial" in complaint("--data-sizes", 64)
    path = folder / "convolutional_seed0_data16_trial1_kernel_test.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-500] + b"x" + good[-499:])
    assert path.name in complaint("--networks", "convolutional")
    label = {"network": "convolutional", "digits": [1, 0], "size": 16, "test_size": 12}
    write_kernel(path, np.zeros((12, 16)), label)
    assert "no |k*>" in complaint("--networks", "convolutional")
    path.write_bytes(good)
    path.with_name("convolutional_seed0_data16_trial0_kernel_train.npy").unlink()
    assert "data16_trial0_kernel_train" in complaint("--networks", "convolutional")
    taken = folder / "taken"
    taken.write_text("")
    assert "is a file" in complaint("--output", taken)


@pytest.mark.parametrize("option", [("--trials", "0"), ("--networks", "quantum"), ("--seed", "x")])
def test_bad_options_end_with_status_2(option, capsys):
    with pytest.raises(SystemExit) as ended:
        emulation.main(list(option))
    assert ended.value.code == 2 and option[1] in capsys.readouterr().err


@pytest.mark.slow
def test_script_explains_itself():
    command = [sys.executable, str(ROOT / "emulation.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for flag in ("--networks", "--data-sizes", "--trials", "--seed", "--input", "--output"):
        assert flag in done.stdout
    assert done.stdout.count("(default:") == 6
