"""A sweep trains what is missing and nothing else, whoever is killed, and gives what an undisturbed one does."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import dask
import pandas as pd
import pytest

from lib import paths
from lib.data import datasets, protocols
from lib.experiments import runs, settings, sweep
from lib.report import results

pytestmark = pytest.mark.usefixtures("on_the_simulator")  # a cluster here serves several tests, all on the same data


def finished(workspace):
    """Finished runs, and when they were written."""
    written = workspace.models.glob("[!.]*/run.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in written}


def without_clocks(rows):
    return pd.DataFrame(rows).drop(columns=list(results.CLOCK_COLUMNS))


def outputs_in(folder):
    """Where `python -m lib.experiments.sweep` writes to when FINGERPRINT_OUTPUTS is that folder."""
    return paths.Workspace(folder / "smoke" / "simulated")


@pytest.fixture
def fresh(tmp_path):
    """A place with no runs."""
    return outputs_in(tmp_path)


@pytest.fixture
def chosen():
    """One experiment of each model, with few rows."""
    return runs.experiments(sweep.MODELS, ["pooled"], [0], [0.2])


EVERY_RUN = {
    "encoder_scratch-pooled-0.2-s0",
    "encoder_tl-pooled-0.2-s0",
    "umlp-pooled-random-0.2-s0",
    "encoder_scratch-random-s0",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the undisturbed sweep leaves its runs."""
    return outputs_in(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def undisturbed(place, chosen):
    """The result rows of a sweep without Dask or trouble; the first test that asks trains them."""
    rows = [row for experiment in chosen for row in runs.result_rows(experiment, place)]
    assert set(finished(place)) == EVERY_RUN
    return without_clocks(rows)


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(client, fresh, chosen, undisturbed, wait_for):
    (victim,) = client.run(os.getpid).values()

    def kill():
        wait_for(lambda: finished(fresh))
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    rows, failed = sweep.sweep(chosen, fresh, client)
    killer.join()
    (survivor,) = client.run(os.getpid).values()
    assert survivor != victim
    assert failed == {}
    assert set(finished(fresh)) == EVERY_RUN
    pd.testing.assert_frame_equal(without_clocks(rows), undisturbed, check_exact=True)


def command(*, place, arguments, **variables):
    started = [sys.executable, "-m", "lib.experiments.sweep", *arguments]
    outputs = {"FINGERPRINT_OUTPUTS": str(place.outputs.parents[1]), "PYTHONPATH": str(paths.ROOT)}
    return {"args": started, "env": os.environ | outputs | variables, "cwd": paths.ROOT, "text": True}


@pytest.mark.slow
def test_a_killed_driver_loses_nothing_and_is_continued(scheduler_address, fresh, undisturbed, wait_for):
    """The first driver has workers of its own, which die with it; the second takes the cluster's."""
    arguments = ["--protocols", "pooled", "--shares", "0.2", "--seeds", "0", "--workers", "1"]
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


def test_rows_say_how_much_was_learnt_from(undisturbed):
    trained = {name: len(protocols.load(name, settings.rows()).train) for name in ("pooled", "random")}
    by_model = undisturbed.set_index(["model", "protocol"])["n_train"]
    assert by_model["encoder_tl", "pooled"] == round(0.2 * trained["pooled"])
    assert by_model["umlp", "pooled"] == by_model["umlp", "random"] == round(0.2 * min(trained.values()))
    assert set(undisturbed["share"]) == {0.2}


def test_errors_of_a_row_can_be_read_again(place, undisturbed):
    for _, row in undisturbed.iterrows():
        assert results.read_errors(place, row).mean() == pytest.approx(row["mean_m"])


def test_a_notebook_gets_the_rows_of_all_its_experiments_in_their_order(scheduler_address, place, chosen, undisturbed):
    backwards = chosen[::-1]
    with dask.config.set({"scheduler-address": scheduler_address}):
        rows = sweep.all_rows(backwards, place)
    expected = pd.concat([undisturbed[undisturbed["model"] == experiment.model] for experiment in backwards])
    pd.testing.assert_frame_equal(
        without_clocks(rows), expected.reset_index(drop=True), check_exact=True, check_like=True
    )


def test_a_failing_run_is_named_and_the_others_are_kept(
    scheduler_address, fresh, place, undisturbed, monkeypatch, capsys
):
    """Where the folder of one run belongs, there is a file."""
    shutil.copytree(place.models, fresh.models, dirs_exist_ok=True)
    (fresh.models / "encoder_scratch-official-0.2-s0").touch()
    arguments = ["--models", "encoder_scratch", "--protocols", "pooled", "official", "--shares", "0.2", "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for name, value in command(place=fresh, arguments=[], TQDM_DISABLE="1")["env"].items():
        monkeypatch.setenv(name, value)
    datasets.simulated.cache_clear()
    with (
        dask.config.set({"scheduler-address": scheduler_address}),
        pytest.raises(SystemExit, match=r"1 runs failed.* encoder_scratch-official-0.2-s0"),
    ):
        sweep.main()
    assert re.search("encoder_scratch-official-0.2-s0: NotADirectoryError", capsys.readouterr().err)
    assert (fresh.models / "encoder_scratch-pooled-0.2-s0" / "run.json").exists()
    assert not (fresh.results / "sweep.csv").exists()
