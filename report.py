"""Tells the results of a folder: one page, RESULTS.md, and the tables behind it, tables/*.md.

    python report.py                        # reads and writes kernel_output/
    python report.py --output DIR

Every number comes from the .nc files there. MNIST's page is RESULTS.md, that of another dataset
RESULTS-fashion-mnist.md and so on, with its tables in tables-fashion-mnist/. A file that can't be
used is named in one line, what can be told without it is told, and the exit status is 2.

A page is a function in analysis/ and a template of the same name in analysis/templates/.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from analysis import costs, evidence, growth, page, simulation, tables
from analysis.experiments import DATASETS, Experiment, read_experiments
from ntk import BadInput
from runtime import options
from runtime.files import save, write_errors_explained

PAGES = {  # name: the kind of file that it tells of, and what it tells of an experiment
    "main": ("results", tables.main),
    "depth": ("depth_sweep", evidence.depth),
    "baselines": ("baselines", evidence.baselines),
    "constants": ("sensitivity", evidence.constants),
    "pairs": ("digit_pairs", evidence.pairs),
    "cost": ("emulation", costs.cost),
    "circuit": ("circuit", costs.circuit),
}


def template(name: str, values: dict[str, Any]) -> str:
    """A template with these values filled in, and the statistics' constants."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "analysis" / "templates")
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{name}.md").render(growth=growth, **values)


def usable(experiments: Sequence[Experiment], folder: Path) -> list[BadInput]:
    """Compute what the pages tell; what can't be told is taken out, and returned as problems."""
    problems = []
    for experiment in experiments:
        for kind, function in PAGES.values():
            if kind not in experiment.kinds:
                continue
            try:
                experiment.tell(function)
            except (KeyError, ValueError, AttributeError, IndexError) as error:
                del experiment.kinds[kind]
                path = folder / f"{experiment.prefix}_{kind}.nc"
                reason = " ".join(str(error).split())[:80]
                remedy = f"lacks what its tables need ({reason}); compute it again"
                problems.append(BadInput("output", path, remedy))
    return problems


def pages_of(experiments: Sequence[Experiment]) -> dict[str, str]:
    """The text of every page of tables, by name; a page without results is left out."""
    texts = {"methods": template("methods", {})}
    for name, (kind, function) in PAGES.items():
        networks = []
        for experiment in experiments:
            if kind in experiment.kinds:
                networks.append({"title": experiment.title} | experiment.tell(function))
        if networks:
            texts[name] = template(name, {"networks": networks})
    simulated = simulation.simulation(experiments)
    if simulated:
        texts["simulation"] = template("simulation", simulated)
    return texts


def write_report(folder: Path) -> list[BadInput]:
    """Write all pages of all datasets of a folder; returns what could not be told of."""
    datasets, problems = read_experiments(folder)
    for dataset, experiments in datasets.items():
        problems += usable(experiments, folder)
        addition = "" if dataset == "mnist" else f"-{dataset}"
        tables_folder = folder / f"tables{addition}"
        with write_errors_explained(tables_folder / "tables"):
            tables_folder.mkdir(exist_ok=True)
        texts = pages_of(experiments)
        for name, text in texts.items():
            write_text(tables_folder / f"{name}.md", text)
        about = {"dataset": DATASETS.get(dataset, dataset), "tables": tables_folder.name, "pages": list(texts)}
        missing = [Path(str(problem.value)).name for problem in problems]
        values = about | {"missing": missing} | page.page(experiments)
        write_text(folder / f"RESULTS{addition}.md", template("results", values))
        print(f"wrote {folder / f'RESULTS{addition}.md'} and {len(texts)} pages in {tables_folder}")
    return problems


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    save(path, lambda file: file.write(text.encode()))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: returns the exit status, 2 where something could not be told of."""
    parser = options.Parser(description="Write RESULTS.md and tables/*.md of an output folder.")
    how = dict(type=options.folder, default=Path("kernel_output"), metavar="DIR")
    parser.add_options([("--output", how, "the folder", "kernel_output")])
    folder = parser.parse_args(arguments).output
    there = folder.is_dir() and any(folder.glob("*_*.nc"))
    parser.check(there, "output", folder, "no results there (*.nc); run training.py first")
    problems: list[BadInput] = []
    status = options.with_folder(folder, lambda: problems.extend(write_report(folder)))
    for problem in problems:
        print(f"{options.program()}: error: {options.explained(problem)}", file=sys.stderr)
    return 2 if problems else status


if __name__ == "__main__":
    options.run_script(main)
