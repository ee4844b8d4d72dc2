"""How a source says what it is, so that an ingest stage can find, check and read it.

Registered under the entry-point group ``medkg.sources``, with the source's name::

    [project.entry-points."medkg.sources"]
    "preprints" = "my_package:PREPRINTS"
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel

from medkg.contracts.document import AdapterRequest, IngestPage

ENTRY_POINTS = "medkg.sources"


class SourceAdapter(Protocol):
    """Reads one source, page by page; any number of pages at the same time.

    The same request gives the same page as long as the source does not change. A cursor is the adapter's own: it comes
    back in a message that anybody may have written, and must not lead outside of the selection.
    """

    async def read(self, request: AdapterRequest) -> IngestPage: ...


@dataclass(frozen=True, slots=True)
class SourceDefinition:
    """A source. ``selection`` is the model of what a job may ask of it; ``open`` builds its adapter and releases it."""

    name: str
    selection: type[BaseModel]
    open: Callable[[], AbstractAsyncContextManager[SourceAdapter]]
