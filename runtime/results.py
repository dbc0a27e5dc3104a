"""Results as labelled arrays: one netCDF file for each network and kind of run.

A trial's record is a small Dataset whose axes have names: approximation, threshold, convention,
pattern, image. In the file every quantity has the axes n and trial before them, in a sweep n,
setting and trial. Records are merged by label: a trial that is computed again replaces the earlier
one, a quantity or a label that is new joins the file and is NaN elsewhere, and nothing is put aside
for it. Only results of another origin, that is of other images, another seed or other constants,
can't share a file.

    results = read_results(Path("kernel_output/fully-connected_results.nc"))
    accuracy = results.accuracy.sel(approximation="sparsified", threshold="zero").mean("pattern")
"""

import ast
import contextlib
import functools
import hashlib
import io
import json
import os
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ntk import FORMULAS, BadInput
from runtime.files import check_hdf5, in_words, put_aside, read_small, save
from runtime.processes import is_leader, share
from runtime.trials import Network, Run

OUTER_AXES = ("n", "setting", "trial")  # of a file, before a record's own; setting only in sweeps
SAVING_SHARE = 0.05  # of a run's time at most is spent on writing what will be written again
FIRST_SAVE = 1  # seconds after which results are written while a run goes on
NETCDF_ATTRIBUTES = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST")  # of its own
AXIS_WITHOUT_LABELS = b"This is a netCDF dimension but not a netCDF variable"
LARGEST_RESULTS = 2**31  # bytes; results are some megabytes
LARGEST_LABEL = 1e9  # of an axis of numbers
TEXTS = ("code", "engine", "finished", "precision")  # of a trial; all else is numbers
# What is raised where labels, axes or numbers are not those of this program.
UNUSABLE = (LookupError, AttributeError, TypeError, ValueError, ArithmeticError)
RESTORE = "restore it with git checkout, or delete it and run again"

Key = Mapping[str, Hashable]  # a trial's place: {"n": 16, "trial": 0}, in a sweep with its setting
Records = list[tuple[Key, xr.Dataset]]  # trials' places and quantities
Labels = dict[str, list[Any]]  # of each axis
Origin = Mapping[str, Any]  # what all trials of a file have in common


# --------------------------------------------------------------------------------------------------
# Reading and writing
# --------------------------------------------------------------------------------------------------


def checksum(results: xr.Dataset) -> str:
    """SHA-256 sum of all names, axes, types, values and attributes, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(map(str, results.variables)):
        variable = results.variables[name]
        attributes = json.dumps(dict(variable.attrs), sort_keys=True, default=str)
        digest.update(f"{name} {variable.dims} {variable.shape} {attributes}\n".encode())
        digest.update(value_bytes(variable.values))
    others = {key: value for key, value in results.attrs.items() if key != "sha256"}
    digest.update(json.dumps(others, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def value_bytes(values: NDArray) -> bytes:
    """The values as bytes that do not depend on how a file stores them.

    Numbers as float64, texts as JSON.
    """
    if values.dtype.kind in "biuf":
        return np.ascontiguousarray(values, "<f8").tobytes()
    return json.dumps([str(value) for value in values.ravel()]).encode()


def sealed(content: bytes | memoryview) -> bytes:
    """A file's content and the SHA-256 sum of it, in a last line that HDF5 does not see."""
    line = f"\nsha256 {hashlib.sha256(content).hexdigest()}\n"
    return bytes(content) + line.encode()


def check_seal(content: bytes) -> None:
    """Raise ValueError unless the content ends with the sum of what stands before it.

    A damaged file must not come to HDF5, which ends the process or never returns: one bit in a
    hundred does, and most files whose end a power failure has filled with zeros.
    """
    seal_size = len(sealed(b""))
    if sealed(content[:-seal_size]) != content:
        raise ValueError("does not end with its SHA-256 sum: damaged, or another program's")


def read_results(path: Path) -> xr.Dataset:
    """The results in a file, all in memory.

    Raises BadInput where it can't be read, or is not what was written.
    """
    try:
        content = read_small(path, LARGEST_RESULTS)
        check_seal(content)
        check_hdf5(path, LARGEST_RESULTS)
        results = unpacked(content)
    except Exception as error:  # a damaged file can raise anything
        raise BadInput("output", path, f"can't be read ({in_words(error)}); {RESTORE}") from error
    if "origin" not in results.attrs:
        raise BadInput("output", path, f"holds no results of this program; {RESTORE}")
    if results.attrs.get("sha256") != checksum(results):
        raise BadInput("output", path, f"is damaged (its SHA-256 sum is another one); {RESTORE}")
    reason = foreign_form(results)
    if reason:
        raise BadInput("output", path, f"holds no results of this program ({reason}); {RESTORE}")
    return results


def unpacked(content: bytes) -> xr.Dataset:
    """The variables, axes and attributes of a netCDF file.

    What xr.open_dataset gives, in a third of its time: the rest is spent on looking up axes.
    """
    import h5py

    variables: dict[str, Any] = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        for name, stored in file.items():
            if stored.attrs.get("NAME", b"").startswith(AXIS_WITHOUT_LABELS):
                continue
            if stored.is_scale:  # an axis itself
                dims = [name]
            else:
                axes = stored.attrs.get("DIMENSION_LIST", [])
                dims = [file[reference].name.lstrip("/") for (reference,) in axes]
            is_text = h5py.check_string_dtype(stored.dtype) is not None
            values = np.asarray(stored.asstr()[()], str) if is_text else stored[()]
            variables[name] = (dims, values, own_attributes(stored))
        results = xr.Dataset(variables, attrs=own_attributes(file))
    return xr.decode_cf(results, decode_times=False, decode_timedelta=False)


def own_attributes(stored: Any) -> dict[str, Any]:
    """The attributes of an HDF5 file or dataset that are not netCDF's own."""
    names = [name for name in stored.attrs if name not in NETCDF_ATTRIBUTES and name[0] != "_"]
    return {name: stored.attrs[name] for name in names}


def foreign_form(results: xr.Dataset) -> str | None:
    """What no results of this program have, whatever their sums say, or None."""
    reasons = [foreign_origin(results)]
    reasons += [foreign_axis(results, str(axis)) for axis in results.dims]
    for name, values in results.reset_coords().data_vars.items():
        is_text = values.dtype.kind in "OU"
        if values.dtype != np.float64 and not is_text:
            reasons.append(f"{name} is of type {values.dtype}")
        elif is_text != (name in TEXTS):
            reasons.append(f"{name} is {'a text' if is_text else 'a number'}")
    return next(filter(None, reasons), None)


def foreign_origin(results: xr.Dataset) -> str | None:
    """What is wrong with the results' origin, or None."""
    try:
        origin = origin_of(results)
        texts = [origin.get("dataset", ""), origin.get("network", "")]
        classes = origin.get("classes", [0, 1])
    except (ValueError, TypeError, AttributeError, RecursionError):
        return "its origin is no dictionary"
    numbers = classes if isinstance(classes, list) else []
    are_labels = len(numbers) == 2 and all(type(each) is int and each >= 0 for each in numbers)
    if not are_labels or not all(isinstance(text, str) for text in texts):
        return "its origin names no dataset, network or classes"
    return None


def foreign_axis(results: xr.Dataset, axis: str) -> str | None:
    """What is wrong with an axis and its labels, or None."""
    index = results.indexes.get(axis)
    if index is None or not index.is_unique or index.hasnans:
        return f"{axis} lacks labels, or has one twice"
    if not len(index):
        return f"{axis} is empty"
    is_number = index.dtype.kind in "iuf"
    if axis in ("n", "trial") and not is_number:
        return f"{axis} is not numbered"
    if is_number and not (index.min() >= 0 and index.max() <= LARGEST_LABEL):
        return f"{axis} goes from {index.min()} to {index.max()}"
    if axis in ("n", "trial") and np.any(index % 1):
        return f"{axis} has labels that are not whole"
    return None


@contextlib.contextmanager
def foreign_explained(path: Path) -> Iterator[None]:
    """Turn what the labels and numbers of a foreign file raise into one line that names it."""
    try:
        yield
    except BadInput:
        raise
    except UNUSABLE as error:
        reason = f"lacks what this program writes ({in_words(error)})"
        raise BadInput("output", path, f"{reason}; move it away and run again") from error


def write_results(path: Path, results: xr.Dataset) -> None:
    """Write results, with their checksum, whole or not at all, whatever was there."""
    results = in_order(results)
    results.attrs["sha256"] = checksum(results)
    packed = {}
    for name, variable in results.data_vars.items():
        if variable.dtype.kind == "f" and variable.size:
            chunk = (1, *variable.shape[1:])  # the results of one size are compressed together
            packed[name] = dict(zlib=True, complevel=5, shuffle=True, chunksizes=chunk)
    content = sealed(results.to_netcdf(engine="h5netcdf", encoding=packed))
    save(path, lambda file: file.write(content))


def in_order(results: xr.Dataset) -> xr.Dataset:
    """The same with sizes, settings, trials and names sorted, whatever ran first."""
    for axis in OUTER_AXES:
        if axis in results.dims:
            results = results.sortby(axis)
    return results[sorted(map(str, results.data_vars))].assign_attrs(results.attrs)


def origin_of(results: xr.Dataset) -> dict[str, Any]:
    """What all trials of these results have in common: data, classes, seed, constants."""
    return json.loads(results.attrs["origin"])


# --------------------------------------------------------------------------------------------------
# Merging by label
# --------------------------------------------------------------------------------------------------


def quantity(dims: tuple[str, ...], values: Any, long_name: str, units: str = "1") -> xr.DataArray:
    """One quantity of a record: its axes by name, its values, what it is, and its unit."""
    return xr.DataArray(
        np.asarray(values, float), dims=dims, attrs=dict(long_name=long_name, units=units)
    )


def empty_results(origin: Origin) -> xr.Dataset:
    """Results without any trial."""
    return xr.Dataset(attrs={"origin": json.dumps(origin)})


def merged(earlier: xr.Dataset, records: Records) -> xr.Dataset:
    """Earlier results, and records at their places in them.

    What a place held of a record's quantities is replaced.
    """
    if not records:
        return earlier
    labels = all_labels(earlier, records)
    results = enlarged(earlier, labels)
    for key, record in records:
        larger = enlarged(record, labels)
        for name in map(str, record.data_vars):
            values = larger[name]
            add_axes(results, name, [*key, *map(str, values.dims)], values)
            place = results[name].loc[dict(key)]
            place[...] = values.variable.set_dims(dict(place.sizes)).values
            results[name].attrs.update(values.attrs)
    return results


def all_labels(earlier: xr.Dataset, records: Records) -> Labels:
    """The labels of every axis, those of the earlier results first."""
    labels: Labels = {}
    add_labels(labels, earlier)
    for key, record in records:
        for axis, label in key.items():
            known = labels.setdefault(axis, [])
            if label not in known:
                known.append(label)
        add_labels(labels, record)
    return labels


def add_labels(labels: Labels, results: xr.Dataset) -> None:
    """Add to `labels` those of the axes of `results` that are not among them."""
    for axis in map(str, results.dims):
        known = labels.setdefault(axis, [])
        for label in results[axis].values.tolist():
            if label not in known:
                known.append(label)


def nothing_of(values: xr.DataArray) -> Any:
    """What stands where nothing is known: "" in texts, NaN in numbers."""
    return "" if values.dtype.kind in "OU" else np.nan


def enlarged(results: xr.Dataset, labels: Labels) -> xr.Dataset:
    """Results with these labels on their axes; nothing where nothing was."""
    own_labels = {}
    for axis in map(str, results.dims):
        own_labels[axis] = labels[axis]
    fill = {}
    for name, values in results.data_vars.items():
        fill[name] = nothing_of(values)
    larger = results.reindex(own_labels, fill_value=fill)
    for name in fill:
        if fill[name] == "":
            larger[name] = larger[name].astype(object)  # so that longer texts fit
    return larger.assign_coords(labels)


def add_axes(results: xr.Dataset, name: str, axes: list[str], like: xr.DataArray) -> None:
    """Let a quantity have these axes; one that is new holds nothing yet."""
    if name not in results:
        outer = [axis for axis in OUTER_AXES if axis in axes]
        own = [axis for axis in axes if axis not in outer]
        dims = (*outer, *own)
        shape = [results.sizes[axis] for axis in dims]
        dtype = object if nothing_of(like) == "" else float
        values = np.full(shape, nothing_of(like), dtype)
        results[name] = (dims, values, dict(like.attrs))
        return
    new = [axis for axis in axes if axis not in results[name].dims]
    if new:
        expanded = results[name].expand_dims({axis: results[axis] for axis in new})
        results[name] = expanded.transpose(*results[name].dims, *new).copy()


class ResultsFile:
    """The results of one run, as a context: those in the file, and each new trial's record.

    The file is read at once. Results of another origin, or damaged ones, are put aside when the
    context is entered. It is written now and then, and when the context is left, so that a run that
    is stopped loses little. Process 0 alone reads and writes.
    """

    def __init__(self, path: Path, origin: Origin) -> None:
        self.path, self.origin = path, json.loads(json.dumps(origin))
        self.results = empty_results(origin)
        self.new: Records = []
        self.computed_now: list[xr.Dataset] = []
        self.next_save = time.monotonic() + FIRST_SAVE
        self.unusable = self.read() if is_leader() else None

    def read(self) -> str | None:
        """Take what is in the file, if anything. Returns why it can't be used, or None."""
        if not os.path.lexists(self.path):
            return None
        try:
            earlier = read_results(self.path)
        except BadInput as error:
            return error.remedy.removesuffix(f"; {RESTORE}")  # advice for readers
        reason = other_origin(origin_of(earlier), self.origin)
        if not reason:
            self.results = earlier.reset_coords()
        return reason

    def __enter__(self) -> "ResultsFile":
        if self.unusable:
            put_aside(self.path, self.unusable, "replaced")
        return self

    def holds(self, key: Key, about: Mapping[str, Any], name: str = "test_images") -> bool:
        """Whether the file has that quantity at this place, computed as `about` says.

        That is from `provenance`. When it was computed does not matter. Process 0 answers for all.
        """
        return share(lambda: self._holds(key, about, name))

    def _holds(self, key: Key, about: Mapping[str, Any], name: str) -> bool:
        try:
            place = self.results[name].sel(dict(key))
            if not place.notnull().any():
                return False
            for text, value in about.items():
                if text != "finished" and self.results[text].sel(dict(key)).item() != value.item():
                    return False
        except (KeyError, ValueError, TypeError):
            return False
        return True

    def add(self, key: Key, record: xr.Dataset) -> None:
        """Add a record, to be written with the next one that is kept."""
        self.new.append((key, record))
        self.computed_now.append(record)

    def keep(self, key: Key, record: xr.Dataset) -> None:
        """Add a trial's record, and write the file unless that has just been done."""
        self.add(key, record)
        if not is_leader():
            return
        start = time.monotonic()
        if start > self.next_save:
            self.save()
            end = time.monotonic()
            self.next_save = end + (end - start) / SAVING_SHARE

    def save(self) -> None:
        """Write what there is."""
        self.results, self.new = merged(self.results, self.new), []
        write_results(self.path, self.results)

    def counted(self) -> int:
        """How many trials were computed now; of a sweep, each setting's."""
        count = 0
        for record in self.computed_now:
            if "test_images" in record:
                count += int(is_computed(record).sum())
        return count

    def __exit__(self, *_: object) -> None:
        if not is_leader():
            return
        if self.new:
            self.save()
        if self.computed_now:
            count = self.counted()
            there = int(is_computed(self.results).sum()) - count
            print(f"wrote {self.path}: {count} trials computed, {there} there before")


def other_origin(found: Origin, expected: Origin) -> str | None:
    """Why results of one origin can't join those of another, or None."""
    differing = []
    for key in sorted({*found, *expected}):
        if found.get(key) != expected.get(key):
            differing.append(f"{key} {found.get(key)}, not {expected.get(key)}")
    return f"is of another origin ({', '.join(differing)})" if differing else None


# --------------------------------------------------------------------------------------------------
# What a trial's record says of its computation, and helpers for readers
# --------------------------------------------------------------------------------------------------


def provenance(run: Run, network: Network, code: str) -> dict[str, xr.DataArray]:
    """What a trial's record says of how it was computed; code: from `code_version`."""
    return {
        "test_images": quantity((), run.test_size, "number of test images"),
        "precision": xr.DataArray(run.precision_of(network)),
        "engine": xr.DataArray(run.engine),
        "code": xr.DataArray(code),
        "finished": xr.DataArray(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
    }


def code_version(*files: Path) -> str:
    """Twelve hexadecimal digits of the formulas in these files and in linear_algebra.py.

    Those are functions, classes, and tables such as `prediction_quantities`, without comments. So a
    record that other formulas computed is known, and is computed again. Plain constants belong to
    the origin, or to what `provenance` says.
    """
    digest = hashlib.sha256(str(FORMULAS).encode())
    for path in (*files, Path(__file__).parent / "linear_algebra.py"):
        digest.update(formulas_in(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:12]


@functools.cache
def formulas_in(text: str) -> str:
    """The formulas of a file's text, in Python's own notation."""
    dumps = []
    for node in ast.parse(text).body:
        if is_formula(node):
            dumps.append(ast.dump(without_docstrings(node)))
    return "".join(dumps)


def is_formula(statement: ast.stmt) -> bool:
    """Whether a statement of a script defines a function, a class, or a table made by calls."""
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return any(isinstance(node, ast.Call) for node in ast.walk(statement))
    return isinstance(statement, ast.FunctionDef | ast.ClassDef)


def without_docstrings(node: ast.AST) -> ast.AST:
    """The same function or class without its docstrings, in place."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner):
            inner.body = inner.body[1:] or [ast.Pass()]
    return node


def note_flags(network: str, records: Sequence[xr.Dataset]) -> None:
    """Say how many of a network's K~ have numerical flags, if any has."""
    flags = []
    for record in records:
        if "numerical_flags" in record:
            flags.append(record.numerical_flags.values.ravel())
    flagged = int(sum(np.count_nonzero(each > 0) for each in flags))
    if flagged and is_leader():
        count = sum(each.size for each in flags)
        what = "not positive definite, or singular to rounding, or nearly; see numerical_flags"
        print(f"note: {network}: {flagged} of {count} matrices are {what}")


def medians_over_images(record: xr.Dataset) -> xr.Dataset:
    """A record without its axis of images: medians over it, to be kept for hundreds of settings."""
    shorter = record.drop_dims("image")
    for name, values in record.data_vars.items():
        if "image" in values.dims:
            median = values.median("image", skipna=False)
            long_name = f"{values.attrs['long_name']}, median over the test images"
            shorter[f"{name}_median"] = median.assign_attrs(values.attrs, long_name=long_name)
    return shorter


def is_computed(results: xr.Dataset) -> xr.DataArray:
    """Where there is a trial: bool [n, trial] or [n, setting, trial]."""
    return results["test_images"].notnull()


def relative_difference(values: Any, expected: Any) -> float:
    """Largest |values - expected|/|expected|.

    0 where both are NaN or the same infinity, inf where only one is.
    """
    values, expected = np.broadcast_arrays(np.asarray(values, float), np.asarray(expected, float))
    same = (values == expected) | (np.isnan(values) & np.isnan(expected))
    with np.errstate(all="ignore"):
        ratio = np.abs(values - expected) / np.abs(expected)
    ratio = np.nan_to_num(ratio, nan=np.inf, posinf=np.inf)
    return float(np.max(np.where(same, 0, ratio), initial=0))
