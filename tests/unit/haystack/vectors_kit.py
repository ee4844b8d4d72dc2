"""A blob store in memory whose calls happen one at a time, in an order that a test chooses, and documents for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from medkg.haystack.writes import DocumentWrite, Facets, PassageRow

DIMENSION = 4
ACTOR: ContextVar[str] = ContextVar("actor")


class Killed(BaseException):
    """What a process that was killed does not do any more."""


@dataclass
class Clock:
    """Seconds that pass with every call of the blob store."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Turns:
    """Who waits for a call of the blob store, until somebody is given the turn."""

    waiting: dict[int, tuple[str, asyncio.Future[bool]]] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    number: int = 0

    async def take(self) -> None:
        actor = ACTOR.get()
        if actor in self.dead:
            raise Killed
        self.number += 1
        number, turn = self.number, asyncio.get_running_loop().create_future()
        self.waiting[number] = (actor, turn)
        try:
            await turn
        finally:
            self.waiting.pop(number, None)
        if actor in self.dead:
            raise Killed


class MemoryBlobs:
    """See :class:`medkg.haystack.vectors.folder.SegmentBlobs`. Without ``turns`` every call happens at once."""

    def __init__(self, clock: Callable[[], float], turns: Turns | None = None) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self._clock = clock
        self._turns = turns

    async def get(self, key: str) -> bytes | None:
        await self._turn()
        return self.objects[key][0] if key in self.objects else None

    async def create(self, key: str, data: bytes) -> bool:
        await self._turn()
        if key in self.objects:
            return False
        self.objects[key] = (data, self._clock())
        return True

    async def replace(self, key: str, data: bytes) -> None:
        await self._turn()
        self.objects[key] = (data, self._clock())

    async def put_file(self, key: str, path: Path) -> bool:
        return await self.create(key, await asyncio.to_thread(path.read_bytes))

    async def fetch_file(self, key: str, path: Path) -> bool:
        data = await self.get(key)
        if data is not None:
            await asyncio.to_thread(path.write_bytes, data)
        return data is not None

    async def make_durable(self, key: str) -> None:
        """What is in memory is as durable as it will be."""

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, int, datetime]]:
        await self._turn()
        found = [(key, known) for key, known in sorted(self.objects.items()) if key.startswith(f"{prefix}/")]
        for number, (key, (data, at)) in enumerate(found):
            if number and number % 3 == 0:
                await self._turn()  # the next page of the listing: other things happen in between
            if key in self.objects:
                yield key, len(data), datetime.fromtimestamp(at, UTC)

    async def delete(self, key: str) -> None:
        await self._turn()
        self.objects.pop(key, None)

    async def _turn(self) -> None:
        if self._turns is not None:
            await self._turns.take()


@dataclass
class KnownHeads:
    """Which write is visible of each document; see :class:`medkg.haystack.vectors.merging.Liveness`."""

    heads: dict[str, tuple[str, int]] = field(default_factory=dict)

    async def named(self, write_ids: Sequence[str]) -> set[str]:
        return set(write_ids) & {write_id for write_id, _ in self.heads.values()}

    async def visible_rows(self) -> int:
        return sum(rows for _, rows in self.heads.values())


def write_of(
    doc_id: str, rows: int, facets: Facets | None = None, headings: tuple[str, ...] = (), dimension: int = DIMENSION
) -> DocumentWrite:
    """A write with ``rows`` vectors of unit length."""
    random = np.random.default_rng(abs(hash((doc_id, rows))) % 2**32)
    vectors = random.standard_normal((rows, dimension)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    passages = tuple(
        PassageRow(f"{doc_id}-{n}", n, "", "", headings, "", b"", b"[[],[]]", vector.tobytes(), ())
        for n, vector in enumerate(vectors)
    )
    return DocumentWrite(doc_id, "g", 1, "job", "model", dimension, "", passages, facets or Facets())
