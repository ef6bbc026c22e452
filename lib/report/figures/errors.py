"""Where and when a model errs, and whether it knows: maps, groups of scans, and radii."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from lib.data.fingerprints import FingerprintSet
from lib.report.figures.style import band, environment_colour, panel_label, scans_label, side_by_side

LINES = {"spatial": ":"}  # protocols that are not drawn with a full line


# === Maps ===


def error_map(fingerprints: FingerprintSet, predicted: np.ndarray, plan: np.ndarray, title: str) -> Figure:
    """Each scan's true position and a line to where it was placed; floors side by side where there are any.

    Args:
        fingerprints: scans at known positions.
        predicted: (n, 2) local metres.
        plan: (m, 2) training positions, drawn in grey as the plan.
        title: of the figure.
    """
    true = fingerprints.position
    floors = [None]
    if fingerprints.floor is not None:
        floors = np.unique(fingerprints.floor)
    error = np.linalg.norm(predicted - true, axis=1)
    everywhere = np.concatenate([plan, true])
    low = everywhere.min(axis=0)
    high = everywhere.max(axis=0)
    east, north = high - low
    width = 8.5 if len(floors) == 1 else 3.6
    size = (width * len(floors), 1.3 + width * north / east)
    figure, axes = side_by_side(len(floors), size, sharex=True, sharey=True)
    figure.set_layout_engine("compressed")
    colours = {"cmap": "viridis_r", "vmin": 0, "vmax": np.percentile(error, 95)}
    scans = scans_label(fingerprints.name)
    for axis, floor in zip(axes, floors, strict=True):
        on_floor = np.full(len(fingerprints), True)
        name = ""
        if floor is not None:
            on_floor = fingerprints.floor == floor
            name = f"floor {floor}: "
        floor_error = error[on_floor]
        lines = np.stack([true[on_floor], predicted[on_floor]], axis=1)
        axis.scatter(*plan.T, s=3, color="0.85", linewidth=0)
        axis.add_collection(LineCollection(lines, colors="0.35", linewidths=0.5, alpha=0.6))
        dots = axis.scatter(*true[on_floor].T, c=floor_error, s=9, linewidth=0, zorder=3, **colours)
        axis.set(xlabel="east (m)", aspect="equal")
        mean = floor_error.mean()
        axis.set_title(f"{name}{len(floor_error):,} {scans}, mean {mean:.3g} m", fontsize=11)
    axes[0].set_ylabel("north (m)")
    axes[0].set_xlim(low[0], high[0])
    axes[0].set_ylim(low[1], high[1])
    figure.colorbar(dots, ax=axes, label="error (m)", extend="max", shrink=0.8)
    figure.suptitle(title, fontsize=13)
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
    size = (1 + 4.6 * len(errors), 4.2)
    figure, axes = side_by_side(len(errors), size)
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
        axis.set(xlabel=f"{grouping}; number of scans", ylim=(0, None))
        axis.tick_params(axis="x", labelsize=9)
    axes[0].set_ylabel("error (m); triangle: mean")
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
