"""Bodies, failures and manners: what is read of an answer, what a failure means, and how often a host is asked."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpcore
import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.errors import (
    MedkgError,
    PayloadTooLargeError,
    SourceForbiddenError,
    SourceGoneError,
    SourceMalformedError,
    SourceRateLimitedError,
    SourceUnavailableError,
)
from medkg.http.addresses import AddressPolicy
from medkg.http.bodies import read_body, read_head
from medkg.http.destination import DestinationPolicy
from medkg.http.faults import MAX_RETRY_AFTER_SECONDS, fault_of_status, retry_after
from medkg.http.fetching import Fetcher
from medkg.http.politeness import MAX_HOSTS, Politeness, user_agent
from medkg.http.reading import get_bounded
from medkg.http.transport import CheckedTransport

URL = "https://api.test/v1/records"


class Pieces(httpx.AsyncByteStream):
    """A body in pieces, which knows how many were asked for."""

    def __init__(self, data: bytes, size: int = 1_000) -> None:
        self.pieces = [data[at : at + size] for at in range(0, len(data), size)]
        self.given = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.given += 1
            yield piece


def answer(data: bytes, coding: str = "", status: int = 200, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(
        status, headers={"Content-Encoding": coding} | named if coding else named, stream=Pieces(data)
    )


async def body_of(response: httpx.Response, max_bytes: int = 10**6) -> bytes:
    return b"".join([piece async for piece in read_body(response, "x", max_bytes)])


@given(st.binary(max_size=5_000), st.integers(1, 700))
async def test_what_was_coded_is_decoded_whatever_pieces_it_comes_in(data: bytes, size: int) -> None:
    two = gzip.compress(data) + gzip.compress(data)
    for coding, coded, expected in (
        ("", data, data),
        ("identity", data, data),
        ("gzip", gzip.compress(data), data),
        ("X-GZIP", two, data + data),
        ("deflate", zlib.compress(data), data),
    ):
        response = httpx.Response(200, headers={"Content-Encoding": coding}, stream=Pieces(coded, size))
        assert await body_of(response) == expected


async def test_no_more_than_a_step_beyond_the_limit_comes_out_of_a_bomb() -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024))
    response = httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=Pieces(bomb, len(bomb)))
    sizes = []
    with pytest.raises(PayloadTooLargeError):
        async for piece in read_body(response, "x", 20_000_000):
            sizes.append(len(piece))  # noqa: PERF401  those before the error count
    assert max(sizes) <= 64 * 1024
    assert 19_000_000 < sum(sizes) <= 20_000_000


async def test_a_body_that_codes_nothing_for_ever_ends_too() -> None:
    nothing = gzip.compress(b"") * 2_000  # 40 kB that decode to nothing
    with pytest.raises(PayloadTooLargeError, match="as sent"):
        await body_of(answer(nothing, "gzip"), 10_000)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (answer(b"x" * 2_000, Content_Length="2000"), PayloadTooLargeError),
        (answer(b"x" * 2_000), PayloadTooLargeError),
        (answer(b"not gzip at all", "gzip"), SourceMalformedError),
        (answer(gzip.compress(b"x" * 500)[:-9], "gzip"), SourceUnavailableError),
        (answer(b"x", "br"), SourceMalformedError),
    ],
)
async def test_a_body_that_cannot_be_had_is_named(response: httpx.Response, expected: type[MedkgError]) -> None:
    with pytest.raises(expected):
        await body_of(response, 1_000)


async def test_the_head_of_any_body_can_be_looked_at() -> None:
    assert await read_head(answer(b"x" * 5_000), "x", 2_500) == b"x" * 2_000
    assert await read_head(answer(b"x", "br"), "x", 100) == b""


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, SourceForbiddenError),
        (403, SourceForbiddenError),
        (451, SourceForbiddenError),
        (404, SourceGoneError),
        (410, SourceGoneError),
        (408, SourceUnavailableError),
        (425, SourceUnavailableError),
        (500, SourceUnavailableError),
        (503, SourceUnavailableError),
        (429, SourceRateLimitedError),
        (400, SourceMalformedError),
        (302, SourceMalformedError),
    ],
)
def test_a_status_says_whether_asking_again_can_help(status: int, expected: type[MedkgError]) -> None:
    fault = fault_of_status(URL, httpx.Response(status), b"because\n of <b>this</b> " + b"x" * 900)
    assert type(fault) is expected
    assert "because of <b>this</b>" in fault.message
    assert len(fault.message) < 400


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("999999999999999999", MAX_RETRY_AFTER_SECONDS),
        ("Sat, 01 Jan 2000 00:01:40 GMT", 40.0),
        ("Fri, 31 Dec 1999 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_the_wait_that_a_server_asks_for_is_read(value: str, seconds: float | None) -> None:
    headers = httpx.Headers({"Retry-After": value, "Date": "Sat, 01 Jan 2000 00:01:00 GMT"})
    assert retry_after(headers) == seconds


async def test_an_answer_is_read_whole_and_its_query_is_in_no_message() -> None:
    async with httpx.AsyncClient() as client:
        with respx.mock() as router:
            route = router.get(URL).mock(return_value=httpx.Response(200, content=b"{}"))
            assert await get_bounded(client, URL, {"key": "s3cret"}, 100, headers={"X-Key": "k"}) == b"{}"
            assert route.calls.last.request.headers["Accept-Encoding"] == "gzip, deflate"
            for broken in (httpx.Response(500), httpx.ConnectError("no"), httpx.Response(200, content=b"x" * 101)):
                route.side_effect = [broken]
                with pytest.raises(MedkgError) as caught:
                    await get_bounded(client, URL, {"key": "s3cret"}, 100)
                assert "s3cret" not in caught.value.message


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def polite(clock: Clock, **settings: Any) -> Politeness:
    given: dict[str, Any] = {"requests_per_second": 1_000, "connections_per_host": 2, "clock": clock}
    return Politeness(**(given | settings))


async def test_no_more_than_the_allowed_are_at_one_host_at_once() -> None:
    politeness = polite(Clock())
    at_once = {"a.test": 0, "b.test": 0}
    most = dict(at_once)

    async def ask(host: str) -> None:
        async with politeness.turn(host):
            at_once[host] += 1
            most[host] = max(most[host], at_once[host])
            await asyncio.sleep(0)
            at_once[host] -= 1

    await asyncio.gather(*(ask(host) for host in ("a.test", "b.test") * 10))
    assert most == {"a.test": 2, "b.test": 2}


async def test_a_host_that_asked_for_quiet_is_left_alone_until_then_and_others_are_not() -> None:
    clock = Clock()
    politeness = polite(clock)
    politeness.hold_off("a.test", 60)
    politeness.hold_off("a.test", 10)  # the longer wait counts
    with pytest.raises(SourceRateLimitedError) as caught:
        async with politeness.turn("a.test"):
            pytest.fail("it was asked")
    assert caught.value.retry_after_seconds == 60
    async with politeness.turn("b.test"):
        pass
    clock.now += 61
    async with politeness.turn("a.test"):
        pass


async def test_hosts_are_forgotten_but_not_while_they_are_asked() -> None:
    politeness = polite(Clock())
    async with politeness.turn("asked.test"):
        for number in range(MAX_HOSTS + 50):
            politeness.hold_off(f"{number}.test", 1)
        assert len(politeness._hosts) <= MAX_HOSTS + 1
        assert "asked.test" in politeness._hosts


def test_the_user_agent_says_who_asks() -> None:
    assert user_agent("medkg-http", "mailto:a@b.test").endswith(" (mailto:a@b.test)")
    assert "(" not in user_agent("medkg-http", "")


class Tls(httpcore.AsyncMockStream):
    """Remembers for which name TLS was begun."""

    names: list[str]

    async def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: Any = None) -> Any:  # noqa: ASYNC109  httpcore calls it with one
        self.names.append(server_hostname or "")
        return self


async def test_tls_is_for_the_name_though_the_connection_is_to_the_address() -> None:
    """Neither the certificate nor SNI changes because the address was checked."""
    stream = Tls([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])
    stream.names = []
    connected: list[str] = []

    class Backend(httpcore.AsyncMockBackend):
        async def connect_tcp(self, host: str, *args: Any, **more: Any) -> Any:
            connected.append(host)
            return stream

    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.215.14"]

    async with CheckedTransport(AddressPolicy(), resolve=resolve) as transport:
        transport._pool._network_backend._inner = Backend([])  # type: ignore[attr-defined]  # where a socket would be opened
        fetcher = Fetcher(
            transport,
            DestinationPolicy(),
            polite(Clock()),
            agent="medkg/test",
            connect_seconds=1,
            idle_seconds=1,
        )
        async with fetcher.open("https://publisher.test/a", {}) as fetched:
            assert await body_of(fetched.answer) == b"ok"
    assert (connected, stream.names) == (["93.184.215.14"], ["publisher.test"])
