"""What the engines share with the files that state the mathematics: neither imports the other."""

import numpy as np

erf_scale: float = 1 / (2 / np.pi * np.arcsin(2 / 3))  # s = 1/E[erf(z)^2] of a standard normal z


def reach(size: int, stage: int) -> int:
    """The largest |d| of a stage's planes that reaches the output, on an axis of `size` pixels."""
    return min((16 >> stage) - 1, size - 1)
