"""Vectors at the moment of a question: a blob store that is late or fails costs only them, and only for now."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.unit.haystack.vectors_kit import DIMENSION, Clock, KnownHeads, MemoryBlobs, write_of

from medkg.contracts.errors import ResourceUnavailableError
from medkg.haystack.addresses import OpenSearchAddress, vectors_of
from medkg.haystack.opensearch import beside as beside_module
from medkg.haystack.opensearch.beside import Beside
from medkg.haystack.opensearch.indexes import Facts
from medkg.haystack.stores import NO_FILTERS
from medkg.haystack.vectors.log import VectorLog
from medkg.haystack.vectors.merging import Merger
from medkg.haystack.vectors.store import VectorStore, vector_store

ALIAS = "medkg-0123"
FACTS = Facts("model", DIMENSION, "")
QUERY = np.array([1, 0, 0, 0], np.float32)


class Gated(MemoryBlobs):
    """Answers only while ``gate`` is open; ``fails`` with an error."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False

    async def _turn(self) -> None:
        await self.gate.wait()
        if self.fails:
            raise ResourceUnavailableError("reading a blob: no answer")


async def opened(blobs: Gated, folder: Path, rows: int = 2) -> tuple[Beside, VectorStore]:
    store = vector_store(blobs, folder)
    log = VectorLog(store.folder(ALIAS, "model", DIMENSION), store.cache, KnownHeads(), 1)
    await log.put([("0" * 32, write_of("d", rows))])
    return Beside(store, 1), store


async def found(beside: Beside) -> list[str]:
    first = await beside.first_look(ALIAS, FACTS)
    hits, _ = await beside.second_look(ALIAS, FACTS, first).search(QUERY, 10, NO_FILTERS)
    return [hit.write_id for hit in hits]


async def test_a_blob_store_that_is_late_does_not_hold_a_question_up_and_what_it_fetched_serves_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside_module, "_PATIENCE_SECONDS", 0.01)
    blobs = Gated()
    beside, _ = await opened(blobs, tmp_path)
    blobs.gate.clear()
    first = await asyncio.wait_for(beside.first_look(ALIAS, FACTS), 5)
    vectors = beside.second_look(ALIAS, FACTS, first)
    with pytest.raises(ResourceUnavailableError, match="still being fetched"):
        await vectors.search(QUERY, 10, NO_FILTERS)
    blobs.gate.set()
    monkeypatch.setattr(beside_module, "_PATIENCE_SECONDS", 5.0)
    assert await found(beside) == ["0" * 32] * 2
    await beside.aclose()


async def test_a_blob_store_that_fails_is_told_where_vectors_are_asked_for(tmp_path: Path) -> None:
    blobs = Gated()
    beside, _ = await opened(blobs, tmp_path)
    blobs.fails = True
    for _ in range(2):
        with pytest.raises(ResourceUnavailableError, match="no answer"):
            await found(beside)
    blobs.fails = False
    assert await found(beside) == ["0" * 32] * 2
    blobs.fails = True  # known from a moment ago, and not certain to be all
    with pytest.raises(ResourceUnavailableError, match="no answer"):
        await found(beside)
    await beside.aclose()


async def test_what_a_merge_left_out_between_the_two_looks_is_still_found(tmp_path: Path) -> None:
    blobs = Gated()
    beside, store = await opened(blobs, tmp_path)
    first = await beside.first_look(ALIAS, FACTS)
    merger = Merger(store.folder(ALIAS, "model", DIMENSION), store.cache, KnownHeads(), leftover_seconds=-1.0)
    await merger.compact()
    hits, is_all = await beside.second_look(ALIAS, FACTS, first).search(QUERY, 10, NO_FILTERS)
    assert ([hit.write_id for hit in hits], is_all) == (["0" * 32] * 2, True)
    await beside.aclose()


async def test_an_index_without_a_model_has_no_vectors(tmp_path: Path) -> None:
    beside, _ = await opened(Gated(), tmp_path)
    first = await beside.first_look(ALIAS, None)
    assert (first.view, first.failure) == (None, None)
    await beside.aclose()


async def test_an_address_names_the_blob_store_or_leaves_it_to_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDKG_BLOBS_URL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert vectors_of(OpenSearchAddress()) is None
    places = (
        (OpenSearchAddress(data_dir=tmp_path / "data"), "data/blobs", "data/index-cache"),
        (OpenSearchAddress(blobs=(tmp_path / "named").as_uri()), "named", "cache/medkg/index-cache"),
    )
    for address, blobs, cache in places:
        store = vectors_of(address)
        assert store is not None
        assert await store.blobs.create("index/a", b"1")
        assert (tmp_path / blobs / "index/a").exists()
        assert store.cache.folder == tmp_path / cache
    monkeypatch.setenv("MEDKG_BLOBS_URL", (tmp_path / "named").as_uri())
    told = vectors_of(OpenSearchAddress(data_dir=tmp_path / "data"))
    assert told is not None
    assert await told.blobs.get("index/a") == b"1"
