"""Redirects and names that lead inside: over real connections, the stage goes nowhere that it is not allowed to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.publisher_kit import Publisher, pdf, redirect, serving

from medkg.contracts.context import StageContext
from medkg.contracts.document import FileLocation, FileLocations, RawPayload, StoredFile
from medkg.contracts.errors import MedkgError, SourceForbiddenError, SourceMalformedError
from medkg.contracts.implementation import Host
from medkg.contracts.media import FILE_LOCATIONS
from medkg.download.app import opened
from medkg.download.settings import DownloadSettings
from medkg.runtime.blobs import open_blobs

SECRET = b"%PDF-1.7\nwhat nobody may see\n%%EOF\n"


@pytest.fixture
async def inside() -> AsyncIterator[Publisher]:
    """A server that nobody outside should reach."""
    async with serving() as publisher:
        publisher.answers["/secret.pdf"] = pdf(SECRET)
        yield publisher


@asynccontextmanager
async def stage(tmp_path: Path, answers: dict[str, list[str]], **settings: Any) -> AsyncIterator[Any]:
    async def resolve(host: str, port: int) -> list[str]:
        return [answers[host].pop(0)] if host in answers else [host]

    given = {"requests_per_second": 100, "connect_seconds": 2} | settings
    host = Host(tmp_path, open_blobs("memory:"))
    async with opened(DownloadSettings(**given), host, resolve=resolve) as opened_stage:
        yield opened_stage


async def fetch(stage: Any, url: str) -> StoredFile:
    text = msgspec.json.encode(FileLocations((FileLocation(url),))).decode()
    stored = await stage.execute(StageContext("t", "d", "j"), RawPayload("core", "1", FILE_LOCATIONS, text=text))
    assert isinstance(stored, StoredFile)
    return stored


async def test_loopback_is_refused_unless_a_setting_allows_it(inside: Publisher, tmp_path: Path) -> None:
    ports = str(inside.port)
    names = {"publisher.test": ["127.0.0.1", "127.0.0.1"]}
    async with stage(tmp_path, names, ports=ports) as closed:
        for url in (inside.url("/secret.pdf"), inside.url("/secret.pdf", "publisher.test")):
            with pytest.raises(SourceForbiddenError, match="loopback"):
                await fetch(closed, url)
    assert inside.asked == []
    async with stage(tmp_path, names, ports=ports, allow_loopback=True) as open_to_tests:
        assert (await fetch(open_to_tests, inside.url("/secret.pdf", "publisher.test"))).size_bytes == len(SECRET)


async def test_a_port_that_is_not_allowed_is_not_connected_to(inside: Publisher, tmp_path: Path) -> None:
    async with stage(tmp_path, {}, allow_loopback=True) as only_80_and_443:
        with pytest.raises(SourceForbiddenError, match=f"port {inside.port} is not allowed"):
            await fetch(only_80_and_443, inside.url("/secret.pdf"))
    assert inside.asked == []


@pytest.mark.parametrize(
    "to",
    [
        "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://0xa9fea9fe/",
        "http://2852039166/",
        "http://0251.0376.0251.0376/",
        "http://[::1]:99999/",
        "http://metadata.internal/",
        "//metadata.internal/",
        "http://user:pass@publisher.test/",
        "http://publisher.test:6379/",
        "file:///etc/passwd",
        "ftp://publisher.test/a.pdf",
        "gopher://publisher.test:70/",
        "javascript:alert(1)",
        "http://",
        "http://[::1",
    ],
)
async def test_no_redirect_leads_inside(inside: Publisher, tmp_path: Path, to: str) -> None:
    inside.answers["/a"] = redirect(to)
    names = {"metadata.internal": ["169.254.169.254"]}
    ports = f"80,{inside.port}"
    async with stage(tmp_path, names, ports=ports, allow_loopback=True) as fetching:
        with pytest.raises((SourceForbiddenError, SourceMalformedError)):
            await fetch(fetching, inside.url("/a"))
    assert inside.paths() == ["/a"]


async def test_the_second_hop_is_checked_anew_even_to_the_same_name(inside: Publisher, tmp_path: Path) -> None:
    """The name was public when it was looked at first, and is not when it is connected to again."""
    inside.answers["/a"] = redirect("http://publisher.test:80/secret.pdf")
    names = {"publisher.test": ["127.0.0.1", "10.0.0.7"]}
    async with stage(tmp_path, names, ports=f"80,{inside.port}", allow_loopback=True) as fetching:
        with pytest.raises(SourceForbiddenError, match=r"resolves to 10\.0\.0\.7"):
            await fetch(fetching, inside.url("/a", "publisher.test"))


async def test_the_server_sees_the_name_though_the_connection_goes_to_the_address(
    inside: Publisher, tmp_path: Path
) -> None:
    async with stage(
        tmp_path, {"publisher.test": ["127.0.0.1"]}, ports=str(inside.port), allow_loopback=True
    ) as fetching:
        await fetch(fetching, inside.url("/secret.pdf", "publisher.test"))
    assert inside.asked[0].headers["host"] == f"publisher.test:{inside.port}"


async def test_a_proxy_of_the_environment_is_not_used(
    inside: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
        async with stage(tmp_path, {}, ports=str(inside.port), allow_loopback=True) as fetching:
            await fetch(fetching, inside.url("/secret.pdf"))
        assert proxy.asked == []


@pytest.mark.corpus
async def test_none_of_a_collection_of_attacks_reaches_anything(corpus: Path, tmp_path: Path) -> None:
    lines = (corpus / "bad" / "ssrf" / "patt_ssrf_urls.txt").read_text().splitlines()

    async def loopback(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]  # what the names of the collection resolve to

    async with opened(
        DownloadSettings(requests_per_second=100), Host(tmp_path, open_blobs("memory:")), resolve=loopback
    ) as fetching:
        for line in filter(None, map(str.strip, lines)):
            with pytest.raises(MedkgError) as caught:
                await fetch(fetching, line)
            assert not caught.value.retryable, line
