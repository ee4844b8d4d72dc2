"""The data of every message that medkg's own services exchange.

Tolerant on reading (a field of a newer worker is ignored), sparse on writing (defaults are left out). What may change
in a ``.v1`` message: fields with a default may be added; nothing is removed, renamed or retyped.
"""

from enum import StrEnum

import msgspec

from medkg.contracts.context import Metadata


class EventType(StrEnum):
    """CloudEvents ``type`` of everything medkg says or hears."""

    JOB_SUBMITTED = "org.medicalkg.job.submitted"
    JOB_ADMITTED = "org.medicalkg.job.admitted"
    JOB_REJECTED = "org.medicalkg.job.rejected"
    JOB_COMPLETED = "org.medicalkg.job.completed"
    STAGE_REQUESTED = "org.medicalkg.stage.requested"
    STAGE_STARTED = "org.medicalkg.orchestration.stage.started"
    STAGE_COMPLETED = "org.medicalkg.orchestration.stage.completed"
    STAGE_FAILED = "org.medicalkg.orchestration.stage.failed"
    STAGE_RETRYING = "org.medicalkg.orchestration.stage.retrying"
    LETTER_REDRIVEN = "org.medicalkg.orchestration.document.redriven"
    LETTER_DROPPED = "org.medicalkg.orchestration.dead-letter.dropped"
    PDF_REQUESTED = "org.medicalkg.pdf.requested"
    DEAD_LETTER = "org.medicalkg.dead-letter"
    BREAKER_CHANGED = "org.medicalkg.breaker.changed"


class PipelineRef(msgspec.Struct, frozen=True):
    """The topology a job is pinned to; ``digest`` is the SHA-256 of its canonical JSON."""

    name: str
    version: str
    digest: str


class Artefact(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something a stage made: inline, in the blob store under ``key`` (claim-check), or both."""

    kind: str
    sha256: str
    size_bytes: int
    key: str = ""
    inline: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_inline(self) -> bool:
        return self.inline is not msgspec.UNSET

    @property
    def is_stored(self) -> bool:
        return self.key != ""

    def without_inline(self) -> "Artefact":
        """The reference alone. Only for an artefact that is stored."""
        return Artefact(kind=self.kind, sha256=self.sha256, size_bytes=self.size_bytes, key=self.key)


class StageRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Work: one stage is asked to run on one document, or (ingest) on one page of a source, where ``doc_id`` is empty.

    ``revision`` is the admission time of the job in microseconds since 1970. ``artefacts`` are the inputs by kind, with
    whatever stages further down still need. ``attempt`` counts from one. ``not_before_ms`` (milliseconds since 1970, on
    the gate topic only) asks the gate-router to hand the request back to its stage then. ``redrive`` counts how often
    the document was taken out of the dead letters: attempts are counted anew each time. ``branch_failure`` says that
    the branch which would have come from ``arrived_from`` failed, and that the join it leads to tolerates it.
    """

    job_id: str
    tenant_id: str
    stage: str
    pipeline: PipelineRef
    revision: int
    doc_id: str = ""
    attempt: int = 1
    page: int = 0
    arrived_from: str = ""  # the stage before; says which branch has come to a gate or a join
    not_before_ms: int = 0
    redrive: int = 0
    branch_failure: "Failure | None" = None
    artefacts: dict[str, Artefact] = {}
    metadata: Metadata = {}

    @property
    def subject(self) -> str:
        """What this is about, for people: ``JOB/DOCUMENT`` or ``JOB/page-N``."""
        return f"{self.job_id}/{self.doc_id or f'page-{self.page}'}"


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a stage did not succeed. ``causes`` is the chain of exceptions below the error, outermost first."""

    code: str
    message: str
    disposition: str = "failed"
    retryable: bool = False
    causes: tuple[str, ...] = ()


class IngestedDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """One document of a page, as the ledger first hears of it."""

    doc_id: str
    source_id: str
    uri: str = ""


class PageReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one page of a source came to. ``refused`` are records that never became a document."""

    number: int
    documents: tuple[IngestedDocument, ...] = ()
    refused: tuple["RefusedInput", ...] = ()
    is_last: bool = False
    total: int | None = None


class RefusedInput(msgspec.Struct, frozen=True, omit_defaults=True):
    doc_id: str
    source_id: str
    uri: str
    failure: Failure


class StageEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Lifecycle: what a worker did with one request. One shape for started, completed, failed and retrying.

    ``reused``: nothing was computed or written, an earlier run had already done it. ``skipped`` are stages whose
    ``when`` left them out; ``finished_leaves`` of ``leaves`` ends of the pipeline were reached by this event.
    ``artefacts`` are references without their content. ``tolerated``: a failure that a join further on takes into
    account; the document goes on without this branch.
    """

    job_id: str
    tenant_id: str
    stage: str
    stage_type: str
    pipeline: PipelineRef
    revision: int
    doc_id: str = ""
    attempt: int = 1
    redrive: int = 0
    worker: str = ""
    duration_ms: float = 0.0
    reused: bool = False
    backoff_ms: float = 0.0
    next: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    finished_leaves: tuple[str, ...] = ()
    leaves: int = 0
    artefacts: tuple[Artefact, ...] = ()
    metadata: Metadata = {}
    failure: Failure | None = None
    tolerated: bool = False
    page: PageReport | None = None
    position: "Position | None" = None


class Position(msgspec.Struct, frozen=True):
    """Where in Kafka a message stood."""

    topic: str
    partition: int
    offset: int


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing wrong with a submitted job. ``pointer`` is a JSON Pointer (RFC 6901) into the event's data."""

    pointer: str
    message: str
    hint: str = ""


class JobAdmitted(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job was accepted and pinned. ``topology`` is the canonical JSON of its pipeline."""

    job_id: str
    tenant_id: str
    source: str
    pipeline: PipelineRef
    revision: int
    selection: dict[str, object]
    topology: str = ""


class JobRejected(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job event that could not be accepted, with every fault found."""

    job_id: str
    faults: tuple[Fault, ...]
    tenant_id: str = ""
    position: Position | None = None


class JobCompleted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The end of a job, with its true counts: documents = completed + skipped + failed + rejected."""

    job_id: str
    tenant_id: str
    state: str
    documents: int
    completed: int
    skipped: int
    failed: int
    rejected: int


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """A replica has opened, probed or closed a breaker; the last one of each name holds for all replicas.

    ``name`` is ``SERVICE.IMPLEMENTATION/POLICY``, for one peer of several with ``@HOST``. ``revision`` (milliseconds
    since 1970, above every one seen) orders changes. Nothing is tried before ``until_ms`` (milliseconds since 1970).
    """

    name: str
    state: BreakerState
    revision: int
    worker: str
    until_ms: int = 0


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Written to the headers of a dead letter as JSON (``medkg_dead_letter``); the message itself is kept as it was."""

    failure: Failure
    position: Position
    worker: str
    worker_version: str = ""
    stage: str = ""
    attempt: int = 0
    redrive: int = 0
    job_id: str = ""
    tenant_id: str = ""
    doc_id: str = ""


class LetterDecision(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What was decided about a dead letter: it goes back to its topic (``redriven``), or nobody will (``dropped``).

    ``position`` is where the message stood that could not be handled, ``redrive`` the round that ended with it: the
    message goes back in the next one. The rest says which document, or (``doc_id`` empty) page, is under way again;
    all of it is empty for a message that could not be read. ``actor`` is whoever decided, as they call themselves.
    """

    position: Position
    redrive: int = 0
    job_id: str = ""
    tenant_id: str = ""
    doc_id: str = ""
    page: int = 0
    stage: str = ""
    actor: str = ""
    reason: str = ""


encode = msgspec.json.Encoder().encode
REQUEST_DECODER = msgspec.json.Decoder(StageRequest)
EVENT_DECODER = msgspec.json.Decoder(StageEvent)
