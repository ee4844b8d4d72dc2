"""Looking after an index in OpenSearch: does every head find its passages, what did dead writers leave, a new index."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from opensearchpy.exceptions import NotFoundError

from medkg.contracts.errors import ResourceUnavailableError
from medkg.haystack.opensearch import layout, queries
from medkg.haystack.opensearch.bulk import Action, send
from medkg.haystack.opensearch.client import translated
from medkg.haystack.opensearch.indexes import Indexes
from medkg.haystack.opensearch.liveness import Heads
from medkg.haystack.opensearch.rebuilding import copy_index
from medkg.haystack.upkeep import Compaction, Findings, Rebuilding, Say
from medkg.haystack.vectors.checking import read_contents
from medkg.haystack.vectors.folder import VectorFolder
from medkg.haystack.vectors.merging import LEFTOVER_SECONDS, Merger
from medkg.haystack.vectors.store import VectorStore

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


def compare(heads: Sequence[KnownHead], stored: Sequence[StoredWrite], before: float) -> Comparison:
    """Which heads name passages that are not there, and which passages from ``before`` that time no head names."""
    there = {write.write_id: write.passages for write in stored}
    named = {head.write_id for head in heads}
    broken = [
        f"document {head.doc_id}: {there.get(head.write_id, 0)} of {head.passages} passages are there"
        for head in heads
        if there.get(head.write_id, 0) != head.passages
    ]
    leftover = [w for w in stored if w.write_id not in named and w.written_at < before]
    return Comparison(tuple(broken), tuple(leftover))


class OpenSearchUpkeep:
    """See :class:`medkg.haystack.upkeep.Upkeep`. The client is the caller's."""

    def __init__(
        self,
        indexes: Indexes,
        index: str,
        vectors: VectorStore | None,
        *,
        leftover_seconds: float = LEFTOVER_SECONDS,
    ) -> None:
        """What a writer stored and no document names is left over after ``leftover_seconds``."""
        self._indexes = indexes
        self._index = index
        self._vectors = vectors
        self._leftover_seconds = leftover_seconds

    async def verify(self, tenant_id: str, say: Say) -> Findings:
        """See :meth:`medkg.haystack.upkeep.Upkeep.verify`."""
        alias = self._indexes.names.alias(tenant_id, self._index)
        if await self._indexes.physical(alias) is None:
            return Findings(exists=False)
        heads, stored = await self._read(alias, say)
        compared = compare(heads, stored, time.time() - self._leftover_seconds)
        found = list(compared.broken[:_SHOWN])
        if len(compared.broken) > _SHOWN:
            found.append(f"{len(compared.broken) - _SHOWN} more documents")
        found += await self._vector_problems(alias, heads, say)
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
        before = time.time() - self._leftover_seconds
        leftover = compare(heads, stored, before).leftover
        removed = sum(write.passages for write in leftover)
        if not dry_run:
            say(f"removing {removed} passages that no document names")
            await self._remove(alias, leftover)
        folder = await self._folder(alias)
        if folder is None or self._vectors is None:
            return Compaction(removed)
        contents = await read_contents(folder, self._vectors.cache, say)
        named = {head.write_id for head in heads}
        vectors = sum(1 for write_id, at in contents.written_at.items() if write_id not in named and at < before)
        size = contents.size_bytes
        if not dry_run:
            say("making the FAISS segments anew")
            size = await self._merger(alias, folder, self._vectors).compact()
        return Compaction(removed, vectors, contents.size_bytes, size)

    async def rebuild(self, tenant_id: str, say: Say, *, dry_run: bool) -> Rebuilding:
        """See :meth:`medkg.haystack.upkeep.Upkeep.rebuild`."""
        alias = self._indexes.names.alias(tenant_id, self._index)
        physical = await self._indexes.physical(alias)
        if physical is None:
            return Rebuilding()
        heads, _ = await self._read(alias, say)
        if not dry_run:
            await copy_index(self._indexes, alias, physical, say)
            folder = await self._folder(alias)
            if folder is not None and self._vectors is not None:
                say("making the FAISS segments anew")
                await self._merger(alias, folder, self._vectors).compact()
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

    async def _vector_problems(self, alias: str, heads: Sequence[KnownHead], say: Say) -> list[str]:
        folder = await self._folder(alias)
        if folder is None or self._vectors is None:
            return []
        contents = await read_contents(folder, self._vectors.cache, say)
        missing = [head for head in heads if contents.rows.get(head.write_id, 0) != head.passages]
        # a merge leaves out what was replaced since the heads were read
        named = await Heads(self._indexes, alias).named([head.write_id for head in missing])
        found = [
            f"document {head.doc_id}: {contents.rows.get(head.write_id, 0)} of {head.passages} vectors are there"
            for head in missing
            if head.write_id in named
        ]
        return [*contents.problems[:_SHOWN], *found[:_SHOWN]]

    async def _folder(self, alias: str) -> VectorFolder | None:
        """Where the vectors of the index's model are; None where they are in OpenSearch, or it has none yet."""
        facts = await self._indexes.facts(alias)
        if self._vectors is None or facts is None:
            return None
        return self._vectors.folder(alias, facts.model, facts.dimension)

    def _merger(self, alias: str, folder: VectorFolder, vectors: VectorStore) -> Merger:
        liveness = Heads(self._indexes, alias)
        return Merger(folder, vectors.cache, liveness, leftover_seconds=self._leftover_seconds)


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
