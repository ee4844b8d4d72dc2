"""What a failed request means: whether asking again can help, and after how long."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from medkg.contracts.errors import (
    MedkgError,
    SourceError,
    SourceForbiddenError,
    SourceGoneError,
    SourceMalformedError,
    SourceRateLimitedError,
    SourceUnavailableError,
)

MAX_RETRY_AFTER_SECONDS = 3_600.0  # a longer wait is a fault of the answer
_QUOTED_CHARACTERS = 200


def fault_of_status(at: str, answer: httpx.Response, said: bytes = b"") -> SourceError:
    """The error for a status that is not a success; ``said`` is the beginning of the body.

    429: rate limited; 408, 425, 5xx: unavailable; 401, 403, 451: forbidden; 404, 410: gone; any other: malformed.
    """
    status = answer.status_code
    words = " ".join(said.decode(errors="replace").split())[:_QUOTED_CHARACTERS]
    message = f"reading {at}: {status} {answer.reason_phrase}".rstrip() + (f": {words}" if words else "")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return SourceRateLimitedError(message, retry_after_seconds=retry_after(answer.headers))
    if status in {408, 425} or status >= 500:
        return SourceUnavailableError(message, retry_after_seconds=retry_after(answer.headers))
    if status in {401, 403, 451}:
        return SourceForbiddenError(message)
    if status in {404, 410}:
        return SourceGoneError(message)
    return SourceMalformedError(message)


def fault_of_exception(at: str, error: httpx.HTTPError | httpx.InvalidURL) -> MedkgError:
    """The error for what httpx raised."""
    if isinstance(error, httpx.DecodingError):
        return SourceMalformedError(f"reading {at}: the answer cannot be decoded: {error}")
    if isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol):
        return SourceUnavailableError(
            f"reading {at}: {type(error).__name__}: {error or 'no answer'}; it is tried again"
        )
    return SourceMalformedError(f"reading {at}: {type(error).__name__}: {error}")


def retry_after(headers: httpx.Headers) -> float | None:
    """Seconds to wait (RFC 9110, section 10.2.3): as given, or until the date given, counted from the answer's own."""
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
