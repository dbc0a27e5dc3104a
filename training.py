"""Kernels of "A quantum algorithm for training wide and deep classical neural networks".

Reproduces the experiment of A. Zlokapa, H. Neven and S. Lloyd (arXiv:2107.09200, 2021). Training
an infinitely wide network by gradient descent is kernel regression with its neural tangent kernel
(NTK), prediction(x*) = sign(k*^T K^-1 y). Replace K by a matrix that a quantum computer can invert
in O(log n), sparsified or diagonal; the accuracy should stay, and the sparsity, the condition number
and the numbers of measurements should grow no faster than log n.

    python training.py                                  # both networks, the constants below
    python training.py --networks fully-connected       # seconds
    python training.py --mnist-dir DIR                  # the four IDX files, without TensorFlow
    python training.py --data-sizes 16 32 --trials 2 1  # other sizes, other numbers of trials
    python training.py --help                           # everything else

Writes into kernel_output/, for every trial t of every training-set size N,
`{prefix}_seed{seed}_data{N}_trial{t}_{train_label|test_label|kernel_train|kernel_test|
kernel_test_normalized}.npy`, then `{prefix}_results.npz` per network and `run.json`. Kernels that are
already there are not computed again, so that a run that was interrupted goes on. analysis.ipynb
draws the results. README.md says how long it takes where.
"""

import argparse
import contextlib
import functools
import gzip
import hashlib
import importlib.metadata
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.request
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.linalg
from tqdm import tqdm

# JAX, Numba, neural-tangents, scikit-learn and TensorFlow are imported by the functions that need
# them: `--help`, a wrong option and a run whose kernels are all on disk should not wait for them.

# --------------------------------------------------------------------------------------------------
# Constants: the original's names and values. Edit them here, or override them by flags.
# --------------------------------------------------------------------------------------------------

seed = 0
test_size = 256  # test images of a trial, half of each class
data_sizes = [16, 32, 64, 128, 256, 512]  # training images of a trial, half of each class
trials = [16, 8, 4, 4, 4, 4]  # trials of each size, for both networks where JAX finds an accelerator
# On a CPU the convolutional network takes the smaller of this and `trials`, size by size.
trials_without_accelerator = [2, 1, 0, 0, 0, 0]

sparsity_patterns = 3  # random sparsity patterns tried on each trial's kernel
pattern_draws = 100  # patterns drawn per size to plot their sparsity alone

selections = {"fully-connected": (8, 9), "convolutional": (1, 0)}  # digits; the second one is +1
depth_factor = 0.1  # depth of the fully-connected network in units of L_conv
convolutional_depth = 96  # convolutions of the convolutional network, a third before each pooling
k_thresh_margin = 1e-5  # fully connected: k_thresh is the NTK at inner product 1 - margin
reference_size = 16  # convolutional: its first trial gives k_thresh and the sparsifying thresholds
percentile = 90  # of |K| inside a class, for the sparsifying thresholds
diagonal_boost = (0.76, 0.9)  # convolutional: adds 0.76 ln(n)^0.9 of the diagonal to the diagonal

# W_std^2 of the fully-connected network, 1/E[erf(z)^2] with z ~ N(0, 1), makes erf normalised; mu is
# the coefficient of nonlinearity 1 - E[z sigma(z)]^2 of the normalised sigma. Both in closed form.
erf_scale = 1 / (2 / np.pi * np.arcsin(2 / 3))
nonlinearity = 1 - (2 / 3) / np.arcsin(2 / 3)

networks = tuple(selections)
MNIST_FILES = {  # SHA-256 sums as TensorFlow Datasets registers them for mnist:3.*.*
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz"


class BadInput(ValueError):
    """An input that names itself, its value and the remedy; `main` prints it as one line."""


def random_generator(seed, network, size, trial, purpose):
    """The generator of one draw, independent of every other draw that a run makes.

    Seeding by what the draw is for, not by what was drawn before, makes a trial the same whichever
    other trials, sizes or networks run beside it.
    """
    return np.random.default_rng(
        [seed, zlib.crc32(network.encode()), size, trial, zlib.crc32(purpose.encode())]
    )


# --------------------------------------------------------------------------------------------------
# Data
# --------------------------------------------------------------------------------------------------


def load_data(dataset="auto", mnist_dir=None):
    """Load the images and labels that trials are drawn from.

    dataset: "mnist" (from `mnist_dir`, else the environment variable MNIST_DIR, else TensorFlow
    Datasets), "digits" (scikit-learn's embedded 8x8 digits, enlarged) or "auto": MNIST, and digits
    where MNIST can't be had.

    Returns {"train": {"image": uint8 [n, 28, 28, 1], "label": int [n]}, "test": the same,
    "name": "mnist" or "digits"}. Raises BadInput, a ValueError, for an unknown dataset, for an MNIST
    folder that is incomplete or corrupted, and for MNIST that can't be had.
    """
    if dataset not in ("auto", "mnist", "digits"):
        raise BadInput(f"--dataset {dataset}: unknown; use auto, mnist or digits")
    if dataset == "digits":
        return load_digits()
    mnist_dir = mnist_dir or os.environ.get("MNIST_DIR")
    if mnist_dir:
        return load_mnist_files(Path(mnist_dir))
    try:
        return load_mnist_tfds()
    except ConnectionError as error:
        if dataset == "mnist":
            raise BadInput(
                f"--dataset mnist: {error}; give --mnist-dir a folder with the four IDX files"
            ) from error
        print(f"MNIST is not to be had: {error}", file=sys.stderr)
        return load_digits()


def load_mnist_files(folder):
    """Read the four gzipped IDX files of MNIST from `folder`, checked against their SHA-256 sums."""
    contents = {}
    for name, checksum in MNIST_FILES.items():
        path = folder / name
        try:
            compressed = path.read_bytes()
        except OSError as error:
            raise BadInput(
                f"--mnist-dir {folder}: can't read {name} ({error.strerror}); it must hold "
                + ", ".join(MNIST_FILES)
            ) from error
        if hashlib.sha256(compressed).hexdigest() != checksum:
            raise BadInput(
                f"--mnist-dir {folder}: {name} is corrupted ({len(compressed)} bytes, its SHA-256 sum "
                f"is not {checksum[:8]}...); download it again"
            )
        contents[name] = gzip.decompress(compressed)

    def array(name):  # IDX: two zero bytes, type, rank, big-endian sizes, then the bytes
        rank = contents[name][3]
        shape = struct.unpack(f">{rank}I", contents[name][4 : 4 + 4 * rank])
        return np.frombuffer(contents[name], np.uint8, offset=4 + 4 * rank).reshape(shape)

    def split(prefix):
        image, label = array(f"{prefix}-images-idx3-ubyte.gz"), array(f"{prefix}-labels-idx1-ubyte.gz")
        return {"image": image[..., None], "label": label.astype(np.int64)}

    return {"train": split("train"), "test": split("t10k"), "name": "mnist"}


def load_mnist_tfds():
    """MNIST from TensorFlow Datasets, downloaded where it is not prepared yet.

    TensorFlow runs in a process of its own that sees no GPU: it would otherwise take the GPU's
    memory from JAX, and its start-up messages can't be silenced from Python. Raises ConnectionError
    where the download can't be reached, tested beforehand because TFDS itself retries for minutes.
    """
    data_dir = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    by_hand = data_dir / "downloads" / "manual"
    prepared = list(data_dir.glob("mnist/3.*/dataset_info.json"))
    if not prepared and not all((by_hand / name).exists() for name in MNIST_FILES):
        check_connection(MNIST_URL)
        print("Downloading MNIST through TensorFlow Datasets ...", file=sys.stderr)
    program = (
        "import sys, numpy, tensorflow_datasets as tfds\n"
        "tfds.disable_progress_bar()\n"
        "data = tfds.as_numpy(tfds.load('mnist:3.*.*', batch_size=-1))\n"
        "arrays = {f'{s}_{k}': data[s][k] for s in ('train', 'test') for k in ('image', 'label')}\n"
        "numpy.savez(sys.argv[1], **arrays)\n"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "mnist.npz")
        result = subprocess.run(
            [sys.executable, "-c", program, file], env=environment, capture_output=True, text=True
        )
        if result.returncode != 0:
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConnectionError(f"TensorFlow Datasets failed: {reason}")
        with np.load(file) as arrays:
            split = {
                name: {
                    "image": arrays[f"{name}_image"],
                    "label": arrays[f"{name}_label"].astype(np.int64),
                }
                for name in ("train", "test")
            }
    return split | {"name": "mnist"}


def check_connection(url, seconds=10):
    """Raise ConnectionError unless `url` answers within `seconds`, name look-up included."""
    outcome = []

    def request():
        try:
            head = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(head, timeout=seconds).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    # A thread, because the system's name look-up heeds no timeout.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(seconds)
    if outcome != [None]:
        reason = getattr(outcome[0], "reason", outcome[0]) if outcome else f"no answer in {seconds} s"
        raise ConnectionError(f"no connection to {urllib.parse.urlsplit(url).hostname} ({reason})")


def load_digits():
    """scikit-learn's handwritten digits, enlarged to MNIST's format and split once, in half."""
    import scipy.ndimage
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    enlarged = scipy.ndimage.zoom(
        digits.images, (1, 3.5, 3.5), order=1, mode="nearest", grid_mode=True
    )
    image = np.round(enlarged * (255 / 16)).astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(image))
    halves = {"train": order[: len(order) // 2], "test": order[len(order) // 2 :]}
    split = {
        name: {"image": image[half], "label": digits.target[half].astype(np.int64)}
        for name, half in halves.items()
    }
    return split | {"name": "digits"}


def canonical_order(data_chunk):
    """The chunk ordered by the images' bytes: IDX files and TFDS list the same images differently."""
    image = np.ascontiguousarray(data_chunk["image"])
    order = np.argsort(image.reshape(len(image), -1).view(f"S{image[0].size}").ravel(), kind="stable")
    return {"image": image[order], "label": data_chunk["label"][order]}


def process_data(data_chunk, selection, class_size, flatten_images, rng):
    """Draw a balanced, standardised subset of two digits.

    data_chunk: {"image": uint8 [m, h, w, 1], "label": int [m]}. Takes `class_size` images of each
    digit in random order (fewer of both, with a note, where one has not that many), first those of
    selection[1] with label +1, then those of selection[0] with label -1. The subset is standardised
    by its own mean and standard deviation, all pixels together, then every image scaled to unit norm.

    Returns (image, label): float64 [n, h * w] if `flatten_images`, else [n, h, w, 1]; ±1 [n].
    """
    available = [np.flatnonzero(data_chunk["label"] == digit) for digit in selection]
    count = min(class_size, *map(len, available))
    if count < class_size:
        print(f"note: only {count} images of each of the digits {selection}, not {class_size}")
    if count < 1:
        raise BadInput(f"no images of the digits {selection} to choose {class_size} of")
    indices = np.concatenate([rng.permutation(available[i])[:count] for i in (1, 0)])
    label = np.repeat([1, -1], count)
    image = data_chunk["image"][indices].astype(np.float64)
    deviation = image.std()
    if deviation == 0:
        raise BadInput(f"the images of the digits {selection} are all of one colour")
    image = (image - image.mean()) / deviation
    image /= np.sqrt(np.sum(image**2, axis=(1, 2, 3), keepdims=True))
    return (image.reshape(len(image), -1) if flatten_images else image), label


def separability(x):
    """delta = min over i != j of 1 - |x_i . x_j|, of unit vectors x [n, d] or images [n, h, w, 1]."""
    x = x.reshape(len(x), -1)
    overlap = np.abs(x @ x.T)
    np.fill_diagonal(overlap, 0)
    return 1 - overlap.max()


def fully_connected_depth(n, delta, factor=depth_factor):
    """round(factor * L_conv), L_conv = 8 ln(n/delta)/mu (arXiv:2107.09200): 36 at n = 16, 83 at 512.

    delta below the precision of float64 (two identical images) counts as that precision.
    """
    return round(factor * 8 * np.log(n / max(delta, np.finfo(float).eps)) / nonlinearity)


# --------------------------------------------------------------------------------------------------
# Devices and engines
# --------------------------------------------------------------------------------------------------

engines = ("auto", "jax", "neural-tangents")


def has_accelerator():
    """Whether JAX finds a GPU or TPU."""
    import jax

    return jax.default_backend() != "cpu"


def choose_engine(engine):
    """The engine that `auto` stands for on this machine; any other name is checked and returned."""
    if engine not in engines:
        raise BadInput(f"--engine {engine}: unknown; use " + ", ".join(engines))
    return "jax" if engine == "auto" else engine


@contextlib.contextmanager
def double_precision():
    """JAX with float64 switched on inside the block, whatever the caller configured."""
    import jax

    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield


def import_neural_tangents():
    """Import neural-tangents 0.6.5 under a JAX that is newer than it, 0.10 to 0.12.

    It asks for names that left `jax.core`, `jax.util` and `jax.interpreters.ad`; its infinite-width
    kernels need none of them to work beyond existing. Its `experimental` package, which only imports
    TensorFlow, is replaced by an empty one.
    """
    import jax
    import jax._src.core
    import jax._src.util
    import jax.core
    import jax.extend.core
    import jax.interpreters.ad

    names = "AbstractValue Jaxpr JaxprEqn Literal Primitive ShapedArray Value Var eval_context"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in names.split():
            if not hasattr(jax.core, name):
                for home in (jax.extend.core, jax._src.core):
                    if hasattr(home, name):
                        setattr(jax.core, name, getattr(home, name))
                        break
        if not hasattr(jax, "util"):
            sys.modules["jax.util"] = jax.util = jax._src.util
        if not hasattr(jax.interpreters.ad, "zeros_like_p"):
            jax.interpreters.ad.zeros_like_p = object()
        name = "neural_tangents.experimental"
        sys.modules.setdefault(name, types.ModuleType(name))
        import neural_tangents
        from neural_tangents import stax
    return neural_tangents, stax


def check_images(x1, x2, rank):
    """The images of both arguments as float64 arrays [n, ...] of one shape; else BadInput."""
    checked = []
    for name, x in (("x1", x1), ("x2", x1 if x2 is None else x2)):
        x = np.asarray(x)
        if x.dtype not in (np.float32, np.float64):
            raise BadInput(f"{name} of dtype {x.dtype}: use float64 or float32")
        if x.ndim != rank or 0 in x.shape:
            expected = "[n, pixels]" if rank == 2 else "[n, height, width, 1]"
            raise BadInput(f"{name} of shape {x.shape}: use {expected}")
        if not np.isfinite(x).all():
            raise BadInput(f"{name} holds NaN or infinite values; remove those images")
        checked.append(x.astype(np.float64))
    if checked[0].shape[1:] != checked[1].shape[1:]:
        raise BadInput(f"x1 and x2 of shapes {x1.shape} and {x2.shape}: use images of one size")
    return checked


# --------------------------------------------------------------------------------------------------
# The NTK of the fully-connected network: depth times (Dense, normalised erf), then Dense(1)
# --------------------------------------------------------------------------------------------------


def fully_connected_ntk(x1, x2=None, *, depth, engine="auto"):
    """NTK of the fully-connected erf network.

    x1 [n1, d], x2 [n2, d] (None: x1 with itself), `depth` hidden layers. Returns float64 [n1, n2].
    Raises BadInput, a ValueError, for another rank or dtype, NaN, and negative depths.

    Closed form (Williams, Neural Computation 10, 1998; Jacot et al., arXiv:1806.07572), with
    s = 1/E[erf^2] and q, q' the two variances:
        K0 = s x.x'/d, Theta0 = K0
        Theta <- s Theta (4/pi) / sqrt((1+2q)(1+2q') - 4K^2)
        K <- s (2/pi) arcsin(2K / sqrt((1+2q)(1+2q'))),  Theta <- K + Theta
    The diagonal has a recursion of its own, K = q = q'. Taken from the matrix, it would be wrong at
    depth 150: the map has slope > 1 at correlation 1, where rounding errors grow with every layer.
    """
    if not isinstance(depth, (int, np.integer)) or depth < 0:
        raise BadInput(f"depth {depth}: use a whole number of layers, 0 or more")
    symmetric = x2 is None
    x1, x2 = check_images(x1, x2, rank=2)
    if choose_engine(engine) == "neural-tangents":
        return oracle_ntk(oracle_fully_connected(int(depth)), x1, None if symmetric else x2)
    q1, diagonal = fully_connected_diagonal(x1, depth)
    q2 = q1 if symmetric else fully_connected_diagonal(x2, depth)[0]
    with double_precision():
        covariance = erf_scale * (x1 @ x2.T) / x1.shape[1]
        theta = np.array(fully_connected_recursion()(covariance, q1[:-1], q2[:-1], depth))
    if symmetric:
        theta = np.tril(theta, -1)
        theta += theta.T + np.diag(diagonal)
    return theta


def fully_connected_diagonal(x, depth):
    """Variances q [depth + 1, n] of every layer and the diagonal of the NTK [n] of x [n, d]."""
    q = [erf_scale * np.sum(x**2, axis=1) / x.shape[1]]
    theta = q[0]
    for _ in range(depth):
        slope = erf_scale * (4 / np.pi) / np.sqrt(1 + 4 * q[-1])
        q.append(erf_scale * (2 / np.pi) * np.arcsin(2 * q[-1] / (1 + 2 * q[-1])))
        theta = q[-1] + slope * theta
    return np.array(q), theta


@functools.cache
def fully_connected_recursion():
    """The compiled recursion (covariance [n1, n2], q1 [depth, n1], q2 [depth, n2], depth) -> NTK."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def recursion(covariance, q1, q2, depth):
        def layer(i, state):
            k, theta = state
            norm = (1 + 2 * q1[i])[:, None] * (1 + 2 * q2[i])
            theta = erf_scale * (4 / np.pi) * theta / jnp.sqrt(norm - 4 * k**2)
            k = erf_scale * (2 / np.pi) * jnp.arcsin(jnp.clip(2 * k / jnp.sqrt(norm), -1, 1))
            return k, k + theta

        return jax.lax.fori_loop(0, depth, layer, (covariance, covariance))[1]

    return recursion


# --------------------------------------------------------------------------------------------------
# The NTK of the convolutional network: three stages of 3x3 convolutions with ReLU, each ended by 2x2
# average pooling, then pooling once more, Dense(2), erf, Dense(1)
# --------------------------------------------------------------------------------------------------
#
# Of a pair of images x, x' the state is, for every pair of pixels (p, q), the covariance A and
# B = A + Theta, both after ReLU. W_std^2 = 2 cancels ReLU's factor 1/2, so that, with
# box(A)[p, q] = sum over the nine offsets o of A[p + o, q + o] (zero outside the image), a layer is
#     K = box(A)/9,  T = box(B)/9,  c = K / (s s'),  s = sqrt(v[p]),  s' = sqrt(v'[q])
#     A <- s s' kappa1(c),  B <- kappa0(c) T + A
#     kappa0 = (pi - arccos c)/pi,  kappa1 = sqrt(1 - c^2)/pi + c kappa0
# (Cho and Saul, NIPS 2009; Arora et al., arXiv:1904.11955). A stage starts from A = B = x x' or from
# the pooled state. The variances obey v <- box(v)/9, and at the next stage v is the diagonal of the
# pooled state of x with itself. Exact, and what makes it fast:
#
# 1. Displacement planes. box couples (p, q) only with equal displacement q - p, so between poolings
#    every plane {(p, p + d)} evolves on its own.
# 2. The cone. Of the third stage only pixels 0 to 3 survive the two poolings, so |d| <= 3 there,
#    <= 7 in the second stage and <= 15 in the first: 961 of 3025 planes.
# 3. Half of the training Gram, and one pass per image over the pair (x, x) for its variances, with
#    c = 1 exactly at d = 0, where arccos would lose half of the digits.


def convolutional_ntk(x1, x2=None, *, depth=96, engine="auto", precision="float64"):
    """NTK of the convolutional network.

    x1 [n1, h, w, 1], x2 [n2, h, w, 1] (None: x1 with itself, half computed), 16 <= h, w <= 31, so
    that four poolings leave one pixel; `depth` convolutions, a third of them before each of the
    first three poolings. Returns float64 [n1, n2], computed in `precision`.
    Raises BadInput, a ValueError, for another shape or dtype, NaN, unknown names and other depths.
    """
    symmetric = x2 is None
    x1, x2 = check_images(x1, x2, rank=4)
    n1 = len(x1)
    if symmetric:
        gram = Gram(np.full((n1, n1), np.nan), range(n1), range(n1))
        images = x1
    else:
        gram = Gram(np.full((n1, len(x2)), np.nan), range(n1), range(n1, n1 + len(x2)))
        images = np.concatenate([x1, x2])
    convolutional_grams(images, [gram], depth=depth, engine=engine, precision=precision)
    return gram.kernel


@dataclass
class Gram:
    """A Gram matrix to fill: kernel[i, j] belongs to images rows[i] and columns[j] of one list.

    kernel: float64 [len(rows), len(columns)], NaN where it is still to be computed. With rows ==
    columns it is symmetric, and each pair is computed once.
    """

    kernel: np.ndarray
    rows: range
    columns: range

    def pending(self):
        """Index arrays (i, j) of the entries to compute, without the diagonal of a symmetric one."""
        missing = np.isnan(self.kernel)
        n = len(self.rows)
        if self.rows == self.columns:
            # Row i takes the n/2 columns after it, cyclically: every row has the same share.
            offset = (np.arange(n) - np.arange(n)[:, None]) % n
            lower = np.tri(n, k=-1, dtype=bool)
            missing &= (offset > 0) & ((2 * offset < n) | ((2 * offset == n) & ~lower))
        return np.nonzero(missing)

    def fill(self, i, j, values):
        """Write the values of entries (i, j), and of their mirror images if symmetric."""
        self.kernel[i, j] = values
        if self.rows == self.columns:
            self.kernel[j, i] = values


def convolutional_grams(images, grams, *, depth, engine, precision, progress=lambda pairs: None):
    """Fill `grams`, Gram matrices over one list of `images` [m, h, w, 1], with the NTK.

    One call serves a trial's training and test matrices: the images' own passes run once, and small
    matrices share blocks. `progress` is called with the number of pairs just finished.
    """
    if not isinstance(depth, (int, np.integer)) or depth < 3 or depth % 3:
        raise BadInput(f"depth {depth}: use a positive multiple of 3")
    if images.ndim != 4 or images.shape[3] != 1 or any(s // 16 != 1 for s in images.shape[1:3]):
        raise BadInput(
            f"images of shape {images.shape[1:]}: use [height, width, 1] with both from 16 to 31, "
            "which four poolings take to one pixel"
        )
    if precision not in ("float64", "float32"):
        raise BadInput(f"--precision {precision}: unknown; use float64 or float32")
    engine = choose_engine(engine)
    if engine == "neural-tangents":
        for gram in grams:
            x1, x2 = images[gram.rows], images[gram.columns]
            kernel_fn = oracle_convolutional(int(depth))
            gram.kernel[:] = oracle_ntk(kernel_fn, x1, None if gram.rows == gram.columns else x2)
            progress(gram.kernel.size)
        return
    with double_precision():
        evaluate = JaxConvolution(images[..., 0].astype(precision), depth // 3)
        diagonal = dense_head(evaluate.own_a, evaluate.own_b, evaluate.own_a, evaluate.own_a)
        progress(len(images))
        for gram in grams:
            if gram.rows == gram.columns:
                np.fill_diagonal(gram.kernel, diagonal[gram.rows])
        pairs = [
            np.stack([np.full(len(i), g), i, j, np.array(gram.rows)[i], np.array(gram.columns)[j]])
            for g, gram in enumerate(grams)
            for i, j in [gram.pending()]
        ]
        pairs = np.concatenate(pairs, axis=1)
        for start in range(0, pairs.shape[1], evaluate.pairs_at_once):
            block = pairs[:, start : start + evaluate.pairs_at_once]
            a, b = evaluate(block[3], block[4])
            theta = dense_head(a, b, evaluate.own_a[block[3]], evaluate.own_a[block[4]])
            for g, gram in enumerate(grams):
                here = block[0] == g
                gram.fill(block[1, here], block[2, here], theta[here])
            progress(block.shape[1])


def dense_head(a, b, own_a1, own_a2):
    """NTK after Dense(2), erf, Dense(1) from the pooled state, all W_std^2 = 2, erf not normalised."""
    a, b, own_a1, own_a2 = (np.asarray(v, np.float64) for v in (a, b, own_a1, own_a2))
    k, theta, norm = 2 * a, 2 * b, (1 + 4 * own_a1) * (1 + 4 * own_a2)
    return (4 / np.pi) * np.arcsin(2 * k / np.sqrt(norm)) + (8 / np.pi) * theta / np.sqrt(
        norm - 4 * k**2
    )


def cone_bounds(size):
    """Largest displacement that reaches the output in each of the three stages, along one axis."""
    third = min(3, size // 4 - 1)
    second = min(2 * third + 1, size // 2 - 1)
    return min(2 * second + 1, size - 1), second, third


@functools.cache
def arccos_polynomial(precision):
    """Coefficients, highest first, of P with arccos(1 - e) = pi sqrt(e) P(e) on 0 <= e <= 1.

    arccos(1 - e)/sqrt(e) is analytic at 0; its Chebyshev interpolant of degree 20 is good to 2e-15,
    that of degree 7 to 4e-7.
    """
    half = lambda e: np.sqrt(e / 2)  # noqa: E731 -- arccos(1 - e) = 2 arcsin(sqrt(e/2)), exact near 0
    interpolant = np.polynomial.Chebyshev.interpolate(
        lambda e: 2 * np.arcsin(half(e)) / np.sqrt(e) / np.pi,
        20 if precision == "float64" else 7,
        domain=[0, 1],
    )
    coefficients = interpolant.convert(kind=np.polynomial.Polynomial).coef
    return tuple(np.dtype(precision).type(c) for c in coefficients[::-1])


# 1 - c below 8 units of rounding counts as 0. Background pixels of two images have c = 1; rounding
# makes 1 - c = 1e-16 of it, and the square root in arccos an error of 1e-8 (float32: 3e-4).
correlation_one = 8


GAP = (-1, -1)  # between planes; index -1 finds the row of zeros appended to an image


def plane_line(size, bound):
    """Pixel pairs (p, q) of one axis of the planes d = q - p = -bound ... bound, a GAP after each.

    The outer product of the lines of both axes is one picture that holds the whole cone of a stage,
    and box is an ordinary 3x3 box filter on it: the gaps, kept at zero, keep the planes apart.
    """
    line = []
    for d in range(-bound, bound + 1):
        line += [(p, p + d) for p in range(max(0, -d), size - max(0, d))] + [GAP]
    return line


def pooling_sources(line, pooled, width):
    """Positions in `line` [len(pooled), width^2] whose sum is each entry of the pooled line."""
    position = {pair: i for i, pair in enumerate(line)}
    offsets = [(a, b) for a in range(width) for b in range(width)]
    return np.array(
        [[position.get((width * p + a, width * q + b), position[GAP]) for a, b in offsets]
         for p, q in pooled]
    )  # fmt: skip


class JaxConvolution:
    """The convolutional recursion in JAX, for accelerators: one fused kernel a layer over all planes.

    images [m, h, w] in the precision of the computation, `layers` a stage. own_a, own_b [m] are the
    pooled A and B of every image with itself; calling it with index arrays (rows, columns) gives
    those of the pairs. The pairs are the innermost, contiguous axis, shared out to all local devices.
    """

    def __init__(self, images, layers):
        import jax

        self.layers = layers
        self.devices = jax.local_devices()
        self.precision = images.dtype.name
        entries = np.prod([len(plane_line(s, cone_bounds(s)[0])) for s in images.shape[1:]])
        # A and B, twice for the loop's double buffering, and room for what XLA does not fuse.
        memory = (self.devices[0].memory_stats() or {}).get("bytes_limit", 2**29)
        lanes = memory // (12 * entries * images.dtype.itemsize)
        lanes = 1 << int(np.clip(lanes, 1, 512)).bit_length() - 1
        self.pairs_at_once = lanes * len(self.devices)
        self.images = np.moveaxis(images, 0, -1)
        everyone = np.arange(len(images))
        self.variances = None
        self.own_a, self.own_b, *variances = self(everyone, everyone)
        self.variances = [self.images**2, *variances]

    def __call__(self, rows, columns):
        own = self.variances is None
        run = jax_cone(*self.images.shape[:2], self.precision, own, len(self.devices))
        results = []
        for start in range(0, len(rows), self.pairs_at_once):
            padded = np.arange(start, start + self.pairs_at_once).clip(max=len(rows) - 1)
            i, j = rows[padded], columns[padded]
            variances = () if own else [(v[..., i], v[..., j]) for v in self.variances]
            results.append(run(self.images[..., i], self.images[..., j], variances, self.layers))
        return [
            np.concatenate([np.asarray(r) for r in result], axis=-1)[..., : len(rows)]
            for result in zip(*results, strict=True)
        ]


@functools.cache
def jax_cone(height, width, precision, own, devices):
    """The compiled pass of a block of pairs through the three stages.

    Takes x, x' [h, w, pairs], the variances at the start of each stage ((v, v') thrice, [.., pairs])
    and the layers a stage, a run-time number. Returns pooled A and B [pairs]. With `own`, x = x':
    the variances are taken from the state itself, and those of stages two and three returned too.
    """
    import jax
    import jax.numpy as jnp

    arccos = arccos_polynomial(precision)
    lines = []  # of each stage, (line along y, line along x); last the single pair of pixels left
    for stage in range(3):
        lines.append([plane_line(s >> stage, cone_bounds(s)[stage]) for s in (height, width)])
    lines.append([[(0, 0)], [(0, 0)]])

    def box(a):
        for axis in (0, 1):
            a = jnp.pad(a, [(1, 1) if i == axis else (0, 0) for i in range(3)])
            size = a.shape[axis] - 2
            a = sum(jax.lax.slice_in_dim(a, i, i + size, axis=axis) for i in range(3))
        return a

    def look_up(image, stage, which):  # image [h, w, pairs] at the pixels of the planes
        y, x = (np.array(line)[:, which] for line in lines[stage])
        return jnp.pad(image, [(0, 1), (0, 1), (0, 0)])[y][:, x]

    def pool(a, stage):
        for axis in (0, 1):
            # After the third stage two poolings follow each other: 4 x 4 pixels at once.
            pool_width = 4 if stage == 2 else 2
            sources = pooling_sources(lines[stage][axis], lines[stage + 1][axis], pool_width)
            a = jnp.take(a, sources, axis=axis).mean(axis=axis + 1)
        return a

    def run_stage(a, b, v1, v2, stage, layers):
        at_zero = [np.array([p == q != -1 for p, q in line]) for line in lines[stage]]
        identical = own & (at_zero[0][:, None] & at_zero[1])[..., None]

        def layer(_, state):
            a, b, v1, v2 = state
            v1, v2 = box(v1) / 9, box(v2) / 9
            s = look_up(jnp.sqrt(v1), stage, 0) * look_up(jnp.sqrt(v2), stage, 1)
            c = box(a) / 9 * jnp.where(s > 0, 1 / s, 0)
            e = 1 - jnp.abs(c)
            e = jnp.where(identical | (e < correlation_one * jnp.finfo(e.dtype).eps), 0, e)
            angle = jnp.full_like(e, arccos[0])
            for coefficient in arccos[1:]:
                angle = angle * e + coefficient
            angle = jnp.sqrt(e) * angle
            kappa0 = jnp.where(c < 0, angle, 1 - angle)
            kappa1 = jnp.sqrt(e * (2 - e)) / np.pi + c * kappa0
            a = s * jnp.where(identical, 1, kappa1)
            b = jnp.where(s > 0, kappa0 * box(b) / 9, 0) + a
            return a, b, v1, v2

        a, b, *_ = jax.lax.fori_loop(0, layers, layer, (a, b, v1, v2))
        return pool(a, stage), pool(b, stage)

    def cone(x1, x2, variances, layers):
        a = b = look_up(x1, 0, 0) * look_up(x2, 0, 1)
        found = []
        for stage in range(3):
            if own:
                y, x = (line.index((0, 0)) for line in lines[stage])
                size = height >> stage, width >> stage
                v1 = v2 = a[y : y + size[0], x : x + size[1]]
                found.append(v1)
            else:
                v1, v2 = variances[stage]
            a, b = run_stage(a, b, v1, v2, stage, layers)
        return (a[0, 0], b[0, 0], *found[1:])

    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:devices]), ("pairs",))
    by_pair = jax.sharding.PartitionSpec(None, None, "pairs")
    outputs = (jax.sharding.PartitionSpec("pairs"),) * 2 + (by_pair,) * (2 if own else 0)
    inputs = (by_pair, by_pair, by_pair, jax.sharding.PartitionSpec())
    return jax.jit(jax.shard_map(cone, mesh=mesh, in_specs=inputs, out_specs=outputs))


# --------------------------------------------------------------------------------------------------
# The oracle: the same two networks in neural-tangents
# --------------------------------------------------------------------------------------------------


def oracle_fully_connected(depth):
    """neural-tangents' kernel function of the fully-connected network."""
    _, stax = import_neural_tangents()
    dense = functools.partial(stax.Dense, W_std=np.sqrt(erf_scale), b_std=None)
    return stax.serial(*[dense(512), stax.Erf()] * depth, dense(1))[2]


def oracle_convolutional(depth):
    """neural-tangents' kernel function of the convolutional network."""
    _, stax = import_neural_tangents()
    w_std = np.sqrt(2)
    convolution = stax.Conv(512, (3, 3), padding="SAME", W_std=w_std, b_std=None)
    pool = stax.AvgPool((2, 2), strides=(2, 2))
    stage = [convolution, stax.Relu()] * (depth // 3) + [pool]
    dense = [stax.Dense(2, W_std=w_std, b_std=None), stax.Erf(), stax.Dense(1, W_std=w_std, b_std=None)]
    return stax.serial(*stage * 3, pool, stax.Flatten(), *dense)[2]


def oracle_ntk(kernel_fn, x1, x2, batch_size=4):
    """The NTK [n1, n2] by `nt.batch`, float64; every batch size that divides the numbers will do."""
    nt, _ = import_neural_tangents()
    sizes = (len(x1), len(x1 if x2 is None else x2))
    batch_size = max(b for b in range(1, batch_size + 1) if all(n % b == 0 for n in sizes))
    with double_precision():
        batched = nt.batch(kernel_fn, batch_size=batch_size, device_count=0)
        return np.array(batched(x1, x2, "ntk"), dtype=np.float64)


# --------------------------------------------------------------------------------------------------
# Approximations of the kernel matrix that a quantum computer inverts in O(log n)
# --------------------------------------------------------------------------------------------------
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


# --------------------------------------------------------------------------------------------------
# Quantities that the paper claims to stay O(log n)
# --------------------------------------------------------------------------------------------------


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


# --------------------------------------------------------------------------------------------------
# Running: trials, files, results
# --------------------------------------------------------------------------------------------------


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


# --------------------------------------------------------------------------------------------------
# Command line
# --------------------------------------------------------------------------------------------------


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
