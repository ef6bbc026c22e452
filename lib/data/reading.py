"""Scans and fingerprints as users have them → dBm with NaN = not heard, in the order of given transmitters.

A scan may come as a row of a wide table (one column per transmitter), as rows of a long table (columns `scan`,
`transmitter`, `rssi`), or as a dict of RSSI by transmitter. Transmitters come in any order, and are told by name; a
name is taken as text, exactly as it is written. NaN (None, an empty cell of a CSV) is not heard; any other marker, such
as 100, −200 or "", is only that where it is declared. What no receiver reports is an error and never a position.
"""

import csv
import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data.fingerprints import FingerprintSet, Frame, Release, require_memory

LOWEST_DBM, HIGHEST_DBM = -160.0, 0.0  # what a receiver may report; the weakest in the published sets is -147
LONG = ("scan", "transmitter", "rssi")
# Columns of a table that are no transmitters, unless a transmitter that is asked for is called so.
NAMED = ("scan", "x", "y", "latitude", "longitude", "floor", "building", "time", "device")


@dataclass(frozen=True, eq=False)
class NamedScans:
    """n scans of t transmitters.

    Attributes:
        rssi: (n, t) float32 dBm; NaN = not heard.
        unknown: (n,) how many other transmitters each scan hears.
        index: (n,) what the scans are called.
    """

    rssi: np.ndarray
    unknown: np.ndarray
    index: pd.Index


# === Scans → matrix ===


def matrix(scans, transmitters: Sequence[str], not_heard: Sequence = ()) -> NamedScans:
    """Scans in any of the three forms as one matrix.

    Args:
        scans: a wide or a long DataFrame, or a list of dicts.
        transmitters: (t,) names, the columns of the result; those that a scan does not name are not heard.
        not_heard: further values that stand for "not heard", numbers or text.

    Returns:
        The scans in the order in which they came, named by the index or the column `scan` of a table.

    Raises:
        ValueError: if `scans` is none of the three, a value is neither "not heard" nor from −160 to 0, a transmitter
            occurs twice, or a row of a long table lacks its scan or transmitter. It names the row and what came.
    """
    if len(set(transmitters)) < len(transmitters):
        raise ValueError(f"`transmitters` must differ. Received twice: {_first_twice(transmitters)}")
    if isinstance(scans, pd.DataFrame):
        names = [str(name) for name in scans.columns]
        return (_of_long if set(LONG) <= set(names) else _of_wide)(scans, names, transmitters, not_heard)
    if isinstance(scans, list | tuple):
        return _of_dicts(scans, transmitters, not_heard)
    raise ValueError(
        "`scans` must be a DataFrame with a column for each transmitter, one with the columns scan, transmitter, rssi, "
        f"or a list of dicts. Received: {type(scans).__name__}"
    )


def _of_wide(table: pd.DataFrame, names: list[str], transmitters: Sequence[str], not_heard: Sequence) -> NamedScans:
    known = {name: number for number, name in enumerate(transmitters)}
    if twice := _first_twice([name for name in names if name in known or name == "scan"]):
        raise ValueError(f"each column must occur once. Received twice: {twice}")
    require_memory(len(table), len(known))
    rssi, unknown = np.full((len(table), len(known)), np.nan, dtype=np.float32), np.zeros(len(table), dtype=np.int64)
    called = "scan" in names and "scan" not in known
    index = pd.Index(table.iloc[:, names.index("scan")]) if called else table.index
    for number, name in enumerate(names):
        if name in NAMED and name not in known:
            continue
        level, impossible = _levels(table.iloc[:, number], not_heard)
        if name not in known:
            unknown += ~impossible & ~np.isnan(level)
        else:
            if impossible.any():
                _refuse(index, np.argmax(impossible), name, table.iloc[np.argmax(impossible), number])
            rssi[:, known[name]] = level
    return NamedScans(rssi, unknown, index)


def _of_long(table: pd.DataFrame, names: list[str], transmitters: Sequence[str], not_heard: Sequence) -> NamedScans:
    if twice := _first_twice([name for name in names if name in LONG]):
        raise ValueError(f"each column must occur once. Received twice: {twice}")
    scan, transmitter, values = (table.iloc[:, names.index(name)] for name in LONG)
    try:
        numbers, called = pd.factorize(scan)
    except TypeError as problem:
        raise ValueError(f"column scan: expected numbers or text. Received: {problem}") from problem
    absent = np.array([pd.api.types.is_scalar(name) and (pd.isna(name) or name == "") for name in transmitter], bool)
    silent = np.array([pd.api.types.is_scalar(value) and bool(pd.isna(value)) for value in values], bool)
    for name, lacking in {"scan": numbers < 0, "transmitter": absent & ~silent}.items():
        if lacking.any():
            raise ValueError(f"row {table.index[np.argmax(lacking)]}: expected a name in the column {name}, found none")
    named = [str(name) for name in transmitter[~absent]]
    return _of_heard(numbers[~absent], named, values[~absent], pd.Index(called), transmitters, not_heard)


def _of_dicts(scans: Sequence[Mapping], transmitters: Sequence[str], not_heard: Sequence) -> NamedScans:
    for number, scan in enumerate(scans):
        if not isinstance(scan, Mapping):
            raise ValueError(f"scan {number}: expected a dict of RSSI by transmitter. Received: {type(scan).__name__}")
    numbers = np.repeat(np.arange(len(scans)), [len(scan) for scan in scans])
    named = [str(name) for scan in scans for name in scan]
    values = pd.Series([value for scan in scans for value in scan.values()], dtype=object)
    return _of_heard(numbers, named, values, pd.RangeIndex(len(scans)), transmitters, not_heard)


def _of_heard(
    scan: np.ndarray, named: list[str], values: pd.Series, index: pd.Index, transmitters: Sequence[str], not_heard
) -> NamedScans:
    """k readings, each with the (k,) number of its scan and the name of its transmitter, as n scans called `index`."""
    repeated = pd.DataFrame({"scan": scan, "transmitter": pd.Series(named, dtype=object)}).duplicated().to_numpy()
    if repeated.any():
        first = np.argmax(repeated)
        raise ValueError(f"scan {index[scan[first]]}: expected each transmitter once. Received twice: {named[first]}")
    require_memory(len(index), len(transmitters))
    rssi = np.full((len(index), len(transmitters)), np.nan, dtype=np.float32)
    column = pd.Index(transmitters, dtype=object).get_indexer(pd.Index(named, dtype=object))
    level, impossible = _levels(values, not_heard)
    known = column >= 0
    if (impossible & known).any():
        first = np.argmax(impossible & known)
        _refuse(index, scan[first], named[first], values.iloc[first])
    rssi[scan[known], column[known]] = level[known]
    unknown = np.bincount(scan[~known & ~impossible & ~np.isnan(level)], minlength=len(index))
    return NamedScans(rssi, unknown, index)


def _levels(values: pd.Series, not_heard: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """(n,) values of any kind → (n,) float64 dBm with NaN = not heard, and (n,) bool: which are no RSSI at all."""
    kind = pd.api.types
    if kind.is_numeric_dtype(values) and not (kind.is_bool_dtype(values) or kind.is_complex_dtype(values)):
        level = values.to_numpy(dtype=np.float64, na_value=np.nan)
        impossible = np.zeros(len(level), dtype=bool)
    else:
        text = [marker for marker in not_heard if isinstance(marker, str)]
        read = [_level(value, text) for value in values]
        impossible = np.array([level is None for level in read], dtype=bool)
        level = np.array([np.nan if level is None else level for level in read], dtype=np.float64)
    level = np.where(np.isin(level, [marker for marker in not_heard if _is_number(marker)]), np.nan, level)
    return level, impossible | (level < LOWEST_DBM) | (level > HIGHEST_DBM)


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _level(value, text: Sequence[str]) -> float | None:
    """A number, NaN for "not heard", None for what is neither."""
    if _is_number(value):
        try:
            return float(value)
        except OverflowError:
            return np.inf
    absent = value in text if isinstance(value, str) else pd.api.types.is_scalar(value) and pd.isna(value)
    return np.nan if absent else None


def _refuse(index: pd.Index, row: int, transmitter: str, value) -> None:
    value = value.item() if isinstance(value, np.generic) else value
    raise ValueError(
        f"{index.name or 'scan'} {index[row]}, transmitter {transmitter}: expected RSSI from {LOWEST_DBM:g} to "
        f"{HIGHEST_DBM:g} dBm, or NaN for not heard. Received: {value!r}. A marker of “not heard” has to be declared"
    )


def _first_twice(names: Sequence[str]) -> str | None:
    """The first name that occurred before."""
    repeated = pd.Index(names, dtype=object).duplicated()
    return names[np.argmax(repeated)] if repeated.any() else None


# === Files ===


def read_scans(path: Path | str, form: str | None = None) -> pd.DataFrame:
    """A CSV of scans, for `matrix`.

    Args:
        path: the file.
        form: `wide` or `long`, None for either: a table with the columns scan, transmitter and rssi is long.

    Raises:
        ValueError: if the file is no CSV, or not of the form.
        FileNotFoundError: if it is not there.
    """
    _, table = _read_csv(path)
    long = set(LONG) <= set(table.columns)
    if form is not None and long != (form == "long"):
        expected = f"the columns {', '.join(LONG)}" if form == "long" else "a column for each transmitter"
        raise ValueError(f"{path}: expected {expected}. Received: {_listed(table.columns)}")
    return table


def read_fingerprints(
    path: Path | str, name: str, *, prefix: str | None = None, not_heard: Sequence = ()
) -> FingerprintSet:
    """A CSV of fingerprints, one scan a row.

    Columns:
        `x`, `y`: metres east and north in any plane; or `latitude`, `longitude`: degrees (WGS 84).
        `floor`, `building`: whole numbers, if there are any, in every row.
        `time`: a date and time, `device`: what measured; both optional. `scan` is ignored.
        all others, or those that begin with `prefix`: RSSI in dBm of one transmitter each, empty = not heard.

    Args:
        path: the file.
        name: of the environment.
        prefix: of the columns that are transmitters; then all others but the named ones are ignored.
        not_heard: see `matrix`.

    Raises:
        ValueError: if a column or value is not like that. It names the file, the line and the column.
        FileNotFoundError: if the file is not there.
    """
    content, table = _read_csv(path)
    pairs = [pair for pair in (("x", "y"), ("latitude", "longitude")) if set(pair) & set(table.columns)]
    if len(pairs) != 1 or not set(pairs[0]) <= set(table.columns):
        raise ValueError(f"{path}: expected columns x, y or latitude, longitude. Received: {_listed(table.columns)}")
    heard = [column for column in table.columns if column not in NAMED and column.startswith(prefix or "")]
    if not heard or not len(table):
        expected = "at least one row" if heard else f"a column for each transmitter{f' ({prefix}…)' * bool(prefix)}"
        raise ValueError(f"{path}: expected {expected}. Received: {_listed(table.columns)}")
    table.index = pd.RangeIndex(2, 2 + len(table), name="line")
    try:
        rssi = matrix(table[heard], heard, not_heard).rssi
        if np.isnan(rssi).all():
            raise ValueError("expected RSSI. Received: no transmitter is heard in any row")
        limits = {"latitude": 90.0, "longitude": 180.0}
        position = np.column_stack([_numbers(table[axis], limits.get(axis, np.inf)) for axis in pairs[0]])
        labels = {field: _numbers(table[field], whole=True) for field in ("floor", "building") if field in table}
        time = _times(table["time"]) if "time" in table else None
    except ValueError as problem:
        raise ValueError(f"{path}: {problem}") from problem
    frame = Frame(None)
    if pairs[0] == ("latitude", "longitude"):
        frame = Frame.around(*(round(float(middle), 2) for middle in np.median(position, axis=0)))
        position = frame.from_degrees(position)
    return FingerprintSet(
        rssi=rssi,
        position=position,
        frame=frame,
        transmitters=tuple(heard),
        name=name,
        release=Release(Path(path).name, len(table), hashlib.sha256(content).hexdigest()),
        group=table["device"].astype(str).to_numpy(dtype=str) if "device" in table else None,
        time=time,
        **labels,
    )


def table_of(fingerprints: FingerprintSet) -> pd.DataFrame:
    """The table that `read_fingerprints` reads: degrees where the frame knows them, else metres."""
    here, names = fingerprints.frame.to_degrees(fingerprints.position), ("latitude", "longitude")
    if fingerprints.frame.crs is None:
        here, names = fingerprints.position, ("x", "y")
    columns = dict(zip(names, here.T, strict=True))
    fields = {"floor": "floor", "building": "building", "time": "time", "group": "device"}
    columns |= {new: getattr(fingerprints, field) for field, new in fields.items()}
    about = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
    return pd.concat([about, pd.DataFrame(fingerprints.rssi, columns=list(fingerprints.transmitters))], axis=1)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(str, columns[:12])) + ", …" * (len(columns) > 12)


def _read_csv(path: Path | str) -> tuple[bytes, pd.DataFrame]:
    """The content of a CSV, and its table; text that is a number is one, the names in a long table stay text."""
    content = Path(path).read_bytes()
    try:
        names = next(csv.reader(io.StringIO(content.decode("utf-8-sig"))), [])
        if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
            raise ValueError(f"{path}: expected commas between columns. Received: {names[0][:60]}")
        text = {"transmitter": str} if set(LONG) <= set(names) else {}
        empty = {name: ["", "nan", "NaN", "NA", "None"] for name in names if name not in text}
        settings = {
            "low_memory": False,
            "dtype": text,
            "keep_default_na": False,
            "na_values": empty,
            "index_col": False,
        }
        with warnings.catch_warnings(category=pd.errors.ParserWarning, action="error"):  # of rows that are too long
            table = pd.read_csv(io.BytesIO(content), **settings)
    except (
        UnicodeDecodeError,
        csv.Error,
        pd.errors.EmptyDataError,
        pd.errors.ParserError,
        pd.errors.ParserWarning,
    ) as problem:
        raise ValueError(f"{path}: expected a CSV with a header. Received: {problem}") from problem
    if twice := _first_twice(names):
        raise ValueError(f"{path}: expected each column once. Received twice: {twice}")
    for name in table.columns.difference([*NAMED, *text]):
        if not pd.api.types.is_numeric_dtype(table[name]):
            numbers = pd.to_numeric(table[name], errors="coerce")
            table[name] = table[name].astype(object).where(numbers.isna(), numbers)
    return content, table


def _numbers(values: pd.Series, limit: float = np.inf, whole: bool = False) -> np.ndarray:
    """(n,) numbers of at most `limit`, float64 or int64; another value is refused by its line and column."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    fine = np.isfinite(numbers) & (np.abs(numbers) <= limit) & (not whole or numbers == np.round(numbers))
    if not fine.all():
        bound = f" of at most ±{limit:g}" if limit < np.inf else ""
        expected = "a whole number" if whole else "a number" + bound
        _refuse_column(values, ~fine, expected)
    return numbers.astype(np.int64) if whole else numbers


def _times(values: pd.Series) -> np.ndarray:
    """(n,) datetime64 in UTC, of dates and times or of seconds since 1970."""
    if pd.api.types.is_numeric_dtype(values):
        times = pd.to_datetime(values, unit="s", utc=True, errors="coerce")
    else:
        times = pd.to_datetime(values, format="mixed", utc=True, errors="coerce")
    if times.isna().any():
        _refuse_column(values, times.isna().to_numpy(), "a date and time")
    return times.dt.tz_localize(None).to_numpy()


def _refuse_column(values: pd.Series, wrong: np.ndarray, expected: str) -> None:
    value = values.iloc[np.argmax(wrong)]
    value = value.item() if isinstance(value, np.generic) else value
    raise ValueError(
        f"line {values.index[np.argmax(wrong)]}, column {values.name}: expected {expected}. Received: {value!r}"
    )
