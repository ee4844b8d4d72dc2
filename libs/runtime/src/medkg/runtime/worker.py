"""The worker: a bounded window of records under way, offsets along the contiguous finished prefix, a bounded drain.

The order is always: take, run, publish what follows, *then* store the offset. Hence nothing is lost: whatever stops a
worker in between is done again from the last stored offset, and ids are deterministic, so that doing it again has no
effect.

Records wait in a queue in which tenants take turns, and are worked on by a fixed number of lanes, each a task that
takes the next records, runs the handler and hands over what is to be published. There is no task and no future per
record. Where tenants take turns there are spare lanes for tenants of whom no lane has anything: long work of one tenant
cannot take all of them. One publisher task delivers whatever has finished since the last time with a single flush,
stores the offsets and resumes paused partitions: while one flush is under way the next batch gathers, so batches grow
with the load and latency stays low without it.

What is held is bounded by number and by size, and less is held while memory is short (:meth:`Worker.shrink`). A replica
that was frozen for longer than its group waits for it publishes nothing until it has been told what it still owns.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import MedkgError, ResourceUnavailableError
from medkg.runtime.delivery import Delivers, Delivery, Job
from medkg.runtime.fair_queue import FairQueue
from medkg.runtime.metrics import WorkerMetrics
from medkg.runtime.pace import rest
from medkg.runtime.records import Partition, Record
from medkg.runtime.resilience.breaker import BreakerOpen
from medkg.runtime.resilience.stopping import WorkerStopped
from medkg.runtime.tap import Intake, Tap
from medkg.runtime.window import OffsetWindow

log = logging.getLogger(__name__)

_BREATH = 512  # records of all lanes together between two turns of the event loop
# While more is at hand results are gathered, the longer the more there were the last time: a flush costs the same for
# many as for one, and where one comes after the other nothing is won by waiting.
_GATHER_SECONDS_EACH, _GATHER_SECONDS = 0.000_2, 0.03


class Handler(Protocol):
    """The work itself.

    ``handle`` is given one or more records and returns what is to be published before their offsets are stored. What
    is wrong with a record becomes a message (a dead letter), not an exception; ResourceUnavailableError means that
    nothing can be done just now, and the same records are given again.
    """

    async def handle(self, records: Sequence[Record]) -> list[Message]: ...

    def refuse(self, records: Sequence[Record], error: MedkgError) -> list[Message]:
        """What to publish for records whose results Kafka will never take."""
        ...


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """``lanes`` handlers run at once, each given up to ``take`` records.

    ``is_fair``: tenants take turns, and a quarter of as many handlers again may run for tenants that have none.
    ``is_paced``: each batch is followed by a rest, in which the next one gathers (:mod:`medkg.runtime.pace`).

    Partitions are paused above ``high_water`` taken records or ``high_water_bytes`` of them, and resumed under
    ``low_water`` and half the bytes.
    """

    lanes: int = 16
    take: int = 1
    high_water: int = 1_000
    low_water: int = 250
    high_water_bytes: int = 67_108_864
    drain_seconds: float = 20
    is_fair: bool = False
    is_paced: bool = False

    @property
    def spare_lanes(self) -> int:
        return max(1, self.lanes // 4) if self.is_fair else 0


class Worker:
    """Runs a handler on what an intake delivers, keeping the order of operations above."""

    def __init__(
        self,
        handler: Handler,
        publisher: Delivers,
        settings: WindowSettings,
        metrics: WorkerMetrics,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._handler = handler
        self._delivery = Delivery(publisher, handler, metrics)
        self._tap = Tap(metrics)
        self._settings = settings
        self._metrics = metrics
        self._on_failure = on_failure
        self._intake: Intake | None = None
        self._queue: FairQueue[tuple[Record, OffsetWindow]] = FairQueue()
        self._waiting: deque[asyncio.Future[None]] = deque()  # lanes with nothing to do
        self._spare: deque[asyncio.Future[None]] = deque()  # and spare ones
        self._at_work: list[bytes | None] = [None] * (settings.lanes + settings.spare_lanes)  # tenants, by lane
        self._resting: list[asyncio.Future[None]] = []  # of lanes that may not work just now
        self._windows: dict[Partition, OffsetWindow] = {}
        self._finished: list[Job] = []
        self._something_finished = asyncio.Event()
        self._quiet = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._is_publisher_alive = True
        self._in_flight = 0
        self._held_bytes = 0
        self._share = 1.0  # of the window that may be used
        self.wants_more = threading.Event()  # nothing waits for a lane; the thread that polls looks at it
        self.wants_more.set()
        self._progress_at = time.monotonic()
        self.failure: BaseException | None = None

    # life

    def start(self, intake: Intake) -> None:
        """Begin to work on what ``intake`` delivers."""
        self._intake = intake
        self._tap.connect(intake)
        lanes = range(self._settings.lanes + self._settings.spare_lanes)
        self._tasks = [asyncio.create_task(self._lane(number), name=f"lane-{number}") for number in lanes]
        self._tasks.append(asyncio.create_task(self._publish_finished(), name="publisher"))
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def drain(self) -> int:
        """Take nothing new, finish what is begun for a bounded time, abandon the rest uncommitted.

        Returns how many records were abandoned while they were being worked on.
        """
        self._is_stopping = True
        self._tap.shut_for_good()
        self._drop(lambda _: False)
        await self._wait_until_done(list(self._windows.values()))
        abandoned = self._in_flight
        for window in self._windows.values():
            window.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return abandoned

    def shrink(self, share: float) -> None:
        """Use only so much of the window, from 1 (all of it) down to one record at a time."""
        self._share = share
        resting, self._resting = self._resting, []
        for waiter in resting:
            if not waiter.done():
                waiter.set_result(None)
        self._resume_under_low_water()

    @property
    def is_healthy(self) -> bool:
        """No task of the worker has died."""
        return self.failure is None

    @property
    def seconds_without_progress(self) -> float:
        """How long there has been work without anything being finished; 0 when there is none."""
        return time.monotonic() - self._progress_at if self._load and not self._tap.is_held else 0.0

    @property
    def _load(self) -> int:
        return len(self._queue) + self._in_flight

    # what the subscription tells (see broker.Sink)

    def accept(self, records: list[Record]) -> None:
        """Take records; pause the intake above the high-water mark."""
        if self._is_stopping:
            return
        if not self._load:
            self._progress_at = time.monotonic()
        topic, number, window = "", -1, None
        for record in records:
            if window is None or record.partition != number or record.topic != topic:
                topic, number = record.topic, record.partition
                window = self._window(Partition(topic, number))
            window.take(record.offset)
            self._queue.push(record.tenant if self._settings.is_fair else b"", (record, window))
            self._held_bytes += len(record.value)
        self._metrics.taken.inc(len(records))
        self.wants_more.clear()
        self._wake(len(records))
        if self._tap.is_held or self._is_above(self._settings.high_water, self._settings.high_water_bytes):
            self._tap.shut()

    def assigned(self, partitions: list[Partition]) -> None:
        """Partitions are ours from now on."""
        for partition in partitions:
            self._windows[partition] = OffsetWindow()

    async def release(self, partitions: list[Partition]) -> dict[Partition, int]:
        """Finish what is begun on partitions that are being taken away, and say which offsets to store."""
        windows = {partition: self._windows[partition] for partition in partitions if partition in self._windows}
        leaving = set(map(id, windows.values()))
        self._drop(lambda item: id(item[1]) not in leaving)
        await self._wait_until_done(list(windows.values()))
        offsets = {partition: w.committable for partition, w in windows.items() if w.committable is not None}
        self.lost(partitions)
        return offsets

    def lost(self, partitions: list[Partition]) -> None:
        """Partitions are gone: nothing of them is published or stored any more."""
        for partition in partitions:
            window = self._windows.pop(partition, None)
            if window is not None:
                window.close()
        self._drop(lambda item: item[1].is_open)
        self._resume_under_low_water()

    # lanes

    async def _lane(self, number: int) -> None:
        done, breath = 0, max(1, _BREATH // self._settings.lanes)
        while True:
            while (job := self._next(number)) is None:
                await self._something_to_do(number)
                done = 0
            begun = time.monotonic()
            try:
                job.messages = await self._until_available(job)
            except Exception:
                await self._leave(job)
                raise
            self._at_work[number] = None
            self._finished.append(job)
            self._something_finished.set()
            done += 1
            if self._settings.is_paced:
                await rest(len(job.records), time.monotonic() - begun)
            elif done % breath == 0:
                await asyncio.sleep(0)  # work that waits for nothing would keep the publisher from its own

    def _next(self, lane: int) -> Job | None:
        """What this lane does now; None where there is nothing for it."""
        job = Job([], [], [])
        if lane >= self._settings.lanes:
            another = self._queue.pop_of_another(self._at_work) if self._share == 1 else None
            if another is None:
                return None
            job.add(*another)
            self._wake_spare()
        elif self._is_resting(lane) or not self._queue:
            return None
        while self._queue and len(job.records) < self._settings.take:
            job.add(*self._queue.pop())
        if self._settings.is_fair:
            self._at_work[lane] = job.records[0].tenant
        self._in_flight += len(job.records)
        if not self._queue:
            self.wants_more.set()
        return job

    def _is_resting(self, lane: int) -> bool:
        return lane >= max(1, self._settings.lanes * self._share)

    async def _something_to_do(self, lane: int) -> None:
        waiter = asyncio.get_running_loop().create_future()
        if lane >= self._settings.lanes:
            self._spare.append(waiter)
        else:
            (self._resting if self._is_resting(lane) else self._waiting).append(waiter)
        await waiter

    async def _leave(self, job: Job) -> None:
        """The lane dies: its records are nobody's work any more, and no drain waits for them."""
        for window in job.windows:
            window.running -= 1
        async with self._quiet:
            self._quiet.notify_all()

    async def _until_available(self, job: Job) -> list[Message]:
        attempt = 0
        while True:
            try:
                return await self._handler.handle(job.records)
            except BreakerOpen as error:
                await self._wait_out(job, error)
                if not job.is_ours:
                    return []  # somebody else's by now
            except ResourceUnavailableError as error:
                await self._delivery.back_off(attempt, "handling", error)
                attempt += 1

    async def _wait_out(self, job: Job, error: BreakerOpen) -> None:
        """Take nothing while a breaker is open. The job stays unfinished, and no drain or rebalance waits for it."""
        self.hold(error.breaker.name)
        for window in job.windows:
            window.running -= 1
        async with self._quiet:
            self._quiet.notify_all()
        try:
            await error.wait()
        finally:
            for window in job.windows:
                window.running += 1
        if error.breaker.is_closed:
            self.unhold(error.breaker.name)

    def hold(self, reason: str) -> None:
        """Take nothing from now on, for this reason; it does not count as a stall. What waits here stays here."""
        self._tap.hold(reason)

    def unhold(self, reason: str) -> None:
        """The reason is gone: go on, unless there is another one."""
        if self._tap.unhold(reason):
            self._progress_at = time.monotonic()
            self._resume_under_low_water()

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= self._settings.take
        if count > 0:
            self._wake_spare()

    def _wake_spare(self) -> None:
        if self._spare and not (waiter := self._spare.popleft()).done():
            waiter.set_result(None)

    # publishing

    async def _publish_finished(self) -> None:
        jobs: list[Job] = []
        try:
            while True:
                await self._something_finished.wait()
                if self._queue and not self._is_stopping:
                    await asyncio.sleep(min(len(jobs) * _GATHER_SECONDS_EACH, _GATHER_SECONDS))
                self._something_finished.clear()
                jobs, self._finished = self._finished, []
                await self._until_current()
                await self._delivery.deliver([job for job in jobs if job.is_ours])
                self._settle(jobs)
                async with self._quiet:
                    self._quiet.notify_all()
        except Exception:
            self._is_publisher_alive = False  # nothing will be settled any more: no drain waits for it
            async with self._quiet:
                self._quiet.notify_all()
            raise

    async def _until_current(self) -> None:
        """Wait until the group has spoken to us again, where it may have gone on without us meanwhile."""
        if self._intake is None or self._intake.is_current():
            return
        log.warning("away from the group for longer than its session: results wait until it is known whose they are")
        while not self._intake.is_current():  # noqa: ASYNC110  the polling thread sets no event of ours
            await asyncio.sleep(0.05)
        await asyncio.sleep(0)  # what the poll said is on its way to us

    def _settle(self, jobs: list[Job]) -> None:
        """Account for published jobs: offsets, counters, watermarks."""
        grown: dict[int, OffsetWindow] = {}
        count = 0
        for job in jobs:
            count += len(job.records)
            for record, window in zip(job.records, job.windows, strict=True):
                self._held_bytes -= len(record.value)
                if window.finish(record.offset):
                    grown[id(window)] = window
        self._in_flight -= count
        self._progress_at = time.monotonic()
        self._metrics.finished.inc(count)
        self._metrics.in_flight.set(self._in_flight)
        if self._intake is None:
            return
        offsets = {
            partition: window.committable
            for partition, window in self._windows.items()
            if id(window) in grown and window.committable is not None
        }
        if offsets:
            self._intake.store(offsets)
        self._resume_under_low_water()

    def _resume_under_low_water(self) -> None:
        if self._tap.is_shut and not self._is_above(self._settings.low_water, self._settings.high_water_bytes // 2):
            self._tap.open()

    # waiting

    async def _wait_until_done(self, windows: list[OffsetWindow]) -> None:
        """Wait, for at most the drain time, until every record that was begun in these windows is finished.

        What nobody can finish any more, because a lane or the publisher has died, is not waited for.
        """
        try:
            async with asyncio.timeout(self._settings.drain_seconds), self._quiet:
                await self._quiet.wait_for(
                    lambda: not self._is_publisher_alive or not any(window.running for window in windows)
                )
        except TimeoutError:
            log.warning("not drained after %s s: the rest is left to the next owner", self._settings.drain_seconds)

    def _is_above(self, records: int, size_bytes: int) -> bool:
        return self._load > records * self._share or self._held_bytes > size_bytes * self._share

    def _drop(self, is_kept: Callable[[tuple[Record, OffsetWindow]], bool]) -> None:
        """Forget queued records; whoever owns their partition next reads them again."""
        self._held_bytes -= sum(len(record.value) for record, _ in self._queue.keep(is_kept))
        if not self._queue:
            self.wants_more.set()

    def _window(self, partition: Partition) -> OffsetWindow:
        window = self._windows.get(partition)
        if window is None:
            window = self._windows[partition] = OffsetWindow()
        return window

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error
            if isinstance(error, WorkerStopped):
                log.critical("%s", error)
            else:
                log.critical("task %s of the worker died", task.get_name(), exc_info=error)
            self._on_failure()
