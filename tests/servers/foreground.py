"""Keeps a server in the foreground until somebody ends it."""

import signal
from collections.abc import Callable
from threading import Event

_LOOK_EVERY_SECONDS = 0.5


def listen_for_interrupt() -> Event:
    """From now on Ctrl-C and SIGTERM set this event instead of ending the process. Call it before the server starts."""
    asked = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: asked.set())
    return asked


def wait_for_interrupt(asked: Event, is_running: Callable[[], bool]) -> None:
    """Return when the event is set or the server is gone by itself."""
    while not asked.wait(_LOOK_EVERY_SECONDS) and is_running():
        pass
