"""The comparators that are networks, each as its paper describes it.

What a paper leaves open was chosen on validation rows (`SEARCHED`), and each docstring says what that is. Ours, and
common to all: inputs that no training row hears are dropped, the validation rows may end the training, and so that
each can be trained with many seeds on one core, none is trained for more than a few dozen epochs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lib import models, quiet_import, training
from lib.fingerprints import FingerprintSet
from lib.preprocess import NOT_HEARD_DBM, MinMaxScaling, exponential, powed

with quiet_import():
    import keras
    from keras import layers

CATEGORIES = ("building", "floor")


@dataclass
class Comparator:
    """RSSI in dBm in, position, building and floor out: what all networks here share.

    Attributes:
        epochs: the most epochs that it is trained.
        patience: so many epochs without a lower validation loss end the training, and the best epoch's weights stay;
            None trains all epochs and keeps the last.
        batch_size, learning_rate: of Adam.
        decay: whether the learning rate falls to 0 along a cosine over `epochs`, see `training.fit`.
        span: coordinates are scaled to [0, span], which weighs the position's loss beside the others.
        n_train, epochs_run: after `fit`, the rows that it learnt from and the epochs that it took.
    """

    epochs: int
    patience: int | None
    batch_size: int
    learning_rate: float
    decay: bool = False
    span: float = 1.0

    categories: ClassVar[tuple[str, ...]] = ()  # what it tells beside the position, where the rows have it
    indoors_only: ClassVar[bool] = False
    position_loss: ClassVar[str] = "mse"

    def fit(self, train: FingerprintSet, validation: FingerprintSet, seed: int) -> "Comparator":
        """Learn from `train`; `validation` says when it is enough, and nothing else.

        Args:
            train, validation: rows of one environment with all its transmitters.
            seed: of everything that chance decides.

        Raises:
            ValueError: if the network needs buildings and floors, and the rows have none.
        """
        self._labels = {
            name: np.unique(values) for name in self.categories if (values := getattr(train, name)) is not None
        }
        if self.indoors_only and len(self._labels) < len(self.categories):
            raise ValueError(f"`train` must have {' and '.join(self.categories)}. Received: {train.name} without")
        keras.utils.set_random_seed(seed)
        self._heard = train.heard.any(axis=0)
        self._position_scaling = replace(MinMaxScaling.of_position(train.position), upper=self.span)
        self._learn_inputs(train)
        x, held_out = (self._inputs(rows.rssi) for rows in (train, validation))
        self._network = self._build(x, held_out)
        parts = (x, self._targets(train)), (held_out, self._targets(validation))
        self.n_train, self.epochs_run = len(train), self._train(self._network, *parts, self._losses())
        return self

    def predict(self, rssi: np.ndarray) -> dict[str, np.ndarray]:
        """(n, t) dBm → `position` (n, 2) metres, and `building` and `floor` (n,) where the network tells them."""
        outputs = training.predict(self._network, self._inputs(rssi))
        chosen = {name: labels[outputs[name].argmax(axis=1)] for name, labels in self._labels.items()}
        return {"position": self._position_scaling.inverse(outputs["position"])} | chosen

    def _learn_inputs(self, train: FingerprintSet) -> None:
        self._rssi_scaling = MinMaxScaling.of_rssi(train.rssi, NOT_HEARD_DBM[train.name])

    def _inputs(self, rssi: np.ndarray) -> np.ndarray:
        """(n, t) dBm → (n, transmitters heard in training) as the network sees them, by Eq. 5 or its own way."""
        return self._rssi_scaling.transform(rssi[:, self._heard])

    def _targets(self, rows: FingerprintSet) -> dict[str, np.ndarray]:
        """What the network should say, by output. A label that no training row has is none of the classes."""
        one_hot = {
            name: (getattr(rows, name)[:, None] == labels).astype(np.float32) for name, labels in self._labels.items()
        }
        return {"position": self._position_scaling.transform(rows.position)} | one_hot

    def _losses(self) -> str | dict[str, str]:
        return {"position": self.position_loss} | dict.fromkeys(self._labels, "categorical_crossentropy")

    def _train(self, network: keras.Model, part: tuple, held_out: tuple, loss: str | dict) -> int:
        """Train any network as the settings say, and return the number of epochs."""
        names = ("epochs", "patience", "batch_size", "learning_rate", "decay")
        settings = {name: getattr(self, name) for name in names} | {"label": type(self).__name__}
        return len(training.fit(network, part, held_out, loss=loss, **settings))

    def _category(self, x, name: str):
        """The output that tells `name`: one probability a label."""
        return models.dense(len(self._labels[name]), activation="softmax", name=name)(x)

    def _build(self, x: np.ndarray, held_out: np.ndarray) -> keras.Model:
        """The untrained network for such inputs, with outputs by name; what it is built on, it may learn from them."""
        raise NotImplementedError


@dataclass
class PlainMLP(Comparator):
    """What one would try first: dense layers with ReLU, MSE on scaled coordinates, Adam. All of it is ours."""

    epochs: int = 30
    patience: int | None = 8
    batch_size: int = 64
    learning_rate: float = 1e-3
    decay: bool = True
    hidden: tuple[int, ...] = (512, 256, 128)

    def _build(self, x: np.ndarray, held_out: np.ndarray) -> keras.Model:
        inputs = outputs = keras.Input(x.shape[1:], name="rssi")
        for width in self.hidden:
            outputs = models.dense(width, activation="relu")(outputs)
        return keras.Model(inputs, {"position": models.dense(2, name="position")(outputs)})


@dataclass
class AnagnostopoulosMLP(Comparator):
    """The multilayer perceptron of Anagnostopoulos & Kalousis 2019 (WPNC), the best of their LoRaWAN comparison.

    Theirs: exponential or powed RSSI above the weakest training level less 1 dB, the layers, dropout 0.15, batches of
    512, Adam at 5·10⁻⁴, the mean absolute error, training until validation rows get no better. Ours: which of the two
    representations, 0 for "not heard" in the exponential one, and, because so few epochs are affordable, four times
    smaller batches and a rate four times higher that falls to 0. In as many epochs their batches and rate come less
    far; `SEARCHED` has both.

    Raises:
        ValueError: if the representation is none of the two.
    """

    epochs: int = 12
    patience: int | None = 8
    batch_size: int = 128
    learning_rate: float = 2e-3
    decay: bool = True
    representation: str = "exponential"
    position_loss: ClassVar[str] = "mae"

    def __post_init__(self):
        if self.representation not in ("exponential", "powed"):
            raise ValueError(f"`representation` must be exponential or powed. Received: {self.representation}")

    def _learn_inputs(self, train: FingerprintSet) -> None:
        self._minimum = float(np.nanmin(train.rssi)) - 1

    def _inputs(self, rssi: np.ndarray) -> np.ndarray:
        rssi = rssi[:, self._heard]
        if self.representation == "powed":
            return powed(rssi, self._minimum, exponent=1.1)
        return exponential(rssi, self._minimum)

    def _build(self, x: np.ndarray, held_out: np.ndarray) -> keras.Model:
        inputs = keras.Input(x.shape[1:], name="rssi")
        outputs = models.dense_blocks(inputs, (1024, 1024, 1024, 256, 128, 128), dropout=0.15, name="hidden")
        return keras.Model(inputs, {"position": models.dense(2, name="position")(outputs)})


@dataclass
class HADNN(Comparator):
    """The hierarchical auxiliary network of Cha & Lim 2022 (Applied Soft Computing 120), with buildings and floors.

    Theirs: one network, trained as a whole, in which the building's probabilities help to tell the floor, and both to
    tell the position. Ours: widths, dropout, the weight of the position's loss, and all of the training.
    """

    epochs: int = 40
    patience: int | None = 8
    batch_size: int = 256
    learning_rate: float = 1e-3
    span: float = 50.0
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.2
    categories: ClassVar[tuple[str, ...]] = CATEGORIES
    indoors_only: ClassVar[bool] = True

    def _build(self, x: np.ndarray, held_out: np.ndarray) -> keras.Model:
        inputs = keras.Input(x.shape[1:], name="rssi")
        features = models.dense_blocks(inputs, self.hidden, self.dropout, "shared")
        outputs = {}
        for level in (*self.categories, "position"):
            known = layers.Concatenate(name=f"{level}_inputs")([features, *outputs.values()]) if outputs else features
            own = models.dense_blocks(known, self.hidden[-1:], self.dropout, level)
            outputs[level] = self._category(own, level) if level in self._labels else models.dense(2, name=level)(own)
        return keras.Model(inputs, outputs)


class RssiNoise(layers.Layer):
    """While training, Gaussian noise on what a scan hears: no copies of rows that could come to lie on both sides.

    Args:
        deviation: (t,) standard deviation of each transmitter's noise, in units of the scaled RSSI.
        not_heard: the scaled level of "not heard", which stays what it is.
    """

    def __init__(self, deviation: np.ndarray, not_heard: float = 0.0, **settings):
        super().__init__(**settings)
        self.deviation, self.not_heard = deviation.astype(np.float32), not_heard
        self.random = keras.random.SeedGenerator(models.layer_seed())

    def call(self, x, training: bool = False):
        if not training:
            return x
        noise = self.deviation * keras.random.normal(keras.ops.shape(x), seed=self.random)
        return keras.ops.where(x == self.not_heard, x, x + noise)


def ridge_regression(features: np.ndarray, targets: np.ndarray, ridge: float) -> np.ndarray:
    """(n, f) and (n, t) → (f, t) weights w that minimise ‖features · w − targets‖² + ridge · ‖w‖²."""
    features = features.astype(np.float64)
    return np.linalg.solve(features.T @ features + ridge * np.eye(features.shape[1]), features.T @ targets)


def elm_encoder(x: np.ndarray, units: int, ridge: float) -> np.ndarray:
    """(n, t) → (t, units), the weights that encode: those that decode a random hidden layer, turned round.

    The autoencoder of Kasun et al. 2013, "Representational learning with extreme learning machine for big data":
    only the output weights β of the hidden layer sigmoid(x · A + b) are learnt, and x · βᵀ are the features.
    """
    rng = np.random.default_rng(models.layer_seed())
    random, bias = rng.normal(size=(x.shape[1], units)) / np.sqrt(x.shape[1]), rng.normal(size=units)
    return ridge_regression(1 / (1 + np.exp(-(x @ random + bias))), x, ridge).T


@dataclass
class EACNN(Comparator):
    """EA-CNN of Alitaleshi et al. 2023 (Engineering Applications of Artificial Intelligence 117).

    Theirs: the features of an extreme learning machine's autoencoder, laid out as an image for a two-dimensional
    convolutional network; Gaussian noise on the training rows in proportion to how much each transmitter's RSSI varies.
    Ours: all sizes, the amount of noise, which is drawn anew in every epoch, where theirs is in copies of the rows, the
    weight of the position's loss and all of the training. Outdoors it tells the position alone.
    """

    epochs: int = 20
    patience: int | None = 8
    batch_size: int = 64
    learning_rate: float = 1e-3
    decay: bool = True
    span: float = 50.0
    side: int = 12
    filters: tuple[int, ...] = (16, 32)
    hidden: int = 128
    dropout: float = 0.1
    noise: float = 0.1
    ridge: float = 1.0
    categories: ClassVar[tuple[str, ...]] = CATEGORIES

    def _build(self, x: np.ndarray, held_out: np.ndarray) -> keras.Model:
        inputs = keras.Input(x.shape[1:], name="rssi")
        deviation = np.ma.masked_equal(x, 0).std(axis=0).filled(0)
        encode = layers.Dense(self.side**2, use_bias=False, trainable=False, name="elm_encoder")
        features = encode(RssiNoise(self.noise * deviation, name="noise")(inputs))
        encode.set_weights([elm_encoder(x, self.side**2, self.ridge)])
        image = layers.BatchNormalization(momentum=0.9, name="standardised")(features)
        image = layers.Reshape((self.side, self.side, 1), name="image")(image)
        for filters in self.filters:
            start = keras.initializers.GlorotUniform(models.layer_seed())
            image = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer=start)(image)
            image = layers.MaxPooling2D()(image)
        hidden = models.dense_blocks(layers.Flatten()(image), (self.hidden,), self.dropout, "hidden")
        outputs = {"position": models.dense(2, name="position")(hidden)}
        return keras.Model(inputs, outputs | {name: self._category(hidden, name) for name in self._labels})


@dataclass
class HierarchicalDNN(Comparator):
    """The scalable network of Kim, Lee & Huang 2018 (Big Data Analytics 3): one classifier of three labels a scan.

    Theirs: each scan standardised by itself; a stacked autoencoder (256-128-256, ReLU, MSE), on whose encoder a
    classifier (64-128, ReLU, dropout 0.2) tells building, floor and reference point by one sigmoid each, trained
    together with binary cross-entropy; reference points are numbered anew on every floor, so that all floors share
    outputs. The position is the mean of the reference points of that floor, weighted by their outputs: of the κ
    strongest, those of at least σ times the strongest. Ours: a reference point is a distinct training position, only
    floors that the building has are chosen from, and batches of 64 at 3·10⁻³ (theirs: 10, at Adam's default). As with
    them, training does not stop before the last epoch: the cross-entropy of validation rows is lowest long before the
    position is best.
    """

    epochs: int = 20
    patience: int | None = None
    batch_size: int = 64
    learning_rate: float = 3e-3
    hidden: tuple[int, ...] = (64, 128)
    dropout: float = 0.2
    kappa: int = 8
    sigma: float = 0.2
    categories: ClassVar[tuple[str, ...]] = CATEGORIES
    indoors_only: ClassVar[bool] = True

    def _learn_inputs(self, train: FingerprintSet) -> None:
        """The level of "not heard", and the positions of the reference points by building, floor and number."""
        self._minimum = NOT_HEARD_DBM[train.name]
        buildings, floors = self._labels.values()
        on_floor = {
            (i, j): np.unique(train.position[(train.building == building) & (train.floor == floor)], axis=0)
            for i, building in enumerate(buildings)
            for j, floor in enumerate(floors)
        }
        shape = len(buildings), len(floors), max(map(len, on_floor.values())), 2
        self._places = np.full(shape, np.nan)
        for (i, j), positions in on_floor.items():
            self._places[i, j, : len(positions)] = positions

    def _inputs(self, rssi: np.ndarray) -> np.ndarray:
        filled = np.where(np.isnan(rssi), self._minimum, rssi)[:, self._heard]
        centred = filled - filled.mean(axis=1, keepdims=True)
        return (centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-6)).astype(np.float32)

    def _targets(self, rows: FingerprintSet) -> np.ndarray:
        """(n, buildings + floors + reference points) 0/1; a place that was not trained is none of the points."""
        building, floor = (getattr(rows, name)[:, None] == labels for name, labels in self._labels.items())
        places = self._places[building.argmax(axis=1), floor.argmax(axis=1)]
        there = (places == rows.position[:, None]).all(axis=2)
        return np.concatenate([building, floor, there], axis=1).astype(np.float32)

    def _losses(self) -> str:
        return "binary_crossentropy"

    def _build(self, x: np.ndarray, held_out: np.ndarray) -> keras.Model:
        inputs = keras.Input(x.shape[1:], name="rssi")
        encoded = models.dense(128, activation="relu")(models.dense(256, activation="relu")(inputs))
        decoded = models.dense(x.shape[1], activation="relu")(models.dense(256, activation="relu")(encoded))
        self._train(keras.Model(inputs, decoded), (x, x), (held_out, held_out), "mse")
        hidden = layers.Dropout(self.dropout, seed=models.layer_seed())(encoded)
        for width in self.hidden:
            hidden = models.dense(width, activation="relu")(hidden)
            hidden = layers.Dropout(self.dropout, seed=models.layer_seed())(hidden)
        buildings, floors, places, _ = self._places.shape
        return keras.Model(inputs, models.dense(buildings + floors + places, activation="sigmoid")(hidden))

    def predict(self, rssi: np.ndarray) -> dict[str, np.ndarray]:
        """(n, t) dBm → `position` (n, 2) metres, `building` and `floor` (n,)."""
        (outputs,) = training.predict(self._network, self._inputs(rssi)).values()
        buildings, floors, _, _ = self._places.shape
        by_building, by_floor, by_place = np.split(outputs, [buildings, buildings + floors], axis=1)
        exists = ~np.isnan(self._places[..., 0])
        building = by_building.argmax(axis=1)
        floor = np.where(exists.any(axis=2)[building], by_floor, -1).argmax(axis=1)
        weights = np.where(exists[building, floor], np.maximum(by_place, np.finfo(np.float32).tiny), 0).astype(float)
        least = np.sort(weights, axis=1)[:, -self.kappa :][:, :1]
        weights[weights < np.maximum(least, self.sigma * weights.max(axis=1, keepdims=True))] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        position = np.einsum("np,npc->nc", weights, np.nan_to_num(self._places)[building, floor])
        chosen = zip(self._labels.items(), (building, floor), strict=True)
        return {"position": position} | {name: labels[found] for (name, labels), found in chosen}


NETWORKS: dict[str, Callable[..., Comparator]] = {
    "mlp_plain": PlainMLP,
    "mlp_anagnostopoulos": AnagnostopoulosMLP,
    "hadnn": HADNN,
    "ea_cnn": EACNN,
    "hierarchical_dnn": HierarchicalDNN,
}
INDOORS_ONLY = frozenset(name for name, network in NETWORKS.items() if network.indoors_only)
# The settings of each network that were compared on validation rows; the first is the default.
SEARCHED: dict[str, list[dict]] = {
    "mlp_plain": [{}, {"hidden": (256, 256)}, {"hidden": (256, 256), "decay": False}],
    "mlp_anagnostopoulos": [
        {},
        {"representation": "powed"},
        {"batch_size": 512, "learning_rate": 5e-4, "decay": False},
    ],
    "hadnn": [{}, {"decay": True}, {"span": 10.0}],
    "ea_cnn": [{}, {"noise": 0.0}, {"noise": 0.3}],
    "hierarchical_dnn": [{}, {"batch_size": 32, "learning_rate": 1e-3}, {"kappa": 1}, {"sigma": 0.5}],
}
