"""The emulated algorithm: the cost of a prediction by hand, one whole trial, and the script."""

import dataclasses
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, swap_trials

import emulation
import training
from quantum import assumptions, queries, sequential, solvers
from runtime import options, stored
from runtime.checkpoints import ENTRY, read_kernel, write_kernel
from runtime.linear_algebra import solve
from runtime.results import origin_of, read_results
from runtime.trials import Run, Trial

NETWORKS = list(training.selections)
READ = {name: i for i, name in enumerate(emulation.READOUTS)}


@pytest.fixture(autouse=True)
def no_quick_trials(monkeypatch):
    """Trials in folders alone."""
    monkeypatch.setattr(emulation, "quick_trials", {})


def made_up_kernels(train, test, k_thresh, y, label):
    """A trial's kernels."""
    trial = training.Trial(training.make_networks()["fully-connected"], (8, 9), len(train), 0)
    thresholds = training.KernelScale(k_thresh)
    return training.TrialKernels(trial, 3, np.nan, train, test, y, label, thresholds)


# --------------------------------------------------------------------------------------------------
# States and costs by hand
# --------------------------------------------------------------------------------------------------


def test_post_selection_by_hand():
    label = np.array([1, -1])
    train, test = np.array([[9.0, 2], [2, 9]]), np.array([[5.0, 0], [1, -1]])
    made = made_up_kernels(train, test, 10, label, label)
    held = emulation.held_by_qram(made, random_by_purpose)
    # divided by the largest entry 0.5; clipped at the training matrix's 2; as it is
    expected = [[[1, 0], [0.2, -0.2]], [[1, 0], [0.5, -0.5]], [[0.5, 0], [0.1, -0.1]]]
    np.testing.assert_allclose(list(held.k.values()), expected)
    assert list(held.k) == list(training.divisors)
    np.testing.assert_allclose(held.probabilities, [[0.5, 0.04], [0.5, 0.25], [0.125, 0.01]])
    made = made_up_kernels(np.eye(2), test, 10, label, label)
    held = emulation.held_by_qram(made, random_by_purpose)
    # No such entry: the sign is what is left.
    assert held.k["training set"].tolist() == [
        [1, 0],
        [1, -1],
    ]


def test_queries_by_hand():
    prepared = solvers.Prepared(np.ones(2), 5, 0.25, 3)  # 20 oracle queries, 3 to the labels
    found = queries.each_time(prepared, np.array([0.25, 1.0, 0.95]))
    assert found.shape == (len(queries.READOUTS), len(queries.KINDS), 3)
    # shots: (4 + 4)/2 and (4 + 1)/2 runs, of 2 queries; (1 + 1/4)/(2/4) of them go on to |w>, of 20
    # and in all 23
    np.testing.assert_allclose(found[READ["shots"], :, :2].T, [[50, 8, 65.5], [50, 5, 62.5]])
    # amplification, three uses for one, is not worth it
    np.testing.assert_allclose(found[READ["amplified shots"]], found[READ["shots"]])
    # estimation: one round for |k*>, none for |w>, so that K = 1/2.5 is kept
    expected = np.sqrt(2 * 2.5 - 1) * np.array([[20, 6, 29], [20, 2, 25]])
    estimation = found[READ["amplitude estimation"]]
    np.testing.assert_allclose(estimation[:, :2].T, expected)
    # P = 0.95 is left as it is; 1/K = (4 + 1/0.95)/2 is above 2.5, so that |w> has to be made 1
    runs = (1 + 1 / 0.95) / 2
    np.testing.assert_allclose(estimation[:, 2], np.sqrt(2 * runs - 1) * np.array([60, 2, 71]))
    # repetitions that are measured have no inverse; the other readouts stay
    measured = dataclasses.replace(prepared, coherent=False)
    measured = queries.each_time(measured, np.array([0.25, 1.0, 0.95]))
    assert np.isnan(measured[2]).all()
    np.testing.assert_array_equal(measured[:2], found[:2])


def test_mean_queries_by_hand():
    """Two images, the first one cheap: a median would hide the one that costs most."""
    each = np.array([[[0, 0.0], [1, 5], [1, 5]]] * 3)
    times = {"shots": np.array([[10, 10.0], [2, 20]]), "uses": np.array([[np.inf, np.inf], [1, 3]])}
    found = queries.mean_queries(each, times)
    assert found[0].tolist() == found[1].tolist() == [[0, 30, 30], [0, 51, 51]]
    assert found[2].tolist() == [[0, np.inf, np.inf], [0, 8, 8]]  # nothing for ever is nothing


def test_cost_counts_the_other_half():
    label, n = np.array([1.0, 1, -1, -1]), 4
    calibration = np.array([True, False, True, False])
    k = np.where(calibration[:, None], 0.25, 0.5) * np.ones(n)  # P = 1/16 and 1/4
    held = emulation.Held(dict.fromkeys(training.divisors, k), label, calibration)
    spent = np.array([1000.0, 2, 1000, 4])
    reading = sequential.Reading(0.1, 9.0, np.ones(4), spent, 7.0, np.ones(4))
    readings = dict.fromkeys(emulation.UNITS, reading)
    prepared = solvers.Prepared(np.ones(n), 0, 1.0)  # |y>: one phase query a run
    found = emulation.cost(prepared, held, readings)
    assert found.shape == tuple(emulation.shape_of(emulation.COSTS))
    each = 2 * (1 + 4) / 2 + 1  # of a shot
    np.testing.assert_allclose(found[READ["shots"], 0, :, 2], [7 * each, 3 * each])
    assert np.all(found[..., 0] == 0)
    # t: every image of the calibration half, by fixed effort
    once = emulation.calibration_cost(prepared, held, readings)
    np.testing.assert_allclose(once[READ["shots"]], 2 * 7 * (2 * (1 + 16) / 2 + 1))
    lost = solvers.Prepared(np.ones(n), 5, np.nan)
    assert np.isnan(emulation.cost(lost, held, readings)).all()
    assert np.isnan(emulation.calibration_cost(lost, held, readings)).all()


# --------------------------------------------------------------------------------------------------
# One trial
# --------------------------------------------------------------------------------------------------


def random_by_purpose(purpose):
    return training.random_generator(0, "test", 16, 0, purpose)


@pytest.fixture(scope="module")
def kernels():
    """A trial of 16 points on two clusters, its kernel far from diagonal, and 24 test points."""
    rng = np.random.default_rng(8)
    y, label = np.repeat([1.0, -1.0], 8), np.repeat([1.0, -1.0], 12)
    x, test = rng.standard_normal((16, 8)), rng.standard_normal((24, 8))
    x[:, 0], test[:, 0] = 2 * y, 2 * label
    return made_up_kernels(x @ x.T + 6 * np.eye(16), test @ x.T, 10, y, label)


@pytest.fixture(scope="module")
def trial(kernels):
    """Its record, with a K~ of a random pattern, one that is diagonal, and one that is singular."""
    pattern = training.sparsity_pattern(16, random_by_purpose("pattern"))
    matrices = [kernels.train * pattern.toarray(), 3 * np.eye(16), np.diag(np.arange(16.0))]
    return matrices, emulation.emulate_trial(kernels, matrices, random_by_purpose)


def test_record_of_a_trial(kernels, trial):
    matrices, record = trial
    assert set(record.data_vars) == set(emulation.DESCRIPTIONS)
    assert record.cost.dims == ("pattern", *emulation.RUNS, *emulation.COSTS)
    assert record.cost_without_solver.dims == ("threshold", *emulation.COSTS)
    assert record.cost.attrs == {"long_name": "queries of one prediction", "units": "queries"}
    y, label = kernels.train_label, kernels.test_label
    first = record.sel(approximation="sparsified", pattern=0)
    exact = solve(matrices[0], y)
    overlap = training.overlaps(kernels.test_normalised, exact)
    np.testing.assert_allclose(first.overlap, overlap)
    # every state that is emulated is within epsilon of the direct solve
    error = record.solver_error.isel(pattern=slice(2))
    counted = [name for name in solvers.SOLVERS if name not in solvers.EMULATED]
    assert error.sel(solver=counted).isnull().all()
    assert error.sel(solver=["CKS series", "QSVT", "kernel reflection"]).notnull().all()
    assert (error.isnull() | (error <= record.epsilon)).all()
    # epsilon is a tenth of the shot noise of the shots that fixed effort needs
    fixed = first.needed.sel(unit="shots", effort="fixed")
    expected = np.minimum(0.1 / np.sqrt(fixed), emulation.LARGEST_EPSILON)
    np.testing.assert_allclose(first.epsilon, expected)
    # half the smallest eigenvalue costs more, twice of it loses the state
    assert (first.cost_kappa_doubled > 1.5).all()
    assert (first.error_kappa_halved > first.epsilon.sel(threshold="calibrated")).all()
    assert record.bits_test[:2].notnull().all() and (record.bits_matrix[:2] < 20).all()
    # thresholds, and what is counted: the half that t is not from
    calibration = emulation.held_by_qram(kernels, random_by_purpose).calibration
    levels = [np.median(overlap[calibration]), np.median(overlap), 0]
    np.testing.assert_allclose(first.level, levels)
    for t, level in enumerate(levels):
        right = np.mean((overlap > level)[~calibration] == (label > 0)[~calibration])
        assert first.accuracy_noiseless[t] == right
    low, high = first.accuracy_interval.sel(bound="low"), first.accuracy_interval.sel(bound="high")
    inside = (low < first.accuracy_read) & (first.accuracy_read < high + 1e-9)
    assert inside.all()
    kept = first.accuracy_read / first.accuracy_noiseless
    np.testing.assert_allclose(first.accuracy_kept, kept)
    common = label, levels[0], calibration, emulation.SHARE
    reading = sequential.sequential_shots(overlap, *common)
    spent = first.needed.sel(unit="shots", threshold="calibrated")
    assert spent.values.tolist() == [reading.fixed, reading.spent[~calibration].mean()]


def test_identity_is_the_diagonal_algorithm(trial):
    """K~ = 3 I needs no oracle query through I + E, and predicts and costs what |y> does."""
    record = trial[1].isel(pattern=1)
    series = record.sel(solver="series in E", encoding="I + E")
    sparsified, diagonal = (
        record.sel(approximation="sparsified"),
        record.sel(approximation="diagonal"),
    )
    assert (series.uses == 0).all()
    np.testing.assert_allclose(sparsified.overlap, diagonal.overlap)
    np.testing.assert_array_equal(sparsified.needed, diagonal.needed)
    # the same random numbers: not even estimation differs
    np.testing.assert_array_equal(series.cost, series.cost_without_solver)
    once = series.calibration_queries_without_solver
    np.testing.assert_array_equal(series.calibration_queries, once)
    assert record.bits_matrix == 1


def test_classical_costs_by_hand():
    """A path of three points, and a sampler that reads three entries or one: operations."""
    matrix = np.array([[4.0, 1, 0], [1, 4, 1], [0, 1, 4]])
    y, k, label = np.array([1.0, 1, -1]), np.array([[1.0, 0, 0], [0, 0, 1]]), np.array([1.0, -1])
    held = emulation.Held(dict.fromkeys(training.divisors, k), label, np.zeros(2, bool))
    exact = solve(matrix, y)
    by_threshold = [
        {"reads": sequential.Reading(0.1, 3.0, np.ones(2), np.full(2, reads), 3.0, np.ones(2))}
        for reads in (3.0, 2.0, 1.0)
    ]
    epsilons, levels = np.array([1e-6, 1e-2, 0.3]), np.zeros(3)
    found = emulation.classical_costs(matrix, y, exact, held, epsilons, levels, by_threshold)
    length, alone = np.array(found["local_length"]), found["local_operations"]
    at_once = 3 + length * (2 * 4 + 3)
    assert length[0] > length[2] and alone[2] < at_once[2] and 3 * alone[0] > at_once[0]
    anew = [i * (2 * 7 + 10 * 3) for i in found["iterations"]]
    spent = found["operations_classical"][..., 1]  # sequential
    np.testing.assert_allclose(spent[0], [6, 18, 18 + at_once[0], 6 + anew[0], 6 + 27])
    np.testing.assert_allclose(spent[2], [6, 2, 2 + alone[2], 6 + anew[2], 6 + 27])
    np.testing.assert_allclose(found["operations_classical"][2, :2, 0], [6, 6])  # fixed: 3 reads
    assert found["local_accuracy"].tolist() == [1, 1, 1] and found["dominant_rows"] == 1


def test_clipping_is_that_of_the_known_divisor():
    """k* = (3, 1) and (1, 3) look alike when clipped at 1."""
    far = np.repeat([[3.0, 1], [1, 3]], 4, axis=0)
    k = {"test set": far, "training set": np.ones((8, 2)), "fixed constant": far}
    label = np.repeat([1.0, -1], 4)
    held = emulation.Held(k, label, np.arange(8) % 2 == 0)
    found, _ = emulation.read_out(held, np.array([1.0, -1]), random_by_purpose)
    assert found["accuracy_noiseless"] == [1, 1, 1]
    assert found["accuracy_clipped"] == [0.5, 0.5, 0.5]


def test_what_a_wrong_eigenvalue_costs():
    """Half of the smallest eigenvalue: the ratio of uses/sqrt(p) of the two calls of QSVT."""
    matrix = np.array([[2.0, 0.9], [0.9, 2]])
    encodings = solvers.block_encodings(matrix, np.array([1.0, 0.2]))
    exact = solve(matrix, np.array([1.0, 0.2]))
    cost, error = assumptions.misjudged_eigenvalue(encodings, np.array([0.01, 0.01]), exact)
    for e, encoding in enumerate(encodings.values()):
        kappas = encoding.kappa, 2 * encoding.kappa
        right, low = (
            solvers.prepare("QSVT", dataclasses.replace(encoding, kappa=each), 0.01)
            for each in kappas
        )
        spent = [run.uses / math.sqrt(run.success_probability) for run in (right, low)]
        assert cost[0, e] == pytest.approx(spent[1] / spent[0]) and cost[0, e] > 1
    assert np.all(error > 0.01)


def test_singular_matrix_is_told(trial):
    record = trial[1].isel(pattern=2)
    for name in emulation.OF_MATRICES:
        assert record[name].isnull().all(), name
    for name in emulation.OF_PREDICTIONS:
        assert record[name].sel(approximation="sparsified").isnull().all(), name
        assert record[name].sel(approximation="diagonal").notnull().any(), name


def test_trial_is_the_same_again(kernels, trial):
    matrices, record = trial
    assert emulation.emulate_trial(kernels, matrices, random_by_purpose).identical(record)


def test_assumptions_have_their_quantities(trial):
    names = [name for _, name in assumptions.ASSUMPTIONS.values() if name]
    assert all(name in trial[1] for name in names) and len(names) >= 6


# --------------------------------------------------------------------------------------------------
# The command line, on kernels made up
# --------------------------------------------------------------------------------------------------


DEPTHS = {"fully-connected": 3, "convolutional": 96}


def write_trial(folder, prefix, size, trial, rng, seed=0, test_images=12, **changes):
    """The kernels of one trial: images of 8 pixels, inner products as a kernel."""
    network = next(network for network in NETWORKS if network in prefix)
    x, y = rng.standard_normal((size, 8)), np.repeat([1.0, -1.0], size // 2)
    test, label = rng.standard_normal((test_images, 8)), np.repeat([1.0, -1.0], test_images // 2)
    x[:, 0], test[:, 0] = 2 * y, 2 * label
    about = {
        "dataset": "digits" if prefix.startswith("digits-") else "mnist",
        "dataset_sha256": "0" * 64, "digits": list(training.selections[network]),
        "network": network, "size": size, "trial": trial, "seed": seed, "depth": DEPTHS[network],
        "precision": "float64", "formulas": 1, **changes,
    }  # fmt: skip
    stem = f"{prefix}_seed{seed}_data{size}_trial{trial}"
    write_kernel(folder / f"{stem}_kernel_train.npy", x @ x.T + 8 * np.eye(size), about)
    write_kernel(
        folder / f"{stem}_kernel_test.npy", test @ x.T / 10, about | {"test_size": test_images}
    )


@pytest.fixture
def folder(tmp_path):
    """Kernels of both networks; one fully-connected trial is incomplete, one number is skipped."""
    rng = np.random.default_rng(8)
    for network in NETWORKS:
        for number in (0, 1):
            write_trial(tmp_path, network, 16, number, rng)
    for size, number in ((4, 0), (4, 2), (8, 0)):
        write_trial(tmp_path, "fully-connected", size, number, rng)
    (tmp_path / "fully-connected_seed0_data8_trial0_kernel_test.npy").unlink()
    return tmp_path


def emulate(folder, *arguments):
    """main() on a folder, as input and output."""
    return emulation.main(["--input", str(folder), "--output", str(folder), *map(str, arguments)])


@pytest.fixture
def quick(monkeypatch):
    """Records that are computed at once; the size and number of those that were computed."""
    computed = []

    def record(kernels, matrices, random):
        computed.append((kernels.trial.size, kernels.trial.number))
        costs = np.full(emulation.shape_of((*emulation.RUNS, *emulation.COSTS)), 2.0)
        operations = np.full(emulation.shape_of(("threshold", "method", "effort")), 3.0)
        values = {"sparsity": random("x").random(), "cost": costs}
        record = emulation.labelled(values | {"operations_classical": operations})
        return record.expand_dims(approximation=["sparsified"], pattern=[0])

    monkeypatch.setattr(emulation, "emulate_trial", record)
    return computed


@pytest.mark.slow
def test_run_and_results(folder, capsys):
    assert emulate(folder) == 0
    assert "nan" not in capsys.readouterr().out.lower()
    results = read_results(folder / "fully-connected_emulation.nc")
    assert results.n.values.tolist() == [4, 16]
    computed = results.overlap.notnull().all(["approximation", "pattern", "image"])
    assert computed.values.tolist() == [[True, False, True], [True, True, False]]
    assert results.cost.dims == ("n", "trial", "pattern", *emulation.RUNS, *emulation.COSTS)
    for axis, labels in emulation.LABELS.items():
        assert results[axis].values.tolist() == labels
    assert all({"long_name", "units"} <= set(values.attrs) for values in results.data_vars.values())
    assert (
        results.test_images.sel(n=16, trial=1) == 12
        and results.precision.sel(n=16, trial=1) == "float64"
    )
    assert origin_of(results) == {
        "dataset": "mnist", "dataset_sha256": "0" * 64, "network": "fully-connected",
        "classes": [8, 9], "seed": 0, "emulation": emulation.VERSION,
    }  # fmt: skip
    assert (folder / "convolutional_emulation.nc").exists()


@pytest.mark.parametrize("network", NETWORKS)
def test_matrices_are_those_of_training(folder, network):
    """K~ and |k*> of a stored trial are what training.py's own functions make of the same files."""
    assert emulate(folder, "--networks", network, "--data-sizes", 16, "--trials", 1) == 0
    results = read_results(folder / f"{network}_emulation.nc").sel(n=16, trial=0)
    kernels = training.stored_kernels(folder, network, 16, 0, 0)
    record = training.trial_quantities(kernels, training.trial_patterns(0, kernels.trial))
    record = record.sel(convention="original")
    sparsified = {"approximation": "sparsified"}
    np.testing.assert_array_equal(results.sparsity, record.sparsity.sel(sparsified))
    at_zero = training.readout_measurements(results.overlap)
    expected = record.readout_measurements.sel(threshold="zero").sel(
        approximation=results.approximation
    )
    np.testing.assert_allclose(at_zero, expected, rtol=1e-6)
    measurements = 1 / results.post_selection_probability
    np.testing.assert_allclose(measurements, record.post_selection_measurements)


def stored_trials(folder, network="fully-connected", dataset="auto"):
    """What is there of a network."""
    classes = training.selections[network]
    return stored.stored_trials(folder, dataset, training.make_networks()[network], classes, 0)


def test_draws_are_those_of_the_trial(folder):
    trial = emulation.stored_trial(stored_trials(folder), 16, 1)
    expected = trial.kernels.trial.random(0, "emulation x").random()
    assert trial.random("x").random() == expected


def only_entries(path, kernels):
    """Keep of kernel_train's file the entries of the trial's patterns, in kernel_entries."""
    array, label = read_kernel(path)
    rows, columns = training.entries_of_patterns(SimpleNamespace(seed=0), kernels.trial)
    entries = np.zeros(len(rows), ENTRY)
    entries["row"], entries["column"], entries["value"] = rows, columns, array[rows, columns]
    del label["sha256"]
    write_kernel(path.with_name(path.name.replace("train", "entries")), entries, label)
    path.unlink()


def test_some_entries_of_a_kernel_are_enough(tmp_path, monkeypatch):
    """A K of which only some entries are known, and a sparse K~, give what all of it gives."""
    write_trial(tmp_path, "fully-connected", 64, 0, np.random.default_rng(2))
    whole = emulation.stored_trial(stored_trials(tmp_path), 64, 0)
    path = tmp_path / "fully-connected_seed0_data64_trial0_kernel_train.npy"
    expected = emulation.emulate_trial(whole.kernels, whole.matrices[:1], whole.random)
    only_entries(path, whole.kernels)
    monkeypatch.setattr(training, "dense_limit", 16)
    part = emulation.stored_trial(stored_trials(tmp_path), 64, 0)
    assert not part.kernels.is_whole and part.matrices[0].nnz < 64**2 / 2
    for matrix, other in zip(part.matrices, whole.matrices, strict=True):
        np.testing.assert_array_equal(matrix.toarray(), other)
    record = emulation.emulate_trial(part.kernels, part.matrices[:1], part.random)
    # what the training set's largest known entry divides is another matter
    others = ["accuracy_clipped", "post_selection_probability", "bits_test"]
    others += [name for name in record if "divisor" in record[name].dims]
    for name in set(record) - set(others):
        np.testing.assert_allclose(record[name], expected[name], rtol=1e-6, atol=1e-9, err_msg=name)
    fixed = record.sel(divisor="fixed constant"), expected.sel(divisor="fixed constant")
    np.testing.assert_allclose(fixed[0].cost, fixed[1].cost, rtol=1e-6)


def test_quick_trials_are_computed(tmp_path, digits, monkeypatch):
    """What is computed of some entries is what the whole kernels in a folder give."""
    run = Run(0, 40, tmp_path, "numba", "float64", digits)
    trial = Trial(training.make_networks()["fully-connected"], (8, 9), 64, 1)
    kernels = training.trial_kernels(run, trial)
    read = emulation.stored_trial(stored_trials(tmp_path, dataset="digits"), 64, 1)
    computed = emulation.computed_trial(run, trial)
    assert computed.fingerprint == read.fingerprint  # a small one is computed as it was
    monkeypatch.setattr(training, "dense_limit", 16)
    few = emulation.computed_trial(run, trial).kernels
    assert not few.is_whole and few.train.nnz < 64**2 / 2
    rows, columns = few.train.nonzero()
    values = few.train[rows, columns]
    np.testing.assert_allclose(values, kernels.train[rows, columns], rtol=1e-9)
    for name, divided in training.divisors.items():
        np.testing.assert_allclose(divided(few), divided(kernels), rtol=1e-9, err_msg=name)
    # beside those in a folder, as far as there are images
    trials = stored.with_computed(
        stored_trials(tmp_path, dataset="digits"), run, trial.network, (8, 9), {64: 2, 4096: 1}
    )
    assert trials.numbers == {64: [0, 1]} and trials.computed == {(64, 0)}
    source = emulation.source(trials, trial.network, 64, 0)
    assert source.about["test_images"] == 40 and source.inputs().kernels.trial.number == 0
    other = dataclasses.replace(run, seed=1)
    again = emulation.source(dataclasses.replace(trials, run=other), trial.network, 64, 0)
    assert again.fingerprint != source.fingerprint
    foreign = dataclasses.replace(run, images=dataclasses.replace(digits, sha256="0" * 64))
    kept = stored.with_computed(trials, foreign, trial.network, (8, 9), {32: 1})
    assert kept is trials
    none = stored.with_computed(None, run, trial.network, (3, 5), {32: 1})
    assert none.prefix == "digits-fully-connected-3v5" and none.all() == [(32, 0)]


def test_resume_computes_nothing_again(folder, quick, monkeypatch, capsys):
    assert emulate(folder) == 0 and len(quick) == 6
    path = folder / "fully-connected_emulation.nc"
    kept = path.read_bytes()
    quick.clear()
    assert emulate(folder) == 0 and not quick
    assert path.read_bytes() == kept and "has all of these trials" in capsys.readouterr().out
    # a kernel has changed: one trial again; other code: all of that network
    write_trial(folder, "fully-connected", 16, 1, np.random.default_rng(1))
    assert emulate(folder) == 0 and quick == [(16, 1)]
    monkeypatch.setattr(emulation, "code_version", lambda *files: "other")
    assert emulate(folder, "--networks", "fully-connected") == 0 and len(quick) == 1 + 4
    assert not list(folder.glob("*.old"))


def test_subset_is_the_same_trial_and_is_merged(folder, quick, tmp_path_factory):
    other = tmp_path_factory.mktemp("subset")
    arguments = ["--input", str(folder), "--output", str(other), "--networks", "fully-connected"]
    assert emulation.main([*arguments, "--data-sizes", "16", "--trials", "1"]) == 0
    assert emulation.main([*arguments, "--data-sizes", "4"]) == 0
    assert quick == [(16, 0), (4, 0), (4, 2)]
    assert emulate(folder) == 0
    whole, part = (read_results(each / "fully-connected_emulation.nc") for each in (folder, other))
    for size, number in quick[:3]:
        key = {"n": size, "trial": number}
        assert whole.sel(key).drop_vars("finished").equals(part.sel(key).drop_vars("finished"))
    assert part.test_images.notnull().sum() == 3


def test_digits_are_announced(tmp_path, quick, capsys):
    write_trial(tmp_path, "digits-fully-connected", 4, 0, np.random.default_rng(0))
    assert emulate(tmp_path) == 0
    out = capsys.readouterr().out
    assert "NOT MNIST" in out and "nothing to emulate of the convolutional network" in out
    assert (
        origin_of(read_results(tmp_path / "digits-fully-connected_emulation.nc"))["dataset"]
        == "digits"
    )


def test_other_classes_have_their_own_file(tmp_path, quick):
    rng = np.random.default_rng(0)
    for prefix, classes in (("fully-connected", [8, 9]), ("fully-connected-3v5", [3, 5])):
        write_trial(tmp_path, prefix, 4, 0, rng, digits=classes)
    assert emulate(tmp_path) == 0
    assert [path.name for path in tmp_path.glob("*.nc")] == ["fully-connected_emulation.nc"]
    assert emulate(tmp_path, "--classes", 3, 5) == 0
    assert origin_of(read_results(tmp_path / "fully-connected-3v5_emulation.nc"))["classes"] == [
        3,
        5,
    ]


def complaint(capsys, folder, *arguments):
    """The one line of a run that was refused."""
    assert emulate(folder, *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{options.program()}: error: "), lines
    return lines[0]


def test_bad_inputs_are_one_line(folder, capsys, quick):
    assert "no such complete trial" in complaint(capsys, folder, "--seed", 5)
    assert "no such complete trial" in complaint(capsys, folder, "--data-sizes", 64)
    convolutional = "--networks", "convolutional"
    path = folder / "convolutional_seed0_data16_trial1_kernel_test.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-700] + bytes([good[-700] ^ 1]) + good[-699:])
    assert path.name in complaint(capsys, folder, *convolutional)
    path.write_bytes(good)
    label = stored.label_of(path)
    del label["sha256"]
    write_kernel(path, np.zeros((12, 16)), label)
    assert "no |k*>" in complaint(capsys, folder, *convolutional)
    path.write_bytes(good)
    path.with_name("convolutional_seed0_data16_trial0_kernel_train.npy").unlink()
    assert "data16_trial0_kernel_train" in complaint(capsys, folder, *convolutional)
    taken = folder / "taken"
    taken.write_text("")
    assert "is a file" in complaint(capsys, folder, "--output", taken)


def test_kernels_of_another_name_are_refused(folder, capsys, quick):
    swap_trials(folder, "fully-connected_seed0_data4_trial0", "fully-connected_seed0_data4_trial2")
    line = complaint(capsys, folder, "--networks", "fully-connected")
    assert "data4_trial0" in line and "trial 2, not 0" in line
    # of another dataset, and beside those of other images
    write_trial(folder, "convolutional", 16, 0, np.random.default_rng(0), dataset="digits")
    assert "digits" in complaint(capsys, folder, "--networks", "convolutional")
    write_trial(folder, "convolutional", 16, 0, np.random.default_rng(0), dataset_sha256="1" * 64)
    assert "dataset_sha256" in complaint(capsys, folder, "--networks", "convolutional")
    for path in folder.glob("*.npy"):
        path.unlink()
    write_trial(folder, "digits-fully-connected", 4, 0, np.random.default_rng(0), dataset="kmnist")
    assert "of kmnist, not what its name says" in complaint(capsys, folder)


@pytest.mark.parametrize("option", [("--trials", "0"), ("--networks", "quantum"), ("--seed", "x")])
def test_bad_options_end_with_status_2(option, capsys):
    with pytest.raises(SystemExit) as ended:
        emulation.main(list(option))
    assert ended.value.code == 2 and option[1] in capsys.readouterr().err


@pytest.mark.slow
def test_script_explains_itself():
    command = [sys.executable, str(ROOT / "emulation.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    options = (
        "--networks",
        "--data-sizes",
        "--trials",
        "--seed",
        "--dataset",
        "--classes",
        "--input",
        "--output",
    )
    for flag in options:
        assert flag in done.stdout
    assert done.stdout.count("(default:") == len(options)
