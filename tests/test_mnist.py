"""MNIST from its files or downloaded, the digits that stand in, and what is said where neither can be had."""

import contextlib
import gzip
import hashlib
import http.server
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import ROOT, call, complaint, load_once, run_script

from runtime import mnist

FIRST = "train-images-idx3-ubyte.gz"


# ---- the digits ----


def test_digits_have_the_format_of_mnist(digits):
    for split in ("train", "test"):
        image, label = digits[split]["image"], digits[split]["label"]
        assert image.dtype == np.uint8 and image.shape == (len(label), 28, 28, 1)
        assert np.issubdtype(label.dtype, np.integer) and set(label) == set(range(10))
        assert image.max() == 255 and image.min() == 0
    assert len(digits["train"]["label"]) + len(digits["test"]["label"]) == 1797


def test_an_unknown_dataset_is_refused():
    with pytest.raises(ValueError, match="cifar10"):
        mnist.load_data("cifar10")


# ---- files ----


def test_mnist_from_its_four_files(mnist_dir):
    data = mnist.load_mnist_files(mnist_dir)
    assert data["train"]["image"].shape == (60000, 28, 28, 1) and data["train"]["image"].dtype == np.uint8
    assert data["test"]["image"].shape == (10000, 28, 28, 1)
    assert list(data["train"]["label"][:6]) == [5, 0, 4, 1, 9, 2]


def test_images_and_labels_are_ordered_together_by_the_images_bytes():
    """So a trial is the same wherever the images came from."""
    image = np.array([[3, 1], [0, 9], [3, 0]], np.uint8).reshape(3, 1, 2, 1)
    found = mnist.ordered_by_bytes({"image": image, "label": np.array([5, 6, 7])})
    assert found["image"].ravel().tolist() == [0, 9, 3, 0, 3, 1] and found["label"].tolist() == [6, 7, 5]


def test_the_sum_of_a_dataset_depends_on_every_image_and_label(digits):
    before = mnist.checksum(digits)
    for split in ("train", "test"):
        for key in ("image", "label"):
            changed = digits[split][key].copy()
            changed.reshape(-1)[-1] ^= 1
            assert mnist.checksum(digits | {split: digits[split] | {key: changed}}) != before
    assert mnist.checksum(digits) == digits["sha256"]


DAMAGES = [
    (lambda path: shutil.rmtree(path.parent), f"can't read {FIRST} .No such file.*must hold"),
    (lambda path: [p.unlink() for p in path.parent.iterdir()], "can't read train-images.*must hold"),
    (lambda path: path.unlink(), f"can't read {FIRST}"),
    (lambda path: path.write_bytes(path.read_bytes()[:15]), f"{FIRST} is corrupted .15 bytes"),
    (lambda path: path.write_bytes(b""), f"{FIRST} is not a gzip file"),
    (lambda path: path.write_bytes(b"PK\3\4 and so on"), f"{FIRST} is not a gzip file"),
    (lambda path: None, f"{FIRST} is corrupted .28 bytes.*download it again"),
]


@pytest.mark.parametrize("damage, words", DAMAGES)
@pytest.mark.parametrize("option", ["--mnist-dir", "MNIST_DIR"])
def test_a_damaged_folder_is_named_by_the_option_that_it_came_from(tmp_path, monkeypatch, damage, words, option):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name in mnist.CHECKSUMS:
        (folder / name).write_bytes(gzip.compress(b"no image"))
    damage(folder / FIRST)
    monkeypatch.setenv("MNIST_DIR", str(folder) if option == "MNIST_DIR" else "")
    arguments = ("--mnist-dir", folder) if option == "--mnist-dir" else ()
    line = complaint(call(*arguments, "--output", tmp_path / "output"))
    assert re.search(f"{option} {folder}: {words}", line), line


def test_a_single_changed_byte_is_found(mnist_dir, tmp_path):
    for name in mnist.CHECKSUMS:
        shutil.copy(mnist_dir / name, tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"t10k-labels.* corrupted"):
        mnist.load_data("auto", tmp_path)


# ---- downloads, from a server on this machine ----

CONTENTS = {name: (name + "\n").encode() * 20000 for name in mnist.CHECKSUMS}


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENTS; sends the first `sent` bytes of each and then waits, or hangs up."""

    sent, hang = None, False

    class RequestHandlerClass(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.content = CONTENTS[self.path[1:]]
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
def server():
    """A running Server."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.hang = False
        running.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """TensorFlow Datasets' folder, empty."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("MNIST_DIR", raising=False)
    return tmp_path / "home"


def infos_of(server, contents=CONTENTS):
    """What TensorFlow Datasets knows of the server's files."""
    import tensorflow_datasets as tfds

    return {
        f"http://127.0.0.1:{server.server_port}/{name}": tfds.download.checksums.UrlInfo(
            size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename=name
        )
        for name, content in contents.items()
    }


def holds_all(folder):
    """Whether the folder holds the four files, complete."""
    return all((folder / name).read_bytes() == content for name, content in CONTENTS.items())


def finished_files(home):
    """Files that do not lie in a temporary folder."""
    return [path for path in home.rglob("*-ubyte*") if path.is_file() and ".tmp." not in str(path)]


@pytest.mark.slow
def test_mnist_is_downloaded_without_tensorflow(server, home, capfd):
    folder = mnist.download_mnist(infos_of(server))
    assert holds_all(folder) and folder.is_relative_to(home)
    assert "Dl Completed...: 100%" in capfd.readouterr().err  # TensorFlow Datasets' progress bar
    assert "tensorflow" not in sys.modules
    server.shutdown()
    assert mnist.download_mnist({}) == folder  # it is there: no server is asked


@pytest.mark.slow
def test_an_interrupted_download_leaves_nothing_half(server, home):
    """The connection ends after 1000 bytes; the next attempt works."""
    server.sent = 1000
    with pytest.raises(ConnectionError, match="TensorFlow Datasets failed"):
        mnist.download_mnist(infos_of(server))
    assert finished_files(home) == []
    server.sent = None
    assert holds_all(mnist.download_mnist(infos_of(server)))
    assert not list(home.rglob("*.tmp.*"))


@pytest.mark.slow
def test_a_killed_download_leaves_nothing_half(server, home):
    """By kill -9, when some bytes of all files have come; the next attempt works, and removes what that one left."""
    server.sent, server.hang = 20000, True
    program = f"""if True:
        import sys
        sys.path.insert(0, {str(ROOT / "tests")!r})
        from test_mnist import infos_of, mnist
        from types import SimpleNamespace
        mnist.download_mnist(infos_of(SimpleNamespace(server_port={server.server_port})))
    """
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.DEVNULL)
    for _ in CONTENTS:
        assert server.halves.acquire(timeout=60)
    process.kill()
    process.wait()
    assert finished_files(home) == []
    server.sent, server.hang = None, False
    folder = mnist.download_mnist(infos_of(server))
    assert holds_all(folder) and not list(home.rglob("*.tmp.*")) and not list(home.rglob("*.partial"))


def test_a_download_of_another_content_is_refused(server, home):
    """The last file's sum is another one than registered."""
    other = CONTENTS | {"t10k-labels-idx1-ubyte.gz": b"other bytes"}
    with pytest.raises(ConnectionError, match="TensorFlow Datasets failed"):
        mnist.download_mnist(infos_of(server, other))
    assert not list((home / "downloads" / "mnist").glob("t10k-labels*"))


def test_files_put_there_by_hand_are_taken(home, mnist_dir):
    """And give the data that MNIST_DIR gives."""
    manual = home / "downloads" / "manual"
    manual.mkdir(parents=True)
    for name in mnist.CHECKSUMS:
        (manual / name).symlink_to(mnist_dir / name)
    assert mnist.load_data("mnist")["sha256"] == load_once("mnist", mnist_dir)["sha256"]
    assert "tensorflow" not in sys.modules


# ---- no network ----


def test_a_server_that_does_not_answer_is_noticed():
    """One that never answers, and one that isn't there, end in ConnectionError."""
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(ConnectionError, match=r"no answer in 0.5 s"):
        mnist.check_connection(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.5)
    with pytest.raises(ConnectionError, match="refused"):
        mnist.check_connection("http://127.0.0.1:9/")


UNREACHABLE = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}


@pytest.mark.slow
def test_without_network_mnist_is_refused_within_15_s(tmp_path):
    """In one line that names --mnist-dir."""
    start = time.monotonic()
    environment = UNREACHABLE | {"TFDS_DATA_DIR": str(tmp_path / "none")}
    ended = run_script("--dataset", "mnist", "--output", tmp_path / "output", environment=environment)
    assert time.monotonic() - start < 15
    assert "--mnist-dir" in complaint(ended)


@pytest.mark.slow
def test_without_network_auto_takes_the_digits(tmp_path, home, monkeypatch):
    for name, value in UNREACHABLE.items():
        monkeypatch.setenv(name, value)
    ended = call("--networks", "fully-connected", "--test-size", 4, "--output", tmp_path)
    assert ended.status == 0 and "note: MNIST can't be had: no connection to" in ended.err
    assert ended.out.startswith("THESE ARE SCIKIT-LEARN'S 8x8 DIGITS, NOT MNIST")
    assert ended.out.splitlines()[-1].startswith("THESE ARE")
    assert ended.out.count("skipped: 256 512") == 1
    assert (tmp_path / "digits-fully-connected_results.npz").exists()
    assert not (tmp_path / "fully-connected_results.npz").exists()
