"""Fit a localizer on fingerprints, and locate scans with it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

FLOAT = "%.10g"  # of numbers in a CSV
DONE, NOTHING_LOCATED, REFUSED, INTERRUPTED = 0, 1, 2, 130  # exit status

EXAMPLES = """
\b
From a survey to positions:
  python -m lib fit office=survey.csv --output localizer
  python -m lib predict localizer scans.csv --output positions.csv
  python -m lib evaluate localizer later.csv

\b
Exit status:
  0    done
  1    done, but nothing was located
  2    refused: the message says what was expected, what came and what to do
  130  interrupted
"""

FILES = """
\b
A survey is a table (CSV, Parquet) or JSON, also compressed (gz, xz, bz2, zip), in one of these forms:
  wide    a scan a row, a column of dBm for each transmitter, empty where it is not heard
  long    a reading a row: scan, transmitter, rssi
  pairs   a scan a row: mac1, rssi1, mac2, rssi2, ...
  JSON    a scan an object, one a line or in a list: {"rssi": {"aa:bb:...": -61}, "x": 1, "y": 2};
          uplinks of ChirpStack v4 and The Things Stack v3, whose decoded payload has the position

\b
Its other columns, by these or other usual names (easting, lng, bssid, rss, ...):
  x, y                  metres east and north in any plane, or
  latitude, longitude   degrees
  floor, building       whole numbers, optional
  time, device          optional
"""

SCANS = """
\b
Scans come in the same forms as surveys; a column `scan` names them. Transmitters are told by name, MAC addresses
whatever their case and separators.

\b
Columns of the result, a row a scan in the order of the file:
  scan                  its name, or its number
  located               whether it hears a transmitter that is known; if not, the next ones are empty
  environment           where it was taken, by the name given to fit
  building, floor       as in the survey
  x, y                  metres, in the plane of the survey
  latitude, longitude   degrees, if the survey has them
  radius_50, radius_90  metres: the position lies within with this probability, for scans like those of the survey
  heard, unknown        how many known and other transmitters it hears
"""


# === Values of options ===


class Listed(click.ParamType):
    """Values with commas between them."""

    name = "list"

    def __init__(self, of: Callable[[str], object] = str):
        self.of = of

    def convert(self, value, parameter, context):
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.of(part.strip()) for part in value.split(","))
        except ValueError as problem:
            self.fail(f"expected values with commas between them. Received: {value} ({problem}).", parameter, context)


def role_and_name(text: str) -> tuple[str, str]:
    """A column's role and its name, of `role=name`."""
    role, equals, name = text.partition("=")
    if not equals:
        raise ValueError(f"expected role=name, for instance x=ECoord. Received: {text}")
    return role.strip(), name.strip()


def level_of(text: str) -> float:
    """A level of the radii."""
    level = float(text)
    if not 0 < level < 1:
        raise ValueError(f"`levels` must be between 0 and 1. Received: {text}")
    return level


def joined(values: tuple[tuple, ...]) -> tuple:
    """The values of an option that may come several times."""
    return tuple(value for several in values for value in several)


def listed_option(name: str, of: Callable[[str], object] = str, **settings):
    """An option with several values, with commas between them or each with the option before it."""
    return click.option(
        name, type=Listed(of), multiple=True, callback=lambda context, parameter, values: joined(values), **settings
    )


# === Options that commands share ===


def reading_options(command: Callable) -> Callable:
    """Options that say how files are read."""
    options = (
        listed_option(
            "--columns",
            role_and_name,
            metavar="ROLE=NAME,...",
            help="What columns are, where their names do not tell: x=ECoord,y=NCoord.",
        ),
        listed_option("--ignore", metavar="NAME,...", help="Columns to leave out; * and ? stand for anything."),
        listed_option(
            "--transmitters", metavar="NAME,...", help="The columns that are transmitters, such as 'WAP*'; no others."
        ),
        listed_option(
            "--not-heard", metavar="VALUE,...", help="What else stands for “not heard”, such as 100 or -inf."
        ),
        listed_option(
            "--measured", float, metavar="VALUE,...", help="Values that are RSSI although they look like a marker: 0."
        ),
        click.option(
            "--duplicates",
            type=click.Choice(("strongest", "mean", "error")),
            default="strongest",
            show_default=True,
            help="What counts where a scan hears a transmitter more than once.",
        ),
        click.option("--keep-far", is_flag=True, help="Keep rows at (0, 0), or far from all others."),
        click.option("--quiet", is_flag=True, help="Do not say what was read."),
    )
    for option in reversed(options):
        command = option(command)
    return command


levels_option = listed_option(
    "--levels", level_of, metavar="SHARE,...", default=((0.5, 0.9),), help="Of the radii; default 0.5,0.9."
)
localizer_argument = click.argument("localizer", type=click.Path(path_type=Path))


def options_of(settings: dict, remembered: tuple = ()):
    """How files are to be read, taken out of a command's settings, and what to do with the paragraph about each.

    Args:
        settings: of the command; those of `reading_options` are removed.
        remembered: markers of "not heard" that the localizer was fitted with.
    """
    from lib.data.forms import as_marker
    from lib.data.reading import Options

    tell = None if settings.pop("quiet") else lambda paragraph: click.echo(paragraph, err=True)
    names = ("ignore", "transmitters", "measured", "duplicates", "keep_far")
    chosen = {name: settings.pop(name) for name in names}
    not_heard = (*remembered, *map(as_marker, settings.pop("not_heard")))
    declared = settings.pop("columns")
    columns = dict(declared)
    if len(columns) < len(declared):
        both = ", ".join(f"{role}={name}" for role, name in declared)
        raise ValueError(f"--columns: expected one name for each role. Received: {both}")
    return Options(columns=columns, not_heard=not_heard, **chosen), tell


# === Commands ===


@click.group(help=__doc__, epilog=EXAMPLES, context_settings={"max_content_width": 110})
def main() -> None:
    pass


@main.command(epilog=FILES)
@click.argument("sources", nargs=-1, required=True, metavar="NAME=FILE...")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The folder of the localizer.")
@click.option(
    "--hold-out", type=float, default=0.1, show_default=True, help="The share of the rows that only report and choose."
)
@click.option(
    "--whole-devices",
    is_flag=True,
    help="Hold out all rows of some devices, of three or more: is it good for new ones?",
)
@levels_option
@reading_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that chance decides.")
@click.option("--epochs", type=int, help="Passes over the rows that it learns from.")
@click.option("--batch-size", type=int, help="Rows of a step; default: more for more rows.")
@listed_option("--hidden", int, metavar="WIDTH,...", help="Of the hidden layers; default 1024,1024.")
def fit(sources, output, hold_out, whole_devices, levels, seed, epochs, batch_size, hidden, **reading) -> int:
    """Fit a localizer on surveys, one for each environment, and report on rows that it held out.

    NAME is what the environment is called. Registered data sets have their names: ujiindoorloc, lorawan_antwerp,
    sigfox_rural, uji_library.

    \b
    Example:
      python -m lib fit office=office.csv yard=yard.jsonl --output localizer
    """
    from lib.data import protocols
    from lib.data.names import Spellings
    from lib.paths import require_writable
    from lib.use import card
    from lib.use.localizer import CARD, Localizer, require_replaceable

    require_replaceable(output)
    require_writable(output)
    options, tell = options_of(reading)
    learning, held_out, transmitters = [], [], ()
    for source in sources:
        fingerprints = fingerprints_of(source, options, Spellings(transmitters), tell)
        transmitters = tuple(dict.fromkeys((*transmitters, *fingerprints.transmitters)))
        kept, reporting = protocols.held_out(fingerprints, hold_out, whole_devices)
        learning.append(kept)
        held_out.append(reporting)
    settings = {}
    if epochs is not None:
        settings["epochs"] = epochs
    if batch_size is not None:
        settings["batch_size"] = batch_size
    if hidden:
        settings["network"] = {"hidden": hidden}
    settings["not_heard"] = options.not_heard
    localizer = Localizer.holding_out(learning, seed, whole_groups=whole_devices, **settings)
    rows = card.evaluations(localizer, learning, held_out, levels)
    report(rows)
    localizer.save(output, card=card.files(localizer, learning, held_out, rows))
    click.echo(f"\n{output}: {len(localizer.transmitters):,} transmitters; {output / CARD} is its model card")
    return DONE


@main.command(epilog=SCANS)
@localizer_argument
@click.argument("scans", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="A CSV; default: the screen.")
@levels_option
@reading_options
def predict(localizer, scans, output, levels, **reading) -> int:
    """Locate the scans of a file.

    \b
    Example:
      python -m lib predict localizer scans.csv --levels 0.5,0.95 --output positions.csv
    """
    from lib.data.reading import read_scans
    from lib.paths import replacing
    from lib.use.frame import as_frame
    from lib.use.runtime import Runtime

    locator = Runtime.load(localizer)
    options, tell = options_of(reading, locator.not_heard)
    named_scans = read_scans(scans, locator.known, options, tell)
    table = as_frame(locator.table(named_scans, levels), named_scans.names)
    table.index.name = "scan"
    if output is None:
        click.echo(table.to_csv(float_format=FLOAT), nl=False)
    else:
        with replacing(output) as temporary:
            table.to_csv(temporary, float_format=FLOAT)
    n_located = int(table["located"].sum())
    click.echo(f"{n_located:,} of {len(table):,} scans hear a known transmitter", err=True)
    return DONE if n_located else NOTHING_LOCATED


@main.command(epilog=FILES)
@localizer_argument
@click.argument("sources", nargs=-1, required=True, metavar="[NAME=]FILE...")
@levels_option
@reading_options
def evaluate(localizer, sources, levels, **reading) -> int:
    """Report on fingerprints that took no part in the fit.

    NAME is that of the environment, and may be left out if there is only one.

    \b
    Example:
      python -m lib evaluate localizer office=later.csv
    """
    from lib.data.names import Spellings
    from lib.use.localizer import Localizer

    fitted = Localizer.load(localizer)
    options, tell = options_of(reading, fitted.not_heard)
    only_name = None
    if len(fitted.environments) == 1:
        only_name = fitted.environments[0].name
    rows = []
    for source in sources:
        fingerprints = fingerprints_of(source, options, Spellings(fitted.transmitters), tell, only_name)
        rows.append(fitted.evaluate(fingerprints, levels))
    report(rows)
    return DONE if any(row["located"] for row in rows) else NOTHING_LOCATED


@main.command()
@localizer_argument
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The folder of the files.")
@listed_option("--formats", metavar="FORMAT,...", help="onnx, litert; default: all that can be written here.")
def export(localizer, output, formats) -> int:
    """Write a localizer for machines without Keras and TensorFlow, with a README of its own.

    \b
    Example:
      python -m lib export localizer --output exported
    """
    from lib.use import export as exporting

    exporting.export(localizer, output, formats or None)
    return DONE


# === What they share ===


def registered() -> list[str]:
    """Names of the data sets that can be used in the place of a file."""
    from lib.data import datasets

    return [*datasets.LOADERS, *datasets.FURTHER]


def fingerprints_of(source: str, options, known, tell, name: str | None = None):
    """Fingerprints of `NAME=file`, of `file` if `name` stands in for it, or of a registered data set.

    Raises:
        ValueError: if it is none of them.
    """
    from lib.data import datasets, reading

    if source in registered():
        return datasets.load(source)
    before, equals, path = source.partition("=")
    if equals:
        name = before
    else:
        path = source
    if not name or not path:
        raise ValueError(f"expected NAME=file or one of {', '.join(registered())}. Received: {source}")
    return reading.read_fingerprints(path, name, options, known, tell)


def report(rows: list[dict]) -> None:
    """Print evaluations, a column each: metres, and shares in %."""
    import pandas as pd

    from lib.use.card import as_text

    texts = []
    for row in rows:
        texts.append({name: as_text(name, value) for name, value in row.items()})
    click.echo(pd.DataFrame(texts).fillna("").T.to_string(header=False))


def run() -> None:
    """Run a command; what goes wrong is said in one line."""
    try:
        status = main(standalone_mode=False, prog_name="python -m lib")
    except click.exceptions.NoArgsIsHelpError as problem:
        problem.show()
        sys.exit(REFUSED)
    except click.ClickException as problem:
        context = getattr(problem, "ctx", None)
        command = context.command_path if context else "python -m lib"
        refuse(f"{problem.format_message()} See {command} --help")
    except (ValueError, OSError, MemoryError, ImportError) as problem:
        refuse(str(problem))
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: nothing was written", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(status)


def refuse(message: str) -> NoReturn:
    """Say in one line what is wrong, and end."""
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(REFUSED)


if __name__ == "__main__":
    run()
