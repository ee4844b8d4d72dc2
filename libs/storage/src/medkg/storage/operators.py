"""What operators do by hand to something that waits: release, fail, extend; who, when and why stays on record."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Column, DateTime, Index, Table, Text, func, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from medkg.storage.engine import METADATA
from medkg.storage.ledger_projection import notify
from medkg.storage.ledger_said import clean
from medkg.storage.transactions import in_transaction

MAX_DECIDED = 10_000  # waits that one action may touch
MAX_EXTENSION_SECONDS = 30 * 86_400.0  # as long as a gate may wait
_MAX_WHY = 1_000
_TEXT = Text(collation="C")

OPERATOR_ACTIONS = Table(
    "operator_actions",
    METADATA,
    Column("wait_id", _TEXT, primary_key=True),
    Column("at", DateTime(timezone=True), primary_key=True, server_default=func.clock_timestamp()),
    Column("tenant_id", _TEXT, nullable=False),
    Column("job_id", _TEXT, nullable=False),
    Column("doc_id", _TEXT, nullable=False),
    Column("stage", _TEXT, nullable=False),
    Column("action", _TEXT, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("until", DateTime(timezone=True)),
    Index("operator_actions_by_job", "job_id", "doc_id"),
)


class Action(StrEnum):
    RELEASE = "release"
    FAIL = "fail"
    EXTEND = "extend"


@dataclass(frozen=True, slots=True)
class Decided:
    """One wait that an action has touched; ``until`` is its new deadline where it was extended."""

    wait_id: str
    job_id: str
    doc_id: str
    stage: str
    until: datetime | None


async def decide(
    engine: AsyncEngine,
    tenant_id: str,
    action: Action,
    *,
    who: str,
    why: str,
    wait_ids: Sequence[str] = (),
    job_id: str = "",
    stage: str = "",
    seconds: float = 0.0,
) -> list[Decided]:
    """Release, fail or extend what waits at a gate, at a join or for a retry: by id, or all of a job (at one stage).

    The gate-router does it at once; the record is written with the decision. A gate that has ended by its timeout can
    be released too, by id: the document is taken up where the gate would have let it go on. Returns what was touched;
    what is of another tenant, or has been released already, is not.

    Raises:
        ValueError: no reason or name is given, nothing is named, or the extension is out of bounds.
        ResourceUnavailableError: the database does not answer.
    """
    if not who.strip() or not why.strip():
        raise ValueError(f"{action} by hand: say who does it, and why")
    if not wait_ids and not job_id:
        raise ValueError(f"{action} by hand: name the waits, or a job")
    if action is Action.EXTEND and not 0 < seconds <= MAX_EXTENSION_SECONDS:
        raise ValueError(f"extending a wait: {seconds} s is not between 0 and {MAX_EXTENSION_SECONDS:.0f}")
    values = {
        "tenant_id": tenant_id,
        "action": action.value,
        "ids": list(wait_ids[:MAX_DECIDED]) or None,
        "job_id": job_id,
        "stage": stage,
        "seconds": seconds,
        "limit": MAX_DECIDED,
        "who": clean(who.strip(), 200),
        "why": clean(why.strip(), _MAX_WHY),
    }

    async def write(connection: AsyncConnection) -> list[Decided]:
        rows = (await connection.execute(_EXTEND if action is Action.EXTEND else _DECIDE, values)).all()
        await connection.execute(
            _RECORD, {name: values[name] for name in ("action", "who", "why")} | {"ids": [row.wait_id for row in rows]}
        )
        await notify(connection, (), ((row.job_id, row.doc_id) for row in rows))
        return [Decided(row.wait_id, row.job_id, row.doc_id, row.stage, row.due_at) for row in rows]

    return await in_transaction(engine, f"recording the decision to {action}", write)


_CHOSEN = """
WITH chosen AS (
  SELECT wait_id FROM waits
  WHERE tenant_id = :tenant_id AND kind IN ({kinds})
    AND (CAST(:ids AS text[]) IS NULL OR wait_id = ANY (CAST(:ids AS text[])))
    AND (:job_id = '' OR job_id = :job_id) AND (:stage = '' OR stage = :stage) AND ({state})
  ORDER BY wait_id LIMIT :limit FOR UPDATE)"""
_DECIDE = text(
    _CHOSEN.format(
        kinds="'gate', 'join', 'retry'",
        state="state = 'waiting' OR (:action = 'release' AND CAST(:ids AS text[]) IS NOT NULL AND kind = 'gate' "
        "AND state = 'released' AND reason IN ('timeout', 'unparsed') AND on_timeout <> 'release')",
    )
    + """
UPDATE waits w SET decision = :action, look_again_at = NULL, state = 'waiting', released_at = NULL,
       resumes = w.resumes + CASE WHEN w.state = 'released' THEN 1 ELSE 0 END
FROM chosen WHERE chosen.wait_id = w.wait_id RETURNING w.wait_id, w.job_id, w.doc_id, w.stage, w.due_at"""
)
_EXTEND = text(
    _CHOSEN.format(kinds="'gate', 'retry'", state="state = 'waiting' AND decision = '' AND due_at IS NOT NULL")
    + """
UPDATE waits w SET look_again_at = NULL, due_at = LEAST(
  GREATEST(w.due_at, now()) + CAST(:seconds AS double precision) * interval '1 second', now() + interval '60 days')
FROM chosen WHERE chosen.wait_id = w.wait_id RETURNING w.wait_id, w.job_id, w.doc_id, w.stage, w.due_at"""
)
_RECORD = text("""
INSERT INTO operator_actions (wait_id, tenant_id, job_id, doc_id, stage, action, who, why, until)
SELECT wait_id, tenant_id, job_id, doc_id, stage, CAST(:action AS text), :who, :why,
       CASE WHEN :action = 'extend' THEN due_at END
FROM waits WHERE wait_id = ANY (CAST(:ids AS text[]))""")
