"""What reaches the ledger beside the lifecycle events: gate fields set by hand or by a service, and dead letters."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from tests.unit.ledger.lifecycle import Job, doc_id

from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.ids import letter_id
from medkg.contracts.messages import DeadLetter, Failure, Position, encode
from medkg.runtime.records import Record
from medkg.storage.engine import Engine, open_engine
from medkg.storage.ledger import CHANNEL
from medkg.storage.ledger_fields import set_field
from medkg.storage.ledger_letters import HEADER, project_dead_letters
from medkg.storage.ledger_projection import MAX_NOTICED, project
from medkg.storage.ledger_reader import LedgerReader


@asynccontextmanager
async def notices(engine: Engine) -> AsyncIterator["asyncio.Queue[dict[str, Any]]"]:
    """What a listener is told while the block lasts."""
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection

        def hear(*notice: Any) -> None:
            heard.put_nowait(json.loads(notice[-1]))

        await driver.add_listener(CHANNEL, hear)
        yield heard
        await driver.remove_listener(CHANNEL, hear)


async def next_of(heard: "asyncio.Queue[dict[str, Any]]") -> dict[str, Any]:
    async with asyncio.timeout(10):
        return await heard.get()


async def rows(engine: Engine, table: str) -> list[Any]:
    async with engine.connect() as connection:
        return list((await connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))).all())


async def test_setting_a_field_wakes_those_who_listen(engine: Engine) -> None:
    job = Job()
    await project(engine, [job.page(0, 1)])
    async with notices(engine) as heard:
        assert await set_field(engine, "default", job.id, doc_id(1), "pdf_ir_ready", True) == 1
        assert await next_of(heard) == {"jobs": [], "documents": [[job.id, doc_id(1)]]}
    assert (await rows(engine, "documents"))[0].pdf_ir_ready


async def test_a_signal_that_comes_before_its_document_is_kept(engine: Engine) -> None:
    job = Job()
    assert await set_field(engine, "default", job.id, doc_id(1), "pdf_ir_ready", True) == 1
    early = (await rows(engine, "documents"))[0]
    assert (early.state, early.pdf_ir_ready) == ("expected", True)
    assert await rows(engine, "jobs") == []
    await project(engine, [job.page(0, 1, is_last=True), job.completed(1)])
    assert [(row.state, row.pdf_ir_ready) for row in await rows(engine, "documents")] == [("completed", True)]
    assert [(row.state, row.documents, row.completed) for row in await rows(engine, "jobs")] == [("completed", 1, 1)]


async def test_without_a_job_every_job_of_the_tenant_that_has_the_document_is_told(engine: Engine) -> None:
    jobs = [Job(0), Job(1), Job(2, tenant_id="other")]
    await project(engine, [job.page(0, 1) for job in jobs])
    assert await set_field(engine, "default", None, doc_id(1), "pdf_downloaded", True) == 2
    told = {row.job_id: row.pdf_downloaded for row in await rows(engine, "documents")}
    assert told == {jobs[0].id: True, jobs[1].id: True, jobs[2].id: False}
    assert await set_field(engine, "default", None, doc_id(9), "pdf_downloaded", True) == 0


async def test_a_field_can_be_taken_back(engine: Engine) -> None:
    for value in (True, False):
        await set_field(engine, "default", Job().id, doc_id(1), "pdf_ir_ready", value)
    assert not (await rows(engine, "documents"))[0].pdf_ir_ready


async def test_the_document_of_another_tenant_is_left_alone(engine: Engine) -> None:
    job = Job(tenant_id="other")
    await project(engine, [job.page(0, 1)])
    assert await set_field(engine, "default", job.id, doc_id(1), "pdf_ir_ready", True) == 0
    assert not (await rows(engine, "documents"))[0].pdf_ir_ready


@pytest.mark.parametrize("field", ["state", "job_id = '' --", "", "pdf_ir_ready "])
async def test_only_gate_fields_can_be_set(engine: Engine, field: str) -> None:
    with pytest.raises(ValueError, match="not a field that can be set; known: pdf_downloaded, pdf_ir_failed"):
        await set_field(engine, "default", Job().id, doc_id(1), field, True)


async def test_an_ended_document_and_an_opened_gate_wake_those_who_listen(engine: Engine) -> None:
    job = Job()
    async with notices(engine) as heard:
        await project(engine, [job.page(0, 1, 2), job.started(1), job.completed(1)])
        assert await next_of(heard) == {"jobs": [job.id], "documents": []}
        await project(engine, [job.completed(2, "gate", next=("kg",))])
        assert await next_of(heard) == {"jobs": [], "documents": [[job.id, doc_id(2)]]}
        await project(engine, [job.completed(1), job.started(2)])  # nothing new: nobody is woken
        await project(engine, [job.failed(2)])
        assert await next_of(heard) == {"jobs": [job.id], "documents": []}


async def test_a_notice_that_is_too_long_says_so(engine: Engine) -> None:
    job = Job()
    async with notices(engine) as heard:
        await project(engine, [job.completed(n, "gate", next=("kg",)) for n in range(MAX_NOTICED + 1)])
        notice = await next_of(heard)
        assert notice["truncated"]
        await project(
            engine, [Job(n).completed(1, "gate", next=("kg",), job_id=f"{n:0200}") for n in range(MAX_NOTICED)]
        )
        assert await next_of(heard) == {"jobs": [], "documents": [], "truncated": True}


def letter(offset: int, *, died_at: int = 1_000, **fields: Any) -> Record:
    """A record of the dead-letter topic, about a message of another one."""
    given: dict[str, Any] = {
        "failure": Failure("payload_malformed", "not XML", "rejected", causes=("SyntaxError",)),
        "position": Position("medkg.parse.v1", 0, offset),
        "worker": "worker-1",
        "stage": "parse",
        "attempt": 1,
        "job_id": Job().id,
        "tenant_id": "default",
        "doc_id": doc_id(1),
    }
    header = encode(DeadLetter(**(given | fields)))
    return Record("medkg.dead-letter.v1", 0, died_at, None, b"{}", [(HEADER, header)], died_at)


def poison(offset: int, headers: list[tuple[str, bytes]], timestamp_ms: int = 5) -> Record:
    return Record("medkg.dead-letter.v1", 3, offset, None, b"\xff", headers, timestamp_ms)


async def test_a_message_is_one_dead_letter_however_often_it_died(engine: Engine) -> None:
    records = [letter(1), letter(1, died_at=2_000, worker="worker-2"), letter(2)]
    for batch in (records, records[::-1], [records[1]]):
        await project_dead_letters(engine, batch)
    found = await LedgerReader(engine).dead_letters()
    first, second = (letter_id("medkg.parse.v1", 0, offset, Job().id, doc_id(1)) for offset in (1, 2))
    assert [(item.id, item.worker) for item in found] == [(first, "worker-1"), (second, "worker-1")]
    assert found[0].causes == ("SyntaxError",)
    assert found[0].at.timestamp() == 1.0


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff",
        b"{}",
        b"[" * 100_000,
        encode(DeadLetter(failure=Failure("c", "m"), position=Position("t", -1, 0), worker="")),
        encode(DeadLetter(failure=Failure("c", "m"), position=Position("t", 2**31, 0), worker="")),
        encode(DeadLetter(failure=Failure("c", "m"), position=Position("t", 0, 2**63), worker="")),
        encode(DeadLetter(failure=Failure("c", "m"), position=Position("t", 0, 0), worker="", attempt=2**60)),
    ],
    ids=["empty", "not UTF-8", "no fields", "deep", "before the first", "no partition", "no offset", "no attempt"],
)
async def test_a_record_that_does_not_say_what_it_was_is_listed_where_it_stands(engine: Engine, header: bytes) -> None:
    records = [poison(7, [(HEADER, header)]), letter(1), poison(8, [])]
    for _ in range(2):
        await project_dead_letters(engine, records)
    found = {item.id: item for item in await LedgerReader(engine).dead_letters()}
    known = letter_id("medkg.parse.v1", 0, 1, Job().id, doc_id(1))
    assert sorted(found) == ["medkg.dead-letter.v1/3/7", "medkg.dead-letter.v1/3/8", known]
    assert found["medkg.dead-letter.v1/3/7"].code == "contract_violated"
    assert found["medkg.dead-letter.v1/3/7"].tenant_id == ""


async def test_another_message_at_the_same_place_of_a_topic_made_anew_is_another_letter(engine: Engine) -> None:
    await project_dead_letters(engine, [letter(1), letter(1, doc_id=doc_id(2))])
    assert {item.doc_id for item in await LedgerReader(engine).dead_letters()} == {doc_id(1), doc_id(2)}


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 2**63 - 1])
async def test_the_time_of_a_letter_is_whatever_its_producer_claims(engine: Engine, timestamp_ms: int) -> None:
    await project_dead_letters(engine, [poison(1, [], timestamp_ms)])
    assert len(await LedgerReader(engine).dead_letters()) == 1


async def test_what_a_table_cannot_hold_is_cut_from_a_letter(engine: Engine) -> None:
    bad = "\x00" + "x" * 100_000
    failure = Failure(bad, bad, bad, causes=(bad,) * 50)
    fields: dict[str, Any] = dict.fromkeys(("worker", "stage", "job_id", "tenant_id", "doc_id"), bad)
    await project_dead_letters(engine, [letter(1, failure=failure, position=Position(bad, 0, 0), **fields)])
    found = (await LedgerReader(engine).dead_letters())[0]
    assert len(found.message) == 4_000
    assert [len(cause) for cause in found.causes] == [4_000] * 20


async def test_a_database_that_is_away_is_an_error_that_a_retry_may_cure() -> None:
    away = open_engine("postgresql://nobody@127.0.0.1:1/nothing")
    for attempt in (
        project(away, [Job().admitted()]),
        project_dead_letters(away, [letter(1)]),
        set_field(away, "default", Job().id, doc_id(1), "pdf_ir_ready", True),
        LedgerReader(away).overview(),
    ):
        with pytest.raises(ResourceUnavailableError, match="the database does not answer"):
            await attempt
    await away.dispose()
