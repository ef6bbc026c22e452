"""Where and when a model errs, and whether it knows: maps, groups of scans, and radii."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from lib.data.fingerprints import FingerprintSet
from lib.report.figures.style import (
    WIDTH,
    band,
    environment_colour,
    grid,
    grid_shape,
    panel_label,
    scans_label,
)

LINES = {"spatial": ":"}  # protocols that are not drawn with a full line
FLOORS, ARROWS = 2, 60  # floors of a map, and arrows on each: more could not be told apart
CELLS, FEWEST = 36, 3  # hexagons across a map of mean errors, and the fewest scans that one is coloured for


# === Maps ===


def error_map(fingerprints: FingerprintSet, predicted: np.ndarray, plan: np.ndarray, title: str) -> Figure:
    """Where a model errs, in ground metres: arrows from true to predicted positions, or the mean error by area.

    Scans with floors are drawn for the building and the two floors that have the most of them, with at most 60 arrows a
    floor, drawn at random. Scans without floors are too many for arrows: hexagons show the mean error of those within.

    Args:
        fingerprints: scans at known positions.
        predicted: (n, 2) local metres.
        plan: (m, 2) training positions, drawn in grey as the plan.
        title: of the figure.
    """
    scale = fingerprints.frame.ground_scale
    true = fingerprints.position * scale
    predicted = predicted * scale
    plan = plan * scale
    if fingerprints.floor is None:
        return _map_of_means(true, predicted, plan, f"{title}\nmean error by area", scans_label(fingerprints.name))
    within = np.full(len(fingerprints), True)
    if fingerprints.building is not None:
        building = _most_frequent(fingerprints.building, 1)[0]
        within = fingerprints.building == building
        title = f"{title}\nbuilding {building}; at most {ARROWS} arrows a floor, from true to predicted positions"
    floors = np.sort(_most_frequent(fingerprints.floor[within], FLOORS))
    low = true[within].min(axis=0) - 15
    high = true[within].max(axis=0) + 15
    east, north = high - low
    lines, columns = grid_shape(len(floors))
    size = (WIDTH, 1.2 + lines * (0.5 + 0.7 * WIDTH / columns * north / east))
    figure, axes = grid(len(floors), size, sharex=True, sharey=True)
    figure.set_layout_engine("compressed")
    error = np.linalg.norm(predicted - true, axis=1)
    for axis, floor in zip(axes, floors, strict=True):
        on_floor = np.flatnonzero(within & (fingerprints.floor == floor))
        dots = _draw_arrows(axis, true[on_floor], predicted[on_floor], plan, np.percentile(error[within], 95))
        scans = f"{len(on_floor):,} {scans_label(fingerprints.name)}"
        axis.set_title(f"floor {floor}: {scans}, mean {error[on_floor].mean():.3g} m", fontsize=11)
        axis.set(xlabel="east (m)", aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes[0].set_ylabel("north (m)")
    figure.colorbar(dots, ax=axes, label="error (m)", extend="max", shrink=0.8)
    figure.suptitle(title, fontsize=12)
    return figure


def _most_frequent(labels: np.ndarray, count: int) -> np.ndarray:
    """The labels that most scans have, the most frequent first."""
    values, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return values[order[:count]]


def _draw_arrows(axis: Axes, true: np.ndarray, predicted: np.ndarray, plan: np.ndarray, most: float) -> PathCollection:
    """Arrows of some scans, and a dot at the true position of each of them, coloured by its error."""
    picked = np.random.default_rng(0).permutation(len(true))[:ARROWS]
    true = true[picked]
    moved = predicted[picked] - true
    error = np.linalg.norm(moved, axis=1)
    axis.scatter(*plan.T, s=8, color="0.88", linewidth=0)
    arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.005, "headwidth": 4, "headlength": 4}
    axis.quiver(*true.T, *moved.T, color="0.25", zorder=3, **arrows)
    colours = {"cmap": "viridis_r", "vmin": 0, "vmax": most}
    return axis.scatter(*true.T, c=error, s=32, edgecolor="black", linewidth=0.4, zorder=4, **colours)


def _map_of_means(true: np.ndarray, predicted: np.ndarray, plan: np.ndarray, title: str, scans: str) -> Figure:
    """The mean error of the scans in each hexagon; smaller groups than `FEWEST` are left grey."""
    error = np.linalg.norm(predicted - true, axis=1)
    low = true.min(axis=0)
    high = true.max(axis=0)
    east, north = high - low
    rows = max(1, round(CELLS * north / east / 3**0.5))
    figure, axis = plt.subplots(figsize=(WIDTH, 1.2 + 0.68 * WIDTH * north / east))
    figure.set_layout_engine("compressed")
    axis.scatter(*plan.T, s=4, color="0.8", linewidth=0)
    cells = axis.hexbin(
        *true.T,
        C=error,
        reduce_C_function=np.mean,
        mincnt=FEWEST,
        gridsize=(CELLS, rows),
        extent=(low[0], high[0], low[1], high[1]),
        cmap="viridis_r",
        edgecolors="white",
        linewidths=0.3,
        zorder=2,
    )
    means = np.ma.compressed(cells.get_array())
    if len(means):
        cells.set_clim(0, np.percentile(means, 95))
    axis.set(xlabel="east (m)", ylabel="north (m)", aspect="equal")
    figure.colorbar(cells, ax=axis, label=f"mean error (m), {FEWEST} {scans} or more", extend="max", shrink=0.8)
    axis.set_title(f"{title}: {len(error):,} {scans}, mean {error.mean():.3g} m", fontsize=12)
    return figure


def scans_on_plan(fingerprints: FingerprintSet, estimates: pd.DataFrame, plan: np.ndarray, title: str) -> Figure:
    """Where scans were taken and where a localizer places them, with its radii.

    Args:
        fingerprints: scans at known positions.
        estimates: one row a scan, in their order: `located`, `x`, `y` and a column `radius_…` for each level.
        plan: (m, 2) training positions in metres, drawn in grey.
        title: of the figure.
    """
    radii = [name for name in estimates if name.startswith("radius_")]
    colour = environment_colour(fingerprints.name)
    figure, axis = plt.subplots(figsize=(9, 6.4))
    axis.scatter(*plan.T, s=3, color="0.8", linewidth=0, label="training positions")
    estimates = estimates.reset_index(drop=True)
    for number, estimate in estimates.iterrows():
        first = number == 0
        east, north = fingerprints.position[number]
        axis.plot(east, north, "x", color="black", label="true position" if first else "")
        if estimate["located"]:
            _draw_estimate(axis, (east, north), estimate, radii, colour, "estimate" if first else "")
    levels = " and ".join(name.removeprefix("radius_") for name in radii)
    axis.set(xlabel="east (m)", ylabel="north (m)", aspect="equal")
    axis.set_title(f"{title}; circles: {levels} %")
    axis.legend(fontsize=10)
    return figure


def _draw_estimate(
    axis: Axes, true: tuple[float, float], estimate: pd.Series, radii: Sequence[str], colour, label: str
) -> None:
    """One estimate, the line to it from the true position, and its radii."""
    place = (estimate["x"], estimate["y"])
    east, north = zip(true, place, strict=True)
    axis.plot(east, north, color="0.3", linewidth=1)
    axis.plot(*place, "o", color=colour, label=label)
    for name in radii:
        axis.add_patch(Circle(place, estimate[name], fill=False, color=colour, alpha=0.6))


# === Groups of scans ===


def errors_by(errors: Mapping[str, tuple[np.ndarray, Sequence]], title: str) -> Figure:
    """Errors of groups of scans as boxes from the 25th to the 75th percentile, whiskers from the 5th to the 95th.

    Args:
        errors: what groups the scans → (n,) errors in metres and (n,) groups. One panel each.
        title: of the figure.
    """
    lines, columns = grid_shape(len(errors))
    figure, axes = grid(len(errors), (WIDTH / 2 * columns, 0.4 + 3.4 * lines))
    for axis, grouping in zip(axes, errors, strict=True):
        error, groups = errors[grouping]
        table = pd.DataFrame({"error": error, "group": groups})
        boxes = []
        labels = []
        for group, values in table.groupby("group", observed=True)["error"]:
            boxes.append(values)
            labels.append(f"{group}\n{len(values):,}")
        axis.boxplot(
            boxes,
            whis=(5, 95),
            showfliers=False,
            showmeans=True,
            tick_labels=labels,
            medianprops={"color": "black"},
            meanprops={"markersize": 5},
        )
        axis.set(xlabel=f"{grouping}; number of scans", ylabel="error (m); triangle: mean", ylim=(0, None))
        axis.tick_params(axis="x", labelsize=9)
    figure.suptitle(title, fontsize=13)
    return figure


# === Radii ===


def reliability(coverage: pd.DataFrame) -> Figure:
    """Share of the test rows within the radius against its nominal level, one line a protocol.

    Args:
        coverage: rows of `environment`, `protocol`, `level` and `coverage`, the last two as fractions. Of several rows
            alike, as of several seeds, the line shows the mean and a band the lowest and highest.
    """
    figure, axis = plt.subplots(figsize=(6.4, 5.2))
    axis.plot([0, 100], [0, 100], color="0.5", linestyle="--", label="as promised")
    for key, rows in coverage.groupby(["environment", "protocol"], sort=False):
        environment, protocol = key
        percent = 100 * rows.groupby("level")["coverage"].agg(["min", "mean", "max"])
        levels = 100 * percent.index
        colour = environment_colour(environment)
        line = LINES.get(protocol, "-")
        axis.plot(levels, percent["mean"], label=panel_label(key), color=colour, linestyle=line, marker="o")
        band(axis, levels, percent["min"], percent["max"], colour)
    axis.set(xlabel="level of the radius (%)", ylabel="test rows within the radius (%)")
    axis.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    axis.legend(fontsize=10, title="mean, and lowest to highest", title_fontsize=10)
    return figure
