"""One implementation in a process of its own: does what it is asked to in JSON lines on stdin, answers on stdout.

`speed.py` starts and asks it. What another implementation needs is not imported: it would count as this one's memory.
"""

import argparse
import dataclasses
import importlib
import json
import os
import pickle
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts by hand

from benchmarks.memory import peak_mb

LEARNING_RATE = 0.001
NEIGHBOURS = 7
BOUNDS = (0.0, 1.0)  # of Eq. 5, as in the notebooks


def seconds_of(function: Callable[[], object], at_least: float = 0.3) -> float:
    """Mean seconds of a call, over as many calls as take `at_least` seconds."""
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < at_least:
        function()
        calls += 1
    return elapsed / calls


# === Networks ===


def about_unified(file: str) -> dict:
    """The `arguments` of `models.unified` and its `places`, which lie beside the task's arrays."""
    return pickle.loads(Path(file).with_suffix(".pickle").read_bytes())


def keras_network(network: str, n_inputs: int, file: str = ""):
    """A network of this repository with its first weights."""
    from lib import models

    if network == "unified":
        return models.unified(**about_unified(file)["arguments"])
    return {"localizer": models.localizer, "umlp": models.umlp}[network](n_inputs)


def torch_network(n_inputs: int, layers: list, outputs: dict[str, int]):
    """The same in PyTorch: trunk, and heads by name. The sigmoid of a probability is part of its loss."""
    from torch import nn

    blocks, width = [], n_inputs
    for units, dropout in layers:
        # epsilon and first weights as in Keras, so that the losses can be compared
        blocks += [nn.Linear(width, units, bias=False), nn.BatchNorm1d(units, eps=1e-3), nn.ReLU(), nn.Dropout(dropout)]
        width = units
    trunk, heads = nn.Sequential(*blocks), nn.ModuleDict({name: nn.Linear(width, n) for name, n in outputs.items()})
    for weight in [*trunk.parameters(), *heads.parameters()]:
        if weight.dim() == 2:
            nn.init.xavier_uniform_(weight)
    return trunk, heads


def torch_unified(arguments: dict, places):
    """What the unified network has in PyTorch beside trunk and head: its input and its loss as functions."""
    import torch
    from torch.nn import functional

    def tensor(values):
        return torch.from_numpy(np.float32(values))

    columns, minimum = torch.tensor(arguments["columns"]), tensor(arguments["minimum"])
    offset, noise, loss, deafness = (
        tensor(arguments["augmentation"][name]) for name in ("offset", "noise", "loss", "deafness")
    )

    def levels(rssi, training: bool):
        if training:
            rows = (len(rssi), 1)
            rssi = rssi + offset * torch.randn(rows) + noise * 3**0.5 * (2 * torch.rand(rssi.shape) - 1)
            lost = torch.rand(rssi.shape) < loss * torch.rand(rows)
            lost |= rssi < minimum + deafness * torch.rand(rows)
            silent = (lost | rssi.isnan()).all(dim=1, keepdim=True)
            rssi = rssi.masked_fill(lost & ~silent, torch.nan)
        chosen, lowest = rssi.index_select(1, columns), minimum[columns]
        return ((chosen - lowest) / -lowest).clamp(min=0).nan_to_num(0) ** arguments["exponent"]

    environment, building, floor, sigma = map(tensor, (places.environment, places.building, places.floor, places.sigma))
    east, north = tensor(places.position).T

    def place_loss(logits, y):
        from lib.models import IMPOSSIBLE
        from lib.places import BUILDING_SIGMAS, FLOOR_SIGMAS

        sigmas = torch.hypot(y[:, 3:4] - east, y[:, 4:5] - north) / sigma
        sigmas = sigmas + FLOOR_SIGMAS * (y[:, 2:3] - floor).abs() + BUILDING_SIGMAS * (y[:, 1:2] != building)
        near = (-sigmas).masked_fill(y[:, :1] != environment, IMPOSSIBLE).softmax(dim=1)
        return functional.cross_entropy(logits, near)

    return levels, place_loss


# === Training ===


def arrays_of(file: str, outputs: dict[str, int]) -> tuple[tuple, tuple]:
    """((x, y), (x, y)) to train and to validate on; y is an array, or a dict where there are several outputs."""
    with np.load(file) as arrays:
        y = [{name: arrays[f"{part}_{name}"] for name in outputs} for part in ("train", "validation")]
        y = y if len(outputs) > 1 else [next(iter(by_name.values())) for by_name in y]
        return (arrays["train_x"], y[0]), (arrays["validation_x"], y[1])


def keras_loss(outputs: dict[str, int], file: str):
    if "places" in outputs:
        from lib.places import PlaceLoss

        return PlaceLoss(about_unified(file)["places"])
    return {"environment": "binary_crossentropy", "position": "mse"} if len(outputs) > 1 else "mse"


def count(weights) -> int:
    """How many numbers there are in some arrays."""
    return sum(int(np.prod(weight.shape)) for weight in weights)


def ours(
    network: str,
    n_inputs: int,
    layers: list,
    outputs: dict,
    file: str,
    batch_size: int,
    keras_adam: bool = False,
    xla: bool = False,
) -> Callable[[int], tuple[list, int]]:
    """Training with `lib.training.fit`, a new network each time: a second call on the same one would restart Adam.

    Args:
        network, n_inputs, layers, outputs, file, batch_size: the task, see `speed.training_tasks`.
        keras_adam: update the weights as Keras does, and not by one kernel.
        xla: compile each step with XLA.

    Returns:
        A function that trains for a number of epochs and returns the loss of every epoch since the network was new,
        and the number of weights.
    """
    import keras

    from lib import training

    arrays = arrays_of(file, outputs)
    settings = {"loss": keras_loss(outputs, file), "batch_size": batch_size, "decay": False}
    settings["learning_rate"] = LEARNING_RATE
    if keras_adam:
        training.Adam = keras.optimizers.Adam

    def fit(epochs: int) -> tuple[list, int]:
        keras.utils.clear_session()
        model = keras_network(network, n_inputs, file)
        if xla:
            import tensorflow as tf

            model.train_step = tf.function(model.train_step, jit_compile=True)
        losses = training.fit(model, *arrays, epochs=epochs, **settings)["loss"].tolist()
        return losses, count(model.trainable_weights)

    return fit


def keras_fit(network: str, n_inputs: int, layers: list, outputs: dict, file: str, batch_size: int, **changes):
    """The same with `Model.fit`, by default as it comes; each call goes on where the last one ended.

    Args:
        network, n_inputs, layers, outputs, file, batch_size: the task.
        changes: arguments of `Model.compile`.
    """
    import keras

    model = keras_network(network, n_inputs, file)
    train, validation = arrays_of(file, outputs)
    model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), loss=keras_loss(outputs, file), **changes)
    settings = {"validation_data": validation, "batch_size": batch_size, "verbose": 0}

    losses = []

    def fit(epochs: int) -> tuple[list, int]:
        losses.extend(model.fit(*train, epochs=epochs, **settings).history["loss"])
        return losses, count(model.trainable_weights)

    return fit


def torch_loop(
    network: str, n_inputs: int, layers: list, outputs: dict, file: str, batch_size: int, bfloat16: bool = False
):
    """The same with the loop that users of PyTorch write, on tensors that stay in memory; each call goes on.

    Args:
        network, n_inputs, layers, outputs, file, batch_size: the task.
        bfloat16: whether it multiplies in bfloat16, by PyTorch's own means, and not all in float32.
    """
    import torch
    from torch.nn import functional

    trunk, heads = torch_network(n_inputs, layers, outputs)
    parameters = [*trunk.parameters(), *heads.parameters()]
    optimiser = torch.optim.Adam(parameters, LEARNING_RATE)
    losses = {"position": functional.mse_loss, "environment": functional.binary_cross_entropy_with_logits}
    levels = None
    if network == "unified":
        levels, losses["places"] = torch_unified(**about_unified(file))

    def tensors(x, y):
        y = y if isinstance(y, dict) else dict.fromkeys(outputs, y)
        return torch.from_numpy(x), {name: torch.from_numpy(values) for name, values in y.items()}

    def loss_of(x, y):
        x = levels(x, trunk.training) if levels else x
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16 and trunk.training):
            latent = trunk(x)
            answers = {name: head(latent) for name, head in heads.items()}
        return sum(losses[name](answer.float(), y[name]) for name, answer in answers.items())

    (x, y), validation = (tensors(*pair) for pair in arrays_of(file, outputs))

    history = []

    def fit(epochs: int) -> tuple[list, int]:
        for _ in range(epochs):
            trunk.train()
            total = torch.zeros(())
            for rows in torch.randperm(len(x)).split(batch_size):
                loss = loss_of(x.index_select(0, rows), {name: of.index_select(0, rows) for name, of in y.items()})
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.detach() * len(rows)
            trunk.eval()
            with torch.no_grad():
                loss_of(*validation)
            history.append(float(total) / len(x))
        return history, count(parameters)

    return fit


# A new way to train is one more line here and in speed.py. The library is imported before the time is taken.
TRAINERS = {
    "ours": (ours, "lib.training"),
    "ours, Keras' Adam": (partial(ours, keras_adam=True), "lib.training"),
    "ours, XLA": (partial(ours, xla=True), "lib.training"),
    "PyTorch": (torch_loop, "torch"),
    "PyTorch, bfloat16": (partial(torch_loop, bfloat16=True), "torch"),
    "Keras defaults": (keras_fit, "lib.models"),
    "Keras defaults on JAX": (keras_fit, "lib.models"),
    "Keras, XLA": (partial(keras_fit, jit_compile=True), "lib.models"),
    "Keras, 8 steps per execution": (partial(keras_fit, steps_per_execution=8), "lib.models"),
    "Keras, 16 steps per execution": (partial(keras_fit, steps_per_execution=16), "lib.models"),
}


class Training:
    """Times one implementation of training."""

    def __init__(self, implementation: str, **task):
        begin, library = TRAINERS[implementation]
        importlib.import_module(library)
        self.begin = partial(begin, **task)

    def first(self) -> dict:
        """Reading the arrays, building the network, compiling, one epoch."""
        started = time.perf_counter()
        self.train = self.begin()
        self.train(1)
        return {"seconds": time.perf_counter() - started}

    def steady(self, epochs: int) -> dict:
        """Seconds an epoch, without what a training costs however long it is: the difference of a short and a long."""
        started = time.perf_counter()
        self.train(1)
        between = time.perf_counter()
        losses, weights = self.train(1 + epochs)
        seconds = time.perf_counter() - between - (between - started)
        return {"seconds": seconds / epochs, "loss": losses[epochs], "weights": weights}


# === Matrix product ===


class Product:
    """Times the product of two square float32 matrices."""

    def __init__(self, implementation: str, side: int):
        a, b = np.random.default_rng(0).random((2, side, side), dtype=np.float32)
        if implementation == "PyTorch":
            import torch

            a, b = torch.from_numpy(a), torch.from_numpy(b)
        elif implementation == "TensorFlow":
            import tensorflow as tf

            a, b = tf.constant(a), tf.constant(b)
        elif implementation == "JAX":
            import jax

            a, b = jax.numpy.asarray(a), jax.numpy.asarray(b)
        self.product = lambda: jax.block_until_ready(a @ b) if implementation == "JAX" else a @ b
        self.product()  # the first one also compiles

    def multiply(self) -> dict:
        return {"seconds": seconds_of(self.product)}


# === Loading ===


class Loading:
    """Times the way from an environment's files to what a network sees.

    Args:
        environment, protocol: what to load, and how to split it.
        files: what differs from the registry, by its keys, where the files are not the publisher's.
    """

    def __init__(self, implementation: str, environment: str, protocol: str, files: dict[str, dict]):
        from lib import datasets, preprocess

        for key, changes in files.items():
            datasets.REGISTRY[key] = dataclasses.replace(datasets.REGISTRY[key], **changes)
        self.read = datasets.LOADERS[environment]
        self.process = lambda: preprocess.process(self.data, protocol, np.arange(len(self.data)), BOUNDS)

    def load(self) -> dict:
        started = time.perf_counter()
        self.data = self.read()
        return {"seconds": time.perf_counter() - started, "shape": self.data.rssi.shape}

    def preprocess(self) -> dict:
        return {"seconds": seconds_of(self.process), "shape": self.data.rssi.shape}


# === Prediction, from dBm to metres ===


def keras_localizer(processed) -> Callable[[np.ndarray], np.ndarray]:
    """The localizer as notebooks call it, with its first weights: trained ones take as long."""
    import keras

    model = keras_network("localizer", processed.x.shape[1])
    return _scaled(processed, lambda x: keras.ops.convert_to_numpy(model(x, training=False)))


def torch_localizer(processed, layers: list) -> Callable[[np.ndarray], np.ndarray]:
    """The same network in PyTorch."""
    import torch

    trunk, heads = torch_network(processed.x.shape[1], layers, {"position": 2})
    model = torch.nn.Sequential(trunk, heads["position"]).eval()

    @torch.inference_mode()
    def predict(x: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(x)).numpy()

    return _scaled(processed, predict)


def _scaled(processed, predict: Callable) -> Callable[[np.ndarray], np.ndarray]:
    """Let a function that predicts scaled positions from scaled RSSI take dBm and return metres."""
    x, y = processed.rssi_scaling, processed.position_scaling
    return lambda rssi: y.inverse(predict(x.transform(rssi[:, processed.kept])))


def our_neighbours(radio_map, metric: str) -> Callable[[np.ndarray], np.ndarray]:
    """kNN of `lib.baselines`."""
    from lib import baselines

    model = baselines.NearestFingerprints(metric, NEIGHBOURS).store(radio_map)
    return lambda rssi: model.predict(rssi)["position"]


def scikit_neighbours(radio_map) -> Callable[[np.ndarray], np.ndarray]:
    """kNN by the Sørensen (Bray–Curtis) distance as scikit-learn has it."""
    from sklearn.neighbors import NearestNeighbors

    from lib.preprocess import NOT_HEARD_DBM, powed

    minimum = NOT_HEARD_DBM[radio_map.name]
    index = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="braycurtis", algorithm="brute")
    index.fit(powed(radio_map.rssi, minimum))
    return lambda rssi: radio_map.position[index.kneighbors(powed(rssi, minimum), return_distance=False)].mean(axis=1)


class Prediction:
    """Times one implementation of a way to locate scans.

    Args:
        what: `localizer`, `knn_sorensen` or `knn_euclidean`.
        file: a pickle of the radio map (a FingerprintSet), the same as a ProcessedSet, and the scans in dBm.
        layers: of the localizer.
    """

    def __init__(self, implementation: str, what: str, file: str, layers: list):
        radio_map, processed, self.scans = pickle.loads(Path(file).read_bytes())
        begin = {
            ("localizer", "ours"): lambda: keras_localizer(processed),
            ("localizer", "PyTorch"): lambda: torch_localizer(processed, layers),
            ("knn_sorensen", "ours"): lambda: our_neighbours(radio_map, "sorensen"),
            ("knn_sorensen", "scikit-learn"): lambda: scikit_neighbours(radio_map),
            ("knn_euclidean", "ours"): lambda: our_neighbours(radio_map, "euclidean"),
        }
        self.predict = begin[what, implementation]()
        self.predict(self.scans[:1])

    def locate(self, scans: int) -> dict:
        return {"seconds": seconds_of(lambda: self.predict(self.scans[:scans]))}


# === Requests ===

KINDS = {"train": Training, "product": Product, "load": Loading, "predict": Prediction}


def serve(asked, answers) -> None:
    """Answer requests until there are no more: the first says what to time, the others a method and its arguments."""
    about = json.loads(asked.readline())
    timed = KINDS[about["kind"]](about["implementation"], **about["task"])
    print(json.dumps({}), file=answers, flush=True)
    for line in asked:
        request = json.loads(line)
        answer = getattr(timed, request.pop("do"))(**request)
        print(json.dumps(answer | {"peak_mb": peak_mb()}), file=answers, flush=True)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what libraries print is no answer
        serve(sys.stdin, answers)
