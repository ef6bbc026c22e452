"""The comparators without neural networks: nearest fingerprints in signal space, forests, and gradient boosting.

All follow one contract. `fit(train, validation, seed)` takes FingerprintSets as they are read, chooses on the
validation rows what is left to choose, then learns from both; `n_train` is the number of rows learnt from.
`predict(rssi)` takes (n, t) dBm with NaN for "not heard" and returns `position` (n, 2) in local metres, and `building`
and `floor` (n,) where the training set has them.

[14] Torres-Sospedra et al., UJIIndoorLoc, IPIN 2014. [15] Aernouts et al., Sigfox and LoRaWAN Datasets, Data 2018.
[17] Anagnostopoulos & Kalousis, A Reproducible Comparison of RSSI Fingerprinting Localization Methods Using LoRaWAN,
2019. [Torres-Sospedra 2015] Comprehensive analysis of distance and similarity measures for Wi-Fi fingerprinting.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType

import numpy as np
from scipy import sparse
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import NearestNeighbors

from lib import THREADS
from lib.fingerprints import FingerprintSet, joined
from lib.metrics import euclidean_errors
from lib.preprocess import NOT_HEARD_DBM, exponential, powed

K_CANDIDATES = (1, 3, 5, 7, 9, 11, 13, 15)
CLOSEST = 1e-6  # the least distance that weighs: of exact copies the weight is finite
SILENT_LEVEL = 2.0**-20


# === What is compared: dBm or levels ===


def filled(rssi: np.ndarray, minimum: float) -> np.ndarray:
    """(n, t) dBm with `minimum` for "not heard"."""
    return np.where(np.isnan(rssi), minimum, rssi)


SCALES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "dbm": filled,
    "powed": powed,
    "powed_1.1": partial(powed, exponent=1.1),
    "exponential": exponential,
}
METRICS = {"euclidean": "dbm", "sorensen": "powed"}  # and the scale that each is used on in [14] and its successor


def _known(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"`{name}` must be one of {', '.join(known)}. Received: {value}")
    return value


def _check_columns(rssi: np.ndarray, transmitters: int) -> None:
    if rssi.shape[1:] != (transmitters,):
        raise ValueError(f"`rssi` must have {transmitters} columns. Received: shape {rssi.shape}")


# === Nearest fingerprints ===


def _majority(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, k) labels and weights → (n,) labels of the largest sum of weights; of equals the lowest."""
    names, codes = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(labels), len(names)))
    np.add.at(votes, (np.arange(len(labels))[:, None], codes), weights)
    return names[votes.argmax(axis=1)]


class NearestFingerprints:
    """kNN: the position is the mean of the k most similar stored fingerprints, building and floor their majority.

    The search is exact. Of equally far fingerprints `sorensen` takes the lowest rows; `euclidean` leaves the choice to
    scikit-learn, where it depends on the number of threads. By `sorensen` a scan that hears nothing is about equally
    far from all; nearest are those that hear many transmitters, each of them hardly.

    Args:
        metric: `euclidean`, or `sorensen` (Bray–Curtis), which takes levels and not dBm.
        k: number of neighbours.
        scale: one of `SCALES`; None stands for RSSI in dBm with "not heard" 1 dB under the weakest (`euclidean`, [14])
            or powed RSSI with β = e (`sorensen`, [Torres-Sospedra 2015]).
        weighted: whether neighbours count by their inverse distance.

    Raises:
        ValueError: if the metric or the scale is none of these, do not go together, or k is not positive.
    """

    def __init__(self, metric: str, k: int, scale: str | None = None, weighted: bool = False):
        self.metric = _known("metric", metric, tuple(METRICS))
        self.scale = _known("scale", scale or METRICS[metric], tuple(SCALES))
        if (self.metric, self.scale) == ("sorensen", "dbm"):
            raise ValueError("`scale` must have 0 for what is not heard, as `sorensen` needs it. Received: dbm")
        if k < 1:
            raise ValueError(f"`k` must be positive. Received: k={k}")
        self.k, self.weighted = k, weighted

    def fit(self, train: FingerprintSet, validation: FingerprintSet, seed: int) -> "NearestFingerprints":
        """Store the rows of both. Nothing is chosen, and nothing is random."""
        return self.store(joined(train, validation))

    def store(self, radio_map: FingerprintSet) -> "NearestFingerprints":
        """Store fingerprints, for `sorensen` as lists of the rows that hear each transmitter.

        Raises:
            ValueError: if there are fewer than k.
        """
        if self.k > len(radio_map):
            raise ValueError(f"`k` must be at most {len(radio_map)}, the radio map's rows. Received: k={self.k}")
        self._map, self._minimum, self.n_train = radio_map, NOT_HEARD_DBM[radio_map.name], len(radio_map)
        if self.metric == "euclidean":
            self._index = NearestNeighbors(n_neighbors=self.k, algorithm="brute")
            self._index.fit(SCALES[self.scale](radio_map.rssi, self._minimum))
        else:
            by_transmitter = sparse.csc_array(self._heard(radio_map.rssi), shape=radio_map.rssi.shape)
            rows, ends = by_transmitter.indices.astype(np.intp), by_transmitter.indptr[1:-1]
            self._lists = list(zip(np.split(rows, ends), np.split(by_transmitter.data, ends), strict=True))
            self._sums = by_transmitter.sum(axis=1)
        return self

    def _heard(self, rssi: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """dBm → levels of what is heard, and where."""
        heard = np.nonzero(~np.isnan(rssi))
        return SCALES[self.scale](rssi[heard], self._minimum).astype(np.float64), heard

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

    def neighbours(self, rssi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, t) dBm → (n, k) rows of the radio map, the most similar first, and (n, k) distances.

        Raises:
            ValueError: if t is not the radio map's.
        """
        _check_columns(rssi, self._map.rssi.shape[1])
        if self.metric == "euclidean":
            return self._index.kneighbors(SCALES[self.scale](rssi, self._minimum))[::-1]
        nearest, far = np.empty((len(rssi), self.k), dtype=np.intp), np.empty((len(rssi), self.k))
        for number, scan in enumerate(rssi):
            distances = self._sorensen(scan)
            among = np.flatnonzero(distances <= np.partition(distances, self.k - 1)[self.k - 1])
            nearest[number] = among[np.argsort(distances[among], kind="stable")[: self.k]]
            far[number] = distances[nearest[number]]
        return nearest, far

    def _weights(self, distances: np.ndarray) -> np.ndarray:
        return 1 / np.maximum(distances, CLOSEST) if self.weighted else np.ones(distances.shape)

    def errors_by_k(self, scans: FingerprintSet) -> np.ndarray:
        """(k,) mean errors in metres on scans whose positions are known, with 1, 2, … and k neighbours."""
        rows, distances = self.neighbours(scans.rssi)
        weights = self._weights(distances)[..., None]
        positions = (self._map.position[rows] * weights).cumsum(axis=1) / weights.cumsum(axis=1)
        return np.array([euclidean_errors(scans.position, of_k).mean() for of_k in positions.swapaxes(0, 1)])

    def predict(self, rssi: np.ndarray) -> dict[str, np.ndarray]:
        """See the contract above."""
        rows, distances = self.neighbours(rssi)
        weights = self._weights(distances)
        weights /= weights.sum(axis=1, keepdims=True)
        return {"position": np.einsum("nk,nkd->nd", weights, self._map.position[rows])} | {
            field: _majority(getattr(self._map, field)[rows], weights)
            for field in ("building", "floor")
            if getattr(self._map, field) is not None
        }


class ValidatedNeighbours:
    """kNN with the metric and the k that have the lowest mean error on validation rows.

    After `fit`, `model` is the chosen NearestFingerprints, and `errors` the mean errors in metres on validation rows
    by metric and k, empty where there was nothing to choose.

    Args:
        metrics: what is tried.
        ks: the numbers of neighbours that are tried in an environment, if not `K_CANDIDATES`.
        scale, weighted: as in NearestFingerprints.
    """

    def __init__(
        self,
        metrics: Sequence[str] = tuple(METRICS),
        ks: Mapping[str, Sequence[int]] | None = None,
        scale: str | None = None,
        weighted: bool = False,
    ):
        self.metrics, self.ks = metrics, ks or {}
        self._neighbours = partial(NearestFingerprints, scale=scale, weighted=weighted)

    def fit(self, train: FingerprintSet, validation: FingerprintSet, seed: int) -> "ValidatedNeighbours":
        """Choose on validation rows, then store the rows of both.

        Raises:
            ValueError: if no k is positive and at most the number of training rows.
        """
        asked = self.ks.get(train.name, K_CANDIDATES)
        ks = [k for k in asked if 1 <= k <= len(train)]
        if not ks:
            raise ValueError(f"`ks` must have a k between 1 and {len(train)}. Received: {list(asked)}")
        self.errors = {}
        if len(self.metrics) * len(ks) > 1:
            for metric in self.metrics:
                errors = self._neighbours(metric, max(ks)).store(train).errors_by_k(validation)
                self.errors |= {(metric, k): float(errors[k - 1]) for k in ks}
        metric, k = min(self.errors, key=self.errors.get) if self.errors else (self.metrics[0], ks[0])
        self.model = self._neighbours(metric, k).fit(train, validation, seed)
        self.n_train = self.model.n_train
        return self

    def predict(self, rssi: np.ndarray) -> dict[str, np.ndarray]:
        """See the contract above."""
        return self.model.predict(rssi)


# === Trees ===


class Trees:
    """Regression of the position and classification of the place, which is one class for each building and floor.

    They take the scaled RSSI of the transmitters that were heard in learning.

    Args:
        scale: one of `SCALES`.

    Raises:
        ValueError: if the scale is none of these.
    """

    def __init__(self, scale: str):
        self.scale = _known("scale", scale, tuple(SCALES))

    def _estimators(self, seed: int) -> tuple[RegressorMixin, ClassifierMixin]:
        """Regressor of (n, 2) positions and classifier, not fitted."""
        raise NotImplementedError

    def _position(self, levels: np.ndarray) -> np.ndarray:
        return self._regressor.predict(levels)

    def _levels(self, rssi: np.ndarray) -> np.ndarray:
        return SCALES[self.scale](rssi[:, self._heard], self._minimum)

    def fit(self, train: FingerprintSet, validation: FingerprintSet, seed: int) -> "Trees":
        """Learn from the rows of both. Nothing is chosen."""
        learning = joined(train, validation)
        self._heard, self._minimum, self.n_train = learning.heard.any(axis=0), NOT_HEARD_DBM[train.name], len(learning)
        levels = self._levels(learning.rssi)
        self._regressor, self._classifier = self._estimators(seed)
        self._regressor.fit(levels, learning.position)
        self._fields = [field for field in ("building", "floor") if getattr(learning, field) is not None]
        if self._fields:
            places = np.column_stack([getattr(learning, field) for field in self._fields])
            self._places, classes = np.unique(places, axis=0, return_inverse=True)
            self._classifier.fit(levels, classes)
        return self

    def predict(self, rssi: np.ndarray) -> dict[str, np.ndarray]:
        """See the contract above."""
        _check_columns(rssi, len(self._heard))
        levels = self._levels(rssi)
        predicted = {"position": self._position(levels)}
        if self._fields:
            predicted |= zip(self._fields, self._places[self._classifier.predict(levels)].T, strict=True)
        return predicted


AVERAGES = {"median": np.median, "mean": np.mean}


class Forest(Trees):
    """Extremely randomized trees (Geurts et al. 2006) or a random forest (Breiman 2001), each tree fully grown.

    Args:
        regressor, classifier: of scikit-learn, `ExtraTrees…` or `RandomForest…`.
        trees: how many.
        max_features: share of the transmitters that a split of position is sought among; of place, the square root.
        scale: one of `SCALES`.
        average: how the trees' positions become one, `median` of each axis or `mean`, as scikit-learn has it: where
            trees disagree about the place, the mean lies between the places.

    Raises:
        ValueError: if the scale or the average is none of these.
    """

    def __init__(
        self,
        regressor: type[RegressorMixin],
        classifier: type[ClassifierMixin],
        trees: int = 50,
        max_features: float = 0.2,
        scale: str = "powed",
        average: str = "median",
    ):
        super().__init__(scale)
        self.regressor, self.classifier, self.trees, self.max_features = regressor, classifier, trees, max_features
        self.average = _known("average", average, tuple(AVERAGES))

    def _estimators(self, seed: int) -> tuple[RegressorMixin, ClassifierMixin]:
        regressor = self.regressor(self.trees, max_features=self.max_features, random_state=seed)
        return regressor, self.classifier(self.trees, random_state=seed)

    def _position(self, levels: np.ndarray) -> np.ndarray:
        of_trees = [tree.predict(levels.astype(np.float32)) for tree in self._regressor.estimators_]
        return AVERAGES[self.average](of_trees, axis=0)


def _lightgbm() -> ModuleType:
    """LightGBM. Only gradient boosting is without it where its wheel finds no OpenMP library on the system.

    Raises:
        ImportError: if it or that library is not there.
    """
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        raise ImportError(
            f"{error}: gradient boosting needs LightGBM and the OpenMP library, on Debian and Ubuntu by "
            "`apt-get install libgomp1`, on macOS by `brew install libomp`",
            name="lightgbm",
        ) from error
    return lightgbm


def missing() -> dict[str, str]:
    """Baselines that cannot run on this system, and why."""
    try:
        _lightgbm()
    except ImportError as problem:
        return {"gradient_boosting": str(problem)}
    return {}


class GradientBoosting(Trees):
    """Gradient boosting on binned RSSI by LightGBM (Ke et al. 2017), each axis of the position for itself.

    Args:
        rounds: trees of each axis; of the place, `place_rounds` for each class.
        place_rounds: fewer, as each round has a tree for each of the 13 places of UJIIndoorLoc.
        leaves: at most in a tree of position.
        loss: of position, LightGBM's `l2` or `l1`.
        max_features: share of the transmitters that a split is sought among.
        scale: one of `SCALES`.

    Raises:
        ImportError: if LightGBM or the OpenMP library that it loads is not there.
        ValueError: if the scale is none of these.
    """

    def __init__(
        self,
        rounds: int = 100,
        place_rounds: int = 30,
        leaves: int = 127,
        loss: str = "l2",
        max_features: float = 0.2,
        scale: str = "dbm",
    ):
        super().__init__(scale)
        _lightgbm()  # what is missing is said before there is work to lose, and no fit's time includes the import
        self.rounds, self.place_rounds, self.leaves = rounds, place_rounds, leaves
        self.loss, self.max_features = loss, max_features

    def _estimators(self, seed: int) -> tuple[RegressorMixin, ClassifierMixin]:
        lightgbm = _lightgbm()
        common = {"colsample_bynode": self.max_features, "random_state": seed, "n_jobs": int(THREADS), "verbose": -1}
        common |= {"deterministic": True, "force_row_wise": True}
        of_axis = lightgbm.LGBMRegressor(
            objective=self.loss, n_estimators=self.rounds, num_leaves=self.leaves, min_child_samples=5, **common
        )
        of_place = lightgbm.LGBMClassifier(n_estimators=self.place_rounds, learning_rate=0.2, **common)
        return MultiOutputRegressor(of_axis), of_place


# === By name ===

BASELINES: dict[str, Callable] = {
    "knn_euclidean": partial(ValidatedNeighbours, metrics=("euclidean",), ks={"ujiindoorloc": (1,)}),  # [14], [15]
    "knn_sorensen": partial(ValidatedNeighbours, metrics=("sorensen",)),
    "knn_sorensen_13": partial(NearestFingerprints, "sorensen", 13),  # [Torres-Sospedra 2015]
    "knn_weighted": partial(ValidatedNeighbours, weighted=True),
    "knn_anagnostopoulos": partial(ValidatedNeighbours, metrics=("sorensen",), scale="powed_1.1"),  # [17]
    "extra_trees": partial(Forest, ExtraTreesRegressor, ExtraTreesClassifier),  # [17]
    "random_forest": partial(Forest, RandomForestRegressor, RandomForestClassifier),
    "gradient_boosting": GradientBoosting,
}
SEEDLESS = tuple(name for name in BASELINES if name.startswith("knn"))

# What was compared on validation rows (notebook 00_search_comparators); the first is the default.
SEARCHED: dict[str, list[dict]] = {
    "knn_anagnostopoulos": [{}, {"scale": "exponential"}, {"metrics": ("euclidean",), "scale": "exponential"}],
    "extra_trees": [{}, {"scale": "dbm"}, {"scale": "exponential"}, {"max_features": 1.0}, {"average": "mean"}],
    "random_forest": [{}, {"scale": "exponential"}, {"max_features": 1.0}, {"average": "mean"}],
    "gradient_boosting": [{}, {"leaves": 31}, {"rounds": 300}, {"loss": "l1"}],
}
