"""How often the intervals of growth.py cover and its verdicts are wrong: made-up trials of known growth and spread.

    python tests/simulate_growth.py [--repeats 2000] [--output kernel_output/growth_simulation.json]

takes a minute or two. scaling.py's RESULTS.md shows the table; tests/test_scaling.py runs a short form of it.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import scipy.stats

sys.path.insert(0, str(Path(__file__).parents[1]))
import growth
import scaling

DESIGNS = {
    "16 to 512": ([16, 32, 64, 128, 256, 512], [16, 8, 4, 4, 4, 4]),
    "16 to 8192": ([16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192], [32, 32, 32, 32, 32, 32, 32, 8, 4, 4]),
}
TRUTHS = {  # y(n), λ, whether it grows faster than log n
    "constant": (lambda n: 1 + 0 * n, None, False),
    "log n": (np.log, 0.0, False),
    "n^0.25": (lambda n: n**0.25, 0.25, True),
    "n^0.5": (lambda n: n**0.5, 0.5, True),
    "n": (lambda n: n, 1.0, True),
    "2 - 16/n": (lambda n: 2 - 16 / n, -1.0, False),
}
SPREADS = {  # of a trial, relative to y
    "3 %": lambda n: 0.03 + 0 * n,
    "10 %": lambda n: 0.1 + 0 * n,
    "30 %": lambda n: 0.3 + 0 * n,
    "30 % falling like n^-0.4": lambda n: 0.3 * (n / 16) ** -0.4,
    "10 % rising like n^0.2": lambda n: 0.1 * (n / 16) ** 0.2,
}


def simulate(design, truth, spread, repeats, seed=0):
    """Shares of `repeats` data sets with normal noise: {what: share}; None where the truth has no such number."""
    n, trials = (np.array(x, float) for x in DESIGNS[design])
    law, index, faster = TRUTHS[truth]
    rng = np.random.default_rng([seed, *map(list, (DESIGNS, TRUTHS, SPREADS))[0:0]])
    return rng, n, trials, law, index, faster
