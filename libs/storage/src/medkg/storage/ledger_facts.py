"""What a batch of lifecycle events says, as rows to be merged into the ledger. Pure: no clock, no database.

Everything that enters a row is checked here (names, ranges, characters that PostgreSQL cannot hold), so that no event,
however made, can make the database refuse the batch it came in.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from medkg.contracts.cloudevents import Envelope
from medkg.contracts.errors import Disposition
from medkg.contracts.ids import content_digest, letter_id
from medkg.contracts.jobs import MAX_FAULTS, MAX_SHOWN
from medkg.contracts.messages import (
    EVENT_DECODER,
    EventType,
    Failure,
    Fault,
    JobAdmitted,
    JobRejected,
    LetterDecision,
    PageReport,
    PipelineRef,
    Position,
    StageEvent,
    encode,
)
from medkg.contracts.stages import StageType
from medkg.storage.ledger_merge import SEPARATOR, Row
from medkg.storage.ledger_rows import (
    DOCUMENT_FAILURES,
    DOCUMENTS,
    JOBS,
    LETTER_DECISIONS,
    PAGES,
    REJECTIONS,
    STAGE_RUNS,
)

MAX_MESSAGE = 4_000  # characters of a failure's message that are kept
MAX_TOPIC = 249  # the longest name of a topic
MAX_REASON = 1_000  # characters of why a dead letter was redriven or dropped
MAX_ADDRESS = 4_096  # characters of a source id or URI that are kept
MAX_DURATION_MS = 1e10  # of one run, 115 days: the sum over 900,000 of them still fits into a bigint of microseconds
_LARGEST = 2**53  # the greatest number that every JSON reader holds exactly
_NAME = re.compile(r"[^\x00-\x20\x7f]{1,200}")  # well under what an index of PostgreSQL takes
_PAGE_OF_SUBJECT = re.compile(r"/page-([0-9]{1,15})$")
_NO_REASON = Failure(code="internal_error", message="the event gives no reason")

# Between events of one millisecond the stage that comes later in most pipelines counts as the later one.
_RANK = {kind.value: rank for rank, kind in enumerate((StageType.GATE, *StageType)) if kind is not StageType.GATE}
_RANK[StageType.GATE] = _RANK[StageType.DOWNLOAD]
_WITHOUT_WORK = {
    StageType.INGEST,
    StageType.VALIDATE,
    StageType.GATE,
}  # they run again with every job, and make nothing
_FAILED, _COMPLETED, _RETRYING = 0, 1, 2  # outcomes of a run; the lowest wins

_ADMITTED_DECODER = msgspec.json.Decoder(JobAdmitted)
_REJECTED_DECODER = msgspec.json.Decoder(JobRejected)
_DECISION_DECODER = msgspec.json.Decoder(LetterDecision)
_PINNED = slice(JOBS.columns.index("tenant_id"), JOBS.columns.index("revision") + 1)  # alike in all events of a job
_OWNED = slice(DOCUMENTS.columns.index("tenant_id"), DOCUMENTS.columns.index("is_known") + 1)
_SEEN = slice(DOCUMENTS.columns.index("last_event_at"), DOCUMENTS.columns.index("current_stage") + 1)
_FIRST_SEEN = DOCUMENTS.columns.index("first_event_at")
_FIRST_EVENT, _LAST_EVENT = JOBS.columns.index("first_event_at"), JOBS.columns.index("last_event_at")


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that cannot be projected: where it stood in the batch, its id, and why."""

    index: int
    event_id: str
    reason: str


@dataclass(slots=True)
class Facts:
    """Rows by key, merged within the batch. ``gated`` are documents (job, document) of which a gate field was set."""

    jobs: dict[str, Row] = field(default_factory=dict)
    documents: dict[tuple[str, str], Row] = field(default_factory=dict)
    failures: dict[tuple[str, str], Row] = field(default_factory=dict)
    runs: dict[tuple[str, str, int, str, int, int], Row] = field(default_factory=dict)
    pages: dict[tuple[str, int], Row] = field(default_factory=dict)
    decisions: dict[str, Row] = field(default_factory=dict)
    rejections: dict[str, Row] = field(default_factory=dict)
    topologies: dict[str, Row] = field(default_factory=dict)
    gated: set[tuple[str, str]] = field(default_factory=set)
    refused: list[RefusedEvent] = field(default_factory=list)


def facts_of(events: Sequence[tuple[Envelope, bytes]]) -> Facts:
    """All that a batch says. Events of other types are passed over; what cannot be read is in ``refused``."""
    facts = Facts()
    for index, (envelope, data) in enumerate(events):
        reader = _READERS.get(envelope.type)
        if reader is None:
            continue
        try:
            reader(facts, envelope, data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            facts.refused.append(RefusedEvent(index, envelope.id, str(error) or type(error).__name__))
    return facts


@lru_cache(maxsize=1_024)  # many events of a batch share their millisecond
def event_time(value: str) -> datetime:
    """A CloudEvents time; one without an offset is UTC.

    Raises:
        ValueError: it is not an RFC 3339 time between the years 1900 and 9998.
    """
    moment = datetime.fromisoformat(value)
    if not 1900 <= moment.year <= 9998:  # an offset must not carry it out of what Python can hold
        raise ValueError(f"time {value!r} is out of range")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def clean(value: str, limit: int) -> str:
    """Text as it can be merged into a table (no NUL, no separator), cut to ``limit`` characters."""
    return value[:limit].replace("\x00", "\ufffd").replace(SEPARATOR, "\ufffd")


def _stage_event(facts: Facts, envelope: Envelope, data: bytes) -> None:
    event = EVENT_DECODER.decode(data)
    at = event_time(envelope.time)
    _check(event)
    if event.doc_id:
        page = 0
        _document_event(facts, envelope.type, event, at)
    else:
        page = _page_number(envelope, event.page)
        _page_event(facts, envelope.type, event, at, page)
    _run(facts, envelope.type, event, at, page)
    job, pipeline = facts.jobs.get(event.job_id), event.pipeline
    if job is not None and job[_PINNED] == [
        event.tenant_id,
        pipeline.name,
        pipeline.version,
        pipeline.digest,
        event.revision,
    ]:
        job[_FIRST_EVENT] = min(job[_FIRST_EVENT], at)
        job[_LAST_EVENT] = max(job[_LAST_EVENT], at)
    else:
        _add_job(facts, event.job_id, event.tenant_id, pipeline, event.revision, at)


def _document_event(facts: Facts, kind: str, event: StageEvent, at: datetime) -> None:
    if kind == EventType.STAGE_STARTED and _touched(facts, event, at):
        return
    is_completed = kind == EventType.STAGE_COMPLETED
    is_downloaded = is_completed and event.stage_type == StageType.DOWNLOAD
    # one that skips its document, because it gave up, starts nothing
    is_released = is_completed and event.stage_type == StageType.GATE and bool(event.next)
    if is_downloaded or is_released:
        facts.gated.add((event.job_id, event.doc_id))
    _add_document(
        facts,
        event,
        event.doc_id,
        at,
        retries={event.stage: max(event.attempt - 1, 0)} if kind == EventType.STAGE_RETRYING else {},
        pdf_downloaded=is_downloaded,
        post_pdf_started=is_released,
        did_work=is_completed and not event.reused and event.stage_type not in _WITHOUT_WORK,
        finished_leaves=frozenset(event.finished_leaves) if is_completed else frozenset(),
        leaves=event.leaves if is_completed else 0,
    )
    if kind == EventType.STAGE_FAILED and not event.tolerated:
        _add_failure(facts, event, event.doc_id, at, event.failure or _NO_REASON)


def _touched(facts: Facts, event: StageEvent, at: datetime) -> bool:
    """Merge what a started event says of a document that the batch knows already: where it was, and when.

    The same as merging a whole row, which this saves for every second event. False where the document is not known yet.
    """
    row = facts.documents.get((event.job_id, event.doc_id))
    if row is None or row[_OWNED] != [event.tenant_id, event.pipeline.name, event.pipeline.version, True]:
        return False
    seen = [at, _RANK.get(event.stage_type, 0), event.stage]
    if row[_SEEN.start] is None or seen > row[_SEEN]:
        row[_SEEN] = seen
    if row[_FIRST_SEEN] is None or at < row[_FIRST_SEEN]:
        row[_FIRST_SEEN] = at
    return True


def _page_event(facts: Facts, kind: str, event: StageEvent, at: datetime, number: int) -> None:
    if kind == EventType.STAGE_COMPLETED:
        if event.page is None:
            raise ValueError(f"{event.stage} has completed without a document or a page report")
        _page_done(facts, event, event.page, at)
    elif kind == EventType.STAGE_FAILED:
        failure = event.failure or _NO_REASON
        row: Row = [event.job_id, number, False, False, 0, 0, None, None]
        row += [-event.redrive, at, clean(failure.code, 200), clean(failure.message, MAX_MESSAGE)]
        row += [frozenset((_round(event.stage, event.redrive),)), frozenset()]
        PAGES.add_to(facts.pages, (event.job_id, number), row)
        _add_job(facts, event.job_id, event.tenant_id, event.pipeline, event.revision, at, max_page=number)


def _page_done(facts: Facts, event: StageEvent, page: PageReport, at: datetime) -> None:
    for document in page.documents:
        origin = (page.number, clean(document.source_id, MAX_ADDRESS), clean(document.uri, MAX_ADDRESS))
        _add_document(facts, event, document.doc_id, at, origin=origin)
    for refused in page.refused:
        origin = (page.number, clean(refused.source_id, MAX_ADDRESS), clean(refused.uri, MAX_ADDRESS))
        # never became a document, whatever kept it from being one: rejected
        failure = msgspec.structs.replace(refused.failure, disposition=Disposition.REJECTED.value)
        _add_document(facts, event, refused.doc_id, at, origin=origin)
        _add_failure(facts, event, refused.doc_id, at, failure)
    documents = len({document.doc_id for document in page.documents})
    refusals = len({document.doc_id for document in page.refused})
    row = [event.job_id, page.number, True, page.is_last, documents, refusals, page.total, at, None, None, "", ""]
    row += [frozenset(), frozenset()]
    PAGES.add_to(facts.pages, (event.job_id, page.number), row)
    last = page.number if page.is_last else -1
    reference = (event.job_id, event.tenant_id, event.pipeline, event.revision, at)
    _add_job(facts, *reference, last_page=last, max_page=page.number, total=page.total)


def _add_document(
    facts: Facts,
    event: StageEvent,
    doc_id: str,
    at: datetime,
    *,
    origin: tuple[int | None, str, str] = (None, "", ""),
    retries: dict[str, int] | None = None,
    pdf_downloaded: bool = False,
    post_pdf_started: bool = False,
    did_work: bool = False,
    finished_leaves: frozenset[str] = frozenset(),
    leaves: int = 0,
) -> None:
    row = [
        event.job_id,
        doc_id,
        event.tenant_id,
        event.pipeline.name,
        event.pipeline.version,
        True,
        *origin,
        at,
        _RANK.get(event.stage_type, 0),
        event.stage,
        at,
        retries or {},
        pdf_downloaded,
        post_pdf_started,
        did_work,
        finished_leaves,
        leaves,
    ]
    DOCUMENTS.add_to(facts.documents, (event.job_id, doc_id), row)


def _add_failure(facts: Facts, event: StageEvent, doc_id: str, at: datetime, failure: Failure) -> None:
    is_rejected = failure.disposition == Disposition.REJECTED
    disposition = Disposition.REJECTED if is_rejected else Disposition.FAILED
    row: Row = [event.job_id, doc_id, event.tenant_id, True, -event.redrive, at, event.stage]
    row += [clean(failure.code, 200), clean(failure.message, MAX_MESSAGE), disposition.value]
    row += [frozenset((_round(event.stage, event.redrive),)), frozenset()]
    DOCUMENT_FAILURES.add_to(facts.failures, (event.job_id, doc_id), row)


def _round(stage: str, redrive: int) -> str:
    """What a failure, and the redriving of it, are known by in a document."""
    return f"{stage}#{redrive}"


def _run(facts: Facts, kind: str, event: StageEvent, at: datetime, page: int) -> None:
    worker = clean(event.worker, 200)
    key = (event.job_id, event.doc_id, page, event.stage, event.attempt, event.redrive)
    row: Row = [*key, clean(event.stage_type, 200)]
    if kind == EventType.STAGE_STARTED:
        row += [at, worker, None, None, "", 0, "", "", False]
    else:
        failure = event.failure
        row += [
            None,
            "",
            _OUTCOMES[kind],
            at,
            worker,
            round(min(max(event.duration_ms, 0.0), MAX_DURATION_MS) * 1000),
            clean(failure.code, 200) if failure else "",
            clean(failure.message, MAX_MESSAGE) if failure else "",
            kind == EventType.STAGE_COMPLETED and not event.reused,
        ]
    STAGE_RUNS.add_to(facts.runs, key, row)


def _job_admitted(facts: Facts, envelope: Envelope, data: bytes) -> None:
    job = _ADMITTED_DECODER.decode(data)
    at = event_time(envelope.time)
    _name("job_id", job.job_id)
    _name("tenant_id", job.tenant_id)
    _check_pipeline(job.pipeline)
    _number("revision", job.revision)
    admitted = (at, clean(job.source, 200), encode(job.selection).decode())
    _add_job(facts, job.job_id, job.tenant_id, job.pipeline, job.revision, at, admitted=admitted)
    is_sound = job.topology == clean(job.topology, len(job.topology))
    if job.topology and is_sound and content_digest(job.topology.encode()) == job.pipeline.digest:
        facts.topologies[job.pipeline.digest] = [job.pipeline.digest, job.topology]


def _job_rejected(facts: Facts, envelope: Envelope, data: bytes) -> None:
    job = _REJECTED_DECODER.decode(data)
    at = event_time(envelope.time)
    job_id = _name("job_id", job.job_id) if job.job_id else ""
    tenant_id = _name("tenant_id", job.tenant_id) if job.tenant_id else ""
    faults = encode([_fault(fault) for fault in job.faults[:MAX_FAULTS]]).decode()
    where = job.position
    if where is not None:
        _check_position(where)
    at_topic = clean(where.topic, MAX_TOPIC) if where else ""
    place = (at_topic, where.partition, where.offset) if where else None
    identity = letter_id(*place) if place else job_id or _name("id", envelope.id)
    row: Row = [identity, job_id, tenant_id, faults, at_topic]
    row += [where.partition if where else None, where.offset if where else None, at]
    REJECTIONS.add_to(facts.rejections, identity, row)
    if job_id:
        _add_job(facts, job_id, tenant_id, PipelineRef("", "", ""), 0, at, rejected=(at, faults))


def _letter_decided(facts: Facts, envelope: Envelope, data: bytes) -> None:
    about = _DECISION_DECODER.decode(data)
    at = event_time(envelope.time)
    _check_decision(about)
    place = (clean(about.position.topic, MAX_TOPIC), about.position.partition, about.position.offset)
    identity = letter_id(*place, about.job_id, about.doc_id, about.redrive)
    row: Row = [identity, about.job_id, about.tenant_id, about.doc_id, about.stage, about.redrive, *place]
    decision = (at, clean(about.actor, 200), clean(about.reason, MAX_REASON))
    is_redriven = envelope.type == EventType.LETTER_REDRIVEN
    row += [*decision, None, "", ""] if is_redriven else [None, "", "", *decision]
    LETTER_DECISIONS.add_to(facts.decisions, identity, row)
    if about.job_id and is_redriven:
        _redriven(facts, about, at)


def _redriven(facts: Facts, about: LetterDecision, at: datetime) -> None:
    """A document, or a page, is under way again."""
    ended = frozenset((_round(about.stage, about.redrive),))
    key = (about.job_id, about.doc_id)
    if about.doc_id:
        row: Row = [*key, about.tenant_id, "", "", True, None, "", "", at, 0, about.stage, at]
        row += [{}, False, False, False, frozenset(), 0]
        DOCUMENTS.add_to(facts.documents, key, row)
        row = [*key, about.tenant_id, True, None, None, "", "", "", "", frozenset(), ended]
        DOCUMENT_FAILURES.add_to(facts.failures, key, row)
    else:
        row = [about.job_id, about.page, False, False, 0, 0, None, None, None, None, "", "", frozenset(), ended]
        PAGES.add_to(facts.pages, (about.job_id, about.page), row)
    _add_job(facts, about.job_id, about.tenant_id, PipelineRef("", "", ""), 0, at)


def _fault(fault: Fault) -> Fault:
    return Fault(clean(fault.pointer, MAX_SHOWN), clean(fault.message, MAX_SHOWN), clean(fault.hint, MAX_SHOWN))


def _add_job(
    facts: Facts,
    job_id: str,
    tenant_id: str,
    pipeline: PipelineRef,
    revision: int,
    at: datetime,
    *,
    admitted: tuple[datetime | None, str, str] = (None, "", ""),
    rejected: tuple[datetime | None, str] = (None, ""),
    last_page: int = -1,
    max_page: int = -1,
    total: int | None = None,
) -> None:
    row: Row = [job_id, tenant_id, pipeline.name, pipeline.version, pipeline.digest, revision, *admitted, *rejected]
    row += [last_page, max_page, total, at, at]
    row += [0] * (len(JOBS.columns) - len(row))  # the counters: what a write has changed is added to them
    JOBS.add_to(facts.jobs, job_id, row)


def _check(event: StageEvent) -> None:
    pipeline = event.pipeline
    _check_alike(event.job_id, event.tenant_id, event.stage, pipeline.name, pipeline.version, pipeline.digest)
    for name in event.finished_leaves:
        _name("finished leaf", name)
    if not (
        0 <= event.revision < _LARGEST
        and 0 <= event.attempt < _LARGEST
        and 0 <= event.redrive < _LARGEST
        and 0 <= event.leaves < _LARGEST
    ):
        for what in ("revision", "attempt", "redrive", "leaves"):
            _number(what, getattr(event, what))
    if event.doc_id:
        _name("doc_id", event.doc_id)
    if event.page is not None:
        _number("page number", event.page.number)
        _number("total", event.page.total or 0)
        for doc_id in (item.doc_id for items in (event.page.documents, event.page.refused) for item in items):
            _name("doc_id", doc_id)


@lru_cache(maxsize=1_024)  # alike in all events of a stage of a job
def _check_alike(job_id: str, tenant_id: str, stage: str, name: str, version: str, digest: str) -> None:
    _name("job_id", job_id)
    _name("tenant_id", tenant_id)
    _name("stage", stage)
    _check_pipeline(PipelineRef(name, version, digest))


def _check_decision(about: LetterDecision) -> None:
    _check_position(about.position)
    _number("redrive", about.redrive)
    _number("page", about.page)
    for what in ("job_id", "tenant_id", "stage"):
        if about.job_id:
            _name(what, getattr(about, what))
    if about.doc_id:
        _name("doc_id", about.doc_id)
    if not about.job_id and (about.tenant_id or about.doc_id or about.stage):
        raise ValueError("it names a tenant, a document or a stage, but no job")


def _check_position(position: Position) -> None:
    _number("partition", position.partition)
    _number("offset", position.offset)
    if position.partition >= 2**31:
        raise ValueError(f"partition {position.partition} is out of range")


def _check_pipeline(pipeline: PipelineRef) -> None:
    _name("pipeline name", pipeline.name)
    _name("pipeline version", pipeline.version)
    _name("pipeline digest", pipeline.digest)


@lru_cache(maxsize=8_192)  # the events of a batch share most of their names
def _name(what: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{what} {value[:80]!r} is not a name of 1 to 200 visible characters without spaces")
    return value


def _number(what: str, value: int) -> int:
    if not 0 <= value < _LARGEST:
        raise ValueError(f"{what} {value} is not between 0 and 2^53")
    return value


def _page_number(envelope: Envelope, page: PageReport | None) -> int:
    if page is not None:
        return page.number
    found = _PAGE_OF_SUBJECT.search(envelope.subject)
    if found is None:
        raise ValueError("the event names neither a document nor a page")
    return int(found[1])


_OUTCOMES = {
    EventType.STAGE_FAILED.value: _FAILED,
    EventType.STAGE_COMPLETED.value: _COMPLETED,
    EventType.STAGE_RETRYING.value: _RETRYING,
}
_READERS: dict[str, Callable[[Facts, Envelope, bytes], None]] = {
    EventType.STAGE_STARTED.value: _stage_event,
    EventType.STAGE_COMPLETED.value: _stage_event,
    EventType.STAGE_FAILED.value: _stage_event,
    EventType.STAGE_RETRYING.value: _stage_event,
    EventType.JOB_ADMITTED.value: _job_admitted,
    EventType.JOB_REJECTED.value: _job_rejected,
    EventType.LETTER_REDRIVEN.value: _letter_decided,
    EventType.LETTER_DROPPED.value: _letter_decided,
}
