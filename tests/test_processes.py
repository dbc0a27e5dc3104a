"""The processes of a run: how they share out pairs, what they agree on, and whole runs of two."""

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import QUICK, ROOT, TINY, contents, end, free_port, start, succeed, wait_until

from ntk import BadInput
from runtime import checkpoints, processes


class Products:
    """Stands for an engine: the value of a pair tells which pair it is."""

    block, on_mesh = 5, False

    def pairs(self, i, j):
        return 1000.0 * i + j


@pytest.fixture
def played(monkeypatch):
    """A function that lets `count` processes, played by threads, call `do(index)`.

    Returns what each returned.
    """
    own = threading.local()

    def play(count, do):
        board, barrier, found = [None] * count, threading.Barrier(count), [None] * count

        def gather(array):
            board[own.index] = array
            barrier.wait(10)
            together = np.array(board)
            barrier.wait(10)
            return together

        def broadcast(array):
            board[own.index] = array
            barrier.wait(10)
            of_first = board[0]
            assert array.shape == of_first.shape and array.dtype == of_first.dtype
            barrier.wait(10)
            return of_first

        def work(index):
            own.index = index
            found[index] = do(index)

        monkeypatch.setattr(processes, "process_count", lambda: count)
        monkeypatch.setattr(processes, "process_index", lambda: own.index)
        monkeypatch.setattr(processes, "gather", gather)
        monkeypatch.setattr(processes, "broadcast", broadcast)
        threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
        [thread.start() for thread in threads]
        [thread.join(20) for thread in threads]
        return found

    return play


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("m", [0, 1, 2, 7, 9])
def test_shares_are_put_together_in_the_order_of_the_pairs(played, count, m):
    """Also where the pairs can't be divided evenly, or there are fewer of them than processes."""
    i, j = np.arange(m), np.arange(m)[::-1] + 50
    for found in played(count, lambda _: processes.evaluate_pairs(Products(), i, j)):
        assert np.array_equal(found, 1000.0 * i + j)


def test_every_process_takes_a_share(played):
    sizes = []

    class Counted(Products):
        def pairs(self, i, j):
            sizes.append(len(i))
            return super().pairs(i, j)

    played(3, lambda _: processes.evaluate_pairs(Counted(), np.arange(10), np.arange(10)))
    assert sorted(sizes) == [2, 4, 4]


def test_an_engine_on_a_mesh_gets_all_pairs_in_every_process(played):
    engine = Products()
    engine.on_mesh = True
    values = played(2, lambda _: processes.evaluate_pairs(engine, *np.ones((2, 7))))
    assert [len(of_process) for of_process in values] == [7, 7]
    assert played(2, lambda _: processes.pairs_at_once(engine)) == [5, 5]
    assert played(2, lambda _: processes.pairs_at_once(Products())) == [10, 10]


def test_processes_that_disagree_are_named(played):
    def agree(index):
        try:
            processes.check_agreement(("data", 7 if index == 2 else 0))
        except BadInput as error:
            return str(error)

    expected = "process_id 2: have other data, options or another version of this program"
    assert all(found.startswith(expected) for found in played(3, agree))
    assert played(3, lambda _: processes.check_agreement(("data", 0))) == [None] * 3


def test_one_process_alone_needs_no_jax():
    array = np.arange(3)
    assert processes.broadcast(array) is array and processes.gather(array).shape == (1, 3)
    assert processes.is_leader() and processes.process_count() == 1
    assert processes.share(lambda: array) is array


@pytest.mark.parametrize("value", [None, np.arange(6.0).reshape(2, 3), {"size": 4}, "κ", b"", []])
def test_what_process_0_has_is_shared_and_the_others_do_not_look(played, value):
    """They have no common file system: only process 0 may be asked."""
    asked = []

    def take_part(index):
        def compute():
            asked.append(index)
            return value

        return processes.share(compute)

    for shared in played(3, take_part):
        assert type(shared) is type(value) and np.array_equal(shared, value)
    assert asked == [0]


# ---- real ones ----


def team(*arguments, only_second=(), **how):
    """Two processes of one run on this machine; the second one has more arguments."""
    where = ("--coordinator", f"127.0.0.1:{free_port()}", "--processes", 2, "--process-id")
    return [start(*arguments, *where, 0, **how), start(*arguments, *where, 1, *only_second, **how)]


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path, undisturbed):
    leader, follower = map(end, team(*TINY, "--output", tmp_path))
    assert leader.status == follower.status == 0, leader.err + follower.err
    assert contents(tmp_path) == contents(undisturbed)
    assert "(2 processes)" in leader.out and "wrote" in leader.out
    assert "process 1 of 2" in follower.out and "wrote" not in follower.out
    assert json.loads((tmp_path / "run.json").read_text())["sittings"][0]["processes"] == 2


@pytest.mark.slow
def test_two_processes_of_slurm_on_one_mesh(tmp_path, undisturbed):
    """What `srun` provides is enough; JAX computes on the devices of both processes."""
    common = {"SLURM_JOB_ID": str(free_port()), "SLURM_STEP_NODELIST": "127.0.0.1"}
    common |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    environments = [common | {"SLURM_PROCID": str(i), "SLURM_LOCALID": "0"} for i in range(2)]
    command = (
        "--dataset",
        "digits",
        "--data-sizes",
        4,
        "--trials",
        1,
        "--test-size",
        4,
        "--engine",
        "jax",
    )
    command += ("--output", tmp_path)
    few = "training.reference_size = 4"  # the engine is slow on CPUs
    members = [start(*command, environment=each, prelude=few) for each in environments]
    ended = [end(member) for member in members]
    assert [each.status for each in ended] == [0, 0], ended
    kernels = list(tmp_path.glob("*data4_*_kernel_t*[nt].npy"))
    assert len(kernels) == 4
    for path in kernels:
        assert np.allclose(
            np.load(path), np.load(undisturbed / path.name), rtol=1e-11, atol=1e-15
        ), path
        assert path.stat().st_size == (undisturbed / path.name).stat().st_size


SHORT_OF_PATIENCE = """
import time
from runtime import kernels, processes
processes.answer_seconds = 10
training.reference_size = 4
kernels.pairs_at_once = lambda pairs: 16
sitting.Sitting.progress = lambda self, pairs: time.sleep(0.2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_run(tmp_path, victim):
    """By kill -9 while kernels are computed; the other one says so, and a new run goes on."""
    arguments = ("--dataset", "digits", "--networks", "convolutional", "--data-sizes", "4")
    arguments += ("--trials", "1", "--test-size", "160", "--output", tmp_path)
    members = team(*arguments, prelude=SHORT_OF_PATIENCE)
    path = tmp_path / "digits-convolutional_seed0_data4_trial0_kernel_test.npy"
    wait_until(lambda: checkpoints.count_missing(path, {}, 640) < 640)
    members[victim].kill()
    others = [end(member) for member in members]
    other = others[1 - victim]
    assert other.status == 1, other
    last = other.err.splitlines()[-1]
    assert last.startswith("training.py: error: ") and "run it again, all processes of it" in last
    assert ("another process ended" in last) or ("the processes lost each other" in last)
    assert [partial.name for partial in tmp_path.glob("*.partial")] == [f"{path.name}.partial"]
    assert not path.exists()
    out = succeed(*arguments)
    assert "pairs are in" in out and "note" not in out
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob("*.old"))


@pytest.mark.slow
def test_two_processes_that_disagree_end_both(tmp_path):
    """Whoever ends first says why; the other may only notice that it is alone."""
    members = team(
        *QUICK, "--output", tmp_path, only_second=("--seed", 7), prelude=SHORT_OF_PATIENCE
    )
    ended = [end(member) for member in members]
    assert {each.status for each in ended} <= {1, 2}, ended
    words = "--process-id 1: have other data, options or another version"
    assert any(each.status == 2 and words in each.err for each in ended)
    assert all(words in each.err or each.status == 1 for each in ended)


@pytest.mark.slow
def test_an_abort_of_jax_is_explained():
    """In C++, where Python has no say."""
    where = f"127.0.0.1:{free_port()}"
    program = "import os; from runtime import processes\n"
    program += f"processes.join_processes({where!r}, 1, 0); os.abort()"
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    line = f"-c: error: --coordinator {where}: another process ended; {processes.run_again}"
    assert ended.returncode == 1 and ended.stderr.splitlines()[-1] == line


JOIN = """
import os, signal, sys
from runtime import processes, streams

def main():
    processes.note_seconds = 0.5
    processes.answer_seconds = int(sys.argv[1])
    processes.join_processes(*eval(sys.argv[2]))
    os.kill(os.getpid(), signal.SIGTERM)
    return 0

streams.run_script(main)
"""


def join(answer_seconds, arguments, environment=None):
    """A process that joins a run and then sends itself SIGTERM."""
    command = [sys.executable, "-c", JOIN, str(answer_seconds), repr(arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_others_that_do_not_come_are_asked_for_and_signals_are_heard_meanwhile(slurm):
    """In one line and without a C++ backtrace, as where Slurm's variables are left over."""
    waiting = join(2, (None, None, None), slurm)
    stopped = join(60, (None, None, None), slurm | {"SLURM_JOB_ID": str(free_port())})
    words = (
        "SLURM_STEP_NUM_TASKS 2: not all processes are there {}; start all of them together, or "
    )
    words += "run alone: SLURM_STEP_NUM_TASKS=1 python -c "
    note = stopped.stderr.readline()
    assert note.startswith("note: " + words.format("yet"))
    stopped.terminate()
    ended = end(stopped)
    assert ended.status == 128 + signal.SIGTERM and ended.err.startswith("-c: stopped by SIGTERM; ")
    ended = end(waiting)
    lines = ended.err.splitlines()
    assert (
        ended.status == 2 and len(lines) == 2 and lines[0] == note.rstrip().replace(" 60 ", " 2 ")
    )
    assert lines[1].startswith("-c: error: " + words.format("after 2 s")), lines


@pytest.mark.slow
def test_a_process_that_has_joined_hears_signals():
    """JAX would take SIGTERM for itself."""
    ended = end(join(60, (f"127.0.0.1:{free_port()}", 1, 0)))
    assert ended.status == 128 + signal.SIGTERM and "stopped by SIGTERM" in ended.err, ended


@pytest.fixture
def slurm(monkeypatch):
    """What Slurm tells the first of two tasks; no other launcher says anything."""
    variables = {"SLURM_JOB_ID": str(free_port()), "SLURM_STEP_NODELIST": "127.0.0.1"}
    variables |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    variables |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("OMPI_COMM_WORLD_SIZE", "SLURM_TASK_PID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processes.os, "isatty", lambda descriptor: False)
    return variables


def test_variables_that_slurm_left_over_are_named_at_once(slurm, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["training.py", "--output", "a b"])
    assert processes.find_launcher() == ("SLURM_STEP_NUM_TASKS", "2")
    alone = "to run alone: SLURM_STEP_NUM_TASKS=1 python training.py --output 'a b'"
    for name in slurm.keys() - {"SLURM_STEP_NUM_TASKS"}:
        with monkeypatch.context() as patch, pytest.raises(BadInput) as refused:
            patch.delenv(name)
            processes.join_processes(None, None, None)
        words = f"left over from another job, as {name} is not set; {alone}"
        assert str(refused.value) == f"SLURM_STEP_NUM_TASKS 2: {words}"
    monkeypatch.setattr(processes.os, "isatty", lambda descriptor: descriptor == 0)
    for pid in (None, "1"):  # the shell's, not this process's
        if pid:
            monkeypatch.setenv("SLURM_TASK_PID", pid)
        with pytest.raises(BadInput) as refused:
            processes.join_processes(None, None, None)
        assert refused.value.remedy.startswith("of this terminal's srun --pty; ")
        assert refused.value.remedy.endswith(alone)
    monkeypatch.setenv("SLURM_TASK_PID", str(os.getpid()))
    assert processes.find_launcher() == ("SLURM_STEP_NUM_TASKS", "2")


def test_how_many_processes_launchers_started(slurm, monkeypatch):
    for value in ("1", "0", "", " 1"):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", value)
        processes.join_processes(None, None, None)
        assert processes.find_launcher() is None and processes.process_count() == 1
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "many")
    with pytest.raises(
        BadInput, match="SLURM_STEP_NUM_TASKS many: no number of processes; unset it"
    ):
        processes.find_launcher()
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")  # mpirun inside srun: the inner one counts
    assert processes.find_launcher() == ("OMPI_COMM_WORLD_SIZE", "4")


def test_a_c_library_without_signal_will_do(monkeypatch):
    """As on Windows, where ctypes refuses None."""

    def refuse(name):
        raise TypeError("argument of type 'NoneType' is not iterable")

    monkeypatch.setattr(processes.ctypes, "CDLL", refuse)
    processes.explain_abort("a message")
