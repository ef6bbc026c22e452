"""Training a network, transferring a base model, and remembering finished runs."""

import hashlib
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lib import THREADS, models, quiet_import
from lib.preprocess import ProcessedSet

with quiet_import():
    import keras
    from tqdm.auto import trange
    from tqdm.keras import TqdmCallback

VALIDATED_AT_ONCE = 4096  # rows
KEPT_TRAINERS = 16  # architectures; a trainer holds its network, Adam's two copies of it and the graphs
PREDICTED_AT_ONCE = 512  # rows; of many more, what lies between the layers would not stay in the processor's caches


class Adam(keras.optimizers.Adam):
    """Keras' Adam, on TensorFlow by its one kernel for the update of a variable, where Keras makes a dozen passes."""

    def update_step(self, gradient, variable, learning_rate):
        if keras.backend.backend() != "tensorflow":
            return super().update_step(gradient, variable, learning_rate)
        import tensorflow as tf

        slot, step = self._get_variable_index(variable), tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[slot].value.handle,
            v=self._velocities[slot].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def _all_reduce_sum_gradients(self, gradients_and_variables):
        """One process has nothing to sum, but TensorFlow would keep the graph and its rows for the sum's gradient."""
        return gradients_and_variables


def _epoch(step: Callable, rows: tuple, batch_size: int) -> Callable:
    """`step` on batch after batch of rows that stay in memory, as one TensorFlow graph.

    `Model.fit` sends each batch through a pipeline of its own, which costs such small networks as much as the training.

    Args:
        step: `train_step` or `test_step` of a network.
        rows: (x, y) tensors, of which only the shape of a row counts here.
        batch_size: rows of a batch.

    Returns:
        A function of the order, (n,) row numbers, and the rows.
    """
    import tensorflow as tf

    row_specs = keras.tree.map_structure(lambda tensor: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype), rows)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), row_specs])
    def epoch(order, rows):
        for start in tf.range(0, tf.size(order), batch_size):
            batch = order[start : start + batch_size]
            step(keras.tree.map_structure(partial(tf.gather, indices=batch), rows))

    return epoch.get_concrete_function()  # called like this, TensorFlow does not mind that each network has its own


class _Trainer:
    """A compiled network and the graphs of its epochs (TensorFlow only).

    Tracing a graph takes as long as several epochs of a small network. So the trainer of an architecture can be kept:
    a later training of the same architecture and settings only puts its own first weights in.
    """

    def __init__(self, network: keras.Model, compiling: dict, train: tuple, validation: tuple | None, batch_size: int):
        self.network = network
        _compile(network, **compiling)
        self.epochs = {"": _epoch(network.train_step, train, batch_size)}
        if validation is not None:
            self.epochs["val_"] = _epoch(network.test_step, validation, VALIDATED_AT_ONCE)
        self._fresh_optimizer = [variable.numpy() for variable in network.optimizer.variables]

    def start_from(self, model: keras.Model) -> None:
        """Take over the weights and the random state of `model`, and forget what was trained before."""
        _copy_variables(model, self.network)
        for variable, value in zip(self.network.optimizer.variables, self._fresh_optimizer, strict=True):
            variable.assign(value)
        self.network.stop_training = False

    def train(
        self, train: tuple, validation: tuple | None, epochs: int, label: str, watchers: list[keras.callbacks.Callback]
    ) -> list[dict]:
        """What `Model.fit` does and returns, one dict an epoch, for tensors that fit in memory."""
        rows = np.arange(len(train[0]), dtype=np.int32)
        history, watching = [], keras.callbacks.CallbackList(watchers, model=self.network)
        watching.on_train_begin()
        for epoch in trange(epochs, desc=label, leave=False):
            shuffled = np.random.permutation(rows)  # noqa: NPY002, this is what keras.utils.set_random_seed seeds
            results = self._pass("", shuffled, train)
            if validation is not None:
                results |= self._pass("val_", np.arange(len(validation[0]), dtype=np.int32), validation)
            history.append(results)
            watching.on_epoch_end(epoch, results)
            if self.network.stop_training or not np.isfinite(results["loss"]):
                break
        watching.on_train_end()
        return history

    def _pass(self, prefix: str, order: np.ndarray, rows: tuple) -> dict[str, float]:
        self.network.reset_metrics()
        self.epochs[prefix](keras.ops.convert_to_tensor(order), rows)
        return {f"{prefix}{name}": float(value) for name, value in self.network.get_metrics_result().items()}


_TRAINERS: dict[str, _Trainer] = {}  # by architecture and settings, the latest last


def _copy_variables(source: keras.Model, target: keras.Model) -> None:
    """Copy weights, statistics and the state of random layers."""
    for giver, taker in zip(source.variables, target.variables, strict=True):
        taker.assign(giver)


def _without_seeds(config):
    """A network's configuration without the seeds of its random layers: their state is copied like weights."""
    if isinstance(config, dict):
        return {name: _without_seeds(value) for name, value in sorted(config.items()) if name != "seed"}
    if isinstance(config, list):
        return [_without_seeds(value) for value in config]
    return config


def _copy_of(model: keras.Model) -> keras.Model:
    """A network of the same architecture. Later random numbers are what they would be without it."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002, first weights and seeds are drawn from these
    copy = model.__class__.from_config(model.get_config())
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    return copy


def _compile(
    model: keras.Model,
    loss,
    learning_rate: float,
    weight_decay: float | None,
    steps: int | None,
) -> None:
    """Give a network its loss, its metrics and Adam; the rate decays to 0 over `steps`, None keeps it."""
    rmse = [] if isinstance(loss, keras.losses.Loss) else [keras.metrics.RootMeanSquaredError(name="rmse")]
    rate = learning_rate if steps is None else keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        optimizer=Adam(rate, weight_decay=weight_decay),
        loss=loss,
        metrics={"position": rmse} if isinstance(loss, dict) else rmse,
    )
    # Built inside the graph of an epoch, each of the optimizer's variables would take a graph of its own.
    model.optimizer.build(model.trainable_variables)


def _fit_in_memory(
    model: keras.Model,
    compiling: dict,
    train: tuple,
    validation: tuple | None,
    batch_size: int,
    reuse: bool,
    **training,
) -> list[dict]:
    """Train `model` on rows that stay in memory, with `reuse` by the trainer of its architecture (TensorFlow only)."""
    train = keras.tree.map_structure(keras.ops.convert_to_tensor, train)
    if validation is not None:
        validation = keras.tree.map_structure(keras.ops.convert_to_tensor, validation)
    if not reuse:
        return _Trainer(model, compiling, train, validation, batch_size).train(train, validation, **training)
    shapes = [(str(tensor.dtype), list(tensor.shape[1:])) for tensor in keras.tree.flatten((train, validation or ()))]
    about = [model.get_config(), compiling, batch_size, shapes, validation is None]
    key = json.dumps(_without_seeds(json.loads(json.dumps(about, default=_described))))
    trainer = _TRAINERS.pop(key, None)  # out of reach while it trains, should another thread want one like it
    if trainer is None:
        trainer = _Trainer(_copy_of(model), compiling, train, validation, batch_size)
    trainer.start_from(model)
    history = trainer.train(train, validation, **training)
    _copy_variables(trainer.network, model)
    _TRAINERS[key] = trainer
    if len(_TRAINERS) > KEPT_TRAINERS:
        _TRAINERS.pop(next(iter(_TRAINERS)), None)
    return history


def fit(
    model: keras.Model,
    train: tuple,
    validation: tuple | None,
    *,
    loss,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float | None = None,
    decay: bool = True,
    patience: int | None = None,
    reuse: bool = False,
    label: str = "training",
) -> pd.DataFrame:
    """Train with Adam.

    Args:
        model: a network with one output `position` (n, 2), or several outputs by name.
        train, validation: (x, y), y an array or a dict of arrays by output name; no validation rows are None.
        loss: name of a Keras loss, a dict by output name, or a loss of its own for a model's one output.
        epochs, batch_size, learning_rate: positive numbers.
        weight_decay: decoupled from the gradient (AdamW, Loshchilov & Hutter 2019); None goes without.
        decay: whether the learning rate falls to 0 along a cosine over all epochs, or stays what it is.
        patience: stop after so many epochs without a lower validation loss, and go back to the weights that had the
            lowest; None trains all epochs and keeps the last.
        reuse: whether networks of the same architecture share what is compiled: for networks that are trained many
            times in a process, whose layers all have names and configurations, and for losses by name. The result is
            the same.
        label: shown beside the progress bar.

    Returns:
        One row an epoch: `epoch`, `loss`, `rmse` (of the normalised position, where the loss is one by name), and the
        same for validation rows with `val_` before the name.

    Raises:
        ValueError: if epochs, batch size or learning rate is not positive, or the loss becomes NaN.
    """
    for name, value in {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}.items():
        if not value > 0:
            raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
    watchers = [] if patience is None else [keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)]
    steps = epochs * -(-len(train[0]) // batch_size) if decay else None
    compiling = {"loss": loss, "learning_rate": learning_rate, "weight_decay": weight_decay, "steps": steps}
    if keras.backend.backend() == "tensorflow":
        history = _fit_in_memory(
            model, compiling, train, validation, batch_size, reuse, epochs=epochs, label=label, watchers=watchers
        )
    else:
        _compile(model, **compiling)
        history = model.fit(
            *train,
            validation_data=validation,
            epochs=epochs,
            batch_size=batch_size,
            callbacks=[*watchers, TqdmCallback(verbose=0, desc=label, leave=False), keras.callbacks.TerminateOnNaN()],
            verbose=0,
        ).history
    curves = pd.DataFrame(history).rename(columns=lambda name: name.replace("position_rmse", "rmse"))
    curves.insert(0, "epoch", np.arange(1, len(curves) + 1))
    if not np.isfinite(curves["loss"]).all():
        raise ValueError(f"{label}: the loss became {curves['loss'].iloc[-1]} in epoch {len(curves)}")
    return curves


def transfer(source: keras.Model, target: keras.Model) -> None:
    """Copy the base model's weights, and nothing else, from one localizer to another (Eq. 4's starting point).

    Raises:
        ValueError: if the two base models do not have the same shape.
    """
    giver, taker = (model.get_layer("base_model") for model in (source, target))
    shapes = [[tuple(weight.shape) for weight in model.weights] for model in (giver, taker)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"both base models must have the same weights. Received: {shapes[0]} and {shapes[1]}")
    taker.set_weights(giver.get_weights())


# === Finished runs ===

_THIS_FILE = Path(__file__).read_bytes()  # as it was when imported


@dataclass(frozen=True)
class Run:
    """What a training run leaves.

    Attributes:
        model: the trained network; None for what is no single network, of which only the predictions are kept.
        curves: one row an epoch, see `fit`; no rows for what is not trained in epochs.
        predicted: arrays by name, the outputs on the test rows; a single output is called `position`.
        seconds: wall time of the training.
        predict_us: microseconds to predict one row, in batches of `PREDICTED_AT_ONCE`.
    """

    model: keras.Model | None
    curves: pd.DataFrame
    predicted: dict[str, np.ndarray]
    seconds: float
    predict_us: float


def predict(model: keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs by name for (n, inputs) scans. Calls the network as it is: `Model.predict` would compile for seconds."""
    parts = []
    for start in range(0, len(x), PREDICTED_AT_ONCE):
        outputs = model(x[start : start + PREDICTED_AT_ONCE], training=False)
        parts.append(outputs if isinstance(outputs, dict) else {"position": outputs})
    return {name: np.concatenate([keras.ops.convert_to_numpy(part[name]) for part in parts]) for name in parts[0]}


def _described(thing) -> dict | str:
    return thing.get_config() if hasattr(thing, "get_config") else str(thing)


def digest(about: list | dict, arrays: list[np.ndarray], code: bytes = b"") -> str:
    """Of all that decides a run: what it is about, the data, Keras, this file and other code that takes part."""
    about = [about, keras.__version__, keras.backend.backend(), THREADS]
    found = hashlib.sha256(json.dumps(about, sort_keys=True, default=_described).encode() + _THIS_FILE + code)
    for array in map(np.ascontiguousarray, arrays):
        found.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
    return found.hexdigest()


def recall(folder: Path, key: str, model: keras.Model | None = None) -> Run | None:
    """The run that was kept in `folder` under this very key, its weights put into `model`; None where there is none."""
    about = folder / "run.json"
    if not about.exists() or (kept := json.loads(about.read_text()))["key"] != key:
        return None
    log(folder.name, kept["seconds"], "recalled")
    with np.load(folder / "predicted.npz") as file:
        predicted = {name: file[name] for name in file.files}
    if model is not None:
        model.load_weights(folder / "model.weights.h5")
    curves = pd.read_csv(folder / "curves.csv")
    return Run(model, curves, predicted, kept["seconds"], kept["predict_us"])


def keep(folder: Path, key: str, finished: Run) -> Run:
    """Write a run beside its place and move it there whole, and return it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
    try:
        if finished.model is not None:
            finished.model.save_weights(scratch / "model.weights.h5")
        finished.curves.to_csv(scratch / "curves.csv", index=False)
        np.savez_compressed(scratch / "predicted.npz", **finished.predicted)
        times = {"seconds": finished.seconds, "predict_us": finished.predict_us}
        (scratch / "run.json").write_text(json.dumps({"key": key, **times}, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    log(folder.name, finished.seconds, "trained")
    return finished


def log(name: str, seconds: float, what: str) -> None:
    """Append a training to the file that TRAINING_LOG names, by which the run of a notebook counts them.

    Args:
        name: of the training.
        seconds: that it took, now or when it was trained.
        what: `trained` or `recalled`.
    """
    if path := os.environ.get("TRAINING_LOG"):
        with open(path, "a") as file:  # one short write, so that lines of several processes do not mix
            file.write(f"{what},{seconds:.2f},{name}\n")


def run(
    folder: Path,
    build: Callable[[], keras.Model],
    train: tuple,
    validation: tuple | None,
    test: np.ndarray,
    seed: int,
    *,
    finish: Callable[[keras.Model], keras.Model] = lambda trained: trained,
    code: bytes = b"",
    **settings,
) -> Run:
    """Seed, build, train and predict the test rows; or the run in `folder`, if the very same one was finished there.

    So a killed notebook continues with the training that it was in, and new drawing code costs none.

    Args:
        folder: the run's own folder.
        build: makes the untrained network; called after seeding.
        train, validation: (x, y) as in `fit`.
        test: (n_test, inputs) scans to predict.
        seed: of the network's first weights, the order of rows and the dropout.
        finish: makes of the trained network the one that predicts.
        code: of what takes part beside this file, where a loss or layers of our own do.
        settings: the other arguments of `fit`; the label is the folder's name.
    """
    keras.utils.set_random_seed(seed)
    model = build()
    predictor = finish(model)
    arrays = [*model.get_weights(), *keras.tree.flatten((train, validation or (), test))]
    key = digest([predictor.get_config(), settings | {"seed": seed}], arrays, code)
    if kept := recall(folder, key, predictor):
        return kept
    started = time.perf_counter()
    curves = fit(model, train, validation, label=folder.name, **settings)
    trained = time.perf_counter()
    predict(predictor, test[:PREDICTED_AT_ONCE])  # the first call also sets up threads and memory
    predicting = time.perf_counter()
    predicted = predict(predictor, test)
    predict_us = (time.perf_counter() - predicting) / len(test) * 1e6
    return keep(folder, key, Run(predictor, curves, predicted, trained - started, predict_us))


# === The paper's networks ===


def train_localizer(
    data: ProcessedSet,
    folder: Path,
    seed: int,
    *,
    config: str,
    dropout: float,
    source: Run | None = None,
    frozen: bool = False,
    rows=slice(None),
    **settings,
) -> Run:
    """Train a localizer on one environment, from scratch or with the base model of another run as its start (Eq. 4).

    Args:
        data: the environment and protocol.
        folder, seed, settings: see `run` and `fit`.
        config, dropout: see `models.localizer`.
        source: a finished run of the source environment.
        frozen: whether the base model stays as it is.
        rows: which of the training rows to use.

    Returns:
        A run that predicted the test rows, or where there are none, the validation rows.
    """

    def build() -> keras.Model:
        localizer = models.localizer(data.x.shape[1], config, dropout)
        if source is not None:
            transfer(source.model, localizer)
        localizer.get_layer("base_model").trainable = not frozen
        return localizer

    x, y = data.part("train")
    predicted, _ = data.part("test" if len(data.split.test) else "validation")
    parts = (x[rows], y[rows]), data.part("validation")
    return run(folder, build, *parts, predicted, seed, loss="mse", reuse=True, **settings)


def train_umlp(
    parts: dict[str, tuple], folder: Path, seed: int, *, config: str, dropout: float, rows=slice(None), **settings
) -> Run:
    """Train a U-MLP on balanced rows of both environments, or on some of them.

    Args:
        parts: what `preprocess.unify` returns; the test rows are predicted, or without any the validation rows.
        folder, seed, settings: see `run` and `fit`.
        config, dropout: see `models.umlp`.
        rows: which of the training rows to use.
    """
    x, y = parts["train"]
    return run(
        folder,
        lambda: models.umlp(x.shape[1], config, dropout),
        (x[rows], {name: values[rows] for name, values in y.items()}),
        parts["validation"],
        parts["test" if len(parts["test"][0]) else "validation"][0],
        seed,
        loss={"environment": "binary_crossentropy", "position": "mse"},
        reuse=True,
        **settings,
    )
