"""A client of an open API: named, bounded in time and size, and asked no faster than is polite."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from medkg.contracts.context import Metadata
from medkg.contracts.document import FileLocation, FileLocations, RawPayload
from medkg.contracts.errors import MedkgError, SourceMalformedError, SourceRateLimitedError
from medkg.contracts.media import FILE_LOCATIONS
from medkg.http.politeness import Politeness, user_agent
from medkg.http.reading import get_bounded
from medkg.ingest.settings import ApiSettings
from medkg.runtime.resilience import peers

T = TypeVar("T")

_MAX_URL = 4_000  # characters of a location; a longer one is none
_MAX_TEXT = 500


class Api:
    """One API. Every request takes its turn; an answer 429 with ``Retry-After`` keeps the others away too."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        settings: ApiSettings,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._client = client
        self._max_bytes = settings.max_response_bytes
        self._query = dict(query or {})
        self._headers = dict(headers or {})
        self._host = urlsplit(base_url).netloc
        self._politeness = Politeness(requests_per_second=settings.requests_per_second, connections_per_host=4)

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """The body of an answer 200.

        Raises:
            SourceError: see :func:`medkg.http.reading.get_bounded`.
        """
        async with peers.guard(self._host), self._politeness.turn(self._host):
            try:
                return await get_bounded(
                    self._client,
                    self.base_url + path,
                    self._query | dict(query or {}),
                    self._max_bytes,
                    headers=self._headers,
                )
            except MedkgError as error:
                if isinstance(error, SourceRateLimitedError) and error.retry_after_seconds:
                    self._politeness.hold_off(self._host, error.retry_after_seconds)
                raise

    async def get_json(self, path: str, kind: type[T], query: Mapping[str, str] | None = None) -> T:
        """The body of an answer 200, read as JSON of a shape.

        Raises:
            SourceError: as for ``get``; SourceMalformedError: it is not of that shape.
        """
        body = await self.get(path, query)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise SourceMalformedError(
                f"reading {self.base_url}{path}: the answer is not what the API gives: {error}"
            ) from error


@asynccontextmanager
async def api_client(settings: ApiSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client that says who asks, and follows no redirect: a key must not travel to another host."""
    async with httpx.AsyncClient(
        headers={"User-Agent": user_agent("medkg-ingest", settings.contact), "Accept": "application/json"},
        timeout=httpx.Timeout(settings.read_timeout_seconds, connect=settings.connect_timeout_seconds),
        follow_redirects=False,
    ) as client:
        yield client


def payload_of_locations(
    source: str, source_id: str, uri: str, locations: list[FileLocation], facts: Mapping[str, object]
) -> RawPayload:
    """The payload of a record that says where its file may be had; each URL once, in order.

    ``facts`` become metadata: texts are shortened, what is neither text, number nor truth value is left out.
    """
    unique = {location.url: location for location in reversed(locations) if 0 < len(location.url) <= _MAX_URL}
    ordered = tuple(unique[url] for url in dict.fromkeys(location.url for location in locations) if url in unique)
    metadata: Metadata = {
        name: value[:_MAX_TEXT] if isinstance(value, str) else value
        for name, value in facts.items()
        if isinstance(value, str | int | float | bool) and value != ""
    }
    text = msgspec.json.encode(FileLocations(ordered)).decode()
    return RawPayload(source, source_id, FILE_LOCATIONS, text=text, uri=uri, metadata=metadata)
