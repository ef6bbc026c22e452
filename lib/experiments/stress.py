"""What can go wrong with a scan after training: transmitters fail, devices differ, somebody attacks.

Scans are (n, t) dBm with NaN = not heard, of one environment's transmitters; what is done to them gives the same with
other levels or fewer transmitters, never more.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from lib import quiet_import
from lib.models.network import NetworkEstimator

with quiet_import():
    from keras import ops

STRONGEST = 0.0  # dBm


# === Networks, as differentiable functions of one environment's scans ===


def differentiable(estimator: NetworkEstimator, transmitters: Sequence[str]) -> Callable:
    """A function from a tensor (n, t) dBm of these transmitters to a tensor (n, 2) metres, in the network's frame.

    Args:
        estimator: a fitted network.
        transmitters: (t,) names; those that the network does not know do nothing.
    """
    names = pd.Index(transmitters, dtype=object)
    columns = names.get_indexer(pd.Index(estimator.transmitters, dtype=object))
    columns[columns < 0] = len(transmitters)  # a column of its own, which hears nothing
    columns = columns.astype(np.int32)

    def locate(rssi):
        rows = ops.shape(rssi)[0]
        silent = ops.full((rows, 1), np.nan)
        with_silent = ops.concatenate([rssi, silent], axis=1)
        inputs = ops.take(with_silent, columns, axis=1)
        return estimator.network(inputs, training=False)["position"]

    return locate


def compiled(locate: Callable, n_transmitters: int) -> Callable:
    """The same function of scans as a TensorFlow graph, which serves any number of rows: several times as fast."""
    import tensorflow as tf

    scans = tf.TensorSpec((None, n_transmitters), tf.float32)
    return tf.function(locate, input_signature=[scans], autograph=False)


# === Scans ===


def failed(rssi: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Scans without a random share of the transmitters: of each scan others, in the mean that share of those heard."""
    if not 0 <= share <= 1:
        raise ValueError(f"`share` must be between 0 and 1. Received: {share}")
    lost = rng.random(rssi.shape) < share
    return np.where(lost, np.float32(np.nan), rssi)


def shifted(rssi: np.ndarray, offset: float) -> np.ndarray:
    """Scans of a device that reads `offset` dB more."""
    return _at_most_strongest(rssi + np.float32(offset))


def _at_most_strongest(rssi: np.ndarray) -> np.ndarray:
    return np.minimum(rssi, np.float32(STRONGEST))


def quantised(rssi: np.ndarray, step: float) -> np.ndarray:
    """Scans of a device that knows only multiples of `step` dB."""
    if step <= 0:
        raise ValueError(f"`step` must be positive. Received: {step}")
    steps = np.round(rssi / step)
    return (step * steps).astype(np.float32)


def noisy(rssi: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Scans with Gaussian noise of `deviation` dB on each level by itself."""
    noise = rng.normal(0, deviation, rssi.shape).astype(np.float32)
    return _at_most_strongest(rssi + noise)


def _strongest_of(score: np.ndarray, heard: np.ndarray, count: int) -> np.ndarray:
    """(n, t) scores → (n, t) bool: the `count` heard transmitters of each scan that have the highest."""
    score = np.where(heard, score, -np.inf)
    chosen = np.argsort(-score, axis=1, kind="stable")[:, :count]
    mask = np.zeros(score.shape, dtype=bool)
    np.put_along_axis(mask, chosen, True, axis=1)
    return mask & heard


def perturbed(rssi: np.ndarray, bound: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Scans in which `count` random heard transmitters read `bound` dB more or less, at random: no attack."""
    score = rng.random(rssi.shape)
    chosen = _strongest_of(score, ~np.isnan(rssi), count)
    sign = rng.choice(np.float32([-1, 1]), rssi.shape)
    moved = rssi + np.float32(bound) * sign
    return np.where(chosen, _at_most_strongest(moved), rssi)


def attacked(
    locate: Callable, rssi: np.ndarray, position: np.ndarray, bound: float, count: int, steps: int = 10
) -> np.ndarray:
    """Scans that an attacker who knows the model changed so that it errs: projected gradient descent, PGD.

    Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks". The attacker may change `count`
    of the heard transmitters of each scan, those on which the error depends most, by at most `bound` dB; TensorFlow
    only.

    Args:
        locate: a differentiable function from a tensor (n, t) dBm to a tensor (n, 2) metres; best `compiled`.
        rssi: (n, t) dBm.
        position: (n, 2) metres, where the scans were taken.
        bound, count: see above.
        steps: of the descent, each of a quarter of the bound. Of all steps, each scan keeps its worst.

    Returns:
        (n, t) dBm.
    """
    import tensorflow as tf

    true = tf.constant(position, tf.float32)

    def errors_and_slope(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with tf.GradientTape() as tape:
            scans = tf.constant(levels)
            tape.watch(scans)
            squared = tf.reduce_sum((locate(scans) - true) ** 2, axis=1)
            errors = tf.sqrt(squared + 1e-6)
        slope = tape.gradient(errors, scans).numpy()
        return errors.numpy(), np.where(np.isfinite(slope), slope, 0)

    low = rssi - np.float32(bound)
    high = _at_most_strongest(rssi + np.float32(bound))
    step = np.float32(bound / 4)
    worst = rssi.copy()
    worst_error, slope = errors_and_slope(rssi)
    chosen = _strongest_of(np.abs(slope), ~np.isnan(rssi), count)
    levels = rssi
    for _ in range(steps if bound else 0):
        moved = np.clip(levels + step * np.sign(slope), low, high)
        levels = np.where(chosen, moved, rssi).astype(np.float32)
        error, slope = errors_and_slope(levels)
        worse = error > worst_error
        worst[worse] = levels[worse]
        worst_error[worse] = error[worse]
    return worst


def smoothed(
    locate: Callable[[np.ndarray], np.ndarray], rssi: np.ndarray, rng: np.random.Generator, copies: int, share: float
) -> np.ndarray:
    """A defence: (n, 2) metres, the median by axis of what `locate` says of copies that each lost other transmitters.

    Args:
        locate: a function from (n, t) dBm to (n, 2) metres.
        rssi: (n, t) dBm.
        rng: draws what is lost.
        copies: of each scan.
        share: of the transmitters that a copy loses; a scan that would lose all keeps all.
    """
    positions = []
    for _ in range(copies):
        fewer = failed(rssi, share, rng)
        silent = np.isnan(fewer).all(axis=1)
        fewer[silent] = rssi[silent]
        positions.append(locate(fewer))
    return np.median(positions, axis=0)
