"""Layers of localizers that earlier releases saved: imported where these are read."""

import functools
from collections.abc import Sequence

import numpy as np

from lib import quiet_import

with quiet_import():
    import keras
    from keras import layers, ops


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

    def _similarity(self, levels):
        """(n, k) levels → (n, m), 1 − d = 2 Σ min(a, b) / Σ(a + b). The sum of minima takes the strongest levels."""
        strongest, columns = ops.top_k(levels, min(self.strongest, levels.shape[-1]))
        common = ops.zeros((ops.shape(levels)[0], len(self.of_place)))
        for number in range(columns.shape[-1]):
            stored = ops.take(self.stored, columns[:, number], axis=0)
            common = common + ops.minimum(stored, strongest[:, number : number + 1])
        total = ops.sum(levels, axis=1, keepdims=True) + self.total
        return 2 * common / ops.maximum(total, 1e-9)

    def _votes(self, similarity, nearest, n_places: int):
        """(n, m) similarities, (n, 1) the largest → (n, c) sums of votes for each place."""
        votes = ops.exp((similarity - nearest) / self.width)
        by_place = ops.segment_sum(ops.transpose(votes), np.int32(self.of_place), num_segments=n_places)
        return ops.transpose(by_place)

    def call(self, inputs):
        *several_levels, logits = inputs
        similarities = [self._similarity(levels) for levels in several_levels]
        similarity = functools.reduce(ops.maximum, similarities)
        nearest = ops.max(similarity, axis=1, keepdims=True)
        votes = self._votes(similarity, nearest, logits.shape[-1])
        share = ops.where(nearest > 0, self.share, 0.0)
        of_votes = share * votes / ops.sum(votes, axis=1, keepdims=True)
        of_network = (1 - share) * ops.softmax(logits)
        return ops.log(ops.maximum(of_network + of_votes, 1e-30))

    def get_config(self):
        return super().get_config() | {
            "of_place": self.of_place,
            "share": self.share,
            "width": self.width,
            "strongest": self.strongest,
        }
