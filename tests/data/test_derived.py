"""Who has a publisher's release gets the same rows as who has the subset: made byte for byte, or refused."""

import dataclasses
import hashlib
import io
import lzma
import sys
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest

from lib import paths
from lib.data import datasets, derived, sources
from lib.data.sources import REGISTRY, DataError

ROWS = {"lorawan_3gw": 40, "sigfox_rural": 25}
STATIONS = {"lorawan_3gw": 72, "sigfox_rural": 137}


# === Made releases, in the publishers' formats ===


def messages(stations: int, rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Levels and degrees; some messages hear the same, and one comes twice."""
    rng = np.random.default_rng(0)
    levels = rng.integers(-147, -60, (rows, stations))
    levels[rng.random(levels.shape) < 0.9] = -200
    degrees = np.round([51.2, 4.2] + rng.random((rows, 2)) / 10, rng.integers(5, 16))
    levels[3:9] = levels[2]
    levels[11], degrees[11] = levels[10], degrees[10]
    return pd.DataFrame(levels), pd.DataFrame(degrees)


def lorawan_files() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A release with all columns of the published one, and its subset in another order."""
    levels, degrees = messages(72, 300)
    levels.columns = [f"BS {number}" for number in range(1, 73)]
    degrees.columns = ["Latitude", "Longitude"]
    about = pd.DataFrame({"RX Time": "2018-11-01T00:00:00.000000+00:00", "SF": 7, "HDOP": 1.5}, index=levels.index)
    release = pd.concat([levels, about, degrees], axis=1)
    chosen = [10, *np.random.default_rng(1).permutation(np.arange(11, 300))[: ROWS["lorawan_3gw"] - 1]]
    subset = pd.concat([levels, degrees], axis=1).iloc[chosen]
    return release, subset.assign(split=["val"] * 20 + ["test"] * 20)


def sigfox_files() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A release whose names of columns have quotes, and its subset, whose columns are numbered."""
    levels, degrees = messages(137, 100)
    degrees.columns = [137, 138]
    subset = pd.concat([levels, degrees], axis=1).iloc[: ROWS["sigfox_rural"]]
    release = pd.concat([levels.add_prefix("'BS ").add_suffix("'"), degrees], axis=1)
    release = release.rename(columns={137: "'Latitude'", 138: "'Longitude'"})
    release.insert(137, "'RX Time'", "'2017-11-16 15:00:00'")
    return release, subset


FILES = {"lorawan_3gw": lorawan_files, "sigfox_rural": sigfox_files}


@pytest.fixture(params=FILES)
def at_hand(request, data_folders, monkeypatch, tmp_path):
    """(key of a subset, its content, path of its release): the release is in the last folder, the subset nowhere."""
    key = request.param
    release, subset = FILES[key]()
    content = subset.to_csv(index=False).encode()
    written = tmp_path / f"{key}.csv"
    written.write_bytes(content)
    monkeypatch.setattr(derived, "ROWS", tmp_path / "rows")
    monkeypatch.setattr(sys, "argv", ["derived", str(written), str(tmp_path / "rows" / f"{key}.bin")])
    derived.main()
    sha256 = hashlib.sha256(content).hexdigest()
    source = dataclasses.replace(REGISTRY[key], sha256=sha256, size=len(content), rows=len(subset))
    monkeypatch.setitem(REGISTRY, key, source)
    path = data_folders[2] / REGISTRY[source.derived_from[0]].file
    path.parent.mkdir(parents=True)
    release.to_csv(path, index=False)
    return key, content, path


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


# === Rows of a release ===


def test_a_subset_is_made_of_the_release_at_hand_byte_for_byte(at_hand, data_folders, capsys):
    key, content, path = at_hand
    made = sources.obtain(REGISTRY[key])
    assert made == data_folders[0] / REGISTRY[key].file and made.read_bytes() == content
    assert f"is made from {path}" in capsys.readouterr().err
    path.unlink()
    assert sources.obtain(REGISTRY[key]) == made


def test_a_compressed_release_serves(at_hand):
    key, content, path = at_hand
    path.with_suffix(".csv.xz").write_bytes(lzma.compress(path.read_bytes()))
    path.unlink()
    assert sources.obtain(REGISTRY[key]).read_bytes() == content


def test_a_release_that_is_not_at_hand_is_fetched_first(at_hand, data_folders, monkeypatch):
    key, content, path = at_hand
    text = path.read_bytes()
    path.unlink()

    def fetch(source, folder):
        target = data_folders[0] / source.file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text)
        return target

    monkeypatch.setattr(sources, "fetch", fetch)
    assert sources.obtain(REGISTRY[key]).read_bytes() == content


def test_a_release_that_lacks_a_row_is_refused_and_nothing_is_written(at_hand, data_folders):
    key, _, path = at_hand
    table = pd.read_csv(path)
    table.drop(index=[10, 11]).to_csv(path, index=False)
    with pytest.raises(
        ValueError, match=rf"{path.name}: expected the {ROWS[key]} rows of {key}\. .* lack [12] of them"
    ):
        sources.obtain(REGISTRY[key])
    assert not files_below(data_folders[0])


def test_a_result_with_another_checksum_is_refused_and_nothing_is_written(at_hand, data_folders, monkeypatch):
    key, _, path = at_hand
    monkeypatch.setitem(REGISTRY, key, dataclasses.replace(REGISTRY[key], sha256="0" * 64))
    with pytest.raises(DataError, match=f"made from .*{path.name}: expected sha256 000"):
        sources.obtain(REGISTRY[key])
    assert not files_below(data_folders[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.iloc[:, :-1], "latitude and longitude"),
        (lambda table: table.replace(-200, -199.5), "whole dBm"),
    ],
)
def test_a_file_that_is_no_such_release_is_refused(at_hand, change, message):
    key, _, path = at_hand
    table = pd.read_csv(path)
    change(table).to_csv(path, index=False)
    with pytest.raises(ValueError, match=f"{path.name}: expected .*{message}"):
        sources.obtain(REGISTRY[key])


def test_neither_file_nor_release_nor_publisher_names_what_could_not_be_fetched(data_folders):
    with pytest.raises(FileNotFoundError, match=r"could not be fetched for .*lorawan_antwerp_2019_dataset\.csv"):
        sources.obtain(REGISTRY["lorawan_3gw"])
    assert not files_below(data_folders[0])


@pytest.mark.parametrize(("key", "rows"), [("lorawan_3gw", 130_429), ("sigfox_rural", 25_638)])
def test_committed_digests_are_of_the_registered_rows_and_tell_them_apart(key, rows):
    source = REGISTRY[key]
    content = (derived.ROWS / f"{key}.bin").read_bytes()
    assert len(content) == derived.DIGEST_BYTES * source.rows
    assert source.rows * rows / 2 ** (8 * derived.DIGEST_BYTES) < 1e-5


# === The measured files, put among other rows ===


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key in FILES if sources.find(REGISTRY[key])])
def test_measured_subset_is_found_among_others(key, tmp_path):
    """No release is at hand here: the rows of the subset are shuffled among others that hear the same elsewhere."""
    content = sources.checked(sources.find(REGISTRY[key]), REGISTRY[key])
    subset = pd.read_csv(io.BytesIO(content)).select_dtypes("number")
    subset.columns = [*subset.columns[:-2], "Latitude", "Longitude"]
    others = subset.assign(Longitude=subset["Longitude"] + 0.01)
    release = pd.concat([subset, others]).sample(frac=1, random_state=0)
    release.to_csv(tmp_path / "release.csv", index=False)
    assert derived.DERIVATIONS[REGISTRY[key].made_by](tmp_path / "release.csv") == content


# === The library ===


def library_archive(path, missing: str = "") -> None:
    """Six sets of four scans each and 620 access points as in the release, zipped or as tar.xz."""
    rng = np.random.default_rng(0)
    files = {}
    for name in derived.LIBRARY_SETS:
        levels = rng.integers(-98, -38, (4, 620))
        places = np.column_stack([np.round(rng.random((4, 2)) * 20, 8), [3, 3, 5, 5]])
        for kind, values in {"rss": levels, "crd": places, "tms": levels}.items():
            files[f"UJI_LIB_DB_v2/db/01/{name}{kind}.csv"] = pd.DataFrame(values).to_csv(index=False, header=False)
            files[f"UJI_LIB_DB_v2/db/02/{name}{kind}.csv"] = "1,2,3\n"
    files.pop(missing, None)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return
    with tarfile.open(path, "w:xz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


def test_the_library_is_the_same_from_zip_and_tar(tmp_path):
    made = []
    for name in ("release.zip", "release.tar.xz"):
        library_archive(tmp_path / name)
        made.append(derived.library_month(tmp_path / name))
    table = pd.read_csv(io.BytesIO(made[0]))
    assert made[0] == made[1] and table.shape == (24, 174 + 5)
    assert list(table["PART"]) == ["train"] * 4 + ["test"] * 20


@pytest.mark.parametrize("kind", ["rss", "crd"])
def test_a_library_archive_without_a_set_is_refused(tmp_path, kind):
    library_archive(tmp_path / "release.zip", missing=f"UJI_LIB_DB_v2/db/01/tst03{kind}.csv")
    with pytest.raises(ValueError, match=rf"release\.zip: expected db/01/trn01rss\.csv.*db/01/tst03{kind}\.csv"):
        derived.library_month(tmp_path / "release.zip")


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "release.zip").write_text("<html>Sorry</html>")
    with pytest.raises(ValueError, match=r"release\.zip: expected a zip or tar"):
        derived.library_month(tmp_path / "release.zip")


LIBRARY = [sources.find(REGISTRY[key]) for key in ("uji_library", "uji_library_longterm")]


@pytest.mark.slow
@pytest.mark.skipif(not all(LIBRARY), reason="LIB1.mat and the release of 25 months are not both at hand")
def test_measured_library_is_the_same_from_both_forms(data_folders):
    """The `.mat` file cannot be made again byte for byte: its rows can, and both forms are one release."""
    sets = []
    for path in LIBRARY:
        link = data_folders[0] / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
        for source in sources.files_of("uji_library"):
            sources.obtain(source)
        sets.append(datasets.load("uji_library"))
        link.unlink()
    mat, text = sets
    assert mat.release == text.release and mat.transmitters == text.transmitters
    for field in ("rssi", "position", "floor", "building", "part"):
        np.testing.assert_array_equal(getattr(mat, field), getattr(text, field), err_msg=field)


# === Which LoRaWAN messages ===


def test_the_subset_is_the_default_also_where_all_messages_are_at_hand(data_folders, monkeypatch):
    for key in ("lorawan_full", "lorawan_3gw"):
        path = data_folders[0] / REGISTRY[key].file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sources.files_of("lorawan_antwerp") == [REGISTRY["lorawan_3gw"]]
    monkeypatch.setenv("LORAWAN", "full")
    assert sources.files_of("lorawan_antwerp") == [REGISTRY["lorawan_full"]]
    assert sources.files_of("ujiindoorloc") == [REGISTRY["uji_training"], REGISTRY["uji_validation"]]


@pytest.mark.parametrize("value", ["", "all", "Full"])
def test_other_values_of_lorawan_are_refused(data_folders, monkeypatch, value):
    monkeypatch.setenv("LORAWAN", value)
    with pytest.raises(ValueError, match=f"LORAWAN must be one of subset, full. Received: LORAWAN={value}$"):
        datasets.load("lorawan_antwerp")


@pytest.mark.parametrize(
    ("simulated", "lorawan", "folder"),
    [(False, "subset", "."), (False, "full", "benchmark/lorawan_full"), (True, "full", "benchmark/simulated")],
)
def test_results_of_all_messages_never_take_the_place_of_the_committed_ones(
    tmp_path, monkeypatch, simulated, lorawan, folder
):
    monkeypatch.setenv("FINGERPRINT_OUTPUTS", str(tmp_path))
    monkeypatch.setenv("PROFILE", "benchmark")
    monkeypatch.setenv("LORAWAN", lorawan)
    assert paths.workspace(simulated).outputs == tmp_path / folder
