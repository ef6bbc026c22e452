"""How errors grow when scans are disturbed."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.report.figures.style import WIDTH

# What a disturbance is, for the axis. One that is not listed is named as its rows name it.
AXES = {
    "transmitters that fail": "transmitters that fail",
    "the device reads more": "the device reads stronger by",
    "steps of the levels": "levels rounded to steps of",
    "noise": "standard deviation of noise",
    "by chance": "changed at random by at most",
    "PGD": "changed by an attacker by at most",
}


def stress_curves(
    rows: pd.DataFrame, names: Mapping[str, str], value: str, label: str, promised: float | None = None
) -> Figure:
    """A value against the size of a disturbance, one panel a disturbance, one line a model, all on one scale.

    Args:
        rows: `stress`, `unit`, `size`, `model` and the value.
        names: model → its name in the legend.
        value, label: the column, and its name on the axis.
        promised: a value that a dashed line shows, as the level of a radius in percent; the axis then ends at 100 and
            starts a little below the lowest value. None: it starts at 0.
    """
    panels = list(rows.groupby("stress", sort=False))
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    size = (WIDTH, 0.6 + 3.1 * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, sharey=True)
    for axis, (stress, panel) in zip(axes.flat, panels, strict=False):
        for model, name in names.items():
            line = panel[panel["model"] == model]
            if len(line):
                axis.plot(line["size"], line[value], marker="o", label=name)
        if promised is not None:
            axis.axhline(promised, color="black", linewidth=1.5, linestyle="--", label=f"promised: {promised:g} %")
        unit = panel["unit"].iloc[0]
        axis.set_xlabel(f"{AXES.get(stress, stress)} ({unit})")
    for line in axes:
        line[0].set_ylabel(label)
    for unused in axes.flat[len(panels) :]:
        unused.remove()
    limits = (0, None)
    if promised is not None:
        lowest = min(promised, rows[value].min())
        limits = (10 * np.floor((lowest - 5) / 10), 100)
    axes[0, 0].set_ylim(*limits)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=11, frameon=False)
    return figure
