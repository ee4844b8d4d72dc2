"""Artefacts that nobody refers to: in the blob store, and in no message, no wait and no parsed file.

An artefact is also a memory: the same work is found again by its key. So one that nobody refers to is no fault, and
removing it costs at most doing that work again.
"""

import re
from datetime import UTC, datetime, timedelta

import msgspec

from medkg.contracts import topics
from medkg.contracts.ids import stable_id
from medkg.contracts.stages import StageType
from medkg.runtime.blobs import BlobStore
from medkg.runtime.broker import TopicReader
from medkg.runtime.settings import KafkaSettings
from medkg.storage.engine import Engine
from medkg.storage.ledger_suspects import held_texts

_PREFIXES = ("artefacts", "payloads")
_EXAMPLES = 10
_KEY = re.compile(rb'"key":\s*"((?:artefacts|payloads)/[^"\\]{1,1000})"')
_TOPICS = (*(stage.topic for stage in StageType), topics.LIFECYCLE, topics.DEAD_LETTER, topics.MINERU_QUEUE)


class Orphans(msgspec.Struct, frozen=True):
    """What was found: how many of all that were looked at, how large, and some of their keys."""

    looked_at: int
    blobs: int
    size_bytes: int
    examples: tuple[str, ...]
    is_applied: bool


async def orphans(
    engine: Engine, kafka: KafkaSettings, blobs: BlobStore, *, grace_seconds: float, apply: bool
) -> Orphans:
    """Find artefacts older than the grace time that nobody refers to, and (``apply``) remove them.

    Reads every topic from its beginning: something for a quiet hour.

    Raises:
        ResourceUnavailableError: Kafka, the database or the blob store does not answer.
    """
    before = datetime.now(UTC) - timedelta(seconds=grace_seconds)
    old = [
        (key, size) for prefix in _PREFIXES async for key, size, written_at in blobs.list(prefix) if written_at < before
    ]
    known = await _known(engine, kafka) if old else set()
    lonely = [(key, size) for key, size in old if _mark(key.encode()) not in known]
    if apply:
        for key, _ in lonely:
            await blobs.delete(key)
    examples = tuple(key for key, _ in lonely[:_EXAMPLES])
    return Orphans(len(old), len(lonely), sum(size for _, size in lonely), examples, apply)


async def _known(engine: Engine, kafka: KafkaSettings) -> set[int]:
    """Marks of all keys that anybody refers to: 8 bytes each, for there may be millions."""
    known: set[int] = set()
    async with TopicReader(kafka) as reader:
        for topic in dict.fromkeys(_TOPICS):
            async for batch in reader.whole(topic):
                known.update(_mark(key) for record in batch for key in _KEY.findall(record.value))
    async for text in held_texts(engine):
        known.update(_mark(key) for key in _KEY.findall(text.encode()))
    return known


def _mark(key: bytes) -> int:
    return int(stable_id(key.decode(errors="replace"))[:16], 16)
