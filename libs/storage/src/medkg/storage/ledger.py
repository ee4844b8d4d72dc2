"""The tables of the ledger: what is true of every job and document, and why.

All but ``documents.pdf_ir_ready``, ``documents.pdf_ir_failed`` and direct writes of the other two PDF fields is a
projection of the lifecycle events (:mod:`medkg.storage.ledger_projection`). A row holds *facts*, each merged by a
rule that does not care about order or repetition; every ``state`` is a generated column, a function of the facts of
its row. Hence the rows do not depend on the order, the repetition or the batching of the events.

Times are those of the events, never the projector's clock. ``state_before`` (and ``duration_us_before``) are what the
row's last write found: the exact step from one state to the next, from which the counters of ``jobs`` and
``job_stages`` are kept. They are the only columns that depend on how the events came.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    DateTime,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    desc,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from medkg.contracts.stages import StageType
from medkg.storage.engine import METADATA

CHANNEL = "medkg_ledger"  # NOTIFY: something changed that a gate or a held page may be waiting for
GATE_FIELDS = frozenset({"pdf_downloaded", "pdf_ir_ready", "pdf_ir_failed", "post_pdf_started"})

_TEXT = Text(collation="C")  # code point order: the same as Python's, so that both merge alike
_TIME = DateTime(timezone=True)


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, _TEXT, primary_key=key, nullable=False, server_default=None if key else "")


def _count(name: str, default: int = 0) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=str(default))


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=text("false"))


def _words(name: str) -> Column[list[str]]:
    return Column(name, ARRAY(_TEXT), nullable=False, server_default=text("'{}'"))


def _state(expression: str) -> Column[str]:
    return Column("state", _TEXT, Computed(expression, persisted=True), nullable=False)


# Between events of one millisecond the stage that comes later in most pipelines counts as the later one.
STAGE_RANKS = {kind.value: rank for rank, kind in enumerate((StageType.GATE, *StageType)) if kind is not StageType.GATE}
STAGE_RANKS[StageType.GATE.value] = STAGE_RANKS[StageType.DOWNLOAD.value]

JOB_COUNTERS = ("documents", "completed", "skipped", "failed", "rejected")

# Every page up to the furthest one is settled, and none can follow: it was the last, or the chain broke at one.
_JOB_STATE = """
CASE
  WHEN admitted_at IS NULL AND rejected_at IS NOT NULL THEN 'rejected'
  WHEN max_page >= 0 AND pages_done + pages_failed = max_page + 1 AND (last_page = max_page OR pages_failed > 0)
       AND documents = completed + skipped + failed + rejected
    THEN CASE WHEN failed + rejected + pages_failed > 0 THEN 'completed_with_failures' ELSE 'completed' END
  WHEN max_page >= 0 OR documents > 0 THEN 'running'
  ELSE 'admitted'
END"""

JOBS = Table(
    "jobs",
    METADATA,
    _text("job_id", key=True),
    _text("tenant_id"),
    _text("pipeline_name"),
    _text("pipeline_version"),
    _text("pipeline_digest"),
    _count("revision"),
    Column("admitted_at", _TIME),
    _text("source"),
    _text("selection"),  # JSON as it came; text, because jsonb refuses some of what JSON allows
    Column("rejected_at", _TIME),
    _text("faults"),  # JSON
    _count("last_page", -1),  # the number of the page that said it is the last
    _count("max_page", -1),  # the furthest page that is settled
    Column("total_records", BigInteger),
    Column("first_event_at", _TIME, nullable=False),
    Column("last_event_at", _TIME, nullable=False),
    *(_count(name) for name in JOB_COUNTERS),
    _count("pages_done"),
    _count("pages_failed"),
    _count("redrives"),
    _state(_JOB_STATE),
    Index("jobs_by_tenant", "tenant_id", desc("first_event_at"), desc("job_id")),
)

# One row for each job and stage: how its runs stand, and the time that those which did work took.
JOB_STAGES = Table(
    "job_stages",
    METADATA,
    _text("job_id", key=True),
    _text("stage", key=True),
    _text("stage_type"),
    _count("started"),
    _count("retrying"),
    _count("completed"),
    _count("reused"),
    _count("failed"),
    _count("duration_us"),
)

PAGES = Table(
    "pages",
    METADATA,
    _text("job_id", key=True),
    Column("number", BigInteger, primary_key=True),
    _flag("is_done"),
    _flag("is_last"),
    _count("documents"),
    _count("refused"),
    Column("total", BigInteger),
    Column("done_at", _TIME),
    Column("failure_order", BigInteger),  # the round that failed, negative: the last round's comes first
    Column("failure_at", _TIME),
    _text("failure_code"),
    _text("failure_message"),
    _words("failures"),
    _words("redriven"),
    # a page that failed in one delivery and was read in another has been read: the job went on from it
    _state("CASE WHEN is_done THEN 'done' WHEN failures <@ redriven THEN 'open' ELSE 'failed' END"),
    _text("state_before"),
)

# `expected`: a gate field was set before any event told of the document; such a row counts nowhere.
# `failures` and `redriven` name a stage and a round, as "parse#0": a failure counts until its letter was redriven.
_DOCUMENT_STATE = """
CASE
  WHEN NOT is_known THEN 'expected'
  WHEN NOT failures <@ redriven THEN failure_disposition
  WHEN leaves > 0 AND cardinality(finished_leaves) >= leaves
    THEN CASE WHEN did_work THEN 'completed' ELSE 'skipped' END
  ELSE 'in_flight'
END"""

DOCUMENTS = Table(
    "documents",
    METADATA,
    _text("job_id", key=True),
    _text("doc_id", key=True),
    _text("tenant_id"),
    _text("pipeline_name"),
    _text("pipeline_version"),
    _flag("is_known"),
    Column("page_number", BigInteger),
    _text("source_id"),
    _text("uri"),
    Column("last_event_at", _TIME),  # this, the two below and first_event_at: see HEARD_OF
    Column("stage_rank", SmallInteger, nullable=False, server_default="0"),
    _text("current_stage"),
    Column("first_event_at", _TIME),
    Column("retry_count_per_stage", JSONB, nullable=False, server_default=text("'{}'")),
    _flag("pdf_downloaded"),
    _flag("pdf_ir_ready"),
    _flag("pdf_ir_failed"),
    _flag("post_pdf_started"),
    _flag("did_work"),
    _words("finished_leaves"),
    _count("leaves"),
    Column("failure_order", BigInteger),  # the round that failed, negative: the last round's comes first
    Column("failure_at", _TIME),
    _text("failure_stage"),
    _text("failure_code"),
    _text("failure_message"),
    _text("failure_disposition"),
    _words("failures"),
    _words("redriven"),
    _state(_DOCUMENT_STATE),
    _text("state_before"),
    Index("documents_by_state", "job_id", "state", "doc_id"),
    Index("documents_by_tenant", "tenant_id", "doc_id"),
    Index(  # why documents of a job failed is counted without a look at those that did not
        "documents_by_failure",
        "job_id",
        "failure_stage",
        "failure_code",
        postgresql_where=text("state IN ('failed', 'rejected')"),
    ),
    postgresql_with={"fillfactor": 80},  # rewritten several times: room for the new version on the same page
)

# Where a document is follows from its runs. Its own row says so only of what is no run of a stage on it: its page, and
# that it was sent on its way again. So a document that goes from stage to stage leaves its row as it is. These are for
# statements with `documents d`, HEARD_OF joined to it.
_RANKS = " ".join(f"WHEN '{kind}' THEN {rank}" for kind, rank in STAGE_RANKS.items())
HEARD_OF = f"""LEFT JOIN LATERAL (
  SELECT GREATEST(r.started_at, r.finished_at) AS at, CASE r.stage_type {_RANKS} ELSE 0 END AS rank, r.stage,
         min(LEAST(r.started_at, r.finished_at)) OVER () AS first_at
  FROM stage_runs r WHERE r.job_id = d.job_id AND r.doc_id = d.doc_id
  ORDER BY 1 DESC, 2 DESC, 3 DESC LIMIT 1) heard ON true"""  # noqa: S608  constants
FIRST_EVENT_AT = "LEAST(d.first_event_at, heard.first_at)"
LAST_EVENT_AT = "GREATEST(d.last_event_at, heard.at)"
CURRENT_STAGE = """CASE
  WHEN d.last_event_at IS NULL OR (heard.at, heard.rank, heard.stage) > (d.last_event_at, d.stage_rank, d.current_stage)
  THEN coalesce(heard.stage, d.current_stage) ELSE d.current_stage END"""

# Every attempt of a stage at a document, or (doc_id empty) at a page of the source. `reused`: completed without work.
STAGE_RUNS = Table(
    "stage_runs",
    METADATA,
    _text("job_id", key=True),
    _text("doc_id", key=True),
    Column("page", BigInteger, primary_key=True),
    _text("stage", key=True),
    Column("attempt", BigInteger, primary_key=True),
    Column("redrive", BigInteger, primary_key=True, server_default="0"),  # attempts are counted anew in each round
    _text("stage_type"),
    Column("started_at", _TIME),
    _text("started_by"),
    Column("outcome", SmallInteger),  # 0 failed, 1 completed, 2 retrying; the lowest wins
    Column("finished_at", _TIME),
    _text("worker"),
    _count("duration_us"),
    _text("failure_code"),
    _text("failure_message"),
    _flag("did_work"),
    _state("""
CASE outcome WHEN 0 THEN 'failed'
             WHEN 1 THEN CASE WHEN did_work THEN 'completed' ELSE 'reused' END
             WHEN 2 THEN 'retrying'
             ELSE 'started'
END"""),
    _text("state_before"),
    _count("duration_us_before"),
    postgresql_with={"fillfactor": 80},
)

# Pinned topologies by digest: a job finishes on the topology it began with.
TOPOLOGIES = Table("topologies", METADATA, _text("digest", key=True), _text("canonical_json"))

REJECTIONS = Table(
    "rejections",
    METADATA,
    _text("rejection_id", key=True),  # TOPIC/PARTITION/OFFSET of the refused event, or the id of its job
    _text("job_id"),
    _text("tenant_id"),
    _text("faults"),  # JSON
    _text("topic"),
    Column("partition", Integer),
    Column("offset", BigInteger),
    Column("rejected_at", _TIME, nullable=False),
    Index("rejections_by_time", desc("rejected_at"), "rejection_id"),
)

# A row may be made by the letter, or by what was decided about it: whichever comes first. Until the letter is known
# (`dead_at`), it is not shown.
_LETTER_STATE = """
CASE WHEN redriven_at IS NOT NULL THEN 'redriven' WHEN dropped_at IS NOT NULL THEN 'dropped' ELSE 'dead' END"""

DEAD_LETTERS = Table(
    "dead_letters",
    METADATA,
    _text("dead_letter_id", key=True),  # see ids.letter_id
    _text("job_id"),
    _text("tenant_id"),
    _text("doc_id"),
    _text("stage"),
    _count("attempt"),
    _count("redrive"),
    _text("code"),
    _text("message"),
    _text("causes"),  # JSON array of strings
    _text("disposition"),
    _text("worker"),
    _text("worker_version"),
    _text("topic"),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("letter_partition", Integer),  # where the letter itself stands in the dead-letter topic
    Column("letter_offset", BigInteger),
    Column("dead_at", _TIME),
    Column("redriven_at", _TIME),
    _text("redriven_by"),
    _text("redriven_reason"),
    Column("dropped_at", _TIME),
    _text("dropped_by"),
    _text("dropped_reason"),
    _state(_LETTER_STATE),
    _text("state_before"),
    Index("dead_letters_by_time", desc("dead_at"), "dead_letter_id"),
    Index("dead_letters_by_job", "job_id"),
)
