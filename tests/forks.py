"""Forks runs of training.py from a process that has imported what they need; conftest.py starts it.

A run takes a second or two less than a process that begins with its imports. Orders come as lines of
JSON, and each is answered by one: {"start": program, ...} by the new process's id, {"poll": id} by
its exit status, or null while it runs.
"""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def answer(order):
    """Do what an order says; a new process returns None, and has the order to do."""
    if "poll" in order:
        pid, status = os.waitpid(order["poll"], os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else "running"
    pid = os.fork()
    return pid or None


def take_orders():
    """Answer until there is no more; in a new process, return its order."""
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        answered = answer(order)
        if answered is None:
            return order
        print(json.dumps(answered), flush=True)
    os._exit(0)


def become(order):
    """Let this process have the order's files, variables and arguments."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    opened = [os.open(os.devnull, os.O_RDONLY)]
    opened += [os.open(order[name], flags, 0o600) for name in ("out", "err")]
    for descriptor, file in enumerate(opened):
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = order["argv"]


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    os.chdir(ROOT)
    import jax
    import sklearn.datasets

    import training
    from ntk import numba_engine

    for network in training.make_networks():
        numba_engine.is_compiled(network, "float64")
    assert jax and sklearn
    order = take_orders()
    become(order)
    exec(order["start"], {"__name__": "__main__"})
