"""What the tests of a stage's host need: a topology, stages that do as they are told, a handler around them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from medkg.contracts.cloudevents import Envelope, Message, message
from medkg.contracts.context import StageContext
from medkg.contracts.document import Document, RawPayload
from medkg.contracts.ids import content_digest
from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.messages import Artefact, EventType, StageEvent, StageRequest, encode
from medkg.contracts.stages import STAGE_CONTRACTS, StageType, encode_artefact
from medkg.contracts.topology import Backoff, Policies, Policy, Topology
from medkg.runtime.artefacts import Artefacts
from medkg.runtime.blobs import BlobStore, open_blobs
from medkg.runtime.memory import ByteBudget
from medkg.runtime.metrics import Metrics
from medkg.runtime.records import Record
from medkg.runtime.registry import OpenStage, OpenStages
from medkg.runtime.resilience.failure_limits import FailureLimits, FailureRule
from medkg.runtime.resilience.guards import Guard, Guards
from medkg.runtime.resilience.threads import StageThreads
from medkg.runtime.stage_handler import StageHandler, StageServices
from medkg.runtime.topologies import PinnedTopologies

STAGES: list[dict[str, Any]] = [
    {"name": "ingest", "type": "IngestStage"},
    {"name": "parse", "type": "ParseStage", "depends_on": ["ingest"]},
    {"name": "chunk", "type": "ChunkStage", "depends_on": ["parse"]},
]
PATIENT = Policy(attempts=3, backoff=Backoff.EXPONENTIAL, initial_seconds=1, max_seconds=3, jitter_seconds=0)


def topology(stages: list[dict[str, Any]] | None = None, **fields: Any) -> Topology:
    given = {"version": "1.0", "name": "test", "stages": STAGES if stages is None else stages} | fields
    return Topology.model_validate(given)


class NoOptions(Options):
    pass


@dataclass
class Told:
    """A stage that does what it is told, and remembers what it was given. Errors in ``raises`` come first, in order."""

    does: Callable[[StageContext, Any], Any]
    raises: list[BaseException] = field(default_factory=list)
    calls: list[tuple[StageContext, Any]] = field(default_factory=list)

    async def execute(self, ctx: StageContext, value: Any) -> Any:
        self.calls.append((ctx, value))
        if self.raises:
            raise self.raises.pop(0)
        return self.does(ctx, value)


@dataclass
class ToldOnAThread(Told):
    """The same as a plain function."""

    def execute(self, ctx: StageContext, value: Any) -> Any:
        self.calls.append((ctx, value))
        if self.raises:
            raise self.raises.pop(0)
        return self.does(ctx, value)


def document_of(ctx: StageContext, payload: RawPayload) -> Document:
    return Document(ctx.doc_id, payload.source, payload.source_id, "text", payload.text, (), metadata={"words": 3})


def implementation(stage_type: StageType, stage: Any, **fields: Any) -> StageImplementation:
    @asynccontextmanager
    async def opened(options: Options, host: Host) -> AsyncIterator[Any]:
        yield stage

    given: dict[str, Any] = {"name": "told", "version": "1", "options": NoOptions, "open": opened, "is_default": True}
    return StageImplementation(stage_type=stage_type, **(given | fields))


def open_stage(stage: Any, stage_type: StageType = StageType.PARSE) -> OpenStage:
    made = implementation(stage_type, stage)
    is_async = asyncio.iscoroutinefunction(stage.execute)
    return OpenStage(made, (stage_type.value, made.name, made.version), "{}", stage, is_async)


def guard(policy: Policy, **fields: Any) -> Guard:
    """The guard of a stage under a policy, in a service of its own."""
    guards = Guards("test", "worker-1", Metrics().resilience("test"), **fields)
    return guards.of_stage(open_stage(Told(lambda ctx, value: value)), "default", policy)


def payload(text: str = "Aspirin in the elderly", source_id: str = "a.txt", **fields: Any) -> RawPayload:
    return RawPayload("files", source_id, "text/plain", text=text, **fields)


def inline(kind: str, value: object) -> Artefact:
    data = encode_artefact(value)
    return Artefact(kind, content_digest(data), len(data), inline=msgspec.Raw(data))


def request(pinned: Topology, stage: str = "parse", **fields: Any) -> StageRequest:
    given: dict[str, Any] = {
        "job_id": "job-1",
        "tenant_id": "clinic",
        "doc_id": "doc-1",
        "stage": stage,
        "pipeline": pinned.ref,
        "revision": 1_700_000_000_000_000,
        "artefacts": {"payload": inline("payload", payload())},
    }
    return StageRequest(**(given | fields))


def record(asked: StageRequest | bytes, *, offset: int = 7, topic: str = "medkg.parse.v1", **fields: Any) -> Record:
    envelope = Envelope(
        id="request-1",
        type=EventType.STAGE_REQUESTED,
        source="medkg/test",
        time="2026-01-02T03:04:05.000Z",
        partitionkey="doc-1",
        correlationid="job-1",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    value = asked if isinstance(asked, bytes) else encode(asked)
    published = message(topic, envelope, value)
    given: dict[str, Any] = {"key": b"doc-1", "value": value, "headers": published.headers}
    return Record(topic, 2, offset, **(given | fields))


@dataclass
class Bench:
    """A handler with everything around it in the test's hands."""

    handler: StageHandler
    stage: Any
    blobs: BlobStore
    said: list[Message]
    metrics: Metrics

    async def handle(self, *records: Record) -> list[Message]:
        return await self.handler.handle(list(records))


@asynccontextmanager
async def bench(
    stage_type: StageType,
    stage: Any,
    pinned: Topology,
    *,
    policy: Policy = PATIENT,
    inline_bytes: int = 16_384,
    blobs: BlobStore | None = None,
    limits: FailureRule = FailureRule(),  # noqa: B008  frozen
    **fields: Any,
) -> AsyncIterator[Bench]:
    store = open_blobs("memory:") if blobs is None else blobs
    metrics = Metrics()
    said: list[Message] = []
    topologies = PinnedTopologies(store)
    await topologies.pin(pinned)
    made = implementation(stage_type, stage, **fields)
    resilience = metrics.resilience(stage_type.service)
    with closing(StageThreads(2, "test")) as threads, closing(StageThreads(1, "python")) as one_thread:
        async with OpenStages({made.name: made}, Host(Path("/nowhere"), store)) as stages:
            services = StageServices(
                stages=stages,
                topologies=topologies,
                policies=lambda: Policies(policies={"default": policy}),
                artefacts=Artefacts(store, inline_bytes),
                budget=ByteBudget(1_000_000),
                threads=threads,
                one_thread=one_thread,
                guards=Guards(stage_type.service, "worker-1", resilience),
                limits=FailureLimits(limits, stage_type.service),
                metrics=metrics.stages,
                say=said.append,
            )
            yield Bench(StageHandler(stage_type, "worker-1", services), stage, store, said, metrics)


def header(item: Message, name: str) -> str:
    return next((value.decode() for key, value in item.headers if key == name), "")


def kind_of(item: Message) -> str:
    return header(item, "ce_type").removeprefix("org.medicalkg.").removeprefix("orchestration.")


def event(item: Message) -> StageEvent:
    return msgspec.json.decode(item.value, type=StageEvent)


def asked(item: Message) -> StageRequest:
    return msgspec.json.decode(item.value, type=StageRequest)


def without_time(item: Message) -> tuple[str, object, bytes, list[tuple[str, bytes]]]:
    return item.topic, item.key, item.value, [pair for pair in item.headers if pair[0] != "ce_time"]


def reads(stage_type: StageType) -> str:
    return STAGE_CONTRACTS[stage_type].consumes


def counted(metrics: Metrics, name: str, labels: Mapping[str, str]) -> float:
    return metrics.registry.get_sample_value(name, dict(labels)) or 0.0
