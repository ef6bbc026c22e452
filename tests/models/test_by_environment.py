import keras
import numpy as np
import pytest

from lib.models import by_environment, places
from lib.models.places import PlaceLoss, Places

NAN = np.nan
COUNTS = (3, 2)
STILL = {"offset": 0.0, "noise": 0.0, "loss": 0.0, "deafness": 0.0}


def rows(columns, n_inputs):
    """Scans of two environments in turn, each heard in its own inputs alone, and where they were taken."""
    chance = np.random.default_rng(0)
    environment = np.tile([0, 1], 20)
    rssi = np.full((40, n_inputs), NAN, dtype=np.float32)
    for row, number in enumerate(environment):
        rssi[row, columns[number]] = chance.uniform(-100, -40, len(columns[number]))
    rssi[chance.random(rssi.shape) < 0.2] = NAN
    target = np.column_stack([environment, np.zeros(40), np.zeros(40), chance.uniform(0, 30, (40, 2))])
    return rssi, target.astype(np.float32)


@pytest.fixture
def five_places():
    parts = []
    for count, apart in zip(COUNTS, (10.0, 25.0), strict=True):
        position = apart * np.column_stack([np.arange(count), np.zeros(count)])
        none = np.zeros(count, int)
        parts.append(Places(none, none, none, position, np.full(count, 5.0), np.ones(count), np.zeros(count)))
    return places.joined(parts)


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize(
    "columns", [([0, 1, 2], [3, 4, 5, 6]), ([0, 1, 2], [0, 1, 2, 3]), ([0, 1, 2], [2, 3])], ids=["own", "folded", "one"]
)
def test_what_it_learns_from_is_the_loss_over_all_places(five_places, columns, heard):
    n_inputs = 1 + max(columns[1])
    in_use = [number for number in range(n_inputs) if number != 1]
    levels = {"columns": in_use, "minimum": [-105.0] * len(in_use), "exponent": 1.5, "heard": heard}
    augmentation = {name: np.full(n_inputs, value) for name, value in STILL.items()}
    member = by_environment.member_of_several(len(in_use) * (1 + heard), COUNTS, hidden=(8, 6), dropout=0.0)
    network = by_environment.LearningByEnvironment(
        member, columns=columns, minimum=np.full(n_inputs, -105.0), levels=levels, augmentation=augmentation
    )
    loss = PlaceLoss(five_places)
    network.compile(loss=loss)
    rssi, target = rows(columns, n_inputs)
    found = float(network.compute_loss(rssi, target, network(rssi, training=True)))
    whole = member(network.whole_levels(rssi), training=True)
    assert np.exp(whole).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert found == pytest.approx(float(loss(target, whole)), rel=1e-5)


def test_a_place_is_as_likely_as_its_environment_and_itself_within():
    layer = by_environment.PlacesOfEnvironments(COUNTS)
    environment = np.log(np.float32([[0.25, 0.75]]))
    own = np.log(np.float32([[1, 1, 2, 5, 5]]))
    expected = [0.0625, 0.0625, 0.125, 0.375, 0.375]
    assert np.exp(layer([environment, own]))[0] == pytest.approx(expected, abs=1e-6)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert np.array_equal(again([environment, own]), layer([environment, own]))
