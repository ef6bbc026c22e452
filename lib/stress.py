"""What can go wrong with a scan after training: transmitters fail, devices differ, somebody attacks.

Scans are (n, t) dBm with NaN = not heard, of one environment's transmitters; what is done to them gives the same with
other levels or fewer transmitters, never more.
"""

from collections.abc import Callable, Sequence

import numpy as np

from lib import quiet_import
from lib.localizer import Localizer
from lib.preprocess import ProcessedSet

with quiet_import():
    import keras
    from keras import ops

STRONGEST = 0.0  # dBm


# === Networks, as differentiable functions of one environment's scans ===


def by_localizer(localizer: Localizer, environment: str, transmitters: Sequence[str]) -> Callable:
    """A function from a tensor (n, t) dBm of these transmitters to a tensor (n, 2) metres in the environment's frame.

    Raises:
        ValueError: if the localizer does not know the environment.
    """
    known = {of.name: np.float32(of.origin) for of in localizer.environments}
    if environment not in known:
        raise ValueError(f"`environment` must be one of {', '.join(known)}. Received: {environment}")
    place = {name: number for number, name in enumerate(transmitters)}
    columns = [place.get(name, len(place)) for name in localizer.transmitters]  # the last of all hears nothing

    def locate(rssi):
        silent = ops.full((ops.shape(rssi)[0], 1), np.nan)
        inputs = ops.take(ops.concatenate([rssi, silent], axis=1), np.int32(columns), axis=1)
        return localizer.model(inputs, training=False)["position"] + known[environment]

    return locate


def by_umlp(network: keras.Model, sets: Sequence[ProcessedSet], number: int) -> Callable:
    """The same of a U-MLP that was trained on these sets, for the environment with that number."""
    data, widths = sets[number], [one.x.shape[1] for one in sets]
    of_rssi, of_position = data.rssi_scaling, data.position_scaling
    lowest, strongest = np.float32(of_rssi.minimum[0]), np.float32(of_rssi.maximum[0])
    west_south = np.float32(of_position.minimum)
    extent = np.float32(of_position.maximum) - west_south

    def locate(rssi):
        kept = ops.take(rssi, np.flatnonzero(data.kept).astype(np.int32), axis=1)
        level = (ops.where(ops.isnan(kept), lowest, kept) - lowest) / (strongest - lowest)
        parts = [ops.full((ops.shape(rssi)[0], width), of_rssi.lower) for width in widths]
        parts[number] = of_rssi.lower + (of_rssi.upper - of_rssi.lower) * level
        scaled = network(ops.concatenate(parts, axis=1), training=False)["position"]
        return west_south + extent * (scaled - of_position.lower) / (of_position.upper - of_position.lower)

    return locate


def compiled(locate: Callable, n_transmitters: int) -> Callable:
    """The same function of scans as a TensorFlow graph, which serves any number of rows: several times as fast."""
    import tensorflow as tf

    return tf.function(locate, input_signature=[tf.TensorSpec((None, n_transmitters), tf.float32)], autograph=False)


# === Scans ===


def failed(rssi: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Scans without a random share of the transmitters: of each scan others, in the mean that share of those heard."""
    if not 0 <= share <= 1:
        raise ValueError(f"`share` must be between 0 and 1. Received: {share}")
    return np.where(rng.random(rssi.shape) < share, np.float32(np.nan), rssi)


def shifted(rssi: np.ndarray, offset: float) -> np.ndarray:
    """Scans of a device that reads `offset` dB more."""
    return np.minimum(rssi + np.float32(offset), np.float32(STRONGEST))


def quantised(rssi: np.ndarray, step: float) -> np.ndarray:
    """Scans of a device that knows only multiples of `step` dB."""
    if step <= 0:
        raise ValueError(f"`step` must be positive. Received: {step}")
    return (step * np.round(rssi / step)).astype(np.float32)


def noisy(rssi: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Scans with Gaussian noise of `deviation` dB on each level by itself."""
    noise = rng.normal(0, deviation, rssi.shape).astype(np.float32)
    return np.minimum(rssi + noise, np.float32(STRONGEST))


def _strongest_of(score: np.ndarray, heard: np.ndarray, count: int) -> np.ndarray:
    """(n, t) scores → (n, t) bool: the `count` heard transmitters of each scan that have the highest."""
    score = np.where(heard, score, -np.inf)
    chosen = np.argsort(-score, axis=1, kind="stable")[:, :count]
    mask = np.zeros(score.shape, dtype=bool)
    np.put_along_axis(mask, chosen, True, axis=1)
    return mask & heard


def perturbed(rssi: np.ndarray, bound: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Scans in which `count` random heard transmitters read `bound` dB more or less, at random: no attack."""
    chosen = _strongest_of(rng.random(rssi.shape), ~np.isnan(rssi), count)
    sign = rng.choice(np.float32([-1, 1]), rssi.shape)
    return np.where(chosen, np.minimum(rssi + np.float32(bound) * sign, np.float32(STRONGEST)), rssi)


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

    true, heard = tf.constant(position, tf.float32), ~np.isnan(rssi)

    def errors_and_slope(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with tf.GradientTape() as tape:
            scans = tf.constant(levels)
            tape.watch(scans)
            errors = tf.sqrt(tf.reduce_sum((locate(scans) - true) ** 2, axis=1) + 1e-6)
        slope = tape.gradient(errors, scans).numpy()
        return errors.numpy(), np.where(np.isfinite(slope), slope, 0)

    low = rssi - np.float32(bound)
    high = np.minimum(rssi + np.float32(bound), np.float32(STRONGEST))
    worst_error, slope = errors_and_slope(rssi)
    chosen = _strongest_of(np.abs(slope), heard, count)
    worst, here = rssi.copy(), rssi
    for _ in range(steps if bound else 0):
        moved = np.clip(here + np.float32(bound / 4) * np.sign(slope), low, high)
        here = np.where(chosen, moved, rssi).astype(np.float32)
        error, slope = errors_and_slope(here)
        worse = error > worst_error
        worst[worse], worst_error[worse] = here[worse], error[worse]
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
    told = []
    for _ in range(copies):
        fewer = failed(rssi, share, rng)
        silent = np.isnan(fewer).all(axis=1)
        fewer[silent] = rssi[silent]
        told.append(locate(fewer))
    return np.median(told, axis=0)
