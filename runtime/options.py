"""The command line, what ends a run, and the record of it.

`launch` is the frame around an experiment: it joins the processes, loads the data, holds the output folder, and turns
every bad input into one line that names the option, the value and the remedy.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ntk import ENGINES, FORMULAS, BadInput, choose_engine
from runtime.checkpoints import follow
from runtime.files import folder_path, locked
from runtime.mnist import load_data
from runtime.processes import (
    broadcast,
    check_agreement,
    is_leader,
    join_processes,
    process_count,
    run_again,
    send_order,
)
from runtime.sitting import describe_device
from runtime.streams import program
from runtime.streams import run_script as run_script  # of the scripts that still ask for it here
from runtime.trials import Label, Run

# ----------------------------------------------------------------------------------------------------------------------
# The command line
# ----------------------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """One that complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Leave with status 2 after that line."""
        self.exit(2, f"{program()}: error: {message.removeprefix('argument ')}; see --help\n")

    def check(self, is_right: bool, option: str, values: Any, remedy: str) -> None:
        """Complain about an option's values unless they are right."""
        if not is_right:
            self.error(f"--{option} {' '.join(map(str, np.atleast_1d(values)))}: {remedy}")

    def add_options(self, options: Iterable[tuple[str, dict[str, Any], str, Any]]) -> None:
        """Add (flag, how, help text, default in words)."""
        for flag, how, text, default in options:
            words = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else default
            self.add_argument(flag, **how, help=f"{text} (default: {words})")


def whole_number(text: str) -> int:
    """An int from the command line."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: use whole numbers") from None


def folder(text: str) -> Path:
    """A folder from the command line."""
    try:
        return folder_path(text)
    except BadInput as error:
        raise argparse.ArgumentTypeError(f"{error.value}: {error.remedy}") from None


@dataclass(frozen=True)
class Constants:
    """Those of a script's constants that flags override or that flags are checked against."""

    seed: int
    test_size: int
    data_sizes: list[int]
    trials: list[int]
    trials_without_accelerator: dict[int, int]
    networks: tuple[str, ...]


def parse_arguments(argv: list[str] | None, constants: Constants) -> argparse.Namespace:
    """training.py's command line, checked as far as it can be without the data; errors end with status 2.

    Besides the options: sizes_given, trials_given, test_size_given, whether the user chose those; what, the name of the
    results file.
    """
    parser = Parser(
        description="Kernels, approximations and measurement counts of arXiv:2107.09200.",
        epilog="The defaults are the constants at the top of training.py.",
    )
    limits = ", ".join(f"{count} of {n}" for n, count in constants.trials_without_accelerator.items())
    number, numbers = {"type": whole_number}, {"type": whole_number, "nargs": "+"}
    parser.add_options([
        ("--networks", dict(nargs="+", choices=constants.networks, default=constants.networks, metavar="NETWORK"),
         f"one or both of {' '.join(constants.networks)}", constants.networks),
        ("--data-sizes", dict(numbers, metavar="N"), "numbers of training images, even", constants.data_sizes),
        ("--trials", dict(numbers, metavar="T"), "trials of each size, 0 skips it",
         f"{' '.join(map(str, constants.trials))}; for the convolutional network without an accelerator {limits}, and "
         f"those whose kernels are in the folder"),
        ("--test-size", dict(number, metavar="X"), "test images of a trial, even", constants.test_size),
        ("--seed", dict(number, default=constants.seed), "seed of every random draw, 0 or more", constants.seed),
        ("--digits", dict(type=whole_number, nargs=2, metavar="D"), "two digits, the second one is class +1",
         "the paper's, 8 9 fully connected and 1 0 convolutional"),
        ("--output", dict(type=folder, default=Path("kernel_output"), metavar="DIR"),
         "folder to write to, and to go on from", "kernel_output"),
        ("--dataset", dict(choices=("auto", "mnist", "digits"), default="auto"),
         "MNIST, scikit-learn's 8x8 digits, or the digits only where MNIST can't be had", "auto"),
        ("--mnist-dir", dict(metavar="DIR"), "folder of MNIST's four IDX files",
         "the environment variable MNIST_DIR, else TensorFlow Datasets"),
        ("--engine", dict(choices=ENGINES, default="auto"), "what evaluates the kernels; gpu: jax, refusing to run on "
         "a CPU; neural-tangents: the slow cross-check", "auto: jax where JAX finds an accelerator, else numba"),
        ("--precision", dict(choices=("float64", "float32"), default="float64"),
         "of the convolutional kernels' evaluation", "float64"),
        ("--depth-sweep", dict(action="store_true"), "vary the depth instead of running the plan; hours "
         "with both networks", "off"),
        ("--digit-pairs", dict(action="store_true"), "run all 45 pairs of digits instead of the plan; "
         "hours with both networks", "off"),
        ("--verify", dict(action="store_true"), "compute some trials again and compare them with those in the folder, "
         "which stays as it is", "off"),
        ("--coordinator", dict(metavar="HOST:PORT"), "where process 0 of a run of several processes listens",
         "what Slurm or Open MPI says, else one process"),
        ("--processes", dict(number, metavar="P"), "their number", "likewise"),
        ("--process-id", dict(number, metavar="I"), "this one's, from 0 on", "likewise"),
    ])  # fmt: skip
    args = parser.parse_args(argv)
    check_plan(parser, args, constants)
    check_processes(parser, args)
    return args


def check_plan(parser: Parser, args: argparse.Namespace, constants: Constants) -> None:
    """Complain about sizes, trials, digits and seeds that can't be; fill in the constants."""
    args.sizes_given, args.trials_given, args.test_size_given = (
        value is not None for value in (args.data_sizes, args.trials, args.test_size)
    )
    if len(constants.trials) != len(constants.data_sizes):
        what = f"the constants data_sizes = {constants.data_sizes} and trials = {constants.trials}"
        parser.error(f"{what}: give each size its trials")
    known = dict(zip(constants.data_sizes, constants.trials, strict=True))
    args.data_sizes = args.data_sizes or constants.data_sizes
    for n in args.data_sizes:
        parser.check(n >= 2 and n % 2 == 0, "data-sizes", n, "use even numbers, 2 or more")
        parser.check(args.data_sizes.count(n) == 1, "data-sizes", args.data_sizes, "give each size once")
        remedy = f"no constant says how many trials; give --trials or sizes of {constants.data_sizes}"
        parser.check(n in known or args.trials_given, "data-sizes", n, remedy)
    args.trials = args.trials or [known[n] for n in args.data_sizes]
    remedy = f"use one number, 0 or more, for each of {len(args.data_sizes)} sizes"
    right = len(args.trials) == len(args.data_sizes) and min(args.trials) >= 0
    parser.check(right, "trials", args.trials, remedy)
    parser.check(any(args.trials), "trials", args.trials, "nothing to do; use at least one that is not 0")
    args.test_size = args.test_size if args.test_size_given else constants.test_size
    right = args.test_size >= 2 and args.test_size % 2 == 0
    parser.check(right, "test-size", args.test_size, "use an even number, 2 or more")
    parser.check(args.seed >= 0, "seed", args.seed, "use 0 or more")
    if args.digits:
        right = len(set(args.digits)) == 2 and all(0 <= digit <= 9 for digit in args.digits)
        parser.check(right, "digits", args.digits, "use two different ones of 0 to 9")
        parser.check(not args.digit_pairs, "digits", args.digits, "--digit-pairs takes all; leave one of them out")
    args.what = "depth_sweep" if args.depth_sweep else "digit_pairs" if args.digit_pairs else "results"
    modes = [mode for mode in ("depth-sweep", "digit-pairs", "verify") if getattr(args, mode.replace("-", "_"))]
    if len(modes) > 1:
        parser.error(f"--{' --'.join(modes)}: use one of them at a time")


def check_processes(parser: Parser, args: argparse.Namespace) -> None:
    """Complain about --coordinator, --processes and --process-id that don't go together."""
    team = {"coordinator": args.coordinator, "processes": args.processes, "process-id": args.process_id}
    for option, value in team.items():
        together = f"use {', '.join(f'--{name}' for name in team)} together"
        parser.check(value is None or None not in team.values(), option, value, together)
    if args.coordinator is not None:
        host, _, port = args.coordinator.rpartition(":")
        right = bool(host) and port.isdecimal() and 0 < int(port) < 2**16
        parser.check(right, "coordinator", args.coordinator, "use HOST:PORT, as in 127.0.0.1:12345")
        parser.check(args.processes >= 1, "processes", args.processes, "use 1 or more")
        remedy = f"use 0 to {args.processes - 1}, each in one process"
        parser.check(0 <= args.process_id < args.processes, "process-id", args.process_id, remedy)


# ----------------------------------------------------------------------------------------------------------------------
# Starting and ending
# ----------------------------------------------------------------------------------------------------------------------


def explained(error: BadInput) -> str:
    """The line about a bad input, with the option that the argument came from."""
    options = ("engine", "precision", "output", "dataset", "mnist_dir", "coordinator", "processes", "process_id",
               "test_size", "data_sizes", "digits", "input")  # fmt: skip
    name = "--" + error.argument.replace("_", "-") if error.argument in options else error.argument
    return f"{name} {error.value}: {error.remedy}"


def with_folder(output: Path, work: Callable[[], object]) -> int:
    """Do `work` with the folder held against other runs. Returns the exit status, 2 after one line about bad input."""
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
    images_of: Callable[[Run, Label], tuple[Any, Any]],
    digits: Sequence[int],
) -> int:
    """Load the data and call experiment(run), in process 0; the others compute their share of its kernels.

    images_of(run, label): the training and test images of a kernel's label. digits: all in use. Returns the exit
    status: experiment's, 2 after one line about a bad input, 1 after one about a lost process.
    """
    try:
        join_processes(args.coordinator, args.processes, args.process_id)
        args.engine = choose_engine(args.engine)
        status = 0
        with locked(args.output) if is_leader() and not args.verify else contextlib.nullcontext():
            run = start(args, digits)
            if is_leader():
                status = experiment(run)
                send_order(None)
            else:
                follow(lambda label: images_of(run, label), run.engine)
            print(stand_in_note(run), end="")
        return status
    except BadInput as error:
        status, message = 2, explained(error)
    except (RuntimeError, ValueError) as error:
        if process_count() == 1:
            raise
        status, message = 1, f"the processes lost each other ({str(error).splitlines()[0]}); {run_again}"
    print(f"{program()}: error: {message}", file=sys.stderr, flush=True)
    if process_count() > 1:
        os._exit(status)  # leaving in order would wait for the other processes
    return status


def start(args: argparse.Namespace, digits: Sequence[int]) -> Run:
    """The Run of these arguments, with data that all processes agree on."""
    if not is_leader():
        broadcast(np.zeros(1))  # until process 0 has loaded, and perhaps downloaded, the data
    data = load_data(args.dataset, args.mnist_dir)
    if is_leader():
        broadcast(np.zeros(1))
    available = min(np.sum(data["test"]["label"] == d) for d in digits) * 2
    test_size = args.test_size
    if test_size > available:
        if args.test_size_given:
            raise BadInput("test_size", test_size, f"{data['name']} fills {available}; use that or less")
        print(f"note: {data['name']} fills {available} test images, not {test_size}")
        test_size = int(available)
    run = Run(args.seed, test_size, args.output, args.engine, args.precision, data)
    check_agreement((data["sha256"], run.seed, test_size, run.engine, run.precision, FORMULAS))
    print(stand_in_note(run), end="")
    together = f" ({process_count()} processes)" if process_count() > 1 else ""
    print(f"dataset {data['name']}, {test_size} test images; {describe_device()}{together}; engine {run.engine}, "
          f"{run.precision}; output {run.output}/")  # fmt: skip
    return run


def stand_in_note(run: Run) -> str:
    """A line in capitals where the data are not MNIST."""
    line = "THESE ARE SCIKIT-LEARN'S 8x8 DIGITS, NOT MNIST; FILES ARE NAMED digits-...\n"
    return "" if run.data["name"] == "mnist" else line
