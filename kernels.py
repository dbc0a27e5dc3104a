"""The neural tangent kernels (NTK) of the two networks of arXiv:2107.09200, exact, and what evaluates them.

    fully_connected_ntk(x1, x2=None, depth=...)  # the erf network
    convolutional_ntk(x1, x2=None, depth=96)     # three stages of 3x3 convolutions with ReLU, pooled to one pixel

return float64 [n1, n2] (x2=None: x1 with itself). The same mathematics is evaluated by three engines: `numba` (NumPy
for the fully-connected network) on CPUs, `jax` on GPUs, TPUs and CPUs, all that JAX finds and those of other processes
too, and `neural-tangents`, the slow oracle. training.py draws its experiment from the generators below, which yield a
matrix block by block; README.md says how long a block takes.
"""

import ctypes
import functools
import math
import os
import signal
import socket
import sys
import time
import types
import warnings

import numba
import numpy as np

import numba_engine

# JAX and neural-tangents are imported by the functions that need them: who asks for `--help` should not wait for them.

engines = ("auto", "numba", "jax", "gpu", "neural-tangents")
patience = 60  # seconds that the processes of a run wait for one that does not answer
run_again = "run it again, all processes of it: what is finished is kept"
formulas = 1  # version of the formulas below; training.py computes kernels of another version again

# W_std^2 of the fully-connected network, 1/E[erf(z)^2] with z ~ N(0, 1), makes erf normalised; mu is the
# coefficient of nonlinearity, 1 - E[z sigma(z)]^2, of the normalised sigma. Both in closed form.
erf_scale = 1 / (2 / np.pi * np.arcsin(2 / 3))
nonlinearity = 1 - (2 / 3) / np.arcsin(2 / 3)


class BadInput(ValueError):
    """An input that its message names, with its value and the remedy; `training.main` prints the one line."""


# ----------------------------------------------------------------------------------------------------------------------
# Engines, and the processes of a run
# ----------------------------------------------------------------------------------------------------------------------


def has_accelerator():
    """Whether JAX finds a GPU or TPU. Raises BadInput where JAX_PLATFORMS asks for one that is not there."""
    import jax

    try:
        return jax.default_backend() != "cpu"
    except (RuntimeError, AssertionError) as error:
        what = (str(error).splitlines() or ["JAX finds no such device"])[0]
        raise BadInput(f"JAX_PLATFORMS {os.environ.get('JAX_PLATFORMS')}: {what}; unset it, or use cpu") from error


def choose_engine(engine):
    """The engine that `auto` or `gpu` stands for on this machine; any other name is checked and returned."""
    if engine not in engines:
        raise BadInput(f"--engine {engine}: unknown; use {', '.join(engines)}")
    if engine == "gpu" and not has_accelerator():
        raise BadInput("--engine gpu: JAX finds no GPU or TPU; install requirements-gpu.txt, or use --engine numba")
    if engine == "auto":
        return "jax" if has_accelerator() else "numba"
    return "jax" if engine == "gpu" else engine


def process_count():
    """Number of processes of the run: 1, or those that `jax.distributed` connects."""
    jax = sys.modules.get("jax")
    return jax.process_count() if jax and jax.distributed.is_initialized() else 1


def is_leader():
    """Whether this is process 0, which alone reads, writes and prints."""
    return process_count() == 1 or sys.modules["jax"].process_index() == 0


def broadcast(array):
    """Process 0's array, in every process; the others give one of the same shape and type."""
    if process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    with double_precision():
        return np.asarray(multihost_utils.broadcast_one_to_all(array))


def gather(array):
    """Every process's array, all of one shape, in every process: [...] -> [processes, ...]."""
    if process_count() == 1:
        return array[None]
    from jax.experimental import multihost_utils

    with double_precision():
        return np.asarray(multihost_utils.process_allgather(array))


def join_processes(coordinator, processes, process_id):
    """Connect the processes of a run through `jax.distributed`: this one of `processes`, the others at `coordinator`,
    HOST:PORT; all three None: what Slurm or Open MPI started, or a single process.

    Raises BadInput where they don't find each other. JAX ends a process that has lost another by a C++ abort, which
    Python does not see: SIGABRT gets a handler that says what happened in one line and leaves with status 1.
    """
    launched = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("OMPI_COMM_WORLD_SIZE") or "1"
    if coordinator is None and launched == "1":
        return
    where = f"--coordinator {coordinator}" if coordinator else f"{launched} processes launched"
    deadline = time.monotonic() + patience
    while process_id:  # others than process 0 wait for it: JAX would abort
        host, _, port = coordinator.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                remedy = "start process 0 there, or correct the address"
                raise BadInput(f"{where}: no answer for {patience} s ({error.strerror or error}); {remedy}") from error
            time.sleep(0.5)
    import jax

    def on_abort(message):
        def leave(_):
            os.write(2, f"training.py: error: {message}\n".encode())
            os._exit(1)

        join_processes.handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(leave)  # C keeps no reference to it
        ctypes.CDLL(None).signal(int(signal.SIGABRT), join_processes.handler)

    on_abort(f"{where}: not all processes came within {patience} s; start all of them, with the same options")
    try:
        jax.distributed.initialize(coordinator, processes, process_id,
                                   initialization_timeout=patience, heartbeat_timeout_seconds=patience)  # fmt: skip
    except (RuntimeError, ValueError) as error:
        remedy = "name a free port of process 0's host in --coordinator, with --processes and --process-id"
        raise BadInput(f"{where}: {str(error).splitlines()[0]}; {remedy}") from error
    on_abort(f"{where}: another process ended; {run_again}")
    if not is_leader():
        print(f"process {jax.process_index()} of {process_count()}: computes for process 0, which prints and writes")
        sys.stdout = open(os.devnull, "w")


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


def whole_blocks(count, size):
    """Indices 0 ... count - 1, the last one repeated up to a multiple of `size`."""
    return np.arange(-(-count // size) * size).clip(max=count - 1)


def oracle(layers):
    """The network of stax `layers` by `nt.batch`: a function of images x1, x2=None (x1 with itself) that returns its
    NTK, float64 [n1, n2].
    """
    nt, stax = import_neural_tangents()
    kernel_fn = nt.batch(stax.serial(*layers)[2], batch_size=4, device_count=0)

    def ntk(x1, x2=None):
        padded = [x if x is None else x[whole_blocks(len(x), 4)] for x in (x1, x2)]  # nt.batch takes whole batches
        with double_precision():
            kernel = np.array(kernel_fn(*padded, "ntk"), dtype=np.float64)
        return kernel[: len(x1), : len(x1 if x2 is None else x2)]

    return ntk


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
    symmetric = x2 is None
    x1, x2 = check_images(x1, x2, rank=2)
    kernel = np.empty((len(x1), len(x2)))
    for rows, values in fully_connected_blocks(x1, None if symmetric else x2, depth, engine):
        kernel[rows, : values.shape[1]] = values
    return mirror(kernel) if symmetric else kernel


def mirror(kernel):
    """Complete a symmetric matrix [n, n], in place, from its lower triangle."""
    for i in range(len(kernel)):
        kernel[i, i + 1 :] = kernel[i + 1 :, i]
    return kernel


def fully_connected_blocks(x1, x2, depth, engine, wanted=None):
    """Yield (rows, their NTK) block by block, of float64 images; x2=None: of x1 with itself, columns up to the block's
    last row. wanted: indices of the rows to compute, by default all; the blocks are the same whichever are.
    """
    if not isinstance(depth, (int, np.integer)) or depth < 0:
        raise BadInput(f"depth {depth}: use a whole number of layers, 0 or more")
    symmetric = x2 is None
    x2 = x1 if symmetric else x2
    n1, n2 = len(x1), len(x2)
    engine = engine if engine == "auto" else choose_engine(engine)
    if engine == "neural-tangents":
        _, stax = import_neural_tangents()
        hidden, last = (stax.Dense(width, W_std=np.sqrt(erf_scale), b_std=None) for width in (512, 1))
        yield slice(n1), oracle([hidden, stax.Erf()] * int(depth) + [last])(x1, None if symmetric else x2)
        return
    q1, diagonal = fully_connected_diagonal(x1, depth)
    q2 = q1 if symmetric else fully_connected_diagonal(x2, depth)[0]
    kernel = x1 @ x2.T
    kernel *= erf_scale / x1.shape[1]
    if symmetric:  # half of it will do: where K0 = 0 everything stays 0
        for i in range(n1):
            kernel[i, i:] = 0
    height = max(1, 2**15 // n2)  # of a block, so that it stays in the cache for all layers
    if engine == "jax":
        evaluate, devices = jax_dense()
        height = devices * -(-min(n1, 2**24 // n2) // devices)
    needed = np.zeros(n1, dtype=bool)
    needed[slice(None) if wanted is None else wanted] = True
    for start in range(0, n1, height):
        rows = np.arange(start, min(start + height, n1))
        if not needed[rows].any():
            continue
        columns = slice(rows[-1] + 1 if symmetric else n2)
        if engine == "jax":
            full = rows[whole_blocks(len(rows), height)]  # blocks of one size compile once
            with double_precision():
                theta = np.array(evaluate(kernel[full], q1[0, full], q2[0], depth))[: len(rows), columns]
        else:
            k = theta = kernel[rows, columns]
            for v1, v2 in zip(q1[:-1, rows], q2[:-1, columns], strict=True):
                k, theta = dense_layer(np, k, theta, v1, v2)
        if symmetric:
            theta[np.arange(len(rows)), rows] = diagonal[rows]
        yield slice(start, start + len(rows)), theta


def dense_layer(xp, k, theta, q1, q2):
    """(K, Theta) [n1, n2] after a hidden layer, from those before it and the variances [n1], [n2], in NumPy or JAX."""
    norm = (1 + 2 * q1)[:, None] * (1 + 2 * q2)
    theta = erf_scale * (4 / np.pi) * theta / xp.sqrt(norm - 4 * k**2)
    k = erf_scale * (2 / np.pi) * xp.arcsin(2 * k / xp.sqrt(norm))
    return k, k + theta


def next_variance(xp, q):
    """The variances after a hidden layer, from those before it."""
    return erf_scale * (2 / np.pi) * xp.arcsin(2 * q / (1 + 2 * q))


@functools.cache
def jax_dense():
    """The compiled pass of a block of rows K0 [rows, n2], with variances [rows], [n2], through `depth` layers, and the
    number of devices that the rows are shared out to: all of all processes. Every process gets the whole block.
    """
    import jax
    import jax.numpy as jnp

    def layers(k, q1, q2, depth):
        def layer(_, state):
            k, theta, q1, q2 = state
            return *dense_layer(jnp, k, theta, q1, q2), next_variance(jnp, q1), next_variance(jnp, q2)

        return jax.lax.fori_loop(0, depth, layer, (k, k, q1, q2))[1]

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("rows",))
    by_row, shared = jax.sharding.PartitionSpec("rows"), jax.sharding.PartitionSpec()
    mapped = jax.shard_map(layers, mesh=mesh, in_specs=(by_row, by_row, shared, shared), out_specs=by_row)
    return jax.jit(mapped, out_shardings=jax.sharding.NamedSharding(mesh, shared)), mesh.size


def fully_connected_diagonal(x, depth):
    """Variances q [depth + 1, n] of every layer and the diagonal of the NTK [n], of images x [n, d]."""
    q = [erf_scale * np.sum(x**2, axis=1) / x.shape[1]]
    theta = q[0]
    for _ in range(depth):
        theta = erf_scale * (4 / np.pi) * theta / np.sqrt(1 + 4 * q[-1])
        q.append(next_variance(np, q[-1]))
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
    return mirror(kernel) if symmetric else kernel


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
        ntk = oracle(oracle_convolutional(depth))
        tiles = pairs // 8  # of 8 x 8 images, half a minute or so
        for tile in np.unique(tiles, axis=1).T:
            block = np.flatnonzero((tiles == tile[:, None]).all(axis=0))
            (rows, i), (columns, j) = (np.unique(index, return_inverse=True) for index in pairs[:, block])
            yield block, ntk(images[rows], images[columns])[i, j]
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
        full = whole_blocks(len(i), self.lanes)
        a, b = self.blocks(i[full], j[full], own)
        return a[: len(i)], b[: len(i)]


# ---- on CPUs: Numba, every plane through all layers of its stage in the cache ----


class NumbaConvolution(Convolution):
    """On all cores of a CPU, a block of lanes each. A pair gets the same bits whatever its block and thread."""

    def __init__(self, images, layers):
        self.constants = numba_engine.constants(images.dtype.name)
        self.lanes = 64 // images.dtype.itemsize
        self.pairs_at_once = 8 * self.lanes * process_count() * int(broadcast(np.array(numba.get_num_threads())))
        super().__init__(images, layers)

    def blocks(self, i, j, own):
        """Pooled A and B of the pairs (i, j), whole blocks of lanes; with `own` also their variances."""
        pairs = np.stack([i.reshape(-1, self.lanes), j.reshape(-1, self.lanes)], axis=1)
        state = self.images, tuple(self.variances)
        if own or process_count() == 1:
            a, b = numba_engine.blocks(*state, pairs, self.layers, own, self.constants)
            return a.ravel(), b.ravel()
        found = np.zeros((2, -(-len(pairs) // process_count()), self.lanes))  # each process takes its share
        mine = pairs[sys.modules["jax"].process_index() * found.shape[1] :][: found.shape[1]]
        found[:, : len(mine)] = numba_engine.blocks(*state, mine, self.layers, own, self.constants)
        return np.moveaxis(gather(found), 0, 1).reshape(2, -1)[:, : len(i)]


# ---- on accelerators: JAX, one fused kernel a layer over all planes ----


class JaxConvolution(Convolution):
    """On all devices that JAX finds, those of other processes included: a block's pairs are shared out to them."""

    def __init__(self, images, layers):
        import jax

        devices = jax.devices()
        entries = np.prod([len(plane_line(size, 15)) for size in images.shape[1:]])
        # A and B, twice as the loop writes what it does not read, and room for what XLA does not fuse.
        memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 2**29)
        lanes = int(broadcast(np.clip(memory // (12 * entries * images.dtype.itemsize), 1, 512)))
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

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("pairs",))
    shared, numbers, by_pair = (jax.sharding.PartitionSpec(*axes) for axes in ([], ["pairs"], [None, None, "pairs"]))
    outputs = (numbers, numbers, *[by_pair] * (2 * own))
    mapped = jax.shard_map(cone, mesh=mesh, in_specs=(by_pair,) * 3 + (shared,), out_specs=outputs)
    return jax.jit(mapped, out_shardings=jax.sharding.NamedSharding(mesh, shared))  # every process gets all of it
