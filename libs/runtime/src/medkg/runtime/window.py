"""The window of a partition: which offsets are under way, and up to where everything is finished.

Records finish in any order; an offset may be committed only when it and all taken before it are finished. Offsets may
have gaps (compaction, transactions): what counts is the order in which they were taken.
"""

from collections import deque


class OffsetWindow:
    """Offsets of one partition under one assignment.

    A window is closed when the partition is taken away: what finishes afterwards is abandoned, because the new owner of
    the partition will do it again.
    """

    __slots__ = ("_finished", "_taken", "committable", "is_open", "running")

    def __init__(self) -> None:
        self._taken: deque[int] = deque()
        self._finished: set[int] = set()
        self.committable: int | None = None  # the offset to store: one past the contiguous finished prefix
        self.is_open = True
        self.running = 0  # begun and not finished

    def __len__(self) -> int:
        """How many taken offsets are not yet part of the finished prefix."""
        return len(self._taken)

    def take(self, offset: int) -> None:
        """An offset begins. Offsets are taken in rising order.

        Raises:
            ValueError: the offset is not above the one taken last.
        """
        if self._taken and offset <= self._taken[-1]:
            raise ValueError(f"offset {offset} taken after {self._taken[-1]}")
        self._taken.append(offset)

    def begin(self) -> None:
        """A taken offset is being worked on."""
        self.running += 1

    def finish(self, offset: int) -> bool:
        """A begun offset is done with: its results are published. Returns whether the finished prefix has grown."""
        self.running -= 1
        self._finished.add(offset)
        grown = False
        while self._taken and self._taken[0] in self._finished:
            first = self._taken.popleft()
            self._finished.discard(first)
            self.committable = first + 1
            grown = True
        return grown

    def close(self) -> None:
        """The partition is gone: nothing of this window is published or committed any more."""
        self.is_open = False
