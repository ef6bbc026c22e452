"""What becomes of old fingerprints when new ones are stored."""

import dataclasses

import numpy as np
import pytest

from lib.data import simulate
from lib.models import unified
from lib.models.choosing import Choice
from lib.models.unified import Unified
from lib.models.updating import Stored, _covers, _still_there, _with_share, updated

SMALL = {"folds": 2, "network": {"hidden": (16, 16)}, "batch_size": 64, "epochs": 2}
HEARD, SILENT = -60.0, np.nan


class Errors:
    """Stands for `HeldOut`: its errors by the share of the votes."""

    def __init__(self, **by_share):
        self.by_share = {float(name.removeprefix("at_")) / 100: errors for name, errors in by_share.items()}

    def errors(self, choice):
        return np.asarray(self.by_share[choice.share])


@pytest.fixture(scope="module")
def office():
    campus = simulate.campus(600, 1, n_access_points=40)
    heard = campus[campus.heard.any(axis=1)]
    _, first = np.unique(heard.copy_id, return_index=True)
    return heard[np.sort(first)]


@pytest.fixture(scope="module")
def network(office):
    """A network whose votes were chosen by hand."""
    votes = {"share": 0.25, "width": 0.05, "exponent": 2.0, "offsets": (-3.0, 3.0)}
    settings = [{"neighbours": votes}]
    return Unified(**SMALL, environments=settings).fit([office[::2]], [office[:0]], seed=0)


def votes_of(network):
    return network.network.get_layer(unified.votes_name(0))


def n_stored(renewed):
    """How many fingerprints an updated network has stored."""
    network, _ = renewed
    return len(votes_of(network).of_place)


# === Access points that came or went ===


def column(heard, rows):
    """(rows, 1) dBm, of which so many hear the access point."""
    return np.where(np.arange(rows)[:, None] < heard, HEARD, SILENT)


@pytest.mark.parametrize(
    ("before", "now", "stays"),
    [
        (100, 50, True),
        (100, 0, False),  # it went
        (0, 50, False),  # it came
        (2, 0, True),  # 2 % of the old scans heard it: 50 new ones miss it by chance
        (20, 0, False),
        (0, 1, True),
        (0, 0, True),
    ],
)
def test_access_points_are_compared_that_neither_came_nor_went(before, now, stays):
    old = np.hstack([column(100, 100), column(before, 100)])
    new = np.hstack([column(50, 50), column(now, 50)])
    if (before, now) == (0, 1):
        old = old[:20]  # too few to tell
    assert (1 in _still_there(old, new, np.arange(2))) == stays


def test_single_scans_tell_nothing_of_what_came_or_went():
    old, new = np.array([[HEARD, HEARD, SILENT]]), np.array([[HEARD, SILENT, HEARD]])
    assert _still_there(old, new, np.arange(3)).tolist() == [0, 1, 2]


def test_where_nothing_stayed_or_no_place_is_shared_all_are_compared():
    old, new = np.hstack([column(9, 9), column(0, 9)]), np.hstack([column(0, 50), column(50, 50)])
    assert _still_there(old, new, np.arange(2)).tolist() == [0, 1]
    assert _still_there(old[:0], new[:0], np.arange(2)).tolist() == [0, 1]


# === Old fingerprints ===


def test_votes_get_a_larger_share_only_where_that_is_clearly_better():
    usual, rows = Choice(share=0.5), np.linspace(9.0, 11.0, 50)
    choice, errors = _with_share(Errors(at_50=rows, at_75=rows * 0.98, at_100=rows * 0.97), usual)
    assert choice == usual and np.array_equal(errors, rows)
    choice, errors = _with_share(Errors(at_50=rows, at_75=rows * 0.5, at_100=rows * 0.7), usual)
    assert choice == Choice(share=0.75) and np.array_equal(errors, rows * 0.5)
    never_less = Errors(at_50=rows * 0, at_75=rows, at_100=rows)
    assert _with_share(never_less, Choice(share=0.75))[0].share == 0.75


def as_others(rows):
    """Every access point now says what another said."""
    return dataclasses.replace(rows, rssi=rows.rssi[:, ::-1])


def test_old_fingerprints_are_forgotten_only_where_the_new_ones_are_clearly_better_and_cover_them(network, office):
    new, old = office[1::2], len(votes_of(network).of_place)
    assert n_stored(updated(network, 0, new)) == old + len(new)
    assert n_stored(updated(network, 0, as_others(new))) == len(new)
    third = office[1 : len(office) // 3 : 2]
    assert n_stored(updated(network, 0, as_others(third))) == old + len(third)


def test_new_fingerprints_that_are_stored_already_are_no_help_to_themselves(network, office):
    again, told = updated(network, 0, office[::2])
    assert n_stored((again, told)) == len(votes_of(network).of_place)
    assert told.neighbours_error.mean() > 1.0


def test_old_places_are_forgotten_only_if_half_of_them_have_new_fingerprints():
    def stored(of_place, is_old):
        nothing = np.zeros((len(of_place), 1))
        return Stored(nothing, np.array(of_place), np.array(is_old), np.arange(1), np.full(1, -100.0))

    together = stored([0, 1, 2, 3, 0, 1], [True] * 4 + [False] * 2)
    assert _covers(stored([0, 1], [False] * 2), together)
    assert not _covers(stored([0, 0, 9], [False] * 3), together)


# === The network ===


def test_nothing_but_the_share_is_chosen_anew(network, office):
    renewed, told = updated(network, 0, office[1::4])
    before, after = votes_of(network).settings(), votes_of(renewed).settings()
    for name in ("width", "exponent", "offsets"):
        assert after[name] == before[name]
    old_places, places = network.places, renewed.places
    assert np.array_equal(places.softness[: len(old_places)], old_places.softness)
    assert np.array_equal(places.sharpness[: len(old_places)], old_places.sharpness)
    assert len(votes_of(renewed).of_place) == len(votes_of(network).of_place) + len(office[1::4])
    assert len(told.rows) == len(office[1::4])


def with_names(rows, *names):
    """The rows, which hear further access points, each 1 dB weaker than the one before."""
    further = HEARD - np.tile(np.arange(len(names), dtype=np.float32), (len(rows), 1))
    return dataclasses.replace(rows, rssi=np.hstack([rows.rssi, further]), transmitters=(*rows.transmitters, *names))


def test_an_access_point_that_came_is_no_input_and_who_hears_nothing_else_is_not_told(network, office):
    new = with_names(office[1::2], "came")
    new.rssi[:3, :-1] = SILENT
    renewed, told = updated(network, 0, new)
    assert renewed.transmitters == network.transmitters
    assert sorted(told.rows) == list(range(3, len(new)))


def test_one_that_is_heard_at_new_places_alone_is_an_input(network, office):
    old_places, annex = (
        with_names(office[1::4], "came", "of the annex"),
        with_names(office[3::4], "came", "of the annex"),
    )
    old_places.rssi[:, -1] = SILENT
    rows = np.concatenate([np.arange(1, len(office), 4), np.arange(3, len(office), 4)])
    both = dataclasses.replace(
        office[rows],
        rssi=np.concatenate([old_places.rssi, annex.rssi]),
        position=np.concatenate([old_places.position, annex.position + 1000.0]),
        transmitters=annex.transmitters,
    )
    renewed, _ = updated(network, 0, both)
    assert renewed.transmitters == (*network.transmitters, "of the annex")
    stored = votes_of(renewed).fingerprints(len(renewed.transmitters))
    assert np.nanmean(stored[:, -1]) == pytest.approx(HEARD - 1, abs=0.01)
    assert np.isfinite(stored[:, -1]).sum() == len(annex)
    located = renewed.predict(office[::2].scans).position
    assert (located.max(axis=0) < office.position.max(axis=0) + 500.0).all(), "the old building is still known"


def test_a_network_without_votes_can_be_updated(office):
    without = Unified(**SMALL, environments=[{"neighbours": None}]).fit([office[::2]], [office[:0]], seed=0)
    new = office[1::4]
    renewed, told = updated(without, 0, new)
    assert n_stored((renewed, told)) == len(told.rows) == len(new)
    assert np.isfinite(renewed.predict(new.scans).position).all()


def test_a_network_of_one_member_is_refused(office):
    single = Unified(**SMALL | {"folds": 1}).fit([office[::2]], [office[:0]], seed=0)
    with pytest.raises(ValueError, match="expected a network of several members"):
        updated(single, 0, office[1::4])
