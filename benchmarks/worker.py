"""One implementation in a process of its own: takes requests as JSON lines on stdin, and answers on stdout.

`speed.py` starts and asks it. What another implementation needs is not imported: it would count as this one's memory.
"""

import argparse
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

from benchmarks.measure import peak_mb, seconds_of

LEARNING_RATE = 0.001
NEIGHBOURS = 7

Fit = Callable[[int], tuple[list[float], int]]  # epochs → the loss of every epoch so far, and the number of weights
Locate = Callable[[np.ndarray], np.ndarray]  # (n, t) dBm → (n, 2) metres


def count(weights) -> int:
    """How many numbers there are in some arrays."""
    return sum(int(np.prod(weight.shape)) for weight in weights)


# === Training with Keras ===


def keras_network(task: dict):
    """The network of a task, with new first weights."""
    import keras

    importlib.import_module("lib.models.layers")  # whose layers it has
    return keras.models.model_from_json(task["network"])


def keras_loss(task: dict):
    """The loss of a task, as `compile` takes it."""
    if task["places"] is None:
        return task["loss"]
    from lib.models.places import PlaceLoss, Places

    return PlaceLoss(Places.from_config(task["places"]))


def ours(task: dict, keras_adam: bool = False, xla: bool = False) -> Fit:
    """`lib.models.training.fit` on a new network each time: a second call on the same one would restart Adam.

    Args:
        task: see `speed.training_task`.
        keras_adam: update the weights as Keras does, and not by one kernel.
        xla: compile each step with XLA.
    """
    import keras

    from lib.models import training

    if keras_adam:
        training.Adam = keras.optimizers.Adam
    settings = {"loss": keras_loss(task), "batch_size": task["batch_size"], "learning_rate": LEARNING_RATE}

    def fit(epochs: int) -> tuple[list[float], int]:
        keras.utils.clear_session()
        network = keras_network(task)
        if xla:
            import tensorflow as tf

            network.train_step = tf.function(network.train_step, jit_compile=True)
        curves = training.fit(network, task["train"], task["validation"], epochs=epochs, decay=False, **settings)
        return curves["loss"].tolist(), count(network.trainable_weights)

    return fit


def keras_fit(task: dict, **compiling) -> Fit:
    """`Model.fit`, by default as it comes; each call goes on where the last one ended."""
    import keras

    network = keras_network(task)
    network.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), loss=keras_loss(task), **compiling)
    settings = {"validation_data": task["validation"], "batch_size": task["batch_size"], "verbose": 0}
    losses = []

    def fit(epochs: int) -> tuple[list[float], int]:
        history = network.fit(*task["train"], epochs=epochs, **settings).history
        losses.extend(history["loss"])
        return losses, count(network.trainable_weights)

    return fit


# === Training with PyTorch ===


def layer_config(task: dict, name: str) -> dict:
    """The configuration of a layer of a task's network."""
    for layer in json.loads(task["network"])["config"]["layers"]:
        if layer["config"]["name"] == name:
            return layer["config"]
    raise KeyError(name)


def torch_network(n_inputs: int, layers: list, outputs: dict[str, int]):
    """The same network in PyTorch: trunk, and heads by name. The sigmoid of a probability is part of its loss."""
    from torch import nn

    blocks = []
    width = n_inputs
    for units, dropout in layers:
        blocks.append(nn.Linear(width, units, bias=False))
        blocks.append(nn.BatchNorm1d(units, eps=1e-3))  # epsilon and first weights as in Keras: losses are compared
        blocks.append(nn.ReLU())
        blocks.append(nn.Dropout(dropout))
        width = units
    trunk = nn.Sequential(*blocks)
    heads = nn.ModuleDict({name: nn.Linear(width, n_outputs) for name, n_outputs in outputs.items()})
    for weight in [*trunk.parameters(), *heads.parameters()]:
        if weight.dim() == 2:
            nn.init.xavier_uniform_(weight)
    return trunk, heads


def torch_levels(augmentation: dict, levels: dict):
    """`Augmentation` and `Levels` in PyTorch, of their Keras configurations."""
    import torch

    offset, noise, loss, deafness, weakest = (
        torch.tensor(augmentation[name]) for name in ("offset", "noise", "loss", "deafness", "weakest")
    )
    columns = torch.tensor(levels["columns"])
    minimum = torch.tensor(levels["minimum"])

    def augmented(rssi):
        rows = (len(rssi), 1)
        even = 2 * torch.rand(rssi.shape) - 1
        rssi = rssi + offset * torch.randn(rows) + noise * 3**0.5 * even
        lost = torch.rand(rssi.shape) < loss * torch.rand(rows)
        lost |= rssi < weakest + deafness * torch.rand(rows)
        silent = (lost | rssi.isnan()).all(dim=1, keepdim=True)
        return rssi.masked_fill(lost & ~silent, torch.nan)

    def levels_of(rssi, training: bool):
        if training:
            rssi = augmented(rssi)
        height = (rssi.index_select(1, columns) - minimum) / -minimum
        return height.clamp(min=0).nan_to_num(0) ** levels["exponent"]

    return levels_of


def torch_place_loss(places: dict, floor_sigmas: float, building_sigmas: float):
    """`PlaceLoss` in PyTorch, of the configuration of its places."""
    import torch
    from torch.nn import functional

    environment, building, floor, sigma = (
        torch.tensor(places[name], dtype=torch.float32) for name in ("environment", "building", "floor", "sigma")
    )
    east, north = torch.tensor(places["position"], dtype=torch.float32).T

    def place_loss(logits, y):
        sigmas = torch.hypot(y[:, 3:4] - east, y[:, 4:5] - north) / sigma
        sigmas = sigmas + floor_sigmas * (y[:, 2:3] - floor).abs()
        sigmas = sigmas + building_sigmas * (y[:, 1:2] != building)
        elsewhere = y[:, :1] != environment
        near = (-sigmas).masked_fill(elsewhere, -torch.inf).softmax(dim=1)
        return functional.cross_entropy(logits, near)

    return place_loss


def torch_loop(task: dict, bfloat16: bool = False) -> Fit:
    """The loop that users of PyTorch write, on tensors that stay in memory; each call goes on.

    Args:
        task: see `speed.training_task`.
        bfloat16: whether it multiplies in bfloat16, by PyTorch's own means, and not all in float32.
    """
    import torch
    from torch.nn import functional

    outputs = task["outputs"]
    trunk, heads = torch_network(task["n_inputs"], task["layers"], outputs)
    parameters = [*trunk.parameters(), *heads.parameters()]
    optimiser = torch.optim.Adam(parameters, LEARNING_RATE)
    losses = {"position": functional.mse_loss, "environment": functional.binary_cross_entropy_with_logits}
    levels = None
    if task["places"] is not None:
        levels = torch_levels(layer_config(task, "augmentation"), layer_config(task, "levels"))
        losses["places"] = torch_place_loss(task["places"], *task["place_sigmas"])

    def tensors(x, y):
        if not isinstance(y, dict):
            y = dict.fromkeys(outputs, y)
        return torch.from_numpy(x), {name: torch.from_numpy(values) for name, values in y.items()}

    def loss_of(x, y):
        if levels is not None:
            x = levels(x, trunk.training)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16 and trunk.training):
            latent = trunk(x)
            answers = {name: head(latent) for name, head in heads.items()}
        return sum(losses[name](answer.float(), y[name]) for name, answer in answers.items())

    x, y = tensors(*task["train"])
    history = []

    def fit(epochs: int) -> tuple[list[float], int]:
        for _ in range(epochs):
            trunk.train()
            total = torch.zeros(())
            for rows in torch.randperm(len(x)).split(task["batch_size"]):
                batch = {name: values.index_select(0, rows) for name, values in y.items()}
                loss = loss_of(x.index_select(0, rows), batch)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.detach() * len(rows)
            history.append(float(total) / len(x))
            trunk.eval()
            if task["validation"] is not None:
                with torch.no_grad():
                    loss_of(*tensors(*task["validation"]))
        return history, count(parameters)

    return fit


# A further way to train is a line here and in speed.py: the function, the library that is imported before the time is
# taken, and the backend.
TRAINERS = {
    "ours": (ours, "lib.models.training", "tensorflow"),
    "PyTorch": (torch_loop, "torch", "torch"),
    "PyTorch, bfloat16": (partial(torch_loop, bfloat16=True), "torch", "torch"),
    "Keras defaults": (keras_fit, "lib.models.layers", "tensorflow"),
    "Keras defaults on JAX": (keras_fit, "lib.models.layers", "jax"),
    "ours, Keras' Adam": (partial(ours, keras_adam=True), "lib.models.training", "tensorflow"),
    "ours, XLA": (partial(ours, xla=True), "lib.models.training", "tensorflow"),
    "Keras, XLA": (partial(keras_fit, jit_compile=True), "lib.models.layers", "tensorflow"),
    "Keras, 8 steps per execution": (partial(keras_fit, steps_per_execution=8), "lib.models.layers", "tensorflow"),
    "Keras, 16 steps per execution": (partial(keras_fit, steps_per_execution=16), "lib.models.layers", "tensorflow"),
}


class Training:
    """Times one implementation of training.

    Args:
        implementation: a key of `TRAINERS`.
        file: a pickle of `speed.training_task`.
    """

    def __init__(self, implementation: str, file: str):
        self.trainer, library, _ = TRAINERS[implementation]
        importlib.import_module(library)
        self.file = Path(file)

    def first(self) -> dict:
        """Reading the rows, building the network, compiling, one epoch."""
        started = time.perf_counter()
        task = pickle.loads(self.file.read_bytes())
        self.fit = self.trainer(task)
        self.fit(1)
        return {"seconds": time.perf_counter() - started}

    def steady(self, epochs: int) -> dict:
        """Seconds an epoch, without what a training costs however long it is: the difference of a short and a long."""
        started = time.perf_counter()
        self.fit(1)
        between = time.perf_counter()
        losses, weights = self.fit(1 + epochs)
        short = between - started
        long = time.perf_counter() - between
        return {"seconds": (long - short) / epochs, "loss": losses[epochs], "weights": weights}


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
        self.product = lambda: a @ b
        if implementation == "JAX":
            self.product = lambda: jax.block_until_ready(a @ b)
        self.product()  # the first one also compiles

    def multiply(self) -> dict:
        return {"seconds": seconds_of(self.product)}


# === Loading ===


class Loading:
    """Times the way from the files of a protocol's environment to what a network sees.

    Args:
        protocol: a key of `PROTOCOLS`.
        files: see `inputs.register`.
    """

    def __init__(self, implementation: str, protocol: str, files: dict[str, dict]):
        from benchmarks.inputs import register
        from lib.data.protocols import PROTOCOLS

        register(files)
        self.protocol = PROTOCOLS[protocol]

    def load(self) -> dict:
        from lib.data.loaders import LOADERS

        started = time.perf_counter()
        self.fingerprints = LOADERS[self.protocol.environment]()
        return {"seconds": time.perf_counter() - started, "shape": self.fingerprints.rssi.shape}

    def preprocess(self) -> dict:
        from benchmarks.inputs import scaled

        seconds = seconds_of(lambda: scaled(self.protocol.part(self.fingerprints)))
        return {"seconds": seconds, "shape": self.fingerprints.rssi.shape}


# === Prediction, from dBm to metres ===


def estimator_locates(estimator, transmitters: tuple[str, ...]) -> Locate:
    """An estimator of this repository, as notebooks call it."""
    from lib.data.fingerprints import Scans

    return lambda rssi: estimator.predict(Scans(rssi, transmitters)).position


def our_localizer(task: dict) -> Locate:
    """The saved network."""
    from lib.models.paper import Encoder

    return estimator_locates(Encoder.load(Path(task["folder"])), task["radio_map"].transmitters)


def torch_localizer(task: dict) -> Locate:
    """The same network in PyTorch, with its first weights: trained ones take as long."""
    import torch

    trunk, heads = torch_network(len(task["columns"]), task["layers"], {"position": 2})
    network = torch.nn.Sequential(trunk, heads["position"]).eval()

    @torch.inference_mode()
    def locate(rssi: np.ndarray) -> np.ndarray:
        x = task["rssi_scaling"].transform(rssi[:, task["columns"]])
        return task["position_scaling"].inverse(network(torch.from_numpy(x)).numpy())

    return locate


def our_neighbours(task: dict, metric: str) -> Locate:
    """kNN of `lib.models.neighbours`."""
    from lib.models.neighbours import NearestFingerprints

    radio_map = task["radio_map"]
    estimator = NearestFingerprints(metric, NEIGHBOURS).fit([radio_map], [radio_map[:0]], seed=0)
    return estimator_locates(estimator, radio_map.transmitters)


def scikit_neighbours(task: dict) -> Locate:
    """kNN by the Sørensen (Bray–Curtis) distance as scikit-learn has it."""
    from sklearn.neighbors import NearestNeighbors

    from lib.models.scaling import powed

    radio_map = task["radio_map"]
    minimum = radio_map.not_heard_dbm
    index = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="braycurtis", algorithm="brute")
    index.fit(powed(radio_map.rssi, minimum))

    def locate(rssi: np.ndarray) -> np.ndarray:
        rows = index.kneighbors(powed(rssi, minimum), return_distance=False)
        return radio_map.position[rows].mean(axis=1)

    return locate


LOCATORS = {
    ("localizer", "ours"): our_localizer,
    ("localizer", "PyTorch"): torch_localizer,
    ("knn_sorensen", "ours"): partial(our_neighbours, metric="sorensen"),
    ("knn_sorensen", "scikit-learn"): scikit_neighbours,
    ("knn_euclidean", "ours"): partial(our_neighbours, metric="euclidean"),
}


class Prediction:
    """Times one implementation of a way to locate scans.

    Args:
        implementation, what: a key of `LOCATORS`, in reverse.
        file: a pickle of `speed.prediction_task`.
    """

    def __init__(self, implementation: str, what: str, file: str):
        task = pickle.loads(Path(file).read_bytes())
        self.rssi = task["rssi"]
        self.predict = LOCATORS[what, implementation](task)
        self.predict(self.rssi[:1])

    def locate(self, scans: int) -> dict:
        return {"seconds": seconds_of(lambda: self.predict(self.rssi[:scans]))}


# === Requests ===

KINDS = {"train": Training, "product": Product, "load": Loading, "predict": Prediction}


def serve(requests, answers) -> None:
    """Answer until there are no more requests: the first says what to time, the others a method and its arguments."""
    beginning = json.loads(requests.readline())
    timed = KINDS[beginning["kind"]](beginning["implementation"], **beginning["task"])
    print(json.dumps({}), file=answers, flush=True)
    for line in requests:
        request = json.loads(line)
        method = getattr(timed, request.pop("do"))
        answer = method(**request)
        print(json.dumps(answer | {"peak_mb": peak_mb()}), file=answers, flush=True)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what libraries print is no answer
        serve(sys.stdin, answers)
