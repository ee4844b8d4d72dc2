"""The download stage against a real HTTP server on loopback that serves real PDFs, and everything but."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from tests.integration.publisher_kit import (
    Publisher,
    breaking,
    dripping,
    endless,
    gzip_bomb,
    gzipped,
    head,
    page,
    pdf,
    raw,
    redirect,
    serving,
)

from medkg.contracts.context import StageContext
from medkg.contracts.document import FileLocation, FileLocations, RawPayload, StoredFile, WriteOutcome
from medkg.contracts.errors import (
    MedkgError,
    PayloadTooLargeError,
    ResourceUnavailableError,
    SourceCaptchaError,
    SourceForbiddenError,
    SourceGoneError,
    SourceLoginError,
    SourceMalformedError,
    SourcePaywallError,
    SourceRateLimitedError,
    SourceUnavailableError,
)
from medkg.contracts.implementation import Host
from medkg.contracts.media import FILE_LOCATIONS, PDF
from medkg.download.app import opened
from medkg.download.settings import DownloadSettings
from medkg.download.stage import DownloadFile
from medkg.runtime.blobs import BlobStore, open_blobs

SMALL = b"%PDF-1.7\n" + b"1 0 obj << >> endobj\n" * 200 + b"%%EOF\n"
LARGE = b"%PDF-1.7\n" + bytes(range(256)) * 8_000 + b"\n%%EOF\n"  # 2 MB

Opening = Callable[..., AbstractAsyncContextManager[DownloadFile]]


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    async with serving() as publisher:
        yield publisher


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return open_blobs((tmp_path / "blobs").as_uri())


@pytest.fixture
def opening(publisher: Publisher, blobs: BlobStore, tmp_path: Path) -> Opening:
    """Opens the stage with loopback allowed and the publisher's port; ``names`` are what a resolver would say."""

    @asynccontextmanager
    async def opening(names: dict[str, list[str]] | None = None, **settings: Any) -> AsyncIterator[DownloadFile]:
        async def resolve(host: str, port: int) -> list[str]:
            if names is not None and host in names:
                return names[host]
            return [host]

        given: dict[str, Any] = {
            "allow_loopback": True,
            "ports": str(publisher.port),
            "requests_per_second": 100,
            "max_bytes": 8 * 1024 * 1024,
            "idle_seconds": 2,
            "total_seconds": 20,
            "fresh_seconds": 0,
            "contact": "mailto:library@clinic.test",
        }
        async with opened(DownloadSettings(**(given | settings)), Host(tmp_path, blobs), resolve=resolve) as stage:
            yield stage

    return opening


def context(doc_id: str = "doc-1", job: str = "job-1", tenant: str = "clinic") -> StageContext:
    return StageContext(tenant, doc_id, job)


def payload(*urls: str, licence: str = "cc-by") -> RawPayload:
    locations = FileLocations(tuple(FileLocation(url, licence) for url in urls))
    return RawPayload("unpaywall", "10.1/x", FILE_LOCATIONS, text=msgspec.json.encode(locations).decode())


async def failing(stage: DownloadFile, *urls: str) -> MedkgError:
    with pytest.raises(MedkgError) as caught:
        await stage.execute(context(), payload(*urls))
    return caught.value


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "blobs" / "files").rglob("*") if path.is_file()]


async def test_a_pdf_is_stored_under_its_hash_with_where_it_came_from(
    publisher: Publisher, opening: Opening, blobs: BlobStore
) -> None:
    publisher.answers["/doi"] = redirect("/article?id=1&type=pdf", 301)
    publisher.answers["/article?id=1&type=pdf"] = pdf(LARGE)
    async with opening() as stage:
        stored = await stage.execute(context(), payload(publisher.url("/doi")))
    digest = sha256(LARGE).hexdigest()
    assert stored == StoredFile(
        key=f"files/clinic/{digest[:2]}/{digest}",
        sha256=digest,
        media_type=PDF,
        size_bytes=len(LARGE),
        uri=publisher.url("/article?id=1&type=pdf"),
        licence="cc-by",
    )
    assert await blobs.get(stored.key) == LARGE
    agent = publisher.asked[0].headers["user-agent"]
    assert agent.startswith("medkg/")
    assert "mailto:library@clinic.test" in agent


@pytest.mark.corpus
async def test_real_papers_come_over_byte_by_byte(
    publisher: Publisher, opening: Opening, blobs: BlobStore, corpus: Path
) -> None:
    papers = sorted((corpus / "pdf" / "pmc").glob("*.pdf"))
    assert papers
    async with opening(max_bytes=64 * 1024 * 1024) as stage:
        for number, paper in enumerate(papers):
            publisher.answers[f"/{paper.name}"] = pdf(paper.read_bytes())
            stored = await stage.execute(context(f"doc-{number}"), payload(publisher.url(f"/{paper.name}")))
            assert await blobs.get(stored.key) == paper.read_bytes()


@pytest.mark.corpus
async def test_every_odd_or_hostile_pdf_is_stored_whole_or_refused_by_name(
    publisher: Publisher, opening: Opening, blobs: BlobStore, corpus: Path
) -> None:
    refused = {}
    async with opening(max_bytes=64 * 1024 * 1024) as stage:
        for paper in sorted((corpus / "pdf").rglob("*.pdf")):
            publisher.answers[f"/{paper.name}"] = pdf(paper.read_bytes())
            try:
                stored = await stage.execute(context(paper.name), payload(publisher.url(f"/{paper.name}")))
            except MedkgError as error:
                refused[paper.name] = error.message
            else:
                assert await blobs.get(stored.key) == paper.read_bytes()
    # only those that are cut off, or hold nothing that begins like a PDF
    print(refused)
    assert all("has no end" in reason or "no PDF" in reason for reason in refused.values())


async def test_the_same_file_of_two_documents_is_stored_once(
    publisher: Publisher, opening: Opening, tmp_path: Path
) -> None:
    publisher.answers |= {"/a": pdf(LARGE), "/b": pdf(LARGE)}
    async with opening() as stage:
        one = await stage.execute(context("doc-1"), payload(publisher.url("/a")))
        two = await stage.execute(context("doc-2"), payload(publisher.url("/b")))
    assert one.key == two.key
    assert len(files(tmp_path)) == 1


async def test_two_documents_that_ask_for_one_url_at_once_fetch_it_once(publisher: Publisher, opening: Opening) -> None:
    publisher.answers["/a"] = pdf(LARGE)
    async with opening() as stage:
        tasks = [stage.execute(context(f"doc-{n}"), payload(publisher.url("/a"))) for n in range(8)]
        stored = await asyncio.gather(*tasks)
    assert {file.sha256 for file in stored} == {sha256(LARGE).hexdigest()}
    assert publisher.paths() == ["/a"]


async def test_locations_are_tried_in_order_and_each_reason_is_kept(publisher: Publisher, opening: Opening) -> None:
    publisher.answers |= {
        "/sold": page("<title>A trial</title><a>Purchase this article</a>"),
        "/busy": page("<h1>overloaded</h1>", 503),
        "/open": pdf(SMALL),
        "/never": pdf(LARGE),
    }
    urls = [publisher.url(path) for path in ("/sold", "/gone", "/busy", "/open", "/never")]
    async with opening() as stage:
        stored = await stage.execute(context(), payload(*urls))
    assert stored.sha256 == sha256(SMALL).hexdigest()
    assert [(tried.url, tried.code) for tried in stored.declined] == [
        (urls[0], "source_paywall"),
        (urls[1], "source_gone"),
        (urls[2], "source_unavailable"),
    ]
    assert "sells the file" in stored.declined[0].reason
    assert publisher.paths() == ["/sold", "/gone", "/busy", "/open"]


async def test_when_no_location_gives_it_the_most_hopeful_error_names_all_reasons(
    publisher: Publisher, opening: Opening
) -> None:
    publisher.answers |= {"/sold": page("Buy this article"), "/busy": page("later", 503, Retry_After=7)}
    async with opening() as stage:
        error = await failing(stage, *(publisher.url(path) for path in ("/gone", "/sold", "/busy")))
        assert isinstance(error, SourceUnavailableError)
        assert error.retry_after_seconds == 7
        assert [f"{n}. " in error.message for n in (1, 2, 3)] == [True] * 3
    async with opening() as stage:
        error = await failing(stage, *(publisher.url(path) for path in ("/gone", "/sold")))
        assert isinstance(error, SourcePaywallError)


@pytest.mark.parametrize(
    ("html", "status", "expected"),
    [
        ("<title>Just a moment...</title>", 403, SourceCaptchaError),
        ("<html><script src='/cdn-cgi/challenge-platform/x.js'>", 200, SourceCaptchaError),
        ("<form>Please solve this <div class='g-recaptcha'>", 200, SourceCaptchaError),
        ("<title>Trial | Journal</title><p>Access through your institution</p>", 200, SourcePaywallError),
        ("<div id='article-paywall'>", 403, SourcePaywallError),
        ("<title>Sign in</title><input type='password'>", 200, SourceLoginError),
        ("<p>credentials, please</p>", 401, SourceLoginError),
        ("<title>404 Not Found</title>", 200, SourceGoneError),
        ("<title>This article has been withdrawn</title>", 200, SourceGoneError),
        ("moved on", 410, SourceGoneError),
        ("<html><title>A trial of metformin</title><a href='/login'>Sign in</a>", 200, SourceMalformedError),
        ("forbidden", 403, SourceForbiddenError),
        ("", 200, SourceMalformedError),
    ],
)
async def test_a_page_in_the_place_of_a_pdf_is_named_for_what_it_is(
    publisher: Publisher, opening: Opening, html: str, status: int, expected: type[MedkgError], tmp_path: Path
) -> None:
    publisher.answers["/a.pdf"] = page(html, status)
    async with opening() as stage:
        error = await failing(stage, publisher.url("/a.pdf"))
    assert type(error) is expected
    assert not error.retryable
    assert files(tmp_path) == []


async def test_a_redirect_to_a_login_is_a_login(publisher: Publisher, opening: Opening) -> None:
    publisher.answers |= {"/a": redirect("/idp/login?back=a"), "/idp/login?back=a": page("<html>Welcome")}
    async with opening() as stage:
        assert type(await failing(stage, publisher.url("/a"))) is SourceLoginError


async def test_a_cookie_lives_as_long_as_one_walk(publisher: Publisher, opening: Opening) -> None:
    async def wall(asked: Any, writer: asyncio.StreamWriter) -> None:
        if "seen=1" in asked.headers.get("cookie", ""):
            await pdf(SMALL, etag="")(asked, writer)
        else:
            await redirect("/a", Set_Cookie="seen=1; Path=/")(asked, writer)

    publisher.answers["/a"] = wall
    async with opening() as stage:
        for _ in range(2):
            assert (await stage.execute(context(), payload(publisher.url("/a")))).size_bytes == len(SMALL)
    assert ["cookie" in asked.headers for asked in publisher.asked] == [False, True, False, True]


async def test_a_circle_of_redirects_ends(publisher: Publisher, opening: Opening) -> None:
    publisher.answers |= {"/a": redirect("/b"), "/b": redirect("/a")}
    async with opening(max_redirects=4) as stage:
        error = await failing(stage, publisher.url("/a"))
    assert "more than 4 redirects" in error.message
    assert len(publisher.asked) == 5


async def test_an_endless_body_is_left_at_the_limit(publisher: Publisher, opening: Opening, tmp_path: Path) -> None:
    publisher.answers["/a"] = endless(b"%PDF-1.7\n", b"x" * 65_536, publisher)
    async with opening(max_bytes=2 * 1024 * 1024) as stage:
        error = await failing(stage, publisher.url("/a"))
    assert type(error) is PayloadTooLargeError
    assert publisher.sent < 16 * 1024 * 1024  # what the buffers of both sides hold beyond the limit
    assert files(tmp_path) == []
    assert [path for path in (tmp_path / "downloads").iterdir() if path.stat().st_size] == []


async def test_an_announced_size_over_the_limit_is_not_read(publisher: Publisher, opening: Opening) -> None:
    publisher.answers["/a"] = raw(head(200, Content_Length=10**12) + b"%PDF-1.7\n", closes=False)
    async with opening() as stage:
        assert type(await failing(stage, publisher.url("/a"))) is PayloadTooLargeError


async def test_a_gzip_bomb_ends_at_the_limit(publisher: Publisher, opening: Opening) -> None:
    bomb = gzip_bomb(64 * 1024 * 1024)
    assert len(bomb) < 512 * 1024
    publisher.answers["/a"] = raw(head(200, Content_Encoding="gzip", Content_Length=len(bomb)) + bomb)
    async with opening(max_bytes=4 * 1024 * 1024) as stage:
        assert type(await failing(stage, publisher.url("/a"))) is PayloadTooLargeError


async def test_a_pdf_that_comes_coded_though_nobody_asked_is_decoded(publisher: Publisher, opening: Opening) -> None:
    body = gzipped(LARGE)
    publisher.answers["/a"] = raw(head(200, Content_Encoding="gzip", Content_Length=len(body)) + body)
    async with opening() as stage:
        assert (await stage.execute(context(), payload(publisher.url("/a")))).sha256 == sha256(LARGE).hexdigest()
    assert publisher.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip"])
async def test_a_coding_that_was_not_asked_for_is_refused(publisher: Publisher, opening: Opening, coding: str) -> None:
    publisher.answers["/a"] = raw(head(200, Content_Encoding=coding, Content_Length=4) + b"%PDF")
    async with opening() as stage:
        assert type(await failing(stage, publisher.url("/a"))) is SourceMalformedError


async def test_silence_ends_a_transfer(publisher: Publisher, opening: Opening) -> None:
    publisher.answers["/a"] = raw(head(200, Content_Length=len(LARGE)) + LARGE[:5_000], pause=30, closes=False)
    began = time.monotonic()
    async with opening(idle_seconds=0.3) as stage:
        error = await failing(stage, publisher.url("/a"))
    assert type(error) is SourceUnavailableError
    assert time.monotonic() - began < 5


async def test_a_drip_that_is_never_silent_ends_in_time(publisher: Publisher, opening: Opening) -> None:
    publisher.answers["/a"] = dripping(LARGE[:5_000], 0.02, Content_Length=len(LARGE))
    async with opening(total_seconds=0.5) as stage:
        error = await failing(stage, publisher.url("/a"))
    assert type(error) is SourceUnavailableError
    assert "not complete after 0.5 s" in error.message


async def test_fewer_bytes_than_announced_are_no_file(publisher: Publisher, opening: Opening, tmp_path: Path) -> None:
    publisher.answers["/a"] = raw(head(200, Content_Length=len(LARGE)) + LARGE[:-500])
    async with opening() as stage:
        assert type(await failing(stage, publisher.url("/a"))) is SourceUnavailableError
    assert files(tmp_path) == []


@pytest.mark.parametrize("headers", [{"Content_Length": len(LARGE) - 5_000}, {"Connection": "close"}])
async def test_a_pdf_that_is_cut_off_is_no_file(
    publisher: Publisher, opening: Opening, headers: dict[str, object], tmp_path: Path
) -> None:
    publisher.answers["/a"] = raw(head(200, **headers) + LARGE[:-5_000])
    async with opening() as stage:
        error = await failing(stage, publisher.url("/a"))
    assert "has no end" in error.message
    assert files(tmp_path) == []


async def test_a_broken_transfer_goes_on_where_it_broke(publisher: Publisher, opening: Opening) -> None:
    publisher.answers["/a"] = pdf(LARGE, breaks_after=1_000_000)
    async with opening() as stage:
        stored = await stage.execute(context(), payload(publisher.url("/a")))
    assert stored.sha256 == sha256(LARGE).hexdigest()
    ranges = [asked.headers.get("range", "") for asked in publisher.asked]
    assert ranges == ["", "bytes=1000000-"]
    assert publisher.asked[1].headers["if-range"].startswith('"')


async def test_a_file_that_changed_meanwhile_is_fetched_anew(publisher: Publisher, opening: Opening) -> None:
    other = LARGE.replace(b"%PDF-1.7", b"%PDF-1.6")

    async def first_one_then_the_other(asked: Any, writer: asyncio.StreamWriter) -> None:
        await (pdf(LARGE, breaks_after=1_000_000) if len(publisher.asked) == 1 else pdf(other))(asked, writer)

    publisher.answers["/a"] = first_one_then_the_other
    async with opening() as stage:
        stored = await stage.execute(context(), payload(publisher.url("/a")))
    assert stored.sha256 == sha256(other).hexdigest()


async def test_a_server_that_counts_ranges_wrongly_is_asked_for_all_of_it(
    publisher: Publisher, opening: Opening
) -> None:
    async def answer(asked: Any, writer: asyncio.StreamWriter) -> None:
        if "range" in asked.headers:
            span = f"bytes 5-{len(LARGE) - 1}/{len(LARGE)}"
            body = LARGE[5:]
            writer.write(head(206, Content_Range=span, Content_Length=len(body)) + body)
            return
        await pdf(LARGE, ranges=False, breaks_after=500_000 if len(publisher.asked) == 1 else None)(asked, writer)

    publisher.answers["/a"] = answer
    async with opening() as stage:
        stored = await stage.execute(context(), payload(publisher.url("/a")))
    assert stored.sha256 == sha256(LARGE).hexdigest()
    assert len(publisher.asked) == 3


async def test_the_rest_of_another_file_is_not_put_behind_the_first_half(
    publisher: Publisher, opening: Opening
) -> None:
    """A server that does not know If-Range gives the rest of whatever lies there now."""
    other = LARGE.replace(b"\x00\x01", b"\x01\x00")

    async def answer(asked: Any, writer: asyncio.StreamWriter) -> None:
        if "range" in asked.headers:
            span = f"bytes 900000-{len(other) - 1}/{len(other)}"
            body = other[900_000:]
            writer.write(head(206, Content_Range=span, Content_Length=len(body), ETag='"2"') + body)
            return
        first = len(publisher.asked) == 1
        await pdf(LARGE if first else other, etag='"1"' if first else '"2"', breaks_after=900_000 if first else None)(
            asked, writer
        )

    publisher.answers["/a"] = answer
    async with opening() as stage:
        stored = await stage.execute(context(), payload(publisher.url("/a")))
    assert stored.sha256 == sha256(other).hexdigest()


async def test_a_page_that_comes_in_small_pieces_is_read_far_enough_to_be_named(
    publisher: Publisher, opening: Opening
) -> None:
    html = b"<html><title>A trial</title>" + b"<p>lorem ipsum</p>" * 1_500 + b"Access through your institution"
    pieces = [html[at : at + 1_000] for at in range(0, len(html), 1_000)]
    publisher.answers["/a"] = raw(head(200, Content_Length=len(html)), *pieces)
    publisher.answers["/endless"] = endless(b"<html>", b"<p>lorem ipsum</p>" * 100)
    async with opening() as stage:
        assert type(await failing(stage, publisher.url("/a"))) is SourcePaywallError
        assert type(await failing(stage, publisher.url("/endless"))) is SourceMalformedError


async def test_what_came_before_a_restart_is_not_fetched_again(publisher: Publisher, opening: Opening) -> None:
    publisher.answers["/a"] = raw(
        head(200, Content_Length=len(LARGE), ETag='"1"') + LARGE[:900_000], pause=30, closes=False
    )
    async with opening() as stage:
        task = asyncio.create_task(stage.execute(context(), payload(publisher.url("/a"))))
        async with asyncio.timeout(5):
            while not publisher.asked:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # the first 900,000 bytes are on their way
        task.cancel()
    publisher.answers["/a"] = pdf(LARGE, etag='"1"')
    async with opening() as stage:
        stored = await stage.execute(context(), payload(publisher.url("/a")))
    assert stored.sha256 == sha256(LARGE).hexdigest()
    assert publisher.asked[1].headers["range"] == "bytes=900000-"


async def test_a_file_goes_on_to_be_whole_wherever_it_breaks(
    publisher: Publisher, opening: Opening, blobs: BlobStore
) -> None:
    rng = Random(7)
    async with opening() as stage:
        for number in range(20):
            data = b"%PDF-1.7\n" + rng.randbytes(rng.randrange(2_000, 900_000)) + b"\n%%EOF\n"
            breaks = sorted(rng.sample(range(1_100, len(data)), 3))
            publisher.answers[f"/{number}"] = breaking(data, [*breaks, len(data)])
            stored = await stage.execute(context(str(number)), payload(publisher.url(f"/{number}")))
            assert await blobs.get(stored.key) == data, breaks


async def test_a_store_that_was_away_costs_no_second_transfer(
    publisher: Publisher, opening: Opening, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.answers["/a"] = pdf(LARGE)
    put_file = BlobStore.put_file

    async def away(self: BlobStore, key: str, path: Path) -> bool:
        raise ResourceUnavailableError("writing blob: the store is away")

    async with opening() as stage:
        monkeypatch.setattr(BlobStore, "put_file", away)
        with pytest.raises(ResourceUnavailableError):
            await stage.execute(context(), payload(publisher.url("/a")))
        monkeypatch.setattr(BlobStore, "put_file", put_file)
        stored = await stage.execute(context(), payload(publisher.url("/a")))
        again = await stage.execute(context(), payload(publisher.url("/a")))
    assert await blobs.get(stored.key) == LARGE
    asked = [(one.headers.get("range"), one.headers.get("if-none-match") is not None) for one in publisher.asked]
    assert asked == [(None, False), (f"bytes={len(LARGE)}-", False), (None, True)]
    assert again.outcome is WriteOutcome.UNCHANGED


async def test_a_folder_that_cannot_be_written_to_is_a_resource_that_may_come_back(
    publisher: Publisher, opening: Opening, tmp_path: Path
) -> None:
    publisher.answers["/a"] = pdf(SMALL)
    (tmp_path / "downloads").write_text("a file where a folder should be")
    async with opening() as stage:
        assert type(await failing(stage, publisher.url("/a"))) is ResourceUnavailableError


async def test_a_transfer_outlives_the_attempt_that_began_it(publisher: Publisher, opening: Opening) -> None:
    """A policy may give a run ten seconds, a slow server needs a minute."""
    pieces = [LARGE[at : at + 400_000] for at in range(0, len(LARGE), 400_000)]
    publisher.answers["/a"] = raw(head(200, Content_Length=len(LARGE)), *pieces, pause=0.1)
    attempts = 0
    async with opening() as stage:
        while True:
            attempts += 1
            try:
                async with asyncio.timeout(0.15):
                    stored = await stage.execute(context(), payload(publisher.url("/a")))
                break
            except TimeoutError:
                assert attempts < 30
    assert attempts > 2
    assert stored.sha256 == sha256(LARGE).hexdigest()
    assert publisher.paths() == ["/a"]


async def test_a_run_that_was_cut_short_does_not_ask_again_where_it_was_refused(
    publisher: Publisher, opening: Opening
) -> None:
    publisher.answers |= {
        "/sold": page("Buy this article"),
        "/slow": raw(head(200, Content_Length=len(LARGE)), LARGE[:1_000_000], LARGE[1_000_000:], pause=0.4),
    }
    urls = [publisher.url("/sold"), publisher.url("/slow")]
    async with opening() as stage:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stage.execute(context(), payload(*urls))
        stored = await stage.execute(context(), payload(*urls))
    assert [tried.code for tried in stored.declined] == ["source_paywall"]
    assert publisher.paths() == ["/sold", "/slow"]


async def test_a_file_that_has_not_changed_is_asked_for_conditionally_and_not_sent(
    publisher: Publisher, opening: Opening
) -> None:
    publisher.answers["/a"] = pdf(LARGE)
    async with opening() as stage:
        first = await stage.execute(context(job="1"), payload(publisher.url("/a")))
    async with opening() as stage:  # another process
        second = await stage.execute(context(job="2"), payload(publisher.url("/a")))
    assert "if-none-match" in publisher.asked[1].headers
    assert second == msgspec.structs.replace(first, outcome=WriteOutcome.UNCHANGED)


async def test_a_file_that_has_changed_is_fetched(publisher: Publisher, opening: Opening) -> None:
    publisher.answers["/a"] = pdf(LARGE)
    async with opening() as stage:
        await stage.execute(context(), payload(publisher.url("/a")))
        publisher.answers["/a"] = pdf(SMALL)
        stored = await stage.execute(context(), payload(publisher.url("/a")))
    assert (stored.sha256, stored.outcome) == (sha256(SMALL).hexdigest(), WriteOutcome.WRITTEN)


async def test_a_file_that_was_just_confirmed_is_not_asked_for(publisher: Publisher, opening: Opening) -> None:
    publisher.answers["/a"] = pdf(SMALL)
    async with opening(fresh_seconds=60) as stage:
        await stage.execute(context(job="1"), payload(publisher.url("/a")))
        await stage.execute(context(job="2"), payload(publisher.url("/a")))
    assert publisher.paths() == ["/a"]


async def test_a_stored_file_that_was_cleaned_up_is_fetched_again(
    publisher: Publisher, opening: Opening, tmp_path: Path
) -> None:
    publisher.answers["/a"] = pdf(SMALL)
    async with opening(fresh_seconds=60) as stage:
        await stage.execute(context(), payload(publisher.url("/a")))
        for path in files(tmp_path):
            path.unlink()
        await stage.execute(context(), payload(publisher.url("/a")))
    assert len(files(tmp_path)) == 1
    assert "if-none-match" not in publisher.asked[1].headers


async def test_a_tenant_never_gets_the_file_of_another_without_asking_for_it(
    publisher: Publisher, opening: Opening
) -> None:
    publisher.answers["/a"] = pdf(SMALL)
    async with opening(fresh_seconds=60) as stage:
        one = await stage.execute(context(tenant="one"), payload(publisher.url("/a")))
        two = await stage.execute(context(tenant="two"), payload(publisher.url("/a")))
    assert one.key != two.key
    assert publisher.paths() == ["/a", "/a"]


async def test_429_says_when_to_come_back_and_keeps_the_others_away(publisher: Publisher, opening: Opening) -> None:
    publisher.answers |= {"/a": page("slow down", 429, Retry_After=30), "/b": pdf(SMALL)}
    async with opening() as stage:
        error = await failing(stage, publisher.url("/a"))
        assert isinstance(error, SourceRateLimitedError)
        assert error.retry_after_seconds == 30
        other = await failing(stage, publisher.url("/b"))
        assert isinstance(other, SourceRateLimitedError)
        assert 25 < (other.retry_after_seconds or 0) <= 30
    assert publisher.paths() == ["/a"]


async def test_a_host_is_asked_no_faster_than_is_polite(publisher: Publisher, opening: Opening) -> None:
    for number in range(10):
        publisher.answers[f"/{number}"] = pdf(SMALL)
    began = time.monotonic()
    async with opening(requests_per_second=5, connections_per_host=32) as stage:
        await asyncio.gather(*(stage.execute(context(str(n)), payload(publisher.url(f"/{n}"))) for n in range(10)))
    assert time.monotonic() - began > 0.9  # five at once, then one each fifth of a second
