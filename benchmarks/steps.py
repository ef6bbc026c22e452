"""One step of one size, for `scaling.py`: measured in a process that does nothing else.

It prints {"seconds", "peak_mb"}, or {"refused"} and why. Steps leave in the folder what later ones read: first comes
`simulate`, then `load` and `process`, then the others.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts by hand

from benchmarks.memory import peak_mb
from lib import baselines, datasets, preprocess, simulate
from lib.fingerprints import FingerprintSet

QUERIES, NEIGHBOURS = 1000, 5
BATCH_SIZE, PREDICTED_AT_ONCE = 256, 4096
CSV_CELLS = 10_000_000  # a longer file repeats its rows
LEAST_S, MOST_TIMES = 2.0, 5  # shorter work is repeated


# === Time and memory ===


def forget_peak() -> float:
    """Let `peak_mb` begin anew, where the system can, and return what it begins with."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def measured(work: Callable[[], object], held_mb: float) -> tuple[float, float, object]:
    """Median seconds of some work, its peak in MB beyond `held_mb`, and its result.

    Args:
        work: is done up to `MOST_TIMES` times, until `LEAST_S` seconds have gone.
        held_mb: what the process had in use before it read what the work is on.
    """
    seconds = []
    while not seconds or (len(seconds) < MOST_TIMES and sum(seconds) < LEAST_S):
        result = None  # two at once would count as the work's memory
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)), peak_mb() - held_mb, result


# === Files ===


def read(folder: Path, name: str):
    with (folder / name).open("rb") as file:
        return pickle.load(file)


def write(folder: Path, name: str, value) -> None:
    with (folder / name).open("wb") as file:
        pickle.dump(value, file, protocol=5)


def campus_sizes(n_rows: int) -> dict[str, int]:
    """How many rows of each part: a tenth as many validate as train."""
    return {"train": n_rows - n_rows // 11, "validation": n_rows // 11}


def write_csv(folder: Path, fingerprints: FingerprintSet) -> None:
    """The publisher's two files; where they are large, with the first rows again and again."""
    some = fingerprints[: max(1, CSV_CELLS // len(fingerprints.transmitters))]
    table = pd.DataFrame(np.nan_to_num(some.rssi, nan=100).astype(np.int16), columns=list(some.transmitters))
    place = dict(zip(("LONGITUDE", "LATITUDE"), some.frame.to_publisher(some.position).T, strict=True))
    table = table.assign(**place, FLOOR=some.floor, BUILDINGID=some.building, PHONEID=some.group, TIMESTAMP=1371713733)
    header, *lines = table.to_csv(index=False).splitlines(keepends=True)
    for part, rows in campus_sizes(len(fingerprints)).items():
        with (folder / f"scaling-{part}.csv").open("w") as file:
            file.writelines([header, *itertools.islice(itertools.cycle(lines), rows)])


# === Steps ===


def simulate_campus(folder: Path, n_rows: int, n_transmitters: int) -> tuple[float, float]:
    held, sizes = forget_peak(), campus_sizes(n_rows).values()
    seconds, peak, fingerprints = measured(lambda: simulate.campus(*sizes, n_access_points=n_transmitters), held)
    write(folder, "fingerprints", fingerprints)
    write_csv(folder, fingerprints)
    return seconds, peak


def load_csv(folder: Path, n_rows: int, n_transmitters: int) -> tuple[float, float]:
    os.environ["FINGERPRINT_DATA"] = str(folder)
    for key, (part, rows) in zip(("uji_training", "uji_validation"), campus_sizes(n_rows).items(), strict=True):
        path = folder / f"scaling-{part}.csv"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        about = {"sha256": digest, "size": path.stat().st_size, "rows": rows, "transmitters": n_transmitters}
        datasets.REGISTRY[key] = dataclasses.replace(datasets.REGISTRY[key], file=path.name, **about)
    return measured(datasets.load_ujiindoorloc, forget_peak())[:2]


def process_pooled(folder: Path, n_rows: int, n_transmitters: int) -> tuple[float, float]:
    held, fingerprints, rows = forget_peak(), read(folder, "fingerprints"), np.arange(n_rows)
    seconds, peak, processed = measured(lambda: preprocess.process(fingerprints, "pooled", rows, (0.0, 2.0)), held)
    write(folder, "processed", processed)
    return seconds, peak


def train_epoch(folder: Path, n_rows: int, n_transmitters: int) -> tuple[float, float]:
    """An epoch: the difference between training for more epochs and for one, which also traces the graph."""
    from lib import models, training

    settings = {"loss": "mse", "batch_size": BATCH_SIZE, "learning_rate": 0.01, "decay": False}
    some = np.zeros((2 * BATCH_SIZE, 8), np.float32), np.zeros((2 * BATCH_SIZE, 2), np.float32)
    training.fit(models.localizer(8), some, some, epochs=1, **settings)  # sets up TensorFlow's threads and memory
    held = forget_peak()
    processed = read(folder, "processed")
    parts, localizer = (processed.part("train"), processed.part("validation")), models.localizer(processed.x.shape[1])

    def timed(epochs: int) -> float:
        started = time.perf_counter()
        training.fit(localizer, *parts, epochs=epochs, **settings)
        return time.perf_counter() - started

    one, peak, more = timed(1), peak_mb() - held, max(1, 30_000_000 // (n_rows * n_transmitters))
    while (seconds := timed(1 + more) - one) < LEAST_S:
        more *= 4
    return seconds / more, peak


def predict_all(folder: Path, n_rows: int, n_transmitters: int) -> tuple[float, float]:
    from lib import models

    models.localizer(8)(np.zeros((1, 8), np.float32), training=False)
    held = forget_peak()
    x = read(folder, "processed").x
    localizer = models.localizer(x.shape[1])

    def predict() -> list:
        return [
            localizer(x[rows : rows + PREDICTED_AT_ONCE], training=False)
            for rows in range(0, len(x), PREDICTED_AT_ONCE)
        ]

    return measured(predict, held)[:2]


def nearest(metric: str, folder: Path) -> tuple[float, float]:
    held, fingerprints = forget_peak(), read(folder, "fingerprints")
    queries = fingerprints.rssi[:: -(-len(fingerprints) // QUERIES)]

    def answer() -> dict:
        return baselines.NearestFingerprints(metric, NEIGHBOURS).store(fingerprints).predict(queries)

    return measured(answer, held)[:2]


STEPS: dict[str, Callable[[Path, int, int], tuple[float, float]]] = {
    "simulate": simulate_campus,
    "load": load_csv,
    "process": process_pooled,
    "train": train_epoch,
    "predict": predict_all,
    "knn_euclidean": lambda folder, *_: nearest("euclidean", folder),
    "knn_sorensen": lambda folder, *_: nearest("sorensen", folder),
}


def main() -> None:
    """Measure the step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS, help="what to measure")
    parser.add_argument("folder", type=Path, help="there already; where the steps leave what they make")
    parser.add_argument("rows", type=int, help="how many fingerprints there are")
    parser.add_argument("transmitters", type=int, help="how many transmitters they tell of")
    given = parser.parse_args()
    try:
        seconds, peak = STEPS[given.step](given.folder, given.rows, given.transmitters)
        answer = {"seconds": seconds, "peak_mb": peak}
    except MemoryError as problem:
        answer = {"refused": str(problem)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
