"""How Sphinx builds the site: `make site` reads the repository's own Markdown, executed notebooks and docstrings.

The repository's root is the source folder, so that links between files are links between pages. Nothing is run and
nothing is fetched: notebooks are shown as they were executed, MathJax and fonts are in the packages.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
EXECUTED = ROOT / "outputs" / "notebooks"

# === What it is ===

project = "Unified IoT localization"
author = "The unified-iot-localization authors"
extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
]

# === Which files are pages ===

# A notebook that the committed run did not execute is shown as it is.
not_executed = [path.name for path in (ROOT / "notebooks").glob("*.ipynb") if not (EXECUTED / path.name).exists()]
root_doc = "README"
include_patterns = [
    *("*.md", "docs/*.md", "docs/site/*.md", "docs/site/api/*.rst", "data/README.md", "outputs/tables/*.md"),
    *("outputs/notebooks/*.ipynb", *(f"notebooks/{name}" for name in not_executed)),
]
exclude_patterns = [".*", "outputs/site", "outputs/models", "docs/site/api/modules.rst"]
html_extra_path = ["index.html"]  # leads to the front page

# === How they are read ===

nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "dollarmath", "html_image"]
myst_heading_anchors = 4
apidoc_modules = [
    {
        "path": str(ROOT / "lib"),
        "destination": "docs/site/api",
        "exclude_patterns": [str(ROOT / "lib" / "__main__.py")],
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members", "show-inheritance"},
    }
]
autodoc_member_order = "bysource"
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Environment variables", "params_style")]
default_role = "code"  # single backticks in docstrings
suppress_warnings = ["misc.highlighting_failure"]  # CSV has no lexer

# === How they look ===

html_theme = "pydata_sphinx_theme"
html_title = project
html_favicon = "favicon.svg"
html_context = {"default_mode": "light"}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 4,
    "show_toc_level": 2,
    "show_prev_next": False,
}

LINK_TO_NOTEBOOK = re.compile(r"\]\(((?:\.\./)*)notebooks/(\d\d_\w+\.ipynb)\)")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:]+)\)")
CONTENTS = """
```{toctree}
:hidden:
:glob:

Front page <self>
/docs/report
/docs/site/notebooks
/docs/site/api
/docs/*
/C*
/data/README
```
"""


def as_a_page(app, name: str, source: list[str]) -> None:
    """Change the text of a file where the site needs more than the place where the repository is hosted.

    Args:
        app: Sphinx.
        name: path of the file below the root, without suffix.
        source: its text, the only item; changed in place.
    """
    if name.startswith("docs/site/") or name.startswith(("notebooks/", "outputs/notebooks/")):
        return
    text = LINK_TO_NOTEBOOK.sub(_link_to_executed, source[0])
    folder = (ROOT / name).parent

    def without_folder(match: re.Match) -> str:
        return match[1] if (folder / match[2]).is_dir() else match[0]

    text = LINK.sub(without_folder, text)
    if name == root_doc:
        text += CONTENTS
    if name.startswith("outputs/tables/"):
        title = Path(name).name.replace("_", " ")
        text = f"---\norphan: true\n---\n# Table: {title}\n\n{text}"
    source[0] = text


def _link_to_executed(match: re.Match) -> str:
    if (EXECUTED / match[2]).exists():
        return f"]({match[1]}outputs/notebooks/{match[2]})"
    return match[0]


def setup(app) -> None:
    """What Sphinx calls."""
    app.connect("source-read", as_a_page)
