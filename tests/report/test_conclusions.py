"""Conclusions: each sentence says what its numbers bear out, and something else where they bear out something else."""

import pandas as pd
import pytest

from lib.paths import ROOT
from lib.report import conclusions, results
from lib.report.claims import CLAIM_COLUMNS, claim
from lib.report.document import with_values

SEEDS = range(5)


def test_a_run_on_simulated_data_or_some_rows_concludes_nothing():
    assert conclusions.bullets(["One.", "", "Two."], simulated=False) == "- One.\n- Two."
    for nothing in (conclusions.bullets(["One."], True), conclusions.bullets(["One."], False, rows=1500)):
        assert "concludes nothing" in nothing
        assert "One." not in nothing


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.1, 0.9], conclusions.HIGHER),
        ([-1.0, -1.1, -0.9], conclusions.LOWER),
        ([-1.0, 1.0, 0.5], conclusions.UNCLEAR),
        ([5.0], conclusions.UNCLEAR),
    ],
)
def test_direction_is_that_of_the_interval(values, expected):
    assert conclusions.direction(values) == expected


def paired(gain):
    """Five seeds from scratch with 10 m, and transferred with a gain in percent that differs a little."""
    noise = [-0.2, -0.1, 0.0, 0.1, 0.2]
    gains = [gain + own for own in noise]
    errors = [10 * (1 - own / 100) for own in gains]
    columns = {"protocol": "pooled", "seed": SEEDS, "encoder_scratch": 10.0, "encoder_tl": errors}
    return pd.DataFrame({**columns, "gain_percent": gains})


@pytest.mark.parametrize(("gain", "said"), [(5, "transfer helps here"), (0, "no gain"), (-5, "transfer does harm")])
def test_a_gain_is_what_its_interval_says(gain, said):
    assert said in conclusions.gain(paired(gain), "pooled")


def test_the_paper_is_quoted_from_the_ledger():
    lines = [
        claim("gain of transfer indoors", 17.18, [5.0], rule="at least"),
        claim("encoder-TL MDE indoors", 6.65, [5.0], rule="at most"),
        claim("MDE without transfer indoors (implied)", 8.03, [5.0], rule="equal"),
    ]
    sentence = conclusions.gain(paired(5), "pooled", pd.DataFrame(lines, columns=CLAIM_COLUMNS))
    assert "(Paper: 6.65 m, a gain of 17.18 %, which implies 8.03 m from scratch.)" in sentence


def verdicts(**found):
    lines = []
    for against, what in found.items():
        name = against.replace("_", " ")
        lines.append(("pooled", name, "2.0 ± 1.2", 0.01, 0.075, what))
    columns = ["protocol", "against", "saved (%)", "p", "p (Holm)", "the transferred model is"]
    return pd.DataFrame(lines, columns=columns)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (("better", "better", "better"), "by knowledge"),
        (("better", "better", "not distinguishable"), "not shown to be knowledge"),
        (("not distinguishable", "better", "better"), "not shown to help"),
    ],
)
def test_knowledge_has_to_be_shown_against_both_controls(found, said):
    table = verdicts(**dict(zip(("scratch", "shuffled_positions", "noise"), found, strict=True)))
    sentence = conclusions.knowledge(table, "pooled")
    assert said in sentence
    assert "2.0 ± 1.2 % against noise (p = 0.010, after Holm's correction = 0.075)" in sentence


def test_without_both_controls_nothing_is_said_about_knowledge():
    sentence = conclusions.knowledge(verdicts(scratch="better", noise="better"), "pooled")
    assert "needs both controls" in sentence
    assert conclusions.other_starts(verdicts(scratch="better", noise="better"), "pooled") == ""
    assert "against same environment" in conclusions.other_starts(verdicts(same_environment="worse"), "pooled")


def test_bounds_name_the_lowest_and_compare_it_with_the_seeds():
    lines = []
    for lower, errors in {0.0: (10.0, 10.2), 0.1: (9.0, 9.1)}.items():
        for seed, error in enumerate(errors):
            lines.append(("somewhere", lower, 1.0, seed, error))
    trials = pd.DataFrame(lines, columns=["environment", "lower", "upper", "seed", "validation_mean_m"])
    sentence = conclusions.bounds_of_scaling(trials)
    assert "a = 0.1, b = 1" in sentence
    assert "11.6 % higher, more than between seeds with the same bounds (2.0 %)" in sentence
    trials.loc[0, "validation_mean_m"] = 8.0
    assert "less than between seeds" in conclusions.bounds_of_scaling(trials)


def test_the_committed_search_has_its_lowest_error_indoors_at_another_lower_bound():
    trials = results.read(ROOT / "outputs" / "results" / "scaling_bounds.csv")
    indoors, _ = conclusions.bounds_of_scaling(trials).split(" `lorawan_antwerp`")
    assert "a = 0.1" in indoors


@pytest.mark.parametrize(("kept", "said"), [((249, 248), "only if the rule sees"), ((250, 248), "the paper has 249")])
def test_access_points_leak_only_where_they_do(kept, said):
    assert said in conclusions.access_points_kept(dict(zip(("both files", "train"), kept, strict=True)), 249)


def test_claims_that_fail_are_named_with_both_numbers():
    lines = [
        claim("rows", 10, [9], rule="equal"),
        claim("points", 3, [3], rule="equal"),
        claim("messages", 7, [7], rule="equal", checkable=False),
    ]
    sentence = conclusions.claims_about_data(pd.DataFrame(lines, columns=CLAIM_COLUMNS))
    assert "3 numbers that the paper gives about its data, 1 hold" in sentence
    assert "rows, 9 (paper: 10)" in sentence and "cannot tell: messages" in sentence


def curves(last_transferred):
    lines = []
    for seed in SEEDS:
        for model, levels in {"encoder_scratch": (0.4, 0.2), "encoder_tl": (0.3, last_transferred)}.items():
            for epoch, level in zip((1, 2), levels, strict=True):
                lines.append(("pooled", model, seed, epoch, level + 0.001 * seed * (epoch == 2)))
    return pd.DataFrame(lines, columns=["protocol", "model", "seed", "epoch", "val_rmse"])


def test_a_lead_is_kept_or_not():
    assert "starts ahead" in conclusions.lead(curves(0.1), "pooled", 1)
    assert "After 2 it leads" in conclusions.lead(curves(0.1), "pooled", 1)
    assert "After 2 it does not lead" in conclusions.lead(curves(0.2), "pooled", 1)


def umlp_rows(umlp, other):
    lines = []
    for protocol, at_home in {"pooled": "umlp_in", "random": "umlp_out"}.items():
        errors = {"umlp": umlp, at_home: 10.0, ({"umlp_in", "umlp_out"} - {at_home}).pop(): other}
        for model, error in errors.items():
            for seed in SEEDS:
                lines.append((protocol, model, seed, error + 0.01 * seed))
    return pd.DataFrame(lines, columns=["protocol", "model", "seed", "mean_m"])


@pytest.mark.parametrize(("umlp", "said"), [(9.0, "costs nothing"), (10.0, "not shown"), (11.0, "costs something")])
def test_sharing_costs_what_the_rows_say(umlp, said):
    assert said in conclusions.shared_network(umlp_rows(umlp, 90.0), "pooled", "umlp_in", 9.61)


@pytest.mark.parametrize(("other", "said"), [(90.0, "other one fail**"), (12.0, "do not fail")])
def test_networks_fail_elsewhere_only_if_they_do(other, said):
    home = {"umlp_in": "pooled", "umlp_out": "random"}
    assert said in conclusions.unseen_environment(umlp_rows(9.0, other), home)


@pytest.mark.parametrize(("accuracy", "said"), [(0.999, "says little"), (0.8, "not trivial")])
def test_environment_accuracy_of_shared_columns(accuracy, said):
    lines = [("umlp", "pooled", 0, 1000, 1.0), ("umlp_shared", "pooled", 0, 1000, accuracy)]
    table = pd.DataFrame(lines, columns=["model", "protocol", "seed", "n_test", "environment_accuracy"])
    sentence = conclusions.environment_accuracy(table)
    assert said in sentence
    assert with_values("at worst {wrong} wrong of 1,000", wrong=round(1000 * (1 - accuracy))) in sentence


def test_more_with_few_rows_only_if_the_interval_says_so():
    def gains(few):
        lines = [("pooled", share, seed, few if share < 1 else 5.0) for share in (0.1, 1.0) for seed in SEEDS]
        table = pd.DataFrame(lines, columns=["protocol", "share", "seed", "gain_percent"])
        return table.assign(gain_percent=table["gain_percent"] + 0.1 * table["seed"] * table["share"])

    assert "It helps more where data are scarce" in conclusions.scarce_data(gains(9.0), "pooled")
    assert "not shown to help more" in conclusions.scarce_data(gains(5.0), "pooled")


def test_sooner_counts_the_levels_that_are_reached_sooner():
    lines = []
    for level, saved in {1.1: 5.0, 2.0: 0.0}.items():
        for seed in SEEDS:
            for model, epochs in {"encoder_scratch": 20.0, "encoder_tl": 20.0 - saved}.items():
                lines.append(("somewhere", "pooled", level, seed, model, epochs + seed * (model == "encoder_tl") * 0.1))
    table = pd.DataFrame(lines, columns=["environment", "protocol", "level", "seed", "model", "epochs"])
    table["seconds"] = table["epochs"]
    index = ["environment", "protocol", "level", "seed"]
    by_model = table.pivot_table(["epochs", "seconds"], index, "model", sort=False)
    sentence = conclusions.sooner(by_model, "pooled", 1.1, 12.0, 0.4)
    assert "Of 2 levels of error, 1 are reached sooner" in sentence
    assert "(paper: 40 %)" in sentence
    assert "no pair of models" in conclusions.sooner(by_model, "random", 1.1, 12.0, None)


def test_data_of_a_set_are_described(campus, city):
    first, second = campus[campus.part == "train"], campus[campus.part == "validation"]
    assert "mostly gaps" in conclusions.gaps([campus, city])
    assert f"Of {len(campus.transmitters)} access points" in conclusions.campaigns(first, second)
    assert "0% in common" in conclusions.ranges_overlap((-97, -42), (-160, -120)).replace("has ", "")
    assert "82% of the messages lie within 5 m" in conclusions.repeated_places(933, 0.82, 5.0, 0.24, 500.0)
    near = conclusions.nearest_training_positions({"random": 1.7, "spatial": 150.0})
    assert "Errors under `random` measure" in near
    assert "measure memory" not in conclusions.nearest_training_positions({"spatial": 150.0})
