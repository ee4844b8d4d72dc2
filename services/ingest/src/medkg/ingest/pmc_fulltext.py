"""The adapter of the source ``pmc-fulltext``: articles of PubMed Central, from the PMC Cloud Service.

The service is a public bucket: every version of an article has a folder ``PMC123.1/`` and a record
``metadata/PMC123.1.json`` that names its files.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit

import msgspec

from medkg.contracts.document import AdapterRequest, FileLocation, IngestPage, RawPayload, RefusedRecord
from medkg.contracts.errors import SourceForbiddenError, SourceGoneError
from medkg.contracts.jobs import PmcFulltextSelection
from medkg.contracts.sources import SourceAdapter, SourceDefinition
from medkg.ingest.api import Api, api_client, payload_of_locations
from medkg.ingest.records import MAX_IDS, read_by_ids
from medkg.ingest.selection import read_selection
from medkg.ingest.settings import PmcFulltextSettings
from medkg.runtime.settings import from_environment

NAME = "pmc-fulltext"


class _Article(msgspec.Struct):
    """What is used of the record of a version."""

    pmcid: str
    version: int | str | None = None
    doi: str | None = None
    pmid: int | str | None = None
    title: str | None = None
    license_code: str | None = None
    is_manuscript: bool | None = None
    is_retracted: bool | None = None
    pdf_url: str | None = None


class PmcFulltextAdapter:
    """Reads articles by PMC number, two requests an article: its versions, and the record of the last."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def read(self, request: AdapterRequest) -> IngestPage:
        """One page. An article that is not in the datasets, or there without a PDF, is refused alone.

        Raises:
            SourceRateLimitedError, SourceUnavailableError: asking again may help.
            ContractError: the selection or the cursor are not ours.
        """
        selection = read_selection(request, PmcFulltextSelection)
        return await read_by_ids(request, selection.ids, self._article, most=MAX_IDS // 2)

    async def _article(self, pmcid: str) -> RawPayload | RefusedRecord:
        version = await self._last_version(pmcid)
        uri = f"{self._api.base_url}/metadata/{pmcid}.{version}.json"
        if not version:
            return _refusal(pmcid, uri, SourceGoneError, "it is not among the articles that may be fetched")
        article = await self._api.get_json(f"/metadata/{pmcid}.{version}.json", _Article)
        url = self._file_url(article.pdf_url or "")
        if not url:
            return _refusal(pmcid, uri, SourceForbiddenError, "the datasets have no PDF of it")
        written = "acceptedVersion" if article.is_manuscript else "publishedVersion"
        facts = {
            "pmcid": pmcid,
            "pmid": None if article.pmid is None else str(article.pmid),
            "doi": article.doi,
            "title": article.title,
            "retracted": article.is_retracted,
        }
        location = FileLocation(url, article.license_code or "", written)
        return payload_of_locations(NAME, pmcid, uri, [location], facts)

    async def _last_version(self, pmcid: str) -> int:
        """The number of the last version, 0 where there is none."""
        listing = await self._api.get("/", {"list-type": "2", "prefix": f"{pmcid}.", "delimiter": "/"})
        # A listing of S3 (ListObjectsV2). The name is known up to its number, so nothing needs an XML parser.
        found = re.findall(rb"<Prefix>" + pmcid.encode() + rb"\.([0-9]{1,4})/</Prefix>", listing)
        return max(map(int, found), default=0)

    def _file_url(self, given: str) -> str:
        """The address of a file over HTTPS; records name it as ``s3://bucket/key?md5=…``."""
        parts = urlsplit(given)
        if parts.scheme == "s3" and parts.path.strip("/"):
            return f"{self._api.base_url}/{quote(parts.path.lstrip('/'))}"
        return given if parts.scheme in {"http", "https"} else ""


def _refusal(pmcid: str, uri: str, kind: type[SourceGoneError | SourceForbiddenError], why: str) -> RefusedRecord:
    return RefusedRecord(pmcid, uri, kind.code, f"reading {pmcid} from the PMC Cloud Service: {why}")


@asynccontextmanager
async def _open() -> AsyncIterator[SourceAdapter]:
    settings = from_environment(PmcFulltextSettings)
    async with api_client(settings) as client:
        yield PmcFulltextAdapter(Api(client, settings.base_url, settings))


PMC_FULLTEXT = SourceDefinition(NAME, PmcFulltextSelection, _open)
