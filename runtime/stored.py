"""Trials whose kernels training.py finished, for the scripts that read them and compute none.

They choose trials by the same options, and say of each record what it was computed from.
"""

import argparse
import hashlib
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
    add_classes_option,
    dataset_name,
    find_dataset,
)
from runtime.linear_algebra import Matrix
from runtime.results import quantity
from runtime.trials import Classes, Label, Network, Trial

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
    the label of each of them says too.
    """

    folder: Path
    dataset: Dataset
    prefix: str
    seed: int
    numbers: Mapping[int, list[int]]
    label: Label

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
    label = label_of(path)
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return {
        "test_images": quantity((), label["test_size"], "number of test images", "images"),
        "precision": described(label.get("precision", ""), "precision of the kernels"),
        "finished": described(now, "when this was computed"),
    }


def described(text: str, long_name: str) -> xr.DataArray:
    """A text of a record."""
    return xr.DataArray(text, attrs={"long_name": long_name, "units": ""})
