"""Newly surveyed fingerprints are stored and calibrate anew, without training."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lib.data import simulate
from lib.data.fingerprints import FingerprintSet
from lib.models import training
from lib.use.localizer import Localizer
from lib.use.runtime import Runtime

SMALL = {"folds": 2, "epochs": 8, "batch_size": 32, "network": {"hidden": (32, 32)}}
LOUDER = 12.0  # dB by which all is heard louder in the later survey
GONE = 10  # access points that are switched off


@pytest.fixture(scope="module")
def office() -> FingerprintSet:
    campus = simulate.campus(600, 1, n_access_points=40)
    return campus[campus.heard.any(axis=1)]


@pytest.fixture(scope="module")
def later(office):
    """The same rows as they are heard later: some access points are gone, one is new, and all is louder."""
    rssi = np.minimum(office.rssi + LOUDER, 0)
    rssi[:, :GONE] = np.nan
    new = np.full((len(office), 1), np.nan, dtype=np.float32)
    new[::2] = -60
    names = (*office.transmitters, "a new one")
    rows = dataclasses.replace(office, rssi=np.concatenate([rssi, new], axis=1), transmitters=names)
    return rows[rows.heard[:, :-1].any(axis=1)]


@pytest.fixture(scope="module")
def fitted(office):
    return Localizer.of([office[::2]], **SMALL)


@pytest.fixture(scope="module")
def renewed(fitted, later):
    return fitted.update(later[1::4])


def mean_error(localizer, rows):
    return localizer.evaluate(rows)["mean_m"]


def test_new_fingerprints_make_up_for_what_changed(fitted, renewed, later):
    asked = later[3::4]
    assert mean_error(renewed, asked) < 0.9 * mean_error(fitted, asked)


def test_the_radii_are_those_of_the_new_fingerprints(renewed, later):
    new = later[1::4]
    (held_out,) = renewed.held_out
    assert renewed.environments[0].calibration.rows == len(held_out.rows) == len(new)
    assert np.array_equal(held_out.rows.position, new.position)


def test_nothing_is_trained(monkeypatch, fitted, later):
    monkeypatch.setattr(training, "fit", None)
    fitted.update(later[1:60:4])


def test_the_localizer_that_is_updated_stays_what_it_is(fitted, renewed, later):
    before = fitted.locate(wide(later[:20]))
    fitted.update(later[5:90:4])
    pd.testing.assert_frame_equal(fitted.locate(wide(later[:20])), before)


def test_new_positions_can_be_told(fitted, later):
    annex = dataclasses.replace(later, position=later.position + 1000)[1::4]
    located = fitted.update(annex).predict(annex.scans)
    assert np.median(np.linalg.norm(located.position - annex.position, axis=1)) < 100


def test_it_is_saved_and_loaded_and_updated_again(renewed, later, tmp_path):
    renewed.save(tmp_path / "renewed")
    loaded = Localizer.load(tmp_path / "renewed")
    scans = wide(later[:30])
    told = renewed.locate(scans)
    pd.testing.assert_frame_equal(loaded.locate(scans), told)
    with_onnx = Runtime.load(tmp_path / "renewed").locate(scans.to_dict("records"))
    np.testing.assert_allclose(with_onnx["x"], told["x"], atol=0.01)
    again = loaded.update(later[7::8])
    assert "a new one" not in again.transmitters
    assert again.environments[0].learning_rows == renewed.environments[0].learning_rows + len(later[7::8])
    assert len(again.provenance["updates"]) == 2


def test_another_environment_is_located_as_before(office, later, untrained):
    town = simulate.city(200, n_gateways=20)
    both = Localizer.of([office[::4], town], **SMALL | {"epochs": 1})
    renewed = both.update(later[1::8])
    asked = town[town.heard.any(axis=1)].scans
    np.testing.assert_allclose(renewed.predict(asked).position, both.predict(asked).position, atol=0.01)


def test_what_cannot_be_taken_is_refused(fitted, later):
    with pytest.raises(ValueError, match="the environment must be one of"):
        fitted.update(dataclasses.replace(later, name="elsewhere"))
    with pytest.raises(ValueError, match=r"expected scans with `floor`, as in the survey.*Received: scans without"):
        fitted.update(dataclasses.replace(later, floor=None))
    with pytest.raises(ValueError, match="expected two rows or more, to hold some out"):
        fitted.update(later[:1])


def wide(rows):
    return pd.DataFrame(rows.rssi, columns=list(rows.transmitters))
