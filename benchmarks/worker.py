"""One implementation in a process of its own: does what it is asked to in JSON lines on stdin, answers on stdout.

`speed.py` starts and asks it. No library that is not timed may be imported: it would count as this one's memory.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BATCH_SIZE = 256
LEARNING_RATE = 0.001


def peak_mb() -> float:
    """The most memory that this process ever had in use, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss begins with what the process that started this one had
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def seconds_of(function: Callable[[], object], at_least: float = 0.3) -> float:
    """Mean seconds of a call, over as many calls as take `at_least` seconds."""
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < at_least:
        function()
        calls += 1
    return elapsed / calls


# === Networks ===


def keras_network(task: dict):
    """The network of a task in Keras, and its losses by output name."""
    from lib import models

    if task["network"] == "wide":
        import keras

        network = keras.Sequential([keras.Input((task["n_inputs"],))])
        for width, dropout in task["layers"]:
            network.add(keras.layers.Dense(width, use_bias=False))
            network.add(keras.layers.BatchNormalization(momentum=0.9))
            network.add(keras.layers.ReLU())
            network.add(keras.layers.Dropout(dropout))
        network.add(keras.layers.Dense(2, name="position"))
    else:
        network = {"localizer": models.localizer, "umlp": models.umlp}[task["network"]](task["n_inputs"])
    loss = {"environment": "binary_crossentropy", "position": "mse"} if task["network"] == "umlp" else "mse"
    return network, loss


def torch_network(task: dict):
    """The same in PyTorch: trunk and heads. A head is linear; what makes a probability of it is part of the loss."""
    from torch import nn

    blocks, width = [], task["n_inputs"]
    for units, dropout in task["layers"]:
        # Keras' epsilon, so that the networks are the same
        blocks += [nn.Linear(width, units, bias=False), nn.BatchNorm1d(units, eps=1e-3), nn.ReLU(), nn.Dropout(dropout)]
        width = units
    trunk = nn.Sequential(*blocks)
    heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in task["outputs"].items()})
    for weight in (weight for part in (trunk, heads) for weight in part.parameters() if weight.dim() == 2):
        nn.init.xavier_uniform_(weight)  # as Keras does: the losses are compared
    return trunk, heads


# === Training ===


def count(weights) -> int:
    """How many numbers there are in some arrays."""
    return sum(int(np.prod(weight.shape)) for weight in weights)


def arrays_of(task: dict) -> tuple[tuple, tuple]:
    """((x, y), (x, y)) to train and to validate on; y is an array, or a dict where there are several outputs."""
    with np.load(task["arrays"]) as file:
        arrays = {name: file[name] for name in file.files}
    pairs = []
    for part in ("train", "validation"):
        y = {name: arrays[f"{part}_{name}"] for name in task["outputs"]}
        pairs.append((arrays[f"{part}_x"], y if len(y) > 1 else y["position"]))
    return tuple(pairs)


def ours(task: dict) -> tuple[Callable[[int], float], int]:
    """Training with `lib.training.fit`.

    Returns:
        A function that goes on for a number of epochs and returns the last one's loss, and the number of weights.
    """
    from lib import training

    train, validation = arrays_of(task)
    network, loss = keras_network(task)
    settings = {"loss": loss, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, "decay": False}

    def fit(epochs: int) -> float:
        return training.fit(network, train, validation, epochs=epochs, **settings)["loss"].iloc[-1]

    return fit, count(network.trainable_weights)


def keras_defaults(task: dict) -> tuple[Callable[[int], float], int]:
    """The same with `Model.compile` and `Model.fit` as they come."""
    import keras

    train, validation = arrays_of(task)
    network, loss = keras_network(task)
    network.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), loss=loss)
    settings = {"validation_data": validation, "batch_size": BATCH_SIZE, "verbose": 0}

    def fit(epochs: int) -> float:
        return network.fit(*train, epochs=epochs, **settings).history["loss"][-1]

    return fit, count(network.trainable_weights)


def torch_loop(task: dict) -> tuple[Callable[[int], float], int]:
    """The same with the loop that PyTorch's users write, on tensors that stay in memory."""
    import torch
    from torch.nn import functional

    train, validation = arrays_of(task)
    trunk, heads = torch_network(task)
    parameters = [*trunk.parameters(), *heads.parameters()]
    optimiser = torch.optim.Adam(parameters, LEARNING_RATE)
    losses = {"position": functional.mse_loss, "environment": functional.binary_cross_entropy_with_logits}

    def tensors(x, y):
        y = y if isinstance(y, dict) else {"position": y}
        return torch.from_numpy(x), {name: torch.from_numpy(values) for name, values in y.items()}

    def loss_of(x, y):
        latent = trunk(x)
        return sum(losses[name](head(latent), y[name]) for name, head in heads.items())

    train, validation = tensors(*train), tensors(*validation)

    def fit(epochs: int) -> float:
        x, y = train
        for _ in range(epochs):
            trunk.train()
            total = torch.zeros(())
            for rows in torch.randperm(len(x)).split(BATCH_SIZE):
                loss = loss_of(x.index_select(0, rows), {name: of.index_select(0, rows) for name, of in y.items()})
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.detach() * len(rows)
            trunk.eval()
            with torch.no_grad():
                loss_of(*validation)
        return float(total) / len(x)

    return fit, count(parameters)


class Training:
    """Times one implementation of training."""

    def __init__(self, implementation: str, task: dict):
        self.begin = {"ours": ours, "PyTorch loop": torch_loop}.get(implementation, keras_defaults)
        self.task = task

    def _timed(self, epochs: int) -> float:
        started = time.perf_counter()
        self.loss = float(self.train(epochs))
        return time.perf_counter() - started

    def first(self) -> dict:
        """Building, compiling and one epoch."""
        started = time.perf_counter()
        self.train, weights = self.begin(self.task)
        self.train(1)
        return {"seconds": time.perf_counter() - started, "weights": weights}

    def block(self, epochs: int) -> dict:
        """Seconds an epoch, without what a training costs however long it is: the difference of a short and a long."""
        processor = time.process_time()
        short, long = self._timed(1), self._timed(1 + epochs)
        cores = (time.process_time() - processor) / (short + long)
        return {"seconds": (long - short) / epochs, "loss": self.loss, "cores": cores}


# === Matrix product ===


class Product:
    """Times the product of two square float32 matrices: no training on the same processor can be faster."""

    def __init__(self, implementation: str, task: dict):
        a, b = np.random.default_rng(0).random((2, task["n_inputs"], task["n_inputs"]), dtype=np.float32)
        if implementation == "torch product":
            import torch

            a, b = torch.from_numpy(a), torch.from_numpy(b)
        self.product = lambda: a @ b

    def block(self) -> dict:
        return {"seconds": seconds_of(self.product)}


def serve(asked, answers) -> None:
    """Answer requests until there are no more: the first names what to time, the others a method and its arguments."""
    about = json.loads(asked.readline())
    timed = {"train": Training, "product": Product}[about["kind"]](about["implementation"], about["task"])
    print(json.dumps({}), file=answers, flush=True)
    for line in asked:
        request = json.loads(line)
        answer = getattr(timed, request.pop("do"))(**request)
        print(json.dumps(answer | {"peak_mb": peak_mb()}), file=answers, flush=True)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what libraries print is no answer
        serve(sys.stdin, answers)
