"""The Kafka side of a process."""

from collections.abc import Sequence

from faststream.confluent import KafkaBroker

from medkg.runtime.broker.clients import client_settings
from medkg.runtime.broker.producer import Publisher
from medkg.runtime.broker.subscription import Sink, Subscription
from medkg.runtime.settings import KafkaSettings


class KafkaHost:
    """The Kafka side of a process: any number of subscriptions, one publisher. An async context manager."""

    def __init__(self, settings: KafkaSettings, *, drain_seconds: float = 20, client_id: str = "medkg") -> None:
        self.settings = settings
        self._drain_seconds = drain_seconds
        self.publisher = Publisher(settings)
        self._subscriptions: list[Subscription] = []
        consuming = {
            "enable.auto.commit": True,  # of offsets that the worker has stored, and of no others
            "enable.auto.offset.store": False,
            "queued.min.messages": 4 * settings.batch_records,
            "fetch.queue.backoff.ms": 10,  # its default, a second, holds up whoever empties so short a queue sooner
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
        subscription = Subscription(self.broker, self.settings, self._drain_seconds, topics, group, sink)
        self._subscriptions.append(subscription)
        return subscription

    def partition_count(self, topic: str) -> int:
        """How many partitions a subscribed topic had when some of them were assigned here last."""
        return max((one.partition_counts.get(topic, 0) for one in self._subscriptions), default=0)

    async def start(self) -> None:
        """Connect and begin to consume."""
        await self.broker.start()
        hosted = self.broker.config.broker_config
        await hosted.producer.disconnect()  # we have one of our own; this one would poll ten times a second for nothing
        await hosted.admin.disconnect()
        for subscription in self._subscriptions:
            subscription.adopt()

    async def stop(self) -> None:
        """Leave the groups (stored offsets are committed) and deliver what is queued."""
        await self.broker.stop()
        await self.publisher.close()
