"""The direct way into the ledger: the gate fields that a PDF service or an operator sets."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medkg.storage.ledger import GATE_FIELDS
from medkg.storage.ledger_projection import notify
from medkg.storage.transactions import in_transaction


async def set_field(
    engine: AsyncEngine, tenant_id: str, job_id: str | None, doc_id: str, field: str, value: bool
) -> int:
    """Set a gate field of a document, in one job or (``job_id`` None) in every job of the tenant that has it.

    Wakes the gate-router. With a job the signal may come before the document does: it is kept until then. Returns the
    number of rows it is set on: 0 means that no job of this tenant knows the document.

    Raises:
        ValueError: there is no such field.
        ResourceUnavailableError: the database does not answer.
    """
    if field not in GATE_FIELDS:
        raise ValueError(f"setting {field!r}: not a field that can be set; known: {', '.join(sorted(GATE_FIELDS))}")
    values = {"tenant_id": tenant_id, "doc_id": doc_id, "value": value}
    if job_id is None:
        statement = text(f"""
            UPDATE documents SET {field} = :value WHERE (job_id, doc_id) IN (
              SELECT job_id, doc_id FROM documents WHERE tenant_id = :tenant_id AND doc_id = :doc_id
              ORDER BY job_id, doc_id FOR UPDATE)
            RETURNING job_id""")  # noqa: S608  the field is one of GATE_FIELDS
    else:
        statement = text(f"""
            INSERT INTO documents AS old (job_id, doc_id, tenant_id, {field})
            VALUES (:job_id, :doc_id, :tenant_id, :value)
            ON CONFLICT (job_id, doc_id) DO UPDATE SET {field} = excluded.{field}
            WHERE old.tenant_id = excluded.tenant_id
            RETURNING job_id""")  # noqa: S608  the same
        values["job_id"] = job_id

    async def write(connection: AsyncConnection) -> int:
        jobs = (await connection.execute(statement, values)).scalars().all()
        await notify(connection, (), ((job, doc_id) for job in jobs))
        return len(jobs)

    return await in_transaction(engine, f"setting {field}", write)
