"""Both NTKs once more, slow and obvious, in extended precision with library functions."""

import numpy as np


def convolutional_ntk_twin(x1, x2, depth, cone=None):
    """NTK of one pair of images [h, w], numpy.longdouble; four pixel indices, no plane and no cone.

    cone: three bounds; entries of displacement beyond a stage's bound become NaN at its start.
    """
    pi = np.longdouble("3.14159265358979323846264338327950288")
    x1, x2 = np.longdouble(x1), np.longdouble(x2)
    pairs = [(x1, x2), (x1, x1), (x2, x2)]
    states = [[np.multiply.outer(x, y)] * 2 for x, y in pairs]
    for stage in range(3):
        if cone:
            y, x, v, u = np.indices(states[0][0].shape)
            outside = np.maximum(abs(y - v), abs(x - u)) > cone[stage]
            states[0] = [np.where(outside, np.nan, k) for k in states[0]]
        for _ in range(depth // 3):
            boxed = [[box(k) / 9 for k in state] for state in states]
            v1, v2 = (np.einsum("ijij->ij", a) for a, _ in boxed[1:])
            for i, (v, w) in enumerate([(v1, v2), (v1, v1), (v2, v2)]):
                k, theta = boxed[i]
                s = np.sqrt(np.multiply.outer(v, w))
                c = np.clip(np.divide(k, s, out=np.zeros_like(k), where=s > 0), -1, 1)
                if i:
                    np.einsum("ijij->ij", c)[:] = 1
                kappa0 = (pi - np.arccos(c)) / pi
                a = s * (np.sqrt(1 - c * c) / pi + c * kappa0)
                states[i] = [a, kappa0 * theta + a]
        states = [[pool(k) for k in state] for state in states]
    (a, b), (own1, _), (own2, _) = [[pool(k).item() for k in state] for state in states]
    norm = (1 + 4 * own1) * (1 + 4 * own2)
    return 4 / pi * np.arcsin(4 * a / np.sqrt(norm)) + 16 / pi * b / np.sqrt(norm - 16 * a * a)


def box(k):
    """Sum of k[p + o, q + o] over the nine offsets o, zero outside the image. [h, w, h, w]"""
    h, w = k.shape[:2]
    k = np.pad(k, 1)
    return sum(k[i : i + h, j : j + w, i : i + h, j : j + w] for i in range(3) for j in range(3))


def pool(k):
    """2x2 average pooling of both images, an odd last row or column dropped. [h, w, h, w]"""
    h, w = (s // 2 for s in k.shape[:2])
    k = k[: 2 * h, : 2 * w, : 2 * h, : 2 * w].reshape(h, 2, w, 2, h, 2, w, 2)
    return k.mean(axis=(1, 3, 5, 7))


def fully_connected_ntk_twin(x1, x2, depth):
    """NTK of images x1 [n1, d], x2 [n2, d], numpy.longdouble [n1, n2].

    The formulas of ntk/fully_connected.py.
    """
    pi, s = 4 * np.arctan(np.longdouble(1)), 1 / erf_moment(np.longdouble(1))
    x1, x2 = np.longdouble(x1), np.longdouble(x2)
    k = theta = s * np.sum(x1[:, None] * x2, axis=2) / x1.shape[1]
    q1, q2 = (s * np.sum(x**2, axis=1) / x.shape[1] for x in (x1, x2))
    for _ in range(depth):
        theta = s * theta * (4 / pi) / np.sqrt(np.outer(1 + 2 * q1, 1 + 2 * q2) - 4 * k * k)
        k = s * (2 / pi) * np.arcsin(2 * k / np.sqrt(np.outer(1 + 2 * q1, 1 + 2 * q2)))
        q1, q2 = s * erf_moment(q1), s * erf_moment(q2)
        theta = theta + k
    return theta


def erf_moment(q):
    """E[erf(z)^2] for z of variance q."""
    return 2 / (4 * np.arctan(np.longdouble(1))) * np.arcsin(2 * q / (1 + 2 * q))
