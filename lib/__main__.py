"""Fit a localizer on fingerprints, and locate scans with it.

python -m lib fit office=office.csv --output localizer
python -m lib predict localizer scans.csv --output positions.csv
python -m lib evaluate localizer office=later.csv
python -m lib export localizer --output exported
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from lib.data import datasets, protocols, reading
from lib.data.fingerprints import FingerprintSet
from lib.paths import replacing

FINGERPRINTS = """fingerprints CSV, one scan a row:
  x, y                  metres east and north in any plane, or
  latitude, longitude   degrees
  floor, building       whole numbers, optional
  time, device          optional
  all other columns     RSSI in dBm of one transmitter each; empty = not heard"""
SCANS = """scans CSV:
  wide   a column for each transmitter, RSSI in dBm, empty = not heard; a column `scan` may name the scans
  long   columns scan, transmitter, rssi, a row for each transmitter that a scan hears"""

FLOAT = "%.10g"  # of numbers in a CSV


# === Commands ===


def marker(text: str) -> float | str:
    """A value that stands for "not heard": a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text


def registered() -> list[str]:
    """Names of the data sets that can be used in the place of a file."""
    return [*datasets.LOADERS, *datasets.FURTHER]


def read(source: str, arguments: argparse.Namespace, name: str | None = None) -> FingerprintSet:
    """Fingerprints of `NAME=file.csv`, of `file.csv` if `name` stands in for it, or of a registered data set.

    Raises:
        ValueError: if it is none of them.
    """
    if source in registered():
        return datasets.load(source)
    before, equals, path = source.partition("=")
    if equals:
        name = before
    elif name is None:
        raise ValueError(f"expected NAME=file.csv or one of {', '.join(registered())}. Received: {source}")
    return reading.read_fingerprints(path or source, name, prefix=arguments.prefix, not_heard=arguments.not_heard)


def fit(arguments: argparse.Namespace) -> None:
    """Train on most rows of each source, report on the others, and save."""
    from lib.use.localizer import Localizer, require_replaceable

    require_replaceable(arguments.output)
    learning, reporting = [], []
    for source in arguments.sources:
        fingerprints = read(source, arguments)
        kept, held_out = protocols.held_out(fingerprints, arguments.hold_out, arguments.whole_devices)
        learning.append(kept)
        reporting.append(held_out)
    settings = {}
    if arguments.epochs is not None:
        settings["epochs"] = arguments.epochs
    if arguments.batch_size is not None:
        settings["batch_size"] = arguments.batch_size
    if arguments.hidden:
        settings["network"] = {"hidden": tuple(arguments.hidden)}
    localizer = Localizer.holding_out(learning, arguments.seed, whole_groups=arguments.whole_devices, **settings)
    report([localizer.evaluate(held_out, arguments.levels) for held_out in reporting])
    localizer.save(arguments.output)
    print(f"\n{arguments.output}: {len(localizer.transmitters):,} transmitters")


def predict(arguments: argparse.Namespace) -> None:
    """Locate the scans of a file."""
    from lib.use.localizer import Localizer

    localizer = Localizer.load(arguments.localizer)
    scans = reading.read_scans(arguments.scans, arguments.form)
    table = localizer.locate(scans, arguments.levels, arguments.not_heard)
    table.index.name = "scan"
    if arguments.output is None:
        table.to_csv(sys.stdout, float_format=FLOAT)
    else:
        with replacing(arguments.output) as temporary:
            table.to_csv(temporary, float_format=FLOAT)
    print(f"{table['located'].sum():,} of {len(table):,} scans hear a known transmitter", file=sys.stderr)


def evaluate(arguments: argparse.Namespace) -> None:
    """Report on fingerprints that took no part in the fit."""
    from lib.use.localizer import Localizer

    localizer = Localizer.load(arguments.localizer)
    only_name = None
    if len(localizer.environments) == 1:
        only_name = localizer.environments[0].name
    rows = []
    for source in arguments.sources:
        fingerprints = read(source, arguments, only_name)
        rows.append(localizer.evaluate(fingerprints, arguments.levels))
    report(rows)


def export(arguments: argparse.Namespace) -> None:
    """Write a localizer in other formats."""
    from lib.use import export as exporting

    exporting.export(arguments.localizer, arguments.output, arguments.formats)


def as_text(name: str, value: float | int | str) -> str:
    """A value of an evaluation: a share in %, a number, or a name."""
    if name.endswith("_hit") or name.startswith(("located", "coverage")):
        return f"{value:.1%}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    return value


def report(rows: list[dict]) -> None:
    """Print evaluations, a column each: metres, and shares in %."""
    texts = []
    for row in rows:
        texts.append({name: as_text(name, value) for name, value in row.items()})
    print(pd.DataFrame(texts).fillna("").T.to_string(header=False))


# === Their arguments ===

LAYOUT = {"formatter_class": argparse.RawDescriptionHelpFormatter}  # keeps the lines of a description


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command_line = argparse.ArgumentParser(prog="python -m lib", description=__doc__, **LAYOUT)
    commands = command_line.add_subparsers(required=True, metavar="fit|predict|evaluate|export")

    fitting = commands.add_parser("fit", help=fit.__doc__, description=FINGERPRINTS, **LAYOUT)
    fitting.set_defaults(run=fit)
    fitting.add_argument("sources", nargs="+", metavar="SOURCE", help=source_help())
    add_output(fitting, "where the localizer is put")
    add_levels(fitting)
    add_columns(fitting)
    fitting.add_argument("--seed", type=int, default=0, help="also draws the rows that calibrate the radius; default 0")
    fitting.add_argument("--epochs", type=int, help="passes over the rows that it learns from")
    fitting.add_argument("--batch-size", type=int, help="rows of a step; default: more for more rows")
    fitting.add_argument("--hidden", type=int, nargs="+", metavar="WIDTH", help="of the hidden layers")
    fitting.add_argument("--hold-out", type=float, default=0.10, metavar="SHARE", help="for the report, default 0.1")
    fitting.add_argument(
        "--whole-devices",
        action="store_true",
        help="hold out all rows of some devices, of three or more: is it good for new ones?",
    )

    predicting = commands.add_parser("predict", help=predict.__doc__, description=SCANS, **LAYOUT)
    predicting.set_defaults(run=predict)
    add_localizer(predicting)
    predicting.add_argument("scans", type=Path, help="CSV as above")
    add_levels(predicting)
    add_not_heard(predicting)
    predicting.add_argument("--form", choices=("wide", "long"), help="of the scans; default: by their columns")
    predicting.add_argument("--output", type=Path, metavar="FILE", help="CSV; default: the screen")

    evaluating = commands.add_parser("evaluate", help=evaluate.__doc__, description=FINGERPRINTS, **LAYOUT)
    evaluating.set_defaults(run=evaluate)
    add_localizer(evaluating)
    evaluating.add_argument(
        "sources", nargs="+", metavar="SOURCE", help=f"{source_help()}; NAME= may be left out if it is clear"
    )
    add_levels(evaluating)
    add_columns(evaluating)

    exporting = commands.add_parser("export", help=export.__doc__, description=export.__doc__)
    exporting.set_defaults(run=export)
    add_localizer(exporting)
    add_output(exporting, "where the files are put")
    exporting.add_argument("--formats", nargs="+", metavar="FORMAT", help="default: all")
    return command_line


def source_help() -> str:
    return f"NAME=file.csv, or one of {', '.join(registered())}"


def add_localizer(command: argparse.ArgumentParser) -> None:
    command.add_argument("localizer", type=Path, help="directory that fit wrote")


def add_output(command: argparse.ArgumentParser, purpose: str) -> None:
    command.add_argument("--output", type=Path, required=True, metavar="DIRECTORY", help=purpose)


def add_levels(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--levels", nargs="+", type=float, default=(0.5, 0.9), metavar="SHARE", help="of the radii, default 0.5 0.9"
    )


def add_not_heard(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--not-heard", nargs="+", type=marker, default=(), metavar="VALUE", help="what else stands for “not heard”: 100"
    )


def add_columns(command: argparse.ArgumentParser) -> None:
    """How the columns of a file of fingerprints are read."""
    add_not_heard(command)
    command.add_argument("--prefix", help="of the columns that are transmitters; default: all that have no other name")


def main() -> None:
    """Run a command; what goes wrong is said in one line."""
    arguments = parser().parse_args()
    try:
        arguments.run(arguments)
    except (ValueError, OSError, MemoryError, ImportError) as problem:
        sys.exit("error: " + " ".join(str(problem).split()))
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")


if __name__ == "__main__":
    main()
