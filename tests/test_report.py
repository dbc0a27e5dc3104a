"""Tables, the page and the command of report.py, on made-up results whose numbers are known."""

import json
import shutil
from functools import partial
from pathlib import Path

import made_up
import numpy as np
import pytest
import xarray as xr

import report
from analysis import costs, evidence, findings, tables
from analysis.experiments import Experiment, read_experiments
from analysis.growth import Means
from ntk import BadInput
from runtime.datasets import DATASETS
from runtime.results import foreign_explained, write_results
from runtime.summary import summary, title_of

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(report.__file__).parent


def experiment(**kinds):
    """An experiment with these files."""
    return Experiment("convolutional", DATASETS["mnist"], "convolutional", Path(), kinds)


def rows(table):
    """{first cell: other cells} of a Markdown table, and every line as long as the first."""
    lines = [line[2:-2].split(" | ") for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1
    return {line[0]: line[1:] for line in lines[2:]}


# ---- cells ----


def test_numbers_are_written_with_half_widths():
    assert tables.plus_minus(0.9104, 0.0141) == "0.910 ± 0.014"
    assert [tables.plus_minus(x, np.nan) for x in (np.nan, np.inf, 2.5)] == ["–", "∞", "2.5"]


def test_intervals_have_three_digits():
    assert tables.with_interval((1.0954, 1.0781, 1.1127)) == "1.1 (1.08 to 1.11)"
    assert tables.with_interval((19193.4, 0, np.inf)) == "19,193 (0 to ∞)"
    assert tables.with_interval(np.round((-0.001, -np.inf, 0.119), 2)) == "0 (-∞ to 0.12)"
    assert tables.with_interval((np.nan, np.nan, np.nan)) == "–"


def test_columns_are_named_by_their_labels():
    """New labels need no code; what is the same in both conventions stands once, NaN nowhere."""
    results = made_up.results()
    names = list(tables.columns_of(results.accuracy))
    assert names[:2] == ["at the test median, exact", "at the test median, sparsified"]
    assert len(names) == 7 and "at zero, sparsified, corrected" in names
    assert list(tables.columns_of(results.sparsity)) == ["sparsified"]
    other = results.assign_coords(convention=["original", "rescaled"])
    assert list(tables.columns_of(other.sparsity)) == ["sparsified"]
    alike = results.sparsity.sel(approximation="sparsified", drop=True)
    assert list(tables.columns_of(alike)) == [""]
    new = results.assign_coords(threshold=["calibrated", "zero"])
    assert "calibrated, exact" in tables.columns_of(new.accuracy)
    assert tables.usual_threshold(new) == "calibrated"
    unknown = new.accuracy.where(new.threshold == "zero")
    assert tables.usual_threshold(new.assign(accuracy=unknown)) == "test median"


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
    assert tables.paired_cells(losses["at zero, sparsified"]) == ["**+0.100 ± 0.000**"] * 4
    assert tables.paired_cells(losses["at zero, diagonal"]) == ["0"] * 4
    results.accuracy.loc[at | {"pattern": 0}] -= np.array([0.6, -0.6, 0.3, -0.3])[:, None]
    losses = tables.losses_of(results.accuracy)
    assert tables.paired_cells(losses["at zero, sparsified"])[0].startswith("+0.100 ± 0.")


def test_accuracies_near_1_have_bounds_by_their_errors():
    results = made_up.results()
    results.accuracy[:] = 1.0
    values = results.accuracy.sel(approximation="exact", convention="original", threshold="zero")
    assert tables.mean_cells(values, results.test_images) == ["1.000 (0.997 to 1.000)"] * 4
    values[:] = 0.9 * made_up.noise(0.01, 1)
    assert tables.mean_cells(values, results.test_images)[0] == "0.900 ± 0.011"


# ---- pages ----


def test_main_page():
    told = tables.main(experiment(results=made_up.results()))
    means, growth = rows(told["means"]), rows(told["growth"])
    assert means["sparsity, sparsified"][0] == "2.77 ± 0.03"
    assert means["accuracy, at zero, sparsified"][0].startswith("0.500")
    assert means["trials"] == ["4"] * 4 and means["depth"] == ["96"] * 4
    assert growth["κ, exact"][-1] == "**faster than log n**: λ above 0"
    assert growth["sparsity, sparsified"][-1] == "**no faster than log n**: λ below 0.25"
    assert growth["readout, at zero, sparsified"][-1] == "**flat**: within 0.8 to 1.25"
    assert rows(told["losses"])["at zero, sparsified"][0].startswith("**+0.400")
    said = findings.what_grows(experiment(results=made_up.results()))
    assert said.startswith("faster than log n: κ, exact; post-selection, scale from the test set;")
    assert said.endswith("undecided: nothing")


def test_depth_page():
    """At another depth than the original's K gains, and the diagonal does not."""
    sweep = made_up.with_settings(made_up.results(), [6.0, 96.0])
    at = {"setting": 6.0, "threshold": "test median"}
    sweep.accuracy.loc[at | {"approximation": "exact"}] += 0.02
    whole = experiment(depth_sweep=sweep)
    told = evidence.depth(whole)
    shown = rows(told["table"])
    assert list(shown) == ["6", "96"] and (told["n"], told["rule"]) == (128, 96)
    assert shown["6"][:3] == ["0.25", "207.9", "0.920 ± 0.011"]
    assert shown["6"][3] == "**+0.020 ± 0.000**" and shown["96"][3] == "0"
    said = findings.depth_matters(whole)
    assert said == "K̃ loses 0.020 at depth 6, 0.000 at the original's 96 (n = 128)"
    alone = experiment(depth_sweep=sweep.sel(setting=[6.0]))
    assert findings.depth_matters(alone) == "K̃ loses 0.020 at depth 6 (n = 128)"


def baselines():
    made_up.LABELS["rival"] = ["exact", "sparsified", "ridge", "nearest neighbours"]
    rivals = np.array([0.9, 0.9, 0.91, 0.95]) + 0.002 * (made_up.noise(1, 1) - 1)
    accuracy = np.full((4, 1, 6, 1), 0.5)
    accuracy[:, 0, 0, 0], accuracy[:, 0, 4, 0] = 0.9, [0.8, 0.9, 0.95, 0.96]
    return made_up.dataset(
        accuracy=(("classifier", "threshold"), accuracy + 0.002 * (made_up.noise(1, 2) - 1)),
        agreement=(("threshold",), 1),
        rival_accuracy=(("rival",), rivals),
    )


def test_rivals_of_the_sparsified_matrix():
    whole = experiment(baselines=baselines())
    said = findings.enlargement_matters(whole)
    assert said == "K̃ gains 0 (exact), **-0.050 ± 0.000** (nearest neighbours)"
    shown = rows(evidence.baselines(whole)["rivals"])
    assert shown["exact − sparsified"][0] == "0"
    assert shown["nearest neighbours − sparsified"][3] == "**+0.050 ± 0.000**"


def test_what_standardising_changes():
    whole = experiment(standardisation=made_up.standardisation())
    page = evidence.standardisation(whole)
    shown = rows(page["table"])
    changes = shown["change, calibrated, exact = sparsified = diagonal"]
    assert changes[0].startswith("**-0.100 ±")
    factors = rows(page["factors"])
    assert {cell for row in factors.values() for cell in row} == {"2"}
    said = findings.standards_matter(whole)
    assert said.startswith("accuracy of K̃, calibrated t: changes by -0.100 ± 0.0")


def test_only_classifiers_that_are_better_beyond_chance_are_named():
    whole = experiment(baselines=baselines())
    assert findings.rivals(whole) == "better than K at n = 128: nearest neighbour by 0.060"
    shown = rows(evidence.baselines(whole)["table"])
    assert shown["at the test median, nearest neighbour"][3].startswith("0.960")
    partial = baselines()
    partial["accuracy"] = partial.accuracy.where(
        (partial.n < 128) | (partial.classifier != "exact")
    )  # of some entries of K
    whole.kinds["baselines"] = partial
    assert findings.rivals(whole) == "better than K at n = 64: nearest neighbour by 0.050"
    alike = baselines().isel(n=[0, 1])
    alike.accuracy.loc[{"n": 32, "classifier": "nearest neighbour", "trial": 0}] += 0.01
    whole.kinds["baselines"] = alike
    assert findings.rivals(whole) == "better than K at n = 32: none"


def test_baselines_without_the_exact_ntk_name_no_rival():
    alone = baselines()
    alone["accuracy"] = alone.accuracy.where(alone.classifier != "exact")
    assert findings.said(experiment(baselines=alone), findings.rivals) == ""


def sensitivity():
    settings = [(90, 0.5, 1), (90, 1, 1), (90, 0.5, 2), (90, 1, 2), (0, 1, 1)]
    made = made_up.with_settings(made_up.results(), [str(each) for each in settings])
    for i, name in enumerate(("percentile", "boost", "density")):
        values = np.array([each[i] for each in settings], float)
        made = made.assign_coords({name: ("setting", values)})
    made.attrs["origin"] = json.dumps(made_up.ORIGIN | {"papers_setting": [90, 1, 1]})
    return made


def test_constants_page():
    made = sensitivity()
    sparsified = {"approximation": "sparsified", "convention": "original", "n": 128}
    made.positive_definite.loc[sparsified | {"setting": "(90, 0.5, 1)", "trial": 1}] = 0
    at = sparsified | {"setting": "(90, 1, 2)", "threshold": "test median"}
    made.accuracy.loc[at] += 0.03
    whole = experiment(sensitivity=made)
    told = evidence.constants(whole)
    assert told["n"] == 128 and rows(told["table"]) == {
        "boost 0.5": ["(0.900)", "0.900"], "boost 1": ["0.900", "0.930"]
    }  # fmt: skip
    said = findings.constants_matter(whole)
    assert said == "with a boost of 0.5 K̃ is not always positive definite at n = 128"


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
    made.accuracy.loc[{"setting": "2 1", "n": 128, "approximation": "sparsified"}] -= 0.2
    whole = experiment(digit_pairs=made, results=made_up.results())
    told = evidence.pairs(whole)
    shown = rows(told["tables"][128])
    names = list(shown)
    assert names[0] == "1 and 2" and shown["1 and 2"][:3] == ["0.200", "0.000", "0.920"]
    assert names[-1] == "0 and 1" and len(names) == 6
    assert list(rows(told["reasons"])) == ["accuracy of K"]
    said = findings.pairs_matter(whole)
    assert said.startswith("K̃ loses up to 0.200 (1 and 2), 0.000 on the median pair (n = 128)")
    assert said.endswith("on 1 of 6, beyond chance on 1, above it beyond chance on 0")
    for name in made.data_vars:  # sizes without trials are left out
        made[name].loc[{"n": 128}] = np.nan
    assert "(n = 64)" in findings.pairs_matter(whole)


def test_pairs_whose_reasons_are_unknown_are_shown():
    made = pairs()
    made.accuracy.loc[{"setting": "2 1", "n": 128, "approximation": "sparsified"}] -= 0.2
    purity = made.off_diagonal_ratio.where(made.setting != "2 1")
    made["label_purity"] = purity * np.arange(1, 7).reshape(1, -1, 1)
    told = evidence.pairs(experiment(digit_pairs=made, results=made_up.results()))
    shown = rows(told["tables"][128])
    assert shown["1 and 2"][3] == "–" and "nan" not in told["tables"][128]
    assert list(rows(told["reasons"])) == ["accuracy of K"]  # five pairs lose the same


def test_a_page_without_one_quantity_keeps_the_growth_of_the_others():
    results = made_up.results().drop_vars("readout_measurements")
    told = findings.page([experiment(results=results)])
    assert "κ, sparsified" in rows(told["growths"]) and not told["accuracies"]


def test_sizes_without_trials_are_not_shown():
    results = made_up.results()
    for name in results.data_vars:
        results[name].loc[{"n": 128}] = np.nan
    assert "n = 128" not in findings.accuracy_table(experiment(results=results))


def test_a_loss_that_is_none_is_not_told():
    alone = made_up.results().isel(trial=[0])
    cell = findings.accuracy_stays("test median", experiment(results=alone))
    assert cell.startswith("**undecided**") and "loses" not in cell


def test_the_page_gives_the_verdicts():
    told = findings.page([experiment(results=made_up.results())])
    verdicts = rows(told["verdicts"])
    assert "accuracy of K̃ stays, threshold calibrated" not in verdicts  # not in these results
    assert verdicts["accuracy of K̃ stays, at zero"][0].startswith("**fails**: K̃ has 0.500, K 0.900")
    assert verdicts["κ of K̃ stays small"][0].startswith("**holds**: 3 to 3, at most 3; K: 21.1 to 208")
    assert verdicts["preparing k\\* is cheap, scale known"][0].startswith("**fails**: 4 to 11.3")
    cheap = made_up.results()  # one divisor that is known is enough
    cheap.post_selection_measurements.loc[{"divisor": "fixed constant"}] = 2.0
    assert findings.preparing_is_cheap(experiment(results=cheap)).startswith("**holds**")
    cheap.post_selection_measurements[:] = 1e6  # flat, and dear
    assert findings.preparing_is_cheap(experiment(results=cheap)).startswith("**fails**")
    growths = rows(told["growths"])
    assert growths["post-selection, fixed constant"] == ["faster than log n: 4 to 11.3"]
    (accuracies,) = told["accuracies"].values()
    same = "accuracy, at the test median, exact = sparsified = diagonal"
    assert rows(accuracies)[same][0] == "0.900 ± 0.011"


def test_answers_are_the_pages_findings():
    """A line for each experiment; what it lacks is left out, and no star is eaten by Markdown."""
    whole = experiment(results=made_up.results())
    name = "preparing k\\* is cheap, scale known"
    said = findings.answer([whole], name, "all pairs of classes", "sparsity, sparsified")
    cell = findings.preparing_is_cheap(whole)
    expected = f"{name}: {cell}; sparsity, sparsified: no faster than log n: 2.77 to 4.85"
    assert said == f"- Convolutional, digits 0 and 1: {expected}."
    assert findings.answer([experiment()], name) == ""


@pytest.mark.parametrize("mean, half, verdict", [
    (0.001, 0.005, "holds"), (0.02, 0.01, "nearly holds"), (0.04, 0.02, "undecided"),
    (0.02, 0.03, "undecided"), (0.06, 0.005, "fails"),
])  # fmt: skip
def test_a_verdict_says_what_the_interval_of_the_worst_loss_says(mean, half, verdict):
    means, halves = np.array([[0.0, mean], [0.001, half]])
    losses = Means(np.arange(2), means, means - halves, means + halves)
    assert findings.verdict_on_loss(losses) == verdict


@pytest.mark.parametrize("loss, verdict", [
    ([0.004, 0.004, 0.004, 0.004], "holds"), ([0.03, 0.03, 0.03, 0.03], "nearly holds"),
    ([0.06, -0.06, 0.06, -0.02], "undecided"), ([0.2, 0.2, 0.2, 0.2], "fails"),
])  # fmt: skip
def test_whether_accuracy_stays_is_said_by_the_loss(loss, verdict):
    results = made_up.results()
    at = {"approximation": "sparsified", "threshold": "test median"}
    results.accuracy.loc[at] -= np.reshape(loss, (4, 1, 1))
    cell = partial(findings.accuracy_stays, "test median")
    assert cell(experiment(results=results)).startswith(f"**{verdict}**")


# ---- the command ----


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    """A folder with results of every kind, of two datasets."""
    folder = tmp_path_factory.mktemp("every_kind")
    made = {
        "convolutional_results": made_up.results(), "convolutional_emulation": made_up.emulation(),
        "convolutional_circuit": made_up.circuit(), "convolutional_baselines": baselines(),
        "convolutional_sensitivity": sensitivity(), "convolutional_digit_pairs": pairs(),
        "convolutional_standardisation": made_up.standardisation(),
        "convolutional_depth_sweep": made_up.with_settings(made_up.results(), [96.0, 6.0]),
        "convolutional-3v5_results": made_up.results({"classes": [3, 5]}),
        "fashion-mnist-fully-connected_results": made_up.results(
            {"dataset": "fashion_mnist", "network": "fully-connected", "classes": [8, 9]}
        ),
    }  # fmt: skip
    for name, results in made.items():
        write_results(folder / f"{name}.nc", results)
    return folder


@pytest.fixture
def folder(every_kind, tmp_path):
    """Such a folder, to be changed."""
    return shutil.copytree(every_kind, tmp_path / "output")


def test_report(folder, capsys):
    assert report.main(["--output", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.out.count("wrote ") == 3 and not said.err
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "| Convolutional, digits 0 and 1 | Convolutional, digits 3 and 5 |" in text
    names = {"methods", *report.PAGES, "simulation"} - {"theorem", "finite_width"}  # test_theory.py
    names.add("other_data")
    assert {path.stem for path in (folder / "tables").glob("*.md")} == names
    for name in names:
        page_text = (folder / "tables" / f"{name}.md").read_text(encoding="utf-8")
        assert f"(tables/{name}.md)" in text and "nan" not in page_text and "K~" not in page_text
        assert page_text.startswith("# ") and "{{" not in page_text
    other = (folder / "RESULTS-fashion-mnist.md").read_text(encoding="utf-8")
    assert "# Results: Fashion-MNIST" in other and "Fully connected, bag and ankle boot" in other
    assert (folder / "tables-fashion-mnist" / "main.md").exists()


def test_what_can_be_told_is_told(folder, capsys):
    """One line for each damaged, foreign or incomplete file, status 2, and a page that says so."""
    path = folder / "convolutional_emulation.nc"
    path.write_bytes(path.read_bytes()[:-100])
    (folder / "convolutional_baselines.nc").write_bytes(b"no results")
    (folder / "RESULTS.md").mkdir()  # in the page's place
    write_results(folder / "convolutional_depth_sweep.nc", made_up.circuit())
    write_results(folder / "convolutional_notes.nc", made_up.results())
    assert report.main(["--output", str(folder)]) == 2
    said = capsys.readouterr()
    assert "RESULTS.md is a folder; it is kept as RESULTS.md.1.old" in said.out
    lines = said.err.splitlines()
    assert len(lines) == 4
    for kind in ("emulation", "baselines", "depth_sweep", "notes"):
        assert sum(f"convolutional_{kind}.nc" in line for line in lines) == 1
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "Left out" in text and "κ of K̃ stays small" in text
    assert "What one prediction costs" not in text
    assert not (folder / "tables" / "cost.md").exists()


def test_foreign_labels_and_numbers_end_in_one_line(folder, capsys):
    """In files whose sums are right, one kind after the other; what can be told is told."""
    foreign = {
        "results": made_up.results().assign_coords(convention=["a", "b"]),
        "circuit": made_up.circuit().assign_coords(n=made_up.SIZES + 0.0),
        "depth_sweep": made_up.results(),
    }
    for kind, made in foreign.items():
        write_results(folder / f"convolutional_{kind}.nc", made)
    assert report.main(["--output", str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    named = [line for line in lines if "run it" in line or "compute it again" in line]
    assert len(lines) == len(named) == 2
    words = r"x.nc: lacks what this program writes .*; move it away"
    with pytest.raises(BadInput, match=words), foreign_explained(folder / "x.nc"):
        summary(foreign["results"], "X")


def test_mistakes_on_the_command_line(tmp_path, capsys):
    assert report.main(["--output", str(tmp_path)]) == 2
    assert "no results there" in capsys.readouterr().err
    for mistake in (["--output", str(tmp_path / "nothing")], ["--outptu", "x"]):
        with pytest.raises(SystemExit) as stopped:
            report.main(mistake)
        line = capsys.readouterr().err
        assert stopped.value.code == 2 and line.count("\n") == 1 and mistake[0] in line


def test_experiments_of_a_folder(every_kind):
    experiments, problems = read_experiments(every_kind)
    assert not problems and [each.prefix for each in experiments] == [
        "fashion-mnist-fully-connected", "convolutional", "convolutional-3v5"
    ]  # fmt: skip
    titles = [each.title for each in experiments]
    assert titles[0] == "Fully connected, bag and ankle boot of Fashion-MNIST"
    assert titles[2] == "Convolutional, digits 3 and 5" and experiments[2].pair == "3 and 5"


def test_the_title_without_known_classes():
    for name, title in (("mnist", ""), ("fashion_mnist", ", of Fashion-MNIST")):
        unknown = Experiment("x", DATASETS[name], "convolutional", ROOT)
        assert unknown.title == f"Convolutional{title}"


def test_one_trial_does_not_outweigh_all_others():
    counts = xr.DataArray([[[1.0, 10, 10], [40, 40, 1e9]]], {"n": [16]}, ("n", "trial", "image"))
    counts = counts.rename("readout_measurements")
    assert costs.cells(counts)[0].startswith("20 ×÷")


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
