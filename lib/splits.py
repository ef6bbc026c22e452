"""Named protocols: which rows train, which validate, which test. Test rows choose nothing.

`pooled` (UJIIndoorLoc): both files pooled, a random 20 % tests; the paper's. A random 10 % of the rest validates.
`official` (UJIIndoorLoc): the publisher's validation file tests. All rows of some phones validate.
`random` (LoRaWAN Antwerp): the published split's test part tests, 15 % of the full release. A random 10 % of the rest
    validates, of the full release as much as tests.
`spatial` (LoRaWAN Antwerp): whole blocks of 500 m test, 20 % of those that are no car park. Of the rest, 10 % validate.
`search` (both): nothing tests, and all rows that test under another protocol are left out. What all protocols share,
    such as layer widths, is chosen on its validation rows, a random 10 %.
`phones` (UJIIndoorLoc): the same within the publisher's training file, but all rows of some phones validate: for
    choices that must hold on phones that were never seen.

So validation rows resemble what the protocol tests: new phones, new blocks, or just other rows. Rows that are copies
of each other (same RSSI, same place) stay on one side.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from sklearn.model_selection import GroupShuffleSplit

from lib.fingerprints import FingerprintSet

PROTOCOLS = {"ujiindoorloc": ("pooled", "official"), "lorawan_antwerp": ("random", "spatial")}
CHOOSING = {"ujiindoorloc": ("search", "phones"), "lorawan_antwerp": ("search",)}  # without test rows
BLOCK_M = 500.0
DEPOT_SHARE = 0.10  # a block with more of the rows is a car park: tested, its one place would be most of the mean
SPLIT_SEED = 42  # one split for all training seeds, so that models are compared on the same test rows


@dataclass(frozen=True)
class Split:
    """Row numbers of one protocol."""

    protocol: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def _hold_out(rows: np.ndarray, groups: np.ndarray, share: float, draw: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out): `share` of the distinct groups goes out, each with all its rows."""
    splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=SPLIT_SEED + draw)
    kept, held_out = next(splitter.split(rows, groups=groups[rows]))
    return rows[kept], rows[held_out]


def held_out(
    fingerprints: FingerprintSet, share: float, whole_groups: bool = False, draw: int = 0
) -> tuple[FingerprintSet, FingerprintSet]:
    """The rest and a random `share` of the fingerprints of any set; copies of a scan stay together.

    Args:
        fingerprints: the set.
        share: between 0 and 1.
        whole_groups: all rows of some groups (devices) are held out, in the place of some rows of all.
        draw: another number holds out others.

    Raises:
        ValueError: if the share is out of range, there are no groups, or one side would be empty.
    """
    name, copies = fingerprints.name, fingerprints.copy_id
    if not 0 < share < 1:
        raise ValueError(f"the share to hold out must be between 0 and 1. Received: {share}")
    if whole_groups and fingerprints.group is None:
        raise ValueError(f"{name}: to hold out whole groups, rows need a group (device). Received: rows without")
    groups = fingerprints.group if whole_groups else copies
    if len(np.unique(groups)) < 2:
        what = "groups" if whole_groups else "different scans"
        raise ValueError(f"{name}: expected two {what} or more, to hold some out. Received: {len(np.unique(groups))}")
    kept, out = _hold_out(np.arange(len(fingerprints)), groups, share, draw)
    kept = kept[~np.isin(copies[kept], copies[out])]
    if not len(kept):
        raise ValueError(f"{name}: all rows are copies of those held out")
    return fingerprints[kept], fingerprints[out]


def blocks(position: np.ndarray, side: float = BLOCK_M) -> np.ndarray:
    """(n, 2) metres → (n,) number of the square block that each position lies in."""
    square = np.floor(np.asarray(position) / side).astype(np.int64)
    columns, rows = (square - square.min(axis=0)).T
    return np.unique(columns * (rows.max() + 1) + rows, return_inverse=True)[1]


def split(fingerprints: FingerprintSet, protocol: str) -> Split:
    """Row numbers for a protocol.

    Args:
        fingerprints: a set with `part` (`official`), and `group` for its validation rows.
        protocol: one of `PROTOCOLS[fingerprints.name]`, or of `CHOOSING[fingerprints.name]`.

    Raises:
        ValueError: if the protocol is not one of this environment's, the rows cannot be split that way, or a copy of
            a test row would remain in training.
    """
    protocols, choosing = (known.get(fingerprints.name, ()) for known in (PROTOCOLS, CHOOSING))
    if protocol not in (*protocols, *choosing):
        names = (*protocols, *choosing)
        raise ValueError(f"`protocol` must be one of {names} for {fingerprints.name}. Received: {protocol}")
    if protocol in ("official", "phones") and (fingerprints.part is None or fingerprints.group is None):
        raise ValueError(f"{fingerprints.name}, {protocol}: `part` and `group` are needed. Received: a set without")
    rows, copies, part = np.arange(len(fingerprints)), fingerprints.copy_id, fingerprints.part
    validation_groups, validation_share = copies, 0.10
    if protocol in choosing:
        tested = np.concatenate([split(fingerprints, name).test for name in protocols])
        learning, test = rows[~np.isin(rows, tested)], rows[:0]
        learning = learning[~np.isin(copies[learning], copies[tested])]
        if protocol == "phones":
            learning = learning[part[learning] == "train"]
            validation_groups, validation_share = fingerprints.group, 0.20
    elif protocol == "pooled":
        learning, test = _hold_out(rows, copies, 0.20)
    elif protocol == "official":
        learning, test = rows[part == "train"], rows[part == "validation"]
        validation_groups, validation_share = fingerprints.group, 0.20
    elif protocol == "spatial":
        validation_groups = blocks(fingerprints.position)
        depot = np.bincount(validation_groups)[validation_groups] > DEPOT_SHARE * len(rows)
        learning, test = _hold_out(rows[~depot], validation_groups, 0.20)
        learning = np.sort(np.concatenate([learning, rows[depot]]))
    elif part is None:  # the full release, which carries no published split
        learning, test = _hold_out(rows, copies, 0.15)
        validation_share = 0.15 / 0.85
    else:  # of the published split, the subset holds the parts `val`, on which we train, and `test`
        learning, test = rows[part == "val"], rows[part == "test"]
    learning = learning[~np.isin(copies[learning], copies[test])]
    may_validate = learning[~depot[learning]] if protocol == "spatial" else learning
    _, validation = _hold_out(may_validate, validation_groups, validation_share)
    train = learning[~np.isin(learning, validation)]
    train = train[~np.isin(copies[train], copies[validation])]
    found = Split(protocol, train, validation, test)
    check_leakage(fingerprints, found)
    return found


def check_leakage(fingerprints: FingerprintSet, found: Split) -> None:
    """Raise ValueError when two parts share a row or a copy of one, or a part is empty."""
    copies = fingerprints.copy_id
    parts = {"train": found.train, "validation": found.validation, "test": found.test}
    for name, rows in parts.items():
        may_be_empty = name == "test" and found.protocol in CHOOSING.get(fingerprints.name, ())
        if not len(rows) and not may_be_empty:
            raise ValueError(f"{fingerprints.name}, {found.protocol}: the {name} part is empty")
    held = {name: np.bincount(copies[rows], minlength=len(copies)) > 0 for name, rows in parts.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = np.count_nonzero(held[one] & held[other])
        if shared:
            raise ValueError(
                f"{fingerprints.name}, {found.protocol}: {shared} fingerprints are in both {one} and {other}"
            )


def distance_to_training(fingerprints: FingerprintSet, found: Split) -> np.ndarray:
    """(n_test,) metres from each test position to the nearest training position: what the split asks for."""
    places = np.unique(fingerprints.position[found.train], axis=0)  # a tree cannot tell apart what is at one place
    nearest, _ = cKDTree(places).query(fingerprints.position[found.test])
    return nearest
