"""Sparse search: the dot product of a query's and the passages' term weights."""

import sqlite3
from typing import Final

from medkg.haystack.fusion import Scored
from medkg.haystack.impacts import query_weight, terms_of
from medkg.haystack.lexical import MAX_QUERY_CHARACTERS, MAX_QUERY_TERMS

_MAX_POSTINGS: Final = 20_000  # read for one query: some milliseconds; more did not find more on SciFact


def search_impacts(connection: sqlite3.Connection, query: str, limit: int) -> list[Scored]:
    """Ids of passages with the dot product, best first; for term weights of :mod:`medkg.haystack.impacts`."""
    terms = dict.fromkeys(terms_of(query[:MAX_QUERY_CHARACTERS]))
    count = "SELECT count(*) FROM postings WHERE term = ?"
    counts = {term: connection.execute(count, (term,)).fetchone()[0] for term in list(terms)[:MAX_QUERY_TERMS]}
    telling = _rarest({term: found for term, found in counts.items() if found})
    if not telling:
        return []
    (passages,) = connection.execute("SELECT sum(passages) FROM documents").fetchone()  # short rows, unlike passages
    weights = [value for term in telling for value in (term, query_weight(passages, counts[term]))]
    values = ", ".join(["(?, ?)"] * len(telling))
    found = connection.execute(
        f"WITH query (term, weight) AS (VALUES {values}) "  # noqa: S608  only question marks are put in
        "SELECT postings.id, sum(postings.weight * query.weight) AS score FROM query CROSS JOIN postings "
        "ON postings.term = query.term GROUP BY postings.id ORDER BY score DESC, postings.id LIMIT ?",
        [*weights, limit],
    )
    return found.fetchall()


def _rarest(counts: dict[str, int]) -> list[str]:
    """The terms that say the most, as many as may be read; always the rarest one."""
    telling: list[str] = []
    postings = 0
    for term, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        postings += count
        if telling and postings > _MAX_POSTINGS:
            break
        telling.append(term)
    return telling
