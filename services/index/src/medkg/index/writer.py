"""One tenant's store and the documents that wait for its next commit."""

import asyncio
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medkg.contracts.document import WriteOutcome
from medkg.contracts.errors import PipelineConfigError
from medkg.haystack.passage_store import DocumentWrite, PassageStore
from medkg.haystack.segments import build_segment

logger = logging.getLogger(__name__)

_MAX_DOCUMENTS: Final = 64  # in one commit
_MAX_PASSAGES: Final = 2_000  # in one commit: bounds how long other writers wait

Outcome = WriteOutcome | PipelineConfigError


@dataclass(frozen=True, slots=True)
class _Waiting:
    write: DocumentWrite
    outcome: asyncio.Future[Outcome]


class TenantWriter:
    """Commits documents in turn, as many at once as arrived during the commit before, and builds segments beside."""

    def __init__(self, path: Path, commits: ThreadPoolExecutor, merges: ThreadPoolExecutor, segment_rows: int) -> None:
        self._path = path
        self._commits = commits
        self._merges = merges
        self._segment_rows = segment_rows
        self._store: PassageStore | None = None
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None
        self._merging: asyncio.Task[None] | None = None
        self._merge_at = 0  # the passage id at which the tail is looked at again

    @property
    def is_idle(self) -> bool:
        return self._committing is None and self._merging is None

    async def write(self, write: DocumentWrite) -> Outcome:
        """Returns once the document is committed. What raises, raises for all documents of the commit."""
        entry = _Waiting(write, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
        return await entry.outcome

    async def aclose(self) -> None:
        """Finishes what was begun."""
        for task in (self._committing, self._merging):
            if task is not None:
                await asyncio.wait([task])
        self.close()

    def close(self) -> None:
        """Only for an idle writer."""
        if self._store is not None:
            self._store.close()
            self._store = None

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = self._take()
                try:
                    outcomes, last_id = await loop.run_in_executor(self._commits, self._commit, batch)
                except Exception as error:  # noqa: BLE001  told to everybody who waits for it
                    for entry in batch:
                        if not entry.outcome.done():
                            entry.outcome.set_exception(error)
                else:
                    for entry, outcome in zip(batch, outcomes, strict=True):
                        if not entry.outcome.done():  # who stopped waiting was written all the same
                            entry.outcome.set_result(outcome)
                    if self._merging is None and last_id >= self._merge_at:
                        self._merging = asyncio.create_task(self._merge(last_id))
        finally:
            self._committing = None

    def _take(self) -> list[_Waiting]:
        passages = count = 0
        for entry in self._waiting[:_MAX_DOCUMENTS]:
            passages += len(entry.write.rows)
            count += 1
            if passages >= _MAX_PASSAGES:
                break
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def _commit(self, batch: list[_Waiting]) -> tuple[list[Outcome], int]:
        if self._store is None:
            self._store = PassageStore.open(self._path)
        return self._store.write([entry.write for entry in batch]), self._store.last_id()

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
