"""The figures and answers, from made-up labelled results: what is looked up is the drawn figure, not its picture."""

import io
import json
import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.colors
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from analysis import answers, drawing, figures
from analysis.answers import Network, load
from analysis.drawing import STYLES, number, spread_out
from analysis.growth import size_means, trial_values
from runtime.results import read_results, write_results

ROOT = Path(__file__).parent.parent
SIZES, TRIALS, IMAGES = [16, 32, 64, 128], [4, 3, 2, 1], 5
LABELS = {
    "approximation": ["exact", "sparsified", "diagonal"],
    "convention": ["original", "corrected"],
    "threshold": ["test median", "zero"],
    "divisor": ["test set", "training set", "fixed constant"],
    "pattern": [0, 1, 2],
    "image": list(range(IMAGES)),
}
PER_TRIAL = ("approximation", "convention", "pattern")
BASELINES = ["exact", "diagonal", "kernel mean", "ink", "nearest mean", "nearest neighbour", "ridge"]
PAIRS = [f"{a} {b}" for b in range(10) for a in range(b)]
CONSTANTS = [(90, 1, 1), (90, 0, 1), (90, 1, 4), (90, 0, 4), (50, 1, 1)]
FIGURES = ["overview", "data", "approximations", "condition_number", "post_selection", "readout", "theorem",
           "growth", "controls", "cost"]  # fmt: skip


def quantity(rng, labels, *axes, low=1.0, high=2.0, setting=False):
    """Random values [n, (setting,) trial, *axes]; NaN where there is no trial."""
    dims = ["n", "trial", *axes]
    if setting:
        dims.insert(1, "setting")
    values = xr.DataArray(rng.uniform(low, high, [len(labels[dim]) for dim in dims]), dims=dims)
    there = np.arange(max(TRIALS)) < np.array(TRIALS)[:, None]
    return values.where(xr.DataArray(there, dims=("n", "trial")))


def dataset(quantities, labels, **origin):
    """Labelled results with their origin."""
    used = {dim: values for dim, values in labels.items() if any(dim in q.dims for q in quantities.values())}
    origin = {"seed": 0, "classes": [8, 9], "depth_rule": 0.1, "papers_setting": [90, 1, 1]} | origin
    return xr.Dataset(quantities, coords=used, attrs={"origin": json.dumps(origin)})


def made_up(network="fully-connected", classes=(8, 9)):
    """All kinds of results of a network: {kind: results}."""
    rng = np.random.default_rng(0)
    labels = LABELS | {"n": SIZES, "trial": list(range(max(TRIALS)))}

    def drawn(*axes, low=1.0, high=2.0, over=labels):
        return quantity(rng, over, *axes, low=low, high=high, setting="setting" in over)

    def main(over=labels):
        return {
            "accuracy": drawn(*PER_TRIAL, "threshold", low=0.6, high=0.9, over=over),
            "condition_number": drawn(*PER_TRIAL, low=2, high=9, over=over),
            "positive_definite": drawn(*PER_TRIAL, low=1, high=1, over=over),
            "sparsity": drawn(*PER_TRIAL, low=3, high=9, over=over),
            "off_diagonal_ratio": drawn(low=1e-5, high=1e-4, over=over),
            "test_images": drawn(low=5, high=5, over=over),
        }

    results = main() | {
        "readout_measurements": drawn(*PER_TRIAL, "threshold", "image", low=30, high=40),
        "post_selection_measurements": drawn("divisor", "image", low=5, high=9),
    }
    if network == "fully-connected":
        results["condition_number"] = 1 + 1e-6 * results["condition_number"]
    over = labels | {"classifier": BASELINES}
    baselines = {"accuracy": drawn("classifier", "threshold", low=0.6, high=0.9, over=over)}
    depth = labels | {"setting": [0.01, 0.1, 1.0]}
    pairs = labels | {"setting": PAIRS}
    constants = labels | {"setting": [" ".join(map(str, setting)) for setting in CONSTANTS]}
    ways = labels | {
        "approximation": ["sparsified", "diagonal"], "solver": ["series", "QSVT"], "encoding": ["I + E", "oracle"],
        "readout": ["shots", "amplified"], "kind": ["all", "oracle"], "statistic": ["mean", "median"],
        "method": ["all entries", "sampler"],
    }  # fmt: skip
    rest = ("readout", "divisor", "kind", "statistic")
    emulation = {
        "cost": drawn("pattern", "threshold", "solver", "encoding", *rest, over=ways),
        "cost_without_solver": drawn("threshold", *rest, over=ways),
        "operations_classical": drawn("approximation", "pattern", "threshold", "method", over=ways),
    }
    sensitivity = dataset(main(constants), constants)
    for axis, values in zip(("percentile", "boost", "density"), zip(*CONSTANTS, strict=True), strict=True):
        sensitivity = sensitivity.assign_coords({axis: ("setting", np.array(values, float))})
    return {
        "results": dataset(results, labels, classes=classes),
        "baselines": dataset(baselines, over),
        "depth_sweep": dataset(main(depth), depth),
        "digit_pairs": dataset(main(pairs), pairs),
        "sensitivity": sensitivity,
        "emulation": dataset(emulation, ways),
    }


def write_made_up(folder, prefix, network, *kinds, **about):
    """Files of made-up results in a folder."""
    for kind, results in made_up(network, **about).items():
        if (not kinds or kind in kinds) and not (kind == "sensitivity" and network != "convolutional"):
            write_results(folder / f"{prefix}_{kind}.nc", results)


@pytest.fixture
def network(tmp_path):
    """A made-up fully-connected network that a test may change."""
    return Network("fully-connected", "fully-connected", "mnist", tmp_path, made_up())


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made_up")
    return {name: Network(name, name, "mnist", folder, made_up(name)) for name in answers.NETWORKS}


@pytest.fixture(autouse=True)
def no_images(monkeypatch, tmp_path):
    """Nothing is downloaded."""
    monkeypatch.setenv("MNIST_DIR", str(tmp_path))


def curve_of(ax, color):
    """(means, lower ends, upper ends) of the curve of a colour."""
    container = next(c for c in ax.containers if mpl.colors.to_hex(c.lines[0].get_color()) == color.lower())
    ends = np.array(container.lines[2][0].get_segments())[:, :, 1]
    return container.lines[0].get_ydata(), *ends.T


def draw(networks, name):
    """A figure without its picture."""
    with drawing.in_style(), warnings.catch_warnings(action="error"):
        figure = getattr(figures, name)(networks)
        figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_without_a_warning(networks, name):
    """Also of one network; all names of curves stay inside the picture."""
    figure = draw(networks, name)
    for ax in figure.axes:
        for text in ax.texts:
            assert text.get_window_extent().x1 <= figure.bbox.x1 + 1, text.get_text()
    if name in ("overview", "growth", "controls"):
        draw({"convolutional": networks["convolutional"]}, name)


def test_readmes_picture_is_small_enough(networks):
    """At most 500 pixels high where 800 are shown, in twice as many."""
    picture = figures.save(networks, figures.overview)
    assert Image.open(io.BytesIO(picture)).size == (1600, 1000)
    folder = networks["convolutional"].folder / "figures"
    assert (folder / "overview.png").read_bytes() == picture


def test_means_and_bars_are_those_of_the_tables(network):
    labels = {"approximation": "diagonal", "convention": "original", "threshold": "zero"}
    values = trial_values(network.results.accuracy.sel(labels))
    mean, _, half = size_means(SIZES, values)
    figure = draw({"fully-connected": network}, "accuracy")
    drawn = curve_of(figure.axes[1], STYLES["diagonal"].color)
    np.testing.assert_allclose(drawn, [mean, mean - half, mean + half])


def test_no_size_of_several_trials_has_no_bars(network):
    """One size, one trial: no bar, no warning, no verdict."""
    for kind, results in network.parts.items():
        network.parts[kind] = results.isel(n=[3])
    for name in ("overview", "readout", "theorem", "growth"):
        draw({"fully-connected": network}, name)
    assert "in one trial" in answers.loss_in_words(network)
    assert answers.condition_stays(network).startswith("These trials can't tell")


def test_condition_numbers_near_1_are_drawn_less_1(networks):
    first, second = draw(networks, "condition_number").axes
    assert "less 1" in first.get_ylabel() and "less 1" not in second.get_ylabel()
    mean, *_ = curve_of(first, STYLES["exact"].color)
    assert np.all((mean > 1e-6) & (mean < 1e-5))


def test_the_fixed_constants_attempts_are_not_left_out(network):
    attempts = network.results.post_selection_measurements
    attempts.loc[dict(divisor="fixed constant")] *= 1e12
    (ax,) = draw({"fully-connected": network}, "post_selection").axes
    mean, *_ = curve_of(ax, STYLES["rival"].color)
    assert mean.min() > 1e12 and ax.get_ylim()[1] > mean.max()
    assert "with the fixed constant" in answers.preparing_is_cheap(network)


def test_a_collapse_at_zero_is_inside_the_axis(network):
    network.results.accuracy.loc[dict(approximation="sparsified", threshold="zero")] -= 0.3
    _, ax = draw({"fully-connected": network}, "accuracy").axes
    mean, *_ = curve_of(ax, STYLES["sparsified"].color)
    assert ax.get_ylim()[0] < mean.min() < 0.5
    assert "chance" in [text.get_text() for text in ax.texts]


def test_the_calibrated_threshold_is_used_where_it_is_known(network):
    assert answers.usable_threshold(network.results) == "test median"
    calibrated = network.results.sel(threshold=["zero"]).assign_coords(threshold=["calibrated"])
    both = xr.concat([network.results, calibrated], "threshold", data_vars="minimal")
    network.parts["results"] = both.assign_attrs(network.results.attrs)
    ax = draw({"fully-connected": network}, "accuracy").axes[0]
    assert ax.get_title(loc="left").replace("\n", " ") == "Threshold calibrated on other images"
    assert answers.usable_threshold(network.results) == "calibrated"
    unknown = network.results.accuracy.where(network.results.threshold != "calibrated")
    assert answers.usable_threshold(network.results.assign(accuracy=unknown)) == "test median"


def test_curves_that_coincide_get_one_name(network):
    exact = network.results.accuracy.sel(approximation="exact", drop=True)
    network.results["accuracy"] = exact.expand_dims(approximation=LABELS["approximation"]).transpose(
        *network.results.accuracy.dims
    )
    figure = draw({"fully-connected": network}, "accuracy")
    assert "K =\nK̃ =\ndiagonal" in [text.get_text() for text in figure.axes[0].texts]


def test_names_do_not_overlap():
    heights = np.array([0.1, 0.2, 0.1])
    placed = spread_out(np.array([0.95, 0.96, 0.97]), heights)
    assert np.all(np.diff(placed) >= (heights[1:] + heights[:-1]) / 2 - 1e-12)
    assert placed[-1] + heights[-1] / 2 <= 1.021
    np.testing.assert_allclose(spread_out(np.array([0.5, 0.5]), heights[[0, 0]]), [0.45, 0.55])
    far_apart = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(spread_out(far_apart, heights), far_apart)


def test_infinite_values_are_said_and_left_out(network):
    network.results.condition_number[1, 0, 1] = np.inf
    ax = draw({"fully-connected": network}, "condition_number").axes[0]
    assert "K̃: infinite at 32" in [text.get_text() for text in ax.texts]
    network.part("depth_sweep").condition_number.loc[dict(approximation="diagonal")] = np.nan
    texts = [text.get_text() for ax in draw({"": network}, "theorem").axes for text in ax.texts]
    assert not [text for text in texts if "infinite" in text]  # what is unknown is not


def test_settings_of_a_user_change_nothing(networks):
    plain = figures.save(networks, figures.cost)
    with mpl.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red"}):
        assert figures.save(networks, figures.cost) == plain
        assert mpl.rcParams["text.usetex"] and mpl.rcParams["font.size"] == 30


def test_what_is_missing_is_said_with_its_command(network, capsys):
    del network.parts["emulation"]
    figures.show({"fully-connected": network}, figures.cost, answers.costs_less)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "fully-connected_emulation.nc is not in" in said and "python emulation.py makes it" in said
    figures.show({}, figures.cost)
    assert "no results" in capsys.readouterr().out


def test_one_of_two_networks_is_drawn(network, networks, capsys):
    del network.parts["depth_sweep"]
    figure = draw(networks | {"fully-connected": network}, "theorem")
    assert len(figure.axes) == len(figures.DEPTH_PANELS)
    assert "python training.py --depth-sweep makes it" in capsys.readouterr().out


def test_a_quantity_of_another_version_is_a_line(network, capsys):
    network.parts["results"] = network.results.drop_vars("sparsity")
    figures.show({"fully-connected": network}, figures.approximations, answers.kept)
    assert "approximations is not drawn" in capsys.readouterr().out
    assert answers.answer({"fully-connected": network}, answers.kept) == ""


def test_other_data_and_classes_are_found_and_named(tmp_path, capsys):
    write_made_up(tmp_path, "digits-fully-connected", "fully-connected", "results")
    write_made_up(tmp_path, "fully-connected-3v5", "fully-connected", "results", classes=(3, 5))
    (digits,) = load(tmp_path).values()
    said = capsys.readouterr().out
    assert "NO RESULTS OF mnist: THESE ARE OF digits" in said and "NOT MNIST" in digits.title
    assert "no results of the convolutional network" in said
    figures.save({digits.name: digits}, figures.approximations)
    assert (tmp_path / "figures" / "digits-approximations.png").exists()
    (other,) = load(tmp_path, classes="3v5").values()
    assert other.title == "Fully connected, MNIST 3 and 5"
    with pytest.raises(ValueError, match="use one of mnist"):
        load(tmp_path, "cifar")


def test_a_damaged_file_is_left_out_with_a_line(tmp_path, capsys):
    write_made_up(tmp_path, "convolutional", "convolutional", "results", "baselines")
    path = tmp_path / "convolutional_baselines.nc"
    path.write_bytes(path.read_bytes()[:-100])
    (network,) = load(tmp_path).values()
    assert set(network.parts) == {"results"} and "left out" in capsys.readouterr().out


def with_losses(network, lost):
    """The network, with these losses of K̃ by size, and no others, in every trial."""
    accuracy = network.results.accuracy
    accuracy[:] = accuracy.sel(approximation="exact") * 0 + 0.9
    accuracy.loc[dict(approximation="sparsified")] -= xr.DataArray(lost, dims="n")
    return network


def test_losses_in_words(network):
    """Nothing is called a loss that may be chance."""
    assert answers.loss_in_words(with_losses(network, [0, 0, 0, 0])) == "K, K̃ and the diagonal do equally well"
    assert answers.loss_in_words(with_losses(network, [0, 0.25, 0.1, 0])) == "K̃ loses up to 0.250 (n = 32)"
    assert answers.loss_in_words(with_losses(network, [0, 0, -0.125, 0])) == "K̃ gains up to 0.125 (n = 64)"
    sparsified = network.results.accuracy.loc[dict(approximation="sparsified")]
    noise = xr.DataArray([0.1, -0.1, 0.1, -0.1], dims="trial")
    network.results.accuracy.loc[dict(approximation="sparsified")] = 0 * sparsified + 0.9 + noise
    assert answers.loss_in_words(network).startswith("K̃ loses nothing beyond chance (± 0.")


def test_answers_follow_the_arrays(network):
    attempts = network.results.post_selection_measurements
    attempts[:] = attempts * 0 + xr.DataArray(np.array(SIZES, float), dims="n")
    said = answers.preparing_is_cheap(network)
    assert said.startswith("No, it grows faster than log n: 128 with the training set's scale")
    assert answers.condition_stays(network).startswith("Yes, it is flat: mean κ: K̃ ≤ 1.0000")
    assert "preparing k* (training set)" in answers.what_grows(network)
    assert answers.diagonality(network).startswith("Hardly anything")
    assert answers.known_sizes(network) == "no trial beyond n = 128; number of trials there: 1"
    assert r"k\*" in answers.answer({"": network}, answers.what_grows)  # not Markdown's emphasis


def test_the_best_rival_is_named_only_beyond_chance(network):
    accuracy = network.part("baselines").accuracy
    accuracy[:] = accuracy * 0 + 0.8
    assert "does as well as K" in answers.rivals_in_words(network)
    accuracy.loc[dict(classifier="nearest neighbour")] += 0.05
    assert answers.rivals_in_words(network) == "nearest neighbour is better than K by 0.050 (n = 128)"


def test_pairs_are_sorted_and_the_networks_own_is_circled(network):
    pairs = network.part("digit_pairs")
    exact = pairs.accuracy.sel(approximation="exact", drop=True)
    lost = xr.DataArray(np.arange(45) / 100, dims="setting")
    pairs.accuracy.loc[dict(approximation="sparsified")] = exact - lost
    assert list(answers.setting_losses(pairs)) == PAIRS
    assert answers.pairs_in_words(network) == "K̃ loses 0.440 on 8 and 9, 0.220 on the median of 45 pairs (n = 64)"
    ax = draw({"fully-connected": network}, "controls").axes[1]
    (circled,) = (line for line in ax.lines if line.get_marker() == "o")
    assert circled.get_xdata()[0] == 45 and circled.get_ydata()[0] == pytest.approx(0.44)


def test_the_map_of_constants_frames_the_papers_and_shows_where_it_is_indefinite(networks):
    sensitivity = networks["convolutional"].part("sensitivity")
    lost = sensitivity.positive_definite.where(sensitivity.boost > 0, 0)
    networks["convolutional"].parts["sensitivity"] = sensitivity.assign(positive_definite=lost)
    ax = draw(networks, "controls").axes[2]
    frame = ax.patches[0]
    assert frame.get_xy() == (-0.5, 0.5)
    (line,) = ax.collections[0].get_paths()
    np.testing.assert_allclose(line.vertices[:, 1], 0.5, atol=0.02)
    value = sensitivity.accuracy.sel(n=64, setting="90 0 4", approximation="sparsified", convention="original",
                                     threshold="test median").mean()  # fmt: skip
    assert f"{float(value):.3f}" in [text.get_text() for text in ax.texts if text.get_position() == (1, 0)]


def test_the_cheapest_way_works_in_every_trial():
    cost = xr.DataArray(np.ones((2, 3, 3)), dims=("n", "trial", "solver"), coords={"n": [16, 32]})
    cost[:, :, 1] = 2
    cost[:, :, 2] = 3
    cost[1, 2, :] = np.nan  # no such trial
    cost[0, 1, 0] = np.nan  # the first solver fails
    n, mean, _ = answers.cheapest(cost)
    assert n.tolist() == [16, 32] and mean.tolist() == [2, 2]


@pytest.mark.parametrize("value, text", [
    (0.9567, "0.96"), (35.4, "35"), (11702, "11,702"), (1.18e6, "1.2·10⁶"), (1e12, "10¹²"), (2.67e-13, "2.7·10⁻¹³"),
    (0, "0"), (np.inf, "∞"), (np.nan, "unknown"), (99.6, "100"), (-0.02, "-0.02"),
])  # fmt: skip
def test_numbers_to_be_read(value, text):
    assert number(value) == text


def test_answers_on_the_committed_results_are_those_of_the_arrays():
    folder = ROOT / "kernel_output"
    if not (folder / "fully-connected_results.nc").exists():
        pytest.skip("no results in kernel_output/")
    results = read_results(folder / "convolutional_results.nc")
    accuracy = results.accuracy.sel(convention="original", threshold="zero").mean("pattern").mean("trial")
    lost = accuracy.sel(approximation="exact") - accuracy.sel(approximation="sparsified")
    network = Network("convolutional", "convolutional", "mnist", folder, {"results": results})
    assert f"up to {float(lost.max()):.3f}" in answers.loss_in_words(network, "zero")
    largest = results.condition_number.sel(approximation="exact").mean("pattern").mean("trial").max()
    assert f"K ≤ {float(largest):,.0f}" in answers.condition_in_words(network)
