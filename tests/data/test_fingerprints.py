"""Scans by transmitter name, FingerprintSets with rows that stay together."""

import dataclasses

import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.data import fingerprints
from lib.data.fingerprints import FingerprintSet, Release, Scans
from lib.data.frames import Frame

ROWS = 6
PER_ROW = ("rssi", "position", "floor", "building", "group", "part", "time")


def fingerprint_set(**changes) -> FingerprintSet:
    number = np.arange(ROWS)
    fields = {
        "rssi": np.float32([[-50 - i, np.nan, -90] for i in number]),
        "position": np.column_stack([number * 10.0, number * -1.0]),
        "frame": Frame("EPSG:3857", (-7692.0, 4864745.0), 0.766),
        "transmitters": ("WAP001", "WAP002", "WAP003"),
        "name": "ujiindoorloc",
        "release": Release("made.csv", ROWS, "0" * 64),
        "floor": number % 3,
        "building": number % 2,
        "group": number + 100,
        "part": np.array(["train", "validation"] * 3),
        "time": np.datetime64("2013-05-30T10:15", "s") + number.astype("timedelta64[h]"),
    }
    return FingerprintSet(**fields | changes)


# === Scans ===

NAMES = ("a", "b", "c")
HEARD = Scans(np.float32([[-50, np.nan, -70], [-51, -61, np.nan]]), NAMES)


def test_scans_are_taken_by_transmitter_name_in_any_order():
    np.testing.assert_array_equal(HEARD.of(("c", "a")), np.float32([[-70, -50], [np.nan, -51]]))
    np.testing.assert_array_equal(HEARD.of(["b", "c", "a"]), HEARD.rssi[:, [1, 2, 0]])
    np.testing.assert_array_equal(HEARD.of(NAMES), HEARD.rssi)


def test_a_transmitter_that_the_scans_do_not_name_is_not_heard():
    rssi = HEARD.of(("z", "b", "Z"))
    np.testing.assert_array_equal(rssi, np.float32([[np.nan, np.nan, np.nan], [np.nan, -61, np.nan]]))
    assert rssi.dtype == np.float32
    assert HEARD.of(()).shape == (2, 0)


@given(st.permutations(range(12)), st.integers(0, 12), st.integers(0, 4))
def test_scans_of_any_names_agree_with_a_look_up_value_by_value(order, named, unknown):
    rssi = np.random.default_rng(0).integers(-100, -30, (5, 12)).astype(np.float32)
    scans = Scans(rssi, tuple(f"AP{number}" for number in range(12)))
    asked = [f"AP{number}" for number in order[:named]] + [f"unknown {number}" for number in range(unknown)]
    taken = scans.of(asked)
    assert taken.shape == (5, named + unknown)
    for column, number in enumerate(order[:named]):
        np.testing.assert_array_equal(taken[:, column], rssi[:, number])
    assert np.isnan(taken[:, named:]).all()


@pytest.mark.parametrize("rows", [slice(1, None), np.array([False, True]), np.array([1, 1, 0]), []])
def test_indexing_scans_takes_rows_and_keeps_the_names(rows):
    chosen = HEARD[rows]
    assert isinstance(chosen, Scans) and chosen.transmitters == NAMES
    np.testing.assert_array_equal(chosen.rssi, HEARD.rssi[rows])
    assert len(chosen) == len(HEARD.rssi[rows])


def test_scans_hear_what_is_not_nan():
    np.testing.assert_array_equal(HEARD.heard, [[True, False, True], [True, True, False]])


@pytest.mark.parametrize("rssi", [np.zeros((2, 2)), np.zeros(3), np.zeros((2, 3, 1))])
def test_scans_of_another_shape_are_refused_with_both_shapes(rssi):
    with pytest.raises(ValueError, match=r"`rssi` must have shape \(\d, 3\)\. Received: \("):
        Scans(rssi, NAMES)


def test_a_transmitter_that_occurs_twice_is_refused_by_its_name():
    with pytest.raises(ValueError, match=r"`transmitters` must differ\. Received twice: b"):
        Scans(np.zeros((2, 3), dtype=np.float32), ("b", "a", "b"))


def test_scans_of_fingerprints_have_no_positions():
    whole = fingerprint_set()
    np.testing.assert_array_equal(whole.scans.rssi, whole.rssi)
    assert whole.scans.transmitters == whole.transmitters
    assert not hasattr(whole.scans, "position")


TOWN = Scans(np.float32([[-90, -80]]), ("t", "b"))  # one name is that of a transmitter of HEARD


def test_names_of_several_sets_are_those_of_the_first_and_then_what_is_new():
    assert fingerprints.names_of([HEARD, TOWN]) == ("a", "b", "c", "t")
    assert fingerprints.names_of([TOWN, HEARD]) == ("t", "b", "a", "c")
    assert fingerprints.names_of([fingerprint_set(), TOWN]) == ("WAP001", "WAP002", "WAP003", "t", "b")
    assert fingerprints.names_of([]) == ()


def test_scans_in_common_have_the_transmitters_of_all_and_hear_nothing_elsewhere():
    together = fingerprints.in_common([HEARD, TOWN])
    nothing = np.nan
    expected = [[-50, nothing, -70, nothing], [-51, -61, nothing, nothing], [nothing, -80, nothing, -90]]
    assert together.transmitters == ("a", "b", "c", "t")
    np.testing.assert_array_equal(together.rssi, np.float32(expected))
    assert together.rssi.dtype == np.float32


def test_scans_in_common_of_one_environment_are_its_own():
    alone = fingerprints.in_common([HEARD])
    np.testing.assert_array_equal(alone.rssi, HEARD.rssi)
    assert alone.transmitters == NAMES


# === Rows ===


@pytest.mark.parametrize(
    "rows",
    [
        slice(1, 4),
        slice(None, None, -2),
        np.array([True, False, False, True, True, False]),
        np.array([5, 0, 0, -1]),
        [2, 3],
        np.array([], dtype=int),
    ],
)
def test_indexing_takes_the_same_rows_of_every_field(rows):
    whole = fingerprint_set()
    chosen = whole[rows]
    assert isinstance(chosen, FingerprintSet)
    for field in PER_ROW:
        np.testing.assert_array_equal(getattr(chosen, field), getattr(whole, field)[rows], err_msg=field)
    assert len(chosen) == len(np.arange(ROWS)[rows])
    for field in ("frame", "transmitters", "name", "release"):
        assert getattr(chosen, field) == getattr(whole, field)


@pytest.mark.parametrize("absent", [{}, {"floor": None, "building": None}])
def test_parts_of_a_set_join_to_the_whole(absent):
    whole = fingerprint_set(**absent)
    together = fingerprints.joined(whole[:4], whole[4:])
    for field in PER_ROW:
        np.testing.assert_array_equal(getattr(together, field), getattr(whole, field), err_msg=field)


def test_indexing_leaves_absent_fields_absent():
    chosen = fingerprint_set(floor=None, building=None, group=None, part=None, time=None)[:2]
    assert [getattr(chosen, field) for field in PER_ROW[2:]] == [None] * 5


def test_scans_in_another_order_than_the_set_are_its_columns_by_name():
    whole = fingerprint_set()
    np.testing.assert_array_equal(whole.scans.of(whole.transmitters[::-1]), whole.rssi[:, ::-1])


def test_a_set_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        fingerprint_set().rssi = np.zeros((ROWS, 3))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rssi", np.zeros((ROWS, 2))),
        ("rssi", np.zeros(ROWS)),
        ("position", np.zeros((ROWS, 3))),
        ("position", np.zeros((ROWS - 1, 2))),
        ("floor", np.zeros(ROWS + 1)),
        ("building", np.zeros((ROWS, 1))),
        ("group", np.zeros(0)),
        ("part", np.array(["train"])),
        ("time", np.zeros(2, "datetime64[s]")),
    ],
)
def test_a_field_of_another_shape_is_named_with_both_shapes(field, value):
    expected = {"rssi": (len(value), 3), "position": (ROWS, 2)}.get(field, (ROWS,))
    with pytest.raises(ValueError, match=f"ujiindoorloc: `{field}` must have shape") as raised:
        fingerprint_set(**{field: value})
    assert str(expected) in str(raised.value) and f"Received: {np.shape(value)}" in str(raised.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_position_that_is_not_finite_is_refused(value):
    position = np.zeros((ROWS, 2))
    position[3, 1] = value
    with pytest.raises(ValueError, match="`position` must be finite"):
        fingerprint_set(position=position)


def test_heard_is_what_is_not_nan():
    made = fingerprint_set()
    np.testing.assert_array_equal(made.heard, np.tile([True, False, True], (ROWS, 1)))
    assert made.heard_values.shape == (2 * ROWS,) and not np.isnan(made.heard_values).any()


@pytest.mark.parametrize("level", [-105.0, -128.0])
def test_the_level_of_not_heard_is_that_of_the_loader_whatever_the_rows_hold(level):
    whole = fingerprint_set(not_heard=level)
    assert whole.not_heard_dbm == whole[:1].not_heard_dbm == whole[:0].not_heard_dbm == level
    assert fingerprints.joined(whole[:2], whole[2:]).not_heard_dbm == level


def test_without_a_loader_s_level_not_heard_is_1_db_below_the_weakest_of_the_rows():
    rssi = np.float32([[-50, np.nan], [-97, np.nan], [np.nan, -93.5]])
    rows = np.arange(3)
    made = fingerprint_set()[rows]
    whole = dataclasses.replace(made, rssi=rssi, transmitters=("a", "b"))
    assert whole.not_heard is None
    assert whole.not_heard_dbm == -98
    assert whole[[0, 2]].not_heard_dbm == -94.5


@pytest.mark.parametrize("rows", [0, 3])
def test_without_a_level_and_without_a_heard_transmitter_there_is_none(rows):
    silent = fingerprint_set(rssi=np.full((ROWS, 3), np.nan, dtype=np.float32))[:rows]
    expected = f"ujiindoorloc: expected rows that hear a transmitter. Received: {rows} that do not"
    with pytest.raises(ValueError, match=expected):
        _ = silent.not_heard_dbm


def test_a_release_reads_as_its_file_and_its_rows():
    assert str(Release("trainingData.csv", 19937, "0" * 64)) == "trainingData.csv (19,937 rows)"
    assert f"{Release('made', 3, None)}" == "made (3 rows)"


def test_only_a_release_without_checksum_is_simulated():
    assert Release("campus", 3, None).simulated and not Release("file.csv", 3, "0" * 64).simulated


# === Copies and places ===


def test_copies_are_equal_in_rssi_position_floor_and_building():
    first = fingerprint_set()[[0] * ROWS]
    assert len(set(first.copy_id)) == 1
    for field, value in (("rssi", -51), ("rssi", np.nan), ("position", 0.001), ("floor", 1), ("building", 1)):
        changed = getattr(first, field).copy()
        changed[2] = value
        ids = dataclasses.replace(first, **{field: changed}).copy_id
        assert len(set(np.delete(ids, 2))) == 1 and ids[2] not in np.delete(ids, 2), field


def test_device_part_and_time_do_not_make_a_copy_another_fingerprint():
    made = fingerprint_set()
    same = made[[0] * ROWS]
    assert len(set(dataclasses.replace(same, group=made.group, part=made.part, time=made.time).copy_id)) == 1


@pytest.mark.parametrize(
    "rows", [slice(1, 5, 2), np.arange(ROWS) % 2 == 0, np.array([5, 0, 0]), np.array([], dtype=int)]
)
def test_chosen_rows_have_the_hash_that_they_had_in_the_whole_set(rows):
    whole = fingerprint_set()
    chosen = whole[rows]  # before the whole set was hashed: hashes the chosen rows themselves
    expected = chosen.copy_hash
    np.testing.assert_array_equal(expected, whole.copy_hash[rows])
    np.testing.assert_array_equal(whole[rows].copy_hash, expected)  # after it: takes over what is known


def test_the_hash_of_changed_rows_is_not_that_of_the_rows_before():
    whole = fingerprint_set()
    before = whole.copy_hash
    moved = dataclasses.replace(whole, position=whole.position + 1)
    assert not np.isin(moved.copy_hash, before).any()
    assert not np.isin(moved[:3].copy_hash, before).any()


def test_copies_in_different_sets_have_the_same_hash():
    whole = fingerprint_set()
    later = dataclasses.replace(whole[::-1], group=np.zeros(ROWS, dtype=int), release=Release("later.csv", ROWS, None))
    np.testing.assert_array_equal(later.copy_hash, whole.copy_hash[::-1])


@given(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=30))
def test_copies_share_a_number_and_nothing_else_does(rows):
    ids = fingerprint_set()[rows].copy_id
    np.testing.assert_array_equal(np.equal.outer(ids, ids), np.equal.outer(rows, rows))


def test_places_are_equal_in_position_floor_and_building_whatever_was_heard():
    made = fingerprint_set()
    rows = np.array([0, 1, 0, 2, 1, 0])
    rssi = np.full((ROWS, 3), np.arange(ROWS)[:, None], dtype=np.float32)
    ids = dataclasses.replace(made[rows], rssi=rssi).place_id
    np.testing.assert_array_equal(np.equal.outer(ids, ids), np.equal.outer(rows, rows))
    upstairs = dataclasses.replace(made[[0] * ROWS], floor=np.array([0, 0, 0, 1, 1, 1]))
    np.testing.assert_array_equal(upstairs.place_id, upstairs.floor)


def test_copies_are_numbered_by_their_hash_however_few_rows_are_hashed_at_once(campus, monkeypatch):
    """The splits draw by these numbers: another numbering is another split."""
    columns = np.column_stack([np.nan_to_num(campus.rssi, nan=1.0), campus.position])
    hashed = pd.util.hash_pandas_object(pd.DataFrame(columns).assign(f=campus.floor, b=campus.building), index=False)
    monkeypatch.setattr(fingerprints, "LEAST_ROWS", 70)
    monkeypatch.setattr(fingerprints, "VALUES_AT_ONCE", 1)
    numbers = dataclasses.replace(campus).copy_id
    np.testing.assert_array_equal(numbers, np.unique(hashed, return_inverse=True)[1])


# === Memory ===


@given(st.integers(0, 9000), st.lists(st.integers(0, 3000), max_size=2))
def test_blocks_cover_every_row_once_and_are_bounded(rows, columns):
    blocks = [np.arange(rows)[block] for block in fingerprints.row_blocks((rows, *columns))]
    np.testing.assert_array_equal(np.concatenate([*blocks, []]), np.arange(rows))
    for block in blocks:
        assert len(block) <= 1024 or len(block) * np.prod(columns) <= 2**20


def test_a_radio_map_larger_than_the_memory_is_refused_with_both_sizes_and_what_to_do(monkeypatch):
    monkeypatch.setattr(fingerprints, "available_memory", lambda: 8_000_000_000)
    with pytest.raises(MemoryError) as raised:
        fingerprints.require_memory(1_000_000, 10_000)
    for text in ("1,000,000 rows × 10,000 transmitters", "40.0 GB", "8.0 GB", "fewer rows or fewer transmitters"):
        assert text in str(raised.value)
    fingerprints.require_memory(1_000_000, 1000, copies=2)
    with pytest.raises(MemoryError, match=r"need 12\.0 GB"):
        fingerprints.require_memory(1_000_000, 1000, copies=3)


def test_scans_that_do_not_fit_in_memory_are_refused_before_they_are_put_together(monkeypatch):
    """The two sets are there, in this test without taking any room, but there is none for what they become."""
    monkeypatch.setattr(fingerprints, "available_memory", lambda: 10_000_000_000)
    rssi = np.broadcast_to(np.float32(-70), (500_000, 5000))
    indoors = Scans(rssi, tuple(f"WAP{number}" for number in range(5000)))
    outdoors = Scans(rssi, tuple(f"BS {number}" for number in range(5000)))
    with pytest.raises(MemoryError, match="1,000,000 rows × 10,000 transmitters"):
        fingerprints.in_common([indoors, outdoors])
    with pytest.raises(MemoryError, match="500,000 rows × 10,000 transmitters"):
        indoors.of(indoors.transmitters + outdoors.transmitters)


def test_the_limit_of_a_container_counts_where_it_is_the_smaller(tmp_path, monkeypatch):
    files = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    monkeypatch.setattr(fingerprints, "CONTAINER_LIMITS", files)
    of_machine = fingerprints.available_memory()
    assert 0 < of_machine < psutil.virtual_memory().total
    files[0].write_text("max\n")
    files[1].write_text("9223372036854771712\n")
    assert fingerprints.available_memory() == pytest.approx(of_machine, rel=0.2)
    limit = psutil.Process().memory_info().rss + 50_000_000
    files[1].write_text(f"{limit}\n")
    assert fingerprints.available_memory() == pytest.approx(45_000_000, rel=0.5)
    files[0].write_text("1\n")
    assert fingerprints.available_memory() == 0
