"""The adapter of the source ``clinicaltrials``: ClinicalTrials.gov, API v2 (``GET /studies``)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import msgspec

from medkg.contracts.document import AdapterRequest, IngestPage, RawPayload, RefusedRecord
from medkg.contracts.errors import ContentError, ContractError, SourceGoneError, SourceMalformedError
from medkg.contracts.jobs import ClinicalTrialsSelection
from medkg.contracts.sources import SourceAdapter, SourceDefinition
from medkg.http.politeness import user_agent
from medkg.http.reading import get_bounded
from medkg.ingest.cursor import Cursor, read_cursor, selection_digest, write_cursor
from medkg.ingest.selection import read_selection
from medkg.ingest.settings import ClinicalTrialsSettings
from medkg.ingest.studies import aliases_of, read_study
from medkg.runtime.resilience import peers
from medkg.runtime.settings import from_environment

NAME = "clinicaltrials"
MAX_PAGE_SIZE = 1_000  # the API's own
MAX_IDS = 200  # of one request: 2.4 kB of URL
_MAX_TOKEN = 4_096


class ClinicalTrialsCursor(Cursor, kw_only=True):
    """How many ids or studies lie behind the page, and for a query the token that the API gave for the next."""

    done: Annotated[int, msgspec.Meta(ge=0)]
    token: Annotated[str, msgspec.Meta(max_length=_MAX_TOKEN, pattern=r"^[!-~]*$")] = ""
    total: int | None = None


class _Answer(msgspec.Struct):
    """What is used of a search page; studies stay as they came."""

    studies: tuple[msgspec.Raw, ...] = ()
    nextPageToken: str = ""
    totalCount: int | None = None


class ClinicalTrialsAdapter:
    """Reads studies by NCT number or by query, one request to the API a page."""

    def __init__(self, client: httpx.AsyncClient, settings: ClinicalTrialsSettings) -> None:
        self._client = client
        self._url = settings.base_url.rstrip("/") + "/studies"
        self._max_bytes = settings.max_response_bytes

    async def read(self, request: AdapterRequest) -> IngestPage:
        """One page. An NCT number that the registry does not have, or a study that cannot be read, is refused alone.

        Raises:
            SourceRateLimitedError: 429, with the seconds that the API asks to wait.
            SourceUnavailableError: no connection, a timeout, 5xx.
            SourceGoneError, SourceForbiddenError, SourceMalformedError: it will not get better by asking again.
            ContractError: the selection or the cursor are not ours.
        """
        selection = read_selection(request, ClinicalTrialsSelection)
        cursor = read_cursor(request, ClinicalTrialsCursor)
        if selection.ids:
            return await self._by_ids(request, selection, cursor)
        return await self._by_query(request, selection, cursor)

    async def _by_ids(
        self, request: AdapterRequest, selection: ClinicalTrialsSelection, cursor: ClinicalTrialsCursor | None
    ) -> IngestPage:
        ids = list(dict.fromkeys(selection.ids))[: selection.limit]
        done = cursor.done if cursor is not None else 0
        if done and done >= len(ids):
            raise ContractError("reading a page of ClinicalTrials.gov: its cursor lies behind the last NCT number")
        batch = ids[done : done + _page_size(request.limit, MAX_IDS)]
        answer = await self._get({"filter.ids": ",".join(batch), "pageSize": str(len(batch))})
        payloads, refused = self._studies(answer)
        found = {payload.source_id for payload in payloads}.union(*(aliases_of(p.text) for p in payloads))
        refused += [self._missing(nct) for nct in batch if nct not in found]
        done += len(batch)
        following = ClinicalTrialsCursor(selection=selection_digest(request), done=done)
        return IngestPage(
            payloads=tuple(payloads),
            refused=tuple(refused),
            next_cursor=write_cursor(following) if done < len(ids) else "",
            total=len(ids),
        )

    async def _by_query(
        self, request: AdapterRequest, selection: ClinicalTrialsSelection, cursor: ClinicalTrialsCursor | None
    ) -> IngestPage:
        done = cursor.done if cursor is not None else 0
        size = _page_size(request.limit, MAX_PAGE_SIZE)
        left = None if selection.limit is None else selection.limit - done
        if left is not None:
            if left <= 0:
                raise ContractError(
                    "reading a page of ClinicalTrials.gov: its cursor lies behind the selection's limit"
                )
            size = min(size, left)
        wanted = {"query.term": selection.query, "pageSize": str(size), "countTotal": "true"}
        if cursor is not None and cursor.token:
            wanted["pageToken"] = cursor.token
        answer = await self._get(wanted)
        payloads, refused = self._studies(answer)
        done += len(answer.studies)
        total = answer.totalCount if answer.totalCount is not None else cursor.total if cursor is not None else None
        if total is not None and selection.limit is not None:
            total = min(total, selection.limit)
        is_last = (
            not answer.nextPageToken or not answer.studies or (left is not None and done >= (selection.limit or 0))
        )
        following = ClinicalTrialsCursor(
            selection=selection_digest(request), done=done, token=answer.nextPageToken, total=total
        )
        return IngestPage(
            payloads=tuple(payloads),
            refused=tuple(refused),
            next_cursor="" if is_last else write_cursor(following),
            total=total,
        )

    async def _get(self, wanted: dict[str, str]) -> _Answer:
        async with peers.guard(urlsplit(self._url).netloc):
            body = await get_bounded(self._client, self._url, {"format": "json", **wanted}, self._max_bytes)
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise SourceMalformedError(f"reading {self._url}: the answer is not what API v2 gives: {error}") from error
        if len(answer.nextPageToken) > _MAX_TOKEN or not answer.nextPageToken.isascii():
            raise SourceMalformedError(f"reading {self._url}: the answer's nextPageToken cannot be one")
        return answer

    def _studies(self, answer: _Answer) -> tuple[list[RawPayload], list[RefusedRecord]]:
        payloads: list[RawPayload] = []
        refused: list[RefusedRecord] = []
        for index, raw in enumerate(answer.studies):
            uri = f"{self._url}#/studies/{index}"
            try:
                payload = read_study(NAME, bytes(raw), uri)
            except ContentError as error:
                refused.append(RefusedRecord(uri, uri, error.code, error.message))
            else:
                payloads.append(msgspec.structs.replace(payload, uri=f"{self._url}/{payload.source_id}"))
        return payloads, refused

    def _missing(self, nct: str) -> RefusedRecord:
        uri = f"{self._url}/{nct}"
        error = SourceGoneError(f"reading {uri}: the registry has no such study; check the number")
        return RefusedRecord(nct, uri, error.code, error.message)


def _page_size(asked: int, most: int) -> int:
    return min(max(asked, 1), most)


def new_client(settings: ClinicalTrialsSettings, **more: Any) -> httpx.AsyncClient:
    """A client as the registry wants it: named, bounded in time, following no redirects."""
    return httpx.AsyncClient(
        headers={"User-Agent": user_agent("medkg-ingest", settings.contact), "Accept": "application/json"},
        timeout=httpx.Timeout(settings.read_timeout_seconds, connect=settings.connect_timeout_seconds),
        follow_redirects=False,
        **more,
    )


@asynccontextmanager
async def _open() -> AsyncIterator[SourceAdapter]:
    settings = from_environment(ClinicalTrialsSettings)
    async with new_client(settings) as client:
        yield ClinicalTrialsAdapter(client, settings)


CLINICALTRIALS = SourceDefinition(NAME, ClinicalTrialsSelection, _open)
