"""What the tests of several kinds of estimators ask in the same way."""

import dataclasses

import numpy as np
import pytest

from lib.data.fingerprints import Scans


def _assert_equal(located, expected):
    assert located.arrays().keys() == expected.arrays().keys()
    for name, values in expected.arrays().items():
        assert np.array_equal(getattr(located, name), values), name


def _assert_columns_are_matched_by_name(model, scans):
    order = np.random.default_rng(0).permutation(len(scans.transmitters))
    names = [*np.array(scans.transmitters)[order], "new"]
    rssi = np.column_stack([scans.rssi[:, order], np.full(len(scans), -60, dtype=np.float32)])
    _assert_equal(model.predict(Scans(rssi, tuple(names))), model.predict(scans))
    silenced = scans.rssi.copy()
    silenced[:, 0] = np.nan
    fewer = Scans(scans.rssi[:, 1:], scans.transmitters[1:])
    _assert_equal(model.predict(fewer), model.predict(Scans(silenced, scans.transmitters)))


@pytest.fixture(scope="session")
def assert_columns_are_matched_by_name():
    """Asks it of a fitted model and scans: in another order, with one never heard of; one missing is not heard."""
    return _assert_columns_are_matched_by_name


@pytest.fixture(scope="module", params=["campus", "city"])
def simulated(request):
    """Both simulated sets; indoors with labels that are not 0, 1, …"""
    rows = request.getfixturevalue(request.param)
    if rows.floor is None:
        return rows
    return dataclasses.replace(rows, floor=3 * rows.floor - 2, building=10 * rows.building + 7)


@pytest.fixture(scope="module")
def strange(simulated):
    """Scans that were never seen, one that hears nothing and one that hears everything."""
    rssi = np.full((2, len(simulated.transmitters)), np.nan, dtype=np.float32)
    rssi[1] = -1.0
    return Scans(np.concatenate([simulated.rssi[300:400], rssi]), simulated.transmitters)
