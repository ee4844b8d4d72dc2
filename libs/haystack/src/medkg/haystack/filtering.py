"""Filters as conditions on the rows of the embedded store. Every value is a parameter, never part of the SQL."""

import sqlite3
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from medkg.contracts.errors import ContractError
from medkg.haystack.stores import Filters
from medkg.haystack.writes import label, phases_in

MAX_VALUES: Final = 100  # of one filter
UNKNOWN: Final = "?"  # a phase that nothing is of: a filter that says nothing must not let everything through
Condition = tuple[str, list[str | int]]


def checked(filters: Filters) -> Filters:
    """The filters, their labels in the form in which they are stored.

    Raises:
        ContractError: more values than anybody types.
    """
    given = (filters.sources, filters.sections, filters.conditions, filters.phases)
    if any(len(values) > MAX_VALUES for values in given):
        raise ContractError(f"filtering passages: a filter takes at most {MAX_VALUES} values")
    return Filters(
        sources=filters.sources,
        year_from=filters.year_from,
        year_to=filters.year_to,
        sections=tuple(map(label, filters.sections)),
        conditions=tuple(map(label, filters.conditions)),
        phases=tuple(phase for given in filters.phases for phase in phases_in(given) or (UNKNOWN,)),
        retracted=filters.retracted,
    )


def passage_condition(filters: Filters, passage_id: str) -> Condition:
    """``AND EXISTS (...)`` for the passage whose id is the SQL expression ``passage_id``; empty without filters."""
    if not filters:
        return "", []
    sql, values = _conditions(checked(filters))
    return (
        f" AND EXISTS (SELECT 1 FROM passages p JOIN documents d USING (doc_id) WHERE p.id = {passage_id}{sql})",  # noqa: S608  constants
        values,
    )


def allowed_ids(connection: sqlite3.Connection, filters: Filters) -> NDArray[np.int64]:
    """Ids of all passages that the filters let through, ascending."""
    sql, values = _conditions(checked(filters))
    # from the documents to their passages by the index alone; a filter by section has to read rows
    rows = connection.execute(
        f"SELECT p.id FROM documents d CROSS JOIN passages p ON p.doc_id = d.doc_id WHERE 1{sql}",  # noqa: S608  constants
        values,
    )
    return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64))


def _conditions(filters: Filters) -> Condition:
    sql, values = "", list[str | int]()
    if filters.sources:
        sql += f" AND d.source IN ({_marks(filters.sources)})"
        values += filters.sources
    for operator, year in ((">=", filters.year_from), ("<=", filters.year_to)):
        if year is not None:
            sql += f" AND d.year {operator} ?"
            values.append(_bounded(year))
    if filters.retracted is not None:
        sql += " AND d.retracted = ?"
        values.append(int(filters.retracted))
    for kind, wanted in (("condition", filters.conditions), ("phase", filters.phases)):
        if wanted:
            sql += (
                f" AND EXISTS (SELECT 1 FROM labels l WHERE l.doc_id = d.doc_id AND l.kind = '{kind}'"  # noqa: S608  constants
                f" AND l.value IN ({_marks(wanted)}))"
            )
            values += wanted
    if filters.sections:
        sql += " AND (" + " OR ".join(["instr(p.headings, ?)"] * len(filters.sections)) + ")"
        values += [f"\n{heading}\n" for heading in filters.sections]
    return sql, values


def _bounded(year: int) -> int:
    return max(-1_000_000, min(year, 1_000_000))  # SQLite's integers end, and so do years


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
