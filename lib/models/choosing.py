"""What data can tell of how a network and stored fingerprints locate together, told by rows that neither has seen.

Each row of a survey is held out once. Its place has probabilities by networks that did not learn it, and is voted for
by fingerprints that are held in while it is out. So choices need no training, and are made on all rows.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lib.metrics import euclidean_errors
from lib.models.layers import LEAST_PROBABILITY
from lib.models.places import Neighbours, PlaceDecoder, Places, mixed, votes_of_places

EXPONENTS = (1.5, float(np.e))
WIDTHS = (0.01, 0.02, 0.05, 0.1)
OFFSETS = {"devices": ((0.0,), (-6.0, 0.0, 6.0))}  # in dB, where other devices are to come
SHARES = (0.0, 0.25, 0.75, 1.0)
SOFTNESSES, SHARPNESSES = (0.0, 4.0), (1.5,)
AS_HELD_OUT = "rows"  # where scans come as the held-out rows did, the lowest error is taken
BEYOND_CHANCE = 2.0  # elsewhere, standard errors by which another setting must be better than the usual one
MARGIN = 0.05  # and by this share of its error
MARGINS_OF_NETWORK = {"positions": 0.15, "devices": 0.15}  # and by this one, for a network to have more say than votes
ROWS = 800  # by which is chosen
UNSEEN = -1.0  # the similarity of a stored fingerprint that is held out with the row
ITERATIONS = 8  # of the median
PLAIN_NEIGHBOURS = 5  # of the kNN that is told beside it


@dataclass(frozen=True)
class Choice:
    """How network and stored fingerprints locate together in one environment.

    Attributes:
        share, width, exponent, offsets: see `places.Neighbours`.
        softness: in spacings of the places, see `places.PlaceDecoder`.
        sharpness: see `places.Places`.
    """

    share: float = 0.5
    width: float = 0.03
    exponent: float = 1.5
    offsets: tuple[float, ...] = (0.0,)
    softness: float = 1.0
    sharpness: float = 1.0

    def of_places(self, places: Places) -> Places:
        """Places that are decoded by this choice."""
        softness = places.softness * self.softness
        sharpness = places.sharpness * self.sharpness
        return dataclasses.replace(places, softness=softness, sharpness=sharpness)

    def votes(self) -> dict:
        """Those arguments of `places.Neighbours` that are chosen."""
        return {name: getattr(self, name) for name in ("share", "width", "exponent", "offsets")}


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Rows of one environment, told by what has not seen them.

    Attributes:
        probabilities: (n, c) of its places by the networks.
        similarity: of an exponent and offsets, (n, m) similarities to stored fingerprints, below 0 to those that are
            held out with the row.
        of_place: (m,) the place of each stored fingerprint.
        stored: (m, 2) metres, their positions.
        places: c places.
        position: (n, 2) metres, where the rows were taken.

    Indexing by rows gives the same of fewer rows.
    """

    probabilities: np.ndarray
    similarity: Callable[[float, Sequence[float]], np.ndarray]
    of_place: np.ndarray
    stored: np.ndarray
    places: Places
    position: np.ndarray

    def __getitem__(self, rows) -> "HeldOut":
        return dataclasses.replace(
            self,
            probabilities=self.probabilities[rows],
            similarity=lambda exponent, offsets: self.similarity(exponent, offsets)[rows],
            position=self.position[rows],
        )

    def both(self, choice: Choice) -> np.ndarray:
        """(n, c) probabilities of network and votes together."""
        similarity = self.similarity(choice.exponent, choice.offsets)
        votes = votes_of_places(similarity, self.of_place, choice.width, len(self.places))
        known = similarity.max(axis=1, keepdims=True) > 0
        share = np.where(known, np.float32(choice.share), np.float32(0))
        both = mixed(self.probabilities, votes, share, np.arange(len(self.places)))
        return np.maximum(both, LEAST_PROBABILITY)

    def errors(self, choice: Choice) -> np.ndarray:
        """(n,) metres, floors not counted."""
        decode = PlaceDecoder(choice.of_places(self.places), iterations=ITERATIONS)
        located = decode(np.log(self.both(choice)))
        return euclidean_errors(self.position, np.asarray(located["position"], dtype=np.float64))

    def errors_of_plain_neighbours(self) -> np.ndarray:
        """(n,) metres of the mean of the nearest stored positions, as by kNN."""
        similarity = self.similarity(float(np.e), (0.0,))
        count = min(PLAIN_NEIGHBOURS, similarity.shape[1])
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        is_seen = np.take_along_axis(similarity, nearest, axis=1) > UNSEEN
        weights = is_seen / np.maximum(is_seen.sum(axis=1, keepdims=True), 1)
        return euclidean_errors(self.position, np.einsum("nk,nkd->nd", weights, self.stored[nearest]))


def choose(rows: HeldOut, hold_out: str) -> Choice:
    """A choice with a low mean error on rows that were held out.

    Step by step: how stored fingerprints are compared, then over which distance they vote, how much they have to say,
    and how a position is decoded. The first step takes the best, and so do the others where scans come as the held-out
    rows did. Elsewhere the usual setting is left where another is better by more than chance and by `MARGIN`, for scans
    will differ from the survey in more than what could be held out.

    Args:
        rows: see the class.
        hold_out: one of `folds.HOLD_OUT`, the way in which they were.
    """
    compared = []
    for offsets in OFFSETS.get(hold_out, ((0.0,),)):
        compared += [Choice(exponent=exponent, offsets=offsets) for exponent in EXPONENTS]
    errors = {candidate: rows.errors(candidate) for candidate in compared}
    best = min(errors, key=lambda candidate: errors[candidate].mean())
    best_errors = errors[best]
    for setting, values in (("width", WIDTHS), ("share", SHARES), ("softness", SOFTNESSES), ("sharpness", SHARPNESSES)):
        others = [dataclasses.replace(best, **{setting: value}) for value in values]
        best, best_errors = better_than_usual(rows, best, best_errors, others, hold_out)
    return best


def better_than_usual(
    rows: HeldOut, usual: Choice, usual_errors: np.ndarray, others: Sequence[Choice], hold_out: str
) -> tuple[Choice, np.ndarray]:
    """The best of others that is better than the usual choice by more than chance and a margin, or that; its errors."""
    margin_of_network = MARGINS_OF_NETWORK.get(hold_out, 0.0)
    best, best_errors = usual, usual_errors
    for other in others:
        errors = rows.errors(other)
        margin = margin_of_network if other.share < usual.share else MARGIN
        is_better = hold_out == AS_HELD_OUT or clearly_lower(errors, usual_errors, margin)
        if errors.mean() < best_errors.mean() and is_better:
            best, best_errors = other, errors
    return best, best_errors


def clearly_lower(errors: np.ndarray, usual_errors: np.ndarray, margin: float = MARGIN) -> bool:
    """Whether (n,) errors are lower than the usual ones of the same rows by more than chance and a share of them."""
    gain = usual_errors - errors
    chance = gain.std() / np.sqrt(len(gain))
    return bool(gain.mean() > max(BEYOND_CHANCE * chance, margin * usual_errors.mean()))


def similarities(
    voting: Mapping, stored: np.ndarray, asked: np.ndarray, unseen: np.ndarray
) -> Callable[[float, Sequence[float]], np.ndarray]:
    """What `HeldOut` has as `similarity`; it works out each answer once.

    Args:
        voting: arguments of `places.Neighbours` that are not chosen.
        stored: (m, inputs) dBm of stored fingerprints.
        asked: (n, inputs) dBm of the rows.
        unseen: (n, m) whether a stored fingerprint is held out with a row.
    """

    @functools.cache
    def similarity(exponent: float, offsets: tuple[float, ...]) -> np.ndarray:
        layer = Neighbours(**voting, exponent=exponent, offsets=offsets)
        layer.build([stored.shape])
        layer.store(stored)
        blocks = [np.asarray(layer.similarity(rssi)) for rssi in np.array_split(asked, 8)]
        return np.where(unseen, UNSEEN, np.concatenate(blocks))

    return similarity


def alternatives(rows: HeldOut, choice: Choice) -> Mapping[str, float]:
    """Mean errors in metres of the choice on rows that were held out, and of what it was chosen from."""
    return {
        "network alone": float(rows.errors(dataclasses.replace(choice, share=0.0)).mean()),
        "votes alone": float(rows.errors(dataclasses.replace(choice, share=1.0)).mean()),
        "together": float(rows.errors(choice).mean()),
        "plain kNN": float(rows.errors_of_plain_neighbours().mean()),
    }
