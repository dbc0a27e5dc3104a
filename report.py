"""Tells the results of a folder: one page, RESULTS.md, and the tables behind it, tables/*.md.

    python report.py                        # reads and writes kernel_output/
    python report.py --output DIR

Every number comes from the .nc files there. MNIST's page is RESULTS.md, that of another dataset
RESULTS-fashion-mnist.md and so on, with its tables in tables-fashion-mnist/. A file that can't be
used is named in one line, what can be told without it is told, and the exit status is 2.
"""

from runtime import streams

if __name__ == "__main__":
    streams.prepare_process()  # before the other imports: they take seconds

import contextlib
import json
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from analysis import costs, evidence, findings, growth, other_data, tables, theory
from analysis.experiments import Experiment, read_experiments
from ntk import BadInput
from runtime import options
from runtime.files import output_files, save_text
from runtime.results import UNUSABLE
from runtime.streams import program

PAGES = {  # name: the kind of file that it tells of, its tables, and the answer before them
    "main": ("results", tables.main, findings.what_grows),
    "depth": ("depth_sweep", evidence.depth, findings.depth_matters),
    "baselines": ("baselines", evidence.baselines, findings.rivals),
    "standardisation": ("standardisation", evidence.standardisation, findings.standards_matter),
    "constants": ("sensitivity", evidence.constants, findings.constants_matter),
    "pairs": ("digit_pairs", evidence.pairs, findings.pairs_matter),
    "theorem": ("depth_sweep", theory.theorem_page, theory.theorem_holds),
    "finite_width": ("finite_width", theory.finite_page, theory.networks_follow),
    "cost": ("emulation", costs.cost, findings.prediction_is_cheap),
}
TEMPLATES = Path(__file__).parent / "analysis" / "templates"
SIMULATION = Path(__file__).parent / "tests" / "growth_simulation.json"


def filled_in(name: str, **values: Any) -> str:
    """A template with these values, and the constants of analysis/growth.py."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(f"{name}.md").render(growth=growth, **values)
    return re.sub("\n{3,}", "\n\n", text.strip()) + "\n"


def page_of(name: str, experiments: Sequence[Experiment], problems: list[BadInput]) -> str:
    """A page of tables, "" without results; files that lack what it shows are problems."""
    kind, function, finding = PAGES[name]
    parts = []
    for experiment in experiments:
        if kind not in experiment.kinds:
            continue
        part = {"title": experiment.title, "answer": findings.said(experiment, finding)}
        try:
            content = function(experiment)
            if content:
                parts.append(part | content)
        except UNUSABLE as error:
            path = experiment.folder / f"{experiment.prefix}_{kind}.nc"
            remedy = f"lacks what {name}.md shows ({error}); compute it again"
            problems.append(BadInput("output", path, remedy))
    return filled_in(name, networks=parts) if parts else ""


def write_pages(
    experiments: list[Experiment], folder: Path, problems: list[BadInput], is_compared: bool
) -> None:
    """Write the page and the tables of one dataset; is_compared: with others, in other_data.md."""
    dataset = experiments[0].dataset
    addition = f"-{dataset.prefix}".rstrip("-")
    texts = {"methods": filled_in("methods")}
    for name in PAGES:
        texts[name] = page_of(name, experiments, problems)
    texts["simulation"] = filled_in("simulation", rows=json.loads(SIMULATION.read_text()))
    tables_folder = folder / f"tables{addition}"
    pages = [name for name, text in texts.items() if text]
    for name in pages:
        save_text(tables_folder / f"{name}.md", texts[name])
    about: dict[str, Any] = {"dataset": dataset.title, "tables": tables_folder.name, "pages": pages}
    about["is_compared"] = is_compared
    about["missing"] = [Path(str(problem.value)).name for problem in problems]
    path = folder / f"RESULTS{addition}.md"
    save_text(path, filled_in("results", **about, **findings.page(experiments)))
    print(f"wrote {path}, and {len(pages)} pages in {tables_folder}")


def tell(folder: Path, problems: list[BadInput]) -> None:
    """Write everything about the results of a folder; files that can't be used are problems."""
    if not output_files(folder, "*_*.nc"):
        raise BadInput("output", folder, "no results there (*.nc); run training.py first")
    experiments, unreadable = read_experiments(folder)
    problems.extend(unreadable)
    compared = None
    with contextlib.suppress(*UNUSABLE):  # the file's own page says so
        compared = other_data.page(experiments)
    if compared:
        path = folder / "tables" / "other_data.md"
        save_text(path, filled_in("other_data", methods="methods.md", **compared))
        print(f"wrote {path}")
    for dataset in dict.fromkeys(experiment.dataset for experiment in experiments):
        own = [experiment for experiment in experiments if experiment.dataset == dataset]
        write_pages(own, folder, problems, bool(compared))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status, 2 where something could not be told of."""
    parser = options.Parser(description="Write RESULTS.md and tables/*.md of an output folder.")
    parser.add_output(text="folder of the results")
    folder = parser.parse_args(arguments).output
    parser.check(folder.is_dir(), "output", folder, "no such folder; run training.py first")
    problems: list[BadInput] = []
    status = options.with_folder(folder, partial(tell, folder, problems))
    for problem in problems:
        remedy = f"{Path(str(problem.value)).name} {problem.remedy}"
        line = options.explained(BadInput("output", folder, remedy))
        print(f"{program()}: error: {line}", file=sys.stderr)
    return 2 if problems else status


if __name__ == "__main__":
    streams.run_script(main)
