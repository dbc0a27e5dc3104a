"""Phases of quantum signal processing for an odd real polynomial, by Newton's method.

Symmetric phases are unique in a neighbourhood of where the iteration starts, and Newton's method
finds them for all polynomials below 1 in practice: Dong, Lin, Ni, Wang, arXiv:2307.12468.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def signal_products(
    phases: Array, x: Array
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Products of e^{i phi_0 Z} W(x) e^{i phi_1 Z} ... from the left and from the right. [phases,
    x, 2, 2] each

    W(x) = [[x, i r], [i r, x]], r = sqrt(1 - x^2). left[k] ends with phase k, right[k] begins
    behind it.
    """
    r = np.sqrt(1 - x**2)
    w = np.array([[x, 1j * r], [1j * r, x]]).transpose(2, 0, 1)
    turns = np.exp(1j * phases[:, None] * np.array([1, -1]))  # [phases, 2], the diagonals
    left = np.empty((len(phases), len(x), 2, 2), complex)
    right = np.empty_like(left)
    left[0], right[-1] = np.diag(turns[0]), np.eye(2)
    for k in range(1, len(phases)):
        left[k] = (left[k - 1] @ w) * turns[k]
        right[-1 - k] = w @ (turns[-k][:, None] * right[-k])
    return left, right


def signal_polynomial(phases: Array, x: Array) -> Array:
    """Re <0| e^{i phi_0 Z} W(x) e^{i phi_1 Z} ...

    W(x) e^{i phi_d Z} |0>. [d + 1], [...] -> [...]
    """
    return signal_products(phases, np.atleast_1d(x))[0][-1, :, 0, 0].real


def find_phases(
    polynomial: Callable[[Array], Array], degree: int, tolerance: float = 1e-13
) -> Array:
    """Symmetric phases [degree + 1] whose `signal_polynomial` is this odd polynomial, below 1 on
    [-1, 1].

    Raises ArithmeticError where Newton's method does not converge.
    """
    free = (degree + 1) // 2
    # Determine an odd polynomial of that degree.
    x = np.cos((2 * np.arange(free) + 1) * np.pi / (4 * free))
    target = polynomial(x)
    phases = np.zeros(degree + 1)
    phases[[0, -1]] = np.pi / 4
    for share in (0.5, 0.9, 0.99, 1.0):  # of the target, so that each start is near
        for _ in range(60):
            left, right = signal_products(phases, x)
            residual = left[-1, :, 0, 0].real - share * target
            if np.abs(residual).max() < tolerance:
                break
            # the derivative by phase k puts iZ behind it
            slopes = (
                1j * np.einsum("kxa,a,kxa->kx", left[:, :, 0, :], [1, -1], right[:, :, :, 0])
            ).real
            jacobian = (slopes + slopes[::-1])[:free].T  # [x, free]
            step = np.linalg.lstsq(jacobian, residual)[0]
            phases -= np.concatenate([step, step[::-1]])
        else:
            raise ArithmeticError(
                f"no phases for degree {degree}: off by {np.abs(residual).max():.1e}"
            )
    return phases


def reflection_phases(phases: Array) -> Array:
    """The same for R(x) = [[x, r], [r, -x]], which a block encoding does, in the place of W(x) = i
    e^{-..} R e^{-..}.

    W = i e^{-i pi/4 Z} R e^{-i pi/4 Z}; the factor i of each, for <0|..|0>, goes into the first
    phase.
    """
    found = phases - np.pi / 2
    found[[0, -1]] += np.pi / 4
    found[0] += (len(phases) - 1) * np.pi / 2
    return found
