"""The command line, and the frame around an experiment.

`launch` joins the processes, loads the images, holds the output folder, and turns every bad input
into one line that names the option, the value and the remedy.
"""

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ntk import ENGINES, FORMULAS, BadInput, choose_engine
from runtime.datasets import (
    MNIST,
    Dataset,
    add_classes_option,
    add_dataset_options,
    find_dataset,
    list_classes,
    load_images,
    parse_classes,
)
from runtime.files import default_output, folder_path, locked
from runtime.processes import (
    check_agreement,
    is_leader,
    join_processes,
    process_count,
    run_again,
    share,
)
from runtime.sitting import describe_device
from runtime.streams import program
from runtime.trials import Run

MOST_TRIALS = 100_000  # of one size; planning more would take minutes without a word
LARGEST_SEED = 2**63
SCRIPTS_FOLDER = Path(__file__).resolve().parent.parent


# --------------------------------------------------------------------------------------------------
# The command line
# --------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """One that complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Leave with status 2 after that line."""
        line = " ".join(message.removeprefix("argument ").split())
        self.exit(2, f"{program()}: error: {line}; see --help\n")

    def check(self, is_right: bool, option: str, values: Any, remedy: str) -> None:
        """Complain about the values of an option, or of a constant, unless they are right."""
        if not is_right:
            name = option if option.startswith("the constant") else f"--{option}"
            self.error(f"{name} {in_short(values)}: {remedy}")

    def add_options(self, options: Iterable[tuple[str, dict[str, Any], str, Any]]) -> None:
        """Add (flag, how, help text, default in words)."""
        for flag, how, text, default in options:
            words = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else default
            self.add_argument(flag, **how, help=f"{text} (default: {words})")

    def add_output(
        self, flag: str = "--output", text: str = "folder to write to, and to go on from"
    ) -> None:
        """Add an option for a folder, by default kernel_output beside the scripts."""
        default = default_output(SCRIPTS_FOLDER / program())
        self.add_argument(
            flag, type=folder, default=default, metavar="DIR", help=f"{text} (default: {default})"
        )


def in_short(values: Any) -> str:
    """Values as they were given, if they are not too many or too long to be read."""
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    words = " ".join(map(str, listed)) if isinstance(listed, (list, tuple)) else str(listed)
    return words if len(words) <= 200 else f"{words[:197]}..."


def whole_number(text: str) -> int:
    """An int from the command line."""
    try:
        if len(text) > 20:
            raise ValueError
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{in_short(text)}: use whole numbers of up to 20 digits"
        ) from None


def folder(text: str) -> Path:
    """A folder from the command line."""
    try:
        return folder_path(text)
    except BadInput as error:
        raise argparse.ArgumentTypeError(f"{error.value}: {error.remedy}") from None


@dataclass(frozen=True)
class Constants:
    """Those of training.py's constants that flags override, or that are checked as flags are."""

    seed: int
    test_size: int
    data_sizes: Any
    trials: Any
    trials_without_accelerator: dict[int, int]
    seconds_without_accelerator: int
    selections: dict[str, tuple[int, int]]
    sizes_to_verify: dict[str, Any]
    depth_factor: float
    convolutional_depth: int
    sweep_factors: Any
    sweep_depths: Any
    k_thresh_margin: float
    reference_size: int
    percentile: float
    diagonal_boost: Any
    sparsity_patterns: int
    original_patterns: int
    many_patterns_limit: int
    pattern_draws: int
    dense_limit: int
    whole_kernel_limit: int
    test_size_above_limit: int
    precision_above_limit: str


def parse_arguments(argv: list[str] | None, constants: Constants) -> argparse.Namespace:
    """training.py's command line, checked as far as it can be without images.

    Errors end with status 2. Besides the options: sizes_given, trials_given, test_size_given,
    whether the user chose those; what, the kind of results.
    """
    parser = Parser(
        description="Kernels, approximations and measurement counts of arXiv:2107.09200.",
        epilog="The defaults are the constants at the top of training.py.",
    )
    constants = checked_constants(parser, constants)
    add_plan_options(parser, constants)
    add_dataset_options(parser)
    add_classes_option(parser)
    add_engine_options(parser)
    args = parser.parse_args(argv)
    check_plan(parser, args, constants)
    check_modes(parser, args)
    check_processes(parser, args)
    args.classes = checked_classes(parser, args)
    return args


def add_plan_options(parser: Parser, constants: Constants) -> None:
    """What is computed: networks, sizes, trials, test images, seed, folder, and kinds of runs."""
    networks = list(constants.selections)
    limits = ", ".join(
        f"{count} of {n}" for n, count in constants.trials_without_accelerator.items()
    )
    number = {"type": whole_number}
    numbers = {"type": whole_number, "nargs": "+"}
    switch = {"action": "store_true"}
    trials = (
        f"{' '.join(map(str, constants.trials))}; for the convolutional network without an "
        f"accelerator {limits}, and those whose kernels are in the folder"
    )
    parser.add_options([
        (
            "--networks",
            dict(nargs="+", choices=networks, default=networks, metavar="NETWORK"),
            f"one or both of {' '.join(networks)}",
            networks,
        ),
        (
            "--data-sizes",
            dict(numbers, metavar="N"),
            "numbers of training images, even",
            constants.data_sizes,
        ),
        ("--trials", dict(numbers, metavar="T"), "trials of each size, 0 skips it", trials),
        (
            "--test-size",
            dict(number, metavar="X"),
            "test images of a trial, even",
            constants.test_size,
        ),
        (
            "--seed",
            dict(number, default=constants.seed),
            "seed of every random draw, 0 or more",
            constants.seed,
        ),
        (
            "--depth-sweep",
            switch,
            "vary the depth instead of running the plan; hours with both networks",
            "off",
        ),
        (
            "--digit-pairs",
            switch,
            "run all 45 pairs of classes instead of the plan, or that of --classes; hours likewise",
            "off",
        ),
        (
            "--verify",
            switch,
            "compute some trials again and compare them with those in the folder, which stays "
            "as it is",
            "off",
        ),
    ])  # fmt: skip
    parser.add_output()


def add_engine_options(parser: Parser) -> None:
    """What evaluates the kernels, and the processes of a run."""
    number = {"type": whole_number}
    parser.add_options([
        (
            "--engine",
            dict(choices=ENGINES, default="auto"),
            "what evaluates the kernels; gpu: jax, refusing to run on a CPU; neural-tangents: the "
            "slow cross-check",
            "auto: jax where JAX finds an accelerator, else numba",
        ),
        (
            "--precision",
            dict(choices=("float64", "float32"), default="float64"),
            "of the convolutional kernels' evaluation",
            "float64",
        ),
        (
            "--coordinator",
            dict(metavar="HOST:PORT"),
            "where process 0 of a run of several processes listens",
            "what Slurm or Open MPI says, else one process",
        ),
        ("--processes", dict(number, metavar="P"), "their number", "likewise"),
        ("--process-id", dict(number, metavar="I"), "this one's, from 0 on", "likewise"),
    ])  # fmt: skip


# --------------------------------------------------------------------------------------------------
# Checks, the same for constants and for flags
# --------------------------------------------------------------------------------------------------


WHOLE_CONSTANTS = {  # least and largest value, and what they are multiples of
    "seed": (0, LARGEST_SEED - 1, 1),
    "test_size": (2, 10**7, 2),
    "test_size_above_limit": (2, 10**7, 2),
    "reference_size": (4, 10**7, 2),
    "convolutional_depth": (3, 10**5, 3),
    "sparsity_patterns": (1, MOST_TRIALS, 1),
    "original_patterns": (1, MOST_TRIALS, 1),
    "many_patterns_limit": (0, LARGEST_SEED, 1),
    "pattern_draws": (1, MOST_TRIALS, 1),
    "seconds_without_accelerator": (0, 10**9, 1),
    "dense_limit": (0, LARGEST_SEED, 1),
    "whole_kernel_limit": (0, LARGEST_SEED, 1),
}
REAL_CONSTANTS = {"percentile": (0, 100), "depth_factor": (0, 1000), "k_thresh_margin": (0, 1)}


def checked_constants(parser: Parser, constants: Constants) -> Constants:
    """The constants, whose sizes and trials become lists of ints; complains about wrong ones.

    A single number of `trials` is taken for every size.
    """
    sizes = whole_numbers(parser, "data_sizes", constants.data_sizes)
    trials = whole_numbers(parser, "trials", constants.trials)
    if np.ndim(constants.trials) == 0:
        trials = trials * len(sizes)
    check_sizes(parser, "the constant data_sizes =", sizes)
    if len(trials) != len(sizes):
        what = f"the constants data_sizes = {sizes} and trials = {trials}"
        parser.error(f"{what}: give each size its trials")
    check_trials(parser, "the constant trials =", trials)
    for name, (least, largest, step) in WHOLE_CONSTANTS.items():
        value = getattr(constants, name)
        right = is_whole(value) and least <= value <= largest and value % step == 0
        kind = "a whole number" if step == 1 else f"a multiple of {step}"
        remedy = f"use {kind}, {least} or more"
        if is_whole(value) and value > largest:
            remedy = f"{remedy}, but {largest:,} at most"
        parser.check(right, f"the constant {name} =", repr(value), remedy)
    for name, (least, largest) in REAL_CONSTANTS.items():
        value = getattr(constants, name)
        right = is_number(value) and least <= value <= largest
        remedy = f"use a number from {least} to {largest}"
        parser.check(right, f"the constant {name} =", repr(value), remedy)
    check_lists(parser, constants)
    return replace(constants, data_sizes=sizes, trials=trials)


def check_lists(parser: Parser, constants: Constants) -> None:
    """Complain about constants that are not one number."""
    precision, boost = constants.precision_above_limit, constants.diagonal_boost
    remedy = "use float64 or float32"
    right = precision in ("float64", "float32")
    parser.check(right, "the constant precision_above_limit =", precision, remedy)
    right = isinstance(boost, (list, tuple)) and len(boost) == 2 and all(map(is_number, boost))
    parser.check(right, "the constant diagonal_boost =", boost, "use two numbers")
    factors, depths = constants.sweep_factors, constants.sweep_depths
    right = isinstance(factors, (list, tuple)) and len(factors) > 0
    right = right and all(is_number(factor) and 0 <= factor <= 1000 for factor in factors)
    remedy = "use a list of numbers from 0 to 1000"
    parser.check(right, "the constant sweep_factors =", factors, remedy)
    right = isinstance(depths, (list, tuple)) and len(depths) > 0
    right = right and all(is_whole(depth) and depth > 0 and depth % 3 == 0 for depth in depths)
    parser.check(right, "the constant sweep_depths =", depths, "use a list of multiples of 3")
    check_dictionaries(parser, constants)


def check_dictionaries(parser: Parser, constants: Constants) -> None:
    """Complain about constants that say something of each network, or of each size."""
    for name in ("selections", "trials_without_accelerator", "sizes_to_verify"):
        values = getattr(constants, name)
        right = isinstance(values, dict)
        parser.check(right, f"the constant {name} =", values, "use a dictionary, as it was")
    for network, classes in constants.selections.items():
        right = isinstance(classes, (list, tuple)) and len(classes) == 2
        right = right and all(is_whole(label) and label >= 0 for label in classes)
        right = right and classes[0] != classes[1]
        name = f"the constant selections[{network!r}] ="
        parser.check(right, name, classes, "use two different classes")
    for n, count in constants.trials_without_accelerator.items():
        right = is_whole(n) and is_whole(count) and 0 <= count <= MOST_TRIALS
        name = f"the constant trials_without_accelerator[{n!r}] ="
        parser.check(right, name, count, f"use 0 to {MOST_TRIALS:,} for a size")
    for network, sizes in constants.sizes_to_verify.items():
        whole_numbers(parser, f"sizes_to_verify[{network!r}]", sizes)


def is_number(value: Any) -> bool:
    """Whether it is a finite number of Python's own, which JSON can hold; np.float64 is one."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond all floats
        return False


def is_whole(value: Any) -> bool:
    """Whether it is an int of Python's own."""
    return isinstance(value, int) and is_number(value)


def whole_numbers(parser: Parser, name: str, values: Any) -> list[int]:
    """A constant's number, or list of numbers, as ints; complains about others.

    NumPy's numbers and arrays will do, and so does 16.0.
    """
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    listed = list(listed) if isinstance(listed, (list, tuple, range)) else [listed]
    listed = [n.item() if isinstance(n, np.generic) else n for n in listed]
    right = len(listed) > 0 and all(is_number(value) and value == int(value) for value in listed)
    parser.check(right, f"the constant {name} =", values, "use whole numbers")
    return [int(value) for value in listed]


def check_sizes(parser: Parser, option: str, sizes: Sequence[int]) -> None:
    """Complain about numbers of training images."""
    for n in sizes:
        parser.check(2 <= n <= 10**7 and n % 2 == 0, option, n, "use even numbers, 2 or more")
        parser.check(list(sizes).count(n) == 1, option, sizes, "give each size once")


def check_trials(parser: Parser, option: str, trials: Sequence[int]) -> None:
    """Complain about numbers of trials."""
    right = min(trials) >= 0 and max(trials) <= MOST_TRIALS
    parser.check(right, option, trials, f"use 0 to {MOST_TRIALS:,} for each size")
    parser.check(any(trials), option, trials, "nothing to do; use at least one that is not 0")


def check_plan(parser: Parser, args: argparse.Namespace, constants: Constants) -> None:
    """Complain about sizes, trials and seeds that can't be; fill in the constants."""
    args.sizes_given = args.data_sizes is not None
    args.trials_given = args.trials is not None
    args.test_size_given = args.test_size is not None
    known = dict(zip(constants.data_sizes, constants.trials, strict=True))
    args.data_sizes = args.data_sizes or constants.data_sizes
    check_sizes(parser, "data-sizes", args.data_sizes)
    for n in args.data_sizes:
        remedy = (
            f"no constant says how many trials; give --trials or sizes of {constants.data_sizes}"
        )
        parser.check(n in known or args.trials_given, "data-sizes", n, remedy)
    args.trials = args.trials or [known[n] for n in args.data_sizes]
    remedy = f"use one number, 0 or more, for each of {len(args.data_sizes)} sizes"
    parser.check(len(args.trials) == len(args.data_sizes), "trials", args.trials, remedy)
    check_trials(parser, "trials", args.trials)
    args.test_size = args.test_size if args.test_size_given else constants.test_size
    right = 2 <= args.test_size <= 10**7 and args.test_size % 2 == 0
    parser.check(right, "test-size", args.test_size, "use an even number, 2 or more")
    parser.check(0 <= args.seed < LARGEST_SEED, "seed", args.seed, "use 0 to 2^63 - 1")


def checked_classes(parser: Parser, args: argparse.Namespace) -> tuple[int, int] | None:
    """The two classes that --classes names, by numbers or names; None where it is not given."""
    if not args.classes:
        return None
    dataset = MNIST if args.dataset == "auto" else find_dataset(args.dataset)
    try:
        return parse_classes(dataset, args.classes)
    except BadInput as error:
        parser.check(False, "classes", error.value, error.remedy)
    return None


def check_modes(parser: Parser, args: argparse.Namespace) -> None:
    """Complain about kinds of runs that exclude each other; fill in the kind of results."""
    modes = [
        mode
        for mode in ("depth-sweep", "digit-pairs", "verify")
        if getattr(args, mode.replace("-", "_"))
    ]
    if len(modes) > 1:
        parser.error(f"--{' --'.join(modes)}: use one of them at a time")
    args.what = "results"
    if args.depth_sweep:
        args.what = "depth_sweep"
    if args.digit_pairs:
        args.what = "digit_pairs"


def check_processes(parser: Parser, args: argparse.Namespace) -> None:
    """Complain about --coordinator, --processes and --process-id that don't go together."""
    team = {
        "coordinator": args.coordinator,
        "processes": args.processes,
        "process-id": args.process_id,
    }
    for option, value in team.items():
        together = f"use {', '.join(f'--{name}' for name in team)} together"
        parser.check(value is None or None not in team.values(), option, value, together)
    if args.coordinator is not None:
        host, _, port = args.coordinator.rpartition(":")
        right = bool(host) and port.isdecimal() and len(port) < 6 and 0 < int(port) < 2**16
        parser.check(right, "coordinator", args.coordinator, "use HOST:PORT, as in 127.0.0.1:12345")
        parser.check(args.processes >= 1, "processes", args.processes, "use 1 or more")
        remedy = f"use 0 to {args.processes - 1}, each in one process"
        parser.check(0 <= args.process_id < args.processes, "process-id", args.process_id, remedy)


# --------------------------------------------------------------------------------------------------
# Starting and ending
# --------------------------------------------------------------------------------------------------

OPTIONS_OF_ARGUMENTS = {
    "engine", "precision", "output", "input", "dataset", "data_dir", "mnist_dir", "classes",
    "coordinator", "processes", "process_id", "test_size", "data_sizes", "widths", "channels",
}  # fmt: skip


def explained(error: BadInput) -> str:
    """The line about a bad input, with the option that the argument came from."""
    name = error.argument
    if name in OPTIONS_OF_ARGUMENTS:
        name = "--" + name.replace("_", "-")
    is_path = isinstance(error.value, Path)  # a file's name stands at its end
    value = str(error.value) if is_path else in_short(str(error.value))
    return f"{name} {value}: {' '.join(error.remedy.split())}"


def with_folder(output: Path, work: Callable[[], object]) -> int:
    """Do `work` with the folder held. Returns the exit status, 2 after a bad input."""
    try:
        with locked(output):
            work()
    except BadInput as error:
        print(f"{program()}: error: {explained(error)}", file=sys.stderr)
        return 2
    return 0


def launch(
    args: argparse.Namespace,
    experiment: Callable[[Run], int],
    classes_of: Callable[[Dataset], Sequence[int]],
) -> int:
    """Load the images and call experiment(run), in every process of the run.

    classes_of(dataset): all classes in use. Returns the exit status: experiment's, 2 after one line
    about a bad input, 1 after one about a lost process.
    """
    try:
        join_processes(args.coordinator, args.processes, args.process_id)
        args.engine = choose_engine(args.engine)
        held = locked(args.output) if is_leader() and not args.verify else contextlib.nullcontext()
        with held:
            run = start(args, classes_of)
            status = experiment(run)
            say_note(run)
        return status
    except BadInput as error:
        status, message = 2, explained(error)
    except MemoryError as error:
        what = str(error).splitlines()[0] if str(error) else "it asked for more than there is"
        status = 2
        message = f"out of memory ({what}); use smaller --data-sizes: what is finished is kept"
    except (RuntimeError, ValueError) as error:
        if process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        status, message = 1, f"the processes lost each other ({reason}); {run_again}"
    print(f"{program()}: error: {message}", file=sys.stderr, flush=True)
    if process_count() > 1:
        os._exit(status)  # leaving in order would wait for the other processes
    return status


def start(args: argparse.Namespace, classes_of: Callable[[Dataset], Sequence[int]]) -> Run:
    """The Run of these arguments, with images that all processes agree on."""

    def load() -> Any:
        return load_images(args.dataset, args.data_dir, args.mnist_dir)

    # Process 0 may download; the others find the files then.
    images = load() if is_leader() else None
    share(lambda: None)
    images = images or load()
    classes = classes_of(images.dataset)
    for label in classes:
        if not (np.any(images.train.label == label) and np.any(images.test.label == label)):
            known = list_classes(images.dataset)
            remedy = f"{images.dataset.title} has no such class; use two of {known}"
            raise BadInput("classes", label, remedy)
    available = min(np.sum(images.test.label == label) for label in classes) * 2
    test_size = args.test_size
    if test_size > available:
        if args.test_size_given:
            remedy = f"{images.name} fills {available}; use that or less"
            raise BadInput("test_size", test_size, remedy)
        print(f"note: {images.name} fills {available} test images, not {test_size}")
        test_size = int(available)
    run = Run(args.seed, test_size, args.output, args.engine, args.precision, images)
    check_agreement((images.sha256, run.seed, test_size, run.engine, run.precision, FORMULAS))
    say_note(run)
    together = f" ({process_count()} processes)" if process_count() > 1 else ""
    print(
        f"dataset {images.name}, {test_size} test images; {describe_device()}{together}; "
        f"engine {run.engine}, {run.precision}; output {run.output}/"
    )
    return run


def say_note(run: Run) -> None:
    """Print a line in capitals where the images are not MNIST's."""
    if run.images.dataset.note:
        print(run.images.dataset.note)
