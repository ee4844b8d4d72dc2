"""Which runs are told to have started."""

import asyncio

import pytest
from tests.unit.runtime.stage_kit import event, header, kind_of, request, topology

from medkg.contracts.cloudevents import Cause, Message
from medkg.runtime.outcome import Narrator
from medkg.runtime.starts import Starts

LONG = 3_600.0


def narrator(doc_id: str = "doc-1") -> Narrator:
    return Narrator("worker-1", "medkg/parse", "ParseStage", Cause("request-1"), request(topology(), doc_id=doc_id))


async def test_without_a_threshold_every_start_is_told_at_once() -> None:
    said: list[Message] = []
    Starts(said.append).begin(narrator())
    assert [kind_of(item) for item in said] == ["stage.started"]


async def test_a_quick_run_is_not_told_to_have_started() -> None:
    said: list[Message] = []
    starts, quick = Starts(said.append, 0.01), narrator()
    starts.begin(quick)
    starts.end(quick)
    await asyncio.sleep(0.03)
    assert said == []


async def test_runs_that_last_are_told_in_their_order_with_the_time_they_began(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000.0]
    monkeypatch.setattr("medkg.runtime.starts.time.time", lambda: clock[0])
    said: list[Message] = []
    starts = Starts(said.append, LONG)
    for seconds, name in ((0.0, "doc-1"), (1.0, "doc-2"), (2.0, "doc-3")):
        clock[0] = 1_000.0 + seconds
        starts.begin(narrator(name))
    clock[0] = 1_001.0 + LONG
    starts._look()
    assert [event(item).doc_id for item in said] == ["doc-1", "doc-2"]
    assert header(said[1], "ce_time") == "1970-01-01T00:16:41.000Z"
    clock[0] = 1_002.0 + LONG
    starts._look()
    assert [event(item).doc_id for item in said] == ["doc-1", "doc-2", "doc-3"]


async def test_a_run_that_lasts_is_told_by_the_clock_alone() -> None:
    said: list[Message] = []
    starts = Starts(said.append, 0.005)
    starts.begin(narrator())
    async with asyncio.timeout(5):
        while not said:
            await asyncio.sleep(0.005)
    assert [kind_of(item) for item in said] == ["stage.started"]


async def test_more_about_a_run_is_told_after_its_start_and_the_start_once() -> None:
    said: list[Message] = []
    starts, run = Starts(said.append, LONG), narrator()
    starts.begin(run)
    starts.tell(run)
    starts.tell(run)
    assert [kind_of(item) for item in said] == ["stage.started"]
