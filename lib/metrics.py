"""How far off an estimate is: Eq. 6, Eq. 7, percentiles, the t interval of a mean, and when a training converged."""

from collections.abc import Sequence

import numpy as np

EARTH_RADIUS_M = 6_371_010.0  # the paper's R = 6371.01 km (Eq. 7)
FLOOR_PENALTY_M = 15.0  # of the EvAAL framework: for each floor between the true one and the answer
BUILDING_PENALTY_M = 50.0  # the same, for a wrong building


# === Errors ===


def _as_pairs(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true = np.asarray(true, dtype=np.float64)
    predicted = np.asarray(predicted, dtype=np.float64)
    expected = (*true.shape[:1], 2)
    if true.shape != expected or predicted.shape != expected:
        raise ValueError(f"positions must both have shape (n, 2). Received: {true.shape} and {predicted.shape}")
    return true, predicted


def euclidean_errors(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(n, 2), (n, 2) positions in metres → (n,) distances in metres, the summands of Eq. 6.

    Raises:
        ValueError: if the two do not have the same shape (n, 2).
    """
    true, predicted = _as_pairs(true, predicted)
    east, north = (predicted - true).T
    return np.hypot(east, north)


def haversine_errors(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(n, 2), (n, 2) latitude/longitude in degrees → (n,) great-circle distances in metres (Eq. 7, R = 6371.01 km).

    Raises:
        ValueError: if the two do not have the same shape (n, 2).
    """
    true, predicted = _as_pairs(true, predicted)
    true = np.radians(true)
    predicted = np.radians(predicted)
    half = np.sin((predicted - true) / 2)
    latitude, longitude = np.square(half).T
    cosines = np.cos(true[:, 0]) * np.cos(predicted[:, 0])
    chord = np.clip(latitude + cosines * longitude, 0, 1)
    angle = 2 * np.arcsin(np.sqrt(chord))
    return EARTH_RADIUS_M * angle


def summary(errors: np.ndarray) -> dict[str, float]:
    """Mean (the MDE), median and upper percentiles of errors in metres, named as in the result tables.

    Raises:
        ValueError: if there are no errors.
    """
    if not len(errors):
        raise ValueError("`errors` must not be empty. Received: no errors")
    median, p75, p95 = np.percentile(errors, [50, 75, 95])
    return {
        "mean_m": float(np.mean(errors)),
        "median_m": float(median),
        "p75_m": float(p75),
        "p95_m": float(p95),
    }


def evaal_score(
    errors: np.ndarray, floors_off: np.ndarray | None = None, wrong_building: np.ndarray | None = None
) -> float:
    """The score of the IPIN competitions: the third quartile of errors with penalties for floors and buildings.

    Each error is increased by 15 m for each floor between the true one and the answer, and by 50 m if the building is
    wrong. Potortì et al. (2017), Comparing the Performance of Indoor Localization Systems through the EvAAL Framework,
    Sensors 17(10):2327, doi:10.3390/s17102327.

    Args:
        errors: (n,) horizontal distances in ground metres.
        floors_off: (n,) numbers of floors that the answers are off; None costs nothing.
        wrong_building: (n,) whether the building is wrong; None costs nothing.

    Returns:
        The score in metres.

    Raises:
        ValueError: if there are no errors.
    """
    if not len(errors):
        raise ValueError("`errors` must not be empty. Received: no errors")
    penalised = np.asarray(errors, dtype=np.float64)
    if floors_off is not None:
        penalised = penalised + FLOOR_PENALTY_M * np.abs(floors_off)
    if wrong_building is not None:
        penalised = penalised + BUILDING_PENALTY_M * np.asarray(wrong_building, dtype=np.float64)
    return float(np.percentile(penalised, 75))


def confidence_half_width(values: Sequence[float]) -> float:
    """Half width of the 95 % t interval of the mean; NaN for fewer than two values."""
    from scipy import stats  # not above: errors are also measured where only NumPy is installed

    if len(values) < 2:
        return float("nan")
    quantile = stats.t.ppf(0.975, len(values) - 1)
    return float(quantile * stats.sem(values))


# === Convergence ===


def _smoothed(curve: Sequence[float]) -> np.ndarray:
    """A running median of five epochs, so that no single lucky or unlucky epoch decides.

    Raises:
        ValueError: if the curve is empty or not finite.
    """
    values = np.asarray(curve, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"`curve` must hold finite values. Received: {values}")
    padded = np.pad(values, 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 5)
    return np.median(windows, axis=1)


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
    if not len(reached):
        return float("nan")
    return float(reached[0] + 1)


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
    bound = (1 + tolerance) * smooth.min()
    above = np.flatnonzero(smooth > bound)
    if not len(above):
        return 1
    first_within = int(above[-1]) + 2
    return min(first_within, len(smooth))
