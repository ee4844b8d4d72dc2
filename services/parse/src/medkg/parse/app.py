"""The parse service: what it offers, and how it is started."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from pydantic import Field

from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.parse.stage import AutoParser
from medkg.runtime.process import serve


class ParseOptions(Options):
    """``with:`` of a parse stage."""

    # A tree of XML takes some 20 times its text: 32 million characters stay under a gigabyte.
    max_characters: Annotated[int, Field(ge=1, le=500_000_000)] = 32_000_000


@asynccontextmanager
async def _open(options: ParseOptions, host: Host) -> AsyncIterator[AutoParser]:
    yield AutoParser(options.max_characters)


AUTO = StageImplementation(
    stage_type=StageType.PARSE,
    name="auto",
    version="2",
    options=ParseOptions,
    open=_open,
    is_default=True,
    in_python=True,
)


class PdfiumOptions(Options):
    """``with:`` of a parse stage that ``uses: pdfium``. The limits are those of one file."""

    max_bytes: Annotated[int, Field(ge=1_000, le=1_000_000_000)] = 100_000_000
    max_pages: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    max_characters: Annotated[int, Field(ge=1, le=50_000_000)] = 10_000_000
    memory_bytes: Annotated[int, Field(ge=134_217_728, le=34_359_738_368)] = 1_073_741_824
    # Below the 30 s of the default policy: what is slow is then the file's fault, and not tried again.
    timeout_seconds: Annotated[float, Field(ge=1, le=600)] = 25.0
    processes: Annotated[int, Field(ge=1, le=64)] = 2


@asynccontextmanager
async def _open_pdfium(options: PdfiumOptions, host: Host) -> AsyncIterator[object]:
    from medkg.parse.pdf.pool import ParserPool, PoolLimits
    from medkg.parse.pdf.stage import PdfiumParser

    pool = ParserPool(
        PoolLimits(
            processes=options.processes, memory_bytes=options.memory_bytes, timeout_seconds=options.timeout_seconds
        )
    )
    try:
        yield PdfiumParser(
            pool,
            host.blobs,
            max_bytes=options.max_bytes,
            max_pages=options.max_pages,
            max_characters=options.max_characters,
        )
    finally:
        await pool.close()


PDFIUM = StageImplementation(
    stage_type=StageType.PARSE,
    name="pdfium",
    version="1",
    options=PdfiumOptions,
    open=_open_pdfium,
)


def main() -> None:
    """Entry point of ``medkg-parse`` and ``python -m medkg.parse``."""
    serve(StageType.PARSE)
