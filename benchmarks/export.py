"""How large exported localizers are, how well they agree with Keras, and how fast they locate a single scan.

`make bench` runs it. All implementations run in this process with one thread and take turns, on the same scans.
Agreement does not need a network that is trained to the end, but one whose probabilities are those of real scans: a few
epochs are enough. PROFILE and DATA mean what they mean in `make all`.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts by hand

from lib import baselines, datasets, export, paths, results, splits, unified
from lib.fingerprints import FingerprintSet

COLUMNS = (
    *("implementation", "version", "n_inputs", "n_places", "file_mb"),
    *("indoors_m", "outdoors_m", "other_place", "n_scans", "median_us"),
)
PROTOCOLS = {"ujiindoorloc": "official", "lorawan_antwerp": "random"}
EPOCHS, SEED, NEIGHBOURS = 3, 0, 7
FILES = {"ONNX Runtime": "localizer.onnx", "LiteRT": "localizer.tflite"}
PACKAGES = {"ONNX Runtime": "onnxruntime", "LiteRT": "ai-edge-litert"}

Located = dict[str, np.ndarray]
Locate = Callable[[np.ndarray], Located]


def learnt_and_tested() -> tuple[list[FingerprintSet], list[FingerprintSet]]:
    """Training and test rows of each environment."""
    loaded = [datasets.load(name) for name in PROTOCOLS]
    found = [splits.split(data, protocol) for data, protocol in zip(loaded, PROTOCOLS.values(), strict=True)]
    parts = [
        [data[getattr(split, part)] for data, split in zip(loaded, found, strict=True)] for part in ("train", "test")
    ]
    return parts[0], parts[1]


def by_keras(model) -> dict[str, Locate]:
    """The network as Keras calls it, and compiled once by TensorFlow."""
    import tensorflow as tf

    compiled = tf.function(lambda rssi: model(rssi, training=False), autograph=False, reduce_retracing=True)

    def arrays(outputs: dict) -> Located:
        return {name: np.asarray(values) for name, values in outputs.items()}

    return {
        "Keras": lambda rssi: arrays(model(rssi, training=False)),
        "tf.function": lambda rssi: arrays(compiled(rssi)),
    }


def in_batches(locate: Locate, rssi: np.ndarray) -> Located:
    """The outputs for many scans."""
    parts = [locate(rssi[start : start + 1024]) for start in range(0, len(rssi), 1024)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def disagreement(found: Located, expected: Located, counts: Sequence[int]) -> dict[str, float]:
    """Largest distance in metres in each environment, where both say the same place, and how many scans have another.

    Another place is another environment, building or floor.
    """
    same = (found["floor"] == expected["floor"]) & (found["building"] == expected["building"])
    same &= found["environment"].argmax(axis=1) == expected["environment"].argmax(axis=1)
    metres = np.where(same, np.linalg.norm(np.float64(found["position"]) - expected["position"], axis=1), 0.0)
    indoors, outdoors = (part.max() for part in np.split(metres, np.cumsum(counts)[:-1]))
    return {"indoors_m": indoors, "outdoors_m": outdoors, "other_place": int((~same).sum()), "n_scans": len(same)}


def latencies(asked: dict[str, Locate], scans: dict[str, np.ndarray], turns: int) -> dict[str, np.ndarray]:
    """Seconds of every call with a single scan: in each turn, all scans by one implementation, then by the next."""
    seconds = {name: [] for name in asked}
    for turn in range(turns + 1):
        for name, locate in asked.items():
            for scan in scans.get(name, scans["all"]):
                started = time.perf_counter()
                locate(scan[None])
                if turn:  # the first one sets up memory
                    seconds[name].append(time.perf_counter() - started)
    return {name: np.array(of) for name, of in seconds.items()}


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
            "farthest from Keras: indoors (m)": text(table["indoors_m"], ".5f"),
            "outdoors (m)": text(table["outdoors_m"], ".5f"),
            "scans with another building or floor": text(table["other_place"], ".0f"),
        }
    )


def main() -> None:
    """Train or recall a localizer, export it, and write down how the files compare."""
    smoke = os.environ.get("PROFILE") == "smoke"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1 if smoke else EPOCHS, metavar="N", help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=1 if smoke else 3, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    simulated = datasets.simulated()
    workspace = paths.workspace(simulated)
    print(f"load average {os.getloadavg()[0]:.1f}: the less, the better these times are")

    learnt, tested = learnt_and_tested()
    model = unified.train(learnt, tested, workspace.models / "exported", SEED, epochs=arguments.epochs).model
    rssi, counts = unified.side_by_side(tested), [len(one) for one in tested]
    files = {name: export.write(model, workspace.models / file) for name, file in FILES.items()}
    asked = by_keras(model) | {name: export.read(path, threads=1) for name, path in files.items()}
    expected = in_batches(asked["Keras"], rssi)
    about = {"n_inputs": rssi.shape[1], "n_places": len(model.get_layer("decoder").places)}
    rows = {}
    for name, locate in asked.items():
        library = PACKAGES.get(name, "keras" if "Keras" in name else "tensorflow")
        size = {"file_mb": files[name].stat().st_size / 1e6} if name in files else {}
        agreement = disagreement(in_batches(locate, rssi), expected, counts) if name != "Keras" else {}
        rows[name] = about | {"version": f"{library} {version(library)}"} | size | agreement

    knn = "kNN, Sørensen"  # of one environment: its scans without the columns of the other
    some = rssi[: counts[0]][:: max(1, counts[0] // 100)]
    asked[knn] = baselines.NearestFingerprints("sorensen", NEIGHBOURS).store(learnt[0]).predict
    rows[knn] = {"version": f"numpy {version('numpy')}", "n_inputs": len(learnt[0].transmitters)}
    seconds = latencies(asked, {"all": some, knn: some[:, : len(learnt[0].transmitters)]}, arguments.turns)
    made = [
        dict.fromkeys(COLUMNS) | row | {"implementation": name, "median_us": 1e6 * np.median(seconds[name])}
        for name, row in rows.items()
    ]
    made = pd.DataFrame(made).astype({name: "Int64" for name in ("n_places", "other_place", "n_scans")})
    table = results.write(made, workspace.results / "export.csv", columns=COLUMNS)
    print(table.to_string(index=False))
    note = (
        f"From dBm to position, floor and building, 1 thread: {about['n_inputs']} transmitters, {about['n_places']:,} "
        f"places. Agreement over {len(rssi):,} test scans, times over {len(some)} of them indoors, {arguments.turns} "
        f"turns; kNN (k = {NEIGHBOURS}) knows UJIIndoorLoc alone."
    )
    results.write_table(shown(table), workspace.tables, "export", note, simulated)


if __name__ == "__main__":
    main()
