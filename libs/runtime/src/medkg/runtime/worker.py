"""The worker: a bounded window of records under way, offsets along the contiguous finished prefix, a bounded drain.

The order is always: take, run, publish what follows, *then* store the offset. Hence nothing is lost: whatever stops a
worker in between is done again from the last stored offset, and ids are deterministic, so that doing it again has no
effect.

Records wait in a queue in which tenants take turns, and are worked on by a fixed number of lanes, each a task that
takes the next records, runs the handler and hands over what is to be published. There is no task and no future per
record. One publisher task delivers whatever has finished since the last time with a single flush, stores the offsets
and resumes paused partitions: while one flush is under way the next batch gathers, so batches grow with the load and
latency stays low without it.

What is held is bounded by number and by size, and less is held while memory is short (:meth:`Worker.shrink`). A replica
that was frozen for longer than its group waits for it publishes nothing until it has been told what it still owns.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import ContractError, MedkgError, ResourceUnavailableError
from medkg.runtime.fair_queue import FairQueue
from medkg.runtime.metrics import WorkerMetrics
from medkg.runtime.records import Partition, Record
from medkg.runtime.resilience.breaker import BreakerOpen
from medkg.runtime.resilience.stopping import WorkerStopped
from medkg.runtime.window import OffsetWindow

log = logging.getLogger(__name__)

_RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)  # between attempts to reach Kafka or a store; the last one repeats
_BREATH = 512  # records of all lanes together between two turns of the event loop
# Results are gathered for as long as more are at hand: a flush costs the same for many as for one.
_GATHER_SECONDS_EACH, _GATHER_SECONDS = 0.000_2, 0.03
_REFUSALS = 2  # of the results, then of the dead letter


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


class Intake(Protocol):
    """The consumer, as far as the worker steers it."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def store(self, offsets: dict[Partition, int]) -> None: ...

    def is_current(self) -> bool:
        """Whether the group can not have given the partitions to somebody else without our knowledge."""
        ...


class Delivers(Protocol):
    """The producer, as far as the worker uses it."""

    async def publish(self, messages: Sequence[Message]) -> dict[int, str]: ...


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """``lanes`` handlers run at once, each given up to ``take`` records; ``is_fair``: tenants take turns.

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


class _Job:
    """Records on their way through a lane, each with the window of the assignment under which it was taken."""

    __slots__ = ("messages", "records", "windows")

    def __init__(self, records: list[Record], windows: list[OffsetWindow], messages: list[Message]) -> None:
        self.records = records
        self.windows = windows
        self.messages = messages


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
        self._publisher = publisher
        self._settings = settings
        self._metrics = metrics
        self._on_failure = on_failure
        self._intake: Intake | None = None
        self._queue: FairQueue[tuple[Record, OffsetWindow]] = FairQueue()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._resting: list[asyncio.Future[None]] = []  # of lanes that may not work just now
        self._windows: dict[Partition, OffsetWindow] = {}
        self._finished: list[_Job] = []
        self._something_finished = asyncio.Event()
        self._quiet = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_paused = False
        self._holds: set[str] = set()  # why nothing is taken, beside the high-water mark
        self._is_stopping = False
        self._is_publisher_alive = True
        self._in_flight = 0
        self._held_bytes = 0
        self._share = 1.0  # of the window that may be used
        self._progress_at = time.monotonic()
        self.failure: BaseException | None = None

    # life

    def start(self, intake: Intake) -> None:
        """Begin to work on what ``intake`` delivers."""
        self._intake = intake
        lanes = range(self._settings.lanes)
        self._tasks = [asyncio.create_task(self._lane(number), name=f"lane-{number}") for number in lanes]
        self._tasks.append(asyncio.create_task(self._publish_finished(), name="publisher"))
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def drain(self) -> int:
        """Take nothing new, finish what is begun for a bounded time, abandon the rest uncommitted.

        Returns how many records were abandoned while they were being worked on.
        """
        self._is_stopping = True
        if self._intake is not None:
            self._intake.pause()
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
        return time.monotonic() - self._progress_at if self._load and not self._holds else 0.0

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
        self._wake(len(records))
        is_full = self._holds or self._is_above(self._settings.high_water, self._settings.high_water_bytes)
        if is_full and self._intake is not None:
            self._intake.pause()
            if not self._is_paused:
                self._is_paused = True
                self._metrics.paused.set(1)

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
            while (is_resting := number >= max(1, self._settings.lanes * self._share)) or not self._queue:
                waiter = asyncio.get_running_loop().create_future()
                (self._resting if is_resting else self._waiting).append(waiter)
                await waiter
                done = 0
            job = self._next()
            try:
                job.messages = await self._until_available(job)
            except Exception:
                await self._leave(job)
                raise
            self._finished.append(job)
            self._something_finished.set()
            done += 1
            if done % breath == 0:
                await asyncio.sleep(0)  # work that waits for nothing would keep the publisher from its own

    def _next(self) -> _Job:
        job = _Job([], [], [])
        while self._queue and len(job.records) < self._settings.take:
            record, window = self._queue.pop()
            window.begin()
            job.records.append(record)
            job.windows.append(window)
        self._in_flight += len(job.records)
        return job

    async def _leave(self, job: _Job) -> None:
        """The lane dies: its records are nobody's work any more, and no drain waits for them."""
        for window in job.windows:
            window.running -= 1
        async with self._quiet:
            self._quiet.notify_all()

    async def _until_available(self, job: _Job) -> list[Message]:
        attempt = 0
        while True:
            try:
                return await self._handler.handle(job.records)
            except BreakerOpen as error:
                await self._wait_out(job, error)
                if not any(window.is_open for window in job.windows):
                    return []  # somebody else's by now
            except ResourceUnavailableError as error:
                await self._back_off(attempt, "handling", error)
                attempt += 1

    async def _wait_out(self, job: _Job, error: BreakerOpen) -> None:
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
        if reason not in self._holds:
            log.warning("taking nothing: %s", reason)
        self._holds.add(reason)
        self._metrics.held.set(1)
        if self._intake is not None:
            self._intake.pause()
            self._is_paused = True

    def unhold(self, reason: str) -> None:
        """The reason is gone: go on, unless there is another one."""
        if reason not in self._holds:
            return
        self._holds.discard(reason)
        self._progress_at = time.monotonic()
        log.info("no longer in the way: %s", reason)
        if not self._holds:
            self._metrics.held.set(0)
            self._resume_under_low_water()

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= self._settings.take

    # publishing

    async def _publish_finished(self) -> None:
        try:
            while True:
                await self._something_finished.wait()
                if self._queue and not self._is_stopping:
                    await asyncio.sleep(min(len(self._queue) * _GATHER_SECONDS_EACH, _GATHER_SECONDS))
                self._something_finished.clear()
                jobs, self._finished = self._finished, []
                await self._until_current()
                await self._deliver([job for job in jobs if any(window.is_open for window in job.windows)])
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

    async def _deliver(self, jobs: list[_Job]) -> None:
        """Publish the results of jobs, whatever it takes; results that Kafka refuses for good become dead letters.

        Raises:
            ContractError: Kafka does not take the dead letters either, not even without the message they are about.
        """
        attempt, refusals = 0, 0
        while jobs:
            messages = [item for job in jobs for item in job.messages]
            if not messages:
                return
            try:
                refused = await self._publisher.publish(messages)
            except ResourceUnavailableError as error:
                await self._back_off(attempt, "publishing", error)
                attempt += 1
                continue
            refusals += 1
            jobs = self._refused_jobs(jobs, refused, refusals)

    def _refused_jobs(self, jobs: list[_Job], refused: dict[int, str], refusals: int) -> list[_Job]:
        again: list[_Job] = []
        index = 0
        for job in jobs:
            reasons = [refused[at] for at in range(index, index + len(job.messages)) if at in refused]
            index += len(job.messages)
            if reasons:
                error = ContractError(f"publishing the results: Kafka refuses them for good: {reasons[0]}")
                log.error(error.message, extra={"positions": [str(record.position) for record in job.records]})
                if refusals > _REFUSALS:
                    raise error
                letters = self._handler.refuse(job.records, error)
                again.append(_Job(job.records, job.windows, _without_value(letters) if refusals > 1 else letters))
        return again

    def _settle(self, jobs: list[_Job]) -> None:
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
        if self._intake is None or not self._is_paused or self._is_stopping or self._holds:
            return
        if not self._is_above(self._settings.low_water, self._settings.high_water_bytes // 2):
            self._intake.resume()
            self._is_paused = False
            self._metrics.paused.set(0)

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

    async def _back_off(self, attempt: int, doing: str, error: MedkgError) -> None:
        seconds = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
        log.warning("%s: %s; again in %s s", doing, error.message, seconds)
        self._metrics.unavailable.inc()
        await asyncio.sleep(seconds)

    def _is_above(self, records: int, size_bytes: int) -> bool:
        return self._load > records * self._share or self._held_bytes > size_bytes * self._share

    def _drop(self, is_kept: Callable[[tuple[Record, OffsetWindow]], bool]) -> None:
        """Forget queued records; whoever owns their partition next reads them again."""
        self._held_bytes -= sum(len(record.value) for record, _ in self._queue.keep(is_kept))

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


def _without_value(letters: Sequence[Message]) -> list[Message]:
    """The message is too large to go with its dead letter: the reason alone (the last header) says where it stood."""
    return [
        Message(letter.topic, letter.key, b"", letter.headers[-1:]) if letter.topic == topics.DEAD_LETTER else letter
        for letter in letters
    ]
