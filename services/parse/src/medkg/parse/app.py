"""The parse service: what it offers, and how it is started."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from pydantic import Field

from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.parse.stage import AutoParser
from medkg.runtime.service import serve


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
    version="1",
    options=ParseOptions,
    open=_open,
    is_default=True,
)


def main() -> None:
    """Entry point of ``medkg-parse`` and ``python -m medkg.parse``."""
    serve(StageType.PARSE)
