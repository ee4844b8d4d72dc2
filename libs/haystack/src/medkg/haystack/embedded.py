"""The embedded stores behind the interfaces of :mod:`medkg.haystack.stores`."""

import asyncio
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from medkg.contracts.document import Chunk
from medkg.contracts.errors import ResourceUnavailableError
from medkg.haystack.lexical import search_lexical
from medkg.haystack.passage_database import DEFAULT_INDEX, store_path
from medkg.haystack.passage_reader import PassageReader, Snapshot
from medkg.haystack.sparse import search_sparse, term_counts
from medkg.haystack.stores import (
    FIELD_WEIGHTS,
    MAX_K,
    MAX_NEIGHBOURS,
    NO_FILTERS,
    FieldWeights,
    Filters,
    IndexFacts,
    Passage,
    Scored,
    TermCounts,
)

_OPEN_STORES: Final = 64  # tenants whose vectors stay in memory
_VARIABLES = 500  # of one statement: far below SQLite's bound
_PASSAGE = "SELECT p.id, p.title, p.text, p.chunk, d.generation FROM passages p JOIN documents d USING (doc_id) WHERE "
_decode_chunk = msgspec.json.Decoder(Chunk).decode

P = ParamSpec("P")
T = TypeVar("T")


class EmbeddedPassages:
    """The stores that the index stage writes under ``data_dir``; they may be written meanwhile, by any process.

    Used on one event loop; the work is done in ``threads`` threads.
    """

    def __init__(self, data_dir: Path, index: str = DEFAULT_INDEX, threads: int = 4) -> None:
        self._data_dir = data_dir
        self._index = index
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="search")
        self._readers: OrderedDict[Path, PassageReader] = OrderedDict()

    @asynccontextmanager
    async def view(self, tenant_id: str) -> AsyncIterator["EmbeddedView | None"]:
        """See :meth:`medkg.haystack.stores.PassageIndex.view`."""
        reader = await self._reader(tenant_id)
        if reader is None:
            yield None
            return
        run = asyncio.get_running_loop().run_in_executor
        moment = reader.snapshot()
        view = EmbeddedView(await run(self._executor, moment.__enter__), self._executor)
        try:
            yield view
        finally:
            # a search that nobody waits for any more still holds the connection
            await asyncio.shield(run(self._executor, view.close, moment.__exit__))

    async def aclose(self) -> None:
        """Ends running searches and closes all files."""
        await asyncio.to_thread(self._executor.shutdown)
        while self._readers:
            self._readers.popitem()[1].close()

    async def _reader(self, tenant_id: str) -> PassageReader | None:
        path = store_path(self._data_dir, tenant_id, self._index)
        known = self._readers.get(path)
        if known is not None and known.is_current():
            self._readers.move_to_end(path)
            return known
        try:
            opened = await asyncio.get_running_loop().run_in_executor(self._executor, PassageReader, path)
        except FileNotFoundError:
            return None
        if (replaced := self._readers.pop(path, None)) is not None:
            replaced.close()
        self._readers[path] = opened
        if len(self._readers) > _OPEN_STORES:
            self._readers.popitem(last=False)[1].close()
        return opened


class EmbeddedView:
    """See :class:`medkg.haystack.stores.PassageView`. Its searches take turns: they share one transaction."""

    def __init__(self, moment: Snapshot, executor: ThreadPoolExecutor) -> None:
        self._moment = moment
        self._executor = executor
        self._turn = threading.Lock()
        self._is_closed = False

    @property
    def facts(self) -> IndexFacts:
        return self._moment.facts

    async def lexical(
        self, query: str, k: int, *, filters: Filters = NO_FILTERS, weights: FieldWeights = FIELD_WEIGHTS
    ) -> list[Scored]:
        return await self.run(_lexical, query, _bounded(k), filters, weights)

    async def term_counts(self, terms: Sequence[str]) -> TermCounts:
        return await self.run(_term_counts, list(dict.fromkeys(terms)))

    async def sparse(self, weights: Mapping[str, float], k: int, *, filters: Filters = NO_FILTERS) -> list[Scored]:
        return await self.run(_sparse, dict(weights), _bounded(k), filters)

    async def dense(self, vector: NDArray[np.floating], k: int, *, filters: Filters = NO_FILTERS) -> list[Scored]:
        return await self.run(_dense, vector, _bounded(k), filters)

    async def passages(self, refs: Sequence[str]) -> dict[str, Passage]:
        return await self.run(_passages, list(dict.fromkeys(refs))[:MAX_K])

    async def neighbours(self, doc_id: str, ordinal: int, before: int, after: int) -> list[Passage]:
        first = ordinal - min(max(before, 0), MAX_NEIGHBOURS)
        last = ordinal + min(max(after, 0), MAX_NEIGHBOURS)
        return await self.run(_between, doc_id, first, last)

    async def run(self, work: Callable[Concatenate[Snapshot, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs ``work`` on the moment, in a thread, when it is its turn."""

        def in_turn() -> T:
            with self._turn:
                if self._is_closed:
                    raise RuntimeError("searching a view that was left")
                try:
                    return work(self._moment, *args, **kwargs)
                except sqlite3.Error as error:
                    raise ResourceUnavailableError(f"searching the embedded index: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._executor, in_turn)

    def close(self, leave: Callable[[None, None, None], object]) -> None:
        """Ends a search that is under way and leaves the moment. Blocks."""
        self._is_closed = True
        self._moment.connection.interrupt()
        with self._turn:
            leave(None, None, None)


def _lexical(moment: Snapshot, query: str, k: int, filters: Filters, weights: FieldWeights) -> list[Scored]:
    return _scored(search_lexical(moment.connection, query, k, moment.sieve(filters), weights))


def _term_counts(moment: Snapshot, terms: list[str]) -> TermCounts:
    return TermCounts(moment.passages, term_counts(moment.connection, terms))


def _sparse(moment: Snapshot, weights: dict[str, float], k: int, filters: Filters) -> list[Scored]:
    return _scored(search_sparse(moment.connection, weights, k, moment.sieve(filters)))


def _dense(moment: Snapshot, vector: NDArray[np.floating], k: int, filters: Filters) -> list[Scored]:
    return _scored(moment.dense(vector, k, moment.sieve(filters)))


def _passages(moment: Snapshot, refs: list[str]) -> dict[str, Passage]:
    ids = [int(ref) for ref in refs if ref.isascii() and ref.isdecimal() and len(ref) < 19]
    found: dict[str, Passage] = {}
    for start in range(0, len(ids), _VARIABLES):
        part = ids[start : start + _VARIABLES]
        rows = moment.connection.execute(f"{_PASSAGE}p.id IN ({', '.join('?' * len(part))})", part)
        found.update((str(row[0]), _passage(row)) for row in rows)
    return found


def _between(moment: Snapshot, doc_id: str, first: int, last: int) -> list[Passage]:
    condition = "p.doc_id = ? AND p.ordinal BETWEEN ? AND ? ORDER BY p.ordinal, p.id"
    return [_passage(row) for row in moment.connection.execute(_PASSAGE + condition, (doc_id, first, last))]


def _passage(row: tuple[int, str, str, bytes, str]) -> Passage:
    passage_id, title, text, chunk, generation = row
    return Passage(str(passage_id), msgspec.structs.replace(_decode_chunk(chunk), title=title, text=text), generation)


def _scored(found: list[tuple[int, float]]) -> list[Scored]:
    return [Scored(str(passage), score) for passage, score in found]


def _bounded(k: int) -> int:
    return max(0, min(k, MAX_K))
