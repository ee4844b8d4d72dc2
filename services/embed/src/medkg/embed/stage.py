"""Embedding: passages with their dense vectors and sparse term weights."""

from collections.abc import Sequence

from medkg.contracts.context import StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch, SparseVector
from medkg.haystack.embedding import Embedded, LocalEmbedder, TextEmbedder, TextKind
from medkg.haystack.expansion import ImpactsExpander, SparseExpander
from medkg.haystack.impacts import IMPACTS, impacts


class LocalEmbedding:
    """For an embedder of this process, and impacts or nothing beside it; runs in the worker's thread pool."""

    def __init__(self, embedder: LocalEmbedder, *, with_title: bool = True, with_impacts: bool = True) -> None:
        self._embedder = embedder
        self._with_title = with_title
        self._with_impacts = with_impacts

    def execute(self, ctx: StageContext, chunks: list[Chunk]) -> EmbeddingBatch:
        """The passages of one document with their vectors.

        Raises:
            ContractError: the model gave a vector of the wrong size, of zeros, or with a value that is not finite.
        """
        embedded = self._embedder.vectors(_texts(chunks, self._with_title), TextKind.PASSAGE)
        sparse = [impacts(chunk.text, chunk.title) for chunk in chunks] if self._with_impacts else []
        return _batch(chunks, self._embedder, embedded, sparse, IMPACTS if self._with_impacts else "")


class ExpandedEmbedding:
    """For embedders and expanders that may be behind a network."""

    def __init__(self, embedder: TextEmbedder, expander: SparseExpander | None, *, with_title: bool = True) -> None:
        self._embedder = embedder
        self._expander = expander
        self._with_title = with_title

    async def execute(self, ctx: StageContext, chunks: list[Chunk]) -> EmbeddingBatch:
        """As :meth:`LocalEmbedding.execute`; also raises what :meth:`TextEmbedder.embed` and the expander raise."""
        embedded = await self._embedder.embed(_texts(chunks, self._with_title), TextKind.PASSAGE)
        if self._expander is None:
            return _batch(chunks, self._embedder, embedded, [], "")
        sparse = await self._expander.expand([chunk.text for chunk in chunks], [chunk.title for chunk in chunks])
        return _batch(chunks, self._embedder, embedded, sparse, self._expander.model)


class RemoteEmbedding(ExpandedEmbedding):
    """For an embedder behind a network, and impacts or nothing beside it."""

    def __init__(self, embedder: TextEmbedder, *, with_title: bool = True, with_impacts: bool = True) -> None:
        super().__init__(embedder, ImpactsExpander() if with_impacts else None, with_title=with_title)


def _texts(chunks: list[Chunk], with_title: bool) -> list[str]:
    """What the model reads: a passage alone often does not say what it is about, its document's title does."""
    return [f"{chunk.title}\n{chunk.text}" if with_title and chunk.title else chunk.text for chunk in chunks]


def _batch(
    chunks: list[Chunk],
    embedder: LocalEmbedder | TextEmbedder,
    embedded: Embedded,
    sparse: Sequence[SparseVector],
    sparse_model: str,
) -> EmbeddingBatch:
    return EmbeddingBatch(
        chunks=tuple(chunks),
        model=embedder.model,
        dimension=embedder.dimension,
        dense=embedded.vectors.astype("<f4", copy=False).tobytes(),
        sparse=tuple(sparse),
        truncated=embedded.truncated,
        sparse_model=sparse_model if sparse else "",
    )
