"""Reading the ledger. Who asks about jobs and documents names the tenant; rows of another are as good as absent."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, TextClause, text

from medkg.contracts import topics
from medkg.contracts.errors import remedy_of
from medkg.storage.engine import Engine
from medkg.storage.ledger import CURRENT_STAGE, HEARD_OF
from medkg.storage.ledger_answers import (
    Counts,
    DeadLetterAnswer,
    FailureAnswer,
    FailureCount,
    FaultAnswer,
    Job,
    JobDocument,
    LetterDecided,
    LetterQuery,
    Overview,
    Pages,
    Pipeline,
    PositionAnswer,
    Rejection,
    StageCount,
    StageRun,
    Waiting,
)
from medkg.storage.transactions import translated

ALL_LETTERS = LetterQuery()
OPERATOR = "default"  # the tenant with which what belongs to nobody is shown
_ENDED = frozenset({"completed", "completed_with_failures", "rejected"})


class LedgerReader:
    """Answers from the ledger's tables.

    All methods raise ResourceUnavailableError when the database does not answer.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def job(self, tenant_id: str, job_id: str) -> Job | None:
        """One job whole: its stages in the order of the pipeline, what it waits for, and why documents failed."""
        found = await self._rows(_JOB, job=job_id, tenant=tenant_id)
        if not found:
            return None
        places = _places(await self.topology(found[0].pipeline_digest))
        stages = await self._rows(_JOB_STAGES, job=job_id)
        ordered = sorted(stages, key=lambda row: (places.get(row.stage, len(places)), row.stage))
        waiting = await self._rows(_JOB_WAITING, job=job_id)
        has_failures = found[0].failed + found[0].rejected > 0
        failures = await self._rows(_JOB_FAILURES, job=job_id) if has_failures else []
        return _job(
            found[0], tuple(map(_stage, ordered)), tuple(map(_waiting, waiting)), tuple(map(_failure_count, failures))
        )

    async def state_of(self, job_id: str) -> tuple[str, tuple[FaultAnswer, ...]] | None:
        """The state of a job, and why it was rejected where it was; None while the ledger has not heard of it."""
        found = await self._rows(_STATE, job=job_id)
        return (found[0].state, _faults(found[0].faults)) if found else None

    async def jobs(self, tenant_id: str, *, limit: int, before: str = "") -> tuple[list[Job], str]:
        """Jobs of a tenant, newest first, and the cursor of the next page (empty at the end).

        A long selection, or long faults, are not shown here but by :meth:`job`.
        """
        rows = await self._rows(_JOBS, tenant=tenant_id, limit=limit + 1, before=before)
        shown = rows[:limit]
        return [_job(row) for row in shown], shown[-1].job_id if len(rows) > limit else ""

    async def documents(
        self, tenant_id: str, job_id: str, *, state: str = "", limit: int, after: str = ""
    ) -> tuple[list[JobDocument], str]:
        """Documents of a job by id, and the cursor of the next page (empty at the end)."""
        rows = await self._rows(_DOCUMENTS, tenant=tenant_id, job=job_id, state=state, after=after, limit=limit + 1)
        shown = rows[:limit]
        return [_document(row) for row in shown], shown[-1].doc_id if len(rows) > limit else ""

    async def document(self, tenant_id: str, job_id: str, doc_id: str) -> JobDocument | None:
        """One document with every run of a stage on it, in the order in which they began."""
        found = await self._rows(_DOCUMENT, tenant=tenant_id, job=job_id, doc=doc_id)
        if not found:
            return None
        return _document(found[0], tuple(map(_run, await self._rows(_RUNS, job=job_id, doc=doc_id))))

    async def dead_letters(
        self, *, tenant_id: str | None = None, asked: LetterQuery = ALL_LETTERS, limit: int = 100
    ) -> list[DeadLetterAnswer]:
        """Messages that could not be handled, newest first: of a tenant, or (None) of everybody.

        A message that could not even be read names no tenant. Those are shown with the ones of :data:`OPERATOR`.
        """
        wanted = {name: getattr(asked, name) for name in LetterQuery.__slots__}
        return [_letter(row) for row in await self._rows(_LETTERS, tenants=_whose(tenant_id), limit=limit, **wanted)]

    async def rejections(self, *, tenant_id: str | None = None, limit: int = 100) -> list[Rejection]:
        """Job events that were refused, newest first; whose, as for :meth:`dead_letters`."""
        rows = await self._rows(_REJECTIONS, tenants=_whose(tenant_id), limit=limit)
        return [_rejection(row) for row in rows]

    async def topology(self, digest: str) -> str | None:
        """The canonical JSON of a pinned pipeline."""
        found = await self._rows(_TOPOLOGY, digest=digest)
        return found[0].canonical_json if found else None

    async def overview(self) -> Overview:
        """Counts over everything."""
        jobs = await self._rows(_COUNT_JOBS)
        waiting = await self._rows(_ALL_WAITING)
        others = (await self._rows(_COUNT_OTHERS))[0]
        totals = {name: sum(int(getattr(row, name)) for row in jobs) for name in _STATES}
        totals["in_flight"] = sum(int(row.documents) for row in jobs) - sum(totals.values())
        return Overview(
            jobs={row.state: row.jobs for row in jobs},
            documents=totals,
            waiting=tuple(map(_waiting, waiting)),
            rejections=others.rejections,
            dead_letters=others.dead_letters,
        )

    async def _rows(self, statement: TextClause, **parameters: Any) -> Sequence[Row[Any]]:
        async with translated("reading the ledger"), self._engine.connect() as connection:
            return (await connection.execute(statement, parameters)).all()


_STATES = ("completed", "skipped", "failed", "rejected")

_JOB_COLUMNS = """
job_id, tenant_id, source, state, pipeline_name, pipeline_version, pipeline_digest, admitted_at, rejected_at,
first_event_at, last_event_at, selection, faults, documents, completed, skipped, failed, rejected, pages_done,
last_page, total_records"""
# in a list, what could be long is left to the job itself: 1,000 jobs of 10,000 paths each fit into no answer
_SHORT = ", ".join(
    f"CASE WHEN length({name}) <= 4096 THEN {name} ELSE '' END AS {name}" for name in ("selection", "faults")
)
_JOB = text(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE job_id = :job AND tenant_id = :tenant")  # noqa: S608  a constant
_JOBS = text(f"""
SELECT {_JOB_COLUMNS.replace("selection, faults", _SHORT)} FROM jobs
WHERE tenant_id = :tenant AND (first_event_at, job_id) < (
  CASE WHEN :before = '' THEN CAST('infinity' AS timestamptz)
       ELSE (SELECT first_event_at FROM jobs WHERE job_id = :before AND tenant_id = :tenant) END, :before)
ORDER BY first_event_at DESC, job_id DESC LIMIT :limit""")  # noqa: S608  a constant
_STATE = text("SELECT state, faults FROM jobs WHERE job_id = :job")
_JOB_STAGES = text("SELECT * FROM job_stages WHERE job_id = :job")
_JOB_FAILURES = text("""
SELECT failure_code, failure_stage, count(*) AS documents FROM documents
WHERE job_id = :job AND state IN ('failed', 'rejected')
GROUP BY failure_stage, failure_code ORDER BY documents DESC, failure_stage, failure_code LIMIT 100""")
_WAITING_COLUMNS = """
kind, count(*) AS waits, min(arrived_at) AS oldest_since,
CASE kind WHEN 'page' THEN 'room for more documents of the tenant'
          WHEN 'gate' THEN stage || ': ' || max(ledger_field) || ' = ' || CAST(max(CAST(equals AS text)) AS text)
          ELSE stage || ': the other branches' END AS detail"""
_JOB_WAITING = text(f"""
SELECT {_WAITING_COLUMNS} FROM waits WHERE job_id = :job AND state = 'waiting' GROUP BY kind, stage
ORDER BY kind, stage""")  # noqa: S608  a constant
_ALL_WAITING = text(f"""
SELECT {_WAITING_COLUMNS} FROM waits WHERE state = 'waiting' GROUP BY kind, stage
ORDER BY kind, stage""")  # noqa: S608  a constant
_DOCUMENT_COLUMNS = f"""
d.doc_id, d.source_id, d.uri, d.state, {CURRENT_STAGE} AS current_stage, d.failure_at, d.failure_stage, d.failure_code,
d.failure_message"""
_DOCUMENTS = text(f"""
SELECT {_DOCUMENT_COLUMNS} FROM (
  SELECT * FROM documents
  WHERE job_id = :job AND tenant_id = :tenant AND state <> 'expected' AND doc_id > :after
    AND (:state = '' OR state = :state)
  ORDER BY doc_id LIMIT :limit) d {HEARD_OF} ORDER BY d.doc_id""")  # noqa: S608  constants
_DOCUMENT = text(f"""
SELECT {_DOCUMENT_COLUMNS} FROM documents d {HEARD_OF}
WHERE d.job_id = :job AND d.tenant_id = :tenant AND d.doc_id = :doc AND d.state <> 'expected'""")  # noqa: S608  constants
_RUNS = text("""
SELECT * FROM stage_runs WHERE job_id = :job AND doc_id = :doc
ORDER BY coalesce(started_at, finished_at - duration_us * interval '1 microsecond'),
         finished_at NULLS LAST, redrive, attempt, stage""")
_LETTERS = text("""
SELECT * FROM dead_letters
WHERE dead_at IS NOT NULL
  AND (CAST(:tenants AS text[]) IS NULL OR tenant_id = ANY (CAST(:tenants AS text[])))
  AND (:dead_letter_id = '' OR dead_letter_id = :dead_letter_id)
  AND (:job_id = '' OR job_id = :job_id) AND (:stage = '' OR stage = :stage) AND (:code = '' OR code = :code)
  AND (:state = '' OR state = :state)
  AND dead_at < coalesce(CAST(:died_before AS timestamptz), 'infinity')
  AND dead_at >= coalesce(CAST(:died_after AS timestamptz), '-infinity')
  AND (:following = '' OR (dead_at, :following) < (
    (SELECT dead_at FROM dead_letters WHERE dead_letter_id = :following), dead_letter_id))
ORDER BY dead_at DESC, dead_letter_id LIMIT :limit""")
_REJECTIONS = text("""
SELECT * FROM rejections
WHERE CAST(:tenants AS text[]) IS NULL OR tenant_id = ANY (CAST(:tenants AS text[]))
ORDER BY rejected_at DESC, rejection_id LIMIT :limit""")
_TOPOLOGY = text("SELECT canonical_json FROM topologies WHERE digest = :digest")
_COUNT_JOBS = text("""
SELECT state, count(*) AS jobs, sum(documents) AS documents, sum(completed) AS completed, sum(skipped) AS skipped,
       sum(failed) AS failed, sum(rejected) AS rejected FROM jobs GROUP BY state""")
_COUNT_OTHERS = text("""
SELECT (SELECT count(*) FROM rejections) AS rejections,
       (SELECT count(*) FROM dead_letters WHERE state = 'dead' AND dead_at IS NOT NULL) AS dead_letters""")


def _job(
    row: Row[Any],
    stages: tuple[StageCount, ...] = (),
    waiting: tuple[Waiting, ...] = (),
    failures: tuple[FailureCount, ...] = (),
) -> Job:
    ended = row.completed + row.skipped + row.failed + row.rejected
    return Job(
        job_id=row.job_id,
        tenant_id=row.tenant_id,
        source=row.source,
        state=row.state,
        pipeline=Pipeline(row.pipeline_name, row.pipeline_version, row.pipeline_digest) if row.pipeline_name else None,
        admitted_at=row.admitted_at,
        finished_at=row.last_event_at if row.state in _ENDED else None,
        selection=_object(row.selection),
        counts=Counts(row.documents, row.completed, row.skipped, row.failed, row.rejected, row.documents - ended),
        pages=Pages(row.pages_done, row.last_page >= 0, row.total_records),
        stages=stages,
        waiting=waiting,
        faults=_faults(row.faults),
        failures=failures,
    )


def _whose(tenant_id: str | None) -> list[str] | None:
    if tenant_id is None:
        return None
    return [tenant_id, ""] if tenant_id == OPERATOR else [tenant_id]


def _places(topology: str | None) -> dict[str, int]:
    """Where each stage stands in a pipeline; nowhere, if what is stored is not one."""
    try:
        stages = json.loads(topology or "{}")["stages"]
        return {stage["name"]: place for place, stage in enumerate(stages)}
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}


def _stage(row: Row[Any]) -> StageCount:
    mean = row.duration_us / row.completed / 1_000 if row.completed else None
    done = row.completed + row.reused
    return StageCount(
        row.stage, row.started, done, row.failed, row.retrying, row.reused, None if mean is None else round(mean, 3)
    )


def _waiting(row: Row[Any]) -> Waiting:
    return Waiting(row.kind, row.waits, row.oldest_since, row.detail or "")


def _failure_count(row: Row[Any]) -> FailureCount:
    return FailureCount(row.failure_code, row.failure_stage, row.documents, remedy_of(row.failure_code))


def _document(row: Row[Any], timeline: tuple[StageRun, ...] = ()) -> JobDocument:
    has_failed = row.state in ("failed", "rejected")  # and is not under way again after a redrive
    failure = FailureAnswer(row.failure_stage, row.failure_code, row.failure_message) if has_failed else None
    return JobDocument(row.doc_id, row.source_id, row.uri, row.state, row.current_stage, failure, timeline)


def _run(row: Row[Any]) -> StageRun:
    return StageRun(
        stage=row.stage,
        state="completed" if row.state == "reused" else row.state,
        attempt=row.attempt,
        redrive=row.redrive,
        started_at=row.started_at or _begun(row),
        finished_at=row.finished_at,
        duration_ms=row.duration_us / 1_000,
        reused=row.state == "reused",
        worker=row.worker or row.started_by,
        failure=FailureAnswer(row.stage, row.failure_code, row.failure_message) if row.failure_code else None,
    )


def _begun(row: Row[Any]) -> datetime | None:
    """When a run began whose start was never told, because it was over so soon."""
    return None if row.finished_at is None else row.finished_at - timedelta(microseconds=row.duration_us)


def _letter(row: Row[Any]) -> DeadLetterAnswer:
    return DeadLetterAnswer(
        id=row.dead_letter_id,
        job_id=row.job_id,
        tenant_id=row.tenant_id,
        doc_id=row.doc_id,
        stage=row.stage,
        attempt=row.attempt,
        code=row.code,
        message=row.message,
        causes=tuple(json.loads(row.causes or "[]")),
        disposition=row.disposition,
        worker=row.worker,
        position=PositionAnswer(row.topic, row.partition, row.offset),
        at=row.dead_at,
        redrive=row.redrive,
        worker_version=row.worker_version,
        state=row.state,
        letter=_letter_position(row),
        decided=_decided(row),
    )


def _letter_position(row: Row[Any]) -> PositionAnswer | None:
    if row.letter_offset is None:
        return None
    return PositionAnswer(topics.DEAD_LETTER, row.letter_partition, row.letter_offset)


def _decided(row: Row[Any]) -> LetterDecided | None:
    if row.redriven_at is not None:
        return LetterDecided(row.redriven_at, row.redriven_by, row.redriven_reason)
    if row.dropped_at is not None:
        return LetterDecided(row.dropped_at, row.dropped_by, row.dropped_reason)
    return None


def _rejection(row: Row[Any]) -> Rejection:
    position = PositionAnswer(row.topic, row.partition, row.offset) if row.topic else None
    return Rejection(row.job_id, row.tenant_id, _faults(row.faults), position, row.rejected_at)


def _faults(stored: str | None) -> tuple[FaultAnswer, ...]:
    return tuple(
        FaultAnswer(fault.get("pointer", ""), fault.get("message", ""), fault.get("hint", ""))
        for fault in (json.loads(stored) if stored else [])
    )


def _object(stored: str | None) -> dict[str, Any]:
    value = json.loads(stored) if stored else {}
    return value if isinstance(value, dict) else {}
