"""Stands for analysis/growth.py until that reads labelled results: the same functions, of today's modules."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from scaling import fit_growth, size_means

__all__ = ["fit_growth", "size_means", "trial_values"]


def trial_values(results: xr.Dataset, name: str, **labels: Any) -> list[NDArray[np.float64]]:
    """The value that every trial has of a quantity, a list of [trials] by size; NaN are left out."""
    values = results[name].sel(labels)
    inner = [dim for dim in values.dims if dim not in ("n", "trial")]
    if inner:
        values = values.median(inner) if "measurements" in name else values.mean(inner)
    by_size = values.transpose("n", "trial").values
    return [size[~np.isnan(size)] for size in by_size]
