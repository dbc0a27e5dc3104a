"""The whole script: tiny runs of both datasets, sweeps, other classes, verification, growth."""

import importlib.util
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import xarray as xr
from conftest import (
    DRAWS,
    QUICK,
    ROOT,
    SHALLOW,
    TINY,
    call,
    complaint,
    contents,
    flip,
    load_once,
    relabel,
    relative_error,
    run_script,
    succeed,
)

import training
from ntk import convolutional_ntk
from runtime import checkpoints, kernels, options, sitting, verification
from runtime.kernels import Need
from runtime.results import (
    code_version,
    medians_over_images,
    read_results,
    relative_difference,
    write_results,
)
from runtime.trials import Run, Trial

PLAN = ("--data-sizes", 4, 16, 8, "--trials", 2, 1, 0, "--test-size", 6)
NETWORKS = training.make_networks()


@pytest.fixture(scope="module", params=["digits", "mnist"])
def finished(request, tmp_path_factory):
    """A finished tiny run of both networks on each dataset: (dataset, folder, what it printed)."""
    folder = tmp_path_factory.mktemp(request.param) / "output"
    where = ()
    if request.param == "mnist":
        where = ("--mnist-dir", request.getfixturevalue("mnist_dir"))
    printed = succeed("--dataset", request.param, *where, "--output", folder, *PLAN)
    return request.param, folder, printed


def prefix_of(dataset, network):
    """What the names of files begin with."""
    return network if dataset == "mnist" else f"{dataset}-{network}"


# ---- what a run writes ----


@pytest.mark.parametrize("network", NETWORKS)
def test_arrays_of_a_trial(finished, network):
    dataset, folder, _ = finished
    for size, trial in [(4, 0), (4, 1), (16, 0)]:
        stem = folder / f"{prefix_of(dataset, network)}_seed0_data{size}_trial{trial}"
        arrays = {}
        for name in ("train_label", "test_label", "kernel_train", "kernel_test"):
            arrays[name] = np.load(f"{stem}_{name}.npy", allow_pickle=False)
        assert list(arrays["train_label"]) == [1] * (size // 2) + [-1] * (size // 2)
        assert list(arrays["test_label"]) == [1] * 3 + [-1] * 3
        train, test = arrays["kernel_train"], arrays["kernel_test"]
        assert train.shape == (size, size) and train.dtype == np.float64
        assert np.array_equal(train, train.T) and np.linalg.eigvalsh(train).min() > 0
        normalized = np.load(f"{stem}_kernel_test_normalized.npy", allow_pickle=False)
        assert test.shape == normalized.shape == (6, size) and np.abs(normalized).max() <= 1
        inside = np.abs(normalized) < 1
        assert inside.any()
        ratios = test[inside] / normalized[inside]
        assert np.allclose(ratios, ratios[0])  # one k_thresh for all


@pytest.mark.parametrize("network", NETWORKS)
def test_results_of_all_trials_and_nan_where_there_is_none(finished, network):
    """Readers rely on these names and axes."""
    dataset, folder, _ = finished
    results = read_results(folder / f"{prefix_of(dataset, network)}_results.nc")
    assert results.n.values.tolist() == [4, 16] and results.trial.values.tolist() == [0, 1]
    axes = {
        "approximation": ["exact", "sparsified", "diagonal"],
        "convention": ["original", "corrected"],
        "threshold": ["calibrated", "test median", "zero"],
        "divisor": ["test set", "training set", "fixed constant"],
        "pattern": list(range(30)),
        "first_pattern": [0, 1, 2],
        "image": list(range(6)),
        "draw": list(range(DRAWS)),
    }
    for axis, labels in axes.items():
        assert results[axis].values.tolist() == labels
    trial, matrix = ("n", "trial"), ("approximation", "convention", "pattern")
    wanted = {
        "accuracy": (*trial, *matrix, "threshold"),
        "accuracy_all_images": (*trial, *matrix, "threshold"),
        "readout_measurements": (*trial, *matrix[:2], "first_pattern", "threshold", "image"),
        "post_selection_measurements": (*trial, "divisor", "image"),
        "clipped_share": (*trial, "divisor"),
        "pattern_sparsity": ("n", "convention", "draw"),
    }
    for name in ("sparsity", "condition_number", "numerical_flags", "smallest_eigenvalue"):
        wanted[name] = (*trial, *matrix)
    wanted["positive_definite"] = (*trial, *matrix)
    for name in ("depth", "separability", "off_diagonal_ratio", "test_images", "patterns"):
        wanted[name] = trial
    wanted["all_test_images"] = wanted["label_purity"] = trial
    texts = dict.fromkeys(("precision", "engine", "code", "finished"), trial)
    assert {name: values.dims for name, values in results.data_vars.items()} == wanted | texts
    for name in wanted:
        known = results[name].notnull()
        if name in ("accuracy_all_images", "all_test_images"):
            assert known.sel(n=4).all() if network == "fully-connected" else not known.any()
        elif name != "pattern_sparsity":
            assert known.sel(n=4).all() and known.sel(n=16, trial=0).all(), name
            assert not known.sel(n=16, trial=1).any(), name
        assert results[name].attrs["long_name"] and results[name].attrs["units"]
    assert results.pattern_sparsity.notnull().all()
    accuracy = results.accuracy.sel(n=4)
    assert ((accuracy >= 0) & (accuracy <= 1)).all()
    assert (results.condition_number.sel(n=4) >= 1).all()
    if network == "convolutional":
        assert (results.depth.sel(n=4) == SHALLOW).all()


@pytest.mark.slow
def test_the_convolutional_network_is_96_layers_deep(tmp_path):
    """The real command line, with nothing changed; the time that is announced is measured."""
    arguments = ("--networks", "convolutional", "--data-sizes", 16, "--trials", 1)
    arguments += ("--test-size", 2, "--dataset", "digits", "--output", tmp_path)
    ended = run_script(*arguments)
    assert ended.status == 0 and ended.err == "", ended
    assert re.search(r"the other 168 pairs take about \d+ s\n", ended.out)
    path = tmp_path / "digits-convolutional_seed0_data16_trial0_kernel_train.npy"
    _, label = checkpoints.read_kernel(path)
    results = read_results(tmp_path / "digits-convolutional_results.nc")
    assert label["depth"] == results.depth.item() == 96


def test_convolutional_normalisation_comes_from_the_reference_trial(finished):
    dataset, folder, _ = finished
    stem = str(folder / f"{prefix_of(dataset, 'convolutional')}_seed0_data")
    reference = np.load(f"{stem}16_trial0_kernel_train.npy")
    test = np.load(f"{stem}4_trial1_kernel_test.npy")
    normalized = np.load(f"{stem}4_trial1_kernel_test_normalized.npy")
    k_thresh = np.abs(reference[~np.eye(16, dtype=bool)]).max()
    assert np.allclose(normalized, np.clip(test / k_thresh, -1, 1))


def test_run_json_says_what_was_computed_when_and_where(finished):
    dataset, folder, _ = finished
    sittings = json.loads((folder / "run.json").read_text())["sittings"]
    assert [record["network"] for record in sittings] == list(NETWORKS)
    for record in sittings:
        assert record["dataset"] == dataset and record["precision"] == "float64"
        assert record["what"] == "results" and record["trials"] == {"4": 2, "16": 1}
        assert record["pairs"] == record["pairs_computed"] == 300
        assert {"python", "jax", "numpy", "numba"} <= set(record["versions"])
        assert record["seconds"] > 0


def test_output_announces_the_plan_and_the_stand_in(finished):
    dataset, _, printed = finished
    pairs = 2 * (4 * 5 // 2 + 4 * 6) + (16 * 17 // 2 + 16 * 6)
    trials = "trials: 2 of n = 4, 1 of n = 16"
    for network in NETWORKS:
        assert f"{network}: {pairs:,} pairs of images; {trials}" in printed
    assert f"convolutional: the other {pairs:,} pairs take about" in printed
    assert "engine numba, float64" in printed
    capitals = "THESE ARE SCIKIT-LEARN'S 8x8 DIGITS, NOT MNIST"
    lines = [line.startswith(capitals) for line in printed.splitlines()]
    is_digits = dataset == "digits"
    assert [lines[0], lines[-1]] == [is_digits, is_digits] and sum(lines) == 2 * is_digits


def test_a_run_that_only_reads_says_so(undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "copy")
    printed = succeed(*TINY, "--output", folder)
    for network in NETWORKS:
        assert f"{network}: 252 pairs are in" in printed
        assert f"{network}: 0 trials to compute, 3 are in the results" in printed
    assert "wrote" not in printed and f"{folder}/RESULTS.md" in printed
    assert (folder / "run.json").read_bytes() == (undisturbed / "run.json").read_bytes()
    # Kernels of trials that are in the results are not missed, and foreign ones stay.
    relabel(folder / "digits-convolutional_seed0_data4_trial0_kernel_test.npy", formulas=0)
    (folder / "digits-convolutional_seed0_data4_trial1_kernel_train.npy").unlink()
    printed = succeed(*TINY, "--output", folder)
    assert "convolutional: 252 pairs are in" in printed
    assert "note: convolutional" not in printed and "take about" not in printed
    for path in undisturbed.glob("digits-convolutional_seed0_data4_*_kernel_t*[nt].npy"):
        shutil.copy(path, folder)
    for path in folder.glob("*_results.nc"):
        path.unlink()
    succeed(*TINY, "--output", folder)
    sittings = json.loads((folder / "run.json").read_text())["sittings"]
    assert [record["pairs_computed"] for record in sittings] == [252, 252, 0, 0]


def test_a_trial_is_the_same_whichever_others_run(undisturbed, tmp_path):
    succeed(*QUICK, "--data-sizes", 4, "--trials", 3, "--output", tmp_path)
    found, expected = contents(tmp_path), contents(undisturbed)
    shared = found.keys() & expected.keys() - {"digits-fully-connected_results.nc"}
    assert len(shared) == 10
    for name in shared:
        assert found[name] == expected[name], name


def test_times_in_words():
    words = [sitting.in_words(seconds) for seconds in (0.1, 40, 700, 20000)]
    assert words == ["1 s", "40 s", "12 minutes", "5.6 hours"]


def test_a_log_says_how_long_the_rest_takes(digits, tmp_path, monkeypatch, capsys):
    """600 of 1000 pairs were to be computed, and 200 of these were in eleven minutes."""
    missing = iter([600, 400])
    monkeypatch.setattr(sitting, "missing_pairs", lambda files, need: next(missing))
    monkeypatch.setattr(sitting, "trial_pairs", lambda files, need: 1000)
    clock = [0.0]
    monkeypatch.setattr(sitting.time, "perf_counter", lambda: clock[0])
    run = Run(0, 4, tmp_path, "numba", "float64", digits)
    needed = [(SimpleNamespace(depth=96), Need())]
    it = sitting.Sitting(run, NETWORKS["convolutional"], "results", needed, 1)
    it.__enter__()
    it.progress(400)
    assert capsys.readouterr().out == ""
    clock[0] = 660
    it.progress(200)
    line = "convolutional: 600 of 1,000 pairs after 11 minutes, about 22 minutes more\n"
    assert capsys.readouterr().out == line
    it.bar.close()


def test_where_to_look(tmp_path, monkeypatch):
    """Commands that can be pasted, also for another folder, and none that would find nothing."""
    monkeypatch.chdir(tmp_path)
    plan, pairs = Path("convolutional_results.nc"), Path("convolutional_digit_pairs.nc")
    other = Path("a b")
    tables = "Tables: python report.py writes kernel_output/RESULTS.md"
    assert sitting.where_to_look(Path("kernel_output"), [pairs]) == ""
    for folder, name in (("kernel_output", plan), ("kernel_output", pairs), (other, plan)):
        Path(folder).mkdir(exist_ok=True)
        (folder / name).touch()
    said = sitting.where_to_look(Path("kernel_output"), [plan])
    assert said == f"Figures: jupyter lab analysis.ipynb\n{tables}"
    assert sitting.where_to_look(Path("kernel_output"), [pairs]) == tables
    said = sitting.where_to_look(other, [plan])
    assert "KERNEL_OUTPUT='a b' jupyter" in said and "report.py --output 'a b' writes" in said


def plan_of(run, network, *argv):
    """The trials of one network that a command line asks for."""
    args = options.parse_arguments([str(word) for word in argv], training.constants())
    planned = training.planned_trials(args, run, NETWORKS[network])
    return [(trial.size, trial.number) for _, trial in planned]


def test_without_an_accelerator_the_plan_is_smaller(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "has_accelerator", lambda: False)
    monkeypatch.setattr(sitting, "seconds_per_layer", lambda run: 60 / (96 * 4232))
    run = Run(0, 256, tmp_path, "numba", "float64", digits)
    assert plan_of(run, "convolutional") == [(16, 0)]  # a minute each; the second is too much
    monkeypatch.setattr(sitting, "seconds_per_layer", lambda run: 600 / (96 * 4232))
    assert plan_of(run, "convolutional") == [(16, 0)]
    monkeypatch.setattr(sitting, "seconds_per_layer", lambda run: 1e-9)
    expected = []
    for n, count in training.trials_without_accelerator.items():
        expected += [(n, number) for number in range(count)]
    assert plan_of(run, "convolutional") == expected
    assert plan_of(run, "convolutional", "--verify") == [(16, 0), (32, 0)]
    verified = plan_of(run, "convolutional", "--verify", "--data-sizes", 64, 16)
    assert verified == [(64, 0), (16, 0)]
    assert plan_of(run, "convolutional", "--data-sizes", 512, "--trials", 1) == [(512, 0)]
    assert len(plan_of(run, "fully-connected")) == sum(training.trials)
    monkeypatch.setattr(training, "has_accelerator", lambda: True)
    assert plan_of(run, "convolutional") == expected  # the engine numba does not use it
    on_gpu = replace(run, engine="jax")
    assert len(plan_of(on_gpu, "convolutional")) == sum(training.trials)


def test_without_an_accelerator_the_plan_takes_what_is_there(digits, tmp_path, monkeypatch, capsys):
    """A trial whose kernels are finished, of the same precision; others are announced."""
    monkeypatch.setattr(training, "has_accelerator", lambda: False)
    network = NETWORKS["convolutional"]
    run = Run(0, 256, tmp_path, "numba", "float64", digits)
    sitting.announce(run, network, [], [], 4)
    assert "note: convolutional: without an accelerator 0 of 4" in capsys.readouterr().out
    for (n, number), of in (((32, 2), run), ((64, 3), replace(run, precision="float32"))):
        trial = Trial(network, (1, 0), n, number)
        files = training.trial_files(of, trial)
        for described in kernels.kernel_files(files, Need()):
            array = np.ones(described.shape)
            checkpoints.write_kernel(files.path(described.name), array, described.label)
    assert plan_of(run, "convolutional")[-1] == (32, 2)
    foreign = [(training.trial_files(run, trial), Need())]
    sitting.announce(run, network, foreign, foreign, None)
    note = f"note: convolutional: 2 kernels in {tmp_path}/ will be put aside"
    assert note in capsys.readouterr().out


# ---- sweeps and other classes ----


@pytest.fixture
def planned_and_swept(tmp_path, monkeypatch, request):
    """A folder with the plan and the depth sweep of one network, and a function that sweeps."""
    network, order = request.param
    monkeypatch.setattr(training, "sweep_factors", [0.05, training.depth_factor, 0.2])
    arguments = ("--dataset", "digits", "--networks", network, "--data-sizes", 4)
    arguments += ("--trials", 2, "--test-size", 4, "--output", tmp_path)
    for name in order:
        succeed(*arguments, *(["--depth-sweep"] if name == "sweep" else []))
    return network, tmp_path, lambda: succeed(*arguments, "--depth-sweep")


BOTH = [
    ("fully-connected", ("plan", "sweep")),
    ("fully-connected", ("sweep", "plan")),
    ("convolutional", ("plan", "sweep")),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "planned_and_swept", BOTH, indirect=True, ids=lambda both: f"{both[0]}-{both[1][0]}-first"
)
def test_the_sweep_at_the_plans_own_depth_equals_the_plan(planned_and_swept):
    """Its kernels, in the same files, and every quantity, to the last bit."""
    network, folder, again = planned_and_swept
    plan = read_results(folder / f"digits-{network}_results.nc").drop_vars("finished")
    sweep = read_results(folder / f"digits-{network}_depth_sweep.nc").drop_vars("finished")
    own, settings = training.depth_factor, [0.05, 0.1, 0.2]
    if network == "convolutional":
        own, settings = SHALLOW, [3, 6]
    assert sweep.setting.values.tolist() == settings and sweep.trial.values.tolist() == [0, 1]
    assert (plan.patterns == 30).all() and (sweep.patterns == 3).all()
    first = plan.drop_dims("draw").drop_vars("patterns").sel(pattern=range(3))
    expected = medians_over_images(first)
    swept = sweep.sel(setting=own).drop_vars("patterns")
    of_theorem = set(training.theorem_quantities) if network == "fully-connected" else set()
    assert set(swept.data_vars) == set(expected.data_vars) | of_theorem
    for name, values in expected.data_vars.items():
        assert swept[name].identical(values.assign_coords(setting=own)), name
    assert (sweep.depth.diff("setting") > 0).all()
    if network == "fully-connected":  # deeper, closer to diagonal
        assert (sweep.off_diagonal_ratio.diff("setting") < 0).all()
    names = {path.name for path in folder.glob("*data4_trial0*_kernel_train.npy")}
    stem = f"digits-{network}_seed0_data4_trial0"
    endings = [f"_depth{setting:g}" for setting in settings if setting != own]
    assert names == {f"{stem}{ending}_kernel_train.npy" for ending in ["", *endings]}
    before = contents(folder)
    assert "0 trials to compute" in again()
    assert contents(folder) == before and not list(folder.glob("*.old"))


@pytest.mark.slow
def test_digit_pairs_hold_the_papers_own(tmp_path):
    """All 45, the paper's in its order, whose numbers are the plan's."""
    arguments = ("--dataset", "digits", "--networks", "fully-connected", "--data-sizes", 4)
    arguments += ("--trials", 1, "--test-size", 4, "--output", tmp_path)
    succeed(*arguments)
    succeed(*arguments, "--digit-pairs")
    pairs = read_results(tmp_path / "digits-fully-connected_digit_pairs.nc")
    expected = {frozenset((a, b)) for a in range(10) for b in range(a)}
    settings = pairs.setting.values.tolist()
    assert len(settings) == 45 and "8 9" in settings
    assert {frozenset(map(int, setting.split())) for setting in settings} == expected
    assert "classes" not in json.loads(pairs.attrs["origin"])
    plan = read_results(tmp_path / "digits-fully-connected_results.nc").drop_dims("draw")
    plan = plan.drop_vars("patterns").sel(pattern=range(3))
    own = pairs.sel(setting="8 9")
    for name, values in medians_over_images(plan).data_vars.items():
        if name != "finished":
            assert own[name].identical(values.assign_coords(setting="8 9")), name
    exact = pairs.condition_number.sel(approximation="exact", convention="original", pattern=0)
    assert len(set(exact.values.ravel().tolist())) == 45
    out = succeed(*arguments, "--digit-pairs", "--classes", 9, 8, "--trials", 2)
    assert "1 trials to compute, 1 are in the results" in out


def test_other_classes_have_files_of_their_own(undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "copy")
    succeed(*QUICK, "--classes", 3, 5, "--output", folder)
    papers = {name: found for name, found in contents(folder).items() if "3v5" not in name}
    assert papers == contents(undisturbed)
    name = "digits-fully-connected-3v5_seed0_data4_trial0_kernel_train.npy"
    assert checkpoints.read_kernel(folder / name)[1]["digits"] == [3, 5]
    assert (folder / "digits-fully-connected-3v5_results.nc").exists()
    read = training.stored_kernels(folder, "digits-fully-connected-3v5", 4, 0, 0)
    assert read.trial.classes == (3, 5)


def test_the_papers_classes_by_name_are_the_plan(undisturbed, tmp_path):
    succeed(*QUICK, "--classes", 8, 9, "--output", tmp_path)
    expected = contents(undisturbed)
    assert contents(tmp_path) == {name: expected[name] for name in expected if "fully" in name}


# ---- what is new joins what is there ----


def script_with(path, *changes):
    """training.py with a few lines inserted, as a module of its own."""
    text = (ROOT / "training.py").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("scratch", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "scratch", module)  # dataclasses look there
        spec.loader.exec_module(module)
    return module


QUANTITY = (
    "prediction_quantities = {\n",
    "prediction_quantities = {\n"
    '    "trace": Quantity(lambda p: p.matrix.trace(), "sum of the eigenvalues"),\n',
)
APPROXIMATION = [
    (
        "approximations = (\n",
        "def banded(kernels, pattern):\n"
        '    """The diagonal of K and its neighbours."""\n'
        "    return np.triu(np.tril(kernels.train, 1), -1)\n\n\n"
        "approximations = (\n",
    ),
    (
        '    Approximation("diagonal", diagonal, reads_out_y=True),\n',
        '    Approximation("diagonal", diagonal, reads_out_y=True),\n'
        '    Approximation("banded", banded, needs_all=True),\n',
    ),
]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_new_quantity_and_a_new_approximation_join_old_results(tmp_path, network):
    """A few lines in a scratch copy: nothing is put aside, and nothing that was there is lost.

    One trial of two is computed again, with what is new; the other one has NaN there until a run
    that asks for it.
    """
    command = ("--dataset", "digits", "--networks", network, "--test-size", 4)
    command += ("--output", tmp_path, "--data-sizes", 16, "--trials")
    succeed(*command, 2)
    path = tmp_path / f"digits-{network}_results.nc"
    old = read_results(path)
    script = script_with(tmp_path / "training.py", QUANTITY, *APPROXIMATION)
    assert "wrote" in succeed(*command, 1, script=script)
    new = read_results(path)
    names = ["exact", "sparsified", "diagonal", "banded"]
    assert new.approximation.values.tolist() == names
    first, second = new.sel(trial=0), new.sel(trial=1)
    assert first.trace.notnull().all() and second.trace.isnull().all()
    banded = {"approximation": "banded"}
    assert first.accuracy.sel(banded).notnull().all()
    assert second.accuracy.sel(banded).isnull().all()
    kernel = np.load(tmp_path / f"digits-{network}_seed0_data16_trial0_kernel_train.npy")
    assert np.allclose(first.trace.sel(approximation=["exact", "banded"]), np.trace(kernel))
    for name in set(old.data_vars) - {"finished", "code"}:
        same = new[name]
        if "approximation" in same.dims:
            same = same.sel(approximation=names[:3])
        assert same.identical(old[name]), name
    assert second.code == old.code.sel(trial=1) != first.code
    assert not list(tmp_path.glob("*.old"))
    assert "1 trials to compute, 1 are in the results" in succeed(*command, 2, script=script)
    assert read_results(path).trace.notnull().all()


def test_a_new_entry_is_another_version_of_the_code(tmp_path):
    """So trials that lack it are computed again; a plain constant is the origin's affair."""
    text = (ROOT / "training.py").read_text(encoding="utf-8")
    path = tmp_path / "training.py"
    versions = []
    for old, new in (("", ""), QUANTITY, ("test_size = 256", "test_size = 64")):
        path.write_text(text.replace(old, new) if old else text, encoding="utf-8")
        versions.append(code_version(path))
    assert versions[0] == versions[2] != versions[1]


def test_more_patterns_join_old_results(tmp_path, monkeypatch):
    """Those of trials that were computed with fewer are NaN until these are computed again."""
    command = ("--dataset", "digits", "--networks", "fully-connected", "--test-size", 4)
    command += ("--output", tmp_path, "--data-sizes", 4, "--trials")
    succeed(*command, 2)
    path = tmp_path / "digits-fully-connected_results.nc"
    old = read_results(path)
    assert old.sizes["pattern"] == 30 and old.first_pattern.values.tolist() == [0, 1, 2]
    monkeypatch.setattr(training, "sparsity_patterns", 32)
    succeed(*command, 1)
    new = read_results(path)
    assert new.pattern.values.tolist() == list(range(32))
    sparsified = new.accuracy.sel(approximation="sparsified")
    assert sparsified.sel(trial=0).notnull().all()
    assert sparsified.sel(trial=1, pattern=[30, 31]).isnull().all()
    assert new.accuracy.sel(pattern=range(30)).identical(old.accuracy)
    assert new.readout_measurements.identical(old.readout_measurements)
    assert new.patterns.values.tolist() == [[32, 30]] and not list(tmp_path.glob("*.old"))


# ---- verification ----


@pytest.fixture
def copy(undisturbed, tmp_path):
    """A copy of the undisturbed run."""
    return shutil.copytree(undisturbed, tmp_path / "copy")


def everything(folder):
    """All files of a folder, with their times."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.slow
def test_verify_agrees_with_an_undisturbed_run_and_changes_nothing(undisturbed):
    before = everything(undisturbed)
    ended = call(*TINY, "--verify", "--output", undisturbed)
    assert ended.status == 0 and ended.err == "", ended
    assert everything(undisturbed) == before
    names = ("kernel_train", "kernel_test", "train_label", "test_label", "kernel_test_normalized")
    for network in NETWORKS:
        for name in (*names, "accuracy", "readout_measurements", "patterns"):
            line = rf"^digits-{network} {name} +3 +0.0e\+00$"
            assert re.search(line, ended.out, re.MULTILINE), (line, ended.out)
        assert re.search(rf"^digits-{network} pattern_sparsity +2 +0.0e", ended.out, re.MULTILINE)
    assert f"{undisturbed}/ holds what this computer computes" in ended.out
    assert "DIFFERS" not in ended.out


STEM = "digits-fully-connected_seed0_data{}_trial{}_{}.npy"
KERNEL = STEM.format(16, 0, "kernel_train")
RESULTS = "digits-fully-connected_results.nc"


def rewrite(folder, change):
    """Change the results, with a checksum that is right again."""
    results = read_results(folder / RESULTS)
    write_results(folder / RESULTS, change(results) or results)


def set_one(name, value, **place):
    """A function that changes one number of the results."""

    def change(folder):
        rewrite(folder, lambda results: results[name].loc.__setitem__(place, value))

    return change


def change_origin(folder):
    """Let the results be of other images."""

    def change(results):
        origin = json.loads(results.attrs["origin"]) | {"dataset_sha256": "0" * 64}
        return results.assign_attrs(origin=json.dumps(origin))

    rewrite(folder, change)


def raise_one_entry(name, factor):
    """A function that changes one number of an array; a kernel's checksum is right again."""

    def change(folder):
        path = folder / STEM.format(4, 1, name)
        array = np.load(path, allow_pickle=False)
        array[1] = array[1] * factor
        if name in ("kernel_train", "kernel_test"):
            label = json.loads(path.read_bytes().splitlines()[-1])
            del label["sha256"]
            checkpoints.write_kernel(path, array, label)
        else:
            np.save(path, array)

    return change


def flip_a_chunk(path):
    """Flip a bit of the numbers; HDF5 has gaps between what it stores."""
    with h5py.File(path) as file:
        chunk = file["accuracy"].id.get_chunk_info(0)
    flip(path, chunk.byte_offset + chunk.size // 2, 2)


SPARSIFIED = {"approximation": "sparsified", "convention": "original", "pattern": 2}
CHANGES = {
    "a number": (
        set_one("accuracy", 0.9, n=4, trial=1, threshold="zero", **SPARSIFIED),
        "digits-fully-connected accuracy differs",
    ),
    "sparsity of a size's patterns": (
        set_one("pattern_sparsity", 99, n=4, convention="corrected", draw=7),
        "digits-fully-connected pattern_sparsity differs",
    ),
    "a NaN": (
        set_one("separability", np.nan, n=4, trial=1),
        "digits-fully-connected separability differs",
    ),
    "a NaN of one image": (
        set_one("post_selection_measurements", np.nan, n=16, trial=0, divisor="test set", image=3),
        "digits-fully-connected post_selection_measurements differs",
    ),
    "a NaN among a size's patterns": (
        set_one("pattern_sparsity", np.nan, n=4, convention="corrected", draw=7),
        "digits-fully-connected pattern_sparsity differs",
    ),
    "a trial less": (
        set_one("test_images", np.nan, n=4, trial=1),
        "lacks 1 trials, the first one n = 4",
    ),
    "another origin": (change_origin, "is of another origin (dataset_sha256 000"),
    "a byte of the results": (lambda folder: flip_a_chunk(folder / RESULTS), f"{RESULTS}: "),
    "no results": (lambda folder: (folder / RESULTS).unlink(), f"{RESULTS}: can't be read"),
    "a byte of a kernel": (lambda folder: flip(folder / KERNEL, 500, 2), f"{KERNEL}: is damaged"),
    "an entry of a kernel": (
        raise_one_entry("kernel_test", 1 + 1e-9),
        "digits-fully-connected kernel_test differs",
    ),
    "a label": (
        raise_one_entry("train_label", -1),
        "digits-fully-connected train_label differs",
    ),
    "an entry over k_thresh": (
        raise_one_entry("kernel_test_normalized", 1 + 1e-9),
        "digits-fully-connected kernel_test_normalized differs",
    ),
    "what a kernel was computed from": (
        lambda folder: relabel(folder / KERNEL, dataset_sha256="0" * 64),
        f"{KERNEL}: was computed from other settings (dataset_sha256",
    ),
    "a kernel of another trial": (
        lambda folder: shutil.copy(
            folder / STEM.format(4, 0, "kernel_test"), folder / STEM.format(4, 1, "kernel_test")
        ),
        "_trial1_kernel_test.npy: was computed from other settings (trial 0, not 1)",
    ),
}


@pytest.fixture(scope="module")
def computed_again(undisturbed, tmp_path_factory):
    """What --verify computes of the fully-connected network."""
    folder = tmp_path_factory.mktemp("fresh")
    for path in undisturbed.glob("digits-fully-connected_*"):
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("change", CHANGES)
def test_verify_fails_after_one_change(copy, computed_again, change, capsys):
    spoil, words = CHANGES[change]
    spoil(copy)
    before = everything(copy)
    assert verification.compare_folders(computed_again, copy) == 1
    assert words in capsys.readouterr().out
    assert everything(copy) == before


def test_verify_through_the_command_line_fails(copy):
    spoil, words = CHANGES["an entry of a kernel"]
    spoil(copy)
    ended = call(*QUICK, "--verify", "--output", copy)
    assert ended.status == 1 and words in ended.out, ended


def test_verify_leaves_out_what_older_results_do_not_have(copy):
    """A quantity, an approximation and patterns that came later; what is there has to agree."""

    def age(results):
        code = results.code.where(results.code == "", "older")
        older = results.drop_vars(["trace", "separability"], errors="ignore").assign(code=code)
        return older.sel(approximation=["exact", "sparsified"]).assign_attrs(results.attrs)

    rewrite(copy, age)
    ended = call(*QUICK, "--verify", "--output", copy)
    assert ended.status == 0, ended
    assert "digits-fully-connected accuracy" in ended.out and "separability" not in ended.out


def test_verify_fails_where_there_is_nothing_to_compare(tmp_path):
    ended = call(*QUICK, "--verify", "--output", tmp_path / "nowhere")
    assert "holds no results to compare with" in complaint(ended)
    assert not (tmp_path / "nowhere").exists()


def test_verify_takes_only_sizes_that_the_data_fill(copy, monkeypatch):
    """By default a trial of each; 256 and 512 are more digits than there are."""
    monkeypatch.setattr(training, "test_size", 4)
    command = ("--dataset", "digits", "--networks", "fully-connected")
    ended = call(*command, "--verify", "--output", copy)
    assert ended.status == 1 and "lacks 3 trials, the first one n = 32" in ended.out
    assert "1 of n = 16, 1 of n = 32, 1 of n = 64, 1 of n = 128\n" in ended.out


# ---- the committed results ----


@pytest.fixture(scope="module")
def committed():
    """The folder of the committed results."""
    folder = ROOT / "kernel_output"
    if not (folder / "fully-connected_results.nc").exists():
        pytest.skip("there are no committed results")
    return folder


def test_the_committed_fully_connected_results_are_computed_again(mnist_dir, committed, tmp_path):
    """Of n = 16, from MNIST's images, every quantity that they have."""
    arguments = ("--networks", "fully-connected", "--data-sizes", 16, "--trials", 3)
    arguments += ("--dataset", "mnist", "--mnist-dir", mnist_dir, "--output", tmp_path)
    succeed(*arguments)
    found = read_results(tmp_path / "fully-connected_results.nc")
    committed_results = read_results(committed / "fully-connected_results.nc")
    for name in found.data_vars:
        if name in committed_results and found[name].dtype.kind == "f":
            values, expected = xr.align(found[name], committed_results[name], join="left")
            expected = expected.transpose(*values.dims)
            known = expected.notnull()
            assert known.any(), name
            difference = relative_difference(values.where(known), expected)
            assert difference < 1e-7, name


def test_the_committed_results_pass_their_verification(mnist_dir, committed):
    """What a sceptical reader runs first, of the smallest size."""
    arguments = ("--networks", "fully-connected", "--data-sizes", 16, "--trials", 2)
    arguments += ("--dataset", "mnist", "--mnist-dir", mnist_dir, "--output", committed)
    ended = call(*arguments, "--verify")
    assert ended.status == 0, ended


@pytest.mark.slow
def test_the_committed_convolutional_kernels_are_intact_and_a_sample_is_computed_again(mnist_dir):
    """From MNIST's images at the real depth: four entries of each of two matrices within 1e-10."""
    folder = ROOT / "kernel_output"
    paths = sorted(folder.glob("convolutional_seed0_*_kernel_t*[nt].npy"))
    assert paths
    for path in paths:
        _, label = checkpoints.read_kernel(path)
        assert label["depth"] == 96, path
        assert label["precision"] == ("float64" if label["size"] <= 512 else "float32"), path
    read = training.stored_kernels(folder, "convolutional", 16, 3, 0)
    run = Run(0, 256, folder, "numba", "float64", load_once("mnist", mnist_dir=mnist_dir))
    images = training.trial_images(run, read.trial)
    i, j, k = [0, 9], [5, 200], [1, 15]
    train = convolutional_ntk(images.train[i])
    assert relative_error(train, read.train[np.ix_(i, i)]) < 1e-10
    test = convolutional_ntk(images.test[j], images.train[k])
    assert relative_error(test, read.test[np.ix_(j, k)]) < 1e-10
