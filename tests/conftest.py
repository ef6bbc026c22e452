"""Fixtures that several test files share: small simulated sets, the measured ones where they are at hand, folders."""

import dataclasses
import shutil
import socket
import subprocess
from pathlib import Path

import hypothesis
import pandas as pd
import pytest

from lib import paths
from lib.data import datasets, loaders, protocols, simulate, sources
from lib.models import training, unified
from lib.models.choosing import Choice
from lib.use import convert
from lib.use.localizer import Localizer

hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("tests")

# Which fixtures of measured data can be had: every file of one of the environment's releases is in a folder.
MEASURED = {
    fixture: all(map(sources.find, sources.files_of(environment)))
    for fixture, environment in {
        "measured_campus": "ujiindoorloc",
        "measured_city": "lorawan_antwerp",
        "measured_sigfox": "sigfox_rural",
        "measured_library": "uji_library",
        "measured_months": "uji_library_longterm",
        "measured_tampere": "tut1",
        "measured_offices": "cetc331",
    }.items()
}


def pytest_collection_modifyitems(config, items):
    """Leaves out the tests of measured data whose files are nowhere: there is nothing to run them on.

    Of the others, those that run notebooks come first, one file in each process: they take longest.
    """
    items.sort(key=lambda item: item.path.name not in ("test_notebooks.py", "test_notebooks_of_use.py"))
    absent = {name for name, found in MEASURED.items() if not found}
    left_out = [item for item in items if absent.intersection(item.fixturenames)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def campus():
    """600 training and 200 validation scans of the simulated campus."""
    return simulate.campus(600, 200)


@pytest.fixture(scope="session")
def city():
    """1,500 messages of the simulated city."""
    return simulate.city(1500)


@pytest.fixture(scope="session")
def indoor(campus):
    """The campus under its official protocol."""
    return protocols.official(campus)


@pytest.fixture(scope="session")
def outdoor(city):
    """The city with random rows for tests."""
    return protocols.random(city)


@pytest.fixture(scope="session")
def measured_campus():
    return loaders.load_ujiindoorloc()


@pytest.fixture(scope="session")
def measured_city():
    return loaders.load_lorawan_antwerp()


@pytest.fixture(scope="session")
def measured_sigfox():
    return loaders.load_sigfox_rural()


@pytest.fixture(scope="session")
def measured_library():
    return loaders.load_uji_library()


@pytest.fixture(scope="session")
def measured_months():
    """The library over 25 months: it takes seconds to load."""
    return loaders.load_uji_library_longterm()


@pytest.fixture(scope="session")
def measured_tampere():
    """The three sets of Tampere, by name."""
    return {name: loaders.load_tampere(name) for name in ("tut1", "tut2", "tut5")}


@pytest.fixture(scope="session")
def measured_offices():
    """The two sets of SODIndoorLoc, by name."""
    return {name: loaders.load_sodindoorloc(name) for name in ("cetc331", "hcxy")}


def _at_hand(*fixtures):
    """Those whose files were found; the measured ones, which are large, are for the slow tests."""
    chosen = []
    for name in fixtures:
        if MEASURED.get(name, True):
            chosen.append(pytest.param(name, marks=[pytest.mark.slow] if name in MEASURED else []))
    return chosen


@pytest.fixture(scope="session", params=_at_hand("campus", "measured_campus"))
def indoors(request):
    """The simulated campus, and the measured one where its files were found."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session", params=_at_hand("city", "measured_city"))
def outdoors(request):
    """The simulated city, and the measured one where its file was found."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session", params=_at_hand("campus", "measured_campus", "city", "measured_city"))
def fingerprints(request):
    """Every set there is."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def apart():
    """What a localizer is fitted on, and what it is asked about: scans of a campus and messages in a city."""
    campus = simulate.campus(2500, 1, n_access_points=80)
    learnt, asked = [], []
    for fingerprints in (campus[campus.part == "train"], simulate.city(2500, n_gateways=40)):
        kept, held_out = protocols.held_out(fingerprints, 0.3)
        learnt.append(kept)
        asked.append(held_out)
    return learnt, asked


@pytest.fixture(scope="session")
def localizer(apart):
    """A small one of both environments."""
    learnt, _ = apart
    return Localizer.of(learnt, hold_out="rows", epochs=4, batch_size=64, network={"hidden": (64, 64)})


@pytest.fixture(scope="session")
def saved_localizer(localizer, tmp_path_factory):
    """The folder of a localizer; nothing may be changed in it."""
    folder = tmp_path_factory.mktemp("saved") / "localizer"
    localizer.save(folder)
    return folder


@pytest.fixture
def quick_fit(monkeypatch):
    """Stands for `training.fit` where only what is done with its result matters; it moves each weight by 0.25.

    Nor does the unified network choose, which takes as long.
    """

    def fit(model, train, validation, *, epochs, **settings):
        model.set_weights([weight + 0.25 for weight in model.get_weights()])
        values = dict.fromkeys(("loss", "rmse", "val_loss", "val_rmse"), 1 / 3)
        return pd.DataFrame([{"epoch": epoch + 1} | values for epoch in range(epochs)])

    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(unified, "choose", lambda rows, hold_out: Choice())


@pytest.fixture
def untrained(monkeypatch):
    """Leaves networks with their first weights and nothing chosen, where only what is around the training matters."""
    monkeypatch.setattr(unified, "choose", lambda rows, hold_out: Choice())
    monkeypatch.setattr(training, "fit", lambda *parts, **settings: pd.DataFrame({"epoch": [1]}))


@pytest.fixture
def without_onnx(monkeypatch):
    """Saves localizers with an empty file in the place of the one for ONNX Runtime, which takes seconds to make."""
    monkeypatch.setattr(convert, "write", lambda model, path: Path(path).write_bytes(b""))


@pytest.fixture
def workspace(tmp_path):
    return paths.Workspace(tmp_path / "outputs")


@pytest.fixture
def data_folders(tmp_path, monkeypatch):
    """Three empty folders in the place of `data/raw`, `$FINGERPRINT_DATA` and the shared one, in that order.

    No publisher answers: a test must not depend on the network, nor load it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/file"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for key, source in sources.REGISTRY.items():
        monkeypatch.setitem(sources.REGISTRY, key, dataclasses.replace(source, url=source.url and nobody))
    root = tmp_path / "repository"
    folders = [root / "data" / "raw", tmp_path / "named", tmp_path / "shared" / "data"]
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setattr(paths, "RAW", folders[0])
    monkeypatch.setenv("FINGERPRINT_DATA", str(folders[1]))
    monkeypatch.delenv("DATA", raising=False)
    monkeypatch.delenv("LORAWAN", raising=False)
    datasets.simulated.cache_clear()
    yield folders
    datasets.simulated.cache_clear()


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A copy of the repository, times of change included: for tests that run make."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (paths.ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(paths.ROOT / name, folder / name)
    return folder
