"""Raw dBm in, position and uncertainty out: fit on fingerprints of one or several environments, predict, save, load.

How the radius of the uncertainty is made is in `lib/conformal.py`.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib import metrics, quiet_import, splits, training, unified
from lib.conformal import Calibration
from lib.fingerprints import FingerprintSet, Frame, Release
from lib.scans import Scans, matrix

with quiet_import():
    import keras

FORMAT, VERSION = "fingerprint-localizer", 1
MODEL, ABOUT = "model.keras", "localizer.json"
LEVELS = (0.5, 0.9)


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
    def from_json(cls, fields: dict) -> "Environment":
        frame = Frame(**fields["frame"] | {"origin": tuple(fields["frame"]["origin"])})
        made = {"frame": frame, "origin": tuple(fields["origin"]), "release": Release(**fields["release"])}
        return cls(**fields | made | {"calibration": Calibration(**fields["calibration"])})


class Localizer:
    """A network that locates scans in one environment or several, and tells how sure it is.

    Attributes:
        model: (n, t) dBm, NaN = not heard → environment (n, e), building and floor (n,), position (n, 2), spread (n,).
        transmitters: (t,) names of its inputs: those that a learning row hears.
        environments: e of them, in the order of the network's output.
        provenance: seed, settings and versions of the fit.
    """

    def __init__(
        self,
        model: keras.Model,
        transmitters: Sequence[str],
        environments: Sequence[Environment],
        provenance: dict,
    ):
        self.model, self.provenance = model, provenance
        self.transmitters, self.environments = tuple(transmitters), tuple(environments)

    # === Fit ===

    @classmethod
    def fit(
        cls,
        environments: Sequence[FingerprintSet],
        seed: int = 0,
        *,
        calibration: float | Sequence[float] = 0.10,
        whole_groups: bool | Sequence[bool] = False,
        **settings,
    ) -> "Localizer":
        """Train on most rows of each environment, and calibrate the uncertainty on the others.

        A transmitter that several environments name is the same in all of them. Scans that hear nothing are left out.

        Args:
            environments: one set each, with different names.
            seed: see `unified.train`; it also draws the rows that calibrate.
            calibration: share of the rows that calibrate, or one for each environment; copies of a scan stay together.
            whole_groups: hold out all rows of that share of the groups (devices) in the place of that share of all
                rows, or whether to for each environment: the radius is then that of groups that were never seen.
            settings: those of `unified.train` but `shared_columns`.

        Raises:
            ValueError: if names repeat, a set has too few rows that hear something to hold some out, there are no
                groups where whole ones are to be held out, or the settings are wrong.
        """
        calibrating = {"calibration": calibration, "whole_groups": whole_groups}
        names = [one.name for one in environments]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"`environments` must be sets with different names. Received: {', '.join(names) or 'none'}"
            )
        if settings.get("head", "places") != "places":
            raise ValueError(f"`head` must be places, which tells its spread. Received: {settings['head']}")
        how = [_for_each(given, len(names), what) for what, given in calibrating.items()]
        parts = [_held_out(*one, seed) for one in zip(environments, *how, strict=True)]
        shifted = [_shifted(learning) for learning, _ in parts]
        learning, transmitters, shared = _in_common([one for one, _ in shifted])
        held_out, _, _ = _in_common([one for _, one in parts])
        with tempfile.TemporaryDirectory() as scratch:
            run = unified.train(
                learning, held_out, Path(scratch) / "localizer", seed, shared_columns=shared, **settings
            )
        places = run.model.get_layer("decoder").places
        scales = [float(np.median(places.sigma[places.environment == number])) for number in range(len(names))]
        calibrations = _calibrated(held_out, run.predicted, [origin for _, origin in shifted], scales)
        known = [
            Environment(
                name=given.name,
                frame=given.frame,
                origin=origin,
                building=given.building is not None,
                floor=given.floor is not None,
                release=given.release,
                learning_rows=len(one),
                calibration=calibrated,
            )
            for given, (one, origin), calibrated in zip(environments, shifted, calibrations, strict=True)
        ]
        about = {**calibrating, **settings}
        provenance = {"seed": seed, "settings": json.loads(json.dumps(about, default=str)), "versions": _versions()}
        return cls(run.model, transmitters, known, provenance)

    # === Use ===

    def predict(self, scans, levels: Sequence[float] = LEVELS, not_heard: Sequence = ()) -> pd.DataFrame:
        """Where scans were taken.

        Args:
            scans, not_heard: see `lib.scans.matrix`.
            levels: of the radii, each between 0 and 1.

        Returns:
            One row a scan, in their order: `located`, whether it hears a transmitter that is known, without which all
            of what follows but the counts is missing; `environment`; `building` and `floor`, where the environment has
            any; `x`, `y` in metres of its frame (UJIIndoorLoc: Web Mercator); `latitude`, `longitude` in degrees, where
            the frame has them; `radius_50` and so on in the same metres; `heard` and `unknown`, how many known and
            other transmitters it hears.

        Raises:
            ValueError: for scans that `lib.scans.matrix` refuses, or levels out of range.
        """
        return self._table(matrix(scans, self.transmitters, not_heard), levels)

    def _table(self, given: Scans, levels: Sequence[float]) -> pd.DataFrame:
        for level in levels:
            if not 0 < level < 1:
                raise ValueError(f"`levels` must be between 0 and 1. Received: {level}")
        n, heard = len(given.rssi), (~np.isnan(given.rssi)).sum(axis=1)
        located = heard > 0
        labels = {name: pd.array([pd.NA] * n, dtype="Int64") for name in ("building", "floor")}
        environment, numbers = pd.array([pd.NA] * n, dtype="string"), np.full((n, 4 + len(levels)), np.nan)
        told = training.predict(self.model, given.rssi[located]) if located.any() else None
        for number, of in enumerate(self.environments if told else ()):
            here = told["environment"].argmax(axis=1) == number
            rows = np.flatnonzero(located)[here]
            position = told["position"][here].astype(np.float64) + np.array(of.origin)
            spread = told["spread"][here].astype(np.float64)
            radii = [of.calibration.radius(spread, level) for level in levels]
            numbers[rows] = np.column_stack([position, of.frame.to_degrees(position), *radii])
            environment[rows] = of.name
            for name in labels:
                if getattr(of, name):
                    labels[name][rows] = told[name][here]
        names = ["x", "y", "latitude", "longitude", *(f"radius_{100 * level:g}" for level in levels)]
        columns = {"located": located, "environment": environment, **labels, **dict(zip(names, numbers.T, strict=True))}
        return pd.DataFrame(columns | {"heard": heard, "unknown": given.unknown}, index=given.index)

    def evaluate(self, fingerprints: FingerprintSet, levels: Sequence[float] = LEVELS) -> dict[str, float | int | str]:
        """How good predictions are on fingerprints that took no part in the fit.

        Args:
            fingerprints: of an environment that is known by its name.
            levels: see `predict`.

        Returns:
            `environment` and `rows`; `located` and `environment_hit`, the shares of all rows that hear a known
            transmitter and that are located in the right environment; of these last, errors in metres of the frame
            (`mean_m`, `median_m`, `p75_m`, `p95_m`) and where there are any, `building_hit` and `floor_hit`; of the
            located rows, `coverage_50` and so on, the share within the radius, and `radius_50`, its median in metres.
            NaN where there is no such row.

        Raises:
            ValueError: if the environment is not known, or one of its frame and theirs has no place on earth.
        """
        known = {of.name: of for of in self.environments}
        if fingerprints.name not in known:
            raise ValueError(f"`fingerprints` must be of {', '.join(known)}. Received: {fingerprints.name}")
        own = known[fingerprints.name]
        wide = pd.DataFrame(fingerprints.rssi, columns=list(fingerprints.transmitters))
        table = self._table(matrix(wide, self.transmitters), levels)
        hit = (table["environment"] == own.name).fillna(False).to_numpy(dtype=bool)
        true = _in_frame(own.frame, fingerprints)
        error = np.full(len(table), np.inf)
        error[hit] = metrics.euclidean_errors(true[hit], table.loc[hit, ["x", "y"]].to_numpy())
        located = table["located"].to_numpy()
        found = {
            "environment": own.name,
            "rows": len(table),
            "located": float(located.mean()),
            "environment_hit": float(hit.mean()),
            **metrics.summary(error[hit] if hit.any() else np.array([np.nan])),
        }
        for name in ("building", "floor"):
            if getattr(own, name) and getattr(fingerprints, name) is not None:
                found[f"{name}_hit"] = float((table[name] == getattr(fingerprints, name))[hit].astype(float).mean())
        within = pd.Series(error, table.index)[located]
        for level in levels:
            radius = table.loc[located, f"radius_{100 * level:g}"]
            found[f"coverage_{100 * level:g}"] = float((within <= radius).mean())
            found[f"radius_{100 * level:g}"] = float(radius.median())
        return found

    # === Save and load ===

    def save(self, directory: Path | str) -> None:
        """Write the localizer beside `directory` and move it there whole; a localizer that is there is replaced.

        Raises:
            ValueError: if something else is there.
        """
        directory = Path(directory)
        require_replaceable(directory)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".writing-") as scratch:
            whole = Path(scratch) / "localizer"
            whole.mkdir()
            self.model.save(whole / MODEL)
            about = {
                "format": FORMAT,
                "version": VERSION,
                "transmitters": list(self.transmitters),
                "environments": [dataclasses.asdict(of) for of in self.environments],
                "provenance": self.provenance,
                "model_sha256": hashlib.sha256((whole / MODEL).read_bytes()).hexdigest(),
            }
            text = json.dumps(about | {"sha256": _checksum(about)}, indent=1, allow_nan=False)
            (whole / ABOUT).write_text(text + "\n")
            if directory.exists():
                directory.rename(Path(scratch) / "replaced")
            whole.rename(directory)

    @classmethod
    def load(cls, directory: Path | str) -> "Localizer":
        """What `save` wrote, checked.

        Raises:
            ValueError: if the directory holds no localizer, a damaged one, or one of a newer format.
        """
        directory = Path(directory)
        try:
            about = json.loads((directory / ABOUT).read_bytes())
            content = (directory / MODEL).read_bytes()
        except (OSError, ValueError) as problem:
            raise ValueError(f"{directory} holds no localizer ({ABOUT} and {MODEL}): {problem}") from problem
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ValueError(f"{directory / ABOUT}: expected a description of the format {FORMAT}, found another")
        if about.get("version") != VERSION:
            raise ValueError(
                f"{directory / ABOUT}: expected version {VERSION} of the format, found {about.get('version')!r}. "
                "Load it with the code that wrote it, or fit it again"
            )
        expected = about.pop("sha256", None)
        for name, wanted, found in (
            (ABOUT, expected, _checksum(about)),
            (MODEL, about.get("model_sha256"), hashlib.sha256(content).hexdigest()),
        ):
            if wanted != found:
                raise ValueError(f"{directory / name} is damaged: expected sha256 {wanted}, found {found}")
        try:
            model = keras.saving.load_model(directory / MODEL, compile=False)
        except Exception as problem:  # Keras raises whatever it meets
            wrote = about["provenance"]["versions"]
            raise ValueError(
                f"{directory / MODEL} was written by Keras {wrote.get('keras')}; Keras {keras.__version__} cannot read "
                f"it: {problem}"
            ) from problem
        environments = [Environment.from_json(fields) for fields in about["environments"]]
        return cls(model, about["transmitters"], environments, about["provenance"])


def require_replaceable(directory: Path | str) -> None:
    """Raise ValueError if there is something at `directory` that is neither a localizer nor an empty directory."""
    directory = Path(directory)
    if not directory.exists():
        return
    others = {path.name for path in directory.iterdir()} - {MODEL, ABOUT} if directory.is_dir() else {directory.name}
    if others:
        raise ValueError(
            f"{directory} holds what is no localizer, and is not replaced: {', '.join(sorted(others)[:3])}"
        )


def _checksum(about: dict) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("keras", "tensorflow", "numpy")}
    return {"python": platform.python_version(), **packages, "backend": keras.backend.backend()}


# === Rows and columns ===


def _for_each(given, count: int, what: str) -> list:
    """One value for all environments, or one for each, as one for each."""
    if np.ndim(given) and len(given) != count:
        raise ValueError(f"`{what}` must be one value or {count}, one for each environment. Received: {given}")
    return list(given) if np.ndim(given) else [given] * count


def _held_out(
    one: FingerprintSet, share: float, whole_groups: bool, seed: int
) -> tuple[FingerprintSet, FingerprintSet]:
    """(learning, calibration) rows of an environment, of the transmitters that learning rows hear."""
    if len(set(one.transmitters)) < len(one.transmitters):
        raise ValueError(f"{one.name}: `transmitters` must differ. Received some twice")
    learning, held_out = splits.held_out(one[one.heard.any(axis=1)], share, whole_groups, seed)
    used = learning.heard.any(axis=0)
    names = tuple(np.array(one.transmitters, dtype=object)[used])
    parts = [dataclasses.replace(part, rssi=part.rssi[:, used], transmitters=names) for part in (learning, held_out)]
    calibrating = parts[1][parts[1].heard.any(axis=1)]
    if not len(calibrating):
        raise ValueError(f"{one.name}: no row that was held out hears a transmitter of the others: too few rows")
    return parts[0], calibrating


def _calibrated(
    held_out: Sequence[FingerprintSet], told: dict[str, np.ndarray], origins: Sequence[tuple], scales: Sequence[float]
) -> list[Calibration]:
    """Of each environment, by its held-out rows; where one is located in another environment its error is infinite."""
    chosen, spread = told["environment"].argmax(axis=1), told["spread"].astype(np.float64)
    own = np.repeat(np.arange(len(held_out)), [len(one) for one in held_out])
    position = told["position"] + np.array(origins)[chosen]
    error = metrics.euclidean_errors(np.concatenate([one.position for one in held_out]), position)
    error[own != chosen] = np.inf
    return [Calibration.of(error[own == number], spread[own == number], scale) for number, scale in enumerate(scales)]


def _shifted(one: FingerprintSet) -> tuple[FingerprintSet, tuple[float, float]]:
    """The set in a frame with its origin at the rows' corner, and that origin in the old one."""
    origin = tuple(np.floor(one.position.min(axis=0)).tolist())
    frame = dataclasses.replace(one.frame, origin=tuple(np.add(one.frame.origin, origin).tolist()))
    return dataclasses.replace(one, position=one.position - np.array(origin), frame=frame), origin


def _in_common(environments: Sequence[FingerprintSet]) -> tuple[list[FingerprintSet], tuple[str, ...], bool]:
    """The sets, the names of the network's inputs, and whether they share columns: if a name occurs in two sets."""
    names = tuple(dict.fromkeys(name for one in environments for name in one.transmitters))
    if len(names) == sum(len(one.transmitters) for one in environments):
        return list(environments), names, False
    column = {name: number for number, name in enumerate(names)}
    placed = []
    for one in environments:
        rssi = np.full((len(one), len(names)), np.nan, dtype=np.float32)
        rssi[:, [column[name] for name in one.transmitters]] = one.rssi
        placed.append(dataclasses.replace(one, rssi=rssi, transmitters=names))
    return placed, names, True


def _in_frame(frame: Frame, fingerprints: FingerprintSet) -> np.ndarray:
    """(n, 2) positions of fingerprints in another frame."""
    if frame == fingerprints.frame:
        return fingerprints.position
    if None in (frame.crs, fingerprints.frame.crs):
        raise ValueError(f"{fingerprints.name}: positions in degrees and in metres of an own plane cannot be compared")
    return frame.from_degrees(fingerprints.frame.to_degrees(fingerprints.position))
