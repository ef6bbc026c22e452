"""The publishers' files: where they come from, how they are checked, and how they become FingerprintSets.

`python -m lib.datasets` finds or fetches every file, checks it and says where it is.
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
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import scipy.io

from lib import simulate
from lib.fingerprints import FingerprintSet, Frame, Release, require_memory, row_blocks
from lib.paths import RAW, ROOT, data_folders, data_mode, replacing


class DataError(ValueError):
    """A file that is not what it should be. Names the file, what was expected and what was found."""

    def __init__(self, file: Path | str, expected: str, found: str):
        super().__init__(f"{file}: expected {expected}, found {found}. The file was not used; replace or delete it")


@dataclass(frozen=True)
class Source:
    """One publisher's file, an entry of `data/registry.toml`.

    Attributes:
        file: path below a data folder; `.xz` may follow.
        sha256, size: of the decompressed content, size in bytes.
        rows, transmitters: number of fingerprints, of access points or gateways.
        licence, citation: how it may be used and must be cited.
        url: where the publisher offers it, or None where only a copy at hand serves.
        member: its name inside the archive behind `url`, where that is a zip.
    """

    file: str
    sha256: str
    size: int
    rows: int
    transmitters: int
    licence: str
    citation: str
    url: str | None = None
    member: str | None = None


REGISTRY = {key: Source(**entry) for key, entry in tomllib.loads((ROOT / "data" / "registry.toml").read_text()).items()}


# === Finding, checking, fetching ===


def _content(path: Path) -> bytes:
    """The decompressed bytes of a file."""
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
            return file.read()
    except (EOFError, lzma.LZMAError) as problem:
        raise DataError(path, "a complete xz file", f"a truncated or corrupt one ({problem})") from problem


def _checked(path: Path, source: Source, name: str = "") -> bytes:
    """The content of a file whose checksum is right; `name` stands for the path in the error.

    Raises:
        DataError: if it is not.
    """
    content = _content(path)
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        expected = f"sha256 {source.sha256} ({source.size:,} bytes)"
        raise DataError(name or path, expected, f"{found} ({len(content):,} bytes)")
    return content


def find(source: Source) -> Path | None:
    """The file in the first of the data folders that has it, plain or `.xz`; None where none has."""
    candidates = (folder / f"{source.file}{end}" for folder in data_folders() for end in ("", ".xz"))
    return next((path for path in candidates if path.is_file()), None)


def fetch(source: Source, folder: Path = RAW) -> Path:
    """Download one file from its publisher, with a progress bar; it is put in place only when its checksum is right.

    Raises:
        FileNotFoundError: if the publisher does not offer it or cannot be reached.
        DataError: if what came is not the registered file.
    """
    target = folder / source.file
    if source.url is None:
        raise FileNotFoundError(f"{target} is not at hand, and its publisher offers no direct download")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            fetched = Path(pooch.retrieve(source.url, None, path=scratch, fname="download", progressbar=True))
        except OSError as problem:
            raise FileNotFoundError(f"{source.url} could not be fetched for {target}: {problem}") from problem
        if source.member:
            try:
                with zipfile.ZipFile(fetched) as archive:
                    inside = next(name for name in archive.namelist() if Path(name).name == source.member)
                    fetched = Path(archive.extract(inside, scratch))
            except (zipfile.BadZipFile, zlib.error, StopIteration) as problem:
                raise DataError(
                    source.url, f"a zip with {source.member}", str(problem) or "no such member"
                ) from problem
        content = _checked(fetched, source, source.url)
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    return target


def _sources(environment: str) -> list[Source]:
    """The files that an environment needs. Of the LoRaWAN releases, the first at hand; to download, the full one."""
    if environment == "ujiindoorloc":
        return [REGISTRY["uji_training"], REGISTRY["uji_validation"]]
    releases = [REGISTRY["lorawan_full"], REGISTRY["lorawan_3gw"]]
    return [next((source for source in releases if find(source)), releases[0])]


BANNER = "SIMULATED DATA: no measured fingerprints are used; nothing here says anything about the paper."


@lru_cache
def simulated() -> bool:
    """Whether this run uses the simulator: asked for, or nothing measured can be had under `DATA=auto`.

    Raises:
        FileNotFoundError: under `DATA=real`, if a file can neither be found nor fetched.
    """
    if data_mode() != "simulated":
        try:
            for environment in LOADERS:
                for source in _sources(environment):
                    if find(source) is None:
                        fetch(source)
            return False
        except FileNotFoundError:
            if data_mode() == "real":
                raise
    print(BANNER, file=sys.stderr)
    return True


# === Loading ===


def _found(source: Source) -> Path:
    """What `find` finds; FileNotFoundError where no data folder has it."""
    path = find(source)
    if path is None:
        raise FileNotFoundError(f"{source.file} is in none of {', '.join(map(str, data_folders()))}")
    return path


def _read(source: Source, transmitters: list[str], marker: int, about: list[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Of a checked file, RSSI (n, t) float32 dBm with NaN for the publisher's marker of "not heard", and other columns.

    Raises:
        DataError: if the file is not what it should be.
        FileNotFoundError: if no data folder has it.
        MemoryError: if its rows do not fit in what is available.
    """
    path = _found(source)
    require_memory(source.rows, len(transmitters), copies=2)  # the other is the file's text
    rssi, others, seen = np.empty((source.rows, len(transmitters)), dtype=np.float32), [], 0
    columns = [*transmitters, *about]
    step = 4 * next(row_blocks((source.rows, len(columns)))).stop  # larger: to begin with a column takes its time
    with io.BytesIO(_checked(path, source)) as text, pd.read_csv(text, low_memory=False, chunksize=step) as tables:
        for table in tables:
            missing = [column for column in columns if column not in table.columns]
            if missing:
                raise DataError(path, f"columns {', '.join(columns[:3])}, …", f"no column {', '.join(missing[:5])}")
            rssi[seen : seen + len(table)] = table[transmitters][: max(0, source.rows - seen)]
            others.append(table[about])
            seen += len(table)
    if seen != source.rows:
        raise DataError(path, f"{source.rows:,} rows", f"{seen:,}")
    return _in_dbm(rssi, marker, path), pd.concat(others, ignore_index=True)


def _in_dbm(rssi: np.ndarray, marker: int, path: Path) -> np.ndarray:
    """RSSI with NaN in the place of the publisher's marker, the same array; refuses what no receiver reports."""
    rssi[rssi == marker] = np.nan
    strongest = np.nanmax(rssi)
    if strongest > 0:
        raise DataError(path, f"RSSI of at most 0 dBm, or the marker {marker}", f"{strongest:g}")
    return rssi


def load_ujiindoorloc() -> FingerprintSet:
    """Both files of UJIIndoorLoc, 21,048 rows: Wi-Fi in three buildings, measured in 2013 by 25 phones.

    `part` is `train` or `validation`, `group` the phone. Positions are Web Mercator metres, as in the literature; the
    frame knows that one of them is about 0.77 ground metres.
    """
    sources = _sources("ujiindoorloc")
    transmitters = [f"WAP{number:03d}" for number in range(1, sources[0].transmitters + 1)]
    about = ["LONGITUDE", "LATITUDE", "FLOOR", "BUILDINGID", "PHONEID", "TIMESTAMP"]
    rssi, tables = zip(*(_read(source, transmitters, 100, about) for source in sources), strict=True)
    table = pd.concat(tables, ignore_index=True)
    plane = table[["LONGITUDE", "LATITUDE"]].to_numpy(dtype=np.float64)
    origin = tuple(float(value) for value in np.floor(plane.min(axis=0)))
    latitude = Frame("EPSG:3857").to_degrees(plane.mean(axis=0, keepdims=True))[0, 0]
    return FingerprintSet(
        rssi=np.concatenate(rssi),
        position=plane - origin,
        frame=Frame("EPSG:3857", origin, float(np.cos(np.radians(latitude)))),
        transmitters=tuple(transmitters),
        name="ujiindoorloc",
        release=Release("ujiindoorloc", len(table), " + ".join(source.sha256 for source in sources)),
        floor=table["FLOOR"].to_numpy(),
        building=table["BUILDINGID"].to_numpy(),
        group=table["PHONEID"].to_numpy(),
        part=np.repeat(["train", "validation"], [source.rows for source in sources]),
        time=pd.to_datetime(table["TIMESTAMP"], unit="s").to_numpy(),
    )


def load_lorawan_antwerp() -> FingerprintSet:
    """LoRaWAN messages in Antwerp: the full release (130,429 rows) where it is at hand, else the ≥ 3-gateway subset.

    The subset carries `part` (`val` and `test` of the published split) and no time, the full release the reverse.
    """
    (source,) = _sources("lorawan_antwerp")
    transmitters = [f"BS {number}" for number in range(1, source.transmitters + 1)]
    extra = "RX Time" if source is REGISTRY["lorawan_full"] else "split"
    rssi, table = _read(source, transmitters, -200, ["Latitude", "Longitude", extra])
    degrees = table[["Latitude", "Longitude"]].to_numpy(dtype=np.float64)
    frame = Frame.around(*(round(float(middle), 2) for middle in np.median(degrees, axis=0)))
    return FingerprintSet(
        rssi=rssi,
        position=frame.from_degrees(degrees),
        frame=frame,
        transmitters=tuple(transmitters),
        name="lorawan_antwerp",
        release=Release(Path(source.file).name, source.rows, source.sha256),
        part=table["split"].to_numpy(dtype=str) if extra == "split" else None,
        time=pd.to_datetime(table["RX Time"], format="mixed", utc=True).dt.tz_localize(None).to_numpy()
        if extra == "RX Time"
        else None,
    )


def load_sigfox_rural() -> FingerprintSet:
    """Sigfox messages between Antwerp and Ghent, 5,015 rows and 137 base stations, of a band of longitudes."""
    source = REGISTRY["sigfox_rural"]
    columns = [str(number) for number in range(source.transmitters + 2)]
    rssi, table = _read(source, columns[:-2], -200, columns[-2:])
    degrees = table.to_numpy(dtype=np.float64)
    frame = Frame.around(*(round(float(middle), 2) for middle in np.median(degrees, axis=0)))
    return FingerprintSet(
        rssi=rssi,
        position=frame.from_degrees(degrees),
        frame=frame,
        transmitters=tuple(f"Sigfox {name}" for name in columns[:-2]),
        name="sigfox_rural",
        release=Release(Path(source.file).name, source.rows, source.sha256),
    )


def load_uji_library() -> FingerprintSet:
    """Wi-Fi on two floors of a library in its first month, 576 training and 3,120 test scans (`part`), one phone.

    Positions are in metres of the building's own plane.
    """
    source = REGISTRY["uji_library"]
    path = _found(source)
    with io.BytesIO(_checked(path, source)) as file:
        database = scipy.io.loadmat(file, squeeze_me=True)["database"].item()
    (train, train_labels, test, test_labels), expected = database, (source.rows, source.transmitters)
    rssi, labels = np.concatenate([train, test]).astype(np.float32), np.concatenate([train_labels, test_labels])
    if rssi.shape != expected:
        raise DataError(path, f"rows and transmitters {expected}", str(rssi.shape))
    return FingerprintSet(
        rssi=_in_dbm(rssi, 100, path),
        position=labels[:, :2],
        frame=Frame(None),
        transmitters=tuple(f"AP {number}" for number in range(1, source.transmitters + 1)),
        name="uji_library",
        release=Release(Path(source.file).name, source.rows, source.sha256),
        floor=labels[:, 3].astype(np.int64),
        building=labels[:, 4].astype(np.int64),
        part=np.repeat(["train", "test"], [len(train), len(test)]),
    )


LOADERS: dict[str, Callable[[], FingerprintSet]] = {
    "ujiindoorloc": load_ujiindoorloc,
    "lorawan_antwerp": load_lorawan_antwerp,
}
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
    if environment not in LOADERS | FURTHER:
        raise ValueError(f"`environment` must be one of {', '.join(LOADERS | FURTHER)}. Received: {environment}")
    if environment in FURTHER:
        if data_mode() == "simulated":
            raise FileNotFoundError(f"{environment} has no simulation, and DATA=simulated looks for no files")
        return FURTHER[environment]()
    if simulated():
        return {"ujiindoorloc": simulate.campus, "lorawan_antwerp": simulate.city}[environment]()
    return LOADERS[environment]()


def main() -> None:
    """Find or fetch all files, check them, and record what is used in the file named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m lib.datasets", description=main.__doc__)
    about = "where to write, as JSON, which files are used and whether the data are simulated; default: nowhere"
    parser.add_argument("records", nargs="*", type=Path, metavar="PATH", help=about)
    given = parser.parse_args()
    used = {}
    try:
        needed = [] if simulated() else [source for name in LOADERS for source in _sources(name)]
        for source in [*needed, *(REGISTRY[name] for name in FURTHER if needed and find(REGISTRY[name]))]:
            path = find(source)
            _checked(path, source)
            used[str(path)] = {"sha256": source.sha256, "rows": source.rows, "licence": source.licence}
            print(f"{path}: {source.rows:,} rows, sha256 as published")
    except (DataError, FileNotFoundError, ValueError) as problem:
        sys.exit(str(problem))
    for record in given.records:
        with replacing(record) as temporary:
            temporary.write_text(json.dumps({"simulated": simulated(), "files": used}, indent=2) + "\n")


if __name__ == "__main__":
    main()
