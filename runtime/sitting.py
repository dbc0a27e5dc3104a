"""One sitting of a run: what it computes with, what it says of what is to come, its progress, and its record."""

import contextlib
import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ntk import BadInput, has_accelerator
from ntk.convolutional import ConvolutionalPairs
from runtime.checkpoints import foreign_files, missing_pairs
from runtime.files import save
from runtime.linear_algebra import extreme_eigenvalues
from runtime.processes import process_count
from runtime.trials import DATASETS, PAPERS_DIGITS, Run, TrialFiles

# ----------------------------------------------------------------------------------------------------------------------
# What is to come
# ----------------------------------------------------------------------------------------------------------------------


def drop_unfillable_sizes(args: Namespace, run: Run, digits: Sequence[int]) -> None:
    """Leave out the constants' sizes that the data can't fill, with one note; a flag's sizes raise BadInput."""
    available = 2 * min(int(np.sum(run.data["train"]["label"] == digit)) for digit in digits)
    if args.sizes_given and max(args.data_sizes) > available:
        raise BadInput("data_sizes", max(args.data_sizes), f"{run.data['name']} fills {available}; use that or less")
    dropped = [n for n, t in zip(args.data_sizes, args.trials, strict=True) if n > available and t]
    if dropped:
        sizes = " ".join(map(str, dropped))
        print(f"note: {run.data['name']} can't fill {dropped[0]} training images of two digits; skipped: {sizes}")
    args.trials = [t if n <= available else 0 for n, t in zip(args.data_sizes, args.trials, strict=True)]


def trial_pairs(files: TrialFiles) -> int:
    """Pairs of images whose kernel a trial needs, images with themselves included."""
    n = files.trial.size
    return n * (n + 1) // 2 + n * files.run.test_size


def announce(run: Run, planned: Mapping[str, Sequence[TrialFiles]], asked: Mapping[str, int], dense_limit: int) -> None:
    """Say for each network what is to come, what is there already, and how long the rest takes.

    asked: trials that the command line or the constants ask for, of which some are left out without an accelerator;
    dense_limit: the size from which on sparsified matrices are kept sparse.
    """
    from ntk.numba_engine import is_compiled  # Numba takes a second to import, and --help should not wait for it

    missing_of = {network: list(map(missing_pairs, files)) for network, files in planned.items()}
    compiled = [is_compiled(network, run.precision) for network, missing in missing_of.items() if any(missing)]
    if run.engine == "numba" and not all(compiled):
        print("note: the engine is compiled first, once on this machine, which takes up to 20 s")
    for network, files in planned.items():
        counts = Counter(f.trial.size for f in files)
        sizes = ", ".join(f"{count} of n = {size}" for size, count in counts.items())
        pairs, missing = sum(map(trial_pairs, files)), sum(missing_of[network])
        print(f"{network}: {pairs:,} pairs of images; trials: {sizes or 'none'}")
        if len(files) < asked.get(network, 0):
            print(f"note: {network}: without an accelerator {len(files)} of {asked[network]} trials; --trials adds")
        foreign = [reason for f in files for reason in foreign_files(f)]
        if foreign:
            print(f"note: {network}: {len(foreign)} kernels in {run.output}/ will be put aside and computed again; "
                  f"--output DIR leaves them. The first one {foreign[0]}")  # fmt: skip
        if missing < pairs:
            print(f"{network}: {pairs - missing:,} pairs are in {run.output}/ and are not computed again; "
                  f"--output DIR computes all anew in another folder")  # fmt: skip
        if network == "convolutional" and missing and process_count() == 1:
            seconds = layers_of(missing_of[network], files) * seconds_per_layer(run)
            print(f"{network}: the other {missing:,} pairs take about {in_words(seconds)}")
        if network == "fully-connected" and files:
            print(f"{network}: about {in_words(seconds_of_trials([f.trial.size for f in files], dense_limit))}")


def layers_of(pairs: Iterable[int], files: Iterable[TrialFiles]) -> int:
    """Layers of so many pairs of each trial, to which the convolutional network's time is proportional."""
    return sum(count * each.depth for count, each in zip(pairs, files, strict=True))


def seconds_per_layer(run: Run) -> float:
    """Seconds of a layer of the convolutional kernel of a pair of images, measured on one block of pairs."""
    if run.engine == "neural-tangents":
        return 0.3 / 96  # to measure it would take a minute
    images = np.random.default_rng(0).normal(size=(2, 28, 28, 1))
    seconds = 0.0
    for depth in (3, 96):  # the first call may compile; shallow networks take longer a layer
        pairs = ConvolutionalPairs(images, depth=depth, engine=run.engine, precision=run.precision)
        start = time.perf_counter()
        pairs.pairs(np.zeros(pairs.block, int), np.ones(pairs.block, int))
        seconds = time.perf_counter() - start
    return seconds / pairs.block / 96


def seconds_of_trials(sizes: Sequence[int], dense_limit: int) -> float:
    """Seconds of fully-connected trials: their eigenvalues outweigh their kernels. Measured on one matrix.

    A trial takes about 0.1 s and the eigenvalues of its kernel and six sparsified matrices; if sparse, these as long as
    one dense one.
    """
    matrix = np.random.default_rng(0).normal(size=(512, 512))
    start = time.perf_counter()
    extreme_eigenvalues(matrix + matrix.T)
    seconds = time.perf_counter() - start
    return sum(0.1 + seconds * (n / 512) ** 3 * (8 if n <= dense_limit else 2) for n in sizes)


def in_words(seconds: float) -> str:
    """A duration for people: 40 s, 12 minutes, 5.5 hours."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def where_to_look(output: Path, written: Iterable[Path]) -> str:
    """The commands that show what a run wrote; both need results of the plan itself, the figures of its own digits."""
    folder = shlex.quote(str(output))
    own, option = ("", "") if folder == "kernel_output" else (f"KERNEL_OUTPUT={folder} ", f" --output {folder}")
    lines, networks = [], [first + network for first in DATASETS.values() for network in PAPERS_DIGITS]
    drawn = [n for n in networks if (output / f"{n}_results.npz").exists()]
    if any(path.name.startswith(f"{network}_") for network in drawn for path in written):
        lines.append(f"Figures: {own}jupyter lab analysis.ipynb")
    if any(output.glob("*_results.npz")):
        lines.append(f"Tables: python scaling.py{option} writes {output}/RESULTS.md")
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------------------
# Progress, and the record
# ----------------------------------------------------------------------------------------------------------------------


class Sitting:
    """The progress bar of one network, as a context; where it is left in order, run.json gets a record of it."""

    def __init__(self, run: Run, network: str, what: str, files: Sequence[TrialFiles]) -> None:
        self.run, self.network, self.what, self.files = run, network, what, files
        missing = list(map(missing_pairs, files))
        self.computed, self.layers = sum(missing), layers_of(missing, files)
        self.pairs = sum(map(trial_pairs, files))

    def __enter__(self) -> "Sitting":
        self.started = time.perf_counter()
        self.bar = tqdm(total=self.pairs, unit=" pairs", unit_scale=True, desc=self.network, disable=None)
        self.said, self.done = self.started, 0
        return self

    def progress(self, pairs: int) -> None:
        """Count pairs of images; logs, which show no bar, get a line every ten minutes."""
        self.bar.update(pairs)
        self.done += pairs
        if not sys.stderr.isatty() and time.perf_counter() > self.said + 600:
            self.said = time.perf_counter()
            elapsed, left = self.said - self.started, layers_of(map(missing_pairs, self.files), self.files)
            known = self.network == "convolutional" and left < self.layers  # else eigenvalues decide, and they grow
            more = f", about {in_words(elapsed * left / (self.layers - left))} more" if known else ""
            print(f"{self.network}: {self.done:,} of {self.pairs:,} pairs after {in_words(elapsed)}{more}")

    def __exit__(self, kind: object, *_: object) -> None:
        self.bar.close()
        if kind is None:
            counts = Counter(files.trial.size for files in self.files)
            record_sitting(self.run, {
                "network": self.network, "what": self.what, "digits": sorted({f.trial.digits for f in self.files}),
                "precision": self.run.precision_of(self.network), "trials": dict(sorted(counts.items())),
                "pairs": self.pairs, "pairs_computed": self.computed,
                "seconds": round(time.perf_counter() - self.started, 1),
            })  # fmt: skip


def describe_device() -> str:
    """The accelerators, or the processor and its number of cores."""
    if has_accelerator():
        import jax

        return f"{jax.device_count()} x {jax.local_devices()[0].device_kind}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU, {(models or [platform.processor() or platform.machine()])[0]}, {os.cpu_count()} cores"


def record_sitting(run: Run, what: dict[str, Any]) -> None:
    """Add to run.json what one run did for one network: when, where, with which versions, in how many seconds."""
    packages = ("numpy", "scipy", "numba", "jax", "jaxlib")
    path = run.output / "run.json"
    earlier = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        earlier = json.loads(path.read_text())["sittings"]
    sitting = what | {
        "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "dataset": run.data["name"], "device": describe_device(), "engine": run.engine, "processes": process_count(),
        "seed": run.seed, "test_size": run.test_size,
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
    }  # fmt: skip
    lines = ",\n".join(json.dumps(each) for each in [*earlier, sitting])  # one line a sitting
    save(path, lambda file: file.write(f'{{"sittings": [\n{lines}\n]}}\n'.encode()))
