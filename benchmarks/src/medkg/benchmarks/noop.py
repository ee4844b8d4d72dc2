"""One stage of every kind that computes nothing: what is left is the cost of the fleet itself.

The source makes its documents up: a selection ``{"paths": ["COUNT", "BYTES"]}`` of the files source gives COUNT
records of BYTES characters each, at once; ``["COUNT", "BYTES", "RATE", "BEGIN"]`` gives them as they arrive, RATE a
second beginning at BEGIN (seconds since 1970). The document travels whole through every stage that passes it on.

``chunk.busy`` is the one that does compute: it uses up a given time of one core for every document.
"""

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic import Field

from medkg.benchmarks.loads import arrivals
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


def made_up_id(number: int) -> str:
    """The ``source_id`` of the record with this number."""
    return f"doc-{number:07d}"


class MadeUpSource:
    """A page of made-up records; the cursor is the number of the next one."""

    async def execute(self, ctx: StageContext, request: AdapterRequest) -> IngestPage:
        paths: Any = request.selection["paths"]
        count, size = int(paths[0]), int(paths[1])
        first = int(request.cursor or 0)
        last = min(first + request.limit, count)
        if len(paths) > 2:
            last = min(last, await _arrived(first, count, float(paths[2]), float(paths[3])))
        text = ("lorem ipsum dolor sit amet " * (size // 27 + 1))[:size]
        payloads = tuple(
            RawPayload(source=request.source, source_id=made_up_id(number), media_type="text/plain", text=text)
            for number in range(first, last)
        )
        return IngestPage(payloads, next_cursor=str(last) if last < count else "", total=count)


async def _arrived(first: int, count: int, per_second: float, begin: float) -> int:
    """How many records have arrived, as soon as there are more than ``first``."""
    times = arrivals(count, per_second)
    await asyncio.sleep(max(0.0, begin + times[first] - time.time()))
    return max(first + 1, bisect_right(times, time.time() - begin))


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
        return chunks_of(ctx, document)


def chunks_of(ctx: StageContext, document: Document) -> list[Chunk]:
    """The whole document as one passage."""
    text = document.sections[0].blocks[0].text
    return [Chunk(f"{ctx.doc_id}-0", ctx.doc_id, 0, text, (), (TextSpan("b0", 0, len(text)),), 1)]


class BusyOptions(Options):
    """Settings of ``chunk.busy``."""

    cpu_ms: float = Field(50, gt=0, le=1_000, description="CPU time used up for every document")


class BusyChunk:
    """A chunker that needs so much CPU. A plain function, as most stages that compute are."""

    def __init__(self, cpu_ms: float) -> None:
        self._cpu_seconds = cpu_ms / 1_000

    def execute(self, ctx: StageContext, document: Document) -> list[Chunk]:
        end = time.thread_time() + self._cpu_seconds
        while time.thread_time() < end:
            pass
        return chunks_of(ctx, document)


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


@asynccontextmanager
async def _open_busy(options: BusyOptions, host: Host) -> AsyncIterator[BusyChunk]:
    yield BusyChunk(options.cpu_ms)


INGEST = _noop(StageType.INGEST, MadeUpSource)
PARSE = _noop(StageType.PARSE, Parse)
VALIDATE = _noop(StageType.VALIDATE, Validate)
CHUNK = _noop(StageType.CHUNK, MakeChunk)
EMBED = _noop(StageType.EMBED, Embed)
INDEX = _noop(StageType.INDEX, Index)
EXTRACT = _noop(StageType.EXTRACT, Extract)
KG = _noop(StageType.KG, WriteGraph)
BUSY = StageImplementation(StageType.CHUNK, "busy", "1", BusyOptions, _open_busy, memoised=False, in_python=True)
