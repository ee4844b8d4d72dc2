"""What every test of the search stores needs: the stores as a pair of writer and index, and documents to put in."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from opensearchpy import AsyncOpenSearch

from medkg.contracts.context import Metadata, StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch, Provenance
from medkg.haystack.embedded import EmbeddedPassages
from medkg.haystack.embedded_writer import EmbeddedWriter
from medkg.haystack.embedding import TextKind
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.impacts import IMPACTS, impacts
from medkg.haystack.opensearch.client import Connection, connect
from medkg.haystack.opensearch.indexes import Indexes, Shape
from medkg.haystack.opensearch.names import IndexNames
from medkg.haystack.opensearch.reader import OpenSearchPassages
from medkg.haystack.opensearch.writer import OpenSearchWriter
from medkg.haystack.stores import PassageIndex, PassageWriter
from medkg.haystack.vectors.store import VectorStore, vector_store
from medkg.haystack.writes import DocumentWrite, prepare
from medkg.runtime.blobs import open_blobs

EMBEDDER = HashingEmbedder(64)
TENANT = "acme"
INDEX = "passages"
KEY = b"0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Stores:
    """A backend under test; ``writer_again`` opens another writer, as another process would."""

    writer: PassageWriter
    index: PassageIndex
    writer_again: Callable[[], PassageWriter]


@asynccontextmanager
async def embedded_stores(folder: Path, index: str = INDEX) -> AsyncIterator[Stores]:
    writer, passages = EmbeddedWriter(folder, index), EmbeddedPassages(folder, index)
    try:
        yield Stores(writer, passages, lambda: EmbeddedWriter(folder, index))
    finally:
        await writer.aclose()
        await passages.aclose()


def vectors_at(folder: Path | None, machine: str) -> VectorStore | None:
    """The blob store in ``folder``, seen from a machine that shares nothing else: it has a cache of its own."""
    if folder is None:
        return None
    return vector_store(open_blobs((folder / "blobs").as_uri()), folder / machine)


@asynccontextmanager
async def opensearch_stores(
    url: str, prefix: str, folder: Path | None, index: str = INDEX, segment_rows: int = 4096
) -> AsyncIterator[Stores]:
    """With vectors in the blob store that ``folder`` holds, or in OpenSearch. Writers and readers are on different
    machines."""
    client = connect(Connection(url))

    def indexes() -> Indexes:
        return indexes_of(client, prefix, knn=folder is None)

    def writer_on(machine: str) -> OpenSearchWriter:
        return OpenSearchWriter(indexes(), index, vectors_at(folder, machine), segment_rows=segment_rows)

    writer = writer_on("writer")
    passages = OpenSearchPassages(indexes(), index, vectors_at(folder, "reader"))
    try:
        yield Stores(writer, passages, lambda: writer_on("writer-again"))
    finally:
        await writer.aclose()
        await passages.aclose()
        await client.close()


def indexes_of(client: AsyncOpenSearch, prefix: str, *, knn: bool = False) -> Indexes:
    return Indexes(client, IndexNames(KEY, prefix), Shape(knn=knn, refresh_seconds=0.1))


def document(
    doc_id: str,
    *texts: str,
    generation: str = "",
    revision: int = 1,
    job: str = "job",
    embedder: HashingEmbedder = EMBEDDER,
    path: tuple[str, ...] = ("Body",),
    **metadata: str | int | bool,
) -> DocumentWrite:
    """A write of a document; its generation is its texts, unless it is given."""
    known: Metadata = {"source": "files", "source_id": doc_id.upper(), **metadata}
    chunks = tuple(
        Chunk(
            f"{doc_id}-{number}-{text[:20]}",
            doc_id,
            number,
            text,
            path,
            (),
            3,
            title=f"Title of {doc_id}",
            provenance=Provenance("r", f"/{number}"),
            metadata=known,
        )
        for number, text in enumerate(texts)
    )
    batch = EmbeddingBatch(
        chunks=chunks,
        model=embedder.model,
        dimension=embedder.dimension,
        dense=embedder.vectors(texts, TextKind.PASSAGE).vectors.tobytes() if texts else b"",
        sparse=tuple(impacts(text) for text in texts),
        sparse_model=IMPACTS,
    )
    ctx = StageContext(TENANT, doc_id, job, content_key=generation or "|".join(texts) or "empty", revision=revision)
    return prepare(ctx, batch)


def vector_of(text: str) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = EMBEDDER.vectors([text], TextKind.QUERY).vectors[0]
    return vector
