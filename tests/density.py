"""How much a reader of the code has to hold in mind: tokens a line, long lines, names a function.

    python tests/density.py [FILE ...]  # by default every file that is not a test

A code line is one on which a token begins; comments, docstrings and empty lines do not count.
test_house.py holds the code to these measures.
"""

import ast
import sys
import tokenize
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
ROOMS = ("ntk", "runtime", "quantum", "analysis")
LONGEST_LINE = 100
LAYOUT = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


class Measures(NamedTuple):
    """Of one file; names: how many local names each function stores, by name@line."""

    tokens_a_line: float
    long_lines: int
    lines: int
    names: dict[str, int]


def source_files() -> list[Path]:
    """The commands and the rooms, without tests."""
    files = sorted(ROOT.glob("*.py"))
    for room in ROOMS:
        files += sorted((ROOT / room).glob("*.py"))
    return files


def docstring_lines(tree: ast.Module) -> set[int]:
    """The lines of docstrings, and of other statements that are only a text."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            lines.update(range(node.lineno, node.end_lineno + 1))
    return lines


def stored_names(function: ast.FunctionDef) -> set[str]:
    """The names that a function stores, those of functions inside it among them."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def measure(path: Path) -> Measures:
    """The measures of one file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    prose = docstring_lines(tree)
    code_lines = set()
    count = 0
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            line = token.start[0]
            if token.type not in LAYOUT and line not in prose:
                count += 1
                code_lines.add(line)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names[f"{node.name}@{node.lineno}"] = len(stored_names(node))
    lines = text.splitlines()
    long_lines = sum(len(line) > LONGEST_LINE for line in lines)
    return Measures(count / max(len(code_lines), 1), long_lines, len(lines), names)


def main() -> None:
    """Print a table."""
    print(f"{'file':30}{'tokens a line':>14}{'long lines':>12}{'lines':>7}  most names")
    for path in [Path(name).resolve() for name in sys.argv[1:]] or source_files():
        measures = measure(path)
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        numbers = f"{measures.tokens_a_line:14.1f}{measures.long_lines:12}{measures.lines:7}"
        function = max(measures.names, key=measures.names.__getitem__, default="")
        most = f"{measures.names[function]:4} {function.partition('@')[0]}" if function else ""
        print(f"{name!s:30}{numbers}  {most}")


if __name__ == "__main__":
    main()
