"""The parser of the guide keeps the contract: what it writes is what a gate needs."""

import hashlib
import runpy
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from medkg.contracts.context import StageContext
from medkg.contracts.document import Document, StoredFile
from medkg.contracts.pdf import PdfRequested, adopted
from medkg.runtime.blobs import BlobStore, open_blobs
from medkg.storage.engine import Engine, migrate, open_engine
from medkg.storage.parsed_files import Wanted, find_parsed, want

pytestmark = pytest.mark.postgres
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "pdf-parser" / "plain_parser.py"
PDF = b"%PDF-1.4 not looked at by this test"
SHA256 = hashlib.sha256(PDF).hexdigest()
Answer = Callable[[bytes, BlobStore, Engine], Awaitable[int]]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Engine]:
    engine = open_engine(database_url)
    await migrate(engine)
    yield engine
    await engine.dispose()


@pytest.fixture
async def blobs() -> BlobStore:
    store = open_blobs("memory:")
    await store.put("files/acme/one", PDF)
    return store


def example(read: Callable[[bytes], list[str]]) -> Answer:
    """The example, with another way to read a PDF than a program that need not be installed."""
    shown: dict[str, Any] = runpy.run_path(str(EXAMPLE))
    answer: Answer = shown["answer"]
    shown["answer"].__globals__["read"] = read
    return answer


def request() -> bytes:
    file = StoredFile("files/acme/one", SHA256, "application/pdf", len(PDF))
    return msgspec.json.encode(PdfRequested(tenant_id="acme", file=file, job_id="job-1", doc_id="doc-1"))


async def test_the_parser_of_the_guide_releases_everybody_who_waits(engine: Engine, blobs: BlobStore) -> None:
    await want(engine, [Wanted("acme", SHA256, "job-1", "doc-1"), Wanted("acme", SHA256, "job-2", "doc-5")])
    answer = example(lambda pdf: ["first page", "second page"] if pdf == PDF else [])
    assert await answer(request(), blobs, engine) == 2
    parsed = await find_parsed(engine, "acme", SHA256)
    assert parsed is not None
    data = await blobs.get(parsed.document_key)
    assert data is not None
    assert hashlib.sha256(data).hexdigest() == parsed.document_sha256
    own = adopted(msgspec.json.decode(data, type=Document), StageContext("acme", "doc-5", "job-2", {"source": "core"}))
    assert own.doc_id == "doc-5"
    assert [(block.text, block.provenance.page) for block in own.blocks()] == [("first page", 1), ("second page", 2)]
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT bool_and(pdf_ir_ready) FROM documents"))


async def test_a_file_that_it_cannot_read_fails_everybody_who_waits(engine: Engine, blobs: BlobStore) -> None:
    def fail(pdf: bytes) -> list[str]:
        raise OSError("no such program")

    await want(engine, [Wanted("acme", SHA256, "job-1", "doc-1")])
    assert await example(fail)(request(), blobs, engine) == 1
    failed = await find_parsed(engine, "acme", SHA256)
    assert failed is not None
    assert (failed.failure_code, failed.failure_message) == ("payload_malformed", "no such program")
