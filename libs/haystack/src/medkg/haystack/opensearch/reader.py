"""Searching at one moment: a point in time of OpenSearch, and the vectors that it can name.

A point in time is one state of each shard. A document's head and its passages are in the same shard (they are routed by
its id) and the passages were stored before the head named them, so that a state which has the head has the passages. Of
what a search finds only the passages are taken whose write their document's head names, in the same state.
Vectors that lie beside OpenSearch are looked up so that they fit it (:mod:`medkg.haystack.opensearch.beside`).
"""

import base64
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from medkg.contracts.document import Chunk
from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.haystack.opensearch import layout, queries
from medkg.haystack.opensearch.beside import Beside, Vectors
from medkg.haystack.opensearch.indexes import Facts, Indexes
from medkg.haystack.opensearch.moment import Moment, Moments
from medkg.haystack.stores import (
    FIELD_WEIGHTS,
    MAX_K,
    MAX_NEIGHBOURS,
    NO_FILTERS,
    FieldWeights,
    Filters,
    IndexFacts,
    Passage,
    Scored,
    TermCounts,
)
from medkg.haystack.vectors.store import VectorStore

_EXPAND = 4
_TERM_COUNTS = 256
_decode_chunk = msgspec.json.Decoder(Chunk).decode


class OpenSearchPassages:
    """See :class:`medkg.haystack.stores.PassageIndex`. Used on one event loop.

    ``vectors`` is where they are stored; without it they are in OpenSearch. The client is the caller's, unless this
    ``owns_client``: then it is closed with it.
    """

    def __init__(
        self,
        indexes: Indexes,
        index: str,
        vectors: VectorStore | None,
        *,
        threads: int = 4,
        owns_client: bool = False,
    ) -> None:
        self._owns_client = owns_client
        self._indexes = indexes
        self._index = index
        self._moments = Moments(indexes)
        self._beside = Beside(vectors, threads) if vectors is not None else None

    @asynccontextmanager
    async def view(self, tenant_id: str) -> AsyncIterator["OpenSearchView | None"]:
        """See :meth:`medkg.haystack.stores.PassageIndex.view`."""
        alias = self._indexes.names.alias(tenant_id, self._index)
        first = await self._beside.first_look(alias, await self._facts(alias)) if self._beside is not None else None
        moment = await self._moments.take(alias)
        if moment is None:
            yield None
            return
        try:
            facts = await self._indexes.facts(alias)
            vectors: Vectors | None = None
            if self._beside is not None and first is not None and facts is not None:
                vectors = self._beside.second_look(alias, facts, first)
            yield OpenSearchView(moment, facts, vectors)
        finally:
            self._moments.leave(moment)

    async def _facts(self, alias: str) -> Facts | None:
        try:
            return await self._indexes.facts(alias)
        except ResourceUnavailableError:  # an index that is being made
            await self._indexes.wait(alias, seconds=2)
            return await self._indexes.facts(alias)

    async def aclose(self) -> None:
        """Ends what is under way."""
        await self._moments.aclose()
        if self._beside is not None:
            await self._beside.aclose()
        if self._owns_client:
            await self._indexes.client.close()


class OpenSearchView:
    """See :class:`medkg.haystack.stores.PassageView`."""

    def __init__(self, moment: Moment, facts: Facts | None, vectors: Vectors | None) -> None:
        """``vectors`` are those beside OpenSearch, where they are not in it."""
        self._moment = moment
        self._vectors = vectors
        self._visible: dict[str, str] = {}  # the write that is visible of a document; empty for none
        known = facts or Facts("", 0, "")
        self._facts = IndexFacts(known.model, known.dimension, known.sparse_model)

    @property
    def facts(self) -> IndexFacts:
        return self._facts

    async def lexical(
        self, query: str, k: int, *, filters: Filters = NO_FILTERS, weights: FieldWeights = FIELD_WEIGHTS
    ) -> list[Scored]:
        return await self._found(queries.lexical(query, filters, weights), k)

    async def term_counts(self, terms: Sequence[str]) -> TermCounts:
        asked = [term for term in dict.fromkeys(terms) if term][:_TERM_COUNTS]
        counts = await self._moment.aggregate(queries.term_counts(asked))
        found = {term: counts[f"t{number}"]["doc_count"] for number, term in enumerate(asked)}
        passages = int(counts["heads"]["passages"]["value"])
        return TermCounts(passages, {term: count for term, count in found.items() if count})

    async def sparse(self, weights: Mapping[str, float], k: int, *, filters: Filters = NO_FILTERS) -> list[Scored]:
        return await self._found(queries.sparse(weights, filters), k)

    async def dense(self, vector: NDArray[np.floating], k: int, *, filters: Filters = NO_FILTERS) -> list[Scored]:
        if not self._facts.dimension:
            return []
        if vector.shape != (self._facts.dimension,):
            raise ContractError(
                f"searching vectors of dimension {self._facts.dimension} ({self._facts.model}) with one of shape "
                f"{vector.shape}: is the query embedded with the model of the index?"
            )
        if self._vectors is not None:
            return await self._nearest(self._vectors, vector, k, filters)
        values = vector.astype(np.float32).tolist()
        found = await self._found(None, k, lambda size: queries.dense(values, size, filters))
        return [Scored(ref, _inner_product(score)) for ref, score in found]

    async def passages(self, refs: Sequence[str]) -> dict[str, Passage]:
        wanted = list(dict.fromkeys(refs))[:MAX_K]
        if not wanted:
            return {}
        query = {"ids": {"values": wanted}}
        found = await self._moment.search(query, len(wanted), _source=["title", "text", "chunk", "generation"])
        return {hit["_id"]: _passage(hit) for hit in found}

    async def neighbours(self, doc_id: str, ordinal: int, before: int, after: int) -> list[Passage]:
        await self._look_up([doc_id])
        write_id = self._visible[doc_id]
        if not write_id:
            return []
        first = ordinal - min(max(before, 0), MAX_NEIGHBOURS)
        last = ordinal + min(max(after, 0), MAX_NEIGHBOURS)
        found = await self._moment.search(
            queries.rows_between(doc_id, write_id, first, last),
            2 * MAX_NEIGHBOURS + 1,
            sort=[{"ordinal": "asc"}, {"row": "asc"}],
            _source=["title", "text", "chunk", "generation"],
        )
        return [_passage(hit) for hit in found]

    async def _found(
        self, query: queries.Query | None, k: int, query_for: Callable[[int], queries.Query] | None = None
    ) -> list[Scored]:
        """The best that are visible; more are asked for where too many of the best are not."""
        limit = max(0, min(k, MAX_K))
        size = limit
        while size:
            asked = query if query is not None else query_for(size) if query_for else {}
            hits = await self._moment.columns(asked, size, "doc_id", "write_id", "row")
            await self._look_up([hit.values[0] for hit in hits])
            seen = [
                Scored(layout.passage_id(write_id, row), hit.score)
                for hit in hits
                for doc_id, write_id, row in [hit.values]
                if self._visible[doc_id] == write_id
            ]
            if len(seen) >= limit or len(hits) < size or size == MAX_K:
                return seen[:limit]
            size = min(size * _EXPAND, MAX_K)
        return []

    async def _nearest(self, vectors: Vectors, vector: NDArray[np.floating], k: int, filters: Filters) -> list[Scored]:
        limit = max(0, min(k, MAX_K))
        size = limit
        while size:
            hits, is_all = await vectors.search(vector, size, filters)
            owners = await self._owners(sorted({hit.write_id for hit in hits}))
            seen = [
                Scored(layout.passage_id(hit.write_id, hit.row), hit.score) for hit in hits if hit.write_id in owners
            ]
            if len(seen) >= limit or is_all or size == MAX_K:
                return seen[:limit]
            size = min(size * _EXPAND, MAX_K)
        return []

    async def _owners(self, write_ids: Sequence[str]) -> set[str]:
        """Those of the writes that are visible."""
        if not write_ids:
            return set()
        query = {"bool": {"filter": [{"term": {"kind": layout.HEAD}}, {"terms": {"write_id": list(write_ids)}}]}}
        return {hit.values[0] for hit in await self._moment.columns(query, len(write_ids), "write_id")}

    async def _look_up(self, doc_ids: Sequence[str]) -> None:
        unknown = list({doc_id for doc_id in doc_ids if doc_id not in self._visible})
        if not unknown:
            return
        found = await self._moment.columns(queries.heads(unknown), len(unknown), "doc_id", "write_id")
        heads = dict(hit.values for hit in found)
        self._visible |= {doc_id: heads.get(doc_id, "") for doc_id in unknown}


def _passage(hit: dict[str, Any]) -> Passage:
    source = hit["_source"]
    chunk = _decode_chunk(base64.b64decode(source["chunk"]))
    whole = msgspec.structs.replace(chunk, title=source["title"], text=source["text"])
    return Passage(hit["_id"], whole, source["generation"])


def _inner_product(score: float) -> float:
    """Lucene's score for maximum inner product, turned back: scores are positive there."""
    return score - 1 if score >= 1 else 1 - 1 / score
