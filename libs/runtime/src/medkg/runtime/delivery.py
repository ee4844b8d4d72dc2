"""Getting the results of finished jobs into Kafka, whatever it takes, before their offsets are stored."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import ContractError, MedkgError, ResourceUnavailableError
from medkg.runtime.metrics import WorkerMetrics
from medkg.runtime.records import Record
from medkg.runtime.window import OffsetWindow

log = logging.getLogger(__name__)

_RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)  # between attempts to reach Kafka or a store; the last one repeats
_REFUSALS = 2  # of the results, then of the dead letter


class Delivers(Protocol):
    """The producer, as far as the worker uses it."""

    async def publish(self, messages: Sequence[Message]) -> dict[int, str]: ...


class Refuses(Protocol):
    """Who knows what to say of records whose results Kafka will never take."""

    def refuse(self, records: Sequence[Record], error: MedkgError) -> list[Message]: ...


class Job:
    """Records on their way through a lane, each with the window of the assignment under which it was taken."""

    __slots__ = ("messages", "records", "windows")

    def __init__(self, records: list[Record], windows: list[OffsetWindow], messages: list[Message]) -> None:
        self.records = records
        self.windows = windows
        self.messages = messages

    def add(self, record: Record, window: OffsetWindow) -> None:
        """One more record, whose work begins."""
        window.begin()
        self.records.append(record)
        self.windows.append(window)

    @property
    def is_ours(self) -> bool:
        """Whether any of its partitions is still this worker's."""
        return any(window.is_open for window in self.windows)


class Delivery:
    """Publishes results until Kafka has them; what it refuses for good becomes a dead letter."""

    def __init__(self, publisher: Delivers, handler: Refuses, metrics: WorkerMetrics) -> None:
        self._publisher = publisher
        self._handler = handler
        self._metrics = metrics

    async def deliver(self, jobs: list[Job]) -> None:
        """Publish the results of jobs.

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
                await self.back_off(attempt, "publishing", error)
                attempt += 1
                continue
            if not refused:
                return
            refusals += 1
            jobs = self._refused_jobs(jobs, refused, refusals)

    async def back_off(self, attempt: int, doing: str, error: MedkgError) -> None:
        """Wait before the next attempt to reach what does not answer."""
        seconds = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
        log.warning("%s: %s; again in %s s", doing, error.message, seconds)
        self._metrics.unavailable.inc()
        await asyncio.sleep(seconds)

    def _refused_jobs(self, jobs: list[Job], refused: dict[int, str], refusals: int) -> list[Job]:
        again: list[Job] = []
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
                again.append(Job(job.records, job.windows, _without_value(letters) if refusals > 1 else letters))
        return again


def _without_value(letters: Sequence[Message]) -> list[Message]:
    """The message is too large to go with its dead letter: the reason alone (the last header) says where it stood."""
    return [
        Message(letter.topic, letter.key, b"", letter.headers[-1:]) if letter.topic == topics.DEAD_LETTER else letter
        for letter in letters
    ]
