"""What tests/simulate_growth.py measured: how often intervals cover and verdicts are wrong."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis import growth
from analysis.experiments import Experiment
from analysis.tables import table
from runtime.results import is_computed

SIMULATION = Path(__file__).parents[1] / "tests" / "growth_simulation.json"
SPREADS = {  # of a trial: what the names of a kind have in common
    "normal, the same at all sizes": lambda name: "normal" not in name and " like " not in name,
    "not normal": lambda name: "normal" in name,
    "changes with n": lambda name: " like " in name,
}
COVERED = ("ratio", "index", "exponent")


def design(experiment: Experiment) -> tuple[list[int], list[int]]:
    """The sizes that have trials, and how many each has."""
    counts = is_computed(experiment.kinds["results"]).sum("trial")
    there = counts.isel(n=counts.values > 0)
    return there.n.values.tolist(), there.values.tolist()


def simulation(experiments: Sequence[Experiment]) -> dict[str, Any] | None:
    """The designs with the worst that happened, which are those of the results, and all rows."""
    rows = json.loads(SIMULATION.read_text(encoding="utf-8")) if SIMULATION.exists() else []
    if not rows:
        return None
    names = {str((row["sizes"], row["trials"])): row["design"] for row in rows}
    own = {}
    for experiment in experiments:
        if "results" in experiment.kinds:
            own[experiment.title] = names.get(str(design(experiment)), "")
    covered, wrong = worst([row for row in rows if " like " not in row["spread"]])
    return {
        "repeats": rows[0]["repeats"],
        "covered": covered,
        "wrong": wrong,
        "designs": designs_table(rows),
        "own": own,
        "table": all_rows(rows),
    }


def worst(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The least share covered and the largest share wrong, in per cent."""
    shares = [row[name] for row in rows for name in COVERED if row[name] is not None]
    return 100 * min(shares), 100 * max(row["wrong"] for row in rows)


def designs_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The designs, and the worst that happened with each kind of spread."""
    lines = []
    for name in dict.fromkeys(row["design"] for row in rows):
        own = [row for row in rows if row["design"] == name]
        sizes, trials = own[0]["sizes"], ", ".join(map(str, own[0]["trials"]))
        line = [name, f"{sizes[0]} to {sizes[-1]}", trials]
        for is_such in SPREADS.values():
            covered, wrong = worst([row for row in own if is_such(row["spread"])])
            line.append(f"{covered:.1f} covered, {wrong:.1f} wrong")
        lines.append(line)
    return table(["design", "n", "trials", *(f"spread {kind}" for kind in SPREADS)], lines)


def all_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Coverage, verdicts and errors of every design, truth and spread, in per cent."""
    lines = []
    for row in rows:
        shares = ["–" if row[name] is None else f"{100 * row[name]:.1f}" for name in COVERED]
        shares.append(f"{100 * min(row['means']):.1f} to {100 * max(row['means']):.1f}")
        shares += [f"{100 * row[name]:.1f}" for name in (*growth.VERDICTS, "wrong")]
        lines.append([row["design"], row["truth"], row["spread"], *shares])
    heading = ["design", "truth", "spread of a trial", "growth", "λ", "b", "means"]
    return table([*heading, *growth.VERDICTS, "wrong"], lines)
