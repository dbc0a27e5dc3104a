"""The pages of the theorem and of finite widths, on made-up results whose numbers are known."""

import json

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import report
from analysis import figures, theory
from analysis.drawing import STYLE_FILE
from analysis.experiments import Experiment
from runtime.datasets import DATASETS
from runtime.results import write_results

pytestmark = pytest.mark.filterwarnings("error")
SIZES = np.array([16, 64, 256])
FACTORS = np.array([0.02, 0.05, 0.1])


def powers(at_002, at_005, at_01, axes=()):
    """Powers of n at the three depths, all trials alike: [n, setting, trial, *axes]."""
    by_depth = SIZES[:, None] ** np.array([at_002, at_005, at_01], float)
    shape = [len(SIZES), 3, 2, *(3 if axis == "approximation" else 2 for axis in axes)]
    values = by_depth.reshape(3, 3, 1, *[1] * len(axes))
    return ("n", "setting", "trial", *axes), np.broadcast_to(values, shape).copy()


@pytest.fixture
def sweep():
    """Off-diagonal entries n^0, n^-1, n^-3; κ − 1 n^1, n^-0.5, n^-1.5; errors n^0.5, n^-0.5, n^-2."""
    both = ("input_variance", "approximation")
    quantities = {
        "correlation_of_gradients": powers(0, -1, -3, both[:1]),
        "condition_number_excess": powers(1, -0.5, -1.5, both),
        "weight_error": powers(0.5, -0.5, -2, both),
        "output_error": powers(0.5, -0.5, -2, both),
        "flipped_share": powers(0, 0, 0, both),
        "descent_steps": powers(1, 0, 0, both[:1]),
        "off_diagonal_bound": powers(0, 0, -1, both[:1]),
        "separability": powers(-0.25, -0.25, -0.25),
        "depth": powers(0, 0, 0),
        "test_images": powers(0, 0, 0),
    }
    coords = {
        "n": SIZES,
        "setting": FACTORS,
        "trial": [0, 1],
        "input_variance": ["original", "one"],
    }
    coords["approximation"] = ["exact", "sparsified", "diagonal"]
    origin = {"dataset": "mnist", "network": "fully-connected", "classes": [8, 9]}
    origin["depth_rule"] = 0.1
    return xr.Dataset(quantities, coords=coords, attrs={"origin": json.dumps(origin)})


@pytest.fixture
def widths(sweep):
    """Correlations 0.95 and 0.01 at two depths, the kernel's error 2/√width, entries of 0.1."""
    coords = {"n": [16], "depth": [0.01, 0.1], "draw": [0, 1, 2], "width": [100, 400]}
    coords |= {"predictor": ["infinite", "infinite_plain", "finite", "finite_plain", "trained"]}
    coords |= {"threshold": ["median", "zero"]}
    spread = 0.001 * np.array([-1, 0, 1])[:, None]
    correlation = np.array([0.95, 0.0])[:, None, None] + spread + np.zeros(2)
    correlation = np.broadcast_to(correlation[None, ..., None], (1, 2, 3, 2, 5)).copy()
    correlation[0, 0, :, :, -1] = np.nan  # not trained
    error = np.broadcast_to(2 / np.sqrt([100, 400]), (1, 2, 3, 2))
    axes = ("n", "depth", "draw")
    quantities = {
        "correlation": ((*axes, "width", "predictor"), correlation),
        "accuracy": ((*axes, "width", "predictor", "threshold"), np.full((1, 2, 3, 2, 5, 2), 0.75)),
        "off_diagonal_error": ((*axes, "width"), error),
        "off_diagonal_size": (axes, np.full((1, 2, 3), 0.01)),
        "initial_noise": (axes, np.full((1, 2, 3), 180.0)),
        "layers": (axes, np.full((1, 2, 3), 4.0)),
        "steps_trained": ((*axes, "width"), np.full((1, 2, 3, 2), 7.0)),
        "kernel_change_trained": ((*axes, "width"), np.full((1, 2, 3, 2), 0.25)),
    }
    return xr.Dataset(quantities, coords=coords, attrs=sweep.attrs)


@pytest.fixture
def experiment(sweep, widths, tmp_path):
    kinds = {"depth_sweep": sweep, "finite_width": widths}
    return Experiment("fully-connected", DATASETS["mnist"], "fully-connected", tmp_path, kinds)


def rows(table):
    lines = [line[2:-2].split(" | ") for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) <= 8
    return {line[0]: line[1:] for line in lines[2:]}


def test_exponents_by_hand(sweep):
    values = sweep.weight_error.sel(input_variance="one", approximation="diagonal")
    fits = theory.exponents(values)
    assert [fit.value for fit in fits] == pytest.approx([0.5, -0.5, -2])
    assert max(fit.half for fit in fits) < 1e-9 and str(fits[2]) == "−2.00 ± 0.00"
    noisy = values.sel(setting=0.05) * np.exp(np.array([0.1, -0.1]))
    fit = theory.exponent(noisy)
    assert fit.value == pytest.approx(-0.5)
    error = np.sqrt(0.06 / 4 / (2 * np.sum((np.log(SIZES) - np.log(64)) ** 2)))
    assert fit.half == pytest.approx(2.776 * error, rel=1e-3)  # Student's t, 4 of freedom
    underflow = values.sel(setting=0.05).copy()
    underflow[-1, 0] = 0
    assert theory.exponent(underflow).value == pytest.approx(-0.5)


def test_few_values_have_no_exponent(experiment):
    sweep = experiment.kinds["depth_sweep"]
    few = sweep.weight_error.sel(input_variance="one", approximation="diagonal").isel(setting=0)
    assert np.isnan(theory.exponent(few.isel(n=[0]))).all()
    assert np.isnan(theory.exponent(few.isel(n=[0, 1], trial=[0]))).all()
    for few in (sweep.isel(n=[0]), sweep.isel(n=[0, 1], trial=[0])):
        experiment.kinds["depth_sweep"] = few
        assert theory.theorem_holds(experiment).startswith("**undecided**")


def test_sizes_of_which_the_theorem_is_unknown_are_left_out(experiment):
    sweep = experiment.kinds["depth_sweep"]
    experiment.kinds["depth_sweep"] = sweep.where(sweep.n < sweep.n[-1]).assign_attrs(sweep.attrs)
    parts = theory.theorem_page(experiment)["sweep"]
    assert parts["n"].tolist() == sweep.n.values[[0, -2]].tolist() and "nan" not in str(parts)


def test_where_an_exponent_is_reached_for_good():
    settings = np.array([1.0, 2.0, 3.0, 4.0])
    assert theory.crossing(settings, np.array([0, -2, 0, -2]), -1) == 3.5
    assert theory.crossing(settings, np.array([-2, -2, -3, -4]), -1) == 1
    assert np.isnan(theory.crossing(settings, np.array([0, -2, -2, 0]), -1))


def test_pages_of_the_theorem(experiment):
    parts = theory.theorem_page(experiment)["sweep"]
    table = rows(parts["exponents"])
    assert table["0.02"][:3] == ["+0.00 ± 0.00", "+1.00 ± 0.00", "+0.50 ± 0.00"]
    begins = ["0.075 (0.075 to 0.075)", "0.075 (0.075 to 0.075)", "0.067 (0.067 to 0.067)"]
    assert table["the theorem's from"] == begins * 2
    assert parts["turn"] == "0.040 (0.040 to 0.040)"
    levels = rows(parts["levels"])
    assert levels["0.1"][:3] == ["0.062 → 0.0039", "0.25 → 0.062", "0.062 → 0.0039"]
    assert levels["0.02"][5:] == ["1 → 1", "16 → 2.6e+02"]
    assert rows(parts["bounds"])["0.1"] == ["1", "6.0e-08", "3.9e-03", "4.8"]  # n = 256
    assert parts["delta"].value == pytest.approx(-0.25)
    said = theory.theorem_holds(experiment)
    assert said.startswith("**holds** from 0.067 L_conv on; ") and "depth is 0.1 L_conv" in said


def test_pages_of_finite_widths(experiment):
    parts = theory.finite_page(experiment)
    words = "n = 16, 0.1 L_conv (4 layers)"
    assert rows(parts["fits"])[words] == [
        "2.00",
        "-0.50",
        "0.01",
        "4e+04 (extrapolated)",
        "1.8e+02",
    ]
    cells = rows(parts["correlations"])["n = 16, 0.01 L_conv (4 layers)"]
    assert cells == ["0.950 ± 0.002"] * 2  # 4.303 * 0.001/sqrt(3), Student's t of three draws
    trained = parts["trained"].splitlines()[2:]
    assert len(trained) == 2 and all(line.startswith(f"| {words}") for line in trained)
    assert "7 to 7" in trained[0]
    assert theory.networks_follow(experiment).startswith("**fails**: correlation")
    shallow = experiment.kinds["finite_width"].isel(depth=[0])
    experiment.kinds["finite_width"] = shallow
    said = theory.networks_follow(experiment)
    assert said.startswith("**undecided**: correlation") and "(0.1, the original's, was not tried)" in said


def test_figure(experiment):
    """Direct labels inside the picture, four series and the line 1/n at most, a finding on top."""
    with mpl.style.context(["default", STYLE_FILE]):
        figure = figures.theorem([experiment])
        figure.draw_without_rendering()
    for ax in figure.axes:
        labels = [text.get_text() for text in ax.texts]
        assert 2 <= len(labels) <= 5 and ax.get_xlabel()
        for text in ax.texts:
            assert text.get_window_extent().x1 <= figure.bbox.x1 + 1
    titles = [ax.get_title(loc="left").replace("\n", " ") for ax in figure.axes]
    assert titles == [
        "Infinite width: the error is O(1/n) from 0.067 L_conv on",
        "Networks that can be built, n = 16: at 0.1 L_conv no correlation is left, even at width 400",
    ]


def test_no_depth_is_left_out_where_there_are_more_than_styles(experiment, widths):
    five = widths.isel(depth=[0, 1, 0, 1, 0]).assign_coords(depth=[0.01, 0.02, 0.03, 0.05, 0.1])
    apart = xr.DataArray(0.1 * np.arange(5), dims="depth")
    experiment.kinds["finite_width"] = five.assign(correlation=five.correlation - apart)
    with mpl.style.context(["default", STYLE_FILE]):
        right = figures.theorem([experiment]).axes[1]
    assert len(right.containers) == 5


def test_report_writes_pages(experiment, tmp_path):
    for kind, results in experiment.kinds.items():
        write_results(tmp_path / f"fully-connected_{kind}.nc", results)
    report.main(["--output", str(tmp_path)])
    for name in ("theorem", "finite_width"):
        text = (tmp_path / "tables" / f"{name}.md").read_text(encoding="utf-8")
        assert "nan" not in text and "{{" not in text
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "| the error is O(1/n) | **holds**" in page
    assert "| real networks follow their NTK | **fails**: correlation" in page
