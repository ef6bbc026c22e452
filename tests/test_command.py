"""The command line, from a user's CSV to positions, and what it says when something is wrong."""

import contextlib
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import __main__ as command
from lib import paths
from lib.data import reading, simulate
from lib.data.loaders import LOADERS
from lib.models import training
from lib.use import convert
from lib.use.localizer import Localizer

SMALL = ("--epochs", "1", "--batch-size", "64", "--hidden", "8")


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command in this process; returns what it printed, or the message with which it ended."""

    def with_arguments(*arguments):
        monkeypatch.setattr(sys, "argv", ["lib", *map(str, arguments)])
        try:
            command.run()
        except SystemExit as end:
            said = capsys.readouterr()
            return said.err if end.code in (command.REFUSED, command.INTERRUPTED) else said.out

    return with_arguments


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Fingerprints of an office, with degrees, and of a town; scans of both in both forms."""
    folder = tmp_path_factory.mktemp("files")
    office, town = simulate.campus(300, 1, n_access_points=40), simulate.city(300, n_gateways=30)
    for name, made in {"office": office, "town": town}.items():
        reading.table_of(made).to_csv(folder / f"{name}.csv", index=False)
    wide = pd.concat([pd.DataFrame(made.rssi[:20], columns=made.transmitters) for made in (office, town)])
    wide.insert(0, "scan", [f"scan {number}" for number in range(len(wide))])
    wide.to_csv(folder / "wide.csv", index=False)
    wide.fillna(-200).to_csv(folder / "marked.csv", index=False)
    long = wide.melt("scan", var_name="transmitter", value_name="rssi")
    long.iloc[::-1].to_csv(folder / "long.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    """Fits a localizer in this process; returns its directory, what the command printed, and its progress.

    Untrained, it has its first weights, and no file for ONNX Runtime, which take seconds.
    """

    def of(*arguments, trained=True):
        directory = tmp_path_factory.mktemp("fitted") / "localizer"
        with (
            pytest.MonkeyPatch.context() as patched,
            contextlib.redirect_stdout(io.StringIO()) as printed,
            contextlib.redirect_stderr(io.StringIO()) as progress,
        ):
            if not trained:
                patched.setattr(training, "fit", lambda *parts, **settings: pd.DataFrame({"epoch": [1]}))
                patched.setattr(convert, "write", lambda model, path: Path(path).write_bytes(b""))
            patched.setattr(sys, "argv", ["lib", "fit", *arguments, "--output", str(directory), *SMALL])
            with pytest.raises(SystemExit) as end:
                command.run()
            assert end.value.code == 0
        return directory, printed.getvalue(), progress.getvalue()

    return of


@pytest.fixture(scope="module")
def sources(files):
    return [f"{name}={files / name}.csv" for name in ("office", "town")]


@pytest.fixture(scope="module")
def fitted(fit, sources):
    """A localizer that the command line fitted of office and town, as `fit` returns it."""
    return fit(*sources)


@pytest.fixture(scope="module")
def of_devices(fit, sources):
    """A localizer of the office alone, which held out whole devices."""
    return fit(sources[0], "--whole-devices", trained=False)


# === From files to positions ===


def test_fit_reports_on_rows_that_it_held_out(fitted):
    directory, printed, progress = fitted
    table = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.strip()}
    assert table["environment"] == ["office", "office", "town", "town"]
    assert table["model"] == ["localizer", "kNN"] * 2
    assert "of" not in table
    assert len(table["mean_m"]) == 4 and len(table["coverage_90"]) == 2 and len(table["floor_hit"]) == 1
    assert "mean (m)" in (directory / "card.md").read_text() and (directory / "map.png").stat().st_size > 1000
    assert "unified, 1 of 4" in progress
    environments = Localizer.load(directory).environments
    learnt = [str(environment.learning_rows) for environment in environments for _ in range(2)]
    assert table["rows"] == learnt
    assert [environment.name for environment in environments] == ["office", "town"]
    assert [environment.release.file for environment in environments] == ["office.csv", "town.csv"]


def test_fit_says_what_it_chose_and_what_the_alternatives_had(fitted):
    directory, printed, _ = fitted
    for name in ("office", "town"):
        (sentence,) = [line for line in printed.splitlines() if line.startswith(f"{name}: ")]
        metres = r"[\d,]+\.\d\d m"
        told = rf"network alone {metres}, votes of stored fingerprints alone {metres}(, together {metres})?"
        told += rf"; plain kNN {metres} \(mean errors of held-out rows\)\. Chosen: "
        assert re.match(f"{name}: {told}", sentence)
        assert f"- {sentence}\n" in (directory / "card.md").read_text()


def test_predict_is_the_same_for_scans_in_every_form(run, fitted, files, tmp_path):
    directory, *_ = fitted
    tables = {}
    for form in ("wide", "long"):
        run("predict", directory, files / f"{form}.csv", "--output", tmp_path / "found.csv")
        tables[form] = pd.read_csv(tmp_path / "found.csv", index_col="scan")
    run("predict", directory, files / "marked.csv", "--not-heard", "-200", "--output", tmp_path / "found.csv")
    tables["marked"] = pd.read_csv(tmp_path / "found.csv", index_col="scan")
    assert len(tables["wide"]) == 40 and tables["wide"]["located"].sum() > 20
    for form in ("long", "marked"):
        pd.testing.assert_frame_equal(tables[form].sort_index(), tables["wide"].sort_index())


def test_predict_prints_what_the_library_says(run, fitted, files, tmp_path):
    directory, *_ = fitted
    (tmp_path / "printed.csv").write_text(run("predict", directory, files / "wide.csv", "--levels", "0.75"))
    printed = pd.read_csv(tmp_path / "printed.csv", index_col="scan")
    expected = Localizer.load(directory).locate(pd.read_csv(files / "wide.csv"), levels=(0.75,))
    assert list(printed.columns) == list(expected.columns) and "radius_75" in printed
    np.testing.assert_allclose(printed["x"], expected["x"], atol=1e-3)


def test_predict_says_by_its_status_that_nothing_was_located(fitted, tmp_path):
    directory, *_ = fitted
    path = tmp_path / "elsewhere.csv"
    path.write_text("scan,bssid,rssi\n1,02:00:00:00:00:01,-50\n")
    finished = subprocess.run(
        [sys.executable, "-m", "lib", "predict", directory, path],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1 and finished.stdout.count("\n") == 2
    assert "0 of its 1 transmitters are known (02:00:00:00:00:01; known are" in finished.stderr


def test_options_come_before_and_after_the_files(run, fitted, files):
    directory, *_ = fitted
    marked = files / "marked.csv"
    first = run("predict", "--not-heard", "-200,-inf", "--quiet", directory, marked)
    last = run("predict", directory, marked, "--quiet", "--not-heard", "-inf", "--not-heard", "-200")
    assert first == last and first.count("\n") == 41


def test_evaluate_reports_on_a_file(run, fitted, files):
    directory, *_ = fitted
    printed = run("evaluate", directory, f"office={files / 'office.csv'}", f"town={files / 'town.csv'}")
    assert re.search(r"^rows +301 +300$", printed, flags=re.MULTILINE)
    assert "coverage_50" in printed


def test_the_name_of_the_only_environment_can_be_left_out(run, files, of_devices):
    directory, *_ = of_devices
    assert re.search(r"^environment +office$", run("evaluate", directory, files / "office.csv"), re.MULTILINE)


def test_whole_devices_can_be_held_out(of_devices):
    directory, printed, _ = of_devices
    assert re.search(r"^environment +office +office$", printed, re.MULTILINE)
    assert held_out_by(directory) == ["devices"]
    assert "all rows of its device" in (directory / "card.md").read_text()


def held_out_by(directory):
    """How the rows of each environment were held out, as a saved localizer tells."""
    return [own["hold_out"] for own in Localizer.load(directory).provenance["settings"]["environments"]]


def test_positions_are_held_out_unless_an_option_says_otherwise(fitted):
    directory, *_ = fitted
    assert held_out_by(directory) == ["positions", "positions"]


@pytest.mark.parametrize(("option", "hold_out"), [("--whole-areas", "areas"), ("--single-rows", "rows")])
def test_areas_and_single_rows_can_be_held_out(fit, sources, option, hold_out):
    directory, *_ = fit(sources[1], option, trained=False)
    assert held_out_by(directory) == [hold_out]


@pytest.mark.parametrize("name", ["fit", "predict", "evaluate", "export"])
def test_every_command_explains_itself(run, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lib", name, "--help"])
    with pytest.raises(SystemExit) as end:
        command.run()
    assert end.value.code == 0 and f"Usage: python -m lib {name}" in capsys.readouterr().out


def test_help_of_fit_names_the_public_data_sets(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lib", "fit", "--help"])
    with pytest.raises(SystemExit):
        command.run()
    words = re.split(r"[\s,.]+", capsys.readouterr().out.partition("Public data sets: ")[2])
    assert words[: len(LOADERS)] == list(LOADERS)


# === What goes wrong is one line ===


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "office", "--output", "{new}"], "expected NAME=file or one of ujiindoorloc, lorawan_antwerp"),
        (["fit", "office={files}/none.csv", "--output", "{new}"], "No such file or directory"),
        (["fit", "office={files}/wide.csv", "--output", "{new}"], r"wide\.csv: expected columns x, y or latitude"),
        (["fit", "a={files}/town.csv", "a={files}/town.csv", "--output", "{new}", *SMALL], "sets with different names"),
        (["fit", "office={files}/office.csv", "--output", "{files}"], "is not replaced"),
        (
            ["fit", "town={files}/town.csv", "--output", "{new}", "--whole-devices", *SMALL],
            r"town: to hold out devices, rows must name theirs \(column `device`\)",
        ),
        (["predict", "{new}", "{files}/wide.csv"], "holds no localizer"),
        (["predict", "{fitted}", "{files}/marked.csv"], "values are -200, as if that stood for .*--not-heard -200"),
        (["predict", "{fitted}", "{files}/wide.csv", "--levels", "90"], "`levels` must be between 0 and 1"),
        (["fit", "office={files}/office.csv", "--output", "{new}", "--levels", "0.5,1"], "`levels` must be between 0"),
        (["fit", "={files}/office.csv", "--output", "{new}"], "expected NAME=file"),
        (["fit", "office={files}/office.csv", "--output", "/proc/none/new"], "expected a place that can be written to"),
        (["predict", "{fitted}", "{files}/wide.csv", "--columns", "x=a,x=b"], "one name for each role. .* x=a, x=b"),
        (["predict", "{fitted}", "{files}/wide.csv", "--columns", "x"], "expected role=name.* See python -m lib"),
        (["predict", "{fitted}", "{files}/wide.csv", "--bogus"], "No such option.*--bogus"),
        (["predict", "{fitted}"], "Missing argument 'SCANS'"),
        (["evaluate", "{fitted}", "{files}/office.csv"], "expected NAME=file or one of"),
        (["evaluate", "{fitted}", "home={files}/office.csv"], "must be one of office, town. Received: home"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(run, files, fitted, tmp_path, arguments, message):
    places = {"files": files, "fitted": fitted[0], "new": tmp_path / "new"}
    said = run(*(argument.format(**places) for argument in arguments))
    *told, error = said.splitlines()
    assert re.match(f"error: .*{message}", error)
    assert all(line.startswith(str(files)) for line in told), "says what it read, and nothing else"
    assert not list(tmp_path.iterdir())


def test_a_process_says_it_without_a_traceback(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-m", "lib", "predict", tmp_path, "none.csv"],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2 and finished.stdout == ""
    assert finished.stderr.startswith("error: ") and finished.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_process_reports_the_same(fitted, sources, tmp_path):
    finished = subprocess.run(
        [sys.executable, "-m", "lib", "fit", *sources, "--output", tmp_path / "localizer", *SMALL],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    directory, printed, _ = fitted
    assert finished.stdout.replace(str(tmp_path / "localizer"), str(directory)) == printed
    assert "unified:" in finished.stderr


def test_a_fit_that_is_interrupted_leaves_no_localizer(run, files, tmp_path, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", interrupted)
    said = run("fit", f"town={files / 'town.csv'}", "--output", tmp_path / "localizer", *SMALL)
    assert said.splitlines()[-1] == "interrupted: nothing was written" and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_fit_that_is_killed_leaves_no_localizer(files, tmp_path):
    told, directory = tmp_path / "told", tmp_path / "localizer"
    arguments = ["fit", f"town={files / 'town.csv'}", "--output", directory, "--epochs", "100000", "--hidden", "8"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with (
        told.open("w") as screen,
        subprocess.Popen(
            [sys.executable, "-m", "lib", *arguments],
            cwd=paths.ROOT,
            env=os.environ | {"TMPDIR": str(scratch)},
            stderr=screen,
        ) as process,
    ):
        deadline = time.monotonic() + 120
        while "/100000" not in told.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.kill()
    assert "/100000" in told.read_text(), "it was killed before it trained"
    assert not directory.exists()
    with pytest.raises(ValueError, match="holds no localizer"):
        Localizer.load(directory)
