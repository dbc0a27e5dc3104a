"""Tells the results of a folder: one page, RESULTS.md, and the tables behind it, tables/*.md.

    python report.py                        # reads and writes kernel_output/
    python report.py --output DIR

Every number comes from the .nc files there. MNIST's page is RESULTS.md, that of another dataset
RESULTS-fashion-mnist.md and so on, with its tables in tables-fashion-mnist/. A file that can't be
used is named in one line, what can be told without it is told, and the exit status is 2.

A page is a function in analysis/ and a template of the same name in analysis/templates/.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from analysis import costs, evidence, growth, page, simulation, tables
from analysis.experiments import Experiment, read_experiments
from ntk import BadInput
from runtime import options
from runtime.files import output_files, save_text, write_errors_explained
from runtime.streams import program, run_script

PAGES = {  # name: the kind of file that it tells of, and what it tells of an experiment
    "main": ("results", tables.main),
    "depth": ("depth_sweep", evidence.depth),
    "baselines": ("baselines", evidence.baselines),
    "constants": ("sensitivity", evidence.constants),
    "pairs": ("digit_pairs", evidence.pairs),
    "cost": ("emulation", costs.cost),
    "circuit": ("circuit", costs.circuit),
}
TEMPLATES = Path(__file__).parent / "analysis" / "templates"


def filled_in(name: str, values: dict[str, Any]) -> str:
    """A template with these values, and the constants of analysis/growth.py."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(f"{name}.md").render(growth=growth, **values)
    return re.sub("\n{3,}", "\n\n", text.strip()) + "\n"


def take_out_unusable(experiment: Experiment, folder: Path) -> list[BadInput]:
    """Compute what the pages tell of an experiment; files for which that fails are taken out."""
    problems = []
    for kind, function in PAGES.values():
        if kind in experiment.kinds:
            try:
                experiment.tell(function)
            except (LookupError, ValueError, AttributeError, TypeError) as error:
                del experiment.kinds[kind]
                reason = " ".join(str(error).split())[:60]
                remedy = f"lacks what its tables need ({reason}); compute it again"
                path = folder / f"{experiment.prefix}_{kind}.nc"
                problems.append(BadInput("output", path, remedy))
    return problems


def pages_of(experiments: Sequence[Experiment]) -> dict[str, str]:
    """The text of every page of tables, by name; a page without results is left out."""
    texts = {"methods": filled_in("methods", {})}
    for name, (kind, function) in PAGES.items():
        networks = []
        for experiment in experiments:
            if kind in experiment.kinds:
                networks.append({"title": experiment.title, **experiment.tell(function)})
        if networks:
            texts[name] = filled_in(name, {"networks": networks})
    simulated = simulation.simulation(experiments)
    if simulated:
        texts["simulation"] = filled_in("simulation", simulated)
    return texts


def write_report(folder: Path) -> list[BadInput]:
    """Write the pages of all datasets of a folder; returns what could not be told of."""
    experiments, problems = read_experiments(folder)
    by_dataset: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        problems += take_out_unusable(experiment, folder)
        by_dataset.setdefault(experiment.dataset.name, []).append(experiment)
    missing = [Path(str(problem.value)).name for problem in problems]
    for of_dataset in by_dataset.values():
        write_pages(of_dataset, folder, missing)
    return problems


def write_pages(experiments: Sequence[Experiment], folder: Path, missing: list[str]) -> None:
    """Write the page and the tables of one dataset."""
    dataset = experiments[0].dataset
    addition = f"-{dataset.prefix}".rstrip("-")
    tables_folder = folder / f"tables{addition}"
    texts = pages_of(experiments)
    with write_errors_explained(tables_folder):
        tables_folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        save_text(tables_folder / f"{name}.md", text)
    about = {"dataset": dataset.title, "tables": tables_folder.name, "pages": list(texts)}
    whole = about | {"missing": missing} | page.page(experiments)
    path = folder / f"RESULTS{addition}.md"
    save_text(path, filled_in("results", whole))
    print(f"wrote {path}, and {len(texts)} pages in {tables_folder}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status, 2 where something could not be told of."""
    parser = options.Parser(description="Write RESULTS.md and tables/*.md of an output folder.")
    parser.add_output(text="folder of the results")
    folder = parser.parse_args(arguments).output
    parser.check(folder.is_dir(), "output", folder, "no such folder; run training.py first")
    problems: list[BadInput] = []

    def work() -> None:
        if not output_files(folder, "*_*.nc"):
            raise BadInput("output", folder, "no results there (*.nc); run training.py first")
        problems.extend(write_report(folder))

    status = options.with_folder(folder, work)
    for problem in problems:
        remedy = f"{Path(str(problem.value)).name} {problem.remedy}"
        line = options.explained(BadInput("output", folder, remedy))
        print(f"{program()}: error: {line}", file=sys.stderr)
    return 2 if problems else status


if __name__ == "__main__":
    run_script(main)
