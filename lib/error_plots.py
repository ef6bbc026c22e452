"""Where and when a model errs, and what each step of its design is worth: the figures of the unified network."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from lib.fingerprints import FingerprintSet
from lib.metrics import confidence_half_width
from lib.plots import COLOURS, ENVIRONMENTS, SCANS, beside, by_protocol, measured

LINES = {"official": "-", "random": "-", "spatial": ":"}


def ablation(rows: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Mean error after each step of a design, one panel a protocol: mean over seeds and its 95 % interval.

    Args:
        rows: tidy results of validation rows.
        names: model → the step's name, from the first to the last.
    """
    panels = by_protocol(rows)
    size = (2.5 + 4.6 * len(panels), 1.4 + 0.42 * len(names))
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, ((environment, protocol), panel) in zip(axes[0], panels, strict=True):
        errors = panel.groupby("model")["mean_m"].agg(["mean", confidence_half_width]).reindex(list(names))
        height = np.arange(len(names))
        style = {"fmt": "o", "color": COLOURS[environment], "ecolor": "0.6", "elinewidth": 4, "capsize": 0}
        axis.errorbar(errors["mean"], height, xerr=errors["confidence_half_width"], **style)
        for y, mean in zip(height, errors["mean"], strict=True):
            beside(axis, 8, y, "" if np.isnan(mean) else measured(mean, np.nan))
        axis.set(xlabel="mean distance error (m), validation rows", ylim=(len(names) - 0.5, -0.5))
        axis.set_title(f"{ENVIRONMENTS[environment]}, {protocol}", fontsize=12)
    axes[0, 0].set_yticks(np.arange(len(names)), list(names.values()))
    return figure


def error_map(data: FingerprintSet, predicted: np.ndarray, plan: np.ndarray, title: str) -> Figure:
    """Each scan's true position and a line to where it was placed; floors side by side where there are any.

    Args:
        data: scans whose positions are known.
        predicted: (n, 2) local metres.
        plan: (m, 2) training positions, drawn in grey as the plan.
        title: of the figure.
    """
    floors = [None] if data.floor is None else np.unique(data.floor)
    error = np.linalg.norm(predicted - data.position, axis=1)
    most = np.percentile(error, 95)
    low, high = (f(np.concatenate([plan, data.position]), axis=0) for f in (np.min, np.max))
    east, north = high - low
    wide = 8.5 if len(floors) == 1 else 3.6
    size = (wide * len(floors), 1.3 + wide * north / east)
    figure, axes = plt.subplots(1, len(floors), figsize=size, sharex=True, sharey=True, squeeze=False)
    figure.set_layout_engine("compressed")
    for axis, floor in zip(axes[0], floors, strict=True):
        here = np.full(len(data), True) if floor is None else data.floor == floor
        lines = np.stack([data.position[here], predicted[here]], axis=1)
        axis.scatter(*plan.T, s=3, color="0.85", linewidth=0)
        axis.add_collection(LineCollection(lines, colors="0.35", linewidths=0.5, alpha=0.6))
        style = {"c": error[here], "cmap": "viridis_r", "vmin": 0, "vmax": most, "s": 9, "linewidth": 0}
        dots = axis.scatter(*data.position[here].T, zorder=3, **style)
        axis.set(xlabel="east (m)", aspect="equal")
        name = "" if floor is None else f"floor {floor}: "
        axis.set_title(
            f"{name}{here.sum():,} {SCANS.get(data.name, 'scans')}, mean {error[here].mean():.3g} m", fontsize=11
        )
    axes[0, 0].set(ylabel="north (m)", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    figure.colorbar(dots, ax=axes[0].tolist(), label="error (m)", extend="max", shrink=0.8)
    figure.suptitle(title, fontsize=13)
    return figure


def errors_by(errors: Mapping[str, tuple[np.ndarray, Sequence]], title: str) -> Figure:
    """Errors of groups of scans as boxes from the 25th to the 75th percentile, whiskers from the 5th to the 95th.

    Args:
        errors: what groups the scans → (n,) errors in metres and (n,) groups. One panel each.
        title: of the figure.
    """
    figure, axes = plt.subplots(1, len(errors), figsize=(1 + 4.6 * len(errors), 4.2), squeeze=False)
    for axis, (by, (error, group)) in zip(axes[0], errors.items(), strict=True):
        table = pd.DataFrame({"error": error, "group": group}).groupby("group", observed=True)["error"]
        parts, labels = zip(*[(values, f"{name}\n{len(values):,}") for name, values in table], strict=True)
        style = {"whis": (5, 95), "showfliers": False, "showmeans": True, "tick_labels": labels}
        axis.boxplot(parts, medianprops={"color": "black"}, meanprops={"markersize": 5}, **style)
        axis.set(xlabel=f"{by}; number of scans", ylim=(0, None))
        axis.tick_params(axis="x", labelsize=9)
    axes[0, 0].set_ylabel("error (m); triangle: mean")
    figure.suptitle(title, fontsize=13)
    return figure


def reliability(coverage: pd.DataFrame) -> Figure:
    """Share of the test rows within the radius against the level that it promises, one line a protocol.

    Args:
        coverage: rows of `environment`, `protocol`, `level` and `coverage`, the last two as fractions. Of several rows
            alike, as of several seeds, the line shows the mean and a band the lowest and highest.
    """
    figure, axis = plt.subplots(figsize=(6.4, 5.2))
    axis.plot([0, 100], [0, 100], color="0.5", linestyle="--", label="as promised")
    for (environment, protocol), rows in coverage.groupby(["environment", "protocol"], sort=False):
        line = 100 * rows.groupby("level")["coverage"].agg(["min", "mean", "max"])
        style = {"color": COLOURS[environment], "linestyle": LINES.get(protocol, "-"), "marker": "o"}
        axis.plot(100 * line.index, line["mean"], label=f"{ENVIRONMENTS[environment]}, {protocol}", **style)
        axis.fill_between(100 * line.index, line["min"], line["max"], color=style["color"], alpha=0.15, linewidth=0)
    axis.set(xlabel="level of the radius (%)", ylabel="test rows within the radius (%)", xlim=(0, 100), ylim=(0, 100))
    axis.set_aspect("equal")
    axis.legend(fontsize=10, title="mean, and lowest to highest", title_fontsize=10)
    return figure


def scans_on_plan(data: FingerprintSet, told: pd.DataFrame, plan: np.ndarray, title: str) -> Figure:
    """Where scans were taken and where a localizer places them, with its radii.

    Args:
        data: scans whose positions are known.
        told: what `Localizer.predict` says of them, in their order.
        plan: (m, 2) training positions in metres, drawn in grey.
        title: of the figure.
    """
    radii = [name for name in told if name.startswith("radius_")]
    figure, axis = plt.subplots(figsize=(9, 6.4))
    axis.scatter(*plan.T, s=3, color="0.8", linewidth=0, label="training positions")
    for number, (true, (_, here)) in enumerate(zip(data.position, told.iterrows(), strict=True)):
        axis.plot(*true, "x", color="black", label="true position" * (number == 0))
        if here["located"]:
            place = (here["x"], here["y"])
            axis.plot(*zip(true, place, strict=True), color="0.3", linewidth=1)
            axis.plot(*place, "o", color=COLOURS[data.name], label="estimate" * (number == 0))
            for name in radii:
                axis.add_patch(Circle(place, here[name], fill=False, color=COLOURS[data.name], alpha=0.6))
    levels = " and ".join(name.removeprefix("radius_") for name in radii)
    axis.set(xlabel="east (m)", ylabel="north (m)", aspect="equal")
    axis.set_title(f"{title}; circles: {levels} %", fontsize=12)
    axis.legend(fontsize=10)
    return figure


def stress_curves(rows: pd.DataFrame, names: Mapping[str, str], value: str, label: str) -> Figure:
    """A value against the size of a disturbance, one panel a disturbance, one line a model.

    Args:
        rows: `stress`, `unit`, `size`, `model` and the value.
        names: model → its name in the legend.
        value, label: the column, and its name on the axis.
    """
    panels = list(rows.groupby("stress", sort=False))
    columns = 2 if len(panels) in (2, 4) else 3
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(5 * columns, 3.8 * lines), squeeze=False)
    for axis, (stress, panel) in zip(axes.flat, panels, strict=False):
        for model, name in names.items():
            line = panel[panel["model"] == model]
            if len(line):
                axis.plot(line["size"], line[value], marker="o", label=name)
        axis.set(xlabel=f"{stress} ({panel['unit'].iloc[0]})", ylabel=label)
        axis.set_ylim(0, None)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    axes[0, 0].legend(fontsize=9)
    return figure
