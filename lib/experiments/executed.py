"""The executed notebooks of the committed run, made fit to be committed.

`make benchmark` ends with this step on measured data. It writes `outputs/notebooks/NN_name.ipynb`, for reading where
the repository is hosted and in the pages of `make site`. As a command, it does the same for a run that has finished::

    python -m lib.experiments.executed outputs/notebooks/benchmark-auto outputs/notebooks
"""

import argparse
import base64
import io
import re
from pathlib import Path

import nbformat
from PIL import Image

from lib import paths
from lib.paths import replacing

COLOURS = 256  # of a figure's palette
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_REPR = re.compile(r"[A-Za-z]+\(children=")  # what a control prints where no page can show it
INSTEAD = "Controls appear here in a running notebook."
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
TO_PARENT = re.compile(r"\]\(\.\./")  # a link relative to `notebooks/`
OF_THE_RUN = ("papermill", "execution", "widgets")  # metadata: times, paths, states of controls


def publish(built: Path, target: Path) -> list[Path]:
    """Copy the notebooks of a finished run, each without what only its machine needs; others in `target` go.

    Args:
        built: the folder of the executed notebooks. Those of `make search` (`00_*`) are left out.
        target: where the copies go.

    Returns:
        The copies.
    """
    copies = []
    for path in sorted(built.glob("[0-9][0-9]_*.ipynb")):
        unfinished = path.with_suffix("").suffix != ""  # .running, .failed
        if unfinished or path.name.startswith("00_"):
            continue
        copy = target / path.name
        with replacing(copy) as temporary:
            nbformat.write(readable(nbformat.read(path, as_version=4)), temporary)
        copies.append(copy)
    for path in target.glob("*.ipynb"):
        if path not in copies:
            path.unlink()
    return copies


def readable(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook for readers, changed in place.

    What libraries wrote to stderr goes, and with it progress bars. So do times, paths of this machine and the states of
    controls. Figures get a palette. Links relative to `notebooks/` are made relative to `outputs/notebooks/`.
    """
    _forget_run(notebook.metadata)
    for cell in notebook.cells:
        _forget_run(cell.metadata)
        if cell.cell_type == "markdown":
            cell.source = TO_PARENT.sub("](../../", cell.source)
        if cell.cell_type != "code":
            continue
        shown = []
        for output in cell.outputs:
            if output.get("name") == "stderr":
                continue
            if output.output_type == "stream":
                output.text = _without_machine(output.text)
            if "data" in output:
                _tidy(output.data)
            shown.append(output)
        cell.outputs = shown
    return notebook


def _forget_run(metadata: nbformat.NotebookNode) -> None:
    for name in OF_THE_RUN:
        metadata.pop(name, None)


def _tidy(data: nbformat.NotebookNode) -> None:
    """One output in several forms, by MIME type, changed in place."""
    is_control = data.pop(WIDGET, None) is not None
    for name in ("text/plain", "text/html", "text/markdown"):
        if name in data:
            data[name] = _without_machine(data[name])
    if is_control and WIDGET_REPR.match(data.get("text/plain", "")):
        data["text/plain"] = INSTEAD
    if "image/png" in data:
        data["image/png"] = _with_palette(data["image/png"])


def _without_machine(text: str) -> str:
    """Text without the folders of this machine and addresses in its memory."""
    text = text.replace(f"{paths.ROOT}/", "").replace(str(paths.ROOT), ".")
    return ADDRESS.sub("", text.replace(str(Path.home()), "~"))


def _with_palette(encoded: str) -> str:
    """A PNG file with a palette if that is smaller, in base64."""
    original = base64.b64decode(encoded)
    with Image.open(io.BytesIO(original)) as image:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
    quantized = white.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    file = io.BytesIO()
    quantized.save(file, "PNG", optimize=True)
    smaller = min(original, file.getvalue(), key=len)
    return base64.b64encode(smaller).decode()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("built", type=Path, help="folder of the executed notebooks of a finished run")
    parser.add_argument("target", type=Path, help="folder of the copies")
    arguments = parser.parse_args()
    copies = publish(arguments.built, arguments.target)
    size = sum(copy.stat().st_size for copy in copies)
    print(f"{len(copies)} executed notebooks, {size / 1e6:.1f} MB: {arguments.target}")


if __name__ == "__main__":
    main()
