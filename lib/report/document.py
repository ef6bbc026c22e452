"""Puts the rendered tables into a Markdown document: `python -m lib.report.document README.md`."""

import argparse
import re
from pathlib import Path

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
