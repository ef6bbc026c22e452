"""How networks learn: curves, and what transfer saves."""

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from lib.metrics import confidence_half_width
from lib.report.figures.style import (
    PALETTE,
    WIDTH,
    band,
    by_protocol,
    environment_colour,
    environment_label,
    grid,
    grid_shape,
    panel_label,
    side_by_side,
)
from lib.report.numbers import measured

HALF_PAGE = (5.6, 4.4)  # inches: two of them stand side by side


def _curve(axis: Axes, curves: pd.DataFrame, column: str, colour, style: str) -> None:
    """Mean of a column over seeds against the epoch, with the range between seeds as a band."""
    by_epoch = curves.groupby("epoch")[column]
    mean = by_epoch.mean()
    axis.plot(mean.index, mean, color=colour, linestyle=style)
    band(axis, mean.index, by_epoch.min(), by_epoch.max(), colour)


def learning_curves(curves: pd.DataFrame, labels: Mapping[str, str], title: str, validation: str) -> Figure:
    """RMSE on training and validation rows against the epoch (the paper's Figs. 3 and 4).

    Args:
        curves: columns `model, seed, epoch, rmse, val_rmse`.
        labels: model → its name in the legend, in the order to draw.
        title: of the figure.
        validation: what the validation rows are, for the legend.
    """
    figure, axis = plt.subplots(figsize=HALF_PAGE)
    handles = []
    for colour, (model, label) in zip(PALETTE, labels.items(), strict=False):
        of_model = curves[curves["model"] == model]
        _curve(axis, of_model, "rmse", colour, "--")
        _curve(axis, of_model, "val_rmse", colour, "-")
        handles.append(Line2D([], [], color=colour, linewidth=3, label=label))
    handles.append(Line2D([], [], color="0.3", linestyle="--", label="training"))
    handles.append(Line2D([], [], color="0.3", label=validation))
    seeds = curves["seed"].nunique()
    heading = textwrap.fill(title, 46, break_on_hyphens=False)
    axis.set_title(f"{heading}\nmean of {seeds} seed(s); band: their range", fontsize=12)
    axis.set(xlabel="epoch", ylabel="RMSE of scaled coordinates (no unit)", yscale="log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend(handles=handles, fontsize=11, loc="upper right", ncols=2, columnspacing=1)
    return figure


def paired_seeds(paired: pd.DataFrame) -> Figure:
    """Error from scratch and with a transferred base model, one line a seed, one panel a protocol.

    Errors are in percent of the mean from scratch, so that one axis does for all panels; titles have the metres.

    Args:
        paired: columns `environment, protocol, seed, encoder_scratch, encoder_tl`, errors in metres.
    """
    panels = by_protocol(paired)
    figure, axes = side_by_side(len(panels), (WIDTH, 4), sharey=True)
    for axis, (key, panel) in zip(axes, panels, strict=True):
        environment, protocol = key
        scratch = panel["encoder_scratch"].mean()
        transferred = panel["encoder_tl"].mean()
        for row in panel.itertuples():
            errors = np.array([row.encoder_scratch, row.encoder_tl])
            axis.plot([0, 1], 100 * errors / scratch, marker="o", label=f"seed {row.seed}")
        axis.set_xticks([0, 1], ["from\nscratch", "trans-\nferred"])
        axis.set_xlim(-0.3, 1.3)
        means = f"{measured(scratch)} → {measured(transferred)} m"
        axis.set_title(f"{environment_label(environment)}\n{protocol}\n{means}", fontsize=11)
        axis.set_xlabel("base model")
    axes[0].set_ylabel("mean error on test rows\n(% of the mean from scratch)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=11, frameon=False)
    return figure


def gains(rows: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """How much error each kind of start saves against starting from scratch: a dot a seed, the mean and its interval.

    Args:
        rows: columns `environment, protocol, model, seed, gain_percent`.
        labels: model → what its base model starts from, in the order to draw.
    """
    panels = by_protocol(rows)
    size = (WIDTH, 1.6 + 0.42 * len(labels))
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
    axes[0].set_ylabel("base model starts from")
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
    figure, axes = grid(len(panels), (WIDTH, 3.8 * lines))
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
        axis.set_title(f"{panel_label(key)}\n{release}", fontsize=11)
    seeds = rows["seed"].nunique()
    axes[0].legend(fontsize=10, title=f"95 % interval over seeds ({seeds})", title_fontsize=10)
    return figure
