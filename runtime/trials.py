"""A run and its trials: what they are, how random draws are seeded, and where the files are."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ntk import FORMULAS

Label = dict[str, Any]  # what decides a trial's kernels: its network, depth, precision and so on
Classes = tuple[int, int]  # two labels of the dataset, of which the second one is class +1


@dataclass(frozen=True, eq=False)
class Network:
    """What differs between the networks. training.py has one object for each, side by side.

    name: in files and options; title: in headings; classes: the paper's own pair. flat: whether
    images are rows of pixels [n, h * w], or stay [n, h, w, 1]. depth(size, separability, setting):
    hidden layers or convolutions, by the depth sweep's setting or, where that is None, by the plan.
    depth_rule: the plan's constant, and sweep: the sweep's settings. compute_kernels: fills in a
    trial's matrices (runtime/kernels.py). kernel_scale and sparsify: as described where they are
    defined. reference_size: of the training set whose kernel decides the thresholds; None where
    none does. whole_kernel_limit: of larger kernels only the entries that K~ needs are computed;
    None: never. constants: that a results file depends on. in_seconds: whether kernels take
    seconds, so that precision and accelerators do not matter, and the depth is known only when the
    images are.
    """

    name: str
    title: str
    classes: Classes
    flat: bool
    depth: Callable[[int, float, float | None], int]
    depth_rule: float
    sweep: tuple[float, ...]
    compute_kernels: Callable[..., Any]
    kernel_scale: Callable[..., Any]
    sparsify: Callable[..., Any]
    reference_size: int | None
    whole_kernel_limit: int | None
    constants: dict[str, Any]
    in_seconds: bool


@dataclass(frozen=True)
class Run:
    """What one run computes with and writes to; images: as from `runtime.datasets.load_images`."""

    seed: int
    test_size: int
    output: Path
    engine: str
    precision: str
    images: Any = field(repr=False)

    def precision_of(self, network: Network) -> str:
        """Precision of the network's kernels: those that take seconds are computed in float64."""
        return "float64" if network.in_seconds else self.precision

    def prefix(self, network: Network) -> str:
        """What the names of the network's files begin with."""
        return self.images.dataset.prefix + network.name

    def origin(self, network: Network, classes: Classes | None) -> dict[str, Any]:
        """What all trials of a results file have in common.

        classes: None where they are what is varied.
        """
        common: dict[str, Any] = dict(self.images.origin)
        common |= {"network": network.name, "seed": self.seed, "formulas": FORMULAS}
        if classes:
            common["classes"] = list(classes)
        return common | network.constants


@dataclass(frozen=True)
class Trial:
    """One training set and the test set beside it.

    depth_setting: of the depth sweep, a factor of L_conv (fully connected) or a depth
    (convolutional); None elsewhere.
    """

    network: Network
    classes: Classes
    size: int
    number: int
    depth_setting: float | None = None

    @property
    def variant(self) -> str:
        """What names add to the network's where the classes are not the paper's, as in "-3v5"."""
        if self.classes == self.network.classes:
            return ""
        return f"-{self.classes[0]}v{self.classes[1]}"

    def random(self, seed: int, purpose: str) -> np.random.Generator:
        """The generator of one of this trial's draws."""
        return random_generator(
            seed, self.network.name + self.variant, self.size, self.number, purpose
        )


def random_generator(
    seed: int, network: str, size: int, trial: int, purpose: str
) -> np.random.Generator:
    """The generator of one draw, seeded by what it is for and not by what was drawn before.

    So a trial is the same whichever other trials, sizes and networks run beside it.
    """
    key = [seed, zlib.crc32(network.encode()), size, trial, zlib.crc32(purpose.encode())]
    return np.random.default_rng(key)


@dataclass(frozen=True)
class TrialFiles:
    """Where a trial's arrays are, and what is written behind its kernels; depth: its network's."""

    run: Run
    trial: Trial
    depth: int

    @property
    def stem(self) -> str:
        """What the names of all of the trial's files begin with.

        The depth sweep's own files say their setting; where it is the plan's, they are the plan's.
        """
        trial = self.trial
        prefix = self.run.prefix(trial.network) + trial.variant
        stem = f"{prefix}_seed{self.run.seed}_data{trial.size}_trial{trial.number}"
        if trial.depth_setting in (None, trial.network.depth_rule):
            return stem
        return f"{stem}_depth{trial.depth_setting:g}"

    def path(self, name: str) -> Path:
        """The file of one of the trial's arrays."""
        return self.run.output / f"{self.stem}_{name}.npy"

    def label(self) -> Label:
        """What decides the trial's kernels."""
        formulas: Any = FORMULAS
        if self.run.engine == "neural-tangents":
            formulas = f"neural-tangents {version('neural-tangents')}"
        return {
            "dataset": self.run.images.name,
            "dataset_sha256": self.run.images.sha256,
            "digits": list(self.trial.classes),
            "network": self.trial.network.name,
            "size": self.trial.size,
            "trial": self.trial.number,
            "seed": self.run.seed,
            "depth": self.depth,
            "precision": self.run.precision_of(self.trial.network),
            "formulas": formulas,
        }
