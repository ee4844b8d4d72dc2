"""Being a guest: how often one host is asked, by how many at once, and when it said to come back.

This is one process's share of good manners. It is one small object so that a limit that is kept across processes can
take its place.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version

from aiolimiter import AsyncLimiter

from medkg.contracts.errors import SourceRateLimitedError

MAX_HOSTS = 2_048  # remembered at a time; the one that was asked longest ago is forgotten first


def user_agent(distribution: str, contact: str) -> str:
    """``medkg/1.2 (mailto:…)``: who asks, and whom to write to if it is too much."""
    return f"medkg/{version(distribution)}" + (f" ({contact})" if contact else "")


@dataclass(slots=True)
class _Manners:
    limiter: AsyncLimiter
    places: asyncio.Semaphore
    not_before: float = 0.0
    at_once: int = field(default=0)  # who holds a place or waits for one: such a host is not forgotten


class Politeness:
    """Gives turns at hosts."""

    def __init__(
        self,
        *,
        requests_per_second: float,
        connections_per_host: int,
        longest_wait_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = requests_per_second
        self._places = connections_per_host
        self._longest_wait = longest_wait_seconds
        self._clock = clock
        self._hosts: OrderedDict[str, _Manners] = OrderedDict()

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """The right to send one request to a host, held until its answer is read.

        Raises:
            SourceRateLimitedError: the host said not to come back for a time that is too long to wait here.
        """
        manners = self._manners(host)
        self._check(host, manners)
        manners.at_once += 1
        try:
            async with manners.places:
                if (wait := manners.not_before - self._clock()) > 0:
                    self._check(host, manners)
                    await asyncio.sleep(wait)
                await manners.limiter.acquire()
                yield
        finally:
            manners.at_once -= 1

    def hold_off(self, host: str, seconds: float) -> None:
        """The host asked not to be asked again for so long (``Retry-After``)."""
        manners = self._manners(host)
        manners.not_before = max(manners.not_before, self._clock() + seconds)

    def _check(self, host: str, manners: _Manners) -> None:
        wait = manners.not_before - self._clock()
        if wait > self._longest_wait:
            raise SourceRateLimitedError(
                f"asking {host}: it said not to come back for another {wait:.0f} s", retry_after_seconds=wait
            )

    def _manners(self, host: str) -> _Manners:
        found = self._hosts.get(host)
        if found is None:
            # A bucket of one second's requests, at least one: a slower rate is one request in 1 / rate seconds.
            burst = max(self._rate, 1.0)
            limiter = AsyncLimiter(burst, burst / self._rate)
            found = self._hosts[host] = _Manners(limiter, asyncio.Semaphore(self._places))
            self._forget_some()
        self._hosts.move_to_end(host)
        return found

    def _forget_some(self) -> None:
        if len(self._hosts) > MAX_HOSTS:
            idle = next((name for name, manners in self._hosts.items() if not manners.at_once), None)
            if idle is not None:
                del self._hosts[idle]
