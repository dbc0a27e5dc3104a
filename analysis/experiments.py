"""The files of a folder, by dataset and experiment: a network on a pair of classes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from ntk import BadInput
from runtime.results import origin_of, read_results

NEEDED = {  # of each kind of file: the variables that its page is made of
    "results": ("accuracy", "condition_number", "sparsity", "post_selection_measurements",
                "readout_measurements", "depth", "off_diagonal_ratio"),
    "depth_sweep": ("accuracy", "condition_number", "off_diagonal_ratio"),
    "digit_pairs": ("accuracy", "condition_number", "post_selection_measurements_median",
                    "readout_measurements_median"),
    "baselines": ("accuracy", "agreement"),
    "sensitivity": ("accuracy", "condition_number", "positive_definite", "boost"),
    "emulation": ("cost", "cost_without_solver", "uses", "operations_classical", "points_needed"),
    "circuit": ("queries", "gate_count", "overlap"),
}  # fmt: skip
NETWORKS = ("fully-connected", "convolutional")  # the paper's come first
DATASETS = {
    "mnist": "MNIST",
    "digits": "scikit-learn's digits, NOT MNIST",
    "fashion-mnist": "Fashion-MNIST",
}


@dataclass
class Experiment:
    """One network on one pair of classes: its files by kind, and what they say of themselves."""

    prefix: str  # of the files' names
    dataset: str
    network: str
    classes: list[int] = field(default_factory=list)
    kinds: dict[str, xr.Dataset] = field(default_factory=dict)
    pairs: list[list[int]] = field(default_factory=list)  # the classes of all experiments

    known: dict[Any, Any] = field(default_factory=dict)  # what has been computed of it

    def tell(self, function: Callable[["Experiment"], Any]) -> Any:
        """function(self), computed once."""
        if function not in self.known:
            self.known[function] = function(self)
        return self.known[function]

    @property
    def title(self) -> str:
        """Fully connected, digits 8 and 9."""
        network = self.network.replace("-", " ").capitalize()
        if not self.classes:
            return network
        word = "digits" if "fashion" not in self.dataset else "classes"
        return f"{network}, {word} {' and '.join(map(str, sorted(self.classes)))}"


def read_experiments(folder: Path) -> tuple[dict[str, list[Experiment]], list[BadInput]]:
    """The experiments of every dataset that a folder has files of, and what can't be used of them."""
    found: dict[str, Experiment] = {}
    problems = []
    for path in sorted(folder.glob("*.nc")):
        prefix, _, kind = path.stem.partition("_")
        try:
            results = checked(path, kind)
        except BadInput as error:
            problems.append(error)
            continue
        origin = origin_of(results)
        new = Experiment(prefix, origin["dataset"], origin["network"])
        experiment = found.setdefault(prefix, new)
        experiment.classes = experiment.classes or origin.get("classes", [])
        experiment.kinds[kind] = results
    datasets: dict[str, list[Experiment]] = {}
    for experiment in sorted(found.values(), key=place):
        datasets.setdefault(experiment.dataset, []).append(experiment)
    for experiments in datasets.values():
        pairs = [sorted(experiment.classes) for experiment in experiments if experiment.classes]
        for experiment in experiments:
            experiment.pairs = pairs
    return datasets, problems


def place(experiment: Experiment) -> tuple[int, str]:
    """Where an experiment stands among the others."""
    known = experiment.network in NETWORKS
    return NETWORKS.index(experiment.network) if known else len(NETWORKS), experiment.prefix


def checked(path: Path, kind: str) -> xr.Dataset:
    """The results in a file of this kind. Raises BadInput where they can't be told of."""
    results = read_results(path)
    missing = [name for name in NEEDED.get(kind, ()) if name not in results.variables]
    missing += [name for name in ("dataset", "network") if name not in origin_of(results)]
    if kind not in NEEDED or missing:
        what = f"lacks {', '.join(missing)}" if missing else f"is of a kind “{kind}”, not known"
        raise BadInput("output", path, f"{what}; move it elsewhere, or compute it again")
    return results
