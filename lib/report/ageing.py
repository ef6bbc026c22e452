"""A survey that ages: how much of it is still heard months later, and what newly surveyed scans are worth."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.data.fingerprints import FingerprintSet
from lib.report.numbers import interval

STALE, UPDATED, OWN = "month 1", "month 1 and new scans", "the month's own"  # what a model was fitted on
COLUMNS = (
    *("model", "survey", "scans", "month", "seed", "n_test"),
    *("mean_m", "median_m", "p75_m", "p95_m", "located", "coverage_50", "coverage_90", "radius_50", "radius_90"),
)
GAP_COLUMNS = ("model", "reference", "month", "scans", "stale_m", "updated_m", "own_m", "closed")

SHARES = {"located": "located", "coverage_50": "within the 50 % radius", "coverage_90": "within the 90 % radius"}


def still_heard(survey: FingerprintSet, later: FingerprintSet) -> float:
    """Share of the transmitters that a survey hears which later scans hear, too."""
    in_survey = survey.heard.any(axis=0)
    rssi_later = later.scans.of(survey.transmitters)
    in_later = (~np.isnan(rssi_later)).any(axis=0)
    return float(in_later[in_survey].mean())


def gap_closed(rows: pd.DataFrame, references: Mapping[str, str]) -> pd.DataFrame:
    """How much of the gap between an old survey and the month's own do newly surveyed scans close?

    The gap is the mean error of a model that knows the survey of month 1, less that of a reference that knows the
    month's own survey.

    Args:
        rows: `COLUMNS`; of each model those of month 1's survey (`STALE`) and of the updated one (`UPDATED`), of each
            reference those of the month's own (`OWN`).
        references: model → the model whose own survey it is measured by; other models are left out.

    Returns:
        `GAP_COLUMNS`, one line a model, number of new scans and month: mean errors in metres over seeds, and the share
        of the gap that is closed. It is below 0 where new scans make a model worse, above 1 where they make it better
        than the reference, and NaN where the old survey is as good as the month's own, so that there is no gap.
    """
    means = rows.groupby(["survey", "model", "month", "scans"])["mean_m"].mean()
    lines = []
    for model, reference in references.items():
        for (month, scans), updated_m in means[UPDATED, model].items():
            (stale_m,) = means[STALE, model, month]
            (own_m,) = means[OWN, reference, month]
            gap = stale_m - own_m
            closed = (stale_m - updated_m) / gap if gap > 0 else np.nan
            lines.append((model, reference, month, scans, stale_m, updated_m, own_m, closed))
    return pd.DataFrame(lines, columns=GAP_COLUMNS)


def closed_over_months(gaps: pd.DataFrame) -> pd.Series:
    """By model and number of new scans: the share of the gaps of all months together that is closed.

    Args:
        gaps: from `gap_closed`.
    """
    sums = gaps.groupby(["model", "scans"], sort=False)[["stale_m", "updated_m", "own_m"]].sum()
    return (sums["stale_m"] - sums["updated_m"]) / (sums["stale_m"] - sums["own_m"])


def months_table(rows: pd.DataFrame, heard: pd.Series, names: Mapping[str, str], calibrated: str) -> pd.DataFrame:
    """One line a month: what is still heard, the error of every model, and what the radii of one of them cover.

    Args:
        rows: `COLUMNS`, of models that know the survey of month 1.
        heard: month → share of month 1's transmitters that are still heard.
        names: model → its name in the table, in the order of the columns.
        calibrated: the model whose radii are shown.
    """
    errors = rows.pivot_table("mean_m", "month", "model", aggfunc=interval, sort=False)
    titles = {model: f"{name}, mean error (m)" for model, name in names.items()}
    table = errors[list(names)].rename(columns=titles)
    table.insert(0, "still heard", heard.map("{:.1%}".format))
    by_month = rows[rows["model"] == calibrated].groupby("month", sort=False)
    for column, title in SHARES.items():
        table[title] = by_month[column].mean().map("{:.1%}".format)
    return table.reset_index()


def update_table(gaps: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """One line a model, reference, month and number of new scans, for reading.

    Args:
        gaps: from `gap_closed`.
        names: model → its name in the table.
    """
    return pd.DataFrame(
        {
            "model": gaps["model"].map(names),
            "month": gaps["month"],
            "month 1's survey (m)": gaps["stale_m"].map("{:.2f}".format),
            "new scans": gaps["scans"],
            "with new scans (m)": gaps["updated_m"].map("{:.2f}".format),
            "month's own survey, by": gaps["reference"].map(names),
            "month's own (m)": gaps["own_m"].map("{:.2f}".format),
            "closed": gaps["closed"].map("{:.0%}".format).replace("nan%", "no gap"),
        }
    )
