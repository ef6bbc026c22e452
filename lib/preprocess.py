"""From FingerprintSet to what a network sees: transmitter selection and scaling (Eq. 5), fitted on training rows."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lib.fingerprints import FingerprintSet, Frame, Release, require_memory, row_blocks
from lib.paths import replacing
from lib.splits import SPLIT_SEED, Split, split

MISSING_SHARE = 0.98  # the paper's threshold for access points; all gateways are kept
PARTS = ("train", "validation", "test")
# What stands for "not heard": 1 dB under the receivers' sensitivity; outdoors the paper's value.
NOT_HEARD_DBM = {"ujiindoorloc": -105.0, "lorawan_antwerp": -128.0}


def not_heard_dbm(fingerprints: FingerprintSet) -> float:
    """The level that stands for "not heard": where none is known for an environment, 1 dB under its weakest RSSI."""
    known = NOT_HEARD_DBM.get(fingerprints.name)
    return float(np.nanmin(fingerprints.rssi)) - 1 if known is None else known


def select_transmitters(
    rssi: np.ndarray, missing_share: float = MISSING_SHARE, rows: np.ndarray | None = None
) -> np.ndarray:
    """(n, t) dBm with NaN = not heard → (t,) bool: transmitters that at most `missing_share` of the rows miss.

    Args:
        rssi: the fingerprints.
        missing_share: the threshold.
        rows: numbers of the rows that count; None counts all.

    Raises:
        ValueError: if the share is not in [0, 1] or no transmitter is left.
    """
    if not 0 <= missing_share <= 1:
        raise ValueError(f"`missing_share` must be between 0 and 1. Received: {missing_share}")
    rows = np.arange(len(rssi)) if rows is None else rows
    missing = np.zeros(rssi.shape[1], dtype=np.int64)
    for block in row_blocks((len(rows), *missing.shape)):
        missing += np.isnan(rssi[rows[block]]).sum(axis=0)
    kept = missing / len(rows) <= missing_share
    if not kept.any():
        raise ValueError(f"no transmitter is heard in more than {1 - missing_share:.1%} of {len(rows)} rows")
    return kept


def _levels(rssi: np.ndarray, minimum: float, of_height: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """dBm → what `of_height` makes of the dB above `minimum`, 0 dB for "not heard" and for all that is weaker."""
    levels = np.empty(rssi.shape, dtype=np.float32)
    for rows in row_blocks(rssi.shape):
        filled = np.where(np.isnan(rssi[rows]), minimum, np.maximum(rssi[rows], minimum))
        levels[rows] = of_height(filled - minimum)
    return levels


def powed(rssi: np.ndarray, minimum: float, exponent: float = np.e) -> np.ndarray:
    """((rssi − min) / −min)^e with 0 for "not heard" (Torres-Sospedra et al. 2015): a scan for the Sørensen distance.

    Args:
        rssi: (n, t) dBm, NaN = not heard.
        minimum: the level that maps to 0, as in `NOT_HEARD_DBM`.
        exponent: β.
    """
    return _levels(rssi, minimum, lambda height: (height / -minimum) ** exponent)


def exponential(rssi: np.ndarray, minimum: float, alpha: float = 60.0) -> np.ndarray:
    """(e^((rssi − min)/α) − 1) / (e^(−min/α) − 1) with 0 for "not heard" (Torres-Sospedra et al. 2015).

    The − 1 is ours: without it "not heard" has a level, and two scans are alike in all that neither hears.

    Args:
        rssi, minimum: as in `powed`.
        alpha: α in dB; 60 is that of Anagnostopoulos & Kalousis 2019.
    """
    return _levels(rssi, minimum, lambda height: np.expm1(height / alpha) / np.expm1(-minimum / alpha))


@dataclass(frozen=True)
class MinMaxScaling:
    """Eq. 5: x̃ = a + (b − a)(x − x_min) / (x_max − x_min), for all values together or per column.

    Attributes:
        minimum, maximum: x_min and x_max, one for all columns or one a column.
        lower, upper: the bounds a < b.

    Raises:
        ValueError: if a bound or a maximum is not above its minimum.
    """

    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self):
        if not self.lower < self.upper:
            raise ValueError(f"`lower` must be less than `upper`. Received: {self.lower} and {self.upper}")
        if not np.all(np.less(self.minimum, self.maximum)):
            raise ValueError(f"`minimum` must be less than `maximum`. Received: {self.minimum} and {self.maximum}")

    @classmethod
    def of_rssi(cls, rssi: np.ndarray, not_heard: float, lower: float = 0.0, upper: float = 1.0) -> "MinMaxScaling":
        """For (n, t) dBm: x_min is the level of "not heard", x_max the strongest RSSI."""
        return cls((not_heard,), (float(np.nanmax(rssi)),), lower, upper)

    @classmethod
    def of_position(cls, position: np.ndarray) -> "MinMaxScaling":
        """For (n, 2) metres: each axis to [0, 1]."""
        return cls(tuple(position.min(axis=0).tolist()), tuple(position.max(axis=0).tolist()))

    @property
    def _slope(self) -> np.ndarray:
        return (self.upper - self.lower) / np.subtract(self.maximum, self.minimum)

    def transform(self, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Scaled values, float32; NaN (not heard) counts as the minimum. `out` takes them, `values` itself included."""
        values = np.asarray(values)
        out = np.empty(values.shape, dtype=np.float32) if out is None else out
        for rows in row_blocks(values.shape):
            filled = np.where(np.isnan(values[rows]), self.minimum, values[rows])
            out[rows] = self.lower + (filled - self.minimum) * self._slope
        return out

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        """Values from scaled values, float64. What was not heard comes back as the minimum."""
        return (np.asarray(scaled, dtype=np.float64) - self.lower) / self._slope + np.asarray(self.minimum)


@dataclass(frozen=True, eq=False)
class ProcessedSet:
    """One environment under one protocol, as the networks see it.

    Attributes:
        environment, release, frame: as in the FingerprintSet it was made from.
        split: the protocol's row numbers, within `rows`.
        rows: (n,) the rows of the FingerprintSet that were used.
        kept: (t,) bool, the transmitters that were kept.
        rssi_scaling, position_scaling: fitted on training rows.
        x: (n, kept) float32 scaled RSSI.
        position: (n, 2) float64 local metres.
    """

    environment: str
    release: Release
    frame: Frame
    split: Split
    rows: np.ndarray
    kept: np.ndarray
    rssi_scaling: MinMaxScaling
    position_scaling: MinMaxScaling
    x: np.ndarray
    position: np.ndarray

    @property
    def y(self) -> np.ndarray:
        """(n, 2) float32 positions scaled to [0, 1] on the training rows' range."""
        return self.position_scaling.transform(self.position)

    @property
    def protocol(self) -> str:
        return self.split.protocol

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """x and y of `train`, `validation` or `test`."""
        rows = getattr(self.split, name)
        return self.x[rows], self.y[rows]

    def save(self, path: Path) -> None:
        """Write everything, provenance included, to one `.npz` file."""
        about = {
            "environment": self.environment,
            "release": asdict(self.release),
            "frame": asdict(self.frame),
            "protocol": self.protocol,
            "rssi_scaling": asdict(self.rssi_scaling),
            "position_scaling": asdict(self.position_scaling),
        }
        arrays = {name: getattr(self.split, name) for name in PARTS}
        arrays |= {name: getattr(self, name) for name in ("rows", "kept", "x", "position")}
        with replacing(path) as temporary:
            np.savez_compressed(temporary, about=json.dumps(about), **arrays)

    @classmethod
    def load(cls, path: Path) -> "ProcessedSet":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: if notebook 02 has not written the file yet.
        """
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist. Notebook 02_preprocess writes it: run that first")
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("about")))
        scalings = {
            name: MinMaxScaling(
                **{key: tuple(value) if isinstance(value, list) else value for key, value in about[name].items()}
            )
            for name in ("rssi_scaling", "position_scaling")
        }
        return cls(
            environment=about["environment"],
            release=Release(**about["release"]),
            frame=Frame(**about["frame"] | {"origin": tuple(about["frame"]["origin"])}),
            split=Split(about["protocol"], *(arrays.pop(name) for name in PARTS)),
            **scalings,
            **arrays,
        )


def process(fingerprints: FingerprintSet, protocol: str, rows: np.ndarray, bounds: tuple[float, float]) -> ProcessedSet:
    """Split, select transmitters and scale, all fitted on the rows that the protocol allows.

    Under `pooled` the 98 % rule sees all rows, as in the paper; under every other protocol only the rows that train
    and validate. Gateways are all kept.

    Args:
        fingerprints: the environment.
        protocol: one of `splits.PROTOCOLS`.
        rows: rows of `fingerprints` to use.
        bounds: a and b of Eq. 5.

    Raises:
        MemoryError: if the scaled RSSI does not fit in what is available.
    """
    rows = np.asarray(rows)
    require_memory(len(rows), len(fingerprints.transmitters))
    parts = split(fingerprints[rows], protocol)
    kept = np.ones(len(fingerprints.transmitters), dtype=bool)
    if fingerprints.name == "ujiindoorloc":
        learning = np.concatenate([parts.train, parts.validation])
        kept = select_transmitters(fingerprints.rssi, rows=rows if protocol == "pooled" else rows[learning])
    rssi, position = fingerprints.rssi[np.ix_(rows, np.flatnonzero(kept))], fingerprints.position[rows]
    strongest = np.fmax.reduce(rssi, axis=1)  # of each row, so that the training rows need not be copied
    rssi_scaling = MinMaxScaling.of_rssi(strongest[parts.train], NOT_HEARD_DBM[fingerprints.name], *bounds)
    return ProcessedSet(
        environment=fingerprints.name,
        release=fingerprints.release,
        frame=fingerprints.frame,
        split=parts,
        rows=rows,
        kept=kept,
        rssi_scaling=rssi_scaling,
        position_scaling=MinMaxScaling.of_position(position[parts.train]),
        x=rssi_scaling.transform(rssi, out=rssi),
        position=position,
    )


def side_by_side(scans: Sequence[np.ndarray], not_heard: float, shared_columns: bool) -> np.ndarray:
    """Scans of several environments as one matrix, the rows of the first environment first.

    Args:
        scans: (n, t) RSSI of each environment, scaled or in dBm.
        not_heard: what fills the columns that an environment does not have: the lower bound of Eq. 5, NaN in dBm.
        shared_columns: False gives each environment's transmitters columns of their own, as in the paper; True puts
            all into the same columns, so that which columns are in use does not give the environment away.

    Returns:
        (Σn, Σt) float32, or (Σn, max t) with shared columns.

    Raises:
        MemoryError: if that does not fit in what is available.
    """
    widths = [one.shape[1] for one in scans]
    starts = column_starts(widths, shared_columns)
    rows, width, row = sum(map(len, scans)), max(np.add(starts, widths)), 0
    require_memory(rows, width)
    joined = np.full((rows, width), not_heard, dtype=np.float32)
    for one, start in zip(scans, starts, strict=True):
        joined[row : row + len(one), start : start + one.shape[1]] = one
        row += len(one)
    return joined


def column_starts(widths: Sequence[int], shared_columns: bool) -> list[int]:
    """In which column the transmitters of each environment begin in `side_by_side`."""
    return [0] * len(widths) if shared_columns else [0, *np.cumsum(widths[:-1]).tolist()]


def balanced(environment: np.ndarray, seed: int) -> np.ndarray:
    """(n, 1) 0/1 → shuffled row numbers with equally many of both, as many as the rarer has."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(environment[:, 0] == which) for which in (0, 1)]
    count = min(map(len, rows))
    return rng.permutation(np.concatenate([rng.choice(of_one, count, replace=False) for of_one in rows]))


def unify(indoor: ProcessedSet, outdoor: ProcessedSet, shared_columns: bool = False) -> dict[str, tuple]:
    """Both environments as the U-MLP sees them.

    Args:
        indoor, outdoor: sets with the same bounds of Eq. 5.
        shared_columns: see `side_by_side`.

    Returns:
        For each part, (x, y) with y a dict: `environment` (n, 1), 0 indoors and 1 outdoors, and `position` (n, 2),
        scaled. Training and validation rows are shuffled and balanced; test rows are all there, the indoor ones first.

    Raises:
        ValueError: if the bounds differ, which would tell the environments apart.
    """
    bounds = [(data.rssi_scaling.lower, data.rssi_scaling.upper) for data in (indoor, outdoor)]
    if bounds[0] != bounds[1]:
        raise ValueError(f"both environments must have the same bounds of Eq. 5. Received: {bounds[0]} and {bounds[1]}")
    parts = {}
    for part in PARTS:
        (x_in, y_in), (x_out, y_out) = indoor.part(part), outdoor.part(part)
        x = side_by_side([x_in, x_out], bounds[0][0], shared_columns)
        environment = np.repeat(np.float32([0, 1]), [len(x_in), len(x_out)])[:, None]
        y = {"environment": environment, "position": np.concatenate([y_in, y_out])}
        rows = np.arange(len(x)) if part == "test" else balanced(environment, SPLIT_SEED)
        parts[part] = x[rows], {name: values[rows] for name, values in y.items()}
    return parts
