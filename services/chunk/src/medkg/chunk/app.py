"""The chunk service: what it offers, and how it is started."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import Field

from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.runtime.service import serve


class SectionOptions(Options):
    """Settings of ``chunk.sections``."""

    max_tokens: int = Field(256, ge=16, le=8192, description="most word-piece-like tokens in a passage")
    overlap_sentences: int = Field(1, ge=0, le=10, description="sentences that the next passage repeats")
    include_back: bool = Field(True, description="also acknowledgements, funding and competing interests")
    max_chunks: int = Field(20_000, ge=1, le=1_000_000, description="a document with more passages is refused")


@asynccontextmanager
async def _open(options: SectionOptions, host: Host) -> AsyncIterator[object]:
    from medkg.chunk.stage import SectionChunker  # Haystack costs 40 MB: only where the stage runs

    yield SectionChunker(**options.model_dump())


SECTIONS = StageImplementation(
    stage_type=StageType.CHUNK,
    name="sections",
    version="1",
    options=SectionOptions,
    open=_open,
    is_default=True,
)


def main() -> None:
    """Entry point of ``medkg-chunk`` and ``python -m medkg.chunk``."""
    serve(StageType.CHUNK)
