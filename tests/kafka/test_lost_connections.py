"""Connections to Kafka that nothing passes through any more, and nobody says so: work goes on over new ones."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.chaos.network import Wire
from tests.fixtures_kafka import do_without
from tests.servers.kafka.jars import KafkaUnavailable, kafka_jars
from tests.servers.kafka.server import KafkaServer, free_port

from medkg.contracts.cloudevents import Message
from medkg.runtime.broker import ensure_topics
from medkg.runtime.broker.host import KafkaHost
from medkg.runtime.broker.producer import Publisher
from medkg.runtime.records import Partition, Record
from medkg.runtime.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

TOPIC = "lost.connections"
PATIENCE_SECONDS = 20  # librdkafka's own would be 60, and TCP's 900


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Wire, str, str]]:
    """A wire, the address of the broker at its far end, and that of its near end."""
    try:
        jars = kafka_jars()
    except KafkaUnavailable as error:
        do_without(f"no Kafka of its own behind a wire: {error}")
    with ExitStack() as stack:
        inner, outer = free_port(), free_port()
        kafka = KafkaServer(tmp_path_factory.mktemp("kafka"), jars=jars, proxied=(inner, outer))
        far = stack.enter_context(kafka).start()
        wire = stack.enter_context(Wire(("127.0.0.1", outer), ("127.0.0.1", inner)))
        yield wire, far, f"127.0.0.1:{outer}"


def settings(bootstrap: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=bootstrap, partitions=1, request_timeout_ms=2_000)


async def test_a_publisher_whose_connection_was_lost_delivers_over_another(wired: tuple[Wire, str, str]) -> None:
    wire, _, near = wired
    publisher = Publisher(settings(near))
    await ensure_topics(settings(near), [TOPIC])
    assert await publisher.publish([Message(TOPIC, b"k", b"before", [])]) == {}
    wire.lose()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await publisher.publish([Message(TOPIC, b"k", b"after", [])]) == {}
    await publisher.close()


class Heard:
    """Keeps what a subscription delivers."""

    def __init__(self) -> None:
        self.wants_more = threading.Event()
        self.wants_more.set()
        self.values: asyncio.Queue[bytes] = asyncio.Queue()

    def accept(self, records: list[Record]) -> None:
        for record in records:
            self.values.put_nowait(record.value)

    def assigned(self, partitions: list[Partition]) -> None: ...

    async def release(self, partitions: list[Partition]) -> dict[Partition, int]:
        return {}

    def lost(self, partitions: list[Partition]) -> None: ...


async def test_a_consumer_whose_connections_were_lost_hears_over_others(wired: tuple[Wire, str, str]) -> None:
    wire, far, near = wired
    topic = f"{TOPIC}.heard"
    await ensure_topics(settings(near), [topic])
    heard, beside = Heard(), Publisher(settings(far))
    host = KafkaHost(settings(near))
    host.subscribe([topic], "group", heard)
    await host.start()
    await beside.publish([Message(topic, b"k", b"before", [])])
    assert await asyncio.wait_for(heard.values.get(), 30) == b"before"
    wire.lose()
    await beside.publish([Message(topic, b"k", b"after", [])])
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await heard.values.get() != b"after":
            pass  # nothing was committed: what came before may come again
    await host.stop()
    await beside.close()
