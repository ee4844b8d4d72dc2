"""The vectors beside OpenSearch at the moment of a point in time of it.

They are looked up before the point in time is taken, and again after it. The second look has every write that the point
in time names, but for one that a merge left out in between, because by then no head named it any more; merges leave out
only what is older than :data:`LEFTOVER_SECONDS`, so that the first look, which is younger, has it.

A blob store that fails or is late costs a question its vectors, and not its words: looks are waited for, and their
failures told, where vectors are asked for. A look goes on after that, as the next question needs what it fetches.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from medkg.contracts.errors import MedkgError, ResourceUnavailableError
from medkg.haystack.opensearch.indexes import Facts
from medkg.haystack.stores import Filters
from medkg.haystack.vectors.merging import LEFTOVER_SECONDS
from medkg.haystack.vectors.reader import VectorReader
from medkg.haystack.vectors.store import VectorStore
from medkg.haystack.vectors.view import FoundRow, VectorView

_FIRST_LOOK_SECONDS: Final = LEFTOVER_SECONDS / 5  # an older one is taken again
_SECOND_LOOK_SECONDS: Final = LEFTOVER_SECONDS / 2  # after the first one; the other half is for clocks that differ
_PATIENCE_SECONDS: Final = 1.0  # for a first look; words are waiting
_OPEN_READERS: Final = 64  # tenants whose vectors stay in memory


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What was there before a point in time; ``view`` is None where there were no vectors, or looking failed."""

    began: float
    view: VectorView | None = None
    failure: MedkgError | None = None


class Beside:
    """The vectors of all tenants. Used on one event loop; searches run in ``threads`` threads."""

    def __init__(self, store: VectorStore, threads: int) -> None:
        self._store = store
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="search")
        self._readers: OrderedDict[str, VectorReader] = OrderedDict()
        self._looking: set[asyncio.Task[VectorView]] = set()

    async def first_look(self, alias: str, facts: Facts | None) -> FirstLook:
        """What is known of an index's vectors; ``facts`` are those of a moment ago."""
        began = time.monotonic()
        if facts is None:
            return FirstLook(began)
        reader = self._reader(alias, facts)
        known = reader.known
        if known is not None and began - known.taken_at < _FIRST_LOOK_SECONDS:
            return FirstLook(known.taken_at, known)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return FirstLook(began, await asyncio.shield(self._begin(reader.view())))
        except TimeoutError:
            failure = ResourceUnavailableError("searching vectors: they are still being fetched from the blob store")
            return FirstLook(began, failure=failure)
        except MedkgError as error:
            return FirstLook(began, failure=error)

    def second_look(self, alias: str, facts: Facts, first: FirstLook) -> "Vectors":
        """Begins to look again, and returns at once."""
        return Vectors(first, self._begin(self._reader(alias, facts).view()), self._executor)

    async def aclose(self) -> None:
        """Ends what is under way."""
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)
        await asyncio.to_thread(self._executor.shutdown)

    def _begin(self, work: Coroutine[Any, Any, VectorView]) -> asyncio.Task[VectorView]:
        task = asyncio.create_task(work)
        self._looking.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[VectorView]) -> None:
        self._looking.discard(task)
        if not task.cancelled():
            task.exception()  # told where vectors are asked for, and that may be nowhere

    def _reader(self, alias: str, facts: Facts) -> VectorReader:
        folder = self._store.folder(alias, facts.model, facts.dimension)
        reader = self._readers.get(folder.root)
        if reader is None:
            reader = self._readers[folder.root] = VectorReader(folder, self._store.cache)
            if len(self._readers) > _OPEN_READERS:
                self._readers.popitem(last=False)
        self._readers.move_to_end(folder.root)
        return reader


class Vectors:
    """The vectors of one moment."""

    def __init__(self, first: FirstLook, second: asyncio.Task[VectorView], executor: ThreadPoolExecutor) -> None:
        self._first = first
        self._second = second
        self._executor = executor
        self._view: VectorView | None = None

    async def search(self, vector: NDArray[np.floating], k: int, filters: Filters) -> tuple[list[FoundRow], bool]:
        """See :meth:`medkg.haystack.vectors.view.VectorView.search`.

        Raises:
            ResourceUnavailableError: the blob store does not answer, or segments are still being fetched.
            ContractError: what is in the blob store is broken.
        """
        view = await self._looked()
        return await asyncio.get_running_loop().run_in_executor(self._executor, view.search, vector, k, filters)

    async def _looked(self) -> VectorView:
        if self._view is None:
            if self._first.failure is not None:
                raise self._first.failure
            seen = await asyncio.shield(self._second)
            if seen.taken_at - self._first.began > _SECOND_LOOK_SECONDS:
                raise ResourceUnavailableError("searching vectors: the blob store takes too long")
            self._view = seen if self._first.view is None else seen.with_what_was_in(self._first.view)
        return self._view
