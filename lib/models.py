"""The paper's networks as Keras functional builders: encoder, base model, predictive head, localizer, U-MLP.

A dense layer is followed by batch normalisation, ReLU and dropout throughout (the paper's section III-A). The paper's
text states neither widths nor dropout rates. Those of `CONFIGS` are candidates; `make search` compares them on
validation rows, and the builders' defaults are what it chose.
"""

from collections.abc import Sequence

import numpy as np

from lib import quiet_import

with quiet_import():
    import keras
    from keras import layers

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


def dense(units: int, **settings) -> layers.Dense:
    """A dense layer whose first weights come from such a seed."""
    return layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(layer_seed()), **settings)


def dense_blocks(x, units: Sequence[int], dropout: float, name: str):
    """Dense → batch normalisation → ReLU → dropout for each width in `units` (Eq. 2)."""
    for number, width in enumerate(units, start=1):
        _check_positive(**{f"{name}_units": width})
        x = dense(width, use_bias=False, name=f"{name}_dense_{number}")(x)
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
