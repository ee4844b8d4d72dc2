"""The index service: what it offers, and how it is started."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

from pydantic import Field

from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.runtime.process import serve


class EmbeddedOptions(Options):
    """Settings of ``index.embedded``."""

    index: str = Field(
        "passages",
        pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$",
        description="vectors of another model need another index; searches name the one they read",
    )
    segment_rows: int = Field(4096, ge=16, le=1_000_000, description="new passages that become a FAISS segment")


class Dense(StrEnum):
    """Where vectors are kept beside OpenSearch."""

    FAISS = "faiss"
    KNN = "knn"


class OpenSearchOptions(EmbeddedOptions):
    """Settings of ``index.opensearch``; where the server is stands in the environment (MEDKG_OPENSEARCH_URL)."""

    dense: Dense = Field(
        Dense.FAISS,
        description="faiss: segments in the blob store, which readers map from a cache of theirs; knn: in OpenSearch",
    )
    wait: bool = Field(True, description="a document counts as indexed when searches find it")


@asynccontextmanager
async def _open(options: EmbeddedOptions, host: Host) -> AsyncIterator[object]:
    from medkg.index.stage import EmbeddedIndex

    stage = EmbeddedIndex(host.data_dir, options.index, options.segment_rows)
    try:
        yield stage
    finally:
        await stage.aclose()


@asynccontextmanager
async def _open_opensearch(options: OpenSearchOptions, host: Host) -> AsyncIterator[object]:
    from medkg.haystack.opensearch.settings import OpenSearchSettings, open_indexes
    from medkg.haystack.opensearch.writer import OpenSearchWriter
    from medkg.haystack.vectors.store import VectorStore, vector_store
    from medkg.index.stage import IndexStage
    from medkg.runtime.blobs import BlobStore
    from medkg.runtime.settings import from_environment

    settings = from_environment(OpenSearchSettings)
    is_knn = options.dense is Dense.KNN
    async with open_indexes(settings, knn=is_knn) as indexes:
        await indexes.ensure_template()  # a server that does not answer, or refuses us, is noticed at start
        vectors: VectorStore | None = None
        if not is_knn:
            if not isinstance(host.blobs, BlobStore):
                raise ConfigurationError("opening index.opensearch: FAISS segments need the blob store of the runtime")
            vectors = vector_store(host.blobs, host.data_dir)
        writer = OpenSearchWriter(indexes, options.index, vectors, segment_rows=options.segment_rows, wait=options.wait)
        stage = IndexStage(writer, options.index)
        try:
            yield stage
        finally:
            await stage.aclose()


EMBEDDED = StageImplementation(
    stage_type=StageType.INDEX,
    name="embedded",
    version="2",
    options=EmbeddedOptions,
    open=_open,
    memoised=False,
    is_default=True,
)

OPENSEARCH = StageImplementation(
    stage_type=StageType.INDEX,
    name="opensearch",
    version="1",
    options=OpenSearchOptions,
    open=_open_opensearch,
    memoised=False,
)


def main() -> None:
    """Entry point of ``medkg-index`` and ``python -m medkg.index``."""
    serve(StageType.INDEX)
