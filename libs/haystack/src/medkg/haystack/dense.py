"""Dense search: inner products over FAISS segments and the tail that is in none of them yet."""

import sqlite3
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medkg.haystack.embedding import Matrix
from medkg.haystack.segments import LoadedSegment, Manifest, load_segment, read_manifest, read_vectors, segment_folder

_EXPAND = 4  # times as many are asked for where too many of the nearest were deleted since


@dataclass(frozen=True, slots=True)
class DenseView:
    """What one search looks at; replaced whole, never changed.

    Taken before a snapshot begins it holds, together with what :meth:`DenseIndex.caught_up` adds, every vector of the
    snapshot: an id up to ``seen`` that lives in the snapshot lived when the view was made.
    """

    manifest: Manifest
    loaded: dict[str, LoadedSegment]
    tail_ids: NDArray[np.int64]
    tail: Matrix
    seen: int  # the highest id that segments and tail together account for


class DenseIndex:
    """The vectors of one store in memory, kept up to date by what each search finds new. Thread-safe."""

    def __init__(self, store: Path, store_id: str, dimension: int) -> None:
        self._folder = segment_folder(store)
        self._store_id = store_id
        self.dimension = dimension
        self._lock = threading.Lock()
        self._view = self._empty(Manifest(store_id, dimension), {})

    def view(self) -> DenseView:
        """What is known now, with the newest segments."""
        with self._lock:
            manifest = read_manifest(self._folder, self._store_id)
            if manifest is not None and manifest.dimension == self.dimension and manifest != self._view.manifest:
                self._view = self._reload(self._view, manifest)
            return self._view

    def caught_up(self, view: DenseView, connection: sqlite3.Connection) -> DenseView:
        """The view with what ``connection``'s snapshot holds beyond it."""
        ids, vectors = read_vectors(connection, view.seen, self.dimension)
        if not len(ids):
            return view
        view = replace(
            view,
            tail_ids=np.concatenate([view.tail_ids, ids]),
            tail=np.concatenate([view.tail, vectors]),
            seen=int(ids[-1]),
        )
        with self._lock:
            if view.manifest == self._view.manifest and view.seen > self._view.seen:
                self._view = view
        return view

    def _reload(self, view: DenseView, manifest: Manifest) -> DenseView:
        try:
            loaded = {s.file: view.loaded.get(s.file) or load_segment(self._folder, s) for s in manifest.segments}
        except (OSError, RuntimeError, ValueError):  # what FAISS and NumPy raise for a file that a merge has replaced
            return view  # the next search reads the newer manifest; until then the old view is as true
        if manifest.last_id > view.seen:
            return self._empty(manifest, loaded)
        after = view.tail_ids > manifest.last_id
        return DenseView(manifest, loaded, view.tail_ids[after], view.tail[after], view.seen)

    def _empty(self, manifest: Manifest, loaded: dict[str, LoadedSegment]) -> DenseView:
        no_vectors = np.empty((0, self.dimension), dtype=np.float32)
        return DenseView(manifest, loaded, np.empty(0, dtype=np.int64), no_vectors, manifest.last_id)


def search_dense(
    view: DenseView,
    connection: sqlite3.Connection,
    query: NDArray[np.floating],
    limit: int,
    allowed: NDArray[np.int64] | None = None,
) -> list[tuple[int, float]]:
    """Ids of passages that ``connection``'s snapshot holds, with their inner product, nearest first.

    ``query`` has unit length, as the stored vectors do; ``allowed`` names the ids (ascending) that may be found.
    """
    if limit < 1:
        return []  # FAISS refuses to look for nothing
    vector = np.ascontiguousarray(query, dtype=np.float32)
    wanted = limit
    while True:
        nearest, is_all = _nearest(view, vector, wanted, allowed)
        alive = _alive(connection, nearest)
        if len(alive) >= limit or is_all:
            return alive[:limit]
        wanted *= _EXPAND


def _nearest(
    view: DenseView, query: NDArray[np.float32], wanted: int, allowed: NDArray[np.int64] | None
) -> tuple[list[tuple[int, float]], bool]:
    """Up to ``wanted`` of the nearest, and whether these are all there are."""
    found = [segment.search(query, wanted, allowed) for segment in view.loaded.values()]
    total = len(view.tail_ids) + sum(segment.segment.rows for segment in view.loaded.values())
    # not `@`: for one question the threads of a BLAS spin longer than they work
    tail_scores, tail_ids = np.einsum("ij,j->i", view.tail, query), view.tail_ids
    if allowed is not None:
        may = np.isin(tail_ids, allowed, assume_unique=True)
        tail_scores, tail_ids = tail_scores[may], tail_ids[may]
        total = min(total, len(allowed))
    all_scores = np.concatenate([*(scores for scores, _ in found), tail_scores])
    all_ids = np.concatenate([*(ids for _, ids in found), tail_ids])
    if len(all_ids) > wanted:
        best = np.argpartition(-all_scores, wanted - 1)[:wanted]
        all_ids, all_scores = all_ids[best], all_scores[best]
    order = np.lexsort((all_ids, -all_scores))
    return list(zip(all_ids[order].tolist(), all_scores[order].tolist(), strict=True)), wanted >= total


def _alive(connection: sqlite3.Connection, nearest: list[tuple[int, float]]) -> list[tuple[int, float]]:
    ids = [item for item, _ in nearest]
    alive: set[int] = set()
    for start in range(0, len(ids), 500):  # far below SQLite's bound on variables
        part = ids[start : start + 500]
        marks = ", ".join("?" * len(part))
        rows = connection.execute(f"SELECT id FROM vectors WHERE id IN ({marks})", part)  # noqa: S608  only question marks
        alive.update(row[0] for row in rows)
    return [scored for scored in nearest if scored[0] in alive]
