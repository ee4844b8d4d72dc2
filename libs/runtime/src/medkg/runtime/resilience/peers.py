"""Guarding calls to peers, for a stage that calls several of them.

A stage whose implementation says ``calls_peers=True`` puts every call to another host into a guard::

    from medkg.runtime.resilience import peers

    async with peers.guard("api.crossref.org"):
        answer = await get_bounded(client, url, query, max_bytes)

The guard waits for a turn by ``rate_per_second`` of the stage's policy and keeps the policy's breaker, both for this
host alone and for the whole fleet. The wait for a turn is not counted as time of the stage. What is raised inside goes
on as it is; SourceUnavailableError and the like (``trips_breaker``) count for the breaker. While a peer's breaker is
open the guard raises PeerUnavailableError: let it pass. The document then waits at the gate-router until the peer may
be tried again, no attempt is used up, and documents of other peers go on.

Retries and the time limit are the stage's and not the guard's: raise, and the whole run is tried again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from medkg.contracts.errors import StageTimeoutError
from medkg.runtime.resilience.guards import Guard


class Run:
    """One run of a stage, as far as the guards of its peers need to know it."""

    def __init__(self, stage: Guard) -> None:
        self._stage = stage
        self._waiting = 0
        self._left: float | None = None
        self._limit: asyncio.Timeout | None = None

    def timed_by(self, limit: asyncio.Timeout) -> None:
        """The clock that stands still while a turn is waited for."""
        self._limit = limit
        if self._waiting:
            self._stop_clock()

    @property
    def is_out_of_time(self) -> bool:
        return self._limit is not None and self._limit.expired()

    def guard(self, host: str) -> Guard:
        return self._stage.of_peer(host)

    @contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """Nothing that happens inside counts as time of the run."""
        if not self._waiting:
            self._stop_clock()
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._start_clock()

    def _stop_clock(self) -> None:
        if self._limit is not None and (due := self._limit.when()) is not None:
            self._left = due - asyncio.get_running_loop().time()
            self._limit.reschedule(None)

    def _start_clock(self) -> None:
        if self._limit is not None and self._left is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + self._left)
            self._left = None


CURRENT: ContextVar[Run | None] = ContextVar("medkg_stage_run", default=None)


@asynccontextmanager
async def guard(host: str) -> AsyncIterator[None]:
    """Everything inside is a call to this peer. Outside of a stage that ``calls_peers`` it guards nothing.

    ``host`` is a host name, with the port where that matters; upper and lower case are the same.

    Raises:
        PeerUnavailableError: the peer is left alone for a while.
    """
    run = CURRENT.get()
    if run is None:
        yield
        return
    peer = run.guard(host.lower()[:255])
    with run.off_the_clock():
        turn = await peer.enter()
    try:
        yield
    except BaseException as error:
        is_late = isinstance(error, asyncio.CancelledError) and run.is_out_of_time
        peer.leave(turn, StageTimeoutError(f"calling {host}: no answer in time") if is_late else error)
        raise
    peer.leave(turn, None)
