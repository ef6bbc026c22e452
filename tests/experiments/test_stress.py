"""Spoilt scans: what they must keep, and that an attack is worse than chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.data import protocols
from lib.experiments import stress
from lib.models.paper import UMLP

SCANS = arrays(np.float32, (6, 5), elements=st.floats(-120, -1, width=32) | st.just(float("nan")))
WAYS = {
    "failed": lambda rssi, rng: stress.failed(rssi, 0.5, rng),
    "shifted": lambda rssi, rng: stress.shifted(rssi, 15.0),
    "quantised": lambda rssi, rng: stress.quantised(rssi, 5.0),
    "noisy": lambda rssi, rng: stress.noisy(rssi, 6.0, rng),
    "perturbed": lambda rssi, rng: stress.perturbed(rssi, 10.0, 2, rng),
}


@pytest.mark.parametrize("way", WAYS)
@given(rssi=SCANS)
def test_no_transmitter_is_invented_and_no_level_impossible(way, rssi):
    spoilt = WAYS[way](rssi, np.random.default_rng(0))
    assert spoilt.shape == rssi.shape and spoilt.dtype == np.float32
    assert np.isnan(spoilt[np.isnan(rssi)]).all()
    assert not (spoilt > 0).any()
    if way != "failed":
        assert np.array_equal(np.isnan(spoilt), np.isnan(rssi))


@given(rssi=SCANS)
def test_a_perturbation_keeps_its_bounds(rssi):
    change = np.abs(stress.perturbed(rssi, 4.0, 2, np.random.default_rng(0)) - rssi)
    assert not (change > 4.001).any()
    assert ((change > 0).sum(axis=1) <= 2).all()


@pytest.mark.parametrize(("way", "value"), [(stress.failed, 1.5), (stress.quantised, 0.0)])
def test_impossible_sizes_are_refused(way, value):
    more = [np.random.default_rng(0)] if way is stress.failed else []
    with pytest.raises(ValueError, match=f"Received: {value}"):
        way(np.zeros((1, 1), np.float32), value, *more)


@pytest.fixture(scope="module")
def messages(apart):
    """Scans in the city that no network has learnt and that hear something."""
    _, asked = apart
    city = asked[1]
    return city[city.heard.any(axis=1)]


def differentiable(localizer, name, transmitters):
    """A localizer as a function of the scans of one of its environments."""
    (origin,) = [environment.origin for environment in localizer.environments if environment.name == name]
    in_frame = stress.differentiable(localizer.unified, transmitters)
    return lambda rssi: in_frame(rssi) + np.float32(origin)


def test_a_localizer_as_a_function_says_what_it_predicts(localizer, messages):
    asked = messages[:50]
    order = np.random.default_rng(0).permutation(len(asked.transmitters))
    names = [asked.transmitters[number] for number in order]
    locate = differentiable(localizer, asked.name, names)
    answered = np.asarray(locate(asked.rssi[:, order]))
    expected = localizer.predict(asked.scans)
    number = [environment.name for environment in localizer.environments].index(asked.name)
    here = expected.environment == number
    assert here.mean() > 0.5
    assert answered[here] == pytest.approx(expected.position[here], abs=1e-3)


def test_transmitters_that_the_network_does_not_know_do_nothing(localizer, messages):
    asked = messages[:20]
    expected = np.asarray(differentiable(localizer, asked.name, asked.transmitters)(asked.rssi))
    locate = differentiable(localizer, asked.name, ("a stranger", *asked.transmitters))
    stranger = np.full((len(asked), 1), -40, dtype=np.float32)
    answered = np.asarray(locate(np.concatenate([stranger, asked.rssi], axis=1)))
    np.testing.assert_array_equal(answered, expected)


def slope_of(locate, rssi):
    """How the first coordinate changes with each level."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        scans = tf.constant(rssi)
        tape.watch(scans)
        east = locate(scans)[:, 0]
    return tape.gradient(east, scans).numpy()


def test_a_compiled_function_says_the_same_of_any_number_of_rows_and_has_its_slope(localizer, messages):
    locate = differentiable(localizer, messages.name, messages.transmitters)
    traced = []

    def counted(rssi):
        traced.append(rssi)
        return locate(rssi)

    fast = stress.compiled(counted, len(messages.transmitters))
    for count in (1, 7, 30):
        rssi = messages.rssi[:count]
        assert fast(rssi).numpy() == pytest.approx(np.asarray(locate(rssi)), abs=0.01)
        alike = np.isclose(slope_of(fast, rssi), slope_of(locate, rssi), atol=1e-3, equal_nan=True)
        # At a level that equals a stored one, the slope is either side's: rounding decides.
        assert alike.mean() > 0.8
    assert len(traced) == 1


def test_an_attack_without_strength_changes_nothing(localizer, messages):
    asked = messages[:20]
    locate = differentiable(localizer, asked.name, asked.transmitters)
    attacked = stress.attacked(locate, asked.rssi, asked.position, bound=0.0, count=2)
    assert attacked == pytest.approx(asked.rssi, nan_ok=True)


def test_a_umlp_as_a_function_says_what_it_predicts(campus, city, quick_fit):
    parts = [protocols.official(campus), protocols.random(city)]
    train = [rows.train for rows in parts]
    settings = {"config": "narrow", "epochs": 1, "batch_size": 64, "bounds": (0.0, 2.0)}
    umlp = UMLP(**settings, inputs=[rows.transmitters for rows in parts])
    umlp.fit(train, [rows.validation for rows in parts], seed=0)
    for rows in parts:
        answered = np.asarray(stress.differentiable(umlp, rows.test.transmitters)(rows.test.rssi))
        expected = umlp.predict(rows.test.scans).position
        assert answered == pytest.approx(expected, rel=1e-3, abs=0.05)


def test_an_attack_on_a_linear_model_finds_the_worst_levels():
    import tensorflow as tf

    slopes = np.float32([[1.0, 0.0], [5.0, 0.0], [-3.0, 0.0], [0.5, 0.0]])
    rssi = np.float32([[-60, -70, -80, np.nan], [-60, np.nan, -80, -50]])

    def locate(levels):
        return tf.matmul(tf.where(tf.math.is_nan(levels), 0.0, levels), slopes)

    position = locate(rssi).numpy() - np.float32([1, 0])  # so that more is worse
    attacked = stress.attacked(locate, rssi, position, bound=6.0, count=2, steps=10)
    expected = rssi + np.float32([[0, 6, -6, 0], [6, 0, -6, 0]])
    assert attacked == pytest.approx(expected, nan_ok=True)


def test_smoothing_outvotes_one_lying_transmitter():
    rssi = np.full((3, 20), -60, dtype=np.float32)
    rssi[:, 0] = -10  # only this one makes the model err

    def locate(levels):
        wrong = levels[:, :1] > -20
        return np.where(wrong, 1000.0, 0.0) * np.ones((1, 2))

    answered = stress.smoothed(locate, rssi, np.random.default_rng(0), copies=41, share=0.8)
    assert (answered == 0).all()
    silent = np.full((1, 20), np.nan, dtype=np.float32)
    silent[0, 3] = -70

    def summed(levels):
        return np.nansum(levels, axis=1, keepdims=True) * np.ones((1, 2))

    answered = stress.smoothed(summed, silent, np.random.default_rng(0), copies=9, share=0.99)
    assert answered == pytest.approx(-70)
