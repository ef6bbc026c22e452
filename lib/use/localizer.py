"""A localizer for your own places: raw dBm in, position and calibrated radius out, saved as files.

How the radius is calibrated is in `lib/use/conformal.py`.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from lib import metrics, quiet_import
from lib.data import protocols
from lib.data.fingerprints import FingerprintSet, Frame, Release, Scans, in_common
from lib.data.reading import NamedScans, matrix
from lib.models.estimator import Estimator, Located, require_rows
from lib.models.places import usual_range
from lib.models.unified import LABELS, Unified
from lib.use.conformal import Calibration

with quiet_import():
    import keras

FORMAT, VERSION = "fingerprint-localizer", 1
MODEL, DESCRIPTION = "model.keras", "localizer.json"
CARD, MAP = "card.md", "map.png"  # that may lie beside them, see `lib/use/card.py`
FILES = (MODEL, DESCRIPTION, CARD, MAP)
LEVELS = (0.5, 0.9)  # of the radii
PACKAGES = ("keras", "tensorflow", "numpy")  # whose versions a localizer records


@dataclass(frozen=True)
class Environment:
    """What a localizer knows of an environment beside its network.

    Attributes:
        name: of the FingerprintSet.
        frame: its plane; predicted positions are in it.
        origin: (east, north) metres in `frame` from which the network counts: its numbers are float32.
        building, floor: whether there are any.
        release: what it was fitted on.
        learning_rows: how many rows trained the network.
        calibration: of the others.
    """

    name: str
    frame: Frame
    origin: tuple[float, float]
    building: bool
    floor: bool
    release: Release
    learning_rows: int
    calibration: Calibration

    @classmethod
    def from_json(cls, fields: Mapping) -> "Environment":
        """The environment of which `dataclasses.asdict` made these fields."""
        frame = Frame(**fields["frame"])
        frame = dataclasses.replace(frame, origin=tuple(frame.origin))
        parts = {
            "frame": frame,
            "origin": tuple(fields["origin"]),
            "release": Release(**fields["release"]),
            "calibration": Calibration(**fields["calibration"]),
        }
        return cls(**{**fields, **parts})


class Localizer(Estimator):
    """A unified network for one environment or several, and how sure it is.

    A transmitter that several environments name is the same in all of them. Scans that hear nothing teach nothing.

    Args:
        settings: those of `Unified`, with the head that classifies places: it alone tells its spread.

    Attributes:
        unified: after `fit`, the network's estimator, in whose frames each environment begins at its `origin`.
        environments: after `fit`, what it knows of each environment, in the order of the network's output.
        provenance: after `fit`, seed, settings and versions.

    Raises:
        ValueError: if the settings are wrong.
    """

    has_files: ClassVar[bool] = True

    def __init__(self, **settings):
        if settings.get("head", "places") != "places":
            raise ValueError(f"`head` must be places, which tells its spread. Received: {settings['head']}")
        self.settings = settings
        self.unified = Unified(**settings)

    @property
    def model(self) -> keras.Model:
        """(n, t) dBm, NaN = not heard → environment (n, e), building, floor (n,), position (n, 2), spread (n,)."""
        return self.unified.network

    @property
    def transmitters(self) -> tuple[str, ...]:
        """(t,) names of its inputs: those that a learning row hears."""
        return self.unified.transmitters

    # === Fit ===

    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """Learn from the training rows, and calibrate the uncertainty on the validation rows.

        Raises:
            ValueError: if names repeat, a set has too few rows that hear something to learn or to calibrate, or all
                rows are at one place.
        """
        require_rows(train, validation)
        learning, calibrating, shifted, origins = [], [], [], []
        for train_rows, validation_rows in zip(train, validation, strict=True):
            rows, held_out = _audible(train_rows, validation_rows)
            origin = _corner(rows)
            learning.append(rows)
            calibrating.append(held_out)
            shifted.append(_shifted(rows, origin))
            origins.append(origin)
        nothing = [rows[:0] for rows in shifted]
        self.unified.fit(shifted, nothing, seed=seed)
        self.n_train = self.unified.n_train
        self.curves = self.unified.curves
        calibrations = self._calibrations(calibrating, origins)
        environments = []
        for rows, origin, calibration in zip(learning, origins, calibrations, strict=True):
            environments.append(_environment(rows, origin, calibration))
        self.environments = tuple(environments)
        self.provenance = {"seed": seed, "settings": _plain(self.settings), "versions": _versions()}
        return self

    def _calibrations(self, calibrating: Sequence[FingerprintSet], origins: Sequence[tuple]) -> list[Calibration]:
        """Of each environment; where a row is located in another environment, its error is infinite."""
        scans = in_common([rows.scans for rows in calibrating])
        located = self.unified.predict(scans)
        predicted_environment = _environment_numbers(located)
        counts = [len(rows) for rows in calibrating]
        own_environment = np.repeat(np.arange(len(calibrating)), counts)
        true = np.concatenate([rows.position for rows in calibrating])
        predicted = located.position + np.array(origins)[predicted_environment]
        error = metrics.euclidean_errors(true, predicted)
        error[own_environment != predicted_environment] = np.inf
        spread = located.spread.astype(np.float64)
        calibrations = []
        for number in range(len(calibrating)):
            rows = own_environment == number
            calibrations.append(Calibration.of(error[rows], spread[rows], self._scale(number)))
        return calibrations

    def _scale(self, number: int) -> float:
        """Metres, the median sigma of an environment's places."""
        places = self.unified.places
        sigma = places.sigma[places.environment == number]
        return float(np.median(sigma))

    @classmethod
    def holding_out(
        cls,
        fingerprints: Sequence[FingerprintSet],
        seed: int = 0,
        *,
        calibration: float | Sequence[float] = 0.10,
        whole_groups: bool | Sequence[bool] = False,
        **settings,
    ) -> "Localizer":
        """Fit on most rows of each environment, and calibrate the uncertainty on the others.

        Args:
            fingerprints: one set for each environment, with different names.
            seed: see `fit`; it also draws the rows that calibrate.
            calibration: share of the rows that calibrate, or one for each environment; copies of a scan stay together.
            whole_groups: hold out all rows of that share of the groups (devices) in the place of that share of all
                rows, or whether to for each environment: the radius is then that of groups that were never seen.
            settings: see the class.

        Raises:
            ValueError: if names repeat, a set has too few rows that hear something to hold some out, all rows are at
                one place, there are no groups where whole ones are to be held out, or the settings are wrong.
        """
        require_rows(fingerprints, fingerprints)
        localizer = cls(**settings)
        shares = _for_each(calibration, len(fingerprints), "calibration")
        by_groups = _for_each(whole_groups, len(fingerprints), "whole_groups")
        learning, calibrating = [], []
        for rows, share, by_group in zip(fingerprints, shares, by_groups, strict=True):
            audible = rows[rows.heard.any(axis=1)]
            kept, held_out = protocols.held_out(audible, share, by_group, seed)
            learning.append(kept)
            calibrating.append(held_out)
        localizer.fit(learning, calibrating, seed=seed)
        held_out_by = {"calibration": calibration, "whole_groups": whole_groups}
        localizer.provenance["settings"] |= _plain(held_out_by)
        return localizer

    # === Use ===

    def predict(self, scans: Scans) -> Located:
        """See `Estimator.predict`; the spread is in metres, and `locate` turns it into radii."""
        located = self.unified.predict(scans)
        environment = _environment_numbers(located)
        origins = np.array([environment.origin for environment in self.environments])
        return dataclasses.replace(located, position=located.position + origins[environment])

    def locate(self, scans, levels: Sequence[float] = LEVELS, not_heard: Sequence = ()) -> pd.DataFrame:
        """Where scans were taken, as a table.

        Args:
            scans, not_heard: see `reading.matrix`.
            levels: of the radii, each between 0 and 1.

        Returns:
            One row a scan, in their order: `located`, whether it hears a transmitter that is known, without which all
            of what follows but the counts is missing; `environment`; `building` and `floor`, where the environment has
            any; `x`, `y` in metres of its frame (UJIIndoorLoc: Web Mercator); `latitude`, `longitude` in degrees, where
            the frame has them; `radius_50` and so on in the same metres; `heard` and `unknown`, how many known and
            other transmitters it hears.

        Raises:
            ValueError: for scans that `reading.matrix` refuses, or levels out of range.
        """
        return self._table(matrix(scans, self.transmitters, not_heard), levels)

    def _table(self, scans: NamedScans, levels: Sequence[float]) -> pd.DataFrame:
        for level in levels:
            if not 0 < level < 1:
                raise ValueError(f"`levels` must be between 0 and 1. Received: {level}")
        heard = (~np.isnan(scans.rssi)).sum(axis=1)
        is_located = heard > 0
        columns = {"located": is_located} | self._columns(scans.rssi, is_located, levels)
        return pd.DataFrame(columns | {"heard": heard, "unknown": scans.unknown}, index=scans.index)

    def _columns(self, rssi: np.ndarray, is_located: np.ndarray, levels: Sequence[float]) -> dict:
        """Environment, labels, positions and radii of (n, t) dBm; missing in rows that are not to be located."""
        n_rows = len(rssi)
        radii = [_radius(level) for level in levels]
        measures = ["x", "y", "latitude", "longitude", *radii]
        numbers = np.full((n_rows, len(measures)), np.nan)
        names = pd.array([pd.NA] * n_rows, dtype="string")
        labels = {label: pd.array([pd.NA] * n_rows, dtype="Int64") for label in LABELS}
        if is_located.any():
            located = self.predict(Scans(rssi[is_located], self.transmitters))
            environment_numbers = _environment_numbers(located)
            for number, environment in enumerate(self.environments):
                here = environment_numbers == number
                rows = np.flatnonzero(is_located)[here]
                names[rows] = environment.name
                numbers[rows] = _measures(environment, located[here], levels)
                for label in LABELS:
                    if getattr(environment, label):
                        labels[label][rows] = getattr(located, label)[here]
        return {"environment": names, **labels, **dict(zip(measures, numbers.T, strict=True))}

    def evaluate(self, fingerprints: FingerprintSet, levels: Sequence[float] = LEVELS) -> dict[str, float | int | str]:
        """How good predictions are on fingerprints that took no part in the fit.

        Args:
            fingerprints: of one of the environments, by its name.
            levels: see `locate`.

        Returns:
            `environment` and `rows`; `located` and `environment_hit`, the shares of all rows that hear a known
            transmitter and that are located in the right environment; of these last, errors in metres of the frame
            (`mean_m`, `median_m`, `p75_m`, `p95_m`) and where there are any, `building_hit` and `floor_hit`; of the
            located rows, `coverage_50` and so on, the share within the radius, and `radius_50`, its median in metres.
            NaN where there is no such row.

        Raises:
            ValueError: if there is no such environment, or its frame or that of the rows has no place on earth.
        """
        environment = self._environment_called(fingerprints.name)
        wide = pd.DataFrame(fingerprints.rssi, columns=list(fingerprints.transmitters))
        table = self._table(matrix(wide, self.transmitters), levels)
        is_located = table["located"].to_numpy()
        hit = (table["environment"] == environment.name).fillna(False).to_numpy(dtype=bool)
        error = np.full(len(table), np.inf)
        true = _in_frame(environment.frame, fingerprints)
        predicted = table.loc[hit, ["x", "y"]].to_numpy()
        error[hit] = metrics.euclidean_errors(true[hit], predicted)
        errors_of_hits = error[hit] if hit.any() else np.array([np.nan])
        measured = {
            "environment": environment.name,
            "rows": len(table),
            "located": float(is_located.mean()),
            "environment_hit": float(hit.mean()),
            **metrics.summary(errors_of_hits),
        }
        for label in LABELS:
            true_label = getattr(fingerprints, label)
            if getattr(environment, label) and true_label is not None:
                right = table[label] == true_label
                measured[f"{label}_hit"] = float(right[hit].astype(float).mean())
        for level in levels:
            radius = table.loc[is_located, _radius(level)]
            within = error[is_located] <= radius
            measured[f"coverage_{100 * level:g}"] = float(within.mean())
            measured[_radius(level)] = float(radius.median())
        return measured

    def _environment_called(self, name: str) -> Environment:
        for environment in self.environments:
            if environment.name == name:
                return environment
        names = ", ".join(environment.name for environment in self.environments)
        raise ValueError(f"`fingerprints` must be of {names}. Received: {name}")

    # === Save and load ===

    def save(self, directory: Path | str, card: Mapping[str, bytes] | None = None) -> None:
        """Write the localizer beside `directory` and move it there whole; a localizer that is there is replaced.

        Args:
            directory: where it is put.
            card: contents of `CARD` and `MAP`, see `lib/use/card.py`; None writes none.

        Raises:
            ValueError: if something else is there.
        """
        directory = Path(directory)
        require_replaceable(directory)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".writing-") as scratch:
            complete = Path(scratch) / "localizer"
            complete.mkdir()
            self.model.save(complete / MODEL)
            description = {
                "format": FORMAT,
                "version": VERSION,
                "transmitters": list(self.transmitters),
                "environments": [dataclasses.asdict(environment) for environment in self.environments],
                "provenance": self.provenance,
                "model_sha256": hashlib.sha256((complete / MODEL).read_bytes()).hexdigest(),
            }
            description["sha256"] = _checksum(description)
            text = json.dumps(description, indent=1, allow_nan=False)
            (complete / DESCRIPTION).write_text(text + "\n")
            for name, content in (card or {}).items():
                (complete / name).write_bytes(content)
            if directory.exists():
                directory.rename(Path(scratch) / "replaced")
            complete.rename(directory)

    @classmethod
    def load(cls, directory: Path | str) -> "Localizer":
        """What `save` wrote, checked.

        Raises:
            ValueError: if the directory holds no localizer, a damaged one, or one of a newer format.
        """
        directory = Path(directory)
        description = _read_description(directory)
        localizer = cls()
        environments = [Environment.from_json(fields) for fields in description["environments"]]
        localizer.environments = tuple(environments)
        localizer.provenance = description["provenance"]
        localizer.n_train = [environment.learning_rows for environment in environments]
        localizer.unified.network = _read_network(directory / MODEL, localizer.provenance)
        localizer.unified.take(
            {
                "transmitters": description["transmitters"],
                "environments": [environment.name for environment in environments],
                "n_train": localizer.n_train,
                "labels": [label for label in LABELS if any(getattr(each, label) for each in environments)],
            }
        )
        return localizer


# === Files ===


def require_replaceable(directory: Path | str) -> None:
    """Raise ValueError if there is something at `directory` that is neither a localizer nor an empty directory."""
    directory = Path(directory)
    if not directory.exists():
        return
    names = {directory.name}
    if directory.is_dir():
        names = {path.name for path in directory.iterdir()}.difference(FILES)
    if names:
        first = ", ".join(sorted(names)[:3])
        raise ValueError(f"{directory} holds what is no localizer, and is not replaced: {first}")


def _read_description(directory: Path) -> dict:
    """The description of a localizer, without its checksum, after all checksums have been compared."""
    path = directory / DESCRIPTION
    try:
        description = json.loads(path.read_bytes())
        network = (directory / MODEL).read_bytes()
    except (OSError, ValueError) as problem:
        raise ValueError(f"{directory} holds no localizer ({DESCRIPTION} and {MODEL}): {problem}") from problem
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a description of the format {FORMAT}, found another")
    version = description.get("version")
    if version != VERSION:
        raise ValueError(
            f"{path}: expected version {VERSION} of the format, found {version!r}. "
            "Load it with the code that wrote it, or fit it again"
        )
    checksum = description.pop("sha256", None)
    _require_same(path, checksum, _checksum(description))
    _require_same(directory / MODEL, description.get("model_sha256"), hashlib.sha256(network).hexdigest())
    return description


def _require_same(path: Path, expected: str | None, computed: str) -> None:
    if expected != computed:
        raise ValueError(f"{path} is damaged: expected sha256 {expected}, found {computed}")


def _checksum(description: Mapping) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _read_network(path: Path, provenance: Mapping) -> keras.Model:
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as problem:  # Keras raises exceptions of any class
        writer = provenance["versions"].get("keras")
        raise ValueError(
            f"{path} was written by Keras {writer}; Keras {keras.__version__} cannot read it: {problem}"
        ) from problem


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = importlib.metadata.version(package)
    versions["backend"] = keras.backend.backend()
    return versions


def _plain(settings: dict) -> dict:
    """Settings as JSON has them."""
    return json.loads(json.dumps(settings, default=str))


# === Rows and columns ===


def _environment(rows: FingerprintSet, origin: tuple[float, float], calibration: Calibration) -> Environment:
    """What a localizer keeps of an environment that it learnt from these rows."""
    return Environment(
        name=rows.name,
        frame=rows.frame,
        origin=origin,
        building=rows.building is not None,
        floor=rows.floor is not None,
        release=rows.release,
        learning_rows=len(rows),
        calibration=calibration,
    )


def _radius(level: float) -> str:
    """The column of the radius of a level."""
    return f"radius_{100 * level:g}"


def _measures(environment: Environment, located: Located, levels: Sequence[float]) -> np.ndarray:
    """(n, 4 + levels) positions in metres and in degrees, and radii in metres, of rows of one environment."""
    degrees = environment.frame.to_degrees(located.position)
    spread = located.spread.astype(np.float64)
    radii = [environment.calibration.radius(spread, level) for level in levels]
    return np.column_stack([located.position, degrees, *radii])


def _environment_numbers(located: Located) -> np.ndarray:
    """(n,) number of the environment of each row, 0 where there is only one environment."""
    if located.environment is None:
        return np.zeros(len(located), dtype=int)
    return located.environment


def _for_each(value, count: int, setting: str) -> list:
    """One value for all environments, or one for each, as one for each."""
    if not np.ndim(value):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"`{setting}` must be one value or {count}, one for each environment. Received: {value}")
    return list(value)


def _audible(learning: FingerprintSet, calibrating: FingerprintSet) -> tuple[FingerprintSet, FingerprintSet]:
    """The rows that hear a transmitter which a learning row hears, with these transmitters alone."""
    learning = learning[learning.heard.any(axis=1)]
    used = learning.heard.any(axis=0)
    names = tuple(np.array(learning.transmitters, dtype=object)[used])
    learning = dataclasses.replace(learning, rssi=learning.rssi[:, used], transmitters=names)
    calibrating = dataclasses.replace(calibrating, rssi=calibrating.scans.of(names), transmitters=names)
    calibrating = calibrating[calibrating.heard.any(axis=1)]
    if not len(calibrating):
        raise ValueError(
            f"{learning.name}: no row that was held out hears a transmitter of the others: too few rows to calibrate"
        )
    return learning, calibrating


def _corner(fingerprints: FingerprintSet) -> tuple[float, float]:
    """(east, north) whole metres, the corner of the rows' usual range: a far row would cost float32 its digits."""
    low, _ = usual_range(fingerprints.position)
    return tuple(np.floor(low).tolist())


def _shifted(fingerprints: FingerprintSet, origin: tuple[float, float]) -> FingerprintSet:
    """The same rows in a frame with another origin, at these metres of its own frame."""
    frame_origin = np.add(fingerprints.frame.origin, origin)
    frame = dataclasses.replace(fingerprints.frame, origin=tuple(frame_origin.tolist()))
    position = fingerprints.position - np.array(origin)
    return dataclasses.replace(fingerprints, position=position, frame=frame)


def _in_frame(frame: Frame, fingerprints: FingerprintSet) -> np.ndarray:
    """(n, 2) positions of fingerprints in another frame."""
    own_frame = fingerprints.frame
    if (frame.crs, frame.origin) == (own_frame.crs, own_frame.origin):
        return fingerprints.position
    if frame.crs is None or own_frame.crs is None:
        raise ValueError(f"{fingerprints.name}: positions in degrees and in metres of an own plane cannot be compared")
    return frame.from_degrees(own_frame.to_degrees(fingerprints.position))
