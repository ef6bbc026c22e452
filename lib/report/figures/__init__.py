"""Every figure. Functions take numbers and return a Figure; `finish` marks those of simulated data and saves them."""

from lib.report.figures.ageing import gap_closed, months
from lib.report.figures.benchmark import ablation, error_cdf, forest, ratios
from lib.report.figures.errors import error_map, errors_by, reliability, scans_on_plan
from lib.report.figures.explore import (
    before_after,
    coverage_maps,
    drift,
    heard_per_row,
    missing_rates,
    positions,
    rssi_histogram,
)
from lib.report.figures.learning import error_by_share, gains, learning_curves, paired_seeds
from lib.report.figures.places import place_probabilities
from lib.report.figures.stress import stress_curves
from lib.report.figures.style import WIDTH, environment_colour, environment_label, finish, marked

__all__ = [
    "WIDTH",
    "ablation",
    "before_after",
    "coverage_maps",
    "drift",
    "environment_colour",
    "environment_label",
    "error_by_share",
    "error_cdf",
    "error_map",
    "errors_by",
    "finish",
    "forest",
    "gains",
    "gap_closed",
    "heard_per_row",
    "learning_curves",
    "marked",
    "missing_rates",
    "months",
    "paired_seeds",
    "place_probabilities",
    "positions",
    "ratios",
    "reliability",
    "rssi_histogram",
    "scans_on_plan",
    "stress_curves",
]
