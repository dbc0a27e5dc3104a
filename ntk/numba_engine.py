"""The engine of CPUs: Numba, in explicit vectors, on as many threads as Numba has.

The fully-connected network comes first, then the convolutional one, every plane of which goes
through all layers of its stage in the cache. A pixel of a plane is one vector: its lanes are as
many pairs of images, which go through the cone side by side on one thread. A pair gets the same
bits whatever its lane, block and thread.

Three things make a layer cheap. A plane holds sums over x: adding three of its rows completes the
box, and what ReLU makes of them is summed over x before it is stored, so an entry is stored once a
layer. arccos needs no branch and no other square root than the sine, see ntk/polynomials.py. And
some planes go through a layer together, so that they share the layer's s and 1/s while these are in
the cache.

Every layer divides by 8, which is exact, instead of 9: it makes A and B 9/8 too large, and the
pooling repairs it. A rounded 1/9 would let K drift away from the variances, and near c = 1 every
digit of e = 1 - |c| counts.

Compiled code is kept for the next process, see ntk/numba_cache.py.
"""

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numba.core import types
from numpy.typing import NDArray

from ntk.arguments import whole_blocks
from ntk.formulas import reach
from ntk.numba_cache import cached
from ntk.numba_vectors import (
    absolute,
    fma,
    lanes_of,
    load,
    negative,
    root,
    splat,
    store,
    where_less,
)
from ntk.polynomials import angle_polynomial, arcsin_polynomial, correlation_one

GROUP = 4  # planes that go through a layer together
PIECE = 512  # entries of a row of the other network's matrix that go through all layers together
configuration: Any = numba.config
numba.extending.register_jitable(reach)


def in_parallel(compute: Callable[[Any], None], tasks: Iterable[Any]) -> None:
    """Call compute(task) for all tasks, side by side on as many threads as Numba has."""
    with ThreadPoolExecutor(count_threads()) as threads:
        for _ in threads.map(compute, tasks):
            pass


def count_threads() -> int:
    """Numba's threads; as many as if its threading layer, not needed here, could be loaded."""
    try:
        return numba.get_num_threads()
    except ValueError:
        return configuration.NUMBA_NUM_THREADS


# ---- the fully-connected network ----


def dense_layers(
    kernel: NDArray[np.float64], r1: NDArray[np.float64], r2: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The NTK [m, n] of the fully-connected network, from K0 [m, n] and the `reciprocals` [depth,
    m] and [depth, n].

    The rows are shared out to the threads. An entry gets the same bits whatever its block.
    """
    # s 4/(3 pi) with the digits that a float64 leaves out
    exact = 2 / (3 * np.arcsin(np.longdouble(2) / 3))
    constants = (0.0, 1.0, 2 / 3, float(exact), float(exact - float(exact)), *arcsin_polynomial())
    kernel, theta, threads = np.ascontiguousarray(kernel), np.empty(kernel.shape), count_threads()

    def compute(rows: slice) -> None:
        dense(kernel[rows], np.ascontiguousarray(r1[:, rows]), r2, constants, theta[rows])

    in_parallel(
        compute,
        [
            slice(len(kernel) * t // threads, len(kernel) * (t + 1) // threads)
            for t in range(threads)
        ],
    )
    return theta


def reciprocals(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tables [depth, n] of r = sqrt(3/(1 + 2q)) before every hidden layer, zeros up to whole
    vectors, from q.

    In extended precision: the variances come to 1 with depth, and r with them exactly, so that no
    error adds up.
    """
    r, v = (
        np.zeros((len(q) - 1, q.shape[1] + -q.shape[1] % lanes_of(q))),
        q[0].astype(np.longdouble),
    )
    for layer in range(len(r)):
        r[layer, : len(v)] = np.sqrt(3 / (1 + 2 * v))
        v = np.arcsin(2 * v / (1 + 2 * v)) / np.arcsin(np.longdouble(2) / 3)
    return r


@cached
@numba.njit(nogil=True)
def dense(kernel, r1, r2, constants, theta):
    """Rows of K0 [m, n] through all hidden layers, in pieces that stay in the cache, into theta [m,
    n].

    With sin = 2 K/sqrt((1 + 2q)(1 + 2q')) = 2/3 K r r', cos = sqrt(1 - sin^2) and f = s 4/(3 pi) a
    layer is
        Theta <- f Theta r r'/cos,  K <- f K r r' P(1 - cos),  Theta <- K + Theta.
    Hundreds of layers multiply by f, whose rounding error would add up: it is the sum of two
    numbers. r has none where q = 1, which deep layers come to.
    """
    c, lanes, width = splat(constants), lanes_of(kernel), r2.shape[1]
    zero, one, two_thirds, f, rest_of_f = c[:5]
    k, t, r2 = aligned(PIECE, kernel.dtype), aligned(PIECE, kernel.dtype), r2.ravel()
    for start in range(0, kernel.shape[1], PIECE):
        count = min(PIECE, kernel.shape[1] - start)
        for row in range(len(kernel)):
            for i in range(count):
                k[i] = t[i] = kernel[row, start + i]
            for layer in range(len(r1)):
                r = splat((r1[layer, row],))[0]
                for i in range(0, count, lanes):
                    rr = load(r2, layer * width + start + i) * r
                    new = load(k, i) * rr
                    sine = two_thirds * new
                    cosine = root(fma(zero - sine, sine, one))
                    new = new * polynomial(one - cosine, c[5:])
                    new = fma(f, new, rest_of_f * new)
                    old = load(t, i) * rr / cosine
                    store(k, i, new)
                    store(t, i, fma(f, old, fma(rest_of_f, old, new)))
            for i in range(count):
                theta[row, start + i] = t[i]


# ---- the convolutional network ----


class NumbaCone:
    """A and B at the end of the cone, of pairs of images [n, h, w].

    variances: [n, h, w] at the start of each stage, of which the images' own passes (own=True) fill
    in the last two.
    """

    def __init__(
        self, images: NDArray[np.floating[Any]], variances: list[NDArray[np.float64]], layers: int
    ) -> None:
        """`layers`: convolutions a stage."""
        self.images, self.variances, self.layers = images, tuple(variances), layers
        self.lanes = lanes_of(images)
        self.block = 8 * self.lanes * count_threads()
        number = images.dtype.type
        tiny = correlation_one * np.finfo(number).eps
        self.constants = (*map(number, (0, 1, tiny, 1 / 8, 3 / 32)), *angle_polynomial(number))

    def __call__(
        self, i: NDArray[np.intp], j: NDArray[np.intp], own: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pooled A and B [m] of the pairs (i, j) [m].

        own: i = j, and their variances are filled in.
        """
        full = whole_blocks(len(i), self.lanes).reshape(-1, self.lanes)
        pairs = np.stack([i[full], j[full]], axis=1)
        a, b = np.empty((2, *full.shape))

        def compute(block: int) -> None:
            state = self.images, self.variances, pairs[block]
            cone(*state, self.layers, own, self.constants, a[block], b[block])

        in_parallel(compute, range(len(pairs)))
        return a.ravel()[: len(i)], b.ravel()[: len(i)]


def is_compiled(network: str, precision: str) -> bool:
    """Whether this machine has the engine for that network in Numba's cache.

    Else the first call compiles it.
    """
    if configuration.DISABLE_JIT:
        return False
    number = numba.from_dtype(np.dtype(precision))
    constants = 5 + len(angle_polynomial(np.dtype(precision).type))
    variances = types.UniTuple(numba.float64[:, :, ::1], 3)
    arguments = (number[:, :, ::1], variances, numba.intp[:, ::1], numba.intp, numba.boolean)
    last = types.UniTuple(number, constants), numba.float64[::1], numba.float64[::1]
    compiled: Any = cone
    signature: tuple[Any, ...] = (*arguments, *last)
    if network == "fully-connected":  # in float64 always
        matrix, constants = numba.float64[:, ::1], 5 + len(arcsin_polynomial())
        signature = (matrix, matrix, matrix, types.UniTuple(numba.float64, constants), matrix)
        compiled = dense
    return (
        signature in compiled.overloads
        or compiled._cache.load_overload(signature, compiled.targetctx) is not None
    )


@cached
@numba.njit(nogil=True)
def cone(images, variances, pair, layers, own, constants, a, b):
    """One block of pairs [2, lanes] through the three stages, into a, b [lanes].

    With `own` also into variances.
    """
    lanes = pair.shape[1]
    x1, x2 = side_by_side(images, pair[0]), side_by_side(images, pair[1])
    state, starts = np.zeros(0, images.dtype), np.zeros((1, 1), np.int64)
    for stage in range(4):  # the fourth: the second of the two poolings at the end, without layers
        h, w, depth = images.shape[1] >> stage, images.shape[2] >> stage, layers if stage < 3 else 0
        reach_y, reach_x = starts.shape[0] // 2, starts.shape[1] // 2
        if stage == 0:
            reach_y, reach_x = reach(h, 0), reach(w, 0)
        elif own and stage < 3:
            read_variances(variances[stage], pair[0], state, starts[reach_y, reach_x])
        v = variances[min(stage, 2)]
        table1, table2 = (
            deviations(v, pair[0], depth, images.dtype),
            deviations(v, pair[1], depth, images.dtype),
        )
        pooled, pooled_starts = empty_planes(h // 2, w // 2, stage + 1, lanes, images.dtype)
        planes = aligned(GROUP * (h + 2) * w * 2 * lanes, images.dtype).reshape(GROUP, -1)
        for dy in range(-reach_y, reach_y + 1):
            for first in range(-reach_x, reach_x + 1, GROUP):
                group = range(first, min(first + GROUP, reach_x + 1))
                for dx in group:
                    plane = planes[dx - first]
                    if stage == 0:
                        multiply(plane, x1, x2, dy, dx, h, w)
                    else:
                        copy(plane, state, starts[dy + reach_y, dx + reach_x], dy, dx, h, w)
                    if depth:
                        sum_over_x(plane, h - abs(dy), w - abs(dx))
                for layer in range(depth):
                    first_one, last_one = stage == 0 and layer == 0, layer == depth - 1
                    for dx in group:
                        # Correlation 1: a pixel with itself.
                        identical = own and dy == 0 and dx == 0
                        kind = first_one, last_one, identical
                        convolve(
                            planes[dx - first], dy, dx, h, w, layer, kind, table1, table2, constants
                        )
                for dx in group:
                    pool(planes[dx - first], depth, pooled, pooled_starts, dy, dx, h, w)
        state, starts = pooled, pooled_starts
    for lane in range(lanes):
        a[lane], b[lane] = state[lane], state[lanes + lane]


@cached
@numba.njit
def aligned(size, dtype):
    """Zeros [size] that start at a line of the cache, like every vector in them then."""
    zeros = np.zeros(size + 64, dtype)
    start = -zeros.ctypes.data % 64 // zeros.itemsize
    return zeros[start : start + size]


@cached
@numba.njit
def side_by_side(images, index):
    """Some images lane by lane: [m, h, w], [lanes] -> [h * w * lanes]."""
    _, h, w = images.shape
    found = aligned(h * w * len(index), images.dtype).reshape(h, w, -1)
    for y in range(h):
        for x in range(w):
            for lane in range(len(index)):
                found[y, x, lane] = images[index[lane], y, x]
    return found.ravel()


@cached
@numba.njit
def read_variances(variances, index, state, start):
    """Set the variances of images `index` [lanes] to A in the plane d = 0, from state[start] on."""
    _, h, w = variances.shape
    for lane in range(len(index)):
        for y in range(h):
            for x in range(w):
                variances[index[lane], y, x] = state[start + (y * w + x) * 2 * len(index) + lane]


@cached
@numba.njit
def deviations(variances, index, layers, dtype):
    """Tables of s/sqrt(8 pi) and 1/s before each ReLU of a stage, [layers, h, w, 2, lanes], flat.

    variances [n, h, w]: at its start, of all images. Scaled like the planes, 9/8 a layer. Where
    there is no variance 1/s = 0, and no NaN comes of it.
    """
    (_, h, w), lanes = variances.shape, len(index)
    # Two pixels more are read in vain.
    table = aligned((layers * h * w + 2) * 2 * lanes, dtype).reshape(-1, 2, lanes)
    v, sums = np.zeros((h + 2, w + 2, lanes)), np.zeros((h + 2, w, lanes))
    for y in range(h):
        for x in range(w):
            for lane in range(lanes):
                v[y + 1, x + 1, lane] = variances[index[lane], y, x]
    for layer in range(layers):
        for y in range(1, h + 1):
            for x in range(w):
                for lane in range(lanes):
                    sums[y, x, lane] = v[y, x, lane] + v[y, x + 1, lane] + v[y, x + 2, lane]
        for y in range(h):
            for x in range(w):
                for lane in range(lanes):
                    total = sums[y, x, lane] + sums[y + 1, x, lane] + sums[y + 2, x, lane]
                    s = math.sqrt(total)
                    v[y + 1, x + 1, lane] = total / 8
                    table[(layer * h + y) * w + x, 0, lane] = s / math.sqrt(8 * math.pi)
                    table[(layer * h + y) * w + x, 1, lane] = 1 / s if s > 0 else 0.0
    return table.ravel()


@cached
@numba.njit
def empty_planes(h, w, stage, lanes, dtype):
    """Zeros for all planes of a stage, one after the other, and where each starts, [2 reach_y + 1,
    2 reach_x + 1].

    A plane holds A and B of its pixels, [h - |dy|, w - |dx|, 2, lanes].
    """
    reach_y, reach_x = reach(h, stage), reach(w, stage)
    starts, size = np.zeros((2 * reach_y + 1, 2 * reach_x + 1), np.int64), 0
    for dy in range(-reach_y, reach_y + 1):
        for dx in range(-reach_x, reach_x + 1):
            starts[dy + reach_y, dx + reach_x] = size
            size += (h - abs(dy)) * (w - abs(dx)) * 2 * lanes
    return aligned(size, dtype), starts


# ---- a plane: its rows lie in slots 1 to h or 0 to h - 1 in turn, zeros in slot h + 1 ----


@cached
@numba.njit
def multiply(plane, x1, x2, dy, dx, h, w):
    """The plane at the start of the first stage, A = B = x[p] x'[p + d], into slots 1 to h."""
    lanes, n, rows = lanes_of(plane), w - abs(dx), h - abs(dy)
    p, q = max(0, -dy) * w + max(0, -dx), max(0, dy) * w + max(0, dx)
    for y in range(rows):
        for x in range(n):
            value = load(x1, (p + y * w + x) * lanes) * load(x2, (q + y * w + x) * lanes)
            to = ((y + 1) * n + x) * 2 * lanes
            store(plane, to, value)
            store(plane, to + lanes, value)
    clear(plane, (rows + 1) * n * 2 * lanes, n * 2 * lanes)


@cached
@numba.njit
def clear(plane, start, size):
    """Set plane[start : start + size] to zero."""
    zero = splat((plane.dtype.type(0),))[0]
    for i in range(start, start + size, lanes_of(plane)):
        store(plane, i, zero)


@cached
@numba.njit
def copy(plane, state, start, dy, dx, h, w):
    """The plane at the start of a later stage, from state[start:], into slots 1 to h."""
    n, rows = (w - abs(dx)) * 2 * lanes_of(plane), h - abs(dy)
    for i in range(0, rows * n, lanes_of(plane)):
        store(plane, n + i, load(state, start + i))
    clear(plane, (rows + 1) * n, n)


@cached
@numba.njit
def sum_over_x(plane, h, n):
    """Replace the rows in slots 1 to h by their sums over three neighbours."""
    lanes, pixel = lanes_of(plane), 2 * lanes_of(plane)
    for y in range(1, h + 1):
        for half in range(y * n * pixel, y * n * pixel + pixel, lanes):  # A, then B
            here, left = load(plane, half), load(plane, half)
            left = left - left
            for i in range(half, half + (n - 1) * pixel, pixel):
                right = load(plane, i + pixel)
                store(plane, i, left + here + right)
                left, here = here, right
            store(plane, half + (n - 1) * pixel, left + here)


@cached
@numba.njit
def convolve(plane, dy, dx, h, w, layer, kind, table1, table2, constants):
    """A convolution and its ReLU on plane (dy, dx) of h x w images, in place.

    kind: whether the layer is the first of all, and the last of its stage, and whether all
    correlations are 1.
    """
    c, place = splat(constants), (dy, dx, h, w, layer)
    first, last, identical = kind
    tiny = c[1] + c[1] if identical else c[2]  # below it e counts as 0
    if last:
        convolve_rows(plane, place, table1, table2, tiny, c, True, False)
    elif first:
        convolve_rows(plane, place, table1, table2, tiny, c, True, True)
    else:
        convolve_rows(plane, place, table1, table2, tiny, c, False, True)


@numba.njit(forceinline=True)
def convolve_rows(plane, place, table1, table2, tiny, c, signed, sums):
    """All rows through box and ReLU, in place; sums: over x, for the next layer.

    signed: K < 0 may occur. It can't after a ReLU, but last layers take it too, which spares a copy
    of the code.

    A pixel takes four steps: correlation, sine, slope, relu. Each goes beside an earlier step of
    one of the next three pixels, because a CPU looks ahead by fewer operations than a pixel needs.
    After a row's last pixels come the first ones of the next row.
    """
    dy, dx, h, w, _ = place
    lanes, pixel, rows, n = lanes_of(plane), 2 * lanes_of(plane), h - abs(dy), w - abs(dx)
    row, out = row_of(0, place, lanes)
    sloped, sined, correlated = first_pixels(plane, row, table1, table2, tiny, c, signed)
    for turn in range(rows):
        # The last row's is read in vain.
        next_row, next_out = row_of(min(turn + 1, rows - 1), place, lanes)
        if n < 3:  # too short to go on from the row before
            sloped, sined, correlated = first_pixels(plane, row, table1, table2, tiny, c, signed)
        a0, a1, b0, b1 = c[0], c[0], c[0], c[0]  # A and B of the two pixels before
        for read, start, stop, ahead in (row, 0, n - 3, 3), (next_row, max(0, n - 3), n, 3 - n):
            for x in range(start, stop):
                i, t = x * pixel, box(plane, row, x * pixel + lanes)
                a, b = relu(*sloped, t)
                sloped, sined = slope(*sined, c, signed), sine(*correlated, tiny, c)
                correlated = correlation(
                    plane, read, (x + ahead) * pixel, table1, table2, c, signed
                )
                if not sums:
                    store(plane, out + i, a)
                    store(plane, out + i + lanes, b)
                elif x > 0:
                    store(plane, out + i - pixel, a0 + a + a1)
                    store(plane, out + i - pixel + lanes, b0 + b + b1)
                a0, a1, b0, b1 = a1, a, b1, b
        if sums:
            store(plane, out + (n - 1) * pixel, a0 + a1)
            store(plane, out + (n - 1) * pixel + lanes, b0 + b1)
        row, out = next_row, next_out


@numba.njit(forceinline=True)
def row_of(turn, place, lanes):
    """The row whose turn it is, and where it goes.

    Of the row: where the rows that it is made of, and its table entries, start.
    """
    dy, dx, h, w, layer = place
    rows, n = h - abs(dy), w - abs(dx)
    stride, zeros = n * 2 * lanes, (rows + 1) * n * 2 * lanes
    up = layer % 2 == 0  # the rows move from slots 1 to h up by one, else back down
    y = turn if up else rows - 1 - turn
    here = (y + 1) * stride if up else y * stride
    above = here - stride if y > 0 else zeros
    below = here + stride if y < rows - 1 else zeros
    p = ((layer * h + max(0, -dy) + y) * w + max(0, -dx)) * 2 * lanes
    q = ((layer * h + max(0, dy) + y) * w + max(0, dx)) * 2 * lanes
    return (above, here, below, p, q), here - stride if up else here + stride


@numba.njit(forceinline=True)
def first_pixels(plane, row, table1, table2, tiny, c, signed):
    """A row's first pixel after three steps, its second after two, its third after one."""
    pixel = 2 * lanes_of(plane)
    sloped = slope(
        *sine(*correlation(plane, row, 0, table1, table2, c, signed), tiny, c), c, signed
    )
    sined = sine(*correlation(plane, row, pixel, table1, table2, c, signed), tiny, c)
    return sloped, sined, correlation(plane, row, 2 * pixel, table1, table2, c, signed)


@numba.njit(forceinline=True)
def box(plane, row, i):
    """The sum over three rows, of what lies i after their start."""
    return load(plane, row[0] + i) + load(plane, row[1] + i) + load(plane, row[2] + i)


@numba.njit(forceinline=True)
def correlation(plane, row, i, table1, table2, c, signed):
    """Of the pixel that lies i after the start of a row: K, s s'/(8 pi) and e = 1 - |c|."""
    k, p, q, lanes = box(plane, row, i), row[3] + i, row[4] + i, lanes_of(plane)
    inverse = load(table1, p + lanes) * load(table2, q + lanes)
    e = fma(negative(absolute(k) if signed else k), inverse, c[1])
    return k, load(table1, p) * load(table2, q), e


@numba.njit(forceinline=True)
def sine(k, w, e, tiny, c):
    """The same, and the sine of arccos |c|."""
    e = where_less(e, tiny, c[0], e)
    return k, w, e, root(fma(e, c[1] - e, e))


@numba.njit(forceinline=True)
def slope(k, w, e, sin, c, signed):
    """K, s s'/(8 pi) times the sine, and kappa0/8, from what `sine` returns."""
    zero, one, _, eighth, three_32nds = c[:5]
    kappa0 = fma(one - (e + sin), polynomial(e - sin, c[5:]), three_32nds)
    if signed:
        kappa0 = where_less(k, zero, eighth - kappa0, kappa0)
    return k, w * sin, kappa0


@numba.njit(forceinline=True)
def relu(k, w_sin, kappa0, t):
    """A = s s' kappa1, B = kappa0 T + A after a ReLU, over 8, from t and what `slope` returns."""
    return fma(k, kappa0, w_sin), fma(kappa0, k + t, w_sin)


@numba.njit(forceinline=True)
def polynomial(x, powers):
    """A polynomial in x, from its coefficients, the highest power's first."""
    # Every other power apart, for shorter chains.
    first, second, square = powers[0], powers[1], x * x
    for m in range(2, len(powers), 2):
        first = fma(first, square, powers[m])
    for m in range(3, len(powers), 2):
        second = fma(second, square, powers[m])
    return fma(first, x, second) if len(powers) % 2 == 0 else fma(second, x, first)


@cached
@numba.njit(error_model="numpy")
def pool(plane, depth, pooled, starts, dy, dx, h, w):
    """Add a plane, after the stage's `depth` layers, to the planes after 2 x 2 pooling.

    Pixels p and p + d become p // 2 and (p + d) // 2 along each axis; what lies beyond the cone is
    left out.
    """
    lanes, n, slot = lanes_of(plane), w - abs(dx), 1 - depth % 2
    pixel, share = 2 * lanes, splat((plane.dtype.type((8 / 9) ** depth / 16),))[0]
    for i in range(h - abs(dy)):
        Y, D = halve(max(0, -dy) + i, dy)
        if max(Y, Y + D) >= h // 2 or abs(D) > starts.shape[0] // 2:
            continue
        for j in range(n):
            X, E = halve(max(0, -dx) + j, dx)
            if max(X, X + E) < w // 2 and abs(E) <= starts.shape[1] // 2:
                start = starts[D + starts.shape[0] // 2, E + starts.shape[1] // 2]
                to = start + ((Y - max(0, -D)) * (w // 2 - abs(E)) + X - max(0, -E)) * pixel
                at = ((i + slot) * n + j) * pixel
                store(pooled, to, fma(load(plane, at), share, load(pooled, to)))
                store(
                    pooled,
                    to + lanes,
                    fma(load(plane, at + lanes), share, load(pooled, to + lanes)),
                )


@numba.njit(forceinline=True)
def halve(p, d):
    """Pixel p // 2 and the displacement of (p + d) // 2 from it."""
    return p // 2, (p + d) // 2 - p // 2
