"""How fast this repository trains, loads and predicts, beside plain PyTorch, Keras' defaults and the processor's limit.

Each implementation runs in a process of its own (`worker.py`), all on the same network and rows. They take turns, so
that what else the machine does meets all of them, and the median over the turns counts. Run it with `make bench`, on
an otherwise idle machine. PROFILE and DATA mean what they mean to the notebooks.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts without PYTHONPATH

import pandas as pd

from benchmarks.worker import BATCH_SIZE
from lib import datasets, models, paths, preprocess

COLUMNS = (
    *("what", "implementation", "backend", "n_rows", "n_inputs", "batch"),
    *("seconds", "rows_per_second", "ratio_to_torch", "ceiling_fraction", "peak_mb"),
)
TRAINERS = {
    "ours": "tensorflow",
    "PyTorch loop": "torch",
    "Keras defaults": "tensorflow",
    "Keras defaults on JAX": "jax",
}
PRODUCTS = {"numpy product": "numpy", "torch product": "torch"}
LOSS_FACTOR = 3.0  # two trainings of the same network end further apart than that: one of them is not right
VALIDATION_ROWS = 256  # of every training, one batch: what is timed is training


@dataclass(frozen=True)
class Settings:
    """How much is run.

    Attributes:
        rows: of each environment at most.
        wide_rows: training rows of the wide network.
        epochs: that one turn times, by network.
        side: rows and columns of the matrices whose product is timed.
    """

    rows: int = 130_429
    wide_rows: int = 16_384
    epochs: tuple[tuple[str, int], ...] = (("localizer", 6), ("umlp", 6), ("wide", 3))
    side: int = 2048


PROFILES = {"smoke": Settings(1500, 1024, (("localizer", 1), ("umlp", 1), ("wide", 1)), 256)}


# === Workers ===


class Worker:
    """A running `worker.py`; `log` is an open file for what it writes besides its answers."""

    def __init__(self, implementation: str, backend: str, threads: int, kind: str, task: dict, log):
        count, self.log = str(threads), log
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("worker.py")],
            env=os.environ
            | dict.fromkeys(("FINGERPRINT_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), count)
            | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"), count)
            | {"KERAS_BACKEND": backend, "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}"}
            | {"PYTHONPATH": str(paths.ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self._send({"implementation": implementation, "kind": kind, "task": task})

    def _send(self, request: dict) -> None:
        print(json.dumps(request), file=self.process.stdin, flush=True)

    def answer(self) -> dict:
        """What the worker says next.

        Raises:
            RuntimeError: if it has died; the message is what it wrote before.
        """
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"a worker has failed:\n{self.log.read()[-4000:]}")
        return json.loads(line)

    def ask(self, do: str, **arguments) -> dict:
        """Let it do something, and wait for the answer."""
        self._send({"do": do, **arguments})
        return self.answer()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@contextmanager
def workers(kind: str, backends: dict[str, str], threads: int, task: dict) -> Iterator[dict[str, Worker]]:
    """A worker for each implementation, all ready."""
    with ExitStack() as stack:
        started = {}
        for name, backend in backends.items():
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            started[name] = Worker(name, backend, threads, kind, task, log)
            stack.callback(started[name].close)
        for worker in started.values():
            worker.answer()
        yield started


def in_turn(asked: dict[str, Worker], turns: int, do: str, **arguments) -> dict[str, list[dict]]:
    """All answers of each worker: every one is asked once before any is asked again."""
    answers = {name: [] for name in asked}
    for _ in range(turns):
        for name, worker in asked.items():
            answers[name].append(worker.ask(do, **arguments))
    return answers


def row(what: str, name: str, backend: str, threads: int, answers: list[dict], **more) -> dict:
    """One row of the result: the median of the answers' seconds."""
    seconds = statistics.median(answer["seconds"] for answer in answers)
    seconds = seconds if seconds > 0 else np.nan  # a difference of times that has drowned in noise says nothing
    named = f"{name}, {threads} thread{'s' * (threads > 1)}"
    made = dict.fromkeys(COLUMNS) | {"what": what, "implementation": named, "backend": backend, "seconds": seconds}
    made |= {"peak_mb": max(answer["peak_mb"] for answer in answers), **more}
    made["rows_per_second"] = made["n_rows"] / seconds
    print(f"  {what:28} {named:36} {seconds:10.4g} s, {made['peak_mb']:6.0f} MB", flush=True)
    return made


# === Training ===


def training_sets(settings: Settings) -> dict[str, dict[str, np.ndarray]]:
    """Arrays to train each network on, by name: the paper's rows, and for the wide one all access points."""
    raw = {name: datasets.load(name) for name in datasets.LOADERS}
    indoor, outdoor = (
        preprocess.process(data, protocol, np.arange(0, len(data), -(-len(data) // settings.rows)), (0.0, 2.0))
        for data, protocol in zip(raw.values(), ("pooled", "random"), strict=True)
    )
    parts = {
        "localizer": {part: indoor.part(part) for part in ("train", "validation")},
        "umlp": preprocess.unify(indoor, outdoor),
    }
    campus = raw["ujiindoorloc"][: settings.wide_rows + VALIDATION_ROWS]
    scaling = preprocess.MinMaxScaling.of_rssi(campus.rssi, preprocess.NOT_HEARD_DBM[campus.name], 0.0, 2.0)
    x, y = scaling.transform(campus.rssi), preprocess.MinMaxScaling.of_position(campus.position)
    x, y = x, y.transform(campus.position)
    cut = settings.wide_rows
    parts["wide"] = {"train": (x[:cut], y[:cut]), "validation": (x[cut:], y[cut:])}
    return {
        network: {
            f"{part}_{name}": values[: VALIDATION_ROWS if part == "validation" else None]
            for part in ("train", "validation")
            for name, values in _by_name(*of[part]).items()
        }
        for network, of in parts.items()
    }


def _by_name(x: np.ndarray, y) -> dict[str, np.ndarray]:
    return {"x": x, **(y if isinstance(y, dict) else {"position": y})}


def networks() -> dict[str, list[tuple[int, float]]]:
    """Width and dropout of every hidden layer of each network."""
    sizes, rate = models.CONFIGS[models.DEFAULT], 0.02
    encoder, base = sizes["encoder"], sizes["base_model"]
    through = (*encoder["hidden"], encoder["latent"], *base["hidden"], base["intermediate"])
    return {
        "localizer": [(width, rate) for width in through] + [(w, 0.0) for w in sizes["predictive_head"]["hidden"]],
        "umlp": [(width, rate) for width in sizes["umlp"]["hidden"]],
        "wide": [(width, rate) for width in (512, 512, 256)],
    }


def operations(task: dict) -> int:
    """Floating point operations of the matrix products in training on one row.

    Forward 2 a weight, backward 4; the first layer has no use for a gradient of its input.
    """
    widths = [task["n_inputs"], *(width for width, _ in task["layers"]), sum(task["outputs"].values())]
    products = [before * after for before, after in itertools.pairwise(widths)]
    return 6 * sum(products) - 2 * products[0]


def ceiling(threads: int, settings: Settings, turns: int) -> tuple[list[dict], float]:
    """Rows of the matrix product, and the most floating point operations a second that it reaches."""
    with workers("product", PRODUCTS, threads, {"n_inputs": settings.side}) as asked:
        answers = in_turn(asked, turns, "block")
    about = {"n_rows": settings.side, "n_inputs": settings.side, "batch": settings.side}
    rows = [row("matrix_product", name, PRODUCTS[name], threads, of, **about) for name, of in answers.items()]
    return rows, 2 * settings.side**3 / min(one["seconds"] for one in rows)


def training(network: str, threads: int, task: dict, epochs: int, turns: int, most: float) -> list[dict]:
    """Rows of all implementations' training of one network.

    Raises:
        RuntimeError: if they do not train the same network, or not as well.
    """
    what = f"train_{network}"
    about = {name: task[name] for name in ("n_rows", "n_inputs")} | {"batch": BATCH_SIZE}
    with workers("train", TRAINERS, threads, task) as asked:
        first = in_turn(asked, 1, "first")
        answers = in_turn(asked, turns, "block", epochs=epochs)
    weights = {name: of[0]["weights"] for name, of in first.items()}
    losses = {name: of[0]["loss"] for name, of in answers.items()}  # after as many epochs
    if len(set(weights.values())) > 1 or max(losses.values()) > LOSS_FACTOR * min(losses.values()):
        raise RuntimeError(f"{what}: not the same training. Weights: {weights}, losses: {losses}")
    cores = {name: statistics.median(answer["cores"] for answer in of) for name, of in answers.items()}
    print(f"  {what}: loss after {epochs + 3} epochs", {name: round(loss, 4) for name, loss in losses.items()})
    print(f"  {what}: cores used", {name: round(used, 2) for name, used in cores.items()})
    rows = []
    for name, backend in TRAINERS.items():
        rows.append(row(f"{what}_first_epoch", name, backend, threads, first[name], **about))
        steady = row(what, name, backend, threads, answers[name], **about)
        rows.append(steady | {"ceiling_fraction": steady["rows_per_second"] * operations(task) / most})
    return rows


def with_ratios(rows: list[dict]) -> pd.DataFrame:
    """The table of results, with how many times as fast as PyTorch each is."""
    table = pd.DataFrame(rows, columns=COLUMNS)
    threads = table["implementation"].str.extract(r"(\d+) thread", expand=False)
    torch = table["seconds"].where(table["backend"] == "torch").groupby([table["what"], threads]).transform("max")
    return table.assign(ratio_to_torch=torch / table["seconds"])


def main() -> None:
    """Time all of it and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each implementation (default: 5)")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count()}))
    parser.add_argument("--networks", nargs="+", default=list(networks()), choices=list(networks()))
    arguments = parser.parse_args()
    settings = PROFILES.get(os.environ.get("PROFILE"), Settings())
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        tasks = {}
        for network, arrays in training_sets(settings).items():
            file = Path(scratch) / f"{network}.npz"
            np.savez(file, **arrays)
            n_rows, n_inputs = arrays["train_x"].shape
            outputs = {
                name: arrays[f"train_{name}"].shape[1]
                for name in ("environment", "position")
                if f"train_{name}" in arrays
            }
            tasks[network] = {"network": network, "n_rows": n_rows, "n_inputs": n_inputs, "arrays": str(file)}
            tasks[network] |= {"layers": networks()[network], "outputs": outputs}
        for threads in arguments.threads:
            products, most = ceiling(threads, settings, arguments.repetitions)
            rows += products
            for network in arguments.networks:
                epochs = dict(settings.epochs)[network]
                rows += training(network, threads, tasks[network], epochs, arguments.repetitions, most)
    print(with_ratios(rows).to_string())


if __name__ == "__main__":
    main()
