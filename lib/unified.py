"""From the FingerprintSets of several environments to one trained network that locates in all of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib import models, places, preprocess, training
from lib.fingerprints import FingerprintSet
from lib.places import PlaceDecoder, PlaceLoss, Places
from lib.preprocess import not_heard_dbm

NETWORK = {
    "hidden": (1024, 1024),
    "dropout": 0.3,
    "exponent": 1.5,
    "heard": False,
}  # of `models.unified`
AUGMENTATION = {"offset": 3.0, "noise": 2.0, "loss": 0.3, "deafness": 25.0}  # what other phones hear, see `models`
SAME_DEVICES = {"offset": 0.0, "noise": 0.0, "deafness": 0.0}  # in its place where no other devices are to come
SETTINGS = {"epochs": 30, "batch_size": 512, "learning_rate": 2.8e-3, "weight_decay": 0.02}  # of `training.fit`
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
        network: arguments of `models.unified` in the place of `NETWORK`.
        settings: those of `training.fit` in the place of `SETTINGS`.

    Returns:
        A run whose predictions are what the decoder says of the scans of `predicted`.

    Raises:
        ValueError: if there is no such head.
    """
    if head not in HEADS:
        raise ValueError(f"`head` must be one of {', '.join(HEADS)}. Received: {head}")
    rssi, y = side_by_side(learning, shared_columns), targets(learning)
    columns = np.flatnonzero(~np.isnan(rssi).all(axis=0))
    minimum = np.full(rssi.shape[1], np.inf)
    augmentation = {name: np.zeros(rssi.shape[1]) for name in AUGMENTATION}
    end, changes = rssi.shape[1], augmentations or [{}] * len(learning)
    for one, change in reversed(list(zip(learning, changes, strict=True))):
        width = len(one.transmitters)
        own = slice(width) if shared_columns else slice(end - width, end)
        end -= width
        minimum[own] = np.minimum(minimum[own], not_heard_dbm(one))
        for name, value in (AUGMENTATION | change).items():
            augmentation[name][own] = value
    audible = None
    if head == "places":
        grids = grids or [{}] * len(learning)
        of = places.joined([Places.of(one, **grid) for one, grid in zip(learning, grids, strict=True)])
        decode, loss, n_outputs = PlaceDecoder(of, **decoder or {}, name="decoder"), PlaceLoss(of), len(of)
        if not shared_columns:
            numbers = np.repeat(np.arange(len(learning)), [len(one.transmitters) for one in learning])
            audible = {"of_transmitter": numbers.tolist(), "of_output": of.environment.tolist()}
    else:
        bounds = [[one.position.min(axis=0), one.position.max(axis=0)] for one in learning]
        decode = models.CoordinateDecoder(*zip(*bounds, strict=True), name="decoder")
        loss, n_outputs = models.CoordinateLoss(decode, distance=head == "distance"), 3 * len(learning)
    counts = [len(one) for one in learning]
    repeated = np.repeat(passes(counts), counts)
    rows = np.repeat(np.arange(len(rssi)), repeated)
    return training.run(
        folder,
        lambda: models.unified(
            rssi.shape[1],
            columns,
            minimum,
            n_outputs,
            augmentation=augmentation,
            audible=audible,
            **NETWORK | (network or {}),
        ),
        (rssi[rows], y[rows]),
        None,
        side_by_side(predicted, shared_columns),
        seed,
        finish=lambda trained: models.decoded(trained, decode),
        code=_CODE,
        loss=loss,
        **SETTINGS | settings,
    )
