"""Folders in COMFORD's intermediate format (https://github.com/musica-maestro/comford) as one file of fingerprints.

`Samples.csv` has a row for each scan: its position, and what is known of floor, building, time, device, and part of the
publisher's split. `RSSI.csv` has a row for each reading; what a scan does not hear has none. `APs.csv` lists the access
points, which `RSSI.csv` names already: it is not read. What is not known is written as `None`.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data import files, tables
from lib.data.files import File
from lib.data.forms import Readings, Rules, first_twice
from lib.data.names import OF_SCAN, Columns, listed, plain
from lib.data.tables import Contents

SAMPLES, READINGS = "Samples.csv", "RSSI.csv"
UNKNOWN = ("", "none", "nan", "null")  # in lower case
PART_COLUMNS = ("set", "testtrainval", "split")  # as COMFORD's code, its specification and others call it, by `plain`
PARTS = {"training": "train", "testing": "test", "val": "validation"}  # other names stay as they are


def is_folder(path: Path | str) -> bool:
    """Whether there is a folder in this format."""
    return (Path(path) / SAMPLES).is_file()


def contents_of(folder: Path, columns: Columns, rules: Rules) -> Contents:
    """What a folder has.

    Args:
        folder: with `Samples.csv` and `RSSI.csv`.
        columns: what its columns are.
        rules: how its values are read.

    Returns:
        The scans in the order of `Samples.csv`, also those that hear nothing; the role `part` has the part of each.

    Raises:
        ValueError: if one of the files is missing or cannot be read, a scan occurs twice, or a reading is of no scan.
    """
    missing = [name for name in (SAMPLES, READINGS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder}: expected a file, or a folder in COMFORD's intermediate format with {SAMPLES} and {READINGS}. "
            f"Received: a folder without {' and '.join(missing)}"
        )
    with tables.naming(folder / SAMPLES):
        samples_file = files.examined(folder / SAMPLES)
        header = files.header_of(samples_file)
        samples = _text_table(samples_file, header)
        roles = columns.roles(header.names)
        about, called = _about(samples, roles, header.names)
        scans = _scan_names(about)
    readings_columns = dataclasses.replace(columns, declared={}, ignored=())
    of_readings = tables.contents_of(folder / READINGS, readings_columns, rules)
    with tables.naming(folder / READINGS):
        readings = _of_samples(of_readings.readings, scans)
    contents = Contents(_file(folder, samples_file, of_readings.file), readings, about, called, header.names)
    tables.leave_out(contents, columns)
    return contents


def _text_table(file: File, header: files.Header) -> pd.DataFrame:
    """The rows of a CSV as text, NA where something is unknown; columns are numbered.

    Raises:
        ValueError: if there are none.
    """
    every = range(len(header.names))
    parts = list(files.parts_of_csv(file, header, every))
    if not parts:
        raise ValueError(f"expected at least one row. Received: a header alone, {listed(header.names)}")
    table = pd.concat(parts, ignore_index=True)
    for number in every:
        text = table[number].astype("string").str.strip()
        is_unknown = text.str.lower().isin(UNKNOWN)
        table[number] = text.mask(is_unknown).astype(object)
    return table


def _about(
    samples: pd.DataFrame, roles: dict[str, int], names: list[str]
) -> tuple[dict[str, pd.Series], dict[str, str]]:
    """By role, what is known of the scans, and what its column is called; columns that say nothing are left out."""
    numbers = {role: number for role, number in roles.items() if role in OF_SCAN}
    for number, name in enumerate(names):
        if plain(name) in PART_COLUMNS:
            numbers["part"] = number
    about = {}
    called = {}
    for role, number in numbers.items():
        values = samples[number]
        if values.notna().any():
            about[role] = values
            called[role] = names[number]
    if "part" in about:
        parts = about["part"].str.lower()
        about["part"] = parts.replace(PARTS)
    return about, called


def _scan_names(about: dict[str, pd.Series]) -> list[str]:
    """The name of each scan.

    Raises:
        ValueError: if one has none, or two have the same.
    """
    if "scan" not in about:
        raise ValueError("expected a column sample_id. Received: none")
    unnamed = about["scan"].isna()
    if unnamed.any():
        raise ValueError(f"expected a sample_id in every row. Received: {unnamed.sum():,} rows without")
    scans = list(about["scan"])
    twice = first_twice(scans)
    if twice is not None:
        raise ValueError(f"expected each sample_id once. Received twice: {twice}")
    return scans


def _of_samples(readings: Readings, scans: list[str]) -> Readings:
    """Readings with the scans of `Samples.csv` in the place of those that hear something.

    Raises:
        ValueError: if one is of no scan.
    """
    numbers = pd.Index(scans, dtype=object).get_indexer(pd.Index(readings.scans, dtype=object))
    unknown = np.flatnonzero(numbers < 0)
    if len(unknown):
        name = readings.scans[unknown[0]]
        raise ValueError(f"expected readings of the scans in {SAMPLES}. Received: sample_id {name}, which is not there")
    scan = numbers[readings.scan].astype(np.int32)
    # Places in messages are names of scans: a line would be of one of two files.
    return dataclasses.replace(readings, scan=scan, scans=scans, scan_lines=None, lines=None)


def _file(folder: Path, samples: File, readings: File) -> File:
    """What stands for the folder."""
    both = f"{samples.sha256} {readings.sha256}"
    sha256 = hashlib.sha256(both.encode()).hexdigest()
    return File(folder, None, None, "COMFORD", sha256, samples.line_ends + readings.line_ends)
