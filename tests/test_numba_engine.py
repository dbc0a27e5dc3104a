"""The numba engine: threads."""

import numba
import numpy as np
import pytest
from kernel_images import small_images

from ntk import convolutional_ntk


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(threads):
    """The same bits on every number of threads."""
    x = small_images(20)
    before = numba.get_num_threads()
    expected = convolutional_ntk(x, depth=6, engine="numba")
    try:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        assert np.array_equal(convolutional_ntk(x, depth=6, engine="numba"), expected)
    finally:
        numba.set_num_threads(before)
