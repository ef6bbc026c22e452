"""One experiment is a cell: a model, the rows it learns from, a seed. Here is what each model of the benchmark does.

A cell's only memory is `training.keep`: done again with the same data, settings and code, it is recalled.
"""

import ast
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import yaml

from lib import baseline_networks, baselines, datasets, models, paths, preprocess, results, splits, training, unified
from lib.fingerprints import joined
from lib.paths import Workspace
from lib.preprocess import PARTS, ProcessedSet, unify

NOTEBOOKS = paths.ROOT / "notebooks"
PAIRS = list(zip(*splits.PROTOCOLS.values(), strict=True))
ENVIRONMENTS = {protocol: name for name, protocols in splits.PROTOCOLS.items() for protocol in protocols}
PASSES = 0.75  # an epoch passes over the chosen rows share^-0.75 times
ANOTHER_SEED = 1000  # what a source in the target's own environment has beyond the target's seed


@dataclass(frozen=True)
class Localizer:
    """How a localizer of notebooks 03 and 06 comes to be.

    Attributes:
        source: the model that gives its base model; None starts from scratch.
        own_environment: whether the source learnt in the target's environment, or in the other one of the pair.
        frozen: whether the base model stays as it was given.
        longer: whether it also makes the updates that a source would have made.
        constant: whether the learning rate stays what it is, to see convergence.
        spoilt: `labels` puts the training positions into a random order; `scans` also draws each transmitter's levels
            from another row, so that nothing is left to learn but how often they occur.
    """

    source: str | None = None
    own_environment: bool = False
    frozen: bool = False
    longer: bool = False
    constant: bool = False
    spoilt: str | None = None


LOCALIZERS = {
    "encoder_scratch": Localizer(),
    "encoder_tl": Localizer("encoder_scratch"),
    "encoder_scratch_constant": Localizer(constant=True),
    "encoder_tl_constant": Localizer("encoder_scratch", constant=True),
    "encoder_tl_frozen": Localizer("encoder_scratch", frozen=True),
    "encoder_tl_own": Localizer("encoder_scratch", own_environment=True),
    "encoder_tl_labels": Localizer("source_labels"),
    "encoder_tl_scans": Localizer("source_scans"),
    "encoder_scratch_longer": Localizer(longer=True),
    "source_labels": Localizer(spoilt="labels"),
    "source_scans": Localizer(spoilt="scans"),
}
TOGETHER = ("umlp", "unified")  # learn several environments at once
COMPARATORS = baselines.BASELINES | baseline_networks.NETWORKS
SEARCHED = baselines.SEARCHED | baseline_networks.SEARCHED  # settings, of which notebook 00 shows the errors
_CODE = {  # what decides the run of a comparator beside its rows, as imported
    name: b"".join(Path(module.__file__).read_bytes() for module in (*modules, preprocess))
    for part, modules in ((baselines.BASELINES, [baselines]), (baseline_networks.NETWORKS, [baseline_networks, models]))
    for name in part
}


@dataclass(frozen=True)
class Cell:
    """One training: on one protocol, or of a unified network on several. Without a seed where nothing is random.

    Raises:
        ValueError: if the share is not in (0, 1], or the model knows nothing of shares or of validating.
    """

    model: str
    protocols: tuple[str, ...]
    seed: int | None
    share: float = 1.0
    validates: bool = False  # whether it predicts the validation rows, and learns from none of them

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"`share` must be above 0 and at most 1. Received: {self.share}")
        others = self.model in LOCALIZERS or self.model in COMPARATORS or self.model == "umlp"
        if self.validates and others:
            raise ValueError(f"only unified networks validate. Received: {self.model}")
        if self.share < 1 and not others:
            raise ValueError(f"unified networks learn from all rows. Received: share={self.share} of {self.model}")

    @property
    def name(self) -> str:
        """The folder of its run: with all rows, that of notebook 03 or 04."""
        words = [self.model, *self.protocols, *(["validation"] if self.validates else [])]
        if self.model in LOCALIZERS or self.model in COMPARATORS:
            words = [ENVIRONMENTS[self.protocols[0]], *self.protocols, self.model]
        seed = "" if self.seed is None else f"-s{self.seed}"
        return "-".join([*words, *([f"{self.share:g}"] if self.share < 1 else [])]) + seed

    @property
    def source(self) -> "Cell | None":
        """Whose base model it starts from: it learnt from all rows, and with the same seed in the other environment."""
        if self.model not in LOCALIZERS or (how := LOCALIZERS[self.model]).source is None:
            return None
        if how.own_environment:
            return Cell(how.source, self.protocols, self.seed + ANOTHER_SEED)
        return Cell(how.source, (partner(self.protocols[0]),), self.seed)


def partner(protocol: str) -> str:
    """The protocol of the other environment that goes with it."""
    (pair,) = [pair for pair in PAIRS if protocol in pair]
    return pair[pair.index(protocol) - 1]


def cells(
    models: Sequence[str], protocols: Sequence[str], seeds: Sequence[int], shares: Sequence[float] = (1.0,)
) -> list[Cell]:
    """Every combination that there is.

    The unified networks take each pair of which at least one protocol is among `protocols`; what needs floors is left
    out outdoors, and what is not random has one cell in the place of one a seed.
    """
    return [
        Cell(model, group, seed, share)
        for model in models
        for group in (PAIRS if model in TOGETHER else [(protocol,) for protocol in ENVIRONMENTS])
        if not set(group).isdisjoint(protocols)
        and (model not in baseline_networks.INDOORS_ONLY or ENVIRONMENTS[group[0]] == "ujiindoorloc")
        for seed, share in itertools.product([None] if model in baselines.SEEDLESS else seeds, shares)
    ]


# === Settings ===


def profile(name: str) -> dict:
    """What this run's profile gives a notebook or the sweep."""
    profiles = yaml.safe_load((NOTEBOOKS / "profiles.yaml").read_text())
    return profiles.get(os.environ.get("PROFILE", "lab"), {}).get(name, {})


def parameters(notebook: str) -> dict:
    """The parameters of a notebook, those of the profile in their place."""
    import papermill  # takes seconds, which every worker would wait for, and none asks

    known = papermill.inspect_notebook(NOTEBOOKS / f"{notebook}.ipynb")
    return {name: ast.literal_eval(about["default"]) for name, about in known.items()} | profile(notebook)


def settings() -> dict[str, dict]:
    """What the localizer of an environment and `umlp` are trained with: as in notebooks 03 and 04."""
    transfer, unified = parameters("03_transfer_learning"), parameters("04_umlp")
    common = {"config": "CONFIG", "dropout": "DROPOUT", "learning_rate": "LEARNING_RATE"}
    localizer, umlp = ({name: known[key] for name, key in common.items()} for known in (transfer, unified))
    return {
        name: localizer | {"epochs": transfer["EPOCHS"][name], "batch_size": transfer["BATCH_SIZES"][name]}
        for name in splits.PROTOCOLS
    } | {"umlp": umlp | {"epochs": unified["EPOCHS"], "batch_size": unified["BATCH_SIZE"]}}


# === One cell ===


def subset(groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Row numbers, ascending, of a random share of each group: with the same seed, part of every larger share."""
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(groups == group)) for group in np.unique(groups)]
    return np.sort(np.concatenate([rows[: max(1, round(share * len(rows)))] for rows in shuffled]))


def processed(protocol: str, workspace: Workspace) -> ProcessedSet:
    """What notebook 02 made for a protocol."""
    return ProcessedSet.load(workspace.processed / f"{ENVIRONMENTS[protocol]}-{protocol}.npz")


def spoil(data: ProcessedSet, what: str, seed: int) -> ProcessedSet:
    """Training rows from which no position can be learnt, see `Localizer.spoilt`."""
    rng, rows = np.random.default_rng(seed), data.split.train
    position, x = data.position.copy(), data.x.copy()
    position[rows] = position[rng.permutation(rows)]
    if what == "scans":
        x[rows] = rng.permuted(x[rows], axis=0)
    return replace(data, position=position, x=x)


def _updates(data: ProcessedSet, how: dict) -> int:
    """How many batches a localizer's training takes."""
    return how["epochs"] * -(-len(data.split.train) // how["batch_size"])


def train(cell: Cell, settings: dict, workspace: Workspace) -> tuple[training.Run, list[ProcessedSet], int]:
    """The run of a cell of the paper's networks, the sets it is about, and how many rows of each it learnt from.

    An epoch passes over the chosen rows several times, the more the fewer they are: one pass would be hardly an update
    of the weights, and 1 / share passes would take as long as all rows do.
    """
    sets = [processed(protocol, workspace) for protocol in cell.protocols]
    folder, passes = workspace.models / cell.name, round(cell.share**-PASSES)
    if cell.model == "umlp":
        parts = unify(*sets)
        rows = subset(parts["train"][1]["environment"][:, 0], cell.share, cell.seed)
        run = training.train_umlp(parts, folder, cell.seed, rows=np.tile(rows, passes), **settings["umlp"])
        return run, sets, len(rows) // 2
    (data,), kind = sets, LOCALIZERS[cell.model]
    rows = subset(np.zeros(len(data.split.train)), cell.share, cell.seed)
    how = settings[data.environment] | {"source": train(cell.source, settings, workspace)[0] if cell.source else None}
    how |= settings["constant"] if kind.constant else {}
    if kind.longer:
        other = processed(partner(data.protocol), workspace)
        steps = _updates(data, how) / how["epochs"]
        how["epochs"] += round(_updates(other, settings[other.environment]) / steps)
    given = spoil(data, kind.spoilt, cell.seed) if kind.spoilt else data
    run = training.train_localizer(given, folder, cell.seed, rows=np.tile(rows, passes), frozen=kind.frozen, **how)
    return run, sets, len(rows)


@cache
def _fingerprints(environment: str):
    return datasets.load(environment)


def compare(cell: Cell, settings: dict, workspace: Workspace) -> tuple[training.Run, ProcessedSet, int]:
    """The run of a comparator, the set it is about, and how many rows it learnt from.

    Its predictions are in metres, with buildings and floors where it has them.
    """
    data = processed(cell.protocols[0], workspace)
    rows = _fingerprints(data.environment)[data.rows]
    train, validation, test = (rows[getattr(data.split, part)] for part in PARTS)
    if cell.share < 1:
        train = train[subset(np.zeros(len(train)), cell.share, cell.seed or 0)]
    how = settings["comparators"].get(cell.model, {})
    fields = [
        getattr(part, field) for part in (train, validation) for field in ("rssi", "position", "building", "floor")
    ]
    arrays = [field for field in (*fields, test.rssi) if field is not None]
    about = [cell.model, cell.seed, how, sklearn.__version__, version("lightgbm")]
    key = training.digest(about, arrays, _CODE[cell.model])
    folder = workspace.models / cell.name
    if (run := training.recall(folder, key)) is None:
        model = COMPARATORS[cell.model](**how)
        started = time.perf_counter()
        model.fit(train, validation, cell.seed or 0)
        trained = time.perf_counter()
        predicted = model.predict(test.rssi)
        predict_us = (time.perf_counter() - trained) / len(test) * 1e6
        curves = pd.DataFrame({"epoch": np.arange(1, getattr(model, "epochs_run", 0) + 1)})
        run = training.Run(None, curves, predicted, trained - started, predict_us)
        training.keep(folder, key, run)
    n_train = len(train) + (len(validation) if cell.model in baselines.BASELINES else 0)
    return run, data, n_train


def train_unified(
    cell: Cell, settings: dict, workspace: Workspace
) -> tuple[training.Run, list[ProcessedSet], list[int]]:
    """The run of a unified network, the sets it is about, and how many rows of each it learnt from.

    It chooses nothing on validation rows, so it learns from them, too, unless the cell is there to validate. Settings
    are those of `unified.train` by the cell's model; `grids`, `augmentations` and `neighbours` are by protocol.
    """
    sets = [processed(protocol, workspace) for protocol in cell.protocols]
    parts = [[_fingerprints(data.environment)[data.rows[getattr(data.split, part)]] for part in PARTS] for data in sets]
    how = dict(settings[cell.model])
    learning = [train if cell.validates else joined(train, validation) for train, validation, _ in parts]
    predicted = [validation if cell.validates else test for _, validation, test in parts]
    for what, otherwise in {"grids": {}, "augmentations": {}, "neighbours": None}.items():
        how[what] = [how.get(what, {}).get(protocol, otherwise) for protocol in cell.protocols]
    run = unified.train(learning, predicted, workspace.models / cell.name, cell.seed, **how)
    return run, sets, list(map(len, learning))


def _hits(data: ProcessedSet, predicted: dict[str, np.ndarray], part: str = "test") -> dict:
    """How often building and floor were right, and (n,) whether all of them were, where they were predicted."""
    if "floor" not in predicted:
        return {}
    rows = _fingerprints(data.environment)[data.rows[getattr(data.split, part)]]
    if rows.floor is None:
        return {}
    right = {field: predicted[field] == getattr(rows, field) for field in ("building", "floor")}
    hits = {f"{field}_hit": float(hit.mean()) for field, hit in right.items()}
    return hits | {"right_place": right["building"] & right["floor"]}


def result_rows(cell: Cell, settings: dict, workspace: Workspace) -> list[dict]:
    """A result row, with its `share`, for each set that the cell is about."""
    part = "validation" if cell.validates else "test"
    if cell.model in COMPARATORS:
        run, data, n_train = compare(cell, settings, workspace)
        sets, counts, outputs = [data], [n_train], [run.predicted]
    elif cell.model in LOCALIZERS or cell.model == "umlp":
        run, sets, n_train = train(cell, settings, workspace)
        counts, outputs = [n_train] * len(sets), _split(run.predicted, sets, "test")
        for data, output in zip(sets, outputs, strict=True):
            output["position"] = data.position_scaling.inverse(output["position"])
    else:
        run, sets, counts = train_unified(cell, settings, workspace)
        outputs = _split(run.predicted, sets, part)
    about = {"share": cell.share, "epochs": len(run.curves) or None}
    about |= {"fit_seconds": run.seconds, "predict_us": run.predict_us}
    rows = []
    for number, (data, n_train, output) in enumerate(zip(sets, counts, outputs, strict=True)):
        about_set = about | {"n_train": n_train} | _hits(data, output, part)
        if "environment" in output and output["environment"].shape[1] > 1:
            about_set["environment_hit"] = float((output["environment"].argmax(axis=1) == number).mean())
        rows.append(results.evaluated(data, cell.model, cell.seed, output["position"], workspace, part, **about_set))
    return rows


def _split(outputs: dict[str, np.ndarray], sets: list[ProcessedSet], part: str) -> list[dict[str, np.ndarray]]:
    """Outputs for the rows of several sets, one after the other → those of each set."""
    ends = np.cumsum([len(getattr(data.split, part)) for data in sets])[:-1]
    by_name = {name: np.split(values, ends) for name, values in outputs.items()}
    return [{name: values[number] for name, values in by_name.items()} for number in range(len(sets))]
