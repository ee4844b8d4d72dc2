"""Reading a body that may be endless, or far larger than it looks: bounded before and after decompression."""

import zlib
from collections.abc import AsyncIterator, Iterator

import httpx

from medkg.contracts.errors import PayloadTooLargeError, SourceMalformedError, SourceUnavailableError

ACCEPT_ENCODING = "gzip, deflate"  # what is decoded here, whatever else httpx could
_STEP = 64 * 1024  # most bytes that come out of the decompressor at once


async def read_body(answer: httpx.Response, at: str, max_bytes: int) -> AsyncIterator[bytes]:
    """The body in pieces of at most 64 kB or what the network gives, decoded.

    Raises:
        PayloadTooLargeError: over ``max_bytes``, as sent or as decoded. No more than one piece beyond it was made.
        SourceMalformedError: a content coding that is not known, or a body that breaks it.
        SourceUnavailableError: a coded body that ends in the middle.
        httpx.TransportError: the connection broke.
    """
    decoder = _decoder_of(answer.headers.get("Content-Encoding", ""), at)
    declared = declared_length(answer)
    if declared is not None and declared > max_bytes:
        raise PayloadTooLargeError(f"reading {at}: {declared} bytes are announced, at most {max_bytes} are taken")
    taken = given = 0
    async for raw in answer.aiter_raw():
        taken += len(raw)
        for piece in decoder.decode(raw):
            given += len(piece)
            if given > max_bytes:
                raise PayloadTooLargeError(f"reading {at}: over {max_bytes} bytes")
            yield piece
        if taken > max_bytes:
            raise PayloadTooLargeError(f"reading {at}: over {max_bytes} bytes as sent")
    decoder.end()


async def read_head(answer: httpx.Response, at: str, most_bytes: int) -> bytes:
    """The beginning of a body, for people and for telling what it is; never fails for what it holds."""
    head = bytearray()
    try:
        async for piece in read_body(answer, at, most_bytes):
            head += piece
    except (PayloadTooLargeError, SourceMalformedError, SourceUnavailableError, httpx.HTTPError):
        return bytes(head)
    return bytes(head)


def declared_length(answer: httpx.Response) -> int | None:
    """What ``Content-Length`` says, where it says something."""
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


class _Identity:
    def decode(self, raw: bytes) -> Iterator[bytes]:
        yield raw

    def end(self) -> None:
        pass


class _Zlib:
    """gzip (RFC 1952, any number of members) or deflate (RFC 9110, section 8.4.1.2: with the zlib wrapper)."""

    def __init__(self, window: int, at: str) -> None:
        self._window = window
        self._at = at
        self._inner = zlib.decompressobj(window)
        self._is_begun = False

    def decode(self, raw: bytes) -> Iterator[bytes]:
        rest = raw
        while rest:
            if self._inner.eof:
                self._inner = zlib.decompressobj(self._window)
            try:
                piece = self._inner.decompress(rest, _STEP)
            except zlib.error as error:
                raise SourceMalformedError(f"reading {self._at}: the answer cannot be decoded: {error}") from error
            self._is_begun = True
            rest = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
            if piece:
                yield piece

    def end(self) -> None:
        if self._is_begun and not self._inner.eof:
            raise SourceUnavailableError(f"reading {self._at}: the coded answer ends in the middle")


def _decoder_of(coding: str, at: str) -> _Identity | _Zlib:
    match coding.strip().lower():
        case "" | "identity":
            return _Identity()
        case "gzip" | "x-gzip":
            return _Zlib(16 + zlib.MAX_WBITS, at)
        case "deflate":
            return _Zlib(zlib.MAX_WBITS, at)
        case unknown:
            raise SourceMalformedError(f"reading {at}: the content coding {unknown[:40]!r} was not asked for")
