"""Exact nearest neighbours over segments and tail, held against a plain matrix product."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medkg.haystack.dense import DenseIndex, search_dense
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.segments import build_segment, open_for_reading

DIMENSION = 8
RANDOM = np.random.default_rng(7)


class VectorsAlone:
    """A store that has nothing but vectors: ids and rows as the test puts them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = PassageStore.open(path)
        self._connection = self._writer._connection
        self._connection.execute("INSERT INTO store VALUES ('dimension', ?)", (str(DIMENSION),))
        (self.store_id,) = self._connection.execute("SELECT value FROM store WHERE key = 'store_id'").fetchone()
        self.rows: dict[int, NDArray[np.float32]] = {}
        self._last = 0

    def add(self, count: int) -> None:
        for _ in range(count):
            self._last += 1
            row = RANDOM.normal(size=DIMENSION).astype("<f4")
            self.rows[self._last] = row / np.linalg.norm(row)
            values = (self._last, self.rows[self._last].tobytes())
            self._connection.execute("INSERT INTO vectors VALUES (?, ?)", values)
            self._connection.execute("INSERT INTO passages VALUES (?, 'd', 0, '', '', '', '', '', '')", (self._last,))

    def delete(self, ids: list[int]) -> None:
        for passage in ids:
            del self.rows[passage]
            self._connection.execute("DELETE FROM vectors WHERE id = ?", (passage,))

    def nearest(self, query: NDArray[np.float32], limit: int) -> list[int]:
        return sorted(self.rows, key=lambda passage: -float(self.rows[passage] @ query))[:limit]

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorsAlone]:
    vectors = VectorsAlone(tmp_path / "passages.sqlite")
    yield vectors
    vectors.close()


@pytest.fixture
def reader(store: VectorsAlone) -> Iterator[sqlite3.Connection]:
    connection = open_for_reading(store.path)
    yield connection
    connection.close()


def ask(
    index: DenseIndex, reader: sqlite3.Connection, query: NDArray[np.float32], limit: int
) -> list[tuple[int, float]]:
    return search_dense(index.caught_up(index.view(), reader), reader, query, limit)


def check(index: DenseIndex, reader: sqlite3.Connection, store: VectorsAlone, limit: int = 10) -> None:
    for _ in range(3):
        query = RANDOM.normal(size=DIMENSION).astype(np.float32)
        query /= np.linalg.norm(query)
        found = ask(index, reader, query, limit)
        assert [passage for passage, _ in found] == store.nearest(query, limit)
        assert [score for _, score in found] == pytest.approx(
            [float(store.rows[passage] @ query) for passage, _ in found], abs=1e-5
        )


def test_every_state_of_segments_and_tail_gives_the_exact_neighbours(
    store: VectorsAlone, reader: sqlite3.Connection
) -> None:
    index = DenseIndex(store.path, store.store_id, DIMENSION)
    check(index, reader, store)  # nothing at all
    for _ in range(6):
        store.add(25)
        check(index, reader, store)  # a longer tail
        assert build_segment(store.path, 1)
        check(index, reader, store)  # the tail became a segment under an open reader
        check(DenseIndex(store.path, store.store_id, DIMENSION), reader, store)
    check(index, reader, store, limit=500)


def test_deleted_passages_make_room_for_the_next_nearest(store: VectorsAlone, reader: sqlite3.Connection) -> None:
    store.add(200)
    assert build_segment(store.path, 1)
    store.add(20)
    index = DenseIndex(store.path, store.store_id, DIMENSION)
    check(index, reader, store)
    query = RANDOM.normal(size=DIMENSION).astype(np.float32)
    store.delete(store.nearest(query / np.linalg.norm(query), 150))
    found = ask(index, reader, query / np.linalg.norm(query), 10)
    assert [passage for passage, _ in found] == store.nearest(query / np.linalg.norm(query), 10)
    assert len(ask(index, reader, query, 500)) == 70
    check(index, reader, store)


def test_a_merge_drops_what_was_deleted(store: VectorsAlone, reader: sqlite3.Connection) -> None:
    store.add(40)
    assert build_segment(store.path, 1)
    store.delete(list(range(1, 31)))
    store.add(40)
    assert build_segment(store.path, 1)
    files = list(store.path.with_suffix(".segments").glob("*.faiss"))
    assert len(files) == 1
    check(DenseIndex(store.path, store.store_id, DIMENSION), reader, store, limit=100)


def test_a_view_taken_before_a_merge_finds_what_was_deleted_after_it(
    store: VectorsAlone, reader: sqlite3.Connection
) -> None:
    store.add(60)
    assert build_segment(store.path, 1)
    index = DenseIndex(store.path, store.store_id, DIMENSION)
    view = index.view()
    reader.execute("BEGIN")
    assert len(search_dense(view, reader, store.rows[40], 60)) == 60
    store.delete(list(range(1, 31)))
    assert build_segment(store.path, 1, whole=True)
    assert len(search_dense(index.caught_up(view, reader), reader, store.rows[40], 60)) == 60
    reader.execute("COMMIT")
    assert len(search_dense(index.caught_up(index.view(), reader), reader, store.rows[40], 60)) == 30
