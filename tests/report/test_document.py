"""Tables in Markdown documents."""

import pytest

from lib.report import document


def test_tables_of_a_document_are_filled_from_the_files(tmp_path):
    (tmp_path / "one.md").write_text("| 1 |\n")
    (tmp_path / "two.md").write_text("| a \\1 |\n\nNote.\n")
    text = "A\n<!-- table: one -->\nold\n\nolder\n<!-- end -->\nB\n<!-- table: two -->\n<!-- end -->\nC\n"
    filled = document.fill(text, tmp_path)
    assert filled == (
        "A\n<!-- table: one -->\n| 1 |\n<!-- end -->\nB\n<!-- table: two -->\n| a \\1 |\n\nNote.\n<!-- end -->\nC\n"
    )
    assert document.fill(filled, tmp_path) == filled


def test_document_that_names_no_existing_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        document.fill("<!-- table: none -->\n<!-- end -->\n", tmp_path)


def test_a_conclusion_has_its_values_where_the_text_names_them():
    text = "{model} is best in {count} environments ({names}), in none of {others}: {error} m, or {ratio}."
    values = {"model": "kNN", "count": 1200, "names": ["tut1", "tut2", "hcxy"], "others": [], "error": 231.9}
    written = document.with_values(text, **values, ratio=0.912)
    assert written == "kNN is best in 1,200 environments (tut1, tut2 and hcxy), in none of none: 232 m, or 0.91."


@pytest.mark.parametrize(("text", "values"), [("{error} m", {}), ("metres", {"error": 1.0})])
def test_a_conclusion_and_its_values_must_fit(text, values):
    with pytest.raises(ValueError, match=r"the same names. Received: error in one of them"):
        document.with_values(text, **values)
