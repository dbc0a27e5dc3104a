"""Does a network that one can build have this kernel?

The NTK is the limit of infinite width. Here are networks of the paper's kind with 128 to 4096
neurons a layer, random and trained, beside that limit, on the images of training.py's trials:

    infinite        kernel regression with the NTK of infinite width, as in training.py
    infinite_plain  one infinitely wide network, trained: it keeps a part of its random initial
                    outputs
    finite          kernel regression with the NTK of one random network of finite width
    finite_plain    the same, with that network's initial outputs
    trained         that network, trained by gradient descent, its initial outputs subtracted
    trained_plain   the same, its initial outputs left in

    python finite_width.py          # both networks
    python finite_width.py --help

A run that was stopped goes on, draw by draw. The results are `{prefix}_finite_width.nc`, an xarray
Dataset whose axes are named; NaN where a network was not trained.
"""

from runtime import streams

if __name__ == "__main__":
    streams.prepare_process()  # before the other imports: they take seconds

import argparse
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

import training
from ntk import BadInput, convolutional_ntk, finite, fully_connected_ntk
from ntk.theorem import norm, normalised_off_diagonal
from runtime import options
from runtime.datasets import add_dataset_options, load_images
from runtime.linear_algebra import Array
from runtime.results import UNUSABLE, ResultsFile, foreign_explained
from runtime.trials import Classes, Network, Run, Trial

# --------------------------------------------------------------------------------------------------
# Constants
# --------------------------------------------------------------------------------------------------

draws = 5  # trials: other images and another random network each
# Training images; depth in units of L_conv, or convolutions; neurons of a layer, or channels.
data_sizes: dict[str, list[int]] = {"fully-connected": [16, 64], "convolutional": [16]}
depths: dict[str, list[float]] = {
    "fully-connected": [0.01, 0.02, 0.05, 0.1],
    "convolutional": [6],
}
widths = {
    "fully-connected": [128, 256, 512, 1024, 2048, 4096],
    "convolutional": [64, 128, 256],
}
largest_width = {16: 4096, 64: 2048}  # by number of training images, so that all takes ten minutes
test_size = {"fully-connected": 256, "convolutional": 64}

# Of these networks some are trained, until the residual is 1 % of its start.
trained_size = 16
trained_depths = [0.01, 0.05, 0.1]
trained_widths = [128, 512, 2048]
trained_draws = 3

predictors = [
    "infinite", "infinite_plain", "finite", "finite_plain", "trained", "trained_plain"
]  # fmt: skip
thresholds = ["median", "zero"]

DESCRIPTIONS = {  # long name, unit
    "depth": ("depth of the fully-connected network over L_conv; convolutions of the other", "1"),
    "width": ("neurons of a hidden layer, or channels", "1"),
    "n": ("training images", "1"),
    "draw": ("trial: its images and its random network", "1"),
    "layers": ("hidden layers, or convolutions", "1"),
    "image": ("test image of its trial", "1"),
    "accuracy": ("share of test images classified rightly", "1"),
    "correlation": ("correlation of outputs with those of the infinite NTK", "1"),
    "outputs": ("outputs of the test images", "1"),
    "label": ("class of the test images", "1"),
    "off_diagonal_size": ("root mean square of K_ij/sqrt(K_ii K_jj), infinite width", "1"),
    "off_diagonal_error": ("root mean square of its difference from that of finite width", "1"),
    "kernel_test_size": ("root mean square of k* over the mean of K_ii, infinite width", "1"),
    "kernel_test_error": ("root mean square of its difference from that of finite width", "1"),
    "diagonal_ratio": ("mean of K_ii, finite over infinite width", "1"),
    "diagonal_spread": ("standard deviation over mean of K_ii, finite width", "1"),
    "condition_number_infinite": ("condition number of K, infinite width", "1"),
    "condition_number": ("condition number of K, finite width", "1"),
    "initial_noise": ("variance of an infinitely wide network's random part over the rest", "1"),
    "steps": ("steps of gradient descent to 1 % of the residual; -1: not reached", "1"),
    "rate": ("step size times the largest eigenvalue of the empirical NTK", "1"),
    "kernel_change": ("relative change of the empirical NTK by training, Frobenius norm", "1"),
}

# --------------------------------------------------------------------------------------------------
# One trial: images, the infinite network, and random networks of each width
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A trial's images, its labels, and its NTK of infinite width."""

    trial: Trial
    x: Array  # the training images before the test images
    y: NDArray  # of the training images
    test_label: NDArray
    layers: int
    kernel: Array  # [n, n]
    kernel_test: Array  # [x, n]
    outputs: Array  # of the test images, [x]


def load_problem(run: Run, network: Network, size: int, depth: float, draw: int) -> Problem:
    """The trial of training.py of that number, at that depth."""
    trial = Trial(network, chosen_classes(network), size, draw, depth)
    images = training.trial_images(run, trial)
    train, test = images.train, images.test
    layers = network.depth(size, training.separability(train), depth)
    ntk = fully_connected_ntk if network.flat else convolutional_ntk
    kernel, kernel_test = ntk(train, depth=layers), ntk(test, train, depth=layers)
    return Problem(
        trial=trial,
        x=np.concatenate([train, test]),
        y=images.train_label.astype(float),
        test_label=images.test_label,
        layers=layers,
        kernel=kernel,
        kernel_test=kernel_test,
        outputs=regression(kernel, kernel_test, images.train_label),
    )


def chosen_classes(network: Network) -> Classes:
    """The two classes that training.py tells apart by this network."""
    first, second = training.selections[network.name]
    return first, second


def regression(kernel: Array, kernel_test: Array, target: NDArray) -> Array:
    """k*^T K^-1 target of every test image [x]."""
    return kernel_test @ np.linalg.solve(kernel, target)


def plain_regression(kernel: Array, kernel_test: Array, y: NDArray, initial: Array) -> Array:
    """What a linear network ends at that starts from outputs `initial` [n + x].

    f(x*) = f0(x*) + k*^T K^-1 (y - f0) (Lee et al., arXiv:1902.06720).
    """
    n = len(y)
    return initial[n:] + regression(kernel, kernel_test, y - initial[:n])


def infinite_plain(problem: Problem, rng: np.random.Generator) -> Array:
    """Outputs of one infinitely wide network after training, of the fully-connected kind [x]."""
    covariance = finite.initial_covariance(problem.x, problem.layers)
    initial = rng.multivariate_normal(np.zeros(len(covariance)), covariance, method="eigh")
    return plain_regression(problem.kernel, problem.kernel_test, problem.y, initial)


def initial_noise(problem: Problem) -> float:
    """What one infinitely wide network keeps of its random initial outputs, over k*^T K^-1 y.

    Both as variances over the test images, the first one expected: f0(x*) - k*^T K^-1 f0 is left
    of normal initial outputs f0. The mean outputs of m networks have 1/m of it.
    """
    n, x = len(problem.y), len(problem.outputs)
    covariance = finite.initial_covariance(problem.x, problem.layers)
    left = np.hstack([-np.linalg.solve(problem.kernel, problem.kernel_test.T).T, np.eye(x)])
    assert left.shape == (x, n + x)
    left_over = left @ covariance @ left.T
    return (np.diag(left_over).mean() - left_over.mean()) / problem.outputs.var()


@dataclass(frozen=True)
class RandomNetwork:
    """A random network: its weights, its empirical NTK, and its outputs before training."""

    weights: list[Any]
    kernel: Array  # [n, n]
    kernel_test: Array  # [x, n]
    initial: Array  # [n + x], training images first


def random_network(problem: Problem, width: int, rng: np.random.Generator) -> RandomNetwork:
    """A network of that width. Raises BadInput where its NTK is singular."""
    n = len(problem.y)
    is_flat = problem.trial.network.flat
    if is_flat:
        weights = finite.draw_weights(problem.x.shape[1], width, problem.layers, rng)
        kernels, initial = finite.empirical_ntk(weights, problem.x, n)
    else:
        weights = finite.draw_convolutional_weights(width, problem.layers, rng)
        kernels, initial = finite.empirical_convolutional_ntk(weights, problem.x, n)
    if np.linalg.matrix_rank(kernels[:n]) < n:
        argument = "widths" if is_flat else "channels"
        remedy = "the NTK of so narrow a network is singular; use a larger number"
        raise BadInput(argument, width, remedy)
    return RandomNetwork(weights, kernels[:n], kernels[n:], initial)


def width_record(run: Run, problem: Problem, width: int, with_training: bool) -> xr.Dataset:
    """What one random network of this width shows, without the axes of the trial."""
    trial, y = problem.trial, problem.y
    rng = trial.random(run.seed, f"network of width {width}, depth {trial.depth_setting}")
    network = random_network(problem, width, rng)
    kernels = network.kernel, network.kernel_test
    outputs = {
        "infinite": problem.outputs,
        "finite": regression(*kernels, y),
        "finite_plain": plain_regression(*kernels, y, network.initial),
    }
    record = kernel_quantities(problem, *kernels)
    if trial.network.flat:
        outputs["infinite_plain"] = infinite_plain(problem, rng)
    if with_training:
        outputs["trained"], cost = train_network(problem, network, network.initial)
        no_offset = np.zeros_like(network.initial)
        outputs["trained_plain"], cost_plain = train_network(problem, network, no_offset)
        for quantity in cost:
            record[f"{quantity}_trained"] = cost[quantity]
            record[f"{quantity}_trained_plain"] = cost_plain[quantity]
    return xr.Dataset(record).merge(output_quantities(problem, outputs))


def trial_record(problem: Problem) -> xr.Dataset:
    """What belongs to a trial's images and to infinite width."""
    is_flat = problem.trial.network.flat
    off_diagonal = ~np.eye(len(problem.kernel), dtype=bool)
    entries = normalised_off_diagonal(problem.kernel)[off_diagonal]
    kernel_test = problem.kernel_test / np.diag(problem.kernel).mean()
    return xr.Dataset(
        {
            "layers": problem.layers,
            "off_diagonal_size": root_mean_square(entries),
            "kernel_test_size": root_mean_square(kernel_test),
            "condition_number_infinite": np.linalg.cond(problem.kernel),
            "initial_noise": initial_noise(problem) if is_flat else np.nan,
            "label": ("image", problem.test_label),
        },
        coords={"image": range(len(problem.test_label))},
    )


def kernel_quantities(problem: Problem, kernel: Array, kernel_test: Array) -> dict[str, float]:
    """How far an empirical NTK [n, n], [x, n] is from the infinite one.

    The kernel of a finite network may be larger or smaller as a whole, which regression does not
    notice: so each is taken in units of its own diagonal.
    """
    off_diagonal = ~np.eye(len(kernel), dtype=bool)
    difference = normalised_off_diagonal(kernel) - normalised_off_diagonal(problem.kernel)
    scale, scale_found = np.diag(problem.kernel).mean(), np.diag(kernel).mean()
    difference_test = kernel_test / scale_found - problem.kernel_test / scale
    return {
        "off_diagonal_error": root_mean_square(difference[off_diagonal]),
        "kernel_test_error": root_mean_square(difference_test),
        "diagonal_ratio": scale_found / scale,
        "diagonal_spread": np.diag(kernel).std() / scale_found,
        "condition_number": np.linalg.cond(kernel),
    }


def train_network(
    problem: Problem, network: RandomNetwork, offset: Array
) -> tuple[Array, dict[str, float]]:
    """Train f - offset on y. Returns its outputs of the test images, and what training took.

    offset [n + x]: the network's initial outputs, or zeros. The largest eigenvalue of the empirical
    NTK before training sets the rate.
    """
    n = len(problem.y)
    largest = np.linalg.eigvalsh(network.kernel)[-1]
    target = problem.y + offset[:n]
    trained, steps, rate = finite.train(network.weights, problem.x[:n], target, 1 / largest)
    after, final = finite.empirical_ntk(trained, problem.x, n)
    change = norm((after[:n] - network.kernel).ravel()) / norm(network.kernel.ravel())
    cost = {"steps": steps, "rate": rate * largest, "kernel_change": change}
    return final[n:] - offset[n:], cost


def output_quantities(problem: Problem, outputs: dict[str, Array]) -> xr.Dataset:
    """Accuracy and correlation of each predictor's outputs; NaN for one that is not there."""
    missing = np.full(len(problem.test_label), np.nan)
    values = np.array([outputs.get(name, missing) for name in predictors])
    accuracy, correlation = [], []
    for row in values:
        levels = np.median(row), 0
        accuracy.append([training.accuracy(row, problem.test_label, level) for level in levels])
        correlation.append(np.corrcoef(row, problem.outputs)[0, 1])
    rounded = values.astype(np.float32).astype(float)  # for a file of half the size
    return xr.Dataset(
        {
            "outputs": (("predictor", "image"), rounded),
            "accuracy": (("predictor", "threshold"), accuracy),
            "correlation": ("predictor", correlation),
        },
        coords={"predictor": predictors, "threshold": thresholds, "image": range(len(missing))},
    )


def root_mean_square(values: Array) -> float:
    """Of all entries."""
    return float(np.sqrt(np.mean(values**2)))


# --------------------------------------------------------------------------------------------------
# The results' file
# --------------------------------------------------------------------------------------------------


def describe(results: xr.Dataset) -> None:
    """Let every quantity and axis say what it is, and its unit."""
    for name in results.variables:
        known = str(name).removesuffix("_plain").removesuffix("_trained")
        if known in DESCRIPTIONS:
            long_name, units = DESCRIPTIONS[known]
            results[name].attrs.update(long_name=long_name, units=units)


def merged(record: xr.Dataset, results: xr.Dataset) -> xr.Dataset:
    """The results with a record, joined by their labels; NaN where neither has anything."""
    return record.combine_first(results).assign_attrs(results.attrs)


def is_known(results: xr.Dataset, quantity: str, **labels: Any) -> bool:
    """Whether the results have this quantity for these labels."""
    try:
        return bool(results[quantity].sel(labels).notnull())
    except UNUSABLE:
        return False


# --------------------------------------------------------------------------------------------------
# All networks of a kind
# --------------------------------------------------------------------------------------------------


def planned_trials(draws: int, network: str) -> list[dict[str, Any]]:
    """Labels of all trials; the first draws of all depths come before the others."""
    everything = itertools.product(range(draws), data_sizes[network], depths[network])
    return [{"n": size, "depth": depth, "draw": draw} for draw, size, depth in everything]


def is_trained(network: str, labels: dict[str, Any], width: int) -> bool:
    """Whether the plan trains this network."""
    return (
        network == "fully-connected"
        and labels["n"] == trained_size
        and labels["depth"] in trained_depths
        and labels["draw"] < trained_draws
        and width in trained_widths
    )


def missing_widths(
    results: xr.Dataset, network: str, widths: list[int], labels: dict[str, Any]
) -> list[tuple[int, bool]]:
    """(width, whether it is to be trained) of what the results lack of a trial."""
    missing = []
    for width in widths:
        if width > largest_width.get(labels["n"], np.inf):
            continue
        with_training = is_trained(network, labels, width)
        needed = "trained" if with_training else "finite"
        if not is_known(results, "correlation", predictor=needed, width=width, **labels):
            missing.append((width, with_training))
    return missing


def run_network(args: argparse.Namespace, run: Run, network: Network) -> None:
    """Compute what the results' file does not have yet, and print what all of it shows."""
    path = run.output / f"{run.prefix(network)}_finite_width.nc"
    name = network.name
    with ResultsFile(path, origin(run, network)) as file:
        for labels in tqdm(planned_trials(args.draws, name), desc=name, unit="trial"):
            missing = missing_widths(file.results, name, args.widths[name], labels)
            known = not network.flat or is_known(file.results, "initial_noise", **labels)
            if missing or not known:
                file.results = with_trial(file.results, run, network, labels, missing)
                describe(file.results)
                file.save()
    with foreign_explained(path):
        print_summary(path.name, file.results)


def origin(run: Run, network: Network) -> dict[str, Any]:
    """What all trials of a network's file have in common."""
    return run.origin(network, chosen_classes(network)) | {"test_size": run.test_size}


def with_trial(
    results: xr.Dataset,
    run: Run,
    network: Network,
    labels: dict[str, Any],
    missing: list[tuple[int, bool]],
) -> xr.Dataset:
    """The results, with what was missing of one trial."""
    problem = load_problem(run, network, labels["n"], labels["depth"], labels["draw"])
    record = trial_record(problem).assign_coords(labels).expand_dims(list(labels))
    results = merged(record, results)
    for width, with_training in missing:
        record = width_record(run, problem, width, with_training)
        record = record.assign_coords({**labels, "width": width})
        results = merged(record.expand_dims([*labels, "width"]), results)
    return results


def interval(values: Array) -> str:
    """Mean and half-width of its 95 % interval over draws, in words; a dash without any."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    half = scipy.stats.t.isf(0.025, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.3f} ± {half:.3f}"


def print_summary(name: str, results: xr.Dataset) -> None:
    """Correlations and accuracies against the width, and how the kernel's error falls with it."""
    for size, depth in itertools.product(results.n.values, results.depth.values):
        at_depth = results.sel(n=size, depth=depth)
        print(f"\n{name}: n = {size}, depth {depth:g} ({int(at_depth.layers.max())} layers)")
        print(f"{'':>22}  correlation with infinite  accuracy at t = 0")
        for width in at_depth.width.values:
            for predictor in results.predictor.values:
                print_predictor(at_depth, int(width), predictor)
        if len(results.width) > 1:
            print(extrapolation(at_depth))


def print_predictor(at_depth: xr.Dataset, width: int, predictor: str) -> None:
    """One line of the summary, if there is anything to say."""
    draws = at_depth.sel(width=width, predictor=predictor)
    if draws.correlation.notnull().any():
        correlation = interval(draws.correlation.values)
        accuracy = interval(draws.accuracy.sel(threshold="zero").values)
        print(f"{width:7} {predictor:14}  {correlation:25}  {accuracy}")


def extrapolation(at_depth: xr.Dataset) -> str:
    """The fit of c/sqrt(width) to the error of off-diagonal entries, and the width it leads to."""
    error = np.exp(np.log(at_depth.off_diagonal_error).mean("draw")).dropna("width")
    size = float(at_depth.off_diagonal_size.mean())
    constant, slope = finite.inverse_root_fit(error.width.values, error.values)
    width = finite.width_to_see(constant, size)
    return (
        f"error of off-diagonal entries {constant:.2f}/sqrt(width) (free exponent {slope:.2f}), "
        f"their size {size:.2g}: equal at a width of {width:.2g}, by extrapolation"
    )


# --------------------------------------------------------------------------------------------------
# Command line
# --------------------------------------------------------------------------------------------------


def check_constants(parser: options.Parser) -> None:
    """Complain about this script's constants, as about flags; errors end with status 2."""
    by_network: dict[str, Any] = {
        "data_sizes": data_sizes,
        "test_size": test_size,
        "depths": depths,
        "widths": widths,
    }
    for name, values in by_network.items():
        right = isinstance(values, dict) and values.keys() >= training.selections.keys()
        parser.check(right, f"the constant {name} =", values, "give each network its own")
    lists: dict[str, Any] = {"trained_depths": trained_depths, "trained_widths": trained_widths}
    for network in training.selections:
        for name in ("data_sizes", "test_size"):
            numbers = options.whole_numbers(parser, name, by_network[name][network])
            options.check_sizes(parser, f"the constant {name} =", numbers)
        lists |= {"depths": depths[network], "widths": widths[network]}
        for name, numbers in lists.items():
            right = isinstance(numbers, list) and all(map(options.is_number, numbers))
            parser.check(right, f"the constant {name} =", numbers, "use a list of numbers")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked as far as it can be without the data; errors end with status 2."""
    parser = options.Parser(description="Networks of finite width beside their NTK.")
    options.checked_constants(parser, training.constants())
    check_constants(parser)
    number, names = options.whole_number, list(training.selections)
    parser.add_options([
        ("--networks", dict(nargs="+", choices=names, default=names, metavar="NETWORK"),
         f"of {' '.join(names)}", names),
        ("--widths", dict(nargs="+", type=number, default=widths["fully-connected"], metavar="W"),
         "neurons of a hidden layer, fully connected", widths["fully-connected"]),
        ("--channels", dict(nargs="+", type=number, default=widths["convolutional"], metavar="C"),
         "of the convolutional network", widths["convolutional"]),
        ("--draws", dict(type=number, default=draws, metavar="D"),
         "random networks of each kind, each with images of its own", draws),
        ("--seed", dict(type=number, default=training.seed), "seed of every random draw",
         training.seed),
    ])  # fmt: skip
    add_dataset_options(parser, default="mnist")
    parser.add_output(text="folder to write to, and to go on from")
    args = parser.parse_args(argv)
    parser.check(args.draws >= 1, "draws", args.draws, "use 1 or more")
    parser.check(args.seed >= 0, "seed", args.seed, "use 0 or more")
    parser.check(min(args.widths) >= 1, "widths", args.widths, "use 1 or more")
    parser.check(min(args.channels) >= 1, "channels", args.channels, "use 1 or more")
    args.widths = {"fully-connected": args.widths, "convolutional": args.channels}
    return args


def finite_width(args: argparse.Namespace) -> None:
    """Everything that the command line asks for."""
    images = load_images(args.dataset, args.data_dir, args.mnist_dir)
    if images.dataset.note:
        print(images.dataset.note)
    networks = training.make_networks()
    for name in args.networks:
        run = Run(args.seed, test_size[name], args.output, "auto", "float64", images)
        run_network(args, run, networks[name])


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status, 2 after one line about a bad input."""
    args = parse_arguments(argv)
    return options.with_folder(args.output, lambda: finite_width(args))


if __name__ == "__main__":
    streams.run_script(main)
