"""The notebooks that the benchmark does not need run on the simulator, too: at the same time as those of the benchmark.

Models that they would load from those are trained here.
"""

from tests.running import NOTEBOOKS, OF_BENCHMARK, PROFILES, SEARCHES, prepared, run_nbval


def test_nbval_runs_the_other_notebooks_on_the_simulator(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    chosen = [path for path in prepared(folder, PROFILES["smoke"]) if path.stem[:2] not in OF_BENCHMARK + SEARCHES]
    assert len(chosen) == len(NOTEBOOKS) - len(OF_BENCHMARK) - 2
    finished = run_nbval(chosen, tmp_path / "outputs")
    assert finished.returncode == 0, finished.stdout[-8000:]
    made = tmp_path / "outputs" / "smoke" / "simulated"
    for name in ("coverage.png", "stress_coverage.png", "environments.png"):
        assert (made / "figures" / name).exists(), name
    for name in ("coverage.csv", "stress.csv", "environments.csv"):
        assert (made / "results" / name).exists(), name
