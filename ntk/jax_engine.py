"""The engine of GPUs, TPUs and CPUs: JAX, on one mesh of all devices, those of other processes included.

Every process must call these functions alike; the devices share the work, and every process gets all results.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from ntk.arguments import whole_blocks
from ntk.convolutional import reach
from ntk.fully_connected import dense_layer, erf_scale
from ntk.polynomials import arccos_polynomial, correlation_one

# ----------------------------------------------------------------------------------------------------------------------
# The fully-connected network
# ----------------------------------------------------------------------------------------------------------------------


def dense_rows(n1: int, n2: int) -> int:
    """Rows of a block of a matrix [n1, n2]: as many on each device."""
    devices = len(jax.devices())
    return devices * -(-min(n1, 2**24 // n2) // devices)


def dense_layers(
    kernel: NDArray[np.float64],
    q1: NDArray[np.float64],
    q2: NDArray[np.float64],
    depth: int,
    block: NDArray[np.intp],
    height: int,
) -> NDArray[np.float64]:
    """The NTK [rows, n2] of rows `block` of K0 [n1, n2], with variances [n1], [n2], after `depth` hidden layers.

    The rows are repeated up to `height`, as blocks of one size compile once.
    """
    full = block[whole_blocks(len(block), height)]
    with jax.enable_x64(True):
        return np.array(dense_program()(kernel[full], q1[full], q2, depth))[: len(block)]


@functools.cache
def dense_program() -> Any:
    """The compiled pass of a block of rows K0 [rows, n2], with variances [rows], [n2], through `depth` layers."""

    def next_variance(q):
        return erf_scale * (2 / np.pi) * jnp.arcsin(2 * q / (1 + 2 * q))

    def layers(k, q1, q2, depth):
        def layer(_, state):
            k, theta, q1, q2 = state
            return *dense_layer(jnp, k, theta, q1, q2), next_variance(q1), next_variance(q2)

        return jax.lax.fori_loop(0, depth, layer, (k, k, q1, q2))[1]

    mesh = Mesh(np.array(jax.devices()), ("rows",))
    by_row, shared = PartitionSpec("rows"), PartitionSpec()
    mapped = jax.shard_map(layers, mesh=mesh, in_specs=(by_row, by_row, shared, shared), out_specs=by_row)
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, shared))


# ----------------------------------------------------------------------------------------------------------------------
# The convolutional network: all planes of a stage in one picture, one fused kernel a layer
# ----------------------------------------------------------------------------------------------------------------------


class JaxCone:
    """A and B at the end of the cone, of pairs of images [n, h, w].

    variances: [n, h, w] at the start of each stage, of which the images' own passes (own=True) fill in the last two.
    """

    def __init__(
        self, images: NDArray[np.floating[Any]], variances: list[NDArray[np.float64]], layers: int
    ) -> None:
        """`layers`: convolutions a stage."""
        self.images, self.variances, self.layers = images, variances, layers
        devices = jax.devices()
        entries = np.prod([len(plane_line(size, reach(size, 0))) for size in images.shape[1:]])
        # A and B, twice as the loop writes what it does not read, and room for what XLA does not fuse.
        memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 2**29)
        lanes = np.clip(memory // (12 * entries * images.dtype.itemsize), 1, 512)
        with jax.enable_x64(True):
            lanes = int(multihost_utils.broadcast_one_to_all(lanes))  # all processes take process 0's
        self.block = (1 << lanes.bit_length() - 1) * len(devices)

    def __call__(
        self, i: NDArray[np.intp], j: NDArray[np.intp], own: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pooled A and B [m] of the pairs (i, j) [m]; own: i = j, and their variances are filled in."""
        full = whole_blocks(len(i), self.block)
        a, b = np.empty((2, len(full)))
        run = cone_program(*self.images.shape[1:], self.images.dtype.name, own)
        for start in range(0, len(full), self.block):
            block = slice(start, start + self.block)
            indices = i[full[block]], j[full[block]]
            x1, x2 = (np.moveaxis(self.images[index], 0, -1) for index in indices)
            variances = [[np.moveaxis(v[index], 0, -1).astype(x1.dtype) for index in indices] for v in self.variances]
            with jax.enable_x64(True):
                a[block], b[block], *found = run(x1, x2, variances, self.layers)
            for stage, v in enumerate(found, start=1):
                self.variances[stage][indices[0]] = np.moveaxis(v, -1, 0)
        return a[: len(i)], b[: len(i)]


GAP = (-1, -1)  # between planes; index -1 finds the row of zeros appended to an image


def plane_line(size: int, bound: int) -> list[tuple[int, int]]:
    """Pixel pairs (p, q) along one axis of the planes d = q - p = -bound ... bound, a GAP after each.

    The outer product of the lines of both axes is one picture that holds a stage's whole cone, and box is an ordinary
    3x3 box filter on it: the gaps, kept at zero, keep the planes apart.
    """
    line = []
    for d in range(-bound, bound + 1):
        line += [(p, p + d) for p in range(max(0, -d), size - max(0, d))] + [GAP]
    return line


def pooling_sources(
    line: list[tuple[int, int]], pooled: list[tuple[int, int]], width: int
) -> NDArray[np.intp]:
    """Positions in `line`, [len(pooled), width^2], whose average is each entry of the pooled line."""
    position = {pair: i for i, pair in enumerate(line)}
    offsets = [(a, b) for a in range(width) for b in range(width)]
    sources = [[(width * p + a, width * q + b) for a, b in offsets] for p, q in pooled]
    return np.array([[position.get(pair, position[GAP]) for pair in pairs] for pairs in sources])


@functools.cache
def cone_program(height: int, width: int, precision: str, own: bool) -> Any:
    """The compiled pass of a block of pairs through the three stages.

    Takes x, x' [h, w, pairs], the variances (v, v') at the start of each stage and the layers a stage, a run-time
    number. Returns pooled A and B [pairs]. With `own`, x = x': the variances come from the state itself, and those of
    the second and third stage are returned too.
    """
    centre, *polynomial = arccos_polynomial(precision)
    lines = [[plane_line(s >> stage, reach(s >> stage, stage)) for s in (height, width)] for stage in range(3)]
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

    mesh = Mesh(np.array(jax.devices()), ("pairs",))
    shared, numbers, by_pair = (PartitionSpec(*axes) for axes in ([], ["pairs"], [None, None, "pairs"]))
    outputs = (numbers, numbers, *[by_pair] * (2 * own))
    mapped = jax.shard_map(cone, mesh=mesh, in_specs=(by_pair,) * 3 + (shared,), out_specs=outputs)
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, shared))  # every process gets all of it
