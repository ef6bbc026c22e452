"""Layers, blocks of layers and losses that the networks are built from."""

from collections.abc import Mapping, Sequence

import numpy as np

from lib import quiet_import

with quiet_import():
    import keras
    from keras import layers, ops

IMPOSSIBLE = -1e9  # log probability
HEARD_INPUT = 0.25  # of a transmitter that is heard, where there are such inputs
LEAST_PROBABILITY = 1e-30


def check_positive(**sizes: int) -> None:
    """Raise ValueError for the first size, by its name, that is not positive."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"`{name}` must be positive. Received: {name}={size}")


def layer_seed() -> int:
    """A seed for one layer, from NumPy's generator: from Python's, the layers' default, Dask's threads draw as well."""
    return int(np.random.randint(2**31))  # noqa: NPY002, this is what keras.utils.set_random_seed seeds


def dense(units: int, **settings) -> layers.Dense:
    """A dense layer whose first weights are drawn with a `layer_seed`."""
    initializer = keras.initializers.GlorotUniform(layer_seed())
    return layers.Dense(units, kernel_initializer=initializer, **settings)


def dense_blocks(x, units: Sequence[int], dropout: float, name: str):
    """Dense → batch normalisation → ReLU → dropout for each width in `units` (Eq. 2)."""
    for number, width in enumerate(units, start=1):
        check_positive(**{f"{name}_units": width})
        x = dense(width, use_bias=False, name=f"{name}_dense_{number}")(x)
        # With Keras' momentum of 0.99, the running statistics lag by whole epochs of so few steps.
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm_{number}")(x)
        x = layers.ReLU(name=f"{name}_relu_{number}")(x)
        x = layers.Dropout(dropout, seed=layer_seed(), name=f"{name}_dropout_{number}")(x)
    return x


# === What scans go through ===


@keras.saving.register_keras_serializable("fingerprints")
class Augmentation(layers.Layer):
    """Changes scans while training, as other devices, other moments and failures would: (n, t) dBm, NaN = not heard.

    Args:
        offset: standard deviation in dB of what is added to a whole scan.
        noise: standard deviation in dB of what is added to each level by itself. It is evenly distributed, which takes
            half the time to draw.
        loss: the largest share of the heard transmitters that a scan loses; each scan's share is drawn between 0 and
            that.
        deafness: the largest number of dB by which a scan's weakest level is above `weakest`; each scan's is drawn
            between 0 and that. Levels below it are lost, as by a device of less sensitivity.
        weakest: dBm.

    Each is (t,), a number for each transmitter. A scan that would lose all keeps all.
    """

    def __init__(self, offset, noise, loss, deafness, weakest, **settings):
        super().__init__(**settings)
        self.offset = np.float32(offset)
        self.noise = np.float32(noise)
        self.loss = np.float32(loss)
        self.deafness = np.float32(deafness)
        self.weakest = np.float32(weakest)
        self.random = keras.random.SeedGenerator(layer_seed())

    def call(self, rssi, training: bool = False):
        if not training:
            return rssi
        once_a_scan = (ops.shape(rssi)[0], 1)
        every_level = ops.shape(rssi)
        changed = rssi + self.offset * keras.random.normal(once_a_scan, seed=self.random)
        if self.noise.any():
            # An even distribution from −√3 to √3 has a standard deviation of 1.
            noise = keras.random.uniform(every_level, -(3**0.5), 3**0.5, seed=self.random)
            changed = changed + self.noise * noise
        share = self.loss * keras.random.uniform(once_a_scan, seed=self.random)
        threshold = self.weakest + self.deafness * keras.random.uniform(once_a_scan, seed=self.random)
        dropped = keras.random.uniform(every_level, seed=self.random) < share
        lost = ops.logical_or(dropped, changed < threshold)
        lost_or_silent = ops.logical_or(lost, ops.isnan(changed))
        nothing_left = ops.all(lost_or_silent, axis=1, keepdims=True)
        lost = ops.logical_and(lost, ops.logical_not(nothing_left))
        return ops.where(lost, np.float32(np.nan), changed)

    def get_config(self):
        return super().get_config() | {
            "offset": self.offset.tolist(),
            "noise": self.noise.tolist(),
            "loss": self.loss.tolist(),
            "deafness": self.deafness.tolist(),
            "weakest": self.weakest.tolist(),
        }


@keras.saving.register_keras_serializable("fingerprints")
class Fold(layers.Layer):
    """(n, Σt) dBm → (n, max t): the i-th transmitter of every environment in column i; of several, the loudest.

    Args:
        widths: how many transmitters each environment has; those of the first environment come first.
    """

    def __init__(self, widths: Sequence[int], **settings):
        super().__init__(**settings)
        self.widths = [int(width) for width in widths]

    def call(self, rssi):
        unheard = np.float32(-np.inf)
        widest = max(self.widths)
        rssi = ops.where(ops.isnan(rssi), unheard, rssi)
        folded = unheard
        start = 0
        for width in self.widths:
            own = rssi[:, start : start + width]
            padded = ops.pad(own, [[0, 0], [0, widest - width]], constant_values=unheard)
            folded = ops.maximum(folded, padded)
            start += width
        return ops.where(ops.isinf(folded), np.float32(np.nan), folded)

    def get_config(self):
        return super().get_config() | {"widths": self.widths}


@keras.saving.register_keras_serializable("fingerprints")
class Levels(layers.Layer):
    """(n, t) dBm with NaN = not heard → (n, k) powed RSSI of the k transmitters in use, (n, 2·k) with `heard`.

    Args:
        columns: (k,) numbers of the transmitters in use.
        minimum: (k,) dBm that maps to 0, as in `scaling.powed`.
        exponent: β.
        heard: whether a second input for each transmitter says if it is heard, however weakly.
    """

    def __init__(self, columns: Sequence[int], minimum: Sequence[float], exponent: float, heard: bool, **settings):
        super().__init__(**settings)
        self.columns = [int(column) for column in columns]
        self.minimum = [float(level) for level in minimum]
        self.exponent = exponent
        self.heard = heard

    def call(self, rssi):
        minimum = np.float32(self.minimum)
        rssi = ops.take(rssi, np.int32(self.columns), axis=1)
        silent = ops.isnan(rssi)  # not its negation, of which ONNX would make NaN · 0 where 0 is meant
        height = ops.maximum((rssi - minimum) / -minimum, 0.0)
        level = ops.where(silent, 0.0, height) ** self.exponent
        if not self.heard:
            return level
        heard = ops.cast(ops.logical_not(silent), level.dtype)
        return ops.concatenate([level, HEARD_INPUT * heard], axis=1)

    def get_config(self):
        return super().get_config() | {
            "columns": self.columns,
            "minimum": self.minimum,
            "exponent": self.exponent,
            "heard": self.heard,
        }


@keras.saving.register_keras_serializable("fingerprints")
class Audible(layers.Layer):
    """[(n, t) dBm, (n, c) logits] → (n, c) logits: in use, an environment that a scan does not hear is impossible.

    A scan that hears no environment may be of any. While training, logits stay as they are.

    Args:
        of_transmitter: (t,) the number of each transmitter's environment.
        of_output: (c,) the number of each output's environment.
    """

    def __init__(self, of_transmitter: Sequence[int], of_output: Sequence[int], **settings):
        super().__init__(**settings)
        self.of_transmitter = [int(environment) for environment in of_transmitter]
        self.of_output = [int(environment) for environment in of_output]

    def call(self, inputs, training: bool = False):
        rssi, logits = inputs
        if training:
            return logits
        one_hot = np.eye(max(self.of_transmitter) + 1, dtype=np.float32)
        heard = ops.cast(ops.logical_not(ops.isnan(rssi)), "float32")
        heard_of_each = ops.matmul(heard, one_hot[self.of_transmitter])  # (n, e)
        silent = ops.sum(heard_of_each, axis=1, keepdims=True) == 0
        audible = ops.logical_or(heard_of_each > 0, silent)
        audible_outputs = ops.matmul(ops.cast(audible, "float32"), one_hot[self.of_output].T)
        return ops.where(audible_outputs > 0, logits, IMPOSSIBLE)

    def get_config(self):
        return super().get_config() | {"of_transmitter": self.of_transmitter, "of_output": self.of_output}


# === Coordinates as a head ===


@keras.saving.register_keras_serializable("fingerprints")
class CoordinateDecoder(layers.Layer):
    """(n, 3·e) → `environment` (n, e) probabilities and `position` (n, 2) metres of a head that regresses.

    The outputs are e logits of the environment, then for each environment two coordinates, scaled by its own range.

    Args:
        lower, upper: (e, 2) metres, the ranges.
    """

    def __init__(self, lower: Sequence[Sequence[float]], upper: Sequence[Sequence[float]], **settings):
        super().__init__(**settings)
        self.lower = np.array(lower, dtype=np.float32)
        self.upper = np.array(upper, dtype=np.float32)

    @property
    def n_environments(self) -> int:
        return len(self.lower)

    def logits(self, outputs):
        """(n, 3·e) outputs → (n, e) logits of the environment."""
        return outputs[:, : self.n_environments]

    def scaled(self, outputs, environment):
        """(n, 3·e) outputs, (n, e) one-hot environments → (n, 2) scaled coordinates in that environment."""
        coordinates = ops.reshape(outputs[:, self.n_environments :], (-1, self.n_environments, 2))
        return ops.einsum("ned,ne->nd", coordinates, environment)

    def bounds(self, environment):
        """(n, e) one-hot environments → (n, 2) lower bounds and (n, 2) spans, in metres."""
        lower = ops.matmul(environment, self.lower)
        span = ops.matmul(environment, self.upper - self.lower)
        return lower, span

    def call(self, outputs):
        probabilities = ops.softmax(self.logits(outputs))
        likeliest = ops.argmax(probabilities, axis=1)
        environment = ops.one_hot(likeliest, self.n_environments)
        lower, span = self.bounds(environment)
        position = lower + span * self.scaled(outputs, environment)
        return {"environment": probabilities, "position": position}

    def get_config(self):
        return super().get_config() | {"lower": self.lower.tolist(), "upper": self.upper.tolist()}


class CoordinateLoss(keras.losses.Loss):
    """Cross-entropy of the environment plus the error of its scaled coordinates, of `CoordinateDecoder`'s input.

    Args:
        decoder: knows the ranges.
        distance: whether the error is the mean Euclidean distance, or the mean squared error as in the paper.

    Call:
        y_true: (n, 5) environment, building, floor, east, north.
        y_pred: (n, 3·e).
    """

    def __init__(self, decoder: CoordinateDecoder, distance: bool):
        super().__init__(name="coordinates")
        self.decoder = decoder
        self.distance = distance

    def call(self, y_true, y_pred):
        number = ops.cast(y_true[:, 0], "int32")
        environment = ops.one_hot(number, self.decoder.n_environments)
        lower, span = self.decoder.bounds(environment)
        true = (y_true[:, 3:] - lower) / span
        squared = (true - self.decoder.scaled(y_pred, environment)) ** 2
        logits = self.decoder.logits(y_pred)
        return self._error(squared) + ops.categorical_crossentropy(environment, logits, from_logits=True)

    def _error(self, squared):
        """(n, 2) squared errors of the coordinates → (n,)."""
        if self.distance:
            return ops.sqrt(ops.sum(squared, axis=1) + 1e-12)
        return ops.mean(squared, axis=1)

    def get_config(self):
        return {"decoder": self.decoder.get_config(), "distance": self.distance}


# === The unified network ===


@keras.saving.register_keras_serializable("fingerprints")
class Ensemble(layers.Layer):
    """Several (n, c) logits → (n, c) logarithms of the mean of their probabilities."""

    def call(self, members):
        probabilities = [ops.softmax(ops.cast(logits, "float32")) for logits in members]
        mean = sum(probabilities) / len(probabilities)
        return ops.log(ops.maximum(mean, LEAST_PROBABILITY))


@keras.saving.register_keras_serializable("fingerprints")
class Further(layers.Layer):
    """(n, c) logits → (n, c + count): of places that the members do not know, which only votes can name.

    Args:
        count: of these places.
    """

    def __init__(self, count: int, **settings):
        super().__init__(**settings)
        self.count = count

    def call(self, logits):
        return ops.pad(logits, [[0, 0], [0, self.count]], constant_values=IMPOSSIBLE)

    def get_config(self):
        return super().get_config() | {"count": self.count}


def member_network(
    n_levels: int, n_outputs: int, *, hidden: Sequence[int], dropout: float, name: str = "member"
) -> keras.Model:
    """One trunk and one head for all environments, behind what is done to the inputs.

    Args:
        n_levels: outputs of `Levels`.
        n_outputs: of the head: the number of places, or 3 for each environment.
        hidden, dropout: widths of the trunk's layers, and the rate after each.
        name: of the model.

    Returns:
        A model (batch, n_levels) → (batch, n_outputs).

    Raises:
        ValueError: if a size is not positive.
    """
    check_positive(n_levels=n_levels, n_outputs=n_outputs)
    inputs = keras.Input((n_levels,), name="levels")
    x = dense_blocks(inputs, hidden, dropout, "trunk")
    return keras.Model(inputs, dense(n_outputs, name="head")(x), name=name)


def learning_network(
    member: keras.Model,
    n_transmitters: int,
    minimum: Sequence[float],
    levels: Mapping,
    augmentation: Mapping[str, Sequence[float]],
) -> keras.Model:
    """A member as it learns: (batch, n_transmitters) dBm with NaN = not heard → what its loss takes.

    Args:
        member: see `member_network`.
        n_transmitters: of all environments.
        minimum: (t,) dBm of what is not heard.
        levels: arguments of `Levels`.
        augmentation: arguments of `Augmentation` but `weakest`.
    """
    inputs = keras.Input((n_transmitters,), name="rssi")
    augmented = Augmentation(**augmentation, weakest=minimum, name="augmentation")(inputs)
    outputs = member(Levels(**levels, name="levels")(augmented))
    return keras.Model(inputs, outputs, name="learning")
