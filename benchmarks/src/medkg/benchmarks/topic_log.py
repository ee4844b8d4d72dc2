"""Reading a topic from outside: how far it has come, cheaply while a measurement runs; what it holds, afterwards."""

import asyncio
import time
from collections.abc import Callable, Iterator

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

_LOOK_EVERY_SECONDS = 0.02
_SAY_EVERY_SECONDS = 5.0
_READ_TIMEOUT_SECONDS = 30.0
_ANSWER_TIMEOUT_SECONDS = 20.0


class TopicLog:
    """One topic with one partition. Joins no group and commits nothing."""

    def __init__(self, kafka: str, topic: str) -> None:
        self.topic = topic
        self._partition = TopicPartition(topic, 0)
        self._consumer = Consumer(
            {"bootstrap.servers": kafka, "group.id": "medkg-benchmark", "enable.auto.commit": False, "log_level": 3}
        )

    def end(self) -> int:
        """The offset that the next message will get.

        Raises:
            TimeoutError: the topic's leader does not answer; a new topic may take a moment to have one.
        """
        deadline = time.monotonic() + _ANSWER_TIMEOUT_SECONDS
        while True:
            try:
                return int(self._consumer.get_watermark_offsets(self._partition, timeout=5)[1])
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"asking Kafka for the end of {self.topic}: {error.args[0].str()}") from error
                time.sleep(0.1)

    async def wait_for(self, offset: int, deadline_seconds: float, what: str, check: Callable[[], None]) -> None:
        """Return when the topic has come to ``offset``. Every few seconds it says how far it is, and calls ``check``.

        Raises:
            TimeoutError: it has not, in time; the message says what was waited for.
        """
        begun = said = time.monotonic()
        first = self.end()
        while (now_at := self.end()) < offset:
            now = time.monotonic()
            if now - begun > deadline_seconds:
                missing = offset - now_at
                raise TimeoutError(f"{what}: {missing} events are missing in {self.topic} after {now - begun:.0f} s")
            if now - said > _SAY_EVERY_SECONDS:
                said = now
                check()
                print(f"    {what}: {100 * (now_at - first) // max(offset - first, 1)} %", flush=True)
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    def read(self, begin: int, end: int) -> Iterator[Message]:
        """The messages with offsets in ``[begin, end)``.

        Raises:
            TimeoutError: Kafka did not give them.
        """
        self._consumer.assign([TopicPartition(self.topic, 0, begin)])
        try:
            position, deadline = begin, time.monotonic() + _READ_TIMEOUT_SECONDS
            while position < end:
                for message in self._consumer.consume(1_000, timeout=0.1):
                    if message.error() is not None or (offset := message.offset()) is None:
                        continue
                    position, deadline = offset + 1, time.monotonic() + _READ_TIMEOUT_SECONDS
                    if offset < end:
                        yield message
                if time.monotonic() > deadline:
                    raise TimeoutError(f"reading {self.topic} back: nothing came after offset {position} for 30 s")
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        self._consumer.close()


def written_ms(message: Message) -> int:
    """When the message's producer wrote it, in milliseconds since 1970."""
    return int(message.timestamp()[1])
