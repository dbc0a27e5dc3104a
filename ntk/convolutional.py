"""The NTK of the convolutional network.

Three stages of 3x3 convolutions with ReLU, each ended by 2x2 average pooling, then pooling once
more, Dense(2), erf, Dense(1). Every layer has W_std^2 = 2, which cancels ReLU's factor 1/2.

Of a pair of images x, x' the state is, for every pair of pixels (p, q), A, the covariance of the
activations, and B = A + Theta. Both start as x[p] x'[q]. With box(A)[p, q] = sum over nine offsets
o of A[p + o, q + o], zero outside the image, a convolution and its ReLU are

    K = box(A)/9,  T = box(B)/9,  c = K/(s s'),  s = sqrt(v[p]),  s' = sqrt(v'[q])
    kappa0 = (pi - arccos c)/pi,  kappa1 = sqrt(1 - c^2)/pi + c kappa0
    A <- s s' kappa1,  B <- kappa0 T + A

(Cho and Saul, NIPS 2009; Arora et al., arXiv:1904.11955). The variance v[p] is K[p, p] of the image
x with itself. Pooling averages A and B over 2x2 pixels p and 2x2 pixels q. Dense(2), erf and
Dense(1) follow, see `dense_head`.

`convolutional_ntk_reference` is that and no more. The engines compute the same numbers faster:

1. Displacement planes. box couples (p, q) only with equal displacement d = q - p, so between
poolings every plane
   {(p, p + d)} evolves on its own.
2. The cone. Of the third stage only pixels 0 to 3 survive the two poolings, so |d| <= 3 matters
there, <= 7 in the
   second stage and <= 15 in the first, see `reach` in
   formulas.py: 961 of 3025 planes at 28x28.
3. Variances once an image. Inside a stage v <- box(v)/9, as kappa1(1) = 1. One pass an image, over
the pair (x, x),
   gives those at the start of the second and third stage; there c = 1 exactly at d = 0, where
   arccos would lose half of the digits.
4. Half of the matrix of images with themselves. Equal images are an image with itself.
"""

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntk.arguments import (
    BadInput,
    check_depth,
    check_finite,
    check_images,
    choose_engine,
    in_one_line,
    mirror,
)

FloatOrArray = TypeVar("FloatOrArray", float, NDArray[np.float64])


def convolutional_ntk_reference(x1: ArrayLike, x2: ArrayLike, *, depth: int) -> float:
    """NTK of one pair of images [h, w] of 16 to 31 pixels, by the formulas as they stand.

    A second a pair at 28x28 and depth 6. Where the images agree around a pixel c = 1, and arccos
    loses half of its digits: the result is good to about 1e-8.
    """
    x1, x2 = np.asarray(x1, np.float64), np.asarray(x2, np.float64)
    a = b = np.multiply.outer(x1, x2)  # [h, w, h, w]: pixel p of x1, pixel q of x2
    a1, a2 = np.multiply.outer(x1, x1), np.multiply.outer(x2, x2)  # each image with itself
    for _ in range(3):
        for _ in range(depth // 3):
            k, t, k1, k2 = (box(z) / 9 for z in (a, b, a1, a2))
            v1, v2 = np.einsum("ijij->ij", k1), np.einsum("ijij->ij", k2)
            a, kappa0 = relu_dual(k, v1, v2)
            b = kappa0 * t + a
            a1, a2 = relu_dual(k1, v1, v1)[0], relu_dual(k2, v2, v2)[0]
        a, b, a1, a2 = pool(a), pool(b), pool(a1), pool(a2)
    return dense_head(*(float(pool(z).item()) for z in (a, b, a1, a2)))


def box(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of a[p + o, q + o] over the nine offsets o, zero outside the image. [h, w, h, w]"""
    h, w = a.shape[:2]
    a = np.pad(a, 1)
    return np.sum(
        [a[y : y + h, x : x + w, y : y + h, x : x + w] for y in range(3) for x in range(3)], axis=0
    )


def relu_dual(k, v1, v2):
    """A = s s' kappa1 and kappa0 [h, w, h, w], from K and the variances [h, w] before ReLU."""
    s = np.sqrt(np.multiply.outer(v1, v2))
    c = np.clip(k / np.where(s > 0, s, 1), -1, 1)
    kappa0 = (np.pi - np.arccos(c)) / np.pi
    return s * (np.sqrt(1 - c**2) / np.pi + c * kappa0), kappa0


def pool(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """2x2 average pooling of both images, an odd last row or column dropped.

    [h, w, h, w], halved
    """
    h, w = a.shape[0] // 2, a.shape[1] // 2
    return (
        a[: 2 * h, : 2 * w, : 2 * h, : 2 * w]
        .reshape(h, 2, w, 2, h, 2, w, 2)
        .mean(axis=(1, 3, 5, 7))
    )


def dense_head(
    a: FloatOrArray, b: FloatOrArray, a1: FloatOrArray, a2: FloatOrArray
) -> FloatOrArray:
    """The NTK after Dense(2), erf (not normalised), Dense(1), from A, B and the images' own A.

    It is 4/pi arcsin(4 a/hypotenuse) + 16/pi b/side, in a triangle with

        hypotenuse^2 = (1 + 4 a1)(1 + 4 a2),  side^2 = hypotenuse^2 - (4 a)^2

    Of large images side^2 is a small difference of large numbers, but
    1 + 4 (a1 + a2) + 16 (a1 a2 - a^2) keeps its digits: of an image with itself it is 1 + 8 a1.
    """
    side = np.sqrt(1 + 4 * (a1 + a2) + 16 * np.maximum(a1 * a2 - a * a, 0))
    return 4 / np.pi * np.arctan2(4 * a, side) + 16 / np.pi * b / side


# ---- the same, fast ----


def convolutional_ntk(
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    depth: int = 96,
    engine: str = "auto",
    precision: str = "float64",
) -> NDArray[np.float64]:
    """NTK of the convolutional network.

    x1 [n1, h, w, 1], x2 [n2, h, w, 1] (None: x1 with itself, half computed), float64 or float32, 16
    <= h, w <= 31, so that four poolings leave one pixel; `depth` convolutions, a third of them in
    each stage. Returns float64 [n1, n2], computed in `precision`, float64 or float32. Raises
    BadInput, a ValueError, for other shapes and dtypes, NaN, unknown names, other depths, and
    kernels that are not finite.
    """
    if x2 is None:
        (images,) = check_images(4, x1=x1)
        kernel = np.empty((len(images), len(images)))
        i, j = np.tril_indices(len(images))
        second = j
    else:
        x1, x2 = check_images(4, x1=x1, x2=x2)
        images, kernel = np.concatenate([x1, x2]), np.empty((len(x1), len(x2)))
        i, j = np.indices(kernel.shape).reshape(2, -1)
        second = j + len(x1)
    check_size("x1", images)
    pairs = ConvolutionalPairs(images, depth=depth, engine=engine, precision=precision)
    for block in pairs.blocks(i, second):
        kernel[i[block], j[block]] = pairs.pairs(i[block], second[block])
    return mirror(kernel) if x2 is None else kernel


def check_size(name: str, images: NDArray[np.float64]) -> None:
    """Raise BadInput unless four poolings take images [n, h, w, 1] to one pixel."""
    if images.shape[3] != 1 or any(size // 16 != 1 for size in images.shape[1:3]):
        remedy = "use [n, height, width, 1] with 16 to 31 pixels, which four poolings take to one"
        raise BadInput(name, f"of shape {images.shape}", remedy)


class ConvolutionalPairs:
    """The NTK of pairs of some images, pair by pair; one object may serve several matrices.

    Making it runs each image's own pass. block: pairs a call of `pairs` that keep all cores or
    devices busy. on_mesh: whether all processes that `jax.distributed` connects must make the
    object and every call alike (they share the work, and each gets all results) or whether each
    computes on its own.
    """

    def __init__(
        self,
        images: ArrayLike,
        *,
        depth: int = 96,
        engine: str = "auto",
        precision: str = "float64",
    ) -> None:
        """Take images [n, h, w, 1]; the arguments and BadInput as for `convolutional_ntk`."""
        layers = check_depth(depth, 3, 3, "use a positive multiple of 3") // 3
        (images,) = check_images(4, images=images)
        check_size("images", images)
        if not isinstance(precision, str) or precision not in ("float64", "float32"):
            raise BadInput("precision", in_one_line(precision), "unknown; use float64 or float32")
        name = choose_engine(engine)
        self.on_mesh = name == "jax"
        self._oracle = None
        if name == "neural-tangents":
            from ntk.oracle import convolutional_oracle

            self._images, self._oracle, self.block = images, convolutional_oracle(3 * layers), 64
            return
        # A and B are linear in either image. A power of two out of each changes no bit,
        # and nothing over- or underflows on the way.
        self._exponents = np.frexp(np.abs(images).max(axis=(1, 2, 3)))[1]
        scaled = np.ldexp(images[..., 0], -self._exponents[:, None, None]).astype(precision)
        # Of every image, at the start of each stage; the images' own passes fill in those of the
        # second and third.
        n, h, w = scaled.shape
        variances = [np.zeros((n, h >> stage, w >> stage)) for stage in range(3)]
        variances[0][:] = scaled.astype(np.float64) ** 2
        self._first = first_equal(scaled, self._exponents)
        self._cone = make_cone(name, scaled, variances, layers)
        self.block = self._cone.block
        everyone = np.arange(n)
        a, b = self._cone(everyone, everyone, own=True)
        with np.errstate(over="ignore"):
            self._own_a = np.ldexp(a, 2 * self._exponents)
        self._own_kernel = self._head(a, b, everyone, everyone)

    def pairs(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.float64]:
        """The NTK [m] of the pairs of images i [m] and j [m].

        A pair gets the same bits whichever others are asked for with it (neural-tangents: to
        rounding). Raises BadInput where it is not finite.
        """
        i, j = np.asarray(i), np.asarray(j)
        kernel = np.empty(len(i))
        if self._oracle:
            for block in tiles(i, j):
                (rows, row), (columns, column) = (
                    np.unique(index[block], return_inverse=True) for index in (i, j)
                )
                kernel[block] = self._oracle(self._images[rows], self._images[columns])[row, column]
            check_finite(kernel)
            return kernel
        equal = self._first[i] == self._first[j]
        itself, others = np.flatnonzero(equal), np.flatnonzero(~equal)
        kernel[itself] = self._own_kernel[i[itself]]
        if len(others):
            i, j = i[others], j[others]
            kernel[others] = self._head(*self._cone(i, j), i, j)
        return kernel

    def _head(
        self,
        a: NDArray[np.float64],
        b: NDArray[np.float64],
        i: NDArray[np.intp],
        j: NDArray[np.intp],
    ) -> NDArray[np.float64]:
        """The NTK [m] of pairs (i, j) [m], from pooled A and B of images over 2^exponents."""
        exponents = self._exponents[i] + self._exponents[j]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found here
            a, b = np.ldexp(a, exponents), np.ldexp(b, exponents)
            kernel = dense_head(a, b, self._own_a[i], self._own_a[j])
        check_finite(kernel)
        return kernel

    def blocks(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        """Yield positions in i and j, every one once, in portions that suit the engine."""
        if self._oracle:
            yield from tiles(i, j)
            return
        equal = self._first[i] == self._first[j]
        if equal.any():  # computed already
            yield np.flatnonzero(equal)
        others = np.flatnonzero(~equal)
        for start in range(0, len(others), self.block):
            yield others[start : start + self.block]


class Cone(Protocol):
    """What an engine makes of images [n, h, w] and their variances at the start of each stage."""

    block: int

    def __call__(
        self, i: NDArray[np.intp], j: NDArray[np.intp], own: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A and B [m] after all poolings, of pairs of images (i, j) [m].

        own: the images' own passes, i = j, which fill in the variances of the second and third
        stage.
        """


def make_cone(
    engine: str,
    images: NDArray[np.floating[Any]],
    variances: list[NDArray[np.float64]],
    layers: int,
) -> Cone:
    """The cone as `engine` computes it, in the precision of the images.

    `layers`: convolutions a stage.
    """
    if engine == "jax":
        from ntk.jax_engine import JaxCone

        return JaxCone(images, variances, layers)
    from ntk.numba_engine import NumbaCone

    return NumbaCone(images, variances, layers)


def first_equal(
    images: NDArray[np.floating[Any]], exponents: NDArray[np.int32]
) -> NDArray[np.intp]:
    """The first image that is equal to each, [n], of images [n, ...] times 2^exponents [n]."""
    firsts: dict[tuple[bytes, int], int] = {}
    first = np.empty(len(images), np.intp)
    for i, exponent in enumerate(exponents.tolist()):
        content = (images[i] + 0.0).tobytes()  # -0 becomes 0
        first[i] = firsts.setdefault((content, exponent), i)
    return first


def tiles(i: NDArray[np.intp], j: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Yield positions of the pairs (i, j) by 8 x 8 images: half a minute of neural-tangents."""
    tile = np.stack([i, j]) // 8
    for place in np.unique(tile, axis=1).T:
        yield np.flatnonzero((tile == place[:, None]).all(axis=0))
