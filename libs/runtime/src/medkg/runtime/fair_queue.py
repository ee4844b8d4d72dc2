"""Who is next: tenants take turns, and within a tenant first come is first served."""

from collections import deque
from collections.abc import Callable, Container
from typing import Generic, TypeVar

T = TypeVar("T")

_REMEMBERED = 1_000  # tenants of which nothing waits


class FairQueue(Generic[T]):
    """A queue of queues, one a tenant, served in rounds: in each of them every tenant has one turn.

    A tenant with one item waits for at most one item of every other tenant, and where it had no turn in this round, for
    none of those who have had theirs: so the one that comes to a queue full of another's work is the next.
    """

    __slots__ = ("_count", "_due", "_served")

    def __init__(self) -> None:
        # In the order of their turns. What a tenant has may be used up: it is remembered until the round is over, so
        # that to come back at once is not to be the next again.
        self._due: dict[bytes, deque[T]] = {}
        self._served: dict[bytes, deque[T]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, tenant: bytes, item: T) -> None:
        """Put an item at the end of its tenant's queue."""
        queue = self._due.get(tenant)
        if queue is None:
            queue = self._served.get(tenant)
            if queue is None:
                queue = self._due[tenant] = deque()
        queue.append(item)
        self._count += 1

    def pop(self) -> T:
        """The next item of the tenant whose turn it is.

        Raises:
            IndexError: nothing waits.
        """
        if not self._count:
            raise IndexError("nothing waits")
        while True:
            if not self._due:
                self._due, self._served = self._served, {}
            tenant, queue = next(iter(self._due.items()))
            if queue:
                return self._take(tenant, queue)
            del self._due[tenant]

    def pop_of_another(self, tenants: Container[bytes | None]) -> T | None:
        """The next item of a tenant that is none of these; None where there is none."""
        for queues in (self._due, self._served):
            for tenant, queue in queues.items():
                if queue and tenant not in tenants:
                    return self._take(tenant, queue)
        return None

    def keep(self, is_kept: Callable[[T], bool]) -> list[T]:
        """Drop every item that is not to be kept, and say which; turns stay as they are."""
        dropped: list[T] = []
        for queues in (self._due, self._served):
            for tenant, queue in queues.items():
                kept: deque[T] = deque()
                for item in queue:
                    (kept if is_kept(item) else dropped).append(item)
                queues[tenant] = kept
        self._count -= len(dropped)
        return dropped

    def _take(self, tenant: bytes, queue: deque[T]) -> T:
        self._due.pop(tenant, None)
        self._served[tenant] = queue
        self._count -= 1
        if not self._count and len(self._served) > _REMEMBERED:
            self._due, self._served = {}, {}
        return queue.popleft()
