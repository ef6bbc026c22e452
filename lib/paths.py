"""Where data and outputs live. Every path in the project comes from here.

Environment variables:
    DATA: `auto` (default: measured data where it can be had, else the simulator), `real` or `simulated`.
    LORAWAN: `subset` (default: the messages heard by at least three gateways, as in the committed results) or `full`
        (all messages).
    PROFILE: the set of parameters that a run uses, one of `notebooks/settings.yaml`. Unset means `lab`: somebody
        explores by hand, and nothing that they do may touch the committed outputs.
    FINGERPRINT_DATA: one more folder in which to look for the publishers' files.
    FINGERPRINT_OUTPUTS: a folder that takes the place of `outputs/`.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RAW = ROOT / "data" / "raw"
COMMITTED = "benchmark"  # the profile whose results, on measured data, are the committed ones
DATA_MODES = ("auto", "real", "simulated")
LORAWAN_RELEASES = ("subset", "full")


def _chosen(variable: str, values: tuple[str, ...]) -> str:
    """The value of an environment variable that takes one of some; the first is the default."""
    value = os.environ.get(variable, values[0])
    if value not in values:
        raise ValueError(f"{variable} must be one of {', '.join(values)}. Received: {variable}={value}")
    return value


def data_mode() -> str:
    """The value of `DATA`.

    Raises:
        ValueError: if it is none of `DATA_MODES`.
    """
    return _chosen("DATA", DATA_MODES)


def lorawan_release() -> str:
    """The value of `LORAWAN`.

    Raises:
        ValueError: if it is none of `LORAWAN_RELEASES`.
    """
    return _chosen("LORAWAN", LORAWAN_RELEASES)


def data_settings() -> dict[str, str]:
    """By environment variable, which data a run is on: what all processes of a run must share."""
    return {"DATA": data_mode(), "LORAWAN": lorawan_release()}


def data_folders() -> list[Path]:
    """Folders in which the publishers' files are looked for, in that order."""
    named = os.environ.get("FINGERPRINT_DATA")
    return [RAW, *([Path(named)] if named else []), ROOT.parent / "shared" / "data"]


@dataclass(frozen=True)
class Workspace:
    """The folders that one run writes to; they are made with it.

    Attributes:
        outputs: the folder above all others.
    """

    outputs: Path

    def __post_init__(self):
        for folder in (self.figures, self.tables, self.results, self.errors, self.models):
            folder.mkdir(parents=True, exist_ok=True)

    figures = property(lambda self: self.outputs / "figures")
    tables = property(lambda self: self.outputs / "tables")
    results = property(lambda self: self.outputs / "results")
    errors = property(lambda self: self.results / "errors")  # of every row: large, so not committed
    models = property(lambda self: self.outputs / "models")  # finished runs: an interrupted notebook continues


def workspace(simulated: bool) -> Workspace:
    """The folders of this run.

    Only `make benchmark` on measured data gets `outputs/` itself, which is committed; with LORAWAN=full it does not.
    """
    profile = os.environ.get("PROFILE", "lab")
    outputs = Path(os.environ.get("FINGERPRINT_OUTPUTS", ROOT / "outputs"))
    all_messages = not simulated and lorawan_release() == "full"
    if profile != COMMITTED or simulated or all_messages:
        outputs = outputs / profile
    if simulated:
        outputs = outputs / "simulated"
    if all_messages:
        outputs = outputs / "lorawan_full"
    return Workspace(outputs)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its place when the block ends well, and vanishes when it does not.

    The suffix is kept, because libraries choose a format by it. So a half-written file is never taken for a result.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".writing-", suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(target: Path) -> None:
    """Raise OSError if nothing can be written at `target`, before hours of work are lost by that."""
    folder = target.parent
    while not folder.exists():
        folder = folder.parent
    try:
        tempfile.TemporaryDirectory(dir=folder, prefix=".writing-").cleanup()
    except OSError as problem:
        raise OSError(f"{target}: expected a place that can be written to. {folder}: {problem.strerror}") from problem
