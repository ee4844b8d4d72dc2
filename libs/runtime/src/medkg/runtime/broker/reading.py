"""Reading topics back, beside the consumer groups: one record where it stands, or all of a stretch.

Nothing here joins a group or commits an offset, so no consumer notices that somebody looks.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from types import TracebackType

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as ConfluentMessage

from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.messages import Position
from medkg.runtime.broker.clients import LIBRDKAFKA, client_settings
from medkg.runtime.records import Record
from medkg.runtime.settings import KafkaSettings

_ANSWER_SECONDS = 10.0  # how long Kafka may take for one answer
_BATCH = 1_000


class TopicReader:
    """Reads records back. One call at a time; all raise ResourceUnavailableError when Kafka does not answer."""

    def __init__(self, settings: KafkaSettings, group: str = "medkg-reader") -> None:
        """``group``: the consumer group whose committed offsets :meth:`unread` counts from."""
        self._prefix = settings.topic_prefix
        self._consumer = Consumer(
            client_settings(settings)
            | {
                "group.id": settings.topic_prefix + group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": settings.fetch_wait_ms,
            },
            logger=LIBRDKAFKA,
        )

    async def __aenter__(self) -> "TopicReader":
        return self

    async def __aexit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._consumer.close)

    async def one(self, position: Position) -> Record | None:
        """The record at a position; None when it is gone (expired, or the topic was made anew)."""
        return await asyncio.to_thread(self._asked, f"reading {position.topic}", self._one, position)

    async def whole(
        self, topic: str, seen: dict[int, int] | None = None, *, since: datetime | None = None
    ) -> AsyncIterator[list[Record]]:
        """All records of a topic as far as it reaches now, in batches; each partition in its order.

        ``seen`` (by partition, the offset to go on from) is kept up to date: given again, only what is new is read.
        ``since``: nothing that was published earlier.
        """
        done = {} if seen is None else seen
        if since is not None:
            done |= await asyncio.to_thread(self._asked, f"reading {topic}", self._offsets_at, topic, since)
        async for batch in self._stretch(topic, done):
            for record in batch:
                done[record.partition] = record.offset + 1
            yield batch

    async def unread(self, topic: str) -> AsyncIterator[list[Record]]:
        """The records of a topic beyond what the group has committed, as far as it reaches now."""
        async for batch in self._stretch(topic, None):
            yield batch

    async def _stretch(self, topic: str, done: dict[int, int] | None) -> AsyncIterator[list[Record]]:
        ends = await asyncio.to_thread(self._asked, f"reading {topic}", self._begin, topic, done)
        heard_at = time.monotonic()
        while ends:
            batch = await asyncio.to_thread(self._asked, f"reading {topic}", self._next, ends)
            if batch:
                heard_at = time.monotonic()
                yield batch
            elif ends and time.monotonic() - heard_at > _ANSWER_SECONDS:
                raise ResourceUnavailableError(f"reading {topic}: Kafka sent nothing for {_ANSWER_SECONDS:.0f} s")

    def _asked(self, doing: str, ask, *given):  # type: ignore[no-untyped-def]  # hands on what ``ask`` takes and gives
        try:
            return ask(*given)
        except KafkaException as error:
            raise ResourceUnavailableError(f"{doing}: {error.args[0].str()}; is Kafka up?") from error

    def _one(self, position: Position) -> Record | None:
        at = TopicPartition(self._prefix + position.topic, position.partition, position.offset)
        if position.partition not in self._partitions(position.topic):
            return None
        low, high = self._consumer.get_watermark_offsets(at, timeout=_ANSWER_SECONDS)
        if not low <= position.offset < high:
            return None
        self._consumer.assign([at])
        try:
            found = self._consumer.poll(_ANSWER_SECONDS)
        finally:
            self._consumer.unassign()
        if found is None:
            raise ResourceUnavailableError(f"reading {position.topic}: Kafka sent nothing for {_ANSWER_SECONDS:.0f} s")
        if (fault := found.error()) is not None:
            raise KafkaException(fault)
        return self._record(found) if found.offset() == position.offset else None

    def _offsets_at(self, topic: str, since: datetime) -> dict[int, int]:
        """The first offset of each partition that is not older; a partition that does not know is read whole."""
        moment = int(since.timestamp() * 1_000)
        asked = [TopicPartition(self._prefix + topic, number, moment) for number in self._partitions(topic)]
        found = self._consumer.offsets_for_times(asked, timeout=_ANSWER_SECONDS) if asked else []
        return {item.partition: item.offset for item in found if item.offset >= 0}

    def _begin(self, topic: str, done: dict[int, int] | None) -> dict[int, int]:
        """Start reading after ``done`` (None: what the group has committed); where each partition with more ends."""
        numbers = self._partitions(topic)
        name = self._prefix + topic
        asked = [TopicPartition(name, number) for number in numbers]
        if done is None:
            committed = self._consumer.committed(asked, timeout=_ANSWER_SECONDS) if asked else []
            done = {item.partition: item.offset for item in committed if item.offset > OFFSET_INVALID}
        starts, ends = [], {}
        for item in asked:
            low, high = self._consumer.get_watermark_offsets(item, timeout=_ANSWER_SECONDS)
            start = max(low, done.get(item.partition, low))
            if start < high:
                starts.append(TopicPartition(name, item.partition, start))
                ends[item.partition] = high
        self._consumer.assign(starts)
        return ends

    def _next(self, ends: dict[int, int]) -> list[Record]:
        """Up to a batch of records before their partition's end; partitions that are through leave ``ends``."""
        records: list[Record] = []
        for item in self._consumer.consume(_BATCH, 0.5):
            if (fault := item.error()) is not None:
                if fault.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
                    ends.pop(item.partition() or 0, None)  # expired while it was read
                    continue
                raise KafkaException(fault)
            if (item.offset() or 0) < ends.get(item.partition() or 0, 0):
                records.append(self._record(item))
        for place in self._consumer.position(self._consumer.assignment()):
            if place.offset >= ends.get(place.partition, 0):
                ends.pop(place.partition, None)
        if not ends:
            self._consumer.unassign()
        return records

    def _partitions(self, topic: str) -> Sequence[int]:
        found = self._consumer.list_topics(self._prefix + topic, timeout=_ANSWER_SECONDS).topics
        known = found.get(self._prefix + topic)
        return sorted(known.partitions) if known is not None and known.error is None else ()

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
