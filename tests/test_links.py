"""Links of the Markdown files and of the notebooks lead to files, folders and headings that there are."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from lib.paths import ROOT

LINK = re.compile(r"\]\((?![a-z]+:)([^)\s]+)(?: \"[^\"]*\")?\)|<img [^>]*src=\"(?![a-z]+:)([^\"]+)\"")
FENCE = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
HEADING = re.compile(r"^#+ (.+)$", flags=re.MULTILINE)


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def text_of(path: Path) -> str:
    """The Markdown of a file, without blocks of code."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return FENCE.sub("", text)


def anchors(path: Path) -> set[str]:
    """What a link can name in a file after the #, by GitHub's rule."""
    headings = HEADING.findall(text_of(path))
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in words}


@pytest.mark.parametrize("path", [*tracked("*.md"), *tracked("*.ipynb")], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for match in LINK.finditer(CODE.sub("", text_of(path))):
        link = unquote(match[1] or match[2])
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if anchor and target.suffix in (".md", ".ipynb"):
            assert anchor in anchors(target), link


@pytest.mark.parametrize(
    ("text", "links"), [("[a](b.md#c)", ["b.md#c"]), ("![a](b.png)", ["b.png"]), ("[a](https://b)", [])]
)
def test_what_a_link_is(text, links):
    assert [match[1] or match[2] for match in LINK.finditer(text)] == links
