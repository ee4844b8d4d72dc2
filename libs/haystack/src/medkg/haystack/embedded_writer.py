"""Writing to the embedded stores: every document in one transaction, several documents in one commit."""

import asyncio
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from medkg.contracts.document import WriteOutcome
from medkg.contracts.errors import MedkgError
from medkg.haystack.grouping import GroupCommit, Outcome
from medkg.haystack.passage_database import DEFAULT_INDEX, store_path
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.segments import TAIL_ROWS, build_segment
from medkg.haystack.writes import DocumentWrite, Stored, deletion

logger = logging.getLogger(__name__)

_OPEN_TENANTS: Final = 32


class EmbeddedWriter:
    """See :class:`medkg.haystack.stores.PassageWriter`. Used on one event loop.

    Stores may be written by other processes at the same time. ``segment_rows`` new passages become a FAISS segment.
    """

    def __init__(self, data_dir: Path, index: str = DEFAULT_INDEX, segment_rows: int = TAIL_ROWS) -> None:
        self._data_dir = data_dir
        self._index = index
        self._segment_rows = segment_rows
        self._commits = ThreadPoolExecutor(2, thread_name_prefix="index-commit")
        self._merges = ThreadPoolExecutor(1, thread_name_prefix="index-merge")
        self._tenants: OrderedDict[str, _TenantWriter] = OrderedDict()

    async def replace(self, tenant_id: str, write: DocumentWrite) -> WriteOutcome:
        """See :meth:`medkg.haystack.stores.PassageWriter.replace`."""
        outcome = await self._writer(tenant_id).group.write(write)
        if isinstance(outcome, MedkgError):
            raise outcome
        return outcome

    async def delete(self, tenant_id: str, doc_id: str, *, revision: int, job: str) -> WriteOutcome:
        """See :meth:`medkg.haystack.stores.PassageWriter.delete`."""
        return await self.replace(tenant_id, deletion(doc_id, revision, job))

    async def stored(self, tenant_id: str, doc_id: str) -> Stored | None:
        """See :meth:`medkg.haystack.stores.PassageWriter.stored`."""
        return await asyncio.to_thread(_stored, store_path(self._data_dir, tenant_id, self._index), doc_id)

    async def aclose(self) -> None:
        """Finishes what was begun and closes the stores."""
        for writer in self._tenants.values():
            await writer.aclose()
        self._tenants.clear()
        for executor in (self._commits, self._merges):
            await asyncio.to_thread(executor.shutdown)

    def _writer(self, tenant_id: str) -> "_TenantWriter":
        writer = self._tenants.get(tenant_id)
        if writer is None:
            path = store_path(self._data_dir, tenant_id, self._index)
            writer = self._tenants[tenant_id] = _TenantWriter(path, self._commits, self._merges, self._segment_rows)
            for idle in [name for name, other in self._tenants.items() if other.is_idle and other is not writer]:
                if len(self._tenants) <= _OPEN_TENANTS:
                    break
                self._tenants.pop(idle).close()
        self._tenants.move_to_end(tenant_id)
        return writer


class _TenantWriter:
    """Commits documents in turn, as many at once as arrived during the commit before, and builds segments beside."""

    def __init__(self, path: Path, commits: ThreadPoolExecutor, merges: ThreadPoolExecutor, segment_rows: int) -> None:
        self.group = GroupCommit(self._commit)
        self._path = path
        self._commits = commits
        self._merges = merges
        self._segment_rows = segment_rows
        self._store: PassageStore | None = None
        self._merging: asyncio.Task[None] | None = None
        self._merge_at = 0  # the passage id at which the tail is looked at again

    @property
    def is_idle(self) -> bool:
        return self.group.is_idle and self._merging is None

    async def aclose(self) -> None:
        """Finishes what was begun."""
        await self.group.drain()
        if self._merging is not None:
            await asyncio.wait([self._merging])
        self.close()

    def close(self) -> None:
        """Only for an idle writer."""
        if self._store is not None:
            self._store.close()
            self._store = None

    async def _commit(self, writes: Sequence[DocumentWrite]) -> Sequence[Outcome]:
        loop = asyncio.get_running_loop()
        outcomes, last_id = await loop.run_in_executor(self._commits, self._commit_now, writes)
        if self._merging is None and last_id >= self._merge_at:
            self._merging = asyncio.create_task(self._merge(last_id))
        return outcomes

    def _commit_now(self, writes: Sequence[DocumentWrite]) -> tuple[Sequence[Outcome], int]:
        if self._store is None:
            self._store = PassageStore.open(self._path)
        return self._store.write(writes), self._store.last_id()

    async def _merge(self, last_id: int) -> None:
        """Segments only make searches faster: a failure is told, and tried again when more has come."""
        built = False
        try:
            built = await asyncio.get_running_loop().run_in_executor(
                self._merges, build_segment, self._path, self._segment_rows
            )
        except (OSError, sqlite3.Error, RuntimeError) as error:
            logger.warning("building a FAISS segment of %s: %s; searches go on without it", self._path, error)
        finally:
            self._merge_at = last_id + (self._segment_rows if built else max(self._segment_rows // 4, 1))
            self._merging = None


def _stored(path: Path, doc_id: str) -> Stored | None:
    if not path.exists():
        return None
    store = PassageStore.open(path)
    try:
        return store.stored(doc_id)
    finally:
        store.close()
