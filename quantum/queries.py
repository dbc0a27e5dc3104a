"""Queries that a shot of the Hadamard test, or a use of its whole preparation, makes.

From a solver's run (`solvers.Prepared`) and the probability P that |k*> is prepared, by each of the
ways to read o = <k*|w> out (readout.py).
"""

import numpy as np
from numpy.typing import NDArray

from quantum import readout
from quantum.solvers import Prepared

Array = NDArray[np.float64]

QRAM_QUERIES_PER_STATE = 2  # |k*>: load, rotate an ancilla, load again to uncompute
KINDS = ("oracle", "QRAM", "all")  # queries: to K~'s entries; to k*; both and those to y
READOUTS = {  # what each repeats
    "shots": "shots",
    "amplified shots": "shots",
    "amplitude estimation": "uses",
}


def each_time(prepared: Prepared, post_selection: Array) -> Array:
    """Queries of one shot or use for every image. -> [READOUTS, KINDS, x]

    post_selection: P [x]. Amplitude estimation uses the preparation of both states and its inverse;
    NaN where there is no inverse.
    """
    p = prepared.success_probability
    of_w, of_k = prepared.oracle_queries + prepared.label_queries, QRAM_QUERIES_PER_STATE
    estimate = readout.amplified_estimate(of_w, p, of_k, post_selection)
    queries = [
        by_kind(prepared, *readout.uses_per_shot(p, post_selection)),
        by_kind(prepared, *readout.amplified_shot(of_w, p, of_k, post_selection)),
        by_kind(prepared, *estimate),
    ]
    if not prepared.coherent:
        queries[2] = np.full_like(queries[2], np.nan)
    return np.array(queries)


def by_kind(prepared: Prepared, uses_of_w: Array, uses_of_k: Array) -> Array:
    """Queries by each of the `KINDS` of so many preparations of |w> and of |k*> [x]. [KINDS, x]"""
    to_oracle = uses_of_w * prepared.oracle_queries
    to_k = uses_of_k * QRAM_QUERIES_PER_STATE
    to_w = uses_of_w * (prepared.oracle_queries + prepared.label_queries)
    return np.array(np.broadcast_arrays(to_oracle, to_k, to_w + to_k))


def mean_queries(queries: Array, times: dict[str, Array]) -> Array:
    """Queries of a prediction in the mean over images. -> [READOUTS, efforts, KINDS]

    queries: of `each_time`; times: how often, by what READOUTS repeat [efforts, x]. A mean, as 1/P
    is heavy-tailed, and many predictions cost that much. What needs no query needs none for ever.
    """
    means = []
    for of_readout, repeated in zip(queries, READOUTS.values(), strict=True):
        with np.errstate(invalid="ignore"):
            spent = times[repeated][:, None] * of_readout
        spent = np.where(of_readout == 0, 0, spent)
        means.append(spent.mean(axis=2))
    return np.array(means)


def cost(prepared: Prepared, probabilities: Array, times: dict[str, Array]) -> Array:
    """Queries of a prediction by divisor of k*. -> [READOUTS, divisors, efforts, KINDS]

    probabilities: P [divisors, x]; times: of `mean_queries`.
    """
    means = [mean_queries(each_time(prepared, P), times) for P in probabilities]
    return np.stack(means, axis=1)


def calibration_cost(prepared: Prepared, probabilities: Array, times: dict[str, float]) -> Array:
    """Queries of all of these images together, each as often. -> [READOUTS, divisors]"""
    repeated = np.array([times[unit] for unit in READOUTS.values()])
    totals = []
    for P in probabilities:
        queries = each_time(prepared, P)[:, KINDS.index("all")]
        totals.append(repeated * queries.sum(axis=1))
    return np.stack(totals, axis=1)
