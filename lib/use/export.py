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
from lib.models.layers import Augmentation
from lib.paths import replacing
from lib.use.localizer import DESCRIPTION, Localizer

with quiet_import():
    import keras
    from keras import layers

FORMATS = {".onnx": "onnx", ".tflite": "litert"}  # by suffix, as Keras calls them
WRITTEN_BY = {"onnx": ("tf2onnx", "onnx"), "litert": ()}  # beside TensorFlow
RUN_BY = {"onnx": "onnxruntime", "litert": "ai_edge_litert.interpreter"}


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


class _Identity(layers.Layer):
    """In the place of a layer that only training needs: takes the same arguments, and returns its input."""

    def call(self, inputs, mask=None, training=None):
        return inputs


def for_inference(model: keras.Model) -> keras.Model:
    """The network without what only training needs.

    There is no augmentation and no dropout, and a batch normalisation that follows a dense layer is part of its
    weights.
    """
    norms = _norms_after_dense(model)
    dropped = {norm.name for norm in norms.values()}
    for layer in model.layers:
        if isinstance(layer, layers.Dropout | Augmentation):
            dropped.add(layer.name)

    def clone(layer: layers.Layer) -> layers.Layer:
        if layer.name in dropped:
            return _Identity(name=layer.name)
        if layer.name in norms:
            return layers.Dense(layer.units, name=layer.name)
        return type(layer).from_config(layer.get_config())

    rebuilt = keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        if layer.name in norms:
            rebuilt.get_layer(layer.name).set_weights(_absorbing(layer, norms[layer.name]))
        elif layer.weights and layer.name not in dropped:
            rebuilt.get_layer(layer.name).set_weights(layer.get_weights())
    width = model.input.shape[1:]
    rebuilt(np.full((1, *width), np.nan, np.float32))  # Keras exports only what was called
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
        ImportError: if the packages are not there.
    """
    path = Path(path)
    kind = format_of(path)
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
    unknown = sorted(set(formats or ()) - set(suffixes))
    if unknown:
        raise ValueError(f"`formats` must be among {', '.join(suffixes)}. Received: {', '.join(unknown)}")
    model = Localizer.load(localizer).model
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    files = []
    for kind in formats or suffixes:
        path = output / f"localizer{suffixes[kind]}"
        files.append(write(model, path))
    description = output / DESCRIPTION
    with replacing(description) as temporary:
        temporary.write_bytes((Path(localizer) / DESCRIPTION).read_bytes())
    return [*files, description]


def read(path: Path, threads: int = int(THREADS)) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    """A function from (n, t) dBm, NaN = not heard, to the outputs by name, that runs a file without Keras.

    Args:
        path: what `write` wrote.
        threads: how many it may use.

    Raises:
        ValueError: if the suffix is neither `.onnx` nor `.tflite`.
        ImportError: if the package that runs it is not there.
    """
    path = Path(path)
    readers = {"onnx": _read_onnx, "litert": _read_litert}
    reader = readers[format_of(path)]
    with quiet_import():
        return reader(path, threads)


def _read_onnx(path: Path, threads: int) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    runtime = _required(RUN_BY["onnx"])
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = threads
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (rssi,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]

    def locate(scans: np.ndarray) -> dict[str, np.ndarray]:
        values = session.run(names, {rssi.name: np.float32(scans)})
        return dict(zip(names, values, strict=True))

    return locate


def _read_litert(path: Path, threads: int) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    runtime = _required(RUN_BY["litert"])
    signature = runtime.Interpreter(str(path), num_threads=threads).get_signature_runner()
    ((name, rssi),) = signature.get_input_details().items()

    def locate(scans: np.ndarray) -> Mapping[str, np.ndarray]:
        return signature(**{name: np.float32(scans)})

    locate(np.full((1, rssi["shape"][-1]), np.nan))  # the first call prints what it runs on
    return locate
