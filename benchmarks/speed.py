"""How fast this repository trains, loads and predicts, beside PyTorch, Keras' defaults and the processor's limit.

Each implementation runs in a process of its own (`worker.py`), on the same network and rows. They take turns, so that
whatever else the machine does meets all of them, and the median over the turns counts. `make bench` runs it: on an
otherwise idle machine. PROFILE and DATA mean what they mean for `make all`.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts by hand

from benchmarks import inputs
from benchmarks.worker import TRAINERS as WORKER_TRAINERS
from lib import paths, quiet_import
from lib.data import datasets, protocols, simulate, sources
from lib.data.fingerprints import FingerprintSet, joined
from lib.models import training
from lib.models.estimator import Estimator
from lib.models.paper import UMLP, Encoder
from lib.models.places import BUILDING_SIGMAS, FLOOR_SIGMAS, PlaceLoss
from lib.models.scaling import MinMaxScaling
from lib.models.unified import LARGEST_BATCH, Unified
from lib.report import figures, results

with quiet_import():
    import keras

COLUMNS = (
    *("what", "implementation", "backend", "n_rows", "n_inputs", "batch"),
    *("seconds", "rows_per_second", "ratio_to_torch", "ceiling_fraction", "peak_mb"),
)
PRODUCTS = {"NumPy": "numpy", "PyTorch": "torch", "TensorFlow": "tensorflow", "JAX": "jax"}
TRAINERS = ("ours", "PyTorch", "Keras defaults", "Keras defaults on JAX")
TRAINERS_OF = {"unified": (*TRAINERS, "PyTorch, bfloat16")}  # which PyTorch trains faster
VARIANTS = (  # and what else was tried to make training fast, on the localizer with one thread
    *TRAINERS,
    *("ours, Keras' Adam", "ours, XLA"),
    *("Keras, XLA", "Keras, 8 steps per execution", "Keras, 16 steps per execution"),
)
PREDICTORS = {  # a further way to locate a scan is a line here and in worker.py
    "localizer": {"ours": "tensorflow", "PyTorch": "torch"},
    "knn_sorensen": {"ours": "numpy", "scikit-learn": "scikit-learn"},
    "knn_euclidean": {"ours": "scikit-learn"},
}
PROTOCOLS = ("pooled", "random")  # the paper's
BATCH_SIZE = 256  # of the paper's networks
VALIDATION_ROWS = 256  # few: what is timed is training
LOSS_FACTOR = 2.0  # two trainings of one network whose losses are further apart than that are not the same


@dataclass(frozen=True)
class Settings:
    """How much is run.

    Attributes:
        threads: of the implementations, one set of measurements each.
        repetitions: turns of each implementation.
        rows: of each environment at most; so many has a generated LoRaWAN file.
        unified_rows: of UJIIndoorLoc for the unified network at most.
        epochs: that one turn times, by network; networks without are left out.
        side: of the square matrices whose product is timed.
    """

    threads: tuple[int, ...]
    repetitions: int
    rows: int
    unified_rows: int
    epochs: dict[str, int]
    side: int


FULL = Settings(
    threads=tuple(sorted({1, os.cpu_count()})),
    repetitions=3,
    rows=130_429,
    unified_rows=8_192,
    epochs={"localizer": 10, "umlp": 10, "unified": 3},
    side=2048,
)
SMOKE = Settings(threads=(1,), repetitions=1, rows=1500, unified_rows=1024, epochs={"umlp": 4, "unified": 1}, side=256)


# === Workers ===


class Worker:
    """A running `worker.py`; `log` is an open file for what it writes besides its answers."""

    def __init__(self, implementation: str, backend: str, threads: int, kind: str, task: dict, log):
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("worker.py")],
            env=os.environ | self._environment(backend, threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self._send({"implementation": implementation, "kind": kind, "task": task})

    @staticmethod
    def _environment(backend: str, threads: int) -> dict[str, str]:
        several = str(threads > 1).lower()
        variables = {
            "KERAS_BACKEND": backend,
            "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={several}",
            "PYTHONPATH": os.pathsep.join([str(paths.ROOT), os.environ.get("PYTHONPATH", "")]),
            "CUDA_VISIBLE_DEVICES": "",
        }
        for name in ("FINGERPRINT_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            variables[name] = str(threads)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"):
            variables[name] = str(threads)
        return variables

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
def workers(kind: str, backends: Mapping[str, str], threads: int, task: dict) -> Iterator[dict[str, Worker]]:
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


def _counted(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def row(what: str, name: str, backend: str, threads: int, answers: Sequence[dict], **sizes: int) -> dict:
    """One row of the result: the median of the answers' seconds.

    Args:
        what, name, backend, threads: what was timed, by which implementation, on what.
        answers: of the worker.
        sizes: `n_rows`, `n_inputs` and `batch`.
    """
    seconds = statistics.median(answer["seconds"] for answer in answers)
    if seconds <= 0:  # a difference of times that has drowned in noise says nothing
        seconds = np.nan
    columns = dict.fromkeys(COLUMNS) | sizes
    columns |= {
        "what": what,
        "implementation": f"{name}, {_counted(threads)}",
        "backend": backend,
        "seconds": seconds,
        "rows_per_second": sizes["n_rows"] / seconds,
        "peak_mb": answers[0]["peak_mb"],  # later turns add what earlier ones left behind
    }
    print(f"  {what:28} {columns['implementation']:34} {seconds:10.4g} s {columns['peak_mb']:6.0f} MB", flush=True)
    return columns


# === Training ===


class Reached(Exception):
    """Ends a fit where its training would begin."""


def training_of(
    estimator: Estimator, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet]
) -> tuple[keras.Model, tuple, tuple | None, dict]:
    """What an estimator passes to `training.fit`: network, training rows, validation rows and settings."""
    passed = []

    def stop(network, train, validation, **settings):
        passed.extend((network, train, validation, settings))
        raise Reached

    with mock.patch.object(training, "fit", stop):
        try:
            estimator.fit(train, validation, seed=0)
        except Reached:
            return tuple(passed)
    raise RuntimeError(f"{type(estimator).__name__} trains nothing")


def hidden_layers(network: keras.Model) -> list[list]:
    """Width and dropout of every hidden layer: a dense one, batch normalisation, ReLU, dropout."""
    widths = []
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            widths += hidden_layers(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            widths.append([layer.input.shape[-1], 0.0])
        elif isinstance(layer, keras.layers.Dropout):
            widths[-1][1] = layer.rate
    return widths


def training_task(estimator: Estimator, train: Sequence[FingerprintSet], validation: Sequence[FingerprintSet]) -> dict:
    """What workers must know of an estimator's network and of the rows that it is trained on.

    Returns:
        `network`, in JSON, its hidden `layers`, `n_inputs` of the first of them and `outputs`, the width of each by
        its name; `train` and `validation`, (x, y) each; `loss` and `batch_size`. Of the unified network, `places` and
        `place_sigmas` are what its loss is made of.
    """
    network, rows, held_out, settings = training_of(estimator, train, validation)
    x, y = rows
    if held_out is not None:
        held_out = keras.tree.map_structure(lambda values: values[:VALIDATION_ROWS], held_out)
    task = {
        "network": network.to_json(),
        "layers": hidden_layers(network),
        "n_inputs": x.shape[1],
        "outputs": {"position": 2},
        "train": rows,
        "validation": held_out,
        "loss": settings["loss"],
        "places": None,
        "batch_size": settings["batch_size"],
    }
    if isinstance(y, dict):
        task["outputs"] = {name: values.shape[1] for name, values in y.items()}
    if isinstance(settings["loss"], PlaceLoss):
        task |= {
            "n_inputs": len(network.get_layer("levels").columns),
            "outputs": {"places": network.output_shape[-1]},
            "loss": None,
            "places": settings["loss"].places.config(),
            "place_sigmas": (FLOOR_SIGMAS, BUILDING_SIGMAS),
        }
    return task


def training_tasks(settings: Settings) -> dict[str, dict]:
    """The task of each network, on rows of the paper's protocols."""
    parts = [protocols.load(name, settings.rows) for name in PROTOCOLS]
    train = [each.train for each in parts]
    validation = [each.validation for each in parts]
    transmitters = [each.transmitters for each in parts]
    encoder = Encoder(inputs=transmitters[0], batch_size=BATCH_SIZE)
    umlp = UMLP(inputs=transmitters, batch_size=BATCH_SIZE)
    few = [protocols.some_rows(train[0], settings.unified_rows)]
    nothing = [few[0][:0]]
    return {
        "localizer": training_task(encoder, train[:1], validation[:1]),
        "umlp": training_task(umlp, train, validation),
        "unified": training_task(Unified(folds=1), few, nothing),
    }


def operations(task: dict) -> int:
    """Floating point operations of the matrix products of training on one row.

    Two a weight on the way forward, four on the way back; but nobody needs the gradient of the first layer's input.
    """
    hidden = [width for width, _ in task["layers"]]
    widths = [task["n_inputs"], *hidden, sum(task["outputs"].values())]
    weights = [before * after for before, after in itertools.pairwise(widths)]
    return 6 * sum(weights) - 2 * weights[0]


def matrix_products(threads: int, turns: int, side: int) -> tuple[list[dict], float]:
    """Rows of the product of two square matrices, and the most floating point operations a second that it reaches."""
    with workers("product", PRODUCTS, threads, {"side": side}) as asked:
        answers = in_turn(asked, turns, "multiply")
    rows = []
    for name, backend in PRODUCTS.items():
        rows.append(
            row("matrix_product", name, backend, threads, answers[name], n_rows=side, n_inputs=side, batch=side)
        )
    fastest = min(product["seconds"] for product in rows)
    for product in rows:
        product["ceiling_fraction"] = fastest / product["seconds"]
    return rows, 2 * side**3 / fastest


def time_training(
    network: str, task: dict, threads: int, turns: int, epochs: int, ceiling: float, trainers: Sequence[str]
) -> list[dict]:
    """Rows of all implementations' training of one network.

    Args:
        network: its name.
        task: see `training_task`.
        threads, turns: of each implementation.
        epochs: that one turn times.
        ceiling: floating point operations a second that no training can exceed.
        trainers: the implementations.

    Raises:
        RuntimeError: if they do not train the same network, or not as well.
    """
    backends = {name: WORKER_TRAINERS[name][-1] for name in trainers}
    with tempfile.NamedTemporaryFile() as file:
        file.write(pickle.dumps(task))
        file.flush()
        with workers("train", backends, threads, {"file": file.name}) as asked:
            first = in_turn(asked, 1, "first")
            steady = in_turn(asked, turns, "steady", epochs=epochs)
    what = f"train_{network}"
    weights = {name: answers[0]["weights"] for name, answers in steady.items()}
    losses = {name: answers[0]["loss"] for name, answers in steady.items()}
    if len(set(weights.values())) > 1 or max(losses.values()) > LOSS_FACTOR * min(losses.values()):
        raise RuntimeError(f"{what}: not the same training. Weights: {weights}, losses: {losses}")
    sizes = {"n_rows": len(task["train"][0]), "n_inputs": task["n_inputs"], "batch": task["batch_size"]}
    rows = []
    for name, backend in backends.items():
        rows.append(row(f"{what}_first_epoch", name, backend, threads, first[name], **sizes))
        later = row(what, name, backend, threads, steady[name], **sizes)
        later["ceiling_fraction"] = later["rows_per_second"] * operations(task) / ceiling
        rows.append(later)
    return rows


# === Loading ===


def generated_files(environment: str, settings: Settings, scratch: Path) -> dict[str, dict]:
    """Files of the publisher's size and format, where his own are not at hand: what differs from the registry."""
    keys = inputs.KEYS[environment]
    if not datasets.simulated() and all(sources.find(sources.REGISTRY[key]) for key in keys.values()):
        return {}
    if environment == "ujiindoorloc":
        counts = [min(settings.rows, sources.REGISTRY[key].rows) for key in keys.values()]
        fingerprints = simulate.campus(*counts)
        tables = {part: inputs.campus_table(fingerprints[fingerprints.part == part]) for part in keys}
    else:
        tables = {"all": inputs.city_table(simulate.city(settings.rows, minimum_heard=1))}
    generated = {}
    for part, table in tables.items():
        path = scratch / f"{keys[part]}.csv"
        table.to_csv(path, index=False)
        generated[keys[part]] = inputs.description(path, len(table))
    return generated


def time_loading(settings: Settings, turns: int, scratch: Path) -> list[dict]:
    """Rows of loading and preprocessing each environment, with one thread."""
    rows = []
    for protocol in PROTOCOLS:
        environment = protocols.PROTOCOLS[protocol].environment
        generated = generated_files(environment, settings, scratch)
        name = "ours, generated file" if generated else "ours"
        with workers("load", {name: "pandas"}, 1, {"protocol": protocol, "files": generated}) as asked:
            for step, backend in {"load": "pandas", "preprocess": "numpy"}.items():
                answers = in_turn(asked, turns, step)[name]
                n_rows, n_inputs = answers[0]["shape"]
                rows.append(row(f"{step}_{environment}", name, backend, 1, answers, n_rows=n_rows, n_inputs=n_inputs))
    return rows


# === Prediction ===


def prediction_task(scratch: Path) -> dict:
    """What all that locate scans need, from UJIIndoorLoc's official split.

    Returns:
        `radio_map`, `rssi` of the scans in dBm and the `folder` of a saved network; of the same network its hidden
        `layers`, the `columns` of its inputs and both scalings.
    """
    parts = protocols.load("official")
    encoder = Encoder(inputs=parts.transmitters, epochs=1).fit([parts.train], [parts.validation], seed=0)
    encoder.save(scratch)
    place = {name: number for number, name in enumerate(parts.train.transmitters)}
    rssi = parts.train.scans.of(parts.transmitters)
    return {
        "radio_map": joined(parts.train, parts.validation),
        "rssi": parts.test.rssi,
        "folder": str(scratch),
        "layers": hidden_layers(encoder.network.get_layer("localizer")),
        "columns": [place[name] for name in parts.transmitters],
        "rssi_scaling": MinMaxScaling.of_rssi(rssi, parts.train.not_heard_dbm),
        "position_scaling": MinMaxScaling.of_position(parts.train.position),
    }


def time_prediction(task: dict, file: Path, threads: int, turns: int) -> list[dict]:
    """Rows of locating one scan, and all of them at once; `file` is a pickle of the task."""
    n_scans, n_inputs = task["rssi"].shape
    rows = []
    for what, backends in PREDICTORS.items():
        if threads > 1:  # scikit-learn has one thread for this distance, and takes its time
            backends = {name: backend for name, backend in backends.items() if name != "scikit-learn"}
        with workers("predict", backends, threads, {"what": what, "file": str(file)}) as asked:
            for size, scans in {"single": 1, "batch": n_scans}.items():
                answers = in_turn(asked, turns, "locate", scans=scans)
                sizes = {"n_rows": scans, "n_inputs": n_inputs, "batch": scans}
                for name, backend in backends.items():
                    rows.append(row(f"{what}_{size}", name, backend, threads, answers[name], **sizes))
    return rows


# === Results ===


def threads_of(table: pd.DataFrame) -> pd.Series:
    """The number of threads of each row."""
    return table["implementation"].str.extract(r"(\d+) thread", expand=False).astype(int)


def without_threads(table: pd.DataFrame) -> pd.Series:
    """The implementation of each row, however many threads it has."""
    return table["implementation"].str.replace(r", \d+ threads?$", "", regex=True)


def with_ratio(rows: Sequence[dict]) -> pd.DataFrame:
    """The table of results, with how many times as fast as PyTorch each row is with as many threads."""
    table = pd.DataFrame(rows, columns=COLUMNS)
    torch = table["seconds"].where(without_threads(table) == "PyTorch")
    torch = torch.groupby([table["what"], threads_of(table)]).transform("max")
    return table.assign(ratio_to_torch=torch / table["seconds"])


def _named(table: pd.DataFrame, pattern: str) -> pd.DataFrame:
    """The rows whose `what` is the pattern, with its one group as `name`."""
    return table.assign(name=table["what"].str.extract(f"^{pattern}$", expand=False)).dropna(subset="name")


def _text(values: pd.Series, form: str) -> pd.Series:
    return values.map(lambda value: "" if pd.isna(value) else format(value, form))


def _size(rows: pd.DataFrame) -> pd.Series:
    return _text(rows["n_rows"], ",.0f") + " × " + _text(rows["n_inputs"], ",.0f")


def shown_training(table: pd.DataFrame) -> pd.DataFrame:
    """Training for reading, all text, and `seconds` as a number."""
    key = ["name", "implementation"]
    steady = _named(table, "train_([a-z]+)")
    first = _named(table, "train_([a-z]+)_first_epoch")
    steady = steady.merge(first[[*key, "seconds"]], on=key, suffixes=("", "_first"))
    return pd.DataFrame(
        {
            "network": steady["name"],
            "rows × inputs": _size(steady),
            "implementation": steady["implementation"],
            "epoch (s)": _text(steady["seconds"], ".3f"),
            "rows a second (1/s)": _text(steady["rows_per_second"], ",.0f"),
            "times as fast as PyTorch": _text(steady["ratio_to_torch"], ".2f"),
            "of the matrix product (%)": _text(100 * steady["ceiling_fraction"], ".0f"),
            "first epoch (s)": _text(steady["seconds_first"], ".1f"),
            "peak memory (MB)": _text(steady["peak_mb"], ",.0f"),
            "seconds": steady["seconds"],
        }
    )


def shown_variants(table: pd.DataFrame) -> pd.DataFrame:
    """What was tried to make training fast, for reading, the fastest first."""
    variants = shown_training(table)
    is_default = variants["implementation"].str.match(r"Keras defaults, \d")
    ratio = variants.loc[is_default, "seconds"].max() / variants["seconds"]
    variants.insert(6, "times as fast as Keras defaults", ratio.map("{:.2f}".format))
    left_out = ["network", "rows × inputs", "rows a second (1/s)", "of the matrix product (%)", "seconds"]
    return variants.sort_values("seconds").drop(columns=left_out)


def shown(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The results for reading: name of a table → the table, all text."""
    return {
        "speed": shown_training(table).drop(columns="seconds"),
        "speed_prediction": shown_prediction(table),
        "speed_loading": shown_loading(table),
    }


def shown_prediction(table: pd.DataFrame) -> pd.DataFrame:
    """Prediction for reading."""
    single = _named(table, "(localizer|knn_[a-z]+)_single")
    batch = _named(table, "(localizer|knn_[a-z]+)_batch")
    both = single.merge(batch, on=["name", "implementation"], suffixes=("_single", ""))
    return pd.DataFrame(
        {
            "locates by": both["name"],
            "implementation": both["implementation"],
            "one scan (µs)": _text(1e6 * both["seconds_single"], ",.0f"),
            "in a batch (µs a scan)": _text(1e6 / both["rows_per_second"], ",.1f"),
            "scans in the batch": _text(both["n_rows"], ",.0f"),
            "peak memory (MB)": _text(both["peak_mb"], ",.0f"),
        }
    )


def shown_loading(table: pd.DataFrame) -> pd.DataFrame:
    """Loading and preprocessing for reading."""
    steps = _named(table, "((?:load|preprocess)_.*)")
    return pd.DataFrame(
        {
            "step": steps["name"],
            "implementation": steps["implementation"],
            "rows × inputs": _size(steps).where(steps["n_rows"].notna(), ""),
            "time (s)": _text(steps["seconds"], ",.2f"),
            "peak memory (MB)": _text(steps["peak_mb"], ",.0f"),
        }
    )


def figure_of(table: pd.DataFrame) -> Figure:
    """How fast each implementation trains beside PyTorch, and what the matrix product in its arithmetic allows.

    Where an implementation multiplies in bfloat16, a product in float32 is no bound, and none is drawn.
    """
    rows = _named(table, "train_([a-z]+)")
    rows = rows.assign(threads=threads_of(rows), by=without_threads(rows))
    counts = rows["threads"].unique()
    size = (figures.WIDTH, 5)
    figure, axes = plt.subplots(1, len(counts), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, threads in zip(axes[0], counts, strict=True):
        _draw_trainers(axis, rows[rows["threads"] == threads])
        axis.set(xlabel="training rows a second, PyTorch = 1", title=_counted(threads))
    axes[0, 0].set_ylabel("network")
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=11, frameon=False)
    return figure


def _draw_trainers(axis: Axes, rows: pd.DataFrame) -> None:
    """Bars of one number of threads, and the bounds of those that multiply in float32."""
    names = list(rows["name"].unique())
    trainers = list(rows["by"].unique())
    step = 0.8 / len(trainers)
    bounds = (rows["ratio_to_torch"] / rows["ceiling_fraction"]).where(~rows["by"].str.contains("bfloat16"))
    rows = rows.assign(bound=bounds)
    for number, (trainer, colour) in enumerate(zip(trainers, sns.color_palette("colorblind"), strict=False)):
        bars = rows[rows["by"] == trainer]
        heights = np.array([names.index(name) for name in bars["name"]]) + (number + 0.5) * step - 0.4
        axis.barh(heights, bars["ratio_to_torch"], 0.9 * step, color=colour, label=trainer)
        axis.vlines(bars["bound"], heights - step / 2, heights + step / 2, color="black", linewidth=2)
    axis.vlines([], [], [], color="black", linewidth=2, label="bound: a large matrix product in float32")
    axis.set_yticks(range(len(names)), names)
    axis.grid(visible=False, axis="y")


def packages() -> str:
    """What was compared, with versions."""
    return ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "torch", "jax", "scikit-learn"))


def write_variants(table: pd.DataFrame, workspace: paths.Workspace, simulated: bool, turns: int) -> None:
    """Write `speed_variants.csv` and its table."""
    table = results.write(table, workspace.results / "speed_variants.csv", columns=COLUMNS)
    note = f"Training the localizer, 1 thread, batches of {BATCH_SIZE}, medians of {turns} turns, fastest first. "
    results.write_table(shown_variants(table), workspace.tables, "speed_variants", note + packages() + ".", simulated)


def limits(table: pd.DataFrame) -> str:
    """The most floating point operations a second, with each number of threads."""
    products = table[(table["what"] == "matrix_product") & (table["ceiling_fraction"] == 1)]
    texts = []
    for seconds, side, threads in zip(products["seconds"], products["n_rows"], threads_of(products), strict=True):
        texts.append(f"{2e-9 * side**3 / seconds:,.0f} GFLOP/s with {threads}")
    return ", ".join(texts)


def write(table: pd.DataFrame, workspace: paths.Workspace, simulated: bool, turns: int) -> None:
    """Write `speed.csv`, its tables and its figure."""
    table = results.write(table, workspace.results / "speed.csv", columns=COLUMNS)
    notes = {
        "speed": f"Training in batches of {BATCH_SIZE}, the unified network, of UJIIndoorLoc alone, in batches of "
        f"{LARGEST_BATCH}, as in the notebooks; medians of {turns} turns. The first epoch includes building and "
        f"compiling the network. The product of two large matrices, by whichever library is fastest, reaches "
        f"{limits(table)} of {os.cpu_count()} cores. {packages()}.",
        "speed_prediction": "From dBm to metres, UJIIndoorLoc, official split; kNN with k = 7. scikit-learn's "
        "Bray–Curtis has one thread.",
        "speed_loading": "From the publisher's files to what a network sees. A generated file has the publisher's size "
        "and format.",
    }
    for name, part in shown(table).items():
        results.write_table(part, workspace.tables, name, notes[name], simulated)
    figures.finish(figure_of(table), workspace.figures / "speed.png", simulated)


def measured(settings: Settings) -> tuple[list[dict], list[dict]]:
    """Rows of the results, and those of what was tried."""
    turns = settings.repetitions
    tasks = training_tasks(settings)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        to_predict = prediction_task(scratch)
        file = scratch / "prediction.pickle"
        file.write_bytes(pickle.dumps(to_predict))
        for threads in settings.threads:
            products, ceiling = matrix_products(threads, turns, settings.side)
            rows += products
            for network, epochs in settings.epochs.items():
                trainers = TRAINERS_OF.get(network, TRAINERS)
                rows += time_training(network, tasks[network], threads, turns, epochs, ceiling, trainers)
            rows += time_prediction(to_predict, file, threads, turns)
        _, ceiling = matrix_products(1, turns, settings.side)
        epochs = settings.epochs.get("localizer", 1)
        tried = time_training("localizer", tasks["localizer"], 1, turns, epochs, ceiling, VARIANTS)
        rows += time_loading(settings, turns, scratch)
    return rows, tried


def main() -> None:
    """Time everything, and write it down."""
    settings = SMOKE if os.environ.get("PROFILE") == "smoke" else FULL
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repetitions", type=int, default=settings.repetitions, metavar="N", help="default: %(default)s"
    )
    settings = dataclasses.replace(settings, repetitions=parser.parse_args().repetitions)
    simulated = datasets.simulated()
    print(f"load average {os.getloadavg()[0]:.1f}: the less, the better these times are")
    rows, tried = measured(settings)
    workspace = paths.workspace(simulated)
    write_variants(with_ratio(tried), workspace, simulated, settings.repetitions)
    write(with_ratio(rows), workspace, simulated, settings.repetitions)


if __name__ == "__main__":
    main()
