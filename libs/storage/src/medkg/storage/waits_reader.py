"""Reading what waits, and everything that explains it: who else waits, what was tried, what was decided by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, TextClause, text

from medkg.storage.engine import Engine
from medkg.storage.ledger import CURRENT_STAGE, FIRST_EVENT_AT, HEARD_OF, LAST_EVENT_AT
from medkg.storage.transactions import translated


@dataclass(frozen=True, slots=True)
class WaitEntry:
    """Something that waits, or (``state`` ``released``) waited.

    ``until`` is a gate's deadline or the time of a retry. ``late_at``: the condition came true after the deadline.
    ``reason`` says why it could not be released yet, or what ended it. ``ahead``: files a parser was asked for earlier.
    """

    wait_id: str
    kind: str
    state: str
    job_id: str
    doc_id: str
    stage: str
    since: datetime
    until: datetime | None
    waits_for: str
    on_timeout: str
    resume_stage: str
    arrived_from: str
    needed: int
    attempt: int
    file_sha256: str
    asked_at: datetime | None
    late_at: datetime | None
    reason: str
    next_topic: str = ""
    source_id: str = ""


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """What somebody did by hand to a wait, and why."""

    wait_id: str
    stage: str
    action: str
    who: str
    why: str
    at: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Company:
    """Who else waits for the same as a document: for its file, at its gate; and files asked for before."""

    same_file: int
    same_stage: int
    files_ahead: int


@dataclass(frozen=True, slots=True)
class DocumentPlace:
    """Where the ledger says that a document is."""

    job_id: str
    doc_id: str
    tenant_id: str
    source_id: str
    state: str
    current_stage: str
    last_event_at: datetime | None
    pipeline_digest: str
    failure_stage: str
    failure_code: str
    failure_message: str


@dataclass(frozen=True, slots=True)
class StuckStage:
    """Documents of a job that are under way at a stage and wait nowhere; ``doc_id`` is quiet the longest of them."""

    stage: str
    documents: int
    doc_id: str
    quiet_since: datetime | None


class WaitsReader:
    """Answers about waits. All methods raise ResourceUnavailableError when the database does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def listed(
        self, tenant_id: str, *, job_id: str = "", stage: str = "", kind: str = "", late: bool = False, limit: int = 100
    ) -> list[WaitEntry]:
        """What of a tenant waits, oldest first; ``late``: what ended without its condition, which came true since."""
        asked = {"tenant": tenant_id, "job": job_id, "stage": stage, "kind": kind, "late": late, "limit": limit}
        return [_entry(row) for row in await self._rows(_LISTED, **asked)]

    async def of_document(self, tenant_id: str, job_id: str, doc_id: str) -> list[WaitEntry]:
        """Every wait of a document that is on record, oldest first."""
        return [_entry(row) for row in await self._rows(_OF_DOCUMENT, tenant=tenant_id, job=job_id, doc=doc_id)]

    async def oldest_of_job(self, tenant_id: str, job_id: str) -> list[tuple[WaitEntry, int]]:
        """For each kind of wait and stage of a job: the one that waits longest, and how many do."""
        rows = await self._rows(_OLDEST, tenant=tenant_id, job=job_id)
        return [(_entry(row), row.documents) for row in rows]

    async def places(self, tenant_id: str, doc_id: str) -> list[DocumentPlace]:
        """Where a document is, in each job of the tenant that has it; the newest first."""
        return [_place(row) for row in await self._rows(_PLACES, tenant=tenant_id, doc=doc_id, job="")]

    async def place(self, tenant_id: str, job_id: str, doc_id: str) -> DocumentPlace | None:
        """Where a document of a job is."""
        found = await self._rows(_PLACES, tenant=tenant_id, doc=doc_id, job=job_id)
        return _place(found[0]) if found else None

    async def under_way(self, tenant_id: str, job_id: str) -> list[StuckStage]:
        """Where documents of a job are under way that wait nowhere, by stage."""
        rows = await self._rows(_UNDER_WAY, tenant=tenant_id, job=job_id)
        return [StuckStage(row.stage, row.documents, row.doc_id, row.quiet_since) for row in rows]

    async def actions(self, tenant_id: str, job_id: str, doc_id: str) -> list[OperatorAction]:
        """What was done by hand to the waits of a document, oldest first."""
        rows = await self._rows(_ACTIONS, tenant=tenant_id, job=job_id, doc=doc_id)
        return [OperatorAction(r.wait_id, r.stage, r.action, r.who, r.why, r.at, r.until) for r in rows]

    async def company(self, entry: WaitEntry, tenant_id: str) -> Company:
        """Who else waits for the same."""
        asked = {"tenant": tenant_id, "sha": entry.file_sha256, "kind": entry.kind, "stage": entry.stage}
        (row,) = await self._rows(_COMPANY, **asked, asked_at=entry.asked_at)
        return Company(max(row.same_file - 1, 0), max(row.same_stage - 1, 0), row.files_ahead)

    async def held_pages(self, tenant_id: str) -> tuple[int, int]:
        """Documents of a tenant under way, and the pages that wait for room."""
        (row,) = await self._rows(_HELD, tenant=tenant_id)
        return int(row.under_way), int(row.pages)

    async def _rows(self, statement: TextClause, **parameters: Any) -> Sequence[Row[Any]]:
        async with translated("reading what waits"), self._engine.connect() as connection:
            return (await connection.execute(statement, parameters)).all()


_WAITS_FOR = """
CASE w.kind WHEN 'gate' THEN w.ledger_field || ' = ' || CAST(w.equals AS text)
            WHEN 'join' THEN w.needed || ' branches' WHEN 'retry' THEN 'attempt ' || w.attempt
            WHEN 'page' THEN 'room for more documents of the tenant' ELSE 'its pinned pipeline' END"""
_COLUMNS = f"""
w.wait_id, w.kind, w.state, w.job_id, w.doc_id, w.stage, w.arrived_at AS since, w.due_at AS until,
{_WAITS_FOR} AS waits_for, w.on_timeout, w.resume_stage, w.arrived_from, w.needed, w.attempt, w.file_sha256,
w.asked_at, w.late_at, w.reason, w.next_topic, coalesce(d.source_id, '') AS source_id"""
_FROM = "FROM waits w LEFT JOIN documents d ON d.job_id = w.job_id AND d.doc_id = w.doc_id"
_LISTED = text(f"""
SELECT {_COLUMNS} {_FROM}
WHERE w.tenant_id = :tenant AND (:job = '' OR w.job_id = :job) AND (:stage = '' OR w.stage = :stage)
  AND (:kind = '' OR w.kind = :kind) AND (:kind <> '' OR w.kind <> 'page')
  AND CASE WHEN CAST(:late AS boolean) THEN w.state = 'released' AND w.late_at IS NOT NULL
           ELSE w.state = 'waiting' END
ORDER BY w.arrived_at, w.wait_id LIMIT :limit""")
_OF_DOCUMENT = text(f"""
SELECT {_COLUMNS} {_FROM} WHERE w.tenant_id = :tenant AND w.job_id = :job AND w.doc_id = :doc
ORDER BY w.arrived_at, w.wait_id LIMIT 200""")
_OLDEST = text(f"""
SELECT * FROM (
  SELECT {_COLUMNS}, count(*) OVER (PARTITION BY w.kind, w.stage) AS documents,
         row_number() OVER (PARTITION BY w.kind, w.stage ORDER BY w.arrived_at, w.wait_id) AS place
  {_FROM} WHERE w.tenant_id = :tenant AND w.job_id = :job AND w.state = 'waiting') w
WHERE w.place = 1 ORDER BY w.since""")  # noqa: S608  constants
_PLACES = text(f"""
SELECT d.job_id, d.doc_id, d.tenant_id, d.source_id, d.state, {CURRENT_STAGE} AS current_stage,
       {LAST_EVENT_AT} AS last_event_at,
       j.pipeline_digest, d.failure_stage, d.failure_code, d.failure_message
FROM documents d LEFT JOIN jobs j ON j.job_id = d.job_id {HEARD_OF}
WHERE d.tenant_id = :tenant AND d.doc_id = :doc AND d.state <> 'expected' AND (:job = '' OR d.job_id = :job)
ORDER BY {FIRST_EVENT_AT} DESC NULLS LAST, d.job_id LIMIT 20""")  # noqa: S608  constants
_UNDER_WAY = text(f"""
SELECT {CURRENT_STAGE} AS stage, count(*) AS documents, min({LAST_EVENT_AT}) AS quiet_since,
       (array_agg(d.doc_id ORDER BY {LAST_EVENT_AT}, d.doc_id))[1] AS doc_id
FROM documents d {HEARD_OF} WHERE d.tenant_id = :tenant AND d.job_id = :job AND d.state = 'in_flight'
  AND NOT EXISTS (SELECT 1 FROM waits w WHERE w.job_id = d.job_id AND w.doc_id = d.doc_id AND w.state = 'waiting')
GROUP BY 1 ORDER BY quiet_since LIMIT 20""")  # noqa: S608  constants
_ACTIONS = text("""
SELECT wait_id, stage, action, who, why, at, until FROM operator_actions
WHERE tenant_id = :tenant AND job_id = :job AND doc_id = :doc ORDER BY at LIMIT 100""")
_COMPANY = text("""
SELECT (SELECT count(*) FROM waits WHERE tenant_id = :tenant AND file_sha256 = :sha AND :sha <> ''
          AND state = 'waiting') AS same_file,
       (SELECT count(*) FROM waits WHERE tenant_id = :tenant AND kind = :kind AND stage = :stage
          AND state = 'waiting') AS same_stage,
       (SELECT count(DISTINCT file_sha256) FROM waits WHERE kind = 'gate' AND state = 'waiting' AND file_sha256 <> ''
          AND file_sha256 <> :sha AND asked_at < CAST(:asked_at AS timestamptz)) AS files_ahead""")
_HELD = text("""
SELECT coalesce((SELECT sum(documents - completed - skipped - failed - rejected) FROM jobs
                 WHERE tenant_id = :tenant AND state IN ('admitted', 'running')), 0) AS under_way,
       (SELECT count(*) FROM waits WHERE tenant_id = :tenant AND kind = 'page' AND state = 'waiting') AS pages""")


def _entry(row: Row[Any]) -> WaitEntry:
    return WaitEntry(**{name: getattr(row, name) for name in WaitEntry.__slots__})


def _place(row: Row[Any]) -> DocumentPlace:
    words = {name: getattr(row, name) or "" for name in DocumentPlace.__slots__ if name != "last_event_at"}
    return DocumentPlace(last_event_at=row.last_event_at, **words)
