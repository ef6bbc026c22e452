"""The localizer: what goes in as dBm comes out as a position with a radius that holds, also after a save and a load."""

import dataclasses
import hashlib
import json
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import localizer as module
from lib import scans, simulate, splits
from lib.conformal import Calibration
from lib.fingerprints import Frame
from lib.localizer import ABOUT, MODEL, Localizer

TINY = {"epochs": 1, "batch_size": 64, "network": {"hidden": (8,)}}
NUMBERS = ["x", "y", "latitude", "longitude", "radius_50", "radius_90"]


def wide(fingerprints, rows=slice(None)):
    return pd.DataFrame(fingerprints.rssi[rows], columns=list(fingerprints.transmitters))


def as_dicts(table):
    return [row.dropna().to_dict() for _, row in table.iterrows()]


@pytest.fixture(scope="module")
def asked(apart):
    """Scans of both environments in one table, 40 of each, and the true environment of each."""
    tables = [wide(one, slice(40)) for one in apart[1]]
    return pd.concat(tables, ignore_index=True), np.repeat([one.name for one in apart[1]], 40)


# === Predict ===


def test_each_scan_gets_a_row_with_what_its_environment_has(localizer, asked):
    table, environment = asked
    found = localizer.predict(table)
    assert list(found.columns) == ["located", "environment", "building", "floor", *NUMBERS, "heard", "unknown"]
    known = table[list(localizer.transmitters)]
    assert (found["located"] == known.notna().any(axis=1)).all() and (found["heard"] == known.notna().sum(axis=1)).all()
    located = found[found["located"]]
    assert (located["environment"] == environment[found["located"]]).mean() > 0.95
    assert located[NUMBERS].notna().all(axis=None)
    assert (located["radius_50"] <= located["radius_90"]).all()
    indoors = located["environment"] == "ujiindoorloc"
    assert located.loc[indoors, ["building", "floor"]].notna().all(axis=None)
    assert located.loc[~indoors, ["building", "floor"]].isna().all(axis=None)
    for one in localizer.environments:
        here = located[located["environment"] == one.name]
        degrees = one.frame.to_degrees(here[["x", "y"]].to_numpy())
        np.testing.assert_allclose(degrees, here[["latitude", "longitude"]], atol=1e-12)


def test_what_hears_nothing_known_is_nowhere(localizer):
    nothing = [{}, {"a stranger": -50}, dict.fromkeys(localizer.transmitters), {"a stranger": -200, "other": "text"}]
    found = localizer.predict(nothing)
    assert not found["located"].any() and found["heard"].sum() == 0 and found["unknown"].tolist() == [0, 1, 0, 0]
    assert found.drop(columns=["located", "heard", "unknown"]).isna().all(axis=None)
    assert len(localizer.predict([])) == 0


@settings(max_examples=8)
@given(st.data())
def test_equal_scans_in_any_form_have_equal_positions(localizer, data):
    levels = st.dictionaries(st.sampled_from([*localizer.transmitters, "z"]), st.integers(-127, -40), max_size=8)
    given_scans = data.draw(st.lists(levels, min_size=1, max_size=5))
    order = data.draw(st.permutations(sorted({name for scan in given_scans for name in scan})))
    expected = localizer.predict(given_scans)
    table = pd.DataFrame(given_scans, columns=order)
    pd.testing.assert_frame_equal(localizer.predict(table), expected)
    pd.testing.assert_frame_equal(localizer.predict(table.fillna(100), not_heard=[100]), expected)
    long = [(n, *heard) for n, scan in enumerate(given_scans) for heard in scan.items() or [("z", np.nan)]]
    found = localizer.predict(pd.DataFrame(long, columns=list(scans.LONG)))
    pd.testing.assert_frame_equal(found, expected, check_index_type=False)


@settings(max_examples=10)
@given(st.data())
def test_an_impossible_value_never_has_a_position(localizer, data):
    value = data.draw(st.one_of(st.integers(1), st.just(-200), st.text(), st.just(np.inf), st.booleans()))
    name = data.draw(st.sampled_from(localizer.transmitters))
    with pytest.raises(ValueError, match=f"scan 1, transmitter {name}: expected RSSI"):
        localizer.predict([{}, {name: value}])


@pytest.mark.parametrize("level", [0, 1, -0.5, 90, float("nan")])
def test_levels_are_shares(localizer, level):
    with pytest.raises(ValueError, match=f"`levels` must be between 0 and 1. Received: {level}"):
        localizer.predict([], levels=(0.5, level))


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
    table, found = localizer.predict(wide(asked)), localizer.evaluate(asked)
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
    with pytest.raises(ValueError, match=r"must be of ujiindoorloc, lorawan_antwerp\. Received: office"):
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
def told(office):
    """What a localizer of the office, fitted with seed 1, says of its scans."""
    return Localizer.fit([office], 1, **TINY).predict(wide(office))


def test_metres_of_an_own_plane_come_back_without_degrees(office, told):
    inside = told[told["located"]]
    assert (inside[["x", "y"]] > office.position.min(axis=0) - 1).all(axis=None)
    assert (inside[["x", "y"]] < office.position.max(axis=0) + 1).all(axis=None)
    assert told[["latitude", "longitude"]].isna().all(axis=None)


def test_basements_are_floors(office, quick_fit):
    deep = dataclasses.replace(office, floor=np.full(len(office), -1))
    found = Localizer.fit([deep], **TINY).predict(wide(office))
    assert (found["floor"][found["located"]] == -1).all()


def test_the_same_seed_gives_the_same_localizer(office, told):
    same, other = (Localizer.fit([office], seed, **TINY).predict(wide(office)) for seed in (1, 2))
    pd.testing.assert_frame_equal(told, same)
    assert (told["x"] != other["x"]).any()


def test_another_seed_calibrates_on_other_rows(office, parts, quick_fit):
    drawn = []
    for seed in (0, 1, 1):
        Localizer.fit([office], seed, whole_groups=True, **TINY)
        drawn.append(set(parts["held_out"][0].group))
    assert drawn[0] != drawn[1] == drawn[2] and len(drawn[0]) == len(drawn[1])


def test_a_transmitter_of_two_environments_is_one_input(office, quick_fit):
    half = office.building == 0
    parts = [dataclasses.replace(office[rows], name=name) for name, rows in {"one": half, "two": ~half}.items()]
    both = Localizer.fit(parts, **TINY)
    assert len(set(both.transmitters)) == len(both.transmitters) == both.model.input_shape[1]
    assert set(both.predict(wide(office))["environment"].dropna()) <= {"one", "two"}


def test_a_transmitter_that_no_learning_row_hears_is_not_known(office, quick_fit):
    extra = np.column_stack([office.rssi, np.full(len(office), np.nan, dtype=np.float32)])
    made = dataclasses.replace(office, rssi=extra, transmitters=(*office.transmitters, "silent"))
    fitted = Localizer.fit([made], **TINY)
    assert "silent" not in fitted.transmitters
    assert fitted.predict([{"silent": -50}])[["located", "unknown"]].to_numpy().tolist() == [[False, 1]]


@pytest.fixture
def parts(monkeypatch):
    """The rows that the last fit learnt and held out, a list of sets each."""
    seen, train = {}, module.unified.train

    def seeing(learning, predicted, *arguments, **settings):
        seen.update(learning=learning, held_out=predicted)
        return train(learning, predicted, *arguments, **settings)

    monkeypatch.setattr(module.unified, "train", seeing)
    return seen


def test_whole_groups_can_calibrate(office, parts, quick_fit):
    Localizer.fit([office], whole_groups=True, **TINY)
    assert not set(parts["learning"][0].group) & set(parts["held_out"][0].group)
    Localizer.fit([office], **TINY)
    counts = [len(parts[name][0]) for name in ("held_out", "learning")]
    assert counts[0] / sum(counts) == pytest.approx(0.1, abs=0.03)
    assert set(parts["learning"][0].group) & set(parts["held_out"][0].group)


def test_each_environment_can_be_calibrated_in_its_own_way(office, parts, quick_fit):
    town = dataclasses.replace(simulate.city(400, n_gateways=30), group=None)
    made = Localizer.fit([office, town], calibration=[0.5, 0.1], whole_groups=[True, False], **TINY)
    learning, held_out = (set(parts[name][0].group) for name in ("learning", "held_out"))
    assert not learning & held_out
    assert len(held_out) == np.ceil(len(learning | held_out) / 2)
    counts = [len(parts[name][1]) for name in ("held_out", "learning")]
    assert counts[0] / sum(counts) == pytest.approx(0.1, abs=0.03)
    assert made.environments[1].calibration.rows == counts[0]
    how = {"calibration": [0.5, 0.1], "whole_groups": [True, False]}
    assert how.items() <= made.provenance["settings"].items()


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda one: [], {}, "`environments` must be sets with different names. Received: none"),
        (lambda one: [one, one], {}, "different names. Received: office, office"),
        (lambda one: [one[:1]], {}, "expected two different scans or more, to hold some out. Received: 1"),
        (lambda one: [one], {"calibration": 0}, "must be between 0 and 1. Received: 0"),
        (lambda one: [dataclasses.replace(one, group=None)], {"whole_groups": True}, "rows need a group"),
        (lambda one: [one[one.group == one.group[0]]], {"whole_groups": True}, "expected two groups or more"),
        (
            lambda one: [one],
            {"whole_groups": [True, False]},
            r"`whole_groups` must be one value or 1, one for each environment. Received: \[True, False\]",
        ),
        (lambda one: [one], {"calibration": []}, "`calibration` must be one value or 1"),
        (lambda one: [one], {"head": "distance"}, "`head` must be places, which tells its spread. Received: distance"),
        (
            lambda one: [dataclasses.replace(one, transmitters=("a",) * len(one.transmitters))],
            {},
            "`transmitters` must differ",
        ),
    ],
)
def test_what_cannot_be_fitted_is_said(office, change, arguments, message):
    with pytest.raises(ValueError, match=message):
        Localizer.fit(change(office), **arguments, **TINY)


def test_held_out_rows_are_no_copies_of_the_others(campus):
    kept, out = splits.held_out(campus, 0.1)
    assert len(out) == pytest.approx(len(campus) / 10, rel=0.2)
    values = [{row.tobytes() for row in np.nan_to_num(np.column_stack([p.rssi, p.position]))} for p in (kept, out)]
    assert not values[0] & values[1]


# === Save and load ===


@pytest.fixture
def saved(localizer, tmp_path):
    localizer.save(tmp_path / "localizer")
    return tmp_path / "localizer"


def test_a_loaded_localizer_says_the_same(localizer, saved, asked):
    loaded = Localizer.load(saved)
    before, after = (one.predict(asked[0]) for one in (localizer, loaded))
    np.testing.assert_allclose(after[NUMBERS], before[NUMBERS], rtol=0, atol=1e-5)
    pd.testing.assert_frame_equal(after.drop(columns=NUMBERS), before.drop(columns=NUMBERS))
    assert loaded.environments == localizer.environments and loaded.provenance == localizer.provenance
    assert {path.name for path in saved.iterdir()} == {MODEL, ABOUT}


def test_its_description_says_where_it_comes_from(saved, apart):
    about = json.loads((saved / ABOUT).read_text())
    assert [one["release"]["rows"] for one in about["environments"]] == [one.release.rows for one in apart[0]]
    assert about["provenance"]["versions"]["keras"] == keras.__version__
    assert about["provenance"]["settings"]["network"] == {"hidden": [64, 64]}


def test_every_flipped_byte_of_the_description_is_noticed(saved):
    content = (saved / ABOUT).read_bytes()
    for position in np.random.default_rng(0).choice(len(content), 40, replace=False):
        spoilt = bytearray(content)
        spoilt[position] ^= 1
        (saved / ABOUT).write_bytes(spoilt)
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
        (lambda folder: (folder / MODEL).unlink(), "holds no localizer"),
        (lambda folder: (folder / ABOUT).unlink(), "holds no localizer"),
        (lambda folder: (folder / ABOUT).write_text("{"), "holds no localizer"),
        (lambda folder: (folder / ABOUT).write_text("[]"), "expected a description of the format"),
        (lambda folder: (folder / ABOUT).write_text('{"format": "other"}'), "expected a description of the format"),
        (
            lambda folder: (folder / ABOUT).write_text(json.dumps({"format": module.FORMAT, "version": 2})),
            "expected version 1 of the format, found 2",
        ),
        (lambda folder: (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-1]), r"model\.keras is damaged"),
        (lambda folder: (folder / MODEL).write_bytes(b""), r"model\.keras is damaged"),
    ],
)
def test_what_is_no_whole_localizer_is_refused(saved, spoil, message):
    spoil(saved)
    with pytest.raises(ValueError, match=message):
        Localizer.load(saved)


def test_a_network_that_this_keras_cannot_read_is_refused_with_both_versions(saved):
    about = json.loads((saved / ABOUT).read_text())
    (saved / MODEL).write_bytes(b"of another time")
    del about["sha256"]
    about["provenance"]["versions"]["keras"] = "9.9"
    about["model_sha256"] = hashlib.sha256(b"of another time").hexdigest()
    (saved / ABOUT).write_text(json.dumps(about | {"sha256": module._checksum(about)}))
    with pytest.raises(ValueError, match=rf"written by Keras 9\.9; Keras {keras.__version__} cannot read it"):
        Localizer.load(saved)


def test_a_save_replaces_a_localizer_and_nothing_else(localizer, saved, tmp_path):
    before = (saved / ABOUT).stat().st_ino
    localizer.save(saved)
    assert (saved / ABOUT).stat().st_ino != before and [path.name for path in tmp_path.iterdir()] == ["localizer"]
    (saved / "notes.txt").write_text("mine")
    for other in (saved, saved / "notes.txt"):
        with pytest.raises(ValueError, match=r"is not replaced: notes\.txt"):
            localizer.save(other)
    assert (saved / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("there", [True, False])
def test_a_save_that_fails_leaves_what_was_there(localizer, tmp_path, monkeypatch, there):
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
