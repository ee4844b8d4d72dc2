"""Starting while something is away: a process waits for it, says so, and can be stopped meanwhile.

Only what can pass is waited for (:class:`ResourceUnavailableError`): Kafka, PostgreSQL, the blob store, a peer. A
setting that cannot work ends the process at once.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from medkg.contracts.errors import ResourceUnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")


class StoppedAtStart(Exception):
    """The process was told to stop before it was serving. Nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited: in all (0: for ever), and between two attempts, where it doubles from the first to the most.

    At most eight seconds, so that what comes back is found soon; a part of it is random, so that the processes of a
    fleet do not come all at once.
    """

    longest_seconds: float = 0
    first_seconds: float = 0.5
    most_seconds: float = 8

    def pause_seconds(self, attempt: int) -> float:
        """After the ``attempt``-th failure, counted from 1."""
        longest = min(self.most_seconds, self.first_seconds * 2.0 ** min(attempt - 1, 32))
        return longest * random.uniform(0.7, 1)  # noqa: S311  spreads processes, guards nothing


class Start:
    """A process on its way into service. ``stop`` is set when it is told to end."""

    def __init__(self, names: str, patience: Patience, stop: asyncio.Event) -> None:
        self._names = names
        self._patience = patience
        self._stop = stop
        self._waits_for = "nothing yet"

    def faults(self) -> dict[str, str]:
        """Why it is not ready yet: for its readiness."""
        return {"start": f"{self._names} not serving yet; waiting: {self._waits_for}"}

    async def open(self, stack: AsyncExitStack, opened: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Enter what ``opened`` makes, anew each time that something does not answer; it is closed with ``stack``.

        What is opened closes by itself what it has opened before it failed.

        Raises:
            StoppedAtStart: the process was told to stop, which breaks off an attempt as well as a pause.
            ResourceUnavailableError: something was away for longer than is waited.
            MedkgError: something that waiting cannot mend.
        """
        loop = asyncio.get_running_loop()
        began, attempt = loop.time(), 0
        async with _broken_off_by(self._stop):
            while True:
                try:
                    value = await stack.enter_async_context(opened())
                except ResourceUnavailableError as error:
                    attempt += 1
                    waited = loop.time() - began
                    pause = self._pause(attempt, waited, error)
                    await asyncio.sleep(pause)
                else:
                    if attempt:
                        log.info("%s: it answers, after %.0f s", self._names, loop.time() - began)
                    return value

    def _pause(self, attempt: int, waited: float, error: ResourceUnavailableError) -> float:
        """Say what is waited for, and how long to wait before the next attempt."""
        longest = self._patience.longest_seconds
        if longest and waited >= longest:
            raise ResourceUnavailableError(
                f"{error.message}; given up after {waited:.0f} s (MEDKG_START_WAIT_SECONDS)"
            ) from error
        pause = self._patience.pause_seconds(attempt)
        if longest:
            pause = min(pause, longest - waited)
        self._waits_for = error.message
        log.warning(
            "%s cannot start yet: %s; next attempt in %.1f s",
            self._names,
            error.message,
            pause,
            extra={"code": error.code, "attempt": attempt, "waited_seconds": round(waited, 1)},
        )
        return pause


@asynccontextmanager
async def _broken_off_by(stop: asyncio.Event) -> AsyncIterator[None]:
    """The block is cancelled as soon as ``stop`` is set.

    Raises:
        StoppedAtStart: it was.
    """
    limit = asyncio.timeout(None)

    async def watch() -> None:
        await stop.wait()
        limit.reschedule(asyncio.get_running_loop().time())

    watching: asyncio.Task[None] | None = None
    try:
        async with limit:
            watching = asyncio.create_task(watch(), name="stop at start")
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError as error:
        if limit.expired():
            raise StoppedAtStart from error
        raise
    finally:
        if watching is not None:
            await asyncio.gather(watching, return_exceptions=True)
