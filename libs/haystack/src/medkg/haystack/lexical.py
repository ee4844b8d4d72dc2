"""Full-text search (BM25 of SQLite FTS5) with queries that people, or attackers, type."""

import re
import sqlite3
from typing import Final

import numpy as np
from numpy.typing import NDArray

from medkg.haystack.filtering import Sieve, among
from medkg.haystack.stores import FIELD_WEIGHTS, FieldWeights
from medkg.haystack.terms import STOP_WORDS

MAX_QUERY_CHARACTERS: Final = 4_000
MAX_QUERY_TERMS: Final = 64
_WORD = re.compile(r"[^\W_]+(?:[-'\u2019/.][^\W_]+)*")


def match_expression(query: str) -> str:
    """An FTS5 expression that finds passages with any of the query's words; empty if it has none.

    Every word is quoted, so that no part of a query is read as syntax. A compound (``IL-6``) is looked for as a phrase.
    """
    return " OR ".join(f'"{word}"' for word in telling_words(query))


def telling_words(query: str) -> list[str]:
    """The words of a query in lower case, without those that decide nothing where others are left; a bounded number."""
    words = dict.fromkeys(word.lower() for word in _WORD.findall(query[:MAX_QUERY_CHARACTERS]))
    telling = [word for word in words if word not in STOP_WORDS] or list(words)
    return telling[:MAX_QUERY_TERMS]


def search_lexical(
    connection: sqlite3.Connection,
    query: str,
    limit: int,
    sieve: Sieve | None = None,
    weights: FieldWeights = FIELD_WEIGHTS,
) -> list[tuple[int, float]]:
    """Ids of passages with their BM25 score, best first."""
    expression = match_expression(query)
    fields = " ".join(name for name in ("title", "section", "text") if getattr(weights, name) > 0)
    if not expression or not fields:
        return []
    rank = f"bm25({weights.title:f}, {weights.section:f}, {weights.text:f})"

    def search(wanted: int, ids: NDArray[np.int64] | None) -> list[tuple[int, float]]:
        condition, values = among(ids, "lexical.rowid")
        return connection.execute(
            f"SELECT rowid, -rank FROM lexical WHERE lexical MATCH ? AND rank MATCH ?{condition} "  # noqa: S608  constants
            "ORDER BY rank, rowid LIMIT ?",
            (f"{{{fields}}} : ({expression})", rank, *values, wanted),
        ).fetchall()

    return sieve.first(search, limit) if sieve else search(limit, None)
