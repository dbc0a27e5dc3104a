"""A run and its trials: what they are, how random draws are seeded, and where the files are."""

import zlib
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ntk import FORMULAS

PAPERS_DIGITS = {"fully-connected": (8, 9), "convolutional": (1, 0)}  # the files' names of other digits say which
DATASETS = {"mnist": "", "digits": "digits-"}  # and what the files' names begin with: whatever is not MNIST says so
Label = dict[str, Any]  # what decides a trial's kernels: its network, depth, precision and so on


@dataclass(frozen=True)
class Run:
    """What one run computes with and writes to; data: as from `runtime.mnist.load_data`."""

    seed: int
    test_size: int
    output: Path
    engine: str
    precision: str
    data: dict[str, Any] = field(repr=False)

    def precision_of(self, network: str) -> str:
        """Precision of the network's kernels: those of the fully-connected one take seconds in float64."""
        return self.precision if network == "convolutional" else "float64"

    def prefix(self, network: str) -> str:
        """What the names of the network's files begin with."""
        return DATASETS[self.data["name"]] + network

    def origin(self, network: str, digits: tuple[int, int] | None) -> dict[str, Any]:
        """What all trials of a results file have in common; digits: None where they are what is varied."""
        return {
            "dataset": self.data["name"], "dataset_sha256": self.data["sha256"], "digits": digits and list(digits),
            "seed": self.seed, "test_size": self.test_size, "precision": self.precision_of(network),
            "formulas": FORMULAS,
        }  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One training set and the test set beside it; `digits`, of which the second one is class +1.

    depth_setting: of the depth sweep, a factor of L_conv (fully connected) or a depth (convolutional); None elsewhere.
    variant: what the files' names add to the network's where the digits are not the paper's, as in "-3v5".
    """

    network: str
    digits: tuple[int, int]
    size: int
    number: int
    depth_setting: float | None = None
    variant: str = ""

    def random(self, seed: int, purpose: str) -> np.random.Generator:
        """The generator of one of this trial's draws."""
        return random_generator(seed, self.network + self.variant, self.size, self.number, purpose)


def random_generator(seed: int, network: str, size: int, trial: int, purpose: str) -> np.random.Generator:
    """The generator of one draw, seeded by what the draw is for and not by what was drawn before it.

    So a trial is the same whichever other trials, sizes and networks run beside it.
    """
    key = [seed, zlib.crc32(network.encode()), size, trial, zlib.crc32(purpose.encode())]
    return np.random.default_rng(key)


@dataclass(frozen=True)
class TrialFiles:
    """Where a trial's arrays are, and what is written behind its kernels.

    depth_in_name: of the depth sweep, where its setting is not the plan's, whose files it shares.
    """

    run: Run
    trial: Trial
    depth: int = 0
    depth_in_name: bool = False

    @property
    def prefix(self) -> str:
        """What the names of the trial's files begin with."""
        return self.run.prefix(self.trial.network) + self.trial.variant

    def path(self, name: str) -> Path:
        """The file of one of the trial's arrays."""
        depth = f"_depth{self.trial.depth_setting:g}" if self.depth_in_name else ""
        stem = f"seed{self.run.seed}_data{self.trial.size}_trial{self.trial.number}{depth}"
        return self.run.output / f"{self.prefix}_{stem}_{name}.npy"

    def label(self) -> Label:
        """What decides the trial's kernels."""
        oracle, trial = self.run.engine == "neural-tangents", self.trial
        return {
            "dataset": self.run.data["name"], "dataset_sha256": self.run.data["sha256"], "digits": list(trial.digits),
            "network": trial.network, "size": trial.size, "trial": trial.number, "seed": self.run.seed,
            "depth": self.depth, "precision": self.run.precision_of(trial.network),
            "formulas": f"neural-tangents {version('neural-tangents')}" if oracle else FORMULAS,
        }  # fmt: skip
