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
import json
import math
import os
import platform
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.parse
import urllib.request
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numba
import numpy as np
import scipy.linalg
from tqdm import tqdm

# JAX, neural-tangents, scikit-learn and TensorFlow are imported by the functions that need them: `--help` and a
# wrong option should not wait for them.

# --------------------------------------------------------------------------------------------------------------
# Constants: the original's names and values. Edit them here, or override them by flags.
# --------------------------------------------------------------------------------------------------------------

seed = 0
test_size = 256  # test images of a trial, half of each class
data_sizes = [16, 32, 64, 128, 256, 512]  # training images of a trial, half of each class
trials = [16, 8, 4, 4, 4, 4]  # trials of each size
# Where JAX finds no accelerator the convolutional network takes the smaller of this and `trials`, size by size.
trials_without_accelerator = [2, 1, 0, 0, 0, 0]

sparsity_patterns = 3  # random sparsity patterns tried on each trial's kernel
pattern_draws = 100  # patterns drawn for each size to plot their sparsity alone

selections = {"fully-connected": (8, 9), "convolutional": (1, 0)}  # digits; the second one is class +1
depth_factor = 0.1  # depth of the fully-connected network in units of L_conv
convolutional_depth = 96  # convolutions of the convolutional network, a third before each pooling
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


# --------------------------------------------------------------------------------------------------------------
# Data
# --------------------------------------------------------------------------------------------------------------


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
    """Raise ConnectionError unless `url` answers within `seconds`, the look-up of its name included."""
    outcome = [f"no answer in {seconds} s"]

    def request():
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            outcome[0] = None
        except OSError as error:
            outcome[0] = getattr(error, "reason", error)

    # In a thread, because the system's name look-up heeds no timeout.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(seconds)
    if outcome[0] is not None:
        raise ConnectionError(f"no connection to {urllib.parse.urlsplit(url).hostname} ({outcome[0]})")


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


# --------------------------------------------------------------------------------------------------------------
# Engines: what evaluates the kernels
# --------------------------------------------------------------------------------------------------------------


def has_accelerator():
    """Whether JAX finds a GPU or TPU."""
    import jax

    return jax.default_backend() != "cpu"


def choose_engine(engine):
    """The engine that `auto` stands for on this machine; any other name is checked and returned."""
    if engine not in engines:
        raise BadInput(f"--engine {engine}: unknown; use {', '.join(engines)}")
    if engine != "auto":
        return engine
    return "jax" if has_accelerator() else "numba"


def double_precision():
    """A context in which JAX has float64, whatever the caller configured."""
    import jax

    return jax.enable_x64(True)


def import_neural_tangents():
    """Import neural-tangents 0.6.5 under a JAX that is newer than it, 0.10 to 0.12.

    It imports names that have left `jax.core`, `jax.util` and `jax.interpreters.ad`; its infinite-width kernels
    need them to exist, no more. Its package `experimental`, which is there for TensorFlow alone, is left empty.
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
            expected = "[n, pixels]" if rank == 2 else "[n, height, width, 1]"
            raise BadInput(f"{name} of shape {x.shape}: use {expected}")
        if not np.isfinite(x).all():
            raise BadInput(f"{name} holds NaN or infinite values; leave those images out")
        checked.append(x.astype(np.float64))
    if checked[0].shape[1:] != checked[1].shape[1:]:
        raise BadInput(f"x1 and x2 of shapes {x1.shape} and {x2.shape}: use images of one size")
    return checked


# --------------------------------------------------------------------------------------------------------------
# The NTK of the fully-connected network: depth times (Dense, normalised erf), then Dense(1)
# --------------------------------------------------------------------------------------------------------------


def fully_connected_ntk(x1, x2=None, *, depth, engine="auto"):
    """NTK of the fully-connected erf network.

    x1 [n1, d], x2 [n2, d] (None: x1 with itself, half computed), `depth` hidden layers. Engine jax computes with
    JAX, auto and numba with NumPy, which needs no longer. Returns float64 [n1, n2].
    Raises BadInput, a ValueError, for another rank or dtype, NaN, unknown engines and negative depths.

    Closed form (Williams, Neural Computation 10, 1998; Jacot et al., arXiv:1806.07572), with s = 1/E[erf^2] and
    the variances q, q':
        K0 = s x.x'/d,  Theta0 = K0
        Theta <- s Theta (4/pi) / sqrt((1+2q)(1+2q') - 4K^2)
        K <- s (2/pi) arcsin(2K / sqrt((1+2q)(1+2q'))),  Theta <- K + Theta
    The diagonal has a recursion of its own, K = q = q': the map of the correlation has a slope above 1 at 1,
    where rounding errors grow with every layer and would make the matrix's diagonal useless by depth 150.
    """
    if not isinstance(depth, (int, np.integer)) or depth < 0:
        raise BadInput(f"depth {depth}: use a whole number of layers, 0 or more")
    symmetric = x2 is None
    x1, x2 = check_images(x1, x2, rank=2)
    if engine != "auto" and choose_engine(engine) == "neural-tangents":
        _, stax = import_neural_tangents()
        dense = [stax.Dense(width, W_std=np.sqrt(erf_scale), b_std=None) for width in (512, 1)]
        return oracle_ntk([dense[0], stax.Erf()] * int(depth) + [dense[1]], x1, None if symmetric else x2)
    xp, context = np, contextlib.nullcontext()
    if engine == "jax":
        import jax.numpy as xp

        context = double_precision()
    q1, diagonal = fully_connected_diagonal(x1, depth)
    q2 = q1 if symmetric else fully_connected_diagonal(x2, depth)[0]
    kernel = np.empty((len(x1), len(x2)))
    rows = max(1, 2**15 // len(x2))  # so that a block of rows stays in the cache for all layers
    with context:
        for start in range(0, len(x1), rows):
            block = slice(start, start + rows)
            columns = slice(0, start + rows) if symmetric else slice(None)
            k = theta = xp.asarray(erf_scale / x1.shape[1] * (x1[block] @ x2[columns].T))
            for v1, v2 in zip(q1[:-1, block], q2[:-1, columns], strict=True):
                norm = xp.asarray((1 + 2 * v1)[:, None] * (1 + 2 * v2))
                theta = erf_scale * (4 / np.pi) * theta / xp.sqrt(norm - 4 * k**2)
                k = erf_scale * (2 / np.pi) * xp.arcsin(xp.clip(2 * k / xp.sqrt(norm), -1, 1))
                theta = k + theta
            kernel[block, columns] = theta
    if symmetric:
        kernel = np.tril(kernel, -1)
        kernel += kernel.T + np.diag(diagonal)
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


# --------------------------------------------------------------------------------------------------------------
# The NTK of the convolutional network: three stages of 3x3 convolutions with ReLU, each ended by 2x2 average
# pooling, then pooling once more, Dense(2), erf, Dense(1)
# --------------------------------------------------------------------------------------------------------------
#
# Of a pair of images x, x' the state is, for every pair of pixels (p, q), the covariance A and B = A + Theta, both
# after ReLU. W_std^2 = 2 cancels ReLU's factor 1/2, so that, with the sum over nine offsets box(A)[p, q] =
# sum_o A[p + o, q + o], zero outside the image, a layer is
#     K = box(A)/9,  T = box(B)/9,  c = K / (s s'),  s = sqrt(v[p]),  s' = sqrt(v'[q])
#     kappa0 = (pi - arccos c)/pi,  kappa1 = sqrt(1 - c^2)/pi + c kappa0
#     A <- s s' kappa1(c),  B <- kappa0(c) T + A
# (Cho and Saul, NIPS 2009; Arora et al., arXiv:1904.11955). A stage starts from A = B = x x' or from the pooled
# state. The variances obey v <- box(v)/9 inside a stage and start it as the diagonal of x's own pooled state.
# Exact, and what makes it fast:
#
# 1. Displacement planes. box couples (p, q) only with equal displacement q - p, so between poolings every plane
#    {(p, p + d)} evolves on its own.
# 2. The cone. Of the third stage only pixels 0 to 3 survive the two poolings, so |d| <= 3 matters there, <= 7 in
#    the second stage and <= 15 in the first: 961 of 3025 planes at 28x28.
# 3. Half of the training Gram, and one pass per image over the pair (x, x) for its variances, with c = 1 exactly
#    at d = 0, where arccos would lose half of the digits.


def convolutional_ntk(x1, x2=None, *, depth=96, engine="auto", precision="float64"):
    """NTK of the convolutional network.

    x1 [n1, h, w, 1], x2 [n2, h, w, 1] (None: x1 with itself, half computed), 16 <= h, w <= 31, so that four
    poolings leave one pixel; `depth` convolutions, a third of them before each of the first three poolings.
    Returns float64 [n1, n2], computed in `precision`.
    Raises BadInput, a ValueError, for another shape or dtype, NaN, unknown names and other depths.
    """
    symmetric = x2 is None
    x1, x2 = check_images(x1, x2, rank=4)
    rows = range(len(x1))
    columns = rows if symmetric else range(len(x1), len(x1) + len(x2))
    gram = Gram(np.full((len(x1), len(x2)), np.nan), rows, columns)
    images = x1 if symmetric else np.concatenate([x1, x2])
    convolutional_grams(images, [gram], depth=depth, engine=engine, precision=precision)
    return gram.kernel


@dataclass
class Gram:
    """A Gram matrix to fill: kernel[i, j] belongs to images rows[i] and columns[j] of one list.

    kernel: float64 [len(rows), len(columns)], NaN where it is to be computed; symmetric if rows == columns.
    """

    kernel: np.ndarray
    rows: range
    columns: range

    def pending(self):
        """Entries (i, j) to compute: of a symmetric matrix neither the diagonal nor both (i, j) and (j, i)."""
        missing = np.isnan(self.kernel)
        if self.rows == self.columns:
            missing &= np.tri(len(self.rows), k=-1, dtype=bool)
        return np.argwhere(missing)


def convolutional_grams(images, grams, *, depth, engine, precision, progress=lambda pairs: None):
    """Fill `grams`, Gram matrices over one list of `images` [m, h, w, 1], with the NTK.

    One call serves a trial's training and test matrices: the images' own passes run once, and small matrices
    share blocks. `progress` is called with the number of pairs just finished.
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
        for gram in grams:
            x2 = None if gram.rows == gram.columns else images[gram.columns]
            gram.kernel[:] = oracle_ntk(oracle_convolutional(depth), images[gram.rows], x2)
            progress(gram.kernel.size)
        return
    evaluator = {"numba": NumbaConvolution, "jax": JaxConvolution}[engine]
    evaluate = evaluator(images[..., 0].astype(precision), int(depth) // 3)
    own_a, own_b = evaluate.own_a, evaluate.own_b
    diagonal = dense_head(own_a, own_b, own_a, own_a)
    progress(len(images))
    work = []  # a row (gram, i, j, image, image) for each pair
    for g, gram in enumerate(grams):
        i, j = gram.pending().T
        work.append(np.stack([np.full_like(i, g), i, j, i + gram.rows[0], j + gram.columns[0]]))
        if gram.rows == gram.columns:
            np.fill_diagonal(gram.kernel, diagonal[gram.rows])
    work = np.concatenate(work, axis=1)
    for block in np.split(work, range(evaluate.pairs_at_once, work.shape[1], evaluate.pairs_at_once), axis=1):
        rows, columns = block[3:]
        theta = dense_head(*evaluate(rows, columns), own_a[rows], own_a[columns])
        for g, gram in enumerate(grams):
            _, i, j, _, _ = block[:, block[0] == g]
            gram.kernel[i, j] = theta[block[0] == g]
            if gram.rows == gram.columns:
                gram.kernel[j, i] = gram.kernel[i, j]
        progress(block.shape[1])


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


def cone_bound(size, stage):
    """Largest displacement that reaches the output from a stage, 0 to 2 (3: past it), along one axis of `size`."""
    return min((16 >> stage) - 1, (size >> stage) - 1)


# 1 - c below 8 units of rounding counts as 0. Background pixels of two images have c = 1; rounding makes 1 - c =
# 1e-16 of it, and the square root in arccos then an error of 1e-8 (in float32, 3e-4).
correlation_one = 8


def arccos_polynomial(precision):
    """Constants of arccos(c) = sqrt(1 - c) W(sqrt(1 + c)), 0 <= c <= 1: a centre, then W's coefficients in powers
    of sqrt(1 + c) - centre, highest first.

    arccos(c)/sqrt(1 - c) as a function of c needs degree 20 for float64 because of its branch point at c = -1.
    The square root, which kappa1 needs anyway, moves that away: degree 11 (float32: 5) is exact to rounding.
    """
    centre, half = (1 + np.sqrt(2)) / 2, (np.sqrt(2) - 1) / 2

    def w(t):  # with c = cos(2 phi), sqrt(1 + c) = sqrt(2) cos(phi) and sqrt(1 - c) = sqrt(2) sin(phi)
        root = centre + half * t
        return 2 * np.arctan2(np.sqrt(2 - root**2), root) / np.sqrt(2 - root**2)

    chebyshev = np.polynomial.chebyshev.chebinterpolate(w, 11 if precision == "float64" else 5)
    powers = np.polynomial.chebyshev.cheb2poly(chebyshev) / half ** np.arange(len(chebyshev))
    return tuple(np.dtype(precision).type(value) for value in (centre, *powers[::-1]))


# ---- on CPUs: Numba, every plane through all layers of its stage in the cache ----


class NumbaConvolution:
    """The convolutional recursion on all cores of a CPU.

    images [m, h, w] in the precision to compute in, `layers` a stage. own_a, own_b [m]: the pooled A and B of
    every image with itself. Called with index arrays (rows, columns) it returns those of the pairs; a pair gets
    the same bits whatever its block and thread.
    """

    lanes = 16  # pairs side by side: whole vectors of 64 bytes, and a plane still fits into the L2 cache

    def __init__(self, images, layers):
        m, h, w = images.shape
        self.images, self.layers = np.ascontiguousarray(images), layers
        precision = images.dtype.type
        one_ninth = [precision(value) for value in (2, 1, 1 / 8, 1 / (8 * np.pi))]
        tiny = precision(correlation_one * np.finfo(precision).eps)
        self.constants = (*one_ninth, tiny, *arccos_polynomial(images.dtype.name))
        # Of every image, at the start of each stage; those of the second and third come out of the own pass.
        self.variances = tuple(np.zeros((m, h >> stage, w >> stage)) for stage in range(3))
        self.variances[0][:] = images.astype(np.float64) ** 2
        self.pairs_at_once = 4 * self.lanes * numba.get_num_threads()
        self.own_a, self.own_b = self(np.arange(m), np.arange(m), own=True)

    def __call__(self, rows, columns, own=False):
        blocks = -(-len(rows) // self.lanes)  # the last one is filled up with its last pair
        lanes = np.arange(blocks * self.lanes).clip(max=len(rows) - 1).reshape(blocks, self.lanes)
        pairs = np.stack([rows[lanes], columns[lanes]], axis=1)
        a, b = numba_blocks(self.images, self.variances, pairs, self.layers, own, self.constants)
        return a.ravel()[: len(rows)], b.ravel()[: len(rows)]


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
    """One block of lanes through the three stages: pair [2, lanes] -> a, b [lanes]; with `own` also variances."""
    lanes = pair.shape[1]
    x1, x2 = gather_lanes(images, pair[0]), gather_lanes(images, pair[1])
    h, w = images.shape[1:]
    state = np.zeros((2, 1, 1, h + 1, w * lanes), images.dtype)
    for stage in range(4):  # the fourth: the second of the two poolings at the end, without layers
        size = (h >> stage, w >> stage)
        # Planes of this stage and of the next, [2 (A, B), displacements, 1 + rows, columns * lanes] each.
        reach = (min((16 >> stage) - 1, size[0] - 1), min((16 >> stage) - 1, size[1] - 1))
        bound = (min((8 >> stage) - 1, size[0] // 2 - 1), min((8 >> stage) - 1, size[1] // 2 - 1))
        pooled = np.zeros(
            (2, 2 * bound[0] + 1, 2 * bound[1] + 1, size[0] // 2 + 1, size[1] // 2 * lanes), images.dtype
        )
        depth = layers if stage < 3 else 0
        if depth and stage and own:
            for lane in range(lanes):
                for y in range(size[0]):
                    for x in range(size[1]):
                        v = state[0, reach[0], reach[1], y + 1, x * lanes + lane]
                        variances[stage][pair[0, lane], y, x] = v
        s1, inverse1 = deviations(gather_lanes(variances[min(stage, 2)], pair[0]), depth, lanes, images.dtype)
        s2, inverse2 = deviations(gather_lanes(variances[min(stage, 2)], pair[1]), depth, lanes, images.dtype)
        for dy in range(-reach[0], reach[0] + 1):
            for dx in range(-reach[1], reach[1] + 1):
                p = (max(0, -dy), max(0, -dx) * lanes)  # the plane's first pixel in the first image
                q = (max(0, dy), max(0, dx) * lanes)  # and in the second
                if stage == 0:
                    plane_a, plane_b = state[0, 0, 0], state[1, 0, 0]
                    for y in range(h - abs(dy)):
                        for i in range((w - abs(dx)) * lanes):
                            product = x1[p[0] + y, p[1] + i] * x2[q[0] + y, q[1] + i]
                            plane_a[y + 1, i] = plane_b[y + 1, i] = product
                else:
                    plane_a, plane_b = state[0, dy + reach[0], dx + reach[1]], state[1, dy + reach[0], dx + reach[1]]
                # 1/s = 0 makes 1 - c = 0: an image with itself has correlation exactly 1 at d = 0.
                exact = np.zeros_like(inverse1) if own and dy == 0 and dx == 0 else inverse1
                numba_plane(plane_a, plane_b, (dy, dx), p, q, size, lanes, depth, s1, exact, s2, inverse2, constants,
                            pooled, bound)  # fmt: skip
        state = pooled
    a[:] = state[0, 0, 0, 1]
    b[:] = state[1, 0, 0, 1]


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
    v[1:] = variance
    s, inverse = np.empty((layers, h, n), dtype), np.empty((layers, h, n), dtype)
    row, last = np.zeros(n + 2 * lanes), np.empty(n)
    for layer in range(layers):
        last[:] = 0
        for y in range(h):
            row[lanes : lanes + n] = v[y + 1] if layer == 0 else v[y + 1] / 8
            box_row(row, last, v, y, n, lanes)
        for y in range(h):
            for i in range(n):
                deviation = math.sqrt(v[y + 1, i])
                s[layer, y, i] = deviation
                inverse[layer, y, i] = 1 / deviation if deviation > 0 else 0.0
    return s, inverse


@numba.njit(cache=True)
def numba_plane(A, B, d, p, q, size, lanes, layers, s1, inverse1, s2, inverse2, constants, pooled, bound):
    """Plane d, in rows 1, 2, ... of A and B, through all layers of a stage and into the next stage's planes.

    One sweep a layer: each row goes through ReLU into a line buffer, whose 3 x 3 box sums replace the row.
    """
    h, n = size[0] - abs(d[0]), (size[1] - abs(d[1])) * lanes
    a, b = np.zeros(n + 2 * lanes, A.dtype), np.zeros(n + 2 * lanes, A.dtype)
    last_a, last_b = np.empty(n, A.dtype), np.empty(n, A.dtype)
    for layer in range(layers + 1):
        last_a[:] = last_b[:] = 0
        for y in range(h):
            if layer == 0:  # the stage starts after a ReLU
                a[lanes : lanes + n], b[lanes : lanes + n] = A[y + 1, :n], B[y + 1, :n]
            else:
                relu_row(A, B, y, n, p, q, layer - 1, s1, inverse1, s2, inverse2, lanes, constants, a, b)
            if layer < layers:
                box_row(a, last_a, A, y, n, lanes)
                box_row(b, last_b, B, y, n, lanes)
            else:
                share = (8 / 9) ** layers / 16  # of an entry in the average; relu_row divides by 8, not 9
                pool_row(a, b, p[0] + y, p[1] // lanes, d, n, size, lanes, pooled, bound, share)


@numba.njit(cache=True, fastmath={"contract", "nsz"}, forceinline=True)
def relu_row(A, B, y, n, p, q, layer, s1, inverse1, s2, inverse2, lanes, constants, a, b):
    """Row y of a plane, box sums, through a ReLU into the buffers a and b.

    Divides by 8, which is exact, instead of 9: every layer makes the state 9/8 too large, the pooling repairs it.
    A rounded 1/9 would let k drift away from the variances, and near c = 1 every digit of e = 1 - |c| counts. With
    w = s s', k = c w:  w kappa1 = max(k, 0) + w sqrt(e) (sqrt(1 + |c|) - |c| W)/pi, small corrections at c = 1.
    """
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

    Pixel p and p + d become p // 2 and (p + d) // 2 along each axis; what lies beyond the cone is left out.
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


class JaxConvolution:
    """The convolutional recursion in JAX on all local devices; called like NumbaConvolution."""

    def __init__(self, images, layers):
        import jax

        devices = jax.local_devices()
        entries = np.prod([len(plane_line(size, cone_bound(size, 0))) for size in images.shape[1:]])
        # A and B, twice as the loop writes what it does not read, and room for what XLA does not fuse.
        memory = (devices[0].memory_stats() or {}).get("bytes_limit", 2**29)
        lanes = int(np.clip(memory // (12 * entries * images.dtype.itemsize), 1, 512))
        self.pairs_at_once = (1 << lanes.bit_length() - 1) * len(devices)
        self.images, self.layers = np.moveaxis(images, 0, -1), layers
        self.variances = None
        everyone = np.arange(len(images))
        self.own_a, self.own_b, *later = self(everyone, everyone)
        self.variances = [self.images**2, *later]

    def __call__(self, rows, columns):
        own = self.variances is None
        run = jax_cone(*self.images.shape[:2], self.images.dtype.name, own)
        results = []
        for start in range(0, len(rows), self.pairs_at_once):
            block = np.arange(start, start + self.pairs_at_once).clip(max=len(rows) - 1)
            i, j = rows[block], columns[block]
            variances = () if own else [(v[..., i], v[..., j]) for v in self.variances]
            with double_precision():
                found = run(self.images[..., i], self.images[..., j], variances, self.layers)
            results.append([np.asarray(array) for array in found])
        return [np.concatenate(arrays, axis=-1)[..., : len(rows)] for arrays in zip(*results, strict=True)]


GAP = (-1, -1)  # between planes; index -1 finds the row of zeros appended to an image


def plane_line(size, bound):
    """Pixel pairs (p, q) along one axis of the planes d = q - p = -bound ... bound, a GAP after each.

    The outer product of the lines of both axes is one picture that holds a stage's whole cone, and box is an
    ordinary 3x3 box filter on it: the gaps, kept at zero, keep the planes apart.
    """
    line = []
    for d in range(-bound, bound + 1):
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
    """The compiled pass of a block of pairs through the three stages, the pairs shared out to all devices.

    Takes x, x' [h, w, pairs], the variances at the start of each stage, (v, v') thrice, and the layers a stage, a
    run-time number. Returns pooled A and B [pairs]. With `own`, x = x': the variances are taken from the state
    itself, and those of the second and third stage are returned too.
    """
    import jax
    import jax.numpy as jnp

    centre, *polynomial = arccos_polynomial(precision)
    lines = [[plane_line(s >> stage, cone_bound(s, stage)) for s in (height, width)] for stage in range(3)]
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
            c = box(a) / 9 * jnp.where(s > 0, 1 / s, 0)
            e = 1 - jnp.abs(c)
            e = jnp.where(identical | (e < correlation_one * jnp.finfo(e.dtype).eps), 0, e)
            root = jnp.sqrt(2 - e)
            angle = polynomial[0]
            for coefficient in polynomial[1:]:
                angle = angle * (root - centre) + coefficient
            angle = jnp.sqrt(e) * angle / np.pi
            kappa0 = jnp.where(c < 0, angle, 1 - angle)
            kappa1 = jnp.sqrt(e) * root / np.pi + jnp.where(identical, 1, c) * kappa0
            a = s * kappa1
            return a, jnp.where(s > 0, kappa0 * box(b) / 9, 0) + a, v1, v2

        a, b, *_ = jax.lax.fori_loop(0, layers, layer, (a, b, v1, v2))
        return pool(a, stage), pool(b, stage)

    def cone(x1, x2, variances, layers):
        a = b = look_up(x1, 0, 0) * look_up(x2, 0, 1)
        found = []
        for stage in range(3):
            if own:
                y, x = (line.index((0, 0)) for line in lines[stage])  # where the plane d = 0 begins
                found.append(a[y : y + (height >> stage), x : x + (width >> stage)])
            v1, v2 = (found[-1],) * 2 if own else variances[stage]
            a, b = run_stage(a, b, v1, v2, stage, layers)
        return a[0, 0], b[0, 0], *found[1:]

    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("pairs",))
    shared, by_pair = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(None, None, "pairs")
    numbers = jax.sharding.PartitionSpec("pairs")
    outputs = (numbers, numbers, *[by_pair] * (2 * own))
    return jax.jit(jax.shard_map(cone, mesh=mesh, in_specs=(by_pair,) * 3 + (shared,), out_specs=outputs))


# --------------------------------------------------------------------------------------------------------------
# Approximations of the kernel matrix that a quantum computer inverts in O(log n)
# --------------------------------------------------------------------------------------------------------------
#
# Kernel matrices K [n, n] list the n/2 images of the first class, then those of the second.


def sparsity_pattern(n, rng):
    """Random symmetric pattern of O(log n) entries a row, bool [n, n], n even.

    Each row draws Binomial(n, p) columns, p = min(2 ln(n)/n, 1), with replacement as the original
    does; the lower triangle is mirrored, entries between the classes dropped, the diagonal set.
    """
    counts = rng.binomial(n, min(2 * np.log(n) / n, 1), size=n)
    pattern = np.zeros((n, n), dtype=bool)
    pattern[np.repeat(np.arange(n), counts), rng.integers(n, size=counts.sum())] = True
    pattern = np.tril(pattern)
    pattern |= pattern.T
    pattern &= same_class(n)
    np.fill_diagonal(pattern, True)
    return pattern


def same_class(n):
    """Whether images i and j are of one class, bool [n, n]."""
    first = np.arange(n) < n // 2
    return first[:, None] == first


def sparsify_unbiased(kernel, pattern):
    """K~ = K o pattern, of the fully-connected network. [n, n]"""
    return kernel * pattern


def sparsify_biased(kernel, pattern, thresholds):
    """K~ of the convolutional network [n, n]: K o pattern, small entries dropped, diagonal enlarged.

    Off-diagonal entries survive where |K| is above their class's one of the two `thresholds`; the
    diagonal grows by 0.76 ln(n)^0.9 times itself.
    """
    n = len(kernel)
    threshold = np.repeat(thresholds, [n // 2, n - n // 2])
    factor, power = diagonal_boost
    sparsified = kernel * (pattern & (np.abs(kernel) > threshold[:, None]))
    np.fill_diagonal(sparsified, np.diag(kernel) * (1 + factor * np.log(n) ** power))
    return sparsified


def class_thresholds(kernel, percentile=90):
    """The percentile of |K| inside each class's block, off the diagonal; two numbers.

    As the original takes it, over the whole matrix with zeros outside the block, the 90th percentile
    keeps about 46 % of the block's entries at n = 16.
    """
    n = len(kernel)
    thresholds = []
    for block in (slice(0, n // 2), slice(n // 2, n)):
        inside = np.zeros((n, n))
        inside[block, block] = np.abs(kernel[block, block])
        np.fill_diagonal(inside, 0)
        thresholds.append(np.percentile(inside, percentile))
    return tuple(thresholds)


# --------------------------------------------------------------------------------------------------------------
# Quantities that the paper claims to stay O(log n)
# --------------------------------------------------------------------------------------------------------------


def sparsity(matrix):
    """Largest number of non-zero entries in a column."""
    return np.count_nonzero(matrix, axis=0).max()


def condition_number(matrix):
    """Largest over smallest |eigenvalue| of a symmetric matrix; inf if it is singular."""
    magnitudes = np.abs(scipy.linalg.eigvalsh(matrix))
    return magnitudes.max() / magnitudes.min() if magnitudes.min() > 0 else np.inf


def solve(matrix, y):
    """matrix^-1 y of a symmetric matrix [n, n], scaled to unit norm; NaN if it is singular. [n]"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # the condition number tells
            weights = scipy.linalg.solve(matrix, y, assume_a="sym")
    except scipy.linalg.LinAlgError:
        return np.full(len(y), np.nan)
    return weights / np.linalg.norm(weights)


def accuracy(outputs, label):
    """Share of test images classified rightly by sign(output - median of the outputs)."""
    if not np.isfinite(outputs).all():
        return np.nan
    return np.mean(np.where(outputs > np.median(outputs), 1, -1) == label)


def post_selection_measurements(kernel_test_normalized):
    """Measurements to prepare |k*>, n/P with P = sum_i k_i^2, of every test image. [test]

    The original divides k* once more, by the largest entry of the whole test block [test, n].
    """
    k = kernel_test_normalized / np.abs(kernel_test_normalized).max()
    return k.shape[1] / np.sum(k**2, axis=1)


def readout_measurements(kernel_test_normalized, weights):
    """Measurements to read out <k*|w>, 1/o^2 - 1 with both normalised, of every test image. [test]"""
    norms = np.linalg.norm(kernel_test_normalized, axis=1) * np.linalg.norm(weights)
    overlap = kernel_test_normalized @ weights / norms
    return 1 / overlap**2 - 1


def trial_quantities(network, kernels, patterns, thresholds):
    """Everything the paper plots, of one trial's kernels. Names as in `results_shapes`."""
    kernel, y = kernels["kernel_train"], kernels["train_label"]
    test, normalized, test_label = (
        kernels[k] for k in ("kernel_test", "kernel_test_normalized", "test_label")
    )
    found = {
        "condition_number_exact": condition_number(kernel),
        "accuracy_exact": accuracy(test @ solve(kernel, y), test_label),
        "accuracy_diagonal": accuracy(normalized @ (y / np.diag(kernel)), test_label),
        "post_selection_measurements": post_selection_measurements(normalized),
        "readout_measurements_diagonal": readout_measurements(normalized, y),
    }
    for pattern in patterns:
        if network == "fully-connected":
            sparsified = sparsify_unbiased(kernel, pattern)
        else:
            sparsified = sparsify_biased(kernel, pattern, thresholds)
        weights = solve(sparsified, y)
        for name, value in {
            "sparsity": sparsity(sparsified),
            "condition_number": condition_number(sparsified),
            "accuracy_sparse": accuracy(normalized @ weights, test_label),
            "readout_measurements_sparse": readout_measurements(normalized, weights),
        }.items():
            found.setdefault(name, []).append(value)
    return found


def results_shapes(sizes, most_trials, test_images):
    """Shapes of the arrays of `{prefix}_results.npz` that hold a value per trial."""
    s, t, p, x = sizes, most_trials, sparsity_patterns, test_images
    return {
        "depth": (s, t),
        "separability": (s, t),
        "pattern_sparsity": (s, pattern_draws),
        "sparsity": (s, t, p),
        "condition_number": (s, t, p),
        "condition_number_exact": (s, t),
        "accuracy_exact": (s, t),
        "accuracy_sparse": (s, t, p),
        "accuracy_diagonal": (s, t),
        "post_selection_measurements": (s, t, x),
        "readout_measurements_sparse": (s, t, p, x),
        "readout_measurements_diagonal": (s, t, x),
    }


# --------------------------------------------------------------------------------------------------------------
# Running: trials, files, results
# --------------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    """What a run computes: the constants after the command line's overrides."""

    seed: int
    test_size: int
    data_sizes: list
    trials: dict  # network -> trials of each size
    output: Path
    engine: str
    precision: str
    data: dict = field(repr=False)

    def prefix(self, network):
        """Start of every file name; anything but MNIST says so."""
        return network if self.data["name"] == "mnist" else f"{self.data['name']}-{network}"

    def file(self, network, size, trial, name):
        """Path of one array of one trial."""
        stem = f"{self.prefix(network)}_seed{self.seed}_data{size}_trial{trial}"
        return self.output / f"{stem}_{name}.npy"


def save(path, write):
    """Call write(file) on a temporary file and rename it: `path` exists complete or not at all."""
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save_array(path, array):
    """Save one .npy file, complete or not at all."""
    save(path, lambda file: np.save(file, array))


def load_array(path, shape):
    """The array at `path`, or None where there is none; one that is no [shape] of numbers is named."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError):
        array = None
    if array is None or array.shape != shape or not np.isfinite(array).all():
        print(f"note: {path} is unreadable or not finite numbers {list(shape)}; computing it again")
        return None
    return array


def trial_images(settings, network, size, trial):
    """(train images, train labels, test images, test labels) of one trial."""
    draws = []
    for split, count in (("train", size), ("test", settings.test_size)):
        rng = random_generator(settings.seed, network, size, trial, split)
        flatten = network == "fully-connected"
        chunk = settings.data[split]
        draws += process_data(chunk, selections[network], count // 2, flatten, rng)
    return draws


def trial_kernels(settings, network, size, trial, k_thresh, progress=lambda pairs: None):
    """One trial's labels and kernels, read from disk or computed and saved, with depth and delta.

    k_thresh: what kernel_test is divided by; None: kernel_test and what follows from it is left out
    (for the reference trial, which k_thresh itself comes from).
    """
    train, train_label, test, test_label = trial_images(settings, network, size, trial)
    delta = separability(train)
    found = {"train_label": train_label, "test_label": test_label, "separability": delta}
    wanted = {"kernel_train": (size, size), "kernel_test": (len(test), size)}
    if k_thresh is None and network == "convolutional":
        del wanted["kernel_test"]
    for name, shape in wanted.items():
        found[name] = load_array(settings.file(network, size, trial, name), shape)
    missing = [name for name in wanted if found[name] is None]
    if network == "fully-connected":
        depth = fully_connected_depth(size, delta)
        for name in missing:
            x2 = None if name == "kernel_train" else train
            x1 = train if name == "kernel_train" else test
            found[name] = fully_connected_ntk(x1, x2, depth=depth, engine=settings.engine)
        k_thresh = fully_connected_threshold(train.shape[1], depth)
    else:
        depth = convolutional_depth
        images = np.concatenate([train, test]) if "kernel_test" in missing else train
        columns = {"kernel_train": range(size), "kernel_test": range(size, size + len(test))}
        grams = {
            name: Gram(np.full((size, len(columns[name])), np.nan), range(size), columns[name])
            for name in missing
        }
        if grams:
            convolutional_grams(
                images, list(grams.values()), depth=depth, engine=settings.engine,
                precision=settings.precision, progress=progress,
            )  # fmt: skip
        for name, gram in grams.items():
            found[name] = gram.kernel if name == "kernel_train" else np.ascontiguousarray(gram.kernel.T)
    for name in missing:
        save_array(settings.file(network, size, trial, name), found[name])
    if "kernel_test" in wanted:
        found["kernel_test_normalized"] = np.clip(found["kernel_test"] / k_thresh, -1, 1)
    for name in ("train_label", "test_label", "kernel_test_normalized"):
        path = settings.file(network, size, trial, name)
        if name in found and (name == "kernel_test_normalized" and missing or not path.exists()):
            save_array(path, found[name])
    return found | {"depth": depth}


def fully_connected_threshold(dimension, depth):
    """k_thresh = k(1 - 1e-5): the NTK of two unit vectors with that inner product, at `depth`."""
    x1 = np.zeros((1, dimension))
    x1[0, 0] = 1
    x2 = np.zeros((1, dimension))
    x2[0, :2] = 1 - k_thresh_margin, np.sqrt(1 - (1 - k_thresh_margin) ** 2)
    return fully_connected_ntk(x1, x2, depth=depth)[0, 0]


def run_network(settings, network):
    """Compute every trial of one network, and write its results file. Returns seconds per part."""
    progress = tqdm(
        total=planned_pairs(settings, network), unit=" pairs", unit_scale=True, desc=network,
        disable=None, smoothing=0.1,
    )  # fmt: skip
    seconds = dict.fromkeys(("kernels", "quantities"), 0.0)
    counts = settings.trials[network]
    k_thresh, thresholds = None, None
    clock = time.perf_counter()
    if network == "convolutional" and any(counts):
        reference = trial_kernels(settings, network, reference_size, 0, None, progress.update)
        kernel = reference["kernel_train"]
        k_thresh = np.abs(kernel - np.diag(np.diag(kernel))).max()
        thresholds = class_thresholds(kernel, percentile)
    shapes = results_shapes(len(settings.data_sizes), max(counts), settings.test_size)
    results = {name: np.full(shape, np.nan) for name, shape in shapes.items()}
    for s, (size, count) in enumerate(zip(settings.data_sizes, counts, strict=True)):
        draw = functools.partial(random_generator, settings.seed, network, size)
        for i in range(pattern_draws):
            results["pattern_sparsity"][s, i] = sparsity(sparsity_pattern(size, draw(i, "sparsity")))
        for trial in range(count):
            kernels = trial_kernels(settings, network, size, trial, k_thresh, progress.update)
            seconds["kernels"] += time.perf_counter() - clock
            clock = time.perf_counter()
            patterns = [
                sparsity_pattern(size, draw(trial, f"pattern {i}")) for i in range(sparsity_patterns)
            ]
            found = trial_quantities(network, kernels, patterns, thresholds)
            for name in results:
                if name != "pattern_sparsity":
                    results[name][s, trial] = found[name] if name in found else kernels[name]
            seconds["quantities"] += time.perf_counter() - clock
            clock = time.perf_counter()
    progress.close()
    results = {"data_sizes": settings.data_sizes, "trials": counts} | results
    path = settings.output / f"{settings.prefix(network)}_results.npz"
    save(path, lambda file: np.savez(file, **results))
    return seconds


def planned_pairs(settings, network):
    """Pairs of images whose kernel the plan evaluates, an image's pair with itself included."""
    counts = settings.trials[network]
    return sum(
        count * (n * (n + 1) // 2 + n * settings.test_size)
        for n, count in zip(settings.data_sizes, counts, strict=True)
    )


# --------------------------------------------------------------------------------------------------------------
# Command line
# --------------------------------------------------------------------------------------------------------------


def parse_arguments(argv):
    """The command line, checked as far as it can be without the data; errors end with status 2."""
    parser = argparse.ArgumentParser(
        description="Kernels, approximations and measurement counts of arXiv:2107.09200.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--networks", nargs="+", choices=networks, default=networks, metavar="NETWORK",
        help="which of " + " and ".join(networks))
    add("--data-sizes", nargs="+", type=int, default=data_sizes, metavar="N",
        help="numbers of training images, even")
    add("--trials", nargs="+", type=int, metavar="T", default=argparse.SUPPRESS,
        help="trials of each size, 0 skips it (default: the constant `trials`, "
        f"{trials}; convolutional without an accelerator at most {trials_without_accelerator})")
    add("--test-size", type=int, default=test_size, metavar="X", help="test images of a trial, even")
    add("--seed", type=int, default=seed, help="seed of every random draw, 0 or more")
    add("--output", type=Path, default=Path("kernel_output"), metavar="DIR",
        help="folder to write to, and to go on from")
    add("--dataset", choices=("auto", "mnist", "digits"), default="auto",
        help="MNIST, scikit-learn's small digits, or digits only where MNIST can't be had")
    add("--mnist-dir", type=Path, metavar="DIR", default=os.environ.get("MNIST_DIR"),
        help="folder of MNIST's four IDX files, instead of TensorFlow Datasets; also MNIST_DIR")
    add("--engine", choices=engines, default="auto",
        help="what evaluates the kernels; neural-tangents is the slow cross-check")
    add("--precision", choices=("float64", "float32"), default="float64",
        help="of the convolutional kernels")  # fmt: skip
    args = parser.parse_args(argv)

    sizes = args.data_sizes
    for n in sizes:
        if n < 2 or n % 2:
            parser.error(f"--data-sizes {n}: use even numbers, 2 or more")
    if len(set(sizes)) < len(sizes):
        parser.error(f"--data-sizes {' '.join(map(str, sizes))}: give each size once")
    if args.test_size < 2 or args.test_size % 2:
        parser.error(f"--test-size {args.test_size}: use an even number, 2 or more")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: use 0 or more")
    explicit = "trials" in args
    if not explicit:
        known = dict(zip(data_sizes, trials, strict=True))
        unknown = [n for n in sizes if n not in known]
        if unknown:
            parser.error(f"--data-sizes {unknown[0]}: not in the constant data_sizes; give --trials too")
        args.trials = [known[n] for n in sizes]
    if len(args.trials) != len(sizes) or min(args.trials) < 0 or max(args.trials) == 0:
        parser.error(f"--trials {' '.join(map(str, args.trials))}: use one number, 0 or more, for each "
                     f"of the {len(sizes)} sizes, and not only zeros")  # fmt: skip
    args.limit_convolutional = not explicit
    return args


def plan(args, data):
    """The run's Settings: what the data can fill and, without an accelerator, what it can finish."""
    available = {
        split: min(np.sum(data[split]["label"] == d) for n in args.networks for d in selections[n])
        for split in ("train", "test")
    }
    test = min(args.test_size, 2 * int(available["test"]))
    if test < args.test_size:
        print(f"note: {data['name']} fills {test} test images, not {args.test_size}")
    counts = {}
    for network in args.networks:
        counts[network] = list(args.trials)
        if network == "convolutional" and args.limit_convolutional and not has_accelerator():
            limits = dict(zip(data_sizes, trials_without_accelerator, strict=False))
            counts[network] = [
                min(t, limits.get(n, 0)) for n, t in zip(args.data_sizes, args.trials, strict=True)
            ]
            print("note: no accelerator, so the convolutional network takes "
                  "`trials_without_accelerator`; --trials overrides")  # fmt: skip
        for s, n in enumerate(args.data_sizes):
            if n > 2 * available["train"] and counts[network][s]:
                print(f"note: {data['name']} has no {n} training images of two digits; {n} is skipped")
                counts[network][s] = 0
    return Settings(
        args.seed, test, args.data_sizes, counts, args.output, args.engine, args.precision, data
    )


def describe_device():
    """The accelerators, or the processor and its number of cores."""
    import jax

    if has_accelerator():
        return f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}"
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, IndexError):
        model = Path("/proc/cpuinfo").read_text().split("model name")[1].split("\n")[0].strip("\t :")
    return f"CPU, {model}, {os.cpu_count()} cores"


def run(args):
    """One run: data, plan, both networks, run.json. Raises BadInput."""
    clock = time.perf_counter()
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--output {args.output}: {error.strerror}; name a folder") from error
    data = load_data(args.dataset, args.mnist_dir)
    data |= {split: canonical_order(data[split]) for split in ("train", "test")}
    seconds = {"data": time.perf_counter() - clock}
    stand_in = "THESE ARE SCIKIT-LEARN'S 8x8 DIGITS, NOT MNIST. Files start with digits-."
    if data["name"] != "mnist":
        print(stand_in)
    settings = plan(args, data)
    engine = choose_engine(args.engine)
    print(f"dataset {data['name']}, {settings.test_size} test images; {describe_device()}; "
          f"engine {engine}, {args.precision}; output {args.output}/")  # fmt: skip
    for network in args.networks:
        print(f"{network}: {planned_pairs(settings, network):,} pairs of images, trials "
              + ", ".join(f"{t} x {n}" for n, t in zip(args.data_sizes, settings.trials[network])))  # fmt: skip # noqa: B905
    for network in args.networks:
        seconds[network] = run_network(settings, network)
        print(f"wrote {settings.output / settings.prefix(network)}_results.npz")
    packages = ("numpy", "scipy", "jax", "jaxlib", "neural-tangents")
    record = {
        "constants": {"seed": args.seed, "test_size": settings.test_size,
                      "data_sizes": args.data_sizes, "trials": settings.trials},
        "dataset": data["name"], "device": describe_device(), "engine": engine,
        "precision": args.precision, "seconds": seconds,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
    }  # fmt: skip
    record["seconds"]["total"] = time.perf_counter() - clock
    save(settings.output / "run.json", lambda f: f.write((json.dumps(record, indent=2) + "\n").encode()))
    print(f"done in {record['seconds']['total']:.0f} s")
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
