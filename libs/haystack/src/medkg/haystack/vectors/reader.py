"""What a reader knows of an index's vectors, brought up to date by every question."""

import asyncio
import time
from dataclasses import replace
from typing import Final

from medkg.contracts.errors import ContractError, ResourceUnavailableError
from medkg.haystack.vectors.cache import LoadedSegment, SegmentCache
from medkg.haystack.vectors.encoding import decode
from medkg.haystack.vectors.folder import State, VectorFolder
from medkg.haystack.vectors.manifest import DeltaName, Manifest
from medkg.haystack.vectors.rows import VectorRows
from medkg.haystack.vectors.view import VectorView, added

_ATTEMPTS: Final = 20
_AT_ONCE = 16  # deltas that are fetched at the same time


class VectorReader:
    """One index. Used on one event loop; questions at the same time share the work."""

    def __init__(self, folder: VectorFolder, cache: SegmentCache) -> None:
        self._folder = folder
        self._cache = cache
        self._lock = asyncio.Lock()
        self._view: VectorView | None = None

    @property
    def known(self) -> VectorView | None:
        """What was read last."""
        return self._view

    async def view(self) -> VectorView:
        """Everything that was stored before this was called.

        Raises:
            ContractError: an object in the blob store is broken.
            ResourceUnavailableError: the blob store does not answer.
        """
        asked_at = time.monotonic()
        async with self._lock:
            if self._view is not None and self._view.taken_at > asked_at:
                return self._view  # read for another question, all of it after this one was asked
            for _ in range(_ATTEMPTS):
                taken_at = time.monotonic()
                view = await self._refreshed(await self._folder.state(), taken_at)
                if view is not None:
                    self._view = view
                    return view
        raise ResourceUnavailableError(f"reading the vectors of {self._folder.root}: they are merged all the time")

    async def _refreshed(self, state: State, taken_at: float) -> VectorView | None:
        """None where something was merged and removed since the state was read."""
        old = self._view or VectorView(Manifest(), (), (), taken_at)
        if old.manifest.number == state.manifest.number:
            segments: tuple[LoadedSegment, ...] = old.segments
        else:
            opened = await self._segments(state.manifest, old)
            if opened is None:
                return None
            segments = opened
        wanted = {delta.name for delta in state.tail}
        gone = frozenset(old.deltas() - wanted)
        tail = tuple(left for block in old.tail if (left := block.without(gone)) is not None)
        known = old.deltas()
        for name, rows in await self._deltas([delta for delta in state.tail if delta.name not in known]):
            if rows is None:
                return None
            tail = added(tail, name, rows)
        return replace(old, manifest=state.manifest, segments=segments, tail=tail, taken_at=taken_at)

    async def _segments(self, manifest: Manifest, old: VectorView) -> tuple[LoadedSegment, ...] | None:
        known = {loaded.segment.name: loaded for loaded in old.segments}
        segments = []
        for segment in manifest.segments:
            loaded = known.get(segment.name) or await self._cache.open(self._folder, segment)
            if loaded is None:
                if await self._folder.manifest() != manifest:
                    return None
                raise ContractError(
                    f"reading {self._folder.root}: the newest manifest names segment {segment.name}, which is not in "
                    "the blob store; restore it, or submit the documents again to another index"
                )
            segments.append(loaded)
        return tuple(segments)

    async def _deltas(self, names: list[DeltaName]) -> list[tuple[str, VectorRows | None]]:
        room = asyncio.Semaphore(_AT_ONCE)

        async def fetch(name: DeltaName) -> tuple[str, VectorRows | None]:
            async with room:
                data = await self._folder.delta(name)
            return name.name, None if data is None else read_delta(data, name, self._folder)

        return await asyncio.gather(*(fetch(name) for name in names))


def read_delta(data: bytes, name: DeltaName, folder: VectorFolder) -> VectorRows:
    """Raises ContractError for bytes that are no delta of this index."""
    try:
        columns, vectors = decode(data, folder.dimension)
        if len(vectors) != columns.rows:
            raise ValueError("there are no vectors in it")
    except ValueError as error:
        raise ContractError(f"reading {folder.root}/deltas/{name.name}: {error}") from error
    return VectorRows(columns, vectors)
