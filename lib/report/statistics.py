"""Is one model better than another? Bootstrap over test rows and seeds, intervals and Holm's correction."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import sparse, stats

from lib.paths import Workspace
from lib.report.results import PANEL, read_errors

RESAMPLES = 20_000  # the smallest p-value is 2 / RESAMPLES: low enough for 200 comparisons after Holm's correction
PICKS_AT_ONCE = 100_000  # groups picked in a block of resamples: what fits a processor's cache is fastest
SIGNIFICANCE = 0.05
COMPARISON_COLUMNS = (
    *("environment", "release", "protocol", "model", "reference", "difference_m", "low_m", "high_m"),
    *("p_value", "p_holm", "comparisons", "verdict"),
)
RATIO_COLUMNS = ("environment", "release", "protocol", "model", "ratio", "low", "high", "best", "best_m")
BETTER, WORSE, ALIKE = "better", "worse", "not distinguishable"


# === Bootstrap ===


def bootstrap_means(
    errors: Sequence[np.ndarray], groups: np.ndarray | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Mean errors on other test rows and other training seeds; paired, for comparing models.

    A draw takes as many groups of rows as there are, with replacement and the same for all models, and averages each
    model's errors over its seeds and these rows. Rows that resemble each other (copies, one place, one block) belong
    in one group: taken as independent, they make intervals too narrow. Few groups do so too: in simulations, 95 %
    intervals held in 95 of 100 cases with 226 uneven groups, in 93 with 55, in 90 with 26 of which one had a third.
    Seeds are too few to be resampled. Each mean is moved by its standard error over seeds times a draw from Student's
    t instead, so that without variance between rows the interval is that of `metrics.confidence_half_width`. The
    interaction of seeds and rows counts in both, which errs on the wide side. A model with one run counts as
    deterministic.

    Args:
        errors: of each model, (n,) or (seeds, n) metres on the same n test rows.
        groups: (n,) the group of each row; None where all rows are independent.
        resamples: number of draws.
        seed: of the random numbers.

    Returns:
        (resamples, models) mean errors in metres; the difference of two columns compares two models.

    Raises:
        ValueError: if models or groups differ in their number of rows.
    """
    runs = list(map(np.atleast_2d, errors))
    numbers = _group_numbers(runs, groups)
    totals = _totals_by_group(runs, numbers)
    random = np.random.default_rng(seed)
    drawn = _drawn_totals(totals, resamples, random)
    row_counts = drawn[:, -1:]
    means = drawn[:, :-1] / row_counts
    for column, errors_by_seed in enumerate(runs):
        seeds = len(errors_by_seed)
        if seeds > 1:
            standard_error = stats.sem(errors_by_seed.mean(axis=1))
            means[:, column] += standard_error * random.standard_t(seeds - 1, size=resamples)
    return means


def _group_numbers(runs: list[np.ndarray], groups: np.ndarray | None) -> np.ndarray:
    """(n,) number of the group that each test row belongs to, from 0."""
    row_counts = [errors_by_seed.shape[1] for errors_by_seed in runs]
    if groups is not None:
        row_counts.append(len(groups))
    if len(set(row_counts)) != 1:
        raise ValueError(f"`errors` and `groups` must be of the same test rows. Received: {row_counts} rows")
    if groups is None:
        return np.arange(row_counts[0])
    _, numbers = np.unique(groups, return_inverse=True)
    return numbers


def _totals_by_group(runs: list[np.ndarray], numbers: np.ndarray) -> np.ndarray:
    """(groups, models + 1): the sum of each model's errors, averaged over its seeds, and the number of rows."""
    totals = []
    for errors_by_seed in runs:
        totals.append(np.bincount(numbers, weights=errors_by_seed.mean(axis=0)))
    totals.append(np.bincount(numbers, weights=np.ones(len(numbers))))
    return np.column_stack(totals)


def _drawn_totals(totals: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """(resamples, columns): the sums of `totals` over groups that are drawn with replacement."""
    count = len(totals)
    drawn = np.empty((resamples, totals.shape[1]))
    blocks = -(-resamples * count // PICKS_AT_ONCE)
    for block in np.array_split(drawn, blocks):
        picked = random.integers(count, size=(len(block), count))
        weights = np.ones(picked.size)
        starts = np.arange(0, picked.size + 1, count)
        selection = sparse.csr_array((weights, picked.ravel(), starts), shape=picked.shape)
        block[:] = selection @ totals
    return drawn


def difference(value: float, draws: np.ndarray) -> dict[str, float]:
    """A difference of mean errors in metres with its 95 % interval, and the two-sided p-value that there is none.

    Args:
        value: the measured difference; negative where the first model is better.
        draws: (resamples,) difference of two columns of `bootstrap_means`.
    """
    low, high = np.percentile(draws, [2.5, 97.5])
    at_most_0 = np.count_nonzero(draws <= 0)
    at_least_0 = np.count_nonzero(draws >= 0)
    tail = (1 + min(at_most_0, at_least_0)) / (1 + len(draws))
    return {
        "difference_m": float(value),
        "low_m": float(low),
        "high_m": float(high),
        "p_value": float(min(1, 2 * tail)),
    }


def holm(p_values: Sequence[float]) -> np.ndarray:
    """(m,) p-values of a family of comparisons → (m,) corrected by Holm.

    The chance that any corrected value below 0.05 is false is at most 5 %.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)
    multipliers = np.arange(len(values), 0, -1)
    ascending = np.maximum.accumulate(values[order] * multipliers)
    adjusted = np.empty_like(values)
    adjusted[order] = ascending.clip(max=1)
    return adjusted


# === Comparisons ===


def resampled_means(
    rows: pd.DataFrame,
    workspace: Workspace,
    groups: Mapping[tuple[str, str], np.ndarray] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[tuple[str, str], pd.DataFrame]:
    """Draws of every model's mean error, for intervals and comparisons, from the errors of every row and seed.

    Args:
        rows: tidy results.
        workspace: where their errors are.
        groups: (environment, protocol) → (n_test,) group of each test row; without, its rows are independent.
        resamples, seed: as in `bootstrap_means`, which says what the draws cover.

    Returns:
        (environment, protocol) → (resamples, models) metres, models as columns.
    """
    groups = groups or {}
    draws = {}
    for key, panel in rows.groupby(PANEL, sort=False):
        errors = {}
        for model, runs in panel.groupby("model", sort=False):
            errors_by_seed = [read_errors(workspace, row) for _, row in runs.iterrows()]
            errors[model] = np.stack(errors_by_seed)
        of_models = list(errors.values())
        means = bootstrap_means(of_models, groups.get(key), resamples=resamples, seed=seed)
        draws[key] = pd.DataFrame(means, columns=list(errors))
    return draws


def comparisons(
    rows: pd.DataFrame, draws: Mapping[tuple[str, str], pd.DataFrame], references: Sequence[str]
) -> pd.DataFrame:
    """Is a model better than a reference? Every model against each reference, in every environment and protocol.

    Args:
        rows: tidy results.
        draws: of these rows, from `resampled_means`.
        references: models; two of them are compared once.

    Returns:
        `COMPARISON_COLUMNS`: the difference in mean error (negative where the model is better) with its own 95 %
        interval; the verdict goes by `p_holm` at 0.05, corrected for all comparisons of the table.

    Raises:
        ValueError: if a reference was not run under a protocol.
    """
    lines = []
    for key, panel in rows.groupby(PANEL, sort=False):
        lines += _compared_in_panel(panel, draws[key], references)
    table = pd.DataFrame(lines)
    table["p_holm"] = holm(table["p_value"])
    table["comparisons"] = len(table)
    direction = np.where(table["difference_m"] < 0, BETTER, WORSE)
    table["verdict"] = np.where(table["p_holm"] < SIGNIFICANCE, direction, ALIKE)
    return table[list(COMPARISON_COLUMNS)]


def _compared_in_panel(panel: pd.DataFrame, draws: pd.DataFrame, references: Sequence[str]) -> list[dict]:
    """The comparisons of one environment and protocol, not yet corrected."""
    panel_columns = panel.iloc[0][["environment", "release", "protocol"]].to_dict()
    means = panel.groupby("model", sort=False)["mean_m"].mean()
    lines = []
    for position, reference in enumerate(references):
        if reference not in means:
            models = ", ".join(means.index)
            raise ValueError(f"{panel_columns['protocol']}: `references` must be among {models}. Received: {reference}")
        already_compared = references[: position + 1]
        for model in means.index[~means.index.isin(already_compared)]:
            measured = means[model] - means[reference]
            drawn = draws[model] - draws[reference]
            line = {**panel_columns, "model": model, "reference": reference}
            line.update(difference(measured, drawn))
            lines.append(line)
    return lines


def shown_comparisons(compared: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Comparisons for reading.

    Args:
        compared: from `comparisons`.
        names: model → its name in the table.
    """
    numbers = compared[["difference_m", "low_m", "high_m"]].map("{:+.2f}".format)
    interval = numbers["low_m"] + " … " + numbers["high_m"]
    return pd.DataFrame(
        {
            "protocol": compared["protocol"],
            "model": compared["model"].map(names),
            "against": compared["reference"].map(names),
            "difference (m)": numbers["difference_m"] + " (" + interval + ")",
            "p (Holm)": compared["p_holm"].map("{:.4f}".format),
            "the model is": compared["verdict"],
        }
    )


# === Against the best of several ===


def ratios_to_best(
    rows: pd.DataFrame, draws: Mapping[tuple[str, str], pd.DataFrame], baselines: Sequence[str]
) -> pd.DataFrame:
    """Every model's mean error as a multiple of the best baseline's, in every environment and protocol.

    The best baseline is the one with the lowest mean error on the test rows. It is known in hindsight alone, so that a
    user who has to choose one beforehand does at best as well.

    Args:
        rows: tidy results.
        draws: of these rows, from `resampled_means`.
        baselines: models, each run under every protocol.

    Returns:
        `RATIO_COLUMNS`: the ratio with its 95 % interval, the best baseline, and its mean error in metres.

    Raises:
        KeyError: if a baseline was not run under a protocol.
    """
    lines = []
    for key, panel in rows.groupby(PANEL, sort=False):
        panel_columns = panel.iloc[0][["environment", "release", "protocol"]].to_dict()
        means = panel.groupby("model", sort=False)["mean_m"].mean()
        best = means[list(baselines)].idxmin()
        for model, mean in means.items():
            drawn = draws[key][model] / draws[key][best]
            low, high = np.percentile(drawn, [2.5, 97.5])
            line = {**panel_columns, "model": model, "ratio": mean / means[best], "low": low, "high": high}
            lines.append({**line, "best": best, "best_m": means[best]})
    return pd.DataFrame(lines, columns=RATIO_COLUMNS)
