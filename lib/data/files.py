"""Tables and JSON as users have them: compressed or not, in the usual encodings, a header that one parser reads.

What is wrong is said without the name of the file, which whoever reads it puts before.
"""

import bz2
import codecs
import csv
import gzip
import hashlib
import io
import json
import lzma
import re
import unicodedata
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import pandas as pd

from lib.data.forms import EMPTY, first_twice
from lib.data.names import Columns, listed

CELLS_AT_ONCE, LEAST_ROWS, MOST_ROWS = 2**21, 1_000, 100_000  # of a part of a table
BLOCK = 2**20  # bytes
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF32_LE: "utf-32",  # after the mark of UTF-16, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
}
FALLBACK = "cp1252"  # what Windows writes
COMPRESSIONS = {b"\x1f\x8b": ("gzip", gzip.open), b"\xfd7zXZ\x00": ("xz", lzma.open), b"BZh": ("bzip2", bz2.open)}
ZIP, PARQUET = b"PK\x03\x04", b"PAR1"
SPREADSHEET = "[Content_Types].xml"  # is in the archive that an xlsx file is
DELIMITERS = ",;\t|"
FIRST_ROWS = 100  # that show which decimal mark a file has
EXCEL_DELIMITER = re.compile(r'"?sep=."?\s*')  # a first line that tells Excel what is between the cells
DECIMAL_COMMA = re.compile(r"-?\d+,\d+")


@dataclass(frozen=True)
class File:
    """What a file is.

    Attributes:
        path: where it is.
        compression: `gzip`, `xz`, `bzip2` or `zip`; None if there is none.
        encoding: Python's name of it; None for Parquet.
        form: `CSV`, `JSON` or `Parquet`.
        sha256: of the decompressed content.
        line_ends: how many there are.
    """

    path: Path
    compression: str | None
    encoding: str | None
    form: str
    sha256: str
    line_ends: int

    def __str__(self) -> str:
        parts = [self.form]
        if self.compression:
            parts.append(f"compressed by {self.compression}")
        if self.encoding in ("utf-16", "utf-32"):
            parts.append(self.encoding.upper())
        if self.encoding == FALLBACK:
            parts.append("not UTF-8: read as Windows-1252")
        return ", ".join(parts)


@dataclass(frozen=True)
class Header:
    """The header of a CSV.

    Attributes:
        names: of the columns, without spaces around them.
        delimiter: between cells.
        decimal: the decimal mark.
        lines: how many lines stand before the first row; one that goes on in a next line, within quotes, is one.
    """

    names: list[str]
    delimiter: str
    decimal: str
    lines: int


def examined(path: Path | str) -> File:
    """Tell what a file is, from its content.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is empty, or an archive of several files.
    """
    path = Path(path)
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_utf8 = True
    line_ends = 0
    head = b""
    with opened(path) as (stream, compression):
        while block := stream.read(BLOCK):
            digest.update(block)
            line_ends += block.count(b"\n")
            head = head or block
            if is_utf8:
                is_utf8 = _decodes(decoder, block)
    if not head.strip():
        raise ValueError("expected a table. Received: an empty file")
    if head.startswith(PARQUET):
        return File(path, compression, None, "Parquet", digest.hexdigest(), line_ends)
    encoding = "utf-8" if is_utf8 else FALLBACK
    for mark, marked in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            encoding = marked
    if encoding in ("utf-8", FALLBACK) and b"\0" in head[:1000]:
        raise ValueError(f"expected text or Parquet. Received: a binary file that starts with {head[:8]!r}")
    start = head.decode(encoding, errors="replace").lstrip()[:1]
    form = "JSON" if start in ("{", "[") else "CSV"
    return File(path, compression, encoding, form, digest.hexdigest(), line_ends)


def _decodes(decoder: codecs.IncrementalDecoder, block: bytes) -> bool:
    try:
        decoder.decode(block)
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, str | None]]:
    """The decompressed content of a file, and what it is compressed by.

    Raises:
        ValueError: if it is an archive that does not hold just one file, or damaged.
    """
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        try:
            if start.startswith(ZIP):
                with zipfile.ZipFile(file) as archive, archive.open(_only_member(archive)) as stream:
                    yield stream, "zip"
                return
            for magic, (name, opener) in COMPRESSIONS.items():
                if start.startswith(magic):
                    with opener(file) as stream:
                        yield stream, name
                    return
            yield file, None
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile) as problem:
            raise ValueError(f"the compressed file is damaged or cut off: {problem}") from problem


def _only_member(archive: zipfile.ZipFile) -> str:
    members = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if SPREADSHEET in members:
        raise ValueError("expected CSV, JSON or Parquet. Received: a spreadsheet. Save its table as CSV")
    if len(members) != 1:
        raise ValueError(f"expected an archive of one file. Received: {listed(members, 5) or 'none'}")
    return members[0]


@contextmanager
def opened_text(file: File) -> Iterator[TextIO]:
    """The text of a file."""
    with opened(file.path) as (stream, _):
        yield io.TextIOWrapper(stream, encoding=file.encoding, newline="")


# === Tables ===


def header_of(file: File) -> Header:
    """The header of a CSV; one that a `#` begins is one, too.

    Raises:
        ValueError: if there is none.
    """
    with opened_text(file) as text:
        comments = []
        line = text.readline()
        while line.startswith("#") or (line and not line.strip()) or EXCEL_DELIMITER.fullmatch(line):
            comments.append("" if EXCEL_DELIMITER.fullmatch(line) else line)
            line = text.readline()
        first, before = line, len(comments)
        following = text.readline()
        text_after = chain([first, following], text)
        delimiter = _delimiter(comments[-1] if comments else first)
        if comments and len(next(csv.reader([comments[-1]], delimiter=delimiter), [])) > 1:
            as_row = next(csv.reader([first], delimiter=delimiter), [])
            names = next(csv.reader([comments[-1].lstrip("# ")], delimiter=delimiter, skipinitialspace=True))
            if len(names) == len(as_row):
                return _header(names, delimiter, [as_row], before)
        delimiter = _delimiter(first)
        reader = csv.reader(text_after, delimiter=delimiter, skipinitialspace=True)
        try:
            names = next(reader, [])
            rows = list(islice(reader, FIRST_ROWS))
        except csv.Error as problem:
            raise ValueError(f"expected a CSV with a header. Received: {problem}") from problem
    return _header(names, delimiter, rows, before + 1)


def _header(names: Sequence[str], delimiter: str, rows: Sequence[Sequence[str]], lines: int) -> Header:
    names = ["".join(filter(_is_visible, name)).strip() for name in names]
    if not any(names):
        raise ValueError("expected a CSV with a header. Received: a first line without names")
    decimal = "."
    if delimiter != "," and any(DECIMAL_COMMA.fullmatch(cell.strip()) for row in rows for cell in row):
        decimal = ","
    return Header(names, delimiter, decimal, lines)


def _is_visible(character: str) -> bool:
    """Whether a character is none of control and format, such as a zero-width space, which nobody sees in a name."""
    return unicodedata.category(character) not in ("Cc", "Cf")


def _delimiter(line: str) -> str:
    """What separates the names of a header."""
    counts = {delimiter: len(next(csv.reader([line], delimiter=delimiter), [])) for delimiter in DELIMITERS}
    return max(counts, key=counts.get)


class Lines:
    """In which lines of a CSV its rows begin: not one after the other if some are blank, or cells go on in a next."""

    def __init__(self, file: File, header: Header):
        self.file = file
        self.header = header

    def of_rows(self, n_rows: int) -> np.ndarray:
        """(n,) the line of each of the n rows, counted from 1."""
        n_lines = self.header.lines + n_rows
        if self.file.line_ends in (n_lines, n_lines - 1):
            return self.header.lines + 1 + np.arange(n_rows)
        return self.exact()

    def exact(self) -> np.ndarray:
        """The same, read from the file."""
        lines = []
        with opened_text(self.file) as text:
            for _ in range(self.header.lines - 1):
                text.readline()
            start = self.header.lines
            reader = csv.reader(text, delimiter=self.header.delimiter)
            for row in reader:
                if any(map(str.strip, row)) or len(row) > 1:
                    lines.append(start)
                start = self.header.lines + reader.line_num
        return np.array(lines[1:])


def parts_of_csv(file: File, header: Header, text: Sequence[int]) -> Iterator[pd.DataFrame]:
    """The rows of a CSV part by part; columns are numbered.

    Args:
        file: that is read.
        header: its own.
        text: numbers of the columns whose cells stay text. In others, empty cells and the like are NaN, and what is no
            number is text.

    Raises:
        ValueError: if a row has more cells than the header.
    """
    width = len(header.names)
    numeric = [number for number in range(width) if number not in text]
    empty = sorted(
        {spelling for token in EMPTY for spelling in (token, token.upper(), token.title(), token.capitalize())}
    )
    settings = {
        "header": None,
        "names": range(width + 1),  # one more, so that a comma at the end of a row is no error
        "skiprows": header.lines,
        "sep": header.delimiter,
        "decimal": header.decimal,
        "skipinitialspace": True,
        "index_col": False,
        "dtype": {number: str for number in text},
        "keep_default_na": False,
        "na_values": {number: [*empty, "NaN"] for number in [*numeric, width]},
        "chunksize": min(MOST_ROWS, max(LEAST_ROWS, CELLS_AT_ONCE // width)),
        "low_memory": False,
    }
    with opened(file.path) as (stream, _), warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            with pd.read_csv(stream, encoding=file.encoding, **settings) as reader:
                for part in reader:
                    _require_width(part, file, header)
                    yield part.drop(columns=width)
        except pd.errors.EmptyDataError:
            return
        except (pd.errors.ParserError, pd.errors.ParserWarning) as problem:
            raise ValueError(f"expected {width} cells in every row, as in the header. {problem}") from problem


def _require_width(part: pd.DataFrame, file: File, header: Header) -> None:
    width = len(header.names)
    beyond = part[width].notna()
    if beyond.any():
        row = int(beyond.to_numpy().argmax())
        line = Lines(file, header).exact()[part.index[row]]
        last = part[width].iloc[row]
        raise ValueError(f"line {line}: expected {width} cells, as in the header. Received: more, the last is {last}")


def parquet(file: File) -> tuple[list[str], pd.DataFrame]:
    """The names of the columns of a Parquet file, and its table, whose columns are numbered.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        with opened(file.path) as (stream, _):
            table = pd.read_parquet(io.BytesIO(stream.read()))
    except (OSError, ValueError) as problem:
        raise ValueError(f"expected a Parquet file. Received: {problem}") from problem
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    names = [str(name).strip() for name in table.columns]
    table.columns = range(len(names))
    return names, table.reset_index(drop=True)


# === JSON ===


def json_items(file: File, lines: list[int]) -> Iterator[object]:
    """The elements of a list, or the objects of a file with one on each line, in their order.

    Args:
        file: that is read.
        lines: gets the line of each object that comes, where there is one on each.

    Raises:
        ValueError: if it is no JSON, with the line.
    """
    with opened_text(file) as text:
        number = 1
        first = text.readline()
        while first and not first.strip():
            first = text.readline()
            number += 1
        if first.lstrip().startswith("["):
            yield from _whole(first + text.read())
            return
        second = text.readline()
        if not second or not _is_json(first):
            yield from _whole(first + second + text.read())
            return
        for line in chain([first, second], text):
            if line.strip():
                lines.append(number)
                yield _parsed(line.strip(), number)
            number += 1


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _whole(text: str) -> list:
    """The elements of a list, also of one that is all that an object has, or else the object itself."""
    try:
        content = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as problem:
        raise ValueError(f"expected JSON. Received: {problem}") from problem
    if isinstance(content, list):
        return content
    values = list(content.values())
    while len(values) == 1 and isinstance(values[0], dict) and len(values[0]) == 1:
        values = list(values[0].values())
    if len(values) == 1 and isinstance(values[0], list) and values[0] and not _is_reading(values[0][0]):
        return values[0]
    return [content]


def _is_reading(element) -> bool:
    """Whether an element of a list is a reading of a scan, and no scan."""
    return not isinstance(element, dict) or {"transmitter", "rssi"} <= set(Columns().roles(list(element)))


def _parsed(line: str, number: int):
    try:
        return json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as problem:
        raise ValueError(
            f"line {number}: expected a JSON object. Received: {problem.msg} at character {problem.colno}"
        ) from problem
    except ValueError as problem:
        raise ValueError(f"line {number}: {problem}") from problem


def _object(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object.

    Raises:
        ValueError: if a key occurs twice, of which Python would keep the last.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"each key must occur once. Received twice: {first_twice(name for name, _ in pairs)}")
    return content
