"""The figures, from made-up labelled results; what is looked up is the figure, not its picture."""

import io
import itertools
import json
import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.colors
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from analysis import evidence, figures, findings, tables
from analysis.drawing import STYLE_FILE, STYLES
from analysis.experiments import NETWORKS, Experiment, load
from analysis.growth import size_means, trial_values
from runtime.datasets import DATASETS
from runtime.results import write_results

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
BASELINES = [
    "exact",
    "diagonal",
    "kernel mean",
    "ink",
    "nearest mean",
    "nearest neighbour",
    "ridge",
]
PAIRS = [f"{a} {b}" for b in range(10) for a in range(b)]
CONSTANTS = [(90, 1, 1), (90, 0, 1), (90, 1, 4), (90, 0, 4), (50, 1, 1)]
FIGURES = ["overview", "data", "approximations", "condition_number", "post_selection", "readout"]
FIGURES += ["theorem", "growth", "controls", "cost"]


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
    used = {
        dim: values
        for dim, values in labels.items()
        if any(dim in q.dims for q in quantities.values())
    }
    origin = {
        "seed": 0,
        "classes": [8, 9],
        "depth_rule": 0.1,
        "papers_setting": [90, 1, 1],
    } | origin
    origin = {"dataset": "mnist", "network": "fully-connected"} | origin
    return xr.Dataset(quantities, coords=used, attrs={"origin": json.dumps(origin)})


def made_up(network="fully-connected", classes=(8, 9), dataset_name="mnist"):
    """All kinds of results of a network: {kind: results}."""
    about = dict(network=network, classes=classes, dataset=dataset_name)
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
    baselines["test_images"] = drawn(low=5, high=5, over=over)
    depth = labels | {"setting": [0.01, 0.1, 1.0]}
    pairs = labels | {"setting": PAIRS}
    constants = labels | {"setting": [" ".join(map(str, setting)) for setting in CONSTANTS]}
    ways = labels | {
        "approximation": ["sparsified", "diagonal"],
        "solver": ["series", "QSVT"],
        "encoding": ["I + E", "oracle"],
        "readout": ["shots", "amplified"],
        "kind": ["all", "oracle"],
        "effort": ["fixed", "sequential"],
        "threshold": ["calibrated", "zero"],
        "method": ["all entries", "sampler", "conjugate gradients anew", "Cholesky anew"],
    }
    rest = ("readout", "divisor", "effort", "kind")
    classical = ("approximation", "pattern", "threshold", "method", "effort")
    emulation = {
        "cost": drawn("pattern", "threshold", "solver", "encoding", *rest, over=ways),
        "cost_without_solver": drawn("threshold", *rest, over=ways),
        "test_images": drawn(low=5, high=5, over=ways),
        "uses": drawn("pattern", "threshold", "solver", "encoding", over=ways),
        "operations_classical": drawn(*classical, over=ways),
    }
    sensitivity = dataset(main(constants), constants, **about)
    for axis, values in zip(
        ("percentile", "boost", "density"), zip(*CONSTANTS, strict=True), strict=True
    ):
        sensitivity = sensitivity.assign_coords({axis: ("setting", np.array(values, float))})
    return {
        "results": dataset(results, labels, **about),
        "baselines": dataset(baselines, over, **about),
        "depth_sweep": dataset(main(depth), depth, **about),
        "digit_pairs": dataset(main(pairs), pairs, **about),
        "sensitivity": sensitivity,
        "emulation": dataset(emulation, ways, **about),
    }


def write_made_up(folder, prefix, network, *kinds, **about):
    """Files of made-up results in a folder."""
    for kind, results in made_up(network, **about).items():
        if (not kinds or kind in kinds) and not (
            kind == "sensitivity" and network != "convolutional"
        ):
            write_results(folder / f"{prefix}_{kind}.nc", results)


def experiment(folder, network="fully-connected", classes=(8, 9)):
    """An experiment with files of every kind."""
    return Experiment(network, DATASETS["mnist"], network, folder, made_up(network, classes))


@pytest.fixture
def network(tmp_path):
    """A made-up fully-connected network that a test may change."""
    return experiment(tmp_path)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made_up")
    return [experiment(folder, name) for name in NETWORKS]


def curve_of(ax, color):
    """(means, lower ends, upper ends) of the curve of a colour."""
    container = next(
        c for c in ax.containers if mpl.colors.to_hex(c.lines[0].get_color()) == color.lower()
    )
    ends = np.array(container.lines[2][0].get_segments())[:, :, 1]
    return container.lines[0].get_ydata(), *ends.T


def picture_of(networks, figure):
    """The picture that the notebook shows of a figure."""
    figures.show(networks, figure)
    return (networks[0].folder / "figures" / f"{figure.__name__}.png").read_bytes()


def draw(networks, name):
    """A figure without its picture."""
    function = getattr(figures, name)
    with mpl.style.context(["default", STYLE_FILE]), warnings.catch_warnings(action="error"):
        panel = function in figures.PANELS
        figure = figures.each_network(networks, function) if panel else function(networks)
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
        draw(networks[1:], name)


def test_readmes_picture_is_small_enough(networks):
    """At most 500 pixels high where 800 are shown, in twice as many."""
    picture = picture_of(networks, figures.overview)
    assert Image.open(io.BytesIO(picture)).size == (1600, 1000)


def test_means_and_bars_are_those_of_the_tables(network):
    labels = {"approximation": "diagonal", "convention": "original", "threshold": "zero"}
    values = network.results.accuracy.sel(labels)
    means = tables.means_of(values, network.results.test_images)
    figure = draw([network], "accuracy")
    drawn = curve_of(figure.axes[1], STYLES["diagonal"]["color"])
    np.testing.assert_allclose(drawn, means[1:])
    _, mean, low, _ = size_means(trial_values(values))
    np.testing.assert_allclose(means.mean, mean)
    assert np.all(means.low <= low + 1e-12) and means.high.max() <= 1


def test_no_size_of_several_trials_has_no_bars(network):
    """One size, one trial: no bar, no warning, no verdict."""
    for kind, results in network.kinds.items():
        network.kinds[kind] = results.isel(n=[3])
    for name in ("overview", "readout", "theorem", "growth"):
        draw([network], name)
    assert findings.condition_stays(network).startswith("**undecided**")


def test_condition_numbers_near_1_are_drawn_less_1(networks):
    first, second = draw(networks, "condition_number").axes
    assert "less 1" in first.get_ylabel() and "less 1" not in second.get_ylabel()
    mean, *_ = curve_of(first, STYLES["exact"]["color"])
    assert np.all((mean > 1e-6) & (mean < 1e-5))


def test_the_fixed_constants_attempts_are_not_left_out(network):
    attempts = network.results.post_selection_measurements
    attempts.loc[dict(divisor="fixed constant")] *= 1e12
    (ax,) = draw([network], "post_selection").axes
    mean, *_ = curve_of(ax, STYLES["fixed constant"]["color"])
    assert mean.min() > 1e12 and ax.get_ylim()[1] > mean.max()


def test_a_collapse_at_zero_is_inside_the_axis(network):
    network.results.accuracy.loc[dict(approximation="sparsified", threshold="zero")] -= 0.3
    _, ax = draw([network], "accuracy").axes
    mean, *_ = curve_of(ax, STYLES["sparsified"]["color"])
    assert ax.get_ylim()[0] < mean.min() < 0.5
    assert 0.5 in [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":"]


def test_the_calibrated_threshold_is_used_where_it_is_known(network):
    calibrated = network.results.sel(threshold=["zero"]).assign_coords(threshold=["calibrated"])
    both = xr.concat([network.results, calibrated], "threshold", data_vars="minimal")
    network.kinds["results"] = both.assign_attrs(network.results.attrs)
    axes = draw([network], "accuracy").axes
    titles = [ax.get_title(loc="left").replace("\n", " ") for ax in axes]
    assert titles == ["Test accuracy, threshold calibrated", "Test accuracy, threshold at zero"]
    assert "calibrated" in draw([network], "overview").axes[1].get_ylabel()


def test_curves_that_coincide_get_one_name(network):
    exact = network.results.accuracy.sel(approximation="exact", drop=True)
    network.kinds["results"]["accuracy"] = exact.expand_dims(
        approximation=LABELS["approximation"]
    ).transpose(*network.results.accuracy.dims)
    figure = draw([network], "accuracy")
    assert "K = K̃ =\ndiagonal" in [text.get_text() for text in figure.axes[0].texts]


def test_names_do_not_overlap(network):
    """Also where the curves end at nearly the same height."""
    accuracy = network.results.accuracy
    accuracy[:] = 0.7 + 0.1 * accuracy
    figure = draw([network], "accuracy")
    boxes = sorted(
        text.get_window_extent().extents[[1, 3]].tolist() for text in figure.axes[0].texts
    )
    assert len(boxes) == 4
    for (_, top), (bottom, _) in itertools.pairwise(boxes):
        assert bottom >= top - 2


def test_infinite_values_are_said_and_left_out(network):
    network.results.condition_number[1, 0, 1, 0] = np.inf
    ax = draw([network], "condition_number").axes[0]
    assert "K̃, ∞ at 32" in [text.get_text() for text in ax.texts]
    network.kinds["depth_sweep"].condition_number.loc[dict(approximation="diagonal")] = np.nan
    texts = [text.get_text() for ax in draw([network], "theorem").axes for text in ax.texts]
    assert not [text for text in texts if "∞" in text]  # what is unknown is not


def test_settings_of_a_user_change_nothing(networks):
    plain = picture_of(networks, figures.cost)
    with mpl.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red"}):
        assert picture_of(networks, figures.cost) == plain
        assert mpl.rcParams["text.usetex"] and mpl.rcParams["font.size"] == 30


def test_what_is_missing_is_said_with_its_command(network, capsys):
    del network.kinds["emulation"]
    figures.show([network], figures.cost, "one prediction is cheaper than classically")
    said = capsys.readouterr().out
    assert (
        "fully-connected_emulation.nc is not in" in said and "python emulation.py makes it" in said
    )
    assert "cost is not drawn" in said
    figures.show([], figures.overview)
    assert "overview is not drawn" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_a_line(network, capsys):
    (network.folder / "figures").touch()
    figures.show([network], figures.growth)
    assert "growth is not drawn (FileExistsError" in capsys.readouterr().out


def test_one_of_two_networks_is_drawn(network, networks, capsys):
    del network.kinds["depth_sweep"]
    figures.show([network, networks[1]], figures.theorem)
    said = capsys.readouterr().out
    assert "python training.py --depth-sweep makes it" in said and "not drawn" not in said


def test_a_quantity_of_another_version_is_a_line(network, capsys):
    network.kinds["results"] = network.results.drop_vars("sparsity")
    figures.show([network], figures.approximations, "sparsity, sparsified")
    assert "approximations is not drawn" in capsys.readouterr().out
    assert findings.answer([network], "sparsity, sparsified") == ""


def test_other_data_and_classes_are_found_and_named(tmp_path, capsys):
    write_made_up(
        tmp_path, "digits-fully-connected", "fully-connected", "results", dataset_name="digits"
    )
    write_made_up(tmp_path, "fully-connected-3v5", "fully-connected", "results", classes=(3, 5))
    (digits,) = load(tmp_path)
    said = capsys.readouterr().out
    assert "NO RESULTS OF mnist: THESE ARE OF" in said and "NOT MNIST" in digits.title
    assert "no results of the convolutional network" in said
    figures.show([digits], figures.approximations)
    assert (tmp_path / "figures" / "digits-approximations.png").exists()
    write_made_up(
        tmp_path, "fashion-mnist-fully-connected", "fully-connected", "results",
        dataset_name="fashion_mnist",
    )  # fmt: skip
    write_made_up(tmp_path, "fully-connected", "fully-connected", "results")
    (found,) = load(tmp_path, "kmnist")
    assert found.dataset.name == "mnist"  # the first of the known ones, not of the alphabet
    (other,) = load(tmp_path, classes="3v5")
    assert other.title == "Fully connected, digits 3 and 5"
    with pytest.raises(ValueError, match="use auto, mnist"):
        load(tmp_path, "cifar")


def test_a_damaged_file_is_left_out_with_a_line(tmp_path, capsys):
    write_made_up(tmp_path, "convolutional", "convolutional", "results", "baselines")
    path = tmp_path / "convolutional_baselines.nc"
    path.write_bytes(path.read_bytes()[:-100])
    (network,) = load(tmp_path)
    assert set(network.kinds) == {"results"} and "left out" in capsys.readouterr().out


def test_pairs_are_sorted_and_the_networks_own_is_circled(network):
    pairs = network.kinds["digit_pairs"]
    exact = pairs.accuracy.sel(approximation="exact", drop=True)
    lost = xr.DataArray(np.arange(45) / 100, dims="setting")
    pairs.accuracy.loc[dict(approximation="sparsified")] = exact - lost
    assert evidence.losses_by_setting(pairs).setting.values.tolist() == PAIRS
    said = findings.pairs_matter(network)
    assert said.startswith("K̃ loses up to 0.440 (8 and 9), 0.220 on the median pair (n = 64)")
    ax = draw([network], "controls").axes[1]
    (circled,) = (line for line in ax.lines if line.get_marker() == "o")
    assert circled.get_xdata()[0] == 45 and circled.get_ydata()[0] == pytest.approx(0.44)


def test_the_map_of_constants_frames_the_papers_and_shows_where_it_is_indefinite(networks):
    sensitivity = networks[1].kinds["sensitivity"]
    lost = sensitivity.positive_definite.where(sensitivity.boost > 0, 0)
    networks[1].kinds["sensitivity"] = sensitivity.assign(positive_definite=lost)
    ax = draw(networks[1:], "controls").axes[2]
    assert ax.patches[0].get_xy() == (-0.5, 0.5)
    values = sensitivity.accuracy.sel(n=64, approximation="sparsified", convention="original")
    value = values.sel(setting="90 0 4", threshold="test median").mean()
    assert f"({float(value):.3f})" in [text.get_text() for text in ax.texts]
    assert sum("(" in text.get_text() for text in ax.texts) == 2


def test_a_kernel_that_is_not_there_is_said(networks):
    for ax in draw(networks, "data").axes[:2]:
        assert "no kernel of n ≤ 64 here" in ax.get_title(loc="left").replace("\n", " ")
