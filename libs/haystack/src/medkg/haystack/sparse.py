"""Sparse search: the dot product of a query's and the passages' term weights."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from medkg.haystack.filtering import Sieve, among

MAX_SPARSE_TERMS: Final = 256  # of a query; learned expansions have some dozens
_MAX_POSTINGS: Final = 20_000  # read for one query: some milliseconds; more did not find more on SciFact


def term_counts(connection: sqlite3.Connection, terms: Sequence[str]) -> dict[str, int]:
    """In how many passages each term has a weight; terms that are in none are left out."""
    count = "SELECT count(*) FROM postings WHERE term = ?"
    counts = {term: connection.execute(count, (term,)).fetchone()[0] for term in terms[:MAX_SPARSE_TERMS]}
    return {term: found for term, found in counts.items() if found}


def search_sparse(
    connection: sqlite3.Connection, weights: Mapping[str, float], limit: int, sieve: Sieve | None = None
) -> list[tuple[int, float]]:
    """Ids of passages with the dot product of their weights and the query's, best first."""
    heaviest = sorted((-weight, term) for term, weight in weights.items() if weight > 0)[:MAX_SPARSE_TERMS]
    telling = _rarest(term_counts(connection, [term for _, term in heaviest]))
    if not telling:
        return []
    pairs = [value for term in telling for value in (term, weights[term])]

    def search(wanted: int, ids: NDArray[np.int64] | None) -> list[tuple[int, float]]:
        condition, values = among(ids, "postings.id")
        found = connection.execute(
            f"WITH query (term, weight) AS (VALUES {', '.join(['(?, ?)'] * len(telling))}) "  # noqa: S608  only question marks are put in
            "SELECT postings.id, sum(postings.weight * query.weight) AS score FROM query CROSS JOIN postings "
            f"ON postings.term = query.term{condition} "
            "GROUP BY postings.id ORDER BY score DESC, postings.id LIMIT ?",
            [*pairs, *values, wanted],
        )
        return found.fetchall()

    return sieve.first(search, limit) if sieve else search(limit, None)


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
