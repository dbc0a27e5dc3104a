"""Images that the tests of the kernels share, and the mark of those that need neural-tangents."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

needs_oracle = pytest.mark.skipif(
    importlib.util.find_spec("neural_tangents") is None, reason="neural-tangents is not installed"
)

FROZEN = np.load(Path(__file__).with_name("frozen_kernels.npz"))


def real_images():
    """Six standardised images of two digits of MNIST, float64 [6, 28, 28, 1]."""
    return np.concatenate([FROZEN["mnist_train"], FROZEN["mnist_test"]])


def small_images(n, shape=(16, 16), seed=0):
    """Standardised random images, smoothed so that neighbouring pixels are alike, [n, h, w, 1]."""
    images = np.random.default_rng(seed).normal(size=(n, *shape, 1))
    images += np.roll(images, 1, axis=1) + np.roll(images, 1, axis=2)
    return images / np.sqrt(np.sum(images**2, axis=(1, 2, 3), keepdims=True))


def flat_images(n, seed=0):
    """Images of unit norm for the fully-connected network, [n, 256]."""
    x = small_images(n, seed=seed).reshape(n, -1)
    return x / np.linalg.norm(x, axis=1, keepdims=True)
