"""Tables, figures and values in Markdown documents."""

import pytest

from lib.report import document


@pytest.fixture
def outputs(tmp_path):
    """A folder with two tables and two figures."""
    for folder in ("tables", "figures"):
        (tmp_path / "outputs" / folder).mkdir(parents=True)
    (tmp_path / "outputs" / "tables" / "one.md").write_text("| 1 |\n")
    (tmp_path / "outputs" / "tables" / "two.md").write_text("| a \\1 |\n\nNote.\n")
    for name in ("curve", "map"):
        (tmp_path / "outputs" / "figures" / f"{name}.png").touch()
    return tmp_path / "outputs"


def test_tables_of_a_document_are_filled_from_the_files(outputs):
    text = "A\n<!-- table: one -->\nold\n\nolder\n<!-- end -->\nB\n<!-- table: two -->\n<!-- end -->\nC\n"
    filled = document.fill(text, outputs, outputs.parent)
    assert filled == (
        "A\n<!-- table: one -->\n| 1 |\n<!-- end -->\nB\n<!-- table: two -->\n| a \\1 |\n\nNote.\n<!-- end -->\nC\n"
    )
    assert document.fill(filled, outputs, outputs.parent) == filled


def test_figures_are_linked_from_where_the_document_lies(outputs):
    text = "<!-- figure: map, Errors, on a map -->\n<!-- end -->\n"
    for folder, path in {outputs.parent: "outputs", outputs.parent / "docs": "../outputs"}.items():
        filled = document.fill(text, outputs, folder)
        assert f"-->\n![Errors, on a map]({path}/figures/map.png)\n<!-- end -->" in filled


@pytest.mark.parametrize("mark", ["<!-- table: none -->", "<!-- figure: none, Nothing -->"])
def test_what_does_not_exist_is_left_out(outputs, mark):
    filled = document.fill(f"{mark}\nold\n<!-- end -->\n", outputs, outputs.parent)
    assert filled == f"{mark}\n<!-- end -->\n"


def test_what_no_mark_names_is_listed_at_the_end(outputs):
    text = "<!-- figure: map, A map -->\n<!-- end -->\n<!-- further -->\n<!-- end -->\n"
    filled = document.fill(text, outputs, outputs.parent, elsewhere=["two"])
    assert filled.endswith(
        "<!-- further -->\n![curve](outputs/figures/curve.png)\n\n- Table [one](outputs/tables/one.md)\n<!-- end -->\n"
    )


def test_marks_are_listed():
    text = "<!-- table: one -->\n<!-- end -->\n<!-- figure: map, Map -->\n<!-- end -->\n"
    assert document.marks(text) == {"table": ["one"], "figure": ["map"]}


def test_a_conclusion_has_its_values_where_the_text_names_them():
    text = "{model} is best in {count} environments ({names}), in none of {others}: {error} m, or {ratio}."
    values = {"model": "kNN", "count": 1200, "names": ["tut1", "tut2", "hcxy"], "others": [], "error": 231.9}
    written = document.with_values(text, **values, ratio=0.912)
    assert written == "kNN is best in 1,200 environments (tut1, tut2 and hcxy), in none of none: 232 m, or 0.91."


@pytest.mark.parametrize(("text", "values"), [("{error} m", {}), ("metres", {"error": 1.0})])
def test_a_conclusion_and_its_values_must_fit(text, values):
    with pytest.raises(ValueError, match=r"the same names. Received: error in one of them"):
        document.with_values(text, **values)
