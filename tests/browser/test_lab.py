"""Notebooks 01 and 08 run in JupyterLab from top to bottom, and their controls change what is shown."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import papermill
import pytest
import yaml

from lib.paths import ROOT

pytestmark = pytest.mark.slow
NOTEBOOKS = ("01_explore_rssi", "08_use_localizer")
PROFILES = yaml.safe_load((ROOT / "notebooks" / "settings.yaml").read_text())["profiles"]
MINUTES = 60_000  # in milliseconds
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight are in the page, too
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
FAILED = '[data-mime-type="application/vnd.jupyter.error"]'
STARTED = r"""
() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].some(prompt => /\[[*\d]/.test(prompt.textContent))
"""
FINISHED = f"""
() => document.querySelectorAll('{FAILED}').length > 0
    || [...document.querySelectorAll('.jp-CodeCell')].every(
        cell => /\\[\\d+\\]/.test(cell.querySelector('.jp-InputPrompt').textContent))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that has copies of the notebooks with smoke parameters."""
    folder = tmp_path_factory.mktemp("lab")
    for name in NOTEBOOKS:
        values = PROFILES["smoke"].get("notebooks", {}).get(name, {})
        source, copy = ROOT / "notebooks" / f"{name}.ipynb", folder / f"{name}.ipynb"
        papermill.execute_notebook(source, copy, values, prepare_only=True, progress_bar=False)
    for name, values in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    options += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"]
    chosen = {
        **{"DATA": "simulated", "PROFILE": "smoke", "PYTHONPATH": str(ROOT)},
        **{"FINGERPRINT_OUTPUTS": str(folder / "outputs"), "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")},
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
    }
    with (folder / "lab.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=folder,
            env=os.environ | chosen,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/api", folder / "lab.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def run_all(browser, lab: str, name: str):
    """The page of a notebook of which all cells have run."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{lab}/lab/tree/{name}.ipynb?reset")
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=3 * MINUTES)
    deadline = time.monotonic() + 120
    while not page.evaluate(STARTED):  # a kernel that is not connected yet runs nothing
        assert time.monotonic() < deadline, "no cell was run"
        page.keyboard.press("Escape")
        page.locator(".lm-MenuBar-item", has_text=re.compile(r"^Run$")).click()
        page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
        page.wait_for_timeout(5000)
    page.wait_for_function(FINISHED, timeout=20 * MINUTES)
    failed = page.locator(FAILED)
    assert failed.count() == 0, failed.first.inner_text()
    return page


def figures(cell) -> list[str]:
    """What the figures below a cell show."""
    return [image.get_attribute("src") for image in cell.locator("img").all()]


def wait_for_change(cell, before: list[str]) -> None:
    deadline = time.monotonic() + 120
    while figures(cell) == before:
        assert time.monotonic() < deadline, "the figure stays the same"
        time.sleep(0.5)


def test_another_transmitter_gets_another_histogram(browser, lab):
    page = run_all(browser, lab, "01_explore_rssi")
    cell = page.locator(".jp-CodeCell", has=page.locator(".widget-dropdown"))
    before = figures(cell)
    assert len(before) == 1
    cell.locator("select").nth(1).select_option(index=3)
    wait_for_change(cell, before)


def test_every_slider_of_the_localizer_changes_its_figure(browser, lab):
    page = run_all(browser, lab, "08_use_localizer")
    cells = page.locator(".jp-CodeCell", has=page.locator(".widget-slider")).all()
    assert cells
    for cell in cells:
        before = figures(cell)
        for handle in cell.locator(".noUi-handle").all():
            handle.focus()
            for _ in range(3):
                handle.press("ArrowRight")
        wait_for_change(cell, before)
