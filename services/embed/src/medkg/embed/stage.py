"""Embedding: passages with their dense vectors and sparse term weights."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from medkg.contracts.context import StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch, SparseVector
from medkg.haystack.embedding import Embedded, TextEmbedder, TextKind
from medkg.haystack.impacts import IMPACTS, impacts


class LocalEmbedder(Protocol):
    """An embedder that computes in the calling thread."""

    @property
    def model(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def vectors(self, texts: Sequence[str], kind: TextKind) -> Embedded: ...


class LocalEmbedding:
    """For an embedder of this process; runs in the worker's thread pool."""

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
        sparse = _sparse(chunks) if self._with_impacts else ()
        return _batch(chunks, self._embedder.model, self._embedder.dimension, embedded, sparse)


class RemoteEmbedding:
    """For an embedder behind a network."""

    def __init__(self, embedder: TextEmbedder, *, with_title: bool = True, with_impacts: bool = True) -> None:
        self._embedder = embedder
        self._with_title = with_title
        self._with_impacts = with_impacts

    async def execute(self, ctx: StageContext, chunks: list[Chunk]) -> EmbeddingBatch:
        """As :meth:`LocalEmbedding.execute`; also raises what :meth:`TextEmbedder.embed` raises."""
        embedded = await self._embedder.embed(_texts(chunks, self._with_title), TextKind.PASSAGE)
        sparse = await asyncio.to_thread(_sparse, chunks) if self._with_impacts else ()
        return _batch(chunks, self._embedder.model, self._embedder.dimension, embedded, sparse)


def _texts(chunks: list[Chunk], with_title: bool) -> list[str]:
    """What the model reads: a passage alone often does not say what it is about, its document's title does."""
    return [f"{chunk.title}\n{chunk.text}" if with_title and chunk.title else chunk.text for chunk in chunks]


def _sparse(chunks: list[Chunk]) -> tuple[SparseVector, ...]:
    return tuple(impacts(text) for text in _texts(chunks, True))


def _batch(
    chunks: list[Chunk], model: str, dimension: int, embedded: Embedded, sparse: tuple[SparseVector, ...]
) -> EmbeddingBatch:
    return EmbeddingBatch(
        chunks=tuple(chunks),
        model=model,
        dimension=dimension,
        dense=embedded.vectors.astype("<f4", copy=False).tobytes(),
        sparse=sparse,
        truncated=embedded.truncated,
        sparse_model=IMPACTS if sparse else "",
    )
