"""How a survey ages, and what newly surveyed scans are worth."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter, StrMethodFormatter

from lib.report.ageing import SHARES, closed_over_months
from lib.report.figures.style import side_by_side

LEVELS = {"coverage_50": 0.5, "coverage_90": 0.9}


def months(rows: pd.DataFrame, heard: pd.Series, names: Mapping[str, str], calibrated: str) -> Figure:
    """Mean error of models by month; below it what is still heard, and what the radii of one of them cover.

    Args:
        rows: `ageing.COLUMNS`, of models that know the survey of month 1.
        heard: month → share of month 1's transmitters that are still heard.
        names: model → its name in the legend.
        calibrated: the model whose radii are drawn, beside the levels that they promise.
    """
    figure, (errors, shares) = plt.subplots(2, 1, figsize=(10, 8), sharex=True)
    means = rows.pivot_table("mean_m", "month", "model")
    for model, name in names.items():
        errors.plot(means.index, means[model], marker="o", label=name)
    errors.set(ylabel="mean error (m)", yscale="log")  # a model may take scans for those of another environment
    errors.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    errors.yaxis.set_minor_locator(NullLocator())
    errors.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    errors.legend(fontsize=10, ncol=2)
    shares.plot(heard.index, heard, color="0.4", marker="s", label="month 1's access points still heard")
    by_month = rows[rows["model"] == calibrated].groupby("month")
    for column, title in SHARES.items():
        values = by_month[column].mean()
        (line,) = shares.plot(values.index, values, marker="o", label=f"{names[calibrated]}: {title}")
        if column in LEVELS:
            shares.axhline(LEVELS[column], color=line.get_color(), linewidth=1, linestyle="--")
    shares.set(xlabel="month", ylabel="share", ylim=(0, 1.05))
    shares.yaxis.set_major_formatter(PercentFormatter(1))
    shares.legend(fontsize=10, ncol=2)
    return figure


def gap_closed(gaps: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Share of the gap to the month's own survey that new scans close, one panel a model, one line a month.

    Args:
        gaps: from `ageing.gap_closed`.
        names: model → the title of its panel.
    """
    together = closed_over_months(gaps)
    models = [model for model in names if model in set(gaps["model"])]
    figure, axes = side_by_side(len(models), (2 + 4.6 * len(models), 4.4), sharey=True)
    for axis, model in zip(axes, models, strict=True):
        for month, line in gaps[gaps["model"] == model].groupby("month"):
            axis.plot(line["scans"], line["closed"], marker="o", alpha=0.6, label=f"month {month}")
        of_all = together[model]
        axis.plot(of_all.index, of_all, color="black", marker="s", linewidth=2.5, label="all months")
        axis.axhline(1, color="0.4", linewidth=1, linestyle="--")
        axis.axhline(0, color="0.4", linewidth=1)
        axis.set(xlabel="new scans", title=names[model], xticks=of_all.index)
    axes[0].set(ylabel="gap to the month's own survey closed")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    axes[0].legend(fontsize=10)
    return figure
