"""How much memory a large file takes on its way to the blob store: measured."""

import asyncio
import os
from pathlib import Path

import msgspec
import psutil
from tests.integration.publisher_kit import Asked, head, serving

from medkg.contracts.context import StageContext
from medkg.contracts.document import FileLocation, FileLocations, RawPayload
from medkg.contracts.implementation import Host
from medkg.contracts.media import FILE_LOCATIONS
from medkg.download.app import opened
from medkg.download.settings import DownloadSettings
from medkg.runtime.blobs import open_blobs

PIECE = os.urandom(1024 * 1024)
PIECES = 256
ALLOWED_MIB = 64  # a few parts for the blob store, what is gathered before it is written, buffers of the network


async def big(asked: Asked, writer: asyncio.StreamWriter) -> None:
    first, last = b"%PDF-1.7\n", b"%%EOF\n"
    length = len(first) + len(PIECE) * PIECES + len(last)
    writer.write(head(200, Content_Type="application/pdf", Content_Length=length) + first)
    for _ in range(PIECES):
        writer.write(PIECE)
        await writer.drain()
    writer.write(last)


async def test_a_large_file_is_never_held_in_memory(tmp_path: Path) -> None:
    process, samples, is_done = psutil.Process(), [0.0], asyncio.Event()

    async def watch() -> None:
        while not is_done.is_set():
            samples.append(process.memory_info().rss / 2**20)
            await asyncio.sleep(0.005)

    async with serving() as publisher:
        publisher.answers["/big.pdf"] = big
        settings = DownloadSettings(
            allow_loopback=True, ports=str(publisher.port), max_bytes=512 * 1024 * 1024, total_seconds=60
        )
        host = Host(tmp_path, open_blobs((tmp_path / "blobs").as_uri()))
        async with opened(settings, host) as stage:
            locations = FileLocations((FileLocation(publisher.url("/big.pdf")),))
            payload = RawPayload("core", "1", FILE_LOCATIONS, text=msgspec.json.encode(locations).decode())
            before = process.memory_info().rss / 2**20
            watching = asyncio.create_task(watch())
            stored = await stage.execute(StageContext("t", "d", "j"), payload)
            is_done.set()
            await watching
    grown = max(samples) - before
    print(f"{stored.size_bytes / 2**20:.0f} MiB stored, memory grew by {grown:.1f} MiB ({len(samples)} samples)")
    assert stored.size_bytes > PIECES * len(PIECE)
    assert len(samples) > 20
    assert grown < ALLOWED_MIB
