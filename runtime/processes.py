"""The processes of one run: who is there, what they tell each other, and how they share out the
pairs of images.

One process is the usual case, and then nothing here imports JAX. Several are connected by
`jax.distributed`. All of them run the same loop over the same trials, and share out the pairs of
images of each kernel; process 0 alone reads, writes and prints.
"""

import contextlib
import ctypes
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ntk import BadInput
from ntk.convolutional import ConvolutionalPairs
from runtime import streams
from runtime.files import in_words
from runtime.streams import command

Value = TypeVar("Value")

note_seconds = 5  # of silence until the others are asked for
answer_seconds = 60  # that the processes of a run wait for one that does not answer
run_again = "run it again, all processes of it: what is finished is kept"


def process_count() -> int:
    """Number of processes of the run: 1, or those that `jax.distributed` connects."""
    jax = sys.modules.get("jax")
    return jax.process_count() if jax and jax.distributed.is_initialized() else 1


def process_index() -> int:
    """The number of this process, from 0 on."""
    return sys.modules["jax"].process_index() if process_count() > 1 else 0


def is_leader() -> bool:
    """Whether this is process 0, which alone reads, writes and prints."""
    return process_index() == 0


def broadcast(array: NDArray) -> NDArray:
    """Process 0's array, in every process; the others give one of the same shape and type."""
    if process_count() == 1:
        return array
    import jax
    from jax.experimental import multihost_utils

    with jax.enable_x64(True):
        return np.asarray(multihost_utils.broadcast_one_to_all(array))


def gather(array: NDArray) -> NDArray:
    """Every process's array, all of one shape, in every process: [...] -> [processes, ...]."""
    if process_count() == 1:
        return array[None]
    import jax
    from jax.experimental import multihost_utils

    with jax.enable_x64(True):
        return np.asarray(multihost_utils.process_allgather(array))


def share(compute: Callable[[], Value]) -> Value:
    """What compute() gives in process 0, in every process; the others do not call it."""
    if process_count() == 1:
        return compute()
    value = compute() if is_leader() else None
    content = np.frombuffer(pickle.dumps(value), np.uint8) if is_leader() else np.zeros(0, np.uint8)
    (length,) = broadcast(np.array([len(content)]))
    content = broadcast(content if is_leader() else np.zeros(length, np.uint8))
    return value if is_leader() else pickle.loads(content.tobytes())  # type: ignore[return-value]


def pairs_at_once(pairs: ConvolutionalPairs) -> int:
    """How many pairs of images all processes compute together, from one write to the next."""
    return int(broadcast(np.array(pairs.block))) * (1 if pairs.on_mesh else process_count())


def evaluate_pairs(pairs: ConvolutionalPairs, i: NDArray, j: NDArray) -> NDArray[np.float64]:
    """The NTK of the pairs (i, j), shared out to all processes. [m], [m] -> [m]

    An engine that computes on one mesh of all devices shares out by itself; otherwise each process
    takes a part.
    """
    if pairs.on_mesh or process_count() == 1:
        return pairs.pairs(i, j)
    share = -(-len(i) // process_count())
    mine = slice(process_index() * share, (process_index() + 1) * share)
    found = np.zeros(share)
    found[: len(i[mine])] = pairs.pairs(i[mine], j[mine])
    return gather(found).ravel()[: len(i)]


def check_agreement(values: tuple) -> None:
    """Raise BadInput unless `values` are the same in all processes."""
    import hashlib

    digests = gather(np.frombuffer(hashlib.sha256(repr(values).encode()).digest(), np.uint8))
    others = np.flatnonzero((digests != digests[0]).any(axis=1))
    if others.size:
        what = "have other data, options or another version of this program than process 0"
        remedy = f"{what}; start all with the same"
        raise BadInput("process_id", " ".join(map(str, others)), remedy)


# --------------------------------------------------------------------------------------------------
# Finding each other
# --------------------------------------------------------------------------------------------------


def join_processes(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    """Connect the processes of a run through `jax.distributed`.

    This is process `process_id` of `processes`; process 0 listens at `coordinator`, HOST:PORT. All
    three None: what Open MPI or Slurm started, or a single process. Raises BadInput where they
    can't find each other, and ends this process in one line where some of them don't come.
    """
    if coordinator is not None:
        argument, flag = ("coordinator", coordinator), f"--coordinator {coordinator}"
        remedy = "start all of them, with the same options"
        if process_id:
            wait_for_coordinator(coordinator)
    else:
        launcher = find_launcher()
        if launcher is None:
            return
        argument, flag = launcher, " ".join(launcher)
        remedy = f"start all of them together, or run alone: {launcher[0]}=1 {command()}"
    problem = f"{flag}: not all processes are there"
    connect(coordinator, processes, process_id, argument, problem, remedy)
    explain_abort(f"{flag}: another process ended; {run_again}")
    if not is_leader():
        mine = f"process {process_index()} of {process_count()}"
        print(f"{mine}: computes for process 0, which prints and writes")
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115, for good


def find_launcher() -> tuple[str, str] | None:
    """The variable in which a launcher says how many processes it has started, and their number.

    None where it is one, or there is no launcher. Raises BadInput where Slurm's variables are left
    over in a process that Slurm has not started.
    """
    for name in ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        count = os.environ.get(name, "1").strip()
        if count in ("", "0", "1"):
            continue
        if not count.isdecimal():
            raise BadInput(name, count, f"no number of processes; unset it: {name}=1 {command()}")
        if name == "SLURM_STEP_NUM_TASKS":
            check_slurm(count)
        return name, count
    return None


def check_slurm(count: str) -> None:
    """Raise BadInput where another process than this one is Slurm's, which has left its variables.

    In the shell of `srun --pty` everybody finds the variables of the shell, the first of `count`
    tasks. The others have ended with an empty input.
    """
    name = "SLURM_STEP_NUM_TASKS"
    alone = f"to run alone: {name}=1 {command()}"
    for needed in ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID"):
        if f"SLURM_{needed}" not in os.environ:
            reason = f"left over from another job, as SLURM_{needed} is not set"
            raise BadInput(name, count, f"{reason}; {alone}")
    is_task = os.environ.get("SLURM_TASK_PID") == str(os.getpid())
    if os.isatty(0) and not is_task:  # srun gives no terminal to its tasks
        several = "for several processes use srun without --pty"
        raise BadInput(name, count, f"of this terminal's srun --pty; {several}; {alone}")


def connect(
    coordinator: str | None, processes: int | None, process_id: int | None,
    argument: tuple[str, str], problem: str, remedy: str,
) -> None:  # fmt: skip
    """Call jax.distributed.initialize, and end the process where the others don't come in time.

    argument: name and value for a BadInput where JAX refuses. problem, remedy: what is said where
    they don't come. JAX would wait deaf to signals, and abort with a C++ backtrace; so it waits in
    a thread of its own.
    """
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
    errors: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                coordinator,
                processes,
                process_id,
                initialization_timeout=10 * answer_seconds,
                heartbeat_timeout_seconds=answer_seconds,
            )
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    began = time.monotonic()
    is_said = False
    while thread.is_alive():
        thread.join(0.1)
        waited = time.monotonic() - began
        if waited > answer_seconds:
            streams.leave(2, f"error: {problem} after {answer_seconds} s; {remedy}")
        if waited > note_seconds and not is_said:
            print(f"note: {problem} yet; {remedy}", file=sys.stderr)
            is_said = True
    if errors:
        options = "in --coordinator, with --processes and --process-id"
        port = f"name a free port of process 0's host {options}"
        remedy = f"{remedy}; or {port}" if coordinator is None else port
        raise BadInput(*argument, f"{in_words(errors[0])}; {remedy}") from errors[0]


def wait_for_coordinator(coordinator: str) -> None:
    """Wait until process 0 listens at HOST:PORT. Raises BadInput where it does not come."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + answer_seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                reason = f"no answer for {answer_seconds} s ({error.strerror or error})"
                remedy = "start process 0 there, or correct the address"
                raise BadInput("coordinator", coordinator, f"{reason}; {remedy}") from error
            time.sleep(0.5)


abort_handlers: list[Callable] = []  # C keeps no reference to them


def explain_abort(message: str) -> None:
    """Say `message` and leave with status 1 on SIGABRT.

    JAX ends a process that has lost another by a C++ abort, which Python does not see.
    """

    def leave(_: int) -> None:
        streams.leave(1, f"error: {message}")

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(leave)
    abort_handlers.append(handler)
    with contextlib.suppress(AttributeError, TypeError, OSError):  # as on Windows: no signal()
        ctypes.CDLL(None).signal(int(signal.SIGABRT), handler)
