"""Output that can't be written, and signals.

The first never ends a computation, the others end it in one line.
"""

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import QUICK, ROOT, end, start

from runtime import streams

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
TALK = """
import os, sys
from runtime import streams

def main():
    from tqdm import tqdm
    if sys.stdin:
        sys.stdin.readline()
    for i in tqdm(range(3)):
        print("κ =", i)
    print("κ", file=sys.stderr, flush=True)
    tqdm.write("κ")
    print("no end", end="")
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        stream.flush()  # as Python does in the end
    return 7

streams.run_script(main)
"""
BUFFERED = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}  # as usual
END = 7  # the status of a program that came to its end


def talk(redirection="", program=TALK, **how):
    """Run a program after a shell's redirection.

    Its ended process, with the bytes that it wrote.
    """
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", program]
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    return subprocess.run(command, cwd=ROOT, env=BUFFERED, timeout=60, **how)


# ---- output ----


@posix
@pytest.mark.parametrize(
    "redirection", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>&1"]
)
def test_closed_streams_and_full_disks_end_nothing(redirection):
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    ended = talk(redirection)
    assert ended.returncode == END
    if "2" not in redirection:
        assert b"3/3" in ended.stderr and b"Traceback" not in ended.stderr
    if redirection == "2>&-":
        assert ended.stdout.decode() == "κ = 0\nκ = 1\nκ = 2\nκ\nno end"


@posix
def test_a_reader_that_has_gone_ends_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert talk(stdout=writer, stderr=writer).returncode == END
    finally:
        os.close(writer)


@posix
def test_a_terminal_that_is_lost_ends_nothing():
    """Its streams then answer EIO; the progress bar had begun."""
    import pty

    terminal, slave = pty.openpty()
    command = [sys.executable, "-c", TALK]
    how = dict(stdin=subprocess.PIPE, stdout=slave, stderr=slave, cwd=ROOT, env=BUFFERED)
    process = subprocess.Popen(command, start_new_session=True, **how)
    os.close(slave)
    os.close(terminal)
    process.communicate(b"\n", timeout=60)
    assert process.returncode == END


@pytest.mark.parametrize(
    "encoding, kappa", [("ascii", rb"\u03ba"), ("cp1252", rb"\u03ba"), ("ascii:replace", b"?")]
)
def test_characters_that_an_encoding_lacks_end_nothing(encoding, kappa):
    environment = BUFFERED | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", TALK]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, input=b"", capture_output=True, timeout=60
    )
    assert ended.returncode == END
    assert ended.stdout.splitlines() == [kappa + b" = %d" % i for i in range(3)] + [
        kappa,
        b"no end",
    ]
    assert kappa in ended.stderr and b"Traceback" not in ended.stderr


@posix
def test_lines_come_back_when_the_disk_has_room_again(tmp_path):
    program = """
import resource
from runtime import streams

def main():
    print("before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7, before[1]))
    print("lost" * 10000)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    print("after")
    return 7

streams.run_script(main)
"""
    log = tmp_path / "log.txt"
    with log.open("wb") as file:
        ended = talk(program=program, stdout=file)
    assert ended.returncode == END and ended.stderr == b""
    assert log.read_text() == "before\nafter\n"


class Refusing(io.StringIO):
    """A stream that answers like a closed pipe on Windows."""

    def flush(self):
        raise OSError(errno.EINVAL, "Invalid argument")


def test_any_error_of_a_stream_is_swallowed():
    closed = io.StringIO()
    log = streams.Log(closed)
    closed.close()
    for refusing in (streams.Log(Refusing()), log, streams.Log(None)):
        print("κ", file=refusing, flush=True)
        refusing.writelines(["a\n", "b"])


def test_lines_of_threads_stay_apart():
    """Each is handed over at once, also where print writes it in pieces.

    Its beginning can be flushed.
    """
    stream = io.StringIO()
    pieces = []
    stream.write = pieces.append
    log = streams.Log(stream)

    def speak(name):
        for i in range(100):
            print(name, i, "of many", file=log)

    threads = [threading.Thread(target=speak, args=(name,)) for name in "abcd"]
    [thread.start() for thread in threads]
    print("question", end="", file=log)
    [thread.join() for thread in threads]
    assert sorted(pieces) == sorted(f"{name} {i} of many\n" for name in "abcd" for i in range(100))
    log.flush()
    log.flush()
    print("50 %", end="\r", file=log)
    assert pieces[400:] == ["question", "50 %\r"]


@posix
def test_descriptors_that_are_closed_are_no_file_s():
    """A kernel that got descriptor 2 would be written into by every library that has something to say."""
    program = """
import os, sys
from runtime import streams
streams.prepare_process()
streams.prepare_process()
opened = os.open("/dev/null", os.O_RDONLY)
os.write(1, b"a library speaks")
is_log = [isinstance(stream, streams.Log) for stream in (sys.stdout, sys.stdout.stream)]
os._exit(7 if opened > 2 and is_log == [True, False] else 1)
"""
    assert talk("<&- >&- 2>&-", program).returncode == END


# ---- signals ----

WAIT = """
import os, signal, sys
from runtime import streams
from runtime.files import temporary_folder

def main():
    with temporary_folder() as folder:
        (folder / "kernel.npy").write_text("large")
        print(folder, flush=True)
        for name in sys.argv[1:]:
            os.kill(os.getpid(), getattr(signal, name))
    return 7

streams.run_script(main)
"""


def wait(*names, **how):
    """Run a program that sends itself signals amid its work in a temporary folder.

    Ended process, folder.
    """
    command = [sys.executable, "-c", WAIT, *names]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, **how)
    return ended, Path(ended.stdout.strip())


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_in_one_line_and_leaves_no_temporary_folder(name):
    if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN:
        pytest.skip("ignored, as under nohup")
    ended, folder = wait(name)
    assert ended.returncode == 128 + getattr(signal, name)
    assert ended.stderr == f"-c: stopped by {name}; to go on: python -c {name}\n"
    assert folder.name and not folder.exists()


@posix
def test_a_reader_that_does_not_read_keeps_no_process():
    """As a pager whose pipe is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    command = [sys.executable, "-c", WAIT, "SIGTERM"]
    how = dict(cwd=ROOT, stdout=subprocess.DEVNULL, stderr=writer)
    try:
        assert subprocess.run(command, timeout=60, **how).returncode == 128 + signal.SIGTERM
    finally:
        os.close(reader)
        os.close(writer)


@posix
def test_nohup_is_heeded():
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", WAIT, "SIGHUP"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == END and ended.stderr == ""
    assert not Path(ended.stdout.strip()).exists()


def test_signals_that_a_system_lacks_are_left_out(monkeypatch):
    """As SIGHUP on Windows."""
    handled = []
    monkeypatch.setattr(streams, "SIGNALS", ("SIGINT", "SIGNOWHERE", "SIGTERM"))
    monkeypatch.setattr(streams.signal, "signal", lambda number, handler: handled.append(number))
    streams.handle_signals(streams.stop)
    assert handled == [signal.SIGINT, signal.SIGTERM]


def test_scripts_are_prepared_before_their_heavy_imports():
    program = """
import runpy, sys
from runtime import streams

def check():
    heavy = [name for name in ("numpy", "scipy", "ntk", "tqdm") if name in sys.modules]
    print(heavy)
    raise SystemExit

streams.prepare_process = check
for script in sys.argv[1:]:
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit:
        pass
"""
    scripts = sorted(path.name for path in ROOT.glob("*.py"))
    command = [sys.executable, "-c", program, *scripts]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert len(scripts) == 6 and ended.stdout == 6 * "[]\n"


def test_the_command_to_go_on_can_be_pasted(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["training.py", "--output", "a b"])
    assert streams.command() == "python training.py --output 'a b'"
    monkeypatch.setattr(streams.os, "name", "nt")
    assert streams.command() == 'python training.py --output "a b"'


@pytest.mark.slow
@posix
def test_a_verification_that_is_stopped_leaves_no_temporary_folder(tmp_path):
    """`--verify` computes in one."""
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "any_results.nc").touch()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    prelude = "import os, signal\n"
    prelude += "training.compute_trial = lambda *_: os.kill(os.getpid(), signal.SIGTERM)"
    arguments = (*QUICK, "--verify")
    environment = {"TMPDIR": str(temporary)}
    ended = end(
        start(*arguments, "--output", tmp_path / "output", prelude=prelude, environment=environment)
    )
    assert ended.status == 128 + signal.SIGTERM, ended
    assert list(temporary.iterdir()) == []
