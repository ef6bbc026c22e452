"""A trained network as a file that runs without Keras: ONNX or LiteRT, raw dBm in, all outputs by name out.

What is written computes in float32 throughout, on any number of scans at once. Only running a LiteRT file takes a
package beside those of `requirements.lock`, the one of `requirements-export.txt`.
"""

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lib import THREADS, quiet_import
from lib.models.layers import Augmentation
from lib.paths import replacing
from lib.use.runtime import Network, OnnxNetwork

with quiet_import():
    import keras
    from keras import layers

FORMATS = {".onnx": "onnx", ".tflite": "litert"}  # by suffix, as Keras calls them
LITERT = "ai_edge_litert.interpreter"  # runs LiteRT files


def format_of(path: Path) -> str:
    """`onnx` or `litert`, by the suffix.

    Raises:
        ValueError: if it is neither `.onnx` nor `.tflite`.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"`path` must end with {' or '.join(FORMATS)}. Received: {path}")
    return FORMATS[path.suffix]


# === Networks ===


class _Identity(layers.Layer):
    """In the place of a layer that only training needs: takes the same arguments, and returns its input."""

    def call(self, inputs, mask=None, training=None):
        return inputs


def for_inference(model: keras.Model) -> keras.Model:
    """The network without what only training needs.

    There is no augmentation and no dropout, and a batch normalisation that follows a dense layer is part of its
    weights.
    """
    rebuilt = _rebuilt(model)
    width = model.input.shape[1:]
    rebuilt(np.full((1, *width), np.nan, np.float32))  # Keras exports only what was called
    return rebuilt


def _rebuilt(model: keras.Model) -> keras.Model:
    """See `for_inference`; the networks in it, such as members, are rebuilt alike."""
    norms = _norms_after_dense(model)
    dropped = {norm.name for norm in norms.values()}
    for layer in model.layers:
        if isinstance(layer, layers.Dropout | Augmentation):
            dropped.add(layer.name)

    def clone(layer: layers.Layer) -> layers.Layer:
        if isinstance(layer, keras.Model):
            return _rebuilt(layer)
        if layer.name in dropped:
            return _Identity(name=layer.name)
        if layer.name in norms:
            return layers.Dense(layer.units, name=layer.name)
        return type(layer).from_config(layer.get_config())

    rebuilt = keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        if layer.name in norms:
            rebuilt.get_layer(layer.name).set_weights(_absorbing(layer, norms[layer.name]))
        elif layer.weights and layer.name not in dropped and not isinstance(layer, keras.Model):
            rebuilt.get_layer(layer.name).set_weights(layer.get_weights())
    return rebuilt


def _norms_after_dense(model: keras.Model) -> dict[str, layers.BatchNormalization]:
    """By the names of linear dense layers, the batch normalisation that follows."""
    norm_of_input = {}
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            norm_of_input[id(layer.input)] = layer
    norms = {}
    for layer in model.layers:
        is_linear = isinstance(layer, layers.Dense) and layer.activation.__name__ == "linear"
        if is_linear and id(layer.output) in norm_of_input:
            norms[layer.name] = norm_of_input[id(layer.output)]
    return norms


def _absorbing(dense: layers.Dense, norm: layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias of a dense layer that is also the batch normalisation after it."""
    numbers = {}
    for weight, value in zip(norm.weights, norm.get_weights(), strict=True):
        numbers[weight.name] = np.float64(value)
    slope = numbers.get("gamma", 1.0) / np.sqrt(numbers["moving_variance"] + norm.epsilon)
    kernel, *biases = dense.get_weights()
    bias = np.float64(biases[0]) if biases else 0.0
    offset = numbers.get("beta", 0.0) + (bias - numbers["moving_mean"]) * slope
    return [np.float32(np.float64(kernel) * slope), np.float32(offset)]


# === Files ===


def write(model: keras.Model, path: Path) -> Path:
    """Write a network as ONNX (`.onnx`) or LiteRT (`.tflite`), whole or not at all, and return the path.

    Args:
        model: of one input; its output is a dict.
        path: the suffix is the format.

    Raises:
        ValueError: if the suffix is neither.
    """
    path = Path(path)
    kind = format_of(path)
    with replacing(path) as temporary, quiet_import(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converters, about NumPy
        for_inference(model).export(str(temporary), format=kind, verbose=False)
    return path


def read(path: Path, threads: int = int(THREADS)) -> Network:
    """A function from (n, t) dBm, NaN = not heard, to the outputs by name, that runs a file without Keras.

    Args:
        path: what `write` wrote.
        threads: how many it may use.

    Raises:
        ValueError: if the suffix is neither `.onnx` nor `.tflite`.
        ImportError: if the package that runs LiteRT files is not there.
    """
    path = Path(path)
    kind = format_of(path)
    with quiet_import():
        if kind == "onnx":
            return OnnxNetwork(path.read_bytes(), threads)
        return _read_litert(path, threads)


def _read_litert(path: Path, threads: int) -> Network:
    try:
        litert = importlib.import_module(LITERT)
    except ImportError as error:
        raise ImportError(f"{error}: pip install -r requirements-export.txt", name=error.name) from error
    signature = litert.Interpreter(str(path), num_threads=threads).get_signature_runner()
    ((name, rssi),) = signature.get_input_details().items()

    def outputs_of(scans: np.ndarray) -> Mapping[str, np.ndarray]:
        return signature(**{name: np.float32(scans)})

    outputs_of(np.full((1, rssi["shape"][-1]), np.nan))  # the first call prints what it runs on
    return outputs_of
