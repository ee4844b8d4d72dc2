"""Vectors in a bucket: what the writers and readers of an index need of S3, and what they make of it."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.unit.haystack.vectors_kit import DIMENSION, write_of

from medkg.haystack.stores import NO_FILTERS
from medkg.haystack.vectors import folder as folder_module
from medkg.haystack.vectors.checking import read_contents
from medkg.haystack.vectors.log import VectorLog
from medkg.haystack.vectors.merging import Merger, NothingIsVisible
from medkg.haystack.vectors.reader import VectorReader
from medkg.haystack.vectors.store import VectorStore, vector_store
from medkg.runtime.blobs import BlobStore, open_blobs

QUERY = np.array([1, 0, 0, 0], np.float32)

pytestmark = pytest.mark.s3


@pytest.fixture
def bucket(s3: tuple[str, str]) -> BlobStore:
    location, endpoint = s3
    return open_blobs(location, endpoint=endpoint)


def log_on(store: VectorStore) -> VectorLog:
    return VectorLog(store.folder("medkg-0123", "model", DIMENSION), store.cache, NothingIsVisible(), segment_rows=4)


async def test_of_many_who_create_an_object_one_is_told_that_it_did(bucket: BlobStore) -> None:
    told = await asyncio.gather(*(bucket.create("index/a/1", bytes([n])) for n in range(8)))
    assert sorted(told) == [False] * 7 + [True]
    assert await bucket.get("index/a/1") == bytes([told.index(True)])


async def test_files_longer_than_a_part_come_back_as_they_were(bucket: BlobStore, tmp_path: Path) -> None:
    whole = bytes(range(256)) * 50_000
    (tmp_path / "up").write_bytes(whole)
    assert await bucket.put_file("index/a/1", tmp_path / "up")
    await bucket.make_durable("index/a/1")
    assert await bucket.fetch_file("index/a/1", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == whole
    assert not await bucket.fetch_file("index/a/2", tmp_path / "down")


async def test_two_writers_and_a_reader_on_machines_of_their_own_share_a_bucket(
    bucket: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [vector_store(bucket, tmp_path / name) for name in ("writer-1", "writer-2", "reader")]
    reader = VectorReader(stores[2].folder("medkg-0123", "model", DIMENSION), stores[2].cache)

    async def write(store: VectorStore, first: int) -> None:
        log = log_on(store)
        for number in range(first, first + 12):
            await log.put([(f"{number:032x}", write_of(f"d{number}", 2))])
            found, _ = (await reader.view()).search(QUERY, 1_000, NO_FILTERS)
            assert f"{number:032x}" in {hit.write_id for hit in found}
            await log.merge()

    await asyncio.gather(write(stores[0], 0), write(stores[1], 100))
    monkeypatch.setattr(folder_module, "GRACE_SECONDS", -1.0)
    monkeypatch.setattr(folder_module, "UNNAMED_SECONDS", -1.0)
    folder = stores[0].folder("medkg-0123", "model", DIMENSION)
    await Merger(folder, stores[0].cache, NothingIsVisible()).compact()
    contents = await read_contents(folder, vector_store(bucket, tmp_path / "operator").cache, lambda _: None)
    assert contents.problems == ()
    assert contents.rows == {f"{n:032x}": 2 for n in (*range(12), *range(100, 112))}
    kinds = [key.split("/")[3] async for key, _, _ in bucket.list("index")]
    assert sorted(kinds) == ["manifests", "segments", "segments"]
