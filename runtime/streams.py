"""What a process says, and what ends it: output streams that never fail, and signals.

The standard library alone is imported here, so that a script can be prepared before its other
imports, which take seconds. A script begins and ends like this (ruff lets an `if` stand there):

    from runtime import streams

    if __name__ == "__main__":
        streams.prepare_process()  # before the other imports: they take seconds

    import numpy as np
    ...

    if __name__ == "__main__":
        streams.run_script(main)
"""

import contextlib
import os
import select
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # that end a run; not every system has all
# Removed when a signal ends the process; see files.temporary_folder.
temporary_folders: set[Path] = (
    set()
)


def program() -> str:
    """The name of the script that runs."""
    return Path(sys.argv[0]).name


def command() -> str:
    """The command line that was given, as it can be pasted into a shell."""
    if os.name == "nt":
        import subprocess

        return f"python {subprocess.list2cmdline(sys.argv)}"
    return f"python {shlex.join(sys.argv)}"


# --------------------------------------------------------------------------------------------------
# Output
# --------------------------------------------------------------------------------------------------


class Log:
    """A text stream for messages: whole lines at once, and never an error.

    No message is worth a computation. What can't be written is dropped, line by line: a reader
    went away, the disk is full, a terminal was lost, the stream was closed from the start.
    Characters that its encoding lacks become escapes, as in Python's literals. The beginning of a
    line waits for its end or for `flush`, so lines of several threads and processes stay apart.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        self.lock = threading.RLock()
        self.begun = threading.local()  # .text: the beginning of this thread's line
        reconfigure = getattr(self.stream, "reconfigure", None)
        if reconfigure and self.stream.errors in ("strict", "surrogateescape"):
            reconfigure(errors="backslashreplace")
        with contextlib.suppress(
            OSError, ValueError
        ):  # a pipe that does not wait would drop long lines
            os.set_blocking(self.stream.fileno(), True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write what ends in this text, and keep the rest until its line ends."""
        line = getattr(self.begun, "text", "") + text
        is_whole = "\n" in text or "\r" in text
        self.begun.text = "" if is_whole else line
        if is_whole:
            self.send(line)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write all of them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write the beginning of this thread's line."""
        line = getattr(self.begun, "text", "")
        self.begun.text = ""
        if line:
            self.send(line)

    def send(self, text: str) -> None:
        """Hand a text to the system, or drop it where the system refuses it."""
        with self.lock:
            try:
                self.stream.write(text)
                self.stream.flush()
            except (OSError, ValueError):  # ValueError: somebody closed it
                self.drop_unwritten()

    def drop_unwritten(self) -> None:
        """Empty the stream's buffer into nowhere.

        Python would try again to write it at the end, and then leave with status 120.
        """
        with contextlib.suppress(OSError, ValueError):
            descriptor = self.stream.fileno()
            kept = os.dup(descriptor)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            try:
                self.stream.flush()
            finally:
                os.dup2(kept, descriptor)  # a disk may have room for later lines
                os.close(kept)
                os.close(nowhere)


def occupy_standard_descriptors() -> None:
    """Open what is closed of the descriptors 0, 1 and 2, as after `>&-`.

    Else the next file to be opened gets the number, a kernel for example, and a library's warnings
    are written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)


# --------------------------------------------------------------------------------------------------
# Starting and ending
# --------------------------------------------------------------------------------------------------


def prepare_process() -> None:
    """Let signals end the process in one line, and its messages never; twice is as good as once."""
    handle_signals(stop)
    occupy_standard_descriptors()
    if not isinstance(sys.stdout, Log):
        sys.stdout = Log(sys.stdout)  # type: ignore[assignment]
    if not isinstance(sys.stderr, Log):
        sys.stderr = Log(sys.stderr)  # type: ignore[assignment]


def handle_signals(handler: Any) -> None:
    """Let `handler` answer the signals that end a run; what nohup ignores stays ignored."""
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is None or (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            continue
        signal.signal(number, handler)


def stop(number: int, _: FrameType | None) -> NoReturn:
    """On Ctrl-C and its kind: say how to go on, and leave.

    An exception could get lost in a library's callback, and whatever is on the disk survives even
    kill -9.
    """
    name = signal.Signals(number).name
    leave(128 + number, f"stopped by {name}; to go on: {command()}")


def leave(status: int, message: str) -> NoReturn:
    """Say one line, remove the temporary folders, and end at once, whatever threads are doing."""
    with contextlib.suppress(ValueError):  # not the main thread, where signals can't be set
        handle_signals(signal.SIG_IGN)
    line = f"{program()}: {message}\n"
    if os.isatty(2):
        line = "\n" + line  # below the progress bar
    with contextlib.suppress(OSError):
        # A pager that stopped reading must not keep the process; Windows waits for sockets alone.
        if os.name == "nt" or select.select([], [2], [], 1)[1]:
            os.write(2, os.fsencode(line))
    for folder in list(temporary_folders):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(status)


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """The end of a script, under `if __name__ == "__main__"`: main(), and leave with its status."""
    prepare_process()
    status = main()
    handle_signals(signal.SIG_IGN)  # all is written: leave with that status whatever comes
    sys.exit(status)
