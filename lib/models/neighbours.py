"""kNN: a scan is located by the nearest fingerprints in signal space.

[14] Torres-Sospedra et al., UJIIndoorLoc, IPIN 2014. [15] Aernouts et al., Sigfox and LoRaWAN Datasets, Data 2018.
[17] Anagnostopoulos & Kalousis, A Reproducible Comparison of RSSI Fingerprinting Localization Methods Using LoRaWAN,
2019. [Torres-Sospedra 2015] Comprehensive analysis of distance and similarity measures for Wi-Fi fingerprinting.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from lib.data.fingerprints import FingerprintSet, Scans, joined
from lib.metrics import euclidean_errors
from lib.models.estimator import Estimator, Located, choice, nothing_located, only_environment
from lib.models.scaling import exponential, powed

K_CANDIDATES = (1, 3, 5, 7, 9, 11, 13, 15)
CLOSEST = 1e-6  # the smallest distance that a weight is computed from, so that exact copies have a finite weight
SILENT_LEVEL = 2.0**-20
SOFTNESS = 0.03  # Sørensen distance over which the weight of a soft neighbour falls by 1/e


def filled(rssi: np.ndarray, minimum: float) -> np.ndarray:
    """(n, t) dBm with `minimum` for "not heard"."""
    return np.where(np.isnan(rssi), minimum, rssi)


SCALES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "dbm": filled,
    "powed": powed,
    "powed_1.1": partial(powed, exponent=1.1),
    "exponential": exponential,
}
METRICS = {"euclidean": "dbm", "sorensen": "powed"}  # each with the scale of [14] and [Torres-Sospedra 2015]


def equal(distances: np.ndarray) -> np.ndarray:
    """(n, k) distances in ascending order → (n, k) weights: all neighbours count alike."""
    return np.ones(distances.shape)


def inverse(distances: np.ndarray) -> np.ndarray:
    """The same, by inverse distance."""
    return 1 / np.maximum(distances, CLOSEST)


def soft(distances: np.ndarray) -> np.ndarray:
    """The same, by e^(−(d − d_min) / `SOFTNESS`): a neighbour counts by how much farther it is than the nearest."""
    beyond_nearest = distances - distances[:, :1]
    return np.exp(-beyond_nearest / SOFTNESS)


WEIGHTINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"equal": equal, "inverse": inverse, "soft": soft}


# === Nearest fingerprints ===


class SorensenIndex:
    """Exact search by the Sørensen distance Σ|a − b| / Σ(a + b), also called Bray–Curtis.

    Σ|a − b| = Σa + Σb − 2 Σ min(a, b), and only transmitters that both scans hear contribute to the last sum. So the
    index stores, for each transmitter, the rows that hear it. Sums of float64 are exact for levels that are float32
    between 2⁻²⁰ and 1, so rows at the same distance get equal numbers.

    Args:
        levels: (n, t) levels of the stored rows, 0 where a transmitter is not heard.
    """

    def __init__(self, levels: sparse.csc_array):
        self.shape = levels.shape
        rows = levels.indices.astype(np.intp)
        ends = levels.indptr[1:-1]
        self._rows = np.split(rows, ends)
        self._levels = np.split(levels.data, ends)
        self._sums = levels.sum(axis=1)

    def distances(self, transmitters: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """(n,) distances of all stored rows to one scan.

        A scan without any level would have the distance 0/0 to rows like it. It is taken as one that hears every
        transmitter at a level below that of any whole dBm.

        Args:
            transmitters: (h,) columns of the transmitters that the scan hears.
            levels: (h,) float64 levels of these.
        """
        rows, columns = self.shape
        if not levels.any():
            transmitters = np.arange(columns)
            levels = np.full(columns, SILENT_LEVEL)
        shared = np.zeros(rows)
        for transmitter, level in zip(transmitters, levels, strict=True):
            stored = self._levels[transmitter]
            shared[self._rows[transmitter]] += np.minimum(stored, level)
        total = self._sums + levels.sum()
        return (total - 2 * shared) / total


def _nearest(distances: np.ndarray, k: int) -> np.ndarray:
    """(k,) numbers of the smallest distances in ascending order; of equal ones the lowest numbers."""
    limit = np.partition(distances, k - 1)[k - 1]
    candidates = np.flatnonzero(distances <= limit)
    order = np.argsort(distances[candidates], kind="stable")
    return candidates[order[:k]]


def _majority(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, k) labels and weights → (n,) labels with the largest sum of weights; of equal sums the lowest label."""
    names, codes = np.unique(labels, return_inverse=True)
    rows = np.arange(len(labels))[:, None]
    votes = np.zeros((len(labels), len(names)))
    np.add.at(votes, (rows, codes), weights)
    return names[votes.argmax(axis=1)]


@dataclass
class NearestFingerprints(Estimator):
    """kNN: the position is the mean of the k nearest stored fingerprints, building and floor are their majority.

    The search is exact. Among fingerprints at the same distance `sorensen` takes the lowest rows; `euclidean` leaves
    the choice to scikit-learn, where it depends on the number of threads. By `sorensen` a scan that hears nothing is
    about equally far from all fingerprints; the nearest are those that hear many transmitters weakly.

    Attributes:
        metric: `euclidean`, or `sorensen` (Bray–Curtis), which needs levels in the place of dBm.
        k: number of neighbours.
        scale: one of `SCALES`; None stands for RSSI in dBm with "not heard" 1 dB below the sensitivity (`euclidean`,
            [14]) or powed RSSI with β = e (`sorensen`, [Torres-Sospedra 2015]).
        weighting: how neighbours count, one of `WEIGHTINGS`. `soft` is made for distances of `sorensen`.
        transmitters: after `fit`, names of the stored columns.

    Raises:
        ValueError: if the metric, the scale or the weighting is unknown, they do not fit together, or k is not
            positive.
    """

    metric: str
    k: int
    scale: str | None = None
    weighting: str = "equal"

    def __post_init__(self):
        choice("metric", self.metric, tuple(METRICS))
        if self.scale is None:
            self.scale = METRICS[self.metric]
        choice("scale", self.scale, tuple(SCALES))
        if self.metric == "sorensen" and self.scale == "dbm":
            raise ValueError("`scale` must have 0 for what is not heard, as `sorensen` needs it. Received: dbm")
        if self.k < 1:
            raise ValueError(f"`k` must be positive. Received: k={self.k}")
        choice("weighting", self.weighting, tuple(WEIGHTINGS))
        if self.weighting == "soft" and self.metric != "sorensen":
            raise ValueError(f"`metric` must be sorensen, whose distances `soft` is made for. Received: {self.metric}")

    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """Store the rows of both. Nothing is chosen, and nothing is random.

        Raises:
            ValueError: if there are several environments, no row hears a transmitter, or there are fewer than k rows.
        """
        radio_map = joined(*only_environment(train, validation))
        if self.k > len(radio_map):
            raise ValueError(f"`k` must be at most {len(radio_map)}, the radio map's rows. Received: k={self.k}")
        self._map = radio_map
        self._minimum = radio_map.not_heard_dbm
        self.transmitters = radio_map.transmitters
        self.n_train = [len(radio_map)]
        if self.metric == "euclidean":
            self._index = NearestNeighbors(n_neighbors=self.k, algorithm="brute")
            self._index.fit(self._scaled(radio_map.rssi))
        else:
            levels = self._heard_levels(radio_map.rssi)
            self._index = SorensenIndex(sparse.csc_array(levels, shape=radio_map.rssi.shape))
        return self

    def _scaled(self, rssi: np.ndarray) -> np.ndarray:
        return SCALES[self.scale](rssi, self._minimum)

    def _heard_levels(self, rssi: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """dBm → float64 levels of what is heard, and its indices along each axis."""
        heard = np.nonzero(~np.isnan(rssi))
        levels = self._scaled(rssi[heard]).astype(np.float64)
        return levels, heard

    def neighbours(self, scans: Scans) -> tuple[np.ndarray, np.ndarray]:
        """(n, k) rows of the radio map for n scans, the nearest first, and (n, k) distances."""
        rssi = scans.of(self.transmitters)
        if self.metric == "euclidean":
            distances, rows = self._index.kneighbors(self._scaled(rssi))
            return rows, distances
        rows = np.empty((len(rssi), self.k), dtype=np.intp)
        distances = np.empty((len(rssi), self.k))
        for number, scan in enumerate(rssi):
            levels, (transmitters,) = self._heard_levels(scan)
            to_stored = self._index.distances(transmitters, levels)
            rows[number] = _nearest(to_stored, self.k)
            distances[number] = to_stored[rows[number]]
        return rows, distances

    def errors_by_k(self, fingerprints: FingerprintSet) -> np.ndarray:
        """(k,) mean errors in metres on scans with known positions, for 1, 2, … and k neighbours."""
        rows, distances = self.neighbours(fingerprints.scans)
        weights = WEIGHTINGS[self.weighting](distances)[..., None]
        sums = (self._map.position[rows] * weights).cumsum(axis=1)
        positions = sums / weights.cumsum(axis=1)
        mean_errors = np.empty(self.k)
        for index in range(self.k):
            errors = euclidean_errors(fingerprints.position, positions[:, index])
            mean_errors[index] = errors.mean()
        return mean_errors

    def predict(self, scans: Scans) -> Located:
        """The mean position of the neighbours, and their building and floor where the radio map has them."""
        if len(scans) == 0:
            return nothing_located(self)
        rows, distances = self.neighbours(scans)
        weights = WEIGHTINGS[self.weighting](distances)
        weights /= weights.sum(axis=1, keepdims=True)
        position = np.einsum("nk,nkd->nd", weights, self._map.position[rows])
        building, floor = None, None
        if self._map.building is not None:
            building = _majority(self._map.building[rows], weights)
        if self._map.floor is not None:
            floor = _majority(self._map.floor[rows], weights)
        return Located(position, building=building, floor=floor)


# === Choice of metric and k ===


@dataclass
class ValidatedNeighbours(Estimator):
    """kNN with the metric and the k that have the lowest mean error on validation rows.

    Attributes:
        metrics: the metrics to try.
        ks: the numbers of neighbours to try. Those above the number of training rows are left out.
        scale, weighting: as in NearestFingerprints.
        transmitters: after `fit`, names of the stored columns.
        model: after `fit`, the chosen NearestFingerprints.
        errors: after `fit`, mean errors in metres on validation rows by metric and k; empty for a single candidate.

    Raises:
        ValueError: if a metric, the scale or the weighting is unknown, or they do not fit together.
    """

    metrics: Sequence[str] = tuple(METRICS)
    ks: Sequence[int] = K_CANDIDATES
    scale: str | None = None
    weighting: str = "equal"

    def __post_init__(self):
        for metric in self.metrics:
            self._candidate(metric, 1)

    def _candidate(self, metric: str, k: int) -> NearestFingerprints:
        return NearestFingerprints(metric, k, self.scale, self.weighting)

    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """Choose on validation rows, then store the rows of both. Nothing is random.

        Raises:
            ValueError: if there are several environments, no row hears a transmitter, no k is positive and at most the
                number of training rows, or several candidates have no validation rows to be compared on.
        """
        train_rows, validation_rows = only_environment(train, validation)
        ks = [k for k in self.ks if 1 <= k <= len(train_rows)]
        if not ks:
            raise ValueError(f"`ks` must have a k between 1 and {len(train_rows)}. Received: {list(self.ks)}")
        candidates = len(self.metrics) * len(ks)
        metric, k = self.metrics[0], ks[0]
        self.errors = {}
        if candidates > 1:
            if len(validation_rows) == 0:
                raise ValueError(
                    f"{train_rows.name}: to choose among {candidates} metrics and k, validation rows are needed. "
                    "Received: none"
                )
            self.errors = self._validate(train_rows, validation_rows, ks)
            metric, k = min(self.errors, key=self.errors.get)
        self.model = self._candidate(metric, k).fit(train, validation, seed=seed)
        self.transmitters = self.model.transmitters
        self.n_train = self.model.n_train
        return self

    def _validate(
        self, train: FingerprintSet, validation: FingerprintSet, ks: Sequence[int]
    ) -> dict[tuple[str, int], float]:
        """Mean errors in metres on validation rows by metric and k, with the training rows stored."""
        errors = {}
        for metric in self.metrics:
            model = self._candidate(metric, max(ks)).fit([train], [train[:0]], seed=0)
            errors_by_k = model.errors_by_k(validation)
            for k in ks:
                errors[metric, k] = float(errors_by_k[k - 1])
        return errors

    def predict(self, scans: Scans) -> Located:
        """As the chosen NearestFingerprints."""
        return self.model.predict(scans)
