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
