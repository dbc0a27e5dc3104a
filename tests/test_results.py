"""Results: labelled arrays that are merged by label, checked when they are read, and never lost."""

import itertools
import json

import numpy as np
import pytest
import xarray as xr
from conftest import ROOT, call, contents, succeed

import training
from ntk import BadInput
from runtime import results
from runtime.results import (
    ResultsFile,
    origin_of,
    quantity,
    read_results,
    relative_difference,
    sealed,
)
from runtime.trials import Run

ORIGIN = {"dataset": "digits", "seed": 0}
LABELS = {"approximation": ["exact", "diagonal"]}


def record(value, images=3, **more):
    """A trial's quantities: a number for each approximation, and one for each test image."""
    quantities = {
        "accuracy": quantity(("approximation",), [value, value + 0.5], "share classified rightly"),
        "measurements": quantity(("image",), [value] * images, "measurements", "measurements"),
        "test_images": quantity((), images, "number of test images"),
        "engine": xr.DataArray("numba"),
        **more,
    }
    return xr.Dataset(quantities, LABELS | {"image": range(images)})


def place(n, trial, setting=None):
    """Where a trial stands in the results."""
    return {"n": n, "trial": trial} | ({} if setting is None else {"setting": setting})


def kept(path, *records, origin=ORIGIN):
    """Merge records into a file, and read it."""
    merge_into(path, origin, list(records))
    return read_results(path)


def merge_into(path, origin, records):
    """Merge records into the file at `path`."""
    with ResultsFile(path, origin) as file:
        for key, each in records:
            file.add(key, each)


# ---- merging by label ----


def test_axes_have_labels_and_nan_where_there_is_no_trial(tmp_path):
    file = kept(tmp_path / "r.nc", (place(16, 0), record(1.0)), (place(4, 1), record(2.0)))
    assert file.n.values.tolist() == [4, 16] and file.trial.values.tolist() == [0, 1]
    assert file.accuracy.dims == ("n", "trial", "approximation")
    assert file.accuracy.sel(n=4, trial=1, approximation="diagonal") == 2.5
    assert file.accuracy.sel(approximation="exact").isnull().values.tolist() == [[True, False], [False, True]]
    assert file.engine.values.tolist() == [["", "numba"], ["numba", ""]]
    assert results.is_computed(file).values.tolist() == [[False, True], [True, False]]
    assert file.accuracy.attrs == {"long_name": "share classified rightly", "units": "1"}
    assert origin_of(file) == ORIGIN


@pytest.mark.parametrize("settings", [(0.5, 0.1), ("8 9", "0 1")])
def test_a_sweep_has_an_axis_of_settings(tmp_path, settings):
    places = [place(4, 0, settings[0]), place(4, 0, settings[1]), place(4, 1, settings[1])]
    file = kept(tmp_path / "r.nc", *((where, record(float(i))) for i, where in enumerate(places)))
    assert file.accuracy.dims == ("n", "setting", "trial", "approximation")
    assert file.setting.values.tolist() == sorted(settings)
    assert file.accuracy.sel(n=4, setting=settings[1], trial=1, approximation="exact") == 2


def test_a_merge_keeps_old_trials_and_replaces_those_computed_again(tmp_path):
    path = tmp_path / "r.nc"
    kept(path, (place(4, 0), record(1.0)), (place(4, 1), record(2.0)))
    file = kept(path, (place(4, 1), record(-2.0)), (place(16, 0), record(3.0)))
    exact = file.accuracy.sel(approximation="exact")
    assert [float(exact.sel(n=n, trial=t)) for n, t in ((4, 0), (4, 1), (16, 0))] == [1, -2, 3]
    assert not list(tmp_path.glob("*.old"))


def test_a_new_quantity_and_a_new_label_join_old_results(tmp_path):
    """NaN where nobody has computed them; nothing is put aside, and nothing old is lost."""
    path = tmp_path / "r.nc"
    old = kept(path, (place(4, 0), record(1.0)), (place(4, 1), record(2.0)))
    newer = record(3.0, images=5, trace=quantity((), 7.0, "trace of the matrix"))
    newer = newer.reindex(approximation=["exact", "diagonal", "third"], fill_value={"accuracy": 9.0, "engine": ""})
    file = kept(path, (place(4, 1), newer))
    assert float(file.trace.sel(n=4, trial=1)) == 7 and np.isnan(file.trace.sel(n=4, trial=0))
    assert file.sizes["image"] == 5 and file.approximation.values.tolist() == ["exact", "diagonal", "third"]
    assert file.accuracy.sel(n=4, trial=1, approximation="third") == 9
    first = {"n": 4, "trial": 0}
    both = file.accuracy.sel(first).sel(approximation=["exact", "diagonal"])
    assert np.array_equal(both, old.accuracy.sel(first))
    assert np.isnan(file.measurements.sel(first)[3:]).all()
    assert not list(tmp_path.glob("*.old"))


def test_a_size_has_quantities_of_its_own(tmp_path):
    drawn = xr.Dataset({"pattern_sparsity": quantity(("draw",), [4, 1], "entries")}, {"draw": range(2)})
    file = kept(tmp_path / "r.nc", ({"n": 4}, drawn), (place(4, 0), record(1.0)))
    assert file.pattern_sparsity.dims == ("n", "draw") and file.pattern_sparsity.sel(n=4).values.tolist() == [4, 1]


@pytest.mark.parametrize("setting", [None, 0.5])
def test_the_file_holds_the_same_in_whatever_order_its_trials_came(tmp_path, setting):
    places = [place(4, 0, setting), place(4, 10, setting), place(16, 2, setting)]
    records = [(where, record(float(where["trial"]))) for where in places]
    written = set()
    for i, order in enumerate(itertools.permutations(records)):
        for one in order:
            merge_into(tmp_path / f"{i}.nc", ORIGIN, [one])
        written.add(read_results(tmp_path / f"{i}.nc").attrs["sha256"])
    assert len(written) == 1


# ---- files that are not what they should be ----


@pytest.mark.parametrize("key", ORIGIN)
def test_a_file_of_another_origin_is_put_aside(tmp_path, capsys, key):
    path = tmp_path / "r.nc"
    kept(path, (place(4, 0), record(1.0)))
    old = path.read_bytes()
    file = kept(path, (place(4, 1), record(2.0)), origin=ORIGIN | {key: "other"})
    note = f"note: r.nc is of another origin ({key} {ORIGIN[key]}, not other); it is kept as r.nc.1.old and replaced"
    assert note in capsys.readouterr().out
    assert (tmp_path / "r.nc.1.old").read_bytes() == old
    assert file.trial.values.tolist() == [1]


def test_a_bit_flipped_anywhere_is_noticed(tmp_path):
    path = tmp_path / "r.nc"
    kept(path, (place(4, 0), record(1.0)), (place(16, 1), record(2.0)))
    original, rng = path.read_bytes(), np.random.default_rng(0)
    for position in rng.permutation(len(original))[:250]:
        damaged = bytearray(original)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match=r"r.nc: .*does not end with its SHA-256 sum") as caught:
            read_results(path)
        assert "\n" not in str(caught.value)


def test_a_damaged_file_never_comes_to_hdf5(tmp_path, monkeypatch):
    """It ends the process by SIGSEGV where the second half of a file is zeros."""
    path = tmp_path / "r.nc"
    kept(path, (place(4, 0), record(1.0)))
    original = path.read_bytes()
    monkeypatch.setattr(results, "check_hdf5", lambda *_: pytest.fail("HDF5 was asked"))
    half = len(original) // 2
    for damaged in (original[:half] + bytes(half), original[:half], original + b"\n", original[1:]):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match="does not end with its SHA-256 sum"):
            read_results(path)


@pytest.mark.parametrize("path", sorted((ROOT / "kernel_output").glob("*.nc")), ids=lambda p: p.name)
def test_what_is_read_is_what_xarray_reads(path):
    decode = dict(decode_times=False, decode_timedelta=False)
    with xr.open_dataset(path, engine="h5netcdf", **decode) as file:
        assert read_results(path).identical(file.load())


def test_hdf5_itself_reads_what_is_written(tmp_path):
    path = tmp_path / "r.nc"
    expected = kept(path, (place(4, 0), record(1.0)))
    with xr.open_dataset(path, engine="h5netcdf") as file:
        assert file.accuracy.identical(expected.accuracy)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.accuracy.values.__setitem__((0, 0, 0), 0.9),
        lambda file: file.attrs.__setitem__("origin", "{}"),
        lambda file: file.accuracy.attrs.__setitem__("units", "%"),
        lambda file: file.engine.values.__setitem__((0, 0), "jax"),
        lambda file: file.approximation.variable,
    ],
)
def test_a_checksum_stands_for_values_names_and_attributes(tmp_path, change):
    file = kept(tmp_path / "r.nc", (place(4, 0), record(1.0)))
    before = results.checksum(file)
    changed = file.copy(deep=True)
    changed.attrs = dict(file.attrs)
    if change(changed) is not None:
        changed = changed.assign_coords(approximation=["diagonal", "exact"])
    assert results.checksum(changed) != before
    assert results.checksum(file.rename(accuracy="precise")) != before
    assert results.checksum(file) == before


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "does not end with its SHA-256 sum"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "is a Git LFS pointer"),
        (lambda path: path.write_bytes(b""), "can't be read"),
        (lambda path: xr.Dataset({"a": 1}).to_netcdf(path, engine="h5netcdf"), "another program's"),
        (lambda path: path.write_bytes(sealed(b"no HDF5")), "can't be read"),
        (lambda path: path.write_bytes(sealed(xr.Dataset({"a": 1}).to_netcdf(engine="h5netcdf"))), "no results of this"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "is a symbolic link"),
    ],
)
def test_a_file_that_can_not_be_read_is_named_and_put_aside(tmp_path, capsys, spoil, words):
    path = tmp_path / "r.nc"
    kept(path, (place(4, 0), record(1.0)))
    spoil(path)
    with pytest.raises(BadInput, match=rf"r.nc: .*{words}.*restore it"):
        read_results(path)
    file = kept(path, (place(16, 0), record(1.0)))
    assert words in capsys.readouterr().out and file.n.values.tolist() == [16]
    assert len(list(tmp_path.glob("r.nc.1.old"))) == 1


# ---- helpers ----


def test_medians_over_images_are_marked_as_such():
    found = results.medians_over_images(record(2.0))
    assert float(found.measurements_median) == 2 and "image" not in found.dims
    assert found.measurements_median.attrs["long_name"] == "measurements, median over the test images"
    assert set(found) == {"accuracy", "measurements_median", "test_images", "engine"}


@pytest.mark.parametrize(
    "values, expected, difference",
    [
        (1.5, 1.0, 0.5),
        (-1.0, 1.0, 2),
        (np.nan, np.nan, 0),
        (np.inf, np.inf, 0),
        (np.inf, -np.inf, np.inf),
        (np.nan, 1.0, np.inf),
        (1.0, np.nan, np.inf),
        (0.0, 0.0, 0),
        (1e-30, 0.0, np.inf),
        ([1, np.nan, 4], [1, np.nan, 5], 0.2),
    ],
)
def test_the_largest_relative_difference(values, expected, difference):
    assert relative_difference(values, expected) == pytest.approx(difference)


def test_the_code_version_follows_formulas_and_not_comments(tmp_path):
    def version(text):
        (tmp_path / "script.py").write_text(text)
        return results.code_version(tmp_path / "script.py")

    first = version('def f(x):\n    """Twice."""\n    return 2 * x\n')
    assert version("# Say why.\ndef f(x):\n    return 2 * x  # doubled\n\ntrials = 3\n") == first
    assert version("def f(x):\n    return 3 * x\n") != first


# ---- runs that are stopped ----


def test_a_stopped_runs_records_are_there_for_the_next_run(tmp_path):
    path = tmp_path / "r.nc"
    with pytest.raises(KeyboardInterrupt), ResultsFile(path, ORIGIN) as file:
        file.keep(place(4, 0), record(1.0))
        file.keep(place(4, 1), record(2.0))
        raise KeyboardInterrupt
    with ResultsFile(path, ORIGIN) as file:
        about = {"engine": xr.DataArray("numba")}
        assert file.holds(place(4, 0), about) and file.holds(place(4, 1), about)
        assert not file.holds(place(4, 2), about) and not file.holds(place(8, 0), about)
        assert not file.holds(place(4, 0), {"engine": xr.DataArray("jax")})
        file.keep(place(4, 2), record(3.0))
    assert read_results(path).trial.values.tolist() == [0, 1, 2]


def test_records_are_saved_while_a_run_goes_on(tmp_path, monkeypatch):
    """For whoever kills it: nothing is saved at the end then."""
    monkeypatch.setattr(results, "FIRST_SAVE", -1)
    file = ResultsFile(tmp_path / "r.nc", ORIGIN).__enter__()
    file.keep(place(4, 0), record(1.0))
    assert read_results(tmp_path / "r.nc").trial.values.tolist() == [0]


def test_saving_takes_little_of_a_runs_time(tmp_path, monkeypatch):
    """Each save takes a second here, and a trial five: so one trial in five is followed by a save."""
    now, saves = [0.0], []
    monkeypatch.setattr(results.time, "monotonic", lambda: now[0])
    file = ResultsFile(tmp_path / "r.nc", ORIGIN).__enter__()

    def save():
        saves.append(len(file.new))
        now[0] += 1

    monkeypatch.setattr(file, "save", save)
    for number in range(12):
        now[0] += 5
        file.keep(place(4, number), record(1.0))
    assert saves == [1, 6, 11]


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
        ({"4": 2}, 52, 52), ({"8": 1}, 68, 68),
    ]  # fmt: skip


def test_another_seed_puts_the_results_aside_and_another_test_size_does_not(tmp_path):
    plan = ("--data-sizes", 4, "--trials", 2)
    succeed(*SMALL, tmp_path, *plan)
    assert "is of another origin (seed 0, not 1)" in succeed(*SMALL, tmp_path, *plan, "--seed", 1)
    out = succeed(*SMALL, tmp_path, *plan[:3], 1, "--seed", 1, "--test-size", 6)
    assert "another origin" not in out
    file = read_results(tmp_path / "digits-fully-connected_results.nc")
    assert file.test_images.values.tolist() == [[6, 4]]
    assert len(list(tmp_path.glob("*_results.nc.*.old"))) == 1


def test_results_of_a_constant_that_was_edited_are_not_mixed(tmp_path, monkeypatch):
    plan = ("--data-sizes", 4, "--trials", 1)
    succeed(*SMALL, tmp_path, *plan)
    for name, value, said in [
        ("depth_factor", 0.2, "depth_rule 0.1, not 0.2"),
        ("k_thresh_margin", 0.1, "k_thresh_margin 1e-05, not 0.1"),
    ]:
        monkeypatch.setattr(training, name, value)
        assert f"{said})" in succeed(*SMALL, tmp_path, *plan), name


@pytest.mark.parametrize("name, value", [
    ("convolutional_depth", 48), ("reference_size", 32), ("percentile", 80), ("diagonal_boost", (1, 1))
])  # fmt: skip
def test_the_convolutional_constants_are_part_of_the_origin(monkeypatch, digits, name, value):
    run = Run(0, 4, None, "numba", "float64", digits)
    before = run.origin(training.make_networks()["convolutional"], (1, 0))
    monkeypatch.setattr(training, name, value)
    after = run.origin(training.make_networks()["convolutional"], (1, 0))
    assert [key for key in before if before[key] != after[key]] in ([name], ["depth_rule"])


def test_a_run_computes_only_the_trials_that_are_not_there(tmp_path, monkeypatch):
    """Those of a run that was stopped, and those that the same code computed before; others are computed again."""
    plan, computed = ("--data-sizes", 4, 8, "--trials", 2, 1), []
    compute = training.compute_trial

    def stop_at_third(run, trial, *how):
        computed.append((trial.size, trial.number))
        if len(computed) == 3:
            raise KeyboardInterrupt
        return compute(run, trial, *how)

    monkeypatch.setattr(training, "compute_trial", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        call(*SMALL, tmp_path / "stopped", *plan)
    assert "1 trials to compute, 2 are in the results" in succeed(*SMALL, tmp_path / "stopped", *plan)
    assert computed == [(4, 0), (4, 1), (8, 0), (8, 0)]
    succeed(*SMALL, tmp_path / "whole", *plan)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    del computed[:]
    monkeypatch.setattr(training, "code_version", lambda path: "other code")
    monkeypatch.setattr(training, "compute_trial", compute)
    assert "0 trials to compute" not in succeed(*SMALL, tmp_path / "whole", *plan)
