"""Keeps a replica's share of the fleet-wide rates in step with its partitions.

Less is taken before a revocation is acknowledged, and more only once an assignment has come: a partition counts for
nobody in between, and the rates of all replicas never add up to more than the policy.
"""

import threading
from collections.abc import Callable
from typing import Protocol

from medkg.runtime.records import Partition, Record
from medkg.runtime.resilience.limits import Share


class Receiver(Protocol):
    """Whoever is told about partitions and records: see ``medkg.runtime.broker.Sink``."""

    @property
    def wants_more(self) -> threading.Event: ...

    def accept(self, records: list[Record]) -> None: ...

    def assigned(self, partitions: list[Partition]) -> None: ...

    async def release(self, partitions: list[Partition]) -> dict[Partition, int]: ...

    def lost(self, partitions: list[Partition]) -> None: ...


class ShareKeeper:
    """Stands before a receiver, and sets the share by what it passes on."""

    def __init__(self, receiver: Receiver, share: Share, count: Callable[[str], int]) -> None:
        """``count`` says how many partitions a topic has; 0 while that is not known, and the share is 0 so long."""
        self._receiver = receiver
        self._share = share
        self._count = count
        self._owned: set[Partition] = set()
        self.accept = receiver.accept
        self.wants_more = receiver.wants_more

    def assigned(self, partitions: list[Partition]) -> None:
        self._receiver.assigned(partitions)
        self._owned.update(partitions)
        self._set()

    async def release(self, partitions: list[Partition]) -> dict[Partition, int]:
        self._owned.difference_update(partitions)
        self._set()
        return await self._receiver.release(partitions)

    def lost(self, partitions: list[Partition]) -> None:
        self._owned.difference_update(partitions)
        self._set()
        self._receiver.lost(partitions)

    def recount(self) -> None:
        """The number of partitions may have changed."""
        self._set()

    def _set(self) -> None:
        topics = {partition.topic for partition in self._owned}
        self._share.set(len(self._owned), sum(map(self._count, topics)))
