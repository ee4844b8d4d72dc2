"""Reading everything that is in an index's vectors, to be held against what the documents name."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from medkg.contracts.errors import ContractError
from medkg.haystack.vectors.cache import SegmentCache
from medkg.haystack.vectors.folder import State, VectorFolder
from medkg.haystack.vectors.reader import read_delta
from medkg.haystack.vectors.rows import Columns

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Contents:
    """How many vectors each write has, when it was last stored, the size of all objects, and what cannot be read."""

    rows: dict[str, int]
    written_at: dict[str, float]
    size_bytes: int
    problems: tuple[str, ...]


async def read_contents(folder: VectorFolder, cache: SegmentCache, say: Callable[[str], None]) -> Contents:
    """Fetches and verifies every segment and delta; changes nothing but the cache.

    Raises:
        ResourceUnavailableError: the blob store does not answer.
    """
    for _ in range(_ATTEMPTS):
        try:
            state = await folder.state()
        except ContractError as error:
            return Contents({}, {}, 0, (error.message,))
        say(f"reading {len(state.manifest.segments)} segments and {len(state.tail)} deltas of vectors")
        contents = await _read(folder, cache, state)
        if not contents.problems or await folder.state() == state:
            break  # otherwise it was merged meanwhile, and what was missed is elsewhere
    return contents


async def _read(folder: VectorFolder, cache: SegmentCache, state: State) -> Contents:
    rows: dict[str, int] = {}
    written_at: dict[str, float] = {}
    problems: list[str] = []
    size = sum(segment.size_bytes for segment in state.manifest.segments)

    def count(columns: Columns) -> None:
        counted = zip(columns.ids(), columns.row_counts().tolist(), columns.written_at.tolist(), strict=True)
        for write_id, there, at in counted:
            rows[write_id] = max(there, rows.get(write_id, 0))
            written_at[write_id] = max(at, written_at.get(write_id, 0.0))

    for segment in state.manifest.segments:
        try:
            loaded = await cache.open(folder, segment)
        except ContractError as error:
            problems.append(error.message)
            continue
        if loaded is None:
            problems.append(f"segment {segment.name} is missing from the blob store")
        else:
            await asyncio.to_thread(count, loaded.columns)
    for name in state.tail:
        try:
            data = await folder.delta(name)
            if data is None:
                problems.append(f"delta {name.name} is missing from the blob store")
                continue
            size += len(data)
            count(read_delta(data, name, folder).columns)
        except ContractError as error:
            problems.append(error.message)
    return Contents(rows, written_at, size, tuple(problems))
