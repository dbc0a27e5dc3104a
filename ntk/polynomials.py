"""Polynomials that the engines evaluate in place of arccos and arcsin, fitted here.

Lines are dense where they are one formula: taken apart, they could not be compared with it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# 1 - c below 8 units of rounding counts as 0. Background pixels of two images have c = 1; rounding
# makes 1 - c = 1e-16 of it, and the square root in arccos then an error of 1e-8 (in float32, 3e-4).
correlation_one = 8


def angle_polynomial(number: type[np.floating[Any]]) -> tuple[Any, ...]:
    """Coefficients of P, highest power first, for the slope kappa0/8 of ReLU's dual activation as
    `number`s.

    For cos = cos(theta), sin = sin(theta), 0 <= theta <= pi/2, turn the angle by pi/4, which halves
    its range:

        kappa0/8 = (1 - theta/pi)/8 = 3/32 + (cos - sin) P(x),   x = 1 - cos - sin
        P = phi/(8 sqrt(2) pi sin(phi)),   phi = theta - pi/4,   cos(phi) = (1 - x)/sqrt(2)

    P is smooth on 1 - sqrt(2) <= x <= 0: degree 10 (float32: 5) is exact to rounding. At theta = 0
    both x = 0 and P(0) = 1/32 are exact, so that there kappa0 is exactly 1, with fused multiply-add
    or without.
    """
    degree = 10 if number == np.float64 else 5
    one, pi = np.longdouble(1), 4 * np.arctan(np.longdouble(1))
    # Chebyshev's nodes, stretched so that the last is x = 0. In extended precision: the powers of x
    # lose a digit.
    nodes = -np.cos(pi * (np.arange(degree + 1) + one / 2) / (degree + 1))
    nodes = (1 - np.sqrt(2 * one)) * (nodes[-1] - nodes) / (nodes[-1] + 1)
    phi = 2 * np.arcsin(np.sqrt((1 - (1 - nodes) / np.sqrt(2 * one)) / 2))
    values = phi / np.sin(phi) / (8 * np.sqrt(2 * one) * pi)
    powers = interpolation(nodes, values)
    powers[-1] = one / 32
    return tuple(number(p) for p in powers)


def arcsin_polynomial() -> tuple[float, ...]:
    """Coefficients of P, highest power first: theta = sin(theta) P(1 - cos(theta)), 0 <= theta <=
    pi/2.

    Small angles keep all their digits, as P(0) = 1. Degree 20 is exact to rounding.
    """
    one, pi = np.longdouble(1), 4 * np.arctan(np.longdouble(1))
    nodes = (1 + np.cos(pi * (np.arange(21) + one / 2) / 21)) / 2  # Chebyshev's
    theta = 2 * np.arcsin(np.sqrt(nodes / 2))
    return tuple(float(power) for power in interpolation(nodes, theta / np.sin(theta)))


def interpolation(
    nodes: NDArray[np.longdouble], values: NDArray[np.longdouble]
) -> NDArray[np.longdouble]:
    """Coefficients, highest power first, of the polynomial through (nodes, values)."""
    newton = values.copy()
    for m in range(1, len(nodes)):
        newton[m:] = (newton[m:] - newton[m - 1 : -1]) / (nodes[m:] - nodes[:-m])
    powers = np.zeros(len(nodes), np.longdouble)  # the lowest first
    for node, difference in zip(nodes[::-1], newton[::-1], strict=True):
        powers[1:], powers[0] = powers[:-1] - node * powers[1:], difference - node * powers[0]
    return powers[::-1]
