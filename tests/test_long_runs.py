"""Runs that are killed at any moment, by any signal, lose nothing and go on where they ended."""

import contextlib
import itertools
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import TINY, check_what_is_there, contents, end, start, succeed, wait_until

# Watches what a run does to its files, and sends itself a signal before or after what is described.
INTERRUPTED = """
import os
from pathlib import Path
from runtime import checkpoints, files, kernels, sitting

def described(argument):
    for name in ("network", "path", "name"):
        argument = getattr(argument, name, argument)
    return str(argument)

def watch(owner, name):
    original = getattr(owner, name)

    def watched(*arguments, **options):
        of = " ".join(map(described, arguments))
        for moment in ("before", "after"):
            result = original(*arguments, **options) if moment == "after" else None
            if f"{{moment}} {{name}} {{of}}".startswith("{moment}"):
                os.kill(os.getpid(), {signal})
        return result

    setattr(owner, name, watched)

kernels.pairs_at_once = lambda pairs: 16
watch(Path, "replace")
watch(files, "write_durably")
watch(kernels, "write_kernel")
for name in ("open", "append", "remove"):
    watch(checkpoints.Journal, name)
watch(sitting.Sitting, "progress")
"""
FULLY_CONNECTED = "digits-fully-connected"
CONVOLUTIONAL = "digits-convolutional"
MOMENTS = [  # in the order in which a run comes to them
    "after write_durably run.lock.owner.partial",
    f"after write_durably {FULLY_CONNECTED}_seed0_data4_trial0_kernel_train.npy.partial",
    f"after write_kernel {FULLY_CONNECTED}_seed0_data4_trial0_kernel_train",  # between two kernels
    f"after progress {FULLY_CONNECTED[7:]}",
    f"after write_durably {FULLY_CONNECTED}_results.nc.partial",
    f"after replace {FULLY_CONNECTED}_results.nc.partial",
    f"after open {CONVOLUTIONAL}_seed0_data4_trial0_kernel_train",
    f"after append {CONVOLUTIONAL}_seed0_data16_trial0_kernel_train",  # amid a kernel
    f"before remove {CONVOLUTIONAL}_seed0_data16_trial0_kernel_train",
    f"before replace {CONVOLUTIONAL}_results.nc.partial",
]


def handles_signals(pid):
    """Whether the process catches SIGTERM yet; before, the interpreter starts."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        time.sleep(5)
        return True
    caught = int(status.read_text().partition("SigCgt:")[2].split()[0], 16)
    return caught >> (signal.SIGTERM - 1) & 1


def check_end(ended, number):
    """The right exit status, and one line that says how to go on."""
    if number == signal.SIGKILL:
        assert ended.status == -signal.SIGKILL, ended
    else:
        assert ended.status == 128 + number, ended
        name = signal.Signals(number).name
        line = f"training.py: stopped by {name}; to go on: python training.py --dataset digits"
        assert ended.err.startswith(line) and ended.err.count("\n") == 1, ended
        assert "--test-size" in ended.err


@pytest.mark.slow
def test_kills_wherever_a_run_touches_its_files(undisturbed, tmp_path):
    """From the lock to the results, each run going on where the last one was ended."""
    folder = tmp_path / "output"
    numbers = itertools.cycle([signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
    for moment, number in zip(MOMENTS, numbers, strict=False):
        prelude = INTERRUPTED.format(moment=moment, signal=int(number))
        ended = end(start(*TINY, "--output", folder, prelude=prelude))
        check_end(ended, number)
        check_what_is_there(folder, undisturbed)
    assert "note: " not in succeed(*TINY, "--output", folder)
    assert contents(folder) == contents(undisturbed)
    assert not list(folder.glob("*.partial")) and not list(folder.glob("*.old"))


@pytest.mark.slow
def test_kills_at_random_times(undisturbed, tmp_path):
    """Also in the middle of what Python does not see."""
    folder, rng = tmp_path / "output", random.Random(20)
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process = start(*TINY, "--output", folder)
        wait_until(lambda pid=process.pid: handles_signals(pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 1))
        process.send_signal(number)
        ended = end(process)
        if folder.exists():
            check_what_is_there(folder, undisturbed)
        if ended.status == 0:
            shutil.rmtree(folder)
        else:
            check_end(ended, number)
    succeed(*TINY, "--output", folder)
    assert contents(folder) == contents(undisturbed) and not list(folder.glob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_amid_a_matrix_goes_on_there(undisturbed, tmp_path, number):
    """Two blocks of the convolutional kernel_test have been written, the rest not."""
    prelude = f"""
import os
from runtime import checkpoints, kernels
kernels.pairs_at_once = lambda pairs: 16
append = checkpoints.Journal.append
def stop_after_second(journal, positions, values, seen=[]):
    append(journal, positions, values)
    seen.append(journal.path.name)
    if sum("kernel_test" in name for name in seen) == 2:
        os.kill(os.getpid(), {int(number)})
checkpoints.Journal.append = stop_after_second
"""
    arguments = ("--dataset", "digits", "--networks", "convolutional", "--data-sizes", 16)
    arguments += ("--trials", 1, "--test-size", 4, "--output", tmp_path)
    check_end(end(start(*arguments, prelude=prelude)), number)
    (partial,) = tmp_path.glob("*.partial")
    assert "kernel_test" in partial.name
    assert [path.name[-16:] for path in tmp_path.glob("*.npy")] == ["kernel_train.npy"]
    out = succeed(*arguments)
    assert f"convolutional: {136 + 32} pairs are in" in out and "the other 32 pairs" in out
    assert "note: " not in out and not list(tmp_path.glob("*.partial"))
    check_what_is_there(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_quantities_of_finished_trials_survive(tmp_path, number):
    """A signal in the third trial: the first one, or two, are not computed again."""
    prelude = f"""
import os
from runtime import results
results.FIRST_SAVE = -1
compute = training.compute_trial
def stop_in_third(run, trial, *how, seen=[]):
    seen.append(trial)
    if len(seen) == 3:
        os.kill(os.getpid(), {int(number)})
    return compute(run, trial, *how)
training.compute_trial = stop_in_third
"""
    arguments = ("--dataset", "digits", "--networks", "fully-connected", "--data-sizes", 4)
    arguments += ("--trials", 4, "--test-size", 4, "--output")
    check_end(end(start(*arguments, tmp_path / "stopped", prelude=prelude)), number)
    out = succeed(*arguments, tmp_path / "stopped")
    counts = [f"{4 - there} trials to compute, {there} are in the results" for there in (1, 2)]
    assert any(count in out for count in counts), out
    succeed(*arguments, tmp_path / "whole")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
