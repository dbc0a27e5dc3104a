"""neural-tangents as an engine: the slow oracle that the others are tested against."""

import functools
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntk.arguments import whole_blocks
from ntk.formulas import erf_scale

Oracle = Callable[..., NDArray[np.float64]]
moved_names = [
    "AbstractValue",
    "Jaxpr",
    "JaxprEqn",
    "Literal",
    "Primitive",
    "ShapedArray",
    "Value",
    "Var",
]
moved_names += ["eval_context"]  # all of them out of jax.core
tile = 4  # images that nt.batch takes at once, of x1 and of x2


@functools.cache
def import_neural_tangents() -> tuple[Any, Any]:
    """Import neural-tangents 0.6.5 under a JAX that is newer than it, 0.10 to 0.12. Returns (nt,
    nt.stax).

    It imports names that have left `jax.core`, `jax.util` and `jax.interpreters.ad`; its
    infinite-width kernels need them to exist, no more. Its package `experimental`, which is there
    for TensorFlow alone, is left empty.
    """
    import jax
    import jax._src.core
    import jax._src.util
    import jax.core
    import jax.extend.core
    import jax.interpreters.ad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in moved_names:
            homes = [home for home in (jax.extend.core, jax._src.core) if hasattr(home, name)]
            if not hasattr(jax.core, name) and homes:
                setattr(jax.core, name, getattr(homes[0], name))
        if not hasattr(jax, "util"):
            sys.modules["jax.util"] = jax._src.util
            setattr(jax, "util", jax._src.util)  # noqa: B010, type checkers know no such attribute
        if not hasattr(jax.interpreters.ad, "zeros_like_p"):
            setattr(jax.interpreters.ad, "zeros_like_p", object())  # noqa: B010
        experimental = "neural_tangents.experimental"
        sys.modules.setdefault(experimental, types.ModuleType(experimental))
        import neural_tangents
        from neural_tangents import stax
    return neural_tangents, stax


def fully_connected_layers(depth: int) -> list[Any]:
    """The layers of the fully-connected network in neural-tangents' stax."""
    _, stax = import_neural_tangents()
    hidden, last = (stax.Dense(width, W_std=np.sqrt(erf_scale), b_std=None) for width in (512, 1))
    return [hidden, stax.Erf()] * depth + [last]


def convolutional_layers(depth: int) -> list[Any]:
    """The layers of the convolutional network in neural-tangents' stax."""
    _, stax = import_neural_tangents()
    weights = {"W_std": np.sqrt(2), "b_std": None}
    pool = stax.AvgPool((2, 2), strides=(2, 2))
    stage = [stax.Conv(512, (3, 3), padding="SAME", **weights), stax.Relu()] * (depth // 3) + [pool]
    return [
        *stage * 3,
        pool,
        stax.Flatten(),
        stax.Dense(2, **weights),
        stax.Erf(),
        stax.Dense(1, **weights),
    ]


def fully_connected_oracle(depth: int) -> Oracle:
    """A function of x1 [n1, d] and x2, None for x1 itself, that gives their NTK [n1, n2]."""
    return oracle(fully_connected_layers(depth))


def convolutional_oracle(depth: int) -> Oracle:
    """A function of x1 [n1, h, w, 1] and x2, None for x1 itself, that gives their NTK [n1, n2]."""
    return oracle(convolutional_layers(depth))


def oracle(layers: list[Any]) -> Oracle:
    """The NTK of the network of stax `layers` by `nt.batch`, whose compiled function it keeps."""
    from ntk.jax_engine import configuration

    nt, stax = import_neural_tangents()
    kernel_fn = nt.batch(stax.serial(*layers)[2], batch_size=tile, device_count=0)

    def ntk(x1: NDArray[np.float64], x2: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        # Nt.batch takes whole batches.
        padded = [x if x is None else x[whole_blocks(len(x), tile)] for x in (x1, x2)]
        with configuration():
            kernel = np.array(kernel_fn(*padded, "ntk"), dtype=np.float64)
        return kernel[: len(x1), : len(x1 if x2 is None else x2)]

    return ntk
