"""Architectures: what is drawn is what the networks have."""

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest

from lib.models import by_environment, layers, paper, training, unified
from lib.models.places import PlaceDecoder, Places
from lib.report.figures import architecture
from lib.report.figures.architecture import HEAD, HIDDEN, STORED, TRANSFERRED

TITLES = ("source", "target")
INPUTS = ({"gateways": 7}, {"access points": 12})


@pytest.fixture(autouse=True)
def closed():
    """No figure outlives its test."""
    yield
    plt.close("all")


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_boxes_are_the_dense_layers_and_outputs_are_heads():
    network = paper.umlp(5)
    boxes = architecture.dense_boxes(network)
    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    assert [box.text.split(", ")[0] for box in boxes] == [f"dense {layer.units}" for layer in dense]
    assert [box.colour for box in boxes[-2:]] == [HEAD, HEAD]
    assert {box.colour for box in boxes[:-2]} == {HIDDEN}
    assert architecture.after_each(network) == "batch normalisation, ReLU"


def test_only_what_has_the_same_weights_is_drawn_as_transferred():
    source, target = paper.localizer(7), paper.localizer(12)
    assert "transferred" not in texts(architecture.encoder(source, target, TITLES, INPUTS))
    training.transfer(source, target)
    figure = architecture.encoder(source, target, TITLES, INPUTS)
    assert texts(figure).count("transferred") == 1
    base = [layer for layer in target.get_layer("base_model").layers if isinstance(layer, keras.layers.Dense)]
    edges = [patch.get_edgecolor()[:3] for patch in figure.axes[0].patches]
    boxes_and_frames = 2 * (len(base) + 1)
    assert edges.count(TRANSFERRED) == boxes_and_frames


def test_inputs_are_those_of_the_network():
    assert {"3 access points", "2 gateways"} <= set(
        texts(architecture.umlp(paper.umlp(5), {"access points": 3, "gateways": 2}))
    )
    with pytest.raises(ValueError, match=r"5 inputs. Received: 4"):
        architecture.umlp(paper.umlp(5), {"access points": 4})
    source, target = paper.localizer(7), paper.localizer(13)
    with pytest.raises(ValueError, match=r"13 inputs. Received: 12"):
        architecture.encoder(source, target, TITLES, INPUTS)


def unified_network(n_members: int) -> keras.Model:
    """A unified network of four transmitters and three places, as it is before it learns."""
    places = Places(
        environment=np.zeros(3, int),
        building=np.zeros(3, int),
        floor=np.zeros(3, int),
        position=np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]),
        sigma=np.ones(3),
        sharpness=np.ones(3),
        softness=np.ones(3),
    )
    levels = {"columns": [0, 1, 3], "minimum": [-100.0] * 3, "exponent": 1.5, "heard": False}
    members = []
    for number in range(n_members):
        member = layers.member_network(3, 3, hidden=(8, 6), dropout=0.1)
        member.name = f"member_{number}"
        members.append(member)
    voting = {"columns": [0, 1, 3], "minimum": [-100.0] * 3, "own_places": [0, 1, 2], "of_place": [0, 2], "share": 0.25}
    votes = unified.Votes(voting, np.full((2, 4), -50.0, np.float32), unified.votes_name(0))
    return unified.assembled(members, levels, None, [votes], PlaceDecoder(places, name="decoder"), 4)


@pytest.mark.parametrize(("n_members", "n_drawn"), [(1, 1), (3, 3), (6, 4)])
def test_a_unified_network_shows_its_members_and_what_votes(n_members, n_drawn):
    figure = architecture.unified(unified_network(n_members), ["office"])
    drawn = texts(figure)
    assert drawn.count("dense 8") == drawn.count("dense 6") == drawn.count("dense 3") == n_drawn
    assert ("mean probability of 6 members" in drawn) == (n_members == 6)
    assert "2 stored scans vote (25%): office" in drawn
    assert "geometric median of 3 places" in drawn
    assert {"RSSI of 4 transmitters (dBm)", "powed RSSI of the 3 heard in training"} <= set(drawn)
    assert STORED in [patch.get_edgecolor()[:3] for patch in figure.axes[0].patches]


def test_the_heads_of_environments_and_places_stand_in_one_box():
    member = by_environment.member_of_several(3, (4, 2), hidden=(8,), dropout=0.1)
    shown = [box.text for box in architecture.dense_boxes(member)]
    assert shown == ["dense 8", "dense 2+6, linear"]


def test_every_layer_that_a_unified_network_can_have_is_named_in_words():
    further = layers.Further(2, name="further")
    fold = layers.Fold([3, 5], name="fold")
    assert architecture._layer_box(further, []).text == "2 further places"
    assert architecture._layer_box(fold, []).text == "5 columns that all environments share"


def test_everything_lies_on_the_sheet():
    networks = {
        "umlp": architecture.umlp(paper.umlp(321), {"access points": 249, "gateways": 72}),
        "unified": architecture.unified(unified_network(4), ["ujiindoorloc"]),
        "encoder": architecture.encoder(
            paper.localizer(7), paper.localizer(12), ("source: outdoors (LoRaWAN)", "target: indoors (Wi-Fi)"), INPUTS
        ),
    }
    for name, figure in networks.items():
        figure.canvas.draw()
        sheet = figure.bbox
        for text in figure.axes[0].texts:
            extent = text.get_window_extent()
            assert sheet.x0 <= extent.x0 and extent.x1 <= sheet.x1, (name, text.get_text())
            assert sheet.y0 <= extent.y0 and extent.y1 <= sheet.y1, (name, text.get_text())
