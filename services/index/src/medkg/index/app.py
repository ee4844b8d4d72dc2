"""The index service: what it offers, and how it is started."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import Field

from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.runtime.service import serve


class EmbeddedOptions(Options):
    """Settings of ``index.embedded``."""

    index: str = Field(
        "passages",
        pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$",
        description="vectors of another model need another index; searches name the one they read",
    )
    segment_rows: int = Field(4096, ge=16, le=1_000_000, description="new passages that become a FAISS segment")


@asynccontextmanager
async def _open(options: EmbeddedOptions, host: Host) -> AsyncIterator[object]:
    from medkg.index.stage import EmbeddedIndex

    stage = EmbeddedIndex(host.data_dir, options.index, options.segment_rows)
    try:
        yield stage
    finally:
        await stage.aclose()


EMBEDDED = StageImplementation(
    stage_type=StageType.INDEX,
    name="embedded",
    version="1",
    options=EmbeddedOptions,
    open=_open,
    memoised=False,
    is_default=True,
)


def main() -> None:
    """Entry point of ``medkg-index`` and ``python -m medkg.index``."""
    serve(StageType.INDEX)
