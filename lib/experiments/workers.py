"""Runs handed to workers: processes of this machine, one for each core, or those of a Dask cluster.

A task that fails, or whose worker ends too often, is named and leaves the others alone. What was finished is kept by
the store, so that the same call does only what is missing. Run as a command, it starts the workers of this machine once
for all that another command starts.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dask
from dask.system import CPU_COUNT
from distributed import Client, Worker, as_completed, get_worker
from distributed.protocol.pickle import dumps, loads
from tqdm import tqdm

from lib import THREADS, paths, stderr_in
from lib.paths import Workspace

MARK = ".workers"  # a file by which a worker knows the driver's folder
QUIET = {"TQDM_DISABLE": "1", "DASK_LOGGING__DISTRIBUTED": "error"}  # workers show no bars of single trainings
# TensorFlow gives back little of the memory that a training took: a worker that Dask paused for it would stay paused.
# At its limit it is ended and started again. Dask also has workers give freed memory back at once: slower batches.
CONFIGURATION = {
    "distributed.scheduler.allowed-failures": 10,  # ends of a worker that one task may see
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    "distributed.worker.profile.enabled": False,  # a hundred looks a second at what a worker does, for a dashboard
    "distributed.admin.tick.interval": "1s",  # not fifty looks a second at whether anything is stuck
}
_FILES = sorted(paths.ROOT.glob("lib/**/*.py"))
_RUNS_BY = f"{THREADS} {os.environ['KERAS_BACKEND']}"
CODE = hashlib.sha256(_RUNS_BY.encode() + b"".join(path.read_bytes() for path in _FILES)).hexdigest()  # as imported
COLLECT_AFTER = 30.0  # seconds without a collection of garbage
_first_data: list[dict] = []  # on a worker: the `data_settings` that it was told first
_collected = 0.0  # on a worker: when garbage was collected last, by the monotonic clock


# === On a worker ===


def check_worker(workspace: Workspace, mark: str, code: str, data: dict, dask_worker: Worker | None = None) -> None:
    """Raise RuntimeError on a worker that would give other results than the driver, or leave them elsewhere.

    Args:
        workspace, mark: where the driver's runs are, and what its file `MARK` says.
        code: the driver's `CODE`.
        data: the driver's `data_settings`. A worker keeps to the first that it is told, since it keeps what it loaded.
        dask_worker: the worker; None is the one that this runs on.
    """
    worker = dask_worker or get_worker()
    where = f"the worker at {worker.address}"
    file = workspace.models / MARK
    if not file.exists() or file.read_text() != mark:
        raise RuntimeError(f"{where} does not see the driver's {workspace.models}: both must share it under this path")
    if code != CODE:
        raise RuntimeError(f"{where} has another version of lib/, FINGERPRINT_THREADS or KERAS_BACKEND")
    if worker.state.nthreads != 1:
        raise RuntimeError(f"{where} must have one thread (--nthreads 1). Received: {worker.state.nthreads}")
    if not _first_data:
        _first_data.append(data)
    for variable, value in _first_data[0].items():
        if data[variable] != value:
            received = f"{variable}={data[variable]}"
            raise RuntimeError(f"{where} has loaded {variable}={value}: start it again. Received: {received}")
    os.environ.update(data)


def on_worker(driver: dict, log: str, after: object, task: bytes):
    """`function(*arguments)` on a worker that may be trusted.

    Args:
        driver: arguments of `check_worker`.
        log: the driver's TRAINING_LOG, see `store.log`; empty if it has none.
        after: the result of an earlier task, which Dask waits for, or None.
        task: function and arguments, pickled: the scheduler would unpickle them, too, and import TensorFlow for it.
    """
    check_worker(**driver)
    os.environ["TRAINING_LOG"] = log
    _collect_garbage()
    function, arguments = loads(task)
    return function(*arguments)


def _collect_garbage() -> None:
    """Free the networks of earlier tasks, in cycles that Python would leave in memory for many trainings more.

    That takes as long as a small training, and is left out where it was done a moment ago.
    """
    global _collected
    if time.monotonic() > _collected + COLLECT_AFTER:
        gc.collect()
        _collected = time.monotonic()


# === On the driver ===


def address() -> str | None:
    """Of the cluster that DASK_SCHEDULER_ADDRESS names, if it does."""
    return dask.config.get("scheduler-address", None)


def local_or_given(workers: int | None = None) -> Client:
    """A client of the cluster at DASK_SCHEDULER_ADDRESS, or else of processes of this machine, one for each core."""
    dask.config.set(CONFIGURATION)
    if address():
        return Client()
    workers = workers or max(1, CPU_COUNT // int(THREADS))
    return Client(n_workers=workers, threads_per_worker=1, dashboard_address=None, env=QUIET)


def marked(workspace: Workspace) -> str:
    """What the file says by which workers know the folder of runs; the first driver of all writes it."""
    mark = workspace.models / MARK
    if not mark.exists():
        written = mark.with_name(f"{MARK}-{uuid.uuid4().hex}")
        written.write_text(uuid.uuid4().hex)
        with contextlib.suppress(FileExistsError):  # two drivers may come at once
            os.link(written, mark)
        written.unlink()
    return mark.read_text()


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
    driver = {"workspace": workspace, "mark": marked(workspace), "code": CODE, "data": paths.data_settings()}
    client.run_on_scheduler(address)  # anything of lib: without it, no task gets to a worker
    answers = client.run(check_worker, **driver, on_error="return").values()
    # Other errors are of workers that just end or start again: these are asked once more with each task.
    refused = [str(answer) for answer in answers if isinstance(answer, RuntimeError)]
    if refused:
        raise RuntimeError("\n".join(refused))
    log = os.environ.get("TRAINING_LOG", "")
    this_time = uuid.uuid4().hex
    futures, names = {}, {}
    for place, (name, (function, arguments, after)) in enumerate(tasks.items()):
        call = (on_worker, driver, log, futures.get(after), dumps((function, arguments)))
        futures[name] = client.submit(*call, key=f"{name}-{this_time}", priority=-place)
        names[futures[name].key] = name
    results, failed = {}, {}
    with tqdm(as_completed(futures.values()), desc="trainings", total=len(futures)) as finished:
        for future in finished:
            name = names[future.key]
            finished.set_postfix_str(name)
            if future.status == "finished":
                results[name] = future.result()
                future.release()  # or Dask would make it again if its worker ended
            else:
                failed[name] = future.exception()
                finished.write(f"{name}: {failed[name]!r}", file=sys.stderr)
    return results, failed


def each(function: Callable, arguments: Sequence[tuple], workspace: Workspace) -> list:
    """`function(*a)` for each `a` of the arguments, on the workers.

    The function goes there with all that it names, so what is large it had better read there.

    Raises:
        RuntimeError: if one failed; what others wrote is kept.
    """
    tasks = {}
    for values in arguments:
        tasks["-".join(map(str, values))] = (function, values, None)
    with local_or_given() as client:
        results, failed = hand_out(tasks, workspace, client)
    refuse(failed)
    return [results[name] for name in tasks]


def refuse(failed: Mapping[str, BaseException]) -> None:
    """Raise RuntimeError if anything failed."""
    if failed:
        reasons = "\n".join(f"{name}: {reason!r}" for name, reason in failed.items())
        raise RuntimeError(f"{len(failed)} trainings failed, the others are kept\n{reasons}")


def main() -> None:
    """The command line: one pool of workers for a command and all that it starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--log", type=Path, default=Path(os.devnull), help="a file for what the workers write to stderr"
    )
    parser.add_argument("--workers", type=int, help="processes; default: one for each core")
    parser.add_argument("command", help="what to run, for instance make; its exit status is passed on")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the command")
    options = parser.parse_args()
    command = [options.command, *options.arguments]
    if address():
        os.execvp(options.command, command)
    environment = dict(os.environ)
    os.environ.update(QUIET)  # a worker imports this module, and with it tqdm, before Dask sets its environment
    logging.getLogger("distributed").setLevel(logging.ERROR)  # a worker that is slow to end is no news
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with options.log.open("w") as noise, stderr_in(noise) as screen, local_or_given(options.workers) as client:
        environment["DASK_SCHEDULER_ADDRESS"] = client.scheduler.address
        with subprocess.Popen(command, env=environment, stderr=screen) as process:
            # An interrupt from the keyboard reaches the command by itself.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            status = process.wait()
    sys.exit(128 - status if status < 0 else status)  # as a shell reports what a signal ended


if __name__ == "__main__":
    importlib.import_module("lib.experiments.workers").main()  # by a name under which the workers find it, too
