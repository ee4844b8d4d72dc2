"""The tables of the gate-router: which jobs were admitted, and everything that waits.

A wait is a row: a page of a source held until its tenant has room, a document at a gate, a branch at a join, a retry
until it is due, an arrival whose pipeline is not known yet. Releasing is always: lock the rows that are due (``FOR
UPDATE SKIP LOCKED``), publish, wait for delivery, mark, commit. A router that dies in between leaves the rows as they
were; what it had published already is recognised by its deterministic id. Any number of routers may work on the same
tables.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    Row,
    Table,
    Text,
    TextClause,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medkg.storage import waits_sql as sql
from medkg.storage.engine import METADATA

GATE_COLUMNS = sql.GATE_COLUMNS
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


def _word(name: str) -> Column[str]:
    return Column(name, _TEXT, nullable=False, server_default="")


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
    Column("due_at", DateTime(timezone=True)),  # when a gate's patience ends; when a retry is due
    Column("arrived_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("released_at", DateTime(timezone=True)),
    Column("reason", Text, nullable=False, server_default=""),
    Column("request", Text, nullable=False),  # the StageRequest as it came, JSON
    Column("origin", Text, nullable=False),  # envelope and position it came with, JSON
    _word("resume_stage"),  # gate: where the document goes on
    _word("on_timeout"),  # gate: fail, skip or release
    _word("next_topic"),  # where it is published when it is released; says whose room it takes
    _word("file_sha256"),  # gate: the file whose parsed form is waited for
    Column("attempt", BigInteger, nullable=False, server_default="1"),
    Column("asked_at", DateTime(timezone=True)),  # when its file was asked for last
    Column("look_again_at", DateTime(timezone=True)),  # it could not be released, for `reason`; not before then
    Column("looks", Integer, nullable=False, server_default="0"),  # how often it could not
    Column("revived_at", DateTime(timezone=True)),  # join: a branch that had failed was redriven
    Column("late_at", DateTime(timezone=True)),  # gate: its condition came true after its patience had ended
    _word("decision"),  # of an operator: release or fail
    Column("resumes", Integer, nullable=False, server_default="0"),  # gate: how often it was taken up after its end
    Index("waits_by_job", "job_id", "doc_id"),
    Index("waits_waiting", "kind", "arrived_at", postgresql_where=text("state = 'waiting'")),
    Index("waits_due", "due_at", postgresql_where=text("state = 'waiting' AND due_at IS NOT NULL")),
    Index("waits_handed_out", "job_id", "page", postgresql_where=text("kind = 'page' AND state = 'released'")),
    Index("waits_decided", "decision", postgresql_where=text("state = 'waiting' AND decision <> ''")),
    Index("waits_left", "look_again_at", postgresql_where=text("state = 'waiting' AND look_again_at IS NOT NULL")),
    Index("waits_for_files", "tenant_id", "file_sha256", postgresql_where=text("file_sha256 <> ''")),
)


class WaitKind(StrEnum):
    PAGE = "page"
    GATE = "gate"
    JOIN = "join"
    RETRY = "retry"
    UNREAD = "unread"  # its pinned pipeline cannot be found yet, so nobody knows what it waits for


@dataclass(frozen=True, slots=True)
class Admission:
    """A job that was let in, and the topology it is pinned to."""

    job_id: str
    tenant_id: str
    digest: str
    revision: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Something that waits.

    ``timeout_seconds`` counts from its arrival, ``due_ms`` (milliseconds since 1970, 0 for none) is absolute and goes
    before; ``equals`` is JSON. ``redrive`` is that of the request.
    """

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
    due_ms: int = 0
    resume_stage: str = ""
    on_timeout: str = ""
    next_topic: str = ""
    file_sha256: str = ""
    attempt: int = 1
    redrive: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits: pages, documents at gates, branches at joins (other kinds have a time, and are due by it).

    ``is_decided``: an operator has decided about some of it. ``seconds_until_due``: until the next deadline or retry,
    zero or less for one that has passed, None where nothing waits for a time.
    """

    kinds: frozenset[WaitKind]
    is_decided: bool
    seconds_until_due: float | None


# Publishes what follows rows; those that it could not decide about are named with the reason, and wait on.
Publish = Callable[[Sequence[Row[tuple[object, ...]]]], Awaitable[Mapping[str, str] | None]]
Documents = Collection[tuple[str, str]]  # (job, document)
Rooms = Mapping[str, int]  # topic -> how many more messages it may take now


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
        """Let these wait. One that is known already stays as it is: waiting, or released long ago.

        A signal that came before any job knew the document is its own from now on. A branch that comes by a redrive
        brings those back to the join that had come before it failed.
        """
        if not waits:
            return
        async with self._engine.begin() as connection:
            await self._insert(connection, waits)

    async def replace(self, wait_id: str, wait: Wait) -> None:
        """Let something wait for what it was found to wait for; its old row goes."""
        async with self._engine.begin() as connection:
            await self._insert(connection, [wait])
            await connection.execute(sql.REMOVE, {"ids": [wait_id]})

    async def release_pages(
        self, publish: Publish, *, tenant_bound: int, tenant_parked: int = 0, limit: int = 50
    ) -> int:
        """Hand out pages to tenants that have room: fewer than ``tenant_bound`` documents under way.

        Under way are documents of unfinished jobs that are not terminal, and the most that pages handed out before can
        still bring; up to ``tenant_parked`` documents that wait at a gate are not counted, because they take no room in
        any topic. Tenants take turns, page by page; within a tenant the page that came first goes first.
        """
        async with self._engine.begin() as connection:
            locked = await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _PAGE_LOCK})
            if not locked:
                return 0
            values = {"bound": tenant_bound, "parked": tenant_parked, "limit": limit}
            rows = (await connection.execute(sql.DUE_PAGES, values)).all()
            return await _release(connection, rows, publish, "room")

    async def release_gates(
        self, publish: Publish, *, documents: Documents | None = None, rooms: Rooms | None = None, limit: int = 500
    ) -> int:
        """Release documents whose ledger says what their gate waits for, or that it will never come.

        Only ``documents`` are looked at, or (None) all that wait. No more than ``rooms`` go to a topic; tenants take
        turns. The column ``verdict`` of a row says ``passed`` or ``unparsed``.
        """
        statement = sql.DUE_GATES if documents is None else sql.DUE_GATES_OF
        return await self._release(statement, publish, "condition", documents, rooms, limit)

    async def release_expired(self, publish: Publish, *, rooms: Rooms | None = None, limit: int = 500) -> int:
        """Hand over documents whose gate has run out of patience."""
        return await self._release(sql.EXPIRED_GATES, publish, "timeout", None, rooms, limit)

    async def release_retries(self, publish: Publish, *, rooms: Rooms | None = None, limit: int = 500) -> int:
        """Hand back requests whose next attempt is due."""
        return await self._release(sql.DUE_RETRIES, publish, "due", None, rooms, limit)

    async def release_joins(self, publish: Publish, *, documents: Documents | None = None, limit: int = 1_500) -> int:
        """Release documents whose branches have all come; ``publish`` is given all rows, branch beside branch."""
        statement = sql.COMPLETE_JOINS if documents is None else sql.COMPLETE_JOINS_OF
        return await self._release(statement, publish, "all branches", documents, None, limit)

    async def release_decided(self, publish: Publish, *, limit: int = 500) -> int:
        """Do what operators have decided; of a join ``publish`` is given all branches that have come."""
        return await self._release(sql.DECIDED, publish, "operator", None, None, limit)

    async def end_failed_joins(self, *, limit: int = 1_500) -> int:
        """End the wait of branches whose document has failed on another branch, with that as the reason."""
        async with self._engine.begin() as connection:
            return (await connection.execute(sql.END_FAILED_JOINS, {"limit": limit})).rowcount

    async def read_unread(self, publish: Publish, *, limit: int = 100) -> int:
        """Look again at arrivals whose pipeline could not be found. What ``publish`` does not name is done with."""
        return await self._release(sql.UNREAD, publish, "read", None, None, limit)

    async def note_late_signals(self, documents: Documents) -> list[tuple[str, str]]:
        """Note that the condition of gates came true after they had run out of patience. Returns whose."""
        async with self._engine.begin() as connection:
            found = await connection.execute(sql.NOTE_LATE, _columns(documents))
            return [(row.job_id, row.doc_id) for row in found]

    async def ask_for_files(
        self, ask: Publish, *, documents: Documents | None = None, older_seconds: float, limit: int = 200
    ) -> int:
        """Ask for files that documents wait for: each once, and again when there was no answer for so long.

        ``ask`` is given one waiting document of each file. Returns how many files were asked for.
        """
        values: dict[str, Any] = {"older_seconds": older_seconds, "limit": limit}
        if documents is not None:
            values |= _columns(documents)
        async with self._engine.begin() as connection:
            statement = sql.UNASKED if documents is None else sql.UNASKED_OF
            rows = (await connection.execute(statement, values)).all()
            if rows:
                await ask(rows)
            return len(rows)

    async def look(self) -> Waiting:
        """What there is that may be released: one question, so that nothing is looked for that nobody waits for."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(sql.WAITING)).one()
            due = row.seconds_until_due
            return Waiting(frozenset(map(WaitKind, row.kinds)), row.is_decided, None if due is None else float(due))

    async def forget_finished(self, *, keep_failed_seconds: float = 0.0) -> int:
        """Remove the waits of jobs that have ended, and signals that nobody came for.

        What ended without its condition or its other branches can still be resumed: it is kept for a while.
        """
        async with self._engine.begin() as connection:
            await connection.execute(sql.FORGET_SIGNALS)
            return (await connection.execute(sql.FORGET, {"keep_seconds": keep_failed_seconds})).rowcount

    async def _insert(self, connection: AsyncConnection, waits: Sequence[Wait]) -> None:
        columns = {name: [getattr(wait, name) for wait in waits] for name in Wait.__slots__ if name != "redrive"}
        await connection.execute(sql.PARK, columns)
        gated = {(wait.job_id, wait.doc_id, wait.tenant_id) for wait in waits if wait.kind is WaitKind.GATE}
        if gated:
            jobs, docs, tenants = zip(*sorted(gated), strict=True)
            values = {"jobs": list(jobs), "docs": list(docs), "tenants": list(tenants)}
            await connection.execute(sql.CLAIM_SIGNALS, values)
        redriven = {(wait.job_id, wait.doc_id) for wait in waits if wait.kind is WaitKind.JOIN and wait.redrive}
        if redriven:
            await connection.execute(sql.REVIVE_JOINS, _columns(redriven))

    async def _release(
        self,
        statement: TextClause,
        publish: Publish,
        reason: str,
        documents: Documents | None,
        rooms: Rooms | None,
        limit: int,
    ) -> int:
        values: dict[str, Any] = {"limit": limit}
        if documents is not None:
            if not documents:
                return 0
            values |= _columns(documents)
        if ":topics" in statement.text:
            values |= {"topics": list(rooms or {}), "rooms": list((rooms or {}).values())}
        async with self._engine.begin() as connection:
            rows = (await connection.execute(statement, values)).all()
            return await _release(connection, rows, publish, reason)


async def _release(
    connection: AsyncConnection, rows: Sequence[Row[tuple[object, ...]]], publish: Publish, reason: str
) -> int:
    if not rows:
        return 0
    left = await publish(rows) or {}
    released = [row.wait_id for row in rows if row.wait_id not in left]
    await connection.execute(sql.MARK, {"ids": released, "reason": reason})
    if left:
        await connection.execute(sql.LEAVE, {"ids": list(left), "reasons": list(left.values())})
    return len(released)


def _columns(documents: Documents) -> dict[str, list[str]]:
    ordered = sorted(documents)
    return {"jobs": [job for job, _ in ordered], "docs": [doc for _, doc in ordered]}
