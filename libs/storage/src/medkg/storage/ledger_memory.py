"""What the rows of documents say already, as far as one process has written it: what would change nothing is not sent.

Facts are only ever added to a row, so what was committed once holds for good, whoever else writes. Nearly every event
of a document repeats that it exists, did work and has so many ends; one in five says something new.
"""

from collections.abc import Mapping

from medkg.storage.ledger_merge import Row
from medkg.storage.ledger_rows import DOCUMENTS

Key = tuple[str, str]
_KEY_AND_OWNER = DOCUMENTS.columns.index("is_known") + 1
_BARE = [{}, False, False, False, frozenset[str](), 0]  # of a row that says no more than that there is the document


class DocumentMemory:
    """The last documents that were written, between ``limit`` and twice as many."""

    def __init__(self, limit: int = 20_000) -> None:
        self._limit = limit
        self._young: dict[Key, Row] = {}
        self._old: dict[Key, Row] = {}

    def news(self, rows: Mapping[Key, Row]) -> dict[Key, Row]:
        """The rows that say something which was not committed yet, as far as this knows."""
        return {key: row for key, row in rows.items() if not self._is_known(key, row)}

    def committed(self, origins: Mapping[Key, Row], rows: Mapping[Key, Row]) -> None:
        """Rows of ``DOCUMENT_ORIGINS`` and ``DOCUMENTS`` have been merged into the table, and that is committed."""
        for key, origin in origins.items():
            self._add(key, [*origin[:_KEY_AND_OWNER], *_BARE])
        for key, row in rows.items():
            self._add(key, row)
        if len(self._young) > self._limit:
            self._young, self._old = {}, self._young

    def _add(self, key: Key, row: Row) -> None:
        known = self._young.get(key) or self._old.get(key)
        self._young[key] = row if known is None else _merged(known, row)

    def _is_known(self, key: Key, row: Row) -> bool:
        known = self._young.get(key) or self._old.get(key)
        if known is None:
            return False
        if known == row or (row[_KEY_AND_OWNER:] == _BARE and row[:_KEY_AND_OWNER] == known[:_KEY_AND_OWNER]):
            return True
        return _merged(known, row) == known


def _merged(known: Row, row: Row) -> Row:
    merged = {"": known.copy()}
    DOCUMENTS.add_to(merged, "", row)
    return merged[""]
