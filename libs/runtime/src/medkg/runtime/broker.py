"""The only place that speaks to Kafka: subscriptions hosted by FastStream, one producer, topic creation.

FastStream declares and hosts the consumers; batches come out raw, and offsets are stored by the worker alone. The
subscription below bends FastStream in two places, both named where they are.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as ConfluentMessage
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported without __all__
from faststream.confluent import KafkaBroker
from faststream.message import StreamMessage
from faststream.middlewares import AckPolicy

from medkg.contracts.cloudevents import Envelope, Message, message, now, schema_uri
from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.ids import job_id_of, stable_id
from medkg.contracts.messages import EventType
from medkg.contracts.topics import JOBS
from medkg.runtime.records import Partition, Record
from medkg.runtime.settings import KafkaSettings

_LIBRDKAFKA = logging.getLogger("librdkafka")

MAX_MESSAGE_BYTES = 4_194_304  # a dead letter holds a whole message of the broker's default limit, and its reason
DELIVERY_TIMEOUT_MS = 120_000
POLL_SECONDS = 0.5
_SHORT_POLL_SECONDS = 0.02


class Sink(Protocol):
    """Who receives the records of a subscription. All calls come on the event loop."""

    def accept(self, records: list[Record]) -> None: ...

    def assigned(self, partitions: list[Partition]) -> None: ...

    async def release(self, partitions: list[Partition]) -> dict[Partition, int]:
        """Partitions are about to be taken away: finish what can be, and say which offsets to store."""
        ...

    def lost(self, partitions: list[Partition]) -> None:
        """Partitions are gone already: someone else may own them."""
        ...


def client_settings(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of the cluster is configured with."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap,
        "security.protocol": settings.security_protocol,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "socket.keepalive.enable": True,
        "log_level": 3,  # errors: librdkafka is chatty about every reconnect
    }
    if settings.sasl_mechanism:
        config |= {
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.username": settings.sasl_username,
            "sasl.password": settings.sasl_password.get_secret_value(),
        }
    return config


class Publisher:
    """The producer of a process. Idempotent: a retry inside librdkafka never makes a duplicate."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._prefix = settings.topic_prefix
        self._producer = Producer(
            client_settings(settings)
            | {
                "enable.idempotence": True,
                "delivery.report.only.error": True,
                "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "queue.buffering.max.kbytes": 65_536,
                "partitioner": "murmur2_random",  # the Java client's: every producer agrees where a key lives
            },
            logger=_LIBRDKAFKA,
        )

    def send(
        self, item: Message, on_failure: Callable[[KafkaError | None, ConfluentMessage], None] | None = None
    ) -> None:
        """Hand a message to the producer's queue; it is delivered by the next flush at the latest.

        Raises:
            KafkaException: the message can never be sent (too large).
        """
        while True:
            try:
                self._producer.produce(
                    self._prefix + item.topic,
                    value=item.value,
                    key=item.key,
                    headers=list(item.headers),
                    on_delivery=on_failure,
                )
                return
            except BufferError:  # the queue is full: let deliveries happen
                self._producer.poll(0.05)

    async def publish(self, messages: Sequence[Message]) -> dict[int, str]:
        """Deliver messages to Kafka and wait for its acknowledgement.

        Returns the messages that Kafka will never take, by index, with its reason (too large, unknown topic).

        Raises:
            ResourceUnavailableError: something else kept a message from being delivered. All may be published again:
                ids are deterministic.
        """
        failures: dict[int, KafkaError] = {}

        def failed(index: int, error: KafkaError | None, _: ConfluentMessage) -> None:
            if error is not None:
                failures[index] = error

        for index, item in enumerate(messages):
            try:
                self.send(item, partial(failed, index))
            except KafkaException as error:
                failures[index] = error.args[0]
        await asyncio.get_running_loop().run_in_executor(None, self._producer.flush)
        refused = {index: error.str() for index, error in failures.items() if error.code() in _NEVER}
        if len(refused) < len(failures):
            first = next(error for index, error in failures.items() if index not in refused)
            raise ResourceUnavailableError(f"publishing {len(messages)} messages: {first.str()}")
        return refused

    async def close(self) -> None:
        """Deliver what is queued, for at most ten seconds."""
        await asyncio.get_running_loop().run_in_executor(None, self._producer.flush, 10)


_NEVER = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.TOPIC_AUTHORIZATION_FAILED}


class Orders:
    """What is to be done with a consumer between its polls. Given from any thread, obeyed on the polling one."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[Consumer], object]] = deque()
        self.more_to_come = False  # polls are kept short
        self.obeyed_at = time.monotonic()

    def give(self, order: Callable[[Consumer], object]) -> None:
        self._waiting.append(order)

    def obey(self, consumer: Consumer) -> None:
        self.obeyed_at = time.monotonic()
        while self._waiting:
            with suppress(KafkaException):  # about a partition that was taken away a moment ago
                self._waiting.popleft()(consumer)


class _SteeredConsumer:
    """A consumer that returns as soon as there is anything, and is steered between its polls.

    librdkafka's batch call waits until the batch is full or the time is over, so that a lone document would spend the
    whole polling interval at every hop: this waits for the first record only and takes what is there with it. And every
    call of confluent-kafka's consumer waits for a poll that is under way on another thread: orders are kept until the
    poll returns, and while partitions are paused polls are short. FastStream reaches its consumer through a public
    attribute and offers no setting for either; goes when it does.
    """

    def __init__(self, consumer: Consumer, orders: Orders) -> None:
        self._consumer = consumer
        self._orders = orders

    def consume(self, num_messages: int, timeout: float) -> list[ConfluentMessage]:
        self._orders.obey(self._consumer)
        first = self._consumer.poll(min(timeout, _SHORT_POLL_SECONDS) if self._orders.more_to_come else timeout)
        if first is None:
            return []
        return [first, *self._consumer.consume(num_messages - 1, 0)] if num_messages > 1 else [first]

    def commit(self, **how: Any) -> Any:
        self._orders.obey(self._consumer)
        return self._consumer.commit(**how)

    def close(self) -> None:
        self._orders.obey(self._consumer)
        self._consumer.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


class Subscription:
    """One consumer group member on some topics, and the way to steer it."""

    def __init__(self, host: "KafkaHost", topics: Sequence[str], group: str, sink: Sink) -> None:
        settings = host.settings
        self._prefix = settings.topic_prefix
        self._sink = sink
        self._drain_seconds = host.drain_seconds
        self._assigned: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._loop = asyncio.get_running_loop()
        self._orders = Orders()
        self._subscriber = host.broker.subscriber(
            *(settings.topic_prefix + topic for topic in topics),
            group_id=settings.topic_prefix + group,
            batch=True,
            max_records=settings.batch_records,
            polling_interval=POLL_SECONDS,
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

    @property
    def assigned(self) -> frozenset[Partition]:
        return frozenset(self._assigned)

    def adopt(self) -> None:
        """Take over the consumer that FastStream has started."""
        hosted = self._subscriber.consumer
        if hosted is None:
            raise ResourceUnavailableError("starting a Kafka consumer: FastStream has not made one")
        steered = _SteeredConsumer(hosted.consumer, self._orders)
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
            self._orders.more_to_come = False
            self._paused.clear()

    def store(self, offsets: dict[Partition, int]) -> None:
        """Mark offsets as done; they are committed in the background, and when the consumer leaves."""
        native = [self._native(p, offset) for p, offset in offsets.items() if p in self._assigned]
        if native:
            self._orders.give(lambda consumer: consumer.store_offsets(offsets=native))

    async def _receive(self, batch: tuple[ConfluentMessage, ...]) -> None:
        self._sink.accept([self._record(item) for item in batch])

    def _record(self, item: ConfluentMessage) -> Record:
        return Record(
            topic=(item.topic() or "")[len(self._prefix) :],
            partition=item.partition() or 0,
            offset=item.offset() or 0,
            key=item.key(),
            value=item.value() or b"",
            headers=item.headers() or [],  # type: ignore[arg-type]  # a list of pairs, as received
            timestamp_ms=item.timestamp()[1],
        )

    # The three below run on the thread that polls, inside a poll.

    def _on_assign(self, _: Consumer, native: list[TopicPartition]) -> None:
        partitions = [self._partition(item) for item in native]
        self._assigned.update(partitions)
        self._loop.call_soon_threadsafe(self._sink.assigned, partitions)

    def _on_revoke(self, consumer: Consumer, native: list[TopicPartition]) -> None:
        partitions = [self._partition(item) for item in native]
        released = asyncio.run_coroutine_threadsafe(self._sink.release(partitions), self._loop)
        with suppress(TimeoutError):  # the sink bounds it; this is for a loop that does not turn any more
            offsets = released.result(timeout=self._drain_seconds + 5)
            self._orders.obey(consumer)
            with suppress(KafkaException):  # an offset that cannot be stored is done again, which is harmless
                consumer.store_offsets(offsets=[self._native(p, offset) for p, offset in offsets.items()])
        self._forget(partitions)

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


class KafkaHost:
    """The Kafka side of a process: any number of subscriptions, one publisher. An async context manager."""

    def __init__(self, settings: KafkaSettings, *, drain_seconds: float = 20, client_id: str = "medkg") -> None:
        self.settings = settings
        self.drain_seconds = drain_seconds
        self.publisher = Publisher(settings)
        self._subscriptions: list[Subscription] = []
        consuming = {
            "enable.auto.commit": True,  # of offsets that the worker has stored, and of no others
            "enable.auto.offset.store": False,
            "queued.min.messages": 1_000,
            "queued.max.messages.kbytes": 16_384,
            "fetch.wait.max.ms": settings.fetch_wait_ms,
            "topic.metadata.refresh.interval.ms": 5_000,
        }
        self.broker = KafkaBroker(
            settings.bootstrap,
            client_id=client_id,
            apply_types=False,
            logger=None,
            allow_auto_create_topics=False,  # topics are created below, with the right number of partitions
            config=client_settings(settings) | consuming,  # type: ignore[arg-type]  # wider than its TypedDict
        )

    def subscribe(self, topics: Sequence[str], group: str, sink: Sink) -> Subscription:
        """Declare a subscription. Before :meth:`start`."""
        subscription = Subscription(self, topics, group, sink)
        self._subscriptions.append(subscription)
        return subscription

    async def start(self) -> None:
        """Connect and begin to consume."""
        await self.broker.start()
        for subscription in self._subscriptions:
            subscription.adopt()

    async def stop(self) -> None:
        """Leave the groups (stored offsets are committed) and deliver what is queued."""
        await self.broker.stop()
        await self.publisher.close()


async def ensure_topics(settings: KafkaSettings, topics: Sequence[str], *, timeout_seconds: float = 30) -> None:
    """Create the topics that are missing, and wait until all of them can be used.

    Raises:
        ResourceUnavailableError: Kafka did not answer in time.
    """
    await asyncio.get_running_loop().run_in_executor(None, _ensure_topics, settings, list(topics), timeout_seconds)


def _ensure_topics(settings: KafkaSettings, topics: list[str], timeout_seconds: float) -> None:
    names = [settings.topic_prefix + topic for topic in topics]
    admin = AdminClient(client_settings(settings), logger=_LIBRDKAFKA)
    deadline = time.monotonic() + timeout_seconds
    try:
        if settings.is_in_process:  # its topics appear when they are first asked for
            for name in names:
                admin.list_topics(name, timeout=timeout_seconds)
            return
        if settings.create_topics:
            known = admin.list_topics(timeout=timeout_seconds).topics
            new = [
                NewTopic(
                    name,
                    num_partitions=settings.partitions,
                    replication_factor=settings.replication_factor,
                    config={"max.message.bytes": str(MAX_MESSAGE_BYTES)},
                )
                for name in names
                if name not in known
            ]
            for future in (admin.create_topics(new) if new else {}).values():
                try:
                    future.result(timeout=timeout_seconds)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise
        while True:
            found = admin.list_topics(timeout=timeout_seconds).topics
            missing = [name for name in names if name not in found or not found[name].partitions]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise ResourceUnavailableError(
                    f"waiting for topics: {', '.join(missing)} missing; "
                    "create them, or set MEDKG_KAFKA_CREATE_TOPICS=true"
                )
            time.sleep(0.05)
    except KafkaException as error:
        raise ResourceUnavailableError(
            f"reaching Kafka at {settings.bootstrap}: {error.args[0].str()}; is it up? (MEDKG_KAFKA_BOOTSTRAP)"
        ) from error


def job_event(submission: bytes, *, source: str, event_id: str) -> tuple[str, Message]:
    """A job event in binary mode, and the id of the job it will become."""
    job_id = job_id_of(source, event_id)
    envelope = Envelope(
        id=event_id,
        type=EventType.JOB_SUBMITTED,
        source=source,
        time=now(),
        subject=job_id,
        dataschema=schema_uri("job-submission"),
        partitionkey=job_id,
        correlationid=job_id,
    )
    return job_id, message(JOBS, envelope, submission)


async def publish_job_event(settings: KafkaSettings, submission: bytes, *, source: str, event_id: str = "") -> str:
    """Publish one job event straight to Kafka and return the id of its job.

    Raises:
        ResourceUnavailableError: Kafka did not take it.
    """
    publisher = Publisher(settings)
    job_id, item = job_event(
        submission, source=source, event_id=event_id or stable_id(time.time_ns(), submission.hex())
    )
    refused = await publisher.publish([item])
    if refused:
        raise ResourceUnavailableError(f"publishing the job event: {refused[0]}")
    return job_id


async def _pass_through(batch: Any) -> StreamMessage[Any]:
    # FastStream's own parser decodes every header of every record, most of what a hop would cost
    return StreamMessage(raw_message=batch, body=b"")


async def _raw_batch(item: StreamMessage[Any]) -> Any:
    return item.raw_message
