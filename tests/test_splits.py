"""No protocol lets a test row, or a copy of one, into training; what each protocol promises besides."""

import dataclasses
import hashlib

import numpy as np
import pytest

from lib import splits

PARTS = ("train", "validation", "test")


def all_splits(fingerprints):
    """Every protocol's split, those for choosing at the end."""
    names = (*splits.PROTOCOLS[fingerprints.name], *splits.CHOOSING[fingerprints.name])
    return [splits.split(fingerprints, name) for name in names]


@pytest.fixture(scope="module")
def found_splits(fingerprints):
    return all_splits(fingerprints)


def contents(fingerprints, rows):
    """What rows hold, as a set: RSSI, position, floor and building, byte by byte."""
    columns = [np.nan_to_num(fingerprints.rssi, nan=100.0).astype(float), fingerprints.position]
    columns += [one[:, None] for one in (fingerprints.floor, fingerprints.building) if one is not None]
    return {row.tobytes() for row in np.hstack(columns)[rows].astype(float)}


def assert_fair(fingerprints, found):
    """No row twice, no row and no copy of a row in two parts."""
    rows = np.concatenate([getattr(found, part) for part in PARTS])
    assert len(np.unique(rows)) == len(rows)
    assert rows.min() >= 0 and rows.max() < len(fingerprints)
    held = {part: contents(fingerprints, getattr(found, part)) for part in PARTS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not held[one] & held[other], f"{found.protocol}: {one} and {other} share a fingerprint"


# === Every protocol ===


def test_parts_share_no_row_and_no_copy_of_one(fingerprints, found_splits):
    for found in found_splits:
        assert_fair(fingerprints, found)
        assert len(found.train) > len(found.validation) > 0
        assert (len(found.test) == 0) == (found.protocol in splits.CHOOSING[fingerprints.name])


def test_copies_of_test_rows_do_not_train_even_when_half_the_rows_are_copies(fingerprints):
    rng = np.random.default_rng(0)
    copied = fingerprints[rng.integers(len(fingerprints), size=min(len(fingerprints), 3000))]
    assert len(np.unique(copied.copy_id)) < len(copied)
    for found in all_splits(copied):
        assert_fair(copied, found)


def test_second_call_gives_the_same_rows(fingerprints, found_splits):
    np.random.seed(99)  # noqa: NPY002  (what the global generator is at does not matter)
    for one, other in zip(found_splits, all_splits(fingerprints), strict=True):
        for part in PARTS:
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def test_any_random_subset_of_rows_can_be_split(fingerprints):
    rows = np.random.default_rng(3).choice(len(fingerprints), 600, replace=False)
    for found in all_splits(fingerprints[rows]):
        assert_fair(fingerprints[rows], found)


def test_choosing_sees_no_test_row_of_any_protocol_and_no_copy_of_one(fingerprints, found_splits):
    tested = np.concatenate([found.test for found in found_splits])
    for found in found_splits[len(splits.PROTOCOLS[fingerprints.name]) :]:
        chosen = np.concatenate([found.train, found.validation])
        assert not np.intersect1d(chosen, tested).size
        assert not contents(fingerprints, chosen) & contents(fingerprints, tested)
        assert len(chosen) > 0.3 * (len(fingerprints) - len(np.unique(tested)))


@pytest.mark.parametrize("protocol", ["spatial", "random", "POOLED", "", "train"])
def test_unknown_protocol_is_named_with_the_known_ones(campus, protocol):
    with pytest.raises(ValueError, match=f"pooled.*official.*ujiindoorloc. Received: {protocol}$"):
        splits.split(campus, protocol)


def test_protocols_of_the_other_environment_are_refused(city):
    with pytest.raises(ValueError, match=r"random.*spatial.*lorawan_antwerp. Received: official"):
        splits.split(city, "official")


# === pooled ===


def test_pooled_tests_a_fifth_of_both_files(campus):
    found = splits.split(campus, "pooled")
    assert len(found.test) == pytest.approx(0.2 * len(campus), rel=0.1)
    assert len(found.validation) == pytest.approx(0.1 * (len(found.train) + len(found.validation)), rel=0.1)
    assert set(campus.part[found.test]) == set(campus.part[found.train]) == {"train", "validation"}


def test_pooled_uses_every_row(campus):
    found = splits.split(campus, "pooled")
    rows = np.concatenate([found.train, found.validation, found.test])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(campus)))


# === official ===


def test_official_trains_on_one_file_and_tests_on_the_other(indoors):
    found = splits.split(indoors, "official")
    np.testing.assert_array_equal(found.test, np.flatnonzero(indoors.part == "validation"))
    assert set(indoors.part[found.train]) == set(indoors.part[found.validation]) == {"train"}


def test_official_validates_on_phones_that_do_not_train(indoors):
    found = splits.split(indoors, "official")
    assert not set(indoors.group[found.validation]) & set(indoors.group[found.train])


@pytest.mark.parametrize("field", ["part", "group"])
def test_official_needs_parts_and_phones(campus, field):
    with pytest.raises(ValueError):
        splits.split(dataclasses.replace(campus, **{field: None}), "official")


def test_official_of_one_phone_cannot_be_validated(campus):
    with pytest.raises(ValueError):
        splits.split(dataclasses.replace(campus, group=np.zeros(len(campus), dtype=int)), "official")


def test_official_without_validation_file_says_that_the_test_part_is_empty(campus):
    with pytest.raises(ValueError, match="ujiindoorloc, official: the test part is empty"):
        splits.split(campus[campus.part == "train"], "official")


def test_measured_official_split_has_all_rows_of_the_validation_file(measured_campus):
    found = splits.split(measured_campus, "official")
    assert len(found.test) == 1111
    assert len(found.train) + len(found.validation) <= 19_937


# === phones ===


def test_phones_are_on_one_side_and_of_the_training_file(indoors):
    found = splits.split(indoors, "phones")
    assert set(indoors.part[found.train]) == set(indoors.part[found.validation]) == {"train"}
    assert not set(indoors.group[found.validation]) & set(indoors.group[found.train])


@pytest.mark.parametrize("field", ["part", "group"])
def test_phones_needs_parts_and_phones(campus, field):
    with pytest.raises(ValueError):
        splits.split(dataclasses.replace(campus, **{field: None}), "phones")


def test_phones_are_of_the_campus_only(city):
    with pytest.raises(ValueError, match=r"lorawan_antwerp\. Received: phones"):
        splits.split(city, "phones")


# === random ===


def test_random_follows_the_published_parts(city):
    found = splits.split(city, "random")
    np.testing.assert_array_equal(found.test, np.flatnonzero(city.part == "test"))
    assert set(city.part[found.train]) == set(city.part[found.validation]) == {"val"}


def test_random_without_published_parts_takes_15_percent_twice(city):
    found = splits.split(dataclasses.replace(city, part=None), "random")
    assert_fair(city, found)
    assert len(found.test) == pytest.approx(0.15 * len(city), rel=0.05)
    assert len(found.validation) == pytest.approx(0.15 * len(city), rel=0.05)


# === spatial ===


def test_spatial_parts_share_no_block(outdoors):
    found = splits.split(outdoors, "spatial")
    squares = [set(map(tuple, np.floor(outdoors.position[getattr(found, part)] / 500.0).tolist())) for part in PARTS]
    assert not squares[0] & squares[1] and not squares[0] & squares[2] and not squares[1] & squares[2]


def test_spatial_never_tests_or_validates_a_car_park(city):
    parked = city[np.concatenate([np.arange(len(city)), np.zeros(len(city) // 2, dtype=int)])]
    # Not one place: every parked message is a message of its own.
    position = parked.position.copy()
    position[len(city) :] += np.linspace(0, 1, len(city) // 2)[:, None]
    parked = dataclasses.replace(parked, position=position)
    found = splits.split(parked, "spatial")
    depot = np.all(np.floor(position / 500) == np.floor(city.position[0] / 500), axis=1)
    assert depot.sum() > 0.1 * len(parked)
    assert not depot[found.test].any() and not depot[found.validation].any() and depot[found.train].any()


def test_spatial_asks_for_places_farther_away_than_random(city):
    random, spatial = (
        np.median(splits.distance_to_training(city, splits.split(city, name))) for name in ("random", "spatial")
    )
    assert spatial > 2 * random


def test_blocks_are_squares_that_start_at_the_origin():
    position = np.array([[0, 0], [499.9, 499.9], [500, 0], [-0.1, 0], [0, -0.1], [499, 1]])
    ids = splits.blocks(position)
    assert ids[0] == ids[1] == ids[5] and len(set(ids)) == 4
    assert len(set(splits.blocks(position, side=2000))) == 3


def test_blocks_are_numbered_by_east_then_north(fingerprints):
    squares = np.floor(fingerprints.position / 500.0)
    expected = np.unique(squares, axis=0, return_inverse=True)[1].ravel()
    np.testing.assert_array_equal(splits.blocks(fingerprints.position), expected)


def test_distance_to_training_is_that_to_the_nearest_training_position(city):
    found = splits.split(city, "spatial")
    difference = city.position[found.test][:, None] - city.position[found.train]
    expected = np.sqrt(np.square(difference).sum(axis=2)).min(axis=1)
    np.testing.assert_allclose(splits.distance_to_training(city, found), expected)


# === The leak check ===


@pytest.mark.parametrize(
    ("one", "other"), [("train", "validation"), ("train", "test"), ("validation", "test"), ("test", "train")]
)
def test_a_planted_copy_is_found(campus, one, other):
    found = splits.split(campus, "pooled")
    twice = campus[np.append(np.arange(len(campus)), getattr(found, one)[0])]  # the last row copies a row of `one`
    planted = dataclasses.replace(found, **{other: np.append(getattr(found, other), len(campus))})
    first, second = sorted((one, other), key=PARTS.index)
    with pytest.raises(ValueError, match=f"pooled: 1 fingerprints are in both {first} and {second}"):
        splits.check_leakage(twice, planted)


def test_a_planted_row_is_found(campus):
    found = splits.split(campus, "pooled")
    planted = dataclasses.replace(found, train=np.append(found.train, found.test[:3]))
    with pytest.raises(ValueError, match="in both train and test"):
        splits.check_leakage(campus, planted)


@pytest.mark.parametrize("part", PARTS)
def test_an_empty_part_is_named(campus, part):
    empty = dataclasses.replace(splits.split(campus, "pooled"), **{part: np.array([], dtype=int)})
    with pytest.raises(ValueError, match=f"the {part} part is empty"):
        splits.check_leakage(campus, empty)


# === The measured splits ===

# sha256 of the row numbers, as int64, that train, validate and test: committed results are of these rows.
MEASURED = {
    "pooled": "3b5b127d4f244d7f",
    "official": "17198b5360f34c37",
    "random": "be8ecec3102ac87e",
    "spatial": "e7e1714374e0811f",
}


def digest(found):
    return hashlib.sha256(b"|".join(getattr(found, part).astype("<i8").tobytes() for part in PARTS)).hexdigest()[:16]


def test_measured_splits_are_those_of_the_committed_results(measured_campus, measured_city):
    for fingerprints in (measured_campus, measured_city):
        if len(fingerprints) in (21_048, 16_613):  # the full LoRaWAN release has other rows
            for protocol in splits.PROTOCOLS[fingerprints.name]:
                assert digest(splits.split(fingerprints, protocol)) == MEASURED[protocol], protocol
