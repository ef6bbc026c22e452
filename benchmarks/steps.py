"""One step of one size, for `scaling.py`: measured in a process that does nothing else.

It prints {"seconds", "peak_mb"}, or {"refused"} and why. Steps leave in the folder what later ones read: first comes
`simulate`, then `load` and `process`, then the others.
"""

import argparse
import itertools
import json
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts by hand

from benchmarks import inputs
from benchmarks.measure import forget_peak, peak_mb
from lib.data import loaders, protocols, simulate
from lib.data.fingerprints import FingerprintSet
from lib.models.neighbours import NearestFingerprints

QUERIES, NEIGHBOURS = 1000, 5
BATCH_SIZE = 256
CSV_CELLS = 10_000_000  # a longer file repeats its rows
LEAST_S, MOST_TIMES = 2.0, 5  # shorter work is repeated
Measured = tuple[float, float]  # seconds, and MB beyond what the process had before it read what the work is on


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
    header, *lines = inputs.campus_table(some).to_csv(index=False).splitlines(keepends=True)
    for part, rows in campus_sizes(len(fingerprints)).items():
        with (folder / f"{part}.csv").open("w") as file:
            file.write(header)
            file.writelines(itertools.islice(itertools.cycle(lines), rows))


# === Steps ===


def simulate_campus(folder: Path, n_rows: int, n_transmitters: int) -> Measured:
    held = forget_peak()
    sizes = campus_sizes(n_rows).values()
    seconds, peak, fingerprints = measured(lambda: simulate.campus(*sizes, n_access_points=n_transmitters), held)
    write(folder, "fingerprints", fingerprints)
    write_csv(folder, fingerprints)
    return seconds, peak


def load_csv(folder: Path, n_rows: int, n_transmitters: int) -> Measured:
    registered = {}
    for part, rows in campus_sizes(n_rows).items():
        description = inputs.description(folder / f"{part}.csv", rows)
        registered[inputs.KEYS["ujiindoorloc"][part]] = description | {"transmitters": n_transmitters}
    inputs.register(registered)
    seconds, peak, _ = measured(loaders.load_ujiindoorloc, forget_peak())
    return seconds, peak


def process_pooled(folder: Path, n_rows: int, n_transmitters: int) -> Measured:
    held = forget_peak()
    fingerprints = read(folder, "fingerprints")
    seconds, peak, arrays = measured(lambda: inputs.scaled(protocols.pooled(fingerprints)), held)
    write(folder, "arrays", arrays)
    return seconds, peak


def train_epoch(folder: Path, n_rows: int, n_transmitters: int) -> Measured:
    """An epoch: the difference between training for more epochs and for one, which also traces the graph."""
    from lib.models import training
    from lib.models.paper import localizer

    settings = {"loss": "mse", "batch_size": BATCH_SIZE, "learning_rate": 0.01, "decay": False}
    some = np.zeros((2 * BATCH_SIZE, 8), np.float32), np.zeros((2 * BATCH_SIZE, 2), np.float32)
    training.fit(localizer(8), some, some, epochs=1, **settings)  # sets up TensorFlow's threads and memory
    held = forget_peak()
    arrays = read(folder, "arrays")
    network = localizer(arrays["train"][0].shape[1])

    def timed(epochs: int) -> float:
        started = time.perf_counter()
        training.fit(network, arrays["train"], arrays["validation"], epochs=epochs, **settings)
        return time.perf_counter() - started

    first = timed(1)
    peak = peak_mb() - held
    more = max(1, 3_000_000 // (n_rows * n_transmitters))
    seconds = timed(1 + more) - first
    while seconds < LEAST_S:
        more *= 4
        seconds = timed(1 + more) - first
    return seconds / more, peak


def predict_all(folder: Path, n_rows: int, n_transmitters: int) -> Measured:
    from lib.models import training
    from lib.models.paper import localizer

    training.predict(localizer(8), np.zeros((1, 8), np.float32))
    held = forget_peak()
    x = np.concatenate([x for x, _ in read(folder, "arrays").values()])
    network = localizer(x.shape[1])
    seconds, peak, _ = measured(lambda: training.predict(network, x), held)
    return seconds, peak


def nearest(metric: str, folder: Path) -> Measured:
    held = forget_peak()
    fingerprints = read(folder, "fingerprints")
    queries = fingerprints.scans[:: -(-len(fingerprints) // QUERIES)]

    def answer() -> object:
        estimator = NearestFingerprints(metric, NEIGHBOURS)
        return estimator.fit([fingerprints], [fingerprints[:0]], seed=0).predict(queries)

    seconds, peak, _ = measured(answer, held)
    return seconds, peak


STEPS: dict[str, Callable[[Path, int, int], Measured]] = {
    "simulate": simulate_campus,
    "load": load_csv,
    "process": process_pooled,
    "train": train_epoch,
    "predict": predict_all,
    "knn_euclidean": lambda folder, *sizes: nearest("euclidean", folder),
    "knn_sorensen": lambda folder, *sizes: nearest("sorensen", folder),
}


def main() -> None:
    """Measure the step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS, help="what to measure")
    parser.add_argument("folder", type=Path, help="there already; where the steps leave what they make")
    parser.add_argument("rows", type=int, help="number of fingerprints")
    parser.add_argument("transmitters", type=int, help="number of access points")
    arguments = parser.parse_args()
    try:
        seconds, peak = STEPS[arguments.step](arguments.folder, arguments.rows, arguments.transmitters)
        answer = {"seconds": seconds, "peak_mb": peak}
    except MemoryError as problem:
        answer = {"refused": str(problem)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
