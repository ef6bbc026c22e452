"""Places: the classes of a network that locates by classification, in one environment or in several.

A place is a position where scans were taken; where there are too many of these, as outdoors, it is a cell of a grid. A
network learns how near each place is to the scan's position (`PlaceLoss`). The fingerprints that it learnt from may
vote (`Neighbours`). Environment, building, floor and position are all decoded from the probabilities of the places
(`PlaceDecoder`).
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lib import quiet_import
from lib.data.fingerprints import FingerprintSet
from lib.models.layers import IMPOSSIBLE, LEAST_PROBABILITY, Levels

with quiet_import():
    import keras
    from keras import layers, ops

MOST_POSITIONS = 2000  # that are places by themselves
CELLS = 1000  # of a grid that hold rows, about
FLOOR_SIGMAS, BUILDING_SIGMAS = 4.0, 8.0  # how far another floor or building is, in the places' sigma
SIGMA_OF_CELL = 1 / 2  # the default sigma in sides of a cell
SIGMA_BETWEEN, SIGMA_REVISITED = 2.0, 1.0  # and in spacings of positions, see `Places.of`
FEW, FEW_SHARE = 3, 0.01  # positions on each side that may be far from all others: so many, or this share if it is more
MOST_SHARE = 0.1  # of the positions that may be: of ten or fewer none is
FAR = 3.0  # beyond the others, in their extent
STRONGEST = 24  # transmitters of a scan are compared with stored fingerprints


@dataclass(frozen=True, eq=False)
class Places:
    """The places of one environment or of several.

    Attributes:
        environment: (c,) integers, which environment of several.
        building, floor: (c,) integers, -1 where there are none.
        position: (c, 2) float64 metres in the frame of the place's environment.
        sigma: (c,) metres, how far from a scan's position a place still counts as near.
        sharpness: (c,) the power of the probabilities that decode the position: above 1, less likely places count less.
        softness: (c,) metres, see `PlaceDecoder`.
    """

    environment: np.ndarray
    building: np.ndarray
    floor: np.ndarray
    position: np.ndarray
    sigma: np.ndarray
    sharpness: np.ndarray
    softness: np.ndarray

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, chosen) -> "Places":
        fields = dataclasses.fields(self)
        return Places(**{field.name: getattr(self, field.name)[chosen] for field in fields})

    def alone(self) -> "Places":
        """The same places of one environment, as those of the only one."""
        return dataclasses.replace(self, environment=np.zeros(len(self), np.int64))

    def config(self) -> dict[str, list]:
        """Its fields as lists, for JSON."""
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name).tolist() for field in fields}

    @classmethod
    def from_config(cls, config: dict[str, list]) -> "Places":
        """The places of which `config` made lists; those of earlier releases have no softness."""
        fields = {name: np.array(values) for name, values in config.items()}
        fields.setdefault("softness", np.zeros(len(fields["position"])))
        return cls(**fields)

    def nearest(self, label: np.ndarray, environment: int) -> np.ndarray:
        """(n, 4) `labels` of an environment's rows → (n,) numbers of the nearest places on their floors."""
        own = np.flatnonzero(self.environment == environment)
        own_labels = np.column_stack([self.building[own], self.floor[own], self.position[own]])
        tree = cKDTree(_floors_apart(own_labels))
        _, nearest = tree.query(_floors_apart(label))
        return own[nearest]

    @classmethod
    def of(
        cls,
        fingerprints: FingerprintSet,
        cell: float | None = None,
        sigma: float | None = None,
        margin: float = 0.0,
        sharpness: float = 1.0,
        softness: float | None = None,
        revisited: bool = False,
    ) -> "Places":
        """The positions or grid cells of training rows.

        Args:
            fingerprints: training rows of one environment.
            cell: side of the grid in metres, 0 for the positions themselves; None takes the positions if there are at
                most `MOST_POSITIONS`, else a grid of about `CELLS` cells.
            sigma: in metres; None stands for half a cell, or for twice the median spacing of positions, and for once
                that spacing where they are revisited.
            margin: in metres; a grid also has the cells so near to a training row that hold none. By soft targets
                larger than a cell, a network learns of them, too.
            sharpness: see the attribute.
            softness: in metres; None stands for a cell, or the median spacing of positions.
            revisited: whether scans will come from the very positions of the rows, and not from between them.

        Raises:
            ValueError: if cell, margin or softness is negative, or sigma is not positive.
        """
        for name, metres in {"cell": cell, "margin": margin, "softness": softness}.items():
            if metres is not None and metres < 0:
                raise ValueError(f"`{name}` must not be negative. Received: {name}={metres}")
        if sigma is not None and not sigma > 0:
            raise ValueError(f"`sigma` must be positive. Received: sigma={sigma}")
        label = labels(fingerprints)
        if cell is None:
            cell = _cell_for(label)
        keys, members = _distinct(label, cell)
        position = _median_positions(label, members)
        if cell and margin:
            empty = _empty_cells(keys, label, cell, margin)
            keys = np.concatenate([keys, empty])
            position = np.concatenate([position, _centres(empty, cell)])
        spacing = cell or _spacing(keys)
        if sigma is None:
            of_spacing = SIGMA_REVISITED if revisited else SIGMA_BETWEEN
            sigma = spacing * (SIGMA_OF_CELL if cell else of_spacing)
        if softness is None:
            softness = spacing
        return cls(
            environment=np.zeros(len(keys), np.int64),
            building=keys[:, 0].astype(np.int64),
            floor=keys[:, 1].astype(np.int64),
            position=position,
            sigma=np.full(len(keys), float(sigma)),
            sharpness=np.full(len(keys), float(sharpness)),
            softness=np.full(len(keys), float(softness)),
        )


def labels(fingerprints: FingerprintSet) -> np.ndarray:
    """(n, 4) float64: building, floor (-1 where there are none) and position in metres."""
    absent = np.full(len(fingerprints), -1)
    building = absent if fingerprints.building is None else fingerprints.building
    floor = absent if fingerprints.floor is None else fingerprints.floor
    return np.column_stack([building, floor, fingerprints.position])


def usual_range(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The range of positions without a few that are far from all others, as of trackers that had no fix.

    Args:
        position: (n, 2) metres. Equal positions count once.

    Returns:
        (2,) and (2,) metres, the least and the greatest east and north.
    """
    different = np.unique(position, axis=0)
    ascending = np.sort(different, axis=0)
    few = int(min(max(FEW, FEW_SHARE * len(different)), MOST_SHARE * len(different)))
    low = ascending[few]
    high = ascending[-1 - few]
    reach = FAR * np.max(high - low)
    is_usual = (different >= low - reach) & (different <= high + reach)
    usual = different[is_usual.all(axis=1)]
    return usual.min(axis=0), usual.max(axis=0)


def joined(environments: Sequence[Places]) -> Places:
    """The places of several environments, numbered in this order."""
    counts = [len(places) for places in environments]
    environment = np.repeat(np.arange(len(environments)), counts)
    return dataclasses.replace(concatenated(environments), environment=environment)


def concatenated(parts: Sequence[Places]) -> Places:
    """Places one after another, as they are."""
    fields = {}
    for field in dataclasses.fields(Places):
        fields[field.name] = np.concatenate([getattr(part, field.name) for part in parts])
    return Places(**fields)


# === Positions and cells ===
#
# A key is (building, floor, column, row) of a cell, or (building, floor, east, north) of a position.


def _distinct(label: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) labels → (c, 4) distinct keys of cells, of positions for a cell of 0, and (n,) which key each row has."""
    keys = label.copy()
    if cell:
        keys[:, 2:] = np.floor(label[:, 2:] / cell)
    return np.unique(keys, axis=0, return_inverse=True)


def _cell_for(label: np.ndarray) -> float:
    """Side of the grid in metres that suits rows; 0 if their positions are few enough to be places by themselves.

    About `CELLS` cells hold rows, or as many as there are spots. A spot is a thousandth of the extent wide: where most
    rows were sent from one yard, the other rows count. The extent is that of the usual range: a row at latitude,
    longitude 0, 0 would make one spot of a whole city.
    """
    positions, _ = _distinct(label, 0.0)
    if len(positions) <= MOST_POSITIONS:
        return 0.0
    low, high = usual_range(label[:, 2:])
    side = max(np.max(high - low), 1.0)
    spots, _ = _distinct(label, side / 1000)
    spots = spots * [1, 1, side / 1000, side / 1000]
    wanted = min(CELLS, len(spots))
    while len(_distinct(spots, side)[0]) < wanted:
        side /= 1.1
    return float(side)


def _median_positions(label: np.ndarray, members: np.ndarray) -> np.ndarray:
    """(n, 4) labels, (n,) which of c places each belongs to → (c, 2) median positions in metres."""
    order = np.argsort(members, kind="stable")
    starts = np.flatnonzero(np.diff(members[order])) + 1
    positions = np.split(label[order, 2:], starts)
    return np.array([np.median(position, axis=0) for position in positions])


def _centres(keys: np.ndarray, cell: float) -> np.ndarray:
    """(c, 4) keys of cells → (c, 2) their centres in metres."""
    return (keys[:, 2:] + 0.5) * cell


def _floors_apart(label: np.ndarray) -> np.ndarray:
    """(n, 4) labels → (n, 3) metres, in which floors and buildings are far from each other."""
    height = 1e7 * label[:, 0] + 1e5 * label[:, 1]
    return np.column_stack([label[:, 2:], height])


def _empty_cells(keys: np.ndarray, label: np.ndarray, cell: float, margin: float) -> np.ndarray:
    """(m, 4) keys of further cells, whose centre is at most `margin` metres from a row."""
    reach = int(np.ceil(margin / cell))
    steps = range(-reach, reach + 1)
    moves = np.array(list(itertools.product([0], [0], steps, steps)))
    candidates = np.unique((keys[:, None] + moves).reshape(-1, 4), axis=0)
    centres = np.column_stack([candidates[:, :2], _centres(candidates, cell)])
    distance, _ = cKDTree(_floors_apart(label)).query(_floors_apart(centres))
    holds_rows = (candidates[:, None] == keys).all(axis=2).any(axis=1)
    return candidates[(distance <= margin) & ~holds_rows]


def _spacing(label: np.ndarray) -> float:
    """Median distance in metres of a position to the nearest on the same floor."""
    points = _floors_apart(label)
    nearest, _ = cKDTree(points).query(points, k=min(2, len(points)))
    spacing = np.median(np.atleast_2d(nearest)[:, -1])
    return float(max(spacing, 1e-3))


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
        metres = self._metres(y_true[:, 3:4], y_true[:, 4:5])
        sigmas = self._sigmas(y_true[:, 0:1], y_true[:, 1:2], y_true[:, 2:3])
        log_nearness = metres * _row(-1 / self.places.sigma) - sigmas
        logits = ops.cast(y_pred, "float32")
        return ops.categorical_crossentropy(ops.softmax(log_nearness), logits, from_logits=True)

    def _metres(self, east, north):
        """(n, 1) metres → (n, c) distances to the places, floors not counted."""
        to_east = east - _row(self.places.position[:, 0])
        to_north = north - _row(self.places.position[:, 1])
        return ops.sqrt(to_east**2 + to_north**2 + 1e-9)

    def _sigmas(self, environment, building, floor):
        """(n, 1) labels → (n, c) sigmas by which each place is farther, for its floor, building and environment.

        They are computed for each floor, of which there are far fewer than places.
        """
        place_labels = [self.places.environment, self.places.building, self.places.floor]
        floors, floor_of_place = np.unique(place_labels, axis=1, return_inverse=True)
        one_hot = np.eye(floors.shape[1], dtype=np.float32)
        same_environment = environment - _row(floors[0]) == 0
        other_building = building - _row(floors[1]) != 0
        floors_between = ops.abs(floor - _row(floors[2]))
        sigmas = FLOOR_SIGMAS * floors_between + BUILDING_SIGMAS * ops.cast(other_building, "float32")
        sigmas = ops.where(same_environment, sigmas, -IMPOSSIBLE)
        return ops.matmul(sigmas, one_hot[:, floor_of_place.ravel()])

    def get_config(self):
        return {"places": self.places.config()}


def _row(values) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)[None]


@keras.saving.register_keras_serializable("fingerprints", name="StoredFingerprints")
class Neighbours(layers.Layer):
    """[(n, t) dBm, (n, c) logits] → (n, c) log probabilities, into which votes of stored fingerprints are mixed.

    Each stored fingerprint votes for its place with e^(−d / width), d its Sørensen distance from the scan,
    Σ|a − b| / Σ(a + b) of powed RSSI, as in kNN. A scan may be compared as several phones of different gain would have
    heard it: then d is the smallest of the distances. A network and its neighbours err in different scans. The network
    alone decides the environment; where a scan shares no transmitter with any stored fingerprint, it decides the place.

    Args:
        columns: (k,) numbers of the transmitters that are compared.
        minimum: (k,) dBm that maps to 0, as in `scaling.powed`.
        own_places: numbers of the environment's places.
        of_place: (m,) the number of each stored fingerprint's place.
        share: of the votes in the probabilities, 0 to 1.
        width: the distance over which a vote falls to 1/e.
        exponent: β of the powed RSSI.
        offsets: in dB; a scan is compared as phones that hear so much louder would have heard it.
        strongest: how many of a scan's transmitters, the strongest, are compared.
    """

    def __init__(
        self,
        columns: Sequence[int],
        minimum: Sequence[float],
        own_places: Sequence[int],
        of_place: Sequence[int],
        share: float = 0.5,
        width: float = 0.03,
        exponent: float = 1.5,
        offsets: Sequence[float] = (0.0,),
        strongest: int = STRONGEST,
        **settings,
    ):
        super().__init__(**settings)
        self.levels = Levels(columns, minimum, exponent, heard=False)
        self.own_places = [int(place) for place in own_places]
        self.of_place = [int(place) for place in of_place]
        self.share = share
        self.width = width
        self.offsets = tuple(offsets)
        self.strongest = strongest

    def build(self, input_shape):
        shape = (len(self.levels.columns), len(self.of_place))
        self.stored = self.add_weight(shape, initializer="zeros", trainable=False, name="stored")
        self.total = self.add_weight((1, shape[1]), initializer="zeros", trainable=False, name="total")

    def store(self, rssi: np.ndarray) -> None:
        """Store (m, t) dBm of fingerprints."""
        levels = ops.transpose(self.levels(rssi))
        self.stored.assign(levels)
        self.total.assign(ops.sum(levels, axis=0, keepdims=True))

    def fingerprints(self, n_inputs: int) -> np.ndarray:
        """(m, n_inputs) dBm of what is stored; NaN where it is not heard, or no louder than the minimum."""
        levels = ops.convert_to_numpy(self.stored).T
        minimum = np.float32(self.levels.minimum)
        rssi = np.full((len(levels), n_inputs), np.nan, dtype=np.float32)
        height = levels ** (1 / self.levels.exponent)
        rssi[:, self.levels.columns] = np.where(levels > 0, minimum - height * minimum, np.nan)
        return rssi

    def similarity(self, rssi):
        """(n, t) dBm → (n, m), 1 − d = 2 Σ min(a, b) / Σ(a + b), of the offset at which it is largest."""
        similarities = [self._similarity(self.levels(rssi + offset)) for offset in self.offsets]
        return functools.reduce(ops.maximum, similarities)

    def _similarity(self, levels):
        return similarity_to_stored(levels, self.stored, self.total, self.strongest)

    def call(self, inputs):
        rssi, logits = inputs
        similarity = self.similarity(rssi)
        votes = votes_of_places(similarity, self.of_place, self.width, logits.shape[-1])
        known = ops.max(similarity, axis=1, keepdims=True) > 0
        share = ops.where(known, self.share, 0.0)
        both = mixed(ops.softmax(logits), votes, share, self.own_places)
        return ops.log(ops.maximum(both, LEAST_PROBABILITY))

    def settings(self) -> dict:
        """Its arguments."""
        return {
            "columns": self.levels.columns,
            "minimum": self.levels.minimum,
            "own_places": self.own_places,
            "of_place": self.of_place,
            "share": self.share,
            "width": self.width,
            "exponent": self.levels.exponent,
            "offsets": list(self.offsets),
            "strongest": self.strongest,
        }

    def get_config(self):
        return super().get_config() | self.settings()


def similarity_to_stored(levels, stored, total, strongest: int):
    """The Sørensen similarity of scans to stored fingerprints, 2 Σ min(a, b) / Σ(a + b).

    Args:
        levels: (n, k) of the scans.
        stored: (k, m) levels of the fingerprints.
        total: (1, m) their sums.
        strongest: how many of a scan's levels, the strongest, the sum of minima takes.

    Returns:
        (n, m) from 0 to 1.
    """
    stored = ops.reshape(stored, stored.shape)  # reads it once: an exported graph has a copy of whatever is read
    highest, columns = ops.top_k(levels, min(strongest, levels.shape[-1]))
    common = ops.zeros((ops.shape(levels)[0], stored.shape[1]))
    for number in range(columns.shape[-1]):
        of_column = ops.take(stored, columns[:, number], axis=0)
        common = common + ops.minimum(of_column, highest[:, number : number + 1])
    both_totals = ops.sum(levels, axis=1, keepdims=True) + total
    return 2 * common / ops.maximum(both_totals, 1e-9)


def votes_of_places(similarity, of_place: Sequence[int], width: float, n_places: int):
    """(n, m) similarities to stored fingerprints, (m,) their places → (n, c) shares of the votes for each place."""
    nearest = ops.max(similarity, axis=1, keepdims=True)
    votes = ops.exp((similarity - nearest) / width)
    by_place = ops.segment_sum(ops.transpose(votes), np.int32(of_place), num_segments=n_places)
    return ops.transpose(by_place) / ops.sum(votes, axis=1, keepdims=True)


def mixed(probabilities, votes, share, own_places: Sequence[int]):
    """The probabilities of a network, of which a share is given to places as stored fingerprints vote.

    Args:
        probabilities: (n, c) of places.
        votes: (n, c) shares of the votes.
        share: (n, 1) of the votes in the probability that is the environment's.
        own_places: numbers of the environment's places; the others keep what they have.
    """
    is_own = np.zeros((1, probabilities.shape[-1]), dtype=np.float32)
    is_own[0, own_places] = 1
    own = probabilities * is_own
    of_environment = ops.sum(own, axis=1, keepdims=True)
    return probabilities + share * (of_environment * votes - own)


@keras.saving.register_keras_serializable("fingerprints")
class PlaceDecoder(layers.Layer):
    """(n, c) logits of places → where the scan was taken.

    One distribution decides everything: the environment with the highest probability, in it the building, in that
    the floor; and the position is the geometric median of all places in the environment, weighted by probability.
    Between two likely places the median takes one of them, where the mean would lie between them. Places that are
    nearer than the softness are averaged all the same: the position has the least expected √(distance² + softness²).

    Args:
        places: of c places, `Places` or what `get_config` made of them.
        iterations: of Weiszfeld's algorithm (1937); 0 leaves the mean.

    Call returns `environment` (n, e) probabilities, `building` and `floor` (n,) numbers, −1 where there are none,
    `position` (n, 2) metres in the environment's frame, and `spread` (n,), the expected distance of the place from it.
    """

    def __init__(self, places: Places | dict, iterations: int = 20, **settings):
        super().__init__(**settings)
        if isinstance(places, dict):
            places = Places.from_config(places)
        self.places = places
        self.iterations = iterations

    def call(self, logits):
        places = self.places
        probabilities = _softmax(ops.cast(logits, "float32"))
        in_environment, environment = _likeliest(probabilities, places.environment)
        in_building, building = _likeliest(in_environment, places.building)
        _, floor = _likeliest(in_building, places.floor)
        weights = self._weights(in_environment)
        softness = ops.matmul(weights, places.softness.astype(np.float32)[:, None])  # all weight is in one environment
        # Positions are taken from the middle of their environment: in a frame of kilometres float32 would lose digits.
        middles = self._middles()
        from_middle = places.position - middles[places.environment]
        east = _row(from_middle[:, 0])
        north = _row(from_middle[:, 1])
        median_east, median_north = self._median(weights, east, north, softness)
        median = ops.concatenate([median_east, median_north], axis=1)
        distance = _distance(east - median_east, north - median_north)
        return {
            "environment": ops.matmul(probabilities, _one_hot(places.environment)),
            "building": building,
            "floor": floor,
            "position": median + ops.take(np.float32(middles), environment, axis=0),
            "spread": ops.sum(weights * distance, axis=1),
        }

    def _middles(self) -> np.ndarray:
        """(e, 2) metres, the mean position of each environment's places."""
        middles = []
        for number in range(self.places.environment.max() + 1):
            own = self.places.environment == number
            middles.append(self.places.position[own].mean(axis=0))
        return np.array(middles)

    def _weights(self, probabilities):
        """(n, c) probabilities → (n, c) weights with the sum 1, sharpened."""
        relative = probabilities / ops.max(probabilities, axis=1, keepdims=True)
        weights = relative ** _row(self.places.sharpness)
        return weights / ops.sum(weights, axis=1, keepdims=True)

    def _median(self, weights, east: np.ndarray, north: np.ndarray, softness):
        """(n, c) weights, (1, c) metres of the places, (n, 1) metres → (n, 1), (n, 1) metres of the soft medians."""
        median_east = ops.matmul(weights, east.T)
        median_north = ops.matmul(weights, north.T)
        for _ in range(self.iterations):
            # In steps: their rounding errors are micrometres, where those of a mean of far places are millimetres.
            to_east = east - median_east
            to_north = north - median_north
            pull = weights / _distance(to_east, to_north, softness)
            total = ops.sum(pull, axis=1, keepdims=True)
            median_east = median_east + ops.sum(pull * to_east, axis=1, keepdims=True) / total
            median_north = median_north + ops.sum(pull * to_north, axis=1, keepdims=True) / total
        return median_east, median_north

    def get_config(self):
        return super().get_config() | {"places": self.places.config(), "iterations": self.iterations}


def _softmax(logits):
    """(n, c) probabilities; Keras' own warns of a single place, which one environment of several may have."""
    shares = ops.exp(logits - ops.max(logits, axis=1, keepdims=True))
    return shares / ops.sum(shares, axis=1, keepdims=True)


def _one_hot(numbers: np.ndarray) -> np.ndarray:
    """(c,) numbers from 0 on → (c, largest + 1) float32."""
    return np.eye(numbers.max() + 1, dtype=np.float32)[numbers]


def _likeliest(probabilities, place_labels: np.ndarray):
    """(n, c) probabilities, (c,) labels → (n, c) those of places with the likeliest label, else 0; (n,) that label."""
    distinct, members = np.unique(place_labels, return_inverse=True)
    of_labels = ops.matmul(probabilities, _one_hot(members))
    _, likeliest = ops.top_k(of_labels, 1)  # Keras' argmax looks at bits, which no export format has
    likeliest = ops.cast(likeliest, "int32")
    chosen = ops.equal(likeliest, np.int32(members)[None])
    label = ops.take(np.int32(distinct), likeliest[:, 0])
    return probabilities * ops.cast(chosen, "float32"), label


def _distance(east, north, softness=0.0):
    """√(distance² + softness²) in metres, at least a centimetre: a median divides by it."""
    return ops.sqrt(east * east + north * north + softness * softness + 1e-4)
