"""What waits, as rows: pages for room, documents at a gate for the ledger, branches at a join for each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from medkg.contracts.cloudevents import Headers, Message
from medkg.contracts.errors import ContractError, PipelineConfigError
from medkg.contracts.ids import stable_id
from medkg.contracts.messages import StageRequest, encode
from medkg.contracts.stages import StageType
from medkg.contracts.topology import GateDefinition
from medkg.runtime.outcome import Narrator, dead_letter, failure_of
from medkg.runtime.records import Record
from medkg.runtime.requests import read_request
from medkg.runtime.topologies import PinnedTopologies
from medkg.storage.waits import Wait, WaitKind, Waits


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
    """Turns arrivals on the gate topic into rows."""

    waits: Waits
    pinned: PinnedTopologies
    worker: str
    source: str
    page_documents: int

    async def park(self, records: Sequence[Record]) -> list[Message]:
        """Let these requests wait; what cannot wait becomes a dead letter. Arrivals are announced as started stages.

        Raises:
            ResourceUnavailableError: the database or the blob store does not answer.
        """
        waits: list[Wait] = []
        messages: list[Message] = []
        for record in records:
            try:
                envelope, request = read_request(record)
            except ContractError as error:
                messages.append(dead_letter(record, failure_of(error), self.worker))
                continue
            narrator = Narrator(self.worker, self.source, StageType.GATE.value, envelope, request)
            try:
                wait = await self._wait(request, _origin(record))
            except (PipelineConfigError, ContractError) as error:
                messages += narrator.failed(failure_of(error), record, 0.0)
                continue
            waits.append(wait)
            if wait.kind is WaitKind.GATE:
                messages.append(narrator.started())
        await self.waits.park(waits)
        return messages

    async def _wait(self, request: StageRequest, origin: Origin) -> Wait:
        if not request.doc_id:
            return page_wait(request, self.page_documents, origin)
        topology = await self.pinned.get(request.pipeline.digest)
        stage = topology.by_name.get(request.stage)
        if isinstance(stage, GateDefinition):
            return _wait(
                WaitKind.GATE,
                request,
                origin,
                needed=1,
                ledger_field=stage.condition.ledger_field,
                equals=msgspec.json.encode(stage.condition.equals).decode(),
                timeout_seconds=stage.timeout_seconds,
            )
        if request.stage in topology.joins:
            return _wait(WaitKind.JOIN, request, origin, needed=len(topology.predecessors[request.stage]))
        raise PipelineConfigError(
            f"waiting at {request.stage!r}: it is neither a gate nor a join of {topology.name} {topology.version}"
        )


def page_wait(request: StageRequest, page_documents: int, origin: Origin = _NOWHERE) -> Wait:
    """A page of a source that waits until its tenant has room for ``page_documents`` more."""
    return _wait(WaitKind.PAGE, request, origin, needed=page_documents)


def _wait(
    kind: WaitKind,
    request: StageRequest,
    origin: Origin,
    *,
    needed: int,
    ledger_field: str | None = None,
    equals: str | None = None,
    timeout_seconds: float | None = None,
) -> Wait:
    branch = request.arrived_from if kind is WaitKind.JOIN else ""
    return Wait(
        wait_id=stable_id("wait", kind, request.job_id, request.doc_id, request.page, request.stage, branch),
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
    )


def _origin(record: Record) -> Origin:
    headers = tuple((name, value.decode(errors="replace")) for name, value in record.headers if value is not None)
    return Origin(record.topic, record.partition, record.offset, headers)
