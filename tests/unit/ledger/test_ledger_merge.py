"""Rows on their way into the database: sorted, and column by column."""

import pytest

from medkg.storage.ledger_merge import SEPARATOR, Field, MergedTable, Row, Rule

TABLE = MergedTable(
    "things",
    [
        Field("group", "text", Rule.KEY),
        Field("number", "bigint", Rule.KEY),
        Field("name", "text", Rule.GREATEST),
        Field("is_seen", "boolean", Rule.EITHER),
        Field("words", "text", Rule.UNION),
    ],
)


def row(group: str, number: int, name: str = "", *words: str, is_seen: bool = False) -> Row:
    return [group, number, name, is_seen, frozenset(words)]


def test_every_writer_names_its_rows_in_the_same_order() -> None:
    rows = [row("b", 1), row("a", 10), row("a", 9)]
    bound = TABLE.parameters(rows)
    assert bound == TABLE.parameters(rows[::-1])
    assert bound["number"] == [9, 10, 1]


def test_texts_and_flags_travel_as_one_value_a_column() -> None:
    bound = TABLE.parameters([row("a", 1, "", "y", "x", is_seen=True), row("a", 2, "n")])
    assert bound["name"].split(SEPARATOR) == ["", "", "n"]
    assert bound["words"].split(SEPARATOR) == ["", "x y", ""]
    assert bound["is_seen"] == "{t,f}"


def test_a_text_that_would_shift_the_rows_after_it_is_refused() -> None:
    with pytest.raises(ValueError, match="the character that separates them"):
        TABLE.parameters([row("a", 1, f"x{SEPARATOR}y")])
