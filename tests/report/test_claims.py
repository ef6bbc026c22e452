"""The claims ledger."""

import dataclasses

import pandas as pd
import pytest

from lib.data import protocols
from lib.report import claims, results


@pytest.mark.parametrize(
    ("rule", "ours", "tolerance", "verdict"),
    [
        ("equal", 249, 0, claims.HOLDS),
        ("equal", 248, 0, claims.FAILS),
        ("equal", 248, 1, claims.HOLDS),
        ("equal", 251, 1, claims.FAILS),
        ("at most", 249, 0, claims.HOLDS),
        ("at most", 10, 0, claims.HOLDS),
        ("at most", 249.1, 0, claims.FAILS),
        ("at most", 249.1, 0.2, claims.HOLDS),
        ("at least", 249, 0, claims.HOLDS),
        ("at least", 300, 0, claims.HOLDS),
        ("at least", 248.9, 0, claims.FAILS),
        ("at least", 248.9, 0.2, claims.HOLDS),
    ],
)
def test_verdict_follows_the_rule(rule, ours, tolerance, verdict):
    line = claims.claim("access points left", 249, ours, rule=rule, tolerance=tolerance)
    assert tuple(line) == claims.CLAIM_COLUMNS
    assert (line["paper"], line["ours"], line["verdict"], line["seeds"]) == (249, ours, verdict, 1)
    assert line["ci95"] is None and line["note"] == ""


@pytest.mark.parametrize("ours", [None, [], 361.0])
def test_what_the_data_cannot_answer_is_not_judged(ours):
    line = claims.claim("MDE outdoors", 361.21, ours, rule="at most", checkable=False, note="another release")
    assert line["verdict"] == claims.UNCHECKED == "cannot be checked on this release"
    assert line["ours"] == (361.0 if ours else None) and line["note"] == "another release"


def test_no_value_of_ours_cannot_be_checked_either():
    assert claims.claim("MDE", 6.65, None, rule="at most")["verdict"] == claims.UNCHECKED


def test_claim_over_seeds_has_mean_interval_and_count():
    line = claims.claim("MDE indoors", 20.0, [1, 2, 3, 4, 5], rule="at most", unit="m", release="made", protocol="p")
    assert (line["ours"], line["seeds"], line["verdict"]) == (3.0, 5, claims.HOLDS)
    assert line["ci95"] == pytest.approx(1.9632, abs=1e-4)
    assert (line["unit"], line["release"], line["protocol"], line["note"]) == ("m", "made", "p", "")


@pytest.mark.parametrize("rule", ["at most", "at least"])
def test_interval_across_the_papers_value_is_noted(rule):
    line = claims.claim("MDE indoors", 3.5, [1, 2, 3, 4, 5], rule=rule, note="Five seeds")
    assert line["verdict"] == (claims.HOLDS if rule == "at most" else claims.FAILS)
    assert line["note"] == "Five seeds; the 95 % interval reaches across the paper's value"


@pytest.mark.parametrize(
    ("rule", "paper", "tolerance", "unit", "text"),
    [
        ("equal", 249, 0, "", "exactly"),
        ("equal", 8.03, 0.05 * 8.03, "m", "within 5 %"),
        ("equal", 50, 10, "epochs", "within 20 %"),
        ("equal", 358, 20, "m", "within 20 m"),
        ("equal", 1.7, 0.1, "%", "within 0.1 points"),
        ("at most", 6.65, 0, "m", "at most"),
        ("at least", 17.18, 0, "%", "at least"),
        ("at most", 0.4, 0.1, "", "at most, give or take 25 %"),
    ],
)
def test_every_claim_says_its_rule(rule, paper, tolerance, unit, text):
    line = claims.claim("MDE", paper, paper, rule=rule, tolerance=tolerance, unit=unit)
    assert line["rule"] == text


def test_unknown_rule_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"`rule` must be one of equal, at most, at least\. Received: about"):
        claims.claim("MDE", 6.65, 6.6, rule="about")


def test_a_count_is_not_rounded_in_the_ledger(tmp_path):
    lines = [
        claims.claim("messages", 130_429, 130_429, rule="equal"),
        claims.claim("MDE", 6.65, [5.31, 5.42, 5.33], rule="at most", unit="m"),
    ]
    shown = claims.shown_claims(results.write(lines, tmp_path / "claims.csv", claims.CLAIM_COLUMNS))
    assert list(shown["paper"]) == ["130,429", "6.65"]
    assert list(shown["ours"]) == ["130,429", "5.353 ± 0.15"]
    assert list(shown["rule"]) == ["exactly", "at most"]
    assert list(shown["claim"]) == ["messages", "MDE (m)"]


@pytest.fixture(scope="module")
def sets(campus, city):
    return protocols.official(campus), protocols.random(city)


def with_release(parts, **changes):
    """The parts as they were, of another release."""
    release = dataclasses.replace(parts.test.release, **changes)
    test = dataclasses.replace(parts.test, release=release)
    return dataclasses.replace(parts, test=test)


def test_a_claim_about_simulated_rows_cannot_be_checked(sets):
    for parts in sets:
        line = claims.claim_about(parts, "MDE", 1e6, [1.0, 2.0], rule="at most")
        assert line["verdict"] == claims.UNCHECKED and line["protocol"] == parts.protocol
        assert line["release"] == str(parts.test.release) and line["note"] == ""


def test_a_claim_about_a_subset_cannot_be_checked_and_says_why(sets):
    for parts in sets:
        subset = with_release(parts, sha256="of some rows")
        line = claims.claim_about(subset, "MDE", 1e6, [1.0, 2.0], rule="at most", note="Two seeds")
        assert line["verdict"] == claims.UNCHECKED
        assert line["note"].startswith("Two seeds; the paper used all messages")


def test_a_claim_about_the_papers_own_rows_is_checked(sets):
    for parts in sets:
        own = with_release(parts, sha256="of all rows", of_the_paper=True)
        line = claims.claim_about(own, "MDE", 6.65, 6.7, rule="at most", tolerance=0.1, unit="m", note="One seed")
        assert (line["verdict"], line["unit"], line["note"]) == (claims.HOLDS, "m", "One seed")
        assert claims.claim_about(own, "MDE", 6.65, 6.7, rule="at most")["verdict"] == claims.FAILS


def test_the_ledger_shows_where_a_claim_was_measured_and_leaves_out_what_is_empty(tmp_path):
    lines = [
        claims.claim("MDE", 6.65, None, rule="at most", release="file (9 rows)", protocol="official"),
        claims.claim("MDE", 6.65, 7.0, rule="at most", protocol="pooled"),
        claims.claim("MDE", 6.65, 6.5, rule="at most"),
    ]
    shown = claims.shown_claims(results.write(lines, tmp_path / "claims.csv", claims.CLAIM_COLUMNS))
    assert list(shown["measured on"]) == ["file (9 rows), official", "pooled", ""]
    assert list(shown["ours"]) == ["", "7", "6.5"]
    assert list(shown["verdict"]) == [claims.UNCHECKED, claims.FAILS, claims.HOLDS]
    pd.testing.assert_series_equal(shown["note"], pd.Series(["", "", ""], name="note"), check_dtype=False)
