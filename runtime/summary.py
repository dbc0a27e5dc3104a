"""The table that a run ends with."""

from pathlib import Path

import numpy as np

from runtime.results import is_computed, read_results


def summary(path: Path) -> str:
    """The main quantities of a results file by size, means over trials, as a table."""
    results = read_results(path)
    return f"{path.name}: {results.sizes} {np.asarray(is_computed(results).sum('trial'))}"
