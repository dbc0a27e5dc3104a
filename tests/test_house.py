"""The house: what a reader has to hold in mind at once, and which room may import which."""

import ast
import functools

import density
import pytest
from density import ROOMS, ROOT

FILES = density.source_files()
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
MOST_NAMES = 12  # that a function stores
MOST_TOKENS = 10.8  # of a code line, on average over a file
OF_FORMULAS = ("ntk", "quantum")  # whose lines are formulas
ENGINES = ("ntk/numba_engine.py", "ntk/jax_engine.py", "ntk/numba_vectors.py")
EXCEPTIONS = {  # functions that store more names, and why
    "ntk/convolutional.py convolutional_ntk_reference": "a recursion, read beside its formulas",
    "ntk/convolutional.py pairs": "two images and what is summed over their pixels",
    "ntk/fully_connected.py fully_connected_rows": "a recursion, read beside its formulas",
    "ntk/fully_connected.py fully_connected_pairs": "the same recursion",
    "ntk/finite.py empirical_convolutional_ntk": "one pass forward and one back, layer by layer",
    "quantum/solvers.py series_in_perturbation": "every name stands in the derivation",
}
MAY_IMPORT = {  # arrows point down: commands, then analysis, quantum and runtime, then ntk
    "ntk": {"ntk"},
    "runtime": {"runtime", "ntk"},
    "quantum": {"quantum", "ntk"},
    "analysis": {"analysis", "quantum", "runtime", "ntk"},
    "training": {"runtime", "ntk"},
}
measure = functools.cache(density.measure)
COMMANDS = {path.stem for path in ROOT.glob("*.py")}


# ---- what a reader has to hold in mind ----


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ENGINES])
def test_no_function_stores_more_than_twelve_names(name):
    too_many = {}
    for function, count in measure(ROOT / name).names.items():
        is_excepted = f"{name} {function.partition('@')[0]}" in EXCEPTIONS
        if count > MOST_NAMES and not is_excepted:
            too_many[function] = count
    assert not too_many


@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_longer_than_100_characters(name):
    assert measure(ROOT / name).long_lines == 0


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(OF_FORMULAS)])
def test_lines_are_plain(name):
    assert measure(ROOT / name).tokens_a_line <= MOST_TOKENS


def test_measures_of_a_file_by_hand(tmp_path):
    """Eleven tokens on three lines; the function stores a, b and c, and the inner one c."""
    path = tmp_path / "file.py"
    path.write_text(
        '"""A text of many words."""\n\n'
        "def f(x):  # six tokens: def f ( x ) :\n"
        "    a, b = x, 1\n"
        "    def g():\n        c = 2\n"
    )
    measures = density.measure(path)
    assert measures.tokens_a_line == (6 + 7 + 5 + 3) / 4
    assert (measures.lines, measures.long_lines) == (6, 0)
    assert measures.names == {"f@3": 3, "g@5": 1}
    path.write_text("x = 1  # " + 92 * "-" + "\n" + "y = 2  # " + 91 * "-" + "\n")
    assert density.measure(path).long_lines == 1


# ---- who imports whom ----


def imported_modules(nodes):
    """The names of modules that these statements import, and of what they import from them."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write whole names of modules"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_of(path):
    """A file's name as a module: training, runtime.files, ntk for its __init__.py."""
    name = ".".join(path.relative_to(path.parent.parent).with_suffix("").parts)
    return path.stem if path.stem in COMMANDS else name.removesuffix(".__init__")


def imports_between_files(paths):
    """Of each module which others of `paths` it imports anywhere, in functions too."""
    modules = {module_of(path): path for path in paths}
    graph = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        graph[module] = set()
        for name in imported_modules(ast.walk(tree)):
            # `from runtime import files` names a file, `from runtime.files import save` does not.
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module:
                graph[module].add(target)
    return graph


def modules_in_circles(graph):
    """The modules that import themselves by way of others, or stand between those that do."""
    left = {module: set(targets) for module, targets in graph.items()}
    while True:
        done = {module for module, targets in left.items() if not targets & left.keys()}
        if not done:
            return set(left)
        left = {module: targets for module, targets in left.items() if module not in done}


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_one_way(name):
    path = ROOT / name
    room = path.stem if path.parent == ROOT else path.parent.name
    allowed = MAY_IMPORT.get(room, {*ROOMS, *COMMANDS})
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {module.partition(".")[0] for module in imported_modules(ast.walk(tree))}
    assert imported & {*ROOMS, *COMMANDS} <= allowed


@pytest.mark.parametrize("room", [*ROOMS, "commands"])
def test_no_files_import_each_other_in_a_circle(room):
    """Nor by an import inside a function, where circles are hidden."""
    paths = [path for path in FILES if path.parent.name == room]
    if room == "commands":
        paths = FILES
    assert not modules_in_circles(imports_between_files(paths))


def test_a_circle_is_found_wherever_it_is_hidden(tmp_path):
    room = tmp_path / "runtime"
    room.mkdir()
    (room / "a.py").write_text("from runtime.b import f\n")
    (room / "b.py").write_text("def f():\n    from runtime import c\n")
    (room / "c.py").write_text("import numpy\n")
    paths = sorted(room.glob("*.py"))
    assert modules_in_circles(imports_between_files(paths)) == set()
    (room / "c.py").write_text("def f():\n    import runtime.a\n")
    circle = {"runtime.a", "runtime.b", "runtime.c"}
    assert modules_in_circles(imports_between_files(paths)) == circle
