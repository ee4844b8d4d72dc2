"""What the tests of waiting need: rows that wait, and the ledger that they wait for."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from medkg.storage.waits import Wait, WaitKind


def wait(
    name: str,
    kind: WaitKind = WaitKind.PAGE,
    *,
    tenant: str = "clinic",
    job: str = "job",
    doc: str = "",
    stage: str = "ingest",
    page: int = 0,
    needed: int = 1,
    branch: str = "",
    field: str | None = None,
    equals: str | None = None,
    timeout: float | None = None,
    request: str = "{}",
    origin: str = "{}",
) -> Wait:
    return Wait(
        name,
        kind,
        tenant,
        job,
        doc,
        stage,
        page,
        branch,
        needed,
        request,
        origin,
        field,
        equals,
        timeout_seconds=timeout,
    )


def gate(name: str, *, doc: str, field: str = "pdf_ir_ready", equals: str = "true", **fields: Any) -> Wait:
    return wait(name, WaitKind.GATE, doc=doc, stage="gate", field=field, equals=equals, **fields)


def branch(doc: str, arrived_from: str, needed: int = 2, **fields: Any) -> Wait:
    name = f"{doc}-{arrived_from}"
    return wait(name, WaitKind.JOIN, doc=doc, stage="meet", branch=arrived_from, needed=needed, **fields)


async def run(engine: AsyncEngine, sql: str, **parameters: Any) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(sql), parameters)


async def rows(engine: AsyncEngine, sql: str, **parameters: Any) -> list[Any]:
    async with engine.connect() as connection:
        return list((await connection.execute(text(sql), parameters)).all())


async def add_job(
    engine: AsyncEngine, job: str = "job", tenant: str = "clinic", documents: int = 0, done: int = 0
) -> None:
    """A job that is under way with so many documents, of which some are done."""
    await run(
        engine,
        "INSERT INTO jobs (job_id, tenant_id, first_event_at, last_event_at, admitted_at, documents, completed) "
        "VALUES (:job, :tenant, now(), now(), now(), :documents, :done)",
        job=job,
        tenant=tenant,
        documents=documents,
        done=done,
    )


async def end_job(engine: AsyncEngine, job: str = "job") -> None:
    await run(
        engine,
        "UPDATE jobs SET max_page = 0, last_page = 0, pages_done = 1, completed = documents WHERE job_id = :job",
        job=job,
    )


async def add_document(
    engine: AsyncEngine, doc: str, job: str = "job", *, page: int = 0, is_done: bool = False
) -> None:
    """A document that is under way, or done."""
    await run(
        engine,
        "INSERT INTO documents "
        "(job_id, doc_id, tenant_id, is_known, last_event_at, page_number, leaves, finished_leaves) "
        "VALUES (:job, :doc, 'clinic', true, now(), :page, 1, CAST(:ends AS text[]))",
        job=job,
        doc=doc,
        page=page,
        ends=["kg"] if is_done else [],
    )


async def add_page(engine: AsyncEngine, number: int, job: str = "job", *, is_last: bool = False) -> None:
    await run(
        engine,
        "INSERT INTO pages (job_id, number, is_done, is_last) VALUES (:job, :number, true, :is_last)",
        job=job,
        number=number,
        is_last=is_last,
    )


async def waiting(engine: AsyncEngine) -> set[str]:
    return {row.wait_id for row in await rows(engine, "SELECT wait_id FROM waits WHERE state = 'waiting'")}


class Published:
    """A publisher that remembers; ``fails`` of its calls raise first."""

    def __init__(self, fails: int = 0) -> None:
        self.batches: list[list[str]] = []
        self.fails = fails

    async def __call__(self, rows: Sequence[Any]) -> None:
        if self.fails:
            self.fails -= 1
            raise ConnectionError("no broker")
        self.batches.append([row.wait_id for row in rows])

    @property
    def names(self) -> list[str]:
        return [name for batch in self.batches for name in batch]
