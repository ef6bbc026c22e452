"""Comparisons of models, against references that do not come from this repository."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lib import metrics, paths
from lib.data import protocols
from lib.models.estimator import Located
from lib.report import results, statistics

COSTS = {"n_train": 1234, "fit_seconds": 12.5, "predict_us": 3.25}


# === Bootstrap, intervals and p-values ===


def compared(first, second, groups=None, **sampling):
    """How one model's errors differ from another's."""
    draws = statistics.bootstrap_means([first, second], groups, **sampling)
    return statistics.difference(np.mean(first) - np.mean(second), draws[:, 0] - draws[:, 1])


@pytest.fixture(scope="module")
def pair():
    """(300,) errors of two models on the same rows: hard rows are hard for both."""
    rng = np.random.default_rng(0)
    hard = rng.gamma(1, 10, 300)
    return hard + rng.gamma(1, 2, 300), hard + rng.gamma(1, 2.5, 300)


def test_interval_agrees_with_scipys_paired_bootstrap(pair):
    ours = compared(*pair)
    theirs = stats.bootstrap(
        pair,
        lambda first, second, axis: np.mean(first - second, axis=axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (ours["low_m"], ours["high_m"]) == pytest.approx(tuple(theirs), abs=0.02)
    assert ours["difference_m"] == pytest.approx(np.mean(pair[0] - pair[1]))


def test_pairing_takes_the_difficulty_of_rows_out(pair):
    draws = statistics.bootstrap_means(pair)
    assert np.std(draws[:, 0] - draws[:, 1]) < np.std(draws[:, 0]) / 2


def test_p_value_agrees_with_the_paired_t_test():
    rng = np.random.default_rng(3)
    first, second = rng.normal(10, 2, 400), rng.normal(10.3, 2, 400)
    assert compared(first, second)["p_value"] == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.01)


def test_swapping_the_models_turns_the_comparison_round(pair):
    first, second = pair
    forth, back = compared(first, second), compared(second, first)
    assert (back["low_m"], back["high_m"]) == pytest.approx((-forth["high_m"], -forth["low_m"]))
    assert back["difference_m"] == -forth["difference_m"] and back["p_value"] == forth["p_value"]


def test_the_same_errors_do_not_differ(pair):
    assert compared(pair[0], pair[0]) == {"difference_m": 0, "low_m": 0, "high_m": 0, "p_value": 1}


def test_what_is_certain_has_the_smallest_p_value():
    rng = np.random.default_rng(0)
    errors = rng.uniform(0, 1, 200)
    assert compared(errors, errors + rng.uniform(1, 2, 200), resamples=999)["p_value"] == 2 / 1000


def test_copies_narrow_the_interval_unless_they_are_of_one_group(pair):
    copies = [np.repeat(errors, 4) for errors in pair]
    single = compared(*pair)
    grouped = compared(*copies, np.repeat(np.arange(300), 4))
    taken_for_rows = compared(*copies)
    assert grouped == pytest.approx(single)
    width = single["high_m"] - single["low_m"]
    assert taken_for_rows["high_m"] - taken_for_rows["low_m"] == pytest.approx(width / 2, rel=0.05)


def test_groups_of_any_names_and_order(pair):
    numbers = np.random.default_rng(0).integers(20, size=300)
    names = np.array([f"block {number:02}" for number in numbers])
    assert compared(*pair, numbers) == pytest.approx(compared(*pair, names))


def test_grouped_interval_agrees_with_the_clustered_standard_error():
    """Of a mean over groups of many sizes: √Σ(sum of a group's deviations)² / n."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(200), rng.integers(1, 12, 200))
    errors = 20 + rng.normal(0, 3, 200)[groups] + rng.normal(0, 1, len(groups))
    deviations = np.bincount(groups, weights=errors - errors.mean())
    expected = np.sqrt(np.sum(deviations**2)) / len(groups)
    assert statistics.bootstrap_means([errors], groups).std() == pytest.approx(expected, rel=0.03)


def test_where_all_rows_are_alike_the_interval_is_that_over_seeds():
    seeds = np.array([9.0, 10.0, 10.5, 11.0, 12.0])
    low, high = np.percentile(statistics.bootstrap_means([np.tile(seeds[:, None], 50)]), [2.5, 97.5])
    assert (high - low) / 2 == pytest.approx(metrics.confidence_half_width(seeds), rel=0.05)


def coverage(simulated, true):
    """Share of simulated comparisons whose interval holds the true difference."""
    held = 0
    for number in range(400):
        errors = simulated(np.random.default_rng(number))
        line = compared(*errors, resamples=1000)
        held += line["low_m"] <= true <= line["high_m"]
    return held / 400


def test_interval_holds_the_difference_of_deterministic_models_in_95_of_100_cases():
    def simulated(rng):
        hard = rng.gamma(2, 5, 100)
        return hard + rng.exponential(2, 100), hard + rng.exponential(3, 100)

    assert 0.92 <= coverage(simulated, -1) <= 0.98


@pytest.mark.parametrize(("between_rows", "between_seeds"), [(4.0, 0.2), (2.0, 0.5), (0.5, 1.0)])
def test_interval_holds_the_difference_of_trained_models_in_95_of_100_cases(between_rows, between_seeds):
    """Five seeds against a model without; a bootstrap of the five would hold it in 85 of 100 where seeds matter."""

    def simulated(rng):
        effect = rng.normal(0, between_rows, 100) + rng.normal(0, between_seeds, (5, 1))
        return 20 + effect + rng.normal(0, 1, (5, 100)), np.full(100, 20.0)

    assert 0.92 <= coverage(simulated, 0) <= 0.985


def test_rows_and_groups_must_fit():
    with pytest.raises(ValueError, match=r"same test rows\. Received: \[5, 4\] rows"):
        statistics.bootstrap_means([np.ones((3, 5)), np.ones(4)])
    with pytest.raises(ValueError, match=r"Received: \[5, 6\] rows"):
        statistics.bootstrap_means([np.ones(5)], np.zeros(6))


def test_holm_of_a_textbook_case():
    """The worked example of en.wikipedia.org/wiki/Holm–Bonferroni_method: the first and the last are rejected."""
    np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_rejects_step_by_step(p_values):
    """As Holm states it: the k-th smallest of m is held against α / (m − k + 1), until the first that is above."""
    adjusted = statistics.holm(p_values)
    order = np.argsort(p_values, kind="stable")
    rejects = np.array(p_values)[order] * np.arange(len(p_values), 0, -1) <= 0.05
    assert np.sum(adjusted <= 0.05) == np.argmin([*rejects, False])
    assert np.all(adjusted >= p_values) and np.all(adjusted <= 1)


# === Comparisons of runs ===


@pytest.fixture(scope="module")
def runs(campus, tmp_path_factory):
    """Rows and workspace of four models: `far` is worse than `near`, `as_near` is as good, `knn` has no seeds."""
    parts = protocols.official(campus)
    folder = tmp_path_factory.mktemp("compared")
    workspace = paths.Workspace(folder)
    rng = np.random.default_rng(0)
    test = parts.test.position
    seeds = range(5)
    rows = []
    for model, spread, runs in [("near", 3, seeds), ("as_near", 3, seeds), ("far", 4, seeds), ("knn", 3, [None])]:
        for seed in runs:
            located = Located(test + rng.normal(0, spread, test.shape))
            rows.append(results.evaluated(parts, located, model, seed, workspace, **COSTS))
    return results.write(rows, folder / "benchmark.csv", results.COLUMNS), workspace


def test_resampled_means_are_about_the_measured_ones(runs):
    rows, workspace = runs
    (draws,) = statistics.resampled_means(rows, workspace, resamples=2000).values()
    means = rows.groupby("model", sort=False)["mean_m"].mean()
    assert list(draws.columns) == list(means.index) and len(draws) == 2000
    np.testing.assert_allclose(draws.mean(), means, atol=0.05)


def test_comparisons_tell_better_worse_and_alike(runs):
    rows, workspace = runs
    draws = statistics.resampled_means(rows, workspace)
    table = statistics.comparisons(rows, draws, ["near", "far"])
    assert tuple(table.columns) == statistics.COMPARISON_COLUMNS
    verdicts = {(line.model, line.reference): line.verdict for line in table.itertuples()}
    assert verdicts == {
        ("as_near", "near"): statistics.ALIKE,
        ("far", "near"): statistics.WORSE,
        ("knn", "near"): statistics.ALIKE,
        ("as_near", "far"): statistics.BETTER,
        ("knn", "far"): statistics.BETTER,
    }
    assert (table["comparisons"] == 5).all()
    np.testing.assert_allclose(table["p_holm"], statistics.holm(table["p_value"]))
    means = rows.groupby("model")["mean_m"].mean()
    np.testing.assert_allclose(table["difference_m"], [means[m] - means[r] for m, r in verdicts])
    assert ((table["low_m"] < table["difference_m"]) & (table["difference_m"] < table["high_m"])).all()


def test_comparisons_are_corrected_over_all_protocols(runs):
    rows, workspace = runs
    both = pd.concat([rows, rows.assign(protocol="pooled")])
    (draws,) = statistics.resampled_means(rows, workspace).values()
    table = statistics.comparisons(both, {("ujiindoorloc", name): draws for name in ("official", "pooled")}, ["far"])
    assert (table["comparisons"] == 6).all() and list(table["protocol"].unique()) == ["official", "pooled"]


def test_groups_of_test_rows_widen_what_they_share(runs):
    rows, workspace = runs
    errors = results.read_errors(workspace, rows.iloc[0])
    groups = {("ujiindoorloc", "official"): np.argsort(np.argsort(errors)) // 10}  # alike within a group
    (single,) = statistics.resampled_means(rows[:1], workspace).values()
    (grouped,) = statistics.resampled_means(rows[:1], workspace, groups).values()
    assert grouped["near"].std() > 2 * single["near"].std()


def test_a_reference_that_was_not_run_is_named(runs):
    rows, workspace = runs
    draws = statistics.resampled_means(rows, workspace, resamples=10)
    with pytest.raises(ValueError, match=r"official: `references` must be among near, .*Received: umlp"):
        statistics.comparisons(rows, draws, ["umlp"])


def test_shown_comparisons_have_names_and_intervals(runs):
    rows, workspace = runs
    draws = statistics.resampled_means(rows, workspace, resamples=100)
    compared = statistics.comparisons(rows, draws, ["far"])
    names = {"near": "nearby", "as_near": "as near", "far": "far away", "knn": "kNN"}
    shown = statistics.shown_comparisons(compared, names)
    assert list(shown["model"]) == ["nearby", "as near", "kNN"] and set(shown["against"]) == {"far away"}
    assert shown["difference (m)"].str.fullmatch(r"-\d\.\d\d \(-\d\.\d\d … -\d\.\d\d\)").all()


def test_ratios_are_to_the_baseline_with_the_lowest_error(runs):
    rows, workspace = runs
    draws = statistics.resampled_means(rows, workspace, resamples=2000)
    table = statistics.ratios_to_best(rows, draws, ["far", "knn"]).set_index("model")
    means = rows.groupby("model")["mean_m"].mean()
    assert set(table["best"]) == {"knn"} and table["best_m"].iloc[0] == pytest.approx(means["knn"])
    for model, line in table.iterrows():
        assert line["ratio"] == pytest.approx(means[model] / means["knn"])
        assert line["low"] <= line["ratio"] <= line["high"]
    assert table.loc["knn", "low"] == table.loc["knn", "high"] == 1
    assert table.loc["far", "low"] > 1.1
