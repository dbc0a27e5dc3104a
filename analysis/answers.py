"""What the results say, in words: the answers of analysis.ipynb, and titles of README's picture.

Every number comes from the labelled arrays. A loss is more than chance where its 95 % interval,
paired by trial, excludes 0. What has no trials is not spoken of.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis.drawing import number
from analysis.growth import fit_growth, size_means, trial_values
from ntk import BadInput
from runtime.results import is_computed, origin_of, read_results

NETWORKS = ("fully-connected", "convolutional")
DATASETS = {  # what file names begin with, and the name in titles
    "mnist": ("", "MNIST"),
    "digits": ("digits-", "digits (NOT MNIST)"),
    "fashion_mnist": ("fashion-mnist-", "Fashion-MNIST"),
}
COMMANDS = {  # what writes {prefix}_{kind}.nc
    "results": "python training.py",
    "depth_sweep": "python training.py --depth-sweep",
    "digit_pairs": "python training.py --digit-pairs",
    "emulation": "python emulation.py",
    "baselines": "python controls.py",
    "sensitivity": "python controls.py",
}
PLACES = {  # of the threshold t
    "calibrated": "calibrated on other images",
    "test median": "at the test set's median",
    "zero": "at zero",
}
SCALES = {  # what k* is divided by
    "training set": "training set's scale, which is known beforehand",
    "test set": "test set's",
    "fixed constant": "fixed constant",
}
CLAIMS = {  # by the verdict on the growth
    "flat": "Yes, it is flat",
    "no faster than log n": "Yes, it grows no faster than log n",
    "faster than log n": "No, it grows faster than log n",
    "undecided": "These trials can't tell how it grows",
}

# --------------------------------------------------------------------------------------------------
# What is in the folder
# --------------------------------------------------------------------------------------------------


class NothingToDraw(Exception):
    """What is missing, and the command that makes it."""


@dataclass(eq=False)
class Network:
    """Everything that is in the folder of one network."""

    name: str
    prefix: str  # of its files
    dataset: str
    folder: Path
    parts: dict[str, xr.Dataset] = field(default_factory=dict, repr=False)

    def read(self) -> None:
        """Read all files but for damaged ones, which a line names."""
        for kind in COMMANDS:
            path = self.folder / f"{self.prefix}_{kind}.nc"
            if path.exists():
                try:
                    self.parts[kind] = read_results(path)
                except BadInput as error:
                    print(f"note: left out: {error}")

    def part(self, kind: str) -> xr.Dataset:
        """The results of one kind. Raises NothingToDraw where they are not in the folder."""
        if kind not in self.parts:
            missing = f"{self.prefix}_{kind}.nc is not in {self.folder}/"
            raise NothingToDraw(f"{missing}; {COMMANDS[kind]} makes it")
        return self.parts[kind]

    @property
    def results(self) -> xr.Dataset:
        """The main results, which every network here has."""
        return self.parts["results"]

    @property
    def short(self) -> str:
        """As "Fully connected"."""
        return self.name.replace("-", " ").capitalize()

    @property
    def title(self) -> str:
        """As "Fully connected, MNIST 8 and 9"."""
        first, second = sorted(origin_of(self.results)["classes"])
        return f"{self.short}, {DATASETS[self.dataset][1]} {first} and {second}"


def load(folder: str | Path, dataset: str = "mnist", classes: str = "") -> dict[str, Network]:
    """The networks of which there are results, by name; where `dataset` has none, another one's.

    classes: other ones than the paper's, as file names have them: "3v5". Prints what is missing.
    """
    if dataset not in DATASETS:
        raise BadInput("dataset", dataset, f"unknown; use one of {', '.join(DATASETS)}")
    ending = f"-{classes}" if classes else ""
    for choice in (dataset, *DATASETS):
        networks = {}
        for name in NETWORKS:
            network = Network(name, DATASETS[choice][0] + name + ending, choice, Path(folder))
            network.read()
            if "results" in network.parts:
                networks[name] = network
        if networks:
            break
    if networks and choice != dataset:
        print(f"NO RESULTS OF {dataset}: THESE ARE OF {choice}.")
    for name in NETWORKS:
        if name not in networks:
            print(f"note: no results of the {name} network in {folder}/: {COMMANDS['results']}")
    return networks


# --------------------------------------------------------------------------------------------------
# Means, losses, growth and costs
# --------------------------------------------------------------------------------------------------


class Means(NamedTuple):
    """Means over the trials of the sizes n that have any, and half-widths of 95 % intervals."""

    n: NDArray
    mean: NDArray[np.float64]
    half: NDArray[np.float64]


def means_of(n: NDArray, values: list[NDArray]) -> Means:
    """Means of values by size, a list of [trials]."""
    mean, _, half = size_means(n, values)
    known = ~np.isnan(mean)
    return Means(n[known], mean[known], half[known])


def means(results: xr.Dataset, quantity: str, labels: Mapping[str, Any], less: float = 0) -> Means:
    """Means of a quantity over the trials at these labels, `less` subtracted from each value."""
    values = [size - less for size in trial_values(results[quantity].sel(labels))]
    return means_of(results.n.values, values)


def original(approximation: str, **labels: Any) -> dict[str, Any]:
    """Labels of an approximation as in the original."""
    return dict(approximation=approximation, convention="original", **labels)


def usable_threshold(results: xr.Dataset) -> str:
    """The threshold of accuracies: calibrated where that is known, else the test set's median."""
    known = results.accuracy.dropna("threshold", how="all").threshold.values
    return "calibrated" if "calibrated" in known else "test median"


def losses(accuracy: xr.DataArray, reference: xr.DataArray) -> Means:
    """By how much an accuracy [n, trial, (pattern)] is below a reference, paired by trial."""
    loss = reference - accuracy
    if "pattern" in loss.dims:
        loss = loss.mean("pattern")
    by_size = loss.transpose("n", "trial").values
    values = [1 + size[~np.isnan(size)] for size in by_size]  # errors are not relative to 0
    n, mean, half = means_of(accuracy.n.values, values)
    return Means(n, np.round(mean - 1, 12), half)


def loss_of(results: xr.Dataset, approximation: str, **labels: Any) -> Means:
    """By how much an approximation's accuracy is below K's, as in the original."""
    exact = results.accuracy.sel(original("exact", **labels))
    return losses(results.accuracy.sel(original(approximation, **labels)), exact)


def setting_losses(sweep: xr.Dataset) -> dict[Any, float]:
    """What K̃ loses on average by setting, least first, at `swept_size`."""
    lost: dict[Any, float] = {}
    place = dict(threshold=usable_threshold(sweep))
    for setting in sweep.setting.values.tolist():
        loss = loss_of(sweep, "sparsified", setting=setting, **place)
        for value in loss.mean[loss.n == swept_size(sweep)]:
            lost[setting] = float(value)
    if not lost:
        raise NothingToDraw("no trial of the largest n has an exact NTK")
    return dict(sorted(lost.items(), key=lambda item: item[1]))


def swept_size(sweep: xr.Dataset) -> int:
    """The largest n of a sweep that has several trials at some setting, or the largest at all."""
    trials = is_computed(sweep).sum("trial").max("setting")
    several = trials.n.values[trials.values > 1]
    return int(several[-1] if several.size else trials.n.values[trials.values > 0][-1])


def gain_of_rival(network: Network, classifier: str) -> Means:
    """By how much a simple classifier's accuracy is above K's, at the test set's median."""
    accuracy = network.part("baselines").accuracy.sel(threshold="test median")
    return losses(accuracy.sel(classifier="exact"), accuracy.sel(classifier=classifier))


@functools.cache
def growths(network: Network) -> dict[str, Any]:
    """The fitted growth of every quantity; readout at the threshold of the accuracies."""
    results = network.results
    place = dict(threshold=usable_threshold(results))
    corrected = dict(approximation="sparsified", convention="corrected")
    quantities: dict[str, tuple[str, dict[str, Any]]] = {
        "entries a column of K̃": ("sparsity", original("sparsified")),
        "κ of K": ("condition_number", original("exact")),
        "κ of K̃": ("condition_number", original("sparsified")),
        "κ of K̃, corrected": ("condition_number", corrected),
        "reading K̃": ("readout_measurements", original("sparsified", **place)),
        "reading the diagonal": ("readout_measurements", original("diagonal", **place)),
    }
    for divisor in results.divisor.values:
        quantities[f"preparing k* ({divisor})"] = (
            "post_selection_measurements",
            dict(divisor=divisor),
        )
    found = {}
    for label, (quantity, labels) in quantities.items():
        found[label] = fit_growth(results.n.values, trial_values(results[quantity].sel(labels)))
    return found


def cost_curves(network: Network) -> dict[str, Means]:
    """The cheapest way to one prediction of each kind: queries, or classical operations.

    For 99 % of the accuracy without noise, t at the test set's median, the training set's scale.
    """
    emulation = network.part("emulation").sel(threshold="test median")
    counted = dict(divisor="training set", kind="all", statistic="mean")
    return {
        "K̃,\nqueries": cheapest(emulation.cost.sel(counted)),
        "diagonal,\nqueries": cheapest(emulation.cost_without_solver.sel(counted)),
        "classical,\noperations": cheapest(
            emulation.operations_classical.sel(approximation="sparsified")
        ),
    }


def cheapest(cost: xr.DataArray) -> Means:
    """The least cost, as a geometric mean over sizes, of the ways that work in every trial."""
    if "pattern" in cost.dims:
        cost = cost.mean("pattern", skipna=False)
    ways = cost.stack(way=[dim for dim in cost.dims if dim not in ("n", "trial")])
    ways = ways.transpose("way", "n", "trial")
    works = (ways.notnull() | ways.isnull().all("way")).all(("n", "trial"))
    geometric = np.log(ways.mean("trial").values).mean(axis=1)
    best = np.argmin(np.where(works, geometric, np.inf))
    by_size = ways.isel(way=int(best)).values
    return means_of(cost.n.values, [size[~np.isnan(size)] for size in by_size])


# --------------------------------------------------------------------------------------------------
# Answers about one network
# --------------------------------------------------------------------------------------------------


def loss_in_words(network: Network, threshold: str = "") -> str:
    """What K̃ loses, at the size where it loses most beyond chance; at the usable threshold."""
    results = network.results
    threshold = threshold or usable_threshold(results)
    n, mean, half = loss_of(results, "sparsified", threshold=threshold)
    if not mean.any() and not loss_of(results, "diagonal", threshold=threshold).mean.any():
        return "K, K̃ and the diagonal do equally well"
    if np.isnan(half).all():
        return f"K̃ loses {mean[-1]:.3f} in one trial (n = {n[-1]:,})"
    beyond = np.where(np.abs(mean) > half, mean, 0)
    worst = np.argmax(np.abs(beyond))
    if beyond[worst] == 0:
        return f"K̃ loses nothing beyond chance (± {number(np.nanmax(half), 1)})"
    verb = "loses" if beyond[worst] > 0 else "gains"
    return f"K̃ {verb} up to {abs(beyond[worst]):.3f} (n = {n[worst]:,})"


def accuracy_stays(network: Network) -> str:
    """Is K̃ as accurate as K?"""
    said = []
    for threshold in network.results.threshold.values:
        n, accuracy, _ = means(network.results, "accuracy", original("exact", threshold=threshold))
        level = f"K has {accuracy[-1]:.3f} at n = {n[-1]:,}"
        said.append(f"with t {PLACES[threshold]} {loss_in_words(network, threshold)}, {level}")
    return "; ".join(said)


def condition_in_words(network: Network) -> str:
    """How large κ is."""
    levels = []
    for approximation in ("sparsified", "exact"):
        largest = means(network.results, "condition_number", original(approximation)).mean.max()
        levels.append(f"{largest:.4f}" if largest < 1.1 else number(largest))
    return f"mean κ: K̃ ≤ {levels[0]}, K ≤ {levels[1]}"


def rivals_in_words(network: Network) -> str:
    """Is nearest neighbour better than K?"""
    n, gain, half = (values[-1] for values in gain_of_rival(network, "nearest neighbour"))
    if np.isnan(half) or abs(gain) <= half:
        return f"nearest neighbour does as well as K (n = {n:,})"
    better = "better" if gain > 0 else "worse"
    return f"nearest neighbour is {better} than K by {abs(gain):.3f} (n = {n:,})"


def diagonality(network: Network) -> str:
    """Is there anything beside K's diagonal to lose?"""
    n, ratio, _ = means(network.results, "off_diagonal_ratio", {})
    verdict = "Hardly anything" if ratio[-1] < 0.01 else "Yes, much"
    level = f"{number(ratio[-1])} times the diagonal at n = {n[-1]:,}"
    return f"{verdict}: the largest entry beside it is {level}"


def kept(network: Network) -> str:
    """How much of K does K̃ keep?"""
    n, entries, _ = means(network.results, "sparsity", original("sparsified"))
    verdict = growths(network)["entries a column of K̃"].verdict
    level = f"{number(entries[-1])} of {n[-1]:,} entries in its fullest column, on average"
    return f"K̃ keeps {level}; growth: {verdict}"


def condition_stays(network: Network) -> str:
    """Does κ of K̃ stay small?"""
    return f"{CLAIMS[growths(network)['κ of K̃'].verdict]}: {condition_in_words(network)}"


def preparing_is_cheap(network: Network) -> str:
    """Is k* prepared in few attempts?"""
    levels = []
    for divisor, name in SCALES.items():
        n, mean, _ = means(network.results, "post_selection_measurements", dict(divisor=divisor))
        levels.append(f"{number(mean[-1])} with the {name}")
    verdict = growths(network)["preparing k* (training set)"].verdict
    return f"{CLAIMS[verdict]}: {', '.join(levels)} (n = {n[-1]:,})"


def reading_is_cheap(network: Network) -> str:
    """Is the sign read in few measurements?"""
    levels = []
    for threshold in dict.fromkeys([usable_threshold(network.results), "zero"]):
        labels = original("sparsified", threshold=threshold)
        n, measurements, _ = means(network.results, "readout_measurements", labels)
        accuracy = means(network.results, "accuracy", labels).mean[-1]
        level = f"{number(measurements[-1])} measurements with t {PLACES[threshold]}"
        levels.append(f"{level} (accuracy {accuracy:.3f})")
    verdict = growths(network)["reading K̃"].verdict
    return f"{CLAIMS[verdict]}: at n = {n[-1]:,} K̃ takes {', '.join(levels)}"


def depth_in_words(network: Network) -> str:
    """What K̃ loses at the depth where it loses most, and at the original's depth."""
    sweep = network.part("depth_sweep")
    lost = setting_losses(sweep)
    rule = origin_of(sweep)["depth_rule"]
    worst = list(lost)[-1]
    unit = "L_conv" if network.name == "fully-connected" else "layers"
    said = f"K̃ loses {lost[worst]:.3f} at depth {worst:g} {unit}"
    if rule in lost and rule != worst:
        said += f", {lost[rule]:.3f} at the original's {rule:g}"
    return f"{said} (n = {swept_size(sweep):,})"


def what_grows(network: Network) -> str:
    """What grows faster than log n, and of what nobody can tell?"""
    said = []
    fits = growths(network)
    for verdict in ("faster than log n", "undecided"):
        labels = [label for label, fit in fits.items() if fit.verdict == verdict]
        if len(labels) == len(fits):
            said.append(f"{verdict}: everything")
        elif labels:
            said.append(f"{verdict}: {', '.join(labels)}")
    return "; ".join(said) or "nothing grows faster than log n"


def pairs_in_words(network: Network) -> str:
    """What K̃ loses on the worst pair of classes, and on the median pair."""
    pairs = network.part("digit_pairs")
    lost = setting_losses(pairs)
    worst, most = list(lost.items())[-1]
    place = f"of {len(lost)} pairs (n = {swept_size(pairs):,})"
    if max(map(abs, lost.values())) < 0.0005:
        return f"K̃ loses nothing on any {place}"
    median = np.median(list(lost.values()))
    return (
        f"K̃ loses {most:.3f} on {worst.replace(' ', ' and ')}, {median:.3f} on the median {place}"
    )


def costs_less(network: Network) -> str:
    """Is a quantum prediction cheaper than a classical one?"""
    curves = list(cost_curves(network).values())
    sparsified, diagonal, classical = (curve.mean[-1] for curve in curves)
    verdict = "Yes" if min(sparsified, diagonal) < classical else "No"
    quantum = f"{number(sparsified)} queries with K̃, {number(diagonal)} with the diagonal"
    return (
        f"{verdict}: {quantum}, {number(classical)} classical operations (n = {curves[0].n[-1]:,})"
    )


def known_sizes(network: Network) -> str:
    """Where do the trials end?"""
    trials = is_computed(network.results).sum("trial")
    trials = trials[trials > 0]
    return f"no trial beyond n = {int(trials.n[-1]):,}; number of trials there: {int(trials[-1])}"


def spoken(network: Network, finding: Callable[[Network], str]) -> str:
    """A finding, or "" where its file, its labels or all of its trials are missing."""
    try:
        return finding(network)
    except (NothingToDraw, LookupError):
        return ""


def answer(networks: Mapping[str, Network], *findings: Callable[[Network], str]) -> str:
    """A line for each network of what was found, as Markdown; "" where nothing was."""
    lines = []
    for network in networks.values():
        said = [spoken(network, finding) for finding in findings]
        text = "; ".join(filter(None, said)).replace("*", r"\*")
        if text:
            lines.append(f"- **{network.title}:** {text}.")
    return "\n".join(lines)
