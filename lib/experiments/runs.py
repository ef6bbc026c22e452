"""Runs: an estimator under a protocol with a seed, done once and kept.

An `Experiment` says what to run, `run` does it or recalls it from the store, and `result_rows` measures it.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.data import protocols
from lib.data.fingerprints import FingerprintSet, in_common, joined
from lib.data.protocols import Parts
from lib.experiments import settings, store
from lib.experiments.store import Run
from lib.models import registry
from lib.models.estimator import choice
from lib.paths import Workspace
from lib.report import results
from lib.use.localizer import Localizer

PASSES = 0.75  # a network of the paper passes over a share of the rows share^-0.75 times an epoch
ANOTHER_SEED = 1000  # what a source in the target's own environment has beyond the target's seed
WARM_UP = 512  # rows that are predicted before the clock starts, to set up threads and memory


@dataclass(frozen=True)
class Experiment:
    """One run.

    Attributes:
        model: a key of `registry.REGISTRY`.
        protocols: of `protocols.PROTOCOLS`, `CHOOSING` or `INVENTED`; several for a model that learns environments
            together.
        seed: None where nothing is random.
        share: of the training rows, above 0 and at most 1.
        part: which rows are located: `test`, or `validation`, of which then nothing is learnt.
        settings: arguments of the estimator.
        rows: how many rows of each environment there are; None for all.
        label: the name under which results show it, if not the model's.
        source: the run whose estimator it starts from, if it starts from one.

    Raises:
        ValueError: if there is no such model or part, the share is out of range, a model of one environment gets
            several, or one that starts from another has no source.
    """

    model: str
    protocols: tuple[str, ...]
    seed: int | None
    share: float = 1.0
    part: str = "test"
    settings: dict = field(default_factory=dict, hash=False)
    rows: int | None = None
    label: str | None = None
    source: "Experiment | None" = None

    def __post_init__(self):
        entry = registry.entry(self.model)
        choice("part", self.part, ("test", "validation"))
        if not 0 < self.share <= 1:
            raise ValueError(f"`share` must be above 0 and at most 1. Received: {self.share}")
        if len(self.protocols) > 1 and not entry.together:
            raise ValueError(f"{self.model} learns one environment. Received: {', '.join(self.protocols)}")
        if (self.source is None) != (entry.source is None):
            raise ValueError(f"{self.model}: expected a source as its entry says. Received: {self.source}")

    @property
    def name(self) -> str:
        """What its folder is called."""
        words = [self.label or self.model, *self.protocols]
        if self.part != "test":
            words.append(self.part)
        if self.share < 1:
            words.append(f"{self.share:g}")
        if self.seed is not None:
            words.append(f"s{self.seed}")
        return "-".join(words)


def experiment(model: str, protocol_names: Sequence[str], seed: int | None, share: float = 1.0, **more) -> Experiment:
    """An experiment with the settings of this run's profile; `settings` in `more` are put in their place.

    A source has all rows, and the same seed in other environments, or another seed in its own.
    """
    entry = registry.entry(model)
    chosen = settings.of(model, protocol_names, inherits=entry.inherits, together=entry.together)
    if entry.of_the_paper and share < 1:
        chosen["passes"] = round(share**-PASSES)
    chosen |= more.pop("settings", {})
    more.setdefault("rows", settings.rows())
    if entry.source is not None:
        (protocol,) = protocol_names
        more["source"] = _source(entry.source, protocol, seed, more["rows"])
    return Experiment(model, tuple(protocol_names), seed, share, settings=chosen, **more)


def _source(source: registry.Source, protocol: str, seed: int, rows: int | None) -> Experiment:
    """The run that a transferred model starts from."""
    if source.environments == "own":
        return experiment(source.model, (protocol,), seed + ANOTHER_SEED, rows=rows)
    if source.environments == "unrelated":
        return experiment(source.model, protocols.unrelated(protocol), seed, rows=rows)
    return experiment(source.model, (protocols.partner(protocol),), seed, rows=rows)


def experiments(
    models: Sequence[str], protocol_names: Sequence[str], seeds: Sequence[int], shares: Sequence[float] = (1.0,)
) -> list[Experiment]:
    """Every combination that there is.

    Models that learn environments together take each of `protocols.PAIRS` with at least one of the protocols. What
    needs floors is left out where rows have none, and what is not random has one run in the place of one a seed.
    """
    combinations = []
    for model in models:
        entry = registry.entry(model)
        if entry.together:
            groups = [pair for pair in protocols.PAIRS if set(pair) & set(protocol_names)]
        else:
            groups = [(protocol,) for protocol in protocol_names]
        if entry.factory.needs_floors:
            groups = [group for group in groups if _has_floors(group[0])]
        for group, seed, share in itertools.product(groups, seeds if entry.random else [None], shares):
            combinations.append(experiment(model, group, seed, share))
    return combinations


def _has_floors(protocol: str) -> bool:
    return protocols.load(protocol, settings.rows()).train.floor is not None


# === Doing it ===


def subset(count: int, share: float, seed: int) -> np.ndarray:
    """Row numbers, ascending, of a random share of `count` rows: with the same seed, part of every larger share."""
    shuffled = np.random.default_rng(seed).permutation(count)
    return np.sort(shuffled[: max(1, round(share * count))])


def _learning(
    run: Experiment, parts: Sequence[Parts]
) -> tuple[list[FingerprintSet], list[FingerprintSet], list[FingerprintSet]]:
    """Training rows, validation rows and the rows to locate of each protocol."""
    train = [rows.train for rows in parts]
    if run.share < 1:
        train = [rows[subset(len(rows), run.share, run.seed or 0)] for rows in train]
    validation = [rows.validation for rows in parts]
    located = [getattr(rows, run.part) for rows in parts]
    if run.part == "validation":
        validation = [rows[:0] for rows in validation]
    return train, validation, located


def _inputs(run: Experiment, parts: Sequence[Parts]) -> dict:
    """The protocols' choice of transmitters, for a network of the paper."""
    entry = registry.entry(run.model)
    if not entry.of_the_paper:
        return {}
    names = [rows.transmitters for rows in parts]
    return {"inputs": names if entry.together else names[0]}


def run(this: Experiment, workspace: Workspace) -> Run:
    """Do an experiment, and first that of its source; or recall what was done with the same data, settings and code."""
    parts = [protocols.load(protocol, this.rows) for protocol in this.protocols]
    train, validation, asked = _learning(this, parts)
    arguments = {**this.settings, **_inputs(this, parts)}
    source = None if this.source is None else run(this.source, workspace)
    return fit_and_predict(
        this.model,
        train,
        validation,
        asked,
        workspace.models / this.name,
        seed=this.seed or 0,
        source=source,
        **arguments,
    )


def fit_and_predict(
    model: str,
    train: Sequence[FingerprintSet],
    validation: Sequence[FingerprintSet],
    asked: Sequence[FingerprintSet],
    folder: Path,
    *,
    seed: int,
    source: Run | None = None,
    **arguments,
) -> Run:
    """Fit a model and locate rows, or recall it from its folder: for rows that are no protocol's.

    Args:
        model: a key of `registry.REGISTRY`.
        train, validation: see `Estimator.fit`.
        asked: the rows to locate, whose positions it does not see.
        folder: the run's own.
        seed: of the fit.
        source: the run of the model that it starts from.
        arguments: of the estimator.
    """
    entry = registry.entry(model)
    start = None if source is None else store.kept_key(source.folder)
    decisive = [model, entry.factory.__qualname__, dict(entry.settings), arguments, seed, start]
    key = store.digest(decisive, [*train, *validation], asked, entry.factory.__module__)
    recalled = store.recall(folder, key, model, [len(rows) for rows in asked])
    if recalled is not None:
        store.log(folder.name, recalled.seconds, "recalled")
        return recalled
    if source is not None:
        arguments["source"] = source.estimator()
    estimator = registry.make(model, **arguments)
    scans = in_common([rows.scans for rows in asked])
    if not len(scans):
        raise ValueError(f"{folder.name}: expected rows to locate. Received: none")
    started = time.process_time()  # other work on the machine does not count
    estimator.fit(train, validation, seed=seed)
    seconds = time.process_time() - started
    estimator.predict(scans[:WARM_UP])
    started = time.process_time()
    located = estimator.predict(scans)
    predict_us = (time.process_time() - started) / len(scans) * 1e6
    finished = store.keep(folder, key, model, estimator, located, [len(rows) for rows in asked], seconds, predict_us)
    store.log(folder.name, seconds, "trained")
    return finished


def localizer(this: Experiment, workspace: Workspace) -> Localizer:
    """The unified network of an experiment, calibrated on the rows that it had held out: nothing more is trained."""
    train, validation, _ = _learning(this, [protocols.load(protocol, this.rows) for protocol in this.protocols])
    surveys = [joined(*rows) for rows in zip(train, validation, strict=True)]
    return Localizer.of_network(run(this, workspace).estimator(), surveys, this.seed)


# === Measuring it ===


def result_rows(this: Experiment, workspace: Workspace) -> list[dict]:
    """A result row for each protocol of an experiment."""
    finished = run(this, workspace)
    rows = []
    for number, protocol in enumerate(this.protocols):
        row = results.evaluated(
            protocols.load(protocol, this.rows),
            finished.located[number],
            this.label or this.model,
            this.seed,
            workspace,
            this.part,
            share=this.share,
            epochs=len(finished.curves) or None,
            n_train=finished.n_train[number],
            fit_seconds=finished.seconds,
            predict_us=finished.predict_us,
            environment_number=number,
        )
        rows.append(row)
    return rows
