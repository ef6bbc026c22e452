"""`make site` builds pages whose links lead somewhere, that load without complaint, and that can be searched."""

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from bs4 import BeautifulSoup

from lib.paths import ROOT

pytestmark = pytest.mark.slow
REFERENCES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src"}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, str]:
    """The folder of the pages, and what Sphinx warned of."""
    pytest.importorskip("sphinx", reason="Sphinx is not installed: make .venv/.site")
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--conf-dir", "docs/site", "--doctree-dir", str(folder / "doctrees")]
    finished = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ".", str(folder / "pages")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return folder / "pages", finished.stderr


@pytest.fixture(scope="module")
def documents(built) -> dict[Path, BeautifulSoup]:
    """Every page, by its file. What the theme leaves in `_static` is none."""
    folder, _ = built
    pages = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    return {path: BeautifulSoup(path.read_text(), "html.parser") for path in pages}


@pytest.fixture(scope="module")
def address(built) -> Iterator[str]:
    """Where the pages are served."""
    folder, _ = built

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def local_references(path: Path, document: BeautifulSoup) -> Iterator[tuple[str, Path, str]]:
    """Of each reference of a page to another file of the site: as written, the file, and the place in it."""
    for tag, attribute in REFERENCES.items():
        for element in document.find_all(tag):
            reference = element.get(attribute, "")
            parts = urlsplit(reference)
            if not reference or parts.scheme or parts.netloc:
                continue
            file, fragment = urldefrag(reference)
            target = path.parent / unquote(file.partition("?")[0]) if file else path
            yield reference, target.resolve(), unquote(fragment)


def test_sphinx_warns_of_nothing(built):
    _, warnings = built
    assert warnings == ""


def test_the_site_has_the_notebooks_the_documents_and_the_reference(built, documents):
    folder, _ = built
    pages = {path.relative_to(folder).as_posix() for path in documents}
    assert {"index.html", "README.html", "search.html", "docs/site/api/lib.models.paper.html"} <= pages
    for path in (ROOT / "docs").glob("*.md"):
        assert f"docs/{path.stem}.html" in pages
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        executed = (ROOT / "outputs" / "notebooks" / path.name).exists()
        assert f"{'outputs/' if executed else ''}notebooks/{path.stem}.html" in pages


def test_every_link_and_figure_of_a_page_is_there(documents):
    names = {}
    for path, document in documents.items():
        elements = document.find_all(True)
        names[path.resolve()] = {element.get(key) for key in ("id", "name") for element in elements}
    broken = []
    for path, document in documents.items():
        for reference, target, fragment in local_references(path, document):
            there = target.exists() and (not fragment or target not in names or fragment in names[target])
            if not there:
                broken.append(f"{path.name}: {reference}")
    assert not broken


def test_every_page_loads_without_a_complaint_and_from_nowhere_else(documents, built, address, browser):
    folder, _ = built
    page = browser.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))

    def note_failure(request):
        if request.failure != "net::ERR_ABORTED":  # by the way to the next page
            complaints.append(f"{page.url}: {request.failure} {request.url}")

    def note_message(message):
        if message.type in ("error", "warning"):
            complaints.append(f"{page.url}: {message.text}")

    def note_response(response):
        if response.status >= 400 or not response.url.startswith((address, "data:")):
            complaints.append(f"{page.url}: {response.status} {response.url}")

    page.on("console", note_message)
    page.on("response", note_response)
    page.on("requestfailed", note_failure)
    for path in documents:
        if path == folder / "index.html":
            continue  # it leads to the front page before anything could be asked
        page.goto(f"{address}/{path.relative_to(folder).as_posix()}", wait_until="load")
        empty = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        complaints += [f"{page.url}: empty {source}" for source in empty]
    assert not complaints


def test_formulas_are_set(documents, built, address, browser):
    folder, _ = built
    with_formulas = [path for path, document in documents.items() if document.select(".math")]
    if not with_formulas:
        pytest.skip("no page has a formula")
    page = browser.new_page()
    page.goto(f"{address}/{with_formulas[0].relative_to(folder).as_posix()}")
    page.wait_for_selector("mjx-container", timeout=60_000)


def test_the_search_answers(address, browser):
    page = browser.new_page()
    page.goto(f"{address}/search.html?q=fingerprint")
    page.wait_for_selector("#search-results li a", timeout=60_000)
    page.locator("#search-results li a").first.click()
    page.wait_for_load_state("load")
    assert "search.html" not in page.url
    assert "fingerprint" in page.inner_text("body").lower()


def test_the_first_page_leads_to_the_notebooks(address, browser):
    page = browser.new_page()
    page.goto(f"{address}/index.html")
    page.wait_for_url("**/README.html")
    page.locator("header a", has_text="Notebooks").first.click()
    page.wait_for_url("**/notebooks.html")
    page.locator("article a", has_text="What do the fingerprints look like").first.click()
    page.wait_for_url("**/01_explore_rssi.html")
    assert "fingerprint" in page.inner_text("article").lower()
