"""Rows that are held out are unseen in every way in which they stand for scans to come."""

import dataclasses

import numpy as np
import pytest

from lib.data import folds
from lib.data.folds import HOLD_OUT, Folds


def of_device(fingerprints, devices):
    return dataclasses.replace(fingerprints, group=np.asarray(devices))


@pytest.fixture(scope="module")
def with_copies(campus):
    """The campus, and 50 of its rows once more, by a device that has no others."""
    copied = np.arange(0, 500, 10)
    rows = campus[np.concatenate([np.arange(len(campus)), copied])]
    return of_device(rows, np.concatenate([campus.group, np.full(len(copied), 99)]))


def groups_of(fingerprints, hold_out):
    """What rows are held out with."""
    if hold_out == "devices":
        return fingerprints.group
    if hold_out == "areas":
        side = np.ptp(fingerprints.position, axis=0).max() / folds.AREAS
        return [tuple(square) for square in np.floor(fingerprints.position / side)]
    return fingerprints.place_id if hold_out == "positions" else fingerprints.copy_id


@pytest.mark.parametrize("count", [2, 4, 5])
@pytest.mark.parametrize("hold_out", ["positions", "rows", "areas"])
def test_each_row_is_asked_about_once_while_it_is_out(campus, hold_out, count):
    held_out = Folds.of(campus, hold_out, count, seed=0)
    assert held_out.hidden.shape == (count, len(campus))
    assert set(held_out.asked) == set(range(count))
    assert held_out.hidden[held_out.asked, np.arange(len(campus))].all()
    assert np.array_equal(held_out.hidden.sum(axis=0), np.ones(len(campus)))


@pytest.mark.parametrize("hold_out", HOLD_OUT)
def test_nothing_that_a_row_is_held_out_with_is_seen(with_copies, hold_out):
    held_out = Folds.of(with_copies, hold_out, 4, seed=0)
    for number, hidden in enumerate(held_out.hidden):
        asked = held_out.asked == number
        for groups in (groups_of(with_copies, hold_out), with_copies.copy_id):
            of_asked = {group for group, is_asked in zip(groups, asked, strict=True) if is_asked}
            of_seen = {group for group, is_hidden in zip(groups, hidden, strict=True) if not is_hidden}
            assert of_asked and not of_asked & of_seen


def test_where_devices_are_held_out_neither_device_nor_position_of_an_asked_row_is_seen(campus):
    held_out = Folds.of(campus, "devices", 4, seed=0)
    assert 0 < (held_out.asked >= 0).sum() < len(campus), "some are out in no fold with both"
    for number, hidden in enumerate(held_out.hidden):
        asked = held_out.asked == number
        assert not set(campus.group[asked]) & set(campus.group[~hidden])
        assert not set(campus.place_id[asked]) & set(campus.place_id[~hidden])
        assert (~hidden).any()


def test_areas_beside_each_other_are_out_at_different_times(city):
    """So that what is out is as near to other rows as an area would be that nobody surveyed."""
    side = 500.0
    held_out = Folds.of(city, "areas", 4, seed=0, area=side)
    square = np.floor(city.position / side)
    beside = np.abs(square[:, None] - square[None]).max(axis=2) == 1
    same_fold = held_out.asked[:, None] == held_out.asked[None]
    by_chance = 0.25
    assert same_fold[beside].mean() < by_chance / 2


def test_folds_of_areas_are_of_about_the_same_size_where_rows_crowd_in_a_corner(city):
    position = np.random.default_rng(0).exponential(300.0, (len(city), 2))
    crowded = dataclasses.replace(city, position=position)
    held_out = Folds.of(crowded, "areas", 4, seed=0)
    largest = np.bincount(folds.areas(position)).max()
    rows = np.bincount(held_out.asked)
    assert len(rows) == 4 and rows.max() <= max(largest, 0.3 * len(city))


def test_devices_are_shared_out_by_their_rows(campus):
    devices = np.repeat([0, 1, 2], [300, 180, 120])
    rows = of_device(campus[:600], devices)
    held_out = Folds.of(rows, "devices", 2, seed=0)
    assert not held_out.hidden[:, devices == 0].all(axis=1).all()
    with_the_largest = np.argmax(held_out.hidden[:, devices == 0].all(axis=1))
    small = held_out.hidden[1 - with_the_largest][devices > 0]
    assert small.all(), "the two smaller ones are as many rows as the largest"


def test_the_same_seed_holds_out_the_same_and_another_seed_does_not(campus):
    first, again, other = (Folds.of(campus, "positions", 4, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.asked, again.asked) and np.array_equal(first.hidden, again.hidden)
    assert not np.array_equal(first.asked, other.asked)


def test_folds_are_of_about_the_same_size(campus):
    sizes = np.bincount(Folds.of(campus, "positions", 4, seed=0).asked)
    assert sizes.min() > 0.8 * sizes.max()


def test_where_there_are_fewer_positions_than_folds_nothing_is_out_in_some(campus):
    few = campus[:40]
    assert len(set(few.place_id)) == 2
    held_out = Folds.of(few, "positions", 4, seed=0)
    assert held_out.hidden.sum(axis=1).tolist() == [20, 20, 0, 0]
    assert set(held_out.asked) == {0, 1}


def test_areas_are_squares_of_the_side_that_was_asked_for(campus):
    held_out = Folds.of(campus, "areas", 4, seed=0, area=15.0)
    squares = np.unique(np.floor(campus.position / 15.0), axis=0, return_inverse=True)[1].ravel()
    for square in range(squares.max() + 1):
        assert len(set(held_out.asked[squares == square])) == 1
    assert len(set(folds.areas(campus.position, 15.0))) == squares.max() + 1 > len(set(folds.areas(campus.position)))


def test_without_folds_nothing_is_out_or_asked():
    held_out = Folds.none(5)
    assert held_out.hidden.shape == (1, 5) and not held_out.hidden.any()
    assert held_out.asked.tolist() == [-1] * 5


def test_an_unknown_way_is_refused(campus):
    with pytest.raises(ValueError, match=r"`hold_out` must be one of positions, rows, devices, areas\. Received: days"):
        Folds.of(campus, "days", 4, seed=0)


def test_rows_without_devices_are_refused(city):
    with pytest.raises(ValueError, match=r"lorawan_antwerp: to hold out devices.*`device`.*Received: rows without"):
        Folds.of(city, "devices", 4, seed=0)


@pytest.mark.parametrize("hold_out", HOLD_OUT)
def test_what_there_is_only_one_of_cannot_be_held_out(campus, hold_out):
    alike = of_device(campus[[3, 3, 3]], [7, 7, 7])
    message = rf"ujiindoorloc: expected two {hold_out} or more, to hold some out\. Received: 1"
    with pytest.raises(ValueError, match=message):
        Folds.of(alike, hold_out, 4, seed=0)


def test_devices_that_shared_no_position_with_each_other_cannot_be_held_out_with_it(campus):
    two = of_device(campus[:40], np.arange(40) // 20)
    assert len(set(two.place_id)) == 2
    message = r"expected positions that several devices surveyed.*Received: 2 positions.*hold out positions"
    with pytest.raises(ValueError, match=message):
        Folds.of(two, "devices", 4, seed=0)
