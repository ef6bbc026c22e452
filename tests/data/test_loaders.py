"""The publishers' formats: what is in the measured files, and what a loader makes of a file of its format."""

import dataclasses
import hashlib
import io
import lzma
import tarfile

import numpy as np
import pandas as pd
import pytest
import scipy.io

from lib.data import loaders, protocols, sources
from lib.data.sources import REGISTRY, DataError
from lib.paths import ROOT


@pytest.fixture
def publish(data_folders, monkeypatch):
    """Lets `content` be what a publisher's file holds, and puts it, compressed, where files are looked for."""

    def put(key, content, rows, **changes):
        sha256 = hashlib.sha256(content).hexdigest()
        source = dataclasses.replace(REGISTRY[key], sha256=sha256, rows=rows, size=len(content), **changes)
        monkeypatch.setitem(REGISTRY, key, source)
        path = data_folders[0] / f"{source.file}.xz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(content))
        return path

    return put


# === The table and the registry ===


def test_every_loader_has_files_and_every_file_a_loader():
    environments = {source.environment for source in REGISTRY.values()}
    assert environments - {None} == set(loaders.LOADERS)
    files = [source.file for source in REGISTRY.values()]
    assert len(set(files)) == len(files)


def test_the_readme_of_the_data_names_every_file():
    readme = (ROOT / "data" / "README.md").read_text()
    for source in REGISTRY.values():
        assert f"`{source.file}`" in readme
        assert source.environment is None or f"`{source.environment}`" in readme


@pytest.mark.slow
def test_transmitters_of_two_environments_have_one_name_only_if_they_are_one():
    """The library's access points are in both of its sets; no others are shared."""
    seen = {}
    for name, loader in loaders.LOADERS.items():
        if name != "uji_library_longterm" and all(map(sources.find, sources.files_of(name))):
            for transmitter in loader().transmitters:
                assert transmitter not in seen, f"{transmitter} is in {seen[transmitter]} and in {name}"
                seen[transmitter] = name


# === The measured files ===


def test_measured_campus_has_the_published_counts(measured_campus):
    assert (len(measured_campus), len(measured_campus.transmitters)) == (21_048, 520)
    train = measured_campus[measured_campus.part == "train"]
    validation = measured_campus[measured_campus.part == "validation"]
    assert (len(train), len(validation)) == (19_937, 1_111)
    assert len(np.unique(train.place_id)) == 933
    assert (len(np.unique(train.group)), len(np.unique(validation.group))) == (16, 11)
    assert len(set(train.group) & set(validation.group)) == 2
    assert len(train) - len(np.unique(train.copy_id)) >= 600  # 637 rows are copies in every column
    assert (~train.heard.any(axis=1)).sum() == 76
    heard = train.heard.any(axis=0), validation.heard.any(axis=0)
    assert [(~heard[0]).sum(), (~heard[1]).sum(), (heard[0] & heard[1]).sum()] == [55, 153, 312]
    assert set(measured_campus.building) == {0, 1, 2} and set(measured_campus.floor) == {0, 1, 2, 3, 4}


def test_measured_campus_is_in_dbm_and_in_its_months(measured_campus):
    assert not (measured_campus.rssi == 100).any()
    values = measured_campus.heard_values
    assert (values.min(), values.max()) == (-104, 0)
    months = measured_campus.time.astype("datetime64[D]")
    train = measured_campus.part == "train"
    assert (str(months[train].min()), str(months[train].max())) == ("2013-05-30", "2013-06-20")
    assert (str(months[~train].min()), str(months[~train].max())) == ("2013-09-19", "2013-10-08")


def test_measured_city_has_the_published_counts(measured_city):
    assert len(measured_city.transmitters) == 72
    assert not (measured_city.rssi == -200).any()
    if measured_city.release.file == "lorawan_antwerp_3gw.csv":
        heard = measured_city.heard.sum(axis=1)
        assert (len(measured_city), heard.min(), heard.max()) == (16_613, 3, 10)
        assert ((measured_city.part == "val").sum(), (measured_city.part == "test").sum()) == (8_306, 8_307)
        assert measured_city.heard.any(axis=0).sum() == 42
        assert (measured_city.heard_values.min(), measured_city.heard_values.max()) == (-127, -60)
    else:
        assert len(measured_city) == 130_429


def test_measured_city_is_in_antwerp(measured_city):
    latitude, longitude = np.median(measured_city.frame.to_degrees(measured_city.position), axis=0)
    assert (latitude, longitude) == pytest.approx((51.22, 4.41), abs=0.1)
    assert np.abs(np.median(measured_city.position, axis=0)).max() < 1200  # the frame's origin is the middle


# === Sigfox, and the library's first month ===


def test_measured_sigfox_has_the_published_counts(measured_sigfox):
    assert measured_sigfox.rssi.shape == (5015, 137)
    assert np.nanmin(measured_sigfox.rssi) == -147 and np.nanmax(measured_sigfox.rssi) == -79
    assert measured_sigfox.heard.any(axis=1).all()
    degrees = measured_sigfox.frame.to_degrees(measured_sigfox.position)
    assert ((degrees > [51.06, 4.1499]) & (degrees < [51.28, 4.25])).all()


def test_measured_library_has_the_published_counts(measured_library):
    assert measured_library.rssi.shape == (3696, 174)
    assert dict(zip(*np.unique(measured_library.part, return_counts=True), strict=True)) == {"train": 576, "test": 3120}
    assert set(measured_library.floor) == {3, 5} and set(measured_library.building) == {0}
    assert (np.ptp(measured_library.position, axis=0) < 20).all()
    assert np.isnan(measured_library.frame.to_degrees(measured_library.position)).all()


def struct(rows: int, transmitters: int = 174, changes: dict | None = None) -> bytes:
    rng = np.random.default_rng(0)
    levels = np.where(rng.random((rows, transmitters)) < 0.9, 100, rng.integers(-96, -38, (rows, transmitters))).astype(
        float
    )
    labels = np.column_stack([rng.random((rows, 3)), rng.choice([3, 5], rows), np.zeros(rows)])
    fields = {"trainingMacs": levels, "trainingLabels": labels, "testMacs": levels, "testLabels": labels}
    with io.BytesIO() as file:
        scipy.io.savemat(file, {"database": fields | (changes or {})})
        return file.getvalue()


def test_library_file_becomes_a_set(publish):
    content = struct(8)
    publish("uji_library", content, 16)
    loaded = loaders.load_uji_library()
    assert loaded.rssi.shape == (16, 174) and np.nanmax(loaded.rssi) < 0 and np.isnan(loaded.rssi).any()
    assert loaded.not_heard is None and loaded.not_heard_dbm == np.nanmin(loaded.rssi) - 1
    assert list(loaded.part) == ["train"] * 8 + ["test"] * 8


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (9, {}, r"expected rows and transmitters \(16, 174\), found \(18, 174\)"),
        (8, {"testMacs": np.full((8, 174), 1.0)}, "expected RSSI of at most 0 dBm, or the marker 100, found 1"),
    ],
)
def test_library_file_of_another_schema_is_refused(publish, rows, changes, message):
    content = struct(rows, changes=changes)
    publish("uji_library", content, 16)
    with pytest.raises(DataError, match=message):
        loaders.load_uji_library()


def test_sigfox_file_becomes_a_set(publish):
    rng = np.random.default_rng(0)
    levels = np.where(rng.random((12, 137)) < 0.9, -200, rng.integers(-147, -79, (12, 137)))
    table = pd.DataFrame(np.column_stack([levels, 51.2 + rng.random(12) / 9, 4.2 + rng.random(12) / 9]))
    publish("sigfox_rural", table.to_csv(index=False).encode(), 12)
    loaded = loaders.load_sigfox_rural()
    np.testing.assert_array_equal(np.nan_to_num(loaded.rssi, nan=-200), levels)
    np.testing.assert_allclose(loaded.frame.to_degrees(loaded.position), table[[137, 138]], atol=1e-9)


# === The library over 25 months ===


@pytest.mark.slow  # the months take seconds to load
def test_months_have_the_published_counts(measured_months):
    assert measured_months.rssi.shape == (104_154, 620) and measured_months.release.rows == 104_160
    assert dict(zip(*np.unique(measured_months.floor, return_counts=True), strict=True)) == {3: 52_074, 5: 52_080}
    assert dict(zip(*np.unique(measured_months.part, return_counts=True), strict=True)) == {
        "train": 23_034,
        "test": 81_120,
    }
    assert (measured_months.group == "Galaxy A5").sum() == 3_696
    assert np.nanmin(measured_months.rssi) == -100 and np.nanmax(measured_months.rssi) == -31
    assert measured_months.heard.any(axis=0).all() and (np.ptp(measured_months.position, axis=0) < 20).all()


@pytest.mark.slow
def test_a_campaign_is_told_by_its_time(measured_months):
    month = loaders.library_month(measured_months.time)
    assert np.bincount(month).tolist() == [0, 11_754, *[3_696] * 23, 7_392]
    assert (np.diff(month) >= 0).all()  # rows are in the order of the publisher's folders
    assert set(measured_months.group[month < 25]) == {"Galaxy S3"}


def test_a_time_before_the_first_campaign_has_no_month():
    with pytest.raises(ValueError, match=r"must be 2016-06-02 or later. Received: 2016-06-01T10:00:00"):
        loaders.library_month(np.array(["2016-07-20T09:00:00", "2016-06-01T10:00:00"], dtype="datetime64[s]"))


@pytest.mark.slow
def test_access_points_of_the_library_have_the_same_names_in_both_of_its_sets(measured_months, measured_library):
    """Column by column, its first month holds the same levels at the same places."""
    assert len(set(loaders.LIB1_ACCESS_POINTS)) == 174
    tests = protocols.of_month(measured_months, 1, "test")
    expected = measured_library[measured_library.part == "test"]
    np.testing.assert_array_equal(tests.scans.of(measured_library.transmitters), expected.rssi)
    np.testing.assert_allclose(tests.position, expected.position, atol=0.01)
    np.testing.assert_array_equal(tests.floor, expected.floor)


def months_archive(floors=(3, 5)) -> bytes:
    """Two sets of two scans of five access points: training in month 1, testing in month 25 with the second phone."""
    files = {}
    for name, day in (("01/trn01", "20160602"), ("25/tst06", "20180706")):
        files[f"{name}rss.csv"] = "-50,100,100,-100,100\n100,100,-71,100,100\n"
        files[f"{name}crd.csv"] = f"1.5,2,{floors[0]}\n3,4,{floors[1]}\n"
        files[f"{name}tms.csv"] = f"{day}120000500\n{day}120004000\n"
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, text in files.items():
                member = tarfile.TarInfo(f"UJI_LIB_DB_v2/db/{name}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        return file.getvalue()


def test_months_are_read_from_the_archive(publish):
    publish("uji_library_longterm", months_archive(), 4, transmitters=5)
    loaded = loaders.load_uji_library_longterm()
    levels = [[-50, 100, 100, -100, 100], [100, 100, -71, 100, 100]]
    np.testing.assert_array_equal(np.nan_to_num(loaded.rssi, nan=100), levels * 2)
    np.testing.assert_array_equal(loaded.position, [[1.5, 2], [3, 4]] * 2)
    assert loaded.floor.tolist() == [3, 5] * 2
    assert loaded.part.tolist() == ["train", "train", "test", "test"]
    assert loaded.group.tolist() == ["Galaxy S3", "Galaxy S3", "Galaxy A5", "Galaxy A5"]
    assert loaders.library_month(loaded.time).tolist() == [1, 1, 25, 25]
    assert str(loaded.time[0]).startswith("2016-06-02T12:00:00.500")


def test_scans_on_a_floor_that_does_not_exist_are_left_out(publish):
    publish("uji_library_longterm", months_archive(floors=(0, 5)), 4, transmitters=5)
    loaded = loaders.load_uji_library_longterm()
    assert loaded.floor.tolist() == [5, 5] and loaded.position.tolist() == [[3, 4], [3, 4]]


def test_months_of_another_size_are_refused(publish):
    publish("uji_library_longterm", months_archive(), 5, transmitters=5)
    with pytest.raises(DataError, match=r"expected rows and transmitters \(5, 5\), found \(4, 5\)"):
        loaders.load_uji_library_longterm()


# === Tampere ===


@pytest.mark.parametrize(
    ("name", "train", "test", "transmitters", "floors"),
    [("tut1", 1476, 490, 309, 4), ("tut2", 584, 176, 354, 3), ("tut5", 446, 982, 489, 3)],
)
def test_measured_tampere_has_the_published_counts(measured_tampere, name, train, test, transmitters, floors):
    loaded = measured_tampere[name]
    assert loaded.name == name and loaded.rssi.shape == (train + test, transmitters)
    assert ((loaded.part == "train").sum(), (loaded.part == "test").sum()) == (train, test)
    assert np.unique(loaded.floor).tolist() == list(range(floors))
    assert np.nanmin(loaded.rssi) >= -100 and np.nanmax(loaded.rssi) <= -20
    assert len(np.unique(loaded.position[loaded.part == "train"], axis=0)) > 0.9 * train / floors


def test_a_floor_that_is_not_quite_a_whole_number_is_rounded(publish):
    labels = np.array([[0.5, 1.5, 7.4, 1.9999999999999996, 1.0], [2.5, 3.5, 11.1, 3.0000000000000004, 1.0]])
    publish("tut1", struct(2, 6, {"trainingLabels": labels, "testLabels": labels}), 4, transmitters=6)
    loaded = loaders.load_tampere("tut1")
    assert loaded.floor.tolist() == [2, 3, 2, 3] and loaded.building.tolist() == [1] * 4
    assert loaded.transmitters[:2] == ("TUT1 AP 1", "TUT1 AP 2")
    np.testing.assert_array_equal(loaded.position, labels[[0, 1, 0, 1], :2])


# === SODIndoorLoc ===


@pytest.mark.parametrize(
    ("name", "train", "test", "transmitters", "floors", "phones"),
    [("cetc331", 955, 840, 52, [1, 2, 3], 1), ("hcxy", 11_370, 860, 56, [4], 6)],
)
def test_measured_offices_have_the_published_counts(measured_offices, name, train, test, transmitters, floors, phones):
    loaded = measured_offices[name]
    assert loaded.name == name and loaded.rssi.shape == (train + test, transmitters)
    assert ((loaded.part == "train").sum(), (loaded.part == "test").sum()) == (train, test)
    assert np.unique(loaded.floor).tolist() == floors and len(np.unique(loaded.group)) == phones
    assert np.nanmin(loaded.rssi) >= -104 and np.nanmax(loaded.rssi) <= -9
    assert all(transmitter.startswith(f"{name.upper()} MAC") for transmitter in loaded.transmitters)


def test_files_of_an_office_become_a_set(publish):
    table = pd.DataFrame(
        {"MAC7": [-50, 100, -60], "MAC2": [100, -70, -80], "ECoord": [1.0, 2, 3], "NCoord": [4.0, 5, 6]}
    )
    table = table.assign(FloorID=4, BuildingID=2, SceneID=1, UserID=5, PhoneID=[4, 5, 6], SampleTimes=1)
    publish("hcxy_training", table[:2].to_csv(index=False).encode(), 2, transmitters=2)
    publish("hcxy_testing", table[2:].to_csv(index=False).encode(), 1, transmitters=2)
    loaded = loaders.load_sodindoorloc("hcxy")
    assert loaded.transmitters == ("HCXY MAC7", "HCXY MAC2")
    np.testing.assert_array_equal(np.nan_to_num(loaded.rssi, nan=100), table[["MAC7", "MAC2"]])
    np.testing.assert_array_equal(loaded.position, table[["ECoord", "NCoord"]])
    assert loaded.part.tolist() == ["train", "train", "test"] and loaded.group.tolist() == [4, 5, 6]
    assert set(loaded.floor) == {4} and set(loaded.building) == {2} and loaded.release.rows == 3


@pytest.mark.parametrize("loader", [loaders.load_tampere, loaders.load_sodindoorloc])
def test_a_damaged_file_of_a_further_environment_is_refused(publish, data_folders, loader):
    environment = {"load_tampere": "tut2", "load_sodindoorloc": "cetc331"}[loader.__name__]
    for key, source in list(REGISTRY.items()):
        if source.environment == environment:
            path = publish(key, b"what was published", 1)
            path.write_bytes(lzma.compress(b"something else"))
    with pytest.raises(DataError, match="expected sha256"):
        loader(environment)
