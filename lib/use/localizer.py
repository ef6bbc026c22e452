"""A localizer for your own places: raw dBm in, position and calibrated radius out, saved as files.

How the radius is calibrated is in `lib/use/conformal.py`; `lib/use/runtime.py` locates with the saved files without
TensorFlow.
"""

import copy
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from lib import metrics, quiet_import
from lib.data.fingerprints import FingerprintSet, Release, Scans, joined
from lib.data.folds import HOLD_OUT
from lib.data.forms import NamedScans, Rules, as_marker, matrix
from lib.data.frames import Frame
from lib.data.names import Spellings
from lib.models import earlier, training  # noqa: F401, layers of earlier releases register themselves
from lib.models.estimator import Estimator, Located, require_rows
from lib.models.places import usual_range
from lib.models.unified import HeldOutRows, Unified
from lib.models.updating import updated
from lib.use import convert, runtime
from lib.use.conformal import Calibration
from lib.use.frame import as_frame
from lib.use.runtime import DESCRIPTION, KERAS_FILE, LABELS, LEVELS, ONNX_FILE, radius_column

with quiet_import():
    import keras

CARD, MAP = "card.md", "map.png"  # that may lie beside its files, see `lib/use/card.py`
FILES = (KERAS_FILE, ONNX_FILE, DESCRIPTION, CARD, MAP)
PACKAGES = ("keras", "tensorflow", "numpy")  # whose versions a localizer records


@dataclass(frozen=True)
class Environment(runtime.Environment):
    """What a localizer knows of an environment that it was fitted on.

    Attributes:
        release: what it was fitted on.
        learning_rows: how many rows it learnt from.
    """

    release: Release
    learning_rows: int

    @classmethod
    def from_json(cls, fields: Mapping) -> Self:
        """See `runtime.Environment.from_json`."""
        release = Release(**fields["release"])
        return super().from_json({**fields, "release": release})


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Rows of one environment, located by what had not seen them.

    Attributes:
        rows: n fingerprints.
        located: where they were located, in the environment's frame.
        error: (n,) metres; infinite where another environment was told.
        neighbours_error: (n,) metres, of plain kNN with the same rows stored.
        fold: (n,) with which others each row was held out.
        scale: metres, see `Calibration`.
    """

    rows: FingerprintSet
    located: Located
    error: np.ndarray
    neighbours_error: np.ndarray
    fold: np.ndarray
    scale: float

    def calibration(self, rows: np.ndarray | slice = slice(None)) -> Calibration:
        """Of all rows, or of some."""
        spread = self.located.spread[rows].astype(np.float64)
        return Calibration.of(self.error[rows], spread, self.scale)

    def radius(self, level: float) -> np.ndarray:
        """(n,) metres: that of each row, had only the rows of other folds calibrated it."""
        radius = np.zeros(len(self.rows))
        spread = self.located.spread.astype(np.float64)
        for fold in np.unique(self.fold):
            here = self.fold == fold
            radius[here] = self.calibration(~here).radius(spread[here], level)
        return radius


class Localizer(Estimator):
    """A unified network for one environment or several, and how sure it is.

    A transmitter that several environments name is the same in all of them. Scans that hear nothing teach nothing. The
    network is that of the benchmark; each row of a survey is held out once, and its error is then one of those that
    set the radii (cross-conformal prediction, Vovk 2015).

    Args:
        not_heard: markers that stand for "not heard" in the scans of these environments, numbers or text, beside NaN;
            `locate` takes them for that, too.
        settings: those of `Unified`, with the head that classifies places: it alone tells its spread.

    Attributes:
        unified: after `fit`, the network's estimator, in whose frames each environment begins at its `origin`.
        environments: after `fit`, what it knows of each environment, in the order of the network's output.
        held_out: after `fit`, for each environment how good rows were located while they were held out.
        provenance: after `fit`, seed, settings and versions.

    Raises:
        ValueError: if the settings are wrong.
    """

    has_files: ClassVar[bool] = True

    def __init__(self, not_heard: Sequence = (), **settings):
        if settings.get("head", "places") != "places":
            raise ValueError(f"`head` must be places, which tells its spread. Received: {settings['head']}")
        if settings.get("folds", 2) < 2:
            raise ValueError(f"`folds` must be at least 2, to calibrate. Received: {settings['folds']}")
        self.not_heard = tuple(map(as_marker, not_heard))
        self.settings = settings
        self.unified = Unified(**settings)
        self._known = None
        self._compiled = None  # the network that `_outputs` last ran, what runs it, and in which process

    @property
    def model(self) -> keras.Model:
        """(n, t) dBm, NaN = not heard → environment (n, e), building, floor (n,), position (n, 2), spread (n,)."""
        return self.unified.network

    @property
    def transmitters(self) -> tuple[str, ...]:
        """(t,) names of its inputs: those that a row of a survey hears."""
        return self.unified.transmitters

    @property
    def held_out_by(self) -> list[str]:
        """For each environment the way in which its rows were held out, one of `folds.HOLD_OUT`."""
        settings = self.unified.environment_settings or [{}] * len(self.environments)
        return [own.get("hold_out", HOLD_OUT[0]) for own in settings]

    @property
    def known(self) -> Spellings:
        """Finds its transmitters by name."""
        if self._known is None or tuple(self._known.numbers) != self.transmitters:
            self._known = Spellings(self.transmitters)
        return self._known

    # === Fit ===

    def fit(self, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet], *, seed: int) -> Self:
        """Learn from the rows of both, and calibrate the uncertainty on each while it is held out.

        Raises:
            ValueError: if names repeat, a set has too few rows that hear something to hold some out, or all rows are at
                one place.
        """
        require_rows(train, validation)
        surveys, shifted = [], []
        for first, second in zip(train, validation, strict=True):
            rows = audible(joined(first, second))
            surveys.append(rows)
            shifted.append(_shifted(rows, _corner(rows)))
        nothing = [rows[:0] for rows in shifted]
        self.unified.fit(shifted, nothing, seed=seed)
        self.n_train = self.unified.n_train
        self.curves = self.unified.curves
        self._calibrate(surveys, list(map(_corner, surveys)))
        self.provenance = {"seed": seed, "settings": _plain(self.settings), "versions": _versions()}
        return self

    def _calibrate(self, surveys: Sequence[FingerprintSet], origins: Sequence[tuple[float, float]]) -> None:
        """Set the radii by the rows of the surveys that were held out; the network's positions are from the origins."""
        self.held_out, environments = [], []
        told_of_each = self.unified.held_out
        for number, (rows, told, origin) in enumerate(zip(surveys, told_of_each, origins, strict=True)):
            audible = rows.heard.any(axis=1)[told.rows]
            held_out = self._held_out(number, rows, told[audible], origin)
            self.held_out.append(held_out)
            environments.append(_environment(rows, origin, held_out.calibration()))
        self.environments = tuple(environments)

    def _held_out(
        self, number: int, survey: FingerprintSet, told: HeldOutRows, origin: tuple[float, float]
    ) -> "HeldOut":
        """How good the rows of one environment were located that were held out."""
        located = told.located
        located = dataclasses.replace(located, position=located.position + np.array(origin))
        rows = survey[told.rows]
        error = metrics.euclidean_errors(rows.position, located.position)
        error[_environment_numbers(located) != number] = np.inf
        return HeldOut(rows, located, error, told.neighbours_error, told.fold, self._scale(number))

    def _scale(self, number: int) -> float:
        """Metres, the median sigma of an environment's places."""
        places = self.unified.places
        sigma = places.sigma[places.environment == number]
        return float(np.median(sigma))

    @classmethod
    def of(
        cls,
        surveys: Sequence[FingerprintSet],
        seed: int = 0,
        *,
        hold_out: str | Sequence[str] = HOLD_OUT[0],
        **settings,
    ) -> "Localizer":
        """A localizer fitted on surveys.

        Args:
            surveys: one for each environment, with different names.
            seed: see `fit`.
            hold_out: as scans will come, one of `folds.HOLD_OUT`, or one for each environment: by `devices`, errors and
                radii are those of devices that were never seen.
            settings: see the class, `not_heard` among them.

        Raises:
            ValueError: see `fit`, or if the settings are wrong.
        """
        ways = _for_each(hold_out, len(surveys), "hold_out")
        given = settings.pop("environments", None) or [{}] * len(surveys)
        environments = [{"hold_out": way} | dict(own) for way, own in zip(ways, given, strict=True)]
        localizer = cls(**settings, environments=environments)
        return localizer.fit(surveys, [rows[:0] for rows in surveys], seed=seed)

    @classmethod
    def of_network(cls, unified: Unified, surveys: Sequence[FingerprintSet], seed: int) -> "Localizer":
        """A localizer of a unified network that was fitted already, calibrated on the rows that it had held out.

        Args:
            unified: in memory or from files, of two folds or more.
            surveys: the rows that it learnt from, for each environment training rows and then validation rows.
            seed: that it was fitted with.

        Raises:
            ValueError: if the surveys are not those.
        """
        learnt = dict(zip(unified.environments, unified.n_train, strict=True))
        offered = {rows.name: len(rows) for rows in surveys}
        if learnt != offered or len(unified.held_out) != len(surveys):
            raise ValueError(f"expected surveys with as many rows as were learnt: {learnt}. Received: {offered}")
        localizer = cls()
        localizer.unified = unified
        localizer.n_train = unified.n_train
        localizer._calibrate(surveys, [(0.0, 0.0)] * len(surveys))
        settings = unified.fitted()["settings"]
        localizer.provenance = {"seed": seed, "settings": _plain(settings), "versions": _versions()}
        return localizer

    # === New fingerprints ===

    def update(self, fingerprints: FingerprintSet, seed: int = 0) -> Self:
        """A localizer that has stored newly surveyed fingerprints, and is calibrated on them, without training.

        Access points change after a survey. The new fingerprints are added to the stored ones, with positions that are
        new. Access points that came or went at surveyed positions are not compared any more, so that old and new count
        alike. Where the new ones are clearly better alone, each while it is held out, the old ones are forgotten. The
        new ones also set the radii, so they should come from where scans come.

        Args:
            fingerprints: of one of the environments, by its name; some fifty rows or more, from all of it.
            seed: which of them are held out together.

        Returns:
            The new localizer; this one stays what it is. Of its `held_out`, only those of the environment are known.

        Raises:
            ValueError: if there is no such environment, its frame or that of the rows has no place on earth, the rows
                have labels that it lacks or lack what it has, or fewer than two different rows hear something.
        """
        environment = self._environment_called(fingerprints.name)
        _require_labels(environment, fingerprints)
        number = self.environments.index(environment)
        position = _in_frame(environment.frame, fingerprints)
        rows = dataclasses.replace(audible(fingerprints), position=position[fingerprints.heard.any(axis=1)])
        shifted = dataclasses.replace(rows, position=rows.position - np.array(environment.origin))
        result = copy.copy(self)
        result.unified, told = updated(self.unified, number, shifted, seed)
        held_out = result._held_out(number, rows, told, environment.origin)
        renewed = dataclasses.replace(
            environment,
            calibration=held_out.calibration(),
            learning_rows=environment.learning_rows + len(rows),
        )
        result.environments = (*self.environments[:number], renewed, *self.environments[number + 1 :])
        result.held_out = [held_out]
        updates = [*self.provenance.get("updates", []), {"environment": environment.name, "release": str(rows.release)}]
        result.provenance = self.provenance | {"updates": updates}
        result.n_train = [known.learning_rows for known in result.environments]
        return result

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
            scans: see `forms.matrix`.
            levels: of the radii, each between 0 and 1.
            not_heard: values that stand for "not heard", beside those of the localizer.

        Returns:
            One row a scan, in their order and by their names, with the columns of `runtime.table`.

        Raises:
            ValueError: for scans that `forms.matrix` refuses, or levels out of range.
        """
        named = matrix(scans, self.known, Rules((*self.not_heard, *not_heard)))
        return self._table(named, self._outputs, levels)

    def _table(self, scans: NamedScans, network: runtime.Network, levels: Sequence[float]) -> pd.DataFrame:
        columns = runtime.table(scans, self.environments, network, levels)
        return as_frame(columns, scans.names)

    def _outputs(self, rssi: np.ndarray) -> Mapping[str, np.ndarray]:
        """The network's outputs, see `runtime.Network`."""
        if self._compiled is None or self._compiled[0] is not self.model:
            self._compiled = (self.model, _compiled(self.model), os.getpid())
        _, run, process = self._compiled
        if process != os.getpid():  # TensorFlow's threads, which a compiled function needs, do not survive a fork
            return training.predict(self.model, rssi)
        return run(rssi)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_compiled": None}  # no function can be pickled

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
        named = matrix(wide, self.known)
        as_calibrated = functools.partial(training.predict, self.model)  # compiled, the last digits are others
        table = self._table(named, as_calibrated, levels)
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
            radius = table.loc[is_located, radius_column(level)]
            within = error[is_located] <= radius
            measured[f"coverage_{100 * level:g}"] = float(within.mean())
            measured[radius_column(level)] = float(radius.median())
        return measured

    def _environment_called(self, name: str) -> Environment:
        for environment in self.environments:
            if environment.name == name:
                return environment
        names = ", ".join(environment.name for environment in self.environments)
        raise ValueError(f"the environment must be one of {names}. Received: {name}")

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
            self.model.save(complete / KERAS_FILE)
            convert.write(self.model, complete / ONNX_FILE)
            runtime.write_description(complete, self._description())
            for name, content in (card or {}).items():
                (complete / name).write_bytes(content)
            if directory.exists():
                directory.rename(Path(scratch) / "replaced")
            complete.rename(directory)

    def _description(self) -> dict:
        """What is saved beside the network."""
        return {
            "format": runtime.FORMAT,
            "version": runtime.VERSION,
            "transmitters": list(self.transmitters),
            "not_heard": list(map(str, self.not_heard)),  # JSON has no infinity
            "environments": [dataclasses.asdict(environment) for environment in self.environments],
            "provenance": self.provenance,
        }

    @classmethod
    def load(cls, directory: Path | str) -> "Localizer":
        """What `save` wrote, checked.

        Raises:
            ValueError: if the directory holds no localizer, a damaged one, or one of a newer format.
        """
        directory = Path(directory)
        description = runtime.read_description(directory, KERAS_FILE)
        localizer = cls(description.get("not_heard", ()))
        environments = [Environment.from_json(fields) for fields in description["environments"]]
        localizer.environments = tuple(environments)
        localizer.provenance = description["provenance"]
        localizer.n_train = [environment.learning_rows for environment in environments]
        localizer.unified.network = _read_network(directory / KERAS_FILE, localizer.provenance)
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
        raise ValueError(
            f"{directory} holds other things than a localizer, and is not replaced: {first}. Name another folder"
        )


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


def _environment_numbers(located: Located) -> np.ndarray:
    """(n,) number of the environment of each row, 0 where there is only one environment."""
    if located.environment is None:
        return np.zeros(len(located), dtype=int)
    return located.environment


def _compiled(model: keras.Model) -> runtime.Network:
    """What runs a network on few scans without the time that Keras takes for each layer."""
    if keras.backend.backend() != "tensorflow":
        return functools.partial(training.predict, model)
    import tensorflow as tf

    rssi = tf.TensorSpec((None, model.input.shape[1]), tf.float32)
    traced = tf.function(lambda scans: model(scans, training=False), input_signature=[rssi], autograph=False)
    run = traced.get_concrete_function()

    def outputs_of(scans: np.ndarray) -> dict[str, np.ndarray]:
        outputs = run(tf.constant(scans))
        return {name: values.numpy() for name, values in outputs.items()}

    return outputs_of


def _for_each(value, count: int, setting: str) -> list:
    """One value for all environments, or one for each, as one for each."""
    if not np.ndim(value):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"`{setting}` must be one value or {count}, one for each environment. Received: {value}")
    return list(value)


def audible(survey: FingerprintSet) -> FingerprintSet:
    """The rows that hear a transmitter, with the transmitters that a row hears."""
    rows = survey[survey.heard.any(axis=1)]
    used = rows.heard.any(axis=0)
    names = tuple(np.array(rows.transmitters, dtype=object)[used])
    return dataclasses.replace(rows, rssi=rows.rssi[:, used], transmitters=names)


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


def _require_labels(environment: Environment, fingerprints: FingerprintSet) -> None:
    """Refuse new fingerprints that name buildings or floors where the survey did not, or the reverse."""
    for label in LABELS:
        expected, received = getattr(environment, label), getattr(fingerprints, label) is not None
        if expected != received:
            ways = {True: "with", False: "without"}
            raise ValueError(
                f"{fingerprints.name}: expected scans {ways[expected]} `{label}`, as in the survey that was fitted. "
                f"Received: scans {ways[received]}"
            )


def _in_frame(frame: Frame, fingerprints: FingerprintSet) -> np.ndarray:
    """(n, 2) positions of fingerprints in another frame."""
    own_frame = fingerprints.frame
    if (frame.crs, frame.origin) == (own_frame.crs, own_frame.origin):
        return fingerprints.position
    if frame.crs is None or own_frame.crs is None:
        raise ValueError(
            f"{fingerprints.name}: positions in degrees and in metres of an own plane cannot be compared. Give them as "
            "in the survey that was fitted"
        )
    return frame.from_degrees(own_frame.to_degrees(fingerprints.position))
