"""To be removed: `load_data` in the form that callers of runtime.datasets still expect."""

from pathlib import Path
from typing import Any

from runtime.datasets import load_images


def load_data(dataset: str = "auto", mnist_dir: str | Path | None = None) -> dict[str, Any]:
    """load_images as nested dictionaries."""
    images = load_images(dataset, mnist_dir=mnist_dir)
    train = {"image": images.train.image, "label": images.train.label}
    test = {"image": images.test.image, "label": images.test.label}
    return {"train": train, "test": test, "name": images.name, "sha256": images.sha256}
