"""Watches the lifecycle events of a fleet from outside: what was completed when, and what was said more than once."""

import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self, cast

import msgspec
from confluent_kafka import Consumer

from medkg.contracts import topics
from medkg.contracts.messages import EventType


class _Event(msgspec.Struct):
    stage: str = ""
    stage_type: str = ""
    worker: str = ""


class Observer:
    """Reads ``orchestration.events.v1`` without a group, past every wire that is cut. A context manager."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._topic = prefix + topics.LIFECYCLE
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{prefix}observer",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="observer", daemon=True)
        self._lock = threading.Lock()
        self._completed: list[tuple[float, str, str]] = []
        self.ids: Counter[str] = Counter()
        self.completions: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._consumer.subscribe([self._topic])
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

    def completed_since(self, moment: float, stage: str) -> float | None:
        """When a stage completed something first after ``moment`` (seconds since 1970), if it has."""
        with self._lock:
            times = [at for at, name, _ in self._completed if name == stage and at > moment]
        return min(times, default=None)

    def forget(self) -> None:
        """Completions that were seen so far are of no further interest."""
        with self._lock:
            self._completed.clear()

    def _read(self) -> None:
        while not self._is_over.is_set():
            for message in self._consumer.consume(500, 0.1):
                if message.error() is not None:
                    continue
                headers = dict(cast(list[tuple[str, bytes]], message.headers() or []))
                self.ids[headers["ce_id"].decode()] += 1
                kind = headers["ce_type"].decode()
                if kind in {EventType.STAGE_COMPLETED, EventType.JOB_ADMITTED}:
                    event = msgspec.json.decode(message.value() or b"{}", type=_Event)
                    service = (
                        "gate_router"
                        if kind == EventType.JOB_ADMITTED
                        else event.stage_type.removesuffix("Stage").lower()
                    )
                    self.completions[service] += 1
                    with self._lock:
                        self._completed.append((time.time(), service, event.worker))
