"""The paper's networks: encoder, base model, predictive head, localizer and U-MLP, as builders and as estimators.

A dense layer is followed by batch normalisation, ReLU and dropout throughout (section III-A). The paper's text states
neither widths nor dropout rates. Those of `CONFIGS` are candidates; `make search` compares them on validation rows, and
the builders' defaults are what it chose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lib import quiet_import
from lib.data.fingerprints import FingerprintSet, in_common, names_of, require_memory
from lib.models import training
from lib.models.estimator import choice, only_environment, require_rows
from lib.models.layers import check_positive, dense, dense_blocks
from lib.models.network import NetworkEstimator
from lib.models.scaling import MinMaxScaling

with quiet_import():
    import keras
    from keras import layers, ops

# Named widths: of the hidden layers, of the latent vector z, of the intermediate vector that the base model returns.
CONFIGS = {
    "narrow": {
        "encoder": {"hidden": (256,), "latent": 64},
        "base_model": {"hidden": (256, 256), "intermediate": 128},
        "predictive_head": {"hidden": (64,)},
        "umlp": {"hidden": (256, 256, 128)},
    },
    "medium": {
        "encoder": {"hidden": (512,), "latent": 128},
        "base_model": {"hidden": (256, 256), "intermediate": 128},
        "predictive_head": {"hidden": (128,)},
        "umlp": {"hidden": (512, 512, 256)},
    },
}
DEFAULT = "narrow"
BALANCE_SEED = 42  # one choice of rows for all training seeds


def _config(name: str) -> dict:
    if name not in CONFIGS:
        raise ValueError(f"`config` must be one of {', '.join(CONFIGS)}. Received: {name}")
    return CONFIGS[name]


def encoder(n_transmitters: int, hidden: Sequence[int], latent: int, dropout: float) -> keras.Model:
    """Maps one environment's RSSI vector to the latent space that all environments share (Eq. 1).

    Args:
        n_transmitters: width of the input, access points or gateways.
        hidden: widths of the hidden layers.
        latent: size of the latent vector z.
        dropout: rate after every layer.

    Returns:
        A model (batch, n_transmitters) → (batch, latent).

    Raises:
        ValueError: if a size is not positive.

    Example:
        >>> encoder(249, hidden=(256,), latent=64, dropout=0.05).output_shape
        (None, 64)
    """
    check_positive(n_transmitters=n_transmitters, latent=latent)
    inputs = keras.Input((n_transmitters,), name="rssi")
    outputs = dense_blocks(inputs, (*hidden, latent), dropout, "encoder")
    return keras.Model(inputs, outputs, name="encoder")


def base_model(latent: int, hidden: Sequence[int], intermediate: int, dropout: float) -> keras.Model:
    """The part that is transferred between environments: latent vector → intermediate vector.

    Args:
        latent: size of the latent vector, the encoder's output.
        hidden: widths of the hidden layers.
        intermediate: size of the output.
        dropout: rate after every layer.

    Returns:
        A model (batch, latent) → (batch, intermediate).

    Raises:
        ValueError: if a size is not positive.
    """
    check_positive(latent=latent, intermediate=intermediate)
    inputs = keras.Input((latent,), name="latent")
    outputs = dense_blocks(inputs, (*hidden, intermediate), dropout, "base")
    return keras.Model(inputs, outputs, name="base_model")


def predictive_head(intermediate: int, hidden: Sequence[int], dropout: float = 0.0) -> keras.Model:
    """One environment's predictive network: intermediate vector → 2 normalised coordinates, linear output.

    Args:
        intermediate: size of the base model's output.
        hidden: widths of the hidden layers.
        dropout: rate after every hidden layer.

    Returns:
        A model (batch, intermediate) → (batch, 2).

    Raises:
        ValueError: if a size is not positive.
    """
    check_positive(intermediate=intermediate)
    inputs = keras.Input((intermediate,), name="intermediate")
    x = dense_blocks(inputs, hidden, dropout, "head")
    return keras.Model(inputs, dense(2, name="position")(x), name="predictive_head")


def localizer(n_transmitters: int, config: str = DEFAULT, dropout: float = 0.02) -> keras.Model:
    """Encoder → base model → predictive head (the paper's Fig. 1(a)).

    Args:
        n_transmitters: width of the input.
        config: one of `CONFIGS`.
        dropout: rate in encoder and base model. The head goes without: its noise would go straight to the position.

    Returns:
        A model (batch, n_transmitters) → (batch, 2). Its layers `encoder`, `base_model` and `predictive_head` are
        models themselves; `training.transfer` copies the second.

    Raises:
        ValueError: if there is no such configuration.
    """
    sizes = _config(config)
    encode = encoder(n_transmitters, **sizes["encoder"], dropout=dropout)
    base = base_model(encode.output_shape[-1], **sizes["base_model"], dropout=dropout)
    head = predictive_head(base.output_shape[-1], **sizes["predictive_head"])
    inputs = keras.Input((n_transmitters,), name="rssi")
    return keras.Model(inputs, head(base(encode(inputs))), name="localizer")


def umlp(n_inputs: int, config: str = DEFAULT, dropout: float = 0.0) -> keras.Model:
    """The unified multilayer perceptron: one trunk, two outputs (the paper's Fig. 1(b)).

    Args:
        n_inputs: width of the input, which holds the transmitters of both environments.
        config: one of `CONFIGS`.
        dropout: rate after every layer of the trunk.

    Returns:
        A model (batch, n_inputs) → {"environment": (batch, 1) probability of outdoors, "position": (batch, 2)
        normalised coordinates}.

    Raises:
        ValueError: if the width is not positive or there is no such configuration.
    """
    check_positive(n_inputs=n_inputs)
    inputs = keras.Input((n_inputs,), name="rssi")
    x = dense_blocks(inputs, _config(config)["umlp"]["hidden"], dropout, "trunk")
    outputs = {
        "environment": dense(1, activation="sigmoid", name="environment")(x),
        "position": dense(2, name="position")(x),
    }
    return keras.Model(inputs, outputs, name="umlp")


# === From dBm, and to metres ===


@keras.saving.register_keras_serializable("fingerprints")
class ScaledColumns(layers.Layer):
    """(n, t) dBm with NaN = not heard → (n, k) scaled RSSI (Eq. 5) of one environment or of several side by side.

    Args:
        columns: for each environment, the numbers of its transmitters among the t.
        minimum, maximum: (e,) x_min and x_max in dBm of each environment. "Not heard" counts as x_min.
        lower, upper: the bounds a and b of Eq. 5.
        shared: whether all environments use the same k columns, so that which columns are in use does not give the
            environment away, or each has columns of its own, as in the paper.
    """

    def __init__(
        self,
        columns: Sequence[Sequence[int]],
        minimum: Sequence[float],
        maximum: Sequence[float],
        lower: float,
        upper: float,
        shared: bool = False,
        **settings,
    ):
        super().__init__(**settings)
        self.columns = [list(map(int, numbers)) for numbers in columns]
        self.minimum, self.maximum = list(map(float, minimum)), list(map(float, maximum))
        self.lower, self.upper, self.shared = lower, upper, shared

    def call(self, rssi):
        blocks = []
        width = max(map(len, self.columns))
        for numbers, minimum, maximum in zip(self.columns, self.minimum, self.maximum, strict=True):
            levels = ops.take(rssi, np.int32(numbers), axis=1)
            levels = ops.where(ops.isnan(levels), np.float32(minimum), levels)
            slope = (self.upper - self.lower) / (maximum - minimum)
            scaled = self.lower + (levels - minimum) * slope
            if self.shared:
                scaled = ops.pad(scaled, ((0, 0), (0, width - len(numbers))), constant_values=self.lower)
            blocks.append(scaled)
        if not self.shared:
            return ops.concatenate(blocks, axis=1)
        return ops.max(ops.stack(blocks), axis=0)

    def get_config(self):
        names = ("columns", "minimum", "maximum", "lower", "upper", "shared")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("fingerprints")
class PositionInMetres(layers.Layer):
    """[(n, 2) scaled position, (n, e) one-hot environment] → (n, 2) metres in the frame of that environment.

    Args:
        minimum, maximum: (e, 2) metres that 0 and 1 stand for.
    """

    def __init__(self, minimum: Sequence[Sequence[float]], maximum: Sequence[Sequence[float]], **settings):
        super().__init__(**settings)
        self.minimum, self.maximum = np.float32(minimum), np.float32(maximum)

    def call(self, inputs):
        scaled, environment = inputs
        lowest = ops.matmul(environment, self.minimum)
        extent = ops.matmul(environment, self.maximum - self.minimum)
        return lowest + extent * scaled

    def get_config(self):
        return super().get_config() | {"minimum": self.minimum.tolist(), "maximum": self.maximum.tolist()}


@keras.saving.register_keras_serializable("fingerprints")
class LikelierEnvironment(layers.Layer):
    """(n, 1) probability of the second environment → (n, 2) one-hot environment."""

    def call(self, probability):
        second = ops.cast(probability > 0.5, "float32")
        return ops.concatenate([1 - second, second], axis=1)


@keras.saving.register_keras_serializable("fingerprints")
class HeardEnvironment(layers.Layer):
    """(n, t) dBm → (n, 2) one-hot: the environment of which a scan hears more transmitters, of equals the first.

    Args:
        columns: for each of the two environments, the numbers of its transmitters among the t.
    """

    def __init__(self, columns: Sequence[Sequence[int]], **settings):
        super().__init__(**settings)
        self.columns = [list(map(int, numbers)) for numbers in columns]

    def call(self, rssi):
        heard = ops.cast(ops.logical_not(ops.isnan(rssi)), "float32")
        counts = [ops.sum(ops.take(heard, np.int32(numbers), axis=1), axis=1) for numbers in self.columns]
        second = ops.cast(counts[1] > counts[0], "float32")
        return ops.stack([1 - second, second], axis=1)

    def get_config(self):
        return super().get_config() | {"columns": self.columns}


# === As estimators ===


class _Scaled:
    """What a network of the paper needs to know of an environment: its transmitters and the ranges of Eq. 5."""

    def __init__(
        self, train: FingerprintSet, transmitters: Sequence[str] | None, inputs: Sequence[str], bounds: Sequence[float]
    ):
        if transmitters is None:
            names = np.array(train.transmitters, dtype=object)
            transmitters = names[train.heard.any(axis=0)]
        place = {name: number for number, name in enumerate(inputs)}
        self.columns = [place[name] for name in transmitters]
        rssi = train.scans.of(tuple(transmitters))
        self.rssi = MinMaxScaling.of_rssi(rssi, train.not_heard_dbm, *bounds)
        self.position = MinMaxScaling.of_position(train.position)

    def x(self, rssi: np.ndarray) -> np.ndarray:
        """(n, t) dBm of all inputs → (n, k) scaled RSSI of this environment's transmitters."""
        require_memory(len(rssi), len(self.columns))
        return self.rssi.transform(rssi[:, self.columns])


def _scaled_columns(environments: Sequence[_Scaled], shared: bool = False) -> ScaledColumns:
    first = environments[0].rssi
    return ScaledColumns(
        columns=[environment.columns for environment in environments],
        minimum=[environment.rssi.minimum[0] for environment in environments],
        maximum=[environment.rssi.maximum[0] for environment in environments],
        lower=first.lower,
        upper=first.upper,
        shared=shared,
        name="scaling",
    )


def _in_metres(environments: Sequence[_Scaled]) -> PositionInMetres:
    minimum = [environment.position.minimum for environment in environments]
    maximum = [environment.position.maximum for environment in environments]
    return PositionInMetres(minimum, maximum, name="metres")


@dataclass(kw_only=True, eq=False)
class Encoder(NetworkEstimator):
    """Encoder, base model and predictive head for one environment (Fig. 1(a)), from scratch or transferred (Eq. 4).

    Args:
        config: the widths, one of `CONFIGS`.
        dropout: see `localizer`.
        epochs, batch_size, learning_rate, decay: see `training.fit`.
        bounds: a and b of Eq. 5.
        inputs: names of the transmitters that it takes; None takes those that a training row hears.
        source: a fitted Encoder of another environment, whose base model is the start; None starts from scratch.
        frozen: whether the base model stays as it is given.
        updates_only: takes no weights from the source, but trains for as many batches more as the source has made.
        spoilt: `labels` puts the training positions into a random order; `scans` also draws each transmitter's levels
            from another row, so that nothing is left to learn but how often they occur.
        passes: over the rows in an epoch, for a small share of them.

    Raises:
        ValueError: if `spoilt` is none of these.
    """

    config: str = DEFAULT
    dropout: float = 0.02
    epochs: int = 50
    batch_size: int = 256
    learning_rate: float = 0.01
    decay: bool = True
    bounds: Sequence[float] = (0.0, 1.0)
    inputs: Sequence[str] | None = None
    source: "Encoder | None" = None
    frozen: bool = False
    updates_only: bool = False
    spoilt: str | None = None
    passes: int = 1

    def __post_init__(self):
        if self.spoilt is not None:
            choice("spoilt", self.spoilt, ("labels", "scans"))

    def _untrained(self, width: int) -> keras.Model:
        network = localizer(width, self.config, self.dropout)
        if self.source is not None and not self.updates_only:
            training.transfer(self.source.network.get_layer("localizer"), network)
        network.get_layer("base_model").trainable = not self.frozen
        return network

    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """See `Estimator.fit`. Validation rows give curves, and choose nothing."""
        train, validation = only_environment(train, validation)
        if self.source is None and (self.frozen or self.updates_only):
            raise ValueError("`source` must be a fitted Encoder where `frozen` or `updates_only`. Received: None")
        self.transmitters, self.environments = tuple(self.inputs or train.transmitters), (train.name,)
        scaled = _Scaled(train, self.inputs, self.transmitters, self.bounds)
        x, y = scaled.x(train.scans.of(self.transmitters)), scaled.position.transform(train.position)
        x, y = self._spoil(x, y, seed)
        held_out = None
        if len(validation):
            asked = scaled.x(validation.scans.of(self.transmitters))
            held_out = asked, scaled.position.transform(validation.position)
        rows = np.tile(np.arange(len(x)), self.passes)
        batches = -(-len(rows) // self.batch_size)
        epochs = self.epochs
        if self.updates_only:
            epochs += round(self.source.updates / batches)
        self.n_train, self.updates = [len(train)], epochs * batches
        keras.utils.set_random_seed(seed)
        network = self._untrained(x.shape[1])
        self.curves = training.fit(
            network,
            (x[rows], y[rows]),
            held_out,
            loss="mse",
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            decay=self.decay,
            reuse=True,
            label=f"encoder, {train.name}",
        )
        rssi = keras.Input((len(self.transmitters),), name="rssi")
        position = network(_scaled_columns([scaled])(rssi))
        metres = _in_metres([scaled])([position, ops.ones_like(position[:, :1])])
        self.network = keras.Model(rssi, {"position": metres}, name="encoder_localizer")
        return self

    def _spoil(self, x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows as `spoilt` says."""
        if self.spoilt is None:
            return x, y
        rng = np.random.default_rng(seed)
        y = y[rng.permutation(len(y))]
        if self.spoilt == "scans":
            x = rng.permuted(x, axis=0)
        return x, y

    def fitted(self) -> dict:
        """See `NetworkEstimator.fitted`."""
        return super().fitted() | {"updates": self.updates}

    def take(self, fitted: Mapping) -> None:
        """See `NetworkEstimator.take`."""
        super().take(fitted)
        self.updates = fitted["updates"]


def balanced(environment: np.ndarray, seed: int) -> np.ndarray:
    """(n, 1) numbers of environments → shuffled row numbers with equally many of each, as many as the rarest has."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(environment[:, 0] == number) for number in np.unique(environment)]
    count = min(map(len, members))
    chosen = [rng.choice(rows, count, replace=False) for rows in members]
    return rng.permutation(np.concatenate(chosen))


@dataclass(kw_only=True, eq=False)
class UMLP(NetworkEstimator):
    """The unified multilayer perceptron for two environments: one trunk, environment and position (Fig. 1(b)).

    It learns from equally many rows of both, as in the paper.

    Args:
        config: the widths, one of `CONFIGS`.
        dropout: after every layer of the trunk.
        epochs, batch_size, learning_rate: see `training.fit`.
        bounds: a and b of Eq. 5.
        inputs: for each environment, the transmitters that it takes; None takes those that a training row hears.
        shared_columns: whether both environments use the same columns, see `ScaledColumns`.
        learns: 0 or 1 trains with the rows of that environment alone, the paper's In and Out. Such a network cannot
            tell environments apart: its position is read in the range of the environment that a scan hears.
        passes: over the rows in an epoch, for a small share of them.

    Raises:
        ValueError: if one environment is to be learnt alone in shared columns.
    """

    config: str = DEFAULT
    dropout: float = 0.0
    epochs: int = 60
    batch_size: int = 256
    learning_rate: float = 0.01
    bounds: Sequence[float] = (0.0, 1.0)
    inputs: Sequence[Sequence[str]] | None = None
    shared_columns: bool = False
    learns: int | None = None
    passes: int = 1

    def __post_init__(self):
        if self.shared_columns and self.learns is not None:
            raise ValueError(f"`learns` must be None with shared columns. Received: learns={self.learns}")

    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """See `Estimator.fit`. Validation rows give curves, and choose nothing.

        Raises:
            ValueError: if there are not two environments.
        """
        require_rows(train, validation)
        if len(train) != 2:
            raise ValueError(f"the U-MLP learns two environments. Received: {len(train)}")
        self.environments = tuple(fingerprints.name for fingerprints in train)
        if self.inputs is None:
            self.transmitters = names_of(train)
        else:
            self.transmitters = tuple(dict.fromkeys(name for names in self.inputs for name in names))
        scaled = [
            _Scaled(fingerprints, names, self.transmitters, self.bounds)
            for fingerprints, names in zip(train, self.inputs or (None, None), strict=True)
        ]
        x, y = self._rows(train, scaled)
        chosen = balanced(y["environment"], BALANCE_SEED)
        if self.learns is not None:
            chosen = chosen[y["environment"][chosen, 0] == self.learns]
        learnt = np.bincount(y["environment"][chosen, 0].astype(int), minlength=2)
        self.n_train = learnt.tolist()
        chosen = np.tile(chosen, self.passes)
        held_out = None
        if all(map(len, validation)):
            inputs, targets = self._rows(validation, scaled)
            rows = balanced(targets["environment"], BALANCE_SEED)
            held_out = inputs[rows], {name: values[rows] for name, values in targets.items()}
        keras.utils.set_random_seed(seed)
        network = umlp(x.shape[1], self.config, self.dropout)
        self.curves = training.fit(
            network,
            (x[chosen], {name: values[chosen] for name, values in y.items()}),
            held_out,
            loss={"environment": "binary_crossentropy", "position": "mse"},
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            reuse=True,
            label="U-MLP",
        )
        self.network = self._from_dbm(network, scaled)
        return self

    def _rows(self, sets: Sequence[FingerprintSet], scaled: Sequence[_Scaled]) -> tuple[np.ndarray, dict]:
        """x and y of the rows of both environments, those of the first one first."""
        rssi = in_common([fingerprints.scans for fingerprints in sets]).of(self.transmitters)
        blocks = [environment.x(rssi) for environment in scaled]
        if self.shared_columns:
            x = np.full((len(rssi), max(block.shape[1] for block in blocks)), self.bounds[0], dtype=np.float32)
            for block in blocks:
                x[:, : block.shape[1]] = np.maximum(x[:, : block.shape[1]], block)
        else:
            x = np.concatenate(blocks, axis=1)
        counts = [len(fingerprints) for fingerprints in sets]
        environment = np.repeat(np.float32([0, 1]), counts)[:, None]
        positions = [
            environment.position.transform(fingerprints.position)
            for environment, fingerprints in zip(scaled, sets, strict=True)
        ]
        return x, {"environment": environment, "position": np.concatenate(positions)}

    def _from_dbm(self, network: keras.Model, scaled: Sequence[_Scaled]) -> keras.Model:
        """The trained network with Eq. 5 before it and metres after it."""
        rssi = keras.Input((len(self.transmitters),), name="rssi")
        outputs = network(_scaled_columns(scaled, self.shared_columns)(rssi))
        if self.learns is None:
            environment = LikelierEnvironment(name="likelier")(outputs["environment"])
        else:
            environment = HeardEnvironment([ranges.columns for ranges in scaled], name="heard")(rssi)
        located = {"position": _in_metres(scaled)([outputs["position"], environment])}
        if self.learns is None:
            located["environment"] = environment
        return keras.Model(rssi, located, name="umlp_localizer")
