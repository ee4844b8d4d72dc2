"""What follows when a wait ends: the messages for each row, decided without a database and without a broker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from medkg.contracts import topics
from medkg.contracts.cloudevents import Envelope, Message, message, now, read_envelope, schema_uri
from medkg.contracts.errors import (
    Disposition,
    GateConditionError,
    MedkgError,
    PipelineConfigError,
    all_errors,
)
from medkg.contracts.ids import stable_id
from medkg.contracts.messages import (
    REQUEST_DECODER,
    Artefact,
    EventType,
    Failure,
    LetterDecision,
    StageRequest,
    encode,
)
from medkg.contracts.routing import route_into
from medkg.contracts.stages import GATE_PRODUCES, StageType
from medkg.contracts.topology import GateDefinition, OnTimeout, Topology
from medkg.gate_router.parking import DECODE_ORIGIN
from medkg.runtime.outcome import Done, Narrator, failure_of, request_message
from medkg.runtime.records import Record
from medkg.storage.parsed_files import ParsedFile

Parsed = Mapping[tuple[str, str], ParsedFile]  # what is known of files, by tenant and SHA-256


@dataclass(frozen=True, slots=True)
class Following:
    """Writes what follows a row of :mod:`medkg.storage.waits`. ``source`` is the CloudEvents source of the router."""

    worker: str
    source: str

    def page(self, row: Any) -> list[Message]:
        """The page is asked for."""
        return [request_message(StageType.INGEST.topic, REQUEST_DECODER.decode(row.request), self.source)]

    def retry(self, row: Any) -> list[Message]:
        """The request goes back to its stage."""
        narrator = self.narrator(row)
        return [narrator.follow(row.next_topic, replace(narrator.request, not_before_ms=0))]

    def passed(self, row: Any, topology: Topology, parsed: Parsed) -> list[Message]:
        """The document goes on where its gate says, with what it has waited for.

        Raises:
            GateConditionError: its gate brings a document, and nobody knows one.
        """
        narrator, gate = self.narrator(row), topology.by_name.get(row.stage)
        document = self._brought(row, parsed)
        if document is None and isinstance(gate, GateDefinition) and _needs_document(narrator.request, gate, topology):
            raise GateConditionError(
                f"passing gate {row.stage!r}: {row.ledger_field} is set, but no parsed document of its file "
                f"({row.file_sha256 or 'none came with it'}) is recorded; record it before setting the field"
            )
        return narrator.completed(topology, Done((document,) if document else (), reused=True))

    def unparsed(self, row: Any, topology: Topology, parsed: Parsed) -> list[Message]:
        """What the gate waits for will never come: its file cannot be parsed."""
        known = parsed.get((row.tenant_id, row.file_sha256))
        code = known.failure_code if known and known.failure_code else GateConditionError.code
        reason = known.failure_message if known and known.failure_message else "the ledger says pdf_ir_failed"
        rejected = {each.code for each in all_errors() if each.disposition is Disposition.REJECTED}
        disposition = Disposition.REJECTED if code in rejected else Disposition.FAILED
        failure = Failure(code, f"waiting at gate {row.stage!r}: {reason}"[:2_000], disposition.value)
        return self._given_up(row, topology, failure)

    def expired(self, row: Any, topology: Topology) -> list[Message]:
        """The gate has run out of patience."""
        due = f"{row.due_at:%Y-%m-%d %H:%M:%S %Z}"
        reason = f"waiting at gate {row.stage!r}: {row.ledger_field} was not {row.equals!r} by {due}"
        return self._given_up(row, topology, failure_of(GateConditionError(reason)))

    def joined(self, rows: Sequence[Any], topology: Topology) -> list[Message]:
        """One request with the outputs of all branches that succeeded, merged in the order of their names."""
        branches = [REQUEST_DECODER.decode(row.request) for row in rows]
        sound = [branch for branch in branches if branch.branch_failure is None]
        artefacts = {kind: artefact for branch in sound for kind, artefact in branch.artefacts.items()}
        metadata = {name: value for branch in sound for name, value in branch.metadata.items()}
        narrator = self.narrator(rows[0])
        route = route_into(topology, rows[0].stage, metadata)
        messages = narrator.next_requests(topology, route, narrator.request.doc_id, artefacts, metadata)
        if route.skipped or route.finished_leaves:
            messages.append(narrator.passed(route, topology))
        return messages

    def by_hand(self, rows: Sequence[Any], topology: Topology, parsed: Parsed) -> list[Message]:
        """What an operator has decided about a wait; of a join ``rows`` are the branches that have come."""
        row = rows[0]
        if row.verdict == "fail":
            reason = f"waiting at {row.stage!r}: failed by {row.decided_by}: {row.decided_why}"
            return self._failed(row, failure_of(GateConditionError(reason)), topology)
        if row.kind == "retry":
            return self.retry(row)
        if row.kind == "join":
            return self.joined(rows, topology)
        narrator, document = self.narrator(row), self._brought(row, parsed)
        reopened = [self._reopened(row, narrator)] if row.resumes and row.on_timeout == OnTimeout.FAIL else []
        return [*reopened, *narrator.completed(topology, Done((document,) if document else (), reused=True))]

    def failed(self, row: Any, error: MedkgError, topology: Topology | None = None) -> list[Message]:
        """The document has failed here."""
        return self._failed(row, failure_of(error), topology)

    def narrator(self, row: Any) -> Narrator:
        """Who tells what happens to the request of a row."""
        request, headers = REQUEST_DECODER.decode(row.request), self._record(row).headers
        if not headers:  # the first page of a job: nobody asked for it but this router
            headers = request_message(StageType.INGEST.topic, request, self.source).headers
        if row.resumes:  # taken up after its end: what follows is a round of its own
            request = replace(request, redrive=request.redrive + row.resumes)
        stage_type = StageType.GATE if request.doc_id else StageType.INGEST
        return Narrator(self.worker, self.source, stage_type.value, read_envelope(headers), request)

    def _given_up(self, row: Any, topology: Topology, failure: Failure) -> list[Message]:
        """What a gate does with a document whose condition did not come true: as its ``on_timeout`` says."""
        narrator, gate = self.narrator(row), topology.by_name.get(row.stage)
        if isinstance(gate, GateDefinition) and gate.on_timeout is OnTimeout.RELEASE:
            return narrator.completed(topology, Done(reused=True))
        if isinstance(gate, GateDefinition) and gate.on_timeout is OnTimeout.SKIP:
            return narrator.ended(topology)
        return self._failed(row, failure, topology)

    def _failed(self, row: Any, failure: Failure, topology: Topology | None) -> list[Message]:
        return self.narrator(row).failed(failure, self._record(row), 0.0, topology)

    def _reopened(self, row: Any, narrator: Narrator) -> Message:
        """Tells the ledger that a document which had failed at its gate is under way again."""
        request, record = narrator.request, self._record(row)
        about = LetterDecision(
            position=record.position,
            redrive=request.redrive - 1,
            job_id=request.job_id,
            tenant_id=request.tenant_id,
            doc_id=request.doc_id,
            stage=request.stage,
            actor=row.decided_by or "",
            reason=row.decided_why or "",
        )
        identity = stable_id("event", EventType.LETTER_REDRIVEN, row.wait_id, request.redrive)
        envelope = Envelope(
            id=identity,
            type=EventType.LETTER_REDRIVEN,
            source=self.source,
            time=now(),
            subject=request.subject,
            dataschema=schema_uri("letter-decision"),
            partitionkey=request.doc_id,
            correlationid=request.job_id,
            traceparent=narrator.cause.traceparent,
        )
        return message(topics.LIFECYCLE, envelope, encode(about))

    def _brought(self, row: Any, parsed: Parsed) -> Artefact | None:
        known = parsed.get((row.tenant_id, row.file_sha256)) if row.file_sha256 else None
        if known is None or not known.is_ready or row.ledger_field not in GATE_PRODUCES:
            return None
        kind = GATE_PRODUCES[row.ledger_field]
        return Artefact(kind, known.document_sha256, known.document_bytes, known.document_key)

    def _record(self, row: Any) -> Record:
        return DECODE_ORIGIN(row.origin).record(row.request)


def _needs_document(request: StageRequest, gate: GateDefinition, topology: Topology) -> bool:
    """Whether a stage after the gate reads what the gate should bring and the document does not have yet."""
    kind = GATE_PRODUCES.get(gate.condition.ledger_field)
    return kind is not None and kind not in request.artefacts and kind in topology.kinds_needed[gate.name]


def unread_too_long(row: Any) -> MedkgError:
    """Why a document whose pipeline nobody has is given up."""
    return PipelineConfigError(
        f"waiting at {row.stage!r}: its pinned pipeline was found neither in the blob store nor in the ledger "
        f"by {row.due_at:%Y-%m-%d %H:%M:%S %Z}"
    )
