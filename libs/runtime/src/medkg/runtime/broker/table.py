"""A compacted topic as a table: every process reads all of it, from its start, and then hears of each change.

No consumer group: a group would give each partition to one member, and every replica needs all of them. Nothing is
committed either, because whoever starts reads the topic anew; compaction keeps it as short as its keys.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from medkg.runtime.broker.clients import LIBRDKAFKA, client_settings
from medkg.runtime.settings import KafkaSettings

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_BATCH = 500
_RETRY_SECONDS = 1.0

Hear = Callable[[bytes], None]


class TopicTable:
    """Tells of every value of a topic, in the order of its partitions, on the event loop. Starts at once."""

    def __init__(self, settings: KafkaSettings, topic: str, hear: Hear) -> None:
        self._settings = settings
        self._topic = settings.topic_prefix + topic
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._is_closed = threading.Event()
        self.is_caught_up = asyncio.Event()  # everything that stood there at the start was told
        self._thread = threading.Thread(target=self._read, name=f"table {topic}", daemon=True)
        self._thread.start()

    async def aclose(self) -> None:
        """Stop reading."""
        self._is_closed.set()
        await asyncio.to_thread(self._thread.join, 4 * _POLL_SECONDS)

    def _read(self) -> None:
        while not self._is_closed.is_set():
            try:
                self._follow()
            except (KafkaException, RuntimeError) as error:  # RuntimeError: the loop is closed
                log.warning("reading %s: %s; again in %s s", self._topic, error, _RETRY_SECONDS)
                self._is_closed.wait(_RETRY_SECONDS)

    def _follow(self) -> None:
        consumer = Consumer(
            client_settings(self._settings)
            | {
                "group.id": f"{self._topic}-table",  # librdkafka asks for a name; no group is joined
                "enable.auto.commit": False,
                "enable.partition.eof": False,
                "fetch.wait.max.ms": 500,
            },
            logger=LIBRDKAFKA,
        )
        try:
            ends: dict[int, int] | None = self._begin(consumer)
            while not self._is_closed.is_set():
                found = consumer.consume(_BATCH, _POLL_SECONDS)
                values = [item.value() for item in found if item.error() is None]
                if values:
                    self._loop.call_soon_threadsafe(self._tell, [value for value in values if value])
                if ends is not None and self._has_reached(consumer, ends):
                    ends = None
                    self._loop.call_soon_threadsafe(self.is_caught_up.set)
        finally:
            with suppress(KafkaException, RuntimeError):
                consumer.close()

    def _begin(self, consumer: Consumer) -> dict[int, int]:
        known = consumer.list_topics(self._topic, timeout=10).topics[self._topic]
        ends = {}
        for number in known.partitions:
            ends[number] = consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=10)[1]
        consumer.assign([TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in known.partitions])
        return ends

    def _has_reached(self, consumer: Consumer, ends: dict[int, int]) -> bool:
        places = consumer.position([TopicPartition(self._topic, number) for number in ends])
        return all(place.offset >= ends[place.partition] or not ends[place.partition] for place in places)

    def _tell(self, values: list[bytes]) -> None:
        for value in values:
            self._hear(value)
