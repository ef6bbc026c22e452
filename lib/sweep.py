"""Every network of the paper, protocol, seed and share of the training rows, on all cores or a cluster: `make sweep`.

A cell that was finished with the same data, settings and code is recalled. So another worker does the cell of one that
was killed, and what is started again trains what is missing and nothing else. Cells with all rows are the runs of
notebooks 03 and 04. Without DASK_SCHEDULER_ADDRESS the workers are processes of this machine.
"""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

import pandas as pd
from distributed import Client

from lib import datasets, experiments, paths, plots, results, workers
from lib.experiments import ENVIRONMENTS, Cell
from lib.paths import Workspace

MODELS = {"encoder_scratch": "encoder, from scratch", "encoder_tl": "encoder-TL", "umlp": "U-MLP"}
SHARES = [0.01, 0.02, 0.05, 0.10, 0.25, 0.50, 1.0]


def sweep(chosen: Sequence[Cell], settings: dict, workspace: Workspace, client: Client) -> tuple[list[dict], dict]:
    """Run cells, and the sources of those that transfer.

    Returns:
        The result rows of `chosen`, in that order, and for the name of each cell that failed, why.

    Raises:
        ImportError, RuntimeError: see `workers.hand_out`.
    """
    everything = dict.fromkeys([*(cell.source for cell in chosen if cell.source), *chosen])
    in_order = sorted(everything, key=lambda cell: (cell.source is not None, -cell.share))  # sources, then the longest
    tasks = {
        cell.name: (experiments.result_rows, (cell, settings, workspace), cell.source and cell.source.name)
        for cell in in_order
    }
    rows, failed = workers.hand_out(tasks, workspace, client)
    return [row for cell in chosen for row in rows.get(cell.name, [])], failed


def all_rows(chosen: Sequence[Cell], settings: dict, workspace: Workspace) -> pd.DataFrame:
    """The result rows of cells, for notebooks.

    Raises:
        RuntimeError: if a cell failed; the others are kept.
    """
    with workers.local_or_given() as client:
        rows, failed = sweep(chosen, settings, workspace, client)
    workers.refuse(failed)
    return pd.DataFrame(rows)


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
        with workers.local_or_given(given.workers) as client:
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
