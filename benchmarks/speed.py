"""How fast this repository trains, loads and predicts, beside PyTorch, Keras' defaults and the processor's limit.

Each implementation runs in a process of its own (`worker.py`), on the same network and rows. They take turns, so that
whatever else the machine does meets all of them, and the median over the turns counts. `make bench` runs it: on an
otherwise idle machine. PROFILE and DATA mean what they mean for `make all`.
"""

import argparse
import hashlib
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

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts by hand

from benchmarks.worker import BOUNDS
from lib import datasets, models, paths, places, plots, preprocess, results, simulate, unified
from lib.fingerprints import FingerprintSet

COLUMNS = (
    *("what", "implementation", "backend", "n_rows", "n_inputs", "batch"),
    *("seconds", "rows_per_second", "ratio_to_torch", "ceiling_fraction", "peak_mb"),
)
PRODUCTS = {"NumPy": "numpy", "PyTorch": "torch", "TensorFlow": "tensorflow", "JAX": "jax"}
TRAINERS = {
    "ours": "tensorflow",
    "PyTorch": "torch",
    "Keras defaults": "tensorflow",
    "Keras defaults on JAX": "jax",
}
TRAINERS_OF = {"unified": TRAINERS | {"PyTorch, bfloat16": "torch"}}  # our layers of that network use bfloat16, too
VARIANTS = TRAINERS | dict.fromkeys(  # and what else was tried to make training fast, on the localizer with one thread
    (
        *("ours, Keras' Adam", "ours, XLA"),
        *("Keras, XLA", "Keras, 8 steps per execution", "Keras, 16 steps per execution"),
    ),
    "tensorflow",
)
PREDICTORS = {  # a new way to locate a scan is one more line here and in worker.py
    "localizer": {"ours": "tensorflow", "PyTorch": "torch"},
    "knn_sorensen": {"ours": "numpy", "scikit-learn": "scikit-learn"},
    "knn_euclidean": {"ours": "scikit-learn"},
}
PROTOCOLS = {"ujiindoorloc": "pooled", "lorawan_antwerp": "random"}  # the paper's
FILES = {"ujiindoorloc": ("uji_training", "uji_validation"), "lorawan_antwerp": ("lorawan_full",)}
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
        unified_rows: of each environment for the unified network at most.
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
    tuple(sorted({1, os.cpu_count()})), 3, 130_429, 8_192, {"localizer": 10, "umlp": 10, "unified": 3}, 2048
)
SMOKE = Settings((1,), 1, 1500, 1024, {"umlp": 1, "unified": 1}, 256)


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
            | {"PYTHONPATH": str(paths.ROOT), "CUDA_VISIBLE_DEVICES": ""},
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


def row(what: str, name: str, backend: str, threads: int, answers: Sequence[dict], **about) -> dict:
    """One row of the result: the median of the answers' seconds."""
    seconds = statistics.median(answer["seconds"] for answer in answers)
    seconds = seconds if seconds > 0 else np.nan  # a difference of times that has drowned in noise says nothing
    made = dict.fromkeys(COLUMNS) | {
        "what": what,
        "implementation": f"{name}, {_counted(threads)}",
        "backend": backend,
        "seconds": seconds,
        "rows_per_second": about["n_rows"] / seconds,
        "peak_mb": answers[0]["peak_mb"],  # later turns add what earlier ones left behind
        **about,
    }
    print(f"  {what:28} {made['implementation']:34} {seconds:10.4g} s {made['peak_mb']:6.0f} MB", flush=True)
    return made


# === Training ===


def hidden_layers() -> dict[str, list[tuple[int, float]]]:
    """Width and dropout of every hidden layer of each network."""
    sizes, rate = models.CONFIGS[models.DEFAULT], 0.02
    encoder, base, head = (sizes[part] for part in ("encoder", "base_model", "predictive_head"))
    shared = (*encoder["hidden"], encoder["latent"], *base["hidden"], base["intermediate"])
    return {
        "localizer": [(width, rate) for width in shared] + [(width, 0.0) for width in head["hidden"]],
        "umlp": [(width, 0.0) for width in sizes["umlp"]["hidden"]],
        "unified": [(width, unified.NETWORK["dropout"]) for width in unified.NETWORK["hidden"]],
    }


def training_tasks(networks: Sequence[str], settings: Settings, scratch: Path) -> dict[str, dict]:
    """What workers must know of each network and of the rows that it is trained on, which are in files in `scratch`.

    The rows are those of the paper, for the unified network in dBm and with all transmitters.
    """
    raw = {name: datasets.load(name) for name in datasets.LOADERS}
    indoor, outdoor = (
        preprocess.process(data, PROTOCOLS[name], np.arange(0, len(data), -(-len(data) // settings.rows)), BOUNDS)
        for name, data in raw.items()
    )
    few = [one[:: -(-len(one) // settings.unified_rows)] for one in raw.values()]
    sets = {
        "localizer": {part: indoor.part(part) for part in ("train", "validation")},
        "umlp": preprocess.unify(indoor, outdoor),
        "unified": dict.fromkeys(
            ("train", "validation"), (unified.side_by_side(few), {"places": unified.targets(few)})
        ),
    }
    tasks = {}
    for network in networks:
        arrays = {}
        for part, most in {"train": None, "validation": VALIDATION_ROWS}.items():
            x, y = sets[network][part]
            y = y if isinstance(y, dict) else {"position": y}
            arrays |= {f"{part}_{name}": values[:most] for name, values in {"x": x, **y}.items()}
        outputs = {name: values.shape[1] for name, values in y.items()}
        file = scratch / f"{network}.npz"
        np.savez(file, **arrays)
        n_inputs = arrays["train_x"].shape[1]
        if network == "unified":
            about_network = about_unified(few)
            file.with_suffix(".pickle").write_bytes(pickle.dumps(about_network))
            outputs = {"places": len(about_network["places"])}
            n_inputs = len(about_network["arguments"]["columns"])
        batch_size = unified.LARGEST_BATCH if network == "unified" else BATCH_SIZE
        about = {"network": network, "n_inputs": n_inputs, "outputs": outputs, "file": str(file)}
        tasks[network] = about | {"layers": hidden_layers()[network], "batch_size": batch_size}
    return tasks


def about_unified(environments: Sequence[FingerprintSet]) -> dict:
    """What `unified.train` makes of such sets: the arguments of `models.unified`, and the places."""
    of = places.joined([places.Places.of(one) for one in environments])
    return {"arguments": unified.of_network(environments, of) | unified.NETWORK, "places": of}


def operations(task: dict) -> int:
    """Floating point operations of the matrix products of training on one row.

    Two a weight on the way forward, four on the way back; but nobody needs the gradient of the first layer's input.
    """
    widths = [task["n_inputs"], *(width for width, _ in task["layers"]), sum(task["outputs"].values())]
    weights = [before * after for before, after in itertools.pairwise(widths)]
    return 6 * sum(weights) - 2 * weights[0]


def matrix_products(threads: int, turns: int, side: int) -> tuple[list[dict], float]:
    """Rows of the product of two square matrices, and the most floating point operations a second that it reaches."""
    with workers("product", PRODUCTS, threads, {"side": side}) as asked:
        answers = in_turn(asked, turns, "multiply")
    about = {"n_rows": side, "n_inputs": side, "batch": side}
    rows = [row("matrix_product", name, PRODUCTS[name], threads, of, **about) for name, of in answers.items()]
    fastest = min(one["seconds"] for one in rows)
    return [one | {"ceiling_fraction": fastest / one["seconds"]} for one in rows], 2 * side**3 / fastest


def training(
    task: dict, threads: int, turns: int, epochs: int, ceiling: float, trainers: Mapping[str, str]
) -> list[dict]:
    """Rows of all implementations' training of one network.

    Args:
        task: of `training_tasks`.
        threads, turns: of each implementation.
        epochs: that one turn times.
        ceiling: floating point operations a second that no training can exceed.
        trainers: the implementations and their backends.

    Raises:
        RuntimeError: if they do not train the same network, or not as well.
    """
    what = f"train_{task['network']}"
    with np.load(task["file"]) as arrays:
        about = {"n_rows": len(arrays["train_x"]), "n_inputs": task["n_inputs"], "batch": task["batch_size"]}
    with workers("train", trainers, threads, task) as asked:
        first = in_turn(asked, 1, "first")
        steady = in_turn(asked, turns, "steady", epochs=epochs)
    weights = {name: answers[0]["weights"] for name, answers in steady.items()}
    losses = {name: answers[0]["loss"] for name, answers in steady.items()}
    if len(set(weights.values())) > 1 or max(losses.values()) > LOSS_FACTOR * min(losses.values()):
        raise RuntimeError(f"{what}: not the same training. Weights: {weights}, losses: {losses}")
    rows = []
    for name, backend in trainers.items():
        rows.append(row(f"{what}_first_epoch", name, backend, threads, first[name], **about))
        made = row(what, name, backend, threads, steady[name], **about)
        rows.append(made | {"ceiling_fraction": made["rows_per_second"] * operations(task) / ceiling})
    return rows


# === Loading ===


def as_published(data: FingerprintSet) -> dict[str, pd.DataFrame]:
    """A simulated set as the tables that the publisher offers, by their keys in the registry."""
    marker = {"ujiindoorloc": 100, "lorawan_antwerp": -200}[data.name]
    rssi = pd.DataFrame(np.where(data.heard, data.rssi, marker).astype(int), columns=list(data.transmitters))
    if data.name == "ujiindoorloc":
        place = pd.DataFrame(data.frame.to_publisher(data.position), columns=["LONGITUDE", "LATITUDE"])
        place = place.assign(FLOOR=data.floor, BUILDINGID=data.building, PHONEID=data.group)
        table = pd.concat([rssi, place.assign(TIMESTAMP=data.time.astype("datetime64[s]").astype(int))], axis=1)
        return dict(zip(FILES[data.name], (table[data.part == part] for part in ("train", "validation")), strict=True))
    place = pd.DataFrame(data.frame.to_degrees(data.position), columns=["Latitude", "Longitude"])
    time = pd.date_range("2018-11-01", periods=len(place), freq="7s").strftime("%Y-%m-%dT%H:%M:%S.000000+00:00")
    return {"lorawan_full": pd.concat([rssi, place.assign(**{"RX Time": time, "SF": 7, "HDOP": 1.5})], axis=1)}


def generated_files(environment: str, settings: Settings, scratch: Path) -> dict[str, dict]:
    """Files of the publisher's size and format, where his own are not at hand: what differs from the registry."""
    if not datasets.simulated() and all(datasets.find(datasets.REGISTRY[key]) for key in FILES[environment]):
        return {}
    if environment == "ujiindoorloc":
        data = simulate.campus(*(min(settings.rows, datasets.REGISTRY[key].rows) for key in FILES[environment]))
    else:
        data = simulate.city(settings.rows, minimum_heard=1)
    files = {}
    for key, table in as_published(data).items():
        path, content = scratch / f"{key}.csv", table.to_csv(index=False).encode()
        path.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        files[key] = {"file": str(path), "rows": len(table), "size": len(content), "sha256": sha256}
    return files


def loading(settings: Settings, turns: int, scratch: Path) -> list[dict]:
    """Rows of loading and preprocessing each environment, with one thread."""
    rows = []
    for environment, protocol in PROTOCOLS.items():
        files = generated_files(environment, settings, scratch)
        name = "ours, generated file" if files else "ours"
        task = {"environment": environment, "protocol": protocol, "files": files}
        with workers("load", {name: "pandas"}, 1, task) as asked:
            for what, backend in {"load": "pandas", "preprocess": "numpy"}.items():
                answers = in_turn(asked, turns, what)[name]
                about = dict(zip(("n_rows", "n_inputs"), answers[0]["shape"], strict=True))
                rows.append(row(f"{what}_{environment}", name, backend, 1, answers, **about))
    return rows


# === Prediction ===


def prediction_task(scratch: Path) -> tuple[dict, tuple[int, int]]:
    """What all that locate scans need, from UJIIndoorLoc's official split, and (scans, access points)."""
    campus = datasets.load("ujiindoorloc")
    processed = preprocess.process(campus, "official", np.arange(len(campus)), BOUNDS)
    scans = campus.rssi[processed.split.test]
    file = scratch / "official.pickle"
    file.write_bytes(pickle.dumps((campus[campus.part == "train"], processed, scans)))
    return {"file": str(file), "layers": hidden_layers()["localizer"]}, scans.shape


def prediction(task: dict, shape: tuple[int, int], threads: int, turns: int) -> list[dict]:
    """Rows of locating one scan, and all of them at once."""
    rows = []
    for what, backends in PREDICTORS.items():
        # scikit-learn has one thread for this distance, and takes its time
        backends = {name: of for name, of in backends.items() if (name, threads > 1) != ("scikit-learn", True)}
        with workers("predict", backends, threads, task | {"what": what}) as asked:
            for how, scans in {"single": 1, "batch": shape[0]}.items():
                answers = in_turn(asked, turns, "locate", scans=scans)
                about = {"n_rows": scans, "n_inputs": shape[1], "batch": scans}
                rows += [
                    row(f"{what}_{how}", name, backends[name], threads, of, **about) for name, of in answers.items()
                ]
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
            "s/epoch": _text(steady["seconds"], ".3f"),
            "rows/s": _text(steady["rows_per_second"], ",.0f"),
            "times as fast as PyTorch": _text(steady["ratio_to_torch"], ".2f"),
            "of the matrix product": _text(steady["ceiling_fraction"], ".0%"),
            "first epoch (s)": _text(steady["seconds_first"], ".1f"),
            "peak MB": _text(steady["peak_mb"], ",.0f"),
            "seconds": steady["seconds"],
        }
    )


def shown_variants(table: pd.DataFrame) -> pd.DataFrame:
    """What was tried to make training fast, for reading, the fastest first."""
    training = shown_training(table)
    defaults = training.loc[training["implementation"].str.match(r"Keras defaults, \d"), "seconds"].max()
    training.insert(6, "times as fast as Keras defaults", (defaults / training["seconds"]).map("{:.2f}".format))
    left_out = ["network", "rows × inputs", "rows/s", "of the matrix product", "seconds"]
    return training.sort_values("seconds").drop(columns=left_out)


def shown(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The results for reading: name of a table → the table, all text."""
    key = ["name", "implementation"]
    training = shown_training(table).drop(columns="seconds")
    single, batch = (_named(table, f"(localizer|knn_[a-z]+)_{how}") for how in ("single", "batch"))
    both = single.merge(batch, on=key, suffixes=("_one", ""))
    prediction = pd.DataFrame(
        {
            "locates by": both["name"],
            "implementation": both["implementation"],
            "one scan (µs)": _text(1e6 * both["seconds_one"], ",.0f"),
            "in a batch (µs a scan)": _text(1e6 / both["rows_per_second"], ",.1f"),
            "scans in it": _text(both["n_rows"], ",.0f"),
            "peak MB": _text(both["peak_mb"], ",.0f"),
        }
    )
    steps = _named(table, "((?:load|preprocess)_.*)")
    loading = pd.DataFrame(
        {
            "step": steps["name"],
            "implementation": steps["implementation"],
            "rows × inputs": _size(steps).where(steps["n_rows"].notna(), ""),
            "seconds": _text(steps["seconds"], ",.2f"),
            "peak MB": _text(steps["peak_mb"], ",.0f"),
        }
    )
    return {"speed": training, "speed_prediction": prediction, "speed_loading": loading}


def figure_of(table: pd.DataFrame) -> Figure:
    """How fast each implementation trains beside PyTorch, and what the matrix product in float32 allows."""
    rows = _named(table, "train_([a-z]+)")
    rows = rows.assign(threads=threads_of(rows), by=without_threads(rows))
    counts = rows["threads"].unique()
    figure, axes = plt.subplots(1, len(counts), figsize=(6 * len(counts), 4.6), sharex=True, sharey=True, squeeze=False)
    for axis, threads in zip(axes[0], counts, strict=True):
        panel = rows[rows["threads"] == threads]
        sns.barplot(panel, x="ratio_to_torch", y="name", hue="by", ax=axis, legend=axis is axes[0, 0])
        limits = (panel["ratio_to_torch"] / panel["ceiling_fraction"]).groupby(panel["name"], sort=False).first()
        for height, limit in enumerate(limits):
            axis.plot([limit] * 2, [height - 0.4, height + 0.4], color="black", linestyle="--", linewidth=1)
        axis.set(xlabel="training rows a second, PyTorch = 1", ylabel="", title=_counted(threads))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].get_legend().remove()
    title = "dashed: what a large matrix product in float32 would allow"
    figure.legend(handles, labels, title=title, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def packages() -> str:
    """What was compared, with versions."""
    return ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "torch", "jax", "scikit-learn"))


def write_variants(table: pd.DataFrame, workspace: paths.Workspace, simulated: bool, turns: int) -> None:
    """Write `speed_variants.csv` and its table."""
    table = results.write(table, workspace.results / "speed_variants.csv", columns=COLUMNS)
    note = f"Training the localizer, 1 thread, batches of {BATCH_SIZE}, medians of {turns} turns, fastest first. "
    results.write_table(shown_variants(table), workspace.tables, "speed_variants", note + packages() + ".", simulated)


def write(table: pd.DataFrame, workspace: paths.Workspace, simulated: bool, turns: int) -> None:
    """Write `speed.csv`, its tables and its figure."""
    table = results.write(table, workspace.results / "speed.csv", columns=COLUMNS)
    products = table[(table["what"] == "matrix_product") & (table["ceiling_fraction"] == 1)]
    limits = (2e-9 * products["n_rows"] ** 3 / products["seconds"]).map("{:,.0f} GFLOP/s".format)
    limits = ", ".join(f"{limit} with {threads}" for limit, threads in zip(limits, threads_of(products), strict=True))
    notes = {
        "speed": f"Training in batches of {BATCH_SIZE}, the unified network in batches of {unified.LARGEST_BATCH}, "
        f"as in the notebooks; medians of {turns} turns. The first epoch includes building and compiling the network. "
        f"The product of two large matrices, by whichever library is fastest, reaches {limits} of "
        f"{os.cpu_count()} cores. {packages()}.",
        "speed_prediction": "From dBm to metres, UJIIndoorLoc, official split; kNN with k = 7. scikit-learn's "
        "Bray–Curtis has one thread.",
        "speed_loading": "From the publisher's files to what a network sees. A generated file has the publisher's size "
        "and format.",
    }
    for name, part in shown(table).items():
        results.write_table(part, workspace.tables, name, notes[name], simulated)
    plots.finish(figure_of(table), workspace.figures / "speed.png", simulated)


def main() -> None:
    """Time what is asked for, and write it down if that is everything."""
    profile = os.environ.get("PROFILE", "lab")
    settings = SMOKE if profile == "smoke" else FULL
    parts = (*settings.epochs, "load", "predict", "variants")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repetitions", type=int, default=settings.repetitions, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--only", nargs="+", choices=parts, help="show these parts; write the variants alone")
    parser.add_argument("--threads", type=int, nargs="+", metavar="N", help="the same, with as many threads")
    arguments = parser.parse_args()
    everything = not (arguments.only or arguments.threads)
    parts, turns = arguments.only or parts, arguments.repetitions

    simulated = datasets.simulated()
    print(f"load average {os.getloadavg()[0]:.1f}: the less, the better these times are")
    workspace, rows, tried = paths.workspace(simulated), [], []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        train = training_tasks([name for name in settings.epochs if name in parts], settings, scratch)
        predict = prediction_task(scratch) if "predict" in parts else None
        for threads in arguments.threads or settings.threads:
            if train:
                products, ceiling = matrix_products(threads, turns, settings.side)
                rows += products
            for network, task in train.items():
                trainers = TRAINERS_OF.get(network, TRAINERS)
                rows += training(task, threads, turns, settings.epochs[network], ceiling, trainers)
            if predict:
                rows += prediction(*predict, threads, turns)
        if "variants" in parts:
            (task,) = training_tasks(["localizer"], settings, scratch).values()
            epochs = settings.epochs.get("localizer", 1)
            _, ceiling = matrix_products(1, turns, settings.side)
            tried += training(task, 1, turns, epochs, ceiling, VARIANTS)
        if "load" in parts:
            rows += loading(settings, turns, scratch)
    table = with_ratio(rows)
    print(pd.concat([table, with_ratio(tried)]).to_string(index=False))
    if tried:
        write_variants(with_ratio(tried), workspace, simulated, turns)
    if everything:
        write(table, workspace, simulated, turns)


if __name__ == "__main__":
    main()
