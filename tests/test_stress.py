"""Spoilt scans: what they must keep, and that an attack is worse than chance."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib import preprocess, stress, training

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


def test_a_localizer_as_a_function_says_what_it_predicts(localizer, apart):
    one = apart[1][0]
    rssi = one.rssi[one.heard.any(axis=1)][:50]
    other_order = np.random.default_rng(0).permutation(len(one.transmitters))
    names = [one.transmitters[number] for number in other_order]
    told = np.asarray(stress.by_localizer(localizer, one.name, names)(rssi[:, other_order]))
    expected = localizer.predict(pd.DataFrame(rssi, columns=list(one.transmitters)))
    here = (expected["environment"] == one.name).fillna(False).to_numpy(dtype=bool)
    assert here.mean() > 0.5
    assert told[here] == pytest.approx(expected[["x", "y"]].to_numpy()[here], abs=1e-3)
    with pytest.raises(ValueError, match="Received: moon"):
        stress.by_localizer(localizer, "moon", names)


def test_a_compiled_function_says_the_same_of_any_number_of_rows_and_has_its_slope(localizer, apart):
    import tensorflow as tf

    one = apart[1][0]
    locate = stress.by_localizer(localizer, one.name, one.transmitters)
    traced = []
    fast = stress.compiled(lambda rssi: traced.append(rssi) or locate(rssi), len(one.transmitters))

    def slope(of, rssi):
        with tf.GradientTape() as tape:
            scans = tf.constant(rssi)
            tape.watch(scans)
            east = of(scans)[:, 0]
        return tape.gradient(east, scans).numpy()

    for rows in (1, 7, 30):
        rssi = one.rssi[one.heard.any(axis=1)][:rows]
        assert fast(rssi).numpy() == pytest.approx(np.asarray(locate(rssi)), abs=0.01)
        assert slope(fast, rssi) == pytest.approx(slope(locate, rssi), abs=1e-3, nan_ok=True)
    assert len(traced) == 1


def test_an_attack_without_strength_changes_nothing(localizer, apart):
    one = apart[1][0][:20]
    locate = stress.by_localizer(localizer, one.name, one.transmitters)
    found = stress.attacked(locate, one.rssi, one.position, bound=0.0, count=2)
    assert found == pytest.approx(one.rssi, nan_ok=True)


def test_a_umlp_as_a_function_says_what_it_predicts(campus, city, tmp_path, quick_fit):
    sets = [
        preprocess.process(one, protocol, np.arange(len(one)), (0.0, 2.0))
        for one, protocol in ((campus, "official"), (city, "random"))
    ]
    how = {"config": "narrow", "dropout": 0.0, "epochs": 1, "batch_size": 64, "learning_rate": 0.01}
    run = training.train_umlp(preprocess.unify(*sets), tmp_path / "umlp", 0, **how)
    parts = np.split(run.predicted["position"], [len(sets[0].split.test)])
    for number, (one, data, predicted) in enumerate(zip((campus, city), sets, parts, strict=True)):
        told = np.asarray(stress.by_umlp(run.model, sets, number)(one.rssi[data.split.test]))
        assert told == pytest.approx(data.position_scaling.inverse(predicted), rel=1e-3, abs=0.05)


def test_an_attack_on_a_linear_model_finds_the_worst_levels():
    import tensorflow as tf

    slopes = np.float32([[1.0, 0.0], [5.0, 0.0], [-3.0, 0.0], [0.5, 0.0]])
    rssi = np.float32([[-60, -70, -80, np.nan], [-60, np.nan, -80, -50]])

    def locate(levels):
        return tf.matmul(tf.where(tf.math.is_nan(levels), 0.0, levels), slopes)

    position = locate(rssi).numpy() - np.float32([1, 0])  # so that more is worse
    found = stress.attacked(locate, rssi, position, bound=6.0, count=2, steps=10)
    expected = rssi + np.float32([[0, 6, -6, 0], [6, 0, -6, 0]])
    assert found == pytest.approx(expected, nan_ok=True)


def test_smoothing_outvotes_one_lying_transmitter():
    rssi = np.full((3, 20), -60, dtype=np.float32)
    rssi[:, 0] = -10  # only this one makes the model err

    def locate(levels):
        wrong = levels[:, :1] > -20
        return np.where(wrong, 1000.0, 0.0) * np.ones((1, 2))

    told = stress.smoothed(locate, rssi, np.random.default_rng(0), copies=41, share=0.8)
    assert (told == 0).all()
    silent = np.full((1, 20), np.nan, dtype=np.float32)
    silent[0, 3] = -70
    assert stress.smoothed(
        lambda x: np.nansum(x, axis=1, keepdims=True) * np.ones((1, 2)),
        silent,
        np.random.default_rng(0),
        copies=9,
        share=0.99,
    ) == pytest.approx(-70)
