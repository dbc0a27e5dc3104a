"""One sitting of a run: what it says of what is to come, its progress, and its record."""

import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ntk import BadInput, has_accelerator
from ntk.convolutional import ConvolutionalPairs
from runtime.files import output_files, put_aside, read_small, save_text
from runtime.kernels import Need, foreign_files, missing_pairs, trial_pairs
from runtime.processes import is_leader, process_count
from runtime.trials import Network, Run, TrialFiles

Needed = Sequence[tuple[TrialFiles, Need]]  # trials, and which part of their kernels each needs
LARGEST_RECORD = 2**24  # bytes of run.json
line_seconds = 600  # from one line about progress to the next, in logs

# --------------------------------------------------------------------------------------------------
# What is to come
# --------------------------------------------------------------------------------------------------


def drop_unfillable_sizes(args: Namespace, run: Run, classes: Sequence[int]) -> None:
    """Leave out the constants' sizes that the images can't fill, with one note.

    Raises BadInput for a flag's sizes.
    """
    counts = [int(np.sum(run.images.train.label == label)) for label in classes]
    available = 2 * min(counts)
    name = run.images.name
    if args.sizes_given and max(args.data_sizes) > available:
        remedy = f"{name} fills {available}; use that or less"
        raise BadInput("data_sizes", max(args.data_sizes), remedy)
    kept, dropped = [], []
    for n, count in zip(args.data_sizes, args.trials, strict=True):
        kept.append(count if n <= available else 0)
        if n > available and count:
            dropped.append(n)
    args.trials = kept
    if dropped and is_leader():
        sizes = " ".join(map(str, dropped))
        what = f"can't fill {dropped[0]} training images of two classes"
        print(f"note: {name} {what}; skipped: {sizes}")


def refuse_shapes(run: Run, networks: Iterable[Network]) -> None:
    """Raise BadInput, before anything is computed, where a network can't take images so large."""
    height, width = run.images.shape
    for network in networks:
        if not network.flat and (height // 16, width // 16) != (1, 1):  # four poolings
            what = f"has images of {height} x {width} pixels; the {network.name} network takes"
            remedy = f"{what} 16 to 31; scale them, or leave it out by --networks"
            raise BadInput("dataset", run.images.name, remedy)


def announce(
    run: Run, network: Network, planned: Needed, needed: Needed, asked: int | None
) -> None:
    """Say what is to come, what is there already, and how long the rest takes.

    planned: all trials; needed: those of them that are not in the results. asked: trials that the
    command line or the constants ask for, of which some may be left out without an accelerator;
    None where that is no news.
    """
    if not is_leader():
        return
    pairs = sum(trial_pairs(*each) for each in planned)
    missing = [missing_pairs(*each) for each in needed]
    print(f"{network.name}: {pairs:,} pairs of images; trials: {count_by_size(planned)}")
    if asked is not None and len(planned) < asked:
        what = f"without an accelerator {len(planned)} of {asked} trials; --trials adds"
        print(f"note: {network.name}: {what}")
    foreign = [reason for each in needed for reason in foreign_files(*each)]
    if foreign:
        print(
            f"note: {network.name}: {len(foreign)} kernels in {run.output}/ will be put aside and "
            f"computed again; --output DIR leaves them. The first one {foreign[0]}"
        )
    if sum(missing) < pairs:
        print(
            f"{network.name}: {pairs - sum(missing):,} pairs are in {run.output}/, as kernels or "
            f"results, and are not computed again; --output DIR computes all anew"
        )
    if sum(missing):
        say_compilation(run, network)
    if sum(missing) > 0 and not network.in_seconds and process_count() == 1:
        seconds = layers_of(missing, needed) * seconds_per_layer(needed[-1][0].run)
        print(f"{network.name}: the other {sum(missing):,} pairs take about {in_words(seconds)}")


def count_by_size(needed: Needed) -> str:
    """How many trials there are of each size, in words."""
    counts = Counter(files.trial.size for files, _ in needed)
    return ", ".join(f"{count} of n = {size}" for size, count in counts.items()) or "none"


def say_compilation(run: Run, network: Network) -> None:
    """Say that the engine has to be compiled, if it has."""
    # Numba takes a second to import; --help should not wait.
    from ntk.numba_engine import (
        is_compiled,
    )

    if run.engine == "numba" and not is_compiled(network.name, run.precision):
        print("note: the engine is compiled first, once on this machine, which takes up to 20 s")


def layers_of(pairs: Iterable[int], needed: Needed) -> int:
    """Layers of so many pairs of each trial: a convolutional network's time is proportional."""
    return sum(count * files.depth for count, (files, _) in zip(pairs, needed, strict=True))


def seconds_per_layer(run: Run) -> float:
    """Seconds of a layer of the convolutional kernel of one pair of images, measured on a block."""
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


class Allowance:
    """Seconds that kernels may take which nobody has asked for, by the speed of this machine."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self.first = True
        self.per_layer = 0.0

    def covers(self, files: TrialFiles, need: Need) -> bool:
        """Whether a trial's missing kernels can be computed in what is left, or are the first ones.

        The first call measures the speed, and compiles the engine if that has to be done.
        """
        seconds = self.seconds_of(files, need)
        is_covered = self.first or seconds <= self.left
        self.first = False
        self.left = self.left - seconds if is_covered else 0
        return is_covered

    def seconds_of(self, files: TrialFiles, need: Need) -> float:
        """About how long a trial's missing kernels take."""
        if not self.per_layer:
            self.per_layer = seconds_per_layer(files.run)
        return self.per_layer * files.depth * missing_pairs(files, need)


def in_words(seconds: float) -> str:
    """A duration for people: 40 s, 12 minutes, 5.5 hours."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def where_to_look(output: Path, written: Sequence[Path]) -> str:
    """The commands that show what a run wrote."""
    folder = shlex.quote(str(output))
    is_default = folder == "kernel_output"
    own = "" if is_default else f"KERNEL_OUTPUT={folder} "
    option = "" if is_default else f" --output {folder}"
    lines = []
    if any(path.name.endswith("_results.nc") for path in written):
        lines.append(f"Figures: {own}jupyter lab analysis.ipynb")
    if output_files(output, "*_results.nc"):
        lines.append(f"Tables: python report.py{option} writes {output}/RESULTS.md")
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------
# Progress, and the record
# --------------------------------------------------------------------------------------------------


class Sitting:
    """The progress bar of one network, as a context; left in order, run.json gets a record of it.

    needed: the trials to compute; planned: how many there are, those of earlier runs among them.
    """

    def __init__(self, run: Run, network: Network, what: str, needed: Needed, planned: int) -> None:
        self.run, self.network, self.what, self.needed = run, network, what, needed
        self.pairs = sum(trial_pairs(*each) for each in needed)
        self.missing = [missing_pairs(*each) for each in needed] if is_leader() else []
        self.planned = planned

    def __enter__(self) -> "Sitting":
        self.started = self.said = time.perf_counter()
        self.done = 0
        there = self.planned - len(self.needed)
        if is_leader() and there:
            count = len(self.needed)
            print(f"{self.network.name}: {count} trials to compute, {there} are in the results")
        hidden = None if is_leader() else True
        self.bar = tqdm(
            total=self.pairs, unit=" pairs", unit_scale=True, desc=self.network.name, disable=hidden
        )
        return self

    def progress(self, pairs: int) -> None:
        """Count pairs of images; logs, which show no bar, get a line now and then."""
        self.bar.update(pairs)
        self.done += pairs
        if (
            is_leader()
            and not sys.stderr.isatty()
            and time.perf_counter() > self.said + line_seconds
        ):
            self.said = time.perf_counter()
            elapsed = in_words(self.said - self.started)
            counts = f"{self.done:,} of {self.pairs:,} pairs"
            print(f"{self.network.name}: {counts} after {elapsed}{self.rest()}")

    def rest(self) -> str:
        """How long the rest takes, in words, where pairs of images decide that."""
        before = layers_of(self.missing, self.needed)
        left = layers_of([missing_pairs(*each) for each in self.needed], self.needed)
        if self.network.in_seconds or left >= before:
            return ""
        return f", about {in_words((self.said - self.started) * left / (before - left))} more"

    def __exit__(self, kind: object, *_: object) -> None:
        self.bar.close()
        if kind is None and self.needed and is_leader():
            counts = Counter(files.trial.size for files, _ in self.needed)
            record_sitting(self.run, {
                "network": self.network.name,
                "what": self.what,
                "classes": sorted({files.trial.classes for files, _ in self.needed}),
                "precision": self.needed[-1][0].run.precision_of(self.network),
                "trials": dict(sorted(counts.items())),
                "pairs": self.pairs,
                "pairs_computed": sum(self.missing),
                "seconds": round(time.perf_counter() - self.started, 1),
            })  # fmt: skip


def describe_device() -> str:
    """The accelerators, or the processor and its number of cores."""
    if has_accelerator():
        import jax

        return f"{jax.device_count()} x {jax.local_devices()[0].device_kind}"
    return f"CPU, {processor_name()}, {os.cpu_count()} cores"


def processor_name() -> str:
    """What the system, or else LLVM, calls the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    import llvmlite.binding

    return llvmlite.binding.get_host_cpu_name() or platform.processor() or platform.machine()


def earlier_sittings(path: Path) -> list[dict[str, Any]]:
    """The records in run.json; a file that does not hold any is put aside."""
    if not os.path.lexists(path):
        return []
    try:
        sittings = json.loads(read_small(path, LARGEST_RECORD))["sittings"]
        if not isinstance(sittings, list) or not all(isinstance(each, dict) for each in sittings):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        put_aside(path, "is damaged, or not this program's", "begun anew")
        return []
    return sittings


def record_sitting(run: Run, what: dict[str, Any]) -> None:
    """Add to run.json what one run did for one network, when, where and for how long."""
    packages = ("numpy", "scipy", "numba", "jax", "jaxlib")
    versions = {"python": platform.python_version()}
    for package in packages:
        versions[package] = importlib.metadata.version(package)
    path = run.output / "run.json"
    sitting = what | {
        "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "dataset": run.images.name,
        "device": describe_device(),
        "engine": run.engine,
        "processes": process_count(),
        "seed": run.seed,
        "test_size": run.test_size,
        "versions": versions,
    }
    lines = [json.dumps(each) for each in [*earlier_sittings(path), sitting]]  # one line a sitting
    save_text(path, '{"sittings": [\n' + ",\n".join(lines) + "\n]}\n")
