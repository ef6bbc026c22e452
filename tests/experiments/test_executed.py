"""Executed notebooks are copied without what only their machine needs; the committed ones are such copies."""

import base64
import io
import json
import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image, ImageChops

from lib.experiments import executed
from lib.paths import ROOT

LIMIT = 8_000_000  # bytes, of all committed notebooks together
COMMITTED = sorted((ROOT / "outputs" / "notebooks").glob("*.ipynb"))
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
ABSOLUTE = re.compile(r"(?<![\w.:/~])/(?:home|root|Users|work|tmp|mnt|opt|var)/\w")


@pytest.fixture
def figure() -> str:
    """A PNG file of 200 × 100 pixels with an alpha channel and 201 colours, in base64."""
    image = Image.new("RGBA", (200, 100), (10, 120, 140, 255))
    for x in range(200):
        for y in range(100):
            level = (x * x + y * y) % 200
            image.putpixel((x, y), (level, 0, 255 - level, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def notebook(figure) -> nbformat.NotebookNode:
    """An executed notebook with everything that is not to be committed."""
    new = nbformat.v4
    outputs = [
        new.new_output("stream", name="stderr", text="trainings: 0%|"),
        new.new_output("stream", name="stdout", text=f"wrote {ROOT}/outputs/a.csv and {Path.home()}/b.csv"),
        new.new_output("display_data", {"image/png": figure, "text/plain": "<Figure at 0x7f00>"}),
        new.new_output("display_data", {executed.WIDGET: {"model_id": "a"}, "text/plain": "interactive(children=())"}),
        new.new_output("display_data", {executed.WIDGET: {"model_id": "b"}, "text/plain": "Choose here."}),
    ]
    code = new.new_code_cell("1", outputs=outputs, execution_count=1, metadata={"papermill": {}, "execution": {}})
    text = new.new_markdown_cell("[a](../lib/paths.py) [b](02_preprocess.ipynb)")
    metadata = {"papermill": {"output_path": str(ROOT)}, "widgets": {"state": {}}, "kernelspec": KERNEL}
    return new.new_notebook(cells=[text, code], metadata=metadata)


def test_what_only_the_machine_needs_goes(notebook):
    readable = executed.readable(notebook)
    text, code = readable.cells
    assert text.source == "[a](../../lib/paths.py) [b](02_preprocess.ipynb)"
    assert readable.metadata == {"kernelspec": KERNEL}
    assert code.metadata == {}
    assert code.execution_count == 1
    printed, figure, control, described = code.outputs
    assert printed.text == "wrote outputs/a.csv and ~/b.csv"
    assert figure.data["text/plain"] == "<Figure>"
    assert control.data == {"text/plain": executed.INSTEAD}
    assert described.data == {"text/plain": "Choose here."}


def test_a_figure_becomes_smaller_and_looks_the_same(figure):
    def opened(encoded):
        return Image.open(io.BytesIO(base64.b64decode(encoded)))

    smaller = executed._with_palette(figure)
    assert len(smaller) < len(figure)
    before, after = opened(figure).convert("RGB"), opened(smaller).convert("RGB")
    assert after.size == before.size
    assert after.getpixel((0, 0)) == (255, 255, 255), "what is transparent is seen on white"
    difference = ImageChops.difference(before, after).crop((1, 0, 200, 100))
    assert max(level for _, level in difference.getextrema()) <= 8, "of 255"


def test_only_finished_notebooks_of_the_run_are_copied(notebook, tmp_path):
    built, target = tmp_path / "built", tmp_path / "target"
    built.mkdir()
    target.mkdir()
    for name in ("00_search", "01_a", "02_b", "02_b.failed", "03_c.running"):
        nbformat.write(notebook, built / f"{name}.ipynb")
    (target / "09_earlier.ipynb").touch()
    copies = executed.publish(built, target)
    assert [copy.name for copy in copies] == ["01_a.ipynb", "02_b.ipynb"]
    assert sorted(target.iterdir()) == copies
    first = copies[0].read_text()
    executed.publish(built, target)
    assert copies[0].read_text() == first


# === The committed ones ===


def test_committed_notebooks_are_of_the_committed_run():
    run = json.loads((ROOT / "outputs" / "results" / "provenance.json").read_text())
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    names = {record["notebook"] for record in run["notebooks"]}
    copies = {path.stem for path in COMMITTED}
    assert copies <= notebooks
    if copies:
        assert copies == names & notebooks
    assert sum(path.stat().st_size for path in COMMITTED) <= LIMIT


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_notebooks_are_executed_and_name_no_machine(path):
    copy = nbformat.read(path, as_version=4)
    cells = [cell for cell in copy.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in cells)
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            shown = [output.get("text", ""), *map(str, output.get("data", {}).values())]
            for text in shown:
                assert not ABSOLUTE.search(text), text[:200]
    text = path.read_text()
    assert "papermill" not in copy.metadata
    assert str(Path.home()) not in text
