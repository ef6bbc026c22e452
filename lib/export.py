"""A trained network as a file that runs without Keras: ONNX or LiteRT, raw dBm in, all outputs by name out.

What is written computes in float32 throughout, on any number of scans at once. The optional packages are those of
`requirements-export.txt`; a machine that only locates needs NumPy and either `onnxruntime` or `ai-edge-litert`.
"""

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lib import THREADS, quiet_import
from lib.localizer import ABOUT, Localizer
from lib.models import Augmentation
from lib.paths import replacing

with quiet_import():
    import keras
    from keras import layers

FORMATS = {".onnx": "onnx", ".tflite": "litert"}  # by suffix, as Keras calls them
WRITTEN_BY = {"onnx": ("tf2onnx", "onnx"), "litert": ()}  # beside TensorFlow
RUN_BY = {"onnx": "onnxruntime", "litert": "ai_edge_litert"}


def format_of(path: Path) -> str:
    """`onnx` or `litert`, by the suffix.

    Raises:
        ValueError: if it is neither `.onnx` nor `.tflite`.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"`path` must end with {' or '.join(FORMATS)}. Received: {path}")
    return FORMATS[path.suffix]


def _required(module: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{error}: pip install -r requirements-export.txt", name=error.name) from error


# === Networks ===


def _rebuilt(model: keras.Model, anew: Callable[[layers.Layer], layers.Layer | None]) -> keras.Model:
    """The network without its weights; what `anew` makes of a layer takes its place, None keeps it."""

    def layer_of(layer: layers.Layer) -> layers.Layer:
        return anew(layer) or type(layer).from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=layer_of)


class _Through(layers.Layer):
    """Stands where a layer was that only training needs, and takes what that was called with."""

    def call(self, inputs, mask=None, training=None):
        return inputs


def for_inference(model: keras.Model) -> keras.Model:
    """The network without what only training needs: no augmentation and no dropout, and every batch
    normalisation that follows a dense layer is part of its weights.
    """
    norms = {id(layer.input): layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)}
    dense = [
        layer for layer in model.layers if isinstance(layer, layers.Dense) and layer.activation.__name__ == "linear"
    ]
    absorbed = {layer.name: norms[id(layer.output)] for layer in dense if id(layer.output) in norms}
    dropped = {layer.name for layer in model.layers if isinstance(layer, layers.Dropout | Augmentation)}
    dropped |= {norm.name for norm in absorbed.values()}

    def anew(layer: layers.Layer) -> layers.Layer | None:
        if layer.name in dropped:
            return _Through(name=layer.name)
        if layer.name in absorbed:
            return layers.Dense(layer.units, name=layer.name)
        return None

    rebuilt = _rebuilt(model, anew)
    for layer in model.layers:
        if layer.weights and layer.name not in dropped:
            folded = layer.name in absorbed
            weights = _absorbing(layer, absorbed[layer.name]) if folded else layer.get_weights()
            rebuilt.get_layer(layer.name).set_weights(weights)
    rebuilt(np.full((1, *model.input.shape[1:]), np.nan, np.float32))  # Keras exports none that was never called
    return rebuilt


def _absorbing(dense: layers.Dense, norm: layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias of a dense layer that is also the batch normalisation after it."""
    numbers = {weight.name: np.float64(value) for weight, value in zip(norm.weights, norm.get_weights(), strict=True)}
    slope = numbers.get("gamma", 1.0) / np.sqrt(numbers["moving_variance"] + norm.epsilon)
    kernel, *bias = (np.float64(weight) for weight in dense.get_weights())
    offset = numbers.get("beta", 0.0) + (sum(bias) - numbers["moving_mean"]) * slope
    return [np.float32(kernel * slope), np.float32(offset)]


# === Files ===


def write(model: keras.Model, path: Path) -> Path:
    """Write a network as ONNX (`.onnx`) or LiteRT (`.tflite`), whole or not at all, and return the path.

    Args:
        model: of one input; its output is a dict.
        path: the suffix is the format.

    Raises:
        ValueError: if the suffix is neither.
        ImportError: if the packages are not there.
    """
    kind = format_of(path := Path(path))
    for module in WRITTEN_BY[kind]:
        _required(module)
    with replacing(path) as temporary, quiet_import(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converters, about NumPy
        for_inference(model).export(str(temporary), format=kind, verbose=False)
    return path


def export(localizer: Path, output: Path, formats: Sequence[str] | None = None) -> list[Path]:
    """Write the network of a saved localizer in several formats, and beside them what its inputs and outputs mean.

    Args:
        localizer: directory that `Localizer.save` wrote.
        output: directory, made if need be; `localizer.onnx`, `localizer.tflite` and `localizer.json` are put there.
        formats: `onnx`, `litert`; None for both.

    Returns:
        The files that were written.

    Raises:
        ValueError: if a format is not known, or the directory holds no localizer.
        ImportError: if the packages are not there.
    """
    suffixes = {kind: suffix for suffix, kind in FORMATS.items()}
    if unknown := sorted(set(formats or ()) - set(suffixes)):
        raise ValueError(f"`formats` must be among {', '.join(suffixes)}. Received: {', '.join(unknown)}")
    loaded, output = Localizer.load(localizer), Path(output)
    output.mkdir(parents=True, exist_ok=True)
    written = [write(loaded.model, output / f"localizer{suffixes[kind]}") for kind in formats or suffixes]
    with replacing(output / ABOUT) as temporary:
        temporary.write_bytes((Path(localizer) / ABOUT).read_bytes())
    return [*written, output / ABOUT]


def read(path: Path, threads: int = int(THREADS)) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    """A function from (n, t) dBm, NaN = not heard, to the outputs by name, that runs a file without Keras.

    Args:
        path: what `write` wrote.
        threads: how many it may use.

    Raises:
        ValueError: if the suffix is neither `.onnx` nor `.tflite`.
        ImportError: if the package that runs it is not there.
    """
    kind = format_of(path := Path(path))
    with quiet_import():
        runtime = _required(RUN_BY[kind])
        if kind == "onnx":
            options = runtime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = threads
            session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            (rssi,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
            return lambda scans: dict(zip(names, session.run(names, {rssi.name: np.float32(scans)}), strict=True))
        interpreter = _required("ai_edge_litert.interpreter").Interpreter(str(path), num_threads=threads)
        signature = interpreter.get_signature_runner()
        ((name, rssi),) = signature.get_input_details().items()
        signature(**{name: np.full((1, rssi["shape"][-1]), np.nan, np.float32)})  # the first says what it runs on
        return lambda scans: signature(**{name: np.float32(scans)})
