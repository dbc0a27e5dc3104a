"""The engine of GPUs, TPUs and CPUs: JAX, on one mesh of all devices, those of other processes
included.

Every process must call these functions alike; the devices share the work, and every process gets
all results.

Memory is what limits both programs on a GPU, so each is written for the kernels that XLA makes of
it: one large kernel a convolution, and one for several layers of the fully-connected network.
`tests/benchmark.py --parts gpu-plan` prints them.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from ntk.arguments import whole_blocks
from ntk.formulas import erf_scale, reach
from ntk.polynomials import angle_polynomial, arcsin_polynomial, correlation_one


@contextlib.contextmanager
def configuration() -> Iterator[None]:
    """Within it JAX computes in float64, and as this file expects, whatever its variables say."""
    promotion, guard = jax.numpy_rank_promotion("allow"), jax.transfer_guard("allow")
    with jax.enable_x64(True), jax.disable_jit(False), promotion, guard:
        yield


@functools.cache
def shardings() -> tuple[Mesh, NamedSharding, NamedSharding]:
    """The mesh of all devices of all processes, and two layouts of arrays.

    Split along the second axis, copied.
    """
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    return (
        mesh,
        NamedSharding(mesh, PartitionSpec(None, "devices")),
        NamedSharding(mesh, PartitionSpec()),
    )


# --------------------------------------------------------------------------------------------------
# The fully-connected network
# --------------------------------------------------------------------------------------------------

layers_at_once = 8  # in one kernel of a GPU, which reads and writes K and Theta once


def dense_rows(n1: int, n2: int) -> int:
    """Rows of a block of a matrix [n1, n2]: as many on each device."""
    devices = len(jax.devices())
    return devices * -(-min(n1, 2**24 // n2) // devices)


def dense_layers(
    kernel: NDArray[np.float64],
    q1: NDArray[np.float64],
    q2: NDArray[np.float64],
    block: NDArray[np.intp],
    height: int,
) -> NDArray[np.float64]:
    """The NTK [rows, n2] of rows `block` of K0 [n1, n2], with variances before every hidden layer
    and after the last, [depth + 1, n1] and [depth + 1, n2].

    The rows are repeated up to `height`, as blocks of one size compile once.
    """
    full = block[whole_blocks(len(block), height)]
    # XLA for CPUs computes K again and again.
    at_once = 1 if jax.default_backend() == "cpu" else layers_at_once
    with configuration():
        theta = dense_program(at_once)(
            kernel[full], reciprocals(q1[:, full]), reciprocals(q2), len(q1) - 1
        )
        return np.array(theta)[: len(block)]


def reciprocals(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """1/sqrt(1 + 2q) before every layer, from q [depth + 1, n], with zeros up to a multiple of 64
    layers.

    So most depths have tables of the same few lengths, and compile once.
    """
    depth = len(q) - 1
    table = np.zeros((64 * (depth // 64 + 1), q.shape[1]))
    table[:depth] = 1 / np.sqrt(1 + 2 * q[:depth])
    return table


@functools.cache
def dense_program(at_once: int) -> Any:
    """The compiled pass of a block of rows K0 [rows, n2] through `depth` layers, `at_once` of them
    in a kernel.

    Takes K0, r = 1/sqrt(1 + 2q) before every layer, [layers, rows] and [layers, n2], and the depth,
    a run-time number. The layer needs an angle of sine 2 K r r'; with cos = sqrt(1 - sin^2) and P
    from `arcsin_polynomial` it is
        Theta <- s (4/pi) Theta r r'/cos,  K <- s (2/pi) sin P(1 - cos),  Theta <- K + Theta,
    without a division, and with a reciprocal root alone.
    """
    powers = arcsin_polynomial()

    def layer(k, theta, r1, r2):
        weight = r1[:, None] * r2
        sin = 2 * k * weight
        cos2 = 1 - sin * sin
        inverse = jax.lax.rsqrt(cos2)
        ratio = horner(powers, 1 - cos2 * inverse)
        k = sin * (erf_scale * (2 / np.pi)) * ratio
        return k, theta * (erf_scale * (4 / np.pi)) * (weight * inverse) + k

    def layers(k, r1, r2, depth):
        def some(count):
            def body(_, state):
                k, theta, done = state
                for m in range(count):
                    k, theta = layer(k, theta, r1[done + m], r2[done + m])
                return k, theta, done + count

            return body

        state = jax.lax.fori_loop(0, depth % at_once, some(1), (k, k, 0))
        return jax.lax.fori_loop(0, depth // at_once, some(at_once), state)[1]

    mesh, _, everywhere = shardings()
    rows, columns, shared = (
        PartitionSpec("devices"),
        PartitionSpec(None, "devices"),
        PartitionSpec(),
    )
    mapped = jax.shard_map(
        layers, mesh=mesh, in_specs=(rows, columns, shared, shared), out_specs=rows
    )
    return jax.jit(mapped, out_shardings=everywhere)


def horner(powers: Sequence[Any], x: Any) -> Any:
    """A polynomial in x, from its coefficients, the highest power's first."""
    value = powers[0]
    for power in powers[1:]:
        value = value * x + power
    return value


# --------------------------------------------------------------------------------------------------
# The convolutional network: all planes of a stage in one picture, one large kernel a layer
# --------------------------------------------------------------------------------------------------

pairs_at_once = 511  # of a block on an accelerator: enough to hide what launching costs
share_of_memory = 0.8  # of a device's, for a block


class JaxCone:
    """A and B at the end of the cone, of pairs of images [n, h, w].

    variances: [n, h, w] at the start of each stage, of which the images' own passes (own=True) fill
    in the last two.
    """

    def __init__(
        self, images: NDArray[np.floating[Any]], variances: list[NDArray[np.float64]], layers: int
    ) -> None:
        """`layers`: convolutions a stage."""
        self.images, self.variances, self.layers = images, variances, layers
        self.kind = (*images.shape[1:], images.dtype.name, layers % 2 == 1)
        self.block = fitting_pairs(*self.kind) * len(jax.devices())
        self.on_devices: list[Any] = []

    def __call__(
        self, i: NDArray[np.intp], j: NDArray[np.intp], own: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pooled A and B [m] of the pairs (i, j) [m].

        own: i = j, and their variances are filled in.
        """
        precision = self.images.dtype
        share = precision.type((8 / 9) ** self.layers)
        full = whole_blocks(len(i), self.block)
        blocks = [full[start : start + self.block] for start in range(0, len(full), self.block)]
        everywhere = shardings()[2]
        with configuration():
            if own or not self.on_devices:
                arrays = [self.images, *(v.astype(precision) for v in self.variances)]
                self.on_devices = [jax.device_put(array, everywhere) for array in arrays]
            program = cone_program(*self.kind, self.block, own)
            found = []
            for block in blocks:
                pairs = take_program()(self.on_devices, i[block], j[block])
                found.append(program(pairs, np.int64(self.layers // 2), share))
            results = [
                np.concatenate([np.float64(part) for part in parts])
                for parts in zip(*found, strict=True)
            ]
        for stage, variance in enumerate(results[2:], start=1):
            self.variances[stage][i] = variance[: len(i)]
            self.on_devices = []
        return results[0][: len(i)], results[1][: len(i)]


@functools.cache
def take_program() -> Any:
    """The compiled function that takes the entries i, j [pairs] out of arrays [n, ...]."""
    _, by_pair, _ = shardings()
    return jax.jit(
        lambda arrays, i, j: [jnp.stack([array[i], array[j]]) for array in arrays],
        out_shardings=by_pair,
    )


@functools.cache
def fitting_pairs(height: int, width: int, precision: str, odd: bool) -> int:
    """Pairs of a block on one device: an odd number for which the compiled program fits its memory.

    In a picture of 659 x 659 entries an odd number of pairs makes an odd number of entries, and XLA
    then gives each thread of a GPU one entry, not four in a row: threads side by side read
    addresses side by side.
    """
    known = jax.local_devices()[0].memory_stats()
    if not known:  # a CPU, on which one pair keeps all cores busy
        return 1
    limit = share_of_memory * np.min(
        multihost_utils.process_allgather(np.float64(known["bytes_limit"]))
    )
    return largest_fitting(limit, lambda pairs: cone_memory(height, width, precision, odd, pairs))


def largest_fitting(limit, memory):
    """The largest odd number of pairs, up to pairs_at_once, whose memory is within the limit."""
    pairs = pairs_at_once
    while pairs > 1 and (needed := memory(pairs)) > limit:
        pairs = max(1, min(pairs - 2, int(pairs * limit / needed)))
        pairs -= 1 - pairs % 2
    return pairs


def cone_memory(height: int, width: int, precision: str, odd: bool, pairs: int) -> int:
    """Bytes that the compiled program takes on a device for so many pairs, by its own analysis."""
    program = cone_program(height, width, precision, odd, pairs * len(jax.devices()), own=False)
    needed = program.memory_analysis()
    return needed.temp_size_in_bytes + needed.argument_size_in_bytes + needed.output_size_in_bytes


GAP = (-1, -1)  # between planes


def plane_line(size: int, bound: int) -> list[tuple[int, int]]:
    """Pixel pairs (p, q) along one axis of the planes d = q - p = -bound ... bound, a GAP after
    each.

    The outer product of the lines of both axes is one picture that holds a stage's whole cone, and
    box is an ordinary 3x3 box filter on it: the gaps, kept at zero, keep the planes apart.
    """
    line = []
    for d in range(-bound, bound + 1):
        line += [(p, p + d) for p in range(max(0, -d), size - max(0, d))] + [GAP]
    return line


def pooling_sources(
    line: list[tuple[int, int]], pooled: list[tuple[int, int]], width: int
) -> NDArray[np.intp]:
    """Positions in `line` [pooled, width^2] whose average is each entry of the pooled line."""
    position = {pair: i for i, pair in enumerate(line)}
    offsets = [(a, b) for a in range(width) for b in range(width)]
    sources = [[(width * p + a, width * q + b) for a, b in offsets] for p, q in pooled]
    return np.array([[position.get(pair, position[GAP]) for pair in pairs] for pairs in sources])


class Stage:
    """Where things are in a stage's picture of planes, and in its pictures of images.

    Pictures are flat, row after row. Rows end with a zero, the last row is zero, and zeros
    `surround` the picture where neighbours are looked for: all eight of an entry are at fixed
    distances, without a question about borders.
    """

    def __init__(self, height: int, width: int, stage: int) -> None:
        """Of images [height, width] at the start of the stage."""
        self.stage, self.shape = stage, (height, width)
        self.lines = [plane_line(size, reach(size, stage)) for size in self.shape]
        if stage == 3:
            self.lines = [[(0, 0)]] * 2  # the single pair of pixels left
        y, x = (np.array(line) for line in self.lines)
        # In the surrounded picture of x (0) or x' (1), where -1, of a gap, finds zeros.
        places = [(y[:, None, which] + 1) * (width + 1) + x[:, which] + 1 for which in (0, 1)]
        self.places = [place.astype(np.int32).ravel() for place in places]

    def diagonal(self) -> NDArray[np.int32]:
        """Positions [h, w] of the plane d = 0."""
        y, x = (line.index((0, 0)) for line in self.lines)
        rows, columns = np.indices(self.shape)
        return ((y + rows) * len(self.lines[1]) + x + columns).astype(np.int32)

    def sources(self, pooled: "Stage") -> NDArray[np.int32]:
        """Positions here [entries, 16 or 256] whose average is each entry of the next stage's."""
        by = 4 if self.stage == 2 else 2  # two poolings follow the third stage
        y, x = (pooling_sources(*lines, by) for lines in zip(self.lines, pooled.lines, strict=True))
        sources = y[:, None, :, None] * len(self.lines[1]) + x[:, None]
        return sources.reshape(len(y) * len(x), -1).astype(np.int32)


def flat(images):
    """Images [..., h, w] as flat pictures [..., (h + 1) (w + 1)]."""
    picture = jnp.pad(images, [(0, 0)] * (images.ndim - 2) + [(0, 1), (0, 1)])
    return picture.reshape(*images.shape[:-2], -1)


def surround(picture, width):
    """Flat pictures [..., rows * width] with a row of zeros and one more on either side."""
    return jnp.pad(picture, [(0, 0)] * (picture.ndim - 1) + [(width + 1, width + 1)])


def box(picture, width):
    """The 3x3 box sums [..., rows * width] of surrounded pictures."""
    size = picture.shape[-1] - 2 * (width + 1)
    starts = [y * width + x for y in range(3) for x in range(3)]
    return sum(jax.lax.slice_in_dim(picture, start, start + size, axis=-1) for start in starts)


def relu(k, t, weight, inverse, identical, precision):
    """A and B after a convolution and its ReLU, from the box sums k and t of those before it.

    weight: s s' from box sums of the variances; inverse: 1/weight. Divides by 8, which is exact,
    not by 9: every layer makes the state 9/8 too large, the pooling repairs it. A rounded 1/9 would
    let k drift away from the variances, and near c = 1 every digit of 1 - c counts. With c =
    cos(theta) = 1 - e, sin(theta) = sqrt(e (1 + c)) is the one root, and `angle_polynomial` needs
    no other. Where nothing varies, and in the gaps, weight = inverse = 0, and 0 comes out.
    """
    number = np.dtype(precision).type
    e = (weight - jnp.abs(k)) * inverse
    e = jnp.where(identical | (e < number(correlation_one * np.finfo(precision).eps)), number(0), e)
    cos = 1 - e
    sin = jnp.sqrt(e * cos + e)
    slope = (cos - sin) * horner(angle_polynomial(number), e - sin) + number(3 / 32)  # kappa0/8
    slope = jnp.where(k < 0, number(1 / 8) - slope, slope)
    slope = jnp.where(weight > 0, slope, number(0))
    a = weight * (sin * number(1 / (8 * np.pi))) + k * slope
    return a, slope * t + a


def look_up(pictures, stage):
    """The products [pairs, entries] of a stage's planes, of flat pictures [2, pairs, pixels]."""
    return pictures[0][:, stage.places[0]] * pictures[1][:, stage.places[1]]


@functools.cache
def cone_program(height: int, width: int, precision: str, odd: bool, pairs: int, own: bool) -> Any:
    """`cone_function`, compiled for a number of pairs, all devices' together."""
    _, by_pair, everywhere = shardings()
    with configuration():
        shapes = [(height >> stage, width >> stage) for stage in (0, 0, 1, 2)]
        arrays = [
            jax.ShapeDtypeStruct((2, pairs, *shape), precision, sharding=by_pair)
            for shape in shapes
        ]
        numbers = [
            jax.ShapeDtypeStruct((), kind, sharding=everywhere) for kind in (np.int64, precision)
        ]
        return cone_function(height, width, precision, odd, own).lower(arrays, *numbers).compile()


def cone_function(height: int, width: int, precision: str, odd: bool, own: bool) -> Any:
    """The pass of a block of pairs through the three stages, under jax.jit.

    Takes [(x, x'), and the variances (v, v') at the start of each stage], each [2, pairs, h, w] of
    that stage, half the layers a stage (one more follows if they are odd), and (8/9)^layers.
    Returns pooled A and B [pairs]. With `own`, x = x': the variances come from the state itself,
    and those of the second and third stage are returned too.

    A and B are the real and imaginary part of one array, and a layer writes its results between the
    zeros of a second one, from which the next layer writes into the first: one kernel a layer, that
    copies and pads nothing.

    Its parts are nested, as all of them are traced for these five arguments: outside they would
    take them all again.
    """
    stages = [Stage(height >> stage, width >> stage, stage) for stage in range(4)]

    def run_stage(picture, variances, stage, half):
        line, (h, w) = len(stage.lines[1]), stage.shape
        pixels = flat(np.ones((h, w), bool))
        identical = own and stage.places[0] == stage.places[1]

        def layer(state, into, v):
            total = jnp.where(pixels, box(v, w + 1), 0)  # [2, pairs, (h + 1) (w + 1)]
            s = jnp.sqrt(total)
            tables = [
                surround(table, w + 1) for table in (total / 8, s, jnp.where(total > 0, 1 / s, 0))
            ]
            # Computed once a pixel, not once an entry.
            v, *tables = jax.lax.optimization_barrier(tables)
            both = box(state, line)
            after = relu(
                both.real,
                both.imag,
                *(look_up(table, stage) for table in tables),
                identical,
                precision,
            )
            return jax.lax.dynamic_update_slice(into, jax.lax.complex(*after), (0, line + 1)), v

        def two_layers(_, loop):
            first, second, v = loop
            second, v = layer(first, second, v)
            first, v = layer(second, first, v)
            return first, second, v

        state, v = surround(picture, line), surround(flat(variances), w + 1)
        state, other, v = jax.lax.fori_loop(0, half, two_layers, (state, jnp.zeros_like(state), v))
        if odd:
            state, _ = layer(state, other, v)
        return state[:, line + 1 : -line - 1]

    def cone(arrays, half, share):
        images, *variances = arrays
        a = b = look_up(surround(flat(images), width + 1), stages[0])
        found = []
        for stage, pooled in itertools.pairwise(stages):
            v = variances[stage.stage]
            if own and stage.stage:
                found.append(a[:, stage.diagonal()])
                v = jnp.stack([found[-1]] * 2)
            picture = run_stage(jax.lax.complex(a, b), v, stage, half)[:, stage.sources(pooled)]
            a, b = (part.mean(axis=-1) * share for part in (picture.real, picture.imag))
        return a[:, 0], b[:, 0], *found

    mesh, by_pair, everywhere = shardings()
    split, shared = PartitionSpec("devices"), PartitionSpec()
    mapped = jax.shard_map(
        cone, mesh=mesh, in_specs=(by_pair.spec, shared, shared), out_specs=split
    )
    return jax.jit(mapped, out_shardings=everywhere)
