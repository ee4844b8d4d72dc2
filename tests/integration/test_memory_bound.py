"""How much memory a stage's process takes for large documents that come by claim-check: measured."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.servers.tied import start_tied

from medkg.contracts import topics
from medkg.contracts.cloudevents import Envelope, Message, message
from medkg.contracts.document import Block, Document, Provenance, Section
from medkg.contracts.ids import content_digest
from medkg.contracts.messages import Artefact, EventType, PipelineRef, StageRequest, encode
from medkg.contracts.stages import StageType, encode_artefact
from medkg.contracts.topology import Topology
from medkg.local.embedded_broker import embedded_broker
from medkg.runtime.blobs import open_blobs
from medkg.runtime.broker import Publisher, ensure_topics
from medkg.runtime.broker.reading import TopicReader
from medkg.runtime.pinned_topologies import PinnedTopologies
from medkg.runtime.serving import ALL_TOPICS, COMPACTED_TOPICS
from medkg.runtime.settings import KafkaSettings

MIB = 1 << 20
DOCUMENTS = 4
SIZE = 50_000_000
OPEN_BYTES = 2 * SIZE + SIZE // 2  # two at once
SOFT_BYTES = 200 * MIB
ALLOWED = 3 * OPEN_BYTES  # the bytes as they lie in the store, what they are decoded to, and what the stage makes of it
WORDS = "Patients received metformin or placebo for twelve weeks, and pain was measured on every visit. "

STAGES = [
    {"name": "ingest", "type": "IngestStage"},
    {"name": "parse", "type": "ParseStage", "depends_on": ["ingest"]},
    {"name": "ir_validation", "type": "ValidateStage", "depends_on": ["parse"]},
]


def large_document() -> bytes:
    """About 50 MB, in paragraphs of an ordinary length."""
    text = WORDS * 20
    blocks = tuple(Block(f"b{number}", f"{number} {text}", Provenance("r")) for number in range(SIZE // len(text)))
    return encode_artefact(Document("", "files", "large", "text", "Large", (Section("s", ("Body",), blocks),)))


def asked(number: int, pipeline: PipelineRef, artefact: Artefact) -> Message:
    request = StageRequest(
        job_id="job-1",
        tenant_id="clinic",
        doc_id=f"doc-{number}",
        stage="ir_validation",
        pipeline=pipeline,
        revision=1,
        artefacts={"document": artefact},
    )
    envelope = Envelope(
        id=f"request-{number}",
        type=EventType.STAGE_REQUESTED,
        source="medkg/test",
        time="2026-01-02T03:04:05.000Z",
        partitionkey=request.doc_id,
        correlationid="job-1",
    )
    return message(StageType.VALIDATE.topic, envelope, encode(request))


class Log:
    """What a process has logged so far."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def text(self) -> str:
        return self.path.read_text()


async def until(condition: Callable[[], bool], what: str, log: Log, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}:\n{log.text[-4000:]}")
        await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_stage_stays_within_its_memory_with_50_mb_documents_and_its_window_shrinks_and_recovers(
    tmp_path: Path,
) -> None:
    log, data_dir = Log(tmp_path / "validate.log"), tmp_path / "data"
    blobs = open_blobs((data_dir / "blobs").as_uri())
    topology = Topology.model_validate({"version": "1.0", "name": "large", "stages": STAGES})
    pipeline = await PinnedTopologies(blobs).pin(topology)
    data = large_document()
    artefact = Artefact("document", content_digest(data), len(data), key="artefacts/clinic/large")
    await blobs.put(artefact.key, data)
    with embedded_broker() as bootstrap:
        kafka = KafkaSettings(bootstrap=bootstrap, is_in_process=True)
        await ensure_topics(kafka, ALL_TOPICS, compacted=COMPACTED_TOPICS)
        environment = {
            "MEDKG_KAFKA_BOOTSTRAP": bootstrap,
            "MEDKG_KAFKA_IS_IN_PROCESS": "true",
            "MEDKG_DATA_DIR": str(data_dir),
            "MEDKG_OPEN_BYTES": str(OPEN_BYTES),
            "MEDKG_MEMORY_SOFT_BYTES": str(SOFT_BYTES),
        }
        process = start_tied([sys.executable, "-m", "medkg.validate"], log=log.path, env=os.environ | environment)
        try:
            await measured(process.pid, kafka, [asked(n, pipeline, artefact) for n in range(DOCUMENTS)], log)
        finally:
            process.kill()
            process.wait(timeout=10)


async def measured(pid: int, kafka: KafkaSettings, requests: list[Message], log: Log) -> None:
    watched, samples = psutil.Process(pid), list[int]()

    async def watch() -> None:
        while True:
            samples.append(watched.memory_info().rss)
            await asyncio.sleep(0.01)

    await until(lambda: "serving validate" in log.text, "the service to start", log)
    idle = watched.memory_info().rss
    watching = asyncio.create_task(watch())
    began = time.monotonic()
    assert not await Publisher(kafka).publish(requests)
    ended = await outcomes(kafka, len(requests), log)
    took = time.monotonic() - began
    await until(lambda: "the window grows back" in log.text, "the window to grow back", log)
    watching.cancel()
    peak, after = max(samples), watched.memory_info().rss
    print(
        f"{len(requests)} documents of {SIZE / 1e6:.0f} MB in {took:.1f} s: {idle / MIB:.0f} MiB at rest, at most "
        f"{peak / MIB:.0f} MiB, {after / MIB:.0f} MiB afterwards ({OPEN_BYTES / MIB:.0f} MiB of inputs open at once)"
    )
    print("\n".join(line for line in log.text.splitlines() if "soft limit" in line))
    assert ended == [EventType.STAGE_COMPLETED] * len(requests)
    assert "the window shrinks" in log.text
    assert peak - idle < ALLOWED


async def outcomes(kafka: KafkaSettings, count: int, log: Log) -> list[str]:
    """How the documents ended, as the lifecycle events tell it."""
    found, seen = list[str](), dict[int, int]()
    deadline = time.monotonic() + 30
    async with TopicReader(kafka) as reader:
        while len(found) < count:
            if time.monotonic() > deadline:
                pytest.fail(f"only {found} after 30 s:\n{log.text[-4000:]}")
            async for records in reader.whole(topics.LIFECYCLE, seen):
                kinds = [dict(record.headers)["ce_type"].decode() for record in records]
                found += [kind for kind in kinds if kind in (EventType.STAGE_COMPLETED, EventType.STAGE_FAILED)]
            await asyncio.sleep(0.05)
    return found
