"""The processes of one run: who is there, what they tell each other, how they share out pairs.

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
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ntk import BadInput
from ntk.convolutional import ConvolutionalPairs

Value = TypeVar("Value")

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


def launched_processes() -> tuple[str, str]:
    """The variable in which Slurm or Open MPI says how many processes it started, and its value."""
    for variable in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if os.environ.get(variable):
            return variable, os.environ[variable]
    return "", "1"


def join_processes(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    """Connect the processes of a run through `jax.distributed`.

    This is process `process_id` of `processes`; process 0 listens at `coordinator`, HOST:PORT. All
    three None: what Slurm or Open MPI started, or a single process. Raises BadInput where they
    don't find each other.
    """
    variable, launched = launched_processes()
    if coordinator is None and launched == "1":
        return
    if coordinator is not None:
        where, flag = ("coordinator", coordinator), f"--coordinator {coordinator}"
        remedy = "start all of them, with the same options"
    else:
        where, flag = (variable, launched), f"{variable} {launched}"
        remedy = f"start all of them, or unset {variable} to run alone"
    if coordinator is not None and process_id:
        wait_for_coordinator(coordinator)
    import jax

    explain_abort(f"{flag}: not all processes came within {answer_seconds} s; {remedy}")
    try:
        jax.distributed.initialize(
            coordinator, processes, process_id,
            initialization_timeout=answer_seconds, heartbeat_timeout_seconds=answer_seconds,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        if coordinator is not None:
            address = "name a free port of process 0's host in --coordinator"
            remedy = f"{address}, with --processes and --process-id"
        raise BadInput(*where, f"{reason}; {remedy}") from error
    explain_abort(f"{flag}: another process ended; {run_again}")
    if not is_leader():
        what = "computes for process 0, which prints and writes"
        print(f"process {process_index()} of {process_count()}: {what}")
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115, for the rest of this process


def wait_for_coordinator(coordinator: str) -> None:
    """Wait until process 0 listens at HOST:PORT: JAX would abort.

    Raises BadInput where it does not come.
    """
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
        os.write(2, f"{Path(sys.argv[0]).name}: error: {message}\n".encode())
        os._exit(1)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(leave)
    abort_handlers.append(handler)
    with contextlib.suppress(AttributeError):  # a C library without signal()
        ctypes.CDLL(None).signal(int(signal.SIGABRT), handler)
