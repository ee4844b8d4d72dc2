"""One stage of every kind that computes nothing: what is left is the cost of the fleet itself.

The source makes its documents up: a selection ``{"paths": ["COUNT", "BYTES"]}`` of the files source gives COUNT
records of BYTES characters each. The document travels whole through every stage that passes it on.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from medkg.contracts.context import StageContext
from medkg.contracts.document import (
    AdapterRequest,
    Block,
    Chunk,
    Document,
    EmbeddingBatch,
    Extraction,
    GraphWriteReceipt,
    IndexReceipt,
    IngestPage,
    Provenance,
    QualityReport,
    RawPayload,
    Section,
    TextSpan,
)
from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType


class MadeUpSource:
    """A page of made-up records; the cursor is the number of the next one."""

    async def execute(self, ctx: StageContext, request: AdapterRequest) -> IngestPage:
        paths: Any = request.selection["paths"]
        count, size = int(paths[0]), int(paths[1])
        first = int(request.cursor or 0)
        last = min(first + request.limit, count)
        text = ("lorem ipsum dolor sit amet " * (size // 27 + 1))[:size]
        payloads = tuple(
            RawPayload(source=request.source, source_id=f"doc-{number:07d}", media_type="text/plain", text=text)
            for number in range(first, last)
        )
        return IngestPage(payloads, next_cursor=str(last) if last < count else "", total=count)


class Parse:
    async def execute(self, ctx: StageContext, payload: RawPayload) -> Document:
        block = Block("b0", payload.text, Provenance(payload.source_id))
        section = Section("s0", (), (block,))
        return Document(ctx.doc_id, payload.source, payload.source_id, "text", payload.source_id, (section,))


class Validate:
    async def execute(self, ctx: StageContext, document: Document) -> QualityReport:
        return QualityReport({"characters": 0.0})


class MakeChunk:
    async def execute(self, ctx: StageContext, document: Document) -> list[Chunk]:
        text = document.sections[0].blocks[0].text
        return [Chunk(f"{ctx.doc_id}-0", ctx.doc_id, 0, text, (), (TextSpan("b0", 0, len(text)),), 1)]


class Embed:
    async def execute(self, ctx: StageContext, chunks: list[Chunk]) -> EmbeddingBatch:
        return EmbeddingBatch(tuple(chunks), "noop", 1, b"\0\0\0\0" * len(chunks))


class Index:
    async def execute(self, ctx: StageContext, batch: EmbeddingBatch) -> IndexReceipt:
        return IndexReceipt("noop", ctx.content_key, len(batch.chunks))


class Extract:
    async def execute(self, ctx: StageContext, document: Document) -> Extraction:
        return Extraction(ctx.doc_id, document.title, document.source, document.source_id, (), ())


class WriteGraph:
    async def execute(self, ctx: StageContext, extraction: Extraction) -> GraphWriteReceipt:
        return GraphWriteReceipt("noop", ctx.content_key, 0, 0)


def _noop(stage_type: StageType, make: Callable[[], object]) -> StageImplementation:
    @asynccontextmanager
    async def open_stage(options: Options, host: Host) -> AsyncIterator[object]:
        yield make()

    return StageImplementation(stage_type, "noop", "1", Options, open_stage, memoised=False)


INGEST = _noop(StageType.INGEST, MadeUpSource)
PARSE = _noop(StageType.PARSE, Parse)
VALIDATE = _noop(StageType.VALIDATE, Validate)
CHUNK = _noop(StageType.CHUNK, MakeChunk)
EMBED = _noop(StageType.EMBED, Embed)
INDEX = _noop(StageType.INDEX, Index)
EXTRACT = _noop(StageType.EXTRACT, Extract)
KG = _noop(StageType.KG, WriteGraph)
