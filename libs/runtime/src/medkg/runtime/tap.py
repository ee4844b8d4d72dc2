"""When records flow in: not above the high-water mark, and not while there is a reason to take nothing."""

import logging
from typing import Protocol

from medkg.runtime.metrics import WorkerMetrics
from medkg.runtime.records import Partition

log = logging.getLogger(__name__)


class Intake(Protocol):
    """The consumer, as far as the worker steers it."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def store(self, offsets: dict[Partition, int]) -> None: ...

    def is_current(self) -> bool:
        """Whether the group can not have given the partitions to somebody else without our knowledge."""
        ...


class Tap:
    """Pauses and resumes an intake. Before there is one, it only remembers."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        self._intake: Intake | None = None
        self._is_shut = False
        self._is_shut_for_good = False
        self._reasons: set[str] = set()

    def connect(self, intake: Intake) -> None:
        self._intake = intake

    @property
    def is_held(self) -> bool:
        """Whether nothing is taken for a reason that has nothing to do with how much is held."""
        return bool(self._reasons)

    @property
    def is_shut(self) -> bool:
        return self._is_shut

    def shut(self) -> None:
        """Take nothing until :meth:`open`. Said again after each take: partitions may have come meanwhile."""
        if self._intake is None:
            return
        self._intake.pause()
        if not self._is_shut:
            self._is_shut = True
            self._metrics.paused.set(1)

    def open(self) -> None:
        """Take again, unless there is a reason not to."""
        if self._intake is None or not self._is_shut or self._is_shut_for_good or self._reasons:
            return
        self._intake.resume()
        self._is_shut = False
        self._metrics.paused.set(0)

    def shut_for_good(self) -> None:
        self._is_shut_for_good = True
        if self._intake is not None:
            self._intake.pause()

    def hold(self, reason: str) -> None:
        """Take nothing from now on, for this reason."""
        if reason not in self._reasons:
            log.warning("taking nothing: %s", reason)
        self._reasons.add(reason)
        self._metrics.held.set(1)
        if self._intake is not None:
            self._intake.pause()
            self._is_shut = True

    def unhold(self, reason: str) -> bool:
        """The reason is gone. Returns whether there was such a reason."""
        if reason not in self._reasons:
            return False
        self._reasons.discard(reason)
        log.info("no longer in the way: %s", reason)
        if not self._reasons:
            self._metrics.held.set(0)
        return True
