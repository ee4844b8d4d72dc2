"""Releasing what waits: woken by the ledger and the router's own arrivals, and by a sweep that misses nothing."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from medkg.contracts.cloudevents import Message, read_envelope
from medkg.contracts.errors import (
    ContractError,
    GateConditionError,
    MedkgError,
    PipelineConfigError,
    ResourceUnavailableError,
)
from medkg.contracts.messages import REQUEST_DECODER
from medkg.contracts.routing import route_into
from medkg.contracts.stages import StageType
from medkg.contracts.topology import GateDefinition, OnTimeout, Topology
from medkg.gate_router.parking import DECODE_ORIGIN
from medkg.gate_router.settings import RouterSettings
from medkg.runtime.outcome import Done, Narrator, failure_of, request_message
from medkg.runtime.records import Record
from medkg.runtime.topologies import PinnedTopologies
from medkg.runtime.worker import Delivers
from medkg.storage.transactions import translated
from medkg.storage.waits import Waits

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Releaser:
    """Publishes what no longer has to wait. Any number of routers may run one."""

    waits: Waits
    pinned: PinnedTopologies
    publisher: Delivers
    settings: RouterSettings
    worker: str
    source: str
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Something has changed that may release something."""
        self._wake.set()

    async def run(self) -> None:
        """Release until cancelled. A database or broker that does not answer is waited for."""
        forgotten_at = time.monotonic()
        while True:
            self._wake.clear()
            try:
                async with translated("releasing"):
                    while await self.release_once():
                        pass
                    if time.monotonic() - forgotten_at > self.settings.forget_seconds:
                        forgotten_at = time.monotonic()
                        await self.waits.forget_finished()
            except ResourceUnavailableError as error:
                log.warning("%s; looking again in %s s", error.message, self.settings.sweep_seconds)
            try:
                async with asyncio.timeout(self.settings.sweep_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def release_once(self) -> int:
        """Release what is due now, up to a bounded number of each kind. Returns how many waits ended."""
        pages = await self.waits.release_pages(self._publish_pages, tenant_bound=self.settings.tenant_documents)
        gates = await self.waits.release_gates(self._publish_gates)
        expired = await self.waits.release_expired(self._publish_expired)
        joins = await self.waits.release_joins(self._publish_joins)
        return pages + gates + expired + joins

    async def _publish_pages(self, rows: Sequence[Any]) -> None:
        outcomes = []
        for row in rows:
            request = REQUEST_DECODER.decode(row.request)
            outcomes.append((row, [request_message(StageType.INGEST.topic, request, self.source)]))
        await self._publish(outcomes)

    async def _publish_gates(self, rows: Sequence[Any]) -> None:
        await self._publish([(row, await self._or_failure(row, self._passed(row))) for row in rows])

    async def _publish_expired(self, rows: Sequence[Any]) -> None:
        await self._publish([(row, await self._or_failure(row, self._expired(row))) for row in rows])

    async def _publish_joins(self, rows: Sequence[Any]) -> None:
        groups = [list(group) for _, group in groupby(rows, key=lambda row: (row.job_id, row.doc_id, row.stage))]
        await self._publish([(group[0], await self._or_failure(group[0], self._joined(group))) for group in groups])

    async def _publish(self, outcomes: Sequence[tuple[Any, list[Message]]]) -> None:
        """Publish what follows each row; what Kafka refuses for good becomes a dead letter of its row."""
        refused = await self.publisher.publish([item for _, messages in outcomes for item in messages])
        letters: list[Message] = []
        index = 0
        for row, messages in outcomes:
            reasons = [refused[at] for at in range(index, index + len(messages)) if at in refused]
            index += len(messages)
            if reasons:
                letters += self._failed(row, ContractError(f"releasing {row.stage!r}: Kafka refuses it: {reasons[0]}"))
        if letters and (still := await self.publisher.publish(letters)):
            raise ResourceUnavailableError(f"publishing dead letters: Kafka refuses them: {next(iter(still.values()))}")

    async def _or_failure(self, row: Any, following: Awaitable[list[Message]]) -> list[Message]:
        """What follows a row; its failure where its topology is not what it was when the row was parked."""
        try:
            return await following
        except (ContractError, PipelineConfigError) as error:
            return self._failed(row, error)

    async def _passed(self, row: Any) -> list[Message]:
        narrator = self._narrator(row)
        return narrator.completed(await self._topology(narrator), Done(reused=True))

    async def _expired(self, row: Any) -> list[Message]:
        narrator = self._narrator(row)
        topology = await self._topology(narrator)
        gate = topology.by_name.get(row.stage)
        if isinstance(gate, GateDefinition) and gate.on_timeout is OnTimeout.RELEASE:
            return narrator.completed(topology, Done(reused=True))
        if isinstance(gate, GateDefinition) and gate.on_timeout is OnTimeout.SKIP:
            return narrator.ended(topology)
        return self._failed(row, _too_late(row))

    async def _joined(self, rows: list[Any]) -> list[Message]:
        """One request with the outputs of all branches; branches are merged in the order of their names."""
        branches = [REQUEST_DECODER.decode(row.request) for row in rows]
        artefacts = {kind: artefact for branch in branches for kind, artefact in branch.artefacts.items()}
        metadata = {name: value for branch in branches for name, value in branch.metadata.items()}
        first = self._narrator(rows[0])
        topology = await self._topology(first)
        route = route_into(topology, rows[0].stage, metadata)
        messages = first.next_requests(topology, route, first.request.doc_id, artefacts, metadata)
        if route.skipped or route.finished_leaves:
            messages.append(first.passed(route, topology))
        return messages

    async def _topology(self, narrator: Narrator) -> Topology:
        return await self.pinned.get(narrator.request.pipeline.digest)

    def _failed(self, row: Any, error: MedkgError) -> list[Message]:
        return self._narrator(row).failed(failure_of(error), self._record(row), 0.0)

    def _narrator(self, row: Any) -> Narrator:
        request, headers = REQUEST_DECODER.decode(row.request), self._record(row).headers
        if not headers:  # the first page of a job: nobody asked for it but this router
            headers = request_message(StageType.INGEST.topic, request, self.source).headers
        stage_type = StageType.GATE if request.doc_id else StageType.INGEST
        return Narrator(self.worker, self.source, stage_type.value, read_envelope(headers), request)

    def _record(self, row: Any) -> Record:
        return DECODE_ORIGIN(row.origin).record(row.request)


def _too_late(row: Any) -> MedkgError:
    return GateConditionError(
        f"waiting at gate {row.stage!r}: {row.ledger_field} was not {row.equals!r} by {row.due_at:%Y-%m-%d %H:%M:%S %Z}"
    )
