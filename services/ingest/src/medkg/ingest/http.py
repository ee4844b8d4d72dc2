"""Reading a peer over HTTP: bounded in size, with every failure sorted by whether asking again can help."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from medkg.contracts.errors import (
    SourceError,
    SourceForbiddenError,
    SourceGoneError,
    SourceMalformedError,
    SourceRateLimitedError,
    SourceUnavailableError,
)

MAX_RETRY_AFTER_SECONDS = 3_600.0  # a longer wait is a fault of the answer
_QUOTED_CHARACTERS = 200


async def get_bounded(client: httpx.AsyncClient, url: str, query: dict[str, str], max_bytes: int) -> bytes:
    """The body of an answer 200.

    Raises:
        SourceRateLimitedError: 429; ``retry_after_seconds`` where the answer says so (RFC 9110, section 10.2.3).
        SourceUnavailableError: no connection, a timeout, 408, 425, 5xx.
        SourceForbiddenError: 401, 403. SourceGoneError: 404, 410.
        SourceMalformedError: any other status, or an answer over ``max_bytes``.
    """
    try:
        async with client.stream("GET", url, params=query) as answer:
            if answer.status_code != httpx.codes.OK:
                body = await _take(answer, url, 65_536, is_cut=True)
                raise _fault(url, answer, body)
            return await _take(answer, url, max_bytes)
    except httpx.DecodingError as error:
        raise SourceMalformedError(f"reading {url}: the answer cannot be decoded: {error}") from error
    except httpx.TransportError as error:
        raise SourceUnavailableError(
            f"reading {url}: {type(error).__name__}: {error or 'no answer'}; it is tried again"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceMalformedError(f"reading {url}: {type(error).__name__}: {error}") from error


async def _take(answer: httpx.Response, url: str, max_bytes: int, *, is_cut: bool = False) -> bytes:
    body = bytearray()
    async for piece in answer.aiter_bytes():
        body += piece
        if len(body) > max_bytes:
            if is_cut:
                break
            raise SourceMalformedError(f"reading {url}: the answer is over {max_bytes} bytes; ask for fewer at once")
    return bytes(body[:max_bytes])


def _fault(url: str, answer: httpx.Response, body: bytes) -> SourceError:
    status = answer.status_code
    said = " ".join(body.decode(errors="replace").split())[:_QUOTED_CHARACTERS]
    message = f"reading {url}: {status} {answer.reason_phrase}".rstrip() + (f": {said}" if said else "")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return SourceRateLimitedError(message, retry_after_seconds=_retry_after(answer.headers))
    if status in {408, 425} or status >= 500:
        return SourceUnavailableError(message, retry_after_seconds=_retry_after(answer.headers))
    if status in {401, 403}:
        return SourceForbiddenError(message)
    if status in {404, 410}:
        return SourceGoneError(message)
    return SourceMalformedError(message)


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds to wait: as given, or until the date given, counted from the answer's own date."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal() and value.isascii():
        return min(float(value[:9]), MAX_RETRY_AFTER_SECONDS)
    try:
        due = parsedate_to_datetime(value)
        since = parsedate_to_datetime(headers["Date"]) if "Date" in headers else datetime.now(UTC)
        seconds = (_aware(due) - _aware(since)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
