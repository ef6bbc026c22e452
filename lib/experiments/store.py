"""The store of runs: each kept whole in a folder of its own, under a digest of all that decides it.

Comments, docstrings and layout of the code do not count. A run that was killed leaves nothing.
"""

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib import THREADS
from lib.data.fingerprints import FingerprintSet
from lib.models import registry
from lib.models.estimator import Estimator, Located

VERSIONS = ("keras", "tensorflow", "numpy", "scipy", "scikit-learn", "lightgbm")  # of packages that decide a run


@dataclass(frozen=True)
class Run:
    """What a run leaves.

    Attributes:
        folder: where it is kept.
        model: a key of `registry.REGISTRY`.
        located: for each protocol, where the rows of its part were located.
        curves: one row an epoch, see `training.fit`; no rows for what is not trained in epochs.
        n_train: for each protocol, how many rows were learnt from.
        seconds: of CPU time, that the fit took.
        predict_us: microseconds of CPU time to locate one row.
    """

    folder: Path
    model: str
    located: list[Located]
    curves: pd.DataFrame
    n_train: list[int]
    seconds: float
    predict_us: float

    def estimator(self) -> Estimator:
        """The fitted estimator, read from its files.

        Raises:
            FileNotFoundError: if this kind has no files.
        """
        return _load_estimator(self.model, self.folder)


def _load_estimator(model: str, folder: Path) -> Estimator:
    kept = folder / "estimator"
    if not kept.exists():
        raise FileNotFoundError(f"{kept} does not exist: {model} has no files")
    return registry.entry(model).factory.load(kept)


def log(name: str, seconds: float, what: str) -> None:
    """Append a run to the file that TRAINING_LOG names, by which the run of a notebook counts them.

    Args:
        name: of the run.
        seconds: of CPU time, that its fit took, now or when it was done.
        what: `trained` or `recalled`.
    """
    path = os.environ.get("TRAINING_LOG")
    if path:
        with open(path, "a") as file:  # one short write, so that lines of several processes do not mix
            file.write(f"{what},{seconds:.2f},{name}\n")


def kept_key(folder: Path) -> str:
    return json.loads((folder / "run.json").read_text())["key"]


def _parted(located: Located, counts: Sequence[int]) -> list[Located]:
    """The rows of several protocols, one after another → those of each."""
    ends = np.cumsum(counts)
    return [located[end - count : end] for count, end in zip(counts, ends, strict=True)]


def recall(folder: Path, key: str, model: str, counts: Sequence[int]) -> Run | None:
    """The run that was kept in a folder under this very key; None where there is none."""
    description = folder / "run.json"
    if not description.exists():
        return None
    kept = json.loads(description.read_text())
    if kept["key"] != key:
        return None
    with np.load(folder / "located.npz") as file:
        located = Located(**{name: file[name] for name in file.files})
    curves = pd.read_csv(folder / "curves.csv", dtype={"epoch": np.int64})
    n_train, seconds, predict_us = kept["n_train"], kept["seconds"], kept["predict_us"]
    return Run(folder, model, _parted(located, counts), curves, n_train, seconds, predict_us)


def keep(
    folder: Path,
    key: str,
    model: str,
    estimator: Estimator,
    located: Located,
    counts: Sequence[int],
    seconds: float,
    predict_us: float,
) -> Run:
    """Write a run beside its place and move it there whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        complete = Path(scratch) / "run"
        complete.mkdir()
        if estimator.has_files:
            (complete / "estimator").mkdir()
            estimator.save(complete / "estimator")
        estimator.curves.to_csv(complete / "curves.csv", index=False)
        np.savez_compressed(complete / "located.npz", **located.arrays())
        n_train = [int(count) for count in estimator.n_train]
        kept = {"key": key, "n_train": n_train, "seconds": seconds, "predict_us": predict_us}
        (complete / "run.json").write_text(json.dumps(kept, indent=2) + "\n")
        if folder.is_dir():
            with contextlib.suppress(FileNotFoundError):  # another process just did
                folder.rename(Path(scratch) / "replaced")
        try:
            complete.rename(folder)
        except OSError:
            if kept_key(folder) != key:  # else another process finished the same run at this very moment
                raise
    return Run(folder, model, _parted(located, counts), estimator.curves, n_train, seconds, predict_us)


def digest(decisive: list, learnt: Sequence[FingerprintSet], asked: Sequence[FingerprintSet], module: str) -> str:
    """Of all that decides a run.

    Args:
        decisive: model, seed and settings, for JSON; what is no JSON counts by its name.
        learnt: the rows to learn from, with positions and labels.
        asked: the rows to locate, of which only the RSSI counts.
        module: of the estimator; it and all of lib that it imports take part.
    """
    versions = {name: importlib.metadata.version(name) for name in VERSIONS}
    backend = os.environ["KERAS_BACKEND"]
    words = [decisive, versions, backend, THREADS, _code(module)]
    summed = hashlib.sha256(json.dumps(words, sort_keys=True, default=_named).encode())
    for rows in learnt:
        summed.update(f"{rows.name} {rows.not_heard} {rows.transmitters}".encode())
        _add(summed, [rows.rssi, rows.position, rows.building, rows.floor, rows.group])
    for rows in asked:
        summed.update(f"{rows.transmitters}".encode())
        _add(summed, [rows.rssi])
    return summed.hexdigest()


def _named(thing) -> str:
    return getattr(thing, "__qualname__", str(thing))


def _add(summed, arrays: Iterable[np.ndarray | None]) -> None:
    """Add arrays to a checksum, and where one is absent, that."""
    for array in arrays:
        if array is None:
            summed.update(b"absent")
            continue
        if array.dtype == object:
            array = array.astype(str)
        summed.update(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes())


# === The code that takes part ===


def code_digest(module: str) -> str:
    """Of a module and all of lib that it imports, directly or not, as parsed: without comments, docstrings, layout."""
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        imports, seen[name] = _parsed(Path(importlib.import_module(name).__file__).read_text())
        waiting += imports
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()


@functools.cache  # estimators have most of what they import in common
def _parsed(text: str) -> tuple[list[str], str]:
    """The modules of lib that a module's text imports, and what it says without comments, docstrings and layout."""
    tree = ast.parse(text)
    return _imports(tree), ast.dump(_without_docstrings(tree))


def _imports(tree: ast.AST) -> list[str]:
    """The modules of lib that a module imports."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lib":
            names.append(node.module)
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                if importlib.util.find_spec(node.module).submodule_search_locations and _is_module(submodule):
                    names.append(submodule)
    return names


def _is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
            continue
        if isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
            node.body = body[1:]
    return tree


CODE = {module: code_digest(module) for module in {entry.factory.__module__ for entry in registry.REGISTRY.values()}}


def _code(module: str) -> str:
    """The digest of an estimator's module as imported; of one that was registered later, as it is now."""
    if module not in CODE:
        CODE[module] = code_digest(module)
    return CODE[module]
