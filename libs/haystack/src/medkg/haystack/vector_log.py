"""The dense side of an index whose words are in OpenSearch: vectors on one machine's disk, searched with FAISS.

It is an embedded store without texts, in which one *write* of a document stands where a document does: what is in it
becomes visible, and stops being so, by what OpenSearch says of the document (:mod:`medkg.haystack.opensearch.writer`).
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medkg.contracts.errors import MedkgError, ResourceUnavailableError
from medkg.haystack.filtering import allowed_ids
from medkg.haystack.passage_reader import Snapshot
from medkg.haystack.passage_store import PassageStore, store_path
from medkg.haystack.segments import TAIL_ROWS, build_segment
from medkg.haystack.stores import Filters
from medkg.haystack.writes import DocumentWrite

GRACE_SECONDS: Final = 120.0  # readers hold a moment for at most a minute: until then they may ask for old vectors


_VARIABLES = 500  # of one statement: far below SQLite's bound


def log_path(data_dir: Path, tenant_id: str, index: str) -> Path:
    """Where the vectors of a tenant's index lie."""
    return store_path(data_dir, tenant_id, index).with_suffix(".vectors.sqlite")


class LoggedRow(NamedTuple):
    """A vector that was found: whose it is, and how near."""

    write_id: str
    row: int
    score: float


def search_log(moment: Snapshot, vector: NDArray[np.floating], k: int, filters: Filters) -> list[LoggedRow]:
    """The nearest of all vectors in the log, those of invisible writes too."""
    allowed = allowed_ids(moment.connection, filters) if filters else None
    found = moment.dense(vector, k, allowed)
    owners: dict[int, tuple[str, int]] = {}
    for start in range(0, len(found), _VARIABLES):
        ids = [passage for passage, _ in found[start : start + _VARIABLES]]
        marks = ", ".join("?" * len(ids))
        rows = moment.connection.execute(f"SELECT id, doc_id, ordinal FROM passages WHERE id IN ({marks})", ids)  # noqa: S608  only question marks
        owners.update((row[0], (row[1], row[2])) for row in rows)
    return [LoggedRow(*owners[passage], score) for passage, score in found]


@dataclass(frozen=True, slots=True)
class LoggedWrite:
    """A write that the log holds, and when it came (seconds since 1970)."""

    write_id: str
    written_at: float


class VectorLog:
    """A writer's connection to the log. Thread-safe; any number of processes may write."""

    def __init__(self, path: Path, segment_rows: int = TAIL_ROWS) -> None:
        self.path = path
        self._segment_rows = segment_rows
        self._lock = threading.Lock()
        self._store: PassageStore | None = None
        self._retired: deque[tuple[float, str]] = deque()
        self._merge_at = 0

    def put(self, writes: Sequence[tuple[str, DocumentWrite]]) -> list[MedkgError | None]:
        """Stores the vectors of writes under their ids, durably and in one transaction. Idempotent.

        Raises:
            ResourceUnavailableError: nothing was stored.
        """
        now = time.time()
        with self._lock:
            store = self._open()
            outcomes = store.write([_vectors_alone(write_id, write, now) for write_id, write in writes])
            due = []
            while self._retired and self._retired[0][0] <= now:
                due.append(self._retired.popleft()[1])
            if due:
                store.forget(due)
        return [outcome if isinstance(outcome, MedkgError) else None for outcome in outcomes]

    def retire(self, write_ids: Iterable[str]) -> None:
        """Forgets writes after :data:`GRACE_SECONDS`; whoever dies before leaves them to ``medkg index compact``."""
        with self._lock:
            self._retired.extend((time.time() + GRACE_SECONDS, write_id) for write_id in write_ids)

    def forget(self, write_ids: Sequence[str]) -> None:
        """Removes writes now."""
        with self._lock:
            self._open().forget(write_ids)

    def writes(self) -> list[LoggedWrite]:
        """Every write that is in it."""
        with self._lock:
            return [
                LoggedWrite(write_id, revision / 1_000_000) for write_id, revision in self._open().document_revisions()
            ]

    def merge(self) -> bool:
        """Makes a FAISS segment of what has come since the last one, if that is worth one."""
        with self._lock:
            last_id = self._open().last_id()
        if last_id < self._merge_at:
            return False
        try:
            built = build_segment(self.path, self._segment_rows)
        except (OSError, sqlite3.Error, RuntimeError) as error:
            raise ResourceUnavailableError(f"building a FAISS segment of {self.path}: {error}") from error
        self._merge_at = last_id + (self._segment_rows if built else max(self._segment_rows // 4, 1))
        return built

    def close(self) -> None:
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def _open(self) -> PassageStore:
        if self._store is None:
            self._store = PassageStore.open(self.path)
        return self._store


def _vectors_alone(write_id: str, write: DocumentWrite, now: float) -> DocumentWrite:
    rows = [
        row._replace(ordinal=number, title="", section="", text="", chunk=b"", sparse=b"[[],[]]", postings=())
        for number, row in enumerate(write.rows)
    ]
    # the revision of a write is when it came: what compaction goes by
    return replace(
        write, doc_id=write_id, generation=write_id, revision=int(now * 1_000_000), job=write_id, rows=tuple(rows)
    )
