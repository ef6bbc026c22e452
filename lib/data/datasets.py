"""Environments by name: measured where their files are at hand, or simulated.

`python -m lib.data.datasets` finds every file, else makes it from its publisher's release or fetches it, checks it and
says where it is.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from lib.data import comford, reading, simulate
from lib.data.fingerprints import FingerprintSet
from lib.data.loaders import LOADERS
from lib.data.sources import DataError, Source, checked, files_of, find, obtain
from lib.paths import data_mode, data_settings, replacing

# The environments of the paper. The others are measured or not at all.
SIMULATORS = {"ujiindoorloc": simulate.campus, "lorawan_antwerp": simulate.city}
# Worlds of the same simulators that nobody surveyed, to pre-train on, and the seed that makes them differ.
INVENTED = {"simulated_campus": "ujiindoorloc", "simulated_city": "lorawan_antwerp"}
INVENTED_SEED = 1000
BANNER = "SIMULATED DATA: no measured fingerprints are used; nothing here says anything about the paper."


@lru_cache
def simulated() -> bool:
    """Whether this run uses the simulator: asked for, or nothing measured can be had under `DATA=auto`.

    Raises:
        FileNotFoundError: under `DATA=real`, if a file can neither be found, made nor fetched.
        ValueError: if `DATA` or `LORAWAN` has another value than those that `lib.paths` names.
    """
    mode = data_settings()["DATA"]
    if mode != "simulated":
        try:
            for environment in SIMULATORS:
                for source in files_of(environment):
                    obtain(source)
            return False
        except FileNotFoundError:
            if mode == "real":
                raise
    print(BANNER, file=sys.stderr)
    return True


def at_hand(environment: str) -> bool:
    """Whether `load` has rows of an environment, measured or simulated."""
    if environment in SIMULATORS or environment in INVENTED:
        return True
    return not simulated() and all(map(find, files_of(environment)))


def load(environment: str) -> FingerprintSet:
    """One environment, measured or simulated as `DATA` says.

    Args:
        environment: a key of `LOADERS` or `INVENTED`, or the path of a folder in COMFORD's format, whose name is then
            the environment's.

    Raises:
        DataError: if a file is corrupt, truncated or of another schema.
        FileNotFoundError: if it is missing under `DATA=real`, or has no simulation.
        ValueError: if there is no such environment, or the folder is in another format.
    """
    if environment in INVENTED:
        return _invented(environment)
    if environment not in LOADERS:
        if not comford.is_folder(environment):
            names = ", ".join(LOADERS)
            raise ValueError(
                f"`environment` must be one of {names}, or a folder in COMFORD's format. Received: {environment}"
            )
        return reading.read_fingerprints(environment, Path(environment).name)
    if environment in SIMULATORS:
        return _made(SIMULATORS[environment]) if simulated() else LOADERS[environment]()
    if data_mode() == "simulated":
        raise FileNotFoundError(f"{environment} has no simulation, and DATA=simulated looks for no files")
    return LOADERS[environment]()


@lru_cache(maxsize=len(SIMULATORS))  # each protocol asks for them
def _made(simulate_one: Callable[[], FingerprintSet]) -> FingerprintSet:
    """A simulated environment."""
    return simulate_one()


def _invented(name: str) -> FingerprintSet:
    """A simulated environment under a name and with transmitters of its own, so that it can stand beside any other."""
    simulate_one = SIMULATORS[INVENTED[name]]
    fingerprints = simulate_one(seed=INVENTED_SEED)
    transmitters = tuple(f"{name} {transmitter}" for transmitter in fingerprints.transmitters)
    return replace(fingerprints, name=name, transmitters=transmitters)


def main() -> None:
    """Find, make or fetch all files, check them, and record what is used in the file named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m lib.data.datasets", description=main.__doc__)
    purpose = "where to write, as JSON, which files are used and whether the data are simulated; default: nowhere"
    parser.add_argument("records", nargs="*", type=Path, metavar="PATH", help=purpose)
    arguments = parser.parse_args()
    used = {}
    try:
        for source in _used():
            path = find(source)
            checked(path, source)
            used[str(path)] = {"sha256": source.sha256, "rows": source.rows, "licence": source.licence}
            print(f"{path}: {source.rows:,} rows, sha256 as published")
    except (DataError, FileNotFoundError, ValueError) as problem:
        sys.exit(str(problem))
    record = json.dumps({"simulated": simulated(), "files": used}, indent=2)
    for path in arguments.records:
        with replacing(path) as temporary:
            temporary.write_text(f"{record}\n")


def _used() -> list[Source]:
    """The files that this run uses: none if it simulates, else those of each environment that can be had."""
    if simulated():
        return []
    sources = []
    for environment in LOADERS:
        files = files_of(environment)
        try:
            for source in files:
                obtain(source)
        except FileNotFoundError as problem:
            print(f"{environment} is left out: {problem}", file=sys.stderr)
        else:
            sources += files
    return sources


if __name__ == "__main__":
    main()
