"""Tables, the page and the command of report.py, on made-up results whose numbers are known."""

import json
from pathlib import Path

import made_up
import numpy as np
import pytest
import xarray as xr

import report
from analysis import evidence, page, simulation, tables
from analysis.experiments import Experiment, read_experiments
from runtime.datasets import DATASETS
from runtime.results import write_results
from runtime.summary import summary, title_of

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(report.__file__).parent


def experiment(**kinds):
    """An experiment with these files."""
    return Experiment("convolutional", DATASETS["mnist"], "convolutional", [0, 1], kinds, [[0, 1]])


def rows(table):
    """{first cell: other cells} of a Markdown table, and every line as long as the first."""
    lines = [line[2:-2].split(" | ") for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1
    return {line[0]: line[1:] for line in lines[2:]}


# ---- cells ----


def test_numbers_are_written_with_half_widths():
    assert tables.plus_minus(0.9104, 0.0141) == "0.910 ± 0.014"
    assert [tables.plus_minus(x, np.nan) for x in (np.nan, np.inf, 2.5)] == ["–", "∞", "2.5"]
    assert tables.sizes_in_words([16, 32], [False, True]) == "n = 32"


def test_columns_are_named_by_their_labels():
    """New labels need no code; what is the same in both conventions stands once, NaN nowhere."""
    results = made_up.results()
    names = list(tables.columns_of(results.accuracy))
    assert names[:2] == ["exact, at the test median", "exact, at zero"] and len(names) == 7
    assert "sparsified, corrected, at zero" in names
    assert list(tables.columns_of(results.sparsity)) == ["sparsified"]
    new = results.assign_coords(threshold=["calibrated", "zero"])
    assert "exact, calibrated" in tables.columns_of(new.accuracy)


def test_equal_rows_become_one():
    cells = {"accuracy, exact": ["1"], "accuracy, diagonal": ["1"], "κ, exact": ["1"]}
    merged = rows(tables.by_size([16], cells))
    assert merged == {"accuracy, exact = diagonal": ["1"], "κ, exact": ["1"]}


def test_losses_are_paired_by_trial():
    """A loss of 0.1 in every trial, whose accuracies spread by more; patterns are averaged."""
    results = made_up.results()
    results.accuracy[:] *= np.array([0.7, 0.9, 1, 1.1])[:, None, None, None, None]
    exact = results.accuracy.sel(approximation="exact", threshold="zero", drop=True)
    at = {"approximation": "sparsified", "threshold": "zero"}
    sparsified = exact - np.array([0, 0.1, 0.2])
    results.accuracy.loc[at] = sparsified.transpose("n", "trial", "convention", "pattern")
    losses = tables.losses_of(results.accuracy)
    assert tables.paired_cells(losses["sparsified, at zero"]) == ["**+0.100 ± 0.000**"] * 4
    assert tables.paired_cells(losses["diagonal, at zero"]) == ["0"] * 4
    results.accuracy.loc[at | {"pattern": 0}] -= np.array([0.6, -0.6, 0.3, -0.3])[:, None]
    losses = tables.losses_of(results.accuracy)
    assert tables.paired_cells(losses["sparsified, at zero"])[0].startswith("+0.100 ± 0.")


def test_accuracies_near_1_have_bounds_by_their_errors():
    results = made_up.results()
    results.accuracy[:] = 1.0
    values = results.accuracy.sel(approximation="exact", convention="original", threshold="zero")
    for cells in (tables.mean_cells, tables.accuracy_cells):
        assert cells(values, results.test_images) == ["1.000 (0.997 to 1.000)"] * 4
    values[:] = 0.9 * made_up.noise(0.01, 1)
    assert tables.mean_cells(values, results.test_images)[0] == "0.900 ± 0.011"


# ---- pages ----


def test_main_page():
    told = tables.main(experiment(results=made_up.results()))
    means, growth = rows(told["means"]), rows(told["growth"])
    assert means["sparsity, sparsified"][0] == "2.77 ± 0.03"
    assert means["accuracy, sparsified, at zero"][0].startswith("0.500")
    assert growth["κ, exact"][-1] == "**faster than log n**: λ above 0"
    assert growth["sparsity, sparsified"][-1] == "**no faster than log n**: λ below 0.25"
    assert growth["readout, sparsified, at zero"][-1] == "**flat**: within 0.8 to 1.25"
    assert rows(told["runs"])["images shared with another trial"][3] == "1 %"
    assert rows(told["losses"])["sparsified, at zero"][0].startswith("**+0.400")
    assert len(told["faster"]) == 4 and "κ, exact" in told["faster"] and not told["undecided"]


def test_depth_page():
    """At another depth than the original's the exact NTK gains, and the diagonal does not."""
    sweep = made_up.with_settings(made_up.results(), [96.0, 6.0])
    at = {"setting": 6.0, "threshold": "test median", "convention": "original"}
    sweep.accuracy.loc[at | {"approximation": "exact"}] += 0.02
    told = evidence.depth(experiment(depth_sweep=sweep))
    assert told["gains"] == {"exact": ["6 by 0.020 (all n)"], "sparsified": [], "diagonal": []}
    without = experiment(depth_sweep=sweep.sel(setting=[6.0]))
    assert evidence.depth(without)["gains"] == {}  # without the original's depth
    assert rows(told["tables"]["exact minus diagonal, at the test median"]) == {
        "**96**": ["0"] * 4, "6": ["**+0.020 ± 0.000**"] * 4
    }  # fmt: skip
    assert rows(told["tables"]["κ of K"])["**96** = 6"][0] == "21.11" and told["unit"] == "depth"


def baselines():
    accuracy = np.full((4, 1, 6, 1), 0.5)
    accuracy[:, 0, 0, 0], accuracy[:, 0, 4, 0] = 0.9, [0.8, 0.9, 0.95, 0.96]
    return made_up.dataset(
        accuracy=(("classifier", "threshold"), accuracy + 0.002 * (made_up.noise(1, 2) - 1)),
        agreement=(("threshold",), 1),
    )


def test_baselines_say_what_the_intervals_say():
    told = evidence.baselines(experiment(baselines=baselines()))
    assert told["better"] == "n = 16" and told["beaten"] == {"nearest neighbour": "n = 64, 128"}
    assert told["by"] == "0.050 to 0.060" and told["ink"] == 0.5
    cells = rows(told["differences"])["nearest neighbour, at the test median = at zero"]
    assert cells[1] == "0" and cells[2] == "**-0.050 ± 0.000**"


def sensitivity():
    settings = [(90, 0.5, 1), (90, 1, 1), (90, 3, 1), (0, 1, 1)]
    made = made_up.with_settings(made_up.results(), [str(each) for each in settings])
    for i, name in enumerate(evidence.PARAMETERS):
        made = made.assign_coords(
            {name: ("setting", np.array([each[i] for each in settings], float))}
        )
    made.attrs["origin"] = json.dumps(made_up.ORIGIN | {"papers_setting": [90, 1, 1]})
    return made


def test_constants_page():
    made = sensitivity()
    sparsified = {"approximation": "sparsified"}
    one = {"setting": "(90, 0.5, 1)", "n": 32, "trial": 1}
    made.positive_definite.loc[sparsified | one] = 0
    own = {"setting": "(90, 1, 1)", "n": 64, "convention": "original"}
    made.accuracy.loc[sparsified | own | {"threshold": "test median"}] += 0.03
    told = evidence.constants(experiment(sensitivity=made))
    assert (told["lower"], told["fails"]) == (0.5, "n = 32")
    assert told["most"] == pytest.approx(0.03)
    boost = rows(told["tables"]["boost, original"])
    assert list(boost) == ["0.5", "**1**", "3"] and boost["0.5"][1] == "0.900 / 0.500 / 3 / 75%"
    gains = rows(told["gains"])
    assert gains["at the test median, settings better"] == ["0", "0", "1", "0"]
    assert gains["corrected, at zero, settings worse"] == ["4"] * 4


def pairs():
    names = [f"{a} {b}" for a in range(4) for b in range(a)]
    made = made_up.with_settings(made_up.results(), names)
    made = made.drop_vars(["post_selection_measurements", "readout_measurements"]).assign(
        post_selection_measurements_median=made.post_selection_measurements.median("image"),
        readout_measurements_median=made.readout_measurements.median("image"),
    )
    made.accuracy[:] += 0.01 * np.arange(len(names)).reshape(1, -1, 1, 1, 1, 1, 1)
    made.attrs["origin"] = json.dumps({k: v for k, v in made_up.ORIGIN.items() if k != "classes"})
    return made


def test_pairs_page():
    made = pairs()
    made.accuracy.loc[{"setting": "2 1", "n": 32, "approximation": "sparsified"}] -= 0.2
    told = evidence.pairs(experiment(digit_pairs=made))
    shown = rows(told["table"])
    assert shown["accuracy, exact, at the test median"][:2] == ["0.9 ± 0.011", "6 (5 to 6)"]
    assert shown["κ less 1, exact"][1] == "1 (1 to 6)"
    assert shown["accuracy, exact, at zero"][4] == "0.95 (2 and 3)"
    assert told["losses"]["sparsified, at the test median"][1:] == ("1 and 2", 32)
    assert (told["worse"], told["clearly_worse"], told["better"], told["count"]) == (1, 1, 0, 6)


def test_ranks_leave_open_what_chance_allows():
    noise = np.random.default_rng(0).normal(size=(45, 6)) * 0.01
    clear = 0.5 + np.linspace(0, 0.45, 45)[:, None] + noise * 0.01
    assert evidence.pair_ranks(clear, 40, True) == (5, 5, 5)
    assert evidence.pair_ranks(clear, 40, False) == (41, 41, 41)
    last = int(noise.mean(axis=1).argmin())
    best, rank, worst = evidence.pair_ranks(0.9 + noise, last, True)
    assert best < rank == worst == 45


def test_averages_of_pairs_leave_out_sizes_without_trials():
    made = pairs()
    before = evidence.pair_quantities(made.isel(n=[0, 1], convention=0).copy(deep=True))
    for name in made.data_vars:
        made[name][2:] = np.nan
    for name, values in evidence.pair_quantities(made.isel(convention=0)).items():
        np.testing.assert_allclose(values, before[name], rtol=1e-12)


def test_the_page_gives_the_verdicts():
    whole = experiment(results=made_up.results())
    told = page.page([whole])
    verdicts = rows(told["verdicts"])
    assert "accuracy of K̃ stays, calibrated threshold" not in verdicts
    assert verdicts["accuracy of K̃ stays at the test median"] == ["**holds**: loses 0.000 at most"]
    assert verdicts["accuracy of K̃ stays at zero"][0].startswith("**fails**: 0.50 are left, 0.400")
    assert verdicts["κ of K̃ stays small"][0].startswith("**holds**: 3 to 3; K: 21.1 to 208")
    assert verdicts["preparing k\\* is cheap, divisor known"][0].startswith("**fails**: 4 to 11.3")
    cheap = made_up.results()  # one divisor that is known is enough
    cheap.post_selection_measurements.loc[{"divisor": "fixed constant"}] = 2.0
    assert page.preparing_is_cheap(experiment(results=cheap)).startswith("**holds**")
    growths = rows(told["growths"])
    assert growths["post-selection, fixed constant"] == ["faster than log n: 4 to 11.3"]
    (accuracies,) = told["accuracies"].values()
    same = "accuracy at the test median, exact = sparsified = diagonal"
    assert rows(accuracies)[same][0] == "0.900 ± 0.011"


@pytest.mark.parametrize("loss, verdict", [
    ([0.004, 0.004, 0.004, 0.004], "holds"), ([0.03, 0.03, 0.03, 0.03], "nearly holds"),
    ([0.06, -0.06, 0.06, -0.02], "undecided"), ([0.2, 0.2, 0.2, 0.2], "fails"),
])  # fmt: skip
def test_whether_accuracy_stays_is_said_by_the_loss(loss, verdict):
    results = made_up.results()
    at = {"approximation": "sparsified", "threshold": "test median"}
    results.accuracy.loc[at] -= np.reshape(loss, (4, 1, 1))
    _, cell = page.accuracy_stays("test median")
    assert cell(experiment(results=results)).startswith(f"**{verdict}**")


def test_the_results_say_whether_their_design_was_simulated():
    told = simulation.simulation([experiment(results=made_up.results())])
    assert told["own"] == {"Convolutional, digits 0 and 1": ""} and told["covered"] > 90
    simulated = json.loads(simulation.SIMULATION.read_text())[0]
    counts = xr.DataArray(simulated["trials"], dims="n", coords={"n": simulated["sizes"]})
    images = xr.where(np.arange(max(simulated["trials"])) < counts.values[:, None], 256.0, np.nan)
    made = xr.Dataset({"test_images": (["n", "trial"], images)}, coords={"n": counts.n})
    assert simulation.simulation([experiment(results=made)])["own"].popitem()[1] == "plan"


# ---- the command ----


@pytest.fixture
def folder(tmp_path):
    """A folder with results of every kind, of two datasets."""
    made = {
        "convolutional_results": made_up.results(), "convolutional_emulation": made_up.emulation(),
        "convolutional_circuit": made_up.circuit(), "convolutional_baselines": baselines(),
        "convolutional_sensitivity": sensitivity(), "convolutional_digit_pairs": pairs(),
        "convolutional_depth_sweep": made_up.with_settings(made_up.results(), [96.0, 6.0]),
        "convolutional-3v5_results": made_up.results({"classes": [3, 5]}),
        "fashion-mnist-fully-connected_results": made_up.results(
            {"dataset": "fashion_mnist", "network": "fully-connected", "classes": [8, 9]}
        ),
    }  # fmt: skip
    for name, results in made.items():
        write_results(tmp_path / f"{name}.nc", results)
    return tmp_path


def test_report(folder, capsys):
    assert report.main(["--output", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.out.count("wrote ") == 2 and not said.err
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "| Convolutional, digits 0 and 1 | Convolutional, digits 3 and 5 |" in text
    names = ["methods", *report.PAGES, "simulation"]
    assert {path.stem for path in (folder / "tables").glob("*.md")} == set(names)
    for name in names:
        page_text = (folder / "tables" / f"{name}.md").read_text(encoding="utf-8")
        assert f"(tables/{name}.md)" in text and "nan" not in page_text and "K~" not in page_text
        assert page_text.startswith("# ") and "{{" not in page_text
    other = (folder / "RESULTS-fashion-mnist.md").read_text(encoding="utf-8")
    assert "# Results: Fashion-MNIST" in other and "Fully connected, bag and ankle boot" in other
    assert (folder / "tables-fashion-mnist" / "main.md").exists()
    before = {path: path.read_bytes() for path in folder.rglob("*.md")}
    assert report.main(["--output", str(folder)]) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*.md")} == before


def test_what_can_be_told_is_told(folder, capsys):
    """One line for each damaged, foreign or incomplete file, status 2, and a page that says so."""
    path = folder / "convolutional_emulation.nc"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    (folder / "convolutional_baselines.nc").write_bytes(b"no results")
    write_results(folder / "convolutional_circuit.nc", made_up.circuit().drop_vars("queries"))
    write_results(folder / "convolutional_notes.nc", made_up.results())
    assert report.main(["--output", str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    for kind in ("emulation", "baselines", "circuit", "notes"):
        assert sum(f"convolutional_{kind}.nc" in line for line in lines) == 1
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "Left out" in text and "κ of K̃ stays small" in text
    assert "What one prediction costs" not in text
    assert not (folder / "tables" / "cost.md").exists()


def test_mistakes_on_the_command_line(tmp_path, capsys):
    assert report.main(["--output", str(tmp_path)]) == 2
    assert "no results there" in capsys.readouterr().err
    for mistake in (["--output", str(tmp_path / "nothing")], ["--outptu", "x"]):
        with pytest.raises(SystemExit) as stopped:
            report.main(mistake)
        line = capsys.readouterr().err
        assert stopped.value.code == 2 and line.count("\n") == 1 and mistake[0] in line


def test_pages_are_written_whole_or_not_at_all(folder, capsys):
    (folder / "RESULTS.md").mkdir()  # can't be written
    assert report.main(["--output", str(folder)]) == 2
    assert "RESULTS.md" in capsys.readouterr().err


def test_experiments_of_a_folder(folder):
    experiments, problems = read_experiments(folder)
    assert not problems and [each.prefix for each in experiments] == [
        "fashion-mnist-fully-connected", "convolutional", "convolutional-3v5"
    ]  # fmt: skip
    assert experiments[1].pairs == [[0, 1], [3, 5]]


def test_the_table_that_a_run_ends_with():
    results = made_up.results({"dataset": "digits"})
    assert title_of(results).endswith("digits 0 and 1 of scikit-learn's 8x8 digits, NOT MNIST")
    results.readout_measurements[..., 0] *= 100  # of one test image: the median stays
    title, heading, first, *_ = summary(results, "X").splitlines()
    assert title.startswith("X; threshold at the test median")
    assert " ".join(heading.split()) == (
        "n trials exact sparsified diagonal κ exact κ sparsified sparsity post-selection "
        "readout sparsified readout diagonal"
    )
    assert " ".join(first.split()) == "16 4 0.900 0.900 0.900 21.1 3.0 2.8 4.0 30.0 60.0"


# ---- what is committed ----


@pytest.mark.slow
def test_committed_pages_are_up_to_date(tmp_path):
    """After a change of the results, of the simulation or of a template: python report.py."""
    folder = ROOT / "kernel_output"
    if not any(folder.glob("*_results.nc")):
        pytest.skip("no results in kernel_output")
    for path in folder.glob("*.nc"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert report.main(["--output", str(tmp_path)]) == 0
    for path in tmp_path.rglob("*.md"):
        committed = folder / path.relative_to(tmp_path)
        assert path.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8"), path.name


def test_the_page_is_a_page():
    """At most 120 lines, 1,000 words, and 8 columns a table."""
    text = (ROOT / "kernel_output" / "RESULTS.md").read_text(encoding="utf-8")
    words = [word for word in text.split() if any(c.isalnum() for c in word)]
    assert len(text.splitlines()) <= 120 and len(words) <= 1000
    assert max(line.count(" | ") + 1 for line in text.splitlines() if line.startswith("|")) <= 8
