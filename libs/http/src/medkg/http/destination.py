"""Reading a URL that somebody else wrote: what it leads to, or why medkg does not go there."""

import re
from dataclasses import dataclass, field

import httpx

from medkg.contracts.errors import SourceForbiddenError, SourceMalformedError
from medkg.http.addresses import AddressPolicy, read_address

MAX_URL_CHARACTERS = 8_000
_DEFAULT_PORTS = {"http": 80, "https": 443}
# What parsers read differently from one another is not read at all.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")
# A last label of digits, or of 0x…, is an address to some resolvers (WHATWG URL, section 3.5): 127.1, 0x7f.1, 0177.1.
_NUMERIC = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?$")

_USER = re.compile(r"[^/?#]*//[^/?#]*@")  # also an empty one, which a parser drops
_SECRET = re.compile(
    r"(?i)signature|token|credential|secret|password|session|api_?key|^key|^sig$|^auth|^x-amz-|^expires$"
)


@dataclass(frozen=True, slots=True)
class DestinationPolicy:
    """Where medkg goes: over which ports, and to which addresses."""

    ports: frozenset[int] = frozenset({80, 443})
    addresses: AddressPolicy = field(default_factory=AddressPolicy)


def read_destination(text: str, policy: DestinationPolicy) -> httpx.URL:
    """The URL, checked as far as it can be without asking a resolver; its fragment is dropped.

    Raises:
        SourceForbiddenError: another scheme than http and https, credentials, a port or an address that is not allowed.
        SourceMalformedError: it is no URL, or one that two programs could read in two ways.
    """
    shown = shown_url(text)
    if len(text) > MAX_URL_CHARACTERS or _AMBIGUOUS.search(text):
        raise SourceMalformedError(f"reading {shown}: not a URL (too long, or a character that a URL cannot have)")
    try:
        url = httpx.URL(text)
        host = url.host
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise SourceMalformedError(f"reading {shown}: not a URL: {error}") from error
    if url.scheme not in _DEFAULT_PORTS:
        raise SourceForbiddenError(f"reading {shown}: only http and https are fetched, not {url.scheme[:20]!r}")
    if url.userinfo or _USER.match(text):
        raise SourceForbiddenError(f"reading {shown}: a URL with credentials is not fetched")
    if not host:
        raise SourceMalformedError(f"reading {shown}: the URL names no host")
    port = url.port or _DEFAULT_PORTS[url.scheme]
    if port not in policy.ports:
        allowed = ", ".join(map(str, sorted(policy.ports)))
        raise SourceForbiddenError(f"reading {shown}: port {port} is not allowed (allowed: {allowed})")
    _check_host(host, shown, policy)
    return url.copy_with(fragment=None)


def _check_host(host: str, shown: str, policy: DestinationPolicy) -> None:
    address = read_address(host)
    if address is None and _NUMERIC.search(host):
        raise SourceForbiddenError(f"reading {shown}: {host[:80]!r} is an address in disguise")
    if "%" in host:
        raise SourceForbiddenError(f"reading {shown}: an address with a zone is not fetched")
    if address is not None and (reason := policy.addresses.refusal(address)):
        raise SourceForbiddenError(f"reading {shown}: the address {address} is {reason}")


def without_secrets(url: str) -> str:
    """A URL that may be kept: parameters that open doors (signatures, tokens, keys) are taken out of its query."""
    parts = httpx.URL(url)
    kept = [(name, value) for name, value in parts.params.multi_items() if not _SECRET.search(name)]
    if len(kept) == len(parts.params.multi_items()):
        return url
    return str(parts.copy_with(params=httpx.QueryParams(tuple(kept))) if kept else parts.copy_with(query=None))


def shown_url(text: str) -> str:
    """A URL for messages: without credentials and query (both may hold secrets), short, in one line."""
    plain = re.sub(r"//[^/?#]*@", "//", re.sub(r"[^\x21-\x7e]+", " ", text))
    plain = re.split(r"[?#]", plain, maxsplit=1)[0]
    return plain if len(plain) <= 200 else f"{plain[:199]}…"
