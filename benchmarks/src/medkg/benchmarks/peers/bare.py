"""Peer (a): a bare confluent-kafka loop. The least that at-least-once delivery over Kafka asks of a Python process.

Does: takes up to 500 messages, writes `completed` and the next hop's message for each, flushes once, then
stores the offsets (committed in the background). Bodies pass through as bytes; events are put together by hand.

Does not: read or check a body, make an envelope, know of jobs or pipelines, retry, time out, keep a ledger.
"""

import signal
from threading import Event as Flag

from confluent_kafka import Consumer, Producer, TopicPartition

from medkg.benchmarks.peers.wire import Hop, hop_of_command_line

BATCH = 500


def main() -> None:
    """Run one hop until SIGTERM."""
    stop = Flag()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    run(hop_of_command_line(), stop)


def run(hop: Hop, stop: Flag) -> None:
    """Take, write, flush, store the offsets; until told to stop."""
    consumer = Consumer(
        {
            "bootstrap.servers": hop.kafka,
            "group.id": hop.group,
            "auto.offset.reset": "earliest",
            "enable.auto.offset.store": False,
        }
    )
    producer = Producer({"bootstrap.servers": hop.kafka})
    consumer.subscribe([hop.own_topic])
    while not stop.is_set():
        # consume() alone would wait until the batch is full or its timeout over: wait for one, take what is there
        first = consumer.poll(0.5)
        if first is None or first.error():
            continue
        done: dict[int, int] = {}
        for message in (first, *consumer.consume(BATCH - 1, 0)):
            key, value, partition, offset = message.key(), message.value(), message.partition(), message.offset()
            if message.error() or key is None or value is None or partition is None or offset is None:
                continue
            name = key.decode()
            event = f'{{"doc_id":"{name}","hop":{hop.number},"state":"completed"}}'
            producer.produce(hop.events_topic, event.encode(), key)
            if hop.next_topic is not None:
                producer.produce(hop.next_topic, value, key)
            done[partition] = offset
        producer.flush()
        consumer.store_offsets(
            offsets=[TopicPartition(hop.own_topic, partition, offset + 1) for partition, offset in done.items()]
        )
    consumer.close()


if __name__ == "__main__":
    main()
