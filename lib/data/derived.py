"""The files that the results are of, made from the publishers' releases: whoever has a release gets the same rows.

A subset has no address of its own. `data/rows/` holds a digest of each of its rows, in order, by which they are found
in the release. Six bytes a row are enough: that one of the 16,613 LoRaWAN rows shares its digest with a different one
of the 130,429 has a probability of 16,613 × 130,429 / 2⁴⁸, 8 in a million (5,015 Sigfox rows: 5 in ten million), and
the checksum of the whole file would tell. Rows that are alike in every column that is kept are interchangeable.

`python -m lib.data.derived SUBSET.csv data/rows/KEY.bin` writes these digests.
"""

import argparse
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.paths import ROOT, replacing

ROWS = ROOT / "data" / "rows"
DIGEST_BYTES = 6
LORAWAN_GATEWAYS, SIGFOX_STATIONS = 72, 137
POSITION = ("latitude", "longitude")

LIBRARY_SETS = ("trn01", "tst01", "tst02", "tst03", "tst04", "tst05")
# `LIB1.mat` is of the first version of the release; in the second, the origin lies elsewhere (in metres).
LIB1_ORIGIN = (0.009394, 0.009012)
# LIB1's columns by their numbers in the 25 months. Each has the levels of exactly one column there, scan by scan.
LIB1_ACCESS_POINTS = (
    *range(1, 79),
    *(80, 81, *range(83, 92), 93, 94, *range(96, 101), 102, *range(104, 110), 112, 114, *range(116, 126), 127, 128),
    *(130, 137, 138, 139, 141, 142, 144, 145, 146, *range(149, 154), 155, *range(161, 166), 169, 170, 176, 178, 179),
    *(180, 183, 200, 184, 189, 193, 188, 185, 186, 187, 190, 191, 192, *range(194, 200), *range(201, 214)),
)


# === Rows by digest ===


def row_digests(rssi: np.ndarray, degrees: np.ndarray) -> list[bytes]:
    """What identifies each row of a file.

    Args:
        rssi: (n, t) whole dBm, with the publisher's marker of "not heard".
        degrees: (n, 2) float64 latitude and longitude.

    Returns:
        n digests of `DIGEST_BYTES` bytes.
    """
    levels = np.ascontiguousarray(rssi, dtype="<i2").view(np.uint8)
    places = np.ascontiguousarray(degrees, dtype="<f8").view(np.uint8)
    rows = np.concatenate([levels, places], axis=1)
    return [hashlib.blake2b(row.tobytes(), digest_size=DIGEST_BYTES).digest() for row in rows]


def _stations_and_degrees(path: Path, stations: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of a CSV, (n, stations) whole dBm and (n, 2) degrees.

    The first columns are the stations; some releases put the names of columns into quotes.

    Raises:
        ValueError: if it has no such columns.
    """
    table = pd.read_csv(path)
    table.columns = [name.strip(" '\"") for name in table.columns]
    by_name = {name.casefold(): name for name in table.columns}
    missing = [name for name in POSITION if name not in by_name]
    if missing or table.shape[1] < stations + len(POSITION):
        expected = f"{stations} columns of base stations, and {' and '.join(POSITION)}"
        raise ValueError(f"{path}: expected {expected}. Received: {table.shape[1]} columns without {missing}")
    rssi = table.iloc[:, :stations]
    whole = rssi.astype(np.int16)
    if not np.array_equal(whole, rssi):
        raise ValueError(f"{path}: expected whole dBm in the first {stations} columns. Received: fractions")
    degrees = table[[by_name[name] for name in POSITION]]
    return whole, degrees.astype(np.float64)


def _chosen_rows(release: Path, stations: int, key: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a release that belong to a subset, in the order of the subset.

    Args:
        release: the publisher's CSV.
        stations: how many columns of base stations it has.
        key: of the subset in the registry.

    Returns:
        Their dBm, and their latitude and longitude.

    Raises:
        ValueError: if the release lacks some of them.
    """
    rssi, degrees = _stations_and_degrees(release, stations)
    digests = row_digests(rssi.to_numpy(), degrees.to_numpy())
    row_of = {digest: row for row, digest in enumerate(digests)}
    wanted = (ROWS / f"{key}.bin").read_bytes()
    rows = []
    for start in range(0, len(wanted), DIGEST_BYTES):
        digest = wanted[start : start + DIGEST_BYTES]
        rows.append(row_of.get(digest, -1))
    absent = rows.count(-1)
    if absent:
        raise ValueError(
            f"{release}: expected the {len(rows):,} rows of {key}. Received: {len(digests):,} rows, which lack "
            f"{absent:,} of them. It is another release: replace or delete it"
        )
    return rssi.iloc[rows], degrees.iloc[rows]


def _as_csv(parts: Sequence[pd.DataFrame]) -> bytes:
    """Tables side by side as the text of a CSV."""
    aligned = [part.reset_index(drop=True) for part in parts]
    return pd.concat(aligned, axis=1).to_csv(index=False, lineterminator="\n").encode()


# === The files ===


def lorawan_subset(release: Path) -> bytes:
    """Of all LoRaWAN messages, those of the subset, with the part of the published split.

    Args:
        release: `lorawan_antwerp_2019_dataset.csv`.

    Returns:
        The content of `lorawan_antwerp_3gw.csv`.

    Raises:
        ValueError: if the release lacks some of its rows.
    """
    rssi, degrees = _chosen_rows(release, LORAWAN_GATEWAYS, "lorawan_3gw")
    degrees.columns = ["Latitude", "Longitude"]
    validation = len(rssi) // 2
    split = np.repeat(["val", "test"], [validation, len(rssi) - validation])
    return _as_csv([rssi, degrees, pd.DataFrame({"split": split})])


def sigfox_band(release: Path) -> bytes:
    """Of all rural Sigfox messages, those of the band from 4.15 to 4.25 degrees east.

    Args:
        release: `sigfox_dataset_rural.csv`.

    Returns:
        The content of `sigfox_rural_4.15_to_4.25.csv`, whose columns are numbered.

    Raises:
        ValueError: if the release lacks some of its rows.
    """
    rssi, degrees = _chosen_rows(release, SIGFOX_STATIONS, "sigfox_rural")
    rssi.columns = range(SIGFOX_STATIONS)
    degrees.columns = range(SIGFOX_STATIONS, SIGFOX_STATIONS + 2)
    return _as_csv([rssi, degrees])


def library_month(release: Path) -> bytes:
    """The first month of the library, what `LIB1.mat` holds, as a CSV.

    The header of a `.mat` file tells when it was written, and its content is compressed: its bytes cannot be made
    again. So the same rows have a second form with a checksum of its own.

    Args:
        release: the archive `UJI_LIB_DB_v2`, a zip or a tar, compressed or not.

    Returns:
        The content of `LIB1.csv`: dBm of 174 access points (100 = not heard), x and y in metres, floor, building, part.

    Raises:
        ValueError: if the archive lacks one of the sets.
    """
    rssi_of_sets = []
    places_of_sets = []
    part = []
    members = _month_members(release)
    for name in LIBRARY_SETS:
        rssi = _numbers(members[f"{name}rss.csv"])
        rssi_of_sets.append(rssi)
        places_of_sets.append(_numbers(members[f"{name}crd.csv"]))
        part += ["train" if name.startswith("trn") else "test"] * len(rssi)
    rssi = np.concatenate(rssi_of_sets).astype(np.int64)
    places = np.concatenate(places_of_sets)
    columns = np.array(LIB1_ACCESS_POINTS) - 1
    names = [f"AP {number}" for number in range(1, len(columns) + 1)]
    position = np.round(places[:, :2] - LIB1_ORIGIN, 9)
    labels = {"FLOOR": places[:, 2].astype(np.int64), "BUILDING": 0, "PART": part}
    return _as_csv(
        [
            pd.DataFrame(rssi[:, columns], columns=names),
            pd.DataFrame(position, columns=["X", "Y"]),
            pd.DataFrame(labels),
        ]
    )


def _numbers(text: bytes) -> np.ndarray:
    """The values of a CSV without a header, two-dimensional."""
    return pd.read_csv(io.BytesIO(text), header=None).to_numpy(dtype=np.float64)


def _month_members(archive: Path) -> dict[str, bytes]:
    """By name, the files of the sets of the first month.

    Raises:
        ValueError: if it is neither zip nor tar, or lacks one.
    """
    wanted = [f"db/01/{name}{kind}.csv" for name in LIBRARY_SETS for kind in ("rss", "crd")]
    found = {}
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as members:
            for name in members.namelist():
                if name.endswith(tuple(wanted)):
                    found[Path(name).name] = members.read(name)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as members:
            for member in members:
                if member.name.endswith(tuple(wanted)):
                    found[Path(member.name).name] = members.extractfile(member).read()
    else:
        raise ValueError(f"{archive}: expected a zip or tar. Received: another file. Replace or delete it")
    missing = [name for name in wanted if Path(name).name not in found]
    if missing:
        raise ValueError(f"{archive}: expected {', '.join(wanted[:2])}, …. Received: none of {', '.join(missing)}")
    return found


# By name, what makes the content of a file of a release.
DERIVATIONS: dict[str, Callable[[Path], bytes]] = {
    "lorawan_subset": lorawan_subset,
    "sigfox_band": sigfox_band,
    "library_month": library_month,
}


def main() -> None:
    """Write the digests of a subset's rows: its first columns are base stations, then latitude and longitude."""
    parser = argparse.ArgumentParser(prog="python -m lib.data.derived", description=main.__doc__)
    parser.add_argument("subset", type=Path, help="CSV of the subset")
    parser.add_argument("digests", type=Path, help="where to write its digests, data/rows/KEY.bin")
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.subset)
    numeric = table.select_dtypes("number")
    rssi = numeric.iloc[:, :-2].to_numpy()
    degrees = numeric.iloc[:, -2:].to_numpy()
    with replacing(arguments.digests) as temporary:
        temporary.write_bytes(b"".join(row_digests(rssi, degrees)))


if __name__ == "__main__":
    main()
