"""The index stage over the embedded store: both indexes or neither, the latest revision, any number of writers."""

import asyncio
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.context import Metadata, StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch, IndexReceipt, WriteOutcome
from medkg.contracts.errors import (
    ConfigurationError,
    ContractError,
    PipelineConfigError,
    ResourceUnavailableError,
    StageCrashedError,
)
from medkg.contracts.implementation import Host
from medkg.embed.stage import LocalEmbedding
from medkg.haystack.embedded_writer import EmbeddedWriter
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.inspection import StoredPassage
from medkg.haystack.passage_database import store_path
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.retrieval import HybridSearch
from medkg.haystack.segments import build_segment, segment_folder
from medkg.haystack.sqlite_errors import sqlite_failure
from medkg.haystack.writes import DocumentWrite, Stored, decide, prepare
from medkg.index.app import EMBEDDED, EmbeddedOptions
from medkg.index.stage import EmbeddedIndex

EMBED = LocalEmbedding(HashingEmbedder(64))
TENANT = "acme"


def context(doc_id: str, generation: str, revision: int = 1, job: str = "job-1", tenant: str = TENANT) -> StageContext:
    return StageContext(tenant, doc_id, job, content_key=generation, revision=revision)


def batch(doc_id: str, *texts: str) -> EmbeddingBatch:
    metadata: Metadata = {"source": "files", "source_id": doc_id.upper()}
    chunks = [
        Chunk(f"{doc_id}-{n}-{text}", doc_id, n, text, ("Body",), (), 3, title=f"Title {doc_id}", metadata=metadata)
        for n, text in enumerate(texts)
    ]
    return EMBED.execute(context(doc_id, ""), chunks)


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[EmbeddedIndex]:
    stage = EmbeddedIndex(tmp_path)
    yield stage
    await stage.aclose()


@pytest.fixture
async def search(tmp_path: Path) -> AsyncIterator[HybridSearch]:
    reader = HybridSearch(tmp_path)
    yield reader
    await reader.aclose()


def texts(search: HybridSearch, tenant: str = TENANT) -> list[str]:
    assert search.verify(tenant) == []
    return [passage.chunk.text for passage in search.export_passages(tenant)]


async def test_a_document_is_stored_whole_and_found(index: EmbeddedIndex, search: HybridSearch) -> None:
    given_batch = batch("d1", "Budesonide helped in asthma.", "Nothing else did.")
    receipt = await index.execute(context("d1", "g1"), given_batch)
    assert receipt == IndexReceipt(index="passages", generation="g1", passages=2)
    stored = search.export_passages(TENANT)
    assert [p.chunk for p in stored] == list(given_batch.chunks)
    assert b"".join(p.vector for p in stored) == given_batch.dense
    assert [p.sparse for p in stored] == list(given_batch.sparse)
    assert search.verify(TENANT) == []


async def test_a_redelivery_writes_nothing_and_says_the_same(index: EmbeddedIndex, search: HybridSearch) -> None:
    first = await index.execute(context("d1", "g1"), batch("d1", "one"))
    ids = passage_ids(index)
    assert await index.execute(context("d1", "g1"), batch("d1", "one")) == first
    assert passage_ids(index) == ids
    assert texts(search) == ["one"]


async def test_the_same_content_from_another_job_is_unchanged_and_guards_against_older_ones(
    index: EmbeddedIndex, search: HybridSearch
) -> None:
    await index.execute(context("d1", "g1", revision=1), batch("d1", "one"))
    again = await index.execute(context("d1", "g1", revision=9, job="job-2"), batch("d1", "one"))
    assert (again.outcome, again.passages) == (WriteOutcome.UNCHANGED, 1)
    late = await index.execute(context("d1", "g0", revision=5, job="job-3"), batch("d1", "zero"))
    assert (late.outcome, late.passages) == (WriteOutcome.SUPERSEDED, 0)
    assert texts(search) == ["one"]


async def test_a_later_revision_replaces_every_passage(index: EmbeddedIndex, search: HybridSearch) -> None:
    await index.execute(context("d1", "g1"), batch("d1", "alpha one", "alpha two", "alpha three"))
    await index.execute(context("d1", "g2", revision=2, job="job-2"), batch("d1", "beta"))
    assert texts(search) == ["beta"]
    assert [hit.text for hit in (await search.search(TENANT, "alpha")).hits] == ["beta"]  # near by vector alone
    await index.execute(context("d1", "g3", revision=3, job="job-3"), batch("d1"))
    assert texts(search) == []
    assert (await search.search(TENANT, "beta")).hits == ()


RUNS = st.lists(
    st.tuples(st.sampled_from(["g1", "g2", "g3"]), st.integers(1, 3), st.sampled_from(["a", "b"])),
    min_size=1,
    max_size=6,
)


@given(RUNS)
def test_deliveries_in_any_order_end_with_the_same_content(runs: list[tuple[str, int, str]]) -> None:
    # a run has one generation and one revision: the job decides both
    by_job: dict[str, tuple[str, int]] = {}
    deliveries = [(*by_job.setdefault(job, (generation, revision)), job) for generation, revision, job in runs]

    def end_of(order: list[tuple[str, int, str]]) -> str:
        stored: Stored | None = None
        for generation, revision, job in order:
            write = DocumentWrite("d", generation, revision, job, "m", 1, "", ())
            outcome = decide(stored, write)
            if outcome is WriteOutcome.UNCHANGED and stored:
                stored = replace(stored, revision=revision)
            elif outcome is WriteOutcome.WRITTEN and not (stored and stored.generation == generation):
                stored = Stored(generation, revision, job)
        return stored.generation if stored else ""

    orders = itertools.islice(itertools.permutations(deliveries), 200)
    assert len({end_of(list(order)) for order in orders}) == 1


async def test_vectors_of_another_model_are_refused_and_nothing_is_written(
    index: EmbeddedIndex, search: HybridSearch
) -> None:
    await index.execute(context("d1", "g1"), batch("d1", "one"))
    other = LocalEmbedding(HashingEmbedder(128)).execute(context("d2", ""), list(batch("d2", "two").chunks))
    with pytest.raises(PipelineConfigError, match=r"hashing-64/1.*hashing-128/1.*with: \{index: NAME\}"):
        await index.execute(context("d2", "g2"), other)
    assert texts(search) == ["one"]
    # in the same commit others are written
    good = index.execute(context("d3", "g3"), batch("d3", "three"))
    outcomes = await asyncio.gather(index.execute(context("d2", "g2"), other), good, return_exceptions=True)
    assert isinstance(outcomes[0], PipelineConfigError)
    assert texts(search) == ["one", "three"]


async def test_an_emptied_index_takes_another_model(index: EmbeddedIndex, search: HybridSearch) -> None:
    await index.execute(context("d1", "g1"), batch("d1", "one"))
    await index.execute(context("d1", "g2", revision=2), batch("d1"))
    other = LocalEmbedding(HashingEmbedder(128)).execute(context("d2", ""), list(batch("d2", "two").chunks))
    await index.execute(context("d2", "g2"), other)
    assert [hit.text for hit in (await search.search(TENANT, "two")).hits] == ["two"]


@pytest.mark.parametrize(
    "change",
    [
        lambda b: msgspec.structs.replace(b, dense=b.dense[:-4]),
        lambda b: msgspec.structs.replace(b, dense=bytes(len(b.dense))),
        lambda b: msgspec.structs.replace(b, dense=np.full(len(b.dense) // 4, np.nan, "<f4").tobytes()),
        lambda b: msgspec.structs.replace(b, sparse=b.sparse[:1]),
    ],
)
async def test_unusable_vectors_are_refused(
    index: EmbeddedIndex, change: Callable[[EmbeddingBatch], EmbeddingBatch]
) -> None:
    with pytest.raises(ContractError, match="do not make 2 usable ones"):
        await index.execute(context("d1", "g1"), change(batch("d1", "one", "two")))


async def test_a_failure_between_the_indexes_leaves_neither(
    index: EmbeddedIndex, search: HybridSearch, tmp_path: Path
) -> None:
    await index.execute(context("d1", "g1"), batch("d1", "one"))
    store = PassageStore.open(store_path(tmp_path, TENANT))
    store._connection.execute(
        "CREATE TEMP TRIGGER fail BEFORE INSERT ON main.vectors BEGIN SELECT RAISE(FAIL, 'disk'); END"
    )
    write = prepare(context("d1", "g2", revision=2), batch("d1", "changed"))
    [outcome] = store.write([write])
    store.close()
    assert isinstance(outcome, StageCrashedError)
    assert "disk" in outcome.message
    assert texts(search) == ["one"]


async def test_a_document_that_a_constraint_refuses_fails_alone_and_is_not_waited_for(
    index: EmbeddedIndex, search: HybridSearch, tmp_path: Path
) -> None:
    await index.execute(context("d0", "g1"), batch("d0", "zero"))
    connection = sqlite3.connect(store_path(tmp_path, TENANT))
    connection.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON documents WHEN new.doc_id = 'd1' "
        "BEGIN SELECT RAISE(ABORT, 'UNIQUE constraint failed: documents.doc_id'); END"
    )
    connection.close()
    contexts = [context(f"d{number}", "g1") for number in range(3)]
    outcomes = await asyncio.gather(
        *(index.execute(each, batch(each.doc_id, f"text {each.doc_id}")) for each in contexts), return_exceptions=True
    )
    assert isinstance(outcomes[1], StageCrashedError), outcomes
    assert "UNIQUE constraint failed" in outcomes[1].message
    assert not outcomes[1].retryable
    assert "text d1" not in texts(search)
    assert "text d2" in texts(search)


@pytest.mark.parametrize(
    ("code", "is_waited_for"),
    [
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, True),
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_IOERR_WRITE, True),
        (sqlite3.SQLITE_CANTOPEN, True),
        (None, True),
        (sqlite3.SQLITE_ERROR, False),
        (sqlite3.SQLITE_CORRUPT, False),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, False),
    ],
)
def test_only_what_passes_by_itself_is_waited_for(code: int | None, is_waited_for: bool) -> None:
    error = sqlite3.OperationalError("no")
    if code is not None:
        error.sqlite_errorcode = code
    failure = sqlite_failure("writing", error)
    assert isinstance(failure, ResourceUnavailableError) is is_waited_for
    assert failure.retryable is is_waited_for


async def test_tenants_never_meet(index: EmbeddedIndex, search: HybridSearch) -> None:
    for tenant in ("a-b", "a_b"):
        await index.execute(context("d1", "g", tenant=tenant), batch("d1", f"secret of {tenant}"))
    assert texts(search, "a-b") == ["secret of a-b"]
    assert texts(search, "a_b") == ["secret of a_b"]
    assert (await search.search("other", "secret")).hits == ()


@pytest.mark.parametrize("tenant", ["../../etc/passwd", "/abs", "a/b", "x" * 500, "\u00e9", "a\x00b", ".", "CON"])
def test_no_tenant_id_leads_out_of_the_data_folder(tenant: str, tmp_path: Path) -> None:
    path = store_path(tmp_path, tenant)
    assert path.resolve().parent.parent == (tmp_path / "index").resolve()
    assert len(path.parent.name) <= 65


@pytest.mark.parametrize(("tenant", "name"), [("", "passages"), ("t", "../x"), ("t", "A"), ("t", "")])
def test_names_that_cannot_be_files_are_refused(tenant: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        store_path(tmp_path, tenant, name)


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    store = PassageStore.open(tmp_path / "s.sqlite")
    store._connection.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(ConfigurationError, match="it has schema 99"):
        PassageStore.open(tmp_path / "s.sqlite")


def test_threads_with_connections_of_their_own_lose_nothing(tmp_path: Path) -> None:
    path = store_path(tmp_path, TENANT)

    def write(worker: int) -> None:
        store = PassageStore.open(path)
        for number in range(20):
            doc_id = f"d{worker}-{number}"
            store.write([prepare(context(doc_id, "g"), batch(doc_id, f"text {worker} {number}"))])
            # and all of them fight for one document: the last revision stays
            shared = context("shared", f"g{worker}-{number}", revision=worker * 100 + number, job=f"j{worker}")
            store.write([prepare(shared, batch("shared", f"shared {worker} {number}"))])
        store.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    stored = texts(HybridSearch(tmp_path))
    assert len(stored) == 81
    assert stored[-1] == "shared 3 19"


async def test_many_documents_at_once_share_commits_and_are_all_there(
    index: EmbeddedIndex, search: HybridSearch
) -> None:
    receipts = await asyncio.gather(
        *(index.execute(context(f"d{n}", "g"), batch(f"d{n}", f"text {n}")) for n in range(200))
    )
    assert {receipt.outcome for receipt in receipts} == {WriteOutcome.WRITTEN}
    assert sorted(texts(search)) == sorted(f"text {n}" for n in range(200))


async def test_a_worker_that_stops_waiting_stops_nobody_else(index: EmbeddedIndex, search: HybridSearch) -> None:
    tasks = [asyncio.create_task(index.execute(context(f"d{n}", "g"), batch(f"d{n}", f"text {n}"))) for n in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(outcome, IndexReceipt) for outcome in outcomes) == 9
    assert {f"text {n}" for n in range(10) if n != 3} <= set(texts(search))


WRITER = """
    import sys
    from pathlib import Path
    from medkg.contracts.context import Metadata, StageContext
    from medkg.contracts.document import Chunk
    from medkg.embed.stage import LocalEmbedding
    from medkg.haystack.hashing import HashingEmbedder
    from medkg.haystack.passage_database import store_path
    from medkg.haystack.passage_store import PassageStore
    from medkg.haystack.writes import prepare
    from medkg.haystack.segments import build_segment

    path = store_path(Path(sys.argv[1]), "acme")
    store, embed = PassageStore.open(path), LocalEmbedding(HashingEmbedder(64))
    for number in range(100_000):
        doc_id = f"d{number % 40}"
        ctx = StageContext("acme", doc_id, f"job-{sys.argv[2]}-{number}", content_key=f"g{number}", revision=number)
        chunks = [Chunk(f"c{number}-{n}", doc_id, n, f"text {number} {n}", (), (), 3) for n in range(5)]
        outcome = store.write([prepare(ctx, embed.execute(ctx, chunks))])[0]
        print(doc_id, number, outcome.value, flush=True)
        build_segment(path, 16)
"""


def test_writers_killed_at_any_moment_leave_a_store_that_holds_what_they_committed(tmp_path: Path) -> None:
    for round_number in range(3):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path), f"{round_number}-{n}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(2)
        ]
        committed: dict[str, int] = {}
        for writer in writers:
            assert writer.stdout is not None
            for _ in range(30 + 17 * round_number):
                doc_id, number, _outcome = writer.stdout.readline().split()
                committed[doc_id] = max(committed.get(doc_id, 0), int(number))
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
        for writer in writers:
            writer.communicate(timeout=30)
        search = HybridSearch(tmp_path)
        assert search.verify(TENANT) == []
        stored: dict[str, list[StoredPassage]] = {}
        for passage in search.export_passages(TENANT):
            stored.setdefault(passage.doc_id, []).append(passage)
        for doc_id, latest in committed.items():
            assert len(stored[doc_id]) == 5
            assert int(stored[doc_id][0].generation[1:]) >= latest
        assert all(len({p.generation for p in passages}) == 1 for passages in stored.values())
        build_segment(store_path(tmp_path, TENANT), 1)
        assert search.verify(TENANT) == []


async def test_a_store_that_cannot_be_opened_is_worth_a_retry_for_everybody_who_waits(
    index: EmbeddedIndex, search: HybridSearch, tmp_path: Path
) -> None:
    (tmp_path / "index").write_text("a file where the folder should be")
    writes = [index.execute(context(f"d{n}", "g"), batch(f"d{n}", f"text {n}")) for n in range(3)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ResourceUnavailableError] * 3
    (tmp_path / "index").unlink()
    await index.execute(context("d1", "g"), batch("d1", "text 1"))
    assert texts(search) == ["text 1"]


async def test_more_tenants_than_stay_open_are_all_served(index: EmbeddedIndex, search: HybridSearch) -> None:
    tenants = [f"tenant-{n}" for n in range(40)]
    for round_number in range(2):
        for tenant in tenants:
            doc_id = f"d{round_number}"
            await index.execute(context(doc_id, "g", tenant=tenant), batch(doc_id, f"{round_number} of {tenant}"))
    assert len(writer_of(index)._tenants) <= 32
    for tenant in tenants:
        assert texts(search, tenant) == [f"0 of {tenant}", f"1 of {tenant}"]


async def test_the_tail_becomes_segments_in_the_background(tmp_path: Path) -> None:
    index = EmbeddedIndex(tmp_path, segment_rows=16)
    for number in range(60):
        await index.execute(context(f"d{number}", "g"), batch(f"d{number}", f"text {number}"))
    await index.aclose()
    segments = list(segment_folder(store_path(tmp_path, TENANT)).glob("*.faiss"))
    assert segments
    assert HybridSearch(tmp_path).verify(TENANT) == []


async def test_a_full_disk_under_the_segments_stops_no_document(
    tmp_path: Path, search: HybridSearch, caplog: pytest.LogCaptureFixture
) -> None:
    index = EmbeddedIndex(tmp_path, segment_rows=16)
    path = store_path(tmp_path, TENANT)
    path.parent.mkdir(parents=True)
    segment_folder(path).write_text("a file where the folder should be")
    for number in range(20):
        await index.execute(context(f"d{number}", "g"), batch(f"d{number}", f"text {number}"))
    await index.aclose()
    assert "building a FAISS segment" in caplog.text
    assert len(search.export_passages(TENANT)) == 20
    assert (await search.search(TENANT, "text 7")).hits[0].text == "text 7"


async def test_two_runs_in_different_order_give_equal_stores(tmp_path: Path) -> None:
    stores: list[list[StoredPassage]] = []
    for order in (range(20), reversed(range(20))):
        folder = tmp_path / str(len(stores))
        index = EmbeddedIndex(folder)
        for number in order:
            await index.execute(
                context(f"d{number}", "g", job=f"j{folder.name}"), batch(f"d{number}", f"text {number}")
            )
        await index.aclose()
        stores.append(HybridSearch(folder).export_passages(TENANT))
    assert stores[0] == stores[1]


async def test_the_registered_implementation_opens_with_its_options(tmp_path: Path) -> None:
    class NoBlobs:
        async def get(self, key: str) -> bytes | None:
            raise AssertionError("an index reads no blobs")

        async def put(self, key: str, data: bytes) -> None:
            raise AssertionError("an index writes no blobs")

    assert not EMBEDDED.memoised
    async with EMBEDDED.open(EmbeddedOptions(index="qwen3"), Host(tmp_path, NoBlobs())) as stage:
        receipt = await stage.execute(context("d1", "g1"), batch("d1", "one"))
    assert receipt.index == "qwen3"
    assert len(HybridSearch(tmp_path, index="qwen3").export_passages(TENANT)) == 1
    assert HybridSearch(tmp_path).export_passages(TENANT) == []


def writer_of(index: EmbeddedIndex) -> EmbeddedWriter:
    assert isinstance(index._writer, EmbeddedWriter)
    return index._writer


def passage_ids(index: EmbeddedIndex) -> list[int]:
    store = PassageStore.open(store_path(writer_of(index)._data_dir, TENANT))
    ids = [row[0] for row in store._connection.execute("SELECT id FROM passages ORDER BY id")]
    store.close()
    return ids
