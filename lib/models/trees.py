"""Trees: forests, and gradient boosting.

[17] Anagnostopoulos & Kalousis, A Reproducible Comparison of RSSI Fingerprinting Localization Methods Using LoRaWAN,
2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.multioutput import MultiOutputRegressor

from lib import THREADS
from lib.data.fingerprints import FingerprintSet, Scans, joined
from lib.models.estimator import Estimator, Located, choice, nothing_located, only_environment
from lib.models.neighbours import SCALES


@dataclass(kw_only=True)
class Trees(Estimator):
    """Regression of the position, and classification of the place: one class for each pair of building and floor.

    Both take the scaled RSSI of the transmitters that a row of training or validation hears.

    Attributes:
        scale: one of `SCALES`.
        transmitters: after `fit`, names of the columns it was fitted on.

    Raises:
        ValueError: if the scale is unknown.
    """

    scale: str

    def __post_init__(self):
        choice("scale", self.scale, tuple(SCALES))

    def _untrained(self, seed: int) -> tuple[RegressorMixin, ClassifierMixin]:
        """Regressor of (n, 2) positions and classifier of places, not fitted."""
        raise NotImplementedError

    def _position(self, levels: np.ndarray) -> np.ndarray:
        """(n, h) levels → (n, 2) metres."""
        return self._regressor.predict(levels)

    def _levels(self, scans: Scans) -> np.ndarray:
        """(n, h) levels of the transmitters that were heard in training."""
        rssi = scans.of(self.transmitters)
        return SCALES[self.scale](rssi[:, self._heard], self._minimum)

    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """Learn from the rows of both. Nothing is chosen.

        Raises:
            ValueError: if there are several environments, or no training row hears a transmitter.
        """
        rows = joined(*only_environment(train, validation))
        self.transmitters = rows.transmitters
        self.n_train = [len(rows)]
        self._heard = rows.heard.any(axis=0)
        self._minimum = rows.not_heard_dbm
        levels = self._levels(rows.scans)
        self._regressor, self._classifier = self._untrained(seed)
        self._regressor.fit(levels, rows.position)
        self._fields = [field for field in ("building", "floor") if getattr(rows, field) is not None]
        if self._fields:
            labels = np.column_stack([getattr(rows, field) for field in self._fields])
            self._places, classes = np.unique(labels, axis=0, return_inverse=True)
            self._classifier.fit(levels, classes)
        return self

    def predict(self, scans: Scans) -> Located:
        """The position, and building and floor where the training rows have them."""
        if len(scans) == 0:
            return nothing_located(self)
        levels = self._levels(scans)
        labels = {}
        if self._fields:
            places = self._places[self._classifier.predict(levels)]
            labels = dict(zip(self._fields, places.T, strict=True))
        return Located(self._position(levels), **labels)


# === Forests ===

FORESTS = {
    "extra_trees": (ExtraTreesRegressor, ExtraTreesClassifier),
    "random_forest": (RandomForestRegressor, RandomForestClassifier),
}
AVERAGES = {"median": np.median, "mean": np.mean}


@dataclass(kw_only=True)
class Forest(Trees):
    """Extremely randomized trees (Geurts et al. 2006; [17]) or a random forest (Breiman 2001), all trees fully grown.

    Attributes:
        kind: `extra_trees` or `random_forest`.
        trees: how many.
        max_features: share of the transmitters that a split of the position is chosen from; the place takes the square
            root of their number.
        scale: one of `SCALES`.
        average: how the trees' positions are combined, `median` of each axis or `mean`, as in scikit-learn. Where the
            trees disagree about the place, the mean lies between the places.

    Raises:
        ValueError: if the kind, the scale or the average is unknown.
    """

    kind: str
    trees: int = 50
    max_features: float = 0.2
    scale: str = "powed"
    average: str = "median"

    def __post_init__(self):
        super().__post_init__()
        choice("kind", self.kind, tuple(FORESTS))
        choice("average", self.average, tuple(AVERAGES))

    def _untrained(self, seed: int) -> tuple[RegressorMixin, ClassifierMixin]:
        regressor, classifier = FORESTS[self.kind]
        of_position = regressor(self.trees, max_features=self.max_features, random_state=seed)
        of_place = classifier(self.trees, random_state=seed)
        return of_position, of_place

    def _position(self, levels: np.ndarray) -> np.ndarray:
        levels = levels.astype(np.float32)
        positions = [tree.predict(levels) for tree in self._regressor.estimators_]
        return AVERAGES[self.average](positions, axis=0)


# === Gradient boosting ===


def _lightgbm() -> ModuleType:
    """LightGBM. Its wheel needs an OpenMP library, which some systems lack; only gradient boosting depends on it.

    Raises:
        ImportError: if LightGBM or that library is missing.
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
    """Estimators that cannot run on this system, and why."""
    try:
        _lightgbm()
    except ImportError as problem:
        return {"gradient_boosting": str(problem)}
    return {}


@dataclass(kw_only=True)
class GradientBoosting(Trees):
    """Gradient boosting on binned RSSI by LightGBM (Ke et al. 2017), with separate trees for each axis of the position.

    Attributes:
        rounds: trees of each axis.
        place_rounds: trees of each place. They are fewer, as each round has a tree for every place.
        leaves: at most in a tree of the position.
        loss: of the position, LightGBM's `l2` or `l1`.
        max_features: share of the transmitters that a split is chosen from.
        scale: one of `SCALES`.

    Raises:
        ImportError: if LightGBM or the OpenMP library that it loads is missing.
        ValueError: if the scale is unknown.
    """

    rounds: int = 100
    place_rounds: int = 30
    leaves: int = 127
    loss: str = "l2"
    max_features: float = 0.2
    scale: str = "dbm"

    def __post_init__(self):
        super().__post_init__()
        _lightgbm()  # an error comes before there is work to lose, and no fit's time includes the import

    def _untrained(self, seed: int) -> tuple[RegressorMixin, ClassifierMixin]:
        lightgbm = _lightgbm()
        shared = {
            "colsample_bynode": self.max_features,
            "random_state": seed,
            "n_jobs": int(THREADS),
            "verbose": -1,
            "deterministic": True,
            "force_row_wise": True,
        }
        of_axis = lightgbm.LGBMRegressor(
            objective=self.loss,
            n_estimators=self.rounds,
            num_leaves=self.leaves,
            min_child_samples=5,
            **shared,
        )
        of_place = lightgbm.LGBMClassifier(n_estimators=self.place_rounds, learning_rate=0.2, **shared)
        return MultiOutputRegressor(of_axis), of_place
