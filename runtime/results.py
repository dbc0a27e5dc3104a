"""Results files: one record of quantities for each (size, setting, trial), merged from run to run.

In `{prefix}_results.npz` every array is [sizes, trials, ...], in the files of a sweep [sizes, settings, trials, ...],
NaN where there is no trial. `origin` says what all trials of a file have in common; a run replaces the trials that it
computed, keeps the others, and puts a file of another origin aside. Until a run is over its records are in
`{prefix}_results.npz.unfinished`, from where the next run goes on if it is stopped.
"""

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntk import BadInput
from runtime.files import put_aside, save

Key = tuple[int, Hashable, int]  # size, setting (None where a file has no sweep) and number of a trial
Record = Mapping[str, Any]
ROOT = Path(__file__).parent.parent
SETTINGS = {"depth_sweep": "depth_settings", "digit_pairs": "digit_pairs"}  # of files that have settings
SAVING = 0.05  # of a run's time at most is spent on saving unfinished records


@dataclass
class Results:
    """The records of one file, and what belongs to a size and not to a trial."""

    origin: dict[str, Any]
    records: dict[Key, Record] = field(default_factory=dict)
    by_size: dict[int, Record] = field(default_factory=dict)
    settings_name: str | None = None  # the array that lists a sweep's settings

    def arrays(self) -> dict[str, NDArray]:
        """What the file holds, by name.

        Raises ValueError where the records' names or shapes differ, so that a misspelt name is not dropped.
        """
        sizes = sorted({size for size, _, _ in self.records} | set(self.by_size))
        settings = sorted({setting for _, setting, _ in self.records})  # type: ignore[type-var]
        trials = 1 + max((number for _, _, number in self.records), default=-1)
        axes = (len(sizes), len(settings), trials) if self.settings_name else (len(sizes), trials)
        computed = np.zeros(axes, bool)
        found: dict[str, NDArray] = {}
        first = next(iter(self.records.values()), {})
        for (size, setting, number), record in self.records.items():
            if record.keys() != first.keys():
                raise ValueError(f"records differ in their names: {sorted(record.keys() ^ first.keys())}")
            at = (sizes.index(size), *([settings.index(setting)] if self.settings_name else []), number)
            computed[at] = True
            for name, value in record.items():
                array = found.setdefault(name, np.full((*axes, *np.shape(first[name])), np.nan))
                if array[at].shape != np.shape(value):
                    raise ValueError(f"{name} of shape {np.shape(value)}, elsewhere {array[at].shape}")
                array[at] = value
        names_by_size = sorted({name for record in self.by_size.values() for name in record})
        for s, size in enumerate(sizes):
            for name, value in self.by_size.get(size, {}).items():
                found.setdefault(name, np.full((len(sizes), *np.shape(value)), np.nan))[s] = value
        present = computed.any(axis=1) if self.settings_name else computed
        about = {"data_sizes": np.array(sizes), "trials": present.sum(axis=-1), "computed": computed}
        if self.settings_name:
            about[self.settings_name] = np.array(settings)
        return about | found | {"by_size": np.array(names_by_size, "U"), "origin": np.array(json.dumps(self.origin))}


def medians_over_images(record: Record) -> Record:
    """A record whose arrays over test images have become medians over them, to be kept for hundreds of settings."""
    per_image = ("post_selection_measurements", "readout_measurements")
    return {
        name + "_median" * name.startswith(per_image): np.median(value, -1) if name.startswith(per_image) else value
        for name, value in record.items()
    }


def note_flags(network: str, records: Iterable[Record]) -> None:
    """Say how many of a network's K~ have numerical flags, if any has."""
    flags = np.ravel([record["numerical_flags"] for record in records])
    if flags.any():
        what = "not positive definite, or singular to rounding, or nearly; see numerical_flags"
        print(f"note: {network}: {np.sum(flags > 0)} of {flags.size} K~ are {what}")


def load_arrays(path: Path) -> dict[str, NDArray]:
    """The arrays of a results file. Raises BadInput where it can't be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # a damaged file can raise anything
        remedy = f"can't be read ({error}); delete it, or restore it, and run it again"
        raise BadInput("output", path, remedy) from error


def read_results(path: Path, settings_name: str | None = None) -> Results:
    """The records of a results file. Raises BadInput where it can't be read or says nothing of its origin."""
    arrays = load_arrays(path)
    try:
        sizes, computed = arrays.pop("data_sizes").tolist(), arrays.pop("computed")
        origin, names_by_size = json.loads(str(arrays.pop("origin"))), arrays.pop("by_size").tolist()
        del arrays["trials"]
        settings: list[Hashable] = [None]
        if settings_name:
            settings = [tuple(s) if isinstance(s, list) else s for s in arrays.pop(settings_name).tolist()]
    except KeyError as error:
        raise BadInput("output", path, f"has no array {error}; an older version wrote it; run it again") from error
    results = Results(origin, settings_name=settings_name)
    for at in np.argwhere(computed).tolist():
        key = (sizes[at[0]], settings[at[1]] if settings_name else None, at[-1])
        results.records[key] = {name: array[tuple(at)] for name, array in arrays.items() if name not in names_by_size}
    for s, size in enumerate(sizes):
        found = {name: arrays[name][s] for name in names_by_size}
        if any(np.isfinite(value).any() for value in found.values()):
            results.by_size[size] = found
    return results


def merge_results(path: Path, new: Results) -> str:
    """Write the new records into the file at `path`, beside what it holds of the same origin. Returns what was done."""
    merged, said = new, f"wrote {path}: {len(new.records)} trials"
    if path.exists():
        try:
            old = read_results(path, new.settings_name)
            names = {frozenset(record) for record in [*old.records.values(), *new.records.values()]}
            other = [f"{k} {old.origin.get(k)}, not {v}" for k, v in new.origin.items() if old.origin.get(k) != v]
            reason = f"is of another origin ({', '.join(other)})" if other else None
            reason = reason or ("has other quantities" if len(names) > 1 else None)
        except BadInput as error:
            reason = error.remedy
        if reason:
            put_aside(path, reason, "replaced")
        else:
            records = {**old.records, **new.records}
            merged = Results(new.origin, records, old.by_size | new.by_size, new.settings_name)
            kept = len(records) - len(new.records)
            said += f" computed, {kept} kept from earlier runs" if kept else ""
    merged.records = dict(sorted(merged.records.items(), key=lambda item: str(item[0])))  # whatever ran first
    save_results(path, merged)
    return said


def save_results(path: Path, results: Results) -> None:
    """Write a results file, whatever was there."""
    arrays: dict[str, Any] = results.arrays()
    save(path, functools.partial(np.savez_compressed, **arrays))


class GrowingResults(Results):
    """The results of one run, as a context: it begins with the records that a stopped run left, and ends in a merge.

    Records that can't be read, or that other constants or other code computed, are not gone on with.
    """

    def __init__(
        self, path: Path, origin: dict[str, Any], settings_name: str | None = None, engine: str = "auto"
    ) -> None:
        super().__init__(origin, settings_name=settings_name)
        self.path, self.unfinished, self.next_save = path, path.with_name(path.name + ".unfinished"), 0.0
        self.marked = json.loads(json.dumps(origin | {"code": code_checksum(), "engine": engine}))

    def __enter__(self) -> "GrowingResults":
        with contextlib.suppress(BadInput):
            left = read_results(self.unfinished, self.settings_name)
            if left.origin == self.marked:
                self.records, self.by_size = left.records, left.by_size
                print(f"{self.path.name}: {len(left.records)} trials are there from a run that was stopped")
        return self

    def keep(self, key: Key, record: Record) -> None:
        """Add a trial's record, and save all, unless that has just been done."""
        self.records[key] = record
        start = time.monotonic()
        if start > self.next_save:
            self.save()
            end = time.monotonic()
            self.next_save = end + (end - start) / SAVING

    def save(self) -> None:
        """Save what there is for the next run."""
        save_results(self.unfinished, Results(self.marked, self.records, self.by_size, self.settings_name))

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            print(merge_results(self.path, self))
            self.unfinished.unlink(missing_ok=True)
        elif self.records:
            self.save()


def code_checksum() -> str:
    """SHA-256 sum of everything that computes a record. Changed code does not go on with what older code computed."""
    files = [ROOT / "training.py", *sorted(ROOT.glob("ntk/*.py")), *sorted(ROOT.glob("runtime/*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def relative_difference(found: Any, expected: Any) -> float:
    """Largest |found - expected| / |expected|; 0 where both are NaN or the same infinity, inf where only one is."""
    found, expected = np.broadcast_arrays(np.asarray(found, float), np.asarray(expected, float))
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(all="ignore"):
        ratio = np.abs(found - expected) / np.abs(expected)
    return float(np.max(np.where(same, 0, np.nan_to_num(ratio, nan=np.inf, posinf=np.inf)), initial=0))
