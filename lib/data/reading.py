"""Users' files of fingerprints and scans → FingerprintSet and matrix, and a paragraph that says what was read.

What looks wrong is left out with a word, or refused with the line, the column and what came: it never passes as a
measurement or a position.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data import comford, doubts, forms, tables
from lib.data.fingerprints import FingerprintSet, Frame, Release, require_memory
from lib.data.forms import NamedScans, Rules
from lib.data.names import POSITIONS, Columns, Spellings, listed
from lib.data.tables import Contents, naming

LARGEST = {"s": 1e11, "ms": 1e14, "us": 1e17}  # times since 1970, by their unit; larger ones are in ns
EARLIEST, LATEST = pd.Timestamp("1990-01-01", tz="UTC"), pd.Timestamp("2100-01-01", tz="UTC")
LOCAL_DATE = re.compile(r"^\s*(\d{1,2})([/.\-])(\d{1,2})[/.\-]\d{2}")
TIME_ALONE = re.compile(r"\s*\d{1,2}:")
LARGEST_LABEL = 1e9  # of a floor or building


@dataclass(frozen=True)
class Options:
    """How the user says that a file is to be read.

    Attributes:
        columns: by role, the name of its column.
        ignore: names or patterns of columns that are left out.
        transmitters: patterns of the names of transmitters; none for all columns that are nothing else.
        not_heard: further values that stand for "not heard".
        measured: values that are measurements although they look like a marker.
        duplicates: see `Rules`.
        keep_far: whether rows at (0, 0) and far from all others are kept.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    transmitters: tuple[str, ...] = ()
    not_heard: tuple = ()
    measured: tuple = ()
    duplicates: str = "strongest"
    keep_far: bool = False

    @property
    def rules(self) -> Rules:
        return Rules(self.not_heard, self.duplicates)

    def columns_of(self, known: Spellings) -> Columns:
        return Columns(known, self.columns, self.ignore, self.transmitters)


# === What users call ===


def read_scans(
    path: Path | str,
    known: Spellings,
    options: Options | None = None,
    tell: Callable[[str], None] | None = None,
) -> NamedScans:
    """Scans of a file, as a matrix of known transmitters.

    Args:
        path: the file.
        known: transmitters, the columns of the result.
        options: how it is to be read.
        tell: what to do with the paragraph that says what was read.

    Raises:
        ValueError: if it cannot be read, has no known transmitter, or a value that is no RSSI.
        FileNotFoundError: if it is not there.
    """
    options = options or Options()
    contents = _contents_of(path, options.columns_of(known), options)
    with naming(path):
        readings = contents.readings
        is_known = np.array([known.number(name) >= 0 for name in readings.transmitters], dtype=bool)
        contents.notes += doubts.marker_values(readings.dbm[is_known[readings.transmitter]], options.measured)
        scans = forms.as_matrix(readings, known, options.rules)
    if scans.repeated:
        contents.notes.append(_repeated(scans.repeated, options))
    if contents.conflict:
        contents.notes.append(contents.conflict)
    if tell:
        heard = f"{np.count_nonzero(is_known):,} of its {len(is_known):,} transmitters are known"
        if readings.transmitters and not is_known.any():
            heard += f" ({listed(readings.transmitters, 3)}; known are {listed(known.numbers, 3)})"
        tell(_paragraph(contents, heard))
    return scans


def read_fingerprints(
    path: Path | str,
    name: str,
    options: Options | None = None,
    known: Spellings | None = None,
    tell: Callable[[str], None] | None = None,
) -> FingerprintSet:
    """Fingerprints of a file.

    Args:
        path: the file: wide (a scan a row), long (a reading a row), pairs, or JSON; or a folder in COMFORD's format.
        name: of the environment.
        options: how it is to be read.
        known: transmitters of other files or of a localizer: the same MAC address gets the same name.
        tell: what to do with the paragraph that says what was read.

    Returns:
        Scans with a position; `x`, `y` in metres of any plane, or degrees (WGS 84) in a plane around their middle.

    Raises:
        ValueError: if it cannot be read, or a value is not what its column is for. It names line and column.
        FileNotFoundError: if it is not there.
    """
    options = options or Options()
    known = known or Spellings()
    contents = _contents_of(path, options.columns_of(Spellings()), options)
    with naming(path):
        pair = _position_roles(contents)
        rssi, transmitters = _rssi(contents, known, options)
        frame, position, kept = _positions(contents, pair, options)
        labels = {role: _labels(contents, role, kept) for role in ("floor", "building")}
        time = _times(contents)
    device = contents.about.get("device")
    part = contents.about.get("part")
    fingerprints = FingerprintSet(
        rssi=rssi if len(kept) == len(rssi) else rssi[kept],
        position=position[kept],
        frame=frame,
        transmitters=transmitters,
        name=name,
        release=Release(Path(path).name, len(rssi), contents.file.sha256),
        group=None if device is None else device.astype(str).to_numpy(dtype=str)[kept],
        part=None if part is None else part.fillna("").to_numpy(dtype=str)[kept],
        time=None if time is None else time[kept],
        **{role: values for role, values in labels.items() if values is not None},
    )
    if tell:
        tell(_paragraph(contents, _heard(fingerprints)))
    return fingerprints


def table_of(fingerprints: FingerprintSet) -> pd.DataFrame:
    """The table that `read_fingerprints` reads: degrees where the frame knows them, else metres."""
    coordinates, names = fingerprints.frame.to_degrees(fingerprints.position), ("latitude", "longitude")
    if fingerprints.frame.crs is None:
        coordinates, names = fingerprints.position, ("x", "y")
    columns = dict(zip(names, coordinates.T, strict=True))
    for field_name, column in {"floor": "floor", "building": "building", "time": "time", "group": "device"}.items():
        values = getattr(fingerprints, field_name)
        if values is not None:
            columns[column] = values
    rssi = pd.DataFrame(fingerprints.rssi, columns=list(fingerprints.transmitters))
    return pd.concat([pd.DataFrame(columns), rssi], axis=1)


# === From readings to fingerprints ===


def _contents_of(path: Path | str, columns: Columns, options: Options) -> Contents:
    """What a file has, or a folder in COMFORD's format."""
    folder = Path(path)
    if folder.is_dir():
        return comford.contents_of(folder, columns, options.rules)
    return tables.contents_of(path, columns, options.rules)


def _rssi(contents: Contents, known: Spellings, options: Options) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n, t) RSSI, and the names of the t transmitters, as `known` has them where it does.

    Raises:
        ValueError: if nothing is heard, or a value is no RSSI.
    """
    readings, spelling_notes = doubts.one_spelling(contents.readings)
    readings, column_notes = doubts.other_columns(readings, options.transmitters, options.measured)
    contents.notes += spelling_notes + column_notes
    n_scans, n_transmitters = len(readings.scans), len(readings.transmitters)
    if not len(readings.scan):
        notes = ". ".join(["no transmitter is heard in any row", *column_notes])
        raise ValueError(f"expected RSSI. Received: {notes}")
    try:
        forms.refuse_impossible(readings, np.ones(n_transmitters, dtype=bool))
    except ValueError as problem:
        raise ValueError(f"{problem}. If the column is no transmitter, leave it out by --ignore") from problem
    require_memory(n_scans, n_transmitters)
    rssi = np.full((n_scans, n_transmitters), np.nan, dtype=np.float32)
    repeated = forms.fill(rssi, readings, np.arange(n_transmitters), options.rules)
    if repeated:
        contents.notes.append(_repeated(repeated, options))
    return rssi, _names_as_known(readings.transmitters, known)


def _names_as_known(transmitters: Sequence[str], known: Spellings) -> tuple[str, ...]:
    """The names of transmitters, spelt as `known` has them."""
    known_names = list(known.numbers)
    names = []
    for name in transmitters:
        number = known.number(name)
        names.append(known_names[number] if number >= 0 else name)
    if len(set(names)) < len(names):  # two of them are one that is known: they stay as they are written
        return tuple(transmitters)
    return tuple(names)


def _repeated(repeated: int, options: Options) -> str:
    return (
        f"{counted(repeated, 'reading')} of a transmitter that the scan heard already: the {options.duplicates} counts "
        "(--duplicates)"
    )


def _position_roles(contents: Contents) -> tuple[str, str]:
    """The two roles that tell the position.

    Raises:
        ValueError: if there are none, or more than two.
    """
    if contents.conflict:
        raise ValueError(contents.conflict)
    there = [pair for pair in POSITIONS if set(pair) <= set(contents.about)]
    if len(there) == 1:
        return there[0]
    expected = "expected columns x, y or latitude, longitude"
    if there:
        raise ValueError(f"{expected}. Received: both. Leave one pair out by --ignore x,y or so")
    columns = [*contents.called.values(), *contents.readings.transmitters]
    raise ValueError(f"{expected}. Received: {listed(columns)}. Name others by --columns x=…,y=…")


def _positions(contents: Contents, pair: tuple[str, str], options: Options) -> tuple[Frame, np.ndarray, np.ndarray]:
    """The frame, (n, 2) metres, and the numbers of those rows that have a position which can be right.

    Raises:
        ValueError: if a coordinate is no number, or out of range, or no row is left.
    """
    limits = {"latitude": 90.0, "longitude": 180.0}
    columns = [_numbers(contents, role, limits.get(role, np.inf)) for role in pair]
    raw = np.column_stack(columns)
    kept = ~np.isnan(raw).any(axis=1)
    _note_rows(contents, np.flatnonzero(~kept), "no position")
    margin = doubts.FAR_METRES if pair == ("x", "y") else doubts.FAR_DEGREES
    if kept.any() and not options.keep_far:
        without_fix = np.flatnonzero(kept)[doubts.without_fix(raw[kept], margin)]
        kept[without_fix] = False
        _note_rows(contents, without_fix, "position (0, 0), as without a fix")
    if not kept.any():
        raise ValueError("expected rows with a position. Received: none")
    frame, position = Frame(None), raw
    if pair == ("latitude", "longitude"):
        latitude, longitude = np.median(raw[kept, 0]), _middle_longitude(raw[kept, 1])
        frame = Frame.around(round(float(latitude), 2), round(float(longitude), 2))
        position = np.full(raw.shape, np.nan)
        position[kept] = frame.from_degrees(raw[kept])
    if not options.keep_far:
        far = np.flatnonzero(kept)[doubts.far(position[kept])]
        kept[far] = False
        _note_rows(contents, far, "far from all others")
        doubtful = np.flatnonzero(kept)[doubts.far_from_most(position[kept])]
        if len(doubtful):
            contents.notes.append(
                f"{counted(len(doubtful), 'row')} far from most others, which count: {contents.places(doubtful)}"
            )
    return frame, position, np.flatnonzero(kept)


def _middle_longitude(longitude: np.ndarray) -> float:
    """The median of (n,) degrees, also across the 180th meridian."""
    middle = np.angle(np.exp(1j * np.radians(longitude)).mean(), deg=True)
    beside_it = (longitude - middle + 180) % 360 - 180
    return (middle + np.median(beside_it) + 180) % 360 - 180


def _note_rows(contents: Contents, rows: np.ndarray, why: str) -> None:
    if len(rows):
        option = "" if why == "no position" else "; --keep-far keeps such rows"
        contents.notes.append(f"{counted(len(rows), 'row')} left out ({why}): {contents.places(rows)}{option}")


def _numbers(contents: Contents, role: str, limit: float = np.inf) -> np.ndarray:
    """(n,) numbers of at most `limit`, NaN where there is none.

    Raises:
        ValueError: if a value is no such number.
    """
    values = contents.about[role]
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    is_empty = values.isna().to_numpy() | (values.astype(str).str.strip() == "").to_numpy()
    wrong = ~is_empty & ~(np.isfinite(numbers) & (np.abs(numbers) <= limit))
    if wrong.any():
        expected = "a number" if np.isinf(limit) else f"degrees, a number of at most ±{limit:g}"
        advice = ""
        if np.isfinite(limit):
            latitude, longitude = contents.called["latitude"], contents.called["longitude"]
            advice = (
                f". Where they are swapped: --columns latitude={longitude},longitude={latitude}; metres: --columns "
                "x=…,y=…"
            )
        _refuse(contents, role, wrong, expected, advice)
    return np.where(is_empty, np.nan, numbers)


def _labels(contents: Contents, role: str, kept: np.ndarray) -> np.ndarray | None:
    """(m,) whole numbers of the rows that are kept; None where there is no such column, or it tells nothing.

    Raises:
        ValueError: if a value is no whole number.
    """
    if role not in contents.about:
        return None
    values = contents.about[role]
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    texts = values.astype(str).str.strip()
    is_empty = values.isna().all()
    if is_empty or (np.isnan(numbers).all() and (texts == texts.iloc[0]).all()):
        told = "nothing" if is_empty else f"{texts.iloc[0]!r}, no whole number,"
        contents.notes.append(f"{contents.called[role]} is left out: {told} in every row")
        return None
    wrong = np.zeros(len(values), dtype=bool)
    wrong[kept] = ~((np.abs(numbers[kept]) <= LARGEST_LABEL) & (numbers[kept] == np.round(numbers[kept])))
    if wrong.any():
        _refuse(contents, role, wrong, "a whole number", f". Leave the column out by --ignore {contents.called[role]}")
    return numbers[kept].astype(np.int64)


def _times(contents: Contents) -> np.ndarray | None:
    """(n,) datetime64 in UTC, of dates and times or of seconds and the like since 1970, NaT where there is none.

    Returns:
        None where there is no such column, or one that does not tell the date; nothing else needs it.

    Raises:
        ValueError: if a value is no time.
    """
    if "time" not in contents.about:
        return None
    values = contents.about["time"]
    left_out = f"{contents.called['time']} is left out"
    is_empty = values.isna() | (values.astype(str).str.strip() == "")
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers[~is_empty].notna().all():
        unit = next((unit for unit, largest in LARGEST.items() if not numbers.abs().max() >= largest), "ns")
        times = pd.to_datetime(numbers, unit=unit, utc=True, errors="coerce")
    else:
        texts = values.where(~is_empty).astype("string")
        day_first = _day_first(texts)
        if day_first is None:
            contents.notes.append(f"{left_out}: it does not tell day and month apart, as 2024-12-31 would")
            return None
        is_time_alone = texts.str.match(TIME_ALONE).fillna(False)
        dated = texts.where(~is_time_alone, "1970-01-01")
        times = pd.to_datetime(dated, format="mixed", dayfirst=day_first, utc=True, errors="coerce")
    wrong = (times.isna() & ~is_empty).to_numpy()
    if wrong.any():
        advice = f". Leave the column out by --ignore {contents.called['time']}"
        _refuse(contents, "time", wrong, "a date and time", advice)
    beyond = ((times < EARLIEST) | (times > LATEST)).to_numpy()
    if beyond.any():
        row = int(np.argmax(beyond))
        contents.notes.append(f"{left_out}: {values.iloc[row]} ({contents.where(row)}) tells no date since 1990")
        return None
    if is_empty.any():
        contents.notes.append(f"{counted(np.count_nonzero(is_empty), 'row')} without a time")
    return times.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]")


def _day_first(texts: pd.Series) -> bool | None:
    """Whether the day stands before the month, as in 31.12.2024; None if that cannot be told."""
    parts = texts.str.extract(LOCAL_DATE).dropna()
    if parts.empty:
        return False
    first, second = parts[0].astype(int), parts[2].astype(int)
    may_be_day_first = (second <= 12).all()
    may_be_month_first = (first <= 12).all()
    if may_be_day_first and may_be_month_first:
        return True if (parts[1] == ".").all() else None
    return bool(may_be_day_first) if may_be_day_first or may_be_month_first else None


def _refuse(contents: Contents, role: str, wrong: np.ndarray, expected: str, advice: str = "") -> None:
    row = int(np.argmax(wrong))
    value = contents.about[role].iloc[row]
    shown = repr(value.item() if isinstance(value, np.generic) else value)
    if pd.isna(value):
        shown = "nothing"
    raise ValueError(
        f"{contents.where(row)}, column {contents.called[role]}: expected {expected}. Received: {shown}{advice}"
    )


# === What was read ===


def _paragraph(contents: Contents, heard: str) -> str:
    """What was read, as a paragraph."""
    readings = contents.readings
    sentences = [f"{contents.file.path}: {contents.file}, {counted(len(readings.scans), 'scan')}, {heard}"]
    used = []
    for role, name in contents.called.items():
        used.append(role if role == name else f"{role} from {name}")
    if used:
        sentences.append(f"Columns: {', '.join(used)}")
    sentences += contents.notes
    return ". ".join(sentences) + "."


def counted(number: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _heard(fingerprints: FingerprintSet) -> str:
    """How many transmitters fingerprints hear, and how loud."""
    heard = fingerprints.heard
    weakest, strongest = np.nanmin(fingerprints.rssi), np.nanmax(fingerprints.rssi)
    transmitters = counted(np.count_nonzero(heard.any(axis=0)), "transmitter")
    each = heard.sum(axis=1)
    silent = int((each == 0).sum())
    text = f"{transmitters} from {weakest:g} to {strongest:g} dBm, a scan hears {np.median(each):g} (median)"
    return text + (f", {silent:,} hear nothing" if silent else "")
