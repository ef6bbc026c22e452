"""The card of a localizer: where it locates, what it learnt from, how good it is beside plain kNN, what it is not for.

`evaluations` gives the numbers, on rows that took no part in the fit. What the command prints and what the card says
are made of them.
"""

import datetime
import io
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import metrics
from lib.data.fingerprints import FingerprintSet, Scans
from lib.models.neighbours import NearestFingerprints
from lib.models.places import usual_range
from lib.use.localizer import CARD, MAP, Environment, Localizer
from lib.use.runtime import LABELS, LEVELS

NEIGHBOURS = 5  # of plain kNN
FEW_ROWS = 30  # held out, below which the errors are rough
DEVIATIONS = 3  # by which an observed coverage may differ from the promised one by chance
LISTED = 6  # names of devices that a sentence lists
MARGIN = 0.05  # of the extent, around the map
MAP_WIDTH, MAP_DPI = 6.0, 100  # inches a panel, and dots an inch
HEADINGS = {
    "model": "model",
    "environment": "area",
    "rows": "rows",
    "located": "located",
    "environment_hit": "right area",
    "mean_m": "mean (m)",
    "median_m": "median (m)",
    "p75_m": "75 % within (m)",
    "p95_m": "95 % within (m)",
    "building_hit": "right building",
    "floor_hit": "right floor",
}


# === The numbers ===


def evaluations(
    localizer: Localizer,
    learning: Sequence[FingerprintSet],
    held_out: Sequence[FingerprintSet],
    levels: Sequence[float] = LEVELS,
) -> list[dict]:
    """How good a localizer is on rows that took no part in the fit, and plain kNN on the same rows.

    Args:
        localizer: fitted.
        learning: rows that it was fitted on, those that calibrate it among them, one set for each environment.
        held_out: rows of the same environments.
        levels: of the radii, each between 0 and 1.

    Returns:
        For each environment two rows with what `Localizer.evaluate` returns, after `model`: that of `localizer`, then
        that of `kNN`, which is told the environment and has no radii.

    Raises:
        ValueError: see `Localizer.evaluate`.
    """
    rows = []
    for learning_rows, held_out_rows in zip(learning, held_out, strict=True):
        rows.append({"model": "localizer"} | localizer.evaluate(held_out_rows, levels))
        rows.append({"model": "kNN"} | nearest_neighbours(localizer, learning_rows, held_out_rows))
    return rows


def nearest_neighbours(localizer: Localizer, learning: FingerprintSet, held_out: FingerprintSet) -> dict:
    """How good plain kNN is, by the Sørensen distance of powed RSSI, on the held-out rows that the localizer locates.

    Args:
        localizer: fitted; it says which rows are located.
        learning: rows of one environment, which kNN stores.
        held_out: rows of the same environment.

    Returns:
        `environment`, `rows`, `located`, errors in metres of the frame, `building_hit` and `floor_hit` where there are
        any. NaN where no row is located.
    """
    stored = learning[learning.heard.any(axis=1)]
    neighbours = NearestFingerprints("sorensen", k=min(NEIGHBOURS, len(stored)))
    neighbours.fit([stored], [stored[:0]], seed=0)
    is_located = _is_located(localizer, held_out)
    asked = held_out[is_located]
    measured = {"environment": held_out.name, "rows": len(held_out), "located": float(is_located.mean())}
    if not len(asked):
        return measured | metrics.summary(np.array([np.nan]))
    located = neighbours.predict(asked.scans)
    measured |= metrics.summary(metrics.euclidean_errors(asked.position, located.position))
    for label in LABELS:
        true_label = getattr(asked, label)
        predicted_label = getattr(located, label)
        if true_label is not None and predicted_label is not None:
            measured[f"{label}_hit"] = float(np.mean(predicted_label == true_label))
    return measured


def _is_located(localizer: Localizer, fingerprints: FingerprintSet) -> np.ndarray:
    """(n,) bool: which rows hear a transmitter that the localizer knows."""
    rssi = fingerprints.scans.of(localizer.transmitters)
    return ~np.isnan(rssi).all(axis=1)


def as_text(name: str, value: float | int | str) -> str:
    """A value of an evaluation: a share in %, a number, or a name."""
    if name.endswith("_hit") or name.startswith(("located", "coverage")):
        return f"{value:.1%}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    return value


# === The files ===


def files(
    localizer: Localizer,
    learning: Sequence[FingerprintSet],
    held_out: Sequence[FingerprintSet],
    rows: Sequence[Mapping],
) -> dict[str, bytes]:
    """What `Localizer.save` takes as `card`: the card and its map.

    Args:
        localizer, learning, held_out: see `evaluations`.
        rows: what it returned.
    """
    picture = io.BytesIO()
    draw_map(localizer, learning, held_out).savefig(picture, format="png", dpi=MAP_DPI, bbox_inches="tight")
    text = card(localizer, learning, held_out, rows)
    return {CARD: text.encode(), MAP: picture.getvalue()}


def card(
    localizer: Localizer,
    learning: Sequence[FingerprintSet],
    held_out: Sequence[FingerprintSet],
    rows: Sequence[Mapping],
) -> str:
    """The card as Markdown; it shows the map that lies beside it.

    Args:
        localizer, learning, held_out: see `evaluations`.
        rows: what it returned.
    """
    names = ", ".join(environment.name for environment in localizer.environments)
    versions = localizer.provenance["versions"]
    transmitters = f"{len(localizer.transmitters):,} transmitters"
    written = f"Written {datetime.date.today()}, seed {localizer.provenance['seed']}, Keras {versions['keras']}."
    sections = [
        f"# Localizer of {names}",
        f"It takes the levels in dBm at which a device hears {transmitters}, and gives a position in metres, with the "
        f"radii in which the device is with a given probability. {written}",
        "## Where it locates",
        _areas(learning),
        f"![Survey points in grey; held-out scans, coloured by their error]({MAP})",
        "## What it learnt from",
        _survey(localizer, learning, held_out),
        "## How good it is",
        _errors(rows),
        _notes_on_errors(localizer, learning),
        "## How well its radii hold",
        _coverage(rows),
        "## What it is not for",
        _limits(localizer, learning, held_out, rows),
    ]
    return "\n\n".join(sections) + "\n"


# === Sections ===


def _markdown(rows: Sequence[Mapping]) -> str:
    """A table; what a row lacks is empty."""
    return pd.DataFrame(rows).fillna("").to_markdown(index=False, disable_numparse=True)


def _areas(learning: Sequence[FingerprintSet]) -> str:
    """A table of the extent, buildings and floors of each environment."""
    rows = []
    for fingerprints in learning:
        low, high = usual_range(fingerprints.position)
        east, north = high - low
        row = {"area": fingerprints.name, "east × north (m)": f"{east:,.0f} × {north:,.0f}"}
        corners = fingerprints.frame.to_degrees(np.array([low, high]))
        if np.isfinite(corners).all():
            (south, west), (top, right) = corners
            row["latitude"] = f"{south:.4f} to {top:.4f}"
            row["longitude"] = f"{west:.4f} to {right:.4f}"
        for label in LABELS:
            values = getattr(fingerprints, label)
            row[f"{label}s"] = "not told" if values is None else ", ".join(map(str, np.unique(values)))
        rows.append(row)
    return _markdown(rows)


def _survey(localizer: Localizer, learning: Sequence[FingerprintSet], held_out: Sequence[FingerprintSet]) -> str:
    """A table of the rows, devices, dates and transmitters of each environment."""
    rows = []
    for environment, own, others in zip(localizer.environments, learning, held_out, strict=True):
        row = {
            "area": environment.name,
            "file": str(environment.release),
            "rows that it learnt": f"{environment.learning_rows:,}",
            "that set its radii": f"{environment.calibration.rows:,}",
            "held out": f"{len(others):,}",
            "transmitters": f"{own.heard.any(axis=0).sum():,}",
            "devices": _devices(own),
            "dates": _dates(own),
        }
        rows.append(row)
    return _markdown(rows)


def _devices(fingerprints: FingerprintSet) -> str:
    """Names of the devices, or how many they are."""
    if fingerprints.group is None:
        return "unknown"
    names = np.unique(fingerprints.group)
    if len(names) > LISTED:
        return f"{len(names):,}"
    return ", ".join(map(str, names))


def _dates(fingerprints: FingerprintSet) -> str:
    """The first and the last day."""
    if fingerprints.time is None:
        return "unknown"
    days = pd.to_datetime(fingerprints.time)
    return f"{days.min():%Y-%m-%d} to {days.max():%Y-%m-%d}"


def _errors(rows: Sequence[Mapping]) -> str:
    """A table of errors, with a row for each model and environment."""
    shown = []
    for row in rows:
        shown.append({HEADINGS[name]: as_text(name, value) for name, value in row.items() if name in HEADINGS})
    return _markdown(shown)


def _notes_on_errors(localizer: Localizer, learning: Sequence[FingerprintSet]) -> str:
    """What the table of errors is of."""
    notes = [
        "The rows were held out: neither learnt from nor used for the radii. Errors are of those that are located in "
        f"the right area. kNN stores all other rows and takes the mean position of the {NEIGHBOURS} nearest by the "
        "Sørensen distance of powed RSSI."
    ]
    if len(localizer.environments) > 1:
        notes.append("It is told the area.")
    for fingerprints in learning:
        scale = fingerprints.frame.ground_scale
        if scale != 1:
            notes.append(f"In {fingerprints.name}, a metre of this table is {scale:.2f} m on the ground.")
    return " ".join(notes)


def _of_localizer(rows: Sequence[Mapping]) -> list[Mapping]:
    return [row for row in rows if row["model"] == "localizer"]


def _levels(row: Mapping) -> list[str]:
    """The levels of an evaluation's radii in %, as its names have them."""
    return [name.removeprefix("coverage_") for name in row if name.startswith("coverage_")]


def _coverage(rows: Sequence[Mapping]) -> str:
    """A table of how many scans should lie and do lie within the radii."""
    shown = []
    for row in _of_localizer(rows):
        for level in _levels(row):
            line = {
                "area": row["environment"],
                "promised": f"{level}%",
                "observed": f"{row[f'coverage_{level}']:.1%}",
                "median radius (m)": f"{row[f'radius_{level}']:,.2f}",
            }
            shown.append(line)
    return _markdown(shown)


# === Limits ===


def _limits(
    localizer: Localizer,
    learning: Sequence[FingerprintSet],
    held_out: Sequence[FingerprintSet],
    rows: Sequence[Mapping],
) -> str:
    """A list of what the numbers do not promise."""
    lines = ["Other places. A scan from outside the map is put on the map, wherever the survey sounds most like it."]
    lines += _time_limits(learning)
    environments = zip(localizer.environments, learning, held_out, strict=True)
    for number, (environment, own, others) in enumerate(environments):
        lines += _floor_limits(own)
        lines += _device_limits(own, others, by_device=_by_device(localizer, number))
        lines += _row_limits(environment, rows[2 * number], rows[2 * number + 1])
    return "\n".join(f"- {line}" for line in lines)


def _time_limits(learning: Sequence[FingerprintSet]) -> list[str]:
    """Access points change after the survey."""
    since = "after the survey"
    times = [fingerprints.time for fingerprints in learning]
    if all(time is not None for time in times):
        last = max(pd.to_datetime(time).max() for time in times)
        since = f"after the survey ({last:%Y-%m-%d})"
    return [f"Changed transmitters. Where access points were moved, exchanged or switched off {since}, survey again."]


def _floor_limits(fingerprints: FingerprintSet) -> list[str]:
    """Floors that it cannot tell."""
    name = fingerprints.name
    if fingerprints.floor is None:
        return [f"{name}: floors. The survey names none, so none is told."]
    lines = [f"{name}: floors without survey. A scan from such a floor is put on one of those above."]
    building = fingerprints.building
    if building is None:
        building = np.zeros(len(fingerprints), dtype=int)
    for number in np.unique(building):
        floors = np.unique(fingerprints.floor[building == number])
        between = np.arange(floors[0], floors[-1] + 1)
        missing = np.setdiff1d(between, floors)
        if len(missing):
            where = "" if fingerprints.building is None else f" of building {number}"
            lines.append(f"{name}: floor {', '.join(map(str, missing))}{where}, which was not surveyed.")
    return lines


def _by_device(localizer: Localizer, number: int) -> bool:
    """Whether all rows of some devices set the radii of an environment."""
    by_group = localizer.provenance["settings"].get("whole_groups", False)
    if np.ndim(by_group):
        return by_group[number]
    return by_group


def _device_limits(learning: FingerprintSet, held_out: FingerprintSet, by_device: bool) -> list[str]:
    """Devices for which the numbers do not hold."""
    name = learning.name
    if learning.group is None:
        return [f"{name}: other devices. The survey does not name its devices; another one may hear other levels."]
    devices = np.unique(learning.group)
    if len(devices) == 1:
        return [
            f"{name}: other devices. One device made the whole survey ({devices[0]}); another one may hear other "
            "levels, and neither the errors nor the radii are known for it."
        ]
    if by_device:
        new = np.setdiff1d(held_out.group, devices)
        return [
            f"{name}: devices unlike those of the survey. The radii are of whole devices that were not learnt, and the "
            f"errors of {len(new)} others; few devices tell little of how devices differ."
        ]
    return [
        f"{name}: other devices and later months. The radii are calibrated on random rows of the survey's "
        f"{len(devices)} devices, and the errors are of such rows, too. For other devices the errors are larger, and "
        "the radii hold less often; `fit --whole-devices` says how much."
    ]


def _row_limits(environment: Environment, of_localizer: Mapping, of_neighbours: Mapping) -> list[str]:
    """What the numbers of an environment warn of."""
    name = environment.name
    rows = of_localizer["rows"]
    lines = []
    if rows < FEW_ROWS:
        lines.append(f"{name}: fine comparisons. Only {rows} rows were held out, so that all numbers are rough.")
    if of_neighbours["median_m"] < of_localizer["median_m"]:
        lines.append(
            f"{name}: positions that must be as good as can be. Plain kNN has a median error of "
            f"{of_neighbours['median_m']:,.2f} m on the same rows, the localizer {of_localizer['median_m']:,.2f} m."
        )
    for level in _levels(of_localizer):
        promised = float(level) / 100
        observed = of_localizer[f"coverage_{level}"]
        by_chance = np.sqrt(promised * (1 - promised) * (1 / rows + 1 / environment.calibration.rows))
        if np.isinf(of_localizer[f"radius_{level}"]):
            lines.append(
                f"{name}: radii of {level} %. They are infinite: the {environment.calibration.rows} rows that set "
                "them are too few, or too many of these were located in another area."
            )
        elif observed < promised - DEVIATIONS * by_chance:
            lines.append(f"{name}: radii of {level} %. Only {observed:.1%} of the held-out scans are within them.")
    return lines


# === The map ===


def draw_map(localizer: Localizer, learning: Sequence[FingerprintSet], held_out: Sequence[FingerprintSet]) -> Figure:
    """Survey points, and held-out scans coloured by their error: a panel for each environment, floors on one another.

    Args:
        localizer, learning, held_out: see `evaluations`.
    """
    shapes = [_shape(fingerprints) for fingerprints in learning]
    height = MAP_WIDTH * max(shapes) + 1
    figure = Figure(figsize=(MAP_WIDTH * len(learning), height), layout="compressed")
    panels = figure.subplots(1, len(learning), squeeze=False)[0]
    for number, axis in enumerate(panels):
        _draw_area(axis, localizer, number, learning[number], held_out[number])
    return figure


def _shape(fingerprints: FingerprintSet) -> float:
    """Height of a panel by its width, between a quarter and 1.5: a corridor is not drawn as a line."""
    low, high = usual_range(fingerprints.position)
    east, north = np.maximum(high - low, 1.0)
    return float(np.clip(north / east, 0.25, 1.5))


def _draw_area(
    axis: Axes, localizer: Localizer, number: int, learning: FingerprintSet, held_out: FingerprintSet
) -> None:
    """One environment's panel."""
    asked = held_out[_is_located(localizer, held_out)]
    points = np.unique(learning.position, axis=0)
    axis.scatter(*points.T, s=6, color="0.8", linewidth=0)
    title = f"{learning.name}: {len(asked):,} held-out scans"
    if len(asked):
        error = _map_errors(localizer, number, asked)
        worst_shown = np.percentile(error, 95, method="lower")
        colours = {"cmap": "viridis_r", "vmin": 0, "vmax": worst_shown}
        dots = axis.scatter(*asked.position.T, c=error, s=12, linewidth=0, **colours)
        axis.figure.colorbar(dots, ax=axis, label="error (m)", extend="max")
    low, high = usual_range(learning.position)
    margin = MARGIN * max(*(high - low), 1.0)
    axis.set_xlim(low[0] - margin, high[0] + margin)
    axis.set_ylim(low[1] - margin, high[1] + margin)
    axis.set_aspect("equal")
    axis.set(xlabel="east (m)", ylabel="north (m)", title=title)


def _map_errors(localizer: Localizer, number: int, asked: FingerprintSet) -> np.ndarray:
    """(n,) metres, those of scans that were located in another environment as far as the farthest of the others."""
    located = localizer.predict(Scans(asked.rssi, asked.transmitters))
    error = metrics.euclidean_errors(asked.position, located.position)
    if located.environment is not None:
        hit = located.environment == number
        farthest = error[hit].max(initial=0.0)
        error[~hit] = farthest
    return error
