"""Looking after an index: what every store can be asked to do, and how the embedded one does it."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from medkg.contracts.errors import ResourceUnavailableError
from medkg.haystack.inspection import problems
from medkg.haystack.passage_database import DEFAULT_INDEX, store_path
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.segments import build_segment

Say = Callable[[str], None]  # told what is being done, in words, as it goes on


@dataclass(frozen=True, slots=True)
class Findings:
    """What an index holds. ``problems`` are contradictions that readers could notice, in words.

    ``leftover_passages`` were left by writers that died: nobody sees them, compaction removes them.
    """

    exists: bool
    documents: int = 0
    passages: int = 0
    leftover_passages: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compaction:
    """What compaction removed, or would remove."""

    leftover_passages: int = 0
    leftover_vectors: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """What was written anew, or would be."""

    documents: int = 0
    passages: int = 0


class Upkeep(Protocol):
    """Every command may run while readers and writers are at work, and may be run again after it was stopped."""

    async def verify(self, tenant_id: str, say: Say) -> Findings:
        """Reads the whole index of a tenant and changes nothing."""
        ...

    async def compact(self, tenant_id: str, say: Say, *, dry_run: bool) -> Compaction:
        """Removes what nobody sees, and makes the FAISS segments anew without what was deleted."""
        ...

    async def rebuild(self, tenant_id: str, say: Say, *, dry_run: bool) -> Rebuilding:
        """Makes everything that is derived anew, from the passages: searches go on meanwhile."""
        ...

    async def aclose(self) -> None: ...


class EmbeddedUpkeep:
    """See :class:`Upkeep`; the embedded store needs little, as SQLite leaves no halves behind."""

    def __init__(self, data_dir: Path, index: str = DEFAULT_INDEX) -> None:
        self._data_dir = data_dir
        self._index = index

    async def verify(self, tenant_id: str, say: Say) -> Findings:
        path = store_path(self._data_dir, tenant_id, self._index)
        if not path.exists():
            return Findings(exists=False)
        say(f"reading {path}")
        documents, passages = await asyncio.to_thread(_counts, path)
        return Findings(True, documents, passages, problems=tuple(await asyncio.to_thread(problems, path)))

    async def compact(self, tenant_id: str, say: Say, *, dry_run: bool) -> Compaction:
        path = store_path(self._data_dir, tenant_id, self._index)
        if not path.exists():
            return Compaction()
        before = size_of(path)
        if not dry_run:
            await asyncio.to_thread(_compact, path, say)
        return Compaction(bytes_before=before, bytes_after=size_of(path))

    async def rebuild(self, tenant_id: str, say: Say, *, dry_run: bool) -> Rebuilding:
        path = store_path(self._data_dir, tenant_id, self._index)
        if not path.exists():
            return Rebuilding()
        counts = await asyncio.to_thread(_counts, path)
        if not dry_run:
            await asyncio.to_thread(_rebuild, path, say)
        return Rebuilding(*counts)

    async def aclose(self) -> None:
        """Nothing is held."""


def size_of(store: Path) -> int:
    """Bytes of a store and its segments on disk."""
    files = [*store.parent.glob(f"{store.name}*"), *store.with_suffix(".segments").glob("*")]
    return sum(path.stat().st_size for path in files if path.is_file())


def compact_store(path: Path, say: Say) -> None:
    """Makes the segments of one SQLite store anew and gives back what its file does not need."""
    say("making the FAISS segments anew")
    build_segment(path, 1, whole=True)
    say("giving back the space of what was deleted")
    store = PassageStore.open(path)
    try:
        store.tidy()
    finally:
        store.close()


def _compact(path: Path, say: Say) -> None:
    try:
        compact_store(path, say)
    except (OSError, sqlite3.Error, RuntimeError) as error:
        raise ResourceUnavailableError(f"compacting {path}: {error}") from error


def _rebuild(path: Path, say: Say) -> None:
    store = PassageStore.open(path)
    try:
        say("indexing words and terms again")
        store.rebuild()
    finally:
        store.close()
    _compact(path, say)


def _counts(path: Path) -> tuple[int, int]:
    store = PassageStore.open(path)
    try:
        return store.counts()
    finally:
        store.close()
