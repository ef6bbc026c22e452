"""How exported localizers are compared with Keras."""

import numpy as np
import pandas as pd

from benchmarks import export
from lib.paths import ROOT
from lib.report import results


def test_disagreement_is_of_each_environment_and_counts_other_places_apart():
    expected = {
        "environment": np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]]),
        "building": np.array([0, 0, -1, -1]),
        "floor": np.array([1, 1, -1, -1]),
        "position": np.zeros((4, 2)),
    }
    outputs = {
        "environment": np.array([[0.8, 0.2], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]),
        "building": np.array([0, 0, -1, -1]),
        "floor": np.array([1, 2, -1, -1]),
        "position": np.array([[0, 2], [0, 90], [3, 4], [0, 80]]),
    }
    assert export.disagreement(outputs, expected, counts=[2, 2]) == {
        "indoors_m": 2,
        "outdoors_m": 5,
        "other_place": 2,
        "n_scans": 4,
    }


def test_the_committed_table_is_rendered_from_its_measurements():
    table = results.read(ROOT / "outputs" / "results" / "export.csv")
    assert tuple(table.columns) == export.COLUMNS
    assert list(table["implementation"]) == list(export.PACKAGES)
    committed = pd.read_csv(ROOT / "outputs" / "tables" / "export.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(committed, export.shown(table), check_dtype=False)
