"""Where medkg goes and where it does not: URLs, addresses in every form, and names that change their mind."""

import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.errors import MedkgError, SourceForbiddenError, SourceMalformedError
from medkg.http.addresses import AddressPolicy, read_address
from medkg.http.destination import DestinationPolicy, read_destination, shown_url, without_secrets
from medkg.http.network import CheckedNetwork

POLICY = DestinationPolicy()
PUBLIC = ("93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "2a00:1450:4001:812::200e")
INNER = (
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1"),
    *("192.0.2.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
    *("100::1", "3fff::1", "5f00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1"),
    *("::127.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1"),
    *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:c0a8:101::", "2001:0:7f00:1:0:0:f5ff:fffe"),
)


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_allowed(text: str) -> None:
    address = read_address(text)
    assert address is not None
    assert AddressPolicy().refusal(address) == ""


@pytest.mark.parametrize("text", INNER)
def test_an_address_that_is_not_public_is_refused_in_whatever_form_it_comes(text: str) -> None:
    address = read_address(text)
    assert address is not None
    assert AddressPolicy().refusal(address)


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"])
def test_a_setting_lets_loopback_in_and_nothing_else(text: str) -> None:
    policy = AddressPolicy(allow_loopback=True)
    assert policy.refusal(ipaddress.ip_address(text)) == ""
    for other in ("10.0.0.1", "169.254.169.254", "0.0.0.0", "::", "fd00::1", "::ffff:192.168.0.1"):
        assert policy.refusal(ipaddress.ip_address(other))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_address_is_judged_as_itself(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    policy = AddressPolicy()
    refused = bool(policy.refusal(inner))
    for prefix in ("::ffff:0:0", "::ffff:0:0:0", "64:ff9b::"):
        carrier = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + number)
        assert bool(policy.refusal(carrier)) == refused
    assert bool(policy.refusal(ipaddress.IPv6Address((0x2002 << 112) + (number << 80)))) == refused


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://127.0.0.0x1/",
        "http://127.0.0.1./",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[0:0:0:0:0:ffff:7f00:1]/",
        "http://[fe80::1%25eth0]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[64:ff9b::7f00:1]/",
        "http://user@publisher.test/",
        "http://user:secret@publisher.test/",
        "http://@publisher.test/",
        "http://publisher.test:22/",
        "http://publisher.test:8080/",
        "https://publisher.test:6379/",
        "ftp://publisher.test/a.pdf",
        "file:///etc/passwd",
        "gopher://publisher.test/",
        "data:application/pdf,x",
        "//publisher.test/a",
        "publisher.test/a",
        "",
        "http://",
        "http:///a",
        "http://publisher.test\\@127.0.0.1/",
        "http://publisher.test /",
        "http://publisher.test/\r\nHost: 127.0.0.1",
        "http://publisher.test/\x00",
        "http://[::1",
        "http://" + "a" * 9_000,
    ],
)
def test_a_url_that_leads_elsewhere_is_refused_before_anybody_is_asked(url: str) -> None:
    with pytest.raises((SourceForbiddenError, SourceMalformedError)):
        read_destination(url, POLICY)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://publisher.test/a.pdf?x=1#page=2", "https://publisher.test/a.pdf?x=1"),
        ("http://publisher.test:80/a", "http://publisher.test/a"),
        ("https://93.184.215.14/a", "https://93.184.215.14/a"),
        ("https://bücher.test/ä.pdf", "https://xn--bcher-kva.test/%C3%A4.pdf"),
    ],
)
def test_a_sound_url_is_gone_to_without_its_fragment(url: str, expected: str) -> None:
    assert str(read_destination(url, POLICY)) == expected


@pytest.mark.corpus
def test_no_url_of_a_collection_of_attacks_is_gone_to_by_its_text_or_by_what_it_resolves_to(corpus: Path) -> None:
    lines = [line.strip() for line in (corpus / "bad" / "ssrf" / "patt_ssrf_urls.txt").read_text().splitlines()]
    # names of public DNS that resolve to loopback: the network refuses them (below), no text can
    by_name = {"http://spoofed.burpcollaborator.net", "http://bugbounty.dod.network"}
    by_name |= {line for line in lines if line.endswith(".nip.io")}
    passed = set()
    for line in filter(None, lines):
        try:
            read_destination(line, POLICY)
        except MedkgError:
            continue
        passed.add(line)
    assert passed <= by_name | {"https://localhost/"}
    assert len(lines) - len(passed) > 15


@given(st.text(max_size=60))
def test_whatever_stands_there_the_answer_is_a_url_or_an_error_of_medkg(text: str) -> None:
    for candidate in (text, f"http://{text}", f"https://publisher.test/{text}"):
        try:
            url = read_destination(candidate, POLICY)
        except MedkgError:
            continue
        assert url.scheme in {"http", "https"}
        assert url.host
        assert not url.userinfo


class Sockets(httpcore.AsyncNetworkBackend):
    """Remembers what it was connected to."""

    def __init__(self, refusing: tuple[str, ...] = ()) -> None:
        self.connected: list[str] = []
        self.refusing = refusing

    async def connect_tcp(self, host: str, port: int, **_: Any) -> httpcore.AsyncNetworkStream:  # type: ignore[override]  # the rest is passed on
        self.connected.append(host)
        if host in self.refusing:
            raise httpcore.ConnectError("refused")
        return httpcore.AsyncMockStream([b"HTTP/1.1 200 OK\r\n\r\n"])


def network(answers: list[list[str]], sockets: Sockets) -> CheckedNetwork:
    async def resolve(host: str, port: int) -> list[str]:
        return answers.pop(0)

    checked = CheckedNetwork(AddressPolicy(), resolve=resolve)
    checked._inner = sockets  # type: ignore[assignment]  # the one place where a socket would be opened
    return checked


@pytest.fixture
async def sockets() -> AsyncIterator[Sockets]:
    yield Sockets()


async def test_the_connection_goes_to_the_address_that_was_checked_not_to_the_name(sockets: Sockets) -> None:
    await network([["93.184.215.14"]], sockets).connect_tcp("publisher.test", 443)
    assert sockets.connected == ["93.184.215.14"]


async def test_a_name_is_refused_for_any_of_its_addresses(sockets: Sockets) -> None:
    for inner in ("127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fd00:ec2::254%1", "no address"):
        with pytest.raises(SourceForbiddenError, match=r"publisher\.test: it resolves to"):
            await network([["93.184.215.14", inner]], sockets).connect_tcp("publisher.test", 80)
    assert sockets.connected == []


async def test_a_name_that_changes_its_mind_is_resolved_once_for_each_connection_and_checked_each_time(
    sockets: Sockets,
) -> None:
    rebinding = network([["93.184.215.14"], ["127.0.0.1"]], sockets)
    await rebinding.connect_tcp("publisher.test", 80)
    with pytest.raises(SourceForbiddenError, match="loopback"):
        await rebinding.connect_tcp("publisher.test", 80)
    assert sockets.connected == ["93.184.215.14"]


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    sockets = Sockets(refusing=("2606:4700::1",))
    await network([["2606:4700::1", "93.184.215.14"]], sockets).connect_tcp("publisher.test", 80)
    assert sockets.connected == ["2606:4700::1", "93.184.215.14"]


@pytest.mark.parametrize("answer", [[], [f"93.184.215.{n}" for n in range(17)]])
async def test_a_name_with_no_address_or_far_too_many_is_not_connected_to(answer: list[str], sockets: Sockets) -> None:
    with pytest.raises(httpcore.ConnectError):
        await network([answer], sockets).connect_tcp("publisher.test", 80)
    assert sockets.connected == []


async def test_a_socket_of_this_machine_is_never_opened(sockets: Sockets) -> None:
    with pytest.raises(SourceForbiddenError):
        await network([], sockets).connect_unix_socket("/run/docker.sock")


def test_a_message_shows_neither_credentials_nor_query() -> None:
    assert shown_url("https://me:secret@host.test/a?key=secret#x") == "https://host.test/a"
    assert "\n" not in shown_url("https://host.test/\nx")
    assert len(shown_url("https://host.test/" + "a" * 5_000)) == 200


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://s.test/a?id=10.1/x&type=pdf", "https://s.test/a?id=10.1/x&type=pdf"),
        ("https://s.test/a?id=1&X-Amz-Signature=s&X-Amz-Expires=9", "https://s.test/a?id=1"),
        ("https://s.test/a?token=t&sig=u&api_key=k", "https://s.test/a"),
    ],
)
def test_what_opens_doors_is_taken_out_of_a_url_that_is_kept(url: str, kept: str) -> None:
    assert without_secrets(url) == kept
