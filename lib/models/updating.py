"""New fingerprints for a unified network that was fitted before: stored, without training.

Its members stay as they are: access points that they do not know do nothing in them. Fingerprints can be stored at any
time, at new places, too, and vote as the old ones do. Where an access point came or went at the places of the old
survey, old and new fingerprints are compared without it, or the new ones would always be nearer. The votes get a larger
share where that is clearly better, as for new places, which the members do not know; the old fingerprints are forgotten
where new ones all over the place are clearly better alone. Nothing else is chosen anew: held-out scans at places that
the network has learnt flatter it.
"""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib import quiet_import
from lib.data.fingerprints import FingerprintSet
from lib.data.folds import HOLD_OUT, Folds, possible
from lib.models import places, training
from lib.models.choosing import ROWS, Choice, HeldOut, better_than_usual, clearly_lower, similarities
from lib.models.layers import LEAST_PROBABILITY
from lib.models.places import Neighbours, PlaceDecoder, Places
from lib.models.unified import HeldOutRows, Unified, Votes, assembled, located_while_held_out, votes_name

with quiet_import():
    import keras

SHARES = (0.5, 0.75, 1.0)  # of the votes, where they had less
COVERED = 0.5  # share of the old places that needs new fingerprints before the old ones may be forgotten
BY_CHANCE = 0.05  # an access point came or went if chance explains the silence with less than this probability
FOLDS = 10  # of the new ones, each of which takes but a comparison
NEAR = 0.5  # sigmas within which a new position is an old place


def updated(unified: Unified, number: int, fingerprints: FingerprintSet, seed: int = 0) -> tuple[Unified, HeldOutRows]:
    """A unified network that has stored further fingerprints of one of its environments.

    Args:
        unified: fitted or loaded; it stays what it is.
        number: of the environment.
        fingerprints: newly surveyed, at positions in the network's frame of the environment.
        seed: which of them are held out together.

    Returns:
        The network, and how the new fingerprints that it can hear are located, each while it is held out.

    Raises:
        ValueError: if the network has one member or its environments share columns, or the new fingerprints have fewer
            than two different scans that hear a transmitter.
    """
    if _layer(unified.network, "ensemble") is None or _layer(unified.network, "fold") is not None:
        raise ValueError("expected a network of several members, without shared columns, to take new fingerprints")
    new = fingerprints[fingerprints.heard.any(axis=1)]
    transmitters = tuple(dict.fromkeys((*unified.transmitters, *new.transmitters)))
    decoder = unified.network.get_layer("decoder")
    all_places = _with_new_places(decoder.places, number, new)
    own_places = np.flatnonzero(all_places.environment == number)
    probabilities = _probabilities(unified, new, len(all_places))
    folds = Folds.of(new, possible(new, HOLD_OUT[0]), FOLDS, seed)
    layer = _layer(unified.network, votes_name(number))
    alone = _new_alone(new, number, transmitters, all_places)
    together = alone if layer is None else _with_old(alone, layer)
    to_choose_by = np.random.default_rng(seed).permutation(len(new))[:ROWS]
    usual = _usual_choice(layer)
    stored, held_out = together, _held_out(new, together, probabilities, all_places, own_places, folds)
    choice, errors = _with_share(held_out[to_choose_by], usual)
    if layer is not None and _covers(alone, together):
        held_out_alone = _held_out(new, alone, probabilities, all_places, own_places, folds)
        choice_alone, errors_alone = _with_share(held_out_alone[to_choose_by], usual)
        if clearly_lower(errors_alone, errors):
            stored, held_out, choice = alone, held_out_alone, choice_alone
    new_decoder = PlaceDecoder(all_places, iterations=decoder.iterations, name="decoder")
    told = HeldOutRows(
        rows=np.arange(len(new)),
        fold=folds.asked,
        located=located_while_held_out(probabilities, own_places, held_out.both(choice), new_decoder),
        neighbours_error=held_out.errors_of_plain_neighbours(),
    )
    used = np.arange(len(unified.transmitters))
    if choice.share > 0:
        used = np.union1d(used, stored.columns)
    is_heard = ~np.isnan(alone.rssi[:, used]).all(axis=1)
    transmitters = tuple(transmitters[input_number] for input_number in used)
    stored = stored.with_inputs(used)
    own_votes = Votes(stored.voting(own_places) | choice.votes(), stored.rssi, votes_name(number))
    votes = [own_votes, *_votes_of_others(unified, number, len(transmitters))]
    result = copy.copy(unified)
    result.network = _assembled(unified, number, len(transmitters), votes, new_decoder)
    result.transmitters = transmitters
    return result, told[is_heard]


# === Places and fingerprints ===


def _with_new_places(all_places: Places, number: int, new: FingerprintSet) -> Places:
    """The places, and after them positions of new fingerprints that are none of them."""
    label = places.labels(new)
    nearest = all_places.nearest(label, number)
    distance = np.linalg.norm(label[:, 2:] - all_places.position[nearest], axis=1)
    elsewhere = distance > NEAR * all_places.sigma[nearest]
    elsewhere |= (label[:, 0] != all_places.building[nearest]) | (label[:, 1] != all_places.floor[nearest])
    if not elsewhere.any():
        return all_places
    further = np.unique(label[elsewhere], axis=0)
    like = all_places[np.repeat(nearest[:1], len(further))]
    further_places = dataclasses.replace(
        like, building=further[:, 0].astype(int), floor=further[:, 1].astype(int), position=further[:, 2:]
    )
    return places.concatenated([all_places, further_places])


@dataclass(frozen=True, eq=False)
class Stored:
    """Fingerprints of one environment, old ones first.

    Attributes:
        rssi: (m, inputs) dBm.
        of_place: (m,) the place of each.
        is_old: (m,) bool.
        columns, minimum: see `Neighbours`.
    """

    rssi: np.ndarray
    of_place: np.ndarray
    is_old: np.ndarray
    columns: np.ndarray
    minimum: np.ndarray

    def with_inputs(self, used: np.ndarray) -> "Stored":
        """The same with these inputs alone."""
        is_used = np.isin(self.columns, used)
        columns = np.searchsorted(used, self.columns[is_used])
        return dataclasses.replace(self, rssi=self.rssi[:, used], columns=columns, minimum=self.minimum[is_used])

    def voting(self, own_places: np.ndarray) -> dict:
        """Those arguments of `Neighbours` that are not chosen."""
        return {
            "columns": self.columns,
            "minimum": self.minimum,
            "own_places": own_places,
            "of_place": self.of_place,
        }


def _new_alone(new: FingerprintSet, number: int, transmitters: Sequence[str], all_places: Places) -> Stored:
    """The new fingerprints."""
    rssi = new.scans.of(transmitters)
    columns = np.flatnonzero(~np.isnan(rssi).all(axis=0))
    return Stored(
        rssi=rssi,
        of_place=all_places.nearest(places.labels(new), number),
        is_old=np.zeros(len(rssi), dtype=bool),
        columns=columns,
        minimum=np.full(len(columns), new.not_heard_dbm),
    )


def _with_old(alone: Stored, layer: Neighbours) -> Stored:
    """What a layer has stored, copies of the new fingerprints left out, and these."""
    n_inputs = alone.rssi.shape[1]
    old, of_old_place = layer.fingerprints(n_inputs), np.array(layer.of_place)
    is_other = ~_is_copy(old, of_old_place, alone, layer)
    old, of_old_place = old[is_other], of_old_place[is_other]
    minimum = np.full(n_inputs, min(layer.levels.minimum))  # of a transmitter that the old ones do not know
    minimum[layer.levels.columns] = layer.levels.minimum
    columns = np.union1d(alone.columns, layer.levels.columns)
    shared = np.intersect1d(alone.of_place, of_old_place)
    columns = _still_there(old[np.isin(of_old_place, shared)], alone.rssi[np.isin(alone.of_place, shared)], columns)
    return Stored(
        rssi=np.concatenate([old, alone.rssi]),
        of_place=np.concatenate([of_old_place, alone.of_place]),
        is_old=np.arange(len(old) + len(alone.rssi)) < len(old),
        columns=columns,
        minimum=minimum[columns],
    )


def _is_copy(old: np.ndarray, of_old_place: np.ndarray, alone: Stored, layer: Neighbours) -> np.ndarray:
    """(m,) whether an old fingerprint says the same of the same place as a new one."""
    new = alone.rssi[:, layer.levels.columns]
    new = np.where(new > np.array(layer.levels.minimum), new, np.nan)  # as it is stored
    known = {(place, _rounded(rssi)) for place, rssi in zip(alone.of_place, new, strict=True)}
    pairs = zip(of_old_place, old[:, layer.levels.columns], strict=True)
    return np.array([(place, _rounded(rssi)) in known for place, rssi in pairs], dtype=bool)


def _rounded(rssi: np.ndarray) -> bytes:
    """To tell fingerprints apart that were stored: a stored level has lost its last digits."""
    return np.nan_to_num(np.round(rssi), nan=1.0).astype(np.int16).tobytes()


def _still_there(old: np.ndarray, new: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Those columns whose access points neither came nor went: all of them, where that would leave nothing to compare.

    Args:
        old, new: (m, inputs) and (n, inputs) dBm of fingerprints at the same places.
        columns: numbers of inputs.
    """
    if not len(old):
        return columns
    heard_before = (~np.isnan(old[:, columns])).sum(axis=0) / (len(old) + 1)  # a rate of 1 is never sure
    heard_now = (~np.isnan(new[:, columns])).sum(axis=0) / (len(new) + 1)
    went = (heard_now == 0) & ((1 - heard_before) ** len(new) < BY_CHANCE)
    came = (heard_before == 0) & ((1 - heard_now) ** len(old) < BY_CHANCE)
    if not ((heard_before > 0) & (heard_now > 0)).any():
        return columns
    return columns[~came & ~went]


# === What is chosen on the new fingerprints ===


def _usual_choice(layer: Neighbours | None) -> Choice:
    """How an environment is located already; its places have the softness and sharpness."""
    if layer is None:
        return Choice(share=0.0)
    settings = layer.settings()
    return Choice(settings["share"], settings["width"], settings["exponent"], tuple(settings["offsets"]))


def _covers(alone: Stored, together: Stored) -> bool:
    """Whether there are new fingerprints at so many of the old places that these may be forgotten."""
    old_places = np.unique(together.of_place[together.is_old])
    return len(old_places) > 0 and bool(np.isin(old_places, alone.of_place).mean() >= COVERED)


def _with_share(rows: HeldOut, usual: Choice) -> tuple[Choice, np.ndarray]:
    """The usual choice, or one with more votes that is clearly better, and its errors."""
    others = [dataclasses.replace(usual, share=share) for share in SHARES if share > usual.share]
    return better_than_usual(rows, usual, rows.errors(usual), others, HOLD_OUT[0])


def _held_out(
    new: FingerprintSet,
    stored: Stored,
    probabilities: np.ndarray,
    all_places: Places,
    own_places: np.ndarray,
    folds: Folds,
) -> HeldOut:
    """The new fingerprints, to each of which the old are known and those of other folds."""
    unseen = np.zeros((len(new), len(stored.rssi)), dtype=bool)
    unseen[:, ~stored.is_old] = folds.hidden[folds.asked]
    position = all_places.position[stored.of_place]
    position[~stored.is_old] = new.position
    own = probabilities[:, own_places]
    return HeldOut(
        probabilities=own / np.maximum(own.sum(axis=1, keepdims=True), LEAST_PROBABILITY),
        similarity=similarities(stored.voting(own_places), stored.rssi, stored.rssi[~stored.is_old], unseen),
        of_place=np.searchsorted(own_places, stored.of_place),
        stored=position,
        places=all_places[own_places].alone(),
        position=new.position,
    )


# === The network ===


def _layer(network: keras.Model, name: str) -> keras.layers.Layer | None:
    """The layer of this name, if there is one."""
    for layer in network.layers:
        if layer.name == name:
            return layer
    return None


def _probabilities(unified: Unified, new: FingerprintSet, n_places: int) -> np.ndarray:
    """(n, c) probabilities of the places by the members, 0 for places that they do not know."""
    network = unified.network
    last = _layer(network, "audible") or network.get_layer("ensemble")
    before_votes = keras.Model(network.input, last.output)
    logits = training.predict(before_votes, new.scans.of(unified.transmitters))["position"]
    known = np.asarray(keras.ops.softmax(logits))
    probabilities = np.zeros((len(new), n_places), dtype=np.float32)
    probabilities[:, : known.shape[1]] = known
    return probabilities


def _votes_of_others(unified: Unified, number: int, n_inputs: int) -> list[Votes]:
    """What the other environments have stored."""
    votes = []
    for other in range(len(unified.environments)):
        layer = _layer(unified.network, votes_name(other))
        if other != number and layer is not None:
            votes.append(Votes(layer.settings(), layer.fingerprints(n_inputs), layer.name))
    return votes


def _assembled(
    unified: Unified, number: int, n_inputs: int, votes: Sequence[Votes], decoder: PlaceDecoder
) -> keras.Model:
    """The network with the same members, more inputs, more places and other votes."""
    network = unified.network
    members = [layer for layer in network.layers if layer.name.startswith("member_")]
    levels = network.get_layer("levels")
    levels_settings = {name: getattr(levels, name) for name in ("columns", "minimum", "exponent", "heard")}
    audible = None
    layer = _layer(network, "audible")
    if layer is not None:
        further = n_inputs - len(layer.of_transmitter)
        of_transmitter = [*layer.of_transmitter, *[number] * further]
        audible = {"of_transmitter": of_transmitter, "of_output": decoder.places.environment}
    return assembled(members, levels_settings, audible, votes, decoder, n_inputs)
