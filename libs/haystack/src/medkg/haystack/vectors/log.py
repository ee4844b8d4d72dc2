"""The writing side of an index's vectors: deltas, which every machine can read at once, and merges beside them."""

import asyncio
import time
from collections.abc import Sequence

from medkg.haystack.vectors.cache import SegmentCache
from medkg.haystack.vectors.encoding import encode
from medkg.haystack.vectors.folder import VectorFolder
from medkg.haystack.vectors.manifest import MAX_DELTAS
from medkg.haystack.vectors.merging import Liveness, Merger
from medkg.haystack.vectors.rows import rows_of
from medkg.haystack.writes import DocumentWrite


class VectorLog:
    """Stores writes. Used on one event loop; any number of processes may write, none waits for another.

    What is in it becomes visible, and stops being so, by what OpenSearch says of the document
    (:mod:`medkg.haystack.opensearch.writer`).
    """

    def __init__(self, folder: VectorFolder, cache: SegmentCache, liveness: Liveness, segment_rows: int) -> None:
        self.folder = folder
        self._merger = Merger(folder, cache, liveness)
        self._segment_rows = segment_rows
        # at the beginning others may have left a tail
        self._rows, self._deltas = segment_rows, 0

    async def put(self, writes: Sequence[tuple[str, DocumentWrite]]) -> None:
        """Stores the vectors of writes under their ids, durably, in one object. May be done again.

        Raises:
            ResourceUnavailableError: whether they are stored is not known.
        """
        rows = sum(len(write.rows) for _, write in writes)
        data = await asyncio.to_thread(_encoded, writes, self.folder.dimension)
        await self.folder.put_delta(data, rows)
        self._rows += rows
        self._deltas += 1

    async def merge(self) -> bool:
        """Makes a segment of what has come since the last one, from any writer, if that is worth one.

        Raises:
            ResourceUnavailableError: the blob store does not answer, or the disk is full.
            ContractError: something in the blob store is broken.
        """
        if self._rows < self._segment_rows / 2 and self._deltas < MAX_DELTAS / 2:
            return False
        self._rows, self._deltas = 0, 0
        return await self._merger.merge(self._segment_rows)


def _encoded(writes: Sequence[tuple[str, DocumentWrite]], dimension: int) -> bytes:
    rows = rows_of(writes, time.time())
    return encode(rows.columns, rows.vectors, dimension)
