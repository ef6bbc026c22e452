"""The comparators that need no network: k nearest neighbours in signal space, the oldest method of the field."""

from collections.abc import Sequence

import numpy as np
from scipy import stats
from sklearn.neighbors import NearestNeighbors

from lib.fingerprints import FingerprintSet
from lib.preprocess import NOT_HEARD_DBM, powed

METRICS = ("euclidean", "sorensen")


class NearestFingerprints:
    """kNN: the position is the mean of the k most similar stored fingerprints, building and floor their majority.

    Args:
        metric: `euclidean` on RSSI in dBm with "not heard" 1 dB under the weakest (Torres-Sospedra et al. 2014), or
            `sorensen` (Bray–Curtis) on powed RSSI with β = e (Torres-Sospedra et al. 2015).
        k: number of neighbours.

    Raises:
        ValueError: if the metric is none of these or k is not positive.
    """

    def __init__(self, metric: str, k: int):
        if metric not in METRICS:
            raise ValueError(f"`metric` must be one of {', '.join(METRICS)}. Received: {metric}")
        if k < 1:
            raise ValueError(f"`k` must be positive. Received: k={k}")
        self.metric, self.k = metric, k

    def _scans(self, rssi: np.ndarray) -> np.ndarray:
        if self.metric == "sorensen":
            return powed(rssi, self._minimum)
        return np.where(np.isnan(rssi), self._minimum, rssi)

    def fit(self, radio_map: FingerprintSet) -> "NearestFingerprints":
        """Store the training fingerprints."""
        self._map, self._minimum = radio_map, NOT_HEARD_DBM[radio_map.name]
        metric = "braycurtis" if self.metric == "sorensen" else "euclidean"
        self._index = NearestNeighbors(n_neighbors=self.k, metric=metric, algorithm="brute")
        self._index.fit(self._scans(radio_map.rssi))
        return self

    def neighbours(self, rssi: np.ndarray) -> np.ndarray:
        """(n, t) dBm → (n, k) rows of the radio map, the most similar first."""
        scans = self._scans(rssi)
        # Two scans without a reading have no Sørensen distance (0/0); against a map they are equally far from all.
        scans[~scans.any(axis=1)] = 1e-6
        return self._index.kneighbors(scans, return_distance=False)

    def predict(self, rssi: np.ndarray) -> dict[str, np.ndarray]:
        """(n, t) dBm → `position` (n, 2) metres, and `building` and `floor` (n,) where the radio map has them."""
        rows = self.neighbours(rssi)
        return {"position": self._map.position[rows].mean(axis=1)} | {
            field: stats.mode(getattr(self._map, field)[rows], axis=1).mode
            for field in ("building", "floor")
            if getattr(self._map, field) is not None
        }


def choose_k(
    radio_map: FingerprintSet, validation: FingerprintSet, metric: str, candidates: Sequence[int]
) -> tuple[int, dict[int, float]]:
    """The k with the lowest mean error on validation rows, and the error in metres of every candidate.

    Raises:
        ValueError: if a candidate is not positive.
    """
    if min(candidates) < 1:
        raise ValueError(f"`candidates` must be positive. Received: {list(candidates)}")
    rows = NearestFingerprints(metric, max(candidates)).fit(radio_map).neighbours(validation.rssi)
    running_mean = radio_map.position[rows].cumsum(axis=1) / np.arange(1, rows.shape[1] + 1)[:, None]
    errors = np.linalg.norm(running_mean - validation.position[:, None], axis=2).mean(axis=0)
    by_k = {k: float(errors[k - 1]) for k in candidates}
    return min(by_k, key=by_k.get), by_k
