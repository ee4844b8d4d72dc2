"""Lifecycle events one by one, for tests that say what has happened in so many words."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from medkg.contracts.cloudevents import Envelope
from medkg.contracts.ids import content_digest, stable_id
from medkg.contracts.messages import (
    EventType,
    Failure,
    IngestedDocument,
    JobAdmitted,
    JobRejected,
    LetterDecision,
    PageReport,
    PipelineRef,
    Position,
    StageEvent,
    encode,
)

Event = tuple[Envelope, bytes]

STAGES = {"ingest": "IngestStage", "parse": "ParseStage", "check": "ValidateStage", "gate": "Gate", "kg": "KGStage"}
TOPOLOGY = msgspec.json.encode({"stages": [{"name": name} for name in ("ingest", "parse", "check", "kg")]}).decode()
PIPELINE = PipelineRef("small", "1.0", content_digest(TOPOLOGY.encode()))
BEGINNING = datetime(2026, 3, 1, tzinfo=UTC)


def job_id(number: int = 0) -> str:
    return stable_id("job", number)


def doc_id(number: int = 0) -> str:
    return stable_id("document", number)


@dataclass(slots=True)
class Job:
    """Says what happens to one job; a second passes between two events."""

    number: int = 0
    tenant_id: str = "default"
    now: datetime = BEGINNING
    failure: Failure = field(default_factory=lambda: Failure("stage_crashed", "it broke"))

    @property
    def id(self) -> str:
        return job_id(self.number)

    def admitted(self, **fields: Any) -> Event:
        given: dict[str, Any] = {
            "source": "files",
            "pipeline": PIPELINE,
            "revision": 1,
            "selection": {"paths": ["/data"]},
            "topology": TOPOLOGY,
        }
        about = JobAdmitted(job_id=self.id, tenant_id=self.tenant_id, **(given | fields))
        return self.event(EventType.JOB_ADMITTED, encode(about))

    def rejected(self, **fields: Any) -> Event:
        about = JobRejected(**({"job_id": self.id, "tenant_id": self.tenant_id, "faults": ()} | fields))
        return self.event(EventType.JOB_REJECTED, encode(about))

    def page(self, number: int, *documents: int, is_last: bool = False, **fields: Any) -> Event:
        found = tuple(IngestedDocument(doc_id(n), f"NCT{n:08}", f"file:///{n}.json") for n in documents)
        given: dict[str, Any] = {"number": number, "documents": found, "is_last": is_last}
        return self.stage(EventType.STAGE_COMPLETED, "ingest", page=PageReport(**(given | fields)))

    def page_failed(self, number: int) -> Event:
        return self.stage(EventType.STAGE_FAILED, "ingest", subject=f"{self.id}/page-{number}", failure=self.failure)

    def started(self, document: int, stage: str = "parse", **fields: Any) -> Event:
        return self.stage(EventType.STAGE_STARTED, stage, doc_id=doc_id(document), **fields)

    def retrying(self, document: int, stage: str = "parse", **fields: Any) -> Event:
        return self.stage(EventType.STAGE_RETRYING, stage, doc_id=doc_id(document), failure=self.failure, **fields)

    def completed(self, document: int, stage: str = "kg", **fields: Any) -> Event:
        """A stage has completed; ``kg`` is the only end of the pipeline."""
        ends: dict[str, Any] = {"finished_leaves": ("kg",), "leaves": 1} if stage == "kg" else {"leaves": 1}
        return self.stage(EventType.STAGE_COMPLETED, stage, doc_id=doc_id(document), **(ends | fields))

    def failed(self, document: int, stage: str = "parse", **fields: Any) -> Event:
        given = {"failure": self.failure} | fields
        return self.stage(EventType.STAGE_FAILED, stage, doc_id=doc_id(document), **given)

    def redriven(self, document: int | None, stage: str = "parse", *, offset: int = 1, **fields: Any) -> Event:
        """A dead letter goes back to its topic: that of a document, or (None) of a page."""
        return self._decided(EventType.LETTER_REDRIVEN, document, stage, offset, fields)

    def dropped(self, document: int | None, stage: str = "parse", *, offset: int = 1, **fields: Any) -> Event:
        return self._decided(EventType.LETTER_DROPPED, document, stage, offset, fields)

    def _decided(self, kind: EventType, document: int | None, stage: str, offset: int, fields: dict[str, Any]) -> Event:
        given: dict[str, Any] = {
            "position": Position("medkg.parse.v1", 0, offset),
            "job_id": self.id,
            "tenant_id": self.tenant_id,
            "doc_id": "" if document is None else doc_id(document),
            "stage": stage,
            "actor": "ann",
            "reason": "fixed",
        }
        return self.event(kind, encode(LetterDecision(**(given | fields))))

    def stage(self, kind: EventType, stage: str, *, subject: str = "", **fields: Any) -> Event:
        given: dict[str, Any] = {
            "job_id": self.id,
            "tenant_id": self.tenant_id,
            "stage": stage,
            "stage_type": STAGES.get(stage, "ParseStage"),
            "pipeline": PIPELINE,
            "revision": 1,
            "worker": "worker-1",
        }
        return self.event(kind, encode(StageEvent(**(given | fields))), subject=subject)

    def event(self, kind: str, data: bytes, *, subject: str = "", time: str | None = None) -> Event:
        self.now += timedelta(seconds=1)
        at = self.now.isoformat(timespec="milliseconds") if time is None else time
        identity = stable_id("event", kind, data.hex(), at)
        return Envelope(id=identity, type=kind, source="medkg/test", time=at, subject=subject or self.id), data
