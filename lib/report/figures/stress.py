"""How errors grow when scans are disturbed."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure


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
    size = (5 * columns, 3.8 * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False)
    for axis, (stress, panel) in zip(axes.flat, panels, strict=False):
        for model, name in names.items():
            line = panel[panel["model"] == model]
            if len(line):
                axis.plot(line["size"], line[value], marker="o", label=name)
        unit = panel["unit"].iloc[0]
        axis.set(xlabel=f"{stress} ({unit})", ylabel=label)
        axis.set_ylim(0, None)
    for unused in axes.flat[len(panels) :]:
        unused.remove()
    axes[0, 0].legend(fontsize=9)
    return figure
