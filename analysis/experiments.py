"""The files of a folder, by dataset and experiment: a network on a pair of classes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from ntk import BadInput
from runtime.datasets import Dataset, class_title, find_dataset
from runtime.files import output_files
from runtime.results import origin_of, read_results

KINDS = (
    "results", "depth_sweep", "digit_pairs", "baselines", "sensitivity", "emulation", "circuit"
)  # fmt: skip
NETWORKS = ("fully-connected", "convolutional")  # the paper's come first


@dataclass
class Experiment:
    """One network on one pair of classes: its files by kind, and what they say of themselves."""

    prefix: str  # of the files' names
    dataset: Dataset
    network: str
    classes: list[int] = field(default_factory=list)
    kinds: dict[str, xr.Dataset] = field(default_factory=dict)
    pairs: list[list[int]] = field(default_factory=list)  # the classes of all experiments
    told: dict[Any, Any] = field(default_factory=dict)

    def tell(self, function: Callable[["Experiment"], Any]) -> Any:
        """function(self), computed once."""
        if function not in self.told:
            self.told[function] = function(self)
        return self.told[function]

    @property
    def title(self) -> str:
        """Fully connected, digits 8 and 9."""
        network = self.network.replace("-", " ").capitalize()
        return f"{network}, {class_title(self.dataset, self.classes)}" if self.classes else network


def read_experiments(folder: Path) -> tuple[list[Experiment], list[BadInput]]:
    """The experiments that a folder has files of, and the files that can't be used."""
    experiments: dict[str, Experiment] = {}
    problems = []
    for path in output_files(folder, "*_*.nc"):
        prefix, _, kind = path.stem.partition("_")
        try:
            results, dataset = checked(path, kind)
        except BadInput as error:
            problems.append(BadInput("output", path, error.remedy))
            continue
        origin = origin_of(results)
        new = Experiment(prefix, dataset, origin.get("network", prefix))
        experiment = experiments.setdefault(prefix, new)
        experiment.classes = experiment.classes or sorted(origin.get("classes", []))
        experiment.kinds[kind] = results
    ordered = sorted(experiments.values(), key=place)
    for experiment in ordered:
        for other in ordered:
            if other.dataset == experiment.dataset and other.classes:
                experiment.pairs.append(other.classes)
    return ordered, problems


def checked(path: Path, kind: str) -> tuple[xr.Dataset, Dataset]:
    """The results in a file, and the dataset that they are of. Raises BadInput for foreign ones."""
    if kind not in KINDS:
        raise BadInput("output", path, f"is of an unknown kind, “{kind}”; move it elsewhere")
    results = read_results(path)
    return results, find_dataset(origin_of(results).get("dataset", ""))


def place(experiment: Experiment) -> tuple[int, str]:
    """Where an experiment stands among the others."""
    known = experiment.network in NETWORKS
    return NETWORKS.index(experiment.network) if known else len(NETWORKS), experiment.prefix
