"""Numbers in README stand in what programs wrote."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(begin, end):
    return README.partition(begin)[2].partition(end)[0]


TABLE = section("What came out", "\n- **")
RESULTS = (ROOT / "kernel_output" / "RESULTS.md").read_text(encoding="utf-8")
NUMBER = r"\d(?:[\d,]*\d)?(?:\.\d+)?(?:e[+-]?\d+)?"
INTERVAL = rf"{NUMBER} ± {NUMBER}|{NUMBER} \({NUMBER} (?:to {NUMBER}|or never)\)"  # and the mean or best value
QUANTITIES = {  # rows of README's table of growth: what they begin with, and the quantity in RESULTS.md
    "sparsity of K̃": "sparsity of K̃",
    "κ of K̃": "κ of K̃",
    "κ of K,": "κ of K",
    "post-selection, k\\* over the test block": "post-selection, original",
    "post-selection, k\\* over K's largest off-diagonal": "post-selection, training",
    "post-selection, k\\* over k_thresh": "post-selection, k_thresh",
    "readout of K̃": "readout, sparsified",
}


def results_of(network):
    """What RESULTS.md says in the sections of one network, or all of it."""
    parts = re.split(r"^(?=## )", RESULTS, flags=re.MULTILINE)
    return "".join(part for part in parts if network in part.partition("\n")[0]) or RESULTS


def findings():
    """README's findings: (network, or what else a bullet begins with; the bullet in one line)."""
    for bullet in re.split(r"^- ", section("What came out", "!["), flags=re.MULTILINE)[1:]:
        name = bullet.partition("**")[2]
        yield re.match(r"[\w ]*\w", name)[0], " ".join(bullet.split())


def numbers_of(text, pattern=NUMBER):
    return re.findall(rf"(?<![\w.^])(?:{pattern})(?![\w]|\.\d)", text)


def test_findings_stand_in_the_results():
    """An interval with its value in the sections of that network, any other number somewhere, letter by letter."""
    checked = 0
    for network, bullet in findings():
        intervals = re.findall(INTERVAL, bullet)
        assert [each for each in intervals if each not in results_of(network)] == [], network
        single = [number for number in numbers_of(bullet) if re.search(r"[.e,]", number)]
        assert [number for number in single if number not in numbers_of(results_of(network))] == [], network
        checked += len(intervals)
    assert checked > 8


def test_verdicts_stand_in_the_results():
    """Each cell of the table of growth begins with that network's verdict, and has its intervals and its reserve."""
    heading, _, *rows = [line.strip("| \n").split(" | ") for line in TABLE.splitlines() if line.startswith("|")]
    networks = [each.partition(",")[0].capitalize() for each in heading[1:]]
    assert networks == ["Fully connected", "Convolutional"] and len(rows) == len(QUANTITIES)
    for (label, *cells), (begin, quantity) in zip(rows, QUANTITIES.items(), strict=True):
        assert label.startswith(begin)
        for network, cell in zip(networks, cells, strict=True):
            (line,) = re.findall(rf"^- {re.escape(quantity)}: (.*)$", results_of(network), re.MULTILINE)
            verdict, _, rest = cell.replace("**", "").partition(",") if "," in cell else cell.partition(";")
            assert line.startswith(f"**{verdict}**"), (network, quantity)
            assert all(interval in line for interval in re.findall(INTERVAL, rest))
            without = re.search("Without (n = [0-9]+), .*: ([a-z ]+)[.]", line)
            assert rest.strip() == f"{without[2]} without {without[1]}" if without else "without" not in cell
    (counted,) = re.findall(r"worse on \d+ pairs, beyond chance on \d+", " ".join(README.split()))
    assert counted in results_of("Pairs of digits: Conv")
    assert "log n" not in " ".join(text for _, text in findings())


def test_speeds_stand_in_the_benchmark():
    report = (ROOT / "tests" / "BENCHMARK.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\d+\.\d+", section("## How the convolutional kernel is fast", "## Departures"))
    numbers += re.findall(r"([\d.]+) ms a pair", README)
    assert numbers and [number for number in numbers if number not in report] == []


@pytest.mark.parametrize("path", sorted(p for p in ROOT.rglob("*.md") if ".venv" not in p.parts), ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []
