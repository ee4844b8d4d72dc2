"""How replicas agree about breakers: each change is an event on a compacted topic that all of them read.

See docs/decisions/0010. A change is published without waiting for it: one that is lost costs the other replicas a few
failures of their own, and nobody waits for Kafka because a peer is down.
"""

import logging
from collections.abc import Callable

import msgspec

from medkg.contracts import topics
from medkg.contracts.cloudevents import Envelope, Message, message, now, schema_uri
from medkg.contracts.ids import stable_id
from medkg.contracts.messages import BreakerChange, EventType, encode

log = logging.getLogger(__name__)

_SCHEMA = schema_uri("breaker-change")
_DECODE = msgspec.json.Decoder(BreakerChange).decode


def breaker_message(change: BreakerChange, source: str) -> Message:
    """A change as an event, keyed by the breaker: compaction keeps the last one of each."""
    envelope = Envelope(
        id=stable_id("breaker", change.name, change.revision, change.worker),
        type=EventType.BREAKER_CHANGED,
        source=source,
        time=now(),
        subject=change.name,
        dataschema=_SCHEMA,
        partitionkey=change.name,
    )
    return message(topics.BREAKERS, envelope, encode(change))


def hear_of(hear: Callable[[BreakerChange], None], service: str) -> Callable[[bytes], None]:
    """What reads the values of the topic and passes on the changes that concern a service."""
    prefix = f"{service}."

    def read(value: bytes) -> None:
        try:
            change = _DECODE(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("passing over a breaker's change that cannot be read: %s", error)
            return
        if change.name.startswith(prefix):
            hear(change)

    return read
