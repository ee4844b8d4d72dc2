"""The tables of the gate-router: which jobs were admitted, and everything that waits.

A wait is a row: a page of a source held until its tenant has room, a document at a gate, a branch at a join.
Releasing is always: lock the rows that are due (``FOR UPDATE SKIP LOCKED``), publish, wait for delivery, mark,
commit. A router that dies in between leaves the rows as they were; what it had published already is recognised by its
deterministic id. Any number of routers may work on the same tables.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, Row, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medkg.storage.engine import METADATA

_TEXT = Text(collation="C")  # the ledger's: rows of both are joined by their names
_PAGE_LOCK = 0x70616765  # "page": one router at a time counts a tenant's documents and hands out room

ADMISSIONS = Table(
    "admissions",
    METADATA,
    Column("job_id", _TEXT, primary_key=True),
    Column("tenant_id", _TEXT, nullable=False),
    Column("digest", _TEXT, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

WAITS = Table(
    "waits",
    METADATA,
    Column("wait_id", _TEXT, primary_key=True),
    Column("kind", _TEXT, nullable=False),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("tenant_id", _TEXT, nullable=False),
    Column("job_id", _TEXT, nullable=False),
    Column("doc_id", _TEXT, nullable=False),
    Column("stage", _TEXT, nullable=False),
    Column("page", BigInteger, nullable=False),
    Column("arrived_from", _TEXT, nullable=False),
    Column("needed", Integer, nullable=False),  # page: how many documents it may bring; join: how many branches
    Column("ledger_field", Text),
    Column("equals", JSONB),
    Column("due_at", DateTime(timezone=True)),  # when a gate's patience ends
    Column("arrived_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("released_at", DateTime(timezone=True)),
    Column("reason", Text, nullable=False, server_default=""),
    Column("request", Text, nullable=False),  # the StageRequest as it came, JSON
    Column("origin", Text, nullable=False),  # envelope and position it came with, JSON
    Index("waits_by_job", "job_id", "doc_id"),
    Index("waits_waiting", "kind", "arrived_at", postgresql_where=text("state = 'waiting'")),
    Index("waits_due", "due_at", postgresql_where=text("state = 'waiting' AND due_at IS NOT NULL")),
    Index("waits_handed_out", "job_id", "page", postgresql_where=text("kind = 'page' AND state = 'released'")),
)


class WaitKind(StrEnum):
    PAGE = "page"
    GATE = "gate"
    JOIN = "join"


@dataclass(frozen=True, slots=True)
class Admission:
    """A job that was let in, and the topology it is pinned to."""

    job_id: str
    tenant_id: str
    digest: str
    revision: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Something that waits. ``timeout_seconds`` counts from its arrival; ``equals`` is JSON."""

    wait_id: str
    kind: WaitKind
    tenant_id: str
    job_id: str
    doc_id: str
    stage: str
    page: int
    arrived_from: str
    needed: int
    request: str
    origin: str
    ledger_field: str | None = None
    equals: str | None = None
    timeout_seconds: float | None = None


Publish = Callable[[Sequence[Row[tuple[object, ...]]]], Awaitable[None]]


class Waits:
    """Everything the gate-router keeps in PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def admit(self, admissions: Sequence[Admission]) -> dict[str, Admission]:
        """Record admissions; a job that was admitted before keeps what it was pinned to then. By job id."""
        if not admissions:
            return {}
        async with self._engine.begin() as connection:
            rows = [{name: getattr(item, name) for name in Admission.__slots__} for item in admissions]
            await connection.execute(pg_insert(ADMISSIONS).on_conflict_do_nothing(), rows)
            ids = [item.job_id for item in admissions]
            found = await connection.execute(ADMISSIONS.select().where(ADMISSIONS.c.job_id.in_(ids)))
            return {row.job_id: Admission(row.job_id, row.tenant_id, row.digest, row.revision) for row in found}

    async def park(self, waits: Sequence[Wait]) -> None:
        """Let these wait. One that is known already stays as it is: waiting, or released long ago."""
        if not waits:
            return
        columns = {name: [getattr(wait, name) for wait in waits] for name in Wait.__slots__}
        async with self._engine.begin() as connection:
            await connection.execute(_PARK, columns)

    async def release_pages(self, publish: Publish, *, tenant_bound: int, limit: int = 50) -> int:
        """Hand out pages to tenants that have room: fewer than ``tenant_bound`` documents under way.

        Under way are documents of unfinished jobs that are not terminal, and the most that pages handed out before can
        still bring. Tenants take turns, page by page; within a tenant the page that came first goes first.
        """
        async with self._engine.begin() as connection:
            locked = await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _PAGE_LOCK})
            if not locked:
                return 0
            rows = (await connection.execute(_DUE_PAGES, {"bound": tenant_bound, "limit": limit})).all()
            return await self._release(connection, rows, publish, "room")

    async def release_gates(self, publish: Publish, *, limit: int = 500) -> int:
        """Release documents whose ledger says what their gate waits for."""
        async with self._engine.begin() as connection:
            rows = (await connection.execute(_DUE_GATES, {"limit": limit})).all()
            return await self._release(connection, rows, publish, "condition")

    async def release_expired(self, publish: Publish, *, limit: int = 500) -> int:
        """Hand over documents whose gate has run out of patience."""
        async with self._engine.begin() as connection:
            rows = (await connection.execute(_EXPIRED_GATES, {"limit": limit})).all()
            return await self._release(connection, rows, publish, "timeout")

    async def release_joins(self, publish: Publish, *, limit: int = 1_500) -> int:
        """Release documents whose branches have all come; ``publish`` is given all rows, branch beside branch."""
        async with self._engine.begin() as connection:
            rows = (await connection.execute(_COMPLETE_JOINS, {"limit": limit})).all()
            return await self._release(connection, rows, publish, "all branches")

    async def forget_finished(self) -> int:
        """Remove the waits of jobs that have ended."""
        async with self._engine.begin() as connection:
            return (await connection.execute(_FORGET)).rowcount

    async def restore_lost(self) -> int:
        """Let everything wait again whose message may be gone with a broker that keeps nothing.

        That is: gates and joins that were released for documents still under way, and pages that are not in the
        ledger, that asked for a next page which never came, or that have documents under way which wait nowhere, or
        only for a branch that is gone too. Doing work again that was done has no effect.
        """
        async with self._engine.begin() as connection:
            gates = (await connection.execute(_RESTORE_DOCUMENTS)).rowcount
            pages = (await connection.execute(_RESTORE_PAGES)).rowcount
            return gates + pages

    async def _release(
        self, connection: AsyncConnection, rows: Sequence[Row[tuple[object, ...]]], publish: Publish, reason: str
    ) -> int:
        if not rows:
            return 0
        await publish(rows)
        await connection.execute(_MARK, {"ids": [row.wait_id for row in rows], "reason": reason})
        return len(rows)


_PARK = text("""
INSERT INTO waits (wait_id, kind, tenant_id, job_id, doc_id, stage, page, arrived_from, needed, request, origin,
                   ledger_field, equals, due_at)
SELECT wait_id, kind, tenant_id, job_id, doc_id, stage, page, arrived_from, needed, request, origin,
       ledger_field, CAST(equals AS jsonb), now() + timeout_seconds * interval '1 second'
FROM unnest(CAST(:wait_id AS text[]), CAST(:kind AS text[]), CAST(:tenant_id AS text[]), CAST(:job_id AS text[]),
            CAST(:doc_id AS text[]), CAST(:stage AS text[]), CAST(:page AS bigint[]), CAST(:arrived_from AS text[]),
            CAST(:needed AS int[]), CAST(:request AS text[]), CAST(:origin AS text[]), CAST(:ledger_field AS text[]),
            CAST(:equals AS text[]), CAST(:timeout_seconds AS double precision[]))
  AS new (wait_id, kind, tenant_id, job_id, doc_id, stage, page, arrived_from, needed, request, origin,
          ledger_field, equals, timeout_seconds)
ORDER BY wait_id
ON CONFLICT (wait_id) DO NOTHING""")

_DUE_PAGES = text("""
WITH under_way AS (
  SELECT tenant_id, sum(documents - completed - skipped - failed - rejected) AS documents
  FROM jobs WHERE state IN ('admitted', 'running') GROUP BY tenant_id
), handed_out AS (
  SELECT w.tenant_id, sum(w.needed) AS documents
  FROM waits w LEFT JOIN pages p ON p.job_id = w.job_id AND p.number = w.page
  WHERE w.kind = 'page' AND w.state = 'released' AND p.job_id IS NULL GROUP BY w.tenant_id
), in_line AS (
  SELECT wait_id, row_number() OVER (PARTITION BY tenant_id ORDER BY arrived_at, wait_id) AS place
  FROM waits WHERE kind = 'page' AND state = 'waiting'
)
SELECT w.* FROM waits w JOIN in_line l USING (wait_id)
LEFT JOIN under_way u USING (tenant_id) LEFT JOIN handed_out h USING (tenant_id)
WHERE coalesce(u.documents, 0) + coalesce(h.documents, 0) + (l.place - 1) * w.needed < :bound
ORDER BY l.place, w.arrived_at, w.wait_id
LIMIT :limit FOR UPDATE OF w SKIP LOCKED""")

# The fields of a document that a gate may wait for, beside the retries of a stage.
GATE_COLUMNS = (
    "pdf_ir_ready",
    "pdf_ir_failed",
    "pdf_downloaded",
    "post_pdf_started",
    "current_stage",
    "pipeline_name",
    "pipeline_version",
)
_CASES = "\n      ".join(f"WHEN '{name}' THEN to_jsonb(d.{name})" for name in GATE_COLUMNS)

# What is looked through is narrow: only rows that are due are fetched whole.
_DUE_GATES = text(f"""
SELECT w.* FROM waits w
WHERE w.state = 'waiting' AND w.wait_id IN (
  SELECT n.wait_id FROM waits n JOIN documents d ON d.job_id = n.job_id AND d.doc_id = n.doc_id
  WHERE n.kind = 'gate' AND n.state = 'waiting'
    AND n.equals = CASE n.ledger_field
      {_CASES}
      ELSE d.retry_count_per_stage -> substr(n.ledger_field, length('retry_count_per_stage.') + 1)
    END)
ORDER BY w.arrived_at LIMIT :limit FOR UPDATE OF w SKIP LOCKED""")  # noqa: S608  constants

_EXPIRED_GATES = text("""
SELECT w.* FROM waits w WHERE w.kind = 'gate' AND w.state = 'waiting' AND w.due_at <= now()
ORDER BY w.due_at LIMIT :limit FOR UPDATE OF w SKIP LOCKED""")

_COMPLETE_JOINS = text("""
SELECT w.* FROM waits w
WHERE w.kind = 'join' AND w.state = 'waiting' AND (w.job_id, w.doc_id, w.stage) IN (
  SELECT job_id, doc_id, stage FROM waits WHERE kind = 'join' AND state = 'waiting'
  GROUP BY job_id, doc_id, stage HAVING count(*) >= max(needed) ORDER BY max(arrived_at) LIMIT :limit)
ORDER BY w.job_id, w.doc_id, w.stage, w.arrived_from FOR UPDATE OF w""")

_MARK = text("""
UPDATE waits SET state = 'released', released_at = now(), reason = :reason
WHERE wait_id = ANY (CAST(:ids AS text[]))""")

_FORGET = text("""
DELETE FROM waits w USING jobs j
WHERE j.job_id = w.job_id AND j.state IN ('completed', 'completed_with_failures', 'rejected')""")

_RESTORE_DOCUMENTS = text("""
UPDATE waits w SET state = 'waiting', released_at = NULL, reason = 'restored'
FROM documents d
WHERE d.job_id = w.job_id AND d.doc_id = w.doc_id AND d.state = 'in_flight'
  AND w.kind IN ('gate', 'join') AND w.state = 'released'""")

_RESTORE_PAGES = text("""
UPDATE waits w SET state = 'waiting', released_at = NULL, reason = 'restored'
WHERE w.kind = 'page' AND w.state = 'released' AND (
  NOT EXISTS (SELECT 1 FROM pages p WHERE p.job_id = w.job_id AND p.number = w.page)
  OR EXISTS (
    SELECT 1 FROM pages p
    WHERE p.job_id = w.job_id AND p.number = w.page AND p.is_done AND NOT p.is_last
      AND NOT EXISTS (SELECT 1 FROM pages q WHERE q.job_id = w.job_id AND q.number = w.page + 1)
      AND NOT EXISTS (
        SELECT 1 FROM waits v WHERE v.job_id = w.job_id AND v.kind = 'page' AND v.page = w.page + 1))
  OR EXISTS (
    SELECT 1 FROM documents d
    WHERE d.job_id = w.job_id AND d.page_number = w.page AND d.state = 'in_flight'
      AND NOT EXISTS (
        SELECT 1 FROM waits v
        WHERE v.job_id = d.job_id AND v.doc_id = d.doc_id AND v.state = 'waiting'
        GROUP BY v.kind, v.stage HAVING v.kind = 'gate' OR count(*) >= max(v.needed))))""")
