"""Reading one embedded store: moments of it, in which nothing changes whatever is written meanwhile."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.haystack.dense import DenseIndex, DenseView, search_dense
from medkg.haystack.filtering import Sieve
from medkg.haystack.passage_database import check_version
from medkg.haystack.segments import open_for_reading
from medkg.haystack.stores import Filters, IndexFacts


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
        self._idle: list[_Open] = []
        self._dense: tuple[str, int, DenseIndex | None] = ("", 0, None)  # replaced whole
        self._is_closed = False
        with self._opened() as opened:
            connection = opened.connection
            if connection.execute("PRAGMA user_version").fetchone() == (0,):
                raise FileNotFoundError(f"{path} is being made")  # by a writer that has not committed its tables yet
            check_version(connection, path)

    def is_current(self) -> bool:
        """False once the file was deleted or another one stands in its place."""
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    @contextmanager
    def snapshot(self) -> Iterator["Snapshot"]:
        """One moment of the store, whatever is written meanwhile."""
        while True:
            *indexed, dense = self._dense
            # before the transaction begins: see DenseView
            view = dense.view() if dense is not None else None
            with self._opened() as opened:
                connection = opened.connection
                stored = dict(connection.execute("SELECT key, value FROM store"))
                model, dimension = stored.get("model", ""), int(stored.get("dimension", "0"))
                if indexed == [model, dimension]:
                    facts = IndexFacts(model, dimension, stored.get("sparse_model", ""))
                    yield Snapshot(opened, facts, dense, view)
                    return
            self._dense = (model, dimension, DenseIndex(self._path, stored["store_id"], dimension))

    def close(self) -> None:
        """Closes what is idle now, and the rest when its search ends."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for opened in idle:
            opened.connection.close()

    @contextmanager
    def _opened(self) -> Iterator["_Open"]:
        """A connection inside a read transaction: everything it reads is of one moment."""
        try:
            with self._lock:
                opened = self._idle.pop() if self._idle else None
            opened = opened or _Open(open_for_reading(self._path))
            opened.connection.execute("BEGIN")
        except sqlite3.Error as error:
            raise ResourceUnavailableError(f"reading the search index {self._path}: {error}") from error
        try:
            yield opened
            opened.connection.execute("COMMIT")
        except sqlite3.Error as error:
            opened.connection.close()
            raise ResourceUnavailableError(f"reading the search index {self._path}: {error}") from error
        except BaseException:
            opened.connection.close()
            raise
        with self._lock:
            if not self._is_closed:
                self._idle.append(opened)
                return
        opened.connection.close()


@dataclass(slots=True)
class _Open:
    """A connection, and how many passages there were when it last saw that something had been written."""

    connection: sqlite3.Connection
    version: int = -1
    passages: int = 0

    def count_passages(self) -> int:
        """Of the moment. Counting reads every document, so it is done only after a write."""
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        if version != self.version:
            (found,) = self.connection.execute("SELECT coalesce(sum(passages), 0) FROM documents").fetchone()
            self.version, self.passages = version, found
        return self.passages


class Snapshot:
    """One moment of a store. Not for two threads at once."""

    def __init__(self, opened: "_Open", facts: IndexFacts, dense: DenseIndex | None, view: DenseView | None) -> None:
        self._opened = opened
        self.connection = opened.connection
        self.facts = facts
        self._dense = dense
        self._view = view
        self._sieves: dict[Filters, Sieve] = {}

    @property
    def passages(self) -> int:
        """How many there are."""
        return self._opened.count_passages()

    def sieve(self, filters: Filters) -> Sieve | None:
        """Of the moment; what it finds out serves all searches with these filters. None without filters.

        Raises:
            ContractError: more values than anybody types.
        """
        if not filters:
            return None
        if filters not in self._sieves:
            self._sieves[filters] = Sieve(self.connection, filters)
        return self._sieves[filters]

    def dense(self, vector: NDArray[np.floating], limit: int, sieve: Sieve | None = None) -> list[tuple[int, float]]:
        """Ids of passages with their inner product, nearest first.

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
        view = self._view = self._dense.caught_up(self._view, self.connection)

        def search(wanted: int, ids: NDArray[np.int64] | None) -> list[tuple[int, float]]:
            return search_dense(view, self.connection, vector, wanted, ids)

        return sieve.first(search, limit) if sieve else search(limit, None)
