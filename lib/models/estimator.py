"""The contract: whatever locates is an estimator, with raw dBm in and metres out.

An estimator is made with its settings, learns from FingerprintSets, one for each environment, and locates Scans. It
matches transmitters by name: the columns of the scans may have any order, may lack some and name others. What it does
to its input (Eq. 5, powed RSSI, a choice of transmitters, scaled coordinates) is its own affair.
"""

import abc
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from lib.data.fingerprints import FingerprintSet, Scans


@dataclass(frozen=True, eq=False)
class Located:
    """Where n scans were taken.

    Attributes:
        position: (n, 2) float64 metres, in the frame of the row's environment.
        environment: (n,) number of the environment, of those that the estimator was fitted on; None for one alone.
        building, floor: (n,) labels as in the training rows; None where the estimator does not tell them.
        spread: (n,) metres, how unsure the estimator is by its own account; None where it has none.

    Indexing by rows (slice, mask or integer array) returns a Located.

    Raises:
        ValueError: if the shapes do not fit together.
    """

    position: np.ndarray
    environment: np.ndarray | None = None
    building: np.ndarray | None = None
    floor: np.ndarray | None = None
    spread: np.ndarray | None = None

    def __post_init__(self):
        rows = len(self.position)
        expected = {name: (rows,) for name in self.arrays()} | {"position": (rows, 2)}
        for name, shape in expected.items():
            found = np.shape(getattr(self, name))
            if found != shape:
                raise ValueError(f"`{name}` must have shape {shape}. Received: {found}")

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, rows) -> "Located":
        return Located(**{name: values[rows] for name, values in self.arrays().items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """The attributes that are there, by name."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: values for name, values in fields.items() if values is not None}


class Estimator(abc.ABC):
    """Learns from fingerprints where scans were taken.

    Attributes:
        n_train: after `fit`, how many rows of each environment it learnt from.
        curves: after `fit`, one row an epoch, see `training.fit`; no rows where nothing is trained in epochs.
        has_files: whether it can be saved and loaded.
        needs_floors: whether it needs rows with buildings and floors.
    """

    n_train: list[int]
    curves: pd.DataFrame = pd.DataFrame({"epoch": np.zeros(0, dtype=int)})
    has_files: ClassVar[bool] = False
    needs_floors: ClassVar[bool] = False

    @abc.abstractmethod
    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """Learn.

        Args:
            train: rows to learn from, one set for each environment.
            validation: rows of the same environments, to choose by or to stop by. An estimator that needs neither
                learns from them, too.
            seed: of everything that chance decides.

        Returns:
            The estimator itself.

        Raises:
            ValueError: if it cannot learn from such rows.
        """

    @abc.abstractmethod
    def predict(self, scans: Scans) -> Located:
        """Locate scans, each by itself; those that hear nothing get a position, too."""

    def save(self, folder: Path) -> None:
        """Write the fitted estimator into a folder that exists.

        Raises:
            NotImplementedError: if it has no files.
        """
        raise NotImplementedError(f"{type(self).__name__} has no files")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The estimator that `save` wrote.

        Raises:
            NotImplementedError: if it has no files.
            FileNotFoundError: if there is none in the folder.
        """
        raise NotImplementedError(f"{cls.__name__} has no files")


def require_rows(train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet]) -> None:
    """Refuse what nothing can be learnt from.

    Raises:
        ValueError: if there is no environment, the two differ in their environments, or an environment has no training
            rows that hear a transmitter.
    """
    names = [fingerprints.name for fingerprints in train]
    others = [fingerprints.name for fingerprints in validation]
    if not names or names != others:
        raise ValueError(
            "`train` and `validation` must have a set of each environment, in the same order. "
            f"Received: {', '.join(names) or 'none'} and {', '.join(others) or 'none'}"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"`train` must have sets with different names. Received: {', '.join(names)}")
    for fingerprints in train:
        if not fingerprints.heard.any():
            raise ValueError(
                f"{fingerprints.name}: expected training rows that hear a transmitter. Received: {len(fingerprints)} "
                "rows, none of which does"
            )


def only_environment(
    train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet]
) -> tuple[FingerprintSet, FingerprintSet]:
    """The two sets of an estimator that learns one environment.

    Raises:
        ValueError: if there are several, or nothing can be learnt from it.
    """
    require_rows(train, validation)
    if len(train) > 1:
        names = ", ".join(fingerprints.name for fingerprints in train)
        raise ValueError(f"this estimator learns one environment. Received: {names}")
    return train[0], validation[0]


def nothing_located(estimator: Estimator) -> Located:
    """What an estimator answers if no scan is asked about: as of a scan that hears nothing, without that row."""
    silent = np.full((1, len(estimator.transmitters)), np.nan, dtype=np.float32)
    return estimator.predict(Scans(silent, estimator.transmitters))[:0]


def choice(name: str, value: str, among: Sequence[str]) -> str:
    """The value of a setting, which must be one of some.

    Raises:
        ValueError: if it is not.
    """
    if value not in among:
        raise ValueError(f"`{name}` must be one of {', '.join(among)}. Received: {value}")
    return value
