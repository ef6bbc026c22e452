"""One network for several environments, of which each scan meets only its own inputs and places while it is learnt.

The probability of a place is that of its environment times that of the place within it. So a scan teaches which
environment it is from, and the place among those of its own environment alone: the places of all the others, and the
transmitters that it cannot hear, cost nothing. The network in use is an ordinary one.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from lib import quiet_import
from lib.models.layers import Augmentation, Levels, check_positive, dense, dense_blocks
from lib.models.places import PlaceLoss

with quiet_import():
    import keras
    from keras import layers, ops

TRUNK, FIRST_LAYER, ENVIRONMENT, HEAD = "trunk", "trunk_dense_1", "environment", "head"


@keras.saving.register_keras_serializable("fingerprints")
class PlacesOfEnvironments(layers.Layer):
    """[(n, e), (n, c)] logits of environments and of places → (n, c) log probabilities of places.

    Args:
        counts: how many places each environment has; those of the first environment come first.
    """

    def __init__(self, counts: Sequence[int], **settings):
        super().__init__(**settings)
        self.counts = [int(count) for count in counts]

    def call(self, inputs):
        of_environment, of_place = inputs
        of_environment = ops.log_softmax(of_environment)
        parts = []
        start = 0
        for number, count in enumerate(self.counts):
            within = ops.log_softmax(of_place[:, start : start + count])
            parts.append(of_environment[:, number : number + 1] + within)
            start += count
        return ops.concatenate(parts, axis=1)

    def get_config(self):
        return super().get_config() | {"counts": self.counts}


def member_of_several(
    n_levels: int, counts: Sequence[int], *, hidden: Sequence[int], dropout: float, name: str = "member"
) -> keras.Model:
    """As `layers.member_network`, for several environments: it tells the environment, and the place within it.

    Args:
        n_levels: outputs of `Levels`.
        counts: how many places each environment has.
        hidden, dropout: widths of the trunk's layers, and the rate after each.
        name: of the model.

    Returns:
        A model (batch, n_levels) → (batch, Σ counts) log probabilities.

    Raises:
        ValueError: if a size is not positive.
    """
    check_positive(n_levels=n_levels, n_places=min(counts))
    inputs = keras.Input((n_levels,), name="levels")
    x = dense_blocks(inputs, hidden, dropout, TRUNK)
    of_environment = dense(len(counts), name=ENVIRONMENT)(x)
    of_place = dense(sum(counts), name=HEAD)(x)
    return keras.Model(inputs, PlacesOfEnvironments(counts, name="places")([of_environment, of_place]), name=name)


class LearningByEnvironment(keras.Model):
    """A `member_of_several` as it learns: (batch, t) dBm with NaN = not heard → what the member tells.

    Its loss must be a `PlaceLoss`. While it is trained, the loss takes each scan through its own environment's inputs
    and places; the trunk behind the first layer sees the whole batch, which its normalisation has in common. How many
    scans of a batch are of which environment is only known while it runs: with JAX, which compiles fixed shapes alone,
    it cannot be trained.

    Args:
        member: see `member_of_several`.
        columns: for each environment the inputs that its transmitters are. Where environments have inputs in common, a
            scan meets those of all.
        minimum: (t,) dBm of what is not heard.
        levels: arguments of `Levels`.
        augmentation: arguments of `Augmentation` but `weakest`.
    """

    def __init__(
        self,
        member: keras.Model,
        columns: Sequence[Sequence[int]],
        minimum: Sequence[float],
        levels: Mapping,
        augmentation: Mapping[str, Sequence[float]],
        **settings,
    ):
        super().__init__(**settings)
        self.member = member
        self.settings = {"columns": columns, "minimum": minimum, "levels": levels, "augmentation": augmentation}
        self.whole_levels = Levels(**levels)
        self.counts = member.get_layer("places").counts
        self.groups = _groups(columns, len(minimum))
        self.augmentations = [self._augmentation(own) for own in self.groups]
        self.own_levels = [self._levels(own) for own in self.groups]

    def _augmentation(self, own: np.ndarray) -> Augmentation:
        of_group = {name: np.asarray(values)[own] for name, values in self.settings["augmentation"].items()}
        return Augmentation(**of_group, weakest=np.asarray(self.settings["minimum"])[own])

    def _levels(self, own: np.ndarray) -> Levels:
        """`Levels` of a group's inputs."""
        levels = self.settings["levels"]
        numbers = np.searchsorted(own, levels["columns"])
        is_own = np.isin(levels["columns"], own)
        minimum = np.asarray(levels["minimum"])[is_own]
        return Levels(**dict(levels) | {"columns": numbers[is_own], "minimum": minimum})

    def build(self, input_shape):
        self.built = True  # its member is

    def call(self, rssi, training: bool = False):
        if training:
            return rssi  # how it goes on depends on the environment, which `compute_loss` knows
        return self.member(self.whole_levels(rssi))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training: bool = True):
        """Mean cross-entropy of environment and place: (n, t) dBm `x`, (n, 5) `y` as of `PlaceLoss` → a number."""
        environment = ops.cast(y[:, 0], "int32")
        rows = [ops.where(environment == number)[0] for number in range(len(self.counts))]
        in_order = ops.concatenate(rows)
        hidden = self._trunk(self._first_layer(x, rows))
        logits = self.member.get_layer(ENVIRONMENT)(hidden)
        environment = ops.take(environment, in_order)
        total = ops.sum(ops.sparse_categorical_crossentropy(environment, logits, from_logits=True))
        head = self.member.get_layer(HEAD)
        bounds = np.cumsum(self.counts)[:-1].tolist()
        kernels = ops.split(head.kernel, bounds, axis=1)
        biases = ops.split(head.bias, bounds)
        start = 0
        for number, own_rows in enumerate(rows):
            stop = start + ops.shape(own_rows)[0]
            if self.counts[number] > 1:  # an environment of one place leaves nothing to tell within it
                logits = ops.matmul(hidden[start:stop], kernels[number]) + biases[number]
                total = total + ops.sum(self._loss_within(number).call(ops.take(y, own_rows, axis=0), logits))
            start = stop
        return total / ops.cast(ops.shape(y)[0], "float32")

    def _first_layer(self, rssi, rows: Sequence):
        """(n, width) of the scans, those of the first environment first."""
        kernel = self.member.get_layer(FIRST_LAYER).kernel
        if len(self.groups) == 1:
            rows = [ops.concatenate(rows)]
        parts = []
        for kernel_of_group, own_rows, own, augmentation, levels in zip(
            self._kernels(kernel), rows, self.groups, self.augmentations, self.own_levels, strict=True
        ):
            scans = ops.take(ops.take(rssi, own_rows, axis=0), np.int32(own), axis=1)
            parts.append(ops.matmul(levels(augmentation(scans, training=True)), kernel_of_group))
        return ops.concatenate(parts)

    def _kernels(self, kernel) -> list:
        """Of the first layer's kernel, the rows of each group."""
        if len(self.groups) == 1:
            return [kernel]
        counts = [len(levels.columns) for levels in self.own_levels]
        bounds = np.cumsum(counts)
        if not self.whole_levels.heard:
            return ops.split(kernel, bounds[:-1].tolist(), axis=0)
        both = np.concatenate([bounds, bounds[-1] + bounds[:-1]])
        parts = ops.split(kernel, both.tolist(), axis=0)
        return [ops.concatenate(pair) for pair in zip(parts[: len(counts)], parts[len(counts) :], strict=True)]

    def _trunk(self, x):
        """The trunk behind its first layer."""
        behind = self.member.layers[2:]  # its input is a layer, too
        for layer in behind:
            if layer.name.startswith(TRUNK):
                x = layer(x, training=True)
        return x

    def _loss_within(self, number: int) -> PlaceLoss:
        """Of an environment's places."""
        places = self.loss.places
        return PlaceLoss(places[places.environment == number])

    def get_config(self):
        config = {name: _as_lists(value) for name, value in self.settings.items()}
        return {"name": self.name, "member": keras.saving.serialize_keras_object(self.member)} | config

    @classmethod
    def from_config(cls, config: Mapping) -> Self:
        member = keras.saving.deserialize_keras_object(config["member"])
        return cls(**dict(config) | {"member": member})


def _groups(columns: Sequence[Sequence[int]], n_transmitters: int) -> list[np.ndarray]:
    """The inputs of each environment, which follow one another; all inputs as one group if some are several's."""
    if sum(map(len, columns)) > n_transmitters:
        return [np.arange(n_transmitters)]
    return [np.asarray(own) for own in columns]


def _as_lists(value):
    """Arrays as lists, in mappings and sequences too."""
    if isinstance(value, Mapping):
        return {name: _as_lists(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_as_lists(part) for part in value]
    return value
