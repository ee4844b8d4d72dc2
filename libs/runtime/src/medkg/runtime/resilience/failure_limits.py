"""A worker that fails document after document stops: a bad release must not drain a topic into the dead letters.

Counted are documents that *failed*: medkg, a peer or a setting is at fault, or the message cannot be read. Rejections
do not count, however many: the content is at fault, the next release would reject it too, and a folder of a thousand
broken files must not stop the service for everybody else. Nor do faults of one pipeline (its topology, its settings, an
implementation that needs a GPU where none is): they belong to whoever submitted it, and its documents end at once.
"""

from collections import deque
from dataclasses import dataclass

from medkg.contracts.errors import ConfigurationError, Disposition, GpuNotAvailable, MedkgError
from medkg.runtime.resilience.stopping import WorkerStopped

WINDOW = 1_000  # the newest documents that the ratio is of
LEAST = 200  # documents before a ratio says anything


@dataclass(frozen=True, slots=True)
class FailureRule:
    """More than ``run`` failures in a row, or a greater part than ``ratio`` of the newest documents, stop the worker.

    0 means no such limit.
    """

    run: int = 100
    ratio: float = 0.5


class FailureLimits:
    """What has become of the newest documents of a worker."""

    __slots__ = ("_failures", "_newest", "_outcomes", "_rule", "_run", "_service")

    def __init__(self, rule: FailureRule, service: str) -> None:
        self._rule = rule
        self._service = service
        self._outcomes: deque[bool] = deque()  # True: failed
        self._failures = 0
        self._run = 0

    def succeeded(self) -> None:
        """A document went on, or was rejected for its content."""
        self._run = 0
        self._note(False)

    def failed(self, error: MedkgError) -> None:
        """A document is about to become a dead letter.

        Raises:
            WorkerStopped: one too many. This document is not to become one; its offset stays.
        """
        if error.disposition is Disposition.REJECTED:
            self.succeeded()
            return
        if isinstance(error, ConfigurationError | GpuNotAvailable):
            return
        self._run += 1
        self._note(True)
        count = len(self._outcomes)
        if 0 < self._rule.run < self._run:
            self._stop(f"{self._run} documents in a row have failed (MEDKG_DEAD_LETTER_RUN={self._rule.run})", error)
        if self._rule.ratio and count >= LEAST and self._failures > self._rule.ratio * count:
            self._stop(
                f"{self._failures} of the last {count} documents have failed "
                f"(MEDKG_DEAD_LETTER_RATIO={self._rule.ratio:g})",
                error,
            )

    def _note(self, is_failure: bool) -> None:
        self._outcomes.append(is_failure)
        self._failures += is_failure
        if len(self._outcomes) > WINDOW:
            self._failures -= self._outcomes.popleft()

    def _stop(self, what: str, error: MedkgError) -> None:
        raise WorkerStopped(
            f"{self._service} stops: {what}; the newest: {error.code}: {error.message}. What was not yet a dead letter "
            "stays in its topic. Look whether this release, a peer or a setting is at fault, mend it or roll back, "
            "start again, and redrive the dead letters"
        ) from error
