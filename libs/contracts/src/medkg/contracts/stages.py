"""The kinds of stage: one Protocol each, the topic it listens to, what it consumes and produces.

An implementation is plain code that knows nothing of Kafka. It may be a coroutine or a plain function: a plain one is
run in a bounded thread pool. It raises an error of :mod:`medkg.contracts.errors`; anything else counts as a crash.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

import msgspec

from medkg.contracts import document as ir
from medkg.contracts.context import StageContext
from medkg.contracts.document import (
    AdapterRequest,
    Chunk,
    Document,
    EmbeddingBatch,
    Extraction,
    GraphWriteReceipt,
    IndexReceipt,
    IngestPage,
    QualityReport,
    RawPayload,
    StoredFile,
)


class StageType(StrEnum):
    """What a stage is; its value stands in topologies and messages."""

    INGEST = "IngestStage"
    DOWNLOAD = "DownloadStage"
    PARSE = "ParseStage"
    VALIDATE = "ValidateStage"
    CHUNK = "ChunkStage"
    EMBED = "EmbedStage"
    INDEX = "IndexStage"
    EXTRACT = "ExtractStage"
    KG = "KGStage"
    GATE = "Gate"

    @property
    def service(self) -> str:
        """The short name: of the service, its topic and its consumer group."""
        return self.value.removesuffix("Stage").lower()

    @property
    def topic(self) -> str:
        """Where work for this kind of stage waits."""
        return f"medkg.{self.service}.v1"


class IngestStage(Protocol):
    def execute(self, ctx: StageContext, request: AdapterRequest) -> IngestPage | Awaitable[IngestPage]: ...


class DownloadStage(Protocol):
    def execute(self, ctx: StageContext, payload: RawPayload) -> StoredFile | Awaitable[StoredFile]: ...


class ParseStage(Protocol):
    def execute(self, ctx: StageContext, payload: RawPayload) -> Document | Awaitable[Document]: ...


class ValidateStage(Protocol):
    def execute(self, ctx: StageContext, document: Document) -> QualityReport | Awaitable[QualityReport]: ...


class ChunkStage(Protocol):
    def execute(self, ctx: StageContext, document: Document) -> list[Chunk] | Awaitable[list[Chunk]]: ...


class EmbedStage(Protocol):
    def execute(self, ctx: StageContext, chunks: list[Chunk]) -> EmbeddingBatch | Awaitable[EmbeddingBatch]: ...


class IndexStage(Protocol):
    """Idempotent by ``ctx.content_key``, ordered by ``ctx.revision``: both stores or neither."""

    def execute(self, ctx: StageContext, batch: EmbeddingBatch) -> IndexReceipt | Awaitable[IndexReceipt]: ...


class ExtractStage(Protocol):
    def execute(self, ctx: StageContext, document: Document) -> Extraction | Awaitable[Extraction]: ...


class KGStage(Protocol):
    """Idempotent by ``ctx.content_key``, ordered by ``ctx.revision``."""

    def execute(
        self, ctx: StageContext, extraction: Extraction
    ) -> GraphWriteReceipt | Awaitable[GraphWriteReceipt]: ...


@dataclass(frozen=True, slots=True)
class StageContract:
    """Which artefact a kind of stage takes and gives, by kind and type. ``is_sink``: writes to a store of its own."""

    consumes: str
    consumes_type: type
    produces: str
    produces_type: type
    is_sink: bool = False


CHUNKS = list[ir.Chunk]

STAGE_CONTRACTS = MappingProxyType(
    {
        StageType.INGEST: StageContract("request", AdapterRequest, "payload", IngestPage),
        StageType.DOWNLOAD: StageContract("payload", RawPayload, "file", StoredFile),
        StageType.PARSE: StageContract("payload", RawPayload, "document", Document),
        StageType.VALIDATE: StageContract("document", Document, "quality", QualityReport),
        StageType.CHUNK: StageContract("document", Document, "chunks", CHUNKS),
        StageType.EMBED: StageContract("chunks", CHUNKS, "embeddings", EmbeddingBatch),
        StageType.INDEX: StageContract("embeddings", EmbeddingBatch, "index_receipt", IndexReceipt, is_sink=True),
        StageType.EXTRACT: StageContract("document", Document, "extraction", Extraction),
        StageType.KG: StageContract("extraction", Extraction, "graph_receipt", GraphWriteReceipt, is_sink=True),
    }
)

# A gate on this field releases a document with its parsed form, written by the PDF parser, as an artefact.
GATE_PRODUCES = MappingProxyType({"pdf_ir_ready": "document"})
# What such a gate reads of the document that comes to it: it says which file has to be parsed.
GATE_CONSUMES = MappingProxyType({"pdf_ir_ready": "file"})

_ENCODER = msgspec.json.Encoder()


def encode_artefact(value: object) -> bytes:
    """An artefact as JSON. The same value always gives the same bytes."""
    return _ENCODER.encode(value)
