"""The card says what was learnt, how good it is beside kNN, and what it is not for."""

import dataclasses
import io
import re

import matplotlib.image
import numpy as np
import pytest

from lib.models.neighbours import NearestFingerprints
from lib.use import card
from lib.use.localizer import CARD, MAP, Localizer
from lib.use.runtime import DESCRIPTION, KERAS_FILE, ONNX_FILE

PNG_BYTES = 400_000  # at most, of a map with two panels


@pytest.fixture(scope="module")
def rows(localizer, apart):
    return card.evaluations(localizer, *apart)


@pytest.fixture(scope="module")
def text(localizer, apart, rows):
    return card.card(localizer, *apart, rows)


def limits(localizer, learning, held_out, rows):
    """The list under the last heading."""
    written = card.card(localizer, learning, held_out, rows)
    return written.partition("## What it is not for")[2]


def test_each_environment_has_the_localizers_numbers_and_those_of_knn(localizer, apart, rows):
    assert [row["model"] for row in rows] == ["localizer", "kNN"] * 2
    for number, held_out in enumerate(apart[1]):
        ours, neighbours = rows[2 * number : 2 * number + 2]
        assert ours == {"model": "localizer"} | localizer.evaluate(held_out)
        assert neighbours["environment"] == ours["environment"] == held_out.name
        assert neighbours["located"] == ours["located"]
        assert set(ours) - set(neighbours) == {
            "environment_hit",
            *("coverage_50", "radius_50", "coverage_90", "radius_90"),
        }


def test_knn_is_plain_knn_on_the_located_rows(localizer, apart, rows):
    learning, held_out = apart[0][1], apart[1][1]
    audible = learning[learning.heard.any(axis=1)]
    neighbours = NearestFingerprints("sorensen", 5).fit([audible], [audible[:0]], seed=0)
    asked = held_out[held_out.heard.any(axis=1)]
    error = np.hypot(*(neighbours.predict(asked.scans).position - asked.position).T)
    assert rows[3]["median_m"] == pytest.approx(np.median(error))


def test_every_number_of_the_evaluation_is_on_the_card(text, rows):
    for row in rows:
        for name, value in row.items():
            assert card.as_text(name, value) in text, name


def test_it_says_what_was_surveyed(text, localizer, apart):
    assert text.startswith("# Localizer of ujiindoorloc, lorawan_antwerp\n")
    assert f"{len(localizer.transmitters):,} transmitters" in text
    assert f"]({MAP})" in text
    for known, learning in zip(localizer.environments, apart[0], strict=True):
        assert str(known.release) in text
        east, north = np.ptp(learning.position, axis=0)
        assert f"{east:,.0f} × {north:,.0f}" in text
    (of_city,) = re.findall(r"^\| lorawan_antwerp .* 51\.\d{4} to 51\.\d{4} .*$", text, flags=re.MULTILINE)
    assert of_city.count("not told") == 2


def test_its_tables_are_whole(text):
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        lines = table.splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert len(lines) > 2


def test_what_it_is_not_for_depends_on_the_survey(localizer, apart, rows):
    learning, held_out = apart
    campus = learning[0]
    of_one = dataclasses.replace(campus, group=np.full(len(campus), "tablet"))
    assert "One device made the whole survey (tablet)" in limits(localizer, [of_one, learning[1]], held_out, rows)
    unnamed = dataclasses.replace(campus, group=None, time=None, floor=None, building=None)
    said = limits(localizer, [unnamed, learning[1]], held_out, rows)
    assert "The survey does not name its devices" in said
    assert "The survey names none, so none is told" in said
    skipping = dataclasses.replace(campus, floor=np.where(campus.floor == 0, 0, 2), building=None)
    assert "floor 1, which was not surveyed" in limits(localizer, [skipping, learning[1]], held_out, rows)


def test_it_warns_where_knn_is_better_radii_fail_or_rows_are_few(localizer, apart, rows):
    fine, neighbours, *others = rows
    better = neighbours | {"median_m": fine["median_m"] / 2}
    assert "Plain kNN has a median error of" in limits(localizer, *apart, [fine, better, *others])
    worse = neighbours | {"median_m": 2 * fine["median_m"]}
    failing = fine | {"coverage_90": 0.31, "radius_50": np.inf, "rows": 29}
    said = limits(localizer, *apart, [failing, worse, *others])
    campus = [line for line in said.splitlines() if line.startswith("- ujiindoorloc")]
    said_of_campus = "\n".join(campus)
    assert "Only 31.0% of the held-out scans are within" in said_of_campus
    assert "radii of 50 %. They are infinite" in said_of_campus
    assert "Only 29 rows were held out" in said_of_campus
    assert "Plain kNN" not in said_of_campus


def test_random_rows_and_whole_devices_are_told_apart(localizer, apart, rows, monkeypatch):
    assert "calibrated on random rows" in limits(localizer, *apart, rows)
    settings = localizer.provenance["settings"] | {"whole_groups": [True, False]}
    monkeypatch.setitem(localizer.provenance, "settings", settings)
    assert "The radii are of whole devices that were not learnt" in limits(localizer, *apart, rows)


def test_a_far_row_does_not_shrink_the_map(localizer, apart):
    learning, held_out = apart
    position = learning[1].position.copy()
    position[0] = [5e6, 5e6]
    disturbed = [learning[0], dataclasses.replace(learning[1], position=position)]
    panels = card.draw_map(localizer, disturbed, held_out).axes
    (panel,) = [axis for axis in panels if axis.get_title().startswith("lorawan_antwerp")]
    assert np.ptp(panel.get_xlim()) < 1e5
    assert panel.get_xlabel() == "east (m)" and panel.get_ylabel() == "north (m)"


def test_the_card_is_saved_with_the_localizer_and_replaced_with_it(localizer, apart, rows, tmp_path):
    folder = tmp_path / "mine"
    localizer.save(folder, card.files(localizer, *apart, rows))
    assert {path.name for path in folder.iterdir()} == {KERAS_FILE, ONNX_FILE, DESCRIPTION, CARD, MAP}
    assert (folder / CARD).read_text() == card.card(localizer, *apart, rows)
    picture = (folder / MAP).read_bytes()
    assert len(picture) < PNG_BYTES and matplotlib.image.imread(io.BytesIO(picture)).ndim == 3
    assert Localizer.load(folder).transmitters == localizer.transmitters
    localizer.save(folder)
    assert {path.name for path in folder.iterdir()} == {KERAS_FILE, ONNX_FILE, DESCRIPTION}


def test_where_nothing_is_located_there_are_no_errors(localizer, apart):
    silent = dataclasses.replace(apart[1][1], rssi=np.full_like(apart[1][1].rssi, np.nan))
    learning, held_out = apart[0], [apart[1][0], silent]
    rows = card.evaluations(localizer, learning, held_out)
    assert rows[3]["located"] == 0 and np.isnan(rows[3]["mean_m"])
    assert set(card.files(localizer, learning, held_out, rows)) == {CARD, MAP}
