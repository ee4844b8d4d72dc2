"""Driving the peers on Kafka: one process a hop, documents put on the first hop's topic by this process."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType

import psutil
from confluent_kafka import Producer

from medkg.benchmarks.loads import Load, Outcome
from medkg.benchmarks.peers.wire import Event, Work, events_topic, work_topic
from medkg.benchmarks.processes import check_alive, started
from medkg.benchmarks.topic_log import TopicLog, written_ms
from medkg.benchmarks.usage import Meter, Place
from medkg.runtime.broker import ensure_topics
from medkg.runtime.settings import KafkaSettings

HOPS = 8
EVENTS = HOPS  # of one document

MODULES = MappingProxyType({"bare": "bare", "faststream": "faststream_plain", "faststream-batch": "faststream_batch"})


@dataclass(slots=True)
class KafkaPeer:
    """A peer at work."""

    name: str
    place: Place
    prefix: str
    size: int
    workers: dict[str, psutil.Process]
    log: TopicLog
    runs: int = 0

    async def run(self, load: Load) -> Outcome:
        """Put the documents of a load on the first topic, each at its time, and wait for the last one's last event.

        Raises:
            TimeoutError: not all of them came through in time.
            RuntimeError: a process of the peer has ended.
        """
        self.runs += 1
        first_event = self.log.end()
        meter = Meter(self.place, self.workers)
        begun = time.time()
        feeding = asyncio.create_task(asyncio.to_thread(self._feed, load, begun))
        expected = first_event + EVENTS * load.documents
        what = f"{self.name}, {load.documents} documents"
        await self.log.wait_for(expected, load.deadline_seconds, what, lambda: check_alive(self.workers))
        seconds, usage = time.time() - begun, meter.read()
        await feeding
        latencies = self._latencies(load, begun, first_event, expected) if load.per_second else ()
        return Outcome(seconds, usage, latencies)

    def _feed(self, load: Load, begun: float) -> None:
        producer = Producer({"bootstrap.servers": self.place.kafka, "linger.ms": 0 if load.per_second else 5})
        text = ("lorem ipsum dolor sit amet " * (self.size // 27 + 1))[: self.size]
        topic = work_topic(self.prefix, 0)
        for number, arrival in enumerate(load.arrivals()):
            if (early := begun + arrival - time.time()) > 0:
                time.sleep(early)
            doc_id = f"{self.runs}-{number:07d}"
            body = Work(doc_id=doc_id, text=text).model_dump_json().encode()
            while True:
                try:
                    producer.produce(topic, body, doc_id.encode())
                    break
                except BufferError:  # librdkafka's queue is full
                    producer.poll(0.05)
            producer.poll(0)
        producer.flush(30)

    def _latencies(self, load: Load, begun: float, first_event: int, end: int) -> tuple[float, ...]:
        arrivals, found = load.arrivals(), []
        for message in self.log.read(first_event, end):
            event = Event.model_validate_json(message.value() or b"{}")
            if event.hop == HOPS - 1 and event.state == "completed":
                arrived = begun + arrivals[int(event.doc_id.partition("-")[2])]
                found.append(written_ms(message) - arrived * 1000)
        return tuple(found)


@asynccontextmanager
async def kafka_peer(name: str, place: Place, size: int) -> AsyncIterator[KafkaPeer]:
    """Start a peer of :data:`MODULES` on topics of its own; end its processes when the block is left."""
    prefix = f"{name}-{os.getpid()}-{time.time_ns() // 1_000_000}-"
    settings = KafkaSettings(bootstrap=place.kafka, topic_prefix="", partitions=1)
    await ensure_topics(settings, [*(work_topic(prefix, hop) for hop in range(HOPS)), events_topic(prefix)])
    module = f"medkg.benchmarks.peers.{MODULES[name]}"
    fixed = ["-m", module, "--kafka", place.kafka, "--prefix", prefix, "--hops", str(HOPS)]
    commands = {f"hop-{number}": [*fixed, "--number", str(number)] for number in range(HOPS)}
    log = TopicLog(place.kafka, events_topic(prefix))
    try:
        with started(commands, os.environ) as workers:
            yield KafkaPeer(name, place, prefix, size, workers, log)
    finally:
        log.close()
