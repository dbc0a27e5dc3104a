"""What the results say, each finding once: cells of RESULTS.md, first sentences of the pages of
tables, answers of analysis.ipynb and titles of README's picture.

A finding takes an experiment and returns Markdown. A loss is more than chance where its 95 %
interval, paired by trial, excludes 0.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from xarray import DataArray, Dataset

from analysis import costs, evidence, tables, theory
from analysis.experiments import Experiment
from analysis.growth import FAST, FLAT, SLOW, UNDECIDED, Means, judged, reserve, trial_values
from analysis.tables import columns_of, in_words, paired, usual, usual_threshold
from runtime.results import UNUSABLE, is_computed, origin_of

Finding = Callable[[Experiment], str]

TOLERANCE = 0.01  # of accuracy: a loss that is surely smaller is none
GRAVE = 0.05  # of accuracy: a loss that is surely larger refutes that it stays
DEAR = 1e4  # measurements: more are not cheap, however they grow
SHOWN_SIZES = 3  # at which K is known, in the table of accuracies; the largest of all is added
WORDS = {FLAT: "holds", SLOW: "holds", FAST: "fails", UNDECIDED: "undecided"}


def said(experiment: Experiment, finding: Finding) -> str:
    """A finding, or "" where its file or labels are missing."""
    try:
        return finding(experiment)
    except UNUSABLE:
        return ""


def first_clause(finding: Finding, experiment: Experiment) -> str:
    """A finding without what it says behind the first semicolon."""
    return finding(experiment).partition(";")[0]


def answer(experiments: Sequence[Experiment], *names: str) -> str:
    """A line for each experiment, as Markdown: names of FINDINGS, or of quantities that grow."""
    lines = []
    for experiment in experiments:
        sentences = []
        for name in names:
            text = said(experiment, FINDINGS.get(name) or partial(growth_of, name))
            if text:
                sentences.append(f"{name}: {text}")
        if sentences:
            lines.append(f"- {experiment.title}: {'; '.join(sentences)}.")
    return "\n".join(lines)


def side_by_side(experiments: Sequence[Experiment], rows: dict[str, Finding]) -> str:
    """A table with a column for each experiment, without rows that nothing is known of."""
    lines = []
    for name, finding in rows.items():
        cells = [said(experiment, finding) for experiment in experiments]
        if any(cells):
            lines.append([name, *(cell or "–" for cell in cells)])
    return tables.table(["", *(experiment.title for experiment in experiments)], lines)


def levels(values: DataArray) -> str:
    """A quantity's mean at the smallest and the largest n: 35 to 38."""
    near_one = tables.less_one(values)
    first, last = trial_values(values - near_one).mean("trial").dropna("n").values[[0, -1]]
    if near_one:
        return f"1 + {first:.1e} to {last:.1e}"
    return f"{tables.number(first)} to {tables.number(last)}"


def accuracy_stays(threshold: str, experiment: Experiment) -> str:
    """Whether K̃ is as accurate as K with this threshold."""
    accuracy = experiment.results.accuracy.sel(threshold=threshold, convention="original")
    loss = tables.losses_of(accuracy)["sparsified"].dropna("n", how="all")
    losses = paired(loss)
    at_end = accuracy.sel(n=loss.n[-1]).mean(["trial", "pattern"])
    sparsified, exact = at_end.sel(approximation=["sparsified", "exact"]).values
    level = f"K̃ has {sparsified:.3f}, K {exact:.3f} at n = {loss.n[-1]:d}"
    verdict = verdict_on_loss(losses)
    if verdict == "holds" or losses.mean.max() < 1e-9:
        return f"**{verdict}**: {level}"
    clear = losses.low > 0
    worst = int(np.argmax(np.where(clear, losses.mean, losses.mean - 1)))
    most = tables.plus_minus(losses.mean[worst], losses.high[worst] - losses.mean[worst])
    text = f"**{verdict}**: {level}; loses {most} at n = {loss.n[worst]:d}"
    if verdict == "fails" or not clear.any() or clear.size == 1:
        return text
    return f"{text}, elsewhere less or chance"


def verdict_on_loss(losses: Means) -> str:
    """Whether accuracy stays, by its losses at every n.

    It fails where a loss is surely grave, and nearly holds where all that are beyond chance surely
    are not.
    """
    clear = losses.low > 0
    if np.all(losses.high < TOLERANCE):
        return "holds"
    if np.any(losses.low > GRAVE):
        return "fails"
    if clear.any() and np.all(losses.high[clear] < GRAVE):
        return "nearly holds"
    return "undecided"


def condition_stays(experiment: Experiment) -> str:
    """Whether κ of K̃ stays small, and whether that says anything; why, where nobody can tell."""
    columns = columns_of(experiment.results.condition_number)
    sparsified, exact = columns["sparsified"], columns["exact"]
    growth = judged(sparsified)
    verdict = WORDS[growth.verdict]
    if tables.less_one(exact):
        above = float(sparsified.max()) - 1
        return f"**{verdict}**: below 1 + {above:.0e}; K, nearly diagonal itself: {levels(exact)}"
    most = trial_values(sparsified).mean("trial").max().item()
    text = f"**{verdict}**: {levels(sparsified)}, at most {tables.number(most)}; K: {levels(exact)}"
    if "sparsified, corrected" in columns:
        corrected = columns["sparsified, corrected"]
        text += f"; corrected: {WORDS[judged(corrected).verdict]}, {levels(corrected)}"
    return text if growth.verdict != UNDECIDED else f"{text}; why: {growth.reason}"


def preparing_is_cheap(experiment: Experiment) -> str:
    """Whether some divisor of k* that an algorithm knows makes post-selection cheap."""
    attempts = experiment.results.post_selection_measurements
    verdicts, texts = [], []
    for name, values in columns_of(attempts.drop_sel(divisor="test set", errors="ignore")).items():
        is_dear = trial_values(values)[-1].mean() > DEAR
        verdicts.append("fails" if is_dear else WORDS[judged(values).verdict])
        texts.append(f"{levels(values)} ({name})")
    best = min(verdicts, key=["holds", "undecided", "fails"].index)
    return f"**{best}**: {', '.join(texts)}"


def reading_is_cheap(experiment: Experiment) -> str:
    """Whether the sign can be read off K̃'s prediction, at the usual threshold.

    Where nobody can tell how the measurements grow: by which factor they may, over all sizes.
    """
    values = usual(experiment.results).readout_measurements.sel(approximation="sparsified")
    growth = judged(values)
    text = f"**{WORDS[growth.verdict]}**: {levels(values)} measurements"
    if growth.verdict == UNDECIDED and np.isfinite(growth.ratio).all():
        text += f", a factor of {growth.ratio.low:.2f} to {growth.ratio.high:.2f}"
    return text


def prediction_is_cheap(experiment: Experiment) -> str:
    """Whether a prediction takes fewer queries than classical ways take operations."""
    ways = costs.six_ways(experiment.kinds["emulation"])
    best = ways["quantum, sparsified"]
    chosen = [best, ways["classical, all entries"], ways["classical, sampler"]]
    counts = [costs.geometric(way).mean[-1] for way in chosen]
    queries, entries, sampler = map(tables.number, counts)
    verdict = "holds" if counts[0] < min(counts[1:]) else "fails"
    rivals = f"{entries} operations, {sampler} of a sampler"
    needless = "; no entry of K̃ is needed" if best.equals(ways["quantum, diagonal"]) else ""
    return f"**{verdict}** at n = {best.n[-1]:d}: {queries} queries against {rivals}{needless}"


CLAIMS: dict[str, Finding] = {
    "accuracy of K̃ stays, threshold calibrated": partial(accuracy_stays, "calibrated"),
    "accuracy of K̃ stays, at zero": partial(accuracy_stays, "zero"),
    "κ of K̃ stays small": condition_stays,
    "preparing k\\* is cheap, scale known": preparing_is_cheap,
    "reading the sign is cheap": reading_is_cheap,
    "one prediction is cheaper than classically": prediction_is_cheap,
    "the error is O(1/n)": partial(first_clause, theory.theorem_holds),
    "real networks follow their NTK": partial(first_clause, theory.networks_follow),
}


def growths(results: Dataset) -> dict[str, DataArray]:
    """What growth is told of: sparsity, κ of both matrices, post-selection, readout."""
    quantities = tables.judged_quantities(results)
    names = ["sparsity, sparsified", "κ, sparsified", "κ, exact"]
    names += [name for name in quantities if name.startswith("post-selection")]
    names.append(f"readout, {in_words(usual_threshold(results))}, sparsified")
    return {name: quantities[name] for name in names if name in quantities}


def growth_of(name: str, experiment: Experiment) -> str:
    """The verdict on one quantity's growth, what hangs on the largest size, and its levels."""
    values = tables.judged_quantities(experiment.results)[name]
    verdict = judged(values).verdict
    return f"{verdict}{reserve(values, verdict)}: {levels(values)}"


def what_grows(experiment: Experiment) -> str:
    """What grows faster than log n, and of what nobody can tell."""
    quantities = growths(experiment.results)
    verdicts = {name: judged(values).verdict for name, values in quantities.items()}
    told = []
    for verdict in (FAST, UNDECIDED):
        names = [name for name in verdicts if verdicts[name] == verdict]
        told.append(f"{verdict}: {'; '.join(names) or 'nothing'}")
    return "; ".join(told)


def gains_of_classifiers(baselines: Dataset) -> dict[str, Means]:
    """By how much other classifiers are better than K where it is known, at the usual threshold."""
    accuracy = usual(baselines).accuracy
    exact = accuracy.sel(classifier="exact", drop=True).dropna("n", how="all")
    gains = columns_of(accuracy.drop_sel(classifier="exact") - exact)
    return {name: paired(gain) for name, gain in gains.items()}


def rivals(experiment: Experiment) -> str:
    """Which classifiers are better than the exact NTK at the largest n, beyond chance."""
    gains = gains_of_classifiers(experiment.kinds["baselines"])
    first, *_ = gains.values()
    better = []
    for name, means in gains.items():
        if means.low[-1] > 0:
            better.append(f"{name} by {means.mean[-1]:.3f}")
    return f"better than K at n = {first.x[-1]}: {', '.join(better) or 'none'}"


def enlargement_matters(experiment: Experiment) -> str:
    """By how much K̃ is better than the exact NTK and than nearest neighbours, both as cheap."""
    accuracy = experiment.kinds["baselines"].rival_accuracy
    sparsified = accuracy.sel(rival="sparsified", drop=True)
    texts = []
    for name in ("exact", "nearest neighbours"):
        gain = (sparsified - accuracy.sel(rival=name)).dropna("n", how="all")
        texts.append(f"{tables.paired_cells(gain)[-1]} ({name})")
    return f"K̃ gains {', '.join(texts)}"


def standards_matter(experiment: Experiment) -> str:
    """What standardising test images as a single prediction must changes for K̃ at most."""
    results = experiment.kinds["standardisation"]
    accuracy = results.accuracy.sel(approximation="sparsified", threshold="calibrated")
    change = accuracy.sel(standard="training images") - accuracy.sel(standard="test images")
    change = change.dropna("n", how="all")
    most = int(np.argmax(abs(change.mean("trial")).values))
    size = tables.paired_cells(change)[most].replace("**", "")
    return f"accuracy of K̃, calibrated t: changes by {size} at most (n = {change.n[most]:d})"


def constants_matter(experiment: Experiment) -> str:
    """What less of the boost does to K̃."""
    plane = evidence.plane_of_constants(experiment.kinds["sensitivity"])
    of_papers = plane.sel(density=plane.attrs["density"])
    lower = of_papers.sel(boost=plane.boost < plane.attrs["boost"]).isel(boost=-1)
    what = "still" if lower.positive_definite == 1 else "not always"
    return f"with a boost of {lower.boost:g} K̃ is {what} positive definite at n = {plane.n:d}"


def pairs_matter(experiment: Experiment) -> str:
    """What K̃ loses on the worst pair and on the median one, and whether it beats its diagonal."""
    results = evidence.named_pairs(experiment)
    lost = evidence.losses_by_setting(results)
    gain = evidence.gains_over_diagonal(results)
    worst = f"up to {lost[-1]:.3f} ({lost.setting[-1].item()})" if lost[-1] > 1e-9 else "nothing"
    return (
        f"K̃ loses {worst}, {lost.median():.3f} on the median pair (n = {lost.n:d}); "
        f"below its diagonal on {sum(gain.mean < -1e-9)} of {len(gain.mean)}, beyond chance on "
        f"{sum(gain.high < 0)}, above it beyond chance on {sum(gain.low > 0)}"
    )


def depth_matters(experiment: Experiment) -> str:
    """What K̃ loses at the depth where it loses most, and at the original's depth."""
    sweep = experiment.kinds["depth_sweep"]
    lost, rule = evidence.losses_by_setting(sweep), origin_of(sweep)["depth_rule"]
    text = f"K̃ loses {lost[-1]:.3f} at {evidence.unit(sweep)} {lost.setting[-1]:g}"
    if rule in lost.setting:
        text += f", {lost.sel(setting=rule):.3f} at the original's {rule:g}"
    return f"{text} (n = {lost.n:d})"


FAILURES: dict[str, Finding] = {
    "simple classifiers": rivals,
    "K̃ beside what is as cheap": enlargement_matters,
    "constants set by hand": constants_matter,
    "all pairs of classes": pairs_matter,
    "other depths": depth_matters,
}


def circuit_agrees(experiment: Experiment) -> str:
    """How many gates a prediction is, and whether they do what the emulation says."""
    results = experiment.kinds["circuit"].isel(n=0, trial=0).sel(approximation="sparsified")
    built, emulated = results.sel(source="circuit"), results.sel(source="emulated")
    measured = ["success_probability", "post_selection_probability", "overlap", "queries"]
    difference = abs(built[measured] - emulated[measured]).to_dataarray().max()
    size = f"{results.gate_count:,.0f} gates on {built.qubits:.0f} qubits at n = {results.n:d}"
    return f"{size}, within {difference:.0e} of the emulation"


def cost_of(way: str, experiment: Experiment, **chosen: str) -> str:
    """What one of the six ways costs at the largest n emulated."""
    return costs.cells(costs.six_ways(experiment.kinds["emulation"], **chosen)[way])[-1]


COSTS: dict[str, Finding] = {
    "queries, sparsified": partial(cost_of, "quantum, sparsified"),
    "queries, diagonal": partial(cost_of, "quantum, diagonal"),
    "queries, diagonal, fixed constant": partial(
        cost_of, "quantum, diagonal", divisor="fixed constant"
    ),
    "operations, all entries": partial(cost_of, "classical, all entries"),
    "operations, sampler": partial(cost_of, "classical, sampler"),
    "as gates": circuit_agrees,
}
FINDINGS = CLAIMS | FAILURES | COSTS | {"what grows": what_grows}


def accuracy_table(experiment: Experiment) -> str:
    """Accuracy and readout in the original's convention, by threshold; equal rows are one.

    The test set's median, which a single prediction can't know, is left to the page of tables.
    """
    results = experiment.results.sel(convention="original")
    results = results.isel(n=is_computed(results).any("trial").values)
    results = results.sel(threshold=tables.two_thresholds(results))
    exact = results.accuracy.sel(approximation="exact").dropna("n", how="all")
    places = np.linspace(0, exact.sizes["n"] - 1, SHOWN_SIZES).round()
    shown = np.unique([*places, results.sizes["n"] - 1]).astype(int)
    rows: dict[str, Any] = {"trials": is_computed(results).sum("trial").values}
    quantities = tables.judged_quantities(results[["accuracy", "readout_measurements"]])
    rows |= tables.mean_rows(results, quantities)
    chosen = {name: np.array(cells)[shown] for name, cells in rows.items()}
    return tables.by_size(results.n[shown], chosen)


def page(experiments: Sequence[Experiment]) -> dict[str, Any]:
    """All that RESULTS.md shows."""
    accuracies: dict[str, str] = {}
    growing: dict[str, Finding] = {}
    for experiment in experiments:
        with contextlib.suppress(*UNUSABLE):
            accuracies[experiment.title] = accuracy_table(experiment)
        with contextlib.suppress(*UNUSABLE):
            growing |= {name: partial(growth_of, name) for name in growths(experiment.results)}
    return {
        "verdicts": side_by_side(experiments, CLAIMS),
        "accuracies": accuracies,
        "growths": side_by_side(experiments, growing),
        "failures": side_by_side(experiments, FAILURES),
        "costs": side_by_side(experiments, COSTS),
    }
