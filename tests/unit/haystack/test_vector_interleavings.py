"""Writers, merges and readers of one index at the same time, in any order of their calls, some of them killed.

Whoever looks finds every vector that the documents name. The calls of the blob store happen one at a time, and
hypothesis chooses whose is next and who dies.
"""

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.haystack.vectors_kit import ACTOR, DIMENSION, Clock, Killed, KnownHeads, MemoryBlobs, Turns, write_of

from medkg.contracts.errors import ResourceUnavailableError
from medkg.haystack.stores import NO_FILTERS
from medkg.haystack.vectors import folder as folder_module
from medkg.haystack.vectors import merging as merging_module
from medkg.haystack.vectors.cache import SegmentCache
from medkg.haystack.vectors.folder import VectorFolder
from medkg.haystack.vectors.log import VectorLog
from medkg.haystack.vectors.merging import Merger
from medkg.haystack.vectors.reader import VectorReader
from medkg.haystack.vectors.view import VectorView

LEFTOVER = 60.0
QUERY = np.array([1, 0, 0, 0], np.float32)


@dataclass
class World:
    """One index, and everybody who uses it."""

    cache: Path
    clock: Clock = field(default_factory=Clock)
    turns: Turns = field(default_factory=Turns)
    heads: KnownHeads = field(default_factory=KnownHeads)

    def __post_init__(self) -> None:
        self.blobs = MemoryBlobs(self.clock, self.turns)
        self.written = 0

    def folder(self) -> VectorFolder:
        return VectorFolder(self.blobs, "alias", "model", DIMENSION)

    def cache_of(self, machine: str) -> SegmentCache:
        return SegmentCache(self.cache / machine)

    async def write(self, name: str, sizes: list[int]) -> None:
        """Replaces documents of both writers, each in the order of OpenSearchWriter: vectors, then the head."""
        log = VectorLog(self.folder(), self.cache_of(name), self.heads, segment_rows=4)
        for number, rows in enumerate(sizes):
            self.written += 1
            write_id = f"{self.written:032x}"
            while True:
                began = self.clock.now
                await log.put([(write_id, write_of(f"d{number % 2}", rows))])
                if self.clock.now - began < LEFTOVER / 2:
                    break
            self.heads.heads[f"d{number % 2}"] = (write_id, rows)
            await log.merge()

    async def merge(self, name: str, times: int) -> None:
        merger = Merger(self.folder(), self.cache_of(name), self.heads, leftover_seconds=LEFTOVER)
        for _ in range(times):
            await merger.merge(3)

    async def compact(self, name: str) -> None:
        await Merger(self.folder(), self.cache_of(name), self.heads, leftover_seconds=LEFTOVER).compact()

    async def read(self, name: str, times: int) -> None:
        """Looks, notes what documents name, and looks again, as OpenSearchPassages does."""
        reader = VectorReader(self.folder(), self.cache_of(name))
        for _ in range(times):
            known = reader.known
            fresh = known is not None and self.clock.now - known.taken_at < LEFTOVER / 5
            before = known if fresh and known is not None else await reader.view()
            named = dict(self.heads.heads)
            view = (await reader.view()).with_what_was_in(before)
            if self.clock.now - before.taken_at < LEFTOVER / 2:
                self.check(view, named)

    def check(self, view: VectorView, named: dict[str, tuple[str, int]]) -> None:
        found, is_all = view.search(QUERY, 10_000, NO_FILTERS)
        assert is_all
        rows = {(hit.write_id, hit.row) for hit in found}
        assert len(rows) == len(found)
        wanted = {(write_id, row) for write_id, count in named.values() for row in range(count)}
        assert wanted <= rows, f"{wanted - rows} are missing from {view.manifest}"


async def run(world: World, actors: dict[str, Callable[[], Any]], choose: Callable[[int], int]) -> None:
    """Gives turns until everybody is done or dead. ``choose(n)`` is a number below n."""

    async def act(name: str, work: Callable[[], Any]) -> None:
        ACTOR.set(name)
        with suppress(Killed, ResourceUnavailableError):
            await work()

    tasks = [asyncio.create_task(act(name, work)) for name, work in actors.items()]
    try:
        await take_turns(world, tasks, choose)
    finally:
        world.turns.dead.update(actors)
        for _, turn in list(world.turns.waiting.values()):
            if not turn.done():
                turn.set_result(True)
        await asyncio.gather(*tasks, return_exceptions=True)
        world.turns.dead.clear()
    for task in tasks:
        task.result()


async def take_turns(world: World, tasks: list[asyncio.Task[None]], choose: Callable[[int], int]) -> None:
    for _ in range(20_000):
        for _ in range(30):  # what follows from the last turn, up to the next calls
            await asyncio.sleep(0)
        if all(task.done() for task in tasks) or any(task.done() and task.exception() for task in tasks):
            return
        if not world.turns.waiting:
            await asyncio.sleep(0.001)
            continue
        number = sorted(world.turns.waiting)[choose(len(world.turns.waiting))]
        actor, turn = world.turns.waiting[number]
        world.clock.now += 1
        if actor != "reader" and choose(60) == 1:
            world.turns.dead.add(actor)
            for owner, other in list(world.turns.waiting.values()):
                if owner == actor and not other.done():
                    other.set_result(True)
        elif not turn.done():
            turn.set_result(True)
    pytest.fail("somebody waits for ever")


@pytest.fixture
def logical(monkeypatch: pytest.MonkeyPatch) -> Callable[[Clock], None]:
    """Time passes by calls, threads do their work at once, and everything that is waited for is short."""

    async def at_once(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs)

    def use(clock: Clock) -> None:
        for module in ("cache", "folder", "log", "manifest", "merging", "reader"):
            monkeypatch.setattr(f"medkg.haystack.vectors.{module}.time", SimpleNamespace(time=clock, monotonic=clock))

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    for name, seconds in (("GRACE_SECONDS", 30.0), ("UNNAMED_SECONDS", 400.0), ("LEASE_SECONDS", 15.0)):
        monkeypatch.setattr(folder_module, name, seconds)
    monkeypatch.setattr(merging_module, "PUBLISH_SECONDS", 100.0)
    monkeypatch.setattr(merging_module, "_WAIT_SECONDS", 0.0)
    return use


def test_readers_find_what_the_documents_name_whatever_happens_in_which_order(
    logical: Callable[[Clock], None],
) -> None:
    merges = 0

    @settings(max_examples=60, deadline=None, database=None)
    @given(
        st.lists(st.integers(1, 3), min_size=1, max_size=6),
        st.lists(st.integers(1, 3), min_size=1, max_size=6),
        st.integers(0, 2**32),
    )
    def check(first: list[int], second: list[int], seed: int) -> None:
        nonlocal merges
        random = Random(seed)  # drawn one by one from hypothesis thousands of choices take long
        with tempfile.TemporaryDirectory() as cache:
            world = World(Path(cache))
            logical(world.clock)

            async def whole() -> None:
                actors = {
                    "writer-1": lambda: world.write("writer-1", first),
                    "writer-2": lambda: world.write("writer-2", second),
                    "merger-1": lambda: world.merge("merger-1", 4),
                    "merger-2": lambda: world.merge("merger-2", 4),
                    "compactor": lambda: world.compact("compactor"),
                    "reader": lambda: world.read("reader", 6),
                }
                await run(world, actors, random.randrange)
                # alone, much later: nothing is lost, and nothing is left that nobody sees
                world.clock.now += 10 * LEFTOVER
                await run(world, {"last": lambda: world.compact("last")}, lambda count: 0)
                await run(world, {"reader": lambda: world.read("reader-2", 1)}, lambda count: 0)
                check_tidy(world)

            asyncio.run(whole())
            manifests = (int(key.split("/")[-1][:12]) for key in world.blobs.objects if "/manifests/" in key)
            merges += max(manifests, default=0)  # everybody may have been killed before there was one

    check()
    assert merges > 60, "hardly anything was merged"


def check_tidy(world: World) -> None:
    kinds = [key.split("/")[3] for key in world.blobs.objects]
    assert kinds.count("deltas") == kinds.count("leases") == 0, sorted(world.blobs.objects)
    assert kinds.count("manifests") <= 2


def test_the_reader_would_notice_a_vector_that_is_lost(logical: Callable[[Clock], None], tmp_path: Path) -> None:
    world = World(tmp_path)
    logical(world.clock)

    async def lose() -> None:
        await run(world, {"writer": lambda: world.write("writer", [2])}, lambda count: 0)
        for key in [key for key in world.blobs.objects if "/deltas/" in key]:
            del world.blobs.objects[key]
        await run(world, {"reader": lambda: world.read("reader", 1)}, lambda count: 0)

    with pytest.raises(AssertionError, match="are missing from"):
        asyncio.run(lose())
