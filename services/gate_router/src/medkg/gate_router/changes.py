"""What has happened that may release something: notices of the ledger, and the router's own arrivals."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from medkg.storage.notices import Notice
from medkg.storage.waits import Wait, WaitKind

MAX_NAMED = 10_000  # documents looked at by name; beyond, all that wait are looked at


@dataclass(slots=True)
class Changed:
    """What is to be looked at: these documents, the pages, or ``everything``.

    ``signalled`` are documents that a notice named, ``arrived`` those that have just come to a gate.
    """

    signalled: set[tuple[str, str]] = field(default_factory=set)
    arrived: set[tuple[str, str]] = field(default_factory=set)
    pages: bool = False
    jobs_ended: bool = False
    everything: bool = False

    @property
    def documents(self) -> set[tuple[str, str]]:
        return self.signalled | self.arrived

    def __bool__(self) -> bool:
        return bool(self.signalled or self.arrived or self.pages or self.jobs_ended or self.everything)


class Changes:
    """Collects changes until somebody takes them."""

    def __init__(self) -> None:
        self._changed = Changed()
        self._event = asyncio.Event()

    def heard(self, notice: Notice) -> None:
        """The ledger says that something has changed."""
        changed = self._changed
        changed.signalled.update(notice.documents)
        changed.jobs_ended = changed.jobs_ended or bool(notice.jobs)
        changed.everything = changed.everything or notice.truncated or len(changed.signalled) > MAX_NAMED
        self._event.set()

    def parked(self, waits: Sequence[Wait]) -> None:
        """These wait from now on."""
        changed = self._changed
        for wait in waits:
            if wait.kind is WaitKind.PAGE:
                changed.pages = True
            else:
                changed.arrived.add((wait.job_id, wait.doc_id))
        changed.everything = changed.everything or len(changed.arrived) > MAX_NAMED
        self._event.set()

    def look_everywhere(self) -> None:
        """Anything may have changed."""
        self._changed.everything = True
        self._event.set()

    def look_again(self, changed: Changed) -> None:
        """What could not be done now is to be done with the next look; nobody is woken for it."""
        mine = self._changed
        mine.signalled |= changed.signalled
        mine.arrived |= changed.arrived
        mine.everything = mine.everything or changed.everything

    def take(self) -> Changed:
        """What has changed since it was taken last."""
        taken, self._changed = self._changed, Changed()
        self._event.clear()
        return taken

    async def wait(self, seconds: float) -> None:
        """Until something changes, for so long at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
