"""What the ledger answers, to whom, and in which pages."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import text
from tests.unit.ledger.lifecycle import BEGINNING, PIPELINE, Event, Job, doc_id

from medkg.contracts.ids import content_digest
from medkg.contracts.messages import DeadLetter, Failure, Fault, PipelineRef, Position, RefusedInput, encode
from medkg.runtime.records import Record
from medkg.storage.engine import Engine
from medkg.storage.ledger_answers import (
    Counts,
    FailureAnswer,
    FaultAnswer,
    JobDocument,
    LetterQuery,
    Pages,
    Pipeline,
    PositionAnswer,
)
from medkg.storage.ledger_fields import set_field
from medkg.storage.ledger_letters import HEADER, project_dead_letters
from medkg.storage.ledger_projection import project
from medkg.storage.ledger_reader import LedgerReader
from medkg.storage.waits import Wait, WaitKind, Waits

OURS, THEIRS = "default", "other"


async def told(engine: Engine, *events: Event) -> LedgerReader:
    assert not (await project(engine, events)).refused
    return LedgerReader(engine)


def letter(offset: int, **fields: Any) -> Record:
    given: dict[str, Any] = {
        "failure": Failure("payload_malformed", "not XML", "rejected", causes=("SyntaxError: line 1",)),
        "position": Position("medkg.parse.v1", 2, offset),
        "worker": "worker-1",
        "stage": "parse",
        "attempt": 1,
        "job_id": Job().id,
        "tenant_id": OURS,
        "doc_id": doc_id(1),
    }
    return Record(
        "medkg.dead-letter.v1", 0, offset, None, b"", [(HEADER, encode(DeadLetter(**(given | fields))))], offset
    )


def wait(kind: WaitKind, number: int, **fields: Any) -> Wait:
    blank = Wait(f"wait-{kind}-{number}", kind, OURS, Job().id, doc_id(number), kind.value, 0, "", 1, "{}", "{}")
    return replace(blank, **fields)


async def test_a_job_is_told_whole(engine: Engine) -> None:
    job = Job()
    refused = RefusedInput(doc_id(9), "bad", "", Failure("payload_malformed", "no"))
    reader = await told(
        engine,
        job.admitted(),
        job.page(0, 1, 2, 3, 4, is_last=True, total=5, refused=(refused,)),
        job.completed(1, duration_ms=10.0),
        job.completed(2, duration_ms=30.0),
        job.completed(3, reused=True),
        job.started(4),
        job.failed(4),
    )
    found = await reader.job(OURS, job.id)
    assert found is not None
    assert (found.state, found.source, found.selection) == ("completed_with_failures", "files", {"paths": ["/data"]})
    assert found.pipeline == Pipeline("small", "1.0", PIPELINE.digest)
    assert found.counts == Counts(documents=5, completed=2, skipped=1, failed=1, rejected=1, in_flight=0)
    assert found.pages == Pages(done=1, last_seen=True, total_records=5)
    assert (found.admitted_at, found.finished_at) == (BEGINNING.replace(second=1), job.now)
    stages = {stage.stage: stage for stage in found.stages}
    assert [stage.stage for stage in found.stages] == ["ingest", "parse", "kg"]  # the order of the pipeline
    kg, parse = stages["kg"], stages["parse"]
    assert (kg.started, kg.completed, kg.reused, kg.mean_ms) == (3, 3, 1, 20.0)
    assert (parse.started, parse.failed, parse.mean_ms) == (1, 1, None)


async def test_a_job_under_way_has_no_end(engine: Engine) -> None:
    job = Job()
    reader = await told(engine, job.page(0, 1, 2), job.completed(1))
    found = await reader.job(OURS, job.id)
    assert found is not None
    assert (found.state, found.finished_at, found.admitted_at, found.pipeline is None) == ("running", None, None, False)
    assert (found.counts.in_flight, found.pages.last_seen) == (1, False)


async def test_a_rejected_job_tells_its_faults(engine: Engine) -> None:
    job = Job()
    reader = await told(engine, job.rejected(faults=(Fault("/pipeline", "unknown", "known: auto"),)))
    found = await reader.job(OURS, job.id)
    assert found is not None
    assert (found.state, found.pipeline, found.finished_at) == ("rejected", None, job.now)
    assert found.faults == (FaultAnswer("/pipeline", "unknown", "known: auto"),)
    assert await reader.state_of(job.id) == ("rejected", found.faults)


async def test_the_state_of_a_job_that_nobody_spoke_of_is_unknown(engine: Engine) -> None:
    assert await LedgerReader(engine).state_of(Job().id) is None


async def test_stages_without_a_readable_topology_are_sorted_by_name(engine: Engine) -> None:
    for topology in ("", "not JSON", "[]", '{"stages": 5}', '{"stages": [5, {"name": []}]}', "[" * 50_000):
        job = Job(len(topology))
        pinned = PipelineRef("odd", "1.0", content_digest(topology.encode()))
        reader = await told(engine, job.admitted(topology=topology, pipeline=pinned))
        await told(engine, *(job.started(1, stage, pipeline=pinned) for stage in ("kg", "check", "parse")))
        found = await reader.job(OURS, job.id)
        assert found is not None
        assert [stage.stage for stage in found.stages] == ["check", "kg", "parse"], topology[:20]


async def test_the_topology_of_a_job_is_kept_by_its_digest(engine: Engine) -> None:
    reader = await told(engine, Job().admitted())
    assert '"stages"' in (await reader.topology(PIPELINE.digest) or "")
    assert await reader.topology("0" * 64) is None


async def test_a_job_tells_what_it_waits_for(engine: Engine) -> None:
    job = Job()
    reader = await told(engine, job.page(0, 1, 2))
    waits = [
        wait(WaitKind.GATE, 1, stage="pdf_gate", ledger_field="pdf_ir_ready", equals="true"),
        wait(WaitKind.GATE, 2, stage="pdf_gate", ledger_field="pdf_ir_ready", equals="true"),
        wait(WaitKind.JOIN, 1, stage="embed"),
        wait(WaitKind.PAGE, 1, stage="ingest"),
        wait(WaitKind.PAGE, 2, stage="ingest", job_id=Job(7).id),
    ]
    await Waits(engine).park(waits)
    found = await reader.job(OURS, job.id)
    assert found is not None
    assert [(item.kind, item.count, item.detail) for item in found.waiting] == [
        ("gate", 2, "pdf_gate: pdf_ir_ready = true"),
        ("join", 1, "embed: the other branches"),
        ("page", 1, "room for more documents of the tenant"),
    ]
    assert [(item.kind, item.count) for item in (await reader.overview()).waiting] == [
        ("gate", 2),
        ("join", 1),
        ("page", 2),
    ]
    assert all(item.oldest_since.tzinfo for item in found.waiting)


async def test_a_document_tells_everything_that_was_done_to_it(engine: Engine) -> None:
    job = Job()
    reader = await told(
        engine,
        job.page(0, 1, 2),
        job.started(1, "parse"),
        job.completed(1, "parse", duration_ms=1.5, worker="worker-2"),
        job.completed(1, "check", reused=True),
        job.started(1, "kg"),
        job.failed(1, "kg", duration_ms=2.0),
    )
    found = await reader.document(OURS, job.id, doc_id(1))
    assert found is not None
    failure = FailureAnswer("kg", "stage_crashed", "it broke")
    assert (found.source_id, found.uri, found.state, found.failure) == (
        "NCT00000001",
        "file:///1.json",
        "failed",
        failure,
    )
    runs = [(run.stage, run.state, run.reused, run.duration_ms, run.worker) for run in found.timeline]
    assert runs == [
        ("parse", "completed", False, 1.5, "worker-2"),
        ("check", "completed", True, 0.0, "worker-1"),
        ("kg", "failed", False, 2.0, "worker-1"),
    ]
    assert found.timeline[2].failure == failure
    listed, _ = await reader.documents(OURS, job.id, limit=1)
    assert replace(found, timeline=()) in (await reader.documents(OURS, job.id, limit=9))[0]
    assert listed[0].timeline == ()


async def test_a_document_that_is_only_expected_is_not_shown(engine: Engine) -> None:
    job = Job()
    reader = await told(engine, job.admitted())
    await set_field(engine, OURS, job.id, doc_id(1), "pdf_ir_ready", True)
    assert await reader.document(OURS, job.id, doc_id(1)) is None
    assert await reader.documents(OURS, job.id, limit=10) == ([], "")


async def test_jobs_come_newest_first_without_gaps_or_repeats_while_others_are_added(engine: Engine) -> None:
    jobs = [Job(n) for n in range(7)]
    reader = await told(engine, *(job.admitted() for job in jobs))  # all in the same second: the id decides
    shown: list[str] = []
    cursor, late = "", 100
    while True:
        page, cursor = await reader.jobs(OURS, limit=2, before=cursor)
        shown += [job.job_id for job in page]
        newcomer = Job(late, now=BEGINNING.replace(minute=5))
        await told(engine, newcomer.admitted())
        late += 1
        if not cursor:
            break
    assert shown == sorted((job.id for job in jobs), reverse=True)
    newest, _ = await reader.jobs(OURS, limit=1)
    assert newest[0].admitted_at == BEGINNING.replace(minute=5, second=1)


async def test_the_last_page_of_jobs_has_no_cursor_even_when_it_is_full(engine: Engine) -> None:
    reader = await told(engine, Job(1).admitted(), Job(2).admitted())
    assert (await reader.jobs(OURS, limit=2))[1] == ""
    assert await reader.jobs(OURS, limit=2, before="f" * 32) == ([], "")


async def test_a_list_of_jobs_leaves_out_what_is_too_long_for_a_list(engine: Engine) -> None:
    job = Job()
    reader = await told(engine, job.admitted(selection={"paths": ["/data/" + "x" * 5_000]}))
    assert (await reader.jobs(OURS, limit=1))[0][0].selection == {}
    whole = await reader.job(OURS, job.id)
    assert whole is not None
    assert whole.selection != {}


async def test_documents_come_by_id_without_gaps_or_repeats_while_others_are_added(engine: Engine) -> None:
    job = Job()
    reader = await told(engine, job.page(0, *range(10)))
    ids = sorted(doc_id(n) for n in range(10))
    shown: list[str] = []
    cursor, late = "", 100
    while True:
        page, cursor = await reader.documents(OURS, job.id, limit=3, after=cursor)
        shown += [document.doc_id for document in page]
        await told(engine, job.page(late, late))
        late += 1
        if not cursor:
            break
    assert len(set(shown)) == len(shown)
    assert shown == sorted(shown)
    assert set(ids) <= set(shown)


async def test_documents_can_be_asked_for_by_state(engine: Engine) -> None:
    job = Job()
    reader = await told(engine, job.page(0, 1, 2, 3), job.completed(1), job.failed(2))
    asked = {state: await _ids(reader, job, state) for state in ("completed", "failed", "in_flight", "skipped")}
    assert asked == {"completed": [doc_id(1)], "failed": [doc_id(2)], "in_flight": [doc_id(3)], "skipped": []}


async def _ids(reader: LedgerReader, job: Job, state: str) -> Sequence[str]:
    found, cursor = await reader.documents(OURS, job.id, state=state, limit=10)
    assert cursor == ""
    return [document.doc_id for document in found]


async def test_what_another_tenant_has_is_as_good_as_absent(engine: Engine) -> None:
    job, theirs = Job(0), Job(1, tenant_id=THEIRS)
    reader = await told(
        engine, job.admitted(), theirs.admitted(), theirs.page(0, 1), theirs.started(1), theirs.rejected()
    )
    await project_dead_letters(engine, [letter(1, tenant_id=THEIRS, job_id=theirs.id)])
    assert await reader.job(OURS, theirs.id) is None
    assert await reader.documents(OURS, theirs.id, limit=9) == ([], "")
    assert await reader.document(OURS, theirs.id, doc_id(1)) is None
    assert [found.job_id for found in (await reader.jobs(OURS, limit=9))[0]] == [job.id]
    assert await reader.jobs(OURS, limit=9, before=theirs.id) == ([], "")
    assert await reader.dead_letters(tenant_id=OURS) == []
    assert await reader.dead_letters(tenant_id=OURS, asked=LetterQuery(job_id=theirs.id)) == []
    assert await reader.rejections(tenant_id=OURS) == []
    assert await reader.job(THEIRS, theirs.id) is not None
    assert isinstance(await reader.document(THEIRS, theirs.id, doc_id(1)), JobDocument)
    assert len(await reader.dead_letters(tenant_id=THEIRS)) == len(await reader.rejections(tenant_id=THEIRS)) == 1


async def test_what_names_no_tenant_is_shown_to_the_operators_tenant_alone(engine: Engine) -> None:
    reader = await told(engine, Job().rejected(job_id="", tenant_id="", position=Position("medkg.jobs.v1", 0, 1)))
    await project_dead_letters(engine, [letter(1), letter(2, tenant_id="", job_id=""), letter(3, tenant_id=THEIRS)])
    offsets = {
        tenant: [item.position.offset for item in await reader.dead_letters(tenant_id=tenant)]
        for tenant in (OURS, THEIRS, None)
    }
    assert offsets == {OURS: [2, 1], THEIRS: [3], None: [3, 2, 1]}
    assert [len(await reader.rejections(tenant_id=tenant)) for tenant in (OURS, THEIRS, None)] == [1, 0, 1]


async def test_dead_letters_come_newest_first_and_can_be_narrowed_down(engine: Engine) -> None:
    reader = LedgerReader(engine)
    odd = letter(3, stage="kg", failure=Failure("stage_crashed", "boom"), job_id=Job(4).id)
    await project_dead_letters(engine, [letter(1), odd, letter(2)])
    assert [item.position.offset for item in await reader.dead_letters()] == [3, 2, 1]
    assert [item.position.offset for item in await reader.dead_letters(limit=1)] == [3]
    narrowed = (
        await reader.dead_letters(asked=LetterQuery(stage="kg")),
        await reader.dead_letters(asked=LetterQuery(code="stage_crashed")),
        await reader.dead_letters(asked=LetterQuery(job_id=Job(4).id)),
    )
    assert [[item.position.offset for item in found] for found in narrowed] == [[3], [3], [3]]
    assert await reader.dead_letters(asked=LetterQuery(stage="kg", code="payload_malformed")) == []
    newest, *rest = await reader.dead_letters()
    assert await reader.dead_letters(asked=LetterQuery(following=newest.id)) == rest
    assert await reader.dead_letters(asked=LetterQuery(died_after=newest.at)) == [newest]
    assert await reader.dead_letters(asked=LetterQuery(died_before=newest.at)) == rest
    assert await reader.dead_letters(asked=LetterQuery(dead_letter_id=newest.id, state="dead")) == [newest]
    assert await reader.dead_letters(asked=LetterQuery(state="dropped")) == []
    first = rest[-1]
    assert first.id.startswith("medkg.parse.v1/2/1~")
    assert first.position == PositionAnswer("medkg.parse.v1", 2, 1)
    assert (first.code, first.causes, first.disposition) == ("payload_malformed", ("SyntaxError: line 1",), "rejected")


async def test_rejections_come_newest_first_with_where_they_stood(engine: Engine) -> None:
    at = Position("medkg.jobs.v1", 1, 42)
    reader = await told(engine, Job(0).rejected(position=at, faults=(Fault("/source", "unknown"),)), Job(1).rejected())
    await told(engine, Job(2, now=BEGINNING.replace(minute=1)).rejected())
    found = await reader.rejections()
    assert found[0].job_id == Job(2).id
    placed = next(item for item in found if item.job_id == Job(0).id)
    assert placed.position == PositionAnswer("medkg.jobs.v1", 1, 42)
    assert placed.faults == (FaultAnswer("/source", "unknown"),)
    assert next(item for item in found if item.job_id == Job(1).id).position is None
    assert len(await reader.rejections(limit=2)) == 2


async def test_the_overview_counts_everything(engine: Engine) -> None:
    reader = LedgerReader(engine)
    empty = await reader.overview()
    assert (empty.jobs, empty.waiting, empty.rejections, empty.dead_letters) == ({}, (), 0, 0)
    assert set(empty.documents.values()) == {0}
    done, open_job = Job(0), Job(1, tenant_id=THEIRS)
    await told(engine, done.page(0, 1, 2, is_last=True), done.completed(1), done.failed(2), open_job.page(0, 1))
    await told(engine, Job(2).rejected())
    await project_dead_letters(engine, [letter(1), letter(2)])
    found = await reader.overview()
    assert found.jobs == {"completed_with_failures": 1, "running": 1, "rejected": 1}
    assert found.documents == {"completed": 1, "skipped": 0, "failed": 1, "rejected": 0, "in_flight": 1}
    assert (found.rejections, found.dead_letters) == (1, 2)


async def test_text_of_an_asker_is_never_sql(engine: Engine) -> None:
    reader = await told(engine, Job().admitted())
    hostile = "'; DROP TABLE jobs; --"
    assert await reader.job(hostile, hostile) is None
    assert (await reader.jobs(hostile, limit=1, before=hostile))[0] == []
    asked = LetterQuery(hostile, hostile, hostile, hostile, hostile, following=hostile)
    assert await reader.dead_letters(tenant_id=hostile, asked=asked) == []
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM jobs"))).scalar() == 1
