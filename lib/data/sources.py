"""The publishers' files: where they come from, how they are found, made or fetched, and how they are checked."""

import hashlib
import lzma
import sys
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

from lib.data import derived
from lib.paths import ROOT, data_folders, lorawan_release, replacing


class DataError(ValueError):
    """A file that is not what it should be. Names the file, what was expected and what was found."""

    def __init__(self, file: Path | str, expected: str, found: str):
        super().__init__(f"{file}: expected {expected}, found {found}. The file was not used; replace or delete it")


@dataclass(frozen=True)
class Source:
    """One publisher's file, an entry of `data/registry.toml`.

    Attributes:
        file: path below a data folder; `.xz` may follow.
        rows, transmitters: number of fingerprints, of access points or gateways.
        licence, citation: how it may be used and must be cited.
        publisher: where it comes from.
        environment: what was measured, a key of `loaders.LOADERS`; of a file that others are only made from, none.
        sha256, size: of the decompressed content, size in bytes. Without them, what is made from it is checked.
        url: where it can be downloaded, if it can.
        member: its name inside the archive behind `url`, where that is a zip.
        release: which of several releases of the environment it belongs to.
        derived_from: keys of files that it can be made from; those at hand come before those to download.
        made_by: what makes it, a key of `derived.DERIVATIONS`.
    """

    file: str
    rows: int
    transmitters: int
    licence: str
    citation: str
    publisher: str
    environment: str | None = None
    sha256: str | None = None
    size: int | None = None
    url: str | None = None
    member: str | None = None
    release: str = ""
    derived_from: Sequence[str] = ()
    made_by: str | None = None


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
        Of the releases `subset` and `full` the one that LORAWAN says. Of others the first in the registry that is at
        hand; where none is, the first that can be made or downloaded.
    """
    releases = {}
    for source in REGISTRY.values():
        if source.environment == environment:
            releases.setdefault(source.release, []).append(source)
    chosen = lorawan_release()
    if chosen in releases:
        return releases[chosen]
    for files in releases.values():
        if all(map(find, files)):
            return files
    for files in releases.values():
        if all(source.url or source.derived_from for source in files):
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
    _require_checksum(content, source, name or path)
    return content


def _require_checksum(content: bytes, source: Source, name: Path | str) -> None:
    """Raise DataError if content has another checksum than is registered; where none is, anything passes."""
    sha256 = hashlib.sha256(content).hexdigest()
    if source.sha256 not in (None, sha256):
        expected = f"sha256 {source.sha256} ({source.size:,} bytes)"
        received = f"{sha256} ({len(content):,} bytes)"
        raise DataError(name, expected, received)


# === Fetching and making ===


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


def fetch(source: Source, folder: Path | None = None) -> Path:
    """Download one file from its publisher, with a progress bar; it is put in place only when its checksum is right.

    Args:
        source: the file.
        folder: the data folder that it goes to; None for `data/raw`.

    Returns:
        Where it is.

    Raises:
        FileNotFoundError: if the publisher does not offer it or cannot be reached.
        DataError: if what came is not the registered file.
    """
    target = _target(source, folder)
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


def _target(source: Source, folder: Path | None) -> Path:
    """Where a file goes: into a data folder, or without one into the first, `data/raw`."""
    if folder is None:
        folder = data_folders()[0]
    return folder / source.file


def obtain(source: Source, folder: Path | None = None) -> Path:
    """Find a file; else make it from a release that is at hand, or fetch it or such a release.

    Args:
        source: the file.
        folder: the data folder that what is made or fetched goes to; None for `data/raw`.

    Returns:
        Where it is.

    Raises:
        FileNotFoundError: if it is nowhere, and can be neither made nor fetched.
        DataError: if what came is not the registered file.
        ValueError: if the release that it is made from is another one.
    """
    path = find(source)
    if path is not None:
        return path
    if source.derived_from:
        release = _release_for(source, folder)
        return derive(source, release, folder)
    return fetch(source, folder=folder)


def _release_for(source: Source, folder: Path | None) -> Path:
    """A release that a file can be made from: the first that is at hand, else the first that can be fetched."""
    releases = [REGISTRY[key] for key in source.derived_from]
    for release in releases:
        path = find(release)
        if path is not None:
            return path
    offered = [release for release in releases if release.url]
    return fetch(offered[0], folder=folder)


def derive(source: Source, release: Path, folder: Path | None = None) -> Path:
    """Make a file from its publisher's release; it is put in place only when its checksum is right.

    Args:
        source: the file.
        release: the publisher's file that it is made from.
        folder: the data folder that it goes to; None for `data/raw`.

    Returns:
        Where it is.

    Raises:
        DataError: if what came is not the registered file.
        ValueError: if the release lacks some of its rows.
    """
    print(f"{source.file} is made from {release}", file=sys.stderr)
    content = derived.DERIVATIONS[source.made_by](release)
    _require_checksum(content, source, f"{source.file}, made from {release}")
    target = _target(source, folder)
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    return target
