"""The stage against recorded exchanges with publishers: TLS, redirects to signed addresses, answers out of shape."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import respx

from medkg.contracts.context import StageContext
from medkg.contracts.document import FileLocation, FileLocations, RawPayload, StoredFile
from medkg.contracts.errors import SourceGoneError, SourceMalformedError, SourceUnavailableError
from medkg.contracts.implementation import Host
from medkg.contracts.media import FILE_LOCATIONS
from medkg.download.app import opened
from medkg.download.settings import DownloadSettings
from medkg.runtime.blobs import open_blobs

PAPER = b"%PDF-1.5\n" + b"x" * 5_000 + b"\n%%EOF"
DOI = "https://doi.test/10.5555/one"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Any]:
    settings = DownloadSettings(requests_per_second=100, contact="https://clinic.test/about-us")
    async with opened(settings, Host(tmp_path, open_blobs("memory:"))) as stage:
        yield stage


@pytest.fixture
def router() -> Any:
    with respx.mock(assert_all_called=False) as router:
        yield router


async def fetch(stage: Any, url: str = DOI) -> StoredFile:
    text = msgspec.json.encode(FileLocations((FileLocation(url, "cc-by-nc"),))).decode()
    stored = await stage.execute(StageContext("t", "d", "j"), RawPayload("unpaywall", "1", FILE_LOCATIONS, text=text))
    assert isinstance(stored, StoredFile)
    return stored


async def test_the_address_that_is_kept_opens_no_doors(stage: Any, router: Any) -> None:
    """Repositories redirect to addresses that are signed for an hour."""
    signed = "https://bucket.test/one.pdf?id=1&X-Amz-Expires=3600&X-Amz-Signature=c0ffee"
    router.get(DOI).mock(return_value=httpx.Response(302, headers={"Location": signed}))
    route = router.get(url__startswith="https://bucket.test/").mock(
        return_value=httpx.Response(200, content=PAPER, headers={"Content-Type": "application/octet-stream"})
    )
    stored = await fetch(stage)
    assert stored.uri == "https://bucket.test/one.pdf?id=1"
    assert (stored.size_bytes, stored.licence, stored.media_type) == (len(PAPER), "cc-by-nc", "application/pdf")
    assert str(route.calls.last.request.url) == signed
    assert "clinic.test/about-us" in route.calls.last.request.headers["User-Agent"]


async def test_a_signature_is_in_no_message(stage: Any, router: Any) -> None:
    signed = "https://bucket.test/one.pdf?X-Amz-Signature=c0ffee"
    router.get(DOI).mock(return_value=httpx.Response(302, headers={"Location": signed}))
    router.get(url__startswith="https://bucket.test/").mock(return_value=httpx.Response(404))
    with pytest.raises(SourceGoneError) as caught:
        await fetch(stage)
    assert "c0ffee" not in f"{caught.value} {caught.value.context} {caught.value.__cause__}"


@pytest.mark.parametrize("failure", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.ReadError])
async def test_a_network_that_fails_is_asked_again(stage: Any, router: Any, failure: type[Exception]) -> None:
    router.get(DOI).mock(side_effect=failure("no"))
    with pytest.raises(SourceUnavailableError) as caught:
        await fetch(stage)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(302),
        httpx.Response(304),
        httpx.Response(204),
        httpx.Response(206, content=PAPER, headers={"Content-Range": "bytes 0-9/10"}),
        httpx.Response(300, headers={"Location": "https://publisher.test/"}),
        httpx.Response(418),
    ],
)
async def test_an_answer_out_of_shape_is_no_file(stage: Any, router: Any, answer: httpx.Response) -> None:
    router.get(DOI).mock(return_value=answer)
    with pytest.raises(SourceMalformedError):
        await fetch(stage)
