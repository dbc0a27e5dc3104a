"""Made-up results of every kind, as the scripts write them: small, and their numbers known."""

import json

import numpy as np
import xarray as xr

SIZES = np.array([16, 32, 64, 128])
LABELS = {
    "approximation": ["exact", "sparsified", "diagonal"],
    "convention": ["original", "corrected"],
    "threshold": ["test median", "zero"],
    "divisor": ["test set", "training set", "fixed constant"],
    "classifier": ["exact", "diagonal", "kernel mean", "ink", "nearest neighbour", "ridge"],
}
ORIGIN = {"dataset": "mnist", "network": "convolutional", "classes": [1, 0], "depth_rule": 96}


def dataset(origin=None, trials=4, **variables):
    """A Dataset of variables (dims after n and trial, values), for every size and trial."""
    arrays = {}
    for name, (dims, values) in variables.items():
        shape = [len(SIZES), trials, *(len(LABELS.get(dim, range(3))) for dim in dims)]
        arrays[name] = (["n", "trial", *dims], np.array(np.broadcast_to(values, shape), float))
    coords = {dim: LABELS[dim] for name in arrays for dim in arrays[name][0] if dim in LABELS}
    coords |= {"n": SIZES, "trial": np.arange(trials)}
    for name in ("pattern", "image"):
        if any(name in dims for dims, _ in arrays.values()):
            coords[name] = np.arange(3)
    attrs = {"origin": json.dumps(ORIGIN | (origin or {}))}
    made = xr.Dataset(arrays, coords=coords, attrs=attrs)
    made["test_images"] = (["n", "trial"], np.full((len(SIZES), trials), 256.0))
    return made


def column(values, axes):
    """Values by size, as an array that broadcasts over the trials and so many axes behind them."""
    return np.reshape(np.asarray(values, float), (len(SIZES), 1, *[1] * axes))


def noise(spread, axes, trials=4):
    """A factor for each trial, about 1."""
    each = 1 + spread * np.array([-1, 1, 1, -1])[:trials]
    return each.reshape(1, trials, *[1] * axes)


def results(origin=None):
    """Sparsity ln n, κ of K n^1.1, readout 30, post-selection sqrt(n); K̃ at chance with t = 0."""
    axes = ("approximation", "convention", "pattern")
    sparsified = np.array([np.nan, 1, np.nan])[:, None, None]
    by_matrix = np.stack([SIZES**1.1, 3 + 0 * SIZES, np.nan * SIZES], 1)[:, None, :, None, None]
    accuracy = np.full((3, 2, 3, 2), 0.9)
    accuracy[1, 0, :, 1] = 0.5
    accuracy[1, 1, :, 1] = 0.6
    return dataset(
        origin,
        accuracy=((*axes, "threshold"), accuracy * noise(0.01, 4)),
        condition_number=(axes, by_matrix * noise(0.01, 3)),
        sparsity=(axes, column(np.log(SIZES), 3) * noise(0.01, 3) * sparsified),
        positive_definite=(axes, sparsified),
        post_selection_measurements=(
            ("divisor", "image"), column(SIZES**0.5, 2) * noise(0.01, 2)
        ),
        readout_measurements=(
            (*axes, "threshold", "image"),
            30 * noise(0.01, 5) * np.array([np.nan, 1, 2])[:, None, None, None, None],
        ),
        depth=((), 96),
        off_diagonal_ratio=((), 0.25),
    )  # fmt: skip


def with_settings(made, settings, origin=None):
    """The same under each setting, an axis after n; settings: names, or a number of them."""
    wide = made.expand_dims(setting=settings).transpose("n", "setting", "trial", ...)
    wide = wide.copy(deep=True)
    wide.attrs["origin"] = json.dumps(json.loads(made.attrs["origin"]) | (origin or {}))
    return wide


def emulation():
    """Queries 1000 of the best solver, 400 without one, thrice as many by fixed effort.

    Classically 2n operations for all entries, and 24 n by conjugate gradients; a sampler reads 50.
    """
    axes = {
        "solver": ["QSVT", "series in E"],
        "encoding": ["sparse oracle", "I + E"],
        "readout": ["shots", "amplitude estimation"],
        "effort": ["fixed", "sequential"],
        "kind": ["oracle", "all"],
        "unit": ["shots", "uses", "reads"],
        "method": ["all entries", "sampler", "conjugate gradients anew", "Cholesky anew"],
    }
    LABELS.update(axes)
    cost = np.array([[8000, 1000], [4000, 2000.0]])[:, :, None] * np.array([5, 1])  # s, e, r
    cost[1, 0] = np.nan  # does not apply
    cost = cost[None, None, :, :, :, None, None, None] * np.array([[3.0], [1]])
    without = np.reshape([2000, 400.0], (1, 2, 1, 1, 1)) * np.reshape([1, 1, 9], (3, 1, 1))
    without = without * np.array([[3.0], [1]])
    operations = np.stack([2 * SIZES, 300 + 0 * SIZES, 24 * SIZES, SIZES**3], axis=1)
    two, both = ("pattern", "threshold"), ("approximation", "pattern", "threshold")
    costs = ("readout", "divisor", "effort", "kind")
    made = dataset(
        {"emulation": 1},
        cost=((*two, "solver", "encoding", *costs), cost * noise(0.05, 8)),
        calibration_queries_without_solver=(("readout", "divisor"), 5e4),
        cost_without_solver=(("threshold", *costs), without * noise(0.05, 5)),
        uses=((*two, "solver", "encoding"), 5),
        operations_classical=((*both, "method", "effort"),
                              operations[:, None, None, None, None, :, None]),
        needed=((*both, "unit", "effort"), [150, 50]),
        accuracy_kept=((*both, "unit", "effort"), 0.99),
        accuracy_noiseless=(both, 0.9), accuracy_unbalanced=(both, 0.88),
        accuracy_drawn=(("approximation", "pattern"), 0.89),
        qram_writes=((), column(SIZES, 0)), sparsity=(("pattern",), 9),
        bits_matrix=(("pattern",), 8), bits_test=(("pattern", "divisor"), 7),
        cost_kappa_doubled=(("pattern", "encoding"), 2),
        cost_norm_unknown=(("pattern", "encoding"), 4),
        cost_fixed_point=(("pattern", "divisor"), 3),
    )  # fmt: skip
    return made.assign_coords(threshold=["calibrated", "zero"])


def standardisation():
    """Accuracy of everything 0.9, and 0.8 by the training images' numbers; n^0.5 measurements."""
    LABELS["standard"] = ["test images", "training images"]
    accuracy = np.array([0.9, 0.8])[:, None, None] * noise(0.01, 3)
    measurements = np.array([30.0, 60])[:, None] * noise(0.01, 2)
    made = dataset(
        accuracy=(("standard", "approximation", "threshold"), accuracy),
        readout_measurements=(("standard", "approximation", "threshold"), measurements[..., None]),
        post_selection_measurements=(("standard", "divisor"), measurements),
    )
    return made.assign_coords(threshold=["calibrated", "zero"])


def circuit():
    """One prediction, the sparsified one 0.25 off."""
    LABELS.update(source=["circuit", "emulated"], kind=["oracle", "labels", "QRAM"], gate=["cx"])
    both = ("approximation", "source")
    made = dataset(
        {"circuit": 1},
        qubits=(both, 11),
        degree=(both, 3),
        gate_count=(("approximation",), 1234),
        depth=(("approximation",), 99),
        gates=(("approximation", "gate"), 50),
        queries=((*both, "kind"), 2),
        success_probability=(both, 0.5),
        post_selection_probability=(both, 0.25),
        overlap=(both, 0.1),
    )
    built = {"approximation": "sparsified", "source": "circuit"}
    made.overlap.loc[built] = 0.35
    made.queries.loc[built | {"kind": "QRAM"}] = 1
    return made.sel(approximation=["diagonal", "sparsified"])
