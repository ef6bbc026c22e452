"""What the tests of experiments share: small environments in the place of the registered ones, and a cluster."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from distributed import Client

from lib import paths
from lib.data import datasets, protocols

SMOKE = {"PROFILE": "smoke", "DATA": "simulated", "PYTHONPATH": str(paths.ROOT)}
PINNED = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def _wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return answer


@pytest.fixture(scope="session")
def wait_for():
    """A function that returns the first answer of a condition that is true."""
    return _wait_for


@pytest.fixture
def environments(monkeypatch, campus, city):
    """Small simulated sets by name, which stand for what is loaded, with the settings of the smoke profile."""
    sets = {fingerprints.name: fingerprints for fingerprints in (campus, city)}
    monkeypatch.setenv("PROFILE", "smoke")
    monkeypatch.setattr(datasets, "load", sets.__getitem__)
    monkeypatch.setattr(datasets, "at_hand", sets.__contains__)
    protocols.load.cache_clear()
    yield sets
    protocols.load.cache_clear()


@pytest.fixture
def on_the_simulator(monkeypatch):
    """The smoke profile on simulated data, in this process as in those that it starts."""
    monkeypatch.setenv("PROFILE", "smoke")
    monkeypatch.setenv("DATA", "simulated")
    datasets.simulated.cache_clear()
    protocols.load.cache_clear()
    yield
    datasets.simulated.cache_clear()
    protocols.load.cache_clear()


@pytest.fixture(scope="session")
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
    yield _wait_for(lambda: file.exists() and file.read_text() and json.loads(file.read_text())["address"])
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def client(scheduler_address):
    with Client(scheduler_address) as client:
        client.wait_for_workers(1, timeout=120)
        yield client
