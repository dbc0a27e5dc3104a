"""Polynomials that the engines evaluate in place of arccos and arcsin, fitted here in extended precision.

Each function returns coefficients as numpy.longdouble, the highest power's first, unless it says otherwise; the engines
scale and round them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Extended = NDArray[np.longdouble]

# 1 - c below 8 units of rounding counts as 0. Background pixels of two images have c = 1; rounding makes 1 - c = 1e-16
# of it, and the square root in arccos then an error of 1e-8 (in float32, 3e-4).
correlation_one = 8

one = np.longdouble(1)
pi, root2 = 4 * np.arctan(one), np.sqrt(2 * one)


def relu_dual_polynomial(precision: str) -> Extended:
    """P with kappa0 = (pi - theta)/pi = 3/4 + (sin - cos) P(sqrt(2) - (sin + cos)), for 0 <= theta <= pi/2.

    sin and cos are those of theta. With phi = theta - pi/4, sin - cos = sqrt(2) sin(phi), sin + cos = sqrt(2) cos(phi)
    and P = -phi/(sqrt(2) pi sin(phi)): turning by pi/4 halves the range, and degree 10 (float32: 4) is exact to
    rounding on all of it.
    """

    def ratio(t: Extended) -> Extended:
        phi = 2 * np.arcsin(np.sqrt(t / (2 * root2)))  # t = sqrt(2) (1 - cos(phi))
        return -phi / (root2 * pi * np.sin(phi))

    return interpolation(ratio, 10 if precision == "float64" else 4, root2 - 1)


def arcsin_polynomial() -> Extended:
    """P with theta = sin P(1 - cos), for 0 <= theta <= pi/2: float64, and small angles keep their digits."""

    def ratio(t: Extended) -> Extended:
        theta = 2 * np.arcsin(np.sqrt(t / 2))
        return theta / np.sin(theta)

    return interpolation(ratio, 20, one)


def interpolation(function: Callable[[Extended], Extended], degree: int, top: np.longdouble) -> Extended:
    """The polynomial that takes a function's values at Chebyshev's nodes on [0, top], by divided differences."""
    nodes = top * (1 + np.cos(pi * (np.arange(degree + 1) + one / 2) / (degree + 1))) / 2
    newton = function(nodes)
    for m in range(1, degree + 1):
        newton[m:] = (newton[m:] - newton[m - 1 : -1]) / (nodes[m:] - nodes[:-m])
    powers = np.zeros(degree + 1, np.longdouble)  # the lowest first, until they are returned
    for node, difference in zip(nodes[::-1], newton[::-1], strict=True):  # powers <- powers (x - node) + difference
        powers[1:], powers[0] = powers[:-1] - node * powers[1:], difference - node * powers[0]
    return powers[::-1]


def arccos_polynomial(precision: str) -> tuple[Any, ...]:
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
