"""A clock that only moves when everybody waits: hours pass in a test within milliseconds."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: it moves the loop's clock to the next timer instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise AssertionError("everybody waits, and for nothing that has a time")
        self.now += max(timeout, 1e-9)  # some time passes always, or a rounding error would be waited for for ever
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on such a clock. Without threads: they live in real time."""

    def __init__(self) -> None:
        self._own = _Selector()
        super().__init__(self._own)

    def time(self) -> float:
        return self._own.now


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a clock of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
