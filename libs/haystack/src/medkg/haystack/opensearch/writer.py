"""Writing documents: words, term weights and vectors of a document, in both stores or in neither.

A write goes through four steps, and may be killed between any two of them:

1. its vectors are stored (in the blob store, or with step 2 where OpenSearch holds them);
2. its passages are stored in OpenSearch, under ids that no other write has;
3. the *switch*: the head of the document is written over the head that was read at the beginning, and names this write;
4. what the former head named is removed from OpenSearch; its vectors go with a later merge, as no head names them.

Readers see of a document what its head names, at one moment (:mod:`medkg.haystack.opensearch.reader`). Before the
switch the write is invisible in both stores, after it the former one is. Two writers of one document exclude each other
by the switch; the one that is late reads again and decides again, so that the order is always that of
:func:`medkg.haystack.writes.decide`. Who is killed before the switch leaves passages that nobody sees: the same write,
delivered again, uses them, and ``medkg index compact`` removes those that no delivery ever comes for.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from medkg.contracts.document import WriteOutcome
from medkg.contracts.errors import MedkgError, ResourceUnavailableError
from medkg.haystack.grouping import GroupCommit, Outcome
from medkg.haystack.opensearch import layout
from medkg.haystack.opensearch.bulk import Action, Result, send
from medkg.haystack.opensearch.client import translated
from medkg.haystack.opensearch.indexes import Indexes
from medkg.haystack.opensearch.layout import Head
from medkg.haystack.opensearch.liveness import Heads
from medkg.haystack.vectors.log import VectorLog
from medkg.haystack.vectors.store import VectorStore
from medkg.haystack.writes import DocumentWrite, Stored, decide, deletion

logger = logging.getLogger(__name__)

SWITCH_SECONDS: Final = 300.0  # from the first step to the switch; compaction leaves younger writes alone
_ROUNDS = 8  # a document that eight writers got ahead of is left to a retry
_OPEN_LOGS = 256
_LANES = 4  # commits of one tenant at a time: most of a commit is waiting for the refresh


@dataclass(frozen=True, slots=True)
class _Switch:
    """A document on its way through a round: the action that makes it visible, and what is removed after it."""

    write: DocumentWrite
    write_id: str
    action: Action
    outcome: WriteOutcome
    former: Head | None


class OpenSearchWriter:
    """See :class:`medkg.haystack.stores.PassageWriter`. Used on one event loop.

    ``vectors`` is where vectors are stored; without it they are in OpenSearch. With ``wait`` a write returns when
    searches find it, without when it is durable (searches find it within the refresh interval).
    """

    def __init__(
        self,
        indexes: Indexes,
        index: str,
        vectors: VectorStore | None,
        *,
        segment_rows: int = 4096,
        wait: bool = True,
    ) -> None:
        self._indexes = indexes
        self._index = index
        self._vectors = vectors
        self._segment_rows = segment_rows
        self._refresh = "wait_for" if wait else "false"
        self._groups: dict[str, GroupCommit] = {}
        self._logs: dict[str, VectorLog] = {}
        self._merging: set[asyncio.Task[None]] = set()

    async def replace(self, tenant_id: str, write: DocumentWrite) -> WriteOutcome:
        """See :meth:`medkg.haystack.stores.PassageWriter.replace`."""
        group = self._groups.get(tenant_id)
        if group is None:

            async def commit(writes: Sequence[DocumentWrite]) -> Sequence[Outcome]:
                return await self._commit(tenant_id, writes)

            group = self._groups[tenant_id] = GroupCommit(commit, _LANES)
        outcome = await group.write(write)
        if isinstance(outcome, MedkgError):
            raise outcome
        return outcome

    async def delete(self, tenant_id: str, doc_id: str, *, revision: int, job: str) -> WriteOutcome:
        """See :meth:`medkg.haystack.stores.PassageWriter.delete`."""
        return await self.replace(tenant_id, deletion(doc_id, revision, job))

    async def stored(self, tenant_id: str, doc_id: str) -> Stored | None:
        """See :meth:`medkg.haystack.stores.PassageWriter.stored`."""
        alias = await self._indexes.alias(tenant_id, self._index)
        head = (await self._heads(alias, [doc_id]))[doc_id]
        return head.stored if head else None

    async def aclose(self) -> None:
        """Finishes what was begun. The client is the caller's."""
        for group in self._groups.values():
            await group.drain()
        if self._merging:
            await asyncio.wait(self._merging)

    async def _commit(self, tenant_id: str, writes: Sequence[DocumentWrite]) -> list[Outcome]:
        alias = await self._indexes.alias(tenant_id, self._index)
        done: dict[str, Outcome] = {}
        waiting = {write.doc_id: write for write in writes}
        for number in range(_ROUNDS):
            waiting = {doc_id: write for doc_id, write in waiting.items() if doc_id not in done}
            if not waiting:
                break
            done |= await self._round(alias, waiting, is_first=number == 0)
        for doc_id in waiting.keys() - done.keys():
            done[doc_id] = ResourceUnavailableError(f"indexing document {doc_id}: other writers were always ahead")
        return [done[write.doc_id] for write in writes]

    async def _round(self, alias: str, writes: Mapping[str, DocumentWrite], *, is_first: bool) -> dict[str, Outcome]:
        """Outcomes of those documents whose head was still the one that was read."""
        began = time.monotonic()
        heads = await self._heads(alias, list(writes))
        done: dict[str, Outcome] = {}
        new: list[DocumentWrite] = []
        switches: list[_Switch] = []
        for doc_id, write in writes.items():
            head = heads[doc_id]
            outcome = decide(head.stored if head else None, write)
            if outcome is WriteOutcome.SUPERSEDED:
                done[doc_id] = outcome
                if not is_first:  # what an earlier round stored of it
                    await self._remove(alias, [(write, layout.write_id_of(write), len(write.rows))])
            elif head is not None and head.stored.generation == write.generation:
                # also on a redelivery: who wrote the head may have died before searches found it
                action = layout.later_head_action(doc_id, head, max(head.stored.revision, write.revision))
                switches.append(_Switch(write, head.write_id, action, outcome, None))
            elif write.rows and (refusal := await self._indexes.claim(alias, self._index, write)):
                done[doc_id] = refusal
            else:
                new.append(write)
        stored = await self._store(alias, new)
        for write in new:
            error = stored.get(write.doc_id)
            if error is not None:
                done[write.doc_id] = error
                continue
            write_id, head = layout.write_id_of(write), heads[write.doc_id]
            action = layout.head_action(write, write_id, head)
            switches.append(_Switch(write, write_id, action, WriteOutcome.WRITTEN, head))
        if time.monotonic() - began > SWITCH_SECONDS:
            return done  # compaction may have taken the passages for left over: they are written again
        return done | await self._switch(alias, switches)

    async def _store(self, alias: str, writes: Sequence[DocumentWrite]) -> dict[str, MedkgError]:
        """Vectors, then passages; the errors of the documents that could not be stored."""
        errors: dict[str, MedkgError] = {}
        identified = [(layout.write_id_of(write), write) for write in writes if write.rows]
        if not identified:
            return errors
        if self._vectors is not None:
            await self._log(self._vectors, alias, identified[0][1]).put(identified)
        now_ms = time.time_ns() // 1_000_000
        actions, owners = list[Action](), list[str]()
        for write_id, write in identified:
            ours = layout.passage_actions(write, write_id, now_ms, with_vectors=self._vectors is None)
            actions += ours
            owners += [write.doc_id] * len(ours)
        results = await self._send(alias, actions, "storing passages")
        for owner, result in zip(owners, results, strict=True):
            if result.error is not None:
                errors.setdefault(owner, result.error)
        return errors

    async def _switch(self, alias: str, switches: Sequence[_Switch]) -> dict[str, Outcome]:
        results = await self._send(alias, [s.action for s in switches], "making documents visible", self._refresh)
        done: dict[str, Outcome] = {}
        former: list[tuple[DocumentWrite, str, int]] = []
        for switch, result in zip(switches, results, strict=True):
            if result.error is not None:
                done[switch.write.doc_id] = result.error
            elif not result.is_conflict:
                done[switch.write.doc_id] = switch.outcome
                if switch.former is not None:
                    former.append((switch.write, switch.former.write_id, switch.former.passages))
        await self._remove(alias, former)
        if (log := self._logs.get(alias)) is not None and not self._merging:
            task = asyncio.create_task(self._merge(log))
            self._merging.add(task)
            task.add_done_callback(self._merging.discard)
        return done

    async def _remove(self, alias: str, left: Sequence[tuple[DocumentWrite, str, int]]) -> None:
        """Takes away passages that no head names. What fails here is left to compaction: nobody sees it."""
        actions = [
            action
            for write, write_id, passages in left
            for action in layout.removal_actions(write.doc_id, write_id, passages)
        ]
        await self._send(alias, actions, "removing passages that were replaced")

    async def _heads(self, alias: str, doc_ids: Sequence[str]) -> dict[str, Head | None]:
        docs = [{"_index": alias, "_id": layout.head_id(doc_id), "routing": doc_id} for doc_id in doc_ids]
        with translated("reading what is indexed of documents"):
            answer = await self._indexes.client.mget(body={"docs": docs})
        if any("error" in found for found in answer["docs"]):
            raise ResourceUnavailableError("reading what is indexed of documents: a shard does not answer")
        return {doc_id: layout.head_of(found) for doc_id, found in zip(doc_ids, answer["docs"], strict=True)}

    async def _send(self, alias: str, actions: Sequence[Action], doing: str, refresh: str = "false") -> list[Result]:
        if not actions:
            return []
        return await send(self._indexes.client, alias, actions, refresh=refresh, doing=doing)

    async def _merge(self, log: VectorLog) -> None:
        """Segments only make searches faster: a failure is told, and tried again when more has come."""
        try:
            await log.merge()
        except MedkgError as error:
            logger.warning("%s; searches go on without it", error.message)

    def _log(self, vectors: VectorStore, alias: str, write: DocumentWrite) -> VectorLog:
        """Where the vectors of writes go. An index holds those of one model: it was claimed for that of ``write``."""
        folder = vectors.folder(alias, write.model, write.dimension)
        log = self._logs.get(alias)
        if log is None or log.folder.root != folder.root:
            log = VectorLog(folder, vectors.cache, Heads(self._indexes, alias), self._segment_rows)
            self._logs[alias] = log
            if len(self._logs) > _OPEN_LOGS:
                self._logs.pop(next(iter(self._logs)))
        return log
