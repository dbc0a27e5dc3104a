"""What a fresh computation and an output folder have in common, compared number by number."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ntk import BadInput
from runtime.checkpoints import read_kernel
from runtime.files import temporary_folder
from runtime.results import read_results, relative_difference
from runtime.trials import Run

kernel_limit = {"float64": 1e-10, "float32": 1e-4}  # largest relative difference that rounding explains
quantity_limit = {"float64": 1e-6, "float32": 1e-2}  # condition numbers and measurement counts enlarge it


def verify(experiment: Callable[[Run], int], run: Run) -> int:
    """Run the experiment in a temporary folder, and compare what it finds with run.output. Returns the exit status."""
    if not list(run.output.glob("*_results.npz")):
        raise BadInput("output", run.output, "holds no results to compare with; name the folder of a run")
    with temporary_folder() as folder:
        fresh = replace(run, output=folder)
        return experiment(fresh) or compare_folders(fresh.output, run.output)


def compare_folders(fresh: Path, kept: Path) -> int:
    """Print the largest relative difference of every array in `fresh` from its like in `kept`. Returns the status.

    Kernels that `kept` does not hold are left out, results must be there. The status is 1 where a difference is beyond
    rounding, a file is damaged, or there is nothing to compare; 0 elsewhere.
    """
    rows: list[tuple[str, int, float, float]] = []
    wrong = []
    for path in sorted(fresh.glob("*_results.npz")):
        try:
            rows += compare_kernels(fresh, kept, path.name.removesuffix("_results.npz"))
            rows += compare_results(path, kept / path.name)
        except BadInput as error:
            wrong.append(f"{error}")
    print(f"\n{'array':58}{'trials':>7}{'largest difference':>20}")
    for name, count, difference, limit in rows:
        verdict = "" if difference <= limit else f"  DIFFERS, more than {limit:g}"
        print(f"{name:58}{count:>7}{difference:>20.1e}{verdict}")
        if difference > limit:
            wrong.append(f"{name} differs")
    if not rows and not wrong:
        wrong.append(f"nothing in {kept}/ to compare with")
    print("\n".join(["", *wrong]) if wrong else f"\n{kept}/ holds what this computer computes from the images")
    return 1 if wrong else 0


def compare_kernels(fresh: Path, kept: Path, prefix: str) -> list[tuple[str, int, float, float]]:
    """A row for each kind of kernel of one network: (name, trials, largest relative difference, limit)."""
    rows = []
    for name in ("kernel_train", "kernel_test"):
        differences, limit = [], 0.0
        for path in sorted(fresh.glob(f"{prefix}_seed*_{name}.npy")):
            if not (kept / path.name).exists():
                continue
            (found, label), (expected, _) = read_kernel(path), read_kernel(kept / path.name)
            limit = kernel_limit[label["precision"]]
            if found.shape != expected.shape:
                raise BadInput("output", kept / path.name, f"holds {expected.shape}, not {found.shape}")
            differences.append(relative_difference(found, expected))
        if differences:
            rows.append((f"{prefix} {name}", len(differences), max(differences), limit))
    return rows


def compare_results(fresh: Path, kept: Path) -> list[tuple[str, int, float, float]]:
    """A row for each quantity, of trials, then of sizes. Raises BadInput for missing trials and another origin."""
    found, expected = read_results(fresh), read_results(kept)
    other = [key for key, value in found.origin.items() if expected.origin.get(key) != value]
    if other:
        raise BadInput("output", kept, f"is of another origin: {', '.join(other)}")
    missing = [key for key in found.records if key not in expected.records]
    if missing:
        raise BadInput("output", kept, f"lacks {len(missing)} trials, the first one n = {missing[0][0]}")
    limit = quantity_limit[found.origin["precision"]]
    prefix, rows = kept.stem.removesuffix("_results"), []
    for name in next(iter(found.records.values())):
        pairs = [(record[name], expected.records[key].get(name, np.nan)) for key, record in found.records.items()]
        difference = max(relative_difference(*pair) for pair in pairs)
        rows.append((f"{prefix} {name}", len(pairs), difference, limit))
    for name in next(iter(found.by_size.values()), {}):
        by_size = [(record[name], expected.by_size.get(n, {}).get(name, np.nan)) for n, record in found.by_size.items()]
        rows.append((f"{prefix} {name}", len(by_size), max(relative_difference(*pair) for pair in by_size), limit))
    return rows
