"""Which addresses medkg connects to: those of the public Internet, and what a setting adds to them.

Whatever form a URL gives an address in (decimal, octal, IPv6 with an IPv4 address inside), it is judged as what the
network would make of it. A name is judged by every address that it resolves to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

# Prefixes that carry an IPv4 address: a translator or tunnel on the way would deliver to that one.
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, section 2.5.5.1, deprecated
_SIIT = IPv6Network("::ffff:0:0:0/96")  # RFC 7915
# Not global in the sense of the registries, though Python's tables differ between versions.
_NEVER = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments, RFC 6890
    IPv4Network("168.63.129.16/32"),  # public by number, yet where a cloud answers its own machines
    IPv6Network("100::/64"),  # discard, RFC 6666
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("3fff::/20"),  # documentation, RFC 9637
    IPv6Network("5f00::/16"),  # segment routing, RFC 9602
    IPv6Network("fec0::/10"),  # site-local, RFC 3879
)


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """``allow_loopback`` is for tests with a server of their own; nothing else that is not public is ever allowed."""

    allow_loopback: bool = False

    def refusal(self, address: Address) -> str:
        """Why this address is not connected to; empty where it may be."""
        for meant in _meanings(address):
            if meant.is_loopback and self.allow_loopback and not meant.is_unspecified:
                continue
            if reason := _reason(meant):
                return reason
        return ""


def read_address(text: str) -> Address | None:
    """The address that a resolver gave, without its zone; None where it is none."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _reason(address: Address) -> str:
    checks = (
        (address.is_unspecified, "unspecified"),
        (address.is_loopback, "loopback"),
        (address.is_link_local, "link-local, where clouds keep their metadata"),
        (address.is_multicast, "multicast"),
        (any(address in network for network in _NEVER), "reserved"),
        (not address.is_global, "private or reserved"),
    )
    return next((reason for holds, reason in checks if holds), "")


def _meanings(address: Address) -> Iterator[Address]:
    """The address itself, or the IPv4 addresses that stand inside it."""
    if isinstance(address, IPv4Address):
        yield address
        return
    inner = address.ipv4_mapped or address.sixtofour
    if inner is not None:
        yield inner
    elif address.teredo is not None:
        yield from address.teredo  # its server and its client
    elif address in _SIIT or (address in _COMPATIBLE and int(address) > 1) or address in _NAT64[0]:
        yield IPv4Address(int(address) & 0xFFFFFFFF)
    elif address in _NAT64[1]:
        # The prefix length within it is the operator's own, so the IPv4 part cannot be told: refused as a whole.
        yield IPv4Address(0)
    else:
        yield address
