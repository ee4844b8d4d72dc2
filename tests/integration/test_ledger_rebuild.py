"""The ledger is a projection: made again from its topics it is the same, row for row."""

import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from tests.unit.ledger.histories import Event, history, shuffled_batches
from tests.unit.ledger.lifecycle import Job, doc_id
from tests.unit.ledger.test_ledger_fields_and_letters import letter
from tests.unit.ledger.test_ledger_projection import rows_of

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import ContractError
from medkg.ledger.rebuild import rebuild
from medkg.local.embedded_broker import embedded_broker
from medkg.runtime.broker import Publisher
from medkg.runtime.settings import KafkaSettings
from medkg.storage.engine import Engine, migrate, open_engine
from medkg.storage.ledger_fields import set_field
from medkg.storage.ledger_letters import project_dead_letters
from medkg.storage.ledger_projection import project


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


async def publish(kafka: KafkaSettings, *events: Event) -> None:
    publisher = Publisher(kafka)
    said = [Message(topics.LIFECYCLE, envelope.subject, data, envelope.headers()) for envelope, data in events]
    assert not await publisher.publish(said)
    await publisher.close()


async def run(engine: Engine, statement: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement))


async def test_a_rebuilt_ledger_equals_the_ledger_and_a_wrong_one_is_put_right(
    engine: Engine, database_url: str, kafka_settings: KafkaSettings
) -> None:
    told = history(3, jobs=14)
    await publish(kafka_settings, *told.events)
    for batch in shuffled_batches(told.events, random.Random(3)):
        await project(engine, batch)
    dead = letter(1)
    publisher = Publisher(kafka_settings)
    await publisher.publish([Message(topics.DEAD_LETTER, None, dead.value, dead.headers)])
    await publisher.close()
    checked = await rebuild(engine, database_url, kafka_settings, is_check=True)
    assert checked.records == len(told.events) + 1
    assert [(one.table, one.only_in_use, one.only_rebuilt) for one in checked.differences] == [("dead_letters", 0, 1)]

    expected = await rows_of(engine)
    await run(engine, "DELETE FROM stage_runs WHERE attempt = 1")
    await run(engine, "UPDATE jobs SET completed = completed + 1")
    wrong = await rebuild(engine, database_url, kafka_settings, is_check=True)
    assert {one.table for one in wrong.differences} == {"jobs", "stage_runs", "dead_letters"}
    assert wrong.differences[0].examples

    assert (await rebuild(engine, database_url, kafka_settings, is_check=False)).is_swapped
    found = await rows_of(engine)
    assert len(found.pop("dead_letters")) == len(expected.pop("dead_letters")) + 1
    assert found == expected
    assert not (await rebuild(engine, database_url, kafka_settings, is_check=True)).differences


async def test_counters_go_on_from_a_rebuilt_ledger(
    engine: Engine, database_url: str, kafka_settings: KafkaSettings
) -> None:
    job = Job()
    events = [job.admitted(), job.page(0, 1, 2, is_last=True), job.completed(1)]
    await publish(kafka_settings, *events)
    await rebuild(engine, database_url, kafka_settings, is_check=False)
    await project(engine, [*events, job.failed(2)])
    async with engine.connect() as connection:
        found = (await connection.execute(text("SELECT state, completed, failed FROM jobs"))).one()
    assert found == ("completed_with_failures", 1, 1)


async def test_what_was_never_an_event_survives_a_rebuild(
    engine: Engine, database_url: str, kafka_settings: KafkaSettings
) -> None:
    job = Job()
    events = [job.admitted(), job.page(0, 1)]
    await publish(kafka_settings, *events)
    await project(engine, events)
    await set_field(engine, "default", job.id, doc_id(1), "pdf_ir_ready", True)
    await set_field(engine, "default", job.id, doc_id(9), "pdf_ir_ready", True)  # before anybody told of it
    assert not (await rebuild(engine, database_url, kafka_settings, is_check=True)).differences
    expected = await rows_of(engine)
    await rebuild(engine, database_url, kafka_settings, is_check=False)
    assert await rows_of(engine) == expected


async def test_a_topic_that_has_forgotten_jobs_does_not_make_the_ledger_forget_them(
    engine: Engine, database_url: str, kafka_settings: KafkaSettings
) -> None:
    kept, expired = Job(0), Job(1)
    await publish(kafka_settings, kept.admitted())
    await project(engine, [kept.admitted(), expired.admitted()])
    with pytest.raises(ContractError, match="no longer tells of 1 of its jobs"):
        await rebuild(engine, database_url, kafka_settings, is_check=False)
    found: Any = await rows_of(engine)
    assert len(found["jobs"]) == 2
    await rebuild(engine, database_url, kafka_settings, is_check=False, allow_loss=True)
    assert len((await rows_of(engine))["jobs"]) == 1


async def test_what_is_projected_during_a_rebuild_is_not_lost(
    engine: Engine, database_url: str, kafka_settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job()
    await publish(kafka_settings, job.admitted(), job.page(0, 1, is_last=True))
    late = job.completed(1)

    from medkg.ledger import rebuild as module

    async def meanwhile(engine: Engine) -> int:
        await publish(kafka_settings, late)
        await project(engine, [late])
        return 0

    monkeypatch.setattr(module, "jobs_only_in_use", meanwhile)
    await rebuild(engine, database_url, kafka_settings, is_check=False)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT state FROM jobs"))).scalar() == "completed"


async def test_dead_letters_know_where_they_stand_after_a_rebuild(
    engine: Engine, database_url: str, kafka_settings: KafkaSettings
) -> None:
    dead = letter(1)
    publisher = Publisher(kafka_settings)
    await publisher.publish([Message(topics.DEAD_LETTER, None, dead.value, dead.headers)] * 2)
    await publisher.close()
    await project_dead_letters(engine, [letter(7)])
    await rebuild(engine, database_url, kafka_settings, is_check=False, allow_loss=True)
    async with engine.connect() as connection:
        found = (await connection.execute(text("SELECT letter_offset FROM dead_letters"))).scalars().all()
    assert len(found) == 1
    assert found[0] in (0, 1)
