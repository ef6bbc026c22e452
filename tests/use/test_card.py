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
def rows(localizer):
    return card.evaluations(localizer)


@pytest.fixture(scope="module")
def text(localizer, apart, rows):
    return card.card(localizer, apart[0], rows)


def limits(localizer, surveys, rows):
    """The list under the last heading."""
    written = card.card(localizer, surveys, rows)
    return written.partition("## What it is not for")[2]


def test_each_environment_has_the_localizers_numbers_and_those_of_knn(localizer, apart, rows):
    assert [row["model"] for row in rows] == ["localizer", "kNN"] * 2
    for number, survey in enumerate(apart[0]):
        ours, neighbours = rows[2 * number : 2 * number + 2]
        of_fresh_rows = localizer.evaluate(apart[1][number])
        assert set(ours) == {"model", *of_fresh_rows}
        assert neighbours["environment"] == ours["environment"] == survey.name
        assert neighbours["rows"] == ours["rows"] == len(localizer.held_out[number].rows)
        assert set(ours) - set(neighbours) == {
            "environment_hit",
            *("coverage_50", "radius_50", "coverage_90", "radius_90"),
            *{"building_hit", "floor_hit"}.intersection(of_fresh_rows),
        }


def test_errors_are_of_the_located_positions_of_held_out_rows(localizer, rows):
    for number, held_out in enumerate(localizer.held_out):
        error = np.hypot(*(held_out.located.position - held_out.rows.position).T)
        hit = held_out.located.environment == number
        assert rows[2 * number]["mean_m"] == pytest.approx(error[hit].mean())
        assert rows[2 * number]["environment_hit"] == pytest.approx(hit.mean())


def test_knn_is_plain_knn_on_the_same_rows_of_which_none_is_stored(localizer, apart, rows):
    held_out = localizer.held_out[1]
    survey = apart[0][1]
    audible = survey[survey.heard.any(axis=1)]
    audible = dataclasses.replace(audible, not_heard=audible.not_heard_dbm)
    error = np.zeros(len(held_out.rows))
    for fold in np.unique(held_out.fold):
        asked = held_out.fold == fold
        numbers = localizer.unified.held_out[1].rows[asked]
        is_stored = ~np.isin(audible.copy_id, audible.copy_id[numbers])
        stored = audible[is_stored]
        neighbours = NearestFingerprints("sorensen", 5).fit([stored], [stored[:0]], seed=0)
        position = neighbours.predict(held_out.rows[asked].scans).position
        error[asked] = np.hypot(*(position - held_out.rows.position[asked]).T)
    assert rows[3]["median_m"] == pytest.approx(np.median(error), rel=1e-3)


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
    for known in localizer.environments:
        assert re.search(rf"^\| {known.name} .* {known.learning_rows:,} ", text, flags=re.MULTILINE)


def test_its_tables_are_whole(text):
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        lines = table.splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert len(lines) > 2


def test_what_it_is_not_for_depends_on_the_survey(localizer, apart, rows):
    campus, city = apart[0]
    of_one = dataclasses.replace(campus, group=np.full(len(campus), "tablet"))
    assert "One device made the whole survey (tablet)" in limits(localizer, [of_one, city], rows)
    unnamed = dataclasses.replace(campus, group=None, time=None, floor=None, building=None)
    said = limits(localizer, [unnamed, city], rows)
    assert "The survey does not name its devices" in said
    assert "The survey names none, so none is told" in said
    skipping = dataclasses.replace(campus, floor=np.where(campus.floor == 0, 0, 2), building=None)
    assert "floor 1, which was not surveyed" in limits(localizer, [skipping, city], rows)


def with_alternatives(localizer, monkeypatch, share=0.5, **metres):
    """Pretends that these mean errors were measured on the campus, and this share chosen."""
    alternatives = [metres, *localizer.unified.alternatives[1:]]
    choices = [dataclasses.replace(localizer.unified.choices[0], share=share), *localizer.unified.choices[1:]]
    monkeypatch.setattr(localizer.unified, "alternatives", alternatives)
    monkeypatch.setattr(localizer.unified, "choices", choices)


WORSE_NEIGHBOURS = {"network alone": 3.0, "votes alone": 2.8, "together": 2.4, "plain kNN": 2.7}
BETTER_NEIGHBOURS = WORSE_NEIGHBOURS | {"plain kNN": 2.2}


def test_a_sentence_tells_what_was_chosen_and_what_the_alternatives_had(localizer, monkeypatch):
    with_alternatives(localizer, monkeypatch, **WORSE_NEIGHBOURS)
    sentence, of_city = card.choices(localizer)
    assert sentence == (
        "ujiindoorloc: network alone 3.00 m, votes of stored fingerprints alone 2.80 m, together 2.40 m; "
        "plain kNN 2.70 m (mean errors of held-out rows). Chosen: together, the votes counting 50%."
    )
    assert of_city.startswith("lorawan_antwerp: network alone ")


@pytest.mark.parametrize(("share", "chosen"), [(0.0, "the network alone"), (1.0, "the votes alone")])
def test_what_was_chosen_alone_is_not_said_twice(localizer, monkeypatch, share, chosen):
    with_alternatives(localizer, monkeypatch, share, **WORSE_NEIGHBOURS)
    sentence = card.choices(localizer)[0]
    assert sentence.endswith(f"Chosen: {chosen}.") and "together" not in sentence


def test_it_says_where_plain_knn_is_better(localizer, apart, rows, monkeypatch):
    with_alternatives(localizer, monkeypatch, **BETTER_NEIGHBOURS)
    assert card.choices(localizer)[0].endswith("Plain kNN is better here: 2.20 m against 2.40 m.")
    written = card.card(localizer, apart[0], rows)
    assert card.choices(localizer)[0] in written
    assert "Plain kNN has a mean error of 2.20 m on held-out rows, the localizer 2.40 m." in written


def test_it_warns_where_radii_fail_or_rows_are_few(localizer, apart, rows, monkeypatch):
    with_alternatives(localizer, monkeypatch, **WORSE_NEIGHBOURS)
    fine, *others = rows
    failing = fine | {"coverage_90": 0.31, "radius_50": np.inf, "rows": 29}
    said = limits(localizer, apart[0], [failing, *others])
    campus = [line for line in said.splitlines() if line.startswith("- ujiindoorloc")]
    said_of_campus = "\n".join(campus)
    assert "Only 31.0% of the held-out scans are within" in said_of_campus
    assert "radii of 50 %. They are infinite" in said_of_campus
    assert "Only 29 rows were held out" in said_of_campus
    assert "Plain kNN" not in said_of_campus


def test_how_rows_were_held_out_is_told(localizer, apart, rows, monkeypatch):
    assert "`fit --whole-devices` says how much" in limits(localizer, apart[0], rows)
    settings = [{"hold_out": "devices"}, {"hold_out": "areas"}]
    monkeypatch.setattr(localizer.unified, "environment_settings", settings)
    written = card.card(localizer, apart[0], rows)
    assert "In ujiindoorloc, held out with a row: all rows of its device and all rows of its position." in written
    assert "In lorawan_antwerp, held out with a row: all rows of its square area." in written
    devices = len(np.unique(apart[0][0].group))
    assert f"Errors and radii are those of {devices} devices, each while it was held out" in written


def test_a_far_row_does_not_shrink_the_map(localizer, apart):
    campus, city = apart[0]
    position = city.position.copy()
    position[0] = [5e6, 5e6]
    disturbed = [campus, dataclasses.replace(city, position=position)]
    panels = card.draw_map(localizer, disturbed).axes
    (panel,) = [axis for axis in panels if axis.get_title().startswith("lorawan_antwerp")]
    assert np.ptp(panel.get_xlim()) < 1e5
    assert panel.get_xlabel() == "east (m)" and panel.get_ylabel() == "north (m)"


def test_the_card_is_saved_with_the_localizer_and_replaced_with_it(localizer, apart, rows, tmp_path, without_onnx):
    folder = tmp_path / "mine"
    localizer.save(folder, card.files(localizer, apart[0], rows))
    assert {path.name for path in folder.iterdir()} == {KERAS_FILE, ONNX_FILE, DESCRIPTION, CARD, MAP}
    assert (folder / CARD).read_text() == card.card(localizer, apart[0], rows)
    picture = (folder / MAP).read_bytes()
    assert len(picture) < PNG_BYTES and matplotlib.image.imread(io.BytesIO(picture)).ndim == 3
    assert Localizer.load(folder).transmitters == localizer.transmitters
    localizer.save(folder)
    assert {path.name for path in folder.iterdir()} == {KERAS_FILE, ONNX_FILE, DESCRIPTION}


def test_where_all_rows_are_located_in_another_environment_there_are_no_errors(localizer, apart, monkeypatch):
    campus, city = localizer.held_out
    lost = dataclasses.replace(city, error=np.full(len(city.rows), np.inf))
    monkeypatch.setattr(localizer, "held_out", [campus, lost])
    rows = card.evaluations(localizer)
    assert rows[2]["environment_hit"] == 0 and np.isnan(rows[2]["mean_m"])
    assert np.isinf(rows[2]["radius_90"])
    assert set(card.files(localizer, apart[0], rows)) == {CARD, MAP}
