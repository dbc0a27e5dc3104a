"""Numbers in README stand in what programs wrote."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(begin, end):
    return README.partition(begin)[2].partition(end)[0]


RESULTS = (ROOT / "kernel_output" / "RESULTS.md").read_text(encoding="utf-8")
NUMBER = r"\d(?:[\d,]*\d)?(?:\.\d+)?(?:e[+-]?\d+)?"
INTERVAL = rf"{NUMBER} ± {NUMBER}|{NUMBER} \({NUMBER} (?:to {NUMBER}|or never)\)"  # and the mean or best value
CLAIMS = {  # what README says of growth, and the line of that network's results that has to say so
    "Sparsity grows no faster than log n": ("Fully connected", "- sparsity of K̃: **no faster than log n**"),
    "measurements grow faster than log n": ("Fully connected", "- post-selection, training: **faster than log n**"),
    "κ of K̃ and its sparsity no faster than log n": ("Convolutional", "- κ of K̃: **no faster than log n**"),
    "and its sparsity no faster than log n": ("Convolutional", "- sparsity of K̃: **no faster than log n**"),
    "post-selection by no more than 25 %": (
        "Convolutional", "- post-selection, training: **no growth beyond 25 %**"
    ),
    "K grows like": ("Convolutional", "- κ of K: **faster than log n**, like"),
}  # fmt: skip


def results_of(network):
    """What RESULTS.md says in the sections of one network, or all of it."""
    parts = re.split(r"^(?=## )", RESULTS, flags=re.MULTILINE)
    return "".join(part for part in parts if network in part.partition("\n")[0]) or RESULTS


def findings():
    """README's findings: (network, or what else a bullet begins with; the bullet in one line)."""
    for bullet in re.split(r"^- ", section("What came out", "!["), flags=re.MULTILINE)[1:]:
        name = bullet.partition("**")[2]
        network = "Fully connected" if name.startswith("Its post-selection") else re.match(r"[\w ]*\w", name)[0]
        yield network, " ".join(bullet.split())


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
    said = dict(findings())
    text = " ".join(section("What came out", "![").split())
    assert all(words in text for words in CLAIMS) and {"Fully connected", "Convolutional"} <= said.keys()
    assert [words for words, (network, line) in CLAIMS.items() if line not in results_of(network)] == []
    assert text.count("faster than log n") == sum("faster than log n" in words for words in CLAIMS) - 1


def test_speeds_stand_in_the_benchmark():
    report = (ROOT / "tests" / "BENCHMARK.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\d+\.\d+", section("## How the convolutional kernel is fast", "## Departures"))
    numbers += re.findall(r"([\d.]+) ms a pair", README)
    assert numbers and [number for number in numbers if number not in report] == []


@pytest.mark.parametrize("path", sorted(p for p in ROOT.rglob("*.md") if ".venv" not in p.parts), ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []
