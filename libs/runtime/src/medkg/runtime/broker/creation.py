"""Creating the topics that are missing."""

import asyncio
import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from medkg.contracts.errors import ResourceUnavailableError
from medkg.runtime.broker.clients import LIBRDKAFKA, MAX_MESSAGE_BYTES, client_settings
from medkg.runtime.settings import KafkaSettings


async def ensure_topics(
    settings: KafkaSettings, topics: Sequence[str], *, compacted: Sequence[str] = (), timeout_seconds: float = 30
) -> None:
    """Create the topics that are missing, and wait until all of them can be used.

    Of those in ``compacted`` Kafka keeps the last message of each key, and they have one partition.

    Raises:
        ResourceUnavailableError: Kafka did not answer in time.
    """
    await asyncio.to_thread(_ensure_topics, settings, list(topics), set(compacted), timeout_seconds)


def _ensure_topics(settings: KafkaSettings, topics: list[str], compacted: set[str], timeout_seconds: float) -> None:
    names = [settings.topic_prefix + topic for topic in topics]
    admin = AdminClient(client_settings(settings), logger=LIBRDKAFKA)
    deadline = time.monotonic() + timeout_seconds
    try:
        if settings.is_in_process:  # its topics appear when they are first asked for
            for name in names:
                admin.list_topics(name, timeout=timeout_seconds)
            return
        if settings.create_topics:
            known = admin.list_topics(timeout=timeout_seconds).topics
            new = [
                _new_topic(settings, topic, is_compacted=topic in compacted)
                for topic in topics
                if settings.topic_prefix + topic not in known
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


def _new_topic(settings: KafkaSettings, topic: str, *, is_compacted: bool) -> NewTopic:
    config = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    if is_compacted:
        config |= {"cleanup.policy": "compact", "segment.ms": "600000"}
    return NewTopic(
        settings.topic_prefix + topic,
        num_partitions=1 if is_compacted else settings.partitions,
        replication_factor=settings.replication_factor,
        config=config,
    )
