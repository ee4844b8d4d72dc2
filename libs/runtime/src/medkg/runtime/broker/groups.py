"""Looking at consumer groups: who is in them, and how far they are. Changes nothing."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from medkg.contracts import topics
from medkg.contracts.errors import ResourceUnavailableError
from medkg.runtime.broker.clients import LIBRDKAFKA, client_settings
from medkg.runtime.settings import KafkaSettings

_TIMEOUT_SECONDS = 5.0

# Topics that are not named after the service that reads them.
_READERS = {topics.GATE: "gate-router", topics.JOBS: "gate-router", topics.LIFECYCLE: "ledger"}


def group_of(topic: str) -> str:
    """The consumer group that works off a topic: ``medkg.chunk.v1`` is read by ``medkg-chunk``."""
    if topic == topics.MINERU_QUEUE:
        return "medkg-mineru"
    return f"medkg-{_READERS.get(topic) or topic.removeprefix('medkg.').removesuffix('.v1')}"


class Groups:
    """Consumer groups of one cluster, read through one admin client. Close it when done."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._prefix = settings.topic_prefix
        self._bootstrap = settings.bootstrap
        self._settings = client_settings(settings)
        self._admin = AdminClient(self._settings, logger=LIBRDKAFKA)
        self._consumers: dict[str, Consumer] = {}  # by group
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="groups")

    async def lags(self, names: Sequence[str]) -> dict[str, int]:
        """How many messages of each topic its group has not finished. A topic that is not there has none.

        Raises:
            ResourceUnavailableError: Kafka does not answer.
        """
        return await self._run(self._lags, list(names))

    async def members(self, groups: Sequence[str]) -> dict[str, int]:
        """How many members each group has. A group that the cluster cannot describe is left out.

        Raises:
            ResourceUnavailableError: Kafka does not answer.
        """
        return await self._run(self._members, list(groups))

    def close(self) -> None:
        """Let go of the clients; a request under way ends by its time limit."""
        self._thread.submit(self._close_consumers)
        self._thread.shutdown(wait=False)

    def _close_consumers(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()

    async def _run(self, work: Any, names: list[str]) -> dict[str, int]:
        try:
            found: dict[str, int] = await asyncio.get_running_loop().run_in_executor(self._thread, work, names)
        except KafkaException as error:
            raise ResourceUnavailableError(
                f"looking at consumer groups on {self._bootstrap}: {error.args[0]}"
            ) from error
        return found

    def _lags(self, names: list[str]) -> dict[str, int]:
        return {name: lag for name in names if (lag := self._lag(name)) is not None}

    def _lag(self, name: str) -> int | None:
        """By a consumer that never joins: the admin client's requests for offsets abort the process (librdkafka 2.16,
        ``rd_kafka_enq_once_del_source_return``) when the broker goes away while they are under way."""
        topic, group = self._prefix + name, self._prefix + group_of(name)
        consumer = self._consumers.get(group)
        if consumer is None:
            settings = self._settings | {"group.id": group, "enable.auto.commit": False}
            consumer = self._consumers[group] = Consumer(settings, logger=LIBRDKAFKA)
        found = consumer.list_topics(topic, timeout=_TIMEOUT_SECONDS).topics.get(topic)
        if found is None or not found.partitions:
            return None
        lag = 0
        asked = [TopicPartition(topic, number) for number in found.partitions]
        for partition in consumer.committed(asked, timeout=_TIMEOUT_SECONDS):
            low, high = consumer.get_watermark_offsets(partition, timeout=_TIMEOUT_SECONDS)
            done = partition.offset if partition.offset >= 0 else low
            lag += max(high - max(done, low), 0)
        return lag

    def _members(self, groups: list[str]) -> dict[str, int]:
        asked = self._admin.describe_consumer_groups(
            [self._prefix + group for group in groups], request_timeout=_TIMEOUT_SECONDS
        )
        found: dict[str, int] = {}
        for name, future in asked.items():
            with suppress(KafkaException, TimeoutError):  # librdkafka's in-process cluster describes no groups
                found[name[len(self._prefix) :]] = len(future.result(timeout=_TIMEOUT_SECONDS).members)
        return found
