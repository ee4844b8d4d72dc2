"""The adapter of the source ``core``: works of CORE, API v3, by id (``/works/ID``) or query (``/search/works/``)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec

from medkg.contracts.document import AdapterRequest, FileLocation, IngestPage, RawPayload, RefusedRecord
from medkg.contracts.errors import ContractError, SourceForbiddenError, SourceMalformedError
from medkg.contracts.jobs import CoreSelection
from medkg.contracts.sources import SourceAdapter, SourceDefinition
from medkg.ingest.api import Api, api_client, payload_of_locations
from medkg.ingest.cursor import Cursor, read_cursor, selection_digest, write_cursor
from medkg.ingest.records import read_by_ids
from medkg.ingest.selection import read_selection
from medkg.ingest.settings import CoreSettings
from medkg.runtime.settings import from_environment

NAME = "core"
MAX_PAGE_SIZE = 100  # the API's own
MAX_OFFSET = 10_000  # beyond it CORE wants a scroll, which no cursor of ours can go back in
_LICENCE = 100  # characters


class CoreCursor(Cursor, kw_only=True):
    """How many works of a query lie behind the page."""

    done: Annotated[int, msgspec.Meta(ge=0, le=MAX_OFFSET)]


class _Link(msgspec.Struct):
    type: str | None = None
    url: str | None = None


class _Work(msgspec.Struct, rename="camel"):
    """What is used of a work; CORE leaves out or nulls what it does not know."""

    id: int
    doi: str | None = None
    title: str | None = None
    year_published: int | None = None
    pubmed_id: str | None = None
    license: str | None = None
    download_url: str | None = None
    source_fulltext_urls: tuple[str | None, ...] | str | None = None
    links: tuple[_Link, ...] | None = None


class _Answer(msgspec.Struct, rename="camel"):
    total_hits: int = 0
    results: tuple[msgspec.Raw, ...] = ()


class CoreAdapter:
    """Reads works: by number one request a work, by query one request a page."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def read(self, request: AdapterRequest) -> IngestPage:
        """One page. A number that CORE does not have, and a work without a file, are refused alone.

        Raises:
            SourceRateLimitedError, SourceUnavailableError: asking again may help.
            SourceForbiddenError: CORE does not take the key. SourceMalformedError: it gives what is no page.
            ContractError: the selection or the cursor are not ours.
        """
        selection = read_selection(request, CoreSelection)
        if selection.ids:
            ids = list(map(str, selection.ids[: selection.limit]))
            return await read_by_ids(request, ids, self._by_number)
        return await self._by_query(request, selection)

    async def _by_number(self, number: str) -> RawPayload | RefusedRecord:
        return self._record(await self._api.get_json(f"/works/{number}", _Work))

    async def _by_query(self, request: AdapterRequest, selection: CoreSelection) -> IngestPage:
        cursor = read_cursor(request, CoreCursor)
        done = cursor.done if cursor is not None else 0
        most = min(selection.limit or MAX_OFFSET, MAX_OFFSET)
        if done >= most:
            raise ContractError("reading a page of CORE: its cursor lies behind the selection's limit")
        size = min(max(request.limit, 1), MAX_PAGE_SIZE, most - done)
        wanted = {"q": selection.query, "limit": str(size), "offset": str(done)}
        # with the slash at the end: without it CORE answers with a redirect
        answer = await self._api.get_json("/search/works/", _Answer, wanted)
        records = [self._read(raw, done + place) for place, raw in enumerate(answer.results)]
        done += len(answer.results)
        total = min(answer.total_hits, most)
        following = CoreCursor(selection=selection_digest(request), done=min(done, MAX_OFFSET))
        return IngestPage(
            payloads=tuple(record for record in records if isinstance(record, RawPayload)),
            refused=tuple(record for record in records if isinstance(record, RefusedRecord)),
            next_cursor=write_cursor(following) if answer.results and done < total else "",
            total=total,
        )

    def _read(self, raw: msgspec.Raw, place: int) -> RawPayload | RefusedRecord:
        try:
            return self._record(msgspec.json.decode(raw, type=_Work))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            uri = f"{self._api.base_url}/search/works/#/{place}"
            return RefusedRecord(uri, uri, SourceMalformedError.code, f"reading {uri}: no work of CORE: {error}")

    def _record(self, work: _Work) -> RawPayload | RefusedRecord:
        uri = f"{self._api.base_url}/works/{work.id}"
        locations = _locations(work)
        if not locations:
            message = f"reading {uri}: CORE has no file of it"
            return RefusedRecord(str(work.id), uri, SourceForbiddenError.code, message)
        facts = {"doi": work.doi, "pmid": work.pubmed_id, "title": work.title, "year": work.year_published}
        return payload_of_locations(NAME, str(work.id), uri, locations, facts)


def _locations(work: _Work) -> list[FileLocation]:
    """CORE's own copy first, then those of the repositories that it has it from."""
    originals = work.source_fulltext_urls
    urls = [
        work.download_url,
        *(link.url for link in work.links or () if link.type == "download"),
        *((originals,) if isinstance(originals, str) else originals or ()),
    ]
    licence = (work.license or "")[:_LICENCE]
    return [FileLocation(url, licence) for url in urls if url]


@asynccontextmanager
async def _open() -> AsyncIterator[SourceAdapter]:
    settings = from_environment(CoreSettings)
    key = settings.api_key.get_secret_value()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with api_client(settings) as client:
        yield CoreAdapter(Api(client, settings.base_url, settings, headers=headers))


CORE = SourceDefinition(NAME, CoreSelection, _open)
