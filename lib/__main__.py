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

from lib import datasets, scans, splits
from lib.fingerprints import FingerprintSet
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


def marker(text: str) -> float | str:
    """A value that stands for "not heard": a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text


def read(source: str, given: argparse.Namespace, name: str | None = None) -> FingerprintSet:
    """Fingerprints of `NAME=file.csv`, of `file.csv` if `name` stands in for it, or of a registered data set.

    Raises:
        ValueError: if it is none of them.
    """
    if source in datasets.LOADERS | datasets.FURTHER:
        return datasets.load(source)
    before, equals, path = source.partition("=")
    if equals:
        name = before
    elif name is None:
        registered = ", ".join(datasets.LOADERS | datasets.FURTHER)
        raise ValueError(f"expected NAME=file.csv or one of {registered}. Received: {source}")
    return scans.read_fingerprints(path or source, name, prefix=given.prefix, not_heard=given.not_heard)


def fit(given: argparse.Namespace) -> None:
    """Train on most rows of each source, report on the others, and save."""
    from lib.localizer import Localizer, require_replaceable

    require_replaceable(given.output)
    parts = [splits.held_out(read(source, given), given.hold_out, given.whole_devices) for source in given.sources]
    settings = {name: getattr(given, name) for name in ("epochs", "batch_size") if getattr(given, name) is not None}
    if given.hidden:
        settings["network"] = {"hidden": tuple(given.hidden)}
    fitted = Localizer.fit([kept for kept, _ in parts], given.seed, whole_groups=given.whole_devices, **settings)
    report([fitted.evaluate(out, given.levels) for _, out in parts])
    fitted.save(given.output)
    print(f"\n{given.output}: {len(fitted.transmitters):,} transmitters")


def predict(given: argparse.Namespace) -> None:
    """Locate the scans of a file."""
    from lib.localizer import Localizer

    localizer = Localizer.load(given.localizer)
    table = localizer.predict(scans.read_scans(given.scans, given.form), given.levels, given.not_heard)
    table.index.name = "scan"
    if given.output is None:
        table.to_csv(sys.stdout, float_format="%.10g")
    else:
        with replacing(given.output) as temporary:
            table.to_csv(temporary, float_format="%.10g")
    print(f"{table['located'].sum():,} of {len(table):,} scans hear a known transmitter", file=sys.stderr)


def evaluate(given: argparse.Namespace) -> None:
    """Report on fingerprints that took no part in the fit."""
    from lib.localizer import Localizer

    localizer = Localizer.load(given.localizer)
    only = localizer.environments[0].name if len(localizer.environments) == 1 else None
    report([localizer.evaluate(read(source, given, only), given.levels) for source in given.sources])


def export(given: argparse.Namespace) -> None:
    """Write a localizer in other formats."""
    from lib import export as exporting

    exporting.export(given.localizer, given.output, given.formats)


def written(name: str, value: float | int | str) -> str:
    """A value of an evaluation as text."""
    if name.endswith("_hit") or name.startswith(("located", "coverage")):
        return f"{value:.1%}"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def report(rows: list[dict]) -> None:
    """Print evaluations, a column each: metres, and shares in %."""
    shown = [{name: written(name, value) for name, value in row.items()} for row in rows]
    print(pd.DataFrame(shown).fillna("").T.to_string(header=False))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    settings = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    whole = argparse.ArgumentParser(prog="python -m lib", description=__doc__, **settings)
    commands = whole.add_subparsers(required=True, metavar="fit|predict|evaluate|export")

    levels = argparse.ArgumentParser(add_help=False)
    levels.add_argument(
        "--levels", nargs="+", type=float, default=(0.5, 0.9), metavar="SHARE", help="of the radii, default 0.5 0.9"
    )
    markers = argparse.ArgumentParser(add_help=False)
    markers.add_argument(
        "--not-heard", nargs="+", type=marker, default=(), metavar="VALUE", help="what else stands for “not heard”: 100"
    )
    columns = argparse.ArgumentParser(add_help=False)
    columns.add_argument("--prefix", help="of the columns that are transmitters; default: all that have no other name")
    output = {"type": Path, "required": True, "metavar": "DIRECTORY"}

    about = "NAME=file.csv, or one of " + ", ".join(datasets.LOADERS | datasets.FURTHER)
    fitting = commands.add_parser(
        "fit", parents=[levels, markers, columns], help=fit.__doc__, description=FINGERPRINTS, **settings
    )
    fitting.add_argument("sources", nargs="+", metavar="SOURCE", help=about)
    fitting.add_argument("--output", help="where the localizer is put", **output)
    fitting.add_argument("--seed", type=int, default=0, help="also draws the rows that make the radius; default 0")
    fitting.add_argument("--epochs", type=int, help="passes over the rows that it learns from")
    fitting.add_argument("--batch-size", type=int, help="rows of a step; default: more for more rows")
    fitting.add_argument("--hidden", type=int, nargs="+", metavar="WIDTH", help="of the hidden layers")
    fitting.add_argument("--hold-out", type=float, default=0.10, metavar="SHARE", help="for the report, default 0.1")
    fitting.add_argument(
        "--whole-devices",
        action="store_true",
        help="hold out all rows of some devices, of three or more: is it good for new ones?",
    )
    fitting.set_defaults(run=fit)

    predicting = commands.add_parser(
        "predict", parents=[levels, markers], help=predict.__doc__, description=SCANS, **settings
    )
    predicting.add_argument("localizer", type=Path, help="directory that fit wrote")
    predicting.add_argument("scans", type=Path, help="CSV as above")
    predicting.add_argument("--form", choices=("wide", "long"), help="of the scans; default: by their columns")
    predicting.add_argument("--output", type=Path, metavar="FILE", help="CSV; default: the screen")
    predicting.set_defaults(run=predict)

    evaluating = commands.add_parser(
        "evaluate", parents=[levels, markers, columns], help=evaluate.__doc__, description=FINGERPRINTS, **settings
    )
    evaluating.add_argument("localizer", type=Path, help="directory that fit wrote")
    evaluating.add_argument(
        "sources", nargs="+", metavar="SOURCE", help=about + "; NAME= may be left out if it is clear"
    )
    evaluating.set_defaults(run=evaluate)

    exporting = commands.add_parser("export", help=export.__doc__, description=export.__doc__)
    exporting.add_argument("localizer", type=Path, help="directory that fit wrote")
    exporting.add_argument("--output", help="where the files are put", **output)
    exporting.add_argument("--formats", nargs="+", metavar="FORMAT", help="default: all")
    exporting.set_defaults(run=export)
    return whole


def main() -> None:
    """Run a command; what goes wrong is said in one line."""
    given = parser().parse_args()
    try:
        given.run(given)
    except (ValueError, OSError, MemoryError, ImportError) as problem:
        sys.exit("error: " + " ".join(str(problem).split()))
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")


if __name__ == "__main__":
    main()
