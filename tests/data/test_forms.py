"""Scans as programs have them: the same scan is the same in every form, and what is none is refused."""

import decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.data import forms
from lib.data.forms import Rules
from lib.data.names import Spellings, canonical

KNOWN = ("a", "b", "c", "scan", "x")  # also names that columns of tables have
LONG = ("scan", "transmitter", "rssi")
NAMES = st.sampled_from(("a", "b", "c", "d", "unheard of", "7"))
LEVELS = st.one_of(st.integers(-160, 0), st.floats(-160, 0, width=32), st.just(np.nan), st.none())
SCANS = st.lists(st.dictionaries(NAMES, LEVELS, max_size=6), max_size=8)
IMPOSSIBLE = st.one_of(
    st.integers(1),
    st.integers(max_value=-161),
    st.floats(min_value=1e-30),
    st.floats(max_value=-161),
    st.sampled_from(("weak", "5", "-161", "?", "- 50")),
    st.booleans(),
    st.just(1j),
    st.datetimes(),
    st.lists(st.integers(), min_size=1, max_size=3),
    st.binary(),
)


def matrix(scans, transmitters, **rules):
    return forms.matrix(scans, Spellings(transmitters), Rules(**rules))


def as_wide(dicts, order=None, dtype=None):
    names = order or sorted({name for scan in dicts for name in scan})
    rows = [{name: scan.get(name) for name in names} for scan in dicts]
    return pd.DataFrame(rows, columns=names, dtype=dtype)


def as_long(dicts, dtype=None):
    rows = []
    for number, scan in enumerate(dicts):
        rows += [(number, name, level) for name, level in scan.items()] or [(number, None, None)]
    return pd.DataFrame(rows, columns=list(LONG), dtype=dtype)


def equal(scans, expected):
    np.testing.assert_array_equal(scans.rssi, expected.rssi)
    np.testing.assert_array_equal(scans.unknown, expected.unknown)
    assert list(scans.names) == list(expected.names)
    assert scans.rssi.dtype == np.float32


# === The same in every form ===


@given(SCANS, st.permutations(("a", "b", "c", "d", "unheard of", "7")))
def test_a_scan_is_the_same_in_every_form_and_order(dicts, order):
    expected = matrix(dicts, KNOWN)
    assert expected.rssi.shape == (len(dicts), len(KNOWN))
    for table in (as_wide(dicts, list(order)), as_wide(dicts, ["b", "d", "a", "c", "7", "unheard of"], object)):
        equal(matrix(table, KNOWN), expected)
        equal(matrix({name: list(column) for name, column in table.items()}, KNOWN), expected)
    equal(matrix(as_long(dicts), KNOWN), expected)
    equal(matrix(tuple(dict(reversed(scan.items())) for scan in dicts), KNOWN), expected)


@given(SCANS, st.sampled_from((100, -200, -110, "", "none")))
def test_a_declared_marker_is_not_heard(dicts, marker):
    absent = [{name: None if level == marker else level for name, level in scan.items()} for scan in dicts]
    marked = [{name: marker if level is None else level for name, level in scan.items()} for scan in absent]
    expected = matrix(absent, KNOWN)
    for form in (marked, as_long(marked), as_wide(marked, ["a", "b", "c", "d", "7", "unheard of"])):
        equal(matrix(form, KNOWN, not_heard=(marker,)), expected)


def test_values_and_counts_of_a_small_example():
    scans = matrix([{"b": -60, "d": -70.5, "a": np.nan}, {}, {"c": np.float32(-3), "e": None}], ("a", "b", "c"))
    np.testing.assert_array_equal(scans.rssi, [[np.nan, -60, np.nan], [np.nan] * 3, [np.nan, np.nan, -3]])
    assert scans.unknown.tolist() == [1, 0, 0]


def test_a_column_scan_names_the_scans_and_places_are_no_transmitters():
    table = pd.DataFrame(
        {"scan": ["one", "two"], "x": [-3.0, -4.0], "floor": [0, -1], "a": [-50, -60], "q": [-1, None], "snr": [-2, -3]}
    )
    scans = matrix(table, ("a",))
    assert list(scans.names) == ["one", "two"] and scans.unknown.tolist() == [1, 0]


def test_what_an_unknown_transmitter_holds_does_not_matter():
    scans = matrix([{"a": -50, "note": "kitchen", "z": 100}], ("a",))
    assert scans.unknown.tolist() == [0] and scans.rssi.tolist() == [[-50]]


def test_long_table_keeps_the_order_in_which_scans_come():
    table = pd.DataFrame({"scan": [9, 2, 9], "transmitter": ["a", "a", "b"], "rssi": [-1, -2, -3]})
    scans = matrix(table, ("a", "b"))
    assert list(scans.names) == [9, 2]
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
        with pytest.raises(ValueError, match=rf"scan {number}[,:].*expected .*Received"):
            matrix(form, KNOWN)


@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.just("a"), st.dates()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.sampled_from([*KNOWN, *LONG, 3]), inner)),
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
        ((3, "a", -50), "scan 3, transmitter a: its scan heard it already"),
        ((None, "a", -50), "row 2: expected a name in the column of the scan"),
        ((4, None, -50), "row 2: expected a name in the column of the transmitter"),
        ((4, "", -50), "row 2: expected a name in the column of the transmitter"),
        (([4], "a", -50), r"expected a number or text as a name. Received: \[4\]"),
        ((4, "a", "-5O"), "scan 4, transmitter a: expected RSSI .* Received: '-5O'"),
    ],
)
def test_a_wrong_row_of_a_long_table_is_named(row, message):
    table = pd.DataFrame([(3, "a", -60), (3, "z", -61), row], columns=list(LONG), dtype=object)
    with pytest.raises(ValueError, match=message):
        matrix(table, ("a", "b"), duplicates="error")


def test_names_that_occur_twice_are_refused():
    for twice in (
        lambda: matrix(pd.DataFrame([[-1, -2]], columns=["a", "a"]), KNOWN),
        lambda: matrix(pd.DataFrame([[1, "a", -2, -3]], columns=[*LONG, "rssi"]), KNOWN),
    ):
        with pytest.raises(ValueError, match="twice: "):
            twice()


def test_a_table_of_which_no_column_is_known_is_refused():
    with pytest.raises(ValueError, match=r"expected columns of known transmitters \(a, b\).*Received: e, f"):
        matrix(pd.DataFrame({"e": [-50], "f": [-60]}), ("a", "b"))


# === Names ===

ADDRESSES = st.lists(st.integers(0, 2**48 - 1), min_size=1, max_size=6, unique=True)
SPELLINGS = st.tuples(st.sampled_from((":", "-", "", ".")), st.booleans())


def spelt(address, spelling):
    separator, in_capitals = spelling
    digits = f"{address:012X}" if in_capitals else f"{address:012x}"
    return separator.join(digits[start : start + 2] for start in range(0, 12, 2))


@given(ADDRESSES, SPELLINGS, SPELLINGS)
def test_a_mac_address_is_the_same_however_it_is_spelt(addresses, surveyed, scanned):
    known = [spelt(address, surveyed) for address in addresses]
    scan = {spelt(address, scanned): -40 - number for number, address in enumerate(addresses)}
    expected = [[-40 - number for number in range(len(addresses))]]
    for form in ([scan], as_wide([scan]), as_long([scan])):
        assert matrix(form, known).rssi.tolist() == expected


def test_addresses_that_differ_by_spelling_alone_are_taken_as_written():
    known = ("02:AB:00:00:00:01", "02:ab:00:00:00:01")
    scans = matrix([{known[1]: -50}, {"02ab00000001": -60}], known)
    np.testing.assert_array_equal(scans.rssi, [[np.nan, -50], [np.nan, np.nan]])
    assert scans.unknown.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["WAP001", "AP 1", "12345678901234567890", "ab:cd", "Café"])
def test_other_names_stay_as_they_are_written(name):
    assert canonical(name) == name
    assert matrix([{name.lower() + "x": -50}], (name,)).unknown.tolist() == [1]


# === Several readings of one transmitter ===


@pytest.mark.parametrize(("duplicates", "level"), [("strongest", -50), ("mean", -55)])
def test_what_counts_where_a_scan_hears_a_transmitter_twice(duplicates, level):
    table = pd.DataFrame({"scan": [1, 1, 1], "bssid": ["a", "a", "b"], "rss": [-60, -50, -70]})
    listed = [{"wifi": [["a", -60], ["a", -50], ["b", -70]]}]
    for form in (table, listed):
        scans = matrix(form, ("a", "b"), duplicates=duplicates)
        assert scans.rssi.tolist() == [[level, -70]] and scans.repeated == 1


# === Dicts of programs and servers ===

CHIRPSTACK = {
    "deduplicationId": "3ac7e3c4",
    "time": "2024-05-01T10:00:00+00:00",
    "deviceInfo": {"devEui": "0101010101010101"},
    "object": {"gps": {"lat": 51.2, "lng": 4.4}},
    "rxInfo": [
        {"gatewayId": "0016C001F153A14C", "rssi": -57, "snr": 10.5, "location": {"latitude": 1.0, "longitude": 2.0}},
        {"gatewayId": "0016c001ff10a235", "rssi": -101, "snr": -3.0},
    ],
}
THINGS_STACK = {
    "end_device_ids": {"device_id": "tracker"},
    "received_at": "2024-05-01T10:00:00Z",
    "uplink_message": {
        "decoded_payload": {"latitude": 51.2, "longitude": 4.4},
        "rx_metadata": [
            {"gateway_ids": {"gateway_id": "roof", "eui": "0016C001F153A14C"}, "rssi": -57, "snr": 10.5},
            {"gateway_ids": {"gateway_id": "yard"}, "rssi": -101},
            {
                "gateway_ids": {"gateway_id": "packetbroker"},
                "packet_broker": {"forwarder_gateway_id": "theirs"},
                "rssi": -110,
            },
        ],
    },
}


def test_uplinks_of_chirpstack_are_scans():
    scans = matrix([CHIRPSTACK], ("0016c001f153a14c", "0016c001ff10a235"))
    assert scans.rssi.tolist() == [[-57, -101]] and list(scans.names) == ["3ac7e3c4"]


@pytest.mark.parametrize("uplink", [THINGS_STACK, {"result": THINGS_STACK}], ids=["webhook", "storage"])
@pytest.mark.parametrize("roof", ["roof", "0016c001f153a14c"])
def test_uplinks_of_the_things_stack_are_scans(uplink, roof):
    scans = matrix([uplink], (roof, "yard", "theirs"))
    assert scans.rssi.tolist() == [[-57, -101, -110]]


@pytest.mark.parametrize(
    "scan",
    [
        {"a": -50, "b": -60, "x": 3.5, "floor": 1, "snr": -7},
        {"scan": "s", "rssi": {"a": -50, "b": -60}, "position": {"x": 3.5, "y": 1}},
        {"wifi": [{"bssid": "a", "level": -50, "ssid": "home"}, {"bssid": "b", "level": "-60"}]},
        {"readings": [["a", -50], ["b", -60]], "time": 5},
    ],
)
def test_a_dict_may_hold_its_readings_in_several_ways(scan):
    scans = matrix([scan], ("a", "b"))
    assert scans.rssi.tolist() == [[-50, -60]] and scans.unknown.tolist() == [0]


def test_dicts_of_one_reading_each_are_joined_by_scan():
    rows = [
        {"scan": 1, "mac": "a", "rssi": -50},
        {"scan": 2, "mac": "a", "rssi": -70},
        {"scan": 1, "mac": "b", "rssi": -60},
    ]
    scans = matrix(rows, ("a", "b"))
    np.testing.assert_array_equal(scans.rssi, [[-50, -60], [-70, np.nan]])
    assert list(scans.names) == [1, 2]


# === As users have them ===

READINGS = pd.DataFrame({"scan": ["s", "s", "t"], "transmitter": ["a", "b", "a"], "rssi": [-50, -60, -70]})


@pytest.mark.parametrize(
    "table",
    [
        READINGS.set_index("scan"),
        READINGS.set_index(["scan", "transmitter"]),
        READINGS.pivot_table(index="scan", columns="transmitter", values="rssi"),
        READINGS.pivot_table(index="scan", columns="transmitter", values=["rssi"]),
        READINGS.convert_dtypes(),
        READINGS.astype({"scan": "category", "transmitter": "category"}),
    ],
    ids=["index", "two indices", "pivot", "pivot of lists", "nullable", "categories"],
)
def test_tables_of_pandas_are_read_whatever_became_an_index(table):
    read = forms.matrix(table, Spellings(("a", "b")))
    np.testing.assert_array_equal(read.rssi, [[-50, -60], [-70, np.nan]])
    assert list(read.names) == ["s", "t"]


def test_missing_and_decimal_values_of_other_libraries_are_read():
    read = forms.matrix([{"a": pd.NA, "b": decimal.Decimal("-50.5")}, {"a": pd.NaT}], Spellings(("a", "b")))
    np.testing.assert_array_equal(read.rssi, [[np.nan, -50.5], [np.nan, np.nan]])


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"expected columns of one length. Received: of 1, 2"):
        forms.matrix({"a": [-50, -60], "b": [-70]}, Spellings(("a", "b")))


@pytest.mark.parametrize("spelt", ["AA_BB_CC_DD_EE_01", "aabb.ccdd.ee01", "AA BB CC DD EE 01"])
def test_further_spellings_of_addresses(spelt):
    read = forms.matrix([{spelt: -50}], Spellings(("aa:bb:cc:dd:ee:01",)))
    assert read.rssi[0, 0] == -50


@pytest.mark.parametrize(
    "wrap",
    [
        lambda uplink: {"topic": "application/1", "payload": uplink},
        lambda uplink: {"name": "as.up.data.forward", "data": {"@type": "up", **uplink}},
    ],
    ids=["broker", "event stream"],
)
def test_uplinks_are_found_in_what_wraps_them(wrap):
    for uplink in (CHIRPSTACK, THINGS_STACK):
        known = Spellings(("0016c001f153a14c",))
        expected, read = forms.matrix([uplink], known), forms.matrix([wrap(uplink)], known)
        np.testing.assert_array_equal(read.rssi, expected.rssi)
        assert read.rssi[0, 0] < 0


@pytest.mark.parametrize("receptions", [None, []])
def test_an_uplink_without_receptions_hears_nothing(receptions):
    read = forms.matrix([CHIRPSTACK | {"rxInfo": receptions}], Spellings(("0016c001f153a14c",)))
    assert np.isnan(read.rssi).all() and len(read.rssi) == 1


@pytest.mark.parametrize("receptions", [[None], {"gatewayId": "0016c001f153a14c", "rssi": -50}, ["a"]])
def test_receptions_that_are_no_list_of_dicts_are_refused(receptions):
    with pytest.raises(ValueError, match="scan 0: expected a list of receptions"):
        forms.matrix([CHIRPSTACK | {"rxInfo": receptions}], Spellings(("0016c001f153a14c",)))


@pytest.mark.parametrize(
    "scans",
    [{"0": {"a": -50}, "1": {"a": -60}}, {"0": {"a": -50}, "1": {"b": -60}}, {"a": {"s": -50}, "b": {"s": -60}}],
    ids=["by number", "by number, others", "by column"],
)
def test_several_scans_in_one_dict_are_not_taken_for_one(scans):
    with pytest.raises(ValueError, match="expected one scan in an object"):
        forms.matrix([scans], Spellings(("a", "b", "s")))


def test_a_reading_whose_scan_has_no_name_is_refused():
    with pytest.raises(ValueError, match="expected scan or time"):
        forms.matrix([{"scan": None, "bssid": "a", "rssi": -50}], Spellings(("a",)))


def test_a_dict_may_hold_others():
    read = forms.matrix([{"data": {"wifi": {"a": -50}, "place": {"x": 1, "y": 2}}}], Spellings(("a",)))
    assert read.rssi[0, 0] == -50
