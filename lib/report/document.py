"""Markdown with what was measured: tables and figures in a document, values in the sentences of a conclusion."""

import os
import re
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from pathlib import Path
from string import Formatter

from lib.report.numbers import SENTENCE, number

MARKED = re.compile(
    r"(?P<mark><!-- (?P<kind>table|figure): (?P<name>\w+)(?:, (?P<caption>[^\n]*))? -->)\n.*?<!-- end -->",
    flags=re.DOTALL,
)
FURTHER = re.compile(r"(?P<mark><!-- further -->)\n.*?<!-- end -->", flags=re.DOTALL)


def marks(document: str) -> dict[str, list[str]]:
    """Names of the tables and figures that a document has marks for, by `table` and `figure`."""
    names = {"table": [], "figure": []}
    for match in MARKED.finditer(document):
        names[match["kind"]].append(match["name"])
    return names


def fill(document: str, outputs: Path, folder: Path, elsewhere: Collection[str] = ()) -> str:
    """Fill the marks of a document. What stands between a mark and `<!-- end -->` is replaced.

    `<!-- table: NAME -->` gets the rendered table `tables/NAME.md`, and `<!-- figure: NAME, CAPTION -->` the figure
    `figures/NAME.png`; nothing if there is no such file. `<!-- further -->` gets all figures, and links to all tables,
    that have no mark.

    Args:
        document: Markdown.
        outputs: the folder with `tables` and `figures`.
        folder: where the document lies, from which its links lead.
        elsewhere: names of tables and figures that other documents show.
    """
    links = Path(os.path.relpath(outputs, folder))

    def filled(match: re.Match) -> str:
        content = ""
        if match["kind"] == "table":
            table = outputs / "tables" / f"{match['name']}.md"
            if table.exists():
                content = table.read_text()
        elif (outputs / "figures" / f"{match['name']}.png").exists():
            content = _image(links, match["name"], match["caption"] or match["name"])
        return f"{match['mark']}\n{content}<!-- end -->"

    def further(match: re.Match) -> str:
        named = marks(document)
        shown = {*named["table"], *named["figure"], *elsewhere}
        content = ""
        for path in sorted((outputs / "figures").glob("*.png")):
            if path.stem not in shown:
                content += _image(links, path.stem, path.stem) + "\n"
        for path in sorted((outputs / "tables").glob("*.md")):
            if path.stem not in shown:
                content += f"- Table [{path.stem}]({(links / 'tables' / path.name).as_posix()})\n"
        return f"{match['mark']}\n{content}<!-- end -->"

    return FURTHER.sub(further, MARKED.sub(filled, document))


def _image(links: Path, name: str, caption: str) -> str:
    """A line that shows a figure."""
    return f"![{caption}]({(links / 'figures' / name).as_posix()}.png)\n"


def with_values(text: str, **values: float | str | Sequence[str]) -> str:
    """Markdown with values in the places that the text names, so that no sentence states a number by itself.

    Args:
        text: with a `{name}` for each value.
        values: counts as they are; other numbers with three digits or more; names as `a, b and c`, or `none`.

    Raises:
        ValueError: if the text lacks a place for a value, or a value for a place.
    """
    named = {field for _, field, _, _ in Formatter().parse(text) if field is not None}
    if named != set(values):
        unmatched = ", ".join(sorted(named ^ set(values)))
        raise ValueError(f"text and values must have the same names. Received: {unmatched} in one of them")
    shown = {name: _shown(value) for name, value in values.items()}
    return text.format(**shown)


def _shown(value: float | str | Sequence[str]) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return f"{value:,}"
    if isinstance(value, Real):
        return number(value, SENTENCE)
    *first, last = value or ["none"]
    return f"{', '.join(first)} and {last}" if first else last
