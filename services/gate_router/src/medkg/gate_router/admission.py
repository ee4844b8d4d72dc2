"""Admitting jobs: resolve the pipeline, pin it, let the first page of the source wait for room."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from medkg.contracts import topics
from medkg.contracts.cloudevents import Envelope, Message, message, now, schema_uri, trace_parent
from medkg.contracts.errors import PipelineConfigError
from medkg.contracts.ids import stable_id
from medkg.contracts.jobs import MAX_SHOWN, SELECTIONS, JobSubmission
from medkg.contracts.messages import EventType, Fault, JobAdmitted, JobRejected, StageRequest, encode
from medkg.contracts.topology import Topology
from medkg.gate_router.door import Selections, Submitted, read_job_event, refused_id
from medkg.gate_router.parking import page_wait
from medkg.gate_router.pipelines import Pipelines
from medkg.runtime.fan_out import first_page
from medkg.runtime.records import Record
from medkg.runtime.topologies import PinnedTopologies, TopologyLoader
from medkg.storage.waits import Admission, Wait, Waits

SOURCE = "medkg/gate-router"


@dataclass(frozen=True, slots=True)
class Admitter:
    """Decides about job events. ``clock`` gives microseconds since 1970."""

    waits: Waits
    loader: TopologyLoader
    pinned: Pipelines | PinnedTopologies
    page_documents: int
    clock: Callable[[], int] = lambda: time.time_ns() // 1_000
    selections: Selections = field(default_factory=lambda: SELECTIONS)
    parked: Callable[[Sequence[Wait]], None] = lambda _: None

    async def admit(self, records: Sequence[Record]) -> list[Message]:
        """What is to be said about these job events. The admitted ones wait for room when this returns.

        Raises:
            ResourceUnavailableError: the blob store or the database does not answer.
        """
        messages: list[Message] = []
        accepted: list[_Accepted] = []
        for record in records:
            event = read_job_event(record, self.selections)
            topology, faults = self._resolve(event)
            if event.submission is None or topology is None:
                messages.append(_rejection(event, faults, record))
            else:
                accepted.append(_Accepted(record, event, event.submission, topology))
        for one in accepted:
            await self.pinned.pin(one.topology)
        admissions = await self.waits.admit([one.admission(self.clock()) for one in accepted])
        held: dict[str, Wait] = {}
        for one in accepted:
            admission = admissions[one.event.job_id]
            if admission.tenant_id != one.submission.tenant_id:
                messages.append(_taken(one))
                continue
            topology = one.topology
            if admission.digest != topology.digest:  # admitted before, and the pipeline has changed since
                topology = await self.pinned.get(admission.digest)
            wait = self._hold_first_page(admission, one.submission, topology)
            held.setdefault(wait.wait_id, wait)
            messages.append(_announcement(one.event, admission, one.submission, topology))
        await self.waits.park(list(held.values()))
        self.parked(list(held.values()))
        return messages

    def _resolve(self, event: Submitted) -> tuple[Topology | None, tuple[Fault, ...]]:
        submission = event.submission
        if submission is None:
            return None, event.faults
        try:
            if submission.pipeline is None:
                return self.loader.resolve(submission.source), ()
            topology = self.loader.get(submission.pipeline, submission.pipeline_version)
        except PipelineConfigError as error:
            at = event.data_at + ("/source" if submission.pipeline is None else "/pipeline")
            known = ", ".join(sorted(self.loader.names()))
            return None, (Fault(at, error.message[:MAX_SHOWN], f"known: {known}"[:MAX_SHOWN]),)
        if topology.applicable_sources and submission.source not in topology.applicable_sources:
            sources = ", ".join(topology.applicable_sources)
            return None, (
                Fault(
                    f"{event.data_at}/pipeline",
                    f"{topology.name} does not read {submission.source!r}",
                    f"it reads: {sources}",
                ),
            )
        return topology, ()

    def _hold_first_page(self, admission: Admission, submission: JobSubmission, topology: Topology) -> Wait:
        bare = StageRequest(
            job_id=admission.job_id,
            tenant_id=admission.tenant_id,
            stage=topology.entry.name,
            pipeline=topology.ref,
            revision=admission.revision,
        )
        request = first_page(bare, submission.source, submission.selection, limit=self.page_documents)
        return page_wait(request, self.page_documents)


@dataclass(frozen=True, slots=True)
class _Accepted:
    record: Record
    event: Submitted
    submission: JobSubmission
    topology: Topology

    def admission(self, revision: int) -> Admission:
        return Admission(self.event.job_id, self.submission.tenant_id, self.topology.digest, revision)


def _taken(one: _Accepted) -> Message:
    """The refusal of an event whose source and id are those of another tenant's job, which it must not touch."""
    fault = Fault("/headers/ce_id", "another job has this source and id", "give every job an id of its own")
    event = replace(one.event, job_id=refused_id(one.record), event_id="")
    return _rejection(event, (fault,), one.record)


def _announcement(event: Submitted, admission: Admission, submission: JobSubmission, topology: Topology) -> Message:
    about = JobAdmitted(
        job_id=admission.job_id,
        tenant_id=admission.tenant_id,
        source=submission.source,
        pipeline=topology.ref,
        revision=admission.revision,
        selection=submission.selection,
        topology=topology.canonical_json,
    )
    return _event(EventType.JOB_ADMITTED, admission.job_id, event.event_id, "job-admitted", about)


def _rejection(event: Submitted, faults: tuple[Fault, ...], record: Record) -> Message:
    about = JobRejected(event.job_id, faults, event.tenant_id, record.position)
    return _event(EventType.JOB_REJECTED, event.job_id, event.event_id, "job-rejected", about)


def _event(kind: EventType, job_id: str, causation: str, schema: str, about: msgspec.Struct) -> Message:
    identity = stable_id("event", kind, job_id)
    envelope = Envelope(
        id=identity,
        type=kind,
        source=SOURCE,
        time=now(),
        subject=job_id,
        dataschema=schema_uri(schema),
        partitionkey=job_id,
        correlationid=job_id,
        causationid=causation,
        traceparent=trace_parent(stable_id("trace", job_id, job_id), identity),
    )
    return message(topics.LIFECYCLE, envelope, encode(about))
