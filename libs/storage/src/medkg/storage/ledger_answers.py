"""What the ledger answers, in the shape in which it is shown. Times are RFC 3339 by way of ``datetime``, in UTC."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Pipeline:
    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Documents of a job: ``documents`` is the sum of the others."""

    documents: int
    completed: int
    skipped: int
    failed: int
    rejected: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of the source that have been read; ``total_records`` where the source says how many there are."""

    done: int
    last_seen: bool
    total_records: int | None


@dataclass(frozen=True, slots=True)
class StageCount:
    """Runs of one stage: ``started`` of them began; ``reused`` of the ``completed`` had nothing to do."""

    stage: str
    started: int
    completed: int
    failed: int
    retrying: int
    reused: int
    mean_ms: float | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits at the gate-router: how many of a kind, since when the oldest, and for what."""

    kind: str
    count: int
    oldest_since: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class FaultAnswer:
    pointer: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Why documents of a job failed or were rejected: how many for this code at this stage, and what to do about it."""

    code: str
    stage: str
    count: int
    remedy: str


@dataclass(frozen=True, slots=True)
class Job:
    job_id: str
    tenant_id: str
    source: str
    state: str
    pipeline: Pipeline | None
    admitted_at: datetime | None
    finished_at: datetime | None
    selection: dict[str, Any]
    counts: Counts
    pages: Pages
    stages: tuple[StageCount, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    faults: tuple[FaultAnswer, ...] = ()
    failures: tuple[FailureCount, ...] = ()


@dataclass(frozen=True, slots=True)
class FailureAnswer:
    stage: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StageRun:
    stage: str
    state: str
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: float
    reused: bool
    worker: str
    failure: FailureAnswer | None
    redrive: int = 0


@dataclass(frozen=True, slots=True)
class JobDocument:
    doc_id: str
    source_id: str
    uri: str
    state: str
    current_stage: str
    failure: FailureAnswer | None
    timeline: tuple[StageRun, ...] = ()


@dataclass(frozen=True, slots=True)
class PositionAnswer:
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class LetterQuery:
    """Which dead letters; what is left empty is not asked about. ``following``: those after this one in the list."""

    dead_letter_id: str = ""
    job_id: str = ""
    stage: str = ""
    code: str = ""
    state: str = ""
    died_before: datetime | None = None
    died_after: datetime | None = None
    following: str = ""


@dataclass(frozen=True, slots=True)
class LetterDecided:
    """When a dead letter was redriven or dropped, by whom, and why."""

    at: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetterAnswer:
    """A message that could not be handled. ``position`` is its own, ``letter`` that of what is kept of it.

    ``state``: ``dead``, ``redriven`` or ``dropped``; ``decided`` says when and why. ``redrive``: the round it died in.
    """

    id: str
    job_id: str
    tenant_id: str
    doc_id: str
    stage: str
    attempt: int
    code: str
    message: str
    causes: tuple[str, ...]
    disposition: str
    worker: str
    position: PositionAnswer
    at: datetime
    redrive: int = 0
    worker_version: str = ""
    state: str = "dead"
    letter: PositionAnswer | None = None
    decided: LetterDecided | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    job_id: str
    tenant_id: str
    faults: tuple[FaultAnswer, ...]
    position: PositionAnswer | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at a glance, over all tenants."""

    jobs: dict[str, int]
    documents: dict[str, int]
    waiting: tuple[Waiting, ...]
    rejections: int
    dead_letters: int
