"""The source ``clinicaltrials`` against a recorded shape of the API v2: pages, bounds, and failures sorted."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx

from medkg.contracts.document import AdapterRequest, IngestPage
from medkg.contracts.errors import (
    ContractError,
    MedkgError,
    SourceForbiddenError,
    SourceGoneError,
    SourceMalformedError,
    SourceRateLimitedError,
    SourceUnavailableError,
)
from medkg.contracts.media import CTG_STUDY
from medkg.ingest.clinicaltrials import ClinicalTrialsAdapter, new_client
from medkg.ingest.settings import ClinicalTrialsSettings

URL = "https://registry.test/api/v2/studies"
SETTINGS = ClinicalTrialsSettings(base_url="https://registry.test/api/v2/", contact="mailto:a@b.test")


def study(number: int, aliases: tuple[str, ...] = ()) -> dict[str, Any]:
    identification = {"nctId": f"NCT{number:08d}", "nctIdAliases": [*aliases], "briefTitle": "T"}
    return {"protocolSection": {"identificationModule": identification}, "hasResults": False}


def answer(*studies: object, token: str = "", total: int | None = None) -> httpx.Response:
    page: dict[str, object] = {} if total is None else {"totalCount": total}
    page["studies"] = [*studies]
    return httpx.Response(200, json=page | ({"nextPageToken": token} if token else {}))


@pytest.fixture
async def source() -> AsyncIterator[ClinicalTrialsAdapter]:
    async with new_client(SETTINGS) as client:
        yield ClinicalTrialsAdapter(client, SETTINGS)


@pytest.fixture
def registry() -> Any:
    with respx.mock(assert_all_called=False) as router:
        yield router.get(url__startswith=URL)


async def read(source: ClinicalTrialsAdapter, cursor: str = "", limit: int = 100, **selection: object) -> IngestPage:
    return await source.read(AdapterRequest("clinicaltrials", selection, cursor, limit))


def asked(route: Any, number: int = -1) -> dict[str, str]:
    return dict(route.calls[number].request.url.params)


async def test_studies_are_asked_for_by_number_in_batches(source: ClinicalTrialsAdapter, registry: Any) -> None:
    registry.side_effect = [answer(study(2), study(1)), answer(study(3))]
    wanted = ["NCT00000001", "NCT00000002", "NCT00000001", "NCT00000003"]
    first = await read(source, ids=wanted, limit=2)
    last = await read(source, first.next_cursor, ids=wanted, limit=2)
    assert [p.source_id for p in (*first.payloads, *last.payloads)] == ["NCT00000002", "NCT00000001", "NCT00000003"]
    assert (first.total, last.total, last.next_cursor) == (3, 3, "")
    assert asked(registry, 0) == {"format": "json", "filter.ids": "NCT00000001,NCT00000002", "pageSize": "2"}
    assert asked(registry)["filter.ids"] == "NCT00000003"


async def test_a_study_is_the_text_that_came_and_knows_its_address(
    source: ClinicalTrialsAdapter, registry: Any
) -> None:
    registry.mock(return_value=answer(study(1)))
    (payload,) = (await read(source, ids=["NCT00000001"])).payloads
    assert json.loads(payload.text) == study(1)
    assert (payload.source, payload.media_type, payload.uri) == ("clinicaltrials", CTG_STUDY, f"{URL}/NCT00000001")


async def test_a_number_that_the_registry_does_not_have_is_refused_alone(
    source: ClinicalTrialsAdapter, registry: Any
) -> None:
    registry.mock(return_value=answer(study(1), study(5, aliases=("NCT00000003",))))
    page = await read(source, ids=["NCT00000001", "NCT00000002", "NCT00000003"])
    assert [p.source_id for p in page.payloads] == ["NCT00000001", "NCT00000005"]
    assert [(r.source_id, r.code) for r in page.refused] == [("NCT00000002", "source_gone")]


async def test_a_query_is_read_page_by_page_by_the_tokens_of_the_api(
    source: ClinicalTrialsAdapter, registry: Any
) -> None:
    registry.side_effect = [answer(study(1), study(2), token="NF0g5JE", total=3), answer(study(3))]
    first = await read(source, query='"disc" AND lumbar & more', limit=2)
    last = await read(source, first.next_cursor, query='"disc" AND lumbar & more', limit=2)
    assert (first.total, last.total, last.next_cursor) == (3, 3, "")
    assert asked(registry, 0) == {
        "format": "json",
        "query.term": '"disc" AND lumbar & more',
        "pageSize": "2",
        "countTotal": "true",
    }
    assert asked(registry)["pageToken"] == "NF0g5JE"
    assert [p.source_id for p in last.payloads] == ["NCT00000003"]


async def test_a_limit_ends_a_query_though_the_registry_has_more(source: ClinicalTrialsAdapter, registry: Any) -> None:
    registry.side_effect = [answer(study(1), study(2), token="t", total=900), answer(study(3), token="u", total=900)]
    selection: dict[str, object] = {"query": "x", "limit": 3}
    one = await source.read(AdapterRequest("clinicaltrials", selection, "", 2))
    two = await source.read(AdapterRequest("clinicaltrials", selection, one.next_cursor, 2))
    assert (len(one.payloads), len(two.payloads), two.next_cursor, two.total) == (2, 1, "", 3)
    assert asked(registry)["pageSize"] == "1"


async def test_a_page_without_studies_ends_a_query_even_with_a_token(
    source: ClinicalTrialsAdapter, registry: Any
) -> None:
    registry.mock(return_value=answer(token="again-and-again", total=0))
    assert (await read(source, query="x")).next_cursor == ""


async def test_a_study_that_cannot_be_read_is_refused_and_the_rest_goes_on(
    source: ClinicalTrialsAdapter, registry: Any
) -> None:
    registry.mock(return_value=answer({"Study": {}}, 17, study(4)))
    page = await read(source, query="x")
    assert [p.source_id for p in page.payloads] == ["NCT00000004"]
    assert [r.source_id for r in page.refused] == [f"{URL}#/studies/0", f"{URL}#/studies/1"]


@pytest.mark.parametrize(
    ("status", "error", "is_retryable"),
    [
        (301, SourceMalformedError, False),
        (400, SourceMalformedError, False),
        (401, SourceForbiddenError, False),
        (403, SourceForbiddenError, False),
        (404, SourceGoneError, False),
        (408, SourceUnavailableError, True),
        (410, SourceGoneError, False),
        (429, SourceRateLimitedError, True),
        (500, SourceUnavailableError, True),
        (503, SourceUnavailableError, True),
    ],
)
async def test_a_status_says_whether_to_ask_again(
    source: ClinicalTrialsAdapter, registry: Any, status: int, error: type[MedkgError], is_retryable: bool
) -> None:
    registry.mock(return_value=httpx.Response(status, text="because\nof this", headers={"Location": "http://x.test/"}))
    with pytest.raises(error, match=f"{status}.*because of this") as caught:
        await read(source, query="x")
    assert caught.value.retryable is is_retryable
    assert len(registry.calls) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "17"}, 17.0),
        ({"Retry-After": "999999999999"}, 3_600.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2020 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({}, None),
    ],
)
async def test_the_wait_that_a_429_asks_for_is_passed_on(
    source: ClinicalTrialsAdapter, registry: Any, headers: dict[str, str], seconds: float | None
) -> None:
    registry.mock(return_value=httpx.Response(429, headers=headers))
    with pytest.raises(SourceRateLimitedError) as caught:
        await read(source, query="x")
    assert caught.value.retry_after_seconds == seconds


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut")]
)
async def test_no_connection_is_worth_another_try(
    source: ClinicalTrialsAdapter, registry: Any, error: Exception
) -> None:
    registry.mock(side_effect=error)
    with pytest.raises(SourceUnavailableError, match=type(error).__name__):
        await read(source, query="x")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"studies": 5}', b'{"studies": [', b'{"nextPageToken": "\\u00e9"}', b"[" * 100_000],
)
async def test_an_answer_that_cannot_be_read_is_no_crash(
    source: ClinicalTrialsAdapter, registry: Any, body: bytes
) -> None:
    registry.mock(return_value=httpx.Response(200, content=body))
    with pytest.raises(SourceMalformedError, match=r"registry\.test"):
        await read(source, query="x")


async def test_an_answer_over_the_bound_is_given_up_before_it_is_whole(registry: Any) -> None:
    settings = SETTINGS.model_copy(update={"max_response_bytes": 1_024})
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1_000_000):
            taken += 512
            yield b" " * 512

    registry.mock(return_value=httpx.Response(200, content=endless()))
    async with new_client(settings) as client:
        with pytest.raises(SourceMalformedError, match="1024 bytes"):
            await read(ClinicalTrialsAdapter(client, settings), query="x")
    assert taken < 10_000


async def test_the_registry_is_told_who_asks(source: ClinicalTrialsAdapter, registry: Any) -> None:
    registry.mock(return_value=answer())
    await read(source, query="x")
    agent = registry.calls[0].request.headers["User-Agent"]
    assert agent.startswith("medkg/")
    assert "mailto:a@b.test" in agent


@pytest.mark.parametrize(
    "selection",
    [
        {},
        {"ids": [], "query": ""},
        {"ids": ["NCT00000001"], "query": "x"},
        {"ids": ["NCT1"]},
        {"query": "x", "limit": 0},
    ],
)
async def test_a_selection_that_breaks_its_model_asks_nothing(
    source: ClinicalTrialsAdapter, registry: Any, selection: dict[str, object]
) -> None:
    with pytest.raises(ContractError):
        await source.read(AdapterRequest("clinicaltrials", selection))
    assert not registry.calls


async def test_a_cursor_of_another_selection_asks_nothing(source: ClinicalTrialsAdapter, registry: Any) -> None:
    registry.mock(return_value=answer(study(1), token="t"))
    first = await read(source, query="x")
    with pytest.raises(ContractError, match="another selection"):
        await read(source, first.next_cursor, query="y")
    assert len(registry.calls) == 1


@pytest.mark.corpus
async def test_a_recorded_search_page_is_read_whole(source: ClinicalTrialsAdapter, registry: Any, corpus: Path) -> None:
    recorded = (corpus / "ctg/search-pages/aact_central-data_page.json").read_bytes()
    registry.mock(return_value=httpx.Response(200, content=recorded))
    page = await read(source, query="x")
    assert [p.source_id for p in page.payloads] == ["NCT04523987"]
    assert json.loads(page.payloads[0].text) == json.loads(recorded)["studies"][0]
    await read(source, page.next_cursor, query="x")
    assert asked(registry)["pageToken"] == "NF0g5JE"
