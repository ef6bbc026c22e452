"""How far off an estimate is: Eq. 6, Eq. 7, percentiles, confidence intervals."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from lib.fingerprints import EARTH_RADIUS_M, Frame


def _as_pairs(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = np.asarray(true, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if true.ndim != 2 or true.shape[1] != 2 or true.shape != predicted.shape:
        raise ValueError(f"positions must both have shape (n, 2). Received: {true.shape} and {predicted.shape}")
    return true, predicted


def euclidean_errors(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(n, 2), (n, 2) positions in metres → (n,) distances in metres, the summands of Eq. 6.

    Raises:
        ValueError: if the two do not have the same shape (n, 2).
    """
    true, predicted = _as_pairs(true, predicted)
    return np.hypot(*(predicted - true).T)


def haversine_errors(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(n, 2), (n, 2) latitude/longitude in degrees → (n,) great-circle distances in metres (Eq. 7, R = 6371.01 km).

    Raises:
        ValueError: if the two do not have the same shape (n, 2).
    """
    true, predicted = (np.radians(pairs) for pairs in _as_pairs(true, predicted))
    half = np.sin((predicted - true) / 2) ** 2
    chord = half[:, 0] + np.cos(true[:, 0]) * np.cos(predicted[:, 0]) * half[:, 1]
    return 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))


def localization_errors(environment: str, frame: Frame, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(n,) errors in metres as the paper measures them: Eq. 6 on local metres indoors, Eq. 7 on degrees outdoors.

    Args:
        environment: `ujiindoorloc` or `lorawan_antwerp`.
        frame: the frame of the positions.
        true, predicted: (n, 2) local metres.
    """
    if environment == "ujiindoorloc":
        return euclidean_errors(true, predicted)
    return haversine_errors(frame.to_degrees(true), frame.to_degrees(predicted))


def summary(errors: np.ndarray) -> dict[str, float]:
    """Mean (the MDE), median and upper percentiles of errors in metres, named as in the result tables."""
    if not len(errors):
        raise ValueError("`errors` must not be empty. Received: no errors")
    median, p75, p95 = np.percentile(errors, [50, 75, 95])
    return {"mean_m": float(np.mean(errors)), "median_m": float(median), "p75_m": float(p75), "p95_m": float(p95)}


def confidence_half_width(values: Sequence[float]) -> float:
    """Half width of the 95 % t interval of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def _smoothed(curve: Sequence[float]) -> np.ndarray:
    """A running median of five epochs, so that one lucky or unlucky epoch decides nothing.

    Raises:
        ValueError: if the curve is empty or not finite.
    """
    values = np.asarray(curve, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"`curve` must hold finite values. Received: {values}")
    return np.median(np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, mode="edge"), 5), axis=1)


def lowest(curve: Sequence[float]) -> float:
    """The lowest value of a validation curve smoothed by a running median of five epochs.

    Raises:
        ValueError: if the curve is empty or not finite.
    """
    return float(_smoothed(curve).min())


def epochs_to_reach(curve: Sequence[float], level: float) -> float:
    """First epoch, counted from 1, at which the smoothed validation curve is at or below `level`; NaN if it never is.

    Raises:
        ValueError: if the curve is empty or not finite.
    """
    reached = np.flatnonzero(_smoothed(curve) <= level)
    return float(reached[0] + 1) if len(reached) else float("nan")


def epochs_to_converge(curve: Sequence[float], tolerance: float = 0.10) -> int:
    """First epoch from which a validation curve stays within `tolerance` of its lowest value.

    The curve is first smoothed by a running median of five epochs.

    Args:
        curve: validation loss or RMSE, one value an epoch.
        tolerance: 0.10 allows 10 % above the lowest smoothed value.

    Returns:
        The epoch, counted from 1; the last one if the curve ends above the tolerance.

    Raises:
        ValueError: if the curve is empty or not finite.
    """
    smooth = _smoothed(curve)
    above = np.flatnonzero(smooth > (1 + tolerance) * smooth.min())
    return min(int(above[-1]) + 2, len(smooth)) if len(above) else 1
