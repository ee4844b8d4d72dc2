"""A member of a consumer group, hosted by FastStream and steered by the worker."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as ConfluentMessage
from faststream.confluent import KafkaBroker
from faststream.message import StreamMessage
from faststream.middlewares import AckPolicy

from medkg.contracts.errors import ResourceUnavailableError
from medkg.runtime.records import Partition, Record
from medkg.runtime.settings import KafkaSettings

_POLL_SECONDS = 0.5
_SHORT_POLL_SECONDS = 0.02
# How long the sink may stay busy with what it has before it is given more all the same: a poll costs as much as ten
# records, and a process that was just woken works at half its speed.
_GATHER_SECONDS = 0.01
_METADATA_SECONDS = 2.0


class Sink(Protocol):
    """Who receives the records of a subscription. All calls come on the event loop.

    ``wants_more`` is set while nothing waits to be worked on: more is polled for then at once, and otherwise gathered.
    """

    @property
    def wants_more(self) -> threading.Event: ...

    def accept(self, records: list[Record]) -> None: ...

    def assigned(self, partitions: list[Partition]) -> None: ...

    async def release(self, partitions: list[Partition]) -> dict[Partition, int]:
        """Partitions are about to be taken away: finish what can be, and say which offsets to store."""
        ...

    def lost(self, partitions: list[Partition]) -> None:
        """Partitions are gone already: someone else may own them."""
        ...


class Subscription:
    """One consumer group member on some topics, and the way to steer it."""

    def __init__(
        self,
        broker: KafkaBroker,
        settings: KafkaSettings,
        drain_seconds: float,
        topics: Sequence[str],
        group: str,
        sink: Sink,
    ) -> None:
        self._prefix = settings.topic_prefix
        self._sink = sink
        self._drain_seconds = drain_seconds
        self._assigned: set[Partition] = set()
        self._default_count = settings.partitions
        self._topics = tuple(topics)
        self.partition_counts: dict[str, int] = {}  # of each topic, as known at the last assignment
        self.on_counted: Callable[[], None] = lambda: None  # called on the loop when they are known anew
        self._paused: set[Partition] = set()
        self._loop = asyncio.get_running_loop()
        self._orders = Orders()
        self._session_seconds = settings.session_timeout_ms / 1_000
        self._subscriber = broker.subscriber(
            *(settings.topic_prefix + topic for topic in topics),
            group_id=settings.topic_prefix + group,
            batch=True,
            max_records=settings.batch_records,
            polling_interval=_POLL_SECONDS,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            max_poll_interval_ms=settings.max_poll_interval_ms,
            auto_commit_interval_ms=settings.auto_commit_interval_ms,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
            parser=_pass_through,
            decoder=_raw_batch,
            title=group,
            description=f"Consumer group {group}",
        )
        self._subscriber(self._receive)

    @property
    def seconds_since_poll(self) -> float:
        """How long ago the consumer was polled last."""
        return time.monotonic() - self._orders.obeyed_at

    def is_current(self) -> bool:
        """Whether a poll has returned within the session timeout: the group waits so long before it goes on without us.

        A process that was frozen for longer finds itself out of date until its next poll has told what it has lost.
        """
        return time.monotonic() - self._orders.polled_at < self._session_seconds

    @property
    def assigned(self) -> frozenset[Partition]:
        return frozenset(self._assigned)

    def adopt(self) -> None:
        """Take over the consumer that FastStream has started."""
        hosted = self._subscriber.consumer
        if hosted is None:
            raise ResourceUnavailableError("starting a Kafka consumer: FastStream has not made one")
        steered = _SteeredConsumer(hosted.consumer, self._orders, self._sink.wants_more)
        hosted.consumer = steered  # type: ignore[assignment]  # what FastStream calls of a consumer, it has

    def pause(self) -> None:
        """Stop fetching from all assigned partitions; polling goes on."""
        fresh = self._assigned - self._paused
        if fresh:
            native = [self._native(partition) for partition in fresh]
            self._orders.more_to_come = True
            self._orders.give(lambda consumer: consumer.pause(native))
            self._paused |= fresh

    def resume(self) -> None:
        """Fetch again."""
        if self._paused:
            native = [self._native(partition) for partition in self._paused]
            self._orders.give(lambda consumer: consumer.resume(native))
            self._orders.give_later(lambda consumer: _nudge(consumer, native))
            self._orders.more_to_come = False
            self._paused.clear()

    def store(self, offsets: dict[Partition, int]) -> None:
        """Mark offsets as done; they are committed in the background, and when the consumer leaves."""
        native = [self._native(p, offset) for p, offset in offsets.items() if p in self._assigned]
        if native:
            self._orders.give(lambda consumer: consumer.store_offsets(offsets=native))

    async def _receive(self, batch: tuple[ConfluentMessage, ...]) -> None:
        skipped = len(self._prefix)
        self._sink.accept(
            [
                Record(
                    (item.topic() or "")[skipped:],
                    item.partition() or 0,
                    item.offset() or 0,
                    item.key(),
                    item.value() or b"",
                    item.headers() or [],  # type: ignore[arg-type]  # a list of pairs, as received
                    item.timestamp()[1],
                )
                for item in batch
            ]
        )

    # The three below run on the thread that polls, inside a poll.

    def _on_assign(self, _: Consumer, native: list[TopicPartition]) -> None:
        partitions = [self._partition(item) for item in native]
        for topic in self._topics:  # all of them: a topic may have grown, which brings us no partition
            self._orders.give_later(partial(self._count, topic))
        self._assigned.update(partitions)
        self._loop.call_soon_threadsafe(self._sink.assigned, partitions)

    def _on_revoke(self, consumer: Consumer, native: list[TopicPartition]) -> None:
        partitions = [self._partition(item) for item in native]
        released = asyncio.run_coroutine_threadsafe(self._sink.release(partitions), self._loop)
        with suppress(TimeoutError):  # the sink bounds it; this is for a loop that does not turn any more
            offsets = released.result(timeout=self._drain_seconds + 5)
            self._orders.obey(consumer, is_in_callback=True)
            with suppress(KafkaException):  # an offset that cannot be stored is done again, which is harmless
                consumer.store_offsets(offsets=[self._native(p, offset) for p, offset in offsets.items()])
        self._forget(partitions)

    def _count(self, topic: str, consumer: Consumer) -> None:
        """Find out how many partitions a topic has; as the settings have it where Kafka does not say."""
        name = self._prefix + topic
        try:
            found = consumer.list_topics(name, timeout=_METADATA_SECONDS).topics.get(name)
            if found is not None and found.partitions:
                self.partition_counts[topic] = len(found.partitions)
        finally:
            self.partition_counts.setdefault(topic, self._default_count)
            self._loop.call_soon_threadsafe(self.on_counted)

    def _on_lost(self, _: Consumer, native: list[TopicPartition]) -> None:
        partitions = [self._partition(item) for item in native]
        self._loop.call_soon_threadsafe(self._sink.lost, partitions)
        self._forget(partitions)

    def _forget(self, partitions: list[Partition]) -> None:
        self._assigned.difference_update(partitions)
        self._paused.difference_update(partitions)

    def _partition(self, item: TopicPartition) -> Partition:
        return Partition(item.topic[len(self._prefix) :], item.partition)

    def _native(self, partition: Partition, offset: int | None = None) -> TopicPartition:
        topic = self._prefix + partition.topic
        return (
            TopicPartition(topic, partition.number)
            if offset is None
            else TopicPartition(topic, partition.number, offset)
        )


def _nudge(consumer: Consumer, partitions: list[TopicPartition]) -> None:
    """Make librdkafka fetch from partitions that were just resumed.

    It (2.16) notices them only when the thread of their broker wakes up, up to a second later. Any request to that
    broker wakes it; asking for the end of the partition is the cheapest. Goes when resuming does it.
    """
    for partition in partitions:
        consumer.get_watermark_offsets(partition, timeout=1.0)


class Orders:
    """What is to be done with a consumer between its polls. Given from any thread, obeyed on the polling one."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[Consumer], object]] = deque()
        self._asking: deque[Callable[[Consumer], object]] = deque()
        self.more_to_come = False  # polls are kept short
        self.obeyed_at = time.monotonic()
        self.polled_at = time.monotonic()  # when a poll returned last, and with it what the group has to say

    def give(self, order: Callable[[Consumer], object]) -> None:
        self._waiting.append(order)

    def give_later(self, order: Callable[[Consumer], object]) -> None:
        """An order that asks Kafka something. Never obeyed inside a callback: confluent-kafka (2.16) keeps the state of
        a call for its thread, a second call within the first one wipes it, and the process aborts."""
        self._asking.append(order)

    def obey(self, consumer: Consumer, *, is_in_callback: bool = False) -> None:
        self.obeyed_at = time.monotonic()
        for orders in (self._waiting,) if is_in_callback else (self._waiting, self._asking):
            while orders:
                with suppress(KafkaException):  # about a partition that was taken away a moment ago
                    orders.popleft()(consumer)


class _SteeredConsumer:
    """A consumer that returns as soon as there is anything, and is steered between its polls.

    librdkafka's batch call waits until the batch is full or the time is over, so that a lone document would spend the
    whole polling interval at every hop: this waits for the first record only and takes what is there with it. And every
    call of confluent-kafka's consumer waits for a poll that is under way on another thread: orders are kept until the
    poll returns, and while partitions are paused polls are short. FastStream reaches its consumer through a public
    attribute and offers no setting for either; goes when it does.
    """

    def __init__(self, consumer: Consumer, orders: Orders, wants_more: threading.Event) -> None:
        self._consumer = consumer
        self._orders = orders
        self._wants_more = wants_more

    def consume(self, num_messages: int, timeout: float) -> list[ConfluentMessage]:
        self._wants_more.wait(_GATHER_SECONDS)
        self._orders.obey(self._consumer)
        first = self._consumer.poll(min(timeout, _SHORT_POLL_SECONDS) if self._orders.more_to_come else timeout)
        self._orders.polled_at = time.monotonic()
        if first is None:
            return []
        batch = [first]
        if num_messages > 1:
            batch += self._consumer.consume(num_messages - 1, 0)
        return batch

    def commit(self, **how: Any) -> Any:
        self._orders.obey(self._consumer)
        return self._consumer.commit(**how)

    def close(self) -> None:
        self._orders.obey(self._consumer)
        self._consumer.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


async def _pass_through(batch: Any) -> StreamMessage[Any]:
    # FastStream's own parser decodes every header of every record, most of what a hop would cost
    return StreamMessage(raw_message=batch, body=b"")


async def _raw_batch(item: StreamMessage[Any]) -> Any:
    return item.raw_message
