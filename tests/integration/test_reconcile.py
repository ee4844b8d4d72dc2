"""What is lost is found and goes on; what is merely slow, or waits, is left alone."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from tests.unit.ledger.histories import topologies
from tests.unit.ledger.lifecycle import Job, doc_id

from medkg.contracts.messages import REQUEST_DECODER, EventType, StageRequest
from medkg.contracts.topology import Topology
from medkg.gate_router.parking import page_wait
from medkg.ledger.reconcile import Reconciler, Report
from medkg.local.embedded_broker import embedded_broker
from medkg.runtime.broker import Publisher, TopicReader
from medkg.runtime.outcome import request_message
from medkg.runtime.settings import KafkaSettings
from medkg.storage.engine import Engine, migrate, open_engine
from medkg.storage.ledger_projection import project
from medkg.storage.waits import Wait, WaitKind, Waits


@pytest.fixture
def kafka_settings() -> Iterator[KafkaSettings]:
    with embedded_broker() as bootstrap:
        yield KafkaSettings(bootstrap=bootstrap, is_in_process=True, fetch_wait_ms=20)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Engine]:
    opened = open_engine(database_url)
    await migrate(opened)
    yield opened
    await opened.dispose()


_RELEASE = text("""
UPDATE waits SET state = 'released', released_at = now() - interval '1 hour' WHERE wait_id = :id""")
_WAITING = text("SELECT kind || ' ' || stage FROM waits WHERE state = 'waiting' ORDER BY 1")


class Fleet:
    """A ledger, its waits and a broker, and what was done to documents in it."""

    def __init__(self, engine: Engine, kafka: KafkaSettings, name: str = "auto") -> None:
        self.engine, self.kafka, self.job = engine, kafka, Job()
        self.topology: Topology = topologies()[name]
        self.publisher = Publisher(kafka)

    async def tell(self, *stages: str, document: int = 1, **last: Any) -> None:
        """A page with one document (and another one that keeps the job open), and what was completed on it."""
        job, ref = self.job, self.topology.ref
        events = [
            job.admitted(pipeline=ref, topology=self.topology.canonical_json),
            job.stage(EventType.STAGE_COMPLETED, "ingest", **self._page(document)),
        ]
        events += [job.completed(document, stage, pipeline=ref, leaves=len(self.topology.leaves)) for stage in stages]
        result = await project(self.engine, events)
        assert not result.refused

    def _page(self, document: int) -> dict[str, Any]:
        report = msgspec.json.decode(self.job.page(0, document, is_last=True)[1])["page"]
        return {"page": report, "pipeline": self.topology.ref}

    def request(self, stage: str, document: int = 1, **fields: Any) -> StageRequest:
        given: dict[str, Any] = {
            "job_id": self.job.id,
            "tenant_id": "default",
            "stage": stage,
            "pipeline": self.topology.ref,
            "revision": 1,
            "doc_id": doc_id(document) if document else "",
        }
        return StageRequest(**(given | fields))

    async def publish(self, topic: str, stage: str, document: int = 1) -> None:
        assert not await self.publisher.publish([request_message(topic, self.request(stage, document), "medkg/x")])

    async def park(self, kind: WaitKind, stage: str, branch: str = "", *, is_released: bool = False) -> str:
        request = self.request(stage)
        wait_id = f"{kind}-{stage}-{branch}"
        wait = Wait(
            wait_id=wait_id,
            kind=kind,
            tenant_id="default",
            job_id=self.job.id,
            doc_id=request.doc_id,
            stage=stage,
            page=0,
            arrived_from=branch,
            needed=2,
            request=msgspec.json.encode(request).decode(),
            origin="{}",
        )
        await Waits(self.engine).park([wait])
        if is_released:
            await self._release(wait_id)
        return wait_id

    async def hold_page(self, number: int = 0) -> None:
        wait = page_wait(self.request("ingest", 0, page=number), 10)
        await Waits(self.engine).park([wait])
        await self._release(wait.wait_id)

    async def _release(self, wait_id: str) -> None:
        async with self.engine.begin() as connection:
            statement = (
                "UPDATE waits SET state = 'released', released_at = now() - interval '1 hour' WHERE wait_id = :id"
            )
            await connection.execute(text(statement), {"id": wait_id})

    async def waiting(self) -> list[str]:
        async with self.engine.connect() as connection:
            rows = await connection.execute(
                text("SELECT kind || ' ' || stage FROM waits WHERE state = 'waiting' ORDER BY 1")
            )
            return list(rows.scalars())

    async def commit(self, topic: str, service: str) -> None:
        """As if the service had read all there is of a topic."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(
            {"bootstrap.servers": self.kafka.bootstrap, "group.id": f"medkg-{service}", "enable.auto.commit": False}
        )
        known = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = [
            TopicPartition(topic, n, consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=10)[1])
            for n in known
        ]
        consumer.commit(offsets=ends, asynchronous=False)
        consumer.close()

    async def reconcile(self, *, apply: bool = True, older_than_seconds: float = 60) -> Report:
        found: Report = await Reconciler(self.engine, self.kafka, self.publisher).run(
            older_than_seconds=older_than_seconds, apply=apply
        )
        return found

    async def on(self, topic: str) -> list[StageRequest]:
        async with TopicReader(self.kafka) as reader:
            return [REQUEST_DECODER.decode(record.value) async for batch in reader.whole(topic) for record in batch]


@pytest.fixture
async def fleet(engine: Engine, kafka_settings: KafkaSettings) -> AsyncIterator[Fleet]:
    made = Fleet(engine, kafka_settings)
    yield made
    await made.publisher.close()


async def test_a_request_that_was_skipped_is_published_once_more(fleet: Fleet) -> None:
    await fleet.tell("parse", "ir_validation")
    await fleet.publish("medkg.chunk.v1", "chunk")
    assert (await fleet.reconcile()).findings == ()  # it is unread: slow, not lost
    await fleet.commit("medkg.chunk.v1", "chunk")  # an operator moved the offset, or an expired topic was read on
    dry = await fleet.reconcile(apply=False)
    assert [(one.what, one.repair) for one in dry.findings] == [
        ("the request for 'chunk' after 'ir_validation'", "message")
    ]
    assert dry.findings[0].how.startswith("its request for 'chunk' at medkg.chunk.v1[")
    assert len(await fleet.on("medkg.chunk.v1")) == 1
    assert (await fleet.reconcile()).findings == dry.findings
    assert await fleet.on("medkg.chunk.v1") == [fleet.request("chunk")] * 2
    assert (await fleet.reconcile()).findings == ()  # it is on its way


async def test_where_the_request_is_gone_the_nearest_one_before_it_is_taken(fleet: Fleet) -> None:
    await fleet.tell("parse", "ir_validation")
    await fleet.publish("medkg.parse.v1", "parse")
    await fleet.commit("medkg.parse.v1", "parse")
    found = (await fleet.reconcile()).findings[0]
    assert (found.repair, found.doc_id) == ("message", doc_id(1))
    assert "'parse' at medkg.parse.v1[" in found.how
    assert len(await fleet.on("medkg.parse.v1")) == 2


async def test_where_kafka_has_nothing_the_page_is_read_once_more(fleet: Fleet) -> None:
    await fleet.tell("parse")
    await fleet.hold_page()
    found = await fleet.reconcile()
    assert [(one.repair, one.doc_id) for one in found.findings] == [("page", doc_id(1))]
    assert await fleet.waiting() == ["page ingest"]
    assert (await fleet.reconcile()).findings == ()


async def test_where_nothing_is_left_it_says_so(fleet: Fleet) -> None:
    await fleet.tell("parse")
    found = (await fleet.reconcile()).findings
    assert [(one.repair, one.how) for one in found] == [("none", "nothing is left to go on from: submit its job again")]


async def test_a_document_heard_of_lately_is_left_alone(fleet: Fleet) -> None:
    await fleet.tell("parse")
    async with fleet.engine.begin() as connection:
        await connection.execute(text("UPDATE documents SET last_event_at = now()"))
    assert (await fleet.reconcile()).looked_at == 0
    assert (await fleet.reconcile(older_than_seconds=0)).looked_at == 1


async def test_what_waits_at_a_gate_is_left_alone_and_its_lost_release_is_not(
    engine: Engine, kafka_settings: KafkaSettings
) -> None:
    fleet = Fleet(engine, kafka_settings, "pdf-two-phase")
    await fleet.tell("download_pdf")
    await fleet.park(WaitKind.GATE, "pdf_gate")
    found = await fleet.reconcile()
    assert (found.looked_at, found.findings) == (1, ())
    await fleet._release("gate-pdf_gate-")
    await fleet.tell("download_pdf", "pdf_gate")
    found = await fleet.reconcile()
    assert [(one.what, one.repair) for one in found.findings] == [("the request for 'chunk' after 'pdf_gate'", "wait")]
    assert await fleet.waiting() == ["gate pdf_gate"]


async def test_a_lost_branch_goes_on_while_another_waits_for_it(engine: Engine, kafka_settings: KafkaSettings) -> None:
    fleet = Fleet(engine, kafka_settings, "branching")
    await fleet.tell("parse", "extract", "ir_validation")
    await fleet.park(WaitKind.JOIN, "embed", "ir_validation")
    await fleet.publish("medkg.chunk.v1", "chunk")
    await fleet.publish("medkg.kg.v1", "kg")
    await fleet.commit("medkg.chunk.v1", "chunk")
    found = await fleet.reconcile()
    assert found.findings == ()  # one of its requests is unread
    await fleet.commit("medkg.kg.v1", "kg")
    found = await fleet.reconcile()
    assert {one.what for one in found.findings} == {
        "the request for 'chunk' after 'parse'",
        "the request for 'kg' after 'extract'",
    }
    assert len(await fleet.on("medkg.chunk.v1")) == len(await fleet.on("medkg.kg.v1")) == 2
    assert await fleet.waiting() == ["join embed"]


async def test_a_page_that_was_asked_for_and_never_came_is_asked_for_again(fleet: Fleet) -> None:
    job = fleet.job
    await project(fleet.engine, [job.admitted(), job.page(0, 1), job.completed(1)])
    await fleet.hold_page(0)
    found = (await fleet.reconcile()).findings
    assert [(one.what, one.why) for one in found] == [("page 0 of the source", "the page after it was never asked for")]
    await fleet.hold_page(1)
    found = (await fleet.reconcile(apply=False)).findings
    assert [(one.what, one.why) for one in found] == [("page 1 of the source", "it was asked for and never read")]
    await fleet.publisher.publish(
        [request_message("medkg.ingest.v1", fleet.request("ingest", 0, page=1), "medkg/gate-router")]
    )
    assert (await fleet.reconcile(apply=False)).findings == ()  # it is unread


async def test_runs_whose_worker_died_are_counted(fleet: Fleet) -> None:
    job = fleet.job
    await project(fleet.engine, [job.page(0, 1, is_last=True), job.started(1, "parse"), job.completed(1)])
    assert (await fleet.reconcile()).unended_runs == {"parse": 1}


async def test_a_broker_that_has_just_begun_holds_nothing(fleet: Fleet) -> None:
    await fleet.tell("parse")
    await fleet.hold_page()
    found = await Reconciler(fleet.engine, None).run(older_than_seconds=0, apply=True)
    assert [one.repair for one in found.findings] == ["page"]
    assert await fleet.waiting() == ["page ingest"]


async def test_a_job_whose_admission_the_ledger_never_heard_of_goes_on_too(fleet: Fleet) -> None:
    await fleet.hold_page(0)
    assert [one.repair for one in (await fleet.reconcile(apply=False)).findings] == ["page"]
    await project(fleet.engine, [fleet.job.page(0, 1, is_last=True), fleet.job.completed(1, "parse")])
    found = (await fleet.reconcile()).findings
    assert [(one.repair, one.doc_id) for one in found] == [("page", doc_id(1))]
    assert await fleet.waiting() == ["page ingest"]


async def test_a_document_that_moved_while_it_was_looked_for_is_left_alone(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.tell("parse")
    await fleet.hold_page()
    looked = Reconciler._unread

    async def meanwhile(self: Reconciler) -> Any:
        await project(fleet.engine, [fleet.job.started(1, "ir_validation")])
        return await looked(self)

    monkeypatch.setattr(Reconciler, "_unread", meanwhile)
    assert (await fleet.reconcile()).findings == ()
    assert await fleet.waiting() == []
