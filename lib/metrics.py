"""How far off an estimate is: Eq. 6, Eq. 7, percentiles, confidence intervals, comparisons of models."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse, stats

from lib.fingerprints import EARTH_RADIUS_M, Frame

RESAMPLES = 20_000  # the smallest p-value is 2 / RESAMPLES: 200 comparisons can still be told from chance after Holm
PICKS_AT_ONCE = 100_000  # groups picked in a block of resamples: what fits a processor's cache is fastest


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


# === Comparisons ===


def bootstrap_means(
    errors: Sequence[np.ndarray], groups: np.ndarray | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Mean errors that other test rows and other training seeds might have given; paired, for comparing models.

    A draw takes as many groups of rows as there are, with replacement and the same for all models, and averages each
    model's errors over its seeds and these rows. Rows that resemble each other (copies, one place, one block) belong
    in one group: taken for independent, they make intervals too narrow. Few groups do so too: in simulations, 95 %
    intervals held in 95 of 100 cases with 226 uneven groups, in 93 with 55, in 90 with 26 of which one had a third.
    Seeds are too few to be resampled. Each mean is moved by its standard error over seeds times a draw from Student's
    t instead, so that without variance between rows the interval is `confidence_half_width`'s. What seeds and rows do
    together counts in both, which errs on the wide side. A model with one run is taken for one without randomness.

    Args:
        errors: of each model, (n,) or (seeds, n) metres on the same n test rows.
        groups: (n,) the group of each row; None where all rows are independent.
        resamples: number of draws.
        seed: of the random numbers.

    Returns:
        (resamples, models) mean errors in metres; the difference of two columns compares two models.

    Raises:
        ValueError: if models or groups differ in their number of rows.
    """
    runs = [np.atleast_2d(one) for one in errors]
    rows = [one.shape[1] for one in runs] + ([] if groups is None else [len(groups)])
    if len(set(rows)) != 1:
        raise ValueError(f"`errors` and `groups` must be of the same test rows. Received: {rows} rows")
    numbers = np.arange(rows[0]) if groups is None else np.unique(groups, return_inverse=True)[1]
    columns = [*(one.mean(axis=0) for one in runs), np.ones(rows[0])]
    totals = np.column_stack([np.bincount(numbers, weights=column) for column in columns])  # errors…, rows
    random, count = np.random.default_rng(seed), len(totals)
    drawn = np.empty((resamples, len(columns)))
    for block in np.array_split(drawn, -(-resamples * count // PICKS_AT_ONCE)):
        picked = random.integers(count, size=(len(block), count))
        ones, starts = np.ones(picked.size), np.arange(0, picked.size + 1, count)
        block[:] = sparse.csr_array((ones, picked.ravel(), starts), shape=picked.shape) @ totals  # sums what was picked
    means = drawn[:, :-1] / drawn[:, -1:]
    for mean, one in zip(means.T, runs, strict=True):
        if len(one) > 1:
            mean += stats.sem(one.mean(axis=1)) * random.standard_t(len(one) - 1, size=resamples)
    return means


def difference(value: float, draws: np.ndarray) -> dict[str, float]:
    """A difference of mean errors in metres with its 95 % interval, and the two-sided p-value that there is none.

    Args:
        value: the measured difference; negative where the first model is better.
        draws: (resamples,) difference of two columns of `bootstrap_means`.
    """
    low, high = np.percentile(draws, [2.5, 97.5])
    tail = (1 + min(np.sum(draws <= 0), np.sum(draws >= 0))) / (1 + len(draws))
    return {
        "difference_m": float(value),
        "low_m": float(low),
        "high_m": float(high),
        "p_value": float(min(1, 2 * tail)),
    }


def holm(p_values: Sequence[float]) -> np.ndarray:
    """(m,) p-values of a family of comparisons → (m,) by Holm: any false one below 0.05 has a chance of at most 5 %."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return adjusted


# === Convergence ===


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
