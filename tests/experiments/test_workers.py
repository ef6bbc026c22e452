"""Workers are refused that would give other results, compute as the driver does, and end with their command."""

import os
import signal
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import dask
import pytest
from distributed import Client

from lib import paths
from lib.experiments import workers

ON_SIMULATED = {"DATA": "simulated", "LORAWAN": "subset"}
PINNED = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")

pytestmark = pytest.mark.usefixtures("on_the_simulator")  # a cluster here serves several tests, all on the same data


def worker(nthreads=1):
    return types.SimpleNamespace(address="tcp://other:1", state=types.SimpleNamespace(nthreads=nthreads))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mark": "another"}, "does not see the driver's .*models"),
        ({"code": "another"}, "another version of lib/"),
        ({"dask_worker": worker(8)}, "--nthreads 1.*Received: 8"),
        ({"data": ON_SIMULATED | {"DATA": "real"}}, "has loaded DATA=simulated: start it again. Received: DATA=real"),
        ({"data": ON_SIMULATED | {"LORAWAN": "full"}}, "has loaded LORAWAN=subset.*Received: LORAWAN=full"),
    ],
)
def test_a_worker_that_cannot_take_part_is_refused(workspace, monkeypatch, changes, message):
    monkeypatch.setattr(workers, "_first_data", [])
    monkeypatch.setenv("DATA", "auto")
    monkeypatch.setenv("LORAWAN", "subset")
    right = {"mark": workers.marked(workspace), "code": workers.CODE, "data": ON_SIMULATED, "dask_worker": worker()}
    workers.check_worker(workspace, **right)
    assert os.environ["DATA"] == "simulated"
    with pytest.raises(RuntimeError, match=f"the worker at tcp://other:1 .*{message}"):
        workers.check_worker(workspace, **right | changes)


def test_drivers_that_come_at_once_leave_one_mark(workspace):
    with ThreadPoolExecutor(8) as pool:
        marks = set(pool.map(workers.marked, [workspace] * 8))
    assert marks == {(workspace.models / workers.MARK).read_text()}
    assert [path.name for path in workspace.models.iterdir()] == [workers.MARK]


# === A pool for one command ===


def pooled(tmp_path, source, **settings):
    """A command with a pool of workers."""
    run = [
        sys.executable,
        "-m",
        "lib.experiments.workers",
        "--log",
        str(tmp_path / "log"),
        sys.executable,
        "-c",
        source,
    ]
    variables = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    return subprocess.Popen(run, cwd=paths.ROOT, env=variables, text=True, **settings)


def test_a_command_gets_the_address_of_the_pool_and_its_status_is_passed_on(tmp_path):
    source = "import os, sys; print(os.environ['DASK_SCHEDULER_ADDRESS']); print('to see', file=sys.stderr); exit(3)"
    with pooled(tmp_path, source, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        printed, problems = process.communicate(timeout=240)
    assert process.returncode == 3
    assert printed.startswith("tcp://127.0.0.1:")
    assert problems == "to see\n"


def test_the_end_of_a_pool_ends_its_command(tmp_path, wait_for):
    source = f"import pathlib, time; pathlib.Path({str(tmp_path / 'begun')!r}).touch(); time.sleep(240)"
    with pooled(tmp_path, source) as process:
        wait_for((tmp_path / "begun").exists)
        process.terminate()
        assert process.wait(timeout=120) == 128 + signal.SIGTERM


# === On a cluster ===


def test_a_worker_computes_with_as_many_threads_as_the_driver(client):
    def environment():
        import threadpoolctl

        from lib import THREADS
        from lib.models import training

        assert training
        loaded = list(sys.modules)
        first = loaded.index("lib") < loaded.index("tensorflow")
        pools = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
        return THREADS, [os.environ[name] for name in PINNED], first, pools

    ((threads, variables, first, pools),) = client.run(environment).values()
    assert threads == workers.THREADS
    assert variables == [threads] * 3
    assert first, "tensorflow was imported before lib could set its threads"
    assert pools == {int(threads)}


def test_local_workers_keep_the_memory_that_the_next_batch_needs(monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    with workers.local_or_given(1) as client:
        assert set(client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_").values()) == {None}


def test_each_gives_what_a_notebooks_function_returns_in_order(scheduler_address, workspace):
    from lib.models import training

    factor = 10  # a function of a notebook goes to the workers with what it names

    def times(number):
        if number < 0:
            raise ValueError("below zero")
        return factor * number, os.getpid(), training.__name__

    with dask.config.set({"scheduler-address": scheduler_address}):
        answers = workers.each(times, [(3,), (1,), (2,)], workspace)
        message = r"1 trainings failed, the others are kept\n-1: ValueError\('below zero'\)"
        with pytest.raises(RuntimeError, match=message):
            workers.each(times, [(1,), (-1,)], workspace)
    assert [number for number, *_ in answers] == [30, 10, 20]
    assert os.getpid() not in {process for _, process, _ in answers}
    with Client(scheduler_address) as client:
        loaded = client.run_on_scheduler(lambda: "tensorflow" in sys.modules)
    assert not loaded, "the scheduler imported what a task names"
