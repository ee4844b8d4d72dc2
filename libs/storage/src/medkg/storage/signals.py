"""Signals: somebody says that a field of a document has become true, whether or not anybody waits for it yet."""

from dataclasses import dataclass

from sqlalchemy import Boolean, Column, DateTime, Table, Text, func, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medkg.storage.engine import METADATA
from medkg.storage.ledger_fields import set_field
from medkg.storage.transactions import in_transaction

KEEP_SECONDS = 30 * 86_400.0  # as long as a gate may wait
KEPT_FIELDS = frozenset({"pdf_downloaded", "pdf_ir_ready", "pdf_ir_failed"})
_TEXT = Text(collation="C")

KEPT_SIGNALS = Table(
    "kept_signals",
    METADATA,
    Column("tenant_id", _TEXT, primary_key=True),
    Column("doc_id", _TEXT, primary_key=True),
    Column("ledger_field", _TEXT, primary_key=True),
    Column("value", Boolean, nullable=False, server_default=text("true")),
    Column("kept_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("deadline", DateTime(timezone=True), nullable=False),
)


@dataclass(frozen=True, slots=True)
class SignalTaken:
    """What became of a signal: in how many jobs the document is, and whether it is kept for one that brings it."""

    jobs: int
    is_kept: bool


async def signal(
    engine: AsyncEngine,
    tenant_id: str,
    doc_id: str,
    field: str,
    *,
    job_id: str | None = None,
    keep_seconds: float = KEEP_SECONDS,
) -> SignalTaken:
    """Say that a gate field of a document is true: in one job, or (``job_id`` None) in all jobs of the tenant.

    Wakes the gate-router. May be said again. Of a document that no job knows the signal is kept for ``keep_seconds``,
    and is its own when it comes to a gate.

    Raises:
        ValueError: there is no such field.
        ResourceUnavailableError: the database does not answer.
    """
    jobs = await set_field(engine, tenant_id, job_id, doc_id, field, True)
    if jobs or field not in KEPT_FIELDS:
        return SignalTaken(jobs, is_kept=False)
    values = {"tenant_id": tenant_id, "doc_id": doc_id, "field": field, "seconds": keep_seconds}

    async def keep(connection: AsyncConnection) -> None:
        await connection.execute(_KEEP, values)

    await in_transaction(engine, f"keeping {field}", keep)
    # A job may have brought the document while the signal was being kept.
    jobs = await set_field(engine, tenant_id, job_id, doc_id, field, True)
    return SignalTaken(jobs, is_kept=True)


_KEEP = text("""
INSERT INTO kept_signals AS old (tenant_id, doc_id, ledger_field, deadline)
VALUES (:tenant_id, :doc_id, :field, now() + CAST(:seconds AS double precision) * interval '1 second')
ON CONFLICT (tenant_id, doc_id, ledger_field) DO UPDATE SET deadline = GREATEST(old.deadline, excluded.deadline)""")
