"""Trials whose kernels training.py finished, for the scripts that read them and compute none.

They choose trials by the same options, and say of each record what it was computed from.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from runtime import options
from runtime.checkpoints import finished_trials, label_of
from runtime.datasets import (
    DIGITS,
    MNIST,
    NAMES_HELP,
    Dataset,
    Split,
    add_classes_option,
    dataset_name,
    find_dataset,
)
from runtime.linear_algebra import Matrix
from runtime.results import quantity
from runtime.trials import Classes, Label, Network, Run, Trial

AUTO_HELP = "auto (MNIST's kernels, or the digits' where there are none)"


# --------------------------------------------------------------------------------------------------
# Options
# --------------------------------------------------------------------------------------------------


def add_network_options(parser: options.Parser, networks: Iterable[str], seed: int) -> None:
    """Add --networks, --classes and --seed: whose kernels are read. Folders come beside them."""
    names = list(networks)
    text = "seed that the kernels have in their names"
    number = {"type": options.whole_number}
    choice = dict(nargs="+", choices=names, default=names, metavar="NETWORK")
    parser.add_options([
        ("--networks", choice, f"of {' '.join(names)}", names),
        ("--seed", dict(number, default=seed), text, seed),
    ])  # fmt: skip
    add_classes_option(parser)


def add_dataset_option(parser: options.Parser) -> None:
    """Add --dataset, of which the kernels are that are read."""
    how = dict(default="auto", type=dataset_name, metavar="NAME")
    text = f"what the kernels are of: {AUTO_HELP}, {NAMES_HELP}"
    parser.add_options([("--dataset", how, text, "auto")])


def parse_arguments(parser: options.Parser, argv: list[str] | None) -> argparse.Namespace:
    """The command line, with `classes` as a pair of labels, or None where it names none."""
    parser.set_defaults(digit_pairs=False)
    args = parser.parse_args(argv)
    args.classes = options.checked_classes(parser, args)
    return args


# --------------------------------------------------------------------------------------------------
# Trials
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredTrials:
    """The finished trials of one network, dataset and pair of classes in a folder.

    prefix: what the names of their files begin with; numbers: of the trials, by size; label: what
    the label of each of them says too. computed: size and number of those that are not in the
    folder, and that `run` computes.
    """

    folder: Path
    dataset: Dataset
    prefix: str
    seed: int
    numbers: Mapping[int, list[int]]
    label: Label
    computed: frozenset[tuple[int, int]] = frozenset()
    run: Run | None = None

    @property
    def origin(self) -> dict[str, object]:
        """What results of these trials have in common."""
        return {
            "dataset": self.label["dataset"],
            "dataset_sha256": self.label["dataset_sha256"],
            "network": self.label["network"],
            "classes": self.label["digits"],
            "seed": self.seed,
        }

    def only(self, numbers: Mapping[int, list[int]]) -> "StoredTrials":
        """Some of them: numbers by size."""
        return replace(self, numbers=numbers)

    def all(self) -> list[tuple[int, int]]:
        """Size and number of every trial."""
        return [(size, number) for size in self.numbers for number in self.numbers[size]]

    def kernel_test(self, size: int, number: int) -> Path:
        """The file of a trial's k*."""
        return kernel_test(self.folder, self.prefix, self.seed, size, number)

    def say_note(self) -> None:
        """Print a line where the images are not MNIST's."""
        if self.dataset.note:
            print(self.dataset.note)


def kernel_test(folder: Path, prefix: str, seed: int, size: int, number: int) -> Path:
    """The file of a trial's k*."""
    return folder / f"{prefix}_seed{seed}_data{size}_trial{number}_kernel_test.npy"


def stored_trials(
    folder: Path, dataset: str, network: Network, classes: Classes, seed: int
) -> StoredTrials | None:
    """The trials of a network in a folder; None where there is none.

    dataset: a name, the path of a file FILE.npz, or "auto": MNIST, or the digits where no trial is
    of MNIST. Raises BadInput where labels say that the trials are of something else than their
    names, or of different images.
    """
    datasets = [MNIST, DIGITS] if dataset == "auto" else [find_dataset(dataset)]
    for candidate in datasets:
        variant = Trial(network, classes, 0, 0).variant
        prefix = f"{candidate.prefix}{network.name}{variant}"
        numbers = finished_trials(folder, prefix, seed)
        if numbers:
            size = min(numbers)
            path = kernel_test(folder, prefix, seed, size, numbers[size][0])
            label = label_of(path)
            return StoredTrials(folder, candidate, prefix, seed, numbers, label)
    return None


def with_computed(
    trials: StoredTrials | None,
    run: Run,
    network: Network,
    classes: Classes,
    counts: Mapping[int, int],
) -> StoredTrials:
    """The trials in a folder, and the first ones of each size that a run can compute.

    counts: how many, by size. None of images of which there are not enough, or which are not those
    of the folder's kernels.
    """
    if trials is None:
        label: Label = {"dataset": run.images.name, "dataset_sha256": run.images.sha256}
        label |= {"network": network.name, "digits": list(classes)}
        prefix = run.prefix(network) + Trial(network, classes, 0, 0).variant
        trials = StoredTrials(run.output, run.images.dataset, prefix, run.seed, {}, label)
    if run.images.sha256 != trials.label["dataset_sha256"]:
        return trials
    there = set(trials.all())
    computed = set()
    for size, count in counts.items():
        is_enough = size <= most_images(run.images.train, classes)
        if is_enough and run.test_size <= most_images(run.images.test, classes):
            computed |= {(size, number) for number in range(count)} - there
    numbers: dict[int, list[int]] = {}
    for size, number in sorted(there | computed):
        numbers.setdefault(size, []).append(number)
    return replace(trials, numbers=numbers, computed=frozenset(computed), run=run)


def most_images(split: Split, classes: Classes) -> int:
    """Of the largest subset that has as many of each class."""
    return 2 * min(int(np.count_nonzero(split.label == label)) for label in classes)


def label_of_computed(run: Run, trial: Trial) -> Label:
    """What decides a trial that a run computes."""
    label = {"size": trial.size, "trial": trial.number, "test_size": run.test_size}
    origin = run.origin(trial.network, trial.classes)
    return origin | label | {"precision": run.precision_of(trial.network)}


# --------------------------------------------------------------------------------------------------
# What a trial's record says of its computation
# --------------------------------------------------------------------------------------------------


def fingerprint(*matrices: Matrix) -> int:
    """A number that stands for the content of matrices, dense or sparse; exact in a float64."""
    digest = hashlib.sha256()
    for matrix in matrices:
        if isinstance(matrix, np.ndarray):
            digest.update(matrix.tobytes())
        else:
            for part in (matrix.data, matrix.indices, matrix.indptr):
                digest.update(part.tobytes())
    return int.from_bytes(digest.digest()[:6], "little")


def fingerprint_of(label: Label) -> int:
    """The same for what is computed of such a label."""
    return fingerprint(np.frombuffer(json.dumps(label).encode(), np.uint8))


def inputs_of(number: int, code: str) -> dict[str, xr.DataArray]:
    """What a record is known by: the `fingerprint` of its inputs, and the code's version."""
    return {
        "fingerprint": quantity((), number, "number that stands for the inputs"),
        "code": described(code, "version of the code"),
    }


def provenance(path: Path) -> dict[str, xr.DataArray]:
    """What a trial's record says of its kernels, by the label in the file `path`, and when it was.

    The engine that evaluated them is in no label.
    """
    return about(label_of(path))


def about(label: Label) -> dict[str, xr.DataArray]:
    """The same by the label itself."""
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return {
        "test_images": quantity((), label["test_size"], "number of test images", "images"),
        "precision": described(label.get("precision", ""), "precision of the kernels"),
        "finished": described(now, "when this was computed"),
    }


def described(text: str, long_name: str) -> xr.DataArray:
    """A text of a record."""
    return xr.DataArray(text, attrs={"long_name": long_name, "units": ""})
