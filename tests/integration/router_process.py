"""A router as a process of its own, to be killed: arrivals from a counter, PostgreSQL for real, a file for Kafka.

    python -m tests.integration.router_process DATABASE_URL FOLDER NUMBER

Arrivals are taken from the last stored offset, as from Kafka; the offset is stored after they are parked.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.integration.router_kit import PDF, arrival, file_of

from medkg.contracts.cloudevents import Message
from medkg.gate_router.admission import SOURCE
from medkg.gate_router.files import Files
from medkg.gate_router.parking import Parker
from medkg.gate_router.pipelines import Pipelines
from medkg.gate_router.release import Releaser
from medkg.gate_router.settings import RouterSettings
from medkg.runtime.artefacts import Artefacts
from medkg.runtime.blobs import open_blobs
from medkg.runtime.topologies import PinnedTopologies
from medkg.storage.engine import open_engine
from medkg.storage.ledger import CHANNEL
from medkg.storage.ledger_reader import LedgerReader
from medkg.storage.notices import listen
from medkg.storage.parsed_files import all_parsed
from medkg.storage.waits import Waits

BATCH = 10


class FileOutbox:
    """Appends what is published to a file; a line that is there was delivered."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._file.write("\n")  # what was killed before may have left half a line

    async def publish(self, messages: Sequence[Message]) -> dict[int, str]:
        for item in messages:
            headers = {name: value.decode() for name, value in item.headers}
            line = {"topic": item.topic, "key": str(item.key), "id": headers["ce_id"], "type": headers["ce_type"]}
            self._file.write(json.dumps(line) + "\n")
        return {}


async def main(url: str, folder: Path, number: str) -> None:
    """Run until killed."""
    engine = open_engine(url)
    blobs = open_blobs((folder / "blobs").as_uri())
    pinned, waits, outbox = PinnedTopologies(blobs), Waits(engine), FileOutbox(folder / f"published-{number}")
    await pinned.pin(PDF)
    pipelines = Pipelines(pinned, LedgerReader(engine).topology)
    files = Files(engine, Artefacts(blobs, 16_384), SOURCE)
    settings = RouterSettings(sweep_seconds=0.3)
    parsed = partial(all_parsed, engine)
    releaser = Releaser(waits, pipelines, outbox, settings, number, SOURCE, files=files, parsed=parsed)
    parker = Parker(waits, pipelines, number, SOURCE, 100, files, releaser.parked)
    tasks = [
        asyncio.create_task(releaser.run()),
        asyncio.create_task(listen(engine, CHANNEL, releaser.heard)),
        asyncio.create_task(take(parker, outbox, folder / f"offset-{number}", folder / "end")),
    ]
    print("at work", flush=True)
    await asyncio.gather(*tasks)


async def take(parker: Parker, outbox: FileOutbox, offset_file: Path, end_file: Path) -> None:
    """Park arrivals up to what stands in ``end_file``, a batch at a time; this router's own half of them."""
    own = int(offset_file.name.rpartition("-")[2])
    while True:
        offset, end = number_in(offset_file), number_in(end_file)
        numbers = [each for each in range(offset, min(offset + BATCH, end)) if each % 2 == own]
        records = [arrival(PDF, "pdf_gate", f"doc-{each}", file=file_of(str(each))) for each in numbers]
        await outbox.publish(await parker.park(records))
        following = min(offset + BATCH, end)
        if following != offset:
            store(offset_file, following)
        await asyncio.sleep(0.02)


def number_in(path: Path) -> int:
    """The number in a file; 0 while there is none."""
    return int(path.read_text() or 0) if path.exists() else 0


def store(path: Path, number: int) -> None:
    """Write a number so that a kill leaves the old one or the new one."""
    scratch = path.with_suffix(".new")
    scratch.write_text(str(number))
    scratch.replace(path)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
