"""Numbers in README stand in what programs wrote."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(begin, end):
    return README.partition(begin)[2].partition(end)[0]


def test_findings_stand_in_the_results():
    """Every number with a decimal point or an exponent in the findings is in RESULTS.md, letter by letter."""
    results = (ROOT / "kernel_output" / "RESULTS.md").read_text(encoding="utf-8")
    findings = section("What came out", "![")
    numbers = re.findall(r"(?<![\w.])\d+(?:\.\d+|e[+-]?\d+)(?:e[+-]?\d+)?", findings)
    assert len(numbers) > 8
    there = set(re.findall(r"(?<![\w.])\d+(?:\.\d+|e[+-]?\d+)(?:e[+-]?\d+)?", results))
    assert [number for number in numbers if number not in there] == []
    verdicts = {words: words in results for words in re.findall(r"no faster than log n|faster than log n", findings)}
    assert verdicts and all(verdicts.values())


def test_speeds_stand_in_the_benchmark():
    report = (ROOT / "tests" / "BENCHMARK.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\d+\.\d+", section("## How the convolutional kernel is fast", "## Departures"))
    numbers += re.findall(r"([\d.]+) ms a pair", README)
    assert numbers and [number for number in numbers if number not in report] == []


@pytest.mark.parametrize("path", sorted(p for p in ROOT.rglob("*.md") if ".venv" not in p.parts), ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []
