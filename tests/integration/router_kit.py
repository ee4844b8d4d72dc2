"""Routers on one database, with publishers in the test's hands."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from medkg.contracts import topics
from medkg.contracts.cloudevents import Envelope, Message, message
from medkg.contracts.document import StoredFile
from medkg.contracts.ids import content_digest
from medkg.contracts.messages import Artefact, EventType, StageEvent, StageRequest, encode
from medkg.contracts.topology import Topology
from medkg.gate_router.admission import SOURCE
from medkg.gate_router.files import Files
from medkg.gate_router.parking import Parker
from medkg.gate_router.pipelines import Pipelines
from medkg.gate_router.release import Releaser
from medkg.gate_router.rooms import Rooms
from medkg.gate_router.settings import RouterSettings
from medkg.runtime.artefacts import Artefacts
from medkg.runtime.blobs import BlobStore, open_blobs
from medkg.runtime.records import Record
from medkg.runtime.topologies import PinnedTopologies
from medkg.storage.ledger import CHANNEL
from medkg.storage.ledger_reader import LedgerReader
from medkg.storage.notices import Notice, listen
from medkg.storage.parsed_files import all_parsed
from medkg.storage.waits import Waits

PDF = Topology.model_validate(
    {
        "version": "1.0",
        "name": "pdf",
        "stages": [
            {"name": "ingest", "type": "IngestStage"},
            {"name": "download_pdf", "type": "DownloadStage", "depends_on": ["ingest"]},
            {
                "name": "pdf_gate",
                "type": "Gate",
                "condition": {"ledger_field": "pdf_ir_ready"},
                "resume_stage": "chunk",
                "timeout": "1h",
            },
            {"name": "chunk", "type": "ChunkStage", "depends_on": ["pdf_gate"]},
            {"name": "embed", "type": "EmbedStage", "depends_on": ["chunk"]},
            {"name": "extract", "type": "ExtractStage", "depends_on": ["pdf_gate"]},
            {"name": "kg", "type": "KGStage", "depends_on": ["embed", "extract"], "tolerates": ["embed"]},
        ],
    }
)


GATED = Topology.model_validate(
    {
        "version": "1.0",
        "name": "gated",
        "stages": [
            {"name": "ingest", "type": "IngestStage"},
            {"name": "parse", "type": "ParseStage", "depends_on": ["ingest"]},
            {
                "name": "ready",
                "type": "Gate",
                "condition": {"ledger_field": "pdf_downloaded"},
                "resume_stage": "chunk",
            },
            {"name": "chunk", "type": "ChunkStage", "depends_on": ["ready"]},
        ],
    }
)


def file_of(name: str) -> StoredFile:
    """A file in the blob store, as the download stage describes it."""
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    return StoredFile(f"files/{sha256}", sha256, "application/pdf", 1_000, f"https://example.org/{name}.pdf")


def request_of(item: Message) -> StageRequest:
    return msgspec.json.decode(item.value, type=StageRequest)


def told(item: Message) -> StageEvent:
    return msgspec.json.decode(item.value, type=StageEvent)


def kinds(items: Sequence[Message]) -> list[str]:
    """The types of events, without what they all begin with."""
    found = (dict(item.headers)["ce_type"].decode() for item in items)
    return [each.removeprefix("org.medicalkg.").removeprefix("orchestration.") for each in found]


@dataclass
class Outbox:
    """What was published by all routers, in order."""

    published: list[Message] = field(default_factory=list)

    async def publish(self, messages: Sequence[Message]) -> dict[int, str]:
        await asyncio.sleep(0)
        self.published += messages
        return {}


@dataclass
class RouterUnderTest:
    """One router with everything it is made of."""

    engine: AsyncEngine
    waits: Waits
    blobs: BlobStore
    pinned: PinnedTopologies
    parker: Parker
    releaser: Releaser
    outbox: Outbox

    async def arrive(
        self,
        topology: Topology,
        stage: str,
        doc: str,
        *,
        job: str = "job",
        tenant: str = "clinic",
        file: StoredFile | None = None,
        is_pinned: bool = True,
        **fields: Any,
    ) -> None:
        """A request comes to the gate topic."""
        if is_pinned:
            await self.pinned.pin(topology)
        record = arrival(topology, stage, doc, job=job, tenant=tenant, file=file, **fields)
        self.outbox.published += await self.parker.park([record])

    async def look(self) -> None:
        """Release all that is due."""
        while await self.releaser.release_once():
            pass

    async def react(self) -> None:
        """Do what was heard of."""
        await self.releaser._react(self.releaser.changes.take())

    def hear(self, *documents: tuple[str, str]) -> None:
        self.releaser.heard(Notice(documents=documents))

    def sent(self, topic: str) -> list[Message]:
        return [item for item in self.outbox.published if item.topic == topic]

    def bound(self, bound: int, *, unread: int) -> None:
        """Topics have this bound, and so many unread messages."""

        async def lags(names: Sequence[str]) -> dict[str, int]:
            return dict.fromkeys(names, unread)

        self.releaser.rooms = Rooms(lags, bound)

    def lose(self, topology: Topology) -> None:
        """Nobody has this topology any more."""

        async def nowhere(_: str) -> None:
            return None

        fresh = PinnedTopologies(_Without(self.blobs, topology.digest))
        self.releaser.pinned = Pipelines(fresh, nowhere)

    async def now_ms(self) -> int:
        return int(time.time() * 1_000)

    @asynccontextmanager
    async def running(self, *, is_deaf: bool = False) -> AsyncIterator[None]:
        """The loop of the router at work, with an ear for the ledger or without."""
        tasks = [asyncio.create_task(self.releaser.run())]
        if not is_deaf:
            tasks.append(asyncio.create_task(listen(self.engine, CHANNEL, self.releaser.heard)))
        await asyncio.sleep(0.1)  # it listens, and has looked once
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.002)


class _Without:
    """A blob store that has lost one topology."""

    def __init__(self, blobs: BlobStore, digest: str) -> None:
        self._blobs = blobs
        self._lost = f"topologies/{digest}.json"

    async def get(self, key: str) -> bytes | None:
        return None if key == self._lost else await self._blobs.get(key)

    async def put(self, key: str, data: bytes) -> None:
        await self._blobs.put(key, data)


def arrival(
    topology: Topology,
    stage: str,
    doc: str,
    *,
    job: str = "job",
    tenant: str = "clinic",
    came_from: str = "before",
    file: StoredFile | None = None,
    **fields: Any,
) -> Record:
    """A record of the gate topic."""
    artefacts: dict[str, Artefact] = fields.pop("artefacts", {})
    if file is not None:
        data = msgspec.json.encode(file)
        artefacts = artefacts | {"file": Artefact("file", content_digest(data), len(data), inline=msgspec.Raw(data))}
    request = StageRequest(
        job_id=job,
        tenant_id=tenant,
        doc_id=doc,
        stage=stage,
        pipeline=topology.ref,
        revision=7,
        arrived_from=came_from,
        artefacts=artefacts,
        **fields,
    )
    envelope = Envelope(
        id=f"request-{doc}-{stage}-{came_from}",
        type=EventType.STAGE_REQUESTED,
        source="medkg/test",
        time="2026-01-02T03:04:05.000Z",
        partitionkey=doc,
        correlationid=job,
    )
    item = message(topics.GATE, envelope, encode(request))
    return Record(topics.GATE, 0, 0, doc.encode(), item.value, item.headers)


@asynccontextmanager
async def routers(engine: AsyncEngine, count: int, **settings: Any) -> AsyncIterator[list[RouterUnderTest]]:
    """So many routers on one database and one blob store, publishing to one outbox."""
    blobs, outbox = open_blobs("memory:"), Outbox()
    made = []
    for number in range(count):
        pinned, waits = PinnedTopologies(blobs), Waits(engine)
        pipelines = Pipelines(pinned, LedgerReader(engine).topology)
        files = Files(engine, Artefacts(blobs, 16_384), SOURCE)
        releaser = Releaser(
            waits,
            pipelines,
            outbox,
            RouterSettings(**settings),
            f"router-{number}",
            SOURCE,
            files=files,
            parsed=partial(all_parsed, engine),
        )
        parker = Parker(waits, pipelines, f"router-{number}", SOURCE, 100, files, releaser.parked)
        made.append(RouterUnderTest(engine, waits, blobs, pinned, parker, releaser, outbox))
    yield made
