"""What a survey is worth months later: shares that are still heard, and gaps that new scans close."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lib.report import ageing

NAMES = {"knn": "kNN", "net": "network"}


def result(model, survey, scans, month, seed, mean_m):
    """A result row of a model that locates all scans."""
    row = dict.fromkeys(ageing.COLUMNS, 1.0)
    return row | {"model": model, "survey": survey, "scans": scans, "month": month, "seed": seed, "mean_m": mean_m}


@pytest.fixture
def rows():
    """Two models in two months: 50 new scans close half of the network's gap in month 6, and all of it in month 12."""
    lines = []
    for month, updated_m in {6: 3.5, 12: 3.0}.items():
        for seed, noise in enumerate((-0.1, 0.1)):
            lines.append(result("net", ageing.STALE, 0, month, seed, 4 + noise))
            lines.append(result("net", ageing.UPDATED, 50, month, seed, updated_m + noise))
            lines.append(result("net", ageing.OWN, 0, month, seed, 3 + noise))
        lines.append(result("knn", ageing.STALE, 0, month, None, 4.0))
        lines.append(result("knn", ageing.UPDATED, 50, month, 0, 5.0))
        lines.append(result("knn", ageing.OWN, 0, month, None, 2.0))
    return pd.DataFrame(lines)


def test_share_still_heard_is_of_the_transmitters_that_the_survey_hears(campus):
    survey = campus[:50]
    heard = np.flatnonzero(survey.heard.any(axis=0))
    rssi = survey.rssi.copy()
    rssi[:, heard[:10]] = np.nan
    later = dataclasses.replace(survey, rssi=rssi)
    assert ageing.still_heard(survey, survey) == 1
    assert ageing.still_heard(survey, later) == pytest.approx(1 - 10 / len(heard))


def test_the_gap_is_between_the_old_survey_and_the_months_own(rows):
    gaps = ageing.gap_closed(rows, {"net": "net", "knn": "knn"})
    assert tuple(gaps.columns) == ageing.GAP_COLUMNS
    closed = gaps.set_index(["model", "month"])["closed"]
    assert closed["net", 6] == pytest.approx(0.5) and closed["net", 12] == pytest.approx(1)
    assert closed["knn", 6] == pytest.approx(-0.5), "new scans made it worse"
    together = ageing.closed_over_months(gaps)
    assert together["net", 50] == pytest.approx(0.75)


def test_the_gap_to_another_models_survey_may_be_wider(rows):
    gaps = ageing.gap_closed(rows, {"net": "knn"})
    assert list(gaps["model"]) == ["net", "net"] and set(gaps["reference"]) == {"knn"}
    assert list(gaps["closed"]) == pytest.approx([0.25, 0.5])


def test_where_the_old_survey_is_as_good_there_is_no_gap(rows):
    as_good = rows.assign(mean_m=4.0)
    gaps = ageing.gap_closed(as_good, {"net": "net"})
    assert gaps["closed"].isna().all()
    assert set(ageing.update_table(gaps, NAMES)["closed"]) == {"no gap"}


def test_tables_have_a_line_for_every_month(rows):
    stale = rows[rows["survey"] == ageing.STALE]
    heard = pd.Series({6: 0.75, 12: 0.5})
    table = ageing.months_table(stale, heard, NAMES, "net")
    assert list(table["month"]) == [6, 12] and list(table["still heard"]) == ["75.0%", "50.0%"]
    assert list(table["kNN, mean error (m)"]) == ["4.00", "4.00"]
    assert table.columns[-1] == "within the 90 % radius"
    shown = ageing.update_table(ageing.gap_closed(rows, {"net": "net"}), NAMES)
    assert list(shown["closed"]) == ["50%", "100%"] and set(shown["model"]) == {"network"}
