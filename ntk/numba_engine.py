"""The engine of CPUs: Numba, every plane through all layers of its stage in the cache.

A block of pairs side by side, the lanes, goes through the cone on one thread; a pair gets the same bits whatever its
block and thread.
"""

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ntk.arguments import whole_blocks
from ntk.polynomials import arccos_polynomial, correlation_one


class NumbaCone:
    """A and B at the end of the cone, of pairs of images [n, h, w].

    variances: [n, h, w] at the start of each stage, of which the images' own passes (own=True) fill in the last two.
    """

    lanes = 16  # pairs side by side: whole vectors of 64 bytes, and a plane still fits into the L2 cache

    def __init__(
        self, images: NDArray[np.floating[Any]], variances: list[NDArray[np.float64]], layers: int
    ) -> None:
        """`layers`: convolutions a stage."""
        self.images, self.variances, self.layers = images, tuple(variances), layers
        number = images.dtype.type
        tiny = correlation_one * np.finfo(number).eps
        self.constants = (*map(number, (2, 1, 1 / 8, 1 / (8 * np.pi), tiny)), *arccos_polynomial(images.dtype.name))
        self.block = 4 * self.lanes * numba.get_num_threads()

    def __call__(
        self, i: NDArray[np.intp], j: NDArray[np.intp], own: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pooled A and B [m] of the pairs (i, j) [m]; own: i = j, and their variances are filled in."""
        full = whole_blocks(len(i), self.lanes).reshape(-1, self.lanes)
        pairs = np.stack([i[full], j[full]], axis=1)
        a, b = numba_blocks(self.images, self.variances, pairs, self.layers, own, self.constants)
        return a.ravel()[: len(i)], b.ravel()[: len(i)]


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
    """S and 1/s before each ReLU of a stage, [layers, h, w * lanes] each, from the variances at its start.

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
