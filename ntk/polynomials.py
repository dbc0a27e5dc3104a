"""Polynomials that the engines evaluate in place of arccos, fitted here."""

from typing import Any

import numpy as np

# 1 - c below 8 units of rounding counts as 0. Background pixels of two images have c = 1; rounding makes 1 - c = 1e-16
# of it, and the square root in arccos then an error of 1e-8 (in float32, 3e-4).
correlation_one = 8


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
