"""Could the evidence have failed? Simple classifiers, and the constants that were set by hand.

The exact NTK, and its sparsified and diagonal approximations, are accurate. That is evidence only
if something else would have been less so. So here are, on the same trials as training.py's:

    baselines        what classifiers of a few lines make of the same images, beside the exact NTK,
                     and what else can be made of the exact NTK as cheaply as K~'s weights
    sensitivity      what becomes of the convolutional K~ when its percentile, its enlarged diagonal
                     and its density are others
    standardisation  what becomes of everything when test images are standardised by the numbers of
                     the training images, as a single prediction must
    neighbours       how many training images are near a test image, which the fully-connected
                     network's theorem counts on when it clips k*
    trainability     how long gradient descent takes on the convolutional K, and what of its
                     training K~ does

    python controls.py           # of all kernels in kernel_output/; two minutes
    python controls.py --standardisation   # that alone: half an hour of kernels; resumes
    python controls.py --help

The results are `{prefix}_baselines.nc` and so on.
"""

from runtime import streams

if __name__ == "__main__":
    streams.prepare_process()  # before the other imports: they take seconds

import argparse
import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import pairwise_distances
from threadpoolctl import threadpool_limits

import emulation
import training
from ntk import BadInput, fully_connected_ntk, theorem
from quantum import assumptions, classical, sequential
from quantum.sequential import Mask
from runtime import options, stored
from runtime.checkpoints import label_of, read_reference
from runtime.datasets import CannotBeHad, Images, Split, add_dataset_options, load_images
from runtime.kernels import KernelFile, SharedPairs, kernel_values
from runtime.linear_algebra import Array, Matrix
from runtime.results import ResultsFile, code_version, medians_over_images, quantity
from runtime.stored import StoredTrials
from runtime.trials import Classes, Network, Run, Trial, TrialFiles
from training import Approximation, KernelScale, Pattern, Prediction, TrialKernels

# --------------------------------------------------------------------------------------------------
# Constants
# --------------------------------------------------------------------------------------------------

ridge_penalties = np.logspace(-4, 2, 13)  # the one with the least leave-one-out error is taken
percentiles = (0, 50, 75, training.percentile, 95, 99)  # of |K| inside a class
boosts = (0, 0.25, 0.5, 1, 1.5, 2, 3)  # times what the original adds to the diagonal
densities = (0.25, 0.5, 1, 2, 4)  # times the original's p = min(2 ln(n)/n, 1)
radii = [1e-5, 0.02, 0.05, 0.1, 0.2, 0.3]  # 1 - x*.x_i of what counts as a neighbour

# Trials whose test images are standardised by the training images: of kernels that take hours these
# many of a size, in this precision.
standardised_trials = {16: 4, 32: 4, 64: 4, 128: 4}
standardised_precision = "float32"


class Setting(NamedTuple):
    """The constants of a K~ that were set by hand."""

    percentile: float
    boost: float
    density: float

    @property
    def label(self) -> str:
        """Its name in the results."""
        return f"{self.percentile:g} {self.boost:g} {self.density:g}"


papers_setting = Setting(training.percentile, 1, 1)


def planes_of_settings() -> list[Setting]:
    """All combinations of two constants, the third one as in the paper: three planes."""
    planes = []
    for values in itertools.product(percentiles, boosts, densities):
        setting = Setting(*values)
        is_papers = np.equal(setting, papers_setting)
        if is_papers.any():
            planes.append(setting)
    return planes


settings = planes_of_settings()

# --------------------------------------------------------------------------------------------------
# Baselines: would anything do as well?
# --------------------------------------------------------------------------------------------------


def nearest_mean(x: Array, y: NDArray, z: Array) -> Array:
    """Output |z - m-|^2 - |z - m+|^2 of the nearest class mean.

    x [n, d] and y [n]: to learn from; z [x, d]. -> [x]
    """
    distance = {}
    for label in (-1, 1):
        mean = x[y == label].mean(axis=0, keepdims=True)
        distance[label] = pairwise_distances(z, mean)[:, 0]
    return distance[-1] ** 2 - distance[1] ** 2


def nearest_neighbour(x: Array, y: NDArray, z: Array) -> Array:
    """Distance to the nearest image of class -1 minus that to the nearest one of +1. -> [x]"""
    distance = {label: pairwise_distances(z, x[y == label]).min(axis=1) for label in (-1, 1)}
    return distance[-1] - distance[1]


def ridge_regression(x: Array, y: NDArray, z: Array) -> Array:
    """Output of a linear function of the pixels, its penalty by leave-one-out error. -> [x]"""
    return RidgeClassifierCV(alphas=ridge_penalties).fit(x, y).decision_function(z)


def ink(x: Array, y: NDArray, z: Array) -> Array:
    """Nearest class mean of one number, the sum of the pixels. -> [x]"""
    return nearest_mean(x.sum(axis=1, keepdims=True), y, z.sum(axis=1, keepdims=True))


BASELINES = {  # their axes, and what they are
    "accuracy": (("classifier", "threshold"), "share of test images classified rightly"),
    "agreement": (
        ("threshold",),
        "share of test images that get the same class from kernel mean and diagonal",
    ),
    "clipped_share": ((), "share of the entries of k*/k_thresh at 1 or -1"),
    "diagonal_spread": ((), "largest over smallest K_ii, minus 1"),
}
OF_RIVALS: dict[str, tuple[tuple[str, ...], str]] = {  # the same
    "rival_accuracy": (
        ("rival",),
        "accuracy outside the calibration half, parameter and threshold chosen on that half",
    ),
    "rival_parameter": (
        ("rival",),
        "what is added to the diagonal over its mean (ridge), time in units of one over K's "
        "largest eigenvalue (gradient flow), number of neighbours",
    ),
}
Rivals = dict[str, tuple[list[Array], list[float]]]  # outputs [parameters, x], and parameters
ENLARGED = "exact, enlarged diagonal"  # all of K, its diagonal enlarged as K~'s is
FIXED = list(training.divisors).index("fixed constant")

pixel_classifiers = {
    "ink": ink,
    "nearest mean": nearest_mean,
    "nearest neighbour": nearest_neighbour,
    "ridge": ridge_regression,
}


def flat_images(run: Run, kernels: TrialKernels) -> tuple[Array, Array]:
    """A trial's training and test images as rows of pixels, [n, d] and [x, d].

    Raises BadInput where there are not as many as in the kernels.
    """
    images = training.trial_images(run, kernels.trial)
    x, n = kernels.test.shape
    if len(images.train) != n or len(images.test) != x:
        what = f"these images can't fill the trials of n = {n} there"
        raise BadInput("output", run.output, f"{what}; use the images that they were made of")
    return images.train.reshape(n, -1), images.test.reshape(x, -1)


def kernel_outputs(kernels: TrialKernels) -> dict[str, Array]:
    """Outputs [x] of the exact NTK, the diagonal approximation and the class mean of the kernel.

    The class mean is sum_i y_i k*_i. The diagonal approximation is that with y_i/K_ii for y_i and
    k* clipped. "exact" is NaN where only some entries of K are known.
    """
    outputs = {}
    for approximation in training.approximations:
        if not approximation.random:
            outputs[approximation.name] = np.full(len(kernels.test), np.nan)
            if kernels.is_whole or not approximation.needs_all:
                prediction = training.predict(approximation, kernels, None)
                outputs[approximation.name] = prediction.outputs
    return outputs | {"kernel mean": kernels.test @ kernels.train_label}


def levels_of(outputs: Array) -> dict[str, float]:
    """The thresholds of outputs [x], by name."""
    return {name: float(t(outputs)) for name, t in training.decision_thresholds.items()}


def accuracies(outputs: Array, label: NDArray) -> list[float]:
    """Accuracy of outputs [x], by threshold."""
    return [training.accuracy(outputs, label, level) for level in levels_of(outputs).values()]


def agreements(first: Array, second: Array) -> list[float]:
    """Share of the test images that get the same class from both outputs [x], by threshold."""
    levels = levels_of(second)
    shares = []
    for threshold, level in levels_of(first).items():
        same = (first > level) == (second > levels[threshold])
        shares.append(float(np.mean(same)))
    return shares


def enlargement_of(trial: Trial) -> float:
    """What K~ adds to its diagonal, over it; 0 where the network's K~ adds nothing."""
    factor, power = trial.network.constants.get("diagonal_boost", (0, 1))
    return factor * np.log(trial.size) ** power


def rivals_of(kernels: TrialKernels, seed: int) -> Rivals:
    """What is as cheap as K~, by name: its outputs [parameters, x], of each pattern where it is
    random, and its parameters.

    All of them are weights or neighbours that are found once, and 2n operations a prediction.
    """
    rivals: Rivals = {}
    for name, predictions in predictions_of(kernels, seed).items():
        rivals[name] = [prediction.outputs[None] for prediction in predictions], [np.nan]
    if isinstance(kernels.train, np.ndarray):
        of_kernel = kernels.train, kernels.test, kernels.train_label
        boost = enlargement_of(kernels.trial)
        if boost:
            rivals[ENLARGED] = [classical.ridge(*of_kernel, np.array([boost]))], [boost]
        for name, (compute, parameters) in classical.RIVALS.items():
            rivals[name] = [compute(*of_kernel, parameters)], list(parameters)
    return rivals


def predictions_of(kernels: TrialKernels, seed: int) -> dict[str, list[Prediction]]:
    """Predictions by approximation, of each pattern where it is random."""
    patterns: list[Pattern] = emulation.original_patterns(kernels.trial, seed)
    predictions = {}
    for approximation in training.approximations:
        if kernels.is_whole or not approximation.needs_all:
            chosen = patterns if approximation.random else [None]
            of_each = [training.predict(approximation, kernels, each) for each in chosen]
            predictions[approximation.name] = of_each
    return predictions


def rival_values(kernels: TrialKernels, seed: int) -> xr.Dataset:
    """Accuracies and parameters of `rivals_of`, chosen on the calibration half [x]."""
    known = kernels.test_label, calibration_of(kernels, seed)
    best = {}
    for name, (outputs, parameters) in rivals_of(kernels, seed).items():
        chosen = [classical.best_parameter(by_parameter, *known) for by_parameter in outputs]
        best[name] = np.mean(chosen, axis=0)[2], parameters[chosen[0][0]]
    accuracies, parameters = np.transpose(list(best.values()))
    values = {"rival_accuracy": accuracies, "rival_parameter": parameters}
    return described(OF_RIVALS, values, {"rival": list(best)})


def baseline_record(run: Run, kernels: TrialKernels) -> xr.Dataset:
    """One trial's accuracies by classifier and threshold, and how alike two of them are.

    And what else can be made of K as cheaply as K~'s weights.
    """
    x, z = flat_images(run, kernels)
    outputs = kernel_outputs(kernels)
    for name, classify in pixel_classifiers.items():
        outputs[name] = classify(x, kernels.train_label, z)
    entries = kernels.train.diagonal()
    values = {
        "accuracy": [accuracies(output, kernels.test_label) for output in outputs.values()],
        "agreement": agreements(outputs["kernel mean"], outputs["diagonal"]),
        "clipped_share": training.clipped_shares(kernels)[FIXED],
        "diagonal_spread": entries.max() / entries.min() - 1,
    }
    labels = {"classifier": list(outputs), "threshold": list(training.decision_thresholds)}
    return described(BASELINES, values, labels).merge(rival_values(kernels, run.seed))


def calibration_of(kernels: TrialKernels, seed: int) -> Mask:
    """Emulation.py's calibration half of a trial's test images. [x]"""
    random = emulation.random_of(kernels.trial, seed)
    return sequential.calibration_half(kernels.test_label, random("calibration"))


# --------------------------------------------------------------------------------------------------
# Sensitivity: would other constants do as well?
# --------------------------------------------------------------------------------------------------

CONSTANTS = {
    "percentile": "percentile of |K| inside a class, below which entries are dropped",
    "boost": "what is added to the diagonal, over what the paper adds",
    "density": "expected entries of a pattern, over the paper's",
}
QUANTITIES = [  # of training.py's, of every setting
    "accuracy",
    "condition_number",
    "positive_definite",
    "readout_measurements",
    "sparsity",
]


def has_settings(network: Network) -> bool:
    """Whether a network's K~ depends on the constants of a `Setting`."""
    return "percentile" in network.constants


def constants_of_settings() -> xr.Dataset:
    """The constants that the settings' labels stand for."""
    columns = np.array(settings).T
    record = xr.Dataset(coords={"setting": [setting.label for setting in settings]})
    for column, name in zip(columns, Setting._fields, strict=True):
        record[name] = quantity(("setting",), column, CONSTANTS[name])
    return record


def with_constants(setting: Setting, reference: Array) -> Approximation:
    """The sparsified approximation by other constants.

    reference: the kernel that decides the thresholds, as in training.py. The density is that of the
    patterns.
    """
    factor, power = training.diagonal_boost
    boost = setting.boost * factor, power
    by_convention = {}
    for convention in training.conventions:
        is_original = convention == "original"
        limits = training.class_thresholds(reference, setting.percentile, zeros=is_original)
        by_convention[convention] = limits

    def make(kernels: TrialKernels, pattern: Pattern | None) -> Matrix:
        assert pattern is not None
        thresholds = KernelScale(kernels.scale.k_thresh, by_convention)
        return training.keep_large_entries(kernels.train, pattern, thresholds, boost)

    return Approximation("sparsified", make, random=True)


def setting_values(
    seed: int, kernels: TrialKernels, reference: Array, setting: Setting
) -> dict[str, list]:
    """The `QUANTITIES` of K~ by one setting, each of all patterns.

    The generators of a trial's patterns are the same for all settings: at the paper's point the
    patterns are those of `{prefix}_results.nc`.
    """
    approximation = with_constants(setting, reference)
    values: dict[str, list] = {name: [] for name in QUANTITIES}
    for pattern in training.trial_patterns(seed, kernels.trial, density=setting.density):
        prediction = training.predict(approximation, kernels, pattern)
        for name in QUANTITIES:
            values[name].append(training.prediction_quantities[name].compute(prediction))
    return values


def sparsified_record(seed: int, kernels: TrialKernels, reference: Array) -> xr.Dataset:
    """The quantities of K~ by setting, convention and pattern."""
    compute = functools.partial(setting_values, seed, kernels, reference)
    # Many small matrices: a thread for each core, and none inside LAPACK.
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        by_setting = list(pool.map(compute, settings))
    record = xr.Dataset(coords={"setting": [setting.label for setting in settings]})
    patterns = len(training.conventions), training.original_patterns
    for name in QUANTITIES:
        described = training.prediction_quantities[name]
        values = np.array([of_setting[name] for of_setting in by_setting], float)
        values = values.reshape(len(settings), *patterns, *values.shape[2:])
        axes = ("setting", "convention", "pattern", *described.axes)
        record[name] = quantity(axes, values, described.long_name, described.units)
    return record


def sensitivity_record(seed: int, kernels: TrialKernels, reference: Array) -> xr.Dataset:
    """One trial by setting, and the other approximations beside it; medians over test images."""
    records = []
    for approximation in training.approximations:
        if approximation.random:
            record = sparsified_record(seed, kernels, reference)
        else:
            record = training.approximation_record(approximation, kernels, [])[QUANTITIES]
        records.append(medians_over_images(record))
    names = [approximation.name for approximation in training.approximations]
    record = xr.concat(records, xr.Variable("approximation", names), combine_attrs="override")
    numbers = range(training.original_patterns)
    record = record.assign_coords(convention=list(training.conventions), pattern=numbers)
    return record.transpose("setting", "approximation", "convention", "pattern", ...)


# --------------------------------------------------------------------------------------------------
# Neighbours: may k* be clipped?
# --------------------------------------------------------------------------------------------------

NEIGHBOURS = {  # their axes, and what they are
    "separability": ((), "delta = min 1 - |x_i . x_j|"),
    "test_images": ((), "number of test images"),
    "closest_distance": ((), "least 1 - x*.x_i of all test images and training images"),
    "median_distance": ((), "median over the test images of the least 1 - x*.x_i"),
    "with_neighbour": (("radius",), "share of test images with a training image that near"),
    "size": (("radius",), "share of the training images that are that near, mean of test images"),
    "purity": (("radius",), "share of those that have the test image's label"),
    "kernel_at_radius": (("radius",), "NTK of two images that far apart, over k_thresh"),
}


def kernel_at(radius: float, depth: int) -> float:
    """The fully-connected NTK of two images of unit norm with x.x' = 1 - radius."""
    cosine = 1 - radius
    pair = np.zeros((2, 28 * 28))
    pair[0, 0] = 1
    pair[1, :2] = cosine, np.sqrt((1 - cosine) * (1 + cosine))
    return fully_connected_ntk(pair[:1], pair[1:], depth=depth)[0, 0]


def neighbour_record(run: Run, trial: Trial) -> xr.Dataset:
    """One trial's neighbourhoods by radius, among all test images of its classes."""
    images = training.trial_images(run, trial)
    train, test = images.train, images.test
    distances = theorem.closest_distances(train, test)
    delta = training.separability(train)
    depth = trial.network.depth(trial.size, delta, None)
    k_thresh = trial.network.kernel_scale(depth, None).k_thresh
    values: dict[str, Any] = {
        "separability": delta,
        "test_images": len(test),
        "closest_distance": distances.min(),
        "median_distance": np.median(distances),
        "kernel_at_radius": [kernel_at(radius, depth) / k_thresh for radius in radii],
    }
    for radius in radii:
        labelled = images.train_label, test, images.test_label
        for name, value in theorem.neighbourhoods(train, *labelled, radius).items():
            values.setdefault(name, []).append(value)
    return described(NEIGHBOURS, values, {"radius": radii})


def described(
    quantities: dict[str, tuple[tuple[str, ...], str]],
    values: dict[str, Any],
    labels: dict[str, Any],
) -> xr.Dataset:
    """A record of these values, with the axes' labels; quantities: their axes, what they are."""
    record = xr.Dataset(coords=labels)
    for name, (axes, long_name) in quantities.items():
        record[name] = quantity(axes, values[name], long_name)
    return record


def largest_size(split: Split, classes: Classes) -> int:
    """How many images of two classes can be drawn, half of each."""
    return 2 * int(min(np.count_nonzero(split.label == label) for label in classes))


def plan_and_all(network: Network, classes: Classes, largest: int) -> list[Trial]:
    """The plan's trials, and one of all training images there are."""
    counts = dict(zip(training.data_sizes, training.trials, strict=True))
    trials = []
    for size, count in (counts | {largest: 1}).items():
        if size <= largest:
            trials += [Trial(network, classes, size, number) for number in range(count)]
    return trials


def run_neighbours(args: argparse.Namespace, network: Network, images: Images) -> None:
    """Neighbourhoods in training sets of every size."""
    classes: Classes = tuple(args.classes or training.selections[network.name])
    trials = plan_and_all(network, classes, largest_size(images.train, classes))
    test_size = largest_size(images.test, classes)
    run = Run(args.seed, test_size, args.output, "numba", "float64", images)
    code = {"code": xr.DataArray(code_version(Path(__file__), Path(training.__file__)))}
    path = run.output / f"{run.prefix(network)}{trials[0].variant}_neighbours.nc"
    print(f"{path.stem}: {len(trials)} trials")
    with ResultsFile(path, run.origin(network, classes)) as results:
        for trial in trials:
            key = {"n": trial.size, "trial": trial.number}
            if not results.holds(key, code):
                results.keep(key, neighbour_record(run, trial).assign(code))


# --------------------------------------------------------------------------------------------------
# Trainability: what does K~ do of the network's training?
# --------------------------------------------------------------------------------------------------

TRAINABILITY = {  # their axes, and what they are
    "condition_number": ((), "condition number of K"),
    "second_condition_number": ((), "second largest over smallest eigenvalue of K"),
    "descent_steps": ((), "steps of gradient descent on K to 1 % of the residual"),
    "cosine": (("pattern",), "cosine of the angle between K~^-1 y and K^-1 y"),
    "trained_correlation": (("pattern",), "correlation of the outputs of K~ and K"),
    "stopping_time": (
        ("pattern",),
        "time, over 1/lambda_max, when outputs of gradient flow on K are nearest to those of K~",
    ),
    "stopped_correlation": (("pattern",), "correlation of the outputs at that time"),
}


def descent_values(kernel: Array, y: NDArray) -> dict[str, Any]:
    """What the spectrum of K [n, n] and the classes y [n] say of gradient descent."""
    eigenvalues, components = theorem.spectrum(kernel, y)
    return {
        "condition_number": eigenvalues[-1] / eigenvalues[0],
        "second_condition_number": theorem.second_condition_number(eigenvalues),
        "descent_steps": theorem.gradient_descent_steps(eigenvalues, components),
    }


def beside_training(
    kernels: TrialKernels, trained: Prediction, sparse: Prediction
) -> dict[str, float]:
    """What K~ shares with the trained network, and with one that was stopped early."""
    about = kernels.train, kernels.test, kernels.train_label, sparse.outputs
    time, correlation = theorem.closest_stopping_time(*about)
    return {
        "cosine": theorem.cosine(sparse.weights, trained.weights),
        "trained_correlation": np.corrcoef(sparse.outputs, trained.outputs)[0, 1],
        "stopping_time": time,
        "stopped_correlation": correlation,
    }


def trainability_record(seed: int, kernels: TrialKernels) -> xr.Dataset:
    """One trial's gradient descent, and K~ of the original's patterns beside it."""
    assert isinstance(kernels.train, np.ndarray)
    exact, sparsified, _ = training.approximations
    trained = training.predict(exact, kernels, None)
    values = descent_values(kernels.train, kernels.train_label)
    for pattern in training.trial_patterns(seed, kernels.trial):
        if pattern.convention == "original":
            sparse = training.predict(sparsified, kernels, pattern)
            for name, value in beside_training(kernels, trained, sparse).items():
                values.setdefault(name, []).append(value)
    return described(TRAINABILITY, values, {"pattern": range(training.original_patterns)})


def run_trainability(trials: StoredTrials) -> None:
    """The trainability of all trials whose kernels are whole, merged into their results."""

    def compute(kernels: TrialKernels) -> xr.Dataset | None:
        return trainability_record(trials.seed, kernels) if kernels.is_whole else None

    run_trials(trials, "trainability", {}, [{}], compute)


# --------------------------------------------------------------------------------------------------
# Standardisation: test images as a single prediction sees them
# --------------------------------------------------------------------------------------------------

STANDARDS = ("test images", "training images")  # whose mean and deviation test images are given
OF_STANDARDS = {  # by `standard`
    "accuracy": (
        ("approximation", "threshold"),
        "share of the test images outside the calibration half that are classified rightly",
    ),
    "readout_measurements": (
        ("approximation", "threshold"),
        "measurements to read the sign of o - t: (1 - o^2)/(o - t)^2, median over the same images",
    ),
    "post_selection_measurements": (
        ("divisor",),
        "measurements until |k*> is prepared, median over the test images",
    ),
}


def is_standardised(kernels: TrialKernels) -> bool:
    """Whether a trial is one of those that `standardisation_record` is computed of."""
    trial = kernels.trial
    return trial.network.in_seconds or trial.number < standardised_trials.get(trial.size, 0)


def with_training_standard(run: Run, kernels: TrialKernels) -> TrialKernels:
    """The same trial with k* of test images that are standardised by the training images."""
    trial, count = kernels.trial, len(kernels.test_label) // 2
    split, classes = run.images, trial.classes
    train_rng, test_rng = trial.random(run.seed, "train"), trial.random(run.seed, "test")
    train, _ = training.choose_images(split.train, classes, trial.size // 2, train_rng)
    test, _ = training.choose_images(split.test, classes, count, test_rng)
    test = training.standardised(test, train, classes)
    train = training.standardised(train, train, classes)
    if trial.network.in_seconds:
        flat = [each.reshape(len(each), -1) for each in (test, train)]
        return replace(kernels, test=fully_connected_ntk(*flat, depth=kernels.depth))
    return replace(kernels, test=kernel_by_pairs(run, kernels, train, test))


def kernel_by_pairs(run: Run, kernels: TrialKernels, train: Array, test: Array) -> Array:
    """K* [x, n] of images [n, h, w, 1] and [x, h, w, 1], read or computed and kept.

    What is computed stands in a journal, so that a run that was killed goes on.
    """
    folder = run.output / "standardised"
    folder.mkdir(exist_ok=True)
    run = replace(run, output=folder, precision=standardised_precision)
    files = TrialFiles(run, kernels.trial, kernels.depth)
    label = files.label() | {"test_size": len(test), "standard": "training images"}
    shape = len(test), len(train)
    described = KernelFile("kernel_test", label, shape, len(test) * len(train))
    print(f"{files.stem}: {described.pairs} pairs of images", flush=True)
    rows, columns = np.indices(shape).reshape(2, -1)
    pairs = SharedPairs(np.concatenate([train, test]), files)
    values = kernel_values(files, described, rows + len(train), columns, pairs, lambda _: None)
    return values.reshape(shape)


def at_levels(prediction: Prediction, calibration: Mask) -> Array:
    """Accuracy and median measurements outside the calibration half. [2, assumptions.LEVELS]

    The accuracies are of outputs, the readout of overlaps, as in training.py.
    """
    counted = ~calibration
    outputs, overlap = prediction.outputs, prediction.overlap
    label = prediction.test_label[counted]
    right, measurements = [], []
    for t in assumptions.levels(outputs, calibration):
        right.append(training.accuracy(outputs[counted], label, t))
    for t in assumptions.levels(overlap, calibration):
        measurements.append(np.median(training.readout_measurements(overlap[counted], t)))
    return np.array([right, measurements])


def standard_record(kernels: TrialKernels, seed: int) -> xr.Dataset:
    """The quantities `OF_STANDARDS` of one trial by one standard; means over patterns."""
    calibration = calibration_of(kernels, seed)
    means = {}
    for name, predictions in predictions_of(kernels, seed).items():
        by_pattern = [at_levels(prediction, calibration) for prediction in predictions]
        means[name] = np.mean(by_pattern, axis=0)
    by_approximation = np.array(list(means.values()))
    values = {
        "accuracy": by_approximation[:, 0],
        "readout_measurements": by_approximation[:, 1],
        "post_selection_measurements": np.median(training.post_selections(kernels), axis=1),
    }
    labels = {"threshold": list(assumptions.LEVELS), "divisor": list(training.divisors)}
    return described(OF_STANDARDS, values, labels | {"approximation": list(means)})


def standardisation_record(run: Run, kernels: TrialKernels) -> xr.Dataset | None:
    """One trial's quantities by standard; None of trials that take too long."""
    if not is_standardised(kernels):
        return None
    both = [kernels, with_training_standard(run, kernels)]
    records = [standard_record(each, run.seed) for each in both]
    return xr.concat(records, xr.Variable("standard", list(STANDARDS)))


# --------------------------------------------------------------------------------------------------
# Running: all kernels that are in the folder
# --------------------------------------------------------------------------------------------------


def run_with_images(
    trials: StoredTrials,
    what: str,
    images: Images,
    record_of: Callable[[Run, TrialKernels], xr.Dataset | None],
) -> None:
    """record_of(run, kernels) of all trials, merged into `{prefix}_{what}.nc`."""
    expected = trials.label["dataset_sha256"]
    if images.sha256 != expected:
        other = f"its kernels are of images of dataset_sha256 {expected}, not {images.sha256}"
        raise BadInput("output", trials.folder, f"{other}; name the images that they were made of")

    def compute(kernels: TrialKernels) -> xr.Dataset | None:
        test_size = len(kernels.test_label)
        run = Run(trials.seed, test_size, trials.folder, "numba", "float64", images)
        return record_of(run, kernels)

    run_trials(trials, what, {}, [{}], compute)


def run_sensitivity(trials: StoredTrials) -> None:
    """The sensitivity of all trials whose kernels are whole, merged into their results."""

    def compute(kernels: TrialKernels) -> xr.Dataset | None:
        trial = kernels.trial
        if not kernels.is_whole:
            what = f"no sensitivity at n = {trial.size}"
            print(f"note: {what}: other patterns would need entries that were not computed")
            return None
        size = trial.network.reference_size
        assert size is not None
        label = label_of(trials.kernel_test(trial.size, trial.number))
        reference = read_reference(trials.folder, trials.prefix, size, trials.seed, label)
        record = sensitivity_record(trials.seed, kernels, reference)
        return record.merge(constants_of_settings())

    places = [{"setting": setting.label} for setting in settings]
    own_origin = {"papers_setting": list(papers_setting)}
    run_trials(trials, "sensitivity", own_origin, places, compute)


def run_trials(
    trials: StoredTrials,
    what: str,
    own_origin: dict[str, Any],
    places: list[dict[str, Any]],
    compute: Callable[[TrialKernels], xr.Dataset | None],
) -> None:
    """Merge compute(kernels) of every trial into `{prefix}_{what}.nc`.

    places: of all settings in a trial's record. A trial that the results hold, of the same kernels
    and the same code, is not computed again.
    """
    path = trials.folder / f"{trials.prefix}_{what}.nc"
    code = code_version(Path(__file__), Path(training.__file__))
    origin = trials.origin | {"formulas": trials.label["formulas"]} | own_origin
    print(f"{trials.prefix}: {what} of {len(trials.all())} trials")
    with ResultsFile(path, origin) as results:
        for size, number in trials.all():
            kernels = training.stored_kernels(
                trials.folder, trials.prefix, size, number, trials.seed
            )
            key: dict[str, Any] = {"n": size, "trial": number}
            inputs = stored.inputs_of(stored.fingerprint(kernels.train, kernels.test), code)
            if all(results.holds(key | place, inputs) for place in places):
                continue
            record = compute(kernels)
            if record is not None:
                about = stored.provenance(trials.kernel_test(size, number)) | inputs
                keep(results, key, record, about)
    if not results.computed_now:
        print(f"{path} has all of these trials")


def keep(
    results: ResultsFile, key: dict[str, Any], record: xr.Dataset, about: dict[str, xr.DataArray]
) -> None:
    """Keep a trial's record, and for each of its settings what it is about."""
    for name, value in about.items():
        if "setting" in record.dims:
            value = value.expand_dims(setting=record.setting.values)
        record[name] = value
    constants = [name for name in CONSTANTS if name in record]
    if constants:
        results.keep({}, record[constants])
    results.keep(key, record.drop_vars(constants))


# --------------------------------------------------------------------------------------------------
# Command line
# --------------------------------------------------------------------------------------------------


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked as far as it can be without images; errors end with status 2."""
    description = "Baselines, and sensitivity to the constants set by hand, of stored kernels."
    parser = options.Parser(description=description)
    options.checked_constants(parser, training.constants())
    stored.add_network_options(parser, training.selections, training.seed)
    add_dataset_options(parser, default="mnist")
    text = "test images standardised by the training images, in baselines' and sensitivity's place"
    parser.add_argument("--standardisation", action="store_true", help=text)
    parser.add_output(text="folder of training.py's kernels, to write to as well")
    args = stored.parse_arguments(parser, argv)
    remedy = "no such folder; name that of training.py"
    parser.check(args.output.is_dir(), "output", args.output, remedy)
    return args


def images_or_note(args: argparse.Namespace) -> Images | None:
    """The images, or None, with a line that says so, where they can't be had."""
    try:
        return load_images(args.dataset, args.data_dir, args.mnist_dir)
    except CannotBeHad as error:
        what = "standardisation" if args.standardisation else "baselines"
        print(f"note: no {what}, which need the images: {error.remedy}")
        return None


def controls(args: argparse.Namespace) -> None:
    """Everything that the command line asks for."""
    images = images_or_note(args)
    networks = training.make_networks()
    for name in args.networks:
        network = networks[name]
        if images and network.flat and not args.standardisation:
            run_neighbours(args, network, images)
        classes = args.classes or training.selections[name]
        trials = stored.stored_trials(args.output, args.dataset, network, classes, args.seed)
        if trials is None:
            what = f"no kernels of the {name} network in {args.output}/"
            print(f"note: {what}; training.py makes them")
            continue
        trials.say_note()
        if args.standardisation:
            if images:
                run_with_images(trials, "standardisation", images, standardisation_record)
            continue
        if images:
            run_with_images(trials, "baselines", images, baseline_record)
        if has_settings(network):
            run_sensitivity(trials)
            run_trainability(trials)


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status, 2 after one line about a bad input."""
    args = parse_arguments(argv)
    return options.with_folder(args.output, lambda: controls(args))


if __name__ == "__main__":
    streams.run_script(main)
