"""What a redrive does to the ledger: the document is under way again, and its job may end once more."""

import itertools
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.unit.ledger.lifecycle import Event, Job, doc_id
from tests.unit.ledger.test_ledger_fields_and_letters import letter, rows

from medkg.contracts import topics
from medkg.contracts.cloudevents import read_envelope
from medkg.contracts.ids import letter_id
from medkg.contracts.messages import Failure
from medkg.ledger.projector import Projector
from medkg.runtime.records import Record
from medkg.storage.engine import Engine
from medkg.storage.ledger_answers import LetterQuery
from medkg.storage.ledger_letters import project_dead_letters
from medkg.storage.ledger_projection import project
from medkg.storage.ledger_reader import LedgerReader


async def told(engine: Engine, *events: Event) -> tuple[str, str]:
    """The state of the job and of its first document, once the events are projected."""
    result = await project(engine, events)
    assert not result.refused
    return (await rows(engine, "jobs"))[0].state, (await rows(engine, "documents"))[0].state


async def test_a_redriven_document_is_under_way_again_and_ends_again(engine: Engine) -> None:
    job = Job()
    assert await told(engine, job.page(0, 1, is_last=True), job.failed(1)) == ("completed_with_failures", "failed")
    assert await told(engine, job.redriven(1)) == ("running", "in_flight")
    found = await LedgerReader(engine).document("default", job.id, doc_id(1))
    assert found is not None
    assert found.failure is None
    assert await told(engine, job.completed(1, redrive=1)) == ("completed", "completed")
    counts = (await rows(engine, "jobs"))[0]
    assert (counts.documents, counts.completed, counts.failed, counts.redrives) == (1, 1, 0, 1)


async def test_a_document_that_fails_again_is_failed_with_what_the_last_round_says(engine: Engine) -> None:
    job, worse = Job(), Failure("stage_timeout", "too slow")
    await told(engine, job.page(0, 1, is_last=True), job.failed(1), job.redriven(1))
    assert await told(engine, job.failed(1, redrive=1, failure=worse)) == ("completed_with_failures", "failed")
    assert (await rows(engine, "documents"))[0].failure_code == "stage_timeout"
    assert await told(engine, job.redriven(1, offset=2, redrive=1), job.completed(1, redrive=2)) == (
        "completed",
        "completed",
    )


async def test_the_failure_of_another_branch_counts_until_it_is_redriven_too(engine: Engine) -> None:
    job = Job()
    await told(engine, job.page(0, 1, is_last=True), job.failed(1), job.failed(1, "check"))
    assert await told(engine, job.redriven(1), job.completed(1, redrive=1)) == ("completed_with_failures", "failed")
    assert await told(engine, job.redriven(1, "check", offset=2)) == ("completed", "completed")


async def test_a_failure_that_is_heard_of_after_its_redrive_does_not_count(engine: Engine) -> None:
    job = Job()
    events = [job.page(0, 1, is_last=True), job.failed(1), job.redriven(1), job.completed(1, redrive=1)]
    expected: list[Any] = []
    for order in itertools.permutations(events):
        await forget(engine)
        for event in order:
            await project(engine, [event])
        found = [*(await rows(engine, "jobs")), *(row[:-2] for row in await rows(engine, "documents"))]
        expected = expected or found
        assert found == expected
    assert (await rows(engine, "documents"))[0].state == "completed"


async def forget(engine: Engine) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql("TRUNCATE jobs, documents, pages, stage_runs, job_stages, dead_letters")


async def test_a_redriven_page_is_open_until_it_is_read(engine: Engine) -> None:
    job = Job()
    events = [job.page(0, 1), job.completed(1), job.page_failed(1)]
    assert (await told(engine, *events))[0] == "completed_with_failures"
    assert (await told(engine, job.redriven(None, "ingest", page=1)))[0] == "running"
    assert [row.state for row in await rows(engine, "pages")] == ["done", "open"]
    assert (await told(engine, job.page(1, 2, is_last=True), job.completed(2)))[0] == "completed"
    found = (await rows(engine, "jobs"))[0]
    assert (found.pages_done, found.pages_failed) == (2, 0)


async def test_attempts_of_another_round_are_runs_of_their_own(engine: Engine) -> None:
    job = Job()
    await told(engine, job.page(0, 1), job.started(1), job.failed(1), job.redriven(1), job.started(1, redrive=1))
    found = await LedgerReader(engine).document("default", job.id, doc_id(1))
    assert found is not None
    assert [(run.stage, run.redrive, run.attempt, run.state) for run in found.timeline] == [
        ("parse", 0, 1, "failed"),
        ("parse", 1, 1, "started"),
    ]


async def test_redriving_the_same_letter_twice_counts_once(engine: Engine) -> None:
    job = Job()
    await told(engine, job.page(0, 1, is_last=True), job.failed(1))
    again = job.redriven(1)
    await told(engine, again, again)
    await told(engine, again)
    await told(engine, job.redriven(1, reason="once more"))
    assert (await rows(engine, "jobs"))[0].redrives == 1


async def test_a_job_that_ends_after_a_redrive_says_so_by_another_event(engine: Engine) -> None:
    job, projector = Job(), Projector(engine, CollectorRegistry())

    async def said(*events: Event) -> list[str]:
        records = [
            Record(topics.LIFECYCLE, 0, n, None, data, envelope.headers()) for n, (envelope, data) in enumerate(events)
        ]
        return [read_envelope(message.headers).id for message in await projector.handle(records)]

    first = await said(job.page(0, 1, is_last=True), job.failed(1))
    assert await said(job.redriven(1)) == []
    second = await said(job.completed(1, redrive=1))
    assert len(first) == len(second) == 1
    assert first != second
    assert await said(job.completed(1, redrive=1)) == second


async def test_a_letter_says_what_was_decided_about_it_whichever_is_heard_first(engine: Engine) -> None:
    reader, job = LedgerReader(engine), Job()
    await project_dead_letters(engine, [letter(1), letter(2), letter(3)])
    await project(engine, [job.redriven(1), job.dropped(1, offset=2), job.redriven(1, offset=4)])
    states = {item.position.offset: item.state for item in await reader.dead_letters()}
    assert states == {1: "redriven", 2: "dropped", 3: "dead"}  # the fourth has not been heard of
    await project_dead_letters(engine, [letter(4)])
    late = (
        await reader.dead_letters(
            asked=LetterQuery(dead_letter_id=letter_id("medkg.parse.v1", 0, 4, job.id, doc_id(1)))
        )
    )[0]
    assert (late.state, late.job_id) == ("redriven", job.id)
    assert late.decided is not None
    assert (late.decided.by, late.decided.reason) == ("ann", "fixed")
    assert (await reader.overview()).dead_letters == 1


async def test_what_is_decided_about_a_message_that_could_not_be_read_touches_no_job(engine: Engine) -> None:
    bare: dict[str, Any] = {"job_id": "", "tenant_id": "", "doc_id": "", "stage": ""}
    result = await project(engine, [Job().redriven(1, **bare), Job().dropped(1, offset=2, **bare)])
    assert not result.refused
    assert await rows(engine, "jobs") == []
    assert {row.state for row in await rows(engine, "dead_letters")} == {"redriven", "dropped"}


@pytest.mark.parametrize(
    "fields",
    [{"job_id": " "}, {"redrive": -1}, {"redrive": 2**60}, {"page": -1}, {"job_id": ""}, {"stage": "a b"}],
    ids=str,
)
async def test_a_decision_that_cannot_be_meant_is_passed_over(engine: Engine, fields: dict[str, Any]) -> None:
    result = await project(engine, [Job().redriven(1, **fields), Job().page(0, 1)])
    assert [refused.index for refused in result.refused] == [0]
    assert len(await rows(engine, "documents")) == 1


async def test_the_reason_of_a_decision_is_kept_within_bounds(engine: Engine) -> None:
    await project(engine, [Job().redriven(1, reason="\x00" + "x" * 100_000, actor="y" * 1_000)])
    found = (await rows(engine, "dead_letters"))[0]
    assert (len(found.redriven_reason), len(found.redriven_by)) == (1_000, 200)
