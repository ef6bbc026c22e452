"""What the notebooks say in words: no measured number is typed, and no cell is longer than a screen."""

import re

import nbformat
import pytest

from lib.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST_CODE = 25  # lines
LONGEST_TEXT = 2600  # characters, about a screen
# What is no measurement of ours: formulas, code, links, and what is quoted as the paper's.
ELSEWHERE = re.compile(
    r"\$\$.*?\$\$|\$[^$\n]*\$|```.*?```|`[^`]*`|\]\([^)]*\)|https?://\S+|\(paper: [^)]*\)", flags=re.DOTALL
)
# Decimal numbers, percentages, and whatever has an interval.
NUMBER = re.compile(r"(?<![\w.])[−-]?\d[\d,]*\.\d+(?![\w.])(?:\s?%)?|(?<![\w.])\d[\d,]*\s?%|(?<![\w.])\d[\d,]*\s?±")
# Numbers that define something, everywhere and in single notebooks.
DEFINITIONS = {"5 %", "95 %", "100 %"}  # significance, confidence, all
DEFINITIONS_IN = {
    "01_explore_rssi": {"98 %"},  # the paper's rule
    "02_preprocess": {
        "98 %",
        "20 %",
        "10 %",
    },  # the paper's rule; the share of test rows; the fullest block that may test
    "03_transfer_learning": {"10 %"},  # the criterion of convergence
    "05_explain_transfer": {"−0.75"},  # of the share, passes over few rows
}


def typed_numbers(markdown: str) -> list[str]:
    """Numbers of a Markdown text that look measured."""
    prose = ELSEWHERE.sub(" ", markdown)
    return [match.group().strip() for match in NUMBER.finditer(prose)]


def cells(path, kind: str) -> list[str]:
    notebook = nbformat.read(path, as_version=4)
    return [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.mark.parametrize(
    ("markdown", "numbers"),
    [
        ("a gain of 7.2 ± 5.3 %, and 93 % of it", ["7.2", "5.3 %", "93 %"]),
        ("310 ± 1 m", ["310 ±"]),
        ("−0.5 m, 1,820.3 m and 12%", ["−0.5", "1,820.3", "12%"]),
        ("(paper: 6.65 m), $a = 0.1$, `0.5`, [0.3](https://a.org/10.1/2.5), in 2024, [14], Eq. 5", ["0.3"]),
        ("$$\n0.5\n$$ ```\n0.5\n```", []),
        ("48 epochs of 256 rows, notebook 05, COMFORD 0.1.2", []),
    ],
)
def test_measured_numbers_are_found(markdown, numbers):
    assert typed_numbers(markdown) == numbers


def test_no_measured_number_is_typed_into_a_text(path):
    allowed = DEFINITIONS | DEFINITIONS_IN.get(path.stem, set())
    typed = []
    for markdown in cells(path, "markdown"):
        typed += [number for number in typed_numbers(markdown) if number not in allowed]
    assert typed == [], "fill them in from the results: lib/report/document.py, with_values"


def test_every_definition_is_still_there(path):
    found = set()
    for markdown in cells(path, "markdown"):
        found.update(typed_numbers(markdown))
    assert DEFINITIONS_IN.get(path.stem, set()) <= found


def test_cells_are_short(path):
    too_long = [source.splitlines()[0] for source in cells(path, "code") if len(source.splitlines()) > LONGEST_CODE]
    too_long += [source.splitlines()[0] for source in cells(path, "markdown") if len(source) > LONGEST_TEXT]
    assert too_long == []
