"""Leaving MinerU alone for a while when it fails again and again: nobody's attempt is burnt meanwhile."""

from collections.abc import Callable

from medkg.mineru.clock import Clock


class Breaker:
    """After ``failures`` in a row everybody waits for ``seconds``; then one request tries, and the others follow it."""

    def __init__(
        self, clock: Clock, *, failures: int, seconds: float, on_change: Callable[[bool], None] = lambda _: None
    ) -> None:
        self._clock = clock
        self._failures = failures
        self._seconds = seconds
        self._on_change = on_change
        self._in_a_row = 0
        self._opened_at: float | None = None
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    async def admitted(self) -> None:
        """Return when a request may be made: at once while all is well."""
        while self._opened_at is not None:
            left = self._opened_at + self._seconds - self._clock.monotonic()
            if left <= 0 and not self._is_probing:
                self._is_probing = True
                return
            await self._clock.sleep(max(left, self._seconds / 10))

    def succeeded(self) -> None:
        """MinerU has answered."""
        self._in_a_row, self._is_probing = 0, False
        if self._opened_at is not None:
            self._opened_at = None
            self._on_change(False)

    def failed(self) -> None:
        """MinerU has not answered, or not been able to."""
        self._in_a_row += 1
        if self._is_probing or (self._in_a_row >= self._failures and self._opened_at is None):
            self._opened_at = self._clock.monotonic()
            self._on_change(True)
        self._is_probing = False

    def abandoned(self) -> None:
        """A request was given up by us: the next one may probe."""
        self._is_probing = False
