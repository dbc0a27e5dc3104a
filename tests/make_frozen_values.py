"""Make frozen_kernels.npz: convolutional NTKs by neural-tangents, and their images.

    MNIST_DIR=... python tests/make_frozen_values.py

Two minutes on two cores. The images are a handful of standardised ones, so that the test needs no
dataset.
"""

import importlib.metadata
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
import training
from ntk import convolutional_ntk
from runtime.datasets import load_images

if __name__ == "__main__":
    arrays = {
        "made_with": " ".join(
            f"{p} {importlib.metadata.version(p)}" for p in ("neural-tangents", "jax")
        )
    }
    for dataset in ("mnist", "digits"):
        images = load_images(dataset)
        rng = np.random.default_rng(2107_09200)
        train, _ = training.draw_images(images.train, (1, 0), 2, False, rng)
        test, _ = training.draw_images(images.test, (1, 0), 1, False, rng)
        arrays |= {f"{dataset}_train": train, f"{dataset}_test": test}
        arrays[f"{dataset}_kernel_train"] = convolutional_ntk(train, engine="neural-tangents")
        arrays[f"{dataset}_kernel_test"] = convolutional_ntk(test, train, engine="neural-tangents")
    np.savez_compressed(Path(__file__).with_name("frozen_kernels.npz"), **arrays)
