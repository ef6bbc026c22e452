"""Networks of other authors, each as its paper describes it, and a plain one.

What a paper leaves open was chosen on validation rows (notebook 00), and each docstring says what that is. Our own
choices, common to all: inputs that no training row hears are dropped, the validation rows may stop the training, and
none is trained for more than a few dozen epochs, so that each can be trained with many seeds on one core.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from lib import quiet_import
from lib.data.fingerprints import FingerprintSet, Scans
from lib.models import layers, training
from lib.models.estimator import Estimator, Located, choice, nothing_located, only_environment
from lib.models.scaling import MinMaxScaling, exponential, powed

with quiet_import():
    import keras

CATEGORIES = ("building", "floor")


@dataclass
class SingleEnvironmentNetwork(Estimator):
    """A network that learns one environment: RSSI in dBm in, position, building and floor out.

    Attributes:
        epochs: the largest number of epochs.
        patience: the training stops after so many epochs without a lower validation loss and keeps the weights of the
            best epoch; with None, or without validation rows, it takes all epochs and keeps the last weights.
        batch_size, learning_rate: of Adam.
        decay: whether the learning rate falls to 0 along a cosine over `epochs`, see `training.fit`.
        span: coordinates are scaled to [0, span], which weighs the loss of the position against the others.
        transmitters: after `fit`, names of the columns it was fitted on.
    """

    epochs: int
    patience: int | None
    batch_size: int
    learning_rate: float
    decay: bool = False
    span: float = 1.0

    categories: ClassVar[tuple[str, ...]] = ()  # what it predicts beside the position, where the rows have it
    position_loss: ClassVar[str] = "mse"

    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """Learn from `train`; `validation` decides when to stop, and nothing else.

        Raises:
            ValueError: if there are several environments, no training row hears a transmitter, all training rows have
                the same coordinate, or the network needs buildings and floors, and the rows have none.
        """
        train_rows, validation_rows = only_environment(train, validation)
        self._labels = {}
        for name in self.categories:
            values = getattr(train_rows, name)
            if values is not None:
                self._labels[name] = np.unique(values)
        if self.needs_floors and len(self._labels) < len(self.categories):
            raise ValueError(f"`train` must have {' and '.join(self.categories)}. Received: {train_rows.name} without")
        keras.utils.set_random_seed(seed)
        self.transmitters = train_rows.transmitters
        self.n_train = [len(train_rows)]
        self._heard = train_rows.heard.any(axis=0)
        self._position_scaling = replace(MinMaxScaling.of_position(train_rows.position), upper=self.span)
        self._learn_inputs(train_rows)
        x = self._inputs(train_rows.scans)
        train_part = (x, self._targets(train_rows))
        held_out = None
        validation_part = None
        if len(validation_rows):
            held_out = self._inputs(validation_rows.scans)
            validation_part = (held_out, self._targets(validation_rows))
        self._network = self._build(x, held_out)
        self.curves = self._train(self._network, train_part, validation_part, self._losses())
        return self

    def predict(self, scans: Scans) -> Located:
        """The position, and building and floor where the network predicts them."""
        if len(scans) == 0:  # on some processors, TensorFlow has no convolution of no rows
            return nothing_located(self)
        outputs = training.predict(self._network, self._inputs(scans))
        position = self._position_scaling.inverse(outputs["position"])
        chosen = {}
        for name, labels in self._labels.items():
            chosen[name] = labels[outputs[name].argmax(axis=1)]
        return Located(position, **chosen)

    def _learn_inputs(self, train: FingerprintSet) -> None:
        """Fit what `_scaled` needs on the training rows."""
        self._rssi_scaling = MinMaxScaling.of_rssi(train.rssi, train.not_heard_dbm)

    def _inputs(self, scans: Scans) -> np.ndarray:
        """(n, h) what the network sees of the transmitters that were heard in training."""
        rssi = scans.of(self.transmitters)
        return self._scaled(rssi[:, self._heard])

    def _scaled(self, rssi: np.ndarray) -> np.ndarray:
        """(n, h) dBm → (n, h) input of the network, by Eq. 5 or in the network's own way."""
        return self._rssi_scaling.transform(rssi)

    def _targets(self, rows: FingerprintSet) -> dict[str, np.ndarray] | np.ndarray:
        """The outputs that are right, by name. A label that no training row has is none of the classes."""
        targets = {"position": self._position_scaling.transform(rows.position)}
        for name, labels in self._labels.items():
            matches = getattr(rows, name)[:, None] == labels
            targets[name] = matches.astype(np.float32)
        return targets

    def _losses(self) -> str | dict[str, str]:
        losses = {"position": self.position_loss}
        for name in self._labels:
            losses[name] = "categorical_crossentropy"
        return losses

    def _train(
        self, network: keras.Model, train: tuple, validation: tuple | None, loss: str | dict[str, str]
    ) -> pd.DataFrame:
        """Train any network with these settings and return its curves."""
        return training.fit(
            network,
            train,
            validation,
            loss=loss,
            epochs=self.epochs,
            patience=None if validation is None else self.patience,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            decay=self.decay,
            label=type(self).__name__,
        )

    def _category(self, features, name: str):
        """The output for `name`: one probability a label."""
        return layers.dense(len(self._labels[name]), activation="softmax", name=name)(features)

    def _build(self, x: np.ndarray, held_out: np.ndarray | None) -> keras.Model:
        """The untrained network with outputs by name.

        Args:
            x: (n, h) inputs of the training rows, which layers may be fitted on.
            held_out: (n, h) inputs of the validation rows, which may stop the training of such layers.
        """
        raise NotImplementedError


@dataclass
class PlainMLP(SingleEnvironmentNetwork):
    """A plain baseline of our own: dense layers with ReLU, MSE on scaled coordinates, Adam."""

    epochs: int = 30
    patience: int | None = 8
    batch_size: int = 64
    learning_rate: float = 1e-3
    decay: bool = True
    hidden: tuple[int, ...] = (512, 256, 128)

    def _build(self, x: np.ndarray, held_out: np.ndarray | None) -> keras.Model:
        inputs = keras.Input(x.shape[1:], name="rssi")
        hidden = inputs
        for width in self.hidden:
            hidden = layers.dense(width, activation="relu")(hidden)
        position = layers.dense(2, name="position")(hidden)
        return keras.Model(inputs, {"position": position})


@dataclass
class AnagnostopoulosMLP(SingleEnvironmentNetwork):
    """The multilayer perceptron of Anagnostopoulos & Kalousis 2019 (WPNC), the best of their LoRaWAN comparison.

    Theirs: exponential or powed RSSI above a minimum 1 dB below the weakest training level, the layers, dropout 0.15,
    batches of 512, Adam at 5·10⁻⁴, the mean absolute error, training until the validation loss stops falling. Ours:
    which of the two representations, 0 for "not heard" in the exponential one, and, because few epochs are
    affordable, batches four times smaller and a rate four times higher that falls to 0. In the same number of epochs
    their batches and rate reach a higher error; the search on validation rows (notebook 00) compares both.

    Raises:
        ValueError: if the representation is neither `exponential` nor `powed`.
    """

    epochs: int = 12
    patience: int | None = 8
    batch_size: int = 128
    learning_rate: float = 2e-3
    decay: bool = True
    representation: str = "exponential"
    position_loss: ClassVar[str] = "mae"

    def __post_init__(self):
        choice("representation", self.representation, ("exponential", "powed"))

    def _learn_inputs(self, train: FingerprintSet) -> None:
        self._minimum = float(np.nanmin(train.rssi)) - 1

    def _scaled(self, rssi: np.ndarray) -> np.ndarray:
        if self.representation == "powed":
            return powed(rssi, self._minimum, exponent=1.1)
        return exponential(rssi, self._minimum)

    def _build(self, x: np.ndarray, held_out: np.ndarray | None) -> keras.Model:
        inputs = keras.Input(x.shape[1:], name="rssi")
        hidden = layers.dense_blocks(inputs, (1024, 1024, 1024, 256, 128, 128), dropout=0.15, name="hidden")
        position = layers.dense(2, name="position")(hidden)
        return keras.Model(inputs, {"position": position})


@dataclass
class HADNN(SingleEnvironmentNetwork):
    """The hierarchical auxiliary network of Cha & Lim 2022 (Applied Soft Computing 120), with buildings and floors.

    Theirs: one network, trained as a whole; the building's probabilities are an input of the floor's classifier, and
    both are inputs of the position's regression. Ours: widths, dropout, the weight of the position's loss, and all of
    the training.
    """

    epochs: int = 40
    patience: int | None = 8
    batch_size: int = 256
    learning_rate: float = 1e-3
    span: float = 50.0
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.2
    categories: ClassVar[tuple[str, ...]] = CATEGORIES
    needs_floors: ClassVar[bool] = True

    def _build(self, x: np.ndarray, held_out: np.ndarray | None) -> keras.Model:
        inputs = keras.Input(x.shape[1:], name="rssi")
        features = layers.dense_blocks(inputs, self.hidden, self.dropout, "shared")
        building = self._category(self._branch([features], "building"), "building")
        floor = self._category(self._branch([features, building], "floor"), "floor")
        branch = self._branch([features, building, floor], "position")
        position = layers.dense(2, name="position")(branch)
        return keras.Model(inputs, {"building": building, "floor": floor, "position": position})

    def _branch(self, parts: list, name: str):
        """The layers of one output, on the shared features and the outputs of the levels above it."""
        inputs = parts[0]
        if len(parts) > 1:
            inputs = keras.layers.Concatenate(name=f"{name}_inputs")(parts)
        return layers.dense_blocks(inputs, self.hidden[-1:], self.dropout, name)


class RssiNoise(keras.layers.Layer):
    """Gaussian noise on what a scan hears, in training only.

    Noise that is drawn anew needs no noisy copies of rows, which a later split could place on both sides.

    Args:
        deviation: (t,) standard deviation of each transmitter's noise, in units of the scaled RSSI. Inputs of 0 stand
            for "not heard" and stay 0.
    """

    def __init__(self, deviation: np.ndarray, **settings):
        super().__init__(**settings)
        self.deviation = deviation.astype(np.float32)
        self.random = keras.random.SeedGenerator(layers.layer_seed())

    def call(self, x, training: bool = False):
        if not training:
            return x
        noise = self.deviation * keras.random.normal(keras.ops.shape(x), seed=self.random)
        return keras.ops.where(x == 0, x, x + noise)


def ridge_regression(features: np.ndarray, targets: np.ndarray, ridge: float) -> np.ndarray:
    """(n, f) and (n, t) → (f, t) weights w that minimise ‖features · w − targets‖² + ridge · ‖w‖²."""
    features = features.astype(np.float64)
    regularised = features.T @ features + ridge * np.eye(features.shape[1])
    return np.linalg.solve(regularised, features.T @ targets)


def elm_encoder(x: np.ndarray, units: int, ridge: float) -> np.ndarray:
    """(n, t) → (t, units), the weights of an encoder: the transpose of those that decode a random hidden layer.

    The autoencoder of Kasun et al. 2013, "Representational learning with extreme learning machine for big data":
    only the output weights β of the hidden layer sigmoid(x · A + b) are learnt, and x · βᵀ are the features.
    """
    rng = np.random.default_rng(layers.layer_seed())
    inputs = x.shape[1]
    weights = rng.normal(size=(inputs, units)) / np.sqrt(inputs)
    bias = rng.normal(size=units)
    hidden = 1 / (1 + np.exp(-(x @ weights + bias)))
    return ridge_regression(hidden, x, ridge).T


@dataclass
class EACNN(SingleEnvironmentNetwork):
    """EA-CNN of Alitaleshi et al. 2023 (Engineering Applications of Artificial Intelligence 117).

    Theirs: the features of an extreme learning machine's autoencoder, laid out as an image for a two-dimensional
    convolutional network; Gaussian noise on the training rows in proportion to the deviation of each transmitter's
    RSSI. Ours: all sizes, the amount of noise, which is drawn anew in every epoch (theirs is in copies of the rows),
    the weight of the position's loss and all of the training. Without buildings and floors it predicts the position
    alone.
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

    def _build(self, x: np.ndarray, held_out: np.ndarray | None) -> keras.Model:
        inputs = keras.Input(x.shape[1:], name="rssi")
        deviation = np.ma.masked_equal(x, 0).std(axis=0).filled(0)
        encoder = keras.layers.Dense(self.side**2, use_bias=False, trainable=False, name="elm_encoder")
        noisy = RssiNoise(self.noise * deviation, name="noise")(inputs)
        features = encoder(noisy)
        encoder.set_weights([elm_encoder(x, self.side**2, self.ridge)])
        image = keras.layers.BatchNormalization(momentum=0.9, name="standardised")(features)
        image = keras.layers.Reshape((self.side, self.side, 1), name="image")(image)
        for filters in self.filters:
            start = keras.initializers.GlorotUniform(layers.layer_seed())
            convolution = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer=start)
            image = convolution(image)
            image = keras.layers.MaxPooling2D()(image)
        flat = keras.layers.Flatten()(image)
        hidden = layers.dense_blocks(flat, (self.hidden,), self.dropout, "hidden")
        outputs = {"position": layers.dense(2, name="position")(hidden)}
        for name in self._labels:
            outputs[name] = self._category(hidden, name)
        return keras.Model(inputs, outputs)


@dataclass
class HierarchicalDNN(SingleEnvironmentNetwork):
    """The scalable network of Kim, Lee & Huang 2018 (Big Data Analytics 3): one classifier of three labels a scan.

    Theirs: each scan standardised by itself; a stacked autoencoder (256-128-256, ReLU, MSE), on whose encoder a
    classifier (64-128, ReLU, dropout 0.2) has one sigmoid for each building, floor and reference point, trained
    together with binary cross-entropy; reference points are numbered from 0 on every floor, so that all floors share
    outputs. The position is the mean of the reference points of that floor, weighted by their outputs: of the κ
    strongest, those of at least σ times the strongest. Ours: a reference point is a distinct training position, only
    floors that the building has are candidates, and batches of 64 at 3·10⁻³ (theirs: 10, at Adam's default). As with
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
    needs_floors: ClassVar[bool] = True

    def _learn_inputs(self, train: FingerprintSet) -> None:
        """The level of "not heard", and the positions of the reference points by building, floor and number."""
        self._minimum = train.not_heard_dbm
        buildings, floors = self._labels["building"], self._labels["floor"]
        on_floor = {}
        for i, building in enumerate(buildings):
            for j, floor in enumerate(floors):
                rows = (train.building == building) & (train.floor == floor)
                on_floor[i, j] = np.unique(train.position[rows], axis=0)
        most = max(map(len, on_floor.values()))
        self._places = np.full((len(buildings), len(floors), most, 2), np.nan)
        for (i, j), positions in on_floor.items():
            self._places[i, j, : len(positions)] = positions

    def _scaled(self, rssi: np.ndarray) -> np.ndarray:
        """Each scan with mean 0 and deviation 1; one that hears nothing is all 0."""
        filled = np.where(np.isnan(rssi), self._minimum, rssi)
        centred = filled - filled.mean(axis=1, keepdims=True)
        deviation = centred.std(axis=1, keepdims=True)
        return (centred / np.maximum(deviation, 1e-6)).astype(np.float32)

    def _targets(self, rows: FingerprintSet) -> np.ndarray:
        """(n, buildings + floors + reference points) 0/1; a position that was not trained is none of the points."""
        building = rows.building[:, None] == self._labels["building"]
        floor = rows.floor[:, None] == self._labels["floor"]
        places = self._places[building.argmax(axis=1), floor.argmax(axis=1)]
        place = (places == rows.position[:, None]).all(axis=2)
        return np.concatenate([building, floor, place], axis=1).astype(np.float32)

    def _losses(self) -> str:
        return "binary_crossentropy"

    def _build(self, x: np.ndarray, held_out: np.ndarray | None) -> keras.Model:
        """The classifier on an encoder that is trained here."""
        inputs = keras.Input(x.shape[1:], name="rssi")
        # Creating a layer draws its seed. This order is that of the committed results.
        code = layers.dense(128, activation="relu")
        encoded = code(layers.dense(256, activation="relu")(inputs))
        reconstruction = layers.dense(x.shape[1], activation="relu")
        decoded = reconstruction(layers.dense(256, activation="relu")(encoded))
        validation = None if held_out is None else (held_out, held_out)
        self._train(keras.Model(inputs, decoded), (x, x), validation, "mse")
        hidden = keras.layers.Dropout(self.dropout, seed=layers.layer_seed())(encoded)
        for width in self.hidden:
            hidden = layers.dense(width, activation="relu")(hidden)
            hidden = keras.layers.Dropout(self.dropout, seed=layers.layer_seed())(hidden)
        buildings, floors, places, _ = self._places.shape
        outputs = layers.dense(buildings + floors + places, activation="sigmoid")(hidden)
        return keras.Model(inputs, outputs)

    def predict(self, scans: Scans) -> Located:
        """Building, floor, and the weighted mean of the reference points there."""
        outputs = training.predict(self._network, self._inputs(scans))["position"]
        buildings, floors, _, _ = self._places.shape
        by_building, by_floor, by_place = np.split(outputs, [buildings, buildings + floors], axis=1)
        exists = ~np.isnan(self._places[..., 0])
        has_floor = exists.any(axis=2)
        building = by_building.argmax(axis=1)
        floor = np.where(has_floor[building], by_floor, -1).argmax(axis=1)
        weights = self._weights(by_place, exists[building, floor])
        places = np.nan_to_num(self._places)[building, floor]
        position = np.einsum("np,npc->nc", weights, places)
        return Located(
            position,
            building=self._labels["building"][building],
            floor=self._labels["floor"][floor],
        )

    def _weights(self, strengths: np.ndarray, exists: np.ndarray) -> np.ndarray:
        """(n, p) outputs of the reference points, and which of them the floor has → (n, p) weights with sum 1."""
        positive = np.maximum(strengths, np.finfo(np.float32).tiny)
        weights = np.where(exists, positive, 0).astype(float)
        strongest = np.sort(weights, axis=1)[:, -self.kappa :]
        least = np.maximum(strongest[:, :1], self.sigma * strongest[:, -1:])
        weights[weights < least] = 0
        return weights / weights.sum(axis=1, keepdims=True)
