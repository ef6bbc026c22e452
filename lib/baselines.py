"""The comparators that need no network: k nearest neighbours in signal space, the oldest method of the field."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse, stats
from sklearn.neighbors import NearestNeighbors

from lib.fingerprints import FingerprintSet
from lib.preprocess import NOT_HEARD_DBM, powed

METRICS = ("euclidean", "sorensen")
SILENT_LEVEL = 2.0**-20


class NearestFingerprints:
    """kNN: the position is the mean of the k most similar stored fingerprints, building and floor their majority.

    The search is exact. Of equally far fingerprints `sorensen` takes the lowest rows; `euclidean` leaves the choice to
    scikit-learn, where it depends on the number of threads. By `sorensen` a scan that hears nothing is about equally
    far from all; nearest are those that hear many transmitters, each of them hardly.

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

    def fit(self, radio_map: FingerprintSet) -> "NearestFingerprints":
        """Store the training fingerprints, for `sorensen` as lists of the rows that hear each transmitter.

        Raises:
            ValueError: if there are fewer than k.
        """
        if self.k > len(radio_map):
            raise ValueError(f"`k` must be at most {len(radio_map)}, the radio map's rows. Received: k={self.k}")
        self._map, self._minimum = radio_map, NOT_HEARD_DBM[radio_map.name]
        if self.metric == "euclidean":
            self._index = NearestNeighbors(n_neighbors=self.k, algorithm="brute")
            self._index.fit(np.where(np.isnan(radio_map.rssi), self._minimum, radio_map.rssi))
        else:
            by_transmitter = sparse.csc_array(self._heard(radio_map.rssi), shape=radio_map.rssi.shape)
            rows, ends = by_transmitter.indices.astype(np.intp), by_transmitter.indptr[1:-1]
            self._lists = list(zip(np.split(rows, ends), np.split(by_transmitter.data, ends), strict=True))
            self._sums = by_transmitter.sum(axis=1)
        return self

    def _heard(self, rssi: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """dBm → powed RSSI of what is heard, and where."""
        heard = np.nonzero(~np.isnan(rssi))
        return powed(rssi[heard], self._minimum).astype(np.float64), heard

    def _sorensen(self, scan: np.ndarray) -> np.ndarray:
        """(t,) dBm → (n,) distances Σ|a − b| / Σ(a + b) to all stored fingerprints.

        Σ|a − b| = Σa + Σb − 2 Σ min(a, b), and only transmitters that both hear add to the last. Float64 adds up what
        whole dBm give, float32 from 2⁻²⁰ to 1, without rounding: what is equally far has equal distances.
        """
        levels, (transmitters,) = self._heard(scan)
        if not levels.any():  # 0/0 to its like: as if it heard everything, weaker than any whole dBm
            transmitters, levels = np.arange(len(scan)), np.full(len(scan), SILENT_LEVEL)
        shared, total = np.zeros(len(self._map)), self._sums + levels.sum()
        for transmitter, level in zip(transmitters, levels, strict=True):
            rows, stored = self._lists[transmitter]
            shared[rows] += np.minimum(stored, level)
        return (total - 2 * shared) / total

    def neighbours(self, rssi: np.ndarray) -> np.ndarray:
        """(n, t) dBm → (n, k) rows of the radio map, the most similar first.

        Raises:
            ValueError: if t is not the radio map's.
        """
        if rssi.shape[1:] != self._map.rssi.shape[1:]:
            raise ValueError(f"`rssi` must have {self._map.rssi.shape[1]} columns. Received: shape {rssi.shape}")
        if self.metric == "euclidean":
            return self._index.kneighbors(np.where(np.isnan(rssi), self._minimum, rssi), return_distance=False)
        nearest = np.empty((len(rssi), self.k), dtype=np.intp)
        for number, scan in enumerate(rssi):
            distances = self._sorensen(scan)
            among = np.flatnonzero(distances <= np.partition(distances, self.k - 1)[self.k - 1])
            nearest[number] = among[np.argsort(distances[among], kind="stable")[: self.k]]
        return nearest

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
