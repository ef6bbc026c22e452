"""Every network of the paper, protocol, seed and share of the training rows, on all cores or a cluster: `make sweep`.

What was finished with the same data, settings and code is recalled. So another worker does the run of one that was
killed, and what is started again trains what is missing and nothing else. Some of the runs with all rows are those of
notebooks 03 and 04. Without DASK_SCHEDULER_ADDRESS the workers are processes of this machine.
"""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

import pandas as pd
from distributed import Client

from lib import paths
from lib.data import datasets, protocols
from lib.experiments import runs, settings, workers
from lib.experiments.runs import Experiment
from lib.paths import Workspace
from lib.report import figures, numbers, results

MODELS = {"encoder_scratch": "encoder, from scratch", "encoder_tl": "encoder-TL", "umlp": "U-MLP"}
PROTOCOLS = [protocol for pair in protocols.PAIRS for protocol in pair]
SEEDS = [0, 1, 2]
SHARES = [0.01, 0.02, 0.05, 0.10, 0.25, 0.50, 1.0]


def sweep(chosen: Sequence[Experiment], workspace: Workspace, client: Client) -> tuple[list[dict], dict]:
    """Run experiments, and the sources of those that transfer.

    Returns:
        The result rows of `chosen`, in that order, and for the name of each that failed, why.

    Raises:
        ImportError, RuntimeError: see `workers.hand_out`.
    """
    by_name = {}
    for experiment in [*(experiment.source for experiment in chosen if experiment.source), *chosen]:
        if by_name.setdefault(experiment.name, experiment) != experiment:
            raise ValueError(f"two different experiments are called {experiment.name}: give one a `label`")
    in_order = sorted(by_name.values(), key=_begins)
    tasks = {}
    for experiment in in_order:
        source = None if experiment.source is None else experiment.source.name
        tasks[experiment.name] = (runs.result_rows, (experiment, workspace), source)
    rows, failed = workers.hand_out(tasks, workspace, client)
    measured = [row for experiment in chosen for row in rows.get(experiment.name, [])]
    return measured, failed


def _begins(experiment: Experiment) -> tuple[bool, float]:
    """Sources begin before what waits for them, and long runs before short ones."""
    return experiment.source is not None, -experiment.share


def all_rows(chosen: Sequence[Experiment], workspace: Workspace) -> pd.DataFrame:
    """The result rows of experiments, for notebooks.

    Raises:
        RuntimeError: if one failed; the others are kept.
    """
    with workers.local_or_given() as client:
        rows, failed = sweep(chosen, workspace, client)
    workers.refuse(failed)
    return pd.DataFrame(rows)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a protocol and share, one column a model: mean distance error, mean ± 95 % CI over seeds."""
    keys = ["release", "protocol", "share"]
    n_train = rows.groupby(keys, sort=False)["n_train"].agg(lambda counts: " / ".join(map(str, counts.unique())))
    errors = rows.pivot_table("mean_m", keys, "model", aggfunc=numbers.interval, sort=False)
    table = pd.concat([n_train, errors.rename(columns=MODELS).fillna("")], axis=1).reset_index()
    return table.assign(share=[f"{100 * share:g} %" for share in table["share"]])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lib.experiments.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="default: all")
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS, help="default: all")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=SEEDS, help="default: 0, 1 and 2; the benchmark has five"
    )
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of the training rows, each up to 1")
    parser.add_argument("--workers", type=int, help="on this machine; the default is one for each core")
    parser.set_defaults(**settings.sweep())
    options = parser.parse_args()
    chosen = runs.experiments(options.models, options.protocols, options.seeds, options.shares)
    simulated = datasets.simulated()
    workspace = paths.workspace(simulated)
    for number in (signal.SIGINT, signal.SIGTERM):  # leave through the `with` below, which ends the workers
        signal.signal(number, lambda number, _: sys.exit(f"{signal.Signals(number).name}: what is finished is kept"))
    try:
        with workers.local_or_given(options.workers) as client:
            rows, failed = sweep(chosen, workspace, client)
    except (ImportError, OSError, RuntimeError) as problem:
        sys.exit(f"{problem}\nWhat a cluster needs is in docs/cluster.md.")
    if failed:
        sys.exit(f"{len(failed)} runs failed, the others are kept; nothing was written. {', '.join(failed)}")
    table = pd.DataFrame(rows, columns=[*results.COLUMNS, "share"])
    rows = results.write(table, workspace.results / "sweep.csv")
    note = "Mean distance error (m) on test rows by share of the training rows, mean ± 95 % CI over seeds."
    results.write_table(summary(rows), workspace.tables, "sweep", note, simulated)
    figures.finish(figures.error_by_share(rows, MODELS), workspace.figures / "sweep.png", simulated)
    print((workspace.tables / "sweep.md").read_text())


if __name__ == "__main__":
    importlib.import_module("lib.experiments.sweep").main()  # by a name under which the workers find it, too
