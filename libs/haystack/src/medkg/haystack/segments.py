"""FAISS segments: vectors of the store in a form that is fast to search. Derived, immutable, and safe to delete.

A segment holds the vectors of the passages with ids in ``(after, last_id]`` that lived when it was built; the ids of
all segments together end at ``Manifest.last_id``, and what comes after (the tail) is read from SQLite. A segment file
is complete before the manifest names it, and the manifest is replaced in one step: whoever dies when, readers see the
old segments or the new ones. Passages that were deleted since are filtered out by the reader.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from medkg.haystack.embedding import Matrix
from medkg.haystack.graphs import SegmentKind, build, search
from medkg.haystack.vectors.manifest import plan_merge

TAIL_ROWS: Final = 4096  # a longer tail is worth a segment; searching one of this length takes about a millisecond
_MAX_SEGMENT_BYTES = 512 * 1024 * 1024  # of vectors: bounds the memory of a merge
_BATCH = 2048
_MANIFEST = "manifest.json"


class Segment(msgspec.Struct, frozen=True):
    """``effort`` is how hard an approximate segment is searched, ``recall`` (at 10) what that was measured to find."""

    file: str
    after: int
    last_id: int
    rows: int
    kind: SegmentKind = SegmentKind.FLAT
    effort: int = 0
    recall: float = 1.0


@dataclass(frozen=True, slots=True)
class LoadedSegment:
    """A segment, ready to be searched: the FAISS index over its rows, and the passage id of each row, ascending."""

    segment: Segment
    index: Any
    ids: NDArray[np.int64]

    def search(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and passage ids of the ``k`` nearest, of the ``allowed`` ids (ascending) where these are given."""
        rows = None
        if allowed is not None:
            rows = np.flatnonzero(np.isin(self.ids, allowed, assume_unique=True))
            if not len(rows):
                return np.empty(0, np.float32), np.empty(0, np.int64)
        segment = self.segment
        scores, found = search(self.index, segment.kind, segment.effort, query, min(k, segment.rows), rows)
        return scores, self.ids[found]


class Manifest(msgspec.Struct, frozen=True):
    """The segments of the database ``store_id``, in the order of their ids."""

    store_id: str
    dimension: int
    segments: tuple[Segment, ...] = ()

    @property
    def last_id(self) -> int:
        return self.segments[-1].last_id if self.segments else 0


def segment_folder(store: Path) -> Path:
    return store.with_suffix(".segments")


def read_manifest(folder: Path, store_id: str) -> Manifest | None:
    """The manifest, if there is a readable one that belongs to this database; without it everything is tail."""
    try:
        manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    return manifest if manifest.store_id == store_id else None


def build_segment(store: Path, min_tail_rows: int = TAIL_ROWS, *, whole: bool = False) -> bool:
    """Makes a segment of the tail, if it has at least ``min_tail_rows`` rows and no other process is doing so.

    ``whole`` makes all segments anew, without the vectors that were deleted since they were built. Says whether it did
    anything. Idempotent; may be stopped at any moment.
    """
    folder = segment_folder(store)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _exclusive(folder / "merge.lock") as is_ours, closing(open_for_reading(store)) as connection:
        if not is_ours:
            return False
        facts = dict(connection.execute("SELECT key, value FROM store"))
        if "dimension" not in facts:
            return False
        dimension = int(facts["dimension"])
        manifest = read_manifest(folder, facts["store_id"])
        if manifest is None or manifest.dimension != dimension or manifest.last_id > _last_id(connection):
            manifest = Manifest(facts["store_id"], dimension)
        tail_rows = _count_after(connection, manifest.last_id)
        if tail_rows < min_tail_rows and not whole:
            return False
        max_rows = max(_MAX_SEGMENT_BYTES // (4 * dimension), min_tail_rows, _BATCH)
        kept = () if whole else plan_merge(manifest.segments, tail_rows, max_rows)
        ids = (kept[-1].last_id if kept else 0, _last_id(connection))
        added = list(_write_segments(connection, folder, ids, max_rows, dimension))
        temporary = folder / f"{_MANIFEST}.tmp"
        temporary.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, segments=(*kept, *added))))
        _settle(temporary, folder / _MANIFEST)
        _remove_others(folder, {segment.file for segment in (*kept, *added)})
        return True


def open_for_reading(store: Path) -> sqlite3.Connection:
    """A connection that cannot write.

    Raises:
        sqlite3.OperationalError: there is no such database.
    """
    uri = f"{store.resolve().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=30.0, isolation_level=None, check_same_thread=False)


def read_vectors(connection: sqlite3.Connection, after: int, dimension: int) -> tuple[NDArray[np.int64], Matrix]:
    """Ids and vectors of the passages with ids above ``after``, in the order of their ids."""
    rows = connection.execute("SELECT id, vector FROM vectors WHERE id > ? ORDER BY id", (after,)).fetchall()
    return _matrix(rows, dimension)


def load_segment(folder: Path, segment: Segment) -> LoadedSegment:
    """The segment, its vectors mapped into memory and not copied.

    Raises:
        OSError: there is no such file any more.
        RuntimeError: FAISS cannot read it.
    """
    import faiss  # 37 MB: only in a process that has segments

    path = folder / segment.file
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    ids = np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    if index.ntotal != len(ids) or len(ids) != segment.rows:
        raise RuntimeError(f"{segment.file} holds {index.ntotal} vectors for {len(ids)} ids, not {segment.rows}")
    return LoadedSegment(segment, index, ids)


def _write_segments(
    connection: sqlite3.Connection, folder: Path, between: tuple[int, int], max_rows: int, dimension: int
) -> Iterator[Segment]:
    """No transaction is open while an index is built: that takes minutes, in which no write-ahead log could be reset.

    What is deleted meanwhile readers leave out, what is added lies behind the last id.
    """
    after, last_id = between
    sql = "SELECT id, vector FROM vectors WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
    while batch := connection.execute(sql, (after, last_id, max_rows)).fetchall():
        ids, vectors = _matrix(batch, dimension)
        del batch
        built = build(vectors)
        name = f"{after + 1:012d}-{ids[-1]:012d}-{os.urandom(4).hex()}.faiss"
        _write_index(built.index, ids, folder / name)
        yield Segment(name, after, int(ids[-1]), len(ids), built.kind, built.effort, built.recall)
        after = int(ids[-1])


def _write_index(index: Any, ids: NDArray[np.int64], path: Path) -> None:
    import faiss

    names = path.with_suffix(".npy")
    temporary = path.with_suffix(".npy.tmp")
    with temporary.open("wb") as file:
        np.save(file, ids)
    _settle(temporary, names)
    temporary = path.with_suffix(".faiss.tmp")
    faiss.write_index(index, str(temporary))
    _settle(temporary, path)


def _matrix(rows: list[tuple[int, bytes]], dimension: int) -> tuple[NDArray[np.int64], Matrix]:
    vectors = np.frombuffer(b"".join([row[1] for row in rows]), dtype="<f4").reshape(len(rows), dimension)
    return np.array([row[0] for row in rows], dtype=np.int64), vectors


def _settle(temporary: Path, path: Path) -> None:
    """Gives a file its name, so that after a power failure it is there whole or not at all."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_others(folder: Path, wanted: set[str]) -> None:
    for pattern in ("*.faiss", "*.npy", "*.tmp"):
        for path in folder.glob(pattern):
            if f"{path.stem}.faiss" not in wanted:
                path.unlink(missing_ok=True)


@contextmanager
def _exclusive(path: Path) -> Iterator[bool]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _last_id(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'passages'").fetchone()
    return row[0] if row else 0


def _count_after(connection: sqlite3.Connection, last_id: int) -> int:
    (rows,) = connection.execute("SELECT count(*) FROM vectors WHERE id > ?", (last_id,)).fetchone()
    return int(rows)
