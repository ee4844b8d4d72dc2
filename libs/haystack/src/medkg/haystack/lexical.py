"""Full-text search (BM25 of SQLite FTS5) with queries that people, or attackers, type."""

import re
import sqlite3
from typing import Final

from medkg.haystack.fusion import Scored

MAX_QUERY_CHARACTERS: Final = 4_000
MAX_QUERY_TERMS: Final = 64
_WORD = re.compile(r"[^\W_]+(?:[-'\u2019/.][^\W_]+)*")
# words that are in nearly every passage: they cost a long list each and decide nothing
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are as at be by can for from has have in is it its not of on or that the these this those to was were
        what when where which who will with
        """,
    )
)
# the weights are those of title, section and text
_SEARCH = """
SELECT rowid, -rank FROM lexical WHERE lexical MATCH ? AND rank MATCH 'bm25(1.0, 0.5, 1.0)' ORDER BY rank, rowid LIMIT ?
"""


def match_expression(query: str) -> str:
    """An FTS5 expression that finds passages with any of the query's words; empty if it has none.

    Every word is quoted, so that no part of a query is read as syntax. A compound (``IL-6``) is looked for as a phrase.
    """
    words = dict.fromkeys(word.lower() for word in _WORD.findall(query[:MAX_QUERY_CHARACTERS]))
    telling = [word for word in words if word not in _STOP_WORDS] or list(words)
    return " OR ".join(f'"{word}"' for word in telling[:MAX_QUERY_TERMS])


def search_lexical(connection: sqlite3.Connection, query: str, limit: int) -> list[Scored]:
    """Ids of passages with their BM25 score, best first."""
    expression = match_expression(query)
    if not expression:
        return []
    return connection.execute(_SEARCH, (expression, limit)).fetchall()
