"""The localizer: what goes in as dBm comes out as a position with a radius that holds, also after a save and a load."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import protocols, simulate
from lib.data.fingerprints import Scans, in_common, joined
from lib.data.frames import Frame
from lib.models.unified import Unified
from lib.use import localizer as module
from lib.use import runtime
from lib.use.conformal import Calibration
from lib.use.localizer import Localizer
from lib.use.runtime import DESCRIPTION, KERAS_FILE, ONNX_FILE

TINY = {"folds": 2, "epochs": 1, "batch_size": 64, "network": {"hidden": (8,)}}
NUMBERS = ["x", "y", "latitude", "longitude", "radius_50", "radius_90"]


def wide(fingerprints, rows=slice(None)):
    return pd.DataFrame(fingerprints.rssi[rows], columns=list(fingerprints.transmitters))


@pytest.fixture(scope="module")
def asked(apart):
    """Scans of both environments in one table, 40 of each, and the true environment of each."""
    tables = [wide(fingerprints, slice(40)) for fingerprints in apart[1]]
    names = [fingerprints.name for fingerprints in apart[1]]
    return pd.concat(tables, ignore_index=True), np.repeat(names, 40)


# === Of a network ===


@pytest.fixture(scope="module")
def fitted_network(campus, tmp_path_factory):
    """A unified network read from its files, and what it learnt."""
    survey = campus[:300]
    folder = tmp_path_factory.mktemp("network")
    Unified(**TINY).fit([survey], [survey[:0]], seed=0).save(folder)
    return Unified.load(folder), survey


def test_a_localizer_of_a_fitted_network_is_calibrated_as_one_that_was_fitted(fitted_network, campus):
    network, survey = fitted_network
    localizer = Localizer.of_network(network, [survey], seed=0)
    fitted = Localizer.of([survey], **TINY)
    asked = campus[300:400]
    assert np.array_equal(localizer.held_out[0].rows.position, fitted.held_out[0].rows.position)
    measured, expected = localizer.evaluate(asked), fitted.evaluate(asked)
    assert measured.pop("environment") == expected.pop("environment")
    assert measured == pytest.approx(expected, rel=0.02, abs=0.02)


def test_a_localizer_of_a_network_refuses_other_surveys(fitted_network, campus):
    network, survey = fitted_network
    with pytest.raises(ValueError, match=r"as many rows as were learnt: \{'\w+': 300\}. Received: \{'\w+': 200\}"):
        Localizer.of_network(network, [survey[:200]], seed=0)


# === Locate ===


def test_each_scan_gets_a_row_with_what_its_environment_has(localizer, asked):
    table, environment = asked
    found = localizer.locate(table)
    assert list(found.columns) == ["located", "environment", "building", "floor", *NUMBERS, "heard", "unknown"]
    levels = table[list(localizer.transmitters)]
    assert (found["located"] == levels.notna().any(axis=1)).all()
    assert (found["heard"] == levels.notna().sum(axis=1)).all()
    located = found[found["located"]]
    assert (located["environment"] == environment[found["located"]]).mean() > 0.95
    assert located[NUMBERS].notna().all(axis=None)
    assert (located["radius_50"] <= located["radius_90"]).all()
    indoors = located["environment"] == "ujiindoorloc"
    assert located.loc[indoors, ["building", "floor"]].notna().all(axis=None)
    assert located.loc[~indoors, ["building", "floor"]].isna().all(axis=None)
    for known in localizer.environments:
        here = located[located["environment"] == known.name]
        degrees = known.frame.to_degrees(here[["x", "y"]].to_numpy())
        np.testing.assert_allclose(degrees, here[["latitude", "longitude"]], atol=1e-12)


def test_what_hears_nothing_known_is_nowhere(localizer):
    nothing = [{}, {"a stranger": -50}, dict.fromkeys(localizer.transmitters), {"a stranger": -200, "other": "text"}]
    found = localizer.locate(nothing)
    assert not found["located"].any() and found["heard"].sum() == 0 and found["unknown"].tolist() == [0, 1, 0, 0]
    assert found.drop(columns=["located", "heard", "unknown"]).isna().all(axis=None)
    assert len(localizer.locate([])) == 0


def test_it_is_an_estimator_that_locates_as_the_table_says(localizer, apart):
    scans = in_common([fingerprints.scans[:40] for fingerprints in apart[1]])
    table = localizer.locate(pd.DataFrame(scans.rssi, columns=list(scans.transmitters)))
    rows = table["located"].to_numpy()
    located = localizer.predict(scans)
    names = np.array([known.name for known in localizer.environments])
    assert table.loc[rows, "environment"].tolist() == names[located.environment[rows]].tolist()
    np.testing.assert_allclose(located.position[rows], table.loc[rows, ["x", "y"]], atol=1e-2)
    assert np.isfinite(located.position).all() and (located.spread >= 0).all()


def test_the_columns_of_scans_are_told_by_name(localizer, apart):
    scans = apart[1][0].scans[:40]
    order = np.random.default_rng(0).permutation(len(scans.transmitters))
    names = [scans.transmitters[column] for column in order]
    shuffled = Scans(scans.rssi[:, order], tuple(names))
    np.testing.assert_array_equal(localizer.predict(shuffled).position, localizer.predict(scans).position)


@settings(max_examples=8)
@given(st.data())
def test_equal_scans_in_any_form_have_equal_positions(localizer, data):
    levels = st.dictionaries(st.sampled_from([*localizer.transmitters, "other"]), st.integers(-127, -40), max_size=8)
    given_scans = data.draw(st.lists(levels, min_size=1, max_size=5))
    order = data.draw(st.permutations(sorted({name for scan in given_scans for name in scan})))
    expected = localizer.locate(given_scans)
    table = pd.DataFrame(given_scans, columns=order)
    pd.testing.assert_frame_equal(localizer.locate(table), expected)
    pd.testing.assert_frame_equal(localizer.locate(table.fillna(100), not_heard=[100]), expected)
    long = [(n, *heard) for n, scan in enumerate(given_scans) for heard in scan.items() or [("other", np.nan)]]
    found = localizer.locate(pd.DataFrame(long, columns=["scan", "transmitter", "rssi"]))
    pd.testing.assert_frame_equal(found, expected, check_index_type=False)


@settings(max_examples=10)
@given(st.data())
def test_an_impossible_value_never_has_a_position(localizer, data):
    value = data.draw(st.one_of(st.integers(1), st.just(-200), st.text(), st.just(np.inf), st.booleans()))
    name = data.draw(st.sampled_from(localizer.transmitters))
    with pytest.raises(ValueError, match=f"scan 1, transmitter {name}: expected RSSI"):
        localizer.locate([{}, {name: value}])


@pytest.mark.parametrize("level", [0, 1, -0.5, 90, float("nan")])
def test_levels_are_shares(localizer, level):
    with pytest.raises(ValueError, match=f"`levels` must be between 0 and 1. Received: {level}"):
        localizer.locate([], levels=(0.5, level))


# === How good ===


@pytest.mark.parametrize("number", [0, 1])
def test_radii_hold_what_they_say_on_rows_that_took_no_part(localizer, apart, number):
    found = localizer.evaluate(apart[1][number], levels=(0.5, 0.8, 0.9))
    assert found["environment_hit"] == pytest.approx(found["located"], abs=0.05) and found["located"] > 0.85
    counts = found["rows"], localizer.environments[number].calibration.rows
    for level in (0.5, 0.8, 0.9):
        by_chance = np.sqrt(level * (1 - level) * sum(1 / count for count in counts))  # standard deviation
        assert found[f"coverage_{100 * level:g}"] == pytest.approx(level, abs=3 * by_chance), level
    assert found["radius_50"] < found["radius_80"] < found["radius_90"]
    centre = apart[0][number].position.mean(axis=0)
    assert found["mean_m"] < np.hypot(*(apart[1][number].position - centre).T).mean()


def test_evaluation_is_of_the_predictions(localizer, apart):
    asked = apart[1][0][:50]
    table, found = localizer.locate(wide(asked)), localizer.evaluate(asked)
    hit = (table["environment"] == asked.name).fillna(False).to_numpy(dtype=bool)
    error = np.hypot(*(table[["x", "y"]].to_numpy() - asked.position)[hit].T)
    assert found["mean_m"] == pytest.approx(error.mean()) and found["rows"] == 50
    assert found["floor_hit"] == pytest.approx((table["floor"][hit] == asked.floor[hit]).mean())


def test_evaluation_takes_positions_in_another_frame(localizer, apart):
    asked = apart[1][1]
    frame = Frame.around(51.0, 4.5)
    moved = dataclasses.replace(asked, frame=frame, position=frame.from_degrees(asked.frame.to_degrees(asked.position)))
    assert localizer.evaluate(moved)["mean_m"] == pytest.approx(localizer.evaluate(asked)["mean_m"], rel=1e-6)
    with pytest.raises(ValueError, match="cannot be compared"):
        localizer.evaluate(dataclasses.replace(asked, frame=Frame(None)))


def test_evaluation_of_an_unknown_environment_names_the_known(localizer, apart):
    with pytest.raises(ValueError, match=r"must be one of ujiindoorloc, lorawan_antwerp\. Received: office"):
        localizer.evaluate(dataclasses.replace(apart[1][0], name="office"))


def test_evaluation_of_rows_that_are_nowhere_has_no_errors(localizer, apart):
    deaf = dataclasses.replace(apart[1][0][:5], rssi=np.full_like(apart[1][0].rssi[:5], np.nan))
    found = localizer.evaluate(deaf)
    assert found["located"] == 0 and np.isnan([found["mean_m"], found["coverage_90"], found["radius_90"]]).all()


# === Conformal radii ===


@given(st.integers(1, 3000), st.floats(0.01, 0.99))
def test_radius_is_the_finite_sample_quantile(n, level):
    error = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    made = Calibration.of(error, np.zeros(n), scale=1.0)
    rank = np.ceil((n + 1) * level - 1e-9)
    (radius,) = made.radius(np.zeros(1), level)
    if rank > n:
        assert radius == np.inf
    else:
        assert rank <= radius <= rank + n / 999 and len(made.score) <= 1000


def test_rows_in_the_wrong_environment_count_as_infinitely_far():
    made = Calibration.of(np.array([1.0, 2.0, 3.0, np.inf]), np.zeros(4), scale=1.0)
    assert made.radius(np.zeros(1), 0.6)[0] == 3.0 and made.radius(np.zeros(1), 0.7)[0] == np.inf
    assert Calibration.of(np.array([]), np.array([]), 1.0).radius(np.zeros(1), 0.5)[0] == np.inf


# === Fit ===


@pytest.fixture(scope="module")
def office():
    """400 scans in two buildings, metres of an own plane far from its origin."""
    made = simulate.campus(400, 1, n_access_points=30)
    position = made.position + np.array([500_000, 5_600_000])
    return dataclasses.replace(made, name="office", frame=Frame(None), position=position)


@pytest.fixture(scope="module")
def positions(office, fitted_on_office):
    """Where a localizer of the office, fitted with seed 1, places its scans."""
    return fitted_on_office.locate(wide(office))


def test_metres_of_an_own_plane_come_back_without_degrees(office, positions):
    inside = positions[positions["located"]]
    assert (inside[["x", "y"]] > office.position.min(axis=0) - 1).all(axis=None)
    assert (inside[["x", "y"]] < office.position.max(axis=0) + 1).all(axis=None)
    assert positions[["latitude", "longitude"]].isna().all(axis=None)


def test_basements_are_floors(office, quick_fit):
    deep = dataclasses.replace(office, floor=np.full(len(office), -1))
    found = Localizer.of([deep], **TINY).locate(wide(office))
    assert (found["floor"][found["located"]] == -1).all()


def test_a_row_without_a_fix_takes_no_digits_from_the_others(apart):
    city = apart[0][1]
    without_fix = city.frame.from_degrees([[0.0, 0.0]])
    far = dataclasses.replace(city[:1], position=without_fix)
    disturbed = joined(city, far)
    assert module._corner(disturbed) == module._corner(city)


def test_the_same_seed_gives_the_same_localizer(office, positions):
    same = Localizer.of([office], 1, **TINY).locate(wide(office))
    pd.testing.assert_frame_equal(positions, same)
    different = Localizer.of([office], 2, **TINY).locate(wide(office))
    assert (positions["x"] != different["x"]).any()


@pytest.fixture(scope="module")
def fitted_on_office(office):
    """A localizer of the office, with seed 1."""
    return Localizer.of([office], 1, **TINY)


def audible(fingerprints):
    """The rows that hear something."""
    return fingerprints[fingerprints.heard.any(axis=1)]


def test_all_rows_are_learnt_and_stored(office, quick_fit):
    fitted = Localizer.of([office], environments=[{"neighbours": {"share": 0.5}}], **TINY)
    rows = audible(office)
    assert fitted.n_train == [fitted.environments[0].learning_rows] == [len(rows)]
    (votes,) = [layer for layer in fitted.model.layers if layer.name.startswith("neighbours")]
    assert votes.stored.shape[1] == len(rows)
    assert list(fitted.curves["epoch"]) == [1]


def test_validation_rows_are_learnt_like_the_others(office, fitted_on_office):
    train, validation = protocols.held_out(office, 0.25)
    fitted = Localizer(**TINY).fit([train], [validation], seed=1)
    assert fitted.n_train == fitted_on_office.n_train
    assert fitted.environments[0].calibration.rows == len(audible(office))


@pytest.mark.parametrize("hold_out", ["rows", "positions", "areas"])
def test_every_row_is_held_out_once(office, quick_fit, hold_out):
    fitted = Localizer.of([office], hold_out=hold_out, **TINY)
    (held_out,) = fitted.held_out
    rows = audible(office)
    numbers = np.sort(fitted.unified.held_out[0].rows)
    assert numbers.tolist() == list(range(len(rows)))
    assert set(held_out.fold) == {0, 1}
    assert fitted.held_out_by == [hold_out]
    assert fitted.environments[0].calibration == held_out.calibration()
    assert fitted.environments[0].calibration.rows == len(rows)


def test_rows_of_one_device_are_held_out_together(office, quick_fit):
    fitted = Localizer.of([office], hold_out="devices", **TINY)
    (held_out,) = fitted.held_out
    devices_and_folds = set(zip(held_out.rows.group, held_out.fold, strict=True))
    assert len(devices_and_folds) == len(set(held_out.rows.group))
    assert fitted.n_train == [len(audible(office))]


def test_each_environment_is_held_out_in_its_own_way(office, quick_fit):
    town = dataclasses.replace(simulate.city(400, n_gateways=30), group=None)
    fitted = Localizer.of([office, town], hold_out=["devices", "areas"], environments=[{}, {"area": 800.0}], **TINY)
    assert fitted.held_out_by == ["devices", "areas"]
    environments = [{"hold_out": "devices"}, {"hold_out": "areas", "area": 800.0}]
    assert fitted.provenance["settings"]["environments"] == environments


def test_the_radius_of_a_row_comes_from_rows_of_other_folds(fitted_on_office):
    (held_out,) = fitted_on_office.held_out
    fold = held_out.fold[0]
    own = held_out.fold == fold
    before = held_out.radius(0.9)
    error = np.where(own, 1000 * held_out.error, held_out.error)
    after = dataclasses.replace(held_out, error=error).radius(0.9)
    np.testing.assert_array_equal(after[own], before[own])
    assert (after[~own] > before[~own]).all()
    others = held_out.calibration(~own)
    assert others.rows == (~own).sum()
    np.testing.assert_array_equal(before[own], others.radius(held_out.located.spread[own].astype(float), 0.9))


def test_reported_radii_hold_what_they_say_on_held_out_rows(localizer):
    for held_out in localizer.held_out:
        for level in (0.5, 0.9):
            within = held_out.error <= held_out.radius(level)
            by_chance = np.sqrt(level * (1 - level) / len(held_out.rows))
            assert within.mean() == pytest.approx(level, abs=4 * by_chance)


def test_another_seed_holds_out_other_rows_together(office, fitted_on_office, quick_fit):
    drawn = []
    for fitted in (fitted_on_office, Localizer.of([office], 2, **TINY)):
        told = fitted.unified.held_out[0]
        in_order = np.argsort(told.rows)
        drawn.append(told.fold[in_order].tolist())
    assert drawn[0] != drawn[1]


def test_what_only_one_row_hears_is_an_input(office, quick_fit):
    extra = np.full(len(office), np.nan, dtype=np.float32)
    extra[7] = -55.0
    rssi = np.column_stack([office.rssi, extra])
    made = dataclasses.replace(office, rssi=rssi, transmitters=(*office.transmitters, "heard once"))
    fitted = Localizer.of([made], **TINY)
    assert set(fitted.transmitters) == set(np.array(made.transmitters)[made.heard.any(axis=0)])
    assert fitted.model.input_shape == (None, len(fitted.transmitters))
    assert fitted.locate([{"heard once": -55}])["located"].all()


def test_a_transmitter_of_two_environments_is_one_input(office, quick_fit):
    half = office.building == 0
    first, second = dataclasses.replace(office[half], name="one"), dataclasses.replace(office[~half], name="two")
    both = Localizer.of([first, second], **TINY)
    assert len(set(both.transmitters)) == len(both.transmitters) == both.model.input_shape[1]
    assert set(both.locate(wide(office))["environment"].dropna()) <= {"one", "two"}


def test_a_transmitter_that_no_row_hears_is_not_known(office, quick_fit):
    extra = np.column_stack([office.rssi, np.full(len(office), np.nan, dtype=np.float32)])
    made = dataclasses.replace(office, rssi=extra, transmitters=(*office.transmitters, "silent"))
    fitted = Localizer.of([made], **TINY)
    assert "silent" not in fitted.transmitters
    assert fitted.locate([{"silent": -50}])[["located", "unknown"]].to_numpy().tolist() == [[False, 1]]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda office: [], {}, "must have a set of each environment, in the same order. Received: none"),
        (lambda office: [office, office], {}, "different names. Received: office, office"),
        (lambda office: [audible(office)[:1]], {"hold_out": "rows"}, "expected rows at two places or more"),
        (
            lambda office: [office],
            {"hold_out": "phones"},
            "`hold_out` must be one of positions, rows, devices, areas. Received: phones",
        ),
        (
            lambda office: [dataclasses.replace(office, group=None)],
            {"hold_out": "devices"},
            r"rows must name theirs \(column `device`\)",
        ),
        (
            lambda office: [office[office.group == office.group[0]]],
            {"hold_out": "devices"},
            "expected two devices or more",
        ),
        (
            lambda office: [office],
            {"hold_out": ["devices", "rows"]},
            r"`hold_out` must be one value or 1, one for each environment. Received: \['devices', 'rows'\]",
        ),
        (lambda office: [office], {"hold_out": []}, "`hold_out` must be one value or 1"),
        (lambda office: [office], {"folds": 1}, "`folds` must be at least 2, to calibrate. Received: 1"),
        (
            lambda office: [office],
            {"head": "distance"},
            "`head` must be places, which tells its spread. Received",
        ),
        (
            lambda office: [dataclasses.replace(office, rssi=np.full_like(office.rssi, np.nan))],
            {},
            "none of which does",
        ),
        (
            lambda office: [dataclasses.replace(office, transmitters=("a",) * len(office.transmitters))],
            {},
            "`transmitters` must differ",
        ),
    ],
)
def test_what_cannot_be_fitted_is_said(office, change, arguments, message):
    with pytest.raises(ValueError, match=message):
        Localizer.of(change(office), **TINY | arguments)


def at_one_place(fingerprints, **fields):
    """The same scans, all of them taken where the first one was."""
    for name in ("building", "floor", "position"):
        fields[name] = np.repeat(getattr(fingerprints, name)[:1], len(fingerprints), axis=0)
    return dataclasses.replace(fingerprints, **fields)


def test_of_rows_at_one_place_there_is_nothing_to_tell(office):
    message = r"office: expected rows at two places or more, to tell apart. Received: all \d+ rows at one place"
    with pytest.raises(ValueError, match=message):
        Localizer.of([at_one_place(office)], **TINY)


@pytest.mark.filterwarnings("error::UserWarning")
def test_an_environment_of_one_place_is_told_from_others(office, apart):
    kiosk = at_one_place(apart[0][0][:200], name="kiosk")
    kiosk = dataclasses.replace(kiosk, transmitters=tuple(f"kiosk {name}" for name in kiosk.transmitters))
    fitted = Localizer.of([office, kiosk], **TINY)
    found = fitted.locate(wide(kiosk))
    found = found[found["located"]]
    assert (found["environment"] == "kiosk").all()
    np.testing.assert_allclose(found[["x", "y"]], kiosk.position[: len(found)], atol=1e-2)


def test_held_out_rows_are_no_copies_of_the_others(campus):
    kept, held_out = protocols.held_out(campus, 0.1)
    assert len(held_out) == pytest.approx(len(campus) / 10, rel=0.2)
    values = []
    for rows in (kept, held_out):
        numbers = np.nan_to_num(np.column_stack([rows.rssi, rows.position]))
        values.append({number.tobytes() for number in numbers})
    assert not values[0] & values[1]


# === Save and load ===


@pytest.fixture
def saved(saved_localizer, tmp_path):
    """A copy of a saved localizer, to be spoilt."""
    return shutil.copytree(saved_localizer, tmp_path / "localizer")


def test_a_loaded_localizer_says_the_same(localizer, saved, asked):
    loaded = Localizer.load(saved)
    before, after = localizer.locate(asked[0]), loaded.locate(asked[0])
    np.testing.assert_allclose(after[NUMBERS], before[NUMBERS], rtol=0, atol=1e-5)
    pd.testing.assert_frame_equal(after.drop(columns=NUMBERS), before.drop(columns=NUMBERS))
    assert loaded.environments == localizer.environments and loaded.provenance == localizer.provenance
    assert loaded.transmitters == localizer.transmitters and loaded.n_train == localizer.n_train
    assert {path.name for path in saved.iterdir()} == {KERAS_FILE, ONNX_FILE, DESCRIPTION}


def test_localizers_of_earlier_releases_locate_as_they_did():
    folder = Path(__file__).with_name("version_1")  # written by an earlier release, with what it then located
    localizer = Localizer.load(folder)
    located = localizer.locate(pd.read_csv(folder / "scans.csv"))
    expected = pd.read_csv(folder / "positions.csv", index_col="scan", dtype={"building": "Int64", "floor": "Int64"})
    np.testing.assert_allclose(located[NUMBERS], expected[NUMBERS], rtol=1e-6)
    for name in ("located", "environment", "building", "floor", "heard", "unknown"):
        assert located[name].fillna(-1).tolist() == expected[name].fillna(-1).tolist(), name


def test_its_description_says_where_it_comes_from(saved, apart):
    description = json.loads((saved / DESCRIPTION).read_text())
    rows = [environment["release"]["rows"] for environment in description["environments"]]
    assert rows == [fingerprints.release.rows for fingerprints in apart[0]]
    assert description["provenance"]["versions"]["keras"] == keras.__version__
    assert description["provenance"]["settings"]["network"] == {"hidden": [64, 64]}


def test_every_flipped_byte_of_the_description_is_noticed(saved):
    content = (saved / DESCRIPTION).read_bytes()
    for position in np.random.default_rng(0).choice(len(content), 40, replace=False):
        spoilt = bytearray(content)
        spoilt[position] ^= 1
        (saved / DESCRIPTION).write_bytes(spoilt)
        try:
            same = json.loads(spoilt) == json.loads(content)
        except ValueError:
            same = False
        if not same:
            with pytest.raises(ValueError, match="localizer"):
                Localizer.load(saved)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "holds no localizer"),
        (lambda folder: (folder / KERAS_FILE).unlink(), "holds no localizer"),
        (lambda folder: (folder / DESCRIPTION).unlink(), "holds no localizer"),
        (lambda folder: (folder / DESCRIPTION).write_text("{"), "holds no localizer"),
        (lambda folder: (folder / DESCRIPTION).write_text("[]"), "expected a description of the format"),
        (
            lambda folder: (folder / DESCRIPTION).write_text('{"format": "other"}'),
            "expected a description of the format",
        ),
        (
            lambda folder: (folder / DESCRIPTION).write_text(json.dumps({"format": runtime.FORMAT, "version": 2})),
            "expected version 1 of the format, found 2",
        ),
        (
            lambda folder: (folder / KERAS_FILE).write_bytes((folder / KERAS_FILE).read_bytes()[:-1]),
            r"model\.keras is damaged",
        ),
        (lambda folder: (folder / KERAS_FILE).write_bytes(b""), r"model\.keras is damaged"),
    ],
)
def test_what_is_no_whole_localizer_is_refused(saved, spoil, message):
    spoil(saved)
    with pytest.raises(ValueError, match=message):
        Localizer.load(saved)


def test_a_network_that_this_keras_cannot_read_is_refused_with_both_versions(saved):
    description = json.loads((saved / DESCRIPTION).read_text())
    (saved / KERAS_FILE).write_bytes(b"of another time")
    del description["sha256"]
    description["provenance"]["versions"]["keras"] = "9.9"
    description["model_sha256"] = hashlib.sha256(b"of another time").hexdigest()
    (saved / DESCRIPTION).write_text(json.dumps(description | {"sha256": runtime.checksum_of(description)}))
    with pytest.raises(ValueError, match=rf"written by Keras 9\.9; Keras {keras.__version__} cannot read it"):
        Localizer.load(saved)


def test_a_save_replaces_a_localizer_and_nothing_else(localizer, saved, tmp_path, without_onnx):
    before = (saved / DESCRIPTION).stat().st_ino
    localizer.save(saved)
    assert (saved / DESCRIPTION).stat().st_ino != before and [path.name for path in tmp_path.iterdir()] == ["localizer"]
    (saved / "notes.txt").write_text("mine")
    for other in (saved, saved / "notes.txt"):
        with pytest.raises(ValueError, match=r"is not replaced: notes\.txt"):
            localizer.save(other)
    assert (saved / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("there", [True, False])
def test_a_save_that_fails_leaves_what_was_there(localizer, tmp_path, monkeypatch, without_onnx, there):
    folder = tmp_path / "localizer"
    if there:
        localizer.save(folder)

    def fails(*arguments, **settings):
        raise OSError("disk full")

    monkeypatch.setattr(module.json, "dumps", fails)
    with pytest.raises(OSError, match="disk full"):
        localizer.save(folder)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["localizer"] * there
    if there:
        Localizer.load(folder)
