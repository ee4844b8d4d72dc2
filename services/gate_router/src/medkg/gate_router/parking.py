"""What waits, as rows: pages for room, documents for the ledger, branches for each other, retries for their time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from medkg.contracts.cloudevents import Headers, Message
from medkg.contracts.errors import ContractError, PipelineConfigError
from medkg.contracts.ids import stable_id
from medkg.contracts.messages import StageRequest, encode
from medkg.contracts.routing import topic_of
from medkg.contracts.stages import StageType
from medkg.contracts.topology import GateDefinition, StageDefinition, Topology
from medkg.gate_router.files import Files
from medkg.gate_router.pipelines import Pipelines
from medkg.runtime.outcome import Narrator, dead_letter, failure_of
from medkg.runtime.pinned_topologies import PinnedTopologies, TopologyMissingError
from medkg.runtime.records import Record
from medkg.runtime.requests import read_request
from medkg.storage.waits import Wait, WaitKind, Waits

MAX_UNREAD_SECONDS = 86_400.0  # how long a document waits for a pipeline that nobody has


class Origin(msgspec.Struct, frozen=True):
    """How a request came to the router: kept with it, so that what follows is traced and a failure names its place."""

    topic: str
    partition: int
    offset: int
    headers: tuple[tuple[str, str], ...]

    def record(self, request: str) -> Record:
        """The record as it was."""
        headers: Headers = [(name, value.encode()) for name, value in self.headers]
        key = next((value for name, value in self.headers if name == "ce_partitionkey"), "")
        return Record(self.topic, self.partition, self.offset, key.encode(), request.encode(), headers)


DECODE_ORIGIN = msgspec.json.Decoder(Origin).decode
_NOWHERE = Origin("", 0, 0, ())


@dataclass(frozen=True, slots=True)
class Parker:
    """Turns arrivals on the gate topic into rows. ``parked`` hears of them when they wait."""

    waits: Waits
    pinned: Pipelines | PinnedTopologies
    worker: str
    source: str
    page_documents: int
    files: Files | None = None
    parked: Callable[[Sequence[Wait]], None] = lambda _: None

    async def park(self, records: Sequence[Record]) -> list[Message]:
        """Let these requests wait; what cannot wait becomes a dead letter. Arrivals are announced as started stages.

        Raises:
            ResourceUnavailableError: the database or the blob store does not answer.
        """
        waits: list[Wait] = []
        messages: list[Message] = []
        for record in records:
            try:
                cause, request = read_request(record)
            except ContractError as error:
                messages.append(dead_letter(record, failure_of(error), self.worker))
                continue
            narrator = Narrator(self.worker, self.source, StageType.GATE.value, cause, request)
            origin = _origin(record)
            try:
                wait = await self.wait_of(request, origin)
            except TopologyMissingError:
                wait = unread_wait(request, origin)
            except (PipelineConfigError, ContractError) as error:
                messages += narrator.failed(failure_of(error), record, 0.0)
                continue
            waits.append(wait)
            if wait.kind is WaitKind.GATE:
                messages.append(narrator.started())
        if self.files is not None:
            await self.files.note(waits)
        await self.waits.park(waits)
        self.parked(waits)
        return messages

    async def wait_of(self, request: StageRequest, origin: Origin) -> Wait:
        """What a request waits for.

        Raises:
            PipelineConfigError: nothing that its pipeline knows.
            ContractError: its pipeline, or the file it is about, is not what it should be.
            TopologyMissingError: its pipeline is not known yet.
            ResourceUnavailableError: the blob store does not answer.
        """
        if not request.doc_id and not request.not_before_ms:
            return page_wait(request, self.page_documents, origin)
        topology = await self.pinned.get(request.pipeline.digest)
        stage = topology.by_name.get(request.stage)
        if request.not_before_ms and isinstance(stage, StageDefinition):
            return _wait(WaitKind.RETRY, request, origin, due_ms=request.not_before_ms, next_topic=stage.type.topic)
        if isinstance(stage, GateDefinition):
            return await self._gate_wait(request, origin, topology, stage)
        if request.stage in topology.joins:
            return _wait(WaitKind.JOIN, request, origin, needed=len(topology.predecessors[request.stage]))
        raise PipelineConfigError(
            f"waiting at {request.stage!r}: it is neither a gate nor a join of {topology.name} {topology.version}"
        )

    async def _gate_wait(self, request: StageRequest, origin: Origin, topology: Topology, gate: GateDefinition) -> Wait:
        file = None if self.files is None else await self.files.of(request, gate)
        return _wait(
            WaitKind.GATE,
            request,
            origin,
            ledger_field=gate.condition.ledger_field,
            equals=msgspec.json.encode(gate.condition.equals).decode(),
            timeout_seconds=gate.timeout_seconds,
            resume_stage=gate.resume_stage,
            on_timeout=gate.on_timeout.value,
            next_topic=topic_of(topology, gate.resume_stage) if gate.resume_stage in topology.by_name else "",
            file_sha256=file.sha256 if file else "",
        )


def page_wait(request: StageRequest, page_documents: int, origin: Origin = _NOWHERE) -> Wait:
    """A page of a source that waits until its tenant has room for ``page_documents`` more."""
    return _wait(WaitKind.PAGE, request, origin, needed=page_documents)


def unread_wait(request: StageRequest, origin: Origin) -> Wait:
    """An arrival whose pipeline is not known: it waits until it is, and holds up nobody."""
    return _wait(WaitKind.UNREAD, request, origin, timeout_seconds=MAX_UNREAD_SECONDS)


def _wait(
    kind: WaitKind,
    request: StageRequest,
    origin: Origin,
    *,
    needed: int = 1,
    ledger_field: str | None = None,
    equals: str | None = None,
    timeout_seconds: float | None = None,
    due_ms: int = 0,
    resume_stage: str = "",
    on_timeout: str = "",
    next_topic: str = "",
    file_sha256: str = "",
) -> Wait:
    branch = request.arrived_from if kind in {WaitKind.JOIN, WaitKind.UNREAD} else ""
    again = [f"redrive-{request.redrive}"] if request.redrive else []
    if kind is WaitKind.RETRY or (kind is WaitKind.UNREAD and request.not_before_ms):
        # The same attempt may be parked again and again, while a peer is left alone: each time is a wait of its own.
        again.append(f"attempt-{request.attempt}-{request.not_before_ms}")
    place = (request.job_id, request.doc_id, request.page, request.stage, branch)
    return Wait(
        wait_id=stable_id("wait", kind, *place, *again),
        kind=kind,
        tenant_id=request.tenant_id,
        job_id=request.job_id,
        doc_id=request.doc_id,
        stage=request.stage,
        page=request.page,
        arrived_from=branch,
        needed=needed,
        request=encode(request).decode(),
        origin=msgspec.json.encode(origin).decode(),
        ledger_field=ledger_field,
        equals=equals,
        timeout_seconds=timeout_seconds,
        due_ms=due_ms,
        resume_stage=resume_stage,
        on_timeout=on_timeout,
        next_topic=next_topic,
        file_sha256=file_sha256,
        attempt=request.attempt,
        redrive=request.redrive,
    )


def _origin(record: Record) -> Origin:
    headers = tuple((name, value.decode(errors="replace")) for name, value in record.headers if value is not None)
    return Origin(record.topic, record.partition, record.offset, headers)
