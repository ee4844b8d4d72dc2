"""The adapter of the source ``files``: pages of records, each ending where the next begins."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from medkg.contracts.document import AdapterRequest, IngestPage, RawPayload, RefusedRecord
from medkg.contracts.errors import ContractError, SourceError, SourceGoneError
from medkg.contracts.jobs import FilesSelection
from medkg.contracts.sources import SourceAdapter, SourceDefinition
from medkg.ingest.cursor import Cursor, read_cursor, selection_digest, write_cursor
from medkg.ingest.files.records import WHOLE, FileToRead, open_file, records
from medkg.ingest.files.roots import Roots, printable
from medkg.ingest.files.walk import FoundFile, RefusedEntry, Spot, Walker
from medkg.ingest.selection import read_selection
from medkg.ingest.settings import FilesSettings
from medkg.runtime.settings import from_environment

NAME = "files"
MAX_RECORDS = 1_000  # of a page, whatever was asked for
_ANCHOR_BYTES = 512  # of the file before the offset that a cursor names

_Count = Annotated[int, msgspec.Meta(ge=0)]


class FilesCursor(Cursor, kw_only=True):
    """Behind which record a page ended. Names are written in Latin-1, byte for byte, since a file name may be no text.

    ``anchor`` is a digest of the file's size and of what stands before the offset, so that a file that has changed
    between two pages is noticed, and an offset that nobody gave out is refused.
    """

    item: _Count
    names: Annotated[tuple[str, ...], msgspec.Meta(max_length=256)]
    offset: Annotated[int, msgspec.Meta(ge=WHOLE)]
    index: _Count
    anchor: str


@dataclass(frozen=True, slots=True)
class _Step:
    """A record with the place behind it."""

    record: RawPayload | RefusedRecord
    size_bytes: int
    spot: Spot
    path: Path | None
    offset: int
    index: int


class FilesAdapter:
    """Reads files under the configured roots. Holds one record at a time beside the page."""

    def __init__(self, settings: FilesSettings) -> None:
        self._settings = settings
        self._roots = Roots(settings.roots)
        self._walker = Walker(self._roots)

    async def read(self, request: AdapterRequest) -> IngestPage:
        """One page. What cannot be read is refused record by record.

        Raises:
            SourceForbiddenError: no root is configured.
            ContractError: the selection or the cursor are not ours.
        """
        return await asyncio.to_thread(self._page, request)

    def _page(self, request: AdapterRequest) -> IngestPage:
        self._roots.require_any()
        selection = read_selection(request, FilesSelection)
        cursor = read_cursor(request, FilesCursor)
        if cursor is not None and cursor.item >= len(selection.paths):
            raise ContractError("reading a page of files: its cursor names a path that the selection does not have")
        limit = min(max(request.limit, 1), MAX_RECORDS)
        kept: list[_Step] = []
        size, is_more = 0, False
        for step in self._steps(request.source, selection.paths, cursor):
            if len(kept) >= limit or (kept and size + step.size_bytes > self._settings.max_page_bytes):
                is_more = True
                break
            kept.append(step)
            size += step.size_bytes
        return IngestPage(
            payloads=tuple(step.record for step in kept if isinstance(step.record, RawPayload)),
            refused=tuple(step.record for step in kept if isinstance(step.record, RefusedRecord)),
            next_cursor=self._cursor_behind(request, kept[-1]) if is_more else "",
        )

    def _steps(self, source: str, paths: list[str], cursor: FilesCursor | None) -> Iterator[_Step]:
        start = None if cursor is None else Spot(cursor.item, tuple(map(_from_latin, cursor.names)))
        is_unfinished = cursor is not None and cursor.offset != WHOLE
        for entry in self._walker.entries(paths, start):
            if cursor is None or entry.spot != start:
                if is_unfinished and cursor is not None:
                    yield _changed(paths, cursor)
                    is_unfinished = False
                offset, index = 0, 0
            elif not is_unfinished:
                continue
            else:
                offset, index, is_unfinished = cursor.offset, cursor.index, False
                if isinstance(entry, FoundFile) and cursor.anchor != _anchor(entry.path, offset):
                    yield _changed(paths, cursor)
                    continue
            if isinstance(entry, RefusedEntry):
                yield _Step(entry.record, 0, entry.spot, None, WHOLE, 0)
                continue
            file = FileToRead(entry.path, entry.name)
            for taken in records(source, file, offset, index, self._settings.max_record_bytes):
                yield _Step(taken.record, taken.size_bytes, entry.spot, entry.path, taken.offset, taken.index)
        if is_unfinished and cursor is not None:
            yield _changed(paths, cursor)

    def _cursor_behind(self, request: AdapterRequest, step: _Step) -> str:
        is_within = step.path is not None and step.offset != WHOLE
        return write_cursor(
            FilesCursor(
                selection=selection_digest(request),
                item=step.spot.item,
                names=tuple(map(_to_latin, step.spot.names)),
                offset=step.offset,
                index=step.index,
                anchor=_anchor(step.path, step.offset) if step.path is not None and is_within else "",
            )
        )


def _anchor(path: Path, offset: int) -> str:
    """The digest of a file at an offset; empty where it cannot be read."""
    try:
        with open_file(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, offset - _ANCHOR_BYTES))
            before = file.read(min(offset, _ANCHOR_BYTES))
    except (OSError, SourceError):
        return ""
    return hashlib.blake2b(f"{size}:{offset}:".encode() + before, digest_size=8).hexdigest()


def _changed(paths: list[str], cursor: FilesCursor) -> _Step:
    """The rest of a file that is not what it was when the page before ended in it."""
    spot = Spot(cursor.item, tuple(map(_from_latin, cursor.names)))
    uri = printable("/".join((paths[spot.item], *spot.names))) + f"#/{cursor.index}"
    error = SourceGoneError(
        f"reading {uri}: the file has changed or gone since the page before; the records from here on were not "
        "read, so submit it again"
    )
    return _Step(RefusedRecord(uri, uri, error.code, error.message), 0, spot, None, WHOLE, 0)


def _to_latin(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("latin-1")


def _from_latin(name: str) -> str:
    try:
        return name.encode("latin-1").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ContractError("reading a page of files: its cursor is not one of ours; submit the job again") from error


@asynccontextmanager
async def _open() -> AsyncIterator[SourceAdapter]:
    yield FilesAdapter(from_environment(FilesSettings))


FILES = SourceDefinition(NAME, FilesSelection, _open)
