"""Datasets from files of every packing, downloaded, or the reader's own; bad ones."""

import argparse
import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import pickle
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, call, complaint, run_script

import training
from ntk import BadInput
from runtime import datasets, downloads, image_files
from runtime.datasets import (
    DATASETS,
    DIGITS,
    FASHION_MNIST,
    IDX_FILES,
    KMNIST,
    MNIST,
    class_title,
    find_dataset,
    load_images,
    parse_classes,
)
from runtime.image_files import Split

FIRST, LAST = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


# ---- made datasets in MNIST's format ----


def idx(array):
    """An IDX file's content: the header, then the bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def made_contents(seed):
    """Unpacked content of the four files of a small dataset: name -> bytes."""
    rng = np.random.default_rng(seed)
    arrays = []
    for count in (6, 4):
        arrays.append(rng.integers(0, 256, (count, 3, 3), np.uint8))
        arrays.append(rng.integers(0, 10, count, np.uint8))
    return {name: idx(array) for name, array in zip(IDX_FILES, arrays, strict=True)}


def made_dataset(name, title, contents, **fields):
    """The record of a made dataset."""
    sums = tuple(hashlib.sha256(content).hexdigest() for content in contents.values())
    return datasets.IdxDataset(
        name=name,
        title=title,
        prefix=f"{name}-",
        class_names=tuple("0123456789"),
        sums=sums,
        **fields,
    )


CONTENTS, OTHER_CONTENTS = made_contents(0), made_contents(1)
TINY = made_dataset("tiny", "Tiny-MNIST", CONTENTS)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Two made datasets beside the known ones, and no folder named by the environment."""
    monkeypatch.setitem(DATASETS, "tiny", TINY)
    monkeypatch.setitem(DATASETS, "other", made_dataset("other", "Other-MNIST", OTHER_CONTENTS))
    for dataset in DATASETS.values():
        monkeypatch.delenv(f"{dataset.name.upper()}_DIR", raising=False)


def write_files(folder, contents=CONTENTS, pack=gzip.compress, name="{}.gz"):
    """Write the four files, packed by `pack`, under names made by `name`. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, content in contents.items():
        (folder / name.format(file_name)).write_bytes(pack(content))
    return folder


def as_it_is(content):
    return content


def refusal(dataset, data_dir=None, **arguments):
    """The one line that refuses to load a dataset."""
    with pytest.raises(BadInput) as caught:
        load_images(dataset, data_dir, **arguments)
    line = str(caught.value)
    assert "\n" not in line
    return line


# ---- the known datasets ----


@functools.cache
def loaded(name, folder=None):
    """A dataset, loaded once."""
    return load_images(name, folder)


@pytest.fixture(scope="session")
def fashion_mnist_dir():
    """Folder of Fashion-MNIST's files; without FASHION_MNIST_DIR what needs it is skipped."""
    folder = os.environ.get("FASHION_MNIST_DIR")
    if not folder:
        pytest.skip("FASHION_MNIST_DIR is not set")
    return Path(folder).resolve()


def test_digits_have_the_format_of_mnist():
    digits = loaded("digits")
    for split in (digits.train, digits.test):
        assert split.image.dtype == np.uint8 and split.image.shape == (len(split.label), 28, 28, 1)
        assert split.label.dtype == np.int64 and set(split.label) == set(range(10))
        assert split.image.max() == 255 and split.image.min() == 0
    assert len(digits.train.label) + len(digits.test.label) == 1797
    assert digits.shape == (28, 28) and digits.dataset is DIGITS and digits.name == "digits"
    assert digits.sha256.startswith("0df4d5815ed910d6")


def test_mnist_is_what_the_committed_kernels_were_computed_from(mnist_dir):
    images = loaded("mnist", mnist_dir)
    assert images.train.image.shape == (60000, 28, 28, 1) and images.train.image.dtype == np.uint8
    assert images.test.image.shape == (10000, 28, 28, 1)
    kernel = ROOT / "kernel_output" / "convolutional_seed0_data16_trial0_kernel_train.npy"
    label = json.loads(kernel.read_bytes().splitlines()[-1])
    assert images.origin == {key: label[key] for key in ("dataset", "dataset_sha256")}


def test_fashion_mnist_from_its_four_files(fashion_mnist_dir):
    images = loaded("fashion_mnist", fashion_mnist_dir)
    assert images.train.image.shape == (60000, 28, 28, 1) and images.name == "fashion_mnist"
    assert np.bincount(images.train.label).tolist() == [6000] * 10
    bags, boots = (images.test.image[images.test.label == k].mean() for k in (8, 9))
    sandals = images.test.image[images.test.label == 5].mean()
    assert sandals < bags and sandals < boots  # sandals cover few pixels


def test_fashion_mnist_given_as_mnist_is_named(fashion_mnist_dir):
    line = refusal("auto", mnist_dir=fashion_mnist_dir)
    assert line.startswith(
        f"mnist_dir {fashion_mnist_dir}: {FIRST}.gz holds Fashion-MNIST's {FIRST}; "
    )
    assert line.endswith("name MNIST's folder, or use --dataset fashion_mnist")


def test_every_record_is_complete_and_names_its_own_files():
    records = [MNIST, FASHION_MNIST, KMNIST, DIGITS]
    assert len({record.prefix for record in records}) == len(records)
    for record in records:
        assert len(record.class_names) == 10
        assert (record.note == "") == (record is MNIST) and record.prefix in record.note
    sums = [total for record in records[:3] for total in record.sums]
    assert len(set(sums)) == 12 and all(re.fullmatch("[0-9a-f]{64}", total) for total in sums)


def test_kmnist_is_checked_by_what_tensorflow_datasets_registers():
    import tensorflow_datasets as tfds

    for record in (MNIST, FASHION_MNIST, KMNIST):
        infos = downloads.registered_files(record.name).values()
        registered = {info.filename: info.checksum for info in infos}
        assert set(registered) == {f"{name}.gz" for name in IDX_FILES}
        if record.packed:
            assert tuple(registered[f"{name}.gz"] for name in IDX_FILES) == record.sums
    assert tfds and "tensorflow" not in sys.modules


def test_images_and_labels_are_ordered_together_by_the_images_bytes():
    """So a trial is the same wherever the images came from."""
    image = np.array([[3, 1], [0, 9], [3, 0]], np.uint8).reshape(3, 1, 2, 1)
    split = datasets.ordered_by_bytes(Split(image, np.array([5, 6, 7])))
    assert split.image.ravel().tolist() == [0, 9, 3, 0, 3, 1] and split.label.tolist() == [6, 7, 5]


def test_the_sum_of_a_dataset_depends_on_every_image_and_label():
    digits = loaded("digits")
    arrays = [digits.train.image, digits.train.label, digits.test.image, digits.test.label]
    for number in range(4):
        changed = [array.copy() for array in arrays]
        changed[number].reshape(-1)[-1] ^= 1
        assert datasets.checksum(Split(*changed[:2]), Split(*changed[2:])) != digits.sha256
    assert datasets.checksum(digits.train, digits.test) == digits.sha256


def test_unknown_datasets_and_folders_that_are_not_needed_are_refused(tmp_path):
    assert re.search("cifar10: unknown; use auto, mnist, fashion_mnist, kmnist", refusal("cifar10"))
    assert (
        refusal("digits", tmp_path)
        == f"data_dir {tmp_path}: digits needs no folder; leave the option out"
    )
    assert "--data-dir" in refusal("fashion_mnist", mnist_dir=tmp_path)


# ---- IDX files, however they are packed ----

PACKINGS = {
    "as distributed": dict(),
    "gzipped again": dict(pack=functools.partial(gzip.compress, compresslevel=0)),
    "gzipped twice": dict(pack=lambda content: gzip.compress(gzip.compress(content))),
    "unpacked": dict(pack=as_it_is, name="{}"),
    "unpacked by a browser, which keeps the name": dict(pack=as_it_is),
    "gzipped, without the ending": dict(name="{}"),
    "upper case": dict(name="{}.GZ"),
}


@pytest.mark.parametrize("place", [".", "raw", "TinyMNIST/raw"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_the_content_decides_however_it_is_packed(tmp_path, packing, place):
    write_files(tmp_path / place, **PACKINGS[packing])
    images = load_images("tiny", tmp_path)
    assert images.train.image.shape == (6, 3, 3, 1) and images.test.label.shape == (4,)
    assert images.train.label.tobytes() != bytes(48) and images.train.label.dtype == np.int64
    rows = images.train.image.reshape(6, 9).tolist()
    assert rows == sorted(rows)


def test_names_with_dots_and_a_wrong_file_beside_the_right_one(tmp_path, monkeypatch):
    for name, content in CONTENTS.items():
        (tmp_path / name.replace("-idx", ".idx")).write_bytes(content)
        (tmp_path / f"{name}.gz").write_bytes(b"half of the download")
        (tmp_path / f"._{name}.gz").write_bytes(b"of macOS")
    sha256 = load_images("tiny", tmp_path).sha256
    (tmp_path / "link").symlink_to(tmp_path)
    assert load_images("tiny", str(tmp_path / "link")).sha256 == sha256
    monkeypatch.setenv("TINY_DIR", str(tmp_path))
    assert load_images("tiny").sha256 == sha256
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv("USERPROFILE", str(tmp_path.parent))
    assert load_images("tiny", f"~/{tmp_path.name}").sha256 == sha256


def test_a_dataset_known_by_its_original_files_alone_takes_only_those(tmp_path, monkeypatch):
    """As KMNIST."""
    packed = {name: gzip.compress(content, mtime=1) for name, content in CONTENTS.items()}
    monkeypatch.setitem(DATASETS, "tiny", made_dataset("tiny", "Tiny-MNIST", packed, packed=True))
    write_files(tmp_path / "original", packed, as_it_is)
    assert load_images("tiny", tmp_path / "original").train.image.shape == (6, 3, 3, 1)
    assert "not the original gzip file" in refusal("tiny", write_files(tmp_path / "again"))


WEB_PAGE = b"\xef\xbb\xbf\r\n<!DOCTYPE html><title>404</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:440fcabf\nsize 9912422\n"
HEADER = struct.pack(">IIII", 0x803, 60000, 28, 28)
PACKED = gzip.compress(CONTENTS[FIRST])
DAMAGES = {
    "empty": (b"", "is empty"),
    "web page": (WEB_PAGE, "is a web page, not the file"),
    "web page, gzipped": (gzip.compress(WEB_PAGE), "is a web page"),
    "pointer": (POINTER, "is a Git LFS pointer.*git lfs pull"),
    "zip": (b"PK\3\4 and so on", "is not an IDX file"),
    "truncated": (PACKED[:-9], "is a gzip file that ends too soon, after .* bytes"),
    "truncated header": (PACKED[:5], "is a gzip file that ends too soon"),
    "flipped": (PACKED[:-6] + bytes([PACKED[-6] ^ 1]) + PACKED[-5:], "is a damaged gzip file .CRC"),
    "not deflated": (PACKED[:10] + b"\xff" * 50, "is a damaged gzip file"),
    "trailing": (PACKED + b"trailing bytes", "is a damaged gzip file"),
    "cut off": (CONTENTS[FIRST][:-1], "is cut off, 69 bytes of 70"),
    "header alone": (HEADER[:6], "is cut off, 6 bytes of 16"),
    "long": (CONTENTS[FIRST] + b"0", "has another content than Tiny-MNIST's"),
    "changed": (
        gzip.compress(CONTENTS[FIRST][:-1] + b"?"),
        "has another content than Tiny-MNIST's .SHA",
    ),
    "other dataset": (OTHER_CONTENTS[FIRST], f"holds Other-MNIST's {FIRST}; .*--dataset other"),
    "other file": (CONTENTS[LAST], f"holds Tiny-MNIST's {LAST}; download"),
    "NumPy": (b"\x93NUMPY\1\0", "is a single NumPy array"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_a_file_is_named(tmp_path, damage):
    content, words = DAMAGES[damage]
    (write_files(tmp_path) / f"{FIRST}.gz").write_bytes(content)
    line = refusal("tiny", tmp_path)
    assert re.match(f"data_dir {re.escape(str(tmp_path))}: {FIRST}.gz {words}", line), line


def test_a_gzip_bomb_is_read_no_further_than_the_largest_file(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "LARGEST_IDX", 10**6)
    monkeypatch.setattr(image_files, "LARGEST_PACKED", 2 * 10**6)
    read = []
    original = gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda file, size: read.append(size) or original(file, size)
    )
    bomb = gzip.compress(gzip.compress(bytes(10**8)))
    (write_files(tmp_path) / f"{FIRST}.gz").write_bytes(bomb)
    assert "holds more than 1000000 bytes" in refusal("tiny", tmp_path)
    assert read == [2 * 10**6 + 1] * 2
    with (tmp_path / f"{FIRST}.gz").open("r+b") as file:
        file.truncate(10**12)  # takes no room on the disk
    assert "is too large (1000000000000 bytes" in refusal("tiny", tmp_path)


def damaged_folder(tmp_path, what):
    """A folder that won't do."""
    folder = tmp_path / "folder"
    if what == "no folder":
        return folder
    if what == "a link loop":
        folder.symlink_to(folder)
        return folder
    if what == "a file":
        folder.write_bytes(b"")
        return folder
    if what == "a pipe":
        os.mkfifo(folder)
        return folder
    write_files(folder)
    path = folder / f"{FIRST}.gz"
    path.unlink()
    if what == "nothing":
        shutil.rmtree(folder)
        folder.mkdir()
    if what == "a pipe in it":
        os.mkfifo(path)
    if what == "a folder in it":
        path.mkdir()
    if what == "a link loop in it":
        path.symlink_to(path)
    return folder


FOLDERS = {
    "no folder": "can't be read .No such file or directory.; name the folder of Tiny-MNIST's four",
    "a link loop": "can't be read .Too many levels of symbolic links",
    "a file": "is not a folder; name the folder of Tiny-MNIST's four IDX files",
    "a pipe": "is not a folder",
    "nothing": f"lacks {', '.join(IDX_FILES)}; name the folder",
    "one is missing": f"lacks {FIRST}; name the folder of Tiny-MNIST's .* files, gzipped or not",
    "a pipe in it": f"{FIRST}.gz is a pipe or a device, not a file",
    "a folder in it": f"{FIRST}.gz is a folder, not a file",
    "a link loop in it": f"{FIRST}.gz can't be read .Too many levels of symbolic links",
}


@pytest.mark.skipif(os.name == "nt", reason="makes pipes and links")
@pytest.mark.parametrize("what", FOLDERS)
def test_what_is_wrong_with_a_folder_is_named(tmp_path, what):
    folder = damaged_folder(tmp_path, what)
    assert re.match(f"data_dir {folder}: {FOLDERS[what]}", refusal("tiny", folder))


def test_what_may_not_be_read_is_named(tmp_path, monkeypatch):
    """Imitated: chmod does not keep root out."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    write_files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        assert f"{FIRST}.gz can't be read (Permission denied)" in refusal("tiny", tmp_path)
    monkeypatch.setattr(os, "scandir", refuse)
    assert f"{tmp_path}: can't be read (Permission denied); name the folder" in refusal(
        "tiny", tmp_path
    )


@pytest.mark.parametrize("option", ["data_dir", "mnist_dir", "MNIST_DIR"])
def test_a_folder_is_named_by_where_it_came_from(tmp_path, monkeypatch, option):
    if option == "MNIST_DIR":
        monkeypatch.setenv("MNIST_DIR", str(tmp_path))
    arguments = {} if option == "MNIST_DIR" else {option: tmp_path}
    for dataset in ("mnist", "auto"):
        assert refusal(dataset, **arguments).startswith(f"{option} {tmp_path}: lacks train-images")
    assert "~ is no folder here" in refusal("mnist", "~nobody-of-this-name/mnist")


def test_the_script_names_the_option(tmp_path):
    line = complaint(
        call("--mnist-dir", write_files(tmp_path / "mnist"), "--output", tmp_path / "output")
    )
    assert f"--mnist-dir {tmp_path / 'mnist'}: {FIRST}.gz holds Tiny-MNIST's {FIRST}" in line


# ---- downloads, from a server on this machine ----

LONG = {name: content + bytes(10**6) for name, content in CONTENTS.items()}


class Server(http.server.ThreadingHTTPServer):
    """Serves `contents`, packed; sends the first `sent` bytes of each, then waits or hangs up."""

    contents, sent, hang = CONTENTS, None, False

    class RequestHandlerClass(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.content = gzip.compress(self.server.contents[self.path[1:-3]], 0, mtime=0)
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.content)))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(self.content[: self.server.sent])
                self.wfile.flush()
                self.server.halves.release()
                while self.server.hang:
                    time.sleep(0.01)

        def log_message(self, *_):
            pass

    def __init__(self):
        self.halves = threading.Semaphore(0)
        super().__init__(("127.0.0.1", 0), self.RequestHandlerClass)


@pytest.fixture
def server(monkeypatch):
    """A running Server, which TensorFlow Datasets takes for that of the dataset `tiny`."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(downloads, "registered_files", lambda name: infos_of(running))
        yield running
        running.hang = False
        running.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """TensorFlow Datasets' folder, empty."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "home"


def infos_of(server, contents=None):
    """What TensorFlow Datasets knows of the server's files."""
    import tensorflow_datasets as tfds

    infos = {}
    for name, content in (contents or server.contents).items():
        packed = gzip.compress(content, 0, mtime=0)
        infos[f"http://127.0.0.1:{server.server_port}/{name}.gz"] = tfds.download.checksums.UrlInfo(
            size=len(packed), checksum=hashlib.sha256(packed).hexdigest(), filename=f"{name}.gz"
        )
    return infos


def holds_all(folder, contents=CONTENTS):
    """Whether the folder holds the four files, complete."""
    return all(
        gzip.decompress((folder / f"{name}.gz").read_bytes()) == contents[name] for name in contents
    )


def finished_files(home):
    """Files that do not lie in a temporary folder."""
    return [path for path in home.rglob("*-ubyte*") if path.is_file() and ".tmp." not in str(path)]


@pytest.mark.slow
def test_a_dataset_is_downloaded_once_without_tensorflow(server, home, capfd):
    images = load_images("tiny")
    assert holds_all(home / "downloads" / "tiny") and images.train.image.shape == (6, 3, 3, 1)
    printed = capfd.readouterr().err
    assert "note: downloading Tiny-MNIST (0 MB)" in printed
    assert "Dl Completed...: 100%" in printed  # TensorFlow Datasets' progress bar
    assert "tensorflow" not in sys.modules
    damaged = home / "downloads" / "tiny" / f"{LAST}.gz"
    damaged.write_bytes(b"?")
    assert load_images("tiny").sha256 == images.sha256  # renamed onto the damaged one
    assert f"tiny is not used: {LAST}.gz is not an IDX file" in capfd.readouterr().err
    server.shutdown()
    assert load_images("tiny").sha256 == images.sha256  # it is there: no server is asked


@pytest.mark.slow
def test_an_interrupted_download_leaves_nothing_half(server, home):
    """The connection ends after 30 bytes; the next attempt works."""
    server.sent = 30
    assert "TensorFlow Datasets failed" in refusal("tiny")
    assert finished_files(home) == []
    server.sent = None
    assert load_images("tiny").test.label.shape == (4,)
    assert not list(home.rglob("*.tmp.*"))


@pytest.mark.slow
def test_a_killed_download_leaves_nothing_half(server, home):
    """By kill -9, when some bytes of all files have come; the next attempt works and tidies up."""
    server.contents, server.sent, server.hang = LONG, 20000, True
    program = f"""if True:
        import sys
        sys.path.insert(0, {str(ROOT / "tests")!r})
        from test_datasets import LONG, SimpleNamespace, downloads, infos_of
        server = SimpleNamespace(server_port={server.server_port})
        downloads.download("tiny", "Tiny-MNIST", infos_of(server, LONG))
    """
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.DEVNULL)
    for _ in LONG:
        assert server.halves.acquire(timeout=60)
    process.kill()
    process.wait()
    assert finished_files(home) == []
    server.sent, server.hang = None, False
    folder = downloads.download("tiny", "Tiny-MNIST")
    assert holds_all(folder, LONG)
    assert not list(home.rglob("*.tmp.*")) and not list(home.rglob("*.partial"))


def test_a_download_of_another_content_is_refused(server, home):
    """The last file's sum is another one than registered."""
    infos = infos_of(server, CONTENTS | {LAST: b"other bytes"})
    with pytest.raises(downloads.NotAvailable, match="TensorFlow Datasets failed"):
        downloads.download("tiny", "Tiny-MNIST", infos)
    assert not list((home / "downloads" / "tiny").glob("t10k-labels*"))


def test_files_put_there_by_hand_are_taken(home, monkeypatch, capsys):
    """Unless they are another dataset's: the names are the same."""
    write_files(home / "downloads" / "manual")
    assert load_images("tiny").name == "tiny"
    monkeypatch.setattr(
        datasets, "download", lambda name, title: write_files(home / name, OTHER_CONTENTS)
    )
    assert load_images("other").name == "other"
    assert (
        "manual is not used: train-images-idx3-ubyte.gz holds Tiny-MNIST's"
        in capsys.readouterr().err
    )


# ---- no network ----


def test_a_server_that_does_not_answer_is_noticed():
    """One that never answers, and one that isn't there."""
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(downloads.NotAvailable, match=r"no answer in 0.5 s"):
        downloads.check_connection(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.5)
    with pytest.raises(downloads.NotAvailable, match="refused"):
        downloads.check_connection("http://127.0.0.1:9/")


def test_where_mnist_cant_be_had(monkeypatch, home, capsys):
    """With auto the digits are taken; else one is told which option names a folder."""

    def nothing(name, title):
        raise downloads.NotAvailable("no connection to example.org")

    monkeypatch.setattr(datasets, "download", nothing)
    assert load_images("auto").sha256 == loaded("digits").sha256
    assert "note: MNIST can't be had: no connection" in capsys.readouterr().err
    with pytest.raises(
        datasets.CannotBeHad, match=r"give --mnist-dir a folder with MNIST's four IDX files"
    ):
        load_images("mnist")
    with pytest.raises(datasets.CannotBeHad, match=r"give --data-dir a folder with KMNIST's"):
        load_images("kmnist")


def test_a_home_that_cant_be_used(monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(downloads, "check_connection", lambda url: None)
    monkeypatch.setattr(
        downloads, "registered_files", lambda name: {"http://x/y": SimpleNamespace(size=1)}
    )
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "file"))
    assert "TensorFlow Datasets failed ([Errno 20] Not a directory" in refusal("mnist")
    monkeypatch.setenv("TFDS_DATA_DIR", "~nobody-of-this-name")
    assert "no home folder to download to" in refusal("mnist")


UNREACHABLE = {
    "https_proxy": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "no_proxy": "",
    "NO_PROXY": "",
}


@pytest.mark.slow
def test_without_network_mnist_is_refused_within_15_s(tmp_path):
    """In one line that names --mnist-dir."""
    start = time.monotonic()
    environment = UNREACHABLE | {"TFDS_DATA_DIR": str(tmp_path / "none")}
    ended = run_script(
        "--dataset", "mnist", "--output", tmp_path / "output", environment=environment
    )
    assert time.monotonic() - start < 15
    assert "--mnist-dir" in complaint(ended)


@pytest.mark.slow
def test_without_network_auto_takes_the_digits(tmp_path, home, monkeypatch):
    for name, value in UNREACHABLE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(training, "trials", [1] * 6)
    ended = call("--networks", "fully-connected", "--test-size", 4, "--output", tmp_path)
    assert ended.status == 0 and "note: MNIST can't be had: no connection to" in ended.err
    assert ended.out.startswith("THESE ARE SCIKIT-LEARN'S 8x8 DIGITS, NOT MNIST")
    assert ended.out.splitlines()[-1].startswith("THESE ARE")
    assert ended.out.count("skipped: 256 512") == 1
    assert (tmp_path / "digits-fully-connected_results.nc").exists()
    assert not (tmp_path / "fully-connected_results.npz").exists()


# ---- the reader's own file ----


def made_arrays(dtype=np.uint8, classes=3, size=20):
    """Arrays of a file with `classes` classes of images of size x size pixels."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 30), ("test", 12)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, size, size)).astype(dtype)
        arrays[f"{split}_labels"] = np.arange(count) % classes
    return arrays


def save_npz(path, **changes):
    """Write a file with made arrays, some changed, or left out where None. Returns its path."""
    arrays = {name: array for name, array in (made_arrays() | changes).items() if array is not None}
    np.savez_compressed(path, **arrays)
    return str(path)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", ">f8", "longdouble"])
def test_a_file_of_the_readers_own(tmp_path, dtype):
    path = tmp_path / "My shapes (2).npz"
    arrays = made_arrays(dtype)
    arrays["train_labels"] = arrays["train_labels"].astype(np.uint8)[:, None]  # as MedMNIST
    arrays["val_images"], arrays["val_labels"] = np.zeros((2, 20, 20)), np.zeros(2)
    arrays["test_images"] = np.asfortranarray(arrays["test_images"][..., None])
    np.savez(path, **arrays)
    images = load_images(str(path))
    assert images.train.image.shape == (30, 20, 20, 1) and images.shape == (20, 20)
    assert images.train.image.dtype == (np.uint8 if dtype == "uint8" else np.float64)
    assert images.train.label.dtype == np.int64 and images.test.label.shape == (12,)
    for split, name in (
        (images.train, "train"),
        (images.test, "test"),
    ):  # each image kept its label
        for image, label in zip(split.image, split.label, strict=True):
            where = np.all(arrays[f"{name}_images"].reshape(-1, 400) == image.reshape(400), axis=1)
            assert arrays[f"{name}_labels"][where].item() == label
    dataset = images.dataset
    assert images.name == dataset.title == "My shapes (2).npz" and dataset.prefix == "my-shapes-2-"
    assert dataset.class_names == ("0", "1", "2")
    assert "My shapes (2).npz, NOT MNIST; FILES ARE NAMED my-shapes-2-..." in dataset.note
    assert images.origin == {
        "dataset": "My shapes (2).npz",
        "dataset_sha256": images.sha256,
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_names_of_the_readers_files(tmp_path):
    names = {
        "digits.npz": "npz-digits-",
        "Fashion_MNIST.NPZ": "npz-fashion-mnist-",
        "mnist.npz": "mnist-",
        "../../etc/..npz": "images-",
        "日本.npz": "images-",
        "a/b" + "c" * 300 + ".npz": "b" + "c" * 39 + "-",
    }
    for name, prefix in names.items():
        assert find_dataset(name).prefix == prefix
    assert find_dataset("a\nb\x1b[31m\udcff.npz").title == "a?b?[31m?.npz"


def test_classes_without_images_are_not_named(tmp_path):
    """Labels 2 and 7; 5 is in the training images alone."""
    labels = np.tile([2, 7, 5], 10)
    path = save_npz(tmp_path / "a.npz", train_labels=labels, test_labels=np.tile([7, 2], 6))
    dataset = load_images(path).dataset
    assert dataset.class_names == ("", "", "2", "", "", "", "", "7")
    assert parse_classes(dataset, ["7", "2"]) == (7, 2)
    with pytest.raises(BadInput, match=r"a.npz has no class 5; use two of 2, 7"):
        parse_classes(dataset, ["2", "5"])


IMAGES = made_arrays()["train_images"]
WITH_NAN = IMAGES.astype(float)
WITH_NAN[3, 2, 1] = np.nan
BAD_ARRAYS = {
    "colour": (
        dict(train_images=np.zeros((30, 20, 20, 3), np.uint8)),
        "has colour images, train_images of shape",
    ),
    "colour first": (dict(train_images=np.zeros((30, 3, 20, 20))), "has colour images"),
    "flat": (dict(train_images=IMAGES.reshape(30, 400)), r"shape .30, 400.; use .m, height, width"),
    "volumes": (dict(train_images=np.zeros((30, 5, 5, 5, 1))), "use .m, height, width"),
    "none": (
        dict(train_images=IMAGES[:0], train_labels=np.arange(0)),
        r"train_images of shape .0, 20, 20.",
    ),
    "no pixels": (dict(train_images=IMAGES[:, :0]), r"train_images of shape .30, 0, 20."),
    "missing": (
        dict(train_images=None, test_labels=None),
        "lacks train_images, test_labels; add them",
    ),
    "Keras": (dict(train_images=None, x_train=IMAGES), "lacks train_images; it holds x_train"),
    "unknown": (
        dict(names=np.arange(3)),
        "holds names, which has no meaning here; leave only train_images",
    ),
    "short labels": (
        dict(train_labels=np.arange(29) % 3),
        "has 30 train_images and 29 train_labels",
    ),
    "one-hot": (
        dict(test_labels=np.zeros((12, 3), int)),
        r"test_labels of shape .12, 3.; use .m. or .m, 1.",
    ),
    "no rank": (dict(test_labels=np.array(3)), "test_labels of shape ()"),
    "float labels": (
        dict(train_labels=np.zeros(30)),
        "train_labels of type float64; use whole numbers",
    ),
    "negative": (
        dict(train_labels=np.tile([-1, 1], 15)),
        "train_labels from -1 to 1; use labels from 0",
    ),
    "huge": (
        dict(train_labels=np.full(30, 2**63, np.uint64)),
        "to 9223372036854775808; use labels",
    ),
    "one class": (
        dict(train_labels=np.zeros(30, int)),
        "too few images: two or more labels must have",
    ),
    "NaN": (dict(train_images=WITH_NAN), "has NaN or values beyond 1e.100 in train_images; leave"),
    "huge values": (dict(test_images=np.full((12, 20, 20), 1e200)), "in test_images; leave"),
    "integers": (
        dict(train_images=IMAGES.astype(int)),
        "train_images of type int64; use uint8 or float",
    ),
    "complex": (dict(train_images=IMAGES.astype(complex)), "train_images of type complex128"),
    "text": (
        dict(train_labels=np.array(["a"] * 30)),
        "train_labels of type <U1; use whole numbers",
    ),
    "records": (dict(train_labels=np.zeros(30, "i4,i4")), "train_labels of type"),
    "objects": (
        dict(train_images=np.array([None] * 30)),
        "train_images as pickled Python objects, which are never",
    ),
    "sizes": (
        dict(test_images=np.zeros((12, 19, 20))),
        r"train_images of .30, 20, 20, 1. and test_images of",
    ),
}


@pytest.mark.parametrize("bad", BAD_ARRAYS)
def test_what_is_wrong_with_the_readers_arrays_is_named(tmp_path, bad):
    changes, words = BAD_ARRAYS[bad]
    path = save_npz(tmp_path / "mine.npz", **changes)
    line = refusal(path)
    assert line.startswith(f"dataset {path}: ") and re.search(words, line), line


class Trap:
    """Would write a file if it were unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("unpickled"),))


def npy(shape, data=b"", descr="|u1"):
    """A .npy file's bytes with any header."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def zipped(first, names=image_files.NPZ_ARRAYS, method=zipfile.ZIP_DEFLATED):
    """A zip file's bytes: `first` as the first member, no array in the others."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name in names:
            archive.writestr(f"{name}.npy", first if name == names[0] else b"")
    return stream.getvalue()


def lying(packed, size):
    """The zip file's bytes with `size` stated as the first member's size in the directory."""
    start = packed.index(b"PK\1\2") + 24
    return packed[:start] + struct.pack("<I", size) + packed[start + 4 :]


def encrypted(packed):
    """The zip file's bytes with the first member's flag of encryption set."""
    start = packed.index(b"PK\1\2") + 8
    return packed[:start] + b"\1" + packed[start + 1 :]


BAD_FILES = {
    "empty": (b"", "is empty"),
    "web page": (WEB_PAGE, "is a web page"),
    "pointer": (POINTER, "is a Git LFS pointer"),
    "npy": (npy((3,), b"abc"), "is a single NumPy array"),
    "pickle": (pickle.dumps(Trap()), "is damaged or not an npz file .File is not a zip file"),
    "gzip": (PACKED, "not an npz file"),
    "zip of others": (zipped(b"", ["holiday.jpg"]), "lacks train_images, .*; it holds holiday.jpg"),
    "control characters": (zipped(b"", ["a\n\x1b[31m"]), r"it holds a\?\?\[31m"),
    "pickled array": (zipped(npy((30,), pickle.dumps(Trap()), "|O")), "as pickled Python objects"),
    "not npy": (
        zipped(b"no array"),
        "is damaged or not an npz file .the magic string is not correct",
    ),
    "header of terabytes": (
        zipped(npy((10**6, 10**3, 10**3), b"abc")),
        "don't fill .1000000, 1000, 1000.",
    ),
    "negative shape": (zipped(npy((-3, -1, 1), b"abc")), "is damaged or not an npz file"),
    "nested header": (zipped(npy("(" * 900 + ")" * 900)), "is damaged or not an npz file"),
    "long header": (zipped(npy(tuple(range(5000)))), "is damaged or not an npz file"),
    "version 3": (zipped(b"\x93NUMPY\3\0" + npy((3,))[8:]), "train_images in npy version .3, 0."),
    "zip bomb": (
        lying(zipped(npy((3,), b"abc")), 4 * 10**9 + 1),
        "unpacks to 4000000001 bytes, at most",
    ),
    "lying size": (
        lying(zipped(npy((300,), b"abc")), len(npy((300,))) + 300),
        "is damaged or not an npz file",
    ),
    "encrypted": (
        encrypted(zipped(npy((3,), b"abc"))),
        "is damaged or not an npz file .*encrypted",
    ),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_what_is_wrong_with_the_readers_file_is_named(tmp_path, monkeypatch, bad):
    monkeypatch.chdir(tmp_path)
    content, words = BAD_FILES[bad]
    Path("mine.npz").write_bytes(content)
    line = refusal("mine.npz")
    assert re.match(f"dataset mine.npz: .*{words}", line), line
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


def test_every_flipped_byte_of_a_file_is_noticed(tmp_path):
    """Or changes nothing, in what the zip format leaves open; 250 bytes all over the file."""
    path = Path(save_npz(tmp_path / "mine.npz"))
    content, sha256 = path.read_bytes(), load_images(str(path)).sha256
    noticed = 0
    for place in np.linspace(0, len(content) - 1, 250).astype(int):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        try:
            assert load_images(str(path)).sha256 == sha256
        except BadInput as error:
            noticed += 1
            assert "\n" not in str(error)
    assert noticed > 200


@pytest.mark.skipif(os.name == "nt", reason="makes pipes and links")
def test_what_is_not_a_file_is_not_opened(tmp_path):
    assert "can't be read (No such file or directory)" in refusal(str(tmp_path / "none.npz"))
    (tmp_path / "folder.npz").mkdir()
    assert "is a folder, not a file" in refusal(str(tmp_path / "folder.npz"))
    os.mkfifo(tmp_path / "pipe.npz")
    assert "is a pipe or a device" in refusal(str(tmp_path / "pipe.npz"))
    (tmp_path / "device.npz").symlink_to(os.devnull)
    assert "is a pipe or a device" in refusal(str(tmp_path / "device.npz"))
    (tmp_path / "endless.npz").symlink_to("/proc/self/pagemap")
    if (tmp_path / "endless.npz").exists():
        assert "is empty" in refusal(str(tmp_path / "endless.npz"))
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    assert "can't be read (Too many levels" in refusal(str(tmp_path / "loop.npz"))
    with (tmp_path / "large.npz").open("wb") as file:
        file.truncate(10**13)
    assert "is too large (10000000000000 bytes" in refusal(str(tmp_path / "large.npz"))


# ---- classes and options ----


def test_classes_by_number_and_by_name():
    assert parse_classes(MNIST, ["8", "9"]) == parse_classes(MNIST, (8, np.int64(9))) == (8, 9)
    assert parse_classes(FASHION_MNIST, ["sneaker", "ankle boot"]) == (7, 9)
    assert parse_classes(FASHION_MNIST, ["Ankle-Boot", "t-shirt"]) == (9, 0)
    assert parse_classes(FASHION_MNIST, ["T-shirt/top", "shirt"]) == (0, 6)
    assert parse_classes(KMNIST, ["O", "9"]) == (0, 9)
    assert parse_classes(find_dataset("mine.npz"), ["3", "700"]) == (3, 700)  # not yet known


@pytest.mark.parametrize(
    "dataset, texts, words",
    [
        (MNIST, ["3", "3"], "classes 3 3: use two different ones of 0, 1, 2"),
        (FASHION_MNIST, ["bag", "8"], "classes bag 8: use two different ones"),
        (MNIST, ["3", "10"], "MNIST has no class 10; use two of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (MNIST, ["-1", "3"], "no class -1"),
        (MNIST, ["٣", "3"], "no class ٣"),
        (MNIST, [3.0, 4], "no class 3.0"),
        (MNIST, ["", "4"], "has no class ;"),
        (
            FASHION_MNIST,
            ["bag", "hat"],
            "Fashion-MNIST has no class hat; use two of 0 T-shirt/top, 1 trouser, .*boot$",
        ),
        (
            FASHION_MNIST,
            ["bag", "ankle", "boot"],
            "classes bag ankle boot: name two, and put .* in quotes",
        ),
        (
            find_dataset("mine.npz"),
            ["a", "b"],
            "mine.npz has no class a; use two of its numbers, 0 or more",
        ),
    ],
)
def test_classes_that_are_not_there_are_refused_with_a_list(dataset, texts, words):
    with pytest.raises(BadInput, match=words):
        parse_classes(dataset, texts)


def test_titles_of_classes():
    assert class_title(MNIST, (8, 9)) == "digits 8 and 9"
    assert class_title(FASHION_MNIST, (8, 9)) == "bag and ankle boot"
    assert class_title(KMNIST, (0, 1)) == "characters o and ki"
    assert class_title(find_dataset("mine.npz"), (3, 5)) == "classes 3 and 5"


def test_options(capsys):
    parser = argparse.ArgumentParser()
    datasets.add_dataset_options(parser)
    datasets.add_classes_option(parser)
    args = parser.parse_args([])
    assert (args.dataset, args.data_dir, args.mnist_dir, args.classes) == ("auto", None, None, None)
    args = parser.parse_args(["--dataset", "x/mine.npz", "--digits", "3", "ankle boot"])
    assert args.dataset == "x/mine.npz" and args.classes == ["3", "ankle boot"]
    wrong_ones = (
        ["--dataset", "cifar10"],
        ["--data-dir", "a", "--mnist-dir", "b"],
        ["--data-dir", ""],
    )
    for wrong in wrong_ones:
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
    printed = capsys.readouterr().err
    assert "--dataset: cifar10: unknown; use auto, mnist, fashion_mnist, kmnist, digits" in printed
    assert "--mnist-dir: not allowed with argument --data-dir" in printed
    assert "--data-dir: '': name a folder" in printed
    assert "FASHION_MNIST_DIR" in parser.format_help()
