"""Documents that arrive while a commit is under way share the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from medkg.contracts.document import WriteOutcome
from medkg.contracts.errors import MedkgError
from medkg.haystack.writes import DocumentWrite

_MAX_DOCUMENTS: Final = 64  # in one commit
_MAX_PASSAGES: Final = 2_000  # in one commit: bounds how long other writers wait

Outcome = WriteOutcome | MedkgError
Commit = Callable[[Sequence[DocumentWrite]], Awaitable[Sequence[Outcome]]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    write: DocumentWrite
    outcome: asyncio.Future[Outcome]


class GroupCommit:
    """Commits documents with ``commit``, up to ``lanes`` commits at a time; a document is in one at a time."""

    def __init__(self, commit: Commit, lanes: int = 1) -> None:
        self._commit = commit
        self._lanes = lanes
        self._waiting: list[_Waiting] = []
        self._busy: set[str] = set()
        self._at_work: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        return not self._at_work

    async def write(self, write: DocumentWrite) -> Outcome:
        """Returns once the document is committed. What ``commit`` raises, raises for all documents of the commit."""
        entry = _Waiting(write, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        if len(self._at_work) < self._lanes:
            self._at_work.add(asyncio.create_task(self._work()))
        return await entry.outcome

    async def drain(self) -> None:
        """Returns when nothing is under way any more."""
        while self._at_work:
            await asyncio.wait(self._at_work)

    async def _work(self) -> None:
        while batch := self._take():
            await self._commit_batch(batch)
        # in the same step as the last look, so that nobody arrives in between and is left waiting
        if (task := asyncio.current_task()) is not None:
            self._at_work.discard(task)

    async def _commit_batch(self, batch: list[_Waiting]) -> None:
        try:
            outcomes = await self._commit([entry.write for entry in batch])
        except Exception as error:  # noqa: BLE001  told to everybody who waits for it
            for entry in batch:
                if not entry.outcome.done():
                    entry.outcome.set_exception(error)
        else:
            for entry, outcome in zip(batch, outcomes, strict=True):
                if not entry.outcome.done():  # who stopped waiting was written all the same
                    entry.outcome.set_result(outcome)
        finally:
            self._busy -= {entry.write.doc_id for entry in batch}

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        left: list[_Waiting] = []
        passages = 0
        for entry in self._waiting:
            is_full = len(batch) >= _MAX_DOCUMENTS or (batch and passages >= _MAX_PASSAGES)
            if is_full or entry.write.doc_id in self._busy:
                left.append(entry)
                continue
            self._busy.add(entry.write.doc_id)
            batch.append(entry)
            passages += len(entry.write.rows)
        self._waiting = left
        return batch
