"""The card of a localizer: where it locates, what it learnt from, how good it is beside plain kNN, what it is not for.

`evaluations` gives the numbers, of rows of the survey while they were held out, and `choices` a sentence on what was
chosen and whether plain kNN is better. The command prints both, and the card shows them.
"""

import datetime
import io
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import metrics
from lib.data.fingerprints import FingerprintSet
from lib.models.choosing import PLAIN_NEIGHBOURS, Choice
from lib.models.places import usual_range
from lib.use.localizer import CARD, MAP, Environment, HeldOut, Localizer
from lib.use.runtime import LABELS, LEVELS, radius_column

FEW_ROWS = 30  # held out, below which the errors are rough
DEVIATIONS = 3  # by which an observed coverage may differ from the promised one by chance
LISTED = 6  # names of devices that a sentence lists
MARGIN = 0.05  # of the extent, around the map
MAP_WIDTH, MAP_DPI = 6.0, 100  # inches a panel, and dots an inch
HELD_OUT = {  # by `folds.HOLD_OUT`
    "rows": "that row alone, not the others of its position",
    "positions": "all rows of its position",
    "devices": "all rows of its device and all rows of its position",
    "areas": "all rows of its square area",
}
HEADINGS = {
    "model": "model",
    "environment": "environment",
    "rows": "rows",
    "located": "located",
    "environment_hit": "right environment",
    "mean_m": "mean (m)",
    "median_m": "median (m)",
    "p75_m": "75 % within (m)",
    "p95_m": "95 % within (m)",
    "building_hit": "right building",
    "floor_hit": "right floor",
}


# === The numbers ===


def evaluations(localizer: Localizer, levels: Sequence[float] = LEVELS) -> list[dict]:
    """How good a localizer is on the rows that it was just given, each while it was held out, and plain kNN.

    Args:
        localizer: just fitted or updated, not loaded.
        levels: of the radii, each between 0 and 1.

    Returns:
        For each environment two rows with what `Localizer.evaluate` returns, after `model`: that of `localizer`, then
        that of `kNN`, which is told the environment, and has neither labels nor radii. A row's radius is that which the
        rows of the other folds calibrate.
    """
    evaluated = []
    for held_out in localizer.held_out:
        about = {"environment": held_out.rows.name, "rows": len(held_out.rows), "located": 1.0}
        ours = about | {"environment_hit": float(np.isfinite(held_out.error).mean())}
        ours |= metrics.summary(_finite(held_out.error)) | _hits(held_out)
        for level in levels:
            radius = held_out.radius(level)
            ours[f"coverage_{100 * level:g}"] = float((held_out.error <= radius).mean())
            ours[radius_column(level)] = float(np.median(radius))
        evaluated.append({"model": "localizer"} | ours)
        evaluated.append({"model": "kNN"} | about | metrics.summary(held_out.neighbours_error))
    return evaluated


def _finite(error: np.ndarray) -> np.ndarray:
    """Errors of what was located in the right environment, NaN if nothing was."""
    finite = error[np.isfinite(error)]
    return finite if len(finite) else np.array([np.nan])


def _hits(held_out: HeldOut) -> dict[str, float]:
    """Shares of the rows in the right environment whose building and floor is right, where they have any."""
    hit = np.isfinite(held_out.error)
    shares = {}
    for label in LABELS:
        true_label = getattr(held_out.rows, label)
        predicted_label = getattr(held_out.located, label)
        if true_label is not None and predicted_label is not None and hit.any():
            shares[f"{label}_hit"] = float(np.mean(predicted_label[hit] == true_label[hit]))
    return shares


def choices(localizer: Localizer) -> list[str]:
    """For each environment a sentence: what was chosen, of what, and if plain kNN is better, that it is.

    Args:
        localizer: see `evaluations`.

    Returns:
        Sentences with mean errors in metres, of held-out rows.
    """
    sentences = []
    unified = localizer.unified
    for held_out, choice, alternatives in zip(localizer.held_out, unified.choices, unified.alternatives, strict=True):
        sentences.append(f"{held_out.rows.name}: {_choice_and_errors(choice, alternatives)}")
    return sentences


def _choice_and_errors(choice: Choice, alternatives: Mapping[str, float]) -> str:
    """What `choices` says of one environment."""
    mean = {name: as_text("mean_m", metres) for name, metres in alternatives.items()}
    errors = f"network alone {mean['network alone']} m, votes of stored fingerprints alone {mean['votes alone']} m"
    if choice.share == 0:
        chosen = "the network alone"
    elif choice.share == 1:
        chosen = "the votes alone"
    else:
        chosen = f"together, the votes counting {choice.share:.0%}"
        errors += f", together {mean['together']} m"
    said = f"{errors}; plain kNN {mean['plain kNN']} m (mean errors of held-out rows). Chosen: {chosen}."
    if _neighbours_are_better(alternatives):
        said += f" Plain kNN is better here: {mean['plain kNN']} m against {mean['together']} m."
    return said


def _neighbours_are_better(alternatives: Mapping[str, float]) -> bool:
    """Whether plain kNN has a lower mean error than what was chosen; see `choosing.alternatives`."""
    return alternatives["plain kNN"] < alternatives["together"]


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


def files(localizer: Localizer, surveys: Sequence[FingerprintSet], rows: Sequence[Mapping]) -> dict[str, bytes]:
    """What `Localizer.save` takes as `card`: the card and its map.

    Args:
        localizer: see `evaluations`.
        surveys: that it was fitted on, one for each environment.
        rows: what `evaluations` returned.
    """
    picture = io.BytesIO()
    draw_map(localizer, surveys).savefig(picture, format="png", dpi=MAP_DPI, bbox_inches="tight")
    text = card(localizer, surveys, rows)
    return {CARD: text.encode(), MAP: picture.getvalue()}


def card(localizer: Localizer, surveys: Sequence[FingerprintSet], rows: Sequence[Mapping]) -> str:
    """The card as Markdown; it shows the map that lies beside it. For the arguments see `files`."""
    names = ", ".join(environment.name for environment in localizer.environments)
    versions = localizer.provenance["versions"]
    transmitters = f"{len(localizer.transmitters):,} transmitters"
    written = f"Written {datetime.date.today()}, seed {localizer.provenance['seed']}, Keras {versions['keras']}."
    sections = [
        f"# Localizer of {names}",
        f"It takes the levels in dBm at which a device hears {transmitters}, and gives a position in metres, with the "
        f"radii in which the device is with a given probability. {written}",
        "## Where it locates",
        _areas(surveys),
        f"![Survey points in grey; held-out scans, coloured by their error, the worst on top]({MAP})",
        "## What it learnt from",
        _survey(localizer, surveys),
        "## How good it is",
        _errors(rows),
        _notes_on_errors(localizer, surveys),
        "## What was chosen",
        "\n".join(f"- {sentence}" for sentence in choices(localizer)),
        _votes(localizer),
        "## How well its radii hold",
        _coverage(rows),
        "## What it is not for",
        _limits(localizer, surveys, rows),
    ]
    return "\n\n".join(sections) + "\n"


# === Sections ===


def _markdown(rows: Sequence[Mapping]) -> str:
    """A table; what a row lacks is empty."""
    return pd.DataFrame(rows).fillna("").to_markdown(index=False, disable_numparse=True)


def _areas(surveys: Sequence[FingerprintSet]) -> str:
    """A table of the extent, buildings and floors of each environment."""
    rows = []
    for fingerprints in surveys:
        low, high = usual_range(fingerprints.position)
        east, north = high - low
        row = {"environment": fingerprints.name, "east × north (m)": f"{east:,.0f} × {north:,.0f}"}
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


def _survey(localizer: Localizer, surveys: Sequence[FingerprintSet]) -> str:
    """A table of the rows, devices, dates and transmitters of each environment."""
    rows = []
    for environment, survey, held_out in zip(localizer.environments, surveys, localizer.held_out, strict=True):
        row = {
            "environment": environment.name,
            "file": str(environment.release),
            "learnt rows": f"{environment.learning_rows:,}",
            "of them located while held out": f"{len(held_out.rows):,}",
            "transmitters": f"{survey.heard.any(axis=0).sum():,}",
            "devices": _devices(survey),
            "dates": _dates(survey),
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


def _notes_on_errors(localizer: Localizer, surveys: Sequence[FingerprintSet]) -> str:
    """What the table of errors is of."""
    notes = [
        "Each of these rows was located while it was held out, by networks and stored fingerprints that had not seen "
        "it. The saved localizer has learnt all rows, and should err no more. kNN is the mean position of the "
        f"{PLAIN_NEIGHBOURS} nearest of the same stored fingerprints, by the Sørensen distance of powed RSSI."
    ]
    if len(localizer.environments) > 1:
        notes.append(
            "Errors of the localizer are of rows that it locates in the right environment. kNN is told the environment."
        )
    for survey, way in zip(surveys, localizer.held_out_by, strict=True):
        notes.append(f"In {survey.name}, held out with a row: {HELD_OUT[way]}.")
        scale = survey.frame.ground_scale
        if scale != 1:
            notes.append(f"In {survey.name}, a metre of this table is {scale:.2f} m on the ground.")
    return " ".join(notes)


def _votes(localizer: Localizer) -> str:
    """A table of how stored fingerprints vote in each environment."""
    rows = []
    for environment, choice in zip(localizer.environments, localizer.unified.choices, strict=True):
        row = {
            "environment": environment.name,
            "votes count": f"{choice.share:.0%}",
            "width of a vote (Sørensen distance)": f"{choice.width:g}",
            "exponent β of powed RSSI": f"{choice.exponent:.3g}",
            "compared at offsets of (dB)": ", ".join(f"{offset:g}" for offset in choice.offsets),
        }
        rows.append(row)
    return _markdown(rows)


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
                "environment": row["environment"],
                "promised": f"{level}%",
                "observed": f"{row[f'coverage_{level}']:.1%}",
                "median radius (m)": f"{row[f'radius_{level}']:,.2f}",
            }
            shown.append(line)
    return _markdown(shown)


# === Limits ===


def _limits(localizer: Localizer, surveys: Sequence[FingerprintSet], rows: Sequence[Mapping]) -> str:
    """A list of what the numbers do not promise."""
    lines = ["Other places. A scan from outside the map is put on the map, wherever the survey sounds most like it."]
    lines += _time_limits(surveys)
    alternatives = localizer.unified.alternatives
    of_localizer = _of_localizer(rows)
    for number, (survey, way) in enumerate(zip(surveys, localizer.held_out_by, strict=True)):
        lines += _floor_limits(survey)
        lines += _device_limits(survey, by_device=way == "devices")
        lines += _neighbour_limits(survey.name, alternatives[number])
        lines += _row_limits(localizer.environments[number], of_localizer[number])
    return "\n".join(f"- {line}" for line in lines)


def _time_limits(surveys: Sequence[FingerprintSet]) -> list[str]:
    """Access points change after the survey."""
    since = "after the survey"
    times = [survey.time for survey in surveys]
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


def _device_limits(survey: FingerprintSet, by_device: bool) -> list[str]:
    """Devices for which the numbers do not hold."""
    name = survey.name
    if survey.group is None:
        return [f"{name}: other devices. The survey does not name its devices; another one may hear other levels."]
    devices = np.unique(survey.group)
    if len(devices) == 1:
        return [
            f"{name}: other devices. One device made the whole survey ({devices[0]}); another one may hear other "
            "levels, and neither the errors nor the radii are known for it."
        ]
    if by_device:
        return [
            f"{name}: devices unlike those of the survey. Errors and radii are those of {len(devices)} devices, each "
            "while it was held out; few devices tell little of how devices differ."
        ]
    return [
        f"{name}: other devices and later months. Errors and radii are those of the survey's {len(devices)} devices. "
        "For others the errors are larger, and the radii hold less often; `fit --whole-devices` says how much."
    ]


def _neighbour_limits(name: str, alternatives: Mapping[str, float]) -> list[str]:
    """Whether plain kNN serves better."""
    if not _neighbours_are_better(alternatives):
        return []
    return [
        f"{name}: positions that must be as good as can be. Plain kNN has a mean error of "
        f"{alternatives['plain kNN']:,.2f} m on held-out rows, the localizer {alternatives['together']:,.2f} m."
    ]


def _row_limits(environment: Environment, of_localizer: Mapping) -> list[str]:
    """What the numbers of an environment warn of."""
    name = environment.name
    rows = of_localizer["rows"]
    lines = []
    if rows < FEW_ROWS:
        lines.append(f"{name}: fine comparisons. Only {rows} rows were held out, so that all numbers are rough.")
    for level in _levels(of_localizer):
        promised = float(level) / 100
        observed = of_localizer[f"coverage_{level}"]
        by_chance = np.sqrt(2 * promised * (1 - promised) / rows)
        if np.isinf(of_localizer[f"radius_{level}"]):
            lines.append(
                f"{name}: radii of {level} %. They are infinite: the {environment.calibration.rows} rows that set "
                "them are too few, or too many of these were located in another environment."
            )
        elif observed < promised - DEVIATIONS * by_chance:
            lines.append(f"{name}: radii of {level} %. Only {observed:.1%} of the held-out scans are within them.")
    return lines


# === The map ===


def draw_map(localizer: Localizer, surveys: Sequence[FingerprintSet]) -> Figure:
    """Survey points, and held-out scans coloured by their error: a panel for each environment, floors on one another.

    Args:
        localizer, surveys: see `files`.
    """
    shapes = [_shape(survey) for survey in surveys]
    height = MAP_WIDTH * max(shapes) + 1
    figure = Figure(figsize=(MAP_WIDTH * len(surveys), height), layout="compressed")
    panels = figure.subplots(1, len(surveys), squeeze=False)[0]
    for axis, survey, held_out in zip(panels, surveys, localizer.held_out, strict=True):
        _draw_area(axis, survey, held_out)
    return figure


def _shape(fingerprints: FingerprintSet) -> float:
    """Height of a panel by its width, between a quarter and 1.5: a corridor is not drawn as a line."""
    low, high = usual_range(fingerprints.position)
    east, north = np.maximum(high - low, 1.0)
    return float(np.clip(north / east, 0.25, 1.5))


def _draw_area(axis: Axes, survey: FingerprintSet, held_out: HeldOut) -> None:
    """One environment's panel; a scan that was located in another is as far as the farthest of the others."""
    points = np.unique(survey.position, axis=0)
    axis.scatter(*points.T, s=6, color="0.8", linewidth=0)
    title = f"{survey.name}: {len(held_out.rows):,} held-out scans; survey points in grey"
    farthest = _finite(held_out.error).max()
    error = np.minimum(held_out.error, farthest)
    worst_shown = np.percentile(error, 95, method="lower")
    colours = {"cmap": "viridis_r", "vmin": 0, "vmax": worst_shown}
    worst_last = np.argsort(error)  # scans of one position lie on one another
    position = held_out.rows.position[worst_last]
    dots = axis.scatter(*position.T, c=error[worst_last], s=12, linewidth=0, **colours)
    axis.figure.colorbar(dots, ax=axis, label="error (m)", extend="max")
    low, high = usual_range(survey.position)
    margin = MARGIN * max(*(high - low), 1.0)
    axis.set_xlim(low[0] - margin, high[0] + margin)
    axis.set_ylim(low[1] - margin, high[1] + margin)
    axis.set_aspect("equal")
    axis.set(xlabel="east (m)", ylabel="north (m)", title=title)
