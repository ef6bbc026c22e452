"""What is chosen for an environment on rows that were held out, and what it is chosen from."""

import dataclasses

import numpy as np
import pytest
from scipy import special

from lib.models import choosing
from lib.models.choosing import Choice, HeldOut, alternatives, choose
from lib.models.places import Places

COUNT = 10  # places, 10 m apart on a line, with one stored fingerprint each


def on_a_line():
    return Places(
        environment=np.zeros(COUNT, int),
        building=np.full(COUNT, -1),
        floor=np.full(COUNT, -1),
        position=np.column_stack([10.0 * np.arange(COUNT), np.zeros(COUNT)]),
        sigma=np.full(COUNT, 5.0),
        sharpness=np.ones(COUNT),
        softness=np.full(COUNT, 1.0),
    )


def surely(place):
    """(n, c) probabilities or similarities: all is at one place."""
    return np.eye(COUNT, dtype=np.float32)[place]


def told(true, network, votes):
    """Rows at places of these numbers, where network and stored fingerprints take them to be at others."""
    return HeldOut(
        probabilities=surely(network),
        similarity=lambda exponent, offsets: surely(votes),
        of_place=np.arange(COUNT),
        stored=on_a_line().position,
        places=on_a_line(),
        position=on_a_line().position[true],
    )


class Errors:
    """Stands for held-out rows whose errors are known of every choice."""

    def __init__(self, mean_of, rows=200):
        self.mean_of = mean_of
        self.rows = rows

    def errors(self, choice):
        return np.full(self.rows, float(self.mean_of(choice)))


@pytest.fixture
def true():
    """(n,) numbers of the places where the rows were taken."""
    return np.arange(40) % COUNT


@pytest.fixture
def short_median(monkeypatch):
    """Decodes positions in few steps, where many settings are compared."""
    monkeypatch.setattr(choosing, "ITERATIONS", 2)


# === What is chosen ===


def test_the_usual_setting_stays_where_nothing_is_better(true, short_median):
    assert choose(told(true, network=true, votes=true), "positions") == Choice()


def test_what_a_single_row_says_is_chance(true, short_median):
    network = true.copy()
    network[0] = COUNT - 1
    assert choose(told(true, network, votes=true), "positions") == Choice()


def test_whoever_is_right_alone_has_all_the_say(true, short_median):
    wrong = COUNT - 1 - true
    assert choose(told(true, network=wrong, votes=true), "positions").share == 1.0
    assert choose(told(true, network=true, votes=wrong), "positions").share == 0.0


@pytest.mark.parametrize(("share", "gain", "chosen"), [(1.0, 0.04, 0.5), (1.0, 0.1, 1.0), (0.75, 0.1, 0.75)])
def test_another_setting_must_be_better_by_a_margin(share, gain, chosen):
    rows = Errors(lambda choice: 1 - gain * (choice.share == share))
    assert choose(rows, "positions").share == chosen


@pytest.mark.parametrize(("share", "gain", "chosen"), [(0.0, 0.1, 0.5), (0.25, 0.1, 0.5), (0.0, 0.2, 0.0)])
def test_for_more_say_a_network_needs_a_larger_margin(share, gain, chosen):
    rows = Errors(lambda choice: 1 - gain * (choice.share == share))
    assert choose(rows, "positions").share == chosen


def test_where_scans_come_as_the_held_out_rows_no_margin_is_needed():
    rows = Errors(lambda choice: 1 - 0.01 * (choice.share == 0.25))
    assert choose(rows, "rows").share == 0.25
    assert choose(rows, "positions").share == Choice().share


def test_of_several_better_settings_the_best_is_taken():
    rows = Errors(lambda choice: {0.02: 0.8, 0.05: 0.7, 0.1: 0.9}.get(choice.width, 1.0))
    assert choose(rows, "positions") == Choice(width=0.05)


def test_steps_go_on_from_what_was_chosen_before():
    better = {"width": 0.1, "share": 1.0, "softness": 4.0, "sharpness": 1.5}

    def mean_of(choice):
        return 0.8 ** sum(getattr(choice, name) == value for name, value in better.items())

    assert choose(Errors(mean_of), "positions") == Choice(**better)


def test_of_the_ways_to_compare_the_best_is_taken_without_a_margin():
    rows = Errors(lambda choice: 1 - 0.01 * (choice.exponent == float(np.e)))
    assert choose(rows, "positions") == Choice(exponent=float(np.e))


def test_only_for_other_devices_scans_are_compared_as_louder_and_weaker_ones():
    rows = Errors(lambda choice: 1 / len(choice.offsets))
    assert choose(rows, "devices").offsets == (-6.0, 0.0, 6.0)
    for hold_out in ("positions", "rows", "areas"):
        assert choose(rows, hold_out).offsets == (0.0,)


# === What it is chosen from ===


def test_network_and_votes_are_mixed_by_the_share(true):
    rng = np.random.default_rng(0)
    similarity = rng.random((len(true), COUNT)).astype(np.float32)
    rows = dataclasses.replace(told(true, true, true), similarity=lambda exponent, offsets: similarity)
    votes = special.softmax(similarity / 0.1, axis=1)
    expected = 0.75 * rows.probabilities + 0.25 * votes
    assert rows.both(Choice(share=0.25, width=0.1)) == pytest.approx(expected, abs=1e-5)


def test_votes_that_see_nothing_leave_the_network_alone(true):
    rows = told(true, network=true, votes=true)
    nothing = np.zeros((len(true), COUNT), dtype=np.float32)
    nothing[:, ::2] = -1  # held out with the row
    blind = dataclasses.replace(rows, similarity=lambda exponent, offsets: nothing)
    assert blind.both(Choice(share=1.0)) == pytest.approx(rows.probabilities)


def test_fingerprints_that_are_held_out_with_a_row_have_no_vote(true):
    similarity = np.where(surely(true) > 0, -1, 0.2).astype(np.float32)
    rows = dataclasses.replace(told(true, true, true), similarity=lambda exponent, offsets: similarity)
    votes = rows.both(Choice(share=1.0))
    assert (votes[np.arange(len(true)), true] < 1e-6).all()


def test_errors_are_metres_between_the_rows_and_where_they_are_located(true):
    rows = told(true, network=np.roll(true, 1), votes=true)
    expected = 10.0 * np.abs(np.roll(true, 1) - true)
    sharp = Choice(share=0.0, softness=0.0, sharpness=4.0)
    assert rows.errors(sharp) == pytest.approx(expected, abs=0.1)
    assert rows.errors(dataclasses.replace(sharp, share=1.0)) == pytest.approx(0, abs=0.1)


def test_plain_neighbours_tell_the_mean_of_the_nearest_positions(true):
    rng = np.random.default_rng(0)
    similarity = rng.random((len(true), COUNT))
    asked = []

    def similar(exponent, offsets):
        asked.append((exponent, offsets))
        return similarity

    rows = dataclasses.replace(told(true, true, true), similarity=similar)
    nearest = np.argsort(-similarity, axis=1)[:, : choosing.PLAIN_NEIGHBOURS]
    expected = np.abs(rows.stored[nearest, 0].mean(axis=1) - 10.0 * true)
    assert rows.errors_of_plain_neighbours() == pytest.approx(expected)
    assert asked == [(float(np.e), (0.0,))]


def test_some_rows_are_told_as_among_all(true):
    rows = told(true, network=np.roll(true, 1), votes=np.roll(true, 3))
    choice = Choice(share=0.3)
    assert rows[5:20].errors(choice) == pytest.approx(rows.errors(choice)[5:20], abs=1e-3)
    assert rows[5:20].errors_of_plain_neighbours() == pytest.approx(rows.errors_of_plain_neighbours()[5:20])


def test_alternatives_are_mean_errors_of_the_choice_and_of_each_part_alone(true):
    rows = told(true, network=np.roll(true, 1), votes=true)
    choice = Choice(share=0.75)
    means = alternatives(rows, choice)
    assert means["together"] == pytest.approx(rows.errors(choice).mean())
    assert means["network alone"] == pytest.approx(rows.errors(Choice(share=0.0)).mean())
    assert means["votes alone"] == pytest.approx(rows.errors(Choice(share=1.0)).mean())
    assert means["plain kNN"] == pytest.approx(rows.errors_of_plain_neighbours().mean())


def test_a_choice_scales_how_its_places_are_decoded():
    chosen = Choice(softness=4.0, sharpness=1.5).of_places(on_a_line())
    assert set(chosen.softness) == {4.0} and set(chosen.sharpness) == {1.5}
    assert np.array_equal(chosen.position, on_a_line().position)
