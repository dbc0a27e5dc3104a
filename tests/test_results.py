"""Results files: merged by trial, put aside where the origin is another one, and no name is dropped."""

import itertools
import json

import numpy as np
import pytest
from conftest import call, contents, succeed

import training
from ntk import BadInput
from runtime import results
from runtime.results import Results, merge_results, read_results, relative_difference
from runtime.trials import Run

ORIGIN = {"dataset": "digits", "seed": 0}


def record(value):
    """A trial's quantities: a number, and one value for each of three test images."""
    return {"accuracy": value, "measurements": np.array([value, np.inf, np.nan])}


def some(*keys, settings_name=None, origin=ORIGIN, of=record):
    """Results of these trials; every value says which one it is of."""
    number = {key: 100 * key[0] + 10 * i + key[2] for i, key in enumerate(keys)}
    by_size = {key[0]: {"pattern_sparsity": [key[0], 1]} for key in keys if settings_name is None}
    return Results(origin, {key: of(float(number[key])) for key in keys}, by_size, settings_name)


def test_arrays_are_sizes_by_trials_and_nan_where_there_is_no_trial(tmp_path):
    path = tmp_path / "r.npz"
    merge_results(path, some((16, None, 0), (4, None, 1)))
    arrays = results.load_arrays(path)
    assert arrays["data_sizes"].tolist() == [4, 16] and arrays["trials"].tolist() == [1, 1]
    assert arrays["accuracy"].shape == (2, 2) and arrays["measurements"].shape == (2, 2, 3)
    assert arrays["pattern_sparsity"].tolist() == [[4, 1], [16, 1]]
    assert np.isnan(arrays["accuracy"]).tolist() == [[True, False], [False, True]]
    assert np.isnan(arrays["measurements"][0, 0]).all() and arrays["measurements"][1, 0, 1] == np.inf


def test_a_sweep_has_an_axis_of_settings(tmp_path):
    path = tmp_path / "r.npz"
    merge_results(path, some((4, 0.5, 0), (4, 0.1, 0), (4, 0.1, 1), settings_name="depth_settings"))
    arrays = results.load_arrays(path)
    assert arrays["accuracy"].shape == (1, 2, 2) and arrays["depth_settings"].tolist() == [0.1, 0.5]
    assert arrays["trials"].tolist() == [2]
    assert read_results(path, "depth_settings").records.keys() == {(4, 0.5, 0), (4, 0.1, 0), (4, 0.1, 1)}


def test_results_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "r.npz"
    written = some((16, None, 0), (16, None, 1), (4, None, 0))
    merge_results(path, written)
    found = read_results(path)
    assert found.origin == ORIGIN and found.records.keys() == written.records.keys()
    for key, values in written.records.items():
        assert found.records[key].keys() == values.keys()
        assert all(np.array_equal(found.records[key][name], values[name], equal_nan=True) for name in values)


def test_a_merge_keeps_old_trials_and_replaces_those_computed_again(tmp_path):
    path = tmp_path / "r.npz"
    merge_results(path, some((4, None, 0), (4, None, 1)))
    said = merge_results(path, some((4, None, 1), (16, None, 0), of=lambda v: record(-v)))
    assert said == f"wrote {path}: 2 trials computed, 1 kept from earlier runs"
    found = {key: values["accuracy"] for key, values in read_results(path).records.items()}
    assert found == {(4, None, 0): 400, (4, None, 1): -401, (16, None, 0): -1610}
    assert results.load_arrays(path)["trials"].tolist() == [2, 1]
    assert not list(tmp_path.glob("*.old"))


@pytest.mark.parametrize("settings_name", [None, "depth_settings"])
def test_the_file_is_the_same_in_whatever_order_its_trials_came(tmp_path, settings_name):
    """And where an older version computed the quantities in another order."""
    setting = None if settings_name is None else 0.5
    keys = [(4, setting, 0), (4, setting, 10), (16, setting, 2)]
    parts = [Results(ORIGIN, {k: record(float(k[2]))}, {k[0]: {"drawn": [k[0]]}}, settings_name) for k in keys]
    parts[0].records[keys[0]] = dict(reversed(parts[0].records[keys[0]].items()))
    written = set()
    for i, order in enumerate(itertools.permutations(parts)):
        for part in order:
            merge_results(tmp_path / f"{i}.npz", part)
        written.add((tmp_path / f"{i}.npz").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("key", ORIGIN)
def test_a_file_of_another_origin_is_put_aside(tmp_path, capsys, key):
    path = tmp_path / "r.npz"
    merge_results(path, some((4, None, 0)))
    old = path.read_bytes()
    merge_results(path, some((4, None, 1), origin=ORIGIN | {key: "other"}))
    note = f"note: r.npz is of another origin ({key} {ORIGIN[key]}, not other); it is kept as r.npz.1.old and replaced"
    assert note in capsys.readouterr().out
    assert (tmp_path / "r.npz.1.old").read_bytes() == old
    assert read_results(path).records.keys() == {(4, None, 1)}


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "can't be read"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"accuracy", b"accurate")), "r.npz"),
        (lambda path: np.savez(path, data_sizes=[4]), "has no array"),
        (lambda path: np.savez(path, data_sizes=np.array([{}]), allow_pickle=True), "can't be read"),
    ],
)
def test_a_file_that_can_not_be_read_is_put_aside(tmp_path, capsys, spoil, words):
    path = tmp_path / "r.npz"
    merge_results(path, some((4, None, 0)))
    spoil(path)
    merge_results(path, some((16, None, 0)))
    assert words in capsys.readouterr().out and (tmp_path / "r.npz.1.old").exists()
    assert read_results(path).records.keys() == {(16, None, 0)}


def test_results_of_other_quantities_are_put_aside(tmp_path, capsys):
    path = tmp_path / "r.npz"
    merge_results(path, some((4, None, 0)))
    merge_results(path, some((4, None, 1), of=lambda v: {"acuracy": v}))
    assert "has other quantities" in capsys.readouterr().out
    assert set(read_results(path).records[4, None, 1]) == {"acuracy"}


def test_a_misspelt_quantity_is_an_error(tmp_path):
    found = some((4, None, 0))
    found.records[4, None, 1] = {"acuracy": 1.0, "measurements": np.ones(3)}
    with pytest.raises(ValueError, match="'accuracy', 'acuracy'"):
        merge_results(tmp_path / "r.npz", found)
    found.records[4, None, 1] = {"accuracy": 1.0, "measurements": np.ones(4)}
    with pytest.raises(ValueError, match=r"measurements of shape .4,.*elsewhere .3,"):
        merge_results(tmp_path / "r.npz", found)
    assert not list(tmp_path.iterdir())


def test_a_misspelt_quantity_of_one_convention_is_an_error(tmp_path, monkeypatch):
    """In a run: one approximation's dict has another name than the others."""
    count = itertools.count()
    original = training.approximation_quantities

    def misspelt(*arguments):
        found = original(*arguments)
        return found | {"sparsty": found.pop("sparsity")} if next(count) == 7 else found

    monkeypatch.setattr(training, "approximation_quantities", misspelt)
    arguments = ("--dataset", "digits", "--networks", "fully-connected", "--test-size", 4, "--output", tmp_path)
    with pytest.raises((ValueError, KeyError), match="sparsity"):
        call(*arguments, "--data-sizes", 4, "--trials", 2)
    assert not list(tmp_path.glob("*.npz"))


def test_medians_over_images_are_marked_as_such():
    found = results.medians_over_images({"readout_measurements_sparse": np.array([[1, 2, 9]]), "sparsity": np.ones(3)})
    assert found["readout_measurements_sparse_median"].tolist() == [2] and found["sparsity"].tolist() == [1, 1, 1]
    assert set(found) == {"readout_measurements_sparse_median", "sparsity"}


@pytest.mark.parametrize(
    "found, expected, difference",
    [
        (1.5, 1.0, 0.5), (-1.0, 1.0, 2), (np.nan, np.nan, 0), (np.inf, np.inf, 0), (np.inf, -np.inf, np.inf),
        (np.nan, 1.0, np.inf), (1.0, np.nan, np.inf), (0.0, 0.0, 0), (1e-30, 0.0, np.inf),
        ([1, np.nan, 4], [1, np.nan, 5], 0.2),
    ],
)  # fmt: skip
def test_the_largest_relative_difference(found, expected, difference):
    assert relative_difference(found, expected) == pytest.approx(difference)


# ---- of the whole script ----

SMALL = ("--dataset", "digits", "--networks", "fully-connected", "--test-size", 4, "--output")


def test_two_runs_in_either_order_give_the_same_files(tmp_path):
    """And one run of both sizes as well."""
    first, second = ("--data-sizes", 4, "--trials", 2), ("--data-sizes", 4, 8, "--trials", 1, 1)
    both = ("--data-sizes", 8, 4, "--trials", 1, 2)
    for name, order in {"a": (first, second), "b": (second, first), "c": (both,)}.items():
        for arguments in order:
            out = succeed(*SMALL, tmp_path / name, *arguments)
    assert "wrote" in out
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    sittings = json.loads((tmp_path / "a" / "run.json").read_text())["sittings"]
    assert [(s["trials"], s["pairs"], s["pairs_computed"]) for s in sittings] == [
        ({"4": 2}, 52, 52), ({"4": 1, "8": 1}, 94, 68),
    ]  # fmt: skip


def test_a_run_of_another_seed_or_test_size_puts_the_results_aside(tmp_path):
    plan = ("--data-sizes", 4, "--trials", 1)
    succeed(*SMALL, tmp_path, *plan)
    assert "is of another origin (seed 0, not 1)" in succeed(*SMALL, tmp_path, *plan, "--seed", 1)
    out = succeed(*SMALL, tmp_path, *plan, "--seed", 1, "--test-size", 6)
    assert "is of another origin (test_size 4, not 6)" in out
    assert len(list(tmp_path.glob("*_results.npz.*.old"))) == 2


def test_results_of_a_constant_that_was_edited_are_not_mixed(tmp_path, monkeypatch):
    plan = ("--data-sizes", 4, "--trials", 1)
    succeed(*SMALL, tmp_path, *plan)
    edited = {"depth_factor": (0.2, "depth_rule 0.1, not 0.2"), "sparsity_patterns": (4, "sparsity_patterns 3, not 4"),
              "pattern_draws": (5, "pattern_draws 100, not 5"), "k_thresh_margin": (0.1, "1e-05, not 0.1")}  # fmt: skip
    for name, (value, said) in edited.items():
        monkeypatch.setattr(training, name, value)
        assert f"{said})" in succeed(*SMALL, tmp_path, *plan), name


@pytest.mark.parametrize("name, value", [
    ("convolutional_depth", 48), ("reference_size", 32), ("percentile", 80), ("diagonal_boost", (1, 1))
])  # fmt: skip
def test_the_convolutional_constants_are_part_of_the_origin(monkeypatch, name, value):
    run = Run(0, 4, None, "numba", "float64", {"name": "digits", "sha256": ""})
    before = training.results_origin(run, "convolutional", (1, 0))
    monkeypatch.setattr(training, name, value)
    after = training.results_origin(run, "convolutional", (1, 0))
    assert [key for key in before if before[key] != after[key]] in ([name], ["depth_rule"])


# ---- runs that are stopped ----

STOPPED = (4, None, 0), (4, None, 1)


def stopped_run(path, settings_name=None, origin=ORIGIN):
    """Two trials are kept, and then somebody presses Ctrl-C."""
    done = some(*STOPPED)
    with pytest.raises(KeyboardInterrupt), results.GrowingResults(path, origin, settings_name) as growing:
        growing.by_size.update(done.by_size)
        for key, values in done.records.items():
            growing.keep(key, values)
        raise KeyboardInterrupt


def test_a_stopped_runs_records_are_there_for_the_next_run(tmp_path, capsys):
    path = tmp_path / "r.npz"
    stopped_run(path)
    assert not path.exists()
    with results.GrowingResults(path, ORIGIN) as growing:
        assert tuple(growing.records) == STOPPED and growing.by_size[4]["pattern_sparsity"].tolist() == [4, 1]
        growing.keep((4, None, 2), record(7.0))
    assert "r.npz: 2 trials are there from a run that was stopped" in capsys.readouterr().out
    assert len(read_results(path).records) == 3 and read_results(path).origin == ORIGIN
    assert [file.name for file in tmp_path.iterdir()] == ["r.npz"]


def test_records_are_saved_while_a_run_goes_on(tmp_path):
    """For whoever kills it: nothing is saved at the end then."""
    growing = results.GrowingResults(tmp_path / "r.npz", ORIGIN).__enter__()
    growing.keep((4, None, 0), record(1.0))
    with results.GrowingResults(tmp_path / "r.npz", ORIGIN) as again:
        assert tuple(again.records) == ((4, None, 0),)


def test_saving_takes_little_of_a_runs_time(tmp_path, monkeypatch):
    """Each save takes a second here, and a trial five: so one trial in five is followed by a save."""
    now, saves = [0.0], []
    monkeypatch.setattr(results.time, "monotonic", lambda: now[0])
    growing = results.GrowingResults(tmp_path / "r.npz", ORIGIN).__enter__()

    def save():
        saves.append(len(growing.records))
        now[0] += 1

    monkeypatch.setattr(growing, "save", save)
    for number in range(12):
        now[0] += 5
        growing.keep((4, None, number), record(1.0))
    assert saves == [1, 6, 11]


@pytest.mark.parametrize("change", ["origin", "code", "damaged", "engine"])
def test_what_other_code_or_constants_computed_is_not_gone_on_with(tmp_path, monkeypatch, change):
    path = tmp_path / "r.npz"
    stopped_run(path)
    if change == "code":
        monkeypatch.setattr(results, "code_checksum", lambda: "another one")
    if change == "damaged":
        path.with_name("r.npz.unfinished").write_text("no results")
    origin = ORIGIN | {"seed": 1} if change == "origin" else ORIGIN
    engine = "jax" if change == "engine" else "auto"
    with results.GrowingResults(path, origin, engine=engine) as growing:
        assert not growing.records and not growing.by_size
        growing.keep((4, None, 2), record(7.0))
    assert tuple(read_results(path).records) == ((4, None, 2),)


def test_a_run_computes_only_the_trials_that_the_stopped_one_had_not(tmp_path, monkeypatch):
    plan, computed = ("--data-sizes", 4, 8, "--trials", 2, 1), []
    compute = training.compute_trial

    def stop_at_third(run, trial, progress):
        computed.append((trial.size, trial.number))
        if len(computed) == 3:
            raise KeyboardInterrupt
        return compute(run, trial, progress)

    monkeypatch.setattr(training, "compute_trial", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        call(*SMALL, tmp_path / "stopped", *plan)
    assert "2 trials are there from a run that was stopped" in succeed(*SMALL, tmp_path / "stopped", *plan)
    assert computed == [(4, 0), (4, 1), (8, 0), (8, 0)]
    succeed(*SMALL, tmp_path / "whole", *plan)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_a_results_file_that_can_not_be_read_is_named(tmp_path):
    (tmp_path / "r.npz").write_text("no results")
    with pytest.raises(BadInput, match=r"r.npz: can't be read .*delete it, or restore it"):
        read_results(tmp_path / "r.npz")
