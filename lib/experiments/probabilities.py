"""How a unified network comes to a position: the probabilities of places by the network, by votes, and by both."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import quiet_import
from lib.data.fingerprints import FingerprintSet, Scans
from lib.models import places
from lib.models.layers import LEAST_PROBABILITY
from lib.models.places import Neighbours, Places
from lib.models.unified import Unified, votes_name
from lib.report import figures
from lib.use.localizer import Localizer

with quiet_import():
    import keras


NEAREST = 5  # stored fingerprints that are drawn


@dataclass(frozen=True, eq=False)
class PlaceProbabilities:
    """Probabilities of the places of one environment, for scans that are taken for scans of it.

    Attributes:
        places: c places, in the network's frame.
        network: (n, c) by the network alone.
        votes: (n, c) by the votes of stored fingerprints alone; None where none vote.
        both: (n, c) of which the position is decoded.
        share: of the votes in them.
        similarity: (n, m) to each stored fingerprint, 1 for equal scans; None where none vote.
        of_fingerprint: (m,) the number of each stored fingerprint's place.
    """

    places: Places
    network: np.ndarray
    votes: np.ndarray | None
    both: np.ndarray
    share: float
    similarity: np.ndarray | None
    of_fingerprint: np.ndarray | None

    def nearest(self, scan: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(count, 2) metres, the places of the most similar stored fingerprints, and (count,) their similarities."""
        similarity = self.similarity[scan]
        order = np.argsort(-similarity, kind="stable")[:count]
        return self.places.position[self.of_fingerprint[order]], similarity[order]


def of_places(unified: Unified, scans: Scans, environment: str) -> PlaceProbabilities:
    """How likely each place of an environment is, for some scans.

    Args:
        unified: a fitted network that classifies places.
        scans: n scans; transmitters that it does not know do nothing.
        environment: the name of one that it learnt.
    """
    number = unified.environments.index(environment)
    rssi = scans.of(unified.transmitters)
    network = unified.network
    decoder = network.get_layer("decoder")
    own = np.flatnonzero(decoder.places.environment == number)
    both = _probabilities(network, decoder.input, rssi, own)
    layer = _layer(network, votes_name(number))
    if layer is None:
        return PlaceProbabilities(decoder.places[own], both, None, both, 0.0, None, None)
    scan, logits = layer.input
    by_network = _probabilities(network, logits, rssi, own)
    similarity, votes = _votes(keras.Model(network.input, scan)(rssi), layer, len(decoder.places))
    of_fingerprint = np.searchsorted(own, layer.of_place)
    return PlaceProbabilities(
        decoder.places[own], by_network, votes[:, own], both, layer.share, similarity, of_fingerprint
    )


def _layer(network: keras.Model, name: str) -> Neighbours | None:
    """A layer by its name, if the network has it."""
    for layer in network.layers:
        if layer.name == name:
            return layer
    return None


def _probabilities(network: keras.Model, logits, rssi: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(n, o) probabilities of an environment's places, from a tensor of the network with logits of all places."""
    outputs = keras.ops.convert_to_numpy(keras.Model(network.input, logits)(rssi))
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(outputs))[:, own]
    total = probabilities.sum(axis=1, keepdims=True)
    return probabilities / np.maximum(total, LEAST_PROBABILITY)


def _votes(rssi, layer: Neighbours, n_places: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, m) similarities to stored fingerprints, and (n, c) their votes."""
    similarity = layer.similarity(rssi)
    votes = places.votes_of_places(similarity, layer.of_place, layer.width, n_places)
    return keras.ops.convert_to_numpy(similarity), keras.ops.convert_to_numpy(votes)


def drawn(localizer: Localizer, scans: FingerprintSet, number: int, plan: np.ndarray) -> Figure:
    """How a localizer comes to the position of one scan, on a map.

    Args:
        localizer: a fitted one.
        scans: of one of its environments, at known positions.
        number: of the scan that is drawn.
        plan: (m, 2) metres, positions that are drawn in grey.
    """
    scan = scans[number : number + 1]
    found = of_places(localizer.unified, scan.scans, scan.name)
    located = localizer.locate(pd.DataFrame(scan.rssi, columns=list(scan.transmitters))).iloc[0]
    (origin,) = [known.origin for known in localizer.environments if known.name == scan.name]
    panels = {"network alone": found.network[0]}
    nearest = None
    if found.votes is not None:
        panels["votes of stored fingerprints alone"] = found.votes[0]
        nearest = found.nearest(0, NEAREST)[0] + np.array(origin)
    panels[f"both, {found.share:.0%} by votes"] = found.both[0]
    radii = {f"{column.removeprefix('radius_')} %": located[column] for column in located.index if "radius" in column}
    title = f"A scan that hears {scan.heard.sum()} transmitters: not located"
    if located["located"]:
        error = np.hypot(*(located[["x", "y"]].to_numpy(dtype=float) - scan.position[0]))
        title = f"A scan that hears {scan.heard.sum()} transmitters: located {error:.1f} m from its true position"
    return figures.place_probabilities(
        panels,
        found.places.position + np.array(origin),
        found.places.floor,
        scan.position[0],
        (located["x"], located["y"]),
        radii,
        scan.name,
        title,
        nearest=nearest,
        plan=plan,
        unit="m" if scan.frame.ground_scale == 1 else "Mercator m",
    )
