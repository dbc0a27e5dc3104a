"""The files of a folder, by experiment: a network on a pair of classes of a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import xarray as xr

from ntk import BadInput
from runtime.datasets import DATASETS, Dataset, class_title, find_dataset
from runtime.files import output_files
from runtime.results import origin_of, read_results

COMMANDS = {  # what writes {prefix}_{kind}.nc
    "results": "python training.py",
    "depth_sweep": "python training.py --depth-sweep",
    "digit_pairs": "python training.py --digit-pairs",
    "emulation": "python emulation.py",
    "circuit": "python circuit.py",
    "baselines": "python controls.py",
    "sensitivity": "python controls.py",
    "standardisation": "python controls.py --standardisation",
    "neighbours": "python controls.py",
    "trainability": "python controls.py",
    "finite_width": "python finite_width.py",
}
NETWORKS = ("fully-connected", "convolutional")  # the paper's come first


def pair_title(dataset: Dataset, labels: Sequence[int]) -> str:
    """8 and 9, or "bag and ankle boot": classes by their names, the lower label first."""
    return class_title(replace(dataset, noun=""), sorted(labels))


@dataclass(eq=False)
class Experiment:
    """One network on one pair of classes, and its files by kind."""

    prefix: str  # of the files' names
    dataset: Dataset
    network: str
    folder: Path
    kinds: dict[str, xr.Dataset] = field(default_factory=dict, repr=False)

    @property
    def results(self) -> xr.Dataset:
        """The main results."""
        return self.kinds["results"]

    @property
    def classes(self) -> list[int]:
        """The two classes, the lower label first."""
        origins = map(origin_of, self.kinds.values())
        return next((sorted(origin["classes"]) for origin in origins if "classes" in origin), [])

    @property
    def ending(self) -> str:
        """Of the prefix: "" for the classes that the paper takes, else as in "-3v5"."""
        return self.prefix.removeprefix(self.dataset.prefix + self.network)

    @property
    def pair(self) -> str:
        """8 and 9: the two classes."""
        return pair_title(self.dataset, self.classes)

    @property
    def short(self) -> str:
        """Fully connected: the network alone."""
        return self.network.replace("-", " ").capitalize()

    @property
    def title(self) -> str:
        """Fully connected, digits 8 and 9; the network alone where all files are of all pairs."""
        parts = []
        if self.classes:
            parts.append(class_title(self.dataset, self.classes))
        if self.dataset.prefix:
            parts.append(f"of {self.dataset.title}")
        return f"{self.short}, {' '.join(parts)}" if parts else self.short


def of_all_images(results: xr.Dataset) -> xr.Dataset:
    """The same with accuracies of all test images where these are known.

    Those of the images that the original draws become `accuracy_of_drawn`.
    """
    if "accuracy_all_images" not in results:
        return results
    every = results.accuracy_all_images
    return results.assign(
        accuracy=every.fillna(results.accuracy).assign_attrs(results.accuracy.attrs),
        accuracy_of_drawn=results.accuracy.where(every.notnull()),
        test_images=results.all_test_images.fillna(results.test_images),
        drawn_images=results.test_images,
    )


def read_experiments(folder: Path) -> tuple[list[Experiment], list[BadInput]]:
    """The experiments that a folder has files of, and the files that can't be used."""
    experiments: dict[str, Experiment] = {}
    problems = []
    for path in output_files(folder, "*_*.nc"):
        prefix, _, kind = path.stem.partition("_")
        try:
            if kind not in COMMANDS:
                raise BadInput("output", path, f"is of an unknown kind, “{kind}”; move it away")
            results = of_all_images(read_results(path))
            origin = origin_of(results)
            dataset = find_dataset(origin.get("dataset", ""))
        except BadInput as error:
            problems.append(BadInput("output", path, error.remedy))
            continue
        new = Experiment(prefix, dataset, origin.get("network", prefix), folder)
        experiments.setdefault(prefix, new).kinds[kind] = results
    by_name = sorted(experiments.values(), key=lambda experiment: experiment.prefix)
    by_name.sort(key=lambda experiment: experiment.network != NETWORKS[0])
    return by_name, problems


def load(folder: str | Path, dataset: str = "mnist", classes: str = "") -> list[Experiment]:
    """An experiment of each network; where there is none of `dataset`, another one's.

    classes: other ones than the paper's, as file names have them: "3v5". Prints what is missing.
    """
    experiments, problems = read_experiments(Path(folder))
    for problem in problems:
        print(f"note: left out: {problem}")
    ending = f"-{classes}" if classes else ""
    by_dataset: dict[Dataset, list[Experiment]] = {}
    for experiment in experiments:
        if "results" in experiment.kinds and experiment.ending == ending:
            by_dataset.setdefault(experiment.dataset, []).append(experiment)
    asked = find_dataset(dataset)
    there = [choice for choice in (asked, *DATASETS.values(), *by_dataset) if choice in by_dataset]
    if there and there[0] != asked:
        print(f"NO RESULTS OF {dataset}: THESE ARE OF {there[0].title}.")
    chosen = by_dataset[there[0]] if there else []
    for network in NETWORKS:
        if network not in [experiment.network for experiment in chosen]:
            print(f"note: no results of the {network} network in {folder}/: {COMMANDS['results']}")
    return chosen
