"""librdkafka's in-process cluster: the real Kafka protocol on loopback, in memory.

For evaluation only: at most 5 MB a partition (older messages are dropped), four partitions a topic, nothing survives
the process. Consumer groups work, and other clients (kcat, kafkajs) can reach it by its address.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

from medkg.contracts.errors import ResourceUnavailableError
from medkg.runtime.settings import KafkaSettings


@contextmanager
def embedded_broker() -> Iterator[str]:
    """The address of a fresh in-process cluster, for as long as the block lasts."""
    owner = Producer({"bootstrap.servers": "unused:9092", "test.mock.num.brokers": 1, "log_level": 3})
    brokers = owner.list_topics(timeout=10).brokers
    if not brokers:
        raise ResourceUnavailableError("starting the in-process Kafka cluster: it has no broker")
    first = next(iter(brokers.values()))
    try:
        yield f"{first.host}:{first.port}"
    finally:
        owner.purge()
        del owner  # the cluster ends with the client that owns it


def in_process_settings(bootstrap: str) -> KafkaSettings:
    """How an in-process cluster is reached.

    It answers a fetch only when its wait is over, and a join after three seconds (or, when somebody else joins
    meanwhile, when nearly a session has passed): both are kept short.
    """
    return KafkaSettings(
        bootstrap=bootstrap,
        is_in_process=True,
        fetch_wait_ms=20,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=500,
    )
