"""Fit a localizer on your fingerprints, and locate scans with it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

FLOAT = "%.10g"  # of numbers in a CSV
DONE, NOTHING_LOCATED, REFUSED, INTERRUPTED = 0, 1, 2, 130  # exit status; shells have 130 for Ctrl-C

EXAMPLES = """
\b
From a survey to positions:
  python -m lib fit office=survey.csv --output localizer
  python -m lib predict localizer scans.csv --output positions.csv
  python -m lib evaluate localizer later.csv
  python -m lib update localizer later.csv --output renewed

\b
Results go to standard output, or to --output; what was read, progress and errors go to standard error.

\b
Exit status:
  0    done
  1    done, but no scan was located
  2    refused: the message says what was expected, what came and what to do
  130  interrupted: nothing was written
"""

FILES = """
\b
A survey is a table (CSV, Parquet) or JSON, compressed or not (gz, xz, bz2, zip), in one of these forms:
  wide    one row per scan; one column of dBm per transmitter, empty where it is not heard
  long    one row per reading: scan, transmitter, rssi
  pairs   one row per scan: mac1, rssi1, mac2, rssi2, ...
  JSON    one object per scan, one per line or in a list: {"rssi": {"aa:bb:...": -61}, "x": 1, "y": 2};
          also uplinks of ChirpStack v4 and The Things Stack v3, with the position in the decoded payload
  folder  Samples.csv and RSSI.csv in COMFORD's intermediate format

\b
Further columns, by these or other common names (easting, lng, storey, ...):
  x, y                  metres east and north in any plane; or
  latitude, longitude   degrees (WGS 84)
  floor, building       whole numbers, optional
  time, device          optional

\b
docs/formats.md has examples, all names of columns, and what is left out or refused.
"""

REPORT = """
\b
The report, in metres of x and y:
  located                     share of the rows that hear a known transmitter
  environment_hit             share of the rows that are located in the right environment
  mean_m, median_m, p75_m...  errors of these: mean, median, percentiles
  building_hit, floor_hit     share of these with the right building, the right floor
  coverage_90                 share of the located rows within their radius of 90 %; it should be 90 %
  radius_90                   median of this radius
"""

SCANS = """
\b
Scans come in the same forms as surveys (see fit --help); they need no position, and a column `scan` names them.
Transmitters are matched by name, MAC addresses in any spelling.

\b
The result has one row per scan, in the order of the file:
  scan                  its name, or else its row, from 0
  located               whether it hears a known transmitter; if not, all columns up to the radii are empty
  environment           the NAME that fit was given
  building, floor       as in the survey
  x, y                  metres in the plane of the survey
  latitude, longitude   degrees; empty if nothing says where on earth that plane is
  radius_50, radius_90  metres: the device is this close with this probability, for scans like the survey's
  heard, unknown        how many known and how many other transmitters it hears
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
            help="Which column is what, where its name does not say: x=grid_e,y=grid_n.",
        ),
        listed_option(
            "--ignore", metavar="NAME,...", help="Columns to leave out; * stands for any characters, ? for one."
        ),
        listed_option(
            "--transmitters", metavar="NAME,...", help="Columns that are transmitters, such as 'WAP*'; no others are."
        ),
        listed_option(
            "--not-heard",
            metavar="VALUE,...",
            help="Values that mean “not heard”, such as 100 or -inf; fit remembers them.",
        ),
        listed_option(
            "--measured",
            float,
            metavar="VALUE,...",
            help="Values that are RSSI although they look like “not heard”, such as 0.",
        ),
        click.option(
            "--duplicates",
            type=click.Choice(("strongest", "mean", "error")),
            default="strongest",
            show_default=True,
            help="What counts if a scan hears a transmitter more than once.",
        ),
        click.option(
            "--keep-far", is_flag=True, help="Keep rows at (0, 0) or far from all others; else they are left out."
        ),
        click.option("--quiet", is_flag=True, help="Do not print what was read."),
    )
    for option in reversed(options):
        command = option(command)
    return command


levels_option = listed_option(
    "--levels",
    float,
    metavar="SHARE,...",
    default=((0.5, 0.9),),
    help="Probabilities of the radii; default: 0.5,0.9.",
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


class NamingDataSets(click.Command):
    """A command whose help names the public data sets."""

    def format_help_text(self, context, formatter):
        super().format_help_text(context, formatter)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(f"Public data sets: {', '.join(registered())}.")


@click.group(help=__doc__, epilog=EXAMPLES, context_settings={"max_content_width": 110})
def main() -> None:
    pass


@main.command(cls=NamingDataSets, epilog=FILES + REPORT)
@click.argument("sources", nargs=-1, required=True, metavar="NAME=FILE...")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write the localizer to.")
@click.option(
    "--whole-devices",
    "hold_out",
    flag_value="devices",
    help="Expect scans by other devices: hold out all rows of a device (needs two), and of the position.",
)
@click.option(
    "--whole-areas",
    "hold_out",
    flag_value="areas",
    help="Expect scans from where nobody surveyed: hold out all rows of an area.",
)
@click.option(
    "--single-rows",
    "hold_out",
    flag_value="rows",
    help="Expect scans from the very positions of the survey: hold out single rows. Default: all rows of a position.",
)
@levels_option
@reading_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of all random choices.")
@click.option(
    "--epochs",
    type=int,
    help="Passes over the training rows; default: 16, 24 for several environments, more for few rows.",
)
@click.option("--batch-size", type=int, help="Rows per step; default: grows with the number of rows.")
@listed_option("--hidden", int, metavar="WIDTH,...", help="Widths of the hidden layers; default: 512,512.")
def fit(sources, output, hold_out, levels, seed, epochs, batch_size, hidden, **reading) -> int:
    """Fit one localizer on one survey per environment, and report on rows while they were held out.

    It learns from all rows. Before, they are held out in four folds, and located by what learnt from the others: this
    decides how much stored fingerprints count beside the network, sets the radii, and is reported, beside plain kNN.

    NAME is what you call the environment. Public data sets are given by their name alone. A localizer that is already
    in the folder is replaced.

    \b
    Example:
      python -m lib fit office=office.csv yard=yard.jsonl --output localizer
    """
    from lib.data.folds import HOLD_OUT
    from lib.data.names import Spellings
    from lib.paths import require_writable
    from lib.use import card
    from lib.use.localizer import CARD, Localizer, require_replaceable
    from lib.use.runtime import require_levels

    require_levels(levels)
    require_replaceable(output)
    require_writable(output)
    options, tell = options_of(reading)
    surveys, transmitters = [], ()
    for source in sources:
        survey = fingerprints_of(source, options, Spellings(transmitters), tell)
        transmitters = tuple(dict.fromkeys((*transmitters, *survey.transmitters)))
        surveys.append(survey)
    settings = {}
    if epochs is not None:
        settings["epochs"] = epochs
    if batch_size is not None:
        settings["batch_size"] = batch_size
    if hidden:
        settings["network"] = {"hidden": hidden}
    settings["not_heard"] = options.not_heard
    localizer = Localizer.of(surveys, seed, hold_out=hold_out or HOLD_OUT[0], **settings)
    rows = card.evaluations(localizer, levels)
    report(rows)
    click.echo()
    for sentence in card.choices(localizer):
        click.echo(sentence)
    localizer.save(output, card=card.files(localizer, surveys, rows))
    click.echo(f"\n{output}: {len(localizer.transmitters):,} transmitters; {output / CARD} is its model card")
    return DONE


@main.command(epilog=SCANS)
@localizer_argument
@click.argument("scans", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE", help="CSV to write; default: standard output."
)
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


@main.command(epilog=REPORT)
@localizer_argument
@click.argument("sources", nargs=-1, required=True, metavar="[NAME=]FILE...")
@levels_option
@reading_options
def evaluate(localizer, sources, levels, **reading) -> int:
    """Report errors on further surveys of the same places.

    The files are read as by fit (see fit --help). NAME is that of the environment; with only one it can be left out.

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


@main.command(epilog=REPORT)
@localizer_argument
@click.argument("sources", nargs=-1, required=True, metavar="[NAME=]FILE...")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder to write the renewed localizer to."
)
@levels_option
@reading_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of all random choices.")
def update(localizer, sources, output, levels, seed, **reading) -> int:
    """Add newly surveyed fingerprints to a localizer and calibrate it on them, in seconds, without training.

    Some fifty scans or more, from all of the place. They are read as by fit (see fit --help). NAME is that of the
    environment; with only one it can be left out. Reported are the new scans, as they are located before and after,
    each while it is held out.

    \b
    Example:
      python -m lib update localizer office=june.csv --output localizer-june
    """
    from lib.data.names import Spellings
    from lib.paths import require_writable
    from lib.use import card
    from lib.use.localizer import Localizer, require_replaceable
    from lib.use.runtime import require_levels

    require_levels(levels)
    require_replaceable(output)
    require_writable(output)
    renewed = Localizer.load(localizer)
    options, tell = options_of(reading, renewed.not_heard)
    only_name = renewed.environments[0].name if len(renewed.environments) == 1 else None
    rows = []
    for source in sources:
        fingerprints = fingerprints_of(source, options, Spellings(renewed.transmitters), tell, only_name)
        before = renewed.evaluate(fingerprints, levels)
        renewed = renewed.update(fingerprints, seed)
        rows += [{"model": "before"} | before, *card.evaluations(renewed, levels)]
    report(rows)
    renewed.save(output)
    click.echo(f"\n{output}: {len(renewed.transmitters):,} transmitters")
    return DONE


@main.command()
@localizer_argument
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write the files to.")
@listed_option("--formats", metavar="FORMAT,...", help="onnx, litert; default: both. ONNX is always written.")
def export(localizer, output, formats) -> int:
    """Write a localizer for machines without Keras and TensorFlow, with its own README.

    \b
    Example:
      python -m lib export localizer --output exported
    """
    from lib.use import export as exporting

    files = exporting.export(localizer, output, formats or None)
    click.echo(f"{output}: {', '.join(file.name for file in files)}")
    return DONE


# === What they share ===


def registered() -> list[str]:
    """Names of the data sets that can be used in the place of a file."""
    from lib.data import datasets

    return list(datasets.LOADERS)


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
    """Run a command; an error is one line."""
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
