"""Filters as conditions on the rows of the embedded store. Every value is a parameter, never part of the SQL."""

import math
import sqlite3
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from medkg.contracts.errors import ContractError
from medkg.haystack.stores import Filters
from medkg.haystack.writes import label, phases_in

MAX_VALUES: Final = 100  # of one filter
UNKNOWN: Final = "?"  # a phase that nothing is of: a filter that says nothing must not let everything through
Conditions = tuple[str, str, list[str | int]]  # on documents, on passages, and the values of both
Search = Callable[[int, NDArray[np.int64] | None], list[tuple[int, float]]]  # at most so many, of these ids; best first
_SAMPLE = 200  # passages: less than a millisecond
_BROAD = 0.2  # from this share on passages are looked up: below, more of them than are listed
_SPARE = 1.3  # times as many are looked up as would do if what a question finds were a sample too
_VARIABLES = 500  # of one statement: far below SQLite's bound


class Sieve:
    """What one filter lets through of one moment of the store; found out once for all kinds of search. Not thread-safe.

    Passages can be looked up, which costs microseconds for each, or listed, which costs some milliseconds and as much
    again for every ten thousand listed. What is cheaper depends on the part of all passages that the filter lets
    through; a sample of them tells.
    """

    def __init__(self, connection: sqlite3.Connection, filters: Filters) -> None:
        """Raises ContractError for more values than anybody types."""
        self._connection = connection
        self._conditions = conditions(checked(filters))

    def first(self, search: Search, limit: int) -> list[tuple[int, float]]:
        """The ``limit`` best that the filter lets through: what ``search(limit, self.ids)`` finds, for less."""
        if self.share >= _BROAD:
            wanted = math.ceil(_SPARE * limit / self.share)
            found = search(wanted, None)
            passing = self.passing([item for item, _ in found])
            if len(passing) >= limit or len(found) < wanted:
                return [scored for scored in found if scored[0] in passing][:limit]
        return search(limit, self.ids) if len(self.ids) else []

    @cached_property
    def share(self) -> float:
        """About the part of all passages that the filter lets through."""
        (last_id,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM passages").fetchone()
        # at random, so that no order of the documents misleads; always the same, so that an answer repeats itself
        places = np.random.default_rng(0).integers(1, max(last_id, 1) + 1, _SAMPLE).tolist()
        next_one = "SELECT id FROM passages WHERE id >= ? LIMIT 1"  # ids of deleted passages are never given again
        ids = [row[0] for place in places for row in self._connection.execute(next_one, (place,))]
        passing = self.passing(ids)
        return sum(item in passing for item in ids) / max(len(ids), 1)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """All passages that the filter lets through, ascending."""
        of_document, of_passage, values = self._conditions
        tables = "documents d CROSS JOIN passages p ON p.doc_id = d.doc_id" if of_document else "passages p"
        rows = self._connection.execute(
            f"SELECT p.id FROM {tables} WHERE 1{of_document}{of_passage}",  # noqa: S608  constants
            values,
        )
        return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64))

    def passing(self, ids: Sequence[int]) -> set[int]:
        """Those of the passages that there are and that the filter lets through."""
        of_document, of_passage, values = self._conditions
        found: set[int] = set()
        for start in range(0, len(ids), _VARIABLES):
            part = ids[start : start + _VARIABLES]
            rows = self._connection.execute(
                "SELECT p.id FROM passages p CROSS JOIN documents d ON d.doc_id = p.doc_id "  # noqa: S608  constants
                f"WHERE p.id IN ({_marks(part)}){of_document}{of_passage}",
                [*part, *values],
            )
            found.update(row[0] for row in rows)
        return found


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


def among(ids: NDArray[np.int64] | None, passage_id: str) -> tuple[str, list[bytes]]:
    """An ``AND`` that only passages with one of the ids (ascending) pass, ``passage_id`` being an SQL expression.

    A byte for each id ever given out, taken by its place: several times faster than looking in a table for each row.
    """
    if ids is None:
        return "", []
    is_among = np.zeros(int(ids[-1]) if len(ids) else 0, dtype=np.uint8)
    is_among[ids - 1] = 1
    return f" AND substr(?, {passage_id}, 1) = x'01'", [is_among.tobytes()]


def conditions(filters: Filters) -> Conditions:
    """:func:`checked` filters as ``AND ...`` on a row ``d`` of documents and on a row ``p`` of passages."""
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
    if not filters.sections:
        return sql, "", values
    values += [f"\n{heading}\n" for heading in filters.sections]
    return sql, " AND (" + " OR ".join(["instr(p.headings, ?)"] * len(filters.sections)) + ")", values


def _bounded(year: int) -> int:
    return max(-1_000_000, min(year, 1_000_000))  # SQLite's integers end, and so do years


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
