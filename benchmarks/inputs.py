"""What is timed: fingerprints in the publishers' formats, and rows as the paper's networks see them."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data import sources
from lib.data.fingerprints import FingerprintSet
from lib.data.protocols import Parts
from lib.models.scaling import MinMaxScaling

KEYS = {  # of the registry; those of UJIIndoorLoc are the parts `train` and `validation`
    "ujiindoorloc": {"train": "uji_training", "validation": "uji_validation"},
    "lorawan_antwerp": {"all": "lorawan_full"},
}


def campus_table(fingerprints: FingerprintSet) -> pd.DataFrame:
    """Rows as in the files of UJIIndoorLoc."""
    rssi = np.nan_to_num(fingerprints.rssi, nan=100).astype(np.int16)
    longitude, latitude = fingerprints.frame.to_publisher(fingerprints.position).T
    return pd.DataFrame(rssi, columns=list(fingerprints.transmitters)).assign(
        LONGITUDE=longitude,
        LATITUDE=latitude,
        FLOOR=fingerprints.floor,
        BUILDINGID=fingerprints.building,
        PHONEID=fingerprints.group,
        TIMESTAMP=fingerprints.time.astype("datetime64[s]").astype(int),
    )


def city_table(fingerprints: FingerprintSet) -> pd.DataFrame:
    """Rows as in the full release of the Antwerp LoRaWAN set."""
    rssi = np.nan_to_num(fingerprints.rssi, nan=-200).astype(np.int16)
    latitude, longitude = fingerprints.frame.to_degrees(fingerprints.position).T
    times = pd.date_range("2018-11-01", periods=len(fingerprints), freq="7s")
    table = pd.DataFrame(rssi, columns=list(fingerprints.transmitters))
    table = table.assign(Latitude=latitude, Longitude=longitude, SF=7, HDOP=1.5)
    table["RX Time"] = times.strftime("%Y-%m-%dT%H:%M:%S.000000+00:00")
    return table


def description(path: Path, rows: int) -> dict:
    """What the registry says of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {"file": str(path), "rows": rows, "size": path.stat().st_size, "sha256": digest.hexdigest()}


def register(files: Mapping[str, Mapping]) -> None:
    """Put files in the place of the publishers', for this process, which then loads all LoRaWAN messages if any.

    Args:
        files: by their keys in the registry, what differs from it.
    """
    for key, changes in files.items():
        sources.REGISTRY[key] = dataclasses.replace(sources.REGISTRY[key], **changes)
    if "lorawan_full" in files:
        os.environ["LORAWAN"] = "full"


def scaled(parts: Parts) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(x, y) of `train`, `validation` and `test`: RSSI scaled by Eq. 5, and positions scaled to the training range."""
    rssi = MinMaxScaling.of_rssi(parts.train.scans.of(parts.transmitters), parts.train.not_heard_dbm)
    position = MinMaxScaling.of_position(parts.train.position)
    arrays = {}
    for name in ("train", "validation", "test"):
        rows = getattr(parts, name)
        x = rssi.transform(rows.scans.of(parts.transmitters))
        arrays[name] = x, position.transform(rows.position)
    return arrays
