"""The adapter of the source ``unpaywall``: open copies of articles by DOI, API v2 (``GET /{doi}``)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import msgspec

from medkg.contracts.document import AdapterRequest, FileLocation, IngestPage, RawPayload, RefusedRecord
from medkg.contracts.errors import ConfigurationError, SourceGoneError, SourcePaywallError
from medkg.contracts.jobs import UnpaywallSelection
from medkg.contracts.sources import SourceAdapter, SourceDefinition
from medkg.ingest.api import Api, api_client, payload_of_locations
from medkg.ingest.records import read_by_ids
from medkg.ingest.selection import read_selection
from medkg.ingest.settings import UnpaywallSettings
from medkg.runtime.settings import from_environment

NAME = "unpaywall"


class _Location(msgspec.Struct):
    url: str | None = None
    url_for_pdf: str | None = None
    license: str | None = None
    version: str | None = None


class _Article(msgspec.Struct):
    """What is used of an answer (data format of Unpaywall, version 2)."""

    doi: str
    is_oa: bool = False
    title: str | None = None
    year: int | None = None
    oa_status: str | None = None
    best_oa_location: _Location | None = None
    oa_locations: tuple[_Location, ...] = ()


class UnpaywallAdapter:
    """Reads articles by DOI, one request an article."""

    def __init__(self, api: Api, email: str) -> None:
        self._api = api
        self._email = email

    async def read(self, request: AdapterRequest) -> IngestPage:
        """One page. A DOI that is not known, or has no open copy, is refused alone.

        Raises:
            ConfigurationError: no e-mail address is set.
            SourceRateLimitedError, SourceUnavailableError: asking again may help.
            ContractError: the selection or the cursor are not ours.
        """
        selection = read_selection(request, UnpaywallSelection)
        if not self._email:
            raise ConfigurationError(
                "reading Unpaywall: it answers only who gives an e-mail address; set MEDKG_INGEST_UNPAYWALL_EMAIL"
            )
        return await read_by_ids(request, [doi.lower() for doi in selection.ids], self._article)

    async def _article(self, doi: str) -> RawPayload | RefusedRecord:
        if {".", ".."} & set(doi.split("/")):  # would lead out of the API
            return RefusedRecord(doi, "", SourceGoneError.code, f"reading {doi}: no registered DOI looks like this")
        path = f"/{quote(doi, safe='/')}"
        uri = self._api.base_url + path
        try:
            article = await self._api.get_json(path, _Article)
        except SourceGoneError as error:
            return RefusedRecord(doi, uri, error.code, f"reading {uri}: Unpaywall does not know this DOI; check it")
        locations = _locations(article)
        if not locations:
            message = f"reading {uri}: there is no open copy of it (status {article.oa_status})"
            return RefusedRecord(doi, uri, SourcePaywallError.code, message)
        facts = {"doi": doi, "title": article.title, "year": article.year, "oa_status": article.oa_status}
        return payload_of_locations(NAME, doi, uri, locations, facts)


def _locations(article: _Article) -> list[FileLocation]:
    """PDFs first, the best one before all; then the pages, which may answer with a PDF to who asks for one."""
    given = [place for place in (article.best_oa_location, *article.oa_locations) if place is not None]
    pdfs = [(place.url_for_pdf, place) for place in given]
    pages = [(place.url, place) for place in given]
    return [FileLocation(url, place.license or "", place.version or "") for url, place in pdfs + pages if url]


@asynccontextmanager
async def _open() -> AsyncIterator[SourceAdapter]:
    settings = from_environment(UnpaywallSettings)
    async with api_client(settings) as client:
        yield UnpaywallAdapter(
            Api(client, settings.base_url, settings, query={"email": settings.email}), settings.email
        )


UNPAYWALL = SourceDefinition(NAME, UnpaywallSelection, _open)
