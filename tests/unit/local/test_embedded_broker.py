"""The in-process cluster: other clients reach it, groups work, and it ends with the block."""

import time
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, Producer

from medkg.local.embedded_broker import embedded_broker, in_process_settings
from medkg.runtime.broker.host import KafkaHost


def received(bootstrap: str, topic: str, group: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    values: list[bytes] = []
    deadline = time.monotonic() + 20
    while len(values) < count and time.monotonic() < deadline:
        item = consumer.poll(0.2)
        if item is not None and item.error() is None:
            values.append(item.value() or b"")
    consumer.close()
    return values


def test_what_one_client_publishes_another_ones_group_receives() -> None:
    with embedded_broker() as bootstrap:
        producer = Producer({"bootstrap.servers": bootstrap})
        producer.produce("topic", b"hello", headers=[("ce_id", b"1")])
        assert producer.flush(10) == 0
        assert received(bootstrap, "topic", "group", 1) == [b"hello"]


def test_two_clusters_know_nothing_of_each_other_and_nothing_outlives_the_block() -> None:
    with embedded_broker() as first, embedded_broker() as second:
        assert first != second
        producer = Producer({"bootstrap.servers": first})
        producer.produce("topic", b"hello")
        producer.flush(10)
        topics = Producer({"bootstrap.servers": second}).list_topics(timeout=10).topics
        assert "topic" not in topics
        gone = first
    gave_up = False
    with suppress(KafkaException):
        Producer({"bootstrap.servers": gone, "log_level": 0}).list_topics(timeout=0.5)
        gave_up = True
    assert not gave_up


async def test_a_host_keeps_no_client_that_nobody_uses() -> None:
    with embedded_broker() as bootstrap:
        host = KafkaHost(in_process_settings(bootstrap))
        await host.start()
        hosted = host.broker.config.broker_config
        assert not hosted.producer
        assert hosted.admin.admin_client is None
        await host.stop()
