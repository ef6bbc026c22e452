"""The publishers' formats: how the files of each environment become a FingerprintSet.

A further environment is a function here, its entry in `LOADERS`, and entries of its files in `data/registry.toml`.
"""

import io
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io

from lib.data.derived import LIB1_ACCESS_POINTS
from lib.data.fingerprints import FingerprintSet, Release, require_memory, row_blocks
from lib.data.frames import Frame
from lib.data.sources import REGISTRY, DataError, Source, checked, files_of, path_of

# === What loaders share ===


def _read(source: Source, transmitters: list[str], marker: int, further: list[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Of a checked file, RSSI (n, t) float32 dBm with NaN for the publisher's marker of "not heard", and other columns.

    Raises:
        DataError: if the file is not what it should be.
        FileNotFoundError: if no data folder has it.
        MemoryError: if its rows do not fit in what is available.
    """
    path = path_of(source)
    require_memory(source.rows, len(transmitters), copies=2)  # the other is the file's text
    rssi = np.empty((source.rows, len(transmitters)), dtype=np.float32)
    columns = [*transmitters, *further]
    block = next(row_blocks((source.rows, len(columns))))
    step = 4 * block.stop  # larger: to begin with a column takes its time
    rows = 0
    further_tables = []
    with io.BytesIO(checked(path, source)) as text, pd.read_csv(text, low_memory=False, chunksize=step) as tables:
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


def _read_all(
    sources: Sequence[Source], transmitters: list[str], marker: int, further: list[str]
) -> tuple[np.ndarray, pd.DataFrame, list[int]]:
    """The same of several files, one after another, and the number of rows of each."""
    rssi = []
    tables = []
    for source in sources:
        rssi_of_file, table = _read(source, transmitters, marker, further)
        rssi.append(rssi_of_file)
        tables.append(table)
    return np.concatenate(rssi), pd.concat(tables, ignore_index=True), list(map(len, tables))


def _in_dbm(rssi: np.ndarray, marker: int, path: Path) -> np.ndarray:
    """RSSI with NaN in the place of the publisher's marker, the same array; refuses what no receiver reports."""
    rssi[rssi == marker] = np.nan
    strongest = np.nanmax(rssi)
    if strongest > 0:
        raise DataError(path, f"RSSI of at most 0 dBm, or the marker {marker}", f"{strongest:g}")
    return rssi


def _numbered(form: str, count: int) -> list[str]:
    """Names of transmitters, numbered from 1."""
    return [form.format(number) for number in range(1, count + 1)]


def _release(source: Source, of_the_paper: bool = False) -> Release:
    """The release that consists of one file."""
    return Release(Path(source.file).name, source.rows, source.sha256, of_the_paper)


def _release_of_all(sources: Sequence[Source], of_the_paper: bool = False) -> Release:
    """The release that consists of several files, named after the environment."""
    rows = sum(source.rows for source in sources)
    sha256 = " + ".join(source.sha256 for source in sources)
    return Release(sources[0].environment, rows, sha256, of_the_paper)


def _frame_around(degrees: np.ndarray) -> Frame:
    """A plane that touches the earth in the middle of (n, 2) latitudes and longitudes."""
    latitude, longitude = np.median(degrees, axis=0).tolist()
    return Frame.around(round(latitude, 2), round(longitude, 2))


# === UJIIndoorLoc ===


def load_ujiindoorloc() -> FingerprintSet:
    """Both files of UJIIndoorLoc, 21,048 rows: Wi-Fi in three buildings, measured in 2013 by 25 phones.

    `part` is `train` or `validation`, `group` the phone. Positions are Web Mercator metres, as in the literature; the
    frame knows that one of them is about 0.77 ground metres.
    """
    sources = files_of("ujiindoorloc")
    transmitters = _numbered("WAP{:03d}", sources[0].transmitters)
    columns = ["LONGITUDE", "LATITUDE", "FLOOR", "BUILDINGID", "PHONEID", "TIMESTAMP"]
    rssi, table, counts = _read_all(sources, transmitters, 100, columns)
    plane = table[["LONGITUDE", "LATITUDE"]].to_numpy(dtype=np.float64)
    origin = tuple(np.floor(plane.min(axis=0)).tolist())
    middle = plane.mean(axis=0, keepdims=True)
    ((latitude, _),) = Frame("EPSG:3857").to_degrees(middle)
    ground_scale = float(np.cos(np.radians(latitude)))
    return FingerprintSet(
        rssi=rssi,
        position=plane - origin,
        frame=Frame("EPSG:3857", origin, ground_scale),
        transmitters=tuple(transmitters),
        name="ujiindoorloc",
        release=_release_of_all(sources, of_the_paper=True),
        not_heard=-105.0,
        floor=table["FLOOR"].to_numpy(),
        building=table["BUILDINGID"].to_numpy(),
        group=table["PHONEID"].to_numpy(),
        part=np.repeat(["train", "validation"], counts),
        time=pd.to_datetime(table["TIMESTAMP"], unit="s").to_numpy(),
    )


# === LoRaWAN and Sigfox ===


def load_lorawan_antwerp() -> FingerprintSet:
    """LoRaWAN messages in Antwerp: those heard by at least three gateways, or under LORAWAN=full all 130,429.

    The subset carries `part` (`val` and `test` of the published split) and no time, the full release the reverse.
    """
    (source,) = files_of("lorawan_antwerp")
    full = source.release == "full"
    transmitters = _numbered("BS {}", source.transmitters)
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
    (source,) = files_of("sigfox_rural")
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


# === MATLAB files: LIB1, TUT1, TUT2, TUT5 ===


def _of_matlab(environment: str, transmitters: Sequence[str]) -> FingerprintSet:
    """A MATLAB struct `database` with RSSI and labels (x, y, z, floor, building) of training and test scans.

    Args:
        environment: a key of `LOADERS`.
        transmitters: (t,) names, in the order of the columns.

    Returns:
        The scans with `part` `train` or `test`; positions are in metres of the building's own plane.

    Raises:
        DataError: if the file is not what it should be.
        FileNotFoundError: if no data folder has it.
    """
    (source,) = files_of(environment)
    path = path_of(source)
    with io.BytesIO(checked(path, source)) as file:
        database = scipy.io.loadmat(file, squeeze_me=True)["database"]
    train = database["trainingMacs"].item()
    test = database["testMacs"].item()
    rssi = np.concatenate([train, test]).astype(np.float32)
    labels = np.concatenate([database["trainingLabels"].item(), database["testLabels"].item()])
    expected = (source.rows, source.transmitters)
    if rssi.shape != expected:
        raise DataError(path, f"rows and transmitters {expected}", str(rssi.shape))
    return FingerprintSet(
        rssi=_in_dbm(rssi, 100, path),
        position=labels[:, :2],
        frame=Frame(None),
        transmitters=tuple(transmitters),
        name=environment,
        release=_release(source),
        floor=np.rint(labels[:, 3]).astype(np.int64),  # a floor may read 3.0000000000000004
        building=np.rint(labels[:, 4]).astype(np.int64),
        part=np.repeat(["train", "test"], [len(train), len(test)]),
    )


def load_tampere(environment: str) -> FingerprintSet:
    """Wi-Fi on three or four floors of a university building in Tampere; hardly two scans share a position.

    Args:
        environment: `tut1` (1,476 training and 490 test scans), `tut2` (584 and 176) or `tut5` (446 and 982).

    Returns:
        The scans with `part` `train` or `test`; positions are in metres of the building's own plane.
    """
    (source,) = files_of(environment)
    return _of_matlab(environment, _numbered(f"{environment.upper()} AP {{}}", source.transmitters))


# === The library of Universitat Jaume I ===

LIBRARY_AP = "UJI library AP {}"  # numbered as the columns of the 25 months
# First days of the 25 campaigns, which are not calendar months. Each ended before the next began.
CAMPAIGNS = np.array(
    [
        *("2016-06-02", "2016-07-14", "2016-08-30", "2016-09-22", "2016-10-18", "2016-11-23", "2016-12-14"),
        *("2017-01-18", "2017-02-17", "2017-03-17", "2017-04-20", "2017-05-18", "2017-06-19", "2017-07-21"),
        *("2017-08-28", "2017-09-18", "2017-10-17", "2017-11-20", "2017-12-27"),
        *("2018-01-24", "2018-02-27", "2018-03-28", "2018-04-26", "2018-05-22", "2018-06-22"),
    ],
    dtype="datetime64[D]",
)
SECOND_PHONE = (
    "25/trn02",
    "25/tst06",
    "25/tst07",
    "25/tst08",
    "25/tst09",
    "25/tst10",
)  # as the publisher's readme says


def load_uji_library() -> FingerprintSet:
    """Wi-Fi on two floors of a library in its first month, 576 training and 3,120 test scans (`part`), one phone.

    Positions are in metres of the building's own plane. The scans are also among those of `uji_library_longterm`;
    access points have the same names there.
    """
    names = [LIBRARY_AP.format(number) for number in LIB1_ACCESS_POINTS]
    (source,) = files_of("uji_library")
    if source.release == "mat":
        return _of_matlab("uji_library", names)
    columns = _numbered("AP {}", source.transmitters)
    rssi, table = _read(source, columns, 100, ["X", "Y", "FLOOR", "BUILDING", "PART"])
    return FingerprintSet(
        rssi=rssi,
        position=table[["X", "Y"]].to_numpy(dtype=np.float64),
        frame=Frame(None),
        transmitters=tuple(names),
        name="uji_library",
        release=_release(REGISTRY["uji_library"]),  # of which these are the rows
        floor=table["FLOOR"].to_numpy(dtype=np.int64),
        building=table["BUILDING"].to_numpy(dtype=np.int64),
        part=table["PART"].to_numpy(dtype=str),
    )


def load_uji_library_longterm() -> FingerprintSet:
    """Wi-Fi on two floors of a library over 25 months, 104,154 scans.

    `part` is `train` or `test`, `group` the phone, and `library_month` gives the month of a `time`. Month 1 has 15
    training sets, month 25 has two, each other month one. Positions are in metres of the building's own plane.

    Six training scans of month 1 are left out. The file has them in the middle of the room, on a floor 0 that does not
    exist, but by their RSSI and by the same point of all other sets they were made 12.5 m from there.
    """
    (source,) = files_of("uji_library_longterm")
    path = path_of(source)
    require_memory(source.rows, source.transmitters, copies=3)  # the others are the text, and a copy without six rows
    rssi = []
    labels = []
    with tarfile.open(fileobj=io.BytesIO(checked(path, source))) as archive:
        for sets in _sets_of_months(archive):
            levels = _table_of(archive, sets, "rss").to_numpy(dtype=np.float32)
            rssi.append(levels)
            for name in sets:
                labels.append(_labels_of(archive, name))
    rssi = np.concatenate(rssi)
    expected = (source.rows, source.transmitters)
    if rssi.shape != expected:
        raise DataError(path, f"rows and transmitters {expected}", str(rssi.shape))
    labels = pd.concat(labels, ignore_index=True)
    placed = labels["floor"].to_numpy() > 0
    labels = labels[placed]
    return FingerprintSet(
        rssi=_in_dbm(rssi[placed], 100, path),
        position=labels[["x", "y"]].to_numpy(dtype=np.float64),
        frame=Frame(None),
        transmitters=tuple(_numbered(LIBRARY_AP, source.transmitters)),
        name="uji_library_longterm",
        release=_release(source),
        floor=labels["floor"].to_numpy(dtype=np.int64),
        group=labels["phone"].to_numpy(dtype=str),
        part=labels["part"].to_numpy(dtype=str),
        time=labels["time"].to_numpy(),
    )


def _sets_of_months(archive: tarfile.TarFile) -> list[list[str]]:
    """Of each month its sets, as paths without `rss.csv`. A month is read at once: many small files take longer."""
    sets = {}
    for name in sorted(archive.getnames()):
        if name.endswith("rss.csv"):
            month = Path(name).parent
            sets.setdefault(month, []).append(name.removesuffix("rss.csv"))
    return list(sets.values())


def _table_of(archive: tarfile.TarFile, sets: Sequence[str], kind: str) -> pd.DataFrame:
    """The rows of one kind of file (`rss`, `crd`, `tms`) of several sets, one set after another."""
    texts = [archive.extractfile(f"{name}{kind}.csv").read() for name in sets]
    return pd.read_csv(io.BytesIO(b"".join(texts)), header=None, low_memory=False)


def _labels_of(archive: tarfile.TarFile, name: str) -> pd.DataFrame:
    """Columns `x`, `y`, `floor`, `time`, `part` and `phone` of the scans of one set."""
    labels = _table_of(archive, [name], "crd").set_axis(["x", "y", "floor"], axis="columns")
    stamps = _table_of(archive, [name], "tms")[0].astype(str)
    labels["time"] = pd.to_datetime(stamps, format="%Y%m%d%H%M%S%f")
    labels["part"] = "train" if Path(name).name.startswith("trn") else "test"
    labels["phone"] = "Galaxy A5" if name.endswith(SECOND_PHONE) else "Galaxy S3"
    return labels


def library_month(time: np.ndarray) -> np.ndarray:
    """The months of scans of the library, as the publisher numbers them: campaigns, not calendar months.

    Args:
        time: (n,) datetime64, as `uji_library_longterm` has it.

    Returns:
        (n,) integers from 1 to 25.

    Raises:
        ValueError: if a time is before the first campaign.
    """
    month = np.searchsorted(CAMPAIGNS, time.astype("datetime64[D]"), side="right")
    if (month == 0).any():
        raise ValueError(f"`time` must be {CAMPAIGNS[0]} or later. Received: {time.min()}")
    return month


# === SODIndoorLoc ===


def load_sodindoorloc(environment: str) -> FingerprintSet:
    """Wi-Fi in an office building, of the collection SODIndoorLoc.

    Args:
        environment: `cetc331` (three floors, 955 training and 840 test scans, one phone) or `hcxy` (one floor, 30 scans
            at each of 379 reference points and 860 test scans elsewhere, six phones).

    Returns:
        The scans with `part` `train` or `test`, `group` the phone; positions are in metres of the building's own plane.
    """
    training, testing = files_of(environment)
    columns = _columns_of(training)
    access_points = [column for column in columns if column.startswith("MAC")]
    further = ["ECoord", "NCoord", "FloorID", "BuildingID", "PhoneID"]
    rssi, table, counts = _read_all([training, testing], access_points, 100, further)
    return FingerprintSet(
        rssi=rssi,
        position=table[["ECoord", "NCoord"]].to_numpy(dtype=np.float64),
        frame=Frame(None),
        transmitters=tuple(f"{environment.upper()} {name}" for name in access_points),
        name=environment,
        release=_release_of_all([training, testing]),
        floor=table["FloorID"].to_numpy(dtype=np.int64),
        building=table["BuildingID"].to_numpy(dtype=np.int64),
        group=table["PhoneID"].to_numpy(),
        part=np.repeat(["train", "test"], counts),
    )


def _columns_of(source: Source) -> list[str]:
    """The header of a checked CSV file."""
    content = checked(path_of(source), source)
    return list(pd.read_csv(io.BytesIO(content), nrows=0).columns)


LOADERS: dict[str, Callable[[], FingerprintSet]] = {
    "ujiindoorloc": load_ujiindoorloc,
    "lorawan_antwerp": load_lorawan_antwerp,
    "sigfox_rural": load_sigfox_rural,
    "uji_library": load_uji_library,
    "uji_library_longterm": load_uji_library_longterm,
    "tut1": partial(load_tampere, "tut1"),
    "tut2": partial(load_tampere, "tut2"),
    "tut5": partial(load_tampere, "tut5"),
    "cetc331": partial(load_sodindoorloc, "cetc331"),
    "hcxy": partial(load_sodindoorloc, "hcxy"),
}
