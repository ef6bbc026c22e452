"""Layers of localizers that earlier releases saved: imported where these are read."""

import functools
from collections.abc import Sequence

from lib import quiet_import
from lib.models.layers import LEAST_PROBABILITY
from lib.models.places import similarity_to_stored, votes_of_places

with quiet_import():
    import keras
    from keras import layers, ops


@keras.saving.register_keras_serializable("fingerprints")
class HalfDense(layers.Dense):
    """A dense layer that multiplied in bfloat16 while it was trained."""


@keras.saving.register_keras_serializable("fingerprints")
class Neighbours(layers.Layer):
    """[(n, k) levels, …, (n, c) logits] → (n, c) log probabilities, into which votes of stored fingerprints are mixed.

    Each stored fingerprint votes for its place with e^(−d / width), d its Sørensen distance from the scan,
    Σ|a − b| / Σ(a + b), as in kNN. A scan may come as several levels, as phones of different gain would have heard it:
    then d is the smallest of the distances. A network and its neighbours err in different scans. Where a scan shares
    no transmitter with any stored fingerprint, as one of another environment, the network decides alone.

    Args:
        of_place: (m,) the number of each stored fingerprint's place.
        share: of the votes in the probabilities, 0 to 1.
        width: the distance over which a vote falls to 1/e.
        strongest: how many of a scan's transmitters, the strongest, are compared.
    """

    def __init__(self, of_place: Sequence[int], share: float, width: float, strongest: int, **settings):
        super().__init__(**settings)
        self.of_place = [int(place) for place in of_place]
        self.share = share
        self.width = width
        self.strongest = strongest

    def build(self, input_shape):
        n_levels = input_shape[0][-1]
        n_stored = len(self.of_place)
        self.stored = self.add_weight((n_levels, n_stored), initializer="zeros", trainable=False, name="stored")
        self.total = self.add_weight((1, n_stored), initializer="zeros", trainable=False, name="total")

    def call(self, inputs):
        *several_levels, logits = inputs
        similarities = []
        for levels in several_levels:
            similarities.append(similarity_to_stored(levels, self.stored, self.total, self.strongest))
        similarity = functools.reduce(ops.maximum, similarities)
        nearest = ops.max(similarity, axis=1, keepdims=True)
        votes = votes_of_places(similarity, self.of_place, self.width, logits.shape[-1])
        share = ops.where(nearest > 0, self.share, 0.0)
        both = (1 - share) * ops.softmax(logits) + share * votes
        return ops.log(ops.maximum(both, LEAST_PROBABILITY))

    def get_config(self):
        return super().get_config() | {
            "of_place": self.of_place,
            "share": self.share,
            "width": self.width,
            "strongest": self.strongest,
        }
