"""Hybrid search over the embedded stores of one data folder."""

from pathlib import Path

from medkg.haystack.answering import MAX_LIMIT, Hit, SearchAnswer, SearchRequest
from medkg.haystack.embedded import EmbeddedPassages
from medkg.haystack.expansion import ExpanderOf, known_expander
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.inspection import StoredPassage, export, problems
from medkg.haystack.legs import Models
from medkg.haystack.models import EmbedderOf
from medkg.haystack.passage_database import DEFAULT_INDEX, store_path
from medkg.haystack.reranking import Reranker
from medkg.haystack.retriever import SETTINGS, Retriever, RetrieverSettings

__all__ = ["MAX_LIMIT", "EmbedderOf", "Hit", "HybridSearch", "SearchAnswer", "SearchRequest", "StoredPassage"]


class HybridSearch(Retriever):
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
        *,
        expander_of: ExpanderOf = known_expander,
        settings: RetrieverSettings = SETTINGS,
        reranker: Reranker | None = None,
    ) -> None:
        self._passages = EmbeddedPassages(data_dir, index, threads)
        super().__init__(self._passages, Models(embedder_of, expander_of), settings, reranker)
        self._data_dir = data_dir
        self._index_name = index

    def export_passages(self, tenant_id: str) -> list[StoredPassage]:
        """Everything the index holds, sorted, without what differs between two runs over the same sources."""
        path = store_path(self._data_dir, tenant_id, self._index_name)
        return export(path) if path.exists() else []

    def verify(self, tenant_id: str) -> list[str]:
        """Every way in which the index contradicts itself, in words; empty if there is none. Reads all of it."""
        path = store_path(self._data_dir, tenant_id, self._index_name)
        return problems(path) if path.exists() else []

    async def aclose(self) -> None:
        """Ends running searches and closes all files."""
        await self._passages.aclose()
