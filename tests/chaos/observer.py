"""Watches a fleet from outside: which stage completed something when, what the ledger holds, who answers.

All of it goes past the wires that are cut.
"""

import asyncio
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, cast

import asyncpg  # type: ignore[import-untyped]  # it has no stubs
import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from medkg.contracts import topics
from medkg.contracts.messages import EventType

_LOOK_SECONDS = 0.05


class Progress(Protocol):
    """When something went on first after ``moment`` (seconds since 1970), if it has; not counting these workers."""

    def __call__(self, moment: float, workers: frozenset[str]) -> float | None: ...


class _Event(msgspec.Struct):
    stage_type: str = ""
    worker: str = ""
    job_id: str = ""


class Observer:
    """Reads ``orchestration.events.v1`` without a group. A context manager."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._topic = prefix + topics.LIFECYCLE
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{prefix}observer",  # a name that librdkafka wants: partitions are assigned by hand,
                "enable.auto.commit": False,  # so that no rebalance holds the observer up
                "auto.offset.reset": "earliest",
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="observer", daemon=True)
        self._lock = threading.Lock()
        self._completed: list[tuple[float, str, str]] = []
        self._admitted: dict[str, float] = {}
        self.ids: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._consumer.assign(self._partitions())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(timeout=10)
        self._consumer.close()

    @property
    def redeliveries(self) -> int:
        """How many events were published again: each for work that was done twice, without effect."""
        return sum(count - 1 for count in self.ids.values())

    def completed(self, stage: str = "") -> Progress:
        """A stage completed something; any of them, if none is named."""

        def since(moment: float, workers: frozenset[str]) -> float | None:
            with self._lock:
                times = [
                    at
                    for at, name, worker in self._completed
                    if at > moment and stage in ("", name) and worker not in workers
                ]
            return min(times, default=None)

        return since

    def admitted(self, jobs: Callable[[], list[str]]) -> Progress:
        """The gate-router admitted the last of these jobs: it was submitted after the fault."""

        def since(moment: float, workers: frozenset[str]) -> float | None:
            with self._lock:
                return self._admitted.get(jobs()[-1])

        return since

    def forget(self) -> None:
        """Completions that were seen so far are of no further interest."""
        with self._lock:
            self._completed.clear()

    def _partitions(self) -> list[TopicPartition]:
        """All of the topic, as soon as it is there."""
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            found = self._consumer.list_topics(timeout=10).topics.get(self._topic)
            if found is not None and found.partitions:
                return [TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in found.partitions]
            time.sleep(_LOOK_SECONDS)
        raise AssertionError(f"nobody has made {self._topic} within 90 s")

    def _read(self) -> None:
        while not self._is_over.is_set():
            for message in self._consumer.consume(500, 0.1):
                if message.error() is not None:
                    continue
                headers = dict(cast(list[tuple[str, bytes]], message.headers() or []))
                self.ids[headers["ce_id"].decode()] += 1
                kind = headers["ce_type"].decode()
                if kind not in {EventType.STAGE_COMPLETED, EventType.JOB_ADMITTED}:
                    continue
                event = msgspec.json.decode(message.value() or b"{}", type=_Event)
                with self._lock:
                    if kind == EventType.JOB_ADMITTED:
                        self._admitted.setdefault(event.job_id, time.time())
                    else:
                        stage = event.stage_type.removesuffix("Stage").lower()
                        self._completed.append((time.time(), stage, event.worker))


class LedgerWatch:
    """Looks at the ledger's counters, which grow with every event that is projected. A context manager."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._look()), name="ledger watch", daemon=True)
        self._lock = threading.Lock()
        self._seen: list[tuple[float, int]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(timeout=10)

    def projected(self, moment: float, workers: frozenset[str]) -> float | None:
        """The counters are above what they were right after ``moment``. A :class:`Progress`."""
        with self._lock:
            after = [(at, count) for at, count in self._seen if at > moment + _LOOK_SECONDS]
        return next((at for at, count in after if count > after[0][1]), None)

    async def _look(self) -> None:
        connection: asyncpg.Connection | None = None
        while not self._is_over.is_set():
            try:
                connection = connection or await asyncpg.connect(self._url, timeout=5)
                count = await connection.fetchval("SELECT coalesce(sum(started + completed), 0) FROM job_stages")
                with self._lock:
                    self._seen.append((time.time(), int(count)))
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # it was crashed, or is starting
                if connection is not None:
                    connection.terminate()
                connection = None
            await asyncio.sleep(_LOOK_SECONDS)
        if connection is not None:
            await connection.close()


def answers(url: str) -> Progress:
    """An HTTP server answers with 200."""

    def since(moment: float, workers: frozenset[str]) -> float | None:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                return time.time() if answer.status == 200 else None
        except OSError:  # of urllib, too
            return None

    return since
