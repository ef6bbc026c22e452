"""Files as users have them: every form is read alike, what was read is said, what is wrong is refused by its place."""

import bz2
import datetime
import gzip
import io
import json
import lzma
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.data import reading, simulate
from lib.data.frames import Frame
from lib.data.names import Spellings
from lib.data.reading import Options

TABLE = "x,y,floor,AP1,AP2\n1,2,0,-50,\n3,4,1,,-70\n5,6,1,-55,-75\n"


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="mine.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def survey(path, **options):
    """The fingerprints of a file, and the paragraph about it."""
    told = []
    read = reading.read_fingerprints(path, "office", Options(**options), tell=told.append)
    return read, told[0]


def same(read, expected):
    np.testing.assert_array_equal(read.rssi, expected.rssi)
    np.testing.assert_array_equal(read.position, expected.position)
    assert read.transmitters == expected.transmitters
    for label in ("floor", "building"):
        np.testing.assert_array_equal(getattr(read, label), getattr(expected, label))


# === Forms ===

LONG = "scan,x,y,floor,bssid,rss\na,1,2,0,AP1,-50\nb,3,4,1,AP2,-70\nc,5,6,1,AP1,-55\nc,5,6,1,AP2,-75\n"
OBJECTS = [
    {"x": 1, "y": 2, "floor": 0, "rssi": {"AP1": -50}},
    {"x": 3, "y": 4, "floor": 1, "rssi": {"AP2": -70}},
    {"x": 5, "y": 6, "floor": 1, "rssi": {"AP1": -55, "AP2": -75}},
]
FORMS = {
    "long.csv": LONG,
    "shuffled.csv": "\n".join(
        [LONG.splitlines()[0], *LONG.splitlines()[1:3], *LONG.splitlines()[:2:-1]][:4] + LONG.splitlines()[3:4]
    ),
    "pairs.csv": "x,y,floor,mac1,rssi1,mac2,rssi2\n1,2,0,AP1,-50,,\n3,4,1,AP2,-70,,\n5,6,1,AP1,-55,AP2,-75\n",
    "list.json": json.dumps(OBJECTS),
    "indented.json": json.dumps(OBJECTS, indent=2),
    "wrapped.json": json.dumps({"scans": OBJECTS}),
    "lines.jsonl": "\n".join(map(json.dumps, OBJECTS)),
    "flat.jsonl": "\n".join(json.dumps({**scan, **scan["rssi"], "rssi": {}}) for scan in OBJECTS),
    "semicolons.csv": TABLE.replace(",", ";").replace("-55", "-55,0"),
    "tabs.tsv": TABLE.replace(",", "\t"),
    "spaces.csv": TABLE.replace(",", " , ").replace("\n", " \n"),
    "crlf.csv": TABLE.replace("\n", "\r\n"),
    "quoted.csv": TABLE.replace("AP1", '"AP1"').replace("x,", '"x",'),
    "comment.csv": "# exported on Monday\n# " + TABLE,
    "trailing.csv": TABLE.replace("\n", ",\n"),
    "index.csv": "\n".join(("" if i == 0 else str(i - 1)) + "," + line for i, line in enumerate(TABLE.splitlines())),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_survey_is_the_same_in_every_form(write, name):
    expected, _ = survey(write(TABLE, "expected.csv"))
    read, told = survey(write(FORMS[name], name))
    same(read, expected)
    assert "3 scans, 2 transmitters from -75 to -50 dBm" in told


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inside.csv", content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("encode", "says"),
    [
        (gzip.compress, "compressed by gzip"),
        (lzma.compress, "compressed by xz"),
        (bz2.compress, "compressed by bzip2"),
        (zipped, "compressed by zip"),
        (lambda content: b"\xef\xbb\xbf" + content, "CSV, 3 scans"),
        (lambda content: content.decode().encode("utf-16"), "UTF-16"),
        (lambda content: content.replace(b"AP1", "Café".encode("cp1252")), "not UTF-8: read as Windows-1252"),
    ],
    ids=["gz", "xz", "bz2", "zip", "UTF-8 with BOM", "UTF-16", "Windows-1252"],
)
@pytest.mark.parametrize("content", [TABLE, FORMS["lines.jsonl"]], ids=["CSV", "JSON"])
def test_compressed_and_otherwise_encoded_files_are_read(write, encode, says, content):
    expected, _ = survey(write(TABLE))
    read, told = survey(write(encode(content.encode()), "mine"))
    np.testing.assert_array_equal(np.sort(read.rssi), np.sort(expected.rssi))
    assert says in told or (says.startswith("CSV") and content != TABLE)
    assert read.transmitters in (("AP1", "AP2"), ("Café", "AP2"))


def test_parquet_is_read(write, tmp_path):
    expected, _ = survey(write(TABLE))
    pd.read_csv(io.StringIO(TABLE)).to_parquet(tmp_path / "mine.parquet")
    read, told = survey(tmp_path / "mine.parquet")
    same(read, expected)
    assert "Parquet" in told


def test_parquet_is_read_whatever_is_its_index(write, tmp_path):
    expected, _ = survey(write(LONG))
    pd.read_csv(io.StringIO(LONG)).set_index(["scan", "bssid"]).to_parquet(tmp_path / "mine.parquet")
    read, _ = survey(tmp_path / "mine.parquet")
    same(read, expected)


@pytest.mark.parametrize(
    "header",
    [
        "X,Y,Floor,AP1,AP2",
        " x , y , floor ,AP1,AP2",
        "Easting,Northing,floorid,AP1,AP2",
        "ECoord,NCoord,FloorID,AP1,AP2",
    ],
)
def test_columns_have_their_usual_other_names(write, header):
    expected, _ = survey(write(TABLE))
    read, _ = survey(write(TABLE.replace("x,y,floor,AP1,AP2", header)))
    same(read, expected)


def test_columns_can_be_named_left_out_and_chosen(write):
    text = TABLE.replace("x,y,floor", "rechts,hoch,stock").replace("AP2", "note")
    read, _ = survey(write(text), columns={"x": "rechts", "y": "hoch", "floor": "stock"}, ignore=("not*",))
    assert read.transmitters == ("AP1",) and read.floor.tolist() == [0, 1, 1]
    read, _ = survey(write(text), columns={"x": "rechts", "y": "hoch"}, transmitters=("ap*",))
    assert read.transmitters == ("AP1",) and read.floor is None
    with pytest.raises(ValueError, match=r"--columns x=nowhere: expected a column of that name. Received: rechts"):
        survey(write(text), columns={"x": "nowhere"})


UPLINK = {
    "deduplicationId": "1",
    "time": "2024-05-01T10:00:00Z",
    "deviceInfo": {"devEui": "01"},
    "object": {"latitude": 51.2, "longitude": 4.4},
    "rxInfo": [{"gatewayId": "0016c001f153a14c", "rssi": -57, "snr": 3, "location": {"latitude": 9}}],
}


def test_uplinks_with_a_position_are_fingerprints(write):
    lines = [json.dumps(UPLINK | {"deduplicationId": str(number)}) for number in range(2)]
    lines.append(json.dumps(UPLINK | {"deduplicationId": "2", "object": {}}))
    read, told = survey(write("\n".join(lines)))
    assert read.transmitters == ("0016c001f153a14c",) and read.group.tolist() == ["01", "01"] and len(read) == 2
    np.testing.assert_allclose(read.frame.to_degrees(read.position), [[51.2, 4.4]] * 2, atol=1e-9)
    assert "1 row left out (no position): line 3" in told


# === Scans ===


def scans_of(path, names=("AP1", "AP2"), **options):
    return reading.read_scans(path, Spellings(names), Options(**options))


@pytest.mark.parametrize(
    "names", [("1700000000.125", "1700000000.375"), ("1.1", "1.10"), ("007", "7e0"), ("NA", "1e400")]
)
def test_the_names_of_scans_are_text_as_they_stand(write, names):
    long = "scan,transmitter,rssi\n" + "".join(f"{name},AP1,-5{number}\n" for number, name in enumerate(names))
    wide = "scan,AP1\n" + "".join(f"{name},-5{number}\n" for number, name in enumerate(names))
    for text in (long, wide):
        scans = scans_of(write(text))
        assert list(scans.names) == list(names) and scans.rssi[:, 0].tolist() == [-50, -51]


def test_transmitters_may_be_called_like_an_empty_cell(write):
    scans = scans_of(write("rssi,scan,transmitter\n-60.5,first,b\n-50,first,a\n-70,second,NA\n"), ("a", "b", "NA"))
    np.testing.assert_array_equal(scans.rssi, [[-50, -60.5, np.nan], [np.nan, np.nan, -70]])


def test_a_file_without_a_known_transmitter_is_refused(write):
    with pytest.raises(ValueError, match=r"expected columns of known transmitters \(AP1, AP2\).*Received: scan, q"):
        scans_of(write("scan,q\n1,-50\n"))


def test_a_value_in_a_file_is_shown_as_it_stands(write):
    path = write("AP1,AP2\n-50,-60\n-51,weak\n")
    with pytest.raises(ValueError, match=r"line 3, transmitter AP2: .*Received: 'weak'"):
        scans_of(path)
    assert scans_of(path, not_heard=("weak",)).rssi[0].tolist() == [-50, -60]


# === What looks wrong ===


def rows_of(n_rows, columns, seed=0):
    """A survey of AP1 and AP2 with further columns, functions of the number of the row."""
    generator = np.random.default_rng(seed)
    lines = [",".join(["x", "y", "AP1", "AP2", *columns])]
    for row in range(n_rows):
        levels = generator.integers(-95, -40, 2)
        lines.append(",".join(map(str, [row % 10, row % 7, *levels, *(value(row) for value in columns.values())])))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "columns",
    [
        {"z": lambda row: 0, "SNR": lambda row: -7.5, "noise": lambda row: -95},
        {"quality": lambda row: -12},
        {"ticks": lambda row: row + 1},
        {"": lambda row: row},
        {"Scene ID": lambda row: row % 3},
    ],
    ids=lambda columns: ",".join(columns),
)
def test_a_column_that_looks_like_no_transmitter_is_left_out_with_a_word(write, columns):
    read, told = survey(write(rows_of(50, columns)))
    assert read.transmitters == ("AP1", "AP2")
    assert "Columns left out, as no transmitters" in told
    assert all(name in told for name in columns)


def test_a_column_that_the_user_names_as_transmitter_is_kept(write):
    read, told = survey(write(rows_of(50, {"mast": lambda row: -60})), transmitters=("AP*", "mast"))
    assert read.transmitters == ("AP1", "AP2", "mast") and "left out" not in told


def test_a_column_that_hardly_varies_is_taken_with_a_word(write):
    read, told = survey(write(rows_of(50, {"hum": lambda row: -50 - row % 2 / 4})))
    assert "hum" in read.transmitters and "Every row hears these nearly alike, --ignore leaves them out: hum" in told


@pytest.mark.parametrize("marker", ["-100", "100", "0", "-inf", "-110.5"])
def test_a_marker_that_is_not_declared_is_refused(write, marker):
    text = "x,y," + ",".join(f"AP{number}" for number in range(20)) + "\n"
    for row in range(40):
        cells = [marker] * 20
        cells[row % 20] = str(-50 - row % 9)
        text += f"{row % 5},{row % 3},{','.join(cells)}\n"
    with pytest.raises(ValueError, match=f"--not-heard {re.escape(marker)}"):
        survey(write(text))
    read, _ = survey(write(text), not_heard=(float(marker),))
    assert read.heard.sum() == 40


def test_a_few_zeros_are_counted_and_many_are_refused(write):
    few = rows_of(500, {"AP3": lambda row: 0 if row < 2 else ""})
    read, told = survey(write(few))
    assert "2 of 1,002 values are exactly 0 dBm" in told and (read.heard_values == 0).sum() == 2
    many = rows_of(500, {"AP3": lambda row: 0 if row < 50 else ""})
    with pytest.raises(ValueError, match=r"50 of 1,050 values are exactly 0 dBm.*--not-heard 0"):
        survey(write(many))
    assert (survey(write(many), measured=(0,))[0].heard_values == 0).sum() == 50
    assert (survey(write(many), not_heard=(0,))[0].heard_values == 0).sum() == 0


COORDINATES = st.tuples(st.floats(-1e7, 1e7), st.floats(-1e7, 1e7))


@given(st.lists(COORDINATES.filter(lambda xy: max(map(abs, xy)) > 1e4), min_size=1, max_size=3), st.integers(0, 99))
def test_rows_far_from_all_others_are_left_out_by_their_lines(tmp_path_factory, far, start):
    generator = np.random.default_rng(1)
    position = generator.uniform(0, 100, (200, 2)).round(2).tolist()
    for number, xy in enumerate(far):
        position[start + 10 * number] = xy
    path = tmp_path_factory.mktemp("far") / "mine.csv"
    path.write_text("x,y,AP1\n" + "".join(f"{x},{y},{-50 - row % 9}\n" for row, (x, y) in enumerate(position)))
    read, told = survey(path)
    assert len(read) == 200 - len(far) and read.position.max() <= 100
    assert f"line {start + 2}" in told and "--keep-far" in told
    assert len(survey(path, keep_far=True)[0]) == 200


@pytest.mark.parametrize("columns", ["latitude,longitude", "x,y"])
def test_a_row_without_a_fix_is_left_out_where_zero_is_elsewhere(write, columns):
    unit = 1 if columns == "latitude,longitude" else 1e5
    rows = [f"{51 * unit + row / 1e4},{4 * unit + row / 1e4},{-50 - row % 9}" for row in range(60)]
    rows[7] = "0,0,-50"
    read, told = survey(write(f"{columns},AP1\n" + "\n".join(rows)))
    assert len(read) == 59 and "1 row left out (position (0, 0), as without a fix): line 9" in told


def test_zero_may_be_a_place_of_the_survey(write):
    rows = [f"{row % 10},{row // 10},{-50 - row % 9}" for row in range(60)]
    assert len(survey(write("x,y,AP1\n" + "\n".join(rows)))[0]) == 60


def test_a_missing_time_does_not_stop_a_file(write):
    read, told = survey(write("x,y,time,a\n1,2,2024-05-01 10:00,-50\n1,3,,-51\n"))
    assert np.isnat(read.time).tolist() == [False, True] and "1 row without a time" in told


@pytest.mark.parametrize(("duplicates", "level"), [("strongest", -50), ("mean", -55)])
def test_a_transmitter_heard_twice_does_not_stop_a_file(write, duplicates, level):
    text = "scan,x,y,mac,rssi\n1,0,0,a,-60\n1,0,0,a,-50\n2,1,1,a,-70\n"
    read, told = survey(write(text), duplicates=duplicates)
    assert read.rssi[:, 0].tolist() == [level, -70] and f"the {duplicates} counts" in told
    with pytest.raises(ValueError, match="line 3, transmitter a: its scan heard it already"):
        survey(write(text), duplicates="error")


def test_phones_that_spell_addresses_differently_hear_the_same_transmitters(write):
    text = "scan,x,y,mac,rssi\n1,0,0,02:AB:00:00:00:01,-60\n2,1,1,02-ab-00-00-00-01,-50\n"
    read, told = survey(write(text))
    assert read.transmitters == ("02:AB:00:00:00:01",) and "taken for the same transmitters: 02-ab-00-00-00-01" in told
    later = reading.read_fingerprints(write(text), "office", known=Spellings(("02ab00000001",)))
    assert later.transmitters == ("02ab00000001",)


def test_scans_without_a_name_are_told_apart_by_time_and_place(write):
    text = "# Timestamp, X, Y, MAC Address of AP, RSS, BUID\n"
    text += "1700000000000, 1, 2, a, -50, b1\n1700000000000, 1, 2, b, -60, b1\n1700000001000, 1, 2, a, -55, b1\n"
    read, told = survey(write(text))
    assert read.rssi.shape == (2, 2) and read.building is None
    assert read.time[0] == np.datetime64("2023-11-14T22:13:20")
    assert "A scan is the rows with the same Timestamp, X, Y, BUID" in told and "BUID is left out: 'b1'" in told


# === Fingerprints ===


def test_fingerprints_in_metres(write):
    path = write(
        "x,y,floor,building,time,device,AP1,AP2\n1,2,-1,0,2024-05-01 10:00,p1,-50,\n3.5,4,2,1,2024-05-02,p2,,100\n"
    )
    read = reading.read_fingerprints(path, "office", Options(not_heard=(100,)))
    assert read.name == "office" and read.transmitters == ("AP1", "AP2") and read.frame == Frame(None)
    np.testing.assert_array_equal(read.rssi, [[-50, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(read.position, [[1, 2], [3.5, 4]])
    assert read.floor.tolist() == [-1, 2] and read.building.tolist() == [0, 1] and read.group.tolist() == ["p1", "p2"]
    assert read.time[0] == np.datetime64(datetime.datetime(2024, 5, 1, 10))
    assert read.release.rows == 2 and not read.release.simulated
    assert np.isnan(read.frame.to_degrees(read.position)).all()
    with pytest.raises(ValueError, match="no place on earth"):
        read.frame.from_degrees(np.zeros((1, 2)))


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
        ("", "expected a table. Received: an empty file"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "expected text or Parquet. Received: a binary file"),
        (gzip.compress(b"x,y,a\n1,2,-50\n", mtime=0)[:-4], "the compressed file is damaged or cut off"),
        ('{"x": 1, "y": 2, "a": -50}\n{"x": 1,\n', "line 2: expected a JSON object"),
        (
            '{"scan": 1, "x": 1, "y": 2, "mac": "a", "rss": -5}\n{"scan": 1, "x": 5, "y": 2, "mac": "b", "rss": -5}\n',
            "line 2: expected each scan at one place. Received: x 5, and 1 before",
        ),
        ('[1, 2]', "scan 0: expected a dict of RSSI by transmitter. Received: int"),
        ("x,y\n1,2\n", "expected a column for each transmitter"),
        ("x,y,a\n", "expected at least one row"),
        ("x,a\n1,-50\n", "expected columns x, y or latitude, longitude. Received: x, a"),
        ("x,y,latitude,longitude,a\n1,2,3,4,-50\n", "expected columns x, y or latitude, longitude"),
        ("x,y,a,a\n1,2,-50,-60\n", "each column must occur once. Received twice: a"),
        ("x,y,a\n1,2,\n3,4,\n", "no transmitter is heard in any row"),
        ("x,y,a\n1,,-50\n1,,-50\n", "expected rows with a position. Received: none"),
        ("x,y,a\n1,2,-50\nhere,2,-50\n", "line 3, column x: expected a number. Received: 'here'"),
        ("latitude,longitude,a\n91,2,-50\n", "line 2, column latitude: expected degrees.* at most ±90. Received: 91"),
        ("latitude,longitude,a\n9,-200,-50\n", "line 2, column longitude: expected degrees, a number of at most ±180"),
        ("x,y,floor,a\n1,2,0.5,-50\n", "line 2, column floor: expected a whole number. Received: 0.5"),
        ("x,y,building,a\n1,2,B,-50\n3,4,C,-50\n", "line 2, column building: expected a whole number. Received: 'B'"),
        ("x,y,time,a\n1,2,yesterday?,-50\n", r"line 2, column time: expected a date and time. Received: 'yesterday\?'"),
        ("x,y,a\n1,2,-50\n1,2,100\n", "line 3, transmitter a: expected RSSI .* Received: 100"),
        ("x,y,a\n1,2,-50\n1,2,-200\n", "line 3, transmitter a: expected RSSI .* Received: -200"),
        ("x,y,a\n1,2,-50\n1,2,-50,7\n", "line 3: expected 3 cells, as in the header. Received: more"),
        ("x,y,a\n1,2,-50\n1,2,-50,7,8\n", "expected 3 cells in every row"),
        ("scan,x,y,mac,rssi\n1,0,0,a,-50\n1,5,0,b,-50\n", "line 3: expected each scan at one place"),
        ("x,y,mac,rssi\n1,0,a,-50\n", "expected a column that tells the scans apart"),
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


# === As users write them ===


@pytest.mark.parametrize(
    "header",
    ["x (m),y (m),Floor Level", "Easting [m],Northing [m],floor", "x_meters,y_meters,Storey", "UTM X,UTM Y,FloorNo"],
)
def test_a_column_may_be_called_with_its_unit(write, header):
    expected, _ = survey(write(TABLE))
    read, _ = survey(write(TABLE.replace("x,y,floor", header)))
    same(read, expected)


@pytest.mark.parametrize("header", ["Latitude (WGS84),Longitude (WGS84)", "lat_deg,lon_deg", "Lat [°],Lng [°]"])
def test_degrees_may_be_called_with_their_unit(write, header):
    read, _ = survey(write(f"{header},AP1\n48.1,11.5,-50\n48.2,11.6,-60\n"))
    degrees = read.frame.to_degrees(read.position)
    np.testing.assert_allclose(degrees, [[48.1, 11.5], [48.2, 11.6]], atol=1e-9)


@pytest.mark.parametrize(
    "header", ["AP MAC,Signal Strength (dBm)", "Wifi MAC,RSSI [dBm]", "Gateway EUI,rx_power", "BSSID,level_dBm"]
)
def test_columns_of_a_long_table_have_their_usual_other_names(write, header):
    read, _ = survey(write(LONG.replace("bssid,rss", header)))
    assert read.transmitters == ("AP1", "AP2")


def test_half_a_long_table_is_no_wide_one(write):
    with pytest.raises(ValueError, match=r"expected a column for the rssi beside bssid, .* --columns rssi=…"):
        survey(write(LONG.replace("rss\n", "how loud\n")))
    read, _ = survey(write(LONG.replace("rss\n", "how loud\n")), columns={"rssi": "how loud"})
    assert read.transmitters == ("AP1", "AP2")


def test_two_columns_that_may_be_one_thing_are_refused(write):
    with pytest.raises(ValueError, match=r"expected one column for x. Received: x, X. --columns x=…"):
        survey(write("x,X,y,AP1\n1,2,3,-50\n"))
    with pytest.raises(ValueError, match="expected another column for each role"):
        survey(write("a,b,AP1\n1,2,-50\n"), columns={"x": "a", "y": "a"})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x,y,AP1\n1,2,-50\n\n\n3,4,loud\n", 5),
        ("\nx,y,AP1\n\n1,2,-50\n3,4,loud\n", 5),
        ('x,y,AP1,note\n1,2,-50,"two\nlines"\n3,4,loud,\n', 4),
        ('x,y,"A\nP1"\n1,2,-50\n3,4,loud\n', 4),
        ("x,y,AP1\r\n\r\n1,2,-50\r\n3,4,loud\r\n", 4),
        ('\n{"x": 1, "y": 2, "AP1": -50}\n\n{"x": 1, "y": 2, "AP1": "loud"}\n', 4),
        ('{"x": 1, "y": 2, "AP1": -50}\n\n{"x": 1, "y": 2, "AP1": [1]}\n', 3),
        ("scan,x,y,mac,rssi\n\na,1,2,AP1,-50\na,5,2,AP2,-50\n", 4),
    ],
)
def test_the_line_is_that_of_the_file(write, text, line):
    with pytest.raises(ValueError, match=f"mine.csv: line {line}[:,]"):
        survey(write(text))


@pytest.mark.parametrize("before", ["", '{"x": 1, "y": 2, "AP1": -50}\n'])
def test_a_key_that_occurs_twice_is_refused(write, before):
    with pytest.raises(ValueError, match=r"mine.csv: .*each key must occur once. Received twice: AP1"):
        survey(write(before + '{"x": 1, "y": 2, "AP1": -50, "AP1": -60}\n'))


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\n" + TABLE.replace(",", ";"),
        '"x", "y", "floor", "AP1", "AP2"\n' + TABLE.split("\n", 1)[1],
        "\u200bx,y,floor,AP1\u200b,\u00a0AP2\n" + TABLE.split("\n", 1)[1],
        TABLE.encode("utf-32"),
        TABLE.replace(",\n", ",#N/A\n").replace(",,", ",<NA>,"),
        "Unnamed: 0," + TABLE.replace("\n", "\n7,")[:-2],
    ],
    ids=["Excel's delimiter", "spaces before quotes", "hidden characters", "UTF-32", "missing values", "an index"],
)
def test_what_programs_write_beside_the_table_does_no_harm(write, text):
    expected, _ = survey(write(TABLE))
    read, _ = survey(write(text))
    same(read, expected)


def test_a_spreadsheet_is_refused_with_what_to_do(write):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", "")
        archive.writestr("xl/workbook.xml", "")
    with pytest.raises(ValueError, match=r"a spreadsheet. Save its table as CSV"):
        survey(write(file.getvalue()))


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        ("x,y,floor,mac1,rssi1,mac2,rssi3\n1,2,0,AP1,-50,AP2,-60\n", "mac2, rssi3"),
        (LONG.replace("rss", "rss,snr").replace("0\n", "0,7\n").replace("5\n", "5,7\n"), "snr"),
        ("x,y,level,AP1,AP2,AP3,AP4\n1,2,0,-50,-60,-70,-80\n", "level"),
    ],
)
def test_columns_that_nothing_is_read_from_are_named(write, text, left_out):
    _, told = survey(write(text))
    assert re.search(f"Columns left out(, as no transmitters)?: {left_out}", told)


@pytest.mark.parametrize("text", [TABLE, LONG, json.dumps(OBJECTS)], ids=["wide", "long", "JSON"])
def test_transmitters_are_left_out_by_name_in_every_form(write, text):
    for options in ({"ignore": ("ap2",)}, {"transmitters": ("AP1",)}):
        read, _ = survey(write(text), **options)
        assert read.transmitters == ("AP1",)
    assert "Nothing is called AP9" in survey(write(TABLE), ignore=("AP9",))[1]


# === Times ===


@pytest.mark.parametrize(
    ("times", "days"),
    [
        (("13/01/2024 10:00", "01/02/2024 10:00"), ("2024-01-13", "2024-02-01")),
        (("01/13/2024 10:00", "02/01/2024 10:00"), ("2024-01-13", "2024-02-01")),
        (("02.01.2024", "01.02.2024"), ("2024-01-02", "2024-02-01")),
        (("1704103200", "1706745600"), ("2024-01-01", "2024-02-01")),
        (("1704103200000", "1706745600000"), ("2024-01-01", "2024-02-01")),
        (("1704103200000000000", "1706745600000000000"), ("2024-01-01", "2024-02-01")),
    ],
)
def test_dates_are_read_as_they_are_meant(write, times, days):
    read, _ = survey(write(f"time,x,y,AP1\n{times[0]},1,2,-50\n{times[1]},1,2,-60\n"))
    np.testing.assert_array_equal(read.time.astype("datetime64[D]"), np.array(days, dtype="datetime64[D]"))


@pytest.mark.parametrize("time", ["01/02/2024", "10:15:00", "0.5", "20240101", "9999-12-31"])
def test_a_time_that_tells_no_date_is_left_out_with_a_word(write, time):
    read, told = survey(write(f"time,x,y,AP1\n{time},1,2,-50\n{time},1,2,-60\n"))
    assert read.time is None and "time is left out: " in told


# === Columns that are no transmitters ===


@pytest.mark.parametrize(
    ("cells", "described"),
    [(("0", "1"), "0 to 1"), (("False", "True"), "'False' or the like"), (("bob", "eve"), "'bob' or the like")],
)
def test_a_column_without_a_level_is_left_out_as_it_stands(write, cells, described):
    rows = [f"{number % 8},{number % 7},{-50 - number % 9},{cells[number % 3 == 1]}" for number in range(60)]
    read, told = survey(write("\n".join(["x,y,AP1,is moving", *rows])))
    assert read.transmitters == ("AP1",) and f"is moving ({described} in every row)" in told


def test_levels_in_percent_are_refused_with_what_came(write):
    rows = [f"{number % 8},{number % 7},{50 + number % 9}" for number in range(60)]
    with pytest.raises(ValueError, match=r"expected RSSI. Received: .*AP1 \(50 to 58 in every row\)"):
        survey(write("\n".join(["x,y,AP1", *rows])))


# === Places ===


def test_swapped_degrees_are_refused_with_what_to_do(write):
    path = write("lat,lon,AP1\n-122.4,37.7,-50\n-122.5,37.8,-60\n")
    with pytest.raises(ValueError, match="--columns latitude=lon,longitude=lat"):
        survey(path)
    read, _ = survey(path, columns={"latitude": "lon", "longitude": "lat"})
    assert len(read) == 2


def test_places_on_both_sides_of_the_180th_meridian_are_near_each_other(write):
    read, _ = survey(write("lat,lon,AP1\n-17,179.9999,-50\n-17,-179.9999,-60\n"))
    assert np.linalg.norm(read.position[0] - read.position[1]) == pytest.approx(21.3, abs=0.1)


@pytest.mark.parametrize(("near", "away"), [(8, 1), (100, 10)])
def test_rows_far_from_most_are_kept_with_a_word(write, near, away):
    rows = [f"{number % 10},{number // 10},{-50 - number % 9}" for number in range(near)]
    rows += [f"{1_000_000 + number},5,-60" for number in range(away)]
    read, told = survey(write("\n".join(["x,y,AP1", *rows])))
    assert len(read) == near + away
    assert f"{away} row{'s' if away > 1 else ''} far from most others, which count: line {near + 2}" in told


def test_a_label_that_is_empty_in_every_row_is_left_out_with_a_word(write):
    read, told = survey(write("x,y,floor,AP1\n1,2,,-50\n3,4,,-60\n"))
    assert read.floor is None and "floor is left out: nothing in every row" in told


def test_a_scan_of_two_devices_is_refused_or_told(write):
    text = "scan,x,y,device,mac,rssi\n1,0,0,mine,AP1,-50\n1,0,0,yours,AP1,-60\n"
    with pytest.raises(
        ValueError, match=r"line 3: expected each scan at one place, of one device. Received: device yours"
    ):
        survey(write(text))
    told = []
    reading.read_scans(write(text), Spellings(["AP1"]), tell=told.append)
    assert "of one device. Received: device yours" in told[0]


def test_scans_of_one_row_each_are_told(write):
    rows = [f"{number},1,2,AP{number % 3},{-50 - number}" for number in range(20)]
    _, told = survey(write("\n".join(["scan,x,y,mac,rssi", *rows])))
    assert "Each scan is one row, by scan" in told
