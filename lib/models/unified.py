"""The unified network: one network that locates in every environment that it learnt, as an estimator."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import pandas as pd

from lib import quiet_import
from lib.data.fingerprints import FingerprintSet, Scans, joined, names_of, require_memory
from lib.models import places, training
from lib.models.estimator import Located, choice, nothing_located, require_rows
from lib.models.layers import CoordinateDecoder, CoordinateLoss, decoded, folded, trunk_network
from lib.models.network import NetworkEstimator, located
from lib.models.places import PlaceDecoder, PlaceLoss, Places

with quiet_import():
    import keras

HEADS = ("places", "distance", "squared")
LABELS = ("building", "floor")
SETTINGS = ("head", "environment_settings", "shared_columns", "heard_only", "decoder", "trunk", "training")
OF_ENVIRONMENT = ("grid", "augmentation", "neighbours")
NETWORK = {"hidden": (1024, 1024), "dropout": 0.3, "exponent": 1.5, "heard": False}  # arguments of `trunk_network`
AUGMENTATION = {"offset": 6.0, "noise": 2.0, "loss": 0.3, "deafness": 25.0}  # as other phones hear, see `Augmentation`
SAME_DEVICES = {"offset": 0.0, "noise": 0.0, "deafness": 0.0}  # in its place where no other devices are to come
TRAINING = {"epochs": 24, "weight_decay": 0.02}  # arguments of `training.fit`
LARGEST_BATCH, LEARNING_RATE = 1024, 4e-3  # that rate is for that batch
LEAST_BATCHES = 8  # in an epoch, about: few rows are learnt in smaller batches
MOST_PASSES = 4  # over the rows of a small environment in an epoch


class Unified(NetworkEstimator):
    """One trunk for all environments, and a head that classifies places or regresses coordinates.

    It chooses nothing on validation rows, so it learns from them, too.

    A transmitter that several environments name is one transmitter, with one input. Where no name occurs twice, the
    network locates a scan only in environments of which the scan hears a transmitter (`Audible`).

    Args:
        head: `places` classifies; `distance` and `squared` regress coordinates by this error.
        environments: settings of each environment, in the order in which they are fitted; None leaves all as they are.
            Each mapping may have: `grid`, arguments of `Places.of`; `augmentation`, what differs from `AUGMENTATION`
            (of a transmitter that several environments have, the first one's counts); `neighbours`, what differs from
            `places.NEIGHBOURS`: the environment's fingerprints are then stored and vote (`Neighbours`); None stores
            none.
        shared_columns: whether the i-th transmitter of every environment goes into the same input, so that the choice
            of inputs does not give the environment away.
        heard_only: whether to learn only from scans that hear a transmitter.
        decoder: arguments of `PlaceDecoder`.
        network: what differs from `NETWORK`.
        training: what differs from `TRAINING` and `batches`.

    Attributes:
        labels: after `fit`, which of `building` and `floor` at least one environment has.
        places: after `fit`, what the head chooses among; None for heads that regress.

    Raises:
        ValueError: if there is no such head or setting, or neighbours are to vote for places that the head lacks.
    """

    def __init__(
        self,
        head: str = "places",
        environments: Sequence[Mapping] | None = None,
        shared_columns: bool = False,
        heard_only: bool = False,
        decoder: Mapping | None = None,
        network: Mapping | None = None,
        **training,
    ):
        self.head = choice("head", head, HEADS)
        self.environment_settings = environments
        self.shared_columns = shared_columns
        self.heard_only = heard_only
        self.decoder = dict(decoder or {})
        self.trunk = NETWORK | dict(network or {})
        self.training = training
        for settings in environments or ():
            self._check(settings)

    def _check(self, settings: Mapping) -> None:
        for name in settings:
            choice("environments", name, OF_ENVIRONMENT)
        for name in settings.get("augmentation") or ():
            choice("augmentation", name, tuple(AUGMENTATION))
        neighbours = settings.get("neighbours")
        if neighbours is not None and self.head != "places":
            raise ValueError(
                f"`neighbours` vote for places, which the head {self.head} does not have. Received: {neighbours}"
            )

    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """Learn from training and validation rows.

        Raises:
            ValueError: if there are no rows to learn from, all are at one place, `environments` has not one mapping for
                each environment, or environments that have a transmitter in common are to share columns.
            MemoryError: if the rows do not fit in what is available.
        """
        require_rows(train, validation)
        learning = self._learning_rows(train, validation)
        settings = self._settings_of_each(len(learning))
        scans = [fingerprints.scans for fingerprints in learning]
        columns = input_columns(scans, self.shared_columns)
        rssi = input_rows(scans, columns)
        target = targets(learning)
        decoder, loss = self._decoder_and_loss(learning, settings)
        counts = list(map(len, learning))
        rows = rows_of_epoch(counts)
        schedule = batches(len(rows), self.training.get("batch_size")) | TRAINING | self.training

        keras.utils.set_random_seed(seed)
        network = self._trunk_network(learning, settings, columns, decoder)
        self.curves = training.fit(network, (rssi[rows], target[rows]), None, loss=loss, label="unified", **schedule)

        for number, fingerprints in enumerate(learning):
            votes = settings[number].get("neighbours")
            if votes is not None:
                stored = places.labels(fingerprints), rssi[target[:, 0] == number]
                network = places.with_votes(network, *stored, decoder.places, number, **places.NEIGHBOURS | dict(votes))
        if self.shared_columns:
            network = folded(network, list(map(len, columns)))
        self.network = decoded(network, decoder)
        self.transmitters = names_of(learning)
        self.environments = tuple(fingerprints.name for fingerprints in learning)
        self.labels = labels_of(learning)
        self.n_train = counts
        return self

    @property
    def places(self) -> Places | None:
        return getattr(self.network.get_layer("decoder"), "places", None)

    def _learning_rows(
        self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet]
    ) -> list[FingerprintSet]:
        """The rows of each environment that it learns from."""
        learning = []
        for first, second in zip(train, validation, strict=True):
            fingerprints = joined(first, second)
            if self.heard_only:
                fingerprints = fingerprints[fingerprints.heard.any(axis=1)]
            learning.append(fingerprints)
        return learning

    def _settings_of_each(self, count: int) -> list[Mapping]:
        if self.environment_settings is None:
            return [{}] * count
        if len(self.environment_settings) != count:
            raise ValueError(
                f"`environments` must have settings for each of the {count} environments. "
                f"Received: {len(self.environment_settings)} mappings"
            )
        return list(self.environment_settings)

    def _decoder_and_loss(
        self, learning: Sequence[FingerprintSet], settings: Sequence[Mapping]
    ) -> tuple[keras.layers.Layer, keras.losses.Loss]:
        if self.head == "places":
            places_of_each = []
            for fingerprints, own_settings in zip(learning, settings, strict=True):
                grid = own_settings.get("grid") or {}
                places_of_each.append(Places.of(fingerprints, **grid))
            all_places = places.joined(places_of_each)
            if len(all_places) == 1:
                raise ValueError(
                    f"{learning[0].name}: expected rows at two places or more, to tell apart. Received: all "
                    f"{len(learning[0]):,} rows at one place (building, floor and position). Survey more places"
                )
            return PlaceDecoder(all_places, **self.decoder, name="decoder"), PlaceLoss(all_places)
        ranges = [places.usual_range(fingerprints.position) for fingerprints in learning]
        lower, upper = zip(*ranges, strict=True)
        decoder = CoordinateDecoder(lower, upper, name="decoder")
        return decoder, CoordinateLoss(decoder, distance=self.head == "distance")

    def _trunk_network(
        self,
        learning: Sequence[FingerprintSet],
        settings: Sequence[Mapping],
        columns: Sequence[np.ndarray],
        decoder: keras.layers.Layer,
    ) -> keras.Model:
        """The untrained network: dBm of the inputs → what the decoder takes."""
        augmentations = [own_settings.get("augmentation") or {} for own_settings in settings]
        inputs = input_settings(learning, columns, augmentations)
        n_outputs, audible = 3 * len(learning), None
        if self.head == "places":
            n_outputs = len(decoder.places)
            audible = self._audible(columns, decoder.places)
        return trunk_network(n_outputs=n_outputs, audible=audible, **inputs, **self.trunk)

    def _audible(self, columns: Sequence[np.ndarray], all_places: Places) -> dict | None:
        """Arguments of `Audible`; None if environments have inputs in common."""
        widths = list(map(len, columns))
        if count_inputs(columns) < sum(widths) or self.shared_columns:
            return None
        of_transmitter = np.repeat(np.arange(len(widths)), widths)
        return {"of_transmitter": of_transmitter, "of_output": all_places.environment}

    def predict(self, scans: Scans) -> Located:
        """See `Estimator.predict`; labels that an environment does not have are −1."""
        if len(scans) == 0:
            return nothing_located(self)
        outputs = training.predict(self.network, scans.of(self.transmitters))
        if len(self.environments) == 1:
            del outputs["environment"]
        for name in LABELS:
            if name not in self.labels:
                outputs.pop(name, None)
        return located(outputs)

    def fitted(self) -> dict:
        """See `NetworkEstimator.fitted`."""
        settings = {name: getattr(self, name) for name in SETTINGS}
        return super().fitted() | {"labels": self.labels, "settings": settings}

    def take(self, fitted: Mapping) -> None:
        """See `NetworkEstimator.take`."""
        super().take(fitted)
        self.labels = fitted["labels"]
        for name, value in fitted.get("settings", {}).items():
            setattr(self, name, value)


# === What it learns from ===


def labels_of(learning: Sequence[FingerprintSet]) -> list[str]:
    """Which of `LABELS` at least one environment has."""
    names = []
    for name in LABELS:
        if any(getattr(fingerprints, name) is not None for fingerprints in learning):
            names.append(name)
    return names


def targets(learning: Sequence[FingerprintSet]) -> np.ndarray:
    """(Σn, 5) float32: environment, building, floor (−1 where there are none), metres east and north."""
    environment = np.repeat(np.arange(len(learning)), list(map(len, learning)))
    labels = np.concatenate([places.labels(fingerprints) for fingerprints in learning])
    return np.column_stack([environment, labels]).astype(np.float32)


def passes(counts: Sequence[int]) -> list[int]:
    """How often an epoch goes over the rows of each environment, so that the largest does not have it to itself."""
    largest = max(counts)
    return [min(MOST_PASSES, max(1, round(largest / count))) for count in counts]


def rows_of_epoch(counts: Sequence[int]) -> np.ndarray:
    """Numbers of the rows that an epoch goes over, of environments with so many rows each, one after another."""
    passes_of_row = np.repeat(passes(counts), counts)
    return np.repeat(np.arange(sum(counts)), passes_of_row)


def batches(n_rows: int, batch_size: int | None = None) -> dict:
    """`batch_size` for so many rows an epoch, a power of two if none is given, and a `learning_rate` that suits it."""
    if batch_size is None:
        exponent = round(np.log2(n_rows / LEAST_BATCHES))
        batch_size = min(LARGEST_BATCH, 2 ** max(0, exponent))
    return {"batch_size": batch_size, "learning_rate": LEARNING_RATE * (batch_size / LARGEST_BATCH) ** 0.5}


# === The inputs of the network while it learns ===


def input_columns(scans: Sequence[Scans], shared_columns: bool = False) -> list[np.ndarray]:
    """For each environment, which input each of its transmitters is.

    Raises:
        ValueError: if environments that have a transmitter in common are to share columns.
    """
    names = pd.Index(names_of(scans), dtype=object)
    if not shared_columns:
        return [names.get_indexer(pd.Index(members.transmitters, dtype=object)) for members in scans]
    widths = [len(members.transmitters) for members in scans]
    if len(names) < sum(widths):
        raise ValueError(
            "`shared_columns` needs environments with different transmitters. "
            f"Received: {sum(widths) - len(names)} that several have"
        )
    return [np.arange(width) for width in widths]


def count_inputs(columns: Sequence[np.ndarray]) -> int:
    """How many inputs there are, by `input_columns`."""
    return 1 + max(own.max() for own in columns)


def input_rows(scans: Sequence[Scans], columns: Sequence[np.ndarray]) -> np.ndarray:
    """(Σn, inputs) float32 dBm: the scans of all environments, one after another, NaN in what is not theirs.

    Raises:
        MemoryError: if that does not fit in what is available.
    """
    n_rows = sum(map(len, scans))
    n_inputs = count_inputs(columns)
    require_memory(n_rows, n_inputs)
    rssi = np.full((n_rows, n_inputs), np.nan, dtype=np.float32)
    start = 0
    for members, own in zip(scans, columns, strict=True):
        rssi[start : start + len(members), own] = members.rssi
        start += len(members)
    return rssi


def input_settings(
    learning: Sequence[FingerprintSet], columns: Sequence[np.ndarray], augmentations: Sequence[Mapping]
) -> dict:
    """Those arguments of `trunk_network` that are about its inputs.

    Args:
        learning: rows to learn from, one set for each environment.
        columns: see `input_columns`.
        augmentations: for each environment what differs from `AUGMENTATION`. Of an input that several environments
            have, the first one's counts.
    """
    n_inputs = count_inputs(columns)
    heard = np.zeros(n_inputs, dtype=bool)
    minimum = np.full(n_inputs, np.inf)
    augmentation = {name: np.zeros(n_inputs) for name in AUGMENTATION}
    environments = list(zip(learning, columns, augmentations, strict=True))
    for fingerprints, own, changes in reversed(environments):  # the first one has the last word
        heard[own] |= fingerprints.heard.any(axis=0)
        minimum[own] = np.minimum(minimum[own], fingerprints.not_heard_dbm)
        for name, value in (AUGMENTATION | dict(changes)).items():
            augmentation[name][own] = value
    return {
        "n_transmitters": n_inputs,
        "columns": np.flatnonzero(heard),
        "minimum": minimum,
        "augmentation": augmentation,
    }
