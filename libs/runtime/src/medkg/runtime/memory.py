"""Memory is bounded by configuration: large inputs take their turn, and the window shrinks while memory is short.

Messages are small, so what a worker holds is bounded by number (``WindowSettings``). Inputs that lie in the blob store
may be large: :class:`ByteBudget` bounds how many bytes of them are open at once. :class:`MemoryWatch` looks at what the
process really uses: over the soft limit it lets the workers use half of their window, then half of that, and gives it
back step by step once usage is 10 % below the limit. What the process has freed, and its allocator keeps for later, is
given back to the system first (:func:`trim`): else usage would stay where its peak was, and the window small for ever.
"""

import asyncio
import ctypes
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_NO_LIMIT = 2**60  # what cgroup v1 says when there is none is larger
_SOFT_SHARE = 0.8  # of a container's limit: beyond it the kernel kills
_RELIEF = 0.9  # of the soft limit, under which the window grows again
_ARENA_MAX = -8
_SMALLEST = 1 / 1024  # one document at a time, whatever the window


class ByteBudget:
    """How many bytes of large inputs may be open at once; one that is larger than all of it is opened alone."""

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self._open = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def open_bytes(self) -> int:
        return self._open

    @asynccontextmanager
    async def hold(self, size_bytes: int) -> AsyncIterator[None]:
        """Keep so many bytes open for as long as the block lasts; first come, first served."""
        if self._waiting or not self._fits(size_bytes):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((size_bytes, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_back(size_bytes)
                raise
        else:
            self._open += size_bytes
        try:
            yield
        finally:
            self._give_back(size_bytes)

    def _fits(self, size_bytes: int) -> bool:
        return not self._open or self._open + size_bytes <= self._size

    def _give_back(self, size_bytes: int) -> None:
        self._open -= size_bytes
        while self._waiting:
            asked, turn = self._waiting[0]
            if turn.done():  # it was cancelled while it waited
                self._waiting.popleft()
            elif self._fits(asked):
                self._waiting.popleft()
                self._open += asked
                turn.set_result(None)
            else:
                return


class MemoryWatch:
    """Shrinks windows while the process uses more than ``soft_bytes``. ``shrink`` is given the share to be used."""

    def __init__(
        self,
        soft_bytes: int,
        shrink: Sequence[Callable[[float], None]],
        used: Callable[[], int] | None = None,
        give_back: Callable[[], None] | None = None,
    ) -> None:
        self._soft = soft_bytes
        self._shrink = shrink
        self._used = used or resident_bytes
        self._give_back = give_back or trim
        self.share = 1.0

    async def run(self, every_seconds: float = 1.0) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(every_seconds)
            self.look()

    def look(self) -> None:
        """Look once, and act."""
        used, before = self._used(), self.share
        if used > self._soft * (1 if before == 1 else _RELIEF):
            self._give_back()
            used = self._used()
        if used > self._soft:
            self.share = max(before / 2, _SMALLEST)
        elif used < self._soft * _RELIEF and before < 1:
            self.share = min(before * 2, 1.0)
        if self.share != before:
            what = "shrinks" if self.share < before else "grows back"
            log.warning(
                "memory: %d MiB in use, soft limit %d MiB: the window %s to %.2g of its size",
                used >> 20,
                self._soft >> 20,
                what,
                self.share,
            )
            for tell in self._shrink:
                tell(self.share)


def resident_bytes() -> int:
    """What the process occupies, in bytes; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def trim() -> None:
    """Give memory that is free, but kept by the C library's allocator, back to the system; glibc alone can do that.

    It costs some milliseconds for a few hundred MiB, and holds neither the interpreter's lock nor anything else.
    """
    give_back = _of_libc("malloc_trim")
    if give_back is not None:
        give_back(0)


def limit_arenas() -> None:
    """Let the threads of this process share two of glibc's arenas; to be called before there are any.

    By default each thread has one of its own, up to eight a core, and each keeps what was once in use there: of a stage
    service 5 to 15 MiB. Source of the number: M_ARENA_MAX in glibc's malloc.h.
    """
    set_option = _of_libc("mallopt")
    if set_option is not None:
        set_option(_ARENA_MAX, 2)


@cache
def _of_libc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None


def soft_limit(configured_bytes: int | None) -> int:
    """The soft limit: as configured, else 80 % of the container's limit; 0 for none."""
    if configured_bytes is not None:
        return configured_bytes
    for path in _CGROUP_LIMITS:
        try:
            limit = int(path.read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if limit < _NO_LIMIT:
            return int(limit * _SOFT_SHARE)
    return 0
