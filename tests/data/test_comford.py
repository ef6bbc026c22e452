"""Folders in COMFORD's format are environments: the same rows as of the publisher's files, its split, its readings.

`comford/` was written by COMFORD 0.1.2 itself: nine rows of UJIIndoorLoc (six of training, of which one hears nothing,
and three of validation) in the place of its cached files, then `UJIDataset().process_raw_to_intermediate()`.
"""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import NearestNeighbors

from lib import metrics
from lib.data import datasets, protocols, reading, sources
from lib.data.reading import Options

FOLDER = Path(__file__).parent / "comford"


def rows_of(name: str) -> list[dict]:
    with (FOLDER / name).open(newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))


@pytest.fixture
def copied(tmp_path):
    """A copy of the folder, to change."""
    return Path(shutil.copytree(FOLDER, tmp_path / "office"))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def read(folder: Path, **options):
    return reading.read_fingerprints(folder, "office", Options(**options))


# === What is read ===


def test_every_sample_and_reading_of_a_folder_is_read():
    office = read(FOLDER)
    samples = rows_of("Samples.csv")
    np.testing.assert_array_equal(office.position, [(float(row["x"]), float(row["y"])) for row in samples])
    for field, column in {"floor": "floor", "building": "building", "group": "device"}.items():
        np.testing.assert_array_equal(getattr(office, field).astype(str), [row[column] for row in samples], field)
    seconds = office.time.astype("datetime64[s]").astype(int)
    np.testing.assert_array_equal(seconds, [int(row["timestamp"]) for row in samples])
    expected = np.full(office.rssi.shape, np.nan)
    for row in rows_of("RSSI.csv"):
        expected[int(row["sample_id"]), office.transmitters.index(row["ap_id"])] = float(row["rssi"])
    np.testing.assert_array_equal(office.rssi, expected)
    assert set(office.transmitters) == {row["ap_id"] for row in rows_of("APs.csv")}


def test_the_split_is_the_publishers_and_silent_scans_stay():
    office = read(FOLDER)
    assert list(office.part) == ["train"] * 6 + ["validation"] * 3
    assert list(np.flatnonzero(~office.heard.any(axis=1))) == [2]


def test_what_is_unknown_everywhere_is_not_there(copied):
    samples = rows_of("Samples.csv")
    lines = ["sample_id;x;y;floor;set"]
    lines += [f"{row['sample_id']};{row['x']};{row['y']};None;None" for row in samples]
    (copied / "Samples.csv").write_text("\n".join(lines))
    (copied / "APs.csv").unlink()
    office = read(copied)
    for field in ("floor", "building", "group", "time", "part"):
        assert getattr(office, field) is None, field


@pytest.mark.parametrize(
    ("name", "part"), [("testing", "test"), ("val", "validation"), ("Test", "test"), ("Fold 2", "fold 2")]
)
def test_parts_have_the_usual_names(copied, name, part):
    change(copied / "Samples.csv", ";validation;", f";{name};")
    assert list(read(copied).part[-3:]) == [part] * 3


def test_the_columns_of_the_specification_are_read_like_those_of_the_code(copied):
    change(copied / "Samples.csv", ";set;", ";test/train/val;")
    assert list(read(copied).part) == list(read(FOLDER).part)


def test_another_column_may_be_the_device_and_columns_may_be_left_out():
    office = read(FOLDER, columns={"device": "user"}, ignore=("floor", "WAP4*"))
    assert list(office.group) == [row["user"] for row in rows_of("Samples.csv")]
    assert office.floor is None and not any(name.startswith("WAP4") for name in office.transmitters)


def test_a_folder_can_be_located_and_is_described():
    told = []
    known = reading.read_fingerprints(FOLDER, "office", tell=told.append)
    scans = reading.read_scans(FOLDER, reading.Spellings(known.transmitters))
    np.testing.assert_array_equal(scans.rssi, known.rssi)
    assert list(scans.names) == [row["sample_id"] for row in rows_of("Samples.csv")]
    assert "COMFORD, 9 scans, 37 transmitters" in told[0] and "part from set" in told[0]


# === What is refused ===


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(folder)


@pytest.mark.parametrize("name", ["Samples.csv", "RSSI.csv"])
def test_a_folder_without_one_of_the_files_is_refused(copied, name):
    (copied / name).unlink()
    refused(copied, f"office: expected a file, or a folder in COMFORD's .*Received: a folder without {name}")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("Samples.csv", "\n8;", "\n7;", r"Samples\.csv: expected each sample_id once\. Received twice: 7"),
        ("Samples.csv", "\n8;", "\n;", r"Samples\.csv: expected a sample_id in every row\. Received: 1 rows"),
        ("Samples.csv", "sample_id", "number", r"Samples\.csv: expected a column sample_id"),
        ("Samples.csv", "\n8;", "\n9;", r"RSSI\.csv: expected readings of the scans .*sample_id 8, which is not there"),
        (
            "Samples.csv",
            ";validation;2;0;",
            ";validation;attic;0;",
            "office: scan 8, column floor: expected a whole number",
        ),
        ("RSSI.csv", "\n8;-", "\n8;", "office: scan 8, transmitter WAP.*"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_place(copied, file, old, new, message):
    change(copied / file, old, new)
    refused(copied, message)


# === As an environment ===


def test_a_folder_is_an_environment_by_its_path(copied):
    loaded = datasets.load(str(copied))
    assert loaded.name == "office" and loaded.release.file == "office" and not loaded.release.simulated
    with pytest.raises(ValueError, match=r"or a folder in COMFORD's format\. Received: nowhere"):
        datasets.load("nowhere")


def test_the_protocol_of_a_folder_is_its_split(copied):
    """Without a part `test`, `validation` tests, as in COMFORD; with one, it validates."""
    parts = protocols.load(str(copied))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (6, 0, 3)
    assert parts.environment == "office" and parts.transmitters == parts.train.transmitters
    change(copied / "Samples.csv", ";validation;2;", ";testing;2;")
    protocols.load.cache_clear()
    parts = protocols.load(str(copied))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (6, 2, 1)


def test_a_folder_without_a_split_has_no_protocol(copied):
    for name in ("training", "validation"):
        change(copied / "Samples.csv", f";{name};", ";None;")
    with pytest.raises(ValueError, match=r"office.*: rows need part"):
        protocols.load(str(copied))


# === Beside COMFORD itself, where it is installed ===


def nearest(learnt, asked) -> np.ndarray:
    """Of each asked scan, the number of the learnt one that hears most alike."""
    levels = [np.nan_to_num(rows.scans.of(learnt.transmitters), nan=-105) for rows in (learnt, asked)]
    neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(levels[0])
    return neighbours.kneighbors(levels[1], return_distance=False)[:, 0]


def coordinates(rows) -> pd.DataFrame:
    x, y = rows.position.T
    return pd.DataFrame({"x": x, "y": y, "floor": rows.floor, "building": rows.building})


@pytest.fixture(scope="module")
def shared_campus(measured_campus, tmp_path_factory):
    """The folder that COMFORD makes of the whole of UJIIndoorLoc."""
    download = pytest.importorskip("comford.data._download")
    data = pytest.importorskip("comford.data")
    home = tmp_path_factory.mktemp("comford")
    raw = home / "uji" / "UJIndoorLoc"
    raw.mkdir(parents=True)
    for source in sources.files_of("ujiindoorloc"):
        content = sources.checked(sources.find(source), source)
        (raw / Path(source.file).name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(download, "COMFORD_DATA_HOME", home)
        campus = data.UJIDataset()
        campus.load_raw()
        campus.process_raw_to_intermediate()
    return home / "uji" / "intermediate"


@pytest.mark.slow
def test_the_whole_folder_has_the_same_rows_as_the_publishers_files(shared_campus, measured_campus):
    """COMFORD's columns `device` and `user` hold USERID and PHONEID of the publisher."""
    folder = reading.read_fingerprints(shared_campus, "ujiindoorloc", Options(columns={"device": "user"}))
    np.testing.assert_array_equal(folder.scans.of(measured_campus.transmitters), measured_campus.rssi)
    plane = measured_campus.frame.to_publisher(measured_campus.position)
    np.testing.assert_array_equal(folder.position, plane)
    for field in ("floor", "building", "part", "time"):
        np.testing.assert_array_equal(getattr(folder, field), getattr(measured_campus, field), err_msg=field)
    np.testing.assert_array_equal(folder.group, measured_campus.group.astype(str))


@pytest.mark.slow
def test_scores_are_those_of_comford_but_for_how_penalties_are_added(measured_campus):
    """EvAAL adds a penalty to an error; COMFORD takes it for the height of a triangle whose base is the error."""
    evaluation = pytest.importorskip("comford.evaluation")
    learnt = measured_campus[measured_campus.part == "train"]
    asked = measured_campus[measured_campus.part == "validation"]
    located = learnt[nearest(learnt, asked)]
    errors = metrics.euclidean_errors(asked.position, located.position)
    floors_off = located.floor - asked.floor
    wrong_building = located.building != asked.building
    assert (np.abs(floors_off) > 1).any() and wrong_building.any()
    ours = metrics.evaal_score(errors, floors_off, wrong_building)
    theirs = evaluation.evaluate(coordinates(asked), coordinates(located))
    assert theirs["error_2d_mean_m"] == pytest.approx(errors.mean())
    assert theirs["floor_accuracy"] == np.mean(floors_off == 0)
    assert theirs["building_accuracy"] == np.mean(~wrong_building)
    penalties = metrics.FLOOR_PENALTY_M * np.abs(floors_off) + metrics.BUILDING_PENALTY_M * wrong_building
    heights = np.percentile(np.hypot(errors, penalties), 75)
    assert theirs["error_3d_penalized_p75_m"] == pytest.approx(heights)
    assert theirs["error_3d_penalized_p75_m"] < ours
    right = penalties == 0
    of_right = evaluation.evaluate(coordinates(asked[right]), coordinates(located[right]))
    expected = metrics.evaal_score(errors[right], floors_off[right], wrong_building[right])
    assert of_right["error_3d_penalized_p75_m"] == pytest.approx(expected)
