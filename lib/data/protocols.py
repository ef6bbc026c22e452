"""Protocols: which rows train, which validate, which test. Test rows choose nothing.

Validation rows resemble what the protocol tests: new phones, new blocks, or just other rows. Rows that are copies of
each other (same RSSI at the same place) stay on one side. One split serves all training seeds, so that models are
compared on the same test rows.

A further protocol is a function from a FingerprintSet to `Parts`, and an entry in `PROTOCOLS`.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree
from sklearn.model_selection import GroupShuffleSplit

from lib.data import comford, datasets
from lib.data.fingerprints import FingerprintSet, joined
from lib.data.folds import areas
from lib.data.loaders import library_month

MISSING_SHARE = 0.98  # the paper's threshold for access points
VALIDATION_SHARE = 0.10
PHONES_SHARE = 0.20  # of the phones, where whole phones validate
BLOCK_M = 500.0
DEPOT_SHARE = 0.10  # a block with more of the rows is a car park: tested, its one place would be most of the mean
SPLIT_SEED = 42
MONTHS_SHARE = 0.10  # of the test rows of 25 months, which return to 212 points nearly 400 times each
NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows of one environment under one protocol.

    Attributes:
        protocol: its name.
        train, validation, test: rows with all transmitters of the environment.
        transmitters: those that the paper's networks take: the access points that its 98 % rule keeps, or all gateways.

    Raises:
        ValueError: if two parts share a row or a copy of one, or there are no training rows.
    """

    protocol: str
    train: FingerprintSet
    validation: FingerprintSet
    test: FingerprintSet
    transmitters: tuple[str, ...]

    def __post_init__(self):
        if not len(self.train):
            raise ValueError(f"{self.label}: expected training rows. Received: none")
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        for first, second in itertools.combinations(parts, 2):
            copied = np.isin(parts[first].copy_hash, parts[second].copy_hash)
            if copied.any():
                shared = f"{copied.sum()} {first} rows are also {second} rows, or copies of them"
                raise ValueError(f"{self.label}: {shared}")

    @property
    def environment(self) -> str:
        return self.train.name

    @property
    def label(self) -> str:
        """The environment and the protocol, once where the two have one name."""
        return ", ".join(dict.fromkeys([self.environment, self.protocol]))


def select_transmitters(rssi: np.ndarray, missing_share: float = MISSING_SHARE) -> np.ndarray:
    """(n, t) dBm with NaN = not heard → (t,) bool: transmitters that at most `missing_share` of the rows miss.

    Raises:
        ValueError: if the share is not in [0, 1] or no transmitter is left.
    """
    if not 0 <= missing_share <= 1:
        raise ValueError(f"`missing_share` must be between 0 and 1. Received: {missing_share}")
    missing = np.isnan(rssi).mean(axis=0)
    kept = missing <= missing_share
    if not kept.any():
        raise ValueError(f"no transmitter is heard in more than {1 - missing_share:.1%} of {len(rssi)} rows")
    return kept


# === Holding rows out ===


def _hold_out(rows: np.ndarray, groups: np.ndarray, share: float, draw: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out) of row numbers: `share` of the distinct groups goes out, each with all its rows."""
    splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=SPLIT_SEED + draw)
    kept, held_out = next(splitter.split(rows, groups=groups[rows]))
    return rows[kept], rows[held_out]


def _without_copies(rows: np.ndarray, others: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """The rows that are no copies of others."""
    copied = np.isin(copies[rows], copies[others])
    return rows[~copied]


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
    name = fingerprints.name
    copies = fingerprints.copy_id
    if not 0 < share < 1:
        raise ValueError(f"the share to hold out must be between 0 and 1. Received: {share}")
    if whole_groups and fingerprints.group is None:
        raise ValueError(
            f"{name}: to hold out whole groups, rows need a group (column `device`). Received: rows without"
        )
    groups = fingerprints.group if whole_groups else copies
    count = len(np.unique(groups))
    if count < 2:
        members = "groups" if whole_groups else "different scans"
        raise ValueError(f"{name}: expected two {members} or more, to hold some out. Received: {count}")
    rows = np.arange(len(fingerprints))
    kept, out = _hold_out(rows, groups, share, draw)
    kept = _without_copies(kept, out, copies)
    if not len(kept):
        raise ValueError(f"{name}: all rows are copies of those held out")
    return fingerprints[kept], fingerprints[out]


def _parts(
    protocol: str,
    fingerprints: FingerprintSet,
    learning: np.ndarray,
    test: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    share: float = VALIDATION_SHARE,
    may_validate: np.ndarray | None = None,
) -> Parts:
    """Hold validation rows out of those to learn from, and leave out copies of rows that test or validate.

    Args:
        protocol: its name.
        fingerprints: all rows.
        learning, test: row numbers.
        groups: (n,) what validates as a whole; None stands for copies.
        share: of the groups that validates.
        may_validate: (n,) bool, which rows may; None stands for all.
    """
    copies = fingerprints.copy_id
    learning = _without_copies(learning, test, copies)
    eligible = learning
    if may_validate is not None:
        eligible = learning[may_validate[learning]]
    if groups is None:
        groups = copies
    _, validation = _hold_out(eligible, groups, share)
    train = _without_copies(learning, validation, copies)
    return Parts(
        protocol,
        train=fingerprints[train],
        validation=fingerprints[validation],
        test=fingerprints[test],
        transmitters=fingerprints.transmitters,
    )


def _kept(fingerprints: FingerprintSet) -> tuple[str, ...]:
    """The names of the transmitters that the paper's 98 % rule keeps on these rows."""
    kept = select_transmitters(fingerprints.rssi)
    return tuple(itertools.compress(fingerprints.transmitters, kept))


def _require(fingerprints: FingerprintSet, protocol: str, *fields: str) -> None:
    absent = [field for field in fields if getattr(fingerprints, field) is None]
    if absent:
        raise ValueError(f"{fingerprints.name}, {protocol}: rows need {', '.join(absent)}. Received: rows without")


def _rows_of(fingerprints: FingerprintSet, protocol: str, part: str) -> np.ndarray:
    """Numbers of the rows of one of the publisher's parts.

    Raises:
        ValueError: if there are none.
    """
    _require(fingerprints, protocol, "part")
    rows = np.flatnonzero(fingerprints.part == part)
    if not len(rows):
        raise ValueError(f"{fingerprints.name}, {protocol}: expected rows of the part `{part}`. Received: none")
    return rows


# === The protocols ===


def pooled(fingerprints: FingerprintSet) -> Parts:
    """The paper's: both files of UJIIndoorLoc pooled, a random 20 % tests, a random 10 % of the rest validates.

    As in the paper, the 98 % rule sees all rows, test rows among them: the one exception in this repository.
    """
    learning, test = _hold_out(np.arange(len(fingerprints)), fingerprints.copy_id, 0.20)
    parts = _parts("pooled", fingerprints, learning, test)
    return replace(parts, transmitters=_kept(fingerprints))


def _with_selection(parts: Parts) -> Parts:
    """With the transmitters that the 98 % rule keeps on the rows that train and validate."""
    learning = joined(parts.train, parts.validation)
    return replace(parts, transmitters=_kept(learning))


def _of_phones(protocol: str, fingerprints: FingerprintSet, learning: np.ndarray, test: np.ndarray) -> Parts:
    """All rows of some phones validate; the 98 % rule sees the rows that train and validate."""
    parts = _parts(protocol, fingerprints, learning, test, groups=fingerprints.group, share=PHONES_SHARE)
    return _with_selection(parts)


def official(fingerprints: FingerprintSet) -> Parts:
    """The publisher's: the validation file of UJIIndoorLoc tests. All rows of some phones validate."""
    _require(fingerprints, "official", "part", "group")
    learning = _rows_of(fingerprints, "official", "train")
    test = _rows_of(fingerprints, "official", "validation")
    return _of_phones("official", fingerprints, learning, test)


def random(fingerprints: FingerprintSet) -> Parts:
    """Random rows test: of a published split its test part, else 15 %. A random 10 % of the rest validates.

    Of the full release, which has no published split, as many validate as test.
    """
    if fingerprints.part is None:
        learning, test = _hold_out(np.arange(len(fingerprints)), fingerprints.copy_id, 0.15)
        return _parts("random", fingerprints, learning, test, share=0.15 / 0.85)
    # Of the published split, the subset at hand holds the parts `val`, on which we train, and `test`.
    learning = _rows_of(fingerprints, "random", "val")
    test = _rows_of(fingerprints, "random", "test")
    return _parts("random", fingerprints, learning, test)


def spatial(fingerprints: FingerprintSet) -> Parts:
    """Whole blocks of 500 m test, 20 % of those that are no car park. Of the rest, 10 % validate."""
    block = blocks(fingerprints.position)
    rows_in_block = np.bincount(block)[block]
    depot = rows_in_block > DEPOT_SHARE * len(fingerprints)
    rows = np.arange(len(fingerprints))
    learning, test = _hold_out(rows[~depot], block, 0.20)
    learning = np.sort(np.concatenate([learning, rows[depot]]))
    return _parts("spatial", fingerprints, learning, test, groups=block, may_validate=~depot)


def _unvalidated(fingerprints: FingerprintSet, learning: np.ndarray, test: np.ndarray) -> Parts:
    """Parts named after the environment. Nothing validates, and copies of test rows do not train.

    Args:
        fingerprints: all rows.
        learning, test: row numbers.
    """
    train = _without_copies(learning, test, fingerprints.copy_id)
    return Parts(
        fingerprints.name,
        train=fingerprints[train],
        validation=fingerprints[NO_ROWS],
        test=fingerprints[test],
        transmitters=fingerprints.transmitters,
    )


def published(fingerprints: FingerprintSet) -> Parts:
    """The publisher's own parts `train` and `test`. Nothing validates."""
    learning = _rows_of(fingerprints, "published", "train")
    test = _rows_of(fingerprints, "published", "test")
    return _unvalidated(fingerprints, learning, test)


def shared(fingerprints: FingerprintSet) -> Parts:
    """The split of a folder in COMFORD's format: `train`, `validation` and `test`.

    Where nothing is called `test`, `validation` tests, as in COMFORD, and nothing validates. Copies of rows that test
    or validate do not train.
    """
    learning = _rows_of(fingerprints, "shared", "train")
    validation = np.flatnonzero(fingerprints.part == "validation")
    test = np.flatnonzero(fingerprints.part == "test")
    if not len(test):
        test = _rows_of(fingerprints, "shared", "validation")
        return _unvalidated(fingerprints, learning, test)
    validation = _without_copies(validation, test, fingerprints.copy_id)
    learning = _without_copies(learning, validation, fingerprints.copy_id)
    parts = _unvalidated(fingerprints, learning, test)
    return replace(parts, validation=fingerprints[validation])


def fifth(fingerprints: FingerprintSet) -> Parts:
    """A random 20 % tests. Nothing validates."""
    learning, test = _hold_out(np.arange(len(fingerprints)), fingerprints.copy_id, 0.20)
    return _unvalidated(fingerprints, learning, test)


def first_month(fingerprints: FingerprintSet) -> Parts:
    """All training sets of the library's first month train, a random tenth of the test rows of all 25 months tests.

    Nothing validates. Training sets of later months are left out: the map ages as it does where nobody surveys again.
    The other test rows are left out, too: they are of the same points, and would take minutes to locate.
    """
    _require(fingerprints, "first_month", "part", "time")
    month = library_month(fingerprints.time)
    learning = np.flatnonzero((fingerprints.part == "train") & (month == 1))
    test = _rows_of(fingerprints, "first_month", "test")
    learning = _without_copies(learning, test, fingerprints.copy_id)
    _, tenth = _hold_out(test, fingerprints.copy_id, MONTHS_SHARE)
    return _unvalidated(fingerprints, learning, tenth)


def of_month(fingerprints: FingerprintSet, month: int, part: str) -> FingerprintSet:
    """The library's rows of one month, of all training sets or of all test sets.

    Args:
        fingerprints: the environment `uji_library_longterm`, or rows of it.
        month: from 1 to 25, as the publisher numbers the campaigns.
        part: `train` or `test`.

    Raises:
        ValueError: if there are no such rows.
    """
    rows = _rows_of(fingerprints, "of_month", part)
    in_month = library_month(fingerprints.time[rows]) == month
    if not in_month.any():
        raise ValueError(f"{fingerprints.name}: expected rows of month {month}, part `{part}`. Received: none")
    return fingerprints[rows[in_month]]


@dataclass(frozen=True)
class Protocol:
    """An environment that `datasets.load` has, and how its rows are parted.

    Attributes:
        environment: its name.
        part: the function that parts its rows.
        outdoors: whether it is outdoors; decides which of the paper's environments is its `partner`.
    """

    environment: str
    part: Callable[[FingerprintSet], Parts]
    outdoors: bool = False


PROTOCOLS = {
    "pooled": Protocol("ujiindoorloc", pooled),
    "official": Protocol("ujiindoorloc", official),
    "random": Protocol("lorawan_antwerp", random, outdoors=True),
    "spatial": Protocol("lorawan_antwerp", spatial, outdoors=True),
    # Environments with one protocol, which is named after them.
    "sigfox_rural": Protocol("sigfox_rural", fifth, outdoors=True),
    "uji_library": Protocol("uji_library", published),
    "uji_library_longterm": Protocol("uji_library_longterm", first_month),
    "tut1": Protocol("tut1", published),
    "tut2": Protocol("tut2", published),
    "tut5": Protocol("tut5", published),
    "cetc331": Protocol("cetc331", published),
    "hcxy": Protocol("hcxy", published),
}
PAIRS = (("pooled", "random"), ("official", "spatial"))  # that the paper's models transfer between, and learn together
INDOORS, OUTDOORS = "official", "random"  # the partners of protocols that are in no pair


# === Without test rows, for what all protocols share, such as layer widths ===


def _tested_elsewhere(fingerprints: FingerprintSet) -> list[Parts]:
    """The parts of the environment under all of its protocols."""
    parts = []
    for protocol in PROTOCOLS.values():
        if protocol.environment == fingerprints.name:
            parts.append(protocol.part(fingerprints))
    return parts


def _untested(fingerprints: FingerprintSet, others: Sequence[Parts]) -> np.ndarray:
    """Numbers of the rows that test under none of the other protocols, nor are copies of any that do."""
    tested = np.concatenate([parts.test.copy_hash for parts in others])
    is_tested = np.isin(fingerprints.copy_hash, tested)
    return np.flatnonzero(~is_tested)


def search(fingerprints: FingerprintSet) -> Parts:
    """A random 10 % of the rows that test under no protocol validates; nothing tests."""
    others = _tested_elsewhere(fingerprints)
    untested = _untested(fingerprints, others)
    parts = _parts("search", fingerprints, untested, NO_ROWS)
    fewest = min(len(parts_elsewhere.transmitters) for parts_elsewhere in others)
    if fewest < len(fingerprints.transmitters):  # its protocols follow the 98 % rule
        return _with_selection(parts)
    return parts


def phones(fingerprints: FingerprintSet) -> Parts:
    """The same within the training file, and some phones validate: for choices that must hold on other phones."""
    _require(fingerprints, "phones", "part", "group")
    untested = _untested(fingerprints, _tested_elsewhere(fingerprints))
    learning = untested[fingerprints.part[untested] == "train"]
    return _of_phones("phones", fingerprints, learning, NO_ROWS)


CHOOSING = {
    "search_indoors": Protocol("ujiindoorloc", search),
    "search_outdoors": Protocol("lorawan_antwerp", search),
    "phones": Protocol("ujiindoorloc", phones),
}


# === Transfer from many ===

INVENTED = {name: Protocol(name, fifth) for name in datasets.INVENTED}
# One protocol of each environment that others are pre-trained on. The library's 25 months are the library again.
SOURCES = ("official", "random", "sigfox_rural", "uji_library", "tut1", "tut2", "tut5", "cetc331", "hcxy", *INVENTED)
# Environments of one building or one campaign: what was learnt on a relative says nothing about transfer.
FAMILIES = (("tut1", "tut2", "tut5"), ("uji_library", "uji_library_longterm"), ("cetc331", "hcxy"))


def unrelated(protocol: str) -> tuple[str, ...]:
    """What a protocol's environment is transferred from: those of `SOURCES` at hand that are not of its family.

    Raises:
        ValueError: if there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(PROTOCOLS)}. Received: {protocol}")
    target = PROTOCOLS[protocol].environment
    relatives = {target}
    for family in FAMILIES:
        if target in family:
            relatives.update(family)
    names = []
    for name in SOURCES:
        environment = (PROTOCOLS | INVENTED)[name].environment
        if environment not in relatives and datasets.at_hand(environment):
            names.append(name)
    return tuple(names)


# === By name ===


@lru_cache(maxsize=16)  # all protocols of a notebook
def load(protocol: str, rows: int | None = None) -> Parts:
    """The rows of a protocol's environment, measured or simulated as `DATA` says.

    Args:
        protocol: a key of `PROTOCOLS`, `CHOOSING` or `INVENTED`; or the path of a folder in COMFORD's format, for its
            own split.
        rows: takes so many random rows of the environment, for quick trials; None takes all.

    Raises:
        ValueError: if there is no such protocol.
    """
    everything = PROTOCOLS | CHOOSING | INVENTED
    chosen = everything.get(protocol)
    if chosen is None and comford.is_folder(protocol):
        chosen = Protocol(protocol, shared)
    if chosen is None:
        names = ", ".join(everything)
        raise ValueError(f"`protocol` must be one of {names}, or a folder in COMFORD's format. Received: {protocol}")
    fingerprints = datasets.load(chosen.environment)
    return chosen.part(some_rows(fingerprints, rows))


def some_rows(fingerprints: FingerprintSet, rows: int | None, seed: int = 0) -> FingerprintSet:
    """At most so many random rows, in their order; None keeps all."""
    if rows is None:
        return fingerprints
    count = min(rows, len(fingerprints))
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(fingerprints), count, replace=False)
    return fingerprints[np.sort(chosen)]


def partner(protocol: str) -> str:
    """The protocol of one of the paper's environments that a model is transferred from, and learnt together with.

    Args:
        protocol: a key of `PROTOCOLS`.

    Returns:
        The other one of its pair; of what is in no pair, the paper's environment of the other kind: LoRaWAN for what is
        indoors, UJIIndoorLoc for what is outdoors.

    Raises:
        ValueError: if there is no such protocol.
    """
    for pair in PAIRS:
        if protocol in pair:
            indoors, outdoors = pair
            return outdoors if protocol == indoors else indoors
    if protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(PROTOCOLS)}. Received: {protocol}")
    return INDOORS if PROTOCOLS[protocol].outdoors else OUTDOORS


# === Where test rows lie ===


def blocks(position: np.ndarray, side: float = BLOCK_M) -> np.ndarray:
    """(n, 2) metres → (n,) number of the square block that each position lies in."""
    return areas(position, side)


def distance_to_training(train: FingerprintSet, test: FingerprintSet) -> np.ndarray:
    """(n_test,) metres from each test position to the nearest training position: what the protocol asks for."""
    places = np.unique(train.position, axis=0)  # a tree cannot tell apart what is at one place
    nearest, _ = cKDTree(places).query(test.position)
    return nearest
