"""What a worker publishes about one request: next requests and lifecycle events. Pure; ids are deterministic."""

from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from typing import Protocol

import msgspec
from msgspec.structs import replace

from medkg.contracts import topics
from medkg.contracts.cloudevents import (
    FIXED_HEADERS,
    Cause,
    Envelope,
    Headers,
    Message,
    message,
    now,
    now_header,
    schema_uri,
    time_header,
    trace_parent,
)
from medkg.contracts.context import Metadata
from medkg.contracts.errors import MedkgError, error_code
from medkg.contracts.ids import stable_id
from medkg.contracts.messages import (
    Artefact,
    DeadLetter,
    EventType,
    Failure,
    PageReport,
    StageEvent,
    StageRequest,
    encode,
)
from medkg.contracts.routing import Route, artefacts_for, route_after, route_after_failure
from medkg.contracts.topology import Topology
from medkg.runtime.records import TENANT_HEADER, Record

_REQUEST_SCHEMA = schema_uri("stage-request")
_EVENT_SCHEMA = schema_uri("stage-event")
DEAD_LETTER_HEADER = "medkg_dead_letter"


def request_id(request: StageRequest) -> str:
    """The id of a request: from job, document (or page), stage, the branch it came by, attempt and redrive."""
    r = request
    again = (f"redrive-{r.redrive}",) if r.redrive else ()
    return stable_id("request", r.job_id, r.doc_id, r.page, r.stage, r.arrived_from, r.attempt, *again)


def request_message(topic: str, request: StageRequest, source: str, causation: str = "", trace: str = "") -> Message:
    """A request as an event, keyed by its document (a page: by its job)."""
    identity = request_id(request)
    key = request.doc_id or request.job_id
    envelope = Envelope(
        id=identity,
        type=EventType.STAGE_REQUESTED,
        source=source,
        time=now(),
        subject=request.subject,
        dataschema=_REQUEST_SCHEMA,
        partitionkey=key,
        tenantid=request.tenant_id,
        correlationid=request.job_id,
        causationid=causation,
        traceparent=trace_parent(trace or stable_id("trace", request.job_id, key), identity),
    )
    return message(topic, envelope, encode(request))


class Done(msgspec.Struct, frozen=True, gc=False):
    """A run that succeeded."""

    artefacts: tuple[Artefact, ...] = ()
    metadata: Metadata | None = None  # what it adds to the document's metadata
    duration_ms: float = 0.0
    reused: bool = False


class Caused(Protocol):
    """An event that leads to others: an Envelope, or a Cause."""

    @property
    def id(self) -> str: ...

    @property
    def traceparent(self) -> str: ...


class Narrator:
    """Tells what happens to one request: all messages about it come from here.

    ``source`` is the CloudEvents source, ``medkg/SERVICE``; ``cause`` the event that asked for the request.
    """

    __slots__ = ("_about_document", "_trace", "cause", "request", "source", "stage_type", "worker")

    def __init__(self, worker: str, source: str, stage_type: str, cause: Caused, request: StageRequest) -> None:
        self.worker = worker
        self.source = source
        self.stage_type = stage_type
        self.cause = cause
        self.request = request
        # What all messages about a document say alike, written once.
        self._about_document: Headers = [
            ("ce_subject", request.subject.encode()),
            ("ce_partitionkey", (request.doc_id or request.job_id).encode()),
            (TENANT_HEADER, request.tenant_id.encode()),
            ("ce_correlationid", request.job_id.encode()),
            ("ce_causationid", cause.id.encode()),
        ]
        self._trace: Headers = [("ce_traceparent", cause.traceparent.encode())] if cause.traceparent else []

    def of_document(self, doc_id: str) -> "Narrator":
        """The same of one document of a page."""
        request = replace(self.request, doc_id=doc_id, page=0)
        trace = trace_parent(stable_id("trace", request.job_id, doc_id), self.cause.id)
        return Narrator(self.worker, self.source, self.stage_type, Cause(self.cause.id, trace), request)

    def started(self, at: float | None = None) -> Message:
        """``at``: when that was (seconds since 1970), unless it is now."""
        return self._event(EventType.STAGE_STARTED, self._about(), at)

    def retrying(self, failure: Failure, attempt: int, backoff_seconds: float) -> Message:
        about = self._about(attempt=attempt, failure=failure, backoff_ms=round(backoff_seconds * 1000, 3))
        return self._event(EventType.STAGE_RETRYING, about)

    def failed(
        self, failure: Failure, record: Record, duration_ms: float, topology: Topology | None = None
    ) -> list[Message]:
        """The dead letter and the event that says so.

        With a topology whose joins tolerate that this branch fails, the document goes on to them without it.
        """
        is_known = topology is not None and self.request.stage in topology.by_name  # a message may name any stage
        route = route_after_failure(topology, self.request.stage) if topology is not None and is_known else None
        about = self._about(
            failure=failure, position=record.position, duration_ms=duration_ms, tolerated=route is not None
        )
        letter = dead_letter(record, failure, self.worker, self.request)
        said = [letter, self._event(EventType.STAGE_FAILED, about)]
        return said if route is None else [*self._without_branch(route, failure), *said]

    def completed(self, topology: Topology, done: Done) -> list[Message]:
        """What follows a stage: the next requests and the event that says so."""
        request = self.request
        metadata = request.metadata | done.metadata if done.metadata else request.metadata
        route = route_after(topology, request.stage, metadata)
        made = {artefact.kind: artefact for artefact in done.artefacts}
        following = self.next_requests(topology, route, request.doc_id, request.artefacts | made, metadata)
        about = self._about(
            duration_ms=done.duration_ms,
            reused=done.reused,
            next=tuple(dict.fromkeys(step.stage for step in route.steps)),
            skipped=route.skipped,
            finished_leaves=route.finished_leaves,
            leaves=len(topology.leaves),
            artefacts=tuple(a.without_inline() for a in done.artefacts),
            metadata=done.metadata or {},
        )
        return [*following, self._event(EventType.STAGE_COMPLETED, about)]

    def passed(self, route: Route, topology: Topology) -> Message:
        """The event for a join that led to no further stage: what the route skipped and finished."""
        about = self._about(
            reused=True, skipped=route.skipped, finished_leaves=route.finished_leaves, leaves=len(topology.leaves)
        )
        return self._event(EventType.STAGE_COMPLETED, about)

    def ended(self, topology: Topology) -> list[Message]:
        """A document leaves its pipeline here: every end that is left counts as reached."""
        leaves = topology.leaves
        about = self._about(reused=True, finished_leaves=leaves, leaves=len(leaves))
        return [self._event(EventType.STAGE_COMPLETED, about)]

    def page_completed(self, report: PageReport, duration_ms: float, following: Iterable[Message]) -> list[Message]:
        """What follows a page of a source; ``following`` are the requests of its documents and the next page."""
        about = self._about(duration_ms=duration_ms, page=report)
        return [*following, self._event(EventType.STAGE_COMPLETED, about)]

    def next_requests(
        self,
        topology: Topology,
        route: Route,
        doc_id: str,
        artefacts: dict[str, Artefact],
        metadata: Metadata,
    ) -> list[Message]:
        """One request for each step of a route."""
        request = self.request
        messages = []
        for stage, topic, arrived_from in route.steps:
            following = StageRequest(
                job_id=request.job_id,
                tenant_id=request.tenant_id,
                doc_id=doc_id,
                stage=stage,
                pipeline=request.pipeline,
                revision=request.revision,
                redrive=request.redrive,
                arrived_from=arrived_from,
                artefacts=artefacts_for(topology, stage, artefacts),
                metadata=metadata,
            )
            messages.append(self.follow(topic, following))
        return messages

    def _without_branch(self, route: Route, failure: Failure) -> list[Message]:
        """What the joins of a route are told of a branch that has failed."""
        request = self.request
        return [
            self.follow(
                step.topic,
                StageRequest(
                    job_id=request.job_id,
                    tenant_id=request.tenant_id,
                    doc_id=request.doc_id,
                    stage=step.stage,
                    pipeline=request.pipeline,
                    revision=request.revision,
                    redrive=request.redrive,
                    arrived_from=step.arrived_from,
                    branch_failure=failure,
                ),
            )
            for step in route.steps
        ]

    def follow(self, topic: str, request: StageRequest) -> Message:
        """A request caused by this one, in the trace of its document."""
        if request.doc_id != self.request.doc_id or not request.doc_id:
            return request_message(topic, request, self.source, self.cause.id)
        identity = request_id(request)
        trace = self.cause.traceparent[3:35] or stable_id("trace", request.job_id, request.doc_id)
        headers = [
            *_constant_headers(self.source, EventType.STAGE_REQUESTED, _REQUEST_SCHEMA),
            *self._about_document,
            ("ce_id", identity.encode()),
            now_header(),
            ("ce_traceparent", trace_parent(trace, identity).encode()),
        ]
        return Message(topic, request.doc_id, encode(request), headers)

    def _about(self, **fields: object) -> StageEvent:
        request = self.request
        given: dict[str, object] = {"attempt": request.attempt} | fields
        return StageEvent(
            job_id=request.job_id,
            tenant_id=request.tenant_id,
            doc_id=request.doc_id,
            stage=request.stage,
            stage_type=self.stage_type,
            pipeline=request.pipeline,
            revision=request.revision,
            redrive=request.redrive,
            worker=self.worker,
            **given,  # type: ignore[arg-type]  # checked by the tests of every event
        )

    def _event(self, kind: EventType, about: StageEvent, at: float | None = None) -> Message:
        request = self.request
        again = (f"redrive-{about.redrive}",) if about.redrive else ()
        identity = stable_id(
            "event", kind, request.job_id, request.doc_id, request.page, about.stage, about.attempt, *again
        )
        headers = [
            *_constant_headers(self.source, kind, _EVENT_SCHEMA),
            *self._about_document,
            ("ce_id", identity.encode()),
            now_header() if at is None else time_header(at),
            *self._trace,
        ]
        if about.failure is not None:
            headers.append(("ce_errorcode", error_code(about.failure.code).encode()))
        return Message(topics.LIFECYCLE, request.doc_id or request.job_id, encode(about), headers)


@lru_cache(maxsize=256)
def _constant_headers(source: str, kind: EventType, schema: str) -> Headers:
    """The headers that all messages of one kind from one service share."""
    return [
        *FIXED_HEADERS,
        ("ce_type", kind.encode()),
        ("ce_source", source.encode()),
        ("ce_dataschema", schema.encode()),
    ]


def dead_letter(record: Record, failure: Failure, worker: str, request: StageRequest | None = None) -> Message:
    """The message as it was (key, headers, value), with the reason in one more header."""
    about = DeadLetter(
        failure=failure,
        position=record.position,
        worker=worker,
        worker_version=_own_version(),
        stage=request.stage if request else "",
        attempt=request.attempt if request else 0,
        redrive=request.redrive if request else 0,
        job_id=request.job_id if request else "",
        tenant_id=request.tenant_id if request else "",
        doc_id=request.doc_id if request else "",
    )
    headers = [header for header in record.headers if header[0] != DEAD_LETTER_HEADER]
    headers.append((DEAD_LETTER_HEADER, encode(about)))
    return Message(topics.DEAD_LETTER, key=record.key, value=record.value, headers=headers)


@lru_cache(maxsize=1)
def _own_version() -> str:
    return version("medkg-runtime")


def failure_of(error: MedkgError) -> Failure:
    """An error as it stands in events and dead letters, with the chain of its causes."""
    causes: list[str] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and len(causes) < 8:  # a chain is a hint for a reader, not a log
        causes.append(writable(f"{type(cause).__name__}: {cause}"[:500]))
        cause = cause.__cause__ or cause.__context__
    return Failure(
        code=error.code,
        message=writable(error.message[:2_000]),
        disposition=error.disposition.value,
        retryable=error.retryable,
        causes=tuple(causes),
    )


def writable(text: str) -> str:
    """Half of a surrogate pair (as in a file name that is not UTF-8) is written as an escape: nothing can encode it."""
    return text.encode(errors="backslashreplace").decode()
