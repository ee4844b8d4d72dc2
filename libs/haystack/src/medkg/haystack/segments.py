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
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from medkg.haystack.embedding import Matrix

TAIL_ROWS: Final = 4096  # a longer tail is worth a segment; searching one of this length takes about a millisecond
_MAX_SEGMENT_BYTES = 64 * 1024 * 1024  # of vectors: bounds the memory of a merge
_BATCH = 2048
_MANIFEST = "manifest.json"


class Segment(msgspec.Struct, frozen=True):
    file: str
    after: int
    last_id: int
    rows: int


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


def plan_merge(segments: tuple[Segment, ...], tail_rows: int, max_rows: int) -> tuple[Segment, ...]:
    """Which segments stay as they are when the tail becomes a segment; the others become one with it.

    The last segment is taken in while it is at most twice as long as what follows it: lengths fall geometrically, so
    that there are few of them, and each vector is written again only a logarithmic number of times.
    """
    kept = list(segments)
    merged = tail_rows
    while kept and kept[-1].rows <= 2 * merged and kept[-1].rows + merged <= max_rows:
        merged += kept.pop().rows
    return tuple(kept)


def build_segment(store: Path, min_tail_rows: int = TAIL_ROWS) -> bool:
    """Makes a segment of the tail, if it has at least ``min_tail_rows`` rows and no other process is doing so.

    Says whether it did. Idempotent; may be stopped at any moment.
    """
    folder = segment_folder(store)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _exclusive(folder / "merge.lock") as is_ours, closing(open_for_reading(store)) as connection:
        if not is_ours:
            return False
        connection.execute("BEGIN")  # one snapshot
        facts = dict(connection.execute("SELECT key, value FROM store"))
        if "dimension" not in facts:
            return False
        dimension = int(facts["dimension"])
        manifest = read_manifest(folder, facts["store_id"])
        if manifest is None or manifest.dimension != dimension or manifest.last_id > _last_id(connection):
            manifest = Manifest(facts["store_id"], dimension)
        tail_rows = _count_after(connection, manifest.last_id)
        if tail_rows < min_tail_rows:
            return False
        max_rows = max(_MAX_SEGMENT_BYTES // (4 * dimension), min_tail_rows)
        kept = plan_merge(manifest.segments, tail_rows, max_rows)
        added = list(_write_segments(connection, folder, kept[-1].last_id if kept else 0, max_rows, dimension))
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


def load_segment(folder: Path, segment: Segment) -> Any:
    """The segment as a ``faiss.IndexIDMap`` over exact inner products, mapped into memory and not copied."""
    import faiss  # 37 MB: only in a process that has segments

    return faiss.read_index(str(folder / segment.file), faiss.IO_FLAG_MMAP_IFC)


def _write_segments(
    connection: sqlite3.Connection, folder: Path, after: int, max_rows: int, dimension: int
) -> Iterator[Segment]:
    import faiss

    rows = connection.execute("SELECT id, vector FROM vectors WHERE id > ? ORDER BY id", (after,))
    batch = rows.fetchmany(_BATCH)
    while batch:
        index = faiss.IndexIDMap(faiss.IndexFlatIP(dimension))
        while batch and index.ntotal + len(batch) <= max(max_rows, _BATCH):
            ids, vectors = _matrix(batch, dimension)
            index.add_with_ids(vectors, ids)
            last_id = batch[-1][0]
            batch = rows.fetchmany(_BATCH)
        name = f"{after + 1:012d}-{last_id:012d}-{os.urandom(4).hex()}.faiss"
        temporary = folder / f"{name}.tmp"
        faiss.write_index(index, str(temporary))
        _settle(temporary, folder / name)
        yield Segment(name, after, last_id, index.ntotal)
        after = last_id


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
    for pattern in ("*.faiss", "*.tmp"):
        for path in folder.glob(pattern):
            if path.name not in wanted:
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
