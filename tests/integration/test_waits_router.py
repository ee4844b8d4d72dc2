"""The gate-router on a real PostgreSQL: what it lets in, what it parks, and what it says when it lets go."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.integration.waits_kit import add_document, rows, run, waiting

from medkg.contracts import topics
from medkg.contracts.cloudevents import Envelope, Message, message, read_envelope
from medkg.contracts.document import AdapterRequest
from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.ids import content_digest, job_id_of
from medkg.contracts.messages import (
    Artefact,
    DeadLetter,
    EventType,
    JobAdmitted,
    JobRejected,
    StageEvent,
    StageRequest,
    encode,
)
from medkg.contracts.topology import Topology
from medkg.gate_router.admission import SOURCE, Admitter
from medkg.gate_router.parking import Parker
from medkg.gate_router.release import Releaser
from medkg.gate_router.settings import RouterSettings
from medkg.runtime.blobs import BlobStore, open_blobs
from medkg.runtime.records import Record
from medkg.runtime.topologies import PinnedTopologies, TopologyLoader
from medkg.storage.engine import migrate, open_engine
from medkg.storage.waits import Waits

pytestmark = pytest.mark.postgres

RESILIENCE = "policies: {default: {}}\n"
LINE = """
version: "{version}"
name: {name}
applicable_sources: [{sources}]
stages:
  - {{name: ingest, type: IngestStage}}
  - {{name: parse, type: ParseStage, depends_on: [ingest]}}
"""


@dataclass
class FakePublisher:
    """Remembers what it published; refuses what ``refuses`` says, and is away for the first ``outages`` calls."""

    published: list[Message] = field(default_factory=list)
    outages: int = 0
    refuses: str = ""

    async def publish(self, messages: Sequence[Message]) -> dict[int, str]:
        if self.outages:
            self.outages -= 1
            raise ResourceUnavailableError("publishing: no broker")
        bad = {at: "too large" for at, item in enumerate(messages) if self.refuses and item.topic == self.refuses}
        self.published += [item for at, item in enumerate(messages) if at not in bad]
        return bad

    def take(self) -> list[Message]:
        taken, self.published = self.published, []
        return taken


@dataclass
class Router:
    """All parts of a router, with a publisher in the test's hands."""

    engine: AsyncEngine
    folder: Path
    blobs: BlobStore
    pinned: PinnedTopologies
    publisher: FakePublisher
    admitter: Admitter
    parker: Parker
    releaser: Releaser


@pytest.fixture
async def router(database_url: str, tmp_path: Path) -> AsyncIterator[Router]:
    engine = open_engine(database_url)
    await migrate(engine)
    folder = tmp_path / "topologies"
    folder.mkdir()
    (folder / "resilience.yaml").write_text(RESILIENCE)
    (folder / "auto.yaml").write_text(LINE.format(version="1.0", name="auto", sources="files"))
    (folder / "trials.yaml").write_text(LINE.format(version="1.0", name="trials", sources="clinicaltrials"))
    blobs, waits, publisher = open_blobs("memory:"), Waits(engine), FakePublisher()
    pinned = PinnedTopologies(blobs)
    settings = RouterSettings(tenant_documents=100, page_documents=10, sweep_seconds=0.05, forget_seconds=0.05)
    loader = TopologyLoader(folder, check_seconds=0)
    clock = iter(range(1_000, 2_000))
    yield Router(
        engine,
        folder,
        blobs,
        pinned,
        publisher,
        Admitter(waits, loader, pinned, settings.page_documents, clock=lambda: next(clock)),
        Parker(waits, pinned, "router-1", SOURCE, settings.page_documents),
        Releaser(waits, pinned, publisher, settings, "router-1", SOURCE),
    )
    await engine.dispose()


def job_event(event_id: str = "e-1", *, offset: int = 0, structured: bool = False, **fields: Any) -> Record:
    data = {"tenant_id": "clinic", "source": "files", "selection": {"paths": ["/data"]}} | fields
    attributes = {"specversion": "1.0", "id": event_id, "source": "test", "type": EventType.JOB_SUBMITTED.value}
    if structured:
        value = json.dumps(attributes | {"data": data}).encode()
        return Record(topics.JOBS, 0, offset, None, value, [("content-type", b"application/cloudevents+json")])
    headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
    return Record(topics.JOBS, 0, offset, b"k", json.dumps(data).encode(), headers)


def header(item: Message, name: str) -> str:
    return next((value.decode() for key, value in item.headers if key == name), "")


def kind_of(item: Message) -> str:
    return header(item, "ce_type").removeprefix("org.medicalkg.").removeprefix("orchestration.")


def without_time(item: Message) -> tuple[str, object, bytes, list[tuple[str, bytes]]]:
    return item.topic, item.key, item.value, [pair for pair in item.headers if pair[0] != "ce_time"]


def admitted(item: Message) -> JobAdmitted:
    assert (item.topic, kind_of(item)) == (topics.LIFECYCLE, "job.admitted")
    return msgspec.json.decode(item.value, type=JobAdmitted)


def rejected(item: Message) -> JobRejected:
    assert (item.topic, kind_of(item)) == (topics.LIFECYCLE, "job.rejected")
    read_envelope(item.headers)  # the ledger can read it
    return msgspec.json.decode(item.value, type=JobRejected)


def asked(item: Message) -> StageRequest:
    assert kind_of(item) == "stage.requested"
    return msgspec.json.decode(item.value, type=StageRequest)


def told(item: Message) -> StageEvent:
    assert item.topic == topics.LIFECYCLE
    return msgspec.json.decode(item.value, type=StageEvent)


# admission


async def test_a_job_is_pinned_announced_and_its_first_page_waits_for_room(router: Router) -> None:
    (announced,) = await router.admitter.admit([job_event()])
    about = admitted(announced)
    job_id = job_id_of("test", "e-1")
    assert (about.job_id, about.tenant_id, about.source, about.pipeline.name) == (job_id, "clinic", "files", "auto")
    assert content_digest(about.topology.encode()) == about.pipeline.digest
    assert (announced.key, header(announced, "ce_causationid")) == (job_id, "e-1")
    assert (await PinnedTopologies(router.blobs).get(about.pipeline.digest)).name == "auto"

    assert await router.releaser.release_once() == 1
    (page,) = router.publisher.take()
    request = asked(page)
    assert (page.topic, page.key) == ("medkg.ingest.v1", job_id)
    assert (request.stage, request.page, request.revision, request.pipeline) == (
        "ingest",
        0,
        about.revision,
        about.pipeline,
    )
    wanted = request.artefacts["request"].inline
    assert not isinstance(wanted, msgspec.UnsetType)
    assert msgspec.json.decode(wanted, type=AdapterRequest) == AdapterRequest("files", {"paths": ["/data"]}, limit=10)


async def test_the_same_event_twice_is_one_job(router: Router) -> None:
    first, again = await router.admitter.admit([job_event(offset=1), job_event(offset=2)])
    (later,) = await router.admitter.admit([job_event(offset=1)])
    assert without_time(first) == without_time(again) == without_time(later)
    assert await router.releaser.release_once() == 1
    await router.admitter.admit([job_event()])
    assert await router.releaser.release_once() == 0


async def test_a_job_stays_on_the_topology_that_it_began_with(router: Router) -> None:
    (first,) = await router.admitter.admit([job_event()])
    (router.folder / "auto.yaml").write_text(LINE.format(version="2.0", name="auto", sources="files"))
    again, new = await router.admitter.admit([job_event(), job_event("e-2")])
    assert without_time(again) == without_time(first)
    assert (admitted(again).pipeline.version, admitted(new).pipeline.version) == ("1.0", "2.0")
    await router.releaser.release_once()
    assert {asked(item).pipeline.version for item in router.publisher.take()} == {"1.0", "2.0"}


async def test_the_page_of_a_job_says_the_same_whenever_it_is_released(router: Router) -> None:
    await router.admitter.admit([job_event()])
    await router.releaser.release_once()
    first = router.publisher.take()
    await run(router.engine, "UPDATE waits SET state = 'waiting'")
    await router.releaser.release_once()
    assert [without_time(item) for item in router.publisher.take()] == [without_time(item) for item in first]


@pytest.mark.parametrize(
    ("fields", "pointer", "says"),
    [
        ({"pipeline": "no-such"}, "/pipeline", "there is no no-such.yaml"),
        ({"pipeline": "auto", "pipeline_version": "9.9"}, "/pipeline", "no version '9.9'"),
        ({"pipeline": "trials"}, "/pipeline", "trials does not read 'files'"),
        ({"source": "no-such"}, "/source", "unknown source 'no-such'"),
        ({"tenant_id": "No!"}, "/tenant_id", ""),
        ({"selection": {"paths": []}}, "/selection/paths", ""),
    ],
)
@pytest.mark.parametrize("structured", [False, True])
async def test_a_job_that_cannot_be_is_rejected_with_the_place_of_its_fault(
    router: Router, fields: dict[str, Any], pointer: str, says: str, structured: bool
) -> None:
    wrong = job_event(offset=17, structured=structured, **fields)
    refusal, taken = await router.admitter.admit([wrong, job_event("e-2")])
    about = rejected(refusal)
    at = "/data" if structured else ""
    assert [fault.pointer for fault in about.faults] == [at + pointer]
    assert says in about.faults[0].message
    assert about.position is not None
    assert about.position.offset == 17
    assert admitted(taken).job_id == job_id_of("test", "e-2")
    assert await waiting(router.engine) != set()
    assert len(await waiting(router.engine)) == 1


async def test_a_source_that_no_pipeline_takes_is_rejected(router: Router) -> None:
    (router.folder / "trials.yaml").unlink()
    wrong = job_event(source="clinicaltrials", selection={"ids": ["NCT00000001"]})
    about = rejected((await router.admitter.admit([wrong]))[0])
    assert [fault.pointer for fault in about.faults] == ["/source"]
    assert "none has the source 'clinicaltrials'" in about.faults[0].message


async def test_another_tenants_job_cannot_be_touched_by_its_id(router: Router) -> None:
    (first,) = await router.admitter.admit([job_event()])
    theirs, same = await router.admitter.admit(
        [job_event(offset=5, tenant_id="intruder", selection={"paths": ["/theirs"]}), job_event(offset=6)]
    )
    kinds = {kind_of(item): item for item in (theirs, same)}
    assert rejected(kinds["job.rejected"]).job_id != admitted(first).job_id
    assert without_time(kinds["job.admitted"]) == without_time(first)
    # not even when the job has ended and its waits are forgotten
    await run(router.engine, "DELETE FROM waits")
    await router.admitter.admit([job_event(tenant_id="intruder", selection={"paths": ["/theirs"]})])
    assert await waiting(router.engine) == set()


async def test_hostile_events_are_rejected_so_that_the_ledger_can_read_it(router: Router) -> None:
    hostile = [
        Record(topics.JOBS, 0, 1, b"\xff", b"\xff\x00", []),
        Record(topics.JOBS, 0, 2, None, b"", [("ce_id", None)]),  # type: ignore[list-item]  # Kafka has such headers
        job_event("line\nbreak", offset=3),
        job_event("x" * 5_000, offset=4),
        job_event("\ud800", offset=5, structured=True),
        job_event("e", offset=6, selection={"paths": ["\u0000"] * 5_000}),
    ]
    answers = await router.admitter.admit(hostile)
    assert len(answers) == len(hostile)
    for answer in answers:
        about = rejected(answer)
        assert about.faults
        assert len(answer.value) < 200_000


# parking and releasing

BRANCHED = Topology.model_validate(
    {
        "version": "1.0",
        "name": "branched",
        "stages": [
            {"name": "ingest", "type": "IngestStage"},
            {"name": "parse", "type": "ParseStage", "depends_on": ["ingest"]},
            {
                "name": "ready",
                "type": "Gate",
                "depends_on": ["parse"],
                "condition": {"ledger_field": "pdf_ir_ready", "equals": True},
                "resume_stage": "chunk",
                "timeout": "1h",
            },
            {"name": "chunk", "type": "ChunkStage", "depends_on": ["ready"]},
            {"name": "embed", "type": "EmbedStage", "depends_on": ["chunk"]},
            {"name": "extract", "type": "ExtractStage", "depends_on": ["parse"]},
            {
                "name": "kg",
                "type": "KGStage",
                "depends_on": ["embed", "extract"],
                "when": {"field": "keep", "not_equals": False},
            },
        ],
    }
)


def with_gate(**fields: Any) -> Topology:
    stages = BRANCHED.model_dump(mode="json", by_alias=True, exclude_none=True)["stages"]
    stages[2] |= fields
    return Topology.model_validate({"version": "1.0", "name": "branched", "stages": stages})


def inline(kind: str, data: bytes = b"[]", **fields: Any) -> Artefact:
    return Artefact(kind, content_digest(data), len(data), inline=msgspec.Raw(data), **fields)


def arrival(topology: Topology, stage: str, came_from: str, *, offset: int = 3, **fields: Any) -> Record:
    given: dict[str, Any] = {"doc_id": "doc-1", "artefacts": {"document": inline("document", b"{}")}} | fields
    request = StageRequest(
        job_id="job",
        tenant_id="clinic",
        stage=stage,
        pipeline=topology.ref,
        revision=7,
        arrived_from=came_from,
        **given,
    )
    envelope = Envelope(
        id=f"request-{came_from}",
        type=EventType.STAGE_REQUESTED,
        source="medkg/test",
        time="2026-01-02T03:04:05.000Z",
        partitionkey="doc-1",
        correlationid="job",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    item = message(topics.GATE, envelope, encode(request))
    return Record(topics.GATE, 1, offset, b"doc-1", item.value, item.headers)


async def test_a_document_waits_at_its_gate_and_goes_on_where_it_says(router: Router) -> None:
    await router.pinned.pin(BRANCHED)
    (started,) = await router.parker.park([arrival(BRANCHED, "ready", "parse")])
    assert (kind_of(started), told(started).stage, told(started).stage_type) == ("stage.started", "ready", "Gate")
    assert await router.releaser.release_once() == 0
    await add_document(router.engine, "doc-1")
    await run(router.engine, "UPDATE documents SET pdf_ir_ready = true")
    assert await router.releaser.release_once() == 1
    following, completed = router.publisher.take()
    assert (following.topic, asked(following).stage, asked(following).arrived_from) == (
        "medkg.chunk.v1",
        "chunk",
        "ready",
    )
    assert header(following, "ce_causationid") == "request-parse"
    assert header(following, "ce_traceparent")[3:35] == "0af7651916cd43dd8448eb211c80319c"
    assert (kind_of(completed), told(completed).next, told(completed).reused) == ("stage.completed", ("chunk",), True)


@pytest.mark.parametrize("policy", ["fail", "skip", "release"])
async def test_a_gate_that_runs_out_of_patience_does_as_its_topology_says(router: Router, policy: str) -> None:
    topology = with_gate(on_timeout=policy)
    await router.pinned.pin(topology)
    taken = arrival(topology, "ready", "parse", offset=33)
    await router.parker.park([taken])
    await run(router.engine, "UPDATE waits SET due_at = now() - interval '1 second'")
    assert await router.releaser.release_once() == 1
    sent = router.publisher.take()
    if policy == "release":
        assert [kind_of(item) for item in sent] == ["stage.requested", "stage.completed"]
        assert asked(sent[0]).stage == "chunk"
    elif policy == "skip":
        (ended,) = sent
        assert (kind_of(ended), told(ended).finished_leaves, told(ended).leaves) == ("stage.completed", ("kg",), 1)
    else:
        dead, failed = sent
        about = msgspec.json.decode(header(dead, "medkg_dead_letter"), type=DeadLetter)
        assert (dead.topic, dead.key, dead.value) == (topics.DEAD_LETTER, b"doc-1", taken.value)
        assert dead.headers[:-1] == taken.headers
        assert (about.failure.code, about.position.offset) == ("gate_condition_unmet", 33)
        assert "pdf_ir_ready was not True by" in about.failure.message
        assert told(failed).failure == about.failure


async def test_branches_meet_once_with_what_each_has_made(router: Router) -> None:
    await router.pinned.pin(BRANCHED)
    extract = arrival(
        BRANCHED, "kg", "extract", artefacts={"extraction": inline("extraction", b"{}")}, metadata={"a": 1}
    )
    embed = arrival(BRANCHED, "kg", "embed", artefacts={"embeddings": inline("embeddings", b"{}")}, metadata={"b": 2})
    assert await router.parker.park([extract, extract]) == []
    assert await router.releaser.release_once() == 0
    await router.parker.park([embed])
    assert await router.releaser.release_once() == 2
    (following,) = router.publisher.take()
    request = asked(following)
    assert (following.topic, request.stage, request.arrived_from) == ("medkg.kg.v1", "kg", "extract")
    assert (set(request.artefacts), request.metadata) == ({"extraction"}, {"a": 1, "b": 2})
    await router.parker.park([extract, embed])
    assert await router.releaser.release_once() == 0


async def test_the_order_in_which_branches_come_changes_nothing(router: Router) -> None:
    await router.pinned.pin(BRANCHED)
    sent = []
    for order in (("embed", "extract"), ("extract", "embed")):
        for name in order:
            fields: dict[str, Any] = {
                "artefacts": {"extraction": inline("extraction", b"{}")},
                "metadata": {"last": name},
            }
            await router.parker.park([arrival(BRANCHED, "kg", name, **fields)])
        await router.releaser.release_once()
        sent.append([without_time(item) for item in router.publisher.take()])
        await run(router.engine, "DELETE FROM waits")
    assert sent[0] == sent[1]


async def test_a_join_that_is_passed_over_reports_what_it_skipped_and_finished(router: Router) -> None:
    await router.pinned.pin(BRANCHED)
    for name in ("embed", "extract"):
        await router.parker.park([arrival(BRANCHED, "kg", name, metadata={"keep": False})])
    await router.releaser.release_once()
    (passed,) = router.publisher.take()
    about = told(passed)
    assert (kind_of(passed), about.stage, about.skipped, about.finished_leaves) == (
        "stage.completed",
        "kg",
        ("kg",),
        ("kg",),
    )


@pytest.mark.parametrize("missing", ["nowhere", "chunk", "parse"])
async def test_an_arrival_where_nothing_waits_is_a_dead_letter(router: Router, missing: str) -> None:
    await router.pinned.pin(BRANCHED)
    dead, failed = await router.parker.park([arrival(BRANCHED, missing, "parse")])
    assert "neither a gate nor a join of branched 1.0" in header(dead, "medkg_dead_letter")
    assert kind_of(failed) == "stage.failed"
    assert await waiting(router.engine) == set()


async def test_poison_on_the_gate_topic_becomes_dead_letters_and_stops_nothing(router: Router) -> None:
    await router.pinned.pin(BRANCHED)
    good = arrival(BRANCHED, "ready", "parse")

    def poisoned(value: bytes) -> Record:
        return Record(good.topic, good.partition, good.offset, good.key, value, good.headers)

    poison = [
        poisoned(b""),
        poisoned(b"\xff"),
        poisoned(good.value[:-1] + b',"x":' + b"[" * 100_000),
        poisoned(good.value.replace(b'"doc-1"', b'"doc\\u0000"')),
        poisoned(good.value.replace(b'"job"', b'"\\u0000"')),
        poisoned(good.value.replace(b'"doc_id":"doc-1",', b'"page":99999999999999999999,')),
        Record(good.topic, 0, 0, None, good.value, []),
    ]
    messages = await router.parker.park([*poison, good])
    assert [item.topic for item in messages].count(topics.DEAD_LETTER) == len(poison)
    assert kind_of(messages[-1]) == "stage.started"
    assert len(await waiting(router.engine)) == 1


async def test_what_kafka_refuses_becomes_a_dead_letter_of_its_row_alone(router: Router) -> None:
    await router.pinned.pin(BRANCHED)
    await router.parker.park([arrival(BRANCHED, "ready", "parse", doc_id=name) for name in ("doc-1", "doc-2")])
    for name in ("doc-1", "doc-2"):
        await add_document(router.engine, name)
    await run(router.engine, "UPDATE documents SET pdf_ir_ready = true")
    router.publisher.refuses = "medkg.chunk.v1"
    assert await router.releaser.release_once() == 2
    sent = router.publisher.take()
    dead = [item for item in sent if item.topic == topics.DEAD_LETTER]
    assert len(dead) == 2
    assert "Kafka refuses it: too large" in header(dead[0], "medkg_dead_letter")
    assert await waiting(router.engine) == set()


async def test_a_page_that_kafka_refuses_fails_the_page_and_not_in_silence(router: Router) -> None:
    await router.admitter.admit([job_event()])
    router.publisher.refuses = "medkg.ingest.v1"
    await router.releaser.release_once()
    dead, failed = router.publisher.take()
    assert dead.topic == topics.DEAD_LETTER
    about = told(failed)
    assert (kind_of(failed), about.stage, about.stage_type, about.doc_id) == (
        "stage.failed",
        "ingest",
        "IngestStage",
        "",
    )
    assert header(failed, "ce_subject").endswith("/page-0")


async def test_a_pinned_topology_that_was_altered_fails_its_documents_and_holds_up_no_others(router: Router) -> None:
    await router.pinned.pin(BRANCHED)
    other = with_gate(timeout=5_000)
    await router.pinned.pin(other)
    await router.parker.park(
        [arrival(BRANCHED, "ready", "parse", doc_id="doc-1"), arrival(other, "ready", "parse", doc_id="doc-2")]
    )
    for name in ("doc-1", "doc-2"):
        await add_document(router.engine, name)
    await run(router.engine, "UPDATE documents SET pdf_ir_ready = true")
    await router.blobs.replace(f"topologies/{BRANCHED.digest}.json", b"{}")
    router.releaser.pinned = PinnedTopologies(router.blobs)
    assert await router.releaser.release_once() == 2
    sent = router.publisher.take()
    assert [kind_of(item) for item in sent if item.topic == topics.LIFECYCLE] == ["stage.failed", "stage.completed"]
    assert [asked(item).doc_id for item in sent if item.topic == "medkg.chunk.v1"] == ["doc-2"]


# the loop


async def test_the_releaser_outlives_a_broker_that_is_away_and_loses_nothing(router: Router) -> None:
    router.publisher.outages = 3
    await router.admitter.admit([job_event()])
    task = asyncio.create_task(router.releaser.run())
    async with asyncio.timeout(10):
        while await waiting(router.engine):
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [asked(item).stage for item in router.publisher.published] == ["ingest"]


async def test_the_releaser_is_woken_sooner_than_it_looks_by_itself_and_forgets_ended_jobs(router: Router) -> None:
    router.releaser.settings = router.releaser.settings.model_copy(update={"sweep_seconds": 30})
    task = asyncio.create_task(router.releaser.run())
    await asyncio.sleep(0.1)  # it has looked once, and sleeps: forget_seconds have passed as well
    await router.admitter.admit([job_event()])
    job_id = job_id_of("test", "e-1")
    router.releaser.wake()
    async with asyncio.timeout(10):
        while not router.publisher.published:
            await asyncio.sleep(0.01)
        await run(
            router.engine,
            "INSERT INTO jobs (job_id, tenant_id, first_event_at, last_event_at, max_page, last_page, pages_done) "
            "VALUES (:job, 'clinic', now(), now(), 0, 0, 1)",
            job=job_id,
        )
        while await rows(router.engine, "SELECT 1 FROM waits"):
            router.releaser.wake()
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
