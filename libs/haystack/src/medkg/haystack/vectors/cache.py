"""Segments on the local disk, from which they are mapped into memory: verified by their digest, and bounded in size."""

import asyncio
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.haystack.embedding import Matrix
from medkg.haystack.graphs import SegmentKind, search
from medkg.haystack.vectors.encoding import decode, encode
from medkg.haystack.vectors.folder import VectorFolder
from medkg.haystack.vectors.manifest import Segment
from medkg.haystack.vectors.rows import Columns

logger = logging.getLogger(__name__)

DEFAULT_CACHE_BYTES: Final = 32 * 1024**3
_UNFINISHED_SECONDS = 3_600
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, eq=False)
class LoadedSegment:
    """A segment, ready to be searched. Its file may be removed meanwhile: what is mapped stays."""

    segment: Segment
    index: Any
    columns: Columns

    def search(
        self, query: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and numbers of the ``k`` nearest rows, of ``rows`` where these are given."""
        if rows is not None and not len(rows):
            return np.empty(0, np.float32), np.empty(0, np.int64)
        segment = self.segment
        return search(self.index, segment.kind, segment.effort, query, min(k, segment.rows), rows)

    def read(self, rows: NDArray[np.int64]) -> Matrix:
        """The vectors of some rows, as they were given."""
        if self.segment.kind is SegmentKind.IVF:
            self.index.make_direct_map()
        vectors: Matrix = self.index.reconstruct_batch(rows)
        return vectors


class SegmentCache:
    """A folder that any number of processes share. It may be deleted at any time, and is made again.

    When it holds more than ``max_bytes`` those that were not opened for longest are removed; a single segment that is
    longer is kept all the same, as it cannot be searched otherwise.
    """

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes

    async def open(self, folder: VectorFolder, segment: Segment) -> LoadedSegment | None:
        """The segment, fetched if it is not here; None where the blob store has it no more.

        Raises:
            ContractError: the blob store holds other bytes than the manifest says.
            ResourceUnavailableError: the blob store does not answer, or the disk is full.
        """
        index_key, columns_key = folder.segment_keys(segment)
        for _ in range(_ATTEMPTS):
            index = await self._file(folder, index_key, segment.index_digest, segment.index_bytes)
            columns = await self._file(folder, columns_key, segment.columns_digest, segment.columns_bytes)
            if index is None or columns is None:
                return None
            try:
                loaded = await asyncio.to_thread(_load, segment, index, columns, folder.dimension)
            except FileNotFoundError:
                continue  # removed by another process that made room
            except (OSError, RuntimeError, ValueError) as error:  # what FAISS and NumPy raise
                raise ContractError(
                    f"reading {index_key}: {error}; the bytes are those that were written: `medkg index verify` says "
                    "what is affected"
                ) from error
            await asyncio.to_thread(self._make_room, {index, columns})
            return loaded
        raise ResourceUnavailableError(f"reading {index_key} from {self.folder}: it is removed all the time")

    def file_of(self, digest: str) -> Path:
        return self.folder / digest

    def temporary(self) -> Path:
        """A name for a file that becomes one of the cache."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self.folder / f"{secrets.token_hex(8)}.part"

    async def _file(self, folder: VectorFolder, key: str, digest: str, size: int) -> Path | None:
        path = self.file_of(digest)
        try:
            fault = await asyncio.to_thread(_fault, path, digest, size)
            if fault:
                logger.warning("segment file %s in the cache is refused: %s; it is fetched again", path, fault)
            if fault is not None and not await self._fetch(folder, key, digest, size):
                return None
        except OSError as error:
            raise ResourceUnavailableError(f"keeping {key} in {self.folder}: {error}") from error
        return path

    async def _fetch(self, folder: VectorFolder, key: str, digest: str, size: int) -> bool:
        temporary = self.temporary()
        try:
            if not await folder.fetch(key, temporary):
                return False
            if fault := await asyncio.to_thread(_fault, temporary, digest, size):
                raise ContractError(
                    f"reading {key} in the blob store: {fault}; restore the object, or submit the documents again "
                    "to another index"
                )
            temporary.replace(self.file_of(digest))
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _make_room(self, wanted: Iterable[Path]) -> None:
        """Removes what was not opened for longest, until the rest fits."""
        now = time.time()
        for path in wanted:
            with suppress(FileNotFoundError):
                os.utime(path, (now, now))
        known: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                status = path.stat()
                if path.suffix == ".part":
                    if status.st_mtime < now - _UNFINISHED_SECONDS:
                        path.unlink(missing_ok=True)
                    continue
                known.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in known)
        kept = set(wanted)
        for _, size, path in sorted(known):
            if total <= self._max_bytes:
                break
            if path not in kept:
                path.unlink(missing_ok=True)
                total -= size


def write_segment(cache: SegmentCache, index: Any, columns: Columns, dimension: int) -> tuple[tuple[str, int], ...]:
    """Puts a segment that was built into the cache; digest and size of its index and of its columns."""
    import faiss

    written = []
    for is_index in (True, False):
        temporary = cache.temporary()
        try:
            if is_index:
                faiss.write_index(index, str(temporary))
            else:
                temporary.write_bytes(encode(columns, None, dimension))
            digest, size = digest_of(temporary), temporary.stat().st_size
            temporary.replace(cache.file_of(digest))
        finally:
            temporary.unlink(missing_ok=True)
        written.append((digest, size))
    return tuple(written)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, read a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fault(path: Path, digest: str, size: int) -> str | None:
    """Why a file is not the one that is wanted; empty where there is none, None where it is."""
    try:
        there = path.stat().st_size
        if there != size:
            return f"it has {there} bytes and not {size}"
        return None if digest_of(path) == digest else f"its {size} bytes do not have the digest {digest[:12]}…"
    except FileNotFoundError:
        return ""


def _load(segment: Segment, index_path: Path, columns_path: Path, dimension: int) -> LoadedSegment:
    import faiss  # 37 MB: only in a process that has segments

    columns, _ = decode(columns_path.read_bytes(), dimension)
    if not index_path.exists():
        raise FileNotFoundError(index_path)  # FAISS raises a RuntimeError for it
    index = faiss.read_index(str(index_path), faiss.IO_FLAG_MMAP_IFC)
    if not index.ntotal == columns.rows == segment.rows or index.d != dimension:
        raise ValueError(f"{index.ntotal} vectors of dimension {index.d} for {columns.rows} rows, not {segment.rows}")
    return LoadedSegment(segment, index, columns)
