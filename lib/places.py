"""Places: what a network that classifies positions chooses among, in one environment or in several.

Indoors a place is a reference point, where scans were taken; where hardly two scans share a position, as outdoors, it
is a cell of a grid. A network learns how near each place is to the scan's position (`PlaceLoss`), the fingerprints
that it learnt from may have a say of their own (`Neighbours`), and environment, building, floor and position are all
decoded from the probabilities of the places (`PlaceDecoder`).
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lib import quiet_import
from lib.fingerprints import FingerprintSet
from lib.models import IMPOSSIBLE

with quiet_import():
    import keras
    from keras import layers, ops

REVISITED = 4  # so many rows a position, and positions are reference points
CELLS = 600  # of a grid, about
FLOOR_SIGMAS, BUILDING_SIGMAS = 4.0, 8.0  # how far another floor or building is, in the places' sigma
SIGMA_OF_CELL, SIGMA_OF_SPACING = 2 / 3, 2.0
NEIGHBOURS = {"offsets": (0.0,), "share": 0.5, "width": 0.03, "strongest": 24}  # see `unified.train` and `Neighbours`


@dataclass(frozen=True, eq=False)
class Places:
    """The places of one environment or of several.

    Attributes:
        environment: (c,) integers, which environment of several.
        building, floor: (c,) integers, -1 where there are none.
        position: (c, 2) float64 metres in the frame of the place's environment.
        sigma: (c,) metres, how far from a scan's position a place still counts as near.
        sharpness: (c,) the power of the probabilities that decode the position: above 1, less likely places count less.
    """

    environment: np.ndarray
    building: np.ndarray
    floor: np.ndarray
    position: np.ndarray
    sigma: np.ndarray
    sharpness: np.ndarray

    def __len__(self) -> int:
        return len(self.position)

    def config(self) -> dict[str, list]:
        """Its fields as lists, for JSON."""
        return {field.name: getattr(self, field.name).tolist() for field in dataclasses.fields(self)}

    def nearest(self, label: np.ndarray, environment: int) -> np.ndarray:
        """(n, 4) `labels` of an environment's rows → (n,) numbers of the nearest places on their floors."""
        own = np.flatnonzero(self.environment == environment)
        of = np.column_stack([self.building[own], self.floor[own], self.position[own]])
        return own[cKDTree(_beside_each_other(of)).query(_beside_each_other(label))[1]]

    @classmethod
    def of(
        cls,
        fingerprints: FingerprintSet,
        cell: float | None = None,
        sigma: float | None = None,
        margin: float = 0.0,
        sharpness: float = 1.0,
    ) -> "Places":
        """The reference points or grid cells of training rows.

        Args:
            fingerprints: training rows of one environment.
            cell: side of the grid in metres, 0 for the positions themselves; None takes the positions if on average
                `REVISITED` rows share one, else a grid of about `CELLS` cells, or of fewer for few rows.
            sigma: in metres; None stands for 2/3 of the cell, or twice the median spacing of reference points.
            margin: in metres; a grid also has the cells so near to a training row that hold none. By soft targets
                larger than a cell, a network learns of them, too.
            sharpness: see the attribute.

        Raises:
            ValueError: if cell or margin is negative, or sigma is not positive.
        """
        for name, value in {"cell": cell, "margin": margin}.items():
            if value is not None and value < 0:
                raise ValueError(f"`{name}` must not be negative. Received: {name}={value}")
        if sigma is not None and not sigma > 0:
            raise ValueError(f"`sigma` must be positive. Received: sigma={sigma}")
        label = labels(fingerprints)
        if cell is None:
            cell = 0.0 if len(label) >= REVISITED * len(_distinct(label, 0)[0]) else _cell_for(label)
        keys, members = _distinct(label, cell)
        order = np.argsort(members, kind="stable")
        groups = np.split(label[order], np.flatnonzero(np.diff(members[order])) + 1)
        position = np.array([np.median(group[:, 2:], axis=0) for group in groups])
        if cell and margin:
            empty = _empty_cells(keys, label, cell, margin)
            keys = np.concatenate([keys, empty])
            position = np.concatenate([position, (empty[:, 2:] + 0.5) * cell])
        if sigma is None:
            sigma = SIGMA_OF_CELL * cell if cell else SIGMA_OF_SPACING * _spacing(keys)
        building, floor = keys[:, :2].astype(np.int64).T
        sigma, sharpness = (np.full(len(keys), float(value)) for value in (sigma, sharpness))
        return cls(np.zeros(len(keys), np.int64), building, floor, position, sigma, sharpness)


def labels(fingerprints: FingerprintSet) -> np.ndarray:
    """(n, 4) float64: building, floor (-1 where there are none) and position in metres."""
    absent = np.full(len(fingerprints), -1)
    fields = [getattr(fingerprints, name) for name in ("building", "floor")]
    return np.column_stack([*(absent if field is None else field for field in fields), fingerprints.position])


def joined(environments: Sequence[Places]) -> Places:
    """The places of several environments, numbered in this order."""
    numbers = np.repeat(np.arange(len(environments)), [len(places) for places in environments])
    fields = [field.name for field in dataclasses.fields(Places) if field.name != "environment"]
    return Places(numbers, **{name: np.concatenate([getattr(p, name) for p in environments]) for name in fields})


def _distinct(label: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) labels → the distinct ones, positions by their cell, and (n,) which one each row has."""
    keys = np.column_stack([label[:, :2], np.floor(label[:, 2:] / cell) if cell else label[:, 2:]])
    return np.unique(keys, axis=0, return_inverse=True)


def _cell_for(label: np.ndarray) -> float:
    """Side in metres of a grid of which about `CELLS` cells hold rows, or `REVISITED` times fewer than there are spots.

    A spot is a thousandth of the extent wide: where most rows were sent from one yard, it is the others that count.
    """
    side = max(np.ptp(label[:, 2:], axis=0).max(), 1.0)
    spots, _ = _distinct(label, side / 1000)
    spots = spots * [1, 1, side / 1000, side / 1000]
    wanted = min(CELLS, len(spots) // REVISITED)
    while len(_distinct(spots, side)[0]) < wanted:
        side /= 1.1
    return float(side)


def _beside_each_other(label: np.ndarray) -> np.ndarray:
    """(n, 4) labels → (n, 3) metres in which other floors and buildings are far away."""
    return np.column_stack([label[:, 2:], 1e7 * label[:, 0] + 1e5 * label[:, 1]])


def _empty_cells(keys: np.ndarray, label: np.ndarray, cell: float, margin: float) -> np.ndarray:
    """(m, 4) further keys of cells whose centre is at most `margin` metres from a row."""
    reach = int(np.ceil(margin / cell))
    steps = np.array(list(itertools.product([0], [0], *[range(-reach, reach + 1)] * 2)))
    near = np.unique((keys[:, None] + steps).reshape(-1, 4), axis=0)
    centres = near.copy()
    centres[:, 2:] = (near[:, 2:] + 0.5) * cell
    distance, _ = cKDTree(_beside_each_other(label)).query(_beside_each_other(centres))
    held = (near[:, None] == keys).all(axis=2).any(axis=1)
    return near[(distance <= margin) & ~held]


def _spacing(places: np.ndarray) -> float:
    """Median distance in metres of a reference point to the nearest on the same floor."""
    apart = _beside_each_other(places)
    nearest, _ = cKDTree(apart).query(apart, k=min(2, len(apart)))
    return float(max(np.median(np.atleast_2d(nearest)[:, -1]), 1e-3))


# === In a network ===


class PlaceLoss(keras.losses.Loss):
    """Cross-entropy between a softmax over places and soft targets ∝ exp(−distance / sigma).

    The distance to a place on another floor or in another building is longer by some sigmas; places of another
    environment have no part.

    Args:
        places: c places.

    Call:
        y_true: (n, 5) environment, building, floor, east, north.
        y_pred: (n, c) logits.
    """

    def __init__(self, places: Places):
        super().__init__(name="places")
        self.places = places

    def call(self, y_true, y_pred):
        of, (east, north) = self.places, (y_true[:, column : column + 1] for column in (3, 4))
        metres = ops.sqrt((east - _row(of.position[:, 0])) ** 2 + (north - _row(of.position[:, 1])) ** 2 + 1e-9)
        floors, on_floor = np.unique([of.environment, of.building, of.floor], axis=1, return_inverse=True)
        on_floor = np.eye(floors.shape[1], dtype=np.float32)[:, on_floor.ravel()]
        environment, building, floor = (y_true[:, number : number + 1] - _row(floors[number]) for number in range(3))
        sigmas = FLOOR_SIGMAS * ops.abs(floor) + BUILDING_SIGMAS * ops.cast(building != 0, "float32")
        sigmas = ops.where(environment == 0, sigmas, -IMPOSSIBLE)
        log_near = metres * _row(-1 / of.sigma) - ops.matmul(sigmas, on_floor)
        return ops.categorical_crossentropy(ops.softmax(log_near), ops.cast(y_pred, "float32"), from_logits=True)

    def get_config(self):
        return {"places": self.places.config()}


def _row(values) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)[None]


@keras.saving.register_keras_serializable("fingerprints")
class Neighbours(layers.Layer):
    """[(n, k) levels, …, (n, c) logits] → (n, c) log probabilities, of which similar stored fingerprints have a share.

    Each stored fingerprint votes for its place with e^(−d / width), d its Sørensen distance from the scan,
    Σ|a − b| / Σ(a + b), as in kNN: from that of the given levels which is nearest to it, if the scan is given as phones
    of several offsets would have heard it. A network and its neighbours err in different scans. Where a scan shares no
    transmitter with any stored fingerprint, as one of another environment, the network's word stands.

    Args:
        of_place: (m,) the number of each stored fingerprint's place.
        share: of the votes in the probabilities, 0 to 1.
        width: by how much more distance a vote falls to 1/e.
        strongest: so many of a scan's transmitters, the strongest, are compared.
    """

    def __init__(self, of_place: Sequence[int], share: float, width: float, strongest: int, **settings):
        super().__init__(**settings)
        self.of_place = list(map(int, of_place))
        self.share, self.width, self.strongest = share, width, strongest

    def build(self, input_shape):
        k, m = input_shape[0][-1], len(self.of_place)
        self.stored = self.add_weight(shape=(k, m), initializer="zeros", trainable=False, name="stored")
        self.total = self.add_weight(shape=(1, m), initializer="zeros", trainable=False, name="total")

    def store(self, levels: np.ndarray) -> None:
        """Take (m, k) levels of fingerprints in their order, and sum them up once: a scan hears few of the k."""
        self.stored.assign(ops.transpose(levels))
        self.total.assign(ops.sum(self.stored, axis=0, keepdims=True))

    def _similarity(self, levels):
        """(n, k) → (n, m), 1 − d: 2 Σ min(a, b) / Σ(a + b)."""
        strongest, which = ops.top_k(levels, min(self.strongest, levels.shape[-1]))
        common = ops.zeros((ops.shape(levels)[0], len(self.of_place)))
        for number in range(which.shape[-1]):
            stored = ops.take(self.stored, which[:, number], axis=0)
            common = common + ops.minimum(stored, strongest[:, number : number + 1])
        return 2 * common / ops.maximum(ops.sum(levels, axis=1, keepdims=True) + self.total, 1e-9)

    def call(self, inputs):
        *levels, logits = inputs
        similarity = functools.reduce(ops.maximum, map(self._similarity, levels))
        nearest = ops.max(similarity, axis=1, keepdims=True)
        each = ops.transpose(ops.exp((similarity - nearest) / self.width))
        votes = ops.transpose(ops.segment_sum(each, np.int32(self.of_place), num_segments=logits.shape[-1]))
        share = ops.where(nearest > 0, self.share, 0.0)
        votes = share * votes / ops.sum(votes, axis=1, keepdims=True)
        return ops.log(ops.maximum((1 - share) * ops.softmax(logits) + votes, 1e-30))

    def get_config(self):
        names = ("of_place", "share", "width", "strongest")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("fingerprints")
class PlaceDecoder(layers.Layer):
    """(n, c) logits of places → where the scan was taken.

    Everything is told by one distribution: the environment with the highest probability, in it the building, in that
    the floor; and of all places in the environment the geometric median, which of two likely places takes one where
    the mean would lie between them.

    Args:
        places: of c places, `Places` or what `get_config` made of them.
        iterations: of Weiszfeld's algorithm (1937); none leaves the mean.

    Call returns `environment` (n, e) probabilities, `building` and `floor` (n,) numbers, −1 where there are none,
    `position` (n, 2) metres in the environment's frame, and `spread` (n,), the expected distance of the place from it.
    """

    def __init__(self, places: Places | dict, iterations: int = 20, **settings):
        super().__init__(**settings)
        if isinstance(places, dict):
            places = Places(**{name: np.array(values) for name, values in places.items()})
        self.places, self.iterations = places, iterations

    def _chosen(self, probabilities, labels: np.ndarray):
        """(n, c) probabilities, (c,) labels → (n, c) probabilities with the most likely label only, (n,) that label."""
        names, members = np.unique(labels, return_inverse=True)
        of_labels = ops.matmul(probabilities, np.eye(len(names), dtype=np.float32)[members])
        best = ops.cast(ops.top_k(of_labels, 1)[1], "int32")  # Keras' argmax looks at bits, which no export format has
        here = ops.equal(best, np.int32(members)[None])
        return probabilities * ops.cast(here, "float32"), ops.take(np.int32(names), best[:, 0])

    def call(self, logits):
        of, probabilities = self.places, ops.softmax(ops.cast(logits, "float32"))
        one_hot = np.eye(of.environment.max() + 1, dtype=np.float32)[of.environment]
        inside, environment = self._chosen(probabilities, of.environment)
        in_building, building = self._chosen(inside, of.building)
        _, floor = self._chosen(in_building, of.floor)
        weights = (inside / ops.max(inside, axis=1, keepdims=True)) ** _row(of.sharpness)
        weights = weights / ops.sum(weights, axis=1, keepdims=True)
        # About the middle of each environment, so that float32 keeps its digits in a frame of kilometres.
        middle = np.array([of.position[of.environment == one].mean(axis=0) for one in range(one_hot.shape[1])])
        east, north = (_row(column) for column in (of.position - middle[of.environment]).T)
        east_of, north_of = (ops.matmul(weights, column.T) for column in (east, north))
        for _ in range(self.iterations):
            # By steps, of which rounding takes micrometres; it takes millimetres of a mean of many places far away.
            to_east, to_north = east - east_of, north - north_of
            pull = weights / _distance(to_east, to_north)
            total = ops.sum(pull, axis=1, keepdims=True)
            east_of = east_of + ops.sum(pull * to_east, axis=1, keepdims=True) / total
            north_of = north_of + ops.sum(pull * to_north, axis=1, keepdims=True) / total
        about_middle = ops.concatenate([east_of, north_of], axis=1)
        return {
            "environment": ops.matmul(probabilities, one_hot),
            "building": building,
            "floor": floor,
            "position": about_middle + ops.take(np.float32(middle), environment, axis=0),
            "spread": ops.sum(weights * _distance(east - east_of, north - north_of), axis=1),
        }

    def get_config(self):
        return super().get_config() | {"places": self.places.config(), "iterations": self.iterations}


def _distance(east, north):
    """Metres, at least a centimetre: what a median pulls towards with 1 / distance must not be nowhere."""
    return ops.sqrt(east * east + north * north + 1e-4)
