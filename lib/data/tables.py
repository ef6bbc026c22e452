"""Tables and JSON of users → readings, and what each scan says of itself: wide, long, in pairs, part by part."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lib.data import doubts, files, forms
from lib.data.forms import Builder, Readings, Rules
from lib.data.names import OF_PLACE, OF_READING, OF_SCAN, Columns, listed, matches, role_and_rank

MOST_BESIDE_HALF = 3  # transmitters of a wide table that has one of the two columns which make a table long
PAIRED = re.compile(r"(.*?)[ _\-.]?(\d+)")  # mac1, rssi1, mac2, rssi2


@dataclass(eq=False)
class Contents:
    """What a file has.

    Attributes:
        file: what it is.
        readings: of n scans.
        about: by role, n values as they came.
        called: by role, the name of its column.
        names: of all columns.
        notes: what is to be said of it, a sentence each.
        conflict: what is wrong where a scan has two positions.
    """

    file: files.File
    readings: Readings
    about: dict[str, pd.Series]
    called: dict[str, str]
    names: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)
    conflict: str | None = None

    def where(self, scan: int) -> str:
        """A scan's place, for messages."""
        if self.readings.scan_lines is None:
            return f"scan {self.readings.scans[scan]}"
        return f"line {self.readings.scan_lines[scan]}"

    def places(self, rows: np.ndarray) -> str:
        """The places of some scans, for messages."""
        shown = [self.where(int(row)) for row in rows[:6]]
        return listed(shown) + ", …" * (len(rows) > 6)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Put the file's name before what is wrong with its content."""
    try:
        yield
    except ValueError as problem:
        raise ValueError(f"{path}: {problem}") from problem


def contents_of(path: Path | str, columns: Columns, rules: Rules) -> Contents:
    """What a file has.

    Args:
        path: the file.
        columns: what its columns are.
        rules: how its values are read.

    Raises:
        ValueError: if it cannot be read.
        FileNotFoundError: if it is not there.
    """
    with naming(path):
        contents = _read(files.examined(path), columns, rules)
        leave_out(contents, columns)
    return contents


def leave_out(contents: Contents, columns: Columns) -> None:
    """Leave out what the user says, also where a transmitter is no column, and tell what there is none of."""
    readings = contents.readings
    left_out = np.array([columns.is_left_out(name) for name in readings.transmitters], dtype=bool)
    if left_out.any():
        contents.readings = readings.without(left_out)
    if contents.file.form == "JSON":  # whose keys are not kept
        return
    names = (*contents.names, *readings.transmitters)
    for pattern in (*columns.ignored, *columns.transmitters):
        if not any(matches(name, (pattern,)) for name in names):
            contents.notes.append(f"Nothing is called {pattern}")


def _read(file: files.File, columns: Columns, rules: Rules) -> Contents:
    """What a file has, see `contents_of`."""
    if file.form == "JSON":
        return _of_json(file, columns, rules)
    if file.form == "Parquet":
        names, table = files.parquet(file)
        collector = _collector(names, columns, rules, None)
        collector.add(table)
    else:
        header = files.header_of(file)
        collector = _collector(header.names, columns, rules, files.Lines(file, header))
        for part in files.parts_of_csv(file, header, collector.text):
            collector.add(part)
    if not collector.n_rows:
        raise ValueError(f"expected at least one row. Received: a header alone, {listed(collector.names)}")
    return collector.contents(file)


def _of_json(file: files.File, columns: Columns, rules: Rules) -> Contents:
    lines = []
    readings, described = forms.of_dicts(files.json_items(file, lines), columns, rules, lines)
    if not described:
        raise ValueError("expected at least one scan. Received: none")
    table = pd.DataFrame(described)
    about = {role: table[role] for role in table.columns}
    called = {role: role for role in about}
    return Contents(file, readings, about, called)


def _collector(names: Sequence[str], columns: Columns, rules: Rules, lines: files.Lines | None) -> "Collector":
    """What takes a table with such columns."""
    roles, is_long = forms.roles_of(names, columns)
    forms.require_once(names, roles, columns)
    if pairs := _pairs(names, roles, columns):
        return Paired(names, roles, rules, lines, pairs)
    if is_long:
        return Long(names, roles, rules, lines)
    return Wide(names, roles, rules, lines, columns)


def _pairs(names: Sequence[str], roles: Mapping[str, int], columns: Columns) -> list[tuple[int, int]]:
    """The numbers of columns that are called like mac1, rssi1, mac2, rssi2 and so on."""
    found = {"transmitter": {}, "rssi": {}}
    for number, name in enumerate(names):
        parts = PAIRED.fullmatch(name)
        if parts is None or number in roles.values() or name in columns.known.numbers:
            continue
        role, _ = role_and_rank(parts[1])
        if role in found:
            found[role][parts[2]] = number
    return [(number, found["rssi"][count]) for count, number in found["transmitter"].items() if count in found["rssi"]]


class Collector:
    """Takes a table part by part.

    Attributes:
        names: of the columns.
        text: numbers of the columns that stay text.
        n_rows: how many rows came.
        notes: what is to be said.
        conflict: what is wrong where a scan has two positions.
    """

    def __init__(self, names: Sequence[str], roles: Mapping[str, int], rules: Rules, lines: files.Lines | None):
        self.names = names
        self.roles = {role: number for role, number in roles.items() if role in OF_SCAN}
        self.rules = rules
        self.lines = lines
        self.transmitters = {}
        self.builder = Builder(self.rules)
        self.text = [number for role, number in self.roles.items() if role in ("scan", "time", "device")]
        self.about = {role: [] for role in self.roles}
        self.n_rows = 0
        self.notes = []
        self.conflict = None

    def where(self, row: int) -> str:
        """The place of a row of the part that comes, for messages."""
        if self.lines is None:
            return f"row {self.n_rows + row}"
        return f"line {self.lines.exact()[self.n_rows + row]}"

    def note_left_out(self, taken: Sequence[int], why: str = "") -> None:
        """Note the columns that nothing is read from."""
        taken = {*taken, *self.roles.values()}
        left_out = [name or "one without a name" for number, name in enumerate(self.names) if number not in taken]
        if left_out:
            self.notes.append(f"Columns left out{why}: {listed(left_out)}")

    def keep_about(self, rows: pd.DataFrame) -> None:
        """Keep what rows say of their scans."""
        for role, number in self.roles.items():
            self.about[role].append(rows[number])

    def heard(self, part: pd.DataFrame, transmitter: int, rssi: int) -> tuple[np.ndarray, np.ndarray, pd.Series]:
        """Which rows of a part hear something, at how many dBm, and its name, by the numbers of the two columns.

        Raises:
            ValueError: if one hears something that has no name.
        """
        dbm = forms.levels(part[rssi], self.rules)
        names = part[transmitter].fillna("").astype(str).str.strip()
        is_named = (names != "").to_numpy()
        nameless = ~is_named & ~np.isnan(dbm)
        if nameless.any():
            where = self.where(int(np.argmax(nameless)))
            raise ValueError(f"{where}: expected a name in the column {self.names[transmitter]}, found none")
        rows = np.flatnonzero(is_named & ~np.isnan(dbm))
        return rows, dbm[rows], names.iloc[rows]

    def transmitter_names(self) -> list[str]:
        """Of the transmitters, by number."""
        return list(self.transmitters)

    def rows(self) -> tuple[np.ndarray, np.ndarray | None]:
        """(n,) in which row each scan begins, and (k,) in which each reading stands, None if in that of its scan."""
        return np.arange(self.n_rows), None

    def contents(self, file: files.File) -> Contents:
        """All that came, once all parts have."""
        about = {role: pd.concat(values, ignore_index=True) for role, values in self.about.items()}
        scan_rows, reading_rows = self.rows()
        scans = list(about["scan"].fillna("")) if "scan" in about else range(len(scan_rows))
        readings = self.builder.readings(scans, self.transmitter_names())
        if self.lines is not None:
            line_of_row = self.lines.of_rows(self.n_rows)
            lines = None if reading_rows is None else line_of_row[reading_rows]
            readings = dataclasses.replace(readings, scan_lines=line_of_row[scan_rows], lines=lines)
        called = {role: self.names[number] for role, number in self.roles.items()}
        return Contents(file, readings, about, called, self.names, self.notes, self.conflict)


class Wide(Collector):
    """A scan a row, a column for each transmitter."""

    def __init__(self, names, roles, rules, lines, columns: Columns):
        super().__init__(names, roles, rules, lines)
        self.chosen = forms.transmitter_columns(names, roles, columns)
        forms.require_known(self.transmitter_names(), names, columns.known)
        self._require_wide(roles, columns)
        self.note_left_out(self.chosen, ", as no transmitters")

    def _require_wide(self, roles: Mapping[str, int], columns: Columns) -> None:
        """Raise ValueError if there is no transmitter, or a column that a long table has among very few."""
        halves = [role for role in OF_READING if role in roles]
        if halves and not len(columns.known) and not columns.transmitters and len(self.chosen) <= MOST_BESIDE_HALF:
            other = OF_READING[1 - OF_READING.index(halves[0])]
            half = self.names[roles[halves[0]]]
            raise ValueError(
                f"expected a column for the {other} beside {half}, or one for each transmitter. Received: "
                f"{listed(self.names)}. --columns {other}=… names the first, --transmitters the others"
            )
        if not self.chosen:
            raise ValueError(f"expected a column for each transmitter. Received: {listed(self.names)}")

    def add(self, part: pd.DataFrame) -> None:
        self.builder.add_frame(part, self.chosen, self.n_rows)
        self.keep_about(part)
        self.n_rows += len(part)

    def transmitter_names(self) -> list[str]:
        return [self.names[number] for number in self.chosen]


class Paired(Collector):
    """A scan a row, with columns for the name and the RSSI of its first transmitter, its second and so on."""

    def __init__(self, names, roles, rules, lines, pairs: Sequence[tuple[int, int]]):
        super().__init__(names, roles, rules, lines)
        self.pairs = pairs
        self.note_left_out([number for pair in pairs for number in pair])
        self.text += [number for number, _ in pairs]

    def add(self, part: pd.DataFrame) -> None:
        for transmitter, rssi in self.pairs:
            rows, dbm, names = self.heard(part, transmitter, rssi)
            numbers = numbered(names, self.transmitters)
            self.builder.add(self.n_rows + rows, numbers, dbm, part[rssi].to_numpy()[rows])
        self.keep_about(part)
        self.n_rows += len(part)


class Long(Collector):
    """A reading a row; what is the same for a scan stands in each of its rows."""

    def __init__(self, names, roles, rules, lines):
        super().__init__(names, roles, rules, lines)
        self.transmitter, self.rssi = roles["transmitter"], roles["rssi"]
        self.note_left_out((self.transmitter, self.rssi))
        self.text.append(self.transmitter)
        self.scan_by = ["scan"] if "scan" in roles else []
        if not self.scan_by and "time" in roles:
            self.scan_by = list(self.roles)
            told_apart = listed(names[number] for number in self.roles.values())
            self.notes.append(f"A scan is the rows with the same {told_apart}")
        if not self.scan_by:
            raise ValueError(
                f"expected a column that tells the scans apart (scan or time). Received: {listed(names)}. Name it by "
                "--columns scan=…"
            )
        self.scans = {}
        self.scan_rows, self.reading_rows = [], []

    def add(self, part: pd.DataFrame) -> None:
        n_before = len(self.scans)
        scan = numbered(self._scan_names(part), self.scans)
        _, first = np.unique(scan, return_index=True)
        new_rows = np.sort(first[scan[first] >= n_before])
        self.keep_about(part.iloc[new_rows])
        self.scan_rows.append(self.n_rows + new_rows)
        self._compare(part, scan)
        rows, dbm, names = self.heard(part, self.transmitter, self.rssi)
        numbers = numbered(names, self.transmitters)
        self.builder.add(scan[rows], numbers, dbm, part[self.rssi].to_numpy()[rows])
        self.reading_rows.append(self.n_rows + rows)
        self.n_rows += len(part)

    def _scan_names(self, part: pd.DataFrame) -> pd.Series:
        names = part[self.roles[self.scan_by[0]]].fillna("").astype(str)
        nameless = (names == "").to_numpy()
        if nameless.any():
            where = self.where(int(np.argmax(nameless)))
            column = self.names[self.roles[self.scan_by[0]]]
            raise ValueError(f"{where}: expected a name in the column {column}, found none")
        for role in self.scan_by[1:]:
            names = names + "\n" + part[self.roles[role]].astype(str)
        return names

    def _compare(self, part: pd.DataFrame, scan: np.ndarray) -> None:
        """Note the first row whose scan was somewhere else before."""
        for role in (*OF_PLACE, "device"):
            if role not in self.roles or self.conflict:
                continue
            column = part[self.roles[role]]
            before = pd.concat(self.about[role]).to_numpy()[scan]
            differs = (column.to_numpy() != before) & column.notna().to_numpy()
            if differs.any():
                row = int(np.argmax(differs))
                self.conflict = (
                    f"{self.where(row)}: expected each scan at one place, of one device. Received: "
                    f"{self.names[self.roles[role]]} {column.iloc[row]}, and {before[row]} before, of one scan. A "
                    "column that tells the scans apart can be named by --columns scan=…"
                )

    def contents(self, file: files.File) -> Contents:
        if len(self.scans) == self.n_rows and self.n_rows >= doubts.LEAST_ROWS:
            column = self.names[self.roles[self.scan_by[0]]]
            self.notes.append(f"Each scan is one row, by {column}: --columns scan=… names what several rows share")
        return super().contents(file)

    def rows(self) -> tuple[np.ndarray, np.ndarray | None]:
        return np.concatenate(self.scan_rows), np.concatenate(self.reading_rows)


def numbered(names: pd.Series, numbers: dict[str, int]) -> np.ndarray:
    """(n,) the number of each name; a name that has none yet gets the next one."""
    codes, different = pd.factorize(names)
    of_code = [numbers.setdefault(name, len(numbers)) for name in different]
    return np.array(of_code, dtype=np.int64)[codes]
