"""One URL to one file: asked conditionally, gone on with after a break, checked to be a PDF."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from medkg.contracts.errors import (
    PayloadTooLargeError,
    SourceError,
    SourceMalformedError,
    SourceUnavailableError,
)
from medkg.download.pages import END_WITHIN, HEAD_BYTES, MAGIC_WITHIN, fault_of_page, is_pdf, is_whole_pdf
from medkg.download.receipts import validator
from medkg.download.staging import Part
from medkg.http.bodies import declared_length, read_body, read_head
from medkg.http.destination import shown_url
from medkg.http.faults import fault_of_exception, fault_of_status
from medkg.http.fetching import Fetched, Fetcher

MAX_RESUMPTIONS = 5  # of one transfer, each of which has to bring the file further
_WRITE_BYTES = 256 * 1024  # gathered before they go to a thread
_ASKED = {"Accept": "application/pdf, */*;q=0.5", "Accept-Encoding": "identity"}
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class Arrived:
    """A transfer that has come to its end. Where the file is unchanged the part is empty."""

    url: str
    etag: str = ""
    last_modified: str = ""
    is_unchanged: bool = False


class Transfer:
    """Brings files over, one call a file."""

    def __init__(self, fetcher: Fetcher, max_bytes: int) -> None:
        self._fetcher = fetcher
        self._max_bytes = max_bytes

    async def run(self, url: str, part: Part, validators: Mapping[str, str]) -> Arrived:
        """Write the PDF at ``url`` into ``part``; with ``validators`` only if it has changed.

        A part that holds the beginning of the file is gone on with, if the server says that it is still the same file.
        After an error ``part`` holds what has come, and says by its validator whether it can be gone on with.

        Raises:
            SourceError: the server did not give a PDF; each subclass says why, and whether to try again.
            PayloadTooLargeError: the file is over the limit.
        """
        for resumption in range(MAX_RESUMPTIONS + 1):
            before = part.size_bytes
            try:
                arrived = await self._once(url, part, validators)
            except SourceUnavailableError:
                has_come_further = part.size_bytes > before
                if not (part.validator and has_come_further) or resumption == MAX_RESUMPTIONS:
                    raise
                continue
            if not arrived.is_unchanged:
                await self._check_end(url, part)
            return arrived
        raise AssertionError("the last resumption raises")  # pragma: no cover

    async def _once(self, url: str, part: Part, validators: Mapping[str, str]) -> Arrived:
        at = shown_url(url)
        is_going_on = bool(part.size_bytes and part.validator)
        wanted = {"Range": f"bytes={part.size_bytes}-", "If-Range": part.validator} if is_going_on else validators
        async with self._fetcher.open(url, {**_ASKED, **wanted}) as fetched:
            answer = fetched.answer
            status = answer.status_code
            if status == httpx.codes.NOT_MODIFIED and wanted and not is_going_on:
                return Arrived(fetched.url, is_unchanged=True)
            if is_going_on and status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and _is_all(answer, part):
                return _arrived(fetched, part.validator)  # all of it had come, and was not stored
            is_rest = is_going_on and status == httpx.codes.PARTIAL_CONTENT and _is_rest_of(answer, part)
            if is_going_on and not is_rest and status in {206, 416}:
                part.reset()  # the server has another idea of what there is: the next call asks for all of it
            elif is_rest or status == httpx.codes.OK:
                if not is_rest:
                    await asyncio.to_thread(part.reset)
                await self._take(fetched, part, at)
                return _arrived(fetched)
            else:
                raise await _fault(fetched, at)
        return await self._once(url, part, validators)

    async def _take(self, fetched: Fetched, part: Part, at: str) -> None:
        answer = fetched.answer
        total = _total(answer)
        if total is not None and total > self._max_bytes:
            part.reset()
            raise PayloadTooLargeError(
                f"reading {at}: {total} bytes are announced, at most {self._max_bytes} are taken"
            )
        is_checked = part.size_bytes > 0
        gathered = bytearray()
        try:
            async for piece in read_body(answer, at, self._max_bytes - part.size_bytes):
                gathered += piece
                if not is_checked and len(gathered) >= MAGIC_WITHIN and is_pdf(gathered):
                    is_checked = True
                    part.validator = _strong_validator(answer)
                if not is_checked and len(gathered) >= HEAD_BYTES:  # enough to tell what it is instead
                    raise _not_a_pdf(fetched, at, bytes(gathered))
                if len(gathered) >= _WRITE_BYTES and is_checked:
                    await _write(part, gathered)
        except httpx.HTTPError as error:
            raise fault_of_exception(at, error) from error
        finally:
            if is_checked and gathered:
                part.write(gathered)
        if not is_checked:
            if not is_pdf(gathered):
                raise _not_a_pdf(fetched, at, bytes(gathered))
            part.write(gathered)
        if total is not None and part.size_bytes != total:
            raise SourceUnavailableError(f"reading {at}: {part.size_bytes} bytes came of {total}")

    async def _check_end(self, url: str, part: Part) -> None:
        if not is_whole_pdf(await asyncio.to_thread(part.tail, END_WITHIN)):
            size_bytes = part.size_bytes
            part.reset()
            raise SourceMalformedError(
                f"reading {shown_url(url)}: the PDF has no end (%%EOF) after {size_bytes} bytes: it was cut off"
            )


def _arrived(fetched: Fetched, known: str = "") -> Arrived:
    """The end of a transfer; ``known`` is the validator of what had come before."""
    headers = fetched.answer.headers
    etag = validator(headers.get("ETag", "")) or (known if known.startswith('"') else "")
    return Arrived(fetched.url, etag, validator(headers.get("Last-Modified", "")))


async def _write(part: Part, gathered: bytearray) -> None:
    data = bytes(gathered)
    gathered.clear()
    writing = asyncio.ensure_future(asyncio.to_thread(part.write, data))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await writing  # nobody else may touch the file before
        raise


async def _fault(fetched: Fetched, at: str) -> SourceError:
    answer = fetched.answer
    head = await read_head(answer, at, HEAD_BYTES)
    named = fault_of_page(at, fetched.url, answer.status_code, answer.headers, head)
    plain = fault_of_status(at, answer)
    # a server in distress may well show a page that asks for a human, but it is asked again
    return named if named is not None and not plain.retryable else plain


def _not_a_pdf(fetched: Fetched, at: str, head: bytes) -> SourceError:
    fault = fault_of_page(at, fetched.url, httpx.codes.OK, fetched.answer.headers, head)
    return fault or SourceMalformedError(f"reading {at}: no PDF came")


def _is_rest_of(answer: httpx.Response, part: Part) -> bool:
    """Whether a partial answer begins where the part ends, and is of the same file as far as the server says."""
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if found is None or int(found[1]) != part.size_bytes or answer.headers.get("Content-Encoding"):
        return False
    return answer.headers.get("ETag", part.validator) == part.validator or not part.validator.startswith('"')


def _is_all(answer: httpx.Response, part: Part) -> bool:
    """Whether a refused range begins at the very end (RFC 9110, section 15.5.17)."""
    return str(answer.headers.get("Content-Range", "")).strip() == f"bytes */{part.size_bytes}"


def _total(answer: httpx.Response) -> int | None:
    """Bytes of the whole file, where the answer says so."""
    if answer.status_code == httpx.codes.PARTIAL_CONTENT:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        return int(found[3]) if found is not None and found[3] != "*" else None
    return None if answer.headers.get("Content-Encoding") else declared_length(answer)


def _strong_validator(answer: httpx.Response) -> str:
    """What ``If-Range`` may compare (RFC 9110, sections 8.8.2.2 and 13.1.5); empty without one, or without ranges."""
    headers = answer.headers
    if headers.get("Content-Encoding") or headers.get("Accept-Ranges", "").strip().lower() == "none":
        return ""
    etag = validator(headers.get("ETag", ""))
    if etag:
        return etag if etag.startswith('"') else ""
    modified = validator(headers.get("Last-Modified", ""))
    try:
        age = parsedate_to_datetime(headers["Date"]) - parsedate_to_datetime(modified)
        return modified if age.total_seconds() >= 60 else ""
    except (KeyError, ValueError, TypeError, OverflowError):
        return ""
