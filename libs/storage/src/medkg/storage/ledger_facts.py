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
    EventType,
    Failure,
    Fault,
    JobAdmitted,
    JobRejected,
    LetterDecision,
    PageReport,
    PipelineRef,
    Position,
    encode,
)
from medkg.contracts.stages import StageType
from medkg.storage.ledger import STAGE_RANKS
from medkg.storage.ledger_merge import Row
from medkg.storage.ledger_rows import (
    DOCUMENT_FAILURES,
    DOCUMENT_ORIGINS,
    DOCUMENTS,
    JOBS,
    LETTER_DECISIONS,
    PAGES,
    REJECTIONS,
    STAGE_RUNS,
)
from medkg.storage.ledger_said import Setting, StageSaid, check_pipeline, clean, name, number, read_stage_event

MAX_MESSAGE = 4_000  # characters of a failure's message that are kept
MAX_TOPIC = 249  # the longest name of a topic
MAX_REASON = 1_000  # characters of why a dead letter was redriven or dropped
MAX_ADDRESS = 4_096  # characters of a source id or URI that are kept
MAX_DURATION_MS = 1e10  # of one run, 115 days: the sum over 900,000 of them still fits into a bigint of microseconds
_PAGE_OF_SUBJECT = re.compile(r"/page-([0-9]{1,15})$")
_NONE: frozenset[str] = frozenset()
_NO_RETRIES: dict[str, int] = {}
_NO_REASON = Failure(code="internal_error", message="the event gives no reason")

_FAILED, _COMPLETED, _RETRYING = 0, 1, 2  # outcomes of a run; the lowest wins

_ADMITTED_DECODER = msgspec.json.Decoder(JobAdmitted)
_REJECTED_DECODER = msgspec.json.Decoder(JobRejected)
_DECISION_DECODER = msgspec.json.Decoder(LetterDecision)
_OWNED = slice(
    DOCUMENTS.columns.index("tenant_id"), DOCUMENTS.columns.index("is_known") + 1
)  # alike in all events of it
_DID_WORK, _FINISHED, _LEAVES = (DOCUMENTS.columns.index(name) for name in ("did_work", "finished_leaves", "leaves"))
_TYPE = STAGE_RUNS.columns.index("stage_type")
_STARTED = slice(STAGE_RUNS.columns.index("started_at"), STAGE_RUNS.columns.index("started_by") + 1)
_ENDED = slice(STAGE_RUNS.columns.index("outcome"), STAGE_RUNS.columns.index("failure_message") + 1)


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
    origins: dict[tuple[str, str], Row] = field(default_factory=dict)
    documents: dict[tuple[str, str], Row] = field(default_factory=dict)
    failures: dict[tuple[str, str], Row] = field(default_factory=dict)
    runs: dict[tuple[str, str, int, str, int, int], Row] = field(default_factory=dict)
    pages: dict[tuple[str, int], Row] = field(default_factory=dict)
    decisions: dict[str, Row] = field(default_factory=dict)
    rejections: dict[str, Row] = field(default_factory=dict)
    topologies: dict[str, Row] = field(default_factory=dict)
    gated: set[tuple[str, str]] = field(default_factory=set)
    spans: dict[Setting, list[datetime]] = field(default_factory=dict)  # first and last event of each stage of each job
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
    for setting, span in facts.spans.items():
        for at in span:
            _add_job(facts, *setting.job, at)
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


@lru_cache(maxsize=1_024)
def _worker(value: str) -> str:
    return clean(value, 200)


def _stage_event(facts: Facts, envelope: Envelope, data: bytes) -> None:
    at = event_time(envelope.time)
    setting, said = read_stage_event(data)
    if said.doc_id:
        _document_event(facts, envelope.type, setting, said)
        if envelope.type == EventType.STAGE_FAILED and not said.tolerated:
            _add_failure(facts, setting, said, said.doc_id, at, said.failure or _NO_REASON)
        _run(facts, envelope.type, setting, said, at, 0)
    else:
        page = _page_number(envelope, said.page)
        _page_event(facts, envelope.type, setting, said, at, page)
        _run(facts, envelope.type, setting, said, at, page)
    span = facts.spans.get(setting)
    if span is None:
        facts.spans[setting] = [at, at]
    elif at > span[1]:
        span[1] = at
    elif at < span[0]:
        span[0] = at


def _document_event(facts: Facts, kind: str, setting: Setting, said: StageSaid) -> None:
    """What a stage says of its document. Where it is follows from its runs, and is written nowhere else."""
    key = (setting.job_id, said.doc_id)
    row = facts.documents.get(key)
    is_completed = kind == EventType.STAGE_COMPLETED
    did_work = is_completed and setting.is_work and not said.reused
    leaves = said.leaves if is_completed else 0
    if row is None or kind == EventType.STAGE_RETRYING or setting.is_gating or row[_OWNED] != setting.owned:
        _add_document(facts, kind, setting, said, key, did_work=did_work, leaves=leaves)
        return
    # merged by hand, by the rules of DOCUMENTS: most events of a batch come here
    if did_work:
        row[_DID_WORK] = True
    row[_LEAVES] = max(row[_LEAVES], leaves)
    if is_completed and said.finished_leaves:
        row[_FINISHED] |= frozenset(said.finished_leaves)


def _add_document(
    facts: Facts, kind: str, setting: Setting, said: StageSaid, key: tuple[str, str], *, did_work: bool, leaves: int
) -> None:
    is_completed = kind == EventType.STAGE_COMPLETED
    is_downloaded = is_completed and setting.stage_type == StageType.DOWNLOAD
    # one that skips its document, because it gave up, starts nothing
    is_released = is_completed and setting.stage_type == StageType.GATE and bool(said.next)
    if is_downloaded or is_released:
        facts.gated.add(key)
    retries = {setting.stage: max(said.attempt - 1, 0)} if kind == EventType.STAGE_RETRYING else _NO_RETRIES
    ends = frozenset(said.finished_leaves) if is_completed else _NONE
    row: Row = [*key, *setting.owned, retries, is_downloaded, is_released, did_work, ends, leaves]
    DOCUMENTS.add_to(facts.documents, key, row)


def _page_event(facts: Facts, kind: str, setting: Setting, event: StageSaid, at: datetime, number: int) -> None:
    if kind == EventType.STAGE_COMPLETED:
        if event.page is None:
            raise ValueError(f"{setting.stage} has completed without a document or a page report")
        _page_done(facts, setting, event, event.page, at)
    elif kind == EventType.STAGE_FAILED:
        failure = event.failure or _NO_REASON
        row: Row = [setting.job_id, number, False, False, 0, 0, None, None]
        row += [-event.redrive, at, clean(failure.code, 200), clean(failure.message, MAX_MESSAGE)]
        row += [frozenset((_round(setting.stage, event.redrive),)), frozenset()]
        PAGES.add_to(facts.pages, (setting.job_id, number), row)
        _add_job(facts, *setting.job, at, max_page=number)


def _page_done(facts: Facts, setting: Setting, event: StageSaid, page: PageReport, at: datetime) -> None:
    for document in page.documents:
        origin = (page.number, clean(document.source_id, MAX_ADDRESS), clean(document.uri, MAX_ADDRESS))
        _add_origin(facts, setting, document.doc_id, at, origin)
    for refused in page.refused:
        origin = (page.number, clean(refused.source_id, MAX_ADDRESS), clean(refused.uri, MAX_ADDRESS))
        # never became a document, whatever kept it from being one: rejected
        failure = msgspec.structs.replace(refused.failure, disposition=Disposition.REJECTED.value)
        _add_origin(facts, setting, refused.doc_id, at, origin)
        _add_failure(facts, setting, event, refused.doc_id, at, failure)
    documents = len({document.doc_id for document in page.documents})
    refusals = len({document.doc_id for document in page.refused})
    row = [setting.job_id, page.number, True, page.is_last, documents, refusals, page.total, at, None, None, "", ""]
    row += [frozenset(), frozenset()]
    PAGES.add_to(facts.pages, (setting.job_id, page.number), row)
    last = page.number if page.is_last else -1
    _add_job(facts, *setting.job, at, last_page=last, max_page=page.number, total=page.total)


def _add_origin(facts: Facts, setting: Setting, doc_id: str, at: datetime, origin: tuple[int, str, str]) -> None:
    row: Row = [setting.job_id, doc_id, *setting.owned, *origin]
    row += [at, STAGE_RANKS.get(setting.stage_type, 0), setting.stage, at]
    DOCUMENT_ORIGINS.add_to(facts.origins, (setting.job_id, doc_id), row)


def _add_failure(facts: Facts, setting: Setting, event: StageSaid, doc_id: str, at: datetime, failure: Failure) -> None:
    is_rejected = failure.disposition == Disposition.REJECTED
    disposition = Disposition.REJECTED if is_rejected else Disposition.FAILED
    row: Row = [setting.job_id, doc_id, setting.tenant_id, True, -event.redrive, at, setting.stage]
    row += [clean(failure.code, 200), clean(failure.message, MAX_MESSAGE), disposition.value]
    row += [frozenset((_round(setting.stage, event.redrive),)), frozenset()]
    DOCUMENT_FAILURES.add_to(facts.failures, (setting.job_id, doc_id), row)


def _round(stage: str, redrive: int) -> str:
    """What a failure, and the redriving of it, are known by in a document."""
    return f"{stage}#{redrive}"


def _run(facts: Facts, kind: str, setting: Setting, said: StageSaid, at: datetime, page: int) -> None:
    key = (setting.job_id, said.doc_id, page, setting.stage, said.attempt, said.redrive)
    known = facts.runs.get(key)
    worker = _worker(said.worker)
    if kind == EventType.STAGE_STARTED:
        if known is not None and known[_STARTED.start] is None and known[_TYPE] == setting.type_kept:
            known[_STARTED] = (at, worker)  # the rule of a tuple: what is absent is replaced whole
            return
        row: Row = [*key, setting.type_kept, at, worker, None, None, "", 0, "", "", False]
    else:
        failure = said.failure
        code, why = (clean(failure.code, 200), clean(failure.message, MAX_MESSAGE)) if failure else ("", "")
        duration = round(min(max(said.duration_ms, 0.0), MAX_DURATION_MS) * 1000)
        ended = (_OUTCOMES[kind], at, worker, duration, code, why)
        did_work = kind == EventType.STAGE_COMPLETED and not said.reused
        if known is not None and known[_ENDED.start] is None and known[_TYPE] == setting.type_kept:
            known[_ENDED] = ended
            known[_ENDED.stop] = did_work  # of a run that has no end yet it was not said
            return
        row = [*key, setting.type_kept, None, "", *ended, did_work]
    STAGE_RUNS.add_to(facts.runs, key, row)


def _job_admitted(facts: Facts, envelope: Envelope, data: bytes) -> None:
    job = _ADMITTED_DECODER.decode(data)
    at = event_time(envelope.time)
    name("job_id", job.job_id)
    name("tenant_id", job.tenant_id)
    check_pipeline(job.pipeline)
    number("revision", job.revision)
    admitted = (at, clean(job.source, 200), encode(job.selection).decode())
    _add_job(facts, job.job_id, job.tenant_id, job.pipeline, job.revision, at, admitted=admitted)
    is_sound = job.topology == clean(job.topology, len(job.topology))
    if job.topology and is_sound and content_digest(job.topology.encode()) == job.pipeline.digest:
        facts.topologies[job.pipeline.digest] = [job.pipeline.digest, job.topology]


def _job_rejected(facts: Facts, envelope: Envelope, data: bytes) -> None:
    job = _REJECTED_DECODER.decode(data)
    at = event_time(envelope.time)
    job_id = name("job_id", job.job_id) if job.job_id else ""
    tenant_id = name("tenant_id", job.tenant_id) if job.tenant_id else ""
    faults = encode([_fault(fault) for fault in job.faults[:MAX_FAULTS]]).decode()
    where = job.position
    if where is not None:
        _check_position(where)
    at_topic = clean(where.topic, MAX_TOPIC) if where else ""
    place = (at_topic, where.partition, where.offset) if where else None
    identity = letter_id(*place) if place else job_id or name("id", envelope.id)
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
        DOCUMENT_ORIGINS.add_to(facts.origins, key, row)
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


def _check_decision(about: LetterDecision) -> None:
    _check_position(about.position)
    number("redrive", about.redrive)
    number("page", about.page)
    for what in ("job_id", "tenant_id", "stage"):
        if about.job_id:
            name(what, getattr(about, what))
    if about.doc_id:
        name("doc_id", about.doc_id)
    if not about.job_id and (about.tenant_id or about.doc_id or about.stage):
        raise ValueError("it names a tenant, a document or a stage, but no job")


def _check_position(position: Position) -> None:
    number("partition", position.partition)
    number("offset", position.offset)
    if position.partition >= 2**31:
        raise ValueError(f"partition {position.partition} is out of range")


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
