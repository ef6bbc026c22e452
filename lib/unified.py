"""From the FingerprintSets of several environments to one trained network that locates in all of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib import models, places, preprocess, quiet_import, training
from lib.fingerprints import FingerprintSet
from lib.places import Neighbours, PlaceDecoder, PlaceLoss, Places
from lib.preprocess import not_heard_dbm

with quiet_import():
    import keras

NETWORK = {
    "hidden": (1024, 1024),
    "dropout": 0.3,
    "exponent": 1.5,
    "heard": False,
}  # of `models.unified`
AUGMENTATION = {"offset": 6.0, "noise": 2.0, "loss": 0.3, "deafness": 25.0}  # what other phones hear, see `models`
SAME_DEVICES = {"offset": 0.0, "noise": 0.0, "deafness": 0.0}  # in its place where no other devices are to come
SETTINGS = {"epochs": 24, "weight_decay": 0.02}  # of `training.fit`
LARGEST_BATCH, LEARNING_RATE = 1024, 4e-3  # that rate is for that batch
LEAST_BATCHES = 8  # in an epoch, about: few rows are learnt in smaller batches
HEADS = ("places", "distance", "squared")
MOST_PASSES = 4  # over the rows of a small environment in an epoch
_CODE = b"".join(Path(module.__file__).read_bytes() for module in (models, places)) + Path(__file__).read_bytes()


def side_by_side(environments: Sequence[FingerprintSet], shared_columns: bool = False) -> np.ndarray:
    """The scans of several environments in dBm, see `preprocess.side_by_side`; NaN = not heard."""
    return preprocess.side_by_side([one.rssi for one in environments], np.nan, shared_columns)


def targets(environments: Sequence[FingerprintSet]) -> np.ndarray:
    """(Σn, 5) float32: environment, building, floor (−1 where there are none), metres east and north."""
    numbers = np.repeat(np.arange(len(environments)), [len(one) for one in environments])
    return np.column_stack([numbers, np.concatenate([places.labels(one) for one in environments])]).astype(np.float32)


def passes(counts: Sequence[int]) -> list[int]:
    """How often an epoch goes over the rows of each environment, so that the largest does not have it to itself."""
    return [min(MOST_PASSES, max(1, round(max(counts) / count))) for count in counts]


def batches(n_rows: int, batch_size: int | None = None) -> dict:
    """`batch_size` for so many rows an epoch, a power of two if none is given, and a `learning_rate` that suits it."""
    if batch_size is None:
        batch_size = min(LARGEST_BATCH, 2 ** max(0, round(np.log2(n_rows / LEAST_BATCHES))))
    return {"batch_size": batch_size, "learning_rate": LEARNING_RATE * (batch_size / LARGEST_BATCH) ** 0.5}


def of_network(
    learning: Sequence[FingerprintSet],
    of: Places | None,
    augmentations: Sequence[dict] | None = None,
    shared_columns: bool = False,
) -> dict:
    """Those arguments of `models.unified` that follow from what it learns from.

    Args:
        learning, augmentations, shared_columns: see `train`.
        of: the places that it chooses among; None regresses coordinates.
    """
    widths = [len(one.transmitters) for one in learning]
    starts = preprocess.column_starts(widths, shared_columns)
    n_columns = max(np.add(starts, widths))
    heard, minimum = np.zeros(n_columns, dtype=bool), np.full(n_columns, np.inf)
    augmentation = {name: np.zeros(n_columns) for name in AUGMENTATION}
    changes = augmentations or [{}] * len(learning)
    for one, change, start, width in reversed(list(zip(learning, changes, starts, widths, strict=True))):
        own = slice(start, start + width)
        heard[own] |= one.heard.any(axis=0)
        minimum[own] = np.minimum(minimum[own], not_heard_dbm(one))
        for name, value in (AUGMENTATION | change).items():
            augmentation[name][own] = value
    audible = None
    if of is not None and not shared_columns:
        numbers = np.repeat(np.arange(len(learning)), widths)
        audible = {"of_transmitter": numbers.tolist(), "of_output": of.environment.tolist()}
    return {
        "n_transmitters": n_columns,
        "columns": np.flatnonzero(heard),
        "minimum": minimum,
        "n_outputs": 3 * len(learning) if of is None else len(of),
        "augmentation": augmentation,
        "audible": audible,
    }


def train(
    learning: Sequence[FingerprintSet],
    predicted: Sequence[FingerprintSet],
    folder: Path,
    seed: int,
    *,
    head: str = "places",
    grids: Sequence[dict] | None = None,
    augmentations: Sequence[dict] | None = None,
    shared_columns: bool = False,
    decoder: dict | None = None,
    neighbours: Sequence[dict | None] | None = None,
    network: dict | None = None,
    **settings,
) -> training.Run:
    """Train one network on all rows of `learning`.

    Args:
        learning: one set for each environment.
        predicted: sets of the same environments, whose scans are predicted.
        folder, seed: see `training.run`.
        head: `places` classifies; `distance` and `squared` regress coordinates by this error.
        grids: arguments of `Places.of` for each environment.
        augmentations: what is other than in `AUGMENTATION`, for each environment; of columns that are shared, the first
            environment's holds.
        shared_columns: see `side_by_side`.
        decoder: arguments of `PlaceDecoder`.
        neighbours: for each environment None, or what is other than in `places.NEIGHBOURS`: then its fingerprints are
            stored and vote, see `Neighbours`, on scans as phones with `offsets` in dB would have heard them.
        network: arguments of `models.unified` in the place of `NETWORK`.
        settings: those of `training.fit` in the place of `SETTINGS` and `batches`.

    Returns:
        A run whose predictions are what the decoder says of the scans of `predicted`.

    Raises:
        ValueError: if there is no such head, or neighbours are to vote for places where there are none.
    """
    if head not in HEADS:
        raise ValueError(f"`head` must be one of {', '.join(HEADS)}. Received: {head}")
    neighbours = neighbours or [None] * len(learning)
    if head != "places" and any(how is not None for how in neighbours):
        raise ValueError(f"`neighbours` vote for places, which the head {head} does not have. Received: {neighbours}")
    rssi, y = side_by_side(learning, shared_columns), targets(learning)
    if head == "places":
        grids = grids or [{}] * len(learning)
        of = places.joined([Places.of(one, **grid) for one, grid in zip(learning, grids, strict=True)])
        decode, loss = PlaceDecoder(of, **decoder or {}, name="decoder"), PlaceLoss(of)
    else:
        bounds = [[one.position.min(axis=0), one.position.max(axis=0)] for one in learning]
        of, decode = None, models.CoordinateDecoder(*zip(*bounds, strict=True), name="decoder")
        loss = models.CoordinateLoss(decode, distance=head == "distance")
    about = of_network(learning, of, augmentations, shared_columns) | NETWORK | (network or {})
    counts = [len(one) for one in learning]
    repeated = np.repeat(passes(counts), counts)
    rows = np.repeat(np.arange(len(rssi)), repeated)

    def finish(trained: keras.Model) -> keras.Model:
        outputs, levels = trained.output, trained.get_layer("levels")
        for number, (one, how) in enumerate(zip(learning, neighbours, strict=True)):
            if how is not None:
                about, name = places.NEIGHBOURS | how, f"neighbours_{number}"
                offsets = [
                    keras.layers.Rescaling(1.0, offset, name=f"{name}_offset_{place}")
                    for place, offset in enumerate(about.pop("offsets"))
                ]
                vote = Neighbours(of.nearest(places.labels(one), number), **about, name=name)
                outputs = vote([*(levels(add(trained.input)) for add in offsets), outputs])
                vote.store(levels(rssi[y[:, 0] == number]))
        return models.decoded(keras.Model(trained.input, outputs), decode)

    return training.run(
        folder,
        lambda: models.unified(**about),
        (rssi[rows], y[rows]),
        None,
        side_by_side(predicted, shared_columns),
        seed,
        finish=finish,
        code=_CODE,
        loss=loss,
        **batches(len(rows), settings.get("batch_size")) | SETTINGS | settings,
    )
