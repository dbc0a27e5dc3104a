"""The convolutional NTK on CPUs: Numba, in explicit 64-byte vectors, one square root an entry.

A pixel of a block of pairs is one vector (8 float64 or 16 float32 lanes, a pair each).
1. One square root: with theta = arccos c, cos = 1 - e, sin = sqrt(e (2 - e)), the polynomial V gives
   theta = pi/4 + sin(theta - pi/4) V,  sin(theta - pi/4) = (sin - cos)/sqrt(2), in t = sqrt(2) - (sin + cos): the
   rotation by pi/4 shrinks the range so far that degree 10 (float32: 4) is exact to rounding, for all lanes alike.
2. A plane holds rows summed over x; ReLU adds three of them, and writes sums over x in place, one slot up or down in
   turn: one store an entry instead of three. 3. Some planes go through a layer together, while its tables are in L2.
"""

import math
import operator
from fractions import Fraction

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic, overload

GROUP = 4  # planes that go through a layer together


class Vector(types.Type):
    def __init__(self, dtype):
        self.dtype, self.lanes = dtype, 512 // dtype.bitwidth
        super().__init__(f"Vector({dtype})")


@register_default(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.dtype).get_value_type(), kind.lanes))


def address(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


@intrinsic
def load(typing, array, index):
    vector = Vector(array.dtype)

    def generate(context, builder, signature, args):
        kind = context.get_value_type(vector)
        where = builder.bitcast(address(context, builder, array, *args), kind.as_pointer())
        return builder.load(where, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp), generate


@intrinsic
def store(typing, array, index, value):
    def generate(context, builder, signature, args):
        kind = context.get_value_type(value)
        where = builder.bitcast(address(context, builder, array, *args[:2]), kind.as_pointer())
        builder.store(args[2], where, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def splat(typing, scalar):
    vector = Vector(scalar)

    def generate(context, builder, signature, args):
        kind = context.get_value_type(vector)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
        return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)

    return vector(scalar), generate




def call(builder, context, vector, name, args):
    kind = context.get_value_type(vector)
    suffix = f"v{vector.lanes}f{vector.dtype.bitwidth}"
    f = builder.module.declare_intrinsic(f"llvm.{name}.{suffix}", fnty=ir.FunctionType(kind, [kind] * len(args)))
    return builder.call(f, args)


@intrinsic
def sqrt(typing, x):
    return x(x), lambda context, builder, signature, args: call(builder, context, x, "sqrt", args)


@intrinsic
def absolute(typing, x):
    return x(x), lambda context, builder, signature, args: call(builder, context, x, "fabs", args)


@intrinsic
def fma(typing, x, y, z):
    return x(x, x, x), lambda context, builder, signature, args: call(builder, context, x, "fma", args)


@intrinsic
def where_less(typing, x, limit, yes, no):
    """yes where x < limit, else no, lane by lane."""

    def generate(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return x(x, x, x, x), generate


def binary(operation, instruction):
    @intrinsic
    def apply(typing, x, y):
        return x(x, x), lambda context, builder, signature, args: getattr(builder, instruction)(*args)

    @overload(operation, inline="always")
    def typed(x, y):
        if isinstance(x, Vector) and x == y:
            return lambda x, y: apply(x, y)


for operation, instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    binary(operation, instruction)


def constants(precision):
    number = np.dtype(precision).type
    degree = 10 if precision == "float64" else 4
    # (theta - pi/4)/sin(theta - pi/4) as a polynomial in t = sqrt(2) (1 - cos(theta - pi/4)), 0 to sqrt(2) - 1.
    # Interpolation at Chebyshev's nodes in long double, as the powers of t lose digits.
    one, pi = np.longdouble(1), 4 * np.arctan(np.longdouble(1))
    top = np.sqrt(2 * one) - 1
    nodes = top * (1 + np.cos(pi * (np.arange(degree + 1) + one / 2) / (degree + 1))) / 2
    angle = 2 * np.arcsin(np.sqrt(nodes / np.sqrt(8 * one)))
    newton = angle / np.sin(angle)
    for m in range(1, degree + 1):  # divided differences
        newton[m:] = (newton[m:] - newton[m - 1 : -1]) / (nodes[m:] - nodes[:-m])
    powers = np.zeros(degree + 1, np.longdouble)
    for m in range(degree, -1, -1):
        powers[1:], powers[0] = powers[:-1] - nodes[m] * powers[1:], newton[m] - nodes[m] * powers[0]
    powers = [number(p) for p in -powers[::-1] / (8 * pi * np.sqrt(2 * one))]
    # `start` makes the slope at c = 1 exactly 1/8, with the roundings of `back`.
    fused = lambda x, y, z: number(float(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))))
    t = number(np.sqrt(2)) - number(1)
    even, odd = powers[0], powers[1]
    for p in powers[2::2]:
        even = fused(even, t * t, p)
    for p in powers[3::2]:
        odd = fused(odd, t * t, p)
    start = number(number(1 / 8) + fused(odd, t, even))
    tiny = number(8 * np.finfo(number).eps)
    return (number(0), number(1), number(np.sqrt(2)), number(1 / 8), number(1 / (8 * np.pi)), tiny, start, *powers)


@numba.njit(forceinline=True)
def front(A, up, at, down, T1, t1, T2, t2, i, L, c, signed):
    """Of one pixel: box sum k of A, w = s s', and cosine and sine of the angle."""
    k = load(A, up + i) + load(A, at + i) + load(A, down + i)
    w = load(T1, t1 + 2 * i) * load(T2, t2 + 2 * i)
    inverse = load(T1, t1 + 2 * i + L) * load(T2, t2 + 2 * i + L)
    e = (w - (absolute(k) if signed else k)) * inverse
    e = where_less(e, c[5], c[0], e)
    cos = c[1] - e
    return k, w, cos, sqrt(fma(e, cos, e))


@numba.njit(forceinline=True)
def back(k, w, cos, sin, kb, c, signed):
    """A and B after ReLU, over 8."""
    zero, one, root2, eighth, ypi, tiny, start = c[:7]
    t = (root2 - cos) - sin
    t2 = t * t
    angle, odd = c[7], c[8]  # even and odd powers apart, for a shorter chain
    for m in range(9, len(c), 2):
        angle = fma(angle, t2, c[m])
    for m in range(10, len(c), 2):
        odd = fma(odd, t2, c[m])
    angle = fma(odd, t, angle)
    slope = fma(sin - cos, angle, start)
    if signed:
        slope = where_less(k, zero, eighth - slope, slope)
    a = fma(w, sin * ypi, k * slope)
    return a, fma(slope, kb, a)


@numba.njit(forceinline=True)
def sweep_row(A, B, up, at, down, out, n, T1, t1, T2, t2, L, c, signed, sums):
    """One row of n pixels: sums of the rows up, at, down through ReLU into the row out, with `sums` summed over x.

    A pixel's first half runs beside the one's before it second half; the pixel after the last is read in vain.
    """
    up, at, down, out, t1, t2 = max(up, 0), max(at, 0), max(down, 0), max(out, 0), max(t1, 0), max(t2, 0)
    a0, a1, b0, b1 = c[0], c[0], c[0], c[0]
    now = front(A, up, at, down, T1, t1, T2, t2, 0, L, c, signed)
    for x in range(n):
        i = x * L
        kb = load(B, up + i) + load(B, at + i) + load(B, down + i)
        later = front(A, up, at, down, T1, t1, T2, t2, i + L, L, c, signed)
        a, b = back(*now, kb, c, signed)
        now = later
        if sums:
            if x > 0:
                store(A, out + i - L, a0 + a1 + a)
                store(B, out + i - L, b0 + b1 + b)
            a0, a1, b0, b1 = a1, a, b1, b
        else:
            store(A, out + i, a)
            store(B, out + i, b)
    if sums:
        store(A, out + (n - 1) * L, a0 + a1)
        store(B, out + (n - 1) * L, b0 + b1)


@numba.njit(cache=True)
def sweep(A, B, layer, h, n, row0, T1, p1, T2, p2, W, L, scalars, signed, sums):
    """A layer of a plane of h rows in slots 1 to h (odd layers) or 0 to h - 1 (even ones); leaves it in the other."""
    c = splats(scalars)
    zero = (h + 1) * n * L  # a row of zeros
    odd = layer % 2
    for step in range(h):
        y = step if odd else h - 1 - step
        at = (y + odd) * n * L
        up = at - n * L if y > 0 else zero
        down = at + n * L if y < h - 1 else zero
        out = (y + 1 - odd) * n * L
        t1, t2 = (p1 + y * W) * 2 * L, (p2 + y * W) * 2 * L
        if signed:
            sweep_row(A, B, up, at, down, out, n, T1, t1, T2, t2, L, c, True, True)
        elif sums:
            sweep_row(A, B, up, at, down, out, n, T1, t1, T2, t2, L, c, False, True)
        else:
            sweep_row(A, B, up, at, down, out, n, T1, t1, T2, t2, L, c, False, False)




def splats(scalars): pass


@numba.extending.overload(splats, inline="always")
def _splats(scalars):
    names = ", ".join(f"splat(s[{i}])" for i in range(len(scalars)))
    scope = {"splat": splat}
    exec(f"def body(scalars):\n    s = scalars\n    return ({names},)", scope)
    return scope["body"]


@numba.njit(cache=True)
def deviations(variances, index, depth, L, dtype):
    """s and 1/s before each ReLU of a stage: [depth, h, w, 2, L], flat."""
    _, h, w = variances.shape
    tables = np.zeros((depth * h * w + 2, 2, L), dtype)  # and two more, read in vain
    v = np.zeros((h + 2, w, L))
    r = np.zeros((h + 2, w + 2, L))
    for y in range(h):
        for x in range(w):
            for l in range(L):
                r[y + 1, x + 1, l] = variances[index[l], y, x]
    for layer in range(depth):
        for y in range(h):
            for x in range(w):
                for l in range(L):
                    v[y + 1, x, l] = r[y + 1, x, l] + r[y + 1, x + 1, l] + r[y + 1, x + 2, l]
        for y in range(h):
            for x in range(w):
                for l in range(L):
                    total = v[y, x, l] + v[y + 1, x, l] + v[y + 2, x, l]
                    r[y + 1, x + 1, l] = total / 8
                    s = math.sqrt(total)
                    tables[(layer * h + y) * w + x, 0, l] = s
                    tables[(layer * h + y) * w + x, 1, l] = 1 / s if s > 0 else 0.0
    return tables.ravel()


@numba.njit(cache=True)
def cone(images, variances, pair, layers, own, scalars, a, b):
    """One block of pairs [2, L] through the three stages, into a, b [L]; with `own` also into variances."""
    L, dtype = pair.shape[1], images.dtype
    H, W = images.shape[1:]
    x1, x2 = side_by_side(images, pair[0]), side_by_side(images, pair[1])
    state, place = np.zeros(2 * L, dtype), np.zeros((1, 1), np.int64)
    for stage in range(4):  # the fourth: the second of the two poolings at the end, without layers
        h0, w0, depth = H >> stage, W >> stage, layers if stage < 3 else 0
        ry, rx = min((16 >> stage) - 1, h0 - 1), min((16 >> stage) - 1, w0 - 1)
        by, bx = min((8 >> stage) - 1, h0 // 2 - 1), min((8 >> stage) - 1, w0 // 2 - 1)
        offset, size = np.zeros((2 * by + 1, 2 * bx + 1), np.int64), 0  # of the planes of the next stage
        for D in range(-by, by + 1):
            for E in range(-bx, bx + 1):
                offset[D + by, E + bx] = size
                size += (h0 // 2 - abs(D)) * (w0 // 2 - abs(E)) * L
        pooled = np.zeros(2 * size, dtype)
        if own and 0 < stage < 3:
            for l in range(L):
                for i in range(h0 * w0):
                    variances[stage][pair[0, l], i // w0, i % w0] = state[place[ry, rx] + i * L + l]
        v = variances[min(stage, 2)]
        T1, T2 = deviations(v, pair[0], depth, L, dtype), deviations(v, pair[1], depth, L, dtype)
        exact = np.zeros_like(T1) if own else T1  # 1/s = 0 makes 1 - c = 0: an image with itself at d = 0
        if own:
            for i in range(0, len(T1), 2 * L):
                exact[i : i + L] = T1[i : i + L]
        A, B = np.zeros((GROUP, ((h0 + 2) * w0 + 2) * L), dtype), np.zeros((GROUP, ((h0 + 2) * w0 + 2) * L), dtype)
        share = scalars[1] * ((8 / 9) ** depth / 16)  # the layers divide by 8, not 9
        for dy in range(-ry, ry + 1):
            h, py, qy = h0 - abs(dy), max(0, -dy), max(0, dy)
            for first in range(-rx, rx + 1, GROUP):  # some planes together, so that the tables of a layer stay in L2
                end = min(first + GROUP, rx + 1)
                for dx in range(first, end):
                    p1, p2, g = py * w0 + max(0, -dx), qy * w0 + max(0, dx), dx - first
                    start = place[dy + ry, dx + rx] if stage else 0
                    fill(A[g], B[g], x1, x2, p1, p2, w0, state, start, h, w0 - abs(dx), stage, L)
                    if depth:
                        sum_rows(A[g], h, w0 - abs(dx), L)
                        sum_rows(B[g], h, w0 - abs(dx), L)
                for layer in range(1, depth + 1):
                    base = (layer - 1) * h0 * w0
                    for dx in range(first, end):
                        p1, p2 = base + py * w0 + max(0, -dx), base + qy * w0 + max(0, dx)
                        T, g = exact if dy == 0 and dx == 0 else T1, dx - first
                        sweep(A[g], B[g], layer, h, w0 - abs(dx), 0, T, p1, T2, p2, w0, L, scalars,
                              stage == 0 and layer == 1, layer < depth)  # fmt: skip
                for dx in range(first, end):
                    g = dx - first
                    pool(A[g], B[g], pooled, offset, dy, dx, h, w0 - abs(dx), h0, w0, by, bx, 1 - depth % 2, share, L)
        state, place = pooled, offset
    a[:], b[:] = state[:L], state[L:]


@numba.njit(cache=True)
def side_by_side(images, index):
    """Some images lane by lane: [m, h, w], [L] -> [h * w * L]."""
    _, h, w = images.shape
    found = np.empty((h * w, len(index)), images.dtype)
    for l in range(len(index)):
        for y in range(h):
            for x in range(w):
                found[y * w + x, l] = images[index[l], y, x]
    return found.ravel()


@numba.njit(cache=True)
def fill(A, B, x1, x2, p1, p2, W, state, first, h, n, stage, L):
    """The plane at the start of a stage, h rows of n pixels, into slots 1 to h; a row of zeros after them."""
    p1, p2, first = max(p1, 0), max(p2, 0), max(first, 0)
    half = len(state) // 2
    for y in range(h):
        o, s, i1, i2 = (y + 1) * n * L, first + y * n * L, (p1 + y * W) * L, (p2 + y * W) * L
        for i in range(0, n * L, L):
            if stage == 0:
                value = load(x1, i1 + i) * load(x2, i2 + i)
                store(A, o + i, value)
                store(B, o + i, value)
            else:
                store(A, o + i, load(state, s + i))
                store(B, o + i, load(state, half + s + i))
    A[(h + 1) * n * L : (h + 2) * n * L] = 0
    B[(h + 1) * n * L : (h + 2) * n * L] = 0


@numba.njit(cache=True)
def sum_rows(A, h, n, L):
    """Replace the rows in slots 1 to h by their sums over three neighbours."""
    for y in range(1, h + 1):
        o = max(y * n * L, 0)
        left, mid = load(A, o), load(A, o)
        left = left - left
        for i in range(o + L, o + n * L, L):
            right = load(A, i)
            store(A, i - L, left + mid + right)
            left, mid = mid, right
        store(A, o + (n - 1) * L, left + mid)


@numba.njit(cache=True, error_model="numpy")
def pool(A, B, pooled, offset, dy, dx, h, n, h0, w0, by, bx, slot, share, L):
    """Add a plane to those after 2 x 2 pooling, which start at offset[D, E] in each half of pooled."""
    half, factor = len(pooled) // 2, splat(pooled.dtype.type(share))
    for i in range(h):
        y = max(0, -dy) + i
        Y, D = y // 2, (y + dy) // 2 - y // 2
        if max(Y, Y + D) >= h0 // 2 or abs(D) > by:
            continue
        for j in range(n):
            x = max(0, -dx) + j
            X, E = x // 2, (x + dx) // 2 - x // 2
            if max(X, X + E) < w0 // 2 and abs(E) <= bx:
                to = offset[D + by, E + bx] + ((Y - max(0, -D)) * (w0 // 2 - abs(E)) + X - max(0, -E)) * L
                o = ((i + slot) * n + j) * L
                store(pooled, to, fma(load(A, o), factor, load(pooled, to)))
                store(pooled, half + to, fma(load(B, o), factor, load(pooled, half + to)))


@numba.njit(cache=True, parallel=True)
def blocks(images, variances, pairs, layers, own, scalars):
    count, _, L = pairs.shape
    a, b = np.empty((count, L)), np.empty((count, L))
    for block in numba.prange(count):
        cone(images, variances, pairs[block], layers, own, scalars, a[block], b[block])
    return a, b
