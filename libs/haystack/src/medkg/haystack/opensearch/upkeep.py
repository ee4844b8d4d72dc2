"""Looking after an index in OpenSearch: does every head find its passages, what did dead writers leave, a new index."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opensearchpy.exceptions import NotFoundError

from medkg.contracts.errors import ResourceUnavailableError
from medkg.haystack.inspection import problems
from medkg.haystack.opensearch import layout, queries
from medkg.haystack.opensearch.bulk import Action, send
from medkg.haystack.opensearch.client import translated
from medkg.haystack.opensearch.indexes import Indexes
from medkg.haystack.opensearch.rebuilding import copy_index
from medkg.haystack.opensearch.writer import SWITCH_SECONDS
from medkg.haystack.upkeep import Compaction, Findings, Rebuilding, Say, compact_store, size_of
from medkg.haystack.vector_log import VectorLog, log_path

# a writer that is at work has stored passages that no head names yet, and gives up before these are taken away
LEFTOVER_SECONDS: Final = 2 * SWITCH_SECONDS
_PAGE = 1_000
_SHOWN = 20  # problems of one kind


@dataclass(frozen=True, slots=True)
class StoredWrite:
    """The passages of one write that are there, of one document."""

    doc_id: str
    write_id: str
    passages: int
    written_at: float


@dataclass(frozen=True, slots=True)
class KnownHead:
    doc_id: str
    write_id: str
    passages: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Heads held against what is stored."""

    broken: tuple[str, ...]
    leftover: tuple[StoredWrite, ...]


def compare(heads: Sequence[KnownHead], stored: Sequence[StoredWrite], now: float) -> Comparison:
    """Which heads name passages that are not there, and which passages no head names, old enough to be left over."""
    there = {write.write_id: write.passages for write in stored}
    named = {head.write_id for head in heads}
    broken = [
        f"document {head.doc_id}: {there.get(head.write_id, 0)} of {head.passages} passages are there"
        for head in heads
        if there.get(head.write_id, 0) != head.passages
    ]
    leftover = [w for w in stored if w.write_id not in named and w.written_at < now - LEFTOVER_SECONDS]
    return Comparison(tuple(broken), tuple(leftover))


class OpenSearchUpkeep:
    """See :class:`medkg.haystack.upkeep.Upkeep`. The client is the caller's."""

    def __init__(self, indexes: Indexes, index: str, data_dir: Path | None) -> None:
        self._indexes = indexes
        self._index = index
        self._data_dir = data_dir

    async def verify(self, tenant_id: str, say: Say) -> Findings:
        """See :meth:`medkg.haystack.upkeep.Upkeep.verify`."""
        alias = self._indexes.names.alias(tenant_id, self._index)
        if await self._indexes.physical(alias) is None:
            return Findings(exists=False)
        heads, stored = await self._read(alias, say)
        compared = compare(heads, stored, time.time())
        found = list(compared.broken[:_SHOWN])
        if len(compared.broken) > _SHOWN:
            found.append(f"{len(compared.broken) - _SHOWN} more documents")
        found += await self._log_problems(tenant_id, heads, say)
        live = [head for head in heads if head.passages]
        return Findings(
            exists=True,
            documents=len(live),
            passages=sum(head.passages for head in live),
            leftover_passages=sum(write.passages for write in compared.leftover),
            problems=tuple(found),
        )

    async def compact(self, tenant_id: str, say: Say, *, dry_run: bool) -> Compaction:
        """See :meth:`medkg.haystack.upkeep.Upkeep.compact`."""
        alias = self._indexes.names.alias(tenant_id, self._index)
        if await self._indexes.physical(alias) is None:
            return Compaction()
        heads, stored = await self._read(alias, say)
        leftover = compare(heads, stored, time.time()).leftover
        removed = sum(write.passages for write in leftover)
        vectors = await self._leftover_vectors(tenant_id, heads)
        path = self._log_path(tenant_id)
        before = size_of(path) if path else 0
        if not dry_run:
            say(f"removing {removed} passages that no document names")
            await self._remove(alias, leftover)
            if path is not None and path.exists():
                await asyncio.to_thread(_compact_log, path, vectors, say)
        return Compaction(removed, len(vectors), before, size_of(path) if path else 0)

    async def rebuild(self, tenant_id: str, say: Say, *, dry_run: bool) -> Rebuilding:
        """See :meth:`medkg.haystack.upkeep.Upkeep.rebuild`."""
        alias = self._indexes.names.alias(tenant_id, self._index)
        physical = await self._indexes.physical(alias)
        if physical is None:
            return Rebuilding()
        heads, _ = await self._read(alias, say)
        if not dry_run:
            await copy_index(self._indexes, alias, physical, say)
            path = self._log_path(tenant_id)
            if path is not None and path.exists():
                await asyncio.to_thread(compact_store, path, say)
        live = [head for head in heads if head.passages]
        return Rebuilding(len(live), sum(head.passages for head in live))

    async def aclose(self) -> None:
        """Nothing is held: the client is the caller's."""

    async def _read(self, alias: str, say: Say) -> tuple[list[KnownHead], list[StoredWrite]]:
        """Heads and stored writes of one moment."""
        client = self._indexes.client
        with translated("refreshing the index"):
            await client.indices.refresh(index=alias)
        say("reading which write each document names")
        async with frozen(self._indexes, alias) as pit:
            heads = []
            sources = [{name: {"terms": {"field": name}}} for name in ("doc_id", "write_id")]
            size = {"passages": {"max": {"field": "passages"}}}
            async for bucket in _buckets(self._indexes, pit, layout.HEAD, sources, size):
                key = bucket["key"]
                heads.append(KnownHead(key["doc_id"], key["write_id"], int(bucket["passages"]["value"])))
            say(f"reading the passages of {len(heads)} documents")
            stored = []
            newest = {"written_at": {"max": {"field": "written_at"}}}
            async for bucket in _buckets(self._indexes, pit, layout.PASSAGE, sources, newest):
                key, written = bucket["key"], bucket["written_at"]["value"] / 1000
                stored.append(StoredWrite(key["doc_id"], key["write_id"], bucket["doc_count"], written))
        return heads, stored

    async def _remove(self, alias: str, leftover: Sequence[StoredWrite]) -> None:
        for write in leftover:
            query = {"bool": {"filter": [{"term": {"kind": layout.PASSAGE}}, {"term": {"write_id": write.write_id}}]}}
            with translated("removing passages"):
                body = {"query": query, "size": 10_000, "_source": False}
                found = await self._indexes.client.search(index=alias, body=body, params={"routing": write.doc_id})
            actions = [Action("delete", hit["_id"], write.doc_id) for hit in found["hits"]["hits"]]
            await send(self._indexes.client, alias, actions, doing="removing passages")

    async def _log_problems(self, tenant_id: str, heads: Sequence[KnownHead], say: Say) -> list[str]:
        path = self._log_path(tenant_id)
        if path is None:
            return []
        wanted = {head.write_id: head.doc_id for head in heads if head.passages}
        if not path.exists():
            return [f"{path} is missing, which holds the vectors of {len(wanted)} documents"] if wanted else []
        say(f"reading {path}")
        log = VectorLog(path)
        try:
            there = {write.write_id for write in await asyncio.to_thread(log.writes)}
        finally:
            log.close()
        missing = [doc_id for write_id, doc_id in wanted.items() if write_id not in there]
        found = [f"document {doc_id}: its vectors are not there" for doc_id in missing[:_SHOWN]]
        return found + await asyncio.to_thread(problems, path)

    async def _leftover_vectors(self, tenant_id: str, heads: Sequence[KnownHead]) -> list[str]:
        path = self._log_path(tenant_id)
        if path is None or not path.exists():
            return []
        named = {head.write_id for head in heads}
        log = VectorLog(path)
        try:
            writes = await asyncio.to_thread(log.writes)
        finally:
            log.close()
        before = time.time() - LEFTOVER_SECONDS
        return [w.write_id for w in writes if w.write_id not in named and w.written_at < before]

    def _log_path(self, tenant_id: str) -> Path | None:
        return log_path(self._data_dir, tenant_id, self._index) if self._data_dir is not None else None


@asynccontextmanager
async def frozen(indexes: Indexes, name: str) -> AsyncIterator[dict[str, Any]]:
    """A point in time that lives for as long as it is asked every five minutes."""
    with translated("freezing the index"):
        opened = await indexes.client.create_pit(index=name, params={"keep_alive": "5m"})
    try:
        yield {"id": opened["pit_id"], "keep_alive": "5m"}
    finally:
        with translated("leaving the index"):
            try:
                await indexes.client.delete_pit(body={"pit_id": [opened["pit_id"]]})
            except NotFoundError:
                raise ResourceUnavailableError("leaving the index: it was held for too long") from None


async def _buckets(
    indexes: Indexes, pit: dict[str, Any], kind: str, sources: list[dict[str, Any]], more: dict[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Every combination of values that documents of a kind have."""
    composite: dict[str, Any] = {"size": _PAGE, "sources": sources}
    while True:
        body = {
            "query": queries.all_of(kind),
            "size": 0,
            "pit": pit,
            "track_total_hits": False,
            "aggs": {"all": {"composite": composite, "aggs": more}},
        }
        with translated("reading the index"):
            answer = (await indexes.client.search(body=body))["aggregations"]["all"]
        for bucket in answer["buckets"]:
            yield bucket
        if "after_key" not in answer:
            return
        composite = composite | {"after": answer["after_key"]}


def _compact_log(path: Path, write_ids: Sequence[str], say: Say) -> None:
    log = VectorLog(path)
    try:
        say(f"removing the vectors of {len(write_ids)} writes that no document names")
        log.forget(write_ids)
    finally:
        log.close()
    compact_store(path, say)
