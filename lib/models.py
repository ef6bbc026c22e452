"""The networks as Keras functional builders: the paper's encoder, base model, predictive head, localizer and U-MLP,
and the unified network that classifies positions.

In the paper's, a dense layer is followed by batch normalisation, ReLU and dropout throughout (section III-A). Its text
states neither widths nor dropout rates. Those of `CONFIGS` are candidates; `make search` compares them on validation
rows, and the builders' defaults are what it chose.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lib import quiet_import

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
IMPOSSIBLE = -1e9  # log probability


def _check_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"`{name}` must be positive. Received: {name}={size}")


def _config(name: str) -> dict:
    if name not in CONFIGS:
        raise ValueError(f"`config` must be one of {', '.join(CONFIGS)}. Received: {name}")
    return CONFIGS[name]


def layer_seed() -> int:
    """A seed for one layer, from NumPy's generator: from Python's, the layers' default, Dask's threads draw as well."""
    return int(np.random.randint(2**31))  # noqa: NPY002, this is what keras.utils.set_random_seed seeds


@keras.saving.register_keras_serializable("fingerprints")
class HalfDense(layers.Dense):
    """A dense layer that multiplies in bfloat16 while training: faster where the processor has instructions for it.

    Weights are float32, and so is all that it predicts: bfloat16 would move positions by metres.
    """

    def call(self, inputs, training: bool = False):
        if not training:
            return super().call(inputs)
        x = ops.matmul(ops.cast(inputs, "bfloat16"), ops.cast(self.kernel, "bfloat16"))
        x = ops.cast(x, "float32")
        return self.activation(x + self.bias if self.use_bias else x)


def dense(units: int, kind: type[layers.Dense] = layers.Dense, **settings) -> layers.Dense:
    """A dense layer whose first weights come from such a seed."""
    return kind(units, kernel_initializer=keras.initializers.GlorotUniform(layer_seed()), **settings)


def dense_blocks(x, units: Sequence[int], dropout: float, name: str, kind: type[layers.Dense] = layers.Dense):
    """Dense → batch normalisation → ReLU → dropout for each width in `units` (Eq. 2)."""
    for number, width in enumerate(units, start=1):
        _check_positive(**{f"{name}_units": width})
        x = dense(width, kind=kind, use_bias=False, name=f"{name}_dense_{number}")(x)
        # With Keras' momentum of 0.99, the running statistics lag by whole epochs of so few steps.
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm_{number}")(x)
        x = layers.ReLU(name=f"{name}_relu_{number}")(x)
        x = layers.Dropout(dropout, seed=layer_seed(), name=f"{name}_dropout_{number}")(x)
    return x


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
    _check_positive(n_transmitters=n_transmitters, latent=latent)
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
    _check_positive(latent=latent, intermediate=intermediate)
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
    _check_positive(intermediate=intermediate)
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
    _check_positive(n_inputs=n_inputs)
    inputs = keras.Input((n_inputs,), name="rssi")
    x = dense_blocks(inputs, _config(config)["umlp"]["hidden"], dropout, "trunk")
    outputs = {
        "environment": dense(1, activation="sigmoid", name="environment")(x),
        "position": dense(2, name="position")(x),
    }
    return keras.Model(inputs, outputs, name="umlp")


# === The unified network ===


@keras.saving.register_keras_serializable("fingerprints")
class Augmentation(layers.Layer):
    """While training, scans as other devices, moments and failures would give them: (n, t) dBm, NaN = not heard.

    Args:
        offset: standard deviation in dB of what is added to a whole scan.
        noise: the same of what is added to each level by itself, evenly distributed: drawn in half the time.
        loss: the largest share of the heard transmitters that a scan loses; each scan's is drawn between 0 and that.
        deafness: the largest number of dB by which a scan's weakest level is above `weakest`; each scan's is drawn
            between 0 and that. What is below is lost, as a device of less sensitivity would lose it.
        weakest: dBm.

    Each is (t,), a number for each transmitter. A scan that would lose all keeps all.
    """

    def __init__(self, offset, noise, loss, deafness, weakest, **settings):
        super().__init__(**settings)
        arguments = offset, noise, loss, deafness, weakest
        self.offset, self.noise, self.loss, self.deafness, self.weakest = map(np.float32, arguments)
        self.random = keras.random.SeedGenerator(layer_seed())

    def call(self, rssi, training: bool = False):
        if not training:
            return rssi
        rows = (ops.shape(rssi)[0], 1)
        rssi = rssi + self.offset * keras.random.normal(rows, seed=self.random)
        if self.noise.any():  # an even distribution from −√3 to √3 has a deviation of 1
            rssi = rssi + self.noise * keras.random.uniform(ops.shape(rssi), -(3**0.5), 3**0.5, seed=self.random)
        share = self.loss * keras.random.uniform(rows, seed=self.random)
        threshold = self.weakest + self.deafness * keras.random.uniform(rows, seed=self.random)
        lost = ops.logical_or(keras.random.uniform(ops.shape(rssi), seed=self.random) < share, rssi < threshold)
        silent = ops.all(ops.logical_or(lost, ops.isnan(rssi)), axis=1, keepdims=True)
        return ops.where(ops.logical_and(lost, ops.logical_not(silent)), np.float32(np.nan), rssi)

    def get_config(self):
        names = ("offset", "noise", "loss", "deafness", "weakest")
        return super().get_config() | {name: getattr(self, name).tolist() for name in names}


@keras.saving.register_keras_serializable("fingerprints")
class Levels(layers.Layer):
    """(n, t) dBm with NaN = not heard → (n, k) powed RSSI of the k transmitters in use, (n, 2·k) with `heard`.

    Args:
        columns: (k,) numbers of the transmitters in use.
        minimum: (k,) dBm that maps to 0, as in `preprocess.powed`.
        exponent: β.
        heard: whether there is also an input that says whether each is heard, however weakly.
    """

    def __init__(self, columns: Sequence[int], minimum: Sequence[float], exponent: float, heard: bool, **settings):
        super().__init__(**settings)
        self.columns, self.minimum = list(map(int, columns)), list(map(float, minimum))
        self.exponent, self.heard = exponent, heard

    def call(self, rssi):
        rssi, minimum = ops.take(rssi, np.int32(self.columns), axis=1), np.float32(self.minimum)
        silent = ops.isnan(rssi)  # asked as it is: of its negation, ONNX would have NaN · 0 where 0 is meant
        level = ops.where(silent, 0.0, ops.maximum((rssi - minimum) / -minimum, 0.0)) ** self.exponent
        heard = ops.cast(ops.logical_not(silent), level.dtype)
        return ops.concatenate([level, 0.25 * heard], axis=1) if self.heard else level

    def get_config(self):
        names = ("columns", "minimum", "exponent", "heard")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("fingerprints")
class Audible(layers.Layer):
    """[(n, t) dBm, (n, c) logits] → logits, predicted without environments that a scan hears nothing of, unless of all.

    Args:
        of_transmitter: (t,) the number of each transmitter's environment.
        of_output: (c,) the same of each output.
    """

    def __init__(self, of_transmitter: Sequence[int], of_output: Sequence[int], **settings):
        super().__init__(**settings)
        self.of_transmitter, self.of_output = list(map(int, of_transmitter)), list(map(int, of_output))

    def call(self, inputs, training: bool = False):
        rssi, logits = inputs
        if training:
            return logits
        one_hot = np.eye(max(self.of_transmitter) + 1, dtype=np.float32)
        heard = ops.cast(ops.logical_not(ops.isnan(rssi)), "float32")
        of_environment = ops.matmul(heard, one_hot[self.of_transmitter])  # how many it hears of each
        silent = ops.sum(of_environment, axis=1, keepdims=True) == 0
        audible = ops.matmul(ops.cast(ops.logical_or(of_environment > 0, silent), "float32"), one_hot[self.of_output].T)
        return ops.where(audible > 0, logits, IMPOSSIBLE)

    def get_config(self):
        return super().get_config() | {"of_transmitter": self.of_transmitter, "of_output": self.of_output}


@keras.saving.register_keras_serializable("fingerprints")
class CoordinateDecoder(layers.Layer):
    """(n, 3·e) → `environment` (n, e) probabilities and `position` (n, 2) metres, as regression has them.

    The outputs are e logits of the environment, then for each environment two coordinates of its own range.

    Args:
        lower, upper: (e, 2) metres, the ranges.
    """

    def __init__(self, lower: Sequence[Sequence[float]], upper: Sequence[Sequence[float]], **settings):
        super().__init__(**settings)
        self.lower, self.upper = np.array(lower, dtype=np.float32), np.array(upper, dtype=np.float32)

    def scaled(self, outputs, environment):
        """(n, 3·e) outputs, (n, e) one-hot environments → (n, 2) coordinates of that environment's range."""
        e = len(self.lower)
        return ops.einsum("ned,ne->nd", ops.reshape(outputs[:, e:], (-1, e, 2)), environment)

    def call(self, outputs):
        e = len(self.lower)
        probabilities = ops.softmax(outputs[:, :e])
        chosen = ops.one_hot(ops.argmax(probabilities, axis=1), e)
        lower, span = (ops.matmul(chosen, values) for values in (self.lower, self.upper - self.lower))
        return {"environment": probabilities, "position": lower + span * self.scaled(outputs, chosen)}

    def get_config(self):
        return super().get_config() | {"lower": self.lower.tolist(), "upper": self.upper.tolist()}


class CoordinateLoss(keras.losses.Loss):
    """Of `CoordinateDecoder`'s input: cross-entropy of the environment, and the error of its scaled coordinates.

    Args:
        decoder: knows the ranges.
        distance: whether the error is the mean Euclidean distance, or the mean squared error as in the paper.

    Call:
        y_true: (n, 5) environment, building, floor, east, north.
        y_pred: (n, 3·e).
    """

    def __init__(self, decoder: CoordinateDecoder, distance: bool):
        super().__init__(name="coordinates")
        self.decoder, self.distance = decoder, distance

    def call(self, y_true, y_pred):
        decoder, e = self.decoder, len(self.decoder.lower)
        environment = ops.one_hot(ops.cast(y_true[:, 0], "int32"), e)
        lower, span = (ops.matmul(environment, values) for values in (decoder.lower, decoder.upper - decoder.lower))
        squared = ((y_true[:, 3:] - lower) / span - decoder.scaled(y_pred, environment)) ** 2
        error = ops.sqrt(ops.sum(squared, axis=1) + 1e-12) if self.distance else ops.mean(squared, axis=1)
        return error + ops.categorical_crossentropy(environment, y_pred[:, :e], from_logits=True)

    def get_config(self):
        return {"decoder": self.decoder.get_config(), "distance": self.distance}


def unified(
    n_transmitters: int,
    columns: Sequence[int],
    minimum: Sequence[float],
    n_outputs: int,
    *,
    hidden: Sequence[int],
    dropout: float,
    exponent: float,
    heard: bool,
    augmentation: Mapping[str, Sequence[float]],
    audible: Mapping[str, Sequence[int]] | None = None,
) -> keras.Model:
    """One trunk for all environments: raw dBm of any in, what a head makes its loss of out.

    Args:
        n_transmitters: of all environments side by side.
        columns, exponent, heard: see `Levels`.
        minimum: (t,) dBm that maps to 0.
        n_outputs: of the head: places, or 3 for each environment.
        hidden, dropout: of the trunk.
        augmentation: arguments of `Augmentation` but `weakest`.
        audible: arguments of `Audible`; None rules out no environment.

    Returns:
        A model (batch, n_transmitters) dBm with NaN = not heard → (batch, n_outputs). `decoded` adds a decoder.

    Raises:
        ValueError: if a size is not positive.
    """
    _check_positive(n_transmitters=n_transmitters, n_outputs=n_outputs)
    inputs = keras.Input((n_transmitters,), name="rssi")
    x = Augmentation(**augmentation, weakest=minimum, name="augmentation")(inputs)
    x = Levels(columns, np.asarray(minimum)[columns], exponent, heard, name="levels")(x)
    x = dense_blocks(x, hidden, dropout, "trunk", HalfDense)
    outputs = dense(n_outputs, HalfDense, name="head")(x)
    if audible:
        outputs = Audible(**audible, name="audible")([inputs, outputs])
    return keras.Model(inputs, outputs, name="unified")


def decoded(network: keras.Model, decoder: layers.Layer) -> keras.Model:
    """The trained network with its decoder: dBm → environment, position and what else the decoder tells."""
    return keras.Model(network.input, decoder(network.output), name="localizer")
