"""The transport of httpx on a checked network; built from httpcore's public parts."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import httpcore
import httpx

from medkg.http.addresses import AddressPolicy
from medkg.http.network import CheckedNetwork, Resolve, resolve

MAX_CONNECTIONS = 64
_KEEPALIVE_SECONDS = 10.0


class CheckedTransport(httpx.AsyncBaseTransport):
    """Sends requests over connections whose address was checked; follows no redirect and knows no proxy."""

    def __init__(self, policy: AddressPolicy, *, resolve: Resolve = resolve, tls: ssl.SSLContext | None = None) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or httpx.create_ssl_context(trust_env=False),
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS // 2,
            keepalive_expiry=_KEEPALIVE_SECONDS,
            network_backend=CheckedNetwork(policy, resolve=resolve),
        )

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._pool.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer to one request, its body unread.

        Raises:
            SourceForbiddenError: the host leads to an address that is not allowed.
            httpx.TransportError: what httpx itself raises.
        """
        target = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        asked = httpcore.Request(
            method=request.method,
            url=target,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_httpx():
            answer = await self._pool.handle_async_request(asked)
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for piece in self._answer.aiter_stream():
                yield piece

    async def aclose(self) -> None:
        await self._answer.aclose()


@contextmanager
def _as_httpx() -> Iterator[None]:
    """httpcore's errors under the names that httpx gives them, which are the same."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from error
    except (httpcore.ProxyError, httpcore.UnsupportedProtocol, httpcore.ConnectionNotAvailable) as error:
        raise httpx.TransportError(str(error)) from error
