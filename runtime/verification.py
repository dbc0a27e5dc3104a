"""What a fresh computation and an output folder have in common, compared number by number."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ntk import BadInput
from ntk.convolutional import ConvolutionalPairs
from runtime.checkpoints import differences, label_of, read_kernel
from runtime.files import in_words, open_array, output_files, temporary_folder
from runtime.processes import is_leader, share
from runtime.results import (
    is_computed,
    origin_of,
    other_origin,
    read_results,
    relative_difference,
)
from runtime.trials import Run, TrialFiles

kernel_limit = {"float64": 1e-10, "float32": 1e-4}  # relative difference that rounding explains
quantity_limit = {"float64": 1e-6, "float32": 1e-2}  # condition numbers and counts enlarge it


sample_size = 200  # values of a kernel that is too large to be computed again


class Comparison(NamedTuple):
    """One array of fresh results and of those in a folder."""

    name: str
    trials: int
    difference: float
    limit: float


def verify(
    experiment: Callable[[Run], int], samples: Callable[[Run], list[Comparison]], run: Run
) -> int:
    """Run the experiment in a temporary folder, and compare it with run.output. Returns the status.

    samples(run): comparisons of a sample of what would take too long to compute again.
    """
    if is_leader() and not output_files(run.output, "*_results.nc"):
        raise BadInput(
            "output", run.output, "holds no results to compare with; name the folder of a run"
        )
    with temporary_folder() as folder:
        fresh = replace(run, output=folder)
        try:
            status = experiment(fresh)
        except BadInput as error:
            if error.value != folder:
                raise
            raise BadInput("TMPDIR", folder.parent, error.remedy) from error
        return status or share(lambda: compare_folders(folder, run.output, lambda: samples(run)))


def compare_folders(fresh: Path, kept: Path, samples: Callable[[], list[Comparison]] = list) -> int:
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
        largest, limit = [], 0.0
        for path in output_files(fresh, f"{prefix}_seed*_{name}.npy"):
            if os.path.lexists(kept / path.name):
                largest.append(kernel_difference(path, kept / path.name))
                limit = kernel_limit[label_of(path)["precision"]]
        if largest:
            compared.append(Comparison(f"{prefix} {name}", len(largest), max(largest), limit))
    return compared


def kernel_difference(fresh: Path, kept: Path) -> float:
    """The largest relative difference of two kernel files.

    Raises BadInput where the second one is damaged, or of other images, depth or shape.
    """
    kernel, label = read_kernel(fresh)
    expected, expected_label = read_kernel(kept)
    settings = {key: label[key] for key in ("dataset_sha256", "digits", "depth")}
    reason = differences(expected_label, settings)
    if reason:
        raise BadInput("output", kept, f"was computed from other settings ({reason})")
    if kernel.shape != expected.shape:
        raise BadInput("output", kept, f"holds {expected.shape}, not {kernel.shape}")
    if kernel.dtype.names:
        kernel, expected = kernel["value"], expected["value"]
    return relative_difference(kernel, expected)


def compare_sample(files: TrialFiles, images: NDArray, name: str) -> Comparison:
    """Some values of a finished kernel file, drawn at random, computed again.

    images: the trial's training images, and its test images behind them. Raises BadInput where the
    file is missing or damaged.
    """
    path = files.path(name)
    kernel, label = read_kernel(path)
    reason = differences(label, files.label())
    if reason:
        raise BadInput("output", path, f"was computed from other settings ({reason})")
    rows, columns, expected = sampled(kernel)
    used, places = np.unique(np.concatenate([columns, rows]), return_inverse=True)
    precision = files.run.precision_of(files.trial.network)
    engine = ConvolutionalPairs(
        images[used], depth=files.depth, engine=files.run.engine, precision=precision
    )
    values = engine.pairs(places[: len(rows)], places[len(rows) :])
    return Comparison(
        name=f"{path.stem}, {len(rows)} values",
        trials=1,
        difference=relative_difference(values, expected),
        limit=kernel_limit[precision],
    )


def sampled(kernel: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Some values of a kernel, and the images that they are of: rows, columns and values, [m].

    kernel: some entries of a kernel_train, or a kernel_test [x, n], whose images come behind the
    n of the training set.
    """
    chosen = np.random.default_rng(0).permutation(kernel.size)[:sample_size]
    if kernel.dtype.names:
        entries = kernel[chosen]
        return entries["row"], entries["column"], entries["value"]
    n = kernel.shape[1]
    rows, columns = np.divmod(chosen, n)
    return rows + n, columns, kernel[rows, columns]


def compare_labels(fresh: Path, kept: Path, prefix: str) -> list[Comparison]:
    """One comparison for each of the small arrays beside the kernels, where `kept` has them."""
    compared = []
    for name in ("train_label", "test_label", "kernel_test_normalized"):
        largest, limit = [], 0.0
        for path in output_files(fresh, f"{prefix}_seed*_{name}.npy"):
            if not os.path.lexists(kept / path.name):
                continue
            largest.append(array_difference(path, kept / path.name))
            if name == "kernel_test_normalized":
                kernel = path.with_name(path.name.replace(name, "kernel_test"))
                limit = kernel_limit[label_of(kernel)["precision"]]
        if largest:
            compared.append(Comparison(f"{prefix} {name}", len(largest), max(largest), limit))
    return compared


def array_difference(fresh: Path, kept: Path) -> float:
    """The largest relative difference of two .npy files' arrays; infinite for other shapes."""
    try:
        with open_array(fresh) as found, open_array(kept) as expected:
            if found.array.shape != expected.array.shape:
                return np.inf
            return relative_difference(found.array, expected.array)
    except (OSError, ValueError) as error:
        raise BadInput("output", kept, f"can't be read ({in_words(error)}); delete it") from error


def compare_results(fresh: Path, kept: Path, prefix: str) -> list[Comparison]:
    """One comparison for each quantity of the trials that were computed afresh.

    A quantity that `kept` has of none of these trials, because it is newer, is left out. Raises
    BadInput for missing trials and another origin.
    """
    path = kept / f"{prefix}_results.nc"
    results, expected = read_results(fresh / path.name), read_results(path)
    reason = other_origin(origin_of(expected), origin_of(results))
    reason = reason or lacking_trials(results, expected)
    if reason:
        raise BadInput("output", path, reason)
    same_code = of_same_code(results, expected)
    limit = quantity_limit["float32" if "float32" in results.precision.values else "float64"]
    compared = []
    for name in results.data_vars:
        if results[name].dtype.kind == "f" and name in expected:
            trials, difference = compare_quantity(results[name], expected[name], same_code)
            if trials:
                compared.append(Comparison(f"{prefix} {name}", trials, difference, limit))
    return compared


def compare_quantity(
    values: xr.DataArray, expected: xr.DataArray, same_code: xr.DataArray
) -> tuple[int, float]:
    """How many trials of a quantity can be compared, and its largest relative difference.

    That is where both are known, or where one lacks what the same code computed.
    """
    values, expected = xr.broadcast(values, expected.reindex_like(values))
    same = same_code if "trial" in values.dims else same_code.any("trial")
    both = values.notnull() & expected.notnull()
    one = values.notnull() ^ expected.notnull()
    known = (both | (one & same)).transpose(*values.dims)
    own = [dim for dim in known.dims if dim not in ("n", "trial")]
    difference = relative_difference(values.where(known), expected.where(known))
    return int(known.any(own).sum()), difference


def lacking_trials(results: xr.Dataset, expected: xr.Dataset) -> str | None:
    """Which trials of `results` the expected ones lack, in words, or None."""
    computed = is_computed(results)
    lacking = computed & ~is_computed(expected).reindex_like(computed, fill_value=False)
    if not lacking.any():
        return None
    n = int(results.n[lacking.any("trial")][0])
    return f"lacks {int(lacking.sum())} trials, the first one n = {n}"


def of_same_code(results: xr.Dataset, expected: xr.Dataset) -> xr.DataArray:
    """Where both have trials that the same version of the formulas computed: bool [n, trial]."""
    if "code" not in expected:
        return xr.zeros_like(is_computed(results))
    same = results.code == expected.code.reindex_like(results.code, fill_value="")
    return same & is_computed(results)
