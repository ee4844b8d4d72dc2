"""Reading an answer of an API whole: bounded in size, with every failure sorted by whether asking again can help."""

from collections.abc import Mapping

import httpx

from medkg.contracts.errors import PayloadTooLargeError, SourceMalformedError
from medkg.http.bodies import ACCEPT_ENCODING, read_body, read_head
from medkg.http.faults import fault_of_exception, fault_of_status

_HEAD_BYTES = 65_536


async def get_bounded(
    client: httpx.AsyncClient,
    url: str,
    query: Mapping[str, str],
    max_bytes: int,
    *,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The body of an answer 200. The query is left out of every message: it may hold a key.

    Raises:
        SourceRateLimitedError: 429; ``retry_after_seconds`` where the answer says so (RFC 9110, section 10.2.3).
        SourceUnavailableError: no connection, a timeout, 408, 425, 5xx.
        SourceForbiddenError: 401, 403, 451. SourceGoneError: 404, 410.
        SourceMalformedError: any other status, or an answer over ``max_bytes``.
    """
    asked = {"Accept-Encoding": ACCEPT_ENCODING} | dict(headers or {})
    try:
        async with client.stream("GET", url, params=dict(query), headers=asked) as answer:
            if answer.status_code != httpx.codes.OK:
                raise fault_of_status(url, answer, await read_head(answer, url, _HEAD_BYTES))
            return b"".join([piece async for piece in read_body(answer, url, max_bytes)])
    except PayloadTooLargeError as error:
        raise SourceMalformedError(
            f"reading {url}: the answer is over {max_bytes} bytes; ask for fewer at once"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise fault_of_exception(url, error) from error
