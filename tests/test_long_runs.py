"""Runs that are killed at any moment, by any signal, lose nothing: what has a final name is right, the rest goes on."""

import contextlib
import itertools
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import TINY, contents, end, start, succeed, wait_until

# Watches what a run does to its files and matrices, and sends itself a signal before or after what is described.
INTERRUPTED = """
import os
from pathlib import Path
from runtime import checkpoints, files, sitting

def watch(owner, name):
    original = getattr(owner, name)

    def watched(*arguments, **options):
        of = " ".join(str(getattr(a, "name", getattr(a, "network", ""))) for a in arguments)
        for moment in ("before", "after"):
            result = original(*arguments, **options) if moment == "after" else None
            if f"{{moment}} {{name}} {{of}}".startswith("{moment}"):
                os.kill(os.getpid(), {signal})
        return result

    setattr(owner, name, watched)

checkpoints.pairs_at_once = lambda pairs: 16
for owner, names in ((checkpoints, "open_matrix finish_matrix checksum"), (Path, "replace"),
                     (files, "write_durably"), (sitting.Sitting, "progress")):
    for name in names.split():
        watch(owner, name)
"""
FULLY_CONNECTED, CONVOLUTIONAL = "digits-fully-connected", "digits-convolutional"
MOMENTS = [  # in the order in which a run comes to them
    "after write_durably run.lock.owner.partial",
    "after open_matrix",
    f"after progress {FULLY_CONNECTED[7:]}",
    "before checksum",
    f"before replace {FULLY_CONNECTED}_seed0_data4_trial0_kernel_train",
    "after finish_matrix",  # between the two matrices
    f"after write_durably {FULLY_CONNECTED}_results.npz.partial",
    f"after replace {FULLY_CONNECTED}_results.npz.partial",
    f"after progress {CONVOLUTIONAL[7:]}",  # amid the matrices
    f"after finish_matrix {CONVOLUTIONAL}_seed0_data16_trial0_kernel_train",
    f"before replace {CONVOLUTIONAL}_results.npz.partial",
]


def handles_signals(pid):
    """Whether the process catches SIGTERM yet; before, the interpreter starts."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        time.sleep(5)
        return True
    return int(status.read_text().partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1


def check_end(ended, number):
    """The right exit status, and one line that says how to go on."""
    if number == signal.SIGKILL:
        assert ended.status == -signal.SIGKILL, ended
    else:
        assert ended.status == 128 + number, ended
        line = f"training.py: stopped by {signal.Signals(number).name}; to go on: python training.py --dataset digits"
        assert ended.err.startswith(line) and ended.err.count("\n") == 1 and "--test-size" in ended.err


def check_folder(folder, expected):
    """What has a final name is what an undisturbed run would have written."""
    found = contents(folder) if folder.exists() else {}
    assert {name: found[name] == expected[name] for name in found} == dict.fromkeys(found, True)


@pytest.mark.slow
def test_kills_wherever_a_run_touches_its_files(undisturbed, tmp_path):
    """From the lock to the results, each run going on where the last one was ended; then one is left to finish."""
    expected, folder = contents(undisturbed), tmp_path / "output"
    numbers = itertools.cycle([signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
    for moment, number in zip(MOMENTS, numbers, strict=False):
        prelude = INTERRUPTED.format(moment=moment, signal=int(number))
        check_end(end(start(*TINY, "--output", folder, prelude=prelude)), number)
        check_folder(folder, expected)
    assert "note: " not in succeed(*TINY, "--output", folder)
    assert contents(folder) == expected
    assert not list(folder.glob("*.partial")) and not list(folder.glob("*.old"))


@pytest.mark.slow
def test_kills_at_random_times(undisturbed, tmp_path):
    """Also in the middle of what Python does not see."""
    expected, folder, rng = contents(undisturbed), tmp_path / "output", random.Random(20)
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process = start(*TINY, "--output", folder)
        wait_until(lambda pid=process.pid: handles_signals(pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 2))
        process.send_signal(number)
        ended = end(process)
        check_folder(folder, expected)
        if ended.status == 0:
            shutil.rmtree(folder)
        else:
            check_end(ended, number)
    succeed(*TINY, "--output", folder)
    assert contents(folder) == expected and not list(folder.glob("*.partial"))


SLOW = [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGKILL)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, *SLOW])
def test_a_run_that_is_stopped_amid_a_matrix_goes_on_there(undisturbed, tmp_path, number):
    """The first block of the convolutional kernels has been written, the second one not."""
    prelude = INTERRUPTED.format(moment="never", signal=0) + f"""
checkpoints.pairs_at_once = lambda pairs: 16
def stop_here(self, pairs, seen=[]):
    seen.append(pairs)
    if len(seen) == 2:
        os.kill(os.getpid(), {int(number)})
sitting.Sitting.progress = stop_here
"""
    arguments = ("--dataset", "digits", "--networks", "convolutional", "--data-sizes", 16, "--trials", 1)
    arguments += ("--test-size", 4, "--output", tmp_path)
    check_end(end(start(*arguments, prelude=prelude)), number)
    assert len(list(tmp_path.glob("*.partial"))) == 2 and not list(tmp_path.glob("*.npy"))
    out = succeed(*arguments)
    assert "convolutional: 32 pairs are in" in out and "the other 168 pairs" in out and "note: " not in out
    for name, content in contents(tmp_path).items():
        assert name.endswith("_results.npz") or content == (undisturbed / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_quantities_of_finished_trials_survive(tmp_path, number):
    """A signal in the third trial, whose kernels cost nothing: the first one, or two, are not computed again."""
    prelude = f"""
import os
compute = training.compute_trial
def stop_in_third(run, trial, progress, seen=[]):
    seen.append(trial)
    if len(seen) == 3:
        os.kill(os.getpid(), {int(number)})
    return compute(run, trial, progress)
training.compute_trial = stop_in_third
"""
    arguments = ("--dataset", "digits", "--networks", "fully-connected", "--data-sizes", 4, "--trials", 4)
    arguments += ("--test-size", 4, "--output")
    check_end(end(start(*arguments, tmp_path / "stopped", prelude=prelude)), number)
    assert re.search("[12] trials are there from a run that was stopped", succeed(*arguments, tmp_path / "stopped"))
    succeed(*arguments, tmp_path / "whole")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert not list((tmp_path / "stopped").glob("*.unfinished"))
