"""Verify, compact and rebuild, on every store; and what the command `medkg index` makes of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.stores_kit import (
    INDEX,
    KEY,
    TENANT,
    Stores,
    document,
    embedded_stores,
    indexes_of,
    opensearch_stores,
    vector_of,
    vectors_at,
)
from typer.testing import CliRunner

from medkg.cli.app import app
from medkg.contracts.errors import ResourceUnavailableError
from medkg.haystack.opensearch import layout
from medkg.haystack.opensearch.bulk import Action, send
from medkg.haystack.opensearch.client import Connection, connect
from medkg.haystack.opensearch.upkeep import OpenSearchUpkeep
from medkg.haystack.passage_database import store_path
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.upkeep import EmbeddedUpkeep, Upkeep
from medkg.haystack.vectors.log import VectorLog
from medkg.haystack.vectors.merging import NothingIsVisible

BACKENDS = [
    "embedded",
    pytest.param("opensearch-faiss", marks=pytest.mark.opensearch),
    pytest.param("opensearch-knn", marks=pytest.mark.opensearch),
]


@dataclass(frozen=True, slots=True)
class UnderTest:
    name: str
    stores: Stores
    upkeep: Upkeep


def say(_text: str) -> None:
    """Nobody listens."""


@pytest.fixture(params=BACKENDS)
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[UnderTest]:
    async with _opened(request, tmp_path) as opened:
        yield opened


@asynccontextmanager
async def _opened(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[UnderTest]:
    if request.param == "embedded":
        async with embedded_stores(folder) as stores:
            yield UnderTest("embedded", stores, EmbeddedUpkeep(folder))
        return
    url, prefix = request.getfixturevalue("opensearch"), request.getfixturevalue("opensearch_prefix")
    blobs = folder if request.param == "opensearch-faiss" else None
    client = connect(Connection(url))
    try:
        async with opensearch_stores(url, prefix, blobs) as stores:
            upkeep = OpenSearchUpkeep(
                indexes_of(client, prefix, knn=blobs is None), INDEX, vectors_at(blobs, "operator")
            )
            yield UnderTest(request.param, stores, upkeep)
    finally:
        await client.close()


async def found(stores: Stores) -> list[list[str]]:
    async with stores.index.view(TENANT) as view:
        assert view is not None
        legs = (
            await view.lexical("word", 100),
            await view.sparse({"word": 1.0}, 100),
            await view.dense(vector_of("word"), 100),
        )
        passages = await view.passages([hit.ref for leg in legs for hit in leg])
        return [sorted(passages[hit.ref].chunk.text for hit in leg) for leg in legs]


async def test_an_index_that_is_whole_has_no_problems(index: UnderTest) -> None:
    assert not (await index.upkeep.verify("nobody", say)).exists
    for number in range(5):
        await index.stores.writer.replace(TENANT, document(f"d{number}", f"word {number}", "word"))
    await index.stores.writer.replace(TENANT, document("d0", "word", revision=2, job="j2"))
    await index.stores.writer.delete(TENANT, "d1", revision=2, job="j2")
    findings = await index.upkeep.verify(TENANT, say)
    assert (findings.exists, findings.documents, findings.passages, findings.problems) == (True, 4, 7, ())


async def test_a_rebuilt_index_answers_as_before_and_is_written_to(index: UnderTest) -> None:
    await asyncio.gather(
        *(index.stores.writer.replace(TENANT, document(f"d{n}", f"word {n}", "word")) for n in range(20))
    )
    await index.stores.writer.delete(TENANT, "d1", revision=5, job="j2")
    before = await found(index.stores)
    assert len(before[0]) == 38
    dry = await index.upkeep.rebuild(TENANT, say, dry_run=True)
    assert await index.upkeep.rebuild(TENANT, say, dry_run=False) == dry
    assert (dry.documents, dry.passages) == (19, 38)
    assert await found(index.stores) == before
    assert (await index.upkeep.verify(TENANT, say)).problems == ()
    # what ordered the documents is in the new index, too
    assert await index.stores.writer.replace(TENANT, document("d1", "word late", revision=4, job="j")) == "superseded"
    assert await index.stores.writer.replace(TENANT, document("d2", "word new", revision=6, job="j6")) == "written"
    assert "word new" in (await found(index.stores))[0]


async def test_documents_written_during_a_rebuild_are_in_the_new_index(index: UnderTest) -> None:
    await asyncio.gather(*(index.stores.writer.replace(TENANT, document(f"d{n}", f"word {n}")) for n in range(25)))

    async def write() -> None:
        for number in range(25):
            write = document(f"d{number}", f"word {number} again", revision=2, job="j2")
            while True:
                try:
                    await index.stores.writer.replace(TENANT, write)
                    break
                except ResourceUnavailableError:  # told to come again, as the runtime does
                    await asyncio.sleep(0.02)

    await asyncio.gather(write(), index.upkeep.rebuild(TENANT, say, dry_run=False))
    assert await found(index.stores) == [sorted(f"word {number} again" for number in range(25))] * 3
    assert (await index.upkeep.verify(TENANT, say)).problems == ()


async def test_compaction_removes_what_was_deleted_and_changes_no_answer(index: UnderTest) -> None:
    for revision in (1, 2, 3):
        for number in range(4):
            texts = [f"word {number} {revision} {n}" for n in range(3)]
            write = document(f"d{number}", *texts, revision=revision, job=f"j{revision}")
            await index.stores.writer.replace(TENANT, write)
    before = await found(index.stores)
    await index.upkeep.compact(TENANT, say, dry_run=True)
    await index.upkeep.compact(TENANT, say, dry_run=False)
    assert await found(index.stores) == before
    assert (await index.upkeep.verify(TENANT, say)).problems == ()


@pytest.mark.opensearch
async def test_what_dead_writers_left_is_seen_by_verify_and_removed_by_compact(
    opensearch: str, opensearch_prefix: str, tmp_path: Path
) -> None:
    client = connect(Connection(opensearch))
    indexes = indexes_of(client, opensearch_prefix)
    vectors = vectors_at(tmp_path, "operator")
    assert vectors is not None
    upkeep = OpenSearchUpkeep(indexes, INDEX, vectors)
    async with opensearch_stores(opensearch, opensearch_prefix, tmp_path) as stores:
        await stores.writer.replace(TENANT, document("d1", "word one"))
        # a writer that died before its switch
        dead = document("d1", "word two", "word three", revision=2, job="j2")
        alias = indexes.names.alias(TENANT, INDEX)
        folder = vectors.folder(alias, dead.model, dead.dimension)
        log = VectorLog(folder, vectors.cache, NothingIsVisible(), 4096)
        await log.put([(layout.write_id_of(dead), dead)])
        await send(
            client, alias, layout.passage_actions(dead, layout.write_id_of(dead), 0, with_vectors=False), doing=""
        )
        assert await found(stores) == [["word one"]] * 3
        assert (await upkeep.verify(TENANT, say)).leftover_passages == 2
        upkeep = OpenSearchUpkeep(indexes, INDEX, vectors, leftover_seconds=-1.0)  # the vectors are of this moment
        done = await upkeep.compact(TENANT, say, dry_run=False)
        assert (done.leftover_passages, done.leftover_vectors) == (2, 1)
        findings = await upkeep.verify(TENANT, say)
        assert (findings.leftover_passages, findings.problems) == (0, ())
        assert await found(stores) == [["word one"]] * 3
        # the write itself, delivered again
        await stores.writer.replace(TENANT, dead)
        assert await found(stores) == [["word three", "word two"]] * 3
        # a passage that is lost is a problem
        head = await client.get(index=alias, id=layout.head_id("d1"), params={"routing": "d1"})
        lost = layout.passage_id(head["_source"]["write_id"], 1)
        await send(client, alias, [Action("delete", lost, "d1")], doing="")
        assert (await upkeep.verify(TENANT, say)).problems == ("document d1: 1 of 2 passages are there",)
    await client.close()


def medkg(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["index", *arguments], env=environment)
    return result.exit_code, result.stdout


async def test_the_command_says_what_it_found_and_ends_with_a_code_that_scripts_can_use(tmp_path: Path) -> None:
    async with embedded_stores(tmp_path) as stores:
        await stores.writer.replace("default", document("d1", "word one", "word two"))
    data = ("--data", str(tmp_path))
    code, said = await asyncio.to_thread(medkg, "verify", *data, "--json")
    assert (code, json.loads(said)["passages"], json.loads(said)["problems"]) == (0, 2, [])
    assert (await asyncio.to_thread(medkg, "verify", *data, "--tenant", "nobody"))[0] == 4
    assert (await asyncio.to_thread(medkg, "verify", *data, "--store", "opensearch", MEDKG_OPENSEARCH_INDEX_KEY=""))[
        0
    ] == 2
    for command in ("compact", "rebuild"):
        for more in ((), ("--dry-run",), ("--json",)):
            assert (await asyncio.to_thread(medkg, command, *data, *more))[0] == 0
        assert "Examples" in (await asyncio.to_thread(medkg, command, "--help"))[1]
    store = PassageStore.open(store_path(tmp_path, "default"))
    store._connection.execute("DELETE FROM vectors")
    store.close()
    code, said = await asyncio.to_thread(medkg, "verify", *data)
    assert code == 1
    assert "2 passages without a vector" in said


@pytest.mark.opensearch
async def test_the_command_works_on_opensearch(opensearch: str, opensearch_prefix: str, tmp_path: Path) -> None:
    async with opensearch_stores(opensearch, opensearch_prefix, tmp_path) as stores:
        await stores.writer.replace("default", document("d1", "word one", "word two"))
        where = {
            "MEDKG_OPENSEARCH_URL": opensearch,
            "MEDKG_OPENSEARCH_INDEX_KEY": KEY.decode(),
            "MEDKG_OPENSEARCH_PREFIX": opensearch_prefix,
        }
        for command in ("verify", "compact", "rebuild", "verify"):
            flags = (command, "--store", "opensearch", "--data", str(tmp_path), "--json")
            assert (await asyncio.to_thread(medkg, *flags, **where))[0] == 0
        down = where | {"MEDKG_OPENSEARCH_URL": "http://127.0.0.1:9"}
        assert (await asyncio.to_thread(medkg, *flags, **down))[0] == 3
