"""Scans in whatever form → readings → a matrix of dBm with NaN = not heard, in the order of given transmitters.

A scan may come as a row of a wide table (a column for each transmitter), as rows of a long table (columns for scan,
transmitter and RSSI), as a dict, or as an uplink of a LoRaWAN server (ChirpStack v4, The Things Stack v3). All become
`Readings`: which scan heard which transmitter at how many dBm. NaN, None and an empty cell are not heard; any other
marker, such as 100 or −200, is only that where it is declared.

Needs NumPy alone, so that a machine that only locates can use it.
"""

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from lib.data.names import OF_PLACE, POSITIONS, Columns, Spellings, listed, role_and_rank

LOWEST_DBM, HIGHEST_DBM = -160.0, 0.0  # what a receiver may report; the weakest in the published sets is -147
EMPTY = frozenset(("", "na", "n/a", "#n/a", "<na>", "nan", "nat", "none", "null"))  # as text, in any case
READINGS_AT_ONCE = 2**20
PLAIN_NUMBERS = {float, int, type(None)}
PLAIN_VALUES = PLAIN_NUMBERS | {str}
ONE_SCAN = "expected one scan in an object, and several as a list of objects, or an object a line"
DUPLICATES = ("strongest", "mean", "error")


@dataclass(frozen=True)
class Rules:
    """How values are read.

    Attributes:
        not_heard: further values that stand for "not heard", numbers or text.
        duplicates: what counts where a scan hears a transmitter more than once: the `strongest`, the `mean`, or it is
            an `error`.

    Raises:
        ValueError: if there is no such way to treat duplicates.
    """

    not_heard: tuple = ()
    duplicates: str = "strongest"

    def __post_init__(self):
        if self.duplicates not in DUPLICATES:
            raise ValueError(f"`duplicates` must be one of {', '.join(DUPLICATES)}. Received: {self.duplicates}")


@dataclass(frozen=True, eq=False)
class Readings:
    """What n scans heard: k readings, without those that say "not heard".

    Attributes:
        scan: (k,) number of the scan.
        transmitter: (k,) number of the transmitter, of `transmitters`.
        dbm: (k,) float32 as it came, infinite for text that is no number.
        scans: (n,) what the scans are called.
        transmitters: (t,) names as they are written.
        texts: by the number of a reading, text that is no number; of each transmitter the first.
        scan_lines: (n,) in which line of a file a scan begins; None if it is of no file.
        lines: (k,) in which line a reading stands; None if in that of its scan.
    """

    scan: np.ndarray
    transmitter: np.ndarray
    dbm: np.ndarray
    scans: Sequence
    transmitters: Sequence[str]
    texts: Mapping[int, str]
    scan_lines: np.ndarray | None = None
    lines: np.ndarray | None = None

    def blocks(self) -> Iterator[slice]:
        """Slices that cover the readings, so that what is computed from some of them stays small."""
        for start in range(0, len(self.scan), READINGS_AT_ONCE):
            yield slice(start, start + READINGS_AT_ONCE)

    @property
    def possible(self) -> np.ndarray:
        """(k,) bool: whether a receiver may report such a value."""
        return is_possible(self.dbm)

    def without(self, dropped: np.ndarray) -> "Readings":
        """Those that are not of some of the (t,) transmitters."""
        kept = ~dropped[self.transmitter]
        new_number = np.cumsum(~dropped) - 1
        new_reading = np.cumsum(kept) - 1
        return Readings(
            self.scan[kept],
            new_number[self.transmitter[kept]].astype(np.int32),
            self.dbm[kept],
            self.scans,
            [name for name, is_dropped in zip(self.transmitters, dropped, strict=True) if not is_dropped],
            {int(new_reading[reading]): text for reading, text in self.texts.items() if kept[reading]},
            self.scan_lines,
            None if self.lines is None else self.lines[kept],
        )

    def where(self, reading: int) -> str:
        """A reading's place, for messages."""
        transmitter = self.transmitters[self.transmitter[reading]]
        if self.lines is not None:
            return f"line {self.lines[reading]}, transmitter {transmitter}"
        if self.scan_lines is not None:
            return f"line {self.scan_lines[self.scan[reading]]}, transmitter {transmitter}"
        return f"scan {self.scans[self.scan[reading]]}, transmitter {transmitter}"

    def value(self, reading: int) -> float | str:
        """A reading as it came, for messages."""
        return self.texts.get(reading, float(self.dbm[reading]))


@dataclass(frozen=True, eq=False)
class NamedScans:
    """n scans of t transmitters.

    Attributes:
        rssi: (n, t) float32 dBm; NaN = not heard.
        unknown: (n,) how many other transmitters each scan hears.
        names: (n,) what the scans are called.
        repeated: how many readings were of a transmitter that their scan had heard already.
    """

    rssi: np.ndarray
    unknown: np.ndarray
    names: Sequence
    repeated: int


def matrix(scans, known: Spellings, rules: Rules | None = None) -> NamedScans:
    """Scans in any form as one matrix.

    Args:
        scans: a table (a DataFrame, or a dict of columns), wide or long, or a list of dicts. Columns are told by their
            usual names (`lib.data.names`); a wide table without a column for the scan is named by its index. A dict is
            a scan (RSSI by transmitter, or a list of readings in it), an uplink, or one reading of a scan.
        known: the t transmitters that are the columns of the result; those that a scan does not name are not heard.
        rules: how values are read.

    Returns:
        The scans in the order in which they came.

    Raises:
        ValueError: if `scans` is none of these, names no column that is known, or has a value that is neither "not
            heard" nor from −160 to 0. It says where and what came.
        MemoryError: if the matrix does not fit in what is available.
    """
    rules = rules or Rules()
    readings = readings_of(scans, Columns(known), rules)
    return as_matrix(readings, known, rules)


def readings_of(scans, columns: Columns, rules: Rules) -> Readings:
    """The readings of scans in any form, see `matrix`."""
    if hasattr(scans, "columns"):
        scans = _with_index(scans)
        names = [str(name) for name in scans.columns]
        return of_table(names, scans, list(scans.index), columns, rules)
    if isinstance(scans, Mapping) and scans and all(map(_is_column, scans.values())):
        names = [str(name) for name in scans]
        values = list(scans.values())
        lengths = {len(column) for column in values}
        if len(lengths) > 1:
            raise ValueError(f"expected columns of one length. Received: of {listed(sorted(lengths))}")
        return of_table(names, values, range(len(values[0])), columns, rules)
    if isinstance(scans, list | tuple):
        readings, _ = of_dicts(scans, columns, rules)
        return readings
    raise ValueError(
        "`scans` must be a table with a column for each transmitter, one with columns for scan, transmitter and rssi, "
        f"or a list of dicts. Received: {type(scans).__name__}"
    )


def _with_index(table):
    """A DataFrame with its index as columns, where that names scan or transmitter, and a name for each column.

    Of a column with several names, as in a pivot table, the last one is that of the transmitter.
    """
    names = [name[-1] if isinstance(name, tuple) else name for name in table.columns]
    roles = {role_and_rank(str(name))[0] for name in table.index.names}
    named = table.set_axis(names, axis=1)
    return named if roles.isdisjoint(("scan", "transmitter")) else named.reset_index()


def _is_column(values) -> bool:
    return isinstance(values, list | tuple | np.ndarray)


def as_matrix(readings: Readings, known: Spellings, rules: Rules) -> NamedScans:
    """Readings as one matrix of the known transmitters.

    Raises:
        ValueError: if a known transmitter has a value that is no RSSI, or duplicates are errors and there are some.
    """
    n_scans = len(readings.scans)
    column_of = np.array([known.number(name) for name in readings.transmitters], dtype=np.int64)
    refuse_impossible(readings, column_of >= 0)
    is_other = (column_of[readings.transmitter] < 0) & readings.possible
    pairs = readings.scan[is_other].astype(np.int64) * len(column_of) + readings.transmitter[is_other]
    unknown = np.bincount(np.unique(pairs) // max(1, len(column_of)), minlength=n_scans)
    rssi = np.full((n_scans, len(known)), np.nan, dtype=np.float32)
    repeated = fill(rssi, readings, column_of, rules)
    return NamedScans(rssi, unknown, readings.scans, repeated)


def fill(rssi: np.ndarray, readings: Readings, column_of: np.ndarray, rules: Rules) -> int:
    """Write readings into a matrix in which nothing is heard yet.

    Args:
        rssi: (n, t) float32, changed in place.
        readings: of n scans.
        column_of: by number of the transmitter, in which column it is written; −1 for none.
        rules: what counts where a scan has several of one column.

    Returns:
        How many readings were of a transmitter that their scan had heard already.

    Raises:
        ValueError: if there are some, and they are errors.
    """
    n_written = 0
    for block in readings.blocks():
        column = column_of[readings.transmitter[block]]
        chosen = column >= 0
        rssi[readings.scan[block][chosen], column[chosen]] = readings.dbm[block][chosen]
        n_written += np.count_nonzero(chosen)
    rows_at_once = max(1, READINGS_AT_ONCE // max(1, rssi.shape[1]))
    n_heard = 0
    for start in range(0, len(rssi), rows_at_once):
        n_heard += np.count_nonzero(~np.isnan(rssi[start : start + rows_at_once]))
    repeated = n_written - n_heard
    if repeated:
        _settle(rssi, readings, column_of, rules)
    return int(repeated)


def _settle(rssi: np.ndarray, readings: Readings, column_of: np.ndarray, rules: Rules) -> None:
    """Write what counts where a scan has several readings of one column, see `fill`."""
    column = column_of[readings.transmitter]
    chosen = np.flatnonzero(column >= 0)
    cells = readings.scan[chosen].astype(np.int64) * rssi.shape[1] + column[chosen]
    if rules.duplicates == "error":
        order = np.argsort(cells, kind="stable")
        is_again = cells[order][1:] == cells[order][:-1]
        second = order[1:][is_again].min()
        raise ValueError(
            f"{readings.where(chosen[second])}: its scan heard it already. --duplicates strongest or mean settles that"
        )
    dbm = readings.dbm[chosen]
    different, members = np.unique(cells, return_inverse=True)
    if rules.duplicates == "strongest":
        settled = np.full(len(different), -np.inf, dtype=np.float32)
        np.maximum.at(settled, members, dbm)
    else:
        settled = np.bincount(members, weights=dbm) / np.bincount(members)
    rssi.reshape(-1)[different] = settled


def refuse_impossible(readings: Readings, counts: np.ndarray) -> None:
    """Raise ValueError if a reading is no RSSI, of those (t,) transmitters that count."""
    wrong = ~readings.possible
    if not wrong.any():
        return
    wrong &= counts[readings.transmitter]
    if not wrong.any():
        return
    reading = int(np.argmax(wrong))
    value = readings.value(reading)
    marker = value if isinstance(value, str) else f"{value:g}"
    shown = repr(value) if isinstance(value, str) else marker
    raise ValueError(
        f"{readings.where(reading)}: expected RSSI from {LOWEST_DBM:g} to {HIGHEST_DBM:g} dBm, or nothing where it is "
        f"not heard. Received: {shown}. If it means “not heard”, declare it by --not-heard {shlex.quote(marker)} or "
        "`not_heard`"
    )


def first_twice(names: Iterable[str]) -> str | None:
    """The first name that occurred before."""
    seen = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


# === Values ===


def is_possible(dbm):
    """Whether a receiver may report such levels, a number or an array of them."""
    return (dbm >= LOWEST_DBM) & (dbm <= HIGHEST_DBM)


def levels(values, rules: Rules) -> np.ndarray:
    """(n,) values of any kind → (n,) float64: the number, NaN for "not heard", infinity for what is neither."""
    kind = getattr(getattr(values, "dtype", None), "kind", "O")
    if kind in "iuf" and hasattr(values, "to_numpy"):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    elif kind in "iuf":
        numbers = np.asarray(values, dtype=np.float64)
    elif isinstance(values, list) and set(map(type, values)) <= PLAIN_NUMBERS:
        numbers = np.array(values, dtype=np.float64)
    else:
        text_markers = [marker for marker in rules.not_heard if isinstance(marker, str)]
        numbers = np.array([level(value, text_markers) for value in objects(values)], dtype=np.float64)
    markers = [marker for marker in rules.not_heard if _is_number(marker)]
    if markers:
        numbers = np.where(np.isin(numbers, markers), np.nan, numbers)
    return numbers


def level(value, text_markers: Sequence[str]) -> float:
    """A number or text that is one, NaN for "not heard", infinity for what is neither."""
    if value is None:
        return np.nan
    if not _is_number(value):
        value = str(value).strip()  # text, or a missing value or decimal number of another library
        if value.lower() in EMPTY or value in text_markers:
            return np.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return np.inf


def as_marker(value) -> float | str:
    """A value that stands for "not heard": a number, also of text that is one, or other text.

    Raises:
        ValueError: if it is neither.
    """
    if not isinstance(value, str) and not _is_number(value):
        raise ValueError(f"`not_heard` must be numbers or text. Received: {value!r}")
    try:
        return float(value)
    except ValueError:
        return value


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def as_float32(dbm: np.ndarray) -> np.ndarray:
    """(n,) float32; what is too large for that is infinite, and no RSSI either way."""
    with np.errstate(over="ignore"):
        return dbm.astype(np.float32)


def objects(values) -> list:
    """Values of any kind as Python's own, what is missing as None."""
    if hasattr(values, "isna"):
        values = values.astype(object)
        return list(values.where(~values.isna(), None))
    return list(values)


def _is_missing(name) -> bool:
    """Whether a name is none: None, NaN or empty text."""
    if isinstance(name, str):
        return not name.strip()
    return name is None or (isinstance(name, float) and name != name)


def factorized(values: Iterable) -> tuple[np.ndarray, list]:
    """(n,) number of each value in the order of first appearance, −1 for what is missing, and the different values.

    Raises:
        ValueError: if a value is neither a number nor text.
    """
    numbers = {}
    numbered = []
    for value in values:
        if _is_missing(value):
            numbered.append(-1)
            continue
        try:
            numbered.append(numbers.setdefault(value, len(numbers)))
        except TypeError as problem:
            raise ValueError(f"expected a number or text as a name. Received: {value!r}") from problem
    return np.array(numbered, dtype=np.int64), list(numbers)


# === Tables ===


def of_table(names: Sequence[str], values, index: Sequence, columns: Columns, rules: Rules) -> Readings:
    """The readings of a wide or a long table.

    Args:
        names: of its columns.
        values: of its columns, or a DataFrame.
        index: what its rows are called.
        columns: what they are.
        rules: how values are read.

    Raises:
        ValueError: if none of its columns is known.
    """
    roles, is_long = roles_of(names, columns)
    require_once(names, roles, columns)
    if is_long:
        if "scan" not in roles:
            raise ValueError(f"expected a column that tells the scans apart (scan). Received: {listed(names)}")
        parts = [_column(values, roles[role]) for role in ("scan", "transmitter", "rssi")]
        return of_long(*parts, rules)
    scans = objects(_column(values, roles["scan"])) if "scan" in roles else index
    chosen = transmitter_columns(names, roles, columns)
    require_known([names[number] for number in chosen], names, columns.known)
    builder = Builder(rules)
    if hasattr(values, "columns"):
        builder.add_frame(values, chosen)
    else:
        for number, column in enumerate(chosen):
            builder.add_column(number, values[column], 0)
    return builder.readings(scans, [names[number] for number in chosen])


def _column(values, number: int):
    """A column of a DataFrame, or of a list of columns."""
    return values.iloc[:, number] if hasattr(values, "columns") else values[number]


def roles_of(names: Sequence[str], columns: Columns) -> tuple[dict[str, int], bool]:
    """The roles of a table's columns, and whether it is long: has a column for the transmitter, and one for its RSSI.

    In a long table no column is that of a transmitter, whatever the transmitters are called.
    """
    roles = dataclasses.replace(columns, known=Spellings(), remembered={}, meaningless=set()).roles(names)
    is_long = all(role in roles and names[roles[role]] not in columns.known.numbers for role in ("transmitter", "rssi"))
    return (roles if is_long else columns.roles(names)), is_long


def require_once(names: Sequence[str], roles: Mapping[str, int], columns: Columns) -> None:
    """Raise ValueError if a column with a meaning occurs twice."""
    meaning = {names[number] for number in roles.values()}
    meaning.update(filter(columns.is_transmitter, names))
    if twice := first_twice(name for name in names if name in meaning):
        raise ValueError(f"each column must occur once. Received twice: {twice}")


def transmitter_columns(names: Sequence[str], roles: Mapping[str, int], columns: Columns) -> list[int]:
    """The numbers of those columns of a wide table that may be transmitters."""
    return [
        number for number, name in enumerate(names) if number not in roles.values() and columns.is_transmitter(name)
    ]


def require_known(chosen: Sequence[str], names: Sequence[str], known: Spellings) -> None:
    """Raise ValueError if transmitters are known, but none of those that a table has."""
    if names and len(known) and not any(known.number(name) >= 0 for name in chosen):
        raise ValueError(
            f"expected columns of known transmitters ({listed(known.numbers, 3)}), or columns for scan, transmitter "
            f"and rssi. Received: {listed(names)}"
        )


def of_long(scan, transmitter, rssi, rules: Rules) -> Readings:
    """The readings of a table with a row for each.

    Args:
        scan, transmitter, rssi: (k,) columns. A row without transmitter and RSSI is of a scan that hears nothing.
        rules: how values are read.

    Raises:
        ValueError: if a row has no scan, or RSSI but no transmitter.
    """
    dbm = levels(rssi, rules)
    scan_numbers, scans = factorized(objects(scan))
    stripped = [None if _is_missing(name) else str(name).strip() for name in objects(transmitter)]
    transmitter_numbers, transmitters = factorized(stripped)
    lacking = {"scan": scan_numbers < 0, "transmitter": (transmitter_numbers < 0) & ~np.isnan(dbm)}
    for role, rows in lacking.items():
        if rows.any():
            row = int(np.argmax(rows))
            raise ValueError(f"row {row}: expected a name in the column of the {role}, found none")
    rows = np.flatnonzero((transmitter_numbers >= 0) & ~np.isnan(dbm))
    builder = Builder(rules)
    builder.add(scan_numbers[rows], transmitter_numbers[rows], dbm[rows], np.asarray(rssi, dtype=object)[rows])
    return builder.readings(scans, transmitters)


class Builder:
    """Collects readings part by part."""

    def __init__(self, rules: Rules):
        self.rules = rules
        self.scan = [np.zeros(0, np.int32)]
        self.transmitter = [np.zeros(0, np.int32)]
        self.dbm = [np.zeros(0, np.float32)]
        self.texts = {}
        self.with_text = set()
        self.count = 0

    def add(self, scan: np.ndarray, transmitter: np.ndarray, dbm: np.ndarray, values: Sequence) -> None:
        """Add k readings.

        Args:
            scan, transmitter: (k,) their numbers.
            dbm: (k,) levels.
            values: (k,) as they came.
        """
        for reading in np.flatnonzero(np.isinf(dbm)):
            number = int(transmitter[reading])
            if number not in self.with_text:
                self.with_text.add(number)
                self.texts[self.count + int(reading)] = str(values[reading])
        self.scan.append(scan.astype(np.int32))
        self.transmitter.append(transmitter.astype(np.int32))
        self.dbm.append(as_float32(dbm))
        self.count += len(scan)

    def add_column(self, transmitter: int, values: Sequence, first_scan: int) -> None:
        """Add what consecutive scans have of one transmitter."""
        dbm = levels(values, self.rules)
        heard = np.flatnonzero(~np.isnan(dbm))
        numbers = np.full(len(heard), transmitter)
        came = np.asarray(values, dtype=object)[heard] if np.isinf(dbm).any() else dbm[heard]
        self.add(first_scan + heard, numbers, dbm[heard], came)

    def add_frame(self, table, columns: Sequence[int], first_scan: int = 0) -> None:
        """Add the rows of a DataFrame, whose columns of these numbers are the transmitters in their order."""
        kinds = [dtype.kind for dtype in table.dtypes]
        numeric = [number for number, column in enumerate(columns) if kinds[column] in "iuf"]
        block = table.iloc[:, [columns[number] for number in numeric]].to_numpy(dtype=np.float64, na_value=np.nan)
        dbm = levels(block, self.rules)
        scan, position = np.nonzero(~np.isnan(dbm))
        heard = dbm[scan, position]
        self.add(first_scan + scan, np.asarray(numeric, dtype=np.int64)[position], heard, heard)
        for number, column in enumerate(columns):
            if kinds[column] not in "iuf":
                self.add_column(number, table.iloc[:, column], first_scan)

    def readings(self, scans: Sequence, transmitters: Sequence[str]) -> Readings:
        """All of them, in the order in which they came; then the builder is empty."""
        joined = []
        for parts in (self.scan, self.transmitter, self.dbm):
            joined.append(np.concatenate(parts))
            parts.clear()
        return Readings(*joined, scans, transmitters, self.texts)


# === Dicts ===


def of_dicts(items: Iterable, columns: Columns, rules: Rules, lines: Sequence[int] = ()) -> tuple[Readings, list[dict]]:
    """The readings of dicts, each a scan, an uplink, or one reading of a scan.

    Args:
        items: the dicts.
        columns: what their keys are.
        rules: how values are read.
        lines: in which line of a file each of them stands, known when it has come; empty if they are of no such file.

    Returns:
        The readings, and for each scan what it says of itself, by role.

    Raises:
        ValueError: if one of them is no dict, or is not to be understood.
    """
    names, described, number_of_scan, first_items = [], [], {}, []
    builder, transmitters = Builder(rules), {}
    scans, heard, values, item_numbers = [], [], [], []  # of the readings that are not in the builder yet
    item_parts = []

    def flush() -> None:
        dbm = levels(values, rules)
        rows = np.flatnonzero(~np.isnan(dbm))
        for name in dict.fromkeys(heard):
            transmitters.setdefault(name, len(transmitters))
        numbers = list(map(transmitters.__getitem__, heard))
        came = np.array(values, dtype=object)[rows]
        builder.add(np.array(scans, np.int64)[rows], np.array(numbers, np.int64)[rows], dbm[rows], came)
        item_parts.append(np.array(item_numbers, dtype=np.int64)[rows])
        for collected in (scans, heard, values, item_numbers):
            collected.clear()

    for number, item in enumerate(items):
        try:
            about, item_heard, item_values, is_reading = unpacked(item, columns)
            key = scan_key(about) if is_reading else number
            if is_reading and key in number_of_scan:
                _require_same_place(described[number_of_scan[key]], about)
        except ValueError as problem:
            where = f"line {lines[number]}" if lines else f"scan {number}"
            raise ValueError(f"{where}: {problem}") from problem
        if key not in number_of_scan:
            number_of_scan[key] = len(names)
            name = about.get("scan")
            names.append(len(names) if name is None else name)
            first_items.append(number)
            described.append(about)
        scans += [number_of_scan[key]] * len(item_heard)
        item_numbers += [number] * len(item_heard)
        heard += item_heard
        values += item_values
        if len(heard) >= READINGS_AT_ONCE // 16:
            flush()
    flush()
    readings = builder.readings(names, list(transmitters))
    if lines:
        line_of_item = np.array(lines)
        reading_lines = line_of_item[np.concatenate(item_parts)]
        readings = dataclasses.replace(readings, scan_lines=line_of_item[first_items], lines=reading_lines)
    is_other = np.array([not columns.is_transmitter(name) for name in transmitters], dtype=bool)
    return (readings.without(is_other) if is_other.any() else readings), described


def scan_key(about: Mapping) -> tuple:
    """What tells the scan of one reading from others: its name, or time, device and place.

    Raises:
        ValueError: if there is neither a name nor a time.
    """
    if about.get("scan") is not None:
        return (about["scan"],)
    if about.get("time") is None:
        raise ValueError(f"expected scan or time beside transmitter and rssi. Received: {listed(about)}")
    return tuple(about.get(role) for role in ("time", "device", "x", "y", "latitude", "longitude", "floor"))


def _require_same_place(before: Mapping, about: Mapping) -> None:
    """Raise ValueError if a scan is at two places."""
    for role in OF_PLACE:
        if about.get(role) != before.get(role):
            raise ValueError(
                f"expected each scan at one place. Received: {role} {about.get(role)}, and {before.get(role)} before"
            )


def unpacked(item, columns: Columns) -> tuple[dict, list[str], list, bool]:
    """What a dict says of a scan, by role; what it hears, and the values; whether it is but one reading of a scan.

    Raises:
        ValueError: if it is no dict, or has a list that is not of readings.
    """
    if not isinstance(item, Mapping):
        raise ValueError(f"expected a dict of RSSI by transmitter. Received: {type(item).__name__}")
    if (uplink := _uplink_in(item)) is not None:
        read = _of_things_stack if "uplink_message" in uplink else _of_chirpstack
        about, pairs = read(uplink, columns)
        heard = [gateway for gateway, _ in pairs]
        values = [rssi for _, rssi in pairs]
        return _position_of(item, columns) | about, heard, values, False
    about, others = _by_role(item, columns)
    if "transmitter" in about and "rssi" in about:
        transmitter = str(about.pop("transmitter")).strip()
        return about, [transmitter], [about.pop("rssi")], True
    heard, values = [], []
    _gather(others, columns, about, heard, values, {})
    return about, heard, values, False


def _gather(item: Mapping, columns: Columns, about: dict, heard: list, values: list, seen: dict) -> None:
    """Add what a dict without its roles, and the dicts in it, say of a scan to `about`, `heard` and `values`.

    Args:
        item: the dict.
        columns: what its keys are.
        about, heard, values: see `unpacked`; changed in place.
        seen: by key, in which dict of the scan it stood; changed in place.
    """
    if _is_flat(item):
        heard += item
        values += item.values()
        return
    for name, value in item.items():
        if isinstance(value, Mapping):
            _require_one_scan(name, value, columns, seen)
            own, others = _by_role(value, columns)
            about |= own
            _gather(others, columns, about, heard, values, seen)
        elif isinstance(value, list | tuple):
            for transmitter, rssi in _listed_readings(name, value, columns):
                heard.append(transmitter)
                values.append(rssi)
        else:
            heard.append(name)
            values.append(value)


def _is_flat(item: Mapping) -> bool:
    """Whether all values of a dict are plain numbers or text."""
    return set(map(type, item.values())) <= PLAIN_VALUES


def _require_one_scan(name: str, value: Mapping, columns: Columns, seen: dict) -> None:
    """Raise ValueError if a dict in a scan is a scan or a column: its name is a number, or another has its keys too."""
    positions = (*POSITIONS[0], *POSITIONS[1])
    for key in value.keys() & seen.keys():
        if columns.is_transmitter(str(key)) or role_and_rank(str(key))[0] in positions:
            raise ValueError(f"{ONE_SCAN}. Received: {key} in {seen[key]} and in {name}")
    if name.isdecimal():
        raise ValueError(f"{ONE_SCAN}. Received: an object called {name}")
    seen.update(dict.fromkeys(value, name))


def _by_role(item: Mapping, columns: Columns) -> tuple[dict, dict]:
    """Single values of a dict by role, and all else by name."""
    if columns.meaningless.issuperset(item):
        return {}, item
    names = [str(name) for name in item]
    values = list(item.values())
    about = {}
    for role, number in columns.roles(names, need_declared=False).items():
        if not isinstance(values[number], Mapping | list | tuple):
            about[role] = values[number]
            names[number] = None
    others = {name: value for name, value in zip(names, values, strict=True) if name is not None}
    return about, others


def _listed_readings(name: str, values: Sequence, columns: Columns) -> list[tuple[str, object]]:
    """Readings of a list: dicts that name transmitter and RSSI, or pairs of them.

    Raises:
        ValueError: if an element is neither.
    """
    pairs = []
    for value in values:
        if isinstance(value, list | tuple) and len(value) == 2:
            pairs.append((str(value[0]).strip(), value[1]))
            continue
        about, _ = _by_role(value, columns) if isinstance(value, Mapping) else ({}, {})
        if "transmitter" not in about or "rssi" not in about:
            raise ValueError(
                f"{name}: expected readings with a transmitter and its RSSI. Received: {value!r:.60}. Scans are a "
                "list of objects, or an object a line"
            )
        pairs.append((str(about["transmitter"]).strip(), about["rssi"]))
    return pairs


# === Uplinks ===


def _uplink_in(item: Mapping) -> Mapping | None:
    """An uplink: the dict itself, or one in it, since brokers and storages wrap them; None if there is none."""
    if isinstance(item.get("uplink_message"), Mapping) or "rxInfo" in item:
        return item
    if _is_flat(item):
        return None
    for value in item.values():
        if isinstance(value, Mapping) and (uplink := _uplink_in(value)) is not None:
            return uplink
    return None


def _part(item: Mapping, key: str) -> Mapping:
    """A dict in a dict, empty if there is none."""
    value = item.get(key)
    return value if isinstance(value, Mapping) else {}


def _receptions(values) -> Iterator[Mapping]:
    """What the gateways say of an uplink.

    Raises:
        ValueError: if that is no list of dicts.
    """
    for value in [] if values is None else values:
        if isinstance(values, Mapping) or not isinstance(value, Mapping):
            raise ValueError(f"expected a list of receptions, each of a gateway. Received: {values!r:.60}")
        yield value


def _of_chirpstack(uplink: Mapping, columns: Columns) -> tuple[dict, list]:
    """An uplink event of ChirpStack v4 (its integrations' JSON)."""
    about = _position_in(uplink.get("object"), columns)
    information = _part(uplink, "deviceInfo")
    _describe(about, uplink.get("deduplicationId"), uplink.get("time"), information.get("devEui"))
    pairs = []
    for reception in _receptions(uplink["rxInfo"]):
        pairs.append((_first_known([reception.get("gatewayId")], columns), reception.get("rssi")))
    return about, pairs


def _of_things_stack(uplink: Mapping, columns: Columns) -> tuple[dict, list]:
    """An uplink message of The Things Stack v3 (its webhooks' and storage's JSON)."""
    message = uplink["uplink_message"]
    about = _position_in(message.get("decoded_payload"), columns)
    identifiers = _part(uplink, "end_device_ids")
    _describe(about, None, uplink.get("received_at") or message.get("received_at"), identifiers.get("device_id"))
    pairs = []
    for reception in _receptions(message.get("rx_metadata")):
        gateway = _part(reception, "gateway_ids")
        broker = _part(reception, "packet_broker")
        # All that another network received is of the gateway "packetbroker"; the broker says whose it was.
        candidates = [broker.get("forwarder_gateway_eui"), broker.get("forwarder_gateway_id")]
        candidates += [gateway.get("eui"), gateway.get("gateway_id")]
        rssi = reception.get("rssi", reception.get("channel_rssi"))
        pairs.append((_first_known(candidates, columns), rssi))
    return about, pairs


def _describe(about: dict, scan, time, device) -> None:
    for role, value in {"scan": scan, "time": time, "device": device}.items():
        if value is not None:
            about[role] = value


def _first_known(candidates: Sequence[str | None], columns: Columns) -> str:
    """That name of a gateway which is known, or else the first.

    Raises:
        ValueError: if it has none.
    """
    names = [str(name) for name in candidates if name]
    if not names:
        raise ValueError(
            "expected the gateway of each reception, as ChirpStack v4 and The Things Stack v3 name it, found none"
        )
    for name in names:
        if columns.known.number(name) >= 0:
            return name
    return names[0]


def _position_in(payload, columns: Columns) -> dict:
    """Position and floor in a decoded payload, wherever they stand in it, by role."""
    if not isinstance(payload, Mapping):
        return {}
    if position := _position_of(payload, columns):
        return position
    for value in payload.values():
        if inner := _position_in(value, columns):
            return inner
    return {}


def _position_of(item: Mapping, columns: Columns) -> dict:
    """Position and floor that a dict itself has, by role; nothing without a position."""
    about, _ = _by_role(item, columns)
    if not any(set(pair) <= set(about) for pair in POSITIONS):
        return {}
    return {role: about[role] for role in OF_PLACE if role in about}
