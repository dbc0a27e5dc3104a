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
network, and `run.json`. Kernels that are already there are not computed again, so that a run that was interrupted
goes on. analysis.ipynb draws the results. README.md says how long it takes where.
"""

import argparse
import contextlib
import functools
import gzip
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
import types
import urllib.parse
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numba
import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from tqdm import tqdm

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

selections = {"fully-connected": (8, 9), "convolutional": (1, 0)}  # digits; the second one is class +1
depth_factor = 0.1  # depth of the fully-connected network in units of L_conv
convolutional_depth = 96  # convolutions of the convolutional network, a third before each pooling
sweep_factors = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]  # depth factors of --depth-sweep, fully connected
sweep_depths = [12, 24, 48, 96]  # and depths, convolutional
k_thresh_margin = 1e-5  # fully connected: k_thresh is the NTK at inner product 1 - margin
reference_size = 16  # convolutional: its first trial gives k_thresh and the sparsifying thresholds
percentile = 90  # of |K| inside a class, for the sparsifying thresholds
diagonal_boost = (0.76, 0.9)  # convolutional: 0.76 ln(n)^0.9 times the diagonal is added to the diagonal

# W_std^2 of the fully-connected network, 1/E[erf(z)^2] with z ~ N(0, 1), makes erf normalised; mu is the
# coefficient of nonlinearity, 1 - E[z sigma(z)]^2, of the normalised sigma. Both in closed form.
erf_scale = 1 / (2 / np.pi * np.arcsin(2 / 3))
nonlinearity = 1 - (2 / 3) / np.arcsin(2 / 3)

networks = tuple(selections)
engines = ("auto", "numba", "jax", "neural-tangents")
MNIST_FILES = {  # SHA-256 sums as TensorFlow Datasets registers them for mnist:3.*.*
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz"


class BadInput(ValueError):
    """An input that its message names, with its value and the remedy; `main` prints the one line."""


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
    mnist_dir = mnist_dir or os.environ.get("MNIST_DIR")
    if dataset == "digits":
        return load_digits()
    if mnist_dir:
        return load_mnist_files(Path(mnist_dir))
    try:
        return load_mnist_tfds()
    except ConnectionError as error:
        if dataset == "mnist":
            remedy = "give --mnist-dir a folder with MNIST's four IDX files"
            raise BadInput(f"--dataset mnist: {error}; {remedy}") from error
        print(f"note: MNIST can't be had: {error}", file=sys.stderr)
        return load_digits()


def load_mnist_files(folder):
    """Read the four gzipped IDX files of MNIST from `folder`, checked against their SHA-256 sums."""
    arrays = {}
    for name, checksum in MNIST_FILES.items():
        try:
            compressed = (folder / name).read_bytes()
        except OSError as error:
            what = f"can't read {name} ({error.strerror})"
            raise BadInput(f"--mnist-dir {folder}: {what}; it must hold {', '.join(MNIST_FILES)}") from error
        if hashlib.sha256(compressed).hexdigest() != checksum:
            what = f"{name} is corrupted ({len(compressed)} bytes, its SHA-256 sum is not {checksum[:8]}...)"
            raise BadInput(f"--mnist-dir {folder}: {what}; download it again")
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
        import sys, numpy, tensorflow_datasets as tfds
        tfds.disable_progress_bar()
        data = tfds.as_numpy(tfds.load("mnist:3.*.*", batch_size=-1))
        numpy.savez(sys.argv[1], **{s + k: data[s][k] for s in ("train", "test") for k in ("image", "label")})
    """
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-c", program, f"{scratch}/mnist.npz"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode != 0:
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConnectionError(f"TensorFlow Datasets failed ({reason})")
        arrays = dict(np.load(f"{scratch}/mnist.npz"))
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
# Engines: what evaluates the kernels
# ----------------------------------------------------------------------------------------------------------------------


def has_accelerator():
    """Whether JAX finds a GPU or TPU."""
    import jax

    return jax.default_backend() != "cpu"


def choose_engine(engine):
    """The engine that `auto` stands for on this machine; any other name is checked and returned."""
    if engine not in engines:
        raise BadInput(f"--engine {engine}: unknown; use {', '.join(engines)}")
    return engine if engine != "auto" else "jax" if has_accelerator() else "numba"


def double_precision():
    """A context in which JAX has float64, whatever the caller configured."""
    import jax

    return jax.enable_x64(True)


def import_neural_tangents():
    """Import neural-tangents 0.6.5 under a JAX that is newer than it, 0.10 to 0.12. Returns (nt, nt.stax).

    It imports names that have left `jax.core`, `jax.util` and `jax.interpreters.ad`; its infinite-width kernels need
    them to exist, no more. Its package `experimental`, which is there for TensorFlow alone, is left empty.
    """
    import jax
    import jax._src.core
    import jax._src.util
    import jax.core
    import jax.extend.core
    import jax.interpreters.ad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in ("AbstractValue Jaxpr JaxprEqn Literal Primitive ShapedArray Value Var eval_context").split():
            homes = [home for home in (jax.extend.core, jax._src.core) if hasattr(home, name)]
            if not hasattr(jax.core, name) and homes:
                setattr(jax.core, name, getattr(homes[0], name))
        if not hasattr(jax, "util"):
            sys.modules["jax.util"] = jax.util = jax._src.util
        if not hasattr(jax.interpreters.ad, "zeros_like_p"):
            jax.interpreters.ad.zeros_like_p = object()
        experimental = "neural_tangents.experimental"
        sys.modules.setdefault(experimental, types.ModuleType(experimental))
        import neural_tangents
        from neural_tangents import stax
    return neural_tangents, stax


def oracle_ntk(layers, x1, x2=None, batch_size=4):
    """The NTK of the network of stax `layers` by `nt.batch`, float64 [n1, n2]; x2=None: x1 with itself."""
    nt, stax = import_neural_tangents()
    numbers = [len(x) for x in (x1, x2) if x is not None]
    batch_size = max(b for b in range(1, batch_size + 1) if all(n % b == 0 for n in numbers))
    with double_precision():
        kernel_fn = nt.batch(stax.serial(*layers)[2], batch_size=batch_size, device_count=0)
        return np.array(kernel_fn(x1, x2, "ntk"), dtype=np.float64)


def check_images(x1, x2, rank):
    """Both arguments' images as float64 [n, ...] of one shape (x2=None: x1 twice); else BadInput."""
    checked = []
    for name, x in (("x1", x1), ("x2", x1 if x2 is None else x2)):
        x = np.asarray(x)
        if x.dtype not in (np.float32, np.float64):
            raise BadInput(f"{name} of dtype {x.dtype}: use float64 or float32")
        if x.ndim != rank or 0 in x.shape:
            raise BadInput(f"{name} of shape {x.shape}: use {'[n, pixels]' if rank == 2 else '[n, height, width, 1]'}")
        if not np.isfinite(x).all():
            raise BadInput(f"{name} holds NaN or infinite values; leave those images out")
        checked.append(x.astype(np.float64))
    if checked[0].shape[1:] != checked[1].shape[1:]:
        raise BadInput(f"x1 and x2 of shapes {checked[0].shape} and {checked[1].shape}: use images of one size")
    return checked


# ----------------------------------------------------------------------------------------------------------------------
# The NTK of the fully-connected network: depth times (Dense, normalised erf), then Dense(1)
# ----------------------------------------------------------------------------------------------------------------------


def fully_connected_ntk(x1, x2=None, *, depth, engine="auto"):
    """NTK of the fully-connected erf network.

    x1 [n1, d], x2 [n2, d] (None: x1 with itself, half computed), `depth` hidden layers. The engine jax computes with
    JAX, auto and numba with NumPy, which takes seconds for the whole plan. Returns float64 [n1, n2].
    Raises BadInput, a ValueError, for another rank or dtype, NaN, unknown engines and negative depths.

    Closed form (Williams, Neural Computation 10, 1998; Jacot et al., arXiv:1806.07572), s = 1/E[erf^2], q variances:
        K0 = s x.x'/d,  Theta0 = K0
        Theta <- s Theta (4/pi) / sqrt((1+2q)(1+2q') - 4K^2)
        K <- s (2/pi) arcsin(2K / sqrt((1+2q)(1+2q'))),  Theta <- K + Theta
    The diagonal has a recursion of its own, K = q = q': the correlation's map has a slope above 1 at correlation 1,
    where rounding errors grow with every layer and would make the matrix's diagonal useless by depth 150.
    """
    if not isinstance(depth, (int, np.integer)) or depth < 0:
        raise BadInput(f"depth {depth}: use a whole number of layers, 0 or more")
    symmetric = x2 is None
    x1, x2 = check_images(x1, x2, rank=2)
    if engine != "auto" and choose_engine(engine) == "neural-tangents":
        _, stax = import_neural_tangents()
        hidden, last = (stax.Dense(width, W_std=np.sqrt(erf_scale), b_std=None) for width in (512, 1))
        return oracle_ntk([hidden, stax.Erf()] * int(depth) + [last], x1, None if symmetric else x2)
    xp, context = np, contextlib.nullcontext()
    if engine == "jax":
        import jax.numpy as xp

        context = double_precision()
    q1, diagonal = fully_connected_diagonal(x1, depth)
    q2 = q1 if symmetric else fully_connected_diagonal(x2, depth)[0]
    kernel = x1 @ x2.T
    kernel *= erf_scale / x1.shape[1]
    if symmetric:  # half of it will do: where K0 = 0 everything stays 0
        for i in range(len(x1)):
            kernel[i, i:] = 0
    rows = max(1, 2**15 // len(x2))  # so that a block of rows stays in the cache for all layers
    with context:
        for start in range(0, len(x1), rows):
            block, columns = slice(start, start + rows), slice(0, start + rows if symmetric else None)
            k = theta = xp.asarray(kernel[block, columns])
            for v1, v2 in zip(q1[:-1, block], q2[:-1, columns], strict=True):
                norm = xp.asarray((1 + 2 * v1)[:, None] * (1 + 2 * v2))
                theta = erf_scale * (4 / np.pi) * theta / xp.sqrt(norm - 4 * k**2)
                k = erf_scale * (2 / np.pi) * xp.arcsin(2 * k / xp.sqrt(norm))
                theta = k + theta
            kernel[block, columns] = theta
    if symmetric:
        kernel += kernel.T
        np.fill_diagonal(kernel, diagonal)
    return kernel


def fully_connected_diagonal(x, depth):
    """Variances q [depth + 1, n] of every layer and the diagonal of the NTK [n], of images x [n, d]."""
    q = [erf_scale * np.sum(x**2, axis=1) / x.shape[1]]
    theta = q[0]
    for _ in range(depth):
        theta = erf_scale * (4 / np.pi) * theta / np.sqrt(1 + 4 * q[-1])
        q.append(erf_scale * (2 / np.pi) * np.arcsin(2 * q[-1] / (1 + 2 * q[-1])))
        theta = q[-1] + theta
    return np.array(q), theta


# ----------------------------------------------------------------------------------------------------------------------
# The NTK of the convolutional network: three stages of 3x3 convolutions with ReLU, each ended by 2x2 average pooling,
# then pooling once more, Dense(2), erf, Dense(1)
# ----------------------------------------------------------------------------------------------------------------------
#
# Of a pair of images x, x' the state is, for every pair of pixels (p, q), the covariance A and B = A + Theta, after
# ReLU. W_std^2 = 2 cancels ReLU's factor 1/2, so that, with the sum over nine offsets box(A)[p, q] = sum_o A[p+o, q+o],
# zero outside the image, a layer is
#     K = box(A)/9,  T = box(B)/9,  c = K / (s s'),  s = sqrt(v[p]),  s' = sqrt(v'[q])
#     kappa0 = (pi - arccos c)/pi,  kappa1 = sqrt(1 - c^2)/pi + c kappa0
#     A <- s s' kappa1(c),  B <- kappa0(c) T + A
# (Cho and Saul, NIPS 2009; Arora et al., arXiv:1904.11955). A stage starts from A = B = x x' or from the pooled state.
# The variances obey v <- box(v)/9 inside a stage and start it as the diagonal of x's own pooled state. Exact, and fast:
#
# 1. Displacement planes. box couples (p, q) only with equal displacement q - p, so between poolings every plane
#    {(p, p + d)} evolves on its own.
# 2. The cone. Of the third stage only pixels 0 to 3 survive the two poolings, so |d| <= 3 matters there, <= 7 in the
#    second stage and <= 15 in the first: 961 of 3025 planes at 28x28.
# 3. Half of the training Gram, and one pass per image over the pair (x, x) for its variances, with c = 1 exactly at
#    d = 0, where arccos would lose half of the digits.


def convolutional_ntk(x1, x2=None, *, depth=96, engine="auto", precision="float64"):
    """NTK of the convolutional network.

    x1 [n1, h, w, 1], x2 [n2, h, w, 1] (None: x1 with itself, half computed), 16 <= h, w <= 31, so that four poolings
    leave one pixel; `depth` convolutions, a third of them before each of the first three poolings.
    Returns float64 [n1, n2], computed in `precision`.
    Raises BadInput, a ValueError, for another shape or dtype, NaN, unknown names and other depths.
    """
    symmetric = x2 is None
    x1, x2 = check_images(x1, x2, rank=4)
    i, j = np.tril_indices(len(x1)) if symmetric else np.indices((len(x1), len(x2))).reshape(2, -1)
    images, pairs = (x1, [i, j]) if symmetric else (np.concatenate([x1, x2]), [i, j + len(x1)])
    kernel = np.empty((len(x1), len(x2)))
    for block, values in convolutional_pairs(images, np.array(pairs), depth, engine, precision):
        kernel[i[block], j[block]] = values
        if symmetric:
            kernel[j[block], i[block]] = values
    return kernel


def convolutional_pairs(images, pairs, depth, engine, precision):
    """Yield (positions in pairs, their NTK) block by block, for pairs [2, m] of indices into `images` [n, h, w, 1].

    One call may serve several Gram matrices: the images' own passes run once, and small matrices share blocks.
    """
    if not isinstance(depth, (int, np.integer)) or depth < 3 or depth % 3:
        raise BadInput(f"depth {depth}: use a positive multiple of 3")
    if images.shape[3] != 1 or any(size // 16 != 1 for size in images.shape[1:3]):
        remedy = "use [height, width, 1] with 16 to 31 pixels, which four poolings take to one"
        raise BadInput(f"images of shape {images.shape[1:]}: {remedy}")
    if precision not in ("float64", "float32"):
        raise BadInput(f"--precision {precision}: unknown; use float64 or float32")
    engine = choose_engine(engine)
    if engine == "neural-tangents":
        rows, columns = map(np.unique, pairs)
        x2 = None if np.array_equal(rows, columns) else images[columns]
        kernel = oracle_ntk(oracle_convolutional(depth), images[rows], x2)
        yield np.arange(len(pairs[0])), kernel[np.searchsorted(rows, pairs[0]), np.searchsorted(columns, pairs[1])]
        return
    evaluator = {"numba": NumbaConvolution, "jax": JaxConvolution}[engine]
    evaluate = evaluator(images[..., 0].astype(precision), int(depth) // 3)
    own = evaluate.own_a
    itself = pairs[0] == pairs[1]
    yield np.flatnonzero(itself), dense_head(own, evaluate.own_b, own, own)[pairs[0, itself]]
    others = np.flatnonzero(~itself)
    for start in range(0, len(others), evaluate.pairs_at_once):
        block = others[start : start + evaluate.pairs_at_once]
        i, j = pairs[:, block]
        yield block, dense_head(*evaluate(i, j), own[i], own[j])


def oracle_convolutional(depth):
    """The layers of the convolutional network in neural-tangents' stax."""
    _, stax = import_neural_tangents()
    weights = dict(W_std=np.sqrt(2), b_std=None)
    pool = stax.AvgPool((2, 2), strides=(2, 2))
    stage = [stax.Conv(512, (3, 3), padding="SAME", **weights), stax.Relu()] * (int(depth) // 3) + [pool]
    return [*stage * 3, pool, stax.Flatten(), stax.Dense(2, **weights), stax.Erf(), stax.Dense(1, **weights)]


def dense_head(a, b, own1, own2):
    """The NTK after Dense(2), erf (not normalised), Dense(1), from the pooled A and B and both images' own A."""
    a, b, own1, own2 = (np.asarray(v, np.float64) for v in (a, b, own1, own2))
    norm = (1 + 4 * own1) * (1 + 4 * own2)
    return 4 / np.pi * np.arcsin(4 * a / np.sqrt(norm)) + 16 / np.pi * b / np.sqrt(norm - 16 * a**2)


# 1 - c below 8 units of rounding counts as 0. Background pixels of two images have c = 1; rounding makes 1 - c = 1e-16
# of it, and the square root in arccos then an error of 1e-8 (in float32, 3e-4).
correlation_one = 8


def arccos_polynomial(precision):
    """Constants of arccos(c) = sqrt(1 - c) W(sqrt(1 + c)), 0 <= c <= 1: a centre, then W's coefficients in powers of
    sqrt(1 + c) - centre, highest first.

    arccos(c)/sqrt(1 - c) as a function of c needs degree 20 for float64 because of its branch point at c = -1. The
    square root, which kappa1 needs anyway, moves that away: degree 11 (float32: 5) is exact to rounding.
    """
    centre, half = (1 + np.sqrt(2)) / 2, (np.sqrt(2) - 1) / 2

    def w(t):  # with c = cos(2 phi), sqrt(1 + c) = sqrt(2) cos(phi) and sqrt(1 - c) = sqrt(2) sin(phi)
        root = centre + half * t
        return 2 * np.arctan2(np.sqrt(2 - root**2), root) / np.sqrt(2 - root**2)

    chebyshev = np.polynomial.chebyshev.chebinterpolate(w, 11 if precision == "float64" else 5)
    powers = np.polynomial.chebyshev.cheb2poly(chebyshev) / half ** np.arange(len(chebyshev))
    return tuple(np.dtype(precision).type(value) for value in (centre, *powers[::-1]))


class Convolution:
    """The convolutional recursion of pairs of images.

    images [m, h, w] in the precision to compute in, `layers` a stage. own_a, own_b [m]: the pooled A and B of every
    image with itself. Called with index arrays (i, j) it returns those of the pairs, in blocks of pairs_at_once.
    """

    def __init__(self, images, layers):
        self.images, self.layers = images, layers
        # Of every image, at the start of each stage; those of the second and third come out of the own pass.
        self.variances = [np.zeros((len(images), *(s >> stage for s in images.shape[1:]))) for stage in range(3)]
        self.variances[0][:] = images.astype(np.float64) ** 2
        everyone = np.arange(len(images))
        self.own_a, self.own_b = self(everyone, everyone, own=True)

    def __call__(self, i, j, own=False):
        # The last block is filled up with its last pair, so that all are of one size.
        full = np.arange(-(-len(i) // self.lanes) * self.lanes).clip(max=len(i) - 1)
        a, b = self.blocks(i[full], j[full], own)
        return a[: len(i)], b[: len(i)]


# ---- on CPUs: Numba, every plane through all layers of its stage in the cache ----


class NumbaConvolution(Convolution):
    """On all cores of a CPU, a block of lanes each. A pair gets the same bits whatever its block and thread."""

    lanes = 16  # pairs side by side: whole vectors of 64 bytes, and a plane still fits into the L2 cache

    def __init__(self, images, layers):
        number = images.dtype.type
        tiny = correlation_one * np.finfo(number).eps
        self.constants = (*map(number, (2, 1, 1 / 8, 1 / (8 * np.pi), tiny)), *arccos_polynomial(images.dtype.name))
        self.pairs_at_once = 4 * self.lanes * numba.get_num_threads()
        super().__init__(images, layers)

    def blocks(self, i, j, own):
        """Pooled A and B of the pairs (i, j), whole blocks of lanes; with `own` also their variances."""
        pairs = np.stack([i.reshape(-1, self.lanes), j.reshape(-1, self.lanes)], axis=1)
        a, b = numba_blocks(self.images, tuple(self.variances), pairs, self.layers, own, self.constants)
        return a.ravel(), b.ravel()


@numba.njit(cache=True, parallel=True)
def numba_blocks(images, variances, pairs, layers, own, constants):
    """Pooled A and B [blocks, lanes] of image pairs [blocks, 2, lanes], each block by one thread to the end."""
    blocks, _, lanes = pairs.shape
    a, b = np.empty((blocks, lanes)), np.empty((blocks, lanes))
    for block in numba.prange(blocks):
        numba_cone(images, variances, pairs[block], layers, own, constants, a[block], b[block])
    return a, b


@numba.njit(cache=True)
def numba_cone(images, variances, pair, layers, own, constants, a, b):
    """One block of pairs [2, lanes] through the three stages, into a, b [lanes]; with `own` also into variances."""
    lanes = pair.shape[1]
    x1, x2 = gather_lanes(images, pair[0]), gather_lanes(images, pair[1])
    h, w = images.shape[1:]
    state = np.zeros((2, 1, 1, h + 1, w * lanes), images.dtype)
    for stage in range(4):  # the fourth: the second of the two poolings at the end, without layers
        size, depth = (h >> stage, w >> stage), layers if stage < 3 else 0
        # Planes of A and B in this stage and the next, [2, displacements, 1 + rows, columns * lanes].
        reach = (min((16 >> stage) - 1, size[0] - 1), min((16 >> stage) - 1, size[1] - 1))
        bound = (min((8 >> stage) - 1, size[0] // 2 - 1), min((8 >> stage) - 1, size[1] // 2 - 1))
        shape = (2, 2 * bound[0] + 1, 2 * bound[1] + 1, size[0] // 2 + 1, size[1] // 2 * lanes)
        pooled = np.zeros(shape, images.dtype)
        if own and 0 < stage < 3:
            for lane in range(lanes):
                for y in range(size[0]):
                    for x in range(size[1]):
                        variance = state[0, reach[0], reach[1], y + 1, x * lanes + lane]
                        variances[stage][pair[0, lane], y, x] = variance
        s1, inverse1 = deviations(gather_lanes(variances[min(stage, 2)], pair[0]), depth, lanes, images.dtype)
        s2, inverse2 = deviations(gather_lanes(variances[min(stage, 2)], pair[1]), depth, lanes, images.dtype)
        for dy in range(-reach[0], reach[0] + 1):
            for dx in range(-reach[1], reach[1] + 1):
                p = (max(0, -dy), max(0, -dx) * lanes)  # the plane's first pixel in the first image
                q = (max(0, dy), max(0, dx) * lanes)  # and in the second
                at = (dy + reach[0], dx + reach[1]) if stage else (0, 0)
                plane_a, plane_b = state[0, at[0], at[1]], state[1, at[0], at[1]]
                if stage == 0:
                    for y in range(h - abs(dy)):
                        for i in range((w - abs(dx)) * lanes):
                            plane_a[y + 1, i] = plane_b[y + 1, i] = x1[p[0] + y, p[1] + i] * x2[q[0] + y, q[1] + i]
                # 1/s = 0 makes 1 - c = 0: an image with itself has correlation exactly 1 at d = 0.
                exact = np.zeros_like(inverse1) if own and dy == 0 and dx == 0 else inverse1
                tables = (s1, exact, s2, inverse2)
                numba_plane(plane_a, plane_b, (dy, dx), p, q, size, lanes, depth, tables, constants, pooled, bound)
        state = pooled
    for lane in range(lanes):
        a[lane], b[lane] = state[0, 0, 0, 1, lane], state[1, 0, 0, 1, lane]


@numba.njit(cache=True)
def gather_lanes(images, index):
    """Some images side by side, lane by lane: [m, h, w], [lanes] -> [h, w * lanes]."""
    _, h, w = images.shape
    gathered = np.empty((h, w * len(index)), images.dtype)
    for lane in range(len(index)):
        for y in range(h):
            for x in range(w):
                gathered[y, x * len(index) + lane] = images[index[lane], y, x]
    return gathered


@numba.njit(cache=True, error_model="numpy")
def deviations(variance, layers, lanes, dtype):
    """s and 1/s before each ReLU of a stage, [layers, h, w * lanes] each, from the variances at its start.

    Scaled like the planes, see `relu_row`. Where there is no variance 1/s = 0, and no NaN comes of it.
    """
    h, n = variance.shape
    v = np.zeros((h + 1, n))
    for y in range(h):
        for i in range(n):
            v[y + 1, i] = variance[y, i]
    s, inverse = np.empty((layers, h, n), dtype), np.empty((layers, h, n), dtype)
    row, last = np.zeros(n + 2 * lanes), np.empty(n)
    for layer in range(layers):
        last.fill(0)
        for y in range(h):
            for i in range(n):
                row[i + lanes] = v[y + 1, i] if layer == 0 else v[y + 1, i] / 8
            box_row(row, last, v, y, n, lanes)
        for y in range(h):
            for i in range(n):
                deviation = math.sqrt(v[y + 1, i])
                s[layer, y, i] = deviation
                inverse[layer, y, i] = 1 / deviation if deviation > 0 else 0.0
    return s, inverse


@numba.njit(cache=True)
def numba_plane(A, B, d, p, q, size, lanes, layers, tables, constants, pooled, bound):
    """Plane d, in rows 1, 2, ... of A and B, through all layers of a stage and into the next stage's planes.

    One sweep a layer: each row goes through ReLU into a line buffer, whose 3 x 3 box sums replace the row.
    """
    h, n = size[0] - abs(d[0]), (size[1] - abs(d[1])) * lanes
    a, b = np.zeros(n + 2 * lanes, A.dtype), np.zeros(n + 2 * lanes, A.dtype)
    last_a, last_b = np.empty(n, A.dtype), np.empty(n, A.dtype)
    for layer in range(layers + 1):
        last_a.fill(0)
        last_b.fill(0)
        for y in range(h):
            if layer == 0:  # the stage starts after a ReLU
                for i in range(n):
                    a[i + lanes], b[i + lanes] = A[y + 1, i], B[y + 1, i]
            else:
                relu_row(A, B, y, n, p, q, layer - 1, tables, lanes, constants, a, b)
            if layer < layers:
                box_row(a, last_a, A, y, n, lanes)
                box_row(b, last_b, B, y, n, lanes)
            else:
                share = (8 / 9) ** layers / 16  # of an entry in the average; relu_row divides by 8, not 9
                pool_row(a, b, p[0] + y, p[1] // lanes, d, n, size, lanes, pooled, bound, share)


@numba.njit(cache=True, fastmath={"contract", "nsz"}, forceinline=True)
def relu_row(A, B, y, n, p, q, layer, tables, lanes, constants, a, b):
    """Row y of a plane, box sums, through a ReLU into the buffers a and b.

    Divides by 8, which is exact, instead of 9: every layer makes the state 9/8 too large, the pooling repairs it. A
    rounded 1/9 would let k drift away from the variances, and near c = 1 every digit of e = 1 - |c| counts. With
    w = s s', k = c w:  w kappa1 = max(k, 0) + w sqrt(e) (sqrt(1 + |c|) - |c| W)/pi, a small correction at c = 1.
    """
    s1, inverse1, s2, inverse2 = tables
    two, one, eighth, eighth_of_pi, tiny, centre = constants[:6]
    # max(., 0) tells the compiler that no index wraps around: without it the loop is not vectorised.
    lanes, py, px, qy, qx = max(lanes, 0), max(p[0] + y, 0), max(p[1], 0), max(q[0] + y, 0), max(q[1], 0)
    for i in range(n):
        k = A[y + 1, i]
        w = s1[layer, py, px + i] * s2[layer, qy, qx + i]
        e = (w - abs(k)) * (inverse1[layer, py, px + i] * inverse2[layer, qy, qx + i])
        if e < tiny:
            e = one - one
        root = math.sqrt(two - e)
        angle = constants[6]
        for m in range(7, len(constants)):
            angle = angle * (root - centre) + constants[m]
        u = math.sqrt(e) * eighth_of_pi
        slope, new = eighth - u * angle, k * eighth
        if k < 0:  # in the first layer only
            slope, new = u * angle, one - one
        new += w * u * (root - (one - e) * angle)
        a[i + lanes] = new
        b[i + lanes] = slope * B[y + 1, i] + new


@numba.njit(cache=True, fastmath={"contract", "nsz"}, forceinline=True)
def box_row(row, last, plane, y, n, lanes):
    """Add row y, in a buffer with a pixel of zeros on either side, to the box sums in rows 1, 2, ... of plane.

    Row y of the result is complete when row y + 1 has been added; it replaces the input, which is used up.
    """
    lanes = max(lanes, 0)
    for i in range(n):
        total = row[i] + row[i + lanes] + row[i + 2 * lanes]
        plane[y, i] += total
        plane[y + 1, i] = last[i] + total
        last[i] = total


@numba.njit(cache=True, error_model="numpy")
def pool_row(a, b, y, x, d, n, size, lanes, pooled, bound, share):
    """Add a row of plane d, from pixel (y, x) of the first image on, to the planes after 2 x 2 pooling.

    Pixels p and p + d become p // 2 and (p + d) // 2 along each axis; what lies beyond the cone is left out.
    """
    Y, D = y // 2, (y + d[0]) // 2 - y // 2
    if max(Y, Y + D) >= size[0] // 2 or abs(D) > bound[0]:
        return
    for i in range(n // lanes):
        X, E = (x + i) // 2, (x + i + d[1]) // 2 - (x + i) // 2
        if max(X, X + E) < size[1] // 2 and abs(E) <= bound[1]:
            row, column = Y - max(0, -D) + 1, (X - max(0, -E)) * lanes
            for j in range(lanes):
                pooled[0, D + bound[0], E + bound[1], row, column + j] += a[(i + 1) * lanes + j] * share
                pooled[1, D + bound[0], E + bound[1], row, column + j] += b[(i + 1) * lanes + j] * share


# ---- on accelerators: JAX, one fused kernel a layer over all planes ----


class JaxConvolution(Convolution):
    """On all local devices that JAX finds, the pairs of a block shared out to them."""

    def __init__(self, images, layers):
        import jax

        devices = jax.local_devices()
        entries = np.prod([len(plane_line(size, 15)) for size in images.shape[1:]])
        # A and B, twice as the loop writes what it does not read, and room for what XLA does not fuse.
        memory = (devices[0].memory_stats() or {}).get("bytes_limit", 2**29)
        lanes = int(np.clip(memory // (12 * entries * images.dtype.itemsize), 1, 512))
        self.pairs_at_once = self.lanes = (1 << lanes.bit_length() - 1) * len(devices)
        super().__init__(images, layers)

    def blocks(self, i, j, own):
        """Pooled A and B of the pairs (i, j), whole blocks of lanes; with `own` also their variances."""
        run = jax_cone(*self.images.shape[1:], self.images.dtype.name, own)
        a, b = np.empty((2, len(i)))
        for start in range(0, len(i), self.lanes):
            block = slice(start, start + self.lanes)
            x1, x2 = (np.moveaxis(self.images[index[block]], 0, -1) for index in (i, j))
            variances = [
                [np.moveaxis(v[index[block]], 0, -1).astype(x1.dtype) for index in (i, j)] for v in self.variances
            ]
            with double_precision():
                a[block], b[block], *found = run(x1, x2, variances, self.layers)
            for stage, v in enumerate(found, start=1):
                self.variances[stage][i[block]] = np.moveaxis(v, -1, 0)
        return a, b


GAP = (-1, -1)  # between planes; index -1 finds the row of zeros appended to an image


def plane_line(size, bound):
    """Pixel pairs (p, q) along one axis of the planes d = q - p = -bound ... bound, a GAP after each.

    The outer product of the lines of both axes is one picture that holds a stage's whole cone, and box is an ordinary
    3x3 box filter on it: the gaps, kept at zero, keep the planes apart.
    """
    line = []
    for d in range(-min(bound, size - 1), min(bound, size - 1) + 1):
        line += [(p, p + d) for p in range(max(0, -d), size - max(0, d))] + [GAP]
    return line


def pooling_sources(line, pooled, width):
    """Positions in `line`, [len(pooled), width^2], whose average is each entry of the pooled line."""
    position = {pair: i for i, pair in enumerate(line)}
    offsets = [(a, b) for a in range(width) for b in range(width)]
    sources = [[(width * p + a, width * q + b) for a, b in offsets] for p, q in pooled]
    return np.array([[position.get(pair, position[GAP]) for pair in pairs] for pairs in sources])


@functools.cache
def jax_cone(height, width, precision, own):
    """The compiled pass of a block of pairs through the three stages.

    Takes x, x' [h, w, pairs], the variances (v, v') at the start of each stage and the layers a stage, a run-time
    number. Returns pooled A and B [pairs]. With `own`, x = x': the variances come from the state itself, and those of
    the second and third stage are returned too.
    """
    import jax
    import jax.numpy as jnp

    centre, *polynomial = arccos_polynomial(precision)
    lines = [[plane_line(s >> stage, (15, 7, 3)[stage]) for s in (height, width)] for stage in range(3)]
    lines.append([[(0, 0)], [(0, 0)]])  # the single pair of pixels left

    def box(a):
        for axis in (0, 1):
            a = jnp.pad(a, [(1, 1) if i == axis else (0, 0) for i in range(3)])
            a = sum(jax.lax.slice_in_dim(a, i, i + a.shape[axis] - 2, axis=axis) for i in range(3))
        return a

    def look_up(image, stage, which):  # [h, w, pairs] at the pixels of x (0) or x' (1) of all planes
        y, x = (np.array(line)[:, which] for line in lines[stage])
        return jnp.pad(image, [(0, 1), (0, 1), (0, 0)])[y][:, x]

    def pool(a, stage):
        for axis in (0, 1):
            by = 4 if stage == 2 else 2  # two poolings follow the third stage
            sources = pooling_sources(lines[stage][axis], lines[stage + 1][axis], by)
            a = jnp.take(a, sources, axis=axis).mean(axis=axis + 1)
        return a

    def run_stage(a, b, v1, v2, stage, layers):
        y, x = (np.array([p == q for p, q in line]) for line in lines[stage])
        identical = own & (y[:, None] & x)[..., None]

        def layer(_, state):
            a, b, v1, v2 = state
            v1, v2 = box(v1) / 9, box(v2) / 9
            s = look_up(jnp.sqrt(v1), stage, 0) * look_up(jnp.sqrt(v2), stage, 1)
            c = jnp.where(identical, 1, box(a) / 9 * jnp.where(s > 0, 1 / s, 0))
            e = 1 - jnp.abs(c)
            e = jnp.where(e < correlation_one * jnp.finfo(e.dtype).eps, 0, e)
            root = jnp.sqrt(2 - e)
            angle = polynomial[0]
            for coefficient in polynomial[1:]:
                angle = angle * (root - centre) + coefficient
            angle = jnp.sqrt(e) * angle / np.pi
            kappa0 = jnp.where(c < 0, angle, 1 - angle)
            a = s * (jnp.sqrt(e) * root / np.pi + c * kappa0)
            return a, jnp.where(s > 0, kappa0 * box(b) / 9, 0) + a, v1, v2

        a, b, *_ = jax.lax.fori_loop(0, layers, layer, (a, b, v1, v2))
        return pool(a, stage), pool(b, stage)

    def cone(x1, x2, variances, layers):
        a = b = look_up(x1, 0, 0) * look_up(x2, 0, 1)
        for stage in range(3):
            if own and stage:
                y, x = (line.index((0, 0)) for line in lines[stage])  # where the plane d = 0 begins
                variances[stage] = [a[y : y + (height >> stage), x : x + (width >> stage)]] * 2
            a, b = run_stage(a, b, *variances[stage], stage, layers)
        return a[0, 0], b[0, 0], *([variances[1][0], variances[2][0]] if own else [])

    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("pairs",))
    shared, numbers, by_pair = (jax.sharding.PartitionSpec(*axes) for axes in ([], ["pairs"], [None, None, "pairs"]))
    outputs = (numbers, numbers, *[by_pair] * (2 * own))
    return jax.jit(jax.shard_map(cone, mesh=mesh, in_specs=(by_pair,) * 3 + (shared,), out_specs=outputs))


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
    lanczos = functools.partial(
        scipy.sparse.linalg.eigsh, matrix, k=1, return_eigenvectors=False, v0=np.ones(matrix.shape[0])
    )
    return lanczos(which="SA")[0], abs(lanczos(sigma=0)[0]), abs(lanczos(which="LM")[0])


def condition_number(matrix):
    """Largest over smallest |eigenvalue| of a symmetric matrix; inf if it is singular."""
    _, smallest, largest = extreme_eigenvalues(matrix)
    return largest / smallest if smallest > 0 else np.inf


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
    found = {
        "condition_number_exact": condition_number(kernel),
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
            lowest, smallest, highest = extreme_eigenvalues(sparsified)
            for name, value in {
                "sparsity": sparsity(sparsified),
                "condition_number": highest / smallest if smallest > 0 else np.inf,
                "smallest_eigenvalue": lowest,
                "positive_definite": lowest > 0,
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
    per_trial = ["depth", "separability", "off_diagonal_ratio", "condition_number_exact", "clipped_share_k_thresh",
                 "clipped_share_training"]  # fmt: skip
    per_trial += [f"accuracy_{which}{at}" for which in ("exact", "diagonal") for at in ("", "_at_zero")]
    per_image = [f"post_selection_measurements{which}" for which in ("", "_k_thresh", "_training")]
    per_image += [f"readout_measurements_diagonal{at}" for at in ("", "_at_median")]
    shapes = dict.fromkeys(per_trial, (s, t)) | dict.fromkeys(per_image, (s, t, x))
    for convention in conventions:
        per_pattern = ["sparsity", "condition_number", "smallest_eigenvalue", "positive_definite", "accuracy_sparse"]
        shapes |= dict.fromkeys([n + convention for n in [*per_pattern, "accuracy_sparse_at_zero"]], (s, t, p))
        shapes[f"pattern_sparsity{convention}"] = (s, pattern_draws)
        for at in ("", "_at_median"):
            shapes[f"readout_measurements_sparse{at}{convention}"] = (s, t, p, x)
    return shapes


# ----------------------------------------------------------------------------------------------------------------------
# Running: trials, files, results
# ----------------------------------------------------------------------------------------------------------------------


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


def save(path, write):
    """Call write(file) on a temporary file, then rename it: `path` exists complete or not at all."""
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "wb") as file:
        write(file)
    os.replace(temporary, path)


def load_array(path, shape):
    """The array at `path`, or None if there is none or, said in a note, not one of `shape` and finite numbers."""
    if not path.exists():
        return None
    with contextlib.suppress(OSError, ValueError, EOFError):
        array = np.load(path, allow_pickle=False)
        if array.shape == shape and np.isfinite(array).all():
            return array
    tqdm.write(f"note: {path} does not hold {list(shape)} finite numbers; computing it again")
    return None


def trial_images(settings, network, size, trial):
    """Training images, their labels, test images and their labels of one trial."""
    drawn = []
    for split, count in (("train", size), ("test", settings.test_size)):
        rng = random_generator(settings.seed, network, size, trial, split)
        flatten = network == "fully-connected"
        drawn += process_data(settings.data[split], selections[network], count // 2, flatten, rng)
    return drawn


def compute_kernels(settings, network, train, test, depth, names, progress):
    """The NTK matrices in `names`, of kernel_train [n, n] and kernel_test [test, n], by name."""
    n, kernels = len(train), {}
    if network == "fully-connected":
        for name in names:
            x1, x2 = (train, None) if name == "kernel_train" else (test, train)
            kernels[name] = fully_connected_ntk(x1, x2, depth=depth, engine=settings.engine)
            progress(n * (n + 1) // 2 if x2 is None else n * len(test))
        return kernels
    # One list of pairs serves both matrices. In each pair a training image comes first; half of kernel_train will do.
    cells = {"kernel_train": np.tril_indices(n), "kernel_test": tuple(np.indices((len(test), n)).reshape(2, -1))}
    pairs = [[j, i + n * (name == "kernel_test")] for name in names for i, j in [cells[name]]]
    values = np.empty(sum(len(i) for i, _ in pairs))
    images = np.concatenate([train, test]) if "kernel_test" in names else train
    how = (depth, settings.engine, settings.precision)
    for block, ntk in convolutional_pairs(images, np.concatenate(pairs, axis=1), *how):
        values[block] = ntk
        progress(len(block))
    for name, part in zip(names, np.split(values, np.cumsum([len(i) for i, _ in pairs])[:-1]), strict=True):
        kernels[name] = np.empty((n if name == "kernel_train" else len(test), n))
        kernels[name][cells[name]] = part
        if name == "kernel_train":
            kernels[name].T[cells[name]] = part
    return kernels


def trial_kernels(settings, network, size, trial, k_thresh, progress):
    """One trial's five arrays by file name, read or computed and saved, with its depth and separability.

    k_thresh: what kernel_test is divided by (fully connected: found here). None for the convolutional network's
    reference trial, which it comes from: then only kernel_train.
    """
    train, train_label, test, test_label = trial_images(settings, network, size, trial)
    found = {"train_label": train_label, "test_label": test_label}
    delta, depth = separability(train), convolutional_depth
    if network == "fully-connected":
        depth = fully_connected_depth(size, delta)
        k_thresh = fully_connected_threshold(train.shape[1], depth)
    names = ("train_label", "test_label", "kernel_train", "kernel_test", "kernel_test_normalized")
    paths = {n: settings.path(network, f"seed{settings.seed}_data{size}_trial{trial}_{n}.npy") for n in names}
    shapes = {"kernel_train": (size, size)} | ({"kernel_test": (len(test), size)} if k_thresh else {})
    found |= {name: load_array(paths[name], shape) for name, shape in shapes.items()}
    missing = [name for name in shapes if found[name] is None]
    if missing:
        found |= compute_kernels(settings, network, train, test, depth, missing, progress)
    if k_thresh:
        found["kernel_test_normalized"] = np.clip(found["kernel_test"] / k_thresh, -1, 1)
    for name in found:
        if missing or not paths[name].exists():
            save(paths[name], functools.partial(np.save, arr=found[name]))
    return found | {"depth": depth, "separability": delta}


def fully_connected_threshold(dimension, depth):
    """k_thresh = k(1 - 1e-5): the NTK of two unit vectors with that inner product, at `depth`."""
    x1, x2 = np.zeros((2, 1, dimension))
    x1[0, 0] = 1
    x2[0, :2] = 1 - k_thresh_margin, np.sqrt(1 - (1 - k_thresh_margin) ** 2)
    return fully_connected_ntk(x1, x2, depth=depth)[0, 0]


def convolutional_thresholds(reference):
    """k_thresh and each convention's class thresholds, from the training matrix of the reference trial."""
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
    k_thresh = thresholds = None
    start = time.perf_counter()
    with tqdm(total=settings.pairs(network), unit=" pairs", unit_scale=True, desc=network, disable=None) as bar:
        if network == "convolutional" and any(counts):
            reference = trial_kernels(settings, network, reference_size, 0, None, bar.update)["kernel_train"]
            k_thresh, thresholds = convolutional_thresholds(reference)
        for s, (size, count) in enumerate(zip(settings.data_sizes, counts, strict=True)):
            for c, i in itertools.product(conventions, range(pattern_draws if count else 0)):
                rng = random_generator(settings.seed, network, size, i, f"sparsity{c}")
                results[f"pattern_sparsity{c}"][s, i] = sparsity(sparsity_pattern(size, rng, c == ""))
            for trial in range(count):
                kernels = trial_kernels(settings, network, size, trial, k_thresh, bar.update)
                computed = time.perf_counter()
                patterns = trial_patterns(settings, network, size, trial)
                found = kernels | trial_quantities(network, kernels, patterns, thresholds)
                for name in results.keys() & found.keys():
                    results[name][s, trial] = found[name]
                seconds["kernels"] += computed - start
                start = time.perf_counter()
                seconds["quantities"] += start - computed
    path = settings.path(network, "results.npz")
    save(path, functools.partial(np.savez, data_sizes=settings.data_sizes, trials=counts, **results))
    print(f"wrote {path}")
    return seconds


def run_depth_sweep(settings, network):
    """Quantities against depth, written to `{prefix}_depth_sweep.npz`. Returns the seconds it took.

    Fully connected: depths of `sweep_factors` times L_conv; convolutional: `sweep_depths`. The arrays, [sizes, depths,
    trials] and more, are named like those of the results; kernels are not kept.
    """
    counts, start = settings.trials[network], time.perf_counter()
    settings_of_sweep = sweep_factors if network == "fully-connected" else sweep_depths
    names = ("depth", "off_diagonal_ratio", "condition_number_exact", "accuracy_exact", "accuracy_diagonal")
    shape = (len(settings.data_sizes), len(settings_of_sweep), max(counts))
    results = {name: np.full(shape, np.nan) for name in names}
    names = ("condition_number", "smallest_eigenvalue", "accuracy_sparse")
    results |= {name: np.full((*shape, sparsity_patterns), np.nan) for name in names}
    compute = functools.partial(compute_kernels, settings, network, progress=lambda pairs: None)

    @functools.cache
    def thresholds_at(depth):  # the reference trial's, once for all sizes and trials
        images, *_ = trial_images(settings, network, reference_size, 0)
        reference = compute(train=images, test=images[:0], depth=depth, names=["kernel_train"])
        return convolutional_thresholds(reference["kernel_train"])

    plan = [(s, d, t) for s in range(shape[0]) for d in range(shape[1]) for t in range(counts[s])]
    for s, d, trial in tqdm(plan, desc=f"{network}, depth sweep", unit=" trials", disable=None):
        size = settings.data_sizes[s]
        train, train_label, test, test_label = trial_images(settings, network, size, trial)
        if network == "fully-connected":
            depth, thresholds = fully_connected_depth(size, separability(train), sweep_factors[d]), None
            k_thresh = fully_connected_threshold(train.shape[1], depth)
        else:
            depth = sweep_depths[d]
            k_thresh, thresholds = thresholds_at(depth)
        kernels = compute(train=train, test=test, depth=depth, names=["kernel_train", "kernel_test"])
        kernels |= {"train_label": train_label, "test_label": test_label}
        kernels["kernel_test_normalized"] = np.clip(kernels["kernel_test"] / k_thresh, -1, 1)
        patterns = {"": trial_patterns(settings, network, size, trial)[""]}
        found = trial_quantities(network, kernels, patterns, thresholds) | {"depth": depth}
        for name in results:
            results[name][s, d, trial] = found[name]
    path = settings.path(network, "depth_sweep.npz")
    about = {"data_sizes": settings.data_sizes, "trials": counts, "depth_settings": settings_of_sweep}
    save(path, functools.partial(np.savez, **about, **results))
    print(f"wrote {path}")
    return time.perf_counter() - start


# ----------------------------------------------------------------------------------------------------------------------
# Command line
# ----------------------------------------------------------------------------------------------------------------------


def parse_arguments(argv):
    """The command line, checked as far as it can be without the data; errors end with status 2."""
    parser = argparse.ArgumentParser(
        description="Kernels, approximations and measurement counts of arXiv:2107.09200.",
        epilog="The defaults are the constants at the top of training.py.",
    )
    names = " ".join(networks)
    limits = " ".join(map(str, trials_without_accelerator))
    options = [
        ("--networks", dict(nargs="+", choices=networks, default=networks, metavar="NETWORK"), f"of {names}", names),
        ("--data-sizes", dict(nargs="+", type=int, metavar="N"), "numbers of training images, even", data_sizes),
        ("--trials", dict(nargs="+", type=int, metavar="T"), "trials of each size, 0 skips it",
         f"{' '.join(map(str, trials))}; for the convolutional network without an accelerator at most {limits}"),
        ("--test-size", dict(type=int, default=test_size, metavar="X"), "test images of a trial, even", test_size),
        ("--seed", dict(type=int, default=seed), "seed of every random draw, 0 or more", seed),
        ("--output", dict(type=Path, default="kernel_output", metavar="DIR"),
         "folder to write to, and to go on from", "kernel_output"),
        ("--dataset", dict(choices=("auto", "mnist", "digits"), default="auto"),
         "MNIST, scikit-learn's 8x8 digits, or the digits only where MNIST can't be had", "auto"),
        ("--mnist-dir", dict(metavar="DIR"), "folder of MNIST's four IDX files",
         "the environment variable MNIST_DIR, else TensorFlow Datasets"),
        ("--engine", dict(choices=engines, default="auto"), "what evaluates the kernels; neural-tangents is the slow "
         "cross-check", "auto: jax where JAX finds an accelerator, else numba"),
        ("--precision", dict(choices=("float64", "float32"), default="float64"),
         "of the convolutional kernels' evaluation", "float64"),
        ("--depth-sweep", dict(action="store_true"), "vary the depth instead of running the plan", "off"),
    ]  # fmt: skip
    for flag, how, text, default in options:
        default = " ".join(map(str, default)) if isinstance(default, list) else default
        parser.add_argument(flag, **how, help=f"{text} (default: {default})")
    args = parser.parse_args(argv)

    def complain(option, values, remedy):
        parser.error(f"--{option} {' '.join(map(str, np.atleast_1d(values)))}: {remedy}")

    args.own_trials = args.trials is not None
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
    if args.test_size < 2 or args.test_size % 2:
        complain("test-size", args.test_size, "use an even number, 2 or more")
    if args.seed < 0:
        complain("seed", args.seed, "use 0 or more")
    return args


def plan(args, data):
    """The run's Settings: what the data can fill and what can be finished without an accelerator."""
    digits = [digit for network in args.networks for digit in selections[network]]
    train, test = (2 * min(np.sum(data[s]["label"] == d) for d in digits) for s in ("train", "test"))
    if args.test_size > test:
        print(f"note: {data['name']} fills {test} test images, not {args.test_size}")
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
    return Settings(*chosen, args.output, choose_engine(args.engine), args.precision, data)


def describe_device():
    """The accelerators, or the processor and its number of cores."""
    import jax

    if has_accelerator():
        return f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU, {(models or [platform.processor() or platform.machine()])[0]}, {os.cpu_count()} cores"


def run(args):
    """One run: data, plan, networks, run.json. Raises BadInput."""
    clock = time.perf_counter()
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--output {args.output}: {error.strerror}; name a folder") from error
    data = load_data(args.dataset, args.mnist_dir)
    data |= {split: canonical_order(data[split]) for split in ("train", "test")}
    seconds = {"data": time.perf_counter() - clock}
    stand_in = "THESE ARE SCIKIT-LEARN'S 8x8 DIGITS, NOT MNIST; FILES ARE NAMED digits-..."
    if data["name"] != "mnist":
        print(stand_in)
    settings = plan(args, data)
    print(f"dataset {data['name']}, {settings.test_size} test images; {describe_device()}; engine {settings.engine}, "
          f"{args.precision}; output {args.output}/")  # fmt: skip
    for network in args.networks:
        plans = [f"{t} x {n}" for n, t in zip(args.data_sizes, settings.trials[network], strict=True) if t]
        print(f"{network}: {settings.pairs(network):,} pairs of images, trials x sizes {', '.join(plans) or 'none'}")
    for network in args.networks:
        seconds[network] = (run_depth_sweep if args.depth_sweep else run_network)(settings, network)
    seconds["total"] = time.perf_counter() - clock
    packages = ("numpy", "scipy", "numba", "jax", "jaxlib", "neural-tangents")
    constants = {name: getattr(settings, name) for name in ("seed", "test_size", "data_sizes", "trials")}
    constants |= {name: globals()[name] for name in ("sparsity_patterns", "selections", "depth_factor",
                  "convolutional_depth", "k_thresh_margin", "percentile", "diagonal_boost")}  # fmt: skip
    record = {
        "dataset": data["name"], "device": describe_device(), "engine": settings.engine, "precision": args.precision,
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
    if data["name"] != "mnist":
        print(stand_in)


def main(argv=None):
    """Run the command line. Returns the exit status: 0, or 2 after one line about a bad input."""
    args = parse_arguments(argv)
    try:
        run(args)
    except BadInput as error:
        print(f"training.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
