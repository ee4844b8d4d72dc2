"""Connections to checked addresses only: what is checked is what is connected to.

The resolver is asked once for a connection, every address that it names is checked, and the connection is made to one
of those very addresses. So an answer that changes between a check and its use (DNS rebinding) changes nothing. The name
stays in the Host header and in TLS (SNI and certificate), because only the connection below knows the address.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable

import httpcore
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

from medkg.contracts.errors import SourceForbiddenError
from medkg.http.addresses import Address, AddressPolicy, read_address

Resolve = Callable[[str, int], Awaitable[list[str]]]

MAX_ADDRESSES = 16  # of one name that are looked at; more is no sound answer
_MAX_TRIED = 4  # of them that a connection is tried to


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system's resolver gives them, each once."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class CheckedNetwork(AsyncNetworkBackend):
    """A network for httpcore that leads to allowed addresses only."""

    def __init__(self, policy: AddressPolicy, *, resolve: Resolve = resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore calls it with one
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """A connection to one of the addresses of ``host``; they share the time of ``timeout``.

        Raises:
            SourceForbiddenError: one of its addresses is not allowed.
            httpcore.ConnectError, httpcore.ConnectTimeout: there is no such name, or nobody answers.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(await self._addresses(host, port), port, local_address, socket_options)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"no connection to {host} within {timeout} s") from error

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  the same
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """No URL leads to a socket of this machine."""
        raise SourceForbiddenError("connecting: a socket of this machine is not fetched from")

    async def sleep(self, seconds: float) -> None:
        """What httpcore waits with between its own retries."""
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[Address]:
        try:
            texts = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"resolving {host}: {error}") from error
        addresses = [read_address(text) for text in texts]
        if not addresses or len(addresses) > MAX_ADDRESSES:
            raise httpcore.ConnectError(f"resolving {host}: {len(addresses)} addresses")
        for text, address in zip(texts, addresses, strict=True):
            reason = "no address" if address is None else self._policy.refusal(address)
            if reason:
                raise SourceForbiddenError(f"connecting to {host}: it resolves to {text}, which is {reason}")
        return [address for address in addresses if address is not None]

    async def _connect(
        self,
        addresses: list[Address],
        port: int,
        local_address: str | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> AsyncNetworkStream:
        options = list(socket_options or ())
        failure: httpcore.ConnectError | None = None
        for address in addresses[:_MAX_TRIED]:
            try:
                return await self._inner.connect_tcp(
                    str(address), port, local_address=local_address, socket_options=options
                )
            except httpcore.ConnectError as error:
                failure = error
        raise failure or httpcore.ConnectError("no address to connect to")
