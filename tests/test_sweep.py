"""A sweep trains what is missing and nothing else, whoever is killed, and gives what an undisturbed one does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client

from lib import datasets, experiments, paths, preprocess, results, sweep, workers

SMOKE = {"PROFILE": "smoke", "DATA": "simulated", "PYTHONPATH": str(paths.ROOT)}
PINNED = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def on_the_simulator(monkeypatch):
    """Workers keep to the DATA that they are told first, and a cluster here serves several tests."""
    monkeypatch.setenv("DATA", "simulated")


def wait_for(found, seconds=120):
    """The first answer of `found` that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return answer


def finished(workspace):
    """Finished runs, and when they were written."""
    runs = workspace.models.glob("[!.]*/run.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in runs}


def without_clocks(rows):
    return pd.DataFrame(rows).drop(columns=list(results.CLOCK_COLUMNS))


@pytest.mark.parametrize("name", ["full", "benchmark", "smoke", "lab"])
def test_profiles_name_only_arguments_that_exist(monkeypatch, name):
    monkeypatch.setenv("PROFILE", name)
    assert set(experiments.profile("sweep")) <= {"models", "protocols", "seeds", "shares", "workers"}


# === Workers ===


def worker(nthreads=1):
    return types.SimpleNamespace(address="tcp://other:1", state=types.SimpleNamespace(nthreads=nthreads))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mark": "another"}, "does not see the driver's .*models"),
        ({"code": "another"}, "another version of lib/"),
        ({"dask_worker": worker(8)}, "--nthreads 1.*Received: 8"),
        ({"data": "real"}, "has loaded DATA=simulated: start it again. Received: DATA=real"),
    ],
)
def test_a_worker_that_cannot_take_part_is_refused(workspace, monkeypatch, changes, message):
    monkeypatch.setattr(workers, "_DATA", {})
    monkeypatch.setenv("DATA", "auto")
    right = {"mark": workers.marked(workspace), "code": workers.CODE, "data": "simulated", "dask_worker": worker()}
    workers.check_worker(workspace, **right)
    with pytest.raises(RuntimeError, match=f"the worker at tcp://other:1 .*{message}"):
        workers.check_worker(workspace, **right | changes)


def test_drivers_that_come_at_once_leave_one_mark(workspace):
    with ThreadPoolExecutor(8) as pool:
        marks = set(pool.map(workers.marked, [workspace] * 8))
    assert marks == {(workspace.models / workers.MARK).read_text()}
    assert [path.name for path in workspace.models.iterdir()] == [workers.MARK]


def pooled(tmp_path, source, **settings):
    """A command with a pool of workers."""
    run = [sys.executable, "-m", "lib.workers", "--log", str(tmp_path / "log"), sys.executable, "-c", source]
    return subprocess.Popen(run, cwd=paths.ROOT, env=os.environ | SMOKE, text=True, **settings)


def test_a_command_gets_the_address_of_the_pool_and_its_status_is_passed_on(tmp_path):
    source = "import os, sys; print(os.environ['DASK_SCHEDULER_ADDRESS']); print('to see', file=sys.stderr); exit(3)"
    with pooled(tmp_path, source, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        printed, problems = process.communicate(timeout=120)
    assert process.returncode == 3
    assert printed.startswith("tcp://127.0.0.1:")
    assert problems == "to see\n"


def test_the_end_of_a_pool_ends_its_command(tmp_path):
    source = f"import pathlib, time; pathlib.Path({str(tmp_path / 'begun')!r}).touch(); time.sleep(120)"
    with pooled(tmp_path, source) as process:
        wait_for((tmp_path / "begun").exists)
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM


def outputs_in(folder):
    """Where `python -m lib.sweep` writes to when FINGERPRINT_OUTPUTS is that folder."""
    return paths.Workspace(folder / "smoke" / "simulated", folder / "processed" / "smoke" / "simulated")


@pytest.fixture(scope="module")
def prepared(campus, city, tmp_path_factory):
    """Small processed sets of one pair of protocols."""
    place = outputs_in(tmp_path_factory.mktemp("prepared"))
    for data, protocol in ((campus, "pooled"), (city, "random")):
        processed = preprocess.process(data, protocol, np.arange(len(data)), (0.0, 1.0))
        processed.save(place.processed / f"{data.name}-{protocol}.npz")
    return place


@pytest.fixture
def fresh(prepared, tmp_path):
    """A place with the processed sets and nothing else."""
    shutil.copytree(prepared.processed, tmp_path / "processed" / "smoke" / "simulated")
    return outputs_in(tmp_path)


CHOSEN = experiments.cells(sweep.MODELS, ["pooled"], [0], [0.2])
EVERY_RUN = {cell.name for cell in CHOSEN} | {"lorawan_antwerp-random-encoder_scratch-s0"}


@pytest.fixture(scope="module")
def how():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROFILE", "smoke")
        return experiments.settings()


@pytest.fixture(scope="module")
def undisturbed(prepared, how):
    """The result rows of a sweep without Dask or trouble."""
    rows = [row for cell in CHOSEN for row in experiments.result_rows(cell, how, prepared)]
    assert set(finished(prepared)) == EVERY_RUN
    return without_clocks(rows)


@pytest.fixture(scope="module")
def scheduler_address(tmp_path_factory):
    """A cluster started by hand: a scheduler, and a worker that has none of our environment variables."""
    file = tmp_path_factory.mktemp("cluster") / "scheduler.json"
    dask_command = [sys.executable, "-m", "dask"]
    bare = {name: value for name, value in os.environ.items() if name not in PINNED}
    commands = {
        "scheduler": ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
        "worker": ["--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard"],
    }
    started = [
        subprocess.Popen(
            [*dask_command, kind, *options, "--scheduler-file", str(file)],
            env=bare | SMOKE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for kind, options in commands.items()
    ]
    yield wait_for(lambda: file.exists() and file.read_text() and json.loads(file.read_text())["address"])
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def client(scheduler_address):
    with Client(scheduler_address) as client:
        client.wait_for_workers(1, timeout=60)
        yield client


def test_a_worker_computes_with_as_many_threads_as_the_driver(client):
    def environment():
        import threadpoolctl

        from lib import training

        loaded = list(sys.modules)
        first = loaded.index("lib") < loaded.index("tensorflow")
        pools = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
        return training.THREADS, [os.environ[name] for name in PINNED], first, pools

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
    factor = 10  # a function of a notebook goes to the workers with what it names

    def times(number):
        if number < 0:
            raise ValueError("below zero")
        return factor * number, os.getpid()

    with dask.config.set({"scheduler-address": scheduler_address}):
        found = workers.each(times, [(3,), (1,), (2,)], workspace)
        message = r"1 trainings failed, the others are kept\n-1: ValueError\('below zero'\)"
        with pytest.raises(RuntimeError, match=message):
            workers.each(times, [(1,), (-1,)], workspace)
    assert [number for number, _ in found] == [30, 10, 20]
    assert os.getpid() not in {process for _, process in found}


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(client, fresh, how, undisturbed):
    (victim,) = client.run(os.getpid).values()

    def kill():
        wait_for(lambda: finished(fresh))
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    rows, failed = sweep.sweep(CHOSEN, how, fresh, client)
    killer.join()
    (survivor,) = client.run(os.getpid).values()
    assert survivor != victim
    assert failed == {}
    pd.testing.assert_frame_equal(without_clocks(rows), undisturbed, check_exact=True)


def command(*, place, arguments, **variables):
    started = [sys.executable, "-m", "lib.sweep", *arguments]
    environment = os.environ | SMOKE | {"FINGERPRINT_OUTPUTS": str(place.outputs.parents[1])} | variables
    return {"args": started, "env": environment, "cwd": paths.ROOT, "text": True}


@pytest.mark.slow
def test_a_killed_driver_loses_nothing_and_is_continued(scheduler_address, fresh, undisturbed):
    """The first driver has workers of its own, which die with it; the second takes the cluster's."""
    arguments = ["--protocols", "pooled", "--shares", "0.2", "--workers", "1"]
    first = command(place=fresh, arguments=arguments)
    with subprocess.Popen(**first, start_new_session=True, stderr=subprocess.DEVNULL) as driver:
        wait_for(lambda: finished(fresh))
        os.killpg(driver.pid, signal.SIGKILL)
    before = finished(fresh)
    assert set(before) < EVERY_RUN
    assert not (fresh.results / "sweep.csv").exists()

    again = command(place=fresh, arguments=arguments, DASK_SCHEDULER_ADDRESS=scheduler_address)
    second = subprocess.run(**again, capture_output=True, check=False)
    assert second.returncode == 0, second.stderr
    after = finished(fresh)
    assert set(after) == EVERY_RUN
    assert {name: after[name] for name in before} == before, "trained again"
    written = results.read(fresh.results / "sweep.csv")
    assert tuple(written.columns) == (*results.COLUMNS, "share")
    expected = results.write(undisturbed.reindex(columns=written.columns), fresh.results / "expected.csv")
    pd.testing.assert_frame_equal(without_clocks(written), without_clocks(expected), check_exact=True)
    assert (fresh.figures / "sweep.png").exists()
    assert (fresh.tables / "sweep.md").read_text().strip() in second.stdout


def test_rows_say_how_much_was_learnt_from(prepared, undisturbed):
    trained = {
        protocol: len(preprocess.ProcessedSet.load(prepared.processed / f"{name}-{protocol}.npz").split.train)
        for name, protocol in (("ujiindoorloc", "pooled"), ("lorawan_antwerp", "random"))
    }
    by_model = undisturbed.set_index(["model", "protocol"])["n_train"]
    assert by_model["encoder_tl", "pooled"] == round(0.2 * trained["pooled"])
    assert by_model["umlp", "pooled"] == by_model["umlp", "random"] == round(0.2 * min(trained.values()))
    assert set(undisturbed["share"]) == {0.2}


def test_errors_of_a_row_can_be_read_again(prepared, undisturbed):
    for _, row in undisturbed.iterrows():
        assert results.read_errors(prepared, row).mean() == pytest.approx(row["mean_m"])


def test_a_failing_cell_is_named_and_the_others_are_kept(
    scheduler_address, fresh, prepared, undisturbed, monkeypatch, capsys
):
    """The sets of one pair are missing."""
    shutil.copytree(prepared.models, fresh.models, dirs_exist_ok=True)
    arguments = ["--models", "encoder_scratch", "--protocols", "pooled", "official", "--shares", "0.2"]
    monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for name, value in command(place=fresh, arguments=[], TQDM_DISABLE="1")["env"].items():
        monkeypatch.setenv(name, value)
    datasets.simulated.cache_clear()
    with (
        dask.config.set({"scheduler-address": scheduler_address}),
        pytest.raises(SystemExit, match=r"1 cells failed.* ujiindoorloc-official-encoder_scratch-0.2-s0"),
    ):
        sweep.main()
    assert re.search("official-encoder_scratch-0.2-s0: FileNotFoundError.*Notebook 02", capsys.readouterr().err)
    assert (fresh.models / "ujiindoorloc-pooled-encoder_scratch-0.2-s0" / "run.json").exists()
    assert not (fresh.results / "sweep.csv").exists()
