"""Training a network, transferring a base model, and predicting."""

import json
import math
import random
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from lib import quiet_import

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

        slot = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
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

    def any_rows(tensor):
        return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)

    order_spec = tf.TensorSpec([None], tf.int32)
    row_specs = keras.tree.map_structure(any_rows, rows)

    @tf.function(input_signature=[order_spec, row_specs])
    def epoch(order, rows):
        for start in tf.range(0, tf.size(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = keras.tree.map_structure(partial(tf.gather, indices=numbers), rows)
            step(batch)

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
        history = []
        watching = keras.callbacks.CallbackList(watchers, model=self.network)
        watching.on_train_begin()
        for epoch in trange(epochs, desc=label, leave=False):
            shuffled = np.random.permutation(rows)  # noqa: NPY002, this is what keras.utils.set_random_seed seeds
            results = self._pass("", shuffled, train)
            if validation is not None:
                in_order = np.arange(len(validation[0]), dtype=np.int32)
                results |= self._pass("val_", in_order, validation)
            history.append(results)
            watching.on_epoch_end(epoch, results)
            if self.network.stop_training or not np.isfinite(results["loss"]):
                break
        watching.on_train_end()
        return history

    def _pass(self, prefix: str, order: np.ndarray, rows: tuple) -> dict[str, float]:
        epoch = self.epochs[prefix]
        self.network.reset_metrics()
        epoch(keras.ops.convert_to_tensor(order), rows)
        metrics = self.network.get_metrics_result()
        return {f"{prefix}{name}": float(value) for name, value in metrics.items()}


_TRAINERS: dict[str, _Trainer] = {}  # by architecture and settings, the latest last


def _copy_variables(source: keras.Model, target: keras.Model) -> None:
    """Copy weights, statistics and the state of random layers."""
    for giver, taker in zip(source.variables, target.variables, strict=True):
        taker.assign(giver)


def _without_seeds(config: dict) -> dict:
    """A network's configuration without the seeds of its random layers: their state is copied like weights."""
    return {name: value for name, value in config.items() if name != "seed"}


def _described(thing) -> dict | str:
    """What stands in a configuration for an object that JSON has no form of."""
    return thing.get_config() if hasattr(thing, "get_config") else str(thing)


def _key(model: keras.Model, compiling: dict, train: tuple, validation: tuple | None, batch_size: int) -> str:
    """The same for trainings that can share a trainer: of one architecture, with the same settings."""
    shapes = []
    for tensor in keras.tree.flatten((train, validation or ())):
        shapes.append((str(tensor.dtype), list(tensor.shape[1:])))
    settings = [model.get_config(), compiling, batch_size, shapes, validation is None]
    config = json.loads(json.dumps(settings, default=_described), object_hook=_without_seeds)
    return json.dumps(config, sort_keys=True)


def _copy_of(model: keras.Model) -> keras.Model:
    """A network of the same architecture. Later random numbers are what they would be without it."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002, first weights and seeds are drawn from these
    copy = model.__class__.from_config(model.get_config())
    random.setstate(python_state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    return copy


def _compile(
    model: keras.Model,
    loss,
    learning_rate: float,
    weight_decay: float | None,
    steps: int | None,
) -> None:
    """Give a network its loss, its metrics and Adam; the rate decays to 0 over `steps`, None keeps it."""
    metrics = []
    if not isinstance(loss, keras.losses.Loss):
        metrics = [keras.metrics.RootMeanSquaredError(name="rmse")]
    if isinstance(loss, dict):
        metrics = {"position": metrics}
    if steps is not None:
        learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(optimizer=Adam(learning_rate, weight_decay=weight_decay), loss=loss, metrics=metrics)
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
        trainer = _Trainer(model, compiling, train, validation, batch_size)
        return trainer.train(train, validation, **training)
    key = _key(model, compiling, train, validation, batch_size)
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
            times in a process, whose layers all have names and configurations, as must losses that are no names. The
            result is the same.
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
    watchers = []
    if patience is not None:
        watchers.append(keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True))
    steps = None
    if decay:
        steps = epochs * math.ceil(len(train[0]) / batch_size)
    compiling = {"loss": loss, "learning_rate": learning_rate, "weight_decay": weight_decay, "steps": steps}
    if keras.backend.backend() == "tensorflow":
        history = _fit_in_memory(
            model, compiling, train, validation, batch_size, reuse, epochs=epochs, label=label, watchers=watchers
        )
    else:
        _compile(model, **compiling)
        progress = TqdmCallback(verbose=0, desc=label, leave=False)
        fitted = model.fit(
            *train,
            validation_data=validation,
            epochs=epochs,
            batch_size=batch_size,
            callbacks=[*watchers, progress, keras.callbacks.TerminateOnNaN()],
            verbose=0,
        )
        history = fitted.history
    curves = pd.DataFrame(history)
    curves.columns = curves.columns.str.replace("position_rmse", "rmse")
    curves.insert(0, "epoch", np.arange(1, len(curves) + 1))
    if not np.isfinite(curves["loss"]).all():
        raise ValueError(f"{label}: the loss became {curves['loss'].iloc[-1]} in epoch {len(curves)}")
    return curves


def transfer(source: keras.Model, target: keras.Model) -> None:
    """Copy the base model's weights, and nothing else, from one localizer to another (Eq. 4's starting point).

    Raises:
        ValueError: if the two base models do not have the same shape.
    """
    giver = source.get_layer("base_model")
    taker = target.get_layer("base_model")
    offered = [tuple(weight.shape) for weight in giver.weights]
    expected = [tuple(weight.shape) for weight in taker.weights]
    if offered != expected:
        raise ValueError(f"both base models must have the same weights. Received: {offered} and {expected}")
    taker.set_weights(giver.get_weights())


def predict(model: keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs by name for (n, inputs) scans. Calls the network as it is: `Model.predict` would compile for seconds."""
    parts = []
    for start in range(0, max(1, len(x)), PREDICTED_AT_ONCE):
        outputs = model(x[start : start + PREDICTED_AT_ONCE], training=False)
        if not isinstance(outputs, dict):
            outputs = {"position": outputs}
        parts.append(outputs)
    joined = {}
    for name in parts[0]:
        arrays = [keras.ops.convert_to_numpy(part[name]) for part in parts]
        joined[name] = np.concatenate(arrays)
    return joined
