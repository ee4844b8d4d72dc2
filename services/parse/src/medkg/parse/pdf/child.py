"""The process in which PDFs are read: one after the other, under limits that the system enforces.

Run as ``python -m medkg.parse.pdf.child MEMORY_BYTES``. Over its pipes it is given frames (a length of four bytes, big
endian, and so many bytes): a header as JSON and the file; it answers each file with one frame, the document or why
there is none. Whatever a hostile file makes it do, it can only take this process down.
"""

import contextlib
import os
import sys
from typing import BinaryIO

import msgspec

from medkg.contracts.document import Document
from medkg.contracts.errors import MedkgError, ParserKilledError

HEAD = 4
MAX_FRAME = 1 << 30


class Asked(msgspec.Struct, frozen=True):
    """What is asked of a file, before its bytes."""

    record: str
    max_pages: int
    max_characters: int


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document, or the code and message of why there is none."""

    document: Document | None = None
    code: str = ""
    message: str = ""


def frame(data: bytes) -> bytes:
    """Bytes with their length before them."""
    return len(data).to_bytes(HEAD, "big") + data


def read(data: bytes, asked: Asked) -> Answer:
    """What a file comes to. Never raises but for want of memory."""
    from medkg.parse.pdf.document import document_of
    from medkg.parse.pdf.glyphs import PdfLimits, read_pages

    try:
        return Answer(document_of(read_pages(data, PdfLimits(asked.max_pages, asked.max_characters)), asked.record))
    except MedkgError as error:
        return Answer(code=error.code, message=error.message)
    except RecursionError as error:
        return Answer(code=ParserKilledError.code, message=f"reading a PDF: {error}")


def _limit(memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # no such limits on this system; the parent still watches the time
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes to pipes, and nowhere else
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _frame(pipe: BinaryIO) -> bytes | None:
    head = pipe.read(HEAD)
    if len(head) < HEAD:
        return None
    size = int.from_bytes(head, "big")
    data = pipe.read(size) if size <= MAX_FRAME else b""
    return data if len(data) == size else None


def main() -> None:
    """Read until there is nothing more to read."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not reach the answers
    from medkg.parse.pdf import document, glyphs  # noqa: F401  loaded before the limit, not against it

    _limit(int(sys.argv[1]))
    decode = msgspec.json.Decoder(Asked).decode
    while (head := _frame(requests)) is not None and (data := _frame(requests)) is not None:
        answer = msgspec.json.encode(read(data, decode(head)))
        answers.write(frame(answer))
        answers.flush()
        del data, answer


if __name__ == "__main__":
    main()
