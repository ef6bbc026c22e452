"""Folds: each row of a survey is held out once, as scans will come that nobody surveyed."""

from collections.abc import Sequence

import numpy as np

from lib.data.fingerprints import FingerprintSet

HOLD_OUT = ("positions", "rows", "devices", "areas")  # what goes out as a whole, the default first
AREAS = 8  # along the extent, if no side is given


def folds(fingerprints: FingerprintSet, hold_out: str, count: int, seed: int, area: float | None = None) -> np.ndarray:
    """Which fold each row is in; copies of a row are in one fold where the folds allow it.

    Args:
        fingerprints: rows of one environment.
        hold_out: `rows`: scans will come from the very positions of the survey; `positions`: from between them;
            `devices`: from other devices, too; `areas`: from where nobody surveyed.
        count: of the folds, at least 2; fewer if there are fewer positions, devices or areas.
        seed: which rows or positions are held out together. Devices and areas are shared out by their rows.
        area: side of a square area in metres; None stands for an eighth of the extent.

    Returns:
        (n,) numbers from 0 on.

    Raises:
        ValueError: if there is no such way, or rows have fewer than two of what is to be held out.
    """
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
    fold_of_group = np.zeros(len(rows_of_group), dtype=np.int64)
    rows_of_fold = np.zeros(min(count, len(rows_of_group)))
    for group in order:
        smallest = rows_of_fold.argmin()
        fold_of_group[group] = smallest
        rows_of_fold[smallest] += rows_of_group[group]
    return fold_of_group[groups]


def _groups(fingerprints: FingerprintSet, hold_out: str, area: float | None) -> np.ndarray:
    """(n,) number of what each row is held out with, without gaps."""
    if hold_out == "rows":
        return fingerprints.copy_id
    if hold_out == "positions":
        return fingerprints.place_id
    if hold_out == "areas":
        return areas(fingerprints.position, area)
    if hold_out != "devices":
        raise ValueError(f"`hold_out` must be one of {', '.join(HOLD_OUT)}. Received: {hold_out}")
    if fingerprints.group is None:
        raise ValueError(
            f"{fingerprints.name}: to hold out devices, rows must name theirs (column `device`). Received: rows without"
        )
    _, groups = np.unique(fingerprints.group, return_inverse=True)
    return groups


def areas(position: np.ndarray, side: float | None = None) -> np.ndarray:
    """(n, 2) metres → (n,) number of the square that each position lies in; see `folds` for its side."""
    if side is None:
        side = max(np.ptp(position, axis=0).max() / AREAS, 1e-3)
    square = np.floor(np.asarray(position) / side).astype(np.int64)
    columns, rows = (square - square.min(axis=0)).T
    number = columns * (rows.max() + 1) + rows
    _, area = np.unique(number, return_inverse=True)
    return area


def learners(fold: np.ndarray, number: int, copies: Sequence[int]) -> np.ndarray:
    """(n,) bool: rows from which the member of a fold learns: of other folds, and no copies of what it is asked."""
    asked = fold == number
    copied = np.isin(copies, np.asarray(copies)[asked])
    return ~asked & ~copied
