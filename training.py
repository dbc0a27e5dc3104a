"""Kernels of "A quantum algorithm for training wide and deep classical neural networks".

Reproduces the experiment of A. Zlokapa, H. Neven and S. Lloyd (arXiv:2107.09200, 2021). Training an infinitely
wide network by gradient descent is kernel regression with its neural tangent kernel (NTK), prediction(x*) =
sign(k*^T K^-1 y). Replace K by a matrix that a quantum computer can invert in O(log n), sparsified or diagonal;
the accuracy should stay, and the sparsity, the condition number and the numbers of measurements should grow no
faster than log n.

    python training.py                                  # both networks, the constants below
    python training.py --networks fully-connected       # seconds
    python training.py --mnist-dir DIR                  # the four IDX files, without TensorFlow
    python training.py --data-sizes 16 32 --trials 2 1  # other sizes, other numbers of trials
    python training.py --help                           # everything else

Writes into kernel_output/, for every trial t of every training-set size N, `{prefix}_seed{seed}_data{N}_trial{t}_
{train_label|test_label|kernel_train|kernel_test|kernel_test_normalized}.npy`, then `{prefix}_results.npz` for each
network, and `run.json`. The kernels come from kernels.py. What is already there is not computed again: a run that was
interrupted, by whatever, goes on where it ended. analysis.ipynb draws the results. README.md says how long it takes
where, and how to run on several machines.
"""

import argparse
import contextlib
import functools
import gzip
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import platform
import shlex
import signal
import struct
import subprocess
import sys
import time
import urllib.parse
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path


def stop(number, _):
    """On Ctrl-C and SIGTERM: say how to go on, and leave. An exception could get lost in a library's callback, and
    whatever is on the disk survives even kill -9.
    """
    line = f"training.py: stopped by {signal.Signals(number).name}; to go on: python {shlex.join(sys.argv)}\n"
    os.write(2, ("\n" * sys.stderr.isatty() + line).encode())  # below the progress bar
    os._exit(128 + number)


if __name__ == "__main__":  # before the imports that take time
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    sys.stdout.reconfigure(line_buffering=True)  # so that a log is complete whatever ends the run

import filelock
import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from tqdm import tqdm

from kernels import (
    BadInput,
    broadcast,
    choose_engine,
    convolutional_ntk,  # noqa: F401, for those who import this module
    convolutional_pairs,
    engines,
    formulas,
    fully_connected_blocks,
    fully_connected_ntk,
    gather,
    has_accelerator,
    is_leader,
    join_processes,
    mirror,
    nonlinearity,
    process_count,
    run_again,
)

# JAX, neural-tangents, scikit-learn and TensorFlow are imported by the functions that need them: `--help` and a wrong
# option should not wait for them.

# ----------------------------------------------------------------------------------------------------------------------
# Constants: the original's names and values. Edit them here, or override them by flags.
# ----------------------------------------------------------------------------------------------------------------------

seed = 0
test_size = 256  # test images of a trial, half of each class
data_sizes = [16, 32, 64, 128, 256, 512]  # training images of a trial, half of each class
trials = [16, 8, 4, 4, 4, 4]  # trials of each size
# Where JAX finds no accelerator the convolutional network takes the smaller of this and `trials`, size by size.
trials_without_accelerator = [4, 2, 1, 0, 0, 0]

conventions = ("", "_sound")  # suffixes of results: as in the original, and sounder (see trial_quantities)
dense_limit = 1024  # larger sparsified matrices are kept sparse, with sparse solves and Lanczos eigenvalues
sparsity_patterns = 3  # random sparsity patterns tried on each trial's kernel
pattern_draws = 100  # patterns drawn for each size to plot their sparsity alone
condition_limit = 1e12  # results flag matrices of a larger condition number

selections = {"fully-connected": (8, 9), "convolutional": (1, 0)}  # digits; the second one is class +1
depth_factor = 0.1  # depth of the fully-connected network in units of L_conv
convolutional_depth = 96  # convolutions of the convolutional network, a third before each pooling
sweep_factors = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]  # depth factors of --depth-sweep, fully connected
sweep_depths = [12, 24, 48, 96]  # and depths, convolutional
k_thresh_margin = 1e-5  # fully connected: k_thresh is the NTK at inner product 1 - margin
reference_size = 16  # convolutional: its first trial gives k_thresh and the sparsifying thresholds
percentile = 90  # of |K| inside a class, for the sparsifying thresholds
diagonal_boost = (0.76, 0.9)  # convolutional: 0.76 ln(n)^0.9 times the diagonal is added to the diagonal

networks = tuple(selections)
flush_seconds = 20  # from one flush of unfinished kernels to the disk to the next
MNIST_FILES = {  # SHA-256 sums as TensorFlow Datasets registers them for mnist:3.*.*
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz"


def random_generator(seed, network, size, trial, purpose):
    """The generator of one draw, seeded by what the draw is for and not by what was drawn before it.

    So a trial is the same whichever other trials, sizes and networks run beside it.
    """
    key = [seed, zlib.crc32(network.encode()), size, trial, zlib.crc32(purpose.encode())]
    return np.random.default_rng(key)


# ----------------------------------------------------------------------------------------------------------------------
# Data
# ----------------------------------------------------------------------------------------------------------------------


def load_data(dataset="auto", mnist_dir=None):
    """Load the images and labels that trials are drawn from.

    dataset: "mnist" (from `mnist_dir`, else the environment variable MNIST_DIR, else TensorFlow Datasets),
    "digits" (scikit-learn's embedded 8x8 digits, enlarged) or "auto": digits only where MNIST can't be had.

    Returns {"train": {"image": uint8 [n, 28, 28, 1], "label": int [n]}, "test": the same, "name": "mnist" or
    "digits"}. Raises BadInput, a ValueError, for an unknown dataset, an MNIST folder that is incomplete or
    corrupted, and MNIST that can't be had.
    """
    if dataset not in ("auto", "mnist", "digits"):
        raise BadInput(f"--dataset {dataset}: unknown; use auto, mnist or digits")
    if dataset == "digits":
        return load_digits()
    for option, folder in (("--mnist-dir", mnist_dir), ("MNIST_DIR", os.environ.get("MNIST_DIR"))):
        if folder:
            return load_mnist_files(Path(folder), option)
    try:
        return load_mnist_tfds()
    except ConnectionError as error:
        if dataset == "mnist":
            remedy = "give --mnist-dir a folder with MNIST's four IDX files"
            raise BadInput(f"--dataset mnist: {error}; {remedy}") from error
        print(f"note: MNIST can't be had: {error}", file=sys.stderr)
        return load_digits()


def load_mnist_files(folder, option="--mnist-dir"):
    """Read the four gzipped IDX files of MNIST from `folder`, which `option` named, checked by SHA-256 sums."""
    arrays = {}
    for name, checksum in MNIST_FILES.items():
        try:
            compressed = (folder / name).read_bytes()
        except OSError as error:
            what = f"can't read {name} ({error.strerror})"
            raise BadInput(f"{option} {folder}: {what}; it must hold {', '.join(MNIST_FILES)}") from error
        if compressed[:2] != b"\x1f\x8b":
            raise BadInput(f"{option} {folder}: {name} is not a gzip file; download it again, and leave it packed")
        if hashlib.sha256(compressed).hexdigest() != checksum:
            what = f"{name} is corrupted ({len(compressed)} bytes, its SHA-256 sum is not {checksum[:8]}...)"
            raise BadInput(f"{option} {folder}: {what}; download it again")
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


def load_mnist_tfds():
    """MNIST from TensorFlow Datasets, downloaded if it is not prepared yet; ConnectionError if it can't be.

    TensorFlow runs in a process of its own that sees no GPU: it would otherwise take the GPU's memory from JAX,
    and print start-up messages that can't be silenced from Python.
    """
    folder = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    by_hand = all((folder / "downloads" / "manual" / name).exists() for name in MNIST_FILES)
    if not by_hand and not list(folder.glob("mnist/3.*/dataset_info.json")):
        check_connection(MNIST_URL)  # TFDS itself would retry for minutes
        print("note: downloading MNIST through TensorFlow Datasets", file=sys.stderr)
    program = """if True:
        import os, numpy, tensorflow_datasets as tfds
        pipe = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # whatever else prints
        tfds.disable_progress_bar()
        data = tfds.as_numpy(tfds.load("mnist:3.*.*", batch_size=-1))
        numpy.savez(pipe, **{s + k: data[s][k] for s in ("train", "test") for k in ("image", "label")})
    """
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    if result.returncode != 0:
        reason = (result.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise ConnectionError(f"TensorFlow Datasets failed ({reason})")
    arrays = np.load(io.BytesIO(result.stdout))
    splits = {
        split: {"image": arrays[f"{split}image"], "label": arrays[f"{split}label"]} for split in ("train", "test")
    }
    return splits | {"name": "mnist"}


def check_connection(url, seconds=10):
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


def load_digits():
    """scikit-learn's handwritten digits, enlarged to MNIST's format and split once, in half."""
    import scipy.ndimage
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    enlarged = scipy.ndimage.zoom(digits.images, (1, 3.5, 3.5), order=1, mode="nearest", grid_mode=True)
    image = np.round(enlarged * (255 / 16)).astype(np.uint8)[..., None]
    halves = np.array_split(np.random.default_rng(0).permutation(len(image)), 2)
    train, test = ({"image": image[i], "label": digits.target[i].astype(np.int64)} for i in halves)
    return {"train": train, "test": test, "name": "digits"}


def canonical_order(data_chunk):
    """The chunk ordered by the images' bytes: IDX files and TFDS list the same images in different orders."""
    image = np.ascontiguousarray(data_chunk["image"])
    order = np.argsort(image.reshape(len(image), -1).view(f"S{image[0].size}").ravel(), kind="stable")
    return {"image": image[order], "label": data_chunk["label"][order]}


def data_sum(data):
    """SHA-256 sum of all images and labels, in hexadecimal digits."""
    digest = hashlib.sha256()
    for split, key in itertools.product(("train", "test"), ("image", "label")):
        digest.update(np.ascontiguousarray(data[split][key]))
    return digest.hexdigest()


def process_data(data_chunk, selection, class_size, flatten_images, rng):
    """Draw a balanced, standardised subset of two digits.

    data_chunk: {"image": uint8 [m, h, w, 1], "label": int [m]}. Takes `class_size` images of each digit in random
    order (fewer of both, with a note, where one has not that many), first those of selection[1] with label +1,
    then those of selection[0] with label -1. The subset is standardised by its own mean and standard deviation,
    all pixels together, then every image scaled to unit Euclidean norm.

    Returns (image, label): float64 [n, h * w] if `flatten_images`, else [n, h, w, 1]; +1 and -1 [n].
    Raises BadInput, a ValueError, where there is no image or only one colour.
    """
    available = [np.flatnonzero(data_chunk["label"] == digit) for digit in selection]
    count = min(class_size, *map(len, available))
    if count < 1:
        raise BadInput(f"no {class_size} images of each of the digits {selection} to choose from")
    if count < class_size:
        print(f"note: only {count} images of each of the digits {selection}, not {class_size}")
    indices = np.concatenate([rng.permutation(available[i])[:count] for i in (1, 0)])
    image = data_chunk["image"][indices].astype(np.float64)
    if image.std() == 0:
        raise BadInput(f"the images of the digits {selection} are all of one colour")
    image = (image - image.mean()) / image.std()
    image /= np.sqrt(np.sum(image**2, axis=(1, 2, 3), keepdims=True))
    return image.reshape(2 * count, -1) if flatten_images else image, np.repeat([1, -1], count)


def separability(x):
    """delta = min over i != j of 1 - |x_i . x_j|, of unit vectors x [n, d] or images [n, h, w, 1]."""
    x = x.reshape(len(x), -1)
    overlap = np.abs(x @ x.T)
    np.fill_diagonal(overlap, 0)
    return 1 - overlap.max()


def fully_connected_depth(n, delta, factor=depth_factor):
    """round(factor L_conv) with L_conv = 8 ln(n/delta)/mu (arXiv:2107.09200): about 36 at n = 16, 83 at 512.

    A delta of two identical images, below the precision of float64, counts as that precision.
    """
    return round(factor * 8 * np.log(n / max(delta, np.finfo(float).eps)) / nonlinearity)


# ----------------------------------------------------------------------------------------------------------------------
# Approximations of the kernel matrix K [n, n], the n/2 images of the first class before those of the second
# ----------------------------------------------------------------------------------------------------------------------


def same_class(n):
    """Whether images i and j are of one class, bool [n, n]."""
    first = np.arange(n) < n // 2
    return first[:, None] == first


def sparsity_pattern(n, rng, replacement=True):
    """Random symmetric pattern of O(log n) entries a row, bool [n, n].

    Each row draws Binomial(n, p) columns, p = min(2 ln(n)/n, 1), with replacement as the original does; the lower
    triangle is kept and mirrored, entries between the classes are dropped, the diagonal is set. Without replacement
    that many distinct columns are drawn, which is to keep every entry with probability p.
    """
    p = min(2 * np.log(n) / n, 1)
    if replacement:
        counts = rng.binomial(n, p, size=n)
        pattern = np.zeros((n, n), dtype=bool)
        pattern[np.repeat(np.arange(n), counts), rng.integers(n, size=counts.sum())] = True
    else:
        pattern = rng.random((n, n), dtype=np.float32) < p
    pattern = np.tril(pattern)
    pattern = (pattern | pattern.T) & same_class(n)
    np.fill_diagonal(pattern, True)
    return pattern


def class_thresholds(kernel, percentile=90, zeros=True):
    """The percentile of |K| inside each class's block, off the diagonal; two numbers.

    The original takes it over the whole matrix with zeros outside the block (zeros=True): the 90th then keeps 46 % of
    the block's entries at n = 16. With zeros=False it is the percentile of the block's own entries.
    """
    n = len(kernel)
    thresholds = []
    for block in (slice(0, n // 2), slice(n // 2, n)):
        inside = np.abs(kernel[block, block])
        inside = inside[~np.eye(len(inside), dtype=bool)]
        outside = np.zeros(n * n - inside.size if zeros else 0)
        thresholds.append(np.percentile(np.concatenate([inside, outside]), percentile))
    return tuple(thresholds)


def sparsify_unbiased(kernel, pattern):
    """K~ = K o pattern, of the fully-connected network. [n, n]"""
    return kernel * pattern


def sparsify_biased(kernel, pattern, thresholds):
    """K~ of the convolutional network: K o pattern, small entries dropped, the diagonal enlarged. [n, n]

    Off the diagonal |K| must be above its class's one of the two `thresholds`; 0.76 ln(n)^0.9 times the diagonal is
    added to the diagonal.
    """
    n = len(kernel)
    threshold = np.repeat(thresholds, [n // 2, n - n // 2])[:, None]
    sparsified = kernel * (pattern & (np.abs(kernel) > threshold))
    factor, power = diagonal_boost
    np.fill_diagonal(sparsified, np.diag(kernel) * (1 + factor * np.log(n) ** power))
    return sparsified


# ----------------------------------------------------------------------------------------------------------------------
# Quantities that the paper claims to stay O(log n)
# ----------------------------------------------------------------------------------------------------------------------


def sparsity(matrix):
    """Largest number of non-zero entries in a column of a matrix, dense or sparse."""
    return (matrix != 0).sum(axis=0).max()


def extreme_eigenvalues(matrix):
    """(lowest, smallest magnitude, largest magnitude) of the eigenvalues of a symmetric matrix, dense or sparse."""
    if not scipy.sparse.issparse(matrix):
        eigenvalues = scipy.linalg.eigvalsh(matrix)
        return eigenvalues[0], np.abs(eigenvalues).min(), np.abs(eigenvalues).max()

    start = np.random.default_rng(0).random(matrix.shape[0])

    def lanczos(**which):
        try:
            return scipy.sparse.linalg.eigsh(matrix, k=1, return_eigenvectors=False, v0=start, **which)[0]
        except scipy.sparse.linalg.ArpackNoConvergence:
            return np.nan
        except RuntimeError:  # the matrix has no LU decomposition
            return 0.0

    closest = lanczos(sigma=0)  # to zero
    return min(lanczos(which="SA"), closest), abs(closest), abs(lanczos(which="LM"))


def condition_number(matrix, eigenvalues=None):
    """Largest over smallest |eigenvalue| of a symmetric matrix, or from its `extreme_eigenvalues`; inf if singular."""
    _, smallest, largest = extreme_eigenvalues(matrix) if eigenvalues is None else eigenvalues
    return np.inf if smallest == 0 else largest / smallest


def numerical_flags(matrix, eigenvalues):
    """What is doubtful about a symmetric matrix, by its `extreme_eigenvalues`: the sum of 1, it is not positive
    definite, 2, it is singular to rounding, and 4, its condition number is above 1e12.
    """
    lowest, smallest, largest = eigenvalues
    singular = not smallest > matrix.shape[0] * np.finfo(float).eps * largest
    return 1 * (not lowest > 0) + 2 * singular + 4 * (not condition_number(matrix, eigenvalues) <= condition_limit)


def solve(matrix, y):
    """matrix^-1 y of a symmetric matrix [n, n], dense or sparse, scaled to unit norm [n]; NaN if it is singular."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the condition number is reported anyway
        try:
            if scipy.sparse.issparse(matrix):
                weights = scipy.sparse.linalg.spsolve(matrix.tocsc(), y)
            else:
                weights = scipy.linalg.solve(matrix, y, assume_a="sym")
        except scipy.linalg.LinAlgError:
            return np.full(len(y), np.nan)
    return weights / np.linalg.norm(weights)


def accuracy(outputs, label, threshold=None):
    """Share of test images classified rightly by sign(output - threshold), by default the median of the outputs."""
    if not np.isfinite(outputs).all():
        return np.nan
    return np.mean(np.where(outputs > (np.median(outputs) if threshold is None else threshold), 1, -1) == label)


def post_selection_measurements(kernel_test_normalized, rescale=True):
    """Measurements to prepare |k*> of every test image, n/P with P = sum_i k_i^2. [test, n] -> [test]

    As the original does, k* is divided once more, by the largest entry of the whole test block, a number that no
    algorithm knows beforehand; rescale=False leaves that out.
    """
    k = kernel_test_normalized / (np.abs(kernel_test_normalized).max() if rescale else 1)
    return k.shape[1] / np.sum(k**2, axis=1)


def readout_measurements(kernel_test_normalized, weights, at_median=False):
    """Measurements to read out o = <k*|w>, both of unit norm, for every test image. [test, n] -> [test]

    1/o^2 - 1, the cost of the sign of o; at_median: (1 - o^2)/(o - t)^2, that of the sign of o - t with the median t
    of all o, which is the threshold that the accuracy uses.
    """
    norms = np.linalg.norm(kernel_test_normalized, axis=1) * np.linalg.norm(weights)
    overlap = kernel_test_normalized @ weights / norms
    with np.errstate(divide="ignore"):  # inf at the threshold itself
        return (1 - overlap**2) / (overlap - (np.median(overlap) if at_median else 0)) ** 2


def trial_quantities(network, kernels, patterns, thresholds):
    """What the paper plots, of one trial, and beside it the same by sounder conventions.

    kernels: the trial's arrays by file name. patterns, thresholds: of the conventions "" (the original's) and "_sound"
    (patterns drawn without replacement, percentiles of the block's own entries), lists of matrices and pairs of
    numbers. Returns values named as in `results_shapes`.
    """
    kernel, y, test_label = kernels["kernel_train"], kernels["train_label"], kernels["test_label"]
    test, normalized = kernels["kernel_test"], kernels["kernel_test_normalized"]
    # A threshold that is known before the test images are: the largest off-diagonal entry of the training matrix.
    largest = max(np.abs(np.delete(row, i)).max() for i, row in enumerate(kernel))
    by_training = np.clip(test / largest, -1, 1) if largest > 0 else np.sign(test)
    exact, diagonal = test @ solve(kernel, y), normalized @ (y / np.diag(kernel))
    eigenvalues = extreme_eigenvalues(kernel)
    found = {
        "condition_number_exact": condition_number(kernel, eigenvalues),
        "numerical_flags_exact": numerical_flags(kernel, eigenvalues),
        "off_diagonal_ratio": largest / np.abs(np.diag(kernel)).min(),
        "accuracy_exact": accuracy(exact, test_label),
        "accuracy_exact_at_zero": accuracy(exact, test_label, 0),
        "accuracy_diagonal": accuracy(diagonal, test_label),
        "accuracy_diagonal_at_zero": accuracy(diagonal, test_label, 0),
        "post_selection_measurements": post_selection_measurements(normalized),
        "post_selection_measurements_k_thresh": post_selection_measurements(normalized, rescale=False),
        "post_selection_measurements_training": post_selection_measurements(by_training, rescale=False),
        "clipped_share_k_thresh": np.mean(np.abs(normalized) == 1),
        "clipped_share_training": np.mean(np.abs(by_training) == 1),
        "readout_measurements_diagonal": readout_measurements(normalized, y),
        "readout_measurements_diagonal_at_median": readout_measurements(normalized, y, at_median=True),
    }
    for convention, several in patterns.items():
        for pattern in several:
            if network == "fully-connected":
                sparsified = sparsify_unbiased(kernel, pattern)
            else:
                sparsified = sparsify_biased(kernel, pattern, thresholds[convention])
            if len(y) > dense_limit:
                sparsified = scipy.sparse.csr_array(sparsified)
            weights = solve(sparsified, y)
            eigenvalues = extreme_eigenvalues(sparsified)
            for name, value in {
                "sparsity": sparsity(sparsified),
                "condition_number": condition_number(sparsified, eigenvalues),
                "numerical_flags": numerical_flags(sparsified, eigenvalues),
                "smallest_eigenvalue": eigenvalues[0],
                "positive_definite": eigenvalues[0] > 0,
                "accuracy_sparse": accuracy(normalized @ weights, test_label),
                "accuracy_sparse_at_zero": accuracy(normalized @ weights, test_label, 0),
                "readout_measurements_sparse": readout_measurements(normalized, weights),
                "readout_measurements_sparse_at_median": readout_measurements(normalized, weights, at_median=True),
            }.items():
                found.setdefault(name + convention, []).append(value)
    return found


def results_shapes(sizes, most_trials, test_images):
    """Shapes of the arrays in `{prefix}_results.npz`, without data_sizes and trials [sizes]; NaN for missing trials."""
    s, t, p, x = sizes, most_trials, sparsity_patterns, test_images
    per_trial = ["depth", "separability", "off_diagonal_ratio", "condition_number_exact", "numerical_flags_exact",
                 "clipped_share_k_thresh", "clipped_share_training"]  # fmt: skip
    per_trial += [f"accuracy_{which}{at}" for which in ("exact", "diagonal") for at in ("", "_at_zero")]
    per_image = [f"post_selection_measurements{which}" for which in ("", "_k_thresh", "_training")]
    per_image += [f"readout_measurements_diagonal{at}" for at in ("", "_at_median")]
    shapes = dict.fromkeys(per_trial, (s, t)) | dict.fromkeys(per_image, (s, t, x))
    for convention in conventions:
        per_pattern = ["sparsity", "condition_number", "numerical_flags", "smallest_eigenvalue", "positive_definite"]
        per_pattern += ["accuracy_sparse", "accuracy_sparse_at_zero"]
        shapes |= dict.fromkeys([name + convention for name in per_pattern], (s, t, p))
        shapes[f"pattern_sparsity{convention}"] = (s, pattern_draws)
        for at in ("", "_at_median"):
            shapes[f"readout_measurements_sparse{at}{convention}"] = (s, t, p, x)
    return shapes


# ----------------------------------------------------------------------------------------------------------------------
# Running: files that survive
# ----------------------------------------------------------------------------------------------------------------------
#
# An NTK matrix grows in `NAME.npy.partial`, mapped into memory, NaN where it is unfinished: what has been written there
# survives the end of the process, kill -9 included. Complete and checked, it gets its final name. Behind the matrix
# stands a line of JSON that says what it was computed from (`tail -n 1 FILE`; np.load does not see it), so that the two
# can't part. Small files are written to a temporary name, then renamed.


@dataclass
class Settings:
    """What a run computes: the constants after the command line and the data have had their say."""

    seed: int
    test_size: int
    data_sizes: list
    trials: dict  # network -> trials of each size
    output: Path
    engine: str
    precision: str
    data: dict = field(repr=False)

    def path(self, network, name):
        """Path of an output file; whatever is not MNIST says so in its name."""
        prefix = network if self.data["name"] == "mnist" else f"{self.data['name']}-{network}"
        return self.output / f"{prefix}_{name}"

    def pairs(self, network):
        """Pairs of images whose kernel is evaluated, images with themselves included."""
        pairs = [n * (n + 1) // 2 + n * self.test_size for n in self.data_sizes]
        return sum(t * p for t, p in zip(self.trials[network], pairs, strict=True))

    def precision_of(self, network):
        """Precision of the network's kernels: those of the fully-connected one take seconds in float64."""
        return self.precision if network == "convolutional" else "float64"

    def origin(self, network, size, trial, depth):
        """What decides a trial's kernels, for the files that hold them."""
        oracle = self.engine == "neural-tangents"
        return {
            "dataset": self.data["name"], "dataset_sha256": self.data["sha256"], "digits": list(selections[network]),
            "network": network, "size": size, "trial": trial, "seed": self.seed, "depth": depth,
            "precision": self.precision_of(network),
            "formulas": f"neural-tangents {importlib.metadata.version('neural-tangents')}" if oracle else formulas,
        }  # fmt: skip


@contextlib.contextmanager
def writing(path):
    """Turn the system's refusal to write into one line that says what to do."""
    try:
        yield
    except OSError as error:
        what = f"can't write {path.name} ({error.strerror or error})"
        remedy = "make room or name another folder, then run it again: what is finished is kept"
        raise BadInput(f"--output {path.parent}: {what}; {remedy}") from error


@contextlib.contextmanager
def hold(folder):
    """Make the folder and keep other runs out of it. Raises BadInput where that fails; the lock dies with its owner."""
    path = folder / "run.lock"
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--output {folder}: is a file; name a folder")
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            owner = path.read_text().strip() or "another run"
            raise BadInput(f"--output {folder}: in use by {owner}; wait for it, or name another folder") from error
        path.write_text(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    try:
        yield
    finally:
        lock.release()


def put_aside(path, reason):
    """Rename a file that can't be used, and say so."""
    names = (path.with_name(f"{path.name}.{k}.old") for k in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    with writing(aside):
        path.rename(aside)
    tqdm.write(f"note: {path.name} {reason}; it is kept as {aside.name} and computed again")


def save(path, write):
    """Call write(file) on a temporary file, then rename it: `path` exists complete or not at all."""
    content = io.BytesIO()  # NumPy's own errors on a full disk don't say that it is full
    write(content)
    temporary = path.with_name(path.name + ".partial")
    write_safely(temporary, lambda file: file.write(content.getbuffer()))
    with writing(path):
        os.replace(temporary, path)


def write_safely(path, write):
    """Call write(file) and wait until the disk has it all; where that fails, leave no file."""
    with writing(path):
        try:
            with open(path, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise


def keep(path, array):
    """Save a small array unless its file holds just that."""
    if path.exists():
        with contextlib.suppress(Exception):  # a damaged file can raise anything
            if np.array_equal(np.load(path, allow_pickle=False), array):
                return
        put_aside(path, "is damaged or of other settings")
    save(path, functools.partial(np.save, arr=array))


def map_matrix(path, shape, origin, mode):
    """The matrix of that shape and origin at `path`, mapped into memory; None if there is none, or another one, which
    is put aside.
    """
    if not path.exists():
        return None
    try:
        matrix = np.lib.format.open_memmap(path, mode=mode)
        with open(path, "rb") as file:
            file.seek(matrix.offset + matrix.nbytes)
            line = file.read()
        found = json.loads(line) if line else {}
        other = [f"{key} {found.get(key)}, not {value}" for key, value in origin.items() if found.get(key) != value]
        if not found:
            reason = "does not say what it was computed from"
        elif other:
            reason = f"was computed from other settings ({', '.join(other)})"
        elif matrix.shape != shape or matrix.dtype != np.float64:
            reason = f"holds {matrix.dtype} {matrix.shape}, not float64 {shape}"
        elif mode == "r" and not np.isfinite(matrix).all():
            reason = "holds NaN or infinite values"
        else:
            return matrix
    except Exception as error:  # a damaged file can raise anything
        reason = f"can't be read ({error})"
    put_aside(path, reason)
    return None


def open_matrix(path, shape, origin):
    """The matrix of that shape and origin that `path` holds, or the unfinished one that will get its name, which may be
    new. Returns a float64 memory map; `finish_matrix` takes it back.
    """
    partial = path.with_name(path.name + ".partial")
    for known, mode in ((path, "r"), (partial, "r+")):
        matrix = map_matrix(known, shape, origin, mode)
        if matrix is not None:
            return matrix

    def write(file):  # NaN written, not only the size set: a full disk is noticed here and not later
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
        for _ in range(shape[0]):
            file.write(np.full(shape[1:], np.nan).data)
        file.write(f"\n{json.dumps(origin)}\n".encode())

    write_safely(partial, write)
    return np.lib.format.open_memmap(partial, mode="r+")


def finish_matrix(path, matrix):
    """The completed matrix of `open_matrix` as an array; its file has got its final name, `path`."""
    finished = np.array(matrix)
    if matrix.flags.writeable:
        if not np.isfinite(finished).all():
            raise BadInput(f"{path.name}: the engine gave NaN or infinite values; use another --engine or --precision")
        if path.stem.endswith("kernel_train") and not np.array_equal(finished, finished.T):
            raise BadInput(f"{matrix.filename}: the matrix is not symmetric; delete the file and run it again")
        matrix.flush()
        with writing(path):
            os.replace(matrix.filename, path)
    return finished


# ----------------------------------------------------------------------------------------------------------------------
# Running: trials and results
# ----------------------------------------------------------------------------------------------------------------------


def trial_images(settings, network, size, trial):
    """Training images, their labels, test images and their labels of one trial."""
    drawn = []
    for split, count in (("train", size), ("test", settings.test_size)):
        rng = random_generator(settings.seed, network, size, trial, split)
        flatten = network == "fully-connected"
        drawn += process_data(settings.data[split], selections[network], count // 2, flatten, rng)
    return drawn


def kernel_blocks(settings, network, train, test, depth, pending):
    """Yield (name, rows, columns, entries) of a trial's NTK matrices, block by block, what `pending` lists of them.

    pending: {"kernel_train": [n, n], "kernel_test": [test, n]} -> the rows [1, m] (fully connected) or the cells [2, m]
    (convolutional) to compute. All processes of a run go through this together, each doing its share.
    """
    if not pending or (network == "fully-connected" and settings.engine != "jax" and not is_leader()):
        return  # process 0 does alone what takes NumPy seconds
    if network == "fully-connected":
        for name, (rows,) in pending.items():
            x1, x2 = (train, None) if name == "kernel_train" else (test, train)
            for block, entries in fully_connected_blocks(x1, x2, depth, settings.engine, rows):
                yield name, block, slice(entries.shape[1]), entries
        return
    # One list of pairs serves both matrices. In each pair a training image comes first.
    pairs = [[j, i + len(train) * (name == "kernel_test")] for name, (i, j) in pending.items()]
    pairs = np.concatenate(pairs, axis=1)
    ends = np.cumsum([cells.shape[1] for cells in pending.values()])
    images = np.concatenate([train, test]) if "kernel_test" in pending else train
    for block, entries in convolutional_pairs(images, pairs, depth, settings.engine, settings.precision):
        for (name, cells), end in zip(pending.items(), ends, strict=True):
            inside = (block < end) & (block >= end - cells.shape[1])
            yield name, *cells[:, block[inside] - end + cells.shape[1]], entries[inside]


def unfinished(network, name, kernel):
    """The NaN rows [1, m] or cells [2, m] of an NTK matrix for `kernel_blocks`; half of kernel_train will do."""
    rows = [row[: i + 1] if name == "kernel_train" else row for i, row in enumerate(kernel)]
    if network == "fully-connected":
        return np.flatnonzero([np.isnan(row).any() for row in rows])[None]
    columns = [np.flatnonzero(np.isnan(row)) for row in rows]
    return np.stack([np.repeat(np.arange(len(rows)), [len(c) for c in columns]), np.concatenate(columns)])


def fill_kernels(settings, network, trial, train, test, depth, kernels, progress):
    """Compute what is NaN in a trial's NTK matrices, {"kernel_train": [n, n], "kernel_test": [test, n]}, in place."""
    size = len(train)
    pending = {name: unfinished(network, name, kernel) for name, kernel in kernels.items() if kernel.flags.writeable}
    pending = {name: todo for name, todo in pending.items() if todo.size}
    for name in kernels.keys() - pending.keys():
        progress(size * (size + 1) // 2 if name == "kernel_train" else kernels[name].size)
    # An order to those who `follow`, even for nothing: who waits for one gives up after half an hour.
    numbers = [pending[name].shape[1] if name in pending else 0 for name in ("kernel_train", "kernel_test")]
    broadcast(np.array([networks.index(network), size, trial, depth, *numbers]))
    for todo in pending.values():
        broadcast(todo)
    flushed = time.monotonic()
    for name, rows, columns, entries in kernel_blocks(settings, network, train, test, depth, pending):
        kernels[name][rows, columns] = entries
        progress(entries.size)
        if time.monotonic() > flushed + flush_seconds:
            for growing in pending:
                kernels[growing].flush()
            flushed = time.monotonic()
    if kernels["kernel_train"].flags.writeable:
        mirror(kernels["kernel_train"])


def follow(settings):
    """What processes other than 0 do: their share of all kernels that process 0 computes, until it is done."""
    while True:
        network, size, trial, depth, *numbers = broadcast(np.zeros(6, dtype=int))
        if network < 0:
            return
        dimension = 1 if networks[network] == "fully-connected" else 2
        names = zip(("kernel_train", "kernel_test"), numbers, strict=True)
        pending = {name: broadcast(np.zeros((dimension, m), dtype=int)) for name, m in names if m}
        train, _, test, _ = trial_images(settings, networks[network], size, trial)
        for _ in kernel_blocks(settings, networks[network], train, test, int(depth), pending):
            pass


def trial_kernels(settings, network, size, trial, k_thresh=None, setting=None, progress=lambda pairs: None):
    """One trial's five arrays by file name, read or computed and saved, with its depth and separability.

    k_thresh: what kernel_test is divided by (fully connected: found here). None for the convolutional network's
    reference trial, which it comes from: then only kernel_train. setting: of the depth sweep, a factor of L_conv (fully
    connected) or a depth; files of other depths than the plan's have them in their names.
    """
    train, train_label, test, test_label = trial_images(settings, network, size, trial)
    small = {"train_label": train_label, "test_label": test_label}
    delta = separability(train)
    if network == "fully-connected":
        factors = [depth_factor, depth_factor if setting is None else setting]
        usual, depth = (fully_connected_depth(size, delta, factor) for factor in factors)
        k_thresh = fully_connected_threshold(train.shape[1], depth)
    else:
        usual, depth = convolutional_depth, setting or convolutional_depth
    shapes = {"kernel_train": (size, size)} | ({"kernel_test": (len(test), size)} if k_thresh else {})
    stem = f"seed{settings.seed}_data{size}_trial{trial}" + (f"_depth{depth}" if depth != usual else "")

    def path(name):
        return settings.path(network, f"{stem}_{name}.npy")

    origin = settings.origin(network, size, trial, depth)
    origins = {"kernel_train": origin, "kernel_test": origin | {"test_size": len(test)}}
    kernels = {name: open_matrix(path(name), shape, origins[name]) for name, shape in shapes.items()}
    fill_kernels(settings, network, trial, train, test, depth, kernels, progress)
    kernels = {name: finish_matrix(path(name), kernel) for name, kernel in kernels.items()}
    if k_thresh:
        small["kernel_test_normalized"] = np.clip(kernels["kernel_test"] / k_thresh, -1, 1)
    for name, array in small.items():
        keep(path(name), array)
    return kernels | small | {"depth": depth, "separability": delta}


def fully_connected_threshold(dimension, depth):
    """k_thresh = k(1 - 1e-5): the NTK of two unit vectors with that inner product, at `depth`."""
    x1, x2 = np.zeros((2, 1, dimension))
    x1[0, 0] = 1
    x2[0, :2] = 1 - k_thresh_margin, np.sqrt(1 - (1 - k_thresh_margin) ** 2)
    return fully_connected_ntk(x1, x2, depth=depth)[0, 0]


def reference_thresholds(settings, network, setting=None):
    """k_thresh and each convention's class thresholds, from the convolutional network's reference trial; else None."""
    if network == "fully-connected":
        return None, None
    reference = trial_kernels(settings, network, reference_size, 0, setting=setting)["kernel_train"]
    k_thresh = np.abs(reference - np.diag(np.diag(reference))).max()
    return k_thresh, {c: class_thresholds(reference, percentile, zeros=c == "") for c in conventions}


def trial_patterns(settings, network, size, trial):
    """The random sparsity patterns of one trial, a list for each convention."""
    draw = functools.partial(random_generator, settings.seed, network, size, trial)
    return {
        c: [sparsity_pattern(size, draw(f"pattern {i}{c}"), c == "") for i in range(sparsity_patterns)]
        for c in conventions
    }


def run_network(settings, network):
    """Compute every trial of one network, and write its results file. Returns the seconds of both parts."""
    counts = settings.trials[network]
    seconds = {"kernels": 0.0, "quantities": 0.0}
    shapes = results_shapes(len(settings.data_sizes), max(counts), settings.test_size)
    results = {name: np.full(shape, np.nan) for name, shape in shapes.items()}
    start = time.perf_counter()
    with tqdm(total=settings.pairs(network), unit=" pairs", unit_scale=True, desc=network, disable=None) as bar:
        k_thresh, thresholds = reference_thresholds(settings, network) if any(counts) else (None, None)
        for s, (size, count) in enumerate(zip(settings.data_sizes, counts, strict=True)):
            for c, i in itertools.product(conventions, range(pattern_draws if count else 0)):
                rng = random_generator(settings.seed, network, size, i, f"sparsity{c}")
                results[f"pattern_sparsity{c}"][s, i] = sparsity(sparsity_pattern(size, rng, c == ""))
            for trial in range(count):
                kernels = trial_kernels(settings, network, size, trial, k_thresh, progress=bar.update)
                computed = time.perf_counter()
                patterns = trial_patterns(settings, network, size, trial)
                found = kernels | trial_quantities(network, kernels, patterns, thresholds)
                for name in results.keys() & found.keys():
                    results[name][s, trial] = found[name]
                seconds["kernels"] += computed - start
                if computed - start > 60 and not sys.stderr.isatty():  # logs show no progress bar
                    print(f"{network}, n = {size}, trial {trial + 1} of {count}: {computed - start:.0f} s")
                start = time.perf_counter()
                seconds["quantities"] += start - computed
    flags = results["numerical_flags"]
    if np.nansum(flags):
        share = f"{np.sum(flags > 0)} of {np.isfinite(flags).sum()} sparsified matrices"
        what = f"not positive definite, singular or of a condition number above {condition_limit:g}"
        print(f"note: {network}: {share} are {what}; see numerical_flags")
    save_results(settings, network, "results.npz", counts, results)
    return seconds


def save_results(settings, network, name, counts, results):
    """Write the results, with the sizes, the numbers of trials and the precision that they were computed in."""
    path = settings.path(network, name)
    about = {"data_sizes": settings.data_sizes, "trials": counts, "precision": settings.precision_of(network)}
    save(path, functools.partial(np.savez, **about, **results))
    print(f"wrote {path}")


def run_depth_sweep(settings, network):
    """Quantities against depth, written to `{prefix}_depth_sweep.npz`. Returns the seconds it took.

    Fully connected: depths of `sweep_factors` times L_conv; convolutional: `sweep_depths`. The arrays, [sizes, depths,
    trials] and more, are named like those of the results.
    """
    counts, start = settings.trials[network], time.perf_counter()
    depths = sweep_factors if network == "fully-connected" else sweep_depths
    names = ("depth", "off_diagonal_ratio", "condition_number_exact", "numerical_flags_exact", "accuracy_exact",
             "accuracy_diagonal")  # fmt: skip
    shape = (len(settings.data_sizes), len(depths), max(counts))
    results = {name: np.full(shape, np.nan) for name in names}
    names = ("condition_number", "numerical_flags", "smallest_eigenvalue", "accuracy_sparse")
    results |= {name: np.full((*shape, sparsity_patterns), np.nan) for name in names}
    references = [reference_thresholds(settings, network, depth) if any(counts) else None for depth in depths]
    plan = [(s, d, t) for s in range(shape[0]) for d in range(shape[1]) for t in range(counts[s])]
    for s, d, trial in tqdm(plan, desc=f"{network}, depth sweep", unit=" trials", disable=None):
        size, (k_thresh, thresholds) = settings.data_sizes[s], references[d]
        kernels = trial_kernels(settings, network, size, trial, k_thresh, depths[d])
        patterns = {"": trial_patterns(settings, network, size, trial)[""]}
        found = kernels | trial_quantities(network, kernels, patterns, thresholds)
        for name in results:
            results[name][s, d, trial] = found[name]
    save_results(settings, network, "depth_sweep.npz", counts, {"depth_settings": depths} | results)
    return time.perf_counter() - start


# ----------------------------------------------------------------------------------------------------------------------
# Command line
# ----------------------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """One that complains in one line."""

    def error(self, message):
        self.exit(2, f"training.py: error: {message.removeprefix('argument ')}; see --help\n")


def whole_number(text):
    """An int from the command line."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: use whole numbers") from None


def parse_arguments(argv):
    """The command line, checked as far as it can be without the data; errors end with status 2."""
    parser = Parser(
        description="Kernels, approximations and measurement counts of arXiv:2107.09200.",
        epilog="The defaults are the constants at the top of training.py.",
    )
    names = " ".join(networks)
    limits = " ".join(map(str, trials_without_accelerator))
    options = [
        ("--networks", dict(nargs="+", choices=networks, default=networks, metavar="NETWORK"), f"of {names}", names),
        ("--data-sizes", dict(nargs="+", type=whole_number, metavar="N"), "numbers of training images, even",
         data_sizes),
        ("--trials", dict(nargs="+", type=whole_number, metavar="T"), "trials of each size, 0 skips it",
         f"{' '.join(map(str, trials))}; for the convolutional network without an accelerator at most {limits}"),
        ("--test-size", dict(type=whole_number, metavar="X"), "test images of a trial, even", test_size),
        ("--seed", dict(type=whole_number, default=seed), "seed of every random draw, 0 or more", seed),
        ("--output", dict(type=Path, default="kernel_output", metavar="DIR"),
         "folder to write to, and to go on from", "kernel_output"),
        ("--dataset", dict(choices=("auto", "mnist", "digits"), default="auto"),
         "MNIST, scikit-learn's 8x8 digits, or the digits only where MNIST can't be had", "auto"),
        ("--mnist-dir", dict(metavar="DIR"), "folder of MNIST's four IDX files",
         "the environment variable MNIST_DIR, else TensorFlow Datasets"),
        ("--engine", dict(choices=engines, default="auto"), "what evaluates the kernels; gpu: jax, refusing to run on "
         "a CPU; neural-tangents: the slow cross-check", "auto: jax where JAX finds an accelerator, else numba"),
        ("--precision", dict(choices=("float64", "float32"), default="float64"),
         "of the convolutional kernels' evaluation", "float64"),
        ("--depth-sweep", dict(action="store_true"), "vary the depth instead of running the plan", "off"),
        ("--coordinator", dict(metavar="HOST:PORT"), "where process 0 of a run of several processes listens",
         "what Slurm or Open MPI says, else one process"),
        ("--processes", dict(type=whole_number, metavar="P"), "their number", "likewise"),
        ("--process-id", dict(type=whole_number, metavar="I"), "this one's, from 0 on", "likewise"),
    ]  # fmt: skip
    for flag, how, text, default in options:
        default = " ".join(map(str, default)) if isinstance(default, list) else default
        parser.add_argument(flag, **how, help=f"{text} (default: {default})")
    args = parser.parse_args(argv)

    def complain(option, values, remedy):
        parser.error(f"--{option} {' '.join(map(str, np.atleast_1d(values)))}: {remedy}")

    args.own_sizes, args.own_trials, args.own_test_size = (
        value is not None for value in (args.data_sizes, args.trials, args.test_size)
    )
    if len(trials) != len(data_sizes):
        parser.error(f"the constants data_sizes = {data_sizes} and trials = {trials}: give each size its trials")
    known = dict(zip(data_sizes, trials, strict=True))
    args.data_sizes = args.data_sizes or data_sizes
    for n in args.data_sizes:
        if n < 2 or n % 2:
            complain("data-sizes", n, "use even numbers, 2 or more")
        if args.data_sizes.count(n) > 1:
            complain("data-sizes", args.data_sizes, "give each size once")
        if n not in known and not args.own_trials:
            complain("data-sizes", n, f"no constant says how many trials; give --trials or sizes of {data_sizes}")
    args.trials = args.trials or [known[n] for n in args.data_sizes]
    if len(args.trials) != len(args.data_sizes) or min(args.trials) < 0:
        complain("trials", args.trials, f"use one number, 0 or more, for each of {len(args.data_sizes)} sizes")
    if not any(args.trials):
        complain("trials", args.trials, "nothing to do; use at least one that is not 0")
    args.test_size = args.test_size if args.own_test_size else test_size
    if args.test_size < 2 or args.test_size % 2:
        complain("test-size", args.test_size, "use an even number, 2 or more")
    if args.seed < 0:
        complain("seed", args.seed, "use 0 or more")
    team = {"coordinator": args.coordinator, "processes": args.processes, "process-id": args.process_id}
    for option, value in team.items():
        if value is not None and None in team.values():
            complain(option, value, f"use {', '.join(f'--{name}' for name in team)} together")
    if args.coordinator is not None:
        host, _, port = args.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            complain("coordinator", args.coordinator, "use HOST:PORT, as in 127.0.0.1:12345")
        if args.processes < 1:
            complain("processes", args.processes, "use 1 or more")
        if not 0 <= args.process_id < args.processes:
            complain("process-id", args.process_id, f"use 0 to {args.processes - 1}, each in one process")
    return args


def plan(args, data):
    """The run's Settings: what the data can fill and what can be finished without an accelerator."""
    digits = [digit for network in args.networks for digit in selections[network]]
    train, test = (2 * min(np.sum(data[s]["label"] == d) for d in digits) for s in ("train", "test"))
    if args.test_size > test:
        if args.own_test_size:
            raise BadInput(f"--test-size {args.test_size}: {data['name']} fills {test}; use that or less")
        print(f"note: {data['name']} fills {test} test images, not {args.test_size}")
    if args.own_sizes and max(args.data_sizes) > train:
        raise BadInput(f"--data-sizes {max(args.data_sizes)}: {data['name']} fills {train}; use that or less")
    counts = {}
    for network in args.networks:
        limits = dict(zip(data_sizes, trials_without_accelerator, strict=False))
        limited = network == "convolutional" and not args.own_trials and not has_accelerator()
        counts[network] = []
        for n, t in zip(args.data_sizes, args.trials, strict=True):
            if t and n > train:
                print(f"note: {data['name']} can't fill {n} training images of two digits; {n} is skipped")
            counts[network].append(0 if n > train else min(t, limits.get(n, 0)) if limited else t)
        if limited:
            print("note: no accelerator, so convolutional takes trials_without_accelerator; --trials overrides")
    chosen = (args.seed, min(args.test_size, int(test)), args.data_sizes, counts)
    return Settings(*chosen, args.output, args.engine, args.precision, data)


def describe_device():
    """The accelerators, or the processor and its number of cores."""
    import jax

    if has_accelerator():
        return f"{jax.device_count()} x {jax.local_devices()[0].device_kind}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU, {(models or [platform.processor() or platform.machine()])[0]}, {os.cpu_count()} cores"


def run(args):
    """One run: data, plan, networks, run.json. Raises BadInput."""
    args.engine = choose_engine(args.engine)
    with hold(args.output) if is_leader() else contextlib.nullcontext():
        clock = time.perf_counter()
        if not is_leader():
            broadcast(np.zeros(1))  # until process 0 has loaded, and perhaps downloaded, the data
        data = load_data(args.dataset, args.mnist_dir)
        if is_leader():
            broadcast(np.zeros(1))
        data |= {split: canonical_order(data[split]) for split in ("train", "test")}
        data["sha256"] = data_sum(data)
        stand_in = "THESE ARE SCIKIT-LEARN'S 8x8 DIGITS, NOT MNIST; FILES ARE NAMED digits-...\n"
        stand_in = "" if data["name"] == "mnist" else stand_in
        print(stand_in, end="")
        settings = plan(args, data)
        check_agreement(settings)
        if is_leader():
            lead(args, settings, clock)
        else:
            follow(settings)
        print(stand_in, end="")


def check_agreement(settings):
    """Raise BadInput unless all processes have the same data, settings and formulas."""
    same = (settings.data["sha256"], settings.seed, settings.test_size, settings.engine, settings.precision, formulas)
    digests = gather(np.frombuffer(hashlib.sha256(repr(same).encode()).digest(), np.uint8))
    others = np.flatnonzero((digests != digests[0]).any(axis=1))
    if others.size:
        what = "have other data, options or another version of training.py than process 0"
        raise BadInput(f"--process-id {' '.join(map(str, others))}: {what}; start all with the same")


def lead(args, settings, clock):
    """What process 0, or the only one, does: say what is to come, compute, write. clock: when the run began."""
    data, seconds = settings.data, {"data": time.perf_counter() - clock}
    together = f" ({process_count()} processes)" if process_count() > 1 else ""
    print(f"dataset {data['name']}, {settings.test_size} test images; {describe_device()}{together}; engine "
          f"{settings.engine}, {args.precision}; output {args.output}/")  # fmt: skip
    for network in args.networks:
        plans = [f"{t} x {n}" for n, t in zip(args.data_sizes, settings.trials[network], strict=True) if t]
        print(f"{network}: {settings.pairs(network):,} pairs of images, trials x sizes {', '.join(plans) or 'none'}")
    for network in args.networks:
        seconds[network] = (run_depth_sweep if args.depth_sweep else run_network)(settings, network)
    broadcast(np.full(6, -1))  # those who follow may go
    seconds["total"] = time.perf_counter() - clock
    packages = ("numpy", "scipy", "numba", "jax", "jaxlib", "neural-tangents")
    constants = {name: getattr(settings, name) for name in ("seed", "test_size", "data_sizes", "trials")}
    constants |= {name: globals()[name] for name in ("sparsity_patterns", "selections", "depth_factor",
                  "convolutional_depth", "k_thresh_margin", "percentile", "diagonal_boost")}  # fmt: skip
    record = {
        "dataset": data["name"], "device": describe_device(), "engine": settings.engine, "precision": args.precision,
        "processes": process_count(),
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
        "constants": constants, "seconds": seconds,
    }  # fmt: skip
    path = args.output / ("run_depth_sweep.json" if args.depth_sweep else "run.json")
    earlier = {}
    with contextlib.suppress(OSError, ValueError, KeyError):  # the record of a network that this run leaves alone
        earlier = json.loads(path.read_text())["networks"]
    record["networks"] = earlier | {network: dict(record) for network in args.networks}
    save(path, lambda file: file.write((json.dumps(record, indent=2) + "\n").encode()))
    print(f"done in {seconds['total']:.0f} s")


def main(argv=None):
    """Run the command line. Returns the exit status: 0, 2 after one line about a bad input, 1 after one about a lost
    process.
    """
    args = parse_arguments(argv)
    try:
        join_processes(args.coordinator, args.processes, args.process_id)
        run(args)
        return 0
    except BadInput as error:
        status, message = 2, str(error)
    except (RuntimeError, ValueError) as error:
        if process_count() == 1:
            raise
        status, message = 1, f"the processes lost each other ({str(error).splitlines()[0]}); {run_again}"
    print(f"training.py: error: {message}", file=sys.stderr, flush=True)
    if process_count() > 1:
        os._exit(status)  # leaving in order would wait for the other processes
    return status


if __name__ == "__main__":
    ended = main()
    if process_count() == 1:  # all is written: leave with that status whatever comes
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(ended)
