"""The MinerU service on a real ledger: one file, everybody who waits for it, whatever happens in between."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from tests.servers.mineru.clock import FakeClock
from tests.servers.mineru.recordings import PAPERS, recorded_papers
from tests.servers.mineru.server import FakeMineru, Faults

from medkg.contracts.context import StageContext
from medkg.contracts.document import Document, StoredFile
from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.pdf import PdfRequested, adopted
from medkg.mineru.api import MineruApi
from medkg.mineru.breaker import Breaker
from medkg.mineru.handler import MineruHandler
from medkg.mineru.metrics import MineruMetrics
from medkg.mineru.parsing import Parsing, Patience
from medkg.mineru.tasks import TaskNotes
from medkg.runtime.blobs import BlobStore, open_blobs
from medkg.runtime.records import Record
from medkg.storage.engine import Engine, migrate, open_engine
from medkg.storage.parsed_files import Wanted, find_parsed, want

pytestmark = [pytest.mark.postgres, pytest.mark.corpus]
TENANT = "acme"


class World:
    def __init__(self, engine: Engine, corpus: Path) -> None:
        self.engine = engine
        self.corpus = corpus
        self.clock = FakeClock()
        self.blobs: BlobStore = open_blobs("memory:")
        self.server = FakeMineru(recorded_papers(corpus), self.clock.monotonic, seconds=7_200)

    @asynccontextmanager
    async def service(self) -> AsyncIterator[MineruHandler]:
        """A service, freshly started."""
        async with self.server.serving() as url, httpx.AsyncClient(base_url=url, timeout=10) as client:
            breaker = Breaker(self.clock, failures=5, seconds=30)
            api = MineruApi(client, breaker, max_answer_bytes=50_000_000)
            parsing = Parsing(api, TaskNotes(self.blobs, "server"), self.clock, Patience(poll_seconds=60))
            metrics = MineruMetrics(CollectorRegistry())
            fields = {"lang_list": "en", "return_middle_json": "true", "return_content_list": "true"}
            yield MineruHandler(parsing, self.blobs, self.engine, metrics, "worker", fields, 10_000_000)

    async def paper(self, number: int = 0) -> StoredFile:
        """A paper in the blob store."""
        data = (self.corpus / "mineru" / PAPERS[number] / "paper.pdf").read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        key = f"files/{TENANT}/{sha256}"
        await self.blobs.put(key, data)
        return StoredFile(key, sha256, "application/pdf", len(data))

    async def fields(self) -> dict[tuple[str, str], tuple[bool, bool]]:
        """(job, document) -> ready, failed."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(text("SELECT job_id, doc_id, pdf_ir_ready, pdf_ir_failed FROM documents"))
            return {(row.job_id, row.doc_id): (row.pdf_ir_ready, row.pdf_ir_failed) for row in rows}


@pytest.fixture
async def world(database_url: str, corpus: Path) -> AsyncIterator[World]:
    engine = open_engine(database_url)
    await migrate(engine)
    yield World(engine, corpus)
    await engine.dispose()


def record(file: StoredFile, tenant: str = TENANT) -> Record:
    data = msgspec.json.encode(PdfRequested(tenant_id=tenant, file=file, job_id="job-1", doc_id="doc-1"))
    return Record("mineru.queue.v1", 0, 0, b"", data, [])


def wanted(file: StoredFile, *documents: tuple[str, str], tenant: str = TENANT) -> list[Wanted]:
    return [Wanted(tenant, file.sha256, job, doc) for job, doc in documents]


async def test_all_documents_that_wait_for_a_file_are_ready_when_it_is_parsed_once(world: World) -> None:
    file = await world.paper()
    await want(world.engine, wanted(file, ("job-1", "doc-1"), ("job-1", "doc-2"), ("job-2", "doc-1")))
    async with world.service() as service:
        assert await service.handle([record(file)]) == []
    assert await world.fields() == {
        ("job-1", "doc-1"): (True, False),
        ("job-1", "doc-2"): (True, False),
        ("job-2", "doc-1"): (True, False),
    }
    assert len(world.server.submissions) == 1
    assert world.clock.seconds >= 7_200


async def test_the_document_is_stored_with_what_it_was_made_from_and_can_be_adopted(world: World) -> None:
    file = await world.paper()
    await want(world.engine, wanted(file, ("job-1", "doc-1")))
    async with world.service() as service:
        await service.handle([record(file)])
    parsed = await find_parsed(world.engine, TENANT, file.sha256)
    assert parsed is not None
    assert (parsed.parser, parsed.version) == ("mineru", "3.4.4/pipeline/1")
    data = await world.blobs.get(parsed.document_key)
    assert data is not None
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (parsed.document_sha256, parsed.document_bytes)
    document = msgspec.json.decode(data, type=Document)
    assert (document.doc_id, document.title[:7]) == ("", "Strings")
    assert {block.provenance.record for block in document.blocks()} == {f"sha256:{file.sha256}"}
    originals = parsed.document_key.removesuffix(".json")
    assert await world.blobs.get(f"{originals}.middle_json.json") is not None
    assert await world.blobs.get(f"{originals}.content_list.json") is not None
    ctx = StageContext(TENANT, "doc-9", "job-9", {"source": "core", "source_id": "42", "doi": "10.1/x", "year": 2024})
    own = adopted(document, ctx)
    assert (own.doc_id, own.source, own.source_id) == ("doc-9", "core", "42")
    assert own.identifiers == {"doi": "10.1/x"}
    assert own.metadata == {"year": 2024, "pages": 11, "parser": "mineru"}


async def test_who_comes_after_the_file_was_parsed_is_ready_at_once_and_nobody_is_asked(world: World) -> None:
    file = await world.paper()
    async with world.service() as service:
        await service.handle([record(file)])
    known = await want(world.engine, wanted(file, ("job-3", "doc-7")))
    assert known[TENANT, file.sha256].is_ready
    assert await world.fields() == {("job-3", "doc-7"): (True, False)}


async def test_what_another_tenant_has_had_parsed_is_not_shared(world: World) -> None:
    file = await world.paper()
    async with world.service() as service:
        await service.handle([record(file)])
    assert await want(world.engine, wanted(file, ("job-3", "doc-7"), tenant="other")) == {}
    assert await world.fields() == {}


async def test_the_same_request_again_parses_nothing_and_tells_everybody(world: World) -> None:
    file = await world.paper(1)
    async with world.service() as service:
        await service.handle([record(file)])
        await want(world.engine, wanted(file, ("job-1", "doc-1")))
        await service.handle([record(file), record(file)])
    assert len(world.server.submissions) == 1
    assert await world.fields() == {("job-1", "doc-1"): (True, False)}


async def test_a_file_that_cannot_be_parsed_fails_everybody_with_the_reason(world: World) -> None:
    file = await world.paper()
    world.server.faults = Faults(empty_results=100)
    await want(world.engine, wanted(file, ("job-1", "doc-1"), ("job-2", "doc-2")))
    async with world.service() as service:
        await service.handle([record(file)])
    assert await world.fields() == {("job-1", "doc-1"): (False, True), ("job-2", "doc-2"): (False, True)}
    failed = await find_parsed(world.engine, TENANT, file.sha256)
    assert failed is not None
    assert failed.failure_code == "payload_malformed"
    assert "there is no result" in failed.failure_message


async def test_a_file_that_is_gone_or_another_is_a_failure_with_its_reason(world: World) -> None:
    file = await world.paper()
    gone = msgspec.structs.replace(file, key="files/acme/gone")
    other = msgspec.structs.replace(await world.paper(1), sha256="0" * 64)
    async with world.service() as service:
        await service.handle([record(gone), record(other)])
    for sha256, reason in ((file.sha256, "was it cleaned up?"), ("0" * 64, "are others")):
        failed = await find_parsed(world.engine, TENANT, sha256)
        assert failed is not None
        assert reason in failed.failure_message


async def test_what_is_no_request_becomes_a_dead_letter_and_the_next_one_goes_on(world: World) -> None:
    file = await world.paper()
    hostile = [
        Record("mineru.queue.v1", 0, 0, b"", data, [])
        for data in (
            b"",
            b"[" * 10_000,
            b"{}",
            b'{"tenant_id":"../x","file":{"key":"a","sha256":"' + b"a" * 64 + b'"}}',
        )
    ]
    async with world.service() as service:
        letters = await service.handle([*hostile, record(file)])
    assert len(letters) == len(hostile)
    assert await find_parsed(world.engine, TENANT, file.sha256) is not None


async def test_killed_at_any_moment_the_next_service_ends_the_same(world: World) -> None:
    """Cancelled after every number of requests to MinerU there is, and started anew; the file is submitted once."""
    file = await world.paper()
    await want(world.engine, wanted(file, ("job-1", "doc-1")))
    world.server.seconds = 9.0
    for requests in range(1, 6):
        before = len(world.server.requests)
        async with world.service() as service:
            running = asyncio.create_task(service.handle([record(file)]))
            async with asyncio.timeout(20):
                while len(world.server.requests) < before + requests and not running.done():
                    await asyncio.sleep(0.001)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    async with world.service() as service:
        await service.handle([record(file)])
    assert len(world.server.submissions) <= 2  # twice, where it was killed before it could note the task
    assert await world.fields() == {("job-1", "doc-1"): (True, False)}


async def test_several_files_are_worked_on_at_once(world: World) -> None:
    files = [await world.paper(0), await world.paper(1)]
    async with world.service() as service:
        await asyncio.gather(*(service.handle([record(file)]) for file in files))
    assert world.server.most_at_work == 2
    for file in files:
        parsed = await find_parsed(world.engine, TENANT, file.sha256, parser="mineru")
        assert parsed is not None
        assert parsed.is_ready


async def test_a_late_failure_undoes_no_document(world: World) -> None:
    file = await world.paper()
    async with world.service() as service:
        await service.handle([record(file)])
        world.server.faults = Faults(empty_results=100)
        await service.handle([record(file)])
    known = await want(world.engine, wanted(file, ("job-1", "doc-1")))
    assert known[TENANT, file.sha256].is_ready


async def test_a_database_that_goes_away_is_waited_for_and_not_a_failure_of_the_file(world: World) -> None:
    file = await world.paper()
    async with world.service() as service:
        dead = open_engine("postgresql://nobody@127.0.0.1:1/none")
        service.engine = dead
        with pytest.raises(ResourceUnavailableError):
            await service.handle([record(file)])
        await dead.dispose()
