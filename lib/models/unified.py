"""The unified network: one network that locates in every environment that it learnt, as an estimator."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy import special

from lib import quiet_import
from lib.data.fingerprints import FingerprintSet, Scans, joined, names_of, require_memory
from lib.data.folds import AREAS, HOLD_OUT, Folds, possible
from lib.models import places, training
from lib.models.by_environment import LearningByEnvironment, member_of_several
from lib.models.choosing import ROWS, Choice, HeldOut, alternatives, choose, similarities
from lib.models.estimator import Located, choice, nothing_located, require_rows
from lib.models.layers import (
    LEAST_PROBABILITY,
    Audible,
    CoordinateDecoder,
    CoordinateLoss,
    Ensemble,
    Fold,
    Further,
    Levels,
    learning_network,
    member_network,
)
from lib.models.network import NetworkEstimator, located
from lib.models.places import Neighbours, PlaceDecoder, PlaceLoss, Places

with quiet_import():
    import keras

HEADS = ("places", "distance", "squared")
LABELS = ("building", "floor")
SETTINGS = ("head", "folds", "environment_settings", "shared_columns", "heard_only", "decoder", "trunk", "training")
OF_ENVIRONMENT = ("hold_out", "area", "grid", "augmentation", "neighbours")
FOLDS = 4
NETWORK = {"hidden": (512, 512), "dropout": 0.3, "exponent": 1.5, "heard": False}
AUGMENTATION = {"offset": 6.0, "noise": 2.0, "loss": 0.3, "deafness": 25.0}  # as other phones hear, see `Augmentation`
# By how much of it scans change while they are learnt; as many transmitters are lost in any case.
OTHER_PHONES = {"devices": 1.0, "positions": 0.5, "rows": 0.0, "areas": 0.0}
CELL_OF_AREA, SIGMA_OF_AREA, MARGIN_OF_AREA = 0.3, 0.4, 0.8  # of a grid that reaches into areas without rows
TRAINING = {"weight_decay": 0.02}  # arguments of `training.fit`
LARGEST_BATCH, LEARNING_RATE = 512, 4e-3  # that rate is for that batch
LEAST_BATCHES = 8  # in an epoch, about: few rows are learnt in smaller batches
EPOCHS, EPOCHS_OF_SEVERAL = 16, 24  # passes over one environment, and over several that share a trunk
LEAST_STEPS = 400  # and at least so many
MOST_PASSES = 4  # over the rows of a small environment in an epoch
MOST_ASKED, MOST_SIMILARITIES = 3000, 3e7  # held-out rows of an environment, and numbers that compare them with others


class Unified(NetworkEstimator):
    """One trunk for all environments, and a head that classifies places or regresses coordinates.

    Its members have the same architecture, and each learns from all rows but those of its own fold, validation rows
    included. Their probabilities are averaged, stored fingerprints vote, and how much they have to say is chosen on
    rows that were held out (`choosing.choose`): each row is one of them once, and all are stored in the end.

    A transmitter that several environments name is one transmitter, with one input. Where no name occurs twice, the
    network locates a scan only in environments of which the scan hears a transmitter (`Audible`).

    Args:
        head: `places` classifies; `distance` and `squared` regress coordinates by this error, with one member.
        folds: how many members there are. A single one learns from all rows, and nothing is chosen.
        environments: settings of each environment, in the order in which they are fitted; None leaves all as they are.
            Each mapping may have: `hold_out`, one of `folds.HOLD_OUT`, as scans will come, and `area`, see
            `folds.Folds`; `grid`, arguments of `Places.of`, and `augmentation`, what differs from that for scans that
            come like this (of a transmitter that several environments have, the first one's counts); `neighbours`,
            arguments of `places.Neighbours` in the place of those that would be chosen, None for no votes.
        shared_columns: whether the i-th transmitter of every environment goes into the same input, so that the choice
            of inputs does not give the environment away.
        heard_only: whether to learn only from scans that hear a transmitter.
        decoder: arguments of `PlaceDecoder`.
        network: what differs from `NETWORK`: widths of the hidden layers, dropout, and arguments of `Levels`.
        training: what differs from `TRAINING` and `schedule`.

    Attributes:
        labels: after `fit`, which of `building` and `floor` at least one environment has.
        places: after `fit`, what the head chooses among; None for heads that regress.
        choices: after `fit`, the `choosing.Choice` of each environment, for a head that classifies.
        alternatives: after `fit`, for each environment what `choosing.alternatives` tells; empty with a single member.
        held_out: after `fit`, for each environment how rows were located by what had not seen them; empty with a single
            member.

    Raises:
        ValueError: if there is no such head or setting, or neighbours are to vote for places that the head lacks.
    """

    choices: list[Choice]
    alternatives: list[Mapping[str, float]]
    held_out: list["HeldOutRows"]

    def __init__(
        self,
        head: str = "places",
        folds: int = FOLDS,
        environments: Sequence[Mapping] | None = None,
        shared_columns: bool = False,
        heard_only: bool = False,
        decoder: Mapping | None = None,
        network: Mapping | None = None,
        **training,
    ):
        self.head = choice("head", head, HEADS)
        self.folds = folds if head == "places" else 1
        self.environment_settings = environments
        self.shared_columns = shared_columns
        self.heard_only = heard_only
        self.decoder = dict(decoder or {})
        self.trunk = NETWORK | dict(network or {})
        self.training = training
        if folds < 1:
            raise ValueError(f"`folds` must be positive. Received: folds={folds}")
        for settings in environments or ():
            self._check(settings)

    def _check(self, settings: Mapping) -> None:
        for name in settings:
            choice("environments", name, OF_ENVIRONMENT)
        choice("hold_out", hold_out_of(settings), HOLD_OUT)
        for name in settings.get("augmentation") or ():
            choice("augmentation", name, tuple(AUGMENTATION))
        neighbours = settings.get("neighbours")
        if neighbours is not None and self.head != "places":
            raise ValueError(
                f"`neighbours` vote for places, which the head {self.head} does not have. Received: {neighbours}"
            )

    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """Learn from training and validation rows, and choose on rows that were held out.

        Raises:
            ValueError: if there are no rows to learn from or to hold out, all are at one place, `environments` has not
                one mapping for each environment, or environments that have a transmitter in common are to share
                columns.
            MemoryError: if the rows do not fit in what is available.
        """
        require_rows(train, validation)
        survey = self._survey(train, validation, seed)
        keras.utils.set_random_seed(seed)
        members, outputs = self._members(survey)
        parts, decoder = [], survey.decoder
        self.held_out = []
        if self.head == "places":
            parts = [self._part(survey, number, outputs) for number in range(len(survey.sets))]
            all_places = places.joined([part.places for part in parts])
            decoder = PlaceDecoder(all_places, **self.decoder, name="decoder")
            if self.folds > 1:
                self._locate_held_out(survey, outputs, parts, decoder)
        self.choices = [part.choice for part in parts]
        self.alternatives = [part.alternatives for part in parts]
        votes = [part.votes for part in parts if part.votes is not None]
        inputs = list(map(len, survey.columns)) if self.shared_columns else survey.rssi.shape[1]
        self.network = assembled(members, survey.levels, survey.audible, votes, decoder, inputs)
        self.transmitters = names_of(survey.sets)
        self.environments = tuple(rows.name for rows in survey.sets)
        self.labels = labels_of(survey.sets)
        self.n_train = list(map(len, survey.sets))
        return self

    @property
    def places(self) -> Places | None:
        return getattr(self.network.get_layer("decoder"), "places", None)

    # === What it learns from ===

    def _survey(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], seed: int) -> "Survey":
        """All that is known before anything is learnt."""
        sets = self._learning_rows(train, validation)
        settings = self._settings_of_each(len(sets))
        scans = [rows.scans for rows in sets]
        columns = input_columns(scans, self.shared_columns)
        inputs = input_settings(sets, columns, list(map(augmentation_of, settings)))
        heard = inputs.pop("heard")
        exponent, with_heard = self.trunk["exponent"], self.trunk["heard"]
        decoder, loss = self._decoder_and_loss(sets, settings)
        folds = [self._folds(rows, own, seed) for rows, own in zip(sets, settings, strict=True)]
        return Survey(
            sets=sets,
            settings=settings,
            columns=columns,
            rssi=input_rows(scans, columns),
            target=targets(sets),
            hidden=np.concatenate([own.hidden for own in folds], axis=1),
            fold=np.concatenate([own.asked for own in folds]),
            asked=asked_rows([own.asked for own in folds], seed),
            inputs=inputs,
            levels={
                "columns": heard,
                "minimum": inputs["minimum"][heard],
                "exponent": exponent,
                "heard": with_heard,
            },
            audible=self._audible(columns, decoder),
            decoder=decoder,
            loss=loss,
        )

    def _folds(self, rows: FingerprintSet, settings: Mapping, seed: int) -> Folds:
        if self.folds == 1:
            return Folds.none(len(rows))
        hold_out = possible(rows, hold_out_of(settings))  # one environment of several may have a single place
        return Folds.of(rows, hold_out, self.folds, seed, settings.get("area"))

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
                places_of_each.append(Places.of(fingerprints, **grid_of(fingerprints, own_settings)))
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

    def _audible(self, columns: Sequence[np.ndarray], decoder: keras.layers.Layer) -> dict | None:
        """Arguments of `Audible`; None for heads that regress, or if environments have inputs in common."""
        widths = list(map(len, columns))
        if self.head != "places" or count_inputs(columns) < sum(widths) or self.shared_columns:
            return None
        of_transmitter = np.repeat(np.arange(len(widths)), widths)
        return {"of_transmitter": of_transmitter, "of_output": decoder.places.environment}

    # === Learning ===

    def _members(self, survey: "Survey") -> tuple[list[keras.Model], np.ndarray]:
        """The trained members, and (a, outputs) what each asked row has by the member of its fold."""
        n_outputs = 3 * len(survey.sets)
        if self.head == "places":
            n_outputs = len(survey.decoder.places)
        rows = rows_of_epoch(list(map(len, survey.sets)))
        asked = np.concatenate(survey.asked)
        outputs = np.zeros((len(asked), n_outputs), dtype=np.float32)
        members, curves = [], []
        for number in range(self.folds):
            member, network = self._to_learn(survey)
            learnt = rows[~survey.hidden[number][rows]]
            if not len(learnt):
                raise ValueError(
                    f"fold {number}: expected rows to learn from. Received: none that need not be held out"
                )
            learning = survey.rssi[learnt], survey.target[learnt]
            label = f"unified, {number + 1} of {self.folds}" if self.folds > 1 else "unified"
            settings = schedule(len(learnt), len(survey.sets), self.training)
            fitted = training.fit(network, learning, None, loss=survey.loss, reuse=True, label=label, **settings)
            curves.append(fitted)
            of_fold = survey.fold[asked] == number
            outputs[of_fold] = training.predict(network, survey.rssi[asked[of_fold]])["position"]
            member.name = f"member_{number}"  # not before: while they learn, members of one name share what is compiled
            members.append(member)
        self.curves = pd.concat(curves).groupby("epoch", as_index=False).mean()
        if survey.audible is not None:
            outputs = np.asarray(Audible(**survey.audible)([survey.rssi[asked], outputs]))
        return members, outputs

    def _to_learn(self, survey: "Survey") -> tuple[keras.Model, keras.Model]:
        """A new member, and the same as it learns."""
        n_levels = len(survey.levels["columns"]) * (1 + self.trunk["heard"])
        architecture = {name: self.trunk[name] for name in ("hidden", "dropout")}
        if self.head == "places" and len(survey.sets) > 1:
            counts = np.bincount(survey.decoder.places.environment).tolist()
            member = member_of_several(n_levels, counts, **architecture)
            return member, LearningByEnvironment(
                member,
                columns=survey.columns,
                minimum=survey.inputs["minimum"],
                levels=survey.levels,
                augmentation=survey.inputs["augmentation"],
                name="learning",
            )
        n_outputs = len(survey.decoder.places) if self.head == "places" else 3 * len(survey.sets)
        member = member_network(n_levels, n_outputs, **architecture)
        return member, learning_network(member, levels=survey.levels, **survey.inputs)

    # === Choosing ===

    def _part(self, survey: "Survey", number: int, outputs: np.ndarray) -> "Part":
        """What becomes of an environment's places and stored fingerprints, chosen on its held-out rows."""
        all_places = survey.decoder.places
        own_places = np.flatnonzero(all_places.environment == number)
        columns = np.intersect1d(survey.columns[number], survey.levels["columns"])
        voting = {
            "columns": columns,
            "minimum": survey.inputs["minimum"][columns],
            "own_places": own_places,
            "of_place": all_places.nearest(places.labels(survey.sets[number]), number),
        }
        settings = survey.settings[number]
        stored = survey.rssi[survey.target[:, 0] == number]
        held_out = self._held_out(survey, number, outputs, voting, stored)
        chosen = self._given(settings)
        if chosen is None:
            chosen = choose(held_out[:ROWS], hold_out_of(settings))
        told = alternatives(held_out, chosen) if self.folds > 1 else {}
        votes = None
        if chosen.share > 0:
            votes = Votes(voting | chosen.votes(), stored, votes_name(number))
        return Part(chosen, told, chosen.of_places(all_places[own_places]), votes, held_out)

    def _given(self, settings: Mapping) -> Choice | None:
        """What the settings of an environment say in the place of what would be chosen; None where they do not."""
        if settings.get("neighbours") is not None:
            given = dict(settings["neighbours"])
            given["offsets"] = tuple(given.get("offsets", (0.0,)))  # a list, where they come from a file
            return Choice(**given)
        if "neighbours" in settings or self.folds == 1:
            return Choice(share=0.0)
        return None

    def _held_out(
        self, survey: "Survey", number: int, outputs: np.ndarray, voting: Mapping, stored: np.ndarray
    ) -> HeldOut:
        """The asked rows of an environment, in an order by chance; `stored` are (m, inputs) dBm of all its rows."""
        asked = survey.asked[number]
        before = sum(map(len, survey.asked[:number]))
        own = outputs[before : before + len(asked)][:, voting["own_places"]]
        unseen = survey.hidden[:, survey.target[:, 0] == number][survey.fold[asked]]
        return HeldOut(
            probabilities=special.softmax(own, axis=1),
            similarity=similarities(voting, stored, survey.rssi[asked], unseen),
            of_place=voting["of_place"] - voting["own_places"][0],
            stored=survey.sets[number].position,
            places=survey.decoder.places[voting["own_places"]].alone(),
            position=survey.target[asked, 3:].astype(np.float64),
        )

    def _locate_held_out(
        self, survey: "Survey", outputs: np.ndarray, parts: Sequence["Part"], decoder: PlaceDecoder
    ) -> None:
        """Locate the asked rows by what has not seen them, as the whole network would."""
        probabilities = np.asarray(keras.ops.softmax(outputs))
        start, first = 0, 0
        for number, (part, asked) in enumerate(zip(parts, survey.asked, strict=True)):
            own_places = np.flatnonzero(decoder.places.environment == number)
            own = probabilities[start : start + len(asked)]
            told = HeldOutRows(
                rows=asked - first,
                fold=survey.fold[asked],
                located=located_while_held_out(own, own_places, part.held_out.both(part.choice), decoder),
                neighbours_error=part.held_out.errors_of_plain_neighbours(),
            )
            self.held_out.append(told)
            start += len(asked)
            first += len(survey.sets[number])

    # === Use ===

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
        held_out = [rows.to_json() for rows in self.held_out]
        return super().fitted() | {"labels": self.labels, "settings": settings, "held_out": held_out}

    def take(self, fitted: Mapping) -> None:
        """See `NetworkEstimator.take`."""
        super().take(fitted)
        self.labels = fitted["labels"]
        self.held_out = [HeldOutRows.from_json(rows) for rows in fitted.get("held_out", [])]
        for name, value in fitted.get("settings", {}).items():
            setattr(self, name, value)


# === What it is made of ===


@dataclass(frozen=True, eq=False)
class Survey:
    """All that the fit of a unified network begins with.

    Attributes:
        sets: rows to learn from, one set for each environment.
        settings: of each environment.
        columns: see `input_columns`.
        rssi: (n, inputs) dBm of all rows, one environment after another.
        target: (n, 5) of all rows, see `targets`.
        hidden: (k, n) whether a member must not see a row.
        fold: (n,) the member that is asked about a row, −1 for none.
        asked: for each environment numbers of the rows that are asked about where they are held out, in any order.
        inputs, levels, audible: arguments of the layers before and after the members.
        decoder: of the outputs.
        loss: of a member.
    """

    sets: list[FingerprintSet]
    settings: list[Mapping]
    columns: list[np.ndarray]
    rssi: np.ndarray
    target: np.ndarray
    hidden: np.ndarray
    fold: np.ndarray
    asked: list[np.ndarray]
    inputs: dict
    levels: dict
    audible: dict | None
    decoder: keras.layers.Layer
    loss: keras.losses.Loss


@dataclass(frozen=True, eq=False)
class Votes:
    """An environment's stored fingerprints.

    Attributes:
        settings: arguments of `Neighbours`.
        rssi: (m, inputs) dBm of the fingerprints.
        name: of the layer.
    """

    settings: dict
    rssi: np.ndarray
    name: str


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """Rows of one environment, each located by the members and stored fingerprints that had not seen it.

    Attributes:
        rows: (n,) their numbers among those that were learnt.
        fold: (n,) in which fold each was.
        located: where they were located.
        neighbours_error: (n,) metres, of plain kNN with the same fingerprints stored.
    """

    rows: np.ndarray
    fold: np.ndarray
    located: Located
    neighbours_error: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "HeldOutRows":
        fields = [self.rows[chosen], self.fold[chosen], self.located[chosen], self.neighbours_error[chosen]]
        return HeldOutRows(*fields)

    def to_json(self) -> dict:
        """Lists by name, those of `located` among them."""
        arrays = {"rows": self.rows, "fold": self.fold, "neighbours_error": self.neighbours_error}
        arrays |= self.located.arrays()
        return {name: values.tolist() for name, values in arrays.items()}

    @classmethod
    def from_json(cls, lists: Mapping[str, list]) -> "HeldOutRows":
        """What `to_json` gave."""
        arrays = {name: np.array(values) for name, values in lists.items()}
        own = {name: arrays.pop(name) for name in ("rows", "fold", "neighbours_error")}
        return cls(**own, located=Located(**arrays))


@dataclass(frozen=True, eq=False)
class Part:
    """What was chosen for one environment: see `Unified` for `choice` and `alternatives`.

    Attributes:
        places: its places, decoded by the choice.
        votes: its stored fingerprints, None for no votes.
        held_out: the asked rows.
    """

    choice: Choice
    alternatives: Mapping[str, float]
    places: Places
    votes: Votes | None
    held_out: HeldOut


def assembled(
    members: Sequence[keras.Model],
    levels: Mapping,
    audible: Mapping | None,
    votes: Sequence[Votes],
    decoder: keras.layers.Layer,
    inputs: int | Sequence[int],
) -> keras.Model:
    """The network in use: (n, t) dBm with NaN = not heard → what the decoder gives.

    Args:
        members: see `layers.member_network`.
        levels, audible: arguments of `Levels` and `Audible`; without the latter no environment is ruled out.
        votes: of the environments whose fingerprints vote.
        decoder: of the places, or of coordinates.
        inputs: how many there are, or for shared columns how many each environment has.
    """
    count = inputs if isinstance(inputs, int) else sum(inputs)
    rssi = keras.Input((count,), name="rssi")
    x = rssi if isinstance(inputs, int) else Fold(inputs, name="fold")(rssi)
    of_scan = Levels(**levels, name="levels")(x)
    of_members = [member(of_scan) for member in members]
    outputs = of_members[0] if len(members) == 1 else Ensemble(name="ensemble")(of_members)
    if isinstance(decoder, PlaceDecoder) and len(decoder.places) > outputs.shape[-1]:
        outputs = Further(len(decoder.places) - outputs.shape[-1], name="further")(outputs)
    if audible is not None:
        outputs = Audible(**audible, name="audible")([x, outputs])
    for own in votes:
        layer = Neighbours(**own.settings, name=own.name)
        outputs = layer([x, outputs])
        layer.store(own.rssi)
    return keras.Model(rssi, decoder(outputs), name="localizer")


def votes_name(number: int) -> str:
    """Of the layer with the stored fingerprints of an environment."""
    return f"neighbours_{number}"


def located_while_held_out(
    probabilities: np.ndarray, own_places: np.ndarray, both: np.ndarray, decoder: PlaceDecoder
) -> Located:
    """Where held-out rows of one environment are located.

    Args:
        probabilities: (n, c) of all places by the members.
        own_places: (o,) numbers of the environment's places.
        both: (n, o) probabilities within the environment by the members and stored fingerprints.
        decoder: of all places.
    """
    mixed = probabilities.copy()
    of_environment = probabilities[:, own_places].sum(axis=1, keepdims=True)
    mixed[:, own_places] = of_environment * both
    outputs = []
    for start in range(0, max(1, len(mixed)), training.PREDICTED_AT_ONCE):
        block = mixed[start : start + training.PREDICTED_AT_ONCE]
        outputs.append(decoder(np.log(np.maximum(block, LEAST_PROBABILITY))))
    return located({name: np.concatenate([np.asarray(part[name]) for part in outputs]) for name in outputs[0]})


def asked_rows(folds: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """For each environment numbers of at most `MOST_ASKED` rows that have a fold, in an order by chance."""
    asked, first = [], 0
    for fold in folds:
        most = min(MOST_ASKED, max(ROWS, int(MOST_SIMILARITIES / len(fold))))
        shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(fold >= 0))
        asked.append(first + shuffled[:most])
        first += len(fold)
    return asked


def hold_out_of(settings: Mapping) -> str:
    """How scans of an environment will come."""
    return settings.get("hold_out", HOLD_OUT[0])


def grid_of(fingerprints: FingerprintSet, settings: Mapping) -> dict:
    """Arguments of `Places.of` for an environment: its own `grid`, and what suits the scans that will come."""
    hold_out = hold_out_of(settings)
    suited = {"revisited": hold_out == "rows"}
    if hold_out == "areas":
        side = settings.get("area") or np.ptp(fingerprints.position, axis=0).max() / AREAS
        suited = {"cell": CELL_OF_AREA * side, "sigma": SIGMA_OF_AREA * side, "margin": MARGIN_OF_AREA * side}
    return suited | dict(settings.get("grid") or {})


def augmentation_of(settings: Mapping) -> dict:
    """Arguments of `Augmentation` for an environment: its own, and what suits the scans that will come."""
    share = OTHER_PHONES[hold_out_of(settings)]
    suited = {name: value * share for name, value in AUGMENTATION.items()}
    suited["loss"] = AUGMENTATION["loss"]
    return suited | dict(settings.get("augmentation") or {})


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
    return [min(MOST_PASSES, math.ceil(largest / count)) for count in counts]


def rows_of_epoch(counts: Sequence[int]) -> np.ndarray:
    """Numbers of the rows that an epoch goes over, of environments with so many rows each, one after another."""
    passes_of_row = np.repeat(passes(counts), counts)
    return np.repeat(np.arange(sum(counts)), passes_of_row)


def schedule(n_rows: int, n_environments: int, settings: Mapping) -> dict:
    """Arguments of `training.fit` for so many rows an epoch: `settings`, and what suits the rows elsewhere.

    Few rows are learnt in smaller batches, a power of two, at a lower rate, and more often.
    """
    exponent = round(np.log2(max(1, n_rows) / LEAST_BATCHES))
    batch_size = settings.get("batch_size") or min(LARGEST_BATCH, 2 ** max(0, exponent))
    steps = -(-n_rows // batch_size)
    suited = {
        "batch_size": batch_size,
        "learning_rate": LEARNING_RATE * (batch_size / LARGEST_BATCH) ** 0.5,
        "epochs": max(EPOCHS if n_environments == 1 else EPOCHS_OF_SEVERAL, -(-LEAST_STEPS // steps)),
    }
    return suited | TRAINING | dict(settings)


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
    """Those arguments of `layers.learning_network` that are about its inputs but `levels`, and `heard`.

    Args:
        learning: rows to learn from, one set for each environment.
        columns: see `input_columns`.
        augmentations: for each environment arguments of `Augmentation`. Of an input that several environments have, the
            first one's count.
    """
    n_inputs = count_inputs(columns)
    heard = np.zeros(n_inputs, dtype=bool)
    minimum = np.full(n_inputs, np.inf)
    augmentation = {name: np.zeros(n_inputs) for name in AUGMENTATION}
    environments = list(zip(learning, columns, augmentations, strict=True))
    for fingerprints, own, changes in reversed(environments):  # the first one has the last word
        heard[own] |= fingerprints.heard.any(axis=0)
        minimum[own] = np.minimum(minimum[own], fingerprints.not_heard_dbm)
        for name, value in changes.items():
            augmentation[name][own] = value
    return {
        "n_transmitters": n_inputs,
        "heard": np.flatnonzero(heard),
        "minimum": minimum,
        "augmentation": augmentation,
    }
