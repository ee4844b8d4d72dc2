"""Dense search: exact inner products over FAISS segments and the tail that is in none of them yet."""

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medkg.haystack.embedding import Matrix
from medkg.haystack.fusion import Scored
from medkg.haystack.segments import Manifest, load_segment, read_manifest, read_vectors, segment_folder


@dataclass(frozen=True, slots=True)
class _View:
    """What one search looks at; replaced whole, never changed."""

    manifest: Manifest
    loaded: dict[str, Any]
    tail_ids: NDArray[np.int64]
    tail: Matrix
    seen: int  # the highest id that segments and tail together account for


class DenseIndex:
    """The vectors of one store in memory, kept up to date by what each search finds new. Thread-safe."""

    def __init__(self, store: Path, store_id: str, dimension: int) -> None:
        self._folder = segment_folder(store)
        self._store_id = store_id
        self._dimension = dimension
        self._lock = threading.Lock()
        self._view = self._empty(Manifest(store_id, dimension), {})

    def search(self, connection: sqlite3.Connection, query: NDArray[np.floating], limit: int) -> list[Scored]:
        """Ids of passages that ``connection``'s snapshot holds, with their cosine, nearest first.

        ``query`` has unit length, as the stored vectors do.
        """
        view = self._refresh(connection)
        wanted = limit
        while True:
            nearest, exhausted = _nearest(view, np.ascontiguousarray(query, dtype=np.float32), wanted)
            alive = _alive(connection, nearest)
            if len(alive) >= limit or exhausted:
                return alive[:limit]
            wanted *= 4  # many of the nearest were deleted since their segment was built

    def _refresh(self, connection: sqlite3.Connection) -> _View:
        with self._lock:
            view = self._view
            manifest = read_manifest(self._folder, self._store_id)
            if manifest is not None and manifest.dimension == self._dimension and manifest != view.manifest:
                view = self._reload(view, manifest)
            ids, vectors = read_vectors(connection, view.seen, self._dimension)
            if len(ids):
                view = _View(
                    view.manifest,
                    view.loaded,
                    np.concatenate([view.tail_ids, ids]),
                    np.concatenate([view.tail, vectors]),
                    int(ids[-1]),
                )
            self._view = view
            return view

    def _reload(self, view: _View, manifest: Manifest) -> _View:
        try:
            loaded = {s.file: view.loaded.get(s.file) or load_segment(self._folder, s) for s in manifest.segments}
        except (OSError, RuntimeError):  # FAISS raises RuntimeError for a file that a merge has replaced meanwhile
            return view  # the next search reads the newer manifest; until then the old view is as true
        if manifest.last_id > view.seen:
            return self._empty(manifest, loaded)
        after = view.tail_ids > manifest.last_id
        return _View(manifest, loaded, view.tail_ids[after], view.tail[after], view.seen)

    def _empty(self, manifest: Manifest, loaded: dict[str, Any]) -> _View:
        no_vectors = np.empty((0, self._dimension), dtype=np.float32)
        return _View(manifest, loaded, np.empty(0, dtype=np.int64), no_vectors, manifest.last_id)


def _nearest(view: _View, query: NDArray[np.float32], wanted: int) -> tuple[list[Scored], bool]:
    """Up to ``wanted`` of the nearest, and whether these are all there are."""
    ids: list[NDArray[np.int64]] = []
    scores: list[NDArray[np.float32]] = []
    total = len(view.tail_ids)
    for index in view.loaded.values():
        total += index.ntotal
        found_scores, found_ids = index.search(query[None, :], min(wanted, index.ntotal))
        ids.append(found_ids[0])
        scores.append(found_scores[0])
    ids.append(view.tail_ids)
    scores.append(view.tail @ query)
    all_ids, all_scores = np.concatenate(ids), np.concatenate(scores)
    if len(all_ids) > wanted:
        best = np.argpartition(-all_scores, wanted - 1)[:wanted]
        all_ids, all_scores = all_ids[best], all_scores[best]
    order = np.lexsort((all_ids, -all_scores))
    return list(zip(all_ids[order].tolist(), all_scores[order].tolist(), strict=True)), wanted >= total


def _alive(connection: sqlite3.Connection, nearest: list[Scored]) -> list[Scored]:
    ids = [item for item, _ in nearest]
    alive: set[int] = set()
    for start in range(0, len(ids), 500):  # far below SQLite's bound on variables
        part = ids[start : start + 500]
        marks = ", ".join("?" * len(part))
        rows = connection.execute(f"SELECT id FROM vectors WHERE id IN ({marks})", part)  # noqa: S608  only question marks
        alive.update(row[0] for row in rows)
    return [scored for scored in nearest if scored[0] in alive]
