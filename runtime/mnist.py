"""MNIST from its four files, given or downloaded, and the small digits that stand in where it can't be had."""

import gzip
import hashlib
import itertools
import os
import shutil
import struct
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntk import BadInput

Split = dict[str, NDArray]  # {"image": uint8 [m, 28, 28, 1], "label": int [m]}

CHECKSUMS = {  # SHA-256, as TensorFlow Datasets registers them for mnist:3.*.*
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def load_data(dataset: str = "auto", mnist_dir: str | Path | None = None) -> dict[str, Any]:
    """Load the images and labels that trials are drawn from, the images ordered by their bytes.

    dataset: "mnist" (from `mnist_dir`, else the environment variable MNIST_DIR, else downloaded by TensorFlow
    Datasets), "digits" (scikit-learn's 8x8 digits, enlarged) or "auto": digits only where MNIST can't be had.

    Returns {"train": {"image": uint8 [n, 28, 28, 1], "label": int [n]}, "test": the same, "name": "mnist" or "digits",
    "sha256": of all of it}. Raises BadInput for an unknown dataset, an MNIST folder that is incomplete or corrupted,
    and MNIST that can't be had.
    """
    if dataset not in ("auto", "mnist", "digits"):
        raise BadInput("dataset", dataset, "unknown; use auto, mnist or digits")
    data = load_digits() if dataset == "digits" else None
    for argument, folder in (("mnist_dir", mnist_dir), ("MNIST_DIR", os.environ.get("MNIST_DIR"))):
        if data is None and folder:
            data = load_mnist_files(Path(folder), argument)
    if data is None:
        try:
            data = load_mnist_files(download_mnist(), "TFDS_DATA_DIR")
        except ConnectionError as error:
            if dataset == "mnist":
                remedy = "give --mnist-dir a folder with MNIST's four IDX files"
                raise BadInput("dataset", dataset, f"{error}; {remedy}") from error
            print(f"note: MNIST can't be had: {error}", file=sys.stderr)
            data = load_digits()
    data |= {split: ordered_by_bytes(data[split]) for split in ("train", "test")}
    return data | {"sha256": checksum(data)}


def load_mnist_files(folder: Path, argument: str = "mnist_dir") -> dict[str, Any]:
    """Read MNIST's four gzipped IDX files from `folder`, which `argument` named, checked by SHA-256 sums."""
    arrays = {}
    for name, expected in CHECKSUMS.items():
        try:
            compressed = (folder / name).read_bytes()
        except OSError as error:
            what = f"can't read {name} ({error.strerror})"
            raise BadInput(argument, folder, f"{what}; it must hold {', '.join(CHECKSUMS)}") from error
        if compressed[:2] != b"\x1f\x8b":
            raise BadInput(argument, folder, f"{name} is not a gzip file; download it again, and leave it packed")
        if hashlib.sha256(compressed).hexdigest() != expected:
            what = f"{name} is corrupted ({len(compressed)} bytes, its SHA-256 sum is not {expected[:8]}...)"
            raise BadInput(argument, folder, f"{what}; download it again")
        content = gzip.decompress(compressed)
        rank = content[3]  # IDX: two zero bytes, type, rank, big-endian sizes, then the data
        shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
        arrays[name] = np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    train_image, train_label, test_image, test_label = arrays.values()
    return {
        "train": {"image": train_image[..., None], "label": train_label.astype(np.int64)},
        "test": {"image": test_image[..., None], "label": test_label.astype(np.int64)},
        "name": "mnist",
    }


def download_mnist(url_infos: dict | None = None) -> Path:
    """The folder of MNIST's four files: TensorFlow Datasets' own, filled by its download manager where they lack.

    url_infos: where the files are and their checksums, by default those that TensorFlow Datasets registers. Without
    TensorFlow. An interrupted download leaves only a temporary folder, which the next one removes. Raises
    ConnectionError where the files are neither there nor to be had.
    """
    home = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    manual, downloads = home / "downloads" / "manual", home / "downloads" / "mnist"
    for folder in (manual, downloads):
        if all((folder / name).exists() for name in CHECKSUMS):
            return folder
    import tensorflow_datasets as tfds

    url_infos = url_infos or tfds.builder("mnist", data_dir=str(home)).url_infos
    check_connection(next(iter(url_infos)))  # the download manager would retry for minutes
    print("note: downloading MNIST (11 MB) through TensorFlow Datasets", file=sys.stderr)
    cache = downloads / "cache"
    for abandoned in list(cache.rglob("*.tmp.*")):
        shutil.rmtree(abandoned)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        manager = tfds.download.DownloadManager(
            download_dir=cache, manual_dir=manual, url_infos=url_infos, dataset_name="mnist"
        )
        found = manager.download({info.filename: url for url, info in url_infos.items()})
        for name, path in found.items():
            shutil.copyfile(path, downloads / f"{name}.partial")
            (downloads / f"{name}.partial").replace(downloads / name)
    except Exception as error:  # of requests, urllib3, tensorflow_datasets or the system
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConnectionError(f"TensorFlow Datasets failed ({reason})") from error
    return downloads


def check_connection(url: str, seconds: float = 10) -> None:
    """Raise ConnectionError unless `url` answers within `seconds`.

    In a process of its own, which can be ended: the system's look-up of a name heeds no timeout.
    """
    program = "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], method='HEAD'), timeout=60)"
    try:
        subprocess.run([sys.executable, "-c", program, url], timeout=seconds, check=True, capture_output=True)
    except subprocess.SubprocessError as error:
        reason = f"no answer in {seconds} s"
        if isinstance(error, subprocess.CalledProcessError):
            reason = error.stderr.decode(errors="replace").strip().splitlines()[-1]
        raise ConnectionError(f"no connection to {urllib.parse.urlsplit(url).hostname} ({reason})") from error


def load_digits() -> dict[str, Any]:
    """scikit-learn's handwritten digits, enlarged to MNIST's format and split once, in half."""
    import scipy.ndimage
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    enlarged = scipy.ndimage.zoom(digits.images, (1, 3.5, 3.5), order=1, mode="nearest", grid_mode=True)
    image = np.round(enlarged * (255 / 16)).astype(np.uint8)[..., None]
    halves = np.array_split(np.random.default_rng(0).permutation(len(image)), 2)
    train, test = ({"image": image[i], "label": digits.target[i].astype(np.int64)} for i in halves)
    return {"train": train, "test": test, "name": "digits"}


def ordered_by_bytes(split: Split) -> Split:
    """A split's images and labels, ordered by the images' bytes: a trial must not depend on where they came from."""
    image = np.ascontiguousarray(split["image"])
    order = np.argsort(image.reshape(len(image), -1).view(f"S{image[0].size}").ravel(), kind="stable")
    return {"image": image[order], "label": split["label"][order]}


def checksum(data: dict[str, Any]) -> str:
    """SHA-256 sum of all images and labels, in hexadecimal digits."""
    digest = hashlib.sha256()
    for split, key in itertools.product(("train", "test"), ("image", "label")):
        digest.update(np.ascontiguousarray(data[split][key]).data)
    return digest.hexdigest()
