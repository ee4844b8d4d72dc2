"""Each publisher has a limit and a breaker of its own; a store of ours that is away is no publisher's fault."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from medkg.contracts.context import StageContext
from medkg.contracts.document import FileLocation, FileLocations, RawPayload
from medkg.contracts.errors import MedkgError, PeerUnavailableError, ResourceUnavailableError, SourceUnavailableError
from medkg.contracts.media import FILE_LOCATIONS
from medkg.download.app import HTTP
from medkg.download.downloads import Download
from medkg.download.receipts import Receipt
from medkg.download.stage import DownloadFile
from medkg.runtime.resilience import peers

CTX = StageContext("t", "d", "j")


class Answers:
    """Downloads that end as they are told, by URL."""

    def __init__(self, answers: dict[str, MedkgError]) -> None:
        self.answers = answers

    async def get(self, tenant_id: str, url: str) -> Download:
        if url in self.answers:
            raise self.answers[url]
        return Download(Receipt(url, url, "ab" * 32, 4), "files/t/ab/x", is_new=True)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the guards of the peers hear, in order; the guard of ``shut.test`` lets nobody through."""
    heard: list[tuple[str, str]] = []

    @asynccontextmanager
    async def guard(host: str) -> AsyncIterator[None]:
        if host == "shut.test":
            raise PeerUnavailableError("left alone")
        try:
            yield
        except MedkgError as error:
            heard.append((host, error.code))
            raise
        heard.append((host, ""))

    monkeypatch.setattr(peers, "guard", guard)
    return heard


def payload(*urls: str) -> RawPayload:
    text = msgspec.json.encode(FileLocations(tuple(FileLocation(url) for url in urls))).decode()
    return RawPayload("core", "1", FILE_LOCATIONS, text=text)


async def run(answers: dict[str, MedkgError], *urls: str) -> Any:
    downloads: Any = Answers(answers)
    return await DownloadFile(downloads).execute(CTX, payload(*urls))


def test_the_stage_says_that_it_calls_peers() -> None:
    assert HTTP.calls_peers


async def test_each_location_is_asked_under_the_guard_of_its_host(counted: list[tuple[str, str]]) -> None:
    down = SourceUnavailableError("down")
    stored = await run({"http://a.test/1": down}, "http://a.test/1", "http://B.test:80/2")
    assert counted == [("a.test", "source_unavailable"), ("b.test", "")]
    assert stored.uri == "http://B.test:80/2"


async def test_a_store_of_ours_that_is_away_is_not_counted_against_a_publisher(counted: list[tuple[str, str]]) -> None:
    away = ResourceUnavailableError("the blob store is away")
    with pytest.raises(ResourceUnavailableError) as caught:
        await run({"http://a.test/1": away}, "http://a.test/1", "http://b.test/2")
    assert caught.value is away
    assert counted == [("a.test", "")]


async def test_a_publisher_that_is_left_alone_is_passed_over_or_waited_for(counted: list[tuple[str, str]]) -> None:
    stored = await run({}, "http://shut.test/1", "http://a.test/2")
    assert [tried.code for tried in stored.declined] == ["peer_unavailable"]
    with pytest.raises(PeerUnavailableError):
        await run({"http://a.test/2": SourceUnavailableError("down")}, "http://shut.test/1", "http://a.test/2")


async def test_what_is_no_url_has_no_host_and_is_named_by_whoever_reads_it(counted: list[tuple[str, str]]) -> None:
    await run({}, "http://[::1")
    assert counted == [("", "")]
