"""The figures, drawn from made-up results: what they show is looked up in the drawn figure, not in its picture."""

import json
import warnings

import matplotlib as mpl
import matplotlib.colors
import numpy as np
import pytest
from matplotlib.patches import Rectangle

import figures
import scaling
import training
from analysis import drawing, growth, tables
from analysis.drawing import STYLES, draw_curve, panels, short_number
from runtime import checkpoints
from runtime.trials import Run, TrialFiles

SIZES, TRIALS, PATTERNS, TEST = np.array([16, 32, 64, 128]), [4, 3, 2, 1], 2, 5
AXES = {
    "thresholds": ["zero", "median"], "solvers": ["series", "QSVT"], "encodings": ["s max|K|", "I + E"],
    "readouts": ["shots", "amplified shots", "amplitude estimation"], "shots": [1, 10, 100, 1000],
    "conventions": ["training", "k_thresh"], "kinds": ["oracle", "QRAM", "all"],
    "statistics": ["mean", "10 %", "median", "90 %"], "classical": ["all entries", "sampler"],
}  # fmt: skip


def made_up(rng, *shape, low=1.0, high=2.0):
    """Random [sizes, trials, *shape], NaN where there is no trial."""
    array = rng.uniform(low, high, (len(SIZES), max(TRIALS), *shape))
    for i, trials in enumerate(TRIALS):
        array[i, trials:] = np.nan
    return array


def result_arrays(rng, network):
    """What a results file holds."""
    arrays = {"data_sizes": SIZES, "trials": np.array(TRIALS), "depth": made_up(rng) * 36, "separability": made_up(rng)}
    arrays["condition_number_exact"] = 1 + made_up(rng) * (1e-6 if network == "fully-connected" else 9)
    shares = dict(low=0.5, high=1)
    for name in ("exact", "diagonal"):
        arrays |= {f"accuracy_{name}{ending}": made_up(rng, **shares) for ending in ("", "_at_zero")}
    arrays |= {f"clipped_share_{name}": made_up(rng, **shares) for name in ("k_thresh", "training")}
    for ending in ("", "_k_thresh", "_training"):
        arrays[f"post_selection_measurements{ending}"] = made_up(rng, TEST)
    for ending in ("", "_at_median"):
        arrays[f"readout_measurements_diagonal{ending}"] = made_up(rng, TEST)
        arrays[f"readout_measurements_sparse{ending}"] = made_up(rng, PATTERNS, TEST)
    for name in ("sparsity", "condition_number", "positive_definite"):
        arrays |= {name + ending: made_up(rng, PATTERNS) for ending in ("", "_sound")}
    arrays |= {f"accuracy_sparse{ending}": made_up(rng, PATTERNS, **shares) for ending in ("", "_at_zero")}
    arrays["accuracy_sparse_at_zero_sound"] = made_up(rng, PATTERNS, **shares)
    return arrays | {"pattern_sparsity": rng.integers(3, 9, (len(SIZES), 10)).astype(float)}


def setting_arrays(rng, name, settings, quantities):
    """What the file of a sweep holds: [sizes, settings, trials]."""
    arrays = {q: np.stack([made_up(rng, low=0.5, high=1) for _ in settings], axis=1) for q in sorted(quantities)}
    arrays |= {q: 1 + array for q, array in arrays.items() if q.startswith("condition_number")}
    return {"data_sizes": SIZES, "trials": np.array(TRIALS), name: np.array(settings)} | arrays


def emulation_arrays(rng):
    """What emulation.py writes, as far as it is drawn."""
    solvers, encodings, readouts, conventions, kinds, statistics = 2, 2, 3, 2, 3, 4
    shapes = {
        "accuracy": (PATTERNS, 2, 4), "accuracy_diagonal": (2, 4), "accuracy_noiseless": (PATTERNS, 2),
        "accuracy_noiseless_diagonal": (2,), "shots_needed": (PATTERNS, 2), "shots_needed_diagonal": (2,),
        "samples_needed_diagonal": (2,), "operations_classical": (PATTERNS, 2, 2),
        "cost_diagonal": (2, readouts, conventions, kinds, statistics), "uses": (PATTERNS, 2, solvers, encodings),
        "cost": (PATTERNS, 2, solvers, encodings, readouts, conventions, kinds, statistics),
    }  # fmt: skip
    arrays = {name: made_up(rng, *shape) for name, shape in shapes.items()}
    arrays["cost"][:, :, :, :, 1, 0] = np.nan  # a solver that knows one encoding
    computed = np.arange(max(TRIALS)) < np.array(TRIALS)[:, None]
    about = {"data_sizes": SIZES, "trials": np.array(TRIALS), "computed": computed, "by_size": np.array([], "U1")}
    return about | {"origin": np.array(json.dumps({"axes": AXES}))} | arrays


def circuit_arrays():
    """What circuit.py writes, as far as it is drawn."""
    names = ("qubits_circuit", "queries_oracle_circuit", "gates", "depth", "p_circuit", "P_circuit", "overlap_circuit")
    counts = {name: np.array([[[3.0, 31.0]]]) for name in (*names, "degree_emulated")}
    origin = json.dumps({"axes": {"algorithms": ["diagonal", "sparsified"]}})
    return counts | {"data_sizes": np.array([16]), "origin": np.array(origin)}


PAIRS = [(a, b) for b in range(10) for a in range(b)]
PLANES = [(90, 1, 1), (0, 1, 1), (90, 0, 1), (0, 0, 1), (90, 1, 4), (0, 1, 4), (90, 0, 4)]


def results_of(network="fully-connected", folder=None):
    """A network of which everything is there; the emulation in a file in `folder`."""
    rng = np.random.default_rng(0)
    swept = [name for _, names in figures.SWEEP.values() for name in names.values()]
    mapped = {name for shown in (*figures.PAIR_MAPS, *figures.SENSITIVITY_MAPS) for name in shown[1:3] if name}
    compared = "exact", "diagonal", *figures.BASELINES
    baselines = [f"accuracy_{name}{ending}" for name in compared for ending in ("", "_at_zero")]
    parts = {
        "depth_sweep": setting_arrays(rng, "depth_settings", [0.01, 0.1, 1], swept)
        | {"origin": np.array(json.dumps({"depth_rule": 0.1}))},
        "digit_pairs": setting_arrays(rng, "digit_pairs", PAIRS, mapped),
        "sensitivity": setting_arrays(rng, "settings", PLANES, mapped)
        | {"origin": np.array(json.dumps({"papers_setting": [90, 1, 1]}))},
        "baselines": {"data_sizes": SIZES, "trials": np.array(TRIALS)} | {name: made_up(rng) for name in baselines},
        "emulation": emulation_arrays(rng),
        "circuit": circuit_arrays(),
    }
    if folder:
        np.savez(folder / f"{network}_emulation.npz", **parts["emulation"])
    return figures.Results(network, network, f"{network}, MNIST", folder, result_arrays(rng, network), parts)


SINGLE = ("sparsity", "accuracy", "condition_number", "post_selection", "readout", "sounder", "separability",
          "depth_sweep", "baselines", "digit_pairs", "sensitivity", "shots", "cost_of_all", "circuit")  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return {network: results_of(network, tmp_path_factory.mktemp(network)) for network in training.networks}


@pytest.fixture(scope="module")
def drawn(loaded):
    """Every figure of the fully-connected network, and those of both."""
    with warnings.catch_warnings(action="error"):
        found = {name: getattr(figures, name)(loaded["fully-connected"]) for name in SINGLE}
        return found | {name: getattr(figures, name)(loaded) for name in ("overview", "cost")}


def legend_of(figure):
    """{label: handle} of a figure's legends, and of its axes'."""
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    return {t.get_text(): h for legend in legends for t, h in zip(legend.texts, legend.legend_handles, strict=True)}


@pytest.mark.parametrize("name", [*SINGLE, "overview", "cost"])
def test_one_colour_one_meaning(drawn, name):
    """Every line that names a style has its colour and marker, and every line is in a legend."""
    colors = {style.color: key for key, style in STYLES.items()}
    labels = legend_of(drawn[name])
    for ax in drawn[name].axes:
        for line in ax.get_lines():
            label, color = str(line.get_label()), mpl.colors.to_hex(line.get_color()).upper()
            if not label.startswith("_"):
                assert label in labels
            for key, style in STYLES.items():
                words = {"exact": "exact", "sparsified": "sparsified", "diagonal": "diagonal"}.get(key)
                if words and label.startswith(words):
                    assert color == style.color and line.get_marker() in (style.marker, "None"), label
            if color in colors and line.get_marker() not in ("None", None, "_", "|", "", 2, 3):
                assert line.get_marker() in (STYLES[colors[color]].marker, "."), (label, color)


def test_means_bars_and_points_are_those_of_scaling(drawn, loaded):
    ax = drawn["readout"].axes[0]
    arrays = loaded["fully-connected"].arrays
    values = scaling.trial_values(arrays, "readout_measurements_sparse")
    mean, _, half = scaling.size_means(SIZES, values)
    container = next(c for c in ax.containers if c.lines[0].get_color() == STYLES["sparsified"].color)
    np.testing.assert_allclose(container.lines[0].get_ydata(), mean)
    segments = np.array(container.lines[2][0].get_segments())[:, :, 1]
    np.testing.assert_allclose(segments[:, 1] - segments[:, 0], 2 * np.nan_to_num(half))
    points = next(c for c in ax.collections if len(c.get_offsets()) == sum(TRIALS)).get_offsets()[:, 1]
    np.testing.assert_allclose(np.sort(points), np.sort(np.concatenate(values)))
    growth = scaling.fit_growth(SIZES, values)
    fitted = [line for line in ax.get_lines() if len(line.get_xdata()) == 100]
    np.testing.assert_allclose(fitted[0].get_ydata(), growth.curve(fitted[0].get_xdata()))
    assert f"sparsified: {growth.verdict}" in [t.get_text() for t in ax.texts]


def test_verdicts_fit_into_the_picture():
    """Of the narrowest panels, with the longest verdict."""
    loaded = {network: results_of(network) for network in training.networks}
    for results in loaded.values():
        for name, array in results.arrays.items():
            if name.startswith(("post_selection", "readout")):
                results.arrays[name] = np.where(np.isnan(array), array, 7.0)
    figure = figures.overview(loaded)
    figure.draw_without_rendering()
    texts = [t for ax in figure.axes for t in ax.texts if "growth" in t.get_text()]
    assert len(texts) >= 8 and f"divisor unknown: {growth.NO_GROWTH}" in [t.get_text() for t in texts]
    assert all(t.get_window_extent().x1 <= figure.bbox.x1 for t in texts)


def test_fully_connected_condition_number_less_1_on_a_log_axis(drawn, loaded):
    ax = drawn["condition_number"].axes[0]
    values = scaling.trial_values(loaded["fully-connected"].arrays, "condition_number_exact")
    exact = next(c for c in ax.containers if c.lines[0].get_color() == STYLES["exact"].color)
    np.testing.assert_allclose(exact.lines[0].get_ydata(), [np.mean(v - 1) for v in values])
    assert ax.get_yscale() == "log" and "− 1" in ax.get_ylabel()
    convolutional = figures.condition_number(loaded["convolutional"]).axes[0]
    assert "− 1" not in convolutional.get_ylabel()


@pytest.mark.parametrize("name", ["accuracy", "condition_number", "readout", "depth_sweep"])
def test_axes_end_where_the_data_do(drawn, name):
    """Every mean and every trial is inside; shares do not go beyond 1."""
    for ax in drawn[name].axes:
        low, high = ax.get_ylim()
        for container in ax.containers:
            y = container.lines[0].get_ydata()
            assert np.all((y >= low) & (y <= high))
        for points in ax.collections:
            if len(points.get_offsets()) == sum(TRIALS):
                y = points.get_offsets()[:, 1]
                assert np.all((y >= low) & (y <= high))
        if ax.get_yscale() == "log":
            assert high < 1e3 * max(np.max(c.lines[0].get_ydata()) for c in ax.containers)
        if name == "accuracy":
            assert high < 1.05


def test_bars_over_depth_and_shots_do_not_count_the_same_trials_twice():
    """Four trials at six settings that differ by nothing but the trial: the interval of four trials, as the tables'."""
    trials = np.array([0.90, 0.94, 0.96, 0.92])
    mean, half = figures.means_at(np.array([16]), [[trials]] * 6, 0, shares=False)
    error = trials.std(ddof=1) / 2
    assert mean == pytest.approx([0.93] * 6) and half == pytest.approx([3.182 * error] * 6, rel=0.02)
    sizes, both = np.array([16, 64]), np.array([trials, trials - 0.1])
    mean, half = figures.means_at(sizes, [[*both]] * 6, 1, shares=True)
    assert (mean[0], half[0]) == pytest.approx([column[1] for column in tables.means(sizes, both)])


def test_depth_sweep_ends_at_rounding(loaded):
    results = results_of()
    results.parts["depth_sweep"]["off_diagonal_ratio"] *= np.array([1, 1e-7, 1e-117])[:, None]
    low, high = figures.depth_sweep(results).axes[2].get_ylim()
    assert 1e-10 < low < 1e-7 and high < 10


def test_infinite_values_are_said_and_left_out(loaded):
    results = results_of("convolutional")
    results.arrays["condition_number"][1, 0] = np.inf
    ax = figures.condition_number(results).axes[0]
    assert "sparsified: infinite at n = 32" in [t.get_text() for t in ax.texts]
    sparsified = next(c for c in ax.containers if c.lines[0].get_color() == STYLES["sparsified"].color)
    assert len(sparsified.lines[0].get_ydata()) == 3


@pytest.mark.slow
def test_one_size_of_one_trial(loaded):
    """No error, no warning."""
    results = results_of()
    for name, array in results.arrays.items():
        results.arrays[name] = array[3:]
    with warnings.catch_warnings(action="error"):
        for name in ("overview", "accuracy", "condition_number", "sounder", "separability"):
            figures.save(getattr(figures, name)({"": results} if name == "overview" else results), name, "/dev/null")


def cell(ax, x, y):
    """The number in a map's cell."""
    return next(t.get_text() for t in ax.texts if t.get_position() == (x, y))


def frames(ax):
    """Lower left corners of a map's frames, and their line styles."""
    return {patch.get_xy(): patch.get_linestyle() for patch in ax.patches if isinstance(patch, Rectangle)}


def test_digit_pairs_are_where_they_belong(drawn, loaded):
    arrays = loaded["fully-connected"].parts["digit_pairs"]
    pair = PAIRS.index((3, 5))
    first, second = drawn["digit_pairs"].axes[:2]
    exact = arrays["accuracy_exact"][3, pair, 0]
    assert cell(first, 3, 5) == short_number(exact, 3)
    assert cell(second, 3, 5) == short_number(exact - arrays["accuracy_sparse"][3, pair, 0], 3)
    assert set(frames(first)) == {(7.5, 8.5), (-0.5, 0.5)}
    assert frames(first)[7.5, 8.5] == "-" != frames(first)[-0.5, 0.5]
    values = arrays["accuracy_exact"][:, :, 0].mean(axis=0)  # the trial that every size has
    rank = 1 + np.sum(values > values[PAIRS.index((8, 9))])
    assert f"8 and 9: {rank} (1 to 45)" in [line for t in first.texts for line in t.get_text().splitlines()]


@pytest.mark.parametrize("trials, words", [
    ([8, 8, 8, 2], "8 up to n = 64, then 2"), ([4, 4, 2, 0], "4, 4, 2"), ([3, 3, 3, 3], "3"), ([0] * 4, "none"),
    ([4, 2, 4, 4], "4, 2, 4, 4"),
])  # fmt: skip
def test_numbers_of_trials_in_words(trials, words):
    assert figures.counts_of({"data_sizes": SIZES, "trials": np.array(trials)}) == words


def test_a_baseline_far_below_is_named_instead_of_setting_the_axis():
    results = results_of()
    part = results.parts["baselines"]
    for name in part:
        if name.startswith("accuracy"):
            part[name] = (0.3 if "ink" in name else 0.9) + 0.01 * (part[name] - 1.5)
    part["accuracy_ink"] += 0.3 - np.nanmean(part["accuracy_ink"], axis=1, keepdims=True)
    part["accuracy_ink"][1:] += 0.02
    part["accuracy_ink_at_zero"] = part["accuracy_ink"] + 0.1
    at_the_median, at_zero = figures.baselines(results).axes
    assert at_the_median.get_ylim()[0] > 0.5
    assert [t.get_text() for t in at_the_median.texts] == ["below: sum of the pixels, 0.30 to 0.32"]
    assert [t.get_text() for t in at_zero.texts] == ["below: sum of the pixels, 0.40 to 0.42"]


def test_good_is_yellow_or_blue_in_every_map():
    """The best cell is the lightest, or the bluest of a difference; a hair's difference is nearly white."""
    results = results_of()
    part = results.parts["digit_pairs"]
    for name in ("accuracy_sparse", "accuracy_diagonal"):
        part[name] = part["accuracy_exact"] + np.linspace(-0.1, 0.1, 45)[:, None]
    part["accuracy_diagonal"][:, 0] = part["accuracy_exact"][:, 0] + 1e-4
    for ax, shown in zip(figures.digit_pairs(results).axes, figures.PAIR_MAPS, strict=True):
        image = ax.images[0].get_array()
        known = image[~image.mask]
        ends = known.max(), known.min()
        high = shown.name.startswith("accuracy") and not shown.subtracted
        good, bad = (ax.images[0].to_rgba(end)[:3] for end in (ends if high else ends[::-1]))
        if shown.subtracted:
            assert good[2] > good[0] + 0.2 and bad[0] > bad[2] + 0.2
            assert min(ax.images[0].to_rgba(-1e-4)[:3]) > 0.85
        else:
            assert good[0] > 0.9 and good[1] > 0.8 and max(bad[:2]) < 0.2


def test_one_bad_trial_does_not_set_the_axis_and_is_marked_on_it():
    values = [np.append(np.linspace(0.94, 0.96, 31), 0.5), np.linspace(0.95, 0.97, 32)]
    figure, axes = panels(1, 1, 4, 3)
    ax = axes[0, 0]
    curve = draw_curve(ax, np.array([16, 32]), values, STYLES["exact"], outliers=False)
    drawing.value_axis(ax, curve.heights, "shares")
    drawing.mark_below(ax, [curve])
    drawing.add_legend(figure)
    bottom = ax.get_ylim()[0]
    assert 0.85 < bottom < curve.heights.min()
    (marks,) = (points.get_offsets() for points in ax.collections if not points.get_clip_on())
    np.testing.assert_allclose(marks, [[16, bottom]])
    assert drawing.BELOW in legend_of(figure)


def test_sensitivity_of_the_largest_size_with_several_trials(drawn, loaded):
    arrays = loaded["fully-connected"].parts["sensitivity"]
    ax = drawn["sensitivity"].axes[0]
    assert cell(ax, 0, 0) == short_number(arrays["accuracy_sparse"][2, PLANES.index((0, 0, 1)), :2].mean(), 3)
    assert cell(ax, 1, 1) == short_number(arrays["accuracy_sparse"][2, PLANES.index((90, 1, 1)), :2].mean(), 3)
    assert set(frames(ax)) == {(0.5, 0.5)}
    assert cell(drawn["sensitivity"].axes[2], 1, 1) == short_number(
        arrays["accuracy_sparse"][2, PLANES.index((90, 1, 4)), :2].mean(), 3
    )


@pytest.mark.slow
def test_differences_in_the_sensitivity_have_white_at_0():
    """Where K̃ is nowhere better than the diagonal no cell is blue, and where it is better everywhere none is red."""
    results = results_of()
    for shift, hue in ((-0.5, 0), (0.5, 2)):  # red, blue
        part = results.parts["sensitivity"]
        part["accuracy_sparse_at_zero"] = part["accuracy_diagonal_at_zero"] + shift * part["accuracy_exact"]
        part["accuracy_sparse_at_zero"][:, 0] = part["accuracy_diagonal_at_zero"][:, 0] + [-0.3, 0.3, 0, 0]
        ax = figures.sensitivity(results).axes[9]
        shown = ax.images[0].get_array()
        assert shown.mask[1, 1] and shown.mask.sum() == 1  # at the paper's point it may be chance
        assert np.all(np.argmax(ax.images[0].to_rgba(shown.compressed())[:, :3], axis=1) == hue)


def test_condition_numbers_in_the_sensitivity_are_medians():
    results = results_of()
    part = results.parts["sensitivity"]
    part["condition_number"][:, PLANES.index((0, 0, 1)), 0] = 1e9
    part["condition_number"][0, PLANES.index((0, 0, 1)), 1:4] = 3.0
    part["trials"] = np.array([4, 1, 0, 0])
    assert cell(figures.sensitivity(results).axes[12], 0, 0) == "3.0"


def test_cheapest_costs(drawn, loaded):
    arrays = loaded["fully-connected"].parts["emulation"]
    sparsified, diagonal, classical = (c.lines[0].get_ydata() for c in drawn["cost"].axes[0].containers)
    # [sizes, trials, way], NaN where there is no trial; the way is cheapest of all sizes together.
    ways = np.mean(arrays["cost"][:, :, :, 1, ..., 0, 2, 0][:, :, :, [0, 0, 1], [0, 1, 1]], axis=2).reshape(4, 4, -1)
    least = np.argmin(np.log(np.nanmean(ways, axis=1)).sum(axis=0))
    np.testing.assert_allclose(sparsified, np.exp(np.nanmean(np.log(ways[..., least]), axis=1)))
    means = np.nanmean(arrays["cost_diagonal"][:, :, 1, :, 0, 2, 0], axis=1)
    geometric = np.exp(np.nanmean(np.log(arrays["cost_diagonal"][:, :, 1, :, 0, 2, 0]), axis=1))
    np.testing.assert_allclose(diagonal, geometric[:, np.argmin(np.log(means).sum(axis=0))])
    assert classical[0] in np.exp(np.mean(np.log(arrays["operations_classical"][0, :, :, 1].mean(axis=1)), axis=0))


def test_cost_of_all_frames_the_cheapest(drawn, loaded):
    arrays = loaded["fully-connected"].parts["emulation"]
    cost = np.mean(arrays["cost"][0, :, :, 1, ..., 0, 2, 0], axis=(0, 1)).reshape(4, 3)  # [solver, encoding; readout]
    axes = drawn["cost_of_all"].axes
    assert [t.get_text() for t in axes[0].get_yticklabels()] == [
        "series, s max|K|", "series, I + E", "QSVT, I + E", "diagonal, no solver"
    ]  # fmt: skip
    assert cell(axes[1], 0, 1) == short_number(cost[1, 1])
    diagonal = arrays["cost_diagonal"][0, :, 1, :, 0, 2, 0].mean(axis=0)
    least = np.vstack([cost[[0, 1, 3]], diagonal])
    row, column = np.unravel_index(np.argmin(least), least.shape)
    framed = [(y + 0.5, r) for r, ax in enumerate(axes[:3]) for x, y in frames(ax) if x == -0.5]
    assert framed == [(row, column)]


def test_intervals_of_geometric_means_stay_positive():
    _, axes = panels(1, 1, 3, 3)
    values = [np.array([1.0, 1000.0]), np.array([10.0, 100.0])]
    curve = draw_curve(axes[0, 0], np.array([16, 32]), values, STYLES["both"], geometric=True)
    assert curve.heights.min() > 0 and 1000 < curve.heights.max() <= 10_000


@pytest.mark.parametrize("value, text", [
    (0.9574, ".957"), (-0.031, "-.031"), (0, "0"), (1, "1"), (1.24, "1.2"), (33.3, "33"), (1500, "1.5k"),
    (2e6, "2e6"), (3e-7, "3e-7"), (np.inf, "∞"), (9.97, "10"), (999.7, "1k"),
])  # fmt: skip
def test_short_numbers(value, text):
    assert short_number(value, 3) == text


# ----------------------------------------------------------------------------------------------------------------------
# Results and kernels on the disk
# ----------------------------------------------------------------------------------------------------------------------


def test_mnist_before_digits(tmp_path, capsys):
    arrays = result_arrays(np.random.default_rng(0), "fully-connected")
    np.savez(tmp_path / "digits-fully-connected_results.npz", **arrays)
    digits = figures.load(tmp_path)["fully-connected"]
    printed = capsys.readouterr().out
    assert digits.dataset == "digits" and "NOT OF MNIST" in printed and "NOT MNIST" in digits.title
    assert "no results of the convolutional network" in printed
    np.savez(tmp_path / "fully-connected_results.npz", **arrays)
    np.savez(tmp_path / "fully-connected_depth_sweep.npz", a=np.arange(3))
    (tmp_path / "fully-connected_emulation.npz").write_bytes(b"damaged")
    both = figures.load(tmp_path)["fully-connected"]
    printed = capsys.readouterr().out
    assert both.dataset == "mnist" and 'dataset = "digits"' in printed and "NOT OF MNIST" not in printed
    assert set(both.parts) == {"depth_sweep"} and "emulation.npz can't be read" in printed
    assert figures.load(tmp_path, "digits")["fully-connected"].prefix == "digits-fully-connected"
    assert figures.load(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("name, made_by", figures.PARTS.items())
def test_what_is_missing_is_named(loaded, name, made_by, capsys):
    results = results_of()
    del results.parts[name]
    drawing = {"emulation": "shots"}.get(name, name)
    with pytest.raises(figures.NothingToDraw, match=made_by):
        getattr(figures, drawing)(results)
    figures.show(getattr(figures, drawing), results, "name", "/dev/null")
    assert capsys.readouterr().out.startswith("note: ")


@pytest.mark.parametrize("network", training.networks)
def test_kernels_are_those_of_training(tmp_path, network):
    """K~ of the picture equals that of training.py. The kernel is made up, and is in a file as from training.py."""
    rng = np.random.default_rng(1)
    kernel = 3 * np.eye(16) + rng.uniform(1, 2, (16, 16))
    kernel += kernel.T
    trial = training.make_trial(network, training.selections[network], 16, 0)
    files = TrialFiles(Run(0, 4, tmp_path, "numba", "float64", {"name": "mnist", "sha256": "0"}), trial, depth=36)
    matrix = checkpoints.open_matrix(files.path("kernel_train"), (16, 16), files.label())
    matrix[:] = kernel
    checkpoints.finish_matrix(files.path("kernel_train"), matrix)
    results = results_of(network)
    results.folder = tmp_path

    found = figures.approximations(results)
    reference = kernel if network == "convolutional" else None
    thresholds = training.kernel_thresholds(36, reference)["class_thresholds"]
    expected = training.trial_approximations(trial, 0, kernel, thresholds)["original"][0]
    np.testing.assert_array_equal(found["exact"], kernel)
    np.testing.assert_array_equal(found["sparsified"], expected)
    np.testing.assert_array_equal(found["diagonal"], np.diag(np.diag(kernel)))
    assert len(figures.kernels(results).axes) == 4

    path = files.path("kernel_train")
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(figures.NothingToDraw, match="damaged"):
        figures.kernels(results)
    path.unlink()
    with pytest.raises(figures.NothingToDraw, match="no kernels"):
        figures.kernels(results)


def test_runs_on_record(tmp_path, capsys):
    figures.print_runs(tmp_path)
    assert capsys.readouterr().out.startswith("note: ")
    run = dict.fromkeys(("dataset", "device", "engine", "precision", "finished"), "x")
    runs = [run | {"network": "convolutional", "what": "results", "seconds": seconds} for seconds in ({"total": 1}, 2)]
    (tmp_path / "run.json").write_text(json.dumps({"sittings": runs}))
    figures.print_runs(tmp_path)
    assert capsys.readouterr().out == "convolutional, results: x; x; engine x, x; last run 2 s, finished x\n"
    runs[1] |= {"pairs": 120032, "pairs_computed": 0}
    (tmp_path / "run.json").write_text(json.dumps({"sittings": runs}))
    figures.print_runs(tmp_path)
    assert capsys.readouterr().out.endswith("last run 2 s, finished x, 0 of 120,032 pairs computed\n")
