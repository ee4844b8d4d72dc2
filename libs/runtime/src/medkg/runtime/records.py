"""What comes out of Kafka, without Kafka: one record, and where it stood."""

from dataclasses import dataclass

import msgspec

from medkg.contracts.cloudevents import Headers
from medkg.contracts.messages import Position

TENANT_HEADER = "ce_tenantid"


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One partition of one topic."""

    topic: str
    number: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """One consumed record. ``headers`` keep their order; ``timestamp_ms`` is the broker's or the producer's."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers
    timestamp_ms: int = 0

    @property
    def tenant(self) -> bytes:
        """Whose it is, as the envelope says; empty where it does not."""
        for name, value in self.headers:
            if name == TENANT_HEADER:
                return value
        return b""

    @property
    def position(self) -> Position:
        return Position(self.topic, self.partition, self.offset)
