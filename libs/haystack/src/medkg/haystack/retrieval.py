"""Hybrid search over the embedded stores: BM25, dense and sparse, fused by reciprocal rank."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medkg.contracts.errors import MedkgError
from medkg.haystack.embedding import TextEmbedder, TextKind
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.inspection import StoredPassage, export, problems
from medkg.haystack.lexical import MAX_QUERY_CHARACTERS
from medkg.haystack.passage_reader import Hit, PassageReader, QueryVector
from medkg.haystack.passage_store import DEFAULT_INDEX, store_path

__all__ = ["MAX_LIMIT", "EmbedderOf", "Hit", "HybridSearch", "SearchAnswer", "StoredPassage"]

logger = logging.getLogger(__name__)

MAX_LIMIT: Final = 200
_OPEN_STORES = 64  # tenants whose vectors stay in memory
_EMBED_SECONDS = 10.0

EmbedderOf = Callable[[str], TextEmbedder | None]


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Hits, best first. ``legs_missing`` names the kinds of search (bm25, dense, sparse) that could not be made."""

    hits: tuple[Hit, ...]
    legs_missing: tuple[str, ...]
    took_ms: float


class HybridSearch:
    """Reads the stores that the index stage writes under ``data_dir``, also while other processes write them.

    A search sees what was committed when it began. ``embedder_of`` gives the embedder of the model that an index names,
    or None: then that index is searched by words alone. Its default knows the hashing embedder.
    """

    def __init__(
        self,
        data_dir: Path,
        embedder_of: EmbedderOf = HashingEmbedder.of_model,
        index: str = DEFAULT_INDEX,
        threads: int = 4,
    ) -> None:
        self._data_dir = data_dir
        self._embedder_of = embedder_of
        self._index = index
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="search")
        self._readers: OrderedDict[Path, PassageReader] = OrderedDict()
        self._embedders: dict[str, TextEmbedder | None] = {}

    async def search(self, tenant_id: str, query: str, limit: int = 10) -> SearchAnswer:
        """The passages of a tenant that answer ``query`` best, at most :data:`MAX_LIMIT`; none without an index.

        Raises:
            ConfigurationError: the tenant id is empty, or the index was made by another version of medkg.
            ResourceUnavailableError: the index cannot be read now.
        """
        began = time.perf_counter()
        query = query[:MAX_QUERY_CHARACTERS]
        reader = await self._reader(tenant_id)
        if reader is None or not query.strip() or limit < 1:
            return SearchAnswer((), (), _milliseconds_since(began))
        loop = asyncio.get_running_loop()
        vector = await self._embed(await loop.run_in_executor(self._executor, reader.model), query)
        hits, missing = await loop.run_in_executor(self._executor, reader.search, query, vector, min(limit, MAX_LIMIT))
        return SearchAnswer(hits, missing, _milliseconds_since(began))

    def export_passages(self, tenant_id: str) -> list[StoredPassage]:
        """Everything the index holds, sorted, without what differs between two runs over the same sources."""
        path = store_path(self._data_dir, tenant_id, self._index)
        return export(path) if path.exists() else []

    def verify(self, tenant_id: str) -> list[str]:
        """Every way in which the index contradicts itself, in words; empty if there is none. Reads all of it."""
        path = store_path(self._data_dir, tenant_id, self._index)
        return problems(path) if path.exists() else []

    async def aclose(self) -> None:
        """Ends running searches and closes all files."""
        await asyncio.to_thread(self._executor.shutdown)
        while self._readers:
            self._readers.popitem()[1].close()

    async def _reader(self, tenant_id: str) -> PassageReader | None:
        path = store_path(self._data_dir, tenant_id, self._index)
        known = self._readers.get(path)
        if known is not None and known.is_current():
            self._readers.move_to_end(path)
            return known
        try:
            opened = await asyncio.get_running_loop().run_in_executor(self._executor, PassageReader, path)
        except FileNotFoundError:
            return None
        if (replaced := self._readers.pop(path, None)) is not None:
            replaced.close()
        self._readers[path] = opened
        if len(self._readers) > _OPEN_STORES:
            self._readers.popitem(last=False)[1].close()
        return opened

    async def _embed(self, model: str, query: str) -> QueryVector | None:
        if model not in self._embedders:
            self._embedders[model] = self._embedder_of(model) if model else None
        embedder = self._embedders[model]
        if embedder is None:
            return None
        try:
            async with asyncio.timeout(_EMBED_SECONDS):
                return QueryVector(model, (await embedder.embed([query], TextKind.QUERY)).vectors[0])
        except (MedkgError, TimeoutError) as error:
            logger.warning("searching without vectors: embedding the query with %s: %s", model, error)
            return None


def _milliseconds_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
