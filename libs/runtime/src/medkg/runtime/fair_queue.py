"""Who is next: tenants take turns, and within a tenant first come is first served."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A queue of queues, one a tenant. A tenant with one item waits for at most one item of every other tenant."""

    __slots__ = ("_count", "_queues")

    def __init__(self) -> None:
        self._queues: dict[bytes, deque[T]] = {}  # in the order of their turns
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, tenant: bytes, item: T) -> None:
        """Put an item at the end of its tenant's queue."""
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = deque()
        queue.append(item)
        self._count += 1

    def pop(self) -> T:
        """The next item of the tenant whose turn it is.

        Raises:
            IndexError: nothing waits.
        """
        if not self._count:
            raise IndexError("nothing waits")
        tenant, queue = next(iter(self._queues.items()))
        item = queue.popleft()
        self._count -= 1
        if not queue:
            del self._queues[tenant]
        elif len(self._queues) > 1:  # to the end of the line
            self._queues[tenant] = self._queues.pop(tenant)
        return item

    def keep(self, is_kept: Callable[[T], bool]) -> list[T]:
        """Drop every item that is not to be kept, and say which; turns stay as they are."""
        dropped: list[T] = []
        for tenant, queue in list(self._queues.items()):
            kept: deque[T] = deque()
            for item in queue:
                (kept if is_kept(item) else dropped).append(item)
            if kept:
                self._queues[tenant] = kept
            else:
                del self._queues[tenant]
        self._count -= len(dropped)
        return dropped
