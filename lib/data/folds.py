"""Folds: rows of a survey are held out as scans will come that nobody surveyed."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lib.data.fingerprints import FingerprintSet

HOLD_OUT = ("positions", "rows", "devices", "areas")  # what goes out as a whole, the default first
AREAS = 8  # along the extent, if no side is given
POSITIONS_OF_DEVICES = 8  # where devices are held out, one in so many positions is, too


@dataclass(frozen=True, eq=False)
class Folds:
    """What is held out in each of k folds.

    Attributes:
        hidden: (k, n) bool, the rows that are out.
        asked: (n,) the fold in which a row is asked about, of those in which it is out; -1 for none.
    """

    hidden: np.ndarray
    asked: np.ndarray

    @classmethod
    def of(
        cls, fingerprints: FingerprintSet, hold_out: str, count: int, seed: int, area: float | None = None
    ) -> "Folds":
        """The folds of an environment; copies of a row that is asked about are out with it.

        Args:
            fingerprints: n rows of one environment.
            hold_out: `rows`: scans will come from the very positions of the survey; `positions`: from between them;
                `devices`: the same from other devices; `areas`: from where nobody surveyed.
            count: of the folds, k. Where there are fewer positions, devices or areas, nothing is out in some.
            seed: which rows or positions are out together. Devices and areas are shared out by their rows, areas also
                so that those beside each other are in different folds: what is out is a hole in the survey.
            area: side of a square area in metres; None stands for an eighth of the extent.

        Raises:
            ValueError: if there is no such way, rows have fewer than two of what is to be held out, or no row of a
                device can be held out with its position.
        """
        if hold_out not in HOLD_OUT:
            raise ValueError(f"`hold_out` must be one of {', '.join(HOLD_OUT)}. Received: {hold_out}")
        asked = _fold(fingerprints, hold_out, count, seed, area)
        hidden = asked == np.arange(count)[:, None]
        if hold_out == "devices":
            position = _fold(fingerprints, "positions", POSITIONS_OF_DEVICES, seed)
            position_hidden = position == np.arange(count)[:, None]
            is_asked = (hidden & position_hidden).any(axis=0)
            hidden |= position_hidden
            asked = np.where(is_asked, asked, -1)
            if not is_asked.any():
                n_positions = len(np.unique(fingerprints.place_id))
                raise ValueError(
                    f"{fingerprints.name}: expected positions that several devices surveyed, to hold out devices and "
                    f"positions at once. Received: {n_positions} positions, too few of them shared. Survey more, or "
                    "hold out positions"
                )
        copies = fingerprints.copy_id
        for number in range(count):
            hidden[number] |= np.isin(copies, copies[asked == number])
        return cls(hidden, asked)

    @classmethod
    def none(cls, rows: int) -> "Folds":
        """Of so many rows, of which none is ever out."""
        return cls(np.zeros((1, rows), dtype=bool), np.full(rows, -1))


def possible(fingerprints: FingerprintSet, hold_out: str) -> str:
    """How rows are held out: as asked for, but where `positions` are to be and all rows share one, `rows`."""
    if hold_out == "positions" and len(np.unique(fingerprints.place_id)) == 1:
        return "rows"
    return hold_out


def _groups(fingerprints: FingerprintSet, hold_out: str, area: float | None) -> np.ndarray:
    """(n,) number of what each row is held out with, without gaps."""
    if hold_out == "rows":
        return fingerprints.copy_id
    if hold_out == "positions":
        return fingerprints.place_id
    if hold_out == "areas":
        return areas(fingerprints.position, area)
    if fingerprints.group is None:
        raise ValueError(
            f"{fingerprints.name}: to hold out devices, rows must name theirs (column `device`). Received: rows without"
        )
    _, groups = np.unique(fingerprints.group, return_inverse=True)
    return groups


def _fold(fingerprints: FingerprintSet, hold_out: str, count: int, seed: int, area: float | None = None) -> np.ndarray:
    """(n,) fold of each row, by the groups that are held out as a whole."""
    groups = _groups(fingerprints, hold_out, area)
    rows_of_group = np.bincount(groups)
    if len(rows_of_group) < 2:
        raise ValueError(
            f"{fingerprints.name}: expected two {hold_out} or more, to hold some out. Received: {len(rows_of_group)}"
        )
    order = np.random.default_rng(seed).permutation(len(rows_of_group))
    if hold_out in ("devices", "areas"):  # few and of different size: the largest first
        largest_first = np.argsort(-rows_of_group[order], kind="stable")
        order = order[largest_first]
    fold_of_group = np.full(len(rows_of_group), -1)
    rows_of_fold = np.zeros(min(count, len(rows_of_group)))
    beside = _beside(fingerprints.position, groups, area) if hold_out == "areas" else None
    for group in order:
        if beside is None:
            fold = rows_of_fold.argmin()
        else:
            folds_beside = fold_of_group[beside[group]]
            areas_beside = np.bincount(folds_beside[folds_beside >= 0], minlength=len(rows_of_fold))
            is_full = rows_of_fold >= len(groups) / len(rows_of_fold)
            fold = np.lexsort([rows_of_fold, areas_beside, is_full])[0]  # the last of these counts most
        fold_of_group[group] = fold
        rows_of_fold[fold] += rows_of_group[group]
    return fold_of_group[groups]


def areas(position: np.ndarray, side: float | None = None) -> np.ndarray:
    """(n, 2) metres → (n,) number of the square that each position lies in; see `Folds.of` for its side."""
    square = _squares(position, side)
    _, area = np.unique(square, axis=0, return_inverse=True)
    return area.ravel()


def _squares(position: np.ndarray, side: float | None) -> np.ndarray:
    """(n, 2) column and row of the square that each position lies in; see `Folds.of` for its side."""
    if side is None:
        side = max(np.ptp(position, axis=0).max() / AREAS, 1e-3)
    return np.floor(np.asarray(position) / side).astype(np.int64)


def _beside(position: np.ndarray, areas: np.ndarray, side: float | None) -> list[np.ndarray]:
    """For each area the numbers of the areas that have a side or a corner in common with it."""
    _, first = np.unique(areas, return_index=True)
    squares = _squares(position, side)[first]
    pairs = cKDTree(squares).query_ball_point(squares, r=1, p=np.inf)
    return [np.setdiff1d(near, [number]) for number, near in enumerate(pairs)]
