"""Scans and fingerprints as users have them: the same scan is the same in every form, and what is none is refused."""

import datetime
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.data import reading, simulate
from lib.data.frames import Frame
from lib.data.reading import matrix

KNOWN = ("a", "b", "c", "scan", "x")  # also names that columns of tables have
NAMES = st.sampled_from(("a", "b", "c", "d", "unheard of", "7"))
LEVELS = st.one_of(st.integers(-160, 0), st.floats(-160, 0, width=32), st.just(np.nan), st.none())
SCANS = st.lists(st.dictionaries(NAMES, LEVELS, max_size=6), max_size=8)
IMPOSSIBLE = st.one_of(
    st.integers(1),
    st.integers(max_value=-161),
    st.floats(min_value=0, exclude_min=True),
    st.floats(max_value=-161),
    st.text(),
    st.booleans(),
    st.just(1j),
    st.datetimes(),
    st.lists(st.integers(), max_size=2),
    st.binary(),
)


def as_wide(dicts, order=None, dtype=None):
    names = order or sorted({name for scan in dicts for name in scan})
    rows = [{name: scan.get(name) for name in names} for scan in dicts]
    return pd.DataFrame(rows, columns=names, dtype=dtype)


def as_long(dicts, dtype=None):
    rows = []
    for number, scan in enumerate(dicts):
        rows += [(number, name, level) for name, level in scan.items()] or [(number, None, None)]
    return pd.DataFrame(rows, columns=list(reading.LONG), dtype=dtype)


def equal(scans, expected):
    np.testing.assert_array_equal(scans.rssi, expected.rssi)
    np.testing.assert_array_equal(scans.unknown, expected.unknown)
    assert list(scans.index) == list(expected.index)
    assert scans.rssi.dtype == np.float32


# === The same in every form ===


@given(SCANS, st.permutations(("a", "b", "c", "d", "unheard of", "7")))
def test_a_scan_is_the_same_in_every_form_and_order(dicts, order):
    expected = matrix(dicts, KNOWN)
    assert expected.rssi.shape == (len(dicts), len(KNOWN))
    for table in (as_wide(dicts), as_wide(dicts, list(order)), as_wide(dicts, dtype=object)):
        equal(matrix(table, KNOWN), expected)
    equal(matrix(as_long(dicts), KNOWN), expected)
    equal(matrix(tuple(dict(reversed(scan.items())) for scan in dicts), KNOWN), expected)


@given(SCANS, st.sampled_from((100, -200, -110, "", "none")))
def test_a_declared_marker_is_not_heard(dicts, marker):
    absent = [{name: None if level == marker else level for name, level in scan.items()} for scan in dicts]
    marked = [{name: marker if level is None else level for name, level in scan.items()} for scan in absent]
    expected = matrix(absent, KNOWN)
    for form in (marked, as_long(marked), as_wide(marked)):
        equal(matrix(form, KNOWN, not_heard=(marker,)), expected)


def test_values_and_counts_of_a_small_example():
    scans = matrix([{"b": -60, "d": -70.5, "a": np.nan}, {}, {"c": np.float32(-3), "e": None}], ("a", "b", "c"))
    np.testing.assert_array_equal(scans.rssi, [[np.nan, -60, np.nan], [np.nan] * 3, [np.nan, np.nan, -3]])
    assert scans.unknown.tolist() == [1, 0, 0]


def test_a_column_scan_names_the_scans_and_places_are_no_transmitters():
    table = pd.DataFrame(
        {"scan": ["one", "two"], "x": [-3.0, -4.0], "floor": [0, -1], "a": [-50, -60], "z": [-1, None]}
    )
    scans = matrix(table, ("a",))
    assert list(scans.index) == ["one", "two"] and scans.unknown.tolist() == [1, 0]


def test_what_an_unknown_transmitter_holds_does_not_matter():
    scans = matrix([{"a": -50, "note": "kitchen", "z": 100}], ("a",))
    assert scans.unknown.tolist() == [0] and scans.rssi.tolist() == [[-50]]


def test_long_table_keeps_the_order_in_which_scans_come():
    table = pd.DataFrame({"scan": [9, 2, 9], "transmitter": ["a", "a", "b"], "rssi": [-1, -2, -3]})
    scans = matrix(table, ("a", "b"))
    assert list(scans.index) == [9, 2]
    np.testing.assert_array_equal(scans.rssi, [[-1, -3], [-2, np.nan]])


# === What is refused ===


@given(SCANS.filter(bool), IMPOSSIBLE, st.data())
def test_an_impossible_value_is_refused_in_every_form(dicts, value, data):
    if isinstance(value, float) and np.isnan(value):
        return
    number = data.draw(st.integers(0, len(dicts) - 1))
    spoilt = [dict(scan) for scan in dicts]
    spoilt[number]["b"] = value
    for form in (spoilt, as_long(spoilt, object), as_wide(spoilt, dtype=object)):
        with pytest.raises(
            ValueError, match=rf"scan {number}, transmitter b: expected RSSI from -160 to 0 dBm.*Received"
        ):
            matrix(form, KNOWN)


@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.just("a"), st.dates()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.sampled_from([*KNOWN, *reading.LONG, 3]), inner)),
    )
)
def test_anything_is_refused_or_in_range(thing):
    forms = [thing]
    if isinstance(thing, list) and all(isinstance(row, dict) for row in thing):
        forms.append(pd.DataFrame(thing))
    for form in forms:
        try:
            rssi = matrix(form, KNOWN).rssi
        except ValueError as problem:
            assert str(problem)
        else:
            assert isinstance(form, list | pd.DataFrame)
            assert (np.isnan(rssi) | ((rssi >= -160) & (rssi <= 0))).all()


@pytest.mark.parametrize(
    "wrong", [None, 5, "a", {"a": -60}, np.zeros((2, 3)), {-60}, iter(())], ids=lambda value: type(value).__name__
)
def test_other_shapes_are_refused(wrong):
    with pytest.raises(ValueError, match=f"a list of dicts. Received: {type(wrong).__name__}"):
        matrix(wrong, KNOWN)


@pytest.mark.parametrize("wrong", [[-60, -70], None, "a", {"a", "b"}])
def test_a_list_of_something_else_is_refused_by_its_number(wrong):
    with pytest.raises(
        ValueError, match=f"scan 1: expected a dict of RSSI by transmitter. Received: {type(wrong).__name__}"
    ):
        matrix([{}, wrong], KNOWN)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((3, "a", -50), "scan 3: expected each transmitter once. Received twice: a"),
        ((3, "z", -50), "scan 3: expected each transmitter once. Received twice: z"),
        ((None, "a", -50), "row 2: expected a name in the column scan"),
        ((4, None, -50), "row 2: expected a name in the column transmitter"),
        ((4, "", -50), "row 2: expected a name in the column transmitter"),
        (([4], "a", -50), "column scan: expected numbers or text"),
        ((4, "a", "-50"), "scan 4, transmitter a: expected RSSI .* Received: '-50'"),
    ],
)
def test_a_wrong_row_of_a_long_table_is_named(row, message):
    table = pd.DataFrame([(3, "a", -60), (3, "z", -61), row], columns=list(reading.LONG), dtype=object)
    with pytest.raises(ValueError, match=message):
        matrix(table, ("a", "b"))


def test_names_that_occur_twice_are_refused():
    for twice in (
        lambda: matrix(pd.DataFrame([[-1, -2]], columns=["a", "a"]), KNOWN),
        lambda: matrix(pd.DataFrame([[1, "a", -2, -3]], columns=[*reading.LONG, "rssi"]), KNOWN),
        lambda: matrix([{1: -50, "1": -60}], ("1",)),
        lambda: matrix([], ("a", "a")),
    ):
        with pytest.raises(ValueError, match="twice: "):
            twice()


# === Files ===


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        path = tmp_path / "mine.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to_file


def test_scans_in_files_are_the_same_in_both_forms(write):
    wide = reading.read_scans(write("scan,a,NA,b\nfirst,-50,,-60.5\nsecond,,-70,\n"))
    long = reading.read_scans(write("rssi,scan,transmitter\n-60.5,first,b\n-50,first,a\n-70,second,NA\n"))
    equal(matrix(wide, ("a", "b", "NA")), matrix(long, ("a", "b", "NA")))
    assert list(matrix(long, ("a",)).index) == ["first", "second"]


def test_the_form_of_a_file_can_be_demanded(write):
    path = write("a,b\n-50,-60\n")
    assert list(reading.read_scans(path, "wide").columns) == ["a", "b"]
    with pytest.raises(ValueError, match=r"expected the columns scan, transmitter, rssi. Received: a, b"):
        reading.read_scans(path, "long")


def test_a_value_in_a_file_is_shown_as_it_stands(write):
    table = reading.read_scans(write("a,b\n-50,-60\n-51,weak\n"))
    with pytest.raises(ValueError, match=r"scan 1, transmitter b: .*Received: 'weak'"):
        matrix(table, ("a", "b"))
    assert matrix(table, ("a", "b"), not_heard=("weak",)).rssi[0].tolist() == [-50, -60]


def test_fingerprints_in_metres(write):
    path = write(
        "x,y,floor,building,time,device,AP1,AP2\n1,2,-1,0,2024-05-01 10:00,p1,-50,\n3.5,4,2,1,2024-05-02,p2,,100\n"
    )
    read = reading.read_fingerprints(path, "office", not_heard=(100,))
    assert read.name == "office" and read.transmitters == ("AP1", "AP2") and read.frame == Frame(None)
    np.testing.assert_array_equal(read.rssi, [[-50, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(read.position, [[1, 2], [3.5, 4]])
    assert read.floor.tolist() == [-1, 2] and read.building.tolist() == [0, 1] and read.group.tolist() == ["p1", "p2"]
    assert read.time[0] == np.datetime64(datetime.datetime(2024, 5, 1, 10))
    assert read.release.rows == 2 and not read.release.simulated
    assert np.isnan(read.frame.to_degrees(read.position)).all()
    with pytest.raises(ValueError, match="no place on earth"):
        read.frame.from_degrees(np.zeros((1, 2)))


def test_fingerprints_with_a_prefix_ignore_other_columns(write):
    read = reading.read_fingerprints(write("x,y,WAP1,note\n1,2,-50,hello\n"), "office", prefix="WAP")
    assert read.transmitters == ("WAP1",)


@pytest.mark.parametrize("made", [simulate.campus(40, 20, 12), simulate.city(30, 20)], ids=lambda made: made.name)
def test_fingerprints_come_back_from_the_table_that_was_made_of_them(made, write):
    read = reading.read_fingerprints(write(reading.table_of(made).to_csv(index=False)), made.name)
    np.testing.assert_array_equal(read.rssi, made.rssi)
    back = made.frame.from_degrees(read.frame.to_degrees(read.position))
    np.testing.assert_allclose(back, made.position, atol=1e-5)
    for field in ("floor", "building", "time"):
        np.testing.assert_array_equal(getattr(read, field), getattr(made, field))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a CSV with a header"),
        ("x;y;a\n1,5;2,5;-50\n", "expected commas between columns. Received: x;y;a"),
        ("x\ty\ta\n1\t2\t-50\n", "expected commas between columns"),
        (b"x,y,a\n\xff\xfe,1,2\n", "expected a CSV with a header"),
        ("x,y\n1,2\n", "expected a column for each transmitter"),
        ("x,y,a\n", "expected at least one row"),
        ("x,a\n1,-50\n", "expected columns x, y or latitude, longitude. Received: x, a"),
        ("x,y,latitude,longitude,a\n1,2,3,4,-50\n", "expected columns x, y or latitude, longitude"),
        ("x,y,a,a\n1,2,-50,-60\n", "expected each column once. Received twice: a"),
        ("x,y,a\n1,2,\n3,4,\n", "no transmitter is heard in any row"),
        ("x,y,a\n1,2,-50\n1,,-50\n", "line 3, column y: expected a number. Received: nan"),
        ("x,y,a\n1,2,-50\nhere,2,-50\n", "line 3, column x: expected a number. Received: 'here'"),
        ("latitude,longitude,a\n91,2,-50\n", "line 2, column latitude: expected a number of at most ±90. Received: 91"),
        ("latitude,longitude,a\n9,-200,-50\n", "line 2, column longitude: expected a number of at most ±180"),
        ("x,y,floor,a\n1,2,0.5,-50\n", "line 2, column floor: expected a whole number. Received: 0.5"),
        ("x,y,building,a\n1,2,B,-50\n", "line 2, column building: expected a whole number. Received: 'B'"),
        ("x,y,time,a\n1,2,yesterday?,-50\n", r"line 2, column time: expected a date and time. Received: 'yesterday\?'"),
        ("x,y,a\n1,2,-50\n1,2,100\n", "line 3, transmitter a: expected RSSI .* Received: 100"),
        ("x,y,a\n1,2,-50\n1,2,-200\n", "line 3, transmitter a: expected RSSI .* Received: -200"),
        ("x,y,a\n1,2,-50\n1,2,-50,7\n", "expected a CSV with a header"),
        ("x,y,a\n1,2,-50,7\n", "expected a CSV with a header"),
    ],
)  # fmt: skip
def test_wrong_files_of_fingerprints_are_refused_by_file_line_and_column(write, text, message):
    path = write(text)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: .*{message}"):
        reading.read_fingerprints(path, "office")


@given(st.text(alphabet='xya,\n-5.0"é;1e'))
def test_any_text_is_refused_or_read(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "mine.csv"
    path.write_text("x,y,a\n" + text)
    try:
        read = reading.read_fingerprints(path, "office")
    except ValueError as problem:
        assert str(path) in str(problem)
    else:
        assert np.isfinite(read.position).all()
