"""The sweep: every model, protocol, seed and share of the training rows, on all cores of a machine or on many machines.

One training is a cell. Its only memory is `training.run`, which finds a run that was finished with the same data,
settings and code. So another worker does the cell of one that was killed, and a sweep that is started again trains what
is missing and nothing else. Cells with all rows are the runs of notebooks 03 and 04.

Without DASK_SCHEDULER_ADDRESS the workers are processes of this machine.
"""

import argparse
import ast
import hashlib
import importlib
import itertools
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import papermill
import yaml
from dask.system import CPU_COUNT
from distributed import Client, Worker, as_completed, get_worker
from tqdm import tqdm

from lib import THREADS, datasets, paths, plots, results, splits, training
from lib.paths import Workspace
from lib.preprocess import ProcessedSet, unify

MODELS = {"encoder_scratch": "encoder, from scratch", "encoder_tl": "encoder-TL", "umlp": "U-MLP"}
SHARES = [0.01, 0.02, 0.05, 0.10, 0.25, 0.50, 1.0]
PAIRS = list(zip(*splits.PROTOCOLS.values(), strict=True))
ENVIRONMENTS = {protocol: name for name, protocols in splits.PROTOCOLS.items() for protocol in protocols}
NOTEBOOKS = paths.ROOT / "notebooks"
PASSES = 0.75  # an epoch passes over the chosen rows share^-0.75 times
MARK = ".sweep"  # a file by which a worker knows the driver's folder
_FILES = sorted(Path(__file__).parent.glob("*.py"))
CODE = hashlib.sha256(THREADS.encode() + b"".join(path.read_bytes() for path in _FILES)).hexdigest()  # as imported


@dataclass(frozen=True)
class Cell:
    """One training: on one protocol, or of the U-MLP on a pair of them.

    Raises:
        ValueError: if the share is not in (0, 1].
    """

    model: str
    protocols: tuple[str, ...]
    seed: int
    share: float

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"`share` must be above 0 and at most 1. Received: {self.share}")

    @property
    def name(self) -> str:
        """The folder of its run: with all rows, that of notebook 03 or 04."""
        words = [self.model, *self.protocols]
        if self.model != "umlp":
            words = [ENVIRONMENTS[self.protocols[0]], *self.protocols, self.model]
        return "-".join([*words, *([f"{self.share:g}"] if self.share < 1 else []), f"s{self.seed}"])

    @property
    def source(self) -> "Cell | None":
        """Whose base model it starts from: from scratch, the other protocol of the pair, all rows, the same seed."""
        if self.model != "encoder_tl":
            return None
        (pair,) = [pair for pair in PAIRS if self.protocols[0] in pair]
        return Cell("encoder_scratch", (pair[pair.index(self.protocols[0]) - 1],), self.seed, 1.0)


def cells(models: Sequence[str], protocols: Sequence[str], seeds: Sequence[int], shares: Sequence[float]) -> list[Cell]:
    """Every combination; the U-MLP takes each pair of which at least one protocol is among `protocols`."""
    return [
        Cell(model, group, seed, share)
        for model in models
        for group in (PAIRS if model == "umlp" else [(protocol,) for protocol in ENVIRONMENTS])
        if not set(group).isdisjoint(protocols)
        for seed, share in itertools.product(seeds, shares)
    ]


# === Settings ===


def profile(name: str) -> dict:
    """What this run's profile gives a notebook or the sweep."""
    profiles = yaml.safe_load((NOTEBOOKS / "profiles.yaml").read_text())
    return profiles.get(os.environ.get("PROFILE", "lab"), {}).get(name, {})


def parameters(notebook: str) -> dict:
    """The parameters of a notebook, those of the profile in their place."""
    known = papermill.inspect_notebook(NOTEBOOKS / f"{notebook}.ipynb")
    return {name: ast.literal_eval(about["default"]) for name, about in known.items()} | profile(notebook)


def settings() -> dict[str, dict]:
    """What the localizer of an environment, and `umlp`, are trained with: as in notebooks 03 and 04."""
    transfer, unified = parameters("03_transfer_learning"), parameters("04_umlp")
    common = {"config": "CONFIG", "dropout": "DROPOUT", "learning_rate": "LEARNING_RATE"}
    localizer, umlp = ({name: known[key] for name, key in common.items()} for known in (transfer, unified))
    return {
        name: localizer | {"epochs": transfer["EPOCHS"][name], "batch_size": transfer["BATCH_SIZES"][name]}
        for name in splits.PROTOCOLS
    } | {"umlp": umlp | {"epochs": unified["EPOCHS"], "batch_size": unified["BATCH_SIZE"]}}


# === One cell ===


def subset(groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Row numbers, ascending, of a random share of each group: with the same seed, part of every larger share."""
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(groups == group)) for group in np.unique(groups)]
    return np.sort(np.concatenate([rows[: max(1, round(share * len(rows)))] for rows in shuffled]))


def train(cell: Cell, settings: dict, workspace: Workspace) -> tuple[training.Run, list[ProcessedSet], int]:
    """The run of a cell, the sets it is about, and how many rows of each it learnt from.

    An epoch passes over the chosen rows several times, the more the fewer they are: one pass would be hardly an update
    of the weights, and 1 / share passes would take as long as all rows do.
    """
    sets = [ProcessedSet.load(workspace.processed / f"{ENVIRONMENTS[p]}-{p}.npz") for p in cell.protocols]
    folder, passes = workspace.models / cell.name, round(cell.share**-PASSES)
    if cell.model == "umlp":
        parts = unify(*sets)
        rows = subset(parts["train"][1]["environment"][:, 0], cell.share, cell.seed)
        run = training.train_umlp(parts, folder, cell.seed, rows=np.tile(rows, passes), **settings["umlp"])
        return run, sets, len(rows) // 2
    (data,) = sets
    rows = subset(np.zeros(len(data.split.train)), cell.share, cell.seed)
    how = settings[data.environment] | {"source": train(cell.source, settings, workspace)[0] if cell.source else None}
    return training.train_localizer(data, folder, cell.seed, rows=np.tile(rows, passes), **how), sets, len(rows)


def result_rows(cell: Cell, settings: dict, workspace: Workspace) -> list[dict]:
    """A result row, with its `share`, for each set that the cell is about."""
    run, sets, n_train = train(cell, settings, workspace)
    about = {"n_train": n_train, "share": cell.share, "epochs": len(run.curves)}
    about |= {"fit_seconds": run.seconds, "predict_us": run.predict_us}
    ends = np.cumsum([len(data.split.test) for data in sets])
    parts = zip(sets, np.split(run.predicted["position"], ends[:-1]), strict=True)
    positions = [(data, data.position_scaling.inverse(predicted)) for data, predicted in parts]
    return [results.evaluated(data, cell.model, cell.seed, where, workspace, **about) for data, where in positions]


# === All cells ===


def check_worker(workspace: Workspace, mark: str, code: str, dask_worker: Worker | None = None) -> None:
    """Raise RuntimeError on a worker that would give other results than the driver, or leave them elsewhere."""
    worker, found = dask_worker or get_worker(), workspace.models / MARK
    where = f"the worker at {worker.address}"
    if not found.exists() or found.read_text() != mark:
        raise RuntimeError(f"{where} does not see the driver's {workspace.models}: both must share it under this path")
    if code != CODE:
        raise RuntimeError(f"{where} has imported another version of lib/, or has other FINGERPRINT_THREADS")
    if worker.state.nthreads != 1:
        raise RuntimeError(f"{where} must have one thread (--nthreads 1). Received: {worker.state.nthreads}")


def on_worker(cell: Cell, settings: dict, workspace: Workspace, check: dict, source: list[dict] | None):
    """`result_rows`, where it may be trusted. Dask waits with it for the rows of the `source`, of which it is free."""
    check_worker(workspace, **check)
    # TensorFlow gives back little of what a training took: a worker that Dask paused for its memory would stay paused.
    # Now its nanny ends it when it comes to its limit, and starts it again.
    memory = get_worker().memory_manager
    memory.memory_spill_fraction = memory.memory_pause_fraction = False
    return result_rows(cell, settings, workspace)


def sweep(chosen: Sequence[Cell], settings: dict, workspace: Workspace, client: Client) -> tuple[list[dict], dict]:
    """Run cells, and the sources of those that transfer.

    Returns:
        The result rows of `chosen`, in that order, and for the name of each cell that failed, why.

    Raises:
        ImportError: if the scheduler does not find this module.
        RuntimeError: if workers at hand cannot take part. On one that comes later, cells fail.
    """
    mark = workspace.models / MARK
    if not mark.exists():
        with paths.replacing(mark) as temporary:
            temporary.write_text(uuid.uuid4().hex)
    check = {"mark": mark.read_text(), "code": CODE}
    client.run_on_scheduler(cells, [], [], [], [])  # anything of this module: without it, no cell gets to a worker
    refused = filter(None, client.run(check_worker, workspace, **check, on_error="return").values())
    if reasons := "\n".join(map(str, refused)):
        raise RuntimeError(reasons)
    everything = dict.fromkeys([*(cell.source for cell in chosen if cell.source), *chosen])
    futures, this_time = {}, uuid.uuid4().hex
    in_order = sorted(everything, key=lambda cell: (cell.source is not None, -cell.share))  # sources, then the longest
    for place, cell in enumerate(in_order):
        arguments = cell, settings, workspace, check, futures.get(cell.source)
        futures[cell] = client.submit(on_worker, *arguments, key=f"{cell.name}-{this_time}", priority=-place)
    by_key, rows, failed = {future.key: cell for cell, future in futures.items()}, {}, {}
    about = {"desc": f"sweep, {len(client.nthreads())} workers", "total": len(futures), "unit": "cell"}
    with tqdm(as_completed(futures.values()), **about) as finished:
        for future in finished:
            cell = by_key[future.key]
            finished.set_postfix_str(cell.name)
            if future.status == "finished":
                rows[cell] = future.result()
                future.release()  # or Dask would make it again if its worker ended
            else:
                failed[cell.name] = future.exception()
                finished.write(f"{cell.name}: {failed[cell.name]!r}", file=sys.stderr)
    return [row for cell in chosen for row in rows.get(cell, [])], failed


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a protocol and share, one column a model: mean distance error, mean ± 95 % CI over seeds."""
    keys = ["release", "protocol", "share"]
    n_train = rows.groupby(keys, sort=False)["n_train"].agg(lambda counts: " / ".join(map(str, counts.unique())))
    errors = rows.pivot_table("mean_m", keys, "model", aggfunc=results.with_interval, sort=False)
    table = pd.concat([n_train, errors.rename(columns=MODELS).fillna("")], axis=1).reset_index()
    return table.assign(share=[f"{100 * share:g} %" for share in table["share"]])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--protocols", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=parameters("03_transfer_learning")["SEEDS"])
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of the training rows, each up to 1")
    parser.add_argument("--workers", type=int, default=max(1, CPU_COUNT // int(THREADS)), help="on this machine")
    parser.set_defaults(**profile("sweep"))
    given = parser.parse_args()
    chosen = cells(given.models, given.protocols, given.seeds, given.shares)
    simulated = datasets.simulated()
    workspace = paths.workspace(simulated)
    os.environ["TQDM_DISABLE"] = "1"  # in the workers: the bars of single trainings
    for number in (signal.SIGINT, signal.SIGTERM):  # leave through the `with` below, which ends the workers
        signal.signal(number, lambda number, _: sys.exit(f"{signal.Signals(number).name}: finished cells are kept"))
    local = {"n_workers": given.workers, "threads_per_worker": 1, "dashboard_address": None}
    dask.config.set({"distributed.scheduler.allowed-failures": 10})  # ends of a worker that one cell may see
    try:
        with Client(**({} if dask.config.get("scheduler-address", None) else local)) as client:
            rows, failed = sweep(chosen, settings(), workspace, client)
    except (ImportError, OSError, RuntimeError) as problem:
        sys.exit(f"{problem}\nWhat a cluster needs is in the README under “Past one machine”.")
    if failed:
        sys.exit(f"{len(failed)} cells failed, the others are kept; nothing was written. {', '.join(failed)}")
    rows = results.write(rows, workspace.results / "sweep.csv", (*results.COLUMNS, "share"))
    note = "Mean distance error (m) on test rows by share of the training rows, mean ± 95 % CI over seeds."
    results.write_table(summary(rows), workspace.tables, "sweep", note, simulated)
    plots.finish(plots.error_by_share(rows, MODELS), workspace.figures / "sweep.png", simulated)
    print((workspace.tables / "sweep.md").read_text())


if __name__ == "__main__":
    importlib.import_module("lib.sweep").main()  # by a name under which the workers find it, too
