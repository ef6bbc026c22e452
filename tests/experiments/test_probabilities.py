"""How likely each place is, by the network, by votes and by both; and the map of it."""

import dataclasses

import numpy as np
import pytest

from lib.experiments import probabilities
from lib.models.places import STRONGEST, mixed
from lib.use.localizer import Localizer

SMALL = {"folds": 2, "network": {"hidden": (16, 16)}, "batch_size": 64, "epochs": 1}


@pytest.fixture(scope="module")
def surveys(campus, city):
    return [campus[campus.heard.any(axis=1)][:200], city[:200]]


@pytest.fixture(scope="module")
def localizer(surveys):
    """Of two environments; in the first, votes have a quarter of the say, in the second none."""
    return Localizer.of(surveys, environments=[{"neighbours": {"share": 0.25}}, {"neighbours": None}], **SMALL)


def test_both_are_the_network_and_the_votes_by_their_share(localizer, surveys):
    found = probabilities.of_places(localizer.unified, surveys[0][:20].scans, surveys[0].name)
    assert found.share == 0.25 and len(found.places) == found.both.shape[1]
    for shares in (found.network, found.votes, found.both):
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-4)
    everything = np.arange(len(found.places))
    np.testing.assert_allclose(found.both, mixed(found.network, found.votes, 0.25, everything), atol=1e-4)


def test_the_most_similar_stored_fingerprint_of_a_learnt_scan_is_itself(localizer, surveys):
    few = surveys[0].heard.sum(axis=1) <= STRONGEST  # of others only the strongest transmitters are compared
    scans = surveys[0][few][:20]
    found = probabilities.of_places(localizer.unified, scans.scans, scans.name)
    origin = np.array(localizer.environments[0].origin)
    for number in range(len(scans)):
        positions, similarity = found.nearest(number, 3)
        assert similarity[0] == pytest.approx(1, abs=1e-3) and (np.diff(similarity) <= 0).all()
        off = np.linalg.norm(positions + origin - scans.position[number], axis=1)
        assert off[similarity > 1 - 1e-3].min() < 1e-3


def test_without_votes_the_network_decides_alone(localizer, surveys):
    found = probabilities.of_places(localizer.unified, surveys[1][:20].scans, surveys[1].name)
    assert found.votes is None and found.similarity is None
    np.testing.assert_array_equal(found.both, found.network)


def test_the_position_is_decoded_of_these_probabilities(localizer, surveys):
    """With a network so brief the likeliest floor of both is the floor that is told."""
    scans = surveys[0][:20]
    found = probabilities.of_places(localizer.unified, scans.scans, scans.name)
    told = localizer.unified.predict(scans.scans)
    for number in range(len(scans)):
        in_building = found.places.building == told.building[number]
        floors = np.unique(found.places.floor[in_building])
        shares = [found.both[number][in_building & (found.places.floor == floor)].sum() for floor in floors]
        assert floors[np.argmax(shares)] == told.floor[number]


def test_the_map_has_a_panel_for_each_distribution_and_the_radii(localizer, surveys):
    for scans, panels in ((surveys[0], 3), (surveys[1], 2)):
        figure = probabilities.drawn(localizer, scans, 0, scans.position)
        assert len(figure.axes) == panels
        labels = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
        assert {"located here", "true position", "50 % radius", "90 % radius"} <= set(labels)
        assert "m)" in figure.axes[0].get_xlabel() and "m)" in figure.axes[0].get_ylabel()


def test_a_scan_that_hears_nothing_is_drawn_without_an_estimate(localizer, surveys):
    silent = dataclasses.replace(surveys[0][:1], rssi=np.full_like(surveys[0].rssi[:1], np.nan))
    figure = probabilities.drawn(localizer, silent, 0, silent.position)
    assert figure.get_suptitle().endswith("not located")
