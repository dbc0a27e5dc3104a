"""The value that a trial has of each quantity, the errors of means over trials, and how quantities grow with n.

Patterns and test images of one trial share a training set: trials are the units, everywhere. `relative_errors` is the
only error method, of tables, bars and fits; analysis/growth.py has the curve that is fitted. `values` are always a list
of [trials], one array for each size. `python scaling.py` writes kernel_output/RESULTS.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma, polygamma

from analysis.growth import Growth, fit, half_widths

Array = NDArray[np.float64]


class Quantity(NamedTuple):
    """A quantity's name in tables, and which statistic over a trial's patterns and test images is its value."""

    label: str
    statistic: Any = np.mean


QUANTITIES = {
    "accuracy_exact": Quantity("accuracy, exact"),
    "accuracy_sparse": Quantity("accuracy, sparsified"),
    "accuracy_diagonal": Quantity("accuracy, diagonal"),
    "condition_number_exact": Quantity("κ of K"),
    "condition_number": Quantity("κ of K̃"),
    "positive_definite": Quantity("K̃ positive definite"),
    "sparsity": Quantity("sparsity of K̃"),
    "pattern_sparsity": Quantity("sparsity of a pattern"),
    "post_selection_measurements": Quantity("post-selection, original", np.median),
    "post_selection_measurements_training": Quantity("post-selection, training", np.median),
    "post_selection_measurements_k_thresh": Quantity("post-selection, k_thresh", np.median),
    "readout_measurements_sparse": Quantity("readout, sparsified", np.median),
    "readout_measurements_diagonal": Quantity("readout, diagonal", np.median),
}
for _ending, _addition in {"_at_zero": ", at zero", "_at_median": ", at the median", "_sound": ", sound"}.items():
    QUANTITIES |= {name + _ending: q._replace(label=q.label + _addition) for name, q in QUANTITIES.items()}


def trial_values(results: Mapping[str, ArrayLike], name: str) -> list[Array]:
    """The value that every trial has of a quantity, from results[name] [sizes, trials, ...]; NaN are left out.

    A trial of which all is NaN is missing; infinite values are kept. KeyError where `name` is not in QUANTITIES.
    """
    statistic = QUANTITIES[name].statistic
    each = [[trial[~np.isnan(trial)] for trial in size] for size in np.asarray(results[name], float)[..., None]]
    return [np.array([statistic(trial) for trial in size if trial.size], float) for size in each]


def moments(values: Sequence[Array], geometric: bool = False) -> tuple[Array, Array, Array]:
    """Mean (NaN of no trial), standard deviation (0 of one) and number of the trials, each [sizes].

    geometric: mean and relative deviation of positive values with a long tail, from their logarithms.
    """
    scaled = [np.log(v) if geometric else np.asarray(v, float) for v in values]
    mean = np.array([np.mean(v) if len(v) else np.nan for v in scaled])
    deviation = np.array([np.std(v, ddof=1) if len(v) > 1 and np.isfinite(v).all() else 0.0 for v in scaled])
    mean, deviation = (np.exp(mean), np.exp(mean) * deviation) if geometric else (mean, deviation)
    return mean, deviation, np.array([*map(len, values)], float)


def relative_errors(n: Array, mean: Array, deviation: Array, trials: Array) -> tuple[Array, Array]:
    """Standard errors of means over the means, and their degrees of freedom, both [..., sizes]; NaN where unknown.

    n, trials [sizes]; mean, deviation [..., sizes]. A size's relative variance r^2 has d = trials - 1 degrees of
    freedom. They are pooled, sum(d r^2)/sum(d), unless Cochran's Q of their logarithms refutes that they are equal
    (5 %). Then a power of n is fitted to them and counts for d0 degrees of freedom beside the size's own (Smyth, Stat.
    Appl. Genet. Mol. Biol. 3, 3, 2004), d0 from what is left of Q (DerSimonian and Laird 1986) and the line's error.
    """
    d, square = trials - 1, (deviation / np.where(mean == 0, 1, mean)) ** 2
    if not d.any():
        return np.full(mean.shape, np.nan), np.full(mean.shape, np.nan)
    pooled = np.sum(d * square, -1, keepdims=True) / d.sum()
    half, spare = np.maximum(d, 1) / 2, np.count_nonzero(d) - 2
    logs = np.log(np.maximum(square, 0.01 * pooled + 1e-99)) - digamma(half) + np.log(half)
    weight = (d > 0) / polygamma(1, half)  # one over the variance of logs
    total = weight.sum()
    x = np.log(n) - np.sum(weight * np.log(n)) / total
    steepness = max(np.sum(weight * x**2), 1e-9)
    level = np.sum(weight * logs, -1, keepdims=True) / total
    line = level + np.sum(weight * x * logs, -1, keepdims=True) / steepness * x
    q, left = (np.sum(weight * (logs - fitted) ** 2, -1, keepdims=True) for fitted in (level, line))
    unequal = (spare > 0) & (scipy.stats.chi2.sf(q, spare + 1) < 0.05)
    excess = np.maximum(left - spare, 1e-9) / max(total - np.sum(weight**2) / total, 1e-9)
    d0 = (1 + np.sqrt(1 + 2 * excess)) / excess  # trigamma(d0/2) = excess, by the first two terms of its series
    d0 = np.where(unequal, 1 / (1 / d0 + (1 / total + x**2 / steepness) / 2), 1e9)
    variance = (d0 * np.where(unequal, np.exp(line), pooled) + d * square) / (d0 + d)
    return np.maximum(np.sqrt(variance / trials), 1e-9), np.minimum(d0 + d, d.sum())  # nothing is closer than rounding


def size_means(n: ArrayLike, values: Sequence[Array], geometric: bool = False) -> tuple[Array, Array, Array]:
    """Means at n [sizes], their standard errors and half-widths of 95 % intervals, each [sizes]; NaN where unknown.

    geometric: as of `moments`; errors are then those of the logarithm, times the mean.
    """
    mean, deviation, trials = moments(values, geometric)
    error, half = np.full((2, len(np.asarray(n))), np.nan)
    there = np.isfinite(mean)
    if there.any():
        relative, freedom = relative_errors(np.asarray(n)[there], mean[there], deviation[there], trials[there])
        error[there] = relative * np.abs(mean[there])
        half[there] = half_widths(relative, freedom) * np.abs(mean[there])
    return mean, error, half


def fit_growth(n: ArrayLike, values: Sequence[Array], geometric: bool = False) -> Growth:
    """Fit the curve of analysis/growth.py to the means of the sizes n [sizes]. Sizes without trials are left out.

    "Undecided" where a mean is infinite, zero or negative (such sizes are left out as well), there are fewer than four
    sizes, or no size has several trials. geometric: as of `moments`.
    """
    n = np.asarray(n, float)
    mean, deviation, trials = moments(values, geometric)
    infinite, low = np.isinf(mean), mean <= 0
    there = np.isfinite(mean) & ~low
    sizes = {"infinite": n[infinite], "not positive": n[low & ~infinite]}
    reasons = [f"{what} at n = {', '.join(f'{size:g}' for size in at)}" for what, at in sizes.items() if at.size]
    reasons += ["fewer than four sizes"] if there.sum() < 4 else []
    n, mean, deviation, trials = n[there], mean[there], deviation[there], trials[there]
    relative, freedom = relative_errors(n, mean, deviation, trials)
    if np.isnan(freedom).any():
        reasons, relative = [*reasons, "no size has several trials"], 1 / np.sqrt(trials)
    return fit(n, mean, relative, freedom, "; ".join(reasons))


if __name__ == "__main__":
    from analysis import document

    document.main()
