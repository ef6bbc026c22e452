"""How networks learn: curves, and what transfer saves."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from lib.metrics import confidence_half_width
from lib.report.figures.style import (
    PALETTE,
    band,
    by_protocol,
    environment_colour,
    environment_label,
    grid,
    grid_shape,
    panel_label,
    side_by_side,
)


def _curve(axis: Axes, curves: pd.DataFrame, column: str, colour, label: str, style: str = "-") -> None:
    """Mean of a column over seeds against the epoch, with the range between seeds as a band."""
    by_epoch = curves.groupby("epoch")[column]
    mean = by_epoch.mean()
    axis.plot(mean.index, mean, color=colour, linestyle=style, label=label)
    band(axis, mean.index, by_epoch.min(), by_epoch.max(), colour)


def learning_curves(curves: pd.DataFrame, labels: Mapping[str, str], title: str, validation: str) -> Figure:
    """RMSE on training and validation rows against the epoch (the paper's Figs. 3 and 4).

    Args:
        curves: columns `model, seed, epoch, rmse, val_rmse`.
        labels: model → its name in the legend, in the order to draw.
        title: of the figure.
        validation: what the validation rows are, for the legend.
    """
    figure, axis = plt.subplots(figsize=(10, 4.8))
    for colour, (model, label) in zip(PALETTE, labels.items(), strict=False):
        of_model = curves[curves["model"] == model]
        _curve(axis, of_model, "rmse", colour, f"{label}, training", "--")
        _curve(axis, of_model, "val_rmse", colour, f"{label}, {validation}")
    seeds = curves["seed"].nunique()
    axis.set_title(f"{title}\nmean over seeds ({seeds}); band: their range")
    axis.set(xlabel="epoch", ylabel="RMSE of normalised coordinates", yscale="log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:g}")

    axis.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def paired_seeds(paired: pd.DataFrame) -> Figure:
    """Error from scratch and with a transferred base model, one line a seed, one panel a protocol.

    Args:
        paired: columns `environment, protocol, seed, encoder_scratch, encoder_tl`, errors in metres.
    """
    panels = by_protocol(paired)
    size = (3.2 * len(panels), 4)
    figure, axes = side_by_side(len(panels), size)
    for axis, (key, panel) in zip(axes, panels, strict=True):
        environment, protocol = key
        for row in panel.itertuples():
            errors = [row.encoder_scratch, row.encoder_tl]
            axis.plot([0, 1], errors, marker="o", label=f"seed {row.seed}")
        axis.set_xticks([0, 1], ["from scratch", "transferred"])
        axis.set_xlim(-0.4, 1.4)
        axis.set_title(f"{environment_label(environment)}\n{protocol}")
    axes[0].set_ylabel("mean distance error on test rows (m)")
    axes[-1].legend(fontsize=9)
    return figure


def gains(rows: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """How much error each kind of start saves against starting from scratch: a dot a seed, the mean and its interval.

    Args:
        rows: columns `environment, protocol, model, seed, gain_percent`.
        labels: model → what its base model starts from, in the order to draw.
    """
    panels = by_protocol(rows)
    size = (3.4 + 3 * len(panels), 4)
    figure, axes = side_by_side(len(panels), size, sharey=True)
    for axis, (key, panel) in zip(axes, panels, strict=True):
        environment, protocol = key
        colour = environment_colour(environment)
        for height, model in enumerate(labels):
            of_model = panel[panel["model"] == model]
            values = of_model["gain_percent"].to_numpy(dtype=float)
            heights = np.full(len(values), height)
            axis.scatter(values, heights, s=14, color="0.5", zorder=2)
            half_width = confidence_half_width(values)
            axis.errorbar(values.mean(), height, xerr=half_width, fmt="o", color=colour, capsize=4, zorder=3)
        axis.axvline(0, color="black", linewidth=1)
        axis.set_title(f"{environment_label(environment)}\n{protocol}")
        axis.set_xlabel("error saved against scratch (%)")
    axes[0].set_yticks(range(len(labels)), labels.values())
    axes[0].invert_yaxis()
    seeds = rows["seed"].nunique()
    figure.suptitle(f"grey: {seeds} seeds; colour: their mean and its 95 % interval", fontsize=11)
    return figure


def error_by_share(rows: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Mean error against the share of the training rows, one line a model: mean over seeds, band: its 95 % interval.

    Args:
        rows: tidy results with a column `share`.
        names: model → its name in the legend.
    """
    panels = by_protocol(rows)
    lines, _ = grid_shape(len(panels))
    figure, axes = grid(len(panels), (13, 4.4 * lines))
    for axis, (key, panel) in zip(axes, panels, strict=True):
        for colour, (model, name) in zip(PALETTE, names.items(), strict=False):
            of_model = panel[panel["model"] == model]
            errors = of_model.groupby("share")["mean_m"]
            mean = errors.mean()
            half_width = errors.agg(confidence_half_width)
            percent = 100 * mean.index
            axis.plot(percent, mean, marker="o", color=colour, label=name)
            band(axis, percent, mean - half_width, mean + half_width, colour)
        axis.set(xlabel="share of the training rows (%)", ylabel="mean distance error (m)")
        axis.set(xscale="log", ylim=(0, None))
        axis.set_xticks(100 * np.unique(panel["share"]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter("{x:g}")
        release = panel["release"].iloc[0]
        axis.set_title(f"{panel_label(key)}\n{release}")
    seeds = rows["seed"].nunique()
    axes[0].legend(fontsize=10, title=f"95 % interval over seeds ({seeds})", title_fontsize=10)
    return figure
