"""The producer of a process."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as ConfluentMessage

from medkg.contracts.cloudevents import Message
from medkg.contracts.errors import ResourceUnavailableError
from medkg.runtime.broker.clients import LIBRDKAFKA, MAX_MESSAGE_BYTES, client_settings
from medkg.runtime.settings import KafkaSettings

DELIVERY_TIMEOUT_MS = 120_000
_FLUSH_SECONDS = 1.0
_CLOSE_SECONDS = 10.0

# What the same message meets again however often it is sent.
_NEVER = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.TOPIC_AUTHORIZATION_FAILED}


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
                # a producer that waits holds up all that its process does: for a broker that cannot acknowledge (it
                # is cut off from its cluster), and for one that no longer leads a partition
                "request.timeout.ms": settings.request_timeout_ms,
                "topic.metadata.refresh.interval.ms": 5_000,
                "linger.ms": 5,
                "compression.type": settings.compression,
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "queue.buffering.max.kbytes": 65_536,
                "partitioner": "murmur2_random",  # the Java client's: every producer agrees where a key lives
            },
            logger=LIBRDKAFKA,
        )
        self._produce = self._producer.produce
        self._is_closed = False

    def send(
        self, item: Message, on_failure: Callable[[KafkaError | None, ConfluentMessage], None] | None = None
    ) -> None:
        """Hand a message to the producer's queue; it is delivered by the next flush at the latest.

        Raises:
            KafkaException: the message can never be sent (too large).
        """
        while True:
            try:
                self._produce(
                    self._prefix + item.topic,
                    value=item.value,
                    key=item.key,
                    headers=item.headers,  # type: ignore[arg-type]  # a list of pairs with bytes is one of its forms
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
        await asyncio.get_running_loop().run_in_executor(None, self._flush)
        if self._is_closed:
            raise ResourceUnavailableError(f"publishing {len(messages)} messages: the producer was closed meanwhile")
        refused = {index: error.str() for index, error in failures.items() if error.code() in _NEVER}
        if len(refused) < len(failures):
            first = next(error for index, error in failures.items() if index not in refused)
            raise ResourceUnavailableError(f"publishing {len(messages)} messages: {first.str()}")
        return refused

    def _flush(self) -> None:
        """Until everything is delivered or has failed; a stop of the process does not wait for a Kafka that is away."""
        while self._producer.flush(_FLUSH_SECONDS) and not self._is_closed:
            pass

    async def close(self) -> None:
        """Deliver what is queued, for at most ten seconds, and drop the rest: whoever asked for it does it again."""
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(None, self._producer.flush, _CLOSE_SECONDS):
            self._producer.purge()
        self._is_closed = True
