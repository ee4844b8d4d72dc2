"""The projection: lifecycle events into the ledger, in bulk.

One batch is one transaction of a handful of statements. Each merges arrays of rows by the rules of
:mod:`medkg.storage.ledger_rows` and answers with the steps from state to state that it caused, by job; the counters
are changed by exactly those. Rows are locked table by table and in the order of their keys, so that writers wait for
each other rather than deadlock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medkg.contracts.cloudevents import Envelope
from medkg.contracts.messages import JobCompleted
from medkg.storage.ledger import CHANNEL, JOB_COUNTERS
from medkg.storage.ledger_facts import Facts, RefusedEvent, facts_of
from medkg.storage.ledger_memory import DocumentMemory
from medkg.storage.ledger_merge import MergedTable, Row
from medkg.storage.ledger_rows import (
    DOCUMENT_FAILURES,
    DOCUMENT_ORIGINS,
    DOCUMENTS,
    JOB_STAGES,
    JOBS,
    LETTER_DECISIONS,
    PAGES,
    REJECTIONS,
    STAGE_RUNS,
    TOPOLOGIES,
)
from medkg.storage.transactions import in_transaction

MAX_NOTICED = 100  # jobs and documents named in one notice: PostgreSQL refuses notices of 8,000 bytes
_MAX_NOTICE_BYTES = 7_900
_TERMINAL = frozenset(JOB_COUNTERS) - {"documents"}
_SETTLED = ("done", "failed")  # pages that a job does not wait for
_ENDED = ("completed", "completed_with_failures")


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A job that has come to its end, with the time of its last event.

    ``redrives``: how many dead letters of it were redriven before. A job may end once more after each.
    """

    completed: JobCompleted
    finished_at: datetime
    redrives: int = 0


@dataclass(frozen=True, slots=True)
class ProjectionResult:
    """What became of a batch.

    ``finished`` are the jobs that the batch spoke of and that are at their end now, whether this batch or an earlier
    one brought them there: a batch that is projected again, because its messages were never published, names them
    again.
    """

    finished: tuple[FinishedJob, ...]
    refused: tuple[RefusedEvent, ...]


async def project(
    engine: AsyncEngine, events: Sequence[tuple[Envelope, bytes]], memory: DocumentMemory | None = None
) -> ProjectionResult:
    """Merge a batch of events of ``orchestration.events.v1`` into the ledger, in one transaction.

    Idempotent, and the rows do not depend on the order or the batching of the events. Events that cannot be read are
    left out and named in the result; events of no interest to the ledger are passed over. Whoever listens on
    ``medkg_ledger`` is told of jobs whose documents ended and of documents that may pass a gate. ``memory`` spares
    writes that would change nothing; it belongs to one ledger, and changes no row.

    Raises:
        ResourceUnavailableError: the database does not answer; the same batch may be given again.
    """
    facts = facts_of(events)
    memory = memory or DocumentMemory()
    facts.documents = memory.news(facts.documents)
    finished: tuple[FinishedJob, ...] = ()
    if facts.jobs or facts.rejections or facts.decisions:
        finished = await in_transaction(engine, "projecting events", lambda connection: _write(connection, facts))
    memory.committed(facts.origins, facts.documents)
    return ProjectionResult(finished, tuple(facts.refused))


async def notify(connection: AsyncConnection, jobs: Iterable[str], documents: Iterable[tuple[str, str]]) -> None:
    """Tell the listeners, once this transaction commits, that something changed for these jobs and documents.

    The notice is JSON ``{"jobs": [id…], "documents": [[job id, document id]…], "truncated"?: true}``; where there is
    more than it can hold it names what fits and says so.
    """
    all_jobs, all_documents = sorted(set(jobs)), sorted(set(documents))
    if not all_jobs and not all_documents:
        return
    notice: dict[str, object] = {"jobs": all_jobs[:MAX_NOTICED], "documents": all_documents[:MAX_NOTICED]}
    if len(all_jobs) > MAX_NOTICED or len(all_documents) > MAX_NOTICED:
        notice["truncated"] = True
    payload = msgspec.json.encode(notice)
    if len(payload) > _MAX_NOTICE_BYTES:
        payload = b'{"jobs":[],"documents":[],"truncated":true}'
    await connection.execute(_NOTIFY, {"channel": CHANNEL, "payload": payload.decode()})


async def _write(connection: AsyncConnection, facts: Facts) -> tuple[FinishedJob, ...]:
    documents = [
        *await _merge(connection, _MERGE_ORIGINS, DOCUMENT_ORIGINS, facts.origins),
        *await _merge(connection, _MERGE_DOCUMENTS, DOCUMENTS, facts.documents),
        *await _merge(connection, _MERGE_FAILURES, DOCUMENT_FAILURES, facts.failures),
    ]
    runs = await _merge(connection, _MERGE_RUNS, STAGE_RUNS, facts.runs)
    pages = await _merge(connection, _MERGE_PAGES, PAGES, facts.pages)
    await _merge(connection, _MERGE_JOB_STAGES, JOB_STAGES, _stage_rows(runs))
    letters = await _merge(connection, _MERGE_DECISIONS, LETTER_DECISIONS, facts.decisions)
    changed = _job_rows(facts.jobs, documents, pages, letters)
    jobs = await _merge(connection, _MERGE_JOBS, JOBS, changed)
    await _merge(connection, _MERGE_TOPOLOGIES, TOPOLOGIES, facts.topologies)
    await _merge(connection, _MERGE_REJECTIONS, REJECTIONS, facts.rejections)
    await notify(connection, (step["job_id"] for step in documents if step["state"] in _TERMINAL), facts.gated)
    return tuple(_finished(job) for job in jobs if job["state"] in _ENDED)


async def _merge(
    connection: AsyncConnection, statement: TextClause, table: MergedTable, rows: Mapping[Any, Row]
) -> Sequence[RowMapping]:
    if not rows:
        return ()
    result = await connection.execute(statement, table.parameters(rows.values()))
    return result.mappings().all() if result.returns_rows else ()


def _job_rows(
    jobs: Mapping[str, Row], documents: Sequence[RowMapping], pages: Sequence[RowMapping], letters: Sequence[RowMapping]
) -> dict[str, Row]:
    """The rows of the jobs with their counters: how far documents, pages and redriven letters have moved them."""
    rows = {job_id: row.copy() for job_id, row in jobs.items()}
    for step in documents:
        row, count = rows[step["job_id"]], step["count"]
        if step["state_before"] in ("", "expected"):
            row[_COUNTER["documents"]] += count
        if step["state_before"] in _TERMINAL:
            row[_COUNTER[step["state_before"]]] -= count
        if step["state"] in _TERMINAL:
            row[_COUNTER[step["state"]]] += count
    for step in pages:
        row, count = rows[step["job_id"]], step["count"]
        if step["state"] in _SETTLED:
            row[_COUNTER[f"pages_{step['state']}"]] += count
        if step["state_before"] in _SETTLED:
            row[_COUNTER[f"pages_{step['state_before']}"]] -= count
    for step in letters:
        if step["job_id"] in rows:
            rows[step["job_id"]][_COUNTER["redrives"]] += step["count"]
    return rows


def _stage_rows(runs: Sequence[RowMapping]) -> dict[tuple[str, str], Row]:
    """How far runs have moved the counters of their stages. ``started`` counts every run there is."""
    rows: dict[tuple[str, str], Row] = {}
    for step in runs:
        row: Row = [step["job_id"], step["stage"], step["stage_type"], 0, 0, 0, 0, 0, 0]
        after, before = step["state"], step["state_before"]
        if not before:
            row[_STAGE_COUNTER["started"]] += step["count"]
        elif before != "started":
            row[_STAGE_COUNTER[before]] -= step["count"]
        if after != "started":
            row[_STAGE_COUNTER[after]] += step["count"]
        if after == "completed":
            row[_STAGE_COUNTER["duration_us"]] += step["duration_us"]
        if before == "completed":
            row[_STAGE_COUNTER["duration_us"]] -= step["duration_us_before"]
        JOB_STAGES.add_to(rows, (step["job_id"], step["stage"]), row)
    return rows


def _finished(job: RowMapping) -> FinishedJob:
    counts = {name: job[name] for name in JOB_COUNTERS}
    return FinishedJob(
        JobCompleted(job_id=job["job_id"], tenant_id=job["tenant_id"], state=job["state"], **counts),
        job["last_event_at"],
        job["redrives"],
    )


_COUNTER = {name: JOBS.columns.index(name) for name in (*JOB_COUNTERS, "pages_done", "pages_failed", "redrives")}
_STAGE_COUNTER = {name: index for index, name in enumerate(JOB_STAGES.columns) if index > 2}

_NOTIFY = text("SELECT pg_notify(:channel, :payload)")
_MERGE_ORIGINS = text(f"""
WITH merged AS ({DOCUMENT_ORIGINS.upsert(remember=["state"])} RETURNING job_id, state_before, state)
SELECT job_id, state_before, state, count(*) AS count FROM merged
WHERE state_before <> state GROUP BY job_id, state_before, state""")  # noqa: S608  constants
_MERGE_DOCUMENTS = text(f"""
WITH merged AS ({DOCUMENTS.upsert(remember=["state"])} RETURNING job_id, state_before, state)
SELECT job_id, state_before, state, count(*) AS count FROM merged
WHERE state_before <> state GROUP BY job_id, state_before, state""")  # noqa: S608  constants
_MERGE_FAILURES = text(f"""
WITH merged AS ({DOCUMENT_FAILURES.upsert(remember=["state"])} RETURNING job_id, state_before, state)
SELECT job_id, state_before, state, count(*) AS count FROM merged
WHERE state_before <> state GROUP BY job_id, state_before, state""")  # noqa: S608  constants
_MERGE_DECISIONS = text(f"""
WITH merged AS ({LETTER_DECISIONS.upsert(remember=["state"])} RETURNING job_id, state_before, state)
SELECT job_id, count(*) AS count FROM merged
WHERE state = 'redriven' AND state_before <> state GROUP BY job_id""")  # noqa: S608  constants
_MERGE_RUNS = text(f"""
WITH merged AS ({STAGE_RUNS.upsert(remember=["state", "duration_us"])}
                RETURNING job_id, stage, stage_type, state_before, state, duration_us_before, duration_us)
SELECT job_id, stage, max(stage_type) AS stage_type, state_before, state, count(*) AS count,
       CAST(sum(duration_us_before) AS bigint) AS duration_us_before, CAST(sum(duration_us) AS bigint) AS duration_us
FROM merged WHERE state_before <> state OR duration_us_before <> duration_us
GROUP BY job_id, stage, state_before, state""")  # noqa: S608  constants
_MERGE_PAGES = text(f"""
WITH merged AS ({PAGES.upsert(remember=["state"])} RETURNING job_id, state_before, state)
SELECT job_id, state_before, state, count(*) AS count FROM merged
WHERE state_before <> state GROUP BY job_id, state_before, state""")  # noqa: S608  constants
_MERGE_JOB_STAGES = text(JOB_STAGES.upsert())
_MERGE_JOBS = text(
    f"{JOBS.upsert()} RETURNING job_id, tenant_id, state, last_event_at, redrives, {', '.join(JOB_COUNTERS)}"
)
_MERGE_TOPOLOGIES = text(TOPOLOGIES.upsert())
_MERGE_REJECTIONS = text(REJECTIONS.upsert())
