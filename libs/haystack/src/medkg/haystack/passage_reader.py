"""Reading one store: the three kinds of search on one snapshot, fused, and the passages that were found."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from medkg.contracts.document import Chunk, Provenance
from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.haystack.dense import DenseIndex, DenseView, search_dense
from medkg.haystack.fusion import Fused, fuse
from medkg.haystack.hashing import MODEL_PREFIX
from medkg.haystack.impacts import IMPACTS
from medkg.haystack.lexical import search_lexical
from medkg.haystack.passage_store import check_version
from medkg.haystack.segments import open_for_reading
from medkg.haystack.sparse import search_impacts
from medkg.haystack.stores import IndexFacts

LEXICAL, DENSE, SPARSE = "bm25", "dense", "sparse"
_DEPTH: Final = 100  # passages that each kind of search names, at least
_SPARSE_WEIGHT: Final = 0.3  # impacts count the words that BM25 counts: a second opinion, not a second vote
_HASHING_WEIGHT: Final = 0.01  # hashed words are a blurred BM25: they fill up the list and do not reorder it
_CHUNK = msgspec.json.Decoder(Chunk)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found. ``legs`` says at which rank (1-based) by which kind of search."""

    chunk_id: str
    doc_id: str
    title: str
    source: str
    source_id: str
    section_path: tuple[str, ...]
    text: str
    provenance: Provenance | None
    score: float
    legs: dict[str, int]


@dataclass(frozen=True, slots=True)
class QueryVector:
    """A query of unit length, and the model that it was embedded with."""

    model: str
    values: NDArray[np.float32]


class PassageReader:
    """One store, opened for reading. Thread-safe: each search has a connection of its own while it runs."""

    def __init__(self, path: Path) -> None:
        """Opens the store.

        Raises:
            FileNotFoundError: there is none.
            ConfigurationError: it was made by another version of medkg.
        """
        self._inode = path.stat().st_ino
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._dense: tuple[str, int, DenseIndex | None] = ("", 0, None)  # replaced whole
        self._is_closed = False
        with self._connection() as connection:
            if connection.execute("PRAGMA user_version").fetchone() == (0,):
                raise FileNotFoundError(f"{path} is being made")  # by a writer that has not committed its tables yet
            check_version(connection, path)

    def is_current(self) -> bool:
        """False once the file was deleted or another one stands in its place."""
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def model(self) -> str:
        """The model of the dense vectors; empty while the index has none."""
        with self._connection() as connection:
            row = connection.execute("SELECT value FROM store WHERE key = 'model'").fetchone()
            return row[0] if row else ""

    def search(self, query: str, vector: QueryVector | None, limit: int) -> tuple[tuple[Hit, ...], tuple[str, ...]]:
        """The best passages, and the kinds of search that could not be made.

        Raises:
            ResourceUnavailableError: the file cannot be read now.
        """
        depth = max(_DEPTH, 2 * limit)
        with self.snapshot() as moment:
            legs: dict[str, list[tuple[int, float]]] = {LEXICAL: search_lexical(moment.connection, query, depth)}
            if vector is not None and vector.model == moment.facts.model:
                legs[DENSE] = moment.dense(vector.values, depth)
            if moment.facts.sparse_model == IMPACTS:
                legs[SPARSE] = search_impacts(moment.connection, query, depth)
            hits = _hits(moment.connection, fuse(legs, _weights(moment.facts)), limit)
        return hits, tuple(leg for leg in (LEXICAL, DENSE, SPARSE) if leg not in legs)

    @contextmanager
    def snapshot(self) -> Iterator["Snapshot"]:
        """One moment of the store, whatever is written meanwhile."""
        while True:
            *indexed, dense = self._dense
            # before the transaction begins: see DenseView
            view = dense.view() if dense is not None else None
            with self._connection() as connection:
                stored = dict(connection.execute("SELECT key, value FROM store"))
                model, dimension = stored.get("model", ""), int(stored.get("dimension", "0"))
                if indexed == [model, dimension]:
                    (passages,) = connection.execute("SELECT coalesce(sum(passages), 0) FROM documents").fetchone()
                    facts = IndexFacts(model, dimension, stored.get("sparse_model", ""), passages)
                    yield Snapshot(connection, facts, dense, view)
                    return
            self._dense = (model, dimension, DenseIndex(self._path, stored["store_id"], dimension))

    def close(self) -> None:
        """Closes what is idle now, and the rest when its search ends."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a read transaction: everything it reads is of one moment."""
        try:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            connection = connection or open_for_reading(self._path)
            connection.execute("BEGIN")
        except sqlite3.Error as error:
            raise ResourceUnavailableError(f"reading the search index {self._path}: {error}") from error
        try:
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            connection.close()
            raise ResourceUnavailableError(f"reading the search index {self._path}: {error}") from error
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()


class Snapshot:
    """One moment of a store. Not for two threads at once."""

    def __init__(
        self, connection: sqlite3.Connection, facts: IndexFacts, dense: DenseIndex | None, view: DenseView | None
    ) -> None:
        self.connection = connection
        self.facts = facts
        self._dense = dense
        self._view = view

    def dense(
        self, vector: NDArray[np.floating], limit: int, allowed: NDArray[np.int64] | None = None
    ) -> list[tuple[int, float]]:
        """Ids of passages with their inner product, nearest first; of the ``allowed`` ones where these are given.

        Raises:
            ContractError: the vector has another dimension than the index.
        """
        if self._dense is None or self._view is None:
            return []
        if vector.shape != (self.facts.dimension,):
            raise ContractError(
                f"searching vectors of dimension {self.facts.dimension} ({self.facts.model}) with one of shape "
                f"{vector.shape}: is the query embedded with the model of the index?"
            )
        self._view = self._dense.caught_up(self._view, self.connection)
        return search_dense(self._view, self.connection, vector, limit, allowed)


def _weights(facts: IndexFacts) -> dict[str, float]:
    """How much each kind of search has to say; measured on SciFact in ``tests/unit/index/test_scifact.py``."""
    is_hashing = facts.model.startswith(MODEL_PREFIX)
    return {LEXICAL: 1.0, DENSE: _HASHING_WEIGHT if is_hashing else 1.0, SPARSE: _SPARSE_WEIGHT}


def _hits(connection: sqlite3.Connection, fused: Sequence[Fused[int]], limit: int) -> tuple[Hit, ...]:
    """The best passages with their texts. Of passages of one document with the same text only the best is kept."""
    hits: list[Hit] = []
    seen: set[tuple[str, str]] = set()
    for found in fused:
        row = connection.execute("SELECT title, text, chunk FROM passages WHERE id = ?", (found.item,)).fetchone()
        title, text, chunk = row[0], row[1], _CHUNK.decode(row[2])
        if (chunk.doc_id, text) in seen:
            continue
        # equal scores are put in an order that another store with the same passages has, too
        if len(hits) >= limit and found.score < hits[limit - 1].score:
            break
        seen.add((chunk.doc_id, text))
        hits.append(
            Hit(
                chunk_id=chunk.chunk_id,
                doc_id=chunk.doc_id,
                title=title,
                source=str(chunk.metadata.get("source", "")),
                source_id=str(chunk.metadata.get("source_id", "")),
                section_path=chunk.section_path,
                text=text,
                provenance=chunk.provenance,
                score=found.score,
                legs=found.ranks,
            )
        )
    hits.sort(key=lambda hit: (-hit.score, hit.doc_id, hit.chunk_id))
    return tuple(hits[:limit])
