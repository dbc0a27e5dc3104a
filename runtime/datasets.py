"""The images that a run can be of: four datasets by name, or the reader's own in a file FILE.npz.

DATASETS, at the end, has one entry for each name; another dataset in MNIST's format is one more
entry. `load_images` loads one of them and checks it, wherever it comes from.
"""

import argparse
import dataclasses
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntk import BadInput
from runtime.downloads import NotAvailable, download, downloads_folder
from runtime.image_files import (
    NPZ_ARRAYS,
    Split,
    UnusableFile,
    idx_array,
    printable,
    read_idx,
    read_npz,
    reason_of,
    refuse_broken_idx,
)

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


# --------------------------------------------------------------------------------------------------
# The records
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Images:
    """A dataset with its images, which are ordered by their bytes.

    sha256: sum of all images and labels. file_sha256: of the file that they came from, where it is
    the reader's own.
    """

    dataset: "Dataset"
    train: Split
    test: Split
    sha256: str
    file_sha256: str = ""

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.dataset.name

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        _, height, width, _ = self.train.image.shape
        return height, width

    @property
    def origin(self) -> dict[str, str]:
        """What labels and results record of the dataset."""
        origin = {"dataset": self.name, "dataset_sha256": self.sha256}
        if self.file_sha256:
            origin["file_sha256"] = self.file_sha256
        return origin


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What is known of a dataset before its images are loaded.

    name: in options, labels and results. title: in headings. prefix: what the names of its files
    begin with. class_names: of the labels 0, 1, ...; "" for a label without images; empty where
    they are not known yet. noun: what stands before two class names, as in "digits 8 and 9".
    note: what a run says first and last, so that nobody takes its images for MNIST's.
    """

    name: str
    title: str
    prefix: str
    class_names: tuple[str, ...]
    noun: str = ""
    note: str = ""

    def load(self, data_dir: str | Path | None = None, argument: str = "data_dir") -> Images:
        """Load and check the images.

        data_dir: the folder that the user named by `argument`, for a dataset of IDX files. Raises
        BadInput for files that are missing or wrong, NotAvailable where a download is not possible.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class IdxDataset(Dataset):
    """A dataset of four IDX files, which TensorFlow Datasets has under the same name.

    sums: SHA-256 of the unpacked files, in the order of IDX_FILES. packed: the sums are of the
    original gzip files instead, where nothing else is known.
    """

    sums: tuple[str, str, str, str]
    packed: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that names the folder of the files."""
        return f"{self.name.upper()}_DIR"

    def load(self, data_dir: str | Path | None = None, argument: str = "data_dir") -> Images:
        """From `data_dir`, else the environment variable's folder, else TensorFlow Datasets'."""
        if not data_dir:
            data_dir, argument = os.environ.get(self.variable), self.variable
        if data_dir:
            return read_idx_folder(self, expand(data_dir, argument), argument)
        downloads = downloads_folder()
        for folder in (downloads / "manual", downloads / self.name):
            if any(find_idx_files(self, folder).values()):
                try:
                    return read_idx_folder(self, folder, "TFDS_DATA_DIR")
                except BadInput as error:
                    print(f"note: {folder} is not used: {error.remedy}", file=sys.stderr)
        return read_idx_folder(self, download(self.name, self.title), "TFDS_DATA_DIR")


@dataclass(frozen=True, kw_only=True)
class EnlargedDigits(Dataset):
    """scikit-learn's handwritten digits, enlarged to MNIST's format and split once, in half."""

    def load(self, data_dir: str | Path | None = None, argument: str = "data_dir") -> Images:
        """From scikit-learn's own files."""
        import scipy.ndimage
        import sklearn.datasets

        digits = sklearn.datasets.load_digits()
        zoom = (1, 3.5, 3.5)
        enlarged = scipy.ndimage.zoom(digits.images, zoom, order=1, mode="nearest", grid_mode=True)
        image = np.round(enlarged * (255 / 16)).astype(np.uint8)[..., None]
        label = digits.target.astype(np.int64)
        halves = np.array_split(np.random.default_rng(0).permutation(len(image)), 2)
        train = Split(image[halves[0]], label[halves[0]])
        test = Split(image[halves[1]], label[halves[1]])
        return ordered_images(self, train, test)


@dataclass(frozen=True, kw_only=True)
class NpzFile(Dataset):
    """The reader's own images, in a file with the names that MedMNIST's files have."""

    path: str

    def load(self, data_dir: str | Path | None = None, argument: str = "data_dir") -> Images:
        """From the file; the dataset of what is returned knows its classes."""
        try:
            train, test, file_sha256 = read_npz(expand(self.path, "dataset"))
        except UnusableFile as error:
            raise BadInput("dataset", self.path, str(error)) from error
        usable = np.intersect1d(train.label, test.label).tolist()
        if len(usable) < 2:
            remedy = "has too few images: two or more labels must have training and test images"
            raise BadInput("dataset", self.path, remedy)
        class_names = [str(k) if k in usable else "" for k in range(usable[-1] + 1)]
        dataset = dataclasses.replace(self, class_names=tuple(class_names))
        return ordered_images(dataset, train, test, file_sha256)


def ordered_images(dataset: Dataset, train: Split, test: Split, file_sha256: str = "") -> Images:
    """The Images of two splits in any order."""
    train, test = ordered_by_bytes(train), ordered_by_bytes(test)
    return Images(dataset, train, test, checksum(train, test), file_sha256)


def ordered_by_bytes(split: Split) -> Split:
    """A split's images and labels, ordered by the images' bytes.

    So a trial does not depend on where its images came from.
    """
    image = np.ascontiguousarray(split.image)
    rows = image.reshape(len(image), -1).view(f"S{image[0].nbytes}")
    order = np.argsort(rows.ravel(), kind="stable")
    return Split(image[order], split.label[order])


def checksum(train: Split, test: Split) -> str:
    """SHA-256 sum of all images and labels, in hexadecimal digits."""
    digest = hashlib.sha256()
    for array in (train.image, train.label, test.image, test.label):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


# --------------------------------------------------------------------------------------------------
# Choosing a dataset and its classes
# --------------------------------------------------------------------------------------------------


class CannotBeHad(BadInput):
    """A dataset that is not on this machine and can't be downloaded."""


def load_images(
    dataset: str = "auto",
    data_dir: str | Path | None = None,
    mnist_dir: str | Path | None = None,
) -> Images:
    """Load the images and labels that trials are drawn from.

    dataset: a name in DATASETS, the path of a file FILE.npz, or "auto": MNIST, or the digits where
    MNIST can't be had. data_dir: folder of the four IDX files of mnist, fashion_mnist or kmnist, by
    default that of the environment variable MNIST_DIR, FASHION_MNIST_DIR or KMNIST_DIR, else
    TensorFlow Datasets', which downloads them. mnist_dir: the same, for MNIST alone.

    Raises BadInput for an unknown dataset and for files that are missing or wrong; CannotBeHad, a
    BadInput, where a download is not possible.
    """
    record = MNIST if dataset == "auto" else find_dataset(dataset)
    argument = "data_dir" if data_dir else "mnist_dir"
    folder = data_dir or mnist_dir
    if folder and not isinstance(record, IdxDataset):
        raise BadInput(argument, folder, f"{record.name} needs no folder; leave the option out")
    if folder and not data_dir and record is not MNIST:
        remedy = f"is for MNIST; name {record.title}'s folder by --data-dir"
        raise BadInput(argument, folder, remedy)
    try:
        return record.load(folder, argument)
    except NotAvailable as error:
        if dataset == "auto":
            print(f"note: {record.title} can't be had: {error}", file=sys.stderr)
            return DIGITS.load()
        option = "--mnist-dir" if record is MNIST else "--data-dir"
        remedy = f"give {option} a folder with {record.title}'s four IDX files"
        raise CannotBeHad("dataset", dataset, f"{error}; {remedy}") from error


def find_dataset(name: str) -> Dataset:
    """The dataset of a name in DATASETS, or of a file FILE.npz, which need not be there.

    Raises BadInput for other names.
    """
    if name in DATASETS:
        return DATASETS[name]
    if not name.lower().endswith(".npz"):
        known = ", ".join(DATASETS)
        raise BadInput("dataset", name, f"unknown; use auto, {known} or a file FILE.npz")
    file_name = printable(Path(name).name)
    stem = re.sub("[^a-z0-9]+", "-", file_name.lower().removesuffix(".npz")).strip("-")
    prefix = f"{stem[:40] or 'images'}-"
    if any(prefix == known.prefix for known in DATASETS.values()):
        prefix = f"npz-{prefix}"
    return NpzFile(
        name=file_name,
        title=file_name,
        prefix=prefix,
        class_names=(),
        noun="classes",
        note=f"THESE IMAGES ARE OF {file_name}, NOT MNIST; FILES ARE NAMED {prefix}...",
        path=name,
    )


def parse_classes(
    dataset: Dataset, texts: Sequence[Any], argument: str = "classes"
) -> tuple[int, int]:
    """Two labels, from their numbers or class names; "T-shirt/top" also from "t-shirt".

    Upper case, spaces and punctuation don't matter. Where the classes are not known yet, any two
    numbers will do: call it again with the dataset of the loaded images. Raises BadInput, which
    names `argument`.
    """
    given = " ".join(map(str, texts))
    if len(texts) != 2:
        remedy = 'name two, and put a name of several words in quotes, as in "ankle boot"'
        raise BadInput(argument, given, remedy)
    labels = []
    for text in map(str, texts):
        label = find_label(dataset, text)
        if label is None:
            what = f"{dataset.title} has no class {text}"
            raise BadInput(argument, given, f"{what}; use two of {list_classes(dataset)}")
        labels.append(label)
    if labels[0] == labels[1]:
        raise BadInput(argument, given, f"use two different ones of {list_classes(dataset)}")
    return labels[0], labels[1]


def find_label(dataset: Dataset, text: str) -> int | None:
    """The label of a class, from its number or its name; None for an unknown one."""
    names = dataset.class_names
    if text.isascii() and text.isdecimal() and len(text) < 10:
        label = int(text)
        is_known = not names or (label < len(names) and names[label] != "")
        return label if is_known else None
    wanted = letters(text)
    if wanted.isdecimal():  # as of -1
        return None
    for label, name in enumerate(names):
        if wanted and wanted in map(letters, [name, *name.split("/")]):
            return label
    return None


def letters(text: str) -> str:
    """The letters and digits of a text, in lower case."""
    return "".join(filter(str.isalnum, text.casefold()))


def list_classes(dataset: Dataset) -> str:
    """The dataset's classes with their numbers, for messages."""
    classes = []
    for label, name in enumerate(dataset.class_names):
        if name:
            classes.append(name if name == str(label) else f"{label} {name}")
    return ", ".join(classes) or "its numbers, 0 or more"


def class_title(dataset: Dataset, classes: Sequence[int]) -> str:
    """Two classes in headings: "digits 8 and 9", "bag and ankle boot"."""
    names = []
    for label in classes:
        is_known = label < len(dataset.class_names)
        names.append(dataset.class_names[label] if is_known else str(label))
    return f"{dataset.noun} {' and '.join(names)}".strip()


# --------------------------------------------------------------------------------------------------
# Options
# --------------------------------------------------------------------------------------------------

NAMES_HELP = (
    "mnist, fashion_mnist, kmnist, digits (scikit-learn's 8x8 digits, enlarged) or a file FILE.npz "
    f"with {', '.join(NPZ_ARRAYS)}: grey images [m, height, width], whole numbers [m]"
)
AUTO_HELP = "auto (MNIST, or the digits where MNIST can't be had), "
DATA_DIR_HELP = (
    "folder of the four IDX files of mnist, fashion_mnist or kmnist, packed or not (default: the "
    "environment variable MNIST_DIR, FASHION_MNIST_DIR or KMNIST_DIR, else TensorFlow Datasets)"
)
MNIST_DIR_HELP = "the same, for MNIST alone (default: likewise)"
CLASSES_HELP = (
    "two classes, by number or by name, the second one is class +1; --digits is the same "
    "(default: the paper's, 8 9 fully connected and 1 0 convolutional)"
)


def add_dataset_options(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    """Add --dataset, --data-dir and --mnist-dir: the arguments of load_images."""
    names = AUTO_HELP + NAMES_HELP if default == "auto" else NAMES_HELP
    text = f"what the images are: {names} (default: {default})"
    parser.add_argument("--dataset", default=default, type=dataset_name, metavar="NAME", help=text)
    folders = parser.add_mutually_exclusive_group()
    folders.add_argument("--data-dir", type=folder_name, metavar="DIR", help=DATA_DIR_HELP)
    folders.add_argument("--mnist-dir", type=folder_name, metavar="DIR", help=MNIST_DIR_HELP)


def add_classes_option(parser: argparse.ArgumentParser) -> None:
    """Add --classes, also called --digits: what parse_classes takes, or None."""
    names = ("--classes", "--digits")
    parser.add_argument(*names, nargs="+", metavar="CLASS", help=CLASSES_HELP)


def dataset_name(text: str) -> str:
    """The value of --dataset, which find_dataset must know."""
    if text != "auto":
        try:
            find_dataset(text)
        except BadInput as error:
            raise argparse.ArgumentTypeError(f"{text}: {error.remedy}") from None
    return text


def folder_name(text: str) -> str:
    """The value of --data-dir: an empty one would silently mean the default."""
    if not text:
        raise argparse.ArgumentTypeError("'': name a folder")
    return text


# --------------------------------------------------------------------------------------------------
# Folders of IDX files
# --------------------------------------------------------------------------------------------------


def expand(path: str | Path, argument: str) -> Path:
    """The path with ~ replaced. Raises BadInput where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise BadInput(argument, path, "~ is no folder here; write the whole path") from error


def read_idx_folder(dataset: IdxDataset, folder: Path, argument: str) -> Images:
    """Read the four files in `folder`, which `argument` named, or in torchvision's folders below.

    The sum of its content decides whether a file is right: it may be packed or not. Raises BadInput
    for a folder or file that is missing or wrong.
    """
    remedy = f"name the folder of {dataset.title}'s four IDX files"
    try:
        with os.scandir(folder):  # says why a folder can't be read
            paths = find_idx_files(dataset, folder)
    except NotADirectoryError as error:
        raise BadInput(argument, folder, f"is not a folder; {remedy}") from error
    except (OSError, ValueError) as error:
        words = f"can't be read ({reason_of(error)})"
        raise BadInput(argument, folder, f"{words}; {remedy}") from error
    missing = [name for name in IDX_FILES if not paths[name]]
    if missing:
        words = f"lacks {', '.join(missing)}"
        raise BadInput(argument, folder, f"{words}; {remedy}, gzipped or not")
    arrays = []
    for name in IDX_FILES:
        try:
            arrays.append(read_first_right(dataset, name, paths[name]))
        except UnusableFile as error:
            raise BadInput(argument, folder, str(error)) from error
    train = Split(arrays[0][..., None], arrays[1].astype(np.int64))
    test = Split(arrays[2][..., None], arrays[3].astype(np.int64))
    return ordered_images(dataset, train, test)


def find_idx_files(dataset: IdxDataset, folder: Path) -> dict[str, list[Path]]:
    """The paths that may be each of IDX_FILES; none where a folder can't be read."""
    found: dict[str, list[Path]] = {name: [] for name in IDX_FILES}
    torchvision = dataset.title.replace("-", "")  # its folder: MNIST, FashionMNIST, KMNIST
    for place in (folder, folder / "raw", folder / torchvision / "raw"):
        if not os.access(place, os.R_OK | os.X_OK) or not place.is_dir():
            continue
        for path in sorted(place.iterdir()):
            name = path.name.lower().replace(".", "-").removesuffix("-gz")
            if name in found:
                found[name].append(path)
    return found


def read_first_right(dataset: IdxDataset, name: str, paths: list[Path]) -> NDArray[np.uint8]:
    """The array of the first path that holds the file `name` of IDX_FILES.

    Raises UnusableFile about the first path where none does.
    """
    problems = []
    expected = dataset.sums[IDX_FILES.index(name)]
    for path in paths:
        try:
            packed, content = read_idx(path)
            checked = packed if dataset.packed else content
            if hashlib.sha256(checked).hexdigest() == expected:
                return idx_array(content)
            refuse_content(dataset, content)
        except UnusableFile as error:
            problems.append(f"{path.name} {error}")
    raise UnusableFile(problems[0])


def refuse_content(dataset: IdxDataset, content: bytes) -> None:
    """Raise UnusableFile that says what this content is, instead of the right one."""
    digest = hashlib.sha256(content).hexdigest()
    for other in DATASETS.values():
        if isinstance(other, IdxDataset) and digest in other.sums:
            words = f"holds {other.title}'s {IDX_FILES[other.sums.index(digest)]}"
            if other is dataset:
                raise UnusableFile(f"{words}; download it again")
            remedy = f"name {dataset.title}'s folder, or use --dataset {other.name}"
            raise UnusableFile(f"{words}; {remedy}")
    refuse_broken_idx(content)
    if dataset.packed:
        words = "is not the original gzip file, the only one whose sum is known"
        raise UnusableFile(f"{words}; download it again")
    words = f"has another content than {dataset.title}'s (SHA-256 {digest[:8]}...)"
    raise UnusableFile(f"{words}; download it again")


# --------------------------------------------------------------------------------------------------
# The datasets
# --------------------------------------------------------------------------------------------------

MNIST = IdxDataset(
    name="mnist",
    title="MNIST",
    prefix="",
    class_names=tuple("0123456789"),
    noun="digits",
    sums=(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
FASHION_MNIST = IdxDataset(
    name="fashion_mnist",
    title="Fashion-MNIST",
    prefix="fashion-mnist-",
    class_names=(
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    note="These images are Fashion-MNIST's, not MNIST's; files are named fashion-mnist-...",
    sums=(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)
KMNIST = IdxDataset(
    name="kmnist",
    title="KMNIST",
    prefix="kmnist-",
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    noun="characters",
    note="These images are KMNIST's, not MNIST's; files are named kmnist-...",
    packed=True,
    sums=(
        "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    ),
)
DIGITS = EnlargedDigits(
    name="digits",
    title="scikit-learn's 8x8 digits, NOT MNIST",
    prefix="digits-",
    class_names=tuple("0123456789"),
    noun="digits",
    note="THESE ARE SCIKIT-LEARN'S 8x8 DIGITS, NOT MNIST; FILES ARE NAMED digits-...",
)
DATASETS: dict[str, Dataset] = {
    dataset.name: dataset for dataset in (MNIST, FASHION_MNIST, KMNIST, DIGITS)
}
