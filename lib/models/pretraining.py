"""The paper's transfer from many environments: one base model that several of them train together (section III-C)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lib import quiet_import
from lib.data.fingerprints import FingerprintSet, names_of
from lib.models import paper, training
from lib.models.estimator import require_rows
from lib.models.paper import Encoder, PositionInMetres, ScaledColumns
from lib.models.scaling import MinMaxScaling

with quiet_import():
    import keras
    from keras import layers, ops


def _named(network: keras.Model, name: str) -> keras.Model:
    """The same layers under another name: those of one network must differ."""
    return keras.Model(network.input, network.output, name=name)


def localizer_of_many(widths: Sequence[int], config: str = paper.DEFAULT, dropout: float = 0.02) -> keras.Model:
    """One encoder and one predictive head for each environment, around one base model.

    A row of the input has a scan of each environment, side by side. The base model takes them one after another, so
    that its batch normalisation sees all environments at once.

    Args:
        widths: (e,) number of transmitters of each environment.
        config: one of `paper.CONFIGS`.
        dropout: rate in encoders and base model.

    Returns:
        A model (batch, sum of the widths) → (batch, 2 e) normalised coordinates. Its layers are `encoder_0`, …, and
        `predictive_head_0`, …, and `base_model`, which `training.transfer` copies.

    Raises:
        ValueError: if there is no such configuration, or a width is not positive.
    """
    inputs = keras.Input((sum(widths),), name="rssi")
    parts = [paper.localizer(width, config, dropout) for width in widths]
    latent = []
    start = 0
    for number, (part, width) in enumerate(zip(parts, widths, strict=True)):
        encode = _named(part.get_layer("encoder"), f"encoder_{number}")
        latent.append(encode(inputs[:, start : start + width]))
        start += width
    base = parts[0].get_layer("base_model")
    intermediate = ops.split(base(ops.concatenate(latent, axis=0)), len(widths), axis=0)
    positions = []
    for number, (part, values) in enumerate(zip(parts, intermediate, strict=True)):
        head = _named(part.get_layer("predictive_head"), f"predictive_head_{number}")
        positions.append(head(values))
    return keras.Model(inputs, ops.concatenate(positions, axis=1), name="localizer")


@keras.saving.register_keras_serializable("fingerprints")
class MostHeard(layers.Layer):
    """(n, t) dBm → (n, e) one-hot: the environment of which a scan hears most transmitters, of equals the first.

    Args:
        columns: for each environment, the numbers of its transmitters among the t.
    """

    def __init__(self, columns: Sequence[Sequence[int]], **settings):
        super().__init__(**settings)
        self.columns = [list(map(int, numbers)) for numbers in columns]

    def call(self, rssi):
        heard = ops.cast(ops.logical_not(ops.isnan(rssi)), "float32")
        counts = []
        for numbers in self.columns:
            counts.append(ops.sum(ops.take(heard, np.int32(numbers), axis=1), axis=1))
        most = ops.argmax(ops.stack(counts, axis=1), axis=1)
        return ops.one_hot(most, len(self.columns))

    def get_config(self):
        return super().get_config() | {"columns": self.columns}


class _Environment:
    """What the network needs to know of one environment, and its training rows scaled by Eq. 5."""

    def __init__(self, train: FingerprintSet, transmitters: Sequence[str], inputs: Sequence[str], bounds: Sequence):
        place = {name: number for number, name in enumerate(inputs)}
        self.columns = [place[name] for name in transmitters]
        rssi = train.scans.of(tuple(transmitters))
        self.rssi = MinMaxScaling.of_rssi(rssi, train.not_heard_dbm, *bounds)
        self.position = MinMaxScaling.of_position(train.position)
        self.x = self.rssi.transform(rssi)
        self.y = self.position.transform(train.position)

    def scaling(self, name: str) -> ScaledColumns:
        """The layer that does Eq. 5: (n, t) dBm of all environments → (n, k) of this one."""
        ranges = self.rssi
        return ScaledColumns([self.columns], ranges.minimum, ranges.maximum, ranges.lower, ranges.upper, name=name)


def _heard_names(fingerprints: FingerprintSet) -> tuple[str, ...]:
    """The transmitters that a row hears."""
    names = np.array(fingerprints.transmitters, dtype=object)
    return tuple(names[fingerprints.heard.any(axis=0)])


def _drawn(count: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """`rows` numbers below `count` in random order, each as often as any other or once more."""
    shuffled = rng.permutation(count)
    return rng.permutation(np.resize(shuffled, rows))


@dataclass(kw_only=True, eq=False)
class EncoderOfMany(Encoder):
    """The paper's localizer for several environments at once: what an Encoder with `source` is transferred from.

    Each environment has an encoder and a predictive head of its own. All share the base model, and an epoch passes
    over equally many rows of each. A scan is located in the environment of which it hears most transmitters.

    Args:
        config, dropout, epochs, batch_size, learning_rate, decay, bounds, spoilt: as in Encoder; a batch has rows of
            all environments.
        inputs: for each environment, the transmitters that it takes; None takes those that a training row hears.
        rows: of each environment in an epoch; of one that has more, a random choice.

    Raises:
        ValueError: if a setting is of a transferred Encoder, or `spoilt` is none of its values.
    """

    inputs: Sequence[Sequence[str]] | None = None
    rows: int = 2048

    def __post_init__(self):
        super().__post_init__()
        if self.source is not None or self.frozen or self.updates_only:
            raise ValueError("an encoder of many environments starts from scratch. Received: settings of a transfer")

    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """See `Estimator.fit`. Validation rows are left out."""
        require_rows(train, validation)
        inputs = self.inputs or list(map(_heard_names, train))
        self.environments = tuple(fingerprints.name for fingerprints in train)
        self.transmitters = names_of(train)
        if self.inputs is not None:
            self.transmitters = tuple(dict.fromkeys(name for names in inputs for name in names))
        environments = []
        for fingerprints, names in zip(train, inputs, strict=True):
            environments.append(_Environment(fingerprints, names, self.transmitters, self.bounds))
        x, y = self._side_by_side(environments, seed)
        batch_size = max(1, self.batch_size // len(train))
        self.n_train = list(map(len, train))
        self.updates = self.epochs * -(-len(x) // batch_size)
        keras.utils.set_random_seed(seed)
        network = localizer_of_many([len(one.columns) for one in environments], self.config, self.dropout)
        self.curves = training.fit(
            network,
            (x, y),
            None,
            loss="mse",
            epochs=self.epochs,
            batch_size=batch_size,
            learning_rate=self.learning_rate,
            decay=self.decay,
            reuse=True,
            label=f"encoder of {len(train)} environments",
        )
        self.network = self._from_dbm(network, environments)
        return self

    def _side_by_side(self, environments: Sequence[_Environment], seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, all transmitters) and (rows, 2 e): in each row a scan of each environment, and its position."""
        rng = np.random.default_rng(seed)
        x, y = [], []
        for environment in environments:
            scans, positions = self._spoil(environment.x, environment.y, seed)
            chosen = _drawn(len(scans), self.rows, rng)
            x.append(scans[chosen])
            y.append(positions[chosen])
        return np.concatenate(x, axis=1), np.concatenate(y, axis=1)

    def _from_dbm(self, network: keras.Model, environments: Sequence[_Environment]) -> keras.Model:
        """The trained network with Eq. 5 before it and metres after it."""
        rssi = keras.Input((len(self.transmitters),), name="rssi")
        blocks = []
        for number, environment in enumerate(environments):
            blocks.append(environment.scaling(f"scaling_{number}")(rssi))
        positions = network(ops.concatenate(blocks, axis=1))
        chosen = MostHeard([environment.columns for environment in environments], name="heard")(rssi)
        # (n, e, 2) coordinates in each environment, of which those in the chosen one are kept.
        in_each = ops.reshape(positions, (-1, len(environments), 2))
        position = ops.sum(in_each * ops.expand_dims(chosen, 2), axis=1)
        minimum = [environment.position.minimum for environment in environments]
        maximum = [environment.position.maximum for environment in environments]
        metres = PositionInMetres(minimum, maximum, name="metres")([position, chosen])
        return keras.Model(rssi, {"position": metres, "environment": chosen}, name="encoder_localizer")
