"""Many trainings at once, on all cores of a machine or on many machines: for notebooks 02 to 07 and the sweep.

A cell that was finished with the same data, settings and code is recalled. So another worker does the cell of one that
was killed, and what is started again trains what is missing and nothing else.

Run as a command: every network of the paper, protocol, seed and share of the training rows. Cells with all rows are the
runs of notebooks 03 and 04. Without DASK_SCHEDULER_ADDRESS the workers are processes of this machine.
"""

import argparse
import gc
import hashlib
import importlib
import signal
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dask
import pandas as pd
from dask.system import CPU_COUNT
from distributed import Client, Worker, as_completed, get_worker
from tqdm import tqdm

from lib import THREADS, datasets, experiments, paths, plots, results
from lib.experiments import ENVIRONMENTS, Cell
from lib.paths import Workspace

MODELS = {"encoder_scratch": "encoder, from scratch", "encoder_tl": "encoder-TL", "umlp": "U-MLP"}
SHARES = [0.01, 0.02, 0.05, 0.10, 0.25, 0.50, 1.0]
MARK = ".sweep"  # a file by which a worker knows the driver's folder
_FILES = sorted(Path(__file__).parent.glob("*.py"))
CODE = hashlib.sha256(THREADS.encode() + b"".join(path.read_bytes() for path in _FILES)).hexdigest()  # as imported


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


def on_worker(check: dict, after: object, function: Callable, *arguments):
    """`function(*arguments)`, where it may be trusted. Dask waits with it for what is `after`, of which it is free."""
    check_worker(**check)
    # TensorFlow gives back little of what a training took: a worker that Dask paused for its memory would stay paused.
    # Now its nanny ends it when it comes to its limit, and starts it again.
    memory = get_worker().memory_manager
    memory.memory_spill_fraction = memory.memory_pause_fraction = False
    found = function(*arguments)
    gc.collect()  # networks lie in cycles, which Python by itself would leave in memory for many trainings more
    return found


def local_or_given(workers: int | None = None) -> Client:
    """A client of the cluster at DASK_SCHEDULER_ADDRESS, or else of processes of this machine, one for each core."""
    dask.config.set({"distributed.scheduler.allowed-failures": 10})  # ends of a worker that one cell may see
    # Dask has its workers give freed memory back at once. Each batch would ask for it anew, which takes a third of a
    # training's time.
    dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None})
    if dask.config.get("scheduler-address", None):
        return Client()
    workers = workers or max(1, CPU_COUNT // int(THREADS))
    quiet = {"TQDM_DISABLE": "1"}  # the bars of single trainings
    return Client(n_workers=workers, threads_per_worker=1, dashboard_address=None, env=quiet)


def hand_out(tasks: Mapping[str, tuple], workspace: Workspace, client: Client) -> tuple[dict, dict]:
    """Have workers do tasks, with a bar.

    Args:
        tasks: by name, and in the order in which to begin them: a function, its arguments, and the name of an earlier
            task to wait for, or None.
        workspace: where they find and leave what they need.
        client: of the workers.

    Returns:
        By name what the functions returned, and what those raised that failed.

    Raises:
        ImportError: if the scheduler does not find this module.
        RuntimeError: if workers at hand cannot take part. On one that comes later, tasks fail.
    """
    mark = workspace.models / MARK
    if not mark.exists():
        with paths.replacing(mark) as temporary:
            temporary.write_text(uuid.uuid4().hex)
    check = {"workspace": workspace, "mark": mark.read_text(), "code": CODE}
    client.run_on_scheduler(experiments.cells, [], [], [])  # anything of lib: without it, no task gets to a worker
    refused = filter(None, client.run(check_worker, **check, on_error="return").values())
    if reasons := "\n".join(map(str, refused)):
        raise RuntimeError(reasons)
    futures, this_time = {}, uuid.uuid4().hex
    for place, (name, (function, arguments, after)) in enumerate(tasks.items()):
        given = check, futures.get(after), function, *arguments
        futures[name] = client.submit(on_worker, *given, key=f"{name}-{this_time}", priority=-place)
    by_key, found, failed = {future.key: name for name, future in futures.items()}, {}, {}
    about = {"desc": f"{len(client.nthreads())} workers", "total": len(futures), "unit": "cell"}
    with tqdm(as_completed(futures.values()), **about) as finished:
        for future in finished:
            name = by_key[future.key]
            finished.set_postfix_str(name)
            if future.status == "finished":
                found[name] = future.result()
                future.release()  # or Dask would make it again if its worker ended
            else:
                failed[name] = future.exception()
                finished.write(f"{name}: {failed[name]!r}", file=sys.stderr)
    return found, failed


def sweep(chosen: Sequence[Cell], settings: dict, workspace: Workspace, client: Client) -> tuple[list[dict], dict]:
    """Run cells, and the sources of those that transfer.

    Returns:
        The result rows of `chosen`, in that order, and for the name of each cell that failed, why.

    Raises:
        ImportError, RuntimeError: see `hand_out`.
    """
    everything = dict.fromkeys([*(cell.source for cell in chosen if cell.source), *chosen])
    in_order = sorted(everything, key=lambda cell: (cell.source is not None, -cell.share))  # sources, then the longest
    tasks = {
        cell.name: (experiments.result_rows, (cell, settings, workspace), cell.source and cell.source.name)
        for cell in in_order
    }
    rows, failed = hand_out(tasks, workspace, client)
    return [row for cell in chosen for row in rows.get(cell.name, [])], failed


def all_rows(chosen: Sequence[Cell], settings: dict, workspace: Workspace) -> pd.DataFrame:
    """The result rows of cells, for notebooks.

    Raises:
        RuntimeError: if a cell failed; the others are kept.
    """
    with local_or_given() as client:
        rows, failed = sweep(chosen, settings, workspace, client)
    _refuse(failed)
    return pd.DataFrame(rows)


def each(function: Callable, arguments: Sequence[tuple], workspace: Workspace) -> list:
    """`function(*one)` for each of the arguments, for notebooks that train what no cell describes.

    It goes to the workers with all that it names, so what is large it had better read there.

    Raises:
        RuntimeError: if one failed; what others wrote is kept.
    """
    names = ["-".join(map(str, one)) for one in arguments]
    with local_or_given() as client:
        tasks = {name: (function, one, None) for name, one in zip(names, arguments, strict=True)}
        found, failed = hand_out(tasks, workspace, client)
    _refuse(failed)
    return [found[name] for name in names]


def _refuse(failed: Mapping[str, BaseException]) -> None:
    if failed:
        reasons = "\n".join(f"{name}: {reason!r}" for name, reason in failed.items())
        raise RuntimeError(f"{len(failed)} cells failed, the others are kept\n{reasons}")


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a protocol and share, one column a model: mean distance error, mean ± 95 % CI over seeds."""
    keys = ["release", "protocol", "share"]
    n_train = rows.groupby(keys, sort=False)["n_train"].agg(lambda counts: " / ".join(map(str, counts.unique())))
    errors = rows.pivot_table("mean_m", keys, "model", aggfunc=results.with_interval, sort=False)
    table = pd.concat([n_train, errors.rename(columns=MODELS).fillna("")], axis=1).reset_index()
    return table.assign(share=[f"{100 * share:g} %" for share in table["share"]])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lib.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="default: all")
    parser.add_argument("--protocols", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS), help="default: all")
    seeds = experiments.parameters("03_transfer_learning")["SEEDS"]
    parser.add_argument("--seeds", nargs="+", type=int, default=seeds, help="default: those of notebook 03")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of the training rows, each up to 1")
    parser.add_argument("--workers", type=int, help="on this machine; the default is one for each core")
    parser.set_defaults(**experiments.profile("sweep"))
    given = parser.parse_args()
    chosen = experiments.cells(given.models, given.protocols, given.seeds, given.shares)
    simulated = datasets.simulated()
    workspace = paths.workspace(simulated)
    for number in (signal.SIGINT, signal.SIGTERM):  # leave through the `with` below, which ends the workers
        signal.signal(number, lambda number, _: sys.exit(f"{signal.Signals(number).name}: finished cells are kept"))
    try:
        with local_or_given(given.workers) as client:
            rows, failed = sweep(chosen, experiments.settings(), workspace, client)
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
