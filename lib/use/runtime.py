"""Locating with a saved or exported localizer, without TensorFlow: NumPy and ONNX Runtime are enough.

Here also stands what `lib/use/localizer.py` shares with it: what is known of an environment, how its files are checked,
and how the outputs of the network become a table. On a machine that only locates, install `requirements-runtime.txt`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from lib import THREADS
from lib.data.forms import NamedScans, Rules, as_marker, matrix
from lib.data.frames import Frame
from lib.data.names import Spellings
from lib.paths import replacing
from lib.use.conformal import Calibration

FORMAT, VERSION = "fingerprint-localizer", 1
DESCRIPTION = "localizer.json"
KERAS_FILE, ONNX_FILE = "model.keras", "localizer.onnx"
CHECKSUMS = {KERAS_FILE: "model_sha256", ONNX_FILE: "onnx_sha256"}  # keys of the description, by the network's file
LABELS = ("building", "floor")
LEVELS = (0.5, 0.9)  # of the radii
SCANS_AT_ONCE = 512  # of many more, what lies between the layers would not stay in the processor's caches

# From (n, t) float32 dBm, NaN = not heard, to the outputs by name: environment (n, e) probabilities, building and floor
# (n,) labels, position (n, 2) metres from the origin of the environment, spread (n,) metres.
Network = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Environment:
    """What locating needs to know of an environment beside the network.

    Attributes:
        name: of the FingerprintSet.
        frame: its plane; positions are in it.
        origin: (east, north) metres in `frame` from which the network counts: its numbers are float32.
        building, floor: whether there are any.
        calibration: from the network's spread to a radius.
    """

    name: str
    frame: Frame
    origin: tuple[float, float]
    building: bool
    floor: bool
    calibration: Calibration

    @classmethod
    def from_json(cls, fields: Mapping) -> Self:
        """The environment of which `dataclasses.asdict` made these fields; further ones are ignored."""
        arguments = {field.name: fields[field.name] for field in dataclasses.fields(cls)}
        frame = Frame(**fields["frame"])
        arguments["frame"] = dataclasses.replace(frame, origin=tuple(frame.origin))
        arguments["origin"] = tuple(fields["origin"])
        arguments["calibration"] = Calibration(**fields["calibration"])
        return cls(**arguments)


class Runtime:
    """A localizer that runs by ONNX Runtime.

    Args:
        description: of the localizer, as `read_description` reads it.
        network: runs its network.

    Attributes:
        transmitters: (t,) names of the network's inputs.
        known: finds them by name.
        environments: what it knows of each environment, in the order of the network's output.
        not_heard: markers that always stand for "not heard".
    """

    def __init__(self, description: Mapping, network: Network):
        self.network = network
        self.transmitters = tuple(description["transmitters"])
        self.known = Spellings(self.transmitters)
        self.environments = tuple(map(Environment.from_json, description["environments"]))
        self.not_heard = tuple(map(as_marker, description.get("not_heard", ())))

    @classmethod
    def load(cls, folder: Path | str, threads: int = int(THREADS)) -> Self:
        """What `Localizer.save` or `export` wrote, checked.

        Args:
            folder: with `localizer.json` and `localizer.onnx`.
            threads: how many the network may use.

        Raises:
            ValueError: if the folder holds no localizer, a damaged one, one of a newer format, or one without
                `localizer.onnx`.
        """
        folder = Path(folder)
        if (folder / DESCRIPTION).exists() and not (folder / ONNX_FILE).exists():
            raise ValueError(
                f"{folder}: expected {ONNX_FILE} beside {DESCRIPTION}, found none. Earlier releases did not write it: "
                "where TensorFlow is installed, `python -m lib export` does"
            )
        description = read_description(folder, ONNX_FILE)
        return cls(description, OnnxNetwork((folder / ONNX_FILE).read_bytes(), threads))

    def locate(
        self, scans, levels: Sequence[float] = LEVELS, not_heard: Sequence = ()
    ) -> dict[str, np.ndarray | np.ma.MaskedArray]:
        """Where scans were taken.

        Args:
            scans: see `forms.matrix`; for instance a list of dicts of dBm by the name of the transmitter.
            levels: of the radii, each between 0 and 1.
            not_heard: further values that stand for "not heard".

        Returns:
            `scan`, the names of the scans, and the columns of `table`: those of `Localizer.locate`.

        Raises:
            ValueError: for scans that `forms.matrix` refuses, or levels out of range.
        """
        named = matrix(scans, self.known, Rules((*self.not_heard, *not_heard)))
        return {"scan": np.asarray(named.names)} | self.table(named, levels)

    def table(self, scans: NamedScans, levels: Sequence[float]) -> dict[str, np.ndarray | np.ma.MaskedArray]:
        """See `table`."""
        return table(scans, self.environments, self.network, levels)


# === Outputs → table ===


def radius_column(level: float) -> str:
    """The name of the column with the radius of a level."""
    return f"radius_{100 * level:g}"


def require_levels(levels: Sequence[float]) -> None:
    """Raise ValueError if a level is not between 0 and 1."""
    for level in levels:
        if not 0 < level < 1:
            raise ValueError(f"`levels` must be between 0 and 1. Received: {level}")


def table(
    scans: NamedScans, environments: Sequence[Environment], network: Network, levels: Sequence[float]
) -> dict[str, np.ndarray | np.ma.MaskedArray]:
    """Where scans were taken, by columns.

    Args:
        scans: with the network's inputs as transmitters.
        environments: in the order of the network's output.
        network: is only asked about scans that hear something.
        levels: of the radii.

    Returns:
        (n,) arrays: `located`, whether the scan hears a transmitter that is known, without which all of what follows
        but the counts is missing; `environment`; `building` and `floor`, where the environment has any; `x`, `y` in
        metres of its frame; `latitude`, `longitude` in degrees, where the frame has them; `radius_50` and so on in the
        metres of `x` and `y`; `heard` and `unknown`, how many known and other transmitters it hears. Missing numbers
        are NaN; `environment`, `building` and `floor` are masked arrays, of which `tolist()` makes None.

    Raises:
        ValueError: if a level is not between 0 and 1.
    """
    require_levels(levels)
    heard = (~np.isnan(scans.rssi)).sum(axis=1)
    is_located = heard > 0
    columns = _nowhere(len(heard), environments, levels)
    rows = np.flatnonzero(is_located)
    if len(rows):
        outputs = _outputs(network, scans.rssi[rows])
        number_of_row = outputs["environment"].argmax(axis=1)
        for number, environment in enumerate(environments):
            here = number_of_row == number
            if here.any():
                of_environment = {name: values[here] for name, values in outputs.items()}
                _fill(columns, rows[here], environment, of_environment, levels)
    return {"located": is_located, **columns, "heard": heard, "unknown": scans.unknown}


def _nowhere(n_rows: int, environments: Sequence[Environment], levels: Sequence[float]) -> dict[str, np.ndarray]:
    """The columns of scans none of which is located."""
    names = np.array([environment.name for environment in environments])
    columns = {"environment": np.ma.masked_array(np.full(n_rows, "", names.dtype), mask=True)}
    for label in LABELS:
        columns[label] = np.ma.masked_array(np.zeros(n_rows, np.int64), mask=True)
    radii = [radius_column(level) for level in levels]
    for measure in ("x", "y", "latitude", "longitude", *radii):
        columns[measure] = np.full(n_rows, np.nan)
    return columns


def _outputs(network: Network, rssi: np.ndarray) -> dict[str, np.ndarray]:
    """The network's outputs for any number of scans."""
    parts = []
    for start in range(0, len(rssi), SCANS_AT_ONCE):
        parts.append(network(rssi[start : start + SCANS_AT_ONCE]))
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _fill(
    columns: Mapping[str, np.ndarray],
    rows: np.ndarray,
    environment: Environment,
    outputs: Mapping[str, np.ndarray],
    levels: Sequence[float],
) -> None:
    """Write into some rows of the columns where the scans of one environment were taken."""
    position = outputs["position"].astype(np.float64) + environment.origin
    degrees = environment.frame.to_degrees(position)
    spread = outputs["spread"].astype(np.float64)
    columns["environment"][rows] = environment.name
    columns["x"][rows], columns["y"][rows] = position.T
    columns["latitude"][rows], columns["longitude"][rows] = degrees.T
    for level in levels:
        columns[radius_column(level)][rows] = environment.calibration.radius(spread, level)
    for label in LABELS:
        if getattr(environment, label):
            columns[label][rows] = outputs[label]


# === Files ===


def read_description(folder: Path, network_file: str) -> dict:
    """The description of a localizer, without its checksum, after it and the network's file were checked.

    Args:
        folder: where the localizer is.
        network_file: a key of `CHECKSUMS`.

    Raises:
        ValueError: if the folder holds no localizer, a damaged one, or one of a newer format.
    """
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_bytes())
        network = (folder / network_file).read_bytes()
    except (OSError, ValueError) as problem:
        raise ValueError(f"{folder} holds no localizer ({DESCRIPTION} and {network_file}): {problem}") from problem
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a description of the format {FORMAT}, found another")
    version = description.get("version")
    if version != VERSION:
        raise ValueError(
            f"{path}: expected version {VERSION} of the format, found {version!r}. "
            "Load it with the code that wrote it, or fit it again"
        )
    checksum = description.pop("sha256", None)
    _require_same(path, checksum, checksum_of(description))
    _require_same(folder / network_file, description.get(CHECKSUMS[network_file]), hashlib.sha256(network).hexdigest())
    return description


def write_description(folder: Path, description: Mapping) -> None:
    """Write the description of a localizer into its folder, with the checksums of the networks there and its own."""
    complete = dict(description)
    for network_file, key in CHECKSUMS.items():
        path = folder / network_file
        if path.exists():
            complete[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    complete["sha256"] = checksum_of(complete)
    text = json.dumps(complete, indent=1, allow_nan=False)
    with replacing(folder / DESCRIPTION) as temporary:
        temporary.write_text(text + "\n")


def checksum_of(description: Mapping) -> str:
    """The SHA-256 of a description that has none yet."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _require_same(path: Path, expected: str | None, computed: str) -> None:
    if expected != computed:
        raise ValueError(f"{path} is damaged: expected sha256 {expected}, found {computed}")


class OnnxNetwork:
    """A network in an ONNX file, run on the processor.

    Args:
        content: of the file.
        threads: how many it may use.

    Raises:
        ImportError: if ONNX Runtime is not installed.
    """

    def __init__(self, content: bytes, threads: int = int(THREADS)):
        import onnxruntime  # not above: training and tables do without it

        self.content = content
        self.threads = threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        (rssi,) = self.session.get_inputs()
        self.input = rssi.name
        self.names = [output.name for output in self.session.get_outputs()]

    def __call__(self, scans: np.ndarray) -> dict[str, np.ndarray]:
        values = self.session.run(self.names, {self.input: np.float32(scans)})
        return dict(zip(self.names, values, strict=True))

    def __reduce__(self):
        return OnnxNetwork, (self.content, self.threads)
