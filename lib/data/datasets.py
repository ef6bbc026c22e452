"""The publishers' files: where they come from, how they are checked, and how they become FingerprintSets.

`python -m lib.data.datasets` finds every file, else makes it from its publisher's release or fetches it, checks it and
says where it is.
"""

import argparse
import hashlib
import io
import json
import lzma
import sys
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import scipy.io

from lib.data import derived, simulate
from lib.data.fingerprints import FingerprintSet, Release, require_memory, row_blocks
from lib.data.frames import Frame
from lib.paths import ROOT, data_folders, data_mode, lorawan_release, replacing


class DataError(ValueError):
    """A file that is not what it should be. Names the file, what was expected and what was found."""

    def __init__(self, file: Path | str, expected: str, found: str):
        super().__init__(f"{file}: expected {expected}, found {found}. The file was not used; replace or delete it")


@dataclass(frozen=True)
class Source:
    """One publisher's file, an entry of `data/registry.toml`.

    Attributes:
        file: path below a data folder; `.xz` may follow.
        sha256, size: of the decompressed content, size in bytes. Without a checksum, what is derived from it has one.
        rows, transmitters: number of fingerprints, of access points or gateways.
        licence, citation: how it may be used and must be cited.
        url: where the publisher offers it, or None where only a copy at hand serves.
        member: its name inside the archive behind `url`, where that is a zip.
        derived_from: keys of releases that it can be made from; those that are at hand come before those to download.
        same_rows: key of another form of the same rows, which serves in its place.
    """

    file: str
    rows: int
    transmitters: int
    licence: str
    citation: str
    sha256: str | None = None
    size: int | None = None
    url: str | None = None
    member: str | None = None
    derived_from: Sequence[str] = ()
    same_rows: str | None = None


_ENTRIES = tomllib.loads((ROOT / "data" / "registry.toml").read_text())
REGISTRY = {key: Source(**entry) for key, entry in _ENTRIES.items()}
# Keys of REGISTRY: the files of an environment that can be measured or simulated, those of the committed results.
RELEASES = {
    "ujiindoorloc": ["uji_training", "uji_validation"],
    "lorawan_antwerp": ["lorawan_3gw"],
}
ALL_MESSAGES = {"lorawan_antwerp": ["lorawan_full"]}  # in their place, under LORAWAN=full


# === Finding, checking, fetching ===


def _content(path: Path) -> bytes:
    """The decompressed bytes of a file."""
    opened = lzma.open if path.suffix == ".xz" else open
    try:
        with opened(path, "rb") as file:
            return file.read()
    except (EOFError, lzma.LZMAError) as problem:
        raise DataError(path, "a complete xz file", f"a truncated or corrupt one ({problem})") from problem


def _checked(path: Path, source: Source, name: str = "") -> bytes:
    """The content of a file whose checksum is right; `name` stands for the path in the error.

    Raises:
        DataError: if it is not.
    """
    content = _content(path)
    _require_checksum(content, source, name or path)
    return content


def _require_checksum(content: bytes, source: Source, name: Path | str) -> None:
    """Raise DataError if content has another checksum than is registered; where none is, anything passes."""
    sha256 = hashlib.sha256(content).hexdigest()
    if source.sha256 not in (None, sha256):
        expected = f"sha256 {source.sha256} ({source.size:,} bytes)"
        received = f"{sha256} ({len(content):,} bytes)"
        raise DataError(name, expected, received)


def find(source: Source) -> Path | None:
    """The file in the first of the data folders that has it, plain or `.xz`; None where none has."""
    for folder in data_folders():
        for name in (source.file, f"{source.file}.xz"):
            path = folder / name
            if path.is_file():
                return path
    return None


def _extracted(archive: Path, source: Source, folder: str) -> Path:
    """The publisher's file, taken out of the downloaded zip into a folder.

    Raises:
        DataError: if it is no zip or has no such member.
    """
    expected = f"a zip with {source.member}"
    try:
        with zipfile.ZipFile(archive) as members:
            for name in members.namelist():
                if Path(name).name == source.member:
                    return Path(members.extract(name, folder))
    except (zipfile.BadZipFile, zlib.error) as problem:
        raise DataError(source.url, expected, str(problem)) from problem
    raise DataError(source.url, expected, "no such member")


def fetch(source: Source, folder: Path | None = None) -> Path:
    """Download one file from its publisher, with a progress bar; it is put in place only when its checksum is right.

    Args:
        source: the file.
        folder: the data folder that it goes to; None for `data/raw`.

    Returns:
        Where it is.

    Raises:
        FileNotFoundError: if the publisher does not offer it or cannot be reached.
        DataError: if what came is not the registered file.
    """
    target = _target(source, folder)
    if source.url is None:
        raise FileNotFoundError(f"{target} is not at hand, and its publisher offers no direct download")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            download = Path(pooch.retrieve(source.url, None, path=scratch, fname="download", progressbar=True))
        except OSError as problem:
            raise FileNotFoundError(f"{source.url} could not be fetched for {target}: {problem}") from problem
        if source.member:
            download = _extracted(download, source, scratch)
        content = _checked(download, source, source.url)
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    return target


def _target(source: Source, folder: Path | None) -> Path:
    """Where a file goes: into a data folder, or without one into the first, `data/raw`."""
    if folder is None:
        folder = data_folders()[0]
    return folder / source.file


def key_at_hand(key: str) -> str:
    """The key of a file, or of another form of the same rows if only that is at hand or can be made."""
    source = REGISTRY[key]
    if source.same_rows is None or find(source):
        return key
    return source.same_rows


def obtain(key: str, folder: Path | None = None) -> Path:
    """Find a file; else make it from a release that is at hand, or fetch it or such a release.

    Args:
        key: of the file in the registry.
        folder: the data folder that what is made or fetched goes to; None for `data/raw`.

    Returns:
        Where it is.

    Raises:
        FileNotFoundError: if it is nowhere, and can be neither made nor fetched.
        DataError: if what came is not the registered file.
        ValueError: if the release that it is made from is another one.
    """
    source = REGISTRY[key]
    path = find(source)
    if path is not None:
        return path
    if source.derived_from:
        release = _origin_of(source, folder)
        return derive(key, release, folder)
    return fetch(source, folder=folder)


def _origin_of(source: Source, folder: Path | None) -> Path:
    """A release that a file can be made from: the first that is at hand, else the first that can be fetched."""
    origins = [REGISTRY[key] for key in source.derived_from]
    for origin in origins:
        path = find(origin)
        if path is not None:
            return path
    offered = [origin for origin in origins if origin.url]
    return fetch(offered[0], folder=folder)


def derive(key: str, release: Path, folder: Path | None = None) -> Path:
    """Make a file from its publisher's release; it is put in place only when its checksum is right.

    Args:
        key: of the file in the registry.
        release: the publisher's file that it is made from.
        folder: the data folder that it goes to; None for `data/raw`.

    Returns:
        Where it is.

    Raises:
        DataError: if what came is not the registered file.
        ValueError: if the release lacks some of its rows.
    """
    source = REGISTRY[key]
    print(f"{source.file} is made from {release}", file=sys.stderr)
    content = derived.DERIVATIONS[key](release)
    _require_checksum(content, source, f"{source.file}, made from {release}")
    target = _target(source, folder)
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    return target


def _keys(environment: str) -> list[str]:
    """The keys of an environment's files, under LORAWAN=full those of all LoRaWAN messages."""
    if lorawan_release() == "full":
        return ALL_MESSAGES.get(environment, RELEASES[environment])
    return RELEASES[environment]


def _sources(environment: str) -> list[Source]:
    """The files of an environment."""
    return [REGISTRY[key] for key in _keys(environment)]


BANNER = "SIMULATED DATA: no measured fingerprints are used; nothing here says anything about the paper."


@lru_cache
def simulated() -> bool:
    """Whether this run uses the simulator: asked for, or nothing measured can be had under `DATA=auto`.

    Raises:
        FileNotFoundError: under `DATA=real`, if a file can neither be found nor fetched.
    """
    if data_mode() != "simulated":
        try:
            for environment in RELEASES:
                for key in _keys(environment):
                    obtain(key)
            return False
        except FileNotFoundError:
            if data_mode() == "real":
                raise
    print(BANNER, file=sys.stderr)
    return True


# === Loading ===


def _path_of(source: Source) -> Path:
    """What `find` finds; FileNotFoundError where no data folder has it."""
    path = find(source)
    if path is None:
        folders = ", ".join(map(str, data_folders()))
        raise FileNotFoundError(f"{source.file} is in none of {folders}")
    return path


def _read(source: Source, transmitters: list[str], marker: int, further: list[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Of a checked file, RSSI (n, t) float32 dBm with NaN for the publisher's marker of "not heard", and other columns.

    Raises:
        DataError: if the file is not what it should be.
        FileNotFoundError: if no data folder has it.
        MemoryError: if its rows do not fit in what is available.
    """
    path = _path_of(source)
    require_memory(source.rows, len(transmitters), copies=2)  # the other is the file's text
    rssi = np.empty((source.rows, len(transmitters)), dtype=np.float32)
    columns = [*transmitters, *further]
    block = next(row_blocks((source.rows, len(columns))))
    step = 4 * block.stop  # larger: to begin with a column takes its time
    rows = 0
    further_tables = []
    with io.BytesIO(_checked(path, source)) as text, pd.read_csv(text, low_memory=False, chunksize=step) as tables:
        for table in tables:
            missing = [column for column in columns if column not in table.columns]
            if missing:
                expected = ", ".join(columns[:3])
                raise DataError(path, f"columns {expected}, …", f"no column {', '.join(missing[:5])}")
            left = max(0, source.rows - rows)
            end = rows + len(table)
            rssi[rows:end] = table[transmitters][:left]
            further_tables.append(table[further])
            rows = end
    if rows != source.rows:
        raise DataError(path, f"{source.rows:,} rows", f"{rows:,}")
    return _in_dbm(rssi, marker, path), pd.concat(further_tables, ignore_index=True)


def _in_dbm(rssi: np.ndarray, marker: int, path: Path) -> np.ndarray:
    """RSSI with NaN in the place of the publisher's marker, the same array; refuses what no receiver reports."""
    rssi[rssi == marker] = np.nan
    strongest = np.nanmax(rssi)
    if strongest > 0:
        raise DataError(path, f"RSSI of at most 0 dBm, or the marker {marker}", f"{strongest:g}")
    return rssi


def _numbered(form: str, source: Source) -> list[str]:
    """Names of a file's transmitters, numbered from 1."""
    numbers = range(1, source.transmitters + 1)
    return [form.format(number) for number in numbers]


def _release(source: Source, of_the_paper: bool = False) -> Release:
    """The release that consists of one file."""
    return Release(Path(source.file).name, source.rows, source.sha256, of_the_paper)


def _frame_around(degrees: np.ndarray) -> Frame:
    """A plane that touches the earth in the middle of (n, 2) latitudes and longitudes."""
    latitude, longitude = np.median(degrees, axis=0).tolist()
    return Frame.around(round(latitude, 2), round(longitude, 2))


def load_ujiindoorloc() -> FingerprintSet:
    """Both files of UJIIndoorLoc, 21,048 rows: Wi-Fi in three buildings, measured in 2013 by 25 phones.

    `part` is `train` or `validation`, `group` the phone. Positions are Web Mercator metres, as in the literature; the
    frame knows that one of them is about 0.77 ground metres.
    """
    sources = _sources("ujiindoorloc")
    transmitters = _numbered("WAP{:03d}", sources[0])
    columns = ["LONGITUDE", "LATITUDE", "FLOOR", "BUILDINGID", "PHONEID", "TIMESTAMP"]
    rssi = []
    tables = []
    for source in sources:
        rssi_of_file, table = _read(source, transmitters, 100, columns)
        rssi.append(rssi_of_file)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    plane = table[["LONGITUDE", "LATITUDE"]].to_numpy(dtype=np.float64)
    origin = tuple(np.floor(plane.min(axis=0)).tolist())
    middle = plane.mean(axis=0, keepdims=True)
    ((latitude, _),) = Frame("EPSG:3857").to_degrees(middle)
    ground_scale = float(np.cos(np.radians(latitude)))
    sha256 = " + ".join(source.sha256 for source in sources)
    return FingerprintSet(
        rssi=np.concatenate(rssi),
        position=plane - origin,
        frame=Frame("EPSG:3857", origin, ground_scale),
        transmitters=tuple(transmitters),
        name="ujiindoorloc",
        release=Release("ujiindoorloc", len(table), sha256, of_the_paper=True),
        not_heard=-105.0,
        floor=table["FLOOR"].to_numpy(),
        building=table["BUILDINGID"].to_numpy(),
        group=table["PHONEID"].to_numpy(),
        part=np.repeat(["train", "validation"], list(map(len, tables))),
        time=pd.to_datetime(table["TIMESTAMP"], unit="s").to_numpy(),
    )


def load_lorawan_antwerp() -> FingerprintSet:
    """LoRaWAN messages in Antwerp: those heard by at least three gateways, or under LORAWAN=full all 130,429.

    The subset carries `part` (`val` and `test` of the published split) and no time, the full release the reverse.
    """
    (source,) = _sources("lorawan_antwerp")
    full = source is REGISTRY["lorawan_full"]
    transmitters = _numbered("BS {}", source)
    extra = "RX Time" if full else "split"
    rssi, table = _read(source, transmitters, -200, ["Latitude", "Longitude", extra])
    degrees = table[["Latitude", "Longitude"]].to_numpy(dtype=np.float64)
    frame = _frame_around(degrees)
    part = None
    time = None
    if full:
        received = pd.to_datetime(table["RX Time"], format="mixed", utc=True)
        time = received.dt.tz_localize(None).to_numpy()
    else:
        part = table["split"].to_numpy(dtype=str)
    return FingerprintSet(
        rssi=rssi,
        position=frame.from_degrees(degrees),
        frame=frame,
        transmitters=tuple(transmitters),
        name="lorawan_antwerp",
        release=_release(source, of_the_paper=full),
        not_heard=-128.0,  # the paper's x_min
        part=part,
        time=time,
    )


def load_sigfox_rural() -> FingerprintSet:
    """Sigfox messages between Antwerp and Ghent, 5,015 rows and 137 base stations, of a band of longitudes."""
    source = REGISTRY["sigfox_rural"]
    columns = list(map(str, range(source.transmitters + 2)))
    stations = columns[:-2]
    rssi, table = _read(source, stations, -200, columns[-2:])
    degrees = table.to_numpy(dtype=np.float64)
    frame = _frame_around(degrees)
    return FingerprintSet(
        rssi=rssi,
        position=frame.from_degrees(degrees),
        frame=frame,
        transmitters=tuple(f"Sigfox {name}" for name in stations),
        name="sigfox_rural",
        release=_release(source),
    )


def load_uji_library() -> FingerprintSet:
    """Wi-Fi on two floors of a library in its first month, 576 training and 3,120 test scans (`part`), one phone.

    Positions are in metres of the building's own plane.
    """
    key = key_at_hand("uji_library")
    source = REGISTRY[key]
    path = _path_of(source)
    read = _library_of_mat if key == "uji_library" else _library_of_csv
    with io.BytesIO(_checked(path, source)) as file:
        rssi, labels, part = read(file)
    expected = (source.rows, source.transmitters)
    if rssi.shape != expected:
        raise DataError(path, f"rows and transmitters {expected}", str(rssi.shape))
    return FingerprintSet(
        rssi=_in_dbm(rssi, 100, path),
        position=labels[:, :2],
        frame=Frame(None),
        transmitters=tuple(_numbered("AP {}", source)),
        name="uji_library",
        release=_release(REGISTRY["uji_library"]),  # whichever form it is read from: the rows are the same
        floor=labels[:, 2].astype(np.int64),
        building=labels[:, 3].astype(np.int64),
        part=part,
    )


def _library_of_mat(file: io.BytesIO) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of `LIB1.mat`: (n, t) dBm, (n, 4) x, y, floor and building, (n,) part."""
    contents = scipy.io.loadmat(file, squeeze_me=True)
    train, train_labels, test, test_labels = contents["database"].item()
    rssi = np.concatenate([train, test]).astype(np.float32)
    labels = np.concatenate([train_labels, test_labels])
    part = np.repeat(["train", "test"], [len(train), len(test)])
    return rssi, labels[:, [0, 1, 3, 4]], part


def _library_of_csv(file: io.BytesIO) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of `LIB1.csv`, the same."""
    table = pd.read_csv(file)
    labels = table[["X", "Y", "FLOOR", "BUILDING"]]
    rssi = table.drop(columns=[*labels.columns, "PART"])
    return rssi.to_numpy(dtype=np.float32), labels.to_numpy(dtype=np.float64), table["PART"].to_numpy(dtype=str)


LOADERS: dict[str, Callable[[], FingerprintSet]] = {
    "ujiindoorloc": load_ujiindoorloc,
    "lorawan_antwerp": load_lorawan_antwerp,
}
SIMULATORS = {"ujiindoorloc": simulate.campus, "lorawan_antwerp": simulate.city}
FURTHER = {"sigfox_rural": load_sigfox_rural, "uji_library": load_uji_library}  # measured or not at all


def load(environment: str) -> FingerprintSet:
    """One environment, measured or simulated as `DATA` says.

    Args:
        environment: a key of `LOADERS` or `FURTHER`.

    Raises:
        DataError: if a file is corrupt, truncated or of another schema.
        FileNotFoundError: if it is missing under `DATA=real`, or has no simulation.
        ValueError: if there is no such environment.
    """
    loaders = LOADERS | FURTHER
    if environment not in loaders:
        raise ValueError(f"`environment` must be one of {', '.join(loaders)}. Received: {environment}")
    if environment in SIMULATORS:
        return SIMULATORS[environment]() if simulated() else loaders[environment]()
    if data_mode() == "simulated":
        raise FileNotFoundError(f"{environment} has no simulation, and DATA=simulated looks for no files")
    return loaders[environment]()


def main() -> None:
    """Find, make or fetch all files, check them, and record what is used in the file named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m lib.data.datasets", description=main.__doc__)
    purpose = "where to write, as JSON, which files are used and whether the data are simulated; default: nowhere"
    parser.add_argument("records", nargs="*", type=Path, metavar="PATH", help=purpose)
    arguments = parser.parse_args()
    used = {}
    try:
        for source in _used():
            path = find(source)
            _checked(path, source)
            used[str(path)] = {"sha256": source.sha256, "rows": source.rows, "licence": source.licence}
            print(f"{path}: {source.rows:,} rows, sha256 as published")
    except (DataError, FileNotFoundError, ValueError) as problem:
        sys.exit(str(problem))
    record = json.dumps({"simulated": simulated(), "files": used}, indent=2)
    for path in arguments.records:
        with replacing(path) as temporary:
            temporary.write_text(f"{record}\n")


def _used() -> list[Source]:
    """The files that this run uses: none if it simulates, else those of each environment that can be had."""
    if simulated():
        return []
    sources = []
    for environment in RELEASES:
        sources += _sources(environment)
    for environment in FURTHER:
        key = key_at_hand(environment)
        try:
            obtain(key)
        except FileNotFoundError as problem:
            print(f"{environment} is left out: {problem}", file=sys.stderr)
        else:
            sources.append(REGISTRY[key])
    return sources


if __name__ == "__main__":
    main()
