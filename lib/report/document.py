"""Markdown with what was measured: rendered tables in a document, values in the sentences of a conclusion.

`python -m lib.report.document README.md` puts the tables into the front page.
"""

import argparse
import re
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from string import Formatter

from lib.paths import ROOT, replacing

MARKED = re.compile(r"(?P<mark><!-- table: (?P<name>\w+) -->)\n.*?<!-- end -->", flags=re.DOTALL)


def fill(document: str, tables: Path) -> str:
    """Replace what stands between `<!-- table: NAME -->` and `<!-- end -->` by the rendered table `NAME.md`.

    Args:
        document: Markdown.
        tables: the folder with the rendered tables.

    Raises:
        FileNotFoundError: if a table that the document names does not exist.
    """

    def filled(match: re.Match) -> str:
        table = tables / f"{match['name']}.md"
        return f"{match['mark']}\n{table.read_text()}<!-- end -->"

    return MARKED.sub(filled, document)


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
        digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
        return f"{value:,.{digits}f}"
    *first, last = value or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def main() -> None:
    """Put the tables below outputs/tables into a document, each between `<!-- table: NAME -->` and `<!-- end -->`."""
    parser = argparse.ArgumentParser(prog="python -m lib.report.document", description=main.__doc__)
    parser.add_argument("document", type=Path, help="Markdown that has such marks, README.md for instance")
    document = parser.parse_args().document
    text = fill(document.read_text(), ROOT / "outputs" / "tables")
    with replacing(document) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    main()
