"""What state a job and a document are in, event by event."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text
from tests.unit.ledger.lifecycle import Event, Job, doc_id

from medkg.contracts.messages import Failure, RefusedInput
from medkg.storage.engine import Engine
from medkg.storage.ledger_projection import FinishedJob, project
from medkg.storage.ledger_reader import LedgerReader


async def tell(engine: Engine, *events: Event) -> tuple[FinishedJob, ...]:
    result = await project(engine, events)
    assert not result.refused
    return result.finished


async def one(engine: Engine, table: str, **where: Any) -> Any:
    condition = " AND ".join(f"{name} = :{name}" for name in where) or "true"
    async with engine.connect() as connection:
        return (await connection.execute(text(f"SELECT * FROM {table} WHERE {condition}"), where)).one()


async def state_of(engine: Engine, document: int) -> str:
    return str((await one(engine, "documents", doc_id=doc_id(document))).state)


async def test_a_job_goes_from_admitted_over_running_to_completed(engine: Engine) -> None:
    job, states = Job(), []
    for event in (job.admitted(), job.page(0, 1, is_last=True), job.completed(1)):
        await tell(engine, event)
        states.append((await one(engine, "jobs")).state)
    assert states == ["admitted", "running", "completed"]


async def test_a_finished_job_is_named_with_its_counts_and_the_time_of_its_last_event(engine: Engine) -> None:
    job = Job()
    refused = RefusedInput(doc_id(9), "bad", "", Failure("payload_malformed", "no"))
    events = [
        job.admitted(),
        job.page(0, 1, 2, 3, is_last=True, refused=(refused,)),
        job.completed(1),
        job.completed(2, reused=True),
        job.failed(3),
    ]
    finished = await tell(engine, *events)
    about = finished[0].completed
    assert (about.job_id, about.state) == (job.id, "completed_with_failures")
    counts = (about.documents, about.completed, about.skipped, about.failed, about.rejected)
    assert counts == (4, 1, 1, 1, 1)
    assert finished[0].finished_at == job.now


async def test_a_batch_that_is_projected_again_names_its_finished_jobs_again(engine: Engine) -> None:
    job = Job()
    events = [job.admitted(), job.page(0, 1, is_last=True), job.completed(1)]
    assert await tell(engine, *events) == await tell(engine, *events) != ()


async def test_an_empty_source_is_a_completed_job(engine: Engine) -> None:
    job = Job()
    await tell(engine, job.admitted(), job.page(0, is_last=True))
    assert (await one(engine, "jobs")).state == "completed"


async def test_a_page_that_is_still_missing_keeps_the_job_open(engine: Engine) -> None:
    job = Job()
    late = job.page(1, 2)
    await tell(engine, job.admitted(), job.page(0, 1), job.page(2, 3, is_last=True))
    await tell(engine, *(job.completed(n) for n in (1, 3)))
    assert (await one(engine, "jobs")).state == "running"
    await tell(engine, late, job.completed(2))
    assert (await one(engine, "jobs")).state == "completed"


async def test_without_its_last_page_a_job_stays_open(engine: Engine) -> None:
    job = Job()
    await tell(engine, job.admitted(), job.page(0, 1), job.completed(1))
    assert (await one(engine, "jobs")).state == "running"


async def test_a_job_with_a_failed_page_ends_completed_with_failures(engine: Engine) -> None:
    job = Job()
    await tell(engine, job.admitted(), job.page(0, 1), job.completed(1))
    finished = await tell(engine, job.page_failed(1))
    assert [item.completed.state for item in finished] == ["completed_with_failures"]
    assert (await one(engine, "pages", number=1)).failure_code == "stage_crashed"


async def test_a_page_that_is_read_at_last_was_no_failure(engine: Engine) -> None:
    job = Job()
    await tell(engine, job.admitted(), job.page_failed(0), job.page(0, 1, is_last=True), job.completed(1))
    row = await one(engine, "jobs")
    assert (row.state, row.pages_done, row.pages_failed) == ("completed", 1, 0)


async def test_a_rejected_job_stays_rejected_and_keeps_its_faults(engine: Engine) -> None:
    job = Job()
    await tell(engine, job.rejected())
    assert (await one(engine, "jobs")).state == "rejected"
    assert (await one(engine, "rejections")).rejection_id == job.id


async def test_a_job_that_is_admitted_after_all_was_not_rejected(engine: Engine) -> None:
    """The same event sent again, after the pipeline it names was added."""
    job = Job()
    await tell(engine, job.rejected(), job.admitted())
    assert (await one(engine, "jobs")).state == "admitted"


@pytest.mark.parametrize("stage", ["check", "gate", "ingest"])
async def test_checks_and_gates_are_no_work(engine: Engine, stage: str) -> None:
    job = Job()
    await tell(engine, job.page(0, 1), job.completed(1, stage), job.completed(1, "parse", reused=True))
    await tell(engine, job.completed(1, "kg", reused=True))
    assert await state_of(engine, 1) == "skipped"


@pytest.mark.parametrize("stage", ["parse", "kg"])
async def test_one_stage_that_did_work_makes_a_document_completed(engine: Engine, stage: str) -> None:
    job = Job()
    await tell(engine, *(job.completed(1, name, reused=name != stage) for name in ("parse", "check", "kg")))
    assert await state_of(engine, 1) == "completed"


async def test_a_document_ends_when_every_leaf_is_reached(engine: Engine) -> None:
    job = Job()
    await tell(engine, job.completed(1, finished_leaves=("index",), leaves=2))
    assert await state_of(engine, 1) == "in_flight"
    await tell(engine, job.completed(1, finished_leaves=("index",), leaves=2))
    assert await state_of(engine, 1) == "in_flight"
    await tell(engine, job.completed(1, finished_leaves=("kg",), leaves=2))
    assert await state_of(engine, 1) == "completed"


@pytest.mark.parametrize("disposition", ["failed", "rejected"])
async def test_a_failure_sticks_whatever_is_said_afterwards(engine: Engine, disposition: str) -> None:
    job = Job()
    failed = job.failed(1, failure=Failure("quality_too_low", "too short", disposition))
    await tell(engine, job.page(0, 1, is_last=True), failed)
    await tell(engine, job.started(1), job.retrying(1), job.completed(1, "parse"), job.completed(1))
    assert await state_of(engine, 1) == disposition


async def test_states_only_go_one_way_in_whatever_order_events_come(engine: Engine) -> None:
    job = Job()
    order = ["in_flight", "skipped", "completed", "failed"]
    events = [job.started(1), job.completed(1, reused=True), job.completed(1, "parse"), job.failed(1)]
    for permutation in itertools.permutations(events):
        states = await _states(engine, permutation)
        assert states == sorted(states, key=order.index)
        assert states[-1] == "failed"


async def _states(engine: Engine, events: Sequence[Event]) -> list[str]:
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE documents, jobs, job_stages, stage_runs"))
    states = []
    for event in events:
        await tell(engine, event)
        states.append(await state_of(engine, 1))
    return states


async def test_the_first_failure_is_the_one_that_is_told(engine: Engine) -> None:
    job = Job()
    first = job.failed(1, failure=Failure("payload_malformed", "not XML", "rejected"))
    await tell(engine, job.failed(1, "kg"), first)
    row = await one(engine, "documents")
    assert (row.state, row.failure_stage, row.failure_code) == ("rejected", "parse", "payload_malformed")


async def test_retries_are_counted_by_stage(engine: Engine) -> None:
    job = Job()
    await tell(engine, job.retrying(1, attempt=3), job.retrying(1, attempt=2))
    await tell(engine, job.retrying(1, "kg", attempt=2), job.retrying(1, attempt=2))
    assert (await one(engine, "documents")).retry_count_per_stage == {"parse": 2, "kg": 1}


async def test_the_current_stage_is_that_of_the_latest_event(engine: Engine) -> None:
    job = Job()
    early, late = job.started(1, "parse"), job.started(1, "kg")
    await tell(engine, late)
    await tell(engine, early)
    document = await LedgerReader(engine).document("default", job.id, doc_id(1))
    assert document is not None
    assert document.current_stage == "kg"


async def test_a_stored_pdf_and_an_opened_gate_set_their_fields(engine: Engine) -> None:
    job = Job()
    await tell(engine, job.completed(1, "download", stage_type="DownloadStage"))
    row = await one(engine, "documents")
    assert (row.pdf_downloaded, row.post_pdf_started, row.pdf_ir_ready) == (True, False, False)
    await tell(engine, job.completed(1, "gate"))  # gave up, and lets nothing begin
    assert not (await one(engine, "documents")).post_pdf_started
    await tell(engine, job.completed(1, "gate", next=("kg",)))
    assert (await one(engine, "documents")).post_pdf_started


async def test_events_that_are_not_the_ledgers_are_passed_over(engine: Engine) -> None:
    job = Job()
    completed = job.event("org.medicalkg.job.completed", b"{}")
    strange = job.event("com.example.news", b"\xff")
    assert await tell(engine, completed, strange) == ()
