"""A breaker: after some failures in a row nothing is tried for a while, then one run is let through to see.

pybreaker counts and moves between closed, open and half-open. What it lacks is here: a clock of the event loop, one
probe at a time, waiting for a change, and replicas that agree. A change made here is told to the other replicas; one
that they have made is adopted. Of two changes the later one holds, whichever arrives first (``revision``, then the
worker's name), so that all replicas come to the same state.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from random import SystemRandom

import pybreaker

from medkg.contracts.errors import MedkgError, PeerUnavailableError
from medkg.contracts.messages import BreakerChange, BreakerState
from medkg.contracts.topology import Breaker as BreakerRule

TAKEOVER_SECONDS = 3.0  # others probe when the replica that opened a breaker has not been heard of for so long
_SPREAD_SECONDS = 3.0  # and not all of them at once
_PROBE_PATIENCE_SECONDS = 2.0  # until a probe that is under way is heard of
_RANDOM = SystemRandom()

Tell = Callable[[BreakerChange], None]


class BreakerOpen(PeerUnavailableError):
    """Not tried: the breaker is open. ``wait`` returns when trying again makes sense.

    ``was_probed``: it was tried, to see, and failed again. ``is_of_peer``: of one peer of several.
    """

    def __init__(self, breaker: "Breaker", *, was_probed: bool = False, is_of_peer: bool = False) -> None:
        super().__init__(
            f"running {breaker.name}: it failed {breaker.rule.failures} times in a row and is left alone for "
            f"{breaker.seconds_left:.0f} s more; nothing is lost"
        )
        self.breaker = breaker
        self.was_probed = was_probed
        self.is_of_peer = is_of_peer

    @property
    def seconds_until_tried(self) -> float:
        """When to come again, for whoever cannot wait: not all at once."""
        left = max(self.breaker.seconds_left, _PROBE_PATIENCE_SECONDS)
        return left * (1 + _RANDOM.random() / 4)

    async def wait(self) -> None:
        """Until the breaker is closed, or may be probed by whoever comes first."""
        await self.breaker.wait()


@dataclass(frozen=True, slots=True)
class Turn:
    """Leave to run once. A run that began before the breaker changed says nothing about it any more."""

    revision: int
    is_probe: bool


class Breaker:
    """One breaker of this replica. All calls come on the event loop, where it was made."""

    def __init__(
        self,
        name: str,
        rule: BreakerRule,
        worker: str,
        tell: Tell,
        *,
        probe_seconds: float = 60,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``probe_seconds`` is how long a probe may take, at most; ``wall`` the clock that replicas share."""
        self.name = name
        self.rule = rule
        self.probe_seconds = probe_seconds
        self._wall = wall
        self._worker = worker
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._machine = pybreaker.CircuitBreaker(fail_max=rule.failures, name=name)
        self._revision = 0
        self._author = ""
        self._due = 0.0  # loop time at which this replica may probe
        self._is_probing = False
        self._changed = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        return self._machine.current_state == pybreaker.STATE_CLOSED

    @property
    def seconds_left(self) -> float:
        """How long this replica leaves it alone; 0 when it is closed or may be probed."""
        return 0.0 if self.is_closed else max(0.0, self._due - self._loop.time())

    def admit(self, *, is_of_peer: bool = False) -> Turn:
        """Leave to run.

        Raises:
            BreakerOpen: it is open, or somebody else is the probe.
        """
        if self.is_closed:
            return Turn(self._revision, is_probe=False)
        if self._is_probing or self._loop.time() < self._due:
            raise BreakerOpen(self, is_of_peer=is_of_peer)
        self._is_probing = True
        self._machine.half_open()
        self._announce(BreakerState.HALF_OPEN, self.probe_seconds)
        return Turn(self._revision, is_probe=True)

    def ended(self, turn: Turn, error: BaseException | None) -> None:
        """How a run ended. An error that does not speak against what is guarded (content, a bug) counts as nothing."""
        if turn.revision != self._revision:
            return
        if error is None:
            if turn.is_probe or self._machine.fail_counter:
                self._machine.call(_succeed)
        elif isinstance(error, MedkgError) and error.trips_breaker:
            with suppress(pybreaker.CircuitBreakerError, MedkgError):
                self._machine.call(_fail, error)
        elif turn.is_probe:
            self._is_probing = False  # the next one may find out
            self._due = self._loop.time()
            self._wake()
            return
        if turn.is_probe or not self.is_closed:
            self._is_probing = False
            self._announce(BreakerState.CLOSED if self.is_closed else BreakerState.OPEN, self.rule.reset_seconds)

    def adopt(self, change: BreakerChange) -> None:
        """Take over what another replica has found out, unless something later is known here."""
        if (change.revision, change.worker) <= (self._revision, self._author):
            return
        self._revision, self._author = change.revision, change.worker
        self._is_probing = False
        left = min(max(0.0, change.until_ms / 1000 - self._wall()), max(self.rule.reset_seconds, self.probe_seconds))
        if change.state is BreakerState.CLOSED:
            self._machine.close()
        else:
            self._machine.open()
            self._due = self._loop.time() + left + TAKEOVER_SECONDS + self._spread()
        self._wake()

    def change(self, rule: BreakerRule, probe_seconds: float) -> None:
        """Another rule, from now on; one that is open already ends at its own time, or earlier by the new rule."""
        self.rule, self.probe_seconds = rule, probe_seconds
        self._machine.fail_max = rule.failures
        self._due = min(self._due, self._loop.time() + rule.reset_seconds)
        self._wake()

    def dissolve(self) -> None:
        """There is no such rule any more: let everybody through."""
        self._machine.close()
        self._is_probing = False
        self._wake()

    async def wait(self) -> None:
        """Until it is closed, or may be probed here."""
        while not self.is_closed:
            left = None if self._is_probing else self._due - self._loop.time()
            if left is not None and left <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    def _announce(self, state: BreakerState, seconds: float) -> None:
        now_ms = int(self._wall() * 1000)
        self._revision, self._author = max(self._revision + 1, now_ms), self._worker
        self._due = self._loop.time() + seconds
        self._wake()
        until_ms = 0 if state is BreakerState.CLOSED else now_ms + int(seconds * 1000)
        self._tell(BreakerChange(self.name, state, self._revision, self._worker, until_ms))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _spread(self) -> float:
        """The same replica is always as late for the same breaker."""
        digest = blake2b(f"{self.name} {self._worker}".encode(), digest_size=2).digest()
        return _SPREAD_SECONDS * int.from_bytes(digest) / 65_536


def _succeed() -> None:
    """What pybreaker is told of a run that went well."""


def _fail(error: MedkgError) -> None:
    """What pybreaker is told of a run that did not."""
    raise error
