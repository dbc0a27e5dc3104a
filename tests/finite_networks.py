"""The empirical NTK of finite networks, averaged over initialisations.

An oracle without anybody's formulas.
"""

import jax
import jax.numpy as jnp
import numpy as np


def empirical_ntk(forward, shapes, x, initialisations):
    """Mean and standard error over initialisations of d f(x)/d theta . d f(x')/d theta, [n, n]
    each.

    forward(weights, image) is the network's output, the weights standard normal of `shapes`; x [n,
    ...].
    """

    def one(key):
        keys = jax.random.split(key, len(shapes))
        weights = [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
        gradients = jax.vmap(jax.grad(forward), in_axes=(None, 0))(weights, x)
        return sum(jnp.tensordot(g, g, axes=(tuple(range(1, g.ndim)),) * 2) for g in gradients)

    one = jax.jit(one)
    kernels = np.array([one(key) for key in jax.random.split(jax.random.key(0), initialisations)])
    return kernels.mean(axis=0), kernels.std(axis=0, ddof=1) / np.sqrt(initialisations)
