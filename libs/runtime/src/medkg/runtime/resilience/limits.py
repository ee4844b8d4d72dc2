"""Rates that hold for the whole fleet: each replica takes its share of them.

A replica that has 3 of a topic's 12 partitions takes a quarter of the rate. Admissions come singly, never in bursts: at
most one in every ``1 / (rate x share)`` seconds, and none before the first such interval is over, so that neither a
restart nor a rebalance gives anything away. In any window of T seconds the fleet admits at most ``rate x T`` plus one
for each replica.
"""

import asyncio
from collections.abc import Callable

from aiolimiter import AsyncLimiter


class Share:
    """The part of every fleet-wide rate that this replica may take: its partitions among all partitions."""

    def __init__(self, fraction: float = 0.0) -> None:
        self.fraction = fraction
        self._watchers: set[Callable[[], None]] = set()

    def set(self, owned: int, total: int) -> None:
        """This replica has ``owned`` of ``total`` partitions from now on."""
        fraction = min(1.0, owned / total) if total > 0 else 0.0
        if fraction != self.fraction:
            self.fraction = fraction
            for watcher in list(self._watchers):
                watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` at every change."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        self._watchers.discard(watcher)


class RateLimit:
    """Admits callers one after the other, in the order in which they came, at the replica's part of a rate."""

    def __init__(self, rate_per_second: float, share: Share) -> None:
        self._rate = rate_per_second
        self._share = share
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Timeout | None = None
        self._limiter: AsyncLimiter | None = None
        self._pace = 0.0
        share.watch(self._look_again)

    def close(self) -> None:
        """Hear no more of the share."""
        self._share.unwatch(self._look_again)

    def change(self, rate_per_second: float) -> None:
        """Another rate, from now on; who waits already waits by the new one."""
        self._rate = rate_per_second
        self._look_again()

    async def acquire(self) -> float:
        """Wait for a turn. Returns the seconds waited. Without a partition nobody has a turn."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with self._turn:
            while not await self._admitted(loop):
                pass
        return loop.time() - begun

    async def _admitted(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Wait at the present pace; False when the pace has changed meanwhile."""
        limiter = await self._current()
        try:
            async with asyncio.timeout(None) as self._waiting:
                if limiter is None:
                    await loop.create_future()  # ends with the next change of the share
                else:
                    await limiter.acquire()
        except TimeoutError:
            return False
        finally:
            self._waiting = None
        return limiter is self._limiter and self._pace == self._rate * self._share.fraction

    async def _current(self) -> AsyncLimiter | None:
        pace = self._rate * self._share.fraction
        if pace != self._pace:
            self._pace = pace
            self._limiter = AsyncLimiter(1, 1 / pace) if pace > 0 else None
            if self._limiter is not None:
                await self._limiter.acquire()  # full: the first turn comes after a whole interval
        return self._limiter

    def _look_again(self) -> None:
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())
