"""What a fresh computation and an output folder have in common, compared number by number."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ntk import BadInput
from ntk.convolutional import ConvolutionalPairs
from runtime.checkpoints import differences, read_kernel
from runtime.files import open_array, output_files, temporary_folder
from runtime.processes import is_leader, share
from runtime.results import origin_of, other_origin, read_results, relative_difference
from runtime.trials import Run, TrialFiles

kernel_limit = {"float64": 1e-10, "float32": 1e-4}  # relative difference that rounding explains
quantity_limit = {"float64": 1e-6, "float32": 1e-2}  # condition numbers and counts enlarge it


sample_size = 200  # values of a kernel that is too large to be computed again


class Comparison(NamedTuple):
    """One array of fresh results and of those in a folder."""

    name: str
    count: int
    difference: float
    limit: float


def verify(
    experiment: Callable[[Run], int], samples: Callable[[Run], list[Comparison]], run: Run
) -> int:
    """Run the experiment in a temporary folder, and compare it with run.output. Returns the status.

    samples(run): comparisons of a sample of what would take too long to compute again.
    """
    if is_leader() and not output_files(run.output, "*_results.nc"):
        raise BadInput("output", run.output, "holds no results to compare with; name the folder of a run")
    with temporary_folder() as folder:
        fresh = replace(run, output=folder)
        status = experiment(fresh)
        return status or share(lambda: compare_folders(folder, run.output, lambda: samples(run)))


def compare_folders(
    fresh: Path, kept: Path, samples: Callable[[], list[Comparison]] = list
) -> int:
    """Print the largest relative difference of every array in `fresh` from its like in `kept`.

    Kernels that `kept` does not hold are left out, results must be there. Returns the status: 1
    where a difference is beyond rounding, a file is damaged, or there is nothing to compare.
    """
    compared: list[Comparison] = []
    wrong = []
    for path in output_files(fresh, "*_results.nc"):
        prefix = path.name.removesuffix("_results.nc")
        for compare in (compare_kernels, compare_labels, compare_results):
            try:
                compared += compare(fresh, kept, prefix)
            except BadInput as error:
                wrong.append(str(error))
    try:
        compared += samples()
    except BadInput as error:
        wrong.append(str(error))
    print(f"\n{'array':58}{'trials':>7}{'largest difference':>20}")
    for name, count, difference, limit in compared:
        verdict = "" if difference <= limit else f"  DIFFERS, more than {limit:g}"
        print(f"{name:58}{count:>7}{difference:>20.1e}{verdict}")
        if verdict:
            wrong.append(f"{name} differs")
    if not compared and not wrong:
        wrong.append(f"nothing in {kept}/ to compare with")
    if wrong:
        print("\n".join(["", *wrong]))
        return 1
    print(f"\n{kept}/ holds what this computer computes from the images")
    return 0


def compare_kernels(fresh: Path, kept: Path, prefix: str) -> list[Comparison]:
    """One comparison for each kind of kernel of one network."""
    compared = []
    for name in ("kernel_train", "kernel_entries", "kernel_test"):
        differences, limit = [], 0.0
        for path in output_files(fresh, f"{prefix}_seed*_{name}.npy"):
            if not os.path.lexists(kept / path.name):
                continue
            kernel, label = read_kernel(path)
            expected, _ = read_kernel(kept / path.name)
            limit = kernel_limit[label["precision"]]
            if kernel.shape != expected.shape:
                remedy = f"holds {expected.shape}, not {kernel.shape}"
                raise BadInput("output", kept / path.name, remedy)
            if kernel.dtype.names:
                kernel, expected = kernel["value"], expected["value"]
            differences.append(relative_difference(kernel, expected))
        if differences:
            compared.append(Comparison(f"{prefix} {name}", len(differences), max(differences), limit))
    return compared


def compare_sample(files: TrialFiles, images: NDArray, name: str) -> Comparison:
    """Some values of a finished kernel file, drawn at random, computed again.

    images: the trial's training images, and its test images behind them. Raises BadInput where the
    file is missing or damaged.
    """
    n, path = files.trial.size, files.path(name)
    kernel, label = read_kernel(path)
    reason = differences(label, files.label())
    if reason:
        raise BadInput("output", path, f"was computed from other settings ({reason})")
    chosen = np.random.default_rng(0).permutation(kernel.size)[:sample_size]
    if kernel.dtype.names:
        entries = kernel[chosen]
        rows, columns, expected = entries["row"], entries["column"], entries["value"]
    else:
        rows, columns = np.divmod(chosen, n)
        expected, rows = kernel[rows, columns], rows + n
    used, places = np.unique(np.concatenate([columns, rows]), return_inverse=True)
    pairs = ConvolutionalPairs(
        images[used],
        depth=files.depth,
        engine=files.run.engine,
        precision=files.run.precision_of(files.trial.network),
    )
    values = pairs.pairs(places[: len(chosen)], places[len(chosen) :])
    difference = relative_difference(values, expected)
    title = f"{path.name.removesuffix('.npy')}, {len(chosen)} values"
    return Comparison(title, 1, difference, kernel_limit[label["precision"]])


def compare_labels(fresh: Path, kept: Path, prefix: str) -> list[Comparison]:
    """One comparison for each of the small arrays beside the kernels, where `kept` has them."""
    compared = []
    for name, limit in (("train_label", 0.0), ("test_label", 0.0), ("kernel_test_normalized", 1e-4)):
        differences = []
        for path in output_files(fresh, f"{prefix}_seed*_{name}.npy"):
            if os.path.lexists(kept / path.name):
                differences.append(array_difference(path, kept / path.name))
        if differences:
            compared.append(Comparison(f"{prefix} {name}", len(differences), max(differences), limit))
    return compared


def array_difference(fresh: Path, kept: Path) -> float:
    """The largest relative difference of two .npy files' arrays; infinite for other shapes."""
    try:
        with open_array(fresh) as found, open_array(kept) as expected:
            if found.array.shape != expected.array.shape:
                return np.inf
            return relative_difference(found.array, expected.array)
    except (OSError, ValueError) as error:
        raise BadInput("output", kept, f"can't be read ({error}); delete it") from error


def compare_results(fresh: Path, kept: Path, prefix: str) -> list[Comparison]:
    """One comparison for each quantity of the trials that were computed afresh.

    A quantity that `kept` has of none of these trials, because it is newer, is left out. Raises
    BadInput for missing trials and another origin.
    """
    name = f"{prefix}_results.nc"
    results, expected = read_results(fresh / name), read_results(kept / name)
    reason = other_origin(origin_of(expected), origin_of(results))
    if reason:
        raise BadInput("output", kept / name, reason)
    compared = []
    limit = quantity_limit["float32" if "float32" in results.precision.values else "float64"]
    for quantity in results.data_vars:
        values = results[quantity]
        if values.dtype.kind != "f":
            continue
        if quantity not in expected:
            continue
        like = expected[quantity].reindex_like(values)
        known = values.notnull()
        lacking = known & like.isnull()
        if quantity == "test_images" and lacking.any():
            n = int(values.n[lacking.any("trial")][0])
            raise BadInput("output", kept / name, f"lacks {int(lacking.sum())} trials, the first one n = {n}")
        known = known & like.notnull()
        if not known.any():
            continue
        difference = relative_difference(values.values[known.values], like.values[known.values])
        trials = int(known.any([d for d in known.dims if d not in ("n", "trial")]).sum())
        compared.append(Comparison(f"{prefix} {quantity}", trials, difference, limit))
    return compared
