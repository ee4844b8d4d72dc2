"""What the gateway answers, as the command line reads it.

A field of a newer gateway is ignored; a missing one has a default.
"""

from typing import Any

import msgspec

from medkg.contracts.messages import Fault, PipelineRef


class Submitted(msgspec.Struct, frozen=True):
    """``state`` is ``admitted``, or ``submitted`` where the gate-router has not spoken yet."""

    job_id: str
    state: str


class Counts(msgspec.Struct, frozen=True):
    """Documents of a job. ``skipped``: their content was unchanged and nothing had to be done."""

    documents: int = 0
    completed: int = 0
    skipped: int = 0
    failed: int = 0
    rejected: int = 0
    in_flight: int = 0

    @property
    def finished(self) -> int:
        return self.completed + self.skipped + self.failed + self.rejected


class Pages(msgspec.Struct, frozen=True):
    """Pages of the source: how many are read, whether the last one is among them, records in all where it is known."""

    done: int = 0
    last_seen: bool = False
    total_records: int | None = None


class StageCount(msgspec.Struct, frozen=True):
    """One stage of a job. ``reused`` of ``completed`` had been done by an earlier run."""

    stage: str
    started: int = 0
    completed: int = 0
    failed: int = 0
    retrying: int = 0
    reused: int = 0
    mean_ms: float | None = None

    @property
    def done(self) -> int:
        return self.completed + self.failed


class Waiting(msgspec.Struct, frozen=True):
    """Something that waits: held pages, gates, joins, retries."""

    kind: str
    count: int = 0
    oldest_since: str | None = None
    detail: str | None = None


class FailureCount(msgspec.Struct, frozen=True):
    """Why documents failed or were rejected: how many for this code at this stage, and what to do about it."""

    code: str
    stage: str = ""
    count: int = 0
    remedy: str = ""


class Job(msgspec.Struct, frozen=True):
    job_id: str
    state: str
    tenant_id: str | None = ""
    source: str | None = ""
    pipeline: PipelineRef | None = None
    admitted_at: str | None = None
    finished_at: str | None = None
    counts: Counts = Counts()
    pages: Pages = Pages()
    stages: tuple[StageCount, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    faults: tuple[Fault, ...] = ()
    failures: tuple[FailureCount, ...] = ()

    @property
    def is_finished(self) -> bool:
        return self.state in {"completed", "completed_with_failures", "rejected"}

    @property
    def has_failures(self) -> bool:
        return self.state == "rejected" or self.counts.failed + self.counts.rejected > 0


class JobList(msgspec.Struct, frozen=True):
    jobs: tuple[Job, ...] = ()
    next: str | None = None


class DocumentFailure(msgspec.Struct, frozen=True):
    stage: str | None = ""
    code: str | None = ""
    message: str | None = ""


class StageRun(msgspec.Struct, frozen=True):
    """One line of a document's timeline."""

    stage: str
    state: str
    attempt: int = 1
    duration_ms: float | None = None
    reused: bool = False


class JobDocument(msgspec.Struct, frozen=True):
    doc_id: str
    source_id: str | None = ""
    uri: str | None = ""
    state: str = "in_flight"
    current_stage: str | None = ""
    failure: DocumentFailure | None = None
    timeline: tuple[StageRun, ...] = ()


class DocumentList(msgspec.Struct, frozen=True):
    documents: tuple[JobDocument, ...] = ()
    next: str | None = None


class ScoreShare(msgspec.Struct, frozen=True):
    """What one kind of search gave to a passage's score."""

    leg: str
    rank: int
    score: float = 0.0
    weight: float = 0.0
    share: float = 0.0


class NeighbourPassage(msgspec.Struct, frozen=True):
    """A passage beside a hit in its document."""

    ordinal: int = 0
    text: str = ""


class Hit(msgspec.Struct, frozen=True):
    """A passage that answers a search."""

    rank: int
    score: float
    text: str
    title: str | None = ""
    source: str | None = ""
    source_id: str | None = ""
    section_path: tuple[str, ...] = ()
    legs: dict[str, int | None] = {}
    explanation: tuple[ScoreShare, ...] = ()
    rerank_score: float | None = None
    neighbours: tuple[NeighbourPassage, ...] = ()
    ordinal: int = 0
    also: int = 0


class SearchResult(msgspec.Struct, frozen=True):
    """``legs_missing`` are the indexes that did not answer, ``missing`` says why. ``more``: a further page exists."""

    hits: tuple[Hit, ...] = ()
    legs_missing: tuple[str, ...] = ()
    missing: dict[str, str] = {}
    more: bool = False
    took_ms: float | None = None


class EntityName(msgspec.Struct, frozen=True):
    entity_id: str
    type: str | None = ""
    name: str | None = ""


class GraphEntity(msgspec.Struct, frozen=True):
    entity_id: str
    type: str | None = ""
    name: str | None = ""
    aliases: tuple[str, ...] = ()
    identifiers: dict[str, str] = {}
    documents: int = 0


class Evidence(msgspec.Struct, frozen=True):
    """Where a claim was read: a mention in a passage of a document."""

    doc_id: str = ""
    title: str | None = ""
    source: str | None = ""
    source_id: str | None = ""
    section_path: tuple[str, ...] = ()
    text: str | None = ""
    mention: Any = None  # the words themselves, or an object that has them in `text`

    @property
    def mentioned(self) -> str:
        found = self.mention.get("text") if isinstance(self.mention, dict) else self.mention
        return found if isinstance(found, str) else ""


class GraphClaim(msgspec.Struct, frozen=True):
    claim_id: str
    subject: EntityName
    predicate: str
    object: EntityName | None = None
    value: str | None = None
    qualifiers: dict[str, str] = {}
    confidence: float = 1.0
    method: str | None = ""
    evidence: tuple[Evidence, ...] = ()


class GraphResult(msgspec.Struct, frozen=True):
    entities: tuple[GraphEntity, ...] = ()
    claims: tuple[GraphClaim, ...] = ()


class Position(msgspec.Struct, frozen=True):
    topic: str = ""
    partition: int = 0
    offset: int = 0


class DeadLetterEntry(msgspec.Struct, frozen=True):
    id: str | int
    job_id: str | None = ""
    tenant_id: str | None = ""
    doc_id: str | None = ""
    stage: str | None = ""
    attempt: int | None = 0
    code: str | None = ""
    message: str | None = ""
    causes: tuple[str, ...] | None = ()
    disposition: str | None = ""
    worker: str | None = ""
    position: Position | None = None
    at: str | None = None
    redrive: int | None = 0
    worker_version: str | None = ""
    state: str | None = "dead"
    letter: Position | None = None
    decided: "LetterDecided | None" = None


class LetterDecided(msgspec.Struct, frozen=True):
    """When a letter was redriven or dropped, by whom and why."""

    at: str | None = None
    by: str | None = ""
    reason: str | None = ""


class DeadMessage(msgspec.Struct, frozen=True):
    """A message as it was; bytes in base64."""

    id: str
    value: str
    key: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class LetterOutcome(msgspec.Struct, frozen=True):
    id: str
    state: str = ""
    topic: str | None = ""
    redrive: int | None = 0


class DeadLetterList(msgspec.Struct, frozen=True):
    dead_letters: tuple[DeadLetterEntry, ...] = ()


class Rejection(msgspec.Struct, frozen=True):
    """A job event that was not accepted, with all that is wrong with it."""

    job_id: str | None = ""
    tenant_id: str | None = ""
    faults: tuple[Fault, ...] = ()
    position: Position | None = None
    at: str | None = None


class RejectionList(msgspec.Struct, frozen=True):
    rejections: tuple[Rejection, ...] = ()


class FleetStatus(msgspec.Struct, frozen=True):
    """``services`` and ``stores`` are shown as they come: each service describes itself."""

    broker: Any = None
    services: tuple[Any, ...] = ()
    jobs: dict[str, int] = {}
    documents: dict[str, int] = {}
    waiting: tuple[Waiting, ...] = ()
    rejections: int = 0
    dead_letters: int = 0
    stores: dict[str, Any] = {}


class ErrorBody(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""
    hint: str | None = ""
    faults: tuple[Fault, ...] = ()


class ErrorAnswer(msgspec.Struct, frozen=True):
    error: ErrorBody
