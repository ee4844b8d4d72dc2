"""The worker's promises, with a fake consumer and a fake producer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import ContractError, MedkgError, ResourceUnavailableError
from medkg.runtime import delivery as delivery_module
from medkg.runtime import worker as worker_module
from medkg.runtime.metrics import Metrics
from medkg.runtime.records import Partition, Record
from medkg.runtime.resilience.stopping import WorkerStopped
from medkg.runtime.worker import WindowSettings, Worker

TOPIC = "work"


@dataclass
class FakeIntake:
    stored: dict[Partition, int] = field(default_factory=dict)
    is_paused: bool = False
    pauses: int = 0
    is_away: bool = False

    def pause(self) -> None:
        self.is_paused = True
        self.pauses += 1

    def is_current(self) -> bool:
        return not self.is_away

    def resume(self) -> None:
        self.is_paused = False

    def store(self, offsets: dict[Partition, int]) -> None:
        self.stored |= offsets


@dataclass
class FakePublisher:
    published: list[Message] = field(default_factory=list)
    flushes: int = 0
    outages: int = 0
    refuses: str = ""
    gate: asyncio.Event | None = None

    async def publish(self, messages: Sequence[Message]) -> dict[int, str]:
        self.flushes += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.outages:
            self.outages -= 1
            raise ResourceUnavailableError("publishing: no broker")
        bad = {i: "too large" for i, item in enumerate(messages) if self.refuses and item.key == self.refuses}
        self.published += [item for i, item in enumerate(messages) if i not in bad]
        return bad


class Echo:
    """Publishes one message a record; records in ``held`` wait until they are let go."""

    def __init__(self) -> None:
        self.held: dict[int, asyncio.Event] = {}
        self.begun: list[int] = []
        self.outages = 0

    async def handle(self, records: Sequence[Record]) -> list[Message]:
        if self.outages:
            self.outages -= 1
            raise ResourceUnavailableError("handling: no store")
        for record in records:
            self.begun.append(record.offset)
            if record.offset in self.held:
                await self.held[record.offset].wait()
        return [Message("next", str(record.offset), b"", []) for record in records]

    def refuse(self, records: Sequence[Record], error: MedkgError) -> list[Message]:
        return [Message("dead", f"dead-{record.offset}", error.message.encode(), []) for record in records]


def records(*offsets: int, partition: int = 0) -> list[Record]:
    return [Record(TOPIC, partition, offset, b"k", b"v", []) for offset in offsets]


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)
    except TimeoutError:
        pytest.fail(f"never happened: {what}")


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "_RETRY_SECONDS", (0.0,))


@asynccontextmanager
async def at_work(
    handler: Echo, publisher: FakePublisher, **settings: int | float
) -> AsyncIterator[tuple[Worker, FakeIntake]]:
    intake = FakeIntake()
    window = WindowSettings(**({"lanes": 4, "drain_seconds": 5.0} | settings))  # type: ignore[arg-type]  # see there
    worker = Worker(handler, publisher, window, Metrics().worker("test"))
    worker.start(intake)
    worker.assigned([Partition(TOPIC, 0), Partition(TOPIC, 1)])
    yield worker, intake
    for event in handler.held.values():
        event.set()
    await worker.drain()


P0 = Partition(TOPIC, 0)


async def test_one_slow_document_holds_nobody_up_and_is_not_passed_by_the_offset() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.held[0] = asyncio.Event()
    async with at_work(handler, publisher) as (worker, intake):
        worker.accept(records(0, 1, 2, 3))
        await until(lambda: len(publisher.published) == 3, "the other three are published")
        assert intake.stored == {}

        handler.held[0].set()
        await until(lambda: intake.stored.get(P0) == 4, "the offset covers all four")
    assert [item.key for item in publisher.published] == ["1", "2", "3", "0"]


async def test_an_offset_is_stored_only_after_its_results_are_delivered() -> None:
    handler, publisher = Echo(), FakePublisher(gate=asyncio.Event())
    async with at_work(handler, publisher) as (worker, intake):
        worker.accept(records(0))
        await until(lambda: publisher.flushes == 1, "a flush is under way")
        assert intake.stored == {}
        assert publisher.gate is not None
        publisher.gate.set()
        await until(lambda: intake.stored == {P0: 1}, "the offset is stored")


async def test_what_finishes_during_a_flush_goes_out_with_one_flush() -> None:
    handler, publisher = Echo(), FakePublisher(gate=asyncio.Event())
    async with at_work(handler, publisher, lanes=8) as (worker, intake):
        worker.accept(records(0))
        await until(lambda: publisher.flushes == 1, "the first flush")
        worker.accept(records(*range(1, 50)))
        await until(lambda: len(handler.begun) == 50, "all were handled during it")
        assert publisher.gate is not None
        publisher.gate.set()
        await until(lambda: intake.stored.get(P0) == 50, "all are stored")
    assert publisher.flushes == 2


async def test_above_the_high_water_mark_partitions_pause_and_under_the_low_one_they_resume() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.held[0] = asyncio.Event()
    async with at_work(handler, publisher, lanes=1, high_water=5, low_water=2) as (worker, intake):
        worker.accept(records(*range(5)))
        assert not intake.is_paused
        worker.accept(records(5))
        assert intake.is_paused
        handler.held[0].set()
        await until(lambda: not intake.is_paused, "resumed")
        await until(lambda: intake.stored.get(P0) == 6, "all done")


async def test_an_unreachable_broker_loses_nothing() -> None:
    handler, publisher = Echo(), FakePublisher(outages=3)
    async with at_work(handler, publisher) as (worker, intake):
        worker.accept(records(0, 1))
        await until(lambda: intake.stored.get(P0) == 2, "both stored in the end")
    assert sorted(str(item.key) for item in publisher.published) == ["0", "1"]


async def test_an_unavailable_store_is_waited_for() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.outages = 3
    async with at_work(handler, publisher) as (worker, intake):
        worker.accept(records(0))
        await until(lambda: intake.stored.get(P0) == 1, "stored in the end")


async def test_results_that_kafka_refuses_become_a_dead_letter_and_block_nothing() -> None:
    handler, publisher = Echo(), FakePublisher(refuses="1")
    async with at_work(handler, publisher) as (worker, intake):
        worker.accept(records(0, 1, 2))
        await until(lambda: intake.stored.get(P0) == 3, "all three settled")
    assert {item.key for item in publisher.published} == {"0", "2", "dead-1"}


class Refusing(FakePublisher):
    """Refuses what ``is_refused`` says, for good."""

    def __init__(self, is_refused: Callable[[Message], bool]) -> None:
        super().__init__()
        self.is_refused = is_refused

    async def publish(self, messages: Sequence[Message]) -> dict[int, str]:
        bad = {index: "too large" for index, item in enumerate(messages) if self.is_refused(item)}
        self.published += [item for index, item in enumerate(messages) if index not in bad]
        return bad


class Burying(Echo):
    """Dead letters as a stage makes them: the message as it was, with the reason in the last header."""

    def refuse(self, records: Sequence[Record], error: MedkgError) -> list[Message]:
        headers = [("original", b"x" * 100), ("reason", b"why")]
        letter = Message(topics.DEAD_LETTER, "dead", b"x" * 100, headers)
        return [letter, Message(topics.LIFECYCLE, "failed", b"said", [])]


async def test_a_message_too_large_for_its_own_dead_letter_is_left_where_the_letter_says_it_is() -> None:
    handler, publisher = Burying(), Refusing(lambda item: item.key == "1" or len(item.value) >= 100)
    async with at_work(handler, publisher) as (worker, intake):
        worker.accept(records(0, 1, 2))
        await until(lambda: intake.stored.get(P0) == 3, "all three settled")
        assert worker.is_healthy
    sent = {item.key: item for item in publisher.published}
    assert (sent["dead"].value, sent["dead"].headers) == (b"", [("reason", b"why")])
    assert sent["failed"].value == b"said"


async def test_a_dead_letter_that_kafka_never_takes_stops_the_worker_instead_of_losing_a_record() -> None:
    handler, publisher = Burying(), Refusing(lambda item: True)
    async with at_work(handler, publisher, drain_seconds=0) as (worker, intake):
        worker.accept(records(0))
        await until(lambda: not worker.is_healthy, "the worker has stopped")
        assert isinstance(worker.failure, ContractError)
    assert intake.stored == {}


async def test_a_partition_lost_before_anything_of_it_is_begun_leaves_no_other_paused() -> None:
    handler, publisher = Echo(), FakePublisher()
    async with at_work(handler, publisher, lanes=1, high_water=5, low_water=2) as (worker, intake):
        worker.accept(records(*range(6)))
        assert intake.is_paused
        worker.lost([P0])
        assert not intake.is_paused


async def test_a_partition_taken_away_is_drained_and_its_offset_told() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.held[0] = asyncio.Event()
    async with at_work(handler, publisher, lanes=1) as (worker, _):
        worker.accept(records(0, 1, 2))
        await until(lambda: handler.begun == [0], "the first is begun")
        release = asyncio.create_task(worker.release([P0]))
        await asyncio.sleep(0)
        assert not release.done()
        handler.held[0].set()
        assert await release == {P0: 1}  # what was not begun is left to the next owner
    assert handler.begun == [0]


async def test_results_of_a_lost_partition_are_not_published() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.held[0] = asyncio.Event()
    async with at_work(handler, publisher) as (worker, intake):
        worker.accept(records(0))
        await until(lambda: handler.begun == [0], "it is begun")
        worker.lost([P0])
        handler.held[0].set()
        worker.accept(records(7, partition=1))
        await until(lambda: intake.stored == {Partition(TOPIC, 1): 8}, "the other partition goes on")
    assert [item.key for item in publisher.published] == ["7"]


async def test_a_drain_that_takes_too_long_abandons_uncommitted() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.held[1] = asyncio.Event()
    intake = FakeIntake()
    worker = Worker(handler, publisher, WindowSettings(lanes=2, drain_seconds=0.05), Metrics().worker("test"))
    worker.start(intake)
    worker.assigned([P0])
    worker.accept(records(0, 1, 2))
    await until(lambda: intake.stored == {P0: 1}, "the first is stored")

    assert await worker.drain() == 1
    assert intake.stored == {P0: 1}


async def test_a_bug_in_the_handler_stops_the_worker_instead_of_losing_a_record() -> None:
    class Broken(Echo):
        async def handle(self, records: Sequence[Record]) -> list[Message]:
            raise RuntimeError("bug")

    failed = asyncio.Event()
    intake = FakeIntake()
    settings = WindowSettings(lanes=1, drain_seconds=0)
    worker = Worker(Broken(), FakePublisher(), settings, Metrics().worker("test"), failed.set)
    worker.start(intake)
    worker.assigned([P0])
    worker.accept(records(0))
    async with asyncio.timeout(5):
        await failed.wait()
    assert not worker.is_healthy
    assert intake.stored == {}
    await worker.drain()


async def test_a_worker_that_stopped_itself_drains_at_once_and_finishes_what_other_lanes_have_begun() -> None:
    class Stopping(Echo):
        async def handle(self, records: Sequence[Record]) -> list[Message]:
            if records[0].offset == 1:
                raise WorkerStopped("50 dead letters in a row")
            return await super().handle(records)

    handler, publisher, intake = Stopping(), FakePublisher(), FakeIntake()
    handler.held[0] = asyncio.Event()
    worker = Worker(handler, publisher, WindowSettings(lanes=2, drain_seconds=60), Metrics().worker("test"))
    worker.start(intake)
    worker.assigned([P0])
    worker.accept(records(0, 1))
    await until(lambda: not worker.is_healthy, "the worker has stopped")
    async with asyncio.timeout(5):
        draining = asyncio.create_task(worker.drain())
        await asyncio.sleep(0)
        assert not draining.done()  # the other lane is at work
        handler.held[0].set()
        assert await draining == 1
    assert intake.stored == {P0: 1}  # the record of the dead lane is done again


async def test_a_drain_does_not_wait_for_a_publisher_that_died() -> None:
    handler, intake = Burying(), FakeIntake()
    settings = WindowSettings(lanes=1, drain_seconds=60)
    worker = Worker(handler, Refusing(lambda item: True), settings, Metrics().worker("test"))
    worker.start(intake)
    worker.assigned([P0])
    worker.accept(records(0, 1, 2))
    draining = asyncio.create_task(worker.drain())  # before it has died: the wait is under way then
    async with asyncio.timeout(5):
        await draining
    assert not worker.is_healthy
    assert intake.stored == {}


async def test_a_replica_that_was_frozen_past_its_session_publishes_nothing_until_it_knows_what_it_owns() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.held[0] = asyncio.Event()
    async with at_work(handler, publisher) as (worker, intake):
        worker.accept(records(0) + records(7, partition=1))
        await until(lambda: len(publisher.published) == 1, "the other partition goes on")

        intake.is_away = True
        handler.held[0].set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(publisher.published) == 1

        worker.lost([P0])  # what the first poll after the freeze says
        intake.is_away = False
        worker.accept(records(8, partition=1))
        await until(lambda: intake.stored.get(Partition(TOPIC, 1)) == 9, "what is still owned goes on")
    assert [item.key for item in publisher.published] == ["7", "8"]
    assert P0 not in intake.stored


async def test_partitions_are_paused_by_size_as_well_as_by_number() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.held = {offset: asyncio.Event() for offset in range(4)}
    large = [Record(TOPIC, 0, offset, b"k", b"x" * 1_000, []) for offset in range(4)]
    async with at_work(handler, publisher, high_water=1_000, high_water_bytes=3_500) as (worker, intake):
        worker.accept(large[:3])
        assert not intake.is_paused
        worker.accept(large[3:])
        assert intake.is_paused
        for offset in range(3):
            handler.held[offset].set()
        await until(lambda: not intake.is_paused, "under half of the bytes it goes on")


async def test_while_memory_is_short_fewer_documents_run_at_once_and_all_run_in_the_end() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.held = {offset: asyncio.Event() for offset in range(8)}
    async with at_work(handler, publisher, lanes=4) as (worker, intake):
        worker.shrink(0.25)
        worker.accept(records(*range(8)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert handler.begun == [0]

        worker.shrink(1.0)
        await until(lambda: handler.begun == [0, 1, 2, 3], "all lanes are at work again")
        for event in handler.held.values():
            event.set()
        await until(lambda: intake.stored.get(P0) == 8, "nothing was left behind")


def of_tenant(name: str, *offsets: int) -> list[Record]:
    return [Record(TOPIC, 0, offset, b"k", b"v", [("ce_tenantid", name.encode())]) for offset in offsets]


async def test_a_tenant_with_one_document_goes_before_the_thousandth_of_another() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.held = {0: asyncio.Event(), 500: asyncio.Event()}
    async with at_work(handler, publisher, lanes=1, is_fair=True) as (worker, intake):
        worker.accept([*of_tenant("large", *range(500)), *of_tenant("small", 500), *of_tenant("other", 501)])
        await until(lambda: handler.begun == [0, 500], "both lanes are busy")
        handler.held[0].set()
        await until(lambda: 499 in handler.begun, "the one lane does the rest")
        handler.held[500].set()
        await until(lambda: intake.stored.get(P0) == 502, "all are done")
    assert handler.begun[:3] == [0, 500, 501]


async def test_a_tenant_of_whom_no_lane_has_anything_does_not_wait_for_one() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.held = {offset: asyncio.Event() for offset in range(20)}
    async with at_work(handler, publisher, lanes=8, is_fair=True) as (worker, _):
        worker.accept(of_tenant("large", *range(10)))
        await until(lambda: len(handler.begun) == 8, "one tenant has all lanes")
        worker.accept(of_tenant("small", 10, 11))
        await until(lambda: 10 in handler.begun, "another has a spare one")
        worker.accept(of_tenant("third", 12))
        await until(lambda: 12 in handler.begun, "and a third the other")
        worker.accept(of_tenant("fourth", 13))
        await asyncio.sleep(0.01)
        assert handler.begun == [*range(8), 10, 12], "there is none for a second document, nor a third spare lane"
        handler.held[10].set()
        await until(lambda: handler.begun[-1] == 13, "the fourth tenant is next")


async def test_there_are_no_spare_lanes_while_memory_is_short() -> None:
    handler, publisher = Echo(), FakePublisher()
    handler.held = {0: asyncio.Event(), 1: asyncio.Event()}
    async with at_work(handler, publisher, lanes=2, is_fair=True) as (worker, _):
        worker.shrink(0.5)
        worker.accept([*of_tenant("large", 0), *of_tenant("small", 1)])
        await until(lambda: handler.begun == [0], "one at a time")
        await asyncio.sleep(0.01)
        assert handler.begun == [0]
        worker.shrink(1.0)
        await until(lambda: handler.begun == [0, 1], "there is room again")


async def test_what_comes_while_a_handler_rests_is_one_batch_and_what_it_made_is_out_by_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler, publisher, rested = Batches(), FakePublisher(), asyncio.Event()

    async def rest(count: int, worked_seconds: float) -> None:
        await rested.wait()

    monkeypatch.setattr(worker_module, "rest", rest)
    async with at_work(handler, publisher, lanes=1, take=100, is_paced=True) as (worker, intake):
        worker.accept(records(0))
        await until(lambda: intake.stored.get(P0) == 1, "the first is published and stored")
        for offset in range(1, 8):
            worker.accept(records(offset))
            await asyncio.sleep(0.001)
        assert handler.sizes == [1]
        rested.set()
        await until(lambda: intake.stored.get(P0) == 8, "all are done")
    assert handler.sizes == [1, 7]


class Batches(Echo):
    """Says how many records it was given at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def handle(self, records: Sequence[Record]) -> list[Message]:
        self.sizes.append(len(records))
        return await super().handle(records)


async def test_more_is_wanted_only_while_nothing_waits_for_a_lane() -> None:
    handler, publisher = Echo(), FakePublisher()
    for offset in range(3):
        handler.held[offset] = asyncio.Event()
    async with at_work(handler, publisher, lanes=2) as (worker, _):
        assert worker.wants_more.is_set()
        worker.accept(records(0, 1, 2))
        assert not worker.wants_more.is_set()
        await until(lambda: len(handler.begun) == 2, "both lanes are busy")
        assert not worker.wants_more.is_set()
        handler.held[0].set()
        await until(lambda: len(handler.begun) == 3, "the third has a lane")
        assert worker.wants_more.is_set()
        worker.accept(records(3))
        worker.lost([P0])
        assert worker.wants_more.is_set()
