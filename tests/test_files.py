"""Files: whole or not at all, never through a link; and folders, files and arrays that strangers have prepared."""

import contextlib
import errno
import io
import os
import signal
import socket
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, call, complaint, succeed

from ntk import BadInput
from runtime import files, streams

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")


@pytest.fixture(autouse=True)
def no_hang():
    """End a test that waits for a pipe."""
    if os.name == "nt":
        yield
        return

    def complain(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, complain)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def outside(tmp_path):
    """A file outside the output folder that nothing may write to."""
    path = tmp_path / "outside"
    path.write_text("precious")
    yield path
    assert path.read_text() == "precious"


@pytest.fixture
def folder(tmp_path):
    """An output folder."""
    path = tmp_path / "output"
    path.mkdir()
    return path


@pytest.fixture
def closed():
    """A folder that nobody but root may look into, for a process that is not root."""
    if os.name == "nt":
        pytest.skip("Windows has other rights")
    with tempfile.TemporaryDirectory() as parent:
        closed = Path(parent) / "closed"
        (closed / "output").mkdir(parents=True)
        Path(parent).chmod(0o755)
        closed.chmod(0)
        if os.getuid() == 0:
            os.seteuid(65534)
        try:
            yield closed
        finally:
            os.seteuid(os.getuid())
            closed.chmod(0o700)


def write_bytes(content):
    """What `files.save` calls."""
    return lambda file: file.write(content)


# ---- writing ----


@posix
@pytest.mark.parametrize("name", ["some.txt", "some.txt.partial"])
def test_nothing_is_written_through_a_link(folder, outside, name):
    (folder / name).symlink_to(outside)
    files.save_text(folder / "some.txt", "κ\n")
    assert [path.name for path in folder.iterdir()] == ["some.txt"]
    assert not (folder / "some.txt").is_symlink()
    assert (folder / "some.txt").read_text(encoding="utf-8") == "κ\n"


@posix
def test_a_link_that_comes_at_the_last_moment_is_refused(folder, outside, monkeypatch):
    unlink = Path.unlink

    def plant(path, missing_ok=False):
        unlink(path, missing_ok=missing_ok)
        path.symlink_to(outside)

    monkeypatch.setattr(Path, "unlink", plant)
    with pytest.raises(BadInput, match=r"can't write some.partial \(File exists\)"):
        files.save(folder / "some", write_bytes(b"new"))


@posix
@pytest.mark.parametrize("name", ["some", "some.partial"])
def test_a_folder_in_a_file_s_place_is_put_aside(folder, name, capsys):
    (folder / name).mkdir()
    files.save(folder / "some", write_bytes(b"new"))
    assert f"note: {name} is a folder; it is kept as {name}.1.old" in capsys.readouterr().out
    assert (folder / f"{name}.1.old").is_dir() and (folder / "some").read_bytes() == b"new"


@posix
def test_a_file_is_on_the_disk_before_it_gets_its_name_and_then_its_folder_is(folder, monkeypatch):
    seen = []

    def fsync(descriptor):
        names = [path.name for path in folder.iterdir()]
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), names))

    monkeypatch.setattr(files.os, "fsync", fsync)
    files.save(folder / "some", write_bytes(b"new"))
    assert seen == [(False, ["some.partial"]), (True, ["some"])]


def test_a_file_system_that_does_not_flush_folders_will_do(folder, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(files.os, "open", refuse)  # as Windows does with folders
    files.save(folder / "some", write_bytes(b"new"))
    assert (folder / "some").read_bytes() == b"new"


def test_an_error_amid_writing_leaves_what_was_there(folder):
    (folder / "some").write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise ValueError("of the program")

    with pytest.raises(ValueError, match="of the program"):
        files.save(folder / "some", fail)
    with pytest.raises(ValueError, match="of the program"):
        files.write_durably(folder / "other", fail)
    assert [path.name for path in folder.iterdir()] == ["some"]
    assert (folder / "some").read_bytes() == b"old"


@posix
def test_what_can_not_be_used_is_put_aside_whatever_it_is(folder, outside, capsys):
    (folder / "some").symlink_to(outside)
    (folder / "some.1.old").symlink_to(folder / "nowhere")
    files.put_aside(folder / "some", "is a symbolic link")
    (folder / "some").mkdir()
    files.put_aside(folder / "some", "is a folder", "replaced")
    assert sorted(path.name for path in folder.iterdir()) == [f"some.{k}.old" for k in (1, 2, 3)]
    assert "some is a folder; it is kept as some.3.old and replaced" in capsys.readouterr().out


@posix
def test_small_arrays_replace_whatever_is_no_such_array(folder, outside):
    path, labels = folder / "label.npy", np.array([1, -1])

    def sparse():
        np.save(path, labels)
        os.truncate(path, 2**40)

    plants = [lambda: path.symlink_to(outside), lambda: os.mkfifo(path), path.mkdir, sparse]
    plants += [lambda: path.write_bytes(b"none"), lambda: np.save(path, labels + 1)]
    plants += [lambda: path.symlink_to(folder / "nowhere")]
    for plant in plants:
        plant()
        files.save_unless_there(path, labels)
        files.save_unless_there(path, labels)
        assert np.array_equal(np.load(path), labels)
        path.unlink()
    assert len(list(folder.glob("*.old"))) == len(plants)


@posix
def test_a_run_in_a_folder_of_a_stranger_stays_inside(folder, outside):
    """Links wait in the places of all kinds of files that it writes."""
    prefix = "digits-fully-connected"
    names = ["run.json", "run.json.partial", "run.lock.owner", "run.lock.owner.partial"]
    names += [f"{prefix}_seed0_data4_trial0_{name}.npy" for name in ("train_label", "test_label")]
    names += [
        f"{prefix}_seed0_data4_trial1_kernel_{name}.npy.partial" for name in ("train", "test")
    ]
    names += [f"{prefix}_results.nc.partial"]
    for name in names:
        (folder / name).symlink_to(outside)
    succeed(*QUICK, "--output", folder)
    links = [path.name for path in folder.iterdir() if path.is_symlink()]
    assert all(name.endswith(".old") for name in links), links


@linux
def test_a_kernel_is_not_mapped_when_it_gets_its_name(folder, monkeypatch):
    """Windows would refuse."""
    replace, renamed = Path.replace, []

    def watch(path, target):
        opened = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        mapped = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
        renamed.append(path.name)
        assert not {str(path), str(target)} & {*opened, *mapped}
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watch)
    succeed(*QUICK, "--data-sizes", 4, "--trials", 1, "--output", folder)
    assert sum("kernel_t" in name for name in renamed) >= 2


# ---- folders ----


def test_names_of_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert files.folder_path("~/output") == tmp_path / "output"
    assert files.folder_path("a b") == Path("a b")
    for text, words in {
        "": "output '': name a folder",
        "a\0b": r"output 'a\\x00b': name a folder",
        "~nobody-of-this-name/output": "~nobody-of-this-name/output: .*; name a folder without ~",
        "x" * 256: "its part x{20}... has 256 bytes; use 255 at most",
        "here/" + "κ" * 128: "its part κ{20}... has 256 bytes",
    }.items():
        with pytest.raises(BadInput, match=words):
            files.folder_path(text)


def test_the_default_output_is_beside_the_script(monkeypatch, tmp_path):
    script = tmp_path / "repository" / "training.py"
    (tmp_path / "repository" / "tests").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert files.default_output(script) == Path("repository/kernel_output")
    monkeypatch.chdir(tmp_path / "repository")
    assert files.default_output("training.py") == Path("kernel_output")
    monkeypatch.chdir(tmp_path / "repository" / "tests")
    expected = (tmp_path / "repository" / "kernel_output").resolve()
    assert files.default_output("../training.py") == files.default_output(script) == expected


@posix
def test_the_default_output_where_the_working_directory_is_gone(monkeypatch, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert files.default_output(tmp_path / "training.py") == tmp_path.resolve() / "kernel_output"


def test_output_files_are_regular_and_visible(folder, outside):
    for name in ("b_results.nc", "a_results.nc", "._a_results.nc", "other.txt"):
        (folder / name).touch()
    (folder / "folder_results.nc").mkdir()
    if os.name != "nt":
        (folder / "link_results.nc").symlink_to(outside)
        os.mkfifo(folder / "pipe_results.nc")
    found = files.output_files(folder, "*_results.nc")
    assert found == [folder / "a_results.nc", folder / "b_results.nc"]
    assert files.output_files(folder / "nowhere", "*") == []
    assert files.output_files(outside, "*") == []


def test_folders_without_access_are_named(closed):
    for output in (closed, closed / "output", closed / "output" / "new"):
        words = r"can't write run.lock \(Permission denied\); make room or name another folder"
        with pytest.raises(BadInput, match=words), files.locked(output):
            pass
    with pytest.raises(BadInput, match=r"can't be read \(Permission denied\)"):
        files.output_files(closed, "*")
    folder = closed.parent / "of-somebody-else"
    os.seteuid(os.getuid())
    with files.locked(folder):  # as left by another user's run
        pass
    folder.chmod(0o777)
    (folder / "run.lock").chmod(0)
    if os.getuid() == 0:
        os.seteuid(65534)
    with pytest.raises(BadInput, match=words), files.locked(folder):
        pass


@posix
def test_what_is_no_folder_is_named(tmp_path, outside):
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for output, words in {
        outside: "is a file; name a folder",
        outside / "below": "can't write run.lock",
        tmp_path / "dangling": "is a symbolic link; name a folder",
        tmp_path / "pipe": "is a pipe; name a folder",
        tmp_path / ("x" * 256): r"can't write run.lock \(File name too long\)",
    }.items():
        with pytest.raises(BadInput, match=words), files.locked(output):
            pass


@posix
def test_a_lock_that_is_no_file_is_named(folder, outside):
    lock = folder / "run.lock"
    lock.symlink_to(outside)
    with pytest.raises(BadInput, match=r"run.lock in it is a symbolic link; delete it"):
        files.locked(folder).__enter__()
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(BadInput, match=r"run.lock in it is a pipe; delete it"):
        files.locked(folder).__enter__()


def test_who_holds_a_folder_stands_beside_the_lock(folder):
    owner = folder / "run.lock.owner"
    with files.locked(folder):
        assert owner.read_text(encoding="utf-8").startswith(f"process {os.getpid()} on ")
        assert (folder / "run.lock").read_bytes() == b""
        line = complaint(call(*QUICK, "--output", folder))
        assert f"--output {folder}: in use by process {os.getpid()} on " in line
        assert "; wait for it, or name another folder" in line
        owner.write_bytes(b"\x1b[31m\xff\n!")
        with pytest.raises(BadInput, match=r"in use by \?\[31m.\?!; wait"):
            files.locked(folder).__enter__()
        owner.write_bytes(b"x" * 1001)
        with pytest.raises(BadInput, match="in use by another run;"):
            files.locked(folder).__enter__()
    assert not owner.exists()
    with files.locked(folder):
        pass


def test_temporary_folders_are_known_until_they_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    with contextlib.suppress(ZeroDivisionError), files.temporary_folder() as path:
        assert path.parent == tmp_path and streams.temporary_folders == {path}
        (path / "kernel").touch()
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir()) and not streams.temporary_folders
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match=r"TMPDIR .*: no room for temporary files .No such file"):
        files.temporary_folder().__enter__()


# ---- reading ----


@pytest.fixture
def irregular(folder, outside):
    """What is no file: {path: what it is}."""
    if os.name == "nt":
        pytest.skip("needs POSIX")
    (folder / "link").symlink_to(outside)
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "device").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    found = {folder / name: "a symbolic link" for name in ("link", "dangling", "device")}
    found |= {
        folder / "pipe": "a pipe",
        folder / "folder": "a folder",
        Path("/dev/zero"): "a device",
    }
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(folder):
        server.bind("socket")
        yield found | {folder / "socket": "a socket"}


def test_only_regular_files_are_opened(irregular, monkeypatch):
    for path, what in irregular.items():
        for read in (files.open_regular, files.open_array, lambda path: files.read_small(path, 9)):
            with pytest.raises(OSError) as refused:
                read(path)
            assert files.in_words(refused.value) == f"is {what}, not a file"
    kinds = iter(["a file"] * len(irregular))  # something else has been put there since
    monkeypatch.setattr(files, "kind_of", lambda path: next(kinds))
    for path in irregular:
        with pytest.raises(OSError):
            files.open_regular(path)


def test_git_lfs_pointers_are_named(folder):
    pointer = folder / "kernel.npy"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n")
    with pytest.raises(OSError, match="is a Git LFS pointer; run git lfs pull"):
        files.open_array(pointer)
    (folder / "other").write_text("version")
    assert files.read_small(folder / "other", 7) == b"version"


def test_sizes_are_checked_before_anything_is_read(folder):
    path = folder / "run.json"
    path.write_bytes(b"12345")
    assert files.read_small(path, 5) == b"12345"
    with pytest.raises(OSError, match="holds 5 bytes, more than 4"):
        files.read_small(path, 4)
    os.truncate(path, 2**40)
    with pytest.raises(OSError, match="holds 1,099,511,627,776 bytes, more than 1,000"):
        files.read_small(path, 1000)


def test_hdf5_files_are_checked_before_they_unpack(folder):
    h5py = pytest.importorskip("h5py")
    path = folder / "some.nc"

    def make(fill):
        path.unlink(missing_ok=True)
        with h5py.File(path, "w") as content:
            content["a/b"] = np.arange(10.0)
            content["a/again"] = content["a"]  # a group in itself
            content["nothing"] = h5py.Empty("f8")
            fill(content)

    def external(content):
        content.create_dataset("raw", (4,), "f8", external=[("/etc/passwd", 0, 32)])

    def virtual(content):
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource("other.nc", "x", (4,))
        content.create_virtual_dataset("raw", layout)

    make(lambda content: None)
    files.check_hdf5(path, 80)
    with pytest.raises(OSError, match="unpacks to 80 bytes, more than 79"):
        files.check_hdf5(path, 79)
    make(lambda c: c.create_dataset("bomb", (2**40,), "f8", compression="gzip", chunks=(1024,)))
    assert path.stat().st_size < 10**5
    with pytest.raises(OSError, match=r"unpacks to 8,796,093,022,\d* bytes, more than 1,000"):
        files.check_hdf5(path, 1000)
    links = {"far": h5py.ExternalLink("other.nc", "x"), "near": h5py.SoftLink("/a")}
    for fill in (
        external,
        virtual,
        *(lambda c, v=v: c.__setitem__("raw", v) for v in links.values()),
    ):
        make(fill)
        with pytest.raises(OSError, match="refers to another file in raw"):
            files.check_hdf5(path, 1000)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(OSError):
        files.check_hdf5(path, 1000)


# ---- arrays in files ----


@pytest.fixture(params=["maps", "no maps"])
def mapping(request, monkeypatch):
    """A file system that maps files into memory, and one that does not."""
    if request.param == "no maps":

        def refuse(*_, **__):
            raise OSError(errno.ENODEV, "No such device")

        monkeypatch.setattr(files.mmap, "mmap", refuse)
    return request.param == "maps"


@pytest.fixture
def stored(folder):
    """A file with an array [2, 3] and a line behind it."""
    path = folder / "kernel.npy.partial"
    with path.open("wb") as file:
        np.save(file, np.arange(6.0).reshape(2, 3))
        file.write(b"\nlabel\n")
    return path


def test_an_array_and_what_stands_behind_it(stored, mapping):
    content = stored.read_bytes()
    with files.open_array(stored) as found:
        assert np.array_equal(found.array, np.load(stored)) and not found.array.flags.writeable
        assert found.tail == b"\nlabel\n"
        assert found.checksum(7) == files.hashlib.sha256(content[:-7]).hexdigest()
    stored.rename(stored.with_suffix(""))


def test_a_view_that_is_kept_is_noticed(stored):
    """It would keep the file from being renamed, on Windows."""
    kept = files.open_array(stored)
    view = kept.array[0]
    with pytest.raises(BufferError):
        kept.close()
    assert view.tolist() == [0, 1, 2]
    with pytest.raises(ZeroDivisionError), files.open_array(stored) as other:
        view = other.array[1]
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "array", [np.zeros((0, 3)), np.asfortranarray(np.eye(3)[:, :2]), np.array(5)]
)
def test_arrays_of_every_shape_are_read(folder, mapping, array):
    np.save(folder / "some.npy", array)
    with files.open_array(folder / "some.npy") as found:
        assert np.array_equal(found.array, array) and found.array.dtype == array.dtype
        assert found.tail == b""


def header(shape, descr="<f8"):
    """The beginning of a .npy file."""
    file = io.BytesIO()
    about = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "EOF"),
        (b"PK\3\4", "magic string|EOF"),
        (b"\x93NUMPY\3\0", "is of version"),
        (b"\x93NUMPY\1\0\xff\xff" + b" " * 70000, "."),
        (header((2, 3)), "ends after 128 of 176 bytes"),
        (header((2**60, 2**60)), "ends after 128 of "),
        (header((-1, -6)) + bytes(48), "not numbers"),
        (header((1,), "|O") + bytes(48), "not numbers"),
        (header((1,)).replace(b"(1,)", b"(1L,)").replace(b"}  ", b"} ") + bytes(8), "has to mend"),
    ],
)
def test_what_is_no_array_is_refused(folder, content, words):
    path = folder / "kernel.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        files.open_array(path)


def test_a_sparse_tail_is_refused_unread(stored):
    os.truncate(stored, 2**40)
    with pytest.raises(ValueError, match=r"has 1,099,511,627,\d* bytes behind its array, too many"):
        files.open_array(stored)
