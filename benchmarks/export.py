"""How large exported localizers are, how well they agree with Keras, and how fast they locate one scan and many.

`make bench` runs it. All implementations run in this process with one thread and take turns, on the same scans. Most
are the network alone, from an array to arrays; `Localizer.locate` and `Runtime.locate` are all that a user waits for,
from a dict of dBm by name to the table, with another network of the same size.
Agreement does not need a network that is trained to the end, but one whose probabilities are those of real scans: a few
epochs are enough. PROFILE and DATA mean what they mean in `make all`.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts by hand

from lib import paths
from lib.data import datasets, protocols
from lib.data.fingerprints import FingerprintSet, in_common
from lib.models.neighbours import NearestFingerprints
from lib.models.unified import Unified
from lib.report import results
from lib.use import convert
from lib.use.localizer import Localizer
from lib.use.runtime import Runtime

COLUMNS = (
    *("implementation", "version", "n_inputs", "n_places", "file_mb"),
    *("indoors_m", "outdoors_m", "other_place", "n_scans", "median_us", "batch_us"),
)
PROTOCOLS = ("official", "random")  # indoors and outdoors
EPOCHS, SEED, NEIGHBOURS = 3, 0, 7
SCANS_TIMED = 100
BATCH = 1024
BATCH_TIMED = 1000  # scans
KNN = "kNN, Sørensen"
LOCALIZER, RUNTIME = "Localizer.locate", "Runtime.locate"
FILES = {"ONNX Runtime": "localizer.onnx", "LiteRT": "localizer.tflite"}
PACKAGES = {
    "Keras": "keras",
    "tf.function": "tensorflow",
    "ONNX Runtime": "onnxruntime",
    "LiteRT": "ai-edge-litert",
    LOCALIZER: "tensorflow",
    RUNTIME: "onnxruntime",
    KNN: "numpy",
}

Outputs = Mapping[str, np.ndarray]
Locate = Callable[[np.ndarray], Outputs]


def by_keras(model) -> dict[str, Locate]:
    """The network as Keras calls it, and compiled once by TensorFlow."""
    import tensorflow as tf

    compiled = tf.function(lambda rssi: model(rssi, training=False), autograph=False, reduce_retracing=True)

    def arrays(outputs: Mapping) -> Outputs:
        return {name: np.asarray(values) for name, values in outputs.items()}

    return {
        "Keras": lambda rssi: arrays(model(rssi, training=False)),
        "tf.function": lambda rssi: arrays(compiled(rssi)),
    }


def by_name(fingerprints: FingerprintSet) -> list[dict[str, float]]:
    """Each scan as a user has it: dBm by the name of the transmitter, of those that it hears."""
    scans = []
    for levels in fingerprints.rssi:
        heard = np.flatnonzero(~np.isnan(levels))
        scans.append({fingerprints.transmitters[column]: float(levels[column]) for column in heard})
    return scans


def in_batches(locate: Locate, rssi: np.ndarray) -> Outputs:
    """The outputs for many scans."""
    parts = [locate(rssi[start : start + BATCH]) for start in range(0, len(rssi), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def disagreement(outputs: Outputs, expected: Outputs, counts: Sequence[int]) -> dict[str, float]:
    """Largest distance in metres in each environment, where both have the same place, and how many scans do not.

    Another place is another environment, building or floor.

    Args:
        outputs, expected: for the same scans.
        counts: how many scans are indoors, which come first, and how many outdoors.
    """
    same = outputs["environment"].argmax(axis=1) == expected["environment"].argmax(axis=1)
    same &= outputs["building"] == expected["building"]
    same &= outputs["floor"] == expected["floor"]
    difference = np.float64(outputs["position"]) - expected["position"]
    metres = np.where(same, np.linalg.norm(difference, axis=1), 0.0)
    indoors, outdoors = np.split(metres, [counts[0]])
    return {
        "indoors_m": indoors.max(),
        "outdoors_m": outdoors.max(),
        "other_place": int((~same).sum()),
        "n_scans": len(same),
    }


def median_us(locates: Mapping[str, Callable], scans: Mapping[str, Sequence], turns: int) -> dict[str, float]:
    """Median microseconds of a call with a single scan: in each turn, all scans by one implementation, then the next.

    Args:
        locates: the implementations by name.
        scans: what each is called with, one after another.
        turns: a further one, the first, sets up memory and does not count.
    """
    seconds = {name: [] for name in locates}
    for turn in range(turns + 1):
        for name, locate in locates.items():
            for scan in scans[name]:
                started = time.perf_counter()
                locate(scan)
                if turn > 0:
                    seconds[name].append(time.perf_counter() - started)
    return {name: 1e6 * float(np.median(values)) for name, values in seconds.items()}


def batch_us(locates: Mapping[str, Callable], batches: Mapping[str, Sequence], turns: int) -> dict[str, float]:
    """Median microseconds a scan, of one call with many; turns as in `median_us`."""
    calls = {name: [batch] for name, batch in batches.items()}
    whole = median_us(locates, calls, turns)
    return {name: microseconds / len(batches[name]) for name, microseconds in whole.items()}


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The results for reading, all text."""

    def text(values: pd.Series, form: str) -> pd.Series:
        return values.map(lambda value: "" if pd.isna(value) else format(value, form))

    return pd.DataFrame(
        {
            "locates by": table["implementation"],
            "library": table["version"],
            "file (MB)": text(table["file_mb"], ".1f"),
            "one scan (ms)": text(table["median_us"] / 1e3, ".2f"),
            f"of {BATCH_TIMED:,} scans, one (ms)": text(table["batch_us"] / 1e3, ".3f"),
            "farthest from Keras: indoors (m)": text(table["indoors_m"], ".5f"),
            "outdoors (m)": text(table["outdoors_m"], ".5f"),
            "scans with another building or floor": text(table["other_place"], ".0f"),
        }
    )


def main() -> None:
    """Train a localizer, export it, and write down how the files compare."""
    smoke = os.environ.get("PROFILE") == "smoke"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1 if smoke else EPOCHS, metavar="N", help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=1 if smoke else 3, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    simulated = datasets.simulated()
    workspace = paths.workspace(simulated)
    print(f"load average {os.getloadavg()[0]:.1f}: the less, the better these times are")

    parts = [protocols.load(name) for name in PROTOCOLS]
    train = [each.train for each in parts]
    nothing = [fingerprints[:0] for fingerprints in train]
    estimator = Unified(epochs=arguments.epochs).fit(train, nothing, seed=SEED)
    counts = [len(each.test) for each in parts]
    rssi = in_common([each.test.scans for each in parts]).of(estimator.transmitters)

    locates = by_keras(estimator.network)
    sizes = {}
    for name, file in FILES.items():
        path = convert.write(estimator.network, workspace.models / file)
        sizes[name] = path.stat().st_size / 1e6
        locates[name] = convert.read(path, threads=1)
    outputs = {name: in_batches(locate, rssi) for name, locate in locates.items()}
    knn = NearestFingerprints("sorensen", NEIGHBOURS).fit(train[:1], nothing[:1], seed=SEED)

    localizer = Localizer.of(train, SEED, epochs=arguments.epochs)
    folder = workspace.models / "export_localizer"
    localizer.save(folder)
    tables = {LOCALIZER: localizer.locate, RUNTIME: Runtime.load(folder, threads=1).locate}

    indoors = parts[0].test
    step = max(1, counts[0] // SCANS_TIMED)
    timed = range(0, counts[0], step)
    forms = dict.fromkeys(locates, lambda some: some.scans.of(estimator.transmitters))
    forms |= dict.fromkeys(tables, by_name)
    forms[KNN] = lambda some: some.scans
    scans, many = {}, {}
    for name, form in forms.items():
        scans[name] = [form(indoors[row : row + 1]) for row in timed]
        many[name] = form(indoors[:BATCH_TIMED])
    all_locate = {**locates, **tables, KNN: knn.predict}
    times = median_us(all_locate, scans, arguments.turns)
    batch_times = batch_us(all_locate, many, arguments.turns)

    rows = []
    for name, package in PACKAGES.items():
        row = dict.fromkeys(COLUMNS)
        row |= {"implementation": name, "version": f"{package} {version(package)}", "median_us": times[name]}
        row |= {"batch_us": batch_times[name]}
        row |= {"n_inputs": len(indoors.transmitters), "file_mb": sizes.get(name)}
        if name in tables:
            row |= {"n_inputs": len(localizer.transmitters), "n_places": len(localizer.unified.places)}
        if name in locates:
            row |= {"n_inputs": rssi.shape[1], "n_places": len(estimator.places)}
        if name in locates and name != "Keras":
            row |= disagreement(outputs[name], outputs["Keras"], counts)
        rows.append(row)
    table = pd.DataFrame(rows).astype(dict.fromkeys(("n_places", "other_place", "n_scans"), "Int64"))
    table = results.write(table, workspace.results / "export.csv", columns=COLUMNS)
    print(table.to_string(index=False))
    note = (
        f"From dBm to position, floor and building, 1 thread: {rssi.shape[1]} transmitters, "
        f"{len(estimator.places):,} places. Agreement over {len(rssi):,} test scans, times over {len(timed)} of them "
        f"indoors, {arguments.turns} turns; kNN (k = {NEIGHBOURS}) knows UJIIndoorLoc alone."
    )
    results.write_table(shown(table), workspace.tables, "export", note, simulated)


if __name__ == "__main__":
    main()
