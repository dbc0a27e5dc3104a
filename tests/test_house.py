"""The house: how long files and functions may be, and which room may import which."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ["ntk", "runtime", "quantum", "analysis"]
FILES = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).glob("*.py"))])
LONGEST = {"training.py": 510, "emulation.py": 350, "controls.py": 250, "README.md": 150}
MAY_IMPORT = {  # of ours
    "ntk": {"ntk"},
    "runtime": {"runtime", "ntk"},
    "quantum": {"quantum"},
    "analysis": {"analysis", "quantum", "runtime", "ntk"},
    "training": {"ntk", "runtime"},
    "emulation": {"training", "quantum", "runtime", "ntk"},
    "report": {"analysis", "runtime", "ntk"},
    "controls": {"training", "runtime", "ntk"},
    "circuit": {"training", "quantum", "runtime", "ntk", "emulation"},
}


@pytest.mark.parametrize("name", LONGEST)
def test_a_file_can_be_read_in_one_sitting(name):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= LONGEST[name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_is_longer_than_60_lines(path):
    functions = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)]
    assert not [f.name for f in functions if f.end_lineno - f.lineno >= 60]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    room = path.stem if path.parent == ROOT else path.parent.name
    imported = {name.partition(".")[0] for name in imports(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))}
    assert imported & MAY_IMPORT.keys() <= MAY_IMPORT[room]


def imports(nodes):
    """Modules that are imported, with their rooms."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_file_of_analysis_imports_in_a_circle():
    """Nor hides an import in a function, where circles are hidden."""
    rest = {}
    for path in (ROOT / "analysis").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert sorted(imports(ast.walk(tree))) == sorted(imports(tree.body)), path.name
        ours = [each.split(".") for each in imports(tree.body) if each.startswith("analysis.")]
        rest[path.stem] = {parts[1] for parts in ours}
    while rest:
        free = [name for name, needed in rest.items() if not needed & rest.keys()]
        assert free, f"a circle among {', '.join(rest)}"
        rest = {name: needed for name, needed in rest.items() if name not in free}
