"""The records in a file: what it holds is told by its name and its first bytes, and by both where they differ.

``.txt`` and ``.md`` are text. Else a file that begins with ``{`` or ``[`` is JSON, one that begins with ``<`` is XML. A
name without an ending is text, if it is text at all; everything else is refused by name.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from medkg.contracts.document import RawPayload, RefusedRecord
from medkg.contracts.errors import (
    ContentError,
    MedkgError,
    PayloadMalformedError,
    PayloadTooLargeError,
    PayloadUnsupportedError,
    SourceForbiddenError,
    SourceGoneError,
)
from medkg.contracts.media import MARKDOWN, TEXT
from medkg.ingest.files.articles import read_article
from medkg.ingest.files.decoding import FALLBACK, decode_text, decode_xml, without_mark
from medkg.ingest.files.json_stream import HEAD_BYTES, ArrayStart, Element, array_start, elements
from medkg.ingest.files.roots import printable
from medkg.ingest.studies import read_study

WHOLE = -1  # as an offset: nothing more is read from this file
_TEXT_ENDINGS = {".txt": TEXT, ".text": TEXT, ".md": MARKDOWN, ".markdown": MARKDOWN}
_KNOWN_BINARIES = {
    b"%PDF-": "a PDF; give it to a pipeline that reads PDFs",
    b"PK\x03\x04": "a ZIP archive; unpack it first",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
}
_BLANK = b" \t\n\r\x0b\x0c"


@dataclass(frozen=True, slots=True)
class Taken:
    """One record, and where in its file the one after it is looked for (offset and index)."""

    record: RawPayload | RefusedRecord
    size_bytes: int
    offset: int
    index: int


@dataclass(frozen=True, slots=True)
class FileToRead:
    """A file: its real path and the name that goes into identities."""

    path: Path
    name: str

    @property
    def uri(self) -> str:
        return printable(str(self.path))


def open_file(path: Path) -> BinaryIO:
    """A regular file for reading.

    Raises:
        OSError: it cannot be opened; among others since it has become a symbolic link after it was found.
        SourceForbiddenError: not a regular file.
    """
    # Non-blocking: opening a named pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceForbiddenError(f"reading {path}: not a regular file")
    return os.fdopen(descriptor, "rb")


def records(source: str, file: FileToRead, offset: int, index: int, max_bytes: int) -> Iterator[Taken]:
    """The records of a file from ``offset`` on, the first of them with ``index``. What the file holds never raises."""
    try:
        with open_file(file.path) as opened:
            head = opened.read(HEAD_BYTES)
            start = None if _text_type(file) else array_start(without_mark(head))
            if start is not None:
                shift = len(head) - len(without_mark(head))
                start = start._replace(offset=start.offset + shift)
                yield from _array(source, file, opened, start, offset, index, max_bytes)
                return
            yield _whole(source, file, head, opened, max_bytes)
    except (OSError, MedkgError) as error:
        fault = error if isinstance(error, MedkgError) else _of_system(file, error)
        yield Taken(_refused(file.name, file.uri, fault), 0, WHOLE, 0)


def _array(
    source: str, file: FileToRead, opened: BinaryIO, start: ArrayStart, offset: int, index: int, max_bytes: int
) -> Iterator[Taken]:
    at = max(offset, start.offset)
    try:
        for element in elements(opened, start, at, index, max_bytes):
            yield Taken(_study(source, file, start, element), len(element.data), element.end, element.index + 1)
            index = element.index + 1
    except PayloadMalformedError as error:
        place = f"#{start.pointer}/{index}"
        fault = PayloadMalformedError(f"reading {file.uri}{place}: broken {error.message}")
        yield Taken(_refused(f"{file.name}{place}", f"{file.uri}{place}", fault), 0, WHOLE, index)


def _study(source: str, file: FileToRead, start: ArrayStart, element: Element) -> RawPayload | RefusedRecord:
    place = f"#{start.pointer}/{element.index}"
    uri = f"{file.uri}{place}"
    try:
        if element.fault is not None:
            raise element.fault
        return read_study(source, element.data, uri)
    except ContentError as error:
        return _refused(f"{file.name}{place}", uri, error)


def _whole(source: str, file: FileToRead, head: bytes, opened: BinaryIO, max_bytes: int) -> Taken:
    at = f"reading {file.uri}"
    for magic, what in _KNOWN_BINARIES.items():
        if head.startswith(magic):
            raise PayloadUnsupportedError(f"{at}: {what}")
    data = head + opened.read(max(0, max_bytes + 1 - len(head)))
    if len(data) > max_bytes:
        raise PayloadTooLargeError(
            f"{at}: over {max_bytes} bytes; split it, or raise MEDKG_INGEST_FILES_MAX_RECORD_BYTES"
        )
    return Taken(_payload(source, file, data, at), len(data), WHOLE, 0)


def _payload(source: str, file: FileToRead, data: bytes, at: str) -> RawPayload:
    first = _first_character(data)
    if not first:
        raise PayloadMalformedError(f"{at}: the file is empty")
    ending = file.path.suffix.lower()
    if media := _text_type(file):
        return _text(source, file, data, media, at)
    if first in b"{[":
        return read_study(source, without_mark(data), file.uri)
    if first == b"<":
        return read_article(source, file.name, decode_xml(data, at), file.uri)
    if ending in {".json", ".xml", ".nxml"}:
        raise PayloadMalformedError(f"{at}: called {ending}, but it begins with {first.decode('latin-1')!r}")
    if not ending:
        return _text(source, file, data, TEXT, at)
    if ending == ".pdf":
        raise PayloadUnsupportedError(f"{at}: {_KNOWN_BINARIES[b'%PDF-']}")
    raise PayloadUnsupportedError(
        f"{at}: files ending with {ending!r} are not read here; known are .json, .xml, .nxml, .txt and .md"
    )


def _text(source: str, file: FileToRead, data: bytes, media: str, at: str) -> RawPayload:
    text, encoding = decode_text(data, at)
    return RawPayload(
        source=source,
        source_id=file.name,
        media_type=media,
        text=text,
        uri=file.uri,
        metadata={"encoding": encoding} if encoding == FALLBACK else {},
    )


def _text_type(file: FileToRead) -> str:
    return _TEXT_ENDINGS.get(file.path.suffix.lower(), "")


def _first_character(data: bytes) -> bytes:
    """The first that is no white space; in UTF-16 and UTF-32 what stands behind the byte order mark."""
    for mark in (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff", b"\xff\xfe", b"\xfe\xff"):
        if data.startswith(mark):
            return data[len(mark) :].strip(b"\x00" + _BLANK)[:1]
    return without_mark(data).lstrip(_BLANK)[:1]


def _refused(source_id: str, uri: str, error: MedkgError) -> RefusedRecord:
    return RefusedRecord(source_id=source_id, uri=uri, code=error.code, message=printable(error.message))


def _of_system(file: FileToRead, error: OSError) -> MedkgError:
    kind = SourceForbiddenError if isinstance(error, PermissionError) else SourceGoneError
    return kind(f"reading {file.uri}: {error.strerror or error}; check it as the ingest service's user sees it")
