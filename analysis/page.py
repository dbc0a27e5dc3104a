"""RESULTS.md, one page: what the claims of the paper come to, network by network.

A row of a table is a name, the kind of file that it needs, and a function of an experiment that
returns its cell.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from analysis import costs, evidence, growth, tables
from analysis.experiments import Experiment
from analysis.tables import LABELS, in_words
from runtime.results import is_computed

Row = tuple[str, Callable[[Experiment], str]]  # kind of file, cell

TOLERANCE = 0.01  # of accuracy: a loss that is surely smaller is none
GRAVE = 0.05  # of accuracy: a loss that is surely larger refutes that it stays
DEAR = 1e4  # measurements: more are not cheap, however they grow
SHOWN_SIZES = 4  # of a network at most, in the table of accuracies
NOTHING = "–"
WORDS = {growth.FLAT: "holds", growth.SLOW: "holds", growth.FAST: "fails"}


def side_by_side(experiments: Sequence[Experiment], rows: dict[str, Row]) -> str:
    """A table with a column for each experiment, without rows that nothing is known of."""
    lines = []
    for name, (kind, cell) in rows.items():
        cells = []
        for experiment in experiments:
            text = NOTHING
            if kind in experiment.kinds:
                with contextlib.suppress(LookupError):  # of a quantity or label that a file lacks
                    text = cell(experiment)
            cells.append(text)
        if set(cells) != {NOTHING}:
            lines.append([name, *cells])
    return tables.table(["", *(experiment.title for experiment in experiments)], lines)


def short(value: Any) -> str:
    """Three digits: 3.21, 3,672, 1.01e+12."""
    return f"{value:.3g}" if value < 1e3 or value >= 1e5 else f"{value:,.0f}"


def levels(values: xr.DataArray) -> str:
    """A quantity's mean at the smallest and the largest n: 35 to 38."""
    near_one = tables.less_one(values)
    by_size = [trials for trials in growth.trial_values(values - near_one) if len(trials)]
    first, last = np.mean(by_size[0]), np.mean(by_size[-1])
    return f"1 + {first:.1e} to {last:.1e}" if near_one else f"{short(first)} to {short(last)}"


# What the claims come to


def accuracy_stays(threshold: str) -> Row:
    """Whether K̃ is as accurate as K with this threshold."""

    def cell(experiment: Experiment) -> str:
        accuracy = experiment.kinds["results"].accuracy.sel(convention="original")
        loss = tables.losses_of(accuracy)[f"sparsified, {in_words(threshold)}"]
        loss = loss.isel(n=loss.notnull().any("trial").values)
        mean, half = tables.paired(loss)
        if np.nanmax(np.abs(loss)) < TOLERANCE or np.all(mean + half < TOLERANCE):
            return f"**holds**: loses {max(mean.max(), 0):.3f} at most"
        clear = mean > half
        i = int(np.nanargmax(np.where(clear, mean, -1) if clear.any() else mean))
        worst = f"{tables.plus_minus(mean[i], half[i])} at n = {loss.n.values[i]}"
        if not clear.any():
            return f"**undecided**: loses {worst}"
        if mean[i] - half[i] > GRAVE:
            left = accuracy.sel(approximation="sparsified", threshold=threshold).isel(n=i)
            return f"**fails**: {left.mean().item():.2f} are left, {worst} lost"
        return f"**nearly holds**: loses {worst}, elsewhere less or no more than chance"

    return "results", cell


def condition_stays(experiment: Experiment) -> str:
    """Whether κ of K̃ stays small, and whether that says anything."""
    condition = experiment.kinds["results"].condition_number
    columns = tables.columns_of(condition.sel(convention="original"))
    verdict = growth.judged(columns["sparsified"]).verdict
    why = ", nearly diagonal itself" if tables.less_one(columns["exact"]) else ""
    return (
        f"**{WORDS.get(verdict, verdict)}**: {levels(columns['sparsified'])}; "
        f"K{why}: {levels(columns['exact'])}"
    )


def preparing_is_cheap(experiment: Experiment) -> str:
    """Whether some divisor of k* that an algorithm knows makes post-selection cheap."""
    columns = tables.columns_of(experiment.kinds["results"].post_selection_measurements)
    columns.pop(LABELS["test set"], None)  # known to no algorithm
    words, texts = [], []
    for name, values in columns.items():
        is_dear = np.mean(growth.trial_values(values)[-1]) > DEAR
        verdict = growth.judged(values).verdict
        words.append("fails" if is_dear else WORDS.get(verdict, verdict))
        texts.append(f"{levels(values)} ({name})")
    word = min(words, key=["holds", growth.UNDECIDED, "fails"].index)
    return f"**{word}**: {', '.join(texts)}"


def reading_is_cheap(experiment: Experiment) -> str:
    """Whether the sign can be read off K̃'s prediction, at the usual threshold."""
    values = experiment.kinds["results"].readout_measurements.sel(tables.USUAL)
    values = values.sel(approximation="sparsified", convention="original")
    verdict = growth.judged(values).verdict
    return f"**{WORDS.get(verdict, verdict)}**: {levels(values)} measurements"


def prediction_is_cheap(experiment: Experiment) -> str:
    """Whether a prediction takes fewer queries than reading all entries takes operations."""
    told = experiment.tell(costs.cost)
    needless = "; no entry of K̃ is needed" if told["no_system"] else ""
    counts = f"{short(told['fewest'])} queries against {short(2 * told['last'])} operations"
    word = "holds" if told["fewest"] < 2 * told["last"] else "fails"
    return f"**{word}** at n = {told['last']}: {counts}{needless}"


CLAIMS: dict[str, Row] = {
    "accuracy of K̃ stays, calibrated threshold": accuracy_stays("calibrated"),
    "accuracy of K̃ stays at the test median": accuracy_stays("test median"),
    "accuracy of K̃ stays at zero": accuracy_stays("zero"),
    "κ of K̃ stays small": ("results", condition_stays),
    "preparing k\\* is cheap, divisor known": ("results", preparing_is_cheap),
    "reading the sign is cheap": ("results", reading_is_cheap),
    "one prediction beats 2n operations": ("emulation", prediction_is_cheap),
}


# Accuracy and readout; growth


def accuracy_table(results: xr.Dataset) -> str:
    """Accuracy and readout in the original's convention, by threshold; equal rows are one."""
    results = results.isel(n=is_computed(results).any("trial").values).sel(convention="original")
    last = results.sizes["n"] - 1
    shown = np.unique(np.linspace(0, last, SHOWN_SIZES).round().astype(int))
    rows = {"trials": is_computed(results).sum("trial").values[shown]}
    for quantity in ("accuracy", "readout_measurements"):
        images = results.test_images if quantity == "accuracy" else None
        for threshold, values in tables.by_threshold(results[quantity]).items():
            for name, column in tables.columns_of(values).items():
                cells = tables.mean_cells(column, images)
                name = f"{tables.QUANTITIES[quantity]} {threshold}, {name}"
                rows[name] = [cells[i] for i in shown]
    return tables.by_size(results.n.values[shown], rows)


def growth_rows(experiments: Sequence[Experiment]) -> dict[str, Row]:
    """Sparsity, κ of both matrices, post-selection by divisor, readout at the usual threshold."""
    names = ["sparsity, sparsified", "κ, sparsified", "κ, exact"]
    for experiment in experiments:
        if "results" in experiment.kinds:
            judged = tables.judged_quantities(experiment.kinds["results"])
            names += [name for name in judged if name.startswith("post-selection")]
            names.append(f"readout, sparsified, {in_words(tables.USUAL['threshold'])}")
    return {name: ("results", growth_of(name)) for name in names}


def growth_of(name: str) -> Callable[[Experiment], str]:
    """The verdict on one quantity's growth, what hangs on the largest size, and its levels."""

    def cell(experiment: Experiment) -> str:
        values = tables.judged_quantities(experiment.kinds["results"]).get(name)
        if values is None:
            return NOTHING
        verdict = growth.judged(values).verdict
        return f"{verdict}{tables.reserve(values, verdict)}: {levels(values)}"

    return cell


# Could it have failed?


def baselines_say(experiment: Experiment) -> str:
    """Which simple classifiers are better than the exact NTK."""
    told = experiment.tell(evidence.baselines)
    beaten = ", ".join(told["beaten"])
    return f"better than K: {beaten}, by {told['by']}" if beaten else "none is better than K"


def constants_say(experiment: Experiment) -> str:
    """What K̃ gains over its diagonal, and what less of the boost would do."""
    told = experiment.tell(evidence.constants)
    gain = f"by {told['most']:.3f} at most" if told["most"] else "nowhere"
    return (
        f"K̃ beats its diagonal {gain}; with a boost of {told['lower']:g} "
        f"it is not always positive definite at {told['fails']}"
    )


def pairs_say(experiment: Experiment) -> str:
    """On how many pairs K̃ is worse than its diagonal, and the largest loss."""
    told = experiment.tell(evidence.pairs)
    (loss, pair, _), *_ = told["losses"].values()
    return (
        f"K̃ loses up to {loss:.3f} ({pair}), and is below its diagonal on "
        f"{told['worse']} of {told['count']}, beyond chance on {told['clearly_worse']}"
    )


def depths_say(experiment: Experiment) -> str:
    """Whether the exact NTK gains at another depth, and the approximations with it."""
    told = experiment.tell(evidence.depth)
    gaining = [name for name, found in told["gains"].items() if found and name != "exact"]
    exact = told["gains"]["exact"]
    if not exact:
        return "none is better for K"
    also = " and ".join(gaining) or "no approximation"
    return f"K gains at {told['unit']} {'; '.join(exact)}; {also} does"


FAILURES: dict[str, Row] = {
    "simple classifiers": ("baselines", baselines_say),
    "constants set by hand": ("sensitivity", constants_say),
    "all pairs of classes": ("digit_pairs", pairs_say),
    "other depths": ("depth_sweep", depths_say),
}


def cost_rows(experiments: Sequence[Experiment]) -> dict[str, Row]:
    """The summary of each emulation."""
    names: dict[str, Row] = {}

    def row(name: str) -> Row:
        return "emulation", lambda experiment: experiment.tell(costs.cost)["summary"][name]

    for experiment in experiments:
        if "emulation" in experiment.kinds:
            names |= {name: row(name) for name in experiment.tell(costs.cost)["summary"]}
    return names


def page(experiments: Sequence[Experiment]) -> dict[str, Any]:
    """All that the page shows."""
    accuracies = {}
    for experiment in experiments:
        if "results" in experiment.kinds:
            accuracies[experiment.title] = accuracy_table(experiment.kinds["results"])
    return {
        "verdicts": side_by_side(experiments, CLAIMS),
        "accuracies": accuracies,
        "growths": side_by_side(experiments, growth_rows(experiments)),
        "failures": side_by_side(experiments, FAILURES),
        "costs": side_by_side(experiments, cost_rows(experiments)),
    }
