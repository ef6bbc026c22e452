"""Runs notebooks by nbval, for the tests of notebooks."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import yaml

from lib.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROFILES = {
    name: profile.get("notebooks", {})
    for name, profile in yaml.safe_load((ROOT / "notebooks" / "settings.yaml").read_text())["profiles"].items()
}
OF_BENCHMARK = ("01", "03", "04", "05", "06", "07")  # notebooks that the benchmark needs
SEARCHES = ("00",)
NBVAL = ("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600", "-p", "no:cacheprovider", "-q")


def tags(cell) -> list[str]:
    return cell["metadata"].get("tags", [])


def environment(outputs: Path) -> dict[str, str]:
    chosen = {"DATA": "simulated", "PROFILE": "smoke", "FINGERPRINT_OUTPUTS": str(outputs), "PYTHONPATH": str(ROOT)}
    return os.environ | chosen


def run_nbval(notebooks: list[Path], outputs: Path, **variables) -> subprocess.CompletedProcess:
    """Run notebooks in this order, with one worker for all of them: what it compiled once serves the next, too."""
    nbval = [sys.executable, "-m", "pytest", *NBVAL, "--rootdir", str(notebooks[0].parent), *map(str, notebooks)]
    return subprocess.run(
        [sys.executable, "-m", "lib.experiments.workers", "--workers", "1", *nbval],
        cwd=ROOT,
        env=environment(outputs) | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def prepared(folder: Path, parameters: dict[str, dict]) -> list[Path]:
    """Copies of the notebooks with other parameters, in an order in which each finds what it reads."""
    for path in NOTEBOOKS:
        values = parameters.get(path.stem, {})
        copy = papermill.execute_notebook(path, None, values, prepare_only=True, progress_bar=False)
        for cell in copy["cells"]:
            if "keep_output" in tags(cell):
                cell["execution_count"] = 1  # without one, nbval takes the kept output for a mistake
        nbformat.write(copy, folder / path.name)
    return sorted(folder.glob("*.ipynb"))
