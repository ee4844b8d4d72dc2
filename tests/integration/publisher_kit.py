"""A publisher on loopback: a real HTTP server that does, path by path, what real ones and hostile ones do."""

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

Answer = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str]


@dataclass
class Publisher:
    """The server. ``answers`` by path; ``asked`` is what came, in order."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    sent: int = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
                asked = Asked(lines[0].split(" ")[1], {name.lower(): value for name, value in headers.items()})
                self.asked.append(asked)
                await self.answers.get(asked.path, page("<h1>no such page</h1>", 404))(asked, writer)
                await writer.drain()
                if writer.is_closing():
                    return
        writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Publisher]:
    """A publisher at work until the block is left."""
    publisher = Publisher()
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(asyncio.CancelledError):
            await publisher._serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    publisher.port = server.sockets[0].getsockname()[1]
    try:
        yield publisher
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 5)


def head(status: int, **headers: object) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status} Said", *lines, "", ""]).encode()


def page(html: str, status: int = 200, **headers: object) -> Answer:
    """An HTML page."""
    body = html.encode()

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, Content_Type="text/html", Content_Length=len(body), **headers) + body)

    return answer


def redirect(to: str, status: int = 302, **headers: object) -> Answer:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, Location=to, Content_Length=0, **headers))

    return answer


def pdf(data: bytes, *, ranges: bool = True, breaks_after: int | None = None, etag: str | None = None) -> Answer:
    """A file with an ETag; conditional and, with ``ranges``, partial. ``breaks_after``: bytes before a whole answer
    breaks off."""
    tag = f'"{sha256(data).hexdigest()[:16]}"' if etag is None else etag

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if tag and asked.headers.get("if-none-match") == tag:
            writer.write(head(304, ETag=tag))
            return
        wanted = asked.headers.get("range", "")
        fixed = {"Content_Type": "application/pdf", "ETag": tag} if tag else {"Content_Type": "application/pdf"}
        if ranges and wanted and asked.headers.get("if-range", tag) == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                writer.write(head(416, Content_Range=f"bytes */{len(data)}", Content_Length=0))
                return
            rest, span = data[start:], f"bytes {start}-{len(data) - 1}/{len(data)}"
            writer.write(head(206, Content_Length=len(rest), Content_Range=span, **fixed) + rest)
            return
        sent = data if breaks_after is None else data[:breaks_after]
        writer.write(head(200, Content_Length=len(data), **fixed) + sent)
        if breaks_after is not None:
            await writer.drain()
            writer.close()

    return answer


def breaking(data: bytes, ends: list[int]) -> Answer:
    """A file of which every answer breaks off at the next of ``ends``."""
    left = list(ends)

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        start = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        span = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        writer.write(head(206 if start else 200, Content_Length=len(data) - start, ETag='"1"', **span))
        writer.write(data[start : left.pop(0)])
        await writer.drain()
        writer.close()

    return answer


def raw(*pieces: bytes, pause: float = 0.0, closes: bool = True) -> Answer:
    """These bytes, one after the other."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        if closes:
            writer.close()

    return answer


def endless(first: bytes, again: bytes, publisher: Publisher | None = None, **headers: object) -> Answer:
    """A body that never ends."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, Content_Type="application/pdf", **headers) + first)
        while not writer.is_closing():
            writer.write(again)
            await writer.drain()
            if publisher is not None:
                publisher.sent += len(again)

    return answer


def dripping(first: bytes, seconds: float, **headers: object) -> Answer:
    """A byte now and then."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, Content_Type="application/pdf", **headers) + first)
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(seconds)

    return answer


def gzip_bomb(size_bytes: int) -> bytes:
    """A PDF of so many bytes, nearly all of them zero, as gzip makes it small."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(b"%PDF-1.7\n")
    zeros = bytes(1024 * 1024)
    for _ in range(size_bytes // len(zeros)):
        packed += packer.compress(zeros)
    return packed + packer.flush()


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)
