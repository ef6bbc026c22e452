"""Headless Chromium, for the tests of what a reader sees."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, or the one that Playwright installed."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make .venv/.site")
    with api.sync_playwright() as playwright:
        program = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(program).exists():
            pytest.skip("there is no Chromium: apt-get install chromium, or python -m playwright install chromium")
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()
