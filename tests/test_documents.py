"""Numbers in README stand in what programs wrote."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "kernel_output" / "RESULTS.md", *(ROOT / "kernel_output" / "tables").glob("*.md")]
NUMBER = r"(?<![\w.^])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w]|\.\d)"


def section(begin, end):
    return README.partition(begin)[2].partition(end)[0]


def numbers_of(text):
    """Those that are more than counts: with a decimal point, a comma or an exponent; the values."""
    found = re.findall(NUMBER, text)
    return [
        (each, float(each.replace(",", ""))) for each in found if re.search(r"[.,e]\d|e[-+]", each)
    ]


def rounded_to(text, value):
    """Whether a number as it is written is the value, rounded to its digits."""
    digits = len(re.sub(r"e.*", "", text).lstrip("+-0.").replace(",", "").replace(".", ""))
    return float(text.replace(",", "")) == float(f"{value:.{max(digits, 1)}g}")


def test_findings_stand_in_the_results():
    """Every number of README's findings is one of the report's, rounded to README's digits."""
    known = {value for page in PAGES for _, value in numbers_of(page.read_text(encoding="utf-8"))}
    findings = numbers_of(section("What came out", "```"))
    unknown = [text for text, _ in findings if not any(rounded_to(text, value) for value in known)]
    assert findings and not unknown


def test_speeds_stand_in_the_benchmark():
    report = (ROOT / "tests" / "BENCHMARK.md").read_text(encoding="utf-8")
    engines = (ROOT / "ntk" / "README.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\d+\.\d+", engines.partition("On two cores")[2])
    assert numbers and [number for number in numbers if number not in report] == []


DOCUMENTS = sorted(p for p in ROOT.rglob("*.md") if not {".venv", "templates"} & set(p.parts))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []
