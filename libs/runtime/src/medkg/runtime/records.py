"""What comes out of Kafka, without Kafka: one record, and where it stood."""

from dataclasses import dataclass

from medkg.contracts.cloudevents import Headers
from medkg.contracts.messages import Position


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One partition of one topic."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class Record:
    """One consumed record. ``headers`` keep their order; ``timestamp_ms`` is the broker's or the producer's."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers
    timestamp_ms: int = 0

    @property
    def position(self) -> Position:
        return Position(self.topic, self.partition, self.offset)
