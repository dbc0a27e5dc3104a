"""Intervals and fits: does a quantity stay constant, grow like log n or like a power of n, or can't these data say?

The arrays of `{prefix}_results.npz` are [sizes, trials, ...], NaN where there is no trial. Patterns and test images
of one trial share a training set and are not independent, so errors here are always those of whole trials.
`format_table(scaling_table(results, quantities))` is the table of analysis.ipynb and README.md.
"""

import math

import numpy as np
import scipy.stats

LAWS = {"constant": 1, "log": 2, "power": 2}  # y(n) = a, a + b ln n, a n^b, and how many parameters
MARGIN = 2  # a law beats another if its criterion is smaller by this much or more
UNCHANGED = 0.05  # closer than this to a constant is constant, however small the errors
MISFIT = 4  # chi^2 per degree of freedom above which no law fits (Burnham and Anderson 2002, section 2.5)
PRIOR_FREEDOM = 4  # degrees of freedom that the spread pooled over sizes counts for, beside a size's own


def trial_values(values, statistic=np.mean):
    """One value per trial: [sizes, trials, ...] -> list of [trials that are there], one array for each size.

    statistic: taken over a trial's patterns and test images, NaN left out: np.mean, np.median,
    functools.partial(np.quantile, q=0.9, method="higher"). A trial is missing where all is NaN. Infinite values are
    kept and make the mean infinite (np.quantile needs a method that does not interpolate between them).
    """
    each = [[row[~np.isnan(row)] for row in flat_trials(size)] for size in values]
    return [np.array([statistic(row) for row in size if row.size], float) for size in each]


def flat_trials(values):
    """[trials, ...] -> float [trials, values of a trial], also of no trials."""
    values = np.asarray(values, float)
    return values.reshape(len(values), math.prod(values.shape[1:]))


def interval(values, statistic=np.mean, confidence=0.95, resamples=2000, seed=0):
    """Percentile bootstrap interval (low, high) of `statistic`, whole trials resampled.

    values: [trials], or [trials, ...] for a statistic over the patterns and test images of all trials, such as their
    median: each trial is then drawn with all it holds. NaN are left out. A single trial gives NaN, trials that are all
    equal low = high; a bound is infinite where that share of the resamples is. Few trials make it short: of a mean's
    95 % intervals under normal noise 81, 89 and 92 % cover with 4, 8 and 16 trials.
    """
    values = flat_trials(values)
    values = values[~np.isnan(values).all(axis=1)]
    if len(values) < 2:
        return np.nan, np.nan

    def statistic_of_trials(index):
        pooled = values[index].ravel()
        return statistic(pooled[~np.isnan(pooled)])

    with np.errstate(invalid="ignore"):  # SciPy's own quantiles interpolate, and inf - inf is NaN
        found = scipy.stats.bootstrap(
            [np.arange(len(values))], statistic_of_trials, vectorized=False, method="percentile",
            confidence_level=confidence, n_resamples=resamples, rng=np.random.default_rng(seed),
        )  # fmt: skip
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    return tuple(np.quantile(found.bootstrap_distribution, tails, method="inverted_cdf").tolist())


def standard_errors(trials):
    """Standard errors of the sizes' means [sizes], from a list of [trials]; NaN if no size has several trials.

    Four trials know their own spread badly and one not at all. So a size's variance s^2, of d = trials - 1 degrees of
    freedom, is moderated (Smyth 2004) by the relative variance r^2 = sum d (s/mean)^2 / sum d pooled over the sizes:
    (d0 r^2 mean^2 + d s^2) / (d0 + d), d0 = PRIOR_FREEDOM. With a single trial that is (r mean)^2.
    """
    mean, count = (np.array([f(t) for t in trials], float) for f in (np.mean, len))
    variance = np.array([np.var(t, ddof=1) if len(t) > 1 else 0 for t in trials])
    d, square = count - 1, np.where(mean == 0, 1, mean**2)
    if not d.any():
        return np.full(len(mean), np.nan)
    pooled = np.sum(d * variance / square) / d.sum()
    return np.sqrt((PRIOR_FREEDOM * pooled * square + d * variance) / (PRIOR_FREEDOM + d) / count)


def fit_power(n, values, errors):
    """Weighted least squares of a n^b: values [..., sizes] -> a, b, each [...]. |b| is at most 8."""
    t, y = np.log(n) - np.log(n).mean(), values / errors
    # The best a is linear in y, chi^2 = |y|^2 - (projection of y on the curve)^2: a grid of b finds the valley,
    grid = np.array(sorted(np.linspace(-8, 8, 801), key=abs))  # ties go to the smaller |b|
    curve = np.exp(grid[:, None] * t) / errors
    curve /= np.linalg.norm(curve, axis=1, keepdims=True)
    b = start = grid[np.argmax((y @ curve.T) ** 2, axis=-1)][..., None]
    for _ in range(20):  # and Gauss and Newton its bottom, along the part of dy/db that no change of a makes up for.
        curve = np.exp(b * t) / errors
        square = np.sum(curve**2, axis=-1, keepdims=True)
        a = np.sum(y * curve, axis=-1, keepdims=True) / square
        slope = a * curve * (t - np.sum(curve**2 * t, axis=-1, keepdims=True) / square)
        step = np.sum((y - a * curve) * slope, axis=-1, keepdims=True)
        b = b + step / np.maximum(np.sum(slope**2, axis=-1, keepdims=True), np.finfo(float).tiny)
        b = np.clip(b, start - 0.02, start + 0.02)
    return (a * np.exp(-b * np.log(n).mean()))[..., 0], b[..., 0]


def fit_law(law, n, y, errors):
    """One law's fit to y [sizes]: {"parameters" [k], "errors" [k], "chi2"}; NaN with fewer sizes than parameters."""
    k = LAWS[law]
    if len(n) < k:
        return {"parameters": np.full(k, np.nan), "errors": np.full(k, np.nan), "chi2": np.nan}
    if law == "power":
        parameters = a, b = np.array(fit_power(n, y, errors))
        fitted = a * n**b
        jacobian = np.stack([n**b, fitted * np.log(n)], axis=1)
    else:
        jacobian = np.stack([np.ones(len(n)), np.log(n)], axis=1)[:, :k]
        parameters = np.linalg.lstsq(jacobian / errors[:, None], y / errors)[0]
        fitted = jacobian @ parameters
    jacobian = jacobian / errors[:, None]
    scale = np.maximum(np.linalg.norm(jacobian, axis=0), np.finfo(float).tiny)  # a may be 1e-9 or 1e9 times b
    covariance = np.linalg.pinv((jacobian / scale).T @ (jacobian / scale))
    chi2 = np.sum(((y - fitted) / errors) ** 2)
    return {"parameters": parameters, "errors": np.sqrt(np.diag(covariance)) / scale, "chi2": chi2}


def exponent_interval(n, trials, errors, confidence=0.95, resamples=2000, seed=0):
    """Interval (low, high) of the power law's b: every size's trials resampled, every resample fitted.

    The resampled means are stretched about the mean to the size's standard error, which a percentile interval of four
    trials falls short of. Trials that are all equal, or a single one, have nothing to resample: normal noise instead.
    Measured on n^0.5 with normal noise, 95 % intervals cover 94 to 96 % with 16 trials a size, 92 % with 16, 8, 4, 4,
    4, 4, and with 16, 8, 4, 2, 1, 1 90 % where a trial's deviation is 10 % and 82 % where it is 30 %.
    """
    rng = np.random.default_rng(seed)
    means = []
    for each, error in zip(trials, errors, strict=True):
        deviation = rng.choice(each, (resamples, len(each))).mean(axis=1) - each.mean()
        spread = each.std() / len(each) ** 0.5
        means.append(each.mean() + error * (deviation / spread if spread > 0 else rng.standard_normal(resamples)))
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    return tuple(np.quantile(fit_power(n, np.stack(means, axis=1), errors)[1], tails).tolist())


def fit_laws(n, values, errors=None, confidence=0.95, resamples=2000, seed=0):
    """Fit y(n) = a, a + b ln n and a n^b by weighted least squares, and say which law the values follow.

    n: [sizes]. values: list of [trials] for each size, as from `trial_values`: their means are fitted, weighted by
    `standard_errors`. Or values [sizes] with their standard errors [sizes], where a NaN error stands for the others'
    root mean square relative error. Sizes without a value are left out, and so are those with an infinite one.

    Returns {law: {"parameters": [a] or [a, b], "errors": theirs, "chi2", "criterion"}, "exponent_interval": of the
    power law's b, by bootstrap over trials, without trials normal, "n", "values", "errors": what was fitted,
    "infinite": sizes left out, "misfit": c below, "verdict", "reason"}. The criterion, for m sizes and k parameters,

        chi^2/c + 2 k + 2 k (k + 1)/(m - k - 1),    c = max(1, smallest chi^2/(m - k) of the laws),

    is the QAICc of Burnham and Anderson (2002): AICc if a law fits, else less sure of differences (c widens neither
    the parameters' errors nor the interval). Below four sizes the last term, which does not exist for all, is left
    out. All laws are fitted to y, not to ln y, so that their chi^2 compare. The verdict is the first that holds of

    1. undecided: fewer than four sizes, an infinite value, or no size with several trials;
    2. constant: every size, give or take two standard errors, is within UNCHANGED = 5 % of the constant fitted;
    3. undecided, "no law fits": c > MISFIT = 4;
    4. log or power, if the better one beats the constant and the other one by MARGIN = 2; undecided, "log or power",
       if it beats only the constant. Where one of the two is true and the errors are known, the other one wins by 2
       in at most 8 % of cases, Phi(-sqrt 2);
    5. constant, if neither beats it and the exponent's interval is within a quarter of the exponent that ln n itself
       has over these sizes, ln(ln n_max/ln n_min)/ln(n_max/n_min): 0.23 for 16 to 512. Both other laws contain the
       constant, so that it can win by what their parameter costs and no more; a narrow interval must show that
       there's no growth;
    6. undecided, "noise".
    """
    n, trials = np.asarray(n, float), None
    if errors is None:
        trials = [np.asarray(each, float) for each in values]
        values = [each.mean() if each.size else np.nan for each in trials]
    values = np.asarray(values, float)
    infinite, there = n[np.isinf(values)], np.flatnonzero(np.isfinite(values))
    n, y = n[there], values[there]
    if errors is None:
        trials = [trials[i] for i in there]
        errors = standard_errors(trials)
    else:
        errors = np.asarray(errors, float)[there]
        gaps = np.isnan(errors)
        if not gaps.all():
            errors[gaps] = np.abs(y[gaps]) * np.sqrt(np.mean((errors / y)[~gaps] ** 2))
    known, m = len(n) > 0 and not np.isnan(errors).any(), len(n)
    errors = np.maximum(errors, 1e-9 * np.where(y == 0, 1, np.abs(y)))  # no law is followed closer than rounding

    found = {law: fit_law(law, n, y, errors if known else np.ones(m)) for law in LAWS}
    freedom = {law: m - k for law, k in LAWS.items() if m > k and known}
    c = max([1, min([found[law]["chi2"] / freedom[law] for law in freedom], default=1)])
    for law, k in LAWS.items():
        correction = 2 * k * (k + 1) / (m - k - 1) if m >= 4 else 0
        found[law]["criterion"] = found[law]["chi2"] / c + 2 * k + correction if known else np.nan
    bounds = np.nan, np.nan
    if known and m > 1 and trials is not None:
        bounds = exponent_interval(n, trials, errors, confidence, resamples, seed)
    elif known and m > 1:
        bounds = scipy.stats.norm.interval(confidence, *(found["power"][of][1] for of in ("parameters", "errors")))
    found |= {"exponent_interval": bounds, "n": n, "values": y, "errors": errors, "infinite": infinite}
    found["misfit"] = c if freedom else np.nan
    found["verdict"], found["reason"] = decide(found)
    return found


def decide(found):
    """The verdict on a fit and what it rests on, by the rule of `fit_laws`."""
    n, y, errors = found["n"], found["values"], found["errors"]
    if len(found["infinite"]):
        return "undecided", "infinite at n = " + ", ".join(f"{size:g}" for size in found["infinite"])
    if len(n) < 4:
        return "undecided", "fewer than four sizes"
    if np.isnan(errors).any():
        return "undecided", "no errors"
    level = abs(found["constant"]["parameters"][0])
    if np.all(np.abs(np.abs(y) - level) + 2 * errors <= UNCHANGED * level) or not y.any():
        return "constant", f"within {UNCHANGED:.0%}"
    if found["misfit"] > MISFIT:
        return "undecided", "no law fits"
    constant, log, power = (found[law]["criterion"] for law in LAWS)
    low, high = found["exponent_interval"]
    if constant - min(log, power) >= MARGIN:
        direction = "rising" if found["log"]["parameters"][1] > 0 else "falling"
        if abs(log - power) >= MARGIN:
            return "log" if log < power else "power", direction
        return "undecided", f"log or power, {direction}"
    of_log = np.log(np.log(n.max()) / np.log(n.min())) / np.log(n.max() / n.min())
    if max(-low, high) <= of_log / 4:
        return "constant", "no growth seen"
    return "undecided", "noise"


def scaling_table(results, quantities, **options):
    """Fit quantities of a results file: {label: (array's name, statistic within a trial)} -> one row (dict) each.

    options: those of `fit_laws`. A row has "quantity", "n", "exponent" and "exponent_interval" of a n^b, "slope" and
    "slope_error" of a + b ln n, "differences" {law: criterion less the smallest}, "misfit", "verdict", "reason".
    """
    rows = []
    for label, (name, statistic) in quantities.items():
        found = fit_laws(results["data_sizes"], trial_values(results[name], statistic), **options)
        criteria = {law: found[law]["criterion"] for law in LAWS}
        rows.append({
            "quantity": label, "n": found["n"],
            "exponent": found["power"]["parameters"][1], "exponent_interval": found["exponent_interval"],
            "slope": found["log"]["parameters"][1], "slope_error": found["log"]["errors"][1],
            "differences": {law: value - min(criteria.values()) for law, value in criteria.items()},
            "misfit": found["misfit"], "verdict": found["verdict"], "reason": found["reason"],
        })  # fmt: skip
    return rows


def format_table(rows):
    """The rows of `scaling_table` as a Markdown table; a dash stands for what can't be known."""

    def numbers(text, *values):
        return text.format(*values) if np.isfinite(values).all() else "–"

    lines = [
        "| quantity | sizes | exponent of a n^b (95 % interval) | b of a + b ln n | AICc above the best: "
        "constant, log, power | χ²/dof, at least 1 | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        n = row["n"]
        cells = [
            row["quantity"],
            f"{n.min():g}–{n.max():g} ({len(n)})" if len(n) else "–",
            numbers("{:.3g} ({:.3g} to {:.3g})", row["exponent"], *row["exponent_interval"]),
            numbers("{:.3g} ± {:.2g}", row["slope"], row["slope_error"]),
            numbers("{:.1f}, {:.1f}, {:.1f}", *row["differences"].values()),
            numbers("{:.2g}", row["misfit"]),
            f"**{row['verdict']}**: {row['reason']}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
