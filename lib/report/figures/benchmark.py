"""Models side by side: mean errors, their distributions, and what each step of a design is worth."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, StrMethodFormatter
from pandas.api.typing import SeriesGroupBy

from lib.metrics import confidence_half_width
from lib.report.figures.style import (
    PALETTE,
    WIDTH,
    beside,
    by_protocol,
    environment_colour,
    panel_label,
    side_by_side,
)
from lib.report.numbers import SENTENCE, measured, plus_minus
from lib.report.results import has_ground_metres

FAMILIES = [*PALETTE[:3], PALETTE[4], (0.1, 0.1, 0.1), PALETTE[9]]  # the last families stand apart from the others
MARKERS = "osD^vPX*"
RATIO_TICKS = (0.5, 0.6, 0.8, 1, 1.2, 1.5, 2, 3, 4, 6, 10)
PUBLISHED = "firebrick"
# Points from the right edge of a panel to the two columns of figures beside it.
MEAN_COLUMN, PUBLISHED_COLUMN = 6, 76
LINE_COLOURS = [*PALETTE[:3], PALETTE[4], PALETTE[9]]
STYLES = ["-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2))]  # of lines that lie close to each other


# === Mean errors of all models ===


def forest(
    rows: pd.DataFrame,
    names: Mapping[str, str],
    families: Mapping[str, str],
    quoted: Mapping[tuple[str, str], Mapping[str, float]],
    reference: str,
) -> Figure:
    """Mean error of every model under every protocol, one line a model, with 95 % intervals and published values.

    In ground metres, published values too, where the rows have a column `ground_m`. The panels of an environment share
    a line for each model that was run in it. A mean of more than twice the median model's is an arrow at the edge of
    its panel; the figures beside say how much.

    Args:
        rows: tidy results.
        names: model → its name on the axis, in the order of the lines: models of a family together.
        families: model → its family, which gives the colour; six at most.
        quoted: (environment, protocol) → model → published mean error in metres. A model that is not among the names
            was not run: a note under the panel has its value, and a diamond on the axis.
        reference: the model at whose mean a vertical line is drawn.
    """
    models_run = set(rows["model"])
    families_run = list(dict.fromkeys(families[model] for model in names if model in models_run))
    colours = dict(zip(families_run, FAMILIES, strict=False))
    value = "ground_m" if has_ground_metres(rows) else "mean_m"
    by_environment = {}
    for key, panel in by_protocol(rows):
        by_environment.setdefault(key[0], []).append((key, panel))
    columns = max(map(len, by_environment.values()))
    heights = []
    for panels in by_environment.values():
        models_here = {model for _, panel in panels for model in panel["model"]}
        family = {model: families[model] for model in names if model in models_here}
        heights.append(_heights(family))
    bottoms = [max(height.values()) for height in heights]
    figure, axes = plt.subplots(
        len(by_environment),
        columns,
        figsize=(2.3 + 4.1 * columns, 1 + sum(1.5 + 0.24 * bottom for bottom in bottoms)),
        height_ratios=[5 + bottom for bottom in bottoms],
        squeeze=False,
    )
    for line, panels, height in zip(axes, by_environment.values(), heights, strict=True):
        for axis, (key, panel) in zip(line, panels, strict=False):
            ground_scale = (panel[value] / panel["mean_m"]).mean()
            published = pd.Series(quoted.get(key, {}), dtype=float) * ground_scale
            by_model = panel.groupby("model")[value]
            colour = {model: colours[families[model]] for model in height}
            _draw_panel(axis, by_model, height, colour, published, reference)
            axis.set_xlabel("mean error (ground metres)" if value == "ground_m" else "mean error (m)", fontsize=10)
            axis.set_title(f"{panel_label(key)}\n{panel['release'].iloc[0]}", loc="left", fontsize=10)
            axis.set_yticks(list(height.values()), [""] * len(height))
        line[0].set_yticks(list(height.values()), [names[model] for model in height])
        for unused in line[len(panels) :]:
            unused.remove()
    published_label = "published, on other rows"
    if value == "ground_m":
        published_label = f"{published_label},\nconverted to ground metres"
    handles = _legend_handles(colours, names[reference], published_label)
    figure.legend(handles=handles, loc="outside lower center", ncol=3, fontsize=10, frameon=False)
    return figure


def _draw_panel(
    axis: Axes,
    by_model: SeriesGroupBy,
    height: Mapping[str, float],
    colour: Mapping[str, tuple],
    published: pd.Series,
    reference: str,
) -> None:
    """The models of one environment and protocol.

    Args:
        axis: the panel.
        by_model: errors in metres of each model's runs.
        height, colour: of each model's line.
        published: errors in metres by model.
        reference: the model at whose mean a vertical line is drawn.
    """
    bottom = max(height.values()) + 0.8
    means = by_model.mean()
    half_widths = by_model.agg(confidence_half_width)
    usual = means[means <= 2 * means.median()]
    edge = 1.1 * max([*usual, *published])
    for model, mean in means.items():
        _draw_model(axis, height[model], mean, half_widths[model], edge, colour[model])
    not_run = []
    diamond = {"markersize": 7, "markerfacecolor": "none", "color": PUBLISHED, "clip_on": False}
    for model, error in published.items():
        shown = measured(error)
        if model in height:
            axis.plot(error, height[model], "D", **diamond)
            beside(axis, PUBLISHED_COLUMN, height[model], shown, PUBLISHED)
        else:
            axis.plot(error, bottom, "D", **diamond)
            not_run.append(f"published, not run here:\n{model}, {shown} m")
    beside(axis, MEAN_COLUMN, -0.4, "measured")
    if len(published):
        beside(axis, PUBLISHED_COLUMN, -0.4, "published", PUBLISHED)
    axis.axvline(means[reference], color="0.4", linewidth=1, linestyle="--", zorder=0)
    axis.set_ylim(bottom, -0.8)
    axis.tick_params(labelsize=10)
    below = {"xytext": (0, -46), "xycoords": "axes fraction", "textcoords": "offset points"}
    axis.annotate("\n".join(not_run), (0, 0), va="center", fontsize=9, color=PUBLISHED, **below)
    axis.grid(visible=False, axis="y")


def _heights(family: Mapping[str, str]) -> dict[str, float]:
    """Model → height of its line, with half a line between families."""
    heights = {}
    gaps = 0
    previous = None
    for number, (model, name) in enumerate(family.items()):
        if name != previous:
            gaps += 1
        heights[model] = number + 0.5 * gaps
        previous = name
    return heights


def _draw_model(axis: Axes, height: float, mean: float, half_width: float, edge: float, colour) -> None:
    """A model's mean and interval, or an arrow where the mean is beyond the edge."""
    style = {"color": colour, "solid_capstyle": "butt"}
    if mean > edge:
        axis.plot(edge, height, ">", markersize=8, **style)
    else:
        interval = [mean - half_width, mean + half_width]
        axis.plot(interval, [height, height], linewidth=5, alpha=0.4, **style)
        axis.plot(mean, height, "o", markersize=6, **style)
    beside(axis, MEAN_COLUMN, height, plus_minus(mean, half_width, SENTENCE))


def _legend_handles(colours: Mapping[str, tuple], reference: str, published: str) -> list[Line2D]:
    """What colours of families, and the other marks of `forest`, mean."""
    handles = []
    for name, colour in colours.items():
        handles.append(Line2D([], [], color=colour, marker="o", label=name))
    diamond = {"marker": "D", "markerfacecolor": "none", "linestyle": ""}
    handles.append(Line2D([], [], color=PUBLISHED, label=published, **diamond))
    handles.append(Line2D([], [], color="0.4", linestyle="--", label=reference))
    handles.append(Line2D([], [], color="0.4", linewidth=5, alpha=0.4, label="95 % interval over seeds"))
    return handles


# === Mean errors as multiples of the best baseline's ===


def ratios(table: pd.DataFrame, names: Mapping[str, str], baselines: Sequence[str]) -> Figure:
    """Mean error of every model as a multiple of the best baseline's, one line an environment and protocol.

    Args:
        table: from `statistics.ratios_to_best`.
        names: model → its name in the legend; eight at most.
        baselines: the models that are drawn in grey.
    """
    panels = by_protocol(table)
    figure, axis = plt.subplots(figsize=(WIDTH, 2 + 0.55 * len(panels)))
    marks = _marks_of_models(table, names, baselines)
    for height, (_, panel) in enumerate(panels):
        _draw_ratios(axis, height, panel.set_index("model"), marks)
        best, best_m = panel.iloc[0][["best", "best_m"]]
        beside(axis, MEAN_COLUMN, height, f"{names[best]}, {measured(best_m)} m")
    beside(axis, MEAN_COLUMN, -0.75, "the best baseline")
    axis.axvline(1, color="0.4", linewidth=1, zorder=0)
    for height in range(1, len(panels)):
        axis.axhline(height - 0.5, color="0.85", linewidth=1, zorder=0)
    _log_ticks(axis)
    axis.set(xlabel="mean error / that of the best baseline (95 % interval)", ylim=(len(panels) - 0.4, -0.6))
    axis.set_yticks(range(len(panels)), [panel_label(key) for key, _ in panels])
    axis.grid(visible=False, axis="y")
    handles = []
    for model, mark in marks.items():
        handles.append(Line2D([], [], label=names[model], **mark))
    figure.legend(handles=handles, loc="outside lower center", ncol=4, fontsize=10, frameon=False)
    return figure


def _marks_of_models(table: pd.DataFrame, names: Mapping[str, str], baselines: Sequence[str]) -> dict[str, dict]:
    """Model → how its mark is drawn, for those that the table has."""
    present = [model for model in names if model in set(table["model"])]
    marks = {}
    for number, model in enumerate(present):
        colour = "0.55" if model in baselines else FAMILIES[number % len(FAMILIES)]
        marker = MARKERS[number % len(MARKERS)]
        marks[model] = {"color": colour, "marker": marker, "markersize": 8, "linestyle": ""}
    return marks


def _draw_ratios(axis: Axes, height: float, by_model: pd.DataFrame, marks: Mapping[str, dict]) -> None:
    """The marks and intervals of one environment's models, one below the other."""
    offsets = np.linspace(-0.3, 0.3, len(marks))
    for (model, mark), offset in zip(marks.items(), offsets, strict=True):
        if model in by_model.index:
            line = by_model.loc[model]
            at = height + offset
            axis.plot([line["low"], line["high"]], [at, at], color=mark["color"], linewidth=3, alpha=0.4)
            axis.plot(line["ratio"], at, **mark)


def _log_ticks(axis: Axes) -> None:
    """A logarithmic axis with plain numbers."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(RATIO_TICKS))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


# === Distributions ===


def error_cdf(
    errors: Mapping[str, np.ndarray],
    xlabel: str,
    title: str,
    xlimit: float | None = None,
    highlighted: Sequence[str] | None = None,
) -> Figure:
    """Cumulative distribution of localization errors (the paper's Fig. 5), one line a model.

    Args:
        errors: model's name → errors in metres.
        xlabel, title, xlimit: of the axis.
        highlighted: the names to colour and label where there are many; the other lines are grey. None: all. The last
            of them, which the figure is about, is black.
    """
    if highlighted is None:
        highlighted = list(errors)
    grey = [label for label in errors if label not in highlighted]
    figure, axis = plt.subplots(figsize=(WIDTH, 5))
    for number, label in enumerate(highlighted):
        values = errors[label]
        summary = f"mean {np.mean(values):.3g}, median {np.median(values):.3g}"
        is_last = number == len(highlighted) - 1
        style = {"color": "black", "linewidth": 3}
        if not is_last:
            style = {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "linestyle": STYLES[number % len(STYLES)]}
        axis.ecdf(values, label=f"{label} ({summary})", zorder=3, **style)
    shared_label = f"{len(grey)} others"
    for label in grey:
        axis.ecdf(errors[label], color="0.8", linewidth=1, label=shared_label)
        shared_label = ""
    axis.set(xlabel=xlabel, ylabel="share of test rows with at most this error", title=title)
    axis.set(ylim=(0, 1), xlim=(0, xlimit))
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.legend(loc="lower right", fontsize=11)
    return figure


# === Steps of a design ===


def ablation(rows: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Mean error after each step of a design, one panel a protocol: mean over seeds and its 95 % interval.

    Args:
        rows: tidy results of validation rows.
        names: model → the step's name, from the first to the last.
    """
    panels = by_protocol(rows)
    size = (3 + (WIDTH - 3) / 2 * max(2, len(panels)), 1.4 + 0.3 * len(names))
    figure, axes = side_by_side(len(panels), size, sharey=True)
    heights = np.arange(len(names))
    for axis, (key, panel) in zip(axes, panels, strict=True):
        by_model = panel.groupby("model")["mean_m"]
        means = by_model.mean().reindex(list(names))
        half_widths = by_model.agg(confidence_half_width).reindex(list(names))
        colour = environment_colour(key[0])
        axis.errorbar(means, heights, xerr=half_widths, fmt="o", color=colour, ecolor="0.6", elinewidth=4)
        for height, mean in zip(heights, means, strict=True):
            text = "" if np.isnan(mean) else measured(mean)
            beside(axis, MEAN_COLUMN, height, text)
        axis.set_xlabel("mean error (m), validation rows", fontsize=11)
        axis.set_title(panel_label(key), fontsize=11)
        axis.set_ylim(len(names) - 0.5, -0.5)
    axes[0].set_yticks(heights, list(names.values()), fontsize=10)
    return figure
