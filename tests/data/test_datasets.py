"""The publishers' files: what is in them, what happens when one is damaged or missing, and how one is fetched."""

import dataclasses
import hashlib
import http.server
import json
import lzma
import sys
import threading
import zipfile

import numpy as np
import pandas as pd
import pytest

from lib import paths
from lib.data import datasets, derived, fingerprints, frames, loaders, protocols, sources
from lib.data.sources import REGISTRY, DataError

WAPS = [f"WAP{number:03d}" for number in range(1, 521)]
GATEWAYS = [f"BS {number}" for number in range(1, 73)]
UJI = ("uji_training", "uji_validation")


# === Made files, in the publishers' formats ===


def uji_table(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rssi = rng.integers(-104, 1, (rows, 520))
    table = pd.DataFrame(np.where(rng.random(rssi.shape) < 0.9, 100, rssi), columns=WAPS)
    table["LONGITUDE"] = -7600 + rng.random(rows) * 300
    table["LATITUDE"] = 4864800 + rng.random(rows) * 200
    for column, largest in {"FLOOR": 4, "BUILDINGID": 2, "SPACEID": 200, "RELATIVEPOSITION": 2}.items():
        table[column] = rng.integers(0, largest + 1, rows)
    return table.assign(USERID=1, PHONEID=rng.integers(0, 25, rows), TIMESTAMP=1371713733 + np.arange(rows))


def lorawan_table(rows: int, seed: int = 0) -> pd.DataFrame:
    """Messages of vehicles that stop at 3,000 places, each heard by one to six gateways."""
    rng = np.random.default_rng(seed)
    heard = rng.random((rows, 72)).argsort(axis=1)[:, :6]
    rssi = np.full((rows, 72), -200)
    levels = np.where(np.arange(6) < rng.integers(1, 7, (rows, 1)), rng.integers(-127, -59, (rows, 6)), -200)
    np.put_along_axis(rssi, heard, levels, axis=1)
    places = rng.normal([51.21, 4.42], [0.015, 0.02], (3000, 2))[rng.integers(3000, size=rows)]
    degrees = places + rng.normal(0, 2e-5, places.shape)
    table = pd.DataFrame(rssi, columns=GATEWAYS)
    return table.assign(Latitude=degrees[:, 0], Longitude=degrees[:, 1])


def csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()


def register(monkeypatch, key: str, content: bytes, rows: int, **changes) -> sources.Source:
    """Let `content` be what the publisher's file should hold."""
    sha256 = hashlib.sha256(content).hexdigest()
    source = dataclasses.replace(REGISTRY[key], sha256=sha256, rows=rows, size=len(content), **changes)
    monkeypatch.setitem(REGISTRY, key, source)
    return source


def put(folder, source, content: bytes, compressed: bool = False):
    path = folder / (source.file + ".xz" * compressed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(content) if compressed else content)
    return path


@pytest.fixture
def uji_files(data_folders, monkeypatch):
    """The two made UJIIndoorLoc files in `data/raw`, 40 and 10 rows; their tables."""
    tables = dict(zip(UJI, (uji_table(40, 0), uji_table(10, 1)), strict=True))
    for key, table in tables.items():
        put(data_folders[0], register(monkeypatch, key, csv(table), len(table)), csv(table))
    return tables


@pytest.fixture
def lorawan_file(data_folders, monkeypatch):
    """A made file of the ≥ 3-gateway subset in `data/raw`, 60 rows; its table."""
    table = lorawan_table(60).assign(split=["val", "test"] * 30)
    put(data_folders[0], register(monkeypatch, "lorawan_3gw", csv(table), 60), csv(table))
    return table


# === Loading ===


def test_uji_files_become_one_set(uji_files):
    loaded, table = loaders.load_ujiindoorloc(), pd.concat(uji_files.values(), ignore_index=True)
    assert (loaded.name, len(loaded), len(loaded.transmitters)) == ("ujiindoorloc", 50, 520)
    assert loaded.rssi.dtype == np.float32 and loaded.position.dtype == np.float64
    np.testing.assert_array_equal(np.nan_to_num(loaded.rssi, nan=100), table[WAPS])
    assert not (loaded.rssi == 100).any()
    np.testing.assert_allclose(
        loaded.frame.to_publisher(loaded.position), table[["LONGITUDE", "LATITUDE"]], rtol=0, atol=1e-9
    )
    np.testing.assert_array_equal(loaded.part, ["train"] * 40 + ["validation"] * 10)
    fields = {"floor": "FLOOR", "building": "BUILDINGID", "group": "PHONEID"}
    for field, column in fields.items():
        np.testing.assert_array_equal(getattr(loaded, field), table[column], err_msg=field)
    np.testing.assert_array_equal(loaded.time.astype("datetime64[s]").astype(int), table["TIMESTAMP"])
    assert loaded.position.min() >= 0 and loaded.frame.ground_scale == pytest.approx(0.766, abs=0.001)
    assert loaded.release.rows == 50 and not loaded.release.simulated and loaded.release.of_the_paper
    assert loaded.not_heard == loaded.not_heard_dbm == -105 and not loaded.frame.great_circle


def test_lorawan_subset_becomes_a_set(lorawan_file):
    loaded = loaders.load_lorawan_antwerp()
    assert (loaded.name, len(loaded), loaded.transmitters) == ("lorawan_antwerp", 60, tuple(GATEWAYS))
    np.testing.assert_array_equal(np.nan_to_num(loaded.rssi, nan=-200), lorawan_file[GATEWAYS])
    np.testing.assert_allclose(
        loaded.frame.to_degrees(loaded.position), lorawan_file[["Latitude", "Longitude"]], rtol=0, atol=1e-9
    )
    np.testing.assert_array_equal(loaded.part, lorawan_file["split"])
    assert loaded.time is None and loaded.floor is None
    assert not loaded.release.of_the_paper  # the paper used the full release
    assert loaded.not_heard == loaded.not_heard_dbm == -128 and loaded.frame.great_circle


def test_compressed_files_read_the_same(uji_files, data_folders, monkeypatch):
    plain = loaders.load_ujiindoorloc()
    for key, table in uji_files.items():
        (data_folders[0] / REGISTRY[key].file).unlink()
        put(data_folders[2], REGISTRY[key], csv(table), compressed=True)
    compressed = loaders.load_ujiindoorloc()
    np.testing.assert_array_equal(plain.rssi, compressed.rssi)
    assert plain.release == compressed.release


def test_unknown_environment_is_named(data_folders):
    with pytest.raises(ValueError, match=r"lorawan_antwerp, sigfox_rural, .*hcxy, or a folder .* Received: nowhere"):
        datasets.load("nowhere")


@pytest.mark.parametrize("rows", [13_000, pytest.param(130_429, marks=pytest.mark.slow)])
def test_full_lorawan_release_is_read_and_split(data_folders, monkeypatch, rows):
    """As many columns as the published file, and rows; only LORAWAN=full takes it, also where the subset is missing."""
    monkeypatch.setenv("LORAWAN", "full")
    about = lorawan_table(rows)
    seconds = pd.Timestamp("2018-11-01") + pd.to_timedelta(np.arange(rows) * 7, unit="s")
    about.insert(72, "RX Time", seconds.strftime("%Y-%m-%dT%H:%M:%S.123000+00:00"))
    about.insert(73, "SF", 7 + np.arange(rows) % 6)
    about.insert(74, "HDOP", 1.5)
    assert about.shape == (rows, 77)
    content = csv(about)
    put(data_folders[1], register(monkeypatch, "lorawan_full", content, rows), content)
    subset = csv(lorawan_table(20).assign(split="val"))
    put(data_folders[0], register(monkeypatch, "lorawan_3gw", subset, 20), subset)

    loaded = loaders.load_lorawan_antwerp()
    assert (len(loaded), loaded.part) == (rows, None)
    assert loaded.release.file == "lorawan_antwerp_2019_dataset.csv" and loaded.release.rows == rows
    assert loaded.release.of_the_paper
    np.testing.assert_array_equal(np.isnan(loaded.rssi), about[GATEWAYS] == -200)
    assert loaded.heard.any(axis=1).all() and -127 <= loaded.heard_values.min() <= loaded.heard_values.max() <= -60
    expected = (seconds + pd.Timedelta("123ms")).to_numpy()
    np.testing.assert_array_equal(loaded.time, expected)

    random = protocols.random(loaded)
    for part, share in (("train", 0.70), ("validation", 0.15), ("test", 0.15)):
        assert len(getattr(random, part)) == pytest.approx(share * rows, rel=0.02)
    spatial = protocols.spatial(loaded)
    assert np.median(protocols.distance_to_training(random.train, random.test)) < 5
    assert np.median(protocols.distance_to_training(spatial.train, spatial.test)) > 5


# === Damaged files ===


def assert_refused(loader, *expected: str) -> None:
    with pytest.raises(DataError) as raised:
        loader()
    for text in (*expected, "expected", "found", "The file was not used"):
        assert text in str(raised.value)


@pytest.mark.parametrize("key", UJI)
def test_changed_byte_is_refused_with_both_checksums(uji_files, data_folders, key):
    source = REGISTRY[key]
    path = data_folders[0] / source.file
    content = path.read_bytes().replace(b"-", b"1", 1)
    path.write_bytes(content)
    assert_refused(loaders.load_ujiindoorloc, str(path), source.sha256, hashlib.sha256(content).hexdigest())


def test_truncated_file_is_refused_with_its_size(uji_files, data_folders):
    path = data_folders[0] / REGISTRY["uji_training"].file
    path.write_bytes(path.read_bytes()[:5000])
    assert_refused(loaders.load_ujiindoorloc, str(path), "5,000 bytes")


def test_empty_file_is_refused(lorawan_file, data_folders):
    path = data_folders[0] / REGISTRY["lorawan_3gw"].file
    path.write_bytes(b"")
    assert_refused(loaders.load_lorawan_antwerp, str(path), "0 bytes")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:40] + b"\x00\xff\x00\xff" + content[44:],
        lambda content: b"this is no xz file",
        lambda content: content[:-8],
    ],
    ids=["truncated", "overwritten", "another format", "without its end"],
)
def test_damaged_xz_is_refused(lorawan_file, data_folders, damage):
    source = REGISTRY["lorawan_3gw"]
    (data_folders[0] / source.file).unlink()
    path = put(data_folders[0], source, csv(lorawan_file), compressed=True)
    path.write_bytes(damage(path.read_bytes()))
    assert_refused(loaders.load_lorawan_antwerp, str(path), "a complete xz file", "truncated or corrupt")


@pytest.mark.parametrize("key", UJI)
@pytest.mark.parametrize("column", ["WAP003", "FLOOR", "PHONEID", "LATITUDE"])
def test_missing_column_of_uji_is_named(uji_files, data_folders, monkeypatch, key, column):
    table = uji_files[key].drop(columns=column)
    path = put(data_folders[0], register(monkeypatch, key, csv(table), len(table)), csv(table))
    assert_refused(loaders.load_ujiindoorloc, str(path), "columns WAP001, WAP002, WAP003", f"no column {column}")


@pytest.mark.parametrize("column", ["BS 72", "Longitude", "split"])
def test_missing_column_of_lorawan_is_named(lorawan_file, data_folders, monkeypatch, column):
    table = lorawan_file.drop(columns=column)
    path = put(data_folders[0], register(monkeypatch, "lorawan_3gw", csv(table), len(table)), csv(table))
    assert_refused(loaders.load_lorawan_antwerp, str(path), "columns BS 1, BS 2", f"no column {column}")


@pytest.mark.parametrize("rows", [39, 41, 19_937])
def test_wrong_number_of_rows_is_refused(uji_files, data_folders, monkeypatch, rows):
    source = register(monkeypatch, "uji_training", csv(uji_files["uji_training"]), rows)
    assert_refused(loaders.load_ujiindoorloc, str(data_folders[0] / source.file), f"{rows:,} rows", "found 40")


@pytest.mark.parametrize("key", UJI)
def test_value_that_no_receiver_reports_is_refused(uji_files, data_folders, monkeypatch, key):
    table = uji_files[key]
    table.loc[3, "WAP007"] = 50
    source = register(monkeypatch, key, csv(table), len(table))
    put(data_folders[0], source, csv(table))
    assert_refused(loaders.load_ujiindoorloc, source.file, "at most 0 dBm", "found 50")


def test_a_damaged_file_is_not_simulated_away(uji_files, lorawan_file, data_folders, monkeypatch):
    monkeypatch.setenv("DATA", "auto")
    path = data_folders[0] / REGISTRY["uji_validation"].file
    path.write_bytes(b"damaged")
    assert_refused(lambda: datasets.load("ujiindoorloc"), str(path))
    assert path.read_bytes() == b"damaged"


def test_file_that_does_not_fit_in_memory_is_refused_before_it_is_read(uji_files, monkeypatch):
    large = dataclasses.replace(REGISTRY["uji_training"], rows=1_000_000, transmitters=10_000, sha256="not even read")
    monkeypatch.setitem(REGISTRY, "uji_training", large)
    monkeypatch.setattr(fingerprints, "available_memory", lambda: 40_000_000_000)
    with pytest.raises(MemoryError, match="1,000,000 rows × 10,000 transmitters"):
        loaders.load_ujiindoorloc()


# === Where files are looked for ===


def test_folders_are_searched_in_order(data_folders):
    """The first of the folders that has the file serves, compressed or not; within a folder the plain file."""
    source = REGISTRY["uji_training"]
    found = [put(folder, source, b"", xz) for folder in data_folders for xz in (False, True)]
    for expected in found:
        assert sources.find(source) == expected
        expected.unlink()
    assert sources.find(source) is None


def test_folder_of_the_environment_variable_is_optional(data_folders, monkeypatch):
    monkeypatch.delenv("FINGERPRINT_DATA")
    assert paths.data_folders() == [data_folders[0], data_folders[2]]


def test_loading_without_file_says_where_it_was_looked_for(data_folders):
    with pytest.raises(FileNotFoundError, match=r"trainingData\.csv") as raised:
        loaders.load_ujiindoorloc()
    assert all(str(folder) in str(raised.value) for folder in data_folders)


# === Downloads, from a server on this machine ===


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder, and the address under which its files can be fetched."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, directory=folder, **options)

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def write_zip(path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"UJIndoorLoc/{name}.csv", content)


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_member_of_a_zip_is_put_in_place(served, tmp_path, monkeypatch):
    folder, address = served
    content = csv(uji_table(5, 0))
    write_zip(folder / "uji.zip", validationData=b"another", trainingData=content)
    source = register(monkeypatch, "uji_training", content, 5, url=f"{address}/uji.zip")
    path = sources.fetch(source, tmp_path / "raw")
    assert path == tmp_path / "raw" / source.file and path.read_bytes() == content
    assert files_below(tmp_path / "raw") == [path]


def test_plain_file_is_put_in_place(served, tmp_path, monkeypatch):
    folder, address = served
    (folder / "lora.csv").write_bytes(b"BS 1\n-120\n")
    source = register(monkeypatch, "lorawan_full", b"BS 1\n-120\n", 1, url=f"{address}/lora.csv?download=1")
    assert sources.fetch(source, tmp_path / "raw").read_bytes() == b"BS 1\n-120\n"


@pytest.mark.parametrize("key", ["uji_training", "lorawan_full"])
def test_download_with_another_checksum_leaves_nothing(served, tmp_path, monkeypatch, key):
    folder, address = served
    write_zip(folder / "file", trainingData=b"not what was published")
    source = dataclasses.replace(REGISTRY[key], url=f"{address}/file")
    assert_refused(lambda: sources.fetch(source, tmp_path / "raw"), source.sha256)
    assert files_below(tmp_path / "raw") == []


def flip(content: bytes) -> bytes:
    """Damage the compressed data of the first member, which starts after its header of 30 bytes and its name."""
    start = 30 + len("UJIndoorLoc/trainingData.csv") + 20
    return content[:start] + bytes(255 - byte for byte in content[start : start + 40]) + content[start + 40 :]


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:300], lambda content: b"<html>Sorry</html>", flip],
    ids=["truncated", "no zip", "damaged member"],
)
def test_damaged_zip_is_refused(served, tmp_path, monkeypatch, damage):
    folder, address = served
    content = csv(uji_table(5, 0))
    write_zip(folder / "uji.zip", trainingData=content)
    (folder / "uji.zip").write_bytes(damage((folder / "uji.zip").read_bytes()))
    source = register(monkeypatch, "uji_training", content, 5, url=f"{address}/uji.zip")
    assert_refused(lambda: sources.fetch(source, tmp_path / "raw"), source.url, "a zip with trainingData.csv")
    assert files_below(tmp_path / "raw") == []


def test_zip_without_the_member_is_refused(served, tmp_path, monkeypatch):
    folder, address = served
    write_zip(folder / "uji.zip", validationData=b"1")
    source = dataclasses.replace(REGISTRY["uji_training"], url=f"{address}/uji.zip")
    assert_refused(lambda: sources.fetch(source, tmp_path / "raw"), source.url, "no such member")


def test_publisher_that_does_not_answer_is_named(data_folders):
    source = REGISTRY["lorawan_full"]
    with pytest.raises(FileNotFoundError, match=f"{source.url} could not be fetched"):
        sources.fetch(source, data_folders[0])
    assert not any(files_below(folder) for folder in data_folders)


def test_file_that_the_publisher_no_longer_has_is_named(served, tmp_path):
    source = dataclasses.replace(REGISTRY["lorawan_full"], url=f"{served[1]}/gone.csv")
    with pytest.raises(FileNotFoundError, match=r"gone\.csv could not be fetched"):
        sources.fetch(source, tmp_path / "raw")


def test_file_without_address_cannot_be_fetched(tmp_path):
    with pytest.raises(FileNotFoundError, match="offers no direct download"):
        sources.fetch(REGISTRY["lorawan_3gw"], tmp_path)


# === Environments that have no simulation ===

MEASURED_ONLY = [name for name in datasets.LOADERS if name not in datasets.SIMULATORS]


@pytest.mark.parametrize(("mode", "message"), [("simulated", "has no simulation"), ("auto", "is in none of")])
@pytest.mark.parametrize("environment", MEASURED_ONLY)
def test_an_environment_without_a_simulator_is_measured_or_not_at_all(
    data_folders, monkeypatch, environment, mode, message
):
    monkeypatch.setenv("DATA", mode)
    with pytest.raises(FileNotFoundError, match=message):
        datasets.load(environment)
    assert not datasets.at_hand(environment)


@pytest.mark.parametrize("environment", MEASURED_ONLY)
def test_a_missing_file_is_named_with_its_licence_and_where_it_comes_from(data_folders, environment):
    with pytest.raises(FileNotFoundError) as raised:
        datasets.load(environment)
    source = sources.files_of(environment)[0]
    for text in (source.file, source.licence, source.publisher, str(data_folders[0])):
        assert text in str(raised.value)


def test_an_environment_is_at_hand_where_all_of_its_files_are(uji_files, lorawan_file, data_folders):
    assert datasets.at_hand("ujiindoorloc") and not datasets.at_hand("cetc331")
    for source in sources.files_of("cetc331"):
        assert not datasets.at_hand("cetc331")
        put(data_folders[0], source, b"")
    assert datasets.at_hand("cetc331")


# === An environment of one's own ===


def toy() -> fingerprints.FingerprintSet:
    return fingerprints.FingerprintSet(
        rssi=np.zeros((3, 1), dtype=np.float32),
        position=np.zeros((3, 2)),
        frame=frames.Frame(None),
        transmitters=("a",),
        name="toy",
        release=fingerprints.Release("toy", 3, None),
    )


@pytest.mark.parametrize("mode", ["auto", "real"])
def test_another_loader_needs_no_file_of_any_publisher(data_folders, monkeypatch, mode):
    monkeypatch.setenv("DATA", mode)
    monkeypatch.setitem(datasets.LOADERS, "toy", toy)
    assert datasets.load("toy").name == "toy"


def test_another_loader_without_a_simulator_is_refused_where_data_are_simulated(data_folders, monkeypatch):
    monkeypatch.setenv("DATA", "simulated")
    monkeypatch.setitem(datasets.LOADERS, "toy", toy)
    with pytest.raises(FileNotFoundError, match="toy has no simulation"):
        datasets.load("toy")
    monkeypatch.setitem(datasets.SIMULATORS, "toy", toy)
    assert datasets.load("toy").name == "toy"


# === DATA ===


def test_data_real_fails_without_files(data_folders, monkeypatch):
    monkeypatch.setenv("DATA", "real")
    with pytest.raises(FileNotFoundError, match=r"trainingData\.csv"):
        datasets.load("ujiindoorloc")


def test_data_real_fails_when_only_the_other_environment_is_there(uji_files, monkeypatch):
    monkeypatch.setenv("DATA", "real")
    with pytest.raises(FileNotFoundError, match="lorawan_antwerp"):
        datasets.simulated()


@pytest.mark.parametrize("mode", [None, "auto"])
@pytest.mark.parametrize("environment", ["ujiindoorloc", "lorawan_antwerp"])
def test_data_auto_falls_back_to_the_simulator_and_says_so(data_folders, monkeypatch, capsys, mode, environment):
    if mode:
        monkeypatch.setenv("DATA", mode)
    loaded = datasets.load(environment)
    assert loaded.release.simulated and loaded.name == environment
    assert datasets.BANNER in capsys.readouterr().err


def test_data_auto_takes_the_files_that_are_there(uji_files, lorawan_file, capsys):
    assert not datasets.simulated()
    assert not datasets.load("lorawan_antwerp").release.simulated
    assert "SIMULATED" not in capsys.readouterr().err


def test_data_auto_fetches_what_is_missing(uji_files, lorawan_file, data_folders, served, monkeypatch):
    """One file of the two is missing: it comes from the publisher, and the run is on measured data."""
    folder, address = served
    content = csv(uji_files["uji_validation"])
    (data_folders[0] / REGISTRY["uji_validation"].file).unlink()
    write_zip(folder / "uji.zip", validationData=content)
    register(monkeypatch, "uji_validation", content, 10, url=f"{address}/uji.zip")
    assert not datasets.simulated()
    assert len(datasets.load("ujiindoorloc")) == 50


def test_data_simulated_never_looks(uji_files, lorawan_file, monkeypatch):
    def looked(*arguments):
        raise AssertionError("a file was looked for")

    monkeypatch.setenv("DATA", "simulated")
    for name in ("find", "obtain"):
        monkeypatch.setattr(datasets, name, looked)
        monkeypatch.setattr(sources, name, looked)
    assert datasets.load("lorawan_antwerp").release.simulated


@pytest.mark.parametrize("mode", ["Real", "", "fake"])
def test_other_values_of_data_are_refused(uji_files, lorawan_file, monkeypatch, mode):
    monkeypatch.setenv("DATA", mode)
    with pytest.raises(ValueError, match=f"DATA must be one of auto, real, simulated. Received: DATA={mode}$"):
        datasets.load("ujiindoorloc")


# === python -m lib.data.datasets ===


def test_command_records_the_files_that_it_checked(uji_files, lorawan_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["datasets", str(tmp_path / "used.json")])
    datasets.main()
    used = json.loads((tmp_path / "used.json").read_text())
    assert used["simulated"] is False
    assert {about["sha256"] for about in used["files"].values()} == {
        REGISTRY[key].sha256 for key in (*UJI, "lorawan_3gw")
    }
    said = capsys.readouterr()
    assert said.out.count("sha256 as published") == 3
    assert "sigfox_rural is left out: " in said.err and "could not be fetched" in said.err


def test_command_makes_the_subset_of_the_release_at_hand(uji_files, data_folders, tmp_path, monkeypatch, capsys):
    release = lorawan_table(60)
    content = csv(release.iloc[:20].assign(split=["val"] * 10 + ["test"] * 10))
    subset = register(monkeypatch, "lorawan_3gw", content, 20)
    put(data_folders[2], REGISTRY["lorawan_full"], csv(release))
    digests = derived.row_digests(release[GATEWAYS].to_numpy(), release[["Latitude", "Longitude"]].to_numpy())
    (tmp_path / "lorawan_3gw.bin").write_bytes(b"".join(digests[:20]))
    monkeypatch.setattr(derived, "ROWS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["datasets"])
    datasets.main()
    made = data_folders[0] / subset.file
    assert made.read_bytes() == content and f"{made}: 20 rows" in capsys.readouterr().out
    assert len(datasets.load("lorawan_antwerp")) == 20


def test_command_says_that_data_are_simulated(data_folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["datasets", str(tmp_path / "used.json")])
    datasets.main()
    assert json.loads((tmp_path / "used.json").read_text()) == {"simulated": True, "files": {}}
    assert datasets.BANNER in capsys.readouterr().err


def test_command_refuses_a_damaged_file(uji_files, lorawan_file, data_folders, tmp_path, monkeypatch):
    (data_folders[0] / REGISTRY["lorawan_3gw"].file).write_bytes(b"damaged")
    monkeypatch.setattr(sys, "argv", ["datasets", str(tmp_path / "used.json")])
    with pytest.raises(SystemExit, match=r"lorawan_antwerp_3gw\.csv: expected sha256"):
        datasets.main()
    assert not (tmp_path / "used.json").exists()


@pytest.mark.parametrize("name", datasets.INVENTED)
def test_an_invented_world_is_another_than_the_simulated_one_and_shares_no_name_with_it(monkeypatch, name):
    monkeypatch.setenv("DATA", "simulated")
    invented, simulated = datasets.load(name), datasets.load(datasets.INVENTED[name])
    assert datasets.at_hand(name) and invented.release.simulated
    assert invented.name == name
    assert not set(invented.transmitters) & set(simulated.transmitters)
    assert not np.array_equal(invented.position, simulated.position)
