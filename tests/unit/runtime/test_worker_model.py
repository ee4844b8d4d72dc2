"""The worker against a model of Kafka: whatever happens to it, in whatever order, nothing is lost and nobody waits."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import MedkgError, ResourceUnavailableError
from medkg.runtime import delivery as delivery_module
from medkg.runtime.metrics import Metrics
from medkg.runtime.records import Partition, Record
from medkg.runtime.worker import WindowSettings, Worker

PARTITIONS = (0, 1)
HIGH, LOW, LANES = 6, 2, 3
BATCH = 8  # most records of one delivery
Place = tuple[int, int]  # partition, offset


def partition(number: int) -> Partition:
    return Partition("work", number)


class WorkerMachine(RuleBasedStateMachine):
    """Kafka has an endless log in each of two partitions, and one committed offset for each.

    A restart, a lost partition and a released one all go on from the committed offset, as in a real group.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.retry_seconds = delivery_module._RETRY_SECONDS
        delivery_module._RETRY_SECONDS = (0.0,) * len(self.retry_seconds)  # type: ignore[assignment]  # as many
        self.committed = dict.fromkeys(PARTITIONS, 0)
        self.delivered = dict.fromkeys(PARTITIONS, 0)  # the end of what any worker has ever been given
        self.published: set[Place] = set()
        self.is_broker_away = False
        self.fresh_worker()

    # the worker's surroundings

    def fresh_worker(self) -> None:
        self.owned: set[int] = set()
        self.position: dict[int, int] = {}
        self.under_way: dict[Place, list[asyncio.Event]] = {}
        self.is_paused = False
        window = WindowSettings(lanes=LANES, high_water=HIGH, low_water=LOW, drain_seconds=0)
        self.worker = Worker(self, self, window, Metrics().worker("model"))
        self.run(self.started())

    async def started(self) -> None:
        self.worker.start(self)

    async def handle(self, records: Sequence[Record]) -> list[Message]:
        for record in records:
            let_go = asyncio.Event()
            self.under_way.setdefault((record.partition, record.offset), []).append(let_go)
            await let_go.wait()
        return [Message(f"{record.partition}", f"{record.offset}", b"", []) for record in records]

    def refuse(self, records: Sequence[Record], error: MedkgError) -> list[Message]:
        raise AssertionError("nothing is refused here")

    async def publish(self, messages: Sequence[Message]) -> dict[int, str]:
        await asyncio.sleep(0)
        if self.is_broker_away:
            raise ResourceUnavailableError("publishing: no broker")
        self.published |= {(int(item.topic), int(str(item.key))) for item in messages}
        return {}

    def pause(self) -> None:
        self.is_paused = True

    def is_current(self) -> bool:
        return True

    def resume(self) -> None:
        self.is_paused = False

    def store(self, offsets: dict[Partition, int]) -> None:
        for one, offset in offsets.items():
            if one.number in self.owned:  # as the subscription does
                assert offset > self.committed[one.number], "an offset went backwards"
                self.committed[one.number] = offset

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def settle(self) -> None:
        async def turn() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.run(turn())

    # what may happen

    @rule(number=st.sampled_from(PARTITIONS))
    def assign(self, number: int) -> None:
        if number not in self.owned:
            self.worker.assigned([partition(number)])
            self.owned.add(number)
            self.position[number] = self.committed[number]

    @precondition(lambda self: self.owned and not self.is_paused)
    @rule(data=st.data(), count=st.integers(1, BATCH), is_lost_at_once=st.booleans())
    def deliver(self, data: st.DataObject, count: int, is_lost_at_once: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.owned)))
        first = self.position[number]
        records = [Record("work", number, offset, b"k", b"v", []) for offset in range(first, first + count)]
        if is_lost_at_once:
            self.owned.remove(number)
        self.run(self.accepted(records, partition(number) if is_lost_at_once else None))
        self.position[number] = first + count
        self.delivered[number] = max(self.delivered[number], first + count)

    async def accepted(self, records: list[Record], lost: Partition | None = None) -> None:
        self.worker.accept(records)
        if lost is not None:  # before any lane has turned
            self.worker.lost([lost])

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(self.under_way)))
        for let_go in self.under_way.pop(place):
            let_go.set()
        self.settle()

    @rule(is_away=st.booleans())
    def the_broker_goes_or_comes(self, is_away: bool) -> None:
        self.is_broker_away = is_away
        self.settle()

    @precondition(lambda self: self.owned)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.owned)), min_size=1, unique=True))
        offsets = self.run(self.worker.release([partition(number) for number in numbers]))
        for one, offset in offsets.items():
            assert offset >= self.committed[one.number]
            self.committed[one.number] = offset
        self.owned -= set(numbers)

    @precondition(lambda self: self.owned)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.owned)))
        self.owned.remove(number)
        self.run(self.lost(number))

    async def lost(self, number: int) -> None:
        self.worker.lost([partition(number)])

    @rule()
    def restart(self) -> None:
        self.run(self.worker.drain())
        self.fresh_worker()

    @rule()
    def time_passes(self) -> None:
        self.settle()

    # what always holds

    @invariant()
    def nothing_is_passed_by_that_was_not_published(self) -> None:
        for number in PARTITIONS:
            missing = [offset for offset in range(self.committed[number]) if (number, offset) not in self.published]
            assert not missing, f"partition {number}: {missing} committed unpublished"

    @invariant()
    def the_window_is_bounded(self) -> None:
        assert self.worker._load <= HIGH + BATCH + LANES  # LANES: of partitions that are gone
        assert sum(map(len, self.under_way.values())) <= LANES
        assert self.worker.is_healthy

    @invariant()
    def nobody_stays_paused_without_work(self) -> None:
        if self.is_paused and not self.worker._is_stopping:
            assert self.worker._load > LOW, "paused, and nothing under way that would resume it"

    def teardown(self) -> None:
        """Left in peace, a worker brings everything to its end."""
        self.is_broker_away = False
        for number in PARTITIONS:
            self.assign(number)
        for _ in range(1_000):
            if all(self.committed[number] == self.delivered[number] for number in PARTITIONS):
                break
            for events in self.under_way.values():
                for let_go in events:
                    let_go.set()
            self.under_way.clear()
            for number in PARTITIONS:
                if not self.is_paused and self.position[number] < self.delivered[number]:
                    first = self.position[number]
                    records = [Record("work", number, first, b"k", b"v", [])]
                    self.run(self.accepted(records))
                    self.position[number] = first + 1
            self.settle()
        try:
            assert self.committed == self.delivered
            everything = {(number, offset) for number in PARTITIONS for offset in range(self.delivered[number])}
            assert everything == self.published & everything
            assert not self.is_paused
        finally:
            self.run(self.worker.drain())
            self.loop.close()
            delivery_module._RETRY_SECONDS = self.retry_seconds


TestWorkerMachine = WorkerMachine.TestCase
TestWorkerMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
