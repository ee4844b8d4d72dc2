"""Which runs are told to have started: those that last.

A quick run is over before anybody could read that it has begun. Its end says all of it, with how long it took; a start
told beside it would be a third of all messages.
"""

import asyncio
import time
from collections.abc import Callable

from medkg.contracts.cloudevents import Message
from medkg.runtime.outcome import Narrator


class Starts:
    """Says that runs have started, once they have lasted ``after_seconds``; 0: at once.

    All calls come on one event loop. There is one timer for all runs.
    """

    def __init__(self, say: Callable[[Message], None], after_seconds: float = 0.0) -> None:
        self._say = say
        self._after_seconds = after_seconds
        self._untold: dict[Narrator, float] = {}  # runs under way, the oldest first, and when each began (time.time)
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, narrator: Narrator) -> None:
        """A run begins."""
        if not self._after_seconds:
            self._say(narrator.started())
            return
        self._untold[narrator] = time.time()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._after_seconds, self._look)

    def end(self, narrator: Narrator) -> None:
        """A run is over."""
        self._untold.pop(narrator, None)

    def tell(self, narrator: Narrator) -> None:
        """Say that a run has started, unless that is said already: more is to be told of it."""
        begun = self._untold.pop(narrator, None)
        if begun is not None:
            self._say(narrator.started(begun))

    def _look(self) -> None:
        self._timer = None
        due = time.time() - self._after_seconds
        for narrator, begun in list(self._untold.items()):
            if begun > due:
                seconds = min(begun - due, self._after_seconds)  # a clock that was set back delays nothing for long
                self._timer = asyncio.get_running_loop().call_later(seconds, self._look)
                return
            self.tell(narrator)
