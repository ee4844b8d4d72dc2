"""The ledger service: records in, rows and ``job.completed`` events out."""

import logging
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from tests.unit.ledger.lifecycle import Event, Job

from medkg.contracts import topics
from medkg.contracts.cloudevents import Headers, read_envelope
from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.messages import EventType, JobCompleted
from medkg.ledger.projector import Projector
from medkg.runtime.records import Record
from medkg.storage.engine import Engine, open_engine


def records(*events: Event, first: int = 0) -> list[Record]:
    return [
        Record(topics.LIFECYCLE, 0, first + place, None, data, envelope.headers())
        for place, (envelope, data) in enumerate(events)
    ]


def whole_job(number: int = 0) -> list[Event]:
    job = Job(number)
    return [job.admitted(), job.page(0, 1, is_last=True), job.started(1), job.completed(1)]


def unreadable(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("medkg_ledger_unreadable_events_total") or 0.0


async def test_a_job_that_has_ended_is_announced_always_by_the_same_event(engine: Engine) -> None:
    projector = Projector(engine, CollectorRegistry())
    first, again = [await projector.handle(records(*whole_job())) for _ in range(2)]
    assert first == again
    assert [message.topic for message in first] == [topics.LIFECYCLE]
    envelope = read_envelope(first[0].headers)
    about = msgspec.json.decode(first[0].value, type=JobCompleted)
    assert (envelope.type, envelope.subject, first[0].key) == (EventType.JOB_COMPLETED, Job().id, Job().id)
    assert (about.state, about.documents, about.completed) == ("completed", 1, 1)
    assert envelope.time == "2026-03-01T00:00:04.000Z"


async def test_its_own_announcement_changes_nothing(engine: Engine) -> None:
    projector = Projector(engine, CollectorRegistry())
    said = (await projector.handle(records(*whole_job())))[0]
    assert await projector.handle([Record(topics.LIFECYCLE, 0, 9, None, said.value, said.headers)]) == []


@pytest.mark.parametrize(
    "headers",
    [[], [("ce_id", b"\xff")], [("ce_specversion", b"1.0"), ("ce_id", b"1\n"), ("ce_type", b"x"), ("ce_source", b"x")]],
)
async def test_an_event_without_an_envelope_is_passed_over_and_counted(
    engine: Engine, headers: Headers, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    strange = Record(topics.LIFECYCLE, 2, 77, None, b"{}", headers)
    with caplog.at_level(logging.WARNING):
        announced = await Projector(engine, registry).handle([strange, *records(*whole_job())])
    assert len(announced) == 1
    assert unreadable(registry) == 1
    assert "offset=77" in caplog.text


async def test_an_event_with_unreadable_data_is_passed_over_and_counted(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    broken = Job().event(EventType.STAGE_COMPLETED, b"\xff")
    with caplog.at_level(logging.WARNING):
        await Projector(engine, registry).handle(records(broken, broken, *whole_job()))
    assert unreadable(registry) == 2
    assert broken[0].id in caplog.text


async def test_dead_letters_are_recorded_beside_events(engine: Engine) -> None:
    dead = Record(topics.DEAD_LETTER, 0, 4, None, b"anything", [])
    assert await Projector(engine, CollectorRegistry()).handle([dead, *records(*whole_job())]) != []
    async with engine.connect() as connection:
        ids: Any = (await connection.execute(text("SELECT dead_letter_id FROM dead_letters"))).scalars().all()
    assert ids == ["medkg.dead-letter.v1/0/4"]


async def test_a_database_that_is_away_is_raised_so_that_nothing_is_lost() -> None:
    away = open_engine("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(ResourceUnavailableError):
        await Projector(away, CollectorRegistry()).handle(records(*whole_job()))
    await away.dispose()
