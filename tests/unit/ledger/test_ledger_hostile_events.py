"""No event, however made, keeps the ledger from projecting the batch that it came in."""

import json
from typing import Any

from sqlalchemy import text
from tests.unit.ledger.lifecycle import PIPELINE, Event, Job, doc_id, job_id

from medkg.contracts.ids import content_digest
from medkg.contracts.messages import EventType, Failure, Fault, IngestedDocument, PipelineRef, Position, RefusedInput
from medkg.storage.engine import Engine
from medkg.storage.ledger_projection import ProjectionResult, project

MEGABYTE = "x" * 1_000_000
NUL = "a\x00b\x1fc"  # and the character that separates the rows of a batch on their way into the database


def raw(**fields: Any) -> bytes:
    """A stage event as JSON that no encoder of ours would write."""
    pipeline = {"name": "small", "version": "1.0", "digest": "d"}
    given = {
        "job_id": job_id(),
        "tenant_id": "default",
        "stage": "parse",
        "stage_type": "ParseStage",
        "pipeline": pipeline,
        "revision": 1,
        "doc_id": doc_id(7),
    }
    return json.dumps(given | fields).encode()


def hostile_data() -> dict[str, bytes]:
    names = ("job_id", "tenant_id", "stage", "doc_id")
    bad: dict[str, Any] = {"nul": NUL, "megabyte": MEGABYTE, "space": "a b", "half": "\ud800", "low half": "\udc00x"}
    cases = {f"{name} {what}": raw(**{name: value}) for name in names for what, value in bad.items()}
    cases |= {f"{name} empty": raw(**{name: ""}) for name in names[:3]}
    cases |= {f"pipeline {what}": raw(pipeline={"name": v, "version": "1", "digest": "d"}) for what, v in bad.items()}
    cases |= {f"leaf {what}": raw(finished_leaves=[value], leaves=1) for what, value in bad.items()}
    cases |= {
        f"{name} {number}": raw(**{name: number})
        for name in ("attempt", "revision", "leaves")
        for number in (-1, 2**53, 2**64, 1.5)
    }
    report = {"number": 0, "documents": [{"doc_id": NUL, "source_id": "s"}]}
    cases |= {
        "not JSON": b"\xff\xfe",
        "empty": b"",
        "deep": b'{"metadata":' + b"[" * 100_000,
        "a list": b"[]",
        "document of a page": raw(page=report),
        "page number": raw(page={"number": -5}),
        "total of a page": raw(page={"number": 1, "total": 2**64}),
    }
    return cases


async def project_between_good_ones(engine: Engine, hostile: Event) -> ProjectionResult:
    job = Job(number=5)
    result = await project(engine, [job.admitted(), hostile, job.page(0, 1, is_last=True), job.completed(1)])
    assert [finished.completed.job_id for finished in result.finished] == [job.id]
    return result


async def test_an_unreadable_event_is_passed_over_and_named(engine: Engine) -> None:
    for case, data in hostile_data().items():
        event = Job().event(EventType.STAGE_COMPLETED, data)
        refused = (await project_between_good_ones(engine, event)).refused
        assert [(item.index, item.event_id) for item in refused] == [(1, event[0].id)], case
        assert 0 < len(refused[0].reason) < 2_000, case


async def test_an_event_without_a_usable_time_is_passed_over(engine: Engine) -> None:
    for time in ("", "yesterday", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-13-01", NUL):
        event = Job().event(EventType.STAGE_STARTED, raw(), time=time)
        assert len((await project_between_good_ones(engine, event)).refused) == 1, time


async def test_a_page_event_that_names_no_page_is_passed_over(engine: Engine) -> None:
    for kind in (EventType.STAGE_STARTED, EventType.STAGE_COMPLETED, EventType.STAGE_FAILED):
        event = Job().event(kind, raw(doc_id=""), subject="nothing/page-1234567890123456")
        assert len((await project_between_good_ones(engine, event)).refused) == 1


def dirty_events() -> dict[str, Event]:
    """Readable, and still nothing that a table can hold as it is."""
    job = Job()
    failure = Failure(NUL, NUL + MEGABYTE, NUL, causes=(NUL,))
    documents = (IngestedDocument(doc_id(1), NUL + MEGABYTE, NUL),) * 2
    refused = (RefusedInput(doc_id(2), NUL, MEGABYTE, failure),) * 2
    odd = PipelineRef("odd", "1.0", content_digest(b"not JSON"))
    return {
        "failure": job.failed(3, failure=failure),
        "no failure": job.failed(3, failure=None),
        "worker": job.started(3, worker=NUL + MEGABYTE),
        "type": job.started(3, stage_type=NUL + MEGABYTE),
        "page": job.page(0, documents=documents, refused=refused),
        "durations": job.completed(3, duration_ms=1e300),
        "negative": job.completed(3, duration_ms=-5.0),
        "selection": job.admitted(selection={NUL: [NUL, MEGABYTE]}),
        "topology": job.admitted(topology=NUL),
        "topology of NUL": job.admitted(topology=NUL, pipeline=PipelineRef("n", "1", content_digest(NUL.encode()))),
        "topology that is none": job.admitted(topology="not JSON", pipeline=odd),
        "faults": job.rejected(faults=(Fault(NUL, "x" * 600),) * 1_500),
        "position": job.rejected(position=Position(NUL + MEGABYTE, 2**31 - 1, 2**53 - 1)),
        "nameless": job.rejected(job_id="", tenant_id=""),
        "earliest": job.event(EventType.STAGE_STARTED, raw(), time="1900-01-01T00:00:00+23:59"),
        "latest": job.event(EventType.STAGE_STARTED, raw(), time="9998-12-31T23:59:59-23:59"),
        "largest": job.completed(3, attempt=2**53 - 1, leaves=2**53 - 1),
        "many leaves": job.completed(3, finished_leaves=tuple(f"leaf{n}" for n in range(20_000)), leaves=1),
    }


async def test_what_a_table_cannot_hold_is_cut_and_cleaned(engine: Engine) -> None:
    for case, event in dirty_events().items():
        assert (await project_between_good_ones(engine, event)).refused == (), case
        assert (await project_between_good_ones(engine, event)).refused == (), f"{case}, merged with itself"
    async with engine.connect() as connection:
        sizes = await connection.execute(
            text("SELECT max(length(source_id)), max(length(uri)), max(length(failure_message)) FROM documents")
        )
        assert tuple(sizes.one()) == (4_096, 4_096, 4_000)
        faults = await connection.execute(text("SELECT max(length(faults)) FROM rejections"))
        assert (faults.scalar() or 0) < 200_000


async def test_a_rejection_from_nowhere_is_passed_over(engine: Engine) -> None:
    for partition, offset in ((2**31, 0), (0, 2**53), (-1, 0), (0, -1)):
        event = Job().rejected(position=Position("t", partition, offset))
        assert len((await project_between_good_ones(engine, event)).refused) == 1, (partition, offset)


async def test_a_page_that_completed_without_saying_what_it_held_is_passed_over(engine: Engine) -> None:
    event = Job().event(EventType.STAGE_COMPLETED, raw(doc_id=""), subject=f"{job_id()}/page-3")
    (refused,) = (await project_between_good_ones(engine, event)).refused
    assert "without a document or a page report" in refused.reason


async def test_a_topology_is_kept_only_under_its_own_digest(engine: Engine) -> None:
    forged = Job(number=1).admitted(topology='{"stages": []}')
    await project(engine, [forged])
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT * FROM topologies"))).all() == []
    await project(engine, [forged, Job().admitted()])
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT digest FROM topologies"))).scalars().all() == [PIPELINE.digest]


async def test_events_that_disagree_about_their_job_give_the_same_row_in_any_batching(engine: Engine) -> None:
    """Nobody sends such; if somebody does, a rebuilt ledger still equals the one it replaces."""
    events = [
        Job(tenant_id="zeta").started(1, revision=3),
        Job(tenant_id="alpha").started(2, revision=7, pipeline=PipelineRef("other", "2.0", "f")),
        Job().rejected(tenant_id=""),
    ]
    rows = []
    for batches in ([events], [events[::-1]], [[event] for event in events]):
        async with engine.begin() as connection:
            await connection.execute(text("TRUNCATE documents, jobs, job_stages, stage_runs, rejections"))
        for batch in batches:
            await project(engine, batch)
        async with engine.connect() as connection:
            rows.append((await connection.execute(text("SELECT * FROM jobs"))).all())
    assert rows[0] == rows[1] == rows[2]
    assert (rows[0][0].tenant_id, rows[0][0].revision) == ("zeta", 7)
