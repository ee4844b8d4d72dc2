"""Making a FAISS segment of the tail, and taking out what nobody sees: by one process at a time, beside all others.

What a merge makes is invisible until its manifest is published, and that succeeds only if it follows the manifest from
which the merge began. Killed at any step it leaves objects that no manifest names, which are removed later.

A write's rows are left out if, after they were stored for longer than any writer takes to make them visible, no
document names the write. A reader who looked at the documents before that still finds them in the view that it had
before (:class:`medkg.haystack.opensearch.reader.OpenSearchPassages`).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from medkg.contracts.errors import MedkgError, ResourceUnavailableError
from medkg.haystack.graphs import Built, build
from medkg.haystack.vectors.cache import SegmentCache, write_segment
from medkg.haystack.vectors.folder import LEASE_SECONDS, PUBLISH_SECONDS, State, VectorFolder, new_token
from medkg.haystack.vectors.manifest import Manifest, Segment, is_due, max_rows_of, plan_merge
from medkg.haystack.vectors.reader import read_delta
from medkg.haystack.vectors.rows import Columns, Source, VectorRows, joined

logger = logging.getLogger(__name__)

LEFTOVER_SECONDS: Final = 600.0  # a writer gives up after half of this: see SWITCH_SECONDS of the writer
_WAIT_SECONDS = 0.5
_LEASE_DEADLINE = 1_800.0
_DEAD_SHARE = 0.5  # of all rows: then it is worth to make all segments anew


class Liveness(Protocol):
    """What the documents say of writes."""

    async def named(self, write_ids: Sequence[str]) -> set[str]:
        """Those that a document names now. Complete, or it raises."""
        ...

    async def visible_rows(self) -> int:
        """How many passages all documents have."""
        ...


class NothingIsVisible:
    """Where nobody can be asked: then nothing is left out."""

    async def named(self, write_ids: Sequence[str]) -> set[str]:
        return set(write_ids)

    async def visible_rows(self) -> int:
        return 1 << 62


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What is merged: ``kept`` segments stay as they are."""

    state: State
    kept: tuple[Segment, ...]
    sources: tuple[Source, ...]


class Merger:
    """Merges one index. Any number of processes may have one."""

    def __init__(
        self,
        folder: VectorFolder,
        cache: SegmentCache,
        liveness: Liveness,
        *,
        leftover_seconds: float = LEFTOVER_SECONDS,
    ) -> None:
        self._folder = folder
        self._cache = cache
        self._liveness = liveness
        self._leftover_seconds = leftover_seconds
        self._token = new_token()

    async def merge(self, segment_rows: int) -> bool:
        """Makes a segment of the tail if it is long enough and nobody else is at it; whether it did."""
        state = await self._folder.state()
        if not is_due(state.tail, segment_rows):
            return False
        number = state.manifest.number + 1
        if not await self._folder.lease(number, self._token):
            return False
        async with self._leased(number):
            whole = await self._is_mostly_dead(state, segment_rows)
            return await self._publish(await self._inputs(state, whole=whole), whole=whole)

    async def compact(self) -> int:
        """Makes all segments anew without what nobody sees, after whoever is merging now; their bytes then.

        Raises:
            ResourceUnavailableError: others were always ahead, or merged for too long.
        """
        give_up_at = time.monotonic() + _LEASE_DEADLINE
        while time.monotonic() < give_up_at:
            state = await self._folder.state()
            number = state.manifest.number + 1
            if not state.tail and not state.manifest.segments:
                return 0
            if await self._folder.lease(number, self._token):
                async with self._leased(number):
                    if await self._publish(await self._inputs(state, whole=True), whole=True):
                        return sum(s.size_bytes for s in (await self._folder.manifest()).segments)
            await asyncio.sleep(_WAIT_SECONDS)
        raise ResourceUnavailableError(f"compacting the vectors of {self._folder.root}: others were always at it")

    async def _inputs(self, state: State, *, whole: bool) -> _Inputs | None:
        """None where others were ahead."""
        tail_rows = sum(delta.rows for delta in state.tail)
        kept = () if whole else plan_merge(state.manifest.segments, tail_rows, max_rows_of(self._folder.dimension))
        sources: list[Source] = []
        for segment in state.manifest.segments[len(kept) :]:
            loaded = await self._cache.open(self._folder, segment)
            if loaded is None:
                return None
            sources.append(loaded)
        for name in state.tail:
            data = await self._folder.delta(name)
            if data is None:
                return None
            sources.append(await asyncio.to_thread(read_delta, data, name, self._folder))
        return _Inputs(state, kept, tuple(sources))

    async def _publish(self, inputs: _Inputs | None, *, whole: bool) -> bool:
        if inputs is None:
            return False
        began = time.monotonic()
        dropped = await self.dead([source.columns for source in inputs.sources])
        made: list[Segment] = []
        dimension = self._folder.dimension
        pieces = joined(inputs.sources, dropped, max_rows_of(dimension), dimension)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            made.append(await self._segment(piece))
        if time.monotonic() - began > PUBLISH_SECONDS:
            raise ResourceUnavailableError(
                f"merging the vectors of {self._folder.root}: it took over {PUBLISH_SECONDS:.0f} s; it begins again"
            )
        state = inputs.state
        covered = tuple(sorted({*state.covered, *(delta.name for delta in state.tail)}))
        manifest = Manifest(
            number=state.manifest.number + 1,
            token=self._token,
            dimension=dimension,
            segments=(*inputs.kept, *made),
            covered=covered,
            compacted_at=time.time() if whole else state.manifest.compacted_at,
        )
        if not await self._folder.publish(manifest):
            return False
        await self._folder.tidy(State(manifest, (), covered))
        return True

    async def dead(self, parts: Sequence[Columns]) -> set[str]:
        """Writes that no document names, and that no writer is about to make visible."""
        before = time.time() - self._leftover_seconds
        old: set[str] = set()
        young: set[str] = set()
        for part in parts:
            for write_id, at in zip(part.ids(), part.written_at.tolist(), strict=True):
                (old if at < before else young).add(write_id)
        asked = sorted(old - young)
        return set(asked) - await self._liveness.named(asked) if asked else set()

    async def _segment(self, piece: VectorRows) -> Segment:
        built = await asyncio.to_thread(build, np.ascontiguousarray(piece.vectors))
        files = await asyncio.to_thread(_write, self._cache, built, piece.columns, self._folder.dimension)
        (index_digest, index_bytes), (columns_digest, columns_bytes) = files
        segment = Segment(
            name=new_token(),
            index_digest=index_digest,
            index_bytes=index_bytes,
            columns_digest=columns_digest,
            columns_bytes=columns_bytes,
            rows=piece.columns.rows,
            kind=built.kind,
            effort=built.effort,
            recall=built.recall,
        )
        paths = self._cache.file_of(index_digest), self._cache.file_of(columns_digest)
        try:
            await self._folder.put_segment(segment, *paths)
        except FileNotFoundError as error:
            raise ResourceUnavailableError(f"storing a segment of {self._folder.root}: {error}") from error
        return segment

    async def _is_mostly_dead(self, state: State, segment_rows: int) -> bool:
        """Whether most of what the segments hold is invisible, and old enough to be left out."""
        if time.time() - state.manifest.compacted_at < 2 * self._leftover_seconds or len(state.manifest.segments) < 1:
            return False
        rows = state.manifest.rows + sum(delta.rows for delta in state.tail)
        visible = await self._liveness.visible_rows()
        return rows - visible > max(_DEAD_SHARE * rows, segment_rows)

    @asynccontextmanager
    async def _leased(self, number: int) -> AsyncIterator[None]:
        """Holds the lease, and renews it while the work is under way."""
        keeping = asyncio.create_task(self._keep(number))
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await self._folder.release(number)

    async def _keep(self, number: int) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            try:
                await self._folder.renew(number, self._token)
            except MedkgError as error:  # who takes it over merges the same, and one of the two comes too late
                logger.debug("renewing a lease: %s", error.message)


def _write(cache: SegmentCache, built: Built, columns: Columns, dimension: int) -> tuple[tuple[str, int], ...]:
    try:
        return write_segment(cache, built.index, columns, dimension)
    except (OSError, RuntimeError) as error:  # what FAISS raises where a disk is full
        raise ResourceUnavailableError(f"keeping a segment in {cache.folder}: {error}") from error
