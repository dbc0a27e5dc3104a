"""Exact neural tangent kernels (NTK) of the two networks of arXiv:2107.09200.

    fully_connected_ntk(x1, x2=None, *, depth)      hidden layers with a normalised erf
    convolutional_ntk(x1, x2=None, *, depth=96)     three stages of 3x3 convolutions with ReLU,
    pooled to one pixel

Both return float64 [n1, n2]; x2=None means x1 with itself, of which half is computed. Four engines
evaluate the same mathematics: `numba` on CPUs, `jax` on GPUs, TPUs and CPUs (`gpu`: on an
accelerator, or not at all), and `neural-tangents`, the slow oracle. `auto` takes jax where JAX
finds an accelerator. fully_connected.py and convolutional.py state the mathematics, each with a
plain reference, and then what is done to compute it fast.

>>> import numpy as np
>>> from ntk import convolutional_ntk, fully_connected_ntk
>>> x = np.random.default_rng(0).normal(size=(3, 16, 16, 1))
>>> print(fully_connected_ntk(x.reshape(3, -1), depth=2).round(4))
[[ 4.6604  0.101  -0.0729]
 [ 0.101   4.6511  0.0224]
 [-0.0729  0.0224  4.5733]]
>>> print(convolutional_ntk(x[:2], x[2:], depth=6, engine="numba").round(4))
[[1.6869]
 [1.6478]]

The kernel of a trial is large: `ntk.fully_connected.fully_connected_rows` and
`ntk.convolutional.ConvolutionalPairs` compute it piece by piece. Nothing here knows of files,
options or processes.
"""

from ntk.arguments import ENGINES, BadInput, choose_engine, has_accelerator
from ntk.convolutional import convolutional_ntk
from ntk.fully_connected import fully_connected_ntk

__all__ = [
    "ENGINES",
    "FORMULAS",
    "BadInput",
    "choose_engine",
    "convolutional_ntk",
    "fully_connected_ntk",
    "has_accelerator",
]

FORMULAS = 1  # version of the formulas: kernels of another version are other kernels
