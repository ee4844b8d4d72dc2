"""What may be lost: documents and pages of the ledger about which nothing has been heard for long."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from medkg.storage.engine import Engine
from medkg.storage.ledger import CURRENT_STAGE, FIRST_EVENT_AT, HEARD_OF, LAST_EVENT_AT
from medkg.storage.transactions import in_transaction, translated

_LOCK = 0x6C6F7374  # "lost": one process at a time looks for what is lost


@dataclass(frozen=True, slots=True)
class HeldWait:
    """A row of ``waits`` of a document: a gate (``branch`` empty), a branch at a join, or a retry."""

    wait_id: str
    kind: str
    stage: str
    branch: str
    is_waiting: bool


@dataclass(frozen=True, slots=True)
class Suspect:
    """A document that is under way and of which nothing was heard since ``last_event_at``.

    ``page_wait`` is the row by which its page of the source was asked for, where it is still there.
    """

    job_id: str
    doc_id: str
    tenant_id: str
    digest: str
    current_stage: str
    last_event_at: datetime
    first_event_at: datetime
    completed: frozenset[str]
    finished_leaves: frozenset[str]
    waits: tuple[HeldWait, ...]
    page_wait: str
    is_page_waiting: bool


@dataclass(frozen=True, slots=True)
class SuspectPage:
    """A page of a source that was asked for and never came. ``wait_id`` is the row to ask again with."""

    job_id: str
    number: int
    wait_id: str
    why: str


async def suspects(
    engine: Engine, *, older_than_seconds: float, documents: Sequence[tuple[str, str]] = ()
) -> list[Suspect]:
    """Documents under way of which nothing was heard for so long, oldest first; of ``documents`` only, if any.

    Raises:
        ResourceUnavailableError: the database does not answer.
    """
    keys = {"jobs": [job for job, _ in documents], "docs": [doc for _, doc in documents]}
    async with translated("looking for what is lost"), engine.connect() as connection:
        rows = await connection.execute(
            _SUSPECTS, {"seconds": older_than_seconds, "is_any": not documents, "limit": 100_000} | keys
        )
        return [_suspect(row) for row in rows]


async def suspect_pages(engine: Engine, *, older_than_seconds: float) -> list[SuspectPage]:
    """Pages that were handed out so long ago and are neither read nor failed, or are followed by none.

    Raises:
        ResourceUnavailableError: the database does not answer.
    """
    async with translated("looking for what is lost"), engine.connect() as connection:
        rows = await connection.execute(_PAGES, {"seconds": older_than_seconds})
        return [SuspectPage(row.job_id, row.page, row.wait_id, row.why) for row in rows]


async def unended_runs(engine: Engine, *, older_than_seconds: float) -> dict[str, int]:
    """By stage, runs that began so long ago and never ended although their document did: their worker died.

    Raises:
        ResourceUnavailableError: the database does not answer.
    """
    async with translated("looking for what is lost"), engine.connect() as connection:
        rows = await connection.execute(_UNENDED, {"seconds": older_than_seconds})
        return {row.stage: row.runs for row in rows}


@asynccontextmanager
async def only_one(engine: Engine) -> AsyncIterator[bool]:
    """Whether this process alone looks for what is lost, for as long as the block lasts.

    Raises:
        ResourceUnavailableError: the database does not answer.
    """
    async with translated("looking for what is lost"), engine.begin() as connection:
        yield bool(await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _LOCK}))


async def held_texts(engine: Engine) -> AsyncIterator[str]:
    """Everything in the database that may name a key of the blob store: requests that wait, and files that were parsed.

    Raises:
        ResourceUnavailableError: the database does not answer.
    """
    async with translated("looking for what is referred to"), engine.connect() as connection:
        for statement in (_REQUESTS, _PARSED):
            async for row in await connection.stream(statement):
                yield row[0]


async def let_wait_again(engine: Engine, wait_ids: Sequence[str]) -> int:
    """Let these be released once more. Returns how many were not waiting already.

    Raises:
        ResourceUnavailableError: the database does not answer.
    """

    async def write(connection: Any) -> int:
        return int((await connection.execute(_AGAIN, {"ids": sorted(set(wait_ids))})).rowcount)

    return await in_transaction(engine, "letting what is lost wait again", write)


def _suspect(row: Any) -> Suspect:
    return Suspect(
        job_id=row.job_id,
        doc_id=row.doc_id,
        tenant_id=row.tenant_id,
        digest=row.pipeline_digest,
        current_stage=row.current_stage,
        last_event_at=row.last_event_at,
        first_event_at=row.first_event_at,
        completed=frozenset(row.completed or ()),
        finished_leaves=frozenset(row.finished_leaves),
        waits=tuple(HeldWait(*held) for held in row.held or ()),
        page_wait=row.page_wait or "",
        is_page_waiting=bool(row.is_page_waiting),
    )


_SUSPECTS = text(f"""
SELECT d.job_id, d.doc_id, d.tenant_id, j.pipeline_digest, {CURRENT_STAGE} AS current_stage,
       {LAST_EVENT_AT} AS last_event_at, {FIRST_EVENT_AT} AS first_event_at,
       d.finished_leaves,
       (SELECT array_agg(DISTINCT r.stage) FROM stage_runs r
        WHERE r.job_id = d.job_id AND r.doc_id = d.doc_id AND r.outcome = 1) AS completed,
       (SELECT jsonb_agg(jsonb_build_array(w.wait_id, w.kind, w.stage, w.arrived_from, w.state = 'waiting'))
        FROM waits w WHERE w.job_id = d.job_id AND w.doc_id = d.doc_id) AS held,
       p.wait_id AS page_wait, p.state = 'waiting' AS is_page_waiting
FROM documents d JOIN jobs j USING (job_id) {HEARD_OF}
LEFT JOIN LATERAL (
  SELECT wait_id, state FROM waits w WHERE w.job_id = d.job_id AND w.kind = 'page' AND w.page = d.page_number
  ORDER BY w.state = 'waiting' DESC LIMIT 1) p ON true
WHERE d.state = 'in_flight' AND j.state IN ('admitted', 'running')
  AND coalesce(d.last_event_at, '-infinity') < now() - :seconds * interval '1 second'  -- so that few are looked up
  AND {LAST_EVENT_AT} < now() - :seconds * interval '1 second'
  AND (:is_any OR (d.job_id, d.doc_id) IN (
    SELECT * FROM unnest(CAST(:jobs AS text[]), CAST(:docs AS text[]))))
ORDER BY last_event_at, d.job_id, d.doc_id LIMIT :limit""")  # noqa: S608  constants
_PAGES = text("""
SELECT w.job_id, w.page, w.wait_id,
       CASE WHEN p.job_id IS NULL OR p.state = 'open' THEN 'it was asked for and never read'
            ELSE 'the page after it was never asked for' END AS why
FROM waits w LEFT JOIN jobs j USING (job_id) LEFT JOIN pages p ON p.job_id = w.job_id AND p.number = w.page
WHERE w.kind = 'page' AND w.state = 'released' AND coalesce(j.state, 'admitted') IN ('admitted', 'running')
  AND greatest(w.released_at, p.done_at, p.failure_at) < now() - :seconds * interval '1 second'
  AND (p.job_id IS NULL OR p.state = 'open'
       OR (p.is_done AND NOT p.is_last
           AND NOT EXISTS (SELECT 1 FROM pages q WHERE q.job_id = w.job_id AND q.number = w.page + 1)
           AND NOT EXISTS (
             SELECT 1 FROM waits v WHERE v.job_id = w.job_id AND v.kind = 'page' AND v.page = w.page + 1)))
ORDER BY w.job_id, w.page""")
_UNENDED = text("""
SELECT r.stage, count(*) AS runs FROM stage_runs r
LEFT JOIN documents d ON d.job_id = r.job_id AND d.doc_id = r.doc_id
LEFT JOIN pages p ON p.job_id = r.job_id AND r.doc_id = '' AND p.number = r.page
WHERE r.outcome IS NULL AND r.started_at < now() - :seconds * interval '1 second'
  AND coalesce(d.state, p.state, 'in_flight') NOT IN ('in_flight', 'open')
GROUP BY r.stage ORDER BY r.stage""")
_REQUESTS = text("SELECT request FROM waits")
_PARSED = text("""SELECT '"key":"' || document_key || '"' FROM parsed_files WHERE document_key <> ''""")
_AGAIN = text("""
UPDATE waits SET state = 'waiting', released_at = NULL, reason = 'lost'
WHERE wait_id = ANY (CAST(:ids AS text[])) AND state = 'released'""")
