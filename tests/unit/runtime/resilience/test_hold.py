"""A worker whose breaker is open: it takes nothing, burns nothing, and is in nobody's way."""

import asyncio
from collections.abc import Sequence

import pytest
from tests.unit.runtime.test_worker import P0, TOPIC, FakeIntake, FakePublisher, at_work, records, until

from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import MedkgError, SourceUnavailableError
from medkg.contracts.topology import Breaker as BreakerRule
from medkg.runtime.metrics import Metrics
from medkg.runtime.records import Partition, Record
from medkg.runtime.resilience.breaker import Breaker
from medkg.runtime.resilience.stopping import WorkerStopped
from medkg.runtime.worker import WindowSettings, Worker

DOWN = SourceUnavailableError("503")
RULE = BreakerRule(failures=3, reset_seconds=30)


class Guarded:
    """Publishes one message a record, unless its breaker is open."""

    def __init__(self, name: str = "embed.openai/gpu-bound") -> None:
        self.breaker = Breaker(name, RULE, "a", lambda change: None)
        self.held: dict[int, asyncio.Event] = {}
        self.begun: list[int] = []
        self.admitted: list[int] = []
        self.is_down = False

    async def handle(self, given: Sequence[Record]) -> list[Message]:
        self.begun += [record.offset for record in given]
        turn = self.breaker.admit()
        self.admitted += [record.offset for record in given]
        await asyncio.sleep(0)
        self.breaker.ended(turn, DOWN if self.is_down else None)
        return [Message("next", str(record.offset), b"", []) for record in given]

    def refuse(self, given: Sequence[Record], error: MedkgError) -> list[Message]:
        return []

    def trip(self) -> None:
        for _ in range(RULE.failures):
            self.breaker.ended(self.breaker.admit(), DOWN)


async def test_an_open_breaker_pauses_the_partitions_and_what_waits_goes_on_when_it_closes() -> None:
    handler, publisher = Guarded(), FakePublisher()
    handler.trip()
    async with at_work(handler, publisher) as (worker, intake):  # type: ignore[arg-type]  # a handler like the other
        worker.accept(records(*range(10)))
        await until(lambda: len(handler.begun) == 4, "every lane has met the breaker")
        assert intake.is_paused
        assert (handler.admitted, publisher.published, intake.stored) == ([], [], {})

        worker.assigned([Partition(TOPIC, 2)])
        intake.resume()  # as a fresh partition is: not paused
        worker.accept(records(0, partition=2))
        assert intake.is_paused

        handler.breaker.dissolve()
        await until(lambda: intake.stored.get(P0) == 10, "all are done")
        assert not intake.is_paused
    assert sorted(int(str(item.key)) for item in publisher.published) == [0, *range(10)]


async def test_half_open_lets_one_document_through() -> None:
    handler, publisher = Guarded(), FakePublisher()
    handler.trip()
    async with at_work(handler, publisher) as (worker, intake):  # type: ignore[arg-type]  # a handler like the other
        worker.accept(records(*range(10)))
        await until(lambda: len(handler.begun) == 4, "every lane has met the breaker")
        handler.is_down = True
        handler.breaker.change(RULE.model_copy(update={"reset_seconds": 0.0}), 1)  # due now
        await until(lambda: len(handler.admitted) >= 1, "one is let through")
        assert len(handler.admitted) == 1
        assert intake.is_paused
        handler.breaker.dissolve()


async def test_waiting_for_a_breaker_is_not_a_stall() -> None:
    handler = Guarded()
    handler.trip()
    async with at_work(handler, FakePublisher()) as (worker, _):  # type: ignore[arg-type]  # a handler like the other
        worker.accept(records(0))
        await until(lambda: len(handler.begun) == 1, "the lane has met the breaker")
        await until(lambda: worker.seconds_without_progress == 0.0, "it counts as held")
        assert worker.is_healthy
        handler.breaker.dissolve()


async def test_neither_a_rebalance_nor_a_stop_waits_for_a_breaker() -> None:
    handler, publisher, intake = Guarded(), FakePublisher(), FakeIntake()
    handler.trip()
    worker = Worker(handler, publisher, WindowSettings(lanes=2, drain_seconds=60), Metrics().worker("test"))
    worker.start(intake)
    worker.assigned([P0, Partition(TOPIC, 1)])
    worker.accept([*records(0), *records(5, partition=1)])
    await until(lambda: len(handler.begun) == 2, "both lanes have met the breaker")
    async with asyncio.timeout(1):
        assert await worker.release([P0]) == {}
        assert await worker.drain() == 2  # to be done again by whoever comes next
    assert (publisher.published, intake.stored) == ([], {})


async def test_what_was_taken_away_while_it_waited_is_not_run_any_more() -> None:
    handler, publisher = Guarded(), FakePublisher()
    handler.trip()
    async with at_work(handler, publisher) as (worker, intake):  # type: ignore[arg-type]  # a handler like the other
        worker.accept([*records(0), *records(5, partition=1)])
        await until(lambda: len(handler.begun) == 2, "both have met the breaker")
        worker.lost([P0])
        handler.breaker.dissolve()
        await until(lambda: intake.stored == {Partition(TOPIC, 1): 6}, "the other one is done")
    assert handler.admitted == [5]


async def test_the_metric_says_paused_by_breaker_as_long_as_it_lasts() -> None:
    handler, metrics = Guarded(), Metrics()
    handler.trip()
    worker = Worker(handler, FakePublisher(), WindowSettings(lanes=1, drain_seconds=1), metrics.worker("embed"))
    worker.start(FakeIntake())
    worker.assigned([P0])

    def shown() -> float | None:
        return metrics.registry.get_sample_value("medkg_worker_paused", {"service": "embed", "reason": "breaker"})

    assert shown() == 0
    worker.accept(records(0))
    await until(lambda: shown() == 1, "the metric says so")
    handler.breaker.dissolve()
    await until(lambda: shown() == 0, "and says when it is over")
    await worker.drain()


async def test_a_worker_that_must_not_go_on_says_why_and_stores_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Full(Guarded):
        async def handle(self, given: Sequence[Record]) -> list[Message]:
            raise WorkerStopped("101 documents in a row have failed; roll back")

    publisher, intake, ended = FakePublisher(), FakeIntake(), asyncio.Event()
    worker = Worker(Full(), publisher, WindowSettings(lanes=2, drain_seconds=1), Metrics().worker("t"), ended.set)
    worker.start(intake)
    worker.assigned([P0])
    worker.accept(records(0, 1, 2))
    await asyncio.wait_for(ended.wait(), 5)
    assert isinstance(worker.failure, WorkerStopped)
    assert not worker.is_healthy
    await worker.drain()
    assert (publisher.published, intake.stored) == ([], {})
    assert "101 documents in a row have failed; roll back" in caplog.text
    assert "Traceback" not in caplog.text
