"""Could the evidence have failed? Simple classifiers on the same images, and the constants that were set by hand.

The exact NTK, and its sparsified and diagonal approximations, are accurate. That is evidence only if something else
would have been less so. So here are, on the same trials as training.py's:

    baselines     what classifiers of a few lines make of the same images, beside the exact NTK
    sensitivity   what becomes of the convolutional K~ when its percentile, enlarged diagonal and density are others

    python controls.py          # of all kernels in kernel_output/; two minutes, no kernel is computed
    python controls.py --help

The results are `{prefix}_baselines.npz` and `convolutional_sensitivity.npz`; analysis/evidence.py says in words and
tables what they show.
"""

import argparse
import functools
import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import pairwise_distances
from threadpoolctl import threadpool_limits

import training
from ntk import BadInput
from runtime import options
from runtime.checkpoints import finished_trials, read_kernel_pair
from runtime.linear_algebra import Array
from runtime.mnist import load_data
from runtime.results import Record, Results, medians_over_images, merge_results
from runtime.trials import Run, Trial
from training import accuracy, make_trial

ridge_penalties = np.logspace(-4, 2, 13)  # the one with the least leave-one-out error is taken
percentiles = (0, 50, 75, training.percentile, 95, 99)  # of |K| inside a class
boosts = (0, 0.25, 0.5, 1, 1.5, 2, 3)  # times what the original adds to the diagonal, 0.76 ln(n)^0.9
densities = (0.25, 0.5, 1, 2, 4)  # times the original's p = min(2 ln(n)/n, 1)
papers_setting = (training.percentile, 1, 1)
# All combinations of two of them, the third one as in the paper: three planes through the paper's point.
settings = [
    setting
    for setting in itertools.product(percentiles, boosts, densities)
    if any(value == papers for value, papers in zip(setting, papers_setting, strict=True))
]


# ----------------------------------------------------------------------------------------------------------------------
# All kernels that are in the folder
# ----------------------------------------------------------------------------------------------------------------------


def merge_trials(
    run: Run, network: str, what: str, compute: Callable[[Trial, dict[str, Any]], dict[Any, Record]],
    settings_name: str | None = None, **constants: Any,
) -> None:  # fmt: skip
    """Call compute(trial, its kernels), which returns records by setting, of all finished trials; write the results.

    constants: that the results depend on beside the kernels. Raises BadInput for damaged kernels, and for kernels of
    different images, precision and so on in one folder.
    """
    prefix, started = run.prefix(network), time.perf_counter()
    trials = [(n, number) for n, numbers in finished_trials(run.output, prefix, run.seed).items() for number in numbers]
    if not trials:
        print(f"note: no {what} of the {network} network: {run.output}/ has no kernels of it; training.py makes them")
        return
    print(f"{network}: {what} of {len(trials)} trials, n = {trials[0][0]} to {trials[-1][0]}")
    results = Results({"dataset_sha256": run.data["sha256"]}, settings_name=settings_name)
    for n, number in trials:
        kernels = training.stored_kernels(run.output, prefix, n, number, run.seed)
        of_all = ("network", "dataset", "dataset_sha256", "digits", "seed", "precision", "formulas")
        origin = {key: kernels[key] for key in of_all} | {"test_size": len(kernels["test_label"])} | constants
        known = {key: value for key, value in results.origin.items() if value is not None}
        other = [f"{key} {origin[key]}, not {value}" for key, value in known.items() if origin[key] != value]
        if other:
            remedy = f"the kernels of n = {n}, trial {number}, have {', '.join(other)}; keep those of one kind there"
            raise BadInput("output", run.output, remedy)
        results.origin = origin
        for setting, record in compute(make_trial(network, tuple(kernels["digits"]), n, number), kernels).items():
            results.records[n, setting, number] = record
    said = merge_results(run.output / f"{prefix}_{what}.npz", results)
    print(f"{said.partition(':')[0]}: {len(trials)} trials in {time.perf_counter() - started:.0f} s")


# ----------------------------------------------------------------------------------------------------------------------
# Baselines: would anything do as well?
# ----------------------------------------------------------------------------------------------------------------------


def nearest_mean(x: Array, y: NDArray, z: Array) -> Array:
    """Output |z - m-|^2 - |z - m+|^2 of the nearest class mean. x [n, d] and y [n] to learn from, z [x, d] -> [x]"""
    means = [x[y == label].mean(axis=0, keepdims=True) for label in (-1, 1)]
    minus, plus = (pairwise_distances(z, mean)[:, 0] ** 2 for mean in means)
    return minus - plus


def nearest_neighbour(x: Array, y: NDArray, z: Array) -> Array:
    """Distance to the nearest image of class -1 minus that to the nearest one of class +1. -> [x]"""
    minus, plus = (pairwise_distances(z, x[y == label]).min(axis=1) for label in (-1, 1))
    return minus - plus


def ridge_regression(x: Array, y: NDArray, z: Array) -> Array:
    """Output of a linear function of the pixels, with an intercept; its penalty by leave-one-out error. -> [x]"""
    return RidgeClassifierCV(alphas=ridge_penalties).fit(x, y).decision_function(z)


def ink(x: Array, y: NDArray, z: Array) -> Array:
    """Nearest class mean of one number, the sum of the pixels. -> [x]"""
    return nearest_mean(x.sum(axis=1, keepdims=True), y, z.sum(axis=1, keepdims=True))


pixel_classifiers = {
    "ink": ink, "nearest_mean": nearest_mean, "nearest_neighbour": nearest_neighbour, "ridge": ridge_regression
}  # fmt: skip


def baseline_record(run: Run, trial: Trial, kernels: dict[str, Any]) -> dict[str, Any]:
    """Accuracies of one trial about the median of the outputs and, `_at_zero`, about 0.

    The class mean of the kernel is sum_i y_i k*_i. The diagonal approximation is that with y_i/K_ii for y_i and k*
    clipped: `agreement` is the share of test images that get the same class from both, `diagonal_spread` how far the
    K_ii differ, max/min - 1.
    """
    images = training.trial_images(replace(run, test_size=len(kernels["test_label"])), trial)
    x, z = (images[split].reshape(len(images[split]), -1) for split in ("train", "test"))
    y, test_label = images["train_label"], images["test_label"]
    if len(x) != trial.size or len(z) != len(test_label):
        raise BadInput("output", run.output, f"these images can't fill the trials of n = {trial.size} there")
    quantities = training.trial_quantities(kernels | {"separability": training.separability(x)}, {})
    record = {name: value for name, value in quantities.items() if name.startswith(("accuracy", "clipped_share_k"))}
    outputs = {name: classify(x, y, z) for name, classify in pixel_classifiers.items()}
    outputs["kernel_mean"] = mean = kernels["kernel_test"] @ y
    for name, output in outputs.items():
        record[f"accuracy_{name}"] = accuracy(output, test_label)
        record[f"accuracy_{name}_at_zero"] = accuracy(output, test_label, 0)
    diagonal = np.diag(kernels["kernel_train"])
    approximate = kernels["kernel_test_normalized"] @ (y / diagonal)
    record["agreement"] = np.mean((mean > np.median(mean)) == (approximate > np.median(approximate)))
    record["agreement_at_zero"] = np.mean((mean > 0) == (approximate > 0))
    return record | {"diagonal_spread": diagonal.max() / diagonal.min() - 1}


# ----------------------------------------------------------------------------------------------------------------------
# Sensitivity: would other constants do as well?
# ----------------------------------------------------------------------------------------------------------------------


def sensitivity_records(run: Run, trial: Trial, kernels: dict[str, Any]) -> dict[Any, Record]:
    """The quantities of K~ by (percentile, boost, density), of one convolutional trial; medians over test images.

    The generators of a trial's patterns are the same for all settings: at the paper's point the patterns are those of
    `convolutional_results.npz`.
    """
    at = run.output, run.prefix(trial.network), training.reference_size, 0, run.seed
    reference = read_kernel_pair(*at)[0]["kernel_train"]
    factor, power = training.diagonal_boost

    def record(setting: tuple[float, float, float]) -> Record:
        percentile, boost, density = setting
        limits = {c: training.class_thresholds(reference, percentile, c == "original") for c in training.conventions}
        matrices = training.trial_approximations(
            trial, run.seed, kernels["kernel_train"], limits, boost=(boost * factor, power), density=density
        )
        found = training.trial_quantities(kernels | {"separability": np.nan}, matrices)
        kept = ("accuracy", "condition_number", "positive_definite", "sparsity", "readout_measurements_sparse")
        return medians_over_images({name: value for name, value in found.items() if name.startswith(kept)})

    # Many small matrices: a thread for each core, and none inside LAPACK.
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(settings, pool.map(record, settings), strict=True))


# ----------------------------------------------------------------------------------------------------------------------
# Command line
# ----------------------------------------------------------------------------------------------------------------------


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked as far as it can be without the data; errors end with status 2."""
    parser = options.Parser(description="Baselines, and sensitivity to the constants set by hand, of stored kernels.")
    parser.add_options([
        ("--networks", dict(nargs="+", choices=training.networks, default=training.networks,
         metavar="NETWORK"), f"of {' '.join(training.networks)}", training.networks),
        ("--output", dict(type=options.folder, default=Path("kernel_output"), metavar="DIR"),
         "folder of training.py's kernels, to write to as well", "kernel_output"),
        ("--dataset", dict(choices=("mnist", "digits"), default="mnist"), "what the kernels are of", "mnist"),
        ("--mnist-dir", dict(metavar="DIR"), "folder of MNIST's four IDX files, which the baselines need",
         "the environment variable MNIST_DIR, else TensorFlow Datasets"),
        ("--seed", dict(type=options.whole_number, default=training.seed), "seed that the kernels have in their names",
         training.seed),
    ])  # fmt: skip
    args = parser.parse_args(argv)
    parser.check(args.output.is_dir(), "output", args.output, "no such folder; name that of training.py")
    return args


def load_images(args: argparse.Namespace) -> dict[str, Any] | None:
    """The images, or None, with a line that says so, where MNIST can't be had."""
    try:
        return load_data(args.dataset, args.mnist_dir)
    except BadInput as error:
        if error.argument != "dataset":
            raise
        print(f"note: no baselines, which need the images: {error.remedy}")
        return None


def controls(args: argparse.Namespace) -> None:
    """Everything that the command line asks for."""
    data = load_images(args)
    run = Run(args.seed, 0, args.output, "numba", "float64", data or {"name": args.dataset, "sha256": None})
    for network in args.networks:
        if data:
            merge_trials(run, network, "baselines", lambda trial, kernels: {None: baseline_record(run, trial, kernels)})
    if "convolutional" in args.networks:
        compute = functools.partial(sensitivity_records, run)
        merge_trials(run, "convolutional", "sensitivity", compute, "settings", papers_setting=list(papers_setting))


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status, 2 after one line about a bad input."""
    args = parse_arguments(argv)
    return options.with_folder(args.output, lambda: controls(args))


if __name__ == "__main__":
    options.run_script(main)
