"""Routers that are killed with -9 while they park and release: nothing is lost, and nothing happens twice in effect."""

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.integration.router_kit import file_of

from medkg.storage.engine import migrate, open_engine
from medkg.storage.parsed_files import ParsedFile, file_parsed

pytestmark = pytest.mark.postgres

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = 120
KILLS = int(os.environ.get("MEDKG_ROUTER_KILLS", "4"))


async def start(url: str, folder: Path, number: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.router_process",
        url,
        str(folder),
        str(number),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"at work\n"
    return process


def published(folder: Path) -> list[dict[str, str]]:
    """What was delivered. The last line of a killed process may be half written: that was not."""
    lines = []
    for path in folder.glob("published-*"):
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    return lines


def released(folder: Path) -> Counter[str]:
    """How many different requests each document brought to the topic after its gate."""
    return Counter(
        key for key, _ in {(each["key"], each["id"]) for each in published(folder) if each["topic"] == "medkg.chunk.v1"}
    )


async def test_killed_routers_release_every_document_exactly_once_in_effect(database_url: str, tmp_path: Path) -> None:
    chance = random.Random(11)
    engine = open_engine(database_url)
    await migrate(engine)
    end = tmp_path / "end"
    end.write_text("0")
    processes = [await start(database_url, tmp_path, number) for number in range(2)]

    async def tell() -> None:
        """Signals for documents that have come, that come later, and that were told of before."""
        numbers = [number for number in range(DOCUMENTS) for _ in range(1 + number % 2)]
        chance.shuffle(numbers)
        for place, number in enumerate(numbers):
            end.write_text(str(min(DOCUMENTS, place)))
            sha256 = file_of(str(number)).sha256
            await file_parsed(
                engine,
                ParsedFile("clinic", sha256, "m", "1", document_key="k", document_sha256="d", document_bytes=1),
            )
            await asyncio.sleep(0.02)
        end.write_text(str(DOCUMENTS))

    telling = asyncio.create_task(tell())
    try:
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.1, 0.8))
            victim = chance.randrange(2)
            processes[victim].send_signal(signal.SIGKILL)
            await processes[victim].wait()
            processes[victim] = await start(database_url, tmp_path, victim)
        await telling
        async with asyncio.timeout(60):
            while len(released(tmp_path)) < DOCUMENTS:
                await asyncio.sleep(0.1)
    finally:
        telling.cancel()
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await engine.dispose()
    assert released(tmp_path) == {f"doc-{number}": 1 for number in range(DOCUMENTS)}
    again = len([1 for each in published(tmp_path) if each["topic"] == "medkg.chunk.v1"]) - DOCUMENTS
    print(f"\n{KILLS} kills, {DOCUMENTS} documents: all released, {again} requests published again under the same id")
