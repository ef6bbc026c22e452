"""The publishers' files: where they come from, how they are found or fetched, and how they are checked."""

import hashlib
import lzma
import tempfile
import tomllib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import pooch

from lib.paths import RAW, ROOT, data_folders, replacing


class DataError(ValueError):
    """A file that is not what it should be. Names the file, what was expected and what was found."""

    def __init__(self, file: Path | str, expected: str, found: str):
        super().__init__(f"{file}: expected {expected}, found {found}. The file was not used; replace or delete it")


@dataclass(frozen=True)
class Source:
    """One publisher's file, an entry of `data/registry.toml`.

    Attributes:
        environment: what was measured, a key of `loaders.LOADERS`.
        file: path below a data folder; `.xz` may follow.
        sha256, size: of the decompressed content, size in bytes.
        rows, transmitters: number of fingerprints, of access points or gateways.
        licence, citation: how it may be used and must be cited.
        publisher: where it comes from.
        url: where it can be downloaded, or None where only a copy at hand serves.
        member: its name inside the archive behind `url`, where that is a zip.
        release: which of several releases of the environment it belongs to.
    """

    environment: str
    file: str
    sha256: str
    size: int
    rows: int
    transmitters: int
    licence: str
    citation: str
    publisher: str
    url: str | None = None
    member: str | None = None
    release: str = ""


_ENTRIES = tomllib.loads((ROOT / "data" / "registry.toml").read_text())
REGISTRY = {key: Source(**entry) for key, entry in _ENTRIES.items()}


# === Finding ===


def find(source: Source) -> Path | None:
    """The file in the first of the data folders that has it, plain or `.xz`; None where none has."""
    for folder in data_folders():
        for name in (source.file, f"{source.file}.xz"):
            path = folder / name
            if path.is_file():
                return path
    return None


def path_of(source: Source) -> Path:
    """The file that `find` finds.

    Raises:
        FileNotFoundError: if no data folder has it; the message says where it comes from.
    """
    path = find(source)
    if path is None:
        folders = ", ".join(map(str, data_folders()))
        raise FileNotFoundError(
            f"{source.file} is in none of {folders}. Put it there, plain or as .xz. "
            f"It comes from {source.publisher} (licence: {source.licence})"
        )
    return path


def files_of(environment: str) -> list[Source]:
    """The files of an environment.

    Args:
        environment: a key of `loaders.LOADERS`.

    Returns:
        Of several releases the first in the registry that is at hand; where none is, the first, to download.
    """
    releases = {}
    for source in REGISTRY.values():
        if source.environment == environment:
            releases.setdefault(source.release, []).append(source)
    for files in releases.values():
        if all(map(find, files)):
            return files
    return next(iter(releases.values()), [])


# === Checking ===


def _decompressed(path: Path) -> bytes:
    opened = lzma.open if path.suffix == ".xz" else open
    try:
        with opened(path, "rb") as file:
            return file.read()
    except (EOFError, lzma.LZMAError) as problem:
        raise DataError(path, "a complete xz file", f"a truncated or corrupt one ({problem})") from problem


def checked(path: Path, source: Source, name: str = "") -> bytes:
    """The decompressed content of a file whose checksum is right.

    Args:
        path: the file.
        source: what it should be.
        name: stands for the path in the error.

    Raises:
        DataError: if the checksum is not right.
    """
    content = _decompressed(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != source.sha256:
        expected = f"sha256 {source.sha256} ({source.size:,} bytes)"
        received = f"{sha256} ({len(content):,} bytes)"
        raise DataError(name or path, expected, received)
    return content


# === Fetching ===


def _extracted(archive: Path, source: Source, folder: str) -> Path:
    """The publisher's file, taken out of the downloaded zip into a folder.

    Raises:
        DataError: if it is no zip or has no such member.
    """
    expected = f"a zip with {source.member}"
    try:
        with zipfile.ZipFile(archive) as members:
            for name in members.namelist():
                if Path(name).name == source.member:
                    return Path(members.extract(name, folder))
    except (zipfile.BadZipFile, zlib.error) as problem:
        raise DataError(source.url, expected, str(problem)) from problem
    raise DataError(source.url, expected, "no such member")


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
            download = Path(pooch.retrieve(source.url, None, path=scratch, fname="download", progressbar=True))
        except OSError as problem:
            raise FileNotFoundError(f"{source.url} could not be fetched for {target}: {problem}") from problem
        if source.member:
            download = _extracted(download, source, scratch)
        content = checked(download, source, source.url)
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    return target
