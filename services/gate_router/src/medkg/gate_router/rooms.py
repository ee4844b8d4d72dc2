"""How many more messages a topic may take, so that what is released together does not flood it."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.stages import StageType

log = logging.getLogger(__name__)

STAGE_TOPICS = tuple(kind.topic for kind in StageType if kind is not StageType.GATE)

Lags = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]


@dataclass(slots=True)
class Rooms:
    """The bound of a topic less what its group has not worked off yet and what was released since that was asked.

    Without ``lags`` there is room for ever. Where Kafka does not say how far a group is, a topic has its whole bound
    anew each second: then the bound is a rate.
    """

    lags: Lags | None
    bound: int
    fresh_seconds: float = 1.0  # how long an answer of Kafka is taken to hold
    clock: Callable[[], float] = time.monotonic
    _left: dict[str, int] = field(default_factory=dict)
    _filled: set[str] = field(default_factory=set)  # by us: there may be more for them
    _asked_at: float = float("-inf")
    _was_told: bool = True

    async def left(self) -> dict[str, int] | None:
        """How many messages each topic may take now; None: as many as there are."""
        if self.lags is None:
            return None
        if self.clock() - self._asked_at >= self.fresh_seconds:
            lags = await self._lags(self.lags)
            self._left = {topic: max(self.bound - lags.get(topic, 0), 0) for topic in STAGE_TOPICS}
            self._asked_at = self.clock()
            self._filled = {topic for topic in self._filled if not self._left[topic]}
        return dict(self._left)

    async def have_grown(self) -> bool:
        """Whether a topic that was filled from here can take more now."""
        before = set(self._filled)
        await self.left()
        return not self._filled or bool(before - self._filled)

    @property
    def seconds_until_asked(self) -> float:
        """For how long the rooms can only become smaller."""
        return max(self._asked_at + self.fresh_seconds - self.clock(), 0.0)

    def take(self, topic: str) -> None:
        """One more message has been released to a topic."""
        if topic in self._left:
            self._left[topic] = max(self._left[topic] - 1, 0)
            if not self._left[topic]:
                self._filled.add(topic)

    @property
    def is_any_full(self) -> bool:
        """Whether a topic that was filled from here has had no room since: more may be due for it."""
        return bool(self._filled)

    async def _lags(self, ask: Lags) -> Mapping[str, int]:
        try:
            found = await ask(STAGE_TOPICS)
        except ResourceUnavailableError as error:
            if self._was_told:
                log.warning("%s; at most %d documents a second are released to a topic", error.message, self.bound)
            self._was_told = False
            return {}
        self._was_told = True
        return found
