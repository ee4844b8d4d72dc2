"""The sources that say where a PDF may be had, against the shapes that their APIs answer with."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import respx

from medkg.contracts.document import AdapterRequest, FileLocation, FileLocations, IngestPage, RawPayload
from medkg.contracts.errors import (
    ConfigurationError,
    ContractError,
    SourceForbiddenError,
    SourceMalformedError,
    SourceRateLimitedError,
    SourceUnavailableError,
)
from medkg.contracts.jobs import check_submission
from medkg.contracts.media import FILE_LOCATIONS
from medkg.contracts.sources import SourceAdapter
from medkg.ingest.api import Api, api_client
from medkg.ingest.core import CoreAdapter
from medkg.ingest.pmc_fulltext import PmcFulltextAdapter
from medkg.ingest.settings import ApiSettings, CoreSettings, PmcFulltextSettings, UnpaywallSettings
from medkg.ingest.unpaywall import UnpaywallAdapter

UNPAYWALL, CORE, PMC = "https://unpaywall.test/v2", "https://core.test/v3", "https://pmc.test"
FAST = ApiSettings(requests_per_second=100, contact="mailto:a@b.test")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(FAST) as client:
        yield client


@pytest.fixture
def router() -> Any:
    with respx.mock(assert_all_called=False) as router:
        yield router


def unpaywall(client: httpx.AsyncClient, email: str = "a@b.test") -> UnpaywallAdapter:
    return UnpaywallAdapter(Api(client, UNPAYWALL, FAST, query={"email": email}), email)


def core(client: httpx.AsyncClient) -> CoreAdapter:
    return CoreAdapter(Api(client, CORE, FAST, headers={"Authorization": "Bearer k3y"}))


def pmc(client: httpx.AsyncClient) -> PmcFulltextAdapter:
    return PmcFulltextAdapter(Api(client, PMC, FAST))


async def read(adapter: SourceAdapter, cursor: str = "", limit: int = 100, **selection: object) -> IngestPage:
    return await adapter.read(AdapterRequest("x", selection, cursor, limit))


def places(payload: RawPayload) -> list[FileLocation]:
    assert payload.media_type == FILE_LOCATIONS
    return list(msgspec.json.decode(payload.text, type=FileLocations).locations)


def place(url: str | None, pdf: str | None, licence: str | None = "cc-by") -> dict[str, object]:
    return {
        "url": url,
        "url_for_pdf": pdf,
        "url_for_landing_page": url,
        "evidence": "deprecated",
        "license": licence,
        "version": "publishedVersion",
        "host_type": "publisher",
        "is_best": True,
    }


def article(doi: str, *given: dict[str, object], best: int | None = 0) -> dict[str, object]:
    return {
        "doi": doi,
        "title": "On metformin",
        "year": 2024,
        "is_oa": bool(given),
        "oa_status": "gold" if given else "closed",
        "best_oa_location": given[best] if given and best is not None else None,
        "oa_locations": list(given),
        "oa_locations_embargoed": [],
        "z_authors": None,
        "data_standard": 2,
    }


async def test_unpaywall_gives_pdfs_before_pages_and_the_best_one_first(client: Any, router: Any) -> None:
    given = [place("https://a.test/page", None), place("https://b.test/page", "https://b.test/b.pdf", None)]
    given.append(place("https://c.test/c.pdf", "https://c.test/c.pdf"))
    router.get(f"{UNPAYWALL}/10.5555/One%28x%29").mock(side_effect=AssertionError("DOIs are asked for in lower case"))
    route = router.get(f"{UNPAYWALL}/10.5555/one%28x%29")
    route.mock(return_value=httpx.Response(200, json=article("10.5555/one(x)", *given, best=2)))
    (payload,) = (await read(unpaywall(client), ids=["10.5555/One(x)"])).payloads
    assert [found.url for found in places(payload)] == [
        "https://c.test/c.pdf",
        "https://b.test/b.pdf",
        "https://a.test/page",
        "https://b.test/page",
    ]
    assert [found.licence for found in places(payload)] == ["cc-by", "", "cc-by", ""]
    assert payload.source_id == "10.5555/one(x)"
    assert payload.metadata == {
        "doi": "10.5555/one(x)",
        "title": "On metformin",
        "year": 2024,
        "oa_status": "gold",
    }
    assert "email" not in payload.uri
    request = route.calls.last.request
    assert request.url.params["email"] == "a@b.test"
    assert "mailto:a@b.test" in request.headers["User-Agent"]


async def test_an_unknown_or_closed_article_is_refused_alone_with_the_reason(client: Any, router: Any) -> None:
    router.get(f"{UNPAYWALL}/10.5555/open").mock(
        return_value=httpx.Response(200, json=article("10.5555/open", place(None, "https://a.test/a.pdf")))
    )
    router.get(f"{UNPAYWALL}/10.5555/closed").mock(return_value=httpx.Response(200, json=article("10.5555/closed")))
    router.get(f"{UNPAYWALL}/10.5555/unknown").mock(
        return_value=httpx.Response(404, json={"error": True, "message": "'10.5555/unknown' isn't in Unpaywall."})
    )
    router.get(f"{UNPAYWALL}/10.5555/odd").mock(return_value=httpx.Response(200, text="<html>"))
    ids = ["10.5555/open", "10.5555/closed", "10.5555/unknown", "10.5555/odd", "10.5555/../../admin"]
    page = await read(unpaywall(client), ids=ids)
    assert [payload.source_id for payload in page.payloads] == ["10.5555/open"]
    assert [(refused.source_id, refused.code) for refused in page.refused] == [
        ("10.5555/closed", "source_paywall"),
        ("10.5555/unknown", "source_gone"),
        ("10.5555/odd", "source_malformed"),
        ("10.5555/../../admin", "source_gone"),
    ]
    assert len(router.calls) == 4


async def test_unpaywall_is_not_asked_without_an_address(client: Any, router: Any) -> None:
    with pytest.raises(ConfigurationError, match="MEDKG_INGEST_UNPAYWALL_EMAIL"):
        await read(unpaywall(client, ""), ids=["10.5555/one"])
    assert not router.calls


@pytest.mark.corpus
async def test_recorded_answers_of_unpaywall_are_read(client: Any, router: Any, corpus: Path) -> None:
    dois = []
    for path in sorted((corpus / "apis" / "paperqa-cassettes" / "unpaywall").glob("*.json")):
        body = json.loads(path.read_text())["response"]["body"]
        if "doi" in body:
            dois.append(body["doi"])
            router.get(f"{UNPAYWALL}/{body['doi']}").mock(return_value=httpx.Response(200, json=body))
    page = await read(unpaywall(client), ids=dois)
    found = {payload.source_id: [p.url for p in places(payload)] for payload in page.payloads}
    assert len(dois) >= 3
    assert found["10.1016/j.xgen.2025.100814"][0] == "https://doi.org/10.1016/j.xgen.2025.100814"
    assert {refused.code for refused in page.refused} <= {"source_paywall"}
    assert "10.1007/s40278-023-41815-2" in {refused.source_id for refused in page.refused}


async def test_identifiers_are_asked_for_page_by_page_and_each_once(client: Any, router: Any) -> None:
    ids = [f"10.5555/{number}" for number in range(30)]
    router.get(url__regex=rf"{UNPAYWALL}/.*").mock(
        side_effect=lambda request: httpx.Response(
            200, json=article(request.url.path[4:], place(None, f"https://a.test{request.url.path}.pdf"))
        )
    )
    adapter = unpaywall(client)
    first = await read(adapter, ids=[*ids, *ids])
    last = await read(adapter, first.next_cursor, ids=[*ids, *ids])
    assert [p.source_id for p in (*first.payloads, *last.payloads)] == ids
    assert (len(first.payloads), first.total, last.next_cursor) == (20, 30, "")
    assert len(router.calls) == 30
    with pytest.raises(ContractError, match="belongs to another selection"):
        await read(adapter, first.next_cursor, ids=ids)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(429, headers={"Retry-After": "17"}), SourceRateLimitedError),
        (httpx.Response(503), SourceUnavailableError),
        (httpx.ConnectTimeout("slow"), SourceUnavailableError),
    ],
)
async def test_what_may_pass_makes_the_whole_page_be_asked_again(
    client: Any, router: Any, answer: Any, expected: type[Exception]
) -> None:
    router.get(f"{UNPAYWALL}/10.5555/one").mock(side_effect=[answer])
    with pytest.raises(expected) as caught:
        await read(unpaywall(client), ids=["10.5555/one"])
    assert "a@b.test" not in str(caught.value), "an address is nobody's business"
    if isinstance(caught.value, SourceRateLimitedError):
        assert caught.value.retry_after_seconds == 17


def work(number: int, **fields: object) -> dict[str, object]:
    return {
        "id": number,
        "doi": f"10.5555/{number}",
        "title": f"Work {number}",
        "yearPublished": 2020,
        "pubmedId": None,
        "downloadUrl": f"https://core.test/download/{number}.pdf",
        "sourceFulltextUrls": [f"https://repository.test/{number}.pdf", None],
        "links": [
            {"type": "download", "url": f"https://core.test/download/{number}.pdf"},
            {"type": "display", "url": f"https://core.test/works/{number}"},
        ],
    } | fields


async def test_core_is_queried_page_by_page_up_to_the_limit(client: Any, router: Any) -> None:
    route = router.get(f"{CORE}/search/works/")
    route.side_effect = [
        httpx.Response(200, json={"totalHits": 900, "limit": 2, "offset": 0, "results": [work(1), work(2)]}),
        httpx.Response(200, json={"totalHits": 900, "limit": 1, "offset": 2, "results": [work(3)]}),
    ]
    adapter = core(client)
    selection: dict[str, object] = {"query": "heart & failure", "limit": 3}
    first = await adapter.read(AdapterRequest("core", selection, "", 2))
    last = await adapter.read(AdapterRequest("core", selection, first.next_cursor, 2))
    assert [p.source_id for p in (*first.payloads, *last.payloads)] == ["1", "2", "3"]
    assert (first.total, last.next_cursor) == (3, "")
    assert dict(route.calls[1].request.url.params) == {"q": "heart & failure", "limit": "1", "offset": "2"}
    assert route.calls[0].request.headers["Authorization"] == "Bearer k3y"
    assert [found.url for found in places(first.payloads[0])] == [
        "https://core.test/download/1.pdf",
        "https://repository.test/1.pdf",
    ]
    assert first.payloads[0].metadata == {"doi": "10.5555/1", "title": "Work 1", "year": 2020}


async def test_core_works_are_read_by_number_and_one_without_a_file_is_refused_alone(client: Any, router: Any) -> None:
    bare = work(2, downloadUrl="", sourceFulltextUrls=None, links=[{"type": "display", "url": "https://core.test/2"}])
    router.get(f"{CORE}/works/1").mock(
        return_value=httpx.Response(200, json=work(1, sourceFulltextUrls="https://r.test/1"))
    )
    router.get(f"{CORE}/works/2").mock(return_value=httpx.Response(200, json=bare))
    router.get(f"{CORE}/works/3").mock(return_value=httpx.Response(404))
    page = await read(core(client), ids=[1, 2, 3])
    assert [found.url for found in places(page.payloads[0])][-1] == "https://r.test/1"
    assert [(refused.source_id, refused.code) for refused in page.refused] == [
        ("2", "source_forbidden"),
        ("3", "source_gone"),
    ]


async def test_a_work_that_cannot_be_read_does_not_spoil_its_page(client: Any, router: Any) -> None:
    results = [work(1), {"id": "seven"}, work(3, downloadUrl=7)]
    router.get(f"{CORE}/search/works/").mock(
        return_value=httpx.Response(200, json={"totalHits": 3, "results": results})
    )
    page = await read(core(client), query="x")
    assert [payload.source_id for payload in page.payloads] == ["1"]
    assert [refused.code for refused in page.refused] == ["source_malformed"] * 2
    assert page.next_cursor == ""


async def test_a_refused_key_is_no_fault_of_a_record(client: Any, router: Any) -> None:
    router.get(f"{CORE}/search/works/").mock(return_value=httpx.Response(401, json={"message": "bad key"}))
    with pytest.raises(SourceForbiddenError) as caught:
        await read(core(client), query="x")
    assert "k3y" not in str(caught.value)


def listing(pmcid: str, *versions: int) -> httpx.Response:
    """What the bucket answers to ListObjectsV2 with a delimiter."""
    prefixes = "".join(f"<CommonPrefixes><Prefix>{pmcid}.{v}/</Prefix></CommonPrefixes>" for v in versions)
    return httpx.Response(
        200,
        text='<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>pmc-oa-opendata</Name>'
        f"<Prefix>{pmcid}.</Prefix><KeyCount>{len(versions)}</KeyCount><Delimiter>/</Delimiter>"
        f"<IsTruncated>false</IsTruncated>{prefixes}</ListBucketResult>",
    )


def version(pmcid: str, number: int, **fields: object) -> dict[str, object]:
    bucket = f"s3://pmc-oa-opendata/{pmcid}.{number}/{pmcid}.{number}"
    return {
        "pmcid": pmcid,
        "version": number,
        "pmid": 33564000,
        "doi": "10.5555/pmc",
        "mid": None,
        "title": "An article",
        "citation": "J Test. 2021;1:1",
        "is_pmc_openaccess": True,
        "is_manuscript": False,
        "is_historical_ocr": False,
        "is_retracted": False,
        "license_code": "CC BY",
        "xml_url": f"{bucket}.xml?md5=0123",
        "pdf_url": f"{bucket}.pdf?md5=4567",
    } | fields


async def test_the_last_version_of_an_article_of_pmc_is_taken(client: Any, router: Any) -> None:
    router.get(f"{PMC}/", params={"prefix": "PMC7808740."}).mock(return_value=listing("PMC7808740", 1, 2, 10))
    router.get(f"{PMC}/metadata/PMC7808740.10.json").mock(
        return_value=httpx.Response(200, json=version("PMC7808740", 10))
    )
    (payload,) = (await read(pmc(client), ids=["PMC7808740"])).payloads
    assert places(payload) == [FileLocation(f"{PMC}/PMC7808740.10/PMC7808740.10.pdf", "CC BY", "publishedVersion")]
    assert payload.metadata == {
        "pmcid": "PMC7808740",
        "pmid": "33564000",
        "doi": "10.5555/pmc",
        "title": "An article",
        "retracted": False,
    }
    assert payload.uri == f"{PMC}/metadata/PMC7808740.10.json"


async def test_an_article_that_pmc_does_not_give_is_refused_alone(client: Any, router: Any) -> None:
    router.get(f"{PMC}/", params={"prefix": "PMC1."}).mock(return_value=listing("PMC1"))
    router.get(f"{PMC}/", params={"prefix": "PMC2."}).mock(return_value=listing("PMC2", 1))
    router.get(f"{PMC}/metadata/PMC2.1.json").mock(
        return_value=httpx.Response(200, json=version("PMC2", 1, pdf_url=None))
    )
    page = await read(pmc(client), ids=["PMC1", "PMC2"])
    assert [(refused.source_id, refused.code) for refused in page.refused] == [
        ("PMC1", "source_gone"),
        ("PMC2", "source_forbidden"),
    ]


@pytest.mark.parametrize("given", ["file:///etc/passwd", "s3://", "javascript:x", "../x", ""])
async def test_a_record_of_pmc_names_only_addresses_of_the_web(client: Any, router: Any, given: str) -> None:
    router.get(f"{PMC}/", params={"prefix": "PMC1."}).mock(return_value=listing("PMC1", 1))
    router.get(f"{PMC}/metadata/PMC1.1.json").mock(
        return_value=httpx.Response(200, json=version("PMC1", 1, pdf_url=given))
    )
    assert not (await read(pmc(client), ids=["PMC1"])).payloads


async def test_an_answer_that_is_too_large_or_nested_too_deep_is_refused(router: Any) -> None:
    settings = CoreSettings(max_response_bytes=1_024)
    async with api_client(settings) as client:
        adapter = CoreAdapter(Api(client, CORE, settings))
        for body in (b'{"results":[' + b"1," * 2_000 + b"1]}", b"[" * 1_000):
            router.get(f"{CORE}/search/works/").mock(return_value=httpx.Response(200, content=body))
            with pytest.raises(SourceMalformedError):
                await read(adapter, query="x")


@pytest.mark.parametrize(
    ("source", "selection", "pointer"),
    [
        ("unpaywall", {"ids": ["10.1016/j.xgen.2025.100814"]}, ""),
        ("unpaywall", {"ids": []}, "/selection/ids"),
        ("unpaywall", {"ids": ["https://doi.org/10.1/x"]}, "/selection/ids/0"),
        ("unpaywall", {"ids": ["10.1016/a b"]}, "/selection/ids/0"),
        ("core", {"query": "heart", "limit": 10}, ""),
        ("core", {"ids": [1, 2]}, ""),
        ("core", {"ids": [1], "query": "heart"}, "/selection"),
        ("core", {"ids": [0]}, "/selection/ids/0"),
        ("pmc-fulltext", {"ids": ["PMC7808740"]}, ""),
        ("pmc-fulltext", {"ids": ["7808740"]}, "/selection/ids/0"),
        ("pmc-fulltext", {"ids": ["PMC1/../x"]}, "/selection/ids/0"),
    ],
)
def test_what_a_job_selects_of_them_is_checked_at_the_door(source: str, selection: object, pointer: str) -> None:
    data = json.dumps({"tenant_id": "clinic", "source": source, "selection": selection}).encode()
    submission, faults = check_submission(data)
    assert (submission is not None) == (not pointer)
    assert not pointer or pointer in {fault.pointer for fault in faults}


def test_settings_name_the_public_services_and_keep_the_key_to_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDKG_INGEST_CORE_API_KEY", "k3y")
    assert "k3y" not in repr(CoreSettings())
    assert CoreSettings().base_url == "https://api.core.ac.uk/v3"
    assert UnpaywallSettings().base_url == "https://api.unpaywall.org/v2"
    assert PmcFulltextSettings().base_url == "https://pmc-oa-opendata.s3.amazonaws.com"
