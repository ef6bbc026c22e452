"""No protocol lets a test row, or a copy of one, into training; what each protocol promises besides."""

import dataclasses
import hashlib

import numpy as np
import pytest

from lib.data import datasets, protocols
from lib.data.fingerprints import FingerprintSet, Frame, Release, joined
from lib.data.protocols import Parts, Protocol

PARTS = ("train", "validation", "test")
PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))


def numbered(fingerprints):
    """The set with the number of each row in the place of its time, which no protocol looks at."""
    return dataclasses.replace(fingerprints, time=np.arange(len(fingerprints)))


def parts_for_testing(fingerprints):
    """The parts under every protocol of the environment that has test rows, by the protocol's name."""
    return _under(protocols.PROTOCOLS, fingerprints)


def parts_for_choosing(fingerprints):
    """The parts under every protocol of the environment that has none, by the protocol's name."""
    return _under(protocols.CHOOSING, fingerprints)


def _under(table, fingerprints):
    rows = numbered(fingerprints)
    names = [name for name, protocol in table.items() if protocol.environment == fingerprints.name]
    return {name: table[name].part(rows) for name in names}


@pytest.fixture(scope="module")
def tested_parts(fingerprints):
    return parts_for_testing(fingerprints)


@pytest.fixture(scope="module")
def choosing_parts(fingerprints):
    return parts_for_choosing(fingerprints)


def contents(fingerprints):
    """What rows hold, as a set: RSSI, position, floor and building, byte by byte."""
    columns = [np.nan_to_num(fingerprints.rssi, nan=100.0).astype(float), fingerprints.position]
    for labels in (fingerprints.floor, fingerprints.building):
        if labels is not None:
            columns.append(labels[:, None])
    return {row.tobytes() for row in np.hstack(columns).astype(float)}


def assert_fair(fingerprints, parts):
    """Rows as they are in the whole set, no row twice, no row and no copy of a row in two parts."""
    rows = np.concatenate([getattr(parts, name).time for name in PARTS])
    assert len(np.unique(rows)) == len(rows)
    together = joined(joined(parts.train, parts.validation), parts.test)
    for field in ("rssi", "position", "floor", "building", "group", "part"):
        values = getattr(fingerprints, field)
        if values is not None:
            np.testing.assert_array_equal(getattr(together, field), values[rows], err_msg=field)
    held = {name: contents(getattr(parts, name)) for name in PARTS}
    for first, second in PAIRS:
        assert not held[first] & held[second], f"{parts.protocol}: {first} and {second} share a fingerprint"


def digest(parts):
    """16 digits of the sha256 of the row numbers that train, validate and test."""
    rows = [getattr(parts, name).time.astype("<i8").tobytes() for name in PARTS]
    return hashlib.sha256(b"|".join(rows)).hexdigest()[:16]


# === Every protocol ===


def test_parts_share_no_row_and_no_copy_of_one(fingerprints, tested_parts, choosing_parts):
    for parts in (*tested_parts.values(), *choosing_parts.values()):
        assert_fair(fingerprints, parts)
        assert len(parts.train) > len(parts.validation) > 0
        assert parts.environment == fingerprints.name
    assert all(len(parts.test) for parts in tested_parts.values())
    assert not any(len(parts.test) for parts in choosing_parts.values())


def test_parts_are_called_as_their_protocol(tested_parts, choosing_parts):
    for name, parts in (tested_parts | choosing_parts).items():
        assert parts.protocol == name.removesuffix("_indoors").removesuffix("_outdoors")


def test_copies_of_test_rows_do_not_train_even_when_half_the_rows_are_copies(fingerprints):
    rng = np.random.default_rng(0)
    copied = fingerprints[rng.integers(len(fingerprints), size=min(len(fingerprints), 3000))]
    assert len(np.unique(copied.copy_id)) < len(copied)
    for parts in (*parts_for_testing(copied).values(), *parts_for_choosing(copied).values()):
        assert_fair(copied, parts)


def test_second_call_gives_the_same_rows(fingerprints, tested_parts, choosing_parts):
    np.random.seed(99)  # noqa: NPY002  (what the global generator is at does not matter)
    again = parts_for_testing(fingerprints) | parts_for_choosing(fingerprints)
    for name, parts in (tested_parts | choosing_parts).items():
        assert digest(parts) == digest(again[name]), name
        assert parts.transmitters == again[name].transmitters


def test_any_random_subset_of_rows_can_be_split(fingerprints):
    rows = np.random.default_rng(3).choice(len(fingerprints), 600, replace=False)
    subset = fingerprints[rows]
    for parts in (*parts_for_testing(subset).values(), *parts_for_choosing(subset).values()):
        assert_fair(subset, parts)


def test_choosing_sees_no_test_row_of_any_protocol_and_no_copy_of_one(fingerprints, tested_parts, choosing_parts):
    test_rows = np.unique(np.concatenate([parts.test.time for parts in tested_parts.values()]))
    test_contents = contents(fingerprints[test_rows])
    for parts in choosing_parts.values():
        rows = joined(parts.train, parts.validation)
        assert not np.intersect1d(rows.time, test_rows).size
        assert not contents(rows) & test_contents
        assert len(rows) > 0.3 * (len(fingerprints) - len(test_rows))


def test_protocols_are_of_environments_that_can_be_loaded():
    environments = {protocol.environment for protocol in (protocols.PROTOCOLS | protocols.CHOOSING).values()}
    assert environments == set(datasets.LOADERS)


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_what_others_are_pre_trained_on_has_nothing_of_the_targets_family(monkeypatch, protocol):
    monkeypatch.setattr(datasets, "at_hand", lambda environment: True)
    named = protocols.PROTOCOLS | protocols.INVENTED
    target = named[protocol].environment
    environments = [named[name].environment for name in protocols.unrelated(protocol)]
    assert len(set(environments)) == len(environments) >= 7
    assert target not in environments
    for family in protocols.FAMILIES:
        if target in family:
            assert not set(family) & set(environments)


def test_environments_that_are_not_at_hand_pre_train_nothing(monkeypatch):
    monkeypatch.setattr(datasets, "at_hand", lambda environment: environment in datasets.INVENTED)
    assert protocols.unrelated("tut1") == tuple(datasets.INVENTED)
    with pytest.raises(ValueError, match=r"`protocol` must be one of pooled, .*Received: nowhere"):
        protocols.unrelated("nowhere")


# === Parts ===


def parts_of(fingerprints, train, validation, test, protocol="mine"):
    rows = (fingerprints[numbers] for numbers in (train, validation, test))
    return Parts(protocol, *rows, transmitters=fingerprints.transmitters)


@pytest.fixture(scope="module")
def different(campus):
    """40 scans, of which none is a copy of another."""
    return campus[np.unique(campus.copy_id, return_index=True)[1][:40]]


SOUND = {"train": np.arange(20), "validation": np.arange(20, 30), "test": np.arange(30, 40)}
NAMES = {"train": "training", "validation": "validation", "test": "test"}


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_row_in_two_parts_is_refused(different, first, second):
    planted = np.append(SOUND[first], SOUND[second][:3])
    expected = f"ujiindoorloc, mine: 3 {NAMES[first]} rows are also {NAMES[second]} rows, or copies of them"
    with pytest.raises(ValueError, match=expected):
        parts_of(different, **SOUND | {first: planted})


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_copy_of_a_row_in_another_part_is_refused(different, first, second):
    """The last row copies the first one of another part, but another phone measured it at another time."""
    twice = different[np.append(np.arange(40), SOUND[first][0])]
    group = twice.group.copy()
    group[-1] += 1
    time = twice.time + np.arange(41).astype("timedelta64[D]")
    twice = dataclasses.replace(twice, group=group, time=time)
    planted = np.append(SOUND[second], 40)
    with pytest.raises(ValueError, match=f"mine: 1 {NAMES[first]} rows are also {NAMES[second]} rows"):
        parts_of(twice, **SOUND | {second: planted})


def test_copies_within_a_part_are_no_leak(different):
    parts = parts_of(different, **SOUND | {"train": np.append(SOUND["train"], [0, 0])})
    assert len(parts.train) == 22


def test_parts_without_training_rows_are_refused(different):
    with pytest.raises(ValueError, match=r"ujiindoorloc, mine: expected training rows\. Received: none"):
        parts_of(different, **SOUND | {"train": []})


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_protocol_may_go_without_validation_or_test_rows(different, name):
    assert not len(getattr(parts_of(different, **SOUND | {name: []}), name))


def test_parts_cannot_be_changed(different):
    with pytest.raises(dataclasses.FrozenInstanceError):
        parts_of(different, **SOUND).train = different


# === Transmitters ===


@pytest.mark.parametrize("rows", [50, 100, 1000])
def test_exactly_98_percent_missing_is_kept_and_one_more_is_not(rows):
    rssi = np.full((rows, 3), np.nan, dtype=np.float32)
    allowed = rows - rows * 98 // 100
    rssi[:allowed, 0] = -70
    rssi[: allowed - 1, 1] = -70
    rssi[:, 2] = -70
    np.testing.assert_array_equal(protocols.select_transmitters(rssi), [True, False, True])


def test_share_of_one_keeps_all_and_of_zero_the_always_heard():
    rssi = np.float32([[-70, np.nan, np.nan], [-70, -80, np.nan]])
    np.testing.assert_array_equal(protocols.select_transmitters(rssi, 1.0), [True, True, True])
    np.testing.assert_array_equal(protocols.select_transmitters(rssi, 0.0), [True, False, False])


@pytest.mark.parametrize("share", [-0.01, 1.01, np.nan])
def test_share_outside_zero_to_one_is_refused(share):
    with pytest.raises(ValueError, match=f"`missing_share` must be between 0 and 1. Received: {share}"):
        protocols.select_transmitters(np.zeros((2, 2)), share)


def test_no_transmitter_left_is_an_error():
    with pytest.raises(ValueError, match=r"no transmitter is heard in more than 2\.0% of 100 rows"):
        protocols.select_transmitters(np.full((100, 4), np.nan))


def kept_on(fingerprints):
    """The names of the transmitters that more than 2 % of the rows hear, counted one by one."""
    heard = np.count_nonzero(~np.isnan(fingerprints.rssi), axis=0)
    rows = len(fingerprints)
    columns = zip(fingerprints.transmitters, heard, strict=True)
    return tuple(name for name, count in columns if 50 * count >= rows)


def test_pooled_lets_the_98_percent_rule_see_all_rows_as_the_paper_did(campus):
    parts = protocols.pooled(campus)
    assert parts.transmitters == kept_on(campus)
    assert 0 < len(parts.transmitters) < len(campus.transmitters)


@pytest.mark.parametrize("part", [protocols.official, protocols.search, protocols.phones])
def test_indoors_the_98_percent_rule_sees_the_rows_that_train_and_validate(campus, part):
    parts = part(campus)
    assert parts.transmitters == kept_on(joined(parts.train, parts.validation))
    assert 0 < len(parts.transmitters) < len(campus.transmitters)


@pytest.mark.parametrize("part", [protocols.random, protocols.spatial, protocols.search])
def test_all_gateways_are_kept(city, part):
    assert part(city).transmitters == city.transmitters


def test_parts_have_all_transmitters_of_the_environment(fingerprints, tested_parts, choosing_parts):
    for parts in (tested_parts | choosing_parts).values():
        assert {getattr(parts, name).transmitters for name in PARTS} == {fingerprints.transmitters}


@pytest.mark.parametrize(("name", "part"), [("campus", protocols.official), ("city", protocols.random)])
def test_test_rows_choose_no_transmitter_and_no_row_to_learn_from(request, name, part):
    """The same set, but for the RSSI of the test rows: strong everywhere, and never a copy of another row."""
    fingerprints = numbered(request.getfixturevalue(name))
    parts = part(fingerprints)
    rssi = fingerprints.rssi.copy()
    rng = np.random.default_rng(0)
    rssi[parts.test.time] = -1.0 - rng.random(parts.test.rssi.shape, dtype=np.float32)
    changed = part(dataclasses.replace(fingerprints, rssi=rssi))
    assert changed.transmitters == parts.transmitters
    for learning in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(changed, learning).time, getattr(parts, learning).time)
    for learning in ("train", "validation"):
        np.testing.assert_array_equal(getattr(changed, learning).rssi, getattr(parts, learning).rssi)


def test_measured_campus_keeps_249_of_both_files_and_248_of_the_training_file(measured_campus):
    assert protocols.select_transmitters(measured_campus.rssi).sum() == 249
    assert protocols.select_transmitters(measured_campus.rssi[measured_campus.part == "train"]).sum() == 248


# === Holding rows out ===


def test_held_out_rows_are_the_share_that_was_asked_for(campus):
    rest, out = protocols.held_out(numbered(campus), 0.3)
    assert len(out) == pytest.approx(0.3 * len(campus), rel=0.1)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest.time, out.time])), np.arange(len(campus)))
    assert not contents(rest) & contents(out)


def test_another_draw_holds_out_other_rows_and_the_same_draw_the_same(campus):
    first, again, second = (protocols.held_out(numbered(campus), 0.3, draw=draw)[1].time for draw in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(np.sort(first), np.sort(second))


def test_whole_groups_are_held_out_with_all_their_rows(campus):
    rest, out = protocols.held_out(campus, 0.5, whole_groups=True)
    assert not set(rest.group) & set(out.group)
    assert len(np.unique(out.group)) == np.ceil(len(np.unique(campus.group)) / 2)
    assert not contents(rest) & contents(out)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, np.nan])
def test_a_share_to_hold_out_of_none_or_all_is_refused(campus, share):
    with pytest.raises(ValueError, match=f"the share to hold out must be between 0 and 1. Received: {share}"):
        protocols.held_out(campus, share)


def test_what_cannot_be_held_out_is_refused(campus, city):
    with pytest.raises(ValueError, match=r"lorawan_antwerp: to hold out whole groups.*Received: rows without"):
        protocols.held_out(city, 0.3, whole_groups=True)
    with pytest.raises(ValueError, match=r"expected two different scans or more.*Received: 1"):
        protocols.held_out(campus[[3, 3, 3]], 0.3)
    one_phone = dataclasses.replace(campus, group=np.zeros(len(campus), dtype=int))
    with pytest.raises(ValueError, match=r"expected two groups or more.*Received: 1"):
        protocols.held_out(one_phone, 0.3, whole_groups=True)
    of_two_phones = dataclasses.replace(campus[[3, 3, 3, 3]], group=np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="all rows are copies of those held out"):
        protocols.held_out(of_two_phones, 0.5, whole_groups=True)


# === pooled ===


def test_pooled_tests_a_fifth_of_both_files(campus):
    parts = protocols.pooled(campus)
    assert len(parts.test) == pytest.approx(0.2 * len(campus), rel=0.1)
    assert len(parts.validation) == pytest.approx(0.1 * (len(parts.train) + len(parts.validation)), rel=0.1)
    assert set(parts.test.part) == set(parts.train.part) == {"train", "validation"}


def test_pooled_uses_every_row(campus):
    parts = protocols.pooled(numbered(campus))
    rows = np.concatenate([getattr(parts, name).time for name in PARTS])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(campus)))


# === official ===


def test_official_trains_on_one_file_and_tests_on_the_other(indoors):
    parts = protocols.official(numbered(indoors))
    np.testing.assert_array_equal(parts.test.time, np.flatnonzero(indoors.part == "validation"))
    assert set(parts.train.part) == set(parts.validation.part) == {"train"}


def test_official_validates_on_phones_that_do_not_train(indoors):
    parts = protocols.official(indoors)
    assert not set(parts.validation.group) & set(parts.train.group)


@pytest.mark.parametrize("field", ["part", "group"])
def test_official_needs_parts_and_phones(campus, field):
    with pytest.raises(ValueError, match=f"ujiindoorloc, official: rows need {field}. Received: rows without"):
        protocols.official(dataclasses.replace(campus, **{field: None}))


def test_official_of_one_phone_cannot_be_validated(campus):
    with pytest.raises(ValueError):
        protocols.official(dataclasses.replace(campus, group=np.zeros(len(campus), dtype=int)))


@pytest.mark.parametrize(("absent", "kept"), [("validation", "train"), ("train", "validation")])
def test_official_without_one_of_the_files_says_which(campus, absent, kept):
    expected = f"ujiindoorloc, official: expected rows of the part `{absent}`. Received: none"
    with pytest.raises(ValueError, match=expected):
        protocols.official(campus[campus.part == kept])


def test_measured_official_split_has_all_rows_of_the_validation_file(measured_campus):
    parts = protocols.official(measured_campus)
    assert len(parts.test) == 1111
    assert len(parts.train) + len(parts.validation) <= 19_937


# === phones ===


def test_phones_are_on_one_side_and_of_the_training_file(indoors):
    parts = protocols.phones(indoors)
    assert set(parts.train.part) == set(parts.validation.part) == {"train"}
    assert not set(parts.validation.group) & set(parts.train.group)


@pytest.mark.parametrize("field", ["part", "group"])
def test_phones_needs_parts_and_phones(campus, field):
    with pytest.raises(ValueError, match=f"ujiindoorloc, phones: rows need {field}"):
        protocols.phones(dataclasses.replace(campus, **{field: None}))


@pytest.mark.parametrize("part", [protocols.official, protocols.phones])
def test_protocols_of_phones_are_refused_where_no_device_is_known(city, part):
    with pytest.raises(ValueError, match=r"lorawan_antwerp, .*: rows need group"):
        part(city)


# === random ===


def test_random_follows_the_published_parts(city):
    parts = protocols.random(numbered(city))
    np.testing.assert_array_equal(parts.test.time, np.flatnonzero(city.part == "test"))
    assert set(parts.train.part) == set(parts.validation.part) == {"val"}
    assert len(parts.validation) == pytest.approx(0.1 * np.sum(city.part == "val"), rel=0.1)


def test_random_without_published_parts_takes_15_percent_twice(city):
    whole = numbered(dataclasses.replace(city, part=None))
    parts = protocols.random(whole)
    assert_fair(whole, parts)
    assert len(parts.test) == pytest.approx(0.15 * len(city), rel=0.05)
    assert len(parts.validation) == pytest.approx(0.15 * len(city), rel=0.05)


def test_random_of_other_parts_than_the_published_ones_is_refused(campus):
    with pytest.raises(ValueError, match=r"ujiindoorloc, random: expected rows of the part `val`. Received: none"):
        protocols.random(campus)


# === spatial ===


def squares(fingerprints, side=500.0):
    return set(map(tuple, np.floor(fingerprints.position / side).tolist()))


def test_spatial_parts_share_no_block(outdoors):
    parts = protocols.spatial(outdoors)
    for first, second in PAIRS:
        assert not squares(getattr(parts, first)) & squares(getattr(parts, second))


def test_spatial_never_tests_or_validates_a_car_park(city):
    parked = city[np.concatenate([np.arange(len(city)), np.zeros(len(city) // 2, dtype=int)])]
    # Not one place: every parked message is a message of its own.
    position = parked.position.copy()
    position[len(city) :] += np.linspace(0, 1, len(city) // 2)[:, None]
    parked = dataclasses.replace(parked, position=position)
    parts = protocols.spatial(numbered(parked))
    depot = np.all(np.floor(position / 500) == np.floor(city.position[0] / 500), axis=1)
    assert depot.sum() > 0.1 * len(parked)
    assert not depot[parts.test.time].any() and not depot[parts.validation.time].any()
    assert depot[parts.train.time].any()


def test_spatial_asks_for_places_farther_away_than_random(city):
    near, far = (
        np.median(protocols.distance_to_training(parts.train, parts.test))
        for parts in (protocols.random(city), protocols.spatial(city))
    )
    assert far > 2 * near


def test_blocks_are_squares_that_start_at_the_origin():
    position = np.array([[0, 0], [499.9, 499.9], [500, 0], [-0.1, 0], [0, -0.1], [499, 1]])
    ids = protocols.blocks(position)
    assert ids[0] == ids[1] == ids[5] and len(set(ids)) == 4
    assert len(set(protocols.blocks(position, side=2000))) == 3


def test_blocks_are_numbered_by_east_then_north(fingerprints):
    expected = np.unique(np.floor(fingerprints.position / 500.0), axis=0, return_inverse=True)[1].ravel()
    np.testing.assert_array_equal(protocols.blocks(fingerprints.position), expected)


def test_distance_to_training_is_that_to_the_nearest_training_position(city):
    parts = protocols.spatial(city)
    difference = parts.test.position[:, None] - parts.train.position
    expected = np.sqrt(np.square(difference).sum(axis=2)).min(axis=1)
    np.testing.assert_allclose(protocols.distance_to_training(parts.train, parts.test), expected)


# === Of environments with one protocol, and of one's own ===


def toy(rows=60):
    """Scans of five beacons in a yard, the last 20 of them the publisher's test rows."""
    rng = np.random.default_rng(0)
    return FingerprintSet(
        rssi=rng.integers(-90, -30, (rows, 5)).astype(np.float32),
        position=rng.uniform(0, 40, (rows, 2)),
        frame=Frame(None),
        transmitters=tuple("abcde"),
        name="toy",
        release=Release("toy", rows, None),
        part=np.repeat(["train", "test"], [rows - 20, 20]),
    )


def test_published_follows_the_publisher_and_validates_nothing():
    yard = numbered(toy())
    parts = protocols.published(yard)
    assert_fair(yard, parts)
    np.testing.assert_array_equal(parts.train.time, np.arange(40))
    np.testing.assert_array_equal(parts.test.time, np.arange(40, 60))
    assert len(parts.validation) == 0 and parts.transmitters == yard.transmitters
    assert parts.protocol == parts.environment == "toy"


def test_published_needs_both_parts():
    yard = toy()
    with pytest.raises(ValueError, match=r"toy, published: rows need part. Received: rows without"):
        protocols.published(dataclasses.replace(yard, part=None))
    with pytest.raises(ValueError, match=r"toy, published: expected rows of the part `test`. Received: none"):
        protocols.published(yard[:40])


def test_published_tests_all_rows_and_trains_no_copy_of_one():
    yard = toy()
    rows = np.arange(60)
    rows[45] = 7
    copied = numbered(dataclasses.replace(yard[rows], part=yard.part))
    parts = protocols.published(copied)
    assert_fair(copied, parts)
    np.testing.assert_array_equal(parts.test.time, np.arange(40, 60))
    np.testing.assert_array_equal(parts.train.time, np.setdiff1d(np.arange(40), [7]))


def test_a_message_names_a_protocol_once_that_is_called_as_its_environment():
    yard = toy()
    with pytest.raises(ValueError, match=r"^toy: 20 training rows are also test rows, or copies of them$"):
        parts_of(yard, np.arange(60), [], np.arange(40, 60), protocol="toy")


def test_fifth_tests_a_fifth_and_validates_nothing():
    yard = numbered(toy())
    parts = protocols.fifth(yard)
    assert_fair(yard, parts)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (48, 0, 12)
    assert parts.transmitters == yard.transmitters


def months():
    """The yard in the library's months 1, 2 and 25: 20 rows each, of which the last 5 test; the last row is a copy."""
    yard = toy()
    time = np.repeat(np.array(["2016-06-10", "2016-07-20", "2018-07-01"], dtype="datetime64[s]"), 20)
    rows = np.arange(60)
    rows[59] = 3
    part = np.tile(np.repeat(["train", "test"], [15, 5]), 3)
    return dataclasses.replace(yard[rows], name="uji_library_longterm", part=part, time=time, group=np.arange(60))


def test_first_month_trains_on_month_1_and_tests_on_a_tenth_of_the_rows_of_all_months():
    library = months()
    parts = protocols.first_month(library)
    np.testing.assert_array_equal(parts.train.group, np.setdiff1d(np.arange(15), [3]))
    assert len(parts.test) == 2
    assert set(parts.test.group) < {*range(15, 20), *range(35, 40), *range(55, 60)}
    assert len(parts.validation) == 0 and parts.protocol == "uji_library_longterm"
    again = protocols.first_month(library)
    np.testing.assert_array_equal(again.test.group, parts.test.group)


def test_first_month_needs_times():
    with pytest.raises(ValueError, match=r"uji_library_longterm, first_month: rows need time. Received: rows without"):
        protocols.first_month(dataclasses.replace(months(), time=None))


def test_rows_of_a_month_are_had_by_part():
    library = months()
    np.testing.assert_array_equal(protocols.of_month(library, 2, "train").group, np.arange(20, 35))
    np.testing.assert_array_equal(protocols.of_month(library, 25, "test").group, np.arange(55, 60))
    with pytest.raises(ValueError, match=r"expected rows of month 3, part `test`. Received: none"):
        protocols.of_month(library, 3, "test")


# === By name ===


@pytest.fixture
def nothing_at_hand(data_folders):
    """No measured file, and no parts that were loaded before."""
    protocols.load.cache_clear()
    yield
    protocols.load.cache_clear()


@pytest.fixture
def small(nothing_at_hand, monkeypatch, campus, city):
    """Smaller sets in the place of the simulated ones."""
    monkeypatch.setenv("DATA", "simulated")
    monkeypatch.setitem(datasets.SIMULATORS, "ujiindoorloc", lambda: numbered(campus))
    monkeypatch.setitem(datasets.SIMULATORS, "lorawan_antwerp", lambda: numbered(city))


@pytest.mark.parametrize(
    ("name", "environment", "part"),
    [
        ("pooled", "campus", protocols.pooled),
        ("official", "campus", protocols.official),
        ("random", "city", protocols.random),
        ("spatial", "city", protocols.spatial),
        ("search_indoors", "campus", protocols.search),
        ("search_outdoors", "city", protocols.search),
        ("phones", "campus", protocols.phones),
    ],
)
def test_a_protocol_is_loaded_with_all_rows_of_its_environment(small, request, name, environment, part):
    fingerprints = request.getfixturevalue(environment)
    loaded = protocols.load(name)
    expected = part(numbered(fingerprints))
    assert loaded.environment == fingerprints.name
    assert digest(loaded) == digest(expected) and loaded.transmitters == expected.transmitters
    assert protocols.load(name) is loaded


def test_a_protocol_of_some_rows_is_that_of_a_random_choice_of_all(small, campus):
    loaded = protocols.load("pooled", rows=300)
    rows = np.concatenate([getattr(loaded, name).time for name in PARTS])
    assert len(rows) == 300
    np.testing.assert_array_equal(np.sort(rows), protocols.some_rows(numbered(campus), 300).time)
    assert digest(loaded) == digest(protocols.pooled(protocols.some_rows(numbered(campus), 300)))
    everything = protocols.load("pooled", rows=10**6)
    assert digest(everything) == digest(protocols.load("pooled"))


@pytest.mark.parametrize("protocol", ["campus", "POOLED", "", "train"])
def test_unknown_protocol_is_named_with_the_known_ones(protocol):
    with pytest.raises(ValueError, match=f"pooled, official, random.*phones.*, or a folder .* Received: {protocol}$"):
        protocols.load(protocol)


def test_some_rows_are_different_ones_in_their_order(city):
    rows = protocols.some_rows(numbered(city), 200).time
    assert len(rows) == 200 and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, protocols.some_rows(numbered(city), 200).time)
    assert not np.array_equal(rows, protocols.some_rows(numbered(city), 200, seed=1).time)
    assert rows.max() > 0.9 * len(city)


def test_some_rows_of_fewer_are_all(city):
    assert protocols.some_rows(city, None) is city
    np.testing.assert_array_equal(protocols.some_rows(city, 10**6).rssi, city.rssi)


@pytest.mark.parametrize(("protocol", "partner"), [("pooled", "random"), ("official", "spatial")])
def test_partners_are_protocols_of_the_two_environments(protocol, partner):
    assert protocols.partner(protocol) == partner and protocols.partner(partner) == protocol
    environments = {protocols.PROTOCOLS[name].environment for name in (protocol, partner)}
    assert environments == {"ujiindoorloc", "lorawan_antwerp"}


@pytest.mark.parametrize(
    ("protocol", "partner"), [("tut1", "random"), ("hcxy", "random"), ("sigfox_rural", "official")]
)
def test_the_partner_of_a_further_environment_is_the_papers_of_the_other_kind(protocol, partner):
    assert protocols.partner(protocol) == partner


def test_a_protocol_without_a_partner_is_named():
    with pytest.raises(ValueError, match=r"`protocol` must be one of .*pooled.*Received: search_indoors"):
        protocols.partner("search_indoors")


# === An environment of one's own ===


@pytest.fixture
def yard(nothing_at_hand, monkeypatch):
    """Another environment and its protocols: two entries, no code of the library changed, no measured file needed."""
    monkeypatch.setitem(datasets.LOADERS, "toy", lambda: numbered(toy()))
    monkeypatch.setitem(protocols.PROTOCOLS, "yard", Protocol("toy", protocols.fifth))
    monkeypatch.setitem(protocols.PROTOCOLS, "yard_published", Protocol("toy", protocols.published))


def test_protocols_of_another_environment_are_loaded_by_name(yard):
    assert digest(protocols.load("yard")) == digest(protocols.fifth(numbered(toy())))
    assert digest(protocols.load("yard_published")) == digest(protocols.published(numbered(toy())))
    parts = protocols.load("yard", rows=30)
    assert parts.environment == "toy" and len(parts.train) + len(parts.test) == 30


def test_choosing_in_another_environment_sees_none_of_its_test_rows(yard, monkeypatch):
    monkeypatch.setitem(protocols.CHOOSING, "search_yard", Protocol("toy", protocols.search))
    parts = protocols.load("search_yard")
    test_rows = np.concatenate([protocols.load(name).test.time for name in ("yard", "yard_published")])
    rows = np.concatenate([parts.train.time, parts.validation.time])
    np.testing.assert_array_equal(np.sort(rows), np.setdiff1d(np.arange(60), test_rows))
    assert len(parts.validation) > 0 and parts.transmitters == tuple("abcde")


def test_a_protocol_is_a_function_of_one_s_own(yard, monkeypatch):
    def northern(fingerprints):
        north = fingerprints.position[:, 1] > 30
        rows = (fingerprints[~north], fingerprints[:0], fingerprints[north])
        return Parts("northern", *rows, transmitters=fingerprints.transmitters)

    monkeypatch.setitem(protocols.PROTOCOLS, "northern", Protocol("toy", northern))
    parts = protocols.load("northern")
    assert parts.test.position[:, 1].min() > 30 >= parts.train.position[:, 1].max()


# === The very rows ===

# sha256 of the row numbers, as int64, that train, validate and test: committed results are of these rows.
MEASURED = {
    "pooled": "3b5b127d4f244d7f",
    "official": "17198b5360f34c37",
    "random": "be8ecec3102ac87e",
    "spatial": "e7e1714374e0811f",
}


def test_measured_splits_are_those_of_the_committed_results(measured_campus, measured_city):
    for fingerprints in (measured_campus, measured_city):
        if len(fingerprints) in (21_048, 16_613):  # the full LoRaWAN release has other rows
            for name, parts in parts_for_testing(fingerprints).items():
                assert digest(parts) == MEASURED[name], name


def test_further_measured_sets_are_split_as_their_protocol_says(measured_library, measured_sigfox):
    parts = protocols.published(measured_library)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (576, 0, 3120)
    parts = protocols.fifth(measured_sigfox)
    assert len(parts.test) == pytest.approx(0.2 * len(measured_sigfox), rel=0.05)


def test_measured_sets_with_a_publishers_split_keep_all_of_its_rows(measured_tampere, measured_offices):
    for name, fingerprints in (measured_tampere | measured_offices).items():
        parts = protocols.PROTOCOLS[name].part(fingerprints)
        assert (parts.protocol, len(parts.validation)) == (name, 0)
        assert len(parts.train) + len(parts.test) == len(fingerprints)


@pytest.mark.slow  # the months take seconds to load
def test_measured_library_trains_on_its_first_month(measured_months):
    parts = protocols.first_month(measured_months)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (8_634, 0, 8_112)
    later = protocols.of_month(measured_months, 25, "train")
    assert len(later) == 1_152 and later.time.min() > parts.train.time.max()
